"""One table of work, {work: {library: callable}}, for `numbel bench`, asv and pytest-benchmark.

`WORKS[work][library](limit)` makes a `Case`: something to call, and how many categories (or noise values) one
call handles. It raises ImportError where the library is not installed. `measure` times a row of the table. `GRID`
has the same rows, and beside them numbel and its limits for every task in every regime and dtype.
Imports are absolute, so that this file also loads by its path and times an older numbel.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import prange, uint64

import numbel

Array = np.ndarray[Any, Any]
Call = Callable[[], object]

#: Categories that one call handles at most: as the work says; for a smoke test.
FULL = 1 << 26
QUICK = 1 << 20
# Peers below some 0.1 G/s: more would take seconds a call and show the same rate.
_SLOW = 1 << 22
# A call shorter than this is repeated within one measurement.
_SHORTEST = 0.01
# Threads that spin after a parallel region would disturb whoever is timed next.
_PAUSE = 0.01


class Work(NamedTuple):
    """A task over rows x columns logits (or noise values) of a dtype."""

    task: str
    rows: int
    columns: int
    dtype: str

    @property
    def name(self) -> str:
        """Such as "sample 64 x 2^20 float32"."""
        return f"{self.task} {_number(self.rows)} x {_number(self.columns)} {self.dtype}"

    def within(self, limit: int) -> Work:
        """The same work on fewer rows, or on shorter ones where one is too long already."""
        rows = max(1, min(self.rows, limit // self.columns))
        return self._replace(rows=rows, columns=min(self.columns, limit // rows))


class Case(NamedTuple):
    """Something to time, and the items that one call of it handles."""

    call: Call
    items: int


class Rate(NamedTuple):
    """Median seconds of one call, its items, and items a second."""

    seconds: float
    items: int
    per_second: float


def _number(n: int) -> str:
    return f"2^{n.bit_length() - 1}" if n >= 1 << 17 and n & (n - 1) == 0 else str(n)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    found: np.dtype[Any] = np.dtype(name)
    return found


@functools.lru_cache(maxsize=1)
def _whole_logits(rows: int, columns: int, dtype: str) -> Array:
    block = np.random.default_rng(0).standard_normal(min(rows * columns, 1 << 20), dtype=np.float32)
    return np.resize(block.astype(_dtype(dtype)), (rows, columns))


def _logits(work: Work) -> Array:
    return _whole_logits(work.rows, work.columns, work.dtype)


@functools.lru_cache(maxsize=1)
def _whole_tokens(rows: int, columns: int, dtype: str) -> Array:
    rng = np.random.default_rng(0)
    block = np.empty((min(rows, 16), columns), np.float32)
    for row in block:
        row[:] = rng.normal(size=columns) - 2 * np.log1p(rng.permutation(columns))
    return np.resize(block.astype(_dtype(dtype)), (rows, columns))


def _tokens(work: Work) -> Array:
    """Logits of the shape of a language model's: a Zipf law with noise, a few dozen likely columns."""
    return _whole_tokens(work.rows, work.columns, work.dtype)


# What bounds us


@numba.njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum(x: Array, chunks: int) -> Array:
    """Sum of each of `chunks` parts, in 512 lanes: reads as fast as memory delivers."""
    lanes = uint64(512)
    blocks = uint64(x.size) // lanes
    sums = np.zeros(chunks, np.uint32)
    for chunk in prange(chunks):
        accumulators = np.zeros(512, np.uint32)
        first, last = blocks * uint64(chunk) // uint64(chunks), blocks * uint64(chunk + 1) // uint64(chunks)
        for block in range(first, last):
            base = uint64(block) * lanes
            for lane in range(lanes):
                accumulators[lane] += x[base + uint64(lane)]
        sums[chunk] = accumulators.sum()
    return sums


def _read(work: Work) -> Call:
    words = _logits(work).reshape(-1).view(np.uint32)
    return lambda: _sum(words, 64)


