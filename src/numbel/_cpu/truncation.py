"""Truncated sampling: what top_k, top_p and min_p keep of a row, without sorting it, and a draw from that.

One pass over a row finds the maxima of small groups of columns (and its sums, where they are asked for). They bound
the cut from below, so that few groups hold columns above the bound; these go into a list, in which the cut is found
exactly. Where the list would be long, the row is visited again: a histogram of the columns' order narrows the cut
down, 11 bits a pass. Neither the bound nor the way carries promised bits: the cut is that of exact integer sums.

The draw is the grouped rule, or the race, on the logits with the excluded columns at -inf, under a tag of its own.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int32, int64, uint64

from .._jit import apart, inlined, njit
from .._scalar import blocks as scalar
from .._scalar import truncation as rules
from .._scalar.address import GROUPED, NOISE, TRUNCATED, block_words, draw_key, noise_word
from .._scalar.bits import larger
from .._scalar.blocks import BLOCK, LANES
from .._scalar.elementary import LOG2E, exp_float64, log_float64, power_of_two_float64
from .._scalar.gumbel import exponential_float64
from .blocks import (
    CHUNKS,
    LEVELS,
    block_address,
    block_max,
    block_node,
    choose,
    collapse,
    halve,
    push,
    quantise_block,
)
from .categorical import contest
from .gumbel_max import best_of_block, race_key
from .job import job_at, row_address, row_id, row_min_p, row_temperature, row_top_k, row_top_p, row_wanted, take_items
from .memory import load, workspace, zero
from .results import write_argmax, write_bad, write_empty, write_logsumexp, write_sample

_INF = math.inf
#: Lanes of a coarse group: 32 of them share a block's 512.
_COARSE = 32
#: Maxima of groups that are kept of a row; longer rows have larger groups.
_FINE = 1 << 15
#: Columns that a list holds.
_LIST = 8192
_BUCKETS = 2048
#: Columns that are looked at one by one when one of them is in range.
_GROUP = 64
_ALL = 1 << 62


@inlined
def _narrow(kind, high64, low64):
    z = zero(kind)
    return scalar.narrow(z, high64, low64)


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
        for i in range(uint64(min(count - start, int64(LANES)))):
            tops[base + i] = larger(tops[base + i], load(kind, address, start + int64(i)))


@apart
def _fold(tops, base, coarse, coarse_base):
    """The coarse maxima of a span; the largest of all."""
    for i in range(uint64(_COARSE)):
        coarse[coarse_base + i] = tops[base + i]
    for start in range(uint64(_COARSE), uint64(LANES), uint64(_COARSE)):
        for i in range(uint64(_COARSE)):
            coarse[coarse_base + i] = larger(coarse[coarse_base + i], tops[base + uint64(start) + i])
    largest = coarse[coarse_base]
    for i in range(uint64(1), uint64(_COARSE)):
        largest = larger(largest, coarse[coarse_base + i])
    return largest


@apart
def _survey(kind, j, address, span, sums, high64, low64, high, low, tops, coarse, lanes, buffer, stack_r, stack_s):
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
        largest = larger(largest, _fold(tops, base, coarse, uint64(s) * uint64(_COARSE)))
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
    if k <= coarse_n:
        if _count_units(coarse, units, coarse_n) >= uint64(k):
            return _threshold(coarse, units, coarse_n, uint64(k), uint64(k + (k >> 4)), largest)
    if k <= tops_n:
        if _count_units(tops, units, tops_n) >= uint64(k):
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
    coarse_hits = hits[LANES:]
    for s in range((blocks + span - 1) // span):
        first_block = int64(s) * span
        ties = first_block * BLOCK <= last
        near = int64(0)
        for i in range(_COARSE):
            if _above(coarse[uint64(s * _COARSE + i)], t, ties):
                coarse_hits[uint64(near)] = int64(i)
                near += 1
        if near == 0:
            continue
        found = int64(0)
        for start in range(0, LANES, _COARSE):
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
                    if n == _LIST:
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
def _block_at(kind, j, address, block, buffer):
    """(address, columns) of a block as contiguous elements."""
    count = min(j.columns - block * BLOCK, int64(BLOCK))
    return block_address(kind, address, j.column_stride, j.item_size, block, count, buffer), count


@apart
def _row_sum(kind, j, address, by_mass, t, minus, high, low, r, shift, weights, buffer):
    """Masses (or the number) of the columns above t."""
    z = zero(kind)
    total = uint64(0)
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = _block_at(kind, j, address, int64(b), buffer)
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
        for i in range(_COARSE):
            near = near or coarse[uint64(s * _COARSE + i)] >= t
        if not near:
            continue
        at, count = _block_at(kind, j, address, int64(b), buffer)
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
    counts[:] = 0
    table[:] = uint64(0)
    total = uint64(0)
    for b in range((j.columns + BLOCK - 1) // BLOCK):
        at, count = _block_at(kind, j, address, int64(b), buffer)
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
        at, count = _block_at(kind, j, address, int64(b), buffer)
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
        at, count = _block_at(kind, j, address, int64(b), buffer)
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
        while (uint64(high) - uint64(low)) >> uint64(shift) >= uint64(_BUCKETS):
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
        if counts[bucket] <= len(values):
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
        at, count = _block_at(kind, j, address, int64(b), buffer)
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
def _cut(
    kind, j, address, span, top_k, top_p, min_p, temperature, high, low, largest, part,
    tops, coarse, hits, values, columns, units, masses, weights, counts, table, buffer,
):  # fmt: skip
    """(t, last, n) of a row: its cut, and how many columns it keeps if they are in the list, else -1."""
    z = zero(kind)
    lowest = type(z)(-_INF)
    by_count, by_mass = top_k < j.columns, top_p < 1.0
    spans = ((j.columns + BLOCK - 1) // BLOCK + span - 1) // span
    coarse_n, tops_n = spans * _COARSE, spans * LANES
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
        bound = _bound_by_mass(
            coarse, coarse_n, tops, tops_n, top_p * part, largest + z, high, low, weights, units
        )
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
                        total = _row_sum(
                            kind, j, address, True, lowest, minus, high, low, r, shift, weights, buffer
                        )
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
        return t, int64(-1), _keep(values, columns, n, t, ties)
    last = int64(_ALL)
    if ties < _ALL:
        last = _tie(kind, j, address, span, coarse, t, ties, buffer) if t > lowest else int64(-1)
    return t, last, _gather(kind, j, address, span, tops, coarse, t, last, hits, values, columns)


@inlined
def _finite(x):
    """x, or the smallest finite number in place of -inf."""
    place = scalar.ordered(x)
    return scalar.from_ordered(type(place)(int64(place) + int64(1))) if x == -_INF else x



# ------------------------------------------------------------------------------------------------------------ the draw


@apart
def _list_node(values, columns, first, last, high64, low64, high, low, lanes):
    """The node of a block of which columns first .. last - 1 of the list are all that is left."""
    largest = values[uint64(first)]
    for i in range(uint64(first), uint64(last)):
        largest = values[i] if values[i] > largest else largest
    r, _, far = scalar.reference_of_maximum(largest, high)
    minus = largest if far else largest - largest
    if last - first == 1:
        total = scalar.weight(largest - minus, high, low, r)
    else:
        for i in range(uint64(LANES)):
            lanes[i] = largest - largest
        for i in range(uint64(first), uint64(last)):
            lanes[uint64(columns[i] & (LANES - 1))] += scalar.weight(values[i] - minus, high, low, r)
        halve(lanes, uint64(LANES))
        total = lanes[0]
    if far:
        return scalar.far_node(float64(largest), high64, low64, float64(total))
    return scalar.plain_node(r, total)


@apart
def _list_nodes(values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s):
    """Nodes of the blocks that the list touches, and where each begins in it; how many."""
    m, i = int64(0), int64(0)
    while i < n:
        first, block = i, columns[uint64(i)] // BLOCK
        while i < n and columns[uint64(i)] // BLOCK == block:
            i += 1
        starts[uint64(m)] = first
        node_r[uint64(m)], node_s[uint64(m)] = _list_node(
            values, columns, first, i, high64, low64, high, low, lanes
        )
        m += 1
    starts[uint64(m)] = n
    return m


@apart
def _root(columns, starts, node_r, node_s, m, blocks, stack_r, stack_s):
    """The root of the row's tree, blocks that the list does not touch being empty."""
    at = int64(0)
    for b in range(blocks):
        if at < m and columns[uint64(starts[uint64(at)])] // BLOCK == int64(b):
            push(stack_r, stack_s, int64(b), node_r[uint64(at)], node_s[uint64(at)])
            at += 1
        else:
            push(stack_r, stack_s, int64(b), 0.0, 0.0)
    return collapse(stack_r, stack_s, blocks)


