"""Log-probabilities, logsumexp and entropy, one pass over the logits each; weights of samples without replacement."""

from __future__ import annotations

import math
import operator
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import checks
from ._arguments.requests import LogitRows, Outputs
from ._arguments.types import Elsewhere, FloatT, FloatTensor, FloatVector, ShapeT, Sums, Tensor, UnknownRank, Vector
from ._host import common, dispatch, top_k
from .results import TopK


@overload
def logsumexp(
    logits: np.ndarray[Any, np.dtype[FloatT]],
    *,
    axis: None,
    keepdims: Literal[False] = False,
    out: None = None,
    **options: Unpack[Sums],
) -> FloatT: ...


@overload
def logsumexp(
    logits: np.ndarray[ShapeT, np.dtype[FloatT]],
    *,
    axis: int | tuple[int, ...] | None = -1,
    keepdims: Literal[True],
    out: None = None,
    **options: Unpack[Sums],
) -> np.ndarray[ShapeT, np.dtype[FloatT]]: ...


@overload
def logsumexp(
    logits: UnknownRank, *, axis: int = -1, keepdims: Literal[False] = False, out: None = None, **options: Unpack[Sums]
) -> Any: ...


@overload
def logsumexp(
    logits: FloatVector[FloatT],
    *,
    axis: int = -1,
    keepdims: Literal[False] = False,
    out: None = None,
    **options: Unpack[Sums],
) -> FloatT: ...


@overload
def logsumexp(
    logits: FloatTensor[FloatT],
    *,
    axis: int = -1,
    keepdims: Literal[False] = False,
    out: None = None,
    **options: Unpack[Sums],
) -> NDArray[FloatT]: ...


@overload
def logsumexp(
    logits: ArrayLike | Elsewhere,
    *,
    axis: int | tuple[int, ...] | None = -1,
    keepdims: bool = False,
    out: NDArray[Any] | None = None,
    **options: Unpack[Sums],
) -> Any: ...


def logsumexp(
    logits: ArrayLike | Elsewhere,
    *,
    axis: int | tuple[int, ...] | None = -1,
    temperature: ArrayLike = 1.0,
    keepdims: bool = False,
    on_invalid: str | None = None,
    out: NDArray[Any] | None = None,
    stream: Any = None,
) -> Any:
    """Logarithm of the sum of exp(logits / temperature) of each row: that of `Generator.sample`, bit for bit.

    Parameters
    ----------
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible. Any
        strides, read-only and memory-mapped arrays, without copying the array; at most 2**34 categories.
    axis : int, tuple of int or None, optional
        The category axis. Several, or None for all, are summed over together, in C order of the axes; where they are
        not neighbours in memory the array is copied.
    temperature : float or array_like, optional
        2^-100 .. 2^100, or 0 for the limit of max / T: -inf, 0 or inf; an array broadcasts to the shape of logits
        without `axis`.
    keepdims : bool, optional
        Keep the axes that are summed over, with length 1.
    on_invalid : {"raise", "flag"}, optional
        What to do with rows that hold NaN or +inf: raise, or NaN. None raises on the CPU and flags on a CUDA device,
        where raising waits for the device. A row of only -inf has -inf, as in SciPy, PyTorch and JAX.
    out : ndarray, optional
        Where to write, of the shape and dtype of the result.
    stream : object with `__cuda_stream__`, optional
        For logits on a CUDA device, as in `Generator.categorical`.

    Returns
    -------
    ndarray, of the shape of logits without `axis`, or a NumPy scalar where that is ()
        In nats; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError
        If logits is not of one of the four dtypes in native byte order, or `out` not an array of the result's.
    ValueError
        If there are no categories or more than 2**34, if a parameter is out of range or of the wrong shape, or
        if a row is invalid and on_invalid is "raise": the message names the first bad row and column.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    Within 4e-7 of the exact value before it is rounded, the worst of four million random rows being 3.2e-7 (float64
    logits: 1e-15 and a relative 2e-16). It depends on
    no thread count, memory layout or batch split.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> float(numbel.logsumexp(np.zeros(8))) == float(np.log(8.0))
    True
    """
    found = common.logsumexp(logits, axis, temperature, (on_invalid, out, stream, keepdims))
    if found is not None:
        return found
    if _on_device(logits, stream):
        from . import _device

        if keepdims or not isinstance(axis, int):
            raise TypeError("on a CUDA device axis is one integer, and keepdims False")
        return _device.logsumexp(logits, axis, temperature, on_invalid, out, stream)
    given = checks.plain_logits(logits)
    axes, whole = checks.axes(axis, given.ndim, "logits"), given.shape
    if axes is not None:
        given = np.moveaxis(given, axes, range(-len(axes), 0))
        given = given.reshape(*given.shape[: -len(axes)], -1)
    rows, raises = _rows(given, -1 if axes is not None else axis, temperature, on_invalid)  # type: ignore[arg-type]
    array = rows.array
    kind, shape = dispatch.result_dtype(array.dtype), array.shape[:-1]
    if keepdims:
        kept = list(whole)
        for at in (operator.index(axis),) if axes is None else axes:  # type: ignore[arg-type]
            kept[at] = 1
        shape = tuple(kept)
    result, target = _output(shape, kind, out, array, rows.temperature.values)
    bad = dispatch.categorical(rows, 0, "grouped", (0, 0), Outputs(logsumexp=target))
    if bad is not None:
        bad = _empty_sums(array, target.reshape(-1))
    return _finish(result, target, out, array, bad if raises else None)


