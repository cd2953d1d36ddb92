"""top_k, top_p and min_p of device arrays."""

from __future__ import annotations

import contextlib

import numpy as np
from numba import cuda

import numbel
from common import DRAW, SEED, as_given, cheap, check, logits, on_device, raised, rng, same
from numbel._cuda import launch
from numbel._cuda.rows import Call, Results
from numbel._cuda.truncation import Limits

METHODS = ("grouped", "gumbel_max")
SETTINGS = (
    {"top_k": 1},
    {"top_k": 20},
    {"top_p": 0.5},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"top_k": 25, "top_p": 0.9},
    {"top_k": 25, "top_p": 0.3, "min_p": 0.2},
    {"top_p": 0.8, "min_p": 1.0},
)


def compare(x, device, there, **options):
    """A sample of `x` on the host with one on the device, and the indices alone; `there` are options on the device."""
    what = f"{x.dtype} {x.shape} {options}"
    expected = rng().sample(x, on_invalid="flag", **options)
    for found, due in zip(rng().sample(device, **options | there), expected, strict=True):
        same(found, due, what)
    if cheap(x):
        same(rng().categorical(device, **options | there), expected.indices, what)


def equal(x, **options):
    """With what has an entry for each row on the host, and on the device."""
    device = on_device(x)
    compare(x, device, {}, **options)
    kinds = {"top_k": np.int64, "top_p": np.float64, "min_p": np.float64}
    rows = [name for name in kinds if np.ndim(options.get(name, 0))]
    if rows:
        there = {name: on_device(np.asarray(options[name], kinds[name])) for name in rows}
        compare(x, device, there, **options)


