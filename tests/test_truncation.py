"""top_k, top_p and min_p: which columns are kept, the law of the draw from them, and its bits."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math

import numba
import numpy as np
import pytest

import make_golden
import numbel
import oracle
from numbel._host import dispatch
from numbel._scalar import truncation as rules
from statistics_helpers import assert_fits, assert_independent, zipf

DTYPES = make_golden.dtypes()
METHODS = ("grouped", "gumbel_max")
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def one_by_one(monkeypatch):
    """Called, has short rows done by the kernel of long ones."""

    def switch():
        monkeypatch.setattr(dispatch, "_MANY", 1 << 60)
        monkeypatch.setattr(dispatch, "_CUT_OF_FEW", 0)

    return switch


def assert_same(got, expected):
    """Every part of two samples, bit for bit."""
    for name, a, b in zip(("indices", "log_prob", "logsumexp"), got, expected, strict=False):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


def assert_is_the_oracles(logits, row, sample, order, temperature, seed, draw, method="grouped"):
    """One row of a sample of several: the draw from the kept columns, and their log-probabilities."""
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
def test_every_tie_pattern(dtype, one_by_one):
    """Rows of up to 6 columns over two levels and -inf: 1086 patterns, each with 8 settings; the twin's bits."""

    @functools.cache
    def of_row(key):
        """Integer masses, exact ones and log-probabilities of a row, which is what is left of many others."""
        x = np.frombuffer(key, dtype)
        possible = oracle.widened(x)[x > -np.inf]
        integers = oracle.Block(oracle.widened(x), 1.0).integers()
        return integers, oracle.masses(x, 1.0), oracle.log_probabilities(possible, 1.0)

    rng = np.random.default_rng(1)
    calls = []
    for columns in range(1, 7):
        patterns = np.repeat(every_pattern(columns, dtype), 8, axis=0)
        rows = len(patterns)
        top_k = rng.integers(1, columns + 1, rows)
        top_p, min_p = rng.choice(PARTS, rows), rng.choice(LEAST, rows)
        top_k[::8], min_p[1::8], top_p[2::8] = columns, 0, 1
        limits = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
        got = numbel.Generator(9, draw=2).sample(patterns, 6, **limits)
        calls.append((patterns, limits, got))
        words = np.array(oracle.block_words(9, 2, 0, np.arange(6)[None], np.arange(rows)[:, None], oracle.TRUNCATED))
        plain = numbel.Generator(9, draw=2).sample(patterns, 6)
        for row, x in enumerate(patterns):
            k, p, least = int(top_k[row]), float(top_p[row]), float(min_p[row])
            if k >= columns and p == 1 and least == 0:
                assert_same([part[row] for part in got], [part[row] for part in plain])
                continue
            integers, exact, _ = of_row(x.tobytes())
            order, _ = oracle.kept(x, 1.0, k, p, least, mass=integers)
            # exact rationals agree wherever their own boundary is not within rounding of a prefix
            real, gap = oracle.kept(x, 1.0, k, p, least, mass=exact)
            levels = set(x[x > -np.inf].tolist())
            if gap > 1e-6 or len(levels) == 1:
                assert order == real, (x, k, p, least)
            weights, _, logs = of_row(oracle.masked(x, order).tobytes())
            running = np.cumsum(np.array(weights, object))
            for s in range(6):
                word = (int(words[2, row, s]) << 32) | int(words[3, row, s])
                assert got.indices[row, s] == int(np.argmax(running > (word * running[-1]) >> 64)), (x, k, p, least)
            expected = logs[np.searchsorted(sorted(order), got.indices[row])].astype(float)
            assert np.allclose(got.log_prob[row].astype(float), expected, rtol=1e-6, atol=1e-6)
        assert got.logsumexp.tobytes() == plain.logsumexp.tobytes()
    one_by_one()
    for patterns, limits, got in calls:
        assert_same(numbel.Generator(9, draw=2).sample(patterns, 6, **limits), got)


