"""Sampling without replacement: the mass that is left, the terms of log P(ordered), and inclusion weights.

The largest k of phi + G in order are an ordered sample without replacement (Plackett-Luce). With R_j the logsumexp of
what was not chosen before j, log P = sum of phi_j - R_j. R comes from the unselected mass upwards, one chosen
category added at a time: from the whole mass downwards, ln(1 - sum p) cancels.
"""

from __future__ import annotations

import math

from numba import uint64

from .._jit import inlined
from .bits import fma, ordered_float64
from .blocks import far_node
from .elementary import exp_float64, log1p_float64

_INF = math.inf


@inlined
def category_node(x, high, low):
    """The node of a lone category of logit x, high + low = log2(e) / T; all float64."""
    return far_node(x, high, low, 1.0)


@inlined
def _log_ratio(y):
    """ln((1 - e^-y) / y), 0 <= y <= 1/2: -y / 2 + ln(sinh(y / 2) / (y / 2))."""
    z = y * y
    # y^2 / 24 - y^4 / 2880 + y^6 / 181440 - ...: the next term is below 2^-54 of the sum
    p = fma(-691.0 / 15692092416000.0, z, 1.0 / 479001600.0)
    p = fma(p, z, -1.0 / 9676800.0)
    p = fma(p, z, 1.0 / 181440.0)
    p = fma(p, z, -1.0 / 2880.0)
    p = fma(p, z, 1.0 / 24.0)
    return fma(p, z, -0.5 * y)


@inlined
def log_odds_of_inclusion(d):
    """ln(e^d / q), q = 1 - exp(-e^d) the probability that phi + G exceeds kappa, d = phi - kappa.

    It falls to 0 as d -> -inf, and is d for large d: accurate at either end, where e^d / q would be 0 / 0 or inf.
    """
    y = exp_float64(d)
    return -_log_ratio(y) if y <= 0.5 else d - log1p_float64(-exp_float64(-y))


@inlined
def log_weight(phi, kappa, logsumexp):
    """ln(p / q): p = exp(phi - logsumexp), q = 1 - exp(-exp(phi - kappa)), which is 1 at kappa = -inf."""
    if kappa == -_INF:
        return phi - logsumexp
    return (kappa - logsumexp) + log_odds_of_inclusion(phi - kappa)


@inlined
def rank_below(key, top):
    """How far a key lies below `top`, an ordered one, as uint64: ascending where keys descend; 0.0 equals -0.0."""
    return uint64(top - ordered_float64(key + 0.0))


@inlined
def limit_at_zero(logit):
    """The limit of logit / T for T -> 0."""
    return 0.0 if logit == 0 else math.copysign(_INF, logit)
