"""Elements between memory and workspaces of float32 or float64, whatever the format in memory.

The kernels that use this compile once for float32, float16 and bfloat16 together: `kind` is a scalar of the type of the
arithmetic, `format` tells that in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float64, int64, uint64

from .._jit import inlined, njit
from .._scalar.limits import BLOCK
from .._scalar.relaxed import below
from .memory import LINE, element_size, load, rounded, spacing, store, stream, zero
from .parameters import BRAIN, HALF
from .scratch import address_of

_INF = math.inf

#: The scalars that stand for the half formats (`memory`).
_HALF, _BRAIN = np.int16(0), np.uint16(0)


class Run(NamedTuple):
    """Neighbouring columns of a row in memory."""

    format: int
    address: int
    stride: int  # bytes
    item_size: int  # bytes
    columns: int


@inlined
def block_run(rows, row_address, block):
    """A block of the row that begins at an address."""
    first = block * BLOCK
    at = row_address + first * rows.column_stride
    return Run(rows.format, at, rows.column_stride, rows.item_size, min(rows.columns - first, int64(BLOCK)))


@njit
def _read(form, run, to):
    if run.stride == run.item_size:
        for i in range(uint64(run.columns)):
            to[i] = load(form, run.address, int64(i))
    else:
        for i in range(uint64(run.columns)):
            to[i] = load(form, run.address + int64(i) * run.stride, int64(0))


@njit
def read_run(kind, run, to):
    """Widen a run's elements."""
    if run.format == HALF:
        _read(_HALF, run, to)
    elif run.format == BRAIN:
        _read(_BRAIN, run, to)
    else:
        _read(kind, run, to)


@njit
def read_one(kind, form, address):
    """One element of a format in memory, widened."""
    if form == HALF:
        return type(kind)(load(_HALF, address, int64(0)))
    if form == BRAIN:
        return type(kind)(load(_BRAIN, address, int64(0)))
    return load(kind, address, int64(0))


@njit
def stream_run(kind, address, count, source, first, divisor):
    """Write source[first + i] / divisor (or without one), rounded, to contiguous memory past the caches.

    An ordinary store reads the line first: a core of an Intel server writes 2.4 G/s of float32, and 6.0 in this way.
    """
    size = element_size(kind)
    lead = min(count, (-address & int64(LINE - 1)) // size)
    step = int64(LINE) // size
    lines = (count - lead) // step if address & (size - 1) == 0 else int64(0)
    end = lead + lines * step
    for i in range(uint64(lead)):
        x = source[uint64(first) + i]
        store(kind, address, int64(i), x if divisor is None else x / divisor)
    wide = element_size(zero(kind))
    at = address_of(source) + (first + lead) * wide
    for line in range(lines):
        stream(kind, address + lead * size + line * LINE, at + line * step * wide, divisor)
    for i in range(uint64(end), uint64(count)):
        x = source[uint64(first) + i]
        store(kind, address, int64(i), x if divisor is None else x / divisor)


@njit
def _write(form, run, nontemporal, source, first, divisor):
    if run.stride == run.item_size and nontemporal != 0:
        stream_run(form, run.address, run.columns, source, first, divisor)
    elif run.stride == run.item_size:
        for i in range(uint64(run.columns)):
            x = source[uint64(first) + i]
            store(form, run.address, int64(i), x if divisor is None else x / divisor)
    else:
        for i in range(uint64(run.columns)):
            x = source[uint64(first) + i]
            store(form, run.address + int64(i) * run.stride, int64(0), x if divisor is None else x / divisor)


@njit
def write_run(kind, run, nontemporal, source, first, divisor):
    """Write source[first + i] / divisor, or without a divisor, rounded; past the caches if `nontemporal`."""
    if run.format == HALF:
        _write(_HALF, run, nontemporal, source, first, divisor)
    elif run.format == BRAIN:
        _write(_BRAIN, run, nontemporal, source, first, divisor)
    else:
        _write(kind, run, nontemporal, source, first, divisor)


@njit
def _fill(form, value, run):
    for i in range(run.columns):
        store(form, run.address + int64(i) * run.stride, int64(0), value)


@njit
def fill_run(kind, run, value):
    """Write one value everywhere."""
    if run.format == HALF:
        _fill(_HALF, np.float32(value), run)
    elif run.format == BRAIN:
        _fill(_BRAIN, np.float32(value), run)
    else:
        _fill(kind, type(kind)(value), run)


@njit
def _below(form, wide, top):
    unit, smallest, most = spacing(form)
    largest = float64(rounded(form, type(wide)(top)))
    return below(largest, unit, smallest) if abs(largest) < _INF else most


@njit
def below_top(kind, form, top):
    """What the others of a row must stay below, so that they are rounded to less than `top` is."""
    if form == HALF:
        return _below(_HALF, np.float32(0), top)
    if form == BRAIN:
        return _below(_BRAIN, np.float32(0), top)
    return _below(kind, kind, top)
