"""numbel for PyTorch tensors on the CPU or on CUDA: relaxed samples with autograd, and categorical samples; no copies.

`generator` is a `numbel.Generator`, of which a call takes one draw id, or a `torch.Generator`, from which it takes a
seed; None is torch's own default generator on the CPU, so that `torch.manual_seed`, the workers of a DataLoader and
checkpointing behave as with torch's functions. The results are bit for bit those of `numbel.Generator`.

`torch.utils.checkpoint` restores the state of torch's default generators alone. A draw of another one is refused while
a backward pass runs, since it would not be that of the forward pass.

Within `torch.func.vmap` and what uses it, `randomness` says what a draw means, as for torch's functions: "error"
refuses it, "same" makes each element a call of its own at one seed and draw id, "different" gives each a seed of its
own. A call with a `numbel.Generator` takes one draw id there, too, and the first element has its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('numbel.torch needs PyTorch: pip install "numbel[torch]"', name=error.name) from None

from ..results import Sample
from ._autograd import (
    AnyGenerator,
    Drawn,
    Method,
    Relaxed,
    Sampled,
    Sampling,
    Tensor,
    address_of,
    addressed,
    apply,
    check,
    compiled,
    draw_traced,
    from_end,
    known,
    operand,
    own_temperature,
    positive,
    sampled,
)

__all__ = ["ExponentialSchedule", "GumbelSoftmax", "categorical", "gumbel_softmax", "sample"]


def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    generator: AnyGenerator = None,
) -> Tensor:
    """Relaxed one-hot samples, softmax((logits + gumbel) / tau): a drop-in for `torch.nn.functional.gumbel_softmax`.

    Parameters
    ----------
    logits : Tensor, shape (..., n) with the categories along `dim`
        Unnormalised natural log-probabilities, on the CPU or on a CUDA device: float16, bfloat16, float32 or float64;
        -inf is impossible.
    tau : float or Tensor, optional
        Temperature, positive (for 0, the limit, there is `hard`); a tensor broadcasts against logits and has size 1
        along `dim`.
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
        If logits is not a tensor of one of the four dtypes on the CPU, on CUDA or on meta; if `make_fx` would put the
        one draw of a numbel.Generator into a graph.
    RuntimeError
        If logits is on a CUDA device and CUDA does not work in Numba: what is missing. If generator is not torch's
        default one and a backward pass runs.
    ValueError
        If tau is not positive and finite or does not fit. On a CUDA device, rows of which a tensor tau is neither
        become NaN: nothing waits for the device.
    numpy.exceptions.AxisError
        If dim is out of range.

    Notes
    -----
    Rows that hold NaN or +inf, or nothing but -inf, become NaN, as in torch: nothing is raised. A tensor without
    dimensions is a row of one category; rows without categories stay empty, unless `hard`.

    Derivatives of any order are defined, in logits and, where tau is a tensor that requires it, in tau, in reverse and
    in forward mode, and under the transforms of `torch.func`. The first one in reverse mode needs the soft sample,
    which is the result itself; with `hard` it is made anew from logits and the draw, so that nothing else is stored.
    Further ones are those of torch's operations, in memory of the size of logits. What the backward pass needs must
    not be changed in place before it: torch raises.

    Within `torch.compile` it is one operator of the graph, whose seed is drawn by the graph: with a backend that draws
    as torch does, the samples are those of a plain call. Fake tensors and tensors on meta give their like.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> logits = torch.zeros(2, 3, requires_grad=True)
    >>> y = numbel.torch.gumbel_softmax(logits, tau=0.5, generator=numbel.Generator(5))
    >>> y[:, 0].sum().backward()
    >>> logits.grad.shape
    torch.Size([2, 3])
    """
    check(logits)
    if logits.ndim == 0:
        one = logits.reshape(1)
        return gumbel_softmax(one, tau, hard, dim=from_end(dim, one), generator=generator).reshape(())
    if torch.compiler.is_compiling():
        return compiled(logits, operand(tau), address_of(generator), bool(hard), dim)
    dim, tau = from_end(dim, logits), tau if isinstance(tau, torch.Tensor) else float(tau)
    with addressed(generator, logits, tau=tau) as address:
        found: Tensor = apply(Relaxed, logits, tau, address, bool(hard), dim)
    return found


def categorical(
    logits: Tensor,
    num_samples: int | None = None,
    *,
    dim: int = -1,
    temperature: float | Tensor = 1.0,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    method: Method = "grouped",
    generator: AnyGenerator = None,
) -> Tensor:
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
    RuntimeError
        As in `gumbel_softmax`.

    Notes
    -----
    Within `torch.compile` it is one operator of the graph, like `sample`.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> numbel.torch.categorical(torch.zeros(2, 10), 3).shape
    torch.Size([2, 3])
    """
    check(logits)
    if torch.compiler.is_compiling():
        address = address_of(generator)
        return draw_traced(logits, temperature, (top_k, top_p, min_p), address, num_samples, dim, method)
    dim = from_end(dim, logits)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    with addressed(generator, logits, **options) as address:
        sampling = Sampling(num_samples, dim, method)
        found: Tensor = apply(Drawn, logits.detach(), temperature, top_k, top_p, min_p, address, sampling)
    return found


