"""method="gumbel_max": the best column of every block and sample, then that of the row."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import NOISE, REFINEMENT
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .._scalar.limits import BLOCK
from .blocks import best_of, functions
from .categorical import BlockSums, Outcome, join_blocks, write_sample
from .forms import FORMS, THREADS, block_items, matrix
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    INVALID,
    LEFT_OUT,
    SAMPLES,
    address_of,
    blocks_in,
    extents,
    key_of,
    pick,
    results,
    slots,
    status_of,
    temperature_of,
    word_at,
    words_at,
)
from .shared import ENTRIES, PER_THREAD, Entries, join_scratch, thread_entries

_INF = math.inf
_NAN = math.nan


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, argmax = form.wide, form.load, functions(form).argmax
    is_bounded, is_possible = form.arithmetic.is_bounded, form.arithmetic.is_possible
    ragged, (number, extent), (slots_in, owner, room) = layout == "R", extents(layout), slots(layout)

    def block_winners(logits, call, samples, winners):
        """`winners` of every (sample, slot): the largest perturbed logit of a block (NaN: bad), its place.

        The samples of a block are drawn side by side, so that its logits come from memory once.
        """
        own = thread_entries()
        t = cuda.threadIdx.x
        total = slots_in(logits, call)
        key = key_of(call)
        for item in block_items(total * samples.count):
            slot = item // samples.count
            of_sample = item - slot * samples.count
            sample = uint64(samples.first + of_sample)
            row, block = owner(logits, call, slot)
            columns = extent(logits, call, row)
            start = block * BLOCK
            count = min(columns.count - start, int64(BLOCK))
            best, winner = -_INF, int64(-1)
            drawn = not ragged or columns.count >= call.least
            if drawn and status_of(call, call.first_row + row) == DRAWN:
                temperature = temperature_of(call, call.first_row + row)
                high64, _ = scalar.scale(temperature)
                address = address_of(call, call.first_row + row, key)
                for group in range(t, (count + 3) // 4, THREADS):
                    words = words_at(address, start // 4 + group, sample, NOISE)
                    for k in range(4):
                        column = start + group * 4 + k
                        if column < columns.count:
                            logit = wide(load(logits[uint64(columns.line), uint64(columns.start + column)]))
                            z = float64(logit) / temperature
                            word = uint64(pick(words, k))
                            if not is_bounded(logit, high64):
                                best, winner = _NAN, column
                            elif is_possible(logit, high64) and best == best and not cannot_exceed(word, z, best):
                                g = gumbel_float64(word, uint64(word_at(address, column, sample, REFINEMENT)))
                                value = z + g
                                place = int64(place_of(column, z, g, value))
                                if winner < 0 or goes_first(value, place, best, winner):
                                    best, winner = value, place
            own.keys[t], own.places[t] = best, winner
            best_of(own)
            if t == 0:
                at = of_sample * total + slot
                winners.keys[at], winners.places[at] = own.keys[0], own.places[0]
            cuda.syncthreads()

    def choose_largest(logits, call, samples, winners, sums, results):
        """Write a row's samples, each by one CUDA block; `sums` have elements if sums are wanted."""
        join = join_scratch()
        places = cuda.shared.array(PER_THREAD, int64)
        own = Entries(join.exponents, places)
        t = cuda.threadIdx.x
        total = slots_in(logits, call)
        for item in block_items(number(logits, call) * samples.count):
            row = item // samples.count
            sample = samples.first + item - row * samples.count
            at_row = call.first_row + row
            columns = extent(logits, call, row)
            if ragged and columns.count < call.least:
                continue
            slot, columns = room(logits, call, row, columns)
            blocks = blocks_in(columns.count)
            status = status_of(call, at_row)
            if ragged and columns.count == 0 and status != LEFT_OUT:
                status = int64(INVALID)
            log_sum, log_p, column, is_bad = _NAN, _NAN, int64(-1), status == INVALID
            if status == GREEDY:
                column, log_sum, is_bad = argmax(logits, columns, own)
                log_p = _NAN if is_bad else 0.0
            elif status == DRAWN:
                best, winner = -_INF, int64(-1)
                first = (sample - samples.first) * total + slot
                for b in range(t, blocks, THREADS):
                    value, other = winners.keys[first + b], int64(winners.places[first + b])
                    better = winner < 0 or goes_first(value, other, best, winner)
                    if best == best and (value != value or (other >= 0 and better)):
                        best, winner = value, other
                own.keys[t], own.places[t] = best, winner
                best_of(own)
                best, column = own.keys[0], int64(column_of(own.places[0]))
                cuda.syncthreads()
                is_bad = best != best or column < 0
                if is_bad:
                    column = int64(-1)
                elif sums.size > 0:
                    root = join_blocks(BlockSums(sums, slot, blocks), join)
                    high64, low64 = scalar.scale(temperature_of(call, at_row))
                    log_sum = scalar.logsumexp(root.exponent, root.mantissa)
                    x = float64(wide(load(logits[uint64(columns.line), uint64(columns.start + column)])))
                    log_p = scalar.log_prob(x, high64, low64, root.exponent, root.mantissa)
                    cuda.syncthreads()
            if t == 0:
                position = at_row * samples.total + sample
                write_sample(results, at_row, position, sample, Outcome(column, log_p, log_sum, is_bad))

    rows, sums = matrix(form, layout), matrix(FORMS["float64"], "C")
    return {
        "block_winners": (block_winners, (rows, CALL, SAMPLES, ENTRIES)),
        "choose_largest": (choose_largest, (rows, CALL, SAMPLES, ENTRIES, sums, results(wide))),
    }
