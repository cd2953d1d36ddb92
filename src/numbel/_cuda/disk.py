"""CUDA kernels, compiled once for a machine: their code is kept on disk, as `_jit` keeps the CPU's.

A kernel takes 0.5 to 3 s to compile. What goes wrong with the files is no matter: the kernel is compiled instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import pickle
from collections.abc import Callable
from typing import Any

from numba import cuda
from numba.core.caching import NullCache

from .. import _kernel_cache


class _KernelCache(NullCache):  # type: ignore[misc]
    """What numba-cuda's own cache does, but one file for each kernel, signature, GPU's kind and versions."""

    def __init__(self, *key: Any) -> None:
        folder = _kernel_cache.cache_folder("_cuda")
        versions = cuda.runtime.get_version(), importlib.metadata.version("numba-cuda")
        made_for = cuda.get_current_device().compute_capability, *versions
        digest = hashlib.sha256(repr((key, made_for)).encode()).hexdigest()
        self._path = None if folder is None else folder / f"{key[0]}-{digest[:24]}.cuda"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        from numba.cuda.dispatcher import _Kernel
        from numba.cuda.utils import numba_target_override

        if self._path is None:
            return None
        with contextlib.suppress(Exception), numba_target_override():
            states = _kernel_cache.load(self._path)
            if states is not None:
                kernel = _Kernel._rebuild(**pickle.loads(states))
                kernel.bind()  # which the driver may refuse: then it is compiled
                return kernel
        return None

    def save_overload(self, signature: Any, kernel: Any) -> None:
        from numba.cuda import serialize

        if self._path is not None:
            with contextlib.suppress(Exception):
                _kernel_cache.save(self._path, serialize.dumps(kernel._reduce_states()))


def kernel(function: Callable[..., Any], name: str, form: str, layout: str, signature: Any, bounds: Any) -> Any:
    """Compile a kernel for the current device, or load it."""
    # as the tests compile it: link-time optimisation would let nvJitLink contract again
    options = {"lto": False, "launch_bounds": bounds}
    if getattr(cuda, "implementation", "") != "NVIDIA":  # Numba's former target, whose kernels are not kept
        return cuda.jit(signature, **options)(function)
    dispatcher = cuda.jit(**options)(function)
    dispatcher._cache = _KernelCache(name, form, layout, signature, bounds)
    dispatcher.compile(signature)
    dispatcher._specialized = True  # as jit does with a signature: arguments are not typed at each launch
    dispatcher.disable_compile()
    return dispatcher
