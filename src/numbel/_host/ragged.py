"""`categorical` and `sample` of ragged rows: neighbouring stretches of one array, cut at offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arguments import checks
from .._arguments.requests import Draw, Limits, LogitRows, Outputs, RowOptions, SampleOptions
from .._cpu import drivers
from .._cpu.parameters import Split
from .._cpu.signatures import SHORT, Found, Gathering, RaggedSampling, Sampling
from .._scalar.limits import BLOCK
from ..results import Sample
from . import dispatch, methods
from . import tables as _tables
from .dispatch import Plan

#: Lengths to which short rows are padded, so that many are sampled at a time.
_WIDTHS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, SHORT])
#: Padded categories at a time: 4 MB of float32.
_PADDED = 1 << 20
#: Rows in a run, for which an order is kept.
_ROWS = 1 << 18


class _Part(NamedTuple):
    """A run of rows, and what is drawn of them. The array of `rows` is that of all rows."""

    rows: LogitRows
    starts: NDArray[np.int64]  # one more than there are rows
    samples: int
    method: str
    limits: Limits | None
    draw: Draw
    out: Outputs

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Categories of each row."""
        return np.diff(self.starts)


def sample(reserve: methods.Reserve, logits: Any, given: RowOptions, options: SampleOptions) -> Sample:
    """Categories of each row, and log_prob and logsumexp if they are asked for."""
    array = checks.ragged_logits(logits, given.axis)
    starts = checks.offsets(options.offsets, array.shape[0])
    shape = (len(starts) - 1,)
    samples = 1 if options.num_samples is None else checks.num_samples(options.num_samples)
    rows = methods.row_arguments(array, shape, given, checks.temperature)
    checks.ragged_lengths(starts, rows.mask)
    limits = checks.truncation(*options.truncation, shape, int(np.diff(starts).max(initial=1)))
    checks.method(options.method)
    raises = checks.on_invalid(given.on_invalid)
    results = methods.outputs(options, shape, dispatch.result_dtype(array.dtype))
    bad: list[int] = []
    with reserve() as draw:
        for first in range(0, shape[0], _ROWS):
            part = slice(first, min(first + _ROWS, shape[0]))
            ids = np.arange(part.start, part.stop) if rows.ids is None else rows.ids[part]
            mask = None if rows.mask is None else rows.mask[part]
            found = _sample_part(
                _Part(
                    LogitRows(array, rows.temperature.of(part), ids, mask),
                    starts[first : part.stop + 1],
                    samples,
                    options.method,
                    None if limits is None else limits.of(part),
                    draw,
                    Outputs(*results).of(part),
                )
            )
            bad += [first + row for row in found]
        if bad and raises:
            row = min(bad)
            checks.invalid_row(array[starts[row] : starts[row + 1]], row)
    return Sample(*results)


def _sample_part(part: _Part) -> list[int]:
    """Write the results of a run of rows; some bad rows, the first of them among these."""
    lengths = part.lengths
    if part.limits is not None:
        for result in part.out:
            if result is not None:  # rows that are masked out may be empty
                result[lengths == 0] = -1 if result.dtype.kind == "i" else np.nan
        return _by_length(part, np.flatnonzero(lengths))
    short = lengths <= SHORT
    tables = np.zeros(len(lengths), np.bool_)
    if part.method == "grouped" and part.samples > 1:
        for length in np.unique(lengths).tolist():
            if length and _tables.tabled(length, part.samples, dispatch.result_dtype(part.rows.array.dtype)):
                tables |= lengths == length
    bad = _long(part, np.flatnonzero(~short & ~tables))
    bad += _by_length(part, np.flatnonzero(tables))
    width = np.searchsorted(_WIDTHS, lengths).astype(np.uint8)
    width[tables] = len(_WIDTHS)
    order = np.argsort(width, kind="stable")
    ends = np.cumsum(np.bincount(width, minlength=len(_WIDTHS) + 1))
    for w, columns in enumerate(_WIDTHS.tolist()):
        step = _PADDED // columns
        for first in range(ends[w - 1] if w else 0, ends[w], step):
            chosen = order[first : min(first + step, ends[w])]
            padded = _padded(part.rows.array, part.starts, chosen, columns)
            bad += _sample_chosen(part, padded, chosen, dispatch.categorical)
    return bad


