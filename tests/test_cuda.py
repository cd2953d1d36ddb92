"""CUDA without a GPU: numbel.cuda on the host, every kernel in the simulator, and every kernel compiled."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import scipy.stats

import numbel
import numbel.cuda
import oracle

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (41, 5000)


def run(text, **environment):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# --- device functions on the host


@numba.njit
def fill(function, seed, draw, out):
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = function(seed, draw, row, column)


def values(name, dtype, seed=7, draw=3, shape=SHAPE):
    out = np.empty(shape, dtype)
    fill(getattr(numbel.cuda, f"{name}_{np.dtype(dtype).name}"), np.uint64(seed), np.uint64(draw), out)
    return out


def words(seed=7, draw=3, shape=SHAPE):
    """V of every address as longdouble, and 1 - V."""
    x, y = (
        np.stack([oracle.noise_words(seed, draw, np.arange(shape[1]), 0, row, tag) for row in range(shape[0])])
        for tag in (oracle.NOISE, oracle.REFINEMENT)
    )
    low = ((x.astype(np.uint64) << np.uint64(32)) | y.astype(np.uint64)).astype(np.longdouble) + 0.5
    scale = np.longdouble(2) ** -64
    return low * scale, (np.longdouble(2) ** 64 - low) * scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("seed", "draw"), [(7, 3), (0, 0), (2**64 - 1, 2**64 - 1)])
def test_gumbel_is_the_generators(dtype, seed, draw):
    expected = numbel.Generator(seed, draw).gumbel(size=SHAPE, dtype=dtype)
    assert values("gumbel", dtype, seed, draw).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("dtype", "ulp"), [(np.float32, 4.5), (np.float64, 2.5)])
def test_uniform_and_exponential_are_the_oracles(dtype, ulp):
    v, rest = words()
    eps = np.finfo(dtype).eps
    # float32 takes the second word once in 2^11 only: near 0 that is 2^-21 of V, elsewhere a rounding
    slack = 2.0**-20 if dtype is np.float32 else 0
    uniform = values("uniform", dtype)
    assert np.max(np.abs(uniform / v - 1)) <= eps + slack
    assert uniform.min() > 0
    assert uniform.max() < 1
    exponential = values("exponential", dtype)
    expected = np.where(v < 0.5, -np.log1p(-v), -np.log(rest))
    assert np.max(np.abs(exponential - expected) / np.maximum(expected, eps)) <= ulp * eps + slack


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_laws(dtype):
    """A Kolmogorov-Smirnov distance of 0.006 would be seen: 205,000 values, alpha 1e-6."""
    assert scipy.stats.kstest(values("uniform", dtype).ravel(), "uniform").pvalue > 1e-6
    assert scipy.stats.kstest(values("exponential", dtype).ravel(), "expon").pvalue > 1e-6


@numba.njit
def best(logits, temperature, seed, draw, order, out):
    for row in range(logits.shape[0]):
        state = numbel.cuda.GUMBEL_MAX_START
        for column in order:
            logit = np.float64(logits[row, column]) / temperature
            state = numbel.cuda.gumbel_max_update(state, logit, seed, draw, row, column)
        out[row] = state[1]


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 1.0, 50.0])
def test_gumbel_max_update_is_the_generators(temperature):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((300, 3000)).astype(np.float32) * rng.choice([0.1, 1, 30, 1e20], (300, 1))
    logits[3] = -np.inf
    logits[4, :-1] = -np.inf
    logits[5, ::7] = -np.inf
    out = np.empty(300, np.int64)
    expected = numbel.Generator(7, 3).categorical(
        logits, method="gumbel_max", temperature=temperature, on_invalid="flag"
    )
    for order in (np.arange(3000), np.arange(3000)[::-1].copy(), rng.permutation(3000)):
        best(logits, temperature, np.uint64(7), np.uint64(3), order, out)
        np.testing.assert_array_equal(out, expected)


def test_gumbel_max_update_keeps_the_smaller_index_and_loses_nan():
    update = numbel.cuda.gumbel_max_update
    start = numbel.cuda.GUMBEL_MAX_START
    assert update(start, -np.inf, 1, 0, 0, 3) == (-np.inf, -1)
    assert update(start, np.nan, 1, 0, 0, 3) == (-np.inf, -1)
    value, index = update(start, 1e300, 1, 0, 0, 7)  # where the noise is rounded away, all perturbed logits are equal
    assert (value, index) == (1e300, 7)
    assert update((value, index), 1e300, 1, 0, 0, 3)[1] == 3
    assert update((value, index), 1e300, 1, 0, 0, 9)[1] == 7


def test_the_filter_is_conservative():
    """No refinement of a word lifts G above the bound that drops it."""
    from numbel._scalar.gumbel import cannot_exceed, gumbel_float64

    rng = np.random.default_rng(2)
    few = [1, 2, 3, 1023, 1024, 1025, 2**20, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
    for x in [*few, *(1 << np.arange(32)), *rng.integers(1, 2**32, 2000)]:
        highest = gumbel_float64(np.uint64(x), np.uint64(0))
        assert not cannot_exceed(np.uint64(x), 0.0, highest)
        # and it is not far above: the exponent of x alone leaves ln 2, and V below 1/2 is near its E
        assert x >= 2**31 or cannot_exceed(np.uint64(x), 0.0, highest + 1.1)
    assert not cannot_exceed(np.uint64(0), 0.0, 45.0)


def test_the_example(capsys):
    spec = importlib.util.spec_from_file_location("stochastic_codebook", ROOT / "examples" / "stochastic_codebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found, expected = module.main(["--codes", "64"])
    np.testing.assert_array_equal(found, expected)
    assert "drawn as from the stored logits: 1.0000" in capsys.readouterr().out


# --- in the simulator


def test_the_example_in_the_simulator():
    text = (
        "import sys; sys.path.insert(0, 'examples'); import stochastic_codebook as s, numpy as np;"
        "found, expected = s.main(['--device', 'cuda', '--points', '70', '--codes', '20']);"
        "assert np.array_equal(found, expected) and len(found) == 70"
    )
    run(text, NUMBA_ENABLE_CUDASIM="1")
