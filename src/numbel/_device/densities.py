"""Log-probabilities, logsumexp and entropy of arrays on a CUDA device."""

from __future__ import annotations

from typing import Any

from .. import _checks
from .._cuda import launch
from .._cuda.rows import Results
from .task import Task, planes, wide_of


def _output(task: Task, shape: tuple[int, ...], out: Any) -> tuple[Any, Any]:
    """The result, and a vector over it."""
    kind = wide_of(task.span.name)
    if out is not None:
        task.output(out, shape, kind, "out")
    result = task.library.empty(shape, kind) if out is None else out
    return result, task.flat(result, "out")


def _finish(task: Task, result: Any, out: Any, bad: Any) -> Any:
    found = task.first_bad(bad)
    if found is not None:
        task.refuse(found)
    return task.library.finish(result) if out is None else result


def logsumexp(logits: Any, axis: int, temperature: Any, on_invalid: str | None, out: Any, stream: Any) -> Any:
    """Logsumexp of each row."""
    task = Task(logits, axis, temperature, None, None, on_invalid, stream)
    with task.library.active():
        task.library.begin()
        result, flat = _output(task, task.shape, out)
        bad = task.bad()
        if task.rows:
            call = task.call((0, 0))
            none = task.none(wide_of(task.span.name))
            results = Results(task.none("int64"), none, flat, task.none("float64"), bad)
            for first, (view,) in planes(task.span):
                launch.logsumexp(view, call._replace(first_row=first), results, task.place)
        return _finish(task, result, out, bad)


def log_prob(
    logits: Any, index: Any, axis: int, temperature: Any, on_invalid: str | None, out: Any, stream: Any
) -> Any:
    """Log-probabilities of one or several categories of each row; `index` on the host or on the device."""
    task = Task(logits, axis, temperature, None, None, on_invalid, stream)
    there = _checks.on_device(index)
    if not there:
        index = _checks.indices(index, task.span.shape, task.raises)
    shape = task.library.span(index, "index").shape if there else index.shape
    if there:
        _checks.index_shape(shape, task.span.shape)
    with task.library.active():
        task.library.begin()
        result, flat = _output(task, shape, out)
        bad = task.bad()
        if task.rows:
            given = task.integers(index, shape, "index") if there else task.flat(task.library.upload(index), "index")
            call, each = task.call((0, 0)), flat.size // task.rows
            for first, (view,) in planes(task.span):
                launch.given(view, call._replace(first_row=first), each, given, flat, bad, task.place)
        return _finish(task, result, out, bad)


def entropy(logits: Any, axis: int, temperature: Any, on_invalid: str | None, out: Any, stream: Any) -> Any:
    """Entropy of each row."""
    task = Task(logits, axis, temperature, None, None, on_invalid, stream)
    with task.library.active():
        task.library.begin()
        result, flat = _output(task, task.shape, out)
        bad = task.bad()
        if task.rows:
            call = task.call((0, 0))
            for first, (view,) in planes(task.span):
                launch.entropy(view, call._replace(first_row=first), not task.per_row, flat, bad, task.place)
        return _finish(task, result, out, bad)
