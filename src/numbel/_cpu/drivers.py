"""The entry points: each worker alone, and several of them under `prange`.

Workers take items from a shared counter, so that a slow core holds nobody up; who takes what has no
influence on any bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import prange

from .._jit import kernel
from . import categorical, gumbel_max, noise, short


class Drivers(NamedTuple):
    """A worker alone, `(kind, job)`, and several of them, `(kind, job, workers)`."""

    serial: Callable[..., None]
    parallel: Callable[..., None]


def _drivers(worker: Any) -> Drivers:
    def parallel(kind, job, workers):
        for _ in prange(workers):
            worker(kind, job)

    name = worker.py_func.__name__
    return Drivers(kernel(worker.py_func, name, parallel=False), kernel(parallel, f"{name}_parallel", parallel=True))


GROUPED = _drivers(categorical.grouped)
GROUPED_SHORT = _drivers(short.grouped_short)
GUMBEL_MAX_SHORT = _drivers(short.gumbel_max_short)
GUMBEL_MAX = _drivers(gumbel_max.gumbel_max)
NOISE_FLOAT32 = _drivers(noise.noise_float32)
NOISE_FLOAT64 = _drivers(noise.noise_float64)
SPAWN_SEEDS = kernel(noise.spawn_seeds.py_func, "spawn_seeds", parallel=False)
