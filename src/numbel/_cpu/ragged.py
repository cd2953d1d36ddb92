"""Ragged rows, of which each has a length of its own: the kernels of `categorical` and `gumbel_max`, row by row.

A worker keeps a copy of the job in which it sets, for each item, where the row lies, how long it is, and where its
scratch is; to the kernels it is then a job like any other. Short rows are gathered into padded ones instead, which are
sampled many at a time.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.blocks import BLOCK, LANES
from .._scalar.gumbel import goes_first
from . import categorical, gumbel_max
from .blocks import CHUNKS, LEVELS, collapse, push
from .job import FIELDS, job_at, row_temperature, row_wanted, take_items
from .memory import atomic_add, copy, load, store, zero
from .results import write_argmax, write_empty
from .scratch import address_of, empty, lacks_scratch, open_scratch, workspace

_INF = math.inf
_NAN = math.nan


@njit
def gather(kind, job):
    """Copy the rows `given` side by side into `out`, each padded with -inf to `columns`."""
    j = job_at(job)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row = load(int64(0), j.given, int64(item))
            start = load(int64(0), j.offsets, row)
            count = load(int64(0), j.offsets, row + 1) - start
            source, target = j.array + start * j.column_stride, j.out + int64(item) * j.columns * j.item_size
            for i in range(count):
                copy(kind, target, int64(i), source + int64(i) * j.column_stride)
            for i in range(count, j.columns):
                store(kind, target, int64(i), type(zero(kind))(-_INF))


@njit
def _copy_job(job, memory):
    """The job's memory once more."""
    for i in range(FIELDS):
        memory[i] = load(int64(0), job, int64(i))


@njit
def _enter(j, own, item):
    """Make `own` the job of the row that an item belongs to: (row, segment)."""
    place = load(int64(0), j.item_rows, int64(item))
    row = load(int64(0), j.given, place)
    start = load(int64(0), j.offsets, row)
    base = load(int64(0), j.first_items, place)
    own.array = j.array + start * j.column_stride
    own.columns = load(int64(0), j.offsets, row + 1) - start
    own.segments = load(int64(0), j.first_items, place + 1) - base
    # the kernels look for scratch at row * segments + segment
    shift = 8 * (base - row * own.segments)
    own.node_r, own.node_s = j.node_r + shift, j.node_s + shift
    own.winner_key, own.winner_r = j.winner_key + shift * j.samples, j.winner_r + shift * j.samples
    own.winner_at = j.winner_at + shift * j.samples
    own.pending = j.pending + 8 * (place - row)
    return row, int64(item) - base


@njit
def _is_done(kind, own, row, segment):
    """Whether a row is one of those that need no noise, which the first segment writes."""
    if row_wanted(own, row) and row_temperature(own, row) != 0.0:
        return False
    if segment == 0:
        if row_wanted(own, row):
            write_argmax(kind, own, row)
        else:
            write_empty(kind, own, row)
    return True


@njit
def ragged_grouped(kind, job):
    """One worker: `categorical.grouped` of ragged rows."""
    j = job_at(job)
    scratch = open_scratch(j)
    memory = empty(scratch, FIELDS, np.int64)
    own = job_at(address_of(memory))
    samples = uint64(j.samples)
    lanes, weights = workspace(scratch, kind, LANES), workspace(scratch, kind, BLOCK)
    sums = empty(scratch, CHUNKS, np.uint64)
    words = empty(scratch, max(j.segment_blocks, j.samples), np.uint64)
    keys, rs, winners = (
        empty(scratch, samples, np.float64),
        empty(scratch, samples, np.float64),
        empty(scratch, samples, np.int64),
    )
    stack_r, stack_s = empty(scratch, LEVELS, np.float64), empty(scratch, LEVELS, np.float64)
    buffer = empty(scratch, BLOCK if j.column_stride != j.item_size else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    _copy_job(job, memory)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = _enter(j, own, item)
            if _is_done(kind, own, row, segment):
                continue
            high64, low64 = scalar.scale(row_temperature(own, row))
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, (own.columns + BLOCK - 1) // BLOCK)
            r, total = categorical._segment(
                kind, own, row, first, last, high64, low64, words, keys, rs, winners, stack_r, stack_s, lanes, buffer
            )
            if own.segments > 1:
                categorical._store_segment(own, row * own.segments + segment, r, total, keys, rs, winners)
                if atomic_add(own.pending + 8 * row, int64(-1)) > 1:
                    continue
                r, total = categorical._join_segments(kind, own, row, stack_r, stack_s, keys, rs, winners)
            categorical._write_row(kind, own, row, high64, low64, r, total, winners, weights, sums, buffer)
    memory[0] = 0  # alive until here: its address is in use


@njit
def _join_winners(own, row, stack_r, stack_s, keys, winners):
    """(r, S, whether bad) of a row from its segments, and its winners."""
    bad = False
    for s in range(uint64(own.samples)):
        keys[s], winners[s] = -_INF, int64(-1)
    for g in range(own.segments):
        other = row * own.segments + int64(g)
        total = load(float64(0), own.node_s, other)
        bad = bad or total != total
        push(stack_r, stack_s, int64(g), load(float64(0), own.node_r, other), total)
        for s in range(uint64(own.samples)):
            at = other * own.samples + int64(s)
            value, winner = load(float64(0), own.winner_key, at), load(int64(0), own.winner_at, at)
            if winner >= 0 and (winners[s] < 0 or goes_first(value, winner, keys[s], winners[s])):
                keys[s], winners[s] = value, winner
    r, total = collapse(stack_r, stack_s, own.segments)
    return r, total, bad


@njit
def ragged_gumbel_max(kind, job):
    """One worker: `gumbel_max.gumbel_max` of ragged rows."""
    j = job_at(job)
    scratch = open_scratch(j)
    memory = empty(scratch, FIELDS, np.int64)
    own = job_at(address_of(memory))
    samples = uint64(j.samples)
    lanes, x = workspace(scratch, kind, LANES), empty(scratch, BLOCK, np.uint32)
    keys, winners = empty(scratch, samples, np.float64), empty(scratch, samples, np.int64)
    stack_r, stack_s = empty(scratch, LEVELS, np.float64), empty(scratch, LEVELS, np.float64)
    buffer = empty(scratch, BLOCK if j.column_stride != j.item_size else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    _copy_job(job, memory)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = _enter(j, own, item)
            if _is_done(kind, own, row, segment):
                continue
            temperature = row_temperature(own, row)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, (own.columns + BLOCK - 1) // BLOCK)
            r, total, bad = gumbel_max._segment(
                kind, own, row, first, last, temperature, keys, winners, stack_r, stack_s, lanes, x, buffer
            )
            if own.segments > 1:
                cell = row * own.segments + segment
                categorical._store_segment(own, cell, r, _NAN if bad else total, keys, keys, winners)
                if atomic_add(own.pending + 8 * row, int64(-1)) > 1:
                    continue
                r, total, bad = _join_winners(own, row, stack_r, stack_s, keys, winners)
            high64, low64 = scalar.scale(temperature)
            gumbel_max._write_row(kind, own, row, high64, low64, r, total, bad, winners)
    memory[0] = 0  # alive until here: its address is in use
