"""Truncated sampling: the grouped rule, or the race, on a row whose excluded columns are at -inf.

Few columns are kept of most rows: then only those are visited, with the bits that the masked row would give.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int64, uint64

from .._jit import apart, inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, TRUNCATED, block_words, draw_key, noise_word
from .._scalar.blocks import BLOCK, LANES
from .._scalar.elementary import LOG2E, exp_float64
from .._scalar.gumbel import column_of, exponential_float64, goes_first
from .blocks import CHUNKS, LEVELS, block_max, block_node, choose, collapse, halve, push, quantise_block
from .categorical import contest
from .gumbel_max import best_of_block, filters, race_key
from .job import job_at, row_address, row_id, row_min_p, row_temperature, row_top_k, row_top_p, row_wanted, take_items
from .memory import load, zero
from .results import write_argmax, write_bad, write_empty, write_logsumexp, write_sample
from .scratch import address_of, empty, lacks_scratch, open_scratch, workspace
from .truncation import BUCKETS, COARSE, LIST, block_at, find_cut, span_of, survey

_INF = math.inf


@apart
def _list_node(values, columns, first, last, high64, low64, high, low, lanes):
    """The node of a block of which columns first .. last - 1 of the list are all that is left."""
    largest = values[uint64(first)]
    for i in range(uint64(first), uint64(last)):
        largest = values[i] if values[i] > largest else largest
    r, _, far = scalar.reference_of_maximum(largest, high)
    minus = largest if far else largest - largest
    if last - first == 1:
        total = scalar.weight(largest - minus, high, low, r)
    else:
        for i in range(uint64(LANES)):
            lanes[i] = largest - largest
        for i in range(uint64(first), uint64(last)):
            lanes[uint64(columns[i] & (LANES - 1))] += scalar.weight(values[i] - minus, high, low, r)
        halve(lanes, uint64(LANES))
        total = lanes[0]
    if far:
        return scalar.far_node(float64(largest), high64, low64, float64(total))
    return scalar.plain_node(r, total)


@apart
def _list_nodes(values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s):
    """Nodes of the blocks that the list touches, and where each begins in it; how many."""
    m, i = int64(0), int64(0)
    while i < n:
        first, block = i, columns[uint64(i)] // BLOCK
        while i < n and columns[uint64(i)] // BLOCK == block:
            i += 1
        starts[uint64(m)] = first
        node_r[uint64(m)], node_s[uint64(m)] = _list_node(values, columns, first, i, high64, low64, high, low, lanes)
        m += 1
    starts[uint64(m)] = n
    return m


@apart
def _root(columns, starts, node_r, node_s, m, blocks, stack_r, stack_s):
    """The root of the row's tree, blocks that the list does not touch being empty."""
    at = int64(0)
    for b in range(blocks):
        if at < m and columns[uint64(starts[uint64(at)])] // BLOCK == int64(b):
            push(stack_r, stack_s, int64(b), node_r[uint64(at)], node_s[uint64(at)])
            at += 1
        else:
            push(stack_r, stack_s, int64(b), 0.0, 0.0)
    return collapse(stack_r, stack_s, blocks)


@inlined
def _key_and_choice(block, sample, row, tag, key, mask):
    """Words 0 and 1 of a block (its key), and 2 and 3 (the choice inside), as uint64 each."""
    x0, x1, x2, x3 = block_words(uint64(block), uint64(sample), uint64(row), uint64(tag), key, mask)
    return (x0 << uint64(32)) | x1, (x2 << uint64(32)) | x3


@inlined
def _challenge(word, r, total, best_key, best_r, at):
    """(whether a block beats the best so far, which is `at`, or -1 for none; its key)."""
    wins, value = contest(word, r, total, best_key, best_r)
    if at < 0 and not wins:
        return True, exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
    return wins, value


