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

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

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


def _shaped(form: Any, value: Any) -> Any:
    """The element type, or a vector of as many of them as `value` has."""
    return ir.VectorType(form, value.type.count) if isinstance(value.type, ir.VectorType) else form


def _constant(value: Any, n: int) -> Any:
    form = _shaped(_I32, value)
    return ir.Constant(form, [n] * form.count if isinstance(form, ir.VectorType) else n)


def _widen(builder: Any, kind: Any, value: Any) -> Any:
    """Elements, or a vector of them, widened exactly."""
    if kind == types.int16:
        return builder.fpext(value, _shaped(ir.FloatType(), value))
    if kind == types.uint16:
        bits = builder.zext(value, _shaped(_I32, value))
        return builder.bitcast(builder.shl(bits, _constant(value, 16)), _shaped(ir.FloatType(), value))
    return value


def _narrow(builder: Any, kind: Any, value: Any) -> Any:
    """The reverse, rounded to nearest even."""
    if kind == types.int16:
        return builder.fptrunc(value, _shaped(ir.HalfType(), value))
    if kind == types.uint16:
        # the NaN that is written has no low bits, so that rounding half to even is one integer add
        bits = builder.bitcast(value, _shaped(_I32, value))
        odd = builder.and_(builder.lshr(bits, _constant(value, 16)), _constant(value, 1))
        bits = builder.add(bits, builder.add(odd, _constant(value, 0x7FFF)))
        return builder.trunc(builder.lshr(bits, _constant(value, 16)), _shaped(ir.IntType(16), value))
    return value


@intrinsic
def load(typingctx: Any, kind: Any, address: Any, index: Any) -> Any:
    """Element `index` of the run at `address`, widened exactly."""
    if kind not in _ELEMENT:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # align=1: memory-mapped and record arrays need not be aligned
        return _widen(builder, kind, builder.load(_pointer(builder, kind, args[1], args[2]), align=1))

    return _ELEMENT[kind][1](kind, types.int64, types.int64), codegen


@intrinsic
def store(typingctx: Any, kind: Any, address: Any, index: Any, value: Any) -> Any:
    """Write element `index` of the run at `address`, rounded to nearest even from the widened type."""
    if kind not in _ELEMENT:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = _narrow(builder, kind, args[3])
        builder.store(value, _pointer(builder, kind, args[1], args[2]), align=1)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, _ELEMENT[kind][1]), codegen


#: Bytes of a cache line.
LINE = 64


@intrinsic
def stream(typingctx: Any, kind: Any, address: Any, source: Any, divisor: Any) -> Any:
    """Write the line at `address`, which is aligned, past the caches: widened elements at `source` (over divisor)."""
    form, wide = _ELEMENT[kind][0], _ELEMENT[kind][1]
    many = LINE * 8 // kind.bitwidth

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, to, at, by = args
        vector = ir.VectorType(_ELEMENT[wide][0], many)
        value = builder.load(builder.inttoptr(at, vector.as_pointer()), align=1)
        if divisor != types.none:
            lone = builder.insert_element(ir.Constant(vector, ir.Undefined), by, ir.Constant(_I32, 0))
            each = builder.shuffle_vector(lone, lone, ir.Constant(ir.VectorType(_I32, many), [0] * many))
            value = builder.fdiv(value, each)
        value = _narrow(builder, kind, value)
        written = builder.store(value, builder.inttoptr(to, ir.VectorType(form, many).as_pointer()), align=LINE)
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.none if divisor == types.none else wide), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """What was streamed before is seen by other threads before what is written after."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


#: Rows and columns of the tiles that `transpose_in` and `transpose_out` move.
TILE = 8
# Swaps within pairs, within pairs of pairs, between halves: instructions that every AVX machine has.
_STEPS = (
    (1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
    (2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    (4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)


def _transpose(typingctx: Any, kind: Any, inwards: bool) -> Any:
    element, wide = _ELEMENT[kind]
    wide_element = ir.DoubleType() if wide == types.float64 else ir.FloatType()
    read, written = (element, wide_element) if inwards else (wide_element, element)

    def row(builder: Any, form: Any, address: Any, stride: Any, i: int) -> Any:
        at = builder.add(address, builder.mul(stride, ir.IntType(64)(i)))
        return builder.inttoptr(at, ir.VectorType(form, TILE).as_pointer())

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, source, source_stride, target, target_stride = args
        rows = [builder.load(row(builder, read, source, source_stride, i), align=1) for i in range(TILE)]
        if inwards:
            rows = [_widen(builder, kind, value) for value in rows]
        for distance, low, high in _STEPS:
            for i in range(TILE):
                if i & distance == 0:
                    pair = rows[i], rows[i + distance]
                    for at, order in ((i, low), (i + distance, high)):
                        rows[at] = builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(_I32, TILE), list(order)))
        for i, value in enumerate(rows):
            value = value if inwards else _narrow(builder, kind, value)
            builder.store(value, row(builder, written, target, target_stride, i), align=1)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def transpose_in(typingctx: Any, kind: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
    """Widen 8 elements of each of 8 rows; those of a column become neighbours. Strides in bytes."""
    return _transpose(typingctx, kind, True)


@intrinsic
def transpose_out(typingctx: Any, kind: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
    """The reverse: 8 widened elements of each of 8 rows; those of a column become neighbours, rounded."""
    return _transpose(typingctx, kind, False)


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
def opaque(typingctx: Any, value: Any) -> Any:
    """The same uint64, of which LLVM knows nothing.

    Before a vectorised loop LLVM asks whether its runs overlap, and prefers to ask for all turns of the loop around
    it at once. Runs that interleave over these turns then seem to overlap, and the scalar loop is taken instead.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [args[0]], side_effect=True)

    return types.uint64(types.uint64), codegen


@intrinsic
def element_size(typingctx: Any, kind: Any) -> Any:
    """Bytes of an element."""
    size = kind.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.int64, size)

    return types.int64(kind), codegen


#: Relative spacing, smallest positive and largest finite number of each float format.
_SPACING: dict[Any, Any] = {
    types.float32: (2.0**-23, 2.0**-149, (2.0 - 2.0**-23) * 2.0**127),
    types.float64: (2.0**-52, 2.0**-1074, (2.0 - 2.0**-52) * 2.0**1023),
    types.int16: (2.0**-10, 2.0**-24, 65504.0),
    types.uint16: (2.0**-7, 2.0**-133, (2.0 - 2.0**-7) * 2.0**127),
}


@intrinsic
def spacing(typingctx: Any, kind: Any) -> Any:
    """(relative spacing, smallest positive, largest finite number) of the element format, float64 each."""
    form: Any = types.UniTuple(types.float64, 3)  # type: ignore[attr-defined]
    values = _SPACING[kind]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, form, [context.get_constant(types.float64, v) for v in values])

    return form(kind), codegen


@intrinsic
def rounded(typingctx: Any, kind: Any, value: Any) -> Any:
    """A widened value rounded to the element format, and widened again."""
    wide = _ELEMENT[kind][1]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = _narrow(builder, kind, args[1])
        return _widen(builder, kind, narrow)

    return wide(kind, wide), codegen


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


#: Add to, lower, or raise the int64 at an address; the old value. All order memory.
atomic_add = _atomic("add")
atomic_min = _atomic("min")
atomic_max = _atomic("max")
