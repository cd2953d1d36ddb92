"""Gradients of E[f(D)] in the logits, D one-hot with probabilities softmax(logits).

All take the same arguments and return a `numbel.Gradient`: the mean value of f over `num_samples` samples, and
the mean of that many estimates of the gradient. They differ in what they ask of f and in bias, variance and cost:

================== ====== =============== =========================================== =========================
name               df_dd  calls of f      bias                                        variance
================== ====== =============== =========================================== =========================
`score_function`   unused 1, at D         none                                        large; less with baseline
`rebar`            used   3               none                                        below, without baseline
`gumbel_softmax`   used   1, never at D   grows with the temperature                  grows as it falls
`straight_through` used   1, at D         some at every temperature                   grows as it falls
`gumbel_rao`       used   1, at D         that of `straight_through`                  below that one's
`reinmax`          used   1, at D         none for quadratic f at temperature 1       above `straight_through`
================== ====== =============== =========================================== =========================

`f(d)` gets an array of the shape and dtype of logits, categories along the user's axis, and returns `(value, df_dd)`.
`value` has any leading part of the rows' shape (the shape of logits without `axis`): () if all rows together
have one value, the whole shape if each has its own, (B,) for logits of shape (B, L, K) if L rows share one. `df_dd`, of
logits' shape, is the derivative of the sum of the values; None is enough for `score_function`. f is called once per
evaluation, for all rows at once; it may keep the array but must not write to it. For each sample the first call is at
the one-hot D, except with `gumbel_softmax`, which has none: gradients of other parameters of f may be collected
there. Only with `gumbel_softmax` and `rebar` must f be defined off the one-hot points.

Each sample takes one draw id of rng: its D is that of `rng.categorical(logits, method="gumbel_max")` at this id, its
relaxed sample that of `rng.gumbel_softmax`, so that estimators given equal rngs see the same D. Sums are kept in
float64; memory does not grow with `num_samples`, but for an index and a value each in `score_function`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import gradients
from ._arguments import checks
from ._arguments.requests import LogitRows, Temperature
from ._host import dispatch
from .generator import Generator
from .results import Gradient

__all__ = ["gumbel_rao", "gumbel_softmax", "rebar", "reinmax", "score_function", "straight_through"]

_Array = NDArray[Any]
_Function = Callable[[Any], tuple[Any, Any]]
_Estimator = TypeVar("_Estimator", bound=Callable[..., Gradient])


def _quiet(estimator: _Estimator) -> _Estimator:
    """Zeros and infinities of an estimator's own are meant, whatever `np.seterr` says; f keeps what its user set."""

    @functools.wraps(estimator)
    def call(f: _Function, *args: Any, **kwargs: Any) -> Gradient:
        state = np.geterr()

        def as_set(d: Any) -> tuple[Any, Any]:
            with np.errstate(**state):
                return f(d)

        with np.errstate(all="ignore"):
            return estimator(as_set if callable(f) else f, *args, **kwargs)

    return cast("_Estimator", call)


