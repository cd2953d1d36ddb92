"""The loops of a worker over the items of a call. Items come from a shared counter, so that no worker waits.

They and the bodies that they call are inlined by force: a body must see where the worker's arrays come from, which
tells LLVM that no two overlap (`scratch`).
"""

from __future__ import annotations

from numba import int64

from .._jit import inlined, njit
from .memory import atomic_add
from .records import next_item_address


@njit
def take_items(work, chunk_size):
    """The next items first .. last - 1; none are left when first is not below last."""
    first = atomic_add(next_item_address(work), chunk_size)
    return first, min(first + chunk_size, work.end_item)


@inlined
def each_item(kind, work, p, chunk_size, body, arrays):
    """Call `body(kind, work, p, item, arrays)` for items until none is left, so many taken at a time."""
    while True:
        first, last = take_items(work, chunk_size)
        if first >= last:
            break
        for item in range(first, last):
            body(kind, work, p, int64(item), arrays)


@inlined
def each_tile(kind, work, p, rows, body, arrays):
    """Call `body(kind, work, p, first, count, arrays)` for tiles of `p.width` of so many rows until none is left."""
    while True:
        tile = atomic_add(next_item_address(work), int64(1))
        if tile >= work.end_item:
            break
        first = tile * p.width
        body(kind, work, p, first, min(rows - first, p.width), arrays)
