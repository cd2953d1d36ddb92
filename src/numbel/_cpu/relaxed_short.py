"""Relaxed samples of short rows, many at a time; the arithmetic and its order are those of `relaxed`.

A row of up to 512 columns is a lone block, with no more columns than lanes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import int64, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import NOISE, REFINEMENT, draw_key
from .._scalar.bits import larger
from .._scalar.blocks import LANES
from .job import job_at, out_address, row_id, row_temperature, row_wanted
from .memory import atomic_add, atomic_min, zero
from .noise import fill_across, transform_float32, transform_float64
from .runs import fill_run
from .scratch import address_of, empty, lacks_scratch, open_scratch, workspace
from .tiles import read_logits, write_out

_INF = math.inf
_NAN = math.nan


@njit
def _maxima(x, columns, width, top):
    """top[i]: the largest of row i, or NaN if there is one."""
    for i in range(width):
        top[i] = x[i]
    for c in range(uint64(1), uint64(columns)):
        for i in range(width):
            top[i] = larger(top[i], x[c * width + i])


@njit
def _perturb(x, g, columns, width, largest):
    for c in range(uint64(columns)):
        for i in range(width):
            at = c * width + i
            x[at] = relaxed.perturbed(x[at], largest[i], g[at])


@njit
def _weights(x, columns, width, top, high, low, w):
    for c in range(uint64(columns)):
        for i in range(width):
            at = c * width + i
            w[at] = scalar.weight(x[at] - top[i], high[i], low[i], top[i] - top[i])


@njit
def row_sums(w, columns, width, sums):
    """sums[i]: the sum of row i in the dtype of `sums`, by halves over columns as in `blocks.halve`."""
    count = uint64(columns)
    h = uint64(LANES // 2)
    while h >= count and h > uint64(0):
        h >>= uint64(1)
    # a level is one run: a loop over columns around one over rows costs twice the time
    pairs, half = (count - h) * width if h > uint64(0) else uint64(0), h * width
    for i in range(pairs):
        sums[i] = type(sums[i])(w[i]) + type(sums[i])(w[i + half])
    for i in range(pairs, half if half > uint64(0) else width):
        sums[i] = type(sums[i])(w[i])
    half >>= uint64(1)
    while half >= width:
        for i in range(half):
            sums[i] += sums[i + half]
        half >>= uint64(1)


@njit
def _divide(w, columns, width, sums):
    for c in range(uint64(columns)):
        for i in range(width):
            w[c * width + i] /= sums[i]


@njit
def _short(kind, j, transform, wide):
    """Take tiles of `segment_blocks` rows (the width) until none is left."""
    scratch = open_scratch(j)
    z = zero(kind)
    width = uint64(j.segment_blocks)
    size = uint64(j.columns) * width
    padded = (uint64(j.columns) + uint64(3)) // uint64(4) * uint64(4) * width
    x, w, g, sums = (
        workspace(scratch, kind, size),
        workspace(scratch, kind, size),
        workspace(scratch, kind, padded),
        workspace(scratch, kind, size),
    )
    largest, top = workspace(scratch, kind, width), workspace(scratch, kind, width)
    high, low = workspace(scratch, kind, width), workspace(scratch, kind, width)
    words, refinements = empty(scratch, padded, np.uint32), empty(scratch, padded if wide else uint64(0), np.uint32)
    identities = empty(scratch, width, np.uint64)
    if lacks_scratch(j, scratch):
        return
    for i in range(padded):
        g[i] = z
    key, mask = draw_key(j.seed, j.draw)
    one_high, one_low = scalar.scale(j.temperature if j.temperatures == 0 else 1.0)
    for i in range(width):
        high[i], low[i] = scalar.narrow(z, one_high, one_low)
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        read_logits(kind, j, first, rows, width, x)
        if j.temperatures != 0:
            for i in range(uint64(rows)):
                temperature = row_temperature(j, first + int64(i))
                high64, low64 = scalar.scale(temperature if temperature > 0.0 else 1.0)
                high[i], low[i] = scalar.narrow(z, high64, low64)
        _maxima(x, j.columns, width, largest)
        if j.noise != 0:
            for i in range(width):
                identities[i] = uint64(row_id(j, first + int64(i))) if i < uint64(rows) else uint64(0)
            fill_across(words, j.columns, identities, width, uint64(0), uint64(NOISE), key, mask)
            if wide:
                fill_across(refinements, j.columns, identities, width, uint64(0), uint64(REFINEMENT), key, mask)
            transform(
                z, address_of(g), words, refinements, size, z, type(z)(1),
                uint64(REFINEMENT), key, mask, uint64(0), identities, width,
            )  # fmt: skip
        _perturb(x, g, j.columns, width, largest)
        for i in range(width):
            top[i] = z
        _weights(x, j.columns, width, top, high, low, w)
        row_sums(w, j.columns, width, sums)
        proved = True
        for i in range(width):
            proved = proved and relaxed.in_range(sums[i])
        if not proved:
            _maxima(x, j.columns, width, top)
            for i in range(width):
                top[i] = z if relaxed.in_range(sums[i]) else top[i]
            _weights(x, j.columns, width, top, high, low, w)
            row_sums(w, j.columns, width, sums)
        _divide(w, j.columns, width, sums)
        write_out(kind, j, first, rows, width, w)
        for i in range(rows):
            row = first + i
            bad = not abs(largest[uint64(i)]) < _INF
            if bad or j.row_mask != 0 or j.temperatures != 0:
                wanted = row_wanted(j, row) and row_temperature(j, row) > 0.0
                if bad or not wanted:
                    fill_run(kind, j.element, out_address(j, row), j.out_column_stride, j.columns, _NAN)
                if bad and wanted:
                    atomic_min(j.bad_row_at, row)


@njit
def relaxed_short_float32(kind, job):
    """One worker, float32 arithmetic."""
    _short(kind, job_at(job), transform_float32, False)


@njit
def relaxed_short_float64(kind, job):
    """One worker, float64 arithmetic."""
    _short(kind, job_at(job), transform_float64, True)
