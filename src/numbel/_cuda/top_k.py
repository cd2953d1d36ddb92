"""Sampling without replacement: the k largest of logits / T + the public float64 noise, and what is left of a row.

The columns of a block are dealt to groups. The largest keys of all groups are found; that of rank k + 1 among them is a
bound that k + 1 columns reach, all of which lie in k + 1 groups: so their number, and the scratch for them, is bounded.
In long rows a bound from some blocks first keeps threads from taking logarithms that come to nothing.
Those columns are gathered, in any order; up to SORTED of them are selected and sorted by one CUDA block, more by all.
Keys are ordered by their size, equal ones by their places (`gumbel.place_of`): no order of threads can be seen.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint8, uint64

from .._scalar import blocks as scalar
from .._scalar.address import NOISE, REFINEMENT
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .._scalar.limits import BLOCK
from .._scalar.top_k import category_node, limit_at_zero, rank_below
from .blocks import best_of, functions, scale_function
from .categorical import BlockSums, join_blocks
from .forms import FORMS, THREADS, block_items, device, matrix, thread_items, vector
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    LEFT_OUT,
    Columns,
    address_of,
    blocks_in,
    flag,
    key_of,
    pick,
    status_of,
    temperature_of,
    word_at,
    words_at,
)
from .shared import ENTRIES, PER_THREAD, Entries, block_scratch, join_scratch, thread_entries

_INF = math.inf
_NAN = math.nan
#: Entries that a CUDA block sorts in shared memory: 32 KB.
SORTED = 2048
#: Digits of a key and its place, of 8 bits each: 64 of either.
_DIGITS = 16
#: Chosen columns whose masses are joined at a time.
_TERMS = 512
#: Words of a block's chosen columns, a bit each.
MARKS = BLOCK // 64
#: What `ordered_float64` makes of +inf.
_TOP = 0x7FF0000000000000


class Chosen(NamedTuple):
    """The outputs of a sample without replacement; bad[0] is lowered to the first bad row."""

    indices: Any
    perturbed: Any
    log_prob: Any
    threshold: Any
    bad: Any


class Entry(NamedTuple):
    """A key, and the place of its column."""

    key: Any
    place: Any


class Bounds(NamedTuple):
    """What a row's candidates must reach, its place -1 in a bad row; until it is found, `limited` if one is there."""

    limited: Any
    keys: Any
    places: Any


class Pass(NamedTuple):
    """Which blocks of a row a launch looks at: so many, `stride` apart, the columns of each dealt to so many groups."""

    blocks: Any
    stride: Any
    groups: Any


class Lists(NamedTuple):
    """The candidates of rows: how many each has, and room for `capacity` entries of each."""

    counts: Any
    entries: Any
    capacity: Any


class Marks(NamedTuple):
    """A bit for each column of the rows' blocks: whether it is chosen."""

    words: Any
    blocks: Any


class RowLaw(NamedTuple):
    """What makes keys of a row's logits: at temperature 0 the logits themselves."""

    greedy: Any
    temperature: Any
    high64: Any
    address: Any


class SelectScratch(NamedTuple):
    """Shared memory of `nth`: counts of digits, of each thread's, what was found; the entry becomes the first here."""

    histogram: Any
    sums: Any
    found: Any
    entry: Any


_REALS, _INTEGERS = vector(float64), vector(int64)
BOUNDS = types.NamedTuple([uint8, _REALS, _INTEGERS], Bounds)
PASS = types.NamedTuple([int64, int64, int64], Pass)
LISTS = types.NamedTuple([_INTEGERS, ENTRIES, int64], Lists)
MARKS_TYPE = types.NamedTuple([vector(uint64), int64], Marks)


@device
def select_scratch():
    """A SelectScratch."""
    histogram = cuda.shared.array(256, int64)
    sums = cuda.shared.array(PER_THREAD, int64)
    found = cuda.shared.array(4, int64)
    key = cuda.shared.array(1, float64)
    place = cuda.shared.array(1, int64)
    return SelectScratch(histogram, sums, found, Entries(key, place))


@device
def sorted_scratch():
    """The entries that a CUDA block sorts."""
    keys = cuda.shared.array(SORTED, float64)
    places = cuda.shared.array(SORTED, int64)
    return Entries(keys, places)


