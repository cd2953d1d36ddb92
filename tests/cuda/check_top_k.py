"""Densities, and sampling without replacement."""

from __future__ import annotations

import numpy as np
from numba import cuda

import numbel
from backend import SIMULATED
from common import DRAW, SEED, WIDE, cheap, check, logits, on_device, raised, rng, same
from numbel._cuda import launch, launch_top_k, top_k


def check_densities(x, **options):
    what = f"{x.dtype} {x.shape} {options}"
    device = on_device(x)
    for function in (numbel.logsumexp, numbel.entropy):
        same(function(device, **options), function(x, on_invalid="flag", **options), f"{function.__name__} {what}")
    axis = options.get("axis", -1)
    columns, rows = x.shape[axis], np.moveaxis(x, axis, -1).shape[:-1]
    random = np.random.default_rng(2)
    for shape in (rows, (*rows, 5)) if cheap(x) else ((*rows, 5),):
        index = random.integers(-1, columns + 1, shape)
        expected = numbel.log_prob(x, index, on_invalid="flag", **options)
        same(numbel.log_prob(device, index, **options), expected, f"log_prob {what}")
        if cheap(x):
            there = cuda.to_device(np.asarray(index))
            same(numbel.log_prob(device, there, **options), expected, f"log_prob of indices there {what}")


@check(formats=WIDE)
def check_densities_widely(dtype):
    """The lengths where formulas change: 256 (ties are counted), 512 (lanes), 4096 (blocks); ties, far logits."""
    for columns in (1, 3, 257) if dtype is not np.float32 else (1, 2, 9, 256, 257, 512, 513, 5000):
        check_densities(logits((2, columns), dtype))
    x = logits((5, 9), dtype)
    x[0], x[3] = 3e4, -3e4
    x[4] = x[4] * 100
    x[2] = np.minimum(x[2], -1)
    x[2, 3], x[2, 5] = -0.0, 0.0
    check_densities(x, temperature=[0.05, 1e-3, 1, 0, 5])
    if dtype is not np.float32:
        return
    check_densities(x.T, axis=0)
    check_densities(x, temperature=np.zeros(5))
    x = logits((2, 300), dtype, 4)
    x[0, 70:] = x[0].max()  # a sum of many ties, one of a lone largest
    x[1] -= 100
    x[1, 7] = 0
    check_densities(x, temperature=0.3)
    check_densities(logits((3, 513), dtype), temperature=[0.5, 0.0, 3.0])
    check_densities(logits((1, 6 * 4096 + 5), dtype))
    stacked = logits((2, 3, 4), dtype)
    check_densities(stacked.transpose(1, 0, 2), axis=1)
    check_densities(stacked[0, 0])


@check
def check_densities_refused():
    x = on_device(logits((2, 9), np.float32))
    bad = logits((2, 9), np.float32)
    bad[1, 4] = np.nan
    index = np.array([1, 9])
    for function in (numbel.logsumexp, numbel.entropy, lambda x, **o: numbel.log_prob(x, [0, 0], **o)):
        assert raised(lambda f=function: f(on_device(bad), on_invalid="raise")) == "logits row 1 holds NaN at column 4"
        function(x, on_invalid="raise")
        assert "out lies on the host" in raised(lambda f=function: f(x, out=np.zeros(2, np.float32)))
        assert "has dtype float64" in raised(lambda f=function: f(x, out=on_device(np.zeros(2))))
        out = on_device(np.zeros(2, np.float32))
        assert function(x, out=out) is out
        same(out, function(x.copy_to_host()), "out")
        assert "stream must have __cuda_stream__" in raised(lambda f=function: f(x, stream=3))
        assert "lies on the host" in raised(lambda f=function: f(bad, stream=3))
        negative = on_device(np.array([1.0, -1.0]))
        assert np.isnan(function(x, temperature=negative).copy_to_host()).tolist() == [False, True]
        assert "row 1 has a temperature" in raised(
            lambda f=function, t=negative: f(x, temperature=t, on_invalid="raise")
        )
    assert raised(lambda: numbel.log_prob(x, index, on_invalid="raise")) == "index row 1 is 9, outside 0 .. 8"
    assert "row 1 has a temperature, a row id, an index" in raised(
        lambda: numbel.log_prob(x, on_device(index), on_invalid="raise")
    )
    assert "index has shape (3,), expected (2,)" in raised(lambda: numbel.log_prob(x, on_device(np.arange(3))))
    assert "index must hold integers" in raised(lambda: numbel.log_prob(x, on_device(np.zeros(2))))
    assert numbel.log_prob(x, np.zeros((2, 0), np.int64)).shape == (2, 0)
    assert numbel.entropy(on_device(np.zeros((0, 3)))).shape == (0,)


