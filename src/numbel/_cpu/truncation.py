"""What top_k, top_p and min_p keep of a row, without sorting it.

One pass over a row finds the maxima of small groups of columns (and its sums, where they are asked for). They bound
the cut from below, so that few groups hold columns above the bound; these go into a list, in which the cut is found
exactly. Where the list would be long, the row is visited again: a histogram of the columns' order narrows the cut
down, 11 bits a pass. Neither the bound nor the way carries promised bits: the cut is that of exact integer sums.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int32, int64, uint64

from .._jit import apart, inlined
from .._scalar import blocks as scalar
from .._scalar import truncation as rules
from .._scalar.bits import larger
from .._scalar.blocks import LANES
from .._scalar.elementary import log_float64, power_of_two_float64
from .._scalar.limits import BLOCK
from .ahead import ask_ahead
from .blocks import block_at, block_node, collapse, count_blocks, push
from .memory import element_size, load, zero
from .scratch import empty, fill, tail, workspace

_INF = math.inf
#: Lanes of a coarse group: 32 of them share a block's 512.
COARSE = 32
#: Maxima of groups that are kept of a row; longer rows have larger groups.
_FINE = 1 << 15
#: Columns that a list holds.
LIST = 8192
BUCKETS = 2048
#: Columns that are looked at one by one when one of them is in range.
_GROUP = 64
#: A list that is not shorter than this part of the row is left: what it takes for an entry is 20 times a column's.
_SPARSE = 16
_ALL = 1 << 62


class Row(NamedTuple):
    """A row of logits."""

    rows: Any  # the `parameters.Rows` that it belongs to
    address: Any
    buffer: Any  # `blocks.block_at`


class Groups(NamedTuple):
    """Maxima of groups of columns: one for each lane of a span of blocks, and of each 16 of these."""

    span: Any  # blocks
    spans: Any
    tops: Any  # LANES a span
    coarse: Any  # COARSE a span


class Mass(NamedTuple):
    """How masses of columns are made: integers, relative to the row's largest logit."""

    minus: Any
    high: Any
    low: Any
    r: Any
    shift: Any


class Question(NamedTuple):
    """What a row is cut by, and what is known of it."""

    top_k: Any
    top_p: Any
    min_p: Any
    temperature: Any
    largest: Any
    part: Any  # the row's mass as a multiple of the largest column's, or a bound


class Arrays(NamedTuple):
    """What `find_cut` works with. The first two are the list of columns that it finds."""

    values: Any
    columns: Any
    units: Any
    masses: Any
    weights: Any
    hits: Any
    counts: Any
    table: Any


class _Buckets(NamedTuple):
    """Places low .. high in the order of logits, in buckets of 2^shift."""

    low: Any
    high: Any
    shift: Any


class _Goal(NamedTuple):
    """What the columns above a cut are to reach: a number, or a mass; 0 is `top_p` of all mass."""

    by_mass: Any
    limit: Any
    top_p: Any


@inlined
def new_groups(kind, scratch, columns):
    """Groups of a row of so many columns."""
    span = span_of(columns)
    spans = (count_blocks(columns) + span - 1) // span
    return Groups(span, spans, workspace(scratch, kind, spans * LANES), workspace(scratch, kind, spans * COARSE))


@inlined
def new_arrays(kind, scratch, columns, groups):
    """For rows of so many columns."""
    length = min(columns, int64(LIST))
    tops = groups.spans * LANES
    return Arrays(
        workspace(scratch, kind, length),
        empty(scratch, length, np.int64),
        empty(scratch, max(tops, length), np.uint64),
        empty(scratch, length, np.uint64),
        workspace(scratch, kind, max(tops, length, int64(BLOCK))),
        empty(scratch, LANES + COARSE, np.int64),
        empty(scratch, BUCKETS, np.int64),
        empty(scratch, BUCKETS, np.uint64),
    )


@inlined
def block_of(kind, row, block):
    """(address, columns) of a block as contiguous elements."""
    return block_at(kind, row.rows, row.address, block, row.buffer)