@_quiet
def score_function(
    f: _Function,
    logits: ArrayLike,
    rng: Generator,
    *,
    num_samples: int = 1,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
    baseline: bool = True,
) -> Gradient:
    """Score-function (REINFORCE) estimate: f(D) times the gradient of log P(D), over a leave-one-out baseline.

    Parameters
    ----------
    f : callable
        `f(d) -> (value, df_dd)`, as the module's text says; df_dd is not used and may be None.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    rng : Generator
        Gives one draw id for each sample.
    num_samples : int, optional
        Samples m to average over, at least 1.
    temperature : float or array_like, optional
        Accepted for the sake of one signature; it is checked and changes nothing.
    axis : int, optional
        The category axis.
    baseline : bool, optional
        Subtract from each value the mean of the other samples' values; no effect if num_samples is 1.

    Returns
    -------
    Gradient
        `value`, the mean of f(D), and `gradient`, of the shape and dtype of logits.

    Raises
    ------
    TypeError
        If f is not callable or returns no pair of real arrays, if rng is not a Generator, or if logits is not of one
        of the four dtypes.
    ValueError
        If what f returns has the wrong shape, a parameter is out of range or a row of logits is invalid.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With p = softmax(logits), the estimate is the mean over samples of (f(D) - b) (D - p), b the mean of f over the
    other samples, or 0 without baseline. It is unbiased. With baseline the terms in p cancel, and only the
    categories that were drawn get a gradient. Cost: one call of f each; a value and an index a row are kept.

    References
    ----------
    Williams (1992), "Simple Statistical Gradient-Following Algorithms", Machine Learning 8; Kool, van Hoof and
    Welling (2019), "Buy 4 REINFORCE Samples, Get a Baseline for Free!", ICLR workshop.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> reward = np.array([1.0, 2.0, 4.0])
    >>> found = numbel.estimators.score_function(
    ...     lambda d: (d @ reward, None), np.zeros(3), numbel.default_rng(5), num_samples=1000
    ... )
    >>> bool(np.all(abs(found.gradient - (reward - reward.mean()) / 3) < 0.2))
    True
    """
    task = _Task(f, logits, rng, num_samples, temperature, axis)
    if not baseline or task.num_samples == 1:

        def sample(seed: int, draw: int) -> _Array:
            index = task.hard(seed, draw)
            value, _ = task.call(task.one_hot(index), needed=False)
            task.add_at(index, task.spread(value))
            return value

        mean = task.mean(sample)
        task.total -= task.spread(mean * task.num_samples)[..., None] * task.softmax(task.wide)
        return task.result(mean)

    values: list[_Array] = []
    indices: list[_Array] = []

    def remember(seed: int, draw: int) -> _Array:
        indices.append(task.hard(seed, draw))
        values.append(task.call(task.one_hot(indices[-1]), needed=False)[0])
        return values[-1]

    mean = task.mean(remember)
    factor = task.num_samples / (task.num_samples - 1)
    for index, value in zip(indices, values, strict=True):
        task.add_at(index, task.spread((value - mean) * factor))
    return task.result(mean)


@_quiet
def gumbel_softmax(
    f: _Function,
    logits: ArrayLike,
    rng: Generator,
    *,
    num_samples: int = 1,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
) -> Gradient:
    """Path derivative (Gumbel-Softmax, Concrete): f and its derivative at the relaxed sample.

    Parameters
    ----------
    f : callable
        `f(d) -> (value, df_dd)`, as the module's text says; it is called at relaxed samples.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    rng : Generator
        Gives one draw id for each sample.
    num_samples : int, optional
        Samples to average over, at least 1.
    temperature : float or array_like, optional
        Temperature T of the relaxation, positive; an array broadcasts to the shape of logits without `axis`.
    axis : int, optional
        The category axis.

    Returns
    -------
    Gradient
        `value`, the mean of f(y), and `gradient`, of the shape and dtype of logits.

    Raises
    ------
    TypeError
        If f is not callable or returns no pair of real arrays, if rng is not a Generator, or if logits is not of one
        of the four dtypes.
    ValueError
        If what f returns has the wrong shape, a parameter is out of range or a row of logits is invalid.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With G the Gumbel noise of the draw and y = softmax((logits + G) / T), the estimate is J(y) f'(y) / T, where
    J(y) u = y (u - <y, u>). It is the exact derivative of f(y) in the logits, unbiased for E[f(y)] and biased for
    E[f(D)]: the bias falls with T, while the variance grows. Cost: one call of f each, at y.

    References
    ----------
    Jang, Gu and Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", ICLR; Maddison, Mnih and Teh
    (2017), "The Concrete Distribution", ICLR.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> target = np.array([0.1, 0.2, 0.7])
    >>> found = numbel.estimators.gumbel_softmax(
    ...     lambda d: (((d - target) ** 2).sum(), 2 * (d - target)), np.zeros(3), numbel.default_rng(5), temperature=0.5
    ... )
    >>> found.gradient.shape, bool(abs(found.gradient.sum()) < 1e-12)
    ((3,), True)
    """
    task = _Task(f, logits, rng, num_samples, temperature, axis)

    def sample(seed: int, draw: int) -> _Array:
        y = task.soft(seed, draw)
        value, slope = task.call(task.given(y))
        task.total += task.product(y, slope, task.temperature)
        return value

    return task.result(task.mean(sample))


