"""What got worse and what got better, since when, by how much, and how sure that is: pure functions of figures.

Where samples are stored, a figure's history is cut into levels: where two medians fit its samples best in place of one,
and each part again. A step counts if the interval of its ratio says so by the gate's rule. Samples are
compared within one session only, so that another machine, or a busier day, is no regression. Of figures with one value
a commit, a step counts if it is some times as large as what such figures usually move by.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..gate import rule

#: What figures are of, in the order in which people ask; the first part of a benchmark's name tells, or all of it.
SUBJECTS = {
    "history.time": "time",
    "speed": "time",
    "history.memory": "memory",
    "memory": "memory",
    "history.compile": "compile time",
    "start": "compile time",
    "accuracy": "accuracy",
    "code": "code counts",
}
ORDER = tuple(dict.fromkeys(SUBJECTS.values()))
#: Benchmarks that show the same step of the same work, the plainest first: the others are left out.
_PLAIN = ("history.time", "speed.Speed.track", "speed.Speed.time")
#: Multiples of a yardstick, which moves too: a faster read is no slower kernel. They count if no plain time is known.
_BESIDE = ("speed.Roofline", "speed.Peers")
_SAME = (*_PLAIN, *_BESIDE)
#: A step of single values is told from this many times their scatter on, if it is as large as this.
_TOLD, _STEP = 3.0, math.log(rule.SLOWER)
#: Least scatter of a figure: a percent of a time, which no machine repeats better.
_LEAST = {"time": 0.01, "compile time": 0.01}

#: Samples of a commit that must lie on one side of the middle of two levels, or it is not known to which it belongs.
_CLEAR = 0.8
#: Standard deviations beyond which lies `rule.MISS`; and a percent, where two commits alone are compared: five samples
#: of each give no interval that misses more rarely.
DEVIATIONS, OF_TWO = float(stats.norm.isf(rule.MISS)), float(stats.norm.isf(0.01))

Sessions = dict[str, tuple[float, ...]]


class Value(NamedTuple):
    """A figure of one benchmark, with its parameters, at a commit on a machine; and its samples, by session."""

    machine: str
    commit: str
    parameters: tuple[str, ...]
    value: float
    samples: Sessions = {}  # noqa: RUF012  (never written to)


class Benchmark(NamedTuple):
    """A benchmark and all that is known of it."""

    name: str
    unit: str
    names: tuple[str, ...]
    values: list[Value]

    @property
    def page(self) -> str:
        """Where its graph is."""
        return f"benchmarks/{self.name}.html"

    @property
    def label(self) -> str:
        """Its name in words."""
        last = self.name.rpartition(".")[2]
        return (last.partition("_")[2] or last).replace("_", " ")

    @property
    def subject(self) -> str:
        """What it is of; "" if that is of no interest here."""
        return SUBJECTS.get(self.name, SUBJECTS.get(self.name.partition(".")[0], ""))

    def what(self, parameters: Sequence[str]) -> str:
        """Parameters in words: the first alone, the others with their names."""
        rest = [f"{name} {value}" for name, value in zip(self.names, parameters, strict=True)]
        return ", ".join([*parameters[:1], *rest[1:]])


class Step(NamedTuple):
    """After value `since`, up to value `at` of a series: after / before, and the samples of either side."""

    since: int
    at: int
    ratio: rule.Interval
    before: int
    after: int


class Change(NamedTuple):
    """A step of a figure that later commits have not taken back: in one of those after `since` up to `commit`."""

    subject: str
    benchmark: str
    what: str
    machine: str
    since: str
    commit: str
    before: float
    after: float
    ratio: rule.Interval
    samples: tuple[int, int]
    scatters: float

    @property
    def times(self) -> float:
        """How many times the figure became what it was."""
        return self.ratio.median

    @property
    def amount(self) -> str:
        """By how much, in words, with the interval where there is one."""
        if math.isinf(self.times) or self.times == 0:
            return f"from {self.before:.4g} to {self.after:.4g}"
        if not self.samples[0]:
            return _percent(self.times)
        ends = sorted((self.ratio.low, self.ratio.high), key=lambda one: abs(one - 1))
        return f"{_percent(self.times)} ({_percent(ends[0])} to {_percent(ends[1])})"

    @property
    def sure(self) -> str:
        """How sure a reader can be."""
        if self.samples[0]:
            return f"99.8 % interval, {self.samples[0]} runs before and {self.samples[1]} after"
        if math.isinf(self.scatters):
            return "One run a commit, no interval; it never moved before"
        return f"One run a commit, no interval; {self.scatters:.0f} times the usual scatter"


def _percent(times: float) -> str:
    return f"x {times:.1f}" if times >= 2 else f"{100 * (times - 1):+.0f} %".replace("-", "\N{MINUS SIGN}")


def ratio(before: Sequence[float], after: Sequence[float], deviations: float = DEVIATIONS) -> rule.Interval | None:
    """Median of after / before and its interval, by the ranks of all pairs; None of too few.

    No law of the samples is assumed (Hodges and Lehmann); each side is wrong as often as a normal variable lies beyond
    so many standard deviations.
    """
    m, n = len(before), len(after)
    spread = math.sqrt(m * n * (m + n + 1) / 12)
    rank = math.floor(m * n / 2 - deviations * spread)
    if rank < 0 or min(m, n) == 0 or min(before) <= 0:
        return None
    ratios = np.sort(np.divide.outer(np.asarray(after), np.asarray(before)).ravel())
    return rule.Interval(float(ratios[rank]), float(np.median(ratios)), float(ratios[-1 - rank]))


def _gain(before: Sequence[float], after: Sequence[float]) -> float:
    """How much nearer samples lie to two medians than to one, as sums of logarithms."""
    old, new = np.log(before), np.log(after)
    pool = np.concatenate([old, new])
    return float(sum(sign * np.abs(x - np.median(x)).sum() for sign, x in ((1, pool), (-1, old), (-1, new))))


def comparable(before: Sequence[Value], after: Sequence[Value]) -> tuple[list[float], list[float]]:
    """Samples of either side, of the sessions that both have."""
    both = _sessions(before) & _sessions(after)
    return _samples(before, both), _samples(after, both)


def _sessions(values: Sequence[Value]) -> set[str]:
    return {session for value in values for session in value.samples}


def _samples(values: Sequence[Value], sessions: set[str]) -> list[float]:
    return [x for value in values for one in sorted(sessions) for x in value.samples.get(one, ())]


def _told(found: rule.Interval | None) -> bool:
    """Whether a ratio is a step, up or down, by the gate's rule."""
    if found is None:
        return False
    return rule.slower(found) or (found.high < 1 / rule.TOLERANCE and found.median < 1 / rule.SLOWER)


