"""Compare two versions and fail on a regression.

python -m benchmarks.gate main .              # a revision, or the folder of a checkout
python -m benchmarks.gate HEAD~1 HEAD --fast  # every method, within four minutes on two cores
python -m benchmarks.gate main . --work "gumbel_max"

What cannot have changed is not measured: works of which no source differs. Both versions run on the same dependencies.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ..suite import start
from ..suite.common import ROOT, bench, one_of_each
from ..suite.memory import FRESH
from . import rule
from .progress import Progress, processor
from .sides import NAMES, RAGGED, digest, export

#: Every method where time is short: kernels of long rows, of short ones, and what a call costs.
FAST = (
    *one_of_each(
        (
            "categorical 64 x 2^20 float32",
            "categorical 2^20 x 8 float32",
            "gumbel_max 64 x 2^20 float32",
            "gumbel_softmax 65536 x 128 float32",
            "gumbel_softmax and gradient 65536 x 128 float32",
            "gumbel 65536 x 128 float32",
            "sample 1 x 1000 float32",
            "gumbel_softmax 1 x 1000 float32",
        )
    ),
    RAGGED,
)
FAST_FIGURES: dict[str, Any] = {
    "memory": ["categorical 64 x 2^20 float32", "categorical 2^20 x 8 float32", "gumbel_softmax 64 x 2^20 float32"],
    "code": [],
    "values": 1 << 28,
}
_THREADED = ("categorical 64 x 2^20 float32", "gumbel 65536 x 128 float32")
#: Seconds that the steps take by experience, on two cores that do nothing else: of a work to compile, of a work to time
#: (in the long gate), of the figures, and of a method's six first calls.
_COMPILE, _TIME, _LONG_TIME, _FIGURES, _FIRST = 3.0, 2.0, 5.0, 20.0, 20.0
#: What accuracy and tails depend on.
_NOISE = ("gumbel 65536 x 128 float32", "sample 64 x 2^20 float32")
Timed = tuple[str, int]
Report = Callable[[str], None]


class Row(NamedTuple):
    """One line of the table."""

    what: str
    base: str
    head: str
    change: str
    verdict: str


def _lines(module: str, request: dict[str, Any], **environment: str) -> Iterator[Any]:
    """Answers of a process of ours as they come, run where this checkout's `benchmarks` is."""
    path = os.pathsep.join([request.get("folder") or request["base"], str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "passive", "NUMBEL_QUIET": "1"} | environment
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.gate.{module}"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump(request, process.stdin)
        process.stdin.close()
        yield from map(json.loads, process.stdout)
        if process.wait():
            errors.seek(0)
            raise SystemExit(f"benchmarks.gate.{module} failed with {process.returncode}:\n{errors.read()}")


def _side(i: int, folder: Path, cache: Path) -> dict[str, str]:
    """What a process that loads one version is told."""
    return {"name": NAMES[i], "folder": str(folder), "cache": str(cache)}


def differing(folders: tuple[Path, Path]) -> frozenset[str]:
    """Sources of base that head has not, or has otherwise: what runs in neither version is nothing to it."""
    base, head = (folder / "numbel" for folder in folders)
    return frozenset(
        name
        for path in base.rglob("*.py")
        for name in [path.relative_to(base).as_posix()]
        if not (head / name).is_file() or (head / name).read_bytes() != path.read_bytes()
    )


def compiled(i: int, folder: Path, cache: Path, works: Sequence[str], report: Report) -> dict[str, frozenset[str]]:
    """Compile what works need of one version, in two processes, and tell the sources that each of them runs."""
    found: dict[str, frozenset[str]] = {}

    def some(part: Sequence[str]) -> None:
        for line in _lines("prepare", _side(i, folder, cache) | {"works": part}):
            if "absent" not in line:
                found[line["work"]] = frozenset(line["files"])
            report(f"compiled {('base', 'head')[i]}: {line['work']}, {line['seconds']:.1f} s")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(some, filter(None, (works[0::2], works[1::2]))))
    return found


def timed(works: list[str]) -> list[Timed]:
    """Works on one thread, which is disturbed least; and what starting two costs, in a few of them."""
    return [(work, 1) for work in works] + [(work, 2) for work in works if work in _THREADED]


def judged(interval: rule.Interval) -> str:
    """What a ratio of times says where it is no alarm."""
    if interval.high < 1 / rule.TOLERANCE:
        return "faster"
    if not rule.decided(interval):
        return "undecided: too noisy"
    return "same" if interval.low > 1 / rule.SLOWER else "not slower"


