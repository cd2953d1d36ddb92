"""Gradient estimators against exact gradients by enumeration, their variances, and their edges."""

import re
import threading

import numpy as np
import pytest
from scipy import integrate, stats

import numbel
from numbel import Generator, estimators
from statistics_helpers import ALPHA

LOGITS = np.array([0.3, -1.0, 1.2, 0.0])
A, B = np.array([1.0, -0.5, 0.8, 2.0]), np.array([0.2, 1.5, -1.0, 0.3])
SAMPLES = 1_000_000
INF = np.inf

ALL = [getattr(estimators, name) for name in estimators.__all__]
HARD = [e for e in ALL if e is not estimators.gumbel_softmax]
SMOOTH = [e for e in ALL if e is not estimators.score_function]


def nonlinear(d):
    """A value for each row, and its derivative."""
    s, q = d @ A, d @ B
    return s**2 + np.sin(3 * q) + 5, 2 * s[..., None] * A + 3 * np.cos(3 * q)[..., None] * B


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def exact(values, logits=LOGITS):
    """The gradient of E[f(D)]: p_k (f_k - E f)."""
    p = softmax(logits)
    return p * (values - p @ values)


EXACT = exact(nonlinear(np.eye(4))[0])


def rows_of(logits=LOGITS, count=SAMPLES):
    return np.broadcast_to(logits, (count, *logits.shape))


def moments(gradients):
    """Mean and standard error of each entry over the rows."""
    return gradients.mean(0), gradients.std(0) / len(gradients) ** 0.5


def assert_near(gradients, due):
    """Five standard errors: 6e-7 for each entry. Seen with power .99: 7.3 of them, at 1e6 samples 0.03 at worst."""
    mean, error = moments(gradients)
    assert np.all(abs(mean - due) <= 5 * error + 1e-12), f"off by {(mean - due) / error} standard errors"


def assert_smaller_variance(small, large):
    """The first estimator's variance, summed over the entries, is below the second's by six standard errors."""
    totals = [((g - g.mean(0)) ** 2).reshape(len(g), -1).sum(1) for g in (small, large)]
    difference = totals[1].mean() - totals[0].mean()
    error = (sum(t.var() / len(t) for t in totals)) ** 0.5
    assert difference > 6 * error, f"{totals[0].mean()} against {totals[1].mean()}"


