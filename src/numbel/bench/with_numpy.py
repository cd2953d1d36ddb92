"""The same by NumPy, SciPy and mkl_random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .works import COUNTS, MANY, SAMPLES, TRIALS, Array, Call, Work, count, logits, tokens, truncation


def _choose(weights: Array, u: Array) -> Array:
    """Index of each row by its inverse cumulative sum."""
    sums = np.cumsum(weights, axis=-1)
    targets = u * sums[:, -1]
    if sums.shape[1] < 4096:
        counts: Array = np.sum(sums <= targets[:, None], axis=-1)
        return counts
    return np.array([np.searchsorted(row, target, "right") for row, target in zip(sums, targets, strict=True)])


def inverse(work: Work) -> Call:
    rng, x = np.random.default_rng(5), logits(work)

    def call() -> Array:
        wide = x.astype(np.float32, copy=False)
        return _choose(np.exp(wide - wide.max(axis=-1, keepdims=True)), rng.random(len(x)))

    return call


def gumbel_max(work: Work) -> Call:
    rng, x = np.random.default_rng(5), logits(work)
    return lambda: np.argmax(x + rng.gumbel(size=x.shape), axis=-1)


def gumbel(work: Work) -> Call:
    rng, size = np.random.default_rng(5), (work.rows, work.columns)
    return lambda: rng.gumbel(size=size)


def top_k(work: Work) -> Call:
    rng, x, k = np.random.default_rng(5), logits(work), count(work)

    def call() -> Array:
        keys = x + rng.gumbel(size=x.shape)
        chosen = np.argpartition(keys, -k, axis=-1)[:, -k:]
        order = np.argsort(-np.take_along_axis(keys, chosen, -1), axis=-1)
        return np.take_along_axis(chosen, order, -1)

    return call


def scipy_inverse(work: Work) -> Call:
    from scipy import special

    rng, x = np.random.default_rng(5), logits(work)
    return lambda: _choose(special.softmax(x.astype(np.float32, copy=False), axis=-1), rng.random(len(x)))


def scipy_sample(work: Work) -> Call:
    from scipy import special

    rng, x = np.random.default_rng(5), logits(work)

    def call() -> tuple[Array, Array, Array]:
        wide = x.astype(np.float32, copy=False)
        logsumexp = special.logsumexp(wide, axis=-1)
        indices = _choose(np.exp(wide - logsumexp[:, None]), rng.random(len(x)))
        return indices, wide[np.arange(len(x)), indices] - logsumexp, logsumexp

    return call


def mkl_gumbel(work: Work) -> Call:
    # 1.5.0 draws the minimum-type law: the mean of 10^6 values was -0.5766, the mirror image of what we make. That
    # is the same work, so its rate compares.
    import mkl_random

    size = (work.rows, work.columns)
    return lambda: mkl_random.gumbel(size=size)


def _softmax(x: Array) -> Array:
    """In float64, since NumPy wants sums of 1."""
    p: Array = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def scipy_logsumexp(work: Work) -> Call:
    from scipy import special

    x = logits(work)
    return lambda: special.logsumexp(x, axis=-1)


def scipy_log_prob(work: Work) -> Call:
    from scipy import special

    x, index = logits(work), np.zeros((work.rows, 1), np.int64)
    return lambda: np.take_along_axis(special.log_softmax(x, axis=-1), index, -1)


def scipy_entropy(work: Work) -> Call:
    from scipy import special

    x = logits(work)
    return lambda: special.entr(special.softmax(x, axis=-1)).sum(-1)


def many(work: Work) -> Call:
    rng, x = np.random.default_rng(5), logits(work)[0]
    return lambda: rng.choice(work.columns, MANY * work.columns, p=_softmax(x))


def scipy_table(name: str) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        from scipy.stats import sampling

        x = logits(work)[0]
        return lambda: getattr(sampling, name)(_softmax(x))

    return prepare


def scipy_table_draws(name: str) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        from scipy.stats import sampling

        table = getattr(sampling, name)(_softmax(logits(work)[0]), random_state=np.random.default_rng(5))
        return lambda: table.rvs(MANY * work.columns)

    return prepare


def multinomial(work: Work) -> Call:
    rng, x = np.random.default_rng(5), logits(work)[0]
    return lambda: rng.multinomial(TRIALS, _softmax(x))


def counts(work: Work) -> Call:
    rng, x = np.random.default_rng(5), logits(work)
    return lambda: rng.multinomial(COUNTS, _softmax(x))


def _draws(x: Array, u: Array) -> Array:
    """Samples of each row at its uniform numbers."""
    sums = np.cumsum(np.exp(x - x.max(axis=-1, keepdims=True)), axis=-1)
    return np.array([np.searchsorted(row, at * row[-1], "right") for row, at in zip(sums, u, strict=True)])


def many_of_rows(work: Work) -> Call:
    rng, x = np.random.default_rng(5), logits(work)
    return lambda: _draws(x, rng.random((work.rows, SAMPLES), np.float32))


def drawn_counts(work: Work) -> Call:
    """Counts of single draws, which are few beside the categories of a long row."""
    rng, x, size = np.random.default_rng(5), logits(work), work.columns
    if work.rows > 1:
        raise ValueError("30 ms a row: timed for one row only")
    return lambda: np.bincount(_draws(x, rng.random((1, COUNTS)))[0], minlength=size)


def vose_many(work: Work) -> Call:
    import vose

    x = logits(work)
    return lambda: np.array([vose.Sampler(p, seed=i).sample(SAMPLES) for i, p in enumerate(_softmax(x))])


def partition_top_k(work: Work) -> Call:
    rng, x, k = np.random.default_rng(5), tokens(work), truncation(work)["top_k"]

    def call() -> Array:
        chosen = np.argpartition(x, -k, axis=-1)[:, -k:]
        values = np.take_along_axis(x, chosen, -1)
        return np.take_along_axis(chosen, np.argmax(values + rng.gumbel(size=values.shape), -1)[:, None], -1)

    return call


def first_log_prob(work: Work) -> Call:
    from scipy import special

    x = logits(work)
    return lambda: x[:, 0] - special.logsumexp(x, axis=-1)
