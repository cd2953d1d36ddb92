"""Logsumexp, log-probabilities of given categories and entropy: from the nodes of blocks, a CUDA block for each row."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.blocks import LANES
from .._scalar.elementary import log_float64
from .._scalar.entropy import LONE, entropy_of_node, join_entropy
from .._scalar.limits import BLOCK, COUNTED
from .blocks import functions, halve, scale_function
from .categorical import BlockSums, join_blocks
from .forms import FORMS, THREADS, block_items, device, matrix, vector
from .rows import CALL, DRAWN, GREEDY, Columns, blocks_in, flag, status_of, temperature_of
from .shared import LEVELS, PER_THREAD, Entries, block_scratch, join_scratch, thread_entries

_INF = math.inf
_NAN = math.nan


@device
def join_entropies(row, high, low, tree, stack):
    """stack[:, 0] becomes the root (m, V, A) of the dyadic tree over a row's blocks: `join_blocks` for entropy."""
    t = cuda.threadIdx.x
    nodes, first, blocks = row
    for start in range(0, blocks, THREADS):
        count = min(blocks - start, THREADS)
        cuda.syncthreads()
        if t < count:
            for i in range(3):
                tree[i, t] = nodes[i, first + start + t]
        h = 1
        while h < THREADS:
            cuda.syncthreads()
            if t % (2 * h) == 0 and t + h < count:
                tree[0, t], tree[1, t], tree[2, t] = join_entropy(
                    tree[0, t], tree[1, t], tree[2, t], tree[0, t + h], tree[1, t + h], tree[2, t + h], high, low
                )
            h *= 2
        cuda.syncthreads()
        if t == 0:
            m, v, a = tree[0, 0], tree[1, 0], tree[2, 0]
            level, index = 0, start // THREADS
            while (index >> level) & 1 != 0:
                m, v, a = join_entropy(stack[0, level], stack[1, level], stack[2, level], m, v, a, high, low)
                level += 1
            stack[0, level], stack[1, level], stack[2, level] = m, v, a
    if t == 0:
        runs = (blocks + THREADS - 1) // THREADS
        m, v, a = -_INF, 0.0, 0.0
        for level in range(LEVELS):
            if (runs >> level) & 1 != 0:
                m, v, a = join_entropy(stack[0, level], stack[1, level], stack[2, level], m, v, a, high, low)
        stack[0, 0], stack[1, 0], stack[2, 0] = m, v, a
    cuda.syncthreads()


