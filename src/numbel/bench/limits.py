"""What bounds us: reading memory, and Philox alone."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np
from numba import prange, uint64

from .works import Array, Call, Work, logits


@numba.njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum(x: Array, chunks: int) -> Array:
    """Sum of each of `chunks` parts, in 512 lanes: reads as fast as memory delivers."""
    lanes = uint64(512)
    blocks = uint64(x.size) // lanes
    sums = np.zeros(chunks, np.uint32)
    for chunk in prange(chunks):
        accumulators = np.zeros(512, np.uint32)
        first, last = blocks * uint64(chunk) // uint64(chunks), blocks * uint64(chunk + 1) // uint64(chunks)
        for block in range(first, last):
            base = uint64(block) * lanes
            for lane in range(lanes):
                accumulators[lane] += x[base + uint64(lane)]
        sums[chunk] = accumulators.sum()
    return sums


def read(work: Work) -> Call:
    words = logits(work).reshape(-1).view(np.uint32)
    return lambda: _sum(words, 64)


@functools.cache
def _philox_kernel() -> Callable[[int], int]:
    from numbel._cpu.blocks import RowStream
    from numbel._cpu.noise import fill_noise
    from numbel._cpu.signatures import TILE
    from numbel._scalar.address import NOISE

    @numba.njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
    def words(tiles: int) -> int:
        check = 0
        for chunk in prange(64):
            x = np.empty(TILE, np.uint32)
            last = 0
            stream = RowStream(uint64(0), uint64(5), uint64(7))
            for tile in range(chunk, tiles, 64):
                fill_noise(x, TILE, tile * TILE, uint64(0), uint64(NOISE), stream)
                last ^= x[tile % TILE]
            check += last
        return check

    return words  # type: ignore[no-any-return]


def philox(work: Work) -> Call:
    from numbel._cpu.signatures import TILE

    kernel, tiles = _philox_kernel(), work.rows * work.columns // TILE
    return lambda: kernel(tiles)
