"""The map: every method beside every peer over rows x columns, judged by intervals.

A cell is a method at a shape. Each round of a cell times us, the peers that were near the best one in a first look, and
the limit, in turn. The ratio of a round is that of neighbours in time, which a busy machine slows alike.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from . import limits, ours, with_jax
from .table import SAMPLE, TASKS
from .works import QUICK, SAMPLES, Call, Work

#: Seconds of a burst. Its first call is not counted: it finds caches and threads as another left them.
_BURST = 0.002
#: Calls of this many seconds are timed from the first: what another left costs them less than a percent.
_LONG = 0.1
#: Threads that spin after a parallel region would disturb whoever is timed next.
_PAUSE = 0.001
#: Rounds of a cell. Eight are the fewest whose smallest and largest ratio enclose the median with 99 %.
_FEWEST, _MOST = 8, 30
#: Three do, where they have taken the budget and each says the same by a factor of two.
_CLEAR_ROUNDS, _CLEAR = 3, 2.0
#: Seconds of a cell's rounds, unless the fewest take longer.
_BUDGET = 0.5
#: A peer is timed further if its first look took at most this many times the best peer's, of long calls the second
#: number; this many peers at most.
_NEAR, _NEAR_LONG, _FINALISTS = 1.6, 1.2, 3
#: Above 2^20 values, a peer is left out whose call would take more seconds than this, and this many times the best's.
_PATIENCE, _FAR = 0.3, 1.7
#: Seconds that a call takes whatever it does (measured: 30 to 90 us, 20 us). Where a peer without them takes less, what
#: would have to be compiled first is left out.
_FLOORS = {"torch compiled": 2e-5, "jax": 1e-5}
#: Seconds of the longest call that is waited for.
LONGEST = 5.0
#: Probability that an interval misses the median.
_MISS = 0.01
#: Values (and samples, 1000 a row) of the largest cells: 1 GiB of float32.
_LARGEST = 28
_MOST_SAMPLES = 1 << 24


class Method(NamedTuple):
    """A method of the map: its task in the table, what bounds it, and bytes that a category takes, peers included."""

    task: str
    limit: str
    bytes: int = 40


METHODS = {
    "categorical": Method("categorical", "read"),
    "categorical, gumbel_max": Method("gumbel_max", "philox"),
    "sample": Method("sample", "read"),
    "categorical, 1000 samples": Method("1000 samples", "read"),
    "categorical, top_k=50": Method("top_k", "read"),
    "categorical, top_p=0.9": Method("top_p", "read", 64),
    "gumbel": Method("gumbel", "philox"),
    "gumbel_softmax": Method("gumbel_softmax", "philox"),
    "gumbel_top_k, 100": Method("gumbel_top_k 100", "philox"),
    "multinomial, 10^6": Method("multinomial of 10^6", "read"),
    "log_prob": Method("log_prob", "read"),
    "entropy": Method("entropy", "read"),
}
_LIMITS: dict[str, Callable[[Work], Call]] = {"read": limits.read, "philox": limits.philox}
# What the table writes into memory of its own is compared here with peers that make theirs.
_OURS = {"gumbel": ours.new_gumbel, "gumbel_softmax": ours.new_gumbel_softmax}

Cell = dict[str, Any]


def coarse() -> list[tuple[int, int]]:
    """Shapes of the coarse map, smallest first: steps of 2^5 up to 2^20 values, and some long ones."""
    steps = range(0, 21, 5)
    exponents = [(rows, max(columns, 1)) for rows, columns in itertools.product(steps, steps) if rows + columns <= 20]
    return _shapes([*exponents, (5, 20), (0, 24), (0, _LARGEST)])


def whole() -> list[tuple[int, int]]:
    """Every power of two: 1 to 2^20 rows of 2 columns and more, up to 2^28 values."""
    pairs = itertools.product(range(21), range(1, _LARGEST + 1))
    return _shapes([(rows, columns) for rows, columns in pairs if rows + columns <= _LARGEST])


def _shapes(exponents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(1 << rows, 1 << columns) for rows, columns in sorted(exponents, key=lambda pair: (sum(pair), pair))]


def peers(method: str) -> dict[str, Callable[[Work], Call]]:
    """Those of the table that do the same, none more or less."""
    task = METHODS[method].task
    entries = SAMPLE if task == "sample" else TASKS[task]
    found = {
        name: entry.prepare for name, entry in entries.items() if not name.startswith("numbel") and name not in _LIMITS
    }
    return found | ({"jax gumbel": with_jax.gumbel} if task == "gumbel" else {})


def measure(method: str, rows: int, columns: int, before: Iterable[Cell] = (), longest: float = LONGEST) -> Cell:
    """Time a method at a shape beside its peers; `before` are smaller cells, which tell what a slow peer would cost.

    No call is made that would take more than `longest` seconds by them.

    Returns
    -------
    dict
        `method`, `rows`, `columns`; `seconds` of one call in each round, {library: list}; `looked`, those of a first
        look at every peer; `absent` and `left_out`, {peer: reason}. Or `skipped`, the reason.
    """
    about = METHODS[method]
    cell: Cell = {"method": method, "rows": rows, "columns": columns}
    values, samples = rows * columns, rows * SAMPLES if about.task == "1000 samples" else 0
    if samples > _MOST_SAMPLES:
        return cell | {"skipped": f"{samples:,} samples are more than {_MOST_SAMPLES:,}"}
    need, free = values * about.bytes + samples * 40, _free_memory()
    if need > free:
        return cell | {"skipped": f"peers take up to {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"}
    left_out = _slow(cell, before, longest) if values > QUICK else {}
    candidates = {name: prepare for name, prepare in peers(method).items() if name not in left_out}
    if not candidates:
        return cell | {"skipped": f"every peer would take more than {longest:g} s a call", "left_out": left_out}
    work = Work(about.task, rows, columns, "float32")
    calls = {"numbel": _OURS.get(about.task, TASKS[about.task]["numbel"].prepare)(work)}
    looks = {"numbel": _look(calls["numbel"])}
    absent: dict[str, str] = {}
    for name in sorted(candidates, key=lambda name: bool(_floor(name))):
        best = min((looks[rival] for rival in calls if rival != "numbel"), default=math.inf)
        if best < _floor(name):
            left_out[name] = f"a call takes {_floor(name) * 1e6:.0f} us whatever it does"
            continue
        try:
            call = candidates[name](work)
            looks[name], calls[name] = _look(call), call
        except Exception as error:  # whatever a peer cannot do is no reason to end the map
            absent[name] = _one_line(error)
    rivals = sorted(calls.keys() - {"numbel"}, key=looks.__getitem__)
    near = [name for name in rivals if looks[name] <= _near(looks[rivals[0]])][:_FINALISTS]
    timed = {name: calls[name] for name in ("numbel", *near)}
    if values >= QUICK:  # of fewer, a call is what is timed, not memory or words
        timed[about.limit] = _LIMITS[about.limit](work)
        looks[about.limit] = _look(timed[about.limit])
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    start = time.perf_counter()
    for i in range(_MOST):
        order = list(timed)
        for name in order if i % 2 == 0 else reversed(order):
            seconds[name].append(_burst(timed[name], looks[name]))
        enough = i + 1 >= _FEWEST or (i + 1 >= _CLEAR_ROUNDS and _clear(seconds))
        if enough and time.perf_counter() - start > _BUDGET:
            break
    looked = {name: _short(seconds) for name, seconds in looks.items() if name in rivals}
    return cell | {
        "seconds": {name: list(map(_short, found)) for name, found in seconds.items()},
        "looked": looked,
        "absent": absent,
        "left_out": left_out,
    }


def _floor(name: str) -> float:
    return next((seconds for start, seconds in _FLOORS.items() if name.startswith(start)), 0.0)


def _near(seconds: float) -> float:
    return seconds * (_NEAR if seconds < _LONG else _NEAR_LONG)


def _clear(seconds: dict[str, list[float]]) -> bool:
    """Whether every round says by a factor, of each peer on its own, who is faster."""
    rivals = [times for name, times in seconds.items() if name not in ("numbel", *_LIMITS)]
    ratios = [[theirs / own for theirs, own in zip(times, seconds["numbel"], strict=True)] for times in rivals]
    return all(min(one) > _CLEAR or max(one) < 1 / _CLEAR for one in ratios)


def _slow(cell: Cell, before: Iterable[Cell], longest: float) -> dict[str, str]:
    """Peers that the nearest smaller cell shows to be slow."""

    def distance(one: Cell) -> float:
        return sum(abs(math.log2(one[side] / cell[side])) for side in ("rows", "columns"))

    values = cell["rows"] * cell["columns"]
    smaller = [one for one in before if one["method"] == cell["method"] and one["rows"] * one["columns"] < values]
    times: dict[str, tuple[float, Cell]] = {}
    for one in sorted(smaller, key=distance, reverse=True):
        times |= {name: (seconds, one) for name, seconds in one.get("looked", {}).items()}
    due = {name: seconds * values / (one["rows"] * one["columns"]) for name, (seconds, one) in times.items()}
    best = min(due.values(), default=0.0)
    return {
        name: f"{seconds:.2g} s, {seconds / best:.1f} times the best peer's, by {shape(times[name][1])}"
        for name, seconds in due.items()
        if seconds > longest or (seconds > _PATIENCE and seconds > _FAR * best)
    }


def _look(call: Call) -> float:
    """Seconds of a call after one that compiles: of a burst, if it is short."""
    call()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    return once if once > _BURST else _burst(call, once)


def _burst(call: Call, seconds: float) -> float:
    time.sleep(_PAUSE)
    if seconds < _LONG:
        call()
    calls = max(1, round(_BURST / max(seconds, 1e-7)))
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _short(seconds: float) -> float:
    """Four digits, which is more than any of them means."""
    return float(f"{seconds:.4g}")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _free_memory() -> float:
    """Bytes that may be taken, a fifth left; where the system does not say, all that are asked for."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return 0.8 * 1024 * kilobytes
    except (OSError, StopIteration):
        pass
    try:
        return 0.8 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


