"""Ragged rows, and short rows of every method."""

from __future__ import annotations

import numpy as np
from numba import cuda

import numbel
from check_methods import check_relaxed, check_sample, check_vjp
from common import DRAW, SEED, WIDE, check, logits, on_device, raised, rng, same
from numbel._cuda import launch

METHODS = ("grouped", "gumbel_max")
#: Short rows of several widths, rows that two lanes' worth of others are longer than, and one of two blocks.
LENGTHS = (5, 1, 30, 3, 9, 2, 17)
LONG = (3, 4099, 1, 40)


def ragged(lengths, dtype, seed=0):
    """Logits of rows of these lengths, and their offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    x = logits((1, max(int(offsets[-1]), 1)), dtype, seed)[0, : offsets[-1]].copy()
    x[offsets[:-1][np.asarray(lengths) > 0]] = 0.5  # no row is impossible
    return x, offsets


def equal(x, offsets, num_samples=None, there=None, **options):
    """All outputs, and the indices alone, with offsets on the host and on the device."""
    expected = rng().sample(x, num_samples, offsets=offsets, on_invalid="flag", **options)
    device = on_device(x)
    for where in (offsets, cuda.to_device(np.asarray(offsets, np.int64))):
        what = f"ragged {x.dtype} {options} offsets {type(where).__name__}"
        found = rng().sample(device, num_samples, offsets=where, **(options if there is None else options | there))
        for part, due in zip(found, expected, strict=True):
            same(part, due, what)
        if len(x) < 1000:
            same(rng().categorical(device, num_samples, offsets=where, **options), expected.indices, what)


@check
def check_rows(dtype):
    """Both methods; several samples; temperatures with 0 among them, ids, a mask with an empty row."""
    x, offsets = ragged(LENGTHS, dtype)
    plain = np.arange(len(LENGTHS))
    given = {
        "row_ids": plain[::-1] * (1 << 40) + 5,
        "row_mask": plain != 3,
        "temperature": np.where(plain % 3 == 1, 0.0, 0.3 + plain / 10),
    }
    there = {name: cuda.to_device(value) for name, value in given.items()}
    for method in METHODS:
        equal(x, offsets, method=method)
        equal(x, offsets, 3, there, method=method, **given)


@check(formats=WIDE)
def check_long(dtype):
    """Rows of one and two blocks among short ones, by the kernels of either."""
    x, offsets = ragged(LONG, dtype)
    for method in METHODS:
        expected = rng().sample(x, offsets=offsets, method=method)
        there = cuda.to_device(offsets)
        for part, due in zip(rng().sample(on_device(x), offsets=there, method=method), expected, strict=True):
            same(part, due, f"long ragged rows {dtype} {method}")


@check
def check_kinds():
    """Every row by the kernels of long rows; some by either; rows of one length; strides; outputs that are given."""
    kept = launch._longest_short
    x, offsets = ragged(LENGTHS, np.float32)
    plain = np.arange(len(LENGTHS))
    temperature = np.where(plain == 2, 0.0, 0.7)
    try:
        for widest in (lambda *_: 5000, lambda *_: 4, lambda *_: 16):
            launch._longest_short = widest
            for method in METHODS:
                equal(x, offsets, 2, method=method, temperature=temperature)
    finally:
        launch._longest_short = kept
    for method in METHODS:
        equal(x[:60], np.arange(0, 61, 12), method=method)
        wide = np.zeros((len(x), 3), np.float32)
        wide[:, 1] = x
        expected = rng().sample(x, 2, offsets=offsets, method=method)
        out = numbel.Sample(*(cuda.to_device(np.zeros_like(part)) for part in expected))
        strided = cuda.to_device(wide)[:, 1]
        found = rng().sample(strided, 2, offsets=list(offsets), axis=0, method=method, out=out)
        for part, made, due in zip(found, out, expected, strict=True):
            assert part is made
            same(part, due, "a strided line")
        empty = rng().sample(on_device(x), 0, offsets=cuda.to_device(offsets), method=method)
        assert empty.indices.shape == (len(LENGTHS), 0)
        same(empty.logsumexp, rng().sample(x, 0, offsets=offsets, method=method).logsumexp, "no samples")


@check
def check_alike():
    """Rows in runs of one length, as launches without offsets take them, are the same; empty ones are left out."""
    from numbel._arguments.requests import RowOptions
    from numbel._device.ragged import Ragged

    x, offsets = ragged((3, 3, 0, 7, 7, 7, 2, 0, 0), np.float32)
    mask = np.diff(offsets) > 0
    expected = rng().sample(x, 2, offsets=offsets, row_mask=mask)
    for there in (offsets, cuda.to_device(offsets)):
        task = Ragged(on_device(x), there, RowOptions(row_mask=mask))
        made = [cuda.to_device(np.full_like(part, 7)) for part in expected]
        results = task.results(*(task.flat(part, "out") for part in made))
        runs = 0
        for view, call in task.alike(task.call((SEED, DRAW))):
            launch.categorical(view, call, "grouped", 2, results, task.context)
            runs += 1
        assert runs == 5
        for part, due in zip(made, expected, strict=True):
            same(part, due, "runs of one length")


@check
def check_flags():
    """Bad rows; offsets that only the kernels meet, which flag their rows and are never read beyond the line."""
    x, offsets = ragged(LENGTHS, np.float32)
    device = on_device(x)
    bad = x.copy()
    bad[offsets[2] + 17], bad[offsets[4] : offsets[5]] = np.nan, -np.inf
    for method in METHODS:
        equal(bad, offsets, method=method)
        for there in (offsets, cuda.to_device(offsets)):

            def draws(x=bad, there=there, method=method, **options):
                return rng().categorical(on_device(x), offsets=there, method=method, on_invalid="raise", **options)

            assert raised(draws) == "logits row 2 holds NaN at column 17"
            same(draws(x, there), rng().categorical(x, offsets=offsets, method=method), "none is bad")
        again = [0, 5, 5, *offsets[3:]]
        mask = np.arange(len(LENGTHS)) != 1
        text = raised(lambda: draws(x, cuda.to_device(np.array(again)), row_mask=cuda.to_device(mask | True)))  # noqa: B023
        assert text == "logits row 1 has zero categories, from its offsets", text
        equal(x, again, method=method, row_mask=mask)
    kept = launch._longest_short
    try:
        for widest in (kept, lambda *_: 5000):
            launch._longest_short = widest
            wrong_offsets(device, x, offsets)
    finally:
        launch._longest_short = kept


def wrong_offsets(device, x, offsets):
    """The rows whose own offsets are wrong are flagged; a row that is not has its index."""
    rows = len(offsets) - 1
    most = 2**63 - 1
    for at, value in ((2, 0), (2, 66), (4, 2**62), (5, -1), (0, 1), (rows, len(x) - 1), (0, -most - 1), (rows, most)):
        wrong = np.array(offsets, np.int64)
        wrong[at] = value
        lengths, last = wrong[1:] - wrong[:-1], np.arange(rows) == rows - 1
        good = (wrong[:-1] >= 0) & (wrong[1:] <= len(x)) & (wrong[:-1] < wrong[1:]) & (lengths > 0)
        good &= ~last | (wrong[1:] == len(x))
        good[0] &= wrong[0] == 0
        there = cuda.to_device(wrong)
        for method in METHODS:
            found = rng().sample(device, offsets=there, method=method)
            indices = found.indices.copy_to_host()
            assert (indices[~good] == -1).all(), (wrong, indices)
            assert np.isnan(found.log_prob.copy_to_host()[~good]).all()
            assert np.isnan(found.logsumexp.copy_to_host()[~good]).all()
            for row in np.flatnonzero(indices >= 0):
                own = x[None, wrong[row] : wrong[row + 1]]
                assert indices[row] == rng().categorical(own, row_ids=[row], method=method)[0]
            assert np.count_nonzero(indices >= 0) >= rows - 5
        message = raised(lambda: rng().categorical(device, offsets=there, on_invalid="raise"))  # noqa: B023
        assert message == raised(lambda: rng().categorical(x, offsets=wrong)), message  # noqa: B023


@check
def check_errors():
    """Each before anything is launched, as on the host."""
    x, offsets = ragged(LENGTHS, np.float32)
    device = on_device(x)
    for options in (
        {"offsets": [0, 5]},
        {"offsets": [0, 7, 3, len(x)]},
        {"offsets": [0, 4, 4, len(x)]},
        {"offsets": [[0, len(x)]]},
        {"offsets": np.array([0.0, len(x)])},
        {"offsets": offsets, "axis": 1},
        {"offsets": offsets, "row_ids": [1]},
        {"offsets": offsets, "temperature": -1.0},
    ):
        message = raised(lambda options=options: rng().categorical(x, **options))
        assert raised(lambda options=options: rng().categorical(device, **options)) == message, message
        if "axis" not in options and np.ndim(options["offsets"]) == 1 and len(options) == 1:
            there = {"offsets": cuda.to_device(np.array(options["offsets"])), "on_invalid": "raise"}
            assert raised(lambda there=there: rng().categorical(device, **there)) == message, message
    there = cuda.to_device(offsets)
    assert raised(lambda: rng().categorical(device.reshape(1, len(x)), offsets=there)) == (
        "logits has 2 axes; offsets cut rows from one axis"
    )
    assert "int64 of shape (8,) is needed" in raised(
        lambda: rng().categorical(device, offsets=cuda.to_device(offsets.astype(np.int32)))
    )
    nothing = rng().sample(on_device(np.zeros(0, np.float32)), 4, offsets=cuda.to_device(np.zeros(1, np.int64)))
    assert [part.shape for part in nothing] == [(0, 4), (0, 4), (0,)]
    assert rng().categorical(device[:0], offsets=[0, 0], row_mask=[False]).copy_to_host() == [-1]
    counter = cuda.to_device(np.array([DRAW], np.uint64))
    moving = numbel.Generator(SEED, counter)
    for draw in (DRAW, DRAW + 1):
        expected = numbel.Generator(SEED, draw).categorical(x, offsets=offsets)
        same(moving.categorical(device, offsets=there), expected, f"ragged rows of draw {draw} of a counter")
    assert counter.copy_to_host()[0] == DRAW + 2


@check
def check_short(dtype):
    """Rows that share a CUDA block, of every method: lanes of several widths, the last tile not full."""
    for shape in ((7, 3), (130, 2), (3, 100)) if dtype is np.float32 else ((3, 6),):
        x = logits(shape, dtype)
        check_sample(x, num_samples=2, method="gumbel_max")
        check_relaxed(x, temperature=0.7)
        check_vjp(dtype, shape, np.linspace(0.5, 2, shape[0]))


@check
def check_short_values():
    """Ties, zeros of either sign, far logits, weights that need another reference; more samples than at a time."""
    x = logits((6, 9), np.float32)
    x[0], x[3], x[5] = 1e30, -1e30, 2.0
    x[4] *= 1e12
    x[2] = np.minimum(x[2], -1)
    x[2, 3], x[2, 5] = -0.0, 0.0
    for temperature in (1.0, [0, 1e-3, 1, 0, 5, 0]):
        check_sample(x, temperature=temperature, method="gumbel_max")
        check_relaxed(x, temperature=temperature)
    check_relaxed(x, temperature=1e-4)
    check_sample(x[:2], num_samples=35, method="gumbel_max")
    y = np.zeros((2, 5), np.float32)
    y[0, 2], y[1, 1] = 1.0, -0.0
    u = np.array([[-1, -0.0, 0.0, 0.0, -2], [-0.0, -1, 0.0, -0.0, 3]], np.float32)
    for temperature in ([1.0, 0.5], [0.0, 2.0]):
        expected, slopes = numbel.gumbel_softmax_vjp(y, u, temperature)
        found, in_temperature = numbel.gumbel_softmax_vjp(on_device(y), on_device(u), temperature)
        same(found, expected, "vjp of zeros")
        same(in_temperature, slopes, "vjp of zeros in temperature")


@check
def check_some():
    """What planted bugs are looked for with: ragged rows by the kernels of long ones, and a tie."""
    kept = launch._longest_short
    launch._longest_short = lambda *_: 5000
    try:
        equal(*ragged(LENGTHS[:4], np.float32))
    finally:
        launch._longest_short = kept
    check_sample(np.full((2, 9), 1e30, np.float32), method="gumbel_max")


@check
def check_grids():
    """One CUDA block for everything, and the winners of one item at a time."""
    kept = launch._GRID, launch._WINNERS
    launch._GRID = launch._WINNERS = 1
    try:
        check_kinds()
        check_short(np.float64)
    finally:
        launch._GRID, launch._WINNERS = kept


@check(backends=("card",))
def check_large():
    """What is too much for the simulator: many rows of lengths from 1 to 10^6, by each rule for what is short."""
    lengths = np.concatenate([np.random.default_rng(3).geometric(1 / 40, 100_000), [300_000, 5, 1_000_000, 4096, 8192]])
    x, offsets = ragged(lengths, np.float32)
    for method in METHODS:
        equal(x, offsets, method=method)
        equal(x[: offsets[1000]], offsets[:1001], 5, method=method)
