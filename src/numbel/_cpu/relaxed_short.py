"""Relaxed samples of short rows, many at a time; the arithmetic and its order are those of `relaxed`.

A row of up to 512 columns is a lone block, with no more columns than lanes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import NOISE, REFINEMENT, draw_key
from .._scalar.bits import larger
from .._scalar.blocks import LANES
from .memory import zero
from .noise import Words, fill_across, standard_law, transform_float32, transform_float64
from .records import row_address, row_id, row_temperature, row_wanted
from .results import note_bad
from .runs import block_run, fill_run
from .scratch import address_of, empty, lacks_scratch, open_scratch, workspace
from .signatures import ShortRelaxing
from .tiles import read_tile, write_tile
from .workers import each_tile

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


class _Arrays(NamedTuple):
    x: Any  # logits, then perturbed ones
    w: Any
    g: Any
    sums: Any
    largest: Any
    top: Any
    high: Any
    low: Any
    words: Any
    refinements: Any
    identities: Any


def _noise_maker(transform, wide):
    """What fills `g` with the noise of a tile: in float32 or in float64."""

    @inlined
    def make_noise(kind, p, first, rows, arrays):
        width, columns, identities = uint64(p.width), p.logits.columns, arrays.identities
        key, mask = draw_key(p.stream.seed, p.stream.draw)
        for i in range(width):
            identities[i] = uint64(row_id(p.stream, first + int64(i))) if i < uint64(rows) else uint64(0)
        fill_across(arrays.words, columns, identities, width, uint64(0), uint64(NOISE), key, mask)
        if wide:
            fill_across(arrays.refinements, columns, identities, width, uint64(0), uint64(REFINEMENT), key, mask)
        words = Words(arrays.words, arrays.refinements, identities, uint64(0), width, key, mask)
        transform(zero(kind), address_of(arrays.g), words, uint64(columns) * width, standard_law(zero(kind)))

    return make_noise


def _tile_maker(make_noise):
    @inlined
    def tile(kind, work, p, first, rows, arrays):
        z, width, columns = zero(kind), uint64(p.width), p.logits.columns
        x, w, g, sums, largest, top, high, low, _, _, _ = arrays
        read_tile(kind, p.logits, first, rows, width, x)
        if p.temperatures.each != 0:
            for i in range(uint64(rows)):
                temperature = row_temperature(p.temperatures, first + int64(i))
                high64, low64 = scalar.scale(temperature if temperature > 0.0 else 1.0)
                high[i], low[i] = scalar.narrow(z, high64, low64)
        _maxima(x, columns, width, largest)
        if p.noise != 0:
            make_noise(kind, p, first, rows, arrays)
        _perturb(x, g, columns, width, largest)
        for i in range(width):
            top[i] = z
        _weights(x, columns, width, top, high, low, w)
        row_sums(w, columns, width, sums)
        proved = True
        for i in range(width):
            proved = proved and relaxed.in_range(sums[i])
        if not proved:
            _maxima(x, columns, width, top)
            for i in range(width):
                top[i] = z if relaxed.in_range(sums[i]) else top[i]
            _weights(x, columns, width, top, high, low, w)
            row_sums(w, columns, width, sums)
        _divide(w, columns, width, sums)
        write_tile(kind, p.out, first, rows, width, w)
        for i in range(rows):
            row = first + i
            bad = not abs(largest[uint64(i)]) < _INF
            if bad or p.row_mask != 0 or p.temperatures.each != 0:
                wanted = row_wanted(p.row_mask, row) and row_temperature(p.temperatures, row) > 0.0
                if bad or not wanted:
                    fill_run(kind, block_run(p.out, row_address(p.out, row), int64(0)), _NAN)
                if bad and wanted:
                    note_bad(work, row)

    return tile


_tile_float32 = _tile_maker(_noise_maker(transform_float32, False))
_tile_float64 = _tile_maker(_noise_maker(transform_float64, True))


@inlined
def _short(kind, work, p, tile, wide):
    """Take tiles until none is left."""
    scratch = open_scratch(work)
    z, width = zero(kind), uint64(p.width)
    size = uint64(p.logits.columns) * width
    padded = (uint64(p.logits.columns) + uint64(3)) // uint64(4) * uint64(4) * width
    arrays = _Arrays(
        workspace(scratch, kind, size),
        workspace(scratch, kind, size),
        workspace(scratch, kind, padded),
        workspace(scratch, kind, size),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        empty(scratch, padded, np.uint32),
        empty(scratch, padded if wide else uint64(0), np.uint32),
        empty(scratch, width, np.uint64),
    )
    if lacks_scratch(work, scratch):
        return
    for i in range(padded):
        arrays.g[i] = z
    one_high, one_low = scalar.scale(p.temperatures.common if p.temperatures.each == 0 else 1.0)
    for i in range(width):
        arrays.high[i], arrays.low[i] = scalar.narrow(z, one_high, one_low)
    each_tile(kind, work, p, p.logits.rows, tile, arrays)


@njit
def relaxed_short_float32(kind, work, p: ShortRelaxing):
    """One worker, float32 arithmetic."""
    _short(kind, work, p, _tile_float32, False)


@njit
def relaxed_short_float64(kind, work, p: ShortRelaxing):
    """One worker, float64 arithmetic."""
    _short(kind, work, p, _tile_float64, True)
