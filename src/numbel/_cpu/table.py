"""Alias tables: masses, the parallel split, draws.

Columns below the unit C (light) are filled up by those above (heavy), each in order of their columns: the next light
one takes what it lacks from the current heavy one; where that has not enough left, it is done itself, and the next
heavy one fills it. After n columns the state is unique: the most light ones that the heavy ones could serve. So any
number of workers may start at any n, and the table is the same (after Huebschle-Schneider and Sanders, ESA 2019).

The plan is a head, then FIELDS numbers for each block of 4096 columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar import blocks as scalar
from .._scalar.elementary import log_float64
from .._scalar.limits import BLOCK
from .._scalar.table import MASS, draw_words, mass, pack, settle, shares, split_word
from .blocks import count_blocks, row_stream
from .memory import load, store
from .records import row_address, row_temperature
from .results import store_float
from .runs import block_run, read_one, read_run
from .scratch import address_of, empty, lacks_scratch, open_scratch
from .signatures import FIELDS, HEAD, Drawing, Heading, Splitting, Table, TablesOfRows, Weighing
from .workers import each_item

_I = np.int64(0)
#: Draws whose words are made together.
_DRAWS = 1024
#: Columns that are looked through together for light or heavy ones.
_RUN = 1024
#: The head of a plan: C, bits of an alias, what every possible column gets more, how many of the first get one more
#: than that; light and heavy columns.
UNIT, BITS, EACH, EXTRA, LIGHTS, HEAVIES = range(6)
#: Of a block: masses and possible columns, both summed over the blocks before; the same of light and heavy columns, of
#: what the light ones lack and the heavy ones have too much.
SUM, POSSIBLE, LIGHT, HEAVY, LACK, EXCESS = range(6)


class _Factors(NamedTuple):
    """What masses of a row's logits are made from."""

    high64: Any
    low64: Any
    r: Any
    factor: Any


@njit
def _get(plan, block, field):
    return load(_I, plan, int64(HEAD + FIELDS * block + field))


@njit
def _put(plan, block, field, value):
    store(_I, plan, int64(HEAD + FIELDS * block + field), int64(value))


@njit
def _weigh(kind, run, block, factors, x, table):
    """Masses of a block; their sum and number into the plan."""
    read_run(kind, run, x)
    first = table.masses + 8 * block * BLOCK
    for i in range(uint64(run.columns)):
        store(_I, first, int64(i), mass(x[i], factors.high64, factors.low64, factors.r, factors.factor))
    total, possible = int64(0), int64(0)
    for i in range(uint64(run.columns)):
        m = load(_I, first, int64(i))
        total += m
        possible += int64(m > 0)
    _put(table.plan, block, SUM, total)
    _put(table.plan, block, POSSIBLE, possible)


@njit
def _classify(table, block):
    """Give a block its share, and sort it; columns of mass C are done at once."""
    columns, q, plan, entries = table.columns, table.masses, table.plan, table.entries
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
    blocks = count_blocks(columns)
    total, possible = _before(plan, blocks, SUM), _before(plan, blocks, POSSIBLE)
    unit, bits, each, extra = shares(total, possible, int64(columns))
    store(_I, plan, int64(UNIT), unit)
    store(_I, plan, int64(BITS), bits)
    store(_I, plan, int64(EACH), each)
    store(_I, plan, int64(EXTRA), extra)


@njit
def end_classes(plan, columns):
    """The rest of it, once every block is classified."""
    blocks = count_blocks(columns)
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
def _sum_of(table, unit, sign, rank):
    """What the first `rank` light (sign -1) or heavy (1) columns lack or have too much."""
    q, plan, columns = table.masses, table.plan, table.columns
    blocks = count_blocks(columns)
    b = _block_of(plan, blocks, LIGHT if sign < 0 else HEAVY, rank)
    left = rank - _get(plan, b, LIGHT if sign < 0 else HEAVY)
    total = _get(plan, b, LACK if sign < 0 else EXCESS)
    for i in range(b * BLOCK, min((b + 1) * BLOCK, columns)):
        d = (load(_I, q, i) - unit) * sign
        total += d if (d > 0) & (left > 0) else int64(0)
        left -= int64(d > 0)
    return total


@njit
def _column_of(table, unit, sign, rank):
    """The column of the light or heavy one number `rank`, or `columns`."""
    q, plan, columns = table.masses, table.plan, table.columns
    blocks = count_blocks(columns)
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
def _state(table, n):
    """(next light column, current heavy column, what it has left) after n columns."""
    unit = load(_I, table.plan, int64(UNIT))
    low = max(int64(0), n - load(_I, table.plan, int64(HEAVIES)) + 1)
    high = min(n, load(_I, table.plan, int64(LIGHTS)))
    while low < high:
        done = (low + high + 1) >> 1
        if _sum_of(table, unit, -1, done) <= _sum_of(table, unit, 1, n - done + 1) + unit:
            low = done
        else:
            high = done - 1
    left = _sum_of(table, unit, 1, n - low + 1) + unit - _sum_of(table, unit, -1, low)
    return _column_of(table, unit, -1, low), _column_of(table, unit, 1, n - low), left


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
def _fill(table, piece, pieces, lights, heavies):
    """The entries of one of so many equal parts of the columns that are light or heavy."""
    q, plan, columns, entries = table.masses, table.plan, table.columns, table.entries
    unit, bits = load(_I, plan, int64(UNIT)), load(_I, plan, int64(BITS))
    ends = load(_I, plan, int64(LIGHTS)) + load(_I, plan, int64(HEAVIES))
    n, end = ends * piece // pieces, ends * (piece + 1) // pieces
    if n >= end:
        return
    light_end, heavy, left = _state(table, n)
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
def _draw(table, first, count, stream, levels, out):
    """Draws first .. first + count - 1 into the run of int64 at `out`."""
    unit, bits = load(_I, table.plan, int64(UNIT)), load(_I, table.plan, int64(BITS))
    # three loops: the words vectorise; loads of entries, far apart, must overlap
    for i in range(uint64(count)):
        column, level = draw_words(uint64(first) + i, stream.row, stream.key, stream.mask)
        store(_I, out, int64(i), int64(column))
        levels[i] = level
    for i in range(uint64(count)):
        column, levels[i] = split_word(uint64(load(_I, out, int64(i))), levels[i], uint64(table.columns), uint64(unit))
        store(_I, out, int64(i), int64(column))
    for i in range(uint64(count)):
        column = load(_I, out, int64(i))
        entry = uint64(load(_I, table.entries, column))
        store(_I, out, int64(i), int64(settle(entry, uint64(column), levels[i], bits)))


