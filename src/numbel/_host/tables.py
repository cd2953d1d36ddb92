"""Alias tables: how they are made in parallel, and when many samples of a row are drawn from one.

Like `dispatch`: how the work is cut changes no bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arguments.requests import Array, Draw, LogitRows, Outputs, Progress, Temperature
from .._cpu import drivers
from .._cpu import signatures as kernels
from .._machine_code.threads import thread_count
from .._scalar.limits import BLOCK
from . import dispatch
from .dispatch import Plan, name_of, result_dtype, run

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


def build(array: Array, temperature: Temperature, root: Array) -> Table:
    """The table of a row (1-D `array`) whose (r, S) is known."""
    columns, dtype = array.shape[-1], name_of(result_dtype(array.dtype))
    blocks = -(-columns // BLOCK)
    plan = np.empty(kernels.HEAD + kernels.FIELDS * blocks, np.int64)
    table = kernels.Table(columns, np.empty(columns, np.int64), plan, np.empty(columns, np.int64))
    row = dispatch.rows_in_memory(array), dispatch.temperatures(temperature)
    weighing = kernels.Weighing(*row, root, table)
    run(Plan(drivers.driver("table_weights", dtype), weighing, blocks, min(columns, BLOCK)))
    head, split = drivers.driver("table_head", "float64"), drivers.driver("table_split", "float64")
    # asking for the number of threads starts them, which short work must not
    pieces = min(4 * thread_count(), columns // _CUT) if columns >= 2 * _CUT else 1
    for phase, items in ((0, blocks), (1, pieces)):
        head(kernels.Heading(table, phase))
        run(Plan(split, kernels.Splitting(table, phase, pieces), items, -(-columns // items)))
    return Table(columns, table.entries, plan[: kernels.HEAD].copy())


def draw(table: Table, out: Array, draw: Draw, row: int, progress: Progress | None = None) -> None:
    """Fill the contiguous `out` with draws 0, 1, ... of a table, as so numbered row of a draw."""
    if out.size == 0:
        return
    stream = dispatch.stream_of(draw, np.array([row], np.int64))
    parameters = kernels.Drawing(table.columns, table.head, table.entries, stream, out, out.size, _PIECE)
    run(Plan(drivers.driver("table_draw", "float64"), parameters, -(-out.size // _PIECE), 8 * _PIECE), progress)


def categorical(
    rows: LogitRows, samples: int, method: str, draw: Draw, out: Outputs, progress: Progress | None = None
) -> int | None:
    """`dispatch.categorical`, or the same law from a table of each row where many samples are asked for."""
    if out.indices is None or method != "grouped" or not tabled(rows.columns, samples, rows.array.dtype):
        return dispatch.categorical(rows, samples, method, draw, out, progress)
    count = rows.number
    out = Outputs(
        out.indices.reshape(count, samples),
        out.log_prob if out.log_prob is None else out.log_prob.reshape(count, samples),
        out.logsumexp if out.logsumexp is None else out.logsumexp.reshape(count),
    )
    bad: list[int] = []
    for _, run_of, part in rows.parts():
        found = _tabled_part(part, samples, draw, out.of(run_of), progress)
        if found is not None:
            bad.append(run_of.start + found)
    return min(bad, default=None)


def _tabled_part(rows: LogitRows, samples: int, draw: Draw, out: Outputs, progress: Progress | None) -> int | None:
    """Samples of some rows from tables; the first bad row, if any."""
    argmaxes, roots = np.full(rows.number, -1, np.int64), np.empty((rows.number, 2))
    greedy = 0 if rows.temperature.values.all() else 1
    of_rows = Outputs(argmaxes, None, out.logsumexp, None, roots)
    bad = dispatch.categorical(rows, greedy, "grouped", draw, of_rows, progress)
    good = np.isfinite(roots[:, 1]) & (rows.temperature.values > 0)
    assert out.indices is not None
    if not good.all():
        fixed = np.flatnonzero(~good)
        out.indices[fixed] = argmaxes[fixed, None]
        if out.log_prob is not None:
            out.log_prob[fixed] = np.where(argmaxes[fixed, None] < 0, np.nan, 0)
    _tabled_rows(rows, roots, np.flatnonzero(good), draw, out)
    return bad


def _tabled_rows(rows: LogitRows, roots: Array, wanted: Array, draw_of: Draw, out: Outputs) -> None:
    """Samples of the rows `wanted`, from a table of each."""
    if len(wanted) == 0 or out.indices is None:
        return
    columns, samples, array = rows.columns, out.indices.shape[-1], rows.array
    if columns <= _WHOLE and (12 * columns + 5 * samples < _SMALL or len(wanted) >= 4 * thread_count()):
        parameters = kernels.TablesOfRows(
            dispatch.rows_in_memory(array),
            dispatch.temperatures(rows.temperature),
            roots,
            wanted,
            dispatch.stream_of(draw_of, rows.ids),
            dispatch.results_of(out, samples, 0, samples),
        )
        driver = drivers.driver("table_rows", name_of(result_dtype(array.dtype)))
        run(Plan(driver, parameters, len(wanted), 16 * columns + 8 * samples))
        return
    for row in wanted.tolist():
        logits = array[np.unravel_index(row, array.shape[:-1])] if array.ndim > 1 else array
        own, indices = rows.temperature.of(slice(row, row + 1)), out.indices[row]
        draw(build(logits, own, roots[row]), indices, draw_of, row if rows.ids is None else int(rows.ids[row]))
        if out.log_prob is not None:
            dispatch.given_log_prob(LogitRows(logits, own), indices, indices, roots[row], out.log_prob[row])
