"""Perturbed logits given which of them is the largest: noise of its own, in float64 whatever the dtype."""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar.address import CONDITIONAL, CONDITIONAL_REFINEMENT, draw_key, noise_word
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import gumbel_float64
from .._scalar.relaxed import truncated
from .job import job_at, out_address, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_add, atomic_min, load
from .noise import fill_across, fill_noise
from .runs import below_top, fill_run, read_one, read_run, write_run
from .scratch import empty, lacks_scratch, open_scratch, workspace
from .tiles import read_logits, write_out

_INF = math.inf
_NAN = math.nan


@inlined
def _top(j, row, index, identity, key, mask):
    """The largest perturbed logit of a row: its logsumexp plus the noise of column `index`."""
    x = noise_word(uint64(index), uint64(0), identity, uint64(CONDITIONAL), key, mask)
    y = noise_word(uint64(index), uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask)
    return load(float64(0), j.row_result, row) + gumbel_float64(x, y)


@njit
def _good(kind, j, row):
    """Whether a row is wanted, its logsumexp finite and its index possible."""
    index = load(int64(0), j.given, row)
    if not row_wanted(j, row) or index < 0 or index >= j.columns:
        return False
    finite = abs(load(float64(0), j.row_result, row)) < _INF
    return finite and read_one(kind, j.element, row_address(j, row) + index * j.column_stride) != -_INF


@njit
def conditional(kind, job):
    """One worker: take segments until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    key, mask = draw_key(j.seed, j.draw)
    x, y = empty(scratch, BLOCK, np.uint32), empty(scratch, BLOCK, np.uint32)
    z, w = empty(scratch, BLOCK, np.float64), workspace(scratch, kind, BLOCK)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            address, target = row_address(j, row), out_address(j, row)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            index = load(int64(0), j.given, row)
            if not _good(kind, j, row):
                at = target + first * BLOCK * j.out_column_stride
                fill_run(kind, j.element, at, j.out_column_stride, min(last * BLOCK, j.columns) - first * BLOCK, _NAN)
                if row_wanted(j, row):
                    atomic_min(j.bad_row_at, row)
                continue
            identity = uint64(row_id(j, row))
            temperature = row_temperature(j, row)
            top = _top(j, row, index, identity, key, mask)
            limit = below_top(kind, j.element, top)
            for b in range(first, last):
                count = min(j.columns - b * BLOCK, int64(BLOCK))
                fill_noise(x, count, uint64(b) * uint64(BLOCK), uint64(0), identity, uint64(CONDITIONAL), key, mask)
                fill_noise(
                    y, count, uint64(b) * uint64(BLOCK), uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask
                )
                source = address + b * BLOCK * j.column_stride
                read_run(kind, j.element, source, j.column_stride, j.item_size, count, z)
                for i in range(uint64(count)):
                    z[i] = min(truncated(z[i] / temperature + gumbel_float64(uint64(x[i]), uint64(y[i])), top), limit)
                if b == index // BLOCK:
                    z[uint64(index - b * BLOCK)] = top
                at = target + b * BLOCK * j.out_column_stride
                for i in range(uint64(count)):
                    w[i] = type(w[i])(z[i])
                write_run(kind, j.element, j.streams, at, j.out_column_stride, j.item_size, count, w, 0, None)


@njit
def conditional_short(kind, job):
    """One worker for short rows: take tiles of `segment_blocks` rows (the width) until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    key, mask = draw_key(j.seed, j.draw)
    width = uint64(j.segment_blocks)
    size = uint64(j.columns) * width
    padded = (uint64(j.columns) + uint64(3)) // uint64(4) * uint64(4) * width
    x, z = workspace(scratch, kind, size), empty(scratch, size, np.float64)
    words, refinements = empty(scratch, padded, np.uint32), empty(scratch, padded, np.uint32)
    identities, good = empty(scratch, width, np.uint64), empty(scratch, width, np.uint8)
    top, limit, temperature = (
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
    )
    if lacks_scratch(j, scratch):
        return
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        read_logits(kind, j, first, rows, width, x)
        for i in range(width):
            row = first + int64(i)
            good[i] = i < uint64(rows) and _good(kind, j, row)
            identities[i] = uint64(row_id(j, row)) if i < uint64(rows) else uint64(0)
            temperature[i] = row_temperature(j, row) if i < uint64(rows) else 1.0
            top[i] = _top(j, row, load(int64(0), j.given, row), identities[i], key, mask) if good[i] else 0.0
            limit[i] = below_top(kind, j.element, top[i])
        fill_across(words, j.columns, identities, width, uint64(0), uint64(CONDITIONAL), key, mask)
        fill_across(refinements, j.columns, identities, width, uint64(0), uint64(CONDITIONAL_REFINEMENT), key, mask)
        for c in range(uint64(j.columns)):
            start = c * width
            for i in range(width):
                at = start + i
                g = gumbel_float64(uint64(words[at]), uint64(refinements[at]))
                z[at] = min(truncated(float64(x[at]) / temperature[i] + g, top[i]), limit[i])
        for i in range(uint64(rows)):
            row = first + int64(i)
            if good[i]:
                z[uint64(load(int64(0), j.given, row)) * width + i] = top[i]
                continue
            for c in range(uint64(j.columns)):
                z[c * width + i] = _NAN
            if row_wanted(j, row):
                atomic_min(j.bad_row_at, row)
        for i in range(size):
            x[i] = type(x[i])(z[i])
        write_out(kind, j, first, rows, width, x)
