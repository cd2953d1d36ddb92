"""What one kernel call is told: a record of addresses and sizes, and how rows are found in it."""

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint8

from .._jit import inlined
from .memory import load

_INTEGERS = (
    "array",  # address of the logits, or of the noise to fill
    "columns",
    "column_stride",  # bytes
    "item_size",  # bytes
    "rows",
    "dims",  # batch axes after merging; geometry holds (length, stride in bytes) of each, outermost first
    "geometry",
    "temperatures",  # float64
    "temperature_step",  # 0: one for all rows
    "row_ids",  # int64, or 0: a row's own position
    "row_mask",  # bool, or 0
    "samples",  # of this call
    "first_sample",
    "all_samples",  # row length of indices and log_prob
    "indices",  # int64
    "log_prob",  # widened dtype, or 0
    "logsumexp",  # widened dtype, or 0
    "segments",  # per row
    "segment_blocks",  # a power of two
    "end_item",
    "grab",  # items taken at a time
    "group",  # rows whose segments are visited side by side
    "next_item",  # address of the shared counter
    "first_bad",  # address of the smallest bad row
    "pending",  # segments still to come, per row
    "node_r",  # one a segment
    "node_s",
    "winner_key",  # one a segment and sample
    "winner_r",
    "winner_at",
)

#: Every address points to memory that the caller keeps alive during the call.
JOB = np.dtype([(name, "i8") for name in _INTEGERS] + [("key", "u8"), ("mask", "u8"), ("loc", "f8"), ("scale", "f8")])


@inlined
def row_address(j, row):
    """Byte address of a row's first column."""
    offset = int64(0)
    rest = int64(row)
    for d in range(j.dims - 1, 0, -1):
        length = load(int64(0), j.geometry, int64(2 * d))
        offset += (rest % length) * load(int64(0), j.geometry, int64(2 * d + 1))
        rest //= length
    return j.array + offset + rest * load(int64(0), j.geometry, int64(1))


@inlined
def row_id(j, row):
    """What stands for the row in the address of its random bits."""
    return load(int64(0), j.row_ids, int64(row)) if j.row_ids != 0 else int64(row)


@inlined
def row_temperature(j, row):
    """The row's temperature; 0 asks for its argmax."""
    return load(float64(0), j.temperatures, int64(row) * j.temperature_step)


@inlined
def row_wanted(j, row):
    """Whether row_mask lets the row be read."""
    return j.row_mask == 0 or load(uint8(0), j.row_mask, int64(row)) != uint8(0)
