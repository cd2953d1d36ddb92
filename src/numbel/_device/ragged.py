"""Ragged rows on a CUDA device: neighbouring stretches of one line of logits, cut at offsets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from .._arguments import checks
from .._arguments.requests import RowOptions
from .._cuda.rows import Call
from .libraries import library
from .task import Task, check_device


class Ragged(Task):
    """`Task` of ragged rows.

    Offsets on the device are copied to the host where `on_invalid="raise"` asks for errors, or `lengths` is called.
    Else the kernels check them, and `starts` is None.
    """

    def __init__(self, logits: Any, offsets: Any, options: RowOptions) -> None:
        self.library = library(logits, options.stream)
        self.span = self.library.span(logits, "logits")
        checks.device_dtype(self.span.name)
        checks.ragged_axis(len(self.span.shape), options.axis)
        self.axis, self.offsets = -1, offsets
        self.starts: Any = None
        there = checks.on_device(offsets)
        if there:
            span = library(offsets, None).span(offsets, "offsets")
            checks.offsets_form(span.shape, span.name)
            check_device(self.library, offsets, "offsets")
            self.shape = (span.shape[0] - 1,)
        else:
            self.starts = checks.offsets(offsets, self.span.shape[0])
            self.shape = (len(self.starts) - 1,)
        self._describe(options, checks.temperature)
        if there and self.raises:
            self._copy_offsets()
        if self.starts is not None:
            self._check_lengths()

    def _copy_offsets(self) -> None:
        with self.library.active():
            self.starts = checks.offsets(self.fetch(self._offsets()), self.span.shape[0])

    def _check_lengths(self) -> None:
        if not checks.on_device(self.options.row_mask):  # or else the kernels see which empty rows are masked out
            checks.ragged_lengths(self.starts, self._host.row_mask)

    def _offsets(self) -> Any:
        """Offsets as a Numba vector."""
        if not checks.on_device(self.offsets):
            return self.uploaded(self.starts)
        return self.flat(self.library.spread(self.offsets, (self.rows + 1,), "int64", "offsets"), "offsets")

    @property
    def longest(self) -> int | None:
        """Columns of the longest row, where the offsets are known on the host."""
        return None if self.starts is None else int(np.diff(self.starts).max(initial=0))

    def lengths(self) -> list[int]:
        """The lengths that rows have."""
        if self.starts is None:
            self._copy_offsets()
            self._check_lengths()
        return [int(length) for length in np.unique(np.diff(self.starts))]

    def parts(self, call: Call) -> Iterator[tuple[Any, Call]]:
        """The line with its offsets, or, where all rows are of one length, rows and columns."""
        if self.starts is not None and np.ptp(np.diff(self.starts)) == 0:
            yield from self.alike(call)
        else:
            yield self._view(0, 1, self.span.shape[0]), call._replace(offsets=self._offsets())

    def alike(self, call: Call) -> Iterator[tuple[Any, Call]]:
        """Every run of neighbours of one length as rows and columns; offsets on the device are copied."""
        self.lengths()
        for first, last, columns in self._runs():
            if columns:
                yield self._view(int(self.starts[first]), last - first, columns), call._replace(first_row=first)
            else:  # such rows are masked out, or their temperature flags them: nothing of them is read
                left_out = call._replace(first_row=first, temperature=math.nan, temperatures=self.none("float64"))
                yield self._view(0, last - first, 1), left_out

    def _runs(self) -> list[tuple[int, int, int]]:
        """Runs of neighbours of one length: the first row, that after the last, and the length."""
        lengths = np.diff(self.starts)
        ends = [*(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
        return [(first, last, int(lengths[first])) for first, last in zip([0, *ends], ends, strict=False)]

    def _view(self, start: int, rows: int, columns: int) -> Any:
        item = self.span.item_size
        step = self.span.strides[0] if self.span.size > 1 else item
        return self.span.view(start * step, (rows, columns), (columns * step, step))

    def _where(self, at: int) -> tuple[int, int]:
        start, end = self.starts[at : at + 2].tolist()
        return start * self.span.strides[0], end - start

    def refuse(self, row: int, overwritten: bool = False) -> NoReturn:
        checks.ragged_lengths(self.starts, np.arange(self.rows) == row)
        super().refuse(row, overwritten)
