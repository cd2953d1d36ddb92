"""Which columns top_k, top_p and min_p keep: the arithmetic that decides, in integers where sums are compared.

All three keep a prefix of the total order (value descending, index ascending), and so does any combination. A
prefix is a *cut* (t, last): the columns above t, and those equal to t up to column `last`.
"""

from __future__ import annotations

import math

from numba import float64, int32, int64, uint16, uint32, uint64

from .._jit import inlined, njit
from .bits import bits_to_float, float_to_bits
from .blocks import from_ordered, mulhi64, ordered

_INF = math.inf
#: Bits of top_p: a prefix that falls short of it by less than 2^-40 of the mass counts as reaching it.
PARTS = 40


@inlined
def middle(low, high):
    """An int64 half-way between two, whatever their difference."""
    return (low >> int64(1)) + (high >> int64(1)) + (low & high & int64(1))


@inlined
def within(x, largest, temperature, reach):
    """Whether min_p keeps logit x: (largest - x) / T <= reach = -ln(min_p), float64."""
    return (float64(largest) - float64(x)) / temperature <= reach


@njit
def least_within(largest, temperature, reach):
    """The smallest logit that min_p keeps, by its place in the order of the dtype's finite numbers."""
    zero = largest - largest
    place = ordered(zero)
    low, high = int64(ordered(zero - type(zero)(_INF))), int64(ordered(largest))
    while low + int64(1) < high:
        at = middle(low, high)
        if within(from_ordered(type(place)(at)), largest, temperature, reach):
            high = at
        else:
            low = at
    return from_ordered(type(place)(high))


@inlined
def before(x):
    """The next smaller number of the dtype."""
    place = ordered(x)
    return from_ordered(type(place)(int64(place) - int64(1)))


@inlined
def mass_shift(rise, most):
    """What `quantise` must be told for masses whose sum stays below 2^63.

    A mass is floor(2^(z - n) 2^s), n the exponent of the row's largest, s = min(50, 61 - floor(log2 most)); `most` is
    not below the sum of 2^(z - z of the largest).
    """
    exponent = ((float_to_bits(float64(most)) >> int64(52)) & int64(0x7FF)) - int64(1023)
    return int64(rise) + max(int64(0), exponent - int64(11))


@inlined
def mass_limit(top_p, total):
    """ceil(floor(top_p 2^40) total / 2^40), at least 1: a column is kept while the mass before it is below this."""
    parts = uint64(int64(top_p * 1099511627776.0))
    high, low = mulhi64(parts, total), parts * total
    limit = (high << uint64(64 - PARTS)) | (low >> uint64(PARTS))
    if low & uint64((1 << PARTS) - 1) != uint64(0):
        limit += uint64(1)
    return max(limit, uint64(1))


@inlined
def ties_needed(short, mass):
    """How many columns of one mass reach `short` together."""
    return int64((short + mass - uint64(1)) // mass) if mass > uint64(0) else int64(1)


# ------------------------------------------------ places: an element's number in the order of its format, 0 of either 0


@inlined
def place_float32(x):
    """Of a float32; NaN lies beyond +inf or below -inf."""
    bits = int64(float_to_bits(x))
    return -(bits & int64(0x7FFFFFFF)) if bits < int64(0) else bits


@inlined
def place_float64(x):
    """Of a float64; NaN lies beyond +inf or below -inf."""
    bits = float_to_bits(x)
    return -(bits & int64(0x7FFFFFFFFFFFFFFF)) if bits < int64(0) else bits


@inlined
def place_half(bits):
    """Of a float16 or a bfloat16, given as its bits; NaN lies beyond +inf or below -inf."""
    x = int64(bits)
    return int64(0x8000) - x if x >= int64(0x8000) else x


@inlined
def at_place_float32(place):
    """The float32 of a place."""
    p = int64(place)
    return bits_to_float(int32(-p | int64(-0x80000000)) if p < int64(0) else int32(p))


@inlined
def at_place_float64(place):
    """The float64 of a place."""
    p = int64(place)
    return bits_to_float(-p | int64(-0x8000000000000000) if p < int64(0) else p)


@inlined
def at_place_half(place):
    """The bits of the float16 or bfloat16 of a place."""
    p = int64(place)
    return uint16(int64(0x8000) - p if p < int64(0) else p)


@inlined
def distance(top, place):
    """How many places lie between the largest and another, as uint64."""
    return uint64(int64(top)) - uint64(int64(place))


@inlined
def place_below(top, away):
    """The place at a distance from the largest."""
    return int64(uint64(int64(top)) - uint64(away))


@inlined
def bucket_shift(span, bits):
    """The smallest shift that brings a uint64 below 2^bits."""
    shift = int64(0)
    while (uint64(span) >> uint64(shift)) >> uint64(bits) != uint64(0):
        shift += int64(1)
    return shift


@inlined
def low_word(x):
    """The lower half of a uint64."""
    return uint32(uint64(x) & uint64(0xFFFFFFFF))


@inlined
def high_word(x):
    """The upper half of a uint64."""
    return uint32(uint64(x) >> uint64(32))


@inlined
def both_words(low, high):
    """The uint64 of two halves."""
    return (uint64(high) << uint64(32)) | uint64(low)


@inlined
def high_with_carry(x, old):
    """What to add to an upper half after the lower half of x was added to `old`."""
    low = uint32(uint64(x) & uint64(0xFFFFFFFF))
    carry = uint32(1) if uint32(uint32(old) + low) < low else uint32(0)
    return uint32(uint32(uint64(x) >> uint64(32)) + carry)
