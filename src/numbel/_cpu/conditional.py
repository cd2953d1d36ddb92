"""Perturbed logits given which of them is the largest: noise of its own, in float64 whatever the dtype."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar.address import CONDITIONAL, CONDITIONAL_REFINEMENT, draw_key, noise_word
from .._scalar.gumbel import gumbel_float64
from .._scalar.limits import BLOCK
from .._scalar.relaxed import truncated
from .blocks import row_stream
from .categorical import segment_blocks
from .memory import load
from .noise import fill_across, fill_noise
from .records import row_address, row_and_segment, row_id, row_temperature, row_wanted
from .results import note_bad
from .runs import below_top, block_run, fill_run, read_one, read_run, write_run
from .scratch import empty, lacks_scratch, open_scratch, workspace
from .signatures import Conditional, ShortConditional
from .tiles import read_tile, write_tile
from .workers import each_item, each_tile

_INF = math.inf
_NAN = math.nan


@inlined
def _top(condition, row, identity, key, mask):
    """The largest perturbed logit of a row: its logsumexp plus the noise of the column that it is conditioned on."""
    index = uint64(load(int64(0), condition.category, row))
    x = noise_word(index, uint64(0), identity, uint64(CONDITIONAL), key, mask)
    y = noise_word(index, uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask)
    return load(float64(0), condition.logsumexp, row) + gumbel_float64(x, y)


@njit
def _good(kind, p, row):
    """Whether a row is wanted, its logsumexp finite and its index possible."""
    index, logits = load(int64(0), p.condition.category, row), p.logits
    if not row_wanted(p.row_mask, row) or index < 0 or index >= logits.columns:
        return False
    finite = abs(load(float64(0), p.condition.logsumexp, row)) < _INF
    return finite and read_one(kind, logits.format, row_address(logits, row) + index * logits.column_stride) != -_INF


class _Arrays(NamedTuple):
    x: Any
    y: Any
    z: Any
    w: Any


@inlined
def _item(kind, work, p, item, arrays):
    x, y, z, w = arrays
    row, segment = row_and_segment(p.split, p.logits.rows, item)
    first, last = segment_blocks(p, segment)
    if not _good(kind, p, row):
        for b in range(first, last):
            fill_run(kind, block_run(p.out, row_address(p.out, row), b), _NAN)
        if row_wanted(p.row_mask, row):
            note_bad(work, row)
        return
    stream, temperature = row_stream(p.stream, row), row_temperature(p.temperatures, row)
    index = load(int64(0), p.condition.category, row)
    top = _top(p.condition, row, stream.row, stream.key, stream.mask)
    limit = below_top(kind, p.out.format, top)
    for b in range(first, last):
        run = block_run(p.logits, row_address(p.logits, row), b)
        fill_noise(x, run.columns, b * BLOCK, 0, CONDITIONAL, stream)
        fill_noise(y, run.columns, b * BLOCK, 0, CONDITIONAL_REFINEMENT, stream)
        read_run(kind, run, z)
        for i in range(uint64(run.columns)):
            z[i] = min(truncated(z[i] / temperature + gumbel_float64(uint64(x[i]), uint64(y[i])), top), limit)
        if b == index // BLOCK:
            z[uint64(index - b * BLOCK)] = top
        for i in range(uint64(run.columns)):
            w[i] = type(w[i])(z[i])
        write_run(kind, block_run(p.out, row_address(p.out, row), b), p.nontemporal, w, 0, None)


@njit
def conditional(kind, work, p: Conditional):
    """One worker: take segments until none is left."""
    scratch = open_scratch(work)
    arrays = _Arrays(
        empty(scratch, BLOCK, np.uint32),
        empty(scratch, BLOCK, np.uint32),
        empty(scratch, BLOCK, np.float64),
        workspace(scratch, kind, BLOCK),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)


class _Tile(NamedTuple):
    x: Any
    z: Any
    words: Any
    refinements: Any
    identities: Any
    good: Any
    top: Any
    limit: Any
    temperature: Any


@inlined
def _tile(kind, work, p, first, rows, arrays):
    x, z, words, refinements, identities, good, top, limit, temperature = arrays
    width, columns = uint64(p.width), p.logits.columns
    key, mask = draw_key(p.stream.seed, p.stream.draw)
    read_tile(kind, p.logits, first, rows, width, x)
    for i in range(width):
        row = first + int64(i)
        good[i] = i < uint64(rows) and _good(kind, p, row)
        identities[i] = uint64(row_id(p.stream, row)) if i < uint64(rows) else uint64(0)
        temperature[i] = row_temperature(p.temperatures, row) if i < uint64(rows) else 1.0
        top[i] = _top(p.condition, row, identities[i], key, mask) if good[i] else 0.0
        limit[i] = below_top(kind, p.out.format, top[i])
    fill_across(words, columns, identities, width, uint64(0), uint64(CONDITIONAL), key, mask)
    fill_across(refinements, columns, identities, width, uint64(0), uint64(CONDITIONAL_REFINEMENT), key, mask)
    for c in range(uint64(columns)):
        start = c * width
        for i in range(width):
            at = start + i
            g = gumbel_float64(uint64(words[at]), uint64(refinements[at]))
            z[at] = min(truncated(float64(x[at]) / temperature[i] + g, top[i]), limit[i])
    for i in range(uint64(rows)):
        row = first + int64(i)
        if good[i]:
            z[uint64(load(int64(0), p.condition.category, row)) * width + i] = top[i]
            continue
        for c in range(uint64(columns)):
            z[c * width + i] = _NAN
        if row_wanted(p.row_mask, row):
            note_bad(work, row)
    for i in range(uint64(columns) * width):
        x[i] = type(x[i])(z[i])
    write_tile(kind, p.out, first, rows, width, x)


@njit
def conditional_short(kind, work, p: ShortConditional):
    """One worker for short rows: take tiles until none is left."""
    scratch = open_scratch(work)
    width = uint64(p.width)
    size = uint64(p.logits.columns) * width
    padded = (uint64(p.logits.columns) + uint64(3)) // uint64(4) * uint64(4) * width
    arrays = _Tile(
        workspace(scratch, kind, size),
        empty(scratch, size, np.float64),
        empty(scratch, padded, np.uint32),
        empty(scratch, padded, np.uint32),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint8),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
    )
    if lacks_scratch(work, scratch):
        return
    each_tile(kind, work, p, p.logits.rows, _tile, arrays)
