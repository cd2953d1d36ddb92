"""A distribution prepared once for many draws, on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from .._arguments import checks
from .._arguments.requests import RowOptions
from .._cuda import launch
from .._cuda.roots import LAW
from .._cuda.table import BITS, COLUMNS, FIELDS, HEAD, UNIT, Tables
from .._scalar.limits import BLOCK
from .libraries import Jax, Library, library
from .task import Expected, Reserve, Task, advance, launch_context, output, plain_call


class Table:
    """An alias table on a device: an entry for each column, the head of its plan, and its logsumexp on the host."""

    def __init__(self, logits: Any, temperature: Any) -> None:
        if checks.on_device(temperature):
            raise TypeError("temperature of a table is a number, not an array on a CUDA device")
        task = Task(logits, RowOptions(temperature=temperature, on_invalid="raise"))
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
            log_sum, bad = where.scratch(1, np.float64), task.bad()
            made = launch.tables(1, columns, task.context, self._cells(where), self._heads(where))
            launch.table(_view(task), task.call(), task.results(logsumexp64=log_sum, bad=bad), made, task.context)
            task.raise_bad(bad)  # waits for the device
            self.logsumexp = np.float64(log_sum.copy_to_host()[0])

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
        if out is not None and not output(where, out, Expected(size, "int64", "out", of="table")).contiguous:
            raise ValueError("out is not C-contiguous, which it must be on a device")
        with where.active(), reserve() as draw:
            where.begin()
            result = where.empty(size, "int64") if out is None else out
            indices = where.span(result, "out").flat()
            if indices.size:
                call, context = plain_call(where, draw), launch_context(where, "float64")
                made = Tables(
                    first=0,
                    rows=1,
                    blocks=-(-self.columns // BLOCK),
                    columns=self.columns,
                    cells=self._cells(where),
                    lists=where.scratch((2, 0), np.int64),
                    plan=where.scratch((FIELDS, 0), np.int64),
                    heads=self._heads(where),
                )
                law = where.span(self.law, "law").flat()
                launch.draw_table(call, indices.size, law, made, indices, context)
                advance(call, context)
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
        results = task.results(indices=index, logsumexp64=limit, bad=bad)
        launch.categorical(_view(task), task.call(), "grouped", 1, results, task.context)
        task.raise_bad(bad)
        lone = np.full(task.span.shape, -np.inf, np.float32)
        lone[task.fetch(index)[0]] = 0
        return where.upload(lone), np.float64(task.fetch(limit)[0])
