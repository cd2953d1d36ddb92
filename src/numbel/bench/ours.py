"""Calls of numbel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import numbel

from .works import COUNTS, MANY, SAMPLES, TRIALS, Call, Work, cotangent, count, logits, tokens, truncation


def sample(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    return lambda: rng.sample(x)


def categorical(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    return lambda: rng.categorical(x)


def gumbel_max(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    return lambda: rng.categorical(x, method="gumbel_max")


def top_k(work: Work) -> Call:
    rng, x, k = numbel.default_rng(5), logits(work), count(work)
    return lambda: rng.gumbel_top_k(x, k)


def truncated(work: Work) -> Call:
    rng, x, settings = numbel.default_rng(5), tokens(work), truncation(work)
    return lambda: rng.categorical(x, **settings)


def untruncated(work: Work) -> Call:
    rng, x = numbel.default_rng(5), tokens(work)
    return lambda: rng.categorical(x)


def gumbel(work: Work) -> Call:
    rng, out = numbel.default_rng(5), np.zeros((work.rows, work.columns), work.dtype)
    return lambda: rng.gumbel(dtype=out.dtype, out=out)


def gumbel_softmax(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    out = np.zeros_like(x)
    return lambda: rng.gumbel_softmax(x, out=out)


def backward(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    y, gradient, u = np.zeros_like(x), np.zeros_like(x), cotangent(work)

    def call() -> object:
        rng.gumbel_softmax(x, out=y)
        return numbel.gumbel_softmax_vjp(y, u, out=gradient)

    return call


def conditional(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    out, index = np.zeros_like(x), np.arange(work.rows) % work.columns
    return lambda: rng.conditional_gumbel(x, index, out=out)


def by_row(name: str) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        x, function = logits(work), getattr(numbel, name)  # which an older numbel may lack
        return lambda: function(x)

    return prepare


def log_prob(work: Work) -> Call:
    x, index = logits(work), np.zeros(work.rows, np.int64)
    return lambda: numbel.log_prob(x, index)


def many(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)[0]
    return lambda: rng.categorical(x, MANY * work.columns)


def table(work: Work) -> Call:
    x = logits(work)[0]
    return lambda: numbel.CategoricalTable(x)


def table_draws(work: Work) -> Call:
    rng, table = numbel.default_rng(5), numbel.CategoricalTable(logits(work)[0])
    out = np.zeros(MANY * work.columns, np.int64)
    return lambda: table.sample(rng, out=out)


#: Columns of a piece.
_PIECE = 1 << 22


def pieces(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)

    def call() -> Any:
        found = numbel.CategoricalAccumulator(rng)
        for start in range(0, work.columns, _PIECE):
            found.update(x[:, start : start + _PIECE])
        return found.result()

    return call


def multinomial(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    out = np.zeros(x.shape, np.int64)
    return lambda: rng.multinomial(TRIALS, x, out=out)


# As peers do it, into arrays that each call makes.


def new_gumbel(work: Work) -> Call:
    rng, size = numbel.default_rng(5), (work.rows, work.columns)
    return lambda: rng.gumbel(size=size)


def new_gumbel_softmax(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    return lambda: rng.gumbel_softmax(x)


def new_counts(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    return lambda: rng.multinomial(COUNTS, x)


def many_of_rows(work: Work) -> Call:
    rng, x = numbel.default_rng(5), logits(work)
    return lambda: rng.categorical(x, SAMPLES)