@apart
def span_of(columns):
    """Blocks whose lanes share maxima: a power of two."""
    blocks = count_blocks(columns)
    span = int64(1)
    while (blocks + span - 1) // span * LANES > _FINE:
        span *= 2
    return span


# ------------------------------------------------------------------------------------------------------ the first pass


@apart
def _raise_tops(kind, address, count, tops, base):
    """Raise a span's maxima, one a lane, to those of a block."""
    for start in range(0, count, LANES):
        ask_ahead(kind, address + start * element_size(kind))
        for i in range(uint64(min(count - start, int64(LANES)))):
            tops[base + i] = larger(tops[base + i], load(kind, address, start + int64(i)))


@apart
def _fold(tops, base, coarse, coarse_base):
    """The coarse maxima of a span; the largest of all."""
    for i in range(uint64(COARSE)):
        coarse[coarse_base + i] = tops[base + i]
    for start in range(uint64(COARSE), uint64(LANES), uint64(COARSE)):
        for i in range(uint64(COARSE)):
            coarse[coarse_base + i] = larger(coarse[coarse_base + i], tops[base + uint64(start) + i])
    largest = coarse[coarse_base]
    for i in range(uint64(1), uint64(COARSE)):
        largest = larger(largest, coarse[coarse_base + i])
    return largest


@apart
def survey(kind, row, sums, scale, groups, lanes, stack):
    """(largest logit or NaN, r, S) of a row, and the maxima of its groups; (r, S) only with `sums`."""
    blocks = count_blocks(row.rows.columns)
    guess = zero(kind)
    lowest = type(guess)(-_INF)
    largest = lowest
    for s in range(groups.spans):
        base = uint64(s) * uint64(LANES)
        for i in range(uint64(LANES)):
            groups.tops[base + i] = lowest
        for b in range(s * groups.span, min((s + 1) * groups.span, blocks)):
            block = int64(b)
            at, count = block_of(kind, row, block)
            _raise_tops(kind, at, count, groups.tops, base)
            if sums:
                guess, r, total = block_node(kind, at, count, scale, guess, lanes)
                push(stack, block, r, total)
        largest = larger(largest, _fold(groups.tops, base, groups.coarse, uint64(s) * uint64(COARSE)))
    r, total = collapse(stack, blocks) if sums else (0.0, 0.0)
    return largest, r, total


# ----------------------------------------------------------------------------------------------------- lists and bounds


@apart
def _sum_from(values, units, n, v):
    """The units of the values >= v."""
    total = uint64(0)
    for i in range(uint64(n)):
        total += units[i] if values[i] >= v else uint64(0)
    return total


@apart
def _sum_above(values, units, n, v):
    """The units of the values > v."""
    total = uint64(0)
    for i in range(uint64(n)):
        total += units[i] if values[i] > v else uint64(0)
    return total


@apart
def _threshold(values, units, n, limit, most, largest):
    """The largest v from which on the units reach `limit`, or any smaller one from which on they do not pass `most`.

    All finite values together must reach it.
    """
    place = scalar.ordered(largest)
    low, high = int64(scalar.ordered(type(largest)(-_INF))), int64(place) + int64(1)
    while low + int64(1) < high:
        at = rules.middle(low, high)
        found = _sum_from(values, units, n, scalar.from_ordered(type(place)(at)))
        if found < limit:
            high = at
        else:
            low = at
            if found <= most:
                break
    return scalar.from_ordered(type(place)(low))


@apart
def _count_units(values, units, n):
    """Units of 1 for each possible value; their sum."""
    total = uint64(0)
    for i in range(uint64(n)):
        units[i] = uint64(values[i] > -_INF)
        total += units[i]
    return total


@apart
def _mass_units(values, n, mass, weights, units):
    """Masses of the values; their sum."""
    for i in range(uint64(n)):
        weights[i] = scalar.weight(values[i] - mass.minus, mass.high, mass.low, mass.r)
    total = uint64(0)
    for i in range(uint64(n)):
        units[i] = scalar.quantise(weights[i], mass.shift)
        total += units[i]
    return total


