"""Samples and their log-probabilities, of which the latter have derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ...generator import Generator
from .functions import apply, derivable, each_element, forward_mode, keep, kept_of, sum_to, with_twin
from .relaxed import Relaxed
from .seeds import Draw, address_operand, numbers_of
from .tensors import Tensor, as_tensor, operand, option, plain, readable, source

Method = Literal["grouped", "gumbel_max"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many samples of each row, along which axis, and by which method.

    Not a tuple: `torch.vmap` would map each of its entries.
    """

    num_samples: int | None
    dim: int
    method: Method

    def shapes(self, logits: Tensor) -> tuple[list[int], list[int]]:
        """Of the rows, and of their samples."""
        rows = list(logits.shape)
        del rows[self.dim]
        return rows, rows if self.num_samples is None else [*rows, self.num_samples]


def own_temperature(value: Any) -> Any:
    """A temperature that nobody changes until the backward pass, unless torch sees it."""
    return value if isinstance(value, (int, float, torch.Tensor)) else np.array(value)


def _of_rows(temperature: Any, logits: Tensor, dim: int) -> tuple[Any, Any]:
    """Temperatures with 1 in place of 0, and their inverses with 0 in place of infinity: an argmax does not move."""
    if isinstance(temperature, (int, float)):
        return (temperature, 1 / temperature) if temperature else (1.0, 0.0)
    t = operand(temperature)
    if t.ndim:
        shape = list(logits.shape)
        del shape[dim]
        t = t.to(logits.device).broadcast_to(shape)
    zero = t == 0
    safe = torch.where(zero, 1, t).to(torch.float64)
    return safe, torch.where(zero, 0, 1 / safe)


def _softmax(logits: Tensor, safe: Any, dim: int) -> Tensor:
    tau = safe.unsqueeze(dim) if isinstance(safe, torch.Tensor) and safe.ndim else safe
    found: Tensor = apply(Relaxed, logits, tau, None, False, dim)
    return found


def _finite(logits: Tensor) -> Tensor:
    """Logits with 0 for what is impossible, on which nothing depends."""
    return torch.where(logits == -math.inf, 0, logits)


def _on_columns(rows: Any) -> Any:
    """Of each row, for all its columns."""
    return rows.unsqueeze(-1) if isinstance(rows, torch.Tensor) and rows.ndim else rows


