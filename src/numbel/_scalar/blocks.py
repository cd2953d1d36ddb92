"""Grouped sampling: the weights of a block, what stands for it, joining, and choosing inside.

Columns are cut into blocks of 4096 at global multiples of 4096. In base 2, z = logit log2(e) / T; a block is
a node (r, S) that stands for the mass S 2^r: r integral, S float64, (0, 0) the empty node, NaN a bad one.

Weights come relative to a *canonical reference* r, a multiple of 128 (float64: 1024) fixed by the
block's largest n = round(z), so that no starting guess can change a bit.
"""

from __future__ import annotations

import math
from typing import Any

from numba import float32, float64, int32, int64, uint64
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global

from .._jit import inlined
from .bits import (
    bits_to_float,
    float_to_bits,
    fma,
    from_ordered_float32,
    from_ordered_float64,
    ordered_float32,
    ordered_float64,
    product,
)
from .elementary import (
    LN2,
    LN2_LOW,
    LOG2E,
    LOG2E_LOW,
    exp2_fraction_float32,
    exp2_fraction_float64,
    finite_log_float32,
    finite_log_float64,
    log_float64,
    power_of_two_float64,
)
from .limits import BLOCK

LANES = 512
#: Columns of a lane: lane, lane + 512, ... of its block.
LANE_COLUMNS = BLOCK // LANES
#: A block whose canonical reference reaches this is *far*: its maximum is subtracted first. In float32 the rounding of
#: log2(e) / T, 2^-24 of z, adds to the fraction that the polynomial takes: 0.016 here, where its error rises from
#: 1.5e-7 to 1.8e-7 (at 2^22 to 4e-6). In float64 rounding by a magic add sets the limit. The margin covers a
#: reference cell.
FAR_FLOAT32, FAR_FLOAT64 = float((1 << 18) - (1 << 12)), float((1 << 22) - (1 << 12))

_MAGIC32 = 12582912.0  # 1.5 * 2^23: adding it rounds a float32 to an integer
_MAGIC64 = 6755399441055744.0  # 1.5 * 2^52
_INF = math.inf
_NAN = math.nan
#: |z| of a logit / T of 2^1023, of which float64 still holds any multiple that is needed.
_LARGEST = 2.0**1023 * LOG2E


@inlined
def scale(temperature):
    """log2(e) / temperature as high + low (float64 each), clamped to finite non-zero factors."""
    high = LOG2E / temperature
    low = (fma(-high, temperature, LOG2E) + LOG2E_LOW) / temperature
    if not high < 1.7976931348623157e308:
        return 1.7976931348623157e308, 0.0
    if not abs(low) < 1.0e300:
        low = 0.0
    return high, low


@inlined
def narrow_float32(zero, high, low):
    """The same factor in the dtype of `zero`, clamped so that -inf * high stays -inf."""
    narrow = min(max(high, 1.401298464324817e-45), 3.4028234663852886e38)
    first = float32(narrow)
    second = float32((narrow - float64(first)) + low) if abs(high) < 1.0e38 else float32(0.0)
    return first, second


@inlined
def narrow_float64(zero, high, low):
    """The same factor, unchanged."""
    return high, low


@inlined
def weight_float32(x, high, low, r):
    """2^(z - r), z = x (high + low): 0 below 2^-125, +inf from 2^128 on, NaN for NaN; r below 2^22."""
    magic = float32(_MAGIC32) - r
    top = float32(_MAGIC32 + 128.0)
    t = fma(x, high, magic)  # 1.5 * 2^23 + n - r
    t = top if top < t else t
    n = t - magic
    p = exp2_fraction_float32(fma(x, low, fma(x, high, -n)))
    s = bits_to_float(int32(int32(float_to_bits(t) << int32(23)) + int32(0x3F800000)))
    # `not <` keeps NaN in the sum, which is how bad input is noticed
    return p * s if not (t < float32(_MAGIC32 - 125.0)) else float32(0.0)


@inlined
def weight_float64(x, high, low, r):
    """`weight_float32` in float64: 0 below 2^-1021, +inf from 2^1024 on."""
    magic = _MAGIC64 - r
    top = _MAGIC64 + 1024.0
    t = fma(x, high, magic)
    t = top if top < t else t
    n = t - magic
    p = exp2_fraction_float64(fma(x, low, fma(x, high, -n)))
    s = bits_to_float((float_to_bits(t) << int64(52)) + int64(0x3FF0000000000000))
    return p * s if not (t < _MAGIC64 - 1021.0) else 0.0


@inlined
def exponent_float32(x, high):
    """N = round(x high), |n| < 2^22."""
    return fma(x, high, float32(_MAGIC32)) - float32(_MAGIC32)


