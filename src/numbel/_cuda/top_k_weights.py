"""Importance weights of a sample without replacement: a CUDA block for each row."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint8, uint64

from .._scalar.elementary import exp_float64
from .._scalar.top_k import log_weight
from .forms import FORMS, THREADS, block_items, matrix, vector
from .rows import CALL, DRAWN, GREEDY, status_of, temperature_of
from .shared import PER_THREAD

_INF = math.inf
_NAN = math.nan


class WithoutReplacement(NamedTuple):
    """A sample without replacement: k categories of each row, and what their perturbed logits exceed."""

    k: Any
    indices: Any
    thresholds: Any


class Normalisation(NamedTuple):
    """Weights over their own sum, or over the row's, of which the logsumexp is given in float64."""

    normalized: Any
    logsumexp: Any


WITHOUT_REPLACEMENT = types.NamedTuple([int64, vector(int64), vector(float64)], WithoutReplacement)
NORMALISATION = types.NamedTuple([uint8, vector(float64)], Normalisation)


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load = form.wide, form.load

    def weights(logits, call, drawn, normalisation, out):
        """P / q of a row's chosen categories, or that over its sum; NaN where there is no category."""
        tops = cuda.shared.array(PER_THREAD, float64)
        totals = cuda.shared.array(1, float64)
        k, indices, thresholds = drawn
        normalized, logsumexp = normalisation
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        for row in block_items(rows):
            at_row = call.first_row + row
            status, kappa = status_of(call, at_row), thresholds[at_row]
            log_sum = float64(logsumexp[at_row]) if logsumexp.size > 0 else 0.0
            top = -_INF
            for i in range(t, k, THREADS):
                column, value = indices[at_row * k + i], _NAN
                if column >= 0 and column < columns:
                    if status == GREEDY:
                        value = 0.0 if i == 0 else -_INF
                    elif status == DRAWN:
                        z = float64(wide(load(logits[uint64(row), uint64(column)]))) / temperature_of(call, at_row)
                        value = log_weight(z, kappa, log_sum)
                out[at_row * k + i] = value
                top = max(top, value)
            tops[t] = top
            cuda.syncthreads()
            if normalized:
                for i in range(THREADS):
                    top = max(top, tops[i])
            else:
                top = 0.0
            for i in range(t, k, THREADS):
                out[at_row * k + i] = exp_float64(out[at_row * k + i] - top)
            cuda.syncthreads()
            if normalized:
                if t == 0:
                    total = 0.0
                    for i in range(k):
                        total += out[at_row * k + i]
                    totals[0] = total
                cuda.syncthreads()
                for i in range(t, k, THREADS):
                    out[at_row * k + i] /= totals[0]
                cuda.syncthreads()

    return {"weights": (weights, (matrix(form, layout), CALL, WITHOUT_REPLACEMENT, NORMALISATION, vector(float64)))}
