"""Truncated sampling of rows that have their cuts: the nodes, or the race, of what is left of blocks, then the samples.

What a cut excludes counts as -inf. Blocks whose largest logit lies below it are not read.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, REFINEMENT, TRUNCATED, block_words, noise_word
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import cannot_exceed, column_of, goes_first, gumbel_float64, place_of
from .blocks import best_of, functions
from .categorical import join_blocks, winning_block, write_sample
from .forms import FORMS, THREADS, device, matrix, vector
from .rows import CALL, DRAWN, GREEDY, INVALID, extents, identity_of, key_of, results, slots, temperature_of
from .truncation import CUT, LIMITS, keeps_all, kind_cut, places, row_value

_INF = math.inf
_NAN = math.nan


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide = form.wide
    (rows_in, extent), (slots_in, owner, room) = extents(layout), slots(layout)
    number, plain_value = places(form)[1], row_value(form)

    @device
    def kept_value(source, line, column):
        """A logit, or -inf where the cut excludes it; `source` is (logits, the row's first column, t, last)."""
        x = plain_value((source[0], source[1]), line, column)
        kept = x > source[2] or (x == source[2] and int64(column) <= source[3])
        return x if kept else wide(-_INF)

    inner = functions(form, layout, kept_value)
    block_node, choose_column = inner.block_node, inner.choose_column
    argmax = functions(form, layout, plain_value).argmax

    @device
    def reaches(cut, row, slot):
        """Whether a block may hold columns that are kept."""
        return float64(number(cut.tops[slot])) >= cut.t[row]

    def kept_nodes(logits, call, limits, cut, kept):
        """kept[:, slot] of every block: r and S of what is kept of it."""
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        for item in range(int64(cuda.blockIdx.x), slots_in(logits, call), int64(cuda.gridDim.x)):
            row, block = owner(logits, call, item)
            line, first, columns = extent(logits, call, row)
            here = block * BLOCK < columns and kind_cut(call, limits, call.first_row + row, columns) == DRAWN
            if here and cut.t[row] == cut.t[row]:
                r, s = 0.0, 0.0
                if reaches(cut, row, item):
                    high, low = scalar.scale(temperature_of(call, call.first_row + row))
                    source = (logits, first, wide(cut.t[row]), int64(cut.last[row]))
                    r, s = block_node(source, line, int64(0), block, columns, high, low, lanes, tops, bottoms)
                if cuda.threadIdx.x == 0:
                    kept[0, item], kept[1, item] = r, s

    def kept_winners(logits, call, limits, first_sample, samples, cut, keys, at):
        """`keys` and `at` of every (sample, slot): the largest perturbed logit that is kept of a block, its place."""
        shared_keys = cuda.shared.array(128, float64)
        shared_at = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        key, mask = key_of(call)
        total = slots_in(logits, call)
        for item in range(int64(cuda.blockIdx.x), total * samples, int64(cuda.gridDim.x)):
            slot = item // samples
            sample = item - slot * samples
            row, block = owner(logits, call, slot)
            line, first, columns = extent(logits, call, row)
            count = min(columns - block * BLOCK, int64(BLOCK))
            best, winner = -_INF, int64(-1)
            drawn = count > 0 and kind_cut(call, limits, call.first_row + row, columns) == DRAWN
            if drawn and reaches(cut, row, slot):
                temperature = temperature_of(call, call.first_row + row)
                identity = identity_of(call, call.first_row + row)
                source = (logits, first, wide(cut.t[row]), int64(cut.last[row]))
                end = block * BLOCK + count
                for base in range(block * BLOCK + 4 * t, end, 4 * THREADS):
                    last = min(base + 4, end)
                    some = False
                    for c in range(base, last):
                        some = some or kept_value(source, line, c) != -_INF
                    if some:
                        s = uint64(first_sample + sample)
                        words = block_words(uint64(base // 4), s, identity, uint64(NOISE), key, mask)
                        for c in range(base, last):
                            x = float64(kept_value(source, line, c))
                            z = x / temperature
                            k = c - base
                            word = words[0] if k == 0 else words[1] if k == 1 else words[2] if k == 2 else words[3]
                            if x != -_INF and not cannot_exceed(uint64(word), z, best):
                                y = noise_word(uint64(c), s, identity, uint64(REFINEMENT), key, mask)
                                g = gumbel_float64(uint64(word), uint64(y))
                                value = z + g
                                place = int64(place_of(c, z, g, value))
                                if winner < 0 or goes_first(value, place, best, winner):
                                    best, winner = value, place
            shared_keys[t], shared_at[t] = best, winner
            best_of(shared_keys, shared_at)
            if t == 0:
                keys[sample * total + slot], at[sample * total + slot] = shared_keys[0], shared_at[0]
            cuda.syncthreads()

    def choose_kept(logits, call, limits, first_sample, samples, all_samples, cut, kept, keys, winners, results):
        """Write a row's samples, each by one CUDA block; of the race if `keys` has elements."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        at = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        sums = cuda.shared.array(128, uint64)
        t = cuda.threadIdx.x
        key, mask = key_of(call)
        total = slots_in(logits, call)
        for item in range(int64(cuda.blockIdx.x), rows_in(logits, call) * samples, int64(cuda.gridDim.x)):
            row = item // samples
            sample = first_sample + item - row * samples
            at_row = call.first_row + row
            line, first, columns = extent(logits, call, row)
            slot, columns = room(logits, call, row, columns)
            kind = kind_cut(call, limits, at_row, columns)
            log_sum, log_p, column = _NAN, _NAN, int64(-1)
            is_bad = kind == INVALID
            if kind == GREEDY:
                column, log_sum, is_bad = argmax((logits, first), line, int64(0), columns, tree_r, at)
                log_p = _NAN if is_bad else 0.0
            elif kind == DRAWN and cut.t[row] != cut.t[row]:
                is_bad = True
            elif kind == DRAWN:
                blocks = (columns + BLOCK - 1) // BLOCK
                whole = keeps_all(limits, at_row, columns)
                high64, low64 = scalar.scale(temperature_of(call, at_row))
                root_r, root_s = 0.0, 0.0
                if results.log_prob.size > 0 or results.logsumexp.size > 0:
                    join_blocks(kept, slot, blocks, tree_r, tree_s, stack_r, stack_s)
                    root_r, root_s = stack_r[0], stack_s[0]
                    log_sum = scalar.logsumexp(root_r, root_s) if whole else cut.sums[row]
                if keys.size > 0:
                    best, column = -_INF, int64(-1)
                    for b in range(t, blocks, THREADS):
                        own = (sample - first_sample) * total + slot + b
                        other = int64(winners[own])
                        if other >= 0 and (column < 0 or goes_first(keys[own], other, best, column)):
                            best, column = keys[own], other
                    tree_r[t], at[t] = best, column
                    best_of(tree_r, at)
                    column = int64(column_of(at[0]))
                else:
                    identity = identity_of(call, at_row)
                    tag = uint64(GROUPED if whole else TRUNCATED)
                    winning_block(kept, slot, blocks, sample, identity, key, mask, tree_r, tree_s, at, tag)
                    block = int64(at[0])
                    count = min(columns - block * BLOCK, int64(BLOCK))
                    source = (logits, first, wide(cut.t[row]), int64(cut.last[row]))
                    _, _, x2, x3 = block_words(uint64(block), uint64(sample), identity, tag, key, mask)
                    word = (uint64(x2) << uint64(32)) | uint64(x3)
                    choose_column(source, line, block * BLOCK, count, high64, low64, word, sums, at, bottoms)
                    column = int64(at[0])
                x = float64(plain_value((logits, first), line, column))
                log_p = scalar.log_prob(x, high64, low64, root_r, root_s)
                cuda.syncthreads()
            if t == 0:
                place = at_row * all_samples + sample
                write_sample(at_row, place, sample, column, log_p, log_sum, is_bad, results)

    rows, nodes = matrix(form, layout), matrix(FORMS["float64"], "C")
    winners = vector(float64), vector(int64)
    each = rows, CALL, LIMITS
    return {
        "kept_nodes": (kept_nodes, (*each, CUT, nodes)),
        "kept_winners": (kept_winners, (*each, int64, int64, CUT, *winners)),
        "choose_kept": (choose_kept, (*each, int64, int64, int64, CUT, nodes, *winners, results(wide))),
    }
