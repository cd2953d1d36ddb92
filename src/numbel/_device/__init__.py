"""The methods of Generator, and the functions of numbel, for arrays on a CUDA device.

Generator passes its arguments in order. What they are is written down here, once, in the records of `request`.
"""

from __future__ import annotations

from typing import Any

from ..results import Sample, TopK
from . import counts, relaxed, sampling, top_k
from .densities import entropy, log_prob, logsumexp
from .relaxed import gumbel_softmax_vjp, softmax
from .request import RowOptions, SampleOptions
from .sampling import gumbel
from .table import Table
from .task import Reserve, counter
from .top_k import top_k_weights

__all__ = [
    "Table",
    "conditional_gumbel",
    "counter",
    "entropy",
    "gumbel",
    "gumbel_softmax",
    "gumbel_softmax_vjp",
    "gumbel_top_k",
    "log_prob",
    "logsumexp",
    "multinomial",
    "sample",
    "softmax",
    "top_k_weights",
]


def sample(reserve: Reserve, logits: Any, num_samples: int | None, axis: int, temperature: Any, *others: Any) -> Sample:
    """Categories, and log_prob and logsumexp if `full`."""
    method, row_ids, row_mask, on_invalid, out, full, stream, offsets, truncation = others
    rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
    return sampling.sample(reserve, logits, rows, SampleOptions(num_samples, method, offsets, truncation, out, full))


def gumbel_softmax(reserve: Reserve, logits: Any, temperature: Any, axis: int, hard: bool, *others: Any) -> Any:
    """Relaxed samples, or their one-hots."""
    row_ids, row_mask, on_invalid, out, stream = others
    rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
    return relaxed.gumbel_softmax(reserve, logits, rows, hard, out)


def conditional_gumbel(reserve: Reserve, logits: Any, index: Any, axis: int, temperature: Any, *others: Any) -> Any:
    """Perturbed logits given the largest's index."""
    row_ids, row_mask, on_invalid, out, stream = others
    rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
    return relaxed.conditional_gumbel(reserve, logits, index, rows, out)


def multinomial(reserve: Reserve, n: Any, logits: Any, axis: int, temperature: Any, *others: Any) -> Any:
    """Counts of n draws."""
    row_ids, row_mask, on_invalid, out, stream = others
    rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
    return counts.multinomial(reserve, n, logits, rows, out)


def gumbel_top_k(reserve: Reserve, logits: Any, k: int, axis: int, temperature: Any, *others: Any) -> TopK:
    """The k largest perturbed logits of each row, in order."""
    row_ids, row_mask, on_invalid, out, stream = others
    rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
    return top_k.gumbel_top_k(reserve, logits, k, rows, out)
