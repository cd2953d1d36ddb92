"""Logsumexp, log-probabilities of given categories and entropy: from the nodes of blocks, a CUDA block for each row."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint64

from .._scalar import blocks as scalar
from .._scalar.blocks import BLOCK, LANES
from .._scalar.elementary import log_float64
from .._scalar.entropy import COUNTED, LONE, entropy_of_node, join_entropy, terms_float32, terms_float64
from .blocks import functions, halve
from .categorical import join_blocks
from .forms import FORMS, THREADS, device, matrix, vector
from .rows import CALL, DRAWN, GREEDY, flag, kind_of, temperature_of

_INF = math.inf
_NAN = math.nan
_LEVELS = 32


@device
def join_entropies(nodes, first, blocks, high, low, tree, stack):
    """stack[:, 0] becomes the root (m, V, A) of the dyadic tree over a row's nodes: `join_blocks` for entropy."""
    t = cuda.threadIdx.x
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
        for level in range(_LEVELS):
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
    inner = functions(form)
    block_max, argmax = inner.block_max, inner.argmax
    terms = terms_float64 if wide is float64 else terms_float32

    @device
    def block_terms(logits, row, start, count, largest, high, low, without, lanes, weighed):
        """The sum of 2^z over a block, `without` those of z = 0, how many of a thread's those are; z 2^z in lanes."""
        cuda.syncthreads()
        width, often = min(count, int64(LANES)), int64(0)
        for lane in range(cuda.threadIdx.x, width, THREADS):
            of_lane, of_products = wide(zero), wide(zero)
            for i in range(lane, count, LANES):
                d = wide(wide(load(logits[uint64(row), uint64(start + i)])) - largest)
                w, product = terms(d, high, low)
                if without and not d < zero:
                    often += 1
                else:
                    of_lane = wide(of_lane + wide(w))
                of_products = wide(of_products + wide(product))
            lanes[lane], weighed[lane] = of_lane, of_products
        halve(lanes, width)
        return wide(lanes[0]), often

    def row_sums(logits, call, nodes, out, bad):
        """Logsumexp of every row, -inf where all logits are."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        at = cuda.shared.array(128, int64)
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        for row in range(int64(cuda.blockIdx.x), rows, int64(cuda.gridDim.x)):
            at_row = call.first_row + row
            kind = kind_of(call, at_row)
            value = _NAN
            if kind == GREEDY:
                _, value, _ = argmax(logits, row, int64(0), columns, tree_r, at)
                if tree_r[0] == -_INF:
                    value = -_INF
            elif kind == DRAWN:
                join_blocks(nodes, row * blocks, blocks, tree_r, tree_s, stack_r, stack_s)
                if stack_s[0] >= 0.0:
                    value = scalar.logsumexp(stack_r[0], stack_s[0]) if stack_s[0] > 0.0 else -_INF
            if cuda.threadIdx.x == 0:
                out[at_row] = value
                if value != value:
                    flag(bad, at_row)
            cuda.syncthreads()

    def given(logits, call, each, index, nodes, out, bad):
        """Log-probabilities of `each` categories of every row, BLOCK of them by a CUDA block."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        at = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        runs = max((each + BLOCK - 1) // BLOCK, int64(1))
        for item in range(int64(cuda.blockIdx.x), rows * runs, int64(cuda.gridDim.x)):
            row = item // runs
            at_row = call.first_row + row
            kind = kind_of(call, at_row)
            top, is_bad = int64(-1), kind != GREEDY and kind != DRAWN
            r, log_total, high, low = 0.0, 0.0, 0.0, 0.0
            if kind == GREEDY:
                top, _, is_bad = argmax(logits, row, int64(0), columns, tree_r, at)
            elif kind == DRAWN:
                high, low = scalar.scale(temperature_of(call, at_row))
                join_blocks(nodes, row * blocks, blocks, tree_r, tree_s, stack_r, stack_s)
                r, is_bad = stack_r[0], not stack_s[0] > 0.0
                log_total = log_float64(stack_s[0])
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
                    if kind == GREEDY:
                        value = 0.0 if column == top else -_INF
                    else:
                        value = scalar.log_prob_beside(x, high, low, r, log_total) if x > -_INF else -_INF
                out[at_row * each + i] = value
            cuda.syncthreads()

    def entropy_blocks(logits, call, nodes, out, bad):
        """(m, V, A) of every block, and the entropy of rows of one block."""
        lanes = cuda.shared.array(512, wide)
        weighed = cuda.shared.array(512, wide)
        tops = cuda.shared.array(128, int64)
        bottoms = cuda.shared.array(128, int64)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        for item in range(int64(cuda.blockIdx.x), rows * blocks, int64(cuda.gridDim.x)):
            row = item // blocks
            if kind_of(call, call.first_row + row) == DRAWN:
                start = (item - row * blocks) * BLOCK
                count = min(columns - start, int64(BLOCK))
                high64, low64 = scalar.scale(temperature_of(call, call.first_row + row))
                high, low = scalar.narrow(zero, high64, low64)
                high, low = wide(high), wide(low)
                largest, nan = block_max(logits, row, start, count, tops, bottoms)
                m, v, a = 0.0, _NAN, 0.0
                if largest == -_INF and not nan:
                    m, v = -_INF, 0.0
                elif largest < _INF and not nan:
                    # short rows, or where the largest is alone: its weight, 1, would cost the others' sum their digits
                    without = columns <= COUNTED
                    total, often = block_terms(logits, row, start, count, largest, high, low, without, lanes, weighed)
                    if not (without or total >= LONE):
                        without = True
                        total, _ = block_terms(logits, row, start, count, largest, high, low, without, lanes, weighed)
                    halve(weighed, min(count, int64(LANES)))
                    tops[t] = often
                    cuda.syncthreads()
                    m, v, a = float64(largest), float64(total), float64(weighed[0])
                    if not without:
                        v -= 1.0
                    elif columns <= COUNTED:
                        often = int64(0)
                        for i in range(THREADS):
                            often += tops[i]
                        v += float64(often) - 1.0
                    cuda.syncthreads()
                if t == 0:
                    if blocks == 1:
                        write_entropy(out, bad, call.first_row + row, m, v, a)
                    else:
                        nodes[0, item], nodes[1, item], nodes[2, item] = m, v, a

    def entropy_rows(logits, call, nodes, out, bad):
        """The entropy of rows of several blocks, and of those that are not drawn from: 0, or NaN."""
        tree = cuda.shared.array((3, 128), float64)
        stack = cuda.shared.array((3, 32), float64)
        keys = cuda.shared.array(128, float64)
        at = cuda.shared.array(128, int64)
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        blocks = (columns + BLOCK - 1) // BLOCK
        for row in range(int64(cuda.blockIdx.x), rows, int64(cuda.gridDim.x)):
            at_row = call.first_row + row
            kind = kind_of(call, at_row)
            if kind == DRAWN:
                if blocks > 1:
                    high, low = scalar.scale(temperature_of(call, at_row))
                    join_entropies(nodes, row * blocks, blocks, high, low, tree, stack)
                    if cuda.threadIdx.x == 0:
                        write_entropy(out, bad, at_row, stack[0, 0], stack[1, 0], stack[2, 0])
            else:
                is_bad = True
                if kind == GREEDY:
                    _, _, is_bad = argmax(logits, row, int64(0), columns, keys, at)
                if cuda.threadIdx.x == 0:
                    out[at_row] = _NAN if is_bad else 0.0
                    if is_bad:
                        flag(bad, at_row)
            cuda.syncthreads()

    rows, nodes, bad = matrix(form, layout), matrix(FORMS["float64"], "C"), vector(int64)
    each = (rows, CALL, nodes, vector(wide), bad)
    return {
        "row_sums": (row_sums, each),
        "given": (given, (rows, CALL, int64, bad, nodes, vector(wide), bad)),
        "entropy_blocks": (entropy_blocks, each),
        "entropy_rows": (entropy_rows, each),
    }
