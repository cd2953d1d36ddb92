"""Launches of sampling without replacement, some rows at a time, and of its importance weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._scalar.limits import BLOCK
from . import top_k as _top_k
from . import top_k_weights as _top_k_weights
from .forms import THREADS
from .launch import LaunchContext, _blocks, _launch, _layout
from .rows import Call
from .shared import Entries
from .top_k import MARKS, SORTED, Bounds, Chosen, Lists, Marks, Pass
from .top_k_weights import Normalisation, WithoutReplacement

#: Groups of columns of a row, at least, and for each of the k + 1: few rows have many more candidates than these.
_GROUPS, _GROUPS_EACH = 1 << 12, 8
#: Columns for each of the k + 1 chosen that are looked at first: of the others one in so many takes logarithms.
_LOOKED_AT = 1 << 9
#: Entries of rows at a time, unless one row has more: 256 MB.
_ENTRIES = 1 << 24


def top_k(logits: Any, call: Call, k: int, chosen: Chosen, context: LaunchContext) -> None:
    """The k largest perturbed logits of rows."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    groups = 1
    while groups < THREADS and groups * blocks < max(_GROUPS, _GROUPS_EACH * (k + 1)):
        groups *= 2
    # k + 1 groups hold all candidates, if there are as many
    capacity = min(columns, BLOCK // groups * (k + 1)) if k < groups * blocks else columns
    sampled = -(-_LOOKED_AT * (k + 1) // BLOCK)
    passes = [Pass(blocks, 1, groups)]
    if 8 * sampled <= blocks:
        passes.insert(0, Pass(sampled, blocks // sampled, THREADS))
    of_row = max(each.blocks * each.groups for each in passes)
    step = max(1, min(count, _ENTRIES // (capacity + of_row)))
    scratch = context.scratch
    winners = Entries(scratch(step * of_row, np.float64), scratch(step * of_row, np.int64))
    entries = Entries(scratch(step * capacity, np.float64), scratch(step * capacity, np.int64))
    bounds = Bounds(np.uint8(0), scratch(step, np.float64), scratch(step, np.int64))
    counts, marks = scratch(step, np.int64), Marks(scratch(step * blocks * MARKS, np.uint64), blocks)
    nodes = scratch((2, step * blocks), np.float64)
    for first in range(0, count, step):
        some = min(step, count - first)
        view = logits if some == count else logits[first : first + some]
        part = call._replace(first_row=call.first_row + first)
        items, numbers = some * blocks, counts[:some]
        lists = Lists(numbers, entries, capacity)
        for each in passes:
            here = bounds._replace(limited=np.uint8(each is not passes[0]))
            _launch(_top_k, "block_tops", some * each.blocks, context, view, part, each, here, winners, layout=layout)
            found = winners, each.blocks * each.groups, columns, k, here, numbers
            _launch(_top_k, "bound", some, context, part, *found)
        _launch(_top_k, "collect", items, context, view, part, bounds, lists, marks, layout=layout)
        if k < SORTED:
            _launch(_top_k, "select", some, context, lists, k, marks)
        else:
            _sort(lists, context)
            _launch(_top_k, "mark_all", -(-some * k // THREADS), context, lists, k, marks)
        _launch(_top_k, "rest_nodes", items, context, view, part, numbers, k, marks, nodes, layout=layout)
        _launch(_top_k, "finish", some, context, view, part, lists, k, nodes, chosen, layout=layout)


def _sort(lists: Lists, context: LaunchContext) -> None:
    """Sort the entries of rows: bitonic, in shared memory as far as that holds them."""
    counts, capacity = lists.counts, lists.capacity
    tiles = counts.size * -(-capacity // SORTED)
    _launch(_top_k, "sort_tiles", tiles, context, lists, np.uint8(0))
    half = SORTED
    while half < capacity:
        stride = half
        while stride >= SORTED:
            pairs = -(-capacity // (2 * stride)) * stride
            items = -(-counts.size * pairs // THREADS)
            _launch(_top_k, "exchange_all", items, context, lists, pairs, stride, np.uint8(stride == half))
            stride //= 2
        _launch(_top_k, "sort_tiles", tiles, context, lists, np.uint8(1))
        half *= 2


def weights(
    logits: Any, call: Call, drawn: WithoutReplacement, normalisation: Normalisation, out: Any, context: LaunchContext
) -> None:
    """Importance weights of rows."""
    each = logits, call, drawn, normalisation, out
    _launch(_top_k_weights, "weights", logits.shape[0], context, *each, layout=_layout(logits))
