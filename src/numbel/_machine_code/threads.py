"""Numba's threads: when they may run, how many there are, and how they are started where Numba is not imported.

Kernels of a wheel (`prebuilt`) run without Numba's compiler. Numba's threading layers are small libraries of their
own, which are then loaded from their files. They are the ones that Numba loads later, if it is imported: what is set
there holds here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import prebuilt

#: Numba's module that starts threads. Where it is imported, it says which layer there is.
_NUMBA = "numba.np.ufunc.parallel"
_MODULES = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
#: Layers that a setting other than a layer's own name allows, in the order in which Numba tries them on this platform.
_SETTINGS = {
    "safe": ("tbb",),
    "threadsafe": ("tbb", "omp"),
    "forksafe": ("tbb", "workqueue") if sys.platform == "linux" else ("tbb", "omp", "workqueue"),
}
#: What Numba asks of TBB.
_TBB_INTERFACE = 12060


class Layer(NamedTuple):
    """A threading layer that has started."""

    name: str
    parallel_for: int  # the address of its C function
    threads: Callable[[], int]  # how many the caller may use


# One guard for all threading layers. workqueue aborts the process when two Python threads enter it; GNU
# OpenMP hangs or kills a forked child that enters it. Serial code gives the same bits, so both cases fall back.
_guard = threading.Lock()
_forked = False
_starting = threading.Lock()


def _after_fork() -> None:
    global _guard, _forked, _starting
    _guard, _starting = threading.Lock(), threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_serial() -> bool:
    """Whether this process may start no threads: a forked child, whose parent's OpenMP may be anybody's, torch's too.

    It waits for ever for threads that the fork did not copy. TBB makes new ones, but a fork while another thread of the
    parent starts a kernel copies TBB's lock held: 5 of 12 runs of `test_fork_while_threads_draw` then hung.
    """
    return _forked


def numba_is_imported() -> bool:
    """Whether Numba's own functions start its threads and say how many there are."""
    return hasattr(sys.modules.get(_NUMBA), "get_parallel_chunksize")  # its last: another thread may be importing it


def layer_name() -> str | None:
    """The layer that has started, if one has."""
    if numba_is_imported() and sys.modules[_NUMBA]._threading_layer is not None:
        return str(sys.modules[_NUMBA]._threading_layer)
    return None if _started is None else _started.name


#: The layer that was loaded from its file.
_started: Layer | None = None


def layer() -> Layer:
    """Numba's threading layer, which is started where it has not been; of one thread where there is no Numba."""
    global _started
    if _started is None and not numba_is_imported():
        with _starting:
            if _started is None:
                _started = _start()
    if _started is not None and not numba_is_imported():
        return _started
    numba: Any = sys.modules[_NUMBA]
    numba._launch_threads()
    name = numba.threading_layer()
    return Layer(name, sys.modules[f"numba.np.ufunc.{_MODULES[name]}"].parallel_for, numba.get_num_threads)


def _start() -> Layer | None:
    """Start a layer from its file, or import Numba, which starts its own: None."""
    if numba_folder() is None:
        return Layer("none", 0, lambda: 1)
    for name in _choices() if prebuilt.starts_threads() else ():
        module = _load(name)
        if module is not None:
            count = most_threads()
            ctypes.CFUNCTYPE(None, ctypes.c_int)(module.launch_threads)(count)
            ctypes.CFUNCTYPE(None, ctypes.c_int)(module.set_num_threads)(count)
            return Layer(name, module.parallel_for, ctypes.CFUNCTYPE(ctypes.c_int)(module.get_num_threads))
    # a compiled `prange` needs it anyway; and of a layer that cannot be had it says what is missing
    importlib.import_module(_NUMBA)
    return None


def _choices() -> tuple[str, ...]:
    """The layers that Numba's settings name, in order; none that is not known."""
    asked = os.environ.get("NUMBA_THREADING_LAYER", "default").lower()
    order = tuple(os.environ.get("NUMBA_THREADING_LAYER_PRIORITY", "tbb omp workqueue").split())
    found = {**_SETTINGS, "default": order}.get(asked, (asked,))
    return tuple(name for name in found if name in _MODULES)


def numba_folder() -> Path | None:
    """Where Numba is installed, without importing it."""
    spec = importlib.util.find_spec("numba")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _load(name: str) -> Any:
    """A layer's extension module, from its file; None where it or what it needs is missing."""
    folder = numba_folder()
    if folder is None or (name == "tbb" and not _has_tbb()):
        return None
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / "np" / "ufunc" / (_MODULES[name] + suffix)
        if path.exists():
            loader = importlib.machinery.ExtensionFileLoader(f"numba.np.ufunc.{_MODULES[name]}", str(path))
            spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
            with contextlib.suppress(ImportError):
                assert spec is not None
                module = importlib.util.module_from_spec(spec)
                loader.exec_module(module)
                return module
    return None


def _has_tbb() -> bool:
    names = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}
    try:
        version: int = ctypes.CDLL(names.get(sys.platform, "libtbb.so.12")).TBB_runtime_interface_version()
    except OSError:
        return False
    return version >= _TBB_INTERFACE


def most_threads() -> int:
    """How many threads are started: NUMBA_NUM_THREADS, or one for each core that this process may use."""
    if numba_is_imported():
        return int(sys.modules["numba"].config.NUMBA_NUM_THREADS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(ValueError):
        return max(1, int(os.environ.get("NUMBA_NUM_THREADS", cores)))
    return cores


def thread_count() -> int:
    """How many workers may run at a time. Asking starts Numba's threads, which short work must not."""
    if is_serial():
        return 1
    if layer_name() is not None:
        return int(layer().threads())
    # Starting Numba's OpenMP sets the number of threads of the OpenMP that torch shares
    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if hasattr(torch, "get_num_threads") else None
    count = int(layer().threads())
    if before is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)
    return count


@contextlib.contextmanager
def parallel_allowed() -> Iterator[bool]:
    """Whether a parallel kernel may be entered now; hold the context while it runs."""
    if is_serial():
        yield False
        return
    if layer_name() in ("omp", "tbb"):
        yield True
        return
    # The first call starts the layer. workqueue takes one caller at a time, and none from within: a thread that Python
    # did not start may be one of a user's own `prange`.
    guard = _guard
    if isinstance(threading.current_thread(), threading._DummyThread) or not guard.acquire(blocking=False):
        yield False
        return
    try:
        yield True
    finally:
        guard.release()
