"""Entropy of a row in one pass: a node (m, V, A) stands for columns whose largest logit is m.

With z = (logit - m) log2(e) / T <= 0: V = sum(2^z) - 1 and A = sum(z 2^z), so that neither of the two terms of
H = ln(1 + V) - ln(2) A / (1 + V) is negative and nothing cancels: one-hot rows keep their relative accuracy.
m is float64, in units of the logits; -inf stands for no column, NaN in V for a bad one.
"""

from __future__ import annotations

import math

from numba import float32, int32, int64

from .._jit import inlined
from .bits import bits_to_float, float_to_bits, fma, product
from .blocks import _MAGIC32, _MAGIC64, _by_width, weight_float64
from .elementary import LN2, exp2_fraction_float32, exp2_fraction_float64, log1p_float64

_INF = math.inf
_NAN = math.nan
#: A block's sum below this holds its maximum once, and the others must be summed without it to keep their digits.
LONE = 1.5


@inlined
def terms_float32(d, high, low):
    """(2^z, z 2^z), z = d (high + low) <= 0; both 0 below 2^-125, and exactly 1 and 0 for d = 0."""
    magic = float32(_MAGIC32)
    t = fma(d, high, magic)
    n = t - magic
    f = fma(d, low, fma(d, high, -n))
    s = bits_to_float(int32(int32(float_to_bits(t) << int32(23)) + int32(0x3F800000)))
    # products that are rounded on their own: CUDA would fuse plain ones with the sums that they go into
    p = fma(exp2_fraction_float32(f), s, float32(0.0))
    keep = t >= float32(_MAGIC32 - 125.0)
    w = p if keep else float32(0.0)
    v = fma(p, n + f, float32(0.0)) if keep else float32(0.0)
    return w, v


@inlined
def terms_float64(d, high, low):
    """(2^z, z 2^z), z = d (high + low) <= 0; both 0 below 2^-1021, and exactly 1 and 0 for d = 0."""
    t = fma(d, high, _MAGIC64)
    n = t - _MAGIC64
    f = fma(d, low, fma(d, high, -n))
    p = product(exp2_fraction_float64(f), bits_to_float((float_to_bits(t) << int64(52)) + int64(0x3FF0000000000000)))
    keep = t >= _MAGIC64 - 1021.0
    w = p if keep else 0.0
    v = product(p, n + f) if keep else 0.0
    return w, v


@inlined
def _onto(m1, v1, a1, m2, v2, a2, high, low):
    """The node of two, m1 > m2."""
    s = weight_float64(m2 - m1, high, low, 0.0)
    if s == 0.0:
        return m1, v1, a1
    z = fma(m2 - m1, low, product(m2 - m1, high))
    total = 1.0 + v2
    return m1, fma(s, total, v1), fma(s, fma(z, total, a2), a1)


@inlined
def join_entropy(m1, v1, a1, m2, v2, a2, high, low):
    """The node of two siblings, left first; high + low is log2(e) / T in float64."""
    if v1 != v1 or v2 != v2:
        return 0.0, _NAN, 0.0
    if m1 == -_INF:
        return m2, v2, a2
    if m2 == -_INF:
        return m1, v1, a1
    if m1 == m2:
        return m1, v1 + v2 + 1.0, a1 + a2
    if m1 > m2:
        return _onto(m1, v1, a1, m2, v2, a2, high, low)
    return _onto(m2, v2, a2, m1, v1, a1, high, low)


@inlined
def entropy_of_node(v, a):
    """H in nats."""
    return fma(-a / (1.0 + v), LN2, log1p_float64(v))


terms = _by_width(terms_float32, terms_float64)
