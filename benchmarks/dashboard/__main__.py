"""Build the dashboard: a folder of pages that needs no network.

python -m benchmarks.dashboard -o site && python -m http.server -d site
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import vl_convert

from ..suite.common import bench
from . import changes, charts, data

_HERE = Path(__file__).parent


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


def _anchor(machine: str, what: str) -> str:
    """What names a chart in the address of its page."""
    return re.sub(r"[^a-z0-9]+", "-", f"{machine} {what}".lower()).strip("-")


def _histories(one: changes.Benchmark, shown: list[data.Commit]) -> list[dict[str, Any]]:
    """The charts of a benchmark: one for each machine and set of parameters."""
    commits = {commit.hash: commit for commit in shown}
    found = []
    rows_of = changes.series(one, list(commits))
    # the longest history first
    for (machine, parameters), values in sorted(rows_of.items(), key=lambda each: (-len(each[1]), each[0])):
        what = one.what(parameters)
        rows = [
            {
                "at": f"{commit.day[5:]} {commit.short}",
                "commit": commit.short,
                "day": commit.day,
                "hash": commit.hash,
                "page": f"../commits/{commit.hash}.html",
                "subject": commit.subject,
                "value": value.value,
                "samples": [x for each in value.samples.values() for x in each],
                "low": band.low,
                "level": band.middle,
                "high": band.high,
            }
            for value, band in zip(values, changes.bands(one, values), strict=True)
            for commit in [commits[value.commit]]
        ]
        caption = f"{what}, {machine}" if what else machine
        spec = charts.history(f"{one.label}: {caption}", one.unit, rows)
        found.append({"id": _anchor(machine, what), "caption": caption, "rows": rows, "spec": spec})
    return found


def _by_subject(found: list[changes.Change]) -> list[tuple[str, list[changes.Change]]]:
    return [(subject, list(group)) for subject, group in itertools.groupby(found, lambda each: each.subject)]


def _verdict(known: list[changes.Benchmark], order: list[str], *sides: list[changes.Change]) -> dict[str, Any]:
    """How many figures of each subject got worse and better; None where no two commits were measured."""
    measured = {one.subject for one in known if any(len(each) > 1 for each in changes.series(one, order).values())}
    return {
        subject: tuple(sum(each.subject == subject for each in found) for found in sides)
        if subject in measured
        else (None, None)
        for subject in changes.ORDER
    }


def build(out: Path, tests: list[Path] | None = None) -> None:
    """Write the whole site into `out`; `tests` are pytest's reports of the suite."""
    out = out.resolve()  # asv runs in a folder of its own
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="numbel-dashboard-") as folder:
        results = data.merge(Path(folder) / "results")
        data.publish(results, out / "asv", Path(folder))
        known = data.benchmarks(results)
    known += data.history()
    shown = data.commits({value.commit for one in known for value in one.values})
    commits = {commit.hash: commit for commit in shown}
    order = list(commits)
    for one in known:
        one.values[:] = [value for value in one.values if value.commit in commits]
    known = [one for one in known if one.values]
    worse, better = changes.changes(known, order)

    machines = data.cells_of_asv(known, order)
    reports = data.reports()
    for name, report in reports.items():
        machines[name] = data.cells(report) | machines.get(name, {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "rate": _rate, "tojson": _json, "power": bench.shape_map.power}
    environment.globals |= {"commits": commits, "benchmarks": {one.name: one for one in known}}
    environment.globals |= {"suspects": data.suspects, "anchor": _anchor}
    environment.globals |= {"shape_map": bench.shape_map, "warmth": _warmth}

    def write(path: str, template: str, **values: Any) -> None:
        depth = path.count("/")
        page = environment.get_template(template).render(root="../" * depth, **values)
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(page, encoding="utf-8")

    maps = data.maps()
    write(
        "index.html",
        "index.html",
        verdict=_verdict(known, order, worse, better),
        worse=_by_subject(worse),
        better=_by_subject(better),
        measured_by={name: (commits[one], data.unmeasured(one)) for name, one in data.newest(known, order).items()},
        slower={name: bench.shape_map.lists(one.cells) for name, one in maps.items()},
        known=known,
        shown=shown,
    )
    write("compare.html", "compare.html", comparison=data.comparison(known, shown))
    write("map.html", "map.html", maps=maps)
    write(
        "limits.html",
        "limits.html",
        tables={
            name: _table(cells) for name, cells in sorted(machines.items(), key=lambda one: (-len(one[1]), one[0]))
        },
        rooflines={
            name: charts.roofline(*found)
            for name, report in reports.items()
            if (found := data.roofline(report))[1] and len(found[0]) > 1
        },
        gpus=data.gpus(),
        first_calls=data.first_calls(known, order),
        suites=data.suites(tests or []),
        known=known,
    )
    write(
        "peers.html",
        "peers.html",
        peers={
            name: {work: (rows, charts.peers(work, rows)) for work, rows in data.peers(report).items()}
            for name, report in reports.items()
        },
        configs={name: report["config"] for name, report in reports.items()},
    )
    for one in known:
        own = [each for each in worse + better if each.benchmark == one.name]
        write(one.page, "benchmark.html", one=one, histories=_histories(one, shown), changes=own)
    for i, commit in enumerate(shown):
        own = [each for each in worse + better if each.commit == commit.hash]
        before = shown[i - 1] if i else None
        write(f"commits/{commit.hash}.html", "commit.html", commit=commit, before=before, changes=own)
    assets = out / "assets"
    assets.mkdir(exist_ok=True)
    (assets / "vega.js").write_text(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"), encoding="utf-8")
    for name in ("dashboard.css", "charts.js", "compare.js"):
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