@inlined
def _key_and_choice(block, sample, row, tag, key, mask):
    """Words 0 and 1 of a block (its key), and 2 and 3 (the choice inside), as uint64 each."""
    x0, x1, x2, x3 = block_words(uint64(block), uint64(sample), uint64(row), uint64(tag), key, mask)
    return (x0 << uint64(32)) | x1, (x2 << uint64(32)) | x3


@inlined
def _challenge(word, r, total, best_key, best_r, at):
    """(whether a block beats the best so far, which is `at`, or -1 for none; its key)."""
    wins, value = contest(word, r, total, best_key, best_r)
    if at < 0 and not wins:
        return True, exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
    return wins, value


@apart
def _choose_in_list(values, units, first, last, high, low, word):
    """Where in the list the choice inside a block falls."""
    largest = values[uint64(first)]
    for i in range(uint64(first), uint64(last)):
        largest = values[i] if values[i] > largest else largest
    r, rise, far = scalar.reference_of_maximum(largest, high)
    minus = largest if far else largest - largest
    total = uint64(0)
    for i in range(uint64(first), uint64(last)):
        units[i] = scalar.quantise(scalar.weight(values[i] - minus, high, low, r), rise)
        total += units[i]
    target = scalar.mulhi64(word, total)
    i, running = uint64(first), units[uint64(first)]
    while running <= target:
        i += uint64(1)
        running += units[i]
    return int64(i)