@njit
def _look_up(kind, p, row, factors, first, count):
    """log_prob of samples first .. first + count - 1 of a row."""
    log_total = log_float64(load(float64(0), p.roots, 2 * row + 1))
    address, start = row_address(p.logits, row), row * p.results.stride + first
    for s in range(uint64(count)):
        column = load(_I, p.results.indices, start + int64(s))
        x = read_one(kind, p.logits.format, address + column * p.logits.column_stride)
        value = scalar.log_prob_beside(float64(x), factors.high64, factors.low64, factors.r, log_total)
        store_float(kind, p.results.log_prob, start + int64(s), value)


@njit
def _factors(p, row):
    """NaN in the last where the row has none."""
    temperature = row_temperature(p.temperatures, row)
    high64, low64 = scalar.scale(temperature if temperature > 0.0 else 1.0)
    r, total = load(float64(0), p.roots, 2 * row), load(float64(0), p.roots, 2 * row + 1)
    return _Factors(high64, low64, r, float64(MASS) / total)


@inlined
def _weigh_block(kind, work, p, block, x):
    run = block_run(p.logits, row_address(p.logits, int64(0)), block)
    _weigh(kind, run, block, _factors(p, int64(0)), x, p.table)


@njit
def table_weights(kind, work, p: Weighing):
    """One worker: an item is a block to weigh, of the only row."""
    scratch = open_scratch(work)
    x = empty(scratch, BLOCK, np.float64)
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, int64(1), _weigh_block, x)


@inlined
def _split(kind, work, p, item, arrays):
    if p.phase == 0:
        _classify(p.table, item)
    else:
        _fill(p.table, item, p.pieces, arrays[0], arrays[1])


@njit
def table_split(kind, work, p: Splitting):
    """One worker: an item is a block to classify, or a part to fill."""
    scratch = open_scratch(work)
    arrays = empty(scratch, _RUN, np.int64), empty(scratch, _RUN, np.int64)
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, int64(1), _split, arrays)


@njit
def table_head(kind, work, p: Heading):
    """What is known of all blocks."""
    if p.phase == 0:
        begin_split(p.table.plan, p.table.columns)
    else:
        end_classes(p.table.plan, p.table.columns)


@inlined
def _draw_chunk(kind, work, p, item, levels):
    last = min((item + 1) * p.chunk_size, p.samples)
    stream = row_stream(p.stream, int64(0))
    for first in range(item * p.chunk_size, last, _DRAWS):
        _draw(p, first, min(last - first, int64(_DRAWS)), stream, levels, p.indices + 8 * first)


@njit
def table_draw(kind, work, p: Drawing):
    """One worker: an item is a chunk of draws."""
    scratch = open_scratch(work)
    levels = empty(scratch, _DRAWS, np.uint64)
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, int64(1), _draw_chunk, levels)


class _Arrays(NamedTuple):
    x: Any
    levels: Any
    lights: Any
    heavies: Any
    masses: Any
    entries: Any
    plan: Any


@inlined
def _row(kind, work, p, item, arrays):
    row, columns = load(_I, p.chosen, item), p.logits.columns
    table = Table(columns, address_of(arrays.masses), address_of(arrays.plan), address_of(arrays.entries))
    factors, blocks = _factors(p, row), count_blocks(columns)
    for b in range(blocks):
        _weigh(kind, block_run(p.logits, row_address(p.logits, row), int64(b)), int64(b), factors, arrays.x, table)
    begin_split(table.plan, columns)
    for b in range(blocks):
        _classify(table, int64(b))
    end_classes(table.plan, columns)
    _fill(table, int64(0), int64(1), arrays.lights, arrays.heavies)
    stream = row_stream(p.stream, row)
    for first in range(0, p.results.samples, _DRAWS):
        count = min(p.results.samples - first, int64(_DRAWS))
        out = p.results.indices + 8 * (row * p.results.stride + first)
        _draw(table, first, count, stream, arrays.levels, out)
        if p.results.log_prob != 0:
            _look_up(kind, p, row, factors, first, count)


@njit
def table_rows(kind, work, p: TablesOfRows):
    """One worker: an item is a row."""
    scratch = open_scratch(work)
    columns = p.logits.columns
    arrays = _Arrays(
        empty(scratch, BLOCK, np.float64),
        empty(scratch, _DRAWS, np.uint64),
        empty(scratch, _RUN, np.int64),
        empty(scratch, _RUN, np.int64),
        empty(scratch, columns, np.int64),
        empty(scratch, columns, np.int64),
        empty(scratch, HEAD + FIELDS * count_blocks(columns), np.int64),
    )
    if lacks_scratch(work, scratch):
        return
    each_item(kind, work, p, int64(1), _row, arrays)
