"""Grouped sampling in two launches: the node of every block, then, for every sample of a row, block and column."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import GROUPED
from .._scalar.gumbel import exponential_float64
from .._scalar.limits import BLOCK
from .blocks import functions, scale_function
from .forms import FORMS, THREADS, block_items, device, matrix
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    INVALID,
    LEFT_OUT,
    address_of,
    block_of,
    blocks_in,
    choice_word,
    extents,
    flag,
    key_of,
    results,
    slots,
    status_of,
    temperature_of,
    words_at,
)
from .shared import LEVELS, Entries, block_scratch, choice_scratch, join_scratch

_INF = math.inf
_NAN = math.nan


class BlockSums(NamedTuple):
    """The partial sums of a row's blocks: `count` columns of `sums` from `first` on, exponents over mantissas."""

    sums: Any
    first: Any
    count: Any


class PartialSum(NamedTuple):
    """mantissa * 2^exponent; a mantissa NaN of a bad sum, 0 of an empty one."""

    exponent: Any
    mantissa: Any


class Outcome(NamedTuple):
    """A sample of a row, as it is written."""

    column: Any
    log_prob: Any
    logsumexp: Any
    is_bad: Any


@device
def join_blocks(blocks, scratch):
    """The sum of a row, over the dyadic tree of its blocks' BlockSums."""
    t = cuda.threadIdx.x
    sums, first, count_all = blocks
    tree_r, tree_s, stack_r, stack_s = scratch
    for start in range(0, count_all, THREADS):
        count = min(count_all - start, THREADS)
        cuda.syncthreads()
        if t < count:
            tree_r[t], tree_s[t] = sums[0, first + start + t], sums[1, first + start + t]
        h = 1
        while h < THREADS:
            cuda.syncthreads()
            if t % (2 * h) == 0 and t + h < count:
                tree_r[t], tree_s[t] = scalar.join(tree_r[t], tree_s[t], tree_r[t + h], tree_s[t + h])
            h *= 2
        cuda.syncthreads()
        if t == 0:
            # runs of THREADS blocks are the leaves of the upper tree: its open left siblings are on the stack
            r, s = tree_r[0], tree_s[0]
            level, index = 0, start // THREADS
            while (index >> level) & 1 != 0:
                r, s = scalar.join(stack_r[level], stack_s[level], r, s)
                level += 1
            stack_r[level], stack_s[level] = r, s
    if t == 0:
        runs = (count_all + THREADS - 1) // THREADS
        r, s, empty = 0.0, 0.0, True
        for level in range(LEVELS):
            if (runs >> level) & 1 != 0:
                if empty:
                    r, s, empty = stack_r[level], stack_s[level], False
                else:
                    r, s = scalar.join(stack_r[level], stack_s[level], r, s)
        stack_r[0], stack_s[0] = r, s
    cuda.syncthreads()
    return PartialSum(stack_r[0], stack_s[0])


@device
def winning_block(blocks, address, sample, tag, scratch, at):
    """at[0] becomes the block with the smallest E / S, -1 where every block is empty."""
    t = cuda.threadIdx.x
    keys, rs = scratch.exponents, scratch.mantissas
    best_key, best_r, best = _INF, 0.0, int64(-1)
    for b in range(t, blocks.count, THREADS):
        r, s = blocks.sums[0, blocks.first + b], blocks.sums[1, blocks.first + b]
        if s > 0.0:
            x0, x1, _, _ = words_at(address, b, sample, tag)
            value = exponential_float64(x0, x1) / s
            if best < 0 or scalar.beats(value, r, best_key, best_r):
                best_key, best_r, best = value, r, int64(b)
    keys[t], rs[t], at[t] = best_key, best_r, best
    h = THREADS >> 1
    while h > 0:
        cuda.syncthreads()
        if t < h and at[t + h] >= 0:
            other = scalar.beats(keys[t + h], rs[t + h], keys[t], rs[t])
            mine = scalar.beats(keys[t], rs[t], keys[t + h], rs[t + h])
            if at[t] < 0 or other or (not mine and at[t + h] < at[t]):
                keys[t], rs[t], at[t] = keys[t + h], rs[t + h], at[t + h]
        h >>= 1
    cuda.syncthreads()


