"""Binomial variates by address: how many of n go to the smaller of two masses.

Where the mean is 10 or more, transformed rejection (Hoermann 1993, BTRS); its ratio of probabilities is taken as a
difference of deviances (Loader 2000), in which nothing of the size of n is cancelled, and bounded first as in BTPE
(Kachitvichyanukul and Schmeiser 1988). Below, inversion. n <= 2^62; counts are integers throughout, and distances from
the mean are exact in float64. The mean is n p rounded to float64, off by at most 2^-20 standard deviations.
"""

from __future__ import annotations

import math

from numba import float64, int64, uint64

from .._jit import inlined
from .address import COUNTS, block_words
from .bits import fma, product
from .elementary import exp_float64, finite_log_float64, log1p_float64, log_float64

#: From this mean on, rejection.
LARGE = 10.0
_FAR = 4.611686018427387904e18  # 2^62
_HALF_LOG_2PI = 0.9189385332046727


@inlined
def split_words(split, attempt, row, key, mask):
    """Two words of 64 bits for the node that splits before column `split`."""
    c1 = uint64(attempt) | ((uint64(split) >> uint64(32)) << uint64(24))
    x0, x1, x2, x3 = block_words(uint64(split), c1, row, uint64(COUNTS), key, mask)
    return (x0 << uint64(32)) | x1, (x2 << uint64(32)) | x3


@inlined
def uniform(word):
    """(word + 1/2) 2^-64, in 2^-65 .. 1."""
    return fma(float64(word), 2.0**-64, 2.0**-65)


@inlined
def proposal(mean, deviation, p, word):
    """(us, k - floor(mean)) of a word: us is how far it lies from the nearer end, 2^-65 .. 1/2."""
    s = int64(word)
    near = uint64(0x7FFFFFFFFFFFFFFF) - uint64(s ^ (s >> int64(63)))
    us = fma(float64(int64(near)), 2.0**-64, 2.0**-65)
    u = us - 0.5 if s < int64(0) else 0.5 - us
    b = fma(2.53, deviation, 1.15)
    a = fma(0.01, p, fma(0.0248, b, -0.0873))
    t = fma(a / (0.5 * us) + b, u, (mean - floor(mean)) + 0.5)
    t = t if t > -_FAR else -_FAR
    t = t if t < _FAR else _FAR
    return us, floor(t)


@inlined
def floor(x):
    """Largest integer not above x, |x| <= 2^62."""
    n = float64(int64(x))
    return n - 1.0 if n > x else n


@inlined
def surely(us, deviation, word):
    """Whether a proposal is accepted whatever it is: four of five are."""
    b = fma(2.53, deviation, 1.15)
    return us >= 0.07 and uniform(word) <= 0.92 - 4.2 / b


@inlined
def _deviance(x, mean, delta):
    """X ln(x / mean) + mean - x, delta = x - mean."""
    if x == 0.0:
        return mean
    if abs(delta) >= 0.1 * mean:
        return fma(x, log_float64(x / mean), -delta)
    v = delta / (x + mean)
    z = v * v
    s = fma(z, 1.0 / 17.0, 1.0 / 15.0)
    s = fma(s, z, 1.0 / 13.0)
    s = fma(s, z, 1.0 / 11.0)
    s = fma(s, z, 1.0 / 9.0)
    s = fma(s, z, 1.0 / 7.0)
    s = fma(s, z, 1.0 / 5.0)
    s = fma(s, z, 1.0 / 3.0)
    return fma(delta, v, ((2.0 * x) * v) * (z * s))


@inlined
def _stirling(x):
    """ln(x!) - x ln x + x."""
    if x == 0.0:
        return 0.0
    if x < 16.0:
        factorial = 1.0
        for i in range(int64(2), int64(x) + int64(1)):
            factorial *= float64(i)
        return fma(-x, log_float64(x), log_float64(factorial)) + x
    y = 1.0 / x
    z = y * y
    s = fma(z, -1.0 / 1680.0, 1.0 / 1260.0)
    s = fma(s, z, -1.0 / 360.0)
    s = fma(s, z, 1.0 / 12.0)
    return fma(s, y, fma(0.5, log_float64(x), _HALF_LOG_2PI))


