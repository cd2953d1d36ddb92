"""Arrays -> kernel calls: flattens to (rows, columns) once, allocates outputs and scratch, cuts the work.

How the work is cut, which threads take it and how much is done between two signal checks change no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from ._cpu import drivers
from ._cpu.job import JOB
from ._cpu.noise import SHORT as SHORT_NOISE
from ._cpu.noise import TILE
from ._cpu.short import SHORT
from ._jit import parallel_allowed
from ._scalar.address import draw_key
from ._scalar.blocks import BLOCK
from .results import Sample

Array = np.ndarray[Any, Any]
Progress = Callable[[int], None]

#: Below this many categories a thread costs more than it gains (some 20 us of work).
_PARALLEL_FROM = 1 << 16
#: Categories between two returns to Python, where Ctrl-C and the progress bar are served.
_WAVE = 1 << 28
#: Samples of a row in one pass; more take several, so that scratch stays small.
_SAMPLES = 1 << 14
_KINDS = {
    "float32": np.float32(0),
    "float64": np.float64(0),
    "float16": np.int16(0),
    "bfloat16": np.uint16(0),
}
_NONE = (1 << 63) - 1


def _address(array: Array | None) -> int:
    return 0 if array is None else array.__array_interface__["data"][0]


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of log_prob and logsumexp for logits of this dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _geometry(array: Array) -> Array:
    """(length, stride) of the batch axes, neighbours merged where memory allows; at least one."""
    dims: list[list[int]] = []
    for length, stride in zip(array.shape[:-1], array.strides[:-1], strict=True):
        if length == 1:
            continue
        if dims and dims[-1][1] == length * stride:
            dims[-1] = [dims[-1][0] * length, stride]
        else:
            dims.append([length, stride])
    return np.array(dims or [[1, 0]], dtype=np.int64)


def _run(driver: drivers.Drivers, kind: Any, job: Array, items: int, per_item: int, progress: Progress | None) -> None:
    """Have workers take items 0 .. items - 1, in waves."""
    counter = np.zeros(1, np.int64)
    job["next_item"] = _address(counter)
    step = max(1, _WAVE // per_item)
    for start in range(0, items, step):
        end = min(start + step, items)
        counter[0] = start
        job["end_item"] = end
        workers = numba.get_num_threads() if (end - start) * per_item >= _PARALLEL_FROM else 1
        if min(workers, end - start) > 1:
            with parallel_allowed() as allowed:
                if allowed:
                    driver.parallel(kind, job, workers)
                else:
                    driver.serial(kind, job)
        else:
            driver.serial(kind, job)
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
    indices: Array,
    log_prob: Array | None,
    logsumexp: Array | None,
    progress: Progress | None = None,
) -> int | None:
    """Sample the rows of `array` (categories last) into contiguous outputs; the first bad row, if any."""
    rows, columns = indices.size // max(samples, 1), array.shape[-1]
    if samples == 0 or rows == 0:
        return None
    geometry = _geometry(array)
    kind = _KINDS[array.dtype.name]
    strided = array.strides[-1] != array.itemsize and columns > 1
    job = np.zeros(1, JOB)
    record = job[0]
    first_bad = np.array([_NONE])
    key, mask = draw_key(np.uint64(seed), np.uint64(draw))
    record["array"] = _address(array)
    record["columns"] = columns
    record["column_stride"] = array.strides[-1] if strided else array.itemsize
    record["item_size"] = array.itemsize
    record["rows"] = rows
    record["dims"] = len(geometry)
    record["geometry"] = _address(geometry)
    record["temperatures"] = _address(temperatures)
    record["temperature_step"] = int(per_row)
    record["row_ids"] = _address(row_ids)
    record["row_mask"] = _address(row_mask)
    record["all_samples"] = samples
    record["indices"] = _address(indices)
    record["log_prob"] = _address(log_prob)
    record["logsumexp"] = _address(logsumexp)
    record["first_bad"] = _address(first_bad)
    record["key"], record["mask"] = key, mask
    if method == "grouped" and columns <= SHORT:
        width = 64
        while width < 512 and width * columns < 4096:
            width *= 2
        segments, record["segment_blocks"] = 1, width
        items, per_item = -(-rows // width), width * columns
        driver = drivers.GROUPED_SHORT
    else:
        driver = drivers.GROUPED if method == "grouped" else drivers.GUMBEL_MAX
        segments, size = _segments(rows, columns)
        record["segment_blocks"] = size
        record["segments"] = segments
        record["group"] = record["grab"] = 16 if strided and rows > 1 else 1
        items, per_item = rows * segments, min(size * BLOCK, columns)
    for first in range(0, samples, _SAMPLES):
        count = min(_SAMPLES, samples - first)
        record["samples"], record["first_sample"] = count, first
        if segments > 1:
            scratch = np.empty((2 + 3 * count, items))
            pending = np.full(rows, segments, np.int64)
            step = scratch.strides[0]
            record["node_r"], record["node_s"] = _address(scratch), _address(scratch) + step
            record["winner_key"] = _address(scratch) + 2 * step
            record["winner_r"] = _address(scratch) + (2 + count) * step
            record["winner_at"] = _address(scratch) + (2 + 2 * count) * step
            record["pending"] = _address(pending)
        _run(driver, kind, job, items, per_item, progress)
    return None if first_bad[0] == _NONE else int(first_bad[0])


def gumbel(out: Array, seed: int, draw: int, loc: float, scale: float, progress: Progress | None = None) -> None:
    """Fill `out` with scale * noise + loc, rounded after either step; the last axis is the column."""
    if out.size == 0:
        return
    array = out if out.ndim else out.reshape(1)
    rows, columns = array.size // array.shape[-1], array.shape[-1]
    geometry = _geometry(array)
    job = np.zeros(1, JOB)
    record = job[0]
    key, mask = draw_key(np.uint64(seed), np.uint64(draw))
    record["array"] = _address(array)
    record["columns"] = columns
    record["column_stride"] = array.strides[-1] if columns > 1 else array.itemsize
    record["item_size"] = array.itemsize
    record["rows"] = rows
    record["dims"] = len(geometry)
    record["geometry"] = _address(geometry)
    record["key"], record["mask"] = key, mask
    record["loc"], record["scale"] = loc, scale
    if columns < SHORT_NOISE:
        width = 16
        while width < 512 and width * columns < TILE:
            width *= 2
        record["segment_blocks"] = width
        items, per_item = -(-rows // width), width * columns
    else:
        items, per_item = rows * -(-columns // TILE), TILE
    driver = drivers.NOISE_FLOAT64 if out.dtype == np.float64 else drivers.NOISE_FLOAT32
    _run(driver, _KINDS[out.dtype.name], job, items, per_item, progress)


def empty_sample(shape: tuple[int, ...], num_samples: int | None, dtype: np.dtype[Any]) -> Sample:
    """Outputs of `sample` for a batch of this shape."""
    indices = shape if num_samples is None else (*shape, num_samples)
    return Sample(np.empty(indices, np.int64), np.empty(indices, dtype), np.empty(shape, dtype))