@inlined
def exponent_float64(x, high):
    """N = round(x high), |n| < 2^22."""
    return fma(x, high, _MAGIC64) - _MAGIC64


@inlined
def _floor(x):
    """Largest integer not above x, |x| < 2^31."""
    n = float64(int64(x))
    return n - 1.0 if n > x else n


@inlined
def reference_float32(n):
    """The canonical reference of a block whose largest exponent is n."""
    return float32(product(128.0, _floor((float64(n) + 64.0) * 0.0078125)))


@inlined
def reference_float64(n):
    """The canonical reference of a block whose largest exponent is n."""
    return product(1024.0, _floor((n + 512.0) * 0.0009765625))


@inlined
def reference_of_maximum(x, high):
    """(reference, exponent - reference, whether far) of a block with finite maximum logit x."""
    z = x * high
    zero = x - x
    if not abs(z) < 4194303.0:
        return zero, int64(0), True
    n = exponent(x, high)
    r = reference(n)
    if not is_near(r):
        return zero, int64(0), True
    return r, int64(n - r), False


@inlined
def is_near_float32(r):
    """Whether weights may be taken relative to a canonical reference."""
    return abs(r) < float32(FAR_FLOAT32)


@inlined
def is_near_float64(r):
    """Whether weights may be taken relative to a canonical reference."""
    return abs(r) < FAR_FLOAT64


@inlined
def proves_reference_float32(total):
    """Whether a block sum alone proves its reference canonical (it spans 4096 weights: 12.5 bits)."""
    return float32(2.0**-51) <= total and total < float32(2.0**63)


@inlined
def proves_reference_float64(total):
    """Whether a block sum alone proves its reference canonical."""
    return total >= 2.0**-499 and total < 2.0**511


@inlined
def quantise_float32(w, shift):
    """floor(w 2^(50 - shift)) as uint64, for w < 2^(shift + 4); 0 where w is below 2^(shift - 50)."""
    bits = float_to_bits(w)  # int32 as long as possible: twice the lanes
    mantissa = int32(int32(bits & int32(0x7FFFFF)) | int32(0x800000))
    right = int32(int32(int32(shift) + int32(130)) - int32(bits >> int32(23)))
    right = right if right < int32(63) else int32(63)
    return (uint64(mantissa) << uint64(30)) >> uint64(right)


@inlined
def quantise_float64(w, shift):
    """floor(w 2^(50 - shift)) as uint64, for w < 2^(shift + 4); 0 where w is below 2^(shift - 50)."""
    bits = float_to_bits(w)
    mantissa = uint64((bits & int64(0xFFFFFFFFFFFFF)) | int64(0x10000000000000))
    right = int64(shift) - ((bits >> int64(52)) - int64(1023)) + int64(3)
    return (mantissa << uint64(1)) >> uint64(min(right, int64(63)))


@inlined
def node(r, total):
    """The node of a block sum 2^r total: r moved by multiples of 128 until 2^-64 <= S < 2^64; 0 -> (0, 0).

    float64 references are 1024 apart; on this grid every pair of nodes follows the one rule of `join`.
    """
    if total == 0.0:
        return 0.0, 0.0
    if not total < _INF:
        return 0.0, _NAN
    e = (float_to_bits(total) >> int64(52)) - int64(1023)
    half = float64(((e + int64(64)) >> int64(7)) << int64(6))  # in two factors: 2^1024 overflows
    return fma(2.0, half, r), total * power_of_two_float64(-half) * power_of_two_float64(-half)


@inlined
def plain_node_float32(r, total):
    """`node` of a float32 sum, which lies on the grid as it is."""
    return float64(r), float64(total)


@inlined
def far_node(maximum, high, low, total):
    """The node of a block of sum `total` relative to its maximum, where |z| of the maximum is large.

    A bad one where the maximum is too large, an empty one where it is too small to be possible.
    """
    z = product(maximum, high)
    if not abs(z) < _LARGEST:
        return 0.0, 0.0 if z < 0.0 else _NAN
    if not abs(z) < 4503599627370496.0:  # 2^52: z is an integer, its rounding beyond our arithmetic
        return z, total
    n = exponent_far(z)
    f = fma(maximum, low, fma(maximum, high, -n))
    shift = exponent_far(f)
    return n + shift, total * exp2_fraction_float64(f - shift)


@inlined
def is_possible_float32(x, high):
    """Whether a logit has a category, high = log2(e) / T in float64: not if logit / T is below -2^1023."""
    return x > -_INF


@inlined
def is_possible_float64(x, high):
    """Whether a logit has a category, high = log2(e) / T in float64: not if logit / T is below -2^1023."""
    return product(x, high) > -_LARGEST