# --- unbiased ones


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_score_function_is_unbiased(baseline, num_samples):
    rows = rows_of(count=SAMPLES // num_samples)
    found = estimators.score_function(
        nonlinear, rows, Generator(21, 100 * num_samples + baseline), num_samples=num_samples, baseline=baseline
    )
    assert_near(found.gradient, EXACT)
    assert_near(found.value[:, None], softmax(LOGITS) @ nonlinear(np.eye(4))[0])


@pytest.mark.parametrize(("temperature", "eta"), [(0.1, 1.0), (0.5, 1.0), (0.5, -0.7), (2.0, 1.0)])
def test_rebar_is_unbiased(temperature, eta):
    rng = Generator(22, round(100 * temperature + 10 * abs(eta)))
    found = estimators.rebar(nonlinear, rows_of(), rng, temperature=temperature, eta=eta)
    assert_near(found.gradient, EXACT)


@pytest.mark.parametrize(
    ("estimator", "options"),
    [(estimators.score_function, {}), (estimators.score_function, {"num_samples": 3}), (estimators.rebar, {})],
    ids=["plain", "baseline", "rebar"],
)
def test_a_function_of_two_rows(estimator, options):
    """f(D1, D2) = sin(D1' M D2) + ... is not a sum over rows."""
    m = np.array([[0.3, -1.0, 2.0], [1.5, 0.2, -0.4], [0.7, 1.1, 0.5]])
    logits = np.array([[0.2, -0.5, 0.9], [1.0, 0.0, -0.3]])

    def f(d):
        left, right = d[:, 0] @ m, d[:, 1] @ m.T
        s = (left * d[:, 1]).sum(-1)
        slope = np.cos(s)[:, None, None] * np.stack([right, left], 1)
        return np.sin(s), slope

    p, q = softmax(logits)
    values = np.sin(m)
    mean = p @ values @ q
    due = np.stack([p * (values @ q - mean), q * (p @ values - mean)])
    found = estimator(f, rows_of(logits, SAMPLES // 2), Generator(23, 0), **options)
    assert found.value.shape == (SAMPLES // 2,)
    assert_near(found.gradient, due)


# --- biased ones


def test_gumbel_softmax_is_the_derivative_of_the_relaxed_mean():
    """K = 2: E f(y) is an integral over a logistic variable, and so is its derivative."""
    logits, t = np.array([0.7, -0.2]), 0.8

    def f(d):
        return np.exp(d[:, 0]), np.stack([np.exp(d[:, 0]), np.zeros(len(d))], -1)

    def slope(x):
        y = 1 / (1 + np.exp(-(logits[0] - logits[1] + x) / t))
        return np.exp(y) * y * (1 - y) / t * stats.logistic.pdf(x)

    due = integrate.quad(slope, -40, 40, epsabs=1e-12)[0]
    found = estimators.gumbel_softmax(f, rows_of(logits), Generator(24, 0), temperature=t)
    assert_near(found.gradient, [due, -due])


def test_the_bias_of_gumbel_softmax_falls_with_the_temperature():
    biases = []
    for temperature in (1.0, 0.5, 0.2):
        found = estimators.gumbel_softmax(
            nonlinear, rows_of(count=SAMPLES // 2), Generator(25, round(10 * temperature)), temperature=temperature
        )
        mean, error = moments(found.gradient)
        biases.append(np.linalg.norm(mean - EXACT))
        assert biases[-1] > 6 * np.linalg.norm(error)
        if len(biases) > 1:
            assert biases[-1] < 0.7 * biases[-2]


def test_gumbel_rao_has_the_mean_of_straight_through():
    t = 0.7
    plain = estimators.straight_through(nonlinear, rows_of(), Generator(26, 0), temperature=t).gradient
    averaged = estimators.gumbel_rao(
        nonlinear, rows_of(), Generator(26, 1), temperature=t, conditional_samples=2
    ).gradient
    (a, error_a), (b, error_b) = moments(plain), moments(averaged)
    assert np.all(abs(a - b) <= 5 * np.hypot(error_a, error_b))
    assert np.linalg.norm(a - EXACT) > 10 * np.linalg.norm(error_a), "its bias is not visible"


def test_straight_through_at_two_categories():
    """K = 2, linear f: E J(y) is an integral."""
    logits, t = np.array([0.7, -0.2]), 0.6

    def slope(x):
        y = 1 / (1 + np.exp(-(logits[0] - logits[1] + x) / t))
        return 3 * y * (1 - y) / t * stats.logistic.pdf(x)

    due = integrate.quad(slope, -40, 40, epsabs=1e-12)[0]
    u, rows = np.array([2.0, -1.0]), rows_of(logits, SAMPLES // 2)
    for estimator in (estimators.straight_through, estimators.gumbel_rao):
        found = estimator(lambda d: (d @ u, np.broadcast_to(u, d.shape)), rows, Generator(27, 0), temperature=t)
        assert_near(found.gradient, [due, -due])


def enumerated(estimator, f, logits, rows=4000, **options):
    """The exact expectation of an estimate that depends on D alone: the mean over D, found among many rows."""
    seen = []

    def remembering(d):
        seen.append(d.argmax(-1))
        return f(d)

    found = estimator(remembering, rows_of(logits, rows), Generator(28, 0), **options)
    _, first = np.unique(seen[0], return_index=True)
    assert len(first) == len(logits)
    return softmax(logits) @ found.gradient[first]


def quadratic(d):
    m = np.array([[1.0, 2.0, -1.0, 0.5], [0.3, -2.0, 0.7, 1.0], [0.0, 1.0, 3.0, -0.2], [2.0, 0.1, 0.4, 1.5]])
    return ((d @ m) * d).sum(-1) + d @ A + 7, d @ (m + m.T) + A


def test_reinmax_is_exact_for_quadratic_functions():
    due = exact(quadratic(np.eye(4))[0])
    np.testing.assert_allclose(enumerated(estimators.reinmax, quadratic, LOGITS), due, atol=1e-12)
    assert np.abs(enumerated(estimators.reinmax, quadratic, LOGITS, temperature=1.5) - due).max() > 0.01


def test_reinmax_is_biased_otherwise():
    assert np.abs(enumerated(estimators.reinmax, nonlinear, LOGITS) - EXACT).max() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_reinmax_is_its_formula(temperature):
    p, tempered, d = softmax(LOGITS), softmax(LOGITS / temperature), np.eye(4)
    u = nonlinear(d)[1]
    middle = (tempered + d) / 2

    def times(y, u):
        return y * (u - (y * u).sum(-1, keepdims=True))

    due = p @ (2 * times(middle, u) - times(p, u) / 2)
    found = enumerated(estimators.reinmax, nonlinear, LOGITS, temperature=temperature)
    np.testing.assert_allclose(found, due, atol=1e-13)


def test_the_first_order_straight_through_is_not_exact_for_quadratic_functions():
    """So that the quadratic of the tests above asks for something."""
    p, u = softmax(LOGITS), quadratic(np.eye(4))[1]
    assert np.abs(p @ (p * (u - (p * u).sum(-1, keepdims=True))) - exact(quadratic(np.eye(4))[0])).max() > 0.1


# --- variance


def test_variances_are_ordered():
    rows = rows_of(count=100_000)

    def gradient(name, draw, **options):
        return getattr(estimators, name)(nonlinear, rows, Generator(29, draw), **options).gradient

    plain = gradient("score_function", 0)
    assert_smaller_variance(gradient("rebar", 100, temperature=0.5), plain)
    assert_smaller_variance(
        gradient("score_function", 200, num_samples=4),
        gradient("score_function", 300, num_samples=4, baseline=False),
    )
    straight = gradient("straight_through", 400, temperature=0.5)
    few = gradient("gumbel_rao", 500, temperature=0.5, conditional_samples=2)
    many = gradient("gumbel_rao", 600, temperature=0.5, conditional_samples=10)
    assert_smaller_variance(few, straight)
    assert_smaller_variance(many, few)
    assert_smaller_variance(gradient("straight_through", 700, temperature=0.5, num_samples=4), straight)


def test_rebar_without_its_control_variate_is_the_score_function():
    rows = rows_of(count=1000)
    a = estimators.rebar(nonlinear, rows, Generator(30, 0), eta=0)
    b = estimators.score_function(nonlinear, rows, Generator(30, 0))
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-12, atol=1e-12)


# --- one sample, by its formula


def test_a_path_derivative_is_that_of_finite_differences():
    """At fixed noise; T enters as 1 / T."""
    logits, t, step = np.array([[0.1, -0.4, 0.8], [1.0, 0.3, -0.2]]), np.array([0.6, 1.7]), 1e-5
    a, b = A[:3], B[:3]

    def f(d):
        return np.sin(d @ a) + (d @ b) ** 2, np.cos(d @ a)[..., None] * a + 2 * (d @ b)[..., None] * b

    found = estimators.gumbel_softmax(f, logits, Generator(31, 5), temperature=t).gradient
    for at in np.ndindex(logits.shape):
        moved = [logits.copy(), logits.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        up, down = (f(Generator(31, 5).gumbel_softmax(m, t))[0].sum() for m in moved)
        assert found[at] == pytest.approx((up - down) / (2 * step), rel=1e-6)


def test_straight_through_is_its_formula():
    logits, t = np.array([[0.1, -0.4, 0.8, 0.0], [1.0, 0.3, -0.2, 0.4]]), np.array([0.6, 1.7])
    y = Generator(32, 9).gumbel_softmax(logits, t)
    d = np.eye(4)[Generator(32, 9).categorical(logits, method="gumbel_max")]
    value, u = nonlinear(d)
    found = estimators.straight_through(nonlinear, logits, Generator(32, 9), temperature=t)
    due = y * (u - (y * u).sum(-1, keepdims=True)) / t[:, None]
    np.testing.assert_allclose(found.gradient, due, rtol=1e-12, atol=1e-14)
    assert np.array_equal(found.value, value)


def test_the_derivative_through_the_condition():
    """Of z given its argmax, at fixed noise, by finite differences."""
    logits, k, step = LOGITS, 2, 1e-6
    e = np.array([0.7, 1.3, 0.4, 2.0])

    def z_of(phi):
        top = np.logaddexp.reduce(phi) - np.log(e[k])
        z = -np.logaddexp(np.log(e) - phi, -top)
        z[k] = top
        return z

    cotangent, p = np.array([0.5, -1.0, 2.0, 0.3]), softmax(logits)
    found = estimators._through_the_condition(z_of(logits), np.array(k), p, cotangent)
    for j in range(4):
        bump = step * np.eye(4)[j]
        due = cotangent @ (z_of(logits + bump) - z_of(logits - bump)) / (2 * step)
        assert found[j] == pytest.approx(due, abs=1e-8)


def test_gumbel_rao_is_its_formula():
    t, logits = 0.4, LOGITS
    index = Generator(33, 3).categorical(logits, method="gumbel_max")
    child = Generator(33, 3).spawn(1)[0]
    u, due = nonlinear(np.eye(4)[index])[1], 0
    for _ in range(3):
        y = softmax(child.conditional_gumbel(logits, index) / t)
        due = due + y * (u - y @ u) / t / 3
    found = estimators.gumbel_rao(nonlinear, logits, Generator(33, 3), temperature=t, conditional_samples=3)
    np.testing.assert_allclose(found.gradient, due, rtol=1e-10, atol=1e-13)


# --- what f is given, and when


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_shapes_and_dtypes(estimator, axis, dtype):
    pytest.importorskip("ml_dtypes")
    logits = np.random.default_rng(1).normal(size=(4, 4, 4)).astype(dtype)
    original = logits.copy()
    calls = []

    def f(d):
        calls.append(d.copy())
        assert d.shape == logits.shape
        assert d.dtype == logits.dtype
        wide = np.moveaxis(d.astype(float), axis, -1)
        value, slope = nonlinear(wide)
        return value, np.moveaxis(slope, -1, axis)

    found = estimator(f, logits, Generator(34, 0), axis=axis, temperature=1.5, num_samples=2)
    assert found.gradient.shape == logits.shape
    assert found.gradient.dtype == logits.dtype
    assert found.value.shape == (4, 4)
    assert found.value.dtype == np.float64
    assert np.array_equal(logits, original)
    small = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-13}[dtype]
    gradient = found.gradient.astype(float)
    assert np.abs(gradient.sum(axis)).max() < small * max(1, np.abs(gradient).max())
    if estimator in HARD:
        assert set(np.unique(calls[0].astype(float))) == {0.0, 1.0}
        assert np.all(calls[0].astype(float).sum(axis) == 1)
        index = Generator(34, 0).categorical(logits, axis=axis, method="gumbel_max")
        assert np.array_equal(calls[0].argmax(axis), index)
    # the same categories last
    moved = estimator(
        lambda d: nonlinear(d.astype(float)),
        np.moveaxis(logits, axis, -1),
        Generator(34, 0),
        temperature=1.5,
        num_samples=2,
    )
    # f's own sums may take another order
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(
        np.moveaxis(moved.gradient, -1, axis).astype(float), gradient, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("estimator", ALL)
def test_one_row_gives_scalars(estimator):
    found = estimator(nonlinear, LOGITS, Generator(35, 0), num_samples=3)
    assert isinstance(found, numbel.Gradient)
    assert isinstance(found.value, np.float64)
    assert found.gradient.shape == (4,)


@pytest.mark.parametrize("estimator", ALL)
def test_values_of_groups_of_rows(estimator):
    """A sum over rows is one value, or one for each group, or one for each row: path derivatives are the same."""
    logits = np.random.default_rng(2).normal(size=(2, 3, 4))
    found = [
        estimator(
            lambda d, n=n: (nonlinear(d)[0].sum(axis=tuple(range(n, 2))), nonlinear(d)[1]),
            logits,
            Generator(36, 0),
            num_samples=3,
        )
        for n in range(3)
    ]
    assert [f.value.shape for f in found] == [(), (2,), (2, 3)]
    for other in found[:2]:
        assert other.value.sum() == pytest.approx(found[2].value.sum())
        if estimator not in (estimators.score_function, estimators.rebar):
            assert np.array_equal(other.gradient, found[2].gradient)
        else:
            assert not np.allclose(other.gradient, found[2].gradient)


@pytest.mark.parametrize(("estimator", "calls"), [(e, 3 if e is estimators.rebar else 1) for e in ALL])
def test_calls_and_draw_ids(estimator, calls):
    seen = []

    def f(d):
        seen.append(d)
        return nonlinear(d)

    rng = Generator(37, 10)
    whole = estimator(f, LOGITS, rng, num_samples=4)
    assert len(seen) == 4 * calls
    assert rng.draw == 14
    if estimator in HARD:
        for d in seen[::calls]:
            assert sorted(d) == [0, 0, 0, 1]
    if estimator is not estimators.score_function:
        parts = [estimator(nonlinear, LOGITS, Generator(37, 10 + i)).gradient for i in range(4)]
        np.testing.assert_allclose(whole.gradient, np.mean(parts, 0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("estimator", ALL)
def test_an_error_gives_the_draw_id_back(estimator):
    rng = Generator(38, 5)
    with pytest.raises(ZeroDivisionError):
        estimator(lambda d: 1 / 0, LOGITS, rng)
    assert rng.draw == 5


def test_threads_share_a_generator():
    rng, found = Generator(39, 0), []

    def work():
        found.append(estimators.gumbel_rao(nonlinear, LOGITS, rng, num_samples=5).gradient)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rng.draw == 20
    alone = [estimators.gumbel_rao(nonlinear, LOGITS, Generator(39, i)).gradient for i in range(20)]
    np.testing.assert_allclose(np.mean(found, 0), np.mean(alone, 0), rtol=1e-10, atol=1e-13)


def test_score_function_takes_no_derivative():
    found = estimators.score_function(lambda d: (d @ A, None), rows_of(count=10), Generator(40, 0), num_samples=2)
    assert found.gradient.shape == (10, 4)
    # a value common to all samples gives nothing
    assert not estimators.score_function(lambda d: (1e9, None), LOGITS, Generator(40, 1), num_samples=7).gradient.any()


# --- edges


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_impossible_categories(estimator, dtype):
    pytest.importorskip("ml_dtypes")
    logits = np.array([[-INF, 0.5, -INF, 0.1], [0.2, -INF, -INF, -INF], [0.0, 1.0, -INF, 2.0]]).astype(dtype)

    def f(d):
        d = d.astype(float)
        assert not d[logits == -INF].any()
        value, slope = nonlinear(d)
        # what a user's logarithm gives at the edge of the simplex
        slope[logits == -INF] = -INF
        return value, slope

    some = False
    for seed in range(5):
        found = estimator(f, logits, Generator(41, seed), num_samples=3, temperature=1.0)
        gradient = found.gradient.astype(float)
        assert np.isfinite(gradient).all()
        assert np.isfinite(found.value).all()
        assert not gradient[logits == -INF].any()
        assert np.abs(gradient[1]).max() < 1e-6
        some |= gradient[[0, 2]].any()
    assert some


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relaxed_samples_that_underflow(dtype):
    """At T = 1e-3 y is 0 but in one place; an infinite derivative there must not become NaN."""
    logits = rows_of(np.array([3.0, 0.0, -2.0, -INF]).astype(dtype), 200)

    def f(d):
        assert (d == 0).mean() > 0.7
        value, slope = nonlinear(d)
        return value, np.where(d == 0, -INF, slope)

    found = estimators.gumbel_softmax(f, logits, Generator(42, 0), temperature=1e-3)
    assert np.isfinite(found.gradient).all()
    assert not found.gradient[:, 3].any()


@pytest.mark.parametrize("estimator", [estimators.straight_through, estimators.gumbel_rao, estimators.rebar])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_low_temperatures(estimator, dtype):
    logits = rows_of(np.array([3.0, 0.0, -2.0, -INF]).astype(dtype), 200)
    with np.errstate(all="raise", under="ignore"):
        found = estimator(nonlinear, logits, Generator(42, 0), temperature=1e-3)
    assert np.isfinite(found.gradient).all()
    assert not found.gradient[:, 3].any()


@pytest.mark.parametrize("estimator", ALL)
def test_extreme_logits(estimator):
    logits = np.array([[1e4, -1e4, 0.0, 9e3], [-1e30, 1e30, 0.0, 1.0]], np.float32)
    found = estimator(nonlinear, logits, Generator(43, 0), num_samples=2)
    assert np.isfinite(found.gradient).all()
    assert np.abs(found.gradient).max() < 1e-5


@pytest.mark.parametrize("estimator", SMOOTH)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_constant_in_the_derivative_cancels(estimator, dtype):
    pytest.importorskip("ml_dtypes")
    logits, slope = np.zeros((50, 4), dtype), np.array([0.0, 0.25, 0.5, 0.75])
    found, expected = (
        estimator(lambda d, c=c: (np.zeros(50), np.broadcast_to(c + slope, d.shape)), logits, Generator(44, 0)).gradient
        for c in (1000.0, 0.0)
    )
    # half types would lose the slope beside the constant
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=2.0**-7, atol=1e-3)
    assert np.abs(expected.astype(float)).max() > 0.03


@pytest.mark.parametrize("estimator", ALL)
def test_empty_batches(estimator):
    found = estimator(nonlinear, np.zeros((0, 4)), Generator(45, 0))
    assert found.gradient.shape == (0, 4)
    assert found.value.shape == (0,)


def value_of(value):
    return lambda d: (value, np.zeros(d.shape))


FINE = value_of(0.0)
MATRIX = np.zeros((2, 3))


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize(
    ("f", "logits", "options", "error", "message"),
    [
        (None, MATRIX, {}, TypeError, "f must be callable, got NoneType"),
        (lambda d: 0.0, MATRIX, {}, TypeError, "f must return a tuple (value, df_dd), got float"),
        (value_of(np.zeros(3)), MATRIX, {}, ValueError, "the value of f has shape (3,), expected a leading part"),
        (value_of(np.zeros((2, 3))), MATRIX, {}, ValueError, "(), (2,)"),
        (value_of(1j), MATRIX, {}, TypeError, "the value of f must hold real numbers, got complex128"),
        (
            lambda d: (0.0, np.zeros(3)),
            MATRIX,
            {},
            ValueError,
            "df_dd, which f returned, has shape (3,), expected (2, 3)",
        ),
        (lambda d: (0.0, "x"), MATRIX, {}, TypeError, "df_dd, which f returned, must hold real numbers"),
        (
            FINE,
            np.zeros((2, 3), int),
            {},
            TypeError,
            "logits: expected float16, bfloat16, float32 or float64, got int64",
        ),
        (FINE, [[0.0, np.nan]], {}, ValueError, "logits row 0 holds NaN at column 1"),
        (FINE, [[0.0, 1.0], [-INF, -INF]], {}, ValueError, "logits row 1 has no possible category"),
        (FINE, MATRIX, {"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
        (FINE, MATRIX, {"num_samples": 1.5}, TypeError, "num_samples must be an integer, got 1.5"),
        (FINE, MATRIX, {"temperature": 0}, ValueError, "temperature is 0"),
        (FINE, MATRIX, {"temperature": -1.0}, ValueError, "temperature must be positive and finite"),
        (FINE, MATRIX, {"temperature": [1.0, 0.0]}, ValueError, "temperature row 1 is 0; it must be"),
        (FINE, MATRIX, {"temperature": [1.0, 1.0, 1.0]}, ValueError, "does not broadcast"),
        (FINE, MATRIX, {"axis": 2}, np.exceptions.AxisError, "axis 2 is out of bounds"),
    ],
)
def test_bad_input(estimator, f, logits, options, error, message):
    rng = Generator(46, 0)
    with pytest.raises(error, match=re.escape(message)):
        estimator(f, np.asarray(logits), rng, **options)
    assert rng.draw == 0


@pytest.mark.parametrize("estimator", SMOOTH)
def test_a_derivative_is_asked_for(estimator):
    with pytest.raises(TypeError, match="df_dd, which f returned, is None"):
        estimator(lambda d: (0.0, None), LOGITS, Generator(47, 0))


@pytest.mark.parametrize("estimator", ALL)
def test_a_value_that_changes_its_shape(estimator):
    values = iter([np.zeros(2), 0.0, 0.0])
    with pytest.raises(ValueError, match=r"the value of f has shape \(\), after \(2,\) in an earlier call"):
        estimator(lambda d: (next(values), np.zeros(d.shape)), MATRIX, Generator(49, 0), num_samples=2)


def test_bad_options():
    rng = Generator(48, 0)
    with pytest.raises(TypeError, match=r"rng must be a numbel\.Generator, got Generator"):
        estimators.rebar(nonlinear, LOGITS, np.random.default_rng(1))
    with pytest.raises(ValueError, match=r"temperature is 0\.5; it must be at least 1 here"):
        estimators.reinmax(nonlinear, LOGITS, rng, temperature=0.5)
    with pytest.raises(ValueError, match=r"temperature row 1 is 0\.9; it must be at least 1 here"):
        estimators.reinmax(nonlinear, rows_of(count=2), rng, temperature=np.array([1.0, 0.9]))
    with pytest.raises(ValueError, match="conditional_samples must be at least 1"):
        estimators.gumbel_rao(nonlinear, LOGITS, rng, conditional_samples=0)
    with pytest.raises(ValueError, match="eta must be finite, got nan"):
        estimators.rebar(nonlinear, LOGITS, rng, eta=np.nan)
    with pytest.raises(TypeError, match="eta must be a real number"):
        estimators.rebar(nonlinear, LOGITS, rng, eta="1")


def test_the_level_of_these_tests():
    assert 2 * stats.norm.sf(5) < ALPHA
