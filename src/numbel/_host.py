"""The methods of Generator for arrays of the host: checks, outputs and one dispatch each.

`reserve` is a context that lends a call's seed and draw id, and takes the id back where the call raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _checks, _counts, _dispatch, _tables
from .results import Sample

_Reserve = Callable[[], AbstractContextManager[tuple[int, int]]]


def gumbel(
    reserve: _Reserve,
    loc: ArrayLike,
    scale: ArrayLike,
    size: int | tuple[int, ...] | None,
    dtype: DTypeLike,
    out: NDArray[Any] | None,
    progress: Callable[[int], None] | None = None,
) -> Any:
    """Noise; `progress` is told of each stretch that is done."""
    kind = _checks.float_dtype(dtype)
    locs, scales = _checks.loc_and_scale(loc, scale)
    natural = np.broadcast_shapes(locs.shape, scales.shape)
    shape = _checks.gumbel_shape(size, natural, out)
    result = np.empty(shape, kind) if out is None else _checks.out(out, shape, kind)
    with reserve() as (seed, draw):
        scalars = natural == ()
        _dispatch.gumbel(
            result, seed, draw, float(locs) if scalars else 0.0, float(scales) if scalars else 1.0, progress,
            out is not None,
        )  # fmt: skip
        if not scalars:
            loop = None if kind.name == "bfloat16" else kind  # ml_dtypes casts to nothing inside a ufunc
            with np.errstate(all="ignore"):  # as where they are scalars, and the kernel does it
                np.multiply(result, scales, out=result, dtype=loop, casting="unsafe")
                np.add(result, locs, out=result, dtype=loop, casting="unsafe")
    return result[()] if out is None and shape == () else result


def sample(
    reserve: _Reserve,
    logits: Any,
    num_samples: int | None,
    axis: int,
    temperature: ArrayLike,
    method: str,
    row_ids: ArrayLike | None,
    row_mask: ArrayLike | None,
    on_invalid: str | None,
    out: tuple[Any, ...],
    full: bool,
    progress: Callable[[int], None] | None = None,
    truncation: tuple[Any, Any, Any] = (None, None, None),
) -> Sample:
    """Categories, and log_prob and logsumexp if `full`; `progress` is told of each stretch that is done."""
    array = _checks.logits(logits, axis)
    shape = array.shape[:-1]
    samples = 1 if num_samples is None else _checks.num_samples(num_samples)
    temperatures, per_row = _checks.temperature(temperature, shape)
    ids = None if row_ids is None else _checks.row_ids(row_ids, shape)
    mask = None if row_mask is None else _checks.row_mask(row_mask, shape)
    cuts = _checks.truncation(*truncation, shape, array.shape[-1])
    _checks.method(method)
    raises = _checks.on_invalid(on_invalid)
    results = _outputs(out, shape, num_samples, _dispatch.result_dtype(array.dtype), full)
    # strided outputs are written through a copy: they have one entry a row, not one a category; so are those that
    # lie where something is still read
    read = array, temperatures, ids, mask
    written = [
        r if r is None or _free(r, given, read) else np.empty(r.shape, r.dtype)
        for r, given in zip(results, out, strict=True)
    ]
    with reserve() as (seed, draw):
        bad = draw_rows(array, samples, temperatures, per_row, ids, mask, cuts, method, seed, draw, written, progress)
        for given, made in zip(results, written, strict=True):
            if given is not made:
                given[...] = made  # type: ignore[index]
        if bad is not None and raises:
            _checks.invalid_row(array, bad)
    return Sample(
        *(r if r is None or given is not None or r.shape else r[()] for r, given in zip(results, out, strict=True))
    )


def _free(result: NDArray[Any], given: NDArray[Any] | None, read: Sequence[NDArray[Any] | None]) -> bool:
    """Whether kernels can write a result where it is."""
    if given is None:
        return True
    return result.flags.c_contiguous and not any(r is not None and np.may_share_memory(result, r) for r in read)


def draw_rows(
    array: NDArray[Any],
    samples: int,
    temperatures: NDArray[Any],
    per_row: bool,
    ids: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    cuts: list[tuple[NDArray[Any], bool]] | None,
    method: str,
    seed: int,
    draw: int,
    results: Sequence[NDArray[Any] | None],
    progress: Callable[[int], None] | None = None,
) -> int | None:
    """Write samples of rows, truncated if there are `cuts`, into contiguous results; the first bad row, if any."""
    given = array, samples, temperatures, per_row, ids
    if cuts is None:
        return _tables.categorical(*given, mask, method, seed, draw, results, progress)
    rows, columns = math.prod(array.shape[:-1]), array.shape[-1]
    if method != "grouped" or not _tables.tabled(columns, samples, array.dtype):
        return _dispatch.truncated(*given, mask, cuts, method, seed, draw, results, progress)
    (k, _), (p, _), (least, _) = cuts
    whole = (k >= columns) & (p >= 1) & (least <= 0)
    if not whole.any():
        return _dispatch.truncated(*given, mask, cuts, method, seed, draw, results, progress)
    whole = np.broadcast_to(whole, rows)
    # rows that keep everything are drawn as without truncation: from their tables
    wanted = np.ones(rows, np.bool_) if mask is None else mask
    bad = [_dispatch.truncated(*given, wanted & ~whole, cuts, method, seed, draw, results, progress)]
    others = [None if r is None else np.empty_like(r) for r in results]
    bad.append(_tables.categorical(*given, wanted & whole, method, seed, draw, others, progress))
    for result, made in zip(results, others, strict=True):
        if result is not None and made is not None:
            result.reshape(rows, -1)[wanted & whole] = made.reshape(rows, -1)[wanted & whole]
    return min((row for row in bad if row is not None), default=None)


def gumbel_softmax(
    reserve: _Reserve,
    logits: Any,
    temperature: ArrayLike,
    axis: int,
    hard: bool,
    row_ids: ArrayLike | None,
    row_mask: ArrayLike | None,
    on_invalid: str | None,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """Relaxed samples, or their one-hots."""
    rows = rows_of(logits, axis, temperature, row_ids, row_mask, _checks.temperature)
    raises = _checks.on_invalid(on_invalid)
    result, target = _like(rows.array, axis, out, hard)
    source = rows.array if hard else _checks.apart(rows.array, target)
    with reserve() as draw:
        rows = rows._replace(array=source)
        bad = _one_hot(rows, draw, target, out is not None) if hard else _relax(rows, draw, target, out is not None)
        if bad is not None and raises:
            if np.may_share_memory(source, target):
                _checks.overwritten_row(bad)
            _checks.invalid_row(source, bad)
    return result


def conditional_gumbel(
    reserve: _Reserve,
    logits: Any,
    index: ArrayLike,
    axis: int,
    temperature: ArrayLike,
    row_ids: ArrayLike | None,
    row_mask: ArrayLike | None,
    on_invalid: str | None,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """Perturbed logits given the largest's index."""
    rows = rows_of(logits, axis, temperature, row_ids, row_mask, _checks.positive_temperature)
    raises = _checks.on_invalid(on_invalid)
    given = _checks.index(index, rows.array, rows.mask, raises)
    result, target = _like(rows.array, axis, out)
    source = _checks.apart(rows.array, target)
    with reserve() as draw:
        bad = _conditional(rows._replace(array=source), given, draw, target, out is not None)
        if bad is not None and raises:
            if np.may_share_memory(source, target):
                _checks.overwritten_row(bad)
            _checks.invalid_condition(source, given, bad)
    return result


