"""Counts from machine code, the same on every run: they show at once that a loop has stopped vectorising."""

import ast
import hashlib
import importlib
import json
import os
import re
import struct
from pathlib import Path
from typing import Any, cast

from .common import ABSENT, ROOT, absent, bench

_INSTRUCTION = re.compile(r"^\s+([a-z][a-z0-9.]*)\b(.*)$")
# x86: 32- and 64-byte registers, and packed arithmetic in 16-byte ones; AArch64: v registers with lanes
_VECTOR = re.compile(r"%[yz]mm|\bv\d+\.(?:2d|4s|8h|16b)")
_PACKED = re.compile(r"^v?[a-z0-9]+p[sd]$")
_SCALAR = re.compile(r"^v?(?:add|sub|mul|div|sqrt|fn?m(?:add|sub)\d+)s[sd]$|^f(?:add|sub|mul|div|madd|msub)$")
_CALL = re.compile(r"^(?:callq?|blr?)$")
COUNTS = ("instructions", "vector_instructions", "scalar_float_instructions", "calls")


def count(assembly: str) -> dict[str, int]:
    """Instructions in assembly text: all, those of vectors, scalar floating-point arithmetic, and calls."""
    found = dict.fromkeys(COUNTS, 0)
    for line in assembly.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, operands = match.groups()
        found["instructions"] += 1
        if _VECTOR.search(operands) or _PACKED.match(name):
            found["vector_instructions"] += 1
        elif _SCALAR.match(name) and not _VECTOR.search(operands):
            found["scalar_float_instructions"] += 1
        elif _CALL.match(name):
            found["calls"] += 1
    return found


def _kept(folder: Path | None, what: str) -> Path | None:
    """Where counts are kept from one figure to the next: beside the machine code of the same sources."""
    key = hashlib.sha256(Path(__file__).read_bytes() + what.encode()).hexdigest()[:24]
    return None if folder is None else folder / f"code-{key}.json"


