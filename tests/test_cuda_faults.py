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
