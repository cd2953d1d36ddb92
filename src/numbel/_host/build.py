"""Make the machine code that a wheel brings (`_machine_code.prebuilt`): `python -m numbel._host.build FOLDER`.

`hatch_build.py` runs it for NUMBEL_BUILD_KERNELS=1. It needs a C compiler's linker, `cc` or what CC names.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._cpu import drivers
from .._machine_code import kernel_cache, prebuilt
from . import warmup

_DTYPES = ("float32", "float64", "float16", "bfloat16")


def targets() -> tuple[str, ...]:
    """The instruction sets that a wheel of this platform serves."""
    machine = platform.machine().lower()
    if sys.platform == "linux" and machine in ("x86_64", "amd64"):
        return "x86-64-v3", "x86-64-v4"
    if sys.platform == "linux" and machine in ("aarch64", "arm64"):
        return ("aarch64",)
    raise SystemExit(f"numbel: no kernels are built for {sys.platform} on {machine}")


def build(folder: Path, sets: Sequence[str], work: list[list[warmup.Spec]]) -> None:
    """Make libraries for instruction sets, and their list, unless they are there, made of the same sources."""
    listed = {
        "sources": kernel_cache.source_hash(),
        "numba": importlib.metadata.version("numba"),  # whose threads they start
    }
    with contextlib.suppress(OSError, ValueError):
        if json.loads((folder / prebuilt.LIST).read_text()).items() >= listed.items():
            return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    digests = {}
    for target in sets:
        library = folder / f"{target}.so"
        with tempfile.TemporaryDirectory() as objects:
            _compile(target, work, Path(objects))
            _link(Path(objects), library)
        digests[target] = hashlib.sha256(library.read_bytes()).hexdigest()
    (folder / prebuilt.LIST).write_text(json.dumps(listed | {"libraries": digests}, indent=1) + "\n")


def _settings(target: str) -> dict[str, str]:
    """Numba's settings that compile for an instruction set, not for this processor."""
    cpu = "generic" if target == "aarch64" else target
    # a cache of its own, or what was compiled for another would be taken
    return {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "NUMBEL_CACHE": "0", "NUMBEL_PREBUILT": "0"}


def _compile(target: str, work: list[list[warmup.Spec]], objects: Path) -> None:
    """Object files of kernels, in parallel processes, and of what runs for no dtype."""
    expected = {spec for specs in work for spec in specs}
    command = [sys.executable, "-m", "numbel._host.build", "--objects", str(objects)]
    warmup.in_processes(command, _settings(target), work, expected.discard)
    if expected:
        raise SystemExit(f"numbel: {' '.join(sorted(expected)[0])} was not compiled for {target}")
    subprocess.run([*command, "--others"], env=_environment(target), check=True)


def _environment(target: str) -> dict[str, str]:
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path} | _settings(target)


def _link(objects: Path, library: Path) -> None:
    """One shared library of them, of which only our own names are seen."""
    exports = objects / "exports"
    exports.write_text("{ global: numbel_*; local: *; };\n")
    names = sorted(str(path) for path in objects.glob("*.o"))
    linked = [f"-Wl,{option}" for option in ("-O1", "-s", "--as-needed", "-z,defs", "-z,noexecstack", "-z,relro")]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    script = f"-Wl,--version-script={exports}"
    subprocess.run(
        [*compiler, "-shared", "-nostdlib", *linked, script, "-o", str(library), *names, "-lm", "-lc"], check=True
    )


def _make(objects: Path, entry: Any) -> None:
    """The object file of an entry point."""
    from .._machine_code.compiler import compile_shared

    code = compile_shared(entry.function, f"numbel_{entry.name}", entry.arguments)
    (objects / f"{entry.name}.o").write_bytes(code)


def _make_others(objects: Path) -> None:
    """The object files of what is made for no dtype, and of what starts the workers."""
    from .._machine_code.compiler import shared_machine

    for each in drivers.ENTRIES:
        _make(objects, each)
    (objects / "fan_out.o").write_bytes(shared_machine().emit_object(_fan_out()))


def _fan_out() -> Any:
    """numbel_fan_out(worker, call, workers, parallel_for): Numba's threads, as `prange` starts them.

    `parallel_for` is the function of Numba's threading layer that its compiled `prange` calls. It hands every thread a
    stretch of the loop, in the form of NumPy's generalised ufuncs: (arrays, counts, strides, data).
    """
    import llvmlite.binding as llvm
    from llvmlite import ir

    word, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
    void, words, pointers = ir.VoidType(), ir.IntType(64).as_pointer(), ir.IntType(8).as_pointer().as_pointer()
    module = ir.Module()
    module.triple = llvm.get_process_triple()

    loop = ir.Function(module, ir.FunctionType(void, [pointers, words, words, pointer]), "workers")
    loop.linkage = "internal"
    arrays, counts, _, _ = loop.args
    start, body, end = (loop.append_basic_block(name) for name in ("start", "body", "end"))
    builder = ir.IRBuilder(start)
    given = builder.bitcast(builder.load(arrays), words)  # (worker, call)
    form = ir.FunctionType(void, [word])
    worker = builder.inttoptr(builder.load(given), form.as_pointer())
    call = builder.load(builder.gep(given, [word(1)]))
    count = builder.load(counts)
    builder.cbranch(builder.icmp_signed(">", count, word(0)), body, end)
    builder = ir.IRBuilder(body)
    done = builder.phi(word)
    builder.call(worker, [call])
    more = builder.add(done, word(1))
    done.add_incoming(word(0), start)
    done.add_incoming(more, body)
    builder.cbranch(builder.icmp_signed("<", more, count), body, end)
    ir.IRBuilder(end).ret_void()

    outer = ir.Function(module, ir.FunctionType(void, [word] * 4), "numbel_fan_out")
    builder = ir.IRBuilder(outer.append_basic_block())
    worker, call, workers, parallel_for = outer.args
    given = builder.alloca(word, 2)
    builder.store(worker, given)
    builder.store(call, builder.gep(given, [word(1)]))
    arrays, counts, strides = builder.alloca(pointer), builder.alloca(word), builder.alloca(word)
    builder.store(builder.bitcast(given, pointer), arrays)
    builder.store(workers, counts)
    builder.store(word(0), strides)
    # (function, arrays, counts, strides, data, inner dimensions, arrays, threads)
    form = ir.FunctionType(void, [pointer, pointers, words, words, pointer, word, word, ir.IntType(32)])
    start_all = builder.inttoptr(parallel_for, form.as_pointer())
    threads = builder.trunc(workers, ir.IntType(32))
    nothing = pointer(None)
    builder.call(
        start_all, [builder.bitcast(loop, pointer), arrays, counts, strides, nothing, word(0), word(1), threads]
    )
    builder.ret_void()
    return llvm.parse_assembly(str(module))


def main(arguments: list[str]) -> None:
    """The command line, and the processes that it starts."""
    if arguments[:1] == ["--objects"] and len(arguments) in (2, 3):
        objects = Path(arguments[1])
        if arguments[2:] == ["--others"]:
            _make_others(objects)
        else:
            warmup.serve(lambda entry: _make(objects, entry))
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        build(Path(arguments[0]), targets(), warmup.kernels(_DTYPES))
    else:
        raise SystemExit("python -m numbel._host.build FOLDER")


if __name__ == "__main__":
    main(sys.argv[1:])
