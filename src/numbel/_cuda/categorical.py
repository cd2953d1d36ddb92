"""Grouped sampling in two launches: the node of every block, then, for every sample of a row, block and column."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, block_words
from .._scalar.blocks import BLOCK
from .._scalar.gumbel import exponential_float64
from .blocks import functions
from .forms import FORMS, THREADS, device, matrix
from .rows import (
    CALL,
    DRAWN,
    GREEDY,
    INVALID,
    LEFT_OUT,
    extents,
    flag,
    identity_of,
    key_of,
    kind_of,
    results,
    slots,
    temperature_of,
)

_INF = math.inf
_NAN = math.nan
#: Deeper than any tree over 2^34 columns in runs of THREADS blocks.
_LEVELS = 32


@device
def join_blocks(nodes, first, blocks, tree_r, tree_s, stack_r, stack_s):
    """stack[0] becomes the root of the dyadic tree over a row's nodes."""
    t = cuda.threadIdx.x
    for start in range(0, blocks, THREADS):
        count = min(blocks - start, THREADS)
        cuda.syncthreads()
        if t < count:
            tree_r[t], tree_s[t] = nodes[0, first + start + t], nodes[1, first + start + t]
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
        runs = (blocks + THREADS - 1) // THREADS
        r, s, empty = 0.0, 0.0, True
        for level in range(_LEVELS):
            if (runs >> level) & 1 != 0:
                if empty:
                    r, s, empty = stack_r[level], stack_s[level], False
                else:
                    r, s = scalar.join(stack_r[level], stack_s[level], r, s)
        stack_r[0], stack_s[0] = r, s
    cuda.syncthreads()


@device
def winning_block(nodes, first, blocks, sample, identity, key, mask, keys, rs, at, tag=GROUPED):
    """at[0] becomes the block with the smallest E / S, -1 where every block is empty."""
    t = cuda.threadIdx.x
    best_key, best_r, best = _INF, 0.0, int64(-1)
    for b in range(t, blocks, THREADS):
        r, s = nodes[0, first + b], nodes[1, first + b]
        if s > 0.0:
            x0, x1, _, _ = block_words(uint64(b), uint64(sample), identity, uint64(tag), key, mask)
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
def write_sample(row, place, sample, column, log_p, log_sum, is_bad, results):
    """A sample's results, as far as they are wanted, and the first bad row."""
    if results.indices.size > 0:
        results.indices[place] = column
    if results.log_prob.size > 0:
        results.log_prob[place] = log_p
    if sample == 0:
        if results.logsumexp.size > 0:
            results.logsumexp[row] = log_sum
        if results.sums.size > 0:
            results.sums[row] = log_sum
    if is_bad:
        flag(results.bad, row)


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load = form.wide, form.load
    inner = functions(form, layout)
    block_node, choose_column, argmax = inner.block_node, inner.choose_column, inner.argmax
    ragged, (number, extent), (slots_in, owner, room) = layout == "R", extents(layout), slots(layout)

    def block_nodes(logits, call, nodes):
        """nodes[:, slot] of every block: r and S."""
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        for item in range(int64(cuda.blockIdx.x), slots_in(logits, call), int64(cuda.gridDim.x)):
            row, block = owner(logits, call, item)
            line, first, columns = extent(logits, call, row)
            here = not ragged or (block * BLOCK < columns and columns >= call.least)
            if here and kind_of(call, call.first_row + row) == DRAWN:
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                r, s = block_node(logits, line, first, block, columns, high, low, lanes, tops, bottoms)
                if cuda.threadIdx.x == 0:
                    nodes[0, item], nodes[1, item] = r, s

    def choose(logits, call, samples, nodes, results):
        """Write a row's samples, each by one CUDA block."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        at = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        sums = cuda.shared.array(128, uint64)
        t = cuda.threadIdx.x
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), number(logits, call) * samples, int64(cuda.gridDim.x)):
            row = item // samples
            at_row = call.first_row + row
            sample, place = item - row * samples, call.first_row * samples + item
            line, first, columns = extent(logits, call, row)
            if ragged and columns < call.least:
                continue
            slot, columns = room(logits, call, row, columns)
            blocks = (columns + BLOCK - 1) // BLOCK
            kind = kind_of(call, at_row)
            if ragged and columns == 0 and kind != LEFT_OUT:
                kind = int64(INVALID)
            log_sum, log_p, column, high64, low64 = _NAN, _NAN, int64(-1), 0.0, 0.0
            is_bad = kind == INVALID
            if kind == GREEDY:
                column, log_sum, is_bad = argmax(logits, line, first, columns, tree_r, at)
                log_p = _NAN if is_bad else 0.0
            elif kind == DRAWN:
                high64, low64 = scalar.scale(temperature_of(call, at_row))
                join_blocks(nodes, slot, blocks, tree_r, tree_s, stack_r, stack_s)
                root_r, root_s = stack_r[0], stack_s[0]
                is_bad = not root_s > 0.0
                if not is_bad:
                    identity = identity_of(call, at_row)
                    log_sum = scalar.logsumexp(root_r, root_s)
                    winning_block(nodes, slot, blocks, sample, identity, key, mask, tree_r, tree_s, at)
                    block = int64(at[0])
                    count = min(columns - block * BLOCK, int64(BLOCK))
                    start = first + block * BLOCK
                    _, _, x2, x3 = block_words(uint64(block), uint64(sample), identity, uint64(GROUPED), key, mask)
                    word = (uint64(x2) << uint64(32)) | uint64(x3)
                    choose_column(logits, line, start, count, high64, low64, word, sums, at, bottoms)
                    x = float64(wide(load(logits[uint64(line), uint64(at[0])])))
                    column = int64(at[0]) - first
                    log_p = scalar.log_prob(x, high64, low64, root_r, root_s)
                    cuda.syncthreads()
            if t == 0:
                write_sample(at_row, place, sample, column, log_p, log_sum, is_bad, results)

    rows, nodes = matrix(form, layout), matrix(FORMS["float64"], "C")
    return {
        "block_nodes": (block_nodes, (rows, CALL, nodes)),
        "choose": (choose, (rows, CALL, int64, nodes, results(wide))),
    }
