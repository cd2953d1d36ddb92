"""Relaxed samples of long rows: a block's weights from one visit, normalised once the row's sum is known.

A row of at most `held` columns is done in one go: its weights wait in cache (8 % faster at 2^20 than waiting in the
output). A longer one keeps them in the output, or, where that is of half precision, makes them a second time.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import REFINEMENT, draw_key
from .._scalar.bits import fma
from .._scalar.blocks import BLOCK, LANES
from .blocks import block_max, halve
from .job import job_at, out_address, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_add, atomic_min, load, store, zero
from .noise import fill_noise, fill_noise_and_ask, transform_float32, transform_float64
from .runs import SAME, fill_run, read_run, write_run
from .scratch import address_of, empty, fill, lacks_scratch, open_scratch, workspace

_INF = math.inf
_NAN = math.nan


@njit
def divide_block(kind, address, stride, item_size, count, divisor):
    """Divide what stands there, in the dtype of the arithmetic."""
    if stride == item_size:
        for i in range(uint64(count)):
            store(kind, address, int64(i), load(kind, address, int64(i)) / divisor)
    else:
        for i in range(uint64(count)):
            at = address + int64(i) * stride
            store(kind, at, int64(0), load(kind, at, int64(0)) / divisor)


@njit
def _largest(d, g, count, largest):
    """The largest perturbed logit."""
    top = scalar.ordered(d[0] - type(d[0])(_INF))
    for i in range(uint64(count)):
        k = scalar.ordered(relaxed.perturbed(d[i], largest, g[i]))
        top = k if k > top else top
    return scalar.from_ordered(top)


@njit
def _weights(d, g, count, largest, top, high, low, w, first, lanes):
    """w[first + i] = weight of a perturbed logit relative to `top`; their sum in the canonical order."""
    zero = largest - largest
    fill(lanes, 0, LANES, zero)
    for start in range(uint64(0), uint64(count), uint64(LANES)):
        at = uint64(first) + start
        for i in range(min(uint64(LANES), uint64(count) - start)):
            p = relaxed.perturbed(d[start + i], largest, g[start + i])
            v = scalar.weight(p - top, high, low, zero)
            w[at + i] = v
            lanes[i] += v
    halve(lanes, min(uint64(count), uint64(LANES)))
    return lanes[0]


@njit
def _block(kind, j, transform, wide, address, block, identities, key, mask, factors, buffers, first):
    """Weights of a block from w[first] on; its m, D and S: NaN in a bad block, 0 where nothing is possible."""
    (high, low), (d, g, x, y, w, lanes) = factors, buffers
    count = min(j.columns - block * BLOCK, int64(BLOCK))
    at = address + block * BLOCK * j.column_stride
    read_run(kind, j.element, at, j.column_stride, j.item_size, count, d)
    m, nan = block_max(kind, address_of(d), count)
    if nan or m == _INF:
        return m, m, _NAN
    if m == -_INF:
        fill(w, first, first + count, zero(kind))
        return m, m, 0.0
    if j.noise != 0:
        column = uint64(block) * uint64(BLOCK)
        ahead = at if j.column_stride == j.item_size else int64(0)
        fill_noise_and_ask(ahead, j.item_size, x, count, column, uint64(0), identities[0], key, mask)
        if wide:
            fill_noise(y, count, column, uint64(0), identities[0], uint64(REFINEMENT), key, mask)
        z, zero_width = zero(kind), uint64(0)
        at, tag = address_of(g), uint64(REFINEMENT)
        transform(z, at, x, y, count, z, type(z)(1), tag, key, mask, column, identities, zero_width)
    top = m - m
    total = _weights(d, g, count, m, top, high, low, w, first, lanes)
    if not relaxed.in_range(total):
        top = _largest(d, g, count, m)
        total = _weights(d, g, count, m, top, high, low, w, first, lanes)
    return m, top, float64(total)


@njit
def _normalise(nodes, blocks, high64, low64, lanes):
    """The third number of each node becomes what the block's weights are to be divided by; whether it can."""
    largest, top = -_INF, -_INF
    for b in range(blocks):
        if load(float64(0), nodes, 3 * b + 2) != 0.0:
            largest = max(largest, load(float64(0), nodes, 3 * b))
    good = True
    for b in range(blocks):
        total = load(float64(0), nodes, 3 * b + 2)
        good = good and total == total
        offset = relaxed.block_offset(load(float64(0), nodes, 3 * b), load(float64(0), nodes, 3 * b + 1), largest)
        store(float64(0), nodes, 3 * b + 1, offset)
        if total > 0.0:
            top = max(top, offset)
    good = good and top > -_INF
    fill(lanes, 0, LANES, 0.0)
    for b in range(blocks):
        total = load(float64(0), nodes, 3 * b + 2)
        scale = relaxed.block_scale(load(float64(0), nodes, 3 * b + 1), top, high64, low64) if total > 0.0 else 0.0
        store(float64(0), nodes, 3 * b, scale)
        lane = uint64(b) % uint64(LANES)
        lanes[lane] = fma(total, scale, lanes[lane])
    halve(lanes, uint64(LANES))
    for b in range(blocks):
        # a division by the sum itself makes a lone possible category exactly 1
        divisor = lanes[0] / load(float64(0), nodes, 3 * b) if good else _NAN
        store(float64(0), nodes, 3 * b + 2, divisor)
    return good


