"""Writing a row's results, and noting the first bad row."""

from __future__ import annotations

import math

from numba import float64, int64

from .._jit import njit
from .._scalar import blocks as scalar
from .job import row_address
from .memory import atomic_min, load, store, zero

_NAN = math.nan


@njit
def store_float(kind, address, index, value):
    """Write a float64 in the result dtype of `kind`, unless the output is not wanted (address 0)."""
    if address != 0:
        z = zero(kind)
        store(z, address, index, type(z)(value))


@njit
def store_logsumexp(kind, j, row, value):
    """Write a row's logsumexp where it is asked for: in the result dtype, or in float64 for the next step of a draw."""
    store_float(kind, j.logsumexp, row, value)
    if j.row_result != 0:
        store(float64(0), j.row_result, row, value)


@njit
def store_node(j, row, r, total):
    """Write what stands for a row where it is asked for."""
    if j.row_node != 0:
        store(float64(0), j.row_node, 2 * row, r)
        store(float64(0), j.row_node, 2 * row + 1, total)


@njit
def write_empty(kind, j, row):
    """A row that was left out or is bad: index -1, NaN for everything else."""
    start = row * j.all_samples + j.first_sample
    for s in range(j.samples):
        store(int64(0), j.indices, start + int64(s), int64(-1))
        store_float(kind, j.log_prob, start + int64(s), _NAN)
    store_logsumexp(kind, j, row, _NAN)
    store_node(j, row, 0.0, _NAN)


@njit
def write_bad(kind, j, row):
    """`write_empty`, and the row counts as bad."""
    write_empty(kind, j, row)
    atomic_min(j.bad_row_at, row)


@njit
def write_logsumexp(kind, j, row, r, total):
    if j.logsumexp != 0 or j.row_result != 0:
        store_logsumexp(kind, j, row, scalar.logsumexp(r, total))
    store_node(j, row, r, total)


@njit
def write_sample(kind, j, row, sample, column, high64, low64, r, total):
    """One sampled column, and its log-probability where it is asked for."""
    at = row * j.all_samples + j.first_sample + sample
    store(int64(0), j.indices, at, column)
    if j.log_prob != 0:
        x = load(kind, row_address(j, row) + column * j.column_stride, int64(0))
        store_float(kind, j.log_prob, at, scalar.log_prob(float64(x), high64, low64, r, total))


@njit
def write_argmax(kind, j, row):
    """Temperature 0: the first largest logit; log_prob 0, logsumexp the limit max / 0 (0 where max is 0)."""
    address = row_address(j, row)
    at = int64(0)
    largest = load(kind, address, int64(0))
    for i in range(1, j.columns):
        x = load(kind, address + int64(i) * j.column_stride, int64(0))
        if x > largest or x != x:
            largest, at = x, int64(i)
        if x != x:
            break
    if largest != largest or largest == math.inf or largest == -math.inf:
        write_bad(kind, j, row)
        return
    start = row * j.all_samples + j.first_sample
    for s in range(j.samples):
        store(int64(0), j.indices, start + int64(s), at)
        store_float(kind, j.log_prob, start + int64(s), 0.0)
    limit = 0.0 if largest == 0 else math.copysign(math.inf, float64(largest))
    store_logsumexp(kind, j, row, limit)
    store_node(j, row, 0.0, 1.0)
