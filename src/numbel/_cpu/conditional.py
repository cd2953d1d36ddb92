"""Perturbed logits given which of them is the largest: noise of its own, in float64 whatever the dtype."""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar.address import CONDITIONAL, CONDITIONAL_REFINEMENT, draw_key, noise_word
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import gumbel_float64
from .._scalar.relaxed import below, truncated
from .job import job_at, out_address, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_min, load, rounded, spacing, store, zero
from .noise import fill_noise
from .relaxed import fill_row

_INF = math.inf
_NAN = math.nan


@inlined
def _top(j, row, index, identity, key, mask):
    """The largest perturbed logit of a row: its logsumexp plus the noise of column `index`."""
    x = noise_word(uint64(index), uint64(0), identity, uint64(CONDITIONAL), key, mask)
    y = noise_word(uint64(index), uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask)
    return load(float64(0), j.row_result, row) + gumbel_float64(x, y)


@njit
def conditional(kind, job):
    """One worker: take segments until none is left."""
    j = job_at(job)
    key, mask = draw_key(j.seed, j.draw)
    x, y = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    z = np.empty(BLOCK, np.float64)
    blocks = (j.columns + BLOCK - 1) // BLOCK
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
            wanted = row_wanted(j, row)
            good = wanted and index >= 0 and index < j.columns and abs(load(float64(0), j.row_result, row)) < _INF
            if good:
                good = load(kind, address + index * j.column_stride, int64(0)) != -_INF
            if not good:
                at = target + first * BLOCK * j.out_column_stride
                fill_row(kind, at, j.out_column_stride, min(last * BLOCK, j.columns) - first * BLOCK, _NAN)
                if wanted:
                    atomic_min(j.bad_row_at, row)
                continue
            identity = uint64(row_id(j, row))
            temperature = row_temperature(j, row)
            top = _top(j, row, index, identity, key, mask)
            unit, smallest, most = spacing(kind)
            largest = float64(rounded(kind, type(zero(kind))(top)))
            limit = below(largest, unit, smallest) if abs(largest) < _INF else most
            for b in range(first, last):
                count = min(j.columns - b * BLOCK, int64(BLOCK))
                fill_noise(x, count, uint64(b) * uint64(BLOCK), uint64(0), identity, uint64(CONDITIONAL), key, mask)
                fill_noise(
                    y, count, uint64(b) * uint64(BLOCK), uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask
                )
                source = address + b * BLOCK * j.column_stride
                for i in range(uint64(count)):
                    z[i] = float64(load(kind, source + int64(i) * j.column_stride, int64(0))) / temperature
                for i in range(uint64(count)):
                    v = truncated(z[i] + gumbel_float64(uint64(x[i]), uint64(y[i])), top)
                    z[i] = v if v < limit else limit
                if b == index // BLOCK:
                    z[uint64(index - b * BLOCK)] = top
                at = target + b * BLOCK * j.out_column_stride
                for i in range(uint64(count)):
                    store(kind, at + int64(i) * j.out_column_stride, int64(0), type(zero(kind))(z[i]))
