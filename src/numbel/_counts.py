"""Counts of many draws: rows of logits -> kernel calls."""

from __future__ import annotations

import numpy as np

from . import _dispatch
from ._dispatch import Array, _address, _place_rows, _rows_job, _run_rows


def multinomial(
    array: Array,
    trials: Array,
    temperatures: Array,
    per_row: bool,
    row_ids: Array | None,
    row_mask: Array | None,
    draw: tuple[int, int],
    out: Array,
) -> int | None:
    """Counts of trials[row] draws of the rows of `array` (categories last) into `out`; the first bad row, if any."""
    rows = trials.size
    if rows == 0:
        return None
    greedy, nodes = np.full(rows, -1, np.int64), np.empty((rows, 2))
    bad = _dispatch.categorical(
        array, 0 if temperatures.all() else 1, temperatures, per_row, row_ids, row_mask, "grouped", *draw,
        (greedy, None, None), nodes=nodes,
    )  # fmt: skip
    job, kept = _rows_job(array, temperatures, per_row)
    of_logits = {name: job[name] for name in ("columns", "item_size")}
    kept += [_place_rows(job, out, "cotangent"), greedy, nodes, trials, row_ids]
    job |= of_logits
    job["row_ids"], job["row_node"], job["given"] = _address(row_ids), _address(nodes), _address(trials)
    job["indices"] = _address(greedy)
    job["seed"], job["draw"] = draw
    _run_rows("multinomial", array.dtype, job, twice=True)
    return bad
