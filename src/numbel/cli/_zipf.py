"""The command line's embedded default: a law whose sum is known, and how well samples fit it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..generator import Generator

Array = np.ndarray[Any, Any]

CATEGORIES = 1 << 20
_ROWS = 64
_CELLS = 12
_LEAST = 5.0


def logits() -> Array:
    """Zipf's law with exponent 1: category i has weight 1 / (i + 1)."""
    return (-np.log(np.arange(1, CATEGORIES + 1))).astype(np.float32)


class Law:
    """The exact law at a temperature: weight rank**(-1 / temperature), in float64."""

    def __init__(self, temperature: float) -> None:
        weights = np.arange(1, CATEGORIES + 1) ** (-1 / temperature)
        self._total = math.fsum(weights)
        self.cumulated = np.concatenate(([0.0], np.cumsum(weights) / self._total))

    @property
    def logsumexp(self) -> float:
        """Logarithm of the harmonic number (generalised where temperature is not 1)."""
        return math.log(self._total)


class Fit(NamedTuple):
    """Observed and expected counts of ranks edges[i] .. edges[i + 1] - 1, and their G-test."""

    edges: list[int]
    observed: list[int]
    expected: list[float]
    statistic: float
    freedom: int
    p_value: float


def fit(indices: Array, law: Law) -> Fit:
    """Compare sampled categories with the law over cells of rank, each expected at least five times."""
    corners = np.unique(np.rint(np.geomspace(1, CATEGORIES + 1, _CELLS + 1)).astype(np.int64))
    due = np.diff(law.cumulated[corners - 1]) * indices.size
    edges = [int(corners[0])]
    waiting = 0.0
    for corner, count in zip(corners[1:], due, strict=True):
        waiting += count
        if waiting >= _LEAST:
            edges.append(int(corner))
            waiting = 0.0
    # what is left at the end joins the last cell
    edges = [*edges[:-1], CATEGORIES + 1] if len(edges) > 1 else [1, CATEGORIES + 1]
    observed = np.histogram(indices + 1, edges)[0]
    expected = np.diff(law.cumulated[np.array(edges) - 1]) * indices.size
    seen = observed > 0
    statistic = 2 * float(np.sum(observed[seen] * np.log(observed[seen] / expected[seen])))
    freedom = len(observed) - 1
    p_value = chi_square_survival(max(statistic, 0.0), freedom) if freedom else math.nan
    return Fit(edges, observed.tolist(), expected.tolist(), statistic, freedom, p_value)


def chi_square_survival(x: float, freedom: int) -> float:
    """P(chi-square of `freedom` degrees > x), for x >= 0: the finite sum, of positive terms only.

    Q(a + 1, y) = Q(a, y) + y**a exp(-y) / gamma(a + 1), from Q(1/2, y) = erfc(sqrt y) and Q(1, y) = exp(-y).
    """
    y = x / 2
    a, total = (0.5, math.erfc(math.sqrt(y))) if freedom % 2 else (1.0, math.exp(-y))
    if y == 0:
        return 1.0
    while a < freedom / 2:
        total += math.exp(a * math.log(y) - y - math.lgamma(a + 1))
        a += 1
    return min(total, 1.0)


def throughput(values: Array, temperature: float, method: Any, device: str) -> float:
    """Categories a second of `Generator.sample`, from memory: the median of five calls after one to warm up."""
    rows: Any = np.tile(values, (_ROWS, 1))
    if device == "cuda":
        from numba import cuda

        rows = cuda.to_device(rows)
    rng = Generator(0)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        rng.sample(rows, temperature=temperature, method=method)
        if device == "cuda":
            cuda.synchronize()
        times.append(time.perf_counter() - start)
    return values.size * _ROWS / float(np.median(times[1:]))


def plot(path: Path, indices: Array, law: Law) -> None:
    """Draw the frequency of ranks beside the law, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges = np.unique(np.rint(np.geomspace(1, CATEGORIES + 1, 81)).astype(np.int64))
    width = np.diff(edges)
    middle = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    observed = np.histogram(indices + 1, edges)[0] / (width * max(indices.size, 1))
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(middle, np.diff(law.cumulated[edges - 1]) / width, color="black", linewidth=1, label="the law")
    axes.plot(middle[observed > 0], observed[observed > 0], "o", markersize=4, label=f"{indices.size:,} samples")
    axes.set(xscale="log", yscale="log", xlabel="rank", ylabel="frequency of a category of that rank")
    axes.legend()
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
