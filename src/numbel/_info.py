"""show_config."""

from __future__ import annotations

import platform
from importlib import metadata

import numba
import numpy as np

from . import _jit, _kernel_cache


def show_config() -> None:
    """Print versions, CPU, threads, threading layer and where compiled kernels are kept.

    Examples
    --------
    >>> import numbel
    >>> numbel.show_config()  # doctest: +ELLIPSIS
    numbel ...
    """
    for name, value in config().items():
        print(f"{name:<16} {value}")


def config() -> dict[str, str]:
    """What `show_config` prints."""
    import llvmlite.binding as llvm

    from . import BITS_VERSION, __version__

    threads = f"{_jit.thread_count()} of {numba.config.NUMBA_NUM_THREADS}"
    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = "not started"
    folder = _kernel_cache.cache_folder()
    return {
        "numbel": f"{__version__} (bits version {BITS_VERSION})",
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "llvmlite": metadata.version("llvmlite"),
        "cpu": str(numba.config.CPU_NAME or llvm.get_host_cpu_name()),
        "threads": "1: a forked process may start none" if _jit.is_serial() else threads,
        "threading layer": str(layer),
        "cache": str(folder) if folder is not None else "off",
    }
