"""What the pages show, read from results: those of asv, and the reports of `numbel bench --json`."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ..suite.common import LESS_IS_BETTER, LIMITS, ROOT, is_peer
from .changes import OF_TWO, ORDER, Benchmark, Value

RESULTS = ROOT / "benchmarks" / "results"
LOCAL = ROOT / ".asv" / "results"
#: Where kernels and what compiles them lie.
KERNELS = [
    f"src/numbel/{name}"
    for name in ("_cpu", "_scalar", "_cuda", "_algorithms", "_jit.py", "_machine_code", "_compiler.py")
]
#: Arrays of the logits' size that a task reads or writes once; 1 where it is not named.
_PASSES = {"gumbel_softmax": 2, "conditional_gumbel": 3, "gumbel_softmax and gradient": 5}
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


class Commit(NamedTuple):
    """A commit that was measured."""

    hash: str
    date: str
    subject: str
    files: str

    @property
    def short(self) -> str:
        """What a person reads."""
        return self.hash[:8]

    @property
    def day(self) -> str:
        """When it was made."""
        return self.date[:10]


class Suspects(NamedTuple):
    """The commits that a change may have come with: how many, and those that touch kernels, as (hash, subject)."""

    total: int
    kernels: list[tuple[str, str]]


class Cell(NamedTuple):
    """A work on a machine: values a second, the fraction of what bounds it, and the bound."""

    per_second: float
    fraction: float | None
    limit: str
    source: str


def merge(target: Path) -> Path:
    """Committed results, and local ones over them, as one results folder of asv."""
    for source in (RESULTS / "asv", LOCAL):
        if source.exists():
            shutil.copytree(source, target, dirs_exist_ok=True)
    if not (target / "benchmarks.json").exists():
        raise SystemExit("there are no results of asv yet: run `asv run`, or see benchmarks/README.md")
    # asv's pages ask for the graph of every benchmark that is known, measured or not
    path = target / "benchmarks.json"
    measured = {one.name for one in benchmarks(target)}
    known = json.loads(path.read_text())
    path.write_text(json.dumps({name: about for name, about in known.items() if name in measured or name == "version"}))
    return target


def publish(results: Path, html: Path, work: Path) -> None:
    """Have asv publish results, with pages that need no network."""
    config = json.loads((ROOT / "asv.conf.json").read_text())
    config |= {"repo": str(ROOT), "results_dir": str(results), "html_dir": str(html), "env_dir": str(work / "env")}
    config["benchmark_dir"] = str(ROOT / config["benchmark_dir"])
    config["branches"] = [_branch(config["branches"][0])]
    path = work / "asv.conf.json"
    path.write_text(json.dumps(config))
    for command in (["asv", "publish", "--config", str(path), "--no-pull"], ["asv_tachyon", "install", str(html)]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    # a front end that is not told takes more to be better in whatever asv tracks
    index = json.loads((html / "index.json").read_text())
    for about in index["benchmarks"].values():
        about.setdefault("less_is_better", LESS_IS_BETTER)
    (html / "index.json").write_text(json.dumps(index))
    # what asv's pages ask for beside it
    hashes = index["revision_to_hash"].values()
    subjects = {one: _git("log", "-1", "--format=%s", one) for one in hashes}
    extras = {"commits.json": {"by_hash": subjects}, "profiles.json": {"paths": {}}, "regressions-ignore.json": []}
    for name, content in extras.items():
        (html / name).write_text(json.dumps(content))


def _branch(name: str) -> str:
    """The branch whose commits the graphs follow: main, or what is checked out where main is not."""
    known = subprocess.run(["git", "rev-parse", "--verify", "-q", name], cwd=ROOT, capture_output=True)
    return name if known.returncode == 0 else "HEAD"


def commits(hashes: set[str]) -> list[Commit]:
    """What the history says of commits, oldest first; those that it lacks are left out."""
    found = []
    for one in hashes:
        text = _git("log", "-1", "--format=%H%n%cI%n%s", one)
        if text:
            full, date, subject = text.splitlines()
            found.append(Commit(full, date, subject, _git("show", "--stat=100", "--format=", one)))
    # commits of one second keep their order in the history
    history = _git("rev-list", "--topo-order", "--reverse", *(commit.hash for commit in found)).splitlines()
    order = {one: i for i, one in enumerate(history)}
    return sorted(found, key=lambda commit: (commit.date, order[commit.hash]))


@functools.cache
def suspects(since: str, commit: str) -> Suspects | None:
    """Commits after `since` up to `commit`; None where the history lacks them."""
    count = _git("rev-list", "--count", f"{since}..{commit}")
    lines = _git("log", "--no-merges", "--format=%H %s", f"{since}..{commit}", "--", *KERNELS).splitlines()
    return Suspects(int(count), [(line[:8], line[41:]) for line in lines]) if count else None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def benchmarks(results: Path) -> list[Benchmark]:
    """Every benchmark of which there is a figure."""
    known = json.loads((results / "benchmarks.json").read_text())
    found: dict[str, list[Value]] = {}
    for path in sorted(results.glob("*/*.json")):
        if path.name == "machine.json":
            continue
        run = json.loads(path.read_text())
        at = {name: i for i, name in enumerate(run["result_columns"])}
        for name, columns in run["results"].items():
            values, parameters = columns[at["result"]], columns[at["params"]]
            for parameter, value in zip(itertools.product(*parameters), values or [], strict=True):
                if isinstance(value, (int, float)) and math.isfinite(value):
                    plain = tuple(str(each).strip("'") for each in parameter)
                    found.setdefault(name, []).append(
                        Value(run["params"]["machine"], run["commit_hash"], plain, float(value))
                    )
    return [
        Benchmark(name, str(known[name].get("unit", "")), tuple(known[name]["param_names"]), values)
        for name, values in sorted(found.items())
        if name in known
    ]


#: Figures of the history: their unit here, what it is of the unit there, and what their parameter is called.
_HISTORY = {
    "time": ("ns a value", 1, "work"),
    "memory": ("bytes beyond inputs and outputs", 1 << 20, "work"),
    "compile": ("seconds of a first call", 1, "method"),
}


def history() -> list[Benchmark]:
    """What `benchmarks.history` measured: every sample, by session; a figure is their median."""
    found: dict[str, list[Value]] = {kind: [] for kind in _HISTORY}
    for path in sorted((RESULTS / "history").glob("*/*.json")):
        report = json.loads(path.read_text())
        for kind, rows in report["figures"].items():
            factor = _HISTORY[kind][1]
            for what, sessions in rows.items():
                samples = {session: tuple(factor * x for x in values) for session, values in sessions.items()}
                median = statistics.median(x for values in samples.values() for x in values)
                found[kind].append(Value(path.parent.name, report["commit"], (what,), median, samples))
    return [
        Benchmark(f"history.{kind}", unit, (parameter,), found[kind])
        for kind, (unit, _, parameter) in _HISTORY.items()
        if found[kind]
    ]


def reports() -> dict[str, dict[str, Any]]:
    """Reports of `numbel bench --json` by the name of their machine; several of one are joined."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((RESULTS / "cpu").glob("*.json")):
        report = json.loads(path.read_text())
        machine = _machine(path.stem)
        joined = found.setdefault(machine, {"config": report["config"], "time": report["time"], "works": {}})
        joined["works"] |= report["works"]
    return found


