"""Launches: the kernels of one call, their grids and scratch. Arrays are device arrays of rows and columns.

Half-precision arrays come as the uint16 of their bits. What is in `Call` and in `Results` covers the whole call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda

from .._scalar.blocks import LANES
from .._scalar.limits import BLOCK
from . import categorical as _categorical
from . import conditional as _conditional
from . import densities as _densities
from . import disk, numba_cuda
from . import gumbel_max as _gumbel_max
from . import multinomial as _multinomial
from . import noise as _noise
from . import relaxed as _relaxed
from . import relaxed_short as _relaxed_short
from . import roots as _roots
from . import short as _short
from . import small as _small
from . import table as _table
from . import top_k as _top_k
from . import top_k_weights as _top_k_weights
from . import truncated as _truncated
from . import truncation as _truncation
from . import vjp as _vjp
from .forms import THREADS
from .multinomial import Trees, Trials
from .relaxed import Weights
from .roots import Roots
from .rows import Call, Results, Samples
from .shared import Entries
from .table import FIELDS, HEAD, Tables
from .truncation import HISTOGRAM, LIST, Cut, Limits, wide_threads

MODULES = (
    _noise,
    _categorical,
    _short,
    _gumbel_max,
    _relaxed,
    _relaxed_short,
    _vjp,
    _conditional,
    _small,
    _truncation,
    _truncated,
    _densities,
    _top_k,
    _top_k_weights,
    _roots,
    _table,
    _multinomial,
)
#: Of these, the kernels that know ragged rows.
RAGGED = (_categorical, _short, _gumbel_max, _truncation, _truncated)
#: Kernels that do with 64 registers, but for float64, and those that do with 96 (the last for all but float64).
_LEAN = ("gumbel", "block_nodes", "products", "entropy_blocks", "rest_nodes", "survey", "kept_nodes")
_FAIR = ("block_tops", "collect", "sample_short", "vjp_short", "relax_short")
#: CUDA blocks of a launch at most: kernels stride over what is left.
_GRID = 1 << 20
#: (row, sample, block) whose winners are kept at a time by gumbel_max: 64 MB.
_WINNERS = 1 << 22
#: Blocks of a row from which on many CUDA blocks make its histograms, so many blocks each, if there are few rows; in a
#: launch for each of the first levels. float32 has three for top_k or top_p; what is left, one CUDA block does.
_SPREAD_FROM, _SPREAD_RUN, _SPREAD_LEVELS, _SPREAD_ROWS = 64, 16, 3, 64
#: Columns of rows whose tables are made at a time: 256 MB, or those of one row.
_TABLED = (1 << 28) // 24


class LaunchContext(NamedTuple):
    """The element format of a launch, its device, its stream by handle, and what makes scratch of a shape and dtype."""

    name: str
    device: int
    handle: int
    scratch: Callable[[Any, Any], Any]


@functools.cache
def _kernel(module: Any, form: str, layout: str, name: str) -> Any:
    function, signature = module.kernels(form, layout)[name]
    if config.ENABLE_CUDASIM:
        return cuda.jit(function)
    return disk.kernel(function, name, form, layout, signature, bounds(name, form))


@functools.cache
def _launcher(module: Any, form: str, layout: str, name: str) -> numba_cuda.Launcher:
    return numba_cuda.launcher(_kernel(module, form, layout, name))


def bounds(name: str, form: str) -> tuple[int, int]:
    """Threads of a CUDA block, and how many such blocks a multiprocessor is to hold at least.

    Eight are half of what it can hold, and leave 64 registers; five leave 96. The other kernels would spill some.
    """
    if name == "find_cut":
        return wide_threads(form), 1
    if form == "float64" and name in (*_LEAN, "relax_short"):
        return THREADS, 1
    return THREADS, 8 if name in (*_LEAN, "draw_tabled") else 5 if name in _FAIR else 1


def _launch(
    module: Any,
    name: str,
    items: int,
    context: LaunchContext,
    *arguments: Any,
    layout: str = "A",
    threads: int = THREADS,
) -> None:
    blocks = max(1, min(items, _GRID))
    _launcher(module, context.name, layout, name)(context.device, context.handle, blocks, threads, arguments)


def _layout(*arrays: Any) -> str:
    return "C" if all(array.is_c_contiguous() for array in arrays) else "A"


def _blocks(columns: int) -> int:
    return -(-columns // BLOCK)


def _groups(rows: int, columns: int) -> int:
    """CUDA blocks for a thread to each four columns."""
    return -(-rows * -(-columns // 4) // THREADS)


def gumbel(out: Any, call: Call, loc: float, scale: float, context: LaunchContext) -> None:
    """Noise, scale * G + loc."""
    _launch(_noise, "gumbel", _groups(*out.shape), context, out, call, loc, scale, layout=_layout(out))


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
    logits: Any,
    call: Call,
    method: str,
    samples: int,
    results: Results,
    context: LaunchContext,
    longest: int | None = None,
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
        _launch(_short, name, items, context, logits, call, samples, results, layout=layout)
        if layout != "R" or (longest is not None and longest <= width):
            return
    summed = method == "grouped" or any(
        part.size > 0 for part in (results.log_prob, results.logsumexp, results.logsumexp64)
    )
    nodes = context.scratch((2, slots if summed else 0), np.float64)
    if summed:
        _launch(_categorical, "block_nodes", slots, context, logits, call, nodes, layout=layout)
    if method == "grouped":
        _launch(_categorical, "choose", count * samples, context, logits, call, samples, nodes, results, layout=layout)
        return
    parts, winners = _parts(samples, slots, context)
    for part in parts:
        each = logits, call, part, winners
        _launch(_gumbel_max, "block_winners", slots * part.count, context, *each, layout=layout)
        _launch(_gumbel_max, "choose_largest", count * part.count, context, *each, nodes, results, layout=layout)


def _parts(samples: int, slots: int, context: LaunchContext) -> tuple[list[Samples], Entries]:
    """As many samples at a time as there is room for the winners of, and that room."""
    step = min(samples, max(1, _WINNERS // slots))
    winners = Entries(context.scratch(slots * step, np.float64), context.scratch(slots * step, np.int64))
    return [Samples(first, min(step, samples - first), samples) for first in range(0, samples, step)], winners


def relaxed(
    logits: Any, call: Call, noisy: bool, out: Any, bad: Any, context: LaunchContext, aliased: bool = False
) -> None:
    """Softmax of the rows with noise, or without; `aliased` if `out` shares memory with logits."""
    count, columns = logits.shape
    if columns <= LANES:
        tiles, noise = _tiles(count, _width(columns)), np.uint8(noisy)
        _launch(
            _relaxed_short, "relax_short", tiles, context, logits, call, noise, out, bad, layout=_layout(logits, out)
        )
        return
    blocks = _blocks(columns)
    nodes = context.scratch((6, count * blocks), np.float64)
    stored = np.uint8(context.name in ("float32", "float64") and not aliased)
    each, layout = (logits, call, np.uint8(noisy), nodes, Weights(stored, out)), _layout(logits, out)
    _launch(_relaxed, "weigh_blocks", count * blocks, context, *each, layout=layout)
    _launch(_relaxed, "normalise", count, context, columns, call, nodes, bad)
    _launch(_relaxed, "divide", _groups(count, columns), context, *each, layout=layout)


def vjp(y: Any, cotangent: Any, call: Call, out: Any, in_temperature: Any, context: LaunchContext) -> None:
    """Gradients of a relaxed sample: in the logits into `out`, in each row's temperature where that has elements."""
    count, columns = y.shape
    wanted, layout = np.uint8(in_temperature.size > 0), _layout(y, cotangent, out)
    if columns <= LANES:
        arguments = y, cotangent, call, wanted, out, in_temperature
        _launch(_relaxed_short, "vjp_short", _tiles(count, _width(columns)), context, *arguments, layout=layout)
        return
    blocks = _blocks(columns)
    nodes, means = context.scratch((3, count * blocks), np.float64), context.scratch(count, np.float64)
    _launch(_vjp, "products", count * blocks, context, y, cotangent, nodes, layout=layout)
    _launch(_vjp, "row_means", count, context, columns, nodes, means)
    _launch(_vjp, "gradients", count * blocks, context, y, cotangent, call, means, wanted, nodes, out, layout=layout)
    if wanted:
        _launch(_vjp, "row_slopes", count, context, columns, nodes, call, in_temperature)


