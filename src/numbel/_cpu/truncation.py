"""What top_k, top_p and min_p keep of a row, without sorting it.

One pass over a row finds the maxima of small groups of columns (and its sums, where they are asked for). They bound
the cut from below, so that few groups hold columns above the bound; these go into a list, in which the cut is found
exactly. Where the list would be long, the row is visited again: a histogram of the columns' order narrows the cut
down, 11 bits a pass. Neither the bound nor the way carries promised bits: the cut is that of exact integer sums.
"""

from __future__ import annotations

import math

from numba import float64, int32, int64, uint64

from .._jit import apart, inlined
from .._scalar import blocks as scalar
from .._scalar import truncation as rules
from .._scalar.bits import larger
from .._scalar.blocks import BLOCK, LANES
from .._scalar.elementary import log_float64, power_of_two_float64
from .ahead import ask_ahead
from .blocks import block_address, block_node, collapse, push
from .memory import element_size, load, zero
from .scratch import fill, tail

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


@apart
def span_of(columns):
    """Blocks whose lanes share maxima: a power of two."""
    blocks = (columns + BLOCK - 1) // BLOCK
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
def survey(kind, j, address, span, sums, high64, low64, high, low, tops, coarse, lanes, buffer, stack_r, stack_s):
    """(largest logit or NaN, r, S) of a row, and the maxima of its groups; (r, S) only with `sums`."""
    blocks = (j.columns + BLOCK - 1) // BLOCK
    guess = zero(kind)
    lowest = type(guess)(-_INF)
    largest = lowest
    for s in range((blocks + span - 1) // span):
        base = uint64(s) * uint64(LANES)
        for i in range(uint64(LANES)):
            tops[base + i] = lowest
        for b in range(s * span, min((s + 1) * span, blocks)):
            block = int64(b)
            count = min(j.columns - block * BLOCK, int64(BLOCK))
            at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
            _raise_tops(kind, at, count, tops, base)
            if sums:
                guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
                push(stack_r, stack_s, block, r, total)
        largest = larger(largest, _fold(tops, base, coarse, uint64(s) * uint64(COARSE)))
    r, total = collapse(stack_r, stack_s, blocks) if sums else (0.0, 0.0)
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
def _mass_units(values, n, minus, high, low, r, shift, weights, units):
    """Masses of the values; their sum."""
    for i in range(uint64(n)):
        weights[i] = scalar.weight(values[i] - minus, high, low, r)
    total = uint64(0)
    for i in range(uint64(n)):
        units[i] = scalar.quantise(weights[i], shift)
        total += units[i]
    return total


@apart
def _bound_by_count(coarse, coarse_n, tops, tops_n, k, largest, units):
    """Some v that k columns reach, by the maxima of groups; -inf where they are too few."""
    lowest = type(largest)(-_INF)
    if k <= coarse_n and _count_units(coarse, units, coarse_n) >= uint64(k):
        return _threshold(coarse, units, coarse_n, uint64(k), uint64(k + (k >> 4)), largest)
    if k <= tops_n and _count_units(tops, units, tops_n) >= uint64(k):
        return _threshold(tops, units, tops_n, uint64(k), uint64(k + (k >> 4)), largest)
    return lowest


@apart
def _bound_by_mass(coarse, coarse_n, tops, tops_n, part, largest, high, low, weights, units):
    """Some v from which on the mass is at least `part` of the largest column's; -inf where maxima cannot show it."""
    lowest, z = type(largest)(-_INF), largest - largest
    if not part < 1048576.0:
        return lowest
    limit = uint64(part * (1.0 + 2.0**-9) * 1073741824.0)  # in units of 2^-30
    most = limit + (limit >> uint64(6))
    if _mass_units(coarse, coarse_n, largest, high, low, z, 20, weights, units) >= limit:
        return _threshold(coarse, units, coarse_n, limit, most, largest)
    if _mass_units(tops, tops_n, largest, high, low, z, 20, weights, units) >= limit:
        return _threshold(tops, units, tops_n, limit, most, largest)
    return lowest


@inlined
def _above(value, t, ties):
    return value > t or (ties and value == t)


@apart
def _gather(kind, j, address, span, tops, coarse, t, last, hits, values, columns):
    """List the columns above t, and those equal to t up to `last`, in their order; how many, or -1: too many."""
    z = zero(kind)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    n = int64(0)
    coarse_hits = tail(hits, LANES)
    for s in range((blocks + span - 1) // span):
        first_block = int64(s) * span
        ties = first_block * BLOCK <= last
        near = int64(0)
        for i in range(COARSE):
            if _above(coarse[uint64(s * COARSE + i)], t, ties):
                coarse_hits[uint64(near)] = int64(i)
                near += 1
        if near == 0:
            continue
        found = int64(0)
        for start in range(0, LANES, COARSE):
            for i in range(near):
                lane = int64(start) + coarse_hits[uint64(i)]
                if _above(tops[uint64(s * LANES + lane)], t, ties):
                    hits[uint64(found)] = lane
                    found += 1
        for start in range(first_block * BLOCK, min((first_block + span) * BLOCK, j.columns), LANES):
            for i in range(found):
                column = int64(start) + hits[uint64(i)]
                if column >= j.columns:
                    break
                x = load(kind, address + column * j.column_stride, int64(0)) + z  # -0 becomes 0
                if x > t or (x == t and column <= last):
                    if n == LIST:
                        return int64(-1)
                    values[uint64(n)], columns[uint64(n)] = x, column
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


@inlined
def block_at(kind, j, address, block, buffer):
    """(address, columns) of a block as contiguous elements."""
    count = min(j.columns - block * BLOCK, int64(BLOCK))
    return block_address(kind, address, j.column_stride, j.item_size, block, count, buffer), count


@apart
def _row_sum(kind, j, address, by_mass, t, minus, high, low, r, shift, weights, buffer):
    """Masses (or the number) of the columns above t."""
    z = zero(kind)
    total = uint64(0)
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = block_at(kind, j, address, int64(b), buffer)
        if by_mass:
            for i in range(uint64(count)):
                x = load(kind, at, int64(i))
                w = scalar.weight(x - minus, high, low, r)
                weights[i] = w if x > t else z
            for i in range(uint64(count)):
                total += scalar.quantise(weights[i], shift)
        else:
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


@apart
def _tie(kind, j, address, span, coarse, t, ties, buffer):
    """The column of number `ties` (from 1) of those equal to t; beyond all where there are fewer."""
    blocks = (j.columns + BLOCK - 1) // BLOCK
    for b in range(blocks):
        s = int64(b) // span
        near = False
        for i in range(COARSE):
            near = near or coarse[uint64(s * COARSE + i)] >= t
        if not near:
            continue
        at, count = block_at(kind, j, address, int64(b), buffer)
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
def _histogram(
    kind, j, address, low, high, shift, by_mass, whole, minus, factor, factor_low, r, mass,
    counts, table, weights, units, buffer,
):  # fmt: skip
    """Count, and weigh, the columns whose places in the order lie in low .. high, in buckets of 2^shift places.

    With `whole` the mass of all columns, too.
    """
    z = zero(kind)
    place = scalar.ordered(z)
    bottom, top = type(place)(low), type(place)(high)
    fill(counts, 0, BUCKETS, int64(0))
    fill(table, 0, BUCKETS, uint64(0))
    total = uint64(0)
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = block_at(kind, j, address, int64(b), buffer)
        for first in range(0, count, _GROUP):
            last = min(int64(first) + _GROUP, count)
            near = _any_between(kind, at, first, last, bottom, top)
            if by_mass and (near or whole):
                for i in range(uint64(last - first)):
                    x = load(kind, at, int64(first) + int64(i))
                    weights[i] = scalar.weight(x - minus, factor, factor_low, r)
                for i in range(uint64(last - first)):
                    units[i] = scalar.quantise(weights[i], mass)
                    total += units[i]
            if not near:
                continue
            for i in range(uint64(last - first)):
                here = scalar.ordered(load(kind, at, int64(first) + int64(i)) + z)
                if bottom <= here and here <= top:
                    bucket = (uint64(here) - uint64(low)) >> uint64(shift)
                    counts[bucket] += 1
                    if by_mass:
                        table[bucket] += units[i]
    return total


@apart
def _list_between(kind, j, address, low, high, values, buffer):
    """List the columns whose places in the order lie in low .. high; how many."""
    z = zero(kind)
    place = scalar.ordered(z)
    bottom, top = type(place)(low), type(place)(high)
    n = uint64(0)
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = block_at(kind, j, address, int64(b), buffer)
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
def _ends_between(kind, j, address, low, high, buffer):
    """The smallest and the largest place in the order that occur in low .. high."""
    z = zero(kind)
    place = scalar.ordered(z)
    bottom, top = type(place)(low), type(place)(high)
    least, most = top, bottom
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = block_at(kind, j, address, int64(b), buffer)
        for i in range(uint64(count)):
            here = scalar.ordered(load(kind, at, int64(i)) + z)
            inside = (bottom <= here) & (here <= top)
            below, above = here if inside else top, here if inside else bottom
            least = below if below < least else least
            most = above if above > most else most
    return int64(least), int64(most)


@apart
def _refine(
    kind, j, address, least, largest, by_mass, limit, top_p, minus, factor, factor_low, r, mass,
    counts, table, weights, units, values, masses, buffer,
):  # fmt: skip
    """(the largest t from which on columns reach `limit`, how much is short of it above t).

    Those from `least` on must reach it. A limit of 0 is top_p of all mass.
    """
    place = scalar.ordered(largest)
    low, high = int64(scalar.ordered(least)), int64(place)
    above = uint64(0)
    while low < high or limit == uint64(0):
        shift = int64(0)
        while (uint64(high) - uint64(low)) >> uint64(shift) >= uint64(BUCKETS):
            shift += 1
        total = _histogram(
            kind, j, address, low, high, shift, by_mass, limit == uint64(0), minus, factor, factor_low, r, mass,
            counts, table, weights, units, buffer,
        )  # fmt: skip
        if limit == uint64(0):
            limit = rules.mass_limit(top_p, total)
        bucket = int64((uint64(high) - uint64(low)) >> uint64(shift))
        while True:
            here = table[bucket] if by_mass else uint64(counts[bucket])
            if above + here >= limit or bucket == 0:
                break
            above += here
            bucket -= 1
        start = int64(uint64(low) + (uint64(bucket) << uint64(shift)))
        end = min(int64(uint64(start) + (uint64(1) << uint64(shift)) - uint64(1)), high)
        if counts[bucket] <= min(j.columns, int64(LIST)):
            n = _list_between(kind, j, address, start, end, values, buffer)
            if by_mass:
                _mass_units(values, n, minus, factor, factor_low, r, mass, weights, masses)
            else:
                _count_units(values, masses, n)
            t = _threshold(values, masses, n, limit - above, uint64(0), largest)
            return t, limit - above - _sum_above(values, masses, n, t)
        low, high = _ends_between(kind, j, address, start, end, buffer)
    return scalar.from_ordered(type(place)(low)), limit - above


@apart
def _common(kind, j, address):
    """A value that occurs twice among eight columns spread over the row; NaN if there is none."""
    z = zero(kind)
    for i in range(8):
        for k in range(i):
            x = load(kind, address + (j.columns - 1) * int64(i) // 7 * j.column_stride, int64(0))
            y = load(kind, address + (j.columns - 1) * int64(k) // 7 * j.column_stride, int64(0))
            if x == y and x > -_INF:
                return x + z
    return z + type(z)(math.nan)


@apart
def _count_all(kind, j, address, t, buffer):
    """How many columns equal t."""
    found = int64(0)
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = block_at(kind, j, address, int64(b), buffer)
        found += int64(_count_equal(kind, at, 0, count, t))
    return found


@inlined
def _mass_of(x, minus, high, low, r, shift):
    return scalar.quantise(scalar.weight(x - minus, high, low, r), shift)


@apart
def _least_by_mass(largest, temperature, top_p, part, columns):
    """A logit below which lies less than 1 - top_p of the mass, whatever the columns; -inf where none is known."""
    lowest = type(largest)(-_INF)
    rest = 1.0 - top_p
    if not rest >= 2.0**-12 or not abs(float64(largest) / temperature) < 262144.0:
        return lowest
    return type(largest)(float64(largest) + temperature * log_float64(rest * part / (2.0 * float64(columns))))


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
def _cut_by_mass(
    kind, j, address, by_count, t, ties, bound, top_p, temperature, part, largest,
    minus, high, low, r, shift, counts, table, weights, units, values, masses, buffer,
):  # fmt: skip
    """top_p's (t, ties) in a row too long for the list: of what lies above t with the first `ties` that equal it."""
    lowest = type(largest)(-_INF)
    limit, start = uint64(0), bound
    common = _common(kind, j, address)
    if not by_count and common == common:
        limit = rules.mass_limit(
            top_p, _row_sum(kind, j, address, True, lowest, minus, high, low, r, shift, weights, buffer)
        )
        t, ties = common, _count_all(kind, j, address, common, buffer)
    if by_count or common == common:
        # perhaps top_p ends among the columns that equal t
        before = _row_sum(kind, j, address, True, t, minus, high, low, r, shift, weights, buffer)
        here = _mass_of(t, minus, high, low, r, shift) if t > lowest else uint64(0)
        if by_count:
            limit = rules.mass_limit(top_p, before + uint64(ties) * here)
            start = t
        if before < limit and limit <= before + uint64(ties) * here:
            return t, rules.ties_needed(limit - before, here)
    if not by_count and bound == lowest:
        start = _least_by_mass(largest, temperature, top_p, part, j.columns)
    t, short = _refine(
        kind, j, address, _finite(start), largest, True, limit, top_p,
        minus, high, low, r, shift, counts, table, weights, units, values, masses, buffer,
    )  # fmt: skip
    return t, rules.ties_needed(short, _mass_of(t, minus, high, low, r, shift))


@apart
def find_cut(
    kind, j, address, span, top_k, top_p, min_p, temperature, high, low, largest, part,
    tops, coarse, hits, values, columns, units, masses, weights, counts, table, buffer,
):  # fmt: skip
    """(t, last, n) of a row: its cut, and how many columns it keeps if they are in the list, else -1."""
    z = zero(kind)
    lowest = type(z)(-_INF)
    by_count, by_mass = top_k < j.columns, top_p < 1.0
    spans = ((j.columns + BLOCK - 1) // BLOCK + span - 1) // span
    coarse_n, tops_n = spans * COARSE, spans * LANES
    least = lowest
    if min_p > 0.0:
        least = rules.least_within(largest + z, temperature, -log_float64(min_p))
    # masses are relative to the row's largest
    r, rise, far = scalar.reference_of_maximum(largest, high)
    minus = largest if far else z
    shift = rules.mass_shift(rise, float64(top_k) if by_count else part)

    bound = lowest
    if by_count:
        bound = _bound_by_count(coarse, coarse_n, tops, tops_n, top_k, largest + z, units)
    elif by_mass:
        bound = _bound_by_mass(coarse, coarse_n, tops, tops_n, top_p * part, largest + z, high, low, weights, units)
    strict = bound
    if least > lowest and not (by_count and by_mass):
        strict = max(strict, rules.before(least))
    n = _gather(kind, j, address, span, tops, coarse, strict, int64(-1), hits, values, columns)

    t, ties, at, before = lowest, int64(0), uint64(0), uint64(0)
    if n >= 0:
        held = _mass_units(values, n, minus, high, low, r, shift, weights, masses) if by_mass else uint64(0)
        if by_count:
            t, ties = strict, top_k - n
            if n >= top_k:
                _count_units(values, units, n)
                t = _threshold(values, units, n, uint64(top_k), uint64(0), largest + z)
                ties = top_k - int64(_sum_above(values, units, n, t))
            if by_mass:
                before = _sum_above(values, masses, n, t)
                total = before
                if t > lowest:
                    total += uint64(ties) * _mass_of(t, minus, high, low, r, shift)
                limit = rules.mass_limit(top_p, total)
                if before >= limit:
                    t, ties = _resolve(values, masses, n, held, limit, strict, uint64(0), largest + z)
                elif t > lowest:
                    ties = rules.ties_needed(limit - before, _mass_of(t, minus, high, low, r, shift))
        elif by_mass:
            at = _mass_of(strict, minus, high, low, r, shift) if strict > lowest else uint64(0)
            if strict > lowest and not far:
                # the sums of the first pass are within 2^-17 of the integers': mostly they decide as well
                unit = float64(scalar.weight(largest - minus, high, low, r)) * power_of_two_float64(float64(50 - shift))
                near = uint64(part * unit)
                slack = (near >> uint64(16)) + uint64(2)
                limit = rules.mass_limit(top_p, near - slack)
                other = rules.mass_limit(top_p, near + slack)
                t, ties = _resolve(values, masses, n, held, limit, strict, at, largest + z)
                if other != limit:
                    t2, ties2 = _resolve(values, masses, n, held, other, strict, at, largest + z)
                    if t2 != t or ties2 != ties:
                        total = _row_sum(kind, j, address, True, lowest, minus, high, low, r, shift, weights, buffer)
                        limit = rules.mass_limit(top_p, total)
                        t, ties = _resolve(values, masses, n, held, limit, strict, at, largest + z)
            else:
                total = held
                if strict > lowest:
                    total = _row_sum(kind, j, address, True, lowest, minus, high, low, r, shift, weights, buffer)
                t, ties = _resolve(values, masses, n, held, rules.mass_limit(top_p, total), strict, at, largest + z)
    else:
        if by_count:
            if bound == lowest and _row_sum(
                kind, j, address, False, lowest, minus, high, low, r, shift, weights, buffer
            ) <= uint64(top_k):
                t = lowest
            else:
                t, short = _refine(
                    kind, j, address, _finite(bound), largest + z, False, uint64(top_k), 1.0,
                    minus, high, low, r, shift, counts, table, weights, units, values, masses, buffer,
                )  # fmt: skip
                ties = int64(short)
        if by_mass:
            t, ties = _cut_by_mass(
                kind, j, address, by_count, t, ties, bound, top_p, temperature, part, largest + z,
                minus, high, low, r, shift, counts, table, weights, units, values, masses, buffer,
            )  # fmt: skip
    if t < least:
        t, ties = least, int64(_ALL)

    if n >= 0 and (t > strict or t == lowest):
        n = _keep(values, columns, n, t, ties)
        if n * _SPARSE < j.columns:
            return t, int64(-1), n
        last = int64(-1)
        for i in range(uint64(n)):
            last = columns[i] if values[i] == t else last
        return t, last, int64(-1)
    last = int64(_ALL)
    if ties < _ALL:
        last = _tie(kind, j, address, span, coarse, t, ties, buffer) if t > lowest else int64(-1)
    return t, last, _gather(kind, j, address, span, tops, coarse, t, last, hits, values, columns)


@inlined
def _finite(x):
    """x, or the smallest finite number in place of -inf."""
    place = scalar.ordered(x)
    return scalar.from_ordered(type(place)(int64(place) + int64(1))) if x == -_INF else x
