"""What `numbel.torch` is made of: seeds, tensors as arrays, derivatives, and the operators of `torch.compile`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.lib.array_utils import normalize_axis_index

from . import _checks, _dispatch, gradients
from .generator import Generator

Tensor: TypeAlias = torch.Tensor
AnyGenerator: TypeAlias = "Generator | torch.Generator | None"
Method = Literal["grouped", "gumbel_max"]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


# --- seeds


@contextmanager
def draw_of(generator: AnyGenerator) -> Iterator[tuple[int, int]]:
    """Seed and draw id of a call, after which torch has as many threads as before.

    Numba, when it starts its threads under OpenMP, sets the number that torch uses, too.
    """
    threads = torch.get_num_threads()
    try:
        with _seed_and_draw(generator) as draw:
            yield draw
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@contextmanager
def _seed_and_draw(generator: AnyGenerator) -> Iterator[tuple[int, int]]:
    if isinstance(generator, Generator):
        with generator._reserve() as draw:
            yield draw
    elif generator is None or isinstance(generator, torch.Generator):
        yield int(torch.empty((), dtype=torch.int64).random_(generator=generator)), 0
    else:
        raise TypeError(f"generator must be a numbel.Generator or a torch.Generator, got {type(generator).__name__}")


def address_of(generator: AnyGenerator) -> Tensor:
    """Seed and draw id as int64, for a graph."""
    if generator is None:
        return torch.cat([torch.randint(0, (1 << 63) - 1, (1,)), torch.zeros(1, dtype=torch.int64)])
    return _address_now(generator)


@torch.compiler.disable
def _address_now(generator: AnyGenerator) -> Tensor:
    with draw_of(generator) as draw:
        return torch.from_numpy(np.array(draw, np.uint64).view(np.int64))


# --- tensors and arrays


def check(logits: Any) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"logits must be a torch.Tensor, got {type(logits).__name__}")
    if logits.device.type not in ("cpu", "cuda"):
        raise TypeError(f"logits is on {logits.device}, and numbel works on the CPU and on CUDA: use .cpu()")
    if logits.dtype not in _DTYPES:
        raise TypeError(f"Expected float16, bfloat16, float32 or float64, got {logits.dtype}")


def _on_cuda(tensor: Tensor) -> bool:
    return bool(tensor.device.type == "cuda")


def source(tensor: Tensor) -> Any:
    """What the methods of a Generator take: a NumPy array of the same memory, or the tensor on its device."""
    return tensor.detach() if _on_cuda(tensor) else _array(tensor)


def as_tensor(result: Any) -> Tensor:
    """What they return, as a tensor."""
    return result if isinstance(result, torch.Tensor) else torch.from_numpy(np.asarray(result))


def _array(tensor: Tensor) -> Any:
    """The same memory as a NumPy array."""
    tensor = tensor.detach()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _tensor(array: Any) -> Tensor:
    """The same memory as a tensor."""
    if array.dtype.kind == "f":  # NumPy takes 10 us to find a dtype's name
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def plain(temperature: float | Tensor, logits: Tensor) -> Any:
    """A temperature as a number, a float64 array, or a float64 tensor where the logits are on a CUDA device."""
    if not isinstance(temperature, torch.Tensor):
        return temperature
    wide = temperature.detach().double()
    if not _on_cuda(logits):
        return wide.numpy()
    return float(wide) if wide.ndim == 0 and not _on_cuda(wide) else wide.to(logits.device)


def _temperature(tau: float | Tensor, logits: Tensor, dim: int) -> Any:
    """Tau, which broadcasts against logits, as what broadcasts to their rows."""
    shape = tuple(logits.shape)
    at = normalize_axis_index(dim, len(shape))
    rows = shape[:at] + shape[at + 1 :]
    there = isinstance(tau, torch.Tensor) and _on_cuda(tau)
    if not isinstance(tau, torch.Tensor) or (tau.ndim == 0 and not there):
        value: Any = float(tau)
    else:
        given = tuple(tau.shape)
        if tau.ndim > len(shape):
            raise ValueError(f"tau has shape {given}, which does not broadcast to that of logits, {shape}")
        value = plain(tau, logits)
        if there and not _on_cuda(logits):
            raise TypeError(f"tau is on {tau.device} and logits on {logits.device}")
        value = value.reshape((1,) * (len(shape) - tau.ndim) + given)
        if value.shape[at] != 1:
            raise ValueError(f"tau has shape {given}, which differs between categories, along dim {dim}")
        value = value.squeeze(at)
    if isinstance(value, torch.Tensor):  # its values are checked by the kernels
        try:
            return value.broadcast_to(rows)
        except RuntimeError:
            raise ValueError(f"tau of shape {given} does not broadcast to the rows' shape {rows}") from None
    _checks.relaxed_temperature(value, rows, "tau")
    return value


# --- calls and their derivatives

_Draw = tuple[int, int]


def _last(array: Any, dim: int) -> Any:
    return array if dim == -1 else np.moveaxis(array, dim, -1)


def _relax(logits: Tensor, tau: Any, hard: bool, dim: int, draw: _Draw) -> Tensor:
    temperature = _temperature(tau, logits, dim)
    rng = Generator(*draw)
    if _on_cuda(logits):
        found: Tensor = rng.gumbel_softmax(logits.detach(), temperature, axis=dim, hard=hard)
        return found
    if hard or not isinstance(temperature, float):
        return _tensor(rng.gumbel_softmax(_array(logits), temperature, axis=dim, hard=hard, on_invalid="flag"))
    # the same, past what a Generator offers beyond it: a training step of small tensors sees the difference
    array = _checks.logits(_array(logits), dim)
    out = np.empty(logits.shape, array.dtype)
    _dispatch.relaxed(array, np.array([temperature]), False, None, None, draw, _last(out, dim))
    return _tensor(out)


def _pull_back(
    kept: Tensor, cotangent: Tensor, tau: Any, hard: bool, dim: int, draw: _Draw, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients in logits and, if wanted, in tau; `kept` is the soft sample, or logits if hard."""
    temperature = _temperature(tau, kept, dim)
    if _on_cuda(kept):
        return _pull_back_there(kept, cotangent, tau, temperature, hard, dim, draw, wanted)
    y, u = _array(kept), _array(cotangent)
    out = np.empty(y.shape, y.dtype)
    if hard:
        y = Generator(*draw).gumbel_softmax(y, temperature, axis=dim, on_invalid="flag", out=out)
    elif not wanted and isinstance(temperature, float) and (u.shape, u.dtype) == (y.shape, y.dtype):
        _dispatch.vjp(_last(y, dim), _last(u, dim), np.array([temperature]), False, _last(out, dim), None)
        return _tensor(out), None
    in_logits, in_tau = gradients.pull_back(y, u, temperature, dim, out, wanted)
    if not wanted:
        return _tensor(in_logits), None
    return _tensor(in_logits), torch.from_numpy(np.array(in_tau)).to(tau.dtype).reshape(tau.shape)