@with_twin
class Sampled(torch.autograd.Function):
    """Indices with their log-probabilities and logsumexp, of which the latter two have derivatives."""

    @staticmethod
    def forward(
        logits: Tensor, temperature: Any, address: Any, num_samples: int | None, dim: int, method: Method
    ) -> tuple[Tensor, ...]:
        sampling = Sampling(num_samples, dim, method)
        if readable(logits, temperature, address):
            return sample_now(logits, temperature, numbers_of(address), sampling)
        found: tuple[Tensor, ...] = torch.ops.numbel.sample(
            logits, operand(temperature), address_operand(address), num_samples, dim, method
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, temperature, _, num_samples, ctx.dim, _ = inputs
        ctx.many = num_samples is not None
        ctx.mark_non_differentiable(output[0])
        keep(ctx, logits, temperature, output[0])

    @staticmethod
    def backward(ctx: Any, _: Any, of_log_prob: Tensor, of_logsumexp: Tensor) -> Any:
        logits, temperature, indices = kept_of(ctx)
        safe, rate = _of_rows(temperature, logits, ctx.dim)
        if not ctx.many:
            indices, of_log_prob = indices.unsqueeze(-1), of_log_prob.unsqueeze(-1)
        result = _softmax(logits, safe, ctx.dim)
        rows = result.movedim(ctx.dim, -1)
        shared = ((of_logsumexp - of_log_prob.sum(-1)) * rate).unsqueeze(-1).to(rows.dtype)
        single = (of_log_prob * _on_columns(rate)).to(rows.dtype)
        # a row that could not be sampled has index -1, and NaN already
        at = indices.clamp_min(0)
        if derivable((result, shared, single)) or not readable(result, shared, single):
            rows = (rows * shared).scatter_add(-1, at, single)
            result = rows.movedim(-1, ctx.dim)
        else:  # no memory but the result's
            rows.mul_(shared)
            rows.scatter_add_(-1, at, single)
        in_temperature = None
        if ctx.needs_input_grad[1]:
            # logits and temperature matter by their quotients alone
            x = _finite(logits).movedim(ctx.dim, -1).to(of_logsumexp.dtype)
            moved = (x * rows.to(x.dtype)).sum(-1, dtype=torch.float64)
            in_temperature = sum_to(-rate * moved, temperature)
        return result, in_temperature, None, None, None, None

    @staticmethod
    @forward_mode
    def jvp(ctx: Any, kept: Any, of_logits: Any, of_temperature: Any, *_: Any) -> Any:
        logits, temperature, indices = kept
        safe, rate = _of_rows(temperature, logits, ctx.dim)
        p = _softmax(logits, safe, ctx.dim).movedim(ctx.dim, -1)
        kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
        moved = torch.zeros_like(p, dtype=kind)
        if of_logits is not None:
            moved = moved + of_logits.movedim(ctx.dim, -1) * _on_columns(rate)
        if of_temperature is not None:
            x = _finite(logits).movedim(ctx.dim, -1).to(kind)
            slope = of_temperature.to(logits.device) if of_temperature.ndim else of_temperature
            moved = moved - x * _on_columns(slope * rate * rate)
        of_logsumexp = (p * moved).sum(-1)
        at = indices if ctx.many else indices.unsqueeze(-1)
        of_log_prob = moved.gather(-1, at.clamp_min(0)) - of_logsumexp.unsqueeze(-1)
        of_log_prob = of_log_prob if ctx.many else of_log_prob.squeeze(-1)
        return None, of_log_prob.to(kind), of_logsumexp.to(kind)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return each_element(Sampled, info, dims, *inputs)


def sample_now(logits: Tensor, temperature: Any, draw: Draw, sampling: Sampling) -> tuple[Tensor, ...]:
    drawn = Generator(*draw).sample(
        source(logits),
        sampling.num_samples,
        axis=sampling.dim,
        temperature=plain(temperature, logits),
        method=sampling.method,
    )
    return tuple(as_tensor(part) for part in drawn)


@with_twin
class Drawn(torch.autograd.Function):
    """Indices."""

    @staticmethod
    def forward(
        logits: Tensor, temperature: Any, top_k: Any, top_p: Any, min_p: Any, address: Any, sampling: Sampling
    ) -> Tensor:
        limits = top_k, top_p, min_p
        if readable(logits, temperature, *limits, address):
            return draw_now(logits, temperature, limits, numbers_of(address), sampling)
        return draw_traced(logits, temperature, limits, address, sampling.num_samples, sampling.dim, sampling.method)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        return (None,) * 7

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        return None

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return each_element(Drawn, info, dims, *inputs)


def draw_now(logits: Tensor, temperature: Any, limits: Any, draw: Draw, sampling: Sampling) -> Tensor:
    """Indices; `limits` are top_k, top_p and min_p."""
    top_k, top_p, min_p = (option(value, logits) for value in limits)
    indices = Generator(*draw).categorical(
        source(logits),
        sampling.num_samples,
        axis=sampling.dim,
        temperature=plain(temperature, logits),
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        method=sampling.method,
    )
    return as_tensor(indices)


_LIMIT_DTYPES = (torch.int64, torch.float64, torch.float64)


def draw_traced(
    logits: Tensor, temperature: Any, limits: Any, address: Any, num_samples: int | None, dim: int, method: Method
) -> Tensor:
    """Indices, as one operator of a graph."""
    found: Tensor = torch.ops.numbel.categorical(
        logits.detach(),
        operand(temperature).detach(),
        [_limit(value, dtype) for value, dtype in zip(limits, _LIMIT_DTYPES, strict=True)],
        address_operand(address),
        num_samples,
        dim,
        method,
    )
    return found


def _limit(value: Any, dtype: Any) -> Tensor | None:
    if value is None or isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=dtype, device="cpu")
