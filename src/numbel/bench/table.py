"""The table: which libraries do a task, and the works that are timed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

from . import limits, ours, with_jax, with_numpy, with_torch
from .works import FULL, QUICK, TRUNCATIONS, Call, Case, Work

# Peers below some 0.1 G/s: more would take seconds a call and show the same rate.
_SLOW = 1 << 22


class _Entry(NamedTuple):
    prepare: Callable[[Work], Call]
    most: int = FULL


_LIMITS = {"read": _Entry(limits.read)}
_CATEGORICAL = {
    "numpy exp + cumsum + searchsorted": _Entry(with_numpy.inverse, _SLOW),
    "numpy gumbel + argmax": _Entry(with_numpy.gumbel_max, _SLOW),
    "scipy softmax + cumsum + searchsorted": _Entry(with_numpy.scipy_inverse, _SLOW),
    "torch softmax + cumsum + searchsorted": _Entry(with_torch.inverse),
    "torch softmax + multinomial": _Entry(with_torch.multinomial, _SLOW),
    "torch gumbel + argmax": _Entry(with_torch.gumbel_max, _SLOW),
    "jax categorical": _Entry(with_jax.categorical, _SLOW),
}
_GUMBEL = {
    "numpy gumbel, float64": _Entry(with_numpy.gumbel, _SLOW),
    "mkl_random gumbel, float64, 1 thread": _Entry(with_numpy.mkl_gumbel, _SLOW),
    "torch -log(exponential)": _Entry(with_torch.gumbel, _SLOW),
}
_TOP_K = {
    "numbel": _Entry(ours.top_k),
    "numbel gumbel_max": _Entry(ours.gumbel_max),
    "philox": _Entry(limits.philox),
    "numpy gumbel + argpartition": _Entry(with_numpy.top_k, _SLOW),
    "torch multinomial(replacement=False)": _Entry(with_torch.multinomial_top_k, _SLOW),
    "torch gumbel + topk": _Entry(with_torch.top_k, _SLOW),
    "jax choice(replace=False)": _Entry(with_jax.choice, _SLOW),
    "jax gumbel + top_k": _Entry(with_jax.top_k, _SLOW),
}
_TRUNCATED = {
    "numbel": _Entry(ours.truncated),
    "numbel untruncated": _Entry(ours.untruncated),
    "torch sort + cumsum + multinomial": _Entry(with_torch.truncated, _SLOW),
}
_TASKS: dict[str, dict[str, _Entry]] = {
    "top_k": {**_TRUNCATED, "torch topk + multinomial": _Entry(with_torch.topk_first, _SLOW)},
    "top_p": _TRUNCATED,
    "min_p": _TRUNCATED,
    "sample": {
        "numbel": _Entry(ours.sample),
        **_LIMITS,
        "scipy logsumexp + cumsum + searchsorted": _Entry(with_numpy.scipy_sample, _SLOW),
        **_CATEGORICAL,
    },
    "categorical": {"numbel": _Entry(ours.categorical), **_LIMITS, **_CATEGORICAL},
    "gumbel_max": {"numbel": _Entry(ours.gumbel_max), "philox": _Entry(limits.philox), **_LIMITS, **_CATEGORICAL},
    "gumbel_top_k 10": _TOP_K,
    "gumbel_top_k 100": _TOP_K,
    "gumbel_top_k 65536": _TOP_K,
    "gumbel": {"numbel": _Entry(ours.gumbel), "philox": _Entry(limits.philox), **_GUMBEL},
    "gumbel_softmax": {
        "numbel": _Entry(ours.gumbel_softmax),
        "philox": _Entry(limits.philox),
        "numbel gumbel alone": _Entry(ours.gumbel),
        "numbel.torch": _Entry(functools.partial(with_torch.by_numbel, with_torch.relaxed)),
        "numbel.jax": _Entry(functools.partial(with_jax.by_numbel, with_jax.relaxed)),
        "torch gumbel_softmax": _Entry(functools.partial(with_torch.by_torch, with_torch.relaxed), _SLOW),
        "jax softmax(x + gumbel)": _Entry(functools.partial(with_jax.by_jax, with_jax.relaxed), _SLOW),
    },
    "conditional_gumbel": {"numbel": _Entry(ours.conditional), "philox": _Entry(limits.philox)},
    "gumbel_softmax and gradient": {
        "numbel": _Entry(ours.backward),
        "numbel.torch": _Entry(functools.partial(with_torch.by_numbel, with_torch.backward)),
        "numbel.jax": _Entry(functools.partial(with_jax.by_numbel, with_jax.gradient)),
        "torch gumbel_softmax": _Entry(functools.partial(with_torch.by_torch, with_torch.backward), _SLOW),
        "jax softmax(x + gumbel)": _Entry(functools.partial(with_jax.by_jax, with_jax.gradient), _SLOW),
    },
    "logsumexp": {
        "numbel": _Entry(ours.by_row("logsumexp")),
        **_LIMITS,
        "scipy logsumexp": _Entry(with_numpy.scipy_logsumexp, _SLOW),
        "torch logsumexp": _Entry(with_torch.logsumexp),
        "jax logsumexp": _Entry(with_jax.logsumexp),
    },
    "log_prob": {
        "numbel": _Entry(ours.log_prob),
        **_LIMITS,
        "scipy log_softmax": _Entry(with_numpy.scipy_log_prob, _SLOW),
        "torch Categorical": _Entry(with_torch.log_prob),
    },
    "entropy": {
        "numbel": _Entry(ours.by_row("entropy")),
        **_LIMITS,
        "scipy softmax + entr": _Entry(with_numpy.scipy_entropy, _SLOW),
        "torch Categorical": _Entry(with_torch.entropy),
    },
    "sample in pieces of 2^22": {
        "numbel": _Entry(ours.pieces),
        "numbel sample": _Entry(ours.sample),
        **_LIMITS,
    },
    "4 samples a category": {
        "numbel": _Entry(ours.many),
        "numpy choice": _Entry(with_numpy.many),
        "torch softmax + multinomial": _Entry(with_torch.many),
    },
    "table": {
        "numbel": _Entry(ours.table),
        "scipy DiscreteAliasUrn": _Entry(with_numpy.scipy_table("DiscreteAliasUrn")),
        "scipy DiscreteGuideTable": _Entry(with_numpy.scipy_table("DiscreteGuideTable")),
    },
    "4 table draws a category": {
        "numbel": _Entry(ours.table_draws),
        "scipy DiscreteAliasUrn": _Entry(with_numpy.scipy_table_draws("DiscreteAliasUrn")),
        "scipy DiscreteGuideTable": _Entry(with_numpy.scipy_table_draws("DiscreteGuideTable")),
    },
    "multinomial of 2^40": {
        "numbel": _Entry(ours.multinomial),
        "numpy multinomial": _Entry(with_numpy.multinomial),
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
    Work("gumbel_top_k 10", 1 << 18, 32, "float32"),
    Work("gumbel", 1, 1 << 26, "float32"),
    Work("gumbel", 1, 1 << 26, "float64"),
    Work("categorical", 1 << 20, 8, "float32"),
    Work("categorical", 65536, 128, "float32"),
    Work("categorical", 256, 1 << 17, "float32"),
    Work("sample", 1, 1000, "float32"),
    Work("top_k", 256, 1 << 17, "float32"),
    Work("top_p", 256, 1 << 17, "float32"),
    Work("min_p", 256, 1 << 17, "float32"),
    Work("top_k", 65536, 128, "float32"),
    Work("top_p", 65536, 128, "float32"),
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
        entries["jax gumbel"] = _Entry(with_jax.gumbel, _SLOW)
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
    sized = ("gumbel_top_k", *TRUNCATIONS)
    tasks = dict.fromkeys(
        work.task for work in _WORKS if (work.rows, work.columns) in REGIMES and not work.task.startswith(sized)
    )
    for task, dtype, (rows, columns) in itertools.product(tasks, DTYPES, REGIMES):
        work = Work(task, rows, columns, dtype)
        own = {name: entry for name, entry in _entries(work).items() if name in ("numbel", "read", "philox")}
        grid.setdefault(work.name, {name: functools.partial(_make, work, entry) for name, entry in own.items()})
    return grid


#: `WORKS`, and every task x regime x dtype beside it with numbel and its limits alone.
GRID = _grid()
