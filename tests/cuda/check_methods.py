"""Noise, samples, relaxed samples, their gradients and conditional noise; layouts, flags, errors."""

from __future__ import annotations

import numpy as np
from numba import cuda

import numbel
from backend import BACKEND, SIMULATED
from common import (
    DRAW,
    SEED,
    WIDE,
    cheap,
    check,
    logits,
    on_device,
    raised,
    rng,
    same,
    to_device,
)
from numbel._cuda import launch

#: Rows and columns: a lone column, short rows, one block and a bit.
SHAPES = ((3, 1), (3, 7), (2, 4099))
#: Beyond the simulator: more rows than a CUDA block has threads, and more blocks of a row.
LONGER = {
    "simulator": (),
    "ptx": ((300, 70), (3, 20_000), (1, 129 * 4096)),
    "card": ((1000, 1000), (40, 300_000), (1, 129 * 4096 * 8)),
}


def check_noise(dtype, shape):
    like = to_device(np.zeros(1, dtype))
    for loc, scale in ((0.0, 1.0), (-1.5, 0.7)):
        expected = rng().gumbel(loc, scale, size=shape, dtype=dtype)
        same(rng().gumbel(loc, scale, size=shape, dtype=dtype, like=like), expected, f"noise {dtype} {shape}")


def check_sample(x, **options):
    """The axes of `x` in any order, all outputs, and the indices alone."""
    what = f"sample {x.dtype} {x.shape} {options}"
    expected = rng().sample(x, on_invalid="flag", **options)
    device = on_device(x)
    for found, due in zip(rng().sample(device, **options), expected, strict=True):
        same(found, due, what)
    if cheap(x):
        same(rng().categorical(device, **options), expected.indices, what)


def check_relaxed(x, **options):
    expected = rng().gumbel_softmax(x, on_invalid="flag", **options)
    what = f"gumbel_softmax {x.dtype} {x.shape} {options}"
    device = on_device(x)
    same(rng().gumbel_softmax(device, **options), expected, what)
    if not cheap(x):
        return
    assert rng().gumbel_softmax(device, out=device, **options) is device
    same(device, expected, f"{what} in place")


def check_vjp(dtype, shape, temperature=0.7):
    y = rng().gumbel_softmax(logits(shape, dtype), temperature, on_invalid="flag")
    u = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    expected, slopes = numbel.gumbel_softmax_vjp(y, u, temperature)
    found, in_temperature = numbel.gumbel_softmax_vjp(on_device(y), on_device(u), temperature)
    same(found, expected, f"vjp {dtype} {shape}")
    if np.ndim(temperature):
        same(in_temperature, slopes, f"vjp in temperature {dtype} {shape}")
    else:  # the sum over rows is in another order
        np.testing.assert_allclose(in_temperature.copy_to_host(), slopes, rtol=1e-12)


def check_conditional(x, **options):
    index = np.argmax(x.astype(np.float64), options.get("axis", -1))
    expected = rng().conditional_gumbel(x, index, on_invalid="flag", **options)
    what = f"conditional {x.dtype} {x.shape} {options}"
    same(rng().conditional_gumbel(on_device(x), index, **options), expected, what)
    if cheap(x):
        same(rng().conditional_gumbel(on_device(x), on_device(index), **options), expected, what)


@check(formats=WIDE)
def check_layouts(dtype):
    """Three axes, the category axis first, in the middle and last, in memory in another order."""
    x = logits((2, 3, 4), dtype)
    for axis, array in ((0, x), (1, x.transpose(1, 0, 2)), (1, x.transpose(2, 1, 0)), (-1, x.transpose(0, 2, 1))):
        check_sample(array, axis=axis, num_samples=2)
        check_relaxed(array, axis=axis)
    check_conditional(x.transpose(1, 0, 2), axis=1)
    same(rng().gumbel_softmax(on_device(x), hard=True, axis=1), rng().gumbel_softmax(x, hard=True, axis=1), "hard")
    scalar = rng().sample(on_device(x[0, 0]))
    for found, due in zip(scalar, rng().sample(x[0, 0]), strict=True):
        same(found, due, "one row")
    same(rng().gumbel(like=on_device(x)), np.float32(rng().gumbel()), "one number")