@inlined
def is_bounded_float32(x, high):
    """Whether a logit is one, and logit / T below 2^1023: of float32, at any temperature."""
    return x < _INF


@inlined
def is_bounded_float64(x, high):
    """Whether a logit is one, and logit / T below 2^1023."""
    return product(x, high) < _LARGEST


@inlined
def exponent_far(z):
    """round(z), |z| < 2^51 rounded to nearest even, up to 2^52 within 1."""
    return (z + _MAGIC64) - _MAGIC64


@inlined
def join(r1, s1, r2, s2):
    """The node of two siblings, left first. Not associative: only siblings of the dyadic tree are joined."""
    if s1 == 0.0:
        return r2, s2
    if s2 == 0.0:
        return r1, s1
    if s1 != s1 or s2 != s2:
        return 0.0, _NAN
    d = r1 - r2
    if d >= 256.0:
        return r1, s1
    if d <= -256.0:
        return r2, s2
    if d >= 0.0:
        return r1, fma(s2, power_of_two_float64(-d), s1)
    return r2, fma(s1, power_of_two_float64(d), s2)


@inlined
def beats(rho1, r1, rho2, r2):
    """Whether rho1 2^-r1 < rho2 2^-r2: rho = E / S, the smallest wins. Exact, so an order."""
    d = r1 - r2
    if d >= 512.0:
        return True
    if d <= -512.0:
        return False
    return rho1 * power_of_two_float64(-d) < rho2


@inlined
def mulhi64(a, b):
    """High 64 bits of the product of two uint64."""
    low = uint64(0xFFFFFFFF)
    half = uint64(32)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    middle = a1 * b0 + ((a0 * b0) >> half)
    carry = a0 * b1 + (middle & low)
    return a1 * b1 + (middle >> half) + (carry >> half)


@inlined
def logsumexp(r, total):
    """ln(S 2^r) as float64."""
    return fma(r, LN2, fma(r, LN2_LOW, log_float64(total)))


@inlined
def log_prob(x, high, low, r, total):
    """Ln of the probability of logit x in a row of node (r, S), as float64.

    Equal to x / T - logsumexp, but the large parts cancel before they are rounded, so that it stays
    accurate where |x| / T is huge.
    """
    return log_prob_beside(x, high, low, r, log_float64(total))


@inlined
def log_prob_beside(x, high, low, r, log_total):
    """`log_prob` from ln S, for many categories of one row."""
    y = unclipped_log_prob(x, high, low, r, log_total)
    return y if y < 0.0 else 0.0  # rounding could give a lone category 5e-16


@inlined
def unclipped_log_prob(x, high, low, r, log_total):
    """`log_prob_beside` before it is cut at 0, and never -0.

    NVVM turns the compare and select of the cut into its minimum, which takes -0 for less than +0.
    """
    # 0 - ln S, not -ln S: no sum has two addends of -0. ln S is 0 or beyond 1e-16: nothing underflows to -0
    return fma(relative(float64(x), high, low, r), LN2, 0.0 - log_total)


@inlined
def relative(x, high, low, r):
    """Z - r of a logit x, float64, the large parts cancelled first."""
    near = abs(r) < 4503599627370496.0  # 2^52, as in far_node
    return fma(x, low, fma(x, high, -r)) if near else product(x, high) - r


def _by_width(of_float32: Any, of_float64: Any) -> Any:
    """One name for both versions: compiled code calls the one of its first argument's dtype, with nothing between."""

    def generic(x: Any, *rest: Any) -> Any:
        return (of_float32 if x.dtype == "float32" else of_float64)(x, *rest)

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            version = of_float32 if args[0] in (types.float32, types.int32) else of_float64
            self._version = self.context.resolve_value_type(version)
            return self._version.get_call_type(self.context, args, kws)

        def get_impl_key(self, signature: Any) -> Any:
            return self._version.get_impl_key(signature)

    Template.key = generic
    infer_global(generic, types.Function(Template))
    return generic


narrow = _by_width(narrow_float32, narrow_float64)
weight = _by_width(weight_float32, weight_float64)
exponent = _by_width(exponent_float32, exponent_float64)
reference = _by_width(reference_float32, reference_float64)
is_near = _by_width(is_near_float32, is_near_float64)
proves_reference = _by_width(proves_reference_float32, proves_reference_float64)
quantise = _by_width(quantise_float32, quantise_float64)
plain_node = _by_width(plain_node_float32, node)
ordered = _by_width(ordered_float32, ordered_float64)
from_ordered = _by_width(from_ordered_float32, from_ordered_float64)
is_possible = _by_width(is_possible_float32, is_possible_float64)
is_bounded = _by_width(is_bounded_float32, is_bounded_float64)
finite_log = _by_width(finite_log_float32, finite_log_float64)
