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
from .._scalar.address import NOISE, REFINEMENT, block_words, noise_word
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .._scalar.top_k import category_node, limit_at_zero, rank_below
from .blocks import best_of, functions
from .categorical import join_blocks
from .forms import FORMS, THREADS, device, matrix, vector
from .rows import CALL, DRAWN, GREEDY, LEFT_OUT, flag, identity_of, key_of, kind_of, temperature_of

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
def nth(keys, at, first, count, rank, histogram, sums, found, entry_key, entry_at):
    """entry_key[0], entry_at[0] become the entry that `rank` others precede, of those with a column: digit by digit."""
    t = cuda.threadIdx.x
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
            entry_key[0], entry_at[0] = key, column
    cuda.syncthreads()


@device
def factor_of(temperature):
    """log2(e) / T in float64; where the logits decide, a factor at which no finite one is out of range."""
    return scalar.scale(temperature if temperature > 0.0 else 16.0)[0]


@device
def exchange(keys, at, i, j, count):
    """Put entries i and j > i in order; beyond `count` there is nothing."""
    if j < count and goes_first(keys[j], at[j], keys[i], at[i]):
        keys[i], keys[j] = keys[j], keys[i]
        at[i], at[j] = at[j], at[i]


@device
def pairs_of(count, stride):
    """How many pairs of entries `stride` apart there are, up to the one of the last entry."""
    return (count + 2 * stride - 1) // (2 * stride) * stride


@device
def merge(keys, at, count, stride):
    """The end of a step of a bitonic sort in shared memory: exchanges over `stride`, half of it, ..., 1."""
    while stride > 0:
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, pairs_of(count, stride), THREADS):
            low = i // stride * 2 * stride + i % stride
            exchange(keys, at, low, low + stride, count)
        stride //= 2
    cuda.syncthreads()


