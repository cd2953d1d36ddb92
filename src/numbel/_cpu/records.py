"""How a kernel reads its parameters: the records of `parameters`, and what their fields mean for a row or an item."""

from __future__ import annotations

from typing import Any

from numba import float64, from_dtype, int64, uint8
from numba.core import types
from numba.extending import intrinsic

from .._jit import inlined, njit
from .memory import load
from .parameters import BAD_ROW, NEXT_ITEM, NEXT_SCRATCH, SCRATCH_NEEDED, WORK_WORDS, Work, layout


def reader(parameters: type, words: int = 0) -> Any:
    """An intrinsic: the record of a class of parameters that lies so many words behind an address."""
    record: Any = from_dtype(layout(parameters))

    @intrinsic
    def record_at(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = builder.add(args[0], context.get_constant(types.int64, 8 * words))
            return builder.inttoptr(at, context.get_value_type(record))

        return record(types.int64), codegen

    return record_at


#: The shared words of a call.
work_at = reader(Work)


def parameters_at(parameters: type) -> Any:
    """An intrinsic: the parameters of a call, which lie behind its shared words."""
    return reader(parameters, WORK_WORDS)


@intrinsic
def address_of_record(typingctx: Any, record: Any) -> Any:
    """The address of a record, for atomics."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], context.get_value_type(types.int64))

    return types.int64(record), codegen


@inlined
def next_item_address(work):
    """Where the next item is kept."""
    return address_of_record(work) + 8 * NEXT_ITEM


@inlined
def bad_row_address(work):
    """Where the smallest bad row is kept."""
    return address_of_record(work) + 8 * BAD_ROW


@inlined
def next_scratch_address(work):
    """Where the address of the next worker's scratch is kept."""
    return address_of_record(work) + 8 * NEXT_SCRATCH


@inlined
def scratch_needed_address(work):
    """Where the bytes are kept that a worker lacked."""
    return address_of_record(work) + 8 * SCRATCH_NEEDED


@inlined
def row_address(rows, row):
    """Byte address of a row's first column."""
    return rows.data + row_offset(rows, row)


@inlined
def row_offset(rows, row):
    """Bytes from the first row to this one."""
    return row * rows.row_stride if rows.axes == 0 else _unmerged_offset(rows, row)


@njit
def _unmerged_offset(rows, row):
    offset = int64(0)
    for axis in range(rows.axes - 1, -1, -1):
        length = load(int64(0), rows.geometry, int64(2 * axis))
        offset += (row % length) * load(int64(0), rows.geometry, int64(2 * axis + 1))
        row //= length
    return offset


@inlined
def row_id(stream, row):
    """What stands for the row in the address of its random bits."""
    return load(int64(0), stream.row_ids, int64(row)) if stream.row_ids != 0 else int64(row)


@inlined
def row_temperature(temperatures, row):
    """The row's temperature; 0 asks for its argmax."""
    return load(float64(0), temperatures.each, int64(row)) if temperatures.each != 0 else temperatures.common


@inlined
def row_limits(limits, row):
    """(columns that the row keeps, mass that it keeps of 1, least probability that it keeps of its largest)."""
    return (
        load(int64(0), limits.top_k.values + int64(row) * limits.top_k.stride, int64(0)),
        load(float64(0), limits.top_p.values + int64(row) * limits.top_p.stride, int64(0)),
        load(float64(0), limits.min_p.values + int64(row) * limits.min_p.stride, int64(0)),
    )


@inlined
def row_wanted(row_mask, row):
    """Whether the mask, if there is one, lets the row be read."""
    return row_mask == 0 or load(uint8(0), row_mask, int64(row)) != uint8(0)


@inlined
def row_and_segment(split, rows, item):
    """What an item stands for: the segments of `row_interleave` rows lie side by side, row by row."""
    team = int64(item) // (split.row_interleave * split.segments)
    rest = int64(item) - team * split.row_interleave * split.segments
    width = min(split.row_interleave, rows - team * split.row_interleave)
    segment = rest // width
    return team * split.row_interleave + rest - segment * width, segment
