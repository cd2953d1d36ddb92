"""What stands for each row: its node, or the category that it has without a law."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from numba import cuda, int64, types

from .._scalar import blocks as scalar
from .blocks import functions
from .categorical import BlockSums, Outcome, join_blocks, write_sample
from .forms import FORMS, block_items, matrix, vector
from .rows import CALL, DRAWN, GREEDY, INVALID, Columns, blocks_in, extents, results, status_of
from .shared import PER_THREAD, Entries, join_scratch

_NAN = math.nan
#: Of a row that has a law; another one has its argmax instead, or -1.
LAW = -2


class Roots(NamedTuple):
    """Of every row its partial sum, exponents over mantissas, and LAW or its only category."""

    sums: Any
    fixed: Any


ROOTS = types.NamedTuple([matrix(FORMS["float64"], "C"), vector(int64)], Roots)


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    argmax = functions(form).argmax
    number, extent = extents(layout)

    def row_nodes(logits, call, blocks, sums, roots, results):
        """The roots, from the `sums` of `blocks` blocks for each row."""
        join = join_scratch()
        at = cuda.shared.array(PER_THREAD, int64)
        for row in block_items(number(logits, call)):
            count = extent(logits, call, row).count
            status = status_of(call, call.first_row + row)
            log_sum, only, is_bad, root_r, root_s = _NAN, int64(-1), status == INVALID, 0.0, _NAN
            if status == GREEDY:
                columns = Columns(row, int64(0), count)
                only, log_sum, is_bad = argmax(logits, columns, Entries(join.exponents, at))
            elif status == DRAWN:
                root_r, root_s = join_blocks(BlockSums(sums, row * blocks, blocks_in(count)), join)
                is_bad = not root_s > 0.0
                if not is_bad:
                    only, log_sum = int64(LAW), scalar.logsumexp(root_r, root_s)
                cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                roots.sums[0, row], roots.sums[1, row], roots.fixed[row] = root_r, root_s, only
                at_row = call.first_row + row
                write_sample(results, at_row, int64(0), int64(0), Outcome(only, _NAN, log_sum, is_bad))

    rows, sums = matrix(form, layout), matrix(FORMS["float64"], "C")
    return {"row_nodes": (row_nodes, (rows, CALL, int64, sums, ROOTS, results(form.wide)))}
