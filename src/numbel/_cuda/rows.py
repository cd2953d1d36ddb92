"""What the kernels of a call are told: of each row, of the noise's address, and where results go.

An array that is not given, or not wanted, has no elements. What each row has, its results included, covers the whole
call; arrays of logits may start at its row `first_row`. A ragged array is one line, whose rows begin at `offsets`:
kernels of the layout "R".
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint8, uint64

from .._scalar.address import block_words, draw_key, noise_word
from .._scalar.limits import BLOCK, MAX_COLUMNS, MAX_ROW_ID
from .._scalar.temperatures import allows
from .forms import device, vector

_INF = math.inf
_BLOCK_BITS = BLOCK.bit_length() - 1

#: What is done with a row: nothing; its argmax; a draw; or it is flagged, as its temperature or address is invalid.
LEFT_OUT, GREEDY, DRAWN, INVALID = range(4)


class Call(NamedTuple):
    """The arguments that all kernels of a call share."""

    first_row: Any
    temperature: Any  # of every row, unless `temperatures` has elements
    temperatures: Any
    ids: Any
    mask: Any
    seed: Any
    draw: Any  # unless `counter` has an element, which is the draw id then
    counter: Any
    offsets: Any  # where each row begins, and where the last one ends, in the lone line of a ragged array
    least: Any = 0  # ragged rows of fewer columns are drawn by the kernels of short rows


class Columns(NamedTuple):
    """Neighbouring columns of a line of logits."""

    line: Any
    start: Any
    count: Any


class Address(NamedTuple):
    """What addresses a row's random bits, beside column and sample."""

    row_id: Any
    key: Any
    mask: Any


class Samples(NamedTuple):
    """Which samples of each row a launch draws, and how many of them there are in all."""

    first: Any
    count: Any
    total: Any


class Results(NamedTuple):
    """The outputs of a sample; bad[0] is lowered to the first bad row."""

    indices: Any
    log_prob: Any
    logsumexp: Any
    logsumexp64: Any  # the same in float64, whatever the arithmetic
    bad: Any


_IDS = vector(uint64)
CALL = types.NamedTuple(
    [int64, float64, vector(float64), _IDS, vector(uint8), uint64, uint64, _IDS, vector(int64), int64], Call
)
SAMPLES = types.NamedTuple([int64, int64, int64], Samples)


def results(wide: Any) -> Any:
    """The Numba type of `Results`."""
    return types.NamedTuple([vector(int64), vector(wide), vector(wide), vector(float64), vector(int64)], Results)


@device
def temperature_of(call, row):
    """A row's temperature."""
    return call.temperatures[row] if call.temperatures.size > 0 else call.temperature


@device
def status_of(call, row):
    """What is done with a row."""
    if call.mask.size > 0 and call.mask[row] == 0:
        return LEFT_OUT
    temperature = temperature_of(call, row)
    if (call.ids.size > 0 and uint64(call.ids[row]) > uint64(MAX_ROW_ID)) or not allows(temperature):
        return INVALID
    return GREEDY if temperature == 0.0 else DRAWN


@device
def key_of(call):
    """Philox's key, and the mask of its counters, of the call's draw."""
    draw = uint64(call.counter[0]) if call.counter.size > 0 else uint64(call.draw)
    key, mask = draw_key(uint64(call.seed), draw)
    return uint64(key), uint64(mask)


@device
def address_of(call, row, key):
    """The address of a row's random bits in the draw of a key."""
    return Address(uint64(call.ids[row]) if call.ids.size > 0 else uint64(row), key[0], key[1])


@device
def words_at(address, group, sample, tag):
    """The four words of a Philox block: those of the columns of group number `group`."""
    return block_words(uint64(group), uint64(sample), address.row_id, uint64(tag), address.key, address.mask)


@device
def word_at(address, column, sample, tag):
    """A column's word."""
    return noise_word(uint64(column), uint64(sample), address.row_id, uint64(tag), address.key, address.mask)


@device
def choice_word(address, block, sample, tag):
    """The 64 bits that choose a column of a block."""
    _, _, x2, x3 = words_at(address, block, sample, tag)
    return (uint64(x2) << uint64(32)) | uint64(x3)


