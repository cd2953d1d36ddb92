"""The common call: few values, in one contiguous array of the host, and the other options as they are.

What these functions return and raise is what `methods` and `densities` do. They are quicker because nothing is looked
at twice: of the 47 us that a sample of ten categories took, 4 were the kernel's. Each returns None where a call is of
another kind, and has then done nothing.
"""

from __future__ import annotations

import functools
import math
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._arguments import checks
from .._arguments.requests import Draw, Limit, Limits, LogitRows, Outputs, Temperature
from .._cpu.parameters import FIRST, Call, Results, address_of, bad_row, lend, places, scratch_needed
from .._cpu.signatures import Choosing, Sampling, ShortEntropies, ShortVjp, TopKResults
from .._scalar.limits import LEAST_TEMPERATURE, MOST_TEMPERATURE
from ..results import Sample, TopK
from . import choices, dispatch
from . import counts as _counts

#: From so many values on several threads are worth their start.
_MOST = dispatch._PARALLEL_FROM
#: From so many samples of a row on some are drawn from a table (`tables.tabled`).
_MANY = 64


#: top_k, top_p and min_p of all rows.
_Limits = tuple[int, float, float]
_pack_limits = struct.Struct("=qdd").pack_into


class _Plan(NamedTuple):
    """What depends on the shape and dtype alone: an entry point, its call in memory, and what each call writes anew."""

    entry: Callable[[int], None]
    words: memoryview
    pack: Callable[..., None]  # fields in front of the parameters
    later: tuple[int, ...]  # words of addresses that follow later
    limits: int  # the first word of limits; 0: none
    sums: np.dtype[Any]  # of log_prob and logsumexp


def _planned(plan: dispatch.Plan, front: str, codes: str, sums: np.dtype[Any], later: str = "") -> _Plan:
    """The plan of calls that differ in the fields `front`, of those struct codes, and in addresses `later`."""
    call = Call(plan.parameters)
    call.limit(0, plan.items)
    lend(call.words, 0, 0)
    form: Any = type(plan.parameters)
    at = places(form)
    fields = list(at)[: len(codes)]
    assert all(any(f"{name}.".startswith(f"{group}.") for group in front.split()) for name in fields), fields
    pack = struct.Struct(f"={codes}").pack_into
    words, limits = tuple(at[name] for name in later.split()), at.get("limits.top_k.values", 0)
    return _Plan(plan.driver.serial.loaded(), call.words, pack, words, limits, sums)


class _Memory:
    """A call in memory, which serves one common call after the other: to make one takes as long as a small kernel."""

    def __init__(self, size: int) -> None:
        self._scratch, self._lent = dispatch._new_scratch(size)
        memory = np.empty(_WORDS, np.int64)
        self._address = address_of(memory)
        self._words = memory.data
        self._limits = np.empty(3, np.int64)
        at = address_of(self._limits)
        self._limit_words = np.array([at, 0, at + 8, 0, at + 16, 0]).data  # (address, stride) of each
        #: Bytes of scratch.
        self.size = size

    def run(self, plan: _Plan, front: tuple[float, ...], later: tuple[int, ...], limits: _Limits | None) -> int:
        """Run a plan; bytes of scratch that it lacked."""
        words = self._words
        words[: len(plan.words)] = plan.words
        lend(words, self._lent, self.size)
        plan.pack(words, FIRST, *front)
        for at, address in zip(plan.later, later, strict=True):
            words[at] = address
        if limits is not None:
            _pack_limits(self._limits.data, 0, *limits)
            words[plan.limits : plan.limits + 6] = self._limit_words
        plan.entry(self._address)
        return scratch_needed(words)

    @property
    def bad_row(self) -> int | None:
        """The smallest bad row, if there is one."""
        return bad_row(self._words)


#: Words of the longest call.
_WORDS = 64


class _Lent(threading.local):
    """A thread's memory; None while it is lent: another call within (a finalizer's) takes its own."""

    kept: _Memory | None = None


_lent = _Lent()


def _run(
    plan: _Plan, front: tuple[float, ...], later: tuple[int, ...] = (), limits: _Limits | None = None
) -> int | None:
    """Have one worker do what a plan says; the first bad row, if any."""
    memory = _lent.kept or _Memory(dispatch._LENT)
    _lent.kept = None
    while needed := memory.run(plan, front, later, limits):
        memory = _Memory(needed)
    if memory.size <= dispatch._LENT_MOST:
        _lent.kept = memory
    return memory.bad_row


