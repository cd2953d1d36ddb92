"""Launches of sampling without replacement, some rows at a time, and of its importance weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._scalar.blocks import BLOCK
from . import top_k as _top_k
from . import top_k_weights as _top_k_weights
from .forms import THREADS
from .launch import Place, _blocks, _launch, _layout
from .rows import Call
from .top_k import MARKS, SORTED, Chosen

#: Groups of columns of a row, at least, and for each of the k + 1: few rows have many more candidates than these.
_GROUPS, _GROUPS_EACH = 1 << 12, 8
#: Columns for each of the k + 1 chosen that are looked at first: of the others one in so many takes logarithms.
_LOOKED_AT = 1 << 9
#: Entries of rows at a time, unless one row has more: 256 MB.
_ENTRIES = 1 << 24


def top_k(logits: Any, call: Call, k: int, chosen: Chosen, place: Place) -> None:
    """The k largest perturbed logits of rows."""
    count, columns = logits.shape
    blocks, layout = _blocks(columns), _layout(logits)
    groups = 1
    while groups < THREADS and groups * blocks < max(_GROUPS, _GROUPS_EACH * (k + 1)):
        groups *= 2
    # k + 1 groups hold all candidates, if there are as many
    capacity = min(columns, BLOCK // groups * (k + 1)) if k < groups * blocks else columns
    sampled = -(-_LOOKED_AT * (k + 1) // BLOCK)
    passes = [(blocks, 1, groups)]
    if 8 * sampled <= blocks:
        passes.insert(0, (sampled, blocks // sampled, THREADS))
    winners = max(some * each for some, _, each in passes)
    step = max(1, min(count, _ENTRIES // (capacity + winners)))
    scratch = place.scratch
    top_keys, top_at = scratch(step * winners, np.float64), scratch(step * winners, np.int64)
    keys, at = scratch(step * capacity, np.float64), scratch(step * capacity, np.int64)
    bounds, bounds_at, counts = scratch(step, np.float64), scratch(step, np.int64), scratch(step, np.int64)
    marks, nodes = scratch(step * blocks * MARKS, np.uint64), scratch((2, step * blocks), np.float64)
    for first in range(0, count, step):
        some = min(step, count - first)
        view = logits if some == count else logits[first : first + some]
        part = call._replace(first_row=call.first_row + first)
        items, numbers = some * blocks, counts[:some]
        lists = numbers, keys, at, capacity
        for at_pass, (looked_at, stride, each) in enumerate(passes):
            limited = np.uint8(at_pass > 0)
            _launch(
                _top_k, "block_tops", some * looked_at, place,
                view, part, looked_at, stride, limited, bounds, bounds_at, each, top_keys, top_at, layout=layout,
            )  # fmt: skip
            _launch(
                _top_k, "bound", some, place,
                part, top_keys, top_at, looked_at * each, columns, k, limited, bounds, bounds_at, numbers,
            )  # fmt: skip
        _launch(_top_k, "collect", items, place, view, part, bounds, bounds_at, *lists, marks, layout=layout)
        if k < SORTED:
            _launch(_top_k, "select", some, place, *lists, blocks, k, marks)
        else:
            _sort(lists, place)
            _launch(_top_k, "mark_all", -(-some * k // THREADS), place, numbers, at, capacity, blocks, k, marks)
        _launch(_top_k, "rest_nodes", items, place, view, part, numbers, k, marks, nodes, layout=layout)
        _launch(_top_k, "finish", some, place, view, part, *lists, k, nodes, chosen, layout=layout)


def _sort(lists: tuple[Any, Any, Any, int], place: Place) -> None:
    """Sort the entries of rows: bitonic, in shared memory as far as that holds them."""
    counts, _, _, capacity = lists
    tiles = counts.size * -(-capacity // SORTED)
    _launch(_top_k, "sort_tiles", tiles, place, *lists, np.uint8(0))
    half = SORTED
    while half < capacity:
        stride = half
        while stride >= SORTED:
            pairs = -(-capacity // (2 * stride)) * stride
            items = -(-counts.size * pairs // THREADS)
            _launch(_top_k, "exchange_all", items, place, *lists, pairs, stride, np.uint8(stride == half))
            stride //= 2
        _launch(_top_k, "sort_tiles", tiles, place, *lists, np.uint8(1))
        half *= 2


def weights(
    logits: Any, call: Call, k: int, indices: Any, thresholds: Any, sums: Any, normalized: bool, out: Any, place: Place
) -> None:
    """Importance weights of rows; `sums` is the float64 logsumexp of each, unless they are normalized."""
    each = (logits, call, k, indices, thresholds, sums, np.uint8(normalized), out)
    _launch(_top_k_weights, "weights", logits.shape[0], place, *each, layout=_layout(logits))
