"""Both methods for short rows: many at a time, transposed, so that SIMD lanes are rows.

A row of up to 256 columns is a lone block. The arithmetic and its order are those of `categorical` and
`gumbel_max`; a filter would not pay here, so that every float64 noise value is computed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint8, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import GROUPED, NOISE, REFINEMENT, TRUNCATED, block_words, draw_key
from .._scalar.bits import larger
from .._scalar.blocks import LANES
from .._scalar.gumbel import ABSORBING, gumbel_float64, place_of
from .cuts import cut_rows, new_cuts, read_limits
from .memory import load, store, zero
from .noise import fill_across
from .records import row_address, row_id, row_temperature, row_wanted
from .results import store_float, store_logsumexp, store_node, write_argmax, write_bad, write_empty
from .scratch import empty, lacks_scratch, open_scratch, workspace
from .signatures import ShortSampling, ShortTruncatedSampling
from .tiles import read_tile_of
from .workers import each_tile

_INF = math.inf


class Factors(NamedTuple):
    """Of each row of a tile: its temperature, `blocks.Scale`, and whether it is to be sampled at all."""

    temperatures: Any
    high64: Any
    low64: Any
    high: Any
    low: Any
    sampled: Any


class References(NamedTuple):
    """Of each row of a tile: its largest logit, its canonical reference, and what is subtracted where it is far."""

    largest: Any  # NaN if there is one
    r: Any
    rise: Any
    shift: Any


class Nodes(NamedTuple):
    """The root (r, S) of each row of a tile."""

    r: Any
    s: Any


@inlined
def new_factors(kind, scratch, width):
    """Not filled yet."""
    return Factors(
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        empty(scratch, width, np.float64),
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        empty(scratch, width, np.uint8),
    )


@inlined
def new_references(kind, scratch, width):
    """Not filled yet."""
    return References(
        workspace(scratch, kind, width),
        workspace(scratch, kind, width),
        empty(scratch, width, np.int64),
        workspace(scratch, kind, width),
    )


@inlined
def new_nodes(scratch, width):
    """Not filled yet."""
    return Nodes(empty(scratch, width, np.float64), empty(scratch, width, np.float64))


@njit
def common_factors(kind, temperature, width, factors):
    """The same temperature for all rows."""
    high64, low64 = scalar.scale(temperature)
    for i in range(width):
        factors.temperatures[i] = temperature
        factors.high64[i], factors.low64[i] = high64, low64
        factors.high[i], factors.low[i] = scalar.narrow(zero(kind), high64, low64)


@njit
def row_factors(kind, p, first, rows, width, factors):
    """Factors of a tile's rows where each has its own, and which rows are to be sampled at all."""
    for i in range(uint64(width)):
        factors.sampled[i] = uint8(i < uint64(rows))
    if p.temperatures.each == 0 and p.row_mask == 0:
        return
    for i in range(uint64(rows)):
        row = first + int64(i)
        temperature = row_temperature(p.temperatures, row)
        if not (temperature > 0.0 and row_wanted(p.row_mask, row)):
            factors.sampled[i], temperature = uint8(0), 1.0
        factors.temperatures[i] = temperature
        factors.high64[i], factors.low64[i] = scalar.scale(temperature)
        factors.high[i], factors.low[i] = scalar.narrow(zero(kind), factors.high64[i], factors.low64[i])


@njit
def find_references(x, columns, width, high, references):
    """References of all rows."""
    largest = references.largest
    for i in range(uint64(width)):
        largest[i] = x[i]
    for c in range(uint64(1), uint64(columns)):
        for i in range(uint64(width)):
            largest[i] = larger(largest[i], x[c * uint64(width) + i])
    for i in range(uint64(width)):
        references.r[i], references.rise[i], far = scalar.reference_of_maximum(largest[i], high[i])
        references.shift[i] = largest[i] if far else high[i] - high[i]


