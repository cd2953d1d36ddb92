"""Relaxed samples, their gradients and conditional noise, of arrays on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import checks
from .._arguments.requests import RowOptions
from .._cuda import launch
from .._cuda.rows import Call
from .libraries import Span
from .task import Reserve, Task, advance


def gumbel_softmax(reserve: Reserve, logits: Any, rows: RowOptions, hard: bool, out: Any) -> Any:
    """Relaxed samples, or their one-hots."""
    task = Task(logits, rows)
    where = task.library
    with where.active(), reserve() as draw:
        where.begin()
        result, target = task.like(out)
        overlapping = task.same(target)
        bad = task.bad()
        if task.rows:
            call = task.call(draw)
            _relax(task, call, target, hard, bad, overlapping)
            advance(call, task.context)
        task.raise_bad(bad, overlapping)
        return where.finish(result) if out is None else result


def softmax(logits: Any, temperature: Any, axis: int) -> Any:
    """softmax(logits / temperature); rows of temperature 0 become NaN."""
    task = Task(logits, RowOptions(axis, temperature))
    with task.library.active():
        task.library.begin()
        result, target = task.like(None)
        if task.rows:
            for part, view, into in task.parts_with(task.call(), target):
                launch.relaxed(view, part, False, into, task.bad(), task.context)
        return task.library.finish(result)


def _relax(task: Task, call: Call, target: Span, hard: bool, bad: Any, overlapping: bool) -> None:
    """Launch what makes relaxed samples, and one-hots of rows of temperature 0, or of all."""
    only, indices = task.none("uint8"), task.none("int64")
    if hard or task.per_row:
        plain = call._replace(temperature=1.0, temperatures=task.none("float64"))
        if not hard:
            only = task.library.scratch(task.rows, np.uint8)
            launch.greedy(call, only, task.context)
            plain = plain._replace(mask=only)
        indices = task.library.scratch(task.rows, np.int64)
        results = task.results(indices=indices, bad=bad)
        for part, view in task.parts_with(plain):  # before the output is written, which may be the logits
            launch.categorical(view, part, "gumbel_max", 1, results, task.context)
    for part, view, into in task.parts_with(call, target):
        if not hard:
            launch.relaxed(view, part, True, into, bad, task.context, overlapping)
        if hard or task.per_row:
            launch.one_hot(indices, part.first_row, only, into, task.context)


def conditional_gumbel(reserve: Reserve, logits: Any, index: Any, rows: RowOptions, out: Any) -> Any:
    """Perturbed logits given the largest's index."""
    task = Task(logits, rows, checks.positive_temperature)
    where = task.library
    if not checks.on_device(index):
        index = checks.host_index(index, task.shape)
    with where.active(), reserve() as draw:
        where.begin()
        result, target = task.like(out)
        overlapping = task.same(target)
        bad = task.bad()
        if task.rows:
            given = (
                task.spread(index, "int64", "index")
                if checks.on_device(index)
                else task.flat(where.upload(index), "index")
            )
            call, log_sums = task.call(draw), where.scratch(task.rows, np.float64)
            results = task.results(logsumexp64=log_sums)
            for part, view in task.parts_with(call):
                launch.categorical(view, part, "grouped", 1, results, task.context)
            for part, view, into in task.parts_with(call, target):
                launch.conditional(view, part, given, log_sums, into, bad, task.context)
            advance(call, task.context)
        task.raise_bad(bad, overlapping)
        return where.finish(result) if out is None else result


def gumbel_softmax_vjp(
    y: Any, cotangent: Any, temperature: Any, axis: int, out: Any, stream: Any, wanted: bool = True
) -> tuple[Any, Any]:
    """Gradients of a relaxed sample: in the logits and, if wanted, in the temperature, one for all or one a row."""
    task = Task(y, RowOptions(axis, temperature, stream=stream), name="y")
    where = task.library
    if not checks.on_device(cotangent):
        raise TypeError(f"cotangent lies on the host ({type(cotangent).__name__}) and y on a CUDA device")
    other = task.output(cotangent, where.span(y, "y").shape, task.span.name, "cotangent", written=False)
    other = other if task.axis == -1 else other.moved(task.axis, -1)
    shape = tuple(np.shape(temperature)) if not checks.on_device(temperature) else tuple(temperature.shape)
    if shape not in ((), task.shape):
        raise ValueError(f"temperature has shape {shape}, expected () or that of the rows, {task.shape}, on a device")
    with where.active():
        where.begin()
        result, target = task.like(out)
        task.same(target)
        slopes = where.empty(shape, "float64") if wanted else None
        each = into = task.none("float64") if slopes is None else task.flat(slopes, "d_temperature")
        if wanted and shape != task.shape:
            each = where.scratch(task.rows, np.float64)
        if task.rows:
            for part, view, u, gradient in task.parts_with(task.call(), other, target):
                launch.vjp(view, u, part, gradient, each, task.context)
        if wanted and shape != task.shape:
            launch.total(each, into, task.context)
        return (where.finish(result) if out is None else result), slopes if slopes is None else where.finish(slopes)
