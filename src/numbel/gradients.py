"""Derivatives and densities of relaxed samples."""

from __future__ import annotations

import math
import operator
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import checks
from ._arguments.requests import parts
from ._arguments.types import DTypeT, Elsewhere, ShapeT
from ._host import dispatch


@overload
def gumbel_softmax_vjp(
    y: np.ndarray[ShapeT, DTypeT],
    cotangent: ArrayLike,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    stream: Any = None,
) -> tuple[np.ndarray[ShapeT, DTypeT], np.float64]: ...


@overload
def gumbel_softmax_vjp(
    y: np.ndarray[ShapeT, DTypeT],
    cotangent: ArrayLike,
    temperature: ArrayLike = 1.0,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    stream: Any = None,
) -> tuple[np.ndarray[ShapeT, DTypeT], Any]: ...


@overload
def gumbel_softmax_vjp(
    y: ArrayLike | Elsewhere,
    cotangent: ArrayLike | Elsewhere,
    temperature: ArrayLike | Elsewhere = 1.0,
    *,
    axis: int = -1,
    out: Any = None,
    stream: Any = None,
) -> tuple[Any, Any]: ...


def gumbel_softmax_vjp(
    y: ArrayLike | Elsewhere,
    cotangent: ArrayLike | Elsewhere,
    temperature: ArrayLike | Elsewhere = 1.0,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    stream: Any = None,
) -> tuple[NDArray[Any], Any]:
    """Vector-Jacobian product of a relaxed sample y = softmax(z / temperature), at fixed noise.

    Parameters
    ----------
    y : array_like, shape (..., n) with the categories along `axis`
        Relaxed samples, as `Generator.gumbel_softmax` makes them, in one of its dtypes.
    cotangent : array_like, shape of y
        Derivative of a scalar in y; it is converted to y's dtype.
    temperature : float or array_like, optional
        That of the sample. A row of temperature 0 has gradient 0.
    axis : int, optional
        The category axis.
    out : ndarray of the shape and dtype of y, optional
        Where to write the gradient in the logits; it may be y or cotangent itself.
    stream : object with `__cuda_stream__`, optional
        As in `Generator.categorical`, for arrays on a CUDA device. There, temperature is a scalar or has one entry
        for each row.

    Returns
    -------
    d_logits : ndarray, of the shape and dtype of y
        Derivative of the scalar in the logits (and in the noise); along `axis` it sums to 0, up to rounding.
    d_temperature : float64, of the shape of temperature
        Derivative in the temperature; a NumPy scalar where that is one.

    Raises
    ------
    TypeError
        If y is not of one of the four dtypes, or `out` is not an array of that dtype.
    ValueError
        If shapes do not fit, if a temperature is out of range or if `out` is read-only.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With u the cotangent and a = sum(y u) / sum(y), d_logits = y (u - a) / T, and d_temperature = -sum(ln(y) d_logits),
    since z / T is ln y up to a constant. Where y is 0, so are both terms. Sums and products are float64; nothing of
    the size of y is allocated but the result. NaN passes through. It costs two reads of y and cotangent, from cache
    where a row fits in it, and one write.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> y = numbel.Generator(5).gumbel_softmax(np.zeros(4), temperature=0.5)
    >>> d_logits, d_temperature = numbel.gumbel_softmax_vjp(y, np.arange(4.0), 0.5)
    >>> bool(abs(d_logits.sum()) < 1e-12), d_temperature.shape
    (True, ())
    """
    if checks.on_device(y):
        from . import _device

        return _device.gumbel_softmax_vjp(y, cotangent, temperature, axis, out, stream)
    if stream is not None:
        raise TypeError("stream is for arrays on a CUDA device, and y lies on the host")
    return pull_back(checks.plain(y, "y"), cotangent, temperature, axis, out, True)


