"""show_config."""

from __future__ import annotations

import platform
from importlib import metadata

import numpy as np

from ._machine_code import kernel_cache, prebuilt
from ._machine_code import threads as _threads


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
    import numba

    from . import BITS_VERSION, __version__

    threads = f"{_threads.thread_count()} of {_threads.most_threads()}"
    brought = prebuilt.prebuilt()
    folder = kernel_cache.cache_folder()
    return {
        "numbel": f"{__version__} (bits version {BITS_VERSION})",
        "python": platform.python_version(),
        "numba": metadata.version("numba"),
        "numpy": np.__version__,
        "llvmlite": metadata.version("llvmlite"),
        "cpu": str(numba.config.CPU_NAME or llvm.get_host_cpu_name()),
        "threads": "1: a forked process may start none" if _threads.is_serial() else threads,
        "threading layer": _threads.layer_name() or "not started",
        "kernels": f"of the wheel, {brought.target}" if brought.library else f"compiled: {brought.reason}",
        "cache": str(folder) if folder is not None else "off",
    }
