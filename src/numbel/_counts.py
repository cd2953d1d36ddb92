"""Counts of many draws: rows of logits -> kernel calls."""

from __future__ import annotations

import numpy as np

from . import _dispatch
from ._cpu import drivers
from ._cpu.signatures import Blocks, Counting
from ._requests import Array, Draw, LogitRows, Outputs
from ._scalar.limits import BLOCK


def multinomial(rows: LogitRows, trials: Array, draw: Draw, out: Array) -> int | None:
    """Counts of trials[row] draws of rows into `out`; the first bad row, if any."""
    if rows.number == 0:
        return None
    argmaxes, roots = np.full(rows.number, -1, np.int64), np.empty((rows.number, 2))
    samples = 0 if rows.temperature.values.all() else 1
    bad = _dispatch.categorical(rows, samples, "grouped", draw, Outputs(indices=argmaxes, roots=roots))
    plan = plan_counting(rows, trials, draw, Outputs(indices=argmaxes, roots=roots), out)
    _dispatch.run_blocks(plan, plan.parameters.logits)
    return bad


def plan_counting(rows: LogitRows, trials: Array, draw: Draw, of_rows: Outputs, out: Array) -> _dispatch.Plan:
    """How draws are counted of rows whose argmaxes and roots are known."""
    assert of_rows.indices is not None
    assert of_rows.roots is not None
    logits = _dispatch.rows_in_memory(rows.array)
    split, _ = _dispatch._split_blocks((logits,))
    parameters = Counting(
        _dispatch.stream_of(draw, rows.ids),
        _dispatch.temperatures(rows.temperature),
        trials,
        of_rows.indices,
        of_rows.roots,
        logits,
        _dispatch.rows_in_memory(out),
        split,
        Blocks(None, 0, 0),
    )
    driver = drivers.driver("multinomial", _dispatch.name_of(_dispatch.result_dtype(rows.array.dtype)))
    per_item = min(split.segment_blocks * BLOCK, logits.columns)
    return _dispatch.Plan(driver, parameters, logits.rows * split.segments, per_item)
