"""What is compiled: a worker that reads its parameters, and several of them under `prange`."""

from __future__ import annotations

import importlib
import typing
from typing import Any

from llvmlite import ir
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from .memory import fence
from .records import parameters_at, work_at


def worker_of(module: str, name: str) -> Any:
    """A worker, by its module and its name."""
    return getattr(importlib.import_module(f".{module}", __package__), name)


def parameters_of(worker: Any) -> type:
    """The class of what a worker is given (`signatures`)."""
    return typing.get_type_hints(worker.py_func)["p"]  # type: ignore[no-any-return]


def alone(worker: Any, kind: Any) -> Any:
    """The entry point of a worker for one element type: it takes the address of a call's shared words."""
    parameters = parameters_at(parameters_of(worker))

    def entry(call):
        worker(kind, work_at(call), parameters(call))
        fence()  # it may have streamed

    return entry


@intrinsic
def _call(typingctx: Any, function: Any, call: Any) -> Any:
    """Call the entry point at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], form.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def fan_out(function, call, workers):
    """Do a call with so many workers, by the address of one's entry point: compiled once for all of them."""
    for _ in prange(workers):
        _call(function, call)
