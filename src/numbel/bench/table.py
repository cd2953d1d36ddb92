"""The table: which libraries do a task, and the works that are timed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

from . import limits, ours, with_jax, with_numba, with_numpy, with_torch
from .works import FULL, QUICK, TRUNCATIONS, Call, Case, Work

# Peers below some 0.1 G/s: more would take seconds a call and show the same rate.
_SLOW = 1 << 22


class Entry(NamedTuple):
    """How a library does a task, and the categories that one call of the table handles at most."""

    prepare: Callable[[Work], Call]
    most: int = FULL


_LIMITS = {"read": Entry(limits.read)}
_CATEGORICAL = {
    "numba inverse CDF": Entry(with_numba.inverse),
    "numba gumbel-max": Entry(with_numba.gumbel_max, _SLOW),
    "numpy exp + cumsum + searchsorted": Entry(with_numpy.inverse, _SLOW),
    "numpy gumbel + argmax": Entry(with_numpy.gumbel_max, _SLOW),
    "scipy softmax + cumsum + searchsorted": Entry(with_numpy.scipy_inverse, _SLOW),
    "torch softmax + cumsum + searchsorted": Entry(with_torch.inverse),
    "torch softmax + multinomial": Entry(with_torch.multinomial, _SLOW),
    "torch gumbel + argmax": Entry(with_torch.by_rows(with_torch.gumbel_argmax), _SLOW),
    "torch softmax / exponential + argmax": Entry(with_torch.by_rows(with_torch.race), _SLOW),
    "torch compiled gumbel + argmax": Entry(with_torch.by_rows(with_torch.gumbel_argmax, True), _SLOW),
    "torch compiled softmax / exponential + argmax": Entry(with_torch.by_rows(with_torch.race, True), _SLOW),
    "jax categorical": Entry(with_jax.categorical, _SLOW),
    "jax softmax + cumsum + searchsorted": Entry(with_jax.inverse, _SLOW),
}
#: What returns index, log-probability and log-sum-exp alike.
SAMPLE = {
    "numba inverse CDF": Entry(with_numba.sample),
    "scipy logsumexp + cumsum + searchsorted": Entry(with_numpy.scipy_sample, _SLOW),
    "torch logsumexp + cumsum + searchsorted": Entry(with_torch.by_rows(with_torch.sample_inverse)),
    "torch logsumexp + exponential + argmax": Entry(with_torch.by_rows(with_torch.sample), _SLOW),
    "torch compiled logsumexp + exponential + argmax": Entry(with_torch.by_rows(with_torch.sample, True), _SLOW),
    "jax categorical + logsumexp": Entry(with_jax.sample, _SLOW),
}
_GUMBEL = {
    "numba gumbel": Entry(with_numba.gumbel, _SLOW),
    "numpy gumbel, float64": Entry(with_numpy.gumbel, _SLOW),
    "mkl_random gumbel, float64, 1 thread": Entry(with_numpy.mkl_gumbel, _SLOW),
    "torch -log(exponential)": Entry(with_torch.gumbel, _SLOW),
    "torch compiled -log(exponential)": Entry(with_torch.by_rows(with_torch.gumbel_noise, True), _SLOW),
}
_TOP_K = {
    "numbel": Entry(ours.top_k),
    "numbel gumbel_max": Entry(ours.gumbel_max),
    "philox": Entry(limits.philox),
    "numpy gumbel + argpartition": Entry(with_numpy.top_k, _SLOW),
    "torch multinomial(replacement=False)": Entry(with_torch.multinomial_top_k, _SLOW),
    "torch gumbel + topk": Entry(with_torch.of_work(with_torch.gumbel_top), _SLOW),
    "torch compiled gumbel + topk": Entry(with_torch.of_work(with_torch.gumbel_top, True), _SLOW),
    "jax choice(replace=False)": Entry(with_jax.choice, _SLOW),
    "jax gumbel + top_k": Entry(with_jax.top_k, _SLOW),
}
_TRUNCATED = {
    "numbel": Entry(ours.truncated),
    "numbel untruncated": Entry(ours.untruncated),
    "torch sort + cumsum + multinomial": Entry(with_torch.truncated, _SLOW),
}
#: {task: {library: entry}}.
TASKS: dict[str, dict[str, Entry]] = {
    "top_k": {
        **_TRUNCATED,
        "torch topk + multinomial": Entry(with_torch.topk_first, _SLOW),
        "torch topk + softmax / exponential + argmax": Entry(
            with_torch.of_work(with_torch.topk_race, of=with_torch.token_tensor), _SLOW
        ),
        "torch compiled topk + softmax / exponential + argmax": Entry(
            with_torch.of_work(with_torch.topk_race, True, with_torch.token_tensor), _SLOW
        ),
        "numpy argpartition + gumbel + argmax": Entry(with_numpy.partition_top_k, _SLOW),
        "jax top_k + categorical": Entry(with_jax.truncated_top_k, _SLOW),
    },
    "top_p": {
        **_TRUNCATED,
        "torch sort + cumsum + exponential + argmax": Entry(
            with_torch.of_work(with_torch.top_p_race, of=with_torch.token_tensor), _SLOW
        ),
        "torch compiled sort + cumsum + exponential + argmax": Entry(
            with_torch.of_work(with_torch.top_p_race, True, with_torch.token_tensor), _SLOW
        ),
    },
    "min_p": _TRUNCATED,
    "sample": {
        "numbel": Entry(ours.sample),
        **_LIMITS,
        **SAMPLE,
        **{name: entry for name, entry in _CATEGORICAL.items() if name not in SAMPLE},  # these do less
    },
    "categorical": {"numbel": Entry(ours.categorical), **_LIMITS, **_CATEGORICAL},
    "gumbel_max": {"numbel": Entry(ours.gumbel_max), "philox": Entry(limits.philox), **_LIMITS, **_CATEGORICAL},
    "gumbel_top_k 10": _TOP_K,
    "gumbel_top_k 100": _TOP_K,
    "gumbel_top_k 65536": _TOP_K,
    "gumbel": {"numbel": Entry(ours.gumbel), "philox": Entry(limits.philox), **_GUMBEL},
    "gumbel_softmax": {
        "numbel": Entry(ours.gumbel_softmax),
        "philox": Entry(limits.philox),
        "numbel gumbel alone": Entry(ours.gumbel),
        "numbel.torch": Entry(functools.partial(with_torch.by_numbel, with_torch.relaxed)),
        "numbel.jax": Entry(functools.partial(with_jax.by_numbel, with_jax.relaxed)),
        "numba gumbel_softmax": Entry(with_numba.gumbel_softmax, _SLOW),
        "torch gumbel_softmax": Entry(functools.partial(with_torch.by_torch, with_torch.relaxed), _SLOW),
        "torch compiled gumbel_softmax": Entry(with_torch.by_rows(with_torch.gumbel_softmax, True), _SLOW),
        "jax softmax(x + gumbel)": Entry(functools.partial(with_jax.by_jax, with_jax.relaxed), _SLOW),
    },
    "conditional_gumbel": {"numbel": Entry(ours.conditional), "philox": Entry(limits.philox)},
    "gumbel_softmax and gradient": {
        "numbel": Entry(ours.backward),
        "numbel.torch": Entry(functools.partial(with_torch.by_numbel, with_torch.backward)),
        "numbel.jax": Entry(functools.partial(with_jax.by_numbel, with_jax.gradient)),
        "torch gumbel_softmax": Entry(functools.partial(with_torch.by_torch, with_torch.backward), _SLOW),
        "torch compiled gumbel_softmax": Entry(functools.partial(with_torch.by_compiled, with_torch.backward), _SLOW),
        "jax softmax(x + gumbel)": Entry(functools.partial(with_jax.by_jax, with_jax.gradient), _SLOW),
    },
    "logsumexp": {
        "numbel": Entry(ours.by_row("logsumexp")),
        **_LIMITS,
        "scipy logsumexp": Entry(with_numpy.scipy_logsumexp, _SLOW),
        "torch logsumexp": Entry(with_torch.logsumexp),
        "jax logsumexp": Entry(with_jax.logsumexp),
    },
    "log_prob": {
        "numbel": Entry(ours.log_prob),
        **_LIMITS,
        "numba log_prob": Entry(with_numba.log_prob),
        "scipy log_softmax": Entry(with_numpy.scipy_log_prob, _SLOW),
        "scipy logsumexp": Entry(with_numpy.first_log_prob, _SLOW),
        "torch Categorical": Entry(with_torch.log_prob),
        "torch logsumexp": Entry(with_torch.by_rows(with_torch.log_prob_of_first)),
        "torch compiled logsumexp": Entry(with_torch.by_rows(with_torch.log_prob_of_first, True)),
        "jax logsumexp": Entry(with_jax.log_prob),
    },
    "entropy": {
        "numbel": Entry(ours.by_row("entropy")),
        **_LIMITS,
        "numba entropy": Entry(with_numba.entropy),
        "scipy softmax + entr": Entry(with_numpy.scipy_entropy, _SLOW),
        "torch Categorical": Entry(with_torch.entropy),
        "torch log_softmax": Entry(with_torch.by_rows(with_torch.plain_entropy)),
        "torch compiled log_softmax": Entry(with_torch.by_rows(with_torch.plain_entropy, True)),
        "jax log_softmax": Entry(with_jax.entropy),
    },
    "sample in pieces of 2^22": {
        "numbel": Entry(ours.pieces),
        "numbel sample": Entry(ours.sample),
        **_LIMITS,
    },
    "4 samples a category": {
        "numbel": Entry(ours.many),
        "numpy choice": Entry(with_numpy.many),
        "torch softmax + multinomial": Entry(with_torch.many),
    },
    "table": {
        "numbel": Entry(ours.table),
        "scipy DiscreteAliasUrn": Entry(with_numpy.scipy_table("DiscreteAliasUrn")),
        "scipy DiscreteGuideTable": Entry(with_numpy.scipy_table("DiscreteGuideTable")),
    },
    "4 table draws a category": {
        "numbel": Entry(ours.table_draws),
        "scipy DiscreteAliasUrn": Entry(with_numpy.scipy_table_draws("DiscreteAliasUrn")),
        "scipy DiscreteGuideTable": Entry(with_numpy.scipy_table_draws("DiscreteGuideTable")),
    },
    "multinomial of 2^40": {
        "numbel": Entry(ours.multinomial),
        "numpy multinomial": Entry(with_numpy.multinomial),
    },
    "multinomial of 10^6": {
        "numbel": Entry(ours.new_counts),
        **_LIMITS,
        "numpy multinomial": Entry(with_numpy.counts),
        "numpy cumsum + searchsorted + bincount": Entry(with_numpy.drawn_counts),
        "jax multinomial": Entry(with_jax.counts),
    },
    "1000 samples": {
        "numbel": Entry(ours.many_of_rows),
        **_LIMITS,
        "numba cumsum + searchsorted": Entry(with_numba.many),
        "numpy cumsum + searchsorted": Entry(with_numpy.many_of_rows),
        "torch softmax + cumsum + searchsorted": Entry(with_torch.by_rows(with_torch.many_inverse)),
        "torch softmax + multinomial": Entry(with_torch.by_rows(with_torch.many_of_rows)),
        "vose alias table": Entry(with_numpy.vose_many),
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


def _make(work: Work, entry: Entry, limit: int = FULL) -> Case:
    """Prepare one entry on as much of the work as it may have."""
    part = work.within(min(limit, entry.most))
    return Case(entry.prepare(part), part.rows * part.columns)


def _entries(work: Work) -> dict[str, Entry]:
    entries = dict(TASKS[work.task])
    if work.rows * work.columns < QUICK:
        # a fraction of a bandwidth means nothing for what lies in a cache, nor that of a rate for a few words
        entries.pop("read", None)
        entries.pop("philox", None)
    if work.task == "gumbel" and work.dtype == "float32":
        # JAX has no float64 unless the whole process is told so
        entries["jax gumbel"] = Entry(with_jax.gumbel, _SLOW)
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