def _pull_back_there(
    kept: Tensor, cotangent: Tensor, tau: Any, temperature: Any, hard: bool, dim: int, draw: _Draw, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """`_pull_back` on a CUDA device."""
    from . import _device

    y = kept.detach()
    if hard:
        y = Generator(*draw).gumbel_softmax(y, temperature, axis=dim)
    in_logits, slopes = _device.gumbel_softmax_vjp(y, cotangent.to(y.dtype), temperature, dim, None, None, wanted)
    if slopes is None:
        return in_logits, None
    if slopes.ndim:
        slopes = slopes.unsqueeze(dim).sum_to_size(tau.shape)
    return in_logits, slopes.to(tau.dtype).to(tau.device).reshape(tau.shape)


class Relaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, tau: Any, hard: bool, dim: int, draw: _Draw) -> Tensor:
        y = _relax(logits, tau, hard, dim, draw)
        ctx.save_for_backward(logits if hard else y)
        ctx.rest = tau, hard, dim, draw
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (kept,), (tau, hard, dim, draw) = ctx.saved_tensors, ctx.rest
        found = _pull_back(kept, cotangent, tau, hard, dim, draw, ctx.needs_input_grad[1])
        return (*found, None, None, None)


class Sampled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, num_samples: int | None, dim: int, temperature: Any, method: Method, draw: _Draw
    ) -> Any:
        drawn = Generator(*draw).sample(source(logits), num_samples, axis=dim, temperature=temperature, method=method)
        indices, log_prob, logsumexp = (as_tensor(part) for part in drawn)
        ctx.save_for_backward(logits, indices)
        ctx.mark_non_differentiable(indices)
        ctx.rest = num_samples is not None, dim, temperature
        return indices, log_prob, logsumexp

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Any, of_log_prob: Tensor, of_logsumexp: Tensor) -> Any:
        logits, indices = ctx.saved_tensors
        many, dim, temperature = ctx.rest
        result, temperatures = _softmax(logits, temperature, dim)
        rate = torch.where(temperatures > 0, 1 / temperatures, 0)
        if not many:
            indices, of_log_prob = indices.unsqueeze(-1), of_log_prob.unsqueeze(-1)
        rows = result.movedim(dim, -1)
        rows.mul_(((of_logsumexp - of_log_prob.sum(-1)) * rate).unsqueeze(-1).to(rows.dtype))
        # a row that could not be sampled has index -1, and NaN already
        rows.scatter_add_(-1, indices.clamp_min(0), (of_log_prob * rate.unsqueeze(-1)).to(rows.dtype))
        if temperatures.ndim:
            rows.masked_fill_((temperatures == 0).unsqueeze(-1), 0)
        return result, None, None, None, None, None


