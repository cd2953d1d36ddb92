"""method="gumbel_max": the argmax of logits / T + the public float64 noise, which is never stored.

The noise is monotone in its first word x, so comparing raw words finds the few columns that could win
(about the logarithm of the row's length); only they draw a second word and take logarithms. The filter
is conservative and carries no promised bits: any tile size, order or starting value gives the same
winner.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, int32, int64, uint32, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import REFINEMENT, noise_word
from .._scalar.bits import bits_to_float, fma
from .._scalar.elementary import LOG2E, exp_float64
from .._scalar.gumbel import column_of, goes_first, gumbel_float64, place_of
from .._scalar.limits import BLOCK
from .blocks import (
    block_at,
    block_max,
    block_node,
    collapse,
    new_buffer,
    new_lanes,
    new_stack,
    push,
    row_stream,
    scale_of,
)
from .categorical import forget_winners, new_winners, segment_blocks, store_segment
from .memory import atomic_add, element_size, load, zero
from .noise import fill_noise_and_ask
from .records import row_address, row_and_segment, row_temperature
from .results import is_settled, write_bad, write_logsumexp, write_sample
from .scratch import empty, lacks_scratch, open_scratch
from .signatures import Sampling
from .workers import each_item

_INF = math.inf
_NAN = math.nan
#: Columns that are looked at one by one when one of them passes the filter.
_GROUP = 64
#: Columns that share a maximum in the second test.
_TILE = 512


class Race(NamedTuple):
    """The noise of a sample of a row, and what logits are divided by."""

    stream: Any
    sample: Any
    temperature: Any


class Filter(NamedTuple):
    """What tells columns that may win from their first words and logits alone."""

    largest: Any  # of the columns
    rate: Any  # log2(e) / T, in units of a float32's exponent
    exact: Any  # whether nothing may be told so


@njit
def race_key(x, word, column, race):
    """(logit / T + G, its place among equals): what decides."""
    stream = race.stream
    y = noise_word(uint64(column), uint64(race.sample), stream.row, uint64(REFINEMENT), stream.key, stream.mask)
    z, g = float64(x) / race.temperature, gumbel_float64(uint64(word), y)
    return z + g, place_of(column, z, g, z + g)


@inlined
def rate_of(temperature):
    """`Filter.rate`."""
    rate, _ = scalar.narrow(float32(0), LOG2E / temperature * 8388608.0, 0.0)
    return rate


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


class Columns(NamedTuple):
    """Columns of a block, contiguous, and the first words of their noise."""

    address: Any
    x: Any
    first: Any  # column of the row at `address`


@njit
def _scan(kind, columns, first, last, sieve, race, best):
    """Best (key, place) after columns first .. last - 1 of the block, one by one."""
    key, at = best
    limit = _limit(key, at, sieve.largest, race.temperature)
    for i in range(first, last):
        logit = load(kind, columns.address, int64(i))
        word = columns.x[uint64(i)]
        if logit == -_INF:
            continue
        if not sieve.exact and not _below(word) <= _above(logit, sieve.largest, sieve.rate) * limit:
            continue
        value, place = race_key(logit, word, columns.first + int64(i), race)
        if at < 0 or goes_first(value, place, key, at):
            key, at = value, place
            limit = _limit(key, at, sieve.largest, race.temperature)
    return key, at


@njit
def _any_candidate(kind, columns, first, last, sieve, limit):
    """Whether one of the columns passes the filter."""
    found = int32(0)
    for i in range(uint64(first), uint64(last)):
        logit = load(kind, columns.address, int64(i))
        hit = int32(_below(columns.x[i]) <= _above(logit, sieve.largest, sieve.rate) * limit)
        found = int32(found | hit)
    return found != int32(0)


@njit
def best_of_block(kind, columns, count, asks, sieve, race, best):
    """Best (key, place) after a block; if `asks`, its logits lie in memory where more follow."""
    ahead = columns.address if asks and race.sample == 0 else int64(0)
    fill_noise_and_ask(ahead, element_size(kind), columns.x, count, columns.first, race.sample, race.stream)
    if sieve.exact:
        return _scan(kind, columns, 0, count, sieve, race, best)
    # no weight exceeds the largest's, 1: most blocks end here, most of the others' tiles at the same test
    if not _below(_smallest(columns.x, 0, count)) <= _limit(best[0], best[1], sieve.largest, race.temperature):
        return best
    for first in range(0, count, _TILE):
        last = min(first + _TILE, count)
        nearest, _ = block_max(kind, columns.address + first * element_size(kind), last - first)
        if nearest == -_INF:
            continue
        limit = _limit(best[0], best[1], nearest, race.temperature)
        if not _below(_smallest(columns.x, first, last)) <= limit:
            continue
        near = Filter(nearest, sieve.rate, sieve.exact)
        for start in range(first, last, _GROUP):
            end = min(start + _GROUP, last)
            if _any_candidate(kind, columns, start, end, near, limit):
                best = _scan(kind, columns, start, end, near, race, best)
                limit = _limit(best[0], best[1], nearest, race.temperature)
    return best


class _Arrays(NamedTuple):
    lanes: Any
    x: Any
    winners: Any
    stack: Any
    buffer: Any


@njit
def new_arrays(kind, p, scratch):
    """A worker's."""
    return _Arrays(
        new_lanes(scratch, kind),
        empty(scratch, BLOCK, np.uint32),
        new_winners(scratch, uint64(p.results.samples)),
        new_stack(scratch),
        new_buffer(scratch, p.logits),
    )