def test_equal_columns_keep_the_decimal_share():
    """0.9 of ten equal columns is nine, though 0.9 in binary is a little more."""
    for columns, p, count in ((10, 0.9, 9), (10, 0.1, 1), (5, 0.6, 3), (3, 1 / 3, 1), (7, 0.5, 4), (1000, 0.7, 700)):
        for dtype in DTYPES.values():
            indices = numbel.Generator(3).categorical(np.zeros(columns, dtype), 40 * count, top_p=p)
            assert set(indices.tolist()) == set(range(count))


@each_dtype
def test_lists_of_a_block_choose_by_lanes(dtype):
    """The columns that are kept share lanes: the draw from their list is the draw from the masked row."""
    rng = np.random.default_rng(15)
    x = rng.uniform(-40, -30, (6, 5000)).astype(dtype)
    for row in range(6):
        for lane in rng.choice(512, 4, replace=False):
            x[row, lane::512] = rng.uniform(-4, 0, x[row, lane::512].size)
    x[5] = rng.permutation(x[5])
    sample = numbel.Generator(15).sample(x, 60, top_k=24)
    for row in range(6):
        order, _ = oracle.kept(x[row], top_k=24)
        assert_is_the_oracles(x[row], row, sample, order, 1.0, 15, 0)


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
        "holes": np.where((rng.random(columns) < 0.9) & (np.arange(columns) > 0), -np.inf, rng.normal(size=columns)),
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


