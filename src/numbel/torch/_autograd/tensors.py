"""Tensors as arrays and back, and what may be passed beside logits."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.lib.array_utils import normalize_axis_index
from torch._C._functorch import is_legacy_batchedtensor  # whose tensors `is_grads_batched` makes

from ..._arguments import checks

Tensor: TypeAlias = torch.Tensor
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: What torch calls the devices whose tensors stay there.
_CUDA = "cuda"


def check(logits: Any) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"logits must be a torch.Tensor, got {type(logits).__name__}")
    if logits.device.type not in ("cpu", "cuda", "meta"):
        raise TypeError(f"logits is on {logits.device}, and numbel works on the CPU and on CUDA: use .cpu()")
    if logits.dtype not in _DTYPES:
        raise TypeError(f"logits: expected float16, bfloat16, float32 or float64, got {logits.dtype}")


def from_end(dim: int, logits: Tensor) -> int:
    """The category axis counted from the end: transforms put axes in front."""
    return dim if dim == -1 else normalize_axis_index(dim, logits.ndim) - logits.ndim


def readable(*values: Any) -> bool:
    """Whether a call may look at the memory of these, which torch then need not know of."""
    for value in values:
        if isinstance(value, torch.Tensor) and (
            type(value) not in (torch.Tensor, torch.nn.Parameter) or value.is_meta or is_legacy_batchedtensor(value)
        ):
            return False
    return not torch._C._len_torch_dispatch_stack()


def known(tensor: Tensor) -> bool:
    """Whether this is one number, which can be read."""
    return tensor.numel() == 1 and readable(tensor)


def on_cuda(tensor: Tensor) -> bool:
    return bool(tensor.device.type == _CUDA)


def source(tensor: Tensor) -> Any:
    """What the methods of a Generator take: a NumPy array of the same memory, or the tensor on its device."""
    return own_values(tensor) if on_cuda(tensor) else as_array(tensor)


def option(value: Any, logits: Tensor) -> Any:
    """A truncation's values as those methods take them."""
    if not isinstance(value, torch.Tensor):
        return value
    return own_values(value) if on_cuda(logits) else as_array(value)


def as_tensor(result: Any) -> Tensor:
    """What they return, as a tensor."""
    return result if isinstance(result, torch.Tensor) else torch.from_numpy(np.asarray(result))


def own_values(tensor: Tensor) -> Tensor:
    """Without a gradient, and with memory that holds the values, not their negatives or, being zeros, nothing."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor.clone() if tensor._is_zerotensor() else tensor


def as_array(tensor: Tensor) -> Any:
    """The same memory as a NumPy array."""
    tensor = own_values(tensor)
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def from_array(array: Any) -> Tensor:
    """The same memory as a tensor."""
    if array.dtype.kind == "f":  # NumPy takes 10 us to find a dtype's name
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def plain(temperature: Any, logits: Tensor) -> Any:
    """A temperature as a number, a float64 array, or a float64 tensor where the logits are on a CUDA device."""
    if not isinstance(temperature, torch.Tensor):
        return temperature
    wide = own_values(temperature).double()
    if not on_cuda(logits):
        return wide.numpy()
    return float(wide) if wide.ndim == 0 and not on_cuda(wide) else wide.to(logits.device)


def positive(tau: Any) -> float:
    """A temperature of relaxed samples, which cannot be 0."""
    value = float(tau)
    if value == 0:
        raise ValueError("tau is 0, where no sample is relaxed: for one-hot samples pass hard=True and a positive tau")
    if not 0 < value < math.inf:
        raise ValueError(f"tau must be positive and finite, got {value}")
    checks.temperature(value, (), "tau")
    return value


def temperature_of_rows(tau: float | Tensor, logits: Tensor, dim: int) -> Any:
    """Tau, which broadcasts against logits, as what broadcasts to their rows."""
    shape = tuple(logits.shape)
    at = normalize_axis_index(dim, len(shape))
    rows = shape[:at] + shape[at + 1 :]
    there = isinstance(tau, torch.Tensor) and on_cuda(tau)
    if not isinstance(tau, torch.Tensor) or (tau.ndim == 0 and not there):
        return positive(tau)
    given = tuple(tau.shape)
    if tau.ndim > len(shape):
        raise ValueError(f"tau has shape {given}, which does not broadcast to that of logits, {shape}")
    value = plain(tau, logits)
    if there and not on_cuda(logits):
        raise TypeError(f"tau is on {tau.device} and logits on {logits.device}")
    value = value.reshape((1,) * (len(shape) - tau.ndim) + given)
    if value.shape[at] != 1:
        raise ValueError(f"tau has shape {given}, which differs between categories, along dim {dim}")
    value = value.squeeze(at)
    if isinstance(value, torch.Tensor):  # its values are checked by the kernels, but for 0, which others may have
        try:
            return torch.where(value > 0, value, math.nan).broadcast_to(rows)
        except RuntimeError:
            raise ValueError(f"tau of shape {given} does not broadcast to the rows' shape {rows}") from None
    checks.relaxed_temperature(value, rows, "tau")
    return value


def operand(value: Any) -> Tensor:
    """A temperature as a tensor."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):  # of any real type, bfloat16 included
        value = value.astype(np.float64)
    return torch.tensor(value, dtype=torch.float64, device="cpu")