def multinomial(
    reserve: _Reserve,
    n: ArrayLike,
    logits: Any,
    axis: int,
    temperature: ArrayLike,
    row_ids: ArrayLike | None,
    row_mask: ArrayLike | None,
    on_invalid: str | None,
    out: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Counts of n draws."""
    rows = rows_of(logits, axis, temperature, row_ids, row_mask, _checks.temperature)
    raises = _checks.on_invalid(on_invalid)
    trials = _checks.trials(n, rows.array.shape[:-1])
    shape = np.moveaxis(rows.array, -1, axis).shape
    result = np.empty(shape, np.int64) if out is None else _checks.out(out, shape, np.dtype(np.int64))
    target = np.moveaxis(result, axis, -1)
    bad: list[int] = []
    with reserve() as draw:
        for index, run, part in rows.parts():
            found = _counts.multinomial(
                part.array, trials[run], part.temperatures, part.per_row, part.ids, part.mask, draw, target[index]
            )
            if found is not None:
                bad.append(run.start + found)
        if bad and raises:
            _checks.invalid_row(rows.array, min(bad))
    return result


def _like(
    array: NDArray[Any], axis: int, out: NDArray[Any] | None, zero: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """An output of the shape and dtype of the logits, and its view with the categories last, as `array` has them."""
    shape = array.shape if axis == -1 else np.moveaxis(array, -1, axis).shape
    # zeros come from the system for nothing; to write them would take longer than the draw
    make = np.zeros if zero else np.empty
    result = make(shape, array.dtype) if out is None else _checks.out(out, shape, array.dtype)
    return result, result if axis == -1 else np.moveaxis(result, axis, -1)


class Rows(NamedTuple):
    """What a method knows of each row, the categories last."""

    array: NDArray[Any]
    temperatures: NDArray[Any]
    per_row: bool
    ids: NDArray[Any] | None
    mask: NDArray[Any] | None

    def parts(self) -> Iterator[tuple[tuple[Any, ...], slice, Rows]]:
        """The same of some 2^18 rows at a time, for work that keeps something for each row, and where they lie."""
        shape = self.array.shape[:-1]
        for index, run in _dispatch.parts(shape):
            if index == ():
                yield index, run, self
                continue
            ids = np.arange(run.start, run.stop, dtype=np.int64) if self.ids is None else self.ids[run]
            mask = None if self.mask is None else self.mask[run]
            temperatures = self.temperatures[run] if self.per_row else self.temperatures
            yield index, run, Rows(self.array[index], temperatures, self.per_row, ids, mask)


def rows_of(
    logits: Any,
    axis: int,
    temperature: ArrayLike,
    row_ids: ArrayLike | None,
    row_mask: ArrayLike | None,
    check: Callable[[Any, tuple[int, ...]], tuple[NDArray[Any], bool]],
) -> Rows:
    """The arguments that describe rows, checked; `check` is that of the temperatures."""
    array = _checks.logits(logits, axis)
    shape = array.shape[:-1]
    temperatures, per_row = check(temperature, shape)
    ids = None if row_ids is None else _checks.row_ids(row_ids, shape)
    mask = None if row_mask is None else _checks.row_mask(row_mask, shape)
    return Rows(array, temperatures, per_row, ids, mask)


def _relax(rows: Rows, draw: tuple[int, int], target: NDArray[Any], streams: bool) -> int | None:
    """Relaxed samples, and one-hots of the rows of temperature 0; the first bad row, if any."""
    if not rows.per_row or rows.temperatures.all():
        return _dispatch.relaxed(*rows, draw, target, streams)
    bad: list[int] = []
    for index, run, part in rows.parts():
        into = target[index]
        greedy = (part.temperatures == 0) if part.mask is None else (part.temperatures == 0) & part.mask
        indices, found = _winners(part._replace(mask=greedy), draw)  # before `into` is written, which may be its logits
        bad += [run.start + row for row in (found, _dispatch.relaxed(*part, draw, into, streams)) if row is not None]
        if indices.ndim == 0:
            into, indices = into[None], indices[None]
        where = np.nonzero(greedy.reshape(indices.shape))
        into[where] = np.where(indices[where] < 0, np.nan, 0)[:, None]
        into[(*where, indices[where])] += 1
    return min(bad, default=None)


def _one_hot(rows: Rows, draw: tuple[int, int], target: NDArray[Any], clear: bool) -> int | None:
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


def _winners(rows: Rows, draw: tuple[int, int]) -> tuple[NDArray[np.int64], int | None]:
    """Where each row's logits + G are largest, and the first bad row, if any."""
    indices = np.empty(rows.array.shape[:-1], np.int64)
    results = (indices, None, None)
    return indices, _dispatch.categorical(
        rows.array, 1, np.ones(1), False, rows.ids, rows.mask, "gumbel_max", *draw, results
    )


def _conditional(
    rows: Rows, given: NDArray[np.int64], draw: tuple[int, int], target: NDArray[Any], streams: bool
) -> int | None:
    """Perturbed logits given the largest's index; the first bad row, if any."""
    bad: list[int] = []
    for index, run, part in rows.parts():
        found = _dispatch.conditional(*part, given[run], draw, target[index], streams)
        if found is not None:
            bad.append(run.start + found)
    return min(bad, default=None)


def _outputs(
    out: tuple[Any, ...], shape: tuple[int, ...], num_samples: int | None, dtype: np.dtype[Any], full: bool
) -> list[NDArray[Any] | None]:
    """The arrays to fill: indices, and log_prob and logsumexp if `full`."""
    many = shape if num_samples is None else (*shape, num_samples)
    if sum(given is not None for given in out) > 1:
        _checks.outs_apart(given for given in out if isinstance(given, np.ndarray))
    wanted = (("indices", many, np.dtype(np.int64)), ("log_prob", many, dtype), ("logsumexp", shape, dtype))
    results: list[NDArray[Any] | None] = []
    for (name, form, kind), given in zip(wanted, out, strict=True):
        if not full and name != "indices":
            results.append(None)
        elif given is None:
            results.append(np.empty(form, kind))
        else:
            results.append(_checks.out(given, form, kind, f"out.{name}" if full else "out"))
    return results
