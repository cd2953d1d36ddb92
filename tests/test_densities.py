"""log_prob, logsumexp and entropy, against extended precision and against `sample`."""

from __future__ import annotations

import ml_dtypes
import numba
import numpy as np
import pytest

import numbel
import oracle

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPES = [(40, 7), (9, 256), (9, 257), (3, 4096), (2, 3, 9001), (70_001,)]


def logits(shape, dtype, spread=3.0):
    x = (np.random.default_rng(5).standard_normal(shape) * spread).astype(dtype)
    x[..., 1] = -np.inf
    return x


def entropy(x, temperature):
    """In extended precision, the largest logit's own weight kept apart."""
    z = (x.astype(np.longdouble) - x.max(-1, keepdims=True).astype(np.longdouble)) / np.longdouble(temperature)
    w = np.exp(z)
    others = np.where(z < 0, w, 0).sum(-1) + ((z == 0).sum(-1) - 1)
    return np.log1p(others) - np.where(w > 0, w * np.where(w > 0, z, 0), 0).sum(-1) / (1 + others)


@pytest.mark.parametrize("temperature", [1.0, 0.05, 30.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_is_right(dtype, temperature):
    """A relative 1e-6, 6e-6 where the entropy is small (float64: 4e-15, 2e-14), down to 1e-30."""
    usual, small = (4e-15, 2e-14) if dtype == np.float64 else (1e-6, 6e-6)
    for shape in SHAPES:
        for spread in (0.1, 3.0, 100.0):
            x = logits(shape, dtype, spread)
            found, due = numbel.entropy(x, temperature=temperature), entropy(x, temperature)
            assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)
            assert (np.abs(found - due) <= np.where(due > 0.01, usual, small) * due + 1e-35).all()


def test_entropy_of_ties_and_certainty():
    for columns in (5, 256, 257, 4096, 4097, 20_000):
        for dtype in (np.float32, np.float64):
            x = np.full(columns, -3e30, dtype)
            assert abs(numbel.entropy(x) - np.log(columns)) < 1e-6
            x[:3] = 1e30
            assert abs(numbel.entropy(x) - np.log(3)) < 1e-7
            x[:] = -np.inf
            x[columns - 1] = -1e30
            assert numbel.entropy(x) == 0
            x[0] = -1e30
            assert abs(numbel.entropy(x) - np.log(2)) < 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_bit_for_bit_those_of_sample(dtype):
    for shape in SHAPES:
        for temperature in (1.0, 0.05, 30.0):
            x = logits(shape, dtype)
            for num_samples in (None, 3, 70):
                due = numbel.Generator(5).sample(x, num_samples, temperature=temperature)
                assert np.array_equal(numbel.logsumexp(x, temperature=temperature), due.logsumexp)
                found = numbel.log_prob(x, due.indices, temperature=temperature)
                assert np.array_equal(found, due.log_prob)
                assert found.dtype == due.log_prob.dtype


def test_log_prob_of_every_category():
    x = logits((3, 500), np.float64)
    every = np.broadcast_to(np.arange(500), (3, 500))
    due = np.stack([oracle.log_probabilities(row) for row in x])
    found = numbel.log_prob(x, every)
    assert (found[:, 1] == -np.inf).all()
    keep = np.delete(np.arange(500), 1)
    assert np.abs(found[:, keep] - due[:, keep]).max() < 1e-13
    assert abs(np.exp(found).sum(-1) - 1).max() < 1e-13


def test_rows_have_their_own_temperature():
    for columns in (9, 300, 5000):
        x = logits((4, columns), np.float32)
        t = np.array([0.0, 0.5, 1.0, 2.0])
        top = int(np.argmax(x[0]))
        h, total = numbel.entropy(x, temperature=t), numbel.logsumexp(x, temperature=t)
        p = numbel.log_prob(x, [[top, 0 if top else 2]] * 4, temperature=t)
        assert h[0] == 0
        assert total[0] == np.inf
        assert p[0].tolist() == [0, -np.inf]
        for row in (1, 2, 3):
            assert h[row] == numbel.entropy(x[row], temperature=t[row])
            assert total[row] == numbel.logsumexp(x[row], temperature=t[row])
            assert p[row, 0] == numbel.log_prob(x[row], top, temperature=t[row])


@pytest.mark.parametrize("columns", [9, 300, 70_000])
def test_no_bit_depends_on_threads_or_strides(columns):
    x = logits((5, columns), np.float32)
    index = np.random.default_rng(6).integers(0, columns, (5, 3))
    calls = [numbel.entropy, numbel.logsumexp, lambda a, **options: numbel.log_prob(a, index, **options)]
    before = numba.get_num_threads()
    for call in calls:
        due = call(x).tobytes()
        for other, axis in ((np.asfortranarray(x), -1), (x.T, 0), (np.repeat(x, 2, -1)[:, ::2], 1), (x[::-1][::-1], 1)):
            assert call(other, axis=axis).tobytes() == due
        try:
            for threads in range(1, before + 1):
                numba.set_num_threads(threads)
                assert call(x).tobytes() == due
        finally:
            numba.set_num_threads(before)


@pytest.mark.parametrize("columns", [9, 300, 9000])
def test_a_row_does_not_depend_on_its_batch(columns):
    x = logits((80, columns), np.float32)
    assert numbel.entropy(x).tobytes() == b"".join(numbel.entropy(row).tobytes() for row in x)


def test_out_and_shapes():
    x = logits((2, 3, 50), np.float32)
    for call, shape in (
        (numbel.entropy, (2, 3)),
        (numbel.logsumexp, (2, 3)),
        (lambda a, **options: numbel.log_prob(a, np.zeros((2, 3, 4), int), **options), (2, 3, 4)),
    ):
        wide = np.zeros((2 * shape[0], *shape[1:]), np.float32)
        out = wide[::2]
        assert call(x, out=out) is out
        assert np.array_equal(out, call(x))
        with pytest.raises(TypeError, match="out has dtype float64"):
            call(x, out=np.zeros(shape))
        with pytest.raises(ValueError, match="out has shape"):
            call(x, out=np.zeros((7,), np.float32))
        assert call(np.zeros((0, 3, 50)) if shape != (2, 3, 4) else x).shape in ((0, 3), shape)
    assert isinstance(numbel.entropy(x[0, 0]), np.float32)
    assert isinstance(numbel.log_prob(x[0, 0], 3), np.float32)


@pytest.mark.parametrize("columns", [9, 300, 9000])
def test_bad_rows(columns):
    x = logits((4, columns), np.float32)
    x[1, 5], x[2] = np.nan, -np.inf
    x[3, 2] = np.inf
    index = np.zeros(4, int)
    for call in (numbel.entropy, numbel.logsumexp, lambda a, **options: numbel.log_prob(a, index, **options)):
        with pytest.raises(ValueError, match="logits row 1 holds NaN at column 5"):
            call(x)
        for temperature in (1.0, np.array([1.0, 0.0, 0.0, 0.0])):
            flagged = call(x, on_invalid="flag", temperature=temperature)
            empty = call is numbel.logsumexp  # of no terms, the sum is 0
            assert np.isnan(flagged).tolist() == [False, True, not empty, True]
            assert (flagged[2] == -np.inf) == empty


def test_bad_arguments():
    x = logits((4, 9), np.float32)
    for index, error, text in (
        ([0, 0, 9, 0], ValueError, "index row 2 is 9, outside 0 .. 8"),
        ([0, -1, 0, 0], ValueError, "index row 1 is -1, outside 0 .. 8"),
        ([0.0] * 4, TypeError, "index must hold integers, got float64"),
        ([0] * 3, ValueError, "index has shape"),
    ):
        with pytest.raises(error, match=text):
            numbel.log_prob(x, index)
    assert np.isnan(numbel.log_prob(x, [0, 0, 9, 0], on_invalid="flag")).tolist() == [False, False, True, False]
    for call in (numbel.entropy, numbel.logsumexp):
        with pytest.raises(TypeError, match="got int64"):
            call(np.zeros((2, 3), int))
        with pytest.raises(ValueError, match="or 0 for the argmax, got -1"):
            call(x, temperature=-1)
        with pytest.raises(np.exceptions.AxisError):
            call(x, axis=2)
        with pytest.raises(ValueError, match="zero categories"):
            call(np.zeros((2, 0)))
        with pytest.raises(ValueError, match="on_invalid must be"):
            call(x, on_invalid="never")
