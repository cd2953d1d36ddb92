"""What one kernel call is told: a record of addresses and sizes, and how rows are found in it."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, from_dtype, int64, uint8
from numba.core import types
from numba.extending import intrinsic

from .._jit import inlined, njit
from .memory import atomic_add, load

_INTEGERS = (
    "array",  # address of the logits, or of the noise to fill
    "out",  # a second array of the same rows and columns: relaxed samples, or gradients
    "indices",  # int64
    "log_prob",  # widened dtype, or 0
    "logsumexp",  # widened dtype, or 0
    "samples",  # of this call
    "all_samples",  # row length of indices and log_prob
    "columns",
    "column_stride",  # bytes
    "item_size",  # bytes
    "rows",
    "row_stride",  # bytes, where the batch axes merge into one
    "out_column_stride",
    "out_row_stride",
    "segment_blocks",  # a power of two
    "noise",  # whether there is any
    "element",  # format in memory (`runs`)
    "held",  # columns of a row whose weights a worker may keep
    "counter",  # the next item to take
    "end_item",
    "bad_row",  # the smallest bad row
    "next_scratch",  # address of the next worker's part of the scratch (`scratch`)
    "scratch_size",  # bytes for each worker
    "scratch_needed",  # bytes that a worker lacked
    "dims",  # else how many there are
    "geometry",  # and the address of (length, stride in bytes) of each, outermost first
    "out_dims",
    "out_geometry",
    "cotangent",  # and a third
    "cotangent_column_stride",
    "cotangent_row_stride",
    "cotangent_dims",
    "cotangent_geometry",
    "temperatures",  # float64, one a row; or 0: `temperature`
    "row_ids",  # int64, or 0: a row's own position
    "row_mask",  # bool, or 0
    "top_k",  # int64, of a row every `top_k_stride` bytes: 0 where all rows share it
    "top_k_stride",
    "top_p",  # float64
    "top_p_stride",
    "min_p",  # float64
    "min_p_stride",
    "race",  # whether a truncated draw is the argmax of the noise
    "first_sample",
    "segments",  # per row
    "grab",  # items taken at a time
    "group",  # rows whose segments are visited side by side
    "counter_at",  # their addresses, for the atomics
    "bad_row_at",
    "pending",  # segments still to come, per row
    "node_r",  # one a segment
    "node_s",
    "winner_key",  # one a segment and sample
    "winner_r",
    "winner_at",
    "streams",  # whether results go past the caches, which they would only flush
    "phase",  # of work that visits an item twice
    "first_row",  # of this pass: rows before it have no scratch
    "given",  # int64, the category that a row is conditioned on
    "row_node",  # (r, S), float64 each, one a row; or 0
    "masses",  # of the columns of a row, int64 (`table`)
    "entries",
    "plan",
    "row_result",  # float64, one a row: a logsumexp, or a derivative in the temperature; or 0
    "k",  # categories drawn without replacement
    "perturbed",  # float64, k a row
    "threshold",  # float64, one a row
    "keeps_nodes",  # whether blocks' nodes are kept, for the sum of what is left
    "limits",  # ordered int64, one a row: a bound of the threshold, which its segments share; or 0
    "counts",  # lengths of the segments' lists
    "offsets",  # int64, where ragged rows begin and end
    "item_rows",  # int64, the place in `given` of each item's row
    "first_items",  # int64, the first item of each of these rows
    "first_block",  # of a piece of the rows
    "ranges",  # in `plan`: first block in the piece and level of each
    "best_key",  # float64, REALS for each row and sample (`accumulate`)
    "best_at",  # int64, INTEGERS for each
    "next_scratch_at",  # its address, for the atomics
    "scratch_needed_at",  # its address
)

#: First what every common call writes anew (`CommonJob`): of the call, of its shape, of its scratch.
_LAYOUT = [("seed", "u8"), ("draw", "u8"), ("temperature", "f8"), ("loc", "f8"), ("scale", "f8")]
_LAYOUT += [(name, "i8") for name in _INTEGERS]
_CODES = "".join({"i8": "q", "u8": "Q", "f8": "d"}[kind] for _, kind in _LAYOUT)
_PACK = struct.Struct(f"={_CODES}").pack_into
_NAMES = [name for name, _ in _LAYOUT]
_COUNTER, _BAD_ROW, _END = _NAMES.index("counter"), _NAMES.index("bad_row"), _NAMES.index("end_item")
_NEXT_SCRATCH, _SCRATCH_SIZE = _NAMES.index("next_scratch"), _NAMES.index("scratch_size")
_SCRATCH_NEEDED = _NAMES.index("scratch_needed")
FIELDS = len(_NAMES)
NO_ROW = (1 << 63) - 1
EMPTY: dict[str, Any] = {name: 0 for name in _NAMES}


#: Where NumPy's C structure of an array holds its address. Asking NumPy takes 1.5 us, as long as a small kernel.
_ADDRESS_AT = object.__basicsize__
_word_at = ctypes.c_size_t.from_address


def _asked(array: np.ndarray[Any, Any]) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _read(array: np.ndarray[Any, Any]) -> int:
    return _word_at(id(array) + _ADDRESS_AT).value


_probe = np.empty(1)
#: The address of an array's first element.
address_of = _read if sys.implementation.name == "cpython" and _read(_probe) == _asked(_probe) else _asked


class Job:
    """A job in memory. Every address in it points to what the caller keeps alive meanwhile."""

    __slots__ = ("_words", "address")

    def __init__(self, fields: dict[str, Any]) -> None:
        """Take a copy of EMPTY, filled in."""
        memory = np.empty(len(_NAMES), np.int64)
        self.address = address_of(memory)
        self._words = memory.data
        fields["bad_row"] = NO_ROW
        fields["counter_at"], fields["bad_row_at"] = self.address + 8 * _COUNTER, self.address + 8 * _BAD_ROW
        fields["next_scratch_at"] = self.address + 8 * _NEXT_SCRATCH
        fields["scratch_needed_at"] = self.address + 8 * _SCRATCH_NEEDED
        _PACK(self._words, 0, *fields.values())

    def lend(self, address: int, size: int) -> None:
        """Lend memory: so many bytes at `address` to the first worker, as many behind it to the next."""
        self._words[_NEXT_SCRATCH], self._words[_SCRATCH_SIZE] = address, size
        self._words[_SCRATCH_NEEDED] = 0

    @property
    def scratch_needed(self) -> int:
        """Bytes that each worker needs, if it was lent less, and has therefore done nothing."""
        return self._words[_SCRATCH_NEEDED]

    def limit(self, start: int, end: int) -> None:
        """Let workers take items start .. end - 1."""
        self._words[_COUNTER] = start
        self._words[_END] = end

    @property
    def bad_row(self) -> int | None:
        """The smallest bad row, if there is one."""
        row = self._words[_BAD_ROW]
        return None if row == NO_ROW else row


_COMMON = _CODES[: _SCRATCH_NEEDED + 1]
_pack_common = struct.Struct(f"={_COMMON}").pack_into


def common_shape(
    rows: int, columns: int, size: int, blocks: int, items: int, noise: int = 0, element: int = 0, held: int = 0
) -> tuple[int, ...]:
    """The fields from `columns` to `bad_row` of a common call, whose elements have so many bytes."""
    strides = size, columns * size
    return columns, size, size, rows, columns * size, *strides, blocks, noise, element, held, 0, items, NO_ROW


class CommonJob(Job):
    """A job that serves one common call after the other: rows of a contiguous array, each of them one item or less.

    To pack all fields anew takes as long as the kernel of a small call.
    """

    __slots__ = ("_scratch",)

    def __init__(self, scratch: int, size: int) -> None:
        """With so many bytes of scratch at an address."""
        super().__init__(EMPTY | {"group": 1, "grab": 1, "segments": 1})
        self._scratch = scratch, size, 0

    def run(self, entry: Callable[[int], None], call: tuple[float, ...], shape: tuple[int, ...]) -> int:
        """Run an entry point, given the fields from `seed` to `all_samples`; bytes of scratch that it lacked."""
        _pack_common(self._words, 0, *call, *shape, *self._scratch)
        entry(self.address)
        return self._words[_SCRATCH_NEEDED]


_JOB_TYPE = from_dtype(np.dtype(_LAYOUT))


@intrinsic
def job_at(typingctx: Any, address: Any) -> Any:
    """The job at an address: Numba takes 0.4 ms to find the type of a record array, none for an integer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(_JOB_TYPE))

    return _JOB_TYPE(types.int64), codegen