def conditional(
    logits: Any, call: Call, index: Any, logsumexp: Any, out: Any, bad: Any, context: LaunchContext
) -> None:
    """Perturbed logits given the largest's index; `logsumexp` is each row's, in float64."""
    each, layout = (logits, call, index, logsumexp, out, bad), _layout(logits, out)
    _launch(_conditional, "conditional", _groups(*logits.shape), context, *each, layout=layout)


def one_hot(indices: Any, first_row: int, only: Any, out: Any, context: LaunchContext) -> None:
    """One-hot rows, of those in `only` if it has elements."""
    rows, columns = out.shape
    _launch(
        _small, "one_hot", -(-rows * columns // THREADS), context, indices, first_row, only, out, layout=_layout(out)
    )


def greedy(call: Call, only: Any, context: LaunchContext) -> None:
    """Which rows of the whole call have temperature 0."""
    _launch(_small, "greedy", -(-only.size // THREADS), context, call, only.size, only)


def widen(row: Any, out: Any, context: LaunchContext) -> None:
    """The first row of an array in float64."""
    _launch(_small, "widen", -(-out.size // THREADS), context, row, out)


def advance(counter: Any, context: LaunchContext) -> None:
    """Go on to the next draw."""
    _launch(_small, "advance", 1, context, counter)


def total(values: Any, out: Any, context: LaunchContext) -> None:
    """out[0] = the sum of values."""
    _launch(_small, "total", 1, context, values, out)


def truncated(
    logits: Any, call: Call, limits: Limits, method: str, samples: int, results: Results, context: LaunchContext
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
        context.scratch(slots, np.int64),
        context.scratch((2, slots if summed or alone else 0), np.float64),
        context.scratch(levels * count * HISTOGRAM, np.uint64),
        context.scratch(count, np.float64),
        context.scratch(count, np.int64),
        context.scratch(count, np.float64),
    )
    each = logits, call, limits
    _launch(_truncation, "survey", slots, context, *each, np.uint8(summed), cut, layout=layout)
    chunks = _blocks(columns) // _SPREAD_RUN + 1
    threads = THREADS if columns <= LIST else wide_threads(context.name)
    for level in range(levels + 1):
        some = chunks if level < levels else 1
        narrowing = *each, np.uint8(summed), level, some, cut
        _launch(_truncation, "find_cut", count * some, context, *narrowing, layout=layout, threads=threads)
    race = method == "gumbel_max"
    needed = not race or summed or results.log_prob.size > 0
    kept = context.scratch((2, slots if needed else 0), np.float64)
    if needed:
        _launch(_truncated, "kept_nodes", slots, context, *each, cut, kept, layout=layout)
    parts = [Samples(0, samples, samples)]
    winners = Entries(context.scratch(0, np.float64), context.scratch(0, np.int64))
    if race:
        parts, winners = _parts(samples, slots, context)
    for part in parts:
        if race:
            _launch(_truncated, "kept_winners", slots * part.count, context, *each, part, cut, winners, layout=layout)
        choosing = *each, part, cut, kept, winners, results
        _launch(_truncated, "choose_kept", count * part.count, context, *choosing, layout=layout)


def logsumexp(logits: Any, call: Call, results: Results, context: LaunchContext) -> None:
    """Logsumexp of rows, NaN where they are bad; of one of only -inf, -inf."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    if columns <= LANES:
        width = _width(columns)
        call = call._replace(least=width + 1)
        _launch(_short, "sample_short", _tiles(count, width), context, logits, call, 0, results, layout=layout)
        return
    nodes = context.scratch((2, count * blocks), np.float64)
    _launch(_categorical, "block_nodes", count * blocks, context, logits, call, nodes, layout=layout)
    each = (logits, call, nodes, results.logsumexp, results.bad)
    _launch(_densities, "row_sums", count, context, *each, layout=layout)


def given(logits: Any, call: Call, each: int, index: Any, out: Any, bad: Any, context: LaunchContext) -> None:
    """Log-probabilities of `each` categories of rows, NaN where they or their rows are bad."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    nodes = context.scratch((2, count * blocks), np.float64)
    _launch(_categorical, "block_nodes", count * blocks, context, logits, call, nodes, layout=layout)
    items = count * max(1, _blocks(each))
    _launch(_densities, "given", items, context, logits, call, each, index, nodes, out, bad, layout=layout)


def entropy(logits: Any, call: Call, drawn: bool, out: Any, bad: Any, context: LaunchContext) -> None:
    """Entropy of rows into the flat `out`, NaN where they are bad; `drawn` if none has temperature 0."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    each = (logits, call, context.scratch((3, count * blocks), np.float64), out, bad)
    _launch(_densities, "entropy_blocks", count * blocks, context, *each, layout=layout)
    if blocks > 1 or not drawn:
        _launch(_densities, "entropy_rows", count, context, *each, layout=layout)


def _roots_of(logits: Any, call: Call, results: Results, context: LaunchContext) -> Roots:
    """The roots of rows; logsumexp and bad rows into `results`."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    nodes = context.scratch((2, count * blocks), np.float64)
    roots = Roots(context.scratch((2, count), np.float64), context.scratch(count, np.int64))
    _launch(_categorical, "block_nodes", count * blocks, context, logits, call, nodes, layout=layout)
    _launch(_roots, "row_nodes", count, context, logits, call, blocks, nodes, roots, results, layout=layout)
    return roots


def tables(rows: int, columns: int, context: LaunchContext, cells: Any = None, heads: Any = None) -> Tables:
    """Room for the tables of some rows."""
    blocks = _blocks(columns)
    return Tables(
        first=0,
        rows=rows,
        blocks=blocks,
        columns=columns,
        cells=context.scratch(rows * columns, np.uint64) if cells is None else cells,
        lists=context.scratch((2, rows * columns), np.int64),
        plan=context.scratch((FIELDS, rows * blocks), np.int64),
        heads=context.scratch((HEAD, rows), np.int64) if heads is None else heads,
    )


def _make_tables(logits: Any, call: Call, roots: Roots, made: Tables, context: LaunchContext) -> None:
    rows, items = made.rows, made.rows * made.blocks
    _launch(_table, "weigh_columns", items, context, logits, call, roots, made, layout=_layout(logits))
    _launch(_table, "begin_tables", rows, context, roots.fixed, made)
    _launch(_table, "classify", items, context, roots.fixed, made)
    _launch(_table, "end_classes", rows, context, roots.fixed, made)
    _launch(_table, "enlist", items, context, roots.fixed, made)
    _launch(_table, "pair", items, context, roots.fixed, made)


def table(logits: Any, call: Call, results: Results, made: Tables, context: LaunchContext) -> None:
    """The table of a row."""
    _make_tables(logits, call, _roots_of(logits, call, results, context), made, context)


def draw_table(call: Call, samples: int, fixed: Any, made: Tables, indices: Any, context: LaunchContext) -> None:
    """Draws of some rows from their tables."""
    _launch(_table, "draw_tabled", made.rows * _blocks(samples), context, call, samples, fixed, made, indices)


def tabled(logits: Any, call: Call, samples: int, results: Results, context: LaunchContext) -> None:
    """Samples of rows from a table of each, of as many rows at a time as there is room for."""
    count, columns = logits.shape
    none = context.scratch(0, np.int64), context.scratch(0, results.log_prob.dtype)
    roots = _roots_of(logits, call, results._replace(indices=none[0], log_prob=none[1]), context)
    step = min(count, max(1, _TABLED // columns))
    room = tables(step, columns, context)
    for first in range(0, count, step):
        made = room._replace(first=first, rows=min(step, count - first))
        _make_tables(logits, call, roots, made, context)
        draw_table(call, samples, roots.fixed, made, results.indices, context)
        if results.log_prob.size > 0:
            arguments = logits, call, samples, roots, made, results
            _launch(_table, "look_up", made.rows * _blocks(samples), context, *arguments, layout=_layout(logits))


def multinomial(logits: Any, call: Call, trials: Trials, results: Results, out: Any, context: LaunchContext) -> None:
    """Counts of the draws of each row."""
    count, columns = logits.shape
    blocks = _blocks(columns)
    leaves = 1 << (blocks - 1).bit_length()
    roots = _roots_of(logits, call, results, context)
    many = blocks > 1
    masses = context.scratch(count * blocks if many else 0, np.float64)
    trees = Trees(blocks, leaves, masses, context.scratch(2 * count * leaves if many else 0, np.int64))
    if many:
        items, layout = count * blocks, _layout(logits)
        _launch(_multinomial, "block_masses", items, context, logits, call, roots, trees, layout=layout)
        _launch(_multinomial, "split_rows", count, context, count, call, trials, roots, trees)
    arguments = logits, call, trials, roots, trees, out, results.bad
    _launch(_multinomial, "count", count * blocks, context, *arguments, layout=_layout(logits, out))
