"""Sampling without replacement: the k largest of logits / T + the public float64 noise, in one pass.

A worker keeps a list of candidates in column order, up to twice as many as are wanted; when it is full, the best are
selected, and the worst of those is what later columns must exceed. The filter of `gumbel_max` finds the few that do;
tiles where many do compute every key. It carries no promised bits. Whoever finishes a row's last segment joins
the lists, sums what is left of the row, sorts the k and writes them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, int32, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import REFINEMENT
from .._scalar.bits import bits_to_float, fma, from_ordered_float64, ordered_float64
from .._scalar.blocks import join, log_prob
from .._scalar.elementary import LOG2E, exp_float64
from .._scalar.gumbel import ABSORBING, COLUMN_BITS, column_of, goes_first, gumbel_float64, place_of
from .._scalar.limits import BLOCK
from .._scalar.top_k import category_node, limit_at_zero, log_weight, rank_below
from .blocks import (
    block_at,
    block_max,
    block_node,
    collapse,
    count_blocks,
    new_lanes,
    new_stack,
    push,
    row_stream,
    scale_of,
)
from .categorical import segment_blocks
from .gumbel_max import Columns, Race, _below, _smallest, filters, race_key
from .memory import atomic_add, atomic_max, copy, element_size, load, store, zero
from .noise import fill_noise, fill_noise_and_ask
from .records import row_address, row_and_segment, row_temperature, row_wanted
from .results import note_bad, store_float
from .scratch import address_of, empty, lacks_scratch, open_scratch, tail
from .signatures import Choosing, Weighting
from .workers import each_item

_INF = math.inf
_NAN = math.nan
#: Columns between two looks at the list, and those whose candidates are counted together.
_TILE, _GROUP = 512, 64
#: Candidates in a tile from which it is cheaper to compute every key of it (3 ns each, 40 ns for one alone).
_MANY = 32
#: Candidates beyond those wanted, at least, before the best are selected.
_SPARE = 32
#: Lists up to this long are sorted by insertion.
_FEW = 40
#: Counters of digits: eight of 8 bits, or six of 11.
_COUNTERS = 6 << 11
#: Keys from which a pivot is chosen.
_SAMPLE = 63
_NONE = -(1 << 63)
#: In place of log2(e) / T where the logits decide: no finite one is out of range.
_ANY = 2.0**-4


class List(NamedTuple):
    """Keys of candidates and their places (`gumbel.place_of`)."""

    keys: Any
    places: Any


class _Bounds(NamedTuple):
    """What keys must exceed (`own`, of the worker's list; NaN while it is not full) or reach (`shared`)."""

    own: Any
    shared: Any


@njit
def _partition(a, low, high, pivot, inclusive):
    """Move elements above the pivot (or equal, if inclusive) to the front of a[low .. high - 1]; where they end."""
    to = uint64(low)
    for i in range(uint64(low), uint64(high)):
        # no branch: it would be mispredicted every other time
        value = a[i]
        a[i] = a[to]
        a[to] = value
        to += uint64(value > pivot) | (uint64(value == pivot) & inclusive)
    return int64(to)


@njit
def _nth_largest(a, n, rank, sample):
    """The element of a[:n] that `rank` others precede in descending order; it reorders them."""
    low, high = int64(0), int64(n)
    state = uint64(n)
    while True:
        # the pivot comes from a sample at pseudo-random places, so that no order of the input is slow, and lies where
        # the element sought should: most passes leave a small part
        count = int64(1) if high - low < 16 else int64(7) if high - low < 1024 else int64(_SAMPLE)
        for i in range(count):
            state = state * uint64(6364136223846793005) + uint64(1442695040888963407)
            value = a[low + int64((state >> uint64(33)) % uint64(high - low))]
            k = i
            while k > 0 and sample[k - 1] < value:
                sample[k] = sample[k - 1]
                k -= 1
            sample[k] = value
        pivot = sample[(rank - low) * count // (high - low)]
        above = _partition(a, low, high, pivot, uint64(0))
        if rank < above:
            high = above
            continue
        equal = _partition(a, above, high, pivot, uint64(1))
        if rank < equal:
            return pivot
        low = equal


@njit
def _select(found, n, wanted, spare):
    """Keep the `wanted` largest of n keys, the first of equals, in their order; the smallest of those kept."""
    keys, places = found
    for i in range(uint64(n)):
        spare[i] = keys[i]
    least = _nth_largest(spare, n, wanted - 1, tail(spare, n))
    above = int64(0)
    for i in range(uint64(n)):
        above += int64(keys[i] > least)
    equals = wanted - above
    if abs(least) >= ABSORBING:
        _keep_by_place(found, n, least, equals, spare)
        return least
    kept = uint64(0)
    for i in range(uint64(n)):
        key = keys[i]
        tie = int64(key == least)
        keys[kept], places[kept] = key, places[i]
        kept += uint64(key > least) | (uint64(tie) & uint64(equals > 0))
        equals -= tie
    return least


@inlined
def _before_column(place):
    """What orders equal keys before their columns do, descending."""
    return -float64(place >> int64(COLUMN_BITS))


@njit
def _keep_by_place(found, n, least, wanted, spare):
    """Keep keys above `least` and, of those that equal it, the `wanted` that go first by their places."""
    keys, places = found
    equals = int64(0)
    for i in range(uint64(n)):
        if keys[i] == least:
            spare[equals] = _before_column(places[i])
            equals += 1
    last = _nth_largest(spare, equals, wanted - 1, tail(spare, equals))
    for i in range(uint64(n)):
        wanted -= int64(keys[i] == least and _before_column(places[i]) > last)
    kept = uint64(0)
    for i in range(uint64(n)):
        key, place = keys[i], places[i]
        tie = key == least and _before_column(place) == last
        keep = key > least or (key == least and _before_column(place) > last) or (tie and wanted > 0)
        wanted -= int64(tie)
        keys[kept], places[kept] = key, place
        kept += uint64(keep)


@njit
def _insert(found, n, most):
    """Sort n keys by insertion, in at most so many moves; whether that did."""
    keys, places = found
    moves = int64(0)
    for i in range(1, n):
        key, place = keys[i], places[i]
        k = i - 1
        while k >= 0 and keys[k] < key:
            keys[k + 1], places[k + 1] = keys[k], places[k]
            k -= 1
        keys[k + 1], places[k + 1] = key, place
        moves += i - 1 - k
        if moves > most:
            return False
    return True


class _Digits(NamedTuple):
    """Bits first .. last - 1 of ranks below `top`, so many at a time."""

    top: Any
    first: Any
    last: Any
    bits: Any


@njit
def _by_digits(found, n, spare, counts, which):
    """Sort n keys by digits of their rank; equal ones keep their order."""
    top, first, last, bits = which
    digits = uint64(1) << bits
    passes = (last - first + bits - uint64(1)) // bits
    for v in range(passes * digits):
        counts[v] = 0
    for i in range(uint64(n)):
        rank = rank_below(found.keys[i], top) >> first
        for d in range(passes):
            counts[d * digits + (rank >> (d * bits) & (digits - uint64(1)))] += 1
    a, b = found, spare
    for d in range(passes):
        base, shift = d * digits, first + d * bits
        start = int64(0)
        for v in range(base, base + digits):
            count = counts[v]
            counts[v] = start
            start += count
        for i in range(uint64(n)):
            v = base + (rank_below(a.keys[i], top) >> shift & (digits - uint64(1)))
            to = uint64(counts[v])
            counts[v] += 1
            b.keys[to], b.places[to] = a.keys[i], a.places[i]
        a, b = b, a
    if passes & uint64(1):
        for i in range(uint64(n)):
            found.keys[i], found.places[i] = a.keys[i], a.places[i]


@njit
def _sort(found, n, spare, counts):
    """Sort n keys, with their places, from the largest on; of equal ones by their places: they come in column order."""
    keys, places = found
    _sort_keys(found, n, spare, counts)
    start = int64(0)
    while start < n:
        end = start + 1
        while end < n and keys[end] == keys[start]:
            end += 1
        if end - start > 1 and abs(keys[start]) >= ABSORBING:
            key, some = keys[start], List(tail(keys, start), tail(places, start))
            for i in range(uint64(end - start)):
                some.keys[i] = _before_column(some.places[i])
            _sort_keys(some, end - start, spare, counts)
            for i in range(uint64(end - start)):
                some.keys[i] = key
        start = end


@njit
def _sort_keys(found, n, spare, counts):
    """Sort n keys, with their places, from the largest on; equal ones keep their order."""
    if n <= _FEW:
        _insert(found, n, n * n)
        return
    top = ordered_float64(found.keys[0] + 0.0)
    for i in range(uint64(n)):
        top = max(top, ordered_float64(found.keys[i] + 0.0))
    ranks = uint64(0)
    for i in range(uint64(n)):
        ranks |= rank_below(found.keys[i], top)
    last = uint64(0)
    while last < uint64(64) and ranks >> last != uint64(0):
        last += uint64(1)
    # the leading 32 or 33 bits leave few neighbours to exchange, unless most keys are close and others far away
    bits, leading = (uint64(8), uint64(32)) if n < 4096 else (uint64(11), uint64(33))
    first = last - leading if last > leading else uint64(0)
    _by_digits(found, n, spare, counts, _Digits(top, first, last, bits))
    if not _insert(found, n, 4 * n):
        _by_digits(found, n, spare, counts, _Digits(top, uint64(0), last, bits))


class _Filter(NamedTuple):
    """What tells candidates from their first words and logits alone."""

    largest: Any
    rate: Any
    offset: Any  # log2 of exp(largest / T - best), biased


@inlined
def _bound(x, sieve):
    """A float32 not below exp(x / T - best): `_above` with the factor in its exponent."""
    z = fma(float32(x - sieve.largest), sieve.rate, sieve.offset)
    return bits_to_float(int32(max(z, float32(0.0))))


@njit
def _count_candidates(kind, columns, first, count, sieve, hits):
    """How many columns of each group of a block, from column `first` on, pass the filter."""
    total = int32(0)
    for g in range(uint64(first) // uint64(_GROUP), uint64(count + _GROUP - 1) // uint64(_GROUP)):
        start = g * uint64(_GROUP)
        end = min(start + uint64(_GROUP), uint64(count))
        found = int32(0)
        for i in range(start, end):
            found += int32(_below(columns.x[i]) <= _bound(load(kind, columns.address, int64(i)), sieve))
        hits[g] = found
        total += found
    return total


@njit
def _few(kind, columns, span, sieve, race, bounds, arrays, n):
    """Append the columns of a tile that pass the filter and whose keys are large enough."""
    first, last = span
    found, hits = arrays.found, arrays.hits
    for g in range(uint64(first) // uint64(_GROUP), uint64(last + _GROUP - 1) // uint64(_GROUP)):
        if hits[g] == 0:
            continue
        start = int64(g) * _GROUP
        for i in range(start, min(start + _GROUP, int64(last))):
            logit, word = load(kind, columns.address, i), columns.x[uint64(i)]
            if not _below(word) <= _bound(logit, sieve) or logit == -_INF:
                continue
            value, place = race_key(logit, word, columns.first + i, race)
            if value >= bounds.shared and not value <= bounds.own:
                found.keys[n], found.places[n] = value, place
                n += 1
    return n


@njit
def _tile_keys(kind, columns, count, y, temperature, values):
    for i in range(uint64(count)):
        g = gumbel_float64(uint64(columns.x[i]), uint64(y[i]))
        values[i] = float64(load(kind, columns.address, int64(i))) / temperature + g


@njit
def _plain_keys(kind, address, count, values):
    """Temperature 0: the logits decide."""
    for i in range(uint64(count)):
        values[i] = float64(load(kind, address, int64(i)))


@njit
def _append(kind, columns, count, bounds, high64, arrays, n):
    """Append the possible columns of a tile whose keys are large enough."""
    at, found = uint64(n), arrays.found
    for i in range(uint64(count)):
        value = arrays.values[i]
        found.keys[at], found.places[at] = value, columns.first + int64(i)
        # ties with what this list holds lose, unless their places decide: those columns are smaller
        possible = scalar.is_possible(load(kind, columns.address, int64(i)), high64)
        at += uint64(value >= bounds.shared and not value <= bounds.own and possible)
    return int64(at)


@njit
def _find_places(kind, columns, y, temperature, found, n, end):
    """Places in the order of equals, of candidates n .. end - 1 of a tile that have more than their columns."""
    for i in range(uint64(n), uint64(end)):
        if abs(found.keys[i]) >= ABSORBING:
            at = found.places[i] - columns.first
            g = gumbel_float64(uint64(columns.x[uint64(at)]), uint64(y[uint64(at)]))
            z = float64(load(kind, columns.address, at)) / temperature
            found.places[i] = place_of(found.places[i], z, g, found.keys[i])


@inlined
def _below_equals(key):
    """What must be exceeded by keys that are to beat this one, or to equal it where their places decide."""
    return from_ordered_float64(ordered_float64(key) - int64(1)) if abs(key) >= ABSORBING else key


@njit
def _share(lists, row, own):
    """Publish the least key of a full list of a row's, and learn the largest that others published."""
    if lists.limits == 0:
        return -_INF
    mine = int64(_NONE) if own != own else ordered_float64(own)
    others = atomic_max(lists.limits + 8 * (row - lists.first_row), mine)
    return -_INF if others == _NONE else from_ordered_float64(others)


class _Arrays(NamedTuple):
    found: Any  # the list of candidates
    spare: Any  # keys
    spare_places: Any
    counts: Any
    x: Any
    y: Any
    values: Any
    hits: Any
    lanes: Any
    buffer: Any
    stack: Any
    terms: Any
    nodes: Any


@inlined
def _lengths(p):
    """How many keys are wanted of a row, and from how many on the best are selected."""
    wanted = min(p.k + 1, p.logits.columns)
    return wanted, wanted + max(wanted, int64(_SPARE))


@inlined
def _nodes_of_row(p, row, own):
    """Addresses of r and of S of a row's blocks, or zeros where they are not kept."""
    blocks = count_blocks(p.logits.columns)
    if p.keeps_nodes == 0:
        return int64(0), int64(0)
    nodes = address_of(own) if p.split.segments == 1 else p.lists.nodes + 16 * blocks * (row - p.lists.first_row)
    return nodes, nodes + 8 * blocks


@njit
def _tile(kind, tile, width, race, bounds, nearest, arrays, n):
    """Append what a tile holds, every key being computed; the length of the list."""
    greedy, best = (
        race.temperature == 0.0,
        max(bounds.own, bounds.shared) if bounds.own == bounds.own else bounds.shared,
    )
    # no noise exceeds 45.06
    above = float64(nearest) if greedy else float64(nearest) / race.temperature + 45.1
    if above < best or nearest == -_INF:
        return n
    if greedy:
        _plain_keys(kind, tile.address, width, arrays.values)
        return _append(kind, tile, width, bounds, _ANY, arrays, n)
    fill_noise(arrays.y, width, tile.first, 0, REFINEMENT, race.stream)
    _tile_keys(kind, tile, width, arrays.y, race.temperature, arrays.values)
    near = _Bounds(_below_equals(bounds.own), bounds.shared)
    high64, _ = scalar.scale(race.temperature)
    end = _append(kind, tile, width, near, high64, arrays, n)
    _find_places(kind, tile, arrays.y, race.temperature, arrays.found, n, end)
    return end


@njit
def _segment(kind, p, row, segment, arrays):
    """(length of the list of candidates, whether the row is bad) after a segment."""
    temperature = row_temperature(p.temperatures, row)
    greedy = temperature == 0.0
    scale = scale_of(kind, 1.0 if greedy else temperature)
    wanted, room = _lengths(p)
    nodes_r, nodes_s = _nodes_of_row(p, row, arrays.nodes)
    guess = zero(kind)
    rate, _ = scalar.narrow(float32(0), scale.high64 * 8388608.0, 0.0)
    address, stream = row_address(p.logits, row), row_stream(p.stream, row)
    race = Race(stream, int64(0), temperature)
    first, last = segment_blocks(p, segment)
    x, hits, size = arrays.x, arrays.hits, element_size(kind)
    n, own = int64(0), _NAN
    for b in range(first, last):
        block = int64(b)
        column = block * BLOCK
        at, count = block_at(kind, p.logits, address, block, arrays.buffer)
        if not greedy:
            ahead = at if p.logits.column_stride == p.logits.item_size else int64(0)
            fill_noise_and_ask(ahead, p.logits.item_size, x, count, column, 0, stream)
            if nodes_r != 0:
                guess, r, total = block_node(kind, at, count, scale, guess, arrays.lanes)
                store(float64(0), nodes_r, block, r)
                store(float64(0), nodes_s, block, total)
        shared = _share(p.lists, row, own)
        largest, nan = block_max(kind, at, count)
        if nan or not (largest < _INF if greedy else scalar.is_bounded(largest, scale.high64)):
            return n, True
        if largest == -_INF:
            continue
        top = float64(largest) if greedy else float64(largest) / temperature
        columns = Columns(at, x, column)
        sieve = _Filter(largest, rate, float32(0))
        counted = False
        for start in range(0, count, _TILE):
            width = min(int64(count - start), int64(_TILE))
            best = own if own > shared else shared
            if not counted and not greedy and top - best < 80.0 and filters(largest, temperature):
                # 2^-11 for its rounding and that of the logits' differences
                offset = float32((127.0 + max(top - best, -80.0) * LOG2E + 2.0**-11) * 8388608.0)
                sieve = _Filter(largest, rate, offset)
                if not _below(_smallest(x, start, count)) <= bits_to_float(int32(offset)):
                    break
                if _count_candidates(kind, columns, start, count, sieve, hits) == 0:
                    break
                counted = True
            if counted:
                found = int32(0)
                for g in range(start // _GROUP, (start + width + _GROUP - 1) // _GROUP):
                    found += hits[g]
                if found == 0:
                    continue
                if found <= _MANY:
                    near = _Bounds(_below_equals(own), shared)
                    n = _few(kind, columns, (start, start + width), sieve, race, near, arrays, n)
            if not counted or found > _MANY:
                tile = Columns(at + start * size, tail(x, start), column + start)
                nearest, _ = block_max(kind, tile.address, width)
                n = _tile(kind, tile, width, race, _Bounds(own, shared), nearest, arrays, n)
            if n >= room or (own != own and n > wanted):
                own = _select(arrays.found, n, wanted, arrays.spare)
                n = wanted
    return n, False


@njit
def _rest(kind, p, row, scale, arrays):
    """The node of all columns but the k first found, which ascend: blocks without any of those are not read again."""
    guess, places, stack = zero(kind), arrays.found.places, arrays.stack
    address = row_address(p.logits, row)
    nodes_r, nodes_s = _nodes_of_row(p, row, arrays.nodes)
    blocks = count_blocks(p.logits.columns)
    chosen = int64(0)
    for block in range(blocks):
        end = chosen
        while end < p.k and column_of(places[end]) < (block + 1) * BLOCK:
            end += 1
        if end == chosen and nodes_r != 0:
            r, total = load(float64(0), nodes_r, block), load(float64(0), nodes_s, block)
        else:
            at, count = block_at(kind, p.logits, address, int64(block), arrays.buffer)
            copied = address_of(arrays.buffer)
            if end != chosen and at != copied:
                for i in range(count):
                    copy(kind, copied, int64(i), at + int64(i) * element_size(kind))
                at = copied
            for i in range(chosen, end):
                store(kind, at, column_of(places[i]) - block * BLOCK, type(guess)(-_INF))
            guess, r, total = block_node(kind, at, count, scale, guess, arrays.lanes)
        chosen = end
        push(stack, block, r, total)
    return collapse(stack, blocks)


@njit
def _log_prob(kind, p, row, scale, rest, arrays):
    """Sum of phi_i - R_i over the columns in `places` in order, `rest` being the node of all others."""
    r, total = rest
    places, terms, high64, low64 = arrays.found.places, arrays.terms, scale.high64, scale.low64
    address = row_address(p.logits, row)
    terms_r, terms_s = tail(terms, _TILE), tail(terms, 2 * _TILE)
    result = 0.0
    for end in range(p.k, 0, -_TILE):
        n = uint64(min(int64(end), int64(_TILE)))
        first = uint64(end) - n
        # four loops: only that of the sums waits for the one before
        for i in range(n):
            x = load(kind, address + places[first + i] * p.logits.column_stride, int64(0))
            terms[i] = float64(x)
        for i in range(n):
            terms_r[i], terms_s[i] = category_node(terms[i], high64, low64)
        for i in range(n):
            at = n - uint64(1) - i
            r, total = join(terms_r[at], terms_s[at], r, total)
            terms_r[at], terms_s[at] = r, total
        for i in range(n):
            terms[i] = log_prob(terms[i], high64, low64, terms_r[i], terms_s[i])
        for i in range(n):
            result += terms[n - uint64(1) - i]
    return result


@njit
def _write_none(kind, p, row):
    """A row that was left out or is bad: index -1, NaN for everything else."""
    for i in range(p.k):
        store(int64(0), p.results.indices, row * p.k + int64(i), int64(-1))
        store(float64(0), p.results.perturbed, row * p.k + int64(i), _NAN)
    store_float(kind, p.results.log_prob, row, _NAN)
    store(float64(0), p.results.threshold, row, _NAN)


@njit
def _write_row(kind, work, p, row, n, arrays):
    """Results of a row from its n candidates, in column order; -1: it is bad."""
    k, temperature = p.k, row_temperature(p.temperatures, row)
    keys, places = arrays.found
    spare = List(arrays.spare, arrays.spare_places)
    if n < k:
        _write_none(kind, p, row)
        note_bad(work, row)
        return
    wanted, _ = _lengths(p)
    if n > wanted:
        _select(arrays.found, n, wanted, arrays.spare)
        n = wanted
    threshold = -_INF
    if n > k:
        last = int64(0)
        for i in range(1, n):
            if goes_first(keys[last], places[last], keys[i], places[i]):
                last = int64(i)
        threshold = keys[last]
        for i in range(last, k):
            keys[i], places[i] = keys[i + 1], places[i + 1]
    log_p = 0.0
    if temperature == 0.0:
        _sort(arrays.found, k, spare, arrays.counts)
        for i in range(k):
            keys[i] = limit_at_zero(keys[i])
        threshold = limit_at_zero(threshold)
    else:
        scale = scale_of(kind, temperature)
        rest = _rest(kind, p, row, scale, arrays)
        _sort(arrays.found, k, spare, arrays.counts)
        for i in range(uint64(k)):
            places[i] = column_of(places[i])
        log_p = _log_prob(kind, p, row, scale, rest, arrays)
    for i in range(k):
        store(int64(0), p.results.indices, row * k + i, places[i])
        store(float64(0), p.results.perturbed, row * k + i, keys[i])
    store_float(kind, p.results.log_prob, row, log_p)
    store(float64(0), p.results.threshold, row, threshold)


@njit
def _join(p, row, arrays):
    """Length of the list of a row from those of its segments, or -1 if one is bad."""
    (keys, places), (wanted, room) = arrays.found, _lengths(p)
    n = int64(0)
    for g in range(p.split.segments):
        item = (row - p.lists.first_row) * p.split.segments + int64(g)
        length = load(int64(0), p.lists.lengths, item)
        if length < 0:
            return int64(-1)
        for start in range(0, length, _TILE):
            for i in range(start, min(start + _TILE, length)):
                keys[n] = load(float64(0), p.lists.keys, item * wanted + int64(i))
                places[n] = load(int64(0), p.lists.places, item * wanted + int64(i))
                n += 1
            if n >= room:
                _select(arrays.found, n, wanted, arrays.spare)
                n = wanted
    return n


@inlined
def _item(kind, work, p, item, arrays):
    row, segment = row_and_segment(p.split, p.logits.rows, item)
    if not row_wanted(p.row_mask, row):
        if segment == 0:
            _write_none(kind, p, row)
        return
    n, bad = _segment(kind, p, row, segment, arrays)
    if p.split.segments > 1:
        wanted, _ = _lengths(p)
        if n > wanted:
            _select(arrays.found, n, wanted, arrays.spare)
            n = wanted
        own_row = row - p.lists.first_row
        cell = own_row * p.split.segments + segment
        for i in range(n):
            store(float64(0), p.lists.keys, cell * wanted + i, arrays.found.keys[i])
            store(int64(0), p.lists.places, cell * wanted + i, arrays.found.places[i])
        store(int64(0), p.lists.lengths, cell, int64(-1) if bad else n)
        if atomic_add(p.split.pending + 8 * own_row, int64(-1)) > 1:
            return
        n = _join(p, row, arrays)
    elif bad:
        n = int64(-1)
    _write_row(kind, work, p, row, n, arrays)


@njit
def top_k(kind, work, p: Choosing):
    """One worker: take segments until none is left."""
    scratch = open_scratch(work)
    columns = p.logits.columns
    _, room = _lengths(p)
    size = min(room, columns) + _TILE + 1
    keeps = p.keeps_nodes != 0 and p.split.segments == 1
    arrays = _Arrays(
        List(empty(scratch, size, np.float64), empty(scratch, size, np.int64)),
        empty(scratch, size + _SAMPLE, np.float64),
        empty(scratch, p.k, np.int64),
        empty(scratch, _COUNTERS if p.k > _FEW else 0, np.int64),
        empty(scratch, min((columns + 3) // 4 * 4, int64(BLOCK)), np.uint32),
        empty(scratch, _TILE, np.uint32),
        empty(scratch, _TILE, np.float64),
        empty(scratch, BLOCK // _GROUP, np.int32),
        new_lanes(scratch, kind),
        empty(scratch, min(columns, int64(BLOCK)), np.float64),
        new_stack(scratch),
        empty(scratch, 3 * _TILE, np.float64),
        empty(scratch, 2 * count_blocks(columns) if keeps else 0, np.float64),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, p.split.chunk_size, _item, arrays)


@inlined
def _weigh_row(kind, work, p, row, arrays):
    k, chosen = p.chosen.columns, p.chosen.data
    kappa, temperature = load(float64(0), p.threshold, row), row_temperature(p.temperatures, row)
    logsumexp = load(float64(0), p.logsumexp, row) if p.logsumexp != 0 else 0.0
    top = -_INF
    for i in range(k):
        at = row * k + int64(i)
        if temperature == 0.0:
            value = 0.0 if i == 0 else -_INF
        else:
            value = log_weight(load(float64(0), chosen, at) / temperature, kappa, logsumexp)
        top = max(top, value)
        store(float64(0), chosen, at, value)
    total = 0.0
    for i in range(k):
        at = row * k + int64(i)
        value = exp_float64(load(float64(0), chosen, at) - (top if p.normalized != 0 else 0.0))
        total += value
        store(float64(0), chosen, at, value)
    if p.normalized != 0:
        for i in range(k):
            at = row * k + int64(i)
            store(float64(0), chosen, at, load(float64(0), chosen, at) / total)


@njit
def top_k_weights(kind, work, p: Weighting):
    """One worker: inclusion weights of rows, in place of the chosen logits."""
    each_item(kind, work, p, p.chunk_size, _weigh_row, None)
