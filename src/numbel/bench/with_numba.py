"""The same by ten lines of Numba, as somebody writes them who has no package for it."""

# ruff: noqa: NPY002  (compiled code has the old functions of NumPy only, one generator for each thread)

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange

from .works import SAMPLES, Array, Call, Work, logits


def _inverse(x: Array, indices: Array) -> None:
    for i in prange(len(x)):
        row = x[i]
        largest, total, j = row.max(), 0.0, 0
        for value in row:
            total += math.exp(value - largest)
        left = np.random.random() * total
        for j in range(row.size):
            left -= math.exp(row[j] - largest)
            if left < 0:
                break
        indices[i] = j


def _gumbel_max(x: Array, indices: Array) -> None:
    for i in prange(len(x)):
        best = -math.inf
        for j in range(x.shape[1]):
            key = x[i, j] - math.log(-math.log(np.random.random()))
            if key > best:
                best, indices[i] = key, j


def _sample(x: Array, indices: Array, log_prob: Array, logsumexp: Array) -> None:
    for i in prange(len(x)):
        row = x[i]
        largest, total, j = row.max(), 0.0, 0
        for value in row:
            total += math.exp(value - largest)
        left = np.random.random() * total
        for j in range(row.size):
            left -= math.exp(row[j] - largest)
            if left < 0:
                break
        logsumexp[i] = largest + math.log(total)
        indices[i], log_prob[i] = j, row[j] - logsumexp[i]


def _many(x: Array, indices: Array) -> None:
    for i in prange(len(x)):
        sums = np.cumsum(np.exp(x[i] - x[i].max()))
        for j in range(indices.shape[1]):
            indices[i, j] = np.searchsorted(sums, np.random.random() * sums[-1], side="right")


def _gumbel(x: Array, out: Array) -> None:
    for i in prange(len(out)):
        for j in range(out.shape[1]):
            out[i, j] = -math.log(-math.log(np.random.random()))


def _gumbel_softmax(x: Array, out: Array) -> None:
    for i in prange(len(x)):
        total = 0.0
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] - math.log(-math.log(np.random.random()))
        largest = out[i].max()
        for j in range(x.shape[1]):
            out[i, j] = math.exp(out[i, j] - largest)
            total += out[i, j]
        out[i] /= total


def _log_prob(x: Array, out: Array) -> None:
    for i in prange(len(x)):
        largest, total = x[i].max(), 0.0
        for value in x[i]:
            total += math.exp(value - largest)
        out[i] = x[i, 0] - largest - math.log(total)


def _entropy(x: Array, out: Array) -> None:
    for i in prange(len(x)):
        largest, total, mean = x[i].max(), 0.0, 0.0
        for value in x[i]:
            weight = math.exp(value - largest)
            total += weight
            mean += weight * (value - largest)
        out[i] = math.log(total) - mean / total


@functools.cache
def _kernels(function: Callable[..., None]) -> tuple[Any, Any]:
    """On one thread, and on all."""
    return numba.njit(fastmath=True)(function), numba.njit(fastmath=True, parallel=True)(function)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _peer(
    function: Callable[..., None], *results: tuple[type, Callable[[Work], tuple[int, ...]]]
) -> Callable[[Work], Call]:
    """Prepare a kernel that writes results of such types and shapes: on all threads where that is the faster."""

    def prepare(work: Work) -> Call:
        x, shapes = logits(work), [(dtype, shape(work)) for dtype, shape in results]

        def call(kernel: Any) -> tuple[Array, ...]:
            made: tuple[Array, ...] = tuple(np.empty(shape, dtype) for dtype, shape in shapes)
            kernel(x.astype(np.float32, copy=False), *made)
            return made

        serial, parallel = (functools.partial(call, kernel) for kernel in _kernels(function))
        if work.rows == 1:
            return serial
        serial(), parallel()  # compile
        return min(serial, parallel, key=lambda call: min(_seconds(call) for _ in range(3)))

    return prepare


def _row(work: Work) -> tuple[int, ...]:
    return (work.rows,)


def _whole(work: Work) -> tuple[int, ...]:
    return work.rows, work.columns


def _samples(work: Work) -> tuple[int, ...]:
    return work.rows, SAMPLES


inverse = _peer(_inverse, (np.int64, _row))
gumbel_max = _peer(_gumbel_max, (np.int64, _row))
sample = _peer(_sample, (np.int64, _row), (np.float32, _row), (np.float32, _row))
many = _peer(_many, (np.int64, _samples))
gumbel = _peer(_gumbel, (np.float32, _whole))
gumbel_softmax = _peer(_gumbel_softmax, (np.float32, _whole))
log_prob = _peer(_log_prob, (np.float32, _row))
entropy = _peer(_entropy, (np.float32, _row))
