"""Every use of what lies below `numba.cuda`: numba-cuda's internals, and the driver by cuda.bindings.

In Numba's simulator streams have no state: nothing is captured there, and every event has passed.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
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
    "numba.cuda.cudadrv.driver:_to_core_stream",
    "numba.cuda.cudadrv.nvvm:is_available",
    "numba.cuda.dispatcher:_Kernel._rebuild",
    "numba.cuda.dispatcher:_Kernel._reduce_states",
    "numba.cuda.dispatcher:_Kernel.bind",
    "numba.cuda.dispatcher:_Kernel.launch",
    "numba.cuda.serialize:dumps",
    "numba.cuda.utils:numba_target_override",
)
_LAUNCH = ["self", "args", "griddim", "blockdim", "stream", "sharedmem"]
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


def _said(result: tuple[Any, ...], what: str) -> Any:
    """What a function of the driver returned; ValueError where it failed."""
    code, *values = result
    if int(code) != 0:
        raise ValueError(f"{what}: {code.name}")
    return values[0] if values else None


def device_of_pointer(pointer: int) -> int:
    """The number of the device where an address lies."""
    from cuda.bindings import driver

    ordinal = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_said(driver.cuPointerGetAttribute(ordinal, pointer), f"{pointer:#x} is no address of a CUDA device"))


def stream_id(handle: int) -> int:
    """The number of a stream, which no other stream of the process ever has; a handle may come again."""
    if config.ENABLE_CUDASIM:
        return handle
    from cuda.bindings import driver

    return int(_said(driver.cuStreamGetId(handle), f"{handle:#x} is no CUDA stream"))


def is_capturing(handle: int) -> bool:
    """Whether what is launched on a stream goes into a graph."""
    if config.ENABLE_CUDASIM:
        return False
    from cuda.bindings import driver

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
    from cuda.bindings import driver

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

    def record(self, stream: Any) -> None:
        """It passes at once."""

    def wait(self, stream: Any) -> None:
        """Nobody waits."""


def event() -> Any:
    """An event of the current device, to be recorded."""
    return _Passed() if config.ENABLE_CUDASIM else cuda.event(timing=False)


def simulated(interface: Any) -> Any:
    """The simulator's device array over an object with `__array_interface__`."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(np.asarray(interface))


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
    """Which of INTERNALS this version lacks, or has otherwise."""
    found = [name for name in INTERNALS if not _has(name)]
    launch = "numba.cuda.dispatcher:_Kernel.launch"
    if launch not in found:
        from numba.cuda.dispatcher import _Kernel

        if list(inspect.signature(_Kernel.launch).parameters) != _LAUNCH:
            found.append(launch)
    return found


def is_numba_cuda() -> bool:
    """Whether `numba.cuda` is numba-cuda, not Numba's former target."""
    return getattr(cuda, "implementation", "") == "NVIDIA"


def version() -> str:
    """The version of numba-cuda."""
    return importlib.metadata.version("numba-cuda")


def launcher(dispatcher: Any) -> Callable[[int, int, Any, tuple[Any, ...]], None]:
    """What launches a kernel of one signature on (blocks, threads, stream, arguments).

    Its lone overload is launched: the dispatcher's way makes a configuration for each launch, and warns of each grid
    below 128 blocks. A version whose overloads are launched otherwise goes the dispatcher's way.
    """
    if not is_numba_cuda() or lacking():

        def launch(blocks: int, threads: int, stream: Any, arguments: tuple[Any, ...]) -> None:
            dispatcher[blocks, threads, stream](*arguments)

        return launch
    from numba.cuda.cudadrv.driver import _to_core_stream

    (overload,) = dispatcher.overloads.values()

    def launch_overload(blocks: int, threads: int, stream: Any, arguments: tuple[Any, ...]) -> None:
        overload.launch(arguments, (blocks, 1, 1), (threads, 1, 1), _to_core_stream(stream), 0)

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
