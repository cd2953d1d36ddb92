"""Densities of relaxed samples: they integrate to 1, agree with each other, and with the samples."""

import itertools
import re

import numpy as np
import pytest
from scipy import integrate, stats

import numbel
from numbel import concrete_log_prob, exp_concrete_log_prob
from statistics_helpers import assert_fits

INF = np.inf
TEMPERATURES = (0.3, 0.5, 1.0, 2.5)


def log_y_of(coordinates):
    """Logarithms of a point of the simplex, from n - 1 log-odds against the last category."""
    z = np.append(np.asarray(coordinates, float), 0.0)
    return z - np.logaddexp.reduce(z)


def over_log_odds(z, logits, temperature):
    """The density in log-odds: the Jacobian from the first n - 1 coordinates of y is the product of all of them."""
    log_y = log_y_of(z)
    return np.exp(concrete_log_prob(np.exp(log_y), logits, temperature) + log_y.sum())


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_two_categories_integrate_to_one(temperature):
    logits = np.array([0.4, -0.9])
    reach = 60 / min(temperature, 1)
    total, _ = integrate.quad(over_log_odds, -reach, reach, (logits, temperature), points=[0], limit=200)
    assert total == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_three_categories_integrate_to_one(temperature):
    logits = np.array([0.4, -0.9, 1.1])
    # the trapezoidal rule converges geometrically for analytic functions that die out at both ends
    z = np.linspace(-45, 45, 601) / temperature
    a, b = np.meshgrid(z, z)
    full = np.stack([a, b, np.zeros_like(a)], -1)
    log_y = full - np.logaddexp.reduce(full, -1, keepdims=True)
    log_density = exp_concrete_log_prob(log_y, logits, temperature)
    assert np.exp(log_density).sum() * (z[1] - z[0]) ** 2 == pytest.approx(1, abs=1e-9)


def test_two_categories_are_a_logistic_law():
    logits, t = np.array([0.4, -0.9]), 0.7
    y = np.linspace(0.001, 0.999, 500)
    logit = np.log(y / (1 - y))
    due = stats.logistic.logpdf(logit * t - (logits[0] - logits[1])) + np.log(t) - np.log(y * (1 - y))
    np.testing.assert_allclose(concrete_log_prob(np.stack([y, 1 - y], -1), logits, t), due, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_two_densities_agree(temperature):
    rng = np.random.default_rng(1)
    logits, y = rng.normal(size=5), rng.dirichlet(np.ones(5), 100)
    log_y = np.log(y)
    np.testing.assert_allclose(
        exp_concrete_log_prob(log_y, logits, temperature),
        concrete_log_prob(y, logits, temperature) + log_y.sum(-1),
        rtol=1e-11,
    )


def test_the_densities_are_torchs():
    torch = pytest.importorskip("torch")
    from torch.distributions.relaxed_categorical import ExpRelaxedCategorical, RelaxedOneHotCategorical

    rng = np.random.default_rng(2)
    logits, y = rng.normal(size=5), rng.dirichlet(np.ones(5), 100)
    for kind, mine, points in (
        (RelaxedOneHotCategorical, concrete_log_prob, y),
        (ExpRelaxedCategorical, exp_concrete_log_prob, np.log(y)),
    ):
        theirs = kind(torch.tensor(0.6, dtype=torch.float64), logits=torch.tensor(logits), validate_args=False)
        np.testing.assert_allclose(mine(points, logits, 0.6), theirs.log_prob(torch.tensor(points)).numpy(), rtol=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_histogram_of_samples(temperature):
    """4e5 samples in 40 equal cells of y_0: (52 / 1e4)^.5 = 7 % in an average cell is seen with power .99."""
    logits = np.array([0.5, -0.3])
    rng = numbel.Generator(11, int(10 * temperature))
    y = rng.gumbel_softmax(np.broadcast_to(logits, (400_000, 2)), temperature)
    edges = np.linspace(0, 1, 41)
    counts, _ = np.histogram(y[:, 0], edges)

    def mass(low, high):
        return integrate.quad(
            over_log_odds, np.log(low / (1 - low)) if low else -80, np.log(high / (1 - high)) if high < 1 else 80,
            (logits, temperature),
        )[0]  # fmt: skip

    assert_fits(counts, [mass(a, b) for a, b in itertools.pairwise(edges)])


def test_a_histogram_of_three_categories():
    logits, t, cells = np.array([0.5, -0.3, 0.1]), 0.8, 6
    y = numbel.Generator(12, 0).gumbel_softmax(np.broadcast_to(logits, (400_000, 3)), t)
    edges = np.linspace(-6, 6, cells + 1)
    odds = np.log(y[:, :2]) - np.log(y[:, 2:])
    counts, *_ = np.histogram2d(odds[:, 0], odds[:, 1], [edges, edges])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    centre, half = (edges[1:] + edges[:-1]) / 2, 6 / cells
    at = (centre[:, None] + half * nodes).ravel()
    z = np.stack([*np.meshgrid(at, at, indexing="ij"), np.zeros((at.size, at.size))], -1)
    log_y = z - np.logaddexp.reduce(z, -1, keepdims=True)
    density = np.exp(exp_concrete_log_prob(log_y, logits, t)).reshape(cells, 12, cells, 12)
    p = half**2 * np.einsum("aibj,i,j->ab", density, weights, weights)
    outside = len(y) - counts.sum()
    assert_fits(np.append(counts, outside), np.append(p, 1 - p.sum()))


def test_shapes_and_axes():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 4, 3))
    y = rng.dirichlet(np.ones(4), (7, 2, 3)).swapaxes(-1, -2)
    found = concrete_log_prob(y, logits, np.array([[1.0, 2.0, 3.0]]), axis=1)
    assert found.shape == (7, 2, 3)
    assert np.array_equal(found, concrete_log_prob(y, logits, np.array([[1.0, 2.0, 3.0]]), axis=-2))
    for s, i, j in ((0, 0, 0), (6, 1, 2)):
        one = concrete_log_prob(y[s, i, :, j], logits[i, :, j], j + 1.0)
        assert isinstance(one, np.float64)
        assert one == pytest.approx(found[s, i, j], rel=1e-13)
    assert concrete_log_prob(y[0, 0, :, :1], logits, axis=1).shape == (2, 3)
    assert concrete_log_prob(np.ones((0, 3)), np.zeros(3)).shape == (0,)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_half_types(dtype):
    pytest.importorskip("ml_dtypes")
    y = np.array([0.25, 0.75]).astype(dtype)
    assert concrete_log_prob(y, np.array([1.0, 2.0]).astype(dtype), 0.5) == pytest.approx(
        concrete_log_prob([0.25, 0.75], [1.0, 2.0], 0.5), rel=1e-13
    )


