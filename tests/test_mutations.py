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
                "    return _half_float32(t, s >= int32(0))\n",
                "    u = float32(1.0) - t if s >= int32(0) else t\n"
                "    e = max(float32(1e-20) - finite_log_float32(u + float32(1e-20)), float32(1e-20))\n"
                "    return -finite_log_float32(e) if s >= int32(0) else e\n",
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
                "    return float32(product(128.0, _floor((float64(n) + 64.0) * 0.0078125)))\n",
                "    return n\n",
            )
        ],
        [
            "test_blocks.py::test_every_guess_gives_the_oracles_node[1.0-float32]",
            "test_scalar.py::test_reference_at_its_cell_edges[1.0-float32]",
        ],
    ),
    "an odd reference": (
        [("_scalar/blocks.py", "* 0.0078125)))\n", "* 0.0078125)) + 1.0)\n")],
        [
            "test_blocks.py::test_every_guess_gives_the_oracles_node[1.0-float32]",
            "test_scalar.py::test_reference_at_its_cell_edges[1.0-float32]",
        ],
    ),
    "Gumbel-Rao differentiates through its noise": (
        [
            (
                "estimators.py",
                "            task.total += "
                "task.product(task.softmax(z, task.temperature), slope, task.temperature) / count\n",
                "            back = task.product(task.softmax(z, task.temperature), slope, task.temperature) / count\n"
                "            task.total += _through_the_condition(z, index, task.softmax(task.wide), back)\n",
            )
        ],
        [
            "test_estimators.py::test_gumbel_rao_has_the_mean_of_straight_through",
            "test_estimators.py::test_gumbel_rao_is_its_formula",
        ],
    ),
    "Gumbel-Rao repeats one noise": (
        [("estimators.py", "z = Generator(child, each)", "z = Generator(child, 0)")],
        ["test_estimators.py::test_variances_are_ordered", "test_estimators.py::test_gumbel_rao_is_its_formula"],
    ),
    "REBAR detaches its conditional noise": (
        [
            (
                "estimators.py",
                "_through_the_condition(z, index, p, task.product(y, slope, task.temperature))",
                "task.product(y, slope, task.temperature)",
            )
        ],
        [
            "test_estimators.py::test_rebar_is_unbiased[0.1-1.0]",
            "test_estimators.py::test_rebar_is_unbiased[0.5--0.7]",
            "test_estimators.py::test_a_function_of_two_rows[rebar]",
        ],
    ),
    "REBAR forgets the top value": (
        [("estimators.py", "(1 - r) * cotangent + p * to_top", "(1 - r) * cotangent")],
        [
            "test_estimators.py::test_the_derivative_through_the_condition",
            "test_estimators.py::test_rebar_is_unbiased[2.0-1.0]",
        ],
    ),
    "a baseline of all samples": (
        [("estimators.py", "    factor = task.num_samples / (task.num_samples - 1)\n", "    factor = 1.0\n")],
        [
            "test_estimators.py::test_score_function_is_unbiased[2-True]",
            "test_estimators.py::test_score_function_is_unbiased[5-True]",
            "test_estimators.py::test_a_function_of_two_rows[baseline]",
        ],
    ),
    "ReinMax without its half": (
        [
            (
                "estimators.py",
                "        task.total -= task.product(p, slope) / 2\n",
                "        task.total -= task.product(p, slope)\n",
            )
        ],
        [
            "test_estimators.py::test_reinmax_is_exact_for_quadratic_functions",
            "test_estimators.py::test_reinmax_is_its_formula[1.0]",
        ],
    ),
    "ReinMax with a temperature in p": (
        [
            (
                "estimators.py",
                "    p = task.softmax(task.wide)\n    tempered",
                "    p = task.softmax(task.wide, task.temperature)\n    tempered",
            )
        ],
        ["test_estimators.py::test_reinmax_is_its_formula[1.7]"],
    ),
    "a straight-through without 1 / T": (
        [
            (
                "estimators.py",
                "        task.total += task.product(task.soft(seed, draw), slope, task.temperature)\n",
                "        task.total += task.product(task.soft(seed, draw), slope)\n",
            )
        ],
        [
            "test_estimators.py::test_straight_through_is_its_formula",
            "test_estimators.py::test_straight_through_at_two_categories",
            "test_estimators.py::test_gumbel_rao_has_the_mean_of_straight_through",
        ],
    ),
    "half types that stay half": (
        [("estimators.py", "self.rows if self.rows.itemsize >= 4 else self.rows.astype(np.float32)", "self.rows")],
        ["test_estimators.py::test_a_constant_in_the_derivative_cancels[bfloat16-gumbel_softmax]"],
    ),
    "a Concrete density without its 1": (
        [("gradients.py", "(t[..., None] + power) * log_y", "t[..., None] * log_y")],
        [
            "test_concrete.py::test_two_categories_integrate_to_one[1.0]",
            "test_concrete.py::test_two_categories_are_a_logistic_law",
        ],
    ),
    "a Concrete density of n factors T": (
        [("gradients.py", "(n - 1) * np.log(t)", "n * np.log(t)")],
        [
            "test_concrete.py::test_three_categories_integrate_to_one[0.5]",
            "test_concrete.py::test_a_histogram_of_three_categories",
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
    "the largest logit is not subtracted": (
        [("_scalar/relaxed.py", "    return (x - largest) + g\n", "    return (x - (largest - largest)) + g\n")],
        ["test_relaxed.py::test_short_rows_are_the_oracles[5-float32]"],
    ),
    "another refinement in relaxed samples": (
        [
            (
                "_cpu/relaxed_short.py",
                "uint64(REFINEMENT), key, mask, uint64(0), identities, width,\n",
                "uint64(NOISE), key, mask, uint64(0), identities, width,\n",
            )
        ],
        ["test_relaxed.py::test_refined_noise[shape0]"],
    ),
    "the sign of a block's offset": (
        [
            (
                "_scalar/relaxed.py",
                "(float64(m) - float64(largest)) + float64(d)",
                "(float64(m) - float64(largest)) - float64(d)",
            )
        ],
        ["test_relaxed.py::test_long_rows_are_the_oracles[12288-temperatures2-float32]"],
    ),
    "swapped conditional tags": (
        [
            (
                "_scalar/address.py",
                "CONDITIONAL, CONDITIONAL_REFINEMENT, COUNTS",
                "CONDITIONAL_REFINEMENT, CONDITIONAL, COUNTS",
            )
        ],
        ["test_relaxed.py::test_conditional_is_the_oracles[0.7-300]"],
    ),
    "a top that others may round to": (
        [("_cpu/conditional.py", "/ temperature[i] + g, top[i]), limit[i])", "/ temperature[i] + g, top[i]), top[i])")],
        ["test_relaxed.py::test_the_index_is_the_strict_argmax[64-bfloat16]"],
    ),
    "a mean that forgets the sum of y": (
        [
            ("_cpu/vjp.py", "_gradient(y, u, count, product / total, rate)", "_gradient(y, u, count, product, rate)"),
            ("_cpu/vjp.py", "count, product / total, rate, logs", "count, product, rate, logs"),
        ],
        ["test_relaxed.py::test_gradients_sum_to_zero[shape2-bfloat16]"],
    ),
    "the logarithm of y = 0": (
        [
            (
                "_cpu/vjp.py",
                "            logs[i] = scalar.finite_log(y[start + i])\n",
                "            logs[i] = type(y[0])(np.log(y[start + i]))\n",
            )
        ],
        ["test_relaxed.py::test_zeros_of_y_have_no_gradient[300-float32]"],
    ),
    "the temperature of the row below": (
        [
            (
                "_cpu/relaxed_short.py",
                "temperature = row_temperature(j, first + int64(i))\n",
                "temperature = row_temperature(j, min(first + int64(i) + 1, j.rows - 1))\n",
            )
        ],
        ["test_relaxed.py::test_temperature_of_each_row[shape0-float32]"],
    ),
    "a lone segment visited twice": (
        [("_dispatch.py", "if twice and segments > 1 else (0,)", "if twice else (0,)")],
        ["test_relaxed.py::test_layouts[shape2-float32-relaxed]"],
    ),
    "truncated draws on the words of the others": (
        [("_cpu/truncated.py", "_INF = math.inf\n", "_INF = math.inf\nTRUNCATED = GROUPED\n")],
        [
            "test_truncation.py::test_every_tie_pattern[float32]",
            "test_truncation.py::test_rows_are_the_oracles[4096-float32]",
        ],
    ),
    "a tie too many": (
        [
            (
                "_scalar/truncation.py",
                "int64((short + mass - uint64(1)) // mass)",
                "int64((short + mass) // mass)",
            )
        ],
        [
            "test_truncation.py::test_every_tie_pattern[float32]",
        ],
    ),
    "top_p rounded up": (
        [
            (
                "_scalar/truncation.py",
                "parts = uint64(int64(top_p * 1099511627776.0))",
                "parts = uint64(int64(top_p * 1099511627776.0) + int64(1))",
            )
        ],
        ["test_truncation.py::test_equal_columns_keep_the_decimal_share"],
    ),
    "all ties are kept": (
        [("_cpu/truncation.py", "if x > t or (x == t and ties > 0):", "if x > t or x == t:")],
        [
            "test_truncation.py::test_every_tie_pattern[float32]",
            "test_truncation.py::test_rows_are_the_oracles[100-float32]",
        ],
    ),
    "top_p of what top_k drops as well": (
        [("_cpu/truncation.py", "                total = before\n", "                total = held\n")],
        ["test_truncation.py::test_every_tie_pattern[float32]"],
    ),
    "min_p without the temperature": (
        [
            (
                "_scalar/truncation.py",
                "(float64(largest) - float64(x)) / temperature <= reach",
                "(float64(largest) - float64(x)) <= reach",
            )
        ],
        ["test_truncation.py::test_rows_are_the_oracles[100-float32]"],
    ),
    "a bound beyond the cut": (
        [("_cpu/truncation.py", "uint64(part * (1.0 + 2.0**-9) * 1073741824.0)", "uint64(part * 0.95 * 1073741824.0)")],
        ["test_truncation.py::test_rows_are_the_oracles[20000-float32]"],
    ),
    "written before it is read": (
        [("_checks.py", "    return source.copy()\n", "    return source\n")],
        ["test_relaxed.py::test_overlapping_views[shape2-float32-relaxed]"],
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
