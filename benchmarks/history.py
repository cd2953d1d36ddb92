"""Measure commits side by side on this machine, and keep every sample in `benchmarks/results/history`.

python -m benchmarks.history amd-zen4-2-cores                  # 20 commits over the whole history, five rounds
python -m benchmarks.history amd-zen4-2-cores main~3 main      # these
python -m benchmarks.history amd-zen4-2-cores --since main~50  # 20 of these

Each round measures every commit once, in a process of its own, so that what disturbs the machine for a while disturbs
all of them. Every sample is kept at once: stop whenever you like. Samples are compared within one session only, so each
session also measures the newest commit that an earlier one did.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from .gate.progress import Progress, processor
from .gate.sides import digest, export
from .suite import start
from .suite.common import ABSENT, ROOT, bench, one_of_each, seconds
from .suite.memory import FRESH, beyond

KEPT = ROOT / "benchmarks" / "results" / "history"
#: What users look at: each kind of kernel, long rows, vocabularies, short rows, and what one call costs.
TEN = (
    "categorical 64 x 2^20 float32",
    "categorical 65536 x 128 float32",
    "categorical 2^20 x 8 float32",
    "sample 1 x 1000 float32",
    "gumbel_max 64 x 2^20 float32",
    "gumbel 65536 x 128 float32",
    "gumbel_softmax 65536 x 128 float32",
    "gumbel_softmax and gradient 65536 x 128 float32",
    "top_k 256 x 2^17 float32",
    "top_p 256 x 2^17 float32",
)
#: What the newest commit is measured in.
EVERY = one_of_each(TEN)
#: First calls of each commit; of the newest one, those of every method.
FIRST = ("categorical", "gumbel_softmax", "top_k")
#: Measurements of a work in one process, and seconds that each takes at least. Their median is one sample.
_BURSTS, _SHORTEST = 7, 0.02


class Step(NamedTuple):
    """One process: a kind of figure of a commit, of these works or methods."""

    kind: str
    round: int
    commit: str
    names: tuple[str, ...]

    @property
    def compiles(self) -> bool:
        """Whether it finds no machine code on disk."""
        return self.kind == "time" and self.round == 1


def time_of(work: str) -> float:
    """Nanoseconds of a value: the median of some measurements in this process."""
    case = bench.GRID[work]["numbel"](bench.FULL)
    case.call()
    calls = max(1, round(_SHORTEST / max(seconds(case.call), 1e-7)))
    return 1e9 * statistics.median(seconds(case.call, calls) for _ in range(_BURSTS)) / float(case.items)


def _answer() -> None:
    """In a process of one commit: a line for each name on standard input, and none for what it cannot do."""
    kind, names = json.load(sys.stdin)
    for name in names:
        try:
            value = time_of(name) if kind == "time" else beyond(name)
        except (*ABSENT, NotImplementedError, TypeError) as error:
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(json.dumps([name, float(f"{value:.5g}")]), flush=True)


def measured(step: Step, folder: Path, cache: Path) -> dict[str, float]:
    """One sample of each name, of the package in `folder`."""
    if step.kind == "compile":
        found = {}
        for method in step.names:
            try:
                found[method] = float(f"{start.first_call(method, NUMBEL_CACHE='0', PYTHONPATH=str(folder)):.5g}")
            except NotImplementedError:  # a method that this commit lacks
                continue
        return found
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "NUMBA_CACHE_DIR": str(cache / digest(folder)),
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.history import _answer; _answer()"],
        input=json.dumps([step.kind, step.names]),
        env=environment | (FRESH if step.kind == "memory" else {}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(f"{folder.name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return dict(map(json.loads, done.stdout.splitlines()))


def environment() -> dict[str, str]:
    """What a session ran on, and nothing that tells one machine from another of its kind."""
    versions = {name: metadata.version(name) for name in ("numba", "llvmlite", "numpy")}
    return {"cpu": processor(), "cores": str(os.cpu_count()), "python": sys.version.split()[0], **versions}


def keep(path: Path, commit: str, session: str, kind: str, found: dict[str, float]) -> None:
    """Add samples to a commit's file."""
    report: dict[str, Any] = {"commit": commit, "sessions": {}, "figures": {}}
    if path.exists():
        report = json.loads(path.read_text())
    report["sessions"][session] = environment()
    figures = report["figures"].setdefault(kind, {})
    for name, value in found.items():
        figures.setdefault(name, {}).setdefault(session, []).append(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def git(*arguments: str) -> list[str]:
    """Lines of git's answer."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def spread(commits: list[str], count: int) -> list[str]:
    """So many of them, evenly spaced, the first and the last included."""
    if len(commits) <= count:
        return commits
    return [commits[round(i * (len(commits) - 1) / max(1, count - 1))] for i in range(count)]


def chosen(folder: Path, revisions: list[str], count: int, since: str = "") -> list[str]:
    """The commits to measure, newest first: those that are named, or a spread; and the newest that is kept."""
    history = git("rev-list", "HEAD")
    wanted = {git("rev-parse", "--verify", f"{one}^{{commit}}")[0] for one in revisions}
    if not revisions:
        # from the first on that has what users call
        first = git("log", "--diff-filter=A", "--format=%H", "--", "src/numbel/generator.py")[-1]
        wanted = set(spread(git("rev-list", "--first-parent", f"{since or first}..HEAD", "--", "src/numbel"), count))
    kept = {json.loads(path.read_text())["commit"] for path in folder.glob("*.json")}
    wanted |= {next((one for one in history if one in kept), "")} - {""}
    return sorted(wanted, key=lambda one: history.index(one) if one in history else -1)


def plan(commits: list[str], rounds: int) -> list[Step]:
    """All steps, times first; each round takes the commits in turn, so that a drift helps neither old nor new ones."""
    kinds: dict[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
        "time": (rounds, TEN, EVERY),
        "memory": (1, TEN, EVERY),
        "compile": (min(rounds, 3), FIRST, tuple(start.FIRST)),
    }
    return [
        Step(kind, i + 1, commit, newest if commit == commits[0] else others)
        for kind, (count, others, newest) in kinds.items()
        for i in range(count)
        for commit in (commits if i % 2 == 0 else reversed(commits))
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure round by round until all is done or somebody interrupts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("machine", help="its name, such as amd-zen4-2-cores")
    parser.add_argument("revisions", nargs="*", help="commits; without, some that changed the library, evenly spaced")
    parser.add_argument("--count", type=int, default=20, help="how many commits where none is named: 20")
    parser.add_argument("--since", default="", help="of the commits after this one, where none is named")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each commit: 5")
    options = parser.parse_args(arguments)
    folder = KEPT / options.machine
    commits = chosen(folder, options.revisions, options.count, options.since)
    session = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ")
    steps = plan(commits, options.rounds)
    # seconds of one name; the first round compiles
    guess = {"time": 1.5, "memory": 1.5, "compile": 4.0}
    progress = Progress([len(step.names) * (5 if step.compiles else guess[step.kind]) for step in steps])
    with tempfile.TemporaryDirectory(prefix="numbel-history-") as place:
        try:
            for step in steps:
                source = Path(place) / step.commit
                if not source.exists():
                    export(step.commit, source)
                began = time.perf_counter()
                found = measured(step, source, Path(place) / "cache")
                keep(folder / f"{step.commit[:8]}.json", step.commit, session, step.kind, found)
                took = time.perf_counter() - began
                progress.done(f"{step.kind}, round {step.round}, {step.commit[:8]}: {len(found)} figures, {took:.0f} s")
        except KeyboardInterrupt:
            print("stopped; what was measured is kept", file=sys.stderr)
    print(f"{len(commits)} commits in {folder.relative_to(ROOT)}; python -m benchmarks.dashboard -o site shows them")


if __name__ == "__main__":
    main()
