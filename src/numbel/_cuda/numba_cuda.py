"""Every use of what lies below `numba.cuda`: numba-cuda's internals, and the driver by cuda.bindings.

In Numba's simulator streams have no state: nothing is captured there, and every event has passed.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import math
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import config, cuda
from numba.core import types
from numba.np.numpy_support import as_dtype

#: Names in modules of numba-cuda that this module needs; tests say which of them a version lacks.
INTERNALS = (
    "numba.cuda.cudadrv.driver:driver.get_device_count",
    "numba.cuda.cudadrv.nvvm:is_available",
    "numba.cuda.codegen:CUDACodeLibrary.get_cufunc",
    "numba.cuda.dispatcher:_Kernel._prepare_args",
    "numba.cuda.dispatcher:_Kernel._rebuild",
    "numba.cuda.dispatcher:_Kernel._reduce_states",
    "numba.cuda.dispatcher:_Kernel.bind",
    "numba.cuda.serialize:dumps",
    "numba.cuda.utils:numba_target_override",
)
#: How an array arrives in a kernel: meminfo, parent, elements, bytes of one, address, shape, strides.
_ARRAY = "qqqqQ"
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_INSTALL = 'pip install "numbel[cu13]" (or "numbel[cu12]" for a driver of CUDA 12)'


def _mend_simulator() -> None:
    """Take two races out of Numba's simulator, whose threads run a device function at the same time.

    It puts a stand-in for `cuda` into the module of a device function while that runs. The thread that left first put
    the real one back, which has no `shared`, for those inside. And two threads that made a shared array at once got
    an array each.
    """
    from numba.cuda.simulator import kernel, kernelapi

    lock, inside, make = threading.Lock(), collections.Counter[int](), kernelapi.FakeCUDAShared.array

    @contextlib.contextmanager
    def swapped(function: Any, simulated: Any) -> Iterator[None]:
        module = function.__globals__
        with lock:
            names = [name for name, value in module.items() if value is cuda or value is simulated]
            inside[id(module)] += 1
            module.update(dict.fromkeys(names, simulated))
        try:
            yield
        finally:
            with lock:
                inside[id(module)] -= 1
                if not inside[id(module)]:
                    module.update(dict.fromkeys(names, cuda))

    def array(self: Any, shape: Any, dtype: Any, *rest: Any) -> Any:
        if isinstance(shape, int) and shape == 0:  # dynamic shared memory, which is made beforehand
            return make(self, shape, dtype, *rest)
        frame = sys._getframe(1)  # an array is known by the line that makes it
        caller = frame.f_code.co_filename, frame.f_lineno
        with lock:
            if caller not in self._allocations:
                self._allocations[caller] = np.empty(shape, as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)
            return self._allocations[caller]

    kernelapi.FakeCUDAShared.array = array
    kernel.swapped_cuda_module = swapped


if config.ENABLE_CUDASIM:
    _mend_simulator()


def missing() -> str | None:
    """What CUDA lacks here, in a sentence."""
    if config.ENABLE_CUDASIM:
        return None
    if importlib.util.find_spec("numba_cuda") is None:
        return f"CUDA needs numba-cuda: {_INSTALL}"
    from numba.cuda.cudadrv import driver, nvvm

    try:
        if driver.driver.get_device_count() == 0:
            return "no CUDA device is visible: CUDA_VISIBLE_DEVICES may hide it"
    except ImportError as error:  # Numba's CudaSupportError is one
        found = " ".join(str(error).split())
        return f"CUDA needs an NVIDIA driver that works, which nvidia-smi would show: {found}"
    if not nvvm.is_available():
        return f"CUDA needs the toolkit's compiler: {_INSTALL}"
    return None


# ----------------------------------------------------------------------------------------------------------- the driver


@functools.cache
def _driver() -> Any:
    """The driver's functions; an import statement in each caller would cost as much as its call."""
    from cuda.bindings import driver

    return driver


def _said(result: tuple[Any, ...], what: str) -> Any:
    """What a function of the driver returned; ValueError where it failed."""
    if result[0]:
        raise ValueError(f"{what}: {result[0].name}")
    return result[1] if len(result) > 1 else None


def device_of_pointer(pointer: int) -> int:
    """The number of the device where an address lies."""
    driver = _driver()
    ordinal = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_said(driver.cuPointerGetAttribute(ordinal, pointer), f"{pointer:#x} is no address of a CUDA device"))


def stream_id(handle: int) -> int:
    """The number of a stream, which no other stream of the process ever has; a handle may come again."""
    if config.ENABLE_CUDASIM:
        return handle
    return int(_said(_driver().cuStreamGetId(handle), f"{handle:#x} is no CUDA stream"))


def is_capturing(handle: int) -> bool:
    """Whether what is launched on a stream goes into a graph."""
    if config.ENABLE_CUDASIM:
        return False
    driver = _driver()
    status = _said(driver.cuStreamIsCapturing(handle), f"{handle:#x} is no CUDA stream")
    return int(status) != int(driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)


