"""The common call: few values, in one contiguous array of the host, and the other options as they are.

What these functions return and raise is what `_host` and `densities` do. They are quicker because nothing is looked at
twice: of the 47 us that a sample of ten categories took, 4 were the kernel's. Each returns None where a call is of
another kind, and has then done nothing.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _checks, _dispatch
from ._cpu import drivers
from ._cpu.job import CommonJob, address_of, common_shape
from ._cpu.noise import TILE
from ._cpu.runs import ELEMENTS
from ._cpu.short import SHORT
from ._scalar.blocks import BLOCK
from ._scalar.entropy import COUNTED
from ._scalar.limits import LEAST_TEMPERATURE, MOST_TEMPERATURE
from .results import Sample

#: From so many values on several threads are worth their start.
_MOST = _dispatch._PARALLEL_FROM
#: From so many samples of a row on some are drawn from a table (`_tables.tabled`).
_MANY = 64


class _Plan(NamedTuple):
    """What depends on the shape and dtype alone: an entry point, the fields that it is told, the dtype of sums."""

    entry: Callable[[int], None]
    shape: tuple[int, ...]
    sums: np.dtype[Any]


class _Lent(threading.local):
    """A thread's job and its scratch; None while it is lent: another call within (a finalizer's) takes its own."""

    kept: tuple[CommonJob, NDArray[Any]] | None = None


_lent = _Lent()


def _new_job(size: int) -> tuple[CommonJob, NDArray[Any]]:
    memory, address = _dispatch._new_scratch(size)
    return CommonJob(address, size), memory


def _run(
    plan: _Plan,
    draw: tuple[int, int],
    temperature: float,
    array: NDArray[Any],
    out: int,
    results: tuple[int, int, int],
    samples: int = 1,
    law: tuple[float, float] = (0.0, 1.0),
) -> int | None:
    """Have one worker do what a plan says; the first bad row, if any."""
    job, memory = _lent.kept or _new_job(_dispatch._LENT)
    _lent.kept = None
    call = (*draw, temperature, *law, address_of(array), out, *results, samples, samples)
    while needed := job.run(plan.entry, call, plan.shape):
        job, memory = _new_job(needed)
    if memory.size <= _dispatch._LENT_MOST:
        _lent.kept = job, memory
    return job.bad_row


def _is_common(rows: int, columns: int, dtype: np.dtype[Any]) -> bool:
    return 0 < rows * columns < _MOST and _checks._supported(dtype)


def _rows(logits: Any, axis: Any, temperature: Any) -> tuple[int, int]:
    """Rows and columns of logits; none of those that are not common."""
    if (
        type(logits) is not np.ndarray
        or type(axis) is not int
        or axis != -1
        or type(temperature) is not float
        or not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE
        or not logits.flags.c_contiguous
    ):
        return 0, 0
    shape = logits.shape
    return (logits.size // shape[-1], shape[-1]) if shape and shape[-1] else (0, 0)


@functools.lru_cache(1024)
def _plan_samples(rows: int, columns: int, dtype: np.dtype[Any], method: str) -> _Plan | None:
    """As `_dispatch.categorical` cuts the work, where a row is one item or less."""
    if not _is_common(rows, columns, dtype) or method not in _checks.METHODS:
        return None
    if columns <= SHORT:
        worker, blocks = f"{method}_short", _dispatch.width_of_samples(rows, columns)
        items = -(-rows // blocks)
    else:
        worker, items = method, rows
        segments, blocks = _dispatch._segments(rows, columns)
        if segments > 1:
            return None
    entry = drivers.driver(worker, dtype.name).serial.loaded()
    return _Plan(entry, common_shape(rows, columns, dtype.itemsize, blocks, items), _dispatch.result_dtype(dtype))


def sample(
    generator: Any,
    array: Any,
    num_samples: Any,
    axis: Any,
    temperature: Any,
    method: Any,
    others: tuple[Any, ...],
    full: bool,
) -> Any:
    """A Sample, or without `full` its indices; `others` are the options that are None in a common call."""
    offsets, top_k, top_p, min_p, row_ids, row_mask, on_invalid, out, stream = others
    if not (offsets is top_k is top_p is min_p is row_ids is row_mask is on_invalid is out is stream is None):
        return None
    samples = 1 if num_samples is None else num_samples
    rows, columns = _rows(array, axis, temperature)
    if not rows or type(samples) is not int or not 0 < samples < _MANY or type(method) is not str:
        return None
    plan = _plan_samples(rows, columns, array.dtype, method)
    if plan is None or generator._counter is not None:
        return None
    form = array.shape[:-1]
    many = form if num_samples is None else (*form, samples)
    indices = np.empty(many, np.int64)
    results = address_of(indices), 0, 0
    if full:
        log_prob, logsumexp = np.empty(many, plan.sums), np.empty(form, plan.sums)
        results = results[0], address_of(log_prob), address_of(logsumexp)
    draw = generator._take()
    try:
        bad = _run(plan, draw, temperature, array, 0, results, samples)
        if bad is not None:
            _checks.invalid_row(array, bad)
    except BaseException:
        generator._give_back(*draw)
        raise
    if full:
        return Sample(*map(_or_scalar, (indices, log_prob, logsumexp)))
    return _or_scalar(indices)


def _or_scalar(array: NDArray[Any]) -> Any:
    return array if array.shape else array[()]


@functools.lru_cache(1024)
def _plan_relaxed(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan | None:
    """As `_dispatch.relaxed` cuts the work, where a row is one item or less."""
    if not _is_common(rows, columns, dtype):
        return None
    sums = _dispatch.result_dtype(dtype)
    if _dispatch._short(rows, columns):
        worker, blocks, held = "relaxed_short", _dispatch._tile_rows(rows, columns), 0
        items = -(-rows // blocks)
    elif columns <= _dispatch._WHOLE_OF_FEW:
        worker, blocks, items, held = "relaxed", -(-columns // BLOCK), rows, _dispatch._HELD // sums.itemsize
    else:
        return None
    entry = drivers.driver(f"{worker}_{sums.name}", sums.name).serial.loaded()
    element = ELEMENTS[dtype.name]
    return _Plan(entry, common_shape(rows, columns, dtype.itemsize, blocks, items, 1, element, held), sums)


def _softmax(plan: _Plan, array: NDArray[Any], temperature: float, draw: tuple[int, int]) -> Any:
    """Relaxed samples of a draw, and the first bad row, if any."""
    made = np.empty(array.shape, array.dtype)
    return made, _run(plan, draw, temperature, array, address_of(made), (0, 0, 0))


def softmax(array: NDArray[Any], temperature: float, draw: tuple[int, int]) -> NDArray[Any] | None:
    """Relaxed samples of a draw, NaN in bad rows."""
    rows, columns = _rows(array, -1, temperature)
    plan = _plan_relaxed(rows, columns, array.dtype) if rows else None
    if plan is None:
        return None
    made: NDArray[Any] = _softmax(plan, array, temperature, draw)[0]
    return made


def relaxed(
    generator: Any, array: Any, temperature: Any, axis: Any, hard: Any, others: tuple[Any, ...]
) -> NDArray[Any] | None:
    """Relaxed samples; `others` are the options that are None in a common call."""
    row_ids, row_mask, on_invalid, out, stream = others
    if hard is not False or not (row_ids is row_mask is on_invalid is out is stream is None):
        return None
    rows, columns = _rows(array, axis, temperature)
    plan = _plan_relaxed(rows, columns, array.dtype) if rows else None
    if plan is None or generator._counter is not None:
        return None
    draw = generator._take()
    try:
        made: NDArray[Any]
        made, bad = _softmax(plan, array, temperature, draw)
        if bad is not None:
            _checks.invalid_row(array, bad)
    except BaseException:
        generator._give_back(*draw)
        raise
    return made


@functools.lru_cache(1024)
def _plan_noise(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan:
    """As `_dispatch.gumbel` cuts the work."""
    sums = _dispatch.result_dtype(dtype)
    entry = drivers.driver(f"noise_{sums.name}", dtype.name).serial.loaded()
    if _dispatch._short(rows, columns):
        blocks = _dispatch._tile_rows(rows, columns)
        items = -(-rows // blocks)
    else:
        blocks, items = 0, rows * -(-columns // TILE)
    return _Plan(entry, common_shape(rows, columns, dtype.itemsize, blocks, items), sums)


def gumbel(
    generator: Any, loc: Any, scale: Any, size: Any, dtype: DTypeLike, others: tuple[Any, ...]
) -> NDArray[Any] | None:
    """Noise of a shape with at least one axis; `others` are the options that are None in a common call."""
    out, like, stream = others
    if type(loc) is not float or type(scale) is not float or not (out is like is stream is None):
        return None
    shape = size if type(size) is tuple else (size,)
    if not shape or not scale >= 0.0 or not all(type(each) is int and each > 0 for each in shape):
        return None
    kind, values = _checks.float_dtype(dtype), math.prod(shape)
    if values >= _MOST or generator._counter is not None:
        return None
    made = np.empty(shape, kind)
    plan = _plan_noise(values // shape[-1], shape[-1], kind)
    draw = generator._take()
    try:
        _run(plan, draw, 1.0, made, 0, (0, 0, 0), 1, (loc, scale))
    except BaseException:
        generator._give_back(*draw)
        raise
    return made


def logsumexp(array: Any, axis: Any, temperature: Any, others: tuple[Any, ...]) -> Any:
    """Logsumexps of rows that are all valid; `others` are the options that a common call lacks."""
    on_invalid, out, stream, keepdims = others
    common = on_invalid is out is stream is None and keepdims is False
    rows, columns = _rows(array, axis, temperature) if common else (0, 0)
    plan = _plan_samples(rows, columns, array.dtype, "grouped") if rows else None
    if plan is None:
        return None
    made = np.empty(array.shape[:-1], plan.sums)
    bad = _run(plan, (0, 0), temperature, array, 0, (0, 0, address_of(made)), 0)
    return _or_scalar(made) if bad is None else None


@functools.lru_cache(1024)
def _plan_entropy(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan | None:
    """As `_dispatch.entropy` cuts the work of short rows."""
    if not _is_common(rows, columns, dtype) or columns > COUNTED:
        return None
    side = _dispatch._tile_rows(rows, columns)
    shape = common_shape(rows, columns, dtype.itemsize, side, -(-rows // side))
    entry = drivers.driver("entropy_short", dtype.name).serial.loaded()
    return _Plan(entry, shape, _dispatch.result_dtype(dtype))


def entropy(array: Any, axis: Any, temperature: Any, others: tuple[Any, ...]) -> Any:
    """Entropies of short rows that are all valid; `others` are the options that are None in a common call."""
    on_invalid, out, stream = others
    rows, columns = _rows(array, axis, temperature) if on_invalid is out is stream is None else (0, 0)
    plan = _plan_entropy(rows, columns, array.dtype) if rows else None
    if plan is None:
        return None
    made = np.empty(array.shape[:-1], plan.sums)
    bad = _run(plan, (0, 0), temperature, array, address_of(made), (0, 0, 0))
    return _or_scalar(made) if bad is None else None
