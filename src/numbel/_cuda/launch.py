"""Launches: the kernels of one call, their grids and scratch. Arrays are device arrays of rows and columns.

Half-precision arrays come as the uint16 of their bits. What is in `Call` and in `Results` covers the whole call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda

from .._scalar.blocks import BLOCK, LANES
from . import categorical as _categorical
from . import conditional as _conditional
from . import gumbel_max as _gumbel_max
from . import noise as _noise
from . import relaxed as _relaxed
from . import short as _short
from . import small as _small
from . import truncated as _truncated
from . import truncation as _truncation
from . import vjp as _vjp
from .forms import THREADS
from .rows import Call, Results
from .truncation import HISTOGRAM, LIST, Cut, Limits, wide_threads

MODULES = (_noise, _categorical, _short, _gumbel_max, _relaxed, _vjp, _conditional, _small, _truncation, _truncated)
#: CUDA blocks of a launch at most: kernels stride over what is left.
_GRID = 1 << 20
#: (row, sample, block) whose winners are kept at a time by gumbel_max: 64 MB.
_WINNERS = 1 << 22
#: Blocks of a row from which on many CUDA blocks make its histograms, so many blocks each, if there are few rows; in a
#: launch for each of the first levels. float32 has three for top_k or top_p; what is left, one CUDA block does.
_SPREAD_FROM, _SPREAD_RUN, _SPREAD_LEVELS, _SPREAD_ROWS = 64, 16, 3, 64


class Place(NamedTuple):
    """The element format of a launch, its stream, and what makes scratch: of a shape and a dtype."""

    name: str
    stream: Any
    scratch: Callable[[Any, Any], Any]


@functools.cache
def _kernel(module: Any, form: str, layout: str, name: str) -> Any:
    function, signature = module.kernels(form, layout)[name]
    if config.ENABLE_CUDASIM:
        return cuda.jit(function)
    # as the tests compile it: link-time optimisation would let nvJitLink contract again
    return cuda.jit(signature, lto=False, launch_bounds=bounds(name, form))(function)


def bounds(name: str, form: str) -> tuple[int, int]:
    """Threads of a CUDA block, and how many such blocks a multiprocessor is to hold at least.

    Eight are half of what it can hold, and leave 64 registers; the other kernels would spill some.
    """
    if name == "find_cut":
        return wide_threads(form), 1
    return THREADS, 8 if name in (
        "gumbel",
        "block_nodes",
        "products",
        "survey",
        "kept_nodes",
    ) and form != "float64" else 1


def _launch(
    module: Any, name: str, items: int, place: Place, *arguments: Any, layout: str = "A", threads: int = THREADS
) -> None:
    _kernel(module, place.name, layout, name)[max(1, min(items, _GRID)), threads, place.stream](*arguments)


def _layout(*arrays: Any) -> str:
    return "C" if all(array.is_c_contiguous() for array in arrays) else "A"


def _blocks(columns: int) -> int:
    return -(-columns // BLOCK)


def _groups(rows: int, columns: int) -> int:
    """CUDA blocks for a thread to each four columns."""
    return -(-rows * -(-columns // 4) // THREADS)


def gumbel(out: Any, call: Call, loc: float, scale: float, place: Place) -> None:
    """Noise, scale * G + loc."""
    _launch(_noise, "gumbel", _groups(*out.shape), place, out, call, loc, scale, layout=_layout(out))


def categorical(logits: Any, call: Call, method: str, samples: int, results: Results, place: Place) -> None:
    """Samples of rows, one at least."""
    count, columns = logits.shape
    if method == "grouped" and columns <= LANES:
        tiles = -(-count // (LANES // max(4, 1 << (columns - 1).bit_length())))
        items = tiles * -(-samples // _short.SAMPLES)
        _launch(_short, "sample_short", items, place, logits, call, samples, results, layout=_layout(logits))
        return
    blocks = _blocks(columns)
    summed = method == "grouped" or any(part.size > 0 for part in results[1:4])
    nodes, layout = place.scratch((2, count * blocks if summed else 0), np.float64), _layout(logits)
    if summed:
        _launch(_categorical, "block_nodes", count * blocks, place, logits, call, nodes, layout=layout)
    if method == "grouped":
        _launch(_categorical, "choose", count * samples, place, logits, call, samples, nodes, results, layout=layout)
        return
    step = min(samples, max(1, _WINNERS // (count * blocks)))
    keys = place.scratch(count * step * blocks, np.float64)
    at = place.scratch(count * step * blocks, np.int64)
    for first in range(0, samples, step):
        some = min(step, samples - first)
        _launch(
            _gumbel_max, "block_winners", count * some * blocks, place,
            logits, call, first, some, keys, at, layout=layout,
        )  # fmt: skip
        _launch(
            _gumbel_max, "choose_largest", count * some, place,
            logits, call, first, some, samples, keys, at, nodes, results, layout=layout,
        )  # fmt: skip


def relaxed(logits: Any, call: Call, noisy: bool, out: Any, bad: Any, place: Place, aliased: bool = False) -> None:
    """Softmax of the rows with noise, or without; `aliased` if `out` shares memory with logits."""
    count, columns = logits.shape
    blocks = _blocks(columns)
    nodes = place.scratch((6, count * blocks), np.float64)
    stored = np.uint8(place.name in ("float32", "float64") and not aliased)
    each, layout = (logits, call, np.uint8(noisy), stored, nodes, out), _layout(logits, out)
    _launch(_relaxed, "weigh_blocks", count * blocks, place, *each, layout=layout)
    _launch(_relaxed, "normalise", count, place, columns, call, nodes, bad)
    _launch(_relaxed, "divide", _groups(count, columns), place, *each, layout=layout)


def vjp(y: Any, cotangent: Any, call: Call, out: Any, in_temperature: Any, place: Place) -> None:
    """Gradients of a relaxed sample: in the logits into `out`, in each row's temperature where that has elements."""
    count, columns = y.shape
    blocks = _blocks(columns)
    nodes, means = place.scratch((3, count * blocks), np.float64), place.scratch(count, np.float64)
    wanted, layout = np.uint8(in_temperature.size > 0), _layout(y, cotangent, out)
    _launch(_vjp, "products", count * blocks, place, y, cotangent, nodes, layout=layout)
    _launch(_vjp, "row_means", count, place, columns, nodes, means)
    _launch(_vjp, "gradients", count * blocks, place, y, cotangent, call, means, wanted, nodes, out, layout=layout)
    if wanted:
        _launch(_vjp, "row_slopes", count, place, columns, nodes, call, in_temperature)


