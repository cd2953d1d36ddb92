"""Counts by binomial splitting: the law, by enumeration, moments and fit; exactness of sums; bits; errors."""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numba
import numpy as np
import pytest
from scipy import stats

import numbel
import oracle
from numbel._jit import njit
from numbel._scalar import binomial
from statistics_helpers import ALPHA, assert_fits

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
P = np.array([0.5, 0.2, 0.17, 0.1, 0.03])


@njit
def _variates(n, p, q, first, out):
    for i in range(out.size):
        out[i] = binomial.binomial(np.int64(n), p, q, np.uint64(first + i), np.uint64(0), np.uint64(77), np.uint64(99))


def variates(n, p, count, first=1):
    out = np.empty(count, np.int64)
    _variates(n, p, 1 - p, first, out)
    return out


#: On either side of a mean of 10, where inversion ends.
LAWS = [(1, 0.3), (5, 0.5), (19, 0.5), (20, 0.5), (21, 0.48), (40, 0.26), (100, 0.1), (100, 0.099), (60, 0.5),
        (200, 0.5), (1000, 0.02), (3000, 0.3), (10**6, 1e-5), (10**6, 3e-6), (10**5, 0.37), (10**9, 1e-7)]  # fmt: skip


@pytest.mark.parametrize(("n", "p"), LAWS)
def test_binomial_variates_fit(n, p):
    """2^20 variates: detects 0.0021 in a cell of probability 0.1."""
    drawn = variates(n, p, 1 << 20)
    assert drawn.min() >= 0
    assert drawn.max() <= n
    low, high = int(stats.binom.ppf(1e-9, n, p)), int(stats.binom.isf(1e-9, n, p))
    inside = drawn[(drawn >= low) & (drawn <= high)]
    assert len(inside) >= len(drawn) - 1
    if high - low > 2000:  # cells of several counts
        edges = np.linspace(low, high + 1, 1000).astype(int)
        cells = np.diff(stats.binom.cdf(edges - 1, n, p))
        assert_fits(np.histogram(inside, np.append(edges[:-1], edges[-1] - 0.5))[0], cells)
    else:
        assert_fits(
            np.bincount(inside - low, minlength=high - low + 1), stats.binom.pmf(np.arange(low, high + 1), n, p)
        )


@pytest.mark.parametrize("n", [1 << 40, 1 << 53, (1 << 60) + 12345, 1 << 62])
@pytest.mark.parametrize("p", [0.5, 0.3, 1e-3, 2.0**-30])
def test_binomial_variates_of_huge_n(n, p):
    """2^18 variates, standardised in integers: mean within 0.0096, variance 0.0136, distribution 0.0053 of normal."""
    drawn = variates(n, p, 1 << 18)
    mean = math.floor(n * p)  # of integers: n p in float64 is off by up to 2^9
    z = (drawn - mean).astype(np.float64) / math.sqrt(n * p * (1 - p))
    assert abs(z.mean()) < stats.norm.isf(ALPHA / 2) / 512 + 1e-4
    assert abs(z.var() - 1) < stats.norm.isf(ALPHA / 2) * math.sqrt(2) / 512 + 1e-4
    skewness = (1 - 2 * p) / math.sqrt(n * p * (1 - p))
    assert stats.kstest(z, "norm").pvalue > ALPHA or skewness > 1e-3
    assert len(np.unique(drawn % 64)) == 64, "no lattice"
    assert_fits(np.bincount(drawn % 64, minlength=64), np.ones(64))


def pmf(counts, p):
    return math.exp(
        math.lgamma(sum(counts) + 1) + sum(c * math.log(q) - math.lgamma(c + 1) for c, q in zip(counts, p, strict=True))
    )


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_small_n_against_enumeration(n):
    """Every outcome of n draws from five categories, in 300,000 rows: 5 to 210 cells."""
    drawn = numbel.Generator(21).multinomial(n, np.broadcast_to(np.log(P), (300_000, 5)))
    assert (drawn.sum(-1) == n).all()
    outcomes = [c for c in itertools.product(range(n + 1), repeat=5) if sum(c) == n]
    code = {c: i for i, c in enumerate(outcomes)}
    cells = np.bincount([code[tuple(c)] for c in drawn.tolist()], minlength=len(outcomes))
    assert_fits(cells, [pmf(c, P) for c in outcomes])


