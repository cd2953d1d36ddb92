"""gumbel_top_k: the k largest of the public noise, their law, their weights, and the same bits in any layout."""

import itertools

import numba
import numpy as np
import pytest
from scipy import stats

import numbel
import oracle
from make_golden import dtypes, logits
from numbel._host import choices, dispatch
from statistics_helpers import ALPHA, assert_fits

DTYPES = dtypes()
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
INF = np.inf


def same(a, b):
    """Whether two results hold the same bits."""
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in zip(a, b, strict=True))


def by_definition(x, k, temperature, seed, draw):
    """Indices, perturbed and threshold of rows, from the public float64 noise."""
    with np.errstate(over="ignore"):
        phi = x.astype(np.float64) / np.reshape(temperature, (-1, 1))
    noise = numbel.Generator(seed, draw).gumbel(size=x.shape, dtype=np.float64)
    keys, order = phi + noise, oracle.perturbed_order(phi, noise)
    best = np.take_along_axis(keys, order, -1)
    return order[:, :k], best[:, :k], best[:, k] if k < x.shape[1] else np.full(len(x), -INF)


def check(x, k, temperature=1.0, seed=70, draw=2):
    """Indices, perturbed values and threshold are those of the definition, bit for bit; the result."""
    with np.errstate(all="ignore"):
        got = numbel.Generator(seed, draw).gumbel_top_k(x, k, temperature=temperature)
        indices, perturbed, threshold = by_definition(x, k, temperature, seed, draw)
    np.testing.assert_array_equal(got.indices, indices)
    np.testing.assert_array_equal(got.perturbed, perturbed)
    np.testing.assert_array_equal(got.threshold, threshold)
    assert got.perturbed.dtype == got.threshold.dtype == np.float64
    assert got.indices.dtype == np.int64
    assert got.log_prob.dtype == (np.float64 if x.dtype == np.float64 else np.float32)
    return got


# --- against the definition and the oracle


