"""Memory that kernels use after the call that launched them has returned: scratch, and what nobody else keeps alive.

A stretch of scratch serves one call at a time. Behind a call's kernels an event is recorded, and the stretch goes back
to its device's pool. The next call on the same stream may have it at once, as its kernels run later; a call on another
stream may have it when the event has passed. So neither threads nor streams meet in it, no thread or stream takes
memory with it when it ends, and there are as many stretches as calls ran at a time.

A call that is captured into a graph has its memory for good: the graph may be launched at any time.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import cuda

from .._cuda import numba_cuda

_LEAST, _STEP = 1 << 20, 1 << 26


class Stretch:
    """Device memory, the event behind its last use, and the stream of that."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.array = cuda.device_array(size, np.uint8)
        self.address = numba_cuda.address(self.array)
        self.event = numba_cuda.event()
        self.stream = -1


class Pool:
    """What lies idle on a device, and what kernels there still use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Stretch] = []
        self._used: list[tuple[Any, list[Any]]] = []
        self._captured: list[Any] = []

    def borrow(self, size: int, stream: int) -> Stretch | None:
        """The smallest idle stretch of at least this size that a call on the stream may use; best, its own."""
        with self._lock:
            large = sorted((one for one in self._idle if one.size >= size), key=lambda one: one.size)
            own = [one for one in large if one.stream == stream]
            if not own and large:
                with numba_cuda.beside_captures():
                    own = [one for one in large if one.event.query()]
            if not own:
                return None
            self._idle.remove(own[0])
            return own[0]

    def give_back(self, stretch: Stretch) -> None:
        """A stretch whose event has been recorded."""
        with self._lock:
            self._idle.append(stretch)

    def keep(self, things: list[Any], event: Any) -> None:
        """Keep things alive until an event has passed; without one, for good."""
        with self._lock:
            if event is None:
                self._captured.append(things)
            else:
                self._used.append((event, things))

    def tidy(self) -> None:
        """Let go of what kernels have finished with."""
        if not self._used:
            return
        with self._lock, numba_cuda.beside_captures():
            before, self._used = self._used, []
            passed = [event.query() for event, _ in before]
            self._used = [one for one, has_passed in zip(before, passed, strict=True) if not has_passed]

    def free(self) -> int:
        """Free what lies idle and is not in use; how many bytes that were."""
        with self._lock, numba_cuda.beside_captures():
            passed = [one for one in self._idle if one.event.query()]
            self._idle = [one for one in self._idle if one not in passed]
            freed = sum(one.size for one in passed)
            passed.clear()
        return freed


_pools: dict[int, Pool] = {}


def _pool(device: int) -> Pool:
    return _pools.get(device) or _pools.setdefault(device, Pool())  # one for all threads


def free() -> int:
    """`Pool.tidy` and `Pool.free` of every device."""
    freed = 0
    for device, pool in list(_pools.items()):
        with numba_cuda.on_device(device):
            pool.tidy()
            freed += pool.free()
    return freed


class Lease:
    """The memory of one call, on one stream of the current device, from its first kernel to its last."""

    def __init__(self, device: int, handle: int) -> None:
        self._pool, self._handle = _pool(device), handle
        self._stretches: list[Stretch] = []
        self._begun = 0

    def begin(self) -> None:
        """Forget the scratch that was taken so far: kernels that are launched later run later."""
        self._begun = 0

    def take(self, size: int) -> tuple[Any, int]:
        """The array that holds the next so many bytes of scratch, and the address of these."""
        last = self._stretches[-1].size if self._stretches else 0
        if not self._stretches or self._begun + size > last:
            # room for all of a call like this; twice as much while that is little
            self._stretches.append(self._more(max(self._begun + size, min(2 * last, last + _STEP), _LEAST)))
            self._begun = 0
        start, self._begun = self._begun, self._begun + size
        return self._stretches[-1].array, self._stretches[-1].address + start

    def _more(self, size: int) -> Stretch:
        found = self._pool.borrow(size, numba_cuda.stream_id(self._handle))
        if found is not None:
            return found
        if not numba_cuda.is_capturing(self._handle):
            self._pool.free()  # it was too small, or is not needed any more
        with numba_cuda.beside_captures():
            return Stretch(size)

    def end(self, things: list[Any]) -> None:
        """Give scratch back, and keep other things, behind the kernels launched so far."""
        self._pool.tidy()
        stretches, self._stretches, self._begun = self._stretches, [], 0
        if not stretches and not things:
            return
        if numba_cuda.is_capturing(self._handle):
            self._pool.keep([stretches, things], None)
            return
        things = [*stretches[:-1], *things]
        if things:
            event = numba_cuda.event()
            event.record(self._handle)
            self._pool.keep(things, event)
        if stretches:
            largest = stretches[-1]
            largest.stream = numba_cuda.stream_id(self._handle)
            largest.event.record(self._handle)
            self._pool.give_back(largest)