def _sample_chosen(
    part: _Part, logits: NDArray[Any], chosen: NDArray[np.int64], function: Callable[..., int | None]
) -> list[int]:
    """Write the results of the rows `chosen`, which `logits` holds."""
    rows = part.rows
    assert rows.ids is not None
    mask = None if rows.mask is None else rows.mask[chosen]
    some = LogitRows(logits, rows.temperature.of(chosen), rows.ids[chosen], mask)
    made = Outputs(*(None if r is None else np.empty((len(chosen), *r.shape[1:]), r.dtype) for r in part.out))
    found = function(some, part.samples, part.method, part.draw, made)
    for result, each in zip(part.out, made, strict=True):
        if result is not None:
            result[chosen] = each
    return [] if found is None else [int(chosen[found])]


def _by_length(part: _Part, chosen: NDArray[np.int64]) -> list[int]:
    """Write the results of the rows `chosen`, those of one length together: truncated ones, or such as take tables."""
    array, starts, lengths = part.rows.array, part.starts, part.lengths
    bad: list[int] = []
    for length in np.unique(lengths[chosen]).tolist():
        alike = chosen[lengths[chosen] == length]
        step = max(1, _PADDED // length)
        for first in range(0, len(alike), step):
            some = alike[first : first + step]
            lone = array[starts[some[0]] : starts[some[0]] + length]
            logits = lone[None] if len(some) == 1 else _padded(array, starts, some, length)
            limits = None
            if part.limits is not None:
                limits = part.limits.of(some)
                k = limits.top_k
                limits = limits._replace(top_k=k._replace(values=np.minimum(k.values, length)))

            def draw_rows(*given: Any, limits: Limits | None = limits) -> int | None:
                return methods.draw_rows(*given, limits=limits)

            bad += _sample_chosen(part, logits, some, draw_rows)
    return bad


def _padded(array: NDArray[Any], starts: NDArray[np.int64], chosen: NDArray[np.int64], columns: int) -> NDArray[Any]:
    """The rows `chosen`, each padded with -inf, which changes no bit of what is drawn."""
    padded = np.empty((len(chosen), columns), array.dtype)
    all_rows, out = dispatch.rows_in_memory(array), dispatch.rows_in_memory(padded)
    parameters = Gathering(all_rows, starts, chosen, out, max(1, (1 << 14) // columns))
    dispatch.run(Plan(drivers.driver("ragged_gather", array.dtype.name), parameters, len(chosen), columns))
    return padded


def _long(part: _Part, chosen: NDArray[np.int64]) -> list[int]:
    """Write the results of the rows `chosen`, one by one and the longest in segments."""
    samples, out, rows, lengths = part.samples, part.out, part.rows, part.lengths
    if len(chosen) == 0 or (samples == 0 and out.logsumexp is None):
        return []
    made = Outputs(*(r if r is None or r.flags.c_contiguous else np.empty(r.shape, r.dtype) for r in out))
    written = made
    if samples == 0:  # logsumexp is asked for all the same
        samples, written = 1, made._replace(indices=np.empty(len(lengths), np.int64), log_prob=None)
    blocks = -(-lengths[chosen] // BLOCK)
    total = int(blocks.sum())
    size = 16
    while size < 4096 and size * 512 < total:
        size *= 2
    first_items = np.concatenate([[0], np.cumsum(-(-blocks // size))])
    item_rows = np.repeat(np.arange(len(chosen)), np.diff(first_items))
    items = len(item_rows)
    several = bool((blocks > size).any())
    parameters = RaggedSampling(
        Sampling(
            dispatch.stream_of(part.draw, rows.ids),
            dispatch.temperatures(rows.temperature),
            rows.mask,
            dispatch.results_of(written, samples, 0, samples),
            dispatch.rows_in_memory(rows.array),
            Split(1, size, 1, max(1, min(64, items // 256)), None),
            Found(None, None, None, None, None),
        ),
        part.starts,
        chosen,
        item_rows,
        first_items,
    )
    driver = drivers.driver(f"ragged_{part.method}", rows.array.dtype.name)
    plan = Plan(driver, parameters, items, max(1, int(lengths[chosen].sum()) // items))
    bad: list[int] = []
    at_once = max(1, dispatch._SEGMENT_SAMPLES // items) if several else dispatch._SAMPLES
    for first in range(0, samples, at_once):
        count = min(at_once, samples - first)
        sampling = parameters.sampling._replace(results=dispatch.results_of(written, samples, first, count))
        if several:
            split = sampling.split._replace(pending=np.diff(first_items))
            sampling = sampling._replace(split=split, found=dispatch.found_of(items, count))
        found = dispatch.run(plan._replace(parameters=parameters._replace(sampling=sampling)))
        if found is not None:
            bad.append(found)
    for result, copy in zip(out, made, strict=True):
        if result is not None and copy is not None and result is not copy:
            result[chosen] = copy[chosen]
    return bad
