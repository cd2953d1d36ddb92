"""Which temperatures rows are drawn at."""

from __future__ import annotations

from .._jit import inlined
from .limits import LEAST_TEMPERATURE, MOST_TEMPERATURE


@inlined
def allows(temperature):
    """Whether rows are drawn at this temperature; 0 asks for the argmax. False for NaN."""
    return temperature == 0.0 or (temperature >= LEAST_TEMPERATURE and temperature <= MOST_TEMPERATURE)
