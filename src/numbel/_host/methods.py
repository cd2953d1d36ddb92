"""The methods of Generator for arrays of the host: checks, outputs and one dispatch each.

`reserve` is a context that lends a call's seed and draw id, and takes the id back where the call raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._arguments import checks
from .._arguments.requests import Draw, Limits, LogitRows, Outputs, Progress, RowOptions, SampleOptions, Temperature
from ..results import Sample
from . import counts, dispatch, tables

Reserve = Callable[[], AbstractContextManager[Draw]]


def gumbel(
    reserve: Reserve,
    loc: ArrayLike,
    scale: ArrayLike,
    size: int | tuple[int, ...] | None,
    dtype: DTypeLike,
    out: NDArray[Any] | None,
    progress: Progress | None = None,
) -> Any:
    """Noise; `progress` is told of each stretch that is done."""
    kind = checks.float_dtype(dtype)
    locs, scales = checks.loc_and_scale(loc, scale)
    natural = np.broadcast_shapes(locs.shape, scales.shape)
    shape = checks.gumbel_shape(size, natural, out)
    result = np.empty(shape, kind) if out is None else checks.out(out, shape, kind)
    with reserve() as draw:
        scalars = natural == ()
        law = (float(locs), float(scales)) if scalars else (0.0, 1.0)
        dispatch.gumbel(result, draw, *law, progress, out is not None)
        if not scalars:
            loop = None if kind.name == "bfloat16" else kind  # ml_dtypes casts to nothing inside a ufunc
            with np.errstate(all="ignore"):  # as where they are scalars, and the kernel does it
                np.multiply(result, scales, out=result, dtype=loop, casting="unsafe")
                np.add(result, locs, out=result, dtype=loop, casting="unsafe")
    return result[()] if out is None and shape == () else result


def sample(
    reserve: Reserve, logits: Any, given: RowOptions, options: SampleOptions, progress: Progress | None = None
) -> Sample:
    """Categories, and log_prob and logsumexp if they are asked for; `progress` is told of each stretch that is done."""
    rows = rows_of(logits, given, checks.temperature)
    array = rows.array
    shape = array.shape[:-1]
    samples = 1 if options.num_samples is None else checks.num_samples(options.num_samples)
    limits = checks.truncation(*options.truncation, shape, array.shape[-1])
    checks.method(options.method)
    raises = checks.on_invalid(given.on_invalid)
    results = outputs(options, shape, dispatch.result_dtype(array.dtype))
    # strided outputs are written through a copy: they have one entry a row, not one a category; so are those that
    # lie where something is still read
    read = array, rows.temperature.values, rows.ids, rows.mask
    written = [
        r if r is None or is_free(r, each, read) else np.empty(r.shape, r.dtype)
        for r, each in zip(results, options.out, strict=True)
    ]
    with reserve() as draw:
        bad = draw_rows(rows, samples, options.method, draw, Outputs(*written), progress, limits=limits)
        for result, made in zip(results, written, strict=True):
            if result is not made:
                result[...] = made  # type: ignore[index]
        if bad is not None and raises:
            checks.invalid_row(array, bad)
    return Sample(
        *(
            r if r is None or each is not None or r.shape else r[()]
            for r, each in zip(results, options.out, strict=True)
        )
    )


def is_free(result: NDArray[Any], given: NDArray[Any] | None, read: Sequence[NDArray[Any] | None]) -> bool:
    """Whether kernels can write a result where it is."""
    if given is None:
        return True
    return result.flags.c_contiguous and not any(r is not None and np.may_share_memory(result, r) for r in read)


def draw_rows(
    rows: LogitRows,
    samples: int,
    method: str,
    draw: Draw,
    out: Outputs,
    progress: Progress | None = None,
    *,
    limits: Limits | None,
) -> int | None:
    """Write samples of rows, truncated if there are `limits`, into contiguous results; the first bad row, if any."""
    if limits is None:
        return tables.categorical(rows, samples, method, draw, out, progress)
    if method != "grouped" or not tables.tabled(rows.columns, samples, rows.array.dtype):
        return dispatch.truncated(rows, limits, samples, method, draw, out, progress)
    whole = limits.keep_all(rows.columns)
    if not whole.any():
        return dispatch.truncated(rows, limits, samples, method, draw, out, progress)
    count = rows.number
    whole = np.broadcast_to(whole, count)
    # rows that keep everything are drawn as without truncation: from their tables
    bad = [dispatch.truncated(rows.only(~whole), limits, samples, method, draw, out, progress)]
    others = Outputs(*(None if r is None else np.empty_like(r) for r in out))
    bad.append(tables.categorical(rows.only(whole), samples, method, draw, others, progress))
    wanted = whole if rows.mask is None else whole & rows.mask
    for result, made in zip(out, others, strict=True):
        if result is not None and made is not None:
            result.reshape(count, -1)[wanted] = made.reshape(count, -1)[wanted]
    return min((row for row in bad if row is not None), default=None)


def gumbel_softmax(
    reserve: Reserve, logits: Any, options: RowOptions, hard: bool, out: NDArray[Any] | None
) -> NDArray[Any]:
    """Relaxed samples, or their one-hots."""
    rows = rows_of(logits, options, checks.temperature)
    raises = checks.on_invalid(options.on_invalid)
    result, target = _like(rows.array, options.axis, out, hard)
    source = rows.array if hard else checks.apart(rows.array, target)
    with reserve() as draw:
        rows = rows._replace(array=source)
        bad = _one_hot(rows, draw, target, out is not None) if hard else _relax(rows, draw, target, out is not None)
        if bad is not None and raises:
            if np.may_share_memory(source, target):
                checks.overwritten_row(bad)
            checks.invalid_row(source, bad)
    return result


def conditional_gumbel(
    reserve: Reserve, logits: Any, index: ArrayLike, options: RowOptions, out: NDArray[Any] | None
) -> NDArray[Any]:
    """Perturbed logits given the largest's index."""
    rows = rows_of(logits, options, checks.positive_temperature)
    raises = checks.on_invalid(options.on_invalid)
    given = checks.index(index, rows.array, rows.mask, raises)
    result, target = _like(rows.array, options.axis, out)
    source = checks.apart(rows.array, target)
    with reserve() as draw:
        bad = _conditional(rows._replace(array=source), given, draw, target, out is not None)
        if bad is not None and raises:
            if np.may_share_memory(source, target):
                checks.overwritten_row(bad)
            checks.invalid_condition(source, given, bad)
    return result


