"""Perturbed logits given which of them is the largest: every column on its own, in float64."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar.address import CONDITIONAL, CONDITIONAL_REFINEMENT, block_words, noise_word
from .._scalar.gumbel import gumbel_float64
from .._scalar.relaxed import below, truncated
from .forms import FORMS, THREADS, device, matrix, vector
from .rows import CALL, DRAWN, LEFT_OUT, flag, identity_of, key_of, kind_of, temperature_of

_INF = math.inf
_NAN = math.nan


@device
def top_of(sums, row, index, identity, key, mask):
    """The largest perturbed logit of a row: its logsumexp plus the noise of column `index`."""
    x = noise_word(uint64(index), uint64(0), identity, uint64(CONDITIONAL), key, mask)
    y = noise_word(uint64(index), uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask)
    return sums[row] + gumbel_float64(uint64(x), uint64(y))


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep = form.wide, form.load, form.store
    unit, smallest, most = form.spacing

    def conditional(logits, call, index, sums, out, bad):
        """z_index = logsumexp + G, the others truncated below it; NaN in rows that are bad or masked out."""
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        groups = (columns + 3) // 4
        key, mask = key_of(call)
        step = int64(cuda.gridDim.x) * THREADS
        for item in range(int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x, rows * groups, step):
            row = item // groups
            at = call.first_row + row
            column = (item - row * groups) * 4
            last = min(column + 4, columns)
            best = index[at]
            kind = kind_of(call, at)
            good = kind == DRAWN and best >= 0 and best < columns and abs(sums[at]) < _INF
            if good:
                good = wide(load(logits[uint64(row), uint64(best)])) != -_INF
            if not good:
                for c in range(column, last):
                    out[uint64(row), uint64(c)] = keep(wide(_NAN))
                if kind != LEFT_OUT and column == 0:
                    flag(bad, at)
            else:
                identity = identity_of(call, at)
                temperature = temperature_of(call, at)
                top = top_of(sums, at, best, identity, key, mask)
                rounded = float64(wide(load(keep(wide(top)))))
                limit = below(rounded, unit, smallest) if abs(rounded) < _INF else most
                group = uint64(column // 4)
                x = block_words(group, uint64(0), identity, uint64(CONDITIONAL), key, mask)
                y = block_words(group, uint64(0), identity, uint64(CONDITIONAL_REFINEMENT), key, mask)
                for c in range(column, last):
                    k = c - column
                    word = x[0] if k == 0 else x[1] if k == 1 else x[2] if k == 2 else x[3]
                    refinement = y[0] if k == 0 else y[1] if k == 1 else y[2] if k == 2 else y[3]
                    z = float64(wide(load(logits[uint64(row), uint64(c)]))) / temperature
                    z = min(truncated(z + gumbel_float64(uint64(word), uint64(refinement)), top), limit)
                    out[uint64(row), uint64(c)] = keep(wide(top if c == best else z))

    rows, indices = matrix(form, layout), vector(int64)
    return {"conditional": (conditional, (rows, CALL, indices, vector(float64), rows, indices))}
