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
from . import relaxed_short as _relaxed_short
from . import short as _short
from . import small as _small
from . import vjp as _vjp
from .forms import THREADS
from .rows import Call, Results

MODULES = (_noise, _categorical, _short, _gumbel_max, _relaxed, _relaxed_short, _vjp, _conditional, _small)
#: Of these, the kernels that know ragged rows.
RAGGED = (_categorical, _short, _gumbel_max)
#: CUDA blocks of a launch at most: kernels stride over what is left.
_GRID = 1 << 20
#: (row, sample, block) whose winners are kept at a time by gumbel_max: 64 MB.
_WINNERS = 1 << 22


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

    Eight are half of what it can hold, and leave 64 registers, five leave 96; the other kernels would spill some.
    """
    if name in ("gumbel", "block_nodes", "products"):
        return THREADS, 8 if form != "float64" else 1
    short = name in ("sample_short", "vjp_short") or (name == "relax_short" and form != "float64")
    return THREADS, 5 if short else 1


def _launch(module: Any, name: str, items: int, place: Place, *arguments: Any, layout: str = "A") -> None:
    _kernel(module, place.name, layout, name)[max(1, min(items, _GRID)), THREADS, place.stream](*arguments)


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


def _width(columns: int) -> int:
    """Lanes of a short row: a power of two, 4 at least."""
    return max(4, 1 << (columns - 1).bit_length())


def _tiles(rows: int, width: int) -> int:
    """CUDA blocks for rows of so many lanes each."""
    return -(-rows // (LANES // width))


def _longest_short(columns: int, rows: int, longest: int | None) -> int:
    """How long ragged rows may be to be drawn several to a CUDA block: twice the mean."""
    double = 2 * -(-columns // rows)
    return double if longest is None else min(double, longest)


def categorical(
    logits: Any, call: Call, method: str, samples: int, results: Results, place: Place, longest: int | None = None
) -> None:
    """Samples of rows, one at least. Ragged rows lie in one line, and none has more than `longest` columns if given."""
    count, columns = logits.shape
    slots, layout, widest = count * _blocks(columns), _layout(logits), columns
    if call.offsets.size > 0:
        count, layout = call.offsets.size - 1, "R"
        slots = columns // BLOCK + count
        widest = _longest_short(columns, count, longest)
    if widest <= LANES:
        width = _width(widest)
        call = call._replace(least=width + 1)
        items = _tiles(count, width) * -(-samples // _short.SAMPLES)
        name = "sample_short" if method == "grouped" else "largest_short"
        _launch(_short, name, items, place, logits, call, samples, results, layout=layout)
        if layout != "R" or (longest is not None and longest <= width):
            return
    summed = method == "grouped" or any(part.size > 0 for part in results[1:4])
    nodes = place.scratch((2, slots if summed else 0), np.float64)
    if summed:
        _launch(_categorical, "block_nodes", slots, place, logits, call, nodes, layout=layout)
    if method == "grouped":
        _launch(_categorical, "choose", count * samples, place, logits, call, samples, nodes, results, layout=layout)
        return
    step = min(samples, max(1, _WINNERS // slots))
    keys, at = place.scratch(slots * step, np.float64), place.scratch(slots * step, np.int64)
    for first in range(0, samples, step):
        some = min(step, samples - first)
        _launch(
            _gumbel_max, "block_winners", slots * some, place,
            logits, call, first, some, keys, at, layout=layout,
        )  # fmt: skip
        _launch(
            _gumbel_max, "choose_largest", count * some, place,
            logits, call, first, some, samples, keys, at, nodes, results, layout=layout,
        )  # fmt: skip


def relaxed(logits: Any, call: Call, noisy: bool, out: Any, bad: Any, place: Place, aliased: bool = False) -> None:
    """Softmax of the rows with noise, or without; `aliased` if `out` shares memory with logits."""
    count, columns = logits.shape
    if columns <= LANES:
        tiles, noise = _tiles(count, _width(columns)), np.uint8(noisy)
        _launch(_relaxed_short, "relax_short", tiles, place, logits, call, noise, out, bad, layout=_layout(logits, out))
        return
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
    wanted, layout = np.uint8(in_temperature.size > 0), _layout(y, cotangent, out)
    if columns <= LANES:
        arguments = y, cotangent, call, wanted, out, in_temperature
        _launch(_relaxed_short, "vjp_short", _tiles(count, _width(columns)), place, *arguments, layout=layout)
        return
    blocks = _blocks(columns)
    nodes, means = place.scratch((3, count * blocks), np.float64), place.scratch(count, np.float64)
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
