"""Sampling without replacement: the k largest of logits / T + the public float64 noise, in one pass.

A worker keeps a list of candidates in column order, up to twice as many as are wanted; when it is full, the best are
selected, and the worst of those is what later columns must exceed. The filter of `gumbel_max` finds the few that do;
tiles where many do compute every key. It carries no promised bits. Whoever finishes a row's last segment joins
the lists, sums what is left of the row, sorts the k and writes them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int32, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.address import REFINEMENT, draw_key
from .._scalar.bits import bits_to_float, fma, from_ordered_float64, ordered_float64
from .._scalar.blocks import BLOCK, LANES, join, log_prob
from .._scalar.elementary import LOG2E, exp_float64
from .._scalar.gumbel import ABSORBING, COLUMN_BITS, column_of, goes_first, gumbel_float64, place_of
from .._scalar.top_k import category_node, limit_at_zero, log_weight, rank_below
from .blocks import LEVELS, block_address, block_max, block_node, collapse, push
from .gumbel_max import _below, _smallest, filters, race_key
from .job import job_at, row_address, row_and_segment, row_id, row_temperature, row_wanted, take_items
from .memory import atomic_add, atomic_max, atomic_min, copy, element_size, load, store, zero
from .noise import fill_noise, fill_noise_and_ask
from .results import store_float
from .scratch import address_of, empty, lacks_scratch, open_scratch, tail, workspace

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
def _select(keys, places, n, wanted, spare):
    """Keep the `wanted` largest of n keys, the first of equals, in their order; the smallest of those kept."""
    for i in range(uint64(n)):
        spare[i] = keys[i]
    least = _nth_largest(spare, n, wanted - 1, tail(spare, n))
    above = int64(0)
    for i in range(uint64(n)):
        above += int64(keys[i] > least)
    equals = wanted - above
    if abs(least) >= ABSORBING:
        _keep_by_place(keys, places, n, least, equals, spare)
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
def _keep_by_place(keys, places, n, least, wanted, spare):
    """Keep keys above `least` and, of those that equal it, the `wanted` that go first by their places."""
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
def _insert(keys, places, n, most):
    """Sort n keys by insertion, in at most so many moves; whether that did."""
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


@njit
def _by_digits(keys, places, n, spare_keys, spare_places, counts, top, first, last, bits):
    """Sort n keys by bits first .. last - 1 of their rank, `bits` at a time; equal ones keep their order."""
    digits = uint64(1) << bits
    passes = (last - first + bits - uint64(1)) // bits
    for v in range(passes * digits):
        counts[v] = 0
    for i in range(uint64(n)):
        rank = rank_below(keys[i], top) >> first
        for d in range(passes):
            counts[d * digits + (rank >> (d * bits) & (digits - uint64(1)))] += 1
    a, b, at_a, at_b = keys, spare_keys, places, spare_places
    for d in range(passes):
        base, shift = d * digits, first + d * bits
        start = int64(0)
        for v in range(base, base + digits):
            count = counts[v]
            counts[v] = start
            start += count
        for i in range(uint64(n)):
            v = base + (rank_below(a[i], top) >> shift & (digits - uint64(1)))
            to = uint64(counts[v])
            counts[v] += 1
            b[to], at_b[to] = a[i], at_a[i]
        a, b, at_a, at_b = b, a, at_b, at_a
    if passes & uint64(1):
        for i in range(uint64(n)):
            keys[i], places[i] = a[i], at_a[i]


@njit
def _sort(keys, places, n, spare_keys, spare_places, counts):
    """Sort n keys, with their places, from the largest on; of equal ones by their places: they come in column order."""
    _sort_keys(keys, places, n, spare_keys, spare_places, counts)
    start = int64(0)
    while start < n:
        end = start + 1
        while end < n and keys[end] == keys[start]:
            end += 1
        if end - start > 1 and abs(keys[start]) >= ABSORBING:
            key, some, some_places = keys[start], tail(keys, start), tail(places, start)
            for i in range(uint64(end - start)):
                some[i] = _before_column(some_places[i])
            _sort_keys(some, some_places, end - start, spare_keys, spare_places, counts)
            for i in range(uint64(end - start)):
                some[i] = key
        start = end


@njit
def _sort_keys(keys, places, n, spare_keys, spare_places, counts):
    """Sort n keys, with their places, from the largest on; equal ones keep their order."""
    if n <= _FEW:
        _insert(keys, places, n, n * n)
        return
    top = ordered_float64(keys[0] + 0.0)
    for i in range(uint64(n)):
        top = max(top, ordered_float64(keys[i] + 0.0))
    ranks = uint64(0)
    for i in range(uint64(n)):
        ranks |= rank_below(keys[i], top)
    last = uint64(0)
    while last < uint64(64) and ranks >> last != uint64(0):
        last += uint64(1)
    # the leading 32 or 33 bits leave few neighbours to exchange, unless most keys are close and others far away
    bits, leading = (uint64(8), uint64(32)) if n < 4096 else (uint64(11), uint64(33))
    first = last - leading if last > leading else uint64(0)
    _by_digits(keys, places, n, spare_keys, spare_places, counts, top, first, last, bits)
    if not _insert(keys, places, n, 4 * n):
        _by_digits(keys, places, n, spare_keys, spare_places, counts, top, uint64(0), last, bits)


@inlined
def _bound(x, largest, rate, offset):
    """A float32 not below exp(x / T - best): `_above` with the factor in its exponent."""
    z = fma(float32(x - largest), rate, offset)
    return bits_to_float(int32(max(z, float32(0.0))))


@njit
def _count_candidates(kind, address, first, count, x, largest, rate, offset, hits):
    """How many columns of each group of a block, from column `first` on, pass the filter."""
    total = int32(0)
    for g in range(uint64(first) // uint64(_GROUP), uint64(count + _GROUP - 1) // uint64(_GROUP)):
        start = g * uint64(_GROUP)
        end = min(start + uint64(_GROUP), uint64(count))
        found = int32(0)
        for i in range(start, end):
            found += int32(_below(x[i]) <= _bound(load(kind, address, int64(i)), largest, rate, offset))
        hits[g] = found
        total += found
    return total


@njit
def _few(
    kind, address, first, last, x, largest, rate, offset, hits, temperature, column, row, key, mask, own, shared,
    keys, places, n,
):  # fmt: skip
    """Append the columns of a tile that pass the filter and whose keys are large enough."""
    for g in range(uint64(first) // uint64(_GROUP), uint64(last + _GROUP - 1) // uint64(_GROUP)):
        if hits[g] == 0:
            continue
        start = int64(g) * _GROUP
        for i in range(start, min(start + _GROUP, int64(last))):
            logit, word = load(kind, address, i), x[uint64(i)]
            if not _below(word) <= _bound(logit, largest, rate, offset) or logit == -_INF:
                continue
            value, place = race_key(logit, word, temperature, column + i, uint64(0), row, key, mask)
            if value >= shared and not value <= own:
                keys[n], places[n] = value, place
                n += 1
    return n


@njit
def _tile_keys(kind, address, count, x, first, y, temperature, values):
    for i in range(uint64(count)):
        g = gumbel_float64(uint64(x[uint64(first) + i]), uint64(y[i]))
        values[i] = float64(load(kind, address, int64(i))) / temperature + g


@njit
def _plain_keys(kind, address, count, values):
    """Temperature 0: the logits decide."""
    for i in range(uint64(count)):
        values[i] = float64(load(kind, address, int64(i)))


@njit
def _append(kind, address, count, values, column, own, shared, high64, keys, places, n):
    """Append the possible columns of a tile whose keys are large enough."""
    at = uint64(n)
    for i in range(uint64(count)):
        value = values[i]
        keys[at], places[at] = value, column + int64(i)
        # ties with what this list holds lose, unless their places decide: those columns are smaller
        found = scalar.is_possible(load(kind, address, int64(i)), high64)
        at += uint64(value >= shared and not value <= own and found)
    return int64(at)


@njit
def _find_places(kind, address, x, first, y, temperature, column, keys, places, n, end):
    """Places in the order of equals, of candidates n .. end - 1 of a tile that have more than their columns."""
    for i in range(uint64(n), uint64(end)):
        if abs(keys[i]) >= ABSORBING:
            at = places[i] - column
            g = gumbel_float64(uint64(x[uint64(first + at)]), uint64(y[uint64(at)]))
            places[i] = place_of(places[i], float64(load(kind, address, at)) / temperature, g, keys[i])


@inlined
def _below_equals(key):
    """What must be exceeded by keys that are to beat this one, or to equal it where their places decide."""
    return from_ordered_float64(ordered_float64(key) - int64(1)) if abs(key) >= ABSORBING else key


@njit
def _share(limits, row, own):
    """Publish the least key of a full list of a row's, and learn the largest that others published."""
    if limits == 0:
        return -_INF
    mine = int64(_NONE) if own != own else ordered_float64(own)
    others = atomic_max(limits + 8 * row, mine)
    return -_INF if others == _NONE else from_ordered_float64(others)


