"""One block of at most 4096 columns by the threads of one CUDA block: its sum, its largest logit, its node."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.bits import from_ordered_float32, from_ordered_float64, ordered_float32, ordered_float64
from .._scalar.blocks import BLOCK, LANES
from .forms import THREADS, Form, device
from .quads import QUAD, aligned, quad

_INF = math.inf
_NAN = math.nan


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
def largest_of(tops, bottoms):
    """tops[0] becomes the largest of its THREADS entries, bottoms[0] the smallest."""
    t = cuda.threadIdx.x
    h = THREADS >> 1
    while h > 0:
        cuda.syncthreads()
        if t < h:
            if tops[t + h] > tops[t]:
                tops[t] = tops[t + h]
            if bottoms[t + h] < bottoms[t]:
                bottoms[t] = bottoms[t + h]
        h >>= 1
    cuda.syncthreads()


@device
def best_of(keys, at, left=1):
    """keys[0], at[0] become the largest key and its column, the smaller on ties; a NaN key wins, column -1 never.

    Or the first `left` entries the largest of as many groups.
    """
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
def functions(form: Form, layout: str = "A", value: Any = None) -> Any:
    """The device functions of this module for an element format and layout.

    `value` reads a logit of what they are given, where that is more than an array.
    """
    quads = layout == "C" and value is None
    wide, load, zero = form.wide, form.load, form.zero
    value = plain_value(form) if value is None else value
    order = ordered_float64 if wide is float64 else ordered_float32
    unorder = from_ordered_float64 if wide is float64 else from_ordered_float32
    weight = scalar.weight_float64 if wide is float64 else scalar.weight_float32
    quantise = scalar.quantise_float64 if wide is float64 else scalar.quantise_float32
    proves = scalar.proves_reference_float64 if wide is float64 else scalar.proves_reference_float32
    plain_node = scalar.node if wide is float64 else scalar.plain_node_float32
    lowest, highest = order(type(zero)(-_INF)), order(type(zero)(_INF))

    @device
    def block_max(logits, row, start, count, tops, bottoms):
        """The largest logit, and whether there is a NaN (then the first is meaningless)."""
        t = cuda.threadIdx.x
        top, bottom = int64(lowest), int64(highest)
        for i in range(t, count, THREADS):
            k = int64(order(value(logits, row, start + i)))
            top = max(top, k)
            bottom = min(bottom, k)
        cuda.syncthreads()  # who reads what stood there is done
        tops[t], bottoms[t] = top, bottom
        largest_of(tops, bottoms)
        top, bottom = int64(tops[0]), int64(bottoms[0])
        return wide(unorder(top)), top > int64(highest) or bottom < int64(lowest)

    @device
    def term(x, shift, high, low, r):
        """The weight of a logit, from which `shift` is subtracted."""
        return wide(weight(wide(x - shift), high, low, r))

    @device
    def add_quad(sums, x, shift, high, low, r):
        """The sums of four lanes with another element each."""
        return (
            wide(sums[0] + term(wide(load(x[0])), shift, high, low, r)),
            wide(sums[1] + term(wide(load(x[1])), shift, high, low, r)),
            wide(sums[2] + term(wide(load(x[2])), shift, high, low, r)),
            wide(sums[3] + term(wide(load(x[3])), shift, high, low, r)),
        )

    @device
    def lane_sums(logits, row, start, count, high, low, r, shift, lanes):
        """The block's sum of 2^(z - r) in the canonical order; `shift` is subtracted from each logit."""
        cuda.syncthreads()
        base = uint64(start)
        if quads:
            line = uint64(row)
            if count == BLOCK and aligned(logits, line, base):
                for k in range(LANES // THREADS // QUAD):
                    lane = uint64(cuda.threadIdx.x + k * THREADS) * uint64(QUAD)
                    sums = wide(zero), wide(zero), wide(zero), wide(zero)
                    for j in range(0, BLOCK, 4 * LANES):  # four loads are under way at once
                        at = base + lane + uint64(j)
                        x, y = quad(logits, line, at), quad(logits, line, at + uint64(LANES))
                        z, w = quad(logits, line, at + uint64(2 * LANES)), quad(logits, line, at + uint64(3 * LANES))
                        sums = add_quad(sums, x, shift, high, low, r)
                        sums = add_quad(sums, y, shift, high, low, r)
                        sums = add_quad(sums, z, shift, high, low, r)
                        sums = add_quad(sums, w, shift, high, low, r)
                    lanes[lane], lanes[lane + uint64(1)] = sums[0], sums[1]
                    lanes[lane + uint64(2)], lanes[lane + uint64(3)] = sums[2], sums[3]
                halve(lanes, LANES)
                return wide(lanes[0])
        for k in range(LANES // THREADS):
            lane = uint64(cuda.threadIdx.x + k * THREADS)
            total = wide(zero)
            if count == BLOCK:  # a loop of known length: its eight loads are under way at once
                for j in range(BLOCK // LANES):
                    x = value(logits, row, base + lane + uint64(j * LANES))
                    total = wide(total + term(x, shift, high, low, r))
            else:
                for i in range(lane, uint64(count), uint64(LANES)):
                    total = wide(total + term(value(logits, row, base + i), shift, high, low, r))
            lanes[lane] = total
        halve(lanes, LANES)
        return wide(lanes[0])

    @device
    def block_node(logits, row, first, block, columns, high64, low64, lanes, tops, bottoms):
        """(r, S) of a block: one pass under the reference 0, unless its largest logit lies in another cell."""
        count = min(columns - block * BLOCK, int64(BLOCK))
        start = first + block * BLOCK
        high, low = scalar.narrow(zero, high64, low64)
        high, low = wide(high), wide(low)
        total = lane_sums(logits, row, start, count, high, low, wide(zero), wide(zero), lanes)
        if proves(total):
            return plain_node(wide(zero), total)
        largest, nan = block_max(logits, row, start, count, tops, bottoms)
        if nan or largest == _INF:
            return 0.0, _NAN
        if largest == -_INF:
            return 0.0, 0.0
        r, _, far = scalar.reference_of_maximum(largest, high)
        total = lane_sums(logits, row, start, count, high, low, wide(r), wide(largest if far else zero), lanes)
        if far:
            return scalar.far_node(float64(largest), high64, low64, float64(total))
        return plain_node(wide(r), total)

    @device
    def choose_column(logits, row, start, count, high64, low64, word, sums, at, bottoms):
        """at[0] becomes the column at which the choice by a word of 64 bits falls in a block."""
        t = cuda.threadIdx.x
        high, low = scalar.narrow(zero, high64, low64)
        high, low = wide(high), wide(low)
        largest, _ = block_max(logits, row, start, count, at, bottoms)
        r, rise, far = scalar.reference_of_maximum(largest, high)
        r, shift = wide(r), wide(largest if far else zero)
        own = BLOCK // THREADS
        total = uint64(0)
        for i in range(t * own, min((t + 1) * own, count)):
            total += uint64(quantise(term(value(logits, row, start + i), shift, high, low, r), rise))
        sums[t] = total
        cuda.syncthreads()
        before, whole = uint64(0), uint64(0)
        for i in range(THREADS):
            if i < t:
                before += sums[i]
            whole += sums[i]
        target = uint64(scalar.mulhi64(word, whole))
        if before <= target and target < before + total:
            running = before
            for i in range(t * own, min((t + 1) * own, count)):
                running += uint64(quantise(term(value(logits, row, start + i), shift, high, low, r), rise))
                if running > target:
                    at[0] = start + i
                    break
        cuda.syncthreads()

    @device
    def argmax(logits, row, first, columns, keys, at):
        """(column, logsumexp, whether bad) at temperature 0: the first largest logit, and the limit of max / T."""
        t = cuda.threadIdx.x
        top, column = -_INF, int64(-1)
        for c in range(t, columns, THREADS):
            x = float64(value(logits, row, first + c))
            if top == top and (x != x or x > top):
                top, column = x, int64(c)
        keys[t], at[t] = top, column
        best_of(keys, at)
        top, column = keys[0], int64(at[0])
        cuda.syncthreads()
        if column < 0 or not abs(top) < _INF:
            return int64(-1), _NAN, True
        return column, 0.0 if top == 0.0 else math.copysign(_INF, top), False

    return SimpleNamespace(
        block_max=block_max, lane_sums=lane_sums, block_node=block_node, choose_column=choose_column, argmax=argmax
    )