def on_device(device: int) -> contextlib.AbstractContextManager[Any]:
    """Make a device the current one."""
    return contextlib.nullcontext() if config.ENABLE_CUDASIM else cuda.gpus[device]


@contextlib.contextmanager
def beside_captures() -> Iterator[None]:
    """Allow this thread what would end a capture: to allocate, to free, and to ask events."""
    if config.ENABLE_CUDASIM:
        yield
        return
    driver = _driver()
    try:
        result = driver.cuThreadExchangeStreamCaptureMode(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    except RuntimeError:  # a driver that knows no captures
        yield
        return
    before = _said(result, "the mode of captures")
    try:
        yield
    finally:
        driver.cuThreadExchangeStreamCaptureMode(before)


class _Passed:
    """An event of the simulator."""

    def query(self) -> bool:
        """Whether it has passed."""
        return True

    def record(self, handle: int) -> None:
        """It passes at once."""

    def wait(self, handle: int) -> None:
        """Nobody waits."""


class _Event:
    """An event of the current device; numba-cuda's takes four times as long to record."""

    def __init__(self) -> None:
        self._handle = _said(_driver().cuEventCreate(_DISABLE_TIMING), "an event")

    def query(self) -> bool:
        """Whether what was on its stream when it was recorded has ended."""
        (code,) = _driver().cuEventQuery(self._handle)
        if code and code.name != "CUDA_ERROR_NOT_READY":
            raise RuntimeError(f"what was launched before has failed: {code.name}")
        return not code

    def record(self, handle: int) -> None:
        """Stand behind what is on a stream, by its handle."""
        _said(_driver().cuEventRecord(self._handle, handle), f"an event on the stream {handle:#x}")

    def wait(self, handle: int) -> None:
        """Let a stream wait for it."""
        _said(_driver().cuStreamWaitEvent(handle, self._handle, 0), f"the stream {handle:#x}")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # of which there are all kinds when the interpreter ends
            _driver().cuEventDestroy(self._handle)


def event() -> Any:
    """An event of the current device, to be recorded."""
    return _Passed() if config.ENABLE_CUDASIM else _Event()


class _Exporter:
    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__, self._owner = interface, owner


def simulated(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], owner: Any) -> Any:
    """The simulator's device array over memory of the host."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    interface = {"data": (pointer, False), "shape": shape, "strides": strides, "typestr": dtype.str, "version": 3}
    return FakeCUDAArray(np.asarray(_Exporter(interface, owner)))


def address(array: Any) -> int:
    """Where a device array of Numba's lies."""
    interface = array.__array_interface__ if config.ENABLE_CUDASIM else array.__cuda_array_interface__
    return int(interface["data"][0])


def to_device(array: np.ndarray[Any, Any], stream: Any = 0) -> Any:
    """A copy on the device in the order of a stream; of bfloat16 too, which numba-cuda cannot copy."""
    if array.dtype.name != "bfloat16" or config.ENABLE_CUDASIM:
        return cuda.to_device(array, stream=stream)
    return cuda.to_device(array.view(np.uint16), stream=stream).view(array.dtype)


def exported(array: Any) -> Any:
    """A device array of Numba's as an object with `__dlpack__`, as it is: nothing waits."""
    if config.ENABLE_CUDASIM:
        return np.array(array)
    from cuda.core import utils

    return utils.StridedMemoryView.from_any_interface(array, stream_ptr=-1)


def imported(array: Any, handle: int) -> Any:
    """Where an array with `__dlpack__` lies, by its capsule; our stream, by its handle, waits for it."""
    from cuda.core import utils

    return utils.StridedMemoryView.from_dlpack(array, stream_ptr=handle or 1)  # 1: the legacy stream, in DLPack


# -------------------------------------------------------------------------------------------------------------- kernels


def _has(name: str) -> bool:
    """Whether one of INTERNALS exists."""
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return True


def lacking() -> list[str]:
    """Which of INTERNALS this version lacks."""
    return [name for name in INTERNALS if not _has(name)]


def is_numba_cuda() -> bool:
    """Whether `numba.cuda` is numba-cuda, not Numba's former target."""
    return getattr(cuda, "implementation", "") == "NVIDIA"


def version() -> str:
    """The version of numba-cuda."""
    return importlib.metadata.version("numba-cuda")


