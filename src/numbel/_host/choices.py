"""Sampling without replacement: rows of logits -> kernel calls."""

from __future__ import annotations

import numpy as np

from .._arguments.requests import Draw, LogitRows
from .._cpu import drivers
from .._cpu.parameters import Split
from .._cpu.signatures import SHORT_CHOICE, Choosing, Lists, ShortChoosing, TopKResults
from .._machine_code.threads import thread_count
from .._scalar.limits import BLOCK
from . import dispatch
from .dispatch import Plan

#: Segments for each thread, where rows are too few: a slow core then holds the others up by an eighth.
_PER_THREAD = 8
#: Segments that keep long lists: fewer, since each holds up to k + 1 candidates.
_PER_THREAD_OF_MANY, _MANY = 2, 1 << 14
#: Rows from which short ones are done many at a time.
_MANY_ROWS = 16
#: Entries of the lists of all segments that are kept, unless one row has more.
_LISTS = 1 << 20
#: Blocks of a row whose nodes are kept, at most: 16 MB.
_NODES = 1 << 20


def choose(rows: LogitRows, k: int, draw: Draw, results: TopKResults) -> int | None:
    """Write results; the first bad row, if any."""
    if rows.number == 0:
        return None
    plan = plan_choosing(rows, k, draw, results)
    if isinstance(plan.parameters, Choosing) and plan.parameters.split.segments > 1:
        return _choose_in_segments(plan)
    return dispatch.run(plan)


def plan_choosing(rows: LogitRows, k: int, draw: Draw, results: TopKResults) -> Plan:
    """How k of each row are chosen; in segments, for which `Choosing.lists` is to be given."""
    logits, name = dispatch.rows_in_memory(rows.array), dispatch.name_of(rows.array.dtype)
    count, columns = logits.rows, logits.columns
    stream, temperatures = dispatch.stream_of(draw, rows.ids), dispatch.temperatures(rows.temperature)
    given = stream, temperatures, rows.mask, k, results, logits
    if columns <= SHORT_CHOICE and count >= _MANY_ROWS:
        width = dispatch.width_of_samples(count, columns)
        driver = drivers.driver("top_k_short", name)
        return Plan(driver, ShortChoosing(*given, width), -(-count // width), width * columns)
    blocks = -(-columns // BLOCK)
    # Where the k lie in few blocks, the others' sums come from the first pass over the logits; else all come from
    # a second one, which then reads little more than those few blocks.
    keeps_nodes = int(k < blocks <= _NODES)
    # asking for the number of threads starts them, which short work must not: OpenMP's are torch's, too
    threads = thread_count() if count * columns >= dispatch._PARALLEL_FROM else 1
    size = _segment_blocks(count, blocks, k, threads)
    split = Split(-(-blocks // size), size, 1, 1, None)
    lists = Lists(None, None, None, None, None, 0)
    parameters, per_item = Choosing(*given, split, keeps_nodes, lists), min(size * BLOCK, columns)
    return Plan(drivers.driver("top_k", name), parameters, count, per_item)


def _choose_in_segments(plan: Plan) -> int | None:
    """`choose` of rows that are cut into segments, so many rows at a time that their lists stay small."""
    parameters: Choosing = plan.parameters
    count, columns = parameters.logits.rows, parameters.logits.columns
    k, segments = parameters.k, parameters.split.segments
    blocks, length = -(-columns // BLOCK), min(k + 1, columns)
    at_once = max(1, min(count, _LISTS // (segments * (k + 1)), _NODES // blocks))
    keys, places = np.empty(at_once * segments * length), np.empty(at_once * segments * length, np.int64)
    nodes = np.empty((at_once, 2, blocks)) if parameters.keeps_nodes else None
    pending, limits, lengths = (np.empty(n, np.int64) for n in (at_once, at_once, at_once * segments))
    bad = None
    for first in range(0, count, at_once):
        last = min(first + at_once, count)
        pending[:], limits[:] = segments, np.iinfo(np.int64).min
        some = parameters._replace(lists=Lists(keys, places, lengths, limits, nodes, first))
        some = some._replace(split=some.split._replace(pending=pending))
        part = plan._replace(parameters=some, items=last * segments)
        found = dispatch.run(part, first=first * segments)
        bad = found if bad is None else bad
    return bad


def _segment_blocks(rows: int, blocks: int, k: int, threads: int) -> int:
    """Blocks in a segment of a row: whole rows, where there are enough of them for all threads."""
    wanted = (_PER_THREAD if k < _MANY else _PER_THREAD_OF_MANY) * threads
    if threads == 1 or rows >= wanted:
        return blocks
    return min(blocks, max(16, -(-blocks * rows // wanted)))
