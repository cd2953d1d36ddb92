"""Counts of n draws in launches over the dyadic tree of masses: of every block, of a row over its blocks, of a block.

Trees lie in memory as heaps, children of node i at 2 i and 2 i + 1. A node holds the bits of its mass until its parent
is split, and then its count. The lowest nodes of a block are pairs of columns, whose masses are made again at the end:
so the tree of a block takes 32 KB.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import cuda, float64, int64, types, uint64

from .._scalar import blocks as scalar
from .._scalar.binomial import share
from .._scalar.bits import bits_of, float_of
from .._scalar.blocks import BLOCK
from .._scalar.table import probability
from .forms import FORMS, THREADS, device, matrix, vector
from .roots import LAW
from .rows import CALL, extents, flag, identity_of, key_of, temperature_of

MOST = 1 << 62


@device
def trials_of(trials, n, row):
    """How many draws a row has."""
    return int64(trials[row]) if trials.size > 0 else int64(n)


@device
def add_up(tree, base, leaves):
    """Masses of the nodes above `leaves`, a power of two."""
    nodes = leaves >> 1
    while nodes > 0:
        cuda.syncthreads()
        for i in range(nodes + cuda.threadIdx.x, 2 * nodes, THREADS):
            left, right = float_of(int64(tree[uint64(base + 2 * i)])), float_of(int64(tree[uint64(base + 2 * i + 1)]))
            tree[uint64(base + i)] = bits_of(float64(left + right))
        nodes >>= 1
    cuda.syncthreads()


def split_rows(rows, call, blocks, tops, n, trials, fixed, masses, tree):
    """A row's draws over its blocks: the lowest of its 2 `tops` nodes, by a CUDA block for each row."""
    key, mask = key_of(call)
    t = cuda.threadIdx.x
    for row in range(int64(cuda.blockIdx.x), rows, int64(cuda.gridDim.x)):
        drawn = trials_of(trials, n, call.first_row + row)
        base, identity = row * 2 * tops, identity_of(call, call.first_row + row)
        if fixed[uint64(row)] == LAW and drawn >= 0 and drawn <= MOST:
            for b in range(t, tops, THREADS):
                tree[uint64(base + tops + b)] = bits_of(masses[uint64(row * blocks + b)]) if b < blocks else int64(0)
            add_up(tree, base, tops)
            if t == 0:
                tree[uint64(base + 1)] = drawn
            nodes, step = int64(1), tops * BLOCK
            while nodes < tops:
                cuda.syncthreads()
                for i in range(t, nodes, THREADS):
                    below = base + 2 * (nodes + i)
                    left, right = float_of(int64(tree[uint64(below)])), float_of(int64(tree[uint64(below + 1)]))
                    given = int64(tree[uint64(base + nodes + i)])
                    k = int64(share(given, left, right, uint64(i * step + (step >> 1)), identity, key, mask))
                    tree[uint64(below)], tree[uint64(below + 1)] = k, given - k
                nodes, step = nodes << 1, step >> 1
            cuda.syncthreads()


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load = form.wide, form.load
    number, extent = extents(layout)

    @device
    def mass_of(logits, line, column, high, low, r, factor):
        x = float64(wide(load(logits[uint64(line), uint64(column)])))
        return float64(probability(x, high, low, r, factor))

    @device
    def plant(logits, line, first, count, high, low, r, factor, pairs, tree):
        """The tree of the masses of `count` columns from `first` on."""
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, pairs, THREADS):
            left, right = 0.0, 0.0
            if 2 * i < count:
                left = mass_of(logits, line, first + 2 * i, high, low, r, factor)
            if 2 * i + 1 < count:
                right = mass_of(logits, line, first + 2 * i + 1, high, low, r, factor)
            tree[uint64(pairs + i)] = bits_of(float64(left + right))
        add_up(tree, int64(0), pairs)

    def block_masses(logits, call, blocks, roots, fixed, masses):
        """The mass of every block of rows of more than one; 0 beyond a row."""
        tree = cuda.shared.array(4096, int64)
        for item in range(int64(cuda.blockIdx.x), number(logits, call) * blocks, int64(cuda.gridDim.x)):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            line, first, columns = extent(logits, call, row)
            if fixed[uint64(row)] == LAW:
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                r, factor = roots[0, uint64(row)], 1.0 / roots[1, uint64(row)]
                count = min(columns - start, int64(BLOCK))
                plant(logits, line, first + start, count, high, low, r, factor, int64(BLOCK // 2), tree)
                if cuda.threadIdx.x == 0:
                    masses[uint64(item)] = float_of(int64(tree[1]))
                cuda.syncthreads()

    def count(logits, call, blocks, tops, n, trials, roots, fixed, tree, out, bad):
        """Counts of every block; what a block has to give is in the row's `tree`, or n itself where it is alone."""
        own = cuda.shared.array(4096, int64)
        t = cuda.threadIdx.x
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), number(logits, call) * blocks, int64(cuda.gridDim.x)):
            row = item // blocks
            block = item - row * blocks
            start = block * BLOCK
            line, first, columns = extent(logits, call, row)
            end, only = min(columns, start + BLOCK), int64(fixed[uint64(row)])
            drawn = trials_of(trials, n, call.first_row + row)
            if only != -1 and not 0 <= drawn <= MOST:
                only = int64(-1)
                if t == 0:
                    flag(bad, call.first_row + row)
            mine = int64(tree[uint64(row * 2 * tops + tops + block)]) if only == LAW and tops > 1 else drawn
            if only != LAW or mine == 0:
                for c in range(start + t, end, THREADS):
                    out[uint64(line), uint64(first + c)] = only if only == -1 else mine if only == c else int64(0)
            elif start < columns:
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                r, factor = roots[0, uint64(row)], 1.0 / roots[1, uint64(row)]
                identity = identity_of(call, call.first_row + row)
                pairs = int64(1)
                while 2 * pairs < min(columns, int64(BLOCK)):
                    pairs *= 2
                plant(logits, line, first + start, end - start, high, low, r, factor, pairs, own)
                if t == 0:
                    own[1] = mine
                nodes, step = int64(1), 2 * pairs
                while nodes <= pairs:
                    cuda.syncthreads()
                    for i in range(t, nodes, THREADS):
                        c, given = start + i * step, int64(own[uint64(nodes + i)])
                        left, right = 0.0, 0.0
                        if nodes < pairs:
                            left = float_of(int64(own[uint64(2 * (nodes + i))]))
                            right = float_of(int64(own[uint64(2 * (nodes + i) + 1)]))
                        elif given > 0:
                            left = mass_of(logits, line, first + c, high, low, r, factor)
                            if c + 1 < end:
                                right = mass_of(logits, line, first + c + 1, high, low, r, factor)
                        k = int64(share(given, left, right, uint64(c + (step >> 1)), identity, key, mask))
                        if nodes < pairs:
                            own[uint64(2 * (nodes + i))], own[uint64(2 * (nodes + i) + 1)] = k, given - k
                        else:
                            if c < end:
                                out[uint64(line), uint64(first + c)] = k
                            if c + 1 < end:
                                out[uint64(line), uint64(first + c + 1)] = given - k
                    nodes, step = nodes << 1, step >> 1
                cuda.syncthreads()

    rows, roots, integers = matrix(form, layout), matrix(FORMS["float64"], "C"), vector(int64)
    counts = types.Array(int64, 2, "A" if layout == "R" else layout)
    return {
        "block_masses": (block_masses, (rows, CALL, int64, roots, integers, vector(float64))),
        "split_rows": (
            split_rows,
            (int64, CALL, int64, int64, int64, integers, integers, vector(float64), integers),
        ),
        "count": (
            count,
            (rows, CALL, int64, int64, int64, integers, roots, integers, integers, counts, integers),
        ),
    }
