"""Entry points: machine code that is found or compiled when it is first asked for, and how Python calls it."""

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

from . import kernel_cache, prebuilt


class Entry:
    """An entry point: a function of int64 that returns nothing.

    A wheel may bring its machine code (`prebuilt`). Else it comes from the disk cache (`kernel_cache`), or Numba
    compiles it: `make` returns its Python function, and is not called before.
    """

    def __init__(
        self, make: Callable[[], Callable[..., None]], name: str, arguments: int = 1, *, parallel: bool = False
    ) -> None:
        self.name = name
        self.arguments = arguments
        self._make = make
        self._parallel = parallel
        self._call: Callable[..., Any] | None = None
        self._address: int | None = None

    def __call__(self, *arguments: int) -> None:
        """Run it; the GIL is released meanwhile."""
        (self._call or self.loaded())(*arguments)

    @property
    def function(self) -> Callable[..., None]:
        """The Python function that is compiled."""
        return self._make()

    @property
    def address(self) -> int:
        """The address of its C function (`compiler.compile_entry`)."""
        # no functools.cached_property: Python 3.11 holds a lock of its own meanwhile, which a fork could copy held
        if self._address is None:
            with _lock:
                if self._address is None:
                    self._address = self._load()
        return self._address

    def ready(self) -> None:
        """Load or compile it now."""
        _ = self.address

    def _load(self) -> int:
        found = None if self._parallel else prebuilt.address(self.name)
        return self._compiled() if found is None else found

    def _compiled(self) -> int:
        from . import compiler

        path = self._path()
        kept = kernel_cache.load(path) if path is not None else None
        if kept is not None:
            name, _, code = kept.partition(b"\0")
            with contextlib.suppress(ValueError):
                return compiler.load_entry(code, name.decode(), parallel=self._parallel)
        with _announced(self.name):
            if self._parallel:
                code, symbol = compiler.compile_parallel(self.function, self.arguments)
            else:
                code, symbol = compiler.compile_entry(self.function, f"numbel_{self.name}", self.arguments)
        if path is not None:
            kernel_cache.save(path, symbol.encode() + b"\0" + code)
        return compiler.load_entry(code, symbol, parallel=self._parallel)

    def is_kept(self) -> bool:
        """Whether it need not be compiled."""
        if self._address is not None or (not self._parallel and prebuilt.address(self.name) is not None):
            return True
        path = self._path()
        return path is not None and kernel_cache.load(path) is not None

    def _path(self) -> Path | None:
        from .compiler import target

        folder = kernel_cache.cache_folder()
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


# Held while machine code is made or loaded. A child forked meanwhile would wait for it for ever, and so for Numba's own
# lock, which is taken after it.
_lock = threading.RLock()
_held: list[Any] = []


def _before_fork() -> None:
    _lock.acquire()
    numba_lock: Any = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    if numba_lock is not None:
        numba_lock.acquire()
    _held.append(numba_lock)


def _after_fork() -> None:
    numba_lock = _held.pop()
    if numba_lock is not None:
        numba_lock.release()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


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
    where = "" if kernel_cache.cache_folder() is None else ", once on this machine"
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
