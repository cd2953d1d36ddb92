"""Gumbel noise into memory: a thread makes the four columns of a Philox block."""

from __future__ import annotations

import functools
from typing import Any

from numba import cuda, float64, int64, uint32, uint64

from .._scalar.address import NOISE, REFINEMENT, block_words
from .._scalar.gumbel import (
    gumbel_float32,
    gumbel_float64,
    gumbel_refined_float32,
    needs_refinement,
    scaled_float32,
    scaled_float64,
)
from .forms import FORMS, THREADS, Form, device, matrix
from .rows import CALL, identity_of, key_of


@functools.cache
def noise_of(form: Form) -> Any:
    """The device function that turns a word into Gumbel noise: of float64, or of float32 for the other formats."""
    wide = form.wide

    @device
    def of_word(word, column, row, key, mask):
        if wide is float64 or needs_refinement(uint32(word)):
            y0, y1, y2, y3 = block_words(uint64(column // 4), uint64(0), row, uint64(REFINEMENT), key, mask)
            k = column % 4
            y = y0 if k == 0 else y1 if k == 1 else y2 if k == 2 else y3
            if wide is float64:
                return wide(gumbel_float64(uint64(word), uint64(y)))
            return wide(gumbel_refined_float32(uint64(word), uint64(y)))
        return wide(gumbel_float32(uint32(word)))

    return of_word


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, keep, noise = form.wide, form.store, noise_of(form)
    scaled = scaled_float64 if wide is float64 else scaled_float32

    def gumbel(out, call, loc, scale):
        """out[uint64(row), uint64(column)] = scale * G + loc, rounded after either step."""
        rows, columns = int64(out.shape[0]), int64(out.shape[1])
        groups = (columns + 3) // 4
        # as the CPU has it: a float32 zero of standard noise keeps its sign
        scale_at_all = wide is float64 or loc != 0.0 or scale != 1.0
        key, mask = key_of(call)
        step = int64(cuda.gridDim.x) * THREADS
        for item in range(int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x, rows * groups, step):
            row = item // groups
            group = item - row * groups
            identity = identity_of(call, call.first_row + row)
            x0, x1, x2, x3 = block_words(uint64(group), uint64(0), identity, uint64(NOISE), key, mask)
            for k in range(4):
                column = group * 4 + k
                if column < columns:
                    word = x0 if k == 0 else x1 if k == 1 else x2 if k == 2 else x3
                    g = noise(word, column, identity, key, mask)
                    if scale_at_all:
                        g = wide(scaled(g, wide(loc), wide(scale)))
                    out[uint64(row), uint64(column)] = keep(g)

    return {"gumbel": (gumbel, (matrix(form, layout), CALL, float64, float64))}
