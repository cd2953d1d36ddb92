"""Counts of n draws by splitting n over the dyadic tree of masses, the columns' within the blocks'.

A node covers a power of two of columns, or of blocks, and is known by the column before which it splits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import njit
from .._scalar import binomial as scalar
from .._scalar.address import draw_key
from .._scalar.bits import product
from .._scalar.blocks import BLOCK, scale
from .._scalar.table import probability
from .job import cotangent_address, job_at, row_address, row_and_segment, row_id, row_temperature, take_items
from .memory import atomic_add, load, store
from .runs import read_run
from .scratch import address_of, empty, fill, lacks_scratch, open_scratch

_I = np.int64(0)


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


@njit
def _propose(mass, counts, below, above, nodes, firsts, seconds, chosen, sure):
    """What most nodes of a level give their smaller side, and which they are."""
    for i in range(uint64(nodes)):
        n = counts[above + i]
        left, right = mass[below + uint64(2) * i], mass[below + uint64(2) * i + uint64(1)]
        smaller, larger = min(left, right), max(left, right)
        total = left + right
        p, q = smaller / total, larger / total
        mean = product(float64(n), p)
        mean = mean if mean >= scalar.LARGE else 0.0  # false for NaN, too
        deviation = math.sqrt(product(mean, q))
        us, t = scalar.proposal(mean, deviation, p, firsts[i])
        accepted = scalar.surely(us, deviation, seconds[i]) & (mean > 0.0)
        chosen[i] = int64(mean) + int64(t) if accepted else int64(0)
        sure[i] = int64(accepted)


@njit
def _open(mass, counts, below, above, nodes, split, step, firsts, seconds, chosen, sure, some):
    """Invert where the mean is small; copy the other nodes that are not sure to `some`, and say how many they are."""
    which, splits, trials, ps, qs, _, _ = some
    count = uint64(0)
    for i in range(uint64(nodes)):
        n = counts[above + i]
        if sure[i] != 0:
            continue
        left, right = mass[below + uint64(2) * i], mass[below + uint64(2) * i + uint64(1)]
        smaller, larger = min(left, right), max(left, right)
        if n == 0 or smaller == 0.0:
            chosen[i] = int64(0)
            continue
        total = left + right
        p, q = smaller / total, larger / total
        if product(float64(n), p) < scalar.LARGE:
            chosen[i] = scalar.invert(n, p, q, firsts[i])
            continue
        which[count], splits[count] = int64(i), uint64(split) + i * uint64(step)
        trials[count], ps[count], qs[count] = n, p, q
        firsts[count], seconds[count] = firsts[i], seconds[i]
        count += uint64(1)
    return count


@njit
def _judge(count, some, firsts, seconds):
    """`verdict` on the proposals of those nodes."""
    _, _, trials, ps, qs, verdicts, ts = some
    for i in range(uint64(count)):
        mean = product(float64(trials[i]), ps[i])
        deviation = math.sqrt(product(mean, qs[i]))
        verdicts[i], ts[i] = scalar.verdict(trials[i], mean, deviation, ps[i], firsts[i], seconds[i])


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
def _level(mass, counts, below, above, nodes, split, step, row, key, mask, buffers, some):
    """Counts of a level from those of the level above."""
    firsts, seconds, chosen, sure = buffers
    for i in range(uint64(nodes)):
        firsts[i], seconds[i] = scalar.split_words(uint64(split) + i * uint64(step), uint64(0), row, key, mask)
    _propose(mass, counts, below, above, nodes, firsts, seconds, chosen, sure)
    count = _open(mass, counts, below, above, nodes, split, step, firsts, seconds, chosen, sure, some)
    attempt = uint64(0)
    while count > uint64(0):
        _judge(count, some, firsts, seconds)
        count = _settle(count, some, firsts, seconds, chosen)
        attempt += uint64(1)
        splits = some[1]
        for i in range(count):
            firsts[i], seconds[i] = scalar.split_words(splits[i], attempt, row, key, mask)
    for i in range(uint64(nodes)):
        n = counts[above + i]
        left, right = mass[below + uint64(2) * i], mass[below + uint64(2) * i + uint64(1)]
        k = chosen[i]
        counts[below + uint64(2) * i] = k if left <= right else n - k
        counts[below + uint64(2) * i + uint64(1)] = n - k if left <= right else k


@njit
def _split(mass, counts, leaves, n, first, unit, row, key, mask, buffers, some):
    """counts[: leaves]: n split over `leaves` (a power of two) masses, `unit` columns each from column `first` on."""
    above = uint64(2) * uint64(leaves) - uint64(2)
    counts[above] = n
    nodes, step = uint64(1), uint64(leaves) * uint64(unit)
    while nodes < uint64(leaves):
        below = above - uint64(2) * nodes
        middle = uint64(first) + (step >> uint64(1))
        _level(mass, counts, below, above, nodes, middle, step, row, key, mask, buffers, some)
        above = below
        nodes <<= uint64(1)
        step >>= uint64(1)


@njit
def _masses(kind, j, address, block, leaves, x, factors, mass):
    """mass[: leaves]: probabilities of a block's columns, zeros beyond them; their sum."""
    high64, low64, r, factor = factors
    count = min(j.columns - block * BLOCK, int64(BLOCK))
    at = address + block * BLOCK * j.column_stride
    read_run(kind, j.element, at, j.column_stride, j.item_size, count, x)
    for i in range(uint64(count)):
        mass[i] = probability(x[i], high64, low64, r, factor)
    fill(mass, count, leaves, 0.0)
    return _sums(mass, leaves)


