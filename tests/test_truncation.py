"""top_k, top_p and min_p: which columns are kept, the law of the draw from them, and its bits."""

from __future__ import annotations

import itertools
import math

import numba
import numpy as np
import pytest

import make_golden
import numbel
import oracle
from numbel import _dispatch
from statistics_helpers import assert_fits, assert_independent, zipf

DTYPES = make_golden.dtypes()
METHODS = ("grouped", "gumbel_max")
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
each_method = pytest.mark.parametrize("method", METHODS)


def assert_same(got, expected):
    """Every part of two samples, bit for bit."""
    for name, a, b in zip(("indices", "log_prob", "logsumexp"), got, expected, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


def assert_is_the_oracles(logits, row, sample, order, temperature, seed, draw, method="grouped"):
    """One row of a sample with its trailing num_samples: the draw from the kept columns, and their log-probabilities."""
    x = oracle.masked(logits, order)
    samples = sample.indices.shape[-1]
    if method == "grouped":
        expected = oracle.grouped(x, temperature, seed, draw, row, samples, tag=oracle.TRUNCATED)
    else:
        expected = [oracle.gumbel_max(x, temperature, seed, draw, row, s) for s in range(samples)]
    assert sample.indices[row].tolist() == expected
    logs = oracle.log_probabilities(oracle.widened(x)[sorted(order)], temperature)
    places = np.searchsorted(sorted(order), expected)
    assert np.allclose(sample.log_prob[row].astype(float), logs[places].astype(float), rtol=2e-6, atol=2e-6)
    whole = float(oracle.log_sum_exp(oracle.widened(logits), temperature))
    assert np.isclose(float(sample.logsumexp[row]), whole, rtol=2e-6, atol=2e-6)


# ------------------------------------------------------------------------------------------------ small rows, exactly


def every_pattern(columns, dtype, levels=(0.0, -0.5, -np.inf)):
    """Every row over a few levels that has a possible category."""
    rows = [p for p in itertools.product(levels, repeat=columns) if max(p) > -np.inf]
    return np.array(rows, np.float64).astype(dtype)


PARTS = (0.1, 0.2, 0.25, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 0.999, 1.0, 1e-30)
LEAST = (0.0, 0.3, math.exp(-0.5), 0.7, 1.0)


@each_dtype
def test_every_tie_pattern(dtype):
    """Rows of up to 6 columns over two levels and -inf: 1086 patterns, each with 8 settings; the twin's bits."""
    rng = np.random.default_rng(1)
    for columns in range(1, 7):
        patterns = np.repeat(every_pattern(columns, dtype), 8, axis=0)
        rows = len(patterns)
        top_k = rng.integers(1, columns + 1, rows)
        top_p, min_p = rng.choice(PARTS, rows), rng.choice(LEAST, rows)
        top_k[::8], min_p[1::8], top_p[2::8] = columns, 0, 1
        got = numbel.Generator(9, draw=2).sample(patterns, 6, top_k=top_k, top_p=top_p, min_p=min_p)
        words = np.array(oracle.block_words(9, 2, 0, np.arange(6)[None], np.arange(rows)[:, None], oracle.TRUNCATED))
        plain = numbel.Generator(9, draw=2).sample(patterns, 6)
        masses = {}
        for row, x in enumerate(patterns):
            k, p, least = int(top_k[row]), float(top_p[row]), float(min_p[row])
            if k >= columns and p == 1 and least == 0:
                assert_same([part[row] for part in got], [part[row] for part in plain])
                continue
            key = x.tobytes()
            if key not in masses:
                masses[key] = oracle.Block(oracle.widened(x), 1.0).integers()
            order, _ = oracle.kept(x, 1.0, k, p, least, mass=masses[key])
            # exact rationals agree wherever their own boundary is not within rounding of a prefix
            real, gap = oracle.kept(x, 1.0, k, p, least)
            levels = set(x[x > -np.inf].tolist())
            if gap > 1e-6 or len(levels) == 1:
                assert order == real, (x, k, p, least)
            weights = oracle.Block(oracle.widened(oracle.masked(x, order)), 1.0).integers()
            for s in range(6):
                word = (int(words[2, row, s]) << 32) | int(words[3, row, s])
                running, target = np.cumsum(np.array(weights, object)), (word * sum(weights)) >> 64
                assert got.indices[row, s] == int(np.argmax(running > target)), (x, k, p, least)
            logs = oracle.log_probabilities(oracle.widened(x)[order], 1.0)
            expected = [float(logs[order.index(i)]) for i in got.indices[row]]
            assert np.allclose(got.log_prob[row].astype(float), expected, rtol=1e-6, atol=1e-6)
        assert got.logsumexp.tobytes() == plain.logsumexp.tobytes()


def test_equal_columns_keep_the_decimal_share():
    """0.9 of ten equal columns is nine, though 0.9 in binary is a little more."""
    for columns, p, count in ((10, 0.9, 9), (10, 0.1, 1), (5, 0.6, 3), (3, 1 / 3, 1), (7, 0.5, 4), (1000, 0.7, 700)):
        for dtype in DTYPES.values():
            indices = numbel.Generator(3).categorical(np.zeros(columns, dtype), 40 * count, top_p=p)
            assert set(indices.tolist()) == set(range(count))


# ------------------------------------------------------------------------------------------------------- longer rows


def shapes_of_rows(columns, dtype, rng):
    """Rows that take every way to a cut: few columns above it, many, ties, none near, far apart."""
    rows = {
        "peaked": -2.0 * np.log(1 + rng.permutation(columns)) + rng.normal(size=columns),
        "flat": rng.normal(size=columns) * 0.1,
        "equal": np.full(columns, -3.0),
        "one above": np.where(np.arange(columns) == columns // 3, 1.0, 0.0),
        "one below": np.where(np.arange(columns) == 7, -1.0, 0.0),
        "geometric": -0.01 * np.arange(columns),
        "ascending": 0.003 * np.arange(columns),
        "two levels": np.where(rng.random(columns) < 0.3, 0.0, -1.0),
        "ties": np.round(rng.normal(size=columns) * 3) / 2,
        "holes": np.where(rng.random(columns) < 0.9, -np.inf, rng.normal(size=columns)),
        "lone": np.where(np.arange(columns) == columns - 1, -5.0, -np.inf),
        "signed zeros": np.where(rng.random(columns) < 0.5, -0.0, 0.0),
    }
    if np.dtype(dtype) != np.float16:
        rows["huge"] = rng.normal(size=columns) * 1e30
        rows["far"] = 1e7 + np.round(rng.normal(size=columns) * 4)
    if np.dtype(dtype) == np.float32:
        rows["subnormal"] = rng.integers(-200, 200, columns) * 1.401298464324817e-45
    if np.dtype(dtype) == np.float64:
        rows["subnormal"] = rng.integers(-200, 200, columns) * 5e-324
    return {name: row.astype(dtype) for name, row in rows.items()}


SETTINGS = (
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 3000},
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"top_p": 0.9999},
    {"min_p": 0.05},
    {"min_p": 1e-9},
    {"min_p": 1.0},
    {"top_k": 200, "top_p": 0.95},
    {"top_k": 3500, "top_p": 0.5, "min_p": 0.4},
    {"top_p": 0.8, "min_p": 0.1},
    {"top_k": 9, "min_p": 0.9},
)


