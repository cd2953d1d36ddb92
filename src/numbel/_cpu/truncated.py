"""Truncated sampling: the grouped rule, or the race, on a row whose excluded columns are at -inf.

Few columns are kept of most rows: then only those are visited, with the bits that the masked row would give.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import apart, inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, TRUNCATED, block_words, noise_word
from .._scalar.blocks import LANE_COLUMNS, LANES
from .._scalar.elementary import exp_float64
from .._scalar.gumbel import column_of, exponential_float64, goes_first
from .._scalar.limits import BLOCK
from .blocks import (
    block_max,
    block_node,
    choose,
    choose_in_lane,
    collapse,
    count_blocks,
    find_lane,
    halve,
    new_buffer,
    new_choice,
    new_lanes,
    new_stack,
    open_block,
    push,
    quantise_lanes,
    row_stream,
    scale_of,
    unopened,
)
from .categorical import contest, forget_winners, new_winners
from .gumbel_max import Columns, Filter, Race, best_of_block, filters, race_key, rate_of
from .memory import load, zero
from .records import row_address, row_limits, row_temperature
from .results import is_settled, write_bad, write_logsumexp, write_sample
from .scratch import address_of, empty, lacks_scratch, local, open_scratch, workspace
from .signatures import TruncatedSampling
from .truncation import LIST, Question, Row, block_of, find_cut, new_arrays, new_groups, reaches, survey
from .workers import each_item

_INF = math.inf


class _Kept(NamedTuple):
    """The n columns that are kept of a row, in their order, and their logits."""

    values: Any
    columns: Any
    n: Any


class _Nodes(NamedTuple):
    """Of each block that a list touches: where it begins there, and its node."""

    starts: Any
    r: Any
    s: Any


class _Cut(NamedTuple):
    """Kept are logits above t, and those that equal it up to column `last`."""

    t: Any
    last: Any


class _Arrays(NamedTuple):
    """A worker's."""

    groups: Any
    cutting: Any
    nodes: Any
    lanes: Any
    masked: Any
    choice: Any
    words: Any
    winners: Any
    stack: Any
    buffer: Any


@inlined
def _list_largest(values, first, last, scale):
    """(largest value, reference, rise, far) of elements first .. last - 1 of a list, what is left of a block."""
    largest = values[uint64(first)]
    for i in range(uint64(first), uint64(last)):
        largest = values[i] if values[i] > largest else largest
    return largest, scalar.reference_of_maximum(largest, scale.high)


@inlined
def _list_lanes(kept, first, last, scale, relative, lanes):
    """The lanes of a block of which columns first .. last - 1 of the list are all that is left."""
    r, minus = relative
    for i in range(uint64(LANES)):
        lanes[i] = minus - minus
    for i in range(uint64(first), uint64(last)):
        lane = uint64(kept.columns[i] & (LANES - 1))
        lanes[lane] += scalar.weight(kept.values[i] - minus, scale.high, scale.low, r)


@apart
def _list_node(kept, first, last, scale, lanes):
    """The node of such a block."""
    largest, (r, _, far) = _list_largest(kept.values, first, last, scale)
    minus = largest if far else largest - largest
    if last - first == 1:
        total = scalar.weight(largest - minus, scale.high, scale.low, r)
    else:
        _list_lanes(kept, first, last, scale, (r, minus), lanes)
        halve(lanes, uint64(LANES))
        total = lanes[0]
    if far:
        return scalar.far_node(float64(largest), scale.high64, scale.low64, float64(total))
    return scalar.plain_node(r, total)


@apart
def _list_nodes(kept, scale, lanes, nodes):
    """Nodes of the blocks that the list touches; how many."""
    m, i = int64(0), int64(0)
    while i < kept.n:
        first, block = i, kept.columns[uint64(i)] // BLOCK
        while i < kept.n and kept.columns[uint64(i)] // BLOCK == block:
            i += 1
        nodes.starts[uint64(m)] = first
        nodes.r[uint64(m)], nodes.s[uint64(m)] = _list_node(kept, first, i, scale, lanes)
        m += 1
    nodes.starts[uint64(m)] = kept.n
    return m


