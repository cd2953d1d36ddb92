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
                "        block = arrays.winners.places[uint64(s)]\n        if block != held:",
                "        block = min(arrays.winners.places[uint64(s)] + 1, (p.logits.columns - 1) // BLOCK)\n"
                "        if block != held:",
            )
        ],
        ["test_exact.py::test_grouped_of_many_segments_is_the_oracles"],
    ),
    "a lane off by one": (
        [
            (
                "_cpu/blocks.py",
                "    return int64(lane), target\n",
                "    return int64(lane ^ uint64(1)), target\n",
            )
        ],
        [
            "test_exact.py::test_lanes_and_their_columns_fit[1500-float32]",
            "test_exact.py::test_grouped_is_the_oracles",
            "test_blocks.py::test_choice_inside_a_block[float32]",
        ],
    ),
    "the lane before": (
        [
            (
                "_cpu/blocks.py",
                "    while choice.lanes[lane] <= target:\n",
                "    while choice.lanes[lane] < target:\n",
            )
        ],
        [
            "test_blocks.py::test_choice_inside_a_block[float32]",
            "test_blocks.py::test_every_share_of_a_block_is_its_weights[float32]",
        ],
    ),
    "a lane's share rounded up": (
        [
            (
                "_cpu/blocks.py",
                "            q = scalar.quantise(lanes[i], rise)\n",
                "            q = scalar.quantise(lanes[i], rise) + uint64(1)\n",
            )
        ],
        [
            "test_blocks.py::test_choice_inside_a_block[float32]",
            "test_blocks.py::test_every_share_of_a_block_is_its_weights[float32]",
        ],
    ),
    "the two words of a choice swapped": (
        [("_cpu/blocks.py", "return (x2 << uint64(32)) | x3", "return (x3 << uint64(32)) | x2")],
        [
            "test_exact.py::test_grouped_is_the_oracles",
            "test_exact.py::test_grouped_of_many_segments_is_the_oracles",
        ],
    ),
    "a lane's largest column has its weight alone": (
        [
            (
                "_cpu/blocks.py",
                "    return int64(largest)\n",
                "    return int64(largest if rest < scalar.quantise(weights[largest], rise) else count - uint64(1))\n",
            )
        ],
        ["test_blocks.py::test_every_share_of_a_block_is_its_weights[float32]"],
    ),
    "the last of a lane's largest columns": (
        [
            (
                "_cpu/blocks.py",
                "largest = j if weights[j] > weights[largest]",
                "largest = j if weights[j] >= weights[largest]",
            )
        ],
        ["test_blocks.py::test_every_share_of_a_block_is_its_weights[float32]"],
    ),
    "the lanes of another block": (
        [("_cpu/categorical.py", "held, kept, spare = block, spare, kept\n", "held, kept = block, spare\n")],
        ["test_exact.py::test_grouped_is_the_oracles"],
    ),
    "the lanes of a list without their last column": (
        [
            (
                "_cpu/truncated.py",
                "        if kept.columns[i] & (LANES - 1) == lane:\n",
                "        if kept.columns[i] & (LANES - 1) == lane and (n == 0 or i + 1 < last):\n",
            )
        ],
        ["test_truncation.py::test_lists_of_a_block_choose_by_lanes[float32]"],
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
                "identities, uint64(0), width, key, mask)\n",
                "identities, uint64(0), width, mask, key)\n",
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
            (
                "_cpu/vjp.py",
                "    mean = _total(nodes, 0, blocks, products) / _total(nodes, 1, blocks, products)\n",
                "    mean = _total(nodes, 0, blocks, products)\n",
            ),
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
                "temperature = row_temperature(p.temperatures, first + int64(i))\n",
                "temperature = row_temperature(p.temperatures, min(first + int64(i) + 1, p.logits.rows - 1))\n",
            )
        ],
        ["test_relaxed.py::test_temperature_of_each_row[shape0-float32]"],
    ),
    "a lone segment visited twice": (
        [("_host/dispatch.py", "    if split.segments == 1:\n        return run(plan)\n    blocks,", "    blocks,")],
        ["test_relaxed.py::test_layouts[shape2-float32-relaxed]"],
    ),
    "the threshold of the last one chosen": (
        [("_cpu/top_k.py", "        threshold = keys[last]\n", "        threshold = keys[0]\n")],
        [
            "test_top_k.py::test_rows_many_at_a_time_and_alone[33-float32]",
            "test_top_k.py::test_top_k_is_the_oracles[300-20]",
        ],
    ),
    "the chosen stay in the mass that is left": (
        [
            (
                "_cpu/top_k.py",
                "column_of(places[i]) - block * BLOCK, type(guess)(-_INF))",
                "column_of(places[i]) - block * BLOCK, type(guess)(0))",
            )
        ],
        [
            "test_top_k.py::test_log_prob_where_the_chosen_hold_nearly_everything",
            "test_top_k.py::test_probabilities_down_to_1e_300[50]",
            "test_top_k.py::test_rows_many_at_a_time_and_alone[33-float32]",
        ],
    ),
    "the mass of the categories before": (
        [
            (
                "_cpu/top_k.py",
                "            at = n - uint64(1) - i\n            r, total",
                "            at = i\n            r, total",
            )
        ],
        [
            "test_top_k.py::test_rows_many_at_a_time_and_alone[33-float32]",
            "test_top_k.py::test_top_k_is_the_oracles[5-3]",
        ],
    ),
    "a filter too narrow": (
        [("_cpu/top_k.py", "LOG2E + 2.0**-11)", "LOG2E - 20.0)")],
        [
            "test_top_k.py::test_long_rows_and_any_k[1000]",
            "test_top_k.py::test_a_row_of_2_to_the_24",
        ],
    ),
    "a filter beyond its range": (
        [("_cpu/top_k.py", "top - best < 80.0 and", "top - best < 1e300 and")],
        ["test_top_k.py::test_adversarial_rows_are_those_of_the_definition[one peak]"],
    ),
    "the last of equal keys is kept": (
        [("_cpu/top_k.py", "(uint64(tie) & uint64(equals > 0))", "(uint64(tie) & uint64(equals <= 0))")],
        ["test_top_k.py::test_temperature_zero_takes_the_largest_logits[5000]"],
    ),
    "a list of candidates that is forgotten": (
        [
            (
                "_cpu/top_k.py",
                "    for g in range(p.split.segments):\n        item = (row - p.lists",
                "    for g in range(1, p.split.segments):\n        item = (row - p.lists",
            )
        ],
        ["test_top_k.py::test_threads_and_segments_change_no_bit[shape1-500]"],
    ),
    "a sort by its leading digits": (
        [("_cpu/top_k.py", "    if not _insert(found, n, 4 * n):\n", "    if n < 0:\n")],
        ["test_top_k.py::test_adversarial_rows_are_those_of_the_definition[close and far]"],
    ),
    "a weight p / (p exp(-kappa))": (
        [("_scalar/top_k.py", "return -_log_ratio(y) if y <= 0.5", "return 0.0 if y <= 0.5")],
        ["test_top_k.py::test_weights_are_accurate_at_both_ends", "test_top_k.py::test_weights_are_unbiased"],
    ),
    "ragged rows padded with zeros": (
        [("_cpu/ragged.py", "type(zero(kind))(-_INF))", "zero(kind))")],
        ["test_ragged.py::test_the_law_of_padded_rows[grouped]"],
    ),
    "the place of a ragged row among padded ones": (
        [("_host/ragged.py", "rows.ids[chosen], mask)", "np.arange(len(chosen)), mask)")],
        ["test_ragged.py::test_each_row_is_that_of_a_call_of_its_own[None-grouped-float32]"],
    ),
    "ties of short rows by the wrong end": (
        [("_cpu/cuts.py", "(tie & (ties[i] > int32(0)))", "(tie & (ties[i] < int32(2)))")],
        ["test_truncation.py::test_every_tie_pattern[across-float32]"],
    ),
    "masses of short rows without top_k": (
        [("_cpu/cuts.py", "select(int64(c) < top_k[i], masses[at], uint64(0))", "masses[at]")],
        [
            "test_truncation.py::test_every_tie_pattern[across-float32]",
            "test_truncation.py::test_rows_many_at_a_time_and_alone[33-grouped-float32]",
        ],
    ),
    "truncated short rows on the words of the others": (
        [("_cpu/short.py", "uint64(GROUPED) if cuts.off[i] else uint64(TRUNCATED)", "uint64(GROUPED)")],
        ["test_truncation.py::test_every_tie_pattern[across-float32]"],
    ),
    "equal keys of short rows by the larger column": (
        [("_cpu/top_k_short.py", "((y == x) & (q < p))", "((y == x) & (q > p))")],
        ["test_top_k.py::test_rows_many_at_a_time_and_alone[33-float32]"],
    ),
    "short rows without the first of those chosen": (
        [
            (
                "_cpu/top_k_short.py",
                "    for c in range(k):\n        at = uint64(k - 1 - c)",
                "    for c in range(k - 1):\n        at = uint64(k - 1 - c)",
            )
        ],
        ["test_top_k.py::test_rows_many_at_a_time_and_alone[33-float32]"],
    ),
    "truncated draws on the words of the others": (
        [("_cpu/truncated.py", "_INF = math.inf\n", "_INF = math.inf\nTRUNCATED = GROUPED\n")],
        [
            "test_truncation.py::test_every_tie_pattern[alone-float32]",
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
            "test_truncation.py::test_every_tie_pattern[alone-float32]",
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
            "test_truncation.py::test_every_tie_pattern[alone-float32]",
            "test_truncation.py::test_rows_are_the_oracles[100-float32]",
        ],
    ),
    "top_p of what top_k drops as well": (
        [("_cpu/truncation.py", "        total = before\n", "        total = held\n")],
        ["test_truncation.py::test_every_tie_pattern[alone-float32]"],
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
        [("_arguments/checks.py", "    return source.copy()\n", "    return source\n")],
        ["test_relaxed.py::test_overlapping_views[shape2-float32-relaxed]"],
    ),
    "CUDA: the column after the one chosen": (
        [
            (
                "_cuda/short.py",
                "                        at[i] = c\n",
                "                        at[i] = (c + 1) % width\n",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_methods]"],
    ),
    "CUDA: ragged rows that share slots": (
        [
            (
                "_cuda/rows.py",
                "(int64(call.offsets[uint64(row)]) >> int64(12)) + row",
                "int64(call.offsets[uint64(row)]) >> 12",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_ragged]"],
    ),
    "CUDA: the larger column on ties": (
        [
            (
                "_cuda/short.py",
                "keys[e + h] == keys[e] and at[e + h] < at[e]",
                "keys[e + h] == keys[e] and at[e + h] > at[e]",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_ragged]"],
    ),
    "CUDA: a dropped refinement": (
        [("_cuda/noise.py", "if wide is float64 or needs_refinement(uint32(word)):", "if wide is float64:")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_methods]"],
    ),
    "CUDA: a column left out of each lane": (
        [("_cuda/blocks.py", "for j in range(BLOCK // LANES):", "for j in range(BLOCK // LANES - 1):")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_methods]"],
    ),
    "CUDA: a lane off by one": (
        [
            (
                "_cuda/blocks.py",
                "choose_in_lane(logits, columns, lane, rest, scale, (",
                "choose_in_lane(logits, columns, lane ^ 1, rest, scale, (",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_methods]"],
    ),
    "CUDA: the heaviest column of a lane comes first": (
        [("_cuda/blocks.py", "            if i != heaviest:\n", "            if True:\n")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_methods]"],
    ),
    "CUDA: the last possible column misses its one": (
        [("_cuda/table.py", "tables.heads[CUT, uint64(at)] = c + 1", "tables.heads[CUT, uint64(at)] = c")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_tables]"],
    ),
    "CUDA: counts split by the words of another node": (
        [("_cuda/multinomial.py", "left, right, c + (step >> 1))", "left, right, c)")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_tables]"],
    ),
    "CUDA: a draw id that is not read": (
        [
            (
                "_cuda/rows.py",
                "uint64(call.counter[0]) if call.counter.size > 0 else uint64(call.draw)",
                "uint64(call.draw)",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_methods]"],
    ),
    "a streamed line of the line before": (
        [("_cpu/runs.py", "at + line * step * wide", "at + max(line - 1, 0) * step * wide")],
        ["test_streams.py::test_columns_around_a_line[600]"],
    ),
    "CUDA: all that equal the cut": (
        [
            (
                "_cuda/truncation.py",
                "                        if found.ties < found.equal:",
                "                        if found.ties < 0:",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_truncation]"],
    ),
    "CUDA: top_p of a mass without the last that top_k keeps": (
        [("_cuda/truncation.py", "rules.mass_limit(p, whole + beside)", "rules.mass_limit(p, whole)")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_truncation]"],
    ),
    "CUDA: equal keys in any order": (
        [
            (
                "_cuda/top_k.py",
                "goes_first(keys[j], at[j], keys[i], at[i])",
                "goes_first(keys[j], at[i], keys[i], at[j])",
            )
        ],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_top_k]"],
    ),
    "CUDA: a chosen column that stays in the rest": (
        [("_cuda/top_k.py", "                if i < k:\n", "                if i < k - 1:\n")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_top_k]"],
    ),
    "CUDA: a tie too many in an entropy": (
        [("_cuda/densities.py", "v += float64(often) - 1.0", "v += float64(often)")],
        ["cuda/test_backends.py::test_some_in_the_simulator[check_top_k]"],
    ),
    "a table without aliases": (
        [("_scalar/table.py", "    return column if own else entry", "    return column if own or not own else entry")],
        ["test_table.py::test_draws_fit", "test_table.py::test_draws_are_those_of_their_address[300]"],
    ),
    "a level by the column's word": (
        [
            (
                "_scalar/table.py",
                "(x0 << uint64(32)) | x1, (x2 << uint64(32)) | x3",
                "(x0 << uint64(32)) | x1, (x0 << uint64(32)) | x1",
            )
        ],
        ["test_table.py::test_draws_fit"],
    ),
    "a piece of a table that begins elsewhere": (
        [("_cpu/table.py", "1, n - done + 1) + unit:", "1, n - done + 1):")],
        ["test_table.py::test_a_table_does_not_depend_on_threads_or_pieces[4097]"],
    ),
    "masses without their share of the rest": (
        [("_cpu/table.py", "m + each + int64(seen < extra)", "m + each")],
        ["test_table.py::test_a_table_has_the_law[20000]"],
    ),
    "tables of all rows by one row's bits": (
        [("_cpu/table.py", "    stream = row_stream(p.stream, row)\n", "    stream = row_stream(p.stream, 0)\n")],
        ["test_table.py::test_rows_by_one_worker_or_by_all[float32]"],
    ),
    "a rule that knows the first sample": (
        [
            (
                "_host/tables.py",
                "    if columns <= BLOCK:\n        return samples >= max(64, columns >> 3)",
                "    if columns <= BLOCK:\n        return samples >= 1",
            )
        ],
        ["test_table.py::test_the_rule"],
    ),
    "pieces: no first winner": (
        [
            (
                "_cpu/categorical.py",
                "    if wins or winners.places[s] < 0:\n        if not wins:",
                "    if wins:\n        if not wins:",
            )
        ],
        ["test_accumulate.py::test_rows_of_low_logits[grouped--1000-float32]"],
    ),
    "what a large sum loses of the noise, forgotten": (
        [("_scalar/gumbel.py", "ABSORBING = 2.0**28", "ABSORBING = math.inf")],
        [
            "test_top_k.py::test_equal_keys_go_by_the_noise_that_their_sums_lost",
            "test_strangers.py::test_noise_that_huge_logits_absorb[1e+17-9000-float32]",
        ],
    ),
    "pieces: a tie for who comes last": (
        [
            (
                "_cpu/accumulate.py",
                "goes_first(key, at, other_key, other_at)",
                "goes_first(key, other_at, other_key, at)",
            )
        ],
        ["test_accumulate.py::test_the_noise_that_sums_lose_decides_across_pieces"],
    ),
    "pieces: a choice by the block's place in its piece": (
        [("_cpu/accumulate.py", "choice_word(number, int64(s)", "choice_word(block, int64(s)")],
        ["test_accumulate.py::test_one_row_gives_scalars[grouped]"],
    ),
    "CUDA: a barrier less after a histogram": (
        [
            (
                "_cuda/truncation.py",
                "                    histogram(row, own_blocks, interval, weighs, unit, scratch)\n"
                "                    cuda.syncthreads()\n",
                "                    histogram(row, own_blocks, interval, weighs, unit, scratch)\n",
            )
        ],
        ["cuda/test_backends.py::test_some_truncations_do_not_race_in_the_simulator"],
    ),
    "CUDA, compiled: a barrier less while lanes are halved": (
        [
            (
                "_cuda/blocks.py",
                "    h = LANES >> 1\n    while h > 0:\n        cuda.syncthreads()\n",
                "    h = LANES >> 1\n    while h > 0:\n",
            )
        ],
        ["cuda/test_backends.py::test_some_as_ptx"],
    ),
    "CUDA, compiled: a column behind the row": (
        [
            (
                "_cuda/blocks.py",
                "for i in range(t, columns.count, THREADS):\n            k =",
                "for i in range(t, columns.count + 1, THREADS):\n            k =",
            )
        ],
        ["cuda/test_backends.py::test_some_as_ptx"],
    ),
    "CUDA, compiled: a minimum of zeros": (
        [("_scalar/blocks.py", "LN2, 0.0 - log_total)", "LN2, -log_total)")],
        ["cuda/test_backends.py::test_some_as_ptx"],
    ),
    "counts of the wrong side": (
        [
            (
                "_cpu/multinomial.py",
                "tree.counts[at] = k if left <= right else n - k",
                "tree.counts[at] = k",
            ),
            (
                "_cpu/multinomial.py",
                "tree.counts[at + uint64(1)] = n - k if left <= right else k",
                "tree.counts[at + uint64(1)] = n - k",
            ),
        ],
        ["test_multinomial.py::test_small_n_against_enumeration[3]", "test_multinomial.py::test_moments[1000]"],
    ),
    "a squeeze that knows the sign": (
        [
            (
                "_scalar/binomial.py",
                "    d = abs(t - (1.0 if (mean - centre) + p >= 1.0 else 0.0))\n",
                "    d = t - (1.0 if (mean - centre) + p >= 1.0 else 0.0)\n",
            ),
            ("_scalar/binomial.py", "    bounded = (d > 20.0) &", "    bounded = (abs(d) > 20.0) &"),
            ("_scalar/binomial.py", "    e = d / variance\n", "    e = abs(d) / variance\n"),
        ],
        [
            "test_multinomial.py::test_binomial_variates_of_huge_n[0.5-1099511627776]",
            "test_multinomial.py::test_counts_of_many_categories_fit[1099511627776-4097]",
        ],
    ),
    "a rejection without a test": (
        [
            (
                "_scalar/binomial.py",
                "accepted = sure | (possible & bounded & (limit < middle - margin))",
                "accepted = sure | possible",
            )
        ],
        [
            "test_multinomial.py::test_binomial_variates_fit[3000-0.3]",
            "test_multinomial.py::test_binomial_variates_fit[21-0.48]",
        ],
    ),
    "a weighing of one side": (
        [
            (
                "_scalar/binomial.py",
                "(_deviance(x, mean, delta) + _deviance(y, other, -delta))",
                "_deviance(x, mean, delta)",
            )
        ],
        ["test_multinomial.py::test_binomial_variates_fit[200-0.5]"],
    ),
    "an inversion with an off-by-one": (
        [("_scalar/binomial.py", "product(float64(n - k) + 1.0, rate)", "product(float64(n - k), rate)")],
        ["test_multinomial.py::test_binomial_variates_fit[19-0.5]"],
    ),
    "nodes of a level with the same words": (
        [
            (
                "_cpu/multinomial.py",
                "        split = uint64(level.split) + i * uint64(level.step)\n",
                "        split = uint64(level.split)\n",
            )
        ],
        ["test_multinomial.py::test_moments[1000]"],
    ),
    "an entropy that rounds what is not the largest": (
        [("_cpu/entropy.py", "    if total < LONE:\n", "    if total < 0.0:\n")],
        ["test_densities.py::test_entropy_is_right[float32-1.0]"],
    ),
    "an entropy that forgets a second largest": (
        [
            (
                "_scalar/entropy.py",
                "        return m1, v1 + v2 + 1.0, a1 + a2\n",
                "        return m1, v1 + v2, a1 + a2\n",
            )
        ],
        ["test_densities.py::test_entropy_of_ties_and_certainty"],
    ),
    "a log-probability of the row before": (
        [
            (
                "_cpu/densities.py",
                "        row = at // p.samples\n",
                "        row = max(at // p.samples - 1, 0)\n",
            )
        ],
        ["test_densities.py::test_log_prob_of_every_category"],
    ),
    "a log-probability of -0 before it is cut": (
        [("_scalar/blocks.py", "LN2, 0.0 - log_total)", "LN2, -log_total)")],
        ["test_cuda_faults.py::test_log_prob_is_never_minus_zero_before_it_is_clipped"],
    ),
    "an upload over the default stream": (
        [("_device/libraries.py", "numba_cuda.to_device(array, self.stream)", "numba_cuda.to_device(array, 0)")],
        ["test_cuda_faults.py::test_uploads_go_over_the_stream_of_the_call"],
    ),
    "scratch of another stream before its event": (
        [("_device/stream_memory.py", "own = [one for one in large if one.event.query()]", "own = large")],
        ["test_cuda_faults.py::test_calls_at_a_time_do_not_meet_in_scratch"],
    ),
    "scratch of a graph lent again": (
        [("_device/stream_memory.py", "if numba_cuda.is_capturing(self._handle):\n", "if False:\n")],
        ["test_cuda_faults.py::test_what_is_captured_is_nobody_elses_for_good"],
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
sys.exit(pytest.main(["-q", "--tb=line", "-m", "", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.planted
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
