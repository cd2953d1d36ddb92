"""One block of at most 4096 columns by the threads of one CUDA block: its sum, its largest logit, its node."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64, int64

from .._scalar import blocks as scalar
from .._scalar.bits import from_ordered_float32, from_ordered_float64, ordered_float32, ordered_float64
from .._scalar.blocks import BLOCK, LANES
from .forms import THREADS, Form, device

_INF = math.inf
_NAN = math.nan


@device
def halve(lanes, count):
    """lanes[0] becomes the sum of the first `count` (a power of two) by halves, as `_cpu.blocks.halve` has it."""
    t = cuda.threadIdx.x
    h = count >> 1
    while h > 0:
        cuda.syncthreads()
        for i in range(t, h, THREADS):
            lanes[i] += lanes[i + h]
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


def functions(form: Form) -> Any:
    """The device functions of this module for one element format."""
    wide, load, zero = form.wide, form.load, form.zero
    order = ordered_float64 if wide is float64 else ordered_float32
    unorder = from_ordered_float64 if wide is float64 else from_ordered_float32
    weight = scalar.weight_float64 if wide is float64 else scalar.weight_float32
    proves = scalar.proves_reference_float64 if wide is float64 else scalar.proves_reference_float32
    plain_node = scalar.node if wide is float64 else scalar.plain_node_float32
    lowest, highest = order(type(zero)(-_INF)), order(type(zero)(_INF))

    @device
    def block_max(logits, row, start, count, tops, bottoms):
        """The largest logit, and whether there is a NaN (then the first is meaningless)."""
        t = cuda.threadIdx.x
        top, bottom = int64(lowest), int64(highest)
        for i in range(t, count, THREADS):
            k = int64(order(wide(load(logits[row, start + i]))))
            top = max(top, k)
            bottom = min(bottom, k)
        cuda.syncthreads()  # who reads what stood there is done
        tops[t], bottoms[t] = top, bottom
        largest_of(tops, bottoms)
        top, bottom = int64(tops[0]), int64(bottoms[0])
        return wide(unorder(top)), top > int64(highest) or bottom < int64(lowest)

    @device
    def lane_sums(logits, row, start, count, high, low, r, shift, lanes):
        """The block's sum of 2^(z - r) in the canonical order; `shift` is subtracted from each logit."""
        t = cuda.threadIdx.x
        cuda.syncthreads()
        for lane in range(t, LANES, THREADS):
            total = wide(zero)
            for i in range(lane, count, LANES):
                x = wide(wide(load(logits[row, start + i])) - shift)
                total = wide(total + wide(weight(x, high, low, r)))
            lanes[lane] = total
        halve(lanes, LANES)
        return wide(lanes[0])

    @device
    def block_node(logits, row, block, columns, high64, low64, lanes, tops, bottoms):
        """(r, S) of a block: one pass under the reference 0, unless its largest logit lies in another cell."""
        start = block * BLOCK
        count = min(columns - start, int64(BLOCK))
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

    return SimpleNamespace(block_max=block_max, lane_sums=lane_sums, block_node=block_node)
