"""Requests -> kernel calls: which worker takes a shape, how its work is cut, and what it is given.

How the work is cut, which threads take it and how much is done between two signal checks change no bit.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import Any, NamedTuple

import numpy as np

from .._arguments import requests
from .._arguments.requests import Array, Draw, LogitRows, Outputs, Progress, Temperature
from .._cpu import drivers
from .._cpu.parameters import (
    FORMATS,
    Call,
    Limit,
    Limits,
    Results,
    Rows,
    Split,
    Stream,
    Temperatures,
    address_of,
    bad_row,
    lend,
    scratch_needed,
)
from .._cpu.signatures import (
    SHORT,
    TILE,
    Blocks,
    Condition,
    Conditional,
    Entropies,
    Found,
    GivenLogProb,
    Noise,
    Relaxing,
    Sampling,
    ShortConditional,
    ShortEntropies,
    ShortRelaxing,
    ShortSampling,
    ShortTruncatedSampling,
    ShortVjp,
    Spawn,
    TruncatedSampling,
    Vjp,
)
from .._machine_code.threads import parallel_allowed, thread_count
from .._scalar.limits import BLOCK, COUNTED

#: Below this many categories a thread costs more than it gains (some 20 us of work).
_PARALLEL_FROM = 1 << 16
#: Categories between two returns to Python, where Ctrl-C and the progress bar are served.
_WAVE = 1 << 28
#: Samples of a row in one pass, and of all segments together; more take several, so that scratch stays small.
_SAMPLES = 1 << 14
_SEGMENT_SAMPLES = 1 << 18
#: Segments of a strided array: 2.6 MB of scratch.
_STRIDED_ITEMS = 1 << 16
#: Columns of a row that one thread relaxes alone, where there are rows enough for all, and where there are not.
_WHOLE, _WHOLE_OF_FEW = 1 << 21, 1 << 15
#: Bytes of weights that all threads together keep.
_HELD = 12 << 20
#: Rows up to this long are done many at a time where there are many, and where there are few. One at a time, noise
#: of 65536 x 128 is made at 230 M/s in place of 565, of 16384 x 512 at 420 in place of 570.
_SHORT, _SHORT_OF_FEW = 512, 128
#: Rows from which those of up to SHORT columns are cut many at a time, or with top_p those of up to 512 (2 x as fast at
#: 512, 7 x at 128); of fewer only those of up to 32: an idle lane costs as much as a row.
_MANY, _CUT_BY_MASS, _CUT_OF_FEW = 16, 512, 32
#: Categories whose log-probabilities one thread looks up at a time.
_ENTRIES = 4096
#: Bytes of a result that are written past the caches, which would not hold them: if a caller gave its memory. Pages
#: that are new are in the caches, because the system has just cleared them: relaxed samples lose a tenth there.
_STREAMED = 1 << 24
#: Blocks whose three numbers are kept at a time: 6 MB, or one row's.
_NODES = 1 << 18


class Plan(NamedTuple):
    """A worker, what it is given, and the items that it takes."""

    driver: drivers.Driver
    parameters: Any
    items: int
    per_item: int  # categories, at most


@functools.cache
def name_of(dtype: np.dtype[Any]) -> str:
    """The dtype's name."""
    return dtype.name  # NumPy takes 2 us to find it


@functools.cache
def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of log_prob and logsumexp for logits of this dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


# ----------------------------------------------------------------------------------------- from requests to parameters


def rows_in_memory(array: Array) -> Rows:
    """Where the rows of an array lie: neighbouring batch axes are merged where memory allows."""
    columns, size = array.shape[-1], array.itemsize
    column_stride = array.strides[-1] if columns > 1 else size
    rows, row_stride, axes, geometry = 1, 0, 0, None
    if array.ndim == 2:
        rows, row_stride = array.shape[0], array.strides[0]
    elif array.ndim > 2:
        rows = math.prod(array.shape[:-1])
        merged = [[rows, columns * size]] if array.flags.c_contiguous else _merged_axes(array)
        if len(merged) > 1:
            axes, geometry = len(merged), np.array(merged, dtype=np.int64)
        elif merged:
            row_stride = merged[0][1]
    return Rows(
        array, FORMATS.get(name_of(array.dtype), 0), rows, columns, size, column_stride, row_stride, axes, geometry
    )


