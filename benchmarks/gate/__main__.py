"""Compare two versions and fail on a regression.

python -m benchmarks.gate main .              # a revision, or the folder of a checkout
python -m benchmarks.gate HEAD~1 HEAD --fast  # some two minutes
python -m benchmarks.gate main . --work "gumbel_max"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ..suite import start
from ..suite.common import ROOT, bench
from ..suite.memory import FRESH
from . import rule
from .sides import digest, export

#: What stands for the rest where time is short: a kernel of each kind, and what a call costs.
FAST = (
    "categorical 64 x 2^20 float32",
    "categorical 2^20 x 8 float32",
    "gumbel_max 64 x 2^20 float32",
    "gumbel_softmax 65536 x 128 float32",
    "gumbel 65536 x 128 float32",
    "sample 1 x 1000 float32",
    "gumbel_softmax 1 x 1000 float32",
)
FAST_FIGURES = {
    "memory": ["categorical 64 x 2^20 float32", "categorical 2^20 x 8 float32", "gumbel_softmax 64 x 2^20 float32"],
    "code": ["categorical 64 x 2^20 float32"],
    "values": 1 << 28,
}
_THREADED = ("categorical 64 x 2^20 float32", "gumbel 65536 x 128 float32")
Timed = tuple[str, int]


class Row(NamedTuple):
    """One line of the table."""

    what: str
    base: str
    head: str
    change: str
    verdict: str


def _process(module: str, request: dict[str, Any], path: str = "", **environment: str) -> str:
    """Answer of a process of ours, run where this checkout's `benchmarks` is."""
    paths = os.pathsep.join(filter(None, [path, str(ROOT)]))
    environment = {"PYTHONPATH": paths, "OMP_WAIT_POLICY": "passive", **environment}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.gate.{module}"],
        input=json.dumps(request),
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"benchmarks.gate.{module} failed:\n{done.stderr}")
    return done.stdout


def timed(works: list[str]) -> list[Timed]:
    """Works on one thread, which is disturbed least; and what starting two costs, in a few of them."""
    return [(work, 1) for work in works] + [(work, 2) for work in works if work in _THREADED]


