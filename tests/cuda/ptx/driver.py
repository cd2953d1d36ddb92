"""The real numba-cuda over a libcuda.so.1 without a card: `install` it before anything of CUDA is loaded.

What numba-cuda compiles stays as it is, to the machine code of the card. The PTX that it was made from runs in its
place.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import shutil
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .machine import Kernel
from .memory import SUPPORTED, Memory
from .schedule import Schedule, Stream

NEEDED = 'needs Linux on x86-64, gcc, and python -m pip install "numba-cuda[cu13]" "cuda-toolkit==13.0.*"'
_DEVICES = 8


_NON_BLOCKING = 1
_NOT_READY, _LAUNCH_FAILED = 600, 719


class _Config(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
    ]


class _Stream(ctypes.Structure):
    _fields_ = [("device", ctypes.c_int), ("flags", ctypes.c_int)]


class Counts(ctypes.Structure):
    """How often the driver was called for each of these."""

    _fields_ = [(name, ctypes.c_long) for name in ("allocations", "releases", "copies", "launches", "waits")]


class Compiled(NamedTuple):
    """What numba-cuda compiled or loaded: (kernel, format, layout), None of what is not ours, and its code library."""

    label: tuple[str, str, str] | None
    library: Any
    target: Any


class Launch(NamedTuple):
    """A launch that can be done again, as a graph does."""

    kernel: Kernel
    parameters: bytes
    grid: int
    threads: int
    device: int


_address, _int, _size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_Hooks = {
    "launch": ctypes.CFUNCTYPE(_int, _address, _size, ctypes.c_char_p, ctypes.POINTER(_Config), _address, _int),
    "allocate": ctypes.CFUNCTYPE(_size, _size, _int),
    "release": ctypes.CFUNCTYPE(_int, _size),
    "span": ctypes.CFUNCTYPE(_int, _size, ctypes.POINTER(ctypes.c_uint64 * 3)),
    "schedule": ctypes.CFUNCTYPE(_int, _int, _size, _int, _size, _size, _size),
}


def missing() -> bool:
    """Whether something is missing here that the driver, or a compiler of kernels, needs."""
    try:
        found = all(importlib.util.find_spec(name) for name in ("numba_cuda", "cuda.core", "nvidia.cu13"))
    except ImportError:
        found = False
    return not (found and SUPPORTED and shutil.which("gcc"))


class Driver:
    """The driver's part that is Python's: memory, code and launches."""

    def __init__(self, library: ctypes.CDLL, devices: int) -> None:
        self._library = library
        self.memory = Memory(devices)
        self.compiled: dict[bytes, Compiled] = {}  # by machine code and what lies behind it
        self.label: tuple[str, str, str] | None = None  # of what is being compiled
        self.failures: list[str] = []
        self.seconds: Counter[str] = Counter()
        self.guards_scratch = True  # not where what a call allocates is counted
        self._captured: list[Launch] | None = None
        self._schedule: Schedule | None = None
        self.only: dict[str, tuple[int, int]] = {}  # part of an entry's name: which of its blocks are run
        self._kernels: dict[tuple[int, bytes], Kernel] = {}
        self._seed = 12345
        named = {name: getattr(self, f"_{name}") for name in _Hooks if name != "schedule"} | {"schedule": self._on_card}
        self._hooks = [kind(named[name]) for name, kind in _Hooks.items()]
        table = (ctypes.c_void_p * len(self._hooks)).in_dll(library, "hooks")
        for at, hook in enumerate(self._hooks):
            table[at] = ctypes.cast(hook, ctypes.c_void_p).value
        ctypes.c_int.in_dll(library, "device_count").value = devices

    @property
    def counts(self) -> dict[str, int]:
        """Calls so far."""
        counts = Counts.in_dll(self._library, "counts")
        return {name: getattr(counts, name) for name, _ in Counts._fields_}

    @contextlib.contextmanager
    def _set(self, flag: str) -> Iterator[None]:
        """Set an integer of the driver to 1."""
        value = ctypes.c_int.in_dll(self._library, flag)
        value.value = 1
        try:
            yield
        finally:
            value.value = 0

    def late_copies(self) -> contextlib.AbstractContextManager[None]:
        """Copies from pageable memory arrive when the legacy stream is next waited for."""
        return self._set("copies_are_late")

    def idle(self) -> contextlib.AbstractContextManager[None]:
        """Launches are counted and not run: what is left is the host's part."""
        return self._set("idle")

    @contextlib.contextmanager
    def capturing(self) -> Iterator[list[Launch]]:
        """Launches are kept, to be replayed, and not run; streams say that they are captured."""
        self._captured = kept = []
        try:
            with self._set("capturing"):
                yield kept
        finally:
            self._captured = None

    @contextlib.contextmanager
    def late(self, seed: int) -> Iterator[None]:
        """Nothing is done before somebody waits for it, in an order that a seed chooses. Memory is freed at once."""
        self._schedule = schedule = Schedule(seed)
        try:
            with self._set("scheduled"):
                yield
        finally:
            schedule.reach_all()
            self._schedule = None

    @contextlib.contextmanager
    def some_blocks(self, only: dict[str, tuple[int, int]]) -> Iterator[None]:
        """Of kernels whose name has some part only the CUDA blocks of a range are run."""
        self.only = only
        try:
            yield
        finally:
            self.only = {}

    @contextlib.contextmanager
    def sparse(self) -> Iterator[None]:
        """New memory holds zeros, not poison."""
        poisoned, self.memory.poisoned = self.memory.poisoned, 0
        try:
            yield
        finally:
            self.memory.poisoned = poisoned

    def replay(self, launches: list[Launch]) -> None:
        """Do launches again."""
        for launch in launches:
            self._run(launch)

    def _run(self, launch: Launch) -> None:
        name = launch.kernel.name
        self._seed = (self._seed * 6364136223846793005 + 1442695040888963407) % (1 << 63)
        blocks = next((chosen for part, chosen in self.only.items() if part in name), None)
        begun = time.process_time()
        launch.kernel(launch.parameters, launch.grid, launch.threads, self._seed >> 20, blocks)
        self.seconds["running"] += time.process_time() - begun

    def _launch(self, image: int, size: int, name: bytes, config: Any, pointers: int, device: int) -> int:
        try:
            kernel = self._kernel(image, size, name)
            parameters = bytearray(kernel.code.parameter_bytes)
            given = ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p))
            for at, parameter in enumerate(kernel.parameters):
                value = ctypes.string_at(given[at], parameter.size)
                parameters[parameter.offset : parameter.offset + parameter.size] = value
                self._same_device(value, device)
            config = config.contents
            launch = Launch(kernel, bytes(parameters), config.grid[0], config.block[0], device)
            if self._captured is not None:
                self._captured.append(launch)
            elif self._schedule is not None:
                self._later(_stream(config.stream or 0, device), functools.partial(self._run, launch))
            else:
                self._run(launch)
        except BaseException as error:  # what is raised here ends in C
            self._failed(error)
            return _LAUNCH_FAILED
        return 0

    def _failed(self, error: BaseException) -> None:
        self.failures.append(f"{type(error).__name__}: {error}")
        traceback.print_exc()

    def _later(self, stream: Stream, action: Callable[[], object]) -> None:
        """Do something when it is due; what goes wrong then is a failure."""

        def act() -> None:
            try:
                action()
            except Exception as error:
                self._failed(error)

        assert self._schedule is not None
        self._schedule.add(stream, act)

    def _on_card(self, what: int, handle: int, device: int, a: int, b: int, size: int) -> int:
        """Something of a stream or an event, while there is a schedule; driver.c has the names of `what`."""
        schedule, stream, failed = self._schedule, _stream(handle, device), len(self.failures)
        assert schedule is not None
        if what == 0:  # also of memory of the host, as if it were pinned: who frees it before that is found
            self._later(stream, lambda: self._copy(a, b, size))
        elif what == 1:
            staged = ctypes.create_string_buffer(ctypes.string_at(b, size), size)
            self._later(stream, lambda: self._copy(a, ctypes.addressof(staged), size))
        elif what == 2:
            self._later(stream, lambda: ctypes.memset(a, b, size))
        elif what == 3:
            schedule.record(a, stream)
        elif what == 4:
            schedule.wait(a, stream)
        elif what == 5:
            schedule.reach_stream(stream)
        elif what == 6:
            schedule.reach_event(a)
        elif what == 7:
            schedule.reach_all()
        elif what == 8:
            return 0 if schedule.passed(a) else _NOT_READY
        else:
            self._later(stream, lambda: self.memory.release(a))
        return _LAUNCH_FAILED if len(self.failures) > failed else 0

    def _copy(self, to: int, source: int, size: int) -> None:
        for address in (to, source):
            if size and self.memory.device(address) >= 0 and self.memory.span(address) is None:
                raise ValueError(f"a copy of {size} bytes: memory at {address:x} was freed")
        ctypes.memmove(to, source, size)

    def _same_device(self, value: bytes, device: int) -> None:
        """A pointer into another device's memory is an error: peers are not joined."""
        where = self.memory.device(int.from_bytes(value, "little")) if len(value) == 8 else -1
        assert where in (-1, device), f"memory of device {where} in a launch on device {device}"

    def _kernel(self, image: int, size: int, name: bytes) -> Kernel:
        key = image, name
        if key not in self._kernels:
            begun = time.process_time()
            code = ctypes.string_at(image, size)
            made = next(made for kept, made in self.compiled.items() if kept[:size] == code)
            self._kernels[key] = Kernel("\n".join(made.library.get_asm_strs(made.target)), self.memory)
            self.seconds["translating"] += time.process_time() - begun
            assert self._kernels[key].name == name.decode()
        return self._kernels[key]

    def _allocate(self, size: int, device: int) -> int:
        try:
            return self.memory.allocate(size, device)
        except MemoryError:
            return 0

    def _release(self, address: int) -> int:
        try:
            self.memory.release(address)
        except (ValueError, KeyError):
            return 1
        return 0

    def _span(self, address: int, found: Any) -> int:
        span = self.memory.span(address)
        if span is None:
            return 1
        found.contents[:] = span
        return 0