@apart
def _choose_in_list(values, units, first, last, high, low, word):
    """Where in the list the choice inside a block falls."""
    largest = values[uint64(first)]
    for i in range(uint64(first), uint64(last)):
        largest = values[i] if values[i] > largest else largest
    r, rise, far = scalar.reference_of_maximum(largest, high)
    minus = largest if far else largest - largest
    total = uint64(0)
    for i in range(uint64(first), uint64(last)):
        units[i] = scalar.quantise(scalar.weight(values[i] - minus, high, low, r), rise)
        total += units[i]
    target = scalar.mulhi64(word, total)
    i, running = uint64(first), units[uint64(first)]
    while running <= target:
        i += uint64(1)
        running += units[i]
    return int64(i)


@apart
def _draw_from_list(
    kind, j, row, values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s, units, stack_r, stack_s
):
    """Grouped sampling from the columns of a list."""
    m = _list_nodes(values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s)
    r, total = 0.0, 1.0
    if j.log_prob != 0:
        blocks = (j.columns + BLOCK - 1) // BLOCK
        r, total = _root(columns, starts, node_r, node_s, m, blocks, stack_r, stack_s)
    identity = row_id(j, row)
    key, mask = draw_key(j.seed, j.draw)
    for s in range(j.samples):
        sample = j.first_sample + int64(s)
        best, best_r, at = _INF, 0.0, int64(0) if m == 1 else int64(-1)
        for e in range(m if m > 1 else 0):
            block = columns[uint64(starts[uint64(e)])] // BLOCK
            word, _ = _key_and_choice(block, sample, identity, TRUNCATED, key, mask)
            wins, value = _challenge(word, node_r[uint64(e)], node_s[uint64(e)], best, best_r, at)
            if wins:
                best, best_r, at = value, node_r[uint64(e)], int64(e)
        first, last = starts[uint64(at)], starts[uint64(at + 1)]
        block = columns[uint64(first)] // BLOCK
        _, word = _key_and_choice(block, sample, identity, TRUNCATED, key, mask)
        chosen = _choose_in_list(values, units, first, last, high, low, word)
        write_sample(kind, j, row, int64(s), columns[uint64(chosen)], high64, low64, r, total)


@apart
def _race_in_list(
    kind,
    j,
    row,
    values,
    columns,
    n,
    temperature,
    high64,
    low64,
    high,
    low,
    lanes,
    starts,
    node_r,
    node_s,
    stack_r,
    stack_s,
):
    """The race among the columns of a list."""
    r, total = 0.0, 1.0
    if j.log_prob != 0:
        m = _list_nodes(values, columns, n, high64, low64, high, low, lanes, starts, node_r, node_s)
        blocks = (j.columns + BLOCK - 1) // BLOCK
        r, total = _root(columns, starts, node_r, node_s, m, blocks, stack_r, stack_s)
    identity = uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    for s in range(j.samples):
        sample = uint64(j.first_sample + int64(s))
        best, at = -_INF, int64(-1)
        for i in range(n):
            column = columns[uint64(i)]
            word = noise_word(uint64(column), sample, identity, uint64(NOISE), key, mask)
            value, place = race_key(values[uint64(i)], word, temperature, column, sample, identity, key, mask)
            if at < 0 or goes_first(value, place, best, at):
                best, at = value, place
        write_sample(kind, j, row, int64(s), column_of(at), high64, low64, r, total)


@apart
def _masked_block(kind, j, address, block, t, last, masked, buffer):
    """Copy a block, the excluded columns at -inf; (its address, columns)."""
    z = zero(kind)
    lowest = type(z)(-_INF)
    at, count = block_at(kind, j, address, block, buffer)
    ties = min(max(last + 1 - block * BLOCK, int64(0)), count)
    for i in range(uint64(ties)):
        x = load(kind, at, int64(i))
        masked[i] = x if x >= t else lowest
    for i in range(uint64(ties), uint64(count)):
        x = load(kind, at, int64(i))
        masked[i] = x if x > t else lowest
    return address_of(masked), count


@inlined
def _reaches(coarse, s, t):
    found = False
    for i in range(COARSE):
        found = found or coarse[uint64(s * COARSE + i)] >= t
    return found


