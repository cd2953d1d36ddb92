"""The checks of device arrays on their backends, each in a process of its own: `python tests/cuda/run.py` runs one.

In the simulator kernels are Python: it finds races, and reads of memory that nobody wrote. What the compiler made of
them runs as PTX on this processor, bit for bit the CPU's, with every access checked. A card, where there is one, runs
them all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptx import driver
from ptx.facts import Facts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: A weight times a power of two is exact, fused or not: one such product in each copy of the loops over a block.
FUSED = {"block_nodes": 4, "survey": 4, "kept_nodes": 10, "rest_nodes": 4, "choose": 2, "choose_kept": 5}
#: Minima and maxima whose operands may both be 0, or one of them NaN, and why that is no matter.
HARMLESS = {
    # cut at 0, of a value that is never -0: tests/test_cuda_faults.py
    ("min", "0"): {
        "choose", "sample_short", "largest_short", "choose_largest", "choose_kept",
        "find_cut", "given", "finish", "look_up",
    },
    # of a lane's largest weight and 0: a weight is neither -0 nor, in a block that is chosen, NaN
    ("max", "0"): {"choose", "choose_kept"},
    # the largest offset of a row's blocks, of which the offsets are subtracted: e^(+0) and e^(-0) are 1
    ("max", ""): {"normalise", "weights", "split_rows", "count"},
    # of a sample's perturbed logit and a limit below its row's largest, which is never -0; of two masses, neither -0
    ("min", ""): {"conditional", "split_rows", "count"},
}  # fmt: skip
#: What is watched for races: each kernel, rows of more blocks than a CUDA block has threads, and CUDA blocks that do
#: one item after the other. Other values take the same barriers: they run as PTX, a thousand times as fast.
WATCHED = (
    "check_methods.check_rows", "check_methods.check_grids", "check_methods.check_blocks",
    "check_methods.check_counter",
    "check_ragged.check_grids", "check_ragged.check_long",
    "check_tables.check_rows", "check_tables.check_rest", "check_tables.check_some",
    "check_top_k.check_densities_widely", "check_top_k.check_long_rows", "check_top_k.check_some",
    "check_truncation.check_blocks", "check_truncation.check_launches", "check_truncation.check_ragged",
    "check_truncation.check_some",
)  # fmt: skip


def run_checks(backend, folder, *options):
    """The report of `run.py`: AssertionError where a check fails."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), backend, *options, "--report", str(report)],
        env=os.environ | {"NUMBEL_QUIET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2400,
    )
    assert report.exists(), done.stderr[-3000:]
    found = json.loads(report.read_text())
    assert not found["failed"], "\n".join(found["failed"].values())[-5000:]
    assert done.returncode == 0, done.stderr[-3000:]
    assert found["seconds"], "nothing was checked"
    return found


def has_card():
    try:
        from numba import cuda

        return cuda.is_available()
    except ImportError:
        return False


# --- the simulator: the longest test comes first, or one worker waits for it at the end


@pytest.mark.long
def test_no_kernel_races_in_the_simulator(tmp_path):
    """Nor reads what nobody wrote, nor beyond an array; every kernel of float32 is watched."""
    found = run_checks("simulator", tmp_path, "--races", "--formats", "float32", *WATCHED)
    # strided rows take the Python that contiguous rows take for a last block; tables read their row as it lies
    missed = [label for label in found["never launched"] if label[2] != "A"]
    assert missed == [["widen", "float32", "C"]], missed


# --- PTX on this processor

needs_compiler = pytest.mark.skipif(driver.missing(), reason=driver.NEEDED)


@pytest.mark.long
@needs_compiler
@pytest.mark.parametrize(
    "formats", [("float32",), ("float64", "float16", "bfloat16")], ids=("float32", "other formats")
)
def test_what_the_compiler_made_gives_the_cpus_bits(tmp_path, formats):
    """All kernels of float32 in every layout, and of the other formats those that the checks take.

    Nor does the machine code spill, or round otherwise than the CPU: `.approx` and `.ftz` do not occur. NVVM fuses no
    product with a sum (a compilation without its contraction has as many fma), nor does ptxas (forbidding it changes no
    number of sums and products). No minimum or maximum meets two zeros, of which it takes -0 for the smaller.
    """
    found = run_checks("ptx", tmp_path, "--facts", "--formats", ",".join(formats))
    if formats == ("float32",):
        # tables read their row as it lies
        assert found["never launched"] == [["widen", "float32", "C"]], found["never launched"]
    assert len(found["facts"]) > 80
    for what, target, *facts in found["facts"]:
        assert_exact(what[0], Facts(*facts), (*what, target))
    assert any(Facts(*facts).extremes for _, _, *facts in found["facts"]), "no minimum is found"


@pytest.mark.long
@pytest.mark.planted
@needs_compiler
def test_every_kernel_of_every_format_is_exact(tmp_path):
    """Also those that are not executed above: nine minutes of a processor, for whoever changes a kernel."""
    found = run_checks("ptx", tmp_path, "--facts", "--every-kernel", "check_methods.check_counter")
    assert len({tuple(what) for what, *_ in found["facts"]}) > 350
    for what, target, *facts in found["facts"]:
        assert_exact(what[0], Facts(*facts), (*what, target))


def assert_exact(name, facts, what):
    """Nothing that would be slow, or differ from the CPU's bits."""
    assert (facts.spilled_bytes, facts.approximate, facts.flushed, facts.narrow) == (0, False, False, []), (what, facts)
    assert facts.registers <= 255, what
    assert facts.contracted is None or facts.contracted <= FUSED.get(name, 0), (what, facts.contracted)
    assert facts.same_arithmetic in (None, True), what
    assert not [each for each in facts.extremes if name not in HARMLESS[tuple(each)]], (what, facts.extremes)


@pytest.mark.long
@pytest.mark.planted
@needs_compiler
def test_some_as_ptx(tmp_path):
    """What planted bugs are looked for with."""
    run_checks("ptx", tmp_path, "--formats", "float32", "check_methods.check_some", "check_ragged.check_some")


# --- a part of it in the simulator


@pytest.mark.parametrize(
    "module",
    [
        pytest.param("check_methods", marks=(pytest.mark.long, pytest.mark.planted)),
        "check_ragged",
        pytest.param("check_tables", marks=(pytest.mark.long, pytest.mark.planted)),
        pytest.param("check_truncation", marks=(pytest.mark.long, pytest.mark.planted)),
        "check_top_k",
    ],
)
def test_some_in_the_simulator(tmp_path, module):
    """What planted bugs are looked for with; two of them, in seconds, for whoever has no compiler of kernels."""
    run_checks("simulator", tmp_path, "--formats", "float32", f"{module}.check_some")


@pytest.mark.long
@pytest.mark.planted
def test_some_truncations_do_not_race_in_the_simulator(tmp_path):
    run_checks("simulator", tmp_path, "--races", "--formats", "float32", "check_truncation.check_some")


@pytest.mark.long
def test_torch_on_a_device_in_the_simulator(tmp_path):
    pytest.importorskip("torch")
    run_checks("simulator", tmp_path, "--formats", "float32,bfloat16", "check_torch")


# --- a card


@pytest.mark.long
def test_a_card_gives_the_cpus_bits(tmp_path):
    if not has_card():
        pytest.skip("needs a card")
    run_checks("card", tmp_path)
