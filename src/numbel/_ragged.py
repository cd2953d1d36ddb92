"""`categorical` and `sample` of ragged rows: neighbouring stretches of one array, cut at offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _dispatch, _host, _tables
from ._cpu import drivers
from ._cpu.job import EMPTY, Job
from ._cpu.short import SHORT
from ._dispatch import _address
from ._scalar.blocks import BLOCK
from .results import Sample

_Cuts = list[tuple[NDArray[Any], bool]] | None

#: Lengths to which short rows are padded, so that many are sampled at a time.
_WIDTHS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, SHORT])
#: Padded categories at a time: 4 MB of float32.
_PADDED = 1 << 20
#: Rows in a run, for which an order is kept.
_ROWS = 1 << 18


def sample(
    reserve: _host._Reserve,
    logits: Any,
    offsets: ArrayLike,
    num_samples: int | None,
    axis: int,
    temperature: ArrayLike,
    method: str,
    row_ids: ArrayLike | None,
    row_mask: ArrayLike | None,
    on_invalid: str | None,
    out: tuple[Any, ...],
    full: bool,
    truncation: tuple[Any, Any, Any],
) -> Sample:
    """Categories of each row, and log_prob and logsumexp if `full`."""
    array = _checks.ragged_logits(logits, axis)
    starts = _checks.offsets(offsets, array.shape[0])
    shape = (len(starts) - 1,)
    samples = 1 if num_samples is None else _checks.num_samples(num_samples)
    temperatures, per_row = _checks.temperature(temperature, shape)
    ids = None if row_ids is None else _checks.row_ids(row_ids, shape)
    mask = None if row_mask is None else _checks.row_mask(row_mask, shape)
    _checks.ragged_lengths(starts, mask)
    cuts = _checks.truncation(*truncation, shape, int(np.diff(starts).max(initial=1)))
    _checks.method(method)
    raises = _checks.on_invalid(on_invalid)
    results = _host._outputs(out, shape, num_samples, _dispatch.result_dtype(array.dtype), full)
    bad: list[int] = []
    with reserve() as draw:
        for first in range(0, shape[0], _ROWS):
            part = slice(first, min(first + _ROWS, shape[0]))
            rows = _host.Rows(
                array,
                temperatures[part] if per_row else temperatures,
                per_row,
                np.arange(part.start, part.stop) if ids is None else ids[part],
                None if mask is None else mask[part],
            )
            found = _sample_part(
                rows,
                starts[first : part.stop + 1],
                samples,
                method,
                None if cuts is None else [(values[part] if each else values, each) for values, each in cuts],
                draw,
                [None if r is None else r[part] for r in results],
            )
            bad += [first + row for row in found]
        if bad and raises:
            row = min(bad)
            _checks.invalid_row(array[starts[row] : starts[row + 1]], row)
    return Sample(*results)


def _sample_part(
    rows: _host.Rows,
    starts: NDArray[np.int64],
    samples: int,
    method: str,
    cuts: _Cuts,
    draw: tuple[int, int],
    results: list[NDArray[Any] | None],
) -> list[int]:
    """Write the results of a run of rows; some bad rows, the first of them among these."""
    lengths = np.diff(starts)
    if cuts is not None:
        for result in results:
            if result is not None:  # rows that are masked out may be empty
                result[lengths == 0] = -1 if result.dtype.kind == "i" else np.nan
        return _by_length(rows, starts, lengths, np.flatnonzero(lengths), samples, method, cuts, draw, results)
    short = lengths <= SHORT
    tables = np.zeros(len(lengths), np.bool_)
    if method == "grouped" and samples > 1:
        for length in np.unique(lengths).tolist():
            if length and _tables.tabled(length, samples, _dispatch.result_dtype(rows.array.dtype)):
                tables |= lengths == length
    bad = _long(rows, starts, lengths, np.flatnonzero(~short & ~tables), samples, method, draw, results)
    bad += _by_length(rows, starts, lengths, np.flatnonzero(tables), samples, method, None, draw, results)
    width = np.searchsorted(_WIDTHS, lengths).astype(np.uint8)
    width[tables] = len(_WIDTHS)
    order = np.argsort(width, kind="stable")
    ends = np.cumsum(np.bincount(width, minlength=len(_WIDTHS) + 1))
    for w, columns in enumerate(_WIDTHS.tolist()):
        step = _PADDED // columns
        for first in range(ends[w - 1] if w else 0, ends[w], step):
            chosen = order[first : min(first + step, ends[w])]
            padded = _padded(rows.array, starts, chosen, columns)
            bad += _sample_chosen(_dispatch.categorical, padded, rows, chosen, samples, method, draw, results)
    return bad


def _sample_chosen(
    function: Callable[..., Any],
    logits: NDArray[Any],
    rows: _host.Rows,
    chosen: NDArray[np.int64],
    samples: int,
    method: str,
    draw: tuple[int, int],
    results: list[NDArray[Any] | None],
) -> list[int]:
    """Write the results of the rows `chosen`, which `logits` holds."""
    temperatures = rows.temperatures[chosen] if rows.per_row else rows.temperatures
    assert rows.ids is not None
    mask = None if rows.mask is None else rows.mask[chosen]
    parts = [None if r is None else np.empty((len(chosen), *r.shape[1:]), r.dtype) for r in results]
    found = function(logits, samples, temperatures, rows.per_row, rows.ids[chosen], mask, method, *draw, parts)
    for result, made in zip(results, parts, strict=True):
        if result is not None:
            result[chosen] = made
    return [] if found is None else [int(chosen[found])]


def _by_length(
    rows: _host.Rows,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    chosen: NDArray[np.int64],
    samples: int,
    method: str,
    cuts: _Cuts,
    draw: tuple[int, int],
    results: list[NDArray[Any] | None],
) -> list[int]:
    """Write the results of the rows `chosen`, those of one length together: truncated ones, or such as take tables."""
    bad: list[int] = []
    for length in np.unique(lengths[chosen]).tolist():
        alike = chosen[lengths[chosen] == length]
        step = max(1, _PADDED // length)
        for first in range(0, len(alike), step):
            some = alike[first : first + step]
            lone = rows.array[starts[some[0]] : starts[some[0]] + length]
            logits = lone[None] if len(some) == 1 else _padded(rows.array, starts, some, length)
            kept = None
            if cuts is not None:
                kept = [(values[some] if each else values, each) for values, each in cuts]
                kept[0] = np.minimum(kept[0][0], length), kept[0][1]

            def function(*given: Any, kept: _Cuts = kept) -> Any:
                rows_given, rest = given[:6], given[6:]
                draw_rows: Any = _host.draw_rows
                return draw_rows(*rows_given, kept, *rest)

            bad += _sample_chosen(function, logits, rows, some, samples, method, draw, results)
    return bad


def _padded(array: NDArray[Any], starts: NDArray[np.int64], chosen: NDArray[np.int64], columns: int) -> NDArray[Any]:
    """The rows `chosen`, each padded with -inf, which changes no bit of what is drawn."""
    padded = np.empty((len(chosen), columns), array.dtype)
    job = EMPTY | {"array": _address(array), "column_stride": array.strides[0], "item_size": array.itemsize}
    job |= {"columns": columns, "out": _address(padded), "offsets": _address(starts), "given": _address(chosen)}
    job["grab"] = max(1, (1 << 14) // columns)
    _dispatch._run(drivers.driver("ragged_gather", array.dtype.name), Job(job), len(chosen), columns)
    return padded


def _long(
    rows: _host.Rows,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    chosen: NDArray[np.int64],
    samples: int,
    method: str,
    draw: tuple[int, int],
    results: list[NDArray[Any] | None],
) -> list[int]:
    """Write the results of the rows `chosen`, one by one and the longest in segments."""
    indices, log_prob, logsumexp = results
    if len(chosen) == 0 or (samples == 0 and logsumexp is None):
        return []
    made = [None if r is None or r.flags.c_contiguous else np.empty(r.shape, r.dtype) for r in results]
    if samples == 0:  # logsumexp is asked for all the same
        samples, indices, log_prob = 1, np.empty(len(lengths), np.int64), None
    blocks = -(-lengths[chosen] // BLOCK)
    total = int(blocks.sum())
    size = 16
    while size < 4096 and size * 512 < total:
        size *= 2
    first_items = np.concatenate([[0], np.cumsum(-(-blocks // size))])
    item_rows = np.repeat(np.arange(len(chosen)), np.diff(first_items))
    items = len(item_rows)
    several = bool((blocks > size).any())
    job = EMPTY.copy()
    job |= {"array": _address(rows.array), "column_stride": rows.array.strides[0], "item_size": rows.array.itemsize}
    job |= {"rows": len(lengths), "offsets": _address(starts), "given": _address(chosen)}
    job |= {"item_rows": _address(item_rows), "first_items": _address(first_items)}
    if rows.per_row:
        job["temperatures"] = _address(rows.temperatures)
    else:
        job["temperature"] = rows.temperatures[0]
    job["row_ids"], job["row_mask"] = _address(rows.ids), _address(rows.mask)
    written = [r if m is None else m for r, m in zip((indices, log_prob, logsumexp), made, strict=True)]
    job["indices"], job["log_prob"], job["logsumexp"] = map(_address, written)
    job["seed"], job["draw"] = draw
    job["all_samples"], job["segment_blocks"], job["grab"] = samples, size, max(1, min(64, items // 256))
    driver = drivers.driver(f"ragged_{method}", rows.array.dtype.name)
    per_item = max(1, int(lengths[chosen].sum()) // items)
    bad: list[int] = []
    at_once = max(1, _dispatch._SEGMENT_SAMPLES // items) if several else _dispatch._SAMPLES
    for first in range(0, samples, at_once):
        count = min(at_once, samples - first)
        job["samples"], job["first_sample"] = count, first
        if several:
            scratch = np.empty((2 + 3 * count, items))
            pending = np.diff(first_items)
            at, step = _address(scratch), scratch.strides[0]
            job["node_r"], job["node_s"], job["winner_key"] = at, at + step, at + 2 * step
            job["winner_r"], job["winner_at"] = at + (2 + count) * step, at + (2 + 2 * count) * step
            job["pending"] = _address(pending)
        packed = Job(job)
        _dispatch._run(driver, packed, items, per_item)
        if packed.bad_row is not None:
            bad.append(packed.bad_row)
    for result, copy in zip(results, made, strict=True):
        if result is not None and copy is not None:
            result[chosen] = copy[chosen]
    return bad
