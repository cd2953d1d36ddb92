"""Ragged rows, truncation and tables together."""

from __future__ import annotations

import numpy as np
from numba import cuda

from common import WIDE, check, logits, on_device, rng, same

#: Samples of a row that come from a table, however short it is.
MANY = 64
OFFSETS = np.array([0, 5, 25, 45, 47])
TOP_K = np.array([6, 20, 3, 2])  # the second row keeps everything, and the last


def equal(x, there=(), **options):
    """All outputs, and the indices alone; the options named in `there` lie on the device."""
    what = f"{x.dtype} {x.shape} {sorted(options)}, on the device {there}"
    given = {name: cuda.to_device(value) if name in there else value for name, value in options.items()}
    expected = rng().sample(x, on_invalid="flag", **options)
    for found, due in zip(rng().sample(on_device(x), **given), expected, strict=True):
        same(found, due, what)
    same(rng().categorical(on_device(x), **given), expected.indices, what)


@check(formats=("float32",))
def check_tables(dtype):
    """Rows that keep everything are drawn from tables, the others not."""
    x = logits((3, 20), dtype)
    for there in ((), ("top_k",)):
        equal(x, there, num_samples=MANY, top_k=np.array([5, 20, 30]))


def check_ragged(dtype, there):
    line = np.random.default_rng(1).standard_normal(OFFSETS[-1]).astype(dtype)
    for where in there:
        equal(line, where, offsets=OFFSETS, top_k=TOP_K, top_p=0.9, num_samples=2)
        equal(line, where, offsets=OFFSETS, top_k=TOP_K, num_samples=MANY)


@check(formats=("float32",))
def check_more(dtype):
    line = np.random.default_rng(1).standard_normal(OFFSETS[-1]).astype(dtype)
    equal(line, ("offsets",), offsets=OFFSETS, num_samples=MANY)
    equal(line, offsets=OFFSETS, top_k=TOP_K, method="gumbel_max", num_samples=2)
    given = {"row_ids": np.array([5, 2**33, 7, 8]), "row_mask": np.array([True, False, True, True])}
    equal(line, offsets=OFFSETS, top_k=TOP_K, temperature=np.array([0.5, 1.0, 0.0, 2.0]), num_samples=2, **given)
    bad = line.copy()
    bad[7] = np.nan
    equal(bad, offsets=OFFSETS, top_k=TOP_K, num_samples=MANY)


@check(formats=WIDE)
def check_rows(dtype):
    check_ragged(dtype, there=((), ("offsets", "top_k")) if dtype is np.float32 else ((),))
