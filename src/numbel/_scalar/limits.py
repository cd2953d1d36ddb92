"""Where numbers end: the temperatures that rows are drawn at."""

from __future__ import annotations

from .._jit import inlined

#: In float32, log2(e) / T and the factors made of it keep all their digits between these, and a difference of logits
#: that overflows (6.8e38 at most) stands for a weight below 2^-700. One rule for all dtypes.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 2.0**-100, 2.0**100


@inlined
def allows(temperature):
    """Whether rows are drawn at this temperature; 0 asks for the argmax. False for NaN."""
    return temperature == 0.0 or (temperature >= LEAST_TEMPERATURE and temperature <= MOST_TEMPERATURE)
