"""Statistical tests, all at one level; seeds are fixed beforehand and never tuned.

A proportion p in N trials shows a bias delta with power .99 when N = 52 p (1 - p) / delta^2.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

#: Probability that one sound test fails, had its seed not been fixed.
ALPHA = 1e-6


def smallest_bias(p, trials):
    """The bias of a proportion that `trials` show with power .99."""
    return (52 * p * (1 - p) / trials) ** 0.5


def assert_poisson(count, mean):
    """`count` events where `mean` are due."""
    p = 2 * min(stats.poisson.cdf(count, mean), stats.poisson.sf(count - 1, mean))
    assert p > ALPHA, f"{count} where {mean:.4g} are due (p = {p:.3g})"


def assert_proportion(count, trials, p):
    """`count` successes of probability p in `trials`."""
    value = 2 * min(stats.binom.cdf(count, trials, p), stats.binom.sf(count - 1, trials, p))
    assert value > ALPHA, f"{count} of {trials} where {p * trials:.6g} are due (p = {value:.3g})"


def assert_fits(counts, probabilities, least=10.0):
    """G-test; neighbouring cells that expect fewer than `least` are pooled."""
    counts, expected = np.asarray(counts, float).ravel(), np.asarray(probabilities, float).ravel()
    assert counts[expected == 0].sum() == 0, "an impossible outcome"
    expected = expected / expected.sum() * counts.sum()
    small = expected < least
    if small.any():
        # neighbours are pooled until each pool expects enough; the last one takes what is left over
        pools = int(expected[small].sum() // (2 * least))
        if pools == 0:
            small |= expected == expected[~small].min()
            pools = 1
        at = (np.cumsum(expected[small]) / expected[small].sum() * pools * (1 - 1e-12)).astype(int)
        counts = np.append(counts[~small], np.bincount(at, counts[small], minlength=pools))
        expected = np.append(expected[~small], np.bincount(at, expected[small], minlength=pools))
    assert len(counts) > 1, "one cell tests nothing"
    with np.errstate(all="ignore"):
        terms = np.where(counts > 0, counts * np.log(counts / expected), 0.0)
    p = stats.chi2.sf(2 * terms.sum(), len(counts) - 1)
    assert p > ALPHA, f"G = {2 * terms.sum():.1f} in {len(counts)} cells (p = {p:.3g})"


def assert_independent(a, b, p):
    """G-test of the pair table of two index arrays, both of law p, against the product law."""
    table = np.bincount(np.asarray(a).ravel() * len(p) + np.asarray(b).ravel(), minlength=len(p) ** 2)
    assert_fits(table, np.outer(p, p))


def zipf(categories, dtype=np.float32, steps=12.0):
    """Logits spaced evenly from 0 to -steps, in a scrambled order."""
    order = np.random.default_rng(12345).permutation(categories)
    return np.linspace(0.0, -steps, categories)[order].astype(dtype)