@pytest.mark.parametrize("n", [30, 1000, 10**6])
def test_moments(n):
    """100,000 rows: means within 0.0155 deviations, covariances -n p_i p_j within 0.016 of two deviations."""
    rows = 100_000
    drawn = numbel.Generator(22).multinomial(n, np.broadcast_to(np.log(P), (rows, 5)))
    z = stats.norm.isf(ALPHA / 2)
    deviation = np.sqrt(n * P * (1 - P))
    assert (np.abs(drawn.mean(0) - n * P) < z * deviation / math.sqrt(rows)).all()
    due = n * (np.diag(P) - np.outer(P, P))
    found = np.cov(drawn.T.astype(np.float64))
    # of a product of two nearly normal variates; a little more where counts are small
    error = np.sqrt((np.outer(np.diag(due), np.diag(due)) + due**2) / rows * (1 + 3 / (n * P.min())))
    assert (np.abs(found - due) < z * error).all()
    assert_fits(drawn.sum(0), P)


@pytest.mark.parametrize("columns", [1000, 4097, 70_000])
@pytest.mark.parametrize("n", [1 << 20, 1 << 40, 1 << 62])
def test_counts_of_many_categories_fit(columns, n):
    """Pearson's statistic over all categories: too large or too small by 4.8 of its deviations (0.18 at 1000)."""
    x = np.random.default_rng(columns).standard_normal(columns)
    p = oracle.probabilities(x)
    drawn = numbel.Generator(23).multinomial(n, x)
    assert sum(drawn.tolist()) == n
    if n == 1 << 20:
        assert_fits(drawn, p)
        return
    q = np.exp(oracle.log_probabilities(x))
    q /= q.sum()
    z = (drawn.astype(np.longdouble) - n * q) / np.sqrt(n * q)
    assert stats.chi2.sf(float((z**2).sum()), columns - 1) > ALPHA
    assert stats.chi2.cdf(float((z**2).sum()), columns - 1) > ALPHA