def steps(values: Sequence[Value]) -> list[Step]:
    """Where a series with samples goes from one level to another."""
    cuts: list[int] = []

    def split(low: int, high: int) -> None:
        best, at = 0.0, 0
        for i in range(low + 1, high):
            old, new = comparable(values[low:i], values[i:high])
            if _told(ratio(old, new)) and (gain := _gain(old, new)) > best:
                best, at = gain, i
        if at:
            split(low, at)
            cuts.append(at)
            split(at, high)

    split(0, len(values))
    found = []
    for low, at, high in zip([0, *cuts], cuts, [*cuts[1:], len(values)], strict=False):
        old, new = comparable(values[low:at], values[at:high])
        if (interval := ratio(old, new)) is not None and _told(interval):
            both = _sessions(values[low:at]) & _sessions(values[at:high])
            middle = math.sqrt(statistics.median(old) * statistics.median(new))
            up = interval.median > 1
            # a commit whose own samples do not tell on which side it is may be the one
            since, first = at - 1, at
            while since > low and not _lies(_samples(values[since : since + 1], both), middle, not up):
                since -= 1
            while first < high - 1 and not _lies(_samples(values[first : first + 1], both), middle, up):
                first += 1
            found.append(Step(since, first, interval, len(old), len(new)))
    return found


def _lies(samples: Sequence[float], middle: float, above: bool) -> bool:
    """Whether four fifths of a commit's samples lie above the middle of two levels, or below it."""
    return sum((x > middle) == above for x in samples) >= max(1, _CLEAR * len(samples))


class Band(NamedTuple):
    """What a figure is expected to be at a commit: the median of its level, and the ends of its noise."""

    low: float
    middle: float
    high: float


def bands(one: Benchmark, values: Sequence[Value]) -> list[Band]:
    """Of each value of a series: its level, with nine tenths of its samples; of single values, their usual scatter."""
    if not _has_samples(values):
        scatter = min(_scatter(one, [values]), 1.0)
        return [Band(each.value * math.exp(-scatter), each.value, each.value * math.exp(scatter)) for each in values]
    found = []
    for low, high in itertools.pairwise([0, *(step.at for step in steps(values)), len(values)]):
        pool = [x for value in values[low:high] for each in value.samples.values() for x in each]
        found += [Band(*map(float, np.percentile(pool, [5, 50, 95])))] * (high - low)
    return found


def _scatter(one: Benchmark, rows: Sequence[Sequence[Value]]) -> float:
    """What single values usually move by: half of their steps are smaller, and most commits change nothing."""
    moves = [abs(_log(b.value, a.value)) for values in rows for a, b in itertools.pairwise(values)]
    return max(statistics.median(moves or [0.0]), _LEAST.get(one.subject, 0.0))


