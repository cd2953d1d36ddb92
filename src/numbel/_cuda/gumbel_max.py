"""method="gumbel_max": the best column of every block and sample, then that of the row."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import NOISE, REFINEMENT, block_words, noise_word
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .blocks import best_of, functions
from .categorical import join_blocks, write_sample
from .forms import FORMS, THREADS, matrix, vector
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    INVALID,
    LEFT_OUT,
    extents,
    identity_of,
    key_of,
    kind_of,
    results,
    slots,
    temperature_of,
)

_INF = math.inf
_NAN = math.nan


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, argmax = form.wide, form.load, functions(form).argmax
    is_bounded = scalar.is_bounded_float64 if wide is float64 else scalar.is_bounded_float32
    is_possible = scalar.is_possible_float64 if wide is float64 else scalar.is_possible_float32
    ragged, (number, extent), (slots_in, owner, room) = layout == "R", extents(layout), slots(layout)

    def block_winners(logits, call, first_sample, samples, keys, at):
        """`keys` and `at` of every (sample, slot): the largest perturbed logit of a block (NaN: bad), its place.

        The samples of a block are drawn side by side, so that its logits come from memory once.
        """
        shared_keys = cuda.shared.array(128, float64)
        shared_at = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        total = slots_in(logits, call)
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), total * samples, int64(cuda.gridDim.x)):
            slot = item // samples
            of_sample = item - slot * samples
            sample = uint64(first_sample + of_sample)
            row, block = owner(logits, call, slot)
            line, first, columns = extent(logits, call, row)
            start = block * BLOCK
            count = min(columns - start, int64(BLOCK))
            best, winner = -_INF, int64(-1)
            if (not ragged or columns >= call.least) and kind_of(call, call.first_row + row) == DRAWN:
                temperature = temperature_of(call, call.first_row + row)
                high64, _ = scalar.scale(temperature)
                identity = identity_of(call, call.first_row + row)
                for group in range(t, (count + 3) // 4, THREADS):
                    x0, x1, x2, x3 = block_words(
                        uint64(start // 4 + group), uint64(sample), identity, uint64(NOISE), key, mask
                    )
                    for k in range(4):
                        column = start + group * 4 + k
                        if column < columns:
                            logit = wide(load(logits[uint64(line), uint64(first + column)]))
                            z = float64(logit) / temperature
                            word = uint64(x0 if k == 0 else x1 if k == 1 else x2 if k == 2 else x3)
                            if not is_bounded(logit, high64):
                                best, winner = _NAN, column
                            elif is_possible(logit, high64) and best == best and not cannot_exceed(word, z, best):
                                y = noise_word(uint64(column), sample, identity, uint64(REFINEMENT), key, mask)
                                g = gumbel_float64(word, uint64(y))
                                value = z + g
                                place = int64(place_of(column, z, g, value))
                                if winner < 0 or goes_first(value, place, best, winner):
                                    best, winner = value, place
            shared_keys[t], shared_at[t] = best, winner
            best_of(shared_keys, shared_at)
            if t == 0:
                keys[of_sample * total + slot], at[of_sample * total + slot] = shared_keys[0], shared_at[0]
            cuda.syncthreads()

    def choose_largest(logits, call, first_sample, samples, all_samples, keys, at, nodes, results):
        """Write a row's samples, each by one CUDA block; `nodes` have elements if sums are wanted."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        shared_at = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        total = slots_in(logits, call)
        for item in range(int64(cuda.blockIdx.x), number(logits, call) * samples, int64(cuda.gridDim.x)):
            row = item // samples
            sample = first_sample + item - row * samples
            at_row = call.first_row + row
            place = at_row * all_samples + sample
            line, first, columns = extent(logits, call, row)
            if ragged and columns < call.least:
                continue
            slot, columns = room(logits, call, row, columns)
            blocks = (columns + BLOCK - 1) // BLOCK
            kind = kind_of(call, at_row)
            if ragged and columns == 0 and kind != LEFT_OUT:
                kind = int64(INVALID)
            log_sum, log_p, column, is_bad = _NAN, _NAN, int64(-1), kind == INVALID
            if kind == GREEDY:
                column, log_sum, is_bad = argmax(logits, line, first, columns, tree_r, shared_at)
                log_p = _NAN if is_bad else 0.0
            elif kind == DRAWN:
                best, winner = -_INF, int64(-1)
                own = (sample - first_sample) * total + slot
                for b in range(t, blocks, THREADS):
                    value, other = keys[own + b], int64(at[own + b])
                    better = winner < 0 or goes_first(value, other, best, winner)
                    if best == best and (value != value or (other >= 0 and better)):
                        best, winner = value, other
                tree_r[t], shared_at[t] = best, winner
                best_of(tree_r, shared_at)
                best, column = tree_r[0], int64(column_of(shared_at[0]))
                cuda.syncthreads()
                is_bad = best != best or column < 0
                if is_bad:
                    column = int64(-1)
                elif nodes.size > 0:
                    join_blocks(nodes, slot, blocks, tree_r, tree_s, stack_r, stack_s)
                    high64, low64 = scalar.scale(temperature_of(call, at_row))
                    log_sum = scalar.logsumexp(stack_r[0], stack_s[0])
                    x = float64(wide(load(logits[uint64(line), uint64(first + column)])))
                    log_p = scalar.log_prob(x, high64, low64, stack_r[0], stack_s[0])
                    cuda.syncthreads()
            if t == 0:
                write_sample(at_row, place, sample, column, log_p, log_sum, is_bad, results)

    rows, nodes, winners = matrix(form, layout), matrix(FORMS["float64"], "C"), (vector(float64), vector(int64))
    return {
        "block_winners": (block_winners, (rows, CALL, int64, int64, *winners)),
        "choose_largest": (choose_largest, (rows, CALL, int64, int64, int64, *winners, nodes, results(wide))),
    }
