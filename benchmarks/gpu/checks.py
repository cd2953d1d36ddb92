"""What is to be true on a GPU: plain functions that return a line, or raise AssertionError."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import config, cuda, float32, int64, prange, types, uint32, uint64

import numbel
from numbel._scalar.address import mix64
from numbel._scalar.bits import ordered_float32, ordered_float64
from numbel._scalar.gumbel import gumbel_float32, gumbel_float64, gumbel_refined_float32, needs_refinement

TESTS = Path(__file__).parents[2] / "tests" / "cuda"
#: A test that is right fails once in a million.
ALPHA = 1e-6


def _finished(commands: dict[str, list[str]], seconds: float) -> list[str]:
    """Commands at once, as many as there are processors; a line for each that failed, or had not ended in time."""
    end = time.monotonic() + seconds
    paths = [str(Path(numbel.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def failure(item: tuple[str, list[str]]) -> str:
        name, command = item
        left = end - time.monotonic()
        # a session of its own, so that what it started ends with it
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=max(left, 0.01))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"{name}: not finished within {seconds:.0f} s"
        return f"{name}: {said[-1000:]}" if process.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [line for line in pool.map(failure, commands.items()) if line]


def equal_bits(seconds: float = 240.0) -> str:
    """Every method on device arrays against the host's, and numbel.torch where torch is there.

    Compiling the kernels of one format takes 35 s of one core: so each script and format has a process of its own.
    """
    formats, modules = ["float32", "float64", "float16"], sorted(path.stem for path in TESTS.glob("check_*.py"))
    modules.remove("check_torch")
    missing = [name for name in ("ml_dtypes", "torch") if importlib.util.find_spec(name) is None]
    if "ml_dtypes" not in missing:
        formats.append("bfloat16")
    if "torch" not in missing:
        modules.append("check_torch")
    run = [sys.executable, str(TESTS / "run.py"), "card"]
    commands = {f"{name} {form}": [*run, name, "--formats", form] for form in formats for name in modules}
    failures = _finished(commands, seconds)
    assert not failures, "; ".join(failures)
    unchecked = f"; not checked, without it: {', '.join(missing)}" if missing else ""
    return f"{len(modules)} modules of checks equal in {', '.join(formats)}{unchecked}"


def some_bits() -> str:
    """A part of it, for the simulator and for a rehearsal without a card."""
    checks = ["check_methods.check_rows", "check_methods.check_counter"]
    backend = "simulator" if config.ENABLE_CUDASIM else os.environ.get("NUMBEL_CUDA_BACKEND", "card")
    command = [sys.executable, str(TESTS / "run.py"), backend, *checks, "--formats", "float32"]
    failures = _finished({"checks": command}, 600)
    assert not failures, failures[0]
    return "some methods equal"


def _hashes(x: Any) -> tuple[Any, Any]:
    """Of the float32 and of the float64 noise of a word; the refinement is a hash of the word."""
    y = mix64(uint64(x)) >> uint64(32)
    refined = needs_refinement(uint32(x))
    single = gumbel_refined_float32(uint64(x), uint64(y)) if refined else gumbel_float32(uint32(x))
    double = gumbel_float64(uint64(x), uint64(y))
    place = uint64(x) << uint64(32)
    return mix64(uint64(int64(ordered_float32(float32(single)))) ^ place), mix64(
        uint64(ordered_float64(double)) ^ place
    )


_on_host = numba.njit(error_model="numpy")(_hashes)
_on_device = cuda.jit(device=True)(_hashes)


@numba.njit(parallel=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _sweep_host(words: Any) -> Any:
    pieces = 1024
    sums = np.zeros((pieces, 2), np.uint64)
    for piece in prange(pieces):
        first, second = uint64(0), uint64(0)
        for x in range(piece * words // pieces, (piece + 1) * words // pieces):
            one, two = _on_host(uint32(x))
            first += one
            second += two
        sums[piece, 0], sums[piece, 1] = first, second
    return sums


@functools.cache
def _sweep_kernel() -> Any:
    def sweep(words, sums):  # type: ignore[no-untyped-def]
        first, second = uint64(0), uint64(0)
        for x in range(int64(cuda.grid(1)), words, int64(cuda.gridsize(1))):
            one, two = _on_device(uint32(x))
            first += uint64(one)
            second += uint64(two)
        cuda.atomic.add(sums, 0, first)
        cuda.atomic.add(sums, 1, second)

    if config.ENABLE_CUDASIM:
        return cuda.jit(sweep)
    return cuda.jit((int64, types.Array(uint64, 1, "C")), lto=False)(sweep)


def all_words(words: int = 1 << 32) -> str:
    """The noise of every word, float32 and float64, as one hash each on either side."""
    sums = cuda.to_device(np.zeros(2, np.uint64))
    _sweep_kernel()[4 if config.ENABLE_CUDASIM else 1056, 4 if config.ENABLE_CUDASIM else 256](words, sums)
    found, expected = sums.copy_to_host(), _sweep_host(words).sum(axis=0, dtype=np.uint64)
    assert np.array_equal(found, expected), f"hashes {found} on the device, {expected} on the host"
    return f"{words} words: float32 hash {found[0]:016x}, float64 hash {found[1]:016x}, as on the host"


def frequencies(rows: int = 200_000, samples: int = 50, categories: int = 256) -> str:
    """10^7 draws of 256 categories: a bias of 3 % of one of average frequency would be seen."""
    logits = np.random.default_rng(1).standard_normal(categories).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    x, freedom = cuda.to_device(np.broadcast_to(logits, (rows, categories)).copy()), categories - 1
    lines = []
    for method in ("grouped", "gumbel_max"):
        indices = numbel.Generator(5).categorical(x, samples, method=method).copy_to_host()
        counts = np.bincount(indices.reshape(-1), minlength=categories)
        statistic = float(np.sum((counts - counts.sum() * p) ** 2 / (counts.sum() * p)))
        # Wilson and Hilferty: the cube root of chi-square over its freedom is nearly normal
        z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
        p_value = math.erfc(z / math.sqrt(2)) / 2
        assert p_value > ALPHA, f"{method}: chi-square {statistic:.1f} of {freedom} degrees, p {p_value:.2g}"
        lines.append(f"{method} chi-square {statistic:.1f} of {freedom} degrees, p {p_value:.3g}")
    return "; ".join(lines)


def tail(values: int = 1 << 30) -> str:
    """Values beyond 25 ln 2, where a 24-bit uniform has none: 32 of 2^30 are due."""
    threshold, found = 25 * math.log(2), 0
    columns = min(values, 1 << 26)
    like = cuda.to_device(np.zeros(1, np.float32))
    for draw in range(values // columns):
        noise = numbel.Generator(5, draw).gumbel(size=(1, columns), like=like).copy_to_host()
        found += int(np.count_nonzero(noise > threshold))
    due = -values * math.expm1(-math.exp(-threshold))
    assert abs(found - due) <= 5 * math.sqrt(due) + 5, f"{found} beyond {threshold:.2f}, {due:.1f} are due"
    return f"{found} of {values} beyond {threshold:.2f}, {due:.1f} are due"


def halves(categories: int = 1 << 24, draws: int = 400) -> str:
    """Equal categories: the first half wins half of the draws; 25 % off would be seen."""
    logits = cuda.to_device(np.zeros((1, categories), np.float32))
    lines = []
    for method in ("grouped", "gumbel_max"):
        indices = numbel.Generator(5).categorical(logits, draws, method=method).copy_to_host()
        first = int(np.count_nonzero(indices < categories // 2))
        assert abs(first - draws / 2) <= 5 * math.sqrt(draws) / 2, f"{method}: the first half won {first} of {draws}"
        lines.append(f"{method}: the first half won {first} of {draws}")
    return "; ".join(lines)


def sanitizer(seconds: float = 100.0) -> str:
    """NVIDIA's memory and race checkers over small shapes, where they are installed."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "compute-sanitizer is not installed"
    checks = [str(TESTS / "run.py"), "card", "check_methods.check_rows", "check_truncation.check_some"]
    commands = {
        tool: [program, "--tool", tool, "--error-exitcode", "9", sys.executable, *checks, "--formats", "float32"]
        for tool in ("memcheck", "racecheck")
    }
    failures = _finished(commands, seconds)
    assert not failures, "; ".join(failures)
    return "memcheck and racecheck found nothing"
