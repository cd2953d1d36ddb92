"""Grouped sampling, one pass over the logits: index, log-probability and logsumexp of every row.

A row is cut into segments of whole blocks; whoever finishes its last segment joins them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.gumbel import exponential_float64
from .._scalar.limits import BLOCK
from .blocks import (
    LANE_SPACE,
    block_at,
    block_node,
    choice_word,
    choose,
    collapse,
    count_blocks,
    fill_words,
    new_buffer,
    new_choice,
    new_lanes,
    new_stack,
    open_block,
    push,
    row_stream,
    scale_of,
    unopened,
)
from .memory import atomic_add, load, store, zero
from .records import row_address, row_and_segment, row_temperature
from .results import is_settled, write_bad, write_logsumexp, write_sample
from .scratch import empty, lacks_scratch, open_scratch, tail
from .signatures import Sampling
from .workers import each_item

_INF = math.inf
_NAN = math.nan


class Winners(NamedTuple):
    """The best block, or column, of each sample so far."""

    keys: Any  # float64: arrival times, or perturbed logits
    r: Any  # float64: what keys of blocks are relative to
    places: Any  # int64: block, or place of a column; -1 for none


@inlined
def new_winners(scratch, samples):
    """None yet."""
    return Winners(
        empty(scratch, samples, np.float64), empty(scratch, samples, np.float64), empty(scratch, samples, np.int64)
    )


@njit
def forget_winners(winners, samples, key):
    """Begin with no winner; `key` is beaten by every other."""
    for s in range(uint64(samples)):
        winners.keys[s], winners.r[s], winners.places[s] = key, 0.0, int64(-1)


@njit
def contest(word, r, total, best_key, best_r):
    """(whether block (r, total) with this word beats the best so far, its key): key = E / S."""
    # E >= v, so that most blocks lose before a logarithm is taken
    if r == best_r and float64(word) * (2.0**-64 * (1.0 - 2.0**-40)) >= best_key * total:
        return False, 0.0
    key = exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
    return scalar.beats(key, r, best_key, best_r), key


@inlined
def take(word, r, total, block, s, winners):
    """Let block (r, total) be sample s's winner if it beats the best so far, or is the first."""
    wins, value = contest(word, r, total, winners.keys[s], winners.r[s])
    if wins or winners.places[s] < 0:
        if not wins:
            value = exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
        winners.keys[s], winners.r[s], winners.places[s] = value, r, block


class Arrays(NamedTuple):
    """A worker's."""

    lanes: Any  # of two blocks: the first sample's winner so far, and the one at hand
    choice: Any
    words: Any
    winners: Any
    stack: Any
    buffer: Any


@njit
def new_arrays(kind, p, columns, scratch):
    """Arrays for rows of at most so many columns."""
    words = max(min(p.split.segment_blocks, count_blocks(columns)), p.results.samples)
    return Arrays(
        new_lanes(scratch, kind, 2),
        new_choice(scratch),
        empty(scratch, words, np.uint64),
        new_winners(scratch, uint64(p.results.samples)),
        new_stack(scratch),
        new_buffer(scratch, p.logits),
    )


@njit
def _write_row(kind, work, p, row, scale, root, kept, arrays):
    """Choose inside the winning block of every sample, and write the row's results.

    `kept` is (a block of which the lanes are there, or -1; these lanes).
    """
    r, total = root
    if not total > 0.0:
        write_bad(kind, work, p.results, row)
        return
    write_logsumexp(kind, p.results, row, r, total)
    address, stream = row_address(p.logits, row), row_stream(p.stream, row)
    (made, lanes), held, opened = kept, int64(-1), unopened(kind)
    for s in range(p.results.samples):
        block = arrays.winners.places[uint64(s)]
        if block != held:
            held = block
            inside, count = block_at(kind, p.logits, address, block, arrays.buffer)
            opened = open_block(kind, inside, count, scale, lanes, block == made, arrays.choice)
            made = block
        word = choice_word(block, p.results.first_sample + int64(s), stream)
        column = choose(kind, opened, scale, word, arrays.choice)
        write_sample(kind, p, row, int64(s), block * BLOCK + column, scale, root)