@njit
def _rows(kind, j, transform, wide):
    scratch = open_scratch(j)
    z = zero(kind)
    stored_wide = j.element == SAME
    blocks = (j.columns + BLOCK - 1) // BLOCK
    held = j.segments == 1 and j.columns <= j.held
    d, g, lanes = workspace(scratch, kind, BLOCK), workspace(scratch, kind, BLOCK), workspace(scratch, kind, LANES)
    x, y = empty(scratch, BLOCK, np.uint32), empty(scratch, BLOCK if wide else 0, np.uint32)
    w = workspace(scratch, kind, j.columns if held else int64(BLOCK))
    buffers = (d, g, x, y, w, lanes)
    sums, identities = empty(scratch, LANES, np.float64), empty(scratch, 1, np.uint64)
    own = empty(scratch, 3 * blocks if j.segments == 1 else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    for i in range(uint64(BLOCK)):
        g[i] = z
    key, mask = draw_key(j.seed, j.draw)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            nodes = address_of(own) if j.segments == 1 else j.node_s + 24 * blocks * (row - j.first_row)
            address, target = row_address(j, row), out_address(j, row)
            identities[0] = uint64(row_id(j, row))
            temperature = row_temperature(j, row)
            wanted = row_wanted(j, row) and temperature > 0.0
            high64, low64 = scalar.scale(temperature if wanted else 1.0)
            factors = scalar.narrow(z, high64, low64)
            if j.phase == 0 and wanted:
                for b in range(first, last):
                    start = b * BLOCK if held else int64(0)
                    m, top, total = _block(
                        kind, j, transform, wide, address, b, identities, key, mask, factors, buffers, start
                    )
                    store(float64(0), nodes, 3 * b, float64(m))
                    store(float64(0), nodes, 3 * b + 1, float64(top))
                    store(float64(0), nodes, 3 * b + 2, total)
                    if stored_wide and not held:
                        count = min(j.columns - b * BLOCK, int64(BLOCK))
                        at = target + b * BLOCK * j.out_column_stride
                        write_run(kind, j.element, 0, at, j.out_column_stride, j.item_size, count, w, 0, None)
            if j.phase == 0:
                if j.segments > 1 and atomic_add(j.pending + 8 * (row - j.first_row), int64(-1)) > 1:
                    continue
                if wanted and not _normalise(nodes, blocks, high64, low64, sums):
                    atomic_min(j.bad_row_at, row)
                if j.segments > 1:
                    continue
            for b in range(first, last):
                count = min(j.columns - b * BLOCK, int64(BLOCK))
                at = target + b * BLOCK * j.out_column_stride
                divisor = type(z)(load(float64(0), nodes, 3 * b + 2) if wanted else _NAN)
                if not wanted:
                    fill_run(kind, j.element, at, j.out_column_stride, count, _NAN)
                elif held:
                    write_run(
                        kind, j.element, j.streams, at, j.out_column_stride, j.item_size, count, w, b * BLOCK, divisor
                    )
                elif stored_wide:
                    divide_block(kind, at, j.out_column_stride, j.item_size, count, divisor)
                else:
                    _block(kind, j, transform, wide, address, b, identities, key, mask, factors, buffers, 0)
                    write_run(kind, j.element, j.streams, at, j.out_column_stride, j.item_size, count, w, 0, divisor)


@njit
def relaxed_float32(kind, job):
    """One worker, float32 arithmetic."""
    _rows(kind, job_at(job), transform_float32, False)


@njit
def relaxed_float64(kind, job):
    """One worker, float64 arithmetic."""
    _rows(kind, job_at(job), transform_float64, True)
