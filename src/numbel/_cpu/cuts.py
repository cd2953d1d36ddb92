"""The cuts of many short rows at a time, transposed as in `short`: what `truncation` finds of long rows one by one.

Every row is sorted, by a network whose comparisons do not depend on the values, so that SIMD lanes are rows. The masses
of sorted columns add up to top_p's limit; the last one below it is the cut.
"""

from __future__ import annotations

import math

from numba import int32, int64, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar import truncation as rules
from .._scalar.bits import select
from .._scalar.elementary import log_float64
from .job import row_min_p, row_top_k, row_top_p
from .memory import opaque

_INF = math.inf
_ALL = 0xFFFFFFFFFFFFFFFF


@njit
def padded_columns(columns):
    """The power of two up to which rows are sorted."""
    n = int64(1)
    while n < columns:
        n *= 2
    return n


@njit
def _exchange(s, a, b, width):
    """Sort two columns of all rows, the larger first."""
    for i in range(width):
        x, y = s[a + i], s[b + i]
        s[a + i], s[b + i] = select(x > y, x, y), select(x > y, y, x)


@njit
def sort_columns(exchange, lists, padded, width):
    """Sort every row by exchanges of two columns, which begin at the given places: Batcher's odd-even merge sort."""
    p = int64(1)
    while p < padded:
        k = p
        while k > 0:
            for first in range(k % p, padded - k, 2 * k):
                for i in range(first, min(first + k, padded - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        exchange(lists, opaque(uint64(i) * width), opaque(uint64(i + k) * width), width)
            k >>= 1
        p *= 2


@njit
def row_limits(j, first, rows, width, top_k, top_p, reach, off):
    """What each row of a tile is cut by, and whether that is nothing; (some by mass, some by min_p)."""
    by_mass, by_reach = False, False
    for i in range(width):
        row = first + min(int64(i), rows - 1)
        k, p, m = row_top_k(j, row), row_top_p(j, row), row_min_p(j, row)
        top_k[i], top_p[i] = min(k, j.columns), p
        reach[i] = -log_float64(m) if m > 0.0 else _INF
        off[i] = k >= j.columns and p >= 1.0 and m <= 0.0
        by_mass, by_reach = by_mass or p < 1.0, by_reach or m > 0.0
    return by_mass, by_reach


@njit
def _mass_limits(s, columns, width, high, low, r, rise, shift, top_k, top_p, weights, masses, limits):
    """Masses of the sorted columns, and the mass before which a column is kept."""
    # `mass_shift` of up to 2^11 columns is the rise alone
    for c in range(uint64(columns)):
        for i in range(width):
            weights[c * width + i] = scalar.weight(s[c * width + i] - shift[i], high[i], low[i], r[i])
    for i in range(width):
        limits[i] = uint64(0)
    for c in range(uint64(columns)):
        for i in range(width):
            at = c * width + i
            masses[at] = scalar.quantise(weights[at], rise[i])
            limits[i] += select(int64(c) < top_k[i], masses[at], uint64(0))
    for i in range(width):
        limits[i] = rules.mass_limit(top_p[i], limits[i]) if top_p[i] < 1.0 else uint64(_ALL)


@njit
def _cut_by_rank(s, columns, width, top_k, t, ties):
    """The value at each row's rank top_k, and how many of those that equal it are kept."""
    for c in range(uint64(columns)):
        for i in range(width):
            value = s[c * width + i]
            kept = int64(c) < top_k[i]
            more = select(value == t[i], int32(ties[i] + int32(1)), int32(1))
            ties[i], t[i] = select(kept, more, ties[i]), select(kept, value, t[i])


@njit
def _cut_by_mass(s, columns, width, top_k, masses, limits, before, t, ties):
    """The same, as far as the mass before a column is below the limit."""
    for i in range(width):
        before[i] = uint64(0)
    for c in range(uint64(columns)):
        for i in range(width):
            value = s[c * width + i]
            kept = (int64(c) < top_k[i]) & (before[i] < limits[i])
            more = select(value == t[i], int32(ties[i] + int32(1)), int32(1))
            ties[i], t[i] = select(kept, more, ties[i]), select(kept, value, t[i])
            before[i] += masses[c * width + i]


@njit
def _mask(x, columns, width, t, ties):
    """-inf for what lies below the cut."""
    lowest = type(x[0])(-_INF)
    for c in range(uint64(columns)):
        for i in range(width):
            value = x[c * width + i]
            tie = value == t[i]
            x[c * width + i] = select((value > t[i]) | (tie & (ties[i] > int32(0))), value, lowest)
            ties[i] = int32(ties[i] - int32(tie))


@njit
def _mask_far(x, columns, width, largest, temperatures, reach):
    """-inf for what min_p excludes."""
    lowest = type(x[0])(-_INF)
    for c in range(uint64(columns)):
        for i in range(width):
            value = x[c * width + i]
            x[c * width + i] = select(rules.within(value, largest[i], temperatures[i], reach[i]), value, lowest)


@njit
def cut_rows(
    x, columns, width, by_mass, by_reach, largest, r, rise, shift, high, low, temperatures, top_k, top_p, reach,
    s, weights, masses, limits, before, t, ties,
):  # fmt: skip
    """-inf for all columns of a tile's rows that their limits exclude."""
    padded = padded_columns(columns)
    size = uint64(columns) * width
    for at in range(size):
        s[at] = x[at] if x[at] == x[at] else -_INF
    for at in range(size, uint64(padded) * width):
        s[at] = -_INF
    sort_columns(_exchange, s, padded, width)
    for i in range(width):
        t[i], ties[i] = s[i], int32(0)
    if by_mass:
        _mass_limits(s, columns, width, high, low, r, rise, shift, top_k, top_p, weights, masses, limits)
        _cut_by_mass(s, columns, width, top_k, masses, limits, before, t, ties)
    else:
        _cut_by_rank(s, columns, width, top_k, t, ties)
    _mask(x, columns, width, t, ties)
    if by_reach:
        _mask_far(x, columns, width, largest, temperatures, reach)
