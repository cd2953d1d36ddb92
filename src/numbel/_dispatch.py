"""Arrays -> kernel calls: flattens to (rows, columns) once, allocates outputs and scratch, cuts the work.

How the work is cut, which threads take it and how much is done between two signal checks change no bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from ._cpu import drivers
from ._cpu.job import EMPTY, Job
from ._cpu.noise import SHORT as SHORT_NOISE
from ._cpu.noise import TILE
from ._cpu.short import SHORT
from ._jit import parallel_allowed
from ._scalar.blocks import BLOCK

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


def _address(array: Array | None) -> int:
    return 0 if array is None else array.__array_interface__["data"][0]


@functools.cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # NumPy takes 2 us to find it


@functools.cache
def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of log_prob and logsumexp for logits of this dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _place_rows(job: dict[str, Any], array: Array) -> Array | None:
    """Tell the job where rows lie: neighbouring batch axes are merged where memory allows."""
    job["array"], job["item_size"] = _address(array), array.itemsize
    columns = array.shape[-1]
    job["columns"], job["column_stride"] = columns, array.strides[-1] if columns > 1 else array.itemsize
    if array.ndim <= 2:
        job["row_stride"] = array.strides[0] if array.ndim == 2 else 0
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
        job["row_stride"] = dims[0][1] if dims else 0
        return None
    geometry = np.array(dims, dtype=np.int64)
    job["dims"], job["geometry"] = len(dims), _address(geometry)
    return geometry


def _run(driver: drivers.Driver, job: Job, items: int, per_item: int, progress: Progress | None) -> None:
    """Have workers take items 0 .. items - 1, in waves."""
    step = max(1, _WAVE // per_item)
    for start in range(0, items, step):
        end = min(start + step, items)
        job.limit(start, end)
        workers = numba.get_num_threads() if end - start > 1 and (end - start) * per_item >= _PARALLEL_FROM else 1
        if workers > 1:
            with parallel_allowed() as allowed:
                if allowed:
                    driver.parallel(job.address, workers)
                else:
                    driver.serial(job.address)
        else:
            driver.serial(job.address)
        if progress is not None:
            progress((end - start) * per_item)


def _segments(rows: int, columns: int) -> tuple[int, int]:
    """Segments of a row, and blocks in each: enough items for every thread, little to join."""
    blocks = -(-columns // BLOCK)
    size = 16
    while size < 4096 and (size * 512 < blocks * rows or rows >= 64):
        size *= 2
    return -(-blocks // size), size


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
) -> int | None:
    """Sample the rows of `array` (categories last) into contiguous results, a Sample; the first bad row, if any."""
    indices, log_prob, logsumexp = results
    rows, columns = math.prod(array.shape[:-1]), array.shape[-1]
    if rows == 0 or (samples == 0 and logsumexp is None):
        return None
    if samples == 0:  # logsumexp is asked for all the same
        samples, indices, log_prob = 1, np.empty(rows, np.int64), None
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
    job["seed"], job["draw"] = seed, draw
    strided = job["column_stride"] != array.itemsize
    if columns <= SHORT:
        width = 16
        while width < rows and (width < 64 or (width < 512 and width * columns < 4096)):
            width *= 2
        segments, job["segment_blocks"] = 1, width
        items, per_item = -(-rows // width), width * columns
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
    for first in range(0, samples, at_once):
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


def gumbel(out: Array, seed: int, draw: int, loc: float, scale: float, progress: Progress | None = None) -> None:
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
    if columns < SHORT_NOISE:
        width = 16
        while width < rows and width < 512 and width * columns < TILE:
            width *= 2
        job["segment_blocks"] = width
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
    drivers.spawn_seeds(Job(job).address)
    return [int(child) for child in seeds]
