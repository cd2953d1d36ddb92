"""Device arrays of Numba, CuPy, PyTorch and JAX: where they lie, new ones, and the stream that they are used on.

In Numba's simulator its arrays lie on the host. Nothing here computes, copies to the host or waits for the device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import threading
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda

from . import _checks, _numba_cuda

_HALVES = {"float16", "bfloat16"}
_ITEM_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "bool": 1}
_ITEM_SIZES |= {f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)}


class Span(NamedTuple):
    """Where a device array lies: its address, shape, strides in bytes, format, device, and whose memory it is."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    name: str
    device: int
    read_only: bool
    owner: Any

    def moved(self, source: int, target: int) -> Span:
        """The same with an axis moved."""
        order = list(range(len(self.shape)))
        order.insert(target % len(self.shape), order.pop(source))
        return self._replace(
            shape=tuple(self.shape[axis] for axis in order), strides=tuple(self.strides[axis] for axis in order)
        )

    @property
    def item_size(self) -> int:
        """Bytes of an element."""
        return _ITEM_SIZES[self.name]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether its elements are neighbours in C order."""
        return self.strides == _c_strides(self.shape, self.item_size) or self.size <= 1

    def view(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        """A Numba array of part of it, from an offset in bytes on; halves as uint16."""
        kind = np.dtype(np.uint16 if self.name in _HALVES else np.uint8 if self.name == "bool" else self.name)
        interface = {
            "data": (self.pointer + offset, False),
            "shape": shape,
            "strides": strides,
            "typestr": kind.str,
            "version": 3,
        }
        if config.ENABLE_CUDASIM:
            from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

            return FakeCUDAArray(np.asarray(_Exporter(interface, self.owner)))
        return cuda.from_cuda_array_interface(interface, owner=self.owner, sync=False)

    def flat(self) -> Any:
        """A Numba vector of a contiguous array."""
        return self.view(0, (self.size,), (self.item_size,))


class _Exporter:
    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__, self._owner = interface, owner


def _existing(span: Span, name: str) -> Span:
    if span.pointer == 0 and span.size > 0:
        raise ValueError(f"{name} has no memory: it was freed")
    return span


def _c_strides(shape: tuple[int, ...], item_size: int) -> tuple[int, ...]:
    return tuple(item_size * math.prod(shape[at + 1 :]) for at in range(len(shape)))


def require() -> None:
    """RuntimeError that says what CUDA lacks here, if anything."""
    missing = _missing()
    if missing is not None:
        raise RuntimeError(missing)


@functools.cache
def _missing() -> str | None:
    if config.ENABLE_CUDASIM:
        return None
    if importlib.util.find_spec("numba_cuda") is None:
        return 'CUDA needs numba-cuda: pip install "numbel[cu13]" (or "numbel[cu12]" for a driver of CUDA 12)'
    from numba.cuda.cudadrv import driver, nvvm

    try:
        if driver.driver.get_device_count() == 0:
            return "no CUDA device is visible: CUDA_VISIBLE_DEVICES may hide it"
    except ImportError as error:  # Numba's CudaSupportError is one
        found = " ".join(str(error).split())
        return f"CUDA needs an NVIDIA driver that works, which nvidia-smi would show: {found}"
    if not nvvm.is_available():
        return 'CUDA needs the toolkit\'s compiler: pip install "numbel[cu13]" (or "numbel[cu12]")'
    return None


# Scratch of callers without an allocator of their own, for each thread, device and stream: kernels of two calls that
# share it would otherwise run into each other.
class _Workspaces(threading.local):
    def __init__(self) -> None:
        self.of: dict[tuple[int, int], _Workspace] = {}


_workspaces = _Workspaces()


class Library:
    """Numba's device arrays, and those of libraries that are not known here; the base of the others.

    `like` is the array whose device and stream count, `stream` one that the caller names instead.
    """

    name = "Numba"

    def __init__(self, like: Any, stream: Any) -> None:
        self.device = self.device_of(like)
        self.handle = self.current(like) if stream is None else stream_handle(stream)

    @staticmethod
    def device_of(array: Any) -> int:
        """The number of the device where an array lies; of one without elements the current device."""
        if config.ENABLE_CUDASIM:
            return 0
        pointer = array.__cuda_array_interface__["data"][0]
        return _numba_cuda.device_of_pointer(pointer) if pointer else int(cuda.get_current_device().id)

    def current(self, like: Any) -> int:
        """The stream on which an array is used when the caller names none."""
        if config.ENABLE_CUDASIM:
            return 0
        stream = like.__cuda_array_interface__.get("stream")
        return 0 if stream is None else int(stream)

    @property
    def stream(self) -> Any:
        """The stream as Numba has it."""
        return cuda.external_stream(self.handle) if self.handle else 0

    def active(self) -> AbstractContextManager[Any]:
        """The device and, for what is allocated, the stream."""
        if config.ENABLE_CUDASIM:
            return contextlib.nullcontext()
        return cuda.gpus[self.device]  # type: ignore[no-any-return]

    def span(self, array: Any, name: str) -> Span:
        """Where an array lies; `name` is that of the argument, for messages."""
        if config.ENABLE_CUDASIM:
            interface, dtype = array.__array_interface__, array.dtype
        else:
            interface = array.__cuda_array_interface__
            dtype = np.dtype(getattr(array, "dtype", interface["typestr"]))
        shape = tuple(interface["shape"])
        strides = interface.get("strides") or _c_strides(shape, dtype.itemsize)
        pointer, read_only = interface["data"]
        kind = dtype.name if dtype.isnative else dtype.str
        return _existing(Span(pointer or 0, shape, tuple(strides), kind, self.device, bool(read_only), array), name)

    def empty(self, shape: tuple[int, ...], name: str) -> Any:
        """A new array, not initialised."""
        return cuda.device_array(shape, _dtype(name), stream=self.stream)

    def upload(self, array: np.ndarray[Any, Any]) -> Any:
        """A copy of a NumPy array on the device."""
        return cuda.to_device(array)

    def spread(self, array: Any, shape: tuple[int, ...], kind: str, name: str) -> Any:
        """A device array of the library broadcast to `shape`, contiguous and of a dtype."""
        span = self.span(array, name)
        if (span.shape, span.name, span.contiguous) != (shape, kind, True):
            raise TypeError(
                f"{name} is a device array of shape {span.shape} and dtype {span.name}; of a Numba array, contiguous "
                f"{kind} of shape {shape} is needed"
            )
        return array

    def scratch(self, shape: Any, dtype: Any) -> Any:
        """A Numba array for intermediate numbers, until the next `begin`."""
        kind = np.dtype(dtype)
        shape = shape if isinstance(shape, tuple) else (shape,)
        size = -(-kind.itemsize * math.prod(shape) // 256) * 256
        pointer, owner = self._workspace.take(size, self)
        strides = _c_strides(shape, kind.itemsize)
        return Span(pointer, shape, strides, kind.name, self.device, False, owner).view(0, shape, strides)

    def finish(self, array: Any) -> Any:
        """A new array as the library has it."""
        return array

    def begin(self) -> None:
        """Forget the scratch of the call before."""
        self._workspace.used = 0

    @property
    def _workspace(self) -> _Workspace:
        return _workspaces.of.setdefault((self.device, self.handle), _Workspace())


class _Workspace:
    """A stretch of device memory that grows to the largest call's needs."""

    def __init__(self) -> None:
        self.used, self.size = 0, 0
        self.arrays: list[Any] = []  # none is ever freed: a CUDA graph may have captured it

    def take(self, size: int, library: Library) -> tuple[int, Any]:
        """The address of the next so many bytes, and whose memory it is."""
        if self.used + size > self.size or not self.arrays:
            # room for all of a call like this; twice as much while that is little
            self.size, self.used = max(self.used + size, min(2 * self.size, self.size + (1 << 26)), 1 << 20), 0
            self.arrays.append(cuda.device_array(self.size, np.uint8))
        start, self.used = self.used, self.used + size
        return Library.span(library, self.arrays[-1], "scratch").pointer + start, self.arrays[-1]


