"""Relaxed samples of long rows: a block's weights from one visit, normalised once the row's sum is known.

A row of at most `max_cached_columns` columns is done in one go: its weights wait in cache (8 % faster at 2^20 than
waiting in the output). A longer one keeps them in the output, or, where that is of half precision, makes them a second
time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import REFINEMENT
from .._scalar.bits import fma
from .._scalar.blocks import LANES
from .._scalar.limits import BLOCK
from .blocks import block_max, count_blocks, halve, row_stream, scale_of
from .categorical import segment_blocks
from .memory import atomic_add, load, store, zero
from .noise import Words, fill_noise, fill_noise_and_ask, standard_law, transform_float32, transform_float64
from .parameters import SAME
from .records import row_address, row_and_segment, row_temperature, row_wanted
from .results import note_bad
from .runs import block_run, fill_run, read_run, write_run
from .scratch import address_of, empty, fill, lacks_scratch, open_scratch, workspace
from .signatures import Relaxing
from .workers import each_item

_INF = math.inf
_NAN = math.nan


@inlined
def nodes_of_row(p, columns, row, own):
    """Address of what is kept of a row's blocks: in the worker's own array where the row is one segment."""
    if p.split.segments == 1:
        return address_of(own)
    return p.blocks.nodes + 24 * count_blocks(columns) * (row - p.blocks.first_row)


@inlined
def is_last_segment(p, row):
    """Whether all other segments of a row are done."""
    return p.split.segments == 1 or atomic_add(p.split.pending + 8 * (row - p.blocks.first_row), int64(-1)) <= 1


@njit
def divide_block(kind, run, divisor):
    """Divide what stands there, in the dtype of the arithmetic."""
    if run.stride == run.item_size:
        for i in range(uint64(run.columns)):
            store(kind, run.address, int64(i), load(kind, run.address, int64(i)) / divisor)
    else:
        for i in range(uint64(run.columns)):
            at = run.address + int64(i) * run.stride
            store(kind, at, int64(0), load(kind, at, int64(0)) / divisor)


class _Arrays(NamedTuple):
    d: Any  # logits of a block
    g: Any  # their noise
    x: Any  # its first words
    y: Any  # its second words
    w: Any  # weights
    lanes: Any
    sums: Any
    identities: Any
    own: Any  # three numbers a block


@njit
def _largest(d, g, count, largest):
    """The largest perturbed logit."""
    top = scalar.ordered(d[0] - type(d[0])(_INF))
    for i in range(uint64(count)):
        k = scalar.ordered(relaxed.perturbed(d[i], largest, g[i]))
        top = k if k > top else top
    return scalar.from_ordered(top)


@njit
def _weights(arrays, count, m, top, scale, first):
    """w[first + i] = weight of a perturbed logit relative to `top`; their sum in the canonical order."""
    zero = m - m
    fill(arrays.lanes, 0, LANES, zero)
    for start in range(uint64(0), uint64(count), uint64(LANES)):
        at = uint64(first) + start
        for i in range(min(uint64(LANES), uint64(count) - start)):
            p = relaxed.perturbed(arrays.d[start + i], m, arrays.g[start + i])
            v = scalar.weight(p - top, scale.high, scale.low, zero)
            arrays.w[at + i] = v
            arrays.lanes[i] += v
    halve(arrays.lanes, min(uint64(count), uint64(LANES)))
    return arrays.lanes[0]


def _block_maker(transform, wide):
    """What makes the weights of a block: in float32 or in float64."""

    @njit
    def block(kind, p, row, number, scale, arrays, first):
        """Weights of a block from w[first] on; its m, D and S: NaN in a bad block, 0 where nothing is possible."""
        run = block_run(p.logits, row_address(p.logits, row), number)
        count = run.columns
        read_run(kind, run, arrays.d)
        m, nan = block_max(kind, address_of(arrays.d), count)
        if nan or abs(m) == _INF:
            # also in a bad block: what lies there may be a NaN with low bits, which bfloat16 rounds to 0
            fill(arrays.w, first, first + count, zero(kind))
            return m, m, 0.0 if m == -_INF and not nan else _NAN
        if p.noise != 0:
            column, stream = number * BLOCK, row_stream(p.stream, row)
            arrays.identities[0] = stream.row
            ahead = run.address if run.stride == run.item_size else int64(0)
            fill_noise_and_ask(ahead, run.item_size, arrays.x, count, column, 0, stream)
            if wide:
                fill_noise(arrays.y, count, column, 0, REFINEMENT, stream)
            words = Words(arrays.x, arrays.y, arrays.identities, uint64(column), uint64(0), stream.key, stream.mask)
            transform(zero(kind), address_of(arrays.g), words, count, standard_law(zero(kind)))
        top = m - m
        total = _weights(arrays, count, m, top, scale, first)
        if not relaxed.in_range(total):
            top = _largest(arrays.d, arrays.g, count, m)
            total = _weights(arrays, count, m, top, scale, first)
        return m, top, float64(total)

    return block


_block_float32 = _block_maker(transform_float32, False)
_block_float64 = _block_maker(transform_float64, True)


@njit
def _normalise(nodes, blocks, scale, lanes):
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
        factor = 0.0
        if total > 0.0:
            factor = relaxed.block_scale(load(float64(0), nodes, 3 * b + 1), top, scale.high64, scale.low64)
        store(float64(0), nodes, 3 * b, factor)
        lane = uint64(b) % uint64(LANES)
        lanes[lane] = fma(total, factor, lanes[lane])
    halve(lanes, uint64(LANES))
    for b in range(blocks):
        # a division by the sum itself makes a lone possible category exactly 1
        divisor = lanes[0] / load(float64(0), nodes, 3 * b) if good else _NAN
        store(float64(0), nodes, 3 * b + 2, divisor)
    return good


@inlined
def _weigh(kind, p, row, segment, scale, arrays, block, kept):
    """The first visit: three numbers of each block; the weights stay in `w` if `kept`, or in the output, if it can."""
    nodes, address = nodes_of_row(p, p.logits.columns, row, arrays.own), row_address(p.out, row)
    first, last = segment_blocks(p, segment)
    for b in range(first, last):
        start = b * BLOCK if kept else int64(0)
        m, top, total = block(kind, p, row, b, scale, arrays, start)
        store(float64(0), nodes, 3 * b, float64(m))
        store(float64(0), nodes, 3 * b + 1, float64(top))
        store(float64(0), nodes, 3 * b + 2, total)
        if p.out.format == SAME and not kept:
            write_run(kind, block_run(p.out, address, b), 0, arrays.w, 0, None)


@inlined
def _write(kind, p, row, segment, scale, arrays, block, kept):
    """The second visit: what was weighed, divided."""
    nodes, address = nodes_of_row(p, p.logits.columns, row, arrays.own), row_address(p.out, row)
    first, last = segment_blocks(p, segment)
    for b in range(first, last):
        run = block_run(p.out, address, b)
        divisor = type(zero(kind))(load(float64(0), nodes, 3 * b + 2))
        if kept:
            write_run(kind, run, p.nontemporal, arrays.w, b * BLOCK, divisor)
        elif p.out.format == SAME:
            divide_block(kind, run, divisor)
        else:
            block(kind, p, row, b, scale, arrays, 0)
            write_run(kind, run, p.nontemporal, arrays.w, 0, divisor)


@inlined
def _fill_segment(kind, p, row, segment):
    """NaN for a row that is masked out or of temperature 0."""
    address = row_address(p.out, row)
    first, last = segment_blocks(p, segment)
    for b in range(first, last):
        fill_run(kind, block_run(p.out, address, b), _NAN)


def _item_maker(block):
    @inlined
    def body(kind, work, p, item, arrays):
        row, segment = row_and_segment(p.split, p.logits.rows, item)
        temperature = row_temperature(p.temperatures, row)
        wanted = row_wanted(p.row_mask, row) and temperature > 0.0
        kept = p.split.segments == 1 and p.logits.columns <= p.max_cached_columns
        scale = scale_of(kind, temperature if wanted else 1.0)
        if p.blocks.phase == 0:
            if wanted:
                _weigh(kind, p, row, segment, scale, arrays, block, kept)
            if not is_last_segment(p, row):
                return
            if wanted:
                columns = p.logits.columns
                nodes = nodes_of_row(p, columns, row, arrays.own)
                if not _normalise(nodes, count_blocks(columns), scale, arrays.sums):
                    note_bad(work, row)
            if p.split.segments > 1:
                return
        if wanted:
            _write(kind, p, row, segment, scale, arrays, block, kept)
        else:
            _fill_segment(kind, p, row, segment)

    return body


_item_float32, _item_float64 = _item_maker(_block_float32), _item_maker(_block_float64)


@inlined
def _rows(kind, work, p, item, wide):
    scratch = open_scratch(work)
    columns = p.logits.columns
    alone = p.split.segments == 1
    kept = alone and columns <= p.max_cached_columns
    arrays = _Arrays(
        workspace(scratch, kind, BLOCK),
        workspace(scratch, kind, BLOCK),
        empty(scratch, BLOCK, np.uint32),
        empty(scratch, BLOCK if wide else 0, np.uint32),
        workspace(scratch, kind, columns if kept else int64(BLOCK)),
        workspace(scratch, kind, LANES),
        empty(scratch, LANES, np.float64),
        empty(scratch, 1, np.uint64),
        empty(scratch, 3 * count_blocks(columns) if alone else 0, np.float64),
    )
    if lacks_scratch(work, scratch):
        return
    for i in range(uint64(BLOCK)):
        arrays.g[i] = zero(kind)
    each_item(kind, work, p, p.split.chunk_size, item, arrays)


@njit
def relaxed_float32(kind, work, p: Relaxing):
    """One worker, float32 arithmetic."""
    _rows(kind, work, p, _item_float32, False)


@njit
def relaxed_float64(kind, work, p: Relaxing):
    """One worker, float64 arithmetic."""
    _rows(kind, work, p, _item_float64, True)
