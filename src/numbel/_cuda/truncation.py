"""What top_k, top_p and min_p keep of a row, without sorting it: the cut (t, last) of `_scalar.truncation`.

A survey finds every block's largest logit (and its node, where the row's sum is asked for). Then one CUDA block narrows
a row's cut down by histograms over its places, 11 bits a pass, until the columns from there up fit into a list, which
it sorts, or one value is left. Where few rows are long, many CUDA blocks make each of the first histograms of a row.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import config, cuda, float64, int32, int64, types, uint8, uint16, uint32, uint64

from .._scalar import blocks as scalar
from .._scalar import truncation as rules
from .._scalar.blocks import BLOCK
from .._scalar.elementary import exp_float64, log_float64
from .blocks import functions, largest_of
from .categorical import join_blocks
from .forms import FORMS, THREADS, Form, device, matrix, vector
from .rows import CALL, DRAWN, INVALID, LEFT_OUT, extents, kind_of, slots, temperature_of

_INF = math.inf
_NAN = math.nan
#: Bits of a place that a histogram tells apart, and columns that a list holds; the simulator's rows are short.
BITS = 3 if config.ENABLE_CUDASIM else 11
BUCKETS = 1 << BITS
LIST = 8 if config.ENABLE_CUDASIM else 1024
#: Columns that a thread loads at a time.
_AT_ONCE = 8
#: uint64 of a histogram: counts, and masses.
HISTOGRAM = 2 * BUCKETS
_ALL = 1 << 62
_UNKNOWN = (1 << 63) - 1  # the place of a block that holds NaN: beyond all


class Limits(NamedTuple):
    """top_k, top_p and min_p, each of every row unless its array has elements."""

    top_k: Any
    top_ks: Any
    top_p: Any
    top_ps: Any
    min_p: Any
    min_ps: Any


class Cut(NamedTuple):
    """What the launches of a call hand on: of every block, its largest place and its node; of every row the rest."""

    tops: Any
    nodes: Any  # without elements if no sums are needed
    histograms: Any
    t: Any  # NaN in bad rows
    last: Any
    sums: Any  # logsumexp of the whole row


_DOUBLES, _INTEGERS = vector(float64), vector(int64)
LIMITS = types.NamedTuple([int64, _INTEGERS, float64, _DOUBLES, float64, _DOUBLES], Limits)
CUT = types.NamedTuple(
    [_INTEGERS, matrix(FORMS["float64"], "C"), vector(uint64), _DOUBLES, _INTEGERS, _DOUBLES],
    Cut,
)


def wide_threads(name: str) -> int:
    """Threads of a CUDA block that does a whole long row: as many as find the registers (160 each, float64 176)."""
    return THREADS if config.ENABLE_CUDASIM else 256 if name == "float64" else 384


@device
def limits_of(limits, row):
    """(top_k, top_p, min_p) of a row."""
    k = int64(limits.top_ks[row]) if limits.top_ks.size > 0 else int64(limits.top_k)
    k = int64(_ALL) if k == 0 or k == -1 else k  # switched off
    p = float64(limits.top_ps[row]) if limits.top_ps.size > 0 else float64(limits.top_p)
    least = float64(limits.min_ps[row]) if limits.min_ps.size > 0 else float64(limits.min_p)
    return k, p, least


@device
def keeps_all(limits, row, columns):
    """Whether a row is not truncated, by its parameters."""
    k, p, least = limits_of(limits, row)
    return k >= columns and p >= 1.0 and least <= 0.0


@device
def kind_cut(call, limits, row, columns):
    """`kind_of` a row, which is invalid, too, if one of its limits is, or if it has no columns."""
    kind = int64(kind_of(call, row))
    k, p, least = limits_of(limits, row)
    good = k >= 1 and 0.0 < p <= 1.0 and 0.0 <= least <= 1.0 and columns > 0
    return kind if kind == LEFT_OUT or good else int64(INVALID)


# ------------------------------------------------------------------------------ 64-bit numbers in two arrays of 32 bits
# (in shared memory only 32-bit atomics are native: those of 64 bits are loops that wait for each other)


@device
def put(low, high, i, x):
    low[i], high[i] = rules.low_word(x), rules.high_word(x)


@device
def get(low, high, i):
    return uint64(rules.both_words(low[i], high[i]))


@device
def add(low, high, i, x):
    """Add x by atomics."""
    old = cuda.atomic.add(low, i, uint32(rules.low_word(x)))
    upper = uint32(rules.high_with_carry(x, old))
    if upper != 0:
        cuda.atomic.add(high, i, upper)


@device
def running_sum(x, a, b):
    """(the sum of x over the threads up to this one, over all); a and b hold an entry for each."""
    t, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
    cuda.syncthreads()
    a[t] = x
    h = 1
    while h < threads:
        cuda.syncthreads()
        b[t] = a[t] + a[t - h] if t >= h else a[t]
        cuda.syncthreads()
        a[t] = b[t]
        h *= 2
    cuda.syncthreads()
    return uint64(a[t]), uint64(a[threads - 1])


@device
def sum_of_bins(low, high, first, n, a, b):
    """(sum over this thread's bins, over those of the threads up to it, over all n from bin `first` on)."""
    own = (n + cuda.blockDim.x - 1) // cuda.blockDim.x
    total = uint64(0)
    for i in range(cuda.threadIdx.x * own, min((cuda.threadIdx.x + 1) * own, n)):
        total += get(low, high, first + i)
    running, whole = running_sum(total, a, b)
    return total, running, whole


@device
def crossing(low, high, first, n, own, running, need, found):
    """(the bin at which sums reach `need`, counted from `first`, the sum before it); all bins together must."""
    t, each = int64(cuda.threadIdx.x), (n + cuda.blockDim.x - 1) // cuda.blockDim.x
    cuda.syncthreads()
    if running - own < need and need <= running:
        before, i = running - own, t * each
        while before + get(low, high, first + i) < need:
            before += get(low, high, first + i)
            i += 1
        found[0], found[1] = uint64(i), before
    cuda.syncthreads()
    return int64(found[0]), uint64(found[1])


@device
def sort(low, high, low2, high2, n):
    """Sort n pairs of numbers, padded to a power of two."""
    size = 1
    while size < n:
        size *= 2
    for i in range(n + cuda.threadIdx.x, size, cuda.blockDim.x):
        put(low, high, i, uint64(0xFFFFFFFFFFFFFFFF))
        put(low2, high2, i, uint64(0))
    run = 2
    while run <= size:
        step = run >> 1
        while step > 0:
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, size, cuda.blockDim.x):
                j = i ^ step
                if j > i:
                    x, y = get(low, high, i), get(low, high, j)
                    x2, y2 = get(low2, high2, i), get(low2, high2, j)
                    if (x > y or (x == y and x2 > y2)) == ((i & run) == 0):
                        put(low, high, i, y)
                        put(low, high, j, x)
                        put(low2, high2, i, y2)
                        put(low2, high2, j, x2)
            step >>= 1
        run *= 2
    cuda.syncthreads()


