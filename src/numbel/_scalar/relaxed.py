"""Relaxed samples: y = softmax((logits + G) / T), G the noise of `gumbel` in the dtype of the arithmetic.

Columns are cut into the blocks of 4096 of grouped sampling. A block keeps three numbers: m, its largest logit;
D, what its weights 2^((d - D) log2(e) / T), d = (logit - m) + G, are relative to; S, their sum in the same lanes.
Subtracting m first keeps the noise where logits are huge. D is 0 where that puts S in 2^-13 .. 2^63, else the largest
d: so the largest weight of a block is at least 2^-25, and none above 2^-100 of it is lost.
"""

from __future__ import annotations

import math

from numba import float64

from .._jit import inlined
from .blocks import weight_float64
from .elementary import exp_float64, log1p_float64

_INF = math.inf


@inlined
def perturbed(x, largest, g):
    """The perturbed logit, relative to the block's largest logit."""
    return (x - largest) + g


@inlined
def in_range(total):
    """Whether a block's sum of weights relative to D = 0 lets D be 0."""
    return total >= 2.0**-13 and total < 2.0**63


@inlined
def block_offset(m, d, largest):
    """What a block's weights are relative to, as float64, itself relative to the row's largest logit."""
    return (float64(m) - float64(largest)) + float64(d)


@inlined
def block_scale(offset, largest, high, low):
    """e^((offset - largest) / T): what a block's weights are multiplied by, before normalisation."""
    return weight_float64(offset - largest, high, low, 0.0)


@inlined
def ratio(a, b):
    """A / b, which is infinite or NaN where b is 0."""
    return a / b


@inlined
def gradient(y, u, mean, rate):
    """The gradient in a logit, float64."""
    return (u - mean) * y * rate


@inlined
def truncated(g, top):
    """-ln(e^-g + e^-top): a Gumbel variate at g, given that it lies below `top` (Maddison et al. 2014)."""
    low, high = (g, top) if g < top else (top, g)
    return low - log1p_float64(exp_float64(low - high))


@inlined
def below(x, unit, smallest):
    """A float64 that a format of relative spacing `unit` rounds to less than its own number x."""
    return x - max(abs(x) * unit, smallest)