def time_rows(
    folders: tuple[Path, Path], cache: Path, works: list[Timed], budget: float, progress: Progress | None = None
) -> list[Row]:
    """Time every work; those that look slower again in another process, which loads head first."""

    def run(chosen: list[Timed], swapped: bool) -> dict[Timed, Any]:
        request = {"works": chosen, "cache": str(cache), "swapped": swapped, "budget": budget}
        request |= {"base": str(folders[0]), "head": str(folders[1])}
        found = {}
        for line in _lines("timing", request):
            found[line["work"], line["threads"]] = line
            if progress:
                progress.done(f"{'again: ' if swapped else ''}{_name(line['work'], line['threads'])}: {_change(line)}")
        return found

    first = run(works, False) if works else {}
    found = {work: rule.interval(line["base"], line["head"]) for work, line in first.items() if "base" in line}
    suspects = [work for work, interval in found.items() if rule.slower(interval)]
    if progress:
        progress.add(len(suspects), _TIME)
    second = run(suspects, True) if suspects else {}
    rows = []
    for work, line in first.items():
        if "absent" in line:
            rows.append(Row(_name(*work), "", "", "", f"not in {line['absent']}"))
            continue
        times, interval = line, found[work]
        verdict = judged(interval)
        if work in second:
            times = second[work]
            again = rule.interval(times["base"], times["head"])
            verdict = "SLOWER" if rule.slower(again) else "not slower in a second process"
            interval = min(interval, again, key=lambda one: one.median)
        base, head = (sorted(times[side])[len(times[side]) // 2] * 1e3 for side in ("base", "head"))
        rows.append(Row(f"{_name(*work)}, ms", f"{base:.4g}", f"{head:.4g}", _ratio(interval), verdict))
    return rows


def _name(work: str, threads: int) -> str:
    return f"time of {work}, {threads} thread{'s' if threads > 1 else ''}"


def _ratio(interval: rule.Interval) -> str:
    return f"x {interval.median:.3f} ({interval.low:.3f} .. {interval.high:.3f})"


def _change(line: dict[str, Any]) -> str:
    if "absent" in line:
        return f"not in {line['absent']}"
    interval = rule.interval(line["base"], line["head"])
    return f"{_ratio(interval)} {'slower' if rule.slower(interval) else judged(interval)}"


def figure_rows(folders: tuple[Path, Path], cache: Path, request: dict[str, Any]) -> list[Row]:
    """Memory, accuracy and machine code of the versions, each in a process of its own, both at a time."""

    def found(i: int) -> Any:
        (answer,) = _lines("figures", request | _side(i, folders[i], cache), **FRESH)
        return answer

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        base, head = pool.map(found, (0, 1))
    rows: list[Row] = []

    def compare(kind: str, title: str, worse: Any, unit: str, text: Any = "{:.3f}".format) -> None:
        equal = 0
        for name, old in base[kind].items():
            new = head[kind].get(name)
            if new is None:
                rows.append(Row(f"{title} {name}", text(old), "", "", "GONE"))
            elif old == new:
                equal += 1
            else:
                # memory varies by some pages; whatever else differs comes from other bits
                kept = "same" if kind == "memory" else "changed, not worse"
                verdict = "WORSE" if worse(old, new) else "better" if worse(new, old) else kept
                rows.append(Row(f"{title} {name}, {unit}", text(old), text(new), "", verdict))
        if equal:
            rows.append(Row(f"{kind}: {equal} figures", "", "", "", "same"))

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


def first_rows(folders: tuple[Path, Path], report: Report) -> list[Row]:
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
        report(f"{rows[-1].what}: {rows[-1].base}, {rows[-1].head}")
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    rule_off = Row("---", "---", "---", "---", "---")
    lines = [Row("what", "base", "head", "head / base", "verdict"), rule_off, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def alarms(rows: list[Row]) -> list[Row]:
    """The rows that fail the gate: their verdict is in capitals."""
    return [row for row in rows if row.verdict.isupper()]


def about(revision: str) -> str:
    """A version in words: its commit, or where a checkout stands."""
    folder = Path(revision) if (Path(revision) / "src" / "numbel").is_dir() else None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder or ROOT, capture_output=True, text=True).stdout.strip()

    known = git("log", "-1", "--format=%h, %cs, %s", *([] if folder else [revision]))
    edited = " and edits" if folder and git("status", "--porcelain", "--", "src/numbel") else ""
    return f"{revision}: {known}{edited}" if known else revision


def machine() -> str:
    """What the figures are of."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy"))
    return f"{processor()}, {os.cpu_count()} cores; Python {sys.version.split()[0]}, {versions}"


def measure(folders: tuple[Path, Path], cache: Path, works: list[str], options: argparse.Namespace) -> list[Row]:
    """All rows, with progress on standard error."""
    times, figures, first = not options.no_time, not options.no_figures, not (options.fast or options.no_time)
    chosen = works if times else []
    figured = (FAST_FIGURES if options.fast else _all_figures(works)) if figures else {"memory": [], "code": []}
    needed = list(dict.fromkeys([*chosen, *figured["memory"], *figured["code"], *(_NOISE if figures else ())]))
    each = _TIME if options.fast else _LONG_TIME
    later = [each] * len(timed(chosen)) + [_FIGURES] * figures + [_FIRST] * (len(start.FIRST) * first)
    progress = Progress([_COMPILE / 2] * (2 * len(needed)) + later)

    sources = compiled(0, folders[0], cache, needed, progress.done)
    differ = differing(folders)
    # what is not known to run the same sources is measured, such as a work that base lacks
    same = [work for work in needed if work in sources and not sources[work] & differ and not options.all]
    skipped = [work for work in chosen if work in same]
    chosen = [work for work in chosen if work not in same]
    figures = figures and any(work not in same for work in (*figured["memory"], *figured["code"], *_NOISE))
    left = [work for work in needed if figures or work not in same]
    progress.drop(len(needed) - len(left) + len(timed(skipped)))
    compiled(1, folders[1], cache, left, progress.done)

    rows = time_rows(folders, cache, timed(chosen), 4.0 if options.fast else 20.0, progress)
    if skipped:
        rows.append(Row(f"time of {'; '.join(skipped)}", "", "", "", "same: no source of these differs"))
    if figures:
        rows += figure_rows(folders, cache, figured)
        progress.done("memory, errors, tails")
    elif not options.no_figures:
        rows.append(Row("memory, errors, tails", "", "", "", "same: no source of them differs"))
    if first and left:
        rows += first_rows(folders, progress.done)
    elif first:
        rows.append(Row("first calls", "", "", "", "same: no source of any work differs"))
    return rows


def _all_figures(works: list[str]) -> dict[str, Any]:
    tabled = [work for work in works if work in bench.GRID]
    return {"memory": [work for work in tabled if " 1 x " not in work], "code": tabled, "values": 1 << 30}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something got worse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("base", help="a revision, or the folder of a checkout")
    parser.add_argument("head", help="the same")
    parser.add_argument("--fast", action="store_true", help="every method once: within four minutes on two cores")
    parser.add_argument("--work", action="append", help="regular expression on names of works; the rest is left out")
    parser.add_argument("--no-time", action="store_true", help="memory, accuracy and machine code alone")
    parser.add_argument("--no-figures", action="store_true", help="times alone")
    parser.add_argument("--all", action="store_true", help="measure also what cannot have changed")
    parser.add_argument("--allow", action="append", default=[], help="regular expression on what may get worse")
    parser.add_argument("--cache", type=Path, help="where machine code of versions is kept from one run to the next")
    options = parser.parse_args(arguments)
    works = list(FAST) if options.fast else [*(work for work in bench.GRID if work.endswith("float32")), RAGGED]
    if options.work:
        works = [work for work in (*bench.GRID, RAGGED) if any(re.search(part, work) for part in options.work)]
    with tempfile.TemporaryDirectory(prefix="numbel-gate-") as folder:
        place = Path(folder)
        folders = export(options.base, place / "base"), export(options.head, place / "head")
        print(f"{machine()}\nbase {about(options.base)}\nhead {about(options.head)}\n", flush=True)
        if not options.all and digest(folders[0]) == digest(folders[1]):
            rows = [Row("all works", "", "", "", "same: all sources are the same, and the dependencies")]
        else:
            rows = measure(folders, options.cache or place / "cache", works, options)
    print(table(rows))
    failed = [row for row in alarms(rows) if not any(re.search(part, row.what) for part in options.allow)]
    print(f"\n{len(failed)} regressions: {'; '.join(row.what for row in failed)}" if failed else "\nno regression")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
