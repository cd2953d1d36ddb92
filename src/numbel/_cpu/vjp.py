"""The vector-Jacobian product of a relaxed sample: sums over the row first, the gradient second.

With a = sum(y u) / sum(y), the gradient in the logits is y (u - a) / T, and that in T is -sum(ln y times it): the
perturbed logits are T ln y up to a constant, which cancels. Dividing by sum(y), which is 1 but for the rounding
of y, lets the gradient sum to 0 even for half precision. Sums are float64, in the lanes of `blocks`.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.bits import fma
from .._scalar.blocks import BLOCK, LANES
from .blocks import halve
from .job import cotangent_address, job_at, out_address, row_address, row_and_segment, row_temperature, take_items
from .memory import atomic_add, load, store
from .relaxed_short import row_sums
from .runs import read_run, write_run
from .scratch import address_of, empty, fill, lacks_scratch, open_scratch, workspace
from .tiles import read_cotangent, read_logits, write_out


@njit
def _sums(y, u, count, products, totals):
    """(sum of y u, sum of y) of a block."""
    first = min(uint64(count), uint64(LANES))
    for i in range(first):
        products[i] = float64(y[i]) * float64(u[i])
        totals[i] = float64(y[i])
    for start in range(uint64(LANES), uint64(count), uint64(LANES)):
        for i in range(min(uint64(LANES), uint64(count) - start)):
            v = float64(y[start + i])
            products[i] = fma(v, float64(u[start + i]), products[i])
            totals[i] += v
    halve(products, first)
    halve(totals, first)
    return products[0], totals[0]


@njit
def _gradient(y, u, count, mean, rate):
    """The gradient in the logits, in place of u."""
    for i in range(uint64(count)):
        u[i] = type(u[i])(relaxed.gradient(float64(y[i]), float64(u[i]), mean, rate))


@njit
def _both_gradients(y, u, count, mean, rate, logs, lanes):
    """The same, and minus the sum of ln(y) times it (where y is 0, so is that)."""
    fill(lanes, 0, LANES, 0.0)
    for start in range(uint64(0), uint64(count), uint64(LANES)):
        n = min(uint64(LANES), uint64(count) - start)
        for i in range(n):
            logs[i] = scalar.finite_log(y[start + i])
        for i in range(n):
            gradient = relaxed.gradient(float64(y[start + i]), float64(u[start + i]), mean, rate)
            u[start + i] = type(u[i])(gradient)
            lanes[i] = fma(-float64(logs[i]), gradient, lanes[i])
    halve(lanes, min(uint64(count), uint64(LANES)))
    return lanes[0]


@inlined
def _rate(temperature):
    """1 / T; a row of temperature 0 does not depend on its logits."""
    return 1.0 / temperature if temperature > 0.0 else 0.0


@njit
def vjp(kind, job):
    """One worker: take segments until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    y, u = workspace(scratch, kind, BLOCK), workspace(scratch, kind, BLOCK)
    logs, products, totals = (
        workspace(scratch, kind, LANES),
        empty(scratch, LANES, np.float64),
        empty(scratch, LANES, np.float64),
    )
    own = empty(scratch, 3 * blocks if j.segments == 1 else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            nodes = address_of(own) if j.segments == 1 else j.node_s + 24 * blocks * (row - j.first_row)
            sources = row_address(j, row), cotangent_address(j, row)
            rate = _rate(row_temperature(j, row))
            for phase in range(j.phase, j.phase + 1 if j.segments > 1 else 2):
                if phase == 1:
                    product, total = _total(nodes, 0, blocks, products), _total(nodes, 1, blocks, products)
                for b in range(first, last):
                    count = min(j.columns - b * BLOCK, int64(BLOCK))
                    if phase == 0 or blocks > 1:
                        at = sources[0] + b * BLOCK * j.column_stride
                        read_run(kind, j.element, at, j.column_stride, j.item_size, count, y)
                        at = sources[1] + b * BLOCK * j.cotangent_column_stride
                        read_run(kind, j.element, at, j.cotangent_column_stride, j.item_size, count, u)
                    if phase == 0:
                        block_product, block_total = _sums(y, u, count, products, totals)
                        store(float64(0), nodes, 3 * b, block_product)
                        store(float64(0), nodes, 3 * b + 1, block_total)
                        continue
                    if j.row_result == 0:
                        _gradient(y, u, count, product / total, rate)
                    else:
                        in_block = _both_gradients(y, u, count, product / total, rate, logs, products)
                        store(float64(0), nodes, 3 * b + 2, in_block)
                    at = out_address(j, row) + b * BLOCK * j.out_column_stride
                    write_run(kind, j.element, j.streams, at, j.out_column_stride, j.item_size, count, u, 0, None)
                if phase == 1 and j.row_result != 0:
                    if j.segments > 1 and atomic_add(j.pending + 8 * (row - j.first_row), int64(-1)) > 1:
                        continue
                    store(float64(0), j.row_result, row, _total(nodes, 2, blocks, products))


@njit
def _total(nodes, which, blocks, lanes):
    """The sum over blocks of one of their numbers."""
    fill(lanes, 0, LANES, 0.0)
    for b in range(blocks):
        lanes[uint64(b) % uint64(LANES)] += load(float64(0), nodes, 3 * b + which)
    halve(lanes, min(uint64(LANES), uint64(blocks)))
    return lanes[0]


@njit
def _gradient_across(y, u, columns, width, mean, rate):
    """`_gradient` of short rows."""
    for c in range(uint64(columns)):
        for i in range(width):
            at = c * width + i
            u[at] = type(u[at])(relaxed.gradient(float64(y[at]), float64(u[at]), mean[i], rate[i]))


@njit
def _both_gradients_across(y, u, columns, width, mean, rate, logs, products):
    """`_both_gradients` of short rows, except for the sum over a row."""
    for c in range(uint64(columns)):
        for i in range(width):
            logs[i] = scalar.finite_log(y[c * width + i])
        for i in range(width):
            at = c * width + i
            gradient = relaxed.gradient(float64(y[at]), float64(u[at]), mean[i], rate[i])
            u[at] = type(u[at])(gradient)
            products[at] = fma(-float64(logs[i]), gradient, 0.0)  # a zero is +0, as in the lanes of long rows


@njit
def vjp_short(kind, job):
    """One worker for short rows: take tiles of `segment_blocks` rows (the width) until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    width = uint64(j.segment_blocks)
    size = uint64(j.columns) * width
    y, u, logs = workspace(scratch, kind, size), workspace(scratch, kind, size), workspace(scratch, kind, width)
    products, sums = empty(scratch, size, np.float64), empty(scratch, size, np.float64)
    mean, rate = empty(scratch, width, np.float64), empty(scratch, width, np.float64)
    if lacks_scratch(j, scratch):
        return
    one = _rate(j.temperature if j.temperatures == 0 else 1.0)
    for i in range(width):
        rate[i] = one
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        if j.temperatures != 0:
            for i in range(uint64(rows)):
                rate[i] = _rate(row_temperature(j, first + int64(i)))
        read_logits(kind, j, first, rows, width, y)
        read_cotangent(kind, j, first, rows, width, u)
        for i in range(size):
            products[i] = float64(y[i]) * float64(u[i])
        row_sums(products, j.columns, width, sums)
        for i in range(width):
            mean[i] = sums[i] + 0.0
        row_sums(y, j.columns, width, sums)
        for i in range(width):
            mean[i] /= sums[i]
        if j.row_result == 0:
            _gradient_across(y, u, j.columns, width, mean, rate)
        else:
            _both_gradients_across(y, u, j.columns, width, mean, rate, logs, products)
            row_sums(products, j.columns, width, sums)
            for i in range(uint64(rows)):
                store(float64(0), j.row_result, first + int64(i), sums[i])
        write_out(kind, j, first, rows, width, u)
