"""Rows whose columns come in pieces: what whole blocks add to a sample, and the results once all have come.

A piece is cut into runs of blocks; whoever finishes a row's last run joins them, and the best of them with the best so
far. Its nodes are handed back for the widest ranges of blocks that are nodes of the row's dyadic tree.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.gumbel import column_of, goes_first
from .._scalar.limits import BLOCK
from .blocks import (
    block_at,
    block_max,
    block_node,
    choice_word,
    choose,
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
from .categorical import forget_winners, new_winners, segment_blocks, take
from .gumbel_max import Columns, Filter, Race, best_of_block, filters, rate_of
from .memory import atomic_add, load, store, zero
from .records import row_address, row_and_segment, row_temperature, row_wanted
from .results import store_float, write_bad, write_empty, write_logsumexp
from .scratch import empty, lacks_scratch, open_scratch
from .signatures import INTEGERS, REALS, Finishing, Joining, Merging, Piece
from .workers import each_item

_INF = math.inf
_F, _I = np.float64(0), np.int64(0)


@njit
def _better(p, key, r, at, best):
    """Whether a winner goes before the best so far: on ties the smaller block, or place."""
    other_key, other_r = load(_F, p.best.reals, REALS * best), load(_F, p.best.reals, REALS * best + 1)
    other_at = load(_I, p.best.integers, INTEGERS * best)
    if at < 0 or other_at < 0:
        return at >= 0
    if p.race != 0:
        return goes_first(key, at, other_key, other_at)
    return scalar.beats(key, r, other_key, other_r) or (at < other_at and not scalar.beats(other_key, other_r, key, r))


@njit
def _take_better(p, best, own):
    reals, integers = p.winners.reals, p.winners.integers
    key, r = load(_F, reals, REALS * own), load(_F, reals, REALS * own + 1)
    if _better(p, key, r, load(_I, integers, INTEGERS * own), best):
        for k in range(REALS):
            store(_F, p.best.reals, REALS * best + k, load(_F, reals, REALS * own + k))
        for k in range(INTEGERS):
            store(_I, p.best.integers, INTEGERS * best + k, load(_I, integers, INTEGERS * own + k))


@njit
def _join_runs(p, row, stack):
    """The nodes of a row's ranges, and its winners so far."""
    blocks = count_blocks(p.logits.columns)
    for n in range(p.ranges):
        begin, level = load(_I, p.plan, int64(2 * n)), load(_I, p.plan, int64(2 * n + 1))
        for b in range(uint64(1) << uint64(level)):
            node = p.nodes + 16 * (row * blocks + begin + int64(b))
            push(stack, int64(b), load(_F, node, int64(0)), load(_F, node, int64(1)))
        out = p.found + 16 * (row * p.ranges + int64(n))
        store(_F, out, int64(0), stack.r[uint64(level)])
        store(_F, out, int64(1), stack.s[uint64(level)])
    for s in range(p.samples):
        for g in range(p.split.segments):
            own = (row * p.split.segments + int64(g)) * p.samples + int64(s)
            _take_better(p, row * p.samples + int64(s), own)


class _Winner(NamedTuple):
    key: Any
    r: Any
    logit: Any
    at: Any
    column: Any


@njit
def _keep(winners, own, winner):
    store(_F, winners.reals, REALS * own, winner.key)
    store(_F, winners.reals, REALS * own + 1, winner.r)
    store(_F, winners.reals, REALS * own + 2, winner.logit)
    store(_I, winners.integers, INTEGERS * own, winner.at)
    store(_I, winners.integers, INTEGERS * own + 1, winner.column)


class _Arrays(NamedTuple):
    lanes: Any
    winners: Any
    choice: Any
    words: Any
    x: Any
    stack: Any
    buffer: Any


@inlined
def _node(kind, p, row, block, scale, guess, arrays):
    """(address, columns, reference to guess next, r, S) of a block, whose node is kept."""
    at, count = block_at(kind, p.logits, row_address(p.logits, row), block, arrays.buffer)
    guess, r, total = block_node(kind, at, count, scale, guess, arrays.lanes)
    own = 2 * (row * count_blocks(p.logits.columns) + block)
    store(_F, p.nodes, own, r)
    store(_F, p.nodes, own + 1, total)
    return at, count, guess, r, total


@njit
def _grouped_run(kind, p, row, segment, scale, arrays):
    """The nodes of a segment of a piece of a row, and the winner of every sample among its blocks."""
    guess = zero(kind)
    address, stream = row_address(p.logits, row), row_stream(p.stream, row)
    winners, words = arrays.winners, arrays.words
    first, last = segment_blocks(p, segment)
    forget_winners(winners, p.samples, _INF)
    for b in range(first, last):
        block = int64(b)
        _, _, guess, r, total = _node(kind, p, row, block, scale, guess, arrays)
        if not total > 0.0:
            continue
        fill_words(words, p.samples, (p.first_block + block, int64(0)), (0, 1), stream)
        for s in range(uint64(p.samples)):
            take(words[s], r, total, block, s, winners)
    own = (row * p.split.segments + segment) * p.samples
    held, inside, opened = int64(-1), address, unopened(kind)
    for s in range(uint64(p.samples)):
        block = winners.places[s]
        number = p.first_block + block
        best = row * p.samples + int64(s)
        if not _better(p, winners.keys[s], winners.r[s], number if block >= 0 else block, best):
            _keep(p.winners, own + int64(s), _Winner(_INF, 0.0, 0.0, int64(-1), int64(-1)))
            continue
        if block != held:
            held = block
            inside, count = block_at(kind, p.logits, address, block, arrays.buffer)
            opened = open_block(kind, inside, count, scale, arrays.lanes, False, arrays.choice)
        word = choice_word(number, int64(s), stream)
        column = choose(kind, opened, scale, word, arrays.choice)
        logit = float64(load(kind, inside, column))
        winner = _Winner(winners.keys[s], winners.r[s], logit, number, number * BLOCK + column)
        _keep(p.winners, own + int64(s), winner)