def _placeholder(rows: int, columns: int, dtype: np.dtype[Any]) -> LogitRows:
    """Rows of that shape, in place of those that come."""
    return LogitRows(np.empty((rows, columns), dtype), Temperature(np.ones(1), False))


def _is_common(rows: int, columns: int, dtype: np.dtype[Any]) -> bool:
    return 0 < rows * columns < _MOST and checks._supported(dtype)


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
    """That of rows which are one item or less."""
    if not _is_common(rows, columns, dtype) or method not in checks.METHODS:
        return None
    results = Results(None, None, None, None, None, 1, 0, 1)
    plan = dispatch.plan_sampling(_placeholder(rows, columns, dtype), method, (0, 0), results)
    if isinstance(plan.parameters, Sampling) and plan.parameters.split.segments > 1:
        return None
    return _planned(plan, _SAMPLING, "QQqqdqqqqqqqqqq", dispatch.result_dtype(dtype))


#: What a sample writes anew.
_SAMPLING = "stream temperatures row_mask results logits.data"


@functools.lru_cache(1024)
def _plan_truncated(rows: int, columns: int, dtype: np.dtype[Any], method: str, by_mass: bool) -> _Plan | None:
    """That of truncated rows."""
    if not _is_common(rows, columns, dtype) or method not in checks.METHODS:
        return None
    results, top_p = Results(None, None, None, None, None, 1, 0, 1), 0.5 if by_mass else 1.0
    values = np.array([1]), np.array([top_p]), np.array([0.0])
    limits = Limits(*(Limit(each, False) for each in values))
    plan = dispatch.plan_truncated(_placeholder(rows, columns, dtype), limits, method, (0, 0), results)
    return _planned(plan, _SAMPLING, "QQqqdqqqqqqqqqq", dispatch.result_dtype(dtype))


def _limits(top_k: Any, top_p: Any, min_p: Any, columns: int) -> _Limits | None:
    """Limits that are common: plain numbers in range, for all rows."""
    k, p, least = columns if top_k is None else top_k, 1.0 if top_p is None else top_p, 0.0 if min_p is None else min_p
    if type(k) is not int or type(p) is not float or type(least) is not float:
        return None
    if k < -1 or not 0.0 < p <= 1.0 or not 0.0 <= least <= 1.0:
        return None
    return k if 1 <= k < columns else columns, p, least


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
    if not (offsets is row_ids is row_mask is on_invalid is out is stream is None):
        return None
    samples = 1 if num_samples is None else num_samples
    rows, columns = _rows(array, axis, temperature)
    if not rows or type(samples) is not int or not 0 < samples < _MANY or type(method) is not str:
        return None
    limits = None
    if not (top_k is top_p is min_p is None):
        limits = _limits(top_k, top_p, min_p, columns)
        if limits is None:
            return None
        limits = None if limits == (columns, 1.0, 0.0) else limits
    if limits is None:
        plan = _plan_samples(rows, columns, array.dtype, method)
    else:
        plan = _plan_truncated(rows, columns, array.dtype, method, limits[1] < 1.0)
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
        sampling = *results, 0, 0, samples, 0, samples
        bad = _run(plan, (*draw, 0, 0, temperature, 0, *sampling, address_of(array)), (), limits)
        if bad is not None:
            checks.invalid_row(array, bad)
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
    """That of rows which are one item or less."""
    if not _is_common(rows, columns, dtype) or columns > dispatch._WHOLE_OF_FEW:
        return None
    placeholder = _placeholder(rows, columns, dtype)
    plan = dispatch.plan_relaxing(placeholder, (0, 0), placeholder.array)
    sums = dispatch.result_dtype(dtype)
    return _planned(plan, "stream temperatures row_mask logits.data", "QQqqdqq", sums, "out.data")


def _softmax(plan: _Plan, array: NDArray[Any], temperature: float, draw: Draw) -> Any:
    """Relaxed samples of a draw, and the first bad row, if any."""
    made = np.empty(array.shape, array.dtype)
    return made, _run(plan, (*draw, 0, 0, temperature, 0, address_of(array)), (address_of(made),))


def softmax(array: NDArray[Any], temperature: float, draw: Draw) -> NDArray[Any] | None:
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
            checks.invalid_row(array, bad)
    except BaseException:
        generator._give_back(*draw)
        raise
    return made


