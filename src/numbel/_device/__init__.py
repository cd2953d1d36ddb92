"""The methods of Generator, and the functions of numbel, for arrays on a CUDA device."""

from .counts import multinomial
from .densities import entropy, log_prob, logsumexp
from .relaxed import conditional_gumbel, gumbel_softmax, gumbel_softmax_vjp, softmax
from .sampling import gumbel, sample
from .table import Table
from .task import counter
from .top_k import gumbel_top_k, top_k_weights

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
