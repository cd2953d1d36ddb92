"""Truncated sampling of rows that have their cuts: the nodes, or the race, of what is left of blocks, then the samples.

What a cut excludes counts as -inf. Blocks whose largest logit lies below it are not read.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, REFINEMENT, TRUNCATED
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .._scalar.limits import BLOCK
from .blocks import best_of, functions, scale_function
from .categorical import BlockSums, Outcome, join_blocks, winning_block, write_sample
from .forms import FORMS, THREADS, block_items, device, matrix
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    INVALID,
    SAMPLES,
    Columns,
    address_of,
    block_of,
    blocks_in,
    choice_word,
    extents,
    key_of,
    pick,
    results,
    slots,
    temperature_of,
    word_at,
    words_at,
)
from .shared import ENTRIES, Entries, block_scratch, choice_scratch, join_scratch, thread_entries
from .truncation import CUT, LIMITS, Source, keeps_all, places, row_value, status_cut

_INF = math.inf
_NAN = math.nan


class KeptSource(NamedTuple):
    """A Source of which a cut keeps what is larger than t, and what equals it up to column `last`."""

    logits: Any
    start: Any
    t: Any
    last: Any


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, scale_of = form.wide, scale_function(form)
    scratch_of_block, scratch_of_choice = block_scratch(form), choice_scratch(form)
    (rows_in, extent), (slots_in, owner, room) = extents(layout), slots(layout)
    number, plain_value = places(form)[1], row_value(form)

    @device
    def kept_value(source, line, column):
        """A logit, or -inf where the cut excludes it."""
        x = plain_value(Source(source.logits, source.start), line, column)
        kept = x > source.t or (x == source.t and int64(column) <= source.last)
        return x if kept else wide(-_INF)

    inner = functions(form, layout, kept_value)
    block_sum, choose_column = inner.block_sum, inner.choose_column
    argmax = functions(form, layout, plain_value).argmax

    @device
    def reaches(cut, row, slot):
        """Whether a block may hold columns that are kept."""
        return float64(number(cut.tops[slot])) >= cut.t[row]

    @device
    def kept_of(logits, columns, cut, row):
        """What is kept of a row, and its columns there."""
        source = KeptSource(logits, columns.start, wide(cut.t[row]), int64(cut.last[row]))
        return source, Columns(columns.line, int64(0), columns.count)

    def kept_nodes(logits, call, limits, cut, kept):
        """kept[:, slot] of every block: the partial sum of what is kept of it."""
        scratch = scratch_of_block()
        for item in block_items(slots_in(logits, call)):
            row, block = owner(logits, call, item)
            columns, at_row = extent(logits, call, row), call.first_row + row
            here = block * BLOCK < columns.count and status_cut(call, limits, at_row, columns.count) == DRAWN
            if here and cut.t[row] == cut.t[row]:
                r, s = 0.0, 0.0
                if reaches(cut, row, item):
                    scale = scale_of(temperature_of(call, at_row))
                    source, within = kept_of(logits, columns, cut, row)
                    r, s = block_sum(source, block_of(within, block), scale, scratch)
                if cuda.threadIdx.x == 0:
                    kept[0, item], kept[1, item] = r, s

    def kept_winners(logits, call, limits, samples, cut, winners):
        """`winners` of every (sample, slot): the largest perturbed logit that is kept of a block, its place."""
        own = thread_entries()
        t = cuda.threadIdx.x
        key = key_of(call)
        total = slots_in(logits, call)
        for item in block_items(total * samples.count):
            slot = item // samples.count
            sample = item - slot * samples.count
            row, block = owner(logits, call, slot)
            columns = extent(logits, call, row)
            count = min(columns.count - block * BLOCK, int64(BLOCK))
            best, winner = -_INF, int64(-1)
            drawn = count > 0 and status_cut(call, limits, call.first_row + row, columns.count) == DRAWN
            if drawn and reaches(cut, row, slot):
                temperature = temperature_of(call, call.first_row + row)
                address = address_of(call, call.first_row + row, key)
                source, within = kept_of(logits, columns, cut, row)
                end = block * BLOCK + count
                for base in range(block * BLOCK + 4 * t, end, 4 * THREADS):
                    last = min(base + 4, end)
                    some = False
                    for c in range(base, last):
                        some = some or kept_value(source, within.line, c) != -_INF
                    if some:
                        s = uint64(samples.first + sample)
                        words = words_at(address, base // 4, s, NOISE)
                        for c in range(base, last):
                            x = float64(kept_value(source, within.line, c))
                            z = x / temperature
                            word = uint64(pick(words, c - base))
                            if x != -_INF and not cannot_exceed(word, z, best):
                                g = gumbel_float64(word, uint64(word_at(address, c, s, REFINEMENT)))
                                value = z + g
                                place = int64(place_of(c, z, g, value))
                                if winner < 0 or goes_first(value, place, best, winner):
                                    best, winner = value, place
            own.keys[t], own.places[t] = best, winner
            best_of(own)
            if t == 0:
                at = sample * total + slot
                winners.keys[at], winners.places[at] = own.keys[0], own.places[0]
            cuda.syncthreads()

    def choose_kept(logits, call, limits, samples, cut, kept, winners, results):
        """Write a row's samples, each by one CUDA block; of the race if `winners` have elements."""
        join = join_scratch()
        choice = scratch_of_choice()
        at = choice.extremes.largest
        own = Entries(join.exponents, at)
        t = cuda.threadIdx.x
        key = key_of(call)
        total = slots_in(logits, call)
        for item in block_items(rows_in(logits, call) * samples.count):
            row = item // samples.count
            sample = samples.first + item - row * samples.count
            at_row = call.first_row + row
            slot, columns = room(logits, call, row, extent(logits, call, row))
            plain, line = Source(logits, columns.start), columns.line
            status = status_cut(call, limits, at_row, columns.count)
            log_sum, log_p, column = _NAN, _NAN, int64(-1)
            is_bad = status == INVALID
            if status == GREEDY:
                column, log_sum, is_bad = argmax(plain, Columns(line, int64(0), columns.count), own)
                log_p = _NAN if is_bad else 0.0
            elif status == DRAWN and cut.t[row] != cut.t[row]:
                is_bad = True
            elif status == DRAWN:
                blocks = BlockSums(kept, slot, blocks_in(columns.count))
                whole = keeps_all(limits, at_row, columns.count)
                scale = scale_of(temperature_of(call, at_row))
                root_r, root_s = 0.0, 0.0
                if results.log_prob.size > 0 or results.logsumexp.size > 0:
                    root_r, root_s = join_blocks(blocks, join)
                    log_sum = scalar.logsumexp(root_r, root_s) if whole else cut.logsumexp[row]
                if winners.keys.size > 0:
                    best, column = -_INF, int64(-1)
                    for b in range(t, blocks.count, THREADS):
                        there = (sample - samples.first) * total + slot + b
                        other = int64(winners.places[there])
                        if other >= 0 and (column < 0 or goes_first(winners.keys[there], other, best, column)):
                            best, column = winners.keys[there], other
                    own.keys[t], own.places[t] = best, column
                    best_of(own)
                    column = int64(column_of(at[0]))
                else:
                    address = address_of(call, at_row, key)
                    tag = uint64(GROUPED if whole else TRUNCATED)
                    winning_block(blocks, address, sample, tag, join, at)
                    block = int64(at[0])
                    source, within = kept_of(logits, columns, cut, row)
                    word = choice_word(address, block, sample, tag)
                    choose_column(source, block_of(within, block), scale, word, choice)
                    column = int64(at[0])
                x = float64(plain_value(plain, line, column))
                log_p = scalar.log_prob(x, scale.high64, scale.low64, root_r, root_s)
                cuda.syncthreads()
            if t == 0:
                position = at_row * samples.total + sample
                write_sample(results, at_row, position, sample, Outcome(column, log_p, log_sum, is_bad))

    rows, sums = matrix(form, layout), matrix(FORMS["float64"], "C")
    each = rows, CALL, LIMITS
    return {
        "kept_nodes": (kept_nodes, (*each, CUT, sums)),
        "kept_winners": (kept_winners, (*each, SAMPLES, CUT, ENTRIES)),
        "choose_kept": (choose_kept, (*each, SAMPLES, CUT, sums, ENTRIES, results(wide))),
    }
