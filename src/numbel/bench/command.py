"""What `numbel bench` does: works or the map, measured, printed and written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import rich.console
import rich.table
import typer

from numbel import __version__, _info, bench
from numbel.cli import _files

#: Values of the largest cells of a quick map.
_QUICK_VALUES = 1 << 6


def measure_works(work: list[str] | None, quick: bool, names: bool, json_path: Path | None) -> None:
    """Time works of the table, print them, and write them where a path is given."""
    chosen = [name for name in bench.WORKS if not work or any(part in name for part in work)]
    if not chosen:
        raise ValueError(f"no work has such a name; there are: {'; '.join(bench.WORKS)}")
    if names:
        typer.echo("\n".join(chosen))
        return
    # threads that spin when idle slow whoever is timed next, by 5 to 12 %
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    figures: dict[str, Any] = {}
    absent: dict[str, list[str]] = {}
    with _files.replacing(json_path) as (beside,):
        for name in chosen:
            limit = bench.QUICK if quick else bench.FULL
            rates = bench.measure(name, rounds=3 if quick else 7, limit=limit, absent=absent)
            figures[name] = {library: rate._asdict() for library, rate in rates.items()}
            _print_rates(name, rates)
        if beside is not None:
            config = {name: value for name, value in _info.config().items() if name != "cache"}
            report = {"config": config, "time": time.strftime("%FT%TZ", time.gmtime()), "works": figures}
            beside.write_text(json.dumps(report, indent=1) + "\n")
    for reason, libraries in absent.items():
        typer.echo(f"left out: {', '.join(dict.fromkeys(libraries))}: {reason}")


def measure_map(parts: list[str], quick: bool, whole: bool, names: bool, path: Path, plot: Path | None) -> None:
    """Measure what a file lacks of the map, and print the whole."""
    methods = [name for name in bench.shape_map.METHODS if any(part in name for part in parts)]
    if not methods:
        raise ValueError(f"no method has such a name; there are: {'; '.join(bench.shape_map.METHODS)}")
    if names:
        typer.echo("\n".join(methods))
        return
    shapes = bench.shape_map.whole() if whole else bench.shape_map.coarse()
    if quick:
        shapes = [(rows, columns) for rows, columns in shapes if rows * columns <= _QUICK_VALUES]
    config = _map_config()
    known: dict[str, Any] = {"config": config, "cells": []}
    if path.exists():
        known = json.loads(path.read_text())
    if known.get("config") != config:
        raise ValueError(f"{path} is of another numbel, package or machine: remove it, or name another with --json")
    cells: list[dict[str, Any]] = known["cells"]
    wanted = [(method, rows, columns) for rows, columns in shapes for method in methods]
    try:
        _measure_map(path, config, cells, wanted)
    except KeyboardInterrupt:
        kept = f"{path} keeps {len(cells)} cells, and the same command goes on" if cells else "nothing was written"
        typer.echo(f"numbel: interrupted; {kept}", err=True)
        raise typer.Exit(130) from None
    shown = [cell for cell in cells if _place(cell) in wanted]
    _print_map(shown)
    if plot is not None:
        with _files.replacing(plot) as (picture,):
            assert picture is not None
            bench.shape_plot.plot(picture, shown, f"numbel {__version__}, {config['cpu']}, {config['threads']} threads")


def _place(cell: dict[str, Any]) -> tuple[str, int, int]:
    return cell["method"], cell["rows"], cell["columns"]


def _measure_map(
    path: Path, config: dict[str, str], cells: list[dict[str, Any]], wanted: list[tuple[str, int, int]]
) -> None:
    """Add the cells that are missing, and write the file after each: a line for a cell."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in `measure_works`
    due = [one for one in wanted if one not in set(map(_place, cells))]
    for i, one in enumerate(due):
        cell = bench.shape_map.measure(*one, cells)
        head = json.dumps({"config": config, "time": time.strftime("%FT%TZ", time.gmtime())})
        lines = ",\n".join(map(json.dumps, [*cells, cell]))
        with _files.replacing(path) as (beside,):
            assert beside is not None
            beside.write_text(f'{head[:-1]}, "cells": [\n{lines}\n]}}\n')
        cells.append(cell)
        found = f"{bench.shape_map.text(cell)} {bench.shape_map.verdict(cell).peer}"
        typer.echo(f"{i + 1} of {len(due)}: {one[0]} {bench.shape_map.shape(cell)}: {found}", err=True)


def _map_config() -> dict[str, str]:
    """What must be the same for cells to stand in one map; the source counts, as its versions do not change with it."""
    config = {name: value for name, value in _info.config().items() if name not in ("cache", "threading layer")}
    for name in ("torch", "jax", "scipy", "mkl_random", "vose"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            config[name] = metadata.version(name)
    source = sorted(Path(__file__).parent.parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in source)).hexdigest()[:12]
    return config | {"source": digest}


def _print_map(cells: list[dict[str, Any]]) -> None:
    console = rich.console.Console()
    columns = sorted({cell["columns"] for cell in cells})
    for method in dict.fromkeys(cell["method"] for cell in cells):
        own = {(cell["rows"], cell["columns"]): cell for cell in cells if cell["method"] == method}
        limit = bench.shape_map.METHODS[method].limit
        typer.echo(f"{method}: times the best peer's speed (of {limit}), by rows and columns")
        table = rich.table.Table("", box=None)
        for column in columns:
            table.add_column(bench.shape_map.power(column), justify="right")
        for rows in sorted({rows for rows, _ in own}):
            table.add_row(bench.shape_map.power(rows), *(_map_text(own.get((rows, column))) for column in columns))
        console.print(table)
        typer.echo()
    typer.echo(
        "! slower beyond doubt, ? undecided, - not measured; in parentheses the fraction of the limit, from 2^20 values"
    )
    for heading, lines in bench.shape_map.lists(cells).items():
        typer.echo("\n".join([f"\n{heading}: {len(lines)}", *(f"  {line}" for line in lines)]))


def _map_text(cell: dict[str, Any] | None) -> str:
    fraction = bench.shape_map.verdict(cell).fraction if cell else None
    return bench.shape_map.text(cell) + (f" ({fraction.median:.2f})" if fraction else "")


def _print_rates(name: str, rates: dict[str, bench.Rate]) -> None:
    title = f"{name}{'' if 'numbel' in rates else ' (needs a package that is not installed)'}"
    table = rich.table.Table("library", "M/s", "ms a call", "numbel / it", title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for library, rate in rates.items():
        ratio = f"{bench.ratio(rates, library):.3g}" if "numbel" in rates and library != "numbel" else ""
        table.add_row(library, f"{rate.per_second / 1e6:,.1f}", f"{rate.seconds * 1e3:,.3f}", ratio)
    rich.console.Console().print(table)
