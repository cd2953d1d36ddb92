"""Element formats, and what every kernel shares: a block of THREADS threads does one block of 4096 columns.

A kernel's body is what the simulator runs as plain Python, where float32 arithmetic would be double and integers do not
wrap: so all arithmetic is in `_scalar`, and what a scalar returns is put back into its type (`wide`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import cuda, float32, float64, int64, uint16

from .._jit import inlined
from .._scalar import blocks as scalar
from .._scalar.bits import (
    brain_to_float,
    float_to_brain,
    float_to_half,
    from_ordered_float32,
    from_ordered_float64,
    half_to_float,
    ordered_float32,
    ordered_float64,
)
from .._scalar.elementary import finite_log_float32, finite_log_float64
from .._scalar.entropy import terms_float32, terms_float64
from .._scalar.gumbel import scaled_float32, scaled_float64

#: Threads of a CUDA block, any power of two up to 128. The simulator's are Python threads, which take turns.
THREADS = 4 if numba.config.ENABLE_CUDASIM else 128


@inlined
def _same(x):
    return x


class Arithmetic(NamedTuple):
    """The scalar functions of a dtype of arithmetic."""

    order: Callable[[Any], Any]  # an integer that rises with the number, and back
    unorder: Callable[[Any], Any]
    is_bounded: Callable[[Any, Any], Any]
    is_possible: Callable[[Any, Any], Any]
    proves_reference: Callable[[Any], Any]
    weight: Callable[..., Any]
    quantise: Callable[[Any, Any], Any]
    partial_sum: Callable[[Any, Any], Any]
    entropy_terms: Callable[[Any, Any, Any], Any]
    log: Callable[[Any], Any]
    scaled: Callable[[Any, Any, Any], Any]


_FLOAT32 = Arithmetic(
    order=ordered_float32,
    unorder=from_ordered_float32,
    is_bounded=scalar.is_bounded_float32,
    is_possible=scalar.is_possible_float32,
    proves_reference=scalar.proves_reference_float32,
    weight=scalar.weight_float32,
    quantise=scalar.quantise_float32,
    partial_sum=scalar.plain_node_float32,
    entropy_terms=terms_float32,
    log=finite_log_float32,
    scaled=scaled_float32,
)
_FLOAT64 = Arithmetic(
    order=ordered_float64,
    unorder=from_ordered_float64,
    is_bounded=scalar.is_bounded_float64,
    is_possible=scalar.is_possible_float64,
    proves_reference=scalar.proves_reference_float64,
    weight=scalar.weight_float64,
    quantise=scalar.quantise_float64,
    partial_sum=scalar.node,
    entropy_terms=terms_float64,
    log=finite_log_float64,
    scaled=scaled_float64,
)


class Form(NamedTuple):
    """An element format: its dtype in memory, that of its arithmetic, and the ways between them."""

    memory: Any
    wide: Any
    load: Callable[[Any], Any]
    store: Callable[[Any], Any]
    spacing: tuple[float, float, float]  # relative spacing, smallest positive, largest finite number

    @property
    def zero(self) -> Any:
        """0 in the dtype of the arithmetic."""
        return np.float64(0) if self.wide is float64 else np.float32(0)

    @property
    def arithmetic(self) -> Arithmetic:
        """The scalar functions of its arithmetic."""
        return _FLOAT64 if self.wide is float64 else _FLOAT32


FORMS = {
    "float32": Form(float32, float32, _same, _same, (2.0**-23, 2.0**-149, (2.0 - 2.0**-23) * 2.0**127)),
    "float64": Form(float64, float64, _same, _same, (2.0**-52, 2.0**-1074, (2.0 - 2.0**-52) * 2.0**1023)),
    "float16": Form(uint16, float32, half_to_float, float_to_half, (2.0**-10, 2.0**-24, 65504.0)),
    "bfloat16": Form(uint16, float32, brain_to_float, float_to_brain, (2.0**-7, 2.0**-133, (2.0 - 2.0**-7) * 2.0**127)),
}


def device(function: Callable[..., Any]) -> Any:
    """A device function that takes arrays, which the scalars do not."""
    return cuda.jit(device=True)(function)


@device
def block_items(count):
    """Which of `count` items this CUDA block does."""
    return range(int64(cuda.blockIdx.x), count, int64(cuda.gridDim.x))


@device
def thread_items(count):
    """Which of `count` items this thread does, each by one thread of the grid."""
    return range(int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x, count, int64(cuda.gridDim.x) * THREADS)


def matrix(form: Form, layout: str = "A") -> Any:
    """The Numba type of rows and columns: of any strides ("A"), contiguous ("C"), or ragged rows in a line ("R")."""
    return numba.types.Array(form.memory, 2, "A" if layout == "R" else layout)


def vector(dtype: Any) -> Any:
    """The Numba type of a contiguous vector."""
    return numba.types.Array(dtype, 1, "C")