@check
def check_rows(dtype):
    """What each row may have: temperatures with 0 among them, ids, a mask; from the host and from the device."""
    ids, mask = np.array([2**56 - 1, 5, 2**33]), np.array([True, True, False])
    given = {"row_ids": ids, "row_mask": mask, "temperature": np.array([0.5, 0.0, 2.0])}
    there = {name: cuda.to_device(value) for name, value in given.items()}
    x = logits((3, 20), dtype)
    x[1] = x[0]
    for method in ("grouped", "gumbel_max"):
        check_sample(x, method=method, num_samples=3, **given)
        check_sample(x, method=method, temperature=[0.0, 1.0, 0.0])
        expected = rng().sample(x, method=method, on_invalid="flag", **given)
        for found, due in zip(rng().sample(on_device(x), method=method, **there), expected, strict=True):
            same(found, due, f"{method} of rows described on the device")
        empty = rng().sample(on_device(x), 0, method=method)
        assert empty.indices.shape == (3, 0)
        same(empty.logsumexp, rng().sample(x, 0, method=method, on_invalid="flag").logsumexp, "no samples")
    check_relaxed(x, **given)
    check_relaxed(x, temperature=0.05)
    check_conditional(x, temperature=0.05, row_ids=ids, row_mask=mask)
    check_vjp(dtype, (3, 20), [0.5, 1e-3, 1e3])


@check
def check_short_and_long():
    """Lanes of every width, more samples than a CUDA block draws, far logits, zeros of either sign; longer rows."""
    for columns in (1, 4, 5, 33, 512):
        check_sample(logits((2, columns), np.float32), num_samples=2)
    check_sample(logits((1, 5), np.float32), num_samples=63)
    x = logits((5, 9), np.float32)
    x[0], x[3] = 1e30, -1e30
    x[4] *= 1e12
    x[2] = np.minimum(x[2], -1)
    x[2, 3], x[2, 5] = -0.0, 0.0
    for temperature in (1.0, [0, 1e-3, 1, 0, 5], np.zeros(5)):
        check_sample(x, temperature=temperature)
    given = {"row_ids": [2**56 - 1, 5, 2**33], "row_mask": [True, True, False], "temperature": [0.5, 0.0, 2.0]}
    check_sample(logits((3, 520), np.float32), num_samples=2, **given)


@check
def check_flags():
    """Values that only a kernel meets: they flag their row, and raise where that is asked for."""
    x = logits((2, 9), np.float32)
    bad = x.copy()
    bad[1, 4] = np.nan
    for call in (
        lambda rng, x, **o: rng.categorical(x, **o),
        lambda rng, x, **o: rng.categorical(x, method="gumbel_max", **o),
        lambda rng, x, **o: rng.gumbel_softmax(x, **o),
        lambda rng, x, **o: rng.gumbel_softmax(x, hard=True, **o),
        lambda rng, x, **o: rng.conditional_gumbel(x, np.zeros(2, np.int64), **o),
    ):
        used = rng()
        call(used, on_device(x), on_invalid="raise")
        message = raised(lambda call=call: call(rng(), on_device(bad), on_invalid="raise"))
        assert message == "logits row 1 holds NaN at column 4", message
    for name, values in (("temperature", [1.0, -1.0]), ("temperature", [1.0, np.nan]), ("row_ids", [1, -1])):
        there = {name: cuda.to_device(np.array(values))}
        found = rng().sample(on_device(x), **there)
        assert found.indices.copy_to_host()[1] == -1
        assert found.indices.copy_to_host()[0] >= 0
        assert np.isnan(found.log_prob.copy_to_host()[1])
        assert np.isnan(rng().gumbel_softmax(on_device(x), **there).copy_to_host()[1]).all()
        assert "row 1" in raised(lambda there=there: rng().sample(on_device(x), on_invalid="raise", **there))


