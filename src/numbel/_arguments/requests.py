"""What a caller asked for, checked once: what travels from a method to a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Progress = Callable[[int], None]
#: Seed and draw id of a call.
Draw = tuple[int, int]

#: Rows for which something is kept besides the results: 2 MB for 8 bytes each.
_PART = 1 << 18


class Temperature(NamedTuple):
    """Temperatures of rows: contiguous float64. 0 asks for the argmax, and is told to each row."""

    values: Array
    per_row: bool

    def of(self, rows: Any) -> Temperature:
        """That of some of the rows."""
        return Temperature(self.values[rows], True) if self.per_row else self


class Limit(NamedTuple):
    """top_k (int64), top_p or min_p (float64): contiguous, one a row or one for all."""

    values: Array
    per_row: bool

    def of(self, rows: Any) -> Limit:
        """That of some of the rows."""
        return Limit(self.values[rows], True) if self.per_row else self


class Limits(NamedTuple):
    """What rows are truncated by."""

    top_k: Limit
    top_p: Limit
    min_p: Limit

    def of(self, rows: Any) -> Limits:
        """Those of some of the rows."""
        return Limits(self.top_k.of(rows), self.top_p.of(rows), self.min_p.of(rows))

    def keep_all(self, columns: int) -> Array:
        """Which rows of so many columns keep all of them: one entry, or one for each."""
        (k, _), (p, _), (least, _) = self
        whole: Array = (k >= columns) & (p >= 1) & (least <= 0)
        return whole


class LogitRows(NamedTuple):
    """Logits, the categories last, and what each row has: entries in C order of the rows."""

    array: Array
    temperature: Temperature
    ids: Array | None = None  # int64; None: a row's own position
    mask: Array | None = None  # bool; None: all are wanted

    @property
    def number(self) -> int:
        """How many rows there are."""
        return math.prod(self.array.shape[:-1])

    @property
    def columns(self) -> int:
        """How many categories each has."""
        return int(self.array.shape[-1])

    def only(self, wanted: Array) -> LogitRows:
        """The same, where rows are masked out that are not wanted."""
        return self._replace(mask=wanted if self.mask is None else wanted & self.mask)

    def parts(self) -> Iterator[tuple[tuple[Any, ...], slice, LogitRows]]:
        """Some 2^18 rows at a time, for work that keeps something for each row, and where they lie.

        That is an index into the batch axes, and the positions that it holds.
        """
        for index, run in parts(self.array.shape[:-1]):
            if index == ():
                yield index, run, self
                continue
            ids = np.arange(run.start, run.stop, dtype=np.int64) if self.ids is None else self.ids[run]
            mask = None if self.mask is None else self.mask[run]
            yield index, run, LogitRows(self.array[index], self.temperature.of(run), ids, mask)


class Outputs(NamedTuple):
    """Contiguous arrays for the results of a draw. What is None is not wanted."""

    indices: Array | None = None  # int64
    log_prob: Array | None = None
    logsumexp: Array | None = None
    logsumexp64: Array | None = None  # float64, for the next step of a draw
    roots: Array | None = None  # float64, the (r, S) that stands for each row

    def of(self, rows: Any) -> Outputs:
        """Those of some of the rows of one batch axis."""
        return Outputs(*(each if each is None else each[rows] for each in self))


class RowOptions(NamedTuple):
    """What most methods are passed beside logits, not checked yet."""

    axis: Any = -1
    temperature: Any = 1.0
    row_ids: Any = None
    row_mask: Any = None
    on_invalid: Any = None
    stream: Any = None


class SampleOptions(NamedTuple):
    """The other arguments of `categorical`, and of `sample` if `full`, not checked yet."""

    num_samples: Any
    method: Any
    offsets: Any
    truncation: tuple[Any, Any, Any]  # top_k, top_p, min_p
    out: tuple[Any, Any, Any]  # indices, log_prob, logsumexp
    full: bool


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
