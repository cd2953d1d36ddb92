"""(seed, draw, row, column, sample, tag) -> the Philox block that holds its random words.

Four neighbouring columns share one block: `word = column & 3`. Nothing else enters an address, no
thread count, launch shape, batch size or chunk. Limits: 2^34 columns, 2^56 rows, 2^32 samples of a
row in one call, 2^64 draws.
"""

from __future__ import annotations

from numba import uint64

from .._jit import inlined
from .philox import philox4x32

#: Two uses of random bits never share a tag.
NOISE, REFINEMENT, GROUPED, TABLE, TRUNCATED, CONDITIONAL, CONDITIONAL_REFINEMENT, COUNTS, SPAWN = range(9)

_LOW = 0xFFFFFFFF


@inlined
def mix64(z):
    """The finalizer of SplitMix64, a bijection of uint64."""
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return z ^ (z >> uint64(31))


@inlined
def draw_key(seed, draw):
    """Key and mask of a draw; (seed, draw) -> (key, mask) is a bijection, so no two draws share noise."""
    gamma = uint64(0x9E3779B97F4A7C15)
    key = mix64(mix64(uint64(seed) + gamma) ^ uint64(draw))
    # Without the mask, draw d of one seed would repeat draw d ^ constant of another.
    return key, mix64((uint64(seed) ^ key) + gamma)


@inlined
def block_words(c0, sample, row, tag, key, mask):
    """The four words of block `c0` (a column >> 2, or what the tag says) of a row and sample."""
    low = uint64(_LOW)
    return philox4x32(
        uint64(c0) & low,
        (uint64(sample) ^ mask) & low,
        (uint64(row) ^ (mask >> uint64(32))) & low,
        (uint64(tag) << uint64(24)) | (uint64(row) >> uint64(32)),
        key & low,
        key >> uint64(32),
    )


@inlined
def noise_word(column, sample, row, tag, key, mask):
    """One word of the noise (tag NOISE) or of its refinement (tag REFINEMENT) of a single column."""
    x0, x1, x2, x3 = block_words(uint64(column) >> uint64(2), sample, row, tag, key, mask)
    word = uint64(column) & uint64(3)
    lower = x0 if word == uint64(0) else x1
    upper = x2 if word == uint64(2) else x3
    return lower if word < uint64(2) else upper
