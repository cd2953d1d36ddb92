"""method="gumbel_max": the argmax of logits / T + the public float64 noise, which is never stored.

The noise is monotone in its first word x, so comparing raw words finds the few columns that could win
(about the logarithm of the row's length); only they draw a second word and take logarithms. The filter
is conservative and carries no promised bits: any tile size, order or starting value gives the same
winner.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int32, int64, uint32, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import REFINEMENT, draw_key, noise_word
from .._scalar.bits import bits_to_float, fma
from .._scalar.blocks import BLOCK, LANES
from .._scalar.elementary import LOG2E, exp_float64
from .._scalar.gumbel import column_of, goes_first, gumbel_float64, place_of
from .blocks import LEVELS, block_address, block_max, block_node, collapse, push
from .job import job_at, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_add, element_size, load, store, zero
from .noise import fill_noise_and_ask
from .results import write_argmax, write_bad, write_empty, write_logsumexp, write_sample
from .scratch import empty, lacks_scratch, open_scratch, workspace

_INF = math.inf
_NAN = math.nan
#: Columns that are looked at one by one when one of them passes the filter.
_GROUP = 64
#: Columns that share a maximum in the second test.
_TILE = 512


@njit
def race_key(x, word, temperature, column, sample, row, key, mask):
    """(logit / T + G, its place among equals): what decides."""
    y = noise_word(uint64(column), uint64(sample), row, uint64(REFINEMENT), key, mask)
    z, g = float64(x) / temperature, gumbel_float64(uint64(word), y)
    return z + g, place_of(column, z, g, z + g)


@njit
def _smallest(x, first, last):
    """The smallest of uint32 words first .. last - 1."""
    smallest = uint32(0xFFFFFFFF)
    for i in range(uint64(first), uint64(last)):
        smallest = min(smallest, x[i])
    return smallest


@inlined
def _below(word):
    """A float32 not above v = (word + 1/2) 2^-32."""
    return bits_to_float(int32((uint32(word) >> uint32(9)) | uint32(0x3F800000))) - float32(1.0)


@inlined
def _above(x, largest, rate):
    """A float32 not below exp((x - largest) / T): the exponent's linear interpolation, at most 1.062 of it."""
    z = fma(float32(x - largest), rate, float32(127.0 * 8388608.0))
    return bits_to_float(int32(max(z, float32(0.0))))


@inlined
def filters(largest, temperature):
    """Whether the filter is conservative: float32 resolves largest / T, and no difference of logits / T overflows it.

    At a temperature beyond 1e30 a difference of 3.4e38, which float32 does not hold, may be small.
    """
    return abs(float64(largest) / temperature) <= 4194304.0 and temperature < 1e30


@njit
def _limit(best, at, largest, temperature):
    """exp(largest / T - best) with the filter's slack 2^-12: what v of the largest logit must stay below."""
    gap = float64(largest) / temperature - best
    if at < 0 or not gap < 80.0:
        return float32(3.0e38)
    return float32(exp_float64(max(gap, -80.0)) * (1.0 + 2.0**-12))


@njit
def _scan(kind, address, first, last, x, largest, rate, temperature, exact, column, sample, row, key, mask, best, at):
    """Best (key, place) after columns first .. last - 1 of the block, one by one."""
    limit = _limit(best, at, largest, temperature)
    for i in range(first, last):
        logit = load(kind, address, int64(i))
        word = x[uint64(i)]
        if logit == -_INF:
            continue
        if not exact and not _below(word) <= _above(logit, largest, rate) * limit:
            continue
        value, place = race_key(logit, word, temperature, column + int64(i), sample, row, key, mask)
        if at < 0 or goes_first(value, place, best, at):
            best, at = value, place
            limit = _limit(best, at, largest, temperature)
    return best, at


@njit
def _any_candidate(kind, address, first, last, x, largest, rate, limit):
    """Whether one of the columns passes the filter."""
    found = int32(0)
    for i in range(uint64(first), uint64(last)):
        hit = int32(_below(x[i]) <= _above(load(kind, address, int64(i)), largest, rate) * limit)
        found = int32(found | hit)
    return found != int32(0)