@apart
def _root(kept, nodes, m, blocks, stack):
    """The root of the row's tree, blocks that the list does not touch being empty."""
    at = int64(0)
    for b in range(blocks):
        if at < m and kept.columns[uint64(nodes.starts[uint64(at)])] // BLOCK == int64(b):
            push(stack, int64(b), nodes.r[uint64(at)], nodes.s[uint64(at)])
            at += 1
        else:
            push(stack, int64(b), 0.0, 0.0)
    return collapse(stack, blocks)


@inlined
def _key_and_choice(block, sample, tag, stream):
    """Words 0 and 1 of a block (its key), and 2 and 3 (the choice inside), as uint64 each."""
    x0, x1, x2, x3 = block_words(uint64(block), uint64(sample), stream.row, uint64(tag), stream.key, stream.mask)
    return (x0 << uint64(32)) | x1, (x2 << uint64(32)) | x3


@inlined
def _challenge(word, r, total, best_key, best_r, at):
    """(whether a block beats the best so far, which is `at`, or -1 for none; its key)."""
    wins, value = contest(word, r, total, best_key, best_r)
    if at < 0 and not wins:
        return True, exponential_float64(word >> uint64(32), word & uint64(0xFFFFFFFF)) / total
    return wins, value


@apart
def _choose_in_list(kept, first, last, scale, word, arrays):
    """Where in the list the choice inside a block falls."""
    if last - first == 1:
        return first
    largest, (r, rise, far) = _list_largest(kept.values, first, last, scale)
    minus = largest if far else largest - largest
    _list_lanes(kept, first, last, scale, (r, minus), arrays.lanes)
    total = quantise_lanes(arrays.lanes, int64(LANES), rise, arrays.choice)
    lane, rest = find_lane(arrays.choice, scalar.mulhi64(word, total))
    weights, places = local(LANE_COLUMNS, np.float64), local(LANE_COLUMNS, np.int64)
    n = uint64(0)
    for i in range(uint64(first), uint64(last)):
        if kept.columns[i] & (LANES - 1) == lane:
            weights[n] = scalar.weight(kept.values[i] - minus, scale.high, scale.low, r)
            places[n] = int64(i)
            n += uint64(1)
    return places[uint64(choose_in_lane(weights, n, rise, rest))]


@apart
def _draw_from_list(kind, p, row, kept, scale, arrays):
    """Grouped sampling from the columns of a list."""
    nodes, columns = arrays.nodes, kept.columns
    m = _list_nodes(kept, scale, arrays.lanes, nodes)
    root = 0.0, 1.0
    if p.results.log_prob != 0:
        root = _root(kept, nodes, m, count_blocks(p.logits.columns), arrays.stack)
    stream = row_stream(p.stream, row)
    for s in range(p.results.samples):
        sample = p.results.first_sample + int64(s)
        best, best_r, at = _INF, 0.0, int64(0) if m == 1 else int64(-1)
        for e in range(m if m > 1 else 0):
            block = columns[uint64(nodes.starts[uint64(e)])] // BLOCK
            word, _ = _key_and_choice(block, sample, TRUNCATED, stream)
            wins, value = _challenge(word, nodes.r[uint64(e)], nodes.s[uint64(e)], best, best_r, at)
            if wins:
                best, best_r, at = value, nodes.r[uint64(e)], int64(e)
        first, last = nodes.starts[uint64(at)], nodes.starts[uint64(at + 1)]
        block = columns[uint64(first)] // BLOCK
        _, word = _key_and_choice(block, sample, TRUNCATED, stream)
        chosen = _choose_in_list(kept, first, last, scale, word, arrays)
        write_sample(kind, p, row, int64(s), columns[uint64(chosen)], scale, root)


