"""The vector-Jacobian product of a relaxed sample: sums over the row first, the gradient second.

With a = sum(y u) / sum(y), the gradient in the logits is y (u - a) / T, and that in T is -sum(ln y times it): the
perturbed logits are T ln y up to a constant, which cancels. Dividing by sum(y), which is 1 but for the rounding
of y, lets the gradient sum to 0 even for half precision. Sums are float64, in the lanes of `blocks`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.bits import fma
from .._scalar.blocks import LANES
from .._scalar.limits import BLOCK
from .blocks import count_blocks, halve
from .memory import load, store
from .records import row_address, row_and_segment, row_temperature
from .relaxed import is_last_segment, nodes_of_row
from .relaxed_short import row_sums
from .runs import block_run, read_run, write_run
from .scratch import empty, fill, lacks_scratch, open_scratch, workspace
from .signatures import ShortVjp, Vjp
from .tiles import read_tile, write_tile
from .workers import each_item, each_tile


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
def _total(nodes, which, blocks, lanes):
    """The sum over blocks of one of their numbers."""
    fill(lanes, 0, LANES, 0.0)
    for b in range(blocks):
        lanes[uint64(b) % uint64(LANES)] += load(float64(0), nodes, 3 * b + which)
    halve(lanes, min(uint64(LANES), uint64(blocks)))
    return lanes[0]


class _Arrays(NamedTuple):
    y: Any
    u: Any
    logs: Any
    products: Any
    totals: Any
    own: Any  # three numbers a block


@inlined
def _read(kind, p, row, block, arrays):
    """A block of the samples and of their cotangents; how many columns."""
    run = block_run(p.y, row_address(p.y, row), block)
    read_run(kind, run, arrays.y)
    read_run(kind, block_run(p.cotangent, row_address(p.cotangent, row), block), arrays.u)
    return run.columns


@inlined
def _item(kind, work, p, item, arrays):
    y, u, logs, products, totals, own = arrays
    row, segment = row_and_segment(p.split, p.y.rows, item)
    blocks = count_blocks(p.y.columns)
    first = segment * p.split.segment_blocks
    last = min(first + p.split.segment_blocks, blocks)
    nodes = nodes_of_row(p, p.y.columns, row, own)
    rate = _rate(row_temperature(p.temperatures, row))
    count = int64(0)
    alone = p.split.segments == 1
    if p.blocks.phase == 0:
        for b in range(first, last):
            count = _read(kind, p, row, b, arrays)
            product, total = _sums(y, u, count, products, totals)
            store(float64(0), nodes, 3 * b, product)
            store(float64(0), nodes, 3 * b + 1, total)
        if not alone:
            return
    mean = _total(nodes, 0, blocks, products) / _total(nodes, 1, blocks, products)
    for b in range(first, last):
        if not alone or blocks > 1:  # a lone block is still there
            count = _read(kind, p, row, b, arrays)
        if p.in_temperature == 0:
            _gradient(y, u, count, mean, rate)
        else:
            store(float64(0), nodes, 3 * b + 2, _both_gradients(y, u, count, mean, rate, logs, products))
        write_run(kind, block_run(p.out, row_address(p.out, row), b), p.nontemporal, u, 0, None)
    if p.in_temperature != 0 and is_last_segment(p, row):
        store(float64(0), p.in_temperature, row, _total(nodes, 2, blocks, products))


@njit
def vjp(kind, work, p: Vjp):
    """One worker: take segments until none is left."""
    scratch = open_scratch(work)
    arrays = _Arrays(
        workspace(scratch, kind, BLOCK),
        workspace(scratch, kind, BLOCK),
        workspace(scratch, kind, LANES),
        empty(scratch, LANES, np.float64),
        empty(scratch, LANES, np.float64),
        empty(scratch, 3 * count_blocks(p.y.columns) if p.split.segments == 1 else 0, np.float64),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)


class _Tile(NamedTuple):
    y: Any
    u: Any
    logs: Any
    products: Any
    sums: Any
    mean: Any
    rate: Any


@njit
def _gradient_across(columns, width, tile):
    """`_gradient` of short rows."""
    y, u, mean, rate = tile.y, tile.u, tile.mean, tile.rate
    for c in range(uint64(columns)):
        for i in range(width):
            at = c * width + i
            u[at] = type(u[at])(relaxed.gradient(float64(y[at]), float64(u[at]), mean[i], rate[i]))


@njit
def _both_gradients_across(columns, width, tile):
    """`_both_gradients` of short rows, except for the sum over a row."""
    y, u, logs, products, mean, rate = tile.y, tile.u, tile.logs, tile.products, tile.mean, tile.rate
    for c in range(uint64(columns)):
        for i in range(width):
            logs[i] = scalar.finite_log(y[c * width + i])
        for i in range(width):
            at = c * width + i
            gradient = relaxed.gradient(float64(y[at]), float64(u[at]), mean[i], rate[i])
            u[at] = type(u[at])(gradient)
            products[at] = fma(-float64(logs[i]), gradient, 0.0)  # a zero is +0, as in the lanes of long rows


@inlined
def _tile(kind, work, p, first, rows, tile):
    y, u, _, products, sums, mean, rate = tile
    width, columns = uint64(p.width), p.y.columns
    if p.temperatures.each != 0:
        for i in range(uint64(rows)):
            rate[i] = _rate(row_temperature(p.temperatures, first + int64(i)))
    read_tile(kind, p.y, first, rows, width, y)
    read_tile(kind, p.cotangent, first, rows, width, u)
    for i in range(uint64(columns) * width):
        products[i] = float64(y[i]) * float64(u[i])
    row_sums(products, columns, width, sums)
    for i in range(width):
        mean[i] = sums[i] + 0.0
    row_sums(y, columns, width, sums)
    for i in range(width):
        mean[i] /= sums[i]
    if p.in_temperature == 0:
        _gradient_across(columns, width, tile)
    else:
        _both_gradients_across(columns, width, tile)
        row_sums(products, columns, width, sums)
        for i in range(uint64(rows)):
            store(float64(0), p.in_temperature, first + int64(i), sums[i])
    write_tile(kind, p.out, first, rows, width, u)


@njit
def vjp_short(kind, work, p: ShortVjp):
    """One worker for short rows: take tiles until none is left."""
    scratch = open_scratch(work)
    width = uint64(p.width)
    size = uint64(p.y.columns) * width
    tile = _Tile(
        workspace(scratch, kind, size),
        workspace(scratch, kind, size),
        workspace(scratch, kind, width),
        empty(scratch, size, np.float64),
        empty(scratch, size, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
    )
    if lacks_scratch(work, scratch):
        return
    one = _rate(p.temperatures.common if p.temperatures.each == 0 else 1.0)
    for i in range(width):
        tile.rate[i] = one
    each_tile(kind, work, p, p.y.rows, _tile, tile)