class Interval(NamedTuple):
    """A median with the interval that holds it with 99 %; of fewer than eight rounds, with their range."""

    low: float
    median: float
    high: float


class Verdict(NamedTuple):
    """What a cell says: times the best peer's speed, who that is, and the fraction of what bounds the method."""

    peer: str
    ratio: Interval | None
    limit: str
    fraction: Interval | None

    @property
    def below(self) -> bool:
        """Whether the best peer is faster, beyond doubt."""
        return self.ratio is not None and self.ratio.high < 1

    @property
    def undecided(self) -> bool:
        """Whether the interval holds 1."""
        return self.ratio is not None and self.ratio.low <= 1 <= self.ratio.high


def interval(ratios: Sequence[float]) -> Interval:
    """Of the median, by order statistics: no law of the ratios is assumed."""
    n, ordered = len(ratios), sorted(ratios)
    # the median lies below the k-th smallest if fewer than k of n tosses are heads
    outside, rank = 2.0**-n, 0
    while 2 * outside <= _MISS:
        rank += 1
        outside += math.comb(n, rank) * 2.0**-n
    rank = max(rank, 1)  # three rounds that say the same: their range
    return Interval(ordered[rank - 1], statistics.median(ordered), ordered[-rank])


def verdict(cell: Cell) -> Verdict:
    """Judge a cell by its stored samples."""
    seconds = cell.get("seconds", {})
    rivals = {name: statistics.median(times) for name, times in seconds.items() if name not in ("numbel", *_LIMITS)}
    peer = min(rivals, key=rivals.__getitem__, default="")
    limit = next((name for name in _LIMITS if name in seconds), "")

    def against(name: str) -> Interval | None:
        pairs = zip(seconds[name], seconds["numbel"], strict=True) if name else []
        return interval([theirs / own for theirs, own in pairs]) if name else None

    return Verdict(peer, against(peer), limit, against(limit))


