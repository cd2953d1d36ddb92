"""Device arrays of Numba, CuPy, PyTorch and JAX: where they lie, new ones, and the stream that they are used on.

In Numba's simulator its arrays lie on the host. Nothing here computes, copies to the host or waits for the device.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda

from .._arguments import checks
from .._cuda import numba_cuda
from .stream_memory import Lease

_ITEM_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "bool": 1}
_ITEM_SIZES |= {f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)}
#: What kernels take each format for.
_MEMORY = {name: np.dtype(name) for name in _ITEM_SIZES if name != "bfloat16"}
_MEMORY |= {"float16": np.dtype(np.uint16), "bfloat16": np.dtype(np.uint16), "bool": np.dtype(np.uint8)}

_INT32 = np.iinfo(np.int32).max


@functools.cache
def _name_of(kind: Any) -> str:
    """The name of a dtype in native byte order, else what tells its order; NumPy takes long to make either."""
    dtype = np.dtype(kind)
    return str(dtype.name if dtype.isnative else dtype.str)


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
        """Part of it as kernels take it, from an offset in bytes on; halves as uint16."""
        kind = _MEMORY[self.name]
        if config.ENABLE_CUDASIM:
            return numba_cuda.simulated(self.pointer + offset, shape, strides, kind, self.owner)
        return numba_cuda.View(self.pointer + offset, shape, strides, kind, self.owner)

    def flat(self) -> Any:
        """A contiguous array as a vector."""
        return self.view(0, (self.size,), (self.item_size,))


def _existing(span: Span, name: str) -> Span:
    if span.pointer == 0 and span.size > 0:
        raise ValueError(f"{name} has no memory: it was freed")
    return span


@functools.lru_cache(1024)
def _c_strides(shape: tuple[int, ...], item_size: int) -> tuple[int, ...]:
    strides, step = [], item_size
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def _interface(array: Any) -> Any:
    """Where and what an array is; None of one that has DLPack only."""
    return array.__array_interface__ if config.ENABLE_CUDASIM else getattr(array, "__cuda_array_interface__", None)


def _device_of(pointer: int | None) -> int:
    if config.ENABLE_CUDASIM:
        return 0
    return numba_cuda.device_of_pointer(pointer) if pointer else int(cuda.get_current_device().id)


def require() -> None:
    """RuntimeError that says what CUDA lacks here, if anything."""
    missing = _missing()
    if missing is not None:
        raise RuntimeError(missing)


@functools.cache
def _missing() -> str | None:
    return numba_cuda.missing()


class Library:
    """Numba's device arrays, and those of libraries that are not known here; the base of the others.

    `like` is the array whose device and stream count, `stream` one that the caller names instead.
    """

    name = "Numba"

    def __init__(self, like: Any, stream: Any) -> None:
        self.device = self.device_of(like)
        self.handle = self.current(like) if stream is None else stream_handle(stream)
        self._like = like
        self._stream: Any = None
        self._spans: dict[int, Span] = {}  # by the array, which its span keeps
        self._lease: Lease | None = None
        self._kept: list[Any] = []
        self._lent: list[Any] = []  # other libraries' memory, which all kernels of the call may read

    @staticmethod
    def device_of(array: Any) -> int:
        """The number of the device where an array lies; of one without elements the current device."""
        interface = _interface(array)
        return int(array.__dlpack_device__()[1]) if interface is None else _device_of(interface["data"][0])

    def current(self, like: Any) -> int:
        """The stream on which an array is used when the caller names none."""
        if config.ENABLE_CUDASIM:
            return 0
        stream = getattr(like, "__cuda_array_interface__", {}).get("stream")
        return 0 if stream is None else int(stream)

    @property
    def stream(self) -> Any:
        """The stream as Numba has it."""
        if self._stream is None:
            self._stream = cuda.external_stream(self.handle) if self.handle else 0
        return self._stream

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The device and, for what is allocated, the stream; scratch and what is kept last until its kernels end."""
        with numba_cuda.on_device(self.device):
            before, self._lease = self._lease, Lease(self.device, self.handle)
            try:
                yield
            finally:
                lease, self._lease = self._lease, before
                kept, self._kept = self._kept, []
                lease.end(kept + self._lent)

    def keep(self, *things: Any) -> None:
        """Keep things alive until the kernels of the call have ended; if they are captured, for good."""
        self._kept += things

    def wait(self) -> None:
        """Wait for what was launched on the stream."""
        if not config.ENABLE_CUDASIM:
            (self.stream or cuda.default_stream()).synchronize()

    def span(self, array: Any, name: str) -> Span:
        """Where an array lies, looked up once in a call; `name` is that of the argument, for messages."""
        found = self._spans.get(id(array))
        if found is None:
            found = self._spans[id(array)] = self._look_up(array, name)
        return found

    def _look_up(self, array: Any, name: str) -> Span:
        interface = _interface(array)
        if interface is None:
            return self._imported(array, name)
        if interface.get("mask") is not None:
            raise TypeError(f"{name} has a mask, which no kernel reads: set what it leaves out to -inf")
        dtype = np.dtype(getattr(array, "dtype", interface["typestr"]))
        shape = tuple(interface["shape"])
        strides = tuple(interface.get("strides") or _c_strides(shape, dtype.itemsize))
        pointer, read_only = interface["data"]
        device = self.device if array is self._like else _device_of(pointer)
        return _existing(Span(pointer or 0, shape, strides, _name_of(dtype), device, bool(read_only), array), name)

    def _imported(self, array: Any, name: str) -> Span:
        """An array that has DLPack only. Its library makes our stream wait for it, and lends it until all is done."""
        view = numba_cuda.imported(array, self.handle)
        self._lent += [view, array]
        kind = np.dtype(view.dtype)
        shape = tuple(view.shape)
        strides = _c_strides(shape, kind.itemsize) if view.strides is None else view.strides
        steps = strides if view.strides is None else tuple(kind.itemsize * step for step in strides)
        return _existing(Span(view.ptr, shape, steps, _name_of(kind), view.device_id, view.readonly, view), name)

    def empty(self, shape: tuple[int, ...], name: str) -> Any:
        """A new array, not initialised."""
        return cuda.device_array(shape, _dtype(name), stream=self.stream)

    def upload(self, array: np.ndarray[Any, Any]) -> Any:
        """A copy of a NumPy array on the device, made in the order of the stream."""
        made = numba_cuda.to_device(array, self.stream)
        self.keep(array, made)  # the copy may still have to be made, and the kernels are still to come
        return made

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
        name, shape = _name_of(dtype), shape if isinstance(shape, tuple) else (shape,)
        size, item = math.prod(shape), _ITEM_SIZES[name]
        pointer, owner = 0, None
        if size:
            owner, pointer = self._lease.take(-(-item * size // 256) * 256)  # type: ignore[union-attr]
        strides = _c_strides(shape, item)
        return Span(pointer, shape, strides, name, self.device, False, owner).view(0, shape, strides)

    def finish(self, array: Any) -> Any:
        """A new array as the library has it."""
        return array

    def check_result(self, name: str, kind: str, most: int | None = None) -> None:
        """ValueError where the library cannot hold a result of a dtype, or of integers up to `most`."""

    def check_threshold(self, array: Any) -> None:
        """ValueError where a float64 that was handed out has lost digits."""

    def begin(self) -> None:
        """Forget the scratch taken so far."""
        self._lease.begin()  # type: ignore[union-attr]


def _dtype(name: str) -> np.dtype[Any]:
    return checks.float_dtype(name) if name == "bfloat16" else np.dtype(name)


class _OwnAllocator(Library):
    """A library that allocates in the order of its streams: scratch is its arrays."""

    def scratch(self, shape: Any, dtype: Any) -> Any:
        shape = shape if isinstance(shape, tuple) else (shape,)
        span = self.span(self.empty(shape, _name_of(dtype)), "scratch")
        return span.view(0, shape, _c_strides(shape, span.item_size))

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
    def active(self) -> Iterator[None]:
        with super().active(), self.torch.cuda.device(self.place):
            if self.handle == self.torch.cuda.current_stream(self.place).cuda_stream:
                yield
            else:  # what is allocated belongs to the stream that uses it
                with self.torch.cuda.stream(self.torch.cuda.ExternalStream(self.handle, self.place)):
                    yield

    def _look_up(self, array: Any, name: str) -> Span:
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
        tensor = self.torch.from_numpy(array)
        if self.place.type == "cuda":  # from memory of other kinds torch would wait for the copy
            tensor = tensor.pin_memory()
            if numba_cuda.is_capturing(self.handle):
                self.keep(tensor)  # each launch of the graph copies it again
        return tensor.to(self.place, non_blocking=True)

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
    def active(self) -> Iterator[None]:
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

    def __init__(self, like: Any, stream: Any) -> None:
        super().__init__(like, stream)
        self._home = self.current(like)

    @staticmethod
    def device_of(array: Any) -> int:
        return int(array.device.local_hardware_id)

    def current(self, like: Any) -> int:
        return int(like.device.get_stream_for_external_ready_events())

    def _look_up(self, array: Any, name: str) -> Span:
        if getattr(array, "__cuda_ndarray__", False):  # what `empty` made
            return super()._look_up(array, name)
        # makes the stream wait for the array; JAX may use its memory again when nobody holds array or capsule
        self._lent += [array, array.__dlpack__(stream=self.handle or 1)]
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        strides = _c_strides(shape, dtype.itemsize)
        return Span(array.unsafe_buffer_pointer(), shape, strides, dtype.name, self.device, True, array)

    def finish(self, array: Any) -> Any:
        import jax

        if self.handle != self._home:
            event = numba_cuda.event()
            event.record(self.handle)
            event.wait(self._home)
        span = self.span(array, "result")
        if span.name != "bfloat16":
            return jax.dlpack.from_dlpack(numba_cuda.exported(array))
        bits = span.view(0, span.shape, span.strides)  # as uint16: DLPack has no bfloat16 of NumPy's
        return jax.lax.bitcast_convert_type(jax.dlpack.from_dlpack(numba_cuda.exported(bits)), jax.numpy.bfloat16)

    def check_result(self, name: str, kind: str, most: int | None = None) -> None:
        import jax

        if _ITEM_SIZES[kind] == 8 and not jax.config.jax_enable_x64 and (most is None or most > _INT32):
            what = f"be {kind}" if most is None else f"reach {most}"
            raise ValueError(f"{name} would {what}, and JAX keeps 32 bits: set jax_enable_x64")

    def check_threshold(self, array: Any) -> None:
        if str(array.dtype) == "float32":
            raise ValueError("result.threshold was cut to 32 bits by JAX: set jax_enable_x64 before gumbel_top_k")

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


def library_class(array: Any) -> type[Library]:
    """The class of the library of a device array."""
    require()
    kind: Any = type(array)
    return _class_of(kind)


@functools.cache
def _class_of(kind: Any) -> type[Library]:
    """That of a type, or of the library's own type that a user's is made of."""
    names = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((_KNOWN[name] for name in names if name in _KNOWN), Library)


def library(like: Any, stream: Any) -> Library:
    """The library of a device array."""
    return library_class(like)(like, stream)
