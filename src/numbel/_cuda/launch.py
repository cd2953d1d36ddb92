"""Launches: the kernels of one call, their grids and scratch. Arrays are device arrays of rows and columns.

Half-precision arrays come as the uint16 of their bits. `first_row` is the row of the whole call where an array starts;
what each row has (temperatures, identities, mask, results) covers the whole call. Options that are not given, and
outputs that are not wanted, have no elements.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda

from .._scalar.blocks import BLOCK
from . import categorical as _categorical
from . import conditional as _conditional
from . import gumbel_max as _gumbel_max
from . import noise as _noise
from . import relaxed as _relaxed
from . import vjp as _vjp
from .forms import THREADS

MODULES = (_noise, _categorical, _gumbel_max, _relaxed, _vjp, _conditional)
#: CUDA blocks of a launch at most: kernels stride over what is left.
_GRID = 1 << 20
#: (row, sample, block) whose winners are kept at a time by gumbel_max: 64 MB.
_WINNERS = 1 << 22


class Rows(NamedTuple):
    """The rows of a call: the logits' format, where they start, and what each row of the whole call has."""

    name: str
    first_row: int
    temperatures: Any
    ids: Any
    mask: Any
    stream: Any = 0


@functools.cache
def _kernel(module: Any, form: str, name: str) -> Any:
    # as the tests compile it: link-time optimisation would let nvJitLink contract again
    options = {} if config.ENABLE_CUDASIM else {"lto": False, "launch_bounds": THREADS}
    return cuda.jit(**options)(module.kernels(form)[name][0])


def _launch(module: Any, form: str, name: str, items: int, stream: Any, *arguments: Any) -> None:
    _kernel(module, form, name)[max(1, min(items, _GRID)), THREADS, stream](*arguments)


def _blocks(columns: int) -> int:
    return -(-columns // BLOCK)


def _scratch(shape: Any, dtype: Any = np.float64, stream: Any = 0) -> Any:
    return cuda.device_array(shape, dtype, stream=stream)


def gumbel(name: str, out: Any, first_row: int, seed: int, draw: int, loc: float, scale: float, stream: Any) -> None:
    """Noise, scale * G + loc."""
    rows, columns = out.shape
    items = -(-rows * -(-columns // 4) // THREADS)
    draws = np.uint64(seed), np.uint64(draw)
    _launch(_noise, name, "gumbel", items, stream, out, first_row, loc, scale, *draws)


def categorical(
    logits: Any, rows: Rows, method: str, seed: int, draw: int, samples: int, outputs: tuple[Any, Any, Any], bad: Any
) -> None:
    """Samples of rows: indices, log_prob and logsumexp into `outputs`; bad[0] is lowered to the first bad row.

    No samples write nothing: who wants logsumexp alone asks for one.
    """
    name, first_row, temperatures, ids, mask, stream = rows
    count, columns = logits.shape
    if count == 0 or samples == 0:
        return
    blocks = _blocks(columns)
    draws = np.uint64(seed), np.uint64(draw)
    summed = method == "grouped" or outputs[1].size > 0 or outputs[2].size > 0
    nodes = _scratch((2, count * blocks if summed else 0), stream=stream)
    if summed:
        _launch(_categorical, name, "block_nodes", count * blocks, stream, logits, first_row, temperatures, mask, nodes)
    if method == "grouped":
        _launch(
            _categorical, name, "choose", count * samples, stream,
            logits, first_row, temperatures, ids, mask, *draws, samples, nodes, *outputs, bad,
        )  # fmt: skip
        return
    step = max(1, _WINNERS // (count * blocks))
    for first in range(0, samples, step):
        some = min(step, samples - first)
        keys = _scratch(count * some * blocks, stream=stream)
        at = _scratch(count * some * blocks, np.int64, stream)
        _launch(
            _gumbel_max, name, "block_winners", count * some * blocks, stream,
            logits, first_row, temperatures, ids, mask, *draws, first, some, keys, at,
        )  # fmt: skip
        _launch(
            _gumbel_max, name, "choose_largest", count * some, stream,
            logits, first_row, temperatures, mask, first, some, samples, keys, at, nodes, *outputs, bad,
        )  # fmt: skip


def relaxed(logits: Any, rows: Rows, draw: tuple[int, int] | None, out: Any, bad: Any, aliased: bool = False) -> None:
    """Softmax of the rows with the noise of a draw, or none; `aliased` if `out` shares memory with logits."""
    name, first_row, temperatures, ids, mask, stream = rows
    count, columns = logits.shape
    blocks = _blocks(columns)
    nodes = _scratch((6, count * blocks), stream=stream)
    stored = np.uint8(name in ("float32", "float64") and not aliased)
    noisy, draws = np.uint8(draw is not None), tuple(np.uint64(part) for part in draw or (0, 0))
    each = (logits, first_row, temperatures, ids, mask, noisy, *draws, stored, nodes, out)
    _launch(_relaxed, name, "weigh_blocks", count * blocks, stream, *each)
    _launch(_relaxed, name, "normalise", count, stream, first_row, columns, temperatures, mask, nodes, bad)
    _launch(_relaxed, name, "divide", -(-count * -(-columns // 4) // THREADS), stream, *each)


def vjp(y: Any, cotangent: Any, rows: Rows, out: Any, in_temperature: Any) -> None:
    """Gradients of a relaxed sample: in the logits into `out`, in each row's temperature where that has elements."""
    name, first_row, temperatures, _, _, stream = rows
    count, columns = y.shape
    blocks = _blocks(columns)
    nodes, means = _scratch((3, count * blocks), stream=stream), _scratch(count, stream=stream)
    wanted = np.uint8(in_temperature.size > 0)
    _launch(_vjp, name, "products", count * blocks, stream, y, cotangent, nodes)
    _launch(_vjp, name, "row_means", count, stream, columns, nodes, means)
    _launch(
        _vjp, name, "gradients", count * blocks, stream,
        y, cotangent, first_row, temperatures, means, wanted, nodes, out,
    )  # fmt: skip
    if wanted:
        _launch(_vjp, name, "row_slopes", count, stream, columns, nodes, first_row, in_temperature)


def conditional(logits: Any, rows: Rows, index: Any, sums: Any, draw: tuple[int, int], out: Any, bad: Any) -> None:
    """Perturbed logits given the largest's index; `sums` is the float64 logsumexp of each row."""
    name, first_row, temperatures, ids, mask, stream = rows
    count, columns = logits.shape
    draws = tuple(np.uint64(part) for part in draw)
    _launch(
        _conditional, name, "conditional", -(-count * -(-columns // 4) // THREADS), stream,
        logits, first_row, temperatures, ids, mask, index, sums, *draws, out, bad,
    )  # fmt: skip
