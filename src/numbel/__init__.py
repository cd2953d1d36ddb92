"""numbel: exact samples from categorical distributions with millions of categories, at memory speed.

Importing compiles nothing and touches no CUDA.
"""

from __future__ import annotations

from ._info import show_config, warmup
from .generator import Generator, default_rng
from .results import Sample

__version__ = "0.1.0"

#: Changes when the bits of a draw do; 0 until the CPU, CUDA and selection kernels are verified.
BITS_VERSION = 0

__all__ = ["BITS_VERSION", "Generator", "Sample", "default_rng", "show_config", "warmup"]
