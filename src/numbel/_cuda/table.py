"""Alias tables of rows, and draws from them: the tables of `_cpu.table`, bit for bit.

There light and heavy columns are filled one after the other. Here each finds its partner alone, by a search in the sums
of what light columns lack and heavy ones have too much: light column number k takes what it lacks from the first heavy
one h that has enough left, A[k + 1] <= B[h + 1] + C, with A and B the sums over the columns before.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint64

from .._scalar import blocks as scalar
from .._scalar.elementary import log_float64
from .._scalar.limits import BLOCK
from .._scalar.table import MASS, draw_words, mass, pack, settle, shares, split_word
from .forms import FORMS, THREADS, block_items, device, matrix, vector
from .roots import LAW, ROOTS
from .rows import CALL, address_of, blocks_in, extents, key_of, results, temperature_of
from .shared import PER_THREAD

_NAN = math.nan
#: Of a row: its columns, C, bits of an alias, what every possible column gets more, the column before which it gets one
#: more than that; light and heavy columns.
COLUMNS, UNIT, BITS, EACH, CUT, LIGHTS, HEAVIES = range(7)
HEAD = 7
#: Of a block, summed over the blocks before: masses, possible columns, light and heavy ones, what they lack and have
#: too much.
SUM, POSSIBLE, LIGHT, HEAVY, LACK, EXCESS = range(6)
FIELDS = 6


class Tables(NamedTuple):
    """The tables of some rows of a view of logits, and what they are made from: 24 bytes a column."""

    first: Any  # the first row
    rows: Any
    blocks: Any  # blocks of a row at most
    columns: Any  # columns of a row at most
    cells: Any  # masses, and then entries
    lists: Any  # light columns, then heavy ones; what they and those before them lack, or have too much
    plan: Any
    heads: Any


_NUMBERS = types.Array(int64, 2, "C")
TABLES = types.NamedTuple([int64, int64, int64, int64, vector(uint64), _NUMBERS, _NUMBERS, _NUMBERS], Tables)


@device
def total_of(values):
    """The sum of THREADS numbers, and that of those before this thread's."""
    cuda.syncthreads()
    before, whole = int64(0), int64(0)
    for i in range(THREADS):
        if i < cuda.threadIdx.x:
            before += values[uint64(i)]
        whole += values[uint64(i)]
    cuda.syncthreads()
    return before, whole


@device
def sum_before(plan, field, first, blocks, values):
    """A field of a row's blocks becomes its sum over the blocks before; the whole sum."""
    t = int64(cuda.threadIdx.x)
    own = (blocks + THREADS - 1) // THREADS
    begin, end = first + min(t * own, blocks), first + min((t + 1) * own, blocks)
    total = int64(0)
    for b in range(begin, end):
        total += plan[field, uint64(b)]
    values[t] = total
    running, whole = total_of(values)
    for b in range(begin, end):
        value = plan[field, uint64(b)]
        plan[field, uint64(b)] = running
        running += value
    return whole


@device
def surplus(m, column, unit, each, cut):
    """What a column of mass m has more than C, once it has its share of what is missing in all."""
    more = each + (1 if column < cut else 0)
    return int64(m) + (more if m > 0 else 0) - unit


@device
def search(lists, first, count, bound):
    """How many of `count` rising sums are at most `bound`."""
    low, high = int64(0), int64(count)
    while low < high:
        middle = (low + high) >> 1
        if lists[1, uint64(first + middle)] <= bound:
            low = middle + 1
        else:
            high = middle
    return low


