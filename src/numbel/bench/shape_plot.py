"""The map as a picture: for each method, times the best peer's speed, and the fraction of what bounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import shape_map


def plot(path: Path, cells: Sequence[shape_map.Cell], title: str) -> None:
    """Write a PNG of the methods that the cells have."""
    import matplotlib.figure
    from matplotlib import colors

    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    rows, columns = (sorted({cell[side] for cell in cells}) for side in ("rows", "columns"))
    width, height = 1.2 + 0.45 * len(columns), 1.1 + 0.28 * len(rows)
    lines = math.ceil(len(methods) / 2)
    figure = matplotlib.figure.Figure(figsize=(4 * width, 0.8 + lines * height), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(lines, 4, squeeze=False)
    ratios = colors.LogNorm(0.1, 10), "RdYlGn"
    fractions = colors.Normalize(0, 1), "viridis"
    for i, method in enumerate(methods):
        own = [cell for cell in cells if cell["method"] == method]
        found = [(cell, shape_map.verdict(cell)) for cell in own]
        limit = next((one.limit for _, one in found if one.limit), "its limit")
        at = [(rows.index(cell["rows"]), columns.index(cell["columns"])) for cell, _ in found]
        left, right = axes[i // 2, 2 * (i % 2) : 2 * (i % 2) + 2]
        marks = [shape_map.text(cell) for cell, _ in found]
        _heat(left, at, [one.ratio for _, one in found], marks, ratios, rows, columns)
        left.set_title(f"{method}: / best peer", fontsize=9)
        shares = [one.fraction for _, one in found]
        _heat(right, at, shares, [f"{one.median:.2f}" if one else "" for one in shares], fractions, rows, columns)
        right.set_title(f"{method}: of {limit}", fontsize=9)
    for axis in axes.flat[2 * len(methods) :]:
        axis.set_visible(False)
    figure.savefig(path, format="png", dpi=110)


def _heat(
    axis: Any,
    at: list[tuple[int, int]],
    found: list[shape_map.Interval | None],
    marks: list[str],
    scale: tuple[Any, str],
    rows: list[int],
    columns: list[int],
) -> None:
    values = np.full((len(rows), len(columns)), np.nan)
    for place, one, mark in zip(at, found, marks, strict=True):
        values[place] = one.median if one else np.nan
        axis.text(place[1], place[0], mark, ha="center", va="center", fontsize=7)
    axis.imshow(values, norm=scale[0], cmap=scale[1], aspect="auto", alpha=0.7)
    axis.set_xticks(range(len(columns)), map(shape_map.power, columns), fontsize=7)
    axis.set_yticks(range(len(rows)), map(shape_map.power, rows), fontsize=7)
    axis.set_xlabel("columns", fontsize=7)
    axis.set_ylabel("rows", fontsize=7)