@apart
def _draw_from_row(
    kind, j, row, address, span, coarse, t, last, tag, high64, low64, high, low,
    lanes, masked, weights, sums, keys, rs, winners, stack_r, stack_s, buffer,
):  # fmt: skip
    """Grouped sampling from a row cut at (t, last): the node of what is kept."""
    z = zero(kind)
    guess = z
    identity = row_id(j, row)
    key, mask = draw_key(j.seed, j.draw)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    for s in range(uint64(j.samples)):
        keys[s], rs[s], winners[s] = _INF, 0.0, int64(-1)
    for b in range(blocks):
        block = int64(b)
        if not _reaches(coarse, block // span, t):
            push(stack_r, stack_s, block, 0.0, 0.0)
            continue
        at, count = _masked_block(kind, j, address, block, t, last, masked, buffer)
        guess, r, total = block_node(z, at, count, high64, low64, high, low, guess, lanes)
        push(stack_r, stack_s, block, r, total)
        if not total > 0.0:
            continue
        for s in range(uint64(j.samples)):
            word, _ = _key_and_choice(block, j.first_sample + int64(s), identity, tag, key, mask)
            wins, value = _challenge(word, r, total, keys[s], rs[s], winners[s])
            if wins:
                keys[s], rs[s], winners[s] = value, r, block
    r, total = collapse(stack_r, stack_s, blocks)
    held, count, rise, quantised = int64(-1), int64(0), int64(0), uint64(0)
    for s in range(j.samples):
        block = winners[uint64(s)]
        if block != held:
            held = block
            at, count = _masked_block(kind, j, address, block, t, last, masked, buffer)
            quantised, rise = quantise_block(z, at, count, high, low, weights, sums)
        _, word = _key_and_choice(block, j.first_sample + int64(s), identity, tag, key, mask)
        column = choose(weights, sums, rise, scalar.mulhi64(word, quantised))
        write_sample(kind, j, row, int64(s), block * BLOCK + column, high64, low64, r, total)
    return r, total


@apart
def _race_in_row(
    kind, j, row, address, span, coarse, t, last, temperature, high64, low64, high, low,
    lanes, masked, words, keys, winners, stack_r, stack_s, buffer,
):  # fmt: skip
    """The race among the columns of a row cut at (t, last): the node of what is kept."""
    z = zero(kind)
    guess = z
    rate, _ = scalar.narrow(float32(0), LOG2E / temperature * 8388608.0, 0.0)
    sums = j.logsumexp != 0 or j.row_result != 0 or j.log_prob != 0
    identity = uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    for s in range(uint64(j.samples)):
        keys[s], winners[s] = -_INF, int64(-1)
    for b in range(blocks):
        block = int64(b)
        if not _reaches(coarse, block // span, t):
            push(stack_r, stack_s, block, 0.0, 0.0)
            continue
        at, count = _masked_block(kind, j, address, block, t, last, masked, buffer)
        if sums:
            guess, r, total = block_node(z, at, count, high64, low64, high, low, guess, lanes)
            push(stack_r, stack_s, block, r, total)
        largest, _ = block_max(z, at, count)
        if not scalar.is_possible(largest, high64):
            continue
        exact = not filters(largest, temperature)
        for s in range(uint64(j.samples)):
            keys[s], winners[s] = best_of_block(
                z, at, False, count, words, largest, rate, temperature, exact,
                block * BLOCK, j.first_sample + int64(s), identity, key, mask, keys[s], winners[s],
            )  # fmt: skip
    r, total = collapse(stack_r, stack_s, blocks) if sums else (0.0, 1.0)
    for s in range(j.samples):
        write_sample(kind, j, row, int64(s), column_of(winners[uint64(s)]), high64, low64, r, total)
    return r, total


@njit
def truncated(kind, job):
    """One worker: take rows until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    z = zero(kind)
    lowest = type(z)(-_INF)
    samples = uint64(j.samples)
    span = span_of(j.columns)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    spans = (blocks + span - 1) // span
    tops, coarse = workspace(scratch, kind, spans * LANES), workspace(scratch, kind, spans * COARSE)
    length = min(j.columns, int64(LIST))
    values, columns = workspace(scratch, kind, length), empty(scratch, length, np.int64)
    masses, units = empty(scratch, length, np.uint64), empty(scratch, max(spans * LANES, length), np.uint64)
    weights = workspace(scratch, kind, max(spans * LANES, length, int64(BLOCK)))
    hits = empty(scratch, LANES + COARSE, np.int64)
    counts, table = empty(scratch, BUCKETS, np.int64), empty(scratch, BUCKETS, np.uint64)
    starts = empty(scratch, min(blocks, length) + 1, np.int64)
    node_r, node_s = empty(scratch, min(blocks, length), np.float64), empty(scratch, min(blocks, length), np.float64)
    lanes, masked = workspace(scratch, kind, LANES), workspace(scratch, kind, min(j.columns, int64(BLOCK)))
    sums = empty(scratch, CHUNKS, np.uint64)
    words = empty(scratch, BLOCK if j.race != 0 else 0, np.uint32)
    keys, rs, winners = (
        empty(scratch, samples, np.float64),
        empty(scratch, samples, np.float64),
        empty(scratch, samples, np.int64),
    )
    stack_r, stack_s = empty(scratch, LEVELS, np.float64), empty(scratch, LEVELS, np.float64)
    buffer = empty(scratch, BLOCK if j.column_stride != j.item_size else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row = int64(item)
            if not row_wanted(j, row):
                write_empty(kind, j, row)
                continue
            temperature = row_temperature(j, row)
            if temperature == 0.0:
                write_argmax(kind, j, row)
                continue
            top_k, top_p, min_p = row_top_k(j, row), row_top_p(j, row), row_min_p(j, row)
            high64, low64 = scalar.scale(temperature)
            high, low = scalar.narrow(z, high64, low64)
            address = row_address(j, row)
            off = top_k >= j.columns and top_p >= 1.0 and min_p <= 0.0
            by_sums = not off and (j.logsumexp != 0 or (top_p < 1.0 and top_k >= j.columns))
            largest, r, total = survey(
                kind, j, address, span, by_sums, high64, low64, high, low, tops, coarse, lanes, buffer, stack_r, stack_s
            )
            if not (scalar.is_bounded(largest, high64) and scalar.is_possible(largest, high64)):
                write_bad(kind, j, row)
                continue
            if by_sums:
                write_logsumexp(kind, j, row, r, total)
            t, last, n = lowest, int64(-1), int64(-1)
            if not off:
                part = float64(j.columns)
                if by_sums and not scalar.reference_of_maximum(largest, high)[2]:
                    part = exp_float64(-scalar.log_prob(largest, float64(high), float64(low), r, total))
                t, last, n = find_cut(
                    kind, j, address, span, top_k, top_p, min_p, temperature, high, low, largest, part,
                    tops, coarse, hits, values, columns, units, masses, weights, counts, table, buffer,
                )  # fmt: skip
            if n >= 0 and j.race != 0:
                _race_in_list(
                    kind, j, row, values, columns, n, temperature, high64, low64, high, low,
                    lanes, starts, node_r, node_s, stack_r, stack_s,
                )  # fmt: skip
            elif n >= 0:
                _draw_from_list(
                    kind, j, row, values, columns, n, high64, low64, high, low,
                    lanes, starts, node_r, node_s, units, stack_r, stack_s,
                )  # fmt: skip
            else:
                if j.race != 0:
                    r, total = _race_in_row(
                        kind, j, row, address, span, coarse, t, last, temperature, high64, low64, high, low,
                        lanes, masked, words, keys, winners, stack_r, stack_s, buffer,
                    )  # fmt: skip
                else:
                    r, total = _draw_from_row(
                        kind, j, row, address, span, coarse, t, last, GROUPED if off else TRUNCATED,
                        high64, low64, high, low,
                        lanes, masked, weights, sums, keys, rs, winners, stack_r, stack_s, buffer,
                    )  # fmt: skip
                if off:
                    write_logsumexp(kind, j, row, r, total)
