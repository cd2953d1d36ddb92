"""The methods of Generator, and the functions of numbel, for arrays on a CUDA device."""

from .counts import multinomial
from .relaxed import conditional_gumbel, gumbel_softmax, gumbel_softmax_vjp, softmax
from .sampling import gumbel, sample
from .table import Table
from .task import counter

__all__ = [
    "Table",
    "conditional_gumbel",
    "counter",
    "gumbel",
    "gumbel_softmax",
    "gumbel_softmax_vjp",
    "multinomial",
    "sample",
    "softmax",
]
