"""What a kernel is given: a NamedTuple of its own on the host, a record of the same fields in the kernel.

A kernel is a function `kernel(kind, work, p)`. Its class of parameters is what `p` is annotated with. All fields are
required. A group of fields that several kernels share is a NamedTuple of its own (`Rows`, `Stream`, `Results`, ...).
The classes of single kernels are in `signatures`, how kernels read them in `records`. Nothing here needs Numba.

| annotation      | on the host                          | in the kernel                        |
| --------------- | ------------------------------------ | ------------------------------------ |
| `int`, `bool`   | int                                  | int64                                |
| `Word`          | int below 2^64                       | uint64                               |
| `float`         | float                                | float64                              |
| `Array`         | array; the call keeps it alive       | int64, address of its first element  |
| `Array | None`  | the same, or None                    | the same, or 0                       |
| a NamedTuple    | an instance                          | a record                             |
"""

from __future__ import annotations

import ctypes
import functools
import operator
import struct
import sys
import types as python_types
import typing
from typing import Any, NamedTuple, NewType

import numpy as np

Array = np.ndarray[Any, Any]
Word = NewType("Word", int)
NO_ROW = (1 << 63) - 1
#: Formats of elements in memory: that of the arithmetic, float16, bfloat16.
SAME, HALF, BRAIN = range(3)
FORMATS = {"float32": SAME, "float64": SAME, "float16": HALF, "bfloat16": BRAIN}


# ------------------------------------------------------------------------------------------------------------ groups


class Work(NamedTuple):
    """What workers share and write, in front of the parameters of every kernel."""

    next_item: int
    end_item: int
    bad_row: int  # the smallest
    next_scratch: int  # address of the next worker's part of the scratch (`scratch`)
    scratch_size: int  # bytes for each worker
    scratch_needed: int  # bytes that a worker lacked


class Rows(NamedTuple):
    """Rows of an array, the categories last. Batch axes are merged where one stride reaches all rows."""

    data: Array
    format: int  # of an element (`FORMATS`)
    rows: int
    columns: int
    item_size: int  # bytes
    column_stride: int  # bytes
    row_stride: int  # bytes, if `axes` is 0
    axes: int  # batch axes that could not be merged
    geometry: Array | None  # int64: (length, stride in bytes) of each, outermost first


class Stream(NamedTuple):
    """Which random bits a call takes."""

    seed: Word
    draw: Word
    row_ids: Array | None  # int64; None: a row's own position


class Temperatures(NamedTuple):
    """One for each row, or one for all; 0 asks for the argmax."""

    each: Array | None  # float64
    common: float


class Results(NamedTuple):
    """Contiguous outputs of a draw. What is None is not wanted."""

    indices: Array | None  # int64, `stride` for each row
    log_prob: Array | None  # result dtype, `stride` for each row
    logsumexp: Array | None  # result dtype, one a row
    logsumexp64: Array | None  # float64, one a row: for the next step of a draw
    partial_sums: Array | None  # float64, the root (r, S) of each row's tree
    samples: int  # of this call
    first_sample: int
    stride: int  # samples of all calls


class Split(NamedTuple):
    """How rows are cut into segments, which are the items that workers take."""

    segments: int  # of a row
    segment_blocks: int
    row_interleave: int  # rows whose segments are visited side by side
    chunk_size: int  # items taken at a time
    pending: Array | None  # int64, segments of each row still to come; None: a row is one segment


class Limit(NamedTuple):
    """One of top_k (int64), top_p and min_p (float64)."""

    values: Array
    stride: int  # bytes; 0 where all rows share it


class Limits(NamedTuple):
    """What rows are truncated by."""

    top_k: Limit
    top_p: Limit
    min_p: Limit


# ------------------------------------------------------------------------------------------------------ on the host

#: Where NumPy's C structure of an array holds its address. Asking NumPy takes 1.5 us, as long as a small kernel.
_ADDRESS_AT = object.__basicsize__
_word_at = ctypes.c_size_t.from_address


