"""Alias tables: masses, the parallel split, draws.

Columns below the unit C (light) are filled up by those above (heavy), each in order of their columns: the next light
one takes what it lacks from the current heavy one; where that has not enough left, it is done itself, and the next
heavy one fills it. After n columns the state is unique: the most light ones that the heavy ones could serve. So any
number of workers may start at any n, and the table is the same (after Huebschle-Schneider and Sanders, ESA 2019).

Arrays of int64 are known by their addresses. The plan is a head, then FIELDS numbers for each block of 4096 columns.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint64

from .._jit import njit
from .._scalar import blocks as scalar
from .._scalar.address import draw_key
from .._scalar.blocks import BLOCK
from .._scalar.elementary import log_float64
from .._scalar.table import MASS, draw_words, mass, pack, settle, shares, split_word
from .job import job_at, row_address, row_id, row_temperature, take_items
from .memory import load, store
from .results import store_float
from .runs import read_one, read_run
from .scratch import address_of, empty, lacks_scratch, open_scratch

_I = np.int64(0)
#: Draws whose words are made together.
_DRAWS = 1024
#: Columns that are looked through together for light or heavy ones.
_RUN = 1024
#: The head of a plan: C, bits of an alias, what every possible column gets more, how many of the first get one more
#: than that; light and heavy columns.
UNIT, BITS, EACH, EXTRA, LIGHTS, HEAVIES = range(6)
HEAD = 8
#: Of a block: masses and possible columns, both summed over the blocks before; the same of light and heavy columns, of
#: what the light ones lack and the heavy ones have too much.
SUM, POSSIBLE, LIGHT, HEAVY, LACK, EXCESS = range(6)
FIELDS = 6


@njit
def _get(plan, block, field):
    return load(_I, plan, int64(HEAD + FIELDS * block + field))


@njit
def _put(plan, block, field, value):
    store(_I, plan, int64(HEAD + FIELDS * block + field), int64(value))


@njit
def _weigh(kind, j, address, block, x, factors, q, plan):
    """Masses of a block; their sum and number into the plan."""
    high64, low64, r, factor = factors
    count = min(j.columns - block * BLOCK, int64(BLOCK))
    at = address + block * BLOCK * j.column_stride
    read_run(kind, j.element, at, j.column_stride, j.item_size, count, x)
    first = q + 8 * block * BLOCK
    for i in range(uint64(count)):
        store(_I, first, int64(i), mass(x[i], high64, low64, r, factor))
    total, possible = int64(0), int64(0)
    for i in range(uint64(count)):
        m = load(_I, first, int64(i))
        total += m
        possible += int64(m > 0)
    _put(plan, block, SUM, total)
    _put(plan, block, POSSIBLE, possible)


@njit
def _classify(columns, block, q, plan, entries):
    """Give a block its share, and sort it; columns of mass C are done at once."""
    unit, bits = load(_I, plan, int64(UNIT)), load(_I, plan, int64(BITS))
    each, extra = load(_I, plan, int64(EACH)), load(_I, plan, int64(EXTRA))
    first = block * BLOCK
    end = min(first + BLOCK, columns)
    seen = _get(plan, block, POSSIBLE)
    if each > 0 or seen < extra:
        for i in range(first, end):
            m = load(_I, q, i)
            if m > 0:
                store(_I, q, i, m + each + int64(seen < extra))
                seen += 1
    light, heavy, lack, excess = int64(0), int64(0), int64(0), int64(0)
    for i in range(first, end):
        d = load(_I, q, int64(i)) - unit
        light += int64(d < 0)
        heavy += int64(d > 0)
        lack -= min(d, int64(0))
        excess += max(d, int64(0))
    if light + heavy < end - first:
        for i in range(first, end):
            if load(_I, q, i) == unit:
                store(_I, entries, i, int64(pack(0, i, bits)))
    _put(plan, block, LIGHT, light)
    _put(plan, block, HEAVY, heavy)
    _put(plan, block, LACK, lack)
    _put(plan, block, EXCESS, excess)


@njit
def _before(plan, blocks, field):
    """A field of every block becomes its sum over the blocks before; the whole sum."""
    total = int64(0)
    for b in range(blocks):
        value = _get(plan, b, field)
        _put(plan, b, field, total)
        total += value
    return total


@njit
def begin_split(plan, columns):
    """The head of the plan, once every block is weighed: the masses shall become K C."""
    blocks = (columns + BLOCK - 1) // BLOCK
    total, possible = _before(plan, blocks, SUM), _before(plan, blocks, POSSIBLE)
    unit, bits, each, extra = shares(total, possible, int64(columns))
    store(_I, plan, int64(UNIT), unit)
    store(_I, plan, int64(BITS), bits)
    store(_I, plan, int64(EACH), each)
    store(_I, plan, int64(EXTRA), extra)


@njit
def end_classes(plan, columns):
    """The rest of it, once every block is classified."""
    blocks = (columns + BLOCK - 1) // BLOCK
    store(_I, plan, int64(LIGHTS), _before(plan, blocks, LIGHT))
    store(_I, plan, int64(HEAVIES), _before(plan, blocks, HEAVY))
    _before(plan, blocks, LACK)
    _before(plan, blocks, EXCESS)


@njit
def _block_of(plan, blocks, field, rank):
    """The last block before which at most `rank` are counted."""
    low, high = int64(0), blocks - 1
    while low < high:
        middle = (low + high + 1) >> 1
        if _get(plan, middle, field) <= rank:
            low = middle
        else:
            high = middle - 1
    return low


@njit
def _sum_of(q, plan, columns, unit, sign, rank):
    """What the first `rank` light (sign -1) or heavy (1) columns lack or have too much."""
    blocks = (columns + BLOCK - 1) // BLOCK
    b = _block_of(plan, blocks, LIGHT if sign < 0 else HEAVY, rank)
    left = rank - _get(plan, b, LIGHT if sign < 0 else HEAVY)
    total = _get(plan, b, LACK if sign < 0 else EXCESS)
    for i in range(b * BLOCK, min((b + 1) * BLOCK, columns)):
        d = (load(_I, q, i) - unit) * sign
        total += d if (d > 0) & (left > 0) else int64(0)
        left -= int64(d > 0)
    return total


@njit
def _column_of(q, plan, columns, unit, sign, rank):
    """The column of the light or heavy one number `rank`, or `columns`."""
    blocks = (columns + BLOCK - 1) // BLOCK
    b = _block_of(plan, blocks, LIGHT if sign < 0 else HEAVY, rank)
    left = rank - _get(plan, b, LIGHT if sign < 0 else HEAVY)
    i = b * BLOCK
    while i < columns:
        if (load(_I, q, i) - unit) * sign > 0:
            if left == 0:
                break
            left -= 1
        i += 1
    return i


@njit
def _state(q, plan, columns, n):
    """(next light column, current heavy column, what it has left) after n columns."""
    unit = load(_I, plan, int64(UNIT))
    low = max(int64(0), n - load(_I, plan, int64(HEAVIES)) + 1)
    high = min(n, load(_I, plan, int64(LIGHTS)))
    while low < high:
        done = (low + high + 1) >> 1
        if _sum_of(q, plan, columns, unit, -1, done) <= _sum_of(q, plan, columns, unit, 1, n - done + 1) + unit:
            low = done
        else:
            high = done - 1
    left = _sum_of(q, plan, columns, unit, 1, n - low + 1) + unit - _sum_of(q, plan, columns, unit, -1, low)
    return (
        _column_of(q, plan, columns, unit, -1, low), _column_of(q, plan, columns, unit, 1, n - low), left,
    )  # fmt: skip


@njit
def _next(q, columns, unit, sign, column, where):
    """(how many light or heavy columns the next run from `column` on that has any holds, the column after it)."""
    count = uint64(0)
    while count == uint64(0) and column < columns:
        end = min(column + _RUN, columns)
        # without a branch, which would be guessed wrong for two columns of five: 9 against 6 ns a column in all
        for i in range(column, end):
            where[count] = i
            count += uint64((load(_I, q, int64(i)) - unit) * sign > 0)
        column = end
    return count, column


@njit
def _fill(q, plan, columns, entries, piece, pieces, lights, heavies):
    """The entries of one of so many equal parts of the columns that are light or heavy."""
    unit, bits = load(_I, plan, int64(UNIT)), load(_I, plan, int64(BITS))
    ends = load(_I, plan, int64(LIGHTS)) + load(_I, plan, int64(HEAVIES))
    n, end = ends * piece // pieces, ends * (piece + 1) // pieces
    if n >= end:
        return
    light_end, heavy, left = _state(q, plan, columns, n)
    heavy_end = heavy + 1
    light, some_lights, later, some_heavies = uint64(0), uint64(0), uint64(0), uint64(0)
    while n < end:
        n += 1
        if light == some_lights:
            light = uint64(0)
            some_lights, light_end = _next(q, columns, unit, -1, light_end, lights)
        if later == some_heavies:
            later = uint64(0)
            some_heavies, heavy_end = _next(q, columns, unit, 1, heavy_end, heavies)
        column = lights[light]
        m = load(_I, q, column) if some_lights > uint64(0) else int64(0)
        if some_lights > uint64(0) and left >= unit - m:
            store(_I, entries, column, int64(pack(m, heavy, bits)))
            left -= unit - m
            light += uint64(1)
        elif some_heavies > uint64(0):
            above = heavies[later]
            store(_I, entries, heavy, int64(pack(left, above, bits)))
            left += load(_I, q, above) - unit
            heavy = above
            later += uint64(1)
        else:  # nothing is left but a whole unit
            store(_I, entries, heavy, int64(pack(0, heavy, bits)))


@njit
def _draw(entries, plan, columns, first, count, row, key, mask, levels, out):
    """Draws first .. first + count - 1 into the run of int64 at `out`."""
    unit, bits = load(_I, plan, int64(UNIT)), load(_I, plan, int64(BITS))
    # three loops: the words vectorise; loads of entries, far apart, must overlap
    for i in range(uint64(count)):
        column, level = draw_words(uint64(first) + i, row, key, mask)
        store(_I, out, int64(i), int64(column))
        levels[i] = level
    for i in range(uint64(count)):
        column, levels[i] = split_word(uint64(load(_I, out, int64(i))), levels[i], uint64(columns), uint64(unit))
        store(_I, out, int64(i), int64(column))
    for i in range(uint64(count)):
        column = load(_I, out, int64(i))
        entry = uint64(load(_I, entries, column))
        store(_I, out, int64(i), int64(settle(entry, uint64(column), levels[i], bits)))


@njit
def _look_up(kind, j, row, address, factors, first, count):
    """log_prob of samples first .. first + count - 1 of a row."""
    high64, low64, r, _ = factors
    log_total = log_float64(load(float64(0), j.row_node, 2 * row + 1))
    start = row * j.all_samples + first
    for s in range(uint64(count)):
        column = load(_I, j.indices, start + int64(s))
        x = read_one(kind, j.element, address + column * j.column_stride)
        value = scalar.log_prob_beside(float64(x), high64, low64, r, log_total)
        store_float(kind, j.log_prob, start + int64(s), value)


@njit
def _factors(j, row):
    """What masses of the row's logits are made from, or NaN in the last where it has none."""
    temperature = row_temperature(j, row)
    high64, low64 = scalar.scale(temperature if temperature > 0.0 else 1.0)
    r, total = load(float64(0), j.row_node, 2 * row), load(float64(0), j.row_node, 2 * row + 1)
    return high64, low64, r, float64(MASS) / total


