"""Kernels as machine code of this processor, and their launches."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import os
import pickle
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from .memory import Memory
from .parser import Module, Parameter, PtxError
from .translator import Translator

_PAGE = 4096
_LOW_ADDRESSES = 0x40  # MAP_32BIT
#: What a thread finds in shared and local memory that nobody wrote.
_POISON = 0xA5


class _Code(NamedTuple):
    """Machine code of a kernel, and what a launch must know."""

    name: str
    parameters: list[Parameter]
    parameter_bytes: int
    max_threads: int
    shared_bytes: int
    local_bytes: int
    saved_bytes: int
    object_code: bytes


class Kernel:
    """A kernel's PTX, ready to run over some memory.

    Raises
    ------
    PtxError
        Where the PTX holds what is not known.
    """

    def __init__(self, ptx: str, memory: Memory) -> None:
        code = self.code = _compiled(ptx)
        self.name, self.parameters = code.name, code.parameters
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_code))
        self._engine.finalize_object()
        i64, address, i32 = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32
        kinds = [address, address, address, i64, address, i64, address, i32, i32, i64, i64, i64]
        self._run = ctypes.CFUNCTYPE(i64, *kinds)(self._engine.get_function_address("run"))
        self._fault = (i64 * 5).from_address(self._engine.get_global_value_address("fault"))
        for name, value in (("arena", memory.base), ("arena_bytes", memory.size), ("shadow", memory.shadow)):
            ctypes.c_uint64.from_address(self._engine.get_global_value_address(name)).value = value
        local_bytes = self._engine.get_global_value_address("local_bytes")
        ctypes.c_uint64.from_address(local_bytes).value = code.local_bytes
        self._shared = _low_memory(max(code.shared_bytes, 1))
        self._threads = 0

    def __call__(
        self, parameters: bytes, grid: int, threads: int, seed: int = 1, blocks: tuple[int, int] | None = None
    ) -> None:
        """Launch it: all blocks, or some; `seed` chooses the order of blocks and threads.

        Raises
        ------
        PtxError
            Where an access is refused, threads wait at different barriers, or a thread traps.
        """
        code = self.code
        if not 0 < threads <= code.max_threads:
            raise PtxError(f"{threads} threads of at most {code.max_threads}")
        if len(parameters) != code.parameter_bytes or 2**10 * 3**6 % threads:
            # the order of threads is a permutation where only 2 and 3 divide their number
            raise PtxError(f"{len(parameters)} bytes of parameters, {threads} threads")
        self._reserve(threads)
        given = ctypes.create_string_buffer(parameters, max(len(parameters), 1))
        ctypes.memset(self._shared, _POISON, code.shared_bytes)
        first, last = blocks or (0, grid)
        answer = self._run(
            ctypes.addressof(given), self._shared, self._locals.ctypes.data, code.local_bytes,
            self._saved.ctypes.data, code.saved_bytes, self._resume.ctypes.data, threads, grid, seed, first, last,
        )  # fmt: skip
        if answer:
            raise PtxError(f"{self.name}: {self._reason(answer, threads)}")

    def _reserve(self, threads: int) -> None:
        if threads > self._threads:
            self._threads = threads
            self._saved = np.zeros(threads * self.code.saved_bytes // 8 + 1, np.uint64)
            self._resume = np.zeros(threads, np.int32)
            self._locals = np.zeros(threads * self.code.local_bytes // 16 + 1, np.complex128)
        self._locals.view(np.uint8)[:] = _POISON

    def _reason(self, answer: int, threads: int) -> str:
        address, size, write, block, thread = self._fault
        if answer == 1:
            return f"threads of block {block} wait at different barriers: {Counter(self._resume[:threads].tolist())}"
        if answer == 3:
            return f"a trap of thread {thread} of block {block}"
        said = "misaligned" if address % size else "not allocated"
        return f"thread {thread} of block {block} {'writes' if write else 'reads'} {size} bytes at {address:x}: {said}"


def _compiled(ptx: str) -> _Code:
    """Translated and compiled, or from the folder that NUMBEL_PTX_CACHE names."""
    folder = os.environ.get("NUMBEL_PTX_CACHE")
    if not folder:
        return _compile(ptx)
    path = Path(folder) / hashlib.sha256(f"{_version()}\n{ptx}".encode()).hexdigest()
    try:
        return pickle.loads(path.read_bytes())
    except OSError:
        code = _compile(ptx)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(pickle.dumps(code))
    os.replace(file.name, path)
    return code


def _compile(ptx: str) -> _Code:
    parsed = Module(ptx)
    translated = Translator(parsed)
    module = llvm.parse_assembly(translated.text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    passes = llvm.create_new_module_pass_manager()
    # registers out of memory, and the worst of what that leaves: the whole pipeline takes longer than it saves
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(_target(), options))
    object_code = _target().emit_object(module)
    return _Code(
        parsed.name, parsed.parameters, parsed.parameter_bytes, parsed.max_threads, translated.shared_bytes,
        translated.local_bytes, translated.saved_bytes, object_code,
    )  # fmt: skip


def _target() -> Any:
    """This processor; instructions are chosen fast: most kernels run for less time than they take to compile."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=0, jit=True)


@functools.cache
def _version() -> str:
    """What machine code depends on beside the PTX."""
    digest = hashlib.sha256(repr((llvmlite.__version__, llvm.get_host_cpu_name())).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_kept: list[mmap.mmap] = []


def _low_memory(size: int) -> int:
    """Memory below 2^32, where 32 bits are enough for a shared address."""
    pages = mmap.mmap(-1, -(-size // _PAGE) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _LOW_ADDRESSES)
    _kept.append(pages)
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))