@inlined
def row_address(j, row):
    """Byte address of a row's first column."""
    return j.array + offset(int64(row), j.row_stride, j.dims, j.geometry)


@inlined
def out_address(j, row):
    """Byte address of a row's first column in `out`."""
    return j.out + offset(int64(row), j.out_row_stride, j.out_dims, j.out_geometry)


@inlined
def cotangent_address(j, row):
    """Byte address of a row's first column in `cotangent`."""
    return j.cotangent + offset(int64(row), j.cotangent_row_stride, j.cotangent_dims, j.cotangent_geometry)


@inlined
def offset(row, row_stride, dims, geometry):
    """Bytes from the first row to this one."""
    return row * row_stride if dims == 0 else _unmerged_offset(row, dims, geometry)


@njit
def _unmerged_offset(row, dims, geometry):
    offset = int64(0)
    for d in range(dims - 1, -1, -1):
        length = load(int64(0), geometry, int64(2 * d))
        offset += (row % length) * load(int64(0), geometry, int64(2 * d + 1))
        row //= length
    return offset


@inlined
def row_id(j, row):
    """What stands for the row in the address of its random bits."""
    return load(int64(0), j.row_ids, int64(row)) if j.row_ids != 0 else int64(row)


@inlined
def row_temperature(j, row):
    """The row's temperature; 0 asks for its argmax."""
    return load(float64(0), j.temperatures, int64(row)) if j.temperatures != 0 else j.temperature


@inlined
def row_top_k(j, row):
    """How many columns the row keeps."""
    return load(int64(0), j.top_k + int64(row) * j.top_k_stride, int64(0))


@inlined
def row_top_p(j, row):
    """The mass that the row keeps, of 1."""
    return load(float64(0), j.top_p + int64(row) * j.top_p_stride, int64(0))


@inlined
def row_min_p(j, row):
    """The least probability that the row keeps, of its largest."""
    return load(float64(0), j.min_p + int64(row) * j.min_p_stride, int64(0))


@inlined
def row_wanted(j, row):
    """Whether row_mask lets the row be read."""
    return j.row_mask == 0 or load(uint8(0), j.row_mask, int64(row)) != uint8(0)


@inlined
def row_and_segment(j, item):
    """What an item stands for: the segments of `group` rows lie side by side, row by row."""
    team = int64(item) // (j.group * j.segments)
    rest = int64(item) - team * j.group * j.segments
    width = min(j.group, j.rows - team * j.group)
    segment = rest // width
    return team * j.group + rest - segment * width, segment


@njit
def take_items(j):
    """The next items first .. last - 1 of the job; none are left when first is not below last."""
    first = atomic_add(j.counter_at, j.grab)
    return first, min(first + j.grab, j.end_item)