@njit
def _race_run(kind, p, row, segment, scale, arrays):
    """`_grouped_run` of the race: the largest perturbed logits."""
    guess = zero(kind)
    temperature = row_temperature(p.temperatures, row)
    rate = rate_of(temperature)
    address, stream, winners = row_address(p.logits, row), row_stream(p.stream, row), arrays.winners
    contiguous = p.logits.column_stride == p.logits.item_size
    first, last = segment_blocks(p, segment)
    forget_winners(winners, p.samples, -_INF)
    for b in range(first, last):
        block = int64(b)
        at, count, guess, _, _ = _node(kind, p, row, block, scale, guess, arrays)
        largest, nan = block_max(kind, at, count)
        if nan or not scalar.is_bounded(largest, scale.high64) or not scalar.is_possible(largest, scale.high64):
            continue
        sieve = Filter(largest, rate, not filters(largest, temperature))
        columns = Columns(at, arrays.x, (p.first_block + block) * BLOCK)
        for s in range(uint64(p.samples)):
            race = Race(stream, int64(s), temperature)
            best = winners.keys[s], winners.places[s]
            winners.keys[s], winners.places[s] = best_of_block(kind, columns, count, contiguous, sieve, race, best)
    own = (row * p.split.segments + segment) * p.samples
    for s in range(uint64(p.samples)):
        column, logit = column_of(winners.places[s]), 0.0
        if column >= 0:
            inside = (column - p.first_block * BLOCK) * p.logits.column_stride
            logit = float64(load(kind, address + inside, int64(0)))
        _keep(p.winners, own + int64(s), _Winner(winners.keys[s], 0.0, logit, winners.places[s], column))


def _item_maker(run):
    @inlined
    def body(kind, work, p, item, arrays):
        row, segment = row_and_segment(p.split, p.logits.rows, item)
        temperature = row_temperature(p.temperatures, row)
        if not row_wanted(p.row_mask, row) or temperature == 0.0:
            return
        run(kind, p, row, segment, scale_of(kind, temperature), arrays)
        if p.split.segments > 1 and atomic_add(p.split.pending + 8 * row, int64(-1)) > 1:
            return
        _join_runs(p, row, arrays.stack)

    return body


_grouped_item, _race_item = _item_maker(_grouped_run), _item_maker(_race_run)


@inlined
def _accumulate(kind, work, p, body):
    scratch = open_scratch(work)
    samples = uint64(p.samples)
    arrays = _Arrays(
        new_lanes(scratch, kind),
        new_winners(scratch, samples),
        new_choice(scratch),
        empty(scratch, samples, np.uint64),
        empty(scratch, BLOCK if p.race != 0 else 0, np.uint32),
        new_stack(scratch),
        new_buffer(scratch, p.logits),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, body, arrays)


@njit
def accumulate_grouped(kind, work, p: Piece):
    """One worker: take segments of a piece until none is left."""
    _accumulate(kind, work, p, _grouped_item)


@njit
def accumulate_gumbel_max(kind, work, p: Piece):
    """The same for the race."""
    _accumulate(kind, work, p, _race_item)


@njit
def join_rows(kind, work, p: Joining):
    """Join each row's node with its right sibling."""
    for row in range(p.rows):
        left, right = p.left + 16 * int64(row), p.right + 16 * int64(row)
        r, s = scalar.join(
            load(_F, left, int64(0)), load(_F, left, int64(1)), load(_F, right, int64(0)), load(_F, right, int64(1))
        )
        store(_F, left, int64(0), r)
        store(_F, left, int64(1), s)


@njit
def merge_winners(kind, work, p: Merging):
    """Take the winners that go before the best."""
    for n in range(p.pairs):
        _take_better(p, int64(n), int64(n))


@inlined
def _finish_row(kind, work, p, row, arrays):
    temperature = row_temperature(p.temperatures, row)
    if not row_wanted(p.row_mask, row) or temperature == 0.0:
        write_empty(kind, p.results, row)
        return
    r, total = load(_F, p.roots, 2 * row), load(_F, p.roots, 2 * row + 1)
    if not total > 0.0:
        write_bad(kind, work, p.results, row)
        return
    high64, low64 = scalar.scale(temperature)
    write_logsumexp(kind, p.results, row, r, total)
    for s in range(p.results.samples):
        at = row * p.results.samples + int64(s)
        store(_I, p.results.indices, at, load(_I, p.best.integers, INTEGERS * at + 1))
        logit = load(_F, p.best.reals, REALS * at + 2)
        store_float(kind, p.results.log_prob, at, scalar.log_prob(logit, high64, low64, r, total))


@njit
def accumulated(kind, work, p: Finishing):
    """One worker: take rows, and write their results from their roots and winners."""
    each_item(kind, work, p, p.chunk_size, _finish_row, None)