class Gpu(NamedTuple):
    """A report of `benchmarks.gpu`: the machine, and for each work its libraries, fastest first."""

    about: str
    works: dict[str, list[dict[str, Any]]]


def gpus() -> dict[str, Gpu]:
    """Reports of `benchmarks.gpu` by the name of their file, which is that of the machine."""
    found = {}
    for path in sorted((RESULTS / "gpu").glob("*.json")):
        report = json.loads(path.read_text())
        works = {}
        for work, row in report["works"].items():
            rates = [{"library": name, **rate} for name, rate in row.items() if isinstance(rate, dict) and "ms" in rate]
            if rates:
                first = rates[0]["ms"]
                works[work] = sorted((one | {"times": one["ms"] / first} for one in rates), key=lambda one: one["ms"])
        found[path.stem] = Gpu(", ".join(f"{name} {value}" for name, value in report["machine"].items()), works)
    return found


def _machine(stem: str) -> str:
    """The machine in a file's name: amd-zen3-2-cores-gumbel-softmax is of amd-zen3-2-cores."""
    before, cores, _ = stem.partition("-cores")
    return before + cores


def parts(work: str) -> tuple[str, str, str]:
    """Task, size and dtype of a work's name; a name of another form is a task."""
    match = re.fullmatch(r"(.*) (\S+ x \S+) (\S+)", work)
    return (match[1], match[2], match[3]) if match else (work, "as named", "")