def multinomial(
    reserve: Reserve, n: ArrayLike, logits: Any, options: RowOptions, out: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Counts of n draws."""
    rows = rows_of(logits, options, checks.temperature)
    raises = checks.on_invalid(options.on_invalid)
    trials = checks.trials(n, rows.array.shape[:-1])
    shape = np.moveaxis(rows.array, -1, options.axis).shape
    result = np.empty(shape, np.int64) if out is None else checks.out(out, shape, np.dtype(np.int64))
    target = np.moveaxis(result, options.axis, -1)
    bad: list[int] = []
    with reserve() as draw:
        for index, run, part in rows.parts():
            found = counts.multinomial(part, trials[run], draw, target[index])
            if found is not None:
                bad.append(run.start + found)
        if bad and raises:
            checks.invalid_row(rows.array, min(bad))
    return result


def _like(
    array: NDArray[Any], axis: int, out: NDArray[Any] | None, zero: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """An output of the shape and dtype of the logits, and its view with the categories last, as `array` has them."""
    shape = array.shape if axis == -1 else np.moveaxis(array, -1, axis).shape
    # zeros come from the system for nothing; to write them would take longer than the draw
    make = np.zeros if zero else np.empty
    result = make(shape, array.dtype) if out is None else checks.out(out, shape, array.dtype)
    return result, result if axis == -1 else np.moveaxis(result, axis, -1)


def rows_of(logits: Any, options: RowOptions, check: Callable[..., Temperature]) -> LogitRows:
    """The arguments that describe rows, checked; `check` is that of the temperatures."""
    array = checks.logits(logits, options.axis)
    return row_arguments(array, array.shape[:-1], options, check)


def row_arguments(
    array: NDArray[Any], shape: tuple[int, ...], options: RowOptions, check: Callable[..., Temperature]
) -> LogitRows:
    """The same of an array that is checked, whose rows have that shape."""
    ids, mask = options.row_ids, options.row_mask
    return LogitRows(
        array,
        check(options.temperature, shape),
        None if ids is None else checks.row_ids(ids, shape),
        None if mask is None else checks.row_mask(mask, shape),
    )


def _relax(rows: LogitRows, draw: Draw, target: NDArray[Any], nontemporal: bool) -> int | None:
    """Relaxed samples, and one-hots of the rows of temperature 0; the first bad row, if any."""
    if rows.temperature.values.all():
        return dispatch.relaxed(rows, draw, target, nontemporal)
    bad: list[int] = []
    for index, run, part in rows.parts():
        into = target[index]
        greedy = part.only(part.temperature.values == 0)
        assert greedy.mask is not None
        indices, found = _winners(greedy, draw)  # before `into` is written, which may be its logits
        bad += [run.start + row for row in (found, dispatch.relaxed(part, draw, into, nontemporal)) if row is not None]
        if indices.ndim == 0:
            into, indices = into[None], indices[None]
        where = np.nonzero(greedy.mask.reshape(indices.shape))
        into[where] = np.where(indices[where] < 0, np.nan, 0)[:, None]
        into[(*where, indices[where])] += 1
    return min(bad, default=None)


def _one_hot(rows: LogitRows, draw: Draw, target: NDArray[Any], clear: bool) -> int | None:
    """The one-hot of the largest perturbed logit of each row, NaN where there is none; the first bad row, if any."""
    bad: list[int] = []
    for index, run, part in rows.parts():
        into = target[index]
        indices, found = _winners(part, draw)
        if found is not None:
            bad.append(run.start + found)
        if clear:
            into[...] = 0
        if indices.size:
            np.put_along_axis(into, indices[..., None], 1, -1)
            into[indices < 0] = np.nan
    return min(bad, default=None)


def _winners(rows: LogitRows, draw: Draw) -> tuple[NDArray[np.int64], int | None]:
    """Where each row's logits + G are largest, and the first bad row, if any."""
    indices = np.empty(rows.array.shape[:-1], np.int64)
    plain = rows._replace(temperature=Temperature(np.ones(1), False))
    return indices, dispatch.categorical(plain, 1, "gumbel_max", draw, Outputs(indices=indices))


def _conditional(
    rows: LogitRows, given: NDArray[np.int64], draw: Draw, target: NDArray[Any], nontemporal: bool
) -> int | None:
    """Perturbed logits given the largest's index; the first bad row, if any."""
    bad: list[int] = []
    for index, run, part in rows.parts():
        found = dispatch.conditional(part, given[run], draw, target[index], nontemporal)
        if found is not None:
            bad.append(run.start + found)
    return min(bad, default=None)


def outputs(options: SampleOptions, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[NDArray[Any] | None]:
    """The arrays to fill: indices, and log_prob and logsumexp if they are asked for."""
    out, full = options.out, options.full
    many = shape if options.num_samples is None else (*shape, options.num_samples)
    if sum(given is not None for given in out) > 1:
        checks.outs_apart(given for given in out if isinstance(given, np.ndarray))
    wanted = (("indices", many, np.dtype(np.int64)), ("log_prob", many, dtype), ("logsumexp", shape, dtype))
    results: list[NDArray[Any] | None] = []
    for (name, form, kind), given in zip(wanted, out, strict=True):
        if not full and name != "indices":
            results.append(None)
        elif given is None:
            results.append(np.empty(form, kind))
        else:
            results.append(checks.out(given, form, kind, f"out.{name}" if full else "out"))
    return results
