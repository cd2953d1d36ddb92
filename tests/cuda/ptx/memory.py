"""The address space of a card in this process: sparse, with gaps that nobody may touch and poison that nobody wrote.

An allocation begins at a multiple of 512 bytes, as CUDA's do, and 512 bytes that belong to nobody follow it. Addresses
are not used twice, so that a pointer to freed memory is found out. Pages are taken when they are first written: an
array of 2^31 elements costs nothing until then.

A shadow of 16 bits for each 512 bytes says how many of them are allocated. Machine code looks there before each access.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import platform
import sys
from typing import NamedTuple

import numpy as np

GRANULE = 512
#: Addresses of one device, 128 GB.
DEVICE_BYTES = 1 << 37
#: The largest allocation that is filled with random bytes: a larger one stays sparse.
POISONED = 1 << 26
_NO_RESERVE = 0x4000
#: Where pages can be mapped as here and in `machine`.
SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64"


class Span(NamedTuple):
    """An allocation."""

    address: int
    size: int
    device: int


class Memory:
    """Allocations of all devices, in one stretch of addresses."""

    def __init__(self, devices: int = 1) -> None:
        self.size = devices * DEVICE_BYTES
        self._pages, self.base = _reserve(self.size + GRANULE)
        self.base = -(-self.base // GRANULE) * GRANULE
        shadow, self.shadow = _reserve(self.size // GRANULE * 2)
        self._shadow = np.frombuffer(shadow, np.uint16)
        self._next = [self.base + device * DEVICE_BYTES for device in range(devices)]
        self._starts: list[list[int]] = [[] for _ in range(devices)]
        self._sizes: dict[int, int] = {}
        self.poisoned = POISONED
        self._random = np.random.default_rng(0)

    def allocate(self, size: int, device: int = 0) -> int:
        """The address of some bytes: random ones, or zeros if they are many."""
        address = self._next[device]
        granules = -(-size // GRANULE)
        after = address + (granules + 1) * GRANULE
        if size <= 0 or after > self.base + (device + 1) * DEVICE_BYTES:
            raise MemoryError(f"{size} bytes")
        self._next[device] = after
        self._starts[device].append(address)
        self._sizes[address] = size
        self._mark(address, granules, GRANULE)
        if size % GRANULE:
            self._mark(address + size, 1, size % GRANULE)
        if size <= self.poisoned:
            ctypes.memmove(address, self._random.bytes(size), size)
        return address

    def release(self, address: int) -> None:
        """Nobody may touch an allocation any more."""
        size = self._sizes.pop(address, None)
        if size is None:
            raise ValueError(f"{address:x} is no allocation")
        starts = self._starts[self.device(address)]
        del starts[bisect.bisect_left(starts, address)]
        self._mark(address, -(-size // GRANULE), 0)
        if size <= POISONED:
            ctypes.memset(address, 0xDD, size)

    def device(self, address: int) -> int:
        """The device that an address belongs to, -1 if to none."""
        inside = 0 <= address - self.base < self.size
        return (address - self.base) // DEVICE_BYTES if inside else -1

    def span(self, address: int) -> Span | None:
        """The allocation around an address."""
        device = self.device(address)
        if device < 0:
            return None
        starts = self._starts[device]
        at = bisect.bisect_right(starts, address) - 1
        if at < 0 or address >= starts[at] + self._sizes[starts[at]]:
            return None
        return Span(starts[at], self._sizes[starts[at]], device)

    def _mark(self, address: int, granules: int, valid: int) -> None:
        first = (address - self.base) // GRANULE
        self._shadow[first : first + granules] = valid


def _reserve(size: int) -> tuple[mmap.mmap, int]:
    """Addresses without pages, and the first of them."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    return pages, ctypes.addressof(ctypes.c_char.from_buffer(pages))
