"""A distribution prepared once for many draws, on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from .. import _checks
from .._cuda import launch
from .._cuda.launch import Place
from .._cuda.roots import LAW
from .._cuda.rows import Call, Results
from .._cuda.table import BITS, COLUMNS, FIELDS, HEAD, UNIT, Tables
from .._libraries import Jax, Library, library
from .._scalar.blocks import BLOCK
from .task import Reserve, Task, draw_of, no_elements, output, wide_of


class Table:
    """An alias table on a device: an entry for each column, the head of its plan, and its logsumexp on the host."""

    def __init__(self, logits: Any, temperature: Any) -> None:
        if _checks.on_device(temperature):
            raise TypeError("temperature of a table is a number, not an array on a CUDA device")
        task = Task(logits, -1, temperature, None, None, "raise", None)
        if len(task.span.shape) != 1:
            raise ValueError(f"logits has shape {task.span.shape}, expected one row, (n,)")
        where, columns = task.library, task.span.shape[0]
        where.check_result("indices", "int64", columns - 1)
        self.columns = columns
        if task.per_row:  # a lone 0
            lone, limit = _lone(task)
            self.__init__(lone, 1.0)  # type: ignore[misc]
            self.logsumexp = limit
            return
        with where.active():
            where.begin()
            self.entries, self.heads = where.empty((columns,), "int64"), where.empty((HEAD,), "int64")
            self._describe(where, logits)
            sums, bad, wide = where.scratch(1, np.float64), task.bad(), task.none(wide_of(task.span.name))
            results = Results(task.none("int64"), wide, wide, sums, bad)
            made = launch.tables(1, columns, task.place, self._cells(where), self._heads(where))
            call = task.call((0, 0))
            launch.table(_view(task), call, results, made, task.place)
            if task.first_bad(bad) is not None:  # waits for the device
                task.refuse(0)
            self.logsumexp = np.float64(sums.copy_to_host()[0])

    def _describe(self, where: Library, like: Any) -> None:
        self.law = where.upload(np.array([LAW]))
        # by which the library is known when the table is drawn from
        self.like = like[:1] if isinstance(where, Jax) else where.upload(np.zeros(1, np.float32))

    def _cells(self, where: Library) -> Any:
        return where.span(self.entries, "entries")._replace(name="uint64").flat()

    def _heads(self, where: Library) -> Any:
        return where.span(self.heads, "heads").view(0, (HEAD, 1), (8, 8))

    def draw(self, reserve: Reserve, size: tuple[int, ...], out: Any, stream: Any) -> Any:
        """Draws of the table."""
        where = library(self.like, stream)
        if out is not None and not output(where, out, size, "int64", "out", of="table").contiguous:
            raise ValueError("out is not C-contiguous, which it must be on a device")
        with where.active(), reserve() as (seed, draw):
            where.begin()
            result = where.empty(size, "int64") if out is None else out
            indices = where.span(result, "out").flat()
            if indices.size:
                none = [no_elements(where, name) for name in ("float64", "uint64", "uint8", "int64")]
                drawn, counter = draw_of(where, draw)
                call = Call(0, 1.0, none[0], none[1], none[2], np.uint64(seed), drawn, counter, none[3])
                made = Tables(
                    0, 1, -(-self.columns // BLOCK), self.columns, self._cells(where),
                    where.scratch((2, 0), np.int64), where.scratch((FIELDS, 0), np.int64), self._heads(where),
                )  # fmt: skip
                place = Place("float64", where.stream, where.scratch)
                law = where.span(self.law, "law").flat()
                launch.draw_table(call, indices.size, law, made, indices, place)
                if counter.size > 0:
                    launch.advance(counter, place)
            return where.finish(result) if out is None else result

    def __getstate__(self) -> dict[str, Any]:
        where = library(self.like, None)
        with where.active():
            where.wait()
            entries = where.span(self.entries, "entries").flat().copy_to_host()
            head = where.span(self.heads, "heads").flat().copy_to_host()
        known = None if type(where) is Library else self.like
        plan = {"columns": self.columns, "unit": int(head[UNIT]), "bits": int(head[BITS])}
        return plan | {"entries": entries, "logsumexp": self.logsumexp, "like": known}

    def __setstate__(self, state: dict[str, Any]) -> None:
        like = state["like"]
        where = library(cuda.to_device(np.zeros(1, np.float32)) if like is None else like, None)
        head = np.zeros(HEAD, np.int64)
        head[COLUMNS], head[UNIT], head[BITS] = state["columns"], state["unit"], state["bits"]
        self.columns, self.logsumexp = state["columns"], state["logsumexp"]
        with where.active():
            self.entries, self.heads = where.upload(state["entries"]), where.upload(head)
            self._describe(where, like)
            where.wait()  # draws may come on any stream


def _view(task: Task) -> Any:
    """The one row, as kernels have rows."""
    columns = task.span.shape[0]
    step = task.span.strides[0] if columns > 1 else task.span.item_size
    return task.span.view(0, (1, columns), (columns * step if columns > 1 else step, step))


def _lone(task: Task) -> tuple[Any, np.float64]:
    """Logits of which only the first largest is possible, and the logsumexp at temperature 0; waits for the device."""
    where = task.library
    with where.active():
        where.begin()
        index, limit, bad = where.scratch(1, np.int64), where.scratch(1, np.float64), task.bad()
        wide = task.none(wide_of(task.span.name))
        results = Results(index, wide, wide, limit, bad)
        launch.categorical(_view(task), task.call((0, 0)), "grouped", 1, results, task.place)
        if task.first_bad(bad) is not None:
            task.refuse(0)
        lone = np.full(task.span.shape, -np.inf, np.float32)
        lone[task.fetch(index)[0]] = 0
        return where.upload(lone), np.float64(task.fetch(limit)[0])