@njit
def best_of_block(
    kind, address, asks, count, x, largest, rate, temperature, exact, column, sample, row, key, mask, best, at
):
    """Best (key, place) after a block; if `asks`, its logits lie in memory where more follow."""
    ahead = address if asks and sample == 0 else int64(0)
    fill_noise_and_ask(ahead, element_size(kind), x, count, uint64(column), uint64(sample), row, key, mask)
    if exact:
        return _scan(
            kind, address, 0, count, x, largest, rate, temperature, exact, column, sample, row, key, mask, best, at
        )
    # no weight exceeds the largest's, 1: most blocks end here, most of the others' tiles at the same test
    if not _below(_smallest(x, 0, count)) <= _limit(best, at, largest, temperature):
        return best, at
    for first in range(0, count, _TILE):
        last = min(first + _TILE, count)
        nearest, _ = block_max(kind, address + first * element_size(kind), last - first)
        if nearest == -_INF:
            continue
        limit = _limit(best, at, nearest, temperature)
        if not _below(_smallest(x, first, last)) <= limit:
            continue
        for start in range(first, last, _GROUP):
            end = min(start + _GROUP, last)
            if _any_candidate(kind, address, start, end, x, nearest, rate, limit):
                best, at = _scan(
                    kind, address, start, end, x, nearest, rate, temperature, exact,
                    column, sample, row, key, mask, best, at,
                )  # fmt: skip
                limit = _limit(best, at, nearest, temperature)
    return best, at


@njit
def _write_row(kind, j, row, high64, low64, r, total, bad, winners):
    if bad or winners[0] < 0:
        write_bad(kind, j, row)
        return
    write_logsumexp(kind, j, row, r, total)
    for s in range(j.samples):
        write_sample(kind, j, row, int64(s), column_of(winners[uint64(s)]), high64, low64, r, total)


@njit
def _segment(kind, j, row, first, last, temperature, keys, winners, stack_r, stack_s, lanes, x, buffer):
    """(r, S, whether bad) of blocks first .. last - 1 of a row; the best keys and places in the arrays."""
    high64, low64 = scalar.scale(temperature)
    z = zero(kind)
    high, low = scalar.narrow(z, high64, low64)
    guess = z
    rate, _ = scalar.narrow(float32(0), LOG2E / temperature * 8388608.0, 0.0)
    sums = j.logsumexp != 0 or j.log_prob != 0
    address = row_address(j, row)
    identity = uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    bad = False
    for s in range(uint64(j.samples)):
        keys[s], winners[s] = -_INF, int64(-1)
    for b in range(first, last):
        block = int64(b)
        count = min(j.columns - block * BLOCK, int64(BLOCK))
        at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
        if sums:
            guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
            push(stack_r, stack_s, block - first, r, total)
        largest, nan = block_max(kind, at, count)
        if nan or not scalar.is_bounded(largest, high64):
            bad = True
            continue
        if not scalar.is_possible(largest, high64):
            continue
        exact = not filters(largest, temperature)
        for s in range(uint64(j.samples)):
            keys[s], winners[s] = best_of_block(
                kind, at, j.column_stride == j.item_size, count, x, largest, rate, temperature, exact,
                block * BLOCK, j.first_sample + int64(s), identity, key, mask, keys[s], winners[s],
            )  # fmt: skip
    r, total = collapse(stack_r, stack_s, last - first) if sums else (0.0, 0.0)
    return r, total, bad


@njit
def gumbel_max(kind, job):
    """One worker: take segments until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    samples = uint64(j.samples)
    lanes = workspace(scratch, kind, LANES)
    x = empty(scratch, BLOCK, np.uint32)
    keys, winners = empty(scratch, samples, np.float64), empty(scratch, samples, np.int64)
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
            if not row_wanted(j, row):
                if segment == 0:
                    write_empty(kind, j, row)
                continue
            temperature = row_temperature(j, row)
            if temperature == 0.0:
                if segment == 0:
                    write_argmax(kind, j, row)
                continue
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            r, total, bad = _segment(
                kind, j, row, first, last, temperature, keys, winners, stack_r, stack_s, lanes, x, buffer
            )
            if j.segments > 1:
                own = row * j.segments + segment
                store(float64(0), j.node_r, own, r)
                store(float64(0), j.node_s, own, _NAN if bad else total)
                for s in range(samples):
                    store(float64(0), j.winner_key, own * j.samples + int64(s), keys[s])
                    store(int64(0), j.winner_at, own * j.samples + int64(s), winners[s])
                if atomic_add(j.pending + 8 * row, int64(-1)) > 1:
                    continue
                for s in range(samples):
                    keys[s], winners[s] = -_INF, int64(-1)
                for g in range(j.segments):
                    other = row * j.segments + int64(g)
                    s_node = load(float64(0), j.node_s, other)
                    bad = bad or s_node != s_node
                    push(stack_r, stack_s, int64(g), load(float64(0), j.node_r, other), s_node)
                    for s in range(samples):
                        at = other * j.samples + int64(s)
                        value, winner = load(float64(0), j.winner_key, at), load(int64(0), j.winner_at, at)
                        if winner >= 0 and (winners[s] < 0 or goes_first(value, winner, keys[s], winners[s])):
                            keys[s], winners[s] = value, winner
                r, total = collapse(stack_r, stack_s, j.segments)
            high64, low64 = scalar.scale(temperature)
            _write_row(kind, j, row, high64, low64, r, total, bad, winners)