@device
def digit_of(key, column, digit):
    """A digit of an entry, the leading one first; entries in order ascend."""
    if digit < 8:
        return int64((uint64(rank_below(key, _TOP)) >> uint64(56 - 8 * digit)) & uint64(255))
    return (column >> (8 * (_DIGITS - 1 - digit))) & 255


@device
def known(key, column, digits, prefix, rest):
    """Whether the first digits of an entry are `prefix`, those of the key, and `rest`, those of the place."""
    if digits == 0:
        return True
    if uint64(rank_below(key, _TOP)) >> uint64(64 - 8 * min(digits, 8)) != prefix:
        return False
    return digits <= 8 or uint64(column) >> uint64(8 * (_DIGITS - digits)) == rest


@device
def nth(entries, first, count, rank, scratch):
    """scratch.entry becomes the entry that `rank` others precede, of those with a column: digit by digit."""
    t = cuda.threadIdx.x
    keys, at = entries
    histogram, sums, found, entry = scratch
    own = 256 // THREADS
    digits, prefix, rest, left = 0, uint64(0), uint64(0), int64(2)
    while left > 1:
        cuda.syncthreads()
        for v in range(t * own, t * own + own):
            histogram[v] = 0
        cuda.syncthreads()
        for i in range(first + t, first + count, THREADS):
            key, column = keys[uint64(i)], at[uint64(i)]
            if column >= 0 and known(key, column, digits, prefix, rest):
                cuda.atomic.add(histogram, digit_of(key, column, digits), 1)
        cuda.syncthreads()
        total = int64(0)
        for v in range(t * own, t * own + own):
            total += histogram[v]
        sums[t] = total
        cuda.syncthreads()
        running = int64(0)
        for i in range(t):
            running += sums[i]
        if running <= rank and rank < running + total:
            v = t * own
            while running + histogram[v] <= rank:
                running += histogram[v]
                v += 1
            found[0], found[1], found[2] = v, rank - running, histogram[v]
        cuda.syncthreads()
        if digits < 8:
            prefix = uint64((prefix << uint64(8)) | uint64(found[0]))
        else:
            rest = uint64((rest << uint64(8)) | uint64(found[0]))
        digits += 1
        rank, left = int64(found[1]), int64(found[2])
    for i in range(first + t, first + count, THREADS):
        key, column = keys[uint64(i)], at[uint64(i)]
        if column >= 0 and known(key, column, digits, prefix, rest):
            entry.keys[0], entry.places[0] = key, column
    cuda.syncthreads()


@device
def factor_of(temperature):
    """log2(e) / T in float64; where the logits decide, a factor at which no finite one is out of range."""
    return scalar.scale(temperature if temperature > 0.0 else 16.0)[0]


@device
def exchange(entries, i, j, count):
    """Put entries i and j > i in order; beyond `count` there is nothing."""
    keys, at = entries
    if j < count and goes_first(keys[j], at[j], keys[i], at[i]):
        keys[i], keys[j] = keys[j], keys[i]
        at[i], at[j] = at[j], at[i]


@device
def pairs_of(count, stride):
    """How many pairs of entries `stride` apart there are, up to the one of the last entry."""
    return (count + 2 * stride - 1) // (2 * stride) * stride


@device
def merge(entries, count, stride):
    """The end of a step of a bitonic sort in shared memory: exchanges over `stride`, half of it, ..., 1."""
    while stride > 0:
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, pairs_of(count, stride), THREADS):
            low = i // stride * 2 * stride + i % stride
            exchange(entries, low, low + stride, count)
        stride //= 2
    cuda.syncthreads()


