"""Gumbel noise into memory: words first, logarithms second, the rare refinement last.

Filling a buffer with words and transforming it afterwards beats one fused loop (0.98 against 0.58 G/s a core).
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint32, uint64

from .._jit import njit
from .._scalar.address import NOISE, REFINEMENT, SPAWN, block_words, draw_key, noise_word
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import (
    REFINE,
    gumbel_begun_float32,
    gumbel_ended_float32,
    gumbel_float64,
    gumbel_refined_float32,
    needs_refinement,
)
from .ahead import ASKS, BURST, ask_later
from .job import job_at, row_address
from .memory import atomic_add, opaque, store, zero
from .runs import stream_run
from .scratch import address_of, empty, lacks_scratch, local, open_scratch, tail, workspace
from .tiles import write_noise

#: Columns of a row made at a time.
TILE = 4096
_STRETCH = 1024
#: How far ahead noise asks, in blocks: 1 and 4 do as well.
_BLOCKS = 2
_GROUP = 32


@njit
def fill_noise(x, count, column, sample, row, tag, key, mask):
    """Words of columns column .. column + count - 1 of one row; column and the length of x are multiples of 4."""
    four = uint64(4)
    for g in range((uint64(count) + uint64(3)) // four):
        x0, x1, x2, x3 = block_words((uint64(column) // four) + g, sample, row, tag, key, mask)
        at = four * g
        x[at] = uint32(x0)
        x[at + uint64(1)] = uint32(x1)
        x[at + uint64(2)] = uint32(x2)
        x[at + uint64(3)] = uint32(x3)


@njit
def fill_noise_and_ask(address, size, x, count, column, sample, row, key, mask):
    """`fill_noise` for a block, and meanwhile ask for the one `_BLOCKS` behind `address`, unless that is 0.

    Its elements have `size` bytes.
    """
    asks = ASKS and address != 0
    step = int64(BURST) // size if asks else int64(count)
    for first in range(0, count, step):
        if asks:
            ask_later(address + (_BLOCKS * BLOCK + first) * size)
        fill_noise(
            tail(x, first), min(step, count - first), column + uint64(first), sample, row, uint64(NOISE), key, mask
        )


@njit
def fill_across(x, columns, identities, width, sample, tag, key, mask):
    """x[column * width + i] = word of row identities[i]: short rows, transposed."""
    four = uint64(4)
    for g in range((uint64(columns) + uint64(3)) // four):
        at = opaque(four * g * uint64(width))  # 0.9 against 3.6 ns a word
        for i in range(uint64(width)):
            x0, x1, x2, x3 = block_words(g, uint64(sample), identities[i], tag, key, mask)
            x[at + i] = uint32(x0)
            x[at + uint64(width) + i] = uint32(x1)
            x[at + uint64(2) * uint64(width) + i] = uint32(x2)
            x[at + uint64(3) * uint64(width) + i] = uint32(x3)


@njit
def transform_float32(kind, target, x, y, count, loc, scale, tag, key, mask, column, identities, width):
    """Noise of `count` words into the run at `target`.

    Words are those of row identities[0] from `column` on, or, where width is not 0, laid out as in `fill_across`.
    """
    begun = local(_STRETCH, np.float32)
    for first in range(uint64(0), uint64(count), uint64(_STRETCH)):
        n = min(uint64(_STRETCH), uint64(count) - first)
        if _transform_stretch(kind, target, x, first, n, loc, scale, begun):
            # one word in 2048 is to be refined: find its neighbourhood before looking at single words
            for start in range(first, first + n, uint64(_GROUP)):
                end = min(start + uint64(_GROUP), first + n)
                if _any_to_refine(x, start, end - start):
                    _refine(kind, target, x, start, end, loc, scale, tag, key, mask, column, identities, width)


@njit
def _transform_stretch(kind, target, x, start, count, loc, scale, begun):
    """Unrefined noise of words start ..., and whether any of them is to be refined."""
    nearest = uint32(0xFFFFFFFF)
    # Two loops: with both logarithms in one, the chain of dependent operations is longer than what an AVX2 core
    # can overlap (1.33 against 1.03 ns a value there).
    for i in range(uint64(count)):
        begun[i] = gumbel_begun_float32(x[start + i])
        nearest = min(nearest, uint32(x[start + i] + uint32(REFINE)))
    if loc == 0 and scale == 1:
        for i in range(uint64(count)):
            store(kind, target, int64(start + i), gumbel_ended_float32(x[start + i], begun[i]))
    else:
        for i in range(uint64(count)):
            store(kind, target, int64(start + i), gumbel_ended_float32(x[start + i], begun[i]) * scale + loc)
    return nearest < uint32(2 * REFINE)


@njit
def _any_to_refine(x, start, count):
    nearest = uint32(0xFFFFFFFF)
    for i in range(count):
        nearest = min(nearest, uint32(x[start + i] + uint32(REFINE)))
    return nearest < uint32(2 * REFINE)


@njit
def _refine(kind, target, x, start, end, loc, scale, tag, key, mask, column, identities, width):
    for i in range(start, end):
        if needs_refinement(x[i]):
            g = _refined(x[i], i, tag, key, mask, column, identities, width)
            store(kind, target, int64(i), g * scale + loc)


@njit
def _refined(word, i, tag, key, mask, column, identities, width):
    c, r = (uint64(column) + i, identities[0]) if width == 0 else (i // width, identities[i % width])
    return gumbel_refined_float32(uint64(word), noise_word(c, uint64(0), r, tag, key, mask))


@njit
def transform_float64(kind, target, x, y, count, loc, scale, tag, key, mask, column, identities, width):
    """Noise of `count` words x with refinements y."""
    for i in range(uint64(count)):
        store(kind, target, int64(i), gumbel_float64(uint64(x[i]), uint64(y[i])) * scale + loc)


@njit
def _long_rows(kind, j, transform, wide, x, y, g, identities):
    loc, scale = type(zero(kind))(j.loc), type(zero(kind))(j.scale)
    key, mask = draw_key(j.seed, j.draw)
    tag = uint64(REFINEMENT)
    tiles = (j.columns + TILE - 1) // TILE
    contiguous = j.column_stride == j.item_size
    while True:
        item = atomic_add(j.counter_at, int64(1))
        if item >= j.end_item:
            break
        row = item // tiles
        column = (item - row * tiles) * TILE
        count = min(j.columns - column, int64(TILE))
        identity = uint64(row)
        identities[0] = identity
        fill_noise(x, count, column, uint64(0), identity, uint64(NOISE), key, mask)
        if wide:
            fill_noise(y, count, column, uint64(0), identity, uint64(REFINEMENT), key, mask)
        address = row_address(j, row) + column * j.column_stride
        if contiguous and j.streams == 0:
            transform(kind, address, x, y, count, loc, scale, tag, key, mask, uint64(column), identities, uint64(0))
        else:
            at = address_of(g)
            transform(zero(kind), at, x, y, count, loc, scale, tag, key, mask, uint64(column), identities, uint64(0))
            if contiguous:
                stream_run(kind, address, count, g, int64(0), None)
            else:
                for i in range(count):
                    store(kind, address + int64(i) * j.column_stride, int64(0), g[uint64(i)])


@njit
def _short_rows(kind, j, transform, wide, x, y, g, identities):
    loc, scale = type(zero(kind))(j.loc), type(zero(kind))(j.scale)
    key, mask = draw_key(j.seed, j.draw)
    tag = uint64(REFINEMENT)
    width = uint64(j.segment_blocks)
    words = (uint64(j.columns) + uint64(3)) // uint64(4) * uint64(4) * width
    at = address_of(g)
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        for i in range(width):
            identities[i] = uint64(first) + i
        fill_across(x, j.columns, identities, width, uint64(0), uint64(NOISE), key, mask)
        if wide:
            fill_across(y, j.columns, identities, width, uint64(0), uint64(REFINEMENT), key, mask)
        transform(zero(kind), at, x, y, words, loc, scale, tag, key, mask, uint64(0), identities, width)
        write_noise(kind, j, first, rows, width, g)


@njit
def _rows(kind, j, transform, wide):
    scratch = open_scratch(j)
    short = j.segment_blocks > 0  # a tile of so many rows
    size = (j.columns + 3) // 4 * 4 * j.segment_blocks if short else TILE
    x, y = empty(scratch, size, np.uint32), empty(scratch, size if wide else 0, np.uint32)
    g = workspace(scratch, kind, size if short or j.column_stride != j.item_size or j.streams != 0 else 0)
    identities = empty(scratch, j.segment_blocks if short else int64(1), np.uint64)
    if lacks_scratch(j, scratch):
        return
    if short:
        _short_rows(kind, j, transform, wide, x, y, g, identities)
    else:
        _long_rows(kind, j, transform, wide, x, y, g, identities)


@njit
def noise_float32(kind, job):
    """One worker: float32 noise, rounded to the dtype of `kind`."""
    _rows(kind, job_at(job), transform_float32, False)


@njit
def noise_float64(kind, job):
    """One worker: float64 noise."""
    _rows(kind, job_at(job), transform_float64, True)


@njit
def spawn_seeds(job):
    """Fill the run of `rows` uint64 at `array` with seeds: words 0 and 1 of block i under the tag SPAWN."""
    j = job_at(job)
    key, mask = draw_key(j.seed, j.draw)
    for i in range(j.rows):
        x0, x1, _, _ = block_words(uint64(i), uint64(0), uint64(0), uint64(SPAWN), key, mask)
        store(int64(0), j.array, int64(i), int64((x0 << uint64(32)) | x1))
