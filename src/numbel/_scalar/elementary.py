"""exp, log and log1p from exactly rounded operations only, so that they give the same bits everywhere.

Largest errors found (`tests/test_scalar.py` holds them), in units in the last place:

| function | float32 | float64 |
| -------- | ------- | ------- |
| exp      | 1.15    | 1.05    |
| log      | 0.8     | 0.8     |
| log1p    | 0.8     | 0.8     |

Overflow, zero, infinities, NaN and subnormal arguments give what IEEE 754 asks for. Every product
that feeds a sum is a written-out fma: a compiler that contracts (NVVM does) finds nothing to contract.
"""

from __future__ import annotations

import math

from numba import float32, float64, int32, int64

from .._jit import inlined
from .bits import bits_to_float, float_to_bits, fma

LN2 = math.log(2.0)
LN2_LOW = 2.3190468138462996e-17  # ln 2 - float64(ln 2)
LOG2E = 1.4426950408889634
LOG2E_LOW = 2.0355273740931033e-17  # log2 e - float64(log2 e)

_INF = math.inf
_NAN = math.nan


@inlined
def exp2_fraction_float32(f):
    """2^f for |f| <= 1/2, degree 5, relative error 1.5e-7; exactly 1 at 0."""
    p = fma(float32(1.3269521e-3), f, float32(9.671291e-3))
    p = fma(p, f, float32(5.550711e-2))
    p = fma(p, f, float32(2.4022247e-1))
    p = fma(p, f, float32(6.93147e-1))
    return fma(p, f, float32(1.0))


@inlined
def exp2_fraction_float64(f):
    """2^f for |f| <= 1/2, degree 11, relative error below 1e-16 before rounding; exactly 1 at 0."""
    p = fma(4.4549605981865186e-10, f, 7.072585949269223e-09)
    p = fma(p, f, 1.0178062445845774e-07)
    p = fma(p, f, 1.321544258792169e-06)
    p = fma(p, f, 1.525273382983612e-05)
    p = fma(p, f, 0.0001540353044173605)
    p = fma(p, f, 0.0013333558146416936)
    p = fma(p, f, 0.009618129107606888)
    p = fma(p, f, 0.0555041086648216)
    p = fma(p, f, 0.24022650695910097)
    p = fma(p, f, 0.6931471805599453)
    return fma(p, f, 1.0)


@inlined
def power_of_two_float64(n):
    """2^n for an integral float64 n in -1022 .. 1023."""
    return bits_to_float((int64(n) + int64(1023)) << int64(52))


