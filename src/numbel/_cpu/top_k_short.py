"""Sampling without replacement from many short rows at a time, transposed as in `short`.

Every key is computed and every row sorted, by the network of `cuts`. The results are those of `top_k`, bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int32, int64, uint8, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import NOISE, REFINEMENT, draw_key
from .._scalar.bits import select
from .._scalar.blocks import join, log_prob
from .._scalar.gumbel import ABSORBING, gumbel_float64, place_of
from .._scalar.top_k import category_node, limit_at_zero
from .cuts import padded_columns, sort_columns
from .memory import store
from .noise import fill_across
from .records import row_id, row_temperature, row_wanted
from .results import note_bad, store_float
from .scratch import empty, lacks_scratch, open_scratch, workspace
from .short import (
    common_factors,
    find_references,
    halve_columns,
    new_factors,
    new_nodes,
    new_references,
    nodes_of,
    row_factors,
    tile_weights,
)
from .signatures import ShortChoosing
from .tiles import read_tile_of
from .workers import each_tile

_INF = math.inf
_NAN = math.nan
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


class _Arrays(NamedTuple):
    x: Any
    rest: Any  # the columns that are not chosen
    factors: Any
    references: Any
    nodes: Any
    logs: Any
    identities: Any
    possible: Any
    words: Any
    refinements: Any
    keys: Any
    places: Any
    equal: Any  # whether a row has equal keys; then whether its largest logit is in range
    order: Any  # of equals


@njit
def _fill_keys(columns, width, arrays):
    """Logit / T + G of every column, its place, and how many are possible."""
    x, keys, places, possible = arrays.x, arrays.keys, arrays.places, arrays.possible
    words, refinements = arrays.words, arrays.refinements
    temperatures, high64 = arrays.factors.temperatures, arrays.factors.high64
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
    for at in range(uint64(columns) * width, uint64(padded_columns(columns)) * width):
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
def _order_equals(columns, width, i, arrays):
    """Sort the equal keys of row i by their places in the order of equals."""
    x, keys, places, order = arrays.x, arrays.keys, arrays.places, arrays.order
    temperature = arrays.factors.temperatures[i]
    for c in range(uint64(columns)):
        column = places[c * width + i]
        if column < _IMPOSSIBLE:
            at = uint64(column) * width + i
            g = gumbel_float64(uint64(arrays.words[at]), uint64(arrays.refinements[at]))
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
def _chain(k, width, arrays):
    """logs[i] = log P of the first k in order; the nodes, of all other columns, become those of all."""
    x, places, logs, (r, total) = arrays.x, arrays.places, arrays.logs, arrays.nodes
    high64, low64 = arrays.factors.high64, arrays.factors.low64
    for i in range(width):
        logs[i] = 0.0
    for c in range(k):
        at = uint64(k - 1 - c) * width
        for i in range(width):
            phi = float64(x[uint64(places[at + i]) * width + i])
            of_r, of_total = category_node(phi, high64[i], low64[i])
            r[i], total[i] = join(of_r, of_total, r[i], total[i])
            logs[i] += log_prob(phi, high64[i], low64[i], r[i], total[i])


@inlined
def _sort_rows(p, rows, width, arrays):
    """Keys in descending order, with their places, of each row of a tile."""
    x, keys, places, factors, columns = arrays.x, arrays.keys, arrays.places, arrays.factors, p.logits.columns
    key, mask = draw_key(p.stream.seed, p.stream.draw)
    fill_across(arrays.words, columns, arrays.identities, width, uint64(0), uint64(NOISE), key, mask)
    fill_across(arrays.refinements, columns, arrays.identities, width, uint64(0), uint64(REFINEMENT), key, mask)
    _fill_keys(columns, width, arrays)
    for i in range(uint64(rows)):
        if factors.sampled[i] == uint8(0):  # temperature 0: the logits decide
            for c in range(uint64(columns)):
                keys[c * width + i] = float64(x[c * width + i])
    sort_columns(_exchange, (keys, places), padded_columns(columns), width)
    _find_equals(keys, min(columns, p.k + 1), width, arrays.equal)  # what lies behind is not told
    for i in range(uint64(rows)):
        if arrays.equal[i] != int32(0) and factors.sampled[i] != uint8(0):
            _order_equals(columns, width, i, arrays)


@inlined
def _sum_rest(kind, columns, k, width, arrays):
    """Roots of all columns but the first k."""
    x, rest, places, factors, references = arrays.x, arrays.rest, arrays.places, arrays.factors, arrays.references
    for at in range(uint64(columns) * width):
        rest[at] = x[at]
    for c in range(uint64(k)):
        for i in range(width):
            rest[uint64(places[c * width + i]) * width + i] = -_INF
    find_references(rest, columns, width, factors.high, references)
    tile_weights(rest, columns, width, factors, references)
    halve_columns(rest, columns, width)
    nodes_of(rest, width, factors, references, arrays.nodes)
    for i in range(width):
        none = references.largest[i] == -_INF
        arrays.nodes.r[i], arrays.nodes.s[i] = (
            select(none, 0.0, arrays.nodes.r[i]),
            select(none, 0.0, arrays.nodes.s[i]),
        )


@inlined
def _write_row(kind, work, p, row, i, bounded, arrays):
    """Results of row number i of a tile."""
    k, width, results = p.k, uint64(p.width), p.results
    wanted, greedy = row_wanted(p.row_mask, row), row_temperature(p.temperatures, row) == 0.0
    good = wanted and bounded and arrays.possible[i] >= k
    if wanted and not good:
        note_bad(work, row)
    for c in range(uint64(k)):
        value, place = arrays.keys[c * width + i], int64(arrays.places[c * width + i])
        value = limit_at_zero(value) if greedy else value
        store(int64(0), results.indices, row * k + int64(c), place if good else int64(-1))
        store(float64(0), results.perturbed, row * k + int64(c), value if good else _NAN)
    threshold = -_INF
    if arrays.possible[i] > k:
        threshold = arrays.keys[uint64(k) * width + i]
        threshold = limit_at_zero(threshold) if greedy else threshold
    store(float64(0), results.threshold, row, threshold if good else _NAN)
    store_float(kind, results.log_prob, row, (0.0 if greedy else arrays.logs[i]) if good else _NAN)


@inlined
def _tile(kind, work, p, first, rows, arrays):
    width, columns, k = uint64(p.width), p.logits.columns, p.k
    factors, references, identities = arrays.factors, arrays.references, arrays.identities
    read_tile_of(kind, p.logits, first, rows, width, arrays.x)
    row_factors(kind, p, first, rows, width, factors)
    for i in range(uint64(rows)):
        if factors.sampled[i] == uint8(0):  # temperature 0: every finite logit is in range
            factors.high64[i] = _ANY
    for i in range(width):
        identities[i] = uint64(row_id(p.stream, first + int64(i))) if i < uint64(rows) else uint64(0)
    _sort_rows(p, rows, width, arrays)
    find_references(arrays.x, columns, width, factors.high, references)
    for i in range(width):
        arrays.equal[i] = int32(scalar.is_bounded(references.largest[i], factors.high64[i]))
        # those that cannot give k have no sum, and their places must not be followed
        if arrays.possible[i] < k or arrays.equal[i] == int32(0):
            for c in range(uint64(k)):
                arrays.places[c * width + i] = int32(c)
    _sum_rest(kind, columns, k, width, arrays)
    _chain(k, width, arrays)
    for i in range(uint64(rows)):
        _write_row(kind, work, p, first + int64(i), i, arrays.equal[i] != int32(0), arrays)


@njit
def top_k_short(kind, work, p: ShortChoosing):
    """One worker: take tiles until none is left."""
    scratch = open_scratch(work)
    width, columns = uint64(p.width), p.logits.columns
    size, sorted_size = uint64(columns) * width, uint64(padded_columns(columns)) * width
    drawn = (uint64(columns) + uint64(3)) // uint64(4) * uint64(4) * width
    arrays = _Arrays(
        workspace(scratch, kind, size),
        workspace(scratch, kind, size),
        new_factors(kind, scratch, width),
        new_references(kind, scratch, width),
        new_nodes(scratch, width),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.int32),
        empty(scratch, drawn, np.uint32),
        empty(scratch, drawn, np.uint32),
        empty(scratch, sorted_size, np.float64),
        empty(scratch, sorted_size, np.int32),
        empty(scratch, width, np.int32),
        empty(scratch, columns, np.int64),
    )
    if lacks_scratch(work, scratch):
        return
    common = p.temperatures.each == 0 and p.temperatures.common > 0.0
    common_factors(kind, p.temperatures.common if common else 1.0, width, arrays.factors)
    each_tile(kind, work, p, p.logits.rows, _tile, arrays)