@device
def pick(words, k):
    """Word number k of four."""
    return words[0] if k == 0 else words[1] if k == 1 else words[2] if k == 2 else words[3]


@functools.cache
def extents(layout: str) -> Any:
    """Functions of (logits, call): how many rows there are, and a row's columns.

    A ragged row has no columns where its offsets fall or do not fit the line: those of a device come unchecked.
    """
    if layout == "R":

        @device
        def number(logits, call):
            return int64(call.offsets.size - 1)

        @device
        def extent(logits, call, row):
            start, end = int64(call.offsets[uint64(row)]), int64(call.offsets[uint64(row + 1)])
            good = start >= 0 and (row > 0 or start == 0) and start <= end and end - start <= MAX_COLUMNS
            if row + 2 == call.offsets.size:
                good = good and end == logits.shape[1]
            return Columns(int64(0), start, end - start if good and end <= logits.shape[1] else int64(0))

    else:

        @device
        def number(logits, call):
            return int64(logits.shape[0])

        @device
        def extent(logits, call, row):
            return Columns(int64(row), int64(0), int64(logits.shape[1]))

    return number, extent


@device
def block_of(columns, block):
    """A block of a row's columns."""
    start = block * BLOCK
    return Columns(columns.line, columns.start + start, min(columns.count - start, int64(BLOCK)))


@device
def blocks_in(columns):
    """How many blocks so many columns have.

    After this shift LLVM knows a number that is not negative: by `//` the loops that divide by it take 16 more
    instructions and 2 to 4 more registers.
    """
    return int64(uint64(columns + (BLOCK - 1)) >> uint64(_BLOCK_BITS))


@functools.cache
def slots(layout: str) -> Any:
    """Functions of (logits, call): how many slots there are, a slot's (row, block), and a row's (first slot, columns).

    Every block of a row has a slot, and a row's are neighbours. Those of a ragged row begin at offsets[row] // 4096 +
    row: as ceil((end - start) / 4096) <= end // 4096 - start // 4096 + 1, no two rows' meet, and how many there are at
    most is known without reading an offset. Where offsets fall, a search may not find a row by its slots: then it has
    no columns.
    """
    if layout == "R":

        @device
        def first_slot(call, row):
            return (int64(call.offsets[uint64(row)]) >> int64(12)) + row

        @device
        def number(logits, call):
            return int64(logits.shape[1] // BLOCK + call.offsets.size - 1)

        @device
        def owner(logits, call, slot):
            low, high = int64(0), int64(call.offsets.size - 1)
            while high - low > 1:
                middle = (low + high) >> int64(1)
                if first_slot(call, middle) <= slot:
                    low = middle
                else:
                    high = middle
            block = slot - first_slot(call, low)
            # wrong offsets lead anywhere: to a block that no row has
            return low, block if block >= 0 and block < MAX_COLUMNS else int64(MAX_COLUMNS)

        @device
        def room(logits, call, row, columns):
            first = first_slot(call, row)
            last = first + (columns.count - 1) // BLOCK
            found = columns.count > 0
            low, high = int64(0), int64(call.offsets.size - 1)
            while high - low > 1:  # as `owner` of the first slot and of the last, and so of all between
                middle = (low + high) >> int64(1)
                begin = first_slot(call, middle)
                if middle <= row:
                    low, found = middle, found and begin <= first
                else:
                    high, found = middle, found and begin > last
            return first, Columns(columns.line, columns.start, columns.count if found else int64(0))

    else:

        @device
        def number(logits, call):
            return int64(logits.shape[0]) * blocks_in(int64(logits.shape[1]))

        @device
        def owner(logits, call, slot):
            blocks = blocks_in(int64(logits.shape[1]))
            row = slot // blocks
            return row, slot - row * blocks

        @device
        def room(logits, call, row, columns):
            return row * blocks_in(columns.count), columns

    return number, owner, room


@device
def flag(bad, row):
    """Lower bad[0] to a row, where it is wanted."""
    if bad.size > 0:
        cuda.atomic.min(bad, 0, row)
