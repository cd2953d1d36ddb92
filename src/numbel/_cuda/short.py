"""Sampling of rows of up to 512 columns, several to a CUDA block: one launch, nothing kept between launches.

A row takes a power of two of the 512 lanes. What the lanes beyond a row would add to its sum is 0. Of ragged rows those
of fewer than `call.least` columns are drawn, all in as many lanes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, REFINEMENT, block_words, noise_word
from .._scalar.bits import from_ordered_float32, from_ordered_float64, ordered_float32, ordered_float64
from .._scalar.blocks import LANES
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .categorical import write_sample
from .forms import FORMS, THREADS, device, matrix
from .rows import CALL, DRAWN, GREEDY, INVALID, extents, identity_of, key_of, kind_of, results, temperature_of

_INF = math.inf
_NAN = math.nan
#: Samples that a CUDA block draws of its rows; more take several, each of which weighs the rows again.
SAMPLES = 32
#: What is done with a row of a tile, beside what `kind_of` says. It is not there, or other kernels draw it; or it holds
#: only -inf, and logsumexp alone is asked for.
ABSENT, EMPTY = 4, 5


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
def best_of_rows(keys, at, width):
    """The first of every row's `width` entries becomes its largest key and that one's place, the smaller on ties."""
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
    order = ordered_float64 if wide is float64 else ordered_float32
    unorder = from_ordered_float64 if wide is float64 else from_ordered_float32
    weight = scalar.weight_float64 if wide is float64 else scalar.weight_float32
    quantise = scalar.quantise_float64 if wide is float64 else scalar.quantise_float32
    plain_node = scalar.node if wide is float64 else scalar.plain_node_float32
    is_bounded = scalar.is_bounded_float64 if wide is float64 else scalar.is_bounded_float32
    is_possible = scalar.is_possible_float64 if wide is float64 else scalar.is_possible_float32
    ragged, (number, extent) = layout == "R", extents(layout)

    @device
    def power_of_rows(logits, call):
        """`power_of` the longest row of a tile."""
        return int64(power_of(call.least - 1 if ragged else int64(logits.shape[1])))

    @device
    def read_rows(logits, call, first, power, xs, tops, kinds, spoilt, at, highs, lows):
        """Logits of a tile of rows, -inf beyond their ends, and their order; what is done with each, and its scale."""
        t = cuda.threadIdx.x
        rows, width = number(logits, call), int64(1) << power
        for i in range(t, LANES >> power, THREADS):
            kind = kind_of(call, call.first_row + first + i) if first + i < rows else int64(ABSENT)
            if ragged and kind != ABSENT and extent(logits, call, first + i)[2] >= call.least:
                kind = int64(ABSENT)
            kinds[i], spoilt[i], at[i] = kind, 0, width
            highs[i], lows[i] = 0.0, 0.0
            if kind == DRAWN:
                highs[i], lows[i] = scalar.scale(temperature_of(call, call.first_row + first + i))
        cuda.syncthreads()
        for e in range(t, LANES, THREADS):
            i, c = e >> power, e & (width - 1)
            x = wide(-_INF)
            if kinds[i] == DRAWN or kinds[i] == GREEDY:
                line, start, columns = extent(logits, call, first + i)
                if c < columns:
                    x = wide(load(logits[uint64(line), uint64(start + c)]))
                    if not x < _INF:  # NaN, too
                        spoilt[i] = 1
            xs[e] = x
            tops[e] = int64(order(x))
        largest_of_rows(tops, width)

    @device
    def judge_rows(alone, power, tops, kinds, spoilt, highs, lows, references, shifts, rises, node_r):
        """Which rows are bad, and what the weights of the others are relative to; node_r is 1 where that is far."""
        for i in range(cuda.threadIdx.x, LANES >> power, THREADS):
            largest = wide(unorder(int64(tops[i << power])))
            drawable = is_bounded(largest, highs[i]) and is_possible(largest, highs[i])
            if kinds[i] == DRAWN or kinds[i] == GREEDY:
                if spoilt[i] != 0 or largest == -_INF:
                    kinds[i] = EMPTY if alone and spoilt[i] == 0 else INVALID
                elif kinds[i] == DRAWN and not drawable:
                    kinds[i] = INVALID
            references[i], shifts[i], rises[i] = wide(zero), wide(zero), 0
            if kinds[i] == DRAWN:
                high, _ = scalar.narrow(zero, highs[i], lows[i])
                r, rise, far = scalar.reference_of_maximum(largest, wide(high))
                references[i], rises[i] = wide(r), int64(rise)
                shifts[i] = largest if far else wide(zero)
                node_r[i] = 1.0 if far else 0.0
        cuda.syncthreads()

    @device
    def weight_of(xs, e, i, highs, lows, references, shifts):
        high, low = scalar.narrow(zero, highs[i], lows[i])
        return wide(weight(wide(xs[e] - shifts[i]), wide(high), wide(low), references[i]))

    @device
    def nodes_of_rows(lanes, power, kinds, highs, lows, references, shifts, node_r, node_s):
        """(r, S) of every row from its sum of weights."""
        for i in range(cuda.threadIdx.x, LANES >> power, THREADS):
            if kinds[i] == DRAWN:
                if node_r[i] == 1.0:
                    shift = float64(shifts[i])
                    node_r[i], node_s[i] = scalar.far_node(shift, highs[i], lows[i], float64(lanes[i << power]))
                else:
                    node_r[i], node_s[i] = plain_node(references[i], wide(lanes[i << power]))

    @device
    def write_rows(call, first, sample, samples, power, xs, tops, kinds, at, highs, lows, node_r, node_s, results):
        """One sample of every row, whose column is `at`."""
        for i in range(cuda.threadIdx.x, LANES >> power, THREADS):
            if kinds[i] != ABSENT:
                row, column, log_p, log_sum = call.first_row + first + i, int64(-1), _NAN, _NAN
                if kinds[i] == DRAWN:
                    column, log_sum = int64(at[i]), scalar.logsumexp(node_r[i], node_s[i])
                    x = float64(xs[(i << power) + column])
                    log_p = scalar.log_prob(x, highs[i], lows[i], node_r[i], node_s[i])
                elif kinds[i] == GREEDY:
                    top = float64(wide(unorder(int64(tops[i << power]))))
                    column, log_p = int64(at[i]), 0.0
                    log_sum = 0.0 if top == 0.0 else math.copysign(_INF, top)
                elif kinds[i] == EMPTY:
                    log_sum = -_INF
                is_bad = kinds[i] == INVALID
                write_sample(row, row * samples + sample, sample, column, log_p, log_sum, is_bad, results)

    def sample_short(logits, call, samples, results):
        """Draw the samples of a tile of rows, SAMPLES at a time; no samples: logsumexp alone, -inf where all are."""
        xs = cuda.shared.array(512, wide)
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(512, int64)
        counts = cuda.shared.array(1024, uint64)
        kinds = cuda.shared.array(128, int64)
        spoilt = cuda.shared.array(128, int64)
        at = cuda.shared.array(128, int64)
        rises = cuda.shared.array(128, int64)
        targets = cuda.shared.array(128, uint64)
        highs = cuda.shared.array(128, float64)
        lows = cuda.shared.array(128, float64)
        references = cuda.shared.array(128, wide)
        shifts = cuda.shared.array(128, wide)
        node_r = cuda.shared.array(128, float64)
        node_s = cuda.shared.array(128, float64)
        t = cuda.threadIdx.x
        power = power_of_rows(logits, call)
        width, tile = int64(1) << power, int64(LANES) >> power
        tiles = (number(logits, call) + tile - 1) // tile
        alone, samples = samples == 0, max(int64(samples), int64(1))
        runs = (samples + SAMPLES - 1) // SAMPLES
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), tiles * runs, int64(cuda.gridDim.x)):
            first = item // runs * tile
            first_sample = item % runs * SAMPLES
            read_rows(logits, call, first, power, xs, tops, kinds, spoilt, at, highs, lows)
            judge_rows(alone, power, tops, kinds, spoilt, highs, lows, references, shifts, rises, node_r)
            for e in range(t, LANES, THREADS):
                i = e >> power
                w, q = wide(zero), uint64(0)
                if kinds[i] == DRAWN:
                    w = weight_of(xs, e, i, highs, lows, references, shifts)
                    q = uint64(quantise(w, rises[i]))
                elif kinds[i] == GREEDY and xs[e] == wide(unorder(int64(tops[i << power]))):
                    cuda.atomic.min(at, i, e & (width - 1))
                lanes[e], counts[e] = w, q
            sums_of_rows(lanes, width)
            source = running_sums(counts, width)
            nodes_of_rows(lanes, power, kinds, highs, lows, references, shifts, node_r, node_s)
            for sample in range(first_sample, min(samples, first_sample + SAMPLES)):
                for i in range(t, tile, THREADS):
                    if kinds[i] == DRAWN:
                        identity = identity_of(call, call.first_row + first + i)
                        _, _, x2, x3 = block_words(uint64(0), uint64(sample), identity, uint64(GROUPED), key, mask)
                        word = (uint64(x2) << uint64(32)) | uint64(x3)
                        targets[i] = scalar.mulhi64(word, counts[source + ((i + 1) << power) - 1])
                cuda.syncthreads()
                for e in range(t, LANES, THREADS):
                    i, c = e >> power, e & (width - 1)
                    before = counts[source + e - 1] if c > 0 else uint64(0)
                    if kinds[i] == DRAWN and before <= targets[i] and targets[i] < counts[source + e]:
                        at[i] = c
                cuda.syncthreads()
                write_rows(
                    call, first, sample, samples, power, xs, tops, kinds, at, highs, lows, node_r, node_s, results
                )
                cuda.syncthreads()

    def largest_short(logits, call, samples, results):
        """`sample_short` by the largest perturbed logit: a thread for four columns, whose noise is one Philox block."""
        xs = cuda.shared.array(512, wide)
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(512, int64)
        kinds = cuda.shared.array(128, int64)
        spoilt = cuda.shared.array(128, int64)
        at = cuda.shared.array(128, int64)
        rises = cuda.shared.array(128, int64)
        highs = cuda.shared.array(128, float64)
        lows = cuda.shared.array(128, float64)
        references = cuda.shared.array(128, wide)
        shifts = cuda.shared.array(128, wide)
        node_r = cuda.shared.array(128, float64)
        node_s = cuda.shared.array(128, float64)
        keys = cuda.shared.array(128, float64)
        winners = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        summed = results.log_prob.size > 0 or results.logsumexp.size > 0 or results.sums.size > 0
        power = power_of_rows(logits, call)
        width, tile = int64(1) << power, int64(LANES) >> power
        tiles = (number(logits, call) + tile - 1) // tile
        runs = (samples + SAMPLES - 1) // SAMPLES
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), tiles * runs, int64(cuda.gridDim.x)):
            first = item // runs * tile
            first_sample = item % runs * SAMPLES
            read_rows(logits, call, first, power, xs, tops, kinds, spoilt, at, highs, lows)
            judge_rows(False, power, tops, kinds, spoilt, highs, lows, references, shifts, rises, node_r)
            for e in range(t, LANES, THREADS):
                i = e >> power
                lanes[e] = wide(zero)
                if summed and kinds[i] == DRAWN:
                    lanes[e] = weight_of(xs, e, i, highs, lows, references, shifts)
                elif kinds[i] == GREEDY and xs[e] == wide(unorder(int64(tops[i << power]))):
                    cuda.atomic.min(at, i, e & (width - 1))
            if summed:
                sums_of_rows(lanes, width)
                nodes_of_rows(lanes, power, kinds, highs, lows, references, shifts, node_r, node_s)
            for sample in range(first_sample, min(samples, first_sample + SAMPLES)):
                for quad in range(t, LANES // 4, THREADS):
                    i, c = quad * 4 >> power, quad * 4 & (width - 1)
                    best, winner, columns = -_INF, int64(-1), int64(0)
                    if kinds[i] == DRAWN:
                        _, _, columns = extent(logits, call, first + i)
                    if c < columns:
                        temperature = temperature_of(call, call.first_row + first + i)
                        identity = identity_of(call, call.first_row + first + i)
                        x0, x1, x2, x3 = block_words(uint64(c // 4), uint64(sample), identity, uint64(NOISE), key, mask)
                        for k in range(min(int64(4), columns - c)):
                            logit = float64(xs[quad * 4 + k])
                            z = logit / temperature
                            word = uint64(x0 if k == 0 else x1 if k == 1 else x2 if k == 2 else x3)
                            if logit != -_INF and not cannot_exceed(word, z, best):
                                y = noise_word(uint64(c + k), uint64(sample), identity, uint64(REFINEMENT), key, mask)
                                g = gumbel_float64(word, uint64(y))
                                value = z + g
                                place = int64(place_of(c + k, z, g, value))
                                if winner < 0 or goes_first(value, place, best, winner):
                                    best, winner = value, place
                    keys[quad], winners[quad] = best, winner
                best_of_rows(keys, winners, width >> 2)
                for i in range(t, tile, THREADS):
                    if kinds[i] == DRAWN:
                        at[i] = column_of(winners[i << (power - 2)])
                cuda.syncthreads()
                write_rows(
                    call, first, sample, samples, power, xs, tops, kinds, at, highs, lows, node_r, node_s, results
                )
                cuda.syncthreads()

    each = (matrix(form, layout), CALL, int64, results(wide))
    return {"sample_short": (sample_short, each), "largest_short": (largest_short, each)}
