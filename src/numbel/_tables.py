"""Alias tables: how they are made in parallel, and when many samples of a row are drawn from one.

Like `_dispatch`: how the work is cut changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _dispatch
from ._cpu import drivers
from ._cpu.job import EMPTY, Job
from ._cpu.runs import ELEMENTS
from ._cpu.table import FIELDS, HEAD
from ._dispatch import Array, Progress, _address, _name, _rows_job, _run, parts, result_dtype
from ._jit import thread_count
from ._scalar.blocks import BLOCK

#: Draws that one thread takes at a time.
_PIECE = 1 << 14
#: Rows up to this long are tabled whole by one thread where there are enough of them, or where the work is small: that
#: many ns.
_WHOLE, _SMALL = 1 << 18, 1 << 17
#: Columns that are worth a place to begin at: finding it takes some 0.2 ms.
_CUT = 1 << 17


class Table(NamedTuple):
    """An alias table: an entry for each column, and the head of its plan."""

    columns: int
    entries: Array
    head: Array


def tabled(columns: int, samples: int, dtype: np.dtype[Any]) -> bool:
    """Whether so many samples of a row are drawn from a table: part of what fixes the bits of a draw.

    Measured where the two cost the same: 60 to 110 samples of up to 1000 columns and of 8192, 400 of 4096, 220
    (float64: 130) of 2^15, 900 (480) of 2^17, 4700 (2700) of 2^20.
    """
    if columns <= BLOCK:
        return samples >= max(64, columns >> 3)
    return samples >= max(64, columns >> (8 if dtype == np.float64 else 7))


def build(array: Array, temperature: Array, node: Array) -> Table:
    """The table of a row (1-D `array`) whose node is known."""
    job, kept = _rows_job(array, temperature, False)
    columns, dtype = array.shape[-1], array.dtype
    blocks = -(-columns // BLOCK)
    masses, entries = np.empty(columns, np.int64), np.empty(columns, np.int64)
    plan = np.empty(HEAD + FIELDS * blocks, np.int64)
    kept += [node, masses, entries, plan]
    job["row_node"], job["element"], job["grab"] = _address(node), ELEMENTS[_name(dtype)], 1
    job["masses"], job["entries"], job["plan"] = _address(masses), _address(entries), _address(plan)
    _run(drivers.driver("table_weights", _name(result_dtype(dtype))), Job(job), blocks, min(columns, BLOCK))
    head, split = drivers.driver("table_head", "float64"), drivers.driver("table_split", "float64")
    # asking for the number of threads starts them, which short work must not
    pieces = job["segments"] = min(4 * thread_count(), columns // _CUT) if columns >= 2 * _CUT else 1
    for phase, items in ((0, blocks), (1, pieces)):
        job["phase"] = phase
        packed = Job(job)
        head.serial(packed.address)
        packed = Job(job)
        _run(split, packed, items, -(-columns // items))
    return Table(columns, entries, plan[:HEAD].copy())


def draw(table: Table, out: Array, seed: int, number: int, identity: int, progress: Progress | None = None) -> None:
    """Fill the contiguous `out` with draws 0, 1, ... of a table, as row `identity` of a draw id."""
    if out.size == 0:
        return
    row = np.array([identity], np.int64)
    job = EMPTY | {
        "columns": table.columns, "entries": _address(table.entries), "plan": _address(table.head),
        "indices": _address(out), "samples": out.size, "all_samples": out.size, "segment_blocks": _PIECE, "grab": 1,
        "row_ids": _address(row), "seed": seed, "draw": number,
    }  # fmt: skip
    packed = Job(job)
    _run(drivers.driver("table_draw", "float64"), packed, -(-out.size // _PIECE), 8 * _PIECE, progress)
    del row  # alive until here: the job holds its address


def categorical(
    array: Array,
    samples: int,
    temperatures: Array,
    per_row: bool,
    row_ids: Array | None,
    row_mask: Array | None,
    method: str,
    seed: int,
    draw_id: int,
    results: Sequence[Array | None],
    progress: Progress | None = None,
) -> int | None:
    """`_dispatch.categorical`, or the same law from a table of each row where many samples are asked for."""
    if results[0] is None or method != "grouped" or not tabled(array.shape[-1], samples, array.dtype):
        return _dispatch.categorical(
            array, samples, temperatures, per_row, row_ids, row_mask, method, seed, draw_id, results, progress
        )
    indices = results[0].reshape(-1, samples)
    log_prob, logsumexp = (r if r is None else r.reshape(-1, *r.shape[array.ndim - 1 :]) for r in results[1:])
    bad: list[int] = []
    for part, run in parts(array.shape[:-1]):
        rows = run.stop - run.start
        some = temperatures[run] if per_row else temperatures
        ids = np.arange(run.start, run.stop, dtype=np.int64) if row_ids is None else row_ids[run]
        mask = None if row_mask is None else row_mask[run]
        greedy, nodes = np.full(rows, -1, np.int64), np.empty((rows, 2))
        found = _dispatch.categorical(
            array[part], 0 if some.all() else 1, some, per_row, ids, mask, "grouped", seed, draw_id,
            (greedy, None, None if logsumexp is None else logsumexp[run]), progress, nodes=nodes,
        )  # fmt: skip
        if found is not None:
            bad.append(run.start + found)
        good = np.isfinite(nodes[:, 1]) & (some > 0)
        some_indices, some_log_prob = indices[run], None if log_prob is None else log_prob[run]
        if not good.all():
            fixed = np.flatnonzero(~good)
            some_indices[fixed] = greedy[fixed, None]
            if some_log_prob is not None:
                some_log_prob[fixed] = np.where(greedy[fixed, None] < 0, np.nan, 0)
        _tabled_rows(
            array[part], some, per_row, ids, nodes, np.flatnonzero(good), (seed, draw_id), some_indices, some_log_prob
        )
    return min(bad, default=None)


def _tabled_rows(
    array: Array, temperatures: Array, per_row: bool, ids: Array, nodes: Array, wanted: Array, draw_of: tuple[int, int],
    indices: Array, log_prob: Array | None,
) -> None:  # fmt: skip
    """Samples of the rows `wanted`, from a table of each."""
    columns, samples = array.shape[-1], indices.shape[-1]
    if len(wanted) == 0:
        return
    if columns <= _WHOLE and (12 * columns + 5 * samples < _SMALL or len(wanted) >= 4 * thread_count()):
        job, kept = _rows_job(array, temperatures, per_row)
        kept += [ids, nodes, wanted, indices, log_prob]
        job["element"], job["row_ids"], job["row_node"] = ELEMENTS[_name(array.dtype)], _address(ids), _address(nodes)
        job["given"], job["samples"], job["all_samples"] = _address(wanted), samples, samples
        job["indices"], job["log_prob"], job["grab"] = _address(indices), _address(log_prob), 1
        job["seed"], job["draw"] = draw_of
        packed = Job(job)
        _run(
            drivers.driver("table_rows", _name(result_dtype(array.dtype))),
            packed,
            len(wanted),
            16 * columns + 8 * samples,
        )
        return
    for row in wanted.tolist():
        logits = array[np.unravel_index(row, array.shape[:-1])] if array.ndim > 1 else array
        own = temperatures[row : row + 1] if per_row else temperatures
        draw(build(logits, own, nodes[row]), indices[row], *draw_of, int(ids[row]))
        if log_prob is not None:
            _dispatch.given_log_prob(logits, own, False, indices[row], indices[row], nodes[row], log_prob[row])
