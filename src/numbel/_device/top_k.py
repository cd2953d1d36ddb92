"""Sampling without replacement on a CUDA device, and the importance weights of its results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arguments import checks
from .._arguments.requests import RowOptions
from .._cuda import launch, launch_top_k
from .._cuda.top_k import Chosen
from .._cuda.top_k_weights import Normalisation, WithoutReplacement
from ..results import TopK
from .task import Reserve, Task, advance, apart


def gumbel_top_k(reserve: Reserve, logits: Any, k: int, rows: RowOptions, out: TopK | None) -> TopK:
    """The k largest perturbed logits of each row, in order."""
    if out is not None and (not isinstance(out, tuple) or len(out) != 4):
        raise TypeError(f"out must be a numbel.TopK, got {type(out).__name__}")
    task = Task(logits, rows)
    where, shape = task.library, task.shape
    count = checks.top_k_count(k, task.span.shape[-1])
    where.check_result("indices", "int64", task.span.shape[-1] - 1)
    given = (None,) * 4 if out is None else tuple(out)
    kinds = ("int64", "float64", task.wide, "float64")
    forms = ((*shape, count), (*shape, count), shape, shape)
    apart(
        [
            task.output(each, form, kind, f"out.{name}")
            for name, each, form, kind in zip(TopK._fields, given, forms, kinds, strict=True)
            if each is not None
        ]
    )
    with where.active(), reserve() as draw:
        where.begin()
        made = [
            where.empty(form, kind) if each is None else each
            for each, form, kind in zip(given, forms, kinds, strict=True)
        ]
        flat: list[Any] = [task.flat(array, f"out.{name}") for array, name in zip(made, TopK._fields, strict=True)]
        bad = task.bad()
        if task.rows:
            call, chosen = task.call(draw), Chosen(flat[0], flat[1], flat[2], flat[3], bad)
            for part, view in task.parts_with(call):
                launch_top_k.top_k(view, part, count, chosen, task.context)
            advance(call, task.context)
        found = task.first_bad(bad)
        if found is not None:
            values = task.row(found)
            if 0 < np.count_nonzero(values > -math.inf) < count and values.max() < math.inf:
                checks.too_few_categories(values, found, count)
            checks.invalid_device_row(values, found)
        return TopK(*(where.finish(array) if each is None else array for array, each in zip(made, given, strict=True)))


def top_k_weights(result: TopK, logits: Any, axis: int, temperature: Any, normalized: bool, stream: Any) -> Any:
    """Importance weights of a TopK of arrays of the device."""
    task = Task(logits, RowOptions(axis, temperature, stream=stream))
    where = task.library
    for name in ("indices", "threshold"):
        if not checks.on_device(getattr(result, name)):
            raise TypeError(f"result.{name} lies on the host and the logits on a CUDA device")
    where.check_threshold(result.threshold)
    shape = where.span(result.indices, "result.indices").shape
    kinds = where.span(result.indices, "result.indices").name, where.span(result.threshold, "result.threshold").name
    checks.top_k_shapes(*kinds, shape, where.span(result.threshold, "result.threshold").shape, task.shape)
    with where.active():
        where.begin()
        weights = where.empty(shape, "float64")
        flat, k = task.flat(weights, "weights"), shape[-1]
        if task.rows and k:
            indices = task.integers(result.indices, shape, "result.indices")
            drawn = WithoutReplacement(k, indices, task.spread(result.threshold, "float64", "result.threshold"))
            log_sums = task.none("float64")
            call = task.call()
            if not normalized:
                log_sums = where.scratch(task.rows, np.float64)
                for part, view in task.parts_with(call):
                    launch.categorical(view, part, "grouped", 1, task.results(logsumexp64=log_sums), task.context)
            normalisation = Normalisation(np.uint8(normalized), log_sums)
            for part, view in task.parts_with(call):
                launch_top_k.weights(view, part, drawn, normalisation, flat, task.context)
        return where.finish(weights)
