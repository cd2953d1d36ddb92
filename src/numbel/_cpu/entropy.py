"""The entropy of every row, in one pass: long rows by blocks along the dyadic tree, short ones many at a time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint8, uint64

from .._jit import inlined, njit
from .._scalar.bits import larger
from .._scalar.blocks import LANES
from .._scalar.entropy import LONE, entropy_of_node, join_entropy, terms
from .blocks import LEVELS, block_at, block_max, halve, new_buffer, scale_of
from .categorical import segment_blocks
from .memory import atomic_add, load, store, zero
from .records import row_address, row_and_segment, row_temperature, row_wanted
from .results import note_bad, store_float
from .scratch import empty, fill, lacks_scratch, open_scratch, workspace
from .short import common_factors, halve_columns, new_factors, row_factors
from .signatures import Entropies, ShortEntropies
from .tiles import read_tile_of
from .workers import each_item, each_tile

_INF = math.inf
_NAN = math.nan


@njit
def _lane_terms(kind, address, count, largest, high, low, lanes, products):
    """Sums of 2^z and z 2^z over a block, in 512 lanes and by halves."""
    fill(lanes, 0, LANES, zero(kind))
    fill(products, 0, LANES, zero(kind))
    for start in range(uint64(0), uint64(count), uint64(LANES)):
        for i in range(min(uint64(LANES), uint64(count) - start)):
            w, v = terms(load(kind, address, int64(start + i)) - largest, high, low)
            lanes[i] += w
            products[i] += v
    width = min(uint64(count), uint64(LANES))
    halve(lanes, width)
    halve(products, width)
    return lanes[0], products[0]


@njit
def _lane_others(kind, address, count, largest, high, low, lanes):
    """The sum of 2^z over a block, the largest left out."""
    fill(lanes, 0, LANES, zero(kind))
    for start in range(uint64(0), uint64(count), uint64(LANES)):
        for i in range(min(uint64(LANES), uint64(count) - start)):
            d = load(kind, address, int64(start + i)) - largest
            w, _ = terms(d, high, low)
            lanes[i] += w if d < zero(kind) else zero(kind)
    halve(lanes, min(uint64(count), uint64(LANES)))
    return lanes[0]


@njit
def _block_node(kind, address, count, high, low, lanes, products):
    """(m, V, A) of a block."""
    largest, nan = block_max(kind, address, count)
    if nan or largest == _INF:
        return 0.0, _NAN, 0.0
    if largest == -_INF:
        return -_INF, 0.0, 0.0
    total, weighed = _lane_terms(kind, address, count, largest, high, low, lanes, products)
    others = float64(total) - 1.0
    if total < LONE:
        others = float64(_lane_others(kind, address, count, largest, high, low, lanes))
    return float64(largest), others, float64(weighed)


@njit
def _push(stack, index, m, v, a, scale):
    """Add leaf number `index` to the dyadic tree whose open left siblings stand on the stack."""
    level = uint64(0)
    while (uint64(index) >> level) & uint64(1) != uint64(0):
        at = uint64(3) * level
        m, v, a = join_entropy(
            stack[at], stack[at + uint64(1)], stack[at + uint64(2)], m, v, a, scale.high64, scale.low64
        )
        level += uint64(1)
    at = uint64(3) * level
    stack[at], stack[at + uint64(1)], stack[at + uint64(2)] = m, v, a


@njit
def _collapse(stack, count, scale):
    """The root over `count` leaves: a node without right sibling rises unchanged."""
    m, v, a = -_INF, 0.0, 0.0
    for level in range(uint64(LEVELS)):
        if (uint64(count) >> level) & uint64(1) != uint64(0):
            at = uint64(3) * level
            m, v, a = join_entropy(
                stack[at], stack[at + uint64(1)], stack[at + uint64(2)], m, v, a, scale.high64, scale.low64
            )
    return m, v, a


@njit
def _write(kind, work, p, row, node):
    m, v, a = node
    good = v == v and m > -_INF
    store_float(kind, p.out, row, entropy_of_node(v, a) if good else _NAN)
    if not good:
        note_bad(work, row)


@njit
def _write_unsampled(kind, work, p, row):
    """NaN for a row that is masked out; at temperature 0 there is no entropy, unless the row is bad."""
    if not row_wanted(p.row_mask, row):
        store_float(kind, p.out, row, _NAN)
        return
    address = row_address(p.logits, row)
    possible, good = False, True
    for i in range(p.logits.columns):
        x = load(kind, address + int64(i) * p.logits.column_stride, int64(0))
        good = good and x < _INF
        possible = possible or x > -_INF
    store_float(kind, p.out, row, 0.0 if good and possible else _NAN)
    if not (good and possible):
        note_bad(work, row)


class _Arrays(NamedTuple):
    lanes: Any
    products: Any
    stack: Any
    buffer: Any


@inlined
def _item(kind, work, p, item, arrays):
    row, segment = row_and_segment(p.split, p.logits.rows, item)
    temperature = row_temperature(p.temperatures, row)
    if not row_wanted(p.row_mask, row) or temperature == 0.0:
        if segment == 0:
            _write_unsampled(kind, work, p, row)
        return
    stack, segments, scale = arrays.stack, p.split.segments, scale_of(kind, temperature)
    first, last = segment_blocks(p, segment)
    for b in range(first, last):
        at, count = block_at(kind, p.logits, row_address(p.logits, row), b, arrays.buffer)
        m, v, a = _block_node(kind, at, count, scale.high, scale.low, arrays.lanes, arrays.products)
        _push(stack, b - first, m, v, a, scale)
    node = _collapse(stack, last - first, scale)
    if segments > 1:
        at = 3 * (row * segments + segment)
        store(float64(0), p.nodes, at, node[0])
        store(float64(0), p.nodes, at + 1, node[1])
        store(float64(0), p.nodes, at + 2, node[2])
        if atomic_add(p.split.pending + 8 * row, int64(-1)) > 1:
            return
        for g in range(segments):
            at = 3 * (row * segments + g)
            m, v = load(float64(0), p.nodes, at), load(float64(0), p.nodes, at + 1)
            _push(stack, g, m, v, load(float64(0), p.nodes, at + 2), scale)
        node = _collapse(stack, segments, scale)
    _write(kind, work, p, row, node)


@njit
def entropy(kind, work, p: Entropies):
    """One worker: take segments until none is left; whoever finishes a row's last one joins them."""
    scratch = open_scratch(work)
    arrays = _Arrays(
        workspace(scratch, kind, LANES),
        workspace(scratch, kind, LANES),
        empty(scratch, 3 * LEVELS, np.float64),
        new_buffer(scratch, p.logits),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)