@njit
def _segment(
    kind, j, row, own_row, first, last, temperature, wanted, room, nodes_r, nodes_s,
    keys, places, spare, x, y, values, hits, lanes, buffer,
):  # fmt: skip
    """(length of the list of candidates, whether the row is bad) after blocks first .. last - 1."""
    greedy = temperature == 0.0
    high64, low64 = scalar.scale(1.0 if greedy else temperature)
    z = zero(kind)
    high, low = scalar.narrow(z, high64, low64)
    guess = z
    rate, _ = scalar.narrow(float32(0), high64 * 8388608.0, 0.0)
    address = row_address(j, row)
    identity = uint64(row_id(j, row))
    key, mask = draw_key(j.seed, j.draw)
    size = element_size(kind)
    n, own = int64(0), _NAN
    for b in range(first, last):
        block = int64(b)
        column = block * BLOCK
        count = min(j.columns - column, int64(BLOCK))
        at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
        if not greedy:
            ahead = at if j.column_stride == j.item_size else int64(0)
            fill_noise_and_ask(ahead, j.item_size, x, count, uint64(column), uint64(0), identity, key, mask)
            if nodes_r != 0:
                guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
                store(float64(0), nodes_r, block, r)
                store(float64(0), nodes_s, block, total)
        shared = _share(j.limits, own_row, own)
        largest, nan = block_max(kind, at, count)
        if nan or not (largest < _INF if greedy else scalar.is_bounded(largest, high64)):
            return n, True
        if largest == -_INF:
            continue
        top = float64(largest) if greedy else float64(largest) / temperature
        offset = float32(0)
        counted = False
        for start in range(0, count, _TILE):
            tile, width = at + start * size, min(int64(count - start), int64(_TILE))
            best = own if own > shared else shared
            if not counted and not greedy and top - best < 80.0 and filters(largest, temperature):
                # log2 of exp(max / T - best), biased; 2^-11 for its rounding and that of the logits' differences
                offset = float32((127.0 + max(top - best, -80.0) * LOG2E + 2.0**-11) * 8388608.0)
                if not _below(_smallest(x, start, count)) <= bits_to_float(int32(offset)):
                    break
                if _count_candidates(kind, at, start, count, x, largest, rate, offset, hits) == 0:
                    break
                counted = True
            if counted:
                found = int32(0)
                for g in range(start // _GROUP, (start + width + _GROUP - 1) // _GROUP):
                    found += hits[g]
                if found == 0:
                    continue
                if found <= _MANY:
                    n = _few(
                        kind, at, start, start + width, x, largest, rate, offset, hits, temperature, column,
                        identity, key, mask, _below_equals(own), shared, keys, places, n,
                    )  # fmt: skip
            if not counted or found > _MANY:
                nearest, _ = block_max(kind, tile, width)
                # no noise exceeds 45.06
                above = float64(nearest) if greedy else float64(nearest) / temperature + 45.1
                if above < best or nearest == -_INF:
                    continue
                if greedy:
                    _plain_keys(kind, tile, width, values)
                    n = _append(kind, tile, width, values, column + start, own, shared, _ANY, keys, places, n)
                else:
                    fill_noise(y, width, uint64(column + start), uint64(0), identity, uint64(REFINEMENT), key, mask)
                    _tile_keys(kind, tile, width, x, start, y, temperature, values)
                    end = _append(
                        kind, tile, width, values, column + start, _below_equals(own), shared, high64, keys, places, n
                    )
                    _find_places(kind, tile, x, start, y, temperature, column + start, keys, places, n, end)
                    n = end
            if n >= room or (own != own and n > wanted):
                own = _select(keys, places, n, wanted, spare)
                n = wanted
    return n, False


@njit
def _rest(kind, j, row, temperature, k, nodes_r, nodes_s, places, lanes, stack_r, stack_s, buffer):
    """The node of all columns but those of `places`, which ascend: blocks without any of those are not read again."""
    high64, low64 = scalar.scale(temperature)
    z = zero(kind)
    high, low = scalar.narrow(z, high64, low64)
    guess = z
    address = row_address(j, row)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    chosen = int64(0)
    for block in range(blocks):
        count = min(j.columns - block * BLOCK, int64(BLOCK))
        end = chosen
        while end < k and column_of(places[end]) < (block + 1) * BLOCK:
            end += 1
        if end == chosen and nodes_r != 0:
            r, total = load(float64(0), nodes_r, block), load(float64(0), nodes_s, block)
        else:
            at = block_address(kind, address, j.column_stride, j.item_size, block, count, buffer)
            copied = address_of(buffer)
            if end != chosen and at != copied:
                for i in range(count):
                    copy(kind, copied, int64(i), at + int64(i) * element_size(kind))
                at = copied
            for i in range(chosen, end):
                store(kind, at, column_of(places[i]) - block * BLOCK, type(z)(-_INF))
            guess, r, total = block_node(kind, at, count, high64, low64, high, low, guess, lanes)
        chosen = end
        push(stack_r, stack_s, block, r, total)
    return collapse(stack_r, stack_s, blocks)


@njit
def _log_prob(kind, j, row, temperature, r, total, places, terms):
    """Sum of phi_i - R_i over the places in order, (r, total) being the node of all other columns."""
    high64, low64 = scalar.scale(temperature)
    address = row_address(j, row)
    terms_r, terms_s = tail(terms, _TILE), tail(terms, 2 * _TILE)
    result = 0.0
    for end in range(j.k, 0, -_TILE):
        n = uint64(min(int64(end), int64(_TILE)))
        first = uint64(end) - n
        # four loops: only that of the sums waits for the one before
        for i in range(n):
            x = load(kind, address + places[first + i] * j.column_stride, int64(0))
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
def _write_none(kind, j, row):
    """A row that was left out or is bad: index -1, NaN for everything else."""
    for i in range(j.k):
        store(int64(0), j.indices, row * j.k + int64(i), int64(-1))
        store(float64(0), j.perturbed, row * j.k + int64(i), _NAN)
    store_float(kind, j.log_prob, row, _NAN)
    store(float64(0), j.threshold, row, _NAN)


@njit
def _write_row(
    kind, j, row, temperature, n, wanted, nodes_r, nodes_s, keys, places, spare, spare_places, counts, terms, lanes,
    stack_r, stack_s, buffer,
):  # fmt: skip
    """Results of a row from its n candidates, in column order."""
    k = j.k
    if n < k:
        _write_none(kind, j, row)
        atomic_min(j.bad_row_at, row)
        return
    if n > wanted:
        _select(keys, places, n, wanted, spare)
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
        _sort(keys, places, k, spare, spare_places, counts)
        for i in range(k):
            keys[i] = limit_at_zero(keys[i])
        threshold = limit_at_zero(threshold)
    else:
        r, total = _rest(kind, j, row, temperature, k, nodes_r, nodes_s, places, lanes, stack_r, stack_s, buffer)
        _sort(keys, places, k, spare, spare_places, counts)
        for i in range(uint64(k)):
            places[i] = column_of(places[i])
        log_p = _log_prob(kind, j, row, temperature, r, total, places, terms)
    for i in range(k):
        store(int64(0), j.indices, row * k + i, places[i])
        store(float64(0), j.perturbed, row * k + i, keys[i])
    store_float(kind, j.log_prob, row, log_p)
    store(float64(0), j.threshold, row, threshold)


@njit
def _join(j, own_row, wanted, room, keys, places, spare):
    """Length of the list of a row from those of its segments, or -1 if one is bad."""
    n = int64(0)
    for g in range(j.segments):
        item = own_row * j.segments + int64(g)
        length = load(int64(0), j.counts, item)
        if length < 0:
            return int64(-1)
        for start in range(0, length, _TILE):
            for i in range(start, min(start + _TILE, length)):
                keys[n] = load(float64(0), j.winner_key, item * wanted + int64(i))
                places[n] = load(int64(0), j.winner_at, item * wanted + int64(i))
                n += 1
            if n >= room:
                _select(keys, places, n, wanted, spare)
                n = wanted
    return n


@njit
def top_k(kind, job):
    """One worker: take segments until none is left."""
    j = job_at(job)
    scratch = open_scratch(j)
    wanted = min(j.k + 1, j.columns)
    room = wanted + max(wanted, int64(_SPARE))
    size = min(room, j.columns) + _TILE + 1
    keys, spare = empty(scratch, size, np.float64), empty(scratch, size + _SAMPLE, np.float64)
    places, spare_places = empty(scratch, size, np.int64), empty(scratch, j.k, np.int64)
    counts = empty(scratch, _COUNTERS if j.k > _FEW else 0, np.int64)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    padded = min((j.columns + 3) // 4 * 4, int64(BLOCK))
    x, y = empty(scratch, padded, np.uint32), empty(scratch, _TILE, np.uint32)
    values, hits = empty(scratch, _TILE, np.float64), empty(scratch, BLOCK // _GROUP, np.int32)
    lanes, buffer = workspace(scratch, kind, LANES), empty(scratch, min(j.columns, int64(BLOCK)), np.float64)
    stack_r, stack_s, terms = (
        empty(scratch, LEVELS, np.float64),
        empty(scratch, LEVELS, np.float64),
        empty(scratch, 3 * _TILE, np.float64),
    )
    nodes = empty(scratch, 2 * blocks if j.keeps_nodes and j.segments == 1 else 0, np.float64)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row, segment = row_and_segment(j, item)
            if not row_wanted(j, row):
                if segment == 0:
                    _write_none(kind, j, row)
                continue
            own_row = row - j.first_row
            nodes_r, nodes_s = int64(0), int64(0)
            if j.keeps_nodes:
                nodes_r = address_of(nodes) if j.segments == 1 else j.node_r + 16 * blocks * own_row
                nodes_s = nodes_r + 8 * blocks
            temperature = row_temperature(j, row)
            first = segment * j.segment_blocks
            n, bad = _segment(
                kind, j, row, own_row, first, min(first + j.segment_blocks, blocks), temperature, wanted, room,
                nodes_r, nodes_s, keys, places, spare, x, y, values, hits, lanes, buffer,
            )  # fmt: skip
            if j.segments > 1:
                if n > wanted:
                    _select(keys, places, n, wanted, spare)
                    n = wanted
                cell = own_row * j.segments + segment
                for i in range(n):
                    store(float64(0), j.winner_key, cell * wanted + i, keys[i])
                    store(int64(0), j.winner_at, cell * wanted + i, places[i])
                store(int64(0), j.counts, cell, int64(-1) if bad else n)
                if atomic_add(j.pending + 8 * own_row, int64(-1)) > 1:
                    continue
                n = _join(j, own_row, wanted, room, keys, places, spare)
            elif bad:
                n = int64(-1)
            _write_row(
                kind, j, row, temperature, n, wanted, nodes_r, nodes_s, keys, places, spare, spare_places, counts,
                terms, lanes, stack_r, stack_s, buffer,
            )  # fmt: skip


@njit
def top_k_weights(kind, job):
    """One worker: inclusion weights of the chosen logits of rows, in place; `given` 1 asks for a sum of 1."""
    j = job_at(job)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row = int64(item)
            kappa = load(float64(0), j.threshold, row)
            temperature = row_temperature(j, row)
            logsumexp = load(float64(0), j.row_result, row) if j.row_result != 0 else 0.0
            top = -_INF
            for i in range(j.columns):
                at = row * j.columns + int64(i)
                if temperature == 0.0:
                    value = 0.0 if i == 0 else -_INF
                else:
                    value = log_weight(load(float64(0), j.array, at) / temperature, kappa, logsumexp)
                top = max(top, value)
                store(float64(0), j.array, at, value)
            total = 0.0
            for i in range(j.columns):
                at = row * j.columns + int64(i)
                value = exp_float64(load(float64(0), j.array, at) - (top if j.given else 0.0))
                total += value
                store(float64(0), j.array, at, value)
            if j.given:
                for i in range(j.columns):
                    at = row * j.columns + int64(i)
                    store(float64(0), j.array, at, load(float64(0), j.array, at) / total)