def cells(report: dict[str, Any]) -> dict[str, Cell]:
    """Works of a report."""
    found = {}
    for work, row in report["works"].items():
        if "numbel" not in row:
            continue
        ours = row["numbel"]["per_second"]
        limits = [limit for limit in reversed(LIMITS) if limit in row]
        fraction = ours / row[limits[0]]["per_second"] if limits else None
        found[work] = Cell(ours, fraction, limits[0] if limits else "", f"numbel bench, {report['time'][:10]}")
    return found


def cells_of_asv(known: list[Benchmark], order: list[str]) -> dict[str, dict[str, Cell]]:
    """Works at the newest commit of each machine that asv has measured: {machine: {work: cell}}."""
    by_name = {one.name: one for one in known}
    found: dict[str, dict[str, Cell]] = {}
    if (speed := by_name.get("speed.Speed.track_time_per_category")) is None:
        return found
    newest: dict[tuple[str, str], Value] = {}
    for value in sorted(speed.values, key=lambda one: order.index(one.commit)):
        newest[value.machine, value.parameters[0]] = value
    roofline = by_name.get("speed.Roofline.track_time_over_limit")
    over: dict[tuple[str, str, str], dict[str, float]] = {}
    for value in roofline.values if roofline else []:
        over.setdefault((value.machine, value.commit, value.parameters[0]), {})[value.parameters[1]] = value.value
    for (machine, work), value in newest.items():
        limits = over.get((machine, value.commit, work), {})
        limit = next((one for one in reversed(LIMITS) if one in limits), "")
        fraction = 1 / limits[limit] if limit else None
        found.setdefault(machine, {})[work] = Cell(1e9 / value.value, fraction, limit, f"asv, {value.commit[:8]}")
    return found


