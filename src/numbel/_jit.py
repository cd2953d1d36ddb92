"""The jit decorators, entry points that are compiled or loaded when needed, and when they may run in parallel."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

from ._compiler import compile_entry, compile_parallel, inner, load_entry, target
from ._kernel_cache import cache_folder, load, save

#: Workers. No fastmath: -inf and NaN are ordinary input, and the order of sums is promised.
njit = inner()
#: Workers' parts that are called from several places, once a row or block: copied into each, they triple the time that
#: a first call takes.
apart = inner(apart=True)
#: Scalars, inlined by force: a call left in a loop keeps it from being vectorised (0.6 against 4 G/s).
inlined = inner(force=True)


class Entry:
    """An entry point: a function of int64 that returns nothing, compiled or loaded when it is first asked for."""

    def __init__(self, function: Callable[..., None], name: str, arguments: int = 1, *, parallel: bool = False) -> None:
        self.name = name
        self.function = function
        self.arguments = arguments
        self._parallel = parallel
        self._call: Callable[..., Any] | None = None
        self._address: int | None = None

    def __call__(self, *arguments: int) -> None:
        """Run it; the GIL is released meanwhile."""
        (self._call or self.loaded())(*arguments)

    @property
    def address(self) -> int:
        """The address of its C function (`_compiler.compile_entry`)."""
        # no functools.cached_property: Python 3.11 holds a lock of its own meanwhile, which a fork could copy held
        if self._address is None:
            with global_compiler_lock:
                if self._address is None:
                    self._address = self._load()
        return self._address

    def _load(self) -> int:
        path = self._path()
        kept = load(path) if path is not None else None
        if kept is not None:
            name, _, code = kept.partition(b"\0")
            with contextlib.suppress(ValueError):
                return load_entry(code, name.decode(), parallel=self._parallel)
        with _announced(self.name):
            if self._parallel:
                code, symbol = compile_parallel(self.function, self.arguments)
            else:
                code, symbol = compile_entry(self.function, f"numbel_{self.name}", self.arguments)
        if path is not None:
            save(path, symbol.encode() + b"\0" + code)
        return load_entry(code, symbol, parallel=self._parallel)

    def is_kept(self) -> bool:
        """Whether it need not be compiled."""
        path = self._path()
        return self._address is not None or (path is not None and load(path) is not None)

    def _path(self) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        key = repr((self.name, self.arguments, target()))
        return folder / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"

    def loaded(self) -> Callable[..., Any]:
        """Its C function, as Python calls it."""
        words = [ctypes.c_int64] * self.arguments
        if self._parallel:  # Numba's own: it releases the GIL itself, and writes that it returns nothing
            call = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *words)(self.address)
            self._call = functools.partial(call, _UNREAD, _UNREAD)
        else:
            self._call = ctypes.CFUNCTYPE(None, *words)(self.address)
        return self._call


_logger = logging.getLogger("numbel")
#: Seconds of silence before a compile is announced.
_PATIENCE = 1.0
_announcements = itertools.count()


@contextlib.contextmanager
def _announced(name: str) -> Iterator[None]:
    """Say once in a process that code is being compiled, if that takes longer than a second."""
    timer = threading.Timer(_PATIENCE, _announce, [name])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _announce(name: str) -> None:
    """Write to stderr where somebody watches, or to the log where one is kept."""
    if os.environ.get("NUMBEL_QUIET", "0") not in ("", "0") or next(_announcements):
        return
    where = "" if cache_folder() is None else ", once on this machine"
    text = f"compiling {name}, some seconds{where}; `numbel warmup` compiles everything beforehand"
    if _logger.hasHandlers() or _logger.level > logging.INFO:
        _logger.info(text)
    elif _watched():
        sys.stderr.write(f"numbel: {text}\n")
        sys.stderr.flush()


def _watched() -> bool:
    """Whether stderr is a terminal's or a notebook's."""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


#: Where a parallel entry point writes that it returns nothing.
_unread = ctypes.c_int64()
_UNREAD = ctypes.addressof(_unread)


# One guard for all threading layers. workqueue aborts the process when two Python threads enter it; GNU
# OpenMP hangs or kills a forked child that enters it. Serial code gives the same bits, so both cases fall back.
_guard = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _guard, _forked
    _guard = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    # a child forked while another thread compiles would wait for Numba's lock for ever
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def _layer() -> str | None:
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None  # not started yet


def is_serial() -> bool:
    """Whether this process may start no threads: a forked child, whose parent's OpenMP may be anybody's, torch's too.

    It waits for ever for threads that the fork did not copy. TBB makes new ones, but a fork while another thread of the
    parent starts a kernel copies TBB's lock held: 5 of 12 runs of `test_fork_while_threads_draw` then hung.
    """
    return _forked


def thread_count() -> int:
    """How many workers may run at a time. Asking starts Numba's threads, which short work must not."""
    if is_serial():
        return 1
    if _layer() is not None:
        return int(numba.get_num_threads())
    # Starting Numba's OpenMP sets the number of threads of the OpenMP that torch shares
    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if hasattr(torch, "get_num_threads") else None
    count = int(numba.get_num_threads())
    if before is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)
    return count


@contextlib.contextmanager
def parallel_allowed() -> Iterator[bool]:
    """Whether a parallel kernel may be entered now; hold the context while it runs."""
    if is_serial():
        yield False
        return
    if _layer() in ("omp", "tbb"):
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
