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
from .._scalar.elementary import exp_float64, log_float64
from .._scalar.limits import BLOCK
from .blocks import Reference, find_extremes, functions, scale_function
from .categorical import BlockSums, join_blocks
from .forms import FORMS, THREADS, Form, block_items, device, matrix, vector
from .rows import (
    CALL,
    DRAWN,
    INVALID,
    LEFT_OUT,
    Columns,
    block_of,
    blocks_in,
    extents,
    slots,
    status_of,
    temperature_of,
)
from .shared import block_scratch, join_scratch

_INF = math.inf
_NAN = math.nan
#: Bits of a place that a histogram tells apart, and columns that a list holds; the simulator's rows are short.
BITS = 3 if config.ENABLE_CUDASIM else 11
BUCKETS = 1 << BITS
LIST = 8 if config.ENABLE_CUDASIM else 1024
#: Columns that a thread loads at a time.
_AT_ONCE = 8
#: Threads of a CUDA block of `find_cut`, at most.
MOST_THREADS = 512
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
    """What the launches of a call hand on: of every block its largest place and partial sum; of every row the rest."""

    tops: Any
    sums: Any  # without elements if none are needed
    histograms: Any
    t: Any  # NaN in bad rows
    last: Any
    logsumexp: Any  # of the whole row


class RowLimits(NamedTuple):
    """top_k, top_p and min_p of a row; top_k is beyond every column where it is switched off."""

    k: Any
    p: Any
    least: Any


class Source(NamedTuple):
    """A line of logits whose columns are counted from a row's first."""

    logits: Any
    start: Any


class Row(NamedTuple):
    """A row, the largest places of its blocks from `slot` on, and its own."""

    logits: Any
    columns: Any
    tops: Any
    slot: Any
    top: Any


class Unit(NamedTuple):
    """What makes a mass of a logit: scale, reference, and the offset of `quantise`."""

    scale: Any
    reference: Any
    offset: Any


class Interval(NamedTuple):
    """Distances from a row's largest place, low to high, in buckets of 2^shift."""

    low: Any
    high: Any
    shift: Any


class Share(NamedTuple):
    """Which of so many chunks of a row's blocks a CUDA block does."""

    part: Any
    chunks: Any


class Made(NamedTuple):
    """A row's histograms of the launches before: `levels` of them, from `first` on."""

    histograms: Any
    first: Any
    levels: Any


class Found(NamedTuple):
    """Where a row's cut is. It is in the list of all columns at most `away` from the largest if `listed`.

    If `is_cut`, it is column number `ties` of the `equal` ones at `away`. `goal` is the mass that top_p wants, 0 where
    the list will show it.
    """

    listed: Any
    is_cut: Any
    away: Any
    ties: Any
    equal: Any
    goal: Any


class Words(NamedTuple):
    """64-bit numbers in two arrays of 32 bits. In shared memory only 32-bit atomics are native: others are loops."""

    low: Any
    high: Any


class ScanScratch(NamedTuple):
    """What sums numbers up over the threads, and where one of them leaves what it found."""

    a: Any
    b: Any
    found: Any


class CutScratch(NamedTuple):
    """Shared memory of `find_cut`: counts and masses of buckets, or distances and columns of a list."""

    counts: Any
    masses: Any
    scan: Any
    counter: Any


_DOUBLES, _INTEGERS = vector(float64), vector(int64)
LIMITS = types.NamedTuple([int64, _INTEGERS, float64, _DOUBLES, float64, _DOUBLES], Limits)
CUT = types.NamedTuple(
    [_INTEGERS, matrix(FORMS["float64"], "C"), vector(uint64), _DOUBLES, _INTEGERS, _DOUBLES],
    Cut,
)


def wide_threads(name: str) -> int:
    """Threads of a CUDA block that does a whole long row: as many as find the registers (168 each, float64 184)."""
    return THREADS if config.ENABLE_CUDASIM else 256 if name == "float64" else 384


@device
def limits_of(limits, row):
    """(top_k, top_p, min_p) of a row."""
    k = int64(limits.top_ks[row]) if limits.top_ks.size > 0 else int64(limits.top_k)
    k = int64(_ALL) if k == 0 or k == -1 else k  # switched off
    p = float64(limits.top_ps[row]) if limits.top_ps.size > 0 else float64(limits.top_p)
    least = float64(limits.min_ps[row]) if limits.min_ps.size > 0 else float64(limits.min_p)
    return RowLimits(k, p, least)


@device
def keeps_all(limits, row, columns):
    """Whether a row is not truncated, by its parameters."""
    k, p, least = limits_of(limits, row)
    return k >= columns and p >= 1.0 and least <= 0.0


