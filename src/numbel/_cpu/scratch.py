"""Scratch arrays of a worker, in memory that is reserved before any worker starts.

A worker allocates nothing: in a parallel loop it could neither raise nor return. The driver runs a worker once on a job
that only measures, reserves what all workers need, and raises MemoryError if that cannot be had. A worker therefore takes
all its arrays first, and returns where the job `measures`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import int64
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from .._jit import inlined
from .memory import atomic_add, store

#: Arrays start at multiples of a cache line, so that vectors of 64 bytes do not straddle two.
ALIGN = 64
_WORD = ir.IntType(64)
_POINTER = ir.IntType(8).as_pointer()


@inlined
def measures(j):
    """Whether the job only asks how much scratch a worker takes."""
    return j.scratch_size == 0


@inlined
def open_scratch(j):
    """This worker's part of the reserved memory; its first word counts the bytes that are taken.

    When a job only measures, that word is the job's own, and the arrays lie nowhere.
    """
    scratch = j.next_scratch_at
    if j.scratch_size != 0:
        scratch = atomic_add(j.next_scratch_at, j.scratch_size)
        store(int64(0), scratch, int64(0), int64(ALIGN))
    return scratch


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


def _array(context: Any, builder: Any, form: Any, lengths: list[Any], data: Any) -> Any:
    """A C-contiguous array at `data`, or in the scratch whose address that is."""
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(form.dtype)))
    strides: list[Any] = []
    total = size
    for length in reversed(lengths):
        strides.insert(0, total)
        total = builder.mul(total, length)
    if data.type == _WORD:
        data = builder.call(_take(builder.module), [data, total])
    array = make_array(form)(context, builder)
    pointer = builder.bitcast(data, context.get_data_type(form.dtype).as_pointer())
    populate_array(array, data=pointer, shape=lengths, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic
def empty(typingctx: Any, scratch: Any, shape: Any, dtype: Any) -> Any:
    """An uninitialised array in a scratch; `shape` is a length or a tuple of lengths."""
    several = isinstance(shape, types.BaseTuple)
    form: Any = types.Array(dtype.dtype, len(shape) if several else 1, "C")
    wanted = types.UniTuple(types.intp, len(shape)) if several else types.intp  # type: ignore[attr-defined]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lengths = cgutils.unpack_tuple(builder, args[1]) if several else [args[1]]
        return _array(context, builder, form, lengths, args[0])

    return form(types.int64, wanted, dtype), codegen


@intrinsic
def workspace(typingctx: Any, scratch: Any, kind: Any, length: Any) -> Any:
    """`empty` of the type that `kind` is widened to."""
    form: Any = types.Array(types.float64 if kind == types.float64 else types.float32, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _array(context, builder, form, [args[2]], args[0])

    return form(types.int64, kind, types.intp), codegen


@intrinsic(prefer_literal=True)
def local(typingctx: Any, length: Any, dtype: Any) -> Any:
    """An uninitialised array on the stack, of a constant, small length."""
    form: Any = types.Array(dtype.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.ArrayType(context.get_data_type(form.dtype), length.literal_value)
        data = builder.bitcast(cgutils.alloca_once(builder, memory), _POINTER)
        return _array(context, builder, form, [context.get_constant(types.intp, length.literal_value)], data)

    return form(length, dtype), codegen