def _merged_axes(array: Array) -> list[list[int]]:
    """(length, stride) of the batch axes, where neighbours are merged that one stride reaches."""
    axes: list[list[int]] = []
    for length, stride in zip(array.shape[:-1], array.strides[:-1], strict=True):
        if length == 1:
            continue
        if axes and axes[-1][1] == length * stride:
            axes[-1] = [axes[-1][0] * length, stride]
        else:
            axes.append([length, stride])
    return axes


def temperatures(given: Temperature) -> Temperatures:
    """What kernels are told of them."""
    return Temperatures(given.values, 0.0) if given.per_row else Temperatures(None, given.values[0])


def limits(given: requests.Limits) -> Limits:
    """What kernels are told of them."""
    (k, each_k), (p, each_p), (least, each_least) = given  # all are 8 bytes
    return Limits(Limit(k, 8 * each_k), Limit(p, 8 * each_p), Limit(least, 8 * each_least))


def stream_of(draw: Draw, ids: Array | None) -> Stream:
    """Which random bits a draw takes."""
    return Stream(draw[0], draw[1], ids)  # type: ignore[arg-type]


def results_of(out: Outputs, samples: int, first: int, count: int) -> Results:
    """Where samples first .. first + count - 1 of so many of each row go."""
    return Results(out.indices, out.log_prob, out.logsumexp, out.logsumexp64, out.roots, count, first, samples)


# --------------------------------------------------------------------------------------------------- how calls are run


class _Scratch(threading.local):
    """What a thread lends its calls, kept from one call to the next: allocating takes longer than a small call."""

    #: None while it is lent: another call within (a finalizer's) then takes memory of its own.
    kept: tuple[Array, int] | None = None


_scratch = _Scratch()
#: Bytes of scratch for a lone worker of short rows; more is kept between calls up to the second number.
_LENT, _LENT_MOST = 1 << 17, 1 << 20