def _empty_sums(array: NDArray[Any], sums: NDArray[Any]) -> int | None:
    """Put -inf where a row is NaN because it holds nothing but -inf; the first of the other bad rows, if any."""
    bad, shape = None, array.shape[:-1]
    rows, at_once = np.flatnonzero(np.isnan(sums)), max(1, (1 << 18) // array.shape[-1])
    for first in range(0, len(rows), at_once):
        some = rows[first : first + at_once]
        # a long row is looked at where it is, short ones are copied
        values = array[np.unravel_index(some, shape) if len(some) > 1 else np.unravel_index(some[0], shape)]
        with np.errstate(invalid="ignore"):
            empty = np.atleast_1d(values.max(-1) == -math.inf)
        sums[some[empty]] = -math.inf
        if bad is None and not empty.all():
            bad = int(some[~empty][0])
    return bad


@overload
def log_prob(
    logits: np.ndarray[Any, np.dtype[FloatT]],
    index: UnknownRank,
    *,
    axis: int = -1,
    out: None = None,
    **options: Unpack[Sums],
) -> Any: ...


@overload
def log_prob(
    logits: np.ndarray[Any, np.dtype[FloatT]],
    index: int | np.integer[Any],
    *,
    axis: int = -1,
    out: None = None,
    **options: Unpack[Sums],
) -> FloatT: ...


@overload
def log_prob(
    logits: np.ndarray[Any, np.dtype[FloatT]],
    index: Vector | Tensor | list[int],
    *,
    axis: int = -1,
    out: None = None,
    **options: Unpack[Sums],
) -> NDArray[FloatT]: ...


@overload
def log_prob(
    logits: ArrayLike | Elsewhere,
    index: ArrayLike | Elsewhere,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    **options: Unpack[Sums],
) -> Any: ...


def log_prob(
    logits: ArrayLike | Elsewhere,
    index: ArrayLike | Elsewhere,
    *,
    axis: int = -1,
    temperature: ArrayLike = 1.0,
    on_invalid: str | None = None,
    out: NDArray[Any] | None = None,
    stream: Any = None,
) -> Any:
    """Logarithm of the probability of given categories: that of `Generator.sample`, bit for bit.

    Parameters
    ----------
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    index : array_like of int, of the shape of logits without `axis`, or of one axis more
        Categories of each row, such as `Generator.categorical` returns, one or several of each.
    axis : int, optional
        The category axis.
    temperature : float or array_like, optional
        As in `logsumexp`. A row of temperature 0 has all its probability at its first largest logit.
    on_invalid : {"raise", "flag"}, optional
        As in `logsumexp`, but rows of only -inf are invalid, too. With "flag", and None on a CUDA device, an index that
        is out of range gets NaN.
    out : ndarray, optional
        Where to write, of the shape of index and the dtype of the result.
    stream : object with `__cuda_stream__`, optional
        As in `logsumexp`.

    Returns
    -------
    ndarray, of the shape of index, or a NumPy scalar where that is one
        In nats, never above 0, -inf for an impossible category; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError
        As in `logsumexp`, or if index does not hold integers.
    ValueError
        As in `logsumexp`, or if an index is out of range: the message names its row.
    numpy.exceptions.AxisError
        If axis is out of range.

    Notes
    -----
    logits / T - logsumexp at the index, the large parts cancelled before they are rounded, so that it stays accurate
    where ``|logits| / T`` is huge. A category of a float32 row that has nearly all the probability gets 0 within 1e-7.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> logits = np.log(np.arange(1.0, 5.0))
    >>> np.exp(numbel.log_prob(logits, [0, 3])).round(6).tolist()
    [0.1, 0.4]
    """
    found = common.log_prob(logits, index, axis, temperature, (on_invalid, out, stream))
    if found is not None:
        return found
    if _on_device(logits, stream):
        from . import _device

        return _device.log_prob(logits, index, axis, temperature, on_invalid, out, stream)
    rows, raises = _rows(logits, axis, temperature, on_invalid)
    given = checks.indices(index, rows.array.shape, raises)
    kind = dispatch.result_dtype(rows.array.dtype)
    result, target = _output(given.shape, kind, out, rows.array, rows.temperature.values, given)
    bad: list[int] = []
    each = given.reshape(rows.number, -1) if given.size else given
    flat = target.reshape(each.shape)
    for _, run, part in rows.parts():
        argmaxes, roots = np.empty(part.number, np.int64), np.empty((part.number, 2))
        samples = 0 if part.temperature.values.all() else 1
        found = dispatch.categorical(part, samples, "grouped", (0, 0), Outputs(indices=argmaxes, roots=roots))
        if found is not None:
            bad.append(run.start + found)
        dispatch.given_log_prob(part, each[run], argmaxes, roots, flat[run])
    return _finish(result, target, out, rows.array, min(bad) if bad and raises else None)


@overload
def entropy(logits: UnknownRank, *, axis: int = -1, out: None = None, **options: Unpack[Sums]) -> Any: ...


@overload
def entropy(logits: FloatVector[FloatT], *, axis: int = -1, out: None = None, **options: Unpack[Sums]) -> FloatT: ...


@overload
def entropy(
    logits: FloatTensor[FloatT], *, axis: int = -1, out: None = None, **options: Unpack[Sums]
) -> NDArray[FloatT]: ...


@overload
def entropy(
    logits: ArrayLike | Elsewhere, *, axis: int = -1, out: NDArray[Any] | None = None, **options: Unpack[Sums]
) -> Any: ...


def entropy(
    logits: ArrayLike | Elsewhere,
    *,
    axis: int = -1,
    temperature: ArrayLike = 1.0,
    on_invalid: str | None = None,
    out: NDArray[Any] | None = None,
    stream: Any = None,
) -> Any:
    """Entropy of softmax(logits / temperature), in nats.

    Parameters
    ----------
    logits : array_like, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
    axis : int, optional
        The category axis.
    temperature : float or array_like, optional
        As in `logsumexp`. A row of temperature 0 has entropy 0.
    on_invalid : {"raise", "flag"}, optional
        As in `log_prob`.
    out : ndarray, optional
        Where to write, of the shape and dtype of the result.
    stream : object with `__cuda_stream__`, optional
        As in `logsumexp`.

    Returns
    -------
    ndarray, of the shape of logits without `axis`, or a NumPy scalar for 1-D logits
        Not negative; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `logsumexp`.

    Notes
    -----
    With z = (logits - max) / T: H = ln(sum(e^z)) - sum(z e^z) / sum(e^z), two terms of which neither is negative, so
    that rows of nearly one category keep their relative accuracy, at any size of the logits. Relative error below
    1e-6, and 6e-6 where the entropy is below 0.01 (float64 logits: 4e-15 and 2e-14); categories below 2^-125 of their
    block's largest count as impossible. Blocks of 4096 are joined along a fixed tree: it depends on no thread count,
    memory layout or batch split.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> float(numbel.entropy(np.zeros(8))) == float(np.log(8.0))
    True
    >>> bool(np.isclose(numbel.entropy(np.array([0.0, -40.0])), 41 * np.exp(-40.0), rtol=1e-12, atol=0))
    True
    """
    found = common.entropy(logits, axis, temperature, (on_invalid, out, stream))
    if found is not None:
        return found
    if _on_device(logits, stream):
        from . import _device

        return _device.entropy(logits, axis, temperature, on_invalid, out, stream)
    rows, raises = _rows(logits, axis, temperature, on_invalid)
    array = rows.array
    kind = dispatch.result_dtype(array.dtype)
    result, target = _output(array.shape[:-1], kind, out, array, rows.temperature.values)
    bad = dispatch.entropy(rows, target)
    return _finish(result, target, out, array, bad if raises else None)


def top_k_weights(
    result: TopK,
    logits: ArrayLike,
    *,
    axis: int = -1,
    temperature: ArrayLike = 1.0,
    normalized: bool = False,
    stream: Any = None,
) -> NDArray[np.float64]:
    """Importance weights of a sample without replacement, for sums over all categories.

    Parameters
    ----------
    result : TopK
        What `Generator.gumbel_top_k` returned.
    logits : array_like, shape (..., n) with the categories along `axis`
        What it was given. The chosen logits are read, and all of them once for their logsumexp unless `normalized`.
    axis : int, optional
        The category axis.
    temperature : float or array_like, optional
        What it was given.
    normalized : bool, optional
        Whether the weights are divided by their sum.
    stream : object with `__cuda_stream__`, optional
        For logits, and a result, on a CUDA device, as in `Generator.categorical`. An index out of range gets NaN there.

    Returns
    -------
    ndarray of float64, shape of result.indices
        w of each chosen category. NaN in rows that were masked out or flagged; 1, 0, 0, ... in rows of temperature 0.

    Raises
    ------
    TypeError
        If result is not a TopK, or logits not of one of the four dtypes.
    ValueError
        If the shapes or indices of result do not fit logits, or temperature is not a valid one.

    Notes
    -----
    With p = softmax(logits / temperature), phi = logits / temperature and kappa the threshold of result::

        w_i = p_i / q_i,    q_i = 1 - exp(-exp(phi_i - kappa)),

    q_i being the probability that i is chosen, given the noise of all others. Then E[sum_i w_i f(i)] over the chosen i
    is the sum of p_i f(i) over all categories: unbiased, for any k >= 1. Normalised weights have the smaller variance,
    as their errors cancel where f is nearly constant, and a bias that vanishes as k grows; at k = 1 and at k = K, where
    w = p, they have none. Computed in float64 by way of logarithms: accurate for probabilities of 1e-300 and below.

    References
    ----------
    Kool, van Hoof and Welling (2019), "Stochastic Beams and Where to Find Them", ICML; Vieira (2017), "Estimating means
    in a finite universe".

    Examples
    --------
    >>> import numbel, numpy as np
    >>> logits = np.log(np.arange(1.0, 101.0))
    >>> rng = numbel.default_rng(5)
    >>> chosen = rng.gumbel_top_k(np.broadcast_to(logits, (10_000, 100)), 10)
    >>> weights = numbel.top_k_weights(chosen, np.broadcast_to(logits, (10_000, 100)))
    >>> mean = (weights * chosen.indices).sum(-1).mean()  # of the category; exactly 66
    >>> bool(abs(mean - 66) < 0.5)
    True
    """
    if not isinstance(result, TopK):
        raise TypeError(f"result must be a numbel.TopK, got {type(result).__name__}")
    if checks.on_device(logits):
        from . import _device

        return _device.top_k_weights(result, logits, axis, temperature, normalized, stream)  # type: ignore[no-any-return]
    if stream is not None:
        raise TypeError("stream is for arrays on a CUDA device, and logits lies on the host")
    for name in ("indices", "threshold"):
        if checks.on_device(getattr(result, name)):
            raise TypeError(f"result.{name} lies on a CUDA device and logits on the host")
    return top_k.weights(result, logits, axis, temperature, normalized)


def _on_device(logits: Any, stream: Any) -> bool:
    """Whether a call on these logits is for a CUDA device."""
    there = checks.on_device(logits)
    if stream is not None and not there:
        raise TypeError("stream is for arrays on a CUDA device, and logits lies on the host")
    return there


def _rows(logits: Any, axis: int, temperature: ArrayLike, on_invalid: str | None) -> tuple[LogitRows, bool]:
    """Checked rows, and whether bad ones raise."""
    array = checks.logits(logits, axis)
    rows = LogitRows(array, checks.temperature(temperature, array.shape[:-1]))
    return rows, checks.on_invalid(on_invalid)


def _output(
    shape: tuple[int, ...], kind: np.dtype[Any], out: NDArray[Any] | None, *read: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The result, and what is written: a contiguous array, apart from what is still read."""
    result = np.empty(shape, kind) if out is None else checks.out(out, shape, kind)
    free = result.flags.c_contiguous and not any(np.may_share_memory(result, each) for each in read)
    return result, result if out is None or free else np.empty(shape, kind)


def _finish(
    result: NDArray[Any], target: NDArray[Any], out: NDArray[Any] | None, array: NDArray[Any], bad: int | None
) -> Any:
    if result is not target:
        result[...] = target
    if bad is not None:
        checks.invalid_row(array, bad)
    return result if out is not None or result.shape else result[()]
