"""Sampling without replacement for arrays of the host, and the importance weights of its results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _choices, _dispatch, _host
from ._cpu import drivers
from ._cpu.signatures import TopKResults, Weighting
from ._dispatch import Plan
from ._requests import Outputs, RowOptions
from .results import TopK


def gumbel_top_k(reserve: _host.Reserve, logits: Any, k: Any, options: RowOptions, out: TopK | None) -> TopK:
    """The k largest perturbed logits of each row, in order."""
    if out is not None and (not isinstance(out, tuple) or len(out) != 4):
        raise TypeError(f"out must be a numbel.TopK, got {type(out).__name__}")
    rows = _host.rows_of(logits, options, _checks.temperature)
    array = rows.array
    shape = array.shape[:-1]
    count = _checks.top_k_count(k, array.shape[-1])
    raises = _checks.on_invalid(options.on_invalid)
    given = (None,) * 4 if out is None else tuple(out)
    kinds = (np.dtype(np.int64), np.dtype(np.float64), _dispatch.result_dtype(array.dtype), np.dtype(np.float64))
    forms = ((*shape, count), (*shape, count), shape, shape)
    results = [
        np.empty(form, kind) if each is None else _checks.out(each, form, kind, f"out.{name}")
        for name, each, form, kind in zip(TopK._fields, given, forms, kinds, strict=True)
    ]
    if out is not None:
        _checks.outs_apart(each for each in given if isinstance(each, np.ndarray))
    # strided outputs are written through a copy: they have k entries a row, not one a category
    read = array, rows.temperature.values, rows.ids, rows.mask
    written = [
        r if _host.is_free(r, each, read) else np.empty(r.shape, r.dtype)
        for r, each in zip(results, given, strict=True)
    ]
    with reserve() as draw:
        bad = _choices.choose(rows, count, draw, TopKResults(*written))
        for result, made in zip(results, written, strict=True):
            if result is not made:
                result[...] = made
        if bad is not None and raises:
            _checks.too_few_categories(array, bad, count)
    return TopK(*(r if each is not None or r.shape else r[()] for r, each in zip(results, given, strict=True)))


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
    if _checks.on_device(logits):
        from . import _device

        return _device.top_k_weights(result, logits, axis, temperature, normalized, stream)  # type: ignore[no-any-return]
    if stream is not None:
        raise TypeError("stream is for arrays on a CUDA device, and logits lies on the host")
    for name in ("indices", "threshold"):
        if _checks.on_device(getattr(result, name)):
            raise TypeError(f"result.{name} lies on a CUDA device and logits on the host")
    rows = _host.rows_of(logits, RowOptions(axis, temperature), _checks.temperature)
    array = rows.array
    indices, thresholds = _checks.top_k_result(result, array)
    empty = indices < 0
    phi = np.take_along_axis(array, np.where(empty, 0, indices), -1).astype(np.float64)
    if phi.size == 0:
        return phi
    sums = None
    if not normalized:
        sums = np.empty(thresholds.shape)
        wanted = rows._replace(mask=~empty[..., 0].reshape(-1))
        _dispatch.categorical(wanted, 0, "grouped", (0, 0), Outputs(logsumexp64=sums))
    chunk = max(1, (1 << 12) // phi.shape[-1])
    chosen, temperatures = _dispatch.rows_in_memory(phi), _dispatch.temperatures(rows.temperature)
    parameters = Weighting(chosen, temperatures, thresholds, sums, int(normalized), chunk)
    _dispatch.run(Plan(drivers.driver("top_k_weights", "float64"), parameters, chosen.rows, phi.shape[-1]))
    phi[empty] = math.nan
    return phi
