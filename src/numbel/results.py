"""What the sampling methods return."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from ._arguments.types import IndicesT, LogProbT, PerturbedT, RowT


class Sample(NamedTuple, Generic[IndicesT, LogProbT, RowT]):
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

    indices: IndicesT
    log_prob: LogProbT
    logsumexp: RowT


class TopK(NamedTuple, Generic[IndicesT, PerturbedT, LogProbT, RowT]):
    """An ordered sample without replacement: the k largest perturbed logits of each row, the largest first.

    Parameters
    ----------
    indices : int64, shape of logits without the category axis, plus k
        The chosen categories in the order in which they were drawn; -1 for a row that was masked out or flagged.
    perturbed : float64, shape of indices
        logits / temperature + G of each, in descending order.
    log_prob : float32 (float64 for float64 logits), shape of logits without the category axis
        Natural logarithm of the probability of the ordered sample (Plackett-Luce).
    threshold : float64, shape of log_prob
        The largest perturbed value that was not chosen, the (k+1)-th; -inf where no possible category is left.
    """

    indices: IndicesT
    perturbed: PerturbedT
    log_prob: LogProbT
    threshold: RowT


class Gradient(NamedTuple):
    """The mean of a function of one-hot samples, and an estimate of its gradient in the logits.

    Parameters
    ----------
    value : float64, of the shape of the function's values
        Mean over the samples of what the function returned; a NumPy scalar where that shape is ().
    gradient : ndarray, shape and dtype of logits
        Derivative of the sum of the expected values, one entry for each logit; it sums to 0 along the
        category axis, up to rounding, and is exactly 0 where the logit is -inf.
    """

    value: Any
    gradient: Any
