"""Random calls against the oracle, for a while: `fuzz.py` says how, and how to go on by hand for an hour.

What it found is kept where what it tests is tested: relaxed samples of one row at temperature 0 (test_strangers.py).
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numbel

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="guard pages need mprotect")


def run(*arguments, timeout=900):
    command = [sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def check(tmp_path, *arguments):
    """Nothing fails, and every dtype had its cases; the case is named where the process dies."""
    log = tmp_path / "case"
    done = run("--log", log, *arguments)
    assert done.returncode == 0, (log.read_text(), done.stdout, done.stderr)
    counts = [int(line.split()[1]) for line in done.stdout.splitlines() if " cases, " in line]
    assert len(counts) >= 3
    assert min(counts) > 0, done.stdout


def test_for_twenty_seconds(tmp_path):
    check(tmp_path, "--seconds", 20)


@pytest.mark.long
def test_for_a_minute(tmp_path):
    check(tmp_path, "--seconds", 60, "--seed", 1)


@pytest.mark.parametrize("at", [-1, "end"])
@pytest.mark.parametrize("write", [False, True])
def test_a_guard_page_ends_the_process(at, write):
    """One byte before what is guarded, or behind it, read or written."""
    code = (
        "import ctypes, tests.fuzz as fuzz\n"
        f"memory = fuzz.Guarded(100, {at == 'end'})\n"
        "memory.bytes[:] = 1\n"
        f"place = memory.bytes.ctypes.data + {100 if at == 'end' else -1}\n"
        f"{'ctypes.memset(place, 1, 1)' if write else 'ctypes.string_at(place, 1)'}\n"
    )
    environment = os.environ | {"PYTHONFAULTHANDLER": ""}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=300)
    assert run.returncode in (-signal.SIGSEGV, -signal.SIGBUS)


@pytest.mark.parametrize("strides", [(80, 8), (-80, 8), (8, 24), (-24, -8), (84, 9)])
def test_guarded_arrays_hold_what_they_are_given(strides):
    import fuzz

    random = np.random.default_rng(5)
    for _ in range(20):
        array = fuzz.guarded((3, 2), np.float64, strides, random)
        array[...] = np.arange(6.0).reshape(3, 2)
        assert array.strides == strides
        assert (array == np.arange(6.0).reshape(3, 2)).all()


WRONG = {
    # what is broken: the method, what is done to its result, the check that must fail
    "an index beside the drawn one": ("categorical", lambda y: (y + 1) % 5),
    "another sum": ("sample", lambda y: y._replace(logsumexp=y.logsumexp * (1 + 1e-5) + 1e-5)),
    "another probability": ("sample", lambda y: y._replace(log_prob=y.log_prob - 1e-5)),
    "the order of two": ("gumbel_top_k", lambda y: y._replace(indices=y.indices[..., ::-1])),
    "a weight": ("gumbel_softmax", lambda y: y * y.dtype.type(1.01)),
    "one draw too many": ("multinomial", lambda y: y + 1),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_result_is_found(what, monkeypatch):
    """Within 150 cases of float32."""
    import fuzz

    name, change = WRONG[what]
    right = getattr(numbel.Generator, name)
    monkeypatch.setattr(numbel.Generator, name, lambda *args, **options: change(right(*args, **options)))
    _, failures = fuzz.run(["float32"], 3, 0, 150, 300)
    assert failures