@functools.cache
def places(form: Form) -> Any:
    """(place of an element in memory, the number in the arithmetic's dtype at a place, place of -inf, of +inf)."""
    wide, load = form.wide, form.load
    if form.memory is uint16:
        of, at = rules.place_half, rules.at_place_half
        infinity = int(rules.place_half(form.store(form.zero.dtype.type(_INF))))
    else:
        of = rules.place_float64 if wide is float64 else rules.place_float32
        at = rules.at_place_float64 if wide is float64 else rules.at_place_float32
        infinity = int(of(form.zero.dtype.type(_INF)))

    @device
    def number(place):
        return wide(load(at(int64(place))))

    return of, number, -infinity, infinity


@functools.cache
def row_value(form: Form) -> Any:
    """The device function that reads a logit of (logits, a row's first column), its column counted from there."""
    wide, load = form.wide, form.load

    @device
    def value(source, line, column):
        return wide(load(source[0][uint64(line), uint64(source[1] + column)]))

    return value


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, zero = form.wide, form.load, form.zero
    (rows_in, extent), (slots_in, owner, room) = extents(layout), slots(layout)
    place_of, number, lowest, highest = places(form)
    block_node = functions(form, layout, row_value(form)).block_node
    weight = scalar.weight_float64 if wide is float64 else scalar.weight_float32
    quantise = scalar.quantise_float64 if wide is float64 else scalar.quantise_float32

    def survey(logits, call, limits, summed, cut):
        """The largest place of every block, and its node if sums are wanted or top_p needs the row's."""
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        each = cut.histograms.size // cut.t.size
        for item in range(int64(cuda.blockIdx.x), slots_in(logits, call), int64(cuda.gridDim.x)):
            row, block = owner(logits, call, item)
            line, first, columns = extent(logits, call, row)
            count = min(columns - block * BLOCK, int64(BLOCK))
            if count > 0 and kind_cut(call, limits, call.first_row + row, columns) == DRAWN:
                top, bottom = int64(lowest), int64(highest)
                for i in range(t, count, THREADS):
                    at = int64(place_of(logits[uint64(line), uint64(first + block * BLOCK + i)]))
                    top = max(top, at)
                    bottom = min(bottom, at)
                cuda.syncthreads()  # who reads what stood there is done
                tops[t], bottoms[t] = top, bottom
                largest_of(tops, bottoms)
                if t == 0:
                    cut.tops[item] = tops[0] if tops[0] <= highest and bottoms[0] >= lowest else int64(_UNKNOWN)
                k, p, _ = limits_of(limits, call.first_row + row)
                alone = p < 1.0 and k >= columns
                if alone or (summed and not keeps_all(limits, call.first_row + row, columns)):
                    high, low = scalar.scale(temperature_of(call, call.first_row + row))
                    r, s = block_node((logits, first), line, int64(0), block, columns, high, low, lanes, tops, bottoms)
                    if t == 0:
                        cut.nodes[0, item], cut.nodes[1, item] = r, s
                if block == 0:
                    for i in range(t, each, THREADS):
                        cut.histograms[row * each + i] = 0

    @device
    def mass_of(x, unit):
        """The mass of a logit; `unit` is (high, low, r, what is subtracted from logits, the shift of `quantise`)."""
        return uint64(quantise(wide(weight(wide(x - unit[3]), unit[0], unit[1], unit[2])), unit[4]))

    @device
    def eight(logits, line, c, step, last):
        """Eight columns, `step` apart, beyond the last that one: their loads are under way at once."""
        row = uint64(line)
        return (
            logits[row, uint64(c)],
            logits[row, uint64(min(c + step, last))],
            logits[row, uint64(min(c + 2 * step, last))],
            logits[row, uint64(min(c + 3 * step, last))],
            logits[row, uint64(min(c + 4 * step, last))],
            logits[row, uint64(min(c + 5 * step, last))],
            logits[row, uint64(min(c + 6 * step, last))],
            logits[row, uint64(min(c + 7 * step, last))],
        )

    @device
    def left(n, step):
        """How many of the eight there are in n columns; a loop of unknown length is not unrolled, which would spill."""
        return min(int64(_AT_ONCE), int64((uint32(n) + uint32(step) - uint32(1)) // uint32(step)))

    @device
    def pick(e, j):
        lower = (e[0] if j == 0 else e[1]) if j < 2 else (e[2] if j == 2 else e[3])
        upper = (e[4] if j == 4 else e[5]) if j < 6 else (e[6] if j == 6 else e[7])
        return lower if j < 4 else upper

    @device
    def largest_place(tops, slot, blocks, shared):
        t, best = int64(cuda.threadIdx.x), int64(lowest)
        for b in range(t, blocks, cuda.blockDim.x):
            best = max(best, tops[slot + b])
        cuda.syncthreads()
        shared[t] = best
        h = 256
        while h > 0:
            cuda.syncthreads()
            if t < h and t + h < cuda.blockDim.x and shared[t + h] > shared[t]:
                shared[t] = shared[t + h]
            h >>= 1
        cuda.syncthreads()
        return int64(shared[0])

    @device
    def histogram(where, begin, stop, low, high, shift, weighs, unit, bins):
        """Count, and weigh, the columns of blocks begin .. stop - 1 whose distance from the largest is low .. high."""
        logits, line, first, columns, tops, slot, top = where
        threads = int64(cuda.blockDim.x)
        for b in range(begin, stop):
            if uint64(rules.distance(top, tops[slot + b])) <= high:
                end = min(int64(b + 1) * BLOCK, columns)
                for base in range(int64(b) * BLOCK + cuda.threadIdx.x, end, threads * _AT_ONCE):
                    loaded = eight(logits, line, first + base, threads, first + end - 1)
                    for j in range(left(end - base, threads)):
                        e = pick(loaded, j)
                        away = uint64(rules.distance(top, place_of(e)))
                        if low <= away and away <= high:
                            at = int64((away - low) >> uint64(shift))
                            add(bins[0], bins[1], at, uint64(1))
                            if weighs:
                                add(bins[2], bins[3], at, mass_of(wide(load(e)), unit))

    @device
    def gather(where, high, bins, counter):
        """List the distances and the columns of all whose distance is at most `high`, in any order; how many."""
        logits, line, first, columns, tops, slot, top = where
        threads = int64(cuda.blockDim.x)
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            counter[0] = 0
        cuda.syncthreads()
        for b in range((columns + BLOCK - 1) // BLOCK):
            if uint64(rules.distance(top, tops[slot + b])) <= high:
                end = min(int64(b + 1) * BLOCK, columns)
                for base in range(int64(b) * BLOCK + cuda.threadIdx.x, end, threads * _AT_ONCE):
                    loaded = eight(logits, line, first + base, threads, first + end - 1)
                    for j in range(left(end - base, threads)):
                        away = uint64(rules.distance(top, place_of(pick(loaded, j))))
                        if away <= high:
                            i = cuda.atomic.add(counter, 0, 1)
                            put(bins[0], bins[1], i, away)
                            put(bins[2], bins[3], i, uint64(base + j * threads))
        cuda.syncthreads()
        return int64(counter[0])

    @device
    def find_tie(where, away, ties, a, b, found):
        """The column of number `ties` (from 1) of those at a distance; there are that many."""
        logits, line, first, columns, tops, slot, top = where
        for block in range((columns + BLOCK - 1) // BLOCK):
            if uint64(rules.distance(top, tops[slot + block])) <= away:
                end = min(int64(block + 1) * BLOCK, columns)
                for start in range(int64(block) * BLOCK, end, int64(cuda.blockDim.x) * _AT_ONCE):
                    base = start + cuda.threadIdx.x * _AT_ONCE
                    own = uint64(0)
                    for c in range(base, min(base + _AT_ONCE, end)):
                        if uint64(rules.distance(top, place_of(logits[uint64(line), uint64(first + c)]))) == away:
                            own += uint64(1)
                    running, whole = running_sum(own, a, b)
                    if whole < uint64(ties):
                        ties -= int64(whole)
                        continue
                    if running - own < uint64(ties) and uint64(ties) <= running:
                        rank = running - own
                        for c in range(base, min(base + _AT_ONCE, end)):
                            if uint64(rules.distance(top, place_of(logits[uint64(line), uint64(first + c)]))) == away:
                                rank += uint64(1)
                                if rank == uint64(ties):
                                    found[0] = uint64(c)
                    cuda.syncthreads()
                    return int64(found[0])
        return int64(_ALL)

    @device
    def unit_of(largest, temperature, k, p, columns, summed, nodes, slot, tree_r, tree_s, stack_r, stack_s):
        """(what `mass_of` is told; the row's logsumexp, NaN if it is not summed)."""
        high64, low64 = scalar.scale(temperature)
        high, low = scalar.narrow(zero, high64, low64)
        high, low = wide(high), wide(low)
        r, rise, far = scalar.reference_of_maximum(largest, high)
        most, total = float64(min(k, columns)), _NAN
        if summed or (p < 1.0 and k >= columns):
            join_blocks(nodes, slot, (columns + BLOCK - 1) // BLOCK, tree_r, tree_s, stack_r, stack_s)
            total = scalar.logsumexp(stack_r[0], stack_s[0])
            if k >= columns and not far:  # the sum of all weights relative to the largest
                # as on the CPU, with the factors of the weights
                most = exp_float64(
                    -scalar.log_prob(float64(largest), float64(high), float64(low), stack_r[0], stack_s[0])
                )
        return (high, low, wide(r), wide(largest if far else zero), int64(rules.mass_shift(rise, most))), total

    @device
    def narrow(where, k, p, unit, part, chunks, made, place, levels, bins, a, b, found):
        """(whether the cut is to be found in a list, or found, or neither, where; `away`, `ties`, `equal`, `goal`).

        The list is of all columns at most `away` from the largest. A cut that is found is column number `ties` of the
        `equal` ones at `away`. `goal` is the mass that top_p wants, 0 where the list will show it. Of several chunks
        one part is made of the first histogram that is not yet among the `levels` ones in `made`, from `place` on, and
        nothing is found.
        """
        columns, top = where[3], where[6]
        blocks = (columns + BLOCK - 1) // BLOCK
        t, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
        every = uint64(rules.distance(top, lowest + 1))  # all that are finite
        away, ties, equal, goal, level = every, int64(_ALL), int64(0), uint64(0), int64(0)
        listed, is_cut, waits = columns <= LIST, False, False
        for phase in range(2):
            weighs = phase == 1
            if listed or waits or not (p < 1.0 if weighs else k < columns):
                continue
            lower, upper, above, kept, goal = uint64(0), every, uint64(0), uint64(0), uint64(0)
            mass, beside, going = uint64(0), uint64(0), True
            if weighs and is_cut:  # of what top_k keeps
                mass = mass_of(number(rules.place_below(top, away)), unit)
                beside = uint64(ties) * mass
                upper = away - uint64(1)
                if away == 0:
                    ties, going = int64(rules.ties_needed(rules.mass_limit(p, beside), mass)), False
            while going:
                shift = int64(rules.bucket_shift(upper - lower, BITS))
                base = place + level * HISTOGRAM
                cuda.syncthreads()
                for i in range(t, BUCKETS, threads):
                    for j in range(2):
                        x = made[base + j * BUCKETS + i] if level < levels else uint64(0)
                        put(bins[2 * j], bins[2 * j + 1], i, x)
                cuda.syncthreads()
                if level >= levels:
                    run = (blocks + chunks - 1) // chunks
                    stop = min((part + 1) * run, blocks)
                    histogram(where, part * run, stop, lower, upper, shift, weighs, unit, bins)
                    cuda.syncthreads()
                    waits = chunks > 1
                if waits:
                    for i in range(t, BUCKETS, threads):
                        for j in range(2):
                            x = get(bins[2 * j], bins[2 * j + 1], i)
                            if x != 0:
                                cuda.atomic.add(made, base + j * BUCKETS + i, x)
                    going = False
                    continue
                level += 1
                of_low, of_high = (bins[2], bins[3]) if weighs else (bins[0], bins[1])
                own, running, whole = sum_of_bins(of_low, of_high, 0, BUCKETS, a, b)
                if goal == 0:
                    goal = uint64(rules.mass_limit(p, whole + beside)) if weighs else uint64(k)
                if above + whole < goal:
                    going = False
                    if weighs:  # the cut is among those that equal the last that top_k keeps
                        ties = int64(rules.ties_needed(goal - above - whole, mass))
                    continue
                at, before = crossing(of_low, of_high, 0, BUCKETS, own, running, goal - above, found)
                above += before
                own = uint64(0)
                for i in range(t, at, threads):
                    own += get(bins[0], bins[1], i)
                kept += running_sum(own, a, b)[1]
                inside = get(bins[0], bins[1], at)
                lower += uint64(at) << uint64(shift)
                upper = min(upper, lower + ((uint64(1) << uint64(shift)) - uint64(1)))
                if kept + inside <= uint64(LIST):
                    listed, away, going = True, upper, False
                elif shift == 0:
                    away, equal, is_cut, going, ties = lower, int64(inside), True, False, int64(goal - above)
                    if weighs:
                        mass = mass_of(number(rules.place_below(top, away)), unit)
                        ties = int64(rules.ties_needed(goal - above, mass))
            if not weighs:
                goal = uint64(0)
        return listed, is_cut, away, ties, equal, goal

    @device
    def cut_of_list(where, k, p, unit, away, goal, bins, a, b, found, counter):
        """The cut (t, last) among the columns at most `away` from the largest, which fit into a list."""
        t, threads, top = int64(cuda.threadIdx.x), int64(cuda.blockDim.x), where[6]
        n = gather(where, away, bins, counter)
        sort(bins[0], bins[1], bins[2], bins[3], n)
        at = min(k, n) - 1
        if p < 1.0:
            for i in range(t, at + 1, threads):  # masses behind the list
                x = number(rules.place_below(top, get(bins[0], bins[1], i)))
                put(bins[2], bins[3], LIST + i, mass_of(x, unit))
            cuda.syncthreads()
            own, running, whole = sum_of_bins(bins[2], bins[3], LIST, at + 1, a, b)
            if goal == 0:
                goal = uint64(rules.mass_limit(p, whole))
            at, _ = crossing(bins[2], bins[3], LIST, at + 1, own, running, goal, found)
        return number(rules.place_below(top, get(bins[0], bins[1], at))), int64(get(bins[2], bins[3], at))

    def find_cut(logits, call, limits, summed, levels, chunks, cut):
        """Every row's cut, and its logsumexp if `summed`, after `levels` histograms of it that are made.

        With several chunks of a row only its next histogram is made, each chunk's part by one CUDA block.
        """
        bins = (
            cuda.shared.array(2048, uint32),
            cuda.shared.array(2048, uint32),
            cuda.shared.array(2048, uint32),
            cuda.shared.array(2048, uint32),
        )
        a = cuda.shared.array(512, uint64)
        b = cuda.shared.array(512, uint64)
        shared = cuda.shared.array(512, int64)
        found = cuda.shared.array(2, uint64)
        counter = cuda.shared.array(1, int32)
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        each = cut.histograms.size // cut.t.size
        for item in range(int64(cuda.blockIdx.x), rows_in(logits, call) * chunks, int64(cuda.gridDim.x)):
            row = item // chunks
            at_row = call.first_row + row
            line, first, columns = extent(logits, call, row)
            slot, columns = room(logits, call, row, columns)
            if kind_cut(call, limits, at_row, columns) != DRAWN:
                continue
            top = largest_place(cut.tops, slot, (columns + BLOCK - 1) // BLOCK, shared)
            good = lowest < top and top < highest
            bound, last = wide(-_INF if good else _NAN), int64(-1)
            if good and not keeps_all(limits, at_row, columns):
                k, p, _ = limits_of(limits, at_row)
                where = (logits, line, first, columns, cut.tops, slot, top)
                unit, total = unit_of(
                    number(top), temperature_of(call, at_row), k, p, columns, summed,
                    cut.nodes, slot, tree_r, tree_s, stack_r, stack_s,
                )  # fmt: skip
                if chunks == 1 and cuda.threadIdx.x == 0:
                    cut.sums[row] = total
                if k < columns or p < 1.0:
                    listed, is_cut, away, ties, equal, goal = narrow(
                        where, k, p, unit, item - row * chunks, chunks, cut.histograms, row * each,
                        levels, bins, a, b, found,
                    )  # fmt: skip
                    if listed and chunks == 1:
                        bound, last = cut_of_list(where, k, p, unit, away, goal, bins, a, b, found, counter)
                    elif is_cut and chunks == 1:
                        bound, last = number(rules.place_below(top, away)), int64(_ALL)
                        if ties < equal:
                            last = find_tie(where, away, ties, a, b, found)
                _, _, min_p = limits_of(limits, at_row)  # read again: registers are short above
                if min_p > 0.0:
                    reach = -log_float64(min_p)
                    least = wide(rules.least_within(number(top), temperature_of(call, at_row), reach))
                    if bound < least:
                        bound, last = least, int64(_ALL)
            if chunks == 1 and cuda.threadIdx.x == 0:
                cut.t[row], cut.last[row] = float64(bound), last
            cuda.syncthreads()

    rows = matrix(form, layout)
    return {
        "survey": (survey, (rows, CALL, LIMITS, uint8, CUT)),
        "find_cut": (find_cut, (rows, CALL, LIMITS, uint8, int64, int64, CUT)),
    }
