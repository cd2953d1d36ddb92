"""`python -m benchmarks.gpu --small` without a card: on the driver's stand-in, with torch's tensors over its memory.

python tests/cuda/rehearse.py --out results
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    os.environ |= {"NUMBA_ENABLE_CUDASIM": "0", "NUMBEL_CUDA_BACKEND": "ptx"}
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
    importlib.import_module("backend")
    from benchmarks.gpu import __main__ as command
    from benchmarks.gpu import works

    works._SAMPLES = 1 << 10
    on_device = contextlib.nullcontext()
    if importlib.util.find_spec("torch") is not None:
        on_device = importlib.import_module("device_tensor").on_stream(0)
    with on_device:
        return command.main(["--small", *sys.argv[1:]], (str(Path(__file__).resolve()),))


if __name__ == "__main__":
    sys.exit(main())
