"""Numba's CUDA simulator, mended: it switches threads often, and two races of its own are taken out.

Its polling would halt the threads for 5 ms at each barrier. And what nobody wrote holds random bits, as on a device.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter

import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel, kernelapi
from numba.np.numpy_support import as_dtype

from numbel._libraries import Library

#: What a shared array is made of.
shared_kind = np.ndarray
_REAL = cuda
_lock = threading.Lock()
_inside: Counter[int] = Counter()
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


@contextlib.contextmanager
def _swapped(function, simulated):
    """A thread that left would put the real `cuda` back into the module of those inside; here the last one does."""
    module = function.__globals__
    with _lock:
        names = [name for name, value in module.items() if value is _REAL or value is simulated]
        _inside[id(module)] += 1
        module.update(dict.fromkeys(names, simulated))
    try:
        yield
    finally:
        with _lock:
            _inside[id(module)] -= 1
            if not _inside[id(module)]:
                module.update(dict.fromkeys(names, _REAL))


def mend():
    """Once for a process, before its first kernel."""
    scratch = Library.scratch

    def spoiled(self, shape, dtype):
        array = scratch(self, shape, dtype)
        _spoil(array._ary)
        return array

    Library.scratch = spoiled
    kernelapi.FakeCUDAShared.array = _array
    kernel.swapped_cuda_module = _swapped
    sys.setswitchinterval(1e-5)