@_quiet
def straight_through(
    f: _Function,
    logits: ArrayLike,
    rng: Generator,
    *,
    num_samples: int = 1,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
) -> Gradient:
    """Straight-through Gumbel-Softmax: f at the one-hot sample, the Jacobian of its relaxed twin.

    Parameters
    ----------
    f : callable
        `f(d) -> (value, df_dd)`, as the module's text says.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    rng : Generator
        Gives one draw id for each sample.
    num_samples : int, optional
        Samples to average over, at least 1.
    temperature : float or array_like, optional
        Temperature T of the relaxation, positive; an array broadcasts to the shape of logits without `axis`.
    axis : int, optional
        The category axis.

    Returns
    -------
    Gradient
        `value`, the mean of f(D), and `gradient`, of the shape and dtype of logits.

    Raises
    ------
    TypeError
        If f is not callable or returns no pair of real arrays, if rng is not a Generator, or if logits is not of one
        of the four dtypes.
    ValueError
        If what f returns has the wrong shape, a parameter is out of range or a row of logits is invalid.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With G the Gumbel noise of the draw, D the one-hot of argmax(logits + G) and y = softmax((logits + G) / T), the
    estimate is J(y) f'(D) / T, where J(y) u = y (u - <y, u>). It is biased at every temperature, and its variance
    grows as T falls. Cost: one call of f each.

    References
    ----------
    Jang, Gu and Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", ICLR.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> target = np.array([0.1, 0.2, 0.7])
    >>> found = numbel.estimators.straight_through(
    ...     lambda d: (((d - target) ** 2).sum(), 2 * (d - target)), np.zeros(3), numbel.default_rng(5)
    ... )
    >>> found.gradient.shape, bool(abs(found.gradient.sum()) < 1e-12)
    ((3,), True)
    """
    task = _Task(f, logits, rng, num_samples, temperature, axis)

    def sample(seed: int, draw: int) -> _Array:
        value, slope = task.call(task.one_hot(task.hard(seed, draw)))
        task.total += task.product(task.soft(seed, draw), slope, task.temperature)
        return value

    return task.result(task.mean(sample))


@_quiet
def gumbel_rao(
    f: _Function,
    logits: ArrayLike,
    rng: Generator,
    *,
    num_samples: int = 1,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
    conditional_samples: int = 10,
) -> Gradient:
    """Gumbel-Rao: `straight_through` averaged over the noise that leads to the same one-hot sample.

    Parameters
    ----------
    f : callable
        `f(d) -> (value, df_dd)`, as the module's text says.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    rng : Generator
        Gives one draw id for each sample.
    num_samples : int, optional
        Samples to average over, at least 1.
    temperature : float or array_like, optional
        Temperature T of the relaxation, positive; an array broadcasts to the shape of logits without `axis`.
    axis : int, optional
        The category axis.
    conditional_samples : int, optional
        Conditional noises for each sample, at least 1.

    Returns
    -------
    Gradient
        `value`, the mean of f(D), and `gradient`, of the shape and dtype of logits.

    Raises
    ------
    TypeError
        If f is not callable or returns no pair of real arrays, if rng is not a Generator, or if logits is not of one
        of the four dtypes.
    ValueError
        If what f returns has the wrong shape, a parameter is out of range or a row of logits is invalid.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With z the perturbed logits given that D's category is their argmax, and y = softmax(z / T), the estimate is the
    mean over `conditional_samples` z of J(y) f'(D) / T, where J(y) u = y (u - <y, u>); z is not differentiated. Its
    expectation, and so its bias, is that of `straight_through`; its variance is not larger, and falls with
    `conditional_samples` to that of the conditional mean. Cost: one call of f each, and a softmax for each z.

    The z of a sample are the conditional noise of draws 0, 1, ... of the generator that `rng.spawn(1)` would give at
    its draw id.

    References
    ----------
    Paulus, Maddison and Krause (2021), "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator",
    ICLR.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> target = np.array([0.1, 0.2, 0.7])
    >>> found = numbel.estimators.gumbel_rao(
    ...     lambda d: (((d - target) ** 2).sum(), 2 * (d - target)), np.zeros(3), numbel.default_rng(5)
    ... )
    >>> found.gradient.shape, bool(abs(found.gradient.sum()) < 1e-12)
    ((3,), True)
    """
    task = _Task(f, logits, rng, num_samples, temperature, axis)
    count = checks.positive_count(conditional_samples, "conditional_samples")

    def sample(seed: int, draw: int) -> _Array:
        index = task.hard(seed, draw)
        value, slope = task.call(task.one_hot(index))
        # a seed of the draw's own: neither threads nor the number of samples change which noise is used
        (child,) = dispatch.spawn_seeds(seed, draw, 1)
        for each in range(count):
            z = Generator(child, each).conditional_gumbel(task.wide, index)
            task.total += task.product(task.softmax(z, task.temperature), slope, task.temperature) / count
        return value

    return task.result(task.mean(sample))