@device
def write_sample(results, row, position, sample, outcome):
    """A sample's results, as far as they are wanted, and the first bad row."""
    if results.indices.size > 0:
        results.indices[position] = outcome.column
    if results.log_prob.size > 0:
        results.log_prob[position] = outcome.log_prob
    if sample == 0:
        if results.logsumexp.size > 0:
            results.logsumexp[row] = outcome.logsumexp
        if results.logsumexp64.size > 0:
            results.logsumexp64[row] = outcome.logsumexp
    if outcome.is_bad:
        flag(results.bad, row)


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, scale_of = form.wide, form.load, scale_function(form)
    scratch_of_block, scratch_of_choice = block_scratch(form), choice_scratch(form)
    inner = functions(form, layout)
    block_sum, choose_column, argmax = inner.block_sum, inner.choose_column, inner.argmax
    ragged, (number, extent), (slots_in, owner, room) = layout == "R", extents(layout), slots(layout)

    def block_nodes(logits, call, sums):
        """sums[:, slot] of every block."""
        scratch = scratch_of_block()
        for item in block_items(slots_in(logits, call)):
            row, block = owner(logits, call, item)
            columns = extent(logits, call, row)
            here = not ragged or (columns.count >= call.least and block * BLOCK < columns.count)
            if here and status_of(call, call.first_row + row) == DRAWN:
                scale = scale_of(temperature_of(call, call.first_row + row))
                r, s = block_sum(logits, block_of(columns, block), scale, scratch)
                if cuda.threadIdx.x == 0:
                    sums[0, item], sums[1, item] = r, s

    def choose(logits, call, samples, sums, results):
        """Write a row's samples, each by one CUDA block."""
        join = join_scratch()
        choice = scratch_of_choice()
        at = choice.extremes.largest
        key = key_of(call)
        for item in block_items(number(logits, call) * samples):
            row = item // samples
            at_row = call.first_row + row
            sample, position = item - row * samples, call.first_row * samples + item
            columns = extent(logits, call, row)
            if ragged and columns.count < call.least:
                continue
            slot, columns = room(logits, call, row, columns)
            status = status_of(call, at_row)
            if ragged and columns.count == 0 and status != LEFT_OUT:
                status = int64(INVALID)
            log_sum, log_p, column = _NAN, _NAN, int64(-1)
            is_bad = status == INVALID
            if status == GREEDY:
                column, log_sum, is_bad = argmax(logits, columns, Entries(join.exponents, at))
                log_p = _NAN if is_bad else 0.0
            elif status == DRAWN:
                blocks = BlockSums(sums, slot, blocks_in(columns.count))
                root = join_blocks(blocks, join)
                is_bad = not root.mantissa > 0.0
                if not is_bad:
                    scale, address = scale_of(temperature_of(call, at_row)), address_of(call, at_row, key)
                    log_sum = scalar.logsumexp(root.exponent, root.mantissa)
                    winning_block(blocks, address, sample, GROUPED, join, at)
                    block = int64(at[0])
                    word = choice_word(address, block, sample, GROUPED)
                    choose_column(logits, block_of(columns, block), scale, word, choice)
                    x = float64(wide(load(logits[uint64(columns.line), uint64(at[0])])))
                    column = int64(at[0]) - columns.start
                    log_p = scalar.log_prob(x, scale.high64, scale.low64, root.exponent, root.mantissa)
                    cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                write_sample(results, at_row, position, sample, Outcome(column, log_p, log_sum, is_bad))

    rows, sums = matrix(form, layout), matrix(FORMS["float64"], "C")
    return {
        "block_nodes": (block_nodes, (rows, CALL, sums)),
        "choose": (choose, (rows, CALL, int64, sums, results(wide))),
    }
