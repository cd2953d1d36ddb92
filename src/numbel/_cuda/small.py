"""The small kernels: one-hot rows, which rows are greedy, a sum, the next draw, and a row in float64 for messages."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint8, uint64

from .._scalar.blocks import LANES
from .blocks import halve
from .forms import FORMS, THREADS, matrix, thread_items, vector
from .rows import CALL, GREEDY, status_of

_NAN = math.nan


def greedy(call, rows, only):
    """only[row] = 1 where a row's temperature is 0, else 0."""
    for row in thread_items(rows):
        only[row] = 1 if status_of(call, row) == GREEDY else 0


def advance(counter):
    """Go on to the next draw."""
    if cuda.blockIdx.x == 0 and cuda.threadIdx.x == 0:
        counter[0] += uint64(1)


def total(values, out):
    """out[0] = the sum of values, by one CUDA block."""
    lanes = cuda.shared.array(LANES, float64)
    for lane in range(cuda.threadIdx.x, LANES, THREADS):
        of_lane = 0.0
        for i in range(lane, values.size, LANES):
            of_lane += values[i]
        lanes[lane] = of_lane
    halve(lanes, LANES)
    if cuda.threadIdx.x == 0:
        out[0] = lanes[0]


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep = form.wide, form.load, form.store

    def one_hot(indices, first_row, only, out):
        """1 at a row's index and 0 elsewhere, NaN where the index is -1; of rows in `only`, if it has elements."""
        rows, columns = int64(out.shape[0]), int64(out.shape[1])
        for item in thread_items(rows * columns):
            row = item // columns
            column = item - row * columns
            if only.size == 0 or only[first_row + row] != 0:
                index = indices[first_row + row]
                value = float64(1.0) if index == column else float64(0.0)
                out[uint64(row), uint64(column)] = keep(wide(value if index >= 0 else float64(_NAN)))

    def widen(row, out):
        """A row in float64."""
        for c in thread_items(out.size):
            out[c] = float64(wide(load(row[0, c])))

    rows = matrix(form, layout)
    return {
        "one_hot": (one_hot, (vector(int64), int64, vector(uint8), rows)),
        "widen": (widen, (rows, vector(float64))),
        "greedy": (greedy, (CALL, int64, vector(uint8))),
        "total": (total, (vector(float64), vector(float64))),
        "advance": (advance, (vector(uint64),)),
    }
