"""Both methods for short rows: many at a time, transposed, so that SIMD lanes are rows.

A row of up to 256 columns is a lone block. The arithmetic and its order are those of `categorical` and
`gumbel_max`; a filter would not pay here, so that every float64 noise value is computed.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint8, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, REFINEMENT, TRUNCATED, block_words, draw_key
from .._scalar.bits import larger
from .._scalar.blocks import LANES
from .._scalar.gumbel import ABSORBING, gumbel_float64, place_of
from .cuts import cut_rows, padded_columns, row_limits
from .job import job_at, row_address, row_id, row_temperature, row_wanted
from .memory import atomic_add, load, store, zero
from .noise import fill_across
from .results import store_float, store_logsumexp, store_node, write_argmax, write_bad, write_empty
from .scratch import empty, lacks_scratch, open_scratch, workspace
from .tiles import read_form

_INF = math.inf
#: Rows up to this long are sampled across rows (at 256 columns 0.55 against 0.46 G/s, at 512 0.55 against 0.70).
SHORT = 256


@njit
def row_factors(kind, j, first, rows, width, temperatures, high64, low64, high, low, sampled):
    """Scale factors of the tile's rows where each has its own, and which rows are to be sampled at all."""
    for i in range(uint64(width)):
        sampled[i] = uint8(i < uint64(rows))
    if j.temperatures == 0 and j.row_mask == 0:
        return
    for i in range(uint64(rows)):
        row = first + int64(i)
        if row_temperature(j, row) > 0.0 and row_wanted(j, row):
            temperatures[i] = row_temperature(j, row)
        else:
            sampled[i], temperatures[i] = uint8(0), 1.0
        high64[i], low64[i] = scalar.scale(temperatures[i])
        high[i], low[i] = scalar.narrow(zero(kind), high64[i], low64[i])


@njit
def references(x, columns, width, high, largest, r, rise, shift):
    """Canonical reference of every row, or the maximum to subtract where it is far; NaN stays in `largest`."""
    for i in range(uint64(width)):
        largest[i] = x[i]
    for c in range(uint64(1), uint64(columns)):
        for i in range(uint64(width)):
            largest[i] = larger(largest[i], x[c * uint64(width) + i])
    for i in range(uint64(width)):
        r[i], rise[i], far = scalar.reference_of_maximum(largest[i], high[i])
        shift[i] = largest[i] if far else high[i] - high[i]


@njit
def tile_weights(x, columns, width, high, low, r, shift):
    """X becomes the weights."""
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            x[at] = scalar.weight(x[at] - shift[i], high[i], low[i], r[i])


@njit
def _tile_quantise(x, columns, width, rise, quantised, totals):
    """Quantised weights, and each row's total."""
    for i in range(uint64(width)):
        totals[i] = uint64(0)
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            q = scalar.quantise(x[at], rise[i])
            quantised[at] = q
            totals[i] += q


