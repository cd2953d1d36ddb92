"""Perturbed logits given which of them is the largest: every column on its own, in float64."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import float64, int64, uint64

from .._scalar.address import CONDITIONAL, CONDITIONAL_REFINEMENT
from .._scalar.gumbel import gumbel_float64
from .._scalar.relaxed import below, truncated
from .forms import FORMS, device, matrix, thread_items, vector
from .rows import CALL, DRAWN, LEFT_OUT, address_of, flag, key_of, pick, status_of, temperature_of, word_at, words_at

_INF = math.inf
_NAN = math.nan


@device
def top_of(log_sum, index, address):
    """The largest perturbed logit of a row: its logsumexp plus the noise of column `index`."""
    x, y = word_at(address, index, 0, CONDITIONAL), word_at(address, index, 0, CONDITIONAL_REFINEMENT)
    return log_sum + gumbel_float64(uint64(x), uint64(y))


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep = form.wide, form.load, form.store
    unit, smallest, most = form.spacing

    def conditional(logits, call, index, logsumexp, out, bad):
        """z_index = logsumexp + G, the others truncated below it; NaN in rows that are bad or masked out."""
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        groups = (columns + 3) // 4
        key = key_of(call)
        for item in thread_items(rows * groups):
            row = item // groups
            at = call.first_row + row
            column = (item - row * groups) * 4
            last = min(column + 4, columns)
            best = index[at]
            status = status_of(call, at)
            good = status == DRAWN and best >= 0 and best < columns and abs(logsumexp[at]) < _INF
            if good:
                good = wide(load(logits[uint64(row), uint64(best)])) != -_INF
            if not good:
                for c in range(column, last):
                    out[uint64(row), uint64(c)] = keep(wide(_NAN))
                if status != LEFT_OUT and column == 0:
                    flag(bad, at)
            else:
                address = address_of(call, at, key)
                temperature = temperature_of(call, at)
                top = top_of(logsumexp[at], best, address)
                rounded = float64(wide(load(keep(wide(top)))))
                limit = below(rounded, unit, smallest) if abs(rounded) < _INF else most
                x = words_at(address, column // 4, 0, CONDITIONAL)
                y = words_at(address, column // 4, 0, CONDITIONAL_REFINEMENT)
                for c in range(column, last):
                    k = c - column
                    g = gumbel_float64(uint64(pick(x, k)), uint64(pick(y, k)))
                    z = float64(wide(load(logits[uint64(row), uint64(c)]))) / temperature
                    z = min(truncated(z + g, top), limit)
                    out[uint64(row), uint64(c)] = keep(wide(top if c == best else z))

    rows, indices = matrix(form, layout), vector(int64)
    return {"conditional": (conditional, (rows, CALL, indices, vector(float64), rows, indices))}
