"""Numba's CUDA simulator: it switches threads often (`numbel._cuda.numba_cuda` takes two races of its own out).

Its polling would halt the threads for 5 ms at each barrier. And what nobody wrote holds random bits, as on a device.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from numba.cuda.simulator import kernelapi
from numba.np.numpy_support import as_dtype

from numbel._device.libraries import Library

#: What a shared array is made of.
shared_kind = np.ndarray
_lock = threading.Lock()
_bytes = np.random.default_rng(0)


def _spoil(array):
    """What a kernel finds in memory that nobody wrote."""
    array.reshape(-1).view(np.uint8)[:] = _bytes.integers(0, 256, array.nbytes, np.uint8)


def _array(self, shape, dtype, alignment=None):
    """Two threads that allocate at once would get an array each; here they take turns."""
    frame = sys._getframe(1)
    caller = frame.f_code.co_filename, frame.f_lineno
    with _lock:
        if caller not in self._allocations:
            made = np.empty(shape, as_dtype(dtype))
            _spoil(made)
            self._allocations[caller] = made.view(shared_kind)
        return self._allocations[caller]


def mend():
    """Once for a process, before its first kernel."""
    scratch = Library.scratch

    def spoiled(self, shape, dtype):
        array = scratch(self, shape, dtype)
        _spoil(array._ary)
        return array

    Library.scratch = spoiled
    kernelapi.FakeCUDAShared.array = _array
    sys.setswitchinterval(1e-5)
