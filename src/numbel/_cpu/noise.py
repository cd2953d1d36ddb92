"""Gumbel noise into memory: words first, logarithms second, the rare refinement last.

Filling a buffer with words and transforming it afterwards beats one fused loop (0.98 against 0.58 G/s a core).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint32, uint64

from .._jit import inlined, njit
from .._scalar.address import NOISE, REFINEMENT, SPAWN, block_words, draw_key, noise_word
from .._scalar.gumbel import (
    REFINE,
    gumbel_begun_float32,
    gumbel_ended_float32,
    gumbel_float64,
    gumbel_refined_float32,
    needs_refinement,
)
from .._scalar.limits import BLOCK
from .ahead import ASKS, BURST, ask_later
from .blocks import row_stream
from .memory import opaque, store, zero
from .records import row_address
from .runs import stream_run
from .scratch import address_of, empty, lacks_scratch, local, open_scratch, tail, workspace
from .signatures import TILE, Noise, Spawn
from .tiles import write_tile_of
from .workers import each_item, each_tile

_STRETCH = 1024
#: How far ahead noise asks, in blocks: 1 and 4 do as well.
_BLOCKS = 2
_GROUP = 32


@njit
def fill_noise(x, count, column, sample, tag, stream):
    """Words of columns column .. column + count - 1 of one row; column and the length of x are multiples of 4."""
    four = uint64(4)
    for g in range((uint64(count) + uint64(3)) // four):
        block = (uint64(column) // four) + g
        x0, x1, x2, x3 = block_words(block, uint64(sample), stream.row, uint64(tag), stream.key, stream.mask)
        at = four * g
        x[at] = uint32(x0)
        x[at + uint64(1)] = uint32(x1)
        x[at + uint64(2)] = uint32(x2)
        x[at + uint64(3)] = uint32(x3)


@njit
def fill_noise_and_ask(address, size, x, count, column, sample, stream):
    """`fill_noise` for a block, and meanwhile ask for the one `_BLOCKS` behind `address`, unless that is 0.

    Its elements have `size` bytes.
    """
    asks = ASKS and address != 0
    step = int64(BURST) // size if asks else int64(count)
    for first in range(0, count, step):
        if asks:
            ask_later(address + (_BLOCKS * BLOCK + first) * size)
        fill_noise(tail(x, first), min(step, count - first), column + int64(first), sample, NOISE, stream)


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


class Words(NamedTuple):
    """The words that noise is made of, and where they come from.

    They are those of row identities[0] from `column` on, or, where `width` is not 0, laid out as in `fill_across`.
    """

    x: Any  # first words: an array of uint32
    y: Any  # their refinements, for float64
    identities: Any  # uint64
    column: Any
    width: Any
    key: Any
    mask: Any


class Law(NamedTuple):
    """Noise is multiplied by `scale`, and `loc` is added."""

    loc: Any
    scale: Any


@njit
def standard_law(z):
    """Noise as it is, in the dtype of z, which is 0."""
    return Law(z, type(z)(1))


@njit
def transform_float32(kind, target, words, count, law):
    """Noise of `count` words into the run at `target`."""
    begun = local(_STRETCH, np.float32)
    for first in range(uint64(0), uint64(count), uint64(_STRETCH)):
        n = min(uint64(_STRETCH), uint64(count) - first)
        if _transform_stretch(kind, target, words.x, first, n, law, begun):
            # one word in 2048 is to be refined: find its neighbourhood before looking at single words
            for start in range(first, first + n, uint64(_GROUP)):
                end = min(start + uint64(_GROUP), first + n)
                if _any_to_refine(words.x, start, end - start):
                    _refine(kind, target, words, start, end, law)


@njit
def _transform_stretch(kind, target, x, start, count, law, begun):
    """Unrefined noise of words start ..., and whether any of them is to be refined."""
    nearest = uint32(0xFFFFFFFF)
    # Two loops: with both logarithms in one, the chain of dependent operations is longer than what an AVX2 core
    # can overlap (1.33 against 1.03 ns a value there).
    for i in range(uint64(count)):
        begun[i] = gumbel_begun_float32(x[start + i])
        nearest = min(nearest, uint32(x[start + i] + uint32(REFINE)))
    if law.loc == 0 and law.scale == 1:
        for i in range(uint64(count)):
            store(kind, target, int64(start + i), gumbel_ended_float32(x[start + i], begun[i]))
    else:
        for i in range(uint64(count)):
            store(kind, target, int64(start + i), gumbel_ended_float32(x[start + i], begun[i]) * law.scale + law.loc)
    return nearest < uint32(2 * REFINE)


@njit
def _any_to_refine(x, start, count):
    nearest = uint32(0xFFFFFFFF)
    for i in range(count):
        nearest = min(nearest, uint32(x[start + i] + uint32(REFINE)))
    return nearest < uint32(2 * REFINE)


@njit
def _refine(kind, target, words, start, end, law):
    for i in range(start, end):
        if needs_refinement(words.x[i]):
            store(kind, target, int64(i), _refined(words, i) * law.scale + law.loc)


@njit
def _refined(words, i):
    """Noise of word number i, from its second word."""
    c, r = words.column + i, words.identities[0]
    if words.width != 0:
        c, r = i // words.width, words.identities[i % words.width]
    y = noise_word(c, uint64(0), r, uint64(REFINEMENT), words.key, words.mask)
    return gumbel_refined_float32(uint64(words.x[i]), y)


@njit
def transform_float64(kind, target, words, count, law):
    """Noise of `count` words and their refinements."""
    for i in range(uint64(count)):
        g = gumbel_float64(uint64(words.x[i]), uint64(words.y[i]))
        store(kind, target, int64(i), g * law.scale + law.loc)


class _Arrays(NamedTuple):
    x: Any
    y: Any
    g: Any
    identities: Any


def _makers(transform, wide):
    """How an item of long rows is made, and a tile of short ones."""

    @inlined
    def stretch(kind, work, p, item, arrays):
        tiles = (p.out.columns + TILE - 1) // TILE
        row = item // tiles
        column = (item - row * tiles) * TILE
        count = min(p.out.columns - column, int64(TILE))
        stream = row_stream(p.stream, row)
        arrays.identities[0] = stream.row
        fill_noise(arrays.x, count, column, 0, NOISE, stream)
        if wide:
            fill_noise(arrays.y, count, column, 0, REFINEMENT, stream)
        words = Words(arrays.x, arrays.y, arrays.identities, uint64(column), uint64(0), stream.key, stream.mask)
        law = Law(type(zero(kind))(p.loc), type(zero(kind))(p.scale))
        address = row_address(p.out, row) + column * p.out.column_stride
        contiguous = p.out.column_stride == p.out.item_size
        if contiguous and p.nontemporal == 0:
            transform(kind, address, words, count, law)
        else:
            transform(zero(kind), address_of(arrays.g), words, count, law)
            if contiguous:
                stream_run(kind, address, count, arrays.g, int64(0), None)
            else:
                for i in range(count):
                    store(kind, address + int64(i) * p.out.column_stride, int64(0), arrays.g[uint64(i)])

    @inlined
    def tile(kind, work, p, first, rows, arrays):
        width, columns = uint64(p.width), p.out.columns
        key, mask = draw_key(p.stream.seed, p.stream.draw)
        for i in range(width):
            arrays.identities[i] = uint64(first) + i
        fill_across(arrays.x, columns, arrays.identities, width, uint64(0), uint64(NOISE), key, mask)
        if wide:
            fill_across(arrays.y, columns, arrays.identities, width, uint64(0), uint64(REFINEMENT), key, mask)
        words = Words(arrays.x, arrays.y, arrays.identities, uint64(0), width, key, mask)
        law = Law(type(zero(kind))(p.loc), type(zero(kind))(p.scale))
        count = (uint64(columns) + uint64(3)) // uint64(4) * uint64(4) * width
        transform(zero(kind), address_of(arrays.g), words, count, law)
        write_tile_of(kind, p.out, first, rows, width, arrays.g)

    return stretch, tile


_stretch_float32, _tile_float32 = _makers(transform_float32, False)
_stretch_float64, _tile_float64 = _makers(transform_float64, True)


@njit
def _noise(kind, work, p, stretch, tile, wide):
    scratch = open_scratch(work)
    short = p.width > 0
    size = (p.out.columns + 3) // 4 * 4 * p.width if short else TILE
    through = short or p.out.column_stride != p.out.item_size or p.nontemporal != 0
    arrays = _Arrays(
        empty(scratch, size, np.uint32),
        empty(scratch, size if wide else 0, np.uint32),
        workspace(scratch, kind, size if through else 0),
        empty(scratch, p.width if short else int64(1), np.uint64),
    )
    if lacks_scratch(work, scratch):
        return
    if short:
        each_tile(kind, work, p, p.out.rows, tile, arrays)
    else:
        each_item(kind, work, p, int64(1), stretch, arrays)


@njit
def noise_float32(kind, work, p: Noise):
    """One worker: float32 noise, rounded to the dtype of `kind`."""
    _noise(kind, work, p, _stretch_float32, _tile_float32, False)


@njit
def noise_float64(kind, work, p: Noise):
    """One worker: float64 noise."""
    _noise(kind, work, p, _stretch_float64, _tile_float64, True)


@njit
def spawn_seeds(kind, work, p: Spawn):
    """Fill an array with seeds: words 0 and 1 of block i under the tag SPAWN."""
    key, mask = draw_key(p.seed, p.draw)
    for i in range(p.children):
        x0, x1, _, _ = block_words(uint64(i), uint64(0), uint64(0), uint64(SPAWN), key, mask)
        store(int64(0), p.seeds, int64(i), int64((x0 << uint64(32)) | x1))