@_quiet
def reinmax(
    f: _Function,
    logits: ArrayLike,
    rng: Generator,
    *,
    num_samples: int = 1,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
) -> Gradient:
    """ReinMax: a second-order straight-through estimate, from Heun's method.

    Parameters
    ----------
    f : callable
        `f(d) -> (value, df_dd)`, as the module's text says.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    rng : Generator
        Gives one draw id for each sample.
    num_samples : int, optional
        Samples to average over, at least 1.
    temperature : float or array_like, optional
        Temperature T of the softmax within q, at least 1; an array broadcasts to the shape of logits without `axis`.
    axis : int, optional
        The category axis.

    Returns
    -------
    Gradient
        `value`, the mean of f(D), and `gradient`, of the shape and dtype of logits.

    Raises
    ------
    TypeError
        If f is not callable or returns no pair of real arrays, if rng is not a Generator, or if logits is not of one
        of the four dtypes.
    ValueError
        If what f returns has the wrong shape, a parameter is out of range or a row of logits is invalid.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With p = softmax(logits), q = (softmax(logits / T) + D) / 2 and J(q) u = q (u - <q, u>), the estimate is
    2 J(q) f'(D) - J(p) f'(D) / 2. At T = 1 it is unbiased for quadratic f, in general it is biased. T > 1 trades bias
    for variance; D has probabilities p at every T. Cost: one call of f each, and no noise besides D's.

    References
    ----------
    Liu, Dong, Liu, Yu and Gao (2023), "Bridging Discrete and Backpropagation: Straight-Through and Beyond", NeurIPS.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> target = np.array([0.1, 0.2, 0.7])
    >>> found = numbel.estimators.reinmax(
    ...     lambda d: (((d - target) ** 2).sum(), 2 * (d - target)), np.zeros(3), numbel.default_rng(5)
    ... )
    >>> found.gradient.shape, bool(abs(found.gradient.sum()) < 1e-12)
    ((3,), True)
    """
    task = _Task(f, logits, rng, num_samples, temperature, axis, least=1.0)
    p = task.softmax(task.wide)
    tempered = task.softmax(task.wide, task.temperature) / 2

    def sample(seed: int, draw: int) -> _Array:
        index = task.hard(seed, draw)
        value, slope = task.call(task.one_hot(index))
        middle = tempered.copy()
        _add_at(middle, index, 0.5)
        task.total += 2 * task.product(middle, slope)
        task.total -= task.product(p, slope) / 2
        return value

    return task.result(task.mean(sample))


