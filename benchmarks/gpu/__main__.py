"""Checks and timings on a GPU: PYTHONPATH=src python -m benchmarks.gpu --out DIR. Ends within nine minutes.

It needs numba, numba-cuda, numpy and torch; JAX, CuPy, Triton and FlashInfer are timed where they are installed.
Writes DIR/gpu.json and DIR/gpu.md; the exit code is 1 if a check failed. One process does one part after the other. If
a part takes too long, ends the process or loses the context, another process goes on behind it. This folder is no
package, so that asv, which imports all that is below benchmarks, leaves it alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# JAX would take three quarters of the device's memory
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from numba import config, cuda

import numbel
from numbel._device import libraries as _libraries

from . import checks as gpu_checks
from . import works as gpu_works

_ROUNDS, _CALLS = 15, 5
#: Seconds after which no further part is begun, and those of a part at most. A part that is begun last ends in time.
_LIMIT, _PART = 480.0, 50.0
#: Seconds for the comparison of bits, which compiles some 400 kernels: 5 minutes of one core.
_BITS = 240.0
_PACKAGES = (
    "numba",
    "numba-cuda",
    "numpy",
    "torch",
    "triton",
    "jax",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "flashinfer-python",
)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    found = {"python": platform.python_version(), "numbel": numbel.__version__, "cpu threads": str(os.cpu_count())}
    if not config.ENABLE_CUDASIM:
        device = cuda.get_current_device()
        found["gpu"] = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        found["compute capability"] = ".".join(map(str, device.compute_capability))
        found["CUDA runtime"] = ".".join(map(str, cuda.runtime.get_version()))
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def checks(small: bool, seconds: float) -> dict[str, Callable[[], str]]:
    """Every check, smaller where `small`; so many seconds for the longest."""
    if small:
        return {
            "bits": gpu_checks.some_bits,
            "all words": lambda: gpu_checks.all_words(1 << 8),
            "frequencies": lambda: gpu_checks.frequencies(2, 50, 8),
            "tail": lambda: gpu_checks.tail(1 << 8),
            "halves": lambda: gpu_checks.halves(16, 8),
        }
    return {
        "bits": lambda: gpu_checks.equal_bits(seconds),
        "all words": gpu_checks.all_words,
        "frequencies": gpu_checks.frequencies,
        "tail": gpu_checks.tail,
        "halves": gpu_checks.halves,
        "sanitizer": gpu_checks.sanitizer,
    }


def checked(check: Callable[[], str]) -> dict[str, Any]:
    """What a check says; one that failed says so."""
    start = time.perf_counter()
    try:
        said: dict[str, Any] = {"passed": True, "text": check()}
    except Exception as error:
        said = {"passed": False, "text": f"{type(error).__name__}: {error}"}
    return said | {"seconds": round(time.perf_counter() - start, 1)}


def milliseconds(call: Callable[[], Any]) -> tuple[float, float]:
    """One call's time on the device and on the host, of several in a row."""
    start, end = cuda.event(), cuda.event()
    cuda.synchronize()
    start.record()
    begun = time.perf_counter()
    for _ in range(_CALLS):
        call()
    host = time.perf_counter() - begun
    end.record()
    cuda.synchronize()
    return float(cuda.event_elapsed_time(start, end)) / _CALLS, host / _CALLS * 1e3


def measure(work: str, small: bool = False) -> dict[str, Any]:
    """Medians of every library that is there, round by round: {library: {"ms": ..., "GB/s": ..., "host us": ...}}."""
    libraries, rows, columns, dtype = gpu_works.WORKS[work]
    if small:
        rows, columns = min(rows, 2), min(columns, gpu_works.SMALL)
    cases, missing = {}, {}
    for name, prepare in libraries.items():
        try:
            case = prepare(rows, columns, dtype)
            case.call()
            cuda.synchronize()
            cases[name] = case
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(1 if small else _ROUNDS):
        for name, case in cases.items():
            times[name].append(milliseconds(case.call))
    found: dict[str, Any] = {}
    for name, case in cases.items():
        device, host = zip(*times[name], strict=True)
        middle = statistics.median(device)
        rate = case.size / middle / 1e6 if middle else 0.0
        found[name] = {
            "ms": middle,
            "least ms": min(device),
            "GB/s": rate,
            "host us": 1e3 * statistics.median(host),
        }
    return found | {name: {"missing": text} for name, text in missing.items()}


def host_overhead(small: bool = False) -> dict[str, float]:
    """Microseconds of the host for a small call: of 1000 in a row, the median of seven."""
    found, many = {}, 10 if small else 1000
    for name, call in gpu_works.overhead().items():
        times = []
        for _ in range(7):
            call()
            cuda.synchronize()
            start = time.perf_counter()
            for _ in range(many):
                call()
            times.append((time.perf_counter() - start) / many * 1e6)
            cuda.synchronize()
        found[name] = statistics.median(times)
    return found


class Part(NamedTuple):
    """Something to be done: the section of the report that it belongs to, its name, and its seconds at most."""

    section: str
    name: str
    seconds: float = _PART


def parts(small: bool, checks_only: bool) -> list[Part]:
    """All of them in order. The comparison of bits is longest, and ends itself."""
    bits = 7200 if checks_only else _BITS
    longest = {"bits": bits, "sanitizer": 100.0}
    found = [Part("machine", "machine")]
    found += [Part("checks", name, longest.get(name, _PART) + 10) for name in checks(small, bits)]
    if not checks_only:
        found.append(Part("overhead", "overhead"))
        found += [Part("works", work) for work in gpu_works.WORKS]
    return found