def pull_back(
    y: NDArray[Any],
    cotangent: Any,
    temperature: Any,
    axis: int,
    out: NDArray[Any] | None,
    in_temperature: bool,
) -> tuple[NDArray[Any], Any]:
    """`gumbel_softmax_vjp`, with None for the derivative in the temperature unless it is asked for."""
    array = checks.logits(y, axis, "y")
    given = checks.cotangent(cotangent, y.shape, array.dtype)
    rows = array.shape[:-1]
    temperatures = checks.temperature(temperature, rows)
    result = np.empty(y.shape, array.dtype) if out is None else checks.out(out, y.shape, array.dtype)
    other, target = (a if axis == -1 else np.moveaxis(a, axis, -1) for a in (given, result))
    array, other = checks.apart(array, target), checks.apart(other, target)
    if not in_temperature:
        dispatch.vjp(array, other, temperatures, target, None, out is not None)
        return result, None
    shape = np.shape(temperature)
    if temperatures.per_row:
        in_rows = np.empty(math.prod(rows))
        dispatch.vjp(array, other, temperatures, target, in_rows, out is not None)
        with np.errstate(all="ignore"):
            return result, _sum_to(in_rows.reshape(rows), shape)
    total = 0.0
    for index, run in parts(rows):
        in_rows = np.empty(run.stop - run.start)
        dispatch.vjp(array[index], other[index], temperatures, target[index], in_rows, out is not None)
        with np.errstate(all="ignore"):
            total += float(in_rows.sum())
    return result, np.full(shape, total)[()]


