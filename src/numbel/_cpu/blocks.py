"""Loops over one block of at most 4096 columns: its node, its maximum, the choice inside; and the dyadic tree."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, block_words, draw_key
from .._scalar.bits import larger_number
from .._scalar.blocks import LANE_COLUMNS, LANES
from .._scalar.limits import BLOCK
from .ahead import ask_ahead
from .memory import copy, element_size, load, zero
from .records import row_id
from .scratch import address_of, empty, local, tail, workspace

_INF = math.inf
_NAN = math.nan
#: Lanes whose quantised sums are added up before the choice looks at single ones.
_RUN = 32
#: What `lane_sums` takes: the lanes, and room for their sum by halves.
LANE_SPACE = LANES + LANES // 2
#: Deeper than any tree over 2^34 columns.
LEVELS = 32


class Scale(NamedTuple):
    """log2(e) / temperature as a sum of two, in float64 and in the dtype of the arithmetic."""

    high64: Any
    low64: Any
    high: Any
    low: Any


class Stack(NamedTuple):
    """Left siblings of a dyadic tree that wait for their right ones, by level: float64 arrays of LEVELS."""

    r: Any
    s: Any


class Choice(NamedTuple):
    """The quantised sums of a block's lanes, and the sum of each _RUN of them: uint64 arrays."""

    lanes: Any
    runs: Any


class Opened(NamedTuple):
    """A block in which columns are chosen: where it lies, what its weights are relative to, and their quantised sum."""

    address: Any
    count: Any
    r: Any
    rise: Any  # of the largest logit's exponent above r
    shift: Any  # subtracted from logits
    total: Any


class RowStream(NamedTuple):
    """What stands for a row in the address of its random bits, and the key of the draw: uint64 each."""

    row: Any
    key: Any
    mask: Any


@inlined
def scale_of(kind, temperature):
    """The factors of a temperature above 0."""
    high64, low64 = scalar.scale(temperature)
    high, low = scalar.narrow(zero(kind), high64, low64)
    return Scale(high64, low64, high, low)


@inlined
def new_stack(scratch):
    """An empty stack."""
    return Stack(empty(scratch, LEVELS, np.float64), empty(scratch, LEVELS, np.float64))


@inlined
def new_lanes(scratch, kind, blocks=1):
    """What `lane_sums` takes, for so many blocks."""
    return workspace(scratch, kind, LANE_SPACE * blocks)


