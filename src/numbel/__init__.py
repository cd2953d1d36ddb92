"""numbel: exact samples from categorical distributions with millions of categories, at memory speed.

Importing compiles nothing and touches no CUDA.
"""

from __future__ import annotations

from . import _early as _early  # in this order: the first looks whether the others can be imported
from . import estimators
from ._host.warmup import warmup
from ._info import show_config
from .accumulate import CategoricalAccumulator
from .densities import entropy, log_prob, logsumexp, top_k_weights
from .generator import Generator, default_rng
from .gradients import concrete_log_prob, exp_concrete_log_prob, gumbel_softmax_vjp
from .results import Gradient, Sample, TopK
from .table import CategoricalTable

__version__ = "0.1.0"

#: Changes when the bits of a draw do; 0 until the CPU, CUDA and selection kernels are verified.
BITS_VERSION = 0

__all__ = [
    "BITS_VERSION",
    "CategoricalAccumulator",
    "CategoricalTable",
    "Generator",
    "Gradient",
    "Sample",
    "TopK",
    "concrete_log_prob",
    "default_rng",
    "entropy",
    "estimators",
    "exp_concrete_log_prob",
    "gumbel_softmax_vjp",
    "log_prob",
    "logsumexp",
    "show_config",
    "top_k_weights",
    "warmup",
]
