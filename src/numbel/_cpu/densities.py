"""Log-probabilities of given categories, from the nodes that a pass of grouped sampling leaves for each row."""

from __future__ import annotations

import math

from numba import float64, int64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.elementary import log_float64
from .job import job_at, row_address, row_temperature, take_items
from .memory import load
from .results import store_float

_INF = math.inf
_NAN = math.nan


@njit
def given_log_prob(kind, job):
    """One worker: `samples` categories of each row (`given`), `segment_blocks` of all of them an item.

    A row of temperature 0 has all its probability at its argmax (`indices`).
    """
    j = job_at(job)
    entries = j.rows * j.samples
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        held, r, total, log_total, high64, low64, temperature = int64(-1), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for at in range(begin * j.segment_blocks, min(end * j.segment_blocks, entries)):
            row = at // j.samples
            if row != held:
                held = row
                r, total = load(float64(0), j.row_node, 2 * row), load(float64(0), j.row_node, 2 * row + 1)
                log_total = log_float64(total)
                temperature = row_temperature(j, row)
                high64, low64 = scalar.scale(temperature if temperature > 0.0 else 1.0)
            column = load(int64(0), j.given, at)
            value = _NAN
            if 0 <= column < j.columns and total == total:
                if temperature == 0.0:
                    value = 0.0 if column == load(int64(0), j.indices, row) else -_INF
                else:
                    x = float64(load(kind, row_address(j, row) + column * j.column_stride, int64(0)))
                    value = scalar.log_prob_beside(x, high64, low64, r, log_total) if x > -_INF else -_INF
            store_float(kind, j.log_prob, at, value)
