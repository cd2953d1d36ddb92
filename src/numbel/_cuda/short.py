"""Sampling of rows of up to 512 columns, several to a CUDA block: one launch, nothing kept between launches.

A row takes a power of two of the 512 lanes. What the lanes beyond a row would add to its sum is 0. Of ragged rows those
of fewer than `call.least` columns are drawn, all in as many lanes.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, REFINEMENT
from .._scalar.blocks import LANES
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .categorical import Outcome, write_sample
from .forms import FORMS, THREADS, block_items, device, matrix
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    INVALID,
    address_of,
    choice_word,
    extents,
    key_of,
    pick,
    results,
    status_of,
    temperature_of,
    word_at,
    words_at,
)
from .shared import Entries

_INF = math.inf
_NAN = math.nan
#: Samples that a CUDA block draws of its rows; more take several, each of which weighs the rows again.
SAMPLES = 32
#: What is done with a row of a tile, beside what `status_of` says. It is not there, or other kernels draw it; or it
#: holds only -inf, and logsumexp alone is asked for.
ABSENT, EMPTY = 4, 5


#: Rows of a tile at most: of 4 lanes each, whose columns one thread perturbs.
ROWS = LANES // 4
#: Running sums before and after a step.
_RUNNING = 2 * LANES


class Tile(NamedTuple):
    """Which rows a CUDA block has: the first of them, and log2 of the lanes that each takes."""

    first: Any
    power: Any


class Lanes(NamedTuple):
    """Of every lane of a tile its logit, its weight and its logit's order, in shared memory."""

    logits: Any
    weights: Any
    ordered: Any


class Rows(NamedTuple):
    """Of every row of a tile what is done with it, whether it holds NaN or +inf, and its sample's column."""

    status: Any
    spoilt: Any
    column: Any


class Scales(NamedTuple):
    """Of every row of a tile log2(e) / T, in two float64."""

    high: Any
    low: Any


class References(NamedTuple):
    """Of every row of a tile its `blocks.Reference`, and the exponent's offset for `quantise`."""

    exponent: Any
    shift: Any
    offset: Any


class Sums(NamedTuple):
    """Of every row of a tile its partial sum; before that, an exponent of 1 tells that its shift is not 0."""

    exponent: Any
    mantissa: Any


class TileScratch(NamedTuple):
    """Shared memory of a tile."""

    lanes: Any
    rows: Any
    scales: Any
    references: Any
    sums: Any


@device
def power_of(columns):
    """A row takes two to this many lanes, 4 at least: a leader thread for every row."""
    power = int64(2)
    while int64(1) << power < columns:
        power += int64(1)
    return power


@device
def largest_of_rows(tops, width):
    """The first lane of every row becomes its largest."""
    h = width >> 1
    while h > 0:
        cuda.syncthreads()
        for e in range(cuda.threadIdx.x, LANES, THREADS):
            if e & (width - 1) < h and tops[e + h] > tops[e]:
                tops[e] = tops[e + h]
        h >>= 1
    cuda.syncthreads()


@device
def sums_of_rows(lanes, width):
    """The first lane of every row becomes its sum by halves, in the canonical order."""
    h = width >> 1
    while h > 0:
        cuda.syncthreads()
        for e in range(cuda.threadIdx.x, LANES, THREADS):
            if e & (width - 1) < h:
                lanes[e] += lanes[e + h]
        h >>= 1
    cuda.syncthreads()


@device
def running_sums(counts, width):
    """Where the sums of every row up to each lane begin: in the first half of `counts`, or in the second."""
    source, h = 0, 1
    while h < width:
        cuda.syncthreads()
        for e in range(cuda.threadIdx.x, LANES, THREADS):
            value = counts[source + e]
            if e & (width - 1) >= h:
                value += counts[source + e - h]
            counts[LANES - source + e] = value
        source = LANES - source
        h *= 2
    cuda.syncthreads()
    return source