@device
def status_cut(call, limits, row, columns):
    """`status_of` a row, which is invalid, too, if one of its limits is, or if it has no columns."""
    status = int64(status_of(call, row))
    k, p, least = limits_of(limits, row)
    good = k >= 1 and 0.0 < p <= 1.0 and 0.0 <= least <= 1.0 and columns > 0
    return status if status == LEFT_OUT or good else int64(INVALID)


# -------------------------------------------------------------------------------------- 64-bit numbers in shared memory


@device
def put(words, i, x):
    words.low[i], words.high[i] = rules.low_word(x), rules.high_word(x)


@device
def get(words, i):
    return uint64(rules.both_words(words.low[i], words.high[i]))


@device
def add(words, i, x):
    """Add x by atomics."""
    old = cuda.atomic.add(words.low, i, uint32(rules.low_word(x)))
    upper = uint32(rules.high_with_carry(x, old))
    if upper != 0:
        cuda.atomic.add(words.high, i, upper)


@device
def running_sum(x, scan):
    """(the sum of x over the threads up to this one, over all)."""
    a, b = scan.a, scan.b
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
def sum_of_bins(words, first, n, scan):
    """(sum over this thread's bins, over those of the threads up to it, over all n from bin `first` on)."""
    own = (n + cuda.blockDim.x - 1) // cuda.blockDim.x
    total = uint64(0)
    for i in range(cuda.threadIdx.x * own, min((cuda.threadIdx.x + 1) * own, n)):
        total += get(words, first + i)
    running, whole = running_sum(total, scan)
    return total, running, whole


@device
def crossing(words, first, n, own, running, need, found):
    """(the bin at which sums reach `need`, counted from `first`, the sum before it); all bins together must."""
    t, each = int64(cuda.threadIdx.x), (n + cuda.blockDim.x - 1) // cuda.blockDim.x
    cuda.syncthreads()
    if running - own < need and need <= running:
        before, i = running - own, t * each
        while before + get(words, first + i) < need:
            before += get(words, first + i)
            i += 1
        found[0], found[1] = uint64(i), before
    cuda.syncthreads()
    return int64(found[0]), uint64(found[1])