@_quiet
def rebar(
    f: _Function,
    logits: ArrayLike,
    rng: Generator,
    *,
    num_samples: int = 1,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
    eta: float = 1.0,
) -> Gradient:
    """REBAR: the score function, with a relaxed sample as control variate; unbiased.

    Parameters
    ----------
    f : callable
        `f(d) -> (value, df_dd)`, as the module's text says; it is called at relaxed samples, too.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    rng : Generator
        Gives one draw id for each sample.
    num_samples : int, optional
        Samples to average over, at least 1.
    temperature : float or array_like, optional
        Temperature T of the relaxation, positive; an array broadcasts to the shape of logits without `axis`.
    axis : int, optional
        The category axis.
    eta : float, optional
        Weight of the control variate.

    Returns
    -------
    Gradient
        `value`, the mean of f(D), and `gradient`, of the shape and dtype of logits.

    Raises
    ------
    TypeError
        If f is not callable or returns no pair of real arrays, if rng is not a Generator, or if logits is not of one
        of the four dtypes.
    ValueError
        If what f returns has the wrong shape, a parameter is out of range or a row of logits is invalid.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With z = logits + G the perturbed logits, D the one-hot of their argmax, z' fresh perturbed logits given that D's
    category is their argmax, and s = softmax(. / T), the estimate is

        (f(D) - eta f(s(z'))) (D - p) + eta d f(s(z)) - eta d f(s(z')),

    d the derivative in the logits at fixed noise; that of z' passes through the noise given D. It is unbiased at every
    T and eta; these set the variance alone. eta = 0 is `score_function` without baseline. Cost: three calls of f
    each, at D, s(z) and s(z'), in this order; df_dd is used at the last two.

    References
    ----------
    Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), "REBAR: Low-variance, Unbiased Gradient Estimates for
    Discrete Latent Variable Models", NeurIPS; Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation
    through the Void", ICLR, for categories.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> target = np.array([0.1, 0.2, 0.7])
    >>> found = numbel.estimators.rebar(
    ...     lambda d: (((d - target) ** 2).sum(), 2 * (d - target)), np.zeros(3), numbel.default_rng(5), eta=0.5
    ... )
    >>> found.gradient.shape, bool(abs(found.gradient.sum()) < 1e-12)
    ((3,), True)
    """
    task = _Task(f, logits, rng, num_samples, temperature, axis)
    scale = checks.finite(eta, "eta")
    p = task.softmax(task.wide)

    def sample(seed: int, draw: int) -> _Array:
        index = task.hard(seed, draw)
        value, _ = task.call(task.one_hot(index), needed=False)
        y = task.soft(seed, draw)
        _, slope = task.call(task.given(y))
        task.total += scale * task.product(y, slope, task.temperature)
        z = Generator(seed, draw).conditional_gumbel(task.wide, index)
        y = task.softmax(z, task.temperature)
        control, slope = task.call(task.given(y))
        task.total -= scale * _through_the_condition(z, index, p, task.product(y, slope, task.temperature))
        weight = task.spread(value - scale * control)
        task.total -= weight[..., None] * p
        task.add_at(index, weight)
        return value

    return task.result(task.mean(sample))


def _through_the_condition(z: _Array, index: _Array, p: _Array, cotangent: _Array) -> _Array:
    """Take a cotangent of z given its argmax back to the logits; z is overwritten.

    With k the argmax and E the noise, z_k = logsumexp(logits) - ln E_k and e^-z_i = E_i e^-logits_i + e^-z_k: so the
    derivative of z_k is p, and that of z_i is (1 - r_i) e_i + r_i p, r_i = e^(z_i - z_k).
    """
    z -= np.take_along_axis(z, index[..., None], -1)
    r = np.exp(z, out=z)
    to_top = (r * cotangent).sum(-1, keepdims=True)
    back: _Array = (1 - r) * cotangent + p * to_top
    return back


def _add_at(array: _Array, index: _Array, value: _Array | float) -> None:
    """Add to one category of each row."""
    at = index[..., None]
    added = np.take_along_axis(array, at, -1) + (value[..., None] if isinstance(value, np.ndarray) else value)
    np.put_along_axis(array, at, added, -1)