@inlined
def log_pmf(n, k, mean, other, delta):
    """Ln of the probability of k of n, up to what n alone decides: mean = n p, other = n q, delta = k - mean."""
    x, y = float64(k), float64(n - k)
    return -(_stirling(x) + _stirling(y)) - (_deviance(x, mean, delta) + _deviance(y, other, -delta))


@inlined
def verdict(n, mean, deviation, p, first, second):
    """(1 accepted, 0 rejected or 2 to be weighed, k - floor(mean)) of a proposal."""
    us, t = proposal(mean, deviation, p, first)
    centre = floor(mean)
    limit = proposal_limit(us, deviation, p, second)
    variance = product(deviation, deviation)
    # from the mode, floor((n + 1) p)
    d = abs(t - (1.0 if (mean - centre) + p >= 1.0 else 0.0))
    e = d / variance
    margin = product(e, fma(d, fma(d, 1.0 / 3.0, 0.625), 1.0 / 6.0) / variance + 0.5)
    middle = product(-0.5, d * e)
    bounded = (d > 20.0) & (d < product(0.5, variance) - 1.0)
    possible = (t >= -centre) & (t <= float64(n) - centre)
    sure = surely(us, deviation, second)
    accepted = sure | (possible & bounded & (limit < middle - margin))
    rejected = (not sure) & ((not possible) | (bounded & (limit > middle + margin)))
    return (int64(1) if accepted else int64(0) if rejected else int64(2)), t


@inlined
def proposal_limit(us, deviation, p, word):
    """What ln(f(k) / f(mode)) must reach for a proposal to be accepted."""
    b = fma(2.53, deviation, 1.15)
    a = fma(0.01, p, fma(0.0248, b, -0.0873))
    alpha = (2.83 + 5.1 / b) * deviation
    return finite_log_float64(uniform(word) * alpha / (a / (us * us) + b))


@inlined
def weigh(n, t, mean, other, deviation, p, first, second):
    """Whether a proposal that nothing has decided is accepted."""
    us, _ = proposal(mean, deviation, p, first)
    centre = int64(floor(mean))
    k = centre + int64(t)
    if k < int64(0) or k > n:
        return False
    fraction = mean - float64(centre)
    mode = centre + int64(fraction + p >= 1.0)
    top = log_pmf(n, mode, mean, other, float64(mode - centre) - fraction)
    ratio = log_pmf(n, k, mean, other, float64(k - centre) - fraction) - top
    return proposal_limit(us, deviation, p, second) <= ratio


@inlined
def invert(n, p, q, word):
    """A binomial variate of mean below 10 by inversion."""
    u = uniform(word)
    r = q if n == int64(1) else exp_float64(product(float64(n), log1p_float64(-p)))
    rate = p / q
    k = int64(0)
    while u > r and k < n and k < int64(200):
        u -= r
        k += int64(1)
        r = product(r, product(float64(n - k) + 1.0, rate) / float64(k))
    return k


@inlined
def binomial(n, p, q, split, row, key, mask):
    """A variate of n trials of probability p <= 1/2, q = 1 - p, by the words of a node."""
    if n == int64(0) or p == 0.0:
        return int64(0)
    mean = product(float64(n), p)
    first, second = split_words(split, uint64(0), row, key, mask)
    if mean < LARGE:
        return invert(n, p, q, first)
    deviation = math.sqrt(product(mean, q))
    other = product(float64(n), q)
    centre = int64(floor(mean))
    attempt = uint64(0)
    while True:
        decided, t = verdict(n, mean, deviation, p, first, second)
        if decided == int64(1) or (decided == int64(2) and weigh(n, t, mean, other, deviation, p, first, second)):
            return centre + int64(t)
        attempt += uint64(1)
        first, second = split_words(split, attempt, row, key, mask)


@inlined
def share(n, left, right, split, row, key, mask):
    """How many of n trials go to the left of two masses, by the words of the node between them."""
    smaller, larger = min(left, right), max(left, right)
    k = int64(0)
    if n > int64(0) and smaller > 0.0:
        total = left + right
        k = binomial(n, smaller / total, larger / total, split, row, key, mask)
    return k if left <= right else n - k