def _dtype(name: str) -> np.dtype[Any]:
    return _checks.float_dtype(name) if name == "bfloat16" else np.dtype(name)


class _OwnAllocator(Library):
    """A library that allocates in the order of its streams: scratch is its arrays."""

    def scratch(self, shape: Any, dtype: Any) -> Any:
        shape = shape if isinstance(shape, tuple) else (shape,)
        kind = np.dtype(dtype)
        span = self.span(self.empty(shape, kind.name), "scratch")
        return span.view(0, shape, _c_strides(shape, kind.itemsize))

    def begin(self) -> None:
        """Nothing is kept between calls."""


class Torch(_OwnAllocator):
    """PyTorch's CUDA tensors."""

    name = "PyTorch"

    def __init__(self, like: Any, stream: Any) -> None:
        import torch

        self.torch = torch
        self.place = like.device
        super().__init__(like, stream)

    @staticmethod
    def device_of(array: Any) -> int:
        return int(array.device.index or 0)

    def current(self, like: Any) -> int:
        return int(self.torch.cuda.current_stream(self.place).cuda_stream)

    @contextlib.contextmanager
    def active(self) -> Any:
        with super().active(), self.torch.cuda.device(self.place):
            if self.handle == self.torch.cuda.current_stream(self.place).cuda_stream:
                yield
            else:  # what is allocated belongs to the stream that uses it
                with self.torch.cuda.stream(self.torch.cuda.ExternalStream(self.handle, self.place)):
                    yield

    def span(self, array: Any, name: str) -> Span:
        if not isinstance(array, self.torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, as logits is, got {type(array).__name__}")
        if array.requires_grad:
            raise TypeError(
                f"{name} is a tensor that requires a gradient, which these methods would drop: "
                "use numbel.torch, or pass its .detach()"
            )
        if array.is_neg():
            raise TypeError(f"{name} is a view whose memory holds its negatives: pass its .resolve_neg()")
        size = array.element_size()
        strides = tuple(size * step for step in array.stride())
        kind = str(array.dtype).removeprefix("torch.")
        where = self.device_of(array)
        return _existing(Span(array.data_ptr(), tuple(array.shape), strides, kind, where, False, array), name)

    def empty(self, shape: tuple[int, ...], name: str) -> Any:
        return self.torch.empty(shape, dtype=getattr(self.torch, name), device=self.place)

    def upload(self, array: np.ndarray[Any, Any]) -> Any:
        return self.torch.from_numpy(array).to(self.place)

    def spread(self, array: Any, shape: tuple[int, ...], kind: str, name: str) -> Any:
        return array.detach().to(getattr(self.torch, kind)).broadcast_to(shape).contiguous()


class CuPy(_OwnAllocator):
    """CuPy's arrays."""

    name = "CuPy"

    def __init__(self, like: Any, stream: Any) -> None:
        import cupy

        self.cupy = cupy
        super().__init__(like, stream)

    @staticmethod
    def device_of(array: Any) -> int:
        return int(array.device.id)

    def current(self, like: Any) -> int:
        with self.cupy.cuda.Device(self.device):
            return int(self.cupy.cuda.get_current_stream().ptr)

    @contextlib.contextmanager
    def active(self) -> Any:
        with (
            super().active(),
            self.cupy.cuda.Device(self.device),
            self.cupy.cuda.ExternalStream(self.handle, self.device),
        ):
            yield

    def empty(self, shape: tuple[int, ...], name: str) -> Any:
        return self.cupy.empty(shape, _dtype(name))

    def upload(self, array: np.ndarray[Any, Any]) -> Any:
        return self.cupy.asarray(array)

    def spread(self, array: Any, shape: tuple[int, ...], kind: str, name: str) -> Any:
        return self.cupy.ascontiguousarray(self.cupy.broadcast_to(array.astype(kind, copy=False), shape))


class Jax(Library):
    """JAX's arrays: they are used on the stream that JAX keeps for others, and results are handed over on it."""

    name = "JAX"

    @staticmethod
    def device_of(array: Any) -> int:
        return int(array.device.local_hardware_id)

    def current(self, like: Any) -> int:
        return int(like.device.get_stream_for_external_ready_events())

    def span(self, array: Any, name: str) -> Span:
        if getattr(array, "__cuda_ndarray__", False):  # what `empty` made
            return super().span(array, name)
        array.__dlpack__(stream=self.handle or 1)  # makes the stream wait for the array
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        strides = _c_strides(shape, dtype.itemsize)
        return Span(array.unsafe_buffer_pointer(), shape, strides, dtype.name, self.device, True, array)

    def finish(self, array: Any) -> Any:
        import jax
        from cuda.core import utils

        return jax.dlpack.from_dlpack(utils.StridedMemoryView.from_any_interface(array, stream_ptr=-1))

    def spread(self, array: Any, shape: tuple[int, ...], kind: str, name: str) -> Any:
        import jax
        import jax.numpy as jnp

        # 64 bits, which JAX cuts to 32 unless it is told otherwise, by what has moved
        with (jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64)(True):
            return jnp.broadcast_to(array.astype(kind), shape)


def stream_handle(stream: Any) -> int:
    """The handle of anything with `__cuda_stream__`."""
    if not hasattr(stream, "__cuda_stream__"):
        raise TypeError(f"stream must have __cuda_stream__, got {type(stream).__name__}")
    _, handle = stream.__cuda_stream__()
    return int(handle)


_KNOWN = {"torch": Torch, "cupy": CuPy, "jaxlib": Jax, "jax": Jax}


def library(like: Any, stream: Any) -> Library:
    """The library of a device array."""
    require()
    return _KNOWN.get(type(like).__module__.partition(".")[0], Library)(like, stream)