@apart
def _draw_from_list(
    kind, j, row, values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s, units, stack_r, stack_s
):
    """Grouped sampling from the columns of a list."""
    m = _list_nodes(values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s)
    r, total = 0.0, 1.0
    if j.log_prob != 0:
        blocks = (j.columns + BLOCK - 1) // BLOCK
        r, total = _root(columns, starts, node_r, node_s, m, blocks, stack_r, stack_s)
    identity = row_id(j, row)
    key, mask = draw_key(j.seed, j.draw)
    for s in range(j.samples):
        sample = j.first_sample + int64(s)
        best, best_r, at = _INF, 0.0, int64(0) if m == 1 else int64(-1)
        for e in range(m if m > 1 else 0):
            block = columns[uint64(starts[uint64(e)])] // BLOCK
            word, _ = _key_and_choice(block, sample, identity, TRUNCATED, key, mask)
            wins, value = _challenge(word, node_r[uint64(e)], node_s[uint64(e)], best, best_r, at)
            if wins:
                best, best_r, at = value, node_r[uint64(e)], int64(e)
        first, last = starts[uint64(at)], starts[uint64(at + 1)]
        block = columns[uint64(first)] // BLOCK
        _, word = _key_and_choice(block, sample, identity, TRUNCATED, key, mask)
        chosen = _choose_in_list(values, units, first, last, high, low, word)
        write_sample(kind, j, row, int64(s), columns[uint64(chosen)], high64, low64, r, total)


@apart
def _race_in_list(
    kind, j, row, values, columns, n, temperature, high64, low64, high, low, lanes, starts, node_r, node_s, stack_r, stack_s
):
    """The race among the columns of a list."""
    r, total = 0.0, 1.0
    if j.log_prob != 0:
        m = _list_nodes(values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s)
        blocks = (j.columns + BLOCK - 1) // BLOCK
        r, total = _root(columns, starts, node_r, node_s, m, blocks, stack_r, stack_s)
    identity = uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    for s in range(j.samples):
        sample = uint64(j.first_sample + int64(s))
        best, at = -_INF, int64(-1)
        for i in range(n):
            column = columns[uint64(i)]
            word = noise_word(uint64(column), sample, identity, uint64(NOISE), key, mask)
            value = race_key(values[uint64(i)], word, temperature, column, sample, identity, key, mask)
            if value > best or at < 0:
                best, at = value, column
        write_sample(kind, j, row, int64(s), at, high64, low64, r, total)


