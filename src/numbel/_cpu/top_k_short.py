"""Sampling without replacement from many short rows at a time, transposed as in `short`.

Every key is computed and every row sorted, by the network of `cuts`. The results are those of `top_k`, bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int32, int64, uint8, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.address import NOISE, REFINEMENT, draw_key
from .._scalar.bits import select
from .._scalar.blocks import join, log_prob
from .._scalar.gumbel import ABSORBING, gumbel_float64, place_of
from .._scalar.top_k import category_node, limit_at_zero
from .cuts import padded_columns, sort_columns
from .job import job_at, row_id, row_temperature, row_wanted
from .memory import atomic_add, atomic_min, store, zero
from .noise import fill_across
from .results import store_float
from .scratch import empty, lacks_scratch, open_scratch, workspace
from .short import halve_columns, nodes_of, references, row_factors, tile_weights
from .tiles import read_form

_INF = math.inf
_NAN = math.nan
#: Rows up to this long are done across rows.
SHORT = 128
#: What is added to the columns of impossible categories, so that they come last among equal keys.
_IMPOSSIBLE = 1 << 20
#: As in `top_k`.
_ANY = 2.0**-4


@njit
def _exchange(lists, a, b, width):
    """Sort two columns of all rows: the larger key first, the smaller place of equal ones."""
    keys, places = lists
    for i in range(width):
        x, y, p, q = keys[a + i], keys[b + i], places[a + i], places[b + i]
        swap = (y > x) | ((y == x) & (q < p))
        keys[a + i], keys[b + i] = select(swap, y, x), select(swap, x, y)
        places[a + i], places[b + i] = select(swap, q, p), select(swap, p, q)


@njit
def _fill_keys(x, columns, padded, width, temperatures, high64, words, refinements, keys, places, possible):
    """Logit / T + G of every column, its place, and how many are possible."""
    for i in range(width):
        possible[i] = int32(0)
    for c in range(uint64(columns)):
        for i in range(width):
            at = c * width + i
            g = gumbel_float64(uint64(words[at]), uint64(refinements[at]))
            keys[at] = float64(x[at]) / temperatures[i] + g
        for i in range(width):
            at = c * width + i
            out = not scalar.is_possible(x[at], high64[i])
            places[at] = int32(int32(c) + (int32(_IMPOSSIBLE) if out else int32(0)))
            possible[i] += int32(0) if out else int32(1)
    for at in range(uint64(columns) * width, uint64(padded) * width):
        keys[at], places[at] = -_INF, int32(2 * _IMPOSSIBLE)


@njit
def _find_equals(keys, columns, width, equal):
    """equal[i]: whether row i, sorted, has equal keys that their columns do not order."""
    for i in range(width):
        equal[i] = int32(0)
    for c in range(uint64(1), uint64(columns)):
        for i in range(width):
            key = keys[c * width + i]
            size = abs(key)
            tie = (key == keys[c * width + i - width]) & (size >= ABSORBING) & (size < _INF)
            equal[i] = int32(equal[i] | int32(tie))


@njit
def _order_equals(x, columns, width, i, temperature, words, refinements, keys, places, order):
    """Sort the equal keys of row i by their places in the order of equals, kept in `order`."""
    for c in range(uint64(columns)):
        column = places[c * width + i]
        if column < _IMPOSSIBLE:
            at = uint64(column) * width + i
            g = gumbel_float64(uint64(words[at]), uint64(refinements[at]))
            order[c] = place_of(column, float64(x[at]) / temperature, g, keys[c * width + i])
            k = c
            while k > uint64(0) and keys[(k - uint64(1)) * width + i] == keys[c * width + i]:
                if order[k - uint64(1)] < order[c]:
                    break
                k -= uint64(1)
            _move_up(places, order, width, i, c, k)


@njit
def _move_up(places, order, width, i, c, k):
    """Move row i's place number c to number k, before it."""
    place, at = places[c * width + i], order[c]
    while c > k:
        order[c], places[c * width + i] = order[c - uint64(1)], places[(c - uint64(1)) * width + i]
        c -= uint64(1)
    order[k], places[k * width + i] = at, place


@njit
def _chain(x, k, width, places, high64, low64, r, total, logs):
    """logs[i] = log P of the first k in order, (r, total) being the nodes of all other columns."""
    for i in range(width):
        logs[i] = 0.0
    for c in range(k):
        at = uint64(k - 1 - c) * width
        for i in range(width):
            phi = float64(x[uint64(places[at + i]) * width + i])
            of_r, of_total = category_node(phi, high64[i], low64[i])
            r[i], total[i] = join(of_r, of_total, r[i], total[i])
            logs[i] += log_prob(phi, high64[i], low64[i], r[i], total[i])


