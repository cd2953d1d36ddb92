"""Sampling without replacement for arrays of the host, and the importance weights of its results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _dispatch, _host
from ._cpu import drivers
from ._cpu.parameters import Split
from ._cpu.top_k import Choosing, Lists, TopKResults, Weighting
from ._cpu.top_k_short import SHORT, ShortChoosing
from ._dispatch import Plan
from ._jit import thread_count
from ._requests import Draw, LogitRows, Outputs, RowOptions
from ._scalar.blocks import BLOCK
from .results import TopK

#: Segments for each thread, where rows are too few: a slow core then holds the others up by an eighth.
_PER_THREAD = 8
#: Segments that keep long lists: fewer, since each holds up to k + 1 candidates.
_PER_THREAD_OF_MANY, _MANY = 2, 1 << 14
#: Rows from which short ones are done many at a time.
_MANY_ROWS = 16
#: Entries of the lists of all segments that are kept, unless one row has more.
_LISTS = 1 << 20
#: Blocks of a row whose nodes are kept, at most: 16 MB.
_NODES = 1 << 20


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
        bad = _choose(rows, count, draw, TopKResults(*written)) if rows.number else None
        for result, made in zip(results, written, strict=True):
            if result is not made:
                result[...] = made
        if bad is not None and raises:
            _checks.too_few_categories(array, bad, count)
    return TopK(*(r if each is not None or r.shape else r[()] for r, each in zip(results, given, strict=True)))


def _choose(rows: LogitRows, k: int, draw: Draw, results: TopKResults) -> int | None:
    """Write results; the first bad row, if any."""
    logits, name = _dispatch.rows_in_memory(rows.array), _dispatch.name_of(rows.array.dtype)
    count, columns = logits.rows, logits.columns
    stream, temperatures = _dispatch.stream_of(draw, rows.ids), _dispatch.temperatures(rows.temperature)
    given = logits, stream, temperatures, rows.mask, k, results
    if columns <= SHORT and count >= _MANY_ROWS:
        width = _dispatch.width_of_samples(count, columns)
        driver = drivers.driver("top_k_short", name)
        return _dispatch.run(Plan(driver, ShortChoosing(*given, width), -(-count // width), width * columns))
    blocks = -(-columns // BLOCK)
    # Where the k lie in few blocks, the others' sums come from the first pass over the logits; else all come from
    # a second one, which then reads little more than those few blocks.
    keeps_nodes = int(k < blocks <= _NODES)
    # asking for the number of threads starts them, which short work must not: OpenMP's are torch's, too
    threads = thread_count() if count * columns >= _dispatch._PARALLEL_FROM else 1
    size = _segment_blocks(count, blocks, k, threads)
    split = Split(-(-blocks // size), size, 1, 1, None)
    lists = Lists(None, None, None, None, None, 0)
    parameters, per_item = Choosing(*given, split, keeps_nodes, lists), min(size * BLOCK, columns)
    plan = Plan(drivers.driver("top_k", name), parameters, count, per_item)
    return _dispatch.run(plan) if split.segments == 1 else _choose_in_segments(plan)


def _choose_in_segments(plan: Plan) -> int | None:
    """The same of rows that are cut into segments, so many rows at a time that their lists stay small."""
    parameters: Choosing = plan.parameters
    (count, columns), (k, segments) = parameters.logits[2:4], (parameters.k, parameters.split.segments)
    blocks, length = -(-columns // BLOCK), min(k + 1, columns)
    at_once = max(1, min(count, _LISTS // (segments * (k + 1)), _NODES // blocks))
    keys, places = np.empty(at_once * segments * length), np.empty(at_once * segments * length, np.int64)
    nodes = np.empty((at_once, 2, blocks)) if parameters.keeps_nodes else None
    pending, limits, lengths = (np.empty(n, np.int64) for n in (at_once, at_once, at_once * segments))
    bad = None
    for first in range(0, count, at_once):
        last = min(first + at_once, count)
        pending[:], limits[:] = segments, np.iinfo(np.int64).min
        some = parameters._replace(lists=Lists(keys, places, lengths, limits, nodes, first))
        some = some._replace(split=some.split._replace(pending=pending))
        part = plan._replace(parameters=some, items=last * segments)
        found = _dispatch.run(part, first=first * segments)
        bad = found if bad is None else bad
    return bad


def _segment_blocks(rows: int, blocks: int, k: int, threads: int) -> int:
    """Blocks in a segment of a row: whole rows, where there are enough of them for all threads."""
    wanted = (_PER_THREAD if k < _MANY else _PER_THREAD_OF_MANY) * threads
    if threads == 1 or rows >= wanted:
        return blocks
    return min(blocks, max(16, -(-blocks * rows // wanted)))


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
