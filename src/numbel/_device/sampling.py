"""Noise and samples of arrays on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._arguments import checks
from .._arguments.requests import RowOptions, SampleOptions
from .._cuda import launch
from .._cuda.rows import Call
from .._host import tables as _tables
from ..results import Sample
from .libraries import library
from .ragged import Ragged
from .task import Reserve, Task, advance, apart, check_device, launch_context, plain_call, planes
from .truncation import Truncation, truncation


def gumbel(reserve: Reserve, loc: Any, scale: Any, size: Any, dtype: Any, out: Any, like: Any, stream: Any) -> Any:
    """Noise, on the device of `like` or of `out`."""
    where = library(out if like is None else like, stream)
    locs, scales = (float(checks.device_scalar(value, name)) for value, name in ((loc, "loc"), (scale, "scale")))
    checks.loc_and_scale(locs, scales)
    kind = checks.float_dtype(dtype).name
    shape = () if size is None else checks.size(size)
    where.check_result("noise", kind)
    if out is not None:
        check_device(where, out, "out", "like")
        given = where.span(out, "out")
        shape = given.shape if size is None else shape
        if given.name != kind:
            raise TypeError(f"out has dtype {given.name}, expected {kind}")
        if given.shape != shape:
            raise ValueError(f"out has shape {given.shape}, expected {shape}")
        if given.read_only:
            raise ValueError("out is read-only")
    with where.active(), reserve() as draw:
        where.begin()
        result = where.empty(shape, kind) if out is None else out
        span = where.span(result, "out")
        if span.size:
            if not span.shape:
                span = span._replace(shape=(1,), strides=(0,))
            call, context = plain_call(where, draw), launch_context(where, kind)
            for first, (view,) in planes(span):
                launch.gumbel(view, call._replace(first_row=first), locs, scales, context)
            advance(call, context)
        return where.finish(result) if out is None else result


def _tabled(task: Task, columns: int, samples: int) -> bool:
    return _tables.tabled(columns, samples, np.dtype(task.wide))


def _runs(task: Task, call: Call, samples: int, cuts: Truncation | None) -> Iterator[tuple[Any, Call, bool]]:
    """Neighbouring rows of one length that are all drawn from tables, or none of them, as the last says."""
    for view, own in task.alike(call):
        rows, columns = view.shape
        tabled = _tabled(task, columns, samples)
        if not tabled or cuts is None:
            yield view, own, tabled
            continue
        # rows that keep everything are drawn as without truncation
        whole = cuts.keeps_all(columns)[own.first_row : own.first_row + rows]
        ends = [*(np.flatnonzero(np.diff(whole)) + 1).tolist(), rows]
        for first, last in zip([0, *ends], ends, strict=False):
            yield view[first:last], own._replace(first_row=own.first_row + first), bool(whole[first])


def sample(reserve: Reserve, logits: Any, rows: RowOptions, options: SampleOptions) -> Sample:
    """Categories, and log_prob and logsumexp if `options.full`."""
    out, full, method = options.out, options.full, options.method
    task = Task(logits, rows) if options.offsets is None else Ragged(logits, options.offsets, rows)
    samples = 1 if options.num_samples is None else checks.num_samples(options.num_samples)
    checks.method(method)
    cuts = truncation(task, options.truncation)
    # fewer samples take no table, whatever the length; ragged rows' lengths may have to come from the device
    tables = method == "grouped" and any(
        _tabled(task, columns, samples) for columns in (task.lengths() if _tabled(task, 1, samples) else ())
    )
    where, shape = task.library, task.shape
    many = shape if options.num_samples is None else (*shape, samples)
    forms = (("indices", many, "int64"), ("log_prob", many, task.wide), ("logsumexp", shape, task.wide))
    wanted = [full or name == "indices" for name, _, _ in forms]
    where.check_result("indices", "int64", task.span.shape[-1] - 1)
    apart(
        [
            task.output(given, form, kind, f"out.{name}" if full else "out")
            for (name, form, kind), given in zip(forms, out, strict=True)
            if given is not None
        ]
    )
    with where.active(), reserve() as draw:
        where.begin()
        made = [
            given if given is not None or not due else where.empty(form, kind)
            for (_, form, kind), given, due in zip(forms, out, wanted, strict=True)
        ]
        flat = [
            None if array is None or (samples == 0 and name != "logsumexp") else task.flat(array, name)
            for (name, _, _), array in zip(forms, made, strict=True)
        ]
        bad = task.bad()
        if task.rows and (samples or full):
            call = task.call(draw)
            results = task.results(flat[0], flat[1], flat[2], bad=bad)
            limits = None if cuts is None else cuts.limits()
            runs = _runs(task, call, samples, cuts) if tables else ((*part, False) for part in task.parts(call))
            for view, own, tabled in runs:
                last = max(samples, 1), results, task.context
                if tabled:
                    where.begin()
                    launch.tabled(view, own, *last)
                elif limits is None:
                    launch.categorical(view, own, method, *last, task.longest)
                else:
                    launch.truncated(view, own, limits, method, *last)
            advance(call, task.context)
        task.raise_bad(bad)
        return Sample(
            *(
                where.finish(array) if array is not None and given is None else array
                for array, given in zip(made, out, strict=True)
            )
        )