def begin_tables(fixed, tables):
    """The heads, once every block is weighed: a CUDA block for each row."""
    values = cuda.shared.array(PER_THREAD, int64)
    for at in block_items(tables.rows):
        if fixed[uint64(tables.first + at)] == LAW:
            first, columns = at * tables.blocks, int64(tables.heads[COLUMNS, uint64(at)])
            blocks = (columns + BLOCK - 1) // BLOCK  # by `blocks_in` 48 instructions more
            total = sum_before(tables.plan, SUM, first, blocks, values)
            possible = sum_before(tables.plan, POSSIBLE, first, blocks, values)
            unit, bits, each, extra = shares(total, possible, columns)
            cuda.syncthreads()
            # the block before whose end the last possible column gets one more
            low, high = int64(0), blocks - 1
            while low < high:
                middle = (low + high + 1) >> 1
                if tables.plan[POSSIBLE, uint64(first + middle)] <= extra:
                    low = middle
                else:
                    high = middle - 1
            left, own = extra - tables.plan[POSSIBLE, uint64(first + low)], BLOCK // THREADS
            begin = low * BLOCK + cuda.threadIdx.x * own
            end = min(begin + own, columns)
            count = int64(0)
            for c in range(begin, end):
                count += 1 if tables.cells[uint64(at * tables.columns + c)] > uint64(0) else 0
            values[cuda.threadIdx.x] = count
            before, _ = total_of(values)
            if cuda.threadIdx.x == 0:
                tables.heads[UNIT, uint64(at)], tables.heads[BITS, uint64(at)], tables.heads[EACH, uint64(at)] = (
                    unit,
                    bits,
                    each,
                )
                if left <= 0:
                    tables.heads[CUT, uint64(at)] = low * BLOCK
            if before < left and left <= before + count:
                for c in range(begin, end):
                    before += 1 if tables.cells[uint64(at * tables.columns + c)] > uint64(0) else 0
                    if before == left:
                        tables.heads[CUT, uint64(at)] = c + 1
                        break


def classify(fixed, tables):
    """LIGHT, HEAVY, LACK and EXCESS of every block."""
    light = cuda.shared.array(PER_THREAD, int64)
    heavy = cuda.shared.array(PER_THREAD, int64)
    lack = cuda.shared.array(PER_THREAD, int64)
    excess = cuda.shared.array(PER_THREAD, int64)
    t = cuda.threadIdx.x
    for item in block_items(tables.rows * tables.blocks):
        at = item // tables.blocks
        start = (item - at * tables.blocks) * BLOCK
        if fixed[uint64(tables.first + at)] == LAW:
            unit, each = int64(tables.heads[UNIT, uint64(at)]), int64(tables.heads[EACH, uint64(at)])
            cut = int64(tables.heads[CUT, uint64(at)])
            lights, heavies, lacking, exceeding = int64(0), int64(0), int64(0), int64(0)
            for c in range(start + t, min(start + BLOCK, int64(tables.heads[COLUMNS, uint64(at)])), THREADS):
                d = surplus(int64(tables.cells[uint64(at * tables.columns + c)]), c, unit, each, cut)
                lights += 1 if d < 0 else 0
                heavies += 1 if d > 0 else 0
                lacking += max(-d, int64(0))
                exceeding += max(d, int64(0))
            light[t], heavy[t], lack[t], excess[t] = lights, heavies, lacking, exceeding
            h = THREADS >> 1
            while h > 0:
                cuda.syncthreads()
                if t < h:
                    light[t] += light[t + h]
                    heavy[t] += heavy[t + h]
                    lack[t] += lack[t + h]
                    excess[t] += excess[t + h]
                h >>= 1
            if t == 0:
                tables.plan[LIGHT, uint64(item)], tables.plan[HEAVY, uint64(item)] = light[0], heavy[0]
                tables.plan[LACK, uint64(item)], tables.plan[EXCESS, uint64(item)] = lack[0], excess[0]
            cuda.syncthreads()


def end_classes(fixed, tables):
    """The rest of the heads, once every block is classified: a CUDA block for each row."""
    values = cuda.shared.array(PER_THREAD, int64)
    for at in block_items(tables.rows):
        if fixed[uint64(tables.first + at)] == LAW:
            first = at * tables.blocks
            blocks = blocks_in(int64(tables.heads[COLUMNS, uint64(at)]))
            lights = sum_before(tables.plan, LIGHT, first, blocks, values)
            heavies = sum_before(tables.plan, HEAVY, first, blocks, values)
            sum_before(tables.plan, LACK, first, blocks, values)
            sum_before(tables.plan, EXCESS, first, blocks, values)
            if cuda.threadIdx.x == 0:
                tables.heads[LIGHTS, uint64(at)], tables.heads[HEAVIES, uint64(at)] = lights, heavies