@apart
def _bound_by_count(groups, k, largest, units):
    """Some v that k columns reach, by the maxima of groups; -inf where they are too few."""
    coarse_n, tops_n = groups.spans * COARSE, groups.spans * LANES
    if k <= coarse_n and _count_units(groups.coarse, units, coarse_n) >= uint64(k):
        return _threshold(groups.coarse, units, coarse_n, uint64(k), uint64(k + (k >> 4)), largest)
    if k <= tops_n and _count_units(groups.tops, units, tops_n) >= uint64(k):
        return _threshold(groups.tops, units, tops_n, uint64(k), uint64(k + (k >> 4)), largest)
    return type(largest)(-_INF)


@apart
def _bound_by_mass(groups, part, largest, scale, weights, units):
    """Some v from which on the mass is at least `part` of the largest column's; -inf where maxima cannot show it."""
    coarse_n, tops_n = groups.spans * COARSE, groups.spans * LANES
    if not part < 1048576.0:
        return type(largest)(-_INF)
    limit = uint64(part * (1.0 + 2.0**-9) * 1073741824.0)  # in units of 2^-30
    most = limit + (limit >> uint64(6))
    mass = Mass(largest, scale.high, scale.low, largest - largest, int64(20))
    if _mass_units(groups.coarse, coarse_n, mass, weights, units) >= limit:
        return _threshold(groups.coarse, units, coarse_n, limit, most, largest)
    if _mass_units(groups.tops, tops_n, mass, weights, units) >= limit:
        return _threshold(groups.tops, units, tops_n, limit, most, largest)
    return type(largest)(-_INF)


@inlined
def _above(value, t, ties):
    return value > t or (ties and value == t)


@apart
def _gather(kind, row, groups, t, last, arrays):
    """List the columns above t, and those equal to t up to `last`, in their order; how many, or -1: too many."""
    z = zero(kind)
    columns, hits = row.rows.columns, arrays.hits
    n = int64(0)
    coarse_hits = tail(hits, LANES)
    for s in range(groups.spans):
        first_block = int64(s) * groups.span
        ties = first_block * BLOCK <= last
        near = int64(0)
        for i in range(COARSE):
            if _above(groups.coarse[uint64(s * COARSE + i)], t, ties):
                coarse_hits[uint64(near)] = int64(i)
                near += 1
        if near == 0:
            continue
        found = int64(0)
        for start in range(0, LANES, COARSE):
            for i in range(near):
                lane = int64(start) + coarse_hits[uint64(i)]
                if _above(groups.tops[uint64(s * LANES + lane)], t, ties):
                    hits[uint64(found)] = lane
                    found += 1
        for start in range(first_block * BLOCK, min((first_block + groups.span) * BLOCK, columns), LANES):
            for i in range(found):
                column = int64(start) + hits[uint64(i)]
                if column >= columns:
                    break
                x = load(kind, row.address + column * row.rows.column_stride, int64(0)) + z  # -0 becomes 0
                if x > t or (x == t and column <= last):
                    if n == LIST:
                        return int64(-1)
                    arrays.values[uint64(n)], arrays.columns[uint64(n)] = x, column
                    n += 1
    return n


@apart
def _keep(values, columns, n, t, ties):
    """Shorten a list to what lies above t and the first `ties` that equal it."""
    kept = int64(0)
    for i in range(uint64(n)):
        x = values[i]
        if x > t or (x == t and ties > 0):
            if x == t:
                ties -= 1
            values[uint64(kept)], columns[uint64(kept)] = x, columns[i]
            kept += 1
    return kept


# ------------------------------------------------------------------------------------------------------- the whole row


@apart
def _row_mass(kind, row, t, mass, weights):
    """Masses of the columns above t."""
    z = zero(kind)
    total = uint64(0)
    for b in range(count_blocks(row.rows.columns)):
        at, count = block_of(kind, row, int64(b))
        for i in range(uint64(count)):
            x = load(kind, at, int64(i))
            w = scalar.weight(x - mass.minus, mass.high, mass.low, mass.r)
            weights[i] = w if x > t else z
        for i in range(uint64(count)):
            total += scalar.quantise(weights[i], mass.shift)
    return total