def _stream(handle: int, device: int) -> Stream:
    """A stream by its handle: 0 and 1 are the legacy one, and 2 is a thread's own."""
    if handle <= 2:
        return Stream(device, handle if handle == 2 else 0, True)
    found = ctypes.cast(handle, ctypes.POINTER(_Stream)).contents
    return Stream(found.device, handle, not found.flags & _NON_BLOCKING)


def install(devices: int = 1) -> Driver:
    """Make the driver, load it, and keep the PTX of what numba-cuda compiles or loads."""
    folder = tempfile.mkdtemp(prefix="numbel-ptx-")
    path = Path(folder) / "libcuda.so.1"
    source = Path(__file__).with_name("driver.c")
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(path), str(source), "-ldl", f"-Wl,-soname,{path.name}"]
    try:
        subprocess.run(command, check=True)
        # by its soname it is what cuda.bindings finds when it looks for the driver
        library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    finally:
        shutil.rmtree(folder)
    driver = Driver(library, devices)
    _keep_compiled(driver)
    return driver


def _keep_compiled(driver: Driver) -> None:
    """Keep what numba-cuda compiles, under our names of it; ptxas says how many registers it took."""
    from numba.cuda import codegen
    from numba.cuda.cudadrv import driver as numba_driver

    plain_cubin, plain_options = codegen.CUDACodeLibrary.get_cubin, numba_driver._Linker._get_linker_options

    def get_cubin(self: Any, cc: Any = None) -> Any:
        target = self._ensure_cc(cc)
        cubin = plain_cubin(self, target)
        code = cubin if isinstance(cubin, bytes) else bytes(cubin.code)
        driver.compiled.setdefault(code, Compiled(driver.label, self, target))
        return cubin

    def options(self: Any, *given: Any, **named: Any) -> Any:
        made = plain_options(self, *given, **named)
        made.ptxas_options = ["-v"]
        return made

    codegen.CUDACodeLibrary.get_cubin = get_cubin
    numba_driver._Linker._get_linker_options = options