def shape(cell: Cell) -> str:
    """Such as "1 x 2^20"."""
    return f"{power(cell['rows'])} x {power(cell['columns'])}"


def power(n: int) -> str:
    """A power of two as people write it."""
    return f"2^{n.bit_length() - 1}" if n > 1 << 10 else str(n)


def text(cell: Cell | None) -> str:
    """A ratio as a table shows it: "!" below 1 beyond doubt, "?" where the interval holds 1, "-" what was skipped."""
    if cell is None:
        return ""
    found = verdict(cell)
    if found.ratio is None:
        return "-"
    digits = f"{found.ratio.median:.2f}" if found.ratio.median < 10 else f"{found.ratio.median:.0f}"
    return digits + ("!" if found.below else "?" if found.undecided else "")


def named(cell: Cell) -> str:
    """A cell with its ratio in a list: "entropy 1 x 2: 0.81 (0.78 to 0.84) of numba entropy"."""
    found = verdict(cell)
    assert found.ratio is not None
    low, median, high = (f"{value:.2f}" for value in found.ratio)
    return f"{cell['method']} {shape(cell)}: {median} ({low} to {high}) of {found.peer}"


def lists(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """What a reader must not miss, each under its heading: cells by name, and what is not in them, with the reason."""
    judged = [(cell, verdict(cell)) for cell in cells]
    below = sorted((found.ratio.median, named(cell)) for cell, found in judged if found.below and found.ratio)
    reasons: dict[str, set[str]] = {}
    for cell in cells:
        for peer, reason in cell.get("absent", {}).items():
            reasons.setdefault(reason, set()).add(peer)
    skipped = [(cell, cell.get("skipped", "no peer can do it")) for cell, found in judged if not found.peer]
    return {
        "Slower than the best peer": [name for _, name in below],
        "Undecided, the interval holds 1": [named(cell) for cell, found in judged if found.undecided],
        "Not measured": [f"{cell['method']} {shape(cell)}: {reason}" for cell, reason in skipped],
        "Absent peers": [f"{reason} ({', '.join(sorted(peers))})" for reason, peers in reasons.items()],
    }
