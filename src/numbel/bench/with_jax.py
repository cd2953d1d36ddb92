"""The same by JAX; and by `numbel.jax`, which takes its arrays."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .works import Call, Work, cotangent, count, logits


def _keys() -> Callable[[], Any]:
    import jax

    counter = itertools.count()
    return lambda: jax.random.key(next(counter))


def categorical(work: Work) -> Call:
    import jax

    keys, x, draw = _keys(), jax.numpy.asarray(logits(work)), jax.jit(jax.random.categorical)
    return lambda: draw(keys(), x).block_until_ready()


def choice(work: Work) -> Call:
    import jax

    keys, x, k = _keys(), jax.numpy.asarray(logits(work)), count(work)

    def one(key: Any, p: Any) -> Any:
        return jax.random.choice(key, len(p), (k,), replace=False, p=p)

    draw = jax.jit(lambda key, x: jax.vmap(one)(jax.random.split(key, len(x)), jax.nn.softmax(x)))
    return lambda: draw(keys(), x).block_until_ready()


def top_k(work: Work) -> Call:
    import jax

    keys, x, k = _keys(), jax.numpy.asarray(logits(work)), count(work)
    draw = jax.jit(lambda key, x: jax.lax.top_k(x + jax.random.gumbel(key, x.shape), k)[1])
    return lambda: draw(keys(), x).block_until_ready()


def gumbel(work: Work) -> Call:
    import jax

    keys, draw = _keys(), jax.jit(functools.partial(jax.random.gumbel, shape=(work.rows, work.columns)))
    return lambda: draw(keys()).block_until_ready()


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
