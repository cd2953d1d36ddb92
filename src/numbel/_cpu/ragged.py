"""Ragged rows, of which each has a length of its own: the kernels of `categorical` and `gumbel_max`, row by row.

A worker keeps parameters of its own for them, in which it sets, for each item, where the row lies, how long it is, and
where its scratch is. Short rows are gathered into padded ones instead, which are sampled many at a time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import int64

from .._jit import inlined, njit
from .._scalar.limits import BLOCK
from . import categorical, gumbel_max
from .memory import copy, load, store, zero
from .parameters import layout
from .records import address_of_record, reader
from .scratch import address_of, empty, lacks_scratch, open_scratch
from .signatures import Gathering, RaggedSampling, Sampling
from .workers import each_item

_INF = math.inf
_I = np.int64(0)


_WORDS = layout(Sampling).itemsize // 8
_sampling_at = reader(Sampling)


@inlined
def _gather_row(kind, work, p, item, arrays):
    row = load(_I, p.chosen, item)
    start = load(_I, p.offsets, row)
    count = load(_I, p.offsets, row + 1) - start
    source = p.logits.data + start * p.logits.column_stride
    target = p.out.data + item * p.out.row_stride
    for i in range(count):
        copy(kind, target, int64(i), source + int64(i) * p.logits.column_stride)
    for i in range(count, p.out.columns):
        store(kind, target, int64(i), type(zero(kind))(-_INF))


@njit
def ragged_gather(kind, work, p: Gathering):
    """Copy rows side by side, each padded with -inf."""
    each_item(kind, work, p, p.chunk_size, _gather_row, None)


class _Arrays(NamedTuple):
    of_row: Any
    memory: Any  # of the worker's own parameters


@inlined
def _begin(p, memory):
    """They are as those of all workers."""
    for i in range(_WORDS):
        memory[i] = load(_I, address_of_record(p.sampling), int64(i))


@njit
def _enter(p, own, item):
    """Make `own` the parameters of the row that an item belongs to: (row, segment)."""
    place = load(_I, p.item_rows, item)
    row = load(_I, p.chosen, place)
    start = load(_I, p.offsets, row)
    base = load(_I, p.first_items, place)
    logits, found, samples = p.sampling.logits, p.sampling.found, p.sampling.results.samples
    own.logits.data = logits.data + start * logits.column_stride
    own.logits.columns = load(_I, p.offsets, row + 1) - start
    own.split.segments = load(_I, p.first_items, place + 1) - base
    # the kernels look for what segments leave at row * segments + segment
    shift = 8 * (base - row * own.split.segments)
    own.found.r, own.found.s = found.r + shift, found.s + shift
    own.found.keys, own.found.winner_r = found.keys + shift * samples, found.winner_r + shift * samples
    own.found.winners = found.winners + shift * samples
    own.split.pending = p.sampling.split.pending + 8 * (place - row)
    return row, item - base


@inlined
def _grouped_item(kind, work, p, item, arrays):
    own = _sampling_at(address_of(arrays.memory))
    row, segment = _enter(p, own, item)
    categorical.sample_segment(kind, work, own, row, segment, arrays.of_row)


@njit
def ragged_grouped(kind, work, p: RaggedSampling):
    """One worker: `categorical.grouped` of ragged rows."""
    scratch = open_scratch(work)
    of_row = categorical.new_arrays(kind, p.sampling, int64(BLOCK) * p.sampling.split.segment_blocks, scratch)
    arrays = _Arrays(of_row, empty(scratch, _WORDS, np.int64))
    if lacks_scratch(work, scratch):
        return
    _begin(p, arrays.memory)
    each_item(kind, work, p, p.sampling.split.chunk_size, _grouped_item, arrays)


@inlined
def _gumbel_max_item(kind, work, p, item, arrays):
    own = _sampling_at(address_of(arrays.memory))
    row, segment = _enter(p, own, item)
    gumbel_max.sample_segment(kind, work, own, row, segment, arrays.of_row)


@njit
def ragged_gumbel_max(kind, work, p: RaggedSampling):
    """One worker: `gumbel_max.gumbel_max` of ragged rows."""
    scratch = open_scratch(work)
    arrays = _Arrays(gumbel_max.new_arrays(kind, p.sampling, scratch), empty(scratch, _WORDS, np.int64))
    if lacks_scratch(work, scratch):
        return
    _begin(p, arrays.memory)
    each_item(kind, work, p, p.sampling.split.chunk_size, _gumbel_max_item, arrays)
