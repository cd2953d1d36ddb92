"""Times libraries on a work in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

from .table import GRID
from .works import FULL, Call, Case, Rate

# A call shorter than this is repeated within one measurement.
_SHORTEST = 0.01
# Threads that spin after a parallel region would disturb whoever is timed next.
_PAUSE = 0.01


def measure(
    work: str,
    libraries: Iterable[str] | None = None,
    rounds: int = 7,
    limit: int = FULL,
    absent: dict[str, list[str]] | None = None,
) -> dict[str, Rate]:
    """Time libraries on a work, taking turns, and leave out those that are not installed.

    Parameters
    ----------
    work : str
        A key of `GRID`.
    libraries : iterable of str, optional
        Keys of `GRID[work]`; None: all.
    rounds : int, optional
        Measurements of each; the median counts.
    limit : int, optional
        Categories that one call handles at most, from 2**17.
    absent : dict, optional
        Gets the libraries that were left out, under the reason.

    Returns
    -------
    dict of str to Rate
        In the order of the table.

    Examples
    --------
    >>> from numbel import bench
    >>> rates = bench.measure("sample 1 x 1000 float32", ["numbel"], rounds=1)
    >>> rates["numbel"].items
    1000
    """
    table = GRID[work]
    cases: dict[str, tuple[Case, int]] = {}
    for library in table if libraries is None else libraries:
        try:
            case = table[library](limit)
        except ImportError as error:
            if absent is not None:
                absent.setdefault(str(error), []).append(library)
            continue
        case.call()
        cases[library] = case, max(1, round(_SHORTEST / max(_seconds(case.call, 1), 1e-7)))
    times: dict[str, list[float]] = {library: [] for library in cases}
    for _ in range(rounds):
        for library, (case, calls) in cases.items():
            time.sleep(_PAUSE)
            times[library].append(_seconds(case.call, calls))
    medians = {library: statistics.median(values) for library, values in times.items()}
    return {
        library: Rate(medians[library], case.items, case.items / medians[library])
        for library, (case, _) in cases.items()
    }


def ratio(rates: dict[str, Rate], library: str) -> float:
    """How many times the rate of `library` numbel has."""
    return rates["numbel"].per_second / rates[library].per_second


def _seconds(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
