"""Relaxed samples, with first and second derivatives in logits and tau.

With y = softmax(z / T), the Jacobian of y in z is (diag(y) - y y') / T, which is symmetric: what takes cotangents
back takes tangents forth, too. In T it is minus that times ln y, since z / T is ln y up to a constant.
"""

from __future__ import annotations

from typing import Any

import torch

from .functions import apply, each_element, forward_mode, keep, kept_of, sum_to, with_twin
from .kernels import pull_back, relax
from .seeds import address_operand, again, numbers_of
from .tensors import Tensor, operand, readable


def _wide(tensor: Tensor) -> Tensor:
    """Half types as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _like(tau: Any, y: Tensor) -> Any:
    """Tau as what y is multiplied with."""
    return tau.to(y.device if tau.ndim else tau.device, y.dtype) if isinstance(tau, torch.Tensor) else tau


def _log(y: Tensor) -> Tensor:
    """The logarithm, and 0 where y is 0, where nothing depends on it."""
    return torch.where(y > 0, y, 1).log()


def _forth(y: Tensor, of_logits: Any, of_tau: Any, tau: Any, dim: int) -> Tensor:
    """The tangent of a relaxed sample y; None stands for a tangent of 0."""
    direction = torch.zeros_like(y) if of_logits is None else of_logits
    if of_tau is not None:
        wide = _wide(y)
        direction = (_wide(direction) - _like(of_tau, wide) * _log(wide)).to(y.dtype)
    found: Tensor = apply(PullBack, y, direction, tau, None, False, dim, False)
    return found


@with_twin
class Relaxed(torch.autograd.Function):
    """Relaxed samples, or, where address is None, softmax(logits / tau)."""

    @staticmethod
    def forward(logits: Tensor, tau: Any, address: Any, hard: bool, dim: int) -> Tensor:
        return relax(logits, tau, address, hard, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, tau, address, ctx.hard, ctx.dim = inputs
        keep(ctx, logits if ctx.hard else output, tau, again(address) if ctx.hard else None)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        array, tau, address = kept_of(ctx)
        wanted = ctx.needs_input_grad[1]
        found = apply(PullBack, array, cotangent, tau, address, ctx.hard, ctx.dim, wanted)
        return (*(found if wanted else (found, None)), None, None, None)

    @staticmethod
    @forward_mode
    def jvp(ctx: Any, kept: Any, of_logits: Any, of_tau: Any, *_: Any) -> Tensor:
        array, tau, address = kept
        y = apply(Relaxed, array, tau, address, False, ctx.dim) if ctx.hard else array
        return _forth(y, of_logits, of_tau, tau, ctx.dim)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return each_element(Relaxed, info, dims, *inputs)


@with_twin
class PullBack(torch.autograd.Function):
    """Gradients of a relaxed sample in logits and, if wanted, in tau; `kept` is the sample, or logits if hard."""

    @staticmethod
    def forward(
        kept: Tensor, cotangent: Tensor, tau: Any, address: Any, hard: bool, dim: int, wanted: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        if readable(kept, cotangent, tau, address):
            in_logits, in_tau = pull_back(kept, cotangent, tau, hard, dim, numbers_of(address), wanted)
        else:
            in_logits, in_tau = torch.ops.numbel.gumbel_softmax_vjp(
                kept, cotangent, operand(tau), address_operand(address), hard, dim
            )
        return (in_logits, in_tau) if wanted and in_tau is not None else in_logits

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kept, cotangent, tau, address, ctx.hard, ctx.dim, ctx.wanted = inputs
        keep(ctx, kept, cotangent, tau, address)

    @staticmethod
    def backward(ctx: Any, of_first: Tensor, of_second: Any = None) -> Any:
        kept, cotangent, tau, address = kept_of(ctx)
        hard, dim, wanted = ctx.hard, ctx.dim, ctx.needs_input_grad[2]
        y = apply(Relaxed, kept, tau, address, False, dim) if hard else kept
        in_y, in_cotangent, in_tau = _second(y, cotangent, tau, dim, of_first, of_second, wanted)
        if hard:
            found = apply(PullBack, y, in_y, tau, None, False, dim, wanted)
            in_y, more = found if wanted else (found, None)
            in_tau = in_tau + more if wanted else None
        return in_y, in_cotangent, in_tau, None, None, None, None

    @staticmethod
    @forward_mode
    def jvp(ctx: Any, kept: Any, of_array: Any, of_cotangent: Any, of_tau: Any, *_: Any) -> Any:
        array, cotangent, tau, address = kept
        hard, dim = ctx.hard, ctx.dim
        y, of_y = array, of_array
        if hard:
            y = apply(Relaxed, array, tau, address, False, dim)
            of_y = None if of_array is None and of_tau is None else _forth(y, of_array, of_tau, tau, dim)
        y, u = _wide(y), _wide(cotangent)
        t = _like(tau, y)
        first = y * (u - (y * u).sum(dim, keepdim=True)) / t
        moved = torch.zeros_like(y)
        in_log = torch.zeros_like(y)
        if of_y is not None:
            of_y = _wide(of_y)
            in_log = of_y * (u - (y * u).sum(dim, keepdim=True)) / t
            moved = moved + in_log - y * (of_y * u).sum(dim, keepdim=True) / t
        if of_cotangent is not None:
            of_u = _wide(of_cotangent)
            moved = moved + y * (of_u - (y * of_u).sum(dim, keepdim=True)) / t
        if of_tau is not None:
            moved = moved - first * _like(of_tau, y) / t
        if not ctx.wanted:
            return moved.to(array.dtype)
        slopes = torch.where(y > 0, in_log, 0) + _log(y) * moved
        return moved.to(array.dtype), sum_to(-slopes.sum(dim, keepdim=True), tau)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        kept, cotangent, tau, address, hard, dim, wanted = inputs
        of_kept, of_cotangent, of_tau, of_address, *_ = dims
        if hard:
            if of_kept is of_tau is of_address is None:
                kept = apply(Relaxed, kept, tau, address, False, dim)
            else:
                kept, of_kept = each_element(
                    Relaxed, info, (of_kept, of_tau, of_address, None, None), kept, tau, address, False, dim
                )
        shape = tau.shape if isinstance(tau, torch.Tensor) else ()
        if of_tau is not None:
            tau = tau.movedim(of_tau, 0)
            shape = tau.shape[1:]
        elif wanted:
            tau = tau.expand(info.batch_size, *shape)
        if of_tau is not None or wanted:
            ndim = cotangent.ndim - (of_cotangent is not None)
            tau = tau.reshape(info.batch_size, *(1,) * (ndim - len(shape)), *shape)
        kept, cotangent = (
            value.expand(info.batch_size, *value.shape) if at is None else value.movedim(at, 0)
            for value, at in ((kept, of_kept), (cotangent, of_cotangent))
        )
        found = apply(PullBack, kept, cotangent, tau, None, False, dim, wanted)
        if not wanted:
            return found, 0
        in_logits, in_tau = found
        return (in_logits, in_tau.reshape(info.batch_size, *shape)), (0, 0)


def _second(
    y: Tensor, cotangent: Tensor, tau: Any, dim: int, of_first: Tensor, of_second: Any, wanted: bool
) -> tuple[Tensor, Tensor, Any]:
    """Gradients of `PullBack` of a soft sample, in that sample, the cotangent and, if wanted, tau.

    With a = sum(y u), the first result is g = y (u - a) / T, the second -sum(ln(y) g). For cotangents w and s of them,
    the scalar is sum(W g) with W = w - s ln y.
    """
    y, u, of_y, of_u = _wide(y), _wide(cotangent), y.dtype, cotangent.dtype
    t, w = _like(tau, y), _wide(of_first)
    apart = (u - (y * u).sum(dim, keepdim=True)) / t
    in_y = 0
    if of_second is not None:
        s = _like(of_second, y)
        w = w - s * _log(y)
        in_y = in_y - torch.where(y > 0, s * apart, 0)
    mean = (y * w).sum(dim, keepdim=True)
    in_y = in_y + w * apart - u * (mean / t)
    in_tau = sum_to(-(w * y * apart / t).sum(dim, keepdim=True), tau) if wanted else None
    return in_y.to(of_y), (y * (w - mean) / t).to(of_u), in_tau
