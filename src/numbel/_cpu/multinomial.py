"""Counts of n draws by splitting n over the dyadic tree of masses, the columns' within the blocks'.

A node covers a power of two of columns, or of blocks, and is known by the column before which it splits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import binomial as scalar
from .._scalar.bits import product
from .._scalar.blocks import scale
from .._scalar.limits import BLOCK
from .._scalar.table import probability
from .blocks import count_blocks, row_stream
from .categorical import segment_blocks
from .memory import load, store
from .records import row_address, row_and_segment, row_temperature
from .relaxed import is_last_segment, nodes_of_row
from .runs import block_run, read_run
from .scratch import empty, fill, lacks_scratch, open_scratch
from .signatures import Counting
from .workers import each_item

_I = np.int64(0)


class _Tree(NamedTuple):
    """Masses of nodes, and their counts, level by level: the leaves first."""

    mass: Any
    counts: Any


class _Level(NamedTuple):
    """Nodes of a level: where they and the level above begin, and the columns before which they split."""

    below: Any
    above: Any
    nodes: Any
    split: Any  # of the first
    step: Any  # to the next


class _Draws(NamedTuple):
    """A pair of words for each node, what its smaller side gets, and whether that is sure."""

    firsts: Any
    seconds: Any
    chosen: Any
    sure: Any


class _Open(NamedTuple):
    """The nodes that are not sure, side by side."""

    which: Any
    splits: Any
    trials: Any
    p: Any
    q: Any
    verdicts: Any
    t: Any


class _Factors(NamedTuple):
    """What probabilities of a row's columns are made from."""

    high64: Any
    low64: Any
    r: Any
    factor: Any


@njit
def _sums(mass, leaves):
    """mass[leaves ...]: sums of pairs, level by level; the whole sum."""
    at, size = uint64(0), uint64(leaves)
    while size > uint64(1):
        above = at + size
        size >>= uint64(1)
        for i in range(size):
            mass[above + i] = mass[at + uint64(2) * i] + mass[at + uint64(2) * i + uint64(1)]
        at = above
    return mass[at]


@inlined
def _sides(tree, level, i):
    """Masses of the two sides of a node."""
    at = level.below + uint64(2) * i
    return tree.mass[at], tree.mass[at + uint64(1)]


@njit
def _propose(tree, level, draws):
    """What most nodes of a level give their smaller side, and which they are."""
    for i in range(uint64(level.nodes)):
        n = tree.counts[level.above + i]
        left, right = _sides(tree, level, i)
        smaller, larger = min(left, right), max(left, right)
        total = left + right
        p, q = smaller / total, larger / total
        mean = product(float64(n), p)
        mean = mean if mean >= scalar.LARGE else 0.0  # false for NaN, too
        deviation = math.sqrt(product(mean, q))
        us, t = scalar.proposal(mean, deviation, p, draws.firsts[i])
        accepted = scalar.surely(us, deviation, draws.seconds[i]) & (mean > 0.0)
        draws.chosen[i] = int64(mean) + int64(t) if accepted else int64(0)
        draws.sure[i] = int64(accepted)


@njit
def _open(tree, level, draws, some):
    """Invert where the mean is small; copy the other nodes that are not sure to `some`, and say how many they are."""
    firsts, seconds, chosen, sure = draws
    count = uint64(0)
    for i in range(uint64(level.nodes)):
        n = tree.counts[level.above + i]
        if sure[i] != 0:
            continue
        left, right = _sides(tree, level, i)
        smaller, larger = min(left, right), max(left, right)
        if n == 0 or smaller == 0.0:
            chosen[i] = int64(0)
            continue
        total = left + right
        p, q = smaller / total, larger / total
        if product(float64(n), p) < scalar.LARGE:
            chosen[i] = scalar.invert(n, p, q, firsts[i])
            continue
        some.which[count], some.splits[count] = int64(i), uint64(level.split) + i * uint64(level.step)
        some.trials[count], some.p[count], some.q[count] = n, p, q
        firsts[count], seconds[count] = firsts[i], seconds[i]
        count += uint64(1)
    return count