@check
def check_errors():
    """Each before anything is launched."""
    x = on_device(logits((2, 9), np.float32))
    fixed = np.zeros(2, np.int64)
    fixed.flags.writeable = False

    def draws(**options):
        return raised(lambda: rng().categorical(x, **options))

    assert draws(out=np.zeros(2, np.int64)) == "out lies on the host (ndarray) and the logits on a CUDA device"
    assert draws(out=on_device(np.zeros(2))) == "out has dtype float64, expected int64"
    assert draws(out=on_device(np.zeros(3, np.int64))) == "out has shape (3,), expected (2,)"
    assert (
        draws(out=on_device(np.zeros(4, np.int64))[::2]) == "indices is not C-contiguous, which it must be on a device"
    )
    buffer = on_device(np.zeros(2, np.float32))
    shared = numbel.Sample(None, buffer, buffer)
    assert "two arrays of out share memory" in raised(lambda: rng().sample(x, out=shared))
    if SIMULATED:
        assert draws(out=type(x)(fixed)) == "out is read-only"
    assert draws(temperature=-1.0) == "temperature must be positive and finite, or 0 for the argmax, got -1.0"
    assert "shape (3,)" in draws(row_ids=[1, 2, 3])
    assert "row_ids is a device array of shape (3,)" in draws(row_ids=on_device(np.arange(3)))
    assert draws(axis=2) == "logits has 2 axes: axis 2 is out of bounds for array of dimension 2"
    assert draws(num_samples=-1) == "num_samples must be in 0 .. 2^32, got -1"
    assert draws(stream=3) == "stream must have __cuda_stream__, got int"
    assert draws(method="best").startswith("method must be")
    assert "got int64" in raised(lambda: rng().categorical(on_device(np.zeros((2, 3), np.int64))))
    assert "zero categories" in raised(lambda: rng().categorical(on_device(np.zeros((2, 0)))))
    assert "overlaps" in raised(lambda: rng().gumbel_softmax(x[:, 1:], out=x[:, :-1]))
    assert "host (list)" in raised(lambda: numbel.gumbel_softmax_vjp(x, [[0.0] * 9] * 2))
    assert "must be a scalar" in raised(lambda: rng().gumbel([1.0, 2.0], like=x))
    assert "one uint64, got int64" in raised(lambda: numbel.Generator(1, on_device(np.zeros(1, np.int64))))
    host = logits((2, 9), np.float32)
    assert "draws for arrays there only" in raised(
        lambda: numbel.Generator(1, on_device(np.zeros(1, np.uint64))).categorical(host)
    )
    assert "stream is for arrays on a CUDA device" in raised(lambda: rng().categorical(host, stream=3))
    assert rng().categorical(on_device(np.zeros((0, 3)))).shape == (0,)
    used = rng()
    raised(lambda: used.categorical(x, out=np.zeros(2, np.int64)))
    assert used.draw == DRAW  # given back


@check
def check_counter():
    """A draw id on the device: each call reads it and goes on to the next."""
    counter = cuda.to_device(np.array([DRAW], np.uint64))
    moving = numbel.Generator(SEED, counter)
    x = logits((2, 9), np.float32)
    calls = (
        lambda rng, x: rng.categorical(x),
        lambda rng, x: rng.categorical(x, method="gumbel_max"),
        lambda rng, x: rng.gumbel_softmax(x),
        lambda rng, x: rng.conditional_gumbel(x, np.zeros(2, np.int64)),
        lambda rng, x: rng.gumbel(size=(2, 9), like=x) if not isinstance(x, np.ndarray) else rng.gumbel(size=(2, 9)),
    )
    for at, call in enumerate(calls):
        same(call(moving, on_device(x)), call(numbel.Generator(SEED, DRAW + at), x), f"draw {at} of a counter")
    assert counter.copy_to_host()[0] == DRAW + len(calls)


@check
def check_grids():
    """One CUDA block for everything, and the winners of one item at a time."""
    kept = launch._GRID, launch._WINNERS
    launch._GRID = launch._WINNERS = 1
    try:
        for shape in ((3, 7), (3, 300), (2, 4099)):
            x = logits(shape, np.float32)
            check_noise(np.float32, shape)
            check_sample(x, num_samples=3)
            check_sample(x, num_samples=3, method="gumbel_max")
            check_relaxed(x)
            check_vjp(np.float32, shape)
            check_conditional(x)
    finally:
        launch._GRID, launch._WINNERS = kept


@check
def check_shapes(dtype):
    for shape in (*SHAPES, *LONGER[BACKEND]):
        if shape[0] * shape[1] < 1000 or dtype is np.float32 or BACKEND == "card":
            x = logits(shape, dtype)
            check_noise(dtype, shape)
            check_sample(x)
            check_sample(x, num_samples=2, method="gumbel_max")
            check_relaxed(x)
            check_vjp(dtype, shape)
            check_conditional(x, temperature=0.7)


@check
def check_blocks():
    """A row of more blocks than the simulator has threads, by what joins blocks."""
    x = logits((1, 4 * 4096 + 5), np.float32)
    check_sample(x)
    check_sample(x, method="gumbel_max")
    check_relaxed(x)
    check_vjp(np.float32, x.shape)


@check
def check_some():
    """What planted bugs are looked for with: words to refine, zeros, short rows, lanes of a full block, draw ids."""
    check_noise(np.float32, (1, 25_000))
    check_sample(np.array([[-0.0, -np.inf], [0.0, -np.inf]], np.float32))
    check_sample(logits((2, 5), np.float32), num_samples=4)
    x = logits((1, 4099), np.float32) / 3
    check_sample(x, num_samples=6)
    x[0, -1] = 50  # the last block is looked through for a column
    check_sample(x)
    check_counter()
