"""CUDA kernels, compiled once for a machine: their code is kept on disk, as `_jit` keeps the CPU's.

A kernel takes 0.5 to 3 s to compile. What goes wrong with the files is no matter: the kernel is compiled instead.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

from numba import cuda
from numba.core.caching import NullCache

from .._machine_code import kernel_cache
from . import numba_cuda


class _KernelCache(NullCache):  # type: ignore[misc]
    """What numba-cuda's own cache does, but one file for each kernel, signature, GPU's kind and versions."""

    def __init__(self, *key: Any) -> None:
        folder = kernel_cache.cache_folder("_cuda")
        versions = cuda.runtime.get_version(), numba_cuda.version()
        made_for = cuda.get_current_device().compute_capability, *versions
        digest = hashlib.sha256(repr((key, made_for)).encode()).hexdigest()
        self._path = None if folder is None else folder / f"{key[0]}-{digest[:24]}.cuda"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        if self._path is None:
            return None
        with contextlib.suppress(Exception):
            states = kernel_cache.load(self._path)
            if states is not None:
                return numba_cuda.load_kernel(states)  # which the driver may refuse: then it is compiled
        return None

    def save_overload(self, signature: Any, kernel: Any) -> None:
        if self._path is not None:
            with contextlib.suppress(Exception):
                kernel_cache.save(self._path, numba_cuda.dump_kernel(kernel))


def kernel(function: Callable[..., Any], name: str, form: str, layout: str, signature: Any, bounds: Any) -> Any:
    """Compile a kernel for the current device, or load it."""
    # as the tests compile it: link-time optimisation would let nvJitLink contract again
    options = {"lto": False, "launch_bounds": bounds}
    if not numba_cuda.is_numba_cuda():  # kernels of Numba's former target are not kept
        return cuda.jit(signature, **options)(function)
    cache = _KernelCache(name, form, layout, signature, bounds)
    return numba_cuda.compile_kernel(function, signature, cache, **options)