def conditional(logits: Any, call: Call, index: Any, sums: Any, out: Any, bad: Any, place: Place) -> None:
    """Perturbed logits given the largest's index; `sums` is the float64 logsumexp of each row."""
    each, layout = (logits, call, index, sums, out, bad), _layout(logits, out)
    _launch(_conditional, "conditional", _groups(*logits.shape), place, *each, layout=layout)


def one_hot(indices: Any, first_row: int, only: Any, out: Any, place: Place) -> None:
    """One-hot rows, of those in `only` if it has elements."""
    rows, columns = out.shape
    _launch(_small, "one_hot", -(-rows * columns // THREADS), place, indices, first_row, only, out, layout=_layout(out))


def greedy(call: Call, only: Any, place: Place) -> None:
    """Which rows of the whole call have temperature 0."""
    _launch(_small, "greedy", -(-only.size // THREADS), place, call, only.size, only)


def widen(row: Any, out: Any, place: Place) -> None:
    """The first row of an array in float64."""
    _launch(_small, "widen", -(-out.size // THREADS), place, row, out)


def advance(counter: Any, place: Place) -> None:
    """Go on to the next draw."""
    _launch(_small, "advance", 1, place, counter)


def total(values: Any, out: Any, place: Place) -> None:
    """out[0] = the sum of values."""
    _launch(_small, "total", 1, place, values, out)


def truncated(
    logits: Any, call: Call, limits: Limits, method: str, samples: int, results: Results, place: Place
) -> None:
    """`categorical` of what `limits` keep of each row."""
    lines, columns = logits.shape
    ragged = call.offsets.size > 0
    count = call.offsets.size - 1 if ragged else lines
    slots = columns // BLOCK + count if ragged else count * _blocks(columns)
    layout = "R" if ragged else _layout(logits)
    summed = results.logsumexp.size > 0
    alone = limits.top_ps.size > 0 or limits.top_p < 1
    spread = (
        not ragged
        and _blocks(columns) >= _SPREAD_FROM
        and count <= _SPREAD_ROWS
        and (alone or limits.top_ks.size > 0 or limits.top_k < columns)
    )
    levels = _SPREAD_LEVELS if spread else 0
    cut = Cut(
        place.scratch(slots, np.int64),
        place.scratch((2, slots if summed or alone else 0), np.float64),
        place.scratch(levels * count * HISTOGRAM, np.uint64),
        place.scratch(count, np.float64),
        place.scratch(count, np.int64),
        place.scratch(count, np.float64),
    )
    each = logits, call, limits
    _launch(_truncation, "survey", slots, place, *each, np.uint8(summed), cut, layout=layout)
    chunks = _blocks(columns) // _SPREAD_RUN + 1
    for level in range(levels + 1):
        some = chunks if level < levels else 1
        _launch(
            _truncation, "find_cut", count * some, place, *each, np.uint8(summed), level, some, cut,
            layout=layout, threads=THREADS if columns <= LIST else wide_threads(place.name),
        )  # fmt: skip
    race = method == "gumbel_max"
    needed = not race or summed or results.log_prob.size > 0
    kept = place.scratch((2, slots if needed else 0), np.float64)
    if needed:
        _launch(_truncated, "kept_nodes", slots, place, *each, cut, kept, layout=layout)
    step = min(samples, max(1, _WINNERS // slots)) if race else samples
    keys, at = (place.scratch(slots * step if race else 0, kind) for kind in (np.float64, np.int64))
    for first in range(0, samples, step):
        some = min(step, samples - first)
        if race:
            _launch(
                _truncated, "kept_winners", slots * some, place, *each, first, some, cut, keys, at, layout=layout
            )  # fmt: skip
        _launch(
            _truncated, "choose_kept", count * some, place,
            *each, first, some, samples, cut, kept, keys, at, results, layout=layout,
        )  # fmt: skip