@njit
def _segment(kind, p, row, segment, scale, arrays):
    """(r, S or NaN if the row is bad) of a segment of a row; the best keys and places in the arrays."""
    guess = zero(kind)
    temperature = row_temperature(p.temperatures, row)
    rate = rate_of(temperature)
    sums = p.results.logsumexp != 0 or p.results.log_prob != 0
    first, last = segment_blocks(p, segment)
    address, stream = row_address(p.logits, row), row_stream(p.stream, row)
    contiguous = p.logits.column_stride == p.logits.item_size
    winners = arrays.winners
    bad = False
    forget_winners(winners, p.results.samples, -_INF)
    for b in range(first, last):
        block = int64(b)
        at, count = block_at(kind, p.logits, address, block, arrays.buffer)
        if sums:
            guess, r, total = block_node(kind, at, count, scale, guess, arrays.lanes)
            push(arrays.stack, block - first, r, total)
        largest, nan = block_max(kind, at, count)
        if nan or not scalar.is_bounded(largest, scale.high64):
            bad = True
            continue
        if not scalar.is_possible(largest, scale.high64):
            continue
        sieve = Filter(largest, rate, not filters(largest, temperature))
        columns = Columns(at, arrays.x, block * BLOCK)
        for s in range(uint64(p.results.samples)):
            race = Race(stream, p.results.first_sample + int64(s), temperature)
            best = winners.keys[s], winners.places[s]
            winners.keys[s], winners.places[s] = best_of_block(kind, columns, count, contiguous, sieve, race, best)
    r, total = collapse(arrays.stack, last - first) if sums else (0.0, 0.0)
    return r, _NAN if bad else total


@njit
def _join_segments(p, row, stack, winners):
    """The same of a row from its segments, and its winners."""
    forget_winners(winners, p.results.samples, -_INF)
    found, samples = p.found, p.results.samples
    bad = False
    for g in range(p.split.segments):
        item = row * p.split.segments + int64(g)
        total = load(float64(0), found.s, item)
        bad = bad or total != total
        push(stack, int64(g), load(float64(0), found.r, item), total)
        for s in range(uint64(samples)):
            at = item * samples + int64(s)
            value, winner = load(float64(0), found.keys, at), load(int64(0), found.winners, at)
            if winner >= 0 and (winners.places[s] < 0 or goes_first(value, winner, winners.keys[s], winners.places[s])):
                winners.keys[s], winners.places[s] = value, winner
    r, total = collapse(stack, p.split.segments)
    return r, _NAN if bad else total


@njit
def _write_row(kind, work, p, row, scale, root, winners):
    if root[1] != root[1] or winners.places[0] < 0:
        write_bad(kind, work, p.results, row)
        return
    write_logsumexp(kind, p.results, row, root[0], root[1])
    for s in range(p.results.samples):
        write_sample(kind, p, row, int64(s), column_of(winners.places[uint64(s)]), scale, root)


@inlined
def sample_segment(kind, work, p, row, segment, arrays):
    """Sample a segment, and write the row if it is the row's last one."""
    if is_settled(kind, work, p, row, segment):
        return
    scale = scale_of(kind, row_temperature(p.temperatures, row))
    root = _segment(kind, p, row, segment, scale, arrays)
    if p.split.segments > 1:
        store_segment(p, row * p.split.segments + segment, root, arrays.winners)
        if atomic_add(p.split.pending + 8 * row, int64(-1)) > 1:
            return
        root = _join_segments(p, row, arrays.stack, arrays.winners)
    _write_row(kind, work, p, row, scale, root, arrays.winners)


@inlined
def _item(kind, work, p, item, arrays):
    row, segment = row_and_segment(p.split, p.logits.rows, item)
    sample_segment(kind, work, p, row, segment, arrays)


@njit
def gumbel_max(kind, work, p: Sampling):
    """One worker: take segments until none is left."""
    scratch = open_scratch(work)
    arrays = new_arrays(kind, p, scratch)
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)
