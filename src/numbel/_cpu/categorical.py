"""Grouped sampling, one pass over the logits: index, log-probability and logsumexp of every row.

A row is cut into segments of whole blocks; whoever finishes its last segment joins them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import draw_key
from .._scalar.blocks import BLOCK, LANES
from .._scalar.gumbel import exponential_float64
from .blocks import (
    CHUNKS,
    LEVELS,
    block_address,
    block_node,
    choice_word,
    choose,
    collapse,
    fill_words,
    push,
    quantise_block,
)
from .job import job_at, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_add, load, store, zero
from .results import write_argmax, write_bad, write_empty, write_logsumexp, write_sample
from .scratch import empty, lacks_scratch, open_scratch, workspace

_INF = math.inf


@njit
def _narrow(kind, high64, low64):
    z = zero(kind)
    return scalar.narrow(z, high64, low64)


@njit
def contest(word, r, total, best_key, best_r):
    """(whether block (r, total) with this word beats the best so far, its key): key = E / S."""
    # E >= v, so that most blocks lose before a logarithm is taken
    if r == best_r and float64(word) * (2.0**-64 * (1.0 - 2.0**-40)) >= best_key * total:
        return False, 0.0
    key = exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
    return scalar.beats(key, r, best_key, best_r), key


@inlined
def take(word, r, total, block, s, keys, rs, winners):
    """Let block (r, total) be sample s's winner if it beats the best so far, or is the first."""
    wins, value = contest(word, r, total, keys[s], rs[s])
    if wins or winners[s] < 0:
        if not wins:
            value = exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
        keys[s], rs[s], winners[s] = value, r, block


@njit
def _write_row(kind, j, row, high64, low64, r, total, winners, weights, sums, buffer):
    """Choose inside the winning block of every sample, and write the row's results."""
    if not total > 0.0:
        write_bad(kind, j, row)
        return
    write_logsumexp(kind, j, row, r, total)
    high, low = _narrow(kind, high64, low64)
    address = row_address(j, row)
    identity = row_id(j, row)
    key, mask = draw_key(j.seed, j.draw)
    held = int64(-1)
    inside = address
    count = int64(0)
    total_quantised, rise = uint64(0), int64(0)
    for s in range(j.samples):
        block = winners[uint64(s)]
        if block != held:
            held = block
            count = min(j.columns - block * BLOCK, int64(BLOCK))
            inside = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
            total_quantised, rise = quantise_block(kind, inside, count, high, low, weights, sums)
        word = choice_word(block, j.first_sample + int64(s), identity, key, mask)
        column = choose(weights, sums, rise, scalar.mulhi64(word, total_quantised))
        write_sample(kind, j, row, int64(s), block * BLOCK + column, high64, low64, r, total)


@njit
def _join_segments(kind, j, row, stack_r, stack_s, keys, rs, winners):
    """Root and winners of a row from its segments' nodes and winners."""
    for s in range(uint64(j.samples)):
        keys[s], rs[s], winners[s] = _INF, 0.0, int64(-1)
    for g in range(j.segments):
        item = row * j.segments + int64(g)
        push(stack_r, stack_s, int64(g), load(float64(0), j.node_r, item), load(float64(0), j.node_s, item))
        for s in range(uint64(j.samples)):
            at = item * j.samples + int64(s)
            winner = load(int64(0), j.winner_at, at)
            if winner >= 0:
                key, r = load(float64(0), j.winner_key, at), load(float64(0), j.winner_r, at)
                if winners[s] < 0 or scalar.beats(key, r, keys[s], rs[s]):
                    keys[s], rs[s], winners[s] = key, r, winner
    return collapse(stack_r, stack_s, j.segments)


@njit
def _store_segment(j, item, r, total, keys, rs, winners):
    store(float64(0), j.node_r, item, r)
    store(float64(0), j.node_s, item, total)
    for s in range(uint64(j.samples)):
        at = item * j.samples + int64(s)
        store(float64(0), j.winner_key, at, keys[s])
        store(float64(0), j.winner_r, at, rs[s])
        store(int64(0), j.winner_at, at, winners[s])


@njit
def _segment(kind, j, row, first, last, high64, low64, words, keys, rs, winners, stack_r, stack_s, lanes, buffer):
    """Node and winners of blocks first .. last - 1 of a row."""
    high, low = _narrow(kind, high64, low64)
    guess = zero(kind)
    address = row_address(j, row)
    identity = row_id(j, row)
    key, mask = draw_key(j.seed, j.draw)
    single = last - first == 1 and j.segments == 1  # a lone block wins without a word
    for s in range(uint64(j.samples)):
        keys[s], rs[s], winners[s] = _INF, 0.0, int64(-1)
    if j.samples == 1 and not single:
        fill_words(words, last - first, first, 1, j.first_sample, 0, identity, key, mask)
    for b in range(first, last):
        block = int64(b)
        count = min(j.columns - block * BLOCK, int64(BLOCK))
        at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
        guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
        push(stack_r, stack_s, block - first, r, total)
        if not total > 0.0:
            continue
        if single:
            for s in range(uint64(j.samples)):
                winners[s] = block
            continue
        if j.samples > 1:
            fill_words(words, j.samples, block, 0, j.first_sample, 1, identity, key, mask)
        for s in range(uint64(j.samples)):
            word = words[s if j.samples > 1 else uint64(block - first)]
            take(word, r, total, block, s, keys, rs, winners)
    return collapse(stack_r, stack_s, last - first)


@njit
def grouped(kind, job):
    """One worker: take segments until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    samples = uint64(j.samples)
    lanes = workspace(scratch, kind, LANES)
    weights = workspace(scratch, kind, max(min(j.columns, int64(BLOCK)), int64(LANES)))
    sums = empty(scratch, CHUNKS, np.uint64)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    words = empty(scratch, max(min(j.segment_blocks, blocks), j.samples), np.uint64)
    keys, rs = empty(scratch, samples, np.float64), empty(scratch, samples, np.float64)
    winners = empty(scratch, samples, np.int64)
    stack_r, stack_s = empty(scratch, LEVELS, np.float64), empty(scratch, LEVELS, np.float64)
    buffer = empty(scratch, BLOCK if j.column_stride != j.item_size else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            if not row_wanted(j, row):
                if segment == 0:
                    write_empty(kind, j, row)
                continue
            temperature = row_temperature(j, row)
            if temperature == 0.0:
                if segment == 0:
                    write_argmax(kind, j, row)
                continue
            high64, low64 = scalar.scale(temperature)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            r, total = _segment(
                kind, j, row, first, last, high64, low64, words, keys, rs, winners, stack_r, stack_s, lanes, buffer
            )
            if j.segments > 1:
                _store_segment(j, row * j.segments + segment, r, total, keys, rs, winners)
                if atomic_add(j.pending + 8 * row, int64(-1)) > 1:
                    continue
                r, total = _join_segments(kind, j, row, stack_r, stack_s, keys, rs, winners)
            _write_row(kind, j, row, high64, low64, r, total, winners, weights, sums, buffer)
