"""Operators, for what runs or traces graphs: `torch.ops.numbel`."""

from __future__ import annotations

from typing import Any

import torch

from .kernels import pull_back, relax_now
from .relaxed import Relaxed
from .samples import Sampled, Sampling, draw_now, sample_now
from .seeds import numbers_of
from .tensors import Tensor


@torch.library.custom_op(
    "numbel::gumbel_softmax",
    mutates_args=(),
    schema="(Tensor logits, Tensor tau, Tensor address, bool hard, int dim) -> Tensor",
)
def compiled(logits: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> Tensor:
    return relax_now(logits, tau, hard, dim, numbers_of(address))


@compiled.register_fake
def _(logits: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


compiled.register_autograd(Relaxed.backward, setup_context=Relaxed.setup_context)


@torch.library.custom_op(
    "numbel::gumbel_softmax_vjp",
    mutates_args=(),
    schema="(Tensor kept, Tensor cotangent, Tensor tau, Tensor address, bool hard, int dim) -> (Tensor, Tensor)",
)
def _compiled_vjp(
    kept: Tensor, cotangent: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int
) -> tuple[Tensor, Tensor]:
    in_logits, in_tau = pull_back(kept, cotangent, tau, hard, dim, numbers_of(address), True)
    return in_logits, in_tau


@_compiled_vjp.register_fake
def _(kept: Tensor, cotangent: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(kept, memory_format=torch.contiguous_format), torch.empty_like(tau)


@torch.library.custom_op(
    "numbel::sample",
    mutates_args=(),
    schema="(Tensor logits, Tensor temperature, Tensor address, SymInt? num_samples, int dim, str method) "
    "-> (Tensor, Tensor, Tensor)",
)
def sampled(
    logits: Tensor, temperature: Tensor, address: Tensor, num_samples: int | None, dim: int, method: Any
) -> tuple[Tensor, Tensor, Tensor]:
    indices, log_prob, logsumexp = sample_now(
        logits, temperature, numbers_of(address), Sampling(num_samples, dim, method)
    )
    return indices, log_prob, logsumexp


@sampled.register_fake
def _(
    logits: Tensor, temperature: Tensor, address: Tensor, num_samples: int | None, dim: int, method: Any
) -> tuple[Tensor, Tensor, Tensor]:
    rows, many = Sampling(num_samples, dim, method).shapes(logits)
    kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (
        logits.new_empty(many, dtype=torch.int64),
        logits.new_empty(many, dtype=kind),
        logits.new_empty(rows, dtype=kind),
    )


sampled.register_autograd(Sampled.backward, setup_context=Sampled.setup_context)


@torch.library.custom_op(
    "numbel::categorical",
    mutates_args=(),
    schema="(Tensor logits, Tensor temperature, Tensor?[] limits, Tensor address, SymInt? num_samples, int dim, "
    "str method) -> Tensor",
)
def _compiled_categorical(
    logits: Tensor,
    temperature: Tensor,
    limits: list[Tensor | None],
    address: Tensor,
    num_samples: int | None,
    dim: int,
    method: Any,
) -> Tensor:
    return draw_now(logits, temperature, limits, numbers_of(address), Sampling(num_samples, dim, method))


@_compiled_categorical.register_fake
def _(
    logits: Tensor,
    temperature: Tensor,
    limits: list[Tensor | None],
    address: Tensor,
    num_samples: int | None,
    dim: int,
    method: Any,
) -> Tensor:
    return logits.new_empty(Sampling(num_samples, dim, method).shapes(logits)[1], dtype=torch.int64)
