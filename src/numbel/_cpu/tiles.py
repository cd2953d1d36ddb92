"""Short rows, many at a time, transposed, so that SIMD lanes are rows: x[column * width + i] of row first + i."""

from __future__ import annotations

import numpy as np
from numba import int64, uint64

from .._jit import njit
from .job import offset
from .memory import TILE, element_size, load, store, transpose_in, transpose_out, zero
from .runs import BRAIN, HALF
from .scratch import address_of


@njit
def read_logits(kind, j, first, rows, width, x):
    """Rows first .. first + rows - 1 of the job's array, widened; 0 beyond the last."""
    place = (j.array, j.row_stride, j.dims, j.geometry, j.column_stride, j.columns)
    _read_any(kind, j.element, place, first, rows, width, x)


@njit
def read_cotangent(kind, j, first, rows, width, x):
    """The same of the job's `cotangent`."""
    layout = (j.cotangent_row_stride, j.cotangent_dims, j.cotangent_geometry, j.cotangent_column_stride)
    place = (j.cotangent, *layout, j.columns)
    _read_any(kind, j.element, place, first, rows, width, x)


@njit
def write_out(kind, j, first, rows, width, x):
    """The reverse, into the job's `out`."""
    place = (j.out, j.out_row_stride, j.out_dims, j.out_geometry, j.out_column_stride, j.columns)
    if j.element == HALF:
        _write(np.int16(0), place, first, rows, width, x)
    elif j.element == BRAIN:
        _write(np.uint16(0), place, first, rows, width, x)
    else:
        _write(kind, place, first, rows, width, x)


@njit
def read_form(kind, j, first, rows, width, x):
    """`read_logits`, `kind` being the format in memory."""
    place = (j.array, j.row_stride, j.dims, j.geometry, j.column_stride, j.columns)
    _read(kind, place, first, rows, width, x)


@njit
def write_noise(kind, j, first, rows, width, x):
    """The reverse, into the job's array; `kind` is the format in memory."""
    place = (j.array, j.row_stride, j.dims, j.geometry, j.column_stride, j.columns)
    _write(kind, place, first, rows, width, x)


@njit
def _read_any(kind, element, place, first, rows, width, x):
    if element == HALF:
        _read(np.int16(0), place, first, rows, width, x)
    elif element == BRAIN:
        _read(np.uint16(0), place, first, rows, width, x)
    else:
        _read(kind, place, first, rows, width, x)


@njit
def _read(kind, place, first, rows, width, x):
    base, row_stride, dims, geometry, column_stride, columns = place
    done = int64(0)
    if dims == 0 and column_stride == element_size(kind):
        done = columns // TILE * TILE
        address, at, size = base + first * row_stride, address_of(x), element_size(zero(kind))
        for i in range(0, rows // TILE * TILE, TILE):
            for c in range(0, done, TILE):
                source = address + i * row_stride + c * column_stride
                transpose_in(kind, source, row_stride, at + (c * int64(width) + i) * size, int64(width) * size)
        for i in range(rows // TILE * TILE, rows):
            for c in range(done):
                x[uint64(c) * width + uint64(i)] = load(kind, address + i * row_stride, int64(c))
    for c in range(done, columns):
        start, column = uint64(c) * width, base + int64(c) * column_stride
        if dims == 0:
            for i in range(uint64(rows)):
                x[start + i] = load(kind, column + (first + int64(i)) * row_stride, int64(0))
        else:
            for i in range(uint64(rows)):
                x[start + i] = load(kind, column + offset(first + int64(i), row_stride, dims, geometry), int64(0))
    for c in range(columns):
        for i in range(uint64(rows), width):
            x[uint64(c) * width + i] = 0


@njit
def _write(kind, place, first, rows, width, x):
    base, row_stride, dims, geometry, column_stride, columns = place
    done = int64(0)
    if dims == 0 and column_stride == element_size(kind):
        done = columns // TILE * TILE
        address, at, size = base + first * row_stride, address_of(x), element_size(zero(kind))
        for i in range(0, rows // TILE * TILE, TILE):
            for c in range(0, done, TILE):
                target = address + i * row_stride + c * column_stride
                transpose_out(kind, at + (c * int64(width) + i) * size, int64(width) * size, target, row_stride)
        for i in range(rows // TILE * TILE, rows):
            for c in range(done):
                store(kind, address + i * row_stride, int64(c), x[uint64(c) * width + uint64(i)])
    for c in range(done, columns):
        start, column = uint64(c) * width, base + int64(c) * column_stride
        if dims == 0:
            for i in range(uint64(rows)):
                store(kind, column + (first + int64(i)) * row_stride, int64(0), x[start + i])
        else:
            for i in range(uint64(rows)):
                store(kind, column + offset(first + int64(i), row_stride, dims, geometry), int64(0), x[start + i])