def _sum_to(array: NDArray[Any], shape: tuple[int, ...]) -> Any:
    """Sum over the axes along which an array of `shape` was broadcast."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    stretched = tuple(at for at, length in enumerate(shape) if length == 1 and array.shape[at] != 1)
    return array.sum(axis=stretched, keepdims=True)[()] if stretched else array


def concrete_log_prob(y: ArrayLike, logits: ArrayLike, temperature: ArrayLike = 1.0, *, axis: int = -1) -> Any:
    """Log density of the Concrete (Gumbel-Softmax) distribution at points of the simplex.

    Parameters
    ----------
    y : array_like, shape (..., n) with the categories along `axis`
        Points of the simplex, as `Generator.gumbel_softmax` makes them. Their rows broadcast against those of
        logits, so that leading axes of samples are possible. That a row sums to 1 is not checked.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    temperature : float or array_like, optional
        Positive; an array broadcasts to the joint shape of the rows.
    axis : int, optional
        The category axis of logits; in y it lies as far from the last axis as there.

    Returns
    -------
    ndarray of float64, or a NumPy float64 for a single row
        The joint shape of the rows of y and logits.

    Raises
    ------
    TypeError
        If y or logits is not of one of the four dtypes in native byte order.
    ValueError
        If y is negative, NaN or infinite, if logits hold NaN or +inf or a row of nothing but -inf, if temperature is
        not positive and finite, or if shapes do not fit.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With T the temperature, the density in the first n - 1 coordinates of y is

        (n - 1)! T^(n-1) prod_i(e^logits_i y_i^(-T-1)) / (sum_i e^logits_i y_i^-T)^n,

    evaluated in logarithms, in float64. Categories whose logit is -inf are left out, and n counts the
    others: it is the density on the face of the simplex where y is 0 there, and -inf off that face. Where y is 0
    at z of the n possible categories, the result is the limit as those shrink at one rate: -inf if (n - z) T > z, inf
    if it is less, and a finite number if they are equal. Samples at low temperatures often reach 0 by
    rounding; keep their logarithms and use `exp_concrete_log_prob`.

    References
    ----------
    Maddison, Mnih and Teh (2017), "The Concrete Distribution", ICLR; Jang, Gu and Poole (2017),
    "Categorical Reparameterization with Gumbel-Softmax", ICLR.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> density = np.exp(numbel.concrete_log_prob(np.array([0.3, 0.7]), np.zeros(2)))
    >>> round(float(density), 9)  # uniform, at temperature 1
    1.0
    >>> numbel.concrete_log_prob(np.full((5, 2, 3), 1 / 3), np.zeros((2, 3)), 0.5).shape
    (5, 2)
    """
    return _concrete(y, logits, temperature, axis, "y", 1)


def exp_concrete_log_prob(log_y: ArrayLike, logits: ArrayLike, temperature: ArrayLike = 1.0, *, axis: int = -1) -> Any:
    """Log density of the ExpConcrete distribution: that of the logarithm of a Concrete sample.

    Parameters
    ----------
    log_y : array_like, shape (..., n) with the categories along `axis`
        Logarithms of points of the simplex, (logits + noise) / T minus its logsumexp. Their rows broadcast
        against those of logits. That the exponentials of a row sum to 1 is not checked.
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    temperature : float or array_like, optional
        Positive; an array broadcasts to the joint shape of the rows.
    axis : int, optional
        The category axis of logits; in log_y it lies as far from the last axis as there.

    Returns
    -------
    ndarray of float64, or a NumPy float64 for a single row
        The joint shape of the rows of log_y and logits.

    Raises
    ------
    TypeError
        If log_y or logits is not of one of the four dtypes in native byte order.
    ValueError
        If log_y holds NaN or +inf, if logits hold NaN or +inf or a row of nothing but -inf, if
        temperature is not positive and finite, or if shapes do not fit.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    With T the temperature and x = log_y, the density is

        (n - 1)! T^(n-1) prod_i(e^(logits_i - T x_i)) / (sum_i e^(logits_i - T x_i))^n:

    that of `concrete_log_prob` at e^x, times e^(sum_i x_i), as Maddison et al. and PyTorch have it. It is a density
    in the measure dx_1 ... dx_(n-1) / e^(x_n), which is the same whichever coordinate is left out; the log density in
    x_1 ... x_(n-1) alone is the result minus x_n. It stays finite where e^x underflows. Logits of -inf are treated as
    in `concrete_log_prob`; -inf in log_y at a possible category gives -inf.

    References
    ----------
    Maddison, Mnih and Teh (2017), "The Concrete Distribution", ICLR.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> log_y = np.array([-800.0, 0.0])  # e^-800 is 0 in float64
    >>> round(float(numbel.exp_concrete_log_prob(log_y, np.zeros(2), 0.01)), 3)
    -12.606
    """
    return _concrete(log_y, logits, temperature, axis, "log_y", 0)


def _concrete(points: Any, logits: Any, temperature: Any, axis: int, name: str, power: int) -> Any:
    """Log density with exponents -(T + power) of the points, or of those whose logarithms are given (power 0)."""
    with np.errstate(all="ignore"):  # zeros and infinities are meant
        return _density(points, logits, temperature, axis, name, power)


def _density(points: Any, logits: Any, temperature: Any, axis: int, name: str, power: int) -> Any:
    array = checks.logits(logits, axis)
    columns, axis = array.shape[-1], operator.index(axis)
    moved = checks.relaxed_sample(points, name, axis if axis < 0 else axis - array.ndim, columns, log=power == 0)
    batch = checks.joint_shape(moved.shape[:-1], array.shape[:-1], name)
    temperatures, per_row = checks.positive_temperature(temperature, batch)
    t = temperatures.reshape(batch) if per_row else temperatures[0]
    phi = array.astype(np.float64)
    # NaN and +inf both make the largest logit of a row neither finite nor -inf; a row of -inf is an error, too
    top = phi.max(-1, keepdims=True)
    invalid = np.flatnonzero(~np.isfinite(top))
    if invalid.size:
        checks.invalid_row(array, int(invalid[0]))
    # the largest logit cancels; without it, logits near 1e300 would, too
    phi -= top
    log_y = moved.astype(np.float64)
    if power:
        np.log(log_y, out=log_y)
    phi, log_y = np.broadcast_arrays(phi, log_y)
    possible, zero = phi > -math.inf, log_y == -math.inf
    off_face = (~possible & ~zero).any(-1)
    zero = zero & possible
    n, zeros = possible.sum(-1), zero.sum(-1)
    log_y = np.where(possible & ~zero, log_y, 0.0)
    # zeros that shrink at one rate leave the others behind in the sum
    terms = np.where(np.where(zeros[..., None] > 0, zero, possible), phi - t[..., None] * log_y, -math.inf)
    largest = terms.max(-1)
    log_sum = largest + np.log(np.exp(terms - largest[..., None]).sum(-1))
    products = (np.where(possible, phi, 0.0) - (t[..., None] + power) * log_y).sum(-1)
    log_gamma = np.asarray(np.frompyfunc(math.lgamma, 1, 1)(n), np.float64)
    result = log_gamma + (n - 1) * np.log(t) + products - n * log_sum
    slope = (n - zeros) * t - power * zeros
    result = np.where((zeros > 0) & (slope != 0), np.where(slope > 0, -math.inf, math.inf), result)
    return np.where(off_face | (zeros == n), -math.inf, result)[()]
