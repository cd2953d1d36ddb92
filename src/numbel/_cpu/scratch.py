"""Arrays of a worker, in memory that its call was lent.

An array is a pointer: no length, no strides, no negative index. As Numba's arrays of seven fields, those that the
workers hand on were two thirds of their code before LLVM saw it.

A worker allocates nothing, because it could not raise in a parallel loop. It takes all its arrays first, and returns if
they do not fit into what its call was lent. Then the driver lends more, or raises MemoryError.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import int64, uint64
from numba.core import cgutils, types
from numba.core.types import CPointer  # type: ignore[attr-defined]
from numba.extending import intrinsic

from .._jit import inlined
from .memory import atomic_add, atomic_max, load, store
from .records import next_scratch_address, scratch_needed_address

#: Arrays start at multiples of a cache line, so that vectors of 64 bytes do not straddle two.
ALIGN = 64
_WORD = ir.IntType(64)
_POINTER = ir.IntType(8).as_pointer()


@inlined
def open_scratch(work):
    """The worker's part of the memory that the call was lent; its first word counts the bytes that are taken."""
    scratch = atomic_add(next_scratch_address(work), work.scratch_size)
    store(int64(0), scratch, int64(0), int64(ALIGN))
    return scratch


@inlined
def lacks_scratch(work, scratch):
    """Whether the arrays that were taken need more than the call was lent; it is told how much, and nothing is done."""
    needed = load(int64(0), scratch, int64(0))
    if needed > work.scratch_size:
        atomic_max(scratch_needed_address(work), needed)
        return True
    return False


def _take(module: Any) -> Any:
    """Emit the function that takes the next bytes of a scratch.

    It stays a call: only the result of a call can be `noalias`, which tells LLVM that no two arrays overlap. Loops over
    several of them then vectorise without a check.
    """
    name = "numbel_take_scratch"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(_POINTER, [_WORD, _WORD]), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.return_value.add_attribute("noalias")
    scratch, size = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    counter = builder.inttoptr(scratch, _WORD.as_pointer())
    taken = builder.load(counter)
    rounded = builder.and_(builder.add(size, _WORD(ALIGN - 1)), _WORD(-ALIGN))
    builder.store(builder.add(taken, rounded), counter)
    builder.ret(builder.inttoptr(builder.add(scratch, taken), _POINTER))
    return function


def _pointer(context: Any, dtype: Any) -> Any:
    return context.get_data_type(dtype).as_pointer()


def _taken(context: Any, builder: Any, dtype: Any, scratch: Any, length: Any) -> Any:
    size = builder.mul(length, context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(dtype))))
    return builder.bitcast(builder.call(_take(builder.module), [scratch, size]), _pointer(context, dtype))


@intrinsic
def empty(typingctx: Any, scratch: Any, length: Any, dtype: Any) -> Any:
    """An uninitialised array in a scratch."""
    kept = dtype.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _taken(context, builder, kept, args[0], args[1])

    return CPointer(kept)(types.int64, types.intp, dtype), codegen


@intrinsic
def workspace(typingctx: Any, scratch: Any, kind: Any, length: Any) -> Any:
    """`empty` of the type that `kind` is widened to."""
    dtype = types.float64 if kind == types.float64 else types.float32

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _taken(context, builder, dtype, args[0], args[2])

    return CPointer(dtype)(types.int64, kind, types.intp), codegen


@intrinsic(prefer_literal=True)
def local(typingctx: Any, length: Any, dtype: Any) -> Any:
    """An uninitialised array on the stack, of a constant, small length."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.ArrayType(context.get_data_type(dtype.dtype), length.literal_value)
        return builder.bitcast(cgutils.alloca_once(builder, memory), _pointer(context, dtype.dtype))

    return CPointer(dtype.dtype)(length, dtype), codegen


@intrinsic
def address_of(typingctx: Any, array: Any) -> Any:
    """The address of an array's first element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], _WORD)

    return types.int64(array), codegen


@intrinsic
def tail(typingctx: Any, array: Any, first: Any) -> Any:
    """The array from element `first` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return array(array, types.intp), codegen


@inlined
def fill(array, first, end, value):
    """Set elements first .. end - 1."""
    for i in range(uint64(first), uint64(end)):
        array[i] = value