@inlined
def exp_float32(x):
    """e^x, any float32."""
    magic = float32(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer
    y = min(max(x, float32(-104.0)), float32(89.0))
    n = fma(y, float32(LOG2E), magic) - magic
    f = fma(y, float32(1.9259630e-8), fma(y, float32(LOG2E), -n))
    p = fma(float32(1.534581242594868e-4), f, float32(1.3399930903688073e-3))
    p = fma(p, f, float32(9.618489071726799e-3))
    p = fma(p, f, float32(5.550328642129898e-2))
    p = fma(p, f, float32(2.4022646248340607e-1))
    p = fma(p, f, float32(6.931471824645996e-1))
    p = fma(p, f, float32(1.0))
    # 2^n in two factors, so that results may be subnormal or overflow
    half = int32(int32(n) >> int32(1))
    rest = int32(int32(n) - half)
    p = p * bits_to_float(int32(int32(half + int32(127)) << int32(23)))
    p = p * bits_to_float(int32(int32(rest + int32(127)) << int32(23)))
    return x if x != x else p


@inlined
def exp_float64(x):
    """e^x, any float64."""
    magic = 6755399441055744.0  # 1.5 * 2^52
    y = min(max(x, -746.0), 710.0)
    n = fma(y, LOG2E, magic) - magic
    f = fma(y, LOG2E_LOW, fma(y, LOG2E, -n))
    half = int64(n) >> int64(1)
    rest = int64(n) - half
    p = exp2_fraction_float64(f) * power_of_two_float64(float64(half)) * power_of_two_float64(float64(rest))
    return x if x != x else p


@inlined
def _log_parts_float32(x):
    """A positive normal x as 2^k (1 + f), sqrt(1/2) - 1 <= f < sqrt(2) - 1."""
    bits = float_to_bits(x)
    k = int32(int32(bits - int32(0x3F3504F3)) >> int32(23))
    return bits_to_float(int32(bits - int32(k << int32(23)))) - float32(1.0), float32(k)


@inlined
def _log_core_float32(f, k, c):
    """ln(2^k (1 + f)) + c for f of `_log_parts_float32` and a small correction c (Cephes' logf)."""
    z = f * f
    p = fma(float32(7.0376836292e-2), f, float32(-1.1514610310e-1))
    p = fma(p, f, float32(1.1676998740e-1))
    p = fma(p, f, float32(-1.2420140846e-1))
    p = fma(p, f, float32(1.4249322787e-1))
    p = fma(p, f, float32(-1.6668057665e-1))
    p = fma(p, f, float32(2.0000714765e-1))
    p = fma(p, f, float32(-2.4999993993e-1))
    p = fma(p, f, float32(3.3333331174e-1))
    y = fma(k, float32(-2.12194440e-4), c)
    y = fma(p * f, z, y)
    y = fma(float32(-0.5) * f, f, y)
    return fma(k, float32(0.693359375), f + y)


@inlined
def log_float32(x):
    """Ln x, any float32."""
    tiny = x < float32(1.1754944e-38)
    f, k = _log_parts_float32(x * float32(8388608.0) if tiny else x)
    y = _log_core_float32(f, k - float32(23.0) if tiny else k, float32(0.0))
    y = x if x == float32(_INF) or x != x else y
    y = float32(-_INF) if x == float32(0.0) else y
    return float32(_NAN) if x < float32(0.0) else y


@inlined
def log1p_float32(x):
    """ln(1 + x), any float32."""
    near = float32(-0.2928932) <= x and x <= float32(0.41421354)
    u = float32(1.0) + x
    f, k = _log_parts_float32(u)
    # u = 1 + x - error, exactly; ln(1 + x) = ln u + error / u
    larger, smaller = (float32(1.0), x) if x < float32(1.0) else (x, float32(1.0))
    c = (smaller - (u - larger)) / u
    y = _log_core_float32(x if near else f, float32(0.0) if near else k, float32(0.0) if near else c)
    y = x if x == float32(_INF) or x != x or x == float32(0.0) else y
    y = float32(-_INF) if x == float32(-1.0) else y
    return float32(_NAN) if x < float32(-1.0) else y


@inlined
def _log_parts_float64(x):
    """A positive normal x as 2^k (1 + f), sqrt(1/2) - 1 <= f < sqrt(2) - 1."""
    bits = float_to_bits(x)
    k = (bits - int64(0x3FE6A09E667F3BCD)) >> int64(52)
    return bits_to_float(bits - (k << int64(52))) - 1.0, float64(k)


@inlined
def _log_core_float64(f, k, c):
    """ln(2^k (1 + f)) + c for f of `_log_parts_float64` and a small correction c (fdlibm's log)."""
    s = f / (2.0 + f)
    z = s * s
    p = fma(0.1479819860511658591, z, 0.1531383769920937332)
    p = fma(p, z, 0.1818357216161805012)
    p = fma(p, z, 0.2222219843214978396)
    p = fma(p, z, 0.2857142874366239149)
    p = fma(p, z, 0.3999999999940941908)
    p = fma(p, z, 0.6666666666666735130)
    half_square = (0.5 * f) * f
    u = fma(p, z, half_square)
    v = fma(s, u, fma(k, 1.90821492927058770002e-10, c))
    y = fma(0.5 * f, f, -v)
    return fma(k, 6.93147180369123816490e-1, f - y)


@inlined
def log_float64(x):
    """Ln x, any float64."""
    tiny = x < 2.2250738585072014e-308
    f, k = _log_parts_float64(x * 18014398509481984.0 if tiny else x)
    y = _log_core_float64(f, k - 54.0 if tiny else k, 0.0)
    y = x if x == _INF or x != x else y
    y = -_INF if x == 0.0 else y
    return _NAN if x < 0.0 else y


@inlined
def log1p_float64(x):
    """ln(1 + x), any float64."""
    near = x >= -0.29289321881345243 and x <= 0.41421356237309503
    u = 1.0 + x
    f, k = _log_parts_float64(u)
    larger, smaller = (1.0, x) if x < 1.0 else (x, 1.0)
    c = (smaller - (u - larger)) / u
    y = _log_core_float64(x if near else f, 0.0 if near else k, 0.0 if near else c)
    y = x if x == _INF or x != x or x == 0.0 else y
    y = -_INF if x == -1.0 else y
    return _NAN if x < -1.0 else y


@inlined
def finite_log_float32(x):
    """Ln x, x positive and normal: 5e-8 and a rounding. For 0 and subnormals a finite number below -87."""
    bits = float_to_bits(x)
    k = int32(int32(bits - int32(0x3F3504F3)) & int32(-0x800000))  # exponent times 2^23, which saves a shift
    f = bits_to_float(int32(bits - k)) - float32(1.0)
    p = fma(float32(-0.10100489854812622), f, float32(0.16416071355342865))
    p = fma(p, f, float32(-0.1733253449201584))
    p = fma(p, f, float32(0.19873706996440887))
    p = fma(p, f, float32(-0.249595046043396))
    p = fma(p, f, float32(0.3333614468574524))
    p = fma(p, f, float32(-0.5000066161155701))
    p = fma(p, f, float32(0.9999998211860657))
    return fma(float32(k), float32(0.6931471805599453 * 2.0**-23), p * f)


@inlined
def finite_log_float64(x):
    """Ln x, x positive and normal. For 0 and subnormals a finite number below -708."""
    f, k = _log_parts_float64(x)
    return _log_core_float64(f, k, 0.0)