@njit
def _power(n):
    """The least power of two not below n."""
    p = int64(1)
    while p < n:
        p *= 2
    return p


@njit
def _write(j, target, first, count, counts):
    for i in range(uint64(count)):
        store(_I, target + (first + int64(i)) * j.cotangent_column_stride, int64(0), counts[i])


@njit
def _write_fixed(j, target, first, count, at, n):
    """A row without a law: all at its argmax, or -1 where it has none."""
    for i in range(first, first + count):
        store(_I, target + i * j.cotangent_column_stride, int64(0), (n if i == at else int64(0)) if at >= 0 else at)


@njit
def multinomial(kind, job):
    """One worker. Phase 0 weighs blocks, and splits a row over them once its last segment is weighed; phase 1 the rest.

    A lone segment does both at once. The counts are the job's `cotangent`, `given` is n of each row.
    """
    j = job_at(job)
    scratch = open_scratch(j)
    x = empty(scratch, BLOCK, np.float64)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    leaves, tops = _power(min(j.columns, int64(BLOCK))), _power(blocks)
    mass, counts = empty(scratch, 2 * leaves, np.float64), empty(scratch, 2 * leaves, np.int64)
    own = empty(scratch, 2 * blocks if j.segments == 1 else 0, np.float64)
    widest = max(leaves, tops, int64(2)) // 2
    buffers = (
        empty(scratch, widest, np.uint64), empty(scratch, widest, np.uint64),
        empty(scratch, widest, np.int64), empty(scratch, widest, np.int64),
    )  # fmt: skip
    some = (
        empty(scratch, widest, np.int64), empty(scratch, widest, np.uint64), empty(scratch, widest, np.int64),
        empty(scratch, widest, np.float64), empty(scratch, widest, np.float64), empty(scratch, widest, np.int64),
        empty(scratch, widest, np.float64),
    )  # fmt: skip
    top, shares = empty(scratch, 2 * tops, np.float64), empty(scratch, 2 * tops, np.int64)
    key, mask = draw_key(j.seed, j.draw)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            first = segment * j.segment_blocks
            last = min(first + j.segment_blocks, blocks)
            # two numbers for each block: mass, count
            nodes = address_of(own) if j.segments == 1 else j.node_s + 24 * blocks * (row - j.first_row)
            address, target = row_address(j, row), cotangent_address(j, row)
            temperature = row_temperature(j, row)
            r, total = load(float64(0), j.row_node, 2 * row), load(float64(0), j.row_node, 2 * row + 1)
            n = load(_I, j.given, row)
            if temperature == 0.0 or total != total:
                if j.phase == 0:
                    count = min(last * BLOCK, j.columns) - first * BLOCK
                    _write_fixed(j, target, first * BLOCK, count, load(_I, j.indices, row), n)
                continue
            high64, low64 = scale(temperature)
            factors = (high64, low64, r, 1.0 / total)
            identity = uint64(row_id(j, row))
            if j.phase == 0 and blocks > 1:
                for b in range(first, last):
                    store(float64(0), nodes, 2 * b, _masses(kind, j, address, b, leaves, x, factors, mass))
                if j.segments > 1 and atomic_add(j.pending + 8 * (row - j.first_row), int64(-1)) > 1:
                    continue
                for b in range(blocks):
                    top[b] = load(float64(0), nodes, 2 * b)
                fill(top, blocks, tops, 0.0)
                _sums(top, tops)
                _split(top, shares, tops, n, int64(0), int64(BLOCK), identity, key, mask, buffers, some)
                for b in range(blocks):
                    store(_I, nodes, 2 * b + 1, shares[b])
                if j.segments > 1:
                    continue
            for b in range(first, last):
                count = min(j.columns - b * BLOCK, int64(BLOCK))
                share = load(_I, nodes, 2 * b + 1) if blocks > 1 else n
                if share == 0:
                    fill(counts, 0, count, int64(0))
                else:
                    _masses(kind, j, address, b, leaves, x, factors, mass)
                    _split(mass, counts, leaves, share, b * BLOCK, int64(1), identity, key, mask, buffers, some)
                _write(j, target, b * BLOCK, count, counts)