@functools.lru_cache(1024)
def _plan_vjp(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan | None:
    """That of short rows."""
    if not _is_common(rows, columns, dtype):
        return None
    placeholder = _placeholder(rows, columns, dtype)
    each = placeholder.array
    plan = dispatch.plan_vjp(each, each, placeholder.temperature, each, None)
    if not isinstance(plan.parameters, ShortVjp):
        return None
    return _planned(plan, "temperatures in_temperature y.data", "qdqq", dtype, "cotangent.data out.data")


def vjp(y: NDArray[Any], cotangent: NDArray[Any], temperature: float) -> NDArray[Any] | None:
    """Gradients in the logits of relaxed samples of short rows, whose cotangents have their shape and dtype."""
    rows, columns = _rows(y, -1, temperature) if cotangent.flags.c_contiguous else (0, 0)
    plan = _plan_vjp(rows, columns, y.dtype) if rows else None
    if plan is None:
        return None
    made = np.empty(y.shape, y.dtype)
    _run(plan, (0, temperature, 0, address_of(y)), (address_of(cotangent), address_of(made)))
    return made


@functools.lru_cache(1024)
def _plan_noise(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan:
    """That of one worker."""
    plan = dispatch.plan_noise(np.empty((rows, columns), dtype), (0, 0), 0.0, 1.0)
    return _planned(plan, "stream loc scale out.data", "QQqddq", dtype)


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
    kind, values = checks.float_dtype(dtype), math.prod(shape)
    if values >= _MOST or generator._counter is not None:
        return None
    made = np.empty(shape, kind)
    plan = _plan_noise(values // shape[-1], shape[-1], kind)
    draw = generator._take()
    try:
        _run(plan, (*draw, 0, loc, scale, address_of(made)))
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
    bad = _run(plan, (0, 0, 0, 0, temperature, 0, 0, 0, address_of(made), 0, 0, 0, 0, 0, address_of(array)))
    return _or_scalar(made) if bad is None else None


@functools.lru_cache(1024)
def _plan_given(rows: int, columns: int, dtype: np.dtype[Any], samples: int) -> _Plan | None:
    """That of log-probabilities of so many categories of each row."""
    if not _is_common(rows, columns, dtype):
        return None
    sums, given = dispatch.result_dtype(dtype), np.empty(rows * samples, np.int64)
    roots, made = np.empty((rows, 2)), np.empty(rows * samples, sums)
    plan = dispatch.plan_given(_placeholder(rows, columns, dtype), given, given, roots, made)
    front = "temperatures given argmaxes roots log_prob samples logits.data"
    return _planned(plan, front, "qdqqqqqq", sums)


def log_prob(array: Any, index: Any, axis: Any, temperature: Any, others: tuple[Any, ...]) -> Any:
    """Log-probabilities of categories in range, in rows that are all valid; `others` are None in a common call."""
    on_invalid, out, stream = others
    rows, columns = _rows(array, axis, temperature) if on_invalid is out is stream is None else (0, 0)
    if not rows:
        return None
    if type(index) is int and array.ndim == 1:
        given = np.array(index)
    elif type(index) is np.ndarray and index.dtype == np.int64 and index.flags.c_contiguous:
        given = index
    else:
        return None
    if given.shape[: array.ndim - 1] != array.shape[:-1] or given.ndim > array.ndim or not 0 < given.size < _MOST:
        return None
    samples = given.size // rows
    sums, look_up = (
        _plan_samples(rows, columns, array.dtype, "grouped"),
        _plan_given(rows, columns, array.dtype, samples),
    )
    if sums is None or look_up is None:
        return None
    roots, made, at = np.empty((rows, 2)), np.empty(given.shape, look_up.sums), address_of(array)
    of_rows = 0, 0, 0, 0, address_of(roots), 0, 0, 0
    if _run(sums, (0, 0, 0, 0, temperature, 0, *of_rows, at)) is not None:
        return None
    _run(look_up, (0, temperature, address_of(given), 0, address_of(roots), address_of(made), samples, at))
    if not (made <= 0).all():  # NaN: an index is out of range
        return None
    return _or_scalar(made)


@functools.lru_cache(1024)
def _plan_top_k(rows: int, columns: int, dtype: np.dtype[Any], k: int) -> _Plan | None:
    """That of rows which are sampled without replacement, each of them one item or less."""
    if not _is_common(rows, columns, dtype) or not 1 <= k <= columns:
        return None
    sums, chosen = dispatch.result_dtype(dtype), np.empty((rows, k))
    results = TopKResults(np.empty((rows, k), np.int64), chosen, np.empty(rows, sums), np.empty(rows))
    plan = choices.plan_choosing(_placeholder(rows, columns, dtype), k, (0, 0), results)
    if isinstance(plan.parameters, Choosing) and plan.parameters.split.segments > 1:
        return None
    return _planned(plan, "stream temperatures row_mask k results logits.data", "QQqqdqqqqqqq", sums)


def top_k(generator: Any, array: Any, k: Any, axis: Any, temperature: Any, others: tuple[Any, ...]) -> TopK | None:
    """A TopK; `others` are the options that are None in a common call."""
    row_ids, row_mask, on_invalid, out, stream = others
    if type(k) is not int or not (row_ids is row_mask is on_invalid is out is stream is None):
        return None
    rows, columns = _rows(array, axis, temperature)
    plan = _plan_top_k(rows, columns, array.dtype, k) if rows else None
    if plan is None or generator._counter is not None:
        return None
    form = array.shape[:-1]
    made = np.empty((*form, k), np.int64), np.empty((*form, k)), np.empty(form, plan.sums), np.empty(form)
    draw = generator._take()
    try:
        bad = _run(plan, (*draw, 0, 0, temperature, 0, k, *map(address_of, made), address_of(array)))
        if bad is not None:
            checks.too_few_categories(array, bad, k)
    except BaseException:
        generator._give_back(*draw)
        raise
    return TopK(*map(_or_scalar, made))


@functools.lru_cache(1024)
def _plan_counts(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan | None:
    """That of counts of rows which are one item or less."""
    if not _is_common(rows, columns, dtype) or columns > dispatch._WHOLE_OF_FEW:
        return None
    placeholder, of_rows = (
        _placeholder(rows, columns, dtype),
        Outputs(np.empty(rows, np.int64), roots=np.empty((rows, 2))),
    )
    counts = np.empty((rows, columns), np.int64)
    plan = _counts.plan_counting(placeholder, np.empty(rows, np.int64), (0, 0), of_rows, counts)
    front, sums = "stream temperatures trials argmaxes roots logits.data", dispatch.result_dtype(dtype)
    return _planned(plan, front, "QQqqdqqqq", sums, "counts.data")


def counts(
    generator: Any, n: Any, array: Any, axis: Any, temperature: Any, others: tuple[Any, ...]
) -> NDArray[np.int64] | None:
    """Counts of as many draws of each row; `others` are the options that are None in a common call."""
    row_ids, row_mask, on_invalid, out, stream = others
    if type(n) is not int or not 0 <= n <= 1 << 62 or not (row_ids is row_mask is on_invalid is out is stream is None):
        return None
    rows, columns = _rows(array, axis, temperature)
    plan = _plan_counts(rows, columns, array.dtype) if rows else None
    sums = _plan_samples(rows, columns, array.dtype, "grouped") if rows else None
    if plan is None or sums is None or generator._counter is not None:
        return None
    trials, argmaxes = np.full(rows, n), np.full(rows, -1)
    roots, made, at = np.empty((rows, 2)), np.empty(array.shape, np.int64), address_of(array)
    draw = generator._take()
    try:
        of_rows = 0, 0, 0, 0, address_of(roots), 0, 0, 0
        bad = _run(sums, (*draw, 0, 0, temperature, 0, *of_rows, at))
        if bad is not None:
            checks.invalid_row(array, bad)
        given = address_of(trials), address_of(argmaxes), address_of(roots)
        _run(plan, (*draw, 0, 0, temperature, *given, at), (address_of(made),))
    except BaseException:
        generator._give_back(*draw)
        raise
    return made


@functools.lru_cache(1024)
def _plan_entropy(rows: int, columns: int, dtype: np.dtype[Any]) -> _Plan | None:
    """That of short rows."""
    if not _is_common(rows, columns, dtype):
        return None
    placeholder, sums = _placeholder(rows, columns, dtype), dispatch.result_dtype(dtype)
    plan = dispatch.plan_entropy(placeholder, np.empty(rows, sums))
    if not isinstance(plan.parameters, ShortEntropies):
        return None
    return _planned(plan, "temperatures row_mask out logits.data", "qdqqq", sums)


def entropy(array: Any, axis: Any, temperature: Any, others: tuple[Any, ...]) -> Any:
    """Entropies of short rows that are all valid; `others` are the options that are None in a common call."""
    on_invalid, out, stream = others
    rows, columns = _rows(array, axis, temperature) if on_invalid is out is stream is None else (0, 0)
    plan = _plan_entropy(rows, columns, array.dtype) if rows else None
    if plan is None:
        return None
    made = np.empty(array.shape[:-1], plan.sums)
    bad = _run(plan, (0, temperature, 0, address_of(made), address_of(array)))
    return _or_scalar(made) if bad is None else None
