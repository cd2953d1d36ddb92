"""Short rows, many at a time, transposed, so that SIMD lanes are rows: x[column * width + i] of row first + i."""

from __future__ import annotations

import numpy as np
from numba import int64, uint64

from .._jit import njit
from .memory import TILE, element_size, load, store, transpose_in, transpose_out, zero
from .parameters import BRAIN, HALF
from .records import row_offset
from .scratch import address_of


@njit
def read_tile(kind, source, first, rows, width, x):
    """Rows first .. first + rows - 1 of an array, widened; 0 beyond the last."""
    if source.format == HALF:
        read_tile_of(np.int16(0), source, first, rows, width, x)
    elif source.format == BRAIN:
        read_tile_of(np.uint16(0), source, first, rows, width, x)
    else:
        read_tile_of(kind, source, first, rows, width, x)


@njit
def write_tile(kind, target, first, rows, width, x):
    """The reverse."""
    if target.format == HALF:
        write_tile_of(np.int16(0), target, first, rows, width, x)
    elif target.format == BRAIN:
        write_tile_of(np.uint16(0), target, first, rows, width, x)
    else:
        write_tile_of(kind, target, first, rows, width, x)


@njit
def read_tile_of(kind, source, first, rows, width, x):
    """`read_tile`, `kind` being the format in memory."""
    base, row_stride, axes, column_stride = source.data, source.row_stride, source.axes, source.column_stride
    columns = source.columns
    done = int64(0)
    if axes == 0 and column_stride == element_size(kind):
        done = columns // TILE * TILE
        address, at, size = base + first * row_stride, address_of(x), element_size(zero(kind))
        for i in range(0, rows // TILE * TILE, TILE):
            for c in range(0, done, TILE):
                at_row = address + i * row_stride + c * column_stride
                transpose_in(kind, at_row, row_stride, at + (c * int64(width) + i) * size, int64(width) * size)
        for i in range(rows // TILE * TILE, rows):
            for c in range(done):
                x[uint64(c) * width + uint64(i)] = load(kind, address + i * row_stride, int64(c))
    for c in range(done, columns):
        start, column = uint64(c) * width, base + int64(c) * column_stride
        if axes == 0:
            for i in range(uint64(rows)):
                x[start + i] = load(kind, column + (first + int64(i)) * row_stride, int64(0))
        else:
            for i in range(uint64(rows)):
                x[start + i] = load(kind, column + row_offset(source, first + int64(i)), int64(0))
    for c in range(columns):
        for i in range(uint64(rows), width):
            x[uint64(c) * width + i] = 0


@njit
def write_tile_of(kind, target, first, rows, width, x):
    """`write_tile`, `kind` being the format in memory."""
    base, row_stride, axes, column_stride = target.data, target.row_stride, target.axes, target.column_stride
    columns = target.columns
    done = int64(0)
    if axes == 0 and column_stride == element_size(kind):
        done = columns // TILE * TILE
        address, at, size = base + first * row_stride, address_of(x), element_size(zero(kind))
        for i in range(0, rows // TILE * TILE, TILE):
            for c in range(0, done, TILE):
                at_row = address + i * row_stride + c * column_stride
                transpose_out(kind, at + (c * int64(width) + i) * size, int64(width) * size, at_row, row_stride)
        for i in range(rows // TILE * TILE, rows):
            for c in range(done):
                store(kind, address + i * row_stride, int64(c), x[uint64(c) * width + uint64(i)])
    for c in range(done, columns):
        start, column = uint64(c) * width, base + int64(c) * column_stride
        if axes == 0:
            for i in range(uint64(rows)):
                store(kind, column + (first + int64(i)) * row_stride, int64(0), x[start + i])
        else:
            for i in range(uint64(rows)):
                store(kind, column + row_offset(target, first + int64(i)), int64(0), x[start + i])
