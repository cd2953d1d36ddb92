"""Four neighbouring elements of a contiguous matrix by one load, where plain indexing takes four."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

#: Elements that one load takes.
QUAD = 4


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of an element, and an array's item size."""
    matrix = context.make_array(signature.args[0])(context, builder, args[0])
    columns = builder.extract_value(matrix.shape, 1)
    item = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
    return builder.gep(matrix.data, [builder.add(builder.mul(args[1], columns), args[2])]), item


@intrinsic
def _aligned(typingctx: Any, matrix: Any, line: Any, column: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, item = _place(context, builder, signature, args)
        word = ir.IntType(64)
        low = builder.and_(builder.ptrtoint(pointer, word), ir.Constant(word, QUAD * item - 1))
        return builder.icmp_unsigned("==", low, ir.Constant(word, 0))

    return types.boolean(matrix, types.uint64, types.uint64), codegen


@intrinsic
def _quad(typingctx: Any, matrix: Any, line: Any, column: Any) -> Any:
    form = types.UniTuple(matrix.dtype, QUAD)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, item = _place(context, builder, signature, args)
        vector = ir.VectorType(pointer.type.pointee, QUAD)
        # 16 bytes are as much as one load takes: a float64 quad is two
        loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=min(16, QUAD * item))
        each = [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(QUAD)]
        return context.make_tuple(builder, form, each)

    return form(matrix, types.uint64, types.uint64), codegen


def _plain_aligned(matrix: Any, line: Any, column: Any) -> Any:
    return (int(line) * matrix.shape[1] + int(column)) % QUAD == 0


def _plain_quad(matrix: Any, line: Any, column: Any) -> Any:
    return tuple(matrix[line, int(column) + i] for i in range(QUAD))


#: (matrix, line, column), both uint64: whether `quad` may load there, and the four elements from there on.
aligned, quad = (_plain_aligned, _plain_quad) if config.ENABLE_CUDASIM else (_aligned, _quad)