def check_top_k(x, k, weights=True, **options):
    what = f"gumbel_top_k {x.dtype} {x.shape} {k} {options}"
    device = on_device(x)
    expected = rng().gumbel_top_k(x, k, on_invalid="flag", **options)
    found = rng().gumbel_top_k(device, k, **options)
    for one, due in zip(found, expected, strict=True):
        same(one, due, what)
    if not weights:
        return
    given = {name: options[name] for name in ("axis", "temperature") if name in options}
    for normalized in (False, True):
        due = numbel.top_k_weights(expected, x, normalized=normalized, **given)
        same(numbel.top_k_weights(found, device, normalized=normalized, **given), due, f"weights of {what}")


@check(formats=WIDE)
def check_top_k_widely(dtype):
    """Any k, several blocks, ties of all and of some, rows that are nearly impossible, huge logits, what rows have."""
    x = logits((3, 30), dtype)
    for k in (1, 4, 29, 30):
        check_top_k(x, k)
    ids, mask = np.array([2**56 - 1, 5, 2**33]), np.array([True, True, False])
    y = logits((3, 30), dtype, 3)
    y[1] = y[0]
    check_top_k(y, 3, row_ids=ids, row_mask=mask, temperature=np.array([0.5, 0.0, 2.0]))
    if dtype is not np.float32:
        return
    same(
        rng().gumbel_top_k(on_device(y), 1).indices,
        rng().categorical(y, method="gumbel_max", on_invalid="flag")[:, None],
        "k = 1",
    )
    y[0] = -0.0
    y[0, ::3] = 0.0
    y[1, :], y[2, :] = 1e30, -1e30
    check_top_k(y, 7)
    check_top_k(y, 7, temperature=[1e-3, 0.0, 1e-3])
    y[1, 5] = y[2, 20] = np.inf
    check_top_k(y, 7, temperature=[0.0, 1.0, 0.0])
    y[1, 5] = np.nan
    check_top_k(y, 7, temperature=1e-30)  # as small as temperatures are
    check_top_k(y, 30)
    z = logits((2, 3, 8), dtype)
    for axis, array in ((0, z), (1, z.transpose(1, 0, 2)), (-1, z.transpose(0, 2, 1))):
        check_top_k(array, 2, axis=axis)
    check_top_k(z[0, 0], 3)
    check_top_k(logits((1, 4099), dtype), 5)