def sample(
    logits: Tensor,
    num_samples: int | None = None,
    *,
    dim: int = -1,
    temperature: float | Tensor = 1.0,
    method: Method = "grouped",
    generator: AnyGenerator = None,
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
    TypeError, ValueError, RuntimeError, numpy.exceptions.AxisError
        As in `categorical`.

    Notes
    -----
    The gradients, in logits and in a temperature that requires one, are those of `torch.log_softmax(logits /
    temperature)` at the indices and of `torch.logsumexp`: what the score-function estimator (REINFORCE) needs. Rows of
    temperature 0 have gradient 0. In logits, the first takes one more pass over logits and no memory but the result. As
    in `gumbel_softmax`, there are derivatives of any order, and what they need must not be changed in place before.

    Examples
    --------
    >>> import torch, numbel.torch
    >>> logits = torch.zeros(4, requires_grad=True)
    >>> drawn = numbel.torch.sample(logits, generator=numbel.Generator(5))
    >>> drawn.log_prob.backward()
    >>> bool(abs(logits.grad.sum()) < 1e-6)
    True
    """
    check(logits)
    if torch.compiler.is_compiling():
        address = address_of(generator)
        return Sample(*sampled(logits, operand(temperature), address, num_samples, dim, method))
    dim, temperature = from_end(dim, logits), own_temperature(temperature)
    with addressed(generator, logits, temperature=temperature) as address:
        return Sample(*apply(Sampled, logits, temperature, address, num_samples, dim, method))


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
        tau: float | Tensor | None = None,
        *,
        schedule: Callable[[int], float] | None = None,
        hard: bool = False,
        dim: int = -1,
        generator: AnyGenerator = None,
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
            self.register_buffer("tau", torch.tensor(positive(first), dtype=torch.float64))

    def step(self) -> None:
        """Count an optimizer step, and set the temperature that the schedule has for it: after the backward pass."""
        self.steps += 1
        if self.schedule is not None:
            self.tau.fill_(positive(self.schedule(int(self.steps))))

    def forward(self, logits: Tensor) -> Tensor:
        """A relaxed sample of logits at the present temperature."""
        return gumbel_softmax(logits, self.tau, self.hard, dim=self.dim, generator=self.generator)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        tau = (
            f"{float(self.tau.detach()):g}"
            if known(self.tau)
            else f"<of shape {tuple(self.tau.shape)} on {self.tau.device}>"
        )
        return f"tau={tau}, schedule={self.schedule}, hard={self.hard}, dim={self.dim}"