def time_rows(folders: tuple[Path, Path], cache: Path, works: list[Timed], budget: float) -> list[Row]:
    """Time every work; those that look slower again in another process, which loads head first."""

    def run(chosen: list[Timed], swapped: bool) -> dict[Timed, Any]:
        request = {"works": chosen, "cache": str(cache), "swapped": swapped, "budget": budget}
        request |= {"base": str(folders[0]), "head": str(folders[1])}
        lines = map(json.loads, _process("timing", request, str(folders[0])).splitlines())
        return {(line["work"], line["threads"]): line for line in lines}

    first = run(works, False)
    found = {work: rule.interval(line["base"], line["head"]) for work, line in first.items() if "base" in line}
    suspects = [work for work, interval in found.items() if rule.slower(interval)]
    second = run(suspects, True) if suspects else {}
    rows = []
    for work, line in first.items():
        if "absent" in line:
            rows.append(Row(work[0], "", "", "", f"not in {line['absent']}"))
            continue
        times, interval, verdict = line, found[work], ""
        if work in second:
            times = second[work]
            again = rule.interval(times["base"], times["head"])
            verdict = "SLOWER" if rule.slower(again) else "not slower in a second process"
            interval = min(interval, again, key=lambda one: one.median)
        elif interval.high < 1 / rule.SLOWER:
            verdict = "faster"
        elif not rule.decided(interval):
            verdict = "undecided: too noisy"
        base, head = (sorted(times[side])[len(times[side]) // 2] * 1e3 for side in ("base", "head"))
        change = f"x {interval.median:.3f} ({interval.low:.3f} .. {interval.high:.3f})"
        name = f"time of {work[0]}, {work[1]} thread{'s' if work[1] > 1 else ''}, ms"
        rows.append(Row(name, f"{base:.4g}", f"{head:.4g}", change, verdict))
    return rows


def figure_rows(folders: tuple[Path, Path], cache: Path, request: dict[str, Any]) -> list[Row]:
    """Memory, accuracy and machine code of either version, each in a process of its own."""
    answers = []
    for folder in folders:
        own = str(cache / f"numbel-{digest(folder)}")
        answers.append(json.loads(_process("figures", request, str(folder), NUMBA_CACHE_DIR=own, **FRESH)))
    base, head = answers
    rows = []

    def compare(kind: str, title: str, worse: Any, unit: str, text: Any = "{:.3f}".format) -> None:
        for name, old in base[kind].items():
            new = head[kind].get(name)
            if new is None:
                rows.append(Row(f"{title} {name}", text(old), "", "", "GONE"))
            elif (bad := worse(old, new)) or old != new:
                rows.append(Row(f"{title} {name}, {unit}", text(old), text(new), "", "WORSE" if bad else ""))

    compare("memory", "memory beyond inputs and outputs of", rule.more_memory, "MiB")
    compare("error", "largest error of", rule.less_accurate, "ulp")
    compare("tail", "noise", rule.tail_lost, "values (due)", lambda one: f"{one[0]} ({one[1]:.0f})")
    for work, kernels in base["code"].items():
        for name, old in kernels.items():
            new = head["code"].get(work, {}).get(name)
            if new is not None and new != old:
                was, now = (f"{one['vector_instructions']} of {one['instructions']}" for one in (old, new))
                rows.append(Row(f"vector instructions of {name}", was, now, "", "told, never an alarm"))
    return rows


def first_rows(folders: tuple[Path, Path]) -> list[Row]:
    """First calls of every method in fresh processes that compile, the versions in turn; the least of three."""
    rows = []
    for method in start.FIRST:
        seconds: list[list[float]] = [[], []]
        for _ in range(3):
            for taken, folder in zip(seconds, folders, strict=True):
                taken.append(start.first_call(method, NUMBEL_CACHE="0", PYTHONPATH=str(folder)))
        base, head = map(min, seconds)
        verdict = "WORSE" if rule.slower_start(base, head) else "same"
        rows.append(Row(f"first call of {method}, s", f"{base:.2f}", f"{head:.2f}", f"x {head / base:.2f}", verdict))
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    rule_off = Row("---", "---", "---", "---", "---")
    lines = [Row("what", "base", "head", "head / base", "verdict"), rule_off, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def alarms(rows: list[Row]) -> list[Row]:
    """The rows that fail the gate: their verdict is in capitals."""
    return [row for row in rows if row.verdict.isupper()]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something got worse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("base", help="a revision, or the folder of a checkout")
    parser.add_argument("head", help="the same")
    parser.add_argument("--fast", action="store_true", help="a kernel of each kind: some two minutes")
    parser.add_argument("--work", action="append", help="regular expression on names of works; the rest is left out")
    parser.add_argument("--no-time", action="store_true", help="memory, accuracy and machine code alone")
    parser.add_argument("--no-figures", action="store_true", help="times alone")
    parser.add_argument("--allow", action="append", default=[], help="regular expression on what may get worse")
    parser.add_argument("--cache", type=Path, help="where machine code of versions is kept from one run to the next")
    options = parser.parse_args(arguments)
    works = list(FAST) if options.fast else [work for work in bench.GRID if work.endswith("float32")]
    if options.work:
        works = [work for work in bench.GRID if any(re.search(part, work) for part in options.work)]
    with tempfile.TemporaryDirectory(prefix="numbel-gate-") as folder:
        place = Path(folder)
        folders = export(options.base, place / "base"), export(options.head, place / "head")
        cache = options.cache or place / "cache"
        rows: list[Row] = []
        if not options.no_time:
            rows += time_rows(folders, cache, timed(works), 8.0 if options.fast else 20.0)
        if not options.no_figures:
            large = [work for work in works if " 1 x " not in work]
            request = FAST_FIGURES if options.fast else {"memory": large, "code": works, "values": 1 << 30}
            rows += figure_rows(folders, cache, request)
        if not (options.fast or options.no_time):
            rows += first_rows(folders)
    print(table(rows))
    failed = [row for row in alarms(rows) if not any(re.search(part, row.what) for part in options.allow)]
    print(f"\n{len(failed)} regressions: {'; '.join(row.what for row in failed)}" if failed else "\nno regression")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
