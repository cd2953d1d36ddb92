"""Faults of the CUDA side that the simulator does not show, one test for each, named after what failed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def can_compile():
    """Whether kernels can be compiled, with or without a GPU."""
    return all(importlib.util.find_spec(name) for name in ("numba_cuda", "cuda", "nvidia"))


def run(text, *arguments, **environment):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *arguments],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# --- minima and maxima, which take -0 for less than +0 on a GPU and drop NaN


def test_log_prob_is_never_minus_zero_before_it_is_clipped():
    """A GPU's minimum of -0 and 0 is -0, the CPU's compare and select gives +0."""
    from numbel._scalar.blocks import log_prob_beside, unclipped_log_prob

    zeros = 0.0, -0.0
    logits = *zeros, 5e-324, -5e-324, 1e-300, -1e-300, 1.0, -1.0, 1e300, -1e300
    seen = 0
    for x in logits:
        for high, low in ((1.4426950408889634, 2e-17), (5e-324, 0.0), (1.7976931348623157e308, 0.0), (1.0, -1e-17)):
            for r in (*zeros, 128.0, -128.0, x * high):
                for log_total in (*zeros, 2.3e-16, -1.2e-16, 700.0, -700.0):  # ln of a float64: none between
                    value = unclipped_log_prob(x, high, low, r, log_total)
                    seen += value == 0.0
                    assert value != 0.0 or not np.signbit(value)
                    assert not np.signbit(log_prob_beside(x, high, low, r, log_total)) or value < 0
    assert seen > 100


#: Minima and maxima whose operands may both be 0, or one of them NaN, and why that is no matter.
HARMLESS = {
    # cut at 0, of a value that is never -0: above
    ("min", "0"): {
        "choose", "sample_short", "largest_short", "choose_largest", "choose_kept",
        "find_cut", "given", "finish", "look_up",
    },
    # the largest offset of a row's blocks, of which the offsets are subtracted: e^(+0) and e^(-0) are 1
    ("max", ""): {"normalise", "weights", "split_rows", "count"},
    # of a sample's perturbed logit and a limit below its row's largest, which is never -0; of two masses, neither -0
    ("min", ""): {"conditional", "split_rows", "count"},
}  # fmt: skip

_EXTREMES = """
import collections, re, sys
import numba.cuda.dispatcher
from numba import cuda
from numbel._cuda import launch

class Device:
    compute_capability = (9, 0)

numba.cuda.dispatcher.get_current_device = lambda: Device
for module in launch.MODULES:
    for name, (function, signature) in module.kernels(sys.argv[1], "A").items():
        ptx, _ = cuda.compile_ptx(function, signature, cc=(9, 0), launch_bounds=launch.bounds(name, sys.argv[1]))
        constants = dict(re.findall(r"mov[.]f(?:32|64)\\s+(%\\w+), (0[df]\\w+);", ptx))
        written = collections.Counter(re.findall(r"^\\s*\\S+\\s+[{]?(%\\w+)", ptx, re.M))
        constants = {register: value for register, value in constants.items() if written[register] == 1}
        for operation, operands in re.findall(r"\\b((?:min|max)[.]\\S*f(?:32|64))\\s+%\\w+, ([^;]+);", ptx):
            print(name, operation, *(constants.get(each, each) for each in operands.split(", ")))
"""


@pytest.mark.long
@pytest.mark.parametrize("form", ["float32", "float64"])
def test_no_kernel_takes_a_minimum_that_could_meet_two_zeros(form):
    """NVVM makes minima and maxima of compare and select, where +0 and -0 compare equal and theirs do not."""
    if not can_compile():
        pytest.skip('needs pip install "numba-cuda[cu13]"')
    found = set()
    for line in run(_EXTREMES, form).splitlines():
        name, operation, *operands = line.split()
        constants = [int(each[2:], 16) for each in operands if not each.startswith("%")]
        if any(constants):
            continue  # never equal to a zero
        found.add((name, operation.partition(".")[0], "0" if constants else ""))
    assert found, "none is found"
    assert [one for one in sorted(found) if one[0] not in HARMLESS[one[1:]]] == []


# --- numba-cuda's internals


class Elsewhere:
    """An array of Numba's on a device."""

    def __init__(self, pointer):
        self.__cuda_array_interface__ = {"shape": (3,), "typestr": "<f4", "data": (pointer, False), "version": 3}


def test_the_device_of_an_array_is_that_of_its_memory(monkeypatch):
    """numba-cuda has no function that tells it: the driver is asked."""
    if not can_compile():
        pytest.skip('needs pip install "numba-cuda[cu13]"')
    from cuda.bindings import driver

    from numbel._libraries import Library

    asked = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    devices = {0x1000: 0, 0x2000: 1}

    def answer(attribute, pointer):
        assert attribute == asked
        codes = driver.CUresult
        return (codes.CUDA_SUCCESS, devices[pointer]) if pointer in devices else (codes.CUDA_ERROR_INVALID_VALUE, None)

    monkeypatch.setattr(driver, "cuPointerGetAttribute", answer)
    assert [Library.device_of(Elsewhere(pointer)) for pointer in devices] == [0, 1]
    with pytest.raises(ValueError, match="0x3000 is no address of a CUDA device: CUDA_ERROR_INVALID_VALUE"):
        Library.device_of(Elsewhere(0x3000))
