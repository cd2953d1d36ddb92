"""Arrays -> kernel calls: flattens to (rows, columns) once, allocates outputs and scratch, cuts the work.

How the work is cut, which threads take it and how much is done between two signal checks change no bit.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ._cpu import drivers
from ._cpu.job import EMPTY, Job, address_of
from ._cpu.noise import TILE
from ._cpu.runs import ELEMENTS
from ._cpu.short import SHORT
from ._jit import parallel_allowed, thread_count
from ._scalar.blocks import BLOCK
from ._scalar.entropy import COUNTED

Array = np.ndarray[Any, Any]
Progress = Callable[[int], None]

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
#: Rows for which something is kept besides the results: 2 MB for 8 bytes each.
_PART = 1 << 18
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


def _address(array: Array | None) -> int:
    return 0 if array is None else address_of(array)


@functools.cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # NumPy takes 2 us to find it


@functools.cache
def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of log_prob and logsumexp for logits of this dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _place_rows(job: dict[str, Any], array: Array, name: str = "array") -> Array | None:
    """Tell the job where rows lie: neighbouring batch axes are merged where memory allows."""
    prefix = "" if name == "array" else f"{name}_"
    columns = array.shape[-1]
    job[name], job["item_size"], job["columns"] = _address(array), array.itemsize, columns
    job[f"{prefix}column_stride"] = array.strides[-1] if columns > 1 else array.itemsize
    if array.ndim <= 2:
        job[f"{prefix}row_stride"] = array.strides[0] if array.ndim == 2 else 0
        return None
    if array.flags.c_contiguous:
        job[f"{prefix}row_stride"] = columns * array.itemsize
        return None
    dims: list[list[int]] = []
    for length, stride in zip(array.shape[:-1], array.strides[:-1], strict=True):
        if length == 1:
            continue
        if dims and dims[-1][1] == length * stride:
            dims[-1] = [dims[-1][0] * length, stride]
        else:
            dims.append([length, stride])
    if len(dims) <= 1:
        job[f"{prefix}row_stride"] = dims[0][1] if dims else 0
        return None
    geometry = np.array(dims, dtype=np.int64)
    job[f"{prefix}dims"], job[f"{prefix}geometry"] = len(dims), _address(geometry)
    return geometry


class _Scratch(threading.local):
    """What a thread lends its jobs, kept from one call to the next: allocating takes longer than a small call."""

    #: None while it is lent: another call within (a finalizer's) then takes memory of its own.
    kept: tuple[Array, int] | None = None


_scratch = _Scratch()
#: Bytes of scratch for a lone worker of short rows; more is kept between calls up to the second number.
_LENT, _LENT_MOST = 1 << 17, 1 << 20


def _new_scratch(size: int) -> tuple[Array, int]:
    """So many bytes, and their address, a multiple of 64."""
    memory = np.empty(size + 64, np.uint8)
    return memory, -(-_address(memory) // 64) * 64


def _work(driver: drivers.Driver, job: Job, workers: int) -> None:
    """Have workers do a job, with the scratch that they need."""
    memory, address = _scratch.kept or _new_scratch(_LENT)
    _scratch.kept = None
    size = (memory.size - 64) // workers // 64 * 64
    while True:
        job.lend(address, size)
        if workers > 1:
            with parallel_allowed() as allowed:
                driver.parallel(job.address, workers) if allowed else driver.serial(job.address)
        else:
            driver.serial(job.address)
        if not job.scratch_needed:
            break
        size = job.scratch_needed
        memory, address = _new_scratch(size * workers)
    if memory.size <= _LENT_MOST:
        _scratch.kept = memory, address


def _run(
    driver: drivers.Driver, job: Job, items: int, per_item: int, progress: Progress | None = None, first: int = 0
) -> None:
    """Have workers take items first .. items - 1, in waves."""
    step = max(1, _WAVE // per_item)
    for start in range(first, items, step):
        end = min(start + step, items)
        job.limit(start, end)
        _work(driver, job, thread_count() if end - start > 1 and (end - start) * per_item >= _PARALLEL_FROM else 1)
        if progress is not None:
            progress((end - start) * per_item)


def _segments(rows: int, columns: int) -> tuple[int, int]:
    """Segments of a row, and blocks in each: enough items for every thread, little to join."""
    blocks = -(-columns // BLOCK)
    size = 16
    while size < 4096 and (size * 512 < blocks * rows or rows >= 64):
        size *= 2
    return -(-blocks // size), size


def parts(shape: tuple[int, ...]) -> Iterator[tuple[tuple[Any, ...], slice]]:
    """Cut rows of this shape into runs of some 2^18: an index into the batch axes, and the positions that it holds."""
    rows, inner = math.prod(shape), math.prod(shape[1:])
    if rows <= _PART:
        yield (), slice(0, rows)
    elif inner > _PART:
        for i in range(shape[0]):
            for index, run in parts(shape[1:]):
                yield (i, *index), slice(i * inner + run.start, i * inner + run.stop)
    else:
        step = _PART // inner
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            yield (slice(start, stop),), slice(start * inner, stop * inner)


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


def categorical(
    array: Array,
    samples: int,
    temperatures: Array,
    per_row: bool,
    row_ids: Array | None,
    row_mask: Array | None,
    method: str,
    seed: int,
    draw: int,
    results: Sequence[Array | None],
    progress: Progress | None = None,
    sums: Array | None = None,
    nodes: Array | None = None,
) -> int | None:
    """Sample the rows of `array` (categories last) into contiguous results, a Sample; the first bad row, if any.

    `sums` takes each row's logsumexp in float64, `nodes` the (r, S) that stands for the row.
    """
    indices, log_prob, logsumexp = results
    rows, columns = math.prod(array.shape[:-1]), array.shape[-1]
    if rows == 0 or (samples == 0 and logsumexp is None and sums is None and nodes is None):
        return None
    if samples == 0:  # only what stands for a row is asked for
        method, indices, log_prob = "grouped", None, None
    job = EMPTY.copy()
    geometry = _place_rows(job, array)
    job["rows"] = rows
    if per_row:
        job["temperatures"] = _address(temperatures)
    else:
        job["temperature"] = temperatures[0]
    job["row_ids"], job["row_mask"] = _address(row_ids), _address(row_mask)
    job["all_samples"] = samples
    job["indices"], job["log_prob"], job["logsumexp"] = _address(indices), _address(log_prob), _address(logsumexp)
    job["row_result"], job["row_node"] = _address(sums), _address(nodes)
    job["seed"], job["draw"] = seed, draw
    strided = job["column_stride"] != array.itemsize
    if columns <= SHORT:
        segments, job["segment_blocks"] = 1, width_of_samples(rows, columns)
        items, per_item = -(-rows // job["segment_blocks"]), job["segment_blocks"] * columns
        worker = f"{method}_short"
    else:
        worker = method
        segments, size = _segments(rows, columns)
        if strided and rows > 1:
            # cache lines hold columns of neighbouring rows: visit those side by side, in short segments
            while size > 1 and rows * -(-columns // (size // 2 * BLOCK)) <= _STRIDED_ITEMS:
                size //= 2
            segments = -(-columns // (size * BLOCK))
        job["segment_blocks"] = size
        job["segments"] = segments
        job["group"] = job["grab"] = 16 if strided and rows > 1 else 1
        items, per_item = rows * segments, min(size * BLOCK, columns)
    driver = drivers.driver(worker, _name(array.dtype))
    bad = None
    at_once = _SAMPLES if segments == 1 else max(1, _SEGMENT_SAMPLES // items)
    for first in range(0, max(samples, 1), at_once):
        count = min(at_once, samples - first)
        job["samples"], job["first_sample"] = count, first
        if segments > 1:
            scratch = np.empty((2 + 3 * count, items))
            pending = np.full(rows, segments, np.int64)
            step = scratch.strides[0]
            job["node_r"], job["node_s"] = _address(scratch), _address(scratch) + step
            job["winner_key"] = _address(scratch) + 2 * step
            job["winner_r"] = _address(scratch) + (2 + count) * step
            job["winner_at"] = _address(scratch) + (2 + 2 * count) * step
            job["pending"] = _address(pending)
        packed = Job(job)
        _run(driver, packed, items, per_item, progress)
        if packed.bad_row is not None:
            bad = packed.bad_row
    del geometry  # alive until here: the job holds its address
    return bad


def width_of_samples(rows: int, columns: int) -> int:
    """How many short rows to sample at a time."""
    width = 16
    while width < rows and (width < 64 or (width < 512 and width * columns < 4096)):
        width *= 2
    return width


def truncated(
    array: Array,
    samples: int,
    temperatures: Array,
    per_row: bool,
    row_ids: Array | None,
    row_mask: Array | None,
    truncation: Sequence[tuple[Array, bool]],
    method: str,
    seed: int,
    draw: int,
    results: Sequence[Array | None],
    progress: Progress | None = None,
) -> int | None:
    """`categorical` of what top_k, top_p and min_p keep, each with whether there is one for each row."""
    indices, log_prob, logsumexp = results
    rows, columns = math.prod(array.shape[:-1]), array.shape[-1]
    if rows == 0 or (samples == 0 and logsumexp is None):
        return None
    if samples == 0:
        samples, indices, log_prob = 1, np.empty(rows, np.int64), None
    job, kept = _rows_job(array, temperatures, per_row)
    for name, (values, each) in zip(("top_k", "top_p", "min_p"), truncation, strict=True):
        job[name], job[f"{name}_stride"] = _address(values), values.itemsize if each else 0
    job["race"] = method == "gumbel_max"
    job["row_ids"], job["row_mask"] = _address(row_ids), _address(row_mask)
    job["all_samples"] = samples
    job["indices"], job["log_prob"], job["logsumexp"] = _address(indices), _address(log_prob), _address(logsumexp)
    job["seed"], job["draw"] = seed, draw
    job["segments"], items, per_item = 1, rows, columns
    short = columns <= (SHORT if rows >= _MANY else _CUT_OF_FEW)
    if short or (rows >= _MANY and columns <= _CUT_BY_MASS and (truncation[1][0] < 1).any()):
        job["segment_blocks"] = width_of_samples(rows, columns)
        items, per_item = -(-rows // job["segment_blocks"]), job["segment_blocks"] * columns
        driver = drivers.driver(f"truncated_{method}_short", _name(array.dtype))
    else:
        job["grab"] = max(1, min(BLOCK // columns, rows // 64))
        driver = drivers.driver("truncated", _name(array.dtype))
    bad = None
    for first in range(0, samples, _SAMPLES):
        job["samples"], job["first_sample"] = min(_SAMPLES, samples - first), first
        packed = Job(job)
        _run(driver, packed, items, per_item, progress)
        if packed.bad_row is not None:
            bad = packed.bad_row
    del kept  # alive until here: the job holds addresses
    return bad


def _rows_job(array: Array, temperatures: Array, per_row: bool) -> tuple[dict[str, Any], list[Array | None]]:
    """A job over the rows of `array`, and what its addresses point to."""
    job = EMPTY.copy()
    job["rows"] = math.prod(array.shape[:-1])
    kept = [_place_rows(job, array), temperatures]
    if per_row:
        job["temperatures"] = _address(temperatures)
    else:
        job["temperature"] = temperatures[0]
    return job, kept


def _run_rows(worker: str, dtype: np.dtype[Any], job: dict[str, Any], twice: bool) -> int | None:
    """Have a worker do whole rows, or segments of long ones (twice: in two passes); the first bad row, if any."""
    rows, columns = job["rows"], job["columns"]
    job["element"] = ELEMENTS[_name(dtype)]
    driver = drivers.driver(worker, _name(result_dtype(dtype)))
    blocks = -(-columns // BLOCK)
    strided = rows > 1 and any(job[f"{name}column_stride"] not in (0, dtype.itemsize) for name in ("", "out_"))
    job["group"] = job["grab"] = 1
    # asking for the number of threads starts them, which short work must not: OpenMP's are torch's, too
    threads = thread_count() if rows * columns >= _PARALLEL_FROM else 1
    job["held"] = _HELD // (threads * result_dtype(dtype).itemsize)
    if columns <= (_WHOLE if rows >= 4 * threads else _WHOLE_OF_FEW) and not strided:
        job["segments"], job["segment_blocks"] = 1, blocks
        packed = Job(job)
        _run(driver, packed, rows, columns)
        return packed.bad_row
    size = 1 if strided else min(16, blocks)
    segments = job["segments"] = -(-blocks // size)
    job["segment_blocks"] = size
    if strided:
        # cache lines hold columns of neighbouring rows: visit those side by side
        job["group"] = job["grab"] = 16
    group = job["group"]
    at_once = min(rows, max(group, _NODES // blocks // group * group))
    nodes, pending = np.empty((at_once, blocks, 3)), np.empty(at_once, np.int64)
    job["node_s"], job["pending"] = _address(nodes), _address(pending)
    bad = None
    for first in range(0, rows, at_once):
        last = min(first + at_once, rows)
        job["first_row"] = first
        for phase in (0, 1) if twice and segments > 1 else (0,):  # a lone segment does both at once
            pending[:] = segments
            job["phase"] = phase
            packed = Job(job)
            _run(driver, packed, last * segments, min(size * BLOCK, columns), first=first * segments)
            if packed.bad_row is not None and bad is None:
                bad = packed.bad_row
    return bad


def _run_short(worker: str, dtype: np.dtype[Any], job: dict[str, Any]) -> int | None:
    """Have a worker do tiles of short rows; the first bad row, if any."""
    rows, columns = job["rows"], job["columns"]
    side = job["segment_blocks"] = _tile_rows(rows, columns)
    job["element"] = ELEMENTS[_name(dtype)]
    packed = Job(job)
    _run(drivers.driver(worker, _name(result_dtype(dtype))), packed, -(-rows // side), side * columns)
    return packed.bad_row


def relaxed(
    array: Array,
    temperatures: Array,
    per_row: bool,
    row_ids: Array | None,
    row_mask: Array | None,
    draw: tuple[int, int] | None,
    out: Array,
    streams: bool = False,
) -> int | None:
    """Softmax of the rows of `array` (categories last) with the noise of a draw, or none; the first bad row, if any.

    Rows of temperature 0 and those masked out become NaN. `out` may be `array` itself. With `streams` a large one is
    written past the caches.
    """
    job, kept = _rows_job(array, temperatures, per_row)
    if job["rows"] == 0:
        return None
    job["streams"] = int(streams and out.nbytes >= _STREAMED)
    kept += [_place_rows(job, out, "out"), row_ids, row_mask]
    job["row_ids"], job["row_mask"] = _address(row_ids), _address(row_mask)
    if draw is not None:
        job["noise"], job["seed"], job["draw"] = 1, *draw
    width = "float64" if array.dtype == np.float64 else "float32"
    if _short(job["rows"], job["columns"]):
        return _run_short(f"relaxed_short_{width}", array.dtype, job)
    return _run_rows(f"relaxed_{width}", array.dtype, job, twice=True)


def softmax(array: Array, temperatures: Array, per_row: bool, out: Array) -> int | None:
    """softmax(array / temperature) of the rows (categories last); the first bad row, if any."""
    return relaxed(array, temperatures, per_row, None, None, None, out)


def conditional(
    array: Array,
    temperatures: Array,
    per_row: bool,
    row_ids: Array | None,
    row_mask: Array | None,
    index: Array,
    draw: tuple[int, int],
    out: Array,
    streams: bool = False,
) -> int | None:
    """Perturbed logits of the rows of `array`, given the largest's index; the first bad row, if any."""
    job, kept = _rows_job(array, temperatures, per_row)
    rows = job["rows"]
    if rows == 0:
        return None
    sums = np.empty(rows)
    # bad rows are NaN, and found again below
    categorical(array, 0, temperatures, per_row, row_ids, row_mask, "grouped", *draw, (None,) * 3, sums=sums)
    job["streams"] = int(streams and out.nbytes >= _STREAMED)
    kept += [_place_rows(job, out, "out"), row_ids, row_mask, index, sums]
    job["row_ids"], job["row_mask"] = _address(row_ids), _address(row_mask)
    job["given"], job["row_result"] = _address(index), _address(sums)
    job["seed"], job["draw"] = draw
    if _short(job["rows"], job["columns"]):
        return _run_short("conditional_short", array.dtype, job)
    return _run_rows("conditional", array.dtype, job, twice=False)