@njit
def tile_weights(x, columns, width, factors, references):
    """X becomes the weights."""
    high, low, r, shift = factors.high, factors.low, references.r, references.shift
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            x[at] = scalar.weight(x[at] - shift[i], high[i], low[i], r[i])


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
def nodes_of(x, width, factors, references, nodes):
    """The roots of rows whose sums stand in front of x."""
    for i in range(uint64(width)):
        nodes.r[i], nodes.s[i] = scalar.plain_node(references.r[i], x[i])
    for i in range(uint64(width)):
        if references.shift[i] != 0:
            largest = float64(references.largest[i])
            nodes.r[i], nodes.s[i] = scalar.far_node(largest, factors.high64[i], factors.low64[i], float64(x[i]))


class _Choice(NamedTuple):
    """Grouped: quantised weights, and a sample's choice in each row."""

    quantised: Any
    totals: Any
    targets: Any
    running: Any
    tags: Any


class _Words(NamedTuple):
    """Gumbel-max: a sample's words, transposed, and the best perturbed logit of each row."""

    x: Any
    y: Any
    best: Any


class _Arrays(NamedTuple):
    x: Any
    weights: Any
    factors: Any
    references: Any
    nodes: Any
    values: Any
    chosen: Any
    identities: Any
    choice: Any
    words: Any
    cuts: Any


@njit
def _quantise(x, columns, width, rise, choice):
    """Quantised weights, and each row's total."""
    quantised, totals = choice.quantised, choice.totals
    for i in range(uint64(width)):
        totals[i] = uint64(0)
    for c in range(uint64(columns)):
        for i in range(uint64(width)):
            at = c * uint64(width) + i
            q = scalar.quantise(x[at], rise[i])
            quantised[at] = q
            totals[i] += q


@njit
def _choose(columns, width, sample, key, mask, arrays):
    """chosen[i]: the first column of row i whose running sum exceeds its target."""
    identities, chosen = arrays.identities, arrays.chosen
    quantised, totals, targets, running, tags = arrays.choice
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
def _race(columns, width, sample, key, mask, arrays):
    """chosen[i]: the column of the largest logit / T + G in row i, the first of equals."""
    x, identities, chosen, temperatures = arrays.x, arrays.identities, arrays.chosen, arrays.factors.temperatures
    words, refinements, best = arrays.words
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
            chosen[i] = _first_of_equals(x, columns, width, i, temperatures[i], arrays.words)


@njit
def _first_of_equals(x, columns, width, i, temperature, words):
    """The column that goes first in row i of those whose perturbed logit is the largest."""
    first, chosen = int64(-1), uint64(0)
    best = words.best[i]
    for c in range(uint64(columns)):
        at = c * uint64(width) + i
        z, g = float64(x[at]) / temperature, gumbel_float64(uint64(words.x[at]), uint64(words.y[at]))
        if z + g == best:
            place = place_of(c, z, g, best)
            if first < 0 or place < first:
                first, chosen = place, c
    return chosen


@njit
def _irregular(kind, work, p, row, good):
    """Write a row that is not sampled: masked out, its argmax wanted, or bad."""
    if not row_wanted(p.row_mask, row):
        write_empty(kind, p.results, row)
    elif row_temperature(p.temperatures, row) == 0.0:
        write_argmax(kind, work, p.logits, p.results, row)
    elif not good:
        write_bad(kind, work, p.results, row)


@njit
def _store_sums(kind, results, first, rows, width, nodes, values):
    for i in range(width):
        values[i] = scalar.logsumexp(nodes.r[i], nodes.s[i])
    for i in range(uint64(rows)):
        store_logsumexp(kind, results, first + int64(i), values[i])


