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
from . import densities as _densities
from . import gumbel_max as _gumbel_max
from . import noise as _noise
from . import relaxed as _relaxed
from . import short as _short
from . import small as _small
from . import top_k as _top_k
from . import top_k_weights as _top_k_weights
from . import vjp as _vjp
from .forms import THREADS
from .rows import Call, Results

MODULES = (
    _noise,
    _categorical,
    _short,
    _gumbel_max,
    _relaxed,
    _vjp,
    _conditional,
    _small,
    _densities,
    _top_k,
    _top_k_weights,
)
#: Kernels that do with 64 registers, but for float64, and those that do with 96.
_LEAN, _FAIR = ("gumbel", "block_nodes", "products", "entropy_blocks", "rest_nodes"), ("block_tops", "collect")
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

    Eight are half of what it can hold, and leave 64 registers; five leave 96. The other kernels would spill some.
    """
    return THREADS, 8 if name in _LEAN and form != "float64" else 5 if name in _FAIR else 1


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


def logsumexp(logits: Any, call: Call, results: Results, place: Place) -> None:
    """Logsumexp of rows, NaN where they are bad."""
    count, columns = logits.shape
    if columns <= LANES:
        categorical(logits, call, "grouped", 1, results, place)
        return
    blocks, layout = _blocks(columns), _layout(logits)
    nodes = place.scratch((2, count * blocks), np.float64)
    _launch(_categorical, "block_nodes", count * blocks, place, logits, call, nodes, layout=layout)
    each = (logits, call, nodes, results.logsumexp, results.bad)
    _launch(_densities, "row_sums", count, place, *each, layout=layout)


def given(logits: Any, call: Call, each: int, index: Any, out: Any, bad: Any, place: Place) -> None:
    """Log-probabilities of `each` categories of rows, NaN where they or their rows are bad."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    nodes = place.scratch((2, count * blocks), np.float64)
    _launch(_categorical, "block_nodes", count * blocks, place, logits, call, nodes, layout=layout)
    items = count * max(1, _blocks(each))
    _launch(_densities, "given", items, place, logits, call, each, index, nodes, out, bad, layout=layout)


def entropy(logits: Any, call: Call, drawn: bool, out: Any, bad: Any, place: Place) -> None:
    """Entropy of rows into the flat `out`, NaN where they are bad; `drawn` if none has temperature 0."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    each = (logits, call, place.scratch((3, count * blocks), np.float64), out, bad)
    _launch(_densities, "entropy_blocks", count * blocks, place, *each, layout=layout)
    if blocks > 1 or not drawn:
        _launch(_densities, "entropy_rows", count, place, *each, layout=layout)
