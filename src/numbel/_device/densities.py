"""Log-probabilities, logsumexp and entropy of arrays on a CUDA device."""

from __future__ import annotations

from typing import Any

from .._arguments import checks
from .._arguments.requests import RowOptions
from .._cuda import launch
from .task import Task


def _output(task: Task, shape: tuple[int, ...], out: Any) -> tuple[Any, Any]:
    """The result, and a vector over it."""
    if out is not None:
        task.output(out, shape, task.wide, "out")
    result = task.library.empty(shape, task.wide) if out is None else out
    return result, task.flat(result, "out")


def _finish(task: Task, result: Any, out: Any, bad: Any) -> Any:
    task.raise_bad(bad)
    return task.library.finish(result) if out is None else result


def logsumexp(logits: Any, axis: int, temperature: Any, on_invalid: str | None, out: Any, stream: Any) -> Any:
    """Logsumexp of each row."""
    task = Task(logits, RowOptions(axis, temperature, on_invalid=on_invalid, stream=stream))
    with task.library.active():
        task.library.begin()
        result, flat = _output(task, task.shape, out)
        bad = task.bad()
        if task.rows:
            results = task.results(logsumexp=flat, bad=bad)
            for part, view in task.parts_with(task.call()):
                launch.logsumexp(view, part, results, task.context)
        return _finish(task, result, out, bad)


def log_prob(
    logits: Any, index: Any, axis: int, temperature: Any, on_invalid: str | None, out: Any, stream: Any
) -> Any:
    """Log-probabilities of one or several categories of each row; `index` on the host or on the device."""
    task = Task(logits, RowOptions(axis, temperature, on_invalid=on_invalid, stream=stream))
    there = checks.on_device(index)
    if not there:
        index = checks.indices(index, task.span.shape, task.raises)
    shape = task.library.span(index, "index").shape if there else index.shape
    if there:
        checks.index_shape(shape, task.span.shape)
    with task.library.active():
        task.library.begin()
        result, flat = _output(task, shape, out)
        bad = task.bad()
        if task.rows:
            given = task.integers(index, shape, "index") if there else task.flat(task.library.upload(index), "index")
            for part, view in task.parts_with(task.call()):
                launch.given(view, part, flat.size // task.rows, given, flat, bad, task.context)
        return _finish(task, result, out, bad)


def entropy(logits: Any, axis: int, temperature: Any, on_invalid: str | None, out: Any, stream: Any) -> Any:
    """Entropy of each row."""
    task = Task(logits, RowOptions(axis, temperature, on_invalid=on_invalid, stream=stream))
    with task.library.active():
        task.library.begin()
        result, flat = _output(task, task.shape, out)
        bad = task.bad()
        if task.rows:
            for part, view in task.parts_with(task.call()):
                launch.entropy(view, part, not task.per_row, flat, bad, task.context)
        return _finish(task, result, out, bad)
