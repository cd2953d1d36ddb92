"""Sampling without replacement for arrays of the host, and the importance weights of its results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arguments import checks
from .._arguments.requests import Outputs, RowOptions
from .._cpu import drivers
from .._cpu.signatures import TopKResults, Weighting
from ..results import TopK
from . import choices, dispatch, methods
from .dispatch import Plan


def gumbel_top_k(reserve: methods.Reserve, logits: Any, k: Any, options: RowOptions, out: TopK | None) -> TopK:
    """The k largest perturbed logits of each row, in order."""
    if out is not None and (not isinstance(out, tuple) or len(out) != 4):
        raise TypeError(f"out must be a numbel.TopK, got {type(out).__name__}")
    rows = methods.rows_of(logits, options, checks.temperature)
    array = rows.array
    shape = array.shape[:-1]
    count = checks.top_k_count(k, array.shape[-1])
    raises = checks.on_invalid(options.on_invalid)
    given = (None,) * 4 if out is None else tuple(out)
    kinds = (np.dtype(np.int64), np.dtype(np.float64), dispatch.result_dtype(array.dtype), np.dtype(np.float64))
    forms = ((*shape, count), (*shape, count), shape, shape)
    results = [
        np.empty(form, kind) if each is None else checks.out(each, form, kind, f"out.{name}")
        for name, each, form, kind in zip(TopK._fields, given, forms, kinds, strict=True)
    ]
    if out is not None:
        checks.outs_apart(each for each in given if isinstance(each, np.ndarray))
    # strided outputs are written through a copy: they have k entries a row, not one a category
    read = array, rows.temperature.values, rows.ids, rows.mask
    written = [
        r if methods.is_free(r, each, read) else np.empty(r.shape, r.dtype)
        for r, each in zip(results, given, strict=True)
    ]
    with reserve() as draw:
        bad = choices.choose(rows, count, draw, TopKResults(*written))
        for result, made in zip(results, written, strict=True):
            if result is not made:
                result[...] = made
        if bad is not None and raises:
            checks.too_few_categories(array, bad, count)
    return TopK(*(r if each is not None or r.shape else r[()] for r, each in zip(results, given, strict=True)))


def weights(result: TopK, logits: Any, axis: int, temperature: ArrayLike, normalized: bool) -> NDArray[np.float64]:
    """`numbel.top_k_weights` of arrays of the host."""
    rows = methods.rows_of(logits, RowOptions(axis, temperature), checks.temperature)
    array = rows.array
    indices, thresholds = checks.top_k_result(result, array)
    empty = indices < 0
    phi = np.take_along_axis(array, np.where(empty, 0, indices), -1).astype(np.float64)
    if phi.size == 0:
        return phi
    sums = None
    if not normalized:
        sums = np.empty(thresholds.shape)
        wanted = rows._replace(mask=~empty[..., 0].reshape(-1))
        dispatch.categorical(wanted, 0, "grouped", (0, 0), Outputs(logsumexp64=sums))
    chunk = max(1, (1 << 12) // phi.shape[-1])
    chosen, temperatures = dispatch.rows_in_memory(phi), dispatch.temperatures(rows.temperature)
    parameters = Weighting(chosen, temperatures, thresholds, sums, int(normalized), chunk)
    dispatch.run(Plan(drivers.driver("top_k_weights", "float64"), parameters, chosen.rows, phi.shape[-1]))
    phi[empty] = math.nan
    return phi
