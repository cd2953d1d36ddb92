"""numbel for Dask arrays: chunks are drawn from where they are, and only their accumulators travel."""

from __future__ import annotations

import copy
import itertools
import math
import operator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import dask.array
    from dask.delayed import delayed
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('numbel.dask needs Dask: pip install "numbel[dask]"', name=error.name) from None

from ._arguments import checks
from ._host import dispatch, tables
from .accumulate import CategoricalAccumulator
from .generator import Generator
from .results import Sample

__all__ = ["sample"]

#: Accumulators that one task merges.
_MERGED = 8


def sample(
    logits: Any,
    rng: Generator,
    num_samples: int | None = None,
    *,
    axis: int = -1,
    temperature: ArrayLike = 1.0,
    method: Literal["grouped", "gumbel_max"] = "grouped",
    row_ids: ArrayLike | None = None,
    row_mask: ArrayLike | None = None,
    on_invalid: Literal["raise", "flag"] | None = None,
) -> Sample:
    """Draw categories with probabilities softmax(logits / temperature), lazily, on any Dask scheduler.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., n) with the categories along `axis`
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; rows and columns may be chunked.
    rng : Generator
        It gives one draw id, at this call; computing the result twice gives the same.
    num_samples : int, optional
        Independent samples of each row; None is one without an axis of its own.
    axis, temperature, method, row_ids, row_mask, on_invalid
        As in `Generator.sample`. What there is for each row is a NumPy array.

    Returns
    -------
    Sample
        Of Dask arrays in the chunks of the rows, bit for bit `rng.sample` of the whole array.

    Raises
    ------
    TypeError
        If logits is not a Dask array of one of the four dtypes.
    ValueError
        If another argument is out of range, if the sizes of chunks are unknown, or if so many samples of so many
        columns are drawn from a table. Bad values are met when the result is computed.

    Notes
    -----
    Every chunk becomes a `CategoricalAccumulator`, some of which a task merges; chunks of columns that are multiples of
    4096 from the first column on leave no logits in it.

    Examples
    --------
    >>> import dask.array, numbel, numbel.dask, numpy as np
    >>> logits = np.random.default_rng(0).standard_normal((4, 100_000), dtype=np.float32)
    >>> drawn = numbel.dask.sample(dask.array.from_array(logits, chunks=(2, 30_000)), numbel.Generator(5))
    >>> bool(np.all(drawn.indices.compute() == numbel.Generator(5).categorical(logits)))
    True
    """
    if not isinstance(logits, dask.array.Array):
        raise TypeError(f"logits must be a dask.array.Array, got {type(logits).__name__}")
    if not isinstance(rng, Generator):
        raise TypeError(f"rng must be a numbel.Generator, got {type(rng).__name__}")
    rng._on_device(None, None)
    if any(math.isnan(length) for length in logits.shape):
        raise ValueError("logits has chunks of unknown size: call its compute_chunk_sizes() first")
    kind = checks.float_dtype(logits.dtype, "logits")
    array = dask.array.moveaxis(logits, checks.category_axis(logits.shape, axis, "logits"), -1)
    shape, columns = array.shape[:-1], array.shape[-1]
    samples = 1 if num_samples is None else checks.num_samples(num_samples)
    checks.method(method)
    if math.prod(shape) and method == "grouped" and tables.tabled(columns, samples, kind):
        raise ValueError(
            f"{samples} samples of {columns} columns are drawn from a table, which chunks cannot give: "
            'use CategoricalTable, method="gumbel_max", or fewer samples'
        )
    temperatures, per_row = checks.temperature(
        np.array(checks.plain(temperature, "temperature")), shape
    )  # copies, as they may be changed
    numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    rows: dict[str, NDArray[Any]] = {
        "row_ids": numbers
        if row_ids is None
        else checks.row_ids(np.array(checks.plain(row_ids, "row_ids")), shape).reshape(shape)
    }
    if per_row:
        rows["temperature"] = temperatures.reshape(shape)
    if row_mask is not None:
        rows["row_mask"] = checks.row_mask(np.array(checks.plain(row_mask, "row_mask")), shape).reshape(shape)
    options = {"method": method, "on_invalid": on_invalid} | ({} if per_row else {"temperature": temperature})
    checks.on_invalid(on_invalid)
    with rng._reserve() as (seed, draw):
        made = Generator(seed, draw)
    starts = [0, *itertools.accumulate(array.chunks[-1])][:-1]
    blocks = np.empty(array.numblocks[:-1], object)
    chunks = array.to_delayed()
    for place in np.ndindex(blocks.shape):
        run = tuple(
            slice(sum(lengths[:at]), sum(lengths[: at + 1]))
            for lengths, at in zip(array.chunks[:-1], place, strict=True)
        )
        own = delayed({name: values[run] for name, values in rows.items()} | options, pure=True, traverse=False)
        these = delayed(numbers[run].ravel(), pure=True)
        parts = [
            delayed(_part, pure=True)(chunk, start, made, num_samples, these, own)
            for chunk, start, length in zip(chunks[place].ravel(), starts, array.chunks[-1], strict=True)
            if length
        ]
        while len(parts) > 1:
            parts = [delayed(_merged, pure=True)(parts[at : at + _MERGED]) for at in range(0, len(parts), _MERGED)]
        blocks[place] = delayed(CategoricalAccumulator.result, pure=True)(parts[0]), numbers[run].shape
    many = () if num_samples is None else (samples,)
    result = dispatch.result_dtype(kind)
    return Sample(
        _joined(blocks, 0, np.dtype(np.int64), many), _joined(blocks, 1, result, many), _joined(blocks, 2, result, ())
    )


def _part(
    chunk: Any,
    start: int,
    rng: Generator,
    num_samples: int | None,
    numbers: NDArray[np.int64],
    options: dict[str, Any],
) -> CategoricalAccumulator:
    made = CategoricalAccumulator(Generator(rng.seed, rng.draw), num_samples, **options)
    made._numbers = numbers
    return made.update(chunk if isinstance(chunk, np.ma.MaskedArray) else np.asarray(chunk), start)


def _merged(parts: list[CategoricalAccumulator]) -> CategoricalAccumulator:
    made = copy.copy(parts[0])  # what a task was given stays as it is
    for part in parts[1:]:
        made.merge(part)
    return made


def _joined(blocks: NDArray[Any], field: int, dtype: np.dtype[Any], more: tuple[int, ...]) -> Any:
    """One field of the results of all blocks of rows, as a Dask array."""
    arrays = np.empty(blocks.shape, object)
    for place in np.ndindex(blocks.shape):
        drawn, shape = blocks[place]
        picked = delayed(operator.itemgetter(field), pure=True)(drawn)
        arrays[place] = dask.array.from_delayed(picked, (*shape, *more), dtype)
    if not blocks.shape:
        return arrays[()]
    # `block` joins the innermost lists along the last axis: the axis of samples has one block
    nested = arrays.tolist() if not more else np.expand_dims(arrays, -1).tolist()
    return dask.array.block(nested)