@njit
def _join_segments(p, row, stack, winners):
    """Root and winners of a row from its segments' nodes and winners."""
    forget_winners(winners, p.results.samples, _INF)
    found, samples = p.found, p.results.samples
    for g in range(p.split.segments):
        item = row * p.split.segments + int64(g)
        push(stack, int64(g), load(float64(0), found.r, item), load(float64(0), found.s, item))
        for s in range(uint64(samples)):
            at = item * samples + int64(s)
            winner = load(int64(0), found.winners, at)
            if winner >= 0:
                key, r = load(float64(0), found.keys, at), load(float64(0), found.winner_r, at)
                if winners.places[s] < 0 or scalar.beats(key, r, winners.keys[s], winners.r[s]):
                    winners.keys[s], winners.r[s], winners.places[s] = key, r, winner
    return collapse(stack, p.split.segments)


@njit
def store_segment(p, item, root, winners):
    """Keep the root and the winners of a segment."""
    found, samples = p.found, p.results.samples
    store(float64(0), found.r, item, root[0])
    store(float64(0), found.s, item, root[1])
    for s in range(uint64(samples)):
        at = item * samples + int64(s)
        store(float64(0), found.keys, at, winners.keys[s])
        store(float64(0), found.winner_r, at, winners.r[s])
        store(int64(0), found.winners, at, winners.places[s])


@inlined
def segment_blocks(p, segment):
    """First block of a segment, and the one behind its last."""
    first = segment * p.split.segment_blocks
    return first, min(first + p.split.segment_blocks, count_blocks(p.logits.columns))


@njit
def _segment(kind, p, row, segment, scale, arrays):
    """(Node, `kept` of `_write_row`) of a segment of a row, whose winners are in their arrays."""
    guess = zero(kind)
    first, last = segment_blocks(p, segment)
    address, stream = row_address(p.logits, row), row_stream(p.stream, row)
    samples, first_sample = p.results.samples, p.results.first_sample
    winners, words = arrays.winners, arrays.words
    single = last - first == 1 and p.split.segments == 1  # a lone block wins without a word
    held, kept, spare = int64(-1), tail(arrays.lanes, 0), tail(arrays.lanes, LANE_SPACE)
    forget_winners(winners, samples, _INF)
    if samples == 1 and not single:
        fill_words(words, last - first, (first, first_sample), (1, 0), stream)
    for b in range(first, last):
        block = int64(b)
        at, count = block_at(kind, p.logits, address, block, arrays.buffer)
        guess, r, total = block_node(kind, at, count, scale, guess, spare)
        push(arrays.stack, block - first, r, total)
        if not total > 0.0:
            continue
        if samples > 1 and not single:
            fill_words(words, samples, (block, first_sample), (0, 1), stream)
        for s in range(uint64(samples)):
            if single:
                winners.places[s] = block
                continue
            word = words[s if samples > 1 else uint64(block - first)]
            take(word, r, total, block, s, winners)
        if samples > 0 and winners.places[0] == block:
            held, kept, spare = block, spare, kept
    return collapse(arrays.stack, last - first), (held, kept)


@inlined
def sample_segment(kind, work, p, row, segment, arrays):
    """Sample a segment, and write the row if it is the row's last one."""
    if is_settled(kind, work, p, row, segment):
        return
    scale = scale_of(kind, row_temperature(p.temperatures, row))
    root, kept = _segment(kind, p, row, segment, scale, arrays)
    if p.split.segments > 1:
        store_segment(p, row * p.split.segments + segment, root, arrays.winners)
        if atomic_add(p.split.pending + 8 * row, int64(-1)) > 1:
            return
        root = _join_segments(p, row, arrays.stack, arrays.winners)
    _write_row(kind, work, p, row, scale, root, kept, arrays)


@inlined
def _item(kind, work, p, item, arrays):
    row, segment = row_and_segment(p.split, p.logits.rows, item)
    sample_segment(kind, work, p, row, segment, arrays)


@njit
def grouped(kind, work, p: Sampling):
    """One worker: take segments until none is left."""
    scratch = open_scratch(work)
    arrays = new_arrays(kind, p, p.logits.columns, scratch)
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)