@each_dtype
@each_method
@pytest.mark.parametrize("columns", [1, 2, 7, 33, 130, 256, 512])
def test_rows_many_at_a_time_and_alone(dtype, method, columns, one_by_one):
    """Every kind of row and of limits in one call: the same bits from either kernel, in any layout."""
    rng = np.random.default_rng(columns)
    rows = 70
    x = rng.standard_normal((rows, columns)) * rng.choice([0.1, 1.0, 30.0], (rows, 1))
    x[1] = np.round(x[1])  # ties
    x[2], x[3] = 0.0, -0.0
    x[4, ::2] *= -0.0
    x[5, rng.random(columns) < 0.7] = -np.inf
    x[6] = -np.inf
    x[7, columns // 2], x[8, 0] = np.nan, np.inf
    x[9] *= 6e4 / np.abs(x[9]).max()
    x = x.astype(dtype)
    with np.errstate(over="ignore"):
        x[10] = (x[10].astype(float) * 1e30).astype(dtype) if np.dtype(dtype).itemsize > 2 else x[10]
    each = {
        "top_k": rng.choice([1, 2, 5, columns, columns + 9, 1 << 62], rows),
        "top_p": rng.choice([1e-30, 0.3, 0.9, 1.0], rows),
        "min_p": rng.choice([0.0, 0.0, 0.05, 1.0], rows),
    }
    some = [{name: each[name]} for name in each] + [{"top_k": 1}, {"top_p": 0.9}, {"min_p": 0.1}, each]
    rest = {
        "temperature": rng.choice([0.0, 0.3, 1.0, 7.0], rows),
        "row_ids": rng.integers(0, 1 << 56, rows),
        "row_mask": rng.random(rows) < 0.9,
    }

    def drawn():
        found = []
        for array in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
            for limits in some:
                for options in ({}, rest):
                    generator = numbel.Generator(3, draw=7)
                    draw = generator.sample(array, 3, method=method, on_invalid="flag", **limits, **options)
                    generator = numbel.Generator(3, draw=7)
                    alone = generator.categorical(array, method=method, on_invalid="flag", **limits, **options)
                    found.append((*draw, alone))
        return found

    across = drawn()
    one_by_one()
    for a, b in zip(across, drawn(), strict=True):
        assert_same(a, b)
        assert np.array_equal(a[3], b[3])


def test_the_smallest_temperature():
    """Few rows and many, short ones and long."""
    for columns in (127, 9000):
        x = (np.linspace(-1, 1, columns) * 2e-30).astype(np.float32)

        def draw(rows, x=x):
            many = np.broadcast_to(x, (rows, len(x)))
            return numbel.default_rng(1).sample(many, 3, temperature=2.0**-100, top_p=0.9)

        few, many = draw(15), draw(16)
        assert_same([part[:15] for part in many], few)
        assert len(np.unique(many.indices)) > 20


def test_zeros_of_either_sign_are_equal():
    """A cut among 12,000 zeros of random signs, too many for a list: the first of them by index are kept."""
    rng = np.random.default_rng(4)
    x = np.where(rng.random(20_000) < 0.6, 0.0, rng.normal(size=20_000)) * rng.choice([-1.0, 1.0], 20_000)
    x = x.astype(np.float32)[None]
    for k in (9000, 12_000, 15_000):
        order, _ = oracle.kept(x[0], 1.0, top_k=k)
        assert_is_the_oracles(x[0], 0, numbel.Generator(5).sample(x, 200, top_k=k), order, 1.0, 5, 0)


# --------------------------------------------------------------------------------------------------------- the race


@each_dtype
def test_the_race_is_the_argmax_of_the_same_noise(dtype):
    rng = np.random.default_rng(3)
    named = shapes_of_rows(20_000, dtype, rng)
    for name in ("huge", "far"):  # logit + noise rounds the noise away
        named.pop(name, None)
    logits = np.stack(list(named.values()))
    noise = numbel.Generator(5, draw=1).gumbel(size=logits.shape, dtype=np.float64)
    for settings in ({"top_k": 40}, {"top_p": 0.7}, {"min_p": 0.01}, {"top_k": 15_000, "top_p": 0.99}):
        got = numbel.Generator(5, draw=1).categorical(logits, temperature=0.5, method="gumbel_max", **settings)
        for row, x in enumerate(named.values()):
            order, gap = oracle.kept(x, 0.5, **settings)
            if gap < 3e-6 and len(set(x[order].astype(float).tolist())) > 1:
                continue
            keys = np.full(len(x), -np.inf)
            keys[order] = x[order].astype(np.float64) / 0.5 + noise[row, order]
            assert got[row] == np.argmax(keys)


# ---------------------------------------------------------------------------------------------------------- the law


@each_method
@pytest.mark.parametrize("columns", [64, 9000])
@pytest.mark.parametrize(
    "settings",
    [{"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.02}, {"top_k": 30, "top_p": 0.9, "min_p": 0.05}],
    ids=["top_k", "top_p", "min_p", "all"],
)
def test_the_truncated_law(settings, columns, method):
    """40,000 draws: detects a bias of 0.011 of a category of probability 0.05; pairs of samples are independent."""
    x = zipf(columns, steps=12.0 * columns / 64)
    order, _ = oracle.kept(x, 1.0, **settings)
    p = np.zeros(columns)
    p[order] = oracle.probabilities(x[order])
    indices = numbel.Generator(77).categorical(x, 40_000, method=method, **settings)
    counts = np.bincount(indices, minlength=columns)
    assert_fits(counts, p)
    places = np.searchsorted(np.sort(order), indices)
    assert_independent(places[::2], places[1::2], p[np.sort(order)])


def test_a_law_over_many_blocks():
    """A flat row cut in its 60th of 64 blocks, 30,000 draws: a block's share (0.017) detects 0.0054."""
    columns, p = 1 << 18, 0.93
    indices = numbel.Generator(8).categorical(np.zeros(columns, np.float32), 30_000, top_p=p)
    last = math.floor(columns * p)
    assert indices.max() <= last
    edges = np.append(np.arange(0, last, 4096), last + 1)
    assert_fits(np.histogram(indices, edges)[0], np.diff(edges))


# ------------------------------------------------------------------------------------------------------- parameters


@each_method
@pytest.mark.parametrize("columns", [40, 5000])
def test_each_row_has_its_own(columns, method):
    """A batch is its rows: any mixture, rows that are off, and rows of temperature 0."""
    rng = np.random.default_rng(columns)
    logits = rng.normal(size=(4, 6, columns)).astype(np.float32) * 2
    top_k = rng.choice([1, 3, 20, columns], (4, 6))
    top_p, min_p = rng.choice([0.2, 0.9, 1.0], (6,)), rng.choice([0.0, 0.3, 1.0], (4, 1))
    temperature = rng.choice([0.0, 0.5, 1.0], (4, 6))
    temperature[0, 0], top_k[0, 0], top_p[0], min_p[0, 0] = 1.0, columns, 1.0, 0.0
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    whole = numbel.Generator(3).sample(logits, 3, method=method, **settings)
    spread = {name: np.broadcast_to(value, (4, 6)) for name, value in settings.items()}
    for i, k in np.ndindex(4, 6):
        own = {name: value[i, k : k + 1] for name, value in spread.items()}
        part = numbel.Generator(3).sample(logits[i, k : k + 1], 3, method=method, row_ids=[6 * i + k], **own)
        assert_same([entry[i, k] for entry in whole], [entry[0] for entry in part])
        if own["temperature"][0] == 0:
            assert set(whole.indices[i, k].tolist()) == {int(logits[i, k].argmax())}
            assert set(whole.log_prob[i, k].tolist()) == {0.0}
    plain = numbel.Generator(3).sample(logits, 3, method=method)
    assert_same([entry[0, 0] for entry in whole], [entry[0, 0] for entry in plain])


@each_method
def test_switched_off(method):
    """k >= n, p = 1, min_p = 0: the untruncated bits, as scalars and for single rows of a batch."""
    for columns in (30, 400, 70_000):
        logits = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
        plain = numbel.Generator(6).sample(logits, 2, method=method)
        for settings in (
            {"top_k": columns},
            {"top_k": 1 << 80, "top_p": 1, "min_p": 0},
            {"top_k": [columns, columns + 9, 1 << 40], "top_p": np.ones(3, np.float32)},
        ):
            assert_same(numbel.Generator(6).sample(logits, 2, method=method, **settings), plain)
        mixed = numbel.Generator(6).sample(logits, 2, method=method, top_k=[columns, 5, columns])
        for row in (0, 2):
            assert_same([part[row] for part in mixed], [part[row] for part in plain])
        assert mixed.log_prob[1].tobytes() != plain.log_prob[1].tobytes()


def test_one_kept_column_is_certain():
    for columns in (5, 300, 10_000):
        logits = np.random.default_rng(columns).normal(size=(20, columns)).astype(np.float32)
        for settings in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
            for method in METHODS:
                got = numbel.Generator(2).sample(logits, method=method, **settings)
                assert np.array_equal(got.indices, logits.argmax(1))
                assert np.abs(got.log_prob).max() < 3e-7  # the rounding of one weight


def test_the_first_sample_is_that_of_none():
    logits = np.random.default_rng(1).normal(size=(3, 9000)).astype(np.float32)
    for method in METHODS:
        for settings in ({"top_k": 7}, {"top_p": 0.9}):
            one = numbel.Generator(4).sample(logits, method=method, **settings)
            many = numbel.Generator(4).sample(logits, 9, method=method, **settings)
            assert np.array_equal(one.indices, many.indices[:, 0])
            assert np.array_equal(one.log_prob, many.log_prob[:, 0])
            assert np.array_equal(numbel.Generator(4).categorical(logits, method=method, **settings), one.indices)
    assert numbel.Generator(4).sample(logits, 0, top_k=3).indices.shape == (3, 0)
    assert numbel.Generator(4).categorical(logits[:0], top_p=0.5).shape == (0,)


def test_more_samples_than_one_pass(monkeypatch):
    logits = np.random.default_rng(1).normal(size=(2, 9000)).astype(np.float32)
    whole = numbel.Generator(4).sample(logits, 23, top_k=50)
    monkeypatch.setattr(dispatch, "_SAMPLES", 5)
    assert_same(numbel.Generator(4).sample(logits, 23, top_k=50), whole)


# ------------------------------------------------------------------------------------------------------ the same bits


@contextlib.contextmanager
def threads(count):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@each_method
@each_dtype
def test_bits_do_not_depend_on_the_layout(dtype, method, monkeypatch):
    """Threads, waves, strides, axes, batch splits, masks."""
    rng = np.random.default_rng(11)
    for columns in (37, 5000, 9001):
        logits = np.stack(list(shapes_of_rows(columns, dtype, rng).values()))
        rows = len(logits)
        settings = {
            "top_k": rng.integers(1, columns, rows),
            "top_p": rng.choice([0.3, 0.95, 1.0], rows),
            "min_p": rng.choice([0, 0.01], rows),
        }
        monkeypatch.undo()
        with threads(1):
            whole = numbel.Generator(5).sample(logits, 2, method=method, **settings)
        monkeypatch.setattr(dispatch, "_PARALLEL_FROM", 1)
        monkeypatch.setattr(dispatch, "_WAVE", 3 * columns)
        assert_same(numbel.Generator(5).sample(logits, 2, method=method, **settings), whole)
        wide = np.zeros((rows, 2 * columns + 1), dtype)
        wide[:, 1::2] = logits
        for other, axis in ((np.asfortranarray(logits), -1), (logits.T.copy(), 0), (wide[:, 1::2], 1)):
            assert_same(numbel.Generator(5).sample(other, 2, axis=axis, method=method, **settings), whole)
        backwards = np.ascontiguousarray(logits[:, ::-1])[:, ::-1]
        assert_same(numbel.Generator(5).sample(backwards, 2, method=method, **settings), whole)
        ids, mask = rng.permutation(rows), rng.random(rows) < 0.6
        moved = numbel.Generator(5).sample(
            logits[ids], 2, row_ids=ids, row_mask=mask, method=method, **{n: v[ids] for n, v in settings.items()}
        )
        assert np.all(moved.indices[~mask] == -1)
        assert np.all(np.isnan(moved.logsumexp[~mask]))
        assert_same([part[mask] for part in moved], [part[ids][mask] for part in whole])


def test_excluded_columns_do_not_matter():
    """The draw is the same whatever the excluded logits are: those of -inf, too."""
    for columns in (200, 30_000):
        x = np.random.default_rng(1).normal(size=columns).astype(np.float32)
        order, _ = oracle.kept(x, 1.0, top_k=20)
        got = numbel.Generator(5).sample(x, 50, top_k=20)
        masked = numbel.Generator(5).sample(oracle.masked(x, order), 50, top_k=20)
        assert_same(got[:2], masked[:2])


def test_bad_rows_are_named():
    for columns in (9, 6000):
        for method in METHODS:
            logits = np.zeros((4, columns), np.float32)
            logits[2, 5] = np.nan
            with pytest.raises(ValueError, match="logits row 2 holds NaN at column 5"):
                numbel.Generator(5).sample(logits, top_k=3, method=method)
            logits[1] = -np.inf
            logits[2, 5] = np.inf
            flagged = numbel.Generator(5).sample(logits, top_p=0.3, on_invalid="flag", method=method)
            assert flagged.indices.tolist()[1:3] == [-1, -1]
            assert np.isnan(flagged.log_prob[1:3]).all()
            assert np.isnan(flagged.logsumexp[1:3]).all()
            assert flagged.indices[0] >= 0
            assert flagged.indices[3] >= 0
            with pytest.raises(ValueError, match="logits row 1 has no possible category"):
                numbel.Generator(5).sample(logits, min_p=0.3, method=method)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"top_k": -2}, ValueError, "top_k must be at least 1, got -2"),
        ({"top_k": -3}, ValueError, "top_k must be at least 1, got -3"),
        ({"top_k": 2.0}, TypeError, "top_k must hold integers, got 2.0"),
        ({"top_k": "5"}, TypeError, "top_k must hold integers, got '5'"),
        ({"top_k": True}, TypeError, "top_k must hold integers, got True"),
        ({"top_k": [1, 2, -2]}, ValueError, "top_k row 2 is -2; it must be at least 1"),
        ({"top_k": np.ones(3)}, TypeError, "top_k must hold integers, got float64"),
        ({"top_k": [1, 2]}, ValueError, r"top_k of shape \(2,\) does not broadcast to the rows' shape \(3,\)"),
        ({"top_p": 0.0}, ValueError, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.01}, ValueError, r"top_p must be in \(0, 1\], got 1.01"),
        ({"top_p": math.nan}, ValueError, r"top_p must be in \(0, 1\], got nan"),
        ({"top_p": [0.5, -1, 1]}, ValueError, r"top_p row 1 is -1.0; it must be in \(0, 1\]"),
        ({"top_p": "a"}, TypeError, "top_p must hold real numbers, got 'a'"),
        ({"top_p": 1j}, TypeError, "top_p must hold real numbers, got 1j"),
        ({"top_p": np.ones((3, 1))}, ValueError, r"top_p of shape \(3, 1\) does not broadcast"),
        ({"min_p": -0.1}, ValueError, r"min_p must be in \[0, 1\], got -0.1"),
        ({"min_p": 1.5}, ValueError, r"min_p must be in \[0, 1\], got 1.5"),
        ({"min_p": [0, 0, math.nan]}, ValueError, r"min_p row 2 is nan; it must be in \[0, 1\]"),
        ({"min_p": None, "top_k": [[1, 2, 3]] * 2}, ValueError, r"top_k of shape \(2, 3\) does not broadcast"),
    ],
)
def test_bad_parameters(settings, error, text):
    rng = numbel.Generator(5)
    out = np.full(3, 77)
    for call in (rng.categorical, rng.sample):
        with pytest.raises(error, match=f"^{text}"):
            call(np.zeros((3, 8), np.float32), **settings)
    with pytest.raises(error):
        rng.categorical(np.zeros((3, 8), np.float32), out=out, **settings)
    assert set(out.tolist()) == {77}
    assert rng.draw == 0


