"""numbel for PyTorch tensors on the CPU or on CUDA: relaxed samples with autograd, and categorical samples; no copies.

`generator` is a `numbel.Generator`, of which a call takes one draw id, or a `torch.Generator`, from which it takes a
seed; None is torch's own default generator on the CPU, so that `torch.manual_seed`, the workers of a DataLoader and
checkpointing behave as with torch's functions. The results are bit for bit those of `numbel.Generator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('numbel.torch needs PyTorch: pip install "numbel[torch]"', name=error.name) from None

from . import _checks, _dispatch, gradients
from .generator import Generator
from .results import Sample

__all__ = ["ExponentialSchedule", "GumbelSoftmax", "categorical", "gumbel_softmax", "sample"]

_Tensor: TypeAlias = torch.Tensor
_Generator: TypeAlias = "Generator | torch.Generator | None"
_Method = Literal["grouped", "gumbel_max"]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def gumbel_softmax(
    logits: _Tensor,
    tau: float | _Tensor = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    generator: _Generator = None,
) -> _Tensor:
    """Relaxed one-hot samples, softmax((logits + gumbel) / tau): a drop-in for `torch.nn.functional.gumbel_softmax`.

    Parameters
    ----------
    logits : Tensor, shape (..., n) with the categories along `dim`
        Unnormalised natural log-probabilities, on the CPU or on a CUDA device: float16, bfloat16, float32 or float64;
        -inf is impossible.
    tau : float or Tensor, optional
        Temperature, positive; a tensor broadcasts against logits and has size 1 along `dim`.
    hard : bool, optional
        Return the one-hot of the sampled category; the gradient is that of the soft sample (straight-through).
    eps : float, optional
        Ignored, as in torch.
    dim : int, optional
        The category axis.
    generator : numbel.Generator or torch.Generator, optional
        As the module's text says.

    Returns
    -------
    Tensor
        Of the shape and dtype of logits, bit for bit `numbel.Generator.gumbel_softmax` of the same data and draw.

    Raises
    ------
    TypeError
        If logits is not a tensor of one of the four dtypes on the CPU or on CUDA.
    RuntimeError
        If logits is on a CUDA device and CUDA does not work in Numba: what is missing.
    ValueError
        If tau is not positive and finite or does not fit. On a CUDA device, rows of which a tensor tau is neither
        become NaN: nothing waits for the device.
    numpy.exceptions.AxisError
        If dim is out of range.

    Notes
    -----
    Rows that hold NaN or +inf, or nothing but -inf, become NaN, as in torch: nothing is raised. The gradient is
    defined once, in logits and, where tau is a tensor that requires it, in tau. It needs the soft sample, which is
    the result itself; with `hard` it is made anew from logits and the draw, so that nothing else is stored. Within
    `torch.compile` it is one operator of the graph, whose seed is drawn by the graph.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> logits = torch.zeros(2, 3, requires_grad=True)
    >>> y = numbel.torch.gumbel_softmax(logits, tau=0.5, generator=numbel.Generator(5))
    >>> y[:, 0].sum().backward()
    >>> logits.grad.shape
    torch.Size([2, 3])
    """
    _check(logits)
    if torch.compiler.is_compiling():
        at = tau if isinstance(tau, torch.Tensor) else torch.tensor(float(tau), dtype=torch.float64)
        return _compiled(logits, at, _address(generator), bool(hard), dim)
    with _draw(generator) as draw:
        found: _Tensor = _Relaxed.apply(logits, tau, bool(hard), dim, draw)
    return found


@torch.compiler.disable
def categorical(
    logits: _Tensor,
    num_samples: int | None = None,
    *,
    dim: int = -1,
    temperature: float | _Tensor = 1.0,
    top_k: int | _Tensor | None = None,
    top_p: float | _Tensor | None = None,
    min_p: float | _Tensor | None = None,
    method: _Method = "grouped",
    generator: _Generator = None,
) -> _Tensor:
    """Draw categories with probabilities softmax(logits / temperature), exactly, in one pass.

    Parameters
    ----------
    logits, generator
        As in `gumbel_softmax`.
    num_samples : int, optional
        Samples of each row. The first of them is what None gives.
    dim : int, optional
        The category axis.
    temperature : float or Tensor, optional
        Positive; a tensor broadcasts to the shape of logits without `dim`, and 0 there means that row's argmax.
    top_k, top_p, min_p : number or Tensor, optional
        Truncation, as in `numbel.Generator.categorical`. On a CUDA device a tensor may be there, too: rows of which a
        value is out of range get -1.
    method : {"grouped", "gumbel_max"}, optional
        As in `numbel.Generator.categorical`; "gumbel_max" couples with `gumbel_softmax`.

    Returns
    -------
    Tensor of int64
        Of the shape of logits without `dim`, plus a trailing num_samples where it is given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `numbel.Generator.categorical`, rows that cannot be sampled included; on a CUDA device those get -1.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> numbel.torch.categorical(torch.zeros(2, 10), 3).shape
    torch.Size([2, 3])
    """
    _check(logits)
    with _draw(generator) as (seed, draw):
        indices = Generator(seed, draw).categorical(
            _source(logits),
            num_samples,
            axis=dim,
            temperature=_plain(temperature, logits),
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            method=method,
        )
    return _as_tensor(indices)


@torch.compiler.disable
def sample(
    logits: _Tensor,
    num_samples: int | None = None,
    *,
    dim: int = -1,
    temperature: float | _Tensor = 1.0,
    method: _Method = "grouped",
    generator: _Generator = None,
) -> Sample:
    """Draw as `categorical` does, with log-probabilities and logsumexp that gradients flow through.

    Parameters
    ----------
    logits, num_samples, dim, temperature, method, generator
        As in `categorical`.

    Returns
    -------
    Sample
        Tensors: `log_prob` of the shape of `indices` and `logsumexp` of the shape of logits without `dim`, float64
        for float64 logits, else float32.

    Raises
    ------
    TypeError
        As in `categorical`, or if temperature is a tensor that requires a gradient.
    ValueError, numpy.exceptions.AxisError
        As in `categorical`.

    Notes
    -----
    The gradients are those of `torch.log_softmax(logits / temperature)` at the indices and of `torch.logsumexp`: what
    the score-function estimator (REINFORCE) needs. They take one more pass over logits and no memory but the result.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> logits = torch.zeros(4, requires_grad=True)
    >>> drawn = numbel.torch.sample(logits, generator=numbel.Generator(5))
    >>> drawn.log_prob.backward()
    >>> bool(abs(logits.grad.sum()) < 1e-6)
    True
    """
    _check(logits)
    if isinstance(temperature, torch.Tensor) and temperature.requires_grad:
        raise TypeError("temperature requires a gradient, which sample does not give: pass its .detach()")
    with _draw(generator) as draw:
        return Sample(*_Sampled.apply(logits, num_samples, dim, _plain(temperature, logits), method, draw))


class ExponentialSchedule(NamedTuple):
    """Temperature after a number of steps: max(minimum, start exp(-rate steps)), changed every so many steps.

    Parameters
    ----------
    start, rate, minimum : float, optional
        The first temperature, its decay a step, and the last temperature; the defaults are those of Jang et al.
    every : int, optional
        Steps between two changes.
    """

    start: float = 1.0
    rate: float = 3e-5
    minimum: float = 0.5
    every: int = 1000

    def __call__(self, steps: int) -> float:
        """The temperature after this many steps."""
        return max(self.minimum, self.start * math.exp(-self.rate * (steps // self.every * self.every)))


class GumbelSoftmax(torch.nn.Module):
    """`gumbel_softmax` as a module whose temperature follows a schedule.

    Parameters
    ----------
    tau : float or torch.nn.Parameter, optional
        Temperature; a Parameter is learned. With a schedule it is the schedule's, and must not be given.
    schedule : callable, optional
        The temperature after n steps, such as `ExponentialSchedule()`; call `step` after each optimizer step.
    hard, dim, generator
        As in `gumbel_softmax`.

    Raises
    ------
    ValueError
        If both tau and schedule are given, or a temperature is not positive and finite.

    Notes
    -----
    `tau` and `steps` are part of the state dict.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> relax = numbel.torch.GumbelSoftmax(schedule=numbel.torch.ExponentialSchedule(rate=0.1, every=1))
    >>> relax.step()
    >>> round(float(relax.tau), 3), relax(torch.zeros(2, 3)).shape
    (0.905, torch.Size([2, 3]))
    """

    def __init__(
        self,
        tau: float | _Tensor | None = None,
        *,
        schedule: Callable[[int], float] | None = None,
        hard: bool = False,
        dim: int = -1,
        generator: _Generator = None,
    ) -> None:
        super().__init__()
        if tau is not None and schedule is not None:
            raise ValueError("tau and schedule are both given: the schedule sets tau")
        self.schedule, self.hard, self.dim, self.generator = schedule, hard, dim, generator
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        if isinstance(tau, torch.nn.Parameter):
            self.tau = tau
        else:
            first = schedule(0) if schedule is not None else 1.0 if tau is None else float(tau)
            self.register_buffer("tau", torch.tensor(_positive(first), dtype=torch.float64))

    def step(self) -> None:
        """Count an optimizer step, and set the temperature that the schedule has for it."""
        self.steps += 1
        if self.schedule is not None:
            self.tau.fill_(_positive(self.schedule(int(self.steps))))

    def forward(self, logits: _Tensor) -> _Tensor:
        """A relaxed sample of logits at the present temperature."""
        return gumbel_softmax(logits, self.tau, self.hard, dim=self.dim, generator=self.generator)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"tau={float(self.tau):g}, schedule={self.schedule}, hard={self.hard}, dim={self.dim}"


def _positive(tau: float) -> float:
    _checks.temperature(float(tau), (), "tau")
    return float(tau)


# --- seeds


@contextmanager
def _draw(generator: _Generator) -> Iterator[tuple[int, int]]:
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
def _seed_and_draw(generator: _Generator) -> Iterator[tuple[int, int]]:
    if isinstance(generator, Generator):
        with generator._reserve() as draw:
            yield draw
    elif generator is None or isinstance(generator, torch.Generator):
        yield int(torch.empty((), dtype=torch.int64).random_(generator=generator)), 0
    else:
        raise TypeError(f"generator must be a numbel.Generator or a torch.Generator, got {type(generator).__name__}")


def _address(generator: _Generator) -> _Tensor:
    """Seed and draw id as int64, for a graph."""
    if generator is None:
        return torch.cat([torch.randint(0, (1 << 63) - 1, (1,)), torch.zeros(1, dtype=torch.int64)])
    return _address_now(generator)


@torch.compiler.disable
def _address_now(generator: _Generator) -> _Tensor:
    with _draw(generator) as draw:
        return torch.from_numpy(np.array(draw, np.uint64).view(np.int64))


# --- tensors and arrays


def _check(logits: Any) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"logits must be a torch.Tensor, got {type(logits).__name__}")
    if logits.device.type not in ("cpu", "cuda"):
        raise TypeError(f"logits is on {logits.device}, and numbel works on the CPU and on CUDA: use .cpu()")
    if logits.dtype not in _DTYPES:
        raise TypeError(f"Expected float16, bfloat16, float32 or float64, got {logits.dtype}")


def _on_cuda(tensor: _Tensor) -> bool:
    return bool(tensor.device.type == "cuda")


def _source(tensor: _Tensor) -> Any:
    """What the methods of a Generator take: a NumPy array of the same memory, or the tensor on its device."""
    return tensor.detach() if _on_cuda(tensor) else _array(tensor)


def _as_tensor(result: Any) -> _Tensor:
    """What they return, as a tensor."""
    return result if isinstance(result, torch.Tensor) else torch.from_numpy(np.asarray(result))


def _array(tensor: _Tensor) -> Any:
    """The same memory as a NumPy array."""
    tensor = tensor.detach()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _tensor(array: Any) -> _Tensor:
    """The same memory as a tensor."""
    if array.dtype.kind == "f":  # NumPy takes 10 us to find a dtype's name
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def _plain(temperature: float | _Tensor, logits: _Tensor) -> Any:
    """A temperature as a number, a float64 array, or a float64 tensor where the logits are on a CUDA device."""
    if not isinstance(temperature, torch.Tensor):
        return temperature
    wide = temperature.detach().double()
    if not _on_cuda(logits):
        return wide.numpy()
    return float(wide) if wide.ndim == 0 and not _on_cuda(wide) else wide.to(logits.device)


def _temperature(tau: float | _Tensor, logits: _Tensor, dim: int) -> Any:
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
        value = _plain(tau, logits)
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
    _checks.temperature(value, rows, "tau")
    return value


# --- calls and their derivatives

_Draw = tuple[int, int]


def _last(array: Any, dim: int) -> Any:
    return array if dim == -1 else np.moveaxis(array, dim, -1)


def _relax(logits: _Tensor, tau: Any, hard: bool, dim: int, draw: _Draw) -> _Tensor:
    temperature = _temperature(tau, logits, dim)
    rng = Generator(*draw)
    if _on_cuda(logits):
        found: _Tensor = rng.gumbel_softmax(logits.detach(), temperature, axis=dim, hard=hard)
        return found
    if hard or not isinstance(temperature, float):
        return _tensor(rng.gumbel_softmax(_array(logits), temperature, axis=dim, hard=hard, on_invalid="flag"))
    # the same, past what a Generator offers beyond it: a training step of small tensors sees the difference
    array = _checks.logits(_array(logits), dim)
    out = np.empty(logits.shape, array.dtype)
    _dispatch.relaxed(array, np.array([temperature]), False, None, None, draw, _last(out, dim))
    return _tensor(out)


def _pull_back(
    kept: _Tensor, cotangent: _Tensor, tau: Any, hard: bool, dim: int, draw: _Draw, wanted: bool
) -> tuple[_Tensor, _Tensor | None]:
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
    kept: _Tensor, cotangent: _Tensor, tau: Any, temperature: Any, hard: bool, dim: int, draw: _Draw, wanted: bool
) -> tuple[_Tensor, _Tensor | None]:
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


class _Relaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: _Tensor, tau: Any, hard: bool, dim: int, draw: _Draw) -> _Tensor:
        y = _relax(logits, tau, hard, dim, draw)
        ctx.save_for_backward(logits if hard else y)
        ctx.rest = tau, hard, dim, draw
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: _Tensor) -> Any:
        (kept,), (tau, hard, dim, draw) = ctx.saved_tensors, ctx.rest
        found = _pull_back(kept, cotangent, tau, hard, dim, draw, ctx.needs_input_grad[1])
        return (*found, None, None, None)


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: _Tensor, num_samples: int | None, dim: int, temperature: Any, method: _Method, draw: _Draw
    ) -> Any:
        drawn = Generator(*draw).sample(_source(logits), num_samples, axis=dim, temperature=temperature, method=method)
        indices, log_prob, logsumexp = (_as_tensor(part) for part in drawn)
        ctx.save_for_backward(logits, indices)
        ctx.mark_non_differentiable(indices)
        ctx.rest = num_samples is not None, dim, temperature
        return indices, log_prob, logsumexp

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Any, of_log_prob: _Tensor, of_logsumexp: _Tensor) -> Any:
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


def _softmax(logits: _Tensor, temperature: Any, dim: int) -> tuple[_Tensor, _Tensor]:
    """softmax(logits / temperature), and the temperatures as a tensor, one for all or one a row."""
    if _on_cuda(logits):
        from . import _device

        shape = logits.select(dim, 0).shape
        there = torch.as_tensor(temperature, dtype=torch.float64, device=logits.device)
        return _device.softmax(logits.detach(), temperature, dim), there.broadcast_to(shape) if there.ndim else there
    array = _checks.logits(_array(logits), dim)
    flat, per_row = _checks.temperature(temperature, array.shape[:-1])
    out = np.empty(logits.shape, array.dtype)
    _dispatch.softmax(array, flat, per_row, _last(out, dim))
    return _tensor(out), torch.tensor(flat).reshape(array.shape[:-1] if per_row else ())


# --- within torch.compile


def _pair(address: _Tensor) -> _Draw:
    seed, draw = address.numpy().view(np.uint64)
    return int(seed), int(draw)


@torch.library.custom_op(
    "numbel::gumbel_softmax",
    mutates_args=(),
    schema="(Tensor logits, Tensor tau, Tensor address, bool hard, int dim) -> Tensor",
)
def _compiled(logits: _Tensor, tau: _Tensor, address: _Tensor, hard: bool, dim: int) -> _Tensor:
    return _relax(logits, tau, hard, dim, _pair(address))


@_compiled.register_fake
def _(logits: _Tensor, tau: _Tensor, address: _Tensor, hard: bool, dim: int) -> _Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "numbel::gumbel_softmax_vjp",
    mutates_args=(),
    schema="(Tensor kept, Tensor cotangent, Tensor tau, Tensor address, bool hard, int dim) -> (Tensor, Tensor)",
)
def _compiled_vjp(
    kept: _Tensor, cotangent: _Tensor, tau: _Tensor, address: _Tensor, hard: bool, dim: int
) -> tuple[_Tensor, _Tensor]:
    in_logits, in_tau = _pull_back(kept, cotangent, tau, hard, dim, _pair(address), True)
    return in_logits, in_tau


@_compiled_vjp.register_fake
def _(
    kept: _Tensor, cotangent: _Tensor, tau: _Tensor, address: _Tensor, hard: bool, dim: int
) -> tuple[_Tensor, _Tensor]:
    return torch.empty_like(kept, memory_format=torch.contiguous_format), torch.empty_like(tau)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: _Tensor) -> None:
    logits, tau, address, hard, dim = inputs
    ctx.save_for_backward(logits if hard else output, tau, address)
    ctx.rest = hard, dim


def _compiled_backward(ctx: Any, cotangent: _Tensor) -> Any:
    kept, tau, address = ctx.saved_tensors
    return (*_compiled_vjp(kept, cotangent, tau, address, *ctx.rest), None, None, None)


_compiled.register_autograd(_compiled_backward, setup_context=_keep)
