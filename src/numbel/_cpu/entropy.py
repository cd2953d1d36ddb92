"""The entropy of every row, in one pass: long rows by blocks along the dyadic tree, short ones many at a time."""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint8, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.bits import larger
from .._scalar.blocks import BLOCK, LANES
from .._scalar.entropy import LONE, entropy_of_node, join_entropy, terms
from .blocks import LEVELS, block_address, block_max, halve
from .job import job_at, row_address, row_and_segment, row_temperature, row_wanted, take_items
from .memory import atomic_add, atomic_min, load, store, zero
from .results import store_float
from .scratch import empty, fill, lacks_scratch, open_scratch, workspace
from .short import halve_columns, row_factors
from .tiles import read_form

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
def _push(stack, index, m, v, a, high, low):
    """Add leaf number `index` to the dyadic tree whose open left siblings stand on the stack."""
    level = uint64(0)
    while (uint64(index) >> level) & uint64(1) != uint64(0):
        at = uint64(3) * level
        m, v, a = join_entropy(stack[at], stack[at + uint64(1)], stack[at + uint64(2)], m, v, a, high, low)
        level += uint64(1)
    at = uint64(3) * level
    stack[at], stack[at + uint64(1)], stack[at + uint64(2)] = m, v, a


@njit
def _collapse(stack, count, high, low):
    """The root over `count` leaves: a node without right sibling rises unchanged."""
    m, v, a = -_INF, 0.0, 0.0
    for level in range(uint64(LEVELS)):
        if (uint64(count) >> level) & uint64(1) != uint64(0):
            at = uint64(3) * level
            m, v, a = join_entropy(stack[at], stack[at + uint64(1)], stack[at + uint64(2)], m, v, a, high, low)
    return m, v, a


@njit
def _write(kind, j, row, m, v, a):
    good = v == v and m > -_INF
    store_float(kind, j.out, row, entropy_of_node(v, a) if good else _NAN)
    if not good:
        atomic_min(j.bad_row_at, row)


@njit
def _write_certain(kind, j, row):
    """Temperature 0: no entropy, unless the row is bad."""
    address = row_address(j, row)
    possible, good = False, True
    for i in range(j.columns):
        x = load(kind, address + int64(i) * j.column_stride, int64(0))
        good = good and x < _INF
        possible = possible or x > -_INF
    store_float(kind, j.out, row, 0.0 if good and possible else _NAN)
    if not (good and possible):
        atomic_min(j.bad_row_at, row)


@njit
def entropy(kind, job):
    """One worker: take segments until none is left; whoever finishes a row's last one joins them."""
    j = job_at(job)
    scratch = open_scratch(j)
    lanes, products = workspace(scratch, kind, LANES), workspace(scratch, kind, LANES)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    stack = empty(scratch, 3 * LEVELS, np.float64)
    buffer = empty(scratch, BLOCK if j.column_stride != j.item_size else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            temperature = row_temperature(j, row)
            if not row_wanted(j, row) or temperature == 0.0:
                if segment == 0:
                    if row_wanted(j, row):
                        _write_certain(kind, j, row)
                    else:
                        store_float(kind, j.out, row, _NAN)
                continue
            high64, low64 = scalar.scale(temperature)
            high, low = scalar.narrow(zero(kind), high64, low64)
            address = row_address(j, row)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            for b in range(first, last):
                count = min(j.columns - b * BLOCK, int64(BLOCK))
                at = block_address(kind, address, j.column_stride, j.item_size, b, count, buffer)
                m, v, a = _block_node(kind, at, count, high, low, lanes, products)
                _push(stack, b - first, m, v, a, high64, low64)
            m, v, a = _collapse(stack, last - first, high64, low64)
            if j.segments > 1:
                at = 3 * (row * j.segments + segment)
                store(float64(0), j.node_s, at, m)
                store(float64(0), j.node_s, at + 1, v)
                store(float64(0), j.node_s, at + 2, a)
                if atomic_add(j.pending + 8 * row, int64(-1)) > 1:
                    continue
                for g in range(j.segments):
                    at = 3 * (row * j.segments + g)
                    m, v = load(float64(0), j.node_s, at), load(float64(0), j.node_s, at + 1)
                    _push(stack, g, m, v, load(float64(0), j.node_s, at + 2), high64, low64)
                m, v, a = _collapse(stack, j.segments, high64, low64)
            _write(kind, j, row, m, v, a)


@njit
def _tile_terms(x, columns, width, largest, high, low, ties, products):
    """X becomes 2^z where z < 0, else 0; how often z = 0; products become z 2^z."""
    for i in range(uint64(width)):
        ties[i] = largest[i] - largest[i]
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            d = x[at] - largest[i]
            w, v = terms(d, high[i], low[i])
            below = d < type(d)(0)
            x[at] = w if below else type(d)(0)
            products[at] = v
            ties[i] += type(d)(0) if below else type(d)(1)


@njit
def entropy_short(kind, job):
    """One worker: take tiles of `segment_blocks` short rows (the width) until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    width = uint64(j.segment_blocks)
    size = uint64(j.columns) * width
    x, products = workspace(scratch, kind, size), workspace(scratch, kind, size)
    largest, ties = workspace(scratch, kind, width), workspace(scratch, kind, width)
    high, low = workspace(scratch, kind, width), workspace(scratch, kind, width)
    high64, low64, temperatures, values = (
        empty(scratch, width, np.float64), empty(scratch, width, np.float64), empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
    )  # fmt: skip
    sampled = empty(scratch, width, np.uint8)
    if lacks_scratch(j, scratch):
        return
    one_high, one_low = scalar.scale(j.temperature if j.temperatures == 0 else 1.0)
    for i in range(width):
        high64[i], low64[i] = one_high, one_low
        high[i], low[i] = scalar.narrow(zero(kind), one_high, one_low)
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        read_form(kind, j, first, rows, width, x)
        row_factors(kind, j, first, rows, width, temperatures, high64, low64, high, low, sampled)
        for i in range(width):
            largest[i] = x[i]
        for c in range(uint64(1), uint64(j.columns)):
            for i in range(width):
                largest[i] = larger(largest[i], x[c * width + i])
        _tile_terms(x, j.columns, width, largest, high, low, ties, products)
        halve_columns(x, j.columns, width)
        halve_columns(products, j.columns, width)
        for i in range(width):
            values[i] = entropy_of_node(float64(x[i]) + (float64(ties[i]) - 1.0), float64(products[i]))
        for i in range(uint64(rows)):
            row = first + int64(i)
            if sampled[i] == uint8(0):
                if row_wanted(j, row):
                    _write_certain(kind, j, row)
                else:
                    store_float(kind, j.out, row, _NAN)
            elif abs(largest[i]) < _INF:
                store_float(kind, j.out, row, values[i])
            else:
                _write(kind, j, row, 0.0, _NAN, 0.0)