@njit
def table_weights(kind, job):
    """One worker: an item is a block to weigh, of row `first_row`."""
    j = job_at(job)
    scratch = open_scratch(j)
    x = empty(scratch, BLOCK, np.float64)
    if lacks_scratch(j, scratch):
        return
    factors = _factors(j, j.first_row)
    address = row_address(j, j.first_row)
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for b in range(begin, end):
            _weigh(kind, j, address, b, x, factors, j.masses, j.plan)


@njit
def table_split(kind, job):
    """One worker: an item is a block to classify (phase 0), or one of `segments` parts to fill (phase 1)."""
    j = job_at(job)
    scratch = open_scratch(j)
    lights, heavies = empty(scratch, _RUN, np.int64), empty(scratch, _RUN, np.int64)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            if j.phase == 0:
                _classify(j.columns, item, j.masses, j.plan, j.entries)
            else:
                _fill(j.masses, j.plan, j.columns, j.entries, item, j.segments, lights, heavies)


@njit
def table_head(kind, job):
    """Between the two: what is known of all blocks."""
    j = job_at(job)
    if j.phase == 0:
        begin_split(j.plan, j.columns)
    else:
        end_classes(j.plan, j.columns)


@njit
def table_draw(kind, job):
    """One worker: an item is `segment_blocks` draws from the table of row `first_row`."""
    j = job_at(job)
    scratch = open_scratch(j)
    levels = empty(scratch, _DRAWS, np.uint64)
    key, mask = draw_key(j.seed, j.draw)
    row = uint64(row_id(j, j.first_row))
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        last = min(end * j.segment_blocks, j.samples)
        for first in range(begin * j.segment_blocks, last, _DRAWS):
            count = min(last - first, int64(_DRAWS))
            out = j.indices + 8 * (j.first_row * j.all_samples + first)
            _draw(j.entries, j.plan, j.columns, first, count, row, key, mask, levels, out)