@apart
def _row_count(kind, row, t):
    """How many columns lie above t."""
    total = uint64(0)
    for b in range(count_blocks(row.rows.columns)):
        at, count = block_of(kind, row, int64(b))
        total += uint64(_count_above(kind, at, count, t))
    return total


@apart
def _count_above(kind, address, count, t):
    found = int32(0)
    for i in range(uint64(count)):
        found = int32(found + int32(load(kind, address, int64(i)) > t))
    return found


@apart
def _count_equal(kind, address, first, last, t):
    found = int32(0)
    for i in range(uint64(first), uint64(last)):
        found = int32(found + int32(load(kind, address, int64(i)) == t))
    return found


@inlined
def reaches(groups, span, t):
    """Whether a span of blocks has a column that is not below t."""
    found = False
    for i in range(COARSE):
        found = found or groups.coarse[uint64(span * COARSE + i)] >= t
    return found


@apart
def _tie(kind, row, groups, t, ties):
    """The column of number `ties` (from 1) of those equal to t; beyond all where there are fewer."""
    for b in range(count_blocks(row.rows.columns)):
        if not reaches(groups, int64(b) // groups.span, t):
            continue
        at, count = block_of(kind, row, int64(b))
        for start in range(0, count, _GROUP):
            end = min(int64(start) + _GROUP, count)
            found = int64(_count_equal(kind, at, start, end, t))
            if found < ties:
                ties -= found
                continue
            for i in range(start, end):
                if load(kind, at, int64(i)) == t:
                    ties -= 1
                    if ties == 0:
                        return int64(b) * BLOCK + int64(i)
    return int64(_ALL)


@apart
def _any_between(kind, address, first, last, bottom, top):
    """Whether the place of one of the columns lies in bottom .. top."""
    z = zero(kind)
    found = bottom < bottom
    for i in range(uint64(first), uint64(last)):
        at = scalar.ordered(load(kind, address, int64(i)) + z)
        found = found | ((at >= bottom) & (at <= top))
    return found


@apart
def _histogram(kind, row, buckets, by_mass, whole, mass, arrays):
    """Count, and weigh, the columns that lie in buckets. With `whole` the mass of all columns, too."""
    z = zero(kind)
    place = scalar.ordered(z)
    bottom, top = type(place)(buckets.low), type(place)(buckets.high)
    counts, table, weights, units = arrays.counts, arrays.table, arrays.weights, arrays.units
    fill(counts, 0, BUCKETS, int64(0))
    fill(table, 0, BUCKETS, uint64(0))
    total = uint64(0)
    for b in range(count_blocks(row.rows.columns)):
        at, count = block_of(kind, row, int64(b))
        for first in range(0, count, _GROUP):
            last = min(int64(first) + _GROUP, count)
            near = _any_between(kind, at, first, last, bottom, top)
            if by_mass and (near or whole):
                for i in range(uint64(last - first)):
                    x = load(kind, at, int64(first) + int64(i))
                    weights[i] = scalar.weight(x - mass.minus, mass.high, mass.low, mass.r)
                for i in range(uint64(last - first)):
                    units[i] = scalar.quantise(weights[i], mass.shift)
                    total += units[i]
            if not near:
                continue
            for i in range(uint64(last - first)):
                here = scalar.ordered(load(kind, at, int64(first) + int64(i)) + z)
                if bottom <= here and here <= top:
                    bucket = (uint64(here) - uint64(buckets.low)) >> uint64(buckets.shift)
                    counts[bucket] += 1
                    if by_mass:
                        table[bucket] += units[i]
    return total


@apart
def _list_between(kind, row, low, high, values):
    """List the columns whose places in the order lie in low .. high; how many."""
    z = zero(kind)
    place = scalar.ordered(z)
    bottom, top = type(place)(low), type(place)(high)
    n = uint64(0)
    for b in range(count_blocks(row.rows.columns)):
        at, count = block_of(kind, row, int64(b))
        for first in range(0, count, _GROUP):
            last = min(int64(first) + _GROUP, count)
            if _any_between(kind, at, first, last, bottom, top):
                for i in range(first, last):
                    x = load(kind, at, int64(i)) + z
                    here = scalar.ordered(x)
                    if bottom <= here and here <= top:
                        values[n] = x
                        n += uint64(1)
    return int64(n)


@apart
def _ends_between(kind, row, low, high):
    """The smallest and the largest place in the order that occur in low .. high."""
    z = zero(kind)
    place = scalar.ordered(z)
    bottom, top = type(place)(low), type(place)(high)
    least, most = top, bottom
    for b in range(count_blocks(row.rows.columns)):
        at, count = block_of(kind, row, int64(b))
        for i in range(uint64(count)):
            here = scalar.ordered(load(kind, at, int64(i)) + z)
            inside = (bottom <= here) & (here <= top)
            below, above = here if inside else top, here if inside else bottom
            least = below if below < least else least
            most = above if above > most else most
    return int64(least), int64(most)


@apart
def _refine(kind, row, least, largest, goal, mass, arrays):
    """(the largest t from which on columns reach the goal, how much is short of it above t).

    Those from `least` on must reach it.
    """
    by_mass, limit = goal.by_mass, goal.limit
    values, masses, counts = arrays.values, arrays.masses, arrays.counts
    place = scalar.ordered(largest)
    low, high = int64(scalar.ordered(least)), int64(place)
    above = uint64(0)
    while low < high or limit == uint64(0):
        shift = int64(0)
        while (uint64(high) - uint64(low)) >> uint64(shift) >= uint64(BUCKETS):
            shift += 1
        total = _histogram(kind, row, _Buckets(low, high, shift), by_mass, limit == uint64(0), mass, arrays)
        if limit == uint64(0):
            limit = rules.mass_limit(goal.top_p, total)
        bucket = int64((uint64(high) - uint64(low)) >> uint64(shift))
        while True:
            here = arrays.table[bucket] if by_mass else uint64(counts[bucket])
            if above + here >= limit or bucket == 0:
                break
            above += here
            bucket -= 1
        start = int64(uint64(low) + (uint64(bucket) << uint64(shift)))
        end = min(int64(uint64(start) + (uint64(1) << uint64(shift)) - uint64(1)), high)
        if counts[bucket] <= min(row.rows.columns, int64(LIST)):
            n = _list_between(kind, row, start, end, values)
            if by_mass:
                _mass_units(values, n, mass, arrays.weights, masses)
            else:
                _count_units(values, masses, n)
            t = _threshold(values, masses, n, limit - above, uint64(0), largest)
            return t, limit - above - _sum_above(values, masses, n, t)
        low, high = _ends_between(kind, row, start, end)
    return scalar.from_ordered(type(place)(low)), limit - above


@apart
def _common(kind, row):
    """A value that occurs twice among eight columns spread over the row; NaN if there is none."""
    z, columns, stride = zero(kind), row.rows.columns, row.rows.column_stride
    for i in range(8):
        for k in range(i):
            x = load(kind, row.address + (columns - 1) * int64(i) // 7 * stride, int64(0))
            y = load(kind, row.address + (columns - 1) * int64(k) // 7 * stride, int64(0))
            if x == y and x > -_INF:
                return x + z
    return z + type(z)(math.nan)


@apart
def _count_all(kind, row, t):
    """How many columns equal t."""
    found = int64(0)
    for b in range(count_blocks(row.rows.columns)):
        at, count = block_of(kind, row, int64(b))
        found += int64(_count_equal(kind, at, 0, count, t))
    return found


@inlined
def _mass_of(x, mass):
    return scalar.quantise(scalar.weight(x - mass.minus, mass.high, mass.low, mass.r), mass.shift)


@apart
def _least_by_mass(question, columns):
    """A logit below which lies less than 1 - top_p of the mass, whatever the columns; -inf where none is known."""
    largest, temperature = question.largest, question.temperature
    rest = 1.0 - question.top_p
    if not rest >= 2.0**-12 or not abs(float64(largest) / temperature) < 262144.0:
        return type(largest)(-_INF)
    return type(largest)(float64(largest) + temperature * log_float64(rest * question.part / (2.0 * float64(columns))))


# ------------------------------------------------------------------------------------------------------------- the cut


@apart
def _resolve(values, masses, n, held, limit, strict, mass, largest):
    """(t, ties) where the mass before a column reaches `limit`, in a list of all columns above `strict`."""
    if held >= limit:
        t = _threshold(values, masses, n, limit, uint64(0), largest)
        at = uint64(0)
        for i in range(uint64(n)):
            if values[i] == t:
                at = masses[i]
        return t, rules.ties_needed(limit - _sum_above(values, masses, n, t), at)
    return strict, rules.ties_needed(limit - held, mass)


@apart
def _cut_by_mass(kind, row, by_count, cut, bound, question, mass, arrays):
    """top_p's (t, ties) in a row too long for the list: of what lies above t with the first `ties` that equal it."""
    t, ties = cut
    lowest = type(question.largest)(-_INF)
    limit, start = uint64(0), bound
    common = _common(kind, row)
    if not by_count and common == common:
        limit = rules.mass_limit(question.top_p, _row_mass(kind, row, lowest, mass, arrays.weights))
        t, ties = common, _count_all(kind, row, common)
    if by_count or common == common:
        # perhaps top_p ends among the columns that equal t
        before = _row_mass(kind, row, t, mass, arrays.weights)
        here = _mass_of(t, mass) if t > lowest else uint64(0)
        if by_count:
            limit = rules.mass_limit(question.top_p, before + uint64(ties) * here)
            start = t
        if before < limit and limit <= before + uint64(ties) * here:
            return t, rules.ties_needed(limit - before, here)
    if not by_count and bound == lowest:
        start = _least_by_mass(question, row.rows.columns)
    goal = _Goal(True, limit, question.top_p)
    t, short = _refine(kind, row, _finite(start), question.largest, goal, mass, arrays)
    return t, rules.ties_needed(short, _mass_of(t, mass))


@apart
def _cut_list_by_count(n, by_mass, strict, question, mass, arrays):
    """(t, ties) of top_k, and of top_p within it, in a list of n columns: all that lie above `strict`."""
    values, masses, units, largest = arrays.values, arrays.masses, arrays.units, question.largest
    lowest = type(largest)(-_INF)
    held = _mass_units(values, n, mass, arrays.weights, masses) if by_mass else uint64(0)
    t, ties = strict, question.top_k - n
    if n >= question.top_k:
        _count_units(values, units, n)
        t = _threshold(values, units, n, uint64(question.top_k), uint64(0), largest)
        ties = question.top_k - int64(_sum_above(values, units, n, t))
    if by_mass:
        before = _sum_above(values, masses, n, t)
        total = before
        if t > lowest:
            total += uint64(ties) * _mass_of(t, mass)
        limit = rules.mass_limit(question.top_p, total)
        if before >= limit:
            return _resolve(values, masses, n, held, limit, strict, uint64(0), largest)
        if t > lowest:
            ties = rules.ties_needed(limit - before, _mass_of(t, mass))
    return t, ties


@apart
def _cut_list_by_mass(kind, row, n, far, strict, question, mass, arrays):
    """(t, ties) of top_p in a list of n columns: all that lie above `strict`."""
    values, masses, largest = arrays.values, arrays.masses, question.largest
    lowest = type(largest)(-_INF)
    held = _mass_units(values, n, mass, arrays.weights, masses)
    at = _mass_of(strict, mass) if strict > lowest else uint64(0)
    if strict > lowest and not far:
        # the sums of the first pass are within 2^-17 of the integers': mostly they decide as well
        weight = scalar.weight(largest - mass.minus, mass.high, mass.low, mass.r)
        unit = float64(weight) * power_of_two_float64(float64(50 - mass.shift))
        near = uint64(question.part * unit)
        slack = (near >> uint64(16)) + uint64(2)
        limit = rules.mass_limit(question.top_p, near - slack)
        other = rules.mass_limit(question.top_p, near + slack)
        cut = _resolve(values, masses, n, held, limit, strict, at, largest)
        if other == limit:
            return cut
        other_cut = _resolve(values, masses, n, held, other, strict, at, largest)
        if other_cut[0] == cut[0] and other_cut[1] == cut[1]:
            return cut
    total = _row_mass(kind, row, lowest, mass, arrays.weights) if strict > lowest else held
    return _resolve(values, masses, n, held, rules.mass_limit(question.top_p, total), strict, at, largest)


@apart
def _cut_row(kind, row, bound, question, mass, arrays):
    """(t, ties) of top_k and top_p in a row too long for the list; a finite `bound` is one that top_k columns reach."""
    largest, columns = question.largest, row.rows.columns
    lowest = type(largest)(-_INF)
    by_count, by_mass = question.top_k < columns, question.top_p < 1.0
    t, ties = lowest, int64(0)
    if by_count and (bound > lowest or _row_count(kind, row, lowest) > uint64(question.top_k)):
        goal = _Goal(False, uint64(question.top_k), 1.0)
        t, short = _refine(kind, row, _finite(bound), largest, goal, mass, arrays)
        ties = int64(short)
    if by_mass:
        t, ties = _cut_by_mass(kind, row, by_count, (t, ties), bound, question, mass, arrays)
    return t, ties


@apart
def find_cut(kind, row, question, scale, groups, arrays):
    """(t, last, n) of a row: its cut, and how many columns it keeps if they are in the list, else -1."""
    z = zero(kind)
    lowest = type(z)(-_INF)
    top_k, top_p, min_p, temperature, largest, part = question
    by_count, by_mass = top_k < row.rows.columns, top_p < 1.0
    least = lowest
    if min_p > 0.0:
        least = rules.least_within(largest + z, temperature, -log_float64(min_p))
    # masses are relative to the row's largest
    r, rise, far = scalar.reference_of_maximum(largest, scale.high)
    shift = rules.mass_shift(rise, float64(top_k) if by_count else part)
    mass = Mass(largest if far else z, scale.high, scale.low, r, shift)
    question = Question(top_k, top_p, min_p, temperature, largest + z, part)

    bound = lowest
    if by_count:
        bound = _bound_by_count(groups, top_k, question.largest, arrays.units)
    elif by_mass:
        bound = _bound_by_mass(groups, top_p * part, question.largest, scale, arrays.weights, arrays.units)
    strict = bound
    if least > lowest and not (by_count and by_mass):
        strict = max(strict, rules.before(least))
    n = _gather(kind, row, groups, strict, int64(-1), arrays)

    t, ties = lowest, int64(0)
    if n < 0:
        t, ties = _cut_row(kind, row, bound, question, mass, arrays)
    elif by_count:
        t, ties = _cut_list_by_count(n, by_mass, strict, question, mass, arrays)
    elif by_mass:
        t, ties = _cut_list_by_mass(kind, row, n, far, strict, question, mass, arrays)
    if t < least:
        t, ties = least, int64(_ALL)

    if n >= 0 and (t > strict or t == lowest):
        n = _keep(arrays.values, arrays.columns, n, t, ties)
        if n * _SPARSE < row.rows.columns:
            return t, int64(-1), n
        last = int64(-1)
        for i in range(uint64(n)):
            last = arrays.columns[i] if arrays.values[i] == t else last
        return t, last, int64(-1)
    last = int64(_ALL)
    if ties < _ALL:
        last = _tie(kind, row, groups, t, ties) if t > lowest else int64(-1)
    return t, last, _gather(kind, row, groups, t, last, arrays)


@inlined
def _finite(x):
    """x, or the smallest finite number in place of -inf."""
    place = scalar.ordered(x)
    return scalar.from_ordered(type(place)(int64(place) + int64(1))) if x == -_INF else x
