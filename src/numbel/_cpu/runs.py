"""Elements between memory and workspaces of float32 or float64, whatever the format in memory.

The kernels that use this compile once for float32, float16 and bfloat16 together: `kind` is a scalar of the type of the
arithmetic, the job's `element` tells the format in memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, uint64

from .._jit import njit
from .._scalar.relaxed import below
from .memory import LINE, element_size, load, rounded, spacing, store, stream, zero
from .scratch import address_of

_INF = math.inf

#: Formats in memory: that of the arithmetic, float16, bfloat16.
SAME, HALF, BRAIN = range(3)
ELEMENTS = {"float32": SAME, "float64": SAME, "float16": HALF, "bfloat16": BRAIN}
#: The scalars that stand for the half formats (`memory`).
_HALF, _BRAIN = np.int16(0), np.uint16(0)


@njit
def _read(form, address, stride, size, count, to):
    if stride == size:
        for i in range(uint64(count)):
            to[i] = load(form, address, int64(i))
    else:
        for i in range(uint64(count)):
            to[i] = load(form, address + int64(i) * stride, int64(0))


@njit
def read_run(kind, element, address, stride, size, count, to):
    """Widen `count` elements, `stride` bytes apart and of `size` bytes each."""
    if element == HALF:
        _read(_HALF, address, stride, size, count, to)
    elif element == BRAIN:
        _read(_BRAIN, address, stride, size, count, to)
    else:
        _read(kind, address, stride, size, count, to)


@njit
def read_one(kind, element, address):
    """One element, widened."""
    if element == HALF:
        return type(kind)(load(_HALF, address, int64(0)))
    if element == BRAIN:
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
def _write(form, streams, address, stride, size, count, source, first, divisor):
    if stride == size and streams != 0:
        stream_run(form, address, count, source, first, divisor)
    elif stride == size:
        for i in range(uint64(count)):
            x = source[uint64(first) + i]
            store(form, address, int64(i), x if divisor is None else x / divisor)
    else:
        for i in range(uint64(count)):
            x = source[uint64(first) + i]
            store(form, address + int64(i) * stride, int64(0), x if divisor is None else x / divisor)


@njit
def write_run(kind, element, streams, address, stride, size, count, source, first, divisor):
    """Write source[first + i] / divisor, or without a divisor, rounded; past the caches if `streams`."""
    if element == HALF:
        _write(_HALF, streams, address, stride, size, count, source, first, divisor)
    elif element == BRAIN:
        _write(_BRAIN, streams, address, stride, size, count, source, first, divisor)
    else:
        _write(kind, streams, address, stride, size, count, source, first, divisor)


@njit
def _fill(form, value, address, stride, count):
    for i in range(count):
        store(form, address + int64(i) * stride, int64(0), value)


@njit
def fill_run(kind, element, address, stride, count, value):
    """Write one value everywhere."""
    if element == HALF:
        _fill(_HALF, np.float32(value), address, stride, count)
    elif element == BRAIN:
        _fill(_BRAIN, np.float32(value), address, stride, count)
    else:
        _fill(kind, type(kind)(value), address, stride, count)


@njit
def _below(form, wide, top):
    unit, smallest, most = spacing(form)
    largest = float64(rounded(form, type(wide)(top)))
    return below(largest, unit, smallest) if abs(largest) < _INF else most


@njit
def below_top(kind, element, top):
    """What the others of a row must stay below, so that they are rounded to less than `top` is."""
    if element == HALF:
        return _below(_HALF, np.float32(0), top)
    if element == BRAIN:
        return _below(_BRAIN, np.float32(0), top)
    return _below(kind, kind, top)