@inlined
def _store_sample(kind, p, first, rows, sample, arrays):
    """The columns chosen for a sample, and their log-probabilities where they are asked for."""
    results, chosen, values = p.results, arrays.chosen, arrays.values
    at = first * results.stride + sample
    for i in range(uint64(rows)):
        store(int64(0), results.indices, at + int64(i) * results.stride, int64(chosen[i]))
    if results.log_prob == 0:
        return
    factors, nodes = arrays.factors, arrays.nodes
    for i in range(uint64(rows)):
        address = row_address(p.logits, first + int64(i)) + int64(chosen[i]) * p.logits.column_stride
        values[i] = float64(load(kind, address, int64(0)))
    for i in range(uint64(p.width)):
        values[i] = scalar.log_prob(values[i], factors.high64[i], factors.low64[i], nodes.r[i], nodes.s[i])
    for i in range(uint64(rows)):
        store_float(kind, results.log_prob, at + int64(i) * results.stride, values[i])


@inlined
def _wants_sums(results, cuts):
    """Whether sums are made of what is drawn from; those of whole rows are made beside them, if they are cut."""
    whole = results.logsumexp != 0 or results.logsumexp64 != 0 or results.partial_sums != 0
    return results.log_prob != 0 or (cuts is None and whole)


@inlined
def _cut_tile(kind, p, first, rows, width, arrays, cuts):
    """Exclude what the limits of a tile's rows exclude, and write the sums of whole rows; without `cuts`, nothing."""
    if cuts is None:
        return
    x, columns = arrays.x, p.logits.columns
    if p.results.logsumexp != 0:
        for i in range(uint64(columns) * width):
            cuts.weights[i] = x[i]
        tile_weights(cuts.weights, columns, width, arrays.factors, arrays.references)
        halve_columns(cuts.weights, columns, width)
        nodes_of(cuts.weights, width, arrays.factors, arrays.references, arrays.nodes)
        _store_sums(kind, p.results, first, rows, width, arrays.nodes, arrays.values)
    by = read_limits(p.limits, columns, first, rows, width, cuts)
    cut_rows(x, columns, width, by, arrays.factors, arrays.references, cuts)
    for i in range(width):
        arrays.choice.tags[i] = uint64(GROUPED) if cuts.off[i] else uint64(TRUNCATED)


@inlined
def _write_sums(kind, p, first, rows, width, arrays):
    """Roots and logsumexps of a tile's rows where they are asked for."""
    results, nodes = p.results, arrays.nodes
    if arrays.cuts is None and (results.logsumexp != 0 or results.logsumexp64 != 0):
        _store_sums(kind, results, first, rows, width, nodes, arrays.values)
    if results.partial_sums != 0:
        for i in range(uint64(rows)):
            store_node(results, first + int64(i), nodes.r[i], nodes.s[i])


@inlined
def _sum_up(columns, width, arrays):
    """Roots of a tile's rows from their weights, which are lost."""
    halve_columns(arrays.weights, columns, width)
    nodes_of(arrays.weights, width, arrays.factors, arrays.references, arrays.nodes)


@inlined
def _prepare_choice(results, columns, width, arrays):
    """Grouped: quantised weights, and roots where they are needed."""
    tile_weights(arrays.weights, columns, width, arrays.factors, arrays.references)
    if results.samples != 0:
        _quantise(arrays.weights, columns, width, arrays.references.rise, arrays.choice)
    if _wants_sums(results, arrays.cuts):
        _sum_up(columns, width, arrays)


@inlined
def _prepare_race(results, columns, width, arrays):
    """Gumbel-max: roots where they are needed, from a copy of the logits."""
    if _wants_sums(results, arrays.cuts):
        for i in range(uint64(columns) * width):
            arrays.weights[i] = arrays.x[i]
        tile_weights(arrays.weights, columns, width, arrays.factors, arrays.references)
        _sum_up(columns, width, arrays)