@njit
def top_k_short(kind, job):
    """One worker: take tiles of `segment_blocks` rows (the width) until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    key, mask = draw_key(j.seed, j.draw)
    k = int64(j.k)
    width = uint64(j.segment_blocks)
    size, padded = uint64(j.columns) * width, padded_columns(j.columns)
    x, rest = workspace(scratch, kind, size), workspace(scratch, kind, size)
    largest, left = workspace(scratch, kind, width), workspace(scratch, kind, width)
    r, shift = workspace(scratch, kind, width), workspace(scratch, kind, width)
    high, low = workspace(scratch, kind, width), workspace(scratch, kind, width)
    high64, low64, temperatures = (
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
    )
    node_r, node_s, logs = (
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
    )
    rise, sampled = empty(scratch, width, np.int64), empty(scratch, width, np.uint8)
    identities, possible = empty(scratch, width, np.uint64), empty(scratch, width, np.int32)
    drawn = (uint64(j.columns) + uint64(3)) // uint64(4) * uint64(4) * width
    words, refinements = empty(scratch, drawn, np.uint32), empty(scratch, drawn, np.uint32)
    keys, places = empty(scratch, uint64(padded) * width, np.float64), empty(scratch, uint64(padded) * width, np.int32)
    equal, order = empty(scratch, width, np.int32), empty(scratch, j.columns, np.int64)
    if lacks_scratch(j, scratch):
        return
    one = j.temperature if j.temperatures == 0 and j.temperature > 0.0 else 1.0
    one_high, one_low = scalar.scale(one)
    for i in range(width):
        temperatures[i], high64[i], low64[i] = one, one_high, one_low
        high[i], low[i] = scalar.narrow(zero(kind), one_high, one_low)
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        read_form(kind, j, first, rows, width, x)
        row_factors(kind, j, first, rows, width, temperatures, high64, low64, high, low, sampled)
        for i in range(uint64(rows)):
            if sampled[i] == uint8(0):  # temperature 0: every finite logit is in range
                high64[i] = _ANY
        references(x, j.columns, width, high, largest, r, rise, shift)
        for i in range(width):
            identities[i] = uint64(row_id(j, first + int64(i))) if i < uint64(rows) else uint64(0)
        fill_across(words, j.columns, identities, width, uint64(0), uint64(NOISE), key, mask)
        fill_across(refinements, j.columns, identities, width, uint64(0), uint64(REFINEMENT), key, mask)
        _fill_keys(x, j.columns, padded, width, temperatures, high64, words, refinements, keys, places, possible)
        for i in range(uint64(rows)):
            if sampled[i] == uint8(0):  # temperature 0: the logits decide
                for c in range(uint64(j.columns)):
                    keys[c * width + i] = float64(x[c * width + i])
        sort_columns(_exchange, (keys, places), padded, width)
        _find_equals(keys, min(int64(j.columns), k + 1), width, equal)  # what lies behind is not told
        for i in range(uint64(rows)):
            if equal[i] != int32(0) and sampled[i] != uint8(0):
                _order_equals(x, j.columns, width, i, temperatures[i], words, refinements, keys, places, order)
        for i in range(width):  # those that cannot give k have no sum, and their places must not be followed
            if possible[i] < k or not scalar.is_bounded(largest[i], high64[i]):
                for c in range(uint64(k)):
                    places[c * width + i] = int32(c)
        for at in range(size):
            rest[at] = x[at]
        for c in range(uint64(k)):
            for i in range(width):
                rest[uint64(places[c * width + i]) * width + i] = -_INF
        references(rest, j.columns, width, high, left, r, rise, shift)
        tile_weights(rest, j.columns, width, high, low, r, shift)
        halve_columns(rest, j.columns, width)
        nodes_of(rest, width, high64, low64, left, r, shift, node_r, node_s)
        for i in range(width):
            none = left[i] == -_INF
            node_r[i], node_s[i] = select(none, 0.0, node_r[i]), select(none, 0.0, node_s[i])
        _chain(x, k, width, places, high64, low64, node_r, node_s, logs)
        for i in range(uint64(rows)):
            row = first + int64(i)
            wanted = row_wanted(j, row)
            greedy = row_temperature(j, row) == 0.0
            good = wanted and scalar.is_bounded(largest[i], high64[i]) and possible[i] >= k
            if wanted and not good:
                atomic_min(j.bad_row_at, row)
            for c in range(uint64(k)):
                value = keys[c * width + i]
                value = limit_at_zero(value) if greedy else value
                store(int64(0), j.indices, row * k + int64(c), int64(places[c * width + i]) if good else int64(-1))
                store(float64(0), j.perturbed, row * k + int64(c), value if good else _NAN)
            threshold = -_INF
            if possible[i] > k:
                threshold = keys[uint64(k) * width + i]
                threshold = limit_at_zero(threshold) if greedy else threshold
            store(float64(0), j.threshold, row, threshold if good else _NAN)
            store_float(kind, j.log_prob, row, (0.0 if greedy else logs[i]) if good else _NAN)