class View:
    """Part of a device's memory as kernels take it. A Numba array takes ten times as long to make and to pass."""

    __slots__ = ("_words", "dtype", "owner", "pointer", "shape", "size", "strides")

    def __init__(
        self, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], owner: Any
    ) -> None:
        self.pointer, self.shape, self.strides, self.dtype, self.owner = pointer, shape, strides, dtype, owner
        self.size = math.prod(shape)
        self._words = (0, 0, self.size, dtype.itemsize, pointer, *shape, *strides)

    def __getitem__(self, rows: slice) -> View:
        """Neighbouring entries of the first axis."""
        first, last, _ = rows.indices(self.shape[0])
        pointer = self.pointer + first * self.strides[0]
        return View(pointer, (max(last - first, 0), *self.shape[1:]), self.strides, self.dtype, self.owner)

    def is_c_contiguous(self) -> bool:
        """Whether its elements are neighbours in C order."""
        step = self.dtype.itemsize
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length > 1 and stride != step:
                return self.size == 0
            step *= length
        return True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """As other libraries take it, without a stream: nothing waits."""
        data = self.pointer, False
        shaped = {"shape": self.shape, "strides": self.strides, "typestr": self.dtype.str}
        return {"data": data, **shaped, "version": 3, "stream": None}

    def array(self) -> Any:
        """The Numba array."""
        return cuda.from_cuda_array_interface(self.__cuda_array_interface__, owner=self.owner, sync=False)

    def copy_to_host(self) -> np.ndarray[Any, Any]:
        """A copy on the host."""
        found: np.ndarray[Any, Any] = self.array().copy_to_host()
        return found


def _flatten(values: tuple[Any, ...], words: list[Any]) -> None:
    """The words that a kernel is given for its arguments, views and numbers in tuples."""
    for value in values:
        if type(value) is View:
            words += value._words
        elif isinstance(value, tuple):
            _flatten(value, words)
        else:
            words.append(value)


def _words_of(kind: Any) -> str:
    """The words, as `struct` has them, that a kernel takes for an argument of a type."""
    if isinstance(kind, types.Array):
        return _ARRAY + 2 * kind.ndim * "q"
    if hasattr(kind, "types"):  # a tuple
        return "".join(map(_words_of, kind))
    if kind == types.float64:
        return "d"
    # an integer; of fewer bits, too: the driver takes as many bytes as the kernel has
    return "q" if kind.signed else "Q"


def _as_arrays(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Views in tuples as Numba arrays."""
    made = [v.array() if type(v) is View else _as_arrays(v) if isinstance(v, tuple) else v for v in values]
    return type(values)(*made) if hasattr(values, "_fields") else tuple(made)


class _Words(threading.local):
    """Room for a launch's arguments, one word each, and their addresses. A launch copies them before it returns."""

    def __init__(self) -> None:
        most = 4096 // 8  # bytes of arguments that any card takes
        self.room = (ctypes.c_uint64 * most)()
        first = ctypes.addressof(self.room)
        self._addresses = (ctypes.c_uint64 * most)(*(first + 8 * at for at in range(most)))
        self.addresses = ctypes.addressof(self._addresses)


_words = _Words()
Launcher = Callable[[int, int, int, int, "tuple[Any, ...]"], None]


def launcher(dispatcher: Any) -> Launcher:
    """What launches a kernel of one signature: on the current device, a stream's handle, blocks, threads, arguments.

    The driver is called here. numba-cuda's launch makes a ctypes object of each number, a configuration, and of each
    array a Numba array. A version that keeps its kernels otherwise goes its own way.
    """
    if not is_numba_cuda() or lacking():

        def launch(device: int, handle: int, blocks: int, threads: int, arguments: tuple[Any, ...]) -> None:
            stream = cuda.external_stream(handle) if handle else 0
            dispatcher[blocks, threads, stream](*_as_arrays(arguments))

        return launch
    launch_kernel = _driver().cuLaunchKernel
    (overload,) = dispatcher.overloads.values()
    packed = struct.Struct("<" + "".join(map(_words_of, overload.argument_types)))
    functions: dict[int, int] = {}

    def launch_overload(device: int, handle: int, blocks: int, threads: int, arguments: tuple[Any, ...]) -> None:
        function = functions.get(device)
        if function is None:
            function = functions[device] = int(overload._codelibrary.get_cufunc().handle)
        flat: list[Any] = []
        _flatten(arguments, flat)
        packed.pack_into(_words.room, 0, *flat)
        addresses = _words.addresses
        (code,) = launch_kernel(function, blocks, 1, 1, threads, 1, 1, 0, handle, addresses, 0)
        if code:
            raise RuntimeError(f"a launch of {blocks} blocks of {threads} threads: {code.name}")

    return launch_overload


def dump_kernel(overload: Any) -> bytes:
    """The machine code of a kernel, to be kept on disk."""
    from numba.cuda import serialize

    return bytes(serialize.dumps(overload._reduce_states()))


def load_kernel(states: bytes) -> Any:
    """The kernel that was dumped; an exception where it or the driver does not take it."""
    import pickle

    from numba.cuda.dispatcher import _Kernel
    from numba.cuda.utils import numba_target_override

    with numba_target_override():
        overload = _Kernel._rebuild(**pickle.loads(states))
        overload.bind()
        return overload


def compile_kernel(function: Any, signature: Any, cache: Any, **options: Any) -> Any:
    """The dispatcher of a kernel of one signature, compiled or loaded."""
    dispatcher = cuda.jit(**options)(function)
    dispatcher._cache = cache
    dispatcher.compile(signature)
    dispatcher._specialized = True  # as jit does with a signature: arguments are not typed at each launch
    dispatcher.disable_compile()
    return dispatcher