def _softmax(logits: Tensor, temperature: Any, dim: int) -> tuple[Tensor, Tensor]:
    """softmax(logits / temperature), and the temperatures as a tensor, one for all or one a row."""
    if _on_cuda(logits):
        from . import _device

        shape = logits.select(dim, 0).shape
        there = torch.as_tensor(temperature, dtype=torch.float64, device=logits.device)
        each = there.ndim or (isinstance(temperature, (int, float)) and temperature == 0)
        return _device.softmax(logits.detach(), temperature, dim), there.broadcast_to(shape) if each else there
    array = _checks.logits(_array(logits), dim)
    flat, per_row = _checks.temperature(temperature, array.shape[:-1])
    out = np.empty(logits.shape, array.dtype)
    _dispatch.softmax(array, flat, per_row, _last(out, dim))
    return _tensor(out), torch.tensor(flat).reshape(array.shape[:-1] if per_row else ())


# --- within torch.compile


def _pair(address: Tensor) -> _Draw:
    seed, draw = address.numpy().view(np.uint64)
    return int(seed), int(draw)


@torch.library.custom_op(
    "numbel::gumbel_softmax",
    mutates_args=(),
    schema="(Tensor logits, Tensor tau, Tensor address, bool hard, int dim) -> Tensor",
)
def compiled(logits: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> Tensor:
    return _relax(logits, tau, hard, dim, _pair(address))


@compiled.register_fake
def _(logits: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "numbel::gumbel_softmax_vjp",
    mutates_args=(),
    schema="(Tensor kept, Tensor cotangent, Tensor tau, Tensor address, bool hard, int dim) -> (Tensor, Tensor)",
)
def _compiled_vjp(
    kept: Tensor, cotangent: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int
) -> tuple[Tensor, Tensor]:
    in_logits, in_tau = _pull_back(kept, cotangent, tau, hard, dim, _pair(address), True)
    return in_logits, in_tau


@_compiled_vjp.register_fake
def _(kept: Tensor, cotangent: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(kept, memory_format=torch.contiguous_format), torch.empty_like(tau)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, tau, address, hard, dim = inputs
    ctx.save_for_backward(logits if hard else output, tau, address)
    ctx.rest = hard, dim


def _compiled_backward(ctx: Any, cotangent: Tensor) -> Any:
    kept, tau, address = ctx.saved_tensors
    return (*_compiled_vjp(kept, cotangent, tau, address, *ctx.rest), None, None, None)


compiled.register_autograd(_compiled_backward, setup_context=_keep)
