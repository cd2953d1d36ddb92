"""What the pages show, read from results: those of asv, and the reports of `numbel bench --json`."""

from __future__ import annotations

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

from ..gate import rule
from ..suite.common import LESS_IS_BETTER, LIMITS, ROOT, is_peer

RESULTS = ROOT / "benchmarks" / "results"
LOCAL = ROOT / ".asv" / "results"
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


class Value(NamedTuple):
    """A figure of one benchmark, with its parameters, at a commit on a machine."""

    machine: str
    commit: str
    parameters: tuple[str, ...]
    value: float


class Benchmark(NamedTuple):
    """An asv benchmark and all that is known of it."""

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
        return self.name.rpartition(".")[2].partition("_")[2].replace("_", " ")


class Cell(NamedTuple):
    """A work on a machine: values a second, the fraction of what bounds it, and the bound."""

    per_second: float
    fraction: float | None
    limit: str
    source: str


class Regression(NamedTuple):
    """A step up that asv found: in `commit`, or in one of those after `since`, which were not measured, up to it."""

    benchmark: str
    what: str
    since: str
    commit: str
    before: float
    after: float

    @property
    def times(self) -> float:
        """How many times the figure became what it was; infinite where it was nothing."""
        return self.after / self.before if self.before else math.inf

    @property
    def suspects(self) -> str:
        """How many commits it may have come with; "" where it is the one."""
        if not self.since:
            return ""
        return _git("rev-list", "--count", f"{self.since}..{self.commit}") or "unknown"


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
    return sorted(found, key=lambda commit: commit.date)


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


def regressions(html: Path) -> list[Regression]:
    """What asv found, worst first; memory must grow by what the gate asks for, or a page more would be one."""
    index = json.loads((html / "index.json").read_text())
    revisions = index["revision_to_hash"]
    found = []
    for name, _, _, _, _, _, jumps in (
        (entry + [None] * 7)[:7] for entry in json.loads((html / "regressions.json").read_text())["regressions"]
    ):
        benchmark, _, what = name.partition("(")
        for last_before, revision, before, after in jumps or []:
            if benchmark.startswith("memory.") and after - before <= rule.SLACK * 2**20:
                continue
            since = "" if last_before is None else revisions[str(last_before)]
            found.append(Regression(benchmark, what.rstrip(")"), since, revisions[str(revision)], before, after))
    return sorted(found, key=lambda one: -one.times)


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


#: What figures are of, in the order in which people ask; the first part of a benchmark's name tells.
SUBJECTS = {"speed": "time", "memory": "memory", "start": "compile time", "accuracy": "accuracy", "code": "code counts"}
#: A step is beyond doubt from this many times the scatter on, and told from this many on, if it is as large as this.
_SURE, _TOLD, _STEP = 6.0, 3.0, math.log(1.05)
#: Least scatter of a figure: a percent of a time, which no machine repeats better.
_LEAST = {"time": 0.01, "compile time": 0.01}


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
    scatters: float

    @property
    def times(self) -> float:
        """How many times the figure became what it was."""
        return self.after / self.before if self.before else math.inf

    @property
    def sure(self) -> str:
        """How sure a reader can be."""
        if math.isinf(self.scatters):
            return "beyond doubt: it never moved before"
        return f"{'beyond doubt' if self.scatters >= _SURE else 'likely'}: {self.scatters:.0f} times the usual scatter"

    @property
    def suspects(self) -> str:
        """How many commits it may have come with."""
        return _git("rev-list", "--count", f"{self.since}..{self.commit}") or "unknown"


def changes(known: list[Benchmark], order: list[str]) -> tuple[list[Change], list[Change]]:
    """What got worse and what got better, times first, the largest step first."""
    found: list[Change] = []
    for one in known:
        subject = SUBJECTS.get(one.name.partition(".")[0])
        if subject is None:
            continue
        series: dict[tuple[str, tuple[str, ...]], list[Value]] = {}
        for value in sorted(one.values, key=lambda each: order.index(each.commit)):
            series.setdefault((value.machine, value.parameters), []).append(value)
        steps: dict[str, list[float]] = {}
        for (machine, _), values in series.items():
            pairs = itertools.pairwise(values)
            steps.setdefault(machine, []).extend(abs(_log(b.value, a.value)) for a, b in pairs)
        for (machine, parameters), values in series.items():
            # half of a figure's steps are smaller than this; most commits change nothing, so that it is scatter
            scatter = max(statistics.median(steps[machine] or [0.0]), _LEAST.get(subject, 0.0))
            for i, (a, b) in enumerate(itertools.pairwise(values)):
                step = _log(b.value, a.value)
                half = abs(step) / 2
                kept = all(_log(later.value, a.value) * step > 0 for later in values[i + 1 :])
                kept &= all(abs(_log(later.value, a.value)) >= half for later in values[i + 1 :])
                # better only than what had just got worse
                returns = step < 0 and any(abs(_log(earlier.value, b.value)) < half for earlier in values[:i])
                scatters = abs(step) / scatter if scatter else math.inf
                slack = subject == "memory" and abs(b.value - a.value) <= rule.SLACK * 2**20
                if abs(step) > _STEP and scatters > _TOLD and kept and not returns and not slack:
                    what = ", ".join(parameters)
                    at = (machine, a.commit, b.commit, a.value, b.value)
                    found.append(Change(subject, one.name, what, *at, scatters))
    subjects = list(SUBJECTS.values())
    found.sort(key=lambda each: (subjects.index(each.subject), -abs(_log(each.after, each.before))))
    return [each for each in found if each.times > 1], [each for each in found if each.times < 1]


def _log(after: float, before: float) -> float:
    """Of their ratio; infinite where one is nothing."""
    if after == before:
        return 0.0
    return math.log(after / before) if after > 0 and before > 0 else math.copysign(math.inf, after - before)


def unmeasured(commit: str) -> int:
    """Commits since one that changed the library."""
    return int(_git("rev-list", "--count", f"{commit}..HEAD", "--", "src/numbel") or 0)


def newest(known: list[Benchmark], order: list[str]) -> dict[str, str]:
    """The newest commit that each machine measured."""
    found: dict[str, str] = {}
    for value in sorted((value for one in known for value in one.values), key=lambda each: order.index(each.commit)):
        found[value.machine] = value.commit
    return found


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
