"""Loops over one block of at most 4096 columns: its node, its maximum, the choice inside; and the dyadic tree."""

from __future__ import annotations

import math

from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, block_words
from .._scalar.blocks import BLOCK, LANES
from .ahead import ask_ahead
from .memory import copy, element_size, load, zero
from .scratch import address_of

_INF = math.inf
_NAN = math.nan
#: Columns whose quantised weights are summed together before the choice looks at single ones.
_CHUNK = 256
CHUNKS = BLOCK // _CHUNK
#: Deeper than any tree over 2^34 columns.
LEVELS = 32


@njit
def block_address(kind, row, column_stride, item_size, block, count, buffer):
    """Address of a block as contiguous elements; strided columns are gathered into the array `buffer`.

    It is the array that callers hand on: Numba frees one whose address alone is used later.
    """
    first = row + block * BLOCK * column_stride
    if column_stride == item_size:
        return first
    at = address_of(buffer)
    for i in range(count):
        copy(kind, at, int64(i), first + int64(i) * column_stride)
    return at


@njit
def halve(lanes, count):
    """lanes[0] becomes the sum by halves: 256 onto 0, then 128, ..., 1; lanes from count on are +0."""
    h = uint64(LANES // 2)
    while h > uint64(0):
        if h < count:
            for i in range(min(h, count - h)):
                lanes[i] += lanes[i + h]
            count = h
        h >>= uint64(1)


@njit
def lane_sums(kind, address, count, high, low, r, shift, lanes):
    """The block's sum of 2^(z - r) in the canonical order; `shift` is subtracted from each logit, or None."""
    rounds = int64(count) // LANES
    rest = int64(count) - rounds * LANES
    first = uint64(LANES if rounds > 0 else rest)
    ask_ahead(kind, address)
    for i in range(first):
        x = load(kind, address, int64(i))
        lanes[i] = scalar.weight(x if shift is None else x - shift, high, low, r)
    for j in range(1, rounds):
        start = int64(j) * LANES
        ask_ahead(kind, address + start * element_size(kind))
        for i in range(uint64(LANES)):
            x = load(kind, address, start + int64(i))
            lanes[i] += scalar.weight(x if shift is None else x - shift, high, low, r)
    if rounds > 0:
        start = rounds * LANES
        for i in range(uint64(rest)):
            x = load(kind, address, start + int64(i))
            lanes[i] += scalar.weight(x if shift is None else x - shift, high, low, r)
    halve(lanes, first)
    return lanes[0]


@njit
def block_max(kind, address, count):
    """The largest logit, and whether there is a NaN (then the first is meaningless)."""
    # integers: LLVM does not reorder a maximum of floats (9 against 30 G/s)
    top = scalar.ordered(zero(kind) - type(zero(kind))(_INF))
    bottom = scalar.ordered(zero(kind) + type(zero(kind))(_INF))
    for i in range(uint64(count)):
        k = scalar.ordered(load(kind, address, int64(i)))
        top = k if k > top else top
        bottom = k if k < bottom else bottom
    nan = top > scalar.ordered(type(zero(kind))(_INF)) or bottom < scalar.ordered(type(zero(kind))(-_INF))
    return scalar.from_ordered(top), nan


@njit
def _careful_node(kind, address, count, high64, low64, high, low, guess, total, lanes):
    """`block_node` where the sum under the guessed reference proves nothing."""
    largest, nan = block_max(kind, address, count)
    if nan or largest == _INF:
        return guess, 0.0, _NAN
    if largest == -_INF:
        return guess, 0.0, 0.0
    r, _, far = scalar.reference_of_maximum(largest, high)
    if far:
        total = lane_sums(kind, address, count, high, low, r, largest, lanes)
        far_r, far_s = scalar.far_node(float64(largest), high64, low64, float64(total))
        return guess, far_r, far_s
    if r != guess:
        total = lane_sums(kind, address, count, high, low, r, None, lanes)
    node_r, node_s = scalar.plain_node(r, total)
    return r, node_r, node_s


@njit
def block_node(kind, address, count, high64, low64, high, low, guess, lanes):
    """(reference to guess next, r, S) of a block: one pass, unless its maximum lies in another cell."""
    total = lane_sums(kind, address, count, high, low, guess, None, lanes)
    if scalar.proves_reference(total):
        node_r, node_s = scalar.plain_node(guess, total)
        return guess, node_r, node_s
    return _careful_node(kind, address, count, high64, low64, high, low, guess, total, lanes)


@njit
def quantise_block(kind, address, count, high, low, weights, sums):
    """Weights of a block's columns, sums of the quantised weights of each 256, their total, and their rise."""
    largest, _ = block_max(kind, address, count)
    r, rise, far = scalar.reference_of_maximum(largest, high)
    shift = largest if far else zero(kind)
    # two loops: in one, the 64-bit integers would halve the float32 lanes
    for i in range(uint64(count)):
        weights[i] = scalar.weight(load(kind, address, int64(i)) - shift, high, low, r)
    total = uint64(0)
    for c in range(uint64(count + _CHUNK - 1) // uint64(_CHUNK)):
        start = c * uint64(_CHUNK)
        sums[c] = _quantised_sum(weights, start, min(uint64(_CHUNK), uint64(count) - start), rise)
        total += sums[c]
    return total, rise


@njit
def _quantised_sum(weights, start, count, rise):
    total = uint64(0)
    for i in range(count):
        total += scalar.quantise(weights[start + i], rise)
    return total


@njit
def choose(weights, sums, rise, target):
    """The first column whose running sum of quantised weights exceeds target."""
    running = uint64(0)
    c = uint64(0)
    while running + sums[c] <= target:
        running += sums[c]
        c += uint64(1)
    i = c * uint64(_CHUNK)
    running += scalar.quantise(weights[i], rise)
    while running <= target:
        i += uint64(1)
        running += scalar.quantise(weights[i], rise)
    return int64(i)


@njit
def fill_words(words, count, block, block_step, sample, sample_step, row, key, mask):
    """Words 0 and 1 (a block's key) of `count` blocks or samples, as uint64, word 0 high."""
    for i in range(uint64(count)):
        x0, x1, _, _ = block_words(
            uint64(block) + i * uint64(block_step),
            uint64(sample) + i * uint64(sample_step),
            uint64(row),
            uint64(GROUPED),
            key,
            mask,
        )
        words[i] = (x0 << uint64(32)) | x1


@inlined
def choice_word(block, sample, row, key, mask):
    """Words 2 and 3 of a block: the choice inside it."""
    _, _, x2, x3 = block_words(uint64(block), uint64(sample), uint64(row), uint64(GROUPED), key, mask)
    return (x2 << uint64(32)) | x3


@njit
def push(stack_r, stack_s, index, r, s):
    """Add leaf number `index` to the dyadic tree whose open left siblings stand on the stack."""
    level = uint64(0)
    while (uint64(index) >> level) & uint64(1) != uint64(0):
        r, s = scalar.join(stack_r[level], stack_s[level], r, s)
        level += uint64(1)
    stack_r[level] = r
    stack_s[level] = s


@njit
def collapse(stack_r, stack_s, count):
    """The root over `count` leaves: a node without right sibling rises unchanged."""
    r, s = 0.0, 0.0
    empty = True
    for level in range(uint64(LEVELS)):
        if (uint64(count) >> level) & uint64(1) != uint64(0):
            if empty:
                r, s = stack_r[level], stack_s[level]
                empty = False
            else:
                r, s = scalar.join(stack_r[level], stack_s[level], r, s)
    return r, s