def _asked(array: Array) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _read(array: Array) -> int:
    return _word_at(id(array) + _ADDRESS_AT).value


_probe = np.empty(1)
#: The address of an array's first element.
address_of = _read if sys.implementation.name == "cpython" and _read(_probe) == _asked(_probe) else _asked

_FORMATS = {int: "i8", bool: "i8", float: "f8", Word: "u8", Array: "i8"}
_CODES = {"i8": "q", "u8": "Q", "f8": "d"}
WORK_WORDS = len(Work._fields)


@functools.cache
def _leaves(parameters: Any) -> dict[str, Any]:
    """Numbers and arrays by their names, such as "stream.seed", in the order of the record."""
    found: dict[str, Any] = {}
    for name, form in typing.get_type_hints(parameters).items():
        if isinstance(form, python_types.UnionType):
            form = next(each for each in form.__args__ if each is not type(None))
        if form in _FORMATS:
            found[name] = form
        else:
            found.update((f"{name}.{inner}", kind) for inner, kind in _leaves(form).items())
    return found


@functools.cache
def layout(parameters: Any) -> np.dtype[Any]:
    """The record of a class of parameters: eight bytes for each number or address."""
    leaves, hints = _leaves(parameters), typing.get_type_hints(parameters)
    return np.dtype(
        [(name, _FORMATS[leaves[name]] if name in leaves else layout(form)) for name, form in hints.items()]
    )


@functools.cache
def places(parameters: Any) -> dict[str, int]:
    """The word at which each number or address lies, behind the words of `Work`."""
    return {name: at for at, name in enumerate(_leaves(parameters), WORK_WORDS)}


class _Packer:
    """How parameters of a class become words: 4 us where a loop over their fields takes 9."""

    def __init__(self, parameters: Any) -> None:
        leaves = _leaves(parameters)
        self._values = operator.attrgetter(*leaves)
        self._arrays = [at for at, form in enumerate(leaves.values()) if form == Array]
        self._pack = struct.Struct("=" + "".join(_CODES[_FORMATS[form]] for form in leaves.values())).pack_into
        self.words = len(leaves)

    def __call__(self, words: memoryview, parameters: Any) -> None:
        values = list(self._values(parameters))
        for at in self._arrays:
            array = values[at]
            if isinstance(array, np.ndarray):
                values[at] = address_of(array)
            elif array is None:
                values[at] = 0
        self._pack(words, FIRST, *values)


_packer = functools.cache(_Packer)


def lend(words: memoryview, address: int, size: int) -> None:
    """Lend a call scratch: so many bytes at `address` to the first worker, as many behind it to the next."""
    words[NEXT_SCRATCH], words[SCRATCH_SIZE], words[SCRATCH_NEEDED] = address, size, 0


def scratch_needed(words: memoryview) -> int:
    """Bytes that each worker of a call needs, if it was lent less, and has therefore done nothing."""
    return words[SCRATCH_NEEDED]


def bad_row(words: memoryview) -> int | None:
    """The smallest bad row of a call, if there is one."""
    row = words[BAD_ROW]
    return None if row == NO_ROW else row


class Call:
    """Parameters in memory, behind the words that workers share. It keeps their arrays alive."""

    __slots__ = ("_kept", "address", "words")

    def __init__(self, parameters: Any) -> None:
        form: Any = type(parameters)
        pack = _packer(form)
        memory = np.empty(WORK_WORDS + pack.words, np.int64)
        self.address = address_of(memory)
        self.words = memory.data
        self._kept = parameters
        self.words[BAD_ROW] = NO_ROW
        pack(self.words, parameters)

    def limit(self, start: int, end: int) -> None:
        """Let workers take items start .. end - 1."""
        self.words[NEXT_ITEM], self.words[END_ITEM] = start, end


NEXT_ITEM, END_ITEM, BAD_ROW, NEXT_SCRATCH, SCRATCH_SIZE, SCRATCH_NEEDED = range(WORK_WORDS)
#: The byte at which parameters begin, behind the shared words.
FIRST = 8 * WORK_WORDS
