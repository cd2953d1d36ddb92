"""What runs the kernels: "simulator" (Numba's, Python), "ptx" (what the compiler made, on this processor) or "card".

Imported first, by `run.py`, which sets the environment that chooses.
"""

from __future__ import annotations

import os
import sys

BACKENDS = ("simulator", "ptx", "card")
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
BACKEND = "simulator" if SIMULATED else os.environ.get("NUMBEL_CUDA_BACKEND", "card")
#: The driver below numba-cuda on the backend "ptx".
DRIVER = None

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
