"""numbel.jax: the bits of Generator, gradients, vmap as a loop, and XLA's buffers without copies, threads and exits."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import numbel  # noqa: E402
import numbel.jax as nj  # noqa: E402
from numbel.jax import _xla  # noqa: E402

x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
DTYPES = ("float16", "bfloat16", "float32", "float64")
LARGE = (1 << 63) + 7
WORDS = np.array([7, 1 << 31], np.uint32)


def logits(shape=(3, 4, 50), dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(scale=2.0, size=shape).astype(jnp.dtype(dtype))


def same(a, b, index=np.int32):
    a, b = np.asarray(a), np.asarray(b)
    if b.dtype == np.int64:
        b = b.astype(index)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


# --- the bits


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_as_generator(dtype, axis):
    x = logits(dtype=dtype)
    with x64(dtype == "float64"):
        index = np.int64 if dtype == "float64" else np.int32
        array = jnp.asarray(x)
        assert array.dtype == x.dtype

        def rng():
            return numbel.Generator(LARGE, 3)

        here = {"seed": LARGE, "draw": 3, "axis": axis}
        for jit in (lambda f: f, jax.jit):
            same(jit(lambda a: nj.categorical(a, **here))(array), rng().categorical(x, axis=axis), index)
            got = jit(lambda a: nj.sample(a, 5, temperature=0.7, **here))(array)
            assert isinstance(got, numbel.Sample)
            for a, b in zip(got, rng().sample(x, 5, axis=axis, temperature=0.7), strict=True):
                same(a, b, index)
            for hard in (False, True):
                y = jit(lambda a, hard=hard: nj.gumbel_softmax(a, 0.7, hard=hard, **here))(array)
                same(y, rng().gumbel_softmax(x, 0.7, axis=axis, hard=hard))
        got = nj.categorical(array, method="gumbel_max", **here)
        same(got, rng().categorical(x, axis=axis, method="gumbel_max"), index)


def test_one_row_no_rows_no_samples():
    x = logits((50,))
    assert nj.categorical(x, seed=5).shape == ()
    same(nj.categorical(x, seed=5), numbel.Generator(5).categorical(x))
    same(nj.categorical(x, 3, seed=5), numbel.Generator(5).categorical(x, 3))
    assert nj.sample(x, 0, seed=5).indices.shape == (0,)
    same(nj.sample(x, 0, seed=5).logsumexp, numbel.Generator(5).sample(x, 0).logsumexp)
    assert nj.categorical(np.zeros((0, 4), np.float32), 3, seed=5).shape == (0, 3)
    assert nj.gumbel_softmax(np.zeros((0, 4), np.float32), seed=5).shape == (0, 4)


def test_seeds_and_draws():
    x = logits()
    want = numbel.Generator(LARGE, LARGE).categorical(x)
    f = jax.jit(lambda seed, draw: nj.categorical(x, seed=seed, draw=draw))
    same(nj.categorical(x, seed=LARGE, draw=LARGE), want)
    same(nj.categorical(x, seed=WORDS, draw=np.uint64(LARGE)), want)
    same(f(WORDS, jnp.asarray(WORDS)), want)
    with x64(True):
        same(f(np.uint64(LARGE), WORDS), want, np.int64)
        same(nj.categorical(x, seed=jnp.uint64(LARGE), draw=LARGE), want, np.int64)
    same(f(np.uint32(5), np.array([3, 0], np.uint32)), numbel.Generator(5, 3).categorical(x))
    same(
        nj.categorical(x, seed=jax.random.key_data(jax.random.key(1, impl="threefry2x32"))),
        nj.categorical(x, seed=1 << 32),
    )


def test_draws_differ_and_repeat():
    x = logits()
    f = jax.jit(lambda draw: nj.gumbel_softmax(x, seed=5, draw=draw))
    a, b, c = (f(jnp.uint32(draw)) for draw in (1, 2, 1))
    assert (a != b).mean() > 0.9
    same(a, c)


def test_temperatures():
    x = logits()
    t = np.random.default_rng(1).uniform(0.2, 3.0, (3, 1))
    same(nj.categorical(x, seed=5, temperature=t), numbel.Generator(5).categorical(x, temperature=t))
    traced = jax.jit(lambda t: nj.sample(x, seed=5, temperature=t))
    for given in (t.astype(np.float32), np.float32(0.3), jnp.bfloat16(0.3), np.array([1, 2, 0, 4])):
        for a, b in zip(traced(given), numbel.Generator(5).sample(x, temperature=given), strict=True):
            same(a, b)
    same(nj.gumbel_softmax(x, jnp.int32(2), seed=5), numbel.Generator(5).gumbel_softmax(x, 2))


# --- gradients


def loss(y, c):
    return (y * c).sum()


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("t", [np.float32(0.7), logits((3, 1), seed=2) ** 2 + np.float32(0.5)], ids=["scalar", "rows"])
def test_gradient_is_that_of_the_formula(t, hard):
    x, c = logits(), logits(seed=1)
    noise = numbel.Generator(5, 3).gumbel(size=x.shape)
    spread = np.asarray(t)[..., None] if np.ndim(t) else t

    def by_hand(x, t):
        return loss(jax.nn.softmax((x + noise) / (t if np.ndim(t) == 0 else t[..., None])), c)

    def ours(x, t):
        return loss(nj.gumbel_softmax(x, t, seed=5, draw=3, hard=hard), c)

    want = jax.grad(by_hand, (0, 1))(x, t)
    for got in (jax.grad(ours, (0, 1))(x, t), jax.jit(jax.grad(ours, (0, 1)))(x, t)):
        for a, b in zip(got, want, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
    value, gradient = jax.value_and_grad(ours)(x, t)
    same(gradient, got[0])
    y = numbel.Generator(5, 3).gumbel_softmax(x, np.squeeze(spread, -1) if np.ndim(t) else t, hard=hard)
    np.testing.assert_allclose(value, loss(y, c), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, -1])
def test_gradient_by_finite_differences(axis):
    with x64(True):
        x, c = logits((3, 4), "float64"), logits((3, 4), "float64", seed=1)
        t, h = 0.8, 1e-6

        def f(x, t):
            return loss(nj.gumbel_softmax(x, t, seed=5, axis=axis), c)

        of_x, of_t = jax.grad(f, (0, 1))(jnp.asarray(x), t)
        np.testing.assert_allclose(of_t, (f(x, t + h) - f(x, t - h)) / (2 * h), rtol=1e-6)
        for at in np.ndindex(x.shape):
            e = np.zeros_like(x)
            e[at] = h
            np.testing.assert_allclose(of_x[at], (f(x + e, t) - f(x - e, t)) / (2 * h), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradient_of_half_types(dtype):
    x, c = logits((5, 8), dtype), logits((5, 8), dtype, seed=1)
    got = jax.grad(lambda x: loss(nj.gumbel_softmax(x, seed=5), c).astype(np.float32))(jnp.asarray(x))
    assert got.dtype == x.dtype
    want = jax.grad(lambda x: loss(nj.gumbel_softmax(x, seed=5), c.astype(np.float32)))(x.astype(np.float32))
    np.testing.assert_allclose(np.asarray(got, np.float32), want, atol=0.03)


def test_straight_through():
    x, c = logits(), logits(seed=1)
    f = jax.value_and_grad(lambda x, hard: loss(nj.gumbel_softmax(x, 0.7, seed=5, hard=hard), c))
    (soft, of_soft), (hard, of_hard) = f(x, False), f(x, True)
    assert hard != soft
    same(of_hard, of_soft)


@pytest.mark.parametrize("num_samples", [None, 7])
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize(
    "t", [0.7, np.float32(0.7), logits((4, 50), seed=2) ** 2 + np.float32(0.5)], ids=["double", "scalar", "rows"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_of_sample(dtype, t, axis, num_samples):
    """That of log_softmax and logsumexp at the indices, which repeat among 7 samples of few categories."""
    shape = (3, 4, 50) if axis == 0 else (4, 50, 3)
    options = {"seed": 5, "draw": 3, "axis": axis}
    with x64(dtype == "float64"):
        x, t = jnp.asarray(logits(shape, dtype)), t if type(t) is float else jnp.asarray(t, dtype)
        drawn = nj.sample(x, num_samples, temperature=t, **options)
        weights = jnp.asarray(logits(drawn.log_prob.shape, dtype, 1)), jnp.asarray(logits((4, 50), dtype, 4))

        def ours(x, t):
            found = nj.sample(x, num_samples, temperature=t, **options)
            return (found.log_prob * weights[0]).sum() + (found.logsumexp * weights[1]).sum()

        def by_hand(x, t):
            z = jnp.moveaxis(x, axis, -1) / jnp.broadcast_to(t, (4, 50))[..., None]
            at = drawn.indices if num_samples else drawn.indices[..., None]
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(z, -1), at, -1).reshape(drawn.log_prob.shape)
            return (log_prob * weights[0]).sum() + (jax.nn.logsumexp(z, -1) * weights[1]).sum()

        which = 0 if type(t) is float else (0, 1)
        want = jax.grad(by_hand, which)(x, t)
        closer = {"rtol": 1e-10, "atol": 1e-11} if dtype == "float64" else {"rtol": 2e-4, "atol": 2e-4}
        for found in (
            jax.grad(ours, which)(x, t),
            jax.jit(jax.grad(ours, which), static_argnums=(1,) if which == 0 else ())(x, t),
        ):
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                np.testing.assert_allclose(a, b, **closer)


def test_gradient_of_sample_in_odd_rows():
    x = logits((4, 6))
    x[1, 2], x[2, 1:4] = np.nan, -np.inf
    of_x, of_t = jax.grad(lambda x, t: nj.sample(x, seed=5, temperature=t).log_prob.sum(), (0, 1))(
        x, jnp.asarray([1.0, 1.0, 0.5, 0.0])
    )
    assert np.isnan(of_x[1]).all()
    assert (np.asarray(of_x)[2, 1:4] == 0).all()
    assert np.isfinite(of_t[2])
    assert abs(of_x[2].sum()) < 1e-5
    assert not of_x[3].any()
    assert of_t[3] == 0
    halves = jnp.asarray(logits((4, 6)), jnp.bfloat16)
    assert jax.grad(lambda x: nj.sample(x, seed=5).log_prob.sum())(halves).dtype == jnp.bfloat16
    draws = jnp.arange(4, dtype=jnp.uint32)
    one = jax.grad(lambda x, draw: nj.sample(x, seed=5, draw=draw).log_prob)
    same(
        jax.vmap(one)(logits((4, 6)), draws),
        jnp.stack([one(*each) for each in zip(logits((4, 6)), draws, strict=True)]),
    )


def test_first_order_only_and_what_has_no_gradient():
    x = jnp.asarray(logits((4,)))
    for twice in (jax.hessian, lambda f: jax.grad(lambda x: jax.grad(f)(x)[1])):
        with pytest.raises(ValueError, match=r"numbel\.jax\.gumbel_softmax cannot be differentiated twice"):
            twice(lambda x: nj.gumbel_softmax(x, seed=5)[0])(x)
        with pytest.raises(ValueError, match=r"numbel\.jax\.sample cannot be differentiated twice"):
            twice(lambda x: nj.sample(x, seed=5).log_prob)(x)
    with pytest.raises(TypeError, match=r"forward-mode|custom_vjp"):
        jax.jvp(lambda x: nj.gumbel_softmax(x, seed=5), (x,), (x,))
    assert not jax.grad(lambda x: nj.categorical(x, seed=5) * 1.0)(x).any()
    assert nj.sample(jax.lax.stop_gradient(x), seed=5).log_prob < 0


# --- vmap


MAPPED = [(0, None, None), (None, 0, None), (0, 0, None), (1, None, 0), (None, None, 0), (0, 0, 0)]


@pytest.mark.parametrize("axes", MAPPED, ids=str)
def test_vmap_is_a_loop(axes):
    n = 3
    args = (
        jnp.asarray(logits((n, n, 20))),
        jnp.asarray(np.arange(2 * n, dtype=np.uint32).reshape(n, 2) if axes[1] == 0 else [4, 1], np.uint32),
        jnp.asarray([0.5, 1.0, 2.0] if axes[2] == 0 else 0.7, np.float32),
    )
    c = logits((n, 20) if axes[0] is not None else (n, n, 20), seed=1)

    def call(x, d, t):
        g = jax.grad(lambda x, t: loss(nj.gumbel_softmax(x, t, seed=5, draw=d, hard=True), c), (0, 1))(x, t)
        return (
            *nj.sample(x, 2, seed=5, draw=d, temperature=t),
            nj.categorical(x, seed=5, draw=d, axis=0, temperature=t),
            nj.gumbel_softmax(x, t, seed=5, draw=d, axis=0),
            *g,
        )

    def element(i):
        return [a if axis is None else jnp.take(a, i, axis) for a, axis in zip(args, axes, strict=True)]

    each = [call(*element(i)) for i in range(n)]
    want = [jnp.stack(parts) for parts in zip(*each, strict=True)]
    for got in (jax.vmap(call, axes)(*args), jax.jit(jax.vmap(call, axes))(*args)):
        for a, b in zip(got, want, strict=True):
            same(a, b)


def test_vmap_in_vmap():
    x, draws = jnp.asarray(logits((2, 3, 20))), jnp.arange(4, dtype=np.uint32)
    one = jax.vmap(lambda x, d: nj.categorical(x, seed=5, draw=d), (None, 0))
    got = jax.vmap(one, (0, None))(x, draws)
    same(got, [[nj.categorical(x[i], seed=5, draw=d) for d in range(4)] for i in range(2)])


def test_gradient_over_vmap_sums_what_is_shared():
    x, t = jnp.asarray(logits((3, 4, 20))), jnp.float32(0.7)

    def mapped(t):
        return jax.vmap(lambda x: nj.gumbel_softmax(x, t, seed=5))(x)[..., 0].sum()

    def looped(t):
        return sum(nj.gumbel_softmax(row, t, seed=5)[..., 0].sum() for row in x)

    np.testing.assert_allclose(jax.grad(mapped)(t), jax.grad(looped)(t), rtol=1e-5)


def test_within_scan():
    x = jnp.asarray(logits((20,)))

    @jax.jit
    def f(x):
        return jax.lax.scan(lambda i, _: (i + 1, nj.categorical(x, seed=5, draw=i)), jnp.uint32(0), length=10)[1]

    same(f(x), [nj.categorical(x, seed=5, draw=i) for i in range(10)])


# --- bad input


def test_bad_values_are_flagged():
    x = logits((4, 20))
    x[1, 3], x[2] = np.nan, -np.inf
    for f in (nj.sample, jax.jit(nj.sample, static_argnames="seed")):
        got = f(x, seed=5)
        assert np.asarray(got.indices < 0).tolist() == [False, True, True, False]
        assert np.isnan(got.log_prob).tolist() == np.isnan(got.logsumexp).tolist() == [False, True, True, False]
    same(nj.categorical(x, seed=5), got.indices)
    g = jax.grad(lambda x: nj.gumbel_softmax(x, seed=5)[:, 0].sum())(x)
    assert np.isnan(g).all(1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("t", [0.0, -1.0, np.nan, np.inf])
def test_traced_temperatures_are_flagged(t):
    x = logits((3, 20))
    draw = jax.jit(lambda t: nj.sample(x, seed=5, temperature=t))
    relax = jax.jit(jax.value_and_grad(lambda x, t: nj.gumbel_softmax(x, t, seed=5).sum(), (0, 1)))
    if t == 0:
        assert (draw(t).indices == x.argmax(-1)).all()
    else:
        assert (draw(t).indices == -1).all()
        assert np.isnan(draw(t).logsumexp).all()
    value, (of_x, of_t) = relax(x, t)
    assert np.isnan(value)
    assert np.isnan(of_x).all()
    assert np.isnan(of_t)
    rows = np.array([1.0, t, 1.0], np.float32)
    got = draw(rows)
    if t == 0:
        assert got.indices[1] == x[1].argmax()
    else:
        assert got.indices[1] == -1
    same(got.indices[::2], nj.categorical(x, seed=5)[::2])
    y = jax.jit(lambda t: nj.gumbel_softmax(x, t, seed=5))(rows)
    assert np.isnan(y).all(1).tolist() == [False, True, False]
    same(draw(1.0).indices, nj.categorical(x, seed=5))  # nothing is left behind


@pytest.mark.parametrize(
    "t", [0, 0.0, np.zeros(()), np.array([1.0, 0.0]), jnp.float32(0), jnp.array([1.0, 0.0])], ids=str
)
@pytest.mark.parametrize("hard", [False, True])
def test_temperature_0_was_taken_for_rows_of_relaxed_samples(t, hard):
    with pytest.raises(ValueError, match=r"temperature (row 1 )?is 0.*hard=True"):
        nj.gumbel_softmax(np.zeros((2, 3), np.float32), t, seed=5, hard=hard)


@pytest.mark.parametrize("t", [0, 0.0, np.zeros(()), jnp.float32(0)], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((20,), -1), ((3, 20), 1), ((3, 20), 0), ((2, 3, 20), 1)])
def test_temperature_0_is_the_argmax(t, shape, axis):
    x = logits(shape)
    for num_samples in (None, 3):
        drawn = nj.sample(x, num_samples, seed=5, axis=axis, temperature=t)
        best = np.argmax(x, axis)
        same(drawn.indices, best if num_samples is None else np.repeat(best[..., None], 3, -1))
        same(nj.categorical(x, num_samples, seed=5, axis=axis, temperature=t), drawn.indices)
        assert not drawn.log_prob.any()
    assert not jax.grad(lambda x: nj.sample(x, seed=5, axis=axis, temperature=t).log_prob.sum())(x).any()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (TypeError, {"logits": np.zeros((2, 3), np.int32)}),
        (TypeError, {"logits": np.zeros((2, 3), np.complex64)}),
        (ValueError, {"logits": np.float32(1)}),
        (ValueError, {"logits": np.zeros((2, 0), np.float32)}),
        (np.exceptions.AxisError, {"axis": 2}),
        (ValueError, {"temperature": -1.0}),
        (ValueError, {"temperature": np.nan}),
        (ValueError, {"temperature": np.array([1.0, -1.0])}),
        (ValueError, {"temperature": jnp.float32(-1.0)}),
        (ValueError, {"temperature": np.ones(3)}),
        (TypeError, {"temperature": "1"}),
        (ValueError, {"seed": -1}),
        (ValueError, {"seed": 1 << 64}),
        (TypeError, {"seed": 1.5}),
        (TypeError, {"seed": np.zeros(3, np.uint32)}),
        (TypeError, {"draw": np.zeros(2, np.int32)}),
        (TypeError, {"draw": jax.random.split(jax.random.key(1))}),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["gumbel_softmax", "categorical", "sample"])
def test_bad_arguments(name, kind, change):
    given = {"logits": np.zeros((2, 3), np.float32), "seed": 5} | change
    for function in (getattr(nj, name), lambda **given: jax.jit(lambda: getattr(nj, name)(**given))()):
        with pytest.raises(kind):
            function(**given)


def test_a_lone_temperature_of_zero():
    """The argmax of samples; a relaxed sample has no gradient there."""
    x = logits((3, 9))
    index = x.argmax(-1)
    assert (nj.categorical(x, seed=5, temperature=0) == index).all()
    for temperature in (0, 0.0, jnp.float32(0)):
        assert (nj.sample(x, seed=5, temperature=temperature).indices == index).all()
        for hard in (False, True):
            with pytest.raises(ValueError, match=r"temperature is 0, .* hard=True"):
                nj.gumbel_softmax(x, temperature, seed=5, hard=hard)
    assert (jax.jit(lambda t: nj.categorical(x, seed=5, temperature=t))(0.0) == index).all()


def murmur(words, start):
    """MurmurHash3_x86_32, as it was published, of 32-bit words."""
    h = start
    for word in words:
        k = int(word) * 0xCC9E2D51 & 0xFFFFFFFF
        k = (k << 15 | k >> 17) * 0x1B873593 & 0xFFFFFFFF
        h ^= k & 0xFFFFFFFF
        h = ((h << 13 | h >> 19) & 0xFFFFFFFF) * 5 + 0xE6546B64 & 0xFFFFFFFF
    h ^= 4 * len(words)
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


def test_the_hash_is_the_published_one():
    assert murmur([], 0) == 0
    assert murmur([], 1) == 0x514E28B7
    assert murmur([0], 0) == 0x2362F9DE
    assert murmur([0x87654321], 0x5082EDEE) == 0x2362F9DE
    for words in ([0, 5, 0, 5], [1, 2, 3, 0xFFFFFFFF]):
        for start in (0, 1):
            assert int(nj._murmur(jnp.array(words, jnp.uint32), start)) == murmur(words, start)


def test_keys_of_jax_as_seed_and_draw():
    """Two words, the high one first; more words by the documented hash; mapped and traced like other seeds."""
    x = logits((3, 9))
    for key, number in ((jax.random.key(0), 0), (jax.random.key(5), 5)):
        same(nj.categorical(x, seed=key), numbel.Generator(number).categorical(x))
        same(jax.jit(lambda key: nj.categorical(x, seed=key))(key), numbel.Generator(number).categorical(x))
    key = jax.random.split(jax.random.key(7))[1]
    high, low = (int(word) for word in jax.random.key_data(key))
    same(nj.gumbel_softmax(x, seed=1, draw=key), numbel.Generator(1, high << 32 | low).gumbel_softmax(x))
    key = jax.random.key(5, impl="rbg")
    words = [int(word) for word in jax.random.key_data(key)]
    assert len(words) == 4
    seed = murmur(words, 1) << 32 | murmur(words, 0)
    same(nj.categorical(x, seed=key), numbel.Generator(seed).categorical(x))
    keys = jax.random.split(jax.random.key(7), 3)
    rows = jax.vmap(lambda key: nj.categorical(x, seed=key))(keys)
    for row, key in zip(rows, keys, strict=True):
        same(row, nj.categorical(x, seed=key), np.int32)
    with pytest.raises(TypeError, match="seed is an array of keys of shape"):
        nj.categorical(x, seed=keys)


def test_loop_counters_as_seed_and_draw():
    """int32, as `fori_loop` and `scan` count; a traced -n is 2^64 - n."""
    x = logits((3, 9))
    start = jnp.zeros((4, 3), jnp.int32)
    found = jax.lax.fori_loop(0, 4, lambda i, rows: rows.at[i].set(nj.categorical(x, seed=5, draw=i)), start)
    same(found, np.stack([numbel.Generator(5, i).categorical(x) for i in range(4)]))
    _, found = jax.lax.scan(lambda _, i: (_, nj.categorical(x, seed=i)), None, jnp.arange(4))
    same(found, np.stack([numbel.Generator(i).categorical(x) for i in range(4)]))
    for kind in (np.int8, np.int16, np.int32, np.int64):
        with x64(kind == np.int64):
            found = jax.jit(lambda i: nj.categorical(x, seed=5, draw=i))(kind(-2))
            same(found, numbel.Generator(5, 2**64 - 2).categorical(x), np.asarray(found).dtype)
    with pytest.raises(ValueError, match="draw must be in 0"):
        nj.categorical(x, seed=5, draw=jnp.int32(-2))


def test_arrays_sharded_over_devices_in_the_numpy_methods():
    """BufferError from DLPack, where np.asarray works."""
    code = (
        "import jax, jax.numpy as jnp, numpy as np, numbel\n"
        "mesh = jax.make_mesh((2,), ('a',))\n"
        "there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('a'))\n"
        "x = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)\n"
        "y = jax.device_put(x, there)\n"
        "assert len(y.devices()) == 2\n"
        "assert (numbel.Generator(5).categorical(y) == numbel.Generator(5).categorical(x)).all()\n"
        "assert (numbel.logsumexp(y) == numbel.logsumexp(x)).all()\n"
        "t = jax.device_put(np.ones(4, np.float32), there)\n"
        "assert (numbel.Generator(5).categorical(x, temperature=t) == numbel.Generator(5).categorical(x)).all()\n"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_tracer_in_the_numpy_methods_names_the_adapter():
    x = logits((3, 9))
    rng = numbel.Generator(5)
    for function in (
        rng.categorical,
        rng.gumbel_softmax,
        numbel.logsumexp,
        numbel.CategoricalTable,
        lambda x: rng.categorical(np.zeros((3, 9)), temperature=x[..., 0]),
        lambda x: numbel.gumbel_softmax_vjp(x, x),
        lambda x: rng.gumbel(x),
    ):
        for traced in (jax.jit(function), jax.vmap(function)):
            with pytest.raises(TypeError, match=r"is traced by JAX .* use numbel\.jax"):
                traced(jnp.asarray(x))
    assert rng.draw == 0


def test_more_bad_arguments():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="method"):
        nj.categorical(x, seed=5, method="alias")
    with pytest.raises(ValueError, match="num_samples"):
        nj.categorical(x, -1, seed=5)
    with pytest.raises(ValueError, match="non-negative"):
        nj.gumbel_softmax(x, np.array([-1.0, 1.0]), seed=5)
    with pytest.raises(ValueError, match="broadcast"):
        jax.jit(lambda t: nj.gumbel_softmax(x, t, seed=5))(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="an integer scalar, got float32"):
        jax.jit(lambda d: nj.categorical(x, seed=5, draw=d))(3.0)
    many = jax.ShapeDtypeStruct((1 << 31,), np.float32)
    with pytest.raises(ValueError, match="jax_enable_x64"):
        jax.eval_shape(lambda x: nj.categorical(x, seed=5), many)
    assert jax.eval_shape(lambda x: nj.gumbel_softmax(x, seed=5), many).shape == many.shape
    with x64(True):
        assert jax.eval_shape(lambda x: nj.categorical(x, seed=5), many).dtype == np.int64


# --- XLA


class Recorder(numbel.Generator):
    addresses = ()

    def categorical(self, logits, *args, **kwargs):
        Recorder.addresses += (logits.ctypes.data,)
        assert not logits.flags.writeable
        return super().categorical(logits, *args, **kwargs)


def test_buffers_are_not_copied(monkeypatch):
    monkeypatch.setattr(nj, "Generator", Recorder)
    x = jnp.asarray(logits((4, 1000)))
    jax.jit(lambda x: nj.categorical(x, seed=5))(x).block_until_ready()
    jax.vmap(lambda x, d: nj.categorical(x, seed=5, draw=d), (None, 0))(x, jnp.arange(2, dtype=np.uint32))
    jax.effects_barrier()
    assert set(Recorder.addresses) == {x.unsafe_buffer_pointer()}


def test_errors_come_out(monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt("\N{GREEK SMALL LETTER OMEGA}")

    f = jax.jit(lambda x: nj.categorical(x, seed=5))
    x = logits()
    with monkeypatch.context() as patch:
        patch.setattr(nj, "Generator", fail)
        with pytest.raises(Exception, match="KeyboardInterrupt: \N{GREEK SMALL LETTER OMEGA}"):
            f(x).block_until_ready()
    same(f(x), numbel.Generator(5).categorical(x))


def test_unknown_interfaces_are_refused(monkeypatch):
    class Longer(_xla._Frame):
        _fields_ = (("more", ctypes.c_int64),)

    monkeypatch.setattr(_xla, "_Frame", Longer)
    with pytest.raises(ImportError, match="jaxlib"):
        _xla.register("numbel_refused", nj._serve)
    monkeypatch.undo()
    same(nj.categorical(logits(), seed=5), numbel.Generator(5).categorical(logits()))


def test_large_arrays_and_a_full_queue():
    x = jnp.zeros(1 << 24)
    f = jax.jit(lambda x, draw: nj.categorical(x + 1, seed=5, draw=draw))
    want = numbel.Generator(5, 3).categorical(np.ones(1 << 24, np.float32))
    assert f(x, np.uint32(3)) == want
    small = jnp.zeros(1 << 14)
    got = [f(small, np.uint32(i)) for i in range(100)]
    assert len({int(i) for i in got}) > 90


def test_threads():
    x = jnp.asarray(logits((8, 1 << 14)))
    f = jax.jit(lambda x, draw: nj.sample(x * 2, seed=5, draw=draw))
    want = [numbel.Generator(5, i).sample(np.asarray(x) * 2) for i in range(16)]
    failures = []

    def work(k):
        try:
            for i in range(k, 16, 4):
                for a, b in zip(f(x, np.uint32(i)), want[i], strict=True):
                    same(a, b)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


def leave_in_flight():
    x = jnp.zeros(1 << 23)
    f = jax.jit(lambda x: nj.categorical(x + 1, 10, seed=5))
    f.lower(x).compile()
    for _ in range(3):
        f(x)


def test_exit_with_calls_in_flight():
    """JAX waits for them at exit with the GIL held; without a hook of ours that is for ever."""
    script = "import test_jax; test_jax.leave_in_flight(); print('left')"
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


@pytest.mark.parametrize(
    ("array", "kind"),
    [([1, -2, 3], "int64"), ([0.1, 0.2, 0.3], "float64"), (0.3, "float64"), ([True, False, True], "bool")],
)
def test_arguments_of_rows_on_a_device_stay_there(array, kind):
    """They become JAX arrays of the 64 bits that kernels read, where JAX itself has 32 by default."""
    from numbel._device.libraries import Jax

    array = jnp.array(array)
    made = Jax.spread(None, array, (2, 3), kind, "row_ids")
    assert isinstance(made, jax.Array)
    assert (made.dtype, made.shape) == (kind, (2, 3))
    there = np.from_dlpack(made)
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(there, np.broadcast_to(np.asarray(array), (2, 3)).astype(kind))
    assert jnp.zeros(1).dtype == np.float32


def test_importing_starts_no_backend():
    script = "import numbel.jax\nfrom jax._src import xla_bridge\n"
    script += "print(xla_bridge.backends_are_initialized(), numbel.jax._registered)"
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False False\n", done.stderr