@device
def sort(first, second, n):
    """Sort n pairs of numbers, padded to a power of two."""
    size = 1
    while size < n:
        size *= 2
    for i in range(n + cuda.threadIdx.x, size, cuda.blockDim.x):
        put(first, i, uint64(0xFFFFFFFFFFFFFFFF))
        put(second, i, uint64(0))
    run = 2
    while run <= size:
        step = run >> 1
        while step > 0:
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, size, cuda.blockDim.x):
                j = i ^ step
                if j > i:
                    x, y = get(first, i), get(first, j)
                    x2, y2 = get(second, i), get(second, j)
                    if (x > y or (x == y and x2 > y2)) == ((i & run) == 0):
                        put(first, i, y)
                        put(first, j, x)
                        put(second, i, y2)
                        put(second, j, x2)
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
    """The device function that reads a logit of a Source."""
    wide, load = form.wide, form.load

    @device
    def value(source, line, column):
        return wide(load(source.logits[uint64(line), uint64(source.start + column)]))

    return value


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, zero = form.wide, form.load, form.zero
    (rows_in, extent), (slots_in, owner, room) = extents(layout), slots(layout)
    place_of, number, lowest, highest = places(form)
    block_sum, scale_of = functions(form, layout, row_value(form)).block_sum, scale_function(form)
    weight, quantise = form.arithmetic.weight, form.arithmetic.quantise
    scratch_of_block = block_scratch(form)

    def survey(logits, call, limits, summed, cut):
        """The largest place of every block, and its partial sum if sums are wanted or top_p needs the row's."""
        scratch = scratch_of_block()
        extremes = scratch.extremes
        t = cuda.threadIdx.x
        each = cut.histograms.size // cut.t.size
        for item in block_items(slots_in(logits, call)):
            row, block = owner(logits, call, item)
            at_row = call.first_row + row
            columns = extent(logits, call, row)
            own = block_of(columns, block)
            if own.count > 0 and status_cut(call, limits, at_row, columns.count) == DRAWN:
                top, bottom = int64(lowest), int64(highest)
                for i in range(t, own.count, THREADS):
                    at = int64(place_of(logits[uint64(own.line), uint64(own.start + i)]))
                    top = max(top, at)
                    bottom = min(bottom, at)
                cuda.syncthreads()  # who reads what stood there is done
                extremes.largest[t], extremes.smallest[t] = top, bottom
                find_extremes(extremes)
                if t == 0:
                    good = extremes.largest[0] <= highest and extremes.smallest[0] >= lowest
                    cut.tops[item] = extremes.largest[0] if good else int64(_UNKNOWN)
                k, p, _ = limits_of(limits, at_row)
                alone = p < 1.0 and k >= columns.count
                if alone or (summed and not keeps_all(limits, at_row, columns.count)):
                    source = Source(logits, columns.start)
                    within = block_of(Columns(columns.line, int64(0), columns.count), block)
                    r, s = block_sum(source, within, scale_of(temperature_of(call, at_row)), scratch)
                    if t == 0:
                        cut.sums[0, item], cut.sums[1, item] = r, s
                if block == 0:
                    for i in range(t, each, THREADS):
                        cut.histograms[row * each + i] = 0

    @device
    def mass_of(x, unit):
        """The mass of a logit."""
        scale, reference = unit.scale, unit.reference
        w = wide(weight(wide(x - reference.shift), scale.high, scale.low, reference.exponent))
        return uint64(quantise(w, unit.offset))

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
    def distance_of_block(row, block):
        """How far a block's largest place is from the row's."""
        return uint64(rules.distance(row.top, row.tops[row.slot + block]))

    @device
    def histogram(row, blocks, interval, weighs, unit, scratch):
        """Count, and weigh, the columns of some blocks whose distance from the largest lies in an interval."""
        logits, (line, first, columns), _, _, top = row
        low, high, shift = interval
        threads = int64(cuda.blockDim.x)
        for b in blocks:
            if distance_of_block(row, b) <= high:
                end = min(int64(b + 1) * BLOCK, columns)
                for base in range(int64(b) * BLOCK + cuda.threadIdx.x, end, threads * _AT_ONCE):
                    loaded = eight(logits, line, first + base, threads, first + end - 1)
                    for j in range(left(end - base, threads)):
                        e = pick(loaded, j)
                        away = uint64(rules.distance(top, place_of(e)))
                        if low <= away and away <= high:
                            at = int64((away - low) >> uint64(shift))
                            add(scratch.counts, at, uint64(1))
                            if weighs:
                                add(scratch.masses, at, mass_of(wide(load(e)), unit))

    @device
    def gather(row, high, scratch):
        """List the distances and the columns of all whose distance is at most `high`, in any order; how many."""
        logits, (line, first, columns), _, _, top = row
        counter = scratch.counter
        threads = int64(cuda.blockDim.x)
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            counter[0] = 0
        cuda.syncthreads()
        for b in range(blocks_in(columns)):
            if distance_of_block(row, b) <= high:
                end = min(int64(b + 1) * BLOCK, columns)
                for base in range(int64(b) * BLOCK + cuda.threadIdx.x, end, threads * _AT_ONCE):
                    loaded = eight(logits, line, first + base, threads, first + end - 1)
                    for j in range(left(end - base, threads)):
                        away = uint64(rules.distance(top, place_of(pick(loaded, j))))
                        if away <= high:
                            i = cuda.atomic.add(counter, 0, 1)
                            put(scratch.counts, i, away)
                            put(scratch.masses, i, uint64(base + j * threads))
        cuda.syncthreads()
        return int64(counter[0])

    @device
    def find_tie(row, away, ties, scan):
        """The column of number `ties` (from 1) of those at a distance; there are that many."""
        logits, (line, first, columns), _, _, top = row
        for block in range(blocks_in(columns)):
            if distance_of_block(row, block) <= away:
                end = min(int64(block + 1) * BLOCK, columns)
                for start in range(int64(block) * BLOCK, end, int64(cuda.blockDim.x) * _AT_ONCE):
                    base = start + cuda.threadIdx.x * _AT_ONCE
                    own = uint64(0)
                    for c in range(base, min(base + _AT_ONCE, end)):
                        if uint64(rules.distance(top, place_of(logits[uint64(line), uint64(first + c)]))) == away:
                            own += uint64(1)
                    running, whole = running_sum(own, scan)
                    if whole < uint64(ties):
                        ties -= int64(whole)
                        continue
                    if running - own < uint64(ties) and uint64(ties) <= running:
                        rank = running - own
                        for c in range(base, min(base + _AT_ONCE, end)):
                            if uint64(rules.distance(top, place_of(logits[uint64(line), uint64(first + c)]))) == away:
                                rank += uint64(1)
                                if rank == uint64(ties):
                                    scan.found[0] = uint64(c)
                    cuda.syncthreads()
                    return int64(scan.found[0])
        return int64(_ALL)

    @device
    def unit_of(row, temperature, limits, summed, sums, join):
        """(what `mass_of` is told; the row's logsumexp, NaN if it is not summed)."""
        scale, largest, columns = scale_of(temperature), number(row.top), row.columns.count
        r, offset, far = scalar.reference_of_maximum(largest, scale.high)
        most, total = float64(min(limits.k, columns)), _NAN
        if summed or (limits.p < 1.0 and limits.k >= columns):
            root = join_blocks(BlockSums(sums, row.slot, blocks_in(columns)), join)
            total = scalar.logsumexp(root.exponent, root.mantissa)
            if limits.k >= columns and not far:  # the sum of all weights relative to the largest
                # as on the CPU, with the factors of the weights
                most = exp_float64(
                    -scalar.log_prob(
                        float64(largest), float64(scale.high), float64(scale.low), root.exponent, root.mantissa
                    )
                )
        reference = Reference(wide(r), wide(largest if far else zero))
        return Unit(scale, reference, int64(rules.mass_shift(offset, most))), total

    @device
    def narrow(row, limits, unit, share, made, scratch):
        """Where the cut is: in a list, or found, or neither. Of several chunks of a row nothing is found.

        One part is made of the first histogram that is not yet among those in `made`.
        """
        k, p, columns, scan = limits.k, limits.p, row.columns.count, scratch.scan
        # a loop over both is not unrolled; as two statements they were, and find_cut took 600 instructions more
        bins = scratch.counts, scratch.masses
        blocks = blocks_in(columns)
        t, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
        every = uint64(rules.distance(row.top, lowest + 1))  # all that are finite
        away, ties, equal, goal, level = every, int64(_ALL), int64(0), uint64(0), int64(0)
        listed, is_cut, waits = columns <= LIST, False, False
        for phase in range(2):
            weighs = phase == 1
            if listed or waits or not (p < 1.0 if weighs else k < columns):
                continue
            lower, upper, above, kept, goal = uint64(0), every, uint64(0), uint64(0), uint64(0)
            mass, beside, going = uint64(0), uint64(0), True
            if weighs and is_cut:  # of what top_k keeps
                mass = mass_of(number(rules.place_below(row.top, away)), unit)
                beside = uint64(ties) * mass
                upper = away - uint64(1)
                if away == 0:
                    ties, going = int64(rules.ties_needed(rules.mass_limit(p, beside), mass)), False
            while going:
                shift = int64(rules.bucket_shift(upper - lower, BITS))
                base = made.first + level * HISTOGRAM
                cuda.syncthreads()
                for i in range(t, BUCKETS, threads):
                    for j in range(2):
                        x = made.histograms[base + j * BUCKETS + i] if level < made.levels else uint64(0)
                        put(bins[j], i, x)
                cuda.syncthreads()
                if level >= made.levels:
                    run = (blocks + share.chunks - 1) // share.chunks
                    own_blocks = range(share.part * run, min((share.part + 1) * run, blocks))
                    interval = Interval(lower, upper, shift)
                    histogram(row, own_blocks, interval, weighs, unit, scratch)
                    cuda.syncthreads()
                    waits = share.chunks > 1
                if waits:
                    for i in range(t, BUCKETS, threads):
                        for j in range(2):
                            x = get(bins[j], i)
                            if x != 0:
                                cuda.atomic.add(made.histograms, base + j * BUCKETS + i, x)
                    going = False
                    continue
                level += 1
                sought = scratch.masses if weighs else scratch.counts
                own, running, whole = sum_of_bins(sought, 0, BUCKETS, scan)
                if goal == 0:
                    goal = uint64(rules.mass_limit(p, whole + beside)) if weighs else uint64(k)
                if above + whole < goal:
                    going = False
                    if weighs:  # the cut is among those that equal the last that top_k keeps
                        ties = int64(rules.ties_needed(goal - above - whole, mass))
                    continue
                at, before = crossing(sought, 0, BUCKETS, own, running, goal - above, scan.found)
                above += before
                own = uint64(0)
                for i in range(t, at, threads):
                    own += get(scratch.counts, i)
                kept += running_sum(own, scan)[1]
                inside = get(scratch.counts, at)
                lower += uint64(at) << uint64(shift)
                upper = min(upper, lower + ((uint64(1) << uint64(shift)) - uint64(1)))
                if kept + inside <= uint64(LIST):
                    listed, away, going = True, upper, False
                elif shift == 0:
                    away, equal, is_cut, going, ties = lower, int64(inside), True, False, int64(goal - above)
                    if weighs:
                        mass = mass_of(number(rules.place_below(row.top, away)), unit)
                        ties = int64(rules.ties_needed(goal - above, mass))
            if not weighs:
                goal = uint64(0)
        return Found(listed, is_cut, away, ties, equal, goal)

    @device
    def cut_of_list(row, limits, unit, found, scratch):
        """The cut (t, last) among the columns at most `found.away` from the largest, which fit into a list."""
        t, threads, top, goal = int64(cuda.threadIdx.x), int64(cuda.blockDim.x), row.top, found.goal
        distances, columns, scan = scratch.counts, scratch.masses, scratch.scan
        n = gather(row, found.away, scratch)
        sort(distances, columns, n)
        at = min(limits.k, n) - 1
        if limits.p < 1.0:
            for i in range(t, at + 1, threads):  # masses behind the list
                x = number(rules.place_below(top, get(distances, i)))
                put(columns, LIST + i, mass_of(x, unit))
            cuda.syncthreads()
            own, running, whole = sum_of_bins(columns, LIST, at + 1, scan)
            if goal == 0:
                goal = uint64(rules.mass_limit(limits.p, whole))
            at, _ = crossing(columns, LIST, at + 1, own, running, goal, scan.found)
        return number(rules.place_below(top, get(distances, at))), int64(get(columns, at))

    @device
    def scratch_of_cut():
        count_low = cuda.shared.array(2048, uint32)
        count_high = cuda.shared.array(2048, uint32)
        mass_low = cuda.shared.array(2048, uint32)
        mass_high = cuda.shared.array(2048, uint32)
        a = cuda.shared.array(MOST_THREADS, uint64)
        b = cuda.shared.array(MOST_THREADS, uint64)
        found = cuda.shared.array(2, uint64)
        counter = cuda.shared.array(1, int32)
        return CutScratch(Words(count_low, count_high), Words(mass_low, mass_high), ScanScratch(a, b, found), counter)

    def find_cut(logits, call, limits, summed, levels, chunks, cut):
        """Every row's cut, and its logsumexp if `summed`, after `levels` histograms of it that are made.

        With several chunks of a row only its next histogram is made, each chunk's part by one CUDA block.
        """
        scratch = scratch_of_cut()
        shared = cuda.shared.array(MOST_THREADS, int64)
        join = join_scratch()
        each = cut.histograms.size // cut.t.size
        for item in block_items(rows_in(logits, call) * chunks):
            number_of_row = item // chunks
            at_row = call.first_row + number_of_row
            slot, columns = room(logits, call, number_of_row, extent(logits, call, number_of_row))
            if status_cut(call, limits, at_row, columns.count) != DRAWN:
                continue
            top = largest_place(cut.tops, slot, blocks_in(columns.count), shared)
            good = lowest < top and top < highest
            bound, last = wide(-_INF if good else _NAN), int64(-1)
            if good and not keeps_all(limits, at_row, columns.count):
                own = limits_of(limits, at_row)
                row = Row(logits, columns, cut.tops, slot, top)
                unit, total = unit_of(row, temperature_of(call, at_row), own, summed, cut.sums, join)
                if chunks == 1 and cuda.threadIdx.x == 0:
                    cut.logsumexp[number_of_row] = total
                if own.k < columns.count or own.p < 1.0:
                    made = Made(cut.histograms, number_of_row * each, levels)
                    found = narrow(row, own, unit, Share(item - number_of_row * chunks, chunks), made, scratch)
                    if found.listed and chunks == 1:
                        bound, last = cut_of_list(row, own, unit, found, scratch)
                    elif found.is_cut and chunks == 1:
                        bound, last = number(rules.place_below(top, found.away)), int64(_ALL)
                        if found.ties < found.equal:
                            last = find_tie(row, found.away, found.ties, scratch.scan)
                least = limits_of(limits, at_row).least  # read again: registers are short above
                if least > 0.0:
                    reach = -log_float64(least)
                    lowest_kept = wide(rules.least_within(number(top), temperature_of(call, at_row), reach))
                    if bound < lowest_kept:
                        bound, last = lowest_kept, int64(_ALL)
            if chunks == 1 and cuda.threadIdx.x == 0:
                cut.t[number_of_row], cut.last[number_of_row] = float64(bound), last
            cuda.syncthreads()

    rows = matrix(form, layout)
    return {
        "survey": (survey, (rows, CALL, LIMITS, uint8, CUT)),
        "find_cut": (find_cut, (rows, CALL, LIMITS, uint8, int64, int64, CUT)),
    }
