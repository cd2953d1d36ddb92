"""What the sampling methods return."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sample(NamedTuple):
    """Indices with the log-probability of each and the logsumexp of each row, from one pass.

    Parameters
    ----------
    indices : int64, shape of logits without the category axis, plus num_samples when given
        The sampled categories; -1 for a row that was masked out or flagged as invalid.
    log_prob : float32 (float64 for float64 logits), shape of indices
        Natural logarithm of the probability of each sampled category.
    logsumexp : float32 (float64 for float64 logits), shape of logits without the category axis
        Natural logarithm of the sum of exp(logits / temperature) of each row.
    """

    indices: Any
    log_prob: Any
    logsumexp: Any