@check
def check_long_rows():
    """Candidates that do not fit in shared memory, in a CUDA block's hands and in those of all; lists of few groups.

    A bound from one block of eight, of more winners than are above it in all, of fewer, of none.
    """
    kept = launch._GRID, launch_top_k._GROUPS, launch_top_k._ENTRIES, launch_top_k._GROUPS_EACH
    columns = (3 if SIMULATED else 8) * 4096
    x = logits((2, columns), np.float32, 6)
    x[1, :4090] = -np.inf
    x[1, 5000:] = -np.inf
    check_top_k(x, 3, False)
    x[1] = x[0]
    x[1, 4096:] -= 60
    launch_top_k._GROUPS = launch_top_k._GROUPS_EACH = 1
    check_top_k(x[1:], 3, False)
    launch_top_k._GROUPS, launch_top_k._GROUPS_EACH = kept[1], kept[3]
    x[0, columns * 5 // 8] = np.nan
    check_top_k(x[:1], 3, False, temperature=[0.0])
    x = logits((2, 4500), np.float32, 7)
    x[1, 40:] -= 50
    x[1, ::2] = -np.inf
    launch_top_k._GROUPS, launch_top_k._ENTRIES = 1, 1
    check_top_k(x, 3, False)  # one group a block: all of a block's columns may be candidates
    launch_top_k._GROUPS = kept[1]
    if SIMULATED:  # where kernels are Python, which reads what stands there
        top_k.SORTED = launch_top_k.SORTED = 64
    x = logits((2, 300), np.float32, 8)
    try:
        for k in (40, 63, 64, 150, 270):
            check_top_k(x, k, False)
        check_top_k(np.tile(x[:, :40], (1, 7)), 100, False, temperature=[0.0, 1.0])
    finally:
        top_k.SORTED = launch_top_k.SORTED = 2048
    launch._GRID = 1
    try:
        check_top_k(logits((3, 20), np.float32), 5)
        check_densities(logits((3, 20), np.float32))
        check_densities(logits((1, 4099), np.float32))
    finally:
        launch._GRID, launch_top_k._GROUPS, launch_top_k._ENTRIES, launch_top_k._GROUPS_EACH = kept


@check
def check_top_k_refused():
    x = on_device(logits((2, 9), np.float32, 5))
    host = x.copy_to_host()
    expected = rng().gumbel_top_k(host, 3)
    out = numbel.TopK(on_device(np.zeros((2, 3), np.int64)), None, on_device(np.zeros(2, np.float32)), None)
    found = rng().gumbel_top_k(x, 3, out=out)
    assert found.indices is out.indices
    assert found.log_prob is out.log_prob
    for one, due in zip(found, expected, strict=True):
        same(one, due, "out")

    def draws(x=x, k=3, **options):
        return raised(lambda: rng().gumbel_top_k(x, k, **options))

    assert "out.indices lies on the host" in draws(out=expected)
    assert "out.perturbed has dtype float32" in draws(out=numbel.TopK(None, on_device(host[:, :3]), None, None))
    assert "must be a numbel.TopK" in draws(out=x)
    assert draws(k=0) == "k must be at least 1, got 0"
    assert draws(k=10) == "k is 10, but logits has 9 categories to choose from"
    assert draws(stream=3) == "stream must have __cuda_stream__, got int"
    assert "stream is for arrays" in draws(x=host, stream=3)
    bad = host.copy()
    bad[1, 4:] = -np.inf
    bad[1, :3] = -np.inf
    assert draws(x=on_device(bad), on_invalid="raise") == "logits row 1 has 1 possible categories, fewer than k = 3"
    bad[1, 4] = np.nan
    assert draws(x=on_device(bad), on_invalid="raise") == "logits row 1 holds NaN at column 4"
    negative = on_device(np.array([1.0, -1.0]))
    assert "row 1 has a temperature" in draws(temperature=negative, on_invalid="raise")
    found = rng().gumbel_top_k(x, 3, temperature=negative)
    assert found.indices.copy_to_host()[1].tolist() == [-1] * 3
    rng().gumbel_top_k(x, 3, on_invalid="raise")
    assert rng().gumbel_top_k(on_device(np.zeros((0, 9))), 3).indices.shape == (0, 3)

    def weighs(result=found, x=x, **options):
        return raised(lambda: numbel.top_k_weights(result, x, **options))

    assert "must be a numbel.TopK" in weighs(result=x)
    assert "result.indices lies on the host" in weighs(result=expected)
    assert "expected (1,) and k" in weighs(x=on_device(host[:1]))
    assert "not a drawn TopK" in weighs(result=found._replace(threshold=found.log_prob))
    assert "stream is for arrays" in weighs(result=expected, x=host, stream=3)
    assert "CUDA device" in weighs(x=host)


@check
def check_top_k_counter():
    counter = cuda.to_device(np.array([DRAW], np.uint64))
    moving = numbel.Generator(SEED, counter)
    x = logits((2, 9), np.float32)
    for draw in (DRAW, DRAW + 1):
        found, due = moving.gumbel_top_k(on_device(x), 3), numbel.Generator(SEED, draw).gumbel_top_k(x, 3)
        same(found.indices, due.indices, "a draw of a counter")
        same(found.perturbed, due.perturbed, "a draw of a counter")


@check(formats=("float32",), backends=("ptx",))
def check_longer(dtype):
    for shape, k in (((300, 70), 10), ((2, 20_000), 2047), ((1, 9000), 9000)):
        x = np.random.default_rng(6).standard_normal(shape).astype(dtype)
        check_densities(x)
        check_top_k(x, k)


@check(backends=("card",))
def check_long(dtype):
    for shape, k in (
        ((1000, 1000), 10),
        ((40, 300_000), 100),
        ((2, 40_000), 2047),
        ((1, 129 * 4096 * 8), 5000),
        ((3, 70_000), 70_000),
    ):
        x = np.random.default_rng(6).standard_normal(shape).astype(dtype)
        check_densities(x)
        check_top_k(x, k)


@check
def check_some():
    """What planted bugs are looked for with: ties that sort by column, marked columns, ties counted."""
    x = np.zeros((2, 40), np.float32)
    x[1, ::3] = -0.0
    check_top_k(x, 5, False, temperature=[0.0, 1.0])
    x[0, :5] = 1
    check_densities(x)