def _room(name: str) -> Any:
    """A module of `numbel._machine_code`, which commits up to December 2026 have at the package's root."""
    try:
        return importlib.import_module(f"numbel._machine_code.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"numbel._{name}")


def kernels(work: str) -> dict[str, dict[str, int]]:
    """The kernels that a call runs, by their names, and the counts of their machine code.

    They are compiled once more, to assembly; the counts are kept beside the machine code.
    """
    compiler, drivers = _room("compiler"), cast(Any, importlib.import_module("numbel._cpu.drivers"))
    kept = _kept(_room("kernel_cache").cache_folder(), work)
    if kept is not None and kept.exists():
        return dict(json.loads(kept.read_text()))
    run: dict[str, Any] = {}
    plain = drivers.driver

    def record(worker: str, dtype: str) -> Any:
        entry = plain(worker, dtype).serial
        run[entry.name] = entry
        return plain(worker, dtype)

    drivers.driver = record
    try:
        bench.GRID[work]["numbel"](bench.FULL).call()
    finally:
        drivers.driver = plain
    found = {
        name: count(compiler.assembly_of(entry.function, f"numbel_{name}", entry.arguments))
        for name, entry in run.items()
    }
    if kept is not None:
        kept.write_text(json.dumps(found))
    return found


class CpuCode:
    """Machine code of every kernel that a work runs."""

    timeout = 600
    version = "1"
    params = (list(bench.GRID),)
    param_names = ("work",)
    counts: dict[str, int]

    def setup(self, work: str) -> None:
        try:
            found = list(kernels(work).values())
        except ABSENT as error:
            raise absent(error, work) from error
        if not found:
            raise NotImplementedError(f"{work} runs no kernel of numbel._cpu.drivers")
        self.counts = {name: sum(each[name] for each in found) for name in COUNTS}

    def track_instructions(self, work: str) -> int:
        return self.counts["instructions"]

    def track_scalar_float_instructions(self, work: str) -> int:
        return self.counts["scalar_float_instructions"]

    def track_calls(self, work: str) -> int:
        return self.counts["calls"]

    def track_instructions_outside_vectors(self, work: str) -> float:
        return 1 - self.counts["vector_instructions"] / self.counts["instructions"]

    track_instructions.unit = "instructions"  # type: ignore[attr-defined]
    track_scalar_float_instructions.unit = "instructions"  # type: ignore[attr-defined]
    track_calls.unit = "instructions"  # type: ignore[attr-defined]
    track_instructions_outside_vectors.unit = "of all instructions"  # type: ignore[attr-defined]


# --- CUDA, compiled without a GPU


def cuda_kernel_names() -> list[str]:
    """Names of the CUDA kernels, read from the text: what asv lists must not depend on what is installed."""
    names = []
    for path in sorted((ROOT / "src" / "numbel" / "_cuda").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "kernels":
                tables = [part for part in ast.walk(node) if isinstance(part, ast.Dict)]
                keys = [key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)]
                names += [str(key) for key in keys]
    return names


def cuda_code(name: str, form: str, architecture: tuple[int, int] = (9, 0)) -> dict[str, int]:
    """Registers, spilled bytes and instructions of a kernel for contiguous rows, from ptxas; no driver is asked."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda
    from numba.cuda import dispatcher

    from numbel._cuda import launch

    class Device:
        compute_capability = architecture

    dispatcher.get_current_device = lambda: Device
    tables = [module.kernels(form, "C") for module in launch.MODULES]
    found = [kernel for table in tables for key, kernel in table.items() if key == name]
    if not found:
        raise NotImplementedError(f"there is no CUDA kernel {name}")
    function, signature = found[0]
    ptx, _ = cuda.compile_ptx(function, signature, cc=architecture, launch_bounds=launch.bounds(name, form))
    options = LinkerOptions(arch=f"sm_{architecture[0]}{architecture[1]}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    elf, log = linker.link("cubin").code, linker.get_info_log()
    return {
        "registers": max(int(n) for n in re.findall(r"Used ([0-9]+) registers", log)),
        "spilled_bytes": sum(int(n) for n in re.findall(r"([0-9]+) bytes (?:stack frame|spill)", log)),
        "instructions": _text_bytes(elf) // 16,
    }


def _text_bytes(elf: bytes) -> int:
    """Bytes of instructions in an ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, number, names = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(number)]
    start = sections[names][4]
    return sum(s[5] for s in sections if elf[start + s[0] :].startswith(b".text"))


class CudaCode:
    """Machine code of every CUDA kernel for compute capability 9.0; registers bound how many threads run at once."""

    timeout = 600
    version = "1"
    params = (cuda_kernel_names(), list(bench.DTYPES))
    param_names = ("kernel", "dtype")

    counts: dict[str, int]

    def setup(self, kernel: str, dtype: str) -> None:
        commit = os.environ.get("ASV_COMMIT")
        folder = Path(os.environ["NUMBA_CACHE_DIR"]) if commit else None
        kept = _kept(folder, f"{kernel} {dtype}")
        if kept is not None and kept.exists():
            self.counts = dict(json.loads(kept.read_text()))
            return
        try:
            self.counts = cuda_code(kernel, dtype)
        except ABSENT as error:
            raise absent(error, 'what pip install "numba-cuda[cu13]" brings') from error
        if kept is not None:
            kept.write_text(json.dumps(self.counts))

    def track_registers(self, kernel: str, dtype: str) -> int:
        return self.counts["registers"]

    def track_spilled_bytes(self, kernel: str, dtype: str) -> int:
        return self.counts["spilled_bytes"]

    def track_instructions(self, kernel: str, dtype: str) -> int:
        return self.counts["instructions"]

    track_registers.unit = "registers of a thread"  # type: ignore[attr-defined]
    track_spilled_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_instructions.unit = "instructions"  # type: ignore[attr-defined]