def enlist(fixed, tables):
    """The lists and their sums; entries of columns of mass C."""
    light = cuda.shared.array(PER_THREAD, int64)
    heavy = cuda.shared.array(PER_THREAD, int64)
    lack = cuda.shared.array(PER_THREAD, int64)
    excess = cuda.shared.array(PER_THREAD, int64)
    t, own = cuda.threadIdx.x, BLOCK // THREADS
    for item in block_items(tables.rows * tables.blocks):
        at = item // tables.blocks
        columns, row = int64(tables.heads[COLUMNS, uint64(at)]), at * tables.columns
        begin = (item - at * tables.blocks) * BLOCK + t * own
        end = min(begin + own, columns)
        if fixed[uint64(tables.first + at)] == LAW:
            unit, each = int64(tables.heads[UNIT, uint64(at)]), int64(tables.heads[EACH, uint64(at)])
            cut = int64(tables.heads[CUT, uint64(at)])
            lights, heavies, lacking, exceeding = int64(0), int64(0), int64(0), int64(0)
            for c in range(begin, end):
                d = surplus(int64(tables.cells[uint64(row + c)]), c, unit, each, cut)
                lights += 1 if d < 0 else 0
                heavies += 1 if d > 0 else 0
                lacking += max(-d, int64(0))
                exceeding += max(d, int64(0))
            light[t], heavy[t], lack[t], excess[t] = lights, heavies, lacking, exceeding
            before, _ = total_of(light)
            lights = before + tables.plan[LIGHT, uint64(item)]
            before, _ = total_of(heavy)
            heavies = before + tables.plan[HEAVY, uint64(item)] + tables.heads[LIGHTS, uint64(at)]
            before, _ = total_of(lack)
            lacking = before + tables.plan[LACK, uint64(item)]
            before, _ = total_of(excess)
            exceeding = before + tables.plan[EXCESS, uint64(item)]
            for c in range(begin, end):
                d = surplus(int64(tables.cells[uint64(row + c)]), c, unit, each, cut)
                if d < 0:
                    lacking -= d
                    tables.lists[0, uint64(row + lights)], tables.lists[1, uint64(row + lights)] = c, lacking
                    lights += 1
                elif d > 0:
                    exceeding += d
                    tables.lists[0, uint64(row + heavies)], tables.lists[1, uint64(row + heavies)] = c, exceeding
                    heavies += 1
                else:
                    tables.cells[uint64(row + c)] = uint64(pack(int64(0), c, int64(tables.heads[BITS, uint64(at)])))


def pair(fixed, tables):
    """The entries of light and heavy columns, each by one thread."""
    for item in block_items(tables.rows * tables.blocks):
        at = item // tables.blocks
        start, row = (item - at * tables.blocks) * BLOCK, at * tables.columns
        if fixed[uint64(tables.first + at)] == LAW:
            unit, bits = int64(tables.heads[UNIT, uint64(at)]), int64(tables.heads[BITS, uint64(at)])
            lights, heavies = int64(tables.heads[LIGHTS, uint64(at)]), int64(tables.heads[HEAVIES, uint64(at)])
            for k in range(start + cuda.threadIdx.x, min(start + BLOCK, lights + heavies), THREADS):
                column, whole = int64(tables.lists[0, uint64(row + k)]), int64(tables.lists[1, uint64(row + k)])
                threshold, alias = int64(0), column
                if k < lights:
                    h = search(tables.lists, row + lights, heavies, whole - unit - 1)
                    threshold = unit - whole
                    if k > 0:
                        threshold += tables.lists[1, uint64(row + k - 1)]
                    alias = int64(tables.lists[0, uint64(row + lights + h)])
                elif k + 1 < lights + heavies:
                    done = search(tables.lists, row, lights, whole + unit)
                    threshold = whole + unit
                    if done > 0:
                        threshold -= tables.lists[1, uint64(row + done - 1)]
                    alias = int64(tables.lists[0, uint64(row + k + 1)])
                tables.cells[uint64(row + column)] = uint64(pack(threshold, alias, bits))


