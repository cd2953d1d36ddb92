"""Checks and timings on a GPU: PYTHONPATH=src python -m benchmarks.gpu --out DIR. Ends within nine minutes.

It needs numba, numba-cuda, numpy and torch; JAX, CuPy, Triton and FlashInfer are timed where they are installed.
Writes DIR/gpu.json and DIR/gpu.md; the exit code is 1 if a check failed. This folder is no package, so that asv, which
imports all that is below benchmarks, leaves it alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# JAX would take three quarters of the device's memory
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from numba import config, cuda

import numbel
from numbel import _libraries

from . import checks as gpu_checks
from . import works as gpu_works

_ROUNDS, _CALLS = 15, 5
#: Seconds after which no further work is begun.
_LIMIT = 480.0
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


def run_checks(small: bool, seconds: float) -> dict[str, Any]:
    """{check: what it says}; those that failed say so."""
    said = {}
    for name, check in checks(small, seconds).items():
        start = time.perf_counter()
        try:
            text = {"passed": True, "text": check()}
        except Exception as error:
            text = {"passed": False, "text": f"{type(error).__name__}: {error}"}
        said[name] = text | {"seconds": round(time.perf_counter() - start, 1)}
        print(f"{'ok  ' if text['passed'] else 'FAIL'} {name}: {text['text']}", flush=True)
    return said


def milliseconds(call: Callable[[], Any]) -> float:
    """One call's time on the device, of several in a row."""
    start, end = cuda.event(), cuda.event()
    cuda.synchronize()
    start.record()
    for _ in range(_CALLS):
        call()
    end.record()
    cuda.synchronize()
    return float(cuda.event_elapsed_time(start, end)) / _CALLS


def measure(work: str) -> dict[str, Any]:
    """Medians of every library that is there, round by round: {library: {"ms": ..., "GB/s": ...}}."""
    libraries, rows, columns, dtype = gpu_works.WORKS[work]
    cases, missing = {}, {}
    for name, prepare in libraries.items():
        try:
            case = prepare(rows, columns, dtype)
            case.call()
            cases[name] = case
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(_ROUNDS):
        for name, case in cases.items():
            times[name].append(milliseconds(case.call))
    return {
        name: {
            "ms": statistics.median(times[name]),
            "least ms": min(times[name]),
            "GB/s": case.size / statistics.median(times[name]) / 1e6,
        }
        for name, case in cases.items()
    } | {name: {"missing": text} for name, text in missing.items()}


def host_overhead() -> dict[str, float]:
    """Microseconds of the host for a small call: of 1000 in a row, the median of seven."""
    found = {}
    for name, call in gpu_works.overhead().items():
        times = []
        for _ in range(7):
            call()
            cuda.synchronize()
            start = time.perf_counter()
            for _ in range(1000):
                call()
            times.append((time.perf_counter() - start) * 1e3)
            cuda.synchronize()
        found[name] = statistics.median(times)
    return found


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# numbel on a GPU", "", ", ".join(f"{name} {value}" for name, value in report["machine"].items()), ""]
    lines += ["| check | passed | says |", "| --- | --- | --- |"]
    for name, said in report["checks"].items():
        lines.append(f"| {name} | {'yes' if said['passed'] else 'NO'} | {said['text']} |")
    for work, found in report["works"].items():
        if "skipped" in found:
            lines += ["", f"## {work}", "", found["skipped"]]
            continue
        first = next(iter(found))
        lines += [
            "",
            f"## {work}",
            "",
            f"| library | ms | GB/s | time over that of {first} |",
            "| --- | --- | --- | --- |",
        ]
        for name, figures in found.items():
            if "missing" in figures:
                lines.append(f"| {name} | not there: {figures['missing']} | | |")
            else:
                ratio = figures["ms"] / found[first]["ms"] if "ms" in found[first] else float("nan")
                lines.append(f"| {name} | {figures['ms']:.4g} | {figures['GB/s']:.4g} | {ratio:.3g} |")
    lines += ["", "## One small call, 1 x 1000: microseconds of the host", "", "| call | us |", "| --- | --- |"]
    lines += [f"| {name} | {value:.1f} |" for name, value in report["overhead"].items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to write gpu.json and gpu.md")
    parser.add_argument("--checks-only", action="store_true", help="no timings, and as long as the checks take")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    _libraries.require()
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(), "checks": {}, "works": {}, "overhead": {}}

    def write() -> None:
        (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.out / "gpu.md").write_text(table(report))

    report["checks"] = run_checks(bool(config.ENABLE_CUDASIM), 7200 if options.checks_only else _BITS)
    write()
    if not options.checks_only:
        report["overhead"] = host_overhead()
        for work in gpu_works.WORKS:
            late = time.perf_counter() - start > _LIMIT
            report["works"][work] = {"skipped": "no time was left"} if late else measure(work)
            write()
    print((options.out / "gpu.md").read_text())
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return int(not all(said["passed"] for said in report["checks"].values()))


if __name__ == "__main__":
    sys.exit(main())