@inlined
def new_choice(scratch):
    """Not filled yet."""
    return Choice(empty(scratch, LANES, np.uint64), empty(scratch, LANES // _RUN, np.uint64))


@inlined
def row_stream(stream, row):
    """The random bits of a row."""
    key, mask = draw_key(stream.seed, stream.draw)
    return RowStream(uint64(row_id(stream, row)), key, mask)


@inlined
def count_blocks(columns):
    """Blocks of a row."""
    return (columns + BLOCK - 1) // BLOCK


@njit
def block_at(kind, rows, row_address, block, buffer):
    """(address, columns) of a block as contiguous elements; strided columns are gathered into the array `buffer`."""
    count = min(rows.columns - block * BLOCK, int64(BLOCK))
    first = row_address + block * BLOCK * rows.column_stride
    if rows.column_stride == rows.item_size:
        return first, count
    at = address_of(buffer)
    for i in range(count):
        copy(kind, at, int64(i), first + int64(i) * rows.column_stride)
    return at, count


@inlined
def new_buffer(scratch, rows):
    """What `block_at` gathers into: bytes for a block, if columns are strided."""
    return empty(scratch, BLOCK if rows.column_stride != rows.item_size else 0, np.float64)


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
def _sum_lanes(lanes, count):
    """Their sum by halves, as `halve` makes it. The lanes stay: the first step goes behind them."""
    halves, half = tail(lanes, LANES), uint64(LANES // 2)
    both = count - half if count > half else uint64(0)
    for i in range(both):
        halves[i] = lanes[i] + lanes[i + half]
    for i in range(both, min(count, half)):
        halves[i] = lanes[i]
    halve(halves, min(count, half))
    return halves[0]


@njit
def lane_sums(kind, address, count, scale, r, shift, lanes):
    """The block's lanes, and the sum of its 2^(z - r) in the canonical order; a `shift` is subtracted from logits."""
    high, low = scale.high, scale.low
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
    return _sum_lanes(lanes, first)


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
def _careful_node(kind, address, count, scale, guess, total, lanes):
    """`block_node` where the sum under the guessed reference proves nothing."""
    largest, nan = block_max(kind, address, count)
    if nan or largest == _INF:
        return guess, 0.0, _NAN
    if largest == -_INF:
        return guess, 0.0, 0.0
    r, _, far = scalar.reference_of_maximum(largest, scale.high)
    if far:
        total = lane_sums(kind, address, count, scale, r, largest, lanes)
        far_r, far_s = scalar.far_node(float64(largest), scale.high64, scale.low64, float64(total))
        return guess, far_r, far_s
    if r != guess:
        total = lane_sums(kind, address, count, scale, r, None, lanes)
    node_r, node_s = scalar.plain_node(r, total)
    return r, node_r, node_s


@njit
def block_node(kind, address, count, scale, guess, lanes):
    """(reference to guess next, r, S) of a block: one pass, unless its maximum lies in another cell."""
    total = lane_sums(kind, address, count, scale, guess, None, lanes)
    if scalar.proves_reference(total):
        node_r, node_s = scalar.plain_node(guess, total)
        return guess, node_r, node_s
    return _careful_node(kind, address, count, scale, guess, total, lanes)


@njit
def quantise_lanes(lanes, count, rise, choice):
    """The quantised sums of the first `count` lanes, of each _RUN of them, and of all."""
    total = uint64(0)
    for c in range(uint64(count + _RUN - 1) // uint64(_RUN)):
        first = c * uint64(_RUN)
        run = uint64(0)
        for i in range(first, min(first + uint64(_RUN), uint64(count))):
            q = scalar.quantise(lanes[i], rise)
            choice.lanes[i] = q
            run += q
        choice.runs[c] = run
        total += run
    return total


@njit
def _largest(kind, address, count):
    """The largest logit of a block that holds no NaN."""
    top = load(kind, address, int64(0))
    for i in range(uint64(1), uint64(count)):
        top = larger_number(load(kind, address, int64(i)), top)
    return top


@njit
def open_block(kind, address, count, scale, lanes, has_lanes, choice):
    """Prepare the choice of columns in a block of no NaN, whose lanes are there already or are made."""
    largest = _largest(kind, address, count)
    r, rise, far = scalar.reference_of_maximum(largest, scale.high)
    shift = largest if far else zero(kind)
    if not has_lanes:
        lane_sums(kind, address, count, scale, r, shift, lanes)
    total = quantise_lanes(lanes, min(int64(count), int64(LANES)), rise, choice)
    return Opened(int64(address), int64(count), r, rise, shift, total)


@inlined
def unopened(kind):
    """No block yet."""
    return Opened(int64(0), int64(0), zero(kind), int64(0), zero(kind), uint64(0))


@njit
def find_lane(choice, target):
    """The first lane whose running sum exceeds target, and what target is beyond the lanes before it."""
    c = uint64(0)
    while choice.runs[c] <= target:
        target -= choice.runs[c]
        c += uint64(1)
    lane = c * uint64(_RUN)
    while choice.lanes[lane] <= target:
        target -= choice.lanes[lane]
        lane += uint64(1)
    return int64(lane), target


@njit
def choose_in_lane(weights, count, rise, rest):
    """Which of a lane's weights `rest` falls on: the first largest has what the others leave of the lane."""
    largest = uint64(0)
    for j in range(uint64(1), uint64(count)):
        largest = j if weights[j] > weights[largest] else largest
    for j in range(uint64(count)):
        if j != largest:
            q = scalar.quantise(weights[j], rise)
            if rest < q:
                return int64(j)
            rest -= q
    return int64(largest)


@njit
def choose(kind, block, scale, word, choice):
    """The column of an Opened block that a word of 64 bits chooses."""
    lane, rest = find_lane(choice, scalar.mulhi64(word, block.total))
    weights = local(LANE_COLUMNS, np.float64)
    count = (block.count - lane + LANES - 1) // LANES
    for j in range(count):
        x = load(kind, block.address, lane + LANES * int64(j))
        weights[j] = scalar.weight(x - block.shift, scale.high, scale.low, block.r)
    return lane + LANES * choose_in_lane(weights, count, block.rise, rest)


@njit
def fill_words(words, count, first, step, stream):
    """Words 0 and 1 (a block's key) of `count` (block, sample)s, `step` apart, as uint64, word 0 high."""
    (block, sample), (block_step, sample_step) = first, step
    for i in range(uint64(count)):
        x0, x1, _, _ = block_words(
            uint64(block) + i * uint64(block_step),
            uint64(sample) + i * uint64(sample_step),
            stream.row,
            uint64(GROUPED),
            stream.key,
            stream.mask,
        )
        words[i] = (x0 << uint64(32)) | x1


@inlined
def choice_word(block, sample, stream):
    """Words 2 and 3 of a block: the choice inside it."""
    _, _, x2, x3 = block_words(uint64(block), uint64(sample), stream.row, uint64(GROUPED), stream.key, stream.mask)
    return (x2 << uint64(32)) | x3


@njit
def push(stack, index, r, s):
    """Add leaf number `index` to the dyadic tree."""
    level = uint64(0)
    while (uint64(index) >> level) & uint64(1) != uint64(0):
        r, s = scalar.join(stack.r[level], stack.s[level], r, s)
        level += uint64(1)
    stack.r[level] = r
    stack.s[level] = s


@njit
def collapse(stack, count):
    """The root over `count` leaves: a node without right sibling rises unchanged."""
    r, s = 0.0, 0.0
    none = True
    for level in range(uint64(LEVELS)):
        if (uint64(count) >> level) & uint64(1) != uint64(0):
            if none:
                r, s = stack.r[level], stack.s[level]
                none = False
            else:
                r, s = scalar.join(stack.r[level], stack.s[level], r, s)
    return r, s