def draw_tabled(call, samples, fixed, tables, indices):
    """The samples of rows from their tables, 4096 of a row by a CUDA block."""
    runs = (samples + BLOCK - 1) // BLOCK  # by `blocks_in` 58 registers for 50
    key = key_of(call)
    for item in block_items(tables.rows * runs):
        at = item // runs
        start, row = (item - at * runs) * BLOCK, tables.first + at
        only, address = int64(fixed[uint64(row)]), address_of(call, call.first_row + row, key)
        columns, unit = int64(tables.heads[COLUMNS, uint64(at)]), int64(tables.heads[UNIT, uint64(at)])
        bits, own = int64(tables.heads[BITS, uint64(at)]), (call.first_row + row) * samples
        for sample in range(start + cuda.threadIdx.x, min(start + BLOCK, samples), THREADS):
            category = only
            if only == LAW:
                first, second = draw_words(uint64(sample), address.row_id, address.key, address.mask)
                column, level = split_word(uint64(first), uint64(second), uint64(columns), uint64(unit))
                entry = uint64(tables.cells[uint64(at * tables.columns) + uint64(column)])
                category = int64(settle(entry, uint64(column), uint64(level), bits))
            indices[uint64(own + sample)] = category


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load = form.wide, form.load
    _, extent = extents(layout)

    def weigh_columns(logits, call, roots, tables):
        """Masses of the columns, SUM and POSSIBLE of every block."""
        sums = cuda.shared.array(PER_THREAD, int64)
        counts = cuda.shared.array(PER_THREAD, int64)
        t = cuda.threadIdx.x
        for item in block_items(tables.rows * tables.blocks):
            at = item // tables.blocks
            row, start = tables.first + at, (item - at * tables.blocks) * BLOCK
            columns = extent(logits, call, row)
            if roots.fixed[uint64(row)] == LAW:
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                r, factor = roots.sums[0, uint64(row)], float64(MASS) / roots.sums[1, uint64(row)]
                total, possible = int64(0), int64(0)
                for c in range(start + t, min(start + BLOCK, columns.count), THREADS):
                    x = float64(wide(load(logits[uint64(columns.line), uint64(columns.start + c)])))
                    m = int64(mass(x, high, low, r, factor))
                    tables.cells[uint64(at * tables.columns + c)] = uint64(m)
                    total += m
                    possible += 1 if m > 0 else 0
                sums[t], counts[t] = total, possible
                h = THREADS >> 1
                while h > 0:
                    cuda.syncthreads()
                    if t < h:
                        sums[t] += sums[t + h]
                        counts[t] += counts[t + h]
                    h >>= 1
                if t == 0:
                    tables.plan[SUM, uint64(item)], tables.plan[POSSIBLE, uint64(item)] = sums[0], counts[0]
                    if start == 0:
                        tables.heads[COLUMNS, uint64(at)] = columns.count
                cuda.syncthreads()

    def look_up(logits, call, samples, roots, tables, results):
        """log_prob of the samples."""
        runs = blocks_in(samples)
        for item in block_items(tables.rows * runs):
            at = item // runs
            start, row = (item - at * runs) * BLOCK, tables.first + at
            columns = extent(logits, call, row)
            only, own = int64(roots.fixed[uint64(row)]), (call.first_row + row) * samples
            high, low, r, log_total = 0.0, 0.0, roots.sums[0, uint64(row)], 0.0
            if only == LAW:
                high, low = scalar.scale(temperature_of(call, call.first_row + row))
                log_total = log_float64(roots.sums[1, uint64(row)])
            for sample in range(start + cuda.threadIdx.x, min(start + BLOCK, samples), THREADS):
                value = _NAN if only < 0 else 0.0
                if only == LAW:
                    column = int64(results.indices[uint64(own + sample)])
                    x = float64(wide(load(logits[uint64(columns.line), uint64(columns.start + column)])))
                    value = scalar.log_prob_beside(x, high, low, r, log_total)
                results.log_prob[uint64(own + sample)] = value

    rows, fixed = matrix(form, layout), vector(int64)
    return {
        "weigh_columns": (weigh_columns, (rows, CALL, ROOTS, TABLES)),
        "begin_tables": (begin_tables, (fixed, TABLES)),
        "classify": (classify, (fixed, TABLES)),
        "end_classes": (end_classes, (fixed, TABLES)),
        "enlist": (enlist, (fixed, TABLES)),
        "pair": (pair, (fixed, TABLES)),
        "draw_tabled": (draw_tabled, (CALL, int64, fixed, TABLES, vector(int64))),
        "look_up": (look_up, (rows, CALL, int64, ROOTS, TABLES, results(wide))),
    }
