"""Counts of many draws: rows of logits -> kernel calls."""

from __future__ import annotations

import numpy as np

from .._arguments.requests import Array, Draw, LogitRows, Outputs
from .._cpu import drivers
from .._cpu.signatures import Blocks, Counting
from .._scalar.limits import BLOCK
from . import dispatch


def multinomial(rows: LogitRows, trials: Array, draw: Draw, out: Array) -> int | None:
    """Counts of trials[row] draws of rows into `out`; the first bad row, if any."""
    if rows.number == 0:
        return None
    argmaxes, roots = np.full(rows.number, -1, np.int64), np.empty((rows.number, 2))
    samples = 0 if rows.temperature.values.all() else 1
    bad = dispatch.categorical(rows, samples, "grouped", draw, Outputs(indices=argmaxes, roots=roots))
    plan = plan_counting(rows, trials, draw, Outputs(indices=argmaxes, roots=roots), out)
    dispatch.run_blocks(plan, plan.parameters.logits)
    return bad


def plan_counting(rows: LogitRows, trials: Array, draw: Draw, of_rows: Outputs, out: Array) -> dispatch.Plan:
    """How draws are counted of rows whose argmaxes and roots are known."""
    assert of_rows.indices is not None
    assert of_rows.roots is not None
    logits = dispatch.rows_in_memory(rows.array)
    split, _ = dispatch._split_blocks((logits,))
    parameters = Counting(
        dispatch.stream_of(draw, rows.ids),
        dispatch.temperatures(rows.temperature),
        trials,
        of_rows.indices,
        of_rows.roots,
        logits,
        dispatch.rows_in_memory(out),
        split,
        Blocks(None, 0, 0),
    )
    driver = drivers.driver("multinomial", dispatch.name_of(dispatch.result_dtype(rows.array.dtype)))
    per_item = min(split.segment_blocks * BLOCK, logits.columns)
    return dispatch.Plan(driver, parameters, logits.rows * split.segments, per_item)
