"""Bit-level primitives that Numba has no spelling for: fused multiply-add and bit casts.

They are intrinsics of `numba.extending`, which CPU and CUDA targets both accept.
"""

from __future__ import annotations

from typing import Any

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


@inlined
def product(a, b):
    """A * b rounded on its own, float64: a compiler that contracts would fuse a plain product with a sum."""
    return fma(a, b, 0.0)


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
