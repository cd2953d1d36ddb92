"""The same by JAX; and by `numbel.jax`, which takes its arrays."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .works import COUNTS, Call, Work, cotangent, count, logits, tokens, truncation


def _by(function: Callable[[Any, Any], Any], work: Work, of: Callable[[Work], Any] = logits) -> Call:
    """Jitted, of a key and the logits. The key is made inside: outside it takes 20 to 60 us."""
    import jax

    draws, x = itertools.count(), jax.numpy.asarray(of(work))
    call = jax.jit(lambda draw, x: function(jax.random.key(draw), x))
    return lambda: jax.block_until_ready(call(np.uint32(next(draws)), x))


def categorical(work: Work) -> Call:
    import jax

    return _by(jax.random.categorical, work)


def choice(work: Work) -> Call:
    import jax

    k = count(work)

    def one(key: Any, p: Any) -> Any:
        return jax.random.choice(key, len(p), (k,), replace=False, p=p)

    return _by(lambda key, x: jax.vmap(one)(jax.random.split(key, len(x)), jax.nn.softmax(x)), work)


def top_k(work: Work) -> Call:
    import jax

    k = count(work)
    return _by(lambda key, x: jax.lax.top_k(x + jax.random.gumbel(key, x.shape), k)[1], work)


def gumbel(work: Work) -> Call:
    import jax

    draws, shape = itertools.count(), (work.rows, work.columns)
    call = jax.jit(lambda draw: jax.random.gumbel(jax.random.key(draw), shape))
    return lambda: call(np.uint32(next(draws))).block_until_ready()


def relaxed(work: Work, function: Callable[[Any, Any], Any]) -> Call:
    import jax

    draws, x, call = itertools.count(), jax.numpy.asarray(logits(work)), jax.jit(function)
    return lambda: call(x, np.uint32(next(draws))).block_until_ready()


def gradient(work: Work, function: Callable[[Any, Any], Any]) -> Call:
    import jax

    u = jax.numpy.asarray(cotangent(work))
    return relaxed(work, lambda x, draw: jax.vjp(lambda x: function(x, draw), x)[1](u)[0])


def by_jax(prepare: Callable[[Work, Callable[[Any, Any], Any]], Call], work: Work) -> Call:
    import jax

    return prepare(work, lambda x, draw: jax.nn.softmax(x + jax.random.gumbel(jax.random.key(draw), x.shape)))


def by_numbel(prepare: Callable[[Work, Callable[[Any, Any], Any]], Call], work: Work) -> Call:
    import jax

    import numbel.jax

    return prepare(work, lambda x, draw: numbel.jax.gumbel_softmax(x, seed=5, draw=jax.numpy.asarray(draw)))


def logsumexp(work: Work) -> Call:
    import jax

    x, call = jax.numpy.asarray(logits(work)), jax.jit(functools.partial(jax.nn.logsumexp, axis=-1))
    return lambda: call(x).block_until_ready()


def inverse(work: Work) -> Call:
    import jax

    def draw(key: Any, x: Any) -> Any:
        sums = jax.numpy.cumsum(jax.nn.softmax(x), -1)
        targets = jax.random.uniform(key, (len(x), 1)) * sums[:, -1:]
        return jax.vmap(functools.partial(jax.numpy.searchsorted, side="right"))(sums, targets)

    return _by(draw, work)


def sample(work: Work) -> Call:
    import jax

    def draw(key: Any, x: Any) -> Any:
        index, logsumexp = jax.random.categorical(key, x)[:, None], jax.nn.logsumexp(x, -1, keepdims=True)
        return index, jax.numpy.take_along_axis(x, index, -1) - logsumexp, logsumexp

    return _by(draw, work)


def log_prob(work: Work) -> Call:
    import jax

    return _by(lambda key, x: x[:, 0] - jax.nn.logsumexp(x, -1), work)


def entropy(work: Work) -> Call:
    import jax

    def of(key: Any, x: Any) -> Any:
        log_p = jax.nn.log_softmax(x)
        return -(jax.numpy.exp(log_p) * log_p).sum(-1)

    return _by(of, work)


def counts(work: Work) -> Call:
    import jax

    return _by(lambda key, x: jax.random.multinomial(key, COUNTS, jax.nn.softmax(x)), work)


def truncated_top_k(work: Work) -> Call:
    import jax

    k = truncation(work)["top_k"]

    def draw(key: Any, x: Any) -> Any:
        values, order = jax.lax.top_k(x, k)
        return jax.numpy.take_along_axis(order, jax.random.categorical(key, values)[:, None], -1)

    return _by(draw, work, tokens)