def test_no_draws_all_draws_and_impossible_ones():
    for columns in (1, 5, 4096, 4097, 20_000):
        x = np.full(columns, -np.inf, np.float32)
        x[columns // 2] = 3e30
        for n in (0, 1, 1000, 1 << 62):
            due = np.zeros(columns, np.int64)
            due[columns // 2] = n
            assert np.array_equal(numbel.Generator(24).multinomial(n, x), due)
        x = np.random.default_rng(columns).standard_normal(columns)
        x[::2] = -np.inf
        if columns > 1:
            for n in (1000, 1 << 62):
                drawn = numbel.Generator(24).multinomial(n, x)
                assert not drawn[::2].any()
                assert drawn.min() >= 0
                assert sum(drawn.tolist()) == n


def test_probabilities_down_to_1e_minus_300():
    """The tiny are there in the masses, and never drawn; that of 1e-15 at n = 2^62 is, in its number."""
    x = np.log(np.array([1.0, 1e-15, 1e-300, 1e-30]))
    drawn = numbel.Generator(25).multinomial(1 << 62, np.broadcast_to(x, (2000, 4)))
    assert not drawn[:, 2].any()
    mean = 2.0**62 * 1e-15
    z = (drawn[:, 1] - mean) / math.sqrt(mean)
    assert abs(z.mean()) < stats.norm.isf(ALPHA / 2) / math.sqrt(2000)
    assert abs(z.var() - 1) < stats.norm.isf(ALPHA / 2) * math.sqrt(2 / 2000)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_depends_on_threads_layout_or_batch(dtype):
    before = numba.get_num_threads()
    for shape in ((6, 5), (40, 300), (3, 9000), (1, 300_000)):
        x = np.random.default_rng(6).standard_normal(shape).astype(dtype)
        x[:, 1] = -np.inf
        n = np.random.default_rng(7).integers(0, 1 << 40, shape[0])
        t = np.linspace(0, 2, shape[0]) if shape[0] > 1 else 1.0
        ids = np.random.default_rng(8).integers(0, 1 << 50, shape[0])
        options = {"temperature": t, "row_ids": ids}
        due = numbel.Generator(26).multinomial(n, x, **options)
        assert (due.sum(-1) == n).all()
        try:
            for threads in range(1, before + 1):
                numba.set_num_threads(threads)
                assert np.array_equal(numbel.Generator(26).multinomial(n, x, **options), due)
        finally:
            numba.set_num_threads(before)
        out = np.zeros((shape[1], 2 * shape[0]), np.int64)[:, ::2]
        assert numbel.Generator(26).multinomial(n, x.T, axis=0, out=out, **options) is out
        assert np.array_equal(out.T, due)
        for row in range(min(shape[0], 3)):
            alone = numbel.Generator(26).multinomial(
                n[row], x[[row]], temperature=np.atleast_1d(t)[[row]], row_ids=ids[[row]]
            )
            assert np.array_equal(alone[0], due[row])


def test_masked_greedy_and_bad_rows():
    for columns in (9, 300, 9000):
        x = np.random.default_rng(9).standard_normal((5, columns)).astype(np.float32)
        t, mask = np.array([1.0, 0.0, 1.0, 1.0, 1.0]), np.array([True, True, False, True, True])
        drawn = numbel.Generator(27).multinomial(1000, x, temperature=t, row_mask=mask)
        assert drawn[1, np.argmax(x[1])] == 1000
        assert (drawn[2] == -1).all()
        assert drawn[[0, 1, 3, 4]].sum() == 4000
        x[3, 5], x[4] = np.nan, -np.inf
        rng = numbel.Generator(27)
        with pytest.raises(ValueError, match="logits row 3 holds NaN at column 5"):
            rng.multinomial(1000, x)
        assert rng.draw == 0
        flagged = rng.multinomial(1000, x, on_invalid="flag", temperature=t, row_mask=mask)
        assert (flagged[2:] == -1).all()
        assert np.array_equal(flagged[:2], drawn[:2])


def test_bad_arguments():
    x, rng = np.zeros((3, 4)), numbel.Generator(28)
    for n, error, text in (
        (-1, ValueError, r"n is -1, outside 0 .. 2\^62"),
        ([1, -5, 2], ValueError, r"n row 1 is -5, outside 0 .. 2\^62"),
        ((1 << 62) + 1, ValueError, "n is 4611686018427387905, outside"),
        (1.5, TypeError, r"n must hold integers, got 1\.5"),
        ([1, 2], ValueError, r"n of shape \(2,\) does not broadcast to the rows' shape \(3,\)"),
        (1 << 70, ValueError, r"outside 0 .. 2\^62"),
    ):
        with pytest.raises(error, match=text):
            rng.multinomial(n, x)
    with pytest.raises(TypeError, match="out has dtype float64"):
        rng.multinomial(1, x, out=np.zeros((3, 4)))
    with pytest.raises(ValueError, match="or 0 for the argmax, got -1"):
        rng.multinomial(1, x, temperature=-1)
    assert rng.draw == 0
    assert rng.multinomial(5, np.zeros((0, 4))).shape == (0, 4)
    assert rng.multinomial(5, np.zeros((2, 4, 3)), axis=1).sum(1).tolist() == [[5] * 3] * 2
    assert rng.multinomial([[1], [2]], np.zeros((2, 3, 4))).sum(-1).tolist() == [[1] * 3, [2] * 3]


@pytest.mark.long
def test_2_to_the_27_categories():
    """2^34 draws of equal categories: Pearson's statistic over all, and sums of 2^20 neighbours."""
    x = np.zeros(1 << 27, np.float16)
    drawn = numbel.Generator(29).multinomial(1 << 34, x)
    assert drawn.sum() == 1 << 34
    assert_fits(drawn.reshape(128, -1).sum(1), np.ones(128))
    drawn -= 128
    statistic = float(np.dot(drawn, drawn)) / 128
    # its variance is 2 (K - 1), nearly
    assert abs(statistic - x.size) < stats.norm.isf(ALPHA / 2) * math.sqrt(2 * x.size * (1 + 1 / 256))
