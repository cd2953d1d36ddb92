"""Rows whose columns come in pieces: what whole blocks add to a sample, and the results once all have come.

A piece is cut into runs of blocks; whoever finishes a row's last run joins them, and the best of them with the best so
far. Its nodes are handed back for the widest ranges of blocks that are nodes of the row's dyadic tree.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int64, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.address import draw_key
from .._scalar.blocks import BLOCK, LANES
from .._scalar.elementary import LOG2E
from .._scalar.gumbel import column_of, goes_first
from .blocks import (
    CHUNKS,
    LEVELS,
    block_address,
    block_max,
    block_node,
    choice_word,
    choose,
    fill_words,
    push,
    quantise_block,
)
from .categorical import take
from .gumbel_max import best_of_block, filters
from .job import job_at, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_add, load, store, zero
from .results import store_float, write_bad, write_empty, write_logsumexp
from .scratch import empty, lacks_scratch, open_scratch, workspace

_INF = math.inf
#: float64 of a winner: key, r (of the race: 0), logit. int64: block (of the race: place), column.
REALS, INTEGERS = 3, 2
_F, _I = np.float64(0), np.int64(0)


@njit
def _better(j, key, r, at, best):
    """Whether a winner goes before the best so far: on ties the smaller block, or place."""
    other_key, other_r = load(_F, j.best_key, REALS * best), load(_F, j.best_key, REALS * best + 1)
    other_at = load(_I, j.best_at, INTEGERS * best)
    if at < 0 or other_at < 0:
        return at >= 0
    if j.race != 0:
        return goes_first(key, at, other_key, other_at)
    return scalar.beats(key, r, other_key, other_r) or (at < other_at and not scalar.beats(other_key, other_r, key, r))


@njit
def _take_better(j, best, own):
    key, r = load(_F, j.winner_key, REALS * own), load(_F, j.winner_key, REALS * own + 1)
    if _better(j, key, r, load(_I, j.winner_at, INTEGERS * own), best):
        for k in range(REALS):
            store(_F, j.best_key, REALS * best + k, load(_F, j.winner_key, REALS * own + k))
        for k in range(INTEGERS):
            store(_I, j.best_at, INTEGERS * best + k, load(_I, j.winner_at, INTEGERS * own + k))


@njit
def _join_runs(j, row, stack_r, stack_s):
    """The nodes of a row's ranges, and its winners so far."""
    blocks = (j.columns + BLOCK - 1) // BLOCK
    for n in range(j.ranges):
        begin, level = load(_I, j.plan, int64(2 * n)), load(_I, j.plan, int64(2 * n + 1))
        for b in range(uint64(1) << uint64(level)):
            node = j.node_r + 16 * (row * blocks + begin + int64(b))
            push(stack_r, stack_s, int64(b), load(_F, node, int64(0)), load(_F, node, int64(1)))
        out = j.node_s + 16 * (row * j.ranges + int64(n))
        store(_F, out, int64(0), stack_r[uint64(level)])
        store(_F, out, int64(1), stack_s[uint64(level)])
    for s in range(j.samples):
        for g in range(j.segments):
            _take_better(j, row * j.samples + int64(s), (row * j.segments + int64(g)) * j.samples + int64(s))


@njit
def _keep(j, own, key, r, logit, at, column):
    store(_F, j.winner_key, REALS * own, key)
    store(_F, j.winner_key, REALS * own + 1, r)
    store(_F, j.winner_key, REALS * own + 2, logit)
    store(_I, j.winner_at, INTEGERS * own, at)
    store(_I, j.winner_at, INTEGERS * own + 1, column)


@njit
def _grouped_run(kind, j, row, own, first, last, temperature, words, keys, rs, winners, lanes, weights, sums, buffer):
    """The nodes of blocks first .. last - 1 of a piece of a row, and the winner of every sample among them."""
    high64, low64 = scalar.scale(temperature)
    z = zero(kind)
    high, low = scalar.narrow(z, high64, low64)
    guess = z
    blocks = (j.columns + BLOCK - 1) // BLOCK
    address, identity = row_address(j, row), uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    for s in range(uint64(j.samples)):
        keys[s], rs[s], winners[s] = _INF, 0.0, int64(-1)
    for b in range(first, last):
        block = int64(b)
        count = min(j.columns - block * BLOCK, int64(BLOCK))
        at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
        guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
        store(_F, j.node_r, 2 * (row * blocks + block), r)
        store(_F, j.node_r, 2 * (row * blocks + block) + 1, total)
        if not total > 0.0:
            continue
        fill_words(words, j.samples, j.first_block + block, 0, 0, 1, identity, key, mask)
        for s in range(uint64(j.samples)):
            take(words[s], r, total, block, s, keys, rs, winners)
    held, count, inside = int64(-1), int64(0), address
    whole, rise = uint64(0), int64(0)
    for s in range(uint64(j.samples)):
        block = winners[s]
        number = j.first_block + block
        if not _better(j, keys[s], rs[s], number if block >= 0 else block, row * j.samples + int64(s)):
            _keep(j, own + int64(s), _INF, 0.0, 0.0, int64(-1), int64(-1))
            continue
        if block != held:
            held = block
            count = min(j.columns - block * BLOCK, int64(BLOCK))
            inside = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
            whole, rise = quantise_block(kind, inside, count, high, low, weights, sums)
        word = choice_word(number, int64(s), identity, key, mask)
        column = choose(weights, sums, rise, scalar.mulhi64(word, whole))
        logit = float64(load(kind, inside, column))
        _keep(j, own + int64(s), keys[s], rs[s], logit, number, number * BLOCK + column)