@device
def sort(keys, at, count):
    """Sort `count` entries in shared memory."""
    half = 1
    while half < count:
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, pairs_of(count, half), THREADS):
            start, low = i // half * 2 * half, i % half
            exchange(keys, at, start + low, start + 2 * half - 1 - low, count)
        merge(keys, at, count, half // 2)
        half *= 2
    cuda.syncthreads()


@device
def mark(marks, blocks, row, place):
    """Note that the column of a place is chosen in a row; each is noted once."""
    column = int64(column_of(place))
    word = (row * blocks + column // BLOCK) * MARKS + column % BLOCK // 64
    cuda.atomic.add(marks, word, uint64(1) << uint64(column % 64))


def select(counts, keys, at, capacity, blocks, k, marks):
    """Bring the first k + 1 entries of each row to its front, in order, and mark the first k."""
    top_keys = cuda.shared.array(2048, float64)
    top_at = cuda.shared.array(2048, int64)
    histogram = cuda.shared.array(256, int64)
    sums = cuda.shared.array(128, int64)
    found = cuda.shared.array(4, int64)
    entry_key = cuda.shared.array(1, float64)
    entry_at = cuda.shared.array(1, int64)
    t = cuda.threadIdx.x
    for row in range(int64(cuda.blockIdx.x), counts.shape[0], int64(cuda.gridDim.x)):
        count, first = int64(counts[row]), row * capacity
        if count >= k:
            if count <= SORTED:
                for i in range(t, count, THREADS):
                    top_keys[i], top_at[i] = keys[first + i], at[first + i]
            else:
                nth(keys, at, first, count, k, histogram, sums, found, entry_key, entry_at)
                if t == 0:
                    found[3] = 0
                cuda.syncthreads()
                for i in range(first + t, first + count, THREADS):
                    if not goes_first(entry_key[0], entry_at[0], keys[i], at[i]):
                        place = cuda.atomic.add(found, 3, 1)
                        top_keys[place], top_at[place] = keys[i], at[i]
                count = k + 1
            sort(top_keys, top_at, count)
            for i in range(t, min(count, k + 1), THREADS):
                keys[first + i], at[first + i] = top_keys[i], top_at[i]
                if i < k:
                    mark(marks, blocks, row, top_at[i])
        cuda.syncthreads()


def sort_tiles(counts, keys, at, capacity, merging):
    """Sort runs of SORTED entries, or, if merging, end a step of the sort of longer ones."""
    top_keys = cuda.shared.array(2048, float64)
    top_at = cuda.shared.array(2048, int64)
    t = cuda.threadIdx.x
    tiles = (capacity + SORTED - 1) // SORTED
    for item in range(int64(cuda.blockIdx.x), counts.shape[0] * tiles, int64(cuda.gridDim.x)):
        row = item // tiles
        start = (item - row * tiles) * SORTED
        first = row * capacity + start
        count = min(int64(counts[row]) - start, int64(SORTED))
        for i in range(t, count, THREADS):
            top_keys[i], top_at[i] = keys[first + i], at[first + i]
        if count > 0:
            if merging:
                merge(top_keys, top_at, count, SORTED // 2)
            else:
                sort(top_keys, top_at, count)
        for i in range(t, count, THREADS):
            keys[first + i], at[first + i] = top_keys[i], top_at[i]
        cuda.syncthreads()


def exchange_all(counts, keys, at, capacity, pairs, stride, mirrored):
    """One exchange over `stride` of each of a row's pairs; mirrored ones begin to merge two sorted runs."""
    step = int64(cuda.gridDim.x) * THREADS
    rows = counts.shape[0]
    for item in range(int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x, rows * pairs, step):
        row = item // pairs
        i = item - row * pairs
        start, low = i // stride * 2 * stride, i % stride
        first = row * capacity
        high = first + start + (2 * stride - 1 - low if mirrored else stride + low)
        exchange(keys, at, first + start + low, high, first + int64(counts[row]))


def mark_all(counts, at, capacity, blocks, k, marks):
    """Mark the first k of each row's entries."""
    step = int64(cuda.gridDim.x) * THREADS
    for item in range(int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x, counts.shape[0] * k, step):
        row = item // k
        if counts[row] >= k:
            mark(marks, blocks, row, at[row * capacity + item - row * k])


def bound(call, winner_keys, winner_at, groups, columns, k, limited, bound_keys, bound_at, counts):
    """What a row's candidates must reach: the (k + 1)-th of its winners; counts 0, or -1 of a bad row, as its column.

    If there are fewer winners, the bound that limited them, or none.
    """
    histogram = cuda.shared.array(256, int64)
    sums = cuda.shared.array(128, int64)
    found = cuda.shared.array(4, int64)
    entry_key = cuda.shared.array(1, float64)
    entry_at = cuda.shared.array(1, int64)
    t = cuda.threadIdx.x
    for row in range(int64(cuda.blockIdx.x), counts.shape[0], int64(cuda.gridDim.x)):
        first = row * groups
        kind = kind_of(call, call.first_row + row)
        is_bad = kind != DRAWN and kind != GREEDY
        if t == 0:
            found[0], found[1] = 0, 0
            entry_key[0], entry_at[0] = -_INF, columns
            if limited:
                entry_key[0], entry_at[0] = bound_keys[row], bound_at[row]
        cuda.syncthreads()
        if not is_bad:
            some, wrong = int64(0), int64(0)
            for i in range(first + t, first + groups, THREADS):
                key, column = winner_keys[i], winner_at[i]
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
            nth(winner_keys, winner_at, first, groups, k, histogram, sums, found, entry_key, entry_at)
        if t == 0:
            counts[row] = -1 if is_bad else 0
            bound_keys[row], bound_at[row] = entry_key[0], -1 if is_bad else entry_at[0]
        cuda.syncthreads()


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep, memory = form.wide, form.load, form.store, form.memory
    block_node = functions(form).block_node
    is_bounded = scalar.is_bounded_float64 if wide is float64 else scalar.is_bounded_float32
    is_possible = scalar.is_possible_float64 if wide is float64 else scalar.is_possible_float32

    @device
    def key_of_column(logits, row, column, word, best, best_at, greedy, temperature, high64, identity, key, mask):
        """Key and place where it precedes the entry (best, best_at), else place -1; key NaN if the logit is bad."""
        logit = wide(load(logits[uint64(row), uint64(column)]))
        if not is_bounded(logit, high64):
            return _NAN, int64(column)
        if not is_possible(logit, high64):
            return -_INF, int64(-1)
        if greedy:
            return float64(logit), int64(column) if goes_first(logit, column, best, best_at) else int64(-1)
        z = float64(logit) / temperature
        if cannot_exceed(word, z, best):
            return -_INF, int64(-1)
        y = noise_word(uint64(column), uint64(0), identity, uint64(REFINEMENT), key, mask)
        g = gumbel_float64(word, uint64(y))
        value = z + g
        place = int64(place_of(column, z, g, value))
        return value, place if goes_first(value, place, best, best_at) else int64(-1)

    def block_tops(logits, call, sampled, stride, limited, bound_keys, bound_at, groups, keys, at):
        """The first entry of each group of a block's columns: a key, NaN in a bad group, and a column, or -1.

        Of `sampled` blocks of each row, `stride` apart; if limited, of what comes up to the row's bound.
        """
        shared_keys = cuda.shared.array(128, float64)
        shared_at = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), rows * sampled, int64(cuda.gridDim.x)):
            row = item // sampled
            start = (item - row * sampled) * stride * BLOCK
            count = min(columns - start, int64(BLOCK))
            kind = kind_of(call, call.first_row + row)
            # before any column has been found, one of key -inf counts
            best, last, winner = -_INF, columns, int64(-1)
            if limited:
                best, last = bound_keys[row], bound_at[row] + 1
            if kind in (DRAWN, GREEDY):
                temperature = temperature_of(call, call.first_row + row)
                high64 = factor_of(temperature)
                identity = identity_of(call, call.first_row + row)
                for group in range(t, (count + 3) // 4, THREADS):
                    x0, x1, x2, x3 = block_words(
                        uint64(start // 4 + group), uint64(0), identity, uint64(NOISE), key, mask
                    )
                    for k in range(4):
                        column = start + group * 4 + k
                        if column < columns and best == best:
                            word = uint64(x0 if k == 0 else x1 if k == 1 else x2 if k == 2 else x3)
                            value, found = key_of_column(
                                logits, row, column, word, best, last, kind == GREEDY, temperature, high64,
                                identity, key, mask,
                            )  # fmt: skip
                            if found >= 0:
                                best, last, winner = value, found, found
            shared_keys[t], shared_at[t] = best if winner >= 0 else -_INF, winner
            best_of(shared_keys, shared_at, groups)
            for i in range(t, groups, THREADS):
                keys[item * groups + i], at[item * groups + i] = shared_keys[i], shared_at[i]
            cuda.syncthreads()

    def collect(logits, call, bound_keys, bound_at, counts, keys, at, capacity, marks):
        """The entries of each row that come up to its bound, in any order; no column is marked yet."""
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), rows * blocks, int64(cuda.gridDim.x)):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            count = min(columns - start, int64(BLOCK))
            for i in range(t, MARKS, THREADS):
                marks[item * MARKS + i] = 0
            if bound_at[row] >= 0:
                temperature = temperature_of(call, call.first_row + row)
                high64 = factor_of(temperature)
                identity = identity_of(call, call.first_row + row)
                best, last = bound_keys[row], bound_at[row]
                for group in range(t, (count + 3) // 4, THREADS):
                    x0, x1, x2, x3 = block_words(
                        uint64(start // 4 + group), uint64(0), identity, uint64(NOISE), key, mask
                    )
                    for k in range(4):
                        column = start + group * 4 + k
                        if column < columns:
                            word = uint64(x0 if k == 0 else x1 if k == 1 else x2 if k == 2 else x3)
                            value, found = key_of_column(
                                logits, row, column, word, best, last + 1, temperature == 0.0, temperature, high64,
                                identity, key, mask,
                            )  # fmt: skip
                            if found >= 0:
                                place = row * capacity + cuda.atomic.add(counts, row, 1)
                                keys[place], at[place] = value, found

    def rest_nodes(logits, call, counts, k, marks, nodes):
        """R and S of every block without its marked columns."""
        buffer = cuda.shared.array((1, 4096), memory)
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        for item in range(int64(cuda.blockIdx.x), rows * blocks, int64(cuda.gridDim.x)):
            row = item // blocks
            if counts[row] >= k and kind_of(call, call.first_row + row) == DRAWN:
                start = (item - row * blocks) * BLOCK
                count = min(columns - start, int64(BLOCK))
                for i in range(cuda.threadIdx.x, count, THREADS):
                    x = logits[uint64(row), uint64(start + i)]
                    if (marks[uint64(item * MARKS + i // 64)] >> uint64(i % 64)) & uint64(1) != 0:
                        x = keep(wide(-_INF))
                    buffer[uint64(0), uint64(i)] = x
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                r, s = block_node(buffer, int64(0), int64(0), int64(0), count, high, low, lanes, tops, bottoms)
                if cuda.threadIdx.x == 0:
                    nodes[0, item], nodes[1, item] = r, s

    def finish(logits, call, counts, keys, at, capacity, k, nodes, chosen):
        """Write a row's sample from its sorted entries, and the log-probability: joined from the last category on."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        terms = cuda.shared.array((3, 512), float64)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        for row in range(int64(cuda.blockIdx.x), rows, int64(cuda.gridDim.x)):
            at_row, first = call.first_row + row, row * capacity
            kind, count = kind_of(call, at_row), int64(counts[row])
            good = count >= k
            for i in range(t, k, THREADS):
                value, column = _NAN, int64(-1)
                if good:
                    value, column = keys[first + i], int64(column_of(at[first + i]))
                    if kind == GREEDY:
                        value = limit_at_zero(value)
                chosen.indices[at_row * k + i], chosen.perturbed[at_row * k + i] = column, value
            log_p, threshold = _NAN, _NAN
            if good:
                log_p, threshold = 0.0, keys[first + k] if count > k else -_INF
                if kind == GREEDY:
                    threshold = limit_at_zero(threshold)
                else:
                    high, low = scalar.scale(temperature_of(call, at_row))
                    join_blocks(nodes, row * blocks, blocks, tree_r, tree_s, stack_r, stack_s)
                    r, total = stack_r[0], stack_s[0]
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
                if not good and kind != LEFT_OUT:
                    flag(chosen.bad, at_row)
            cuda.syncthreads()

    rows, nodes = matrix(form, layout), matrix(FORMS["float64"], "C")
    reals, integers, marks = vector(float64), vector(int64), vector(uint64)
    lists = (integers, reals, integers, int64)  # counts, keys, columns, capacity
    chosen = types.NamedTuple([integers, reals, vector(wide), reals, integers], Chosen)
    return {
        "block_tops": (block_tops, (rows, CALL, int64, int64, uint8, reals, integers, int64, reals, integers)),
        "bound": (bound, (CALL, reals, integers, int64, int64, int64, uint8, reals, integers, integers)),
        "collect": (collect, (rows, CALL, reals, integers, *lists, marks)),
        "select": (select, (*lists, int64, int64, marks)),
        "sort_tiles": (sort_tiles, (*lists, uint8)),
        "exchange_all": (exchange_all, (*lists, int64, int64, uint8)),
        "mark_all": (mark_all, (integers, integers, int64, int64, int64, marks)),
        "rest_nodes": (rest_nodes, (rows, CALL, integers, int64, marks, nodes)),
        "finish": (finish, (rows, CALL, *lists, int64, nodes, chosen)),
    }