@functools.cache
def _philox_kernel() -> Callable[[int], int]:
    from numbel._cpu.noise import TILE, fill_noise
    from numbel._scalar.address import NOISE

    @numba.njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
    def words(tiles: int) -> int:
        check = 0
        for chunk in prange(64):
            x = np.empty(TILE, np.uint32)
            last = 0
            for tile in range(chunk, tiles, 64):
                fill_noise(x, TILE, tile * TILE, uint64(0), uint64(0), uint64(NOISE), uint64(5), uint64(7))
                last ^= x[tile % TILE]
            check += last
        return check

    return words  # type: ignore[no-any-return]


def _philox(work: Work) -> Call:
    from numbel._cpu.noise import TILE

    kernel, tiles = _philox_kernel(), work.rows * work.columns // TILE
    return lambda: kernel(tiles)


# numbel


def _numbel_sample(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    return lambda: rng.sample(x)


def _numbel_categorical(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    return lambda: rng.categorical(x)


def _numbel_gumbel_max(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    return lambda: rng.categorical(x, method="gumbel_max")


def _numbel_top_k(work: Work) -> Call:
    rng, x, k = numbel.default_rng(5), _logits(work), _count(work)
    return lambda: rng.gumbel_top_k(x, k)


def _count(work: Work) -> int:
    """The k at the end of a task's name."""
    return int(work.task.rpartition(" ")[2])


def _numbel_truncated(work: Work) -> Call:
    rng, x, settings = numbel.default_rng(5), _tokens(work), _TRUNCATIONS[work.task]
    return lambda: rng.categorical(x, **settings)


def _numbel_untruncated(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _tokens(work)
    return lambda: rng.categorical(x)


def _numbel_gumbel(work: Work) -> Call:
    rng, out = numbel.default_rng(5), np.zeros((work.rows, work.columns), work.dtype)
    return lambda: rng.gumbel(dtype=out.dtype, out=out)


def _numbel_gumbel_softmax(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    out = np.zeros_like(x)
    return lambda: rng.gumbel_softmax(x, out=out)


def _numbel_backward(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    y, gradient, cotangent = np.zeros_like(x), np.zeros_like(x), _cotangent(work)

    def call() -> object:
        rng.gumbel_softmax(x, out=y)
        return numbel.gumbel_softmax_vjp(y, cotangent, out=gradient)

    return call


def _numbel_conditional(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    out, index = np.zeros_like(x), np.arange(work.rows) % work.columns
    return lambda: rng.conditional_gumbel(x, index, out=out)


def _cotangent(work: Work) -> Array:
    return _logits(work)[:, ::-1].copy()


# NumPy and SciPy


def _choose(weights: Array, u: Array) -> Array:
    """Index of each row by its inverse cumulative sum."""
    sums = np.cumsum(weights, axis=-1)
    targets = u * sums[:, -1]
    if sums.shape[1] < 4096:
        counts: Array = np.sum(sums <= targets[:, None], axis=-1)
        return counts
    return np.array([np.searchsorted(row, target, "right") for row, target in zip(sums, targets, strict=True)])


def _numpy_inverse(work: Work) -> Call:
    rng, x = np.random.default_rng(5), _logits(work)

    def call() -> Array:
        wide = x.astype(np.float32, copy=False)
        return _choose(np.exp(wide - wide.max(axis=-1, keepdims=True)), rng.random(len(x)))

    return call


def _numpy_gumbel_max(work: Work) -> Call:
    rng, x = np.random.default_rng(5), _logits(work)
    return lambda: np.argmax(x + rng.gumbel(size=x.shape), axis=-1)


def _numpy_gumbel(work: Work) -> Call:
    rng, size = np.random.default_rng(5), (work.rows, work.columns)
    return lambda: rng.gumbel(size=size)


def _numpy_top_k(work: Work) -> Call:
    rng, x, k = np.random.default_rng(5), _logits(work), _count(work)

    def call() -> Array:
        keys = x + rng.gumbel(size=x.shape)
        chosen = np.argpartition(keys, -k, axis=-1)[:, -k:]
        order = np.argsort(-np.take_along_axis(keys, chosen, -1), axis=-1)
        return np.take_along_axis(chosen, order, -1)

    return call


def _scipy_inverse(work: Work) -> Call:
    from scipy import special

    rng, x = np.random.default_rng(5), _logits(work)
    return lambda: _choose(special.softmax(x.astype(np.float32, copy=False), axis=-1), rng.random(len(x)))


def _scipy_sample(work: Work) -> Call:
    from scipy import special

    rng, x = np.random.default_rng(5), _logits(work)

    def call() -> tuple[Array, Array, Array]:
        wide = x.astype(np.float32, copy=False)
        logsumexp = special.logsumexp(wide, axis=-1)
        indices = _choose(np.exp(wide - logsumexp[:, None]), rng.random(len(x)))
        return indices, wide[np.arange(len(x)), indices] - logsumexp, logsumexp

    return call


# torch


def _tensor(work: Work) -> Any:
    import torch

    x = _logits(work)
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if work.dtype == "bfloat16" else torch.from_numpy(x)


def _torch_multinomial(work: Work) -> Call:
    import torch

    x = _tensor(work)
    return lambda: torch.multinomial(torch.softmax(x, -1, dtype=torch.float32), 1)


def _torch_multinomial_top_k(work: Work) -> Call:
    import torch

    x, k = _tensor(work), _count(work)
    return lambda: torch.multinomial(torch.softmax(x, -1, dtype=torch.float32), k, replacement=False)


def _torch_top_k(work: Work) -> Call:
    import torch

    x, k = _tensor(work), _count(work)
    return lambda: (x - torch.empty_like(x, dtype=torch.float32).exponential_().log_()).topk(k)


def _torch_inverse(work: Work) -> Call:
    import torch

    x = _tensor(work)

    def call() -> object:
        sums = torch.softmax(x, -1, dtype=torch.float32).cumsum(-1)
        return torch.searchsorted(sums, torch.rand(len(x), 1) * sums[:, -1:], right=True)

    return call


def _torch_gumbel_max(work: Work) -> Call:
    import torch

    x = _tensor(work)
    return lambda: (x - torch.empty_like(x, dtype=torch.float32).exponential_().log_()).argmax(-1)


def _torch_truncated(work: Work) -> Call:
    import torch

    x, settings = torch.from_numpy(_tokens(work)), _TRUNCATIONS[work.task]
    places = torch.arange(work.columns)

    def call() -> object:
        values, order = x.sort(dim=-1, descending=True)
        p = values.softmax(-1)
        if "top_k" in settings:
            drop = (places >= settings["top_k"]).expand_as(p)
        elif "top_p" in settings:
            drop = p.cumsum(-1) - p >= settings["top_p"]
        else:
            drop = p < settings["min_p"] * p[:, :1]
        kept = values.masked_fill(drop, -torch.inf).softmax(-1)
        return order.gather(-1, torch.multinomial(kept, 1))

    return call


def _torch_topk_first(work: Work) -> Call:
    import torch

    x, k = torch.from_numpy(_tokens(work)), _TRUNCATIONS[work.task]["top_k"]

    def call() -> object:
        values, order = x.topk(k, dim=-1)
        return order.gather(-1, torch.multinomial(values.softmax(-1), 1))

    return call


def _torch_gumbel(work: Work) -> Call:
    import torch

    kind = getattr(torch, work.dtype)
    return lambda: -torch.empty(work.rows, work.columns, dtype=kind).exponential_().log_()


def _torch_relaxed(work: Work, function: Callable[[Any], Any]) -> Call:
    x = _tensor(work)
    return lambda: function(x)


def _torch_backward(work: Work, function: Callable[[Any], Any]) -> Call:
    import torch

    x, cotangent = _tensor(work).requires_grad_(), torch.from_numpy(_cotangent(work))
    return lambda: torch.autograd.grad(function(x), x, cotangent)


def _by_torch(prepare: Callable[[Work, Callable[[Any], Any]], Call], work: Work) -> Call:
    import torch

    return prepare(work, torch.nn.functional.gumbel_softmax)


def _by_numbel_torch(prepare: Callable[[Work, Callable[[Any], Any]], Call], work: Work) -> Call:
    import numbel.torch

    rng = numbel.default_rng(5)
    return prepare(work, lambda x: numbel.torch.gumbel_softmax(x, generator=rng))


# JAX


def _jax_keys() -> Callable[[], Any]:
    import jax

    counter = itertools.count()
    return lambda: jax.random.key(next(counter))


def _jax_categorical(work: Work) -> Call:
    import jax

    keys, x, draw = _jax_keys(), jax.numpy.asarray(_logits(work)), jax.jit(jax.random.categorical)
    return lambda: draw(keys(), x).block_until_ready()


def _jax_choice(work: Work) -> Call:
    import jax

    keys, x, k = _jax_keys(), jax.numpy.asarray(_logits(work)), _count(work)

    def one(key: Any, p: Any) -> Any:
        return jax.random.choice(key, len(p), (k,), replace=False, p=p)

    draw = jax.jit(lambda key, x: jax.vmap(one)(jax.random.split(key, len(x)), jax.nn.softmax(x)))
    return lambda: draw(keys(), x).block_until_ready()


def _jax_top_k(work: Work) -> Call:
    import jax

    keys, x, k = _jax_keys(), jax.numpy.asarray(_logits(work)), _count(work)
    draw = jax.jit(lambda key, x: jax.lax.top_k(x + jax.random.gumbel(key, x.shape), k)[1])
    return lambda: draw(keys(), x).block_until_ready()


def _jax_gumbel(work: Work) -> Call:
    import jax

    keys, draw = _jax_keys(), jax.jit(functools.partial(jax.random.gumbel, shape=(work.rows, work.columns)))
    return lambda: draw(keys()).block_until_ready()


def _jax_relaxed(work: Work, function: Callable[[Any, Any], Any]) -> Call:
    import jax

    draws, x, call = itertools.count(), jax.numpy.asarray(_logits(work)), jax.jit(function)
    return lambda: call(x, np.uint32(next(draws))).block_until_ready()


def _jax_gradient(work: Work, function: Callable[[Any, Any], Any]) -> Call:
    import jax

    cotangent = jax.numpy.asarray(_cotangent(work))
    return _jax_relaxed(work, lambda x, draw: jax.vjp(lambda x: function(x, draw), x)[1](cotangent)[0])


def _by_jax(prepare: Callable[[Work, Callable[[Any, Any], Any]], Call], work: Work) -> Call:
    import jax

    return prepare(work, lambda x, draw: jax.nn.softmax(x + jax.random.gumbel(jax.random.key(draw), x.shape)))


def _by_numbel_jax(prepare: Callable[[Work, Callable[[Any, Any], Any]], Call], work: Work) -> Call:
    import jax

    import numbel.jax

    return prepare(work, lambda x, draw: numbel.jax.gumbel_softmax(x, seed=5, draw=jax.numpy.asarray(draw)))


def _mkl_gumbel(work: Work) -> Call:
    # 1.5.0 draws the minimum-type law: the mean of 10^6 values was -0.5766, the mirror image of what we make. That
    # is the same work, so its rate compares.
    import mkl_random

    size = (work.rows, work.columns)
    return lambda: mkl_random.gumbel(size=size)


# Densities, tables, counts


def _by_row(name: str) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        x, function = _logits(work), getattr(numbel, name)  # which an older numbel may lack
        return lambda: function(x)

    return prepare


def _numbel_log_prob(work: Work) -> Call:
    x, index = _logits(work), np.zeros(work.rows, np.int64)
    return lambda: numbel.log_prob(x, index)


def _softmax(x: Array) -> Array:
    """In float64, since NumPy wants sums of 1."""
    p: Array = np.exp(x.astype(np.float64) - x.max())
    p /= p.sum()
    return p


def _scipy_logsumexp(work: Work) -> Call:
    from scipy import special

    x = _logits(work)
    return lambda: special.logsumexp(x, axis=-1)


def _scipy_log_prob(work: Work) -> Call:
    from scipy import special

    x, index = _logits(work), np.zeros((work.rows, 1), np.int64)
    return lambda: np.take_along_axis(special.log_softmax(x, axis=-1), index, -1)


def _scipy_entropy(work: Work) -> Call:
    from scipy import special

    x = _logits(work)
    return lambda: special.entr(special.softmax(x, axis=-1)).sum(-1)


def _torch_logsumexp(work: Work) -> Call:
    x = _tensor(work)
    return lambda: x.logsumexp(-1)


def _torch_log_prob(work: Work) -> Call:
    import torch

    x, index = _tensor(work), torch.zeros(work.rows, dtype=torch.int64)
    return lambda: torch.distributions.Categorical(logits=x, validate_args=False).log_prob(index)


def _torch_entropy(work: Work) -> Call:
    import torch

    x = _tensor(work)
    return lambda: torch.distributions.Categorical(logits=x, validate_args=False).entropy()


def _jax_logsumexp(work: Work) -> Call:
    import jax

    x, call = jax.numpy.asarray(_logits(work)), jax.jit(functools.partial(jax.nn.logsumexp, axis=-1))
    return lambda: call(x).block_until_ready()


#: Samples of each category in the works on many samples of one row, preparation included.
_MANY = 4


def _numbel_many(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)[0]
    return lambda: rng.categorical(x, _MANY * work.columns)


def _numpy_many(work: Work) -> Call:
    rng, x = np.random.default_rng(5), _logits(work)[0]
    return lambda: rng.choice(work.columns, _MANY * work.columns, p=_softmax(x))


def _torch_many(work: Work) -> Call:
    import torch

    x = _tensor(work)[0]
    return lambda: torch.multinomial(torch.softmax(x, -1), _MANY * work.columns, replacement=True)


def _numbel_table(work: Work) -> Call:
    x = _logits(work)[0]
    return lambda: numbel.CategoricalTable(x)


def _numbel_table_draws(work: Work) -> Call:
    rng, table = numbel.default_rng(5), numbel.CategoricalTable(_logits(work)[0])
    out = np.zeros(_MANY * work.columns, np.int64)
    return lambda: table.sample(rng, out=out)


def _scipy_table(name: str) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        from scipy.stats import sampling

        x = _logits(work)[0]
        return lambda: getattr(sampling, name)(_softmax(x))

    return prepare


def _scipy_table_draws(name: str) -> Callable[[Work], Call]:
    def prepare(work: Work) -> Call:
        from scipy.stats import sampling

        table = getattr(sampling, name)(_softmax(_logits(work)[0]), random_state=np.random.default_rng(5))
        return lambda: table.rvs(_MANY * work.columns)

    return prepare


#: Columns of a piece.
_PIECE = 1 << 22


def _numbel_pieces(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)

    def call() -> Any:
        found = numbel.CategoricalAccumulator(rng)
        for start in range(0, work.columns, _PIECE):
            found.update(x[:, start : start + _PIECE])
        return found.result()

    return call


#: Draws that the works on counts stand for.
_TRIALS = 1 << 40


def _numbel_multinomial(work: Work) -> Call:
    rng, x = numbel.default_rng(5), _logits(work)
    out = np.zeros(x.shape, np.int64)
    return lambda: rng.multinomial(_TRIALS, x, out=out)


def _numpy_multinomial(work: Work) -> Call:
    rng, x = np.random.default_rng(5), _logits(work)[0]
    return lambda: rng.multinomial(_TRIALS, _softmax(x))


class _Entry(NamedTuple):
    prepare: Callable[[Work], Call]
    most: int = FULL


_LIMITS = {"read": _Entry(_read)}
_CATEGORICAL = {
    "numpy exp + cumsum + searchsorted": _Entry(_numpy_inverse, _SLOW),
    "numpy gumbel + argmax": _Entry(_numpy_gumbel_max, _SLOW),
    "scipy softmax + cumsum + searchsorted": _Entry(_scipy_inverse, _SLOW),
    "torch softmax + cumsum + searchsorted": _Entry(_torch_inverse),
    "torch softmax + multinomial": _Entry(_torch_multinomial, _SLOW),
    "torch gumbel + argmax": _Entry(_torch_gumbel_max, _SLOW),
    "jax categorical": _Entry(_jax_categorical, _SLOW),
}
_GUMBEL = {
    "numpy gumbel, float64": _Entry(_numpy_gumbel, _SLOW),
    "mkl_random gumbel, float64, 1 thread": _Entry(_mkl_gumbel, _SLOW),
    "torch -log(exponential)": _Entry(_torch_gumbel, _SLOW),
}
_TOP_K = {
    "numbel": _Entry(_numbel_top_k),
    "numbel gumbel_max": _Entry(_numbel_gumbel_max),
    "philox": _Entry(_philox),
    "numpy gumbel + argpartition": _Entry(_numpy_top_k, _SLOW),
    "torch multinomial(replacement=False)": _Entry(_torch_multinomial_top_k, _SLOW),
    "torch gumbel + topk": _Entry(_torch_top_k, _SLOW),
    "jax choice(replace=False)": _Entry(_jax_choice, _SLOW),
    "jax gumbel + top_k": _Entry(_jax_top_k, _SLOW),
}
#: Settings of the truncated tasks.
_TRUNCATIONS: dict[str, dict[str, Any]] = {"top_k": {"top_k": 50}, "top_p": {"top_p": 0.9}, "min_p": {"min_p": 0.05}}
_TRUNCATED = {
    "numbel": _Entry(_numbel_truncated),
    "numbel untruncated": _Entry(_numbel_untruncated),
    "torch sort + cumsum + multinomial": _Entry(_torch_truncated, _SLOW),
}
_TASKS: dict[str, dict[str, _Entry]] = {
    "top_k": {**_TRUNCATED, "torch topk + multinomial": _Entry(_torch_topk_first, _SLOW)},
    "top_p": _TRUNCATED,
    "min_p": _TRUNCATED,
    "sample": {
        "numbel": _Entry(_numbel_sample),
        **_LIMITS,
        "scipy logsumexp + cumsum + searchsorted": _Entry(_scipy_sample, _SLOW),
        **_CATEGORICAL,
    },
    "categorical": {"numbel": _Entry(_numbel_categorical), **_LIMITS, **_CATEGORICAL},
    "gumbel_max": {"numbel": _Entry(_numbel_gumbel_max), "philox": _Entry(_philox), **_LIMITS, **_CATEGORICAL},
    "gumbel_top_k 10": _TOP_K,
    "gumbel_top_k 100": _TOP_K,
    "gumbel_top_k 65536": _TOP_K,
    "gumbel": {"numbel": _Entry(_numbel_gumbel), "philox": _Entry(_philox), **_GUMBEL},
    "gumbel_softmax": {
        "numbel": _Entry(_numbel_gumbel_softmax),
        "philox": _Entry(_philox),
        "numbel gumbel alone": _Entry(_numbel_gumbel),
        "numbel.torch": _Entry(functools.partial(_by_numbel_torch, _torch_relaxed)),
        "numbel.jax": _Entry(functools.partial(_by_numbel_jax, _jax_relaxed)),
        "torch gumbel_softmax": _Entry(functools.partial(_by_torch, _torch_relaxed), _SLOW),
        "jax softmax(x + gumbel)": _Entry(functools.partial(_by_jax, _jax_relaxed), _SLOW),
    },
    "conditional_gumbel": {"numbel": _Entry(_numbel_conditional), "philox": _Entry(_philox)},
    "gumbel_softmax and gradient": {
        "numbel": _Entry(_numbel_backward),
        "numbel.torch": _Entry(functools.partial(_by_numbel_torch, _torch_backward)),
        "numbel.jax": _Entry(functools.partial(_by_numbel_jax, _jax_gradient)),
        "torch gumbel_softmax": _Entry(functools.partial(_by_torch, _torch_backward), _SLOW),
        "jax softmax(x + gumbel)": _Entry(functools.partial(_by_jax, _jax_gradient), _SLOW),
    },
    "logsumexp": {
        "numbel": _Entry(_by_row("logsumexp")),
        **_LIMITS,
        "scipy logsumexp": _Entry(_scipy_logsumexp, _SLOW),
        "torch logsumexp": _Entry(_torch_logsumexp),
        "jax logsumexp": _Entry(_jax_logsumexp),
    },
    "log_prob": {
        "numbel": _Entry(_numbel_log_prob),
        **_LIMITS,
        "scipy log_softmax": _Entry(_scipy_log_prob, _SLOW),
        "torch Categorical": _Entry(_torch_log_prob),
    },
    "entropy": {
        "numbel": _Entry(_by_row("entropy")),
        **_LIMITS,
        "scipy softmax + entr": _Entry(_scipy_entropy, _SLOW),
        "torch Categorical": _Entry(_torch_entropy),
    },
    "sample in pieces of 2^22": {
        "numbel": _Entry(_numbel_pieces),
        "numbel sample": _Entry(_numbel_sample),
        **_LIMITS,
    },
    "4 samples a category": {
        "numbel": _Entry(_numbel_many),
        "numpy choice": _Entry(_numpy_many),
        "torch softmax + multinomial": _Entry(_torch_many),
    },
    "table": {
        "numbel": _Entry(_numbel_table),
        "scipy DiscreteAliasUrn": _Entry(_scipy_table("DiscreteAliasUrn")),
        "scipy DiscreteGuideTable": _Entry(_scipy_table("DiscreteGuideTable")),
    },
    "4 table draws a category": {
        "numbel": _Entry(_numbel_table_draws),
        "scipy DiscreteAliasUrn": _Entry(_scipy_table_draws("DiscreteAliasUrn")),
        "scipy DiscreteGuideTable": _Entry(_scipy_table_draws("DiscreteGuideTable")),
    },
    "multinomial of 2^40": {
        "numbel": _Entry(_numbel_multinomial),
        "numpy multinomial": _Entry(_numpy_multinomial),
    },
}
#: Rows and columns that tell kernels apart: few long rows, vocabularies, many short rows; and what one call costs.
REGIMES = ((64, 1 << 20), (256, 1 << 17), (65536, 128), (1 << 20, 8), (1, 1000))
DTYPES = ("float32", "float64", "float16", "bfloat16")
_WORKS = (
    Work("sample", 64, 1 << 20, "float32"),
    Work("categorical", 64, 1 << 20, "float32"),
    Work("sample", 1, 1 << 26, "float32"),
    Work("categorical", 1, 1 << 26, "float32"),
    Work("categorical", 64, 1 << 20, "bfloat16"),
    Work("categorical", 64, 1 << 20, "float16"),
    Work("gumbel_max", 64, 1 << 20, "float32"),
    Work("gumbel_top_k 100", 64, 1 << 20, "float32"),
    Work("gumbel_top_k 65536", 64, 1 << 17, "float32"),
    Work("gumbel_top_k 10", 65536, 128, "float32"),
    Work("gumbel", 1, 1 << 26, "float32"),
    Work("gumbel", 1, 1 << 26, "float64"),
    Work("categorical", 1 << 20, 8, "float32"),
    Work("categorical", 65536, 128, "float32"),
    Work("categorical", 256, 1 << 17, "float32"),
    Work("sample", 1, 1000, "float32"),
    Work("top_k", 256, 1 << 17, "float32"),
    Work("top_p", 256, 1 << 17, "float32"),
    Work("min_p", 256, 1 << 17, "float32"),
    Work("gumbel", 65536, 128, "float32"),
    Work("conditional_gumbel", 64, 1 << 20, "float32"),
    Work("gumbel_softmax", 64, 1 << 20, "float32"),
    Work("gumbel_softmax", 65536, 128, "float32"),
    Work("gumbel_softmax", 1 << 20, 8, "float32"),
    Work("gumbel_softmax and gradient", 64, 1 << 20, "float32"),
    Work("gumbel_softmax and gradient", 65536, 128, "float32"),
    Work("gumbel_softmax and gradient", 1 << 20, 8, "float32"),
    Work("logsumexp", 64, 1 << 20, "float32"),
    Work("log_prob", 64, 1 << 20, "float32"),
    Work("entropy", 64, 1 << 20, "float32"),
    Work("sample in pieces of 2^22", 1, 1 << 26, "float32"),
    Work("4 samples a category", 1, 1 << 20, "float32"),
    Work("table", 1, 1 << 20, "float32"),
    Work("4 table draws a category", 1, 1 << 20, "float32"),
    Work("multinomial of 2^40", 1, 1 << 20, "float32"),
)


def _make(work: Work, entry: _Entry, limit: int = FULL) -> Case:
    """Prepare one entry on as much of the work as it may have."""
    part = work.within(min(limit, entry.most))
    return Case(entry.prepare(part), part.rows * part.columns)


def _entries(work: Work) -> dict[str, _Entry]:
    entries = dict(_TASKS[work.task])
    if work.rows * work.columns < QUICK:
        # a fraction of a bandwidth means nothing for what lies in a cache, nor that of a rate for a few words
        entries.pop("read", None)
        entries.pop("philox", None)
    if work.task == "gumbel" and work.dtype == "float32":
        # JAX has no float64 unless the whole process is told so
        entries["jax gumbel"] = _Entry(_jax_gumbel, _SLOW)
    return entries


#: {work: {library: callable of a limit on the size, which makes a Case}}; sizes beyond a peer's most are cut.
WORKS: dict[str, dict[str, Callable[..., Case]]] = {
    work.name: {library: functools.partial(_make, work, entry) for library, entry in _entries(work).items()}
    for work in _WORKS
}


def _grid() -> dict[str, dict[str, Callable[..., Case]]]:
    """The table, then every task that it has in one of the regimes in all of them and in every dtype."""
    grid = dict(WORKS)
    # those with a k or a cut of their own belong to their sizes
    sized = ("gumbel_top_k", *_TRUNCATIONS)
    tasks = dict.fromkeys(
        work.task for work in _WORKS if (work.rows, work.columns) in REGIMES and not work.task.startswith(sized)
    )
    for task, dtype, (rows, columns) in itertools.product(tasks, DTYPES, REGIMES):
        work = Work(task, rows, columns, dtype)
        ours = {name: entry for name, entry in _entries(work).items() if name in ("numbel", "read", "philox")}
        grid.setdefault(work.name, {name: functools.partial(_make, work, entry) for name, entry in ours.items()})
    return grid


#: `WORKS`, and every task x regime x dtype beside it with numbel and its limits alone.
GRID = _grid()


def measure(work: str, libraries: Iterable[str] | None = None, rounds: int = 7, limit: int = FULL) -> dict[str, Rate]:
    """Time libraries on a work, taking turns, and leave out those that are not installed.

    Parameters
    ----------
    work : str
        A key of `GRID`.
    libraries : iterable of str, optional
        Keys of `GRID[work]`; None: all.
    rounds : int, optional
        Measurements of each; the median counts.
    limit : int, optional
        Categories that one call handles at most, from 2**17.

    Returns
    -------
    dict of str to Rate
        In the order of the table.

    Examples
    --------
    >>> from numbel import bench
    >>> rates = bench.measure("sample 1 x 1000 float32", ["numbel"], rounds=1)
    >>> rates["numbel"].items
    1000
    """
    table = GRID[work]
    cases: dict[str, tuple[Case, int]] = {}
    for library in table if libraries is None else libraries:
        try:
            case = table[library](limit)
        except ImportError:
            continue
        case.call()
        cases[library] = case, max(1, round(_SHORTEST / max(_seconds(case.call, 1), 1e-7)))
    times: dict[str, list[float]] = {library: [] for library in cases}
    for _ in range(rounds):
        for library, (case, calls) in cases.items():
            time.sleep(_PAUSE)
            times[library].append(_seconds(case.call, calls))
    medians = {library: statistics.median(values) for library, values in times.items()}
    return {
        library: Rate(medians[library], case.items, case.items / medians[library])
        for library, (case, _) in cases.items()
    }


def ratio(rates: dict[str, Rate], library: str) -> float:
    """How many times the rate of `library` numbel has."""
    return rates["numbel"].per_second / rates[library].per_second


def _seconds(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