def vjp(
    y: Array,
    cotangent: Array,
    temperatures: Array,
    per_row: bool,
    out: Array,
    in_temperature: Array | None,
    streams: bool = False,
) -> None:
    """Gradients of a relaxed sample: in the logits into `out`, in each row's temperature where that is asked for.

    `out` may be `y` or `cotangent` itself.
    """
    job, kept = _rows_job(y, temperatures, per_row)
    if job["rows"] == 0:
        return
    job["streams"] = int(streams and out.nbytes >= _STREAMED)
    kept += [_place_rows(job, out, "out"), _place_rows(job, cotangent, "cotangent"), in_temperature]
    job["row_result"] = _address(in_temperature)
    if _short(job["rows"], job["columns"]):
        _run_short("vjp_short", y.dtype, job)
    else:
        _run_rows("vjp", y.dtype, job, twice=True)


def entropy(array: Array, temperatures: Array, per_row: bool, out: Array) -> int | None:
    """Entropy of the rows of `array` (categories last) into contiguous `out`, NaN if bad; the first bad row, if any."""
    job, kept = _rows_job(array, temperatures, per_row)
    rows, columns = job["rows"], job["columns"]
    if rows == 0:
        return None
    job["out"] = _address(out)
    job["group"] = job["grab"] = 1
    if columns <= COUNTED:
        side = job["segment_blocks"] = _tile_rows(rows, columns)
        packed = Job(job)
        _run(drivers.driver("entropy_short", _name(array.dtype)), packed, -(-rows // side), side * columns)
        return packed.bad_row
    segments, size = _segments(rows, columns)
    if rows > 1 and job["column_stride"] != array.itemsize:
        # cache lines hold columns of neighbouring rows: visit those side by side, in short segments
        while size > 1 and rows * -(-columns // (size // 2 * BLOCK)) <= _STRIDED_ITEMS:
            size //= 2
        segments = -(-columns // (size * BLOCK))
        job["group"] = job["grab"] = 16
    job["segments"], job["segment_blocks"] = segments, size
    nodes, pending = np.empty((rows * segments, 3)), np.full(rows, segments, np.int64)
    job["node_s"], job["pending"] = _address(nodes), _address(pending)
    kept += [nodes, pending]
    packed = Job(job)
    _run(drivers.driver("entropy", _name(array.dtype)), packed, rows * segments, min(size * BLOCK, columns))
    return packed.bad_row


def given_log_prob(
    array: Array, temperatures: Array, per_row: bool, given: Array, greedy: Array, nodes: Array, out: Array
) -> None:
    """Log-probabilities of `given` categories, an equal number of each row, from the rows' nodes and argmaxes."""
    job, kept = _rows_job(array, temperatures, per_row)
    if given.size == 0:
        return
    kept += [given, greedy, nodes]
    job["samples"], job["segment_blocks"], job["grab"] = given.size // job["rows"], _ENTRIES, 1
    job["given"], job["indices"], job["row_node"] = _address(given), _address(greedy), _address(nodes)
    job["log_prob"] = _address(out)
    _run(drivers.driver("given_log_prob", _name(array.dtype)), Job(job), -(-given.size // _ENTRIES), 8 * _ENTRIES)


def gumbel(
    out: Array,
    seed: int,
    draw: int,
    loc: float,
    scale: float,
    progress: Progress | None = None,
    streams: bool = False,
) -> None:
    """Fill `out` with scale * noise + loc, rounded after either step; the last axis is the column."""
    if out.size == 0:
        return
    array = out if out.ndim else out.reshape(1)
    rows, columns = array.size // array.shape[-1], array.shape[-1]
    job = EMPTY.copy()
    geometry = _place_rows(job, array)
    job["rows"] = rows
    job["seed"], job["draw"] = seed, draw
    job["loc"], job["scale"] = loc, scale
    job["streams"] = int(streams and out.nbytes >= _STREAMED)
    if _short(rows, columns):
        width = job["segment_blocks"] = _tile_rows(rows, columns)
        items, per_item = -(-rows // width), width * columns
    else:
        items, per_item = rows * -(-columns // TILE), TILE
    worker = "noise_float64" if out.dtype == np.float64 else "noise_float32"
    driver = drivers.driver(worker, _name(out.dtype))
    _run(driver, Job(job), items, per_item, progress)
    del geometry  # alive until here: the job holds its address


def spawn_seeds(seed: int, draw: int, count: int) -> list[int]:
    """Seeds of `count` child generators."""
    seeds = np.empty(count, np.uint64)
    job = EMPTY | {"array": _address(seeds), "rows": count, "seed": seed, "draw": draw}
    packed = Job(job)  # a name, or its memory is free again before the kernel reads it
    drivers.spawn_seeds(packed.address)
    return [int(child) for child in seeds]
