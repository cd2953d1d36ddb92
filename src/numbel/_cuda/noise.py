"""Gumbel noise into memory: a thread makes the four columns of a Philox block."""

from __future__ import annotations

import functools
from typing import Any

from numba import float64, int64, uint32, uint64

from .._scalar.address import NOISE, REFINEMENT
from .._scalar.gumbel import gumbel_float32, gumbel_float64, gumbel_refined_float32, needs_refinement
from .forms import FORMS, Form, device, matrix, thread_items
from .rows import CALL, address_of, key_of, pick, words_at


@functools.cache
def noise_of(form: Form) -> Any:
    """The device function that turns a word into Gumbel noise: of float64, or of float32 for the other formats."""
    wide = form.wide

    @device
    def of_word(word, column, address):
        if wide is float64 or needs_refinement(uint32(word)):
            y = pick(words_at(address, column // 4, 0, REFINEMENT), column % 4)
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
    scaled = form.arithmetic.scaled

    def gumbel(out, call, loc, scale):
        """out[uint64(row), uint64(column)] = scale * G + loc, rounded after either step."""
        rows, columns = int64(out.shape[0]), int64(out.shape[1])
        groups = (columns + 3) // 4
        # as the CPU has it: a float32 zero of standard noise keeps its sign
        scale_at_all = wide is float64 or loc != 0.0 or scale != 1.0
        key = key_of(call)
        for item in thread_items(rows * groups):
            row = item // groups
            group = item - row * groups
            address = address_of(call, call.first_row + row, key)
            words = words_at(address, group, 0, NOISE)
            for k in range(4):
                column = group * 4 + k
                if column < columns:
                    g = noise(pick(words, k), column, address)
                    if scale_at_all:
                        g = wide(scaled(g, wide(loc), wide(scale)))
                    out[uint64(row), uint64(column)] = keep(g)

    return {"gumbel": (gumbel, (matrix(form, layout), CALL, float64, float64))}