def first_calls(known: list[Benchmark], order: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of each method's first call at the newest commit of each machine: {machine: {method: {kind: s}}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in known:
        if ".FirstCall." in one.name:
            kind = "cold" if "cold" in one.name else "warm"
            for value in sorted(one.values, key=lambda each: order.index(each.commit)):
                found.setdefault(value.machine, {}).setdefault(value.parameters[0], {})[kind] = value.value
    return found


def unmeasured(commit: str) -> int:
    """Commits since one that changed the library."""
    return int(_git("rev-list", "--count", f"{commit}..HEAD", "--", "src/numbel") or 0)


def newest(known: list[Benchmark], order: list[str]) -> dict[str, str]:
    """The newest commit that each machine measured."""
    found: dict[str, str] = {}
    for value in sorted((value for one in known for value in one.values), key=lambda each: order.index(each.commit)):
        found[value.machine] = value.commit
    return found


def comparison(known: list[Benchmark], shown: list[Commit]) -> dict[str, Any]:
    """What the page that compares two commits needs: every figure by commit, and the commits between them."""
    at = {commit.hash: i for i, commit in enumerate(shown)}
    figures: dict[tuple[str, str, str], dict[int, Any]] = {}
    about = {}
    for one in known:
        for value in one.values:
            key = one.name, one.what(value.parameters), value.machine
            samples = {name: [float(f"{x:.5g}") for x in each] for name, each in value.samples.items()}
            figures.setdefault(key, {})[at[value.commit]] = [float(f"{value.value:.5g}"), samples]
            about[one.name] = [one.subject, one.label, one.unit]
    between = []
    for a, b in itertools.pairwise(shown):
        found = suspects(a.hash, b.hash)
        between.append([found.total, found.kernels] if found else [0, []])
    return {
        "commits": [[commit.short, commit.day, commit.subject] for commit in shown],
        "between": between,
        "subjects": ORDER,
        "deviations": OF_TWO,
        "about": about,
        "figures": [[*key, values] for key, values in figures.items()],
    }


class Map(NamedTuple):
    """A report of `numbel bench --map`."""

    about: str
    time: str
    later: int
    cells: list[dict[str, Any]]

    @property
    def columns(self) -> list[int]:
        """Those of the tables."""
        return sorted({cell["columns"] for cell in self.cells})

    @property
    def methods(self) -> dict[str, list[tuple[int, list[dict[str, Any] | None]]]]:
        """Of each method, rows and their cells."""
        found: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
        for cell in self.cells:
            found.setdefault(cell["method"], {})[cell["rows"], cell["columns"]] = cell
        return {
            method: [
                (rows, [own.get((rows, column)) for column in self.columns]) for rows in sorted({r for r, _ in own})
            ]
            for method, own in found.items()
        }


def maps() -> dict[str, Map]:
    """Committed maps, by their machine."""
    found = {}
    for path in sorted((RESULTS / "map").glob("*.json")):
        report = json.loads(path.read_text())
        about = ", ".join(f"{name} {value}" for name, value in report["config"].items() if name != "source")
        later = int(_git("rev-list", "--count", f"--since={report['time']}", "HEAD", "--", "src/numbel") or 0)
        found[path.stem] = Map(about, report["time"], later, report["cells"])
    return found


class Suite(NamedTuple):
    """A run of a part of the tests."""

    part: str
    tests: int
    skipped: int
    seconds: float
    when: str


def suites(reports: list[Path]) -> list[Suite]:
    """What pytest's reports (`--junitxml`) say of whole runs; a part is named after its file."""
    found = []
    for path in reports:
        for run in ElementTree.parse(path).getroot().iter("testsuite"):
            tests, skipped = int(run.get("tests", 0)), int(run.get("skipped", 0))
            found.append(Suite(path.stem, tests, skipped, float(run.get("time", 0)), run.get("timestamp", "")[:10]))
    return found


def peers(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of a chart for each work that has peers: library, values a second, how many times as fast numbel is."""
    found = {}
    for work, row in report["works"].items():
        if "numbel" in row and any(is_peer(library) for library in row):
            ours = row["numbel"]["per_second"]
            rows = [
                {"library": library, "rate": rate["per_second"], "times": ours / rate["per_second"]}
                | {"whose": "somebody else's" if is_peer(library) else "ours"}
                for library, rate in row.items()
                if library not in LIMITS
            ]
            found[work] = sorted(rows, key=lambda one: -one["rate"])
    return found


def roofline(report: dict[str, Any]) -> tuple[list[dict[str, Any]], float, float]:
    """Points of a roofline plot, the bytes a second that reading reaches, and the words a second of Philox."""
    points, read, philox = [], 0.0, 0.0
    for work, row in report["works"].items():
        task, size, dtype = parts(work)
        if "read" in row:
            read = max(read, row["read"]["per_second"] * _BYTES.get(dtype, 4))
        if "philox" in row:
            philox = max(philox, row["philox"]["per_second"])
        if "numbel" in row and (task in _PASSES or any(limit in row for limit in LIMITS)):  # small calls are overhead
            moved = _BYTES.get(dtype, 4) * _PASSES.get(task, 1)
            noisy = "philox" in row
            points.append(
                {
                    "work": work,
                    "task": task,
                    "size": size,
                    "dtype": dtype,
                    "intensity": 1 / moved,
                    "rate": row["numbel"]["per_second"],
                    "bound": "Philox or memory" if noisy else "memory",
                }
            )
    return points, read, philox