@each_dtype
@pytest.mark.parametrize("columns", [1, 2, 7, 64, 65, 512, 513, 4096, 4097, 9000])
def test_the_k_largest_of_the_public_noise(dtype, columns):
    x = logits((3, columns), dtype)
    possible = int((x != -INF).sum(-1).min())
    for k in sorted({1, min(3, possible), max(1, possible // 2), possible}):
        for temperature in (1.0, 0.05, 30.0):
            check(x, k, temperature)


@pytest.mark.parametrize("k", [1, 10, 1000, 50_000, 99_999, 100_000])
def test_long_rows_and_any_k(k):
    x = np.random.default_rng(k).standard_normal((2, 100_000)).astype(np.float32) * 3
    got = check(x, k)
    for row in range(2):
        expected = oracle.plackett_luce(x[row], got.indices[row])
        assert abs(got.log_prob[row] - expected) < 2e-7 * abs(expected) + 1e-6


@pytest.mark.parametrize(("columns", "k"), [(5, 3), (300, 20), (5000, 40), (5000, 5000)])
def test_top_k_is_the_oracles(columns, k):
    for dtype, limit in ((np.float32, 1e-6), (np.float64, 1e-12)):
        x = (np.random.default_rng(columns).standard_normal(columns) * 4).astype(dtype)
        for temperature in (1.0, 0.3):
            got = numbel.Generator(71, 4).gumbel_top_k(x[None], k, temperature=temperature, row_ids=[9])
            indices, perturbed, log_prob, threshold = oracle.top_k(x, k, temperature, 71, 4, row=9)
            assert got.indices[0].tolist() == indices.tolist()
            np.testing.assert_allclose(got.perturbed[0], perturbed, rtol=0, atol=1e-14 * np.abs(perturbed).max())
            np.testing.assert_allclose(got.threshold[0], threshold, rtol=1e-14)
            assert abs(got.log_prob[0] - log_prob) < limit * (1 + abs(log_prob))


@pytest.mark.parametrize(
    "order", ["ascending", "descending", "one peak", "equal", "huge", "close and far", "two sizes", "far apart"]
)
def test_adversarial_rows_are_those_of_the_definition(order):
    """Steep rows, rows in which the noise is lost, and those where nearly everything or nothing passes the filter."""
    x = np.random.default_rng(7).standard_normal((2, 20_000))
    dtype, temperature = np.float32, np.array([1.0, 0.01])
    if order == "ascending":
        x = np.sort(x) * 20
    elif order == "descending":
        x = -np.sort(-x) * 20
    elif order == "one peak":
        x[:, 12_345] = 150.0
    elif order == "equal":
        x[:] = 3.0
    elif order == "huge":
        x = np.round(x) * 1e30
    elif order == "close and far":  # the leading digits of nearly all keys are the same
        x[:] = 1e6
        x[:, 7], dtype = -1e300, np.float64
    elif order == "two sizes":  # as far below the best as float32 weights reach, and further
        x[:, ::2] -= 90
        x[:, 1::4] -= 70
    else:
        x, dtype, temperature = np.round(x) * 1e296, np.float64, np.array([1.0, 1e-10])
    for k in (1, 100, 7000, 20_000):
        check(x.astype(dtype), k, temperature)


def test_equal_keys_go_by_the_noise_that_their_sums_lost():
    """At 1e30 the sum rounds the noise away: all keys are equal. Of 5000 noises some pairs are closer than 2^-22."""
    for columns, k in ((40, 7), (5000, 300), (5000, 4999), (40, 40)):
        got = numbel.Generator(72).gumbel_top_k(np.full((2, columns), 1e30), k)
        noise = numbel.Generator(72).gumbel(size=(2, columns), dtype=np.float64)
        order = np.argsort(np.floor((46 - noise) * 2.0**22 + 0.5), axis=-1, kind="stable")
        assert (got.indices == order[:, :k]).all()
        assert (got.perturbed == 1e30).all()
        assert (got.threshold == (1e30 if k < columns else -INF)).all()


@each_dtype
def test_the_first_is_that_of_gumbel_max(dtype):
    temperatures = np.array([0.0, 1e-3, 0.7, 1.0, 1000.0])
    for columns in (3, 64, 300, 5000):
        x = logits((5, columns), dtype)
        ids = [3, 1 << 40, 0, 7, (1 << 56) - 1]
        drawn = numbel.Generator(73, 8).categorical(x, temperature=temperatures, method="gumbel_max", row_ids=ids)
        for k in (1, 2):
            got = numbel.Generator(73, 8).gumbel_top_k(x, k, temperature=temperatures, row_ids=ids)
            assert got.indices[:, 0].tolist() == drawn.tolist()


# --- the law


@pytest.mark.parametrize(("k", "columns"), [(1, 4), (2, 6), (3, 5), (4, 4), (5, 6)])
def test_ordered_samples_follow_plackett_luce(k, columns):
    """Every ordered outcome counted; 400,000 draws show a bias of 0.0036 in a probability of 0.1."""
    x = np.log(np.arange(1.0, columns + 1)) * np.array([1, -0.5] * 3)[:columns]
    got = numbel.Generator(74 + columns, k).gumbel_top_k(np.broadcast_to(x, (400_000, columns)), k)
    outcomes = list(itertools.permutations(range(columns), k))
    exact = {outcome: float(oracle.plackett_luce(x, np.array(outcome))) for outcome in outcomes}
    assert abs(sum(np.exp(list(exact.values()))) - 1) < 1e-12
    code = got.indices @ columns ** np.arange(k)
    table = {sum(c * columns**i for i, c in enumerate(outcome)): value for outcome, value in exact.items()}
    counts = np.bincount(code, minlength=columns**k)
    assert_fits([counts[each] for each in table], np.exp(list(table.values())))
    assert sum(counts[each] for each in table) == 400_000
    np.testing.assert_allclose(got.log_prob, [table[each] for each in code], atol=1e-12)


def test_the_law_of_the_threshold():
    """The largest key is Gumbel(logsumexp), and what k = 1 leaves is a Gumbel of the rest, cut off there."""
    x = np.log(np.array([3.0, 2.0, 1.0, 4.0]))
    got = numbel.Generator(75).gumbel_top_k(np.broadcast_to(x, (200_000, 4)), 1)
    assert stats.kstest(got.perturbed[:, 0] - np.log(10.0), "gumbel_r").pvalue > ALPHA
    rest = np.log(10 - np.exp(x[got.indices[:, 0]]))
    u = np.exp(-np.exp(rest - got.threshold) + np.exp(rest - got.perturbed[:, 0]))
    assert stats.kstest(u, "uniform").pvalue > ALPHA


# --- log_prob and weights where they are hard


def test_log_prob_where_the_chosen_hold_nearly_everything():
    """1 - p of the chosen is lost to rounding: the others' mass must be summed on its own."""
    x = np.full(5000, -650.0)
    x[[17, 4100]], x[[5, 4999]] = [0.0, -1.0], [-600.0, -600.5]
    for k in (2, 3, 4, 40):
        got = numbel.Generator(76).gumbel_top_k(x, k)
        expected = oracle.plackett_luce(x, got.indices)
        assert set(got.indices[:2].tolist()) == {17, 4100}
        assert abs(got.log_prob - expected) <= 1e-13 * abs(expected)
        single = numbel.Generator(76).gumbel_top_k(x.astype(np.float32), k)
        assert abs(single.log_prob - expected) <= 3e-7 * abs(expected)


@pytest.mark.parametrize("k", [1, 2, 50, 699, 700])
def test_probabilities_down_to_1e_300(k):
    x = -np.arange(700.0)
    got = numbel.Generator(77).gumbel_top_k(x, k)
    expected = oracle.plackett_luce(x, got.indices)
    assert abs(got.log_prob - expected) <= 1e-13 * abs(expected) + 1e-15
    weights = numbel.top_k_weights(got, x)
    # in extended precision, whose exponents reach further
    phi = x[got.indices].astype(np.longdouble)
    y = np.exp(phi - np.longdouble(got.threshold))
    p = np.exp(oracle.log_probabilities(x))[got.indices]
    np.testing.assert_allclose(weights, (p / -np.expm1(-y)).astype(float), rtol=1e-13)


def test_weights_are_accurate_at_both_ends():
    """phi - kappa from -745 to 745: small weights, where p and q vanish together, and q = 1."""
    d = np.concatenate(
        [np.linspace(-745, 745, 2981), np.linspace(-2, 2, 4001), np.log(0.5) + np.linspace(-1, 1, 9) * 1e-9]
    )
    result = numbel.TopK(np.zeros((len(d), 1), np.int64), d[:, None], np.zeros(len(d)), -d)
    # one category beside another that is impossible: p = 1, and logsumexp = 0
    weights = numbel.top_k_weights(result, np.broadcast_to([0.0, -INF], (len(d), 2)))[:, 0]
    exact = 1 / -np.expm1(-np.exp(d.astype(np.longdouble)))
    finite = exact < 1e308
    np.testing.assert_allclose(weights[finite], exact[finite].astype(float), rtol=3e-14)
    # exp of a number near 745 has an error of 745 / 2^53; near 0 there is none
    near = np.abs(d) < 2
    np.testing.assert_allclose(weights[near], exact[near].astype(float), rtol=2e-15)


def test_weights_are_unbiased():
    """E sum w f is sum p f for 1, the index and an indicator: 200,000 draws show a bias of 7 standard errors."""
    x = np.log(np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04]))
    p = oracle.probabilities(x, 0.8)
    f = np.stack([np.ones(6), np.arange(6.0), np.arange(6) == 5, np.array([3.0, -1, 2, 0, 5, -7])])
    batch = np.broadcast_to(x, (200_000, 6))
    for k in (1, 2, 4, 6):
        got = numbel.Generator(78, k).gumbel_top_k(batch, k, temperature=0.8)
        weights = numbel.top_k_weights(got, batch, temperature=0.8)
        for values in f:
            estimates = (weights * values[got.indices]).sum(-1)
            error = abs(estimates.mean() - p @ values) - 1e-12
            assert error < stats.norm.isf(ALPHA / 2) * estimates.std() / 200_000**0.5, (k, values)
        normalized = numbel.top_k_weights(got, batch, temperature=0.8, normalized=True)
        np.testing.assert_allclose(normalized.sum(-1), 1, atol=1e-14)
        np.testing.assert_allclose(normalized, weights / weights.sum(-1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(weights, p[got.indices], rtol=1e-13)  # k = K


def test_weights_of_rows_that_are_not_drawn():
    x = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [1.0, -INF, -INF]])
    got = numbel.Generator(79).gumbel_top_k(
        x, 2, temperature=[0.0, 1.0, 1.0], row_mask=[True, False, True], on_invalid="flag"
    )
    for normalized in (False, True):
        weights = numbel.top_k_weights(got, x, temperature=[0.0, 1.0, 1.0], normalized=normalized)
        np.testing.assert_array_equal(weights, [[1, 0], [np.nan] * 2, [np.nan] * 2])


def test_weights_along_an_axis_and_of_one_row():
    x = np.random.default_rng(0).standard_normal((50, 3, 4)).astype(np.float32)
    got = numbel.Generator(80).gumbel_top_k(x, 5, axis=0)
    weights = numbel.top_k_weights(got, x, axis=0)
    assert weights.shape == (3, 4, 5)
    moved = numbel.top_k_weights(got, np.moveaxis(x, 0, -1))
    np.testing.assert_array_equal(weights, moved)
    one = numbel.Generator(80).gumbel_top_k(x[:, 0, 0], 5)
    np.testing.assert_array_equal(numbel.top_k_weights(one, x[:, 0, 0]), weights[0, 0])


# --- rows that are not ordinary


def test_minus_infinity_is_never_chosen():
    x = np.full((4, 9000), -INF)
    x[0, [5, 4100]] = [-3.0, 2.0]
    x[1, ::7] = 0.0
    x[2] = 0.0
    x[3, -2:] = 1e4
    got = check(x, 2)
    assert (np.take_along_axis(x, got.indices, -1) > -INF).all()
    assert got.threshold[[0, 3]].tolist() == [-INF, -INF]
    assert got.threshold[1] > -INF
    one_hot = np.where(np.arange(300) == 123, 0.0, -INF)
    got = numbel.Generator(81).gumbel_top_k(one_hot, 1)
    assert (got.indices.tolist(), float(got.log_prob), float(got.threshold)) == ([123], 0.0, -INF)


@pytest.mark.parametrize("columns", [6, 5000])
def test_temperature_zero_takes_the_largest_logits(columns):
    x = np.random.default_rng(3).integers(-3, 3, (4, columns)).astype(np.float32)
    x[2, ::2] = -INF
    temperatures = np.array([0.0, 1.0, 0.0, 0.5])
    got = numbel.Generator(82).gumbel_top_k(x, 3, temperature=temperatures)
    plain = numbel.Generator(82).gumbel_top_k(x, 3, temperature=np.where(temperatures == 0, 2.0, temperatures))
    for row in (0, 2):
        order = np.argsort(-x[row], kind="stable")
        assert got.indices[row].tolist() == order[:3].tolist()
        with np.errstate(invalid="ignore"):
            limits = np.where(x[row] == 0, 0, x[row] * INF)
        assert got.perturbed[row].tolist() == limits[order[:3]].tolist()
        assert got.threshold[row] == (limits[order[3]] if columns > 3 else -INF)
        assert got.log_prob[row] == 0
    for row in (1, 3):
        assert same([part[row] for part in got], [part[row] for part in plain])


def test_masked_and_flagged_rows():
    x = np.zeros((5, 700), np.float32)
    x[1, 3], x[2, 699], x[3, 2:] = np.nan, INF, -INF
    mask = np.array([True, True, True, True, False])
    got = numbel.Generator(83).gumbel_top_k(x, 3, row_mask=mask, on_invalid="flag")
    clean = numbel.Generator(83).gumbel_top_k(np.zeros((5, 700), np.float32), 3)
    assert same([part[0] for part in got], [part[0] for part in clean])
    for row in (1, 2, 3, 4):
        assert (got.indices[row] == -1).all()
        assert np.isnan(got.perturbed[row]).all()
        assert np.isnan(got.log_prob[row])
        assert np.isnan(got.threshold[row])


@pytest.mark.parametrize("columns", [20, 5000, 300_000])
def test_errors_name_the_row(columns):
    def message(change, k=3, **options):
        x = np.zeros((4, columns), np.float32)
        change(x)
        with pytest.raises(ValueError, match=r".") as caught:
            numbel.Generator(84).gumbel_top_k(x, k, **options)
        return str(caught.value)

    for options in ({}, {"temperature": [0.0] * 4}):
        assert message(lambda x: x[2, 2:].fill(-INF), **options) == (
            "logits row 2 has 2 possible categories, fewer than k = 3"
        )
        assert message(lambda x: x[2].fill(-INF), **options) == "logits row 2 has no possible category"
        assert message(lambda x: x[1, 17:18].fill(np.nan), **options) == "logits row 1 holds NaN at column 17"
        assert message(lambda x: x[1:, -1].fill(INF), **options) == f"logits row 1 holds +inf at column {columns - 1}"
    assert message(lambda x: None, k=0) == "k must be at least 1, got 0"
    assert message(lambda x: None, k=columns + 1) == (
        f"k is {columns + 1}, but logits has {columns} categories to choose from"
    )


def test_other_arguments():
    rng = numbel.Generator(85)
    x = np.zeros((2, 5))
    with pytest.raises(TypeError, match=r"k must be an integer, got 2\.5"):
        rng.gumbel_top_k(x, 2.5)
    with pytest.raises(TypeError, match=r"out must be a numbel\.TopK, got ndarray"):
        rng.gumbel_top_k(x, 2, out=np.zeros(3))
    with pytest.raises(ValueError, match=r"out\.threshold has shape \(3,\), expected \(2,\)"):
        rng.gumbel_top_k(x, 2, out=numbel.TopK(None, None, None, np.zeros(3)))
    with pytest.raises(TypeError, match=r"out\.perturbed has dtype float32, expected float64"):
        rng.gumbel_top_k(x, 2, out=numbel.TopK(None, np.zeros((2, 2), np.float32), None, None))
    with pytest.raises(ValueError, match=r"zero categories"):
        rng.gumbel_top_k(np.zeros((3, 0)), 1)
    with pytest.raises(np.exceptions.AxisError):
        rng.gumbel_top_k(x, 1, axis=2)
    with pytest.raises(ValueError, match=r"or 0 for the argmax, got -1"):
        rng.gumbel_top_k(x, 1, temperature=-1)
    assert rng.draw == 0
    got = rng.gumbel_top_k(x, 2)
    assert rng.draw == 1
    with pytest.raises(TypeError, match=r"result must be a numbel\.TopK, got tuple"):
        numbel.top_k_weights(tuple(got), x)
    with pytest.raises(ValueError, match=r"result has indices of shape \(2, 2\), expected \(3,\) and k"):
        numbel.top_k_weights(got, np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"result\.indices holds 4, but logits has 4 categories"):
        numbel.top_k_weights(got._replace(indices=np.array([[0, 1], [4, 2]])), x[:, :4])
    with pytest.raises(TypeError, match=r"result holds float64 indices"):
        numbel.top_k_weights(got._replace(indices=got.perturbed), x)


def test_shapes():
    rng = numbel.Generator(86)
    got = rng.gumbel_top_k(np.zeros(7, np.float32), 3)
    assert (got.indices.shape, got.perturbed.shape) == ((3,), (3,))
    assert isinstance(got.log_prob, np.float32)
    assert isinstance(got.threshold, np.float64)
    got = rng.gumbel_top_k(np.zeros((4, 7, 2)), 3, axis=1)
    assert [part.shape for part in got] == [(4, 2, 3), (4, 2, 3), (4, 2), (4, 2)]
    got = rng.gumbel_top_k(np.zeros((0, 7)), 3)
    assert [part.shape for part in got] == [(0, 3), (0, 3), (0,), (0,)]
    weights = numbel.top_k_weights(got, np.zeros((0, 7)))
    assert weights.shape == (0, 3)


def test_out_is_filled():
    x = logits((3, 600), np.float32)
    plain = numbel.Generator(87).gumbel_top_k(x, 4)
    indices, perturbed = np.zeros((4, 3), np.int64).T, np.zeros((3, 4))
    log_prob = np.zeros(6, np.float32)[::2]
    got = numbel.Generator(87).gumbel_top_k(x, 4, out=numbel.TopK(indices, perturbed, log_prob, None))
    assert got.indices is indices
    assert got.log_prob is log_prob
    assert same(got, plain)


# --- the same bits


@pytest.mark.parametrize(
    ("shape", "k"), [((1, 300_000), 1), ((1, 300_000), 500), ((3, 70_000), 40_000), ((2, 200_000), 90)]
)
def test_threads_and_segments_change_no_bit(shape, k, monkeypatch):
    x = np.random.default_rng(9).standard_normal(shape).astype(np.float32)
    x[:, 1000:1100] = 4.0
    if k < 1000:
        x[-1, 9000:] = np.where(np.arange(shape[1] - 9000) % 3, -INF, x[-1, 9000:])
    threads = numba.get_num_threads()
    monkeypatch.setattr(dispatch, "_WAVE", 1 << 17)
    results = []
    try:
        for count in sorted({1, threads}):
            numba.set_num_threads(count)
            results.append(numbel.Generator(88).gumbel_top_k(x, k))
            for blocks, nodes in itertools.product((1, 3, 100), (0, 1 << 20)):
                monkeypatch.setattr(choices, "_segment_blocks", lambda *_, blocks=blocks: blocks)
                monkeypatch.setattr(choices, "_NODES", nodes)
                results.append(numbel.Generator(88).gumbel_top_k(x, k))
            monkeypatch.undo()
    finally:
        numba.set_num_threads(threads)
    assert all(same(result, results[0]) for result in results)
    assert results[0].indices[0].tolist() == by_definition(x[:1], k, 1.0, 88, 0)[0][0].tolist()


@each_dtype
@pytest.mark.parametrize("columns", [1, 2, 7, 33, 100, 128])
def test_rows_many_at_a_time_and_alone(dtype, columns, monkeypatch):
    """Every kind of row in one call: the same bits from either kernel, in any layout; and those of the definition."""
    rng = np.random.default_rng(columns)
    rows = 70
    x = rng.standard_normal((rows, columns)) * rng.choice([0.1, 1.0, 30.0], (rows, 1))
    x[1] = np.round(x[1])  # ties at temperature 0
    x[2], x[3] = 0.0, -0.0
    x[4, ::2] *= -0.0
    x[5, rng.random(columns) < 0.7] = -INF
    x[6] = -INF
    x[7, columns // 2], x[8, 0] = np.nan, INF
    x[9] *= 6e4 / np.abs(x[9]).max()
    x[10, 1:] = -INF
    x = x.astype(dtype)
    rest = {
        "temperature": rng.choice([0.0, 1e-30, 0.3, 1.0, 7.0], rows),
        "row_ids": rng.integers(0, 1 << 56, rows),
        "row_mask": rng.random(rows) < 0.9,
    }

    def drawn(k):
        found = []
        for array in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
            for options in ({}, {"temperature": 0.3}, rest):
                with np.errstate(all="ignore"):
                    found.append(numbel.Generator(3, draw=7).gumbel_top_k(array, k, on_invalid="flag", **options))
        return found

    for k in sorted({1, (columns + 1) // 2, columns}):
        monkeypatch.setattr(choices, "_MANY_ROWS", 16)
        across = drawn(k)
        monkeypatch.setattr(choices, "_MANY_ROWS", 1 << 60)
        for a, b in zip(across, drawn(k), strict=True):
            for one, other in zip(a, b, strict=True):
                assert one.tobytes() == other.tobytes() or np.array_equal(one, other, equal_nan=True)
    monkeypatch.setattr(choices, "_MANY_ROWS", 16)
    check(x[11:], max(1, columns // 2))


@pytest.mark.parametrize("columns", [128, 10_240])
def test_the_largest_temperature_and_differences_that_overflow_float32(columns):
    """2e38 and -2e38 at T = 2^100: all that is drawn lies at 2e38."""
    x = np.tile(np.array([2e38, -2e38], np.float32), columns // 2)
    got = check(np.broadcast_to(x, (3, columns)), 20, temperature=2.0**100)
    assert (got.indices % 2 == 0).all()
    x = (np.linspace(-1, 1, columns) * 1e31).astype(np.float32)
    check(np.broadcast_to(x, (3, columns)), 20, temperature=2.0**100)


@each_dtype
def test_strides_and_axes_change_no_bit(dtype):
    x = logits((6, 5000), dtype)
    plain = numbel.Generator(89).gumbel_top_k(x, 12)
    other_axis = np.ascontiguousarray(x.T)
    assert same(numbel.Generator(89).gumbel_top_k(other_axis, 12, axis=0), plain)
    wide = np.zeros((6, 10_000), dtype)
    wide[:, ::-2] = x
    assert same(numbel.Generator(89).gumbel_top_k(wide[:, ::-2], 12), plain)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(dtype).reshape(x.shape)
    unaligned[...] = x
    unaligned.flags.writeable = False
    assert same(numbel.Generator(89).gumbel_top_k(unaligned, 12), plain)
    cube = np.moveaxis(np.ascontiguousarray(np.moveaxis(x.reshape(2, 3, 5000), 0, 1)), 0, 1)
    got = numbel.Generator(89).gumbel_top_k(cube, 12)
    assert same([part.reshape(6, *part.shape[2:]) for part in got], plain)


def test_batches_split_by_row_ids():
    x = logits((9, 700), np.float32)
    temperatures = np.linspace(0.5, 2, 9)
    plain = numbel.Generator(90, 5).gumbel_top_k(x, 6, temperature=temperatures)
    for rows in ([4], [8, 0, 3], list(range(9))[::-1]):
        got = numbel.Generator(90, 5).gumbel_top_k(x[rows], 6, temperature=temperatures[rows], row_ids=rows)
        assert same(got, [part[rows] for part in plain])


def test_a_row_of_2_to_the_24():
    """More candidates than are kept, in many segments: the largest keys of all columns."""
    x = np.zeros((1, 1 << 24), np.float16)
    got = numbel.Generator(91).gumbel_top_k(x, 1000)
    keys = numbel.Generator(91).gumbel(size=x.shape, dtype=np.float64)[0]
    order = np.argsort(-keys)[:1001]
    assert got.indices[0].tolist() == order[:1000].tolist()
    assert got.threshold[0] == keys[order[1000]]
    n = float(1 << 24)
    assert abs(got.log_prob[0] + np.log(n - np.arange(1000)).sum()) < 1e-3
