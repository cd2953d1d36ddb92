"""Bit-level primitives that Numba has no spelling for: fused multiply-add and bit casts.

They are intrinsics of `numba.extending`, which CPU and CUDA targets both accept.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import float32, int32, int64, uint16, uint32
from numba.core import types
from numba.extending import intrinsic

from .._jit import inlined

_BITS: dict[Any, Any] = {types.float32: types.int32, types.float64: types.int64}
_FLOATS: dict[Any, Any] = {bits: floats for floats, bits in _BITS.items()}


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Round a * b + c once; float32 or float64, all of one type."""
    if not (isinstance(a, types.Float) and a == b == c):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), codegen


@intrinsic
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of two floats, or NaN where one of them is NaN.

    A conditional that is stored where one of them came from would become a masked store (0.5 against 0.1 ns).
    """
    if not (isinstance(a, types.Float) and a == b):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = args[0].type
        function = ir.FunctionType(form, [form, form])
        return builder.call(builder.module.declare_intrinsic("llvm.maximum", [form], function), args)

    return a(a, a), codegen


@intrinsic
def larger_number(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of two floats, neither of them NaN, and either of two zeros. Reductions over it vectorise."""
    if not (isinstance(a, types.Float) and a == b):
        return None
    flags = ("nnan", "nsz")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args, flags=flags), *args, flags=flags)

    return a(a, a), codegen


@intrinsic
def select(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """A if the condition holds, else b, without a branch (and so without a masked store: see `larger`)."""
    if condition != types.boolean or a != b:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(args[0], args[1], args[2])

    return a(condition, a, a), codegen


@inlined
def product(a, b):
    """A * b rounded on its own, float64: a compiler that contracts would fuse a plain product with a sum."""
    return fma(a, b, 0.0)


@inlined
def multiply_add(a, b, c):
    """`fma` for the body of a CUDA kernel, which the simulator runs as Python."""
    return fma(a, b, c)


def _bitcast_to(target: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(target))

    return codegen


@intrinsic
def float_to_bits(typingctx: Any, x: Any) -> Any:
    """float32 -> int32, float64 -> int64, same bits."""
    target = _BITS.get(x)
    return None if target is None else (target(x), _bitcast_to(target))


@intrinsic
def bits_to_float(typingctx: Any, x: Any) -> Any:
    """int32 -> float32, int64 -> float64, same bits."""
    target = _FLOATS.get(x)
    return None if target is None else (target(x), _bitcast_to(target))


@inlined
def bits_of(x):
    """`float_to_bits` for the body of a CUDA kernel."""
    return float_to_bits(x)


@inlined
def float_of(bits):
    """`bits_to_float` for the body of a CUDA kernel."""
    return bits_to_float(bits)


def _conversion(operation: str, source: Any, target: Any) -> Any:
    """An intrinsic between the bits of a half, as uint16, and float32."""

    def typer(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if operation == "widen":
                return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())
            return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

        return target(source), codegen

    return intrinsic(typer)


_widen_half = _conversion("widen", types.uint16, types.float32)
_narrow_half = _conversion("narrow", types.float32, types.uint16)


@inlined
def half_to_float(bits):
    """The float32 of a float16, given as its bits."""
    return _widen_half(uint16(bits))


@inlined
def float_to_half(x):
    """The bits of the float16 that a float32 rounds to."""
    return _narrow_half(float32(x))


@inlined
def brain_to_float(bits):
    """The float32 of a bfloat16, given as its bits."""
    return bits_to_float(int32(uint32(bits) << uint32(16)))


@inlined
def float_to_brain(x):
    """The bits of the bfloat16 that a float32 rounds to, to nearest even."""
    bits = uint32(float_to_bits(float32(x)))
    odd = uint32(uint32(bits >> uint32(16)) & uint32(1))
    # a GPU's own NaN, 0x7FFFFFFF, would round to -0
    return uint16(uint32(0x7FC0) if x != x else uint32(bits + uint32(odd + uint32(0x7FFF))) >> uint32(16))


@inlined
def ordered_float32(x):
    """int32 in the order of the float32; NaN beyond +inf or below -inf. Reductions over it vectorise."""
    bits = float_to_bits(x)
    return int32(bits ^ int32(int32(bits >> int32(31)) & int32(0x7FFFFFFF)))


@inlined
def ordered_float64(x):
    """int64 in the order of the float64; NaN beyond +inf or below -inf."""
    bits = float_to_bits(x)
    return bits ^ ((bits >> int64(63)) & int64(0x7FFFFFFFFFFFFFFF))


@inlined
def from_ordered_float32(k):
    """The float32 of an ordered int32."""
    return bits_to_float(int32(k ^ int32(int32(k >> int32(31)) & int32(0x7FFFFFFF))))


@inlined
def from_ordered_float64(k):
    """The float64 of an ordered int64."""
    return bits_to_float(k ^ ((k >> int64(63)) & int64(0x7FFFFFFFFFFFFFFF)))
