"""What runs the kernels: "simulator" (Numba's, Python), "ptx" (what the compiler made, on this processor) or "card".

Imported first, by `run.py`, which sets the environment that chooses.
"""

from __future__ import annotations

import os
import sys

import numpy as np

BACKENDS = ("simulator", "ptx", "card")
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
BACKEND = "simulator" if SIMULATED else os.environ.get("NUMBEL_CUDA_BACKEND", "card")
#: The driver below numba-cuda on the backend "ptx".
DRIVER = None


def _guard_scratch(driver):
    """Each scratch array gets memory of its own: what reaches from one into the next is found, and all is poisoned."""
    from numba import cuda

    from numbel._device.libraries import Library

    lent = Library.scratch

    def scratch(self, shape, dtype):
        if not driver.guards_scratch or 0 in np.atleast_1d(shape):
            return lent(self, shape, dtype)
        span = Library._look_up(self, cuda.device_array(shape, dtype, stream=self.stream), "scratch")
        return span.view(0, span.shape, span.strides)

    Library.scratch = scratch


if BACKEND == "simulator":
    import simulator

    simulator.mend()
    if os.environ.get("NUMBEL_RACES") == "1":
        import races

        races.watch()
elif BACKEND == "ptx":
    assert "numba.cuda" not in sys.modules, "the driver must be there before CUDA is loaded"
    from ptx import driver

    DRIVER = driver.install(devices=2)
    _guard_scratch(DRIVER)