@njit
def halve_columns(x, columns, width):
    """x[i] becomes the sum of row i, by halves over columns as in `blocks`."""
    count = uint64(columns)
    h = uint64(LANES // 2)
    while h > uint64(0):
        if h < count:
            for c in range(min(h, count - h)):
                for i in range(uint64(width)):
                    x[c * uint64(width) + i] += x[(c + h) * uint64(width) + i]
            count = h
        h >>= uint64(1)


@njit
def _tile_choose(quantised, columns, width, identities, tags, sample, totals, targets, running, chosen, key, mask):
    """chosen[i]: the first column of row i whose running sum exceeds its target."""
    for i in range(uint64(width)):
        _, _, x2, x3 = block_words(uint64(0), uint64(sample), identities[i], tags[i], key, mask)
        targets[i] = scalar.mulhi64((x2 << uint64(32)) | x3, totals[i])
        running[i] = uint64(0)
        chosen[i] = uint64(0)
    for c in range(uint64(columns - 1)):
        for i in range(uint64(width)):
            running[i] += quantised[c * uint64(width) + i]
            chosen[i] += uint64(running[i] <= targets[i])


@njit
def _tile_race(x, columns, width, temperatures, identities, sample, words, refinements, best, chosen, key, mask):
    """chosen[i]: the column of the largest logit / T + G in row i, the first of equals."""
    fill_across(words, columns, identities, width, sample, uint64(NOISE), key, mask)
    fill_across(refinements, columns, identities, width, sample, uint64(REFINEMENT), key, mask)
    for i in range(uint64(width)):
        best[i], chosen[i] = -_INF, uint64(0)
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            g = gumbel_float64(uint64(words[at]), uint64(refinements[at]))
            value = float64(x[at]) / temperatures[i] + g
            chosen[i] = c if value > best[i] else chosen[i]
            best[i] = value if value > best[i] else best[i]
    for i in range(uint64(width)):
        if abs(best[i]) >= ABSORBING:
            chosen[i] = _first_of_equals(x, columns, width, i, temperatures[i], words, refinements, best[i])


@njit
def _first_of_equals(x, columns, width, i, temperature, words, refinements, best):
    """The column that goes first in row i of those whose perturbed logit is the largest."""
    first, chosen = int64(-1), uint64(0)
    for c in range(uint64(columns)):
        at = c * uint64(width) + i
        z, g = float64(x[at]) / temperature, gumbel_float64(uint64(words[at]), uint64(refinements[at]))
        if z + g == best:
            place = place_of(c, z, g, best)
            if first < 0 or place < first:
                first, chosen = place, c
    return chosen


@njit
def nodes_of(x, width, high64, low64, largest, r, shift, node_r, node_s):
    for i in range(uint64(width)):
        node_r[i], node_s[i] = scalar.plain_node(r[i], x[i])
    for i in range(uint64(width)):
        if shift[i] != 0:
            node_r[i], node_s[i] = scalar.far_node(float64(largest[i]), high64[i], low64[i], float64(x[i]))


@njit
def _irregular(kind, j, row, good):
    """Write a row that is not sampled: masked out, its argmax wanted, or bad."""
    if not row_wanted(j, row):
        write_empty(kind, j, row)
    elif row_temperature(j, row) == 0.0:
        write_argmax(kind, j, row)
    elif not good:
        write_bad(kind, j, row)


@njit
def _store_sums(kind, j, first, rows, width, node_r, node_s, values):
    for i in range(width):
        values[i] = scalar.logsumexp(node_r[i], node_s[i])
    for i in range(uint64(rows)):
        store_logsumexp(kind, j, first + int64(i), values[i])


@njit
def _short(kind, j, race, cut):
    """Take tiles of `segment_blocks` rows (the width) until none is left, and `cut` them, unless that is None."""
    scratch = open_scratch(j)
    key, mask = draw_key(j.seed, j.draw)
    # sums of what is drawn from; those of whole rows beside them, if they are cut
    sums = j.log_prob != 0 or (cut is None and (j.logsumexp != 0 or j.row_result != 0 or j.row_node != 0))
    width = uint64(j.segment_blocks)
    size = uint64(j.columns) * width
    x, largest, r, shift = (
        workspace(scratch, kind, size),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
    )
    weights = workspace(scratch, kind, size if sums else uint64(0)) if race else x  # the race needs the logits again
    high, low = workspace(scratch, kind, width), workspace(scratch, kind, width)
    high64, low64, node_r, node_s, values = (
        empty(scratch, width, np.float64), empty(scratch, width, np.float64), empty(scratch, width, np.float64),
        empty(scratch, width, np.float64), empty(scratch, width, np.float64),
    )  # fmt: skip
    temperatures = empty(scratch, width, np.float64)
    rise, sampled = empty(scratch, width, np.int64), empty(scratch, width, np.uint8)
    chosen, identities = empty(scratch, width, np.uint64), empty(scratch, width, np.uint64)
    # grouped
    quantised = empty(scratch, uint64(0) if race else size, np.uint64)
    totals, targets, running = (
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
    )
    # gumbel_max
    padded = (uint64(j.columns) + uint64(3)) // uint64(4) * uint64(4) * width if race else uint64(0)
    words, refinements = empty(scratch, padded, np.uint32), empty(scratch, padded, np.uint32)
    # cut
    tags = empty(scratch, width, np.uint64)
    rows_cut, size_cut = (uint64(0), uint64(0)) if cut is None else (width, size)
    top_k, top_p = empty(scratch, rows_cut, np.int64), empty(scratch, rows_cut, np.float64)
    reach, off = empty(scratch, rows_cut, np.float64), empty(scratch, rows_cut, np.uint8)
    copy, masses = workspace(scratch, kind, size_cut), empty(scratch, size_cut, np.uint64)
    ordered = workspace(scratch, kind, uint64(padded_columns(j.columns)) * rows_cut)
    mass_limits, before = empty(scratch, rows_cut, np.uint64), empty(scratch, rows_cut, np.uint64)
    t, ties = workspace(scratch, kind, rows_cut), empty(scratch, rows_cut, np.int32)
    if lacks_scratch(j, scratch):
        return
    one_high, one_low = scalar.scale(j.temperature if j.temperatures == 0 else 1.0)
    for i in range(width):
        tags[i] = uint64(GROUPED)
        temperatures[i] = j.temperature if j.temperatures == 0 else 1.0
        high64[i], low64[i] = one_high, one_low
        high[i], low[i] = scalar.narrow(zero(kind), one_high, one_low)
    while True:
        tile = atomic_add(j.counter_at, int64(1))
        if tile >= j.end_item:
            break
        first = tile * int64(width)
        rows = min(j.rows - first, int64(width))
        read_form(kind, j, first, rows, width, x)
        row_factors(kind, j, first, rows, width, temperatures, high64, low64, high, low, sampled)
        references(x, j.columns, width, high, largest, r, rise, shift)
        if cut is not None:
            if j.logsumexp != 0:
                for i in range(size):
                    copy[i] = x[i]
                tile_weights(copy, j.columns, width, high, low, r, shift)
                halve_columns(copy, j.columns, width)
                nodes_of(copy, width, high64, low64, largest, r, shift, node_r, node_s)
                _store_sums(kind, j, first, rows, width, node_r, node_s, values)
            by_mass, by_reach = row_limits(j, first, rows, width, top_k, top_p, reach, off)
            cut(
                x, j.columns, width, by_mass, by_reach, largest, r, rise, shift, high, low, temperatures,
                top_k, top_p, reach, ordered, copy, masses, mass_limits, before, t, ties,
            )  # fmt: skip
            for i in range(width):
                tags[i] = uint64(GROUPED) if off[i] else uint64(TRUNCATED)
        if sums or not race:
            if race:
                for i in range(size):
                    weights[i] = x[i]
            tile_weights(weights, j.columns, width, high, low, r, shift)
        if not race and j.samples != 0:
            _tile_quantise(weights, j.columns, width, rise, quantised, totals)
        if sums:
            halve_columns(weights, j.columns, width)
            nodes_of(weights, width, high64, low64, largest, r, shift, node_r, node_s)
        for i in range(width):
            identities[i] = uint64(row_id(j, first + int64(i))) if i < uint64(rows) else uint64(0)
        if cut is None and (j.logsumexp != 0 or j.row_result != 0):
            _store_sums(kind, j, first, rows, width, node_r, node_s, values)
        if j.row_node != 0:
            for i in range(uint64(rows)):
                store_node(j, first + int64(i), node_r[i], node_s[i])
        for s in range(uint64(j.samples)):
            sample = uint64(j.first_sample) + s
            if race:
                _tile_race(
                    x, j.columns, width, temperatures, identities, sample, words, refinements, values, chosen, key, mask
                )
            else:
                _tile_choose(
                    quantised, j.columns, width, identities, tags, sample, totals, targets, running, chosen, key, mask
                )
            at = first * j.all_samples + int64(sample)
            for i in range(uint64(rows)):
                store(int64(0), j.indices, at + int64(i) * j.all_samples, int64(chosen[i]))
            if j.log_prob != 0:
                for i in range(uint64(rows)):
                    address = row_address(j, first + int64(i)) + int64(chosen[i]) * j.column_stride
                    values[i] = float64(load(kind, address, int64(0)))
                for i in range(width):
                    values[i] = scalar.log_prob(values[i], high64[i], low64[i], node_r[i], node_s[i])
                for i in range(uint64(rows)):
                    store_float(kind, j.log_prob, at + int64(i) * j.all_samples, values[i])
        for i in range(uint64(rows)):
            good = scalar.is_bounded(largest[i], high64[i]) and scalar.is_possible(largest[i], high64[i])
            if sampled[i] == uint8(0) or not good:
                _irregular(kind, j, first + int64(i), good)


@njit
def grouped_short(kind, job):
    """One worker for method="grouped"."""
    _short(kind, job_at(job), False, None)


@njit
def gumbel_max_short(kind, job):
    """One worker for method="gumbel_max"."""
    _short(kind, job_at(job), True, None)


@njit
def truncated_grouped_short(kind, job):
    """One worker for method="grouped" and limits."""
    _short(kind, job_at(job), False, cut_rows)


@njit
def truncated_gumbel_max_short(kind, job):
    """One worker for method="gumbel_max" and limits."""
    _short(kind, job_at(job), True, cut_rows)
