"""Counts of many draws, of arrays on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import checks
from .._arguments.requests import RowOptions
from .._cuda import launch
from .._cuda.multinomial import Trials
from .task import Reserve, Task, advance


def _most(task: Task, n: Any) -> int:
    """The largest number that an array on the device could hold."""
    kind = task.library.span(n, "n").name
    return int(np.iinfo(kind).max) if "int" in kind else 0


def multinomial(reserve: Reserve, n: Any, logits: Any, rows: RowOptions, out: Any) -> Any:
    """Counts of n draws."""
    task = Task(logits, rows)
    where = task.library
    there = checks.on_device(n)
    given = None if there else checks.trials(n, task.shape)
    where.check_result("counts", "int64", _most(task, n) if given is None else int(given.max(initial=0)))
    shape = task.span.shape if task.axis == -1 else task.span.moved(-1, task.axis).shape
    target = None if out is None else task.output(out, shape, "int64", "out")
    with where.active(), reserve() as draw:
        where.begin()
        result = where.empty(shape, "int64") if out is None else out
        target = where.span(result, "out") if target is None else target
        target = target if task.axis == -1 else target.moved(task.axis, -1)
        bad = task.bad()
        if task.rows:
            call = task.call(draw)
            if given is None:
                trials = Trials(0, task.spread(n, "int64", "n"))
            elif np.ndim(n):
                trials = Trials(0, task.flat(where.upload(given), "n"))
            else:
                trials = Trials(int(given[0]), task.none("int64"))
            for part, view, into in task.parts_with(call, target):
                where.begin()
                launch.multinomial(view, part, trials, task.results(bad=bad), into, task.context)
            advance(call, task.context)
        task.raise_bad(bad)
        return where.finish(result) if out is None else result