def _tile_maker(prepare, choose):
    """What samples a tile, by two functions of the method."""

    @inlined
    def tile(kind, work, p, first, rows, arrays):
        width, columns = uint64(p.width), p.logits.columns
        key, mask = draw_key(p.stream.seed, p.stream.draw)
        factors, references = arrays.factors, arrays.references
        read_tile_of(kind, p.logits, first, rows, width, arrays.x)
        row_factors(kind, p, first, rows, width, factors)
        find_references(arrays.x, columns, width, factors.high, references)
        _cut_tile(kind, p, first, rows, width, arrays, arrays.cuts)
        prepare(p.results, columns, width, arrays)
        _write_sums(kind, p, first, rows, width, arrays)
        for i in range(width):
            arrays.identities[i] = uint64(row_id(p.stream, first + int64(i))) if i < uint64(rows) else uint64(0)
        for s in range(p.results.samples):
            sample = p.results.first_sample + int64(s)
            choose(columns, width, uint64(sample), key, mask, arrays)
            _store_sample(kind, p, first, rows, sample, arrays)
        for i in range(uint64(rows)):
            largest, high64 = references.largest[i], factors.high64[i]
            good = scalar.is_bounded(largest, high64) and scalar.is_possible(largest, high64)
            if factors.sampled[i] == uint8(0) or not good:
                _irregular(kind, work, p, first + int64(i), good)

    return tile


_tile_grouped = _tile_maker(_prepare_choice, _choose)
_tile_gumbel_max = _tile_maker(_prepare_race, _race)


@inlined
def _no_cuts(kind, scratch, columns, width):
    """Nothing is cut."""
    return None


@inlined
def _for_grouped(kind, scratch, p, x, values, cuts):
    """(weights, choice, words) of grouped sampling."""
    width = uint64(p.width)
    choice = _Choice(
        empty(scratch, uint64(p.logits.columns) * width, np.uint64),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
    )
    return x, choice, None


@inlined
def _for_race(kind, scratch, p, x, values, cuts):
    """The same of Gumbel-max, which needs the logits again."""
    width, columns = uint64(p.width), uint64(p.logits.columns)
    weights = workspace(scratch, kind, columns * width if _wants_sums(p.results, cuts) else uint64(0))
    padded = (columns + uint64(3)) // uint64(4) * uint64(4) * width
    words = _Words(empty(scratch, padded, np.uint32), empty(scratch, padded, np.uint32), values)
    return weights, _Choice(None, None, None, None, empty(scratch, width, np.uint64)), words


@inlined
def _short(kind, work, p, tile, for_method, for_cuts):
    """Sample tiles until none is left, with the arrays that the last two functions make."""
    scratch = open_scratch(work)
    width = uint64(p.width)
    x = workspace(scratch, kind, uint64(p.logits.columns) * width)
    values = empty(scratch, width, np.float64)
    cuts = for_cuts(kind, scratch, p.logits.columns, width)
    weights, choice, words = for_method(kind, scratch, p, x, values, cuts)
    arrays = _Arrays(
        x,
        weights,
        new_factors(kind, scratch, width),
        new_references(kind, scratch, width),
        new_nodes(scratch, width),
        values,
        empty(scratch, width, np.uint64),
        empty(scratch, width, np.uint64),
        choice,
        words,
        cuts,
    )
    if lacks_scratch(work, scratch):
        return
    common_factors(kind, p.temperatures.common if p.temperatures.each == 0 else 1.0, width, arrays.factors)
    for i in range(width):
        choice.tags[i] = uint64(GROUPED)
    each_tile(kind, work, p, p.logits.rows, tile, arrays)


@njit
def grouped_short(kind, work, p: ShortSampling):
    """One worker for method="grouped"."""
    _short(kind, work, p, _tile_grouped, _for_grouped, _no_cuts)


@njit
def gumbel_max_short(kind, work, p: ShortSampling):
    """One worker for method="gumbel_max"."""
    _short(kind, work, p, _tile_gumbel_max, _for_race, _no_cuts)


@njit
def truncated_grouped_short(kind, work, p: ShortTruncatedSampling):
    """One worker for method="grouped" and limits."""
    _short(kind, work, p, _tile_grouped, _for_grouped, new_cuts)


@njit
def truncated_gumbel_max_short(kind, work, p: ShortTruncatedSampling):
    """One worker for method="gumbel_max" and limits."""
    _short(kind, work, p, _tile_gumbel_max, _for_race, new_cuts)