# ----------------------------------------------------------------------------------------------------------- at size


@pytest.mark.long
@pytest.mark.parametrize("shape", ["peaked", "equal", "flat"])
def test_2_to_the_24(shape):
    """A row of 2^24: what is kept, by NumPy's sort."""
    columns = 1 << 24
    rng = np.random.default_rng(1)
    x = {
        "peaked": lambda: (-1.5 * np.log(1 + rng.permutation(columns)) + rng.normal(size=columns)).astype(np.float32),
        "equal": lambda: np.zeros(columns, np.float32),
        "flat": lambda: rng.normal(size=columns).astype(np.float32),
    }[shape]()
    order = np.argsort(-x, kind="stable")
    w = np.exp(x[order].astype(np.float64) - float(x.max()))
    before = np.cumsum(w) - w
    for settings in ({"top_k": 1000}, {"top_k": 3_000_000}, {"top_p": 0.9}, {"min_p": 0.3}):
        got = numbel.Generator(5).sample(x, 2000, **settings)
        count = settings.get("top_k", columns)
        if "top_p" in settings:
            count = int(np.count_nonzero(before < settings["top_p"] * w.sum()))
        if "min_p" in settings:
            count = int(np.count_nonzero(w >= settings["min_p"]))
        kept = np.zeros(columns, bool)
        kept[order[: count + (2000 if "top_p" in settings else 0)]] = True  # its boundary is good to 10^-7 of the mass
        assert kept[got.indices].all()
        mass = np.log(w[:count].sum()) + float(x.max())
        assert np.allclose(got.log_prob, x[got.indices] - mass, atol=2e-6)
        part = np.searchsorted(np.cumsum(w[:count]) / w[:count].sum(), np.arange(0.1, 1, 0.1))
        ranks = np.empty(columns, np.int64)
        ranks[order] = np.arange(columns)
        edges = np.concatenate([[0], part + 1, [columns]])
        shares = np.diff(np.append(np.cumsum(w[:count])[np.append(part, count - 1)], []), prepend=0.0)
        assert_fits(np.histogram(ranks[got.indices], edges)[0], shares / shares.sum())