def test_extreme_numbers():
    assert concrete_log_prob([0.3, 0.7], np.array([1e300, 1e300])) == pytest.approx(0, abs=1e-12)
    assert concrete_log_prob([0.3, 0.7], np.array([-1e5, 1e5]), 0.5) == pytest.approx(
        0.5 * np.log(0.7 / 0.3) - 2e5 + np.log(0.5) - np.log(0.21)
    )
    assert np.isfinite(exp_concrete_log_prob(np.array([-1e6, 0.0]), np.zeros(2), 1e-3))


def test_impossible_categories_are_left_out():
    y, logits = np.array([0.2, 0.0, 0.5, 0.3]), np.array([0.3, -INF, -1.0, 0.6])
    keep = [0, 2, 3]
    assert concrete_log_prob(y, logits, 0.7) == pytest.approx(concrete_log_prob(y[keep], logits[keep], 0.7), rel=1e-14)
    with np.errstate(divide="ignore"):
        found = exp_concrete_log_prob(np.log(y), logits, 0.7)
    assert found == pytest.approx(exp_concrete_log_prob(np.log(y[keep]), logits[keep], 0.7), rel=1e-14)
    assert concrete_log_prob([0.2, 0.1, 0.4, 0.3], logits) == -INF
    assert exp_concrete_log_prob(np.log([0.2, 0.1, 0.4, 0.3]), logits) == -INF
    assert concrete_log_prob([0.0, 1.0], np.array([-INF, 5.0])) == 0


def test_zeros_are_limits():
    logits = np.array([0.3, -0.2, 0.8])
    one, two = [0.0, 0.4, 0.6], [0.0, 1.0, 0.0]
    assert concrete_log_prob(one, logits, 0.6) == -INF
    assert concrete_log_prob(one, logits, 0.4) == INF
    assert concrete_log_prob(two, logits, 2.1) == -INF
    assert concrete_log_prob(two, logits, 1.9) == INF
    # finite where (n - z) T = z
    for y, t, near in ((one, 0.5, [1e-13, 0.4, 0.6]), (two, 2.0, [1e-9, 1 - 2e-9, 1e-9])):
        assert concrete_log_prob(y, logits, t) == pytest.approx(concrete_log_prob(near, logits, t), abs=1e-5)
    assert concrete_log_prob([0.0, 0.0, 0.0], logits, 0.4) == -INF
    assert exp_concrete_log_prob([-INF, -0.7, -0.7], logits, 1e-3) == -INF


@pytest.mark.parametrize(
    ("y", "logits", "options", "error", "message"),
    [
        ([[0.5, 0.5], [-0.1, 1.1]], [0.0, 0.0], {}, ValueError, "y row 1 holds -0.1 at column 0; it must be in 0 .. 1"),
        ([0.5, np.nan], [0.0, 0.0], {}, ValueError, "y row 0 holds nan at column 1"),
        ([0.5, 0.5], [0.0, np.nan], {}, ValueError, "logits row 0 holds NaN at column 1"),
        ([0.5, 0.5], [[0.0, 1.0], [-INF, -INF]], {}, ValueError, "logits row 1 has no possible category"),
        ([0.5, 0.5], [0.0, INF], {}, ValueError, "logits row 0 holds +inf at column 1"),
        ([0.5, 0.5, 0.0], [0.0, 0.0], {}, ValueError, "y has shape (3,), expected 2 categories"),
        (np.ones((3, 2)), np.zeros((2, 2)), {}, ValueError, "the rows of y, shape (3,), do not broadcast"),
        ([1, 0], [0.0, 0.0], {}, TypeError, "y: expected float16, bfloat16, float32 or float64, got int64"),
        ([0.5, 0.5], [0, 0], {}, TypeError, "got int64"),
        ([0.5, 0.5], [0.0, 0.0], {"temperature": 0.0}, ValueError, "temperature is 0"),
        (
            np.ones((2, 1)),
            [0.0],
            {"temperature": [1.0, 0.0]},
            ValueError,
            "temperature row 1 is 0; it must be positive",
        ),
        ([0.5, 0.5], [0.0, 0.0], {"axis": 1}, np.exceptions.AxisError, "axis 1 is out of bounds"),
    ],
)
def test_bad_input(y, logits, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        concrete_log_prob(np.array(y), np.array(logits), **options)


def test_bad_logarithms():
    for bad in (np.nan, INF):
        with pytest.raises(ValueError, match=rf"log_y row 1 holds {bad} at column 1; it must be a logarithm"):
            exp_concrete_log_prob(np.array([[-1.0, -1.0], [-1.0, bad]]), np.zeros(2))