@each_dtype
@pytest.mark.parametrize("columns", [100, 4096, 20_000])
def test_rows_are_the_oracles(dtype, columns):
    rng = np.random.default_rng(columns)
    named = shapes_of_rows(columns, dtype, rng)
    logits = np.stack(list(named.values()))
    for draw, settings in enumerate(SETTINGS):
        if settings.get("top_k", 0) >= columns:
            continue
        temperature = (1.0, 0.7, 3.0)[draw % 3]
        got = numbel.Generator(5, draw=draw).sample(logits, 2, temperature=temperature, **settings)
        race = numbel.Generator(5, draw=draw).sample(
            logits, 2, temperature=temperature, method="gumbel_max", **settings
        )
        for row, (name, x) in enumerate(named.items()):
            order, gap = oracle.kept(x, temperature, **settings)
            if gap < 3e-6 and len(set(x[order].astype(float).tolist())) > 1:
                continue
            try:
                assert_is_the_oracles(x, row, got, order, temperature, 5, draw)
                if columns <= 4096:
                    assert_is_the_oracles(x, row, race, order, temperature, 5, draw, "gumbel_max")
            except AssertionError as error:
                raise AssertionError(f"{name}, {settings}, {len(order)} kept, gap {gap}") from error
        assert race.logsumexp.tobytes() == got.logsumexp.tobytes()
