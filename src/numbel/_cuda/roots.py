"""What stands for each row: its node, or the category that it has without a law."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64

from .._scalar import blocks as scalar
from .blocks import functions
from .categorical import join_blocks, write_sample
from .forms import FORMS, matrix, vector
from .rows import CALL, DRAWN, GREEDY, INVALID, extents, kind_of, results

_NAN = math.nan
#: Of a row that has a law; another one has its argmax instead, or -1.
LAW = -2


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    argmax = functions(form).argmax
    number, extent = extents(layout)

    def row_nodes(logits, call, blocks, nodes, roots, fixed, results):
        """roots[:, row] = (r, S) of a row, from `blocks` nodes; fixed[row]: LAW, or its only category."""
        tree_r = cuda.shared.array(128, float64)
        tree_s = cuda.shared.array(128, float64)
        stack_r = cuda.shared.array(32, float64)
        stack_s = cuda.shared.array(32, float64)
        at = cuda.shared.array(128, int64)
        for row in range(int64(cuda.blockIdx.x), number(logits, call), int64(cuda.gridDim.x)):
            _, _, columns = extent(logits, call, row)
            kind = kind_of(call, call.first_row + row)
            log_sum, only, is_bad, root_r, root_s = _NAN, int64(-1), kind == INVALID, 0.0, _NAN
            if kind == GREEDY:
                only, log_sum, is_bad = argmax(logits, row, int64(0), columns, tree_r, at)
            elif kind == DRAWN:
                own = (columns + scalar.BLOCK - 1) // scalar.BLOCK
                join_blocks(nodes, row * blocks, own, tree_r, tree_s, stack_r, stack_s)
                root_r, root_s = stack_r[0], stack_s[0]
                is_bad = not root_s > 0.0
                if not is_bad:
                    only, log_sum = int64(LAW), scalar.logsumexp(root_r, root_s)
                cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                roots[0, row], roots[1, row], fixed[row] = root_r, root_s, only
                write_sample(call.first_row + row, int64(0), int64(0), only, _NAN, log_sum, is_bad, results)

    rows, numbers, vectors = matrix(form, layout), matrix(FORMS["float64"], "C"), vector(int64)
    return {"row_nodes": (row_nodes, (rows, CALL, int64, numbers, numbers, vectors, results(form.wide)))}
