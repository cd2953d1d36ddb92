"""Which columns top_k, top_p and min_p keep: the arithmetic that decides, in integers where sums are compared.

All three keep a prefix of the total order (value descending, index ascending), and so does any combination. A
prefix is a *cut* (t, last): the columns above t, and those equal to t up to column `last`.
"""

from __future__ import annotations

import math

from numba import float64, int64, uint64

from .._jit import inlined, njit
from .bits import float_to_bits
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