@device
def best_of_rows(entries, width):
    """The first of every row's `width` entries becomes its largest key and that one's place, the smaller on ties."""
    keys, at = entries
    h = width >> 1
    while h > 0:
        cuda.syncthreads()
        for e in range(cuda.threadIdx.x, LANES // 4, THREADS):
            if e & (width - 1) < h and at[e + h] >= 0:
                tie = keys[e + h] == keys[e] and at[e + h] < at[e]
                if at[e] < 0 or keys[e + h] > keys[e] or tie:
                    keys[e], at[e] = keys[e + h], at[e + h]
        h >>= 1
    cuda.syncthreads()


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, zero = form.wide, form.load, form.zero
    order, unorder, weight = form.arithmetic.order, form.arithmetic.unorder, form.arithmetic.weight
    quantise, partial_sum = form.arithmetic.quantise, form.arithmetic.partial_sum
    is_bounded, is_possible = form.arithmetic.is_bounded, form.arithmetic.is_possible
    ragged, (number, extent) = layout == "R", extents(layout)

    @device
    def power_of_rows(logits, call):
        """`power_of` the longest row of a tile."""
        return int64(power_of(call.least - 1 if ragged else int64(logits.shape[1])))

    @device
    def scratch_of_tile():
        logits = cuda.shared.array(LANES, wide)
        weights = cuda.shared.array(LANES, wide)
        ordered = cuda.shared.array(LANES, int64)
        status = cuda.shared.array(ROWS, int64)
        spoilt = cuda.shared.array(ROWS, int64)
        column = cuda.shared.array(ROWS, int64)
        offset = cuda.shared.array(ROWS, int64)
        high = cuda.shared.array(ROWS, float64)
        low = cuda.shared.array(ROWS, float64)
        exponent = cuda.shared.array(ROWS, wide)
        shift = cuda.shared.array(ROWS, wide)
        sum_exponent = cuda.shared.array(ROWS, float64)
        mantissa = cuda.shared.array(ROWS, float64)
        return TileScratch(
            Lanes(logits, weights, ordered),
            Rows(status, spoilt, column),
            Scales(high, low),
            References(exponent, shift, offset),
            Sums(sum_exponent, mantissa),
        )

    @device
    def read_rows(logits, call, tile, scratch):
        """Logits of a tile of rows, -inf beyond their ends, and their order; what is done with each, and its scale."""
        t = cuda.threadIdx.x
        lanes, rows, scales, _, _ = scratch
        first, power = tile
        count, width = number(logits, call), int64(1) << power
        for i in range(t, LANES >> power, THREADS):
            status = status_of(call, call.first_row + first + i) if first + i < count else int64(ABSENT)
            if ragged and status != ABSENT and extent(logits, call, first + i).count >= call.least:
                status = int64(ABSENT)
            rows.status[i], rows.spoilt[i], rows.column[i] = status, 0, width
            scales.high[i], scales.low[i] = 0.0, 0.0
            if status == DRAWN:
                scales.high[i], scales.low[i] = scalar.scale(temperature_of(call, call.first_row + first + i))
        cuda.syncthreads()
        for e in range(t, LANES, THREADS):
            i, c = e >> power, e & (width - 1)
            x = wide(-_INF)
            if rows.status[i] == DRAWN or rows.status[i] == GREEDY:
                columns = extent(logits, call, first + i)
                if c < columns.count:
                    x = wide(load(logits[uint64(columns.line), uint64(columns.start + c)]))
                    if not x < _INF:  # NaN, too
                        rows.spoilt[i] = 1
            lanes.logits[e] = x
            lanes.ordered[e] = int64(order(x))
        largest_of_rows(lanes.ordered, width)

    @device
    def judge_rows(alone, power, scratch):
        """Which rows are bad, and what the weights of the others are relative to."""
        lanes, rows, scales, references, sums = scratch
        status = rows.status
        for i in range(cuda.threadIdx.x, LANES >> power, THREADS):
            largest = wide(unorder(int64(lanes.ordered[i << power])))
            drawable = is_bounded(largest, scales.high[i]) and is_possible(largest, scales.high[i])
            if status[i] == DRAWN or status[i] == GREEDY:
                if rows.spoilt[i] != 0 or largest == -_INF:
                    status[i] = EMPTY if alone and rows.spoilt[i] == 0 else INVALID
                elif status[i] == DRAWN and not drawable:
                    status[i] = INVALID
            references.exponent[i], references.shift[i], references.offset[i] = wide(zero), wide(zero), 0
            if status[i] == DRAWN:
                high, _ = scalar.narrow(zero, scales.high[i], scales.low[i])
                r, offset, far = scalar.reference_of_maximum(largest, wide(high))
                references.exponent[i], references.offset[i] = wide(r), int64(offset)
                references.shift[i] = largest if far else wide(zero)
                sums.exponent[i] = 1.0 if far else 0.0
        cuda.syncthreads()

    @device
    def weight_of(x, i, scratch):
        """The weight of a logit of row i."""
        scales, references = scratch.scales, scratch.references
        high, low = scalar.narrow(zero, scales.high[i], scales.low[i])
        return wide(weight(wide(x - references.shift[i]), wide(high), wide(low), references.exponent[i]))

    @device
    def sums_of_tile(power, scratch):
        """The partial sum of every row from its sum of weights."""
        lanes, rows, scales, references, sums = scratch
        for i in range(cuda.threadIdx.x, LANES >> power, THREADS):
            if rows.status[i] == DRAWN:
                total = lanes.weights[i << power]
                if sums.exponent[i] == 1.0:
                    shift = float64(references.shift[i])
                    sums.exponent[i], sums.mantissa[i] = scalar.far_node(
                        shift, scales.high[i], scales.low[i], float64(total)
                    )
                else:
                    sums.exponent[i], sums.mantissa[i] = partial_sum(references.exponent[i], wide(total))

    @device
    def write_rows(call, tile, sample, samples, scratch, results):
        """One sample of every row."""
        lanes, rows, scales, _, sums = scratch
        first, power = tile
        for i in range(cuda.threadIdx.x, LANES >> power, THREADS):
            status = rows.status[i]
            if status != ABSENT:
                row, column, log_p, log_sum = call.first_row + first + i, int64(-1), _NAN, _NAN
                if status == DRAWN:
                    column, log_sum = int64(rows.column[i]), scalar.logsumexp(sums.exponent[i], sums.mantissa[i])
                    x = float64(lanes.logits[(i << power) + column])
                    log_p = scalar.log_prob(x, scales.high[i], scales.low[i], sums.exponent[i], sums.mantissa[i])
                elif status == GREEDY:
                    top = float64(wide(unorder(int64(lanes.ordered[i << power]))))
                    column, log_p = int64(rows.column[i]), 0.0
                    log_sum = 0.0 if top == 0.0 else math.copysign(_INF, top)
                elif status == EMPTY:
                    log_sum = -_INF
                outcome = Outcome(column, log_p, log_sum, status == INVALID)
                write_sample(results, row, row * samples + sample, sample, outcome)

    def sample_short(logits, call, samples, results):
        """Draw the samples of a tile of rows, SAMPLES at a time; no samples: logsumexp alone, -inf where all are."""
        scratch = scratch_of_tile()
        counts = cuda.shared.array(_RUNNING, uint64)
        targets = cuda.shared.array(ROWS, uint64)
        lanes, status, at = scratch.lanes, scratch.rows.status, scratch.rows.column
        t = cuda.threadIdx.x
        power = power_of_rows(logits, call)
        width, of_tile = int64(1) << power, int64(LANES) >> power
        tiles = (number(logits, call) + of_tile - 1) // of_tile
        alone, samples = samples == 0, max(int64(samples), int64(1))
        runs = (samples + SAMPLES - 1) // SAMPLES
        key = key_of(call)
        for item in block_items(tiles * runs):
            tile = Tile(item // runs * of_tile, power)
            first_sample = item % runs * SAMPLES
            read_rows(logits, call, tile, scratch)
            judge_rows(alone, power, scratch)
            for e in range(t, LANES, THREADS):
                i = e >> power
                w, q = wide(zero), uint64(0)
                if status[i] == DRAWN:
                    w = weight_of(lanes.logits[e], i, scratch)
                    q = uint64(quantise(w, scratch.references.offset[i]))
                elif status[i] == GREEDY and lanes.logits[e] == wide(unorder(int64(lanes.ordered[i << power]))):
                    cuda.atomic.min(at, i, e & (width - 1))
                lanes.weights[e], counts[e] = w, q
            sums_of_rows(lanes.weights, width)
            source = running_sums(counts, width)
            sums_of_tile(power, scratch)
            for sample in range(first_sample, min(samples, first_sample + SAMPLES)):
                for i in range(t, of_tile, THREADS):
                    if status[i] == DRAWN:
                        word = choice_word(address_of(call, call.first_row + tile.first + i, key), 0, sample, GROUPED)
                        targets[i] = scalar.mulhi64(word, counts[source + ((i + 1) << power) - 1])
                cuda.syncthreads()
                for e in range(t, LANES, THREADS):
                    i, c = e >> power, e & (width - 1)
                    before = counts[source + e - 1] if c > 0 else uint64(0)
                    if status[i] == DRAWN and before <= targets[i] and targets[i] < counts[source + e]:
                        at[i] = c
                cuda.syncthreads()
                write_rows(call, tile, sample, samples, scratch, results)
                cuda.syncthreads()

    def largest_short(logits, call, samples, results):
        """`sample_short` by the largest perturbed logit: a thread for four columns, whose noise is one Philox block."""
        scratch = scratch_of_tile()
        keys = cuda.shared.array(ROWS, float64)
        places = cuda.shared.array(ROWS, int64)
        lanes, status, at, winners = scratch.lanes, scratch.rows.status, scratch.rows.column, Entries(keys, places)
        t = cuda.threadIdx.x
        summed = results.log_prob.size > 0 or results.logsumexp.size > 0 or results.logsumexp64.size > 0
        power = power_of_rows(logits, call)
        width, of_tile = int64(1) << power, int64(LANES) >> power
        tiles = (number(logits, call) + of_tile - 1) // of_tile
        runs = (samples + SAMPLES - 1) // SAMPLES
        key = key_of(call)
        for item in block_items(tiles * runs):
            tile = Tile(item // runs * of_tile, power)
            first_sample = item % runs * SAMPLES
            read_rows(logits, call, tile, scratch)
            judge_rows(False, power, scratch)
            for e in range(t, LANES, THREADS):
                i = e >> power
                lanes.weights[e] = wide(zero)
                if summed and status[i] == DRAWN:
                    lanes.weights[e] = weight_of(lanes.logits[e], i, scratch)
                elif status[i] == GREEDY and lanes.logits[e] == wide(unorder(int64(lanes.ordered[i << power]))):
                    cuda.atomic.min(at, i, e & (width - 1))
            if summed:
                sums_of_rows(lanes.weights, width)
                sums_of_tile(power, scratch)
            for sample in range(first_sample, min(samples, first_sample + SAMPLES)):
                for quad in range(t, LANES // 4, THREADS):
                    i, c = quad * 4 >> power, quad * 4 & (width - 1)
                    best, winner, count = -_INF, int64(-1), int64(0)
                    if status[i] == DRAWN:
                        count = extent(logits, call, tile.first + i).count
                    if c < count:
                        temperature = temperature_of(call, call.first_row + tile.first + i)
                        address = address_of(call, call.first_row + tile.first + i, key)
                        words = words_at(address, c // 4, sample, NOISE)
                        for k in range(min(int64(4), count - c)):
                            logit = float64(lanes.logits[quad * 4 + k])
                            z = logit / temperature
                            word = uint64(pick(words, k))
                            if logit != -_INF and not cannot_exceed(word, z, best):
                                g = gumbel_float64(word, uint64(word_at(address, c + k, sample, REFINEMENT)))
                                value = z + g
                                place = int64(place_of(c + k, z, g, value))
                                if winner < 0 or goes_first(value, place, best, winner):
                                    best, winner = value, place
                    keys[quad], places[quad] = best, winner
                best_of_rows(winners, width >> 2)
                for i in range(t, of_tile, THREADS):
                    if status[i] == DRAWN:
                        at[i] = column_of(places[i << (power - 2)])
                cuda.syncthreads()
                write_rows(call, tile, sample, samples, scratch, results)
                cuda.syncthreads()

    each = (matrix(form, layout), CALL, int64, results(wide))
    return {"sample_short": (sample_short, each), "largest_short": (largest_short, each)}
