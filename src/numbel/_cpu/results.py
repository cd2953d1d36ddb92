"""Writing a row's results, and noting the first bad row."""

from __future__ import annotations

import math

from numba import float64, int64

from .._jit import njit
from .._scalar import blocks as scalar
from .memory import atomic_min, load, store, zero
from .records import bad_row_address, row_address, row_temperature, row_wanted

_NAN = math.nan


@njit
def store_float(kind, address, index, value):
    """Write a float64 in the result dtype of `kind`, unless the output is not wanted (address 0)."""
    if address != 0:
        z = zero(kind)
        store(z, address, index, type(z)(value))


@njit
def store_logsumexp(kind, results, row, value):
    """Write a row's logsumexp where it is asked for: in the result dtype, or in float64 for the next step of a draw."""
    store_float(kind, results.logsumexp, row, value)
    if results.logsumexp64 != 0:
        store(float64(0), results.logsumexp64, row, value)


@njit
def store_node(results, row, r, total):
    """Write the root of a row's tree where it is asked for."""
    if results.partial_sums != 0:
        store(float64(0), results.partial_sums, 2 * row, r)
        store(float64(0), results.partial_sums, 2 * row + 1, total)


@njit
def write_empty(kind, results, row):
    """A row that was left out or is bad: index -1, NaN for everything else."""
    start = row * results.stride + results.first_sample
    for s in range(results.samples):
        store(int64(0), results.indices, start + int64(s), int64(-1))
        store_float(kind, results.log_prob, start + int64(s), _NAN)
    store_logsumexp(kind, results, row, _NAN)
    store_node(results, row, 0.0, _NAN)


@njit
def note_bad(work, row):
    """The row counts as bad."""
    atomic_min(bad_row_address(work), row)


@njit
def write_bad(kind, work, results, row):
    """`write_empty`, and the row counts as bad."""
    write_empty(kind, results, row)
    note_bad(work, row)


@njit
def write_logsumexp(kind, results, row, r, total):
    """What is asked for of a row whose root is (r, total)."""
    if results.logsumexp != 0 or results.logsumexp64 != 0:
        store_logsumexp(kind, results, row, scalar.logsumexp(r, total))
    store_node(results, row, r, total)


@njit
def write_sample(kind, p, row, sample, column, scale, root):
    """One sampled column of `p.logits`, and its log-probability where it is asked for; `root` is the row's (r, S)."""
    at = row * p.results.stride + p.results.first_sample + sample
    store(int64(0), p.results.indices, at, column)
    if p.results.log_prob != 0:
        x = load(kind, row_address(p.logits, row) + column * p.logits.column_stride, int64(0))
        value = scalar.log_prob(float64(x), scale.high64, scale.low64, root[0], root[1])
        store_float(kind, p.results.log_prob, at, value)


@njit
def write_argmax(kind, work, logits, results, row):
    """Temperature 0: the first largest logit; log_prob 0, logsumexp the limit max / 0 (0 where max is 0)."""
    address = row_address(logits, row)
    at = int64(0)
    largest = load(kind, address, int64(0))
    for i in range(1, logits.columns):
        x = load(kind, address + int64(i) * logits.column_stride, int64(0))
        if x > largest or x != x:
            largest, at = x, int64(i)
        if x != x:
            break
    if largest != largest or largest == math.inf or largest == -math.inf:
        write_bad(kind, work, results, row)
        return
    start = row * results.stride + results.first_sample
    for s in range(results.samples):
        store(int64(0), results.indices, start + int64(s), at)
        store_float(kind, results.log_prob, start + int64(s), 0.0)
    limit = 0.0 if largest == 0 else math.copysign(math.inf, float64(largest))
    store_logsumexp(kind, results, row, limit)
    store_node(results, row, 0.0, 1.0)


@njit
def is_settled(kind, work, p, row, segment):
    """Whether a row is masked out or of temperature 0; if so, its first segment has written what it gets."""
    if not row_wanted(p.row_mask, row):
        if segment == 0:
            write_empty(kind, p.results, row)
        return True
    if row_temperature(p.temperatures, row) == 0.0:
        if segment == 0:
            write_argmax(kind, work, p.logits, p.results, row)
        return True
    return False