@device
def write_entropy(out, bad, row, m, v, a):
    """A row's entropy from its node, by one thread."""
    good = v == v and m > -_INF
    out[row] = entropy_of_node(v, a) if good else _NAN
    if not good:
        flag(bad, row)


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, zero = form.wide, form.load, form.zero
    inner, scale_of, scratch_of_block = functions(form), scale_function(form), block_scratch(form)
    block_max, argmax, terms = inner.block_max, inner.argmax, form.arithmetic.entropy_terms

    @device
    def block_terms(logits, columns, largest, scale, without, lanes):
        """A block's sum of 2^z, `without` those of z = 0, and how many a thread has of those; z 2^z into lanes[1]."""
        of_weights, of_products = lanes
        cuda.syncthreads()
        width, often = min(columns.count, int64(LANES)), int64(0)
        for lane in range(cuda.threadIdx.x, width, THREADS):
            of_lane, products_of_lane = wide(zero), wide(zero)
            for i in range(lane, columns.count, LANES):
                d = wide(wide(load(logits[uint64(columns.line), uint64(columns.start + i)])) - largest)
                w, product = terms(d, scale.high, scale.low)
                if without and not d < zero:
                    often += 1
                else:
                    of_lane = wide(of_lane + wide(w))
                products_of_lane = wide(products_of_lane + wide(product))
            of_weights[lane], of_products[lane] = of_lane, products_of_lane
        halve(of_weights, width)
        return wide(of_weights[0]), often

    def row_sums(logits, call, sums, out, bad):
        """Logsumexp of every row, -inf where all logits are."""
        join = join_scratch()
        at = cuda.shared.array(PER_THREAD, int64)
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        for row in block_items(rows):
            at_row = call.first_row + row
            status = status_of(call, at_row)
            value = _NAN
            if status == GREEDY:
                _, value, _ = argmax(logits, Columns(row, int64(0), columns), Entries(join.exponents, at))
                if join.exponents[0] == -_INF:
                    value = -_INF
            elif status == DRAWN:
                root = join_blocks(BlockSums(sums, row * blocks, blocks), join)
                if root.mantissa >= 0.0:
                    value = scalar.logsumexp(root.exponent, root.mantissa) if root.mantissa > 0.0 else -_INF
            if cuda.threadIdx.x == 0:
                out[at_row] = value
                if value != value:
                    flag(bad, at_row)
            cuda.syncthreads()

    def given(logits, call, each, index, sums, out, bad):
        """Log-probabilities of `each` categories of every row, BLOCK of them by a CUDA block."""
        join = join_scratch()
        at = cuda.shared.array(PER_THREAD, int64)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        runs = max(blocks_in(each), int64(1))
        for item in block_items(rows * runs):
            row = item // runs
            at_row = call.first_row + row
            status = status_of(call, at_row)
            top, is_bad = int64(-1), status != GREEDY and status != DRAWN
            r, log_total, high, low = 0.0, 0.0, 0.0, 0.0
            if status == GREEDY:
                top, _, is_bad = argmax(logits, Columns(row, int64(0), columns), Entries(join.exponents, at))
            elif status == DRAWN:
                high, low = scalar.scale(temperature_of(call, at_row))
                root = join_blocks(BlockSums(sums, row * blocks, blocks), join)
                r, is_bad = root.exponent, not root.mantissa > 0.0
                log_total = log_float64(root.mantissa)
            if is_bad and t == 0:
                flag(bad, at_row)
            start = (item - row * runs) * BLOCK
            for i in range(start + t, min(start + BLOCK, each), THREADS):
                column = index[at_row * each + i]
                value = _NAN
                if column < 0 or column >= columns:
                    flag(bad, at_row)
                elif not is_bad:
                    x = float64(wide(load(logits[uint64(row), uint64(column)])))
                    if status == GREEDY:
                        value = 0.0 if column == top else -_INF
                    else:
                        value = scalar.log_prob_beside(x, high, low, r, log_total) if x > -_INF else -_INF
                out[at_row * each + i] = value
            cuda.syncthreads()

    def entropy_blocks(logits, call, nodes, out, bad):
        """(m, V, A) of every block, and the entropy of rows of one block."""
        scratch = scratch_of_block()
        weighed = cuda.shared.array(LANES, wide)
        counts, lanes = scratch.extremes.largest, (scratch.lanes, weighed)
        t = cuda.threadIdx.x
        rows, of_row = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(of_row)
        for item in block_items(rows * blocks):
            row = item // blocks
            if status_of(call, call.first_row + row) == DRAWN:
                start = (item - row * blocks) * BLOCK
                columns = Columns(row, start, min(of_row - start, int64(BLOCK)))
                scale = scale_of(temperature_of(call, call.first_row + row))
                largest, nan = block_max(logits, columns, scratch.extremes)
                m, v, a = 0.0, _NAN, 0.0
                if largest == -_INF and not nan:
                    m, v = -_INF, 0.0
                elif largest < _INF and not nan:
                    # short rows, or where the largest is alone: its weight, 1, would cost the others' sum their digits
                    without = of_row <= COUNTED
                    total, often = block_terms(logits, columns, largest, scale, without, lanes)
                    if not (without or total >= LONE):
                        without = True
                        total, _ = block_terms(logits, columns, largest, scale, without, lanes)
                    halve(weighed, min(columns.count, int64(LANES)))
                    counts[t] = often
                    cuda.syncthreads()
                    m, v, a = float64(largest), float64(total), float64(weighed[0])
                    if not without:
                        v -= 1.0
                    elif of_row <= COUNTED:
                        often = int64(0)
                        for i in range(THREADS):
                            often += counts[i]
                        v += float64(often) - 1.0
                    cuda.syncthreads()
                if t == 0:
                    if blocks == 1:
                        write_entropy(out, bad, call.first_row + row, m, v, a)
                    else:
                        nodes[0, item], nodes[1, item], nodes[2, item] = m, v, a

    def entropy_rows(logits, call, nodes, out, bad):
        """The entropy of rows of several blocks, and of those that are not drawn from: 0, or NaN."""
        tree = cuda.shared.array((3, PER_THREAD), float64)
        stack = cuda.shared.array((3, LEVELS), float64)
        entries = thread_entries()
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = blocks_in(columns)
        for row in block_items(rows):
            at_row = call.first_row + row
            status = status_of(call, at_row)
            if status == DRAWN:
                if blocks > 1:
                    high, low = scalar.scale(temperature_of(call, at_row))
                    join_entropies(BlockSums(nodes, row * blocks, blocks), high, low, tree, stack)
                    if cuda.threadIdx.x == 0:
                        write_entropy(out, bad, at_row, stack[0, 0], stack[1, 0], stack[2, 0])
            else:
                is_bad = True
                if status == GREEDY:
                    _, _, is_bad = argmax(logits, Columns(row, int64(0), columns), entries)
                if cuda.threadIdx.x == 0:
                    out[at_row] = _NAN if is_bad else 0.0
                    if is_bad:
                        flag(bad, at_row)
            cuda.syncthreads()

    rows, sums, bad = matrix(form, layout), matrix(FORMS["float64"], "C"), vector(int64)
    each = (rows, CALL, sums, vector(wide), bad)
    return {
        "row_sums": (row_sums, each),
        "given": (given, (rows, CALL, int64, bad, sums, vector(wide), bad)),
        "entropy_blocks": (entropy_blocks, each),
        "entropy_rows": (entropy_rows, each),
    }
