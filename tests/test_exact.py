"""Exact at scale: the law of the samples, and gumbel_max against its definition.

"Detects delta" in a docstring is the smallest bias of a proportion p shown with power .99: N = 52 p (1 - p) / delta^2.
"""

from __future__ import annotations

import functools
import math

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

import numbel
import oracle
from statistics_helpers import ALPHA, assert_fits, assert_independent, assert_poisson, assert_proportion, zipf

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
METHODS = ["grouped", "gumbel_max"]
GAP = 20.5
TAILS = 262144


@pytest.fixture(autouse=True)
def _one_pass(monkeypatch):
    """However many samples, none from a table: those have `test_table.py`."""
    monkeypatch.setattr("numbel._host.tables.tabled", lambda *_: False)


# ------------------------------------------------------------------------------------------------ ties and tails


def equal_categories(categories, samples, method, seed):
    indices = numbel.Generator(seed).categorical(np.zeros(categories, np.float32), samples, method=method)
    assert indices.min() >= 0
    assert indices.max() < categories
    assert_proportion(int((indices < categories // 2).sum()), samples, 0.5)
    edges = np.arange(11) * categories // 10
    assert_fits(np.histogram(indices, edges)[0], np.diff(edges))
    assert_fits(np.bincount(indices % 8, minlength=8), np.ones(8))
    return indices


def test_equal_categories_grouped():
    """2^24 equal: first half detects 0.029, a decile 0.018 (a 24-bit race is off by 0.34 on the first half)."""
    indices = equal_categories(1 << 24, 16000, "grouped", 31)
    assert_fits(np.bincount(indices % 4096 // 256, minlength=16), np.ones(16))  # inside the block
    assert_fits(np.bincount(indices >> 18, minlength=64), np.ones(64))  # of blocks
    assert_fits(np.bincount(indices % 512, minlength=512), np.ones(512))  # of lanes


def test_equal_categories_gumbel_max():
    """2^24 equal, 260 samples: first half detects 0.22 (a 24-bit race with first-index ties is off by 0.34)."""
    equal_categories(1 << 24, 260, "gumbel_max", 32)


@pytest.mark.long
def test_2_to_the_27_equal_categories():
    """Grouped, 4000 samples: first half detects 0.057, a decile 0.034."""
    equal_categories(1 << 27, 4000, "grouped", 33)


def test_small_equal_categories_have_no_tie_bias():
    """2^20 equal, gumbel_max, 3000 samples: first half detects 0.066, a decile 0.04."""
    equal_categories(1 << 20, 3000, "gumbel_max", 34)


def tail_race(trials, method, seed, dtype=np.float32):
    logits = np.full(TAILS + 1, -GAP, dtype)
    logits[TAILS // 3] = 0
    p = TAILS * math.exp(-GAP) / (1 + TAILS * math.exp(-GAP))
    indices = numbel.Generator(seed).categorical(logits, trials, method=method)
    assert_poisson(int((indices != TAILS // 3).sum()), p * trials)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tail_race_grouped(dtype):
    """262144 categories 20.5 below one: 32.8 wins due in 10^5 (bounds 10 .. 66; a 24-bit race has none)."""
    tail_race(100_000, "grouped", 35, dtype)


@pytest.mark.long
def test_tail_race_gumbel_max():
    """The same race by gumbel_max: 16.4 wins due in 50,000 trials; none has probability 8e-8."""
    tail_race(50_000, "gumbel_max", 36)


def test_tail_race_of_float16():
    """The gap 20.5 is exact in half precision: 6.6 wins due in 20,000 trials."""
    tail_race(20_000, "grouped", 37, np.float16)


def exceedances(values, seed):
    """Counts of noise beyond thresholds in both tails, over `values` float32 values in chunks."""
    rng = numbel.Generator(seed)
    chunk = np.empty(1 << 24, np.float32)
    thresholds = (25 * math.log(2) + 0.0013, 20.0, 12.0)
    lows = (-2.85, -2.5)
    above, below = np.zeros(3, np.int64), np.zeros(2, np.int64)
    for _ in range(values >> 24):
        rng.gumbel(size=chunk.size, out=chunk)
        extreme = chunk[(chunk > 12.0) | (chunk < -2.5)]
        above += [np.count_nonzero(extreme > t) for t in thresholds]
        below += [np.count_nonzero(extreme < t) for t in lows]
        assert chunk.min() > -3.809
        assert chunk.max() < 45.06
    for count, threshold in zip(above, thresholds, strict=True):
        assert_poisson(int(count), values * -math.expm1(-math.exp(-threshold)))
    for count, threshold in zip(below, lows, strict=True):
        assert_poisson(int(count), values * math.exp(-math.exp(-threshold)))


def test_exceedances():
    """2^29 float32 values beyond 17.33: 16 due, and a 24-bit source, which ends at 17.3287, has none."""
    exceedances(1 << 29, 38)


@pytest.mark.long
def test_exceedances_of_2_to_the_30():
    """32 due beyond 17.33."""
    exceedances(1 << 30, 39)


# ---------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_has_gumbels_law(dtype):
    """Kolmogorov-Smirnov over 2^21 values (detects 0.0019 in the distribution function) and moments."""
    n = 1 << 21
    g = numbel.Generator(40).gumbel(size=(3, n // 3), dtype=dtype).astype(np.float64).ravel()
    if dtype in (np.float32, np.float64):
        assert stats.kstest(np.exp(-g[: 1 << 20]), "expon").pvalue > ALPHA
    z = stats.norm.isf(ALPHA / 2)
    rounding = float(ml_dtypes.finfo(dtype).eps)
    variance = math.pi**2 / 6
    assert abs(g.mean() - np.euler_gamma) < z * math.sqrt(variance / n) + rounding**2 * 10
    assert abs(g.var() - variance) < z * math.sqrt((5.4 - 1) * variance**2 / n) + rounding**2 * 10
    skewness = ((g - g.mean()) ** 3).mean() / g.std() ** 3
    assert abs(skewness - 1.139547) < 0.05


@pytest.mark.parametrize("columns", [1, 3, 100, 127, 128, 5000, 70001])
def test_noise_is_that_of_its_address(columns):
    """float64 within 2 ulp, float32 within 1.2e-6, of the oracle, over the rows of a three-dimensional shape."""
    seed, draw = 41, 6
    rows = max(2, 200_000 // columns // 2 * 2) if columns < 5000 else 2
    shape = (2, rows // 2, columns)
    double = numbel.Generator(seed, draw).gumbel(size=shape, dtype=np.float64).reshape(rows, columns)
    single = numbel.Generator(seed, draw).gumbel(size=shape).reshape(rows, columns)
    for row in range(0, rows, max(1, rows // 8)):
        exact = oracle.noise(seed, draw, columns, row)
        size = np.maximum(np.abs(exact), 1).astype(np.float64)
        assert np.all(np.abs(double[row] - exact) <= 2 * np.spacing(size))
    whole = np.concatenate([oracle.noise_float32_law(seed, draw, columns, row)[0] for row in range(min(rows, 400))])
    error = np.abs(single[: min(rows, 400)].ravel() - whole)
    assert np.all(error <= 1.2e-6 * np.maximum(1, np.abs(whole).astype(np.float64) / 12))


def test_refined_noise():
    """Of 2^20 values some 512 are refined; each is the oracle's, and coarser without its second word."""
    n = 1 << 20
    law, refined = oracle.noise_float32_law(42, 0, n)
    single = numbel.Generator(42).gumbel(size=n)
    assert 380 < refined.sum() < 650
    assert np.abs(single - law)[refined].max() < 1.2e-6


# ---------------------------------------------------------------------------------------------------- goodness of fit

SHAPES = [7, 64, 65, 4096, 9001, 200_000]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", SHAPES)
def test_grouped_fits(dtype, columns):
    """Log-spaced p over 12 nats, 200,000 samples: detects 0.0026 in a cell of p = 0.03, 5e-4 in one of 0.001."""
    logits = zipf(columns, dtype)
    indices = numbel.Generator(43).categorical(logits, 200_000, temperature=1.3)
    assert_fits(np.bincount(indices, minlength=columns), oracle.probabilities(logits.astype(np.float64), 1.3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [600, 1500, 4096])
def test_lanes_and_their_columns_fit(columns, dtype):
    """400,000 samples of one block, p over 12 nats: detects 0.0016 in a lane of p = 0.02, 0.0057 in half of them.

    By column, by lane, by place in the lane, and whether it is the lane's largest, which has what the others leave.
    """
    logits = zipf(columns, dtype)
    p = oracle.probabilities(logits.astype(np.float64))
    counts = np.bincount(numbel.Generator(47).categorical(logits, 400_000), minlength=columns)
    lane, place = np.arange(columns) % 512, np.arange(columns) // 512
    largest = np.array([logits[at] == logits[at % 512 :: 512].max() for at in range(columns)])
    for cells in (np.arange(columns), lane, place, largest):
        law, found = (np.bincount(cells, weights=of) for of in (p, counts))
        assert_fits(found, law)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_of_a_lane(dtype):
    """Seven categories 10 below one of the same lane, nothing else: 317.7 of 10^6 samples are due to them."""
    logits = np.full(4096, -np.inf, dtype)
    logits[77::512] = -10.0
    logits[77 + 3 * 512] = 0.0
    drawn = numbel.Generator(48).categorical(logits, 1_000_000)
    counts = np.bincount(drawn // 512, minlength=8)
    assert np.all(drawn % 512 == 77)
    p = 7 * math.exp(-10) / (1 + 7 * math.exp(-10))
    assert_poisson(1_000_000 - int(counts[3]), p * 1_000_000)
    assert_fits(np.delete(counts, 3), np.ones(7))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("columns", "samples"), [(7, 200_000), (64, 200_000), (65, 100_000), (4096, 20_000), (9001, 12_000)]
)
def test_gumbel_max_fits(dtype, columns, samples):
    """As above: 200,000 samples detect 0.0026 at p = 0.03, 12,000 detect 0.011."""
    logits = zipf(columns, dtype)
    indices = numbel.Generator(44).categorical(logits, samples, temperature=0.7, method="gumbel_max")
    assert_fits(np.bincount(indices, minlength=columns), oracle.probabilities(logits.astype(np.float64), 0.7))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("columns", [5, 40, 100])
def test_rows_fit(method, columns):
    """100,000 rows of one law, a sample each (rows side by side below 65 columns): detects 0.009 at p = 0.2."""
    logits = zipf(columns, steps=6.0)
    indices = numbel.Generator(45).categorical(np.tile(logits, (100_000, 1)), method=method)
    assert_fits(np.bincount(indices, minlength=columns), oracle.probabilities(logits))


def test_several_segments_fit():
    """2^22 columns in many segments, the mass spread over all: 40,000 samples, 64 cells, detects 0.0045 each."""
    n = 1 << 22
    logits = (np.arange(n) / n * -4.0).astype(np.float32)
    indices = numbel.Generator(46).categorical(logits, 40_000)
    edges = np.exp(-4.0 * np.arange(65) / 64)
    assert_fits(np.bincount(indices >> 16, minlength=64), -np.diff(edges))


def test_one_category_against_a_million():
    """Half the mass on one, half on 10^6 tails: 30,000 samples detect 0.021 (a 24-bit race is off by 0.015)."""
    logits = np.full(1_000_001, -math.log(1e6), np.float32)
    logits[700_000] = 0
    indices = numbel.Generator(47).categorical(logits, 30_000)
    half = 1 / (1 + 1e6 * math.exp(float(logits[0])))
    assert_proportion(int((indices == 700_000).sum()), 30_000, half)


# ------------------------------------------------------------------------------------------------------ independence

PAIRS = zipf(6, np.float64, steps=2.0)
PAIRS_LAW = oracle.probabilities(PAIRS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("columns", [6, 130])
def test_independent_rows_samples_draws_seeds(method, columns):
    """Pair tables of 100,000 pairs: detects 0.006 in a cell of p = 0.04. Wide rows are cut to the same six classes."""
    logits = np.full(columns, -np.inf)
    places = np.linspace(0, columns - 1, 6).astype(int)
    logits[places] = PAIRS
    rows = np.tile(logits, (50_000, 1))

    def draw(seed, number, samples=2):
        drawn = numbel.Generator(seed, number).categorical(rows, samples, method=method)
        return np.searchsorted(places, drawn)

    first = draw(48, 0)
    assert_independent(first[:, 0], first[:, 1], PAIRS_LAW)
    assert_independent(first[:-1], first[1:], PAIRS_LAW)
    assert_independent(first[:-4], first[4:], PAIRS_LAW)
    for other in (draw(48, 1), draw(49, 0), draw(48, 1 << 32), draw(48 + (1 << 32), 0)):
        assert_independent(first, other, PAIRS_LAW)


def test_one_row_s_samples_are_independent():
    """200,000 samples of one row, lagged: detects 0.003 at p = 0.04; lags of 16384 cross two passes."""
    drawn = numbel.Generator(50).categorical(PAIRS, 200_000)
    for lag in (1, 2, 4, 1000, 1 << 14):
        assert_independent(drawn[:-lag], drawn[lag:], PAIRS_LAW)


def test_blocks_and_choices_are_independent():
    """The block and the column inside it, 16 blocks: detects 0.003 in a cell of p = 1/64."""
    drawn = numbel.Generator(51).categorical(np.zeros(16 * 4096, np.float32), 100_000)
    assert_fits(np.bincount((drawn >> 12) * 4 + (drawn & 3), minlength=64), np.ones(64))
    assert_fits(np.bincount((drawn >> 12) * 4 + (drawn >> 10 & 3), minlength=64), np.ones(64))


def test_noise_is_uncorrelated():
    """Neighbouring columns, rows, draws and seeds, and the four words of a block: |r| below 4.9 / sqrt(n)."""
    n = 1 << 20
    base = numbel.Generator(52).gumbel(size=(4, n // 4)).ravel()
    others = [numbel.Generator(52, 1).gumbel(size=(4, n // 4)).ravel(), numbel.Generator(53).gumbel(size=n)]
    pairs = [(base, other) for other in others]
    pairs += [(base[:-lag], base[lag:]) for lag in (1, 2, 3, 4, 8, n // 4)]
    limit = stats.norm.isf(ALPHA / 2)
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a)) < limit
        high = (a > 0.3665) * 2 + (b > 0.3665)
        p = math.exp(-math.exp(-0.3665))
        assert_fits(np.bincount(high, minlength=4), np.outer([p, 1 - p], [p, 1 - p]))


def test_equal_keys_of_two_seeds_share_no_noise():
    """Draw d of one seed meets the key of draw d ^ constant of another: only the mask keeps them apart."""
    gamma = 0x9E3779B97F4A7C15
    draw = oracle.mix64((1 + gamma) % 2**64) ^ oracle.mix64((2 + gamma) % 2**64)
    a = numbel.Generator(1, 0).gumbel(size=(64, 1024))
    b = numbel.Generator(2, draw).gumbel(size=(64, 1024))
    assert np.mean(a == b) < 1e-3
    assert not np.isin(a[:2].ravel(), b.ravel()).mean() > 0.5


# ------------------------------------------------------------------------------------- impossible and extreme logits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_impossible_categories_are_never_drawn(method, dtype):
    """One possible category in 152,000, and half impossible, in rows of every path."""
    for columns in (2, 33, 64, 65, 5000, 152_000):
        logits = np.full(columns, -np.inf, dtype)
        logits[columns * 2 // 3] = dtype(-3.0)
        assert np.all(numbel.Generator(54).categorical(logits, 50, method=method) == columns * 2 // 3)
        logits[::2] = dtype(1.5)
        drawn = numbel.Generator(55).categorical(logits, 2000, method=method)
        assert np.all(logits[drawn] > -np.inf)
    rows = np.where(np.random.default_rng(56).random((20_000, 12)) < 0.5, -np.inf, 0.0).astype(dtype)
    rows[:, 5] = 0
    drawn = numbel.Generator(57).categorical(rows, method=method)
    assert np.all(np.take_along_axis(rows, drawn[:, None], 1) == 0)


def random_row(rng, columns, dtype):
    """Logits of a random magnitude to 1e30 (6e4 for float16), some impossible, some equal, at an offset."""
    largest = 4.0 if dtype is np.float16 else 30.0
    style = rng.integers(6)
    if style < 3:
        x = rng.standard_normal(columns) * 10.0 ** rng.uniform(-2, 2)
    else:
        x = rng.standard_normal(columns) * 10.0 ** rng.uniform(0, largest)
    if style in (1, 4):
        x = rng.standard_normal(columns) + float(rng.choice([-1, 1])) * 10.0 ** rng.uniform(0, largest)
    if rng.random() < 0.3:
        x[rng.random(columns) < 0.5] = -np.inf
        x[rng.integers(columns)] = 0.0
    if rng.random() < 0.2:
        x = np.round(x)
    return np.clip(x, None, 6e4 if dtype is np.float16 else 1e30).astype(dtype)


def random_rows(seed, number, sizes):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        dtype = DTYPES[rng.integers(4)]
        columns = int(rng.choice(sizes)) if rng.random() < 0.5 else int(rng.integers(1, max(sizes) + 1))
        x = random_row(rng, columns, dtype)
        yield x, float(10.0 ** rng.uniform(-3, 3)), int(rng.integers(1 << 40)), rng


def test_gumbel_max_is_the_argmax_of_the_noise():
    """2,400 random rows: dtypes, lengths, temperatures 1e-3 to 1e3, |logit| to 1e30. Bit for bit."""
    sizes = [1, 2, 3, 8, 63, 64, 65, 500, 1023, 1024, 1025, 2049, 4095, 4096, 4097]
    for number, (x, temperature, row, _) in enumerate(random_rows(60, 2400, sizes)):
        got = numbel.Generator(60, number).categorical(
            x[None], temperature=temperature, method="gumbel_max", row_ids=np.array([row])
        )[0]
        assert got == oracle.gumbel_max(x, temperature, 60, number, row), (number, x.dtype, len(x), temperature)


def test_gumbel_max_samples_and_long_rows():
    """Several samples of rows in several segments: each has noise of its own."""
    rng = np.random.default_rng(61)
    for columns in (70_000, 300_001):
        x = (rng.standard_normal(columns) * 2).astype(np.float32)
        got = numbel.Generator(61).categorical(x, 3, method="gumbel_max")
        assert got.tolist() == [oracle.gumbel_max(x, 1.0, 61, 0, sample=s) for s in range(3)]


def test_grouped_is_the_oracles():
    """320 random rows of both working precisions: indices bit for bit, logsumexp and log_prob to rounding."""
    sizes = [1, 2, 5, 63, 64, 65, 511, 513, 4095, 4096, 4097, 9000]
    for number, (x, temperature, row, _) in enumerate(random_rows(62, 320, sizes)):
        drawn = numbel.Generator(62, number).sample(x[None], 3, temperature=temperature, row_ids=np.array([row]))
        blocks = oracle.blocks_of_row(x, temperature)
        expected = oracle.grouped(x, temperature, 62, number, row, 3, blocks)
        assert drawn.indices[0].tolist() == expected, (number, x.dtype, len(x), temperature)
        wide = x.astype(np.float64)
        precision = float(np.finfo(drawn.logsumexp.dtype).eps)
        exact = float(oracle.log_sum_exp(wide, temperature))
        assert abs(float(drawn.logsumexp[0]) - exact) <= 4 * precision * max(1, abs(exact)) or not math.isfinite(
            np.float32(min(abs(exact), 3e38))
        )
        law = oracle.log_probabilities(wide, temperature)[drawn.indices[0]].astype(np.float64)
        # beyond 2^52 the exponent itself is an integer rounded
        slack = abs(exact) * 5e-16
        assert np.all(np.abs(drawn.log_prob[0] - law) <= 8 * precision * np.maximum(1, np.abs(law)) + slack), number


def test_grouped_of_many_segments_is_the_oracles():
    """Rows of 17 to 40 blocks, so that segments are joined, at offsets that move the reference."""
    rng = np.random.default_rng(63)
    for number, offset in enumerate((0.0, 60.0, -500.0, 1e6, 1e9)):
        columns = int(rng.integers(17 * 4096, 40 * 4096))
        x = rng.standard_normal(columns) * 3 + np.repeat(rng.standard_normal(40) * 30, 4096)[:columns] + offset
        x = x.astype(np.float32)
        drawn = numbel.Generator(63, number).sample(x, 4)
        blocks = oracle.blocks_of_row(x, 1.0)
        assert drawn.indices.tolist() == oracle.grouped(x, 1.0, 63, number, samples=4, blocks=blocks)
        r, s = oracle.node_of_row(x, 1.0, blocks)
        meant = np.longdouble(r) * np.log(np.longdouble(2)) + np.log(np.longdouble(s))
        assert drawn.logsumexp == np.float32(meant)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("offset", "temperature"), [(0.0, 1.0), (44.36, 1.0), (-1e5, 1.0), (64.0, 1e-3), (3e4, 1e3), (5e6, 4.0)]
)
def test_offsets_leave_the_law_alone(method, offset, temperature):
    """Logits at an offset, exact in float64, straddling cells or far: 50,000 samples detect 0.017 at p = 0.4."""
    steps = np.array([0.0, -1.0, -2.0, -0.5, -4.0, -7.0, -0.25, -3.0]) * (2.0 ** round(math.log2(temperature)))
    logits = np.repeat(steps, 20) + np.round(offset * 64) / 64
    drawn = numbel.Generator(64).categorical(logits, 50_000, temperature=temperature, method=method)
    assert_fits(np.bincount(drawn, minlength=160), oracle.probabilities(logits, temperature))


# ---------------------------------------------------------------------------------------------------------- coupling


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 100), (4, 129), (2, 5000), (2, 70_000)])
def test_gumbel_max_couples_with_the_public_noise(shape):
    """The same draw's float64 noise, added to the logits, has the same argmax."""
    for number in range(20 if shape[-1] < 5000 else 3):
        logits = np.random.default_rng(65 + number).standard_normal(shape)
        noise = numbel.Generator(65, number).gumbel(size=shape, dtype=np.float64)
        drawn = numbel.Generator(65, number).categorical(logits, method="gumbel_max", temperature=0.8)
        assert np.array_equal(drawn, np.argmax(logits / 0.8 + noise, -1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("columns", [3, 64, 65, 5000, 140_000])
def test_one_sample_is_none_and_sample_is_categorical(method, columns):
    logits = np.random.default_rng(66).standard_normal((3, columns)).astype(np.float32)
    rng = numbel.Generator(66)
    lone = numbel.Generator(66).categorical(logits, method=method)
    assert lone.shape == (3,)
    several = numbel.Generator(66).categorical(logits, 5, method=method)
    assert np.array_equal(several[:, 0], lone)
    assert np.array_equal(rng.categorical(logits, 1, method=method)[:, 0], lone)
    drawn = numbel.Generator(66).sample(logits, 5, method=method)
    assert np.array_equal(drawn.indices, several)
    assert np.array_equal(numbel.Generator(66).sample(logits, method=method).indices, lone)
    grouped = numbel.Generator(66).sample(logits)
    assert np.array_equal(drawn.logsumexp, grouped.logsumexp)


@pytest.mark.parametrize("columns", [3, 100, 5000])
@pytest.mark.parametrize("method", ["grouped", "gumbel_max"])
def test_rows_whose_largest_logit_overflows_are_refused(method, columns):
    """-1e300 / 1e-10 is beyond float64: such a row is invalid, its neighbours are not."""
    logits = np.full((40, columns), -np.inf)
    possible = np.arange(40) % (columns - 1) + 1
    logits[np.arange(40), possible] = np.where(np.arange(40) % 2 == 0, -1e300, -1e290)
    draw = functools.partial(numbel.Generator(5).categorical, logits, method=method, temperature=1e-10)
    with pytest.raises(ValueError, match="logits row 0 overflows when it is divided by its temperature"):
        draw()
    expected = np.where(np.arange(40) % 2 == 0, -1, possible)
    np.testing.assert_array_equal(draw(on_invalid="flag"), expected)
