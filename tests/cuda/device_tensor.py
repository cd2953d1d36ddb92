"""Tensors on the stand-in of a card, for a torch that was built without CUDA: real subclasses of torch.Tensor.

Their shapes, strides, dtypes and flags are torch's own. Their memory is the stand-in's, which is of the host, so
torch's kernels for the CPU compute what an operator asks for. Of `torch.cuda` there is what a stream needs.
Autograd is not there: it asks for a guard of the device, which a torch without CUDA does not have.
"""

from __future__ import annotations

import contextlib
import ctypes
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from backend import DRIVER


class DeviceTensor(torch.Tensor):
    """A tensor whose `host` is a tensor of the CPU over the same memory, which `room` keeps."""

    host: torch.Tensor
    room: Any

    @staticmethod
    def of(host: torch.Tensor, room: Any = None) -> DeviceTensor:
        """A tensor over memory of the device; what lies elsewhere is copied there."""
        if host.numel() and DRIVER.memory.device(host.data_ptr()) < 0:
            room, plain = cuda.device_array(host.numel() * host.element_size(), np.uint8), host
            address = room.__cuda_array_interface__["data"][0]
            memory = (ctypes.c_uint8 * room.size).from_address(address)
            host = torch.frombuffer(memory, dtype=plain.dtype).reshape(plain.shape)
            host.copy_(plain)
        made = torch.Tensor._make_wrapper_subclass(
            DeviceTensor, host.shape, strides=host.stride(), dtype=host.dtype, device="cuda:0"
        )
        made.host, made.room = host, room
        return made

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def is_neg(self) -> bool:
        return self.host.is_neg()

    def pin_memory(self, *_: Any) -> torch.Tensor:
        return self

    @classmethod
    def __torch_dispatch__(cls, function, kinds, arguments=(), named=None):
        rooms: list[Any] = []

        def plain(tensor):
            if isinstance(tensor, DeviceTensor):
                rooms.append(tensor.room)
                return tensor.host
            return tensor

        arguments, named = tree_map_only(torch.Tensor, plain, (arguments, named or {}))
        to_host = str(named.get("device", "cuda")) == "cpu"
        if "device" in named:
            named["device"] = torch.device("cpu")
        found = function(*arguments, **named)
        if to_host:
            return tree_map_only(torch.Tensor, lambda tensor: tensor.clone(), found)
        return tree_map_only(torch.Tensor, lambda tensor: DeviceTensor.of(tensor, tuple(rooms)), found)


class _Mode(TorchDispatchMode):
    """What makes tensors on "cuda", which no argument says."""

    def __torch_dispatch__(self, function, kinds, arguments=(), named=None):
        named = named or {}
        device = named.get("device")
        if device is not None and torch.device(device).type == "cuda":
            return DeviceTensor.__torch_dispatch__(function, kinds, arguments, named)
        return function(*arguments, **named)


@contextlib.contextmanager
def on_stream(handle: int) -> Iterator[None]:
    """torch with a card whose current stream has this handle, and on which others can be made current."""
    current = [handle]

    @contextlib.contextmanager
    def stream(made: Any) -> Iterator[None]:
        current.append(made.cuda_stream)
        try:
            yield
        finally:
            current.pop()

    stands = {
        "current_stream": lambda device=None: types.SimpleNamespace(cuda_stream=current[-1]),
        "device": lambda place: contextlib.nullcontext(),
        "ExternalStream": lambda handle, device=None: types.SimpleNamespace(cuda_stream=handle),
        "stream": stream,
        "_lazy_init": lambda: None,
    }
    before = {name: getattr(torch.cuda, name) for name in stands}
    pinned = torch.Tensor.pin_memory
    for name, value in stands.items():
        setattr(torch.cuda, name, value)
    torch.Tensor.pin_memory = lambda tensor, *_: tensor
    try:
        with _Mode():
            yield
    finally:
        torch.Tensor.pin_memory = pinned
        for name, value in before.items():
            setattr(torch.cuda, name, value)