@apart
def _masked_block(kind, j, address, block, t, last, masked, buffer):
    """Copy a block, the excluded columns at -inf; (its address, columns)."""
    z = zero(kind)
    lowest = type(z)(-_INF)
    at, count = _block_at(kind, j, address, block, buffer)
    ties = min(max(last + 1 - block * BLOCK, int64(0)), count)
    for i in range(uint64(ties)):
        x = load(kind, at, int64(i))
        masked[i] = x if x >= t else lowest
    for i in range(uint64(ties), uint64(count)):
        x = load(kind, at, int64(i))
        masked[i] = x if x > t else lowest
    return int64(masked.ctypes.data), count


@inlined
def _reaches(coarse, s, t):
    found = False
    for i in range(_COARSE):
        found = found or coarse[uint64(s * _COARSE + i)] >= t
    return found


@apart
def _draw_from_row(
    kind, j, row, address, span, coarse, t, last, tag, high64, low64, high, low,
    lanes, masked, weights, sums, keys, rs, winners, stack_r, stack_s, buffer,
):  # fmt: skip
    """Grouped sampling from a row cut at (t, last): the node of what is kept."""
    z = zero(kind)
    guess = z
    identity = row_id(j, row)
    key, mask = draw_key(j.seed, j.draw)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    for s in range(uint64(j.samples)):
        keys[s], rs[s], winners[s] = _INF, 0.0, int64(-1)
    for b in range(blocks):
        block = int64(b)
        if not _reaches(coarse, block // span, t):
            push(stack_r, stack_s, block, 0.0, 0.0)
            continue
        at, count = _masked_block(kind, j, address, block, t, last, masked, buffer)
        guess, r, total = block_node(z, at, count, high64, low64, high, low, guess, lanes)
        push(stack_r, stack_s, block, r, total)
        if not total > 0.0:
            continue
        for s in range(uint64(j.samples)):
            word, _ = _key_and_choice(block, j.first_sample + int64(s), identity, tag, key, mask)
            wins, value = _challenge(word, r, total, keys[s], rs[s], winners[s])
            if wins:
                keys[s], rs[s], winners[s] = value, r, block
    r, total = collapse(stack_r, stack_s, blocks)
    held, count, rise, quantised = int64(-1), int64(0), int64(0), uint64(0)
    for s in range(j.samples):
        block = winners[uint64(s)]
        if block != held:
            held = block
            at, count = _masked_block(kind, j, address, block, t, last, masked, buffer)
            quantised, rise = quantise_block(z, at, count, high, low, weights, sums)
        _, word = _key_and_choice(block, j.first_sample + int64(s), identity, tag, key, mask)
        column = choose(weights, sums, rise, scalar.mulhi64(word, quantised))
        write_sample(kind, j, row, int64(s), block * BLOCK + column, high64, low64, r, total)
    return r, total


@apart
def _race_in_row(
    kind, j, row, address, span, coarse, t, last, temperature, high64, low64, high, low,
    lanes, masked, words, keys, winners, stack_r, stack_s, buffer,
):  # fmt: skip
    """The race among the columns of a row cut at (t, last): the node of what is kept."""
    z = zero(kind)
    guess = z
    rate, _ = scalar.narrow(float32(0), LOG2E / temperature * 8388608.0, 0.0)
    sums = j.logsumexp != 0 or j.row_result != 0 or j.log_prob != 0
    identity = uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    for s in range(uint64(j.samples)):
        keys[s], winners[s] = -_INF, int64(-1)
    for b in range(blocks):
        block = int64(b)
        if not _reaches(coarse, block // span, t):
            push(stack_r, stack_s, block, 0.0, 0.0)
            continue
        at, count = _masked_block(kind, j, address, block, t, last, masked, buffer)
        if sums:
            guess, r, total = block_node(z, at, count, high64, low64, high, low, guess, lanes)
            push(stack_r, stack_s, block, r, total)
        largest, _ = block_max(z, at, count)
        if largest == -_INF:
            continue
        exact = not abs(float64(largest) / temperature) <= 4194304.0
        for s in range(uint64(j.samples)):
            keys[s], winners[s] = best_of_block(
                z, at, count, words, largest, rate, temperature, exact,
                block * BLOCK, j.first_sample + int64(s), identity, key, mask, keys[s], winners[s],
            )  # fmt: skip
    r, total = collapse(stack_r, stack_s, blocks) if sums else (0.0, 1.0)
    for s in range(j.samples):
        write_sample(kind, j, row, int64(s), winners[uint64(s)], high64, low64, r, total)
    return r, total


@njit
def truncated(kind, job):
    """One worker: take rows until none is left."""
    j = job_at(job)
    z = zero(kind)
    lowest = type(z)(-_INF)
    samples = uint64(j.samples)
    span = span_of(j.columns)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    spans = (blocks + span - 1) // span
    tops, coarse = workspace(kind, spans * LANES), workspace(kind, spans * _COARSE)
    length = min(j.columns, int64(_LIST))
    values, columns = workspace(kind, length), np.empty(length, np.int64)
    masses, units = np.empty(length, np.uint64), np.empty(max(spans * LANES, length), np.uint64)
    weights = workspace(kind, max(spans * LANES, length, int64(BLOCK)))
    hits = np.empty(LANES + _COARSE, np.int64)
    counts, table = np.empty(_BUCKETS, np.int64), np.empty(_BUCKETS, np.uint64)
    starts = np.empty(min(blocks, length) + 1, np.int64)
    node_r, node_s = np.empty(min(blocks, length), np.float64), np.empty(min(blocks, length), np.float64)
    lanes, masked = workspace(kind, LANES), workspace(kind, min(j.columns, int64(BLOCK)))
    sums = np.empty(CHUNKS, np.uint64)
    words = np.empty(BLOCK if j.race != 0 else 0, np.uint32)
    keys, rs, winners = np.empty(samples, np.float64), np.empty(samples, np.float64), np.empty(samples, np.int64)
    stack_r, stack_s = np.empty(LEVELS, np.float64), np.empty(LEVELS, np.float64)
    buffer = np.empty(BLOCK if j.column_stride != j.item_size else 0, np.float64)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row = int64(item)
            if not row_wanted(j, row):
                write_empty(kind, j, row)
                continue
            temperature = row_temperature(j, row)
            if temperature == 0.0:
                write_argmax(kind, j, row)
                continue
            top_k, top_p, min_p = row_top_k(j, row), row_top_p(j, row), row_min_p(j, row)
            high64, low64 = scalar.scale(temperature)
            high, low = _narrow(kind, high64, low64)
            address = row_address(j, row)
            off = top_k >= j.columns and top_p >= 1.0 and min_p <= 0.0
            by_sums = not off and (j.logsumexp != 0 or (top_p < 1.0 and top_k >= j.columns))
            largest, r, total = _survey(
                kind, j, address, span, by_sums, high64, low64, high, low, tops, coarse, lanes, buffer, stack_r, stack_s
            )
            if not abs(largest) < _INF:
                write_bad(kind, j, row)
                continue
            if by_sums:
                write_logsumexp(kind, j, row, r, total)
            t, last, n = lowest, int64(-1), int64(-1)
            if not off:
                part = float64(j.columns)
                if by_sums and not scalar.reference_of_maximum(largest, high)[2]:
                    part = exp_float64(-scalar.log_prob(largest, high64, low64, r, total))
                t, last, n = _cut(
                    kind, j, address, span, top_k, top_p, min_p, temperature, high, low, largest, part,
                    tops, coarse, hits, values, columns, units, masses, weights, counts, table, buffer,
                )  # fmt: skip
            if n >= 0 and j.race != 0:
                _race_in_list(
                    kind, j, row, values, columns, n, temperature, high64, low64, high, low,
                    lanes, starts, node_r, node_s, stack_r, stack_s,
                )  # fmt: skip
            elif n >= 0:
                _draw_from_list(
                    kind, j, row, values, columns, n, high64, low64, high, low,
                    lanes, starts, node_r, node_s, units, stack_r, stack_s,
                )  # fmt: skip
            else:
                if j.race != 0:
                    r, total = _race_in_row(
                        kind, j, row, address, span, coarse, t, last, temperature, high64, low64, high, low,
                        lanes, masked, words, keys, winners, stack_r, stack_s, buffer,
                    )  # fmt: skip
                else:
                    r, total = _draw_from_row(
                        kind, j, row, address, span, coarse, t, last, GROUPED if off else TRUNCATED,
                        high64, low64, high, low,
                        lanes, masked, weights, sums, keys, rs, winners, stack_r, stack_s, buffer,
                    )  # fmt: skip
                if off:
                    write_logsumexp(kind, j, row, r, total)
