"""The entry points: each worker alone, and several of them under `prange`.

Workers take items from a shared counter, so that a slow core holds nobody up; who takes what has no
influence on any bit. The loop over workers calls machine code by its address: it is compiled once, not
once for each worker and dtype.
"""

from __future__ import annotations

import functools
import typing
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from .._jit import Entry
from . import (
    accumulate,
    categorical,
    conditional,
    densities,
    entropy,
    gumbel_max,
    multinomial,
    noise,
    ragged,
    relaxed,
    relaxed_short,
    short,
    table,
    top_k,
    top_k_short,
    truncated,
    vjp,
)
from .memory import fence
from .parameters import Call, parameters_at, work_at

#: The scalar whose type tells a worker the element type (`memory`).
KINDS = {"float32": np.float32(0), "float64": np.float64(0), "float16": np.int16(0), "bfloat16": np.uint16(0)}

#: Every worker by its name.
WORKERS: dict[str, Any] = {
    "accumulate_grouped": accumulate.accumulate_grouped,
    "accumulate_gumbel_max": accumulate.accumulate_gumbel_max,
    "accumulated": accumulate.accumulated,
    "grouped": categorical.grouped,
    "grouped_short": short.grouped_short,
    "gumbel_max": gumbel_max.gumbel_max,
    "gumbel_max_short": short.gumbel_max_short,
    "truncated": truncated.truncated,
    "truncated_grouped_short": short.truncated_grouped_short,
    "truncated_gumbel_max_short": short.truncated_gumbel_max_short,
    "noise_float32": noise.noise_float32,
    "noise_float64": noise.noise_float64,
    "ragged_gather": ragged.gather,
    "ragged_grouped": ragged.ragged_grouped,
    "ragged_gumbel_max": ragged.ragged_gumbel_max,
    "relaxed_float32": relaxed.relaxed_float32,
    "relaxed_float64": relaxed.relaxed_float64,
    "relaxed_short_float32": relaxed_short.relaxed_short_float32,
    "relaxed_short_float64": relaxed_short.relaxed_short_float64,
    "entropy": entropy.entropy,
    "entropy_short": entropy.entropy_short,
    "given_log_prob": densities.given_log_prob,
    "table_weights": table.table_weights,
    "table_head": table.table_head,
    "table_split": table.table_split,
    "table_draw": table.table_draw,
    "table_rows": table.table_rows,
    "multinomial": multinomial.multinomial,
    "conditional": conditional.conditional,
    "conditional_short": conditional.conditional_short,
    "top_k": top_k.top_k,
    "top_k_short": top_k_short.top_k_short,
    "top_k_weights": top_k.top_k_weights,
    "vjp": vjp.vjp,
    "vjp_short": vjp.vjp_short,
}


@intrinsic
def _call(typingctx: Any, function: Any, call: Any) -> Any:
    """Call the entry point at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], form.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _fan_out(function, call, workers):
    for _ in prange(workers):
        _call(function, call)


_parallel = Entry(_fan_out, "fan_out", 3, parallel=True)


class Driver:
    """A worker for one element type."""

    def __init__(self, worker: Any, kind: Any, name: str) -> None:
        #: The class of what it is given (`parameters`).
        self.parameters: type = typing.get_type_hints(worker.py_func)["p"]
        parameters = parameters_at(self.parameters)

        def alone(call):
            worker(kind, work_at(call), parameters(call))
            fence()  # it may have streamed

        #: Do a call with one worker, at the address of its shared words.
        self.serial = Entry(alone, name)

    def parallel(self, call: int, workers: int) -> None:
        """Do a call with several workers."""
        _parallel(self.serial.address, call, workers)

    def __call__(self, parameters: Any) -> None:
        """Do what one worker does at once, without items or scratch."""
        call = Call(parameters)  # a name, or its memory is free again before the kernel reads it
        self.serial(call.address)


@functools.cache
def driver(worker: str, dtype: str) -> Driver:
    """The driver of a worker, by its name and that of the element dtype."""
    return Driver(WORKERS[worker], KINDS[dtype], f"{worker}_{dtype}")


#: What visits no elements: for float64 alone.
spawn_seeds = Driver(noise.spawn_seeds, KINDS["float64"], "spawn_seeds")
join_rows = Driver(accumulate.join_rows, KINDS["float64"], "join_rows")
merge_winners = Driver(accumulate.merge_winners, KINDS["float64"], "merge_winners")

#: The entry points beside the workers'.
ENTRIES = (_parallel, spawn_seeds.serial, join_rows.serial, merge_winners.serial)