@njit
def _judge(count, some, firsts, seconds):
    """`verdict` on the proposals of those nodes."""
    for i in range(uint64(count)):
        n, p = some.trials[i], some.p[i]
        mean = product(float64(n), p)
        deviation = math.sqrt(product(mean, some.q[i]))
        some.verdicts[i], some.t[i] = scalar.verdict(n, mean, deviation, p, firsts[i], seconds[i])


@njit
def _settle(count, some, firsts, seconds, chosen):
    """Note what is accepted; move the others to the front, and say how many they are."""
    which, splits, trials, ps, qs, verdicts, ts = some
    left = uint64(0)
    for i in range(uint64(count)):
        mean = product(float64(trials[i]), ps[i])
        good = verdicts[i] == 1
        if verdicts[i] == 2:
            deviation, other = math.sqrt(product(mean, qs[i])), product(float64(trials[i]), qs[i])
            good = scalar.weigh(trials[i], ts[i], mean, other, deviation, ps[i], firsts[i], seconds[i])
        # stored in any case: a branch on it would be guessed wrong every other time
        chosen[which[i]] = int64(mean) + int64(ts[i])
        which[left], splits[left], trials[left], ps[left], qs[left] = which[i], splits[i], trials[i], ps[i], qs[i]
        left += uint64(not good)
    return left


@njit
def _level(tree, level, stream, draws, some):
    """Counts of a level from those of the level above."""
    row, key, mask = stream
    for i in range(uint64(level.nodes)):
        split = uint64(level.split) + i * uint64(level.step)
        draws.firsts[i], draws.seconds[i] = scalar.split_words(split, uint64(0), row, key, mask)
    _propose(tree, level, draws)
    count = _open(tree, level, draws, some)
    attempt = uint64(0)
    while count > uint64(0):
        _judge(count, some, draws.firsts, draws.seconds)
        count = _settle(count, some, draws.firsts, draws.seconds, draws.chosen)
        attempt += uint64(1)
        for i in range(count):
            draws.firsts[i], draws.seconds[i] = scalar.split_words(some.splits[i], attempt, row, key, mask)
    for i in range(uint64(level.nodes)):
        n = tree.counts[level.above + i]
        left, right = _sides(tree, level, i)
        k, at = draws.chosen[i], level.below + uint64(2) * i
        tree.counts[at] = k if left <= right else n - k
        tree.counts[at + uint64(1)] = n - k if left <= right else k


@njit
def _split(tree, leaves, n, place, stream, draws, some):
    """counts[: leaves]: n split over `leaves` (a power of two) masses.

    Each has `place[1]` columns, the first of them from column `place[0]` on.
    """
    first, unit = place
    above = uint64(2) * uint64(leaves) - uint64(2)
    tree.counts[above] = n
    nodes, step = uint64(1), uint64(leaves) * uint64(unit)
    while nodes < uint64(leaves):
        below = above - uint64(2) * nodes
        middle = uint64(first) + (step >> uint64(1))
        _level(tree, _Level(below, above, nodes, middle, step), stream, draws, some)
        above = below
        nodes <<= uint64(1)
        step >>= uint64(1)


@njit
def _masses(kind, run, leaves, factors, x, mass):
    """mass[: leaves]: probabilities of a block's columns, zeros beyond them; their sum."""
    read_run(kind, run, x)
    for i in range(uint64(run.columns)):
        mass[i] = probability(x[i], factors.high64, factors.low64, factors.r, factors.factor)
    fill(mass, run.columns, leaves, 0.0)
    return _sums(mass, leaves)


@njit
def _power(n):
    """The least power of two not below n."""
    p = int64(1)
    while p < n:
        p *= 2
    return p


@njit
def _write(run, counts):
    for i in range(uint64(run.columns)):
        store(_I, run.address + int64(i) * run.stride, int64(0), counts[i])


@njit
def _write_fixed(p, row, first, last):
    """Blocks first .. last - 1 of a row without a law: all at its argmax, or -1 where it has none."""
    at, n, address = load(_I, p.argmaxes, row), load(_I, p.trials, row), row_address(p.counts, row)
    for i in range(first * BLOCK, min(last * BLOCK, p.counts.columns)):
        value = (n if i == at else int64(0)) if at >= 0 else at
        store(_I, address + i * p.counts.column_stride, int64(0), value)


