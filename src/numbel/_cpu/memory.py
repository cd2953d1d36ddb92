"""Memory by address, and atomics: what the workers need beyond Numba arrays.

A kernel that takes addresses and strides compiles once per dtype, whatever the layout, alignment or
writability of the array. `kind` is a scalar whose type names the element type:

| kind    | element  | widened to |
| ------- | -------- | ---------- |
| float32 | float32  | float32    |
| float64 | float64  | float64    |
| int16   | float16  | float32    |
| uint16  | bfloat16 | float32    |
| int64   | int64    | int64      |
| uint8   | bool     | uint8      |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

_ELEMENT: dict[Any, Any] = {
    types.float32: (ir.FloatType(), types.float32),
    types.float64: (ir.DoubleType(), types.float64),
    types.int16: (ir.HalfType(), types.float32),
    types.uint16: (ir.IntType(16), types.float32),
    types.int64: (ir.IntType(64), types.int64),
    types.uint8: (ir.IntType(8), types.uint8),
}
_I32 = ir.IntType(32)


def _pointer(builder: Any, kind: Any, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, _ELEMENT[kind][0].as_pointer()), [index])


@intrinsic
def load(typingctx: Any, kind: Any, address: Any, index: Any) -> Any:
    """Element `index` of the run at `address`, widened exactly."""
    if kind not in _ELEMENT:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # align=1: memory-mapped and record arrays need not be aligned
        value = builder.load(_pointer(builder, kind, args[1], args[2]), align=1)
        if kind == types.int16:
            return builder.fpext(value, ir.FloatType())
        if kind == types.uint16:
            return builder.bitcast(builder.shl(builder.zext(value, _I32), _I32(16)), ir.FloatType())
        return value

    return _ELEMENT[kind][1](kind, types.int64, types.int64), codegen


@intrinsic
def store(typingctx: Any, kind: Any, address: Any, index: Any, value: Any) -> Any:
    """Write element `index` of the run at `address`, rounded to nearest even from the widened type."""
    if kind not in _ELEMENT:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = args[3]
        if kind == types.int16:
            value = builder.fptrunc(value, ir.HalfType())
        elif kind == types.uint16:
            # noise is never NaN, so that rounding half to even is one integer add
            bits = builder.bitcast(value, _I32)
            odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
            bits = builder.add(bits, builder.add(odd, _I32(0x7FFF)))
            value = builder.trunc(builder.lshr(bits, _I32(16)), ir.IntType(16))
        builder.store(value, _pointer(builder, kind, args[1], args[2]), align=1)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, _ELEMENT[kind][1]), codegen


@intrinsic
def copy(typingctx: Any, kind: Any, to: Any, index: Any, source: Any) -> Any:
    """Copy the element at byte address `source` to element `index` of the run at `to`, unchanged."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, target, index, source = args
        zero = ir.Constant(ir.IntType(64), 0)
        value = builder.load(_pointer(builder, kind, source, zero), align=1)
        builder.store(value, _pointer(builder, kind, target, index), align=1)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.int64), codegen


@intrinsic
def element_size(typingctx: Any, kind: Any) -> Any:
    """Bytes of an element."""
    size = kind.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.int64, size)

    return types.int64(kind), codegen


@intrinsic
def zero(typingctx: Any, kind: Any) -> Any:
    """0 in the type that `kind` is widened to."""
    wide = _ELEMENT[kind][1]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(wide, 0)

    return wide(kind), codegen


def _atomic(operation: str) -> Any:
    def typer(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
            return builder.atomic_rmw(operation, pointer, args[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return intrinsic(typer)


#: Add to, or lower, the int64 at an address; the old value. Both order memory.
atomic_add = _atomic("add")
atomic_min = _atomic("min")


def workspace(kind: Any, n: Any) -> Any:
    """An uninitialised array of n elements of the type that `kind` is widened to."""
    raise NotImplementedError("compiled code only")


@overload(workspace, strict=False)
def _workspace(kind: Any, n: Any) -> Any:
    dtype = np.float64 if kind == types.float64 else np.float32
    return lambda kind, n: np.empty(n, dtype)
