"""One table of work, {work: {library: callable}}, for `numbel bench` and the project's benchmarks.

`WORKS[work][library](limit)` makes a `Case`: something to call, and how many categories (or noise values) one
call handles. It raises ImportError where the library is not installed. `measure` times a row of the table. `GRID`
has the same rows, and beside them numbel and its limits for every task in every regime and dtype. `shape_map` times
every method beside every peer over rows x columns.
numbel is imported by its name, so that this package also loads by its path and times an older numbel.
"""

from __future__ import annotations

from . import shape_map, shape_plot
from .table import DTYPES, GRID, REGIMES, WORKS
from .timing import measure, ratio
from .works import FULL, QUICK, Case, Rate, Work

__all__ = [
    "DTYPES",
    "FULL",
    "GRID",
    "QUICK",
    "REGIMES",
    "WORKS",
    "Case",
    "Rate",
    "Work",
    "measure",
    "ratio",
    "shape_map",
    "shape_plot",
]