@njit
def _tile_terms(columns, width, factors, arrays):
    """X becomes 2^z where z < 0, else 0; how often z = 0; products become z 2^z."""
    x, products, largest, ties, _ = arrays
    for i in range(uint64(width)):
        ties[i] = largest[i] - largest[i]
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            d = x[at] - largest[i]
            w, v = terms(d, factors.high[i], factors.low[i])
            below = d < type(d)(0)
            x[at] = w if below else type(d)(0)
            products[at] = v
            ties[i] += type(d)(0) if below else type(d)(1)


class _Tile(NamedTuple):
    x: Any
    products: Any
    largest: Any
    ties: Any
    values: Any


@inlined
def _tile(kind, work, p, first, rows, both):
    factors, arrays = both
    x, products, largest, ties, values = arrays
    width, columns = uint64(p.width), p.logits.columns
    read_tile_of(kind, p.logits, first, rows, width, x)
    row_factors(kind, p, first, rows, width, factors)
    for i in range(width):
        largest[i] = x[i]
    for c in range(uint64(1), uint64(columns)):
        for i in range(width):
            largest[i] = larger(largest[i], x[c * width + i])
    _tile_terms(columns, width, factors, arrays)
    halve_columns(x, columns, width)
    halve_columns(products, columns, width)
    for i in range(width):
        values[i] = entropy_of_node(float64(x[i]) + (float64(ties[i]) - 1.0), float64(products[i]))
    for i in range(uint64(rows)):
        row = first + int64(i)
        if factors.sampled[i] == uint8(0):
            _write_unsampled(kind, work, p, row)
        elif abs(largest[i]) < _INF:
            store_float(kind, p.out, row, values[i])
        else:
            _write(kind, work, p, row, (0.0, _NAN, 0.0))


@njit
def entropy_short(kind, work, p: ShortEntropies):
    """One worker: take tiles of short rows until none is left."""
    scratch = open_scratch(work)
    width = uint64(p.width)
    size = uint64(p.logits.columns) * width
    factors = new_factors(kind, scratch, width)
    arrays = _Tile(
        workspace(scratch, kind, size),
        workspace(scratch, kind, size),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        empty(scratch, width, np.float64),
    )
    if lacks_scratch(work, scratch):
        return
    common_factors(kind, p.temperatures.common if p.temperatures.each == 0 else 1.0, width, factors)
    each_tile(kind, work, p, p.logits.rows, _tile, (factors, arrays))