@contextlib.contextmanager
def changed(**constants):
    """Other constants of the launches."""
    kept = {name: getattr(launch, name) for name in constants}
    try:
        for name, value in constants.items():
            setattr(launch, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(launch, name, value)


def shapes_of_rows(columns, dtype, random):
    """Rows that take every way to a cut: few columns above it, many, ties, holes, zeros of either sign, far apart."""
    rows = [
        random.normal(size=columns),
        -2.0 * np.log(1 + random.permutation(columns)),
        np.full(columns, -3.0),
        np.where(np.arange(columns) == columns // 3, 1.0, 0.0),
        np.where(random.random(columns) < 0.5, -0.0, 0.0) - (random.random(columns) < 0.2),
        np.round(random.normal(size=columns) * 3) / 2,
        np.where((random.random(columns) < 0.7) & (np.arange(columns) > 0), -np.inf, random.normal(size=columns)),
        np.where(np.arange(columns) == columns - 1, -5.0, -np.inf),
        -0.3 * np.arange(columns),
    ]
    if np.dtype(dtype) != np.float16:
        rows += [random.normal(size=columns) * 1e30, 1e7 + np.round(random.normal(size=columns) * 4)]
    return np.array(rows).astype(dtype)


def check_settings(dtype, columns, settings=SETTINGS, samples=2, rows=slice(None)):
    """Every kind of row, or some, with every setting."""
    x = shapes_of_rows(columns, dtype, np.random.default_rng(columns))[rows]
    for number, options in enumerate(settings):
        if options.get("top_k", 0) <= columns:
            equal(
                x, num_samples=samples, method=METHODS[number % 2], temperature=(1.0, 0.7)[number // 2 % 2], **options
            )


def check_rows(dtype, methods=METHODS):
    """What each row may have: limits that keep all among them, temperatures of 0, ids, a mask, bad rows."""
    given = {
        "top_k": np.array([3, 30, 2, 1, 30, 1 << 40]),
        "top_p": np.array([0.5, 0.9, 1.0, 0.3, 0.2, 1.0]),
        "min_p": np.array([0.0, 0.1, 1.0, 0.0, 0.0, 0.0]),
        "temperature": np.array([0.5, 1.0, 0.0, 2.0, 0.3, 1.0]),
        "row_ids": np.array([2**56 - 1, 5, 2**33, 0, 1, 2]),
        "row_mask": np.array([True, True, True, False, True, True]),
    }
    x = logits((6, 30), dtype)
    x[0], x[1], x[2], x[5] = 1, x[3][::-1], x[3], x[4]
    for method in methods:
        equal(x, method=method, num_samples=3, **given)
        equal(x, method=method, top_k=[30, 4, 30, 2, 9, 30])
        compare(x, on_device(x), {}, method=method, num_samples=0, top_p=0.5)
    bad = logits((4, 30), dtype)
    bad[0, 7], bad[1], bad[2, 3] = np.nan, -np.inf, np.inf
    for method in methods:
        equal(bad, method=method, top_p=0.5, top_k=5)
        equal(bad, method=method, top_k=[30, 30, 30, 4])  # the first three keep all


@check
def check_layouts():
    """Axes and strides."""
    x = logits((2, 3, 20), np.float32)
    for axis, array in ((0, x.transpose(2, 0, 1)), (1, x.transpose(0, 2, 1)), (-1, x[..., ::-1]), (-1, x[:, ::2])):
        for method in METHODS:
            equal(array, axis=axis, num_samples=2, method=method, top_k=7, top_p=0.9)
    limits = {"top_k": [[1, 2, 20]], "top_p": [[0.5], [1.0]]}  # they broadcast
    compare(x, on_device(x), {}, **limits)
    one = rng().sample(on_device(x[0, 0]), top_k=2)
    for found, due in zip(one, rng().sample(x[0, 0], top_k=2), strict=True):
        same(found, due, "one row")


@check
def check_blocks():
    """Rows of several blocks, some without a column that is kept; ties over the edge of a block."""
    x = logits((1, 4096 + 9), np.float32)
    x[0, 4096:] -= 40
    equal(x, top_k=30, top_p=0.9)
    x[0, 4000:] = x.max() + 1
    equal(x, top_k=100, method="gumbel_max")
    with changed(_SPREAD_FROM=1, _SPREAD_RUN=1):
        equal(x, top_p=0.6)


@check
def check_launches():
    """Histograms by several CUDA blocks, more or fewer of them than a cut takes; one CUDA block for everything."""
    for levels in (1, 6):
        with changed(_SPREAD_FROM=0, _SPREAD_RUN=1, _SPREAD_LEVELS=levels):
            check_settings(np.float32, 40, SETTINGS[2:6:3], samples=1, rows=slice(0, None, 4))
    with changed(_GRID=1, _WINNERS=1):
        for method in METHODS:
            equal(logits((3, 40), np.float32), num_samples=3, method=method, top_k=20, top_p=[0.4, 1.0, 0.9])


@check
def check_ragged():
    """Rows of a line, as the kernels have them: of no, one and many columns, cut by what each has."""
    offsets = np.array([0, 7, 8, 40, 47])
    x = logits((1, offsets[-1]), np.float32)[0]
    rows = len(offsets) - 1
    top_k, top_p = np.array([3, 3, 40, 5]), np.array([0.9, 0.5, 0.6, 1.0])
    for method in METHODS:
        expected = rng().sample(x, 2, offsets=offsets, method=method, top_k=top_k, top_p=top_p, on_invalid="flag")
        found = [cuda.device_array(2 * rows, np.int64), *(cuda.device_array(n, np.float32) for n in (2 * rows, rows))]
        none = {kind: as_given(cuda.device_array(0, kind)) for kind in (np.float64, np.uint64, np.uint8, np.int64)}
        call = Call(
            0, 1.0, none[np.float64], none[np.uint64], none[np.uint8], np.uint64(SEED), np.uint64(DRAW),
            none[np.uint64], as_given(on_device(offsets)),
        )  # fmt: skip
        limits = Limits(1, as_given(on_device(top_k)), 1.0, as_given(on_device(top_p)), 0.0, none[np.float64])
        context = launch.LaunchContext("float32", 0, 0, lambda shape, kind: as_given(cuda.device_array(shape, kind)))
        results = Results(*map(as_given, found), none[np.float64], none[np.int64])
        launch.truncated(as_given(on_device(x[None])), call, limits, method, 2, results, context)
        for part, due in zip(found, expected, strict=True):
            same(part, due.reshape(-1), f"ragged {method}")


@check
def check_flags():
    """Values that only a kernel meets flag their row; a draw id on the device goes on; `out` is written."""
    x = logits((2, 9), np.float32)
    for name, value in (
        ("top_k", -2),
        ("top_p", 0.0),
        ("top_p", np.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
    ):
        there = {name: on_device(np.array([1, value], np.int64 if name == "top_k" else np.float64))}
        for method in METHODS:
            found = rng().sample(on_device(x), method=method, **there)
            assert found.indices.copy_to_host()[0] >= 0
            assert found.indices.copy_to_host()[1] == -1
            assert np.isnan(found.logsumexp.copy_to_host()[1])
            assert "row 1" in raised(
                lambda m=method, t=there: rng().sample(on_device(x), method=m, on_invalid="raise", **t)
            )
    for switched_off in (0, -1):
        limits = np.array([1, switched_off])
        for method in METHODS:
            found = rng().sample(on_device(x), method=method, top_k=on_device(limits))
            for one, due in zip(found, rng().sample(x, method=method, top_k=limits), strict=True):
                same(one, due, f"top_k {switched_off} of a row")
    bad = x.copy()
    bad[1, 4] = np.nan
    message = raised(lambda: rng().categorical(on_device(bad), top_k=3, on_invalid="raise"))
    assert message == "logits row 1 holds NaN at column 4", message
    counter = on_device(np.array([DRAW], np.uint64))
    moving = numbel.Generator(SEED, counter)
    for draw in (DRAW, DRAW + 1):
        out = cuda.device_array(2, np.int64)
        assert moving.categorical(on_device(x), top_p=0.7, out=out) is out
        same(out, numbel.Generator(SEED, draw).categorical(x, top_p=0.7), "a counter")
    same(rng().categorical(on_device(x), top_k=9, top_p=1, min_p=0), rng().categorical(x), "all kept")


@check
def check_errors():
    """Each before anything is launched."""
    x = on_device(logits((2, 9), np.float32))

    def draws(**options):
        return raised(lambda: rng().categorical(x, **options))

    assert draws(top_k=-2) == "top_k must be at least 1, got -2: 0 and -1 switch it off"
    assert draws(top_k=[1, -2]) == "top_k row 1 is -2; it must be at least 1: 0 and -1 switch it off"
    assert draws(top_p=1.5) == "top_p must be in (0, 1], got 1.5: 1 switches it off, temperature=0 takes the argmax"
    assert draws(min_p=[0.5, -1.0]) == "min_p row 1 is -1.0; it must be in [0, 1]: 0 switches it off"
    assert draws(top_p=[0.5] * 3) == "top_p of shape (3,) does not broadcast to the rows' shape (2,)"
    assert draws(top_k=on_device(np.ones(2))) == "top_k must hold integers, got float64"
    assert draws(min_p=on_device(np.zeros(2, np.bool_))) == "min_p must hold real numbers, got bool"
    assert "top_p is a device array of shape (3,)" in draws(top_p=on_device(np.ones(3)))
    there = on_device(np.array([0.5, 0.9]))
    x, there = x.copy_to_host(), on_device(np.array([0.5, 0.9]))  # with top_k no row can keep all
    found = rng().categorical(on_device(x), 64, top_k=[2, 8], top_p=there)
    same(found, rng().categorical(x, 64, top_k=[2, 8], top_p=[0.5, 0.9]), "many")


@check
def check_kinds_of_rows(dtype):
    if dtype is np.float32:
        check_settings(dtype, 7, SETTINGS[1:6:2], samples=1, rows=slice(0, None, 2))
        check_settings(dtype, 40, samples=1)
    else:
        check_settings(dtype, 30, SETTINGS[1:7:2], samples=1, rows=slice(0, None, 2))


@check
def check_rows_limits(dtype):
    check_rows(dtype)


@check(formats=("float32",), backends=("ptx",))
def check_longer(dtype):
    check_settings(dtype, 1000, SETTINGS[1:6:2])
    check_settings(dtype, 20_000, ({"top_k": 900, "top_p": 0.99}, {"top_k": 15_000}, {"top_p": 0.9}), rows=slice(0, 4))


@check(backends=("card",))
def check_long(dtype):
    for columns in (1000, 4096, 20_000, 300_000):
        check_settings(dtype, columns)
        check_settings(dtype, columns, ({"top_k": 900}, {"top_k": 900, "top_p": 0.99}))
    check_settings(dtype, 20_000, ({"top_k": 15_000}, {"top_k": 15_000, "top_p": 0.9}))


@check
def check_some():
    """What planted bugs are looked for with: ties at a cut, top_p of what top_k keeps, by histograms."""
    check_settings(np.float32, 40, ({"top_k": 20}, {"top_k": 25, "top_p": 0.9}), samples=1)