@apart
def _race_in_list(kind, p, row, kept, scale, arrays):
    """The race among the columns of a list."""
    root = 0.0, 1.0
    if p.results.log_prob != 0:
        m = _list_nodes(kept, scale, arrays.lanes, arrays.nodes)
        root = _root(kept, arrays.nodes, m, count_blocks(p.logits.columns), arrays.stack)
    stream = row_stream(p.stream, row)
    temperature = row_temperature(p.temperatures, row)
    for s in range(p.results.samples):
        race = Race(stream, p.results.first_sample + int64(s), temperature)
        best, at = -_INF, int64(-1)
        for i in range(kept.n):
            column = kept.columns[uint64(i)]
            word = noise_word(uint64(column), uint64(race.sample), stream.row, uint64(NOISE), stream.key, stream.mask)
            value, place = race_key(kept.values[uint64(i)], word, column, race)
            if at < 0 or goes_first(value, place, best, at):
                best, at = value, place
        write_sample(kind, p, row, int64(s), column_of(at), scale, root)


@apart
def _masked_block(kind, view, block, cut, masked):
    """Copy a block, the excluded columns at -inf; (its address, columns)."""
    z = zero(kind)
    lowest = type(z)(-_INF)
    at, count = block_of(kind, view, block)
    ties = min(max(cut.last + 1 - block * BLOCK, int64(0)), count)
    for i in range(uint64(ties)):
        x = load(kind, at, int64(i))
        masked[i] = x if x >= cut.t else lowest
    for i in range(uint64(ties), uint64(count)):
        x = load(kind, at, int64(i))
        masked[i] = x if x > cut.t else lowest
    return address_of(masked), count