def do(part: Part, small: bool, bits: float) -> Any:
    """A part, in this process."""
    if part.section == "machine":
        return machine() | ({"small": "the figures say nothing"} if small else {})
    if part.section == "checks":
        return checked(checks(small, bits)[part.name])
    return host_overhead(small) if part.section == "overhead" else measure(part.name, small)


def work_off(names: Sequence[str], into: Path, small: bool, checks_only: bool) -> None:
    """The named parts one after the other, each a line of a file; after a failure of the device no further one."""
    for part in parts(small, checks_only):
        if part.name not in names:
            continue
        try:
            found = do(part, small, _BITS)
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        with into.open("a") as file:
            file.write(json.dumps([part.name, found]) + "\n")
        cuda.synchronize()  # raises where the context is lost: the parent begins another process


def worked_off(
    todo: list[Part], command: list[str], begun: float, report: Callable[[Part, Any], None], limit: float = _LIMIT
) -> None:
    """Report every part: what its process says, or why that did not come. The next process goes on behind it."""
    left = list(todo)
    while left:
        if limit and time.perf_counter() - begun > limit:
            for part in left:
                report(part, {"failed": "no time was left"})
            return
        with tempfile.TemporaryDirectory() as folder:
            into = Path(folder) / "lines"
            into.touch()
            names = [word for part in left for word in ("--part", part.name)]
            # a session of its own, so that what it started ends with it
            process = subprocess.Popen([*command, "--into", str(into), *names], start_new_session=True)
            since, at, why = time.monotonic(), 0, ""
            while not why:
                ended = process.poll()
                lines = into.read_text().splitlines()
                for line in lines[at:]:
                    report(left.pop(0), json.loads(line)[1])
                    since, at = time.monotonic(), at + 1
                if ended is not None:
                    why = f"its process ended with {ended}"
                elif not left or (limit and time.perf_counter() - begun > limit + _PART):
                    why = "no time was left"
                elif time.monotonic() - since > left[0].seconds:
                    why = f"not finished within {left[0].seconds:.0f} s"
                else:
                    time.sleep(0.1)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            # the part at which a process stopped; between two parts it was the one before that lost the context
            if left and not (ended and at):
                report(left.pop(0), {"failed": why})


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# numbel on a GPU", "", ", ".join(f"{name} {value}" for name, value in report["machine"].items()), ""]
    lines += ["| check | passed | says |", "| --- | --- | --- |"]
    for name, said in report["checks"].items():
        lines.append(f"| {name} | {'yes' if said['passed'] else 'NO'} | {said['text']} |")
    for work, found in report["works"].items():
        if "failed" in found:
            lines += ["", f"## {work}", "", found["failed"]]
            continue
        first = next(iter(found))
        lines += [
            "",
            f"## {work}",
            "",
            f"| library | ms | TB/s | us of the host | time over that of {first} |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, figures in found.items():
            if "missing" in figures:
                lines.append(f"| {name} | not there: {figures['missing']} | | | |")
            else:
                ratio = figures["ms"] / found[first]["ms"] if found[first].get("ms") else float("nan")
                rate, host = figures["GB/s"] / 1e3, figures["host us"]
                lines.append(f"| {name} | {figures['ms']:.4g} | {rate:.4g} | {host:.4g} | {ratio:.3g} |")
    lines += ["", "## One small call, 1 x 1000: microseconds of the host", "", "| call | us |", "| --- | --- |"]
    lines += [
        f"| {name} | {value if isinstance(value, str) else f'{value:.1f}'} |"
        for name, value in report["overhead"].items()
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None, command: Sequence[str] = ("-m", "benchmarks.gpu")) -> int:
    """Run everything; 1 if a check failed. `command` is what Python runs a process of parts with."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="where to write gpu.json and gpu.md")
    parser.add_argument("--checks-only", action="store_true", help="no timings, and as long as the checks take")
    parser.add_argument("--small", action="store_true", help="small shapes and few calls: whether all of it runs")
    parser.add_argument("--part", action="append", default=[], help="only this; may be given several times")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    begun, small = time.perf_counter(), options.small or bool(config.ENABLE_CUDASIM)
    _libraries.require()
    if options.into is not None:
        work_off(options.part, options.into, small, options.checks_only)
        return 0
    if options.out is None:
        parser.error("--out is needed")
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": {}, "checks": {}, "works": {}, "overhead": {}}

    def write(part: Part, found: Any) -> None:
        failed = found.get("failed")
        if part.section == "machine":
            report["machine"] = found
        elif part.section == "overhead":
            report["overhead"] = found
        elif part.section == "checks":
            report["checks"][part.name] = {"passed": False, "text": failed, "seconds": 0} if failed else found
            said = report["checks"][part.name]
            print(f"{'ok  ' if said['passed'] else 'FAIL'} {part.name}: {said['text']}", flush=True)
        else:
            report["works"][part.name] = found
            print(f"     {part.name}: {failed or 'timed'}", flush=True)
        (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.out / "gpu.md").write_text(table(report))

    todo = [part for part in parts(small, options.checks_only) if not options.part or part.name in options.part]
    flags = ["--small"] * small + ["--checks-only"] * options.checks_only
    worked_off(todo, [sys.executable, *command, *flags], begun, write, 0 if options.checks_only else _LIMIT)
    print((options.out / "gpu.md").read_text())
    print(f"{time.perf_counter() - begun:.0f} s", flush=True)
    return int(not all(said["passed"] for said in report["checks"].values()))


if __name__ == "__main__":
    sys.exit(main())
