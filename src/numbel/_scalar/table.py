"""Alias tables in integers: category i of K has mass q_i, all masses together K C.

A draw takes a column by mulhi64(word, K) and a level t < C by mulhi64(word, C); it is the column itself where t lies
below the column's threshold, else the column's alias. One uint64 an entry: threshold << bits | alias.
"""

from __future__ import annotations

from numba import int64, uint64

from .._jit import inlined
from .address import TABLE, block_words
from .bits import product
from .blocks import mulhi64, relative
from .elementary import exp2_fraction_float64, power_of_two_float64

#: All masses together, up to the rounding of their sum: with K <= 2^a categories a threshold has at most 64 - a bits.
MASS = 1 << 62
_MAGIC = 6755399441055744.0  # 1.5 * 2^52


@inlined
def probability(x, high, low, r, factor):
    """2^(z - r) factor of a logit x in float64: 0 below 2^-1000 factor; r and S of the row's node as in `log_prob`."""
    z = relative(x, high, low, r)
    possible = z > -1000.0  # and so false for NaN, which -inf may give
    z = z if possible else 0.0
    n = (z + _MAGIC) - _MAGIC
    w = product(exp2_fraction_float64(z - n) * power_of_two_float64(n), factor)
    return w if possible else 0.0


@inlined
def mass(x, high, low, r, factor):
    """`probability` rounded to an integer, below 2^63."""
    return int64(probability(x, high, low, r, factor) + 0.5)


@inlined
def shares(total, possible, columns):
    """(C, bits of an alias, what each possible column gets more, how many get one more than that).

    `total` is the sum of the masses, which shall become C for each column; `possible` columns have any.
    """
    unit = (total + columns - int64(1)) // columns
    more = unit * columns - total
    bits = int64(0)
    while (columns - int64(1)) >> bits > int64(0):
        bits += int64(1)
    each = more // possible
    return unit, bits, each, more - each * possible


@inlined
def draw_words(i, row, key, mask):
    """Two words of 64 bits for draw i of a table's row: the column, the level."""
    x0, x1, x2, x3 = block_words(uint64(i), uint64(i) >> uint64(32), row, uint64(TABLE), key, mask)
    return (x0 << uint64(32)) | x1, (x2 << uint64(32)) | x3


@inlined
def pack(threshold, alias, bits):
    """The entry of a column."""
    return (uint64(threshold) << uint64(bits)) | uint64(alias)


@inlined
def settle(entry, column, level, bits):
    """The category of a draw."""
    own = level < entry >> uint64(bits)
    return column if own else entry & ((uint64(1) << uint64(bits)) - uint64(1))


@inlined
def split_word(column_word, level_word, categories, unit):
    """Column and level of a draw."""
    return mulhi64(column_word, categories), mulhi64(level_word, unit)
