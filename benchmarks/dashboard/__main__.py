"""Build the dashboard: a folder of pages that needs no network.

python -m benchmarks.dashboard -o site && python -m http.server -d site
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import vl_convert

from ..suite.common import bench
from . import charts, data

_HERE = Path(__file__).parent
#: A line for each set of parameters is read up to this many; more go into charts of their own by the last parameter.
_LINES = 9


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _rate(value: float) -> str:
    """Values a second in words that people compare."""
    return (
        f"{value / 1e9:.2f} G/s"
        if value >= 1e9
        else f"{value / 1e6:.0f} M/s"
        if value >= 1e7
        else f"{value / 1e6:.1f} M/s"
    )


def _warmth(ratio: float) -> int:
    """Percent of a colour scale that is half way at 1 and at its ends at a quarter and at four times."""
    return round(min(100, max(0, 50 + 25 * math.log2(ratio))))


def _table(cells: dict[str, data.Cell]) -> dict[str, Any]:
    """The heat table: a row for each task and dtype, a column for each size."""
    rows: dict[tuple[str, str], dict[str, data.Cell]] = {}
    for work, cell in cells.items():
        task, size, dtype = data.parts(work)
        rows.setdefault((task, dtype), {})[size] = cell
    order = [data.parts(work)[1] for work in bench.GRID]
    sizes = sorted(
        {size for row in rows.values() for size in row}, key=lambda size: (size not in order, order.index(size))
    )
    tasks = [data.parts(work)[::2] for work in bench.GRID]
    keys = sorted(rows, key=lambda key: tasks.index(key) if key in tasks else len(tasks))
    return {"sizes": sizes, "rows": [(*key, [rows[key].get(size) for size in sizes]) for key in keys]}


def _histories(one: data.Benchmark, shown: list[data.Commit]) -> list[dict[str, Any]]:
    """The charts of a benchmark: one for each machine and, where there are many lines, each first word."""
    subjects = {commit.hash: commit for commit in shown}
    order = [commit.short for commit in shown]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    sets = {value.parameters for value in one.values}
    for value in sorted(one.values, key=lambda each: each.parameters):
        if value.commit not in subjects:
            continue
        commit = subjects[value.commit]
        head = value.parameters[0] if value.parameters else ""
        group = data.parts(head)[0] if len(sets) > _LINES else ""
        groups.setdefault((value.machine, group), []).append(
            {
                "commit": commit.short,
                "hash": commit.hash,
                "subject": commit.subject,
                "parameters": ", ".join(value.parameters) or one.label,
                "value": value.value,
            }
        )
    return [
        {"machine": machine, "group": group, "rows": rows, "spec": charts.history(one.label, one.unit, rows, order)}
        for (machine, group), rows in groups.items()
    ]


def build(out: Path, tests: list[Path] | None = None) -> None:
    """Write the whole site into `out`; `tests` are pytest's reports of the suite."""
    out = out.resolve()  # asv runs in a folder of its own
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="numbel-dashboard-") as folder:
        results = data.merge(Path(folder) / "results")
        data.publish(results, out / "asv", Path(folder))
        known = data.benchmarks(results)
    regressions = data.regressions(out / "asv")
    measured = {value.commit for one in known for value in one.values}
    shown = data.commits(measured | {one.commit for one in regressions})
    commits = {commit.hash: commit for commit in shown}
    order = [commit.hash for commit in shown]
    for one in known:
        one.values[:] = [value for value in one.values if value.commit in commits]
    known = [one for one in known if one.values]

    machines = data.cells_of_asv(known, order)
    reports = data.reports()
    for name, report in reports.items():
        machines[name] = data.cells(report) | machines.get(name, {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "rate": _rate, "tojson": _json, "power": bench.shape_map.power}
    environment.globals |= {"commits": commits, "benchmarks": {one.name: one for one in known}}

    environment.globals |= {"shape_map": bench.shape_map, "warmth": _warmth}

    def write(path: str, template: str, **values: Any) -> None:
        depth = path.count("/")
        page = environment.get_template(template).render(root="../" * depth, **values)
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(page, encoding="utf-8")

    maps = data.maps()
    worse, better = data.changes(known, order)
    measured_by = {machine: (commits[one], data.unmeasured(one)) for machine, one in data.newest(known, order).items()}
    write(
        "index.html",
        "index.html",
        worse=worse,
        better=better,
        measured_by=measured_by,
        slower={name: bench.shape_map.lists(one.cells) for name, one in maps.items()},
        newest=shown[-1],
        tables={
            name: _table(cells) for name, cells in sorted(machines.items(), key=lambda one: (-len(one[1]), one[0]))
        },
        peers={
            name: {work: (rows, charts.peers(work, rows)) for work, rows in data.peers(report).items()}
            for name, report in reports.items()
        },
        rooflines={
            name: charts.roofline(*found)
            for name, report in reports.items()
            if (found := data.roofline(report))[1] and len(found[0]) > 1
        },
        configs={name: report["config"] for name, report in reports.items()},
        regressions=regressions,
        gpus=data.gpus(),
        first_calls=data.first_calls(known, order),
        suites=data.suites(tests or []),
        known=known,
        shown=shown,
    )
    write("map.html", "map.html", maps=maps)
    for one in known:
        steps = [each for each in regressions if each.benchmark == one.name]
        write(one.page, "benchmark.html", one=one, histories=_histories(one, shown), regressions=steps)
    for commit in shown:
        steps = [each for each in regressions if each.commit == commit.hash]
        write(f"commits/{commit.hash}.html", "commit.html", commit=commit, regressions=steps)
    assets = out / "assets"
    assets.mkdir(exist_ok=True)
    (assets / "vega.js").write_text(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"), encoding="utf-8")
    for name in ("dashboard.css", "dashboard.js"):
        shutil.copy(_HERE / name, assets)


def _json(spec: Any) -> markupsafe.Markup:
    """JSON that a script element holds safely."""
    return markupsafe.Markup(json.dumps(spec).replace("<", "\\u003c"))


def main() -> None:
    """Build into the folder that is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("site"), help="folder of the pages")
    parser.add_argument("--tests", type=Path, nargs="*", help="pytest's reports of the suite (--junitxml), a part each")
    options = parser.parse_args()
    for report in options.tests or []:
        if not report.is_file():
            parser.error(f"there is no report {report}: python -m pytest --junitxml={report} makes one")
    out = options.out
    build(out, options.tests)
    print(f"{out / 'index.html'}; to read it: python -m http.server -d {out}")


if __name__ == "__main__":
    main()