@apart
def _draw_from_row(kind, p, row, view, cut, tag, scale, arrays):
    """Grouped sampling from a row that is cut: the root of what is kept."""
    z = zero(kind)
    guess = z
    stream, winners, groups, samples = row_stream(p.stream, row), arrays.winners, arrays.groups, p.results.samples
    blocks = count_blocks(p.logits.columns)
    forget_winners(winners, samples, _INF)
    for b in range(blocks):
        block = int64(b)
        if not reaches(groups, block // groups.span, cut.t):
            push(arrays.stack, block, 0.0, 0.0)
            continue
        at, count = _masked_block(kind, view, block, cut, arrays.masked)
        guess, r, total = block_node(z, at, count, scale, guess, arrays.lanes)
        push(arrays.stack, block, r, total)
        if not total > 0.0:
            continue
        for s in range(uint64(samples)):
            word, _ = _key_and_choice(block, p.results.first_sample + int64(s), tag, stream)
            wins, value = _challenge(word, r, total, winners.keys[s], winners.r[s], winners.places[s])
            if wins:
                winners.keys[s], winners.r[s], winners.places[s] = value, r, block
    root = collapse(arrays.stack, blocks)
    held, opened = int64(-1), unopened(z)
    for s in range(samples):
        block = winners.places[uint64(s)]
        if block != held:
            held = block
            at, count = _masked_block(kind, view, block, cut, arrays.masked)
            opened = open_block(z, at, count, scale, arrays.lanes, False, arrays.choice)
        _, word = _key_and_choice(block, p.results.first_sample + int64(s), tag, stream)
        column = choose(z, opened, scale, word, arrays.choice)
        write_sample(kind, p, row, int64(s), block * BLOCK + column, scale, root)
    return root


@apart
def _race_in_row(kind, p, row, view, cut, scale, arrays):
    """The race among the columns of a row that is cut: the root of what is kept."""
    z = zero(kind)
    guess = z
    temperature = row_temperature(p.temperatures, row)
    rate = rate_of(temperature)
    sums = p.results.logsumexp != 0 or p.results.logsumexp64 != 0 or p.results.log_prob != 0
    stream, winners, groups, samples = row_stream(p.stream, row), arrays.winners, arrays.groups, p.results.samples
    blocks = count_blocks(p.logits.columns)
    forget_winners(winners, samples, -_INF)
    for b in range(blocks):
        block = int64(b)
        if not reaches(groups, block // groups.span, cut.t):
            push(arrays.stack, block, 0.0, 0.0)
            continue
        at, count = _masked_block(kind, view, block, cut, arrays.masked)
        if sums:
            guess, r, total = block_node(z, at, count, scale, guess, arrays.lanes)
            push(arrays.stack, block, r, total)
        largest, _ = block_max(z, at, count)
        if not scalar.is_possible(largest, scale.high64):
            continue
        sieve = Filter(largest, rate, not filters(largest, temperature))
        columns = Columns(at, arrays.words, block * BLOCK)
        for s in range(uint64(samples)):
            race = Race(stream, p.results.first_sample + int64(s), temperature)
            best = winners.keys[s], winners.places[s]
            winners.keys[s], winners.places[s] = best_of_block(z, columns, count, False, sieve, race, best)
    root = collapse(arrays.stack, blocks) if sums else (0.0, 1.0)
    for s in range(samples):
        write_sample(kind, p, row, int64(s), column_of(winners.places[uint64(s)]), scale, root)
    return root


@inlined
def _item(kind, work, p, row, arrays):
    if is_settled(kind, work, p, row, int64(0)):
        return
    top_k, top_p, min_p = row_limits(p.limits, row)
    temperature = row_temperature(p.temperatures, row)
    scale = scale_of(kind, temperature)
    view = Row(p.logits, row_address(p.logits, row), arrays.buffer)
    off = top_k >= p.logits.columns and top_p >= 1.0 and min_p <= 0.0
    by_sums = not off and (p.results.logsumexp != 0 or (top_p < 1.0 and top_k >= p.logits.columns))
    largest, r, total = survey(kind, view, by_sums, scale, arrays.groups, arrays.lanes, arrays.stack)
    if not (scalar.is_bounded(largest, scale.high64) and scalar.is_possible(largest, scale.high64)):
        write_bad(kind, work, p.results, row)
        return
    if by_sums:
        write_logsumexp(kind, p.results, row, r, total)
    t, last, n = type(zero(kind))(-_INF), int64(-1), int64(-1)
    if not off:
        part = float64(p.logits.columns)
        if by_sums and not scalar.reference_of_maximum(largest, scale.high)[2]:
            part = exp_float64(-scalar.log_prob(largest, float64(scale.high), float64(scale.low), r, total))
        question = Question(top_k, top_p, min_p, temperature, largest, part)
        t, last, n = find_cut(kind, view, question, scale, arrays.groups, arrays.cutting)
    if n >= 0:
        kept = _Kept(arrays.cutting.values, arrays.cutting.columns, n)
        if p.race != 0:
            _race_in_list(kind, p, row, kept, scale, arrays)
        else:
            _draw_from_list(kind, p, row, kept, scale, arrays)
        return
    cut = _Cut(t, last)
    if p.race != 0:
        root = _race_in_row(kind, p, row, view, cut, scale, arrays)
    else:
        root = _draw_from_row(kind, p, row, view, cut, GROUPED if off else TRUNCATED, scale, arrays)
    if off:
        write_logsumexp(kind, p.results, row, root[0], root[1])


@njit
def truncated(kind, work, p: TruncatedSampling):
    """One worker: take rows until none is left."""
    scratch = open_scratch(work)
    columns = p.logits.columns
    groups = new_groups(kind, scratch, columns)
    touched = min(count_blocks(columns), int64(LIST))
    arrays = _Arrays(
        groups,
        new_arrays(kind, scratch, columns, groups),
        _Nodes(
            empty(scratch, touched + 1, np.int64),
            empty(scratch, touched, np.float64),
            empty(scratch, touched, np.float64),
        ),
        new_lanes(scratch, kind),
        workspace(scratch, kind, min(columns, int64(BLOCK))),
        new_choice(scratch),
        empty(scratch, BLOCK if p.race != 0 else 0, np.uint32),
        new_winners(scratch, uint64(p.results.samples)),
        new_stack(scratch),
        new_buffer(scratch, p.logits),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.chunk_size, _item, arrays)
