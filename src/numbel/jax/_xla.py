"""XLA's foreign function interface, from Python: handlers that see XLA's own buffers as NumPy arrays.

A mirror of the few structs of xla/ffi/api/c_api.h that a handler reads. XLA hands over the interface's version and
the size of every struct; what does not fit is refused, at registration or as an error of the call.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[[str, list[Array], list[Array]], None]

_DTYPES = {
    2: np.dtype(np.int8),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    8: np.dtype(np.uint32),
    9: np.dtype(np.uint64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    16: np.dtype(ml_dtypes.bfloat16),
}
_METADATA = 1
_EXECUTE = 3
_BUFFER = 1
_STRING = 4
_INTERNAL = 13

_HEAD: list[Any] = [("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p)]
_INTS = ctypes.POINTER(ctypes.c_int)
_POINTERS = ctypes.POINTER(ctypes.c_void_p)


class _Version(ctypes.Structure):
    _fields_ = [*_HEAD, ("major", ctypes.c_int), ("minor", ctypes.c_int)]


class _Error(ctypes.Structure):
    _fields_ = [*_HEAD, ("message", ctypes.c_char_p), ("code", ctypes.c_int)]


class _Api(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Error))),
    ]


class _Buffers(ctypes.Structure):
    _fields_ = [*_HEAD, ("size", ctypes.c_int64), ("types", _INTS), ("items", _POINTERS)]


class _Attributes(ctypes.Structure):
    _fields_ = [*_HEAD, ("size", ctypes.c_int64), ("types", _INTS), ("names", _POINTERS), ("items", _POINTERS)]


class _Frame(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Text(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32)]


class _Extension(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    ]


_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))
_kept: list[Any] = []  # handlers: XLA may call them until the process ends


def register(name: str, function: Function) -> None:
    """Have XLA call `function(text, arguments, results)` on the CPU where a program calls `name`.

    The arrays are views of XLA's buffers, gone when the function returns; results are to be written in place. `text`
    is the call's one attribute. An exception becomes an error of the call. Starts JAX's CPU backend, since a handler
    that waits for it and is refused then would take the backend down.
    """

    def handle(pointer: Any) -> int | None:
        frame = pointer.contents
        try:
            if frame.extension and _Extension.from_address(frame.extension).type == _METADATA:
                _describe(frame)
            else:
                function(*_read(frame))
        except BaseException as error:  # what leaves a C callback is printed and forgotten
            return _error(frame, error)
        return None

    handler = _Handler(handle)
    _kept.append(handler)
    jax.local_devices(backend="cpu")
    capsule = jax.ffi.pycapsule(ctypes.cast(handler, ctypes.c_void_p).value)
    try:
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    except Exception as error:
        version = importlib.metadata.version("jaxlib")
        raise ImportError(f"numbel.jax does not know the foreign functions of jaxlib {version}: {error}") from None
    atexit.register(_drain)  # after JAX's own, and so to be called before it


def _drain() -> None:
    """Wait for calls under way: JAX would wait for them at exit with the GIL, for which they wait, too.

    A CPU device runs what it was given in order, so that its next result comes after them.
    """
    for device in jax.local_devices(backend="cpu"):
        jax.block_until_ready(jax.device_put(np.float32(0), device) + 1)


def _error(frame: Any, error: BaseException) -> int | None:
    if not frame.api:
        return None
    message = f"{type(error).__name__}: {error}".encode()
    created: int = frame.api.contents.create_error(_Error(ctypes.sizeof(_Error), None, message, _INTERNAL))
    return created


def _describe(frame: Any) -> None:
    """Answer which version of the interface this handler speaks: XLA's, or 0.0, which XLA refuses."""
    version = _Extension.from_address(frame.extension).metadata.contents.version
    version.major, version.minor = 0, 0
    if frame.struct_size < ctypes.sizeof(_Frame):
        return
    if not frame.api:  # jaxlib 0.5
        version.minor = 1
        return
    spoken = frame.api.contents.version
    if spoken.struct_size == ctypes.sizeof(_Version) and spoken.major == 0:
        version.minor = spoken.minor


def _read(frame: Any) -> tuple[str, list[Array], list[Array]]:
    """Attribute, arguments and results of a call."""
    arguments, results, attributes = frame.arguments, frame.results, frame.attributes
    # these lie within the frame: were one larger than known, the next would be misread
    if not arguments.struct_size == results.struct_size == ctypes.sizeof(_Buffers):
        raise RuntimeError("unknown layout of XLA's call frame")
    if frame.stage != _EXECUTE or attributes.size != 1 or attributes.types[0] != _STRING:
        raise RuntimeError("expected one string attribute in the execution stage")
    text = _Text.from_address(attributes.items[0])
    return ctypes.string_at(text.data, text.size).decode(), _arrays(arguments, False), _arrays(results, True)


class _Memory:
    """What NumPy asks an object for its memory; a ctypes array would be a new type for every size."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _arrays(buffers: Any, writable: bool) -> list[Array]:
    arrays = []
    for i in range(buffers.size):
        if buffers.types[i] != _BUFFER:
            raise RuntimeError(f"operand {i} is not a buffer")
        buffer = _Buffer.from_address(buffers.items[i])
        dtype = _DTYPES[buffer.dtype]
        shape = tuple(buffer.dims[: buffer.rank])
        if 0 in shape:
            arrays.append(np.empty(shape, dtype))  # its address may be anything
            continue
        interface = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (buffer.data, not writable)}
        arrays.append(np.asarray(_Memory(interface)).view(dtype))
    return arrays