def series(one: Benchmark, order: Sequence[str]) -> dict[tuple[str, tuple[str, ...]], list[Value]]:
    """Values of a benchmark by machine and parameters, oldest commit first."""
    found: dict[tuple[str, tuple[str, ...]], list[Value]] = {}
    for value in sorted(one.values, key=lambda each: order.index(each.commit)):
        found.setdefault((value.machine, value.parameters), []).append(value)
    return found


def _of_single_values(one: Benchmark, rows: dict[tuple[str, tuple[str, ...]], list[Value]]) -> list[Change]:
    """Steps of figures with one value a commit, as multiples of their usual scatter."""
    found = []
    for (machine, _), values in rows.items():
        scatter = _scatter(one, [each for (other, _), each in rows.items() if other == machine])
        for i, (a, b) in enumerate(itertools.pairwise(values)):
            step = _log(b.value, a.value)
            scatters = abs(step) / scatter if scatter else math.inf
            if abs(step) > _STEP and scatters > _TOLD and _stays(values, i + 1):
                found.append(_change(one, values, Step(i, i + 1, _single(a.value, b.value), 0, 0), scatters))
    return found


def _single(before: float, after: float) -> rule.Interval:
    times = after / before if before else math.inf
    return rule.Interval(times, times, times)


def _stays(values: Sequence[Value], at: int) -> bool:
    """Whether a step is what a reader must know: later commits kept half of it, and it is no mere way back."""
    before, after = values[at - 1].value, values[at].value
    step = _log(after, before)
    kept = all(_log(later.value, before) * math.copysign(1, step) >= abs(step) / 2 for later in values[at + 1 :])
    returns = step < 0 and any(abs(_log(earlier.value, after)) < abs(step) / 2 for earlier in values[: at - 1])
    return kept and not returns


def _change(one: Benchmark, values: Sequence[Value], step: Step, scatters: float) -> Change:
    before, after = values[step.since], values[step.at]
    return Change(
        subject=one.subject,
        benchmark=one.name,
        what=one.what(after.parameters),
        machine=after.machine,
        since=before.commit,
        commit=after.commit,
        before=before.value,
        after=after.value,
        ratio=step.ratio,
        samples=(step.before, step.after),
        scatters=scatters,
    )


def _of_samples(one: Benchmark, values: list[Value]) -> list[Change]:
    """Steps of a figure with samples, between levels."""
    level = [value._replace(value=band.middle) for value, band in zip(values, bands(one, values), strict=True)]
    return [_change(one, level, step, math.nan) for step in steps(values) if _stays(level, step.at)]


def changes(known: Sequence[Benchmark], order: Sequence[str]) -> tuple[list[Change], list[Change]]:
    """What got worse and what got better, times first; then what has an interval, then the largest step."""
    found: list[Change] = []
    for one in known:
        if not one.subject:
            continue
        rows = series(one, order)
        sampled = {key: values for key, values in rows.items() if one.subject in _LEAST and _has_samples(values)}
        for values in sampled.values():
            found += _of_samples(one, values)
        found += _of_single_values(one, {key: values for key, values in rows.items() if key not in sampled})
    plain = {
        (value.machine, value.parameters[0], value.commit)
        for one in known
        if one.name.startswith(_PLAIN)
        for value in one.values
    }

    def known_plainly(each: Change) -> bool:
        work = each.what.partition(", ")[0]
        return {(each.machine, work, each.since), (each.machine, work, each.commit)} <= plain

    found = [each for each in found if not (each.benchmark.startswith(_BESIDE) and known_plainly(each))]
    slack = rule.SLACK * 2**20  # bytes: a page more of memory is nothing
    found = _once([each for each in found if each.subject != "memory" or abs(each.after - each.before) > slack])
    # within a subject what is surest comes first: that of samples
    found.sort(key=lambda each: (ORDER.index(each.subject), not each.samples[0], -abs(_log(each.after, each.before))))
    return [each for each in found if each.times > 1], [each for each in found if each.times < 1]


def _has_samples(values: Sequence[Value]) -> bool:
    return max(sum(map(len, value.samples.values())) for value in values) > 1


def _once(found: list[Change]) -> list[Change]:
    """Each step of a work's time in its plainest figure alone."""
    kept: dict[tuple[str, ...], Change] = {}

    def rank(each: Change) -> int:
        return next((i for i, name in enumerate(_SAME) if each.benchmark.startswith(name)), len(_SAME))

    for each in sorted(found, key=rank):
        own = "" if rank(each) < len(_SAME) else each.benchmark + each.what
        key = (each.subject, own, each.what.partition(", ")[0], each.machine, each.since, each.commit)
        kept.setdefault(key, each)
    return list(kept.values())


def _log(after: float, before: float) -> float:
    """Of their ratio; infinite where one is nothing."""
    if after == before:
        return 0.0
    return math.log(after / before) if after > 0 and before > 0 else math.copysign(math.inf, after - before)
