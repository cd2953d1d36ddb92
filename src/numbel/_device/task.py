"""The arguments of a call on arrays of a CUDA device, checked, and what all launches of a call share.

Nothing here waits for the device or copies from it, unless `on_invalid="raise"` asks for that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .._arguments import checks
from .._arguments.requests import RowOptions, Temperature
from .._cuda import launch
from .._cuda.launch import LaunchContext
from .._cuda.rows import Call, Results
from .libraries import Library, Span, library, library_class

Reserve = Callable[[], AbstractContextManager[tuple[int, Any]]]
_NO_ROW = np.iinfo(np.int64).max


def wide_of(name: str) -> str:
    """The dtype of the arithmetic of a format."""
    return "float64" if name == "float64" else "float32"


@functools.cache
def no_elements(device: int, kind: str) -> Any:
    """An array of a device without elements; each is made once, as a call takes up to nine of them."""
    return Span(0, (0,), (), kind, device, False, None).view(0, (0,), (np.dtype(kind).itemsize,))


def launch_context(where: Library, name: str) -> LaunchContext:
    """Where kernels of a format run."""
    return LaunchContext(name, where.device, where.handle, where.scratch)


def plain_call(where: Library, draw: tuple[int, Any]) -> Call:
    """What the kernels of a call are told whose rows have no options."""
    device = where.device
    words = no_elements(device, "uint64")
    drawn, counter = np.uint64(0), words
    if isinstance(draw[1], int):
        drawn = np.uint64(draw[1])
    else:
        check_device(where, draw[1], "draw", "kernels that read it")
        counter = where.span(draw[1], "draw").flat()
    return Call(
        first_row=0,
        temperature=1.0,
        temperatures=no_elements(device, "float64"),
        ids=words,
        mask=no_elements(device, "uint8"),
        seed=np.uint64(draw[0]),
        draw=drawn,
        counter=counter,
        offsets=no_elements(device, "int64"),
    )


def advance(call: Call, context: LaunchContext) -> None:
    """Where the draw id is on the device, go on to the next."""
    if call.counter.size > 0:
        launch.advance(call.counter, context)


def check_device(where: Library, array: Any, name: str, of: str = "logits") -> None:
    """ValueError where an array lies on another device."""
    device = library_class(array).device_of(array)
    if device != where.device:
        raise ValueError(f"{name} lies on device {device} and the {of} on device {where.device}")


class HostOptions(NamedTuple):
    """Of `RowOptions` what is on the host, checked; None for what is on the device, or not given."""

    temperature: Temperature | None
    row_ids: np.ndarray[Any, Any] | None
    row_mask: np.ndarray[Any, Any] | None


class Task:
    """The checked arguments of a call on rows, the categories last, and its launches' common part."""

    def __init__(
        self,
        logits: Any,
        options: RowOptions,
        check: Callable[[Any, tuple[int, ...]], Any] = checks.temperature,
        name: str = "logits",
    ) -> None:
        self.library = library(logits, options.stream)
        span = self.library.span(logits, name)
        checks.device_dtype(span.name)
        self.axis = checks.category_axis(span.shape, options.axis, name)
        self.span = span if self.axis == -1 else span.moved(self.axis, -1)
        self.shape = self.span.shape[:-1]
        self._describe(options, check)

    def _describe(self, options: RowOptions, check: Callable[[Any, tuple[int, ...]], Any]) -> None:
        """Check what each row may have; what is on the device, only the kernels see."""
        self.options, self.raises = options, options.on_invalid == "raise"
        checks.on_invalid(options.on_invalid)
        temperature, ids, mask = options.temperature, options.row_ids, options.row_mask
        self._host = HostOptions(
            None if checks.on_device(temperature) else check(temperature, self.shape),
            None if ids is None or checks.on_device(ids) else checks.row_ids(ids, self.shape),
            None if mask is None or checks.on_device(mask) else checks.row_mask(mask, self.shape),
        )
        self._kept: list[Any] = []

    @property
    def rows(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    @property
    def context(self) -> LaunchContext:
        """Where kernels of this format run."""
        return launch_context(self.library, self.span.name)

    @property
    def wide(self) -> str:
        """The dtype of the arithmetic."""
        return wide_of(self.span.name)

    @property
    def per_row(self) -> bool:
        """Whether temperatures may differ, and may be 0."""
        return self._host.temperature is None or bool(self._host.temperature.per_row)

    def call(self, draw: tuple[int, Any] = (0, 0)) -> Call:
        """What the kernels are told; arguments of the host are copied to the device here."""
        host, options = self._host, self.options
        call = plain_call(self.library, draw)
        if host.temperature is None:
            call = call._replace(temperatures=self.spread(options.temperature, "float64", "temperature"))
        elif host.temperature.per_row:
            call = call._replace(temperatures=self.uploaded(host.temperature.values))
        else:
            value = float(host.temperature.values[0])
            call = call if value == 1.0 else call._replace(temperature=value)
        if host.row_ids is not None:
            call = call._replace(ids=self.uploaded(host.row_ids, "uint64"))
        elif options.row_ids is not None:
            call = call._replace(ids=self.spread(options.row_ids, "int64", "row_ids", "uint64"))
        if host.row_mask is not None:
            call = call._replace(mask=self.uploaded(host.row_mask))
        elif options.row_mask is not None:
            call = call._replace(mask=self.spread(options.row_mask, "bool", "row_mask"))
        return call

    def results(
        self, indices: Any = None, log_prob: Any = None, logsumexp: Any = None, logsumexp64: Any = None, bad: Any = None
    ) -> Results:
        """Outputs of a sample: arrays without elements for what is not wanted."""
        none, wide = self.none, self.none(self.wide)
        return Results(
            none("int64") if indices is None else indices,
            wide if log_prob is None else log_prob,
            wide if logsumexp is None else logsumexp,
            none("float64") if logsumexp64 is None else logsumexp64,
            none("int64") if bad is None else bad,
        )

    def none(self, kind: str) -> Any:
        """An array without elements."""
        return no_elements(self.library.device, kind)

    def flat(self, array: Any, name: str, kind: str | None = None) -> Any:
        """A Numba vector over a contiguous array of the library, kept until the launches are made."""
        span = self.library.span(array, name)
        if not span.contiguous:
            raise ValueError(f"{name} is not C-contiguous, which it must be on a device")
        self._kept.append(array)
        return (span if kind is None else span._replace(name=kind)).flat()

    @property
    def longest(self) -> int | None:
        """Columns of the longest row, where that is known on the host."""
        return self.span.shape[-1]

    def lengths(self) -> list[int]:
        """The lengths that rows have."""
        return [self.span.shape[-1]]

    def parts(self, call: Call) -> Iterator[tuple[Any, Call]]:
        """Numba's views of rows and columns that are all rows together, and what kernels are told of each."""
        for part, view in self.parts_with(call):
            yield view, part

    def parts_with(self, call: Call, *others: Span) -> Iterator[tuple[Any, ...]]:
        """What kernels are told of each of `parts`, its view, and those of other arrays of the logits' shape."""
        for first, views in planes(self.span, *others):
            yield call._replace(first_row=first) if first else call, *views

    def alike(self, call: Call) -> Iterator[tuple[Any, Call]]:
        """`parts` of rows of one length each, for launches that know no offsets."""
        return self.parts(call)

    def spread(self, array: Any, kind: str, name: str, seen_as: str | None = None) -> Any:
        """A Numba vector with an entry for each row, of an array on the device."""
        check_device(self.library, array, name)
        try:
            made = self.library.spread(array, self.shape, kind, name)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{name} does not fit the rows' shape {self.shape}: {error}") from None
        return self.flat(made, name, seen_as)

    def integers(self, array: Any, shape: tuple[int, ...], name: str) -> Any:
        """A Numba vector of int64 of an array of integers on the device, of this shape."""
        check_device(self.library, array, name)
        kind = self.library.span(array, name).name
        if not kind.startswith(("int", "uint")):
            raise TypeError(f"{name} must hold integers, got {kind}")
        return self.flat(self.library.spread(array, shape, "int64", name), name)

    def uploaded(self, array: Any, seen_as: str | None = None) -> Any:
        """A Numba vector of a copy of a NumPy array on the device."""
        return self.flat(self.library.upload(array), "argument", seen_as)

    def like(self, out: Any) -> tuple[Any, Span]:
        """An output of the logits' shape and dtype, and where it lies, the categories last."""
        shape = self.span.shape if self.axis == -1 else self.span.moved(-1, self.axis).shape
        if out is None:
            result = self.library.empty(shape, self.span.name)
            span = self.library.span(result, "out")
        else:
            result, span = out, self.output(out, shape, self.span.name, "out")
        return result, span if self.axis == -1 else span.moved(self.axis, -1)

    def output(self, array: Any, shape: tuple[int, ...], kind: str, name: str, written: bool = True) -> Span:
        """Where an array lies that must be of this shape and dtype, on this device, and writable if it is written."""
        return output(self.library, array, Expected(shape, kind, name, written))

    def same(self, target: Span) -> bool:
        """Whether an output is the logits; ValueError where it only overlaps them."""
        if not _overlap(self.span, target):
            return False
        if (self.span.pointer, self.span.strides) != (target.pointer, target.strides):
            raise ValueError("out overlaps logits and is not the same array, which is not possible on a device")
        return True

    def bad(self) -> Any:
        """Where kernels leave the first bad row, if that is asked for."""
        return self.uploaded(np.array([_NO_ROW])) if self.raises else self.none("int64")

    def first_bad(self, bad: Any) -> int | None:
        """The first bad row, after waiting for the stream; None, without waiting, unless it is asked for."""
        if not self.raises:
            return None
        row = int(self.fetch(bad)[0])
        return None if row == _NO_ROW else row

    def fetch(self, vector: Any) -> Any:
        """A copy of a Numba vector on the host, after waiting for the stream."""
        self.library.wait()
        return vector.copy_to_host()

    def _where(self, at: int) -> tuple[int, int]:
        """A row's offset in bytes, and its columns."""
        place = np.unravel_index(at, self.shape) if self.shape else ()
        steps = self.span.strides[:-1]
        return sum(int(i) * step for i, step in zip(place, steps, strict=True)), self.span.shape[-1]

    def row(self, at: int) -> Any:
        """A row of the logits on the host, in float64."""
        offset, columns = self._where(at)
        wide = self.library.scratch(columns, np.float64)
        launch.widen(self.span.view(offset, (1, columns), (0, self.span.strides[-1])), wide, self.context)
        return self.fetch(wide)

    def refuse(self, row: int, overwritten: bool = False) -> NoReturn:
        """Say what is wrong with a row."""
        if overwritten:
            checks.overwritten_row(row)
        checks.invalid_device_row(self.row(row), row)

    def raise_bad(self, bad: Any, overwritten: bool = False) -> None:
        """If that is asked for, say what is wrong with the first bad row, after waiting for the stream."""
        row = self.first_bad(bad)
        if row is not None:
            self.refuse(row, overwritten)


class Expected(NamedTuple):
    """What an array must be: its shape, dtype and name, whether it is written, and whose device it must be on."""

    shape: tuple[int, ...]
    kind: str
    name: str
    written: bool = True
    of: str = "logits"


def output(mine: Library, array: Any, expected: Expected) -> Span:
    """Where an array lies that must be on this device, of the same library, and as is expected."""
    shape, kind, name, written, of = expected
    if not checks.on_device(array):
        raise TypeError(f"{name} lies on the host ({type(array).__name__}) and the {of} on a CUDA device")
    theirs = library_class(array)
    if theirs is not type(mine):
        raise TypeError(f"{name} is an array of {theirs.name}, expected one of {mine.name}, as the {of}")
    span = mine.span(array, name)
    if span.device != mine.device:
        raise ValueError(f"{name} lies on device {span.device} and the {of} on device {mine.device}")
    if span.name != kind:
        raise TypeError(f"{name} has dtype {span.name}, expected {kind}")
    if span.shape != shape:
        raise ValueError(f"{name} has shape {span.shape}, expected {shape}")
    if written and span.read_only:
        raise ValueError(f"{name} is read-only")
    return span


def planes(*spans: Span) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Arrays of one shape as runs of rows and columns: the first row of each, and Numba's views."""
    shape = spans[0].shape[:-1]
    dims: list[tuple[int, tuple[int, ...]]] = []
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        steps = tuple(span.strides[axis] for span in spans)
        if dims and dims[-1][1] == tuple(length * step for step in steps):
            dims[-1] = (dims[-1][0] * length, steps)
        else:
            dims.append((length, steps))
    rows, steps = dims.pop() if dims else (1, (0,) * len(spans))
    for run, place in enumerate(np.ndindex(*(length for length, _ in dims)) if dims else ((),)):
        views = []
        for at, span in enumerate(spans):
            offset = sum(i * outer[at] for i, (_, outer) in zip(place, dims, strict=True))
            columns, item = span.shape[-1], span.item_size
            # a lone column or row is contiguous whatever its stride is said to be
            column_step = span.strides[-1] if columns > 1 else item
            row_step = steps[at] if rows > 1 else columns * item
            views.append(span.view(offset, (rows, columns), (row_step, column_step)))
        yield run * rows, tuple(views)


def _overlap(a: Span, b: Span) -> bool:
    """Whether the stretches of memory of two arrays meet."""

    def ends(span: Span) -> tuple[int, int]:
        if span.contiguous:
            return span.pointer, span.pointer + span.size * span.item_size - 1
        reach = [(length - 1) * step for length, step in zip(span.shape, span.strides, strict=True)]
        return span.pointer + sum(min(r, 0) for r in reach), span.pointer + sum(max(r, 0) for r in reach)

    (low, high), (other_low, other_high) = ends(a), ends(b)
    return low <= other_high and other_low <= high


def apart(spans: Sequence[Span]) -> None:
    """No two outputs of one call share memory; they are contiguous, or refused for that."""
    filled = [span for span in spans if span.size and span.contiguous] if len(spans) > 1 else []
    if any(_overlap(one, other) for i, one in enumerate(filled) for other in filled[:i]):
        raise ValueError("two arrays of out share memory: each result needs its own")


def counter(draw: Any) -> Any:
    """A draw id on a device: a uint64 array of one element, as it was given."""
    span = library(draw, None).span(draw, "draw")
    if span.name != "uint64" or span.size != 1:
        raise ValueError(f"draw on a device must be one uint64, got {span.name} of shape {span.shape}")
    if span.read_only:
        raise ValueError("draw is read-only: the kernels advance it")
    return draw
