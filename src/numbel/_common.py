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
from typing import TYPE_CHECKING, Any, NamedTuple

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
from .results import Sample

if TYPE_CHECKING:
    from .generator import Generator

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


def _rows(array: NDArray[Any]) -> tuple[int, int]:
    """Rows and columns of an array; none of one that is not common."""
    shape = array.shape
    if not shape or not shape[-1] or not array.flags.c_contiguous:
        return 0, 0
    return array.size // shape[-1], shape[-1]


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
    generator: Generator, array: NDArray[Any], num_samples: int | None, temperature: float, method: str, full: bool
) -> Any:
    """A Sample, or without `full` its indices."""
    plan = _plan_samples(*_rows(array), array.dtype, method)
    samples = 1 if num_samples is None else num_samples
    if plan is None or not 0.0 < temperature < math.inf or not 0 < samples < _MANY:
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


def relaxed(generator: Generator, array: NDArray[Any], temperature: float) -> NDArray[Any] | None:
    """Relaxed samples."""
    plan = _plan_relaxed(*_rows(array), array.dtype)
    if plan is None or not 0.0 < temperature < math.inf:
        return None
    made = np.empty(array.shape, array.dtype)
    draw = generator._take()
    try:
        bad = _run(plan, draw, temperature, array, address_of(made), (0, 0, 0))
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
    generator: Generator, loc: float, scale: float, size: int | tuple[Any, ...], dtype: DTypeLike
) -> NDArray[Any] | None:
    """Noise of a shape with at least one axis."""
    shape = size if type(size) is tuple else (size,)
    if not shape or not scale >= 0.0 or not all(type(each) is int and each > 0 for each in shape):
        return None
    kind, values = _checks.float_dtype(dtype), math.prod(shape)
    if values >= _MOST:
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


def logsumexp(array: NDArray[Any], temperature: float) -> Any:
    """Logsumexps of rows that are all valid."""
    plan = _plan_samples(*_rows(array), array.dtype, "grouped")
    if plan is None or not 0.0 < temperature < math.inf:
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


def entropy(array: NDArray[Any], temperature: float) -> Any:
    """Entropies of short rows that are all valid."""
    plan = _plan_entropy(*_rows(array), array.dtype)
    if plan is None or not 0.0 < temperature < math.inf:
        return None
    made = np.empty(array.shape[:-1], plan.sums)
    bad = _run(plan, (0, 0), temperature, array, address_of(made), (0, 0, 0))
    return _or_scalar(made) if bad is None else None
