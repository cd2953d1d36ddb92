"""Relaxed samples in three launches: weights of every block, what to divide them by, the division.

Weights wait in the output where it can hold them; half precision, or an output that is the input, makes them again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint8, uint64

from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import NOISE, block_words
from .._scalar.bits import (
    from_ordered_float32,
    from_ordered_float64,
    multiply_add,
    ordered_float32,
    ordered_float64,
)
from .._scalar.blocks import BLOCK, LANES
from .blocks import functions, halve, largest_of
from .forms import FORMS, THREADS, device, matrix, vector
from .noise import noise_of
from .rows import CALL, DRAWN, INVALID, flag, identity_of, key_of, kind_of, temperature_of

_INF = math.inf
_NAN = math.nan


@device
def sum_over_blocks(nodes, which, first, blocks, lanes):
    """lanes[0] becomes the sum of one number of each block, in the canonical order."""
    cuda.syncthreads()
    for lane in range(cuda.threadIdx.x, LANES, THREADS):
        total = 0.0
        for b in range(lane, blocks, LANES):
            total += nodes[which, first + b]
        lanes[lane] = total
    halve(lanes, min(LANES, blocks))


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep, zero = form.wide, form.load, form.store, form.zero
    block_max, noise = functions(form).block_max, noise_of(form)
    weight = scalar.weight_float64 if wide is float64 else scalar.weight_float32
    order = ordered_float64 if wide is float64 else ordered_float32
    unorder = from_ordered_float64 if wide is float64 else from_ordered_float32
    lowest = order(type(zero)(-_INF))

    @device
    def perturbed(logits, row, column, words, noisy, identity, key, mask, m):
        """The perturbed logit of a column relative to the block's largest logit m; words are those of its four."""
        k = column % 4
        word = words[0] if k == 0 else words[1] if k == 1 else words[2] if k == 2 else words[3]
        g = noise(word, column, identity, key, mask) if noisy else wide(zero)
        return wide(relaxed.perturbed(wide(load(logits[uint64(row), uint64(column)])), m, g))

    @device
    def largest_perturbed(logits, row, start, count, noisy, identity, key, mask, m, tops, bottoms):
        top = int64(lowest)
        for group in range(cuda.threadIdx.x, (count + 3) // 4, THREADS):
            column = start + 4 * group
            words = block_words(uint64(column // 4), uint64(0), identity, uint64(NOISE), key, mask)
            for c in range(column, min(column + 4, start + count)):
                top = max(top, int64(order(perturbed(logits, row, c, words, noisy, identity, key, mask, m))))
        cuda.syncthreads()
        tops[cuda.threadIdx.x], bottoms[cuda.threadIdx.x] = top, int64(0)
        largest_of(tops, bottoms)
        return wide(unorder(int64(tops[0])))

    @device
    def weigh(logits, row, start, count, noisy, identity, key, mask, m, top, high, low, lanes, out, stored):
        """The sum of a block's weights in the canonical order, and, if stored, the weights into `out`."""
        cuda.syncthreads()
        for quad in range(cuda.threadIdx.x, LANES // 4, THREADS):
            for k in range(4):
                lanes[4 * quad + k] = wide(zero)
            for base in range(4 * quad, count, LANES):
                column = start + base
                words = block_words(uint64(column // 4), uint64(0), identity, uint64(NOISE), key, mask)
                for c in range(column, min(column + 4, start + count)):
                    p = perturbed(logits, row, c, words, noisy, identity, key, mask, m)
                    w = wide(weight(wide(p - top), high, low, wide(zero)))
                    lanes[c % LANES] = wide(lanes[c % LANES] + w)
                    if stored:
                        out[uint64(row), uint64(c)] = keep(w)
        halve(lanes, LANES)
        return wide(lanes[0])

    def weigh_blocks(logits, call, noisy, stored, nodes, out):
        """Numbers 0 to 2 of every block: m, D and S, which is NaN in a bad one; 4 and 5 stay m and D."""
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), rows * blocks, int64(cuda.gridDim.x)):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            count = min(columns - start, int64(BLOCK))
            if kind_of(call, call.first_row + row) == DRAWN:
                identity = identity_of(call, call.first_row + row)
                high64, low64 = scalar.scale(temperature_of(call, call.first_row + row))
                high, low = scalar.narrow(zero, high64, low64)
                high, low = wide(high), wide(low)
                m, nan = block_max(logits, row, start, count, tops, bottoms)
                top, total = m, float64(_NAN)
                if m == -_INF and not nan:
                    total = 0.0
                    if stored:
                        for i in range(cuda.threadIdx.x, count, THREADS):
                            out[uint64(row), uint64(start + i)] = keep(wide(zero))
                elif m < _INF and not nan:
                    top = wide(zero)
                    due = weigh(
                        logits, row, start, count, noisy, identity, key, mask, m, top, high, low, lanes, out, stored
                    )
                    if not relaxed.in_range(due):
                        top = largest_perturbed(logits, row, start, count, noisy, identity, key, mask, m, tops, bottoms)
                        due = weigh(
                            logits, row, start, count, noisy, identity, key, mask, m, top, high, low, lanes, out, stored
                        )
                    total = float64(due)
                if cuda.threadIdx.x == 0:
                    nodes[0, item], nodes[1, item], nodes[2, item] = float64(m), float64(top), total
                    nodes[4, item], nodes[5, item] = float64(m), float64(top)

    def normalise(columns, call, nodes, bad):
        """Number 3 of a row's blocks: what the weights are to be divided by."""
        lanes = cuda.shared.array(512, float64)
        reduced = cuda.shared.array(128, float64)
        flags = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        blocks = (columns + BLOCK - 1) // BLOCK
        rows = nodes.shape[1] // blocks
        for row in range(int64(cuda.blockIdx.x), rows, int64(cuda.gridDim.x)):
            first = row * blocks
            kind = kind_of(call, call.first_row + row)
            if kind == INVALID and t == 0:
                flag(bad, call.first_row + row)
            if kind == DRAWN:
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                largest, good = -_INF, 1
                for b in range(first + t, first + blocks, THREADS):
                    total = nodes[2, b]
                    if total != 0.0 and nodes[0, b] > largest:
                        largest = nodes[0, b]
                    if total != total:
                        good = 0
                reduced[t], flags[t] = largest, good
                h = THREADS >> 1
                while h > 0:
                    cuda.syncthreads()
                    if t < h:
                        reduced[t] = max(reduced[t], reduced[t + h])
                        flags[t] = min(flags[t], flags[t + h])
                    h >>= 1
                cuda.syncthreads()
                largest, good = reduced[0], flags[0]
                cuda.syncthreads()
                top = -_INF
                for b in range(first + t, first + blocks, THREADS):
                    offset = relaxed.block_offset(nodes[0, b], nodes[1, b], largest)
                    nodes[1, b] = offset
                    if nodes[2, b] > 0.0:
                        top = max(top, offset)
                reduced[t] = top
                h = THREADS >> 1
                while h > 0:
                    cuda.syncthreads()
                    if t < h:
                        reduced[t] = max(reduced[t], reduced[t + h])
                    h >>= 1
                cuda.syncthreads()
                top = reduced[0]
                is_good = good != 0 and top > -_INF
                # a lane's blocks are those of the thread that has just written them: THREADS divides LANES
                for lane in range(t, LANES, THREADS):
                    sum_of_lane = 0.0
                    for b in range(first + lane, first + blocks, LANES):
                        total = nodes[2, b]
                        scale = relaxed.block_scale(nodes[1, b], top, high, low) if total > 0.0 else 0.0
                        nodes[0, b] = scale
                        sum_of_lane = multiply_add(total, scale, sum_of_lane)
                    lanes[lane] = sum_of_lane
                halve(lanes, LANES)
                for b in range(first + t, first + blocks, THREADS):
                    # where the scale is 0, so are the weights, and they stay 0 over an infinite divisor
                    nodes[3, b] = relaxed.ratio(lanes[0], nodes[0, b]) if is_good else _NAN
                if t == 0 and not is_good:
                    flag(bad, call.first_row + row)
                cuda.syncthreads()

    def divide(logits, call, noisy, stored, nodes, out):
        """Weight over divisor, rounded; NaN in rows that are bad, masked out or of temperature 0."""
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        groups = (columns + 3) // 4
        key, mask = key_of(call)
        step = int64(cuda.gridDim.x) * THREADS
        for item in range(int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x, rows * groups, step):
            row = item // groups
            column = (item - row * groups) * 4
            node = row * blocks + column // BLOCK
            last = min(column + 4, columns)
            if kind_of(call, call.first_row + row) != DRAWN:
                for c in range(column, last):
                    out[uint64(row), uint64(c)] = keep(wide(_NAN))
            elif stored:
                divisor = wide(nodes[3, node])
                for c in range(column, last):
                    out[uint64(row), uint64(c)] = keep(
                        wide(relaxed.ratio(wide(load(out[uint64(row), uint64(c)])), divisor))
                    )
            else:
                divisor = wide(nodes[3, node])
                identity = identity_of(call, call.first_row + row)
                high64, low64 = scalar.scale(temperature_of(call, call.first_row + row))
                high, low = scalar.narrow(zero, high64, low64)
                m, top = wide(nodes[4, node]), wide(nodes[5, node])
                words = block_words(uint64(column // 4), uint64(0), identity, uint64(NOISE), key, mask)
                for c in range(column, last):
                    w = wide(zero)
                    if nodes[2, node] > 0.0:
                        p = perturbed(logits, row, c, words, noisy, identity, key, mask, m)
                        w = wide(weight(wide(p - top), wide(high), wide(low), wide(zero)))
                    out[uint64(row), uint64(c)] = keep(wide(relaxed.ratio(w, divisor)))

    rows, nodes = matrix(form, layout), matrix(FORMS["float64"], "C")
    each = (rows, CALL, uint8, uint8, nodes, rows)
    return {
        "weigh_blocks": (weigh_blocks, each),
        "normalise": (normalise, (int64, CALL, nodes, vector(int64))),
        "divide": (divide, each),
    }
