"""Counts of n draws in launches over the dyadic tree of masses: of every block, of a row over its blocks, of a block.

Trees lie in memory as heaps, children of node i at 2 i and 2 i + 1. A node holds the bits of its mass until its parent
is split, and then its count. The lowest nodes of a block are pairs of columns, whose masses are made again at the end:
so the tree of a block takes 32 KB.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint64

from .._scalar import blocks as scalar
from .._scalar.binomial import share
from .._scalar.bits import bits_of, float_of
from .._scalar.limits import BLOCK
from .._scalar.table import probability
from .forms import FORMS, THREADS, block_items, device, matrix, vector
from .roots import LAW, ROOTS
from .rows import CALL, Columns, address_of, extents, flag, key_of, temperature_of

MOST = 1 << 62


class Trials(NamedTuple):
    """How many draws each row has, unless `of_rows` has elements."""

    number: Any
    of_rows: Any


class Trees(NamedTuple):
    """The trees of rows over their blocks: `leaves`, a power of two, for `blocks` blocks of masses of each row."""

    blocks: Any
    leaves: Any
    masses: Any
    heap: Any


class Law(NamedTuple):
    """What turns a logit into a mass: the scale, the exponent of the row's sum, and one over its mantissa."""

    high: Any
    low: Any
    exponent: Any
    factor: Any


_INTEGERS = vector(int64)
TRIALS = types.NamedTuple([int64, _INTEGERS], Trials)
TREES = types.NamedTuple([int64, int64, vector(float64), _INTEGERS], Trees)


@device
def trials_of(trials, row):
    """How many draws a row has."""
    return int64(trials.of_rows[row]) if trials.of_rows.size > 0 else int64(trials.number)


@device
def law_of(call, roots, row):
    """The law of a row."""
    high, low = scalar.scale(temperature_of(call, call.first_row + row))
    return Law(high, low, roots.sums[0, uint64(row)], 1.0 / roots.sums[1, uint64(row)])


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


@device
def share_at(address, given, left, right, column):
    """How many of `given` draws fall into the left one of two masses, by the words of a column."""
    return int64(share(given, left, right, uint64(column), address.row_id, address.key, address.mask))


def split_rows(rows, call, trials, roots, trees):
    """A row's draws over its blocks: the lowest of its 2 `leaves` nodes, by a CUDA block for each row."""
    key = key_of(call)
    t, tree, leaves = cuda.threadIdx.x, trees.heap, trees.leaves
    for row in block_items(rows):
        drawn = trials_of(trials, call.first_row + row)
        base, address = row * 2 * leaves, address_of(call, call.first_row + row, key)
        if roots.fixed[uint64(row)] == LAW and drawn >= 0 and drawn <= MOST:
            for b in range(t, leaves, THREADS):
                mass = int64(0)
                if b < trees.blocks:
                    mass = bits_of(trees.masses[uint64(row * trees.blocks + b)])
                tree[uint64(base + leaves + b)] = mass
            add_up(tree, base, leaves)
            if t == 0:
                tree[uint64(base + 1)] = drawn
            nodes, step = int64(1), leaves * BLOCK
            while nodes < leaves:
                cuda.syncthreads()
                for i in range(t, nodes, THREADS):
                    below = base + 2 * (nodes + i)
                    left, right = float_of(int64(tree[uint64(below)])), float_of(int64(tree[uint64(below + 1)]))
                    given = int64(tree[uint64(base + nodes + i)])
                    k = share_at(address, given, left, right, i * step + (step >> 1))
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
    def mass_of(logits, line, column, law):
        x = float64(wide(load(logits[uint64(line), uint64(column)])))
        return float64(probability(x, law.high, law.low, law.exponent, law.factor))

    @device
    def plant(logits, columns, law, pairs, tree):
        """The tree of the masses of some columns."""
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, pairs, THREADS):
            left, right = 0.0, 0.0
            if 2 * i < columns.count:
                left = mass_of(logits, columns.line, columns.start + 2 * i, law)
            if 2 * i + 1 < columns.count:
                right = mass_of(logits, columns.line, columns.start + 2 * i + 1, law)
            tree[uint64(pairs + i)] = bits_of(float64(left + right))
        add_up(tree, int64(0), pairs)

    def block_masses(logits, call, roots, trees):
        """The mass of every block of rows of more than one; 0 beyond a row."""
        tree = cuda.shared.array(BLOCK, int64)
        for item in block_items(number(logits, call) * trees.blocks):
            row = item // trees.blocks
            start = (item - row * trees.blocks) * BLOCK
            columns = extent(logits, call, row)
            if roots.fixed[uint64(row)] == LAW:
                law = law_of(call, roots, row)
                count = min(columns.count - start, int64(BLOCK))
                block = Columns(columns.line, columns.start + start, count)
                plant(logits, block, law, int64(BLOCK // 2), tree)
                if cuda.threadIdx.x == 0:
                    trees.masses[uint64(item)] = float_of(int64(tree[1]))
                cuda.syncthreads()

    def count(logits, call, trials, roots, trees, out, bad):
        """Counts of every block; what a block has to give is in the row's tree, or n itself where it is alone."""
        own = cuda.shared.array(BLOCK, int64)
        t, leaves = cuda.threadIdx.x, trees.leaves
        key = key_of(call)
        for item in block_items(number(logits, call) * trees.blocks):
            row = item // trees.blocks
            block = item - row * trees.blocks
            start = block * BLOCK
            columns = extent(logits, call, row)
            line, first = columns.line, columns.start
            end, only = min(columns.count, start + BLOCK), int64(roots.fixed[uint64(row)])
            drawn = trials_of(trials, call.first_row + row)
            if only != -1 and not 0 <= drawn <= MOST:
                only = int64(-1)
                if t == 0:
                    flag(bad, call.first_row + row)
            mine = drawn
            if only == LAW and leaves > 1:
                mine = int64(trees.heap[uint64(row * 2 * leaves + leaves + block)])
            if only != LAW or mine == 0:
                for c in range(start + t, end, THREADS):
                    out[uint64(line), uint64(first + c)] = only if only == -1 else mine if only == c else int64(0)
            elif start < columns.count:
                law, address = law_of(call, roots, row), address_of(call, call.first_row + row, key)
                pairs = int64(1)
                while 2 * pairs < min(columns.count, int64(BLOCK)):
                    pairs *= 2
                plant(logits, Columns(line, first + start, end - start), law, pairs, own)
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
                            left = mass_of(logits, line, first + c, law)
                            if c + 1 < end:
                                right = mass_of(logits, line, first + c + 1, law)
                        k = share_at(address, given, left, right, c + (step >> 1))
                        if nodes < pairs:
                            own[uint64(2 * (nodes + i))], own[uint64(2 * (nodes + i) + 1)] = k, given - k
                        else:
                            if c < end:
                                out[uint64(line), uint64(first + c)] = k
                            if c + 1 < end:
                                out[uint64(line), uint64(first + c + 1)] = given - k
                    nodes, step = nodes << 1, step >> 1
                cuda.syncthreads()

    rows = matrix(form, layout)
    counts = types.Array(int64, 2, "A" if layout == "R" else layout)
    return {
        "block_masses": (block_masses, (rows, CALL, ROOTS, TREES)),
        "split_rows": (split_rows, (int64, CALL, TRIALS, ROOTS, TREES)),
        "count": (count, (rows, CALL, TRIALS, ROOTS, TREES, counts, _INTEGERS)),
    }
