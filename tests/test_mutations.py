"""Planted bugs: a copy of the package with one edit, and the test that must then fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numbel

PACKAGE = Path(numbel.__file__).parent
TESTS = Path(__file__).parent

#: name -> ([(file, what stands there, what replaces it)], the tests of which all must fail)
MUTATIONS = {
    "a 24-bit uniform": (
        [
            (
                "_cpu/noise.py",
                "        x[at] = uint32(x0)\n"
                "        x[at + uint64(1)] = uint32(x1)\n"
                "        x[at + uint64(2)] = uint32(x2)\n"
                "        x[at + uint64(3)] = uint32(x3)\n",
                "        x[at] = uint32(uint32(x0) & uint32(0xFFFFFF00)) | uint32(0x80)\n"
                "        x[at + uint64(1)] = uint32(uint32(x1) & uint32(0xFFFFFF00)) | uint32(0x80)\n"
                "        x[at + uint64(2)] = uint32(uint32(x2) & uint32(0xFFFFFF00)) | uint32(0x80)\n"
                "        x[at + uint64(3)] = uint32(uint32(x3) & uint32(0xFFFFFF00)) | uint32(0x80)\n",
            )
        ],
        ["test_exact.py::test_exceedances"],
    ),
    "u + 1e-20": (
        [
            ("_scalar/gumbel.py", "REFINE = 1 << 20\n", "REFINE = 0\n"),
            (
                "_scalar/gumbel.py",
                "    return _gumbel_float32(t, s >= int32(0))\n",
                "    u = float32(1.0) - t if s >= int32(0) else t\n"
                "    e = float32(1e-20) - _log_float32(u + float32(1e-20))\n"
                "    return -_log_float32(max(e, float32(1e-20)))\n",
            ),
        ],
        ["test_exact.py::test_exceedances"],
    ),
    "the noise of the next block": (
        [
            (
                "_cpu/blocks.py",
                "            uint64(block) + i * uint64(block_step),\n",
                "            uint64(block) + i * uint64(block_step) + uint64(1),\n",
            )
        ],
        ["test_exact.py::test_grouped_of_many_segments_is_the_oracles"],
    ),
    "the block after the winner": (
        [
            (
                "_cpu/categorical.py",
                "        block = winners[uint64(s)]\n        if block != held:",
                "        block = min(winners[uint64(s)] + 1, (j.columns - 1) // BLOCK)\n        if block != held:",
            )
        ],
        ["test_exact.py::test_grouped_of_many_segments_is_the_oracles"],
    ),
    "swapped tags": (
        [("_scalar/address.py", "NOISE, REFINEMENT, GROUPED,", "REFINEMENT, NOISE, GROUPED,")],
        ["test_exact.py::test_noise_is_that_of_its_address[100]"],
    ),
    "a lost mask": (
        [("_scalar/address.py", "mix64((uint64(seed) ^ key) + gamma)", "uint64(0)")],
        ["test_exact.py::test_equal_keys_of_two_seeds_share_no_noise", "test_scalar.py::test_two_seeds_share_no_draw"],
    ),
    "a dropped refinement": (
        [("_scalar/gumbel.py", "REFINE = 1 << 20\n", "REFINE = 0\n")],
        ["test_exact.py::test_refined_noise"],
    ),
    "a reference near the maximum": (
        [
            (
                "_scalar/blocks.py",
                "    return float32(128.0 * _floor((float64(n) + 64.0) * 0.0078125))\n",
                "    return n\n",
            )
        ],
        [
            "test_blocks.py::test_every_guess_gives_the_oracles_node[1.0-float32]",
            "test_scalar.py::test_reference_at_its_cell_edges[1.0-float32]",
        ],
    ),
    "an odd reference": (
        [("_scalar/blocks.py", "* 0.0078125))\n", "* 0.0078125) + 1.0)\n")],
        [
            "test_blocks.py::test_every_guess_gives_the_oracles_node[1.0-float32]",
            "test_scalar.py::test_reference_at_its_cell_edges[1.0-float32]",
        ],
    ),
    "a cut that forgets the reference": (
        [
            ("_scalar/blocks.py", "(t < float32(_MAGIC32 - 125.0))", "(t < magic - float32(125.0))"),
        ],
        [
            "test_scalar.py::test_weights[float32]",
            "test_blocks.py::test_every_guess_gives_the_oracles_node[1.0-float32]",
        ],
    ),
}


def run(folder, tests):
    """The tests against the package in `folder`, in a fresh process."""
    shutil.copytree(PACKAGE, folder / "numbel", ignore=shutil.ignore_patterns("__pycache__"))
    return lambda: subprocess.run(
        [sys.executable, "-c", _RUNNER, str(folder), *(str(TESTS / test) for test in tests)],
        env=os.environ
        | {"PYTHONPATH": str(folder), "NUMBEL_CACHE": "0", "NUMBA_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )


_RUNNER = """
import sys, pytest, numbel
assert numbel.__file__.startswith(sys.argv[1]), numbel.__file__
sys.exit(pytest.main(["-q", "--tb=line", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.long
@pytest.mark.parametrize("name", MUTATIONS)
def test_planted_bug_is_found(name, tmp_path):
    edits, tests = MUTATIONS[name]
    go = run(tmp_path, tests)
    for file, there, instead in edits:
        path = tmp_path / "numbel" / file
        text = path.read_text()
        assert text.count(there) == 1, f"{there!r} is not in {file} once"
        path.write_text(text.replace(there, instead))
    result = go()
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout + result.stderr
    assert f"{len(tests)} failed" in result.stdout, result.stdout
    assert "passed" not in result.stdout
    # by an assertion of the test, not because the edit does not compile
    assert "AssertionError" in result.stdout or "assert " in result.stdout, result.stdout
    assert "TypingError" not in result.stdout


@pytest.mark.long
def test_unchanged_copy_passes(tmp_path):
    tests = ["test_exact.py::test_noise_is_that_of_its_address[100]", "test_scalar.py::test_two_seeds_share_no_draw"]
    result = run(tmp_path, tests)()
    assert result.returncode == pytest.ExitCode.OK, result.stdout + result.stderr
