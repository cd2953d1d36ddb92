"""The workers by their names, each alone and several of them at once. Nothing here needs Numba until one is compiled.

Workers take items from a shared counter, so that a slow core holds nobody up; who takes what has no
influence on any bit.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .._machine_code import prebuilt as _prebuilt
from .._machine_code import threads
from .._machine_code.entries import Entry
from .parameters import Call

#: The scalar whose type tells a worker the element type (`memory`).
KINDS = {"float32": np.float32(0), "float64": np.float64(0), "float16": np.int16(0), "bfloat16": np.uint16(0)}

#: Modules and the workers that they hold.
_MODULES: dict[str, tuple[str, ...]] = {
    "accumulate": ("accumulate_grouped", "accumulate_gumbel_max", "accumulated"),
    "categorical": ("grouped",),
    "conditional": ("conditional", "conditional_short"),
    "densities": ("given_log_prob",),
    "entropy": ("entropy", "entropy_short"),
    "gumbel_max": ("gumbel_max",),
    "multinomial": ("multinomial",),
    "noise": ("noise_float32", "noise_float64"),
    "ragged": ("ragged_gather", "ragged_grouped", "ragged_gumbel_max"),
    "relaxed": ("relaxed_float32", "relaxed_float64"),
    "relaxed_short": ("relaxed_short_float32", "relaxed_short_float64"),
    "short": ("grouped_short", "gumbel_max_short", "truncated_grouped_short", "truncated_gumbel_max_short"),
    "table": ("table_weights", "table_head", "table_split", "table_draw", "table_rows"),
    "top_k": ("top_k", "top_k_weights"),
    "top_k_short": ("top_k_short",),
    "truncated": ("truncated",),
    "vjp": ("vjp", "vjp_short"),
}
#: Every worker that is made for each dtype, and its module.
WORKERS = {worker: module for module, workers in _MODULES.items() for worker in workers}


def _make_fan_out() -> Callable[..., None]:
    from .entry_points import fan_out

    return fan_out


_parallel = Entry(_make_fan_out, "fan_out", 3, parallel=True)


@functools.cache
def _prebuilt_fan_out() -> Callable[..., None] | None:
    """What a wheel brings in its place: it calls what Numba's `prange` calls."""
    address = _prebuilt.address("fan_out") if _prebuilt.starts_threads() else None
    return None if address is None else ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)


class Driver:
    """A worker for one element type."""

    def __init__(self, module: str, worker: str, kind: Any, name: str) -> None:
        self._module, self._worker, self._kind = module, worker, kind
        #: Do a call with one worker, at the address of its shared words.
        self.serial = Entry(self._make, name)

    def _make(self) -> Callable[..., None]:
        from . import entry_points

        return entry_points.alone(entry_points.worker_of(self._module, self._worker), self._kind)  # type: ignore[no-any-return]

    @property
    def parameters(self) -> type:
        """The class of what it is given (`signatures`)."""
        from . import entry_points

        return entry_points.parameters_of(entry_points.worker_of(self._module, self._worker))

    def parallel(self, call: int, workers: int) -> None:
        """Do a call with several workers."""
        prebuilt = _prebuilt_fan_out()
        if prebuilt is None:
            _parallel(self.serial.address, call, workers)
        else:
            prebuilt(self.serial.address, call, workers, threads.layer().parallel_for)

    def __call__(self, parameters: Any) -> None:
        """Do what one worker does at once, without items or scratch."""
        call = Call(parameters)  # a name, or its memory is free again before the kernel reads it
        self.serial(call.address)


@functools.cache
def driver(worker: str, dtype: str) -> Driver:
    """The driver of a worker, by its name and that of the element dtype."""
    return Driver(WORKERS[worker], worker, KINDS[dtype], f"{worker}_{dtype}")


#: What visits no elements: for float64 alone.
spawn_seeds = Driver("noise", "spawn_seeds", KINDS["float64"], "spawn_seeds")
join_rows = Driver("accumulate", "join_rows", KINDS["float64"], "join_rows")
merge_winners = Driver("accumulate", "merge_winners", KINDS["float64"], "merge_winners")

#: The entry points beside the workers'.
ENTRIES = (spawn_seeds.serial, join_rows.serial, merge_winners.serial)


def ready() -> None:
    """Load or compile what starts several workers, and the entry points beside the workers'."""
    if _prebuilt_fan_out() is None:
        _parallel.ready()
    for each in ENTRIES:
        each.ready()