class _Task:
    """One call: its arguments, checked, the running total, and the steps that estimators share.

    All arrays here have the category axis last, except those that f takes and returns.
    """

    def __init__(
        self,
        f: _Function,
        logits: ArrayLike,
        rng: Generator,
        num_samples: int,
        temperature: ArrayLike,
        axis: int,
        least: float = 0.0,
    ) -> None:
        if not callable(f):
            raise TypeError(f"f must be callable, got {type(f).__name__}")
        if not isinstance(rng, Generator):
            raise TypeError(f"rng must be a numbel.Generator, got {type(rng).__name__}")
        self.f, self.rng, self.axis = f, rng, axis
        self.rows = checks.logits(logits, axis)
        self.batch = self.rows.shape[:-1]
        self.num_samples = checks.positive_count(num_samples, "num_samples")
        flat, per_row = checks.positive_temperature(temperature, self.batch, least)
        self.temperature: _Array | float = flat.reshape(self.batch) if per_row else float(flat[0])
        # of half precision, y would sum to 1 +- 1/256, and a constant added to df_dd would not cancel
        self.wide = self.rows if self.rows.itemsize >= 4 else self.rows.astype(np.float32)
        self.shape = np.moveaxis(self.rows, -1, axis).shape
        self.form: tuple[int, ...] | None = None
        self._sum = np.zeros(self.shape)
        self.total = np.moveaxis(self._sum, axis, -1)

    def mean(self, sample: Callable[[int, int], _Array]) -> _Array:
        """Run the samples, a draw id each; their mean value."""
        total: Any = 0.0
        for _ in range(self.num_samples):
            with self.rng._reserve() as (seed, draw):
                total = total + sample(seed, draw)
        mean: _Array = np.asarray(total) / self.num_samples
        return mean

    def result(self, mean: _Array) -> Gradient:
        """Divide the total by the number of samples."""
        self._sum /= self.num_samples
        return Gradient(np.asarray(mean)[()], self._sum.astype(self.rows.dtype, copy=False))

    def hard(self, seed: int, draw: int) -> _Array:
        """The categories of D."""
        return np.asarray(Generator(seed, draw).categorical(self.rows, method="gumbel_max"))

    def soft(self, seed: int, draw: int) -> _Array:
        """The relaxed sample of the same noise."""
        y: _Array = Generator(seed, draw).gumbel_softmax(self.wide, self.temperature)
        return y

    def softmax(self, array: _Array, temperature: _Array | float = 1.0) -> _Array:
        """softmax(array / temperature)."""
        out = np.empty(array.shape, array.dtype)
        given = Temperature(np.asarray(temperature, np.float64).reshape(-1), isinstance(temperature, np.ndarray))
        bad = dispatch.relaxed(LogitRows(array, given), None, out)
        if bad is not None:
            checks.invalid_row(array, bad)
        return out

    def one_hot(self, index: _Array) -> _Array:
        """D, as f takes it."""
        d = np.zeros(self.shape, self.rows.dtype)
        np.put_along_axis(np.moveaxis(d, self.axis, -1), index[..., None], 1, -1)
        return d

    def given(self, y: _Array) -> _Array:
        """A relaxed sample, as f takes it."""
        return np.ascontiguousarray(np.moveaxis(y, -1, self.axis), dtype=self.rows.dtype)

    def call(self, d: _Array, needed: bool = True) -> tuple[_Array, _Array]:
        """The value of f as float64, and df_dd with the category axis last (meaningless unless `needed`)."""
        value, slope = checks.value_and_slope(self.f(d), self.batch, self.shape, needed, self.form)
        self.form = value.shape
        if not needed or slope is None:
            return value, value
        return value, np.moveaxis(slope, self.axis, -1).astype(self.wide.dtype, copy=False)

    def product(self, y: _Array, slope: _Array, temperature: _Array | float = 1.0) -> _Array:
        """The Jacobian of softmax(z / temperature), where it is y, times df_dd."""
        if not np.isfinite(slope).all():
            # df_dd may be infinite at the edge of the simplex, where nothing moves
            slope = np.where(y > 0, slope, 0)
        return gradients.pull_back(y, slope, temperature, -1, None, False)[0]

    def spread(self, value: _Array) -> _Array:
        """A value for each row, from one for each group of rows."""
        return np.broadcast_to(value.reshape(value.shape + (1,) * (len(self.batch) - value.ndim)), self.batch)

    def add_at(self, index: _Array, weight: _Array) -> None:
        """Add to the total at one category of each row."""
        _add_at(self.total, index, weight)