def _new_scratch(size: int) -> tuple[Array, int]:
    """So many bytes, and their address, a multiple of 64."""
    memory = np.empty(size + 64, np.uint8)
    return memory, -(-address_of(memory) // 64) * 64


def _work(driver: drivers.Driver, call: Call, workers: int) -> None:
    """Have workers do a call, with the scratch that they need."""
    memory, address = _scratch.kept or _new_scratch(_LENT)
    _scratch.kept = None
    size = (memory.size - 64) // workers // 64 * 64
    while True:
        lend(call.words, address, size)
        if workers > 1:
            with parallel_allowed() as allowed:
                driver.parallel(call.address, workers) if allowed else driver.serial(call.address)
        else:
            driver.serial(call.address)
        needed = scratch_needed(call.words)
        if not needed:
            break
        size = needed
        memory, address = _new_scratch(size * workers)
    if memory.size <= _LENT_MOST:
        _scratch.kept = memory, address


def run(plan: Plan, progress: Progress | None = None, first: int = 0) -> int | None:
    """Have workers take items first .. items - 1 of a plan, in waves; the first bad row, if any."""
    call = Call(plan.parameters)
    step = max(1, _WAVE // plan.per_item)
    for start in range(first, plan.items, step):
        end = min(start + step, plan.items)
        call.limit(start, end)
        several = end - start > 1 and (end - start) * plan.per_item >= _PARALLEL_FROM
        _work(plan.driver, call, thread_count() if several else 1)
        if progress is not None:
            progress((end - start) * plan.per_item)
    return bad_row(call.words)


# ----------------------------------------------------------------------------------------------------- how rows are cut


def _segments(rows: int, columns: int) -> tuple[int, int]:
    """Segments of a row, and blocks in each: enough items for every thread, little to join."""
    blocks = -(-columns // BLOCK)
    size = 16
    while size < 4096 and (size * 512 < blocks * rows or rows >= 64):
        size *= 2
    return -(-blocks // size), size


def _short(rows: int, columns: int) -> bool:
    """Whether rows are done many at a time, across rows: longer ones pay where there are enough to fill a tile."""
    return columns <= (_SHORT if rows >= 32 else _SHORT_OF_FEW)


def _tile_rows(rows: int, columns: int) -> int:
    """How many short rows to do at a time: some 4096 values, a multiple of 16, in tiles of about the same size."""
    width = 16 if rows <= 16 else 32
    while width < rows and width < 512 and width * columns < TILE:
        width *= 2
    tiles = -(-rows // width)
    return -(-rows // (16 * tiles)) * 16


def width_of_samples(rows: int, columns: int) -> int:
    """How many short rows to sample at a time."""
    width = 16
    while width < rows and (width < 64 or (width < 512 and width * columns < 4096)):
        width *= 2
    return width


def _split_rows(count: int, columns: int, strided: bool) -> Split:
    """Segments of rows that are visited once."""
    segments, size = _segments(count, columns)
    if not strided or count == 1:
        return Split(segments, size, 1, 1, None)
    # cache lines hold columns of neighbouring rows: visit those side by side, in short segments
    while size > 1 and count * -(-columns // (size // 2 * BLOCK)) <= _STRIDED_ITEMS:
        size //= 2
    return Split(-(-columns // (size * BLOCK)), size, 16, 16, None)


def _split_blocks(arrays: tuple[Rows, ...]) -> tuple[Split, int]:
    """Segments of rows of whose blocks something is kept, and columns of a row whose weights a worker may keep."""
    count, columns, size = arrays[0].rows, arrays[0].columns, arrays[0].item_size
    blocks = -(-columns // BLOCK)
    strided = count > 1 and any(each.column_stride not in (0, each.item_size) for each in arrays)
    # asking for the number of threads starts them, which short work must not: OpenMP's are torch's, too
    threads = thread_count() if count * columns >= _PARALLEL_FROM else 1
    cached = _HELD // (threads * max(size, 4))
    if columns <= (_WHOLE if count >= 4 * threads else _WHOLE_OF_FEW) and not strided:
        return Split(1, blocks, 1, 1, None), cached
    size = 1 if strided else min(16, blocks)
    # cache lines hold columns of neighbouring rows: visit those side by side
    side_by_side = 16 if strided else 1
    return Split(-(-blocks // size), size, side_by_side, side_by_side, None), cached


def run_blocks(plan: Plan, rows: Rows) -> int | None:
    """Run a plan whose parameters have a `split` and `blocks`, in two passes; the first bad row, if any.

    A row that is one segment is done in one.
    """
    split: Split = plan.parameters.split
    if split.segments == 1:
        return run(plan)
    blocks, group = -(-rows.columns // BLOCK), split.row_interleave
    at_once = min(rows.rows, max(group, _NODES // blocks // group * group))
    nodes, pending = np.empty((at_once, blocks, 3)), np.empty(at_once, np.int64)
    split = split._replace(pending=pending)
    bad = None
    for first in range(0, rows.rows, at_once):
        last = min(first + at_once, rows.rows)
        for phase in (0, 1):
            pending[:] = split.segments
            parameters = plan.parameters._replace(split=split, blocks=Blocks(nodes, first, phase))
            part = plan._replace(parameters=parameters, items=last * split.segments)
            found = run(part, first=first * split.segments)
            bad = found if bad is None else bad
    return bad


# ------------------------------------------------------------------------------------------------------------- sampling


def plan_sampling(rows: LogitRows, method: str, draw: Draw, results: Results) -> Plan:
    """How rows are sampled whole, or in segments, for which `Sampling.found` is to be given."""
    logits, name = rows_in_memory(rows.array), name_of(rows.array.dtype)
    given = stream_of(draw, rows.ids), temperatures(rows.temperature), rows.mask, results, logits
    if logits.columns <= SHORT:
        width = width_of_samples(logits.rows, logits.columns)
        driver = drivers.driver(f"{method}_short", name)
        return Plan(driver, ShortSampling(*given, width), -(-logits.rows // width), width * logits.columns)
    split = _split_rows(logits.rows, logits.columns, logits.column_stride != logits.item_size)
    parameters = Sampling(*given, split, Found(None, None, None, None, None))
    per_item = min(split.segment_blocks * BLOCK, logits.columns)
    return Plan(drivers.driver(method, name), parameters, logits.rows * split.segments, per_item)


def found_of(items: int, samples: int) -> Found:
    """Memory for what so many segments leave."""
    scratch = np.empty((2 + 3 * samples, items))
    return Found(scratch[0], scratch[1], scratch[2:], scratch[2 + samples :], scratch[2 + 2 * samples :])


def categorical(
    rows: LogitRows, samples: int, method: str, draw: Draw, out: Outputs, progress: Progress | None = None
) -> int | None:
    """Sample rows; the first bad row, if any."""
    if rows.number == 0 or (samples == 0 and out.logsumexp is None and out.logsumexp64 is None and out.roots is None):
        return None
    if samples == 0:  # only what stands for a row is asked for
        method, out = "grouped", out._replace(indices=None, log_prob=None)
    plan = plan_sampling(rows, method, draw, results_of(out, samples, 0, min(samples, _SAMPLES)))
    segments = plan.parameters.split.segments if isinstance(plan.parameters, Sampling) else 1
    if segments == 1:
        return _run_samples(plan, samples, progress)
    bad = None
    at_once = max(1, _SEGMENT_SAMPLES // plan.items)
    for first in range(0, max(samples, 1), at_once):
        count = min(at_once, samples - first)
        parameters = plan.parameters._replace(
            results=results_of(out, samples, first, count),
            split=plan.parameters.split._replace(pending=np.full(rows.number, segments, np.int64)),
            found=found_of(plan.items, count),
        )
        found = run(plan._replace(parameters=parameters), progress)
        bad = bad if found is None else found
    return bad


def _run_samples(plan: Plan, samples: int, progress: Progress | None) -> int | None:
    """Run a plan of the first samples, and the same of the others; the first bad row, if any."""
    bad = run(plan, progress)
    for first in range(_SAMPLES, samples, _SAMPLES):
        results = plan.parameters.results._replace(samples=min(_SAMPLES, samples - first), first_sample=first)
        found = run(plan._replace(parameters=plan.parameters._replace(results=results)), progress)
        bad = bad if found is None else found
    return bad


def truncated(
    rows: LogitRows,
    cuts: requests.Limits,
    samples: int,
    method: str,
    draw: Draw,
    out: Outputs,
    progress: Progress | None = None,
) -> int | None:
    """`categorical` of what limits keep."""
    count = rows.number
    if count == 0 or (samples == 0 and out.logsumexp is None):
        return None
    if samples == 0:
        samples, out = 1, out._replace(indices=np.empty(count, np.int64), log_prob=None)
    plan = plan_truncated(rows, cuts, method, draw, results_of(out, samples, 0, min(samples, _SAMPLES)))
    return _run_samples(plan, samples, progress)


def plan_truncated(rows: LogitRows, cuts: requests.Limits, method: str, draw: Draw, results: Results) -> Plan:
    """How truncated rows are sampled."""
    count, columns = rows.number, rows.columns
    logits, stream = rows_in_memory(rows.array), stream_of(draw, rows.ids)
    given = stream, temperatures(rows.temperature), rows.mask, results, logits, limits(cuts)
    short = columns <= (SHORT if count >= _MANY else _CUT_OF_FEW)
    if short or (count >= _MANY and columns <= _CUT_BY_MASS and (cuts.top_p.values < 1.0).any()):
        width = width_of_samples(count, columns)
        driver = drivers.driver(f"truncated_{method}_short", name_of(rows.array.dtype))
        return Plan(driver, ShortTruncatedSampling(*given, width), -(-count // width), width * columns)
    chunk = max(1, min(BLOCK // columns, count // 64))
    driver = drivers.driver("truncated", name_of(rows.array.dtype))
    return Plan(driver, TruncatedSampling(*given, int(method == "gumbel_max"), chunk), count, columns)


# ----------------------------------------------------------------------------------------------------- relaxed samples


def plan_relaxing(rows: LogitRows, draw: Draw | None, out: Array, nontemporal: bool = False) -> Plan:
    """How rows are relaxed, with the noise of a draw, or none."""
    logits, target = rows_in_memory(rows.array), rows_in_memory(out)
    width = name_of(result_dtype(rows.array.dtype))
    stream = stream_of((0, 0) if draw is None else draw, rows.ids)
    given = stream, temperatures(rows.temperature), rows.mask, logits, target, int(draw is not None)
    if _short(logits.rows, logits.columns):
        side = _tile_rows(logits.rows, logits.columns)
        driver = drivers.driver(f"relaxed_short_{width}", width)
        return Plan(driver, ShortRelaxing(*given, side), -(-logits.rows // side), side * logits.columns)
    split, cached = _split_blocks((logits, target))
    past = int(nontemporal and out.nbytes >= _STREAMED)
    parameters = Relaxing(*given, split, Blocks(None, 0, 0), cached, past)
    per_item = min(split.segment_blocks * BLOCK, logits.columns)
    return Plan(drivers.driver(f"relaxed_{width}", width), parameters, logits.rows * split.segments, per_item)


def relaxed(rows: LogitRows, draw: Draw | None, out: Array, nontemporal: bool = False) -> int | None:
    """Softmax of rows with the noise of a draw, or none; the first bad row, if any.

    Rows of temperature 0 and those masked out become NaN. `out` may be the logits themselves. With `nontemporal` a
    large one is written past the caches.
    """
    if rows.number == 0:
        return None
    plan = plan_relaxing(rows, draw, out, nontemporal)
    if isinstance(plan.parameters, ShortRelaxing):
        return run(plan)
    return run_blocks(plan, plan.parameters.logits)


def conditional(rows: LogitRows, index: Array, draw: Draw, out: Array, nontemporal: bool = False) -> int | None:
    """Perturbed logits of rows, given the largest's index; the first bad row, if any."""
    if rows.number == 0:
        return None
    sums = np.empty(rows.number)
    # bad rows are NaN, and found again below
    categorical(rows, 0, "grouped", draw, Outputs(logsumexp64=sums))
    logits, target = rows_in_memory(rows.array), rows_in_memory(out)
    given = logits, target, stream_of(draw, rows.ids), temperatures(rows.temperature), rows.mask, Condition(index, sums)
    width = name_of(result_dtype(rows.array.dtype))
    if _short(logits.rows, logits.columns):
        side = _tile_rows(logits.rows, logits.columns)
        driver = drivers.driver("conditional_short", width)
        return run(Plan(driver, ShortConditional(*given, side), -(-rows.number // side), side * rows.columns))
    split, _ = _split_blocks((logits, target))
    parameters = Conditional(*given, split, int(nontemporal and out.nbytes >= _STREAMED))
    per_item = min(split.segment_blocks * BLOCK, rows.columns)
    return run(Plan(drivers.driver("conditional", width), parameters, rows.number * split.segments, per_item))


def vjp(
    y: Array,
    cotangent: Array,
    temperature: Temperature,
    out: Array,
    in_temperature: Array | None,
    nontemporal: bool = False,
) -> None:
    """Gradients of a relaxed sample: in the logits into `out`, in each row's temperature where that is asked for.

    `out` may be `y` or `cotangent` itself.
    """
    if y.size == 0:
        return
    plan = plan_vjp(y, cotangent, temperature, out, in_temperature, nontemporal)
    if isinstance(plan.parameters, ShortVjp):
        run(plan)
    else:
        run_blocks(plan, plan.parameters.y)


def plan_vjp(
    y: Array,
    cotangent: Array,
    temperature: Temperature,
    out: Array,
    in_temperature: Array | None,
    nontemporal: bool = False,
) -> Plan:
    """How gradients of relaxed samples are made."""
    samples, target = rows_in_memory(y), rows_in_memory(out)
    given = temperatures(temperature), in_temperature, samples, rows_in_memory(cotangent), target
    width = name_of(result_dtype(y.dtype))
    if _short(samples.rows, samples.columns):
        side = _tile_rows(samples.rows, samples.columns)
        driver = drivers.driver("vjp_short", width)
        return Plan(driver, ShortVjp(*given, side), -(-samples.rows // side), side * samples.columns)
    split, _ = _split_blocks((samples, target))
    parameters = Vjp(*given, split, Blocks(None, 0, 0), int(nontemporal and out.nbytes >= _STREAMED))
    per_item = min(split.segment_blocks * BLOCK, samples.columns)
    return Plan(drivers.driver("vjp", width), parameters, samples.rows * split.segments, per_item)


# ----------------------------------------------------------------------------------------------------------- densities


def plan_entropy(rows: LogitRows, out: Array) -> Plan:
    """How entropies of rows are made."""
    logits, name = rows_in_memory(rows.array), name_of(rows.array.dtype)
    given = temperatures(rows.temperature), rows.mask, out, logits
    if logits.columns <= COUNTED:
        side = _tile_rows(logits.rows, logits.columns)
        driver = drivers.driver("entropy_short", name)
        return Plan(driver, ShortEntropies(*given, side), -(-logits.rows // side), side * logits.columns)
    split = _split_rows(logits.rows, logits.columns, logits.column_stride != logits.item_size)
    items, nodes = logits.rows * split.segments, None
    if split.segments > 1:
        split = split._replace(pending=np.full(logits.rows, split.segments, np.int64))
        nodes = np.empty((items, 3))
    per_item = min(split.segment_blocks * BLOCK, logits.columns)
    return Plan(drivers.driver("entropy", name), Entropies(*given, split, nodes), items, per_item)


def entropy(rows: LogitRows, out: Array) -> int | None:
    """Entropy of rows into contiguous `out`, NaN if bad; the first bad row, if any."""
    return run(plan_entropy(rows, out)) if rows.number else None


def given_log_prob(rows: LogitRows, given: Array, argmaxes: Array, roots: Array, out: Array) -> None:
    """Log-probabilities of `given` categories, an equal number of each row, from the rows' roots and argmaxes."""
    if given.size:
        run(plan_given(rows, given, argmaxes, roots, out))


def plan_given(rows: LogitRows, given: Array, argmaxes: Array, roots: Array, out: Array) -> Plan:
    """How log-probabilities are looked up."""
    samples, tell = given.size // rows.number, temperatures(rows.temperature)
    parameters = GivenLogProb(tell, given, argmaxes, roots, out, samples, rows_in_memory(rows.array), _ENTRIES)
    driver = drivers.driver("given_log_prob", name_of(rows.array.dtype))
    return Plan(driver, parameters, -(-given.size // _ENTRIES), 8 * _ENTRIES)


# --------------------------------------------------------------------------------------------------------------- noise


def plan_noise(out: Array, draw: Draw, loc: float, scale: float, nontemporal: bool = False) -> Plan:
    """How an array is filled with noise."""
    target = rows_in_memory(out if out.ndim else out.reshape(1))
    rows, columns = target.rows, target.columns
    width = _tile_rows(rows, columns) if _short(rows, columns) else 0
    past = int(nontemporal and out.nbytes >= _STREAMED)
    parameters = Noise(stream_of(draw, None), loc, scale, target, past, width)
    driver = drivers.driver(f"noise_{name_of(result_dtype(out.dtype))}", name_of(out.dtype))
    if width:
        return Plan(driver, parameters, -(-rows // width), width * columns)
    return Plan(driver, parameters, rows * -(-columns // TILE), TILE)


def gumbel(
    out: Array,
    draw: Draw,
    loc: float,
    scale: float,
    progress: Progress | None = None,
    nontemporal: bool = False,
) -> None:
    """Fill `out` with scale * noise + loc, rounded after either step; the last axis is the column."""
    if out.size:
        run(plan_noise(out, draw, loc, scale, nontemporal), progress)


def spawn_seeds(seed: int, draw: int, count: int) -> list[int]:
    """Seeds of `count` child generators."""
    seeds = np.empty(count, np.uint64)
    drivers.spawn_seeds(Spawn(seeds, count, seed, draw))  # type: ignore[arg-type]
    return [int(child) for child in seeds]
