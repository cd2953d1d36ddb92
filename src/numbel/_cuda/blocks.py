"""One block of at most 4096 columns by the threads of one CUDA block: its sum, its largest logit, its node."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.blocks import LANES
from .._scalar.limits import BLOCK
from .forms import THREADS, Form, device
from .quads import QUAD, aligned, quad

_INF = math.inf
_NAN = math.nan


class Scale(NamedTuple):
    """log2(e) / T in two parts: of float64, and of the dtype of the arithmetic."""

    high64: Any
    low64: Any
    high: Any
    low: Any


class Reference(NamedTuple):
    """What weights are relative to: their exponent, and what is subtracted from logits before."""

    exponent: Any
    shift: Any


@device
def halve(lanes, count):
    """lanes[0] becomes the sum of the first `count` by halves: 256 onto 0, then 128, ..., 1."""
    h = LANES >> 1
    while h > 0:
        cuda.syncthreads()
        if h < count:
            for i in range(cuda.threadIdx.x, min(h, count - h), THREADS):
                lanes[i] += lanes[i + h]
            count = h
        h >>= 1
    cuda.syncthreads()


@device
def find_extremes(extremes):
    """largest[0] becomes the largest of its THREADS entries, smallest[0] the smallest."""
    largest, smallest = extremes
    t = cuda.threadIdx.x
    h = THREADS >> 1
    while h > 0:
        cuda.syncthreads()
        if t < h:
            if largest[t + h] > largest[t]:
                largest[t] = largest[t + h]
            if smallest[t + h] < smallest[t]:
                smallest[t] = smallest[t + h]
        h >>= 1
    cuda.syncthreads()


@device
def best_of(entries, left=1):
    """The first entry becomes that of the largest key, the smaller place on ties; a NaN key wins, place -1 never.

    Or the first `left` entries the largest of as many groups.
    """
    keys, at = entries
    t = cuda.threadIdx.x
    h = THREADS >> 1
    while h >= left:
        cuda.syncthreads()
        if t < h:
            mine, other = keys[t], keys[t + h]
            tie = other == mine and at[t + h] >= 0 and (at[t] < 0 or at[t + h] < at[t])
            if mine == mine and (other != other or other > mine or tie):
                keys[t], at[t] = other, at[t + h]
        h >>= 1
    cuda.syncthreads()


@functools.cache
def plain_value(form: Form) -> Any:
    """The device function that reads a logit."""
    wide, load = form.wide, form.load

    @device
    def value(logits, row, column):
        return wide(load(logits[uint64(row), uint64(column)]))

    return value


@functools.cache
def scale_function(form: Form) -> Any:
    """The device function that gives the Scale of a temperature."""
    wide, zero = form.wide, form.zero

    @device
    def scale_of(temperature):
        high64, low64 = scalar.scale(temperature)
        high, low = scalar.narrow(zero, high64, low64)
        return Scale(high64, low64, wide(high), wide(low))

    return scale_of


@functools.cache
def functions(form: Form, layout: str = "A", value: Any = None) -> Any:
    """The device functions of this module for an element format and layout.

    `value` reads a logit of what they are given, where that is more than an array.
    """
    quads = layout == "C" and value is None
    wide, load, zero = form.wide, form.load, form.zero
    value = plain_value(form) if value is None else value
    order, unorder, weight = form.arithmetic.order, form.arithmetic.unorder, form.arithmetic.weight
    quantise, proves = form.arithmetic.quantise, form.arithmetic.proves_reference
    partial_sum = form.arithmetic.partial_sum
    lowest, highest = order(type(zero)(-_INF)), order(type(zero)(_INF))

    @device
    def block_max(logits, columns, extremes):
        """The largest logit, and whether there is a NaN (then the first is meaningless)."""
        t = cuda.threadIdx.x
        top, bottom = int64(lowest), int64(highest)
        for i in range(t, columns.count, THREADS):
            k = int64(order(value(logits, columns.line, columns.start + i)))
            top = max(top, k)
            bottom = min(bottom, k)
        cuda.syncthreads()  # who reads what stood there is done
        extremes.largest[t], extremes.smallest[t] = top, bottom
        find_extremes(extremes)
        top, bottom = int64(extremes.largest[0]), int64(extremes.smallest[0])
        return wide(unorder(top)), top > int64(highest) or bottom < int64(lowest)

    @device
    def term(x, scale, reference):
        """The weight of a logit."""
        return wide(weight(wide(x - reference.shift), scale.high, scale.low, reference.exponent))

    @device
    def add_quad(sums, x, scale, reference):
        """The sums of four lanes with another element each."""
        return (
            wide(sums[0] + term(wide(load(x[0])), scale, reference)),
            wide(sums[1] + term(wide(load(x[1])), scale, reference)),
            wide(sums[2] + term(wide(load(x[2])), scale, reference)),
            wide(sums[3] + term(wide(load(x[3])), scale, reference)),
        )

    @device
    def fill_lanes(logits, columns, scale, reference, lanes):
        """The sums of a block's lanes."""
        cuda.syncthreads()
        base = uint64(columns.start)
        if quads:
            line = uint64(columns.line)
            if columns.count == BLOCK and aligned(logits, line, base):
                for k in range(LANES // THREADS // QUAD):
                    lane = uint64(cuda.threadIdx.x + k * THREADS) * uint64(QUAD)
                    sums = wide(zero), wide(zero), wide(zero), wide(zero)
                    for j in range(0, BLOCK, 4 * LANES):  # four loads are under way at once
                        at = base + lane + uint64(j)
                        x, y = quad(logits, line, at), quad(logits, line, at + uint64(LANES))
                        z, w = quad(logits, line, at + uint64(2 * LANES)), quad(logits, line, at + uint64(3 * LANES))
                        sums = add_quad(sums, x, scale, reference)
                        sums = add_quad(sums, y, scale, reference)
                        sums = add_quad(sums, z, scale, reference)
                        sums = add_quad(sums, w, scale, reference)
                    lanes[lane], lanes[lane + uint64(1)] = sums[0], sums[1]
                    lanes[lane + uint64(2)], lanes[lane + uint64(3)] = sums[2], sums[3]
                return
        for k in range(LANES // THREADS):
            lane = uint64(cuda.threadIdx.x + k * THREADS)
            total = wide(zero)
            if columns.count == BLOCK:  # a loop of known length: its eight loads are under way at once
                for j in range(BLOCK // LANES):
                    x = value(logits, columns.line, base + lane + uint64(j * LANES))
                    total = wide(total + term(x, scale, reference))
            else:
                for i in range(lane, uint64(columns.count), uint64(LANES)):
                    total = wide(total + term(value(logits, columns.line, base + i), scale, reference))
            lanes[lane] = total

    @device
    def lane_sums(logits, columns, scale, reference, lanes):
        """The sum of a block's weights in the canonical order."""
        fill_lanes(logits, columns, scale, reference, lanes)
        halve(lanes, LANES)
        return wide(lanes[0])

    @device
    def block_sum(logits, columns, scale, scratch):
        """(exponent, mantissa) of a block: one pass at exponent 0, unless its largest logit lies in another cell."""
        total = lane_sums(logits, columns, scale, Reference(wide(zero), wide(zero)), scratch.lanes)
        if proves(total):
            return partial_sum(wide(zero), total)
        largest, nan = block_max(logits, columns, scratch.extremes)
        if nan or largest == _INF:
            return 0.0, _NAN
        if largest == -_INF:
            return 0.0, 0.0
        r, _, far = scalar.reference_of_maximum(largest, scale.high)
        reference = Reference(wide(r), wide(largest if far else zero))
        total = lane_sums(logits, columns, scale, reference, scratch.lanes)
        if far:
            return scalar.far_node(float64(largest), scale.high64, scale.low64, float64(total))
        return partial_sum(wide(r), total)

    @device
    def choose_in_lane(logits, columns, lane, rest, scale, weighing):
        """The column of a lane that `rest` falls on: the first largest has what the others leave of the lane."""
        reference, rise = weighing
        heaviest, top = lane, wide(zero)
        for i in range(lane, columns.count, LANES):
            w = term(value(logits, columns.line, columns.start + i), scale, reference)
            if w > top:
                heaviest, top = i, w
        for i in range(lane, columns.count, LANES):
            if i != heaviest:
                share = uint64(quantise(term(value(logits, columns.line, columns.start + i), scale, reference), rise))
                if rest < share:
                    return i
                rest -= share
        return heaviest

    @device
    def choose_column(logits, columns, scale, word, scratch):
        """extremes.largest[0] becomes the column at which the choice by a word of 64 bits falls in a block."""
        t = cuda.threadIdx.x
        lanes, sums = scratch.lanes, scratch.sums
        largest, _ = block_max(logits, columns, scratch.extremes)
        r, rise, far = scalar.reference_of_maximum(largest, scale.high)
        reference = Reference(wide(r), wide(largest if far else zero))
        fill_lanes(logits, columns, scale, reference, lanes)
        cuda.syncthreads()
        own = LANES // THREADS
        total = uint64(0)
        for lane in range(t * own, (t + 1) * own):
            total += uint64(quantise(lanes[lane], rise))
        sums[t] = total
        cuda.syncthreads()
        before, whole = uint64(0), uint64(0)
        for i in range(THREADS):
            if i < t:
                before += sums[i]
            whole += sums[i]
        target = uint64(scalar.mulhi64(word, whole))
        if before <= target and target < before + total:
            rest, lane = target - before, int64(t * own)
            q = uint64(quantise(lanes[lane], rise))
            while rest >= q:
                rest, lane = rest - q, lane + 1
                q = uint64(quantise(lanes[lane], rise))
            column = choose_in_lane(logits, columns, lane, rest, scale, (reference, rise))
            scratch.extremes.largest[0] = columns.start + column
        cuda.syncthreads()

    @device
    def argmax(logits, columns, entries):
        """(column, logsumexp, whether bad) at temperature 0: the first largest logit, and the limit of max / T."""
        keys, at = entries
        t = cuda.threadIdx.x
        top, column = -_INF, int64(-1)
        for c in range(t, columns.count, THREADS):
            x = float64(value(logits, columns.line, columns.start + c))
            if top == top and (x != x or x > top):
                top, column = x, int64(c)
        keys[t], at[t] = top, column
        best_of(entries)
        top, column = keys[0], int64(at[0])
        cuda.syncthreads()
        if column < 0 or not abs(top) < _INF:
            return int64(-1), _NAN, True
        return column, 0.0 if top == 0.0 else math.copysign(_INF, top), False

    return SimpleNamespace(block_max=block_max, block_sum=block_sum, choose_column=choose_column, argmax=argmax)
