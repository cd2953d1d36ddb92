"""Where numbers end, and sizes that the canonical arithmetic fixes. Nothing here needs Numba."""

from __future__ import annotations

#: Random bits are addressed by them (`address`).
MAX_COLUMNS, MAX_ROW_ID, MAX_SAMPLES = 1 << 34, (1 << 56) - 1, 1 << 32
#: Columns whose weights are summed together (`blocks`).
BLOCK = 4096
#: Rows of up to so many columns sum the others without their maximum, and count how often it is there (`entropy`).
COUNTED = 256
#: In float32, log2(e) / T and the factors made of it keep all their digits between these, and a difference of logits
#: that overflows (6.8e38 at most) stands for a weight below 2^-700. One rule for all dtypes.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 2.0**-100, 2.0**100