@device
def sort(entries, count):
    """Sort `count` entries in shared memory."""
    half = 1
    while half < count:
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, pairs_of(count, half), THREADS):
            start, low = i // half * 2 * half, i % half
            exchange(entries, start + low, start + 2 * half - 1 - low, count)
        merge(entries, count, half // 2)
        half *= 2
    cuda.syncthreads()


@device
def mark(marks, row, place):
    """Note that the column of a place is chosen in a row; each is noted once."""
    column = int64(column_of(place))
    word = (row * marks.blocks + column // BLOCK) * MARKS + column % BLOCK // 64
    cuda.atomic.add(marks.words, word, uint64(1) << uint64(column % 64))


def select(lists, k, marks):
    """Bring the first k + 1 entries of each row to its front, in order, and mark the first k."""
    top = sorted_scratch()
    scratch = select_scratch()
    found, entry, keys, at = scratch.found, scratch.entry, lists.entries.keys, lists.entries.places
    t = cuda.threadIdx.x
    for row in block_items(lists.counts.shape[0]):
        count, first = int64(lists.counts[row]), row * lists.capacity
        if count >= k:
            if count <= SORTED:
                for i in range(t, count, THREADS):
                    top.keys[i], top.places[i] = keys[first + i], at[first + i]
            else:
                nth(lists.entries, first, count, k, scratch)
                if t == 0:
                    found[3] = 0
                cuda.syncthreads()
                for i in range(first + t, first + count, THREADS):
                    if not goes_first(entry.keys[0], entry.places[0], keys[i], at[i]):
                        place = cuda.atomic.add(found, 3, 1)
                        top.keys[place], top.places[place] = keys[i], at[i]
                count = k + 1
            sort(top, count)
            for i in range(t, min(count, k + 1), THREADS):
                keys[first + i], at[first + i] = top.keys[i], top.places[i]
                if i < k:
                    mark(marks, row, top.places[i])
        cuda.syncthreads()


def sort_tiles(lists, merging):
    """Sort runs of SORTED entries, or, if merging, end a step of the sort of longer ones."""
    top = sorted_scratch()
    keys, at = lists.entries
    t = cuda.threadIdx.x
    tiles = (lists.capacity + SORTED - 1) // SORTED
    for item in block_items(lists.counts.shape[0] * tiles):
        row = item // tiles
        start = (item - row * tiles) * SORTED
        first = row * lists.capacity + start
        count = min(int64(lists.counts[row]) - start, int64(SORTED))
        for i in range(t, count, THREADS):
            top.keys[i], top.places[i] = keys[first + i], at[first + i]
        if count > 0:
            if merging:
                merge(top, count, SORTED // 2)
            else:
                sort(top, count)
        for i in range(t, count, THREADS):
            keys[first + i], at[first + i] = top.keys[i], top.places[i]
        cuda.syncthreads()


def exchange_all(lists, pairs, stride, mirrored):
    """One exchange over `stride` of each of a row's pairs; mirrored ones begin to merge two sorted runs."""
    for item in thread_items(lists.counts.shape[0] * pairs):
        row = item // pairs
        i = item - row * pairs
        start, low = i // stride * 2 * stride, i % stride
        first = row * lists.capacity
        high = first + start + (2 * stride - 1 - low if mirrored else stride + low)
        exchange(lists.entries, first + start + low, high, first + int64(lists.counts[row]))


def mark_all(lists, k, marks):
    """Mark the first k of each row's entries."""
    for item in thread_items(lists.counts.shape[0] * k):
        row = item // k
        if lists.counts[row] >= k:
            mark(marks, row, lists.entries.places[row * lists.capacity + item - row * k])


def bound(call, winners, groups, columns, k, bounds, counts):
    """What a row's candidates must reach: the (k + 1)-th of its winners; counts 0, or -1 of a bad row, as its place.

    If there are fewer winners, the bound that limited them, or none.
    """
    scratch = select_scratch()
    found, entry = scratch.found, scratch.entry
    t = cuda.threadIdx.x
    for row in block_items(counts.shape[0]):
        first = row * groups
        status = status_of(call, call.first_row + row)
        is_bad = status != DRAWN and status != GREEDY
        if t == 0:
            found[0], found[1] = 0, 0
            entry.keys[0], entry.places[0] = -_INF, columns
            if bounds.limited:
                entry.keys[0], entry.places[0] = bounds.keys[row], bounds.places[row]
        cuda.syncthreads()
        if not is_bad:
            some, wrong = int64(0), int64(0)
            for i in range(first + t, first + groups, THREADS):
                key, column = winners.keys[i], winners.places[i]
                if key != key:
                    wrong = 1
                if column >= 0:
                    some += 1
            cuda.atomic.add(found, 0, some)
            cuda.atomic.add(found, 1, wrong)
        cuda.syncthreads()
        is_bad = is_bad or found[1] > 0
        some = int64(found[0])
        if not is_bad and some > k:
            nth(winners, first, groups, k, scratch)
        if t == 0:
            counts[row] = -1 if is_bad else 0
            bounds.keys[row], bounds.places[row] = entry.keys[0], -1 if is_bad else entry.places[0]
        cuda.syncthreads()


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep, memory = form.wide, form.load, form.store, form.memory
    block_sum, scale_of, scratch_of_block = functions(form).block_sum, scale_function(form), block_scratch(form)
    is_bounded, is_possible = form.arithmetic.is_bounded, form.arithmetic.is_possible

    @device
    def law_of(call, row, key):
        """The RowLaw of a row."""
        temperature = temperature_of(call, row)
        return RowLaw(temperature == 0.0, temperature, factor_of(temperature), address_of(call, row, key))

    @device
    def key_of_column(logits, row, column, word, best, law):
        """The entry of a column if it precedes the best one, else a place -1; a key NaN if the logit is bad."""
        logit = wide(load(logits[uint64(row), uint64(column)]))
        if not is_bounded(logit, law.high64):
            return _NAN, int64(column)
        if not is_possible(logit, law.high64):
            return -_INF, int64(-1)
        if law.greedy:
            return float64(logit), int64(column) if goes_first(logit, column, best.key, best.place) else int64(-1)
        z = float64(logit) / law.temperature
        if cannot_exceed(word, z, best.key):
            return -_INF, int64(-1)
        g = gumbel_float64(word, uint64(word_at(law.address, column, 0, REFINEMENT)))
        value = z + g
        place = int64(place_of(column, z, g, value))
        return value, place if goes_first(value, place, best.key, best.place) else int64(-1)

    def block_tops(logits, call, at_pass, bounds, winners):
        """The first entry of each group of a block's columns: a key, NaN in a bad group, and a column, or -1.

        If limited, of what comes up to the row's bound.
        """
        own = thread_entries()
        t, sampled, groups = cuda.threadIdx.x, at_pass.blocks, at_pass.groups
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        key = key_of(call)
        for item in block_items(rows * sampled):
            row = item // sampled
            start = (item - row * sampled) * at_pass.stride * BLOCK
            count = min(columns - start, int64(BLOCK))
            status = status_of(call, call.first_row + row)
            # before any column has been found, one of key -inf counts
            best, last, winner = -_INF, columns, int64(-1)
            if bounds.limited:
                best, last = bounds.keys[row], bounds.places[row] + 1
            if status in (DRAWN, GREEDY):
                law = law_of(call, call.first_row + row, key)
                for group in range(t, (count + 3) // 4, THREADS):
                    words = words_at(law.address, start // 4 + group, 0, NOISE)
                    for k in range(4):
                        column = start + group * 4 + k
                        if column < columns and best == best:
                            word = uint64(pick(words, k))
                            value, found = key_of_column(logits, row, column, word, Entry(best, last), law)
                            if found >= 0:
                                best, last, winner = value, found, found
            own.keys[t], own.places[t] = best if winner >= 0 else -_INF, winner
            best_of(own, groups)
            for i in range(t, groups, THREADS):
                winners.keys[item * groups + i], winners.places[item * groups + i] = own.keys[i], own.places[i]
            cuda.syncthreads()

    def collect(logits, call, bounds, lists, marks):
        """The entries of each row that come up to its bound, in any order; no column is marked yet."""
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        key = key_of(call)
        for item in block_items(rows * blocks):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            count = min(columns - start, int64(BLOCK))
            for i in range(t, MARKS, THREADS):
                marks.words[item * MARKS + i] = 0
            if bounds.places[row] >= 0:
                law = law_of(call, call.first_row + row, key)
                best = Entry(bounds.keys[row], bounds.places[row] + 1)
                for group in range(t, (count + 3) // 4, THREADS):
                    words = words_at(law.address, start // 4 + group, 0, NOISE)
                    for k in range(4):
                        column = start + group * 4 + k
                        if column < columns:
                            value, found = key_of_column(logits, row, column, uint64(pick(words, k)), best, law)
                            if found >= 0:
                                at = row * lists.capacity + cuda.atomic.add(lists.counts, row, 1)
                                lists.entries.keys[at], lists.entries.places[at] = value, found

    def rest_nodes(logits, call, counts, k, marks, sums):
        """sums[:, block] of every block without its marked columns."""
        buffer = cuda.shared.array((1, BLOCK), memory)
        scratch = scratch_of_block()
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        for item in block_items(rows * blocks):
            row = item // blocks
            if counts[row] >= k and status_of(call, call.first_row + row) == DRAWN:
                start = (item - row * blocks) * BLOCK
                count = min(columns - start, int64(BLOCK))
                for i in range(cuda.threadIdx.x, count, THREADS):
                    x = logits[uint64(row), uint64(start + i)]
                    if (marks.words[uint64(item * MARKS + i // 64)] >> uint64(i % 64)) & uint64(1) != 0:
                        x = keep(wide(-_INF))
                    buffer[uint64(0), uint64(i)] = x
                scale = scale_of(temperature_of(call, call.first_row + row))
                r, s = block_sum(buffer, Columns(int64(0), int64(0), count), scale, scratch)
                if cuda.threadIdx.x == 0:
                    sums[0, item], sums[1, item] = r, s

    def finish(logits, call, lists, k, sums, chosen):
        """Write a row's sample from its sorted entries, and the log-probability: joined from the last category on."""
        join = join_scratch()
        terms = cuda.shared.array((3, _TERMS), float64)
        keys, at = lists.entries
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        for row in block_items(rows):
            at_row, first = call.first_row + row, row * lists.capacity
            status, count = status_of(call, at_row), int64(lists.counts[row])
            good = count >= k
            for i in range(t, k, THREADS):
                value, column = _NAN, int64(-1)
                if good:
                    value, column = keys[first + i], int64(column_of(at[first + i]))
                    if status == GREEDY:
                        value = limit_at_zero(value)
                chosen.indices[at_row * k + i], chosen.perturbed[at_row * k + i] = column, value
            log_p, threshold = _NAN, _NAN
            if good:
                log_p, threshold = 0.0, keys[first + k] if count > k else -_INF
                if status == GREEDY:
                    threshold = limit_at_zero(threshold)
                else:
                    high, low = scalar.scale(temperature_of(call, at_row))
                    r, total = join_blocks(BlockSums(sums, row * blocks, blocks), join)
                    for end in range(k, 0, -_TERMS):
                        n = min(int64(end), int64(_TERMS))
                        last = first + end - 1
                        cuda.syncthreads()
                        for i in range(t, n, THREADS):  # the last category first
                            terms[0, i] = float64(wide(load(logits[uint64(row), uint64(column_of(at[last - i]))])))
                            terms[1, i], terms[2, i] = category_node(terms[0, i], high, low)
                        cuda.syncthreads()
                        if t == 0:
                            for i in range(n):
                                r, total = scalar.join(terms[1, i], terms[2, i], r, total)
                                terms[1, i], terms[2, i] = r, total
                        cuda.syncthreads()
                        for i in range(t, n, THREADS):
                            terms[0, i] = scalar.log_prob(terms[0, i], high, low, terms[1, i], terms[2, i])
                        cuda.syncthreads()
                        if t == 0:
                            for i in range(n):
                                log_p += terms[0, i]
            if t == 0:
                chosen.log_prob[at_row], chosen.threshold[at_row] = log_p, threshold
                if not good and status != LEFT_OUT:
                    flag(chosen.bad, at_row)
            cuda.syncthreads()

    rows, sums = matrix(form, layout), matrix(FORMS["float64"], "C")
    chosen = types.NamedTuple([_INTEGERS, _REALS, vector(wide), _REALS, _INTEGERS], Chosen)
    return {
        "block_tops": (block_tops, (rows, CALL, PASS, BOUNDS, ENTRIES)),
        "bound": (bound, (CALL, ENTRIES, int64, int64, int64, BOUNDS, _INTEGERS)),
        "collect": (collect, (rows, CALL, BOUNDS, LISTS, MARKS_TYPE)),
        "select": (select, (LISTS, int64, MARKS_TYPE)),
        "sort_tiles": (sort_tiles, (LISTS, uint8)),
        "exchange_all": (exchange_all, (LISTS, int64, int64, uint8)),
        "mark_all": (mark_all, (LISTS, int64, MARKS_TYPE)),
        "rest_nodes": (rest_nodes, (rows, CALL, _INTEGERS, int64, MARKS_TYPE, sums)),
        "finish": (finish, (rows, CALL, LISTS, int64, sums, chosen)),
    }
