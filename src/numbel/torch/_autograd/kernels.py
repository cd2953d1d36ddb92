"""Relaxed samples of tensors and their gradients, without derivatives: on the CPU, and on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ... import gradients
from ..._arguments import checks
from ..._arguments.requests import LogitRows, Temperature
from ..._host import common, dispatch
from ...generator import Generator
from .seeds import Draw, address_operand, numbers_of
from .tensors import Tensor, as_array, from_array, on_cuda, operand, own_values, readable, temperature_of_rows


def _last(array: Any, dim: int) -> Any:
    return array if dim == -1 else np.moveaxis(array, dim, -1)


def relax(logits: Tensor, tau: Any, address: Any, hard: bool, dim: int) -> Tensor:
    """Relaxed samples, or, where address is None, softmax(logits / tau)."""
    if readable(logits, tau, address):
        return relax_now(logits, tau, hard, dim, numbers_of(address))
    if address is None:
        return torch.softmax(logits / tau, dim).to(logits.dtype)
    found: Tensor = torch.ops.numbel.gumbel_softmax(logits, operand(tau), address_operand(address), hard, dim)
    return found


def relax_now(logits: Tensor, tau: Any, hard: bool, dim: int, draw: Draw | None) -> Tensor:
    temperature = temperature_of_rows(tau, logits, dim)
    if logits.shape[dim] == 0 and not hard:
        return logits.detach().new_empty(logits.shape)  # as torch has it
    if on_cuda(logits):
        return _relax_there(own_values(logits), temperature, hard, dim, draw)
    if draw is not None and (hard or not isinstance(temperature, float)):
        rng = Generator(*draw)
        return from_array(rng.gumbel_softmax(as_array(logits), temperature, axis=dim, hard=hard, on_invalid="flag"))
    # the same, past what a Generator offers beyond it: a training step of small tensors sees the difference
    array = checks.logits(as_array(logits), dim)
    if draw is not None and dim == -1 and isinstance(temperature, float):
        found = common.softmax(array, temperature, draw)
        if found is not None:
            return from_array(found)
    out = np.empty(logits.shape, array.dtype)
    lone = isinstance(temperature, float)
    given = Temperature(np.array([temperature]), False) if lone else checks.temperature(temperature, array.shape[:-1])
    dispatch.relaxed(LogitRows(array, given), draw, _last(out, dim))
    return from_array(out)


def _relax_there(logits: Tensor, temperature: Any, hard: bool, dim: int, draw: Draw | None) -> Tensor:
    """`relax_now` on a CUDA device."""
    if draw is None:
        from ... import _device

        found: Tensor = _device.softmax(logits, temperature, dim)
        return found
    found = Generator(*draw).gumbel_softmax(logits, temperature, axis=dim, hard=hard)
    return found


def pull_back(
    kept: Tensor, cotangent: Tensor, tau: Any, hard: bool, dim: int, draw: Draw | None, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients in logits and, if wanted, in tau; `kept` is the soft sample, or logits if hard."""
    temperature = temperature_of_rows(tau, kept, dim)
    if kept.shape[dim] == 0:
        return torch.zeros_like(kept), torch.zeros_like(tau) if wanted else None
    if on_cuda(kept):
        return _pull_back_there(kept, cotangent, tau, temperature, hard, dim, draw, wanted)
    y, u = as_array(kept), as_array(cotangent)
    plain = not wanted and isinstance(temperature, float) and (u.shape, u.dtype) == (y.shape, y.dtype)
    if plain and not hard and dim == -1:
        found = common.vjp(y, u, temperature)
        if found is not None:
            return from_array(found), None
    out = np.empty(y.shape, y.dtype)
    if hard:
        assert draw is not None
        y = Generator(*draw).gumbel_softmax(y, temperature, axis=dim, on_invalid="flag", out=out)
    elif plain:
        given = Temperature(np.array([temperature]), False)
        dispatch.vjp(_last(y, dim), _last(u, dim), given, _last(out, dim), None)
        return from_array(out), None
    in_logits, in_tau = gradients.pull_back(y, u, temperature, dim, out, wanted)
    if not wanted:
        return from_array(in_logits), None
    return from_array(in_logits), torch.from_numpy(np.array(in_tau)).to(tau.dtype).reshape(tau.shape)


def _pull_back_there(
    kept: Tensor,
    cotangent: Tensor,
    tau: Any,
    temperature: Any,
    hard: bool,
    dim: int,
    draw: Draw | None,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """`pull_back` on a CUDA device."""
    from ... import _device

    y = own_values(kept)
    if hard:
        assert draw is not None
        y = Generator(*draw).gumbel_softmax(y, temperature, axis=dim)
    u = own_values(cotangent).to(y.dtype)
    in_logits, slopes = _device.gumbel_softmax_vjp(y, u, temperature, dim, None, None, wanted)
    if slopes is None:
        return in_logits, None
    if slopes.ndim:
        slopes = slopes.unsqueeze(dim).sum_to_size(tau.shape)
    return in_logits, slopes.to(tau.dtype).to(tau.device).reshape(tau.shape)
