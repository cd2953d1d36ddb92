"""Relaxed samples: y = softmax((logits + G) / T), G the noise of `gumbel` in the dtype of the arithmetic.

Columns are cut into the blocks of 4096 of grouped sampling. A block keeps three numbers: m, its largest logit;
D, the largest d = (logit - m) + G; S, the sum of its weights 2^((d - D) log2(e) / T), in the same lanes. Subtracting
m first keeps the noise where logits are huge, subtracting D keeps every weight in 0 .. 1 at any temperature.
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
def block_offset(m, d, largest):
    """What a block's weights are relative to, as float64, itself relative to the row's largest logit."""
    return (float64(m) - float64(largest)) + float64(d)


@inlined
def block_scale(offset, largest, high, low):
    """e^((offset - largest) / T): what a block's weights are multiplied by, before normalisation."""
    return weight_float64(offset - largest, high, low, 0.0)


@inlined
def truncated(g, top):
    """-ln(e^-g + e^-top): a Gumbel variate at g, given that it lies below `top` (Maddison et al. 2014)."""
    low, high = (g, top) if g < top else (top, g)
    return low - log1p_float64(exp_float64(low - high))


@inlined
def below(x, unit, smallest):
    """A float64 that a format of relative spacing `unit` rounds to less than its own number x."""
    return x - max(abs(x) * unit, smallest) if abs(x) < _INF else x
