"""Random words -> exponential and Gumbel variates, with both tails right.

A word x stands for v = 1 - u = (x + 1/2) 2^-32, so that winners, which have v -> 0, are resolved best.
When x lies within 2^20 of either end (once in 2^11) a second word y refines it: V = (X + 1/2) 2^-64
with X = x 2^32 + y. Then E = -ln(1 - v) and G = -ln E, in -3.808 .. 45.055; no epsilon anywhere.

Endpoints: x = 0, y = 0 gives E = 2^-65, G = 45.05; x = y = 2^32 - 1 gives E = 45.05, G = -3.808. float32 noise
is within 1.2e-6 of the exact value (2.1 ulp of max(|G|, 1)), float64 noise within 2 ulp of
max(|G|, 1); the float32 noise is monotone in x (all 2^32 words tried).
"""

from __future__ import annotations

import math

from numba import float32, float64, int32, int64, uint32, uint64

from .._jit import inlined
from .bits import float_to_bits, fma
from .elementary import LN2, _log_core_float64, _log_parts_float64, finite_log_float32

#: Words within this distance of 0 or 2^32 take a second word. At 2^16 the error would be 8e-6.
REFINE = 1 << 20
#: Perturbed logits from this size on are told apart by what their sums lost, too: up to 2^-25 there, more beyond.
ABSORBING = 2.0**28
#: Bits of a column in a place.
COLUMN_BITS = 34


@inlined
def needs_refinement(x):
    """Whether the uint32 word x lies within 2^20 of 0 or of 2^32."""
    return uint32(x + uint32(REFINE)) < uint32(2 * REFINE)


@inlined
def _half_float32(t, near):
    """G where t = v (near: v < 1/2), E where t = 1 - v.

    Near: G = -ln t - h(t), h(t) = ln(-ln(1 - t) / t), a polynomial of degree 7 (5.6e-8), so that the
    half of the words that win needs one logarithm; far: E = -ln t.
    """
    log_t = finite_log_float32(t)
    h = fma(float32(0.3717030882835388), t, float32(-0.32255491614341736))
    h = fma(h, t, float32(0.2538478374481201))
    h = fma(h, t, float32(0.03861694410443306))
    h = fma(h, t, float32(0.13150332868099213))
    h = fma(h, t, float32(0.20792685449123383))
    h = fma(h, t, float32(0.5000085234642029))
    return -fma(h, t, log_t) if near else -log_t


@inlined
def gumbel_begun_float32(x):
    """What `gumbel_ended_float32` makes G of: G itself for the half of the uint32 words that win, else E."""
    s = int32(x)
    a = int32(s ^ int32(s >> int32(31)))  # x, or its complement in the upper half: signed, below 2^31
    t = fma(float32(a), float32(2.0**-32), float32(2.0**-33))
    return _half_float32(t, s >= int32(0))


@inlined
def gumbel_ended_float32(x, begun):
    """G of a word: the second logarithm of the half of the words that needs one."""
    g = -finite_log_float32(begun)
    return begun if int32(x) >= int32(0) else g


@inlined
def gumbel_float32(x):
    """G of an unrefined uint32 word."""
    return gumbel_ended_float32(x, gumbel_begun_float32(x))


@inlined
def gumbel_refined_float32(x, y):
    """G of a word and its refinement, both uint64 below 2^32."""
    s = int64((uint64(x) << uint64(32)) | uint64(y))
    a = s ^ (s >> int64(63))
    t = fma(float32(a), float32(2.0**-64), float32(2.0**-65))
    begun = _half_float32(t, s >= int64(0))
    return begun if s >= int64(0) else -finite_log_float32(begun)


@inlined
def uniform_tail(x, y):
    """V = (X + 1/2) 2^-64 as float64, from words x and y (uint64 below 2^32): in 2^-65 .. 1."""
    return fma(float64((uint64(x) << uint64(32)) | uint64(y)), 2.0**-64, 2.0**-65)


@inlined
def exponential_float64(x, y):
    """E = -ln(1 - V) from words x and y, uint64 below 2^32: in 2^-65 .. 45.06."""
    s = int64((uint64(x) << uint64(32)) | uint64(y))
    near = s >= int64(0)
    a = s ^ (s >> int64(63))
    t = fma(float64(a), 2.0**-64, 2.0**-65)
    # near: ln(1 - t) with 1 - t = 1 + f, or (1 + f) / 2 where t > 1 - sqrt(1/2); both f exact
    low = t <= 0.2928932188134524
    near_f = -t if low else fma(-2.0, t, 1.0)
    far_f, far_k = _log_parts_float64(t)
    f = near_f if near else far_f
    k = (0.0 if low else -1.0) if near else far_k
    return -_log_core_float64(f, k, 0.0)


@inlined
def gumbel_float64(x, y):
    """G = -ln E from words x and y, uint64 below 2^32."""
    f, k = _log_parts_float64(exponential_float64(x, y))
    return -_log_core_float64(f, k, 0.0)


@inlined
def cannot_exceed(x, z, best):
    """Whether z + G lies below `best` whatever the refinement of the word x (uint64): proved without a logarithm."""
    # G <= -ln V, and V >= 2^e with e the exponent of x 2^-32
    e = (float_to_bits(float64(x)) >> int64(52)) - int64(1023 + 32)
    return x != uint64(0) and fma(-float64(e), LN2, z) + 1e-9 < best


@inlined
def place_of(column, z, g, perturbed):
    """What orders categories of equal perturbed logits = fl(z + g): the smallest place goes first.

    It is the column, below 2^34; above it, where the sum is large, how far what it lost of the noise falls short of 46,
    in units of 2^-22. No noise exceeds 45.06.
    """
    size = abs(perturbed)
    if not (size >= ABSORBING and size < math.inf):
        return int64(column)
    part = perturbed - z
    lost = (z - (perturbed - part)) + (g - part)  # Knuth's exact error of a sum
    rank = int64(fma(46.0 - lost, 4194304.0, 0.5))
    return int64(rank << int64(COLUMN_BITS)) | int64(column)


@inlined
def column_of(place):
    """The column of a place; -1, no place, has column -1."""
    return int64(place) if place < int64(0) else int64(place) & int64((1 << COLUMN_BITS) - 1)


@inlined
def goes_first(perturbed, place, other, other_place):
    """Whether a perturbed logit beats another, none of them NaN."""
    return perturbed > other or (perturbed == other and place < other_place)


@inlined
def scaled_float32(g, loc, scale):
    """G scale + loc, float32, rounded after either step: a compiler that contracts would fuse the two."""
    return fma(g, scale, float32(0.0)) + loc


@inlined
def scaled_float64(g, loc, scale):
    """G scale + loc, float64, rounded after either step."""
    return fma(g, scale, 0.0) + loc
