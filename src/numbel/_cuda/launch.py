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
from . import multinomial as _multinomial
from . import noise as _noise
from . import relaxed as _relaxed
from . import roots as _roots
from . import short as _short
from . import small as _small
from . import table as _table
from . import vjp as _vjp
from .forms import THREADS
from .rows import Call, Results
from .table import FIELDS, HEAD, Tables

MODULES = (
    _noise,
    _categorical,
    _short,
    _gumbel_max,
    _relaxed,
    _vjp,
    _conditional,
    _small,
    _roots,
    _table,
    _multinomial,
)
#: CUDA blocks of a launch at most: kernels stride over what is left.
_GRID = 1 << 20
#: (row, sample, block) whose winners are kept at a time by gumbel_max: 64 MB.
_WINNERS = 1 << 22
#: Columns of rows whose tables are made at a time: 256 MB, or those of one row.
_TABLED = (1 << 28) // 24


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
    return THREADS, 8 if name in ("gumbel", "block_nodes", "products") and form != "float64" else 1


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


def _roots_of(logits: Any, call: Call, results: Results, place: Place) -> tuple[Any, Any]:
    """The node of each row, and what it is without a law; logsumexp and bad rows into `results`."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    nodes, roots = place.scratch((2, count * blocks), np.float64), place.scratch((2, count), np.float64)
    fixed = place.scratch(count, np.int64)
    _launch(_categorical, "block_nodes", count * blocks, place, logits, call, nodes, layout=layout)
    _launch(_roots, "row_nodes", count, place, logits, call, blocks, nodes, roots, fixed, results, layout=layout)
    return roots, fixed


def tables(rows: int, columns: int, place: Place, cells: Any = None, heads: Any = None) -> Tables:
    """Room for the tables of some rows."""
    blocks = _blocks(columns)
    return Tables(
        0, rows, blocks, columns,
        place.scratch(rows * columns, np.uint64) if cells is None else cells,
        place.scratch((2, rows * columns), np.int64),
        place.scratch((FIELDS, rows * blocks), np.int64),
        place.scratch((HEAD, rows), np.int64) if heads is None else heads,
    )  # fmt: skip


def _make_tables(logits: Any, call: Call, roots: Any, fixed: Any, made: Tables, place: Place) -> None:
    items, rows = made.rows * made.blocks, made.rows
    _launch(_table, "weigh_columns", items, place, logits, call, roots, fixed, made, layout=_layout(logits))
    for name, count in (
        ("begin_tables", rows), ("classify", items), ("end_classes", rows), ("enlist", items), ("pair", items),
    ):  # fmt: skip
        _launch(_table, name, count, place, fixed, made)


def table(logits: Any, call: Call, results: Results, made: Tables, place: Place) -> None:
    """The table of a row."""
    roots, fixed = _roots_of(logits, call, results, place)
    _make_tables(logits, call, roots, fixed, made, place)


def draw_table(call: Call, samples: int, fixed: Any, made: Tables, indices: Any, place: Place) -> None:
    """Draws of some rows from their tables."""
    _launch(_table, "draw_tabled", made.rows * _blocks(samples), place, call, samples, fixed, made, indices)


def tabled(logits: Any, call: Call, samples: int, results: Results, place: Place) -> None:
    """Samples of rows from a table of each, of as many rows at a time as there is room for."""
    count, columns = logits.shape
    none = place.scratch(0, np.int64), place.scratch(0, results.log_prob.dtype)
    roots, fixed = _roots_of(logits, call, results._replace(indices=none[0], log_prob=none[1]), place)
    step = min(count, max(1, _TABLED // columns))
    room = tables(step, columns, place)
    for first in range(0, count, step):
        made = room._replace(first=first, rows=min(step, count - first))
        _make_tables(logits, call, roots, fixed, made, place)
        draw_table(call, samples, fixed, made, results.indices, place)
        if results.log_prob.size > 0:
            _launch(
                _table, "look_up", made.rows * _blocks(samples), place,
                logits, call, samples, roots, fixed, made, results, layout=_layout(logits),
            )  # fmt: skip


def multinomial(logits: Any, call: Call, n: int, trials: Any, results: Results, out: Any, place: Place) -> None:
    """Counts of n draws of each row, or of as many as `trials` says."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits, out)
    tops = 1 << (blocks - 1).bit_length()
    roots, fixed = _roots_of(logits, call, results, place)
    many = blocks > 1
    masses = place.scratch(count * blocks if many else 0, np.float64)
    tree = place.scratch(2 * count * tops if many else 0, np.int64)
    if many:
        _launch(
            _multinomial, "block_masses", count * blocks, place,
            logits, call, blocks, roots, fixed, masses, layout=_layout(logits),
        )  # fmt: skip
        _launch(_multinomial, "split_rows", count, place, count, call, blocks, tops, n, trials, fixed, masses, tree)
    _launch(
        _multinomial, "count", count * blocks, place,
        logits, call, blocks, tops, n, trials, roots, fixed, tree, out, results.bad, layout=layout,
    )  # fmt: skip
