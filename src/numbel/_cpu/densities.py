"""Log-probabilities of given categories, from the roots that a pass of grouped sampling leaves for each row."""

from __future__ import annotations

import math

from numba import float64, int64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.elementary import log_float64
from .memory import load
from .records import row_address, row_temperature
from .results import store_float
from .signatures import GivenLogProb
from .workers import each_item

_INF = math.inf
_NAN = math.nan


@inlined
def _item(kind, work, p, item, arrays):
    held, r, total, log_total, high64, low64, temperature = int64(-1), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for at in range(item * p.chunk_size, min((item + 1) * p.chunk_size, p.logits.rows * p.samples)):
        row = at // p.samples
        if row != held:
            held = row
            r, total = load(float64(0), p.roots, 2 * row), load(float64(0), p.roots, 2 * row + 1)
            log_total = log_float64(total)
            temperature = row_temperature(p.temperatures, row)
            high64, low64 = scalar.scale(temperature if temperature > 0.0 else 1.0)
        column = load(int64(0), p.given, at)
        value = _NAN
        if 0 <= column < p.logits.columns and total == total:
            if temperature == 0.0:
                value = 0.0 if column == load(int64(0), p.argmaxes, row) else -_INF
            else:
                address = row_address(p.logits, row) + column * p.logits.column_stride
                x = float64(load(kind, address, int64(0)))
                value = scalar.log_prob_beside(x, high64, low64, r, log_total) if x > -_INF else -_INF
        store_float(kind, p.log_prob, at, value)


@njit
def given_log_prob(kind, work, p: GivenLogProb):
    """One worker: take chunks of the given categories until none is left."""
    each_item(kind, work, p, int64(1), _item, None)
