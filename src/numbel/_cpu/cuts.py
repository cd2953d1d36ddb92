"""The cuts of many short rows at a time, transposed as in `short`: what `truncation` finds of long rows one by one.

Every row is sorted, by a network whose comparisons do not depend on the values, so that SIMD lanes are rows. The masses
of sorted columns add up to top_p's limit; the last one below it is the cut.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import int32, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar import truncation as rules
from .._scalar.bits import select
from .._scalar.elementary import log_float64
from .memory import opaque
from .records import row_limits
from .scratch import empty, workspace

_INF = math.inf
_ALL = 0xFFFFFFFFFFFFFFFF


class Cuts(NamedTuple):
    """What rows of a tile are cut by, and where: an entry a row, or one a column and row."""

    top_k: Any
    top_p: Any
    reach: Any  # -ln(min_p)
    off: Any  # whether nothing is cut
    t: Any  # the value at the cut
    ties: Any  # how many of those that equal it are kept
    limits: Any  # the mass before which a column is kept
    before: Any
    ordered: Any  # the columns sorted
    weights: Any
    masses: Any


@inlined
def new_cuts(kind, scratch, columns, width):
    """For tiles of so many rows, which may be 0."""
    size = uint64(columns) * width
    return Cuts(
        empty(scratch, width, np.int64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.uint8),
        workspace(scratch, kind, width),
        empty(scratch, width, np.int32),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
        workspace(scratch, kind, uint64(padded_columns(columns)) * width),
        workspace(scratch, kind, size),
        empty(scratch, size, np.uint64),
    )


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
def read_limits(limits, columns, first, rows, width, cuts):
    """What each row of a tile is cut by, and whether that is nothing; (some by mass, some by min_p)."""
    by_mass, by_reach = False, False
    for i in range(width):
        k, p, m = row_limits(limits, first + min(int64(i), rows - 1))
        cuts.top_k[i], cuts.top_p[i] = min(k, columns), p
        cuts.reach[i] = -log_float64(m) if m > 0.0 else _INF
        cuts.off[i] = k >= columns and p >= 1.0 and m <= 0.0
        by_mass, by_reach = by_mass or p < 1.0, by_reach or m > 0.0
    return by_mass, by_reach


@njit
def _mass_limits(columns, width, factors, references, cuts):
    """Masses of the sorted columns, and the mass before which a column is kept."""
    s, weights, masses, limits = cuts.ordered, cuts.weights, cuts.masses, cuts.limits
    top_k, top_p = cuts.top_k, cuts.top_p
    high, low, r, rise, shift = factors.high, factors.low, references.r, references.rise, references.shift
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
def _cut_by_rank(columns, width, cuts):
    """The value at each row's rank top_k, and how many of those that equal it are kept."""
    s, top_k, t, ties = cuts.ordered, cuts.top_k, cuts.t, cuts.ties
    for c in range(uint64(columns)):
        for i in range(width):
            value = s[c * width + i]
            kept = int64(c) < top_k[i]
            more = select(value == t[i], int32(ties[i] + int32(1)), int32(1))
            ties[i], t[i] = select(kept, more, ties[i]), select(kept, value, t[i])


@njit
def _cut_by_mass(columns, width, cuts):
    """The same, as far as the mass before a column is below the limit."""
    s, top_k, t, ties = cuts.ordered, cuts.top_k, cuts.t, cuts.ties
    masses, limits, before = cuts.masses, cuts.limits, cuts.before
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
def cut_rows(x, columns, width, by, factors, references, cuts):
    """-inf for all columns of a tile's rows that their limits exclude; `by` is what `read_limits` said."""
    by_mass, by_reach = by
    padded = padded_columns(columns)
    size = uint64(columns) * width
    s, t, ties = cuts.ordered, cuts.t, cuts.ties
    for at in range(size):
        s[at] = x[at] if x[at] == x[at] else -_INF
    for at in range(size, uint64(padded) * width):
        s[at] = -_INF
    sort_columns(_exchange, s, padded, width)
    for i in range(width):
        t[i], ties[i] = s[i], int32(0)
    if by_mass:
        _mass_limits(columns, width, factors, references, cuts)
        _cut_by_mass(columns, width, cuts)
    else:
        _cut_by_rank(columns, width, cuts)
    _mask(x, columns, width, t, ties)
    if by_reach:
        _mask_far(x, columns, width, references.largest, factors.temperatures, cuts.reach)
