"""Relaxed samples in three launches: weights of every block, what to divide them by, the division.

Weights wait in the output where it can hold them; half precision, or an output that is the input, makes them again.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint8, uint64

from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import NOISE
from .._scalar.bits import multiply_add
from .._scalar.blocks import LANES
from .._scalar.limits import BLOCK
from .blocks import find_extremes, functions, halve, scale_function
from .forms import FORMS, THREADS, block_items, device, matrix, thread_items, vector
from .noise import noise_of
from .rows import (
    CALL,
    DRAWN,
    INVALID,
    Columns,
    address_of,
    blocks_in,
    flag,
    key_of,
    pick,
    status_of,
    temperature_of,
    words_at,
)
from .shared import PER_THREAD, block_scratch

_INF = math.inf
_NAN = math.nan


class Perturbation(NamedTuple):
    """What perturbs the logits of a block: noise, if any, from an address, relative to the block's largest logit."""

    noisy: Any
    address: Any
    largest: Any


class Weights(NamedTuple):
    """Where weights are left, if `stored`."""

    stored: Any
    out: Any


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
    scale_of, scratch_of_block = scale_function(form), block_scratch(form)
    order, unorder, weight = form.arithmetic.order, form.arithmetic.unorder, form.arithmetic.weight
    lowest = order(type(zero)(-_INF))

    @device
    def perturbed(logits, line, column, words, perturbation):
        """The perturbed logit of a column relative to the block's largest; words are those of its four."""
        g = wide(zero)
        if perturbation.noisy:
            g = noise(pick(words, column % 4), column, perturbation.address)
        x = wide(load(logits[uint64(line), uint64(column)]))
        return wide(relaxed.perturbed(x, perturbation.largest, g))

    @device
    def largest_perturbed(logits, columns, perturbation, extremes):
        top = int64(lowest)
        for group in range(cuda.threadIdx.x, (columns.count + 3) // 4, THREADS):
            column = columns.start + 4 * group
            words = words_at(perturbation.address, column // 4, 0, NOISE)
            for c in range(column, min(column + 4, columns.start + columns.count)):
                top = max(top, int64(order(perturbed(logits, columns.line, c, words, perturbation))))
        cuda.syncthreads()
        extremes.largest[cuda.threadIdx.x], extremes.smallest[cuda.threadIdx.x] = top, int64(0)
        find_extremes(extremes)
        return wide(unorder(int64(extremes.largest[0])))

    @device
    def weigh(logits, columns, perturbation, top, scale, lanes, weights):
        """The sum of a block's weights relative to `top`, in the canonical order."""
        cuda.syncthreads()
        for quad in range(cuda.threadIdx.x, LANES // 4, THREADS):
            for k in range(4):
                lanes[4 * quad + k] = wide(zero)
            for base in range(4 * quad, columns.count, LANES):
                column = columns.start + base
                words = words_at(perturbation.address, column // 4, 0, NOISE)
                for c in range(column, min(column + 4, columns.start + columns.count)):
                    p = perturbed(logits, columns.line, c, words, perturbation)
                    w = wide(weight(wide(p - top), scale.high, scale.low, wide(zero)))
                    lanes[c % LANES] = wide(lanes[c % LANES] + w)
                    if weights.stored:
                        weights.out[uint64(columns.line), uint64(c)] = keep(w)
        halve(lanes, LANES)
        return wide(lanes[0])

    def weigh_blocks(logits, call, noisy, nodes, weights):
        """Numbers 0 to 2 of every block: m, D and S, which is NaN in a bad one; 4 and 5 stay m and D."""
        scratch = scratch_of_block()
        rows, of_row = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(of_row)
        key = key_of(call)
        for item in block_items(rows * blocks):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            columns = Columns(row, start, min(of_row - start, int64(BLOCK)))
            if status_of(call, call.first_row + row) == DRAWN:
                address = address_of(call, call.first_row + row, key)
                scale = scale_of(temperature_of(call, call.first_row + row))
                m, nan = block_max(logits, columns, scratch.extremes)
                top, total = m, float64(_NAN)
                if m == -_INF and not nan:
                    total = 0.0
                    if weights.stored:
                        for i in range(cuda.threadIdx.x, columns.count, THREADS):
                            weights.out[uint64(row), uint64(start + i)] = keep(wide(zero))
                elif m < _INF and not nan:
                    top, perturbation = wide(zero), Perturbation(noisy, address, m)
                    due = weigh(logits, columns, perturbation, top, scale, scratch.lanes, weights)
                    if not relaxed.in_range(due):
                        top = largest_perturbed(logits, columns, perturbation, scratch.extremes)
                        due = weigh(logits, columns, perturbation, top, scale, scratch.lanes, weights)
                    total = float64(due)
                if cuda.threadIdx.x == 0:
                    nodes[0, item], nodes[1, item], nodes[2, item] = float64(m), float64(top), total
                    nodes[4, item], nodes[5, item] = float64(m), float64(top)

    def normalise(columns, call, nodes, bad):
        """Number 3 of a row's blocks: what the weights are to be divided by."""
        lanes = cuda.shared.array(LANES, float64)
        reduced = cuda.shared.array(PER_THREAD, float64)
        flags = cuda.shared.array(PER_THREAD, int64)
        t = cuda.threadIdx.x
        blocks = blocks_in(columns)
        rows = nodes.shape[1] // blocks
        for row in block_items(rows):
            first = row * blocks
            status = status_of(call, call.first_row + row)
            if status == INVALID and t == 0:
                flag(bad, call.first_row + row)
            if status == DRAWN:
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

    def divide(logits, call, noisy, nodes, weights):
        """Weight over divisor, rounded; NaN in rows that are bad, masked out or of temperature 0."""
        out = weights.out
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        groups = (columns + 3) // 4
        key = key_of(call)
        for item in thread_items(rows * groups):
            row = item // groups
            column = (item - row * groups) * 4
            node = row * blocks + column // BLOCK
            last = min(column + 4, columns)
            if status_of(call, call.first_row + row) != DRAWN:
                for c in range(column, last):
                    out[uint64(row), uint64(c)] = keep(wide(_NAN))
            elif weights.stored:
                divisor = wide(nodes[3, node])
                for c in range(column, last):
                    w = wide(load(out[uint64(row), uint64(c)]))
                    out[uint64(row), uint64(c)] = keep(wide(relaxed.ratio(w, divisor)))
            else:
                divisor = wide(nodes[3, node])
                address = address_of(call, call.first_row + row, key)
                scale = scale_of(temperature_of(call, call.first_row + row))
                perturbation, top = Perturbation(noisy, address, wide(nodes[4, node])), wide(nodes[5, node])
                words = words_at(address, column // 4, 0, NOISE)
                for c in range(column, last):
                    w = wide(zero)
                    if nodes[2, node] > 0.0:
                        p = perturbed(logits, row, c, words, perturbation)
                        w = wide(weight(wide(p - top), scale.high, scale.low, wide(zero)))
                    out[uint64(row), uint64(c)] = keep(wide(relaxed.ratio(w, divisor)))

    rows, nodes = matrix(form, layout), matrix(FORMS["float64"], "C")
    each = (rows, CALL, uint8, nodes, types.NamedTuple([uint8, rows], Weights))
    return {
        "weigh_blocks": (weigh_blocks, each),
        "normalise": (normalise, (int64, CALL, nodes, vector(int64))),
        "divide": (divide, each),
    }
