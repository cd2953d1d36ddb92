"""Short rows, many at a time, transposed, so that SIMD lanes are rows: x[column * width + i] of row first + i."""

from __future__ import annotations

from numba import int64, uint64

from .._jit import njit
from .job import out_address, row_address
from .memory import TILE, element_size, load, store, transpose_in, transpose_out, zero


@njit
def read_tile(kind, j, first, rows, width, x):
    """Logits of rows first .. first + rows - 1; 0 beyond the last."""
    done = int64(0)
    size = element_size(zero(kind))
    if j.dims == 0 and j.column_stride == j.item_size:
        done = j.columns // TILE * TILE
        address, at = row_address(j, first), int64(x.ctypes.data)
        for c in range(0, done, TILE):
            for i in range(0, rows // TILE * TILE, TILE):
                source = address + i * j.row_stride + c * j.item_size
                transpose_in(kind, source, j.row_stride, at + (c * int64(width) + i) * size, int64(width) * size)
        for i in range(rows // TILE * TILE, rows):
            for c in range(done):
                x[uint64(c) * width + uint64(i)] = load(kind, address + i * j.row_stride, int64(c))
    for c in range(done, j.columns):
        start = uint64(c) * width
        if j.dims == 0:
            address = row_address(j, first) + int64(c) * j.column_stride
            for i in range(uint64(rows)):
                x[start + i] = load(kind, address + int64(i) * j.row_stride, int64(0))
        else:
            for i in range(uint64(rows)):
                x[start + i] = load(kind, row_address(j, first + int64(i)) + int64(c) * j.column_stride, int64(0))
    for c in range(j.columns):
        for i in range(uint64(rows), width):
            x[uint64(c) * width + i] = zero(kind)


@njit
def write_tile(kind, j, first, rows, width, x):
    """The reverse, into the job's `out`."""
    done = int64(0)
    size = element_size(zero(kind))
    if j.out_dims == 0 and j.out_column_stride == j.item_size:
        done = j.columns // TILE * TILE
        address, at = out_address(j, first), int64(x.ctypes.data)
        for i in range(0, rows // TILE * TILE, TILE):
            for c in range(0, done, TILE):
                target = address + i * j.out_row_stride + c * j.item_size
                transpose_out(kind, at + (c * int64(width) + i) * size, int64(width) * size, target, j.out_row_stride)
        for i in range(rows // TILE * TILE, rows):
            for c in range(done):
                store(kind, address + i * j.out_row_stride, int64(c), x[uint64(c) * width + uint64(i)])
    for c in range(done, j.columns):
        start = uint64(c) * width
        if j.out_dims == 0:
            address = out_address(j, first) + int64(c) * j.out_column_stride
            for i in range(uint64(rows)):
                store(kind, address + int64(i) * j.out_row_stride, int64(0), x[start + i])
        else:
            for i in range(uint64(rows)):
                store(kind, out_address(j, first + int64(i)) + int64(c) * j.out_column_stride, int64(0), x[start + i])