@njit
def _race_run(kind, j, row, own, first, last, temperature, keys, winners, lanes, x, buffer):
    """`_grouped_run` of the race: the largest perturbed logits."""
    high64, low64 = scalar.scale(temperature)
    z = zero(kind)
    high, low = scalar.narrow(z, high64, low64)
    guess = z
    rate, _ = scalar.narrow(float32(0), LOG2E / temperature * 8388608.0, 0.0)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    address, identity = row_address(j, row), uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    for s in range(uint64(j.samples)):
        keys[s], winners[s] = -_INF, int64(-1)
    for b in range(first, last):
        block = int64(b)
        count = min(j.columns - block * BLOCK, int64(BLOCK))
        at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
        guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
        store(_F, j.node_r, 2 * (row * blocks + block), r)
        store(_F, j.node_r, 2 * (row * blocks + block) + 1, total)
        largest, nan = block_max(kind, at, count)
        if nan or not scalar.is_bounded(largest, high64) or not scalar.is_possible(largest, high64):
            continue
        exact = not filters(largest, temperature)
        for s in range(uint64(j.samples)):
            keys[s], winners[s] = best_of_block(
                kind, at, j.column_stride == j.item_size, count, x, largest, rate, temperature, exact,
                (j.first_block + block) * BLOCK, int64(s), identity, key, mask, keys[s], winners[s],
            )  # fmt: skip
    for s in range(uint64(j.samples)):
        column, logit = column_of(winners[s]), 0.0
        if column >= 0:
            inside = (column - j.first_block * BLOCK) * j.column_stride
            logit = float64(load(kind, address + inside, int64(0)))
        _keep(j, own + int64(s), keys[s], 0.0, logit, winners[s], column)


@njit
def _accumulate(kind, job, race):
    j = job_at(job)
    scratch = open_scratch(j)
    samples = uint64(j.samples)
    lanes = workspace(scratch, kind, LANES)
    keys, rs = empty(scratch, samples, np.float64), empty(scratch, samples, np.float64)
    winners = empty(scratch, samples, np.int64)
    weights = workspace(scratch, kind, BLOCK if race is None else 0)
    sums, words = empty(scratch, CHUNKS, np.uint64), empty(scratch, samples, np.uint64)
    x = empty(scratch, BLOCK if race is not None else 0, np.uint32)
    stack_r, stack_s = empty(scratch, LEVELS, np.float64), empty(scratch, LEVELS, np.float64)
    buffer = empty(scratch, BLOCK if j.column_stride != j.item_size else 0, np.float64)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            temperature = row_temperature(j, row)
            if not row_wanted(j, row) or temperature == 0.0:
                continue
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            own = (row * j.segments + segment) * j.samples
            if race is None:
                _grouped_run(
                    kind, j, row, own, first, last, temperature, words, keys, rs, winners, lanes, weights, sums, buffer
                )
            else:
                _race_run(kind, j, row, own, first, last, temperature, keys, winners, lanes, x, buffer)
            if j.segments > 1 and atomic_add(j.pending + 8 * row, int64(-1)) > 1:
                continue
            _join_runs(j, row, stack_r, stack_s)


@njit
def accumulate_grouped(kind, job):
    """One worker: take runs of a piece until none is left."""
    _accumulate(kind, job, None)


@njit
def accumulate_gumbel_max(kind, job):
    """The same for the race."""
    _accumulate(kind, job, 0)


@njit
def join_rows(job):
    """Join each row's node in `node_r`, in place, with its right sibling in `node_s`."""
    j = job_at(job)
    for row in range(j.rows):
        left, right = j.node_r + 16 * int64(row), j.node_s + 16 * int64(row)
        r, s = scalar.join(
            load(_F, left, int64(0)), load(_F, left, int64(1)), load(_F, right, int64(0)), load(_F, right, int64(1))
        )
        store(_F, left, int64(0), r)
        store(_F, left, int64(1), s)


@njit
def merge_winners(job):
    """Take the winners in `winner_key` and `winner_at` that go before the best."""
    j = job_at(job)
    for n in range(j.rows * j.samples):
        _take_better(j, int64(n), int64(n))


@njit
def accumulated(kind, job):
    """One worker: take rows, and write their results from their nodes and winners."""
    j = job_at(job)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row = int64(item)
            temperature = row_temperature(j, row)
            if not row_wanted(j, row) or temperature == 0.0:
                write_empty(kind, j, row)
                continue
            r, total = load(_F, j.node_s, 2 * row), load(_F, j.node_s, 2 * row + 1)
            if not total > 0.0:
                write_bad(kind, j, row)
                continue
            high64, low64 = scalar.scale(temperature)
            write_logsumexp(kind, j, row, r, total)
            for s in range(j.samples):
                at = row * j.samples + int64(s)
                store(_I, j.indices, at, load(_I, j.best_at, INTEGERS * at + 1))
                logit = load(_F, j.best_key, REALS * at + 2)
                store_float(kind, j.log_prob, at, scalar.log_prob(logit, high64, low64, r, total))
