"""What counts as a regression: pure functions of figures.

Times come as pairs taken in turn within one process, so that a busy machine slows both of a pair. Their ratio's
median has an interval from order statistics, which assumes no law; a work is slower if even the low end of that
interval is beyond `TOLERANCE`. Two processes, which load the two versions in opposite order, must both say so: the
place of code and arrays in memory alone moves a ratio by some percent, but not twice in the same direction.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

#: Below this ratio of times nothing is called slower.
TOLERANCE = 1.03
#: And the median must be beyond this one.
SLOWER = 1.05
#: Probability that the interval misses the median on one side.
MISS = 1e-3
#: Pairs from which the interval exists, and after which measuring ends.
FEWEST, MOST = 30, 600
#: Memory beyond inputs and outputs may grow by 5 % and 0.25 MiB (what the allocator varies by), errors by 5 %.
MEMORY, SLACK = 1.05, 0.25
ERROR, ERROR_SLACK = 1.05, 0.02
#: A first call may take a fifth longer, and a quarter of a second: what a busy machine adds to the smallest.
FIRST, FIRST_SLACK = 1.2, 0.25
#: Probability that a tail of a sound sampler raises an alarm.
ALPHA = 1e-6


class Interval(NamedTuple):
    """Median ratio head / base, and an interval around it."""

    low: float
    median: float
    high: float


def interval(base: Sequence[float], head: Sequence[float]) -> Interval:
    """Median of the ratios of pairs of times, and its interval, each side wrong with probability `MISS`."""
    ratios = sorted(h / b for b, h in zip(base, head, strict=True))
    # the median lies below the k-th smallest with the probability of fewer than k heads in n throws
    rank = int(stats.binom.ppf(MISS, len(ratios), 0.5))
    if rank == 0:
        return Interval(0.0, statistics.median(ratios), math.inf)
    return Interval(ratios[rank - 1], statistics.median(ratios), ratios[-rank])


def slower(found: Interval) -> bool:
    """Whether a work takes longer by what matters."""
    return found.low > TOLERANCE and found.median > SLOWER


def decided(found: Interval) -> bool:
    """Whether more pairs would not change what `slower` says."""
    return slower(found) or found.high < SLOWER


def more_memory(base: float, head: float) -> bool:
    """Whether a call takes more beyond inputs and outputs, in MiB."""
    return head > MEMORY * base + SLACK


def slower_start(base: float, head: float) -> bool:
    """Whether a first call compiles longer, in seconds."""
    return head > FIRST * base + FIRST_SLACK


def less_accurate(base: float, head: float) -> bool:
    """Whether a largest error grew, in ulp."""
    return not head <= ERROR * base + ERROR_SLACK


def improbable(count: int, due: float) -> float:
    """Probability of a Poisson count as far from `due` as this, or farther, on either side."""
    return float(min(1.0, 2 * min(stats.poisson.cdf(count, due), stats.poisson.sf(count - 1, due))))


def tail_lost(base: tuple[int, float], head: tuple[int, float]) -> bool:
    """Whether a tail's count is what its law excludes, and was not before."""
    return improbable(*head) < ALPHA <= improbable(*base)