@pytest.mark.parametrize("method", ["grouped", "gumbel_max"])
def test_rows_that_keep_all_take_tables_as_without_truncation(method):
    """Beyond the rule of num_samples, too, and beside rows that are truncated."""
    logits = np.random.default_rng(3).standard_normal((4, 50))
    k = np.array([50, 3, 60, 50])
    mask = np.array([True, True, True, False])
    got = numbel.Generator(5).sample(logits, 90, top_k=k, row_mask=mask, method=method)
    plain = numbel.Generator(5).sample(logits, 90, row_mask=mask, method=method)
    cut = numbel.Generator(5).sample(logits, 90, top_k=3, row_mask=mask, method=method)
    for found, whole, truncated in zip(got, plain, cut, strict=True):
        assert np.array_equal(found[[0, 2]], whole[[0, 2]])
        assert np.array_equal(found[1], truncated[1])
        assert np.all((found[3] == -1) | np.isnan(found[3]))


@pytest.mark.parametrize("width", [16, 32, 64])
def test_places_are_the_order(width):
    """Ascending with the value, 0 for either zero, and back to the same number; of halves all are tried."""
    random = np.random.default_rng(width)
    if width == 16:
        bits = np.arange(1 << 16, dtype=np.uint16)
        of, at, values = rules.place_half, rules.at_place_half, bits.view(np.float16)
        given = bits
    else:
        kind = np.float32 if width == 32 else np.float64
        bits = random.integers(0, (1 << width) - 1, 3000, np.uint64, endpoint=True).astype(f"u{width // 8}")
        values = np.concatenate([bits.view(kind), np.array([0.0, -0.0, np.inf, -np.inf, 5e-324], kind)])
        of, at = (getattr(rules, f"{name}_float{width}") for name in ("place", "at_place"))
        given = values
    places = np.array([of(x) for x in given], object)
    number = ~np.isnan(values)
    order = np.argsort(values[number].astype(np.float64), kind="stable")
    ascending, by_value = places[number][order], values[number][order].astype(np.float64)
    assert np.array_equal(ascending[1:] > ascending[:-1], by_value[1:] > by_value[:-1])
    top, bottom = places[values == np.inf][0], places[values == -np.inf][0]
    assert all(p > top or p < bottom for p in places[~number])
    for x, p in zip(given[number], places[number], strict=True):
        assert x.dtype.type(at(p)) == x or (p == 0 and at(p) == 0)
    for a, b in zip(ascending[:100], ascending[-100:], strict=True):
        assert rules.distance(b, a) == b - a
        assert rules.place_below(b, np.uint64(rules.distance(b, a))) == a
    for span in (0, 1, 2047, 2048, 2**32 - 1, 2**64 - 1):
        shift = rules.bucket_shift(np.uint64(span), 11)
        assert span >> shift < 2048
        assert shift == 0 or span >> (shift - 1) >= 2048


def test_sums_in_two_words():
    """A lower half that overflows carries into the upper one."""
    random = np.random.default_rng(1)
    low, high, total = np.uint32(0), np.uint32(0), 0
    for x in random.integers(0, 1 << 52, 500, np.uint64):
        high = np.uint32(int(high) + int(rules.high_with_carry(x, low)))
        low = np.uint32((int(low) + int(rules.low_word(x))) & 0xFFFFFFFF)
        total += int(x)
        assert rules.both_words(low, high) == total
    assert rules.high_word(np.uint64(total)) == high