class _Arrays(NamedTuple):
    x: Any
    own: Any  # what is kept of blocks: two numbers each
    columns: Any  # the tree of a block's columns
    blocks: Any  # that of a row's blocks
    draws: Any
    some: Any


@inlined
def _split_over_blocks(p, row, nodes, stream, arrays):
    """The counts of a row's blocks, from their masses."""
    blocks = count_blocks(p.logits.columns)
    tops = _power(blocks)
    for b in range(blocks):
        arrays.blocks.mass[b] = load(float64(0), nodes, 2 * b)
    fill(arrays.blocks.mass, blocks, tops, 0.0)
    _sums(arrays.blocks.mass, tops)
    n = load(_I, p.trials, row)
    _split(arrays.blocks, tops, n, (int64(0), int64(BLOCK)), stream, arrays.draws, arrays.some)
    for b in range(blocks):
        store(_I, nodes, 2 * b + 1, arrays.blocks.counts[b])


@inlined
def _item(kind, work, p, item, arrays):
    row, segment = row_and_segment(p.split, p.logits.rows, item)
    first, last = segment_blocks(p, segment)
    columns = p.logits.columns
    blocks, leaves = count_blocks(columns), _power(min(columns, int64(BLOCK)))
    nodes = nodes_of_row(p, columns, row, arrays.own)
    temperature = row_temperature(p.temperatures, row)
    r, total = load(float64(0), p.roots, 2 * row), load(float64(0), p.roots, 2 * row + 1)
    if temperature == 0.0 or total != total:
        if p.blocks.phase == 0:
            _write_fixed(p, row, first, last)
        return
    high64, low64 = scale(temperature)
    factors = _Factors(high64, low64, r, 1.0 / total)
    address, stream, tree = row_address(p.logits, row), row_stream(p.stream, row), arrays.columns
    if p.blocks.phase == 0 and blocks > 1:
        for b in range(first, last):
            whole = _masses(kind, block_run(p.logits, address, b), leaves, factors, arrays.x, tree.mass)
            store(float64(0), nodes, 2 * b, whole)
        if not is_last_segment(p, row):
            return
        _split_over_blocks(p, row, nodes, stream, arrays)
        if p.split.segments > 1:
            return
    for b in range(first, last):
        run = block_run(p.logits, address, b)
        share = load(_I, nodes, 2 * b + 1) if blocks > 1 else load(_I, p.trials, row)
        if share == 0:
            fill(tree.counts, 0, run.columns, int64(0))
        else:
            _masses(kind, run, leaves, factors, arrays.x, tree.mass)
            _split(tree, leaves, share, (b * BLOCK, int64(1)), stream, arrays.draws, arrays.some)
        _write(block_run(p.counts, row_address(p.counts, row), b), tree.counts)


@njit
def multinomial(kind, work, p: Counting):
    """One worker: take segments until none is left."""
    scratch = open_scratch(work)
    blocks = count_blocks(p.logits.columns)
    leaves, tops = _power(min(p.logits.columns, int64(BLOCK))), _power(blocks)
    widest = max(leaves, tops, int64(2)) // 2
    arrays = _Arrays(
        empty(scratch, BLOCK, np.float64),
        empty(scratch, 2 * blocks if p.split.segments == 1 else 0, np.float64),
        _Tree(empty(scratch, 2 * leaves, np.float64), empty(scratch, 2 * leaves, np.int64)),
        _Tree(empty(scratch, 2 * tops, np.float64), empty(scratch, 2 * tops, np.int64)),
        _Draws(
            empty(scratch, widest, np.uint64),
            empty(scratch, widest, np.uint64),
            empty(scratch, widest, np.int64),
            empty(scratch, widest, np.int64),
        ),
        _Open(
            empty(scratch, widest, np.int64),
            empty(scratch, widest, np.uint64),
            empty(scratch, widest, np.int64),
            empty(scratch, widest, np.float64),
            empty(scratch, widest, np.float64),
            empty(scratch, widest, np.int64),
            empty(scratch, widest, np.float64),
        ),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)