@njit
def table_rows(kind, job):
    """One worker: an item is a row whose table it makes, draws from and forgets; `given` says which rows."""
    j = job_at(job)
    scratch = open_scratch(j)
    x, levels = empty(scratch, BLOCK, np.float64), empty(scratch, _DRAWS, np.uint64)
    lights, heavies = empty(scratch, _RUN, np.int64), empty(scratch, _RUN, np.int64)
    blocks = (j.columns + BLOCK - 1) // BLOCK
    q, entries = empty(scratch, j.columns, np.int64), empty(scratch, j.columns, np.int64)
    memory = empty(scratch, HEAD + FIELDS * blocks, np.int64)
    masses, table, plan = address_of(q), address_of(entries), address_of(memory)
    key, mask = draw_key(j.seed, j.draw)
    if lacks_scratch(j, scratch):
        return
    while True:
        begin, end = take_items(j)
        if begin >= end:
            break
        for item in range(begin, end):
            row = load(_I, j.given, item)
            factors = _factors(j, row)
            address = row_address(j, row)
            for b in range(blocks):
                _weigh(kind, j, address, b, x, factors, masses, plan)
            begin_split(plan, j.columns)
            for b in range(blocks):
                _classify(j.columns, b, masses, plan, table)
            end_classes(plan, j.columns)
            _fill(masses, plan, j.columns, table, int64(0), int64(1), lights, heavies)
            identity = uint64(row_id(j, row))
            for first in range(0, j.samples, _DRAWS):
                count = min(j.samples - first, int64(_DRAWS))
                out = j.indices + 8 * (row * j.all_samples + first)
                _draw(table, plan, j.columns, first, count, identity, key, mask, levels, out)
                if j.log_prob != 0:
                    _look_up(kind, j, row, address, factors, first, count)
    # mentioned here, or Numba frees them as soon as their addresses are taken
    q[0] = entries[0] = memory[0] = 0
