"""Many samples of a row, tables and counts."""

from __future__ import annotations

import pickle

import numpy as np
from numba import cuda

import numbel
from backend import BACKEND
from common import DRAW, SEED, WIDE, cheap, check, logits, on_device, raised, rng, same, transposed
from numbel._cuda import launch

#: Rows, columns and samples that take a table: few columns, one block and a bit, several blocks.
SHAPES = ((3, 1, 64), (4, 7, 65), (2, 513, 70), (1, 4099, 64), (1, 2 * 4096 + 5, 70))
LONGER = {
    "simulator": (),
    "ptx": ((50, 300, 200), (2, 20_000, 5000)),
    "card": ((1000, 1000, 200), (3, 300_000, 5000), (1, 1 << 22, 1 << 16)),
}
NUMBERS = (0, 1, 9, 1000, 1 << 40, 1 << 62)


def check_sample(x, samples, **options):
    """All outputs, and the indices alone."""
    what = f"{samples} samples {x.dtype} {x.shape} {options}"
    expected = rng().sample(x, samples, on_invalid="flag", **options)
    for found, due in zip(rng().sample(on_device(x), samples, **options), expected, strict=True):
        same(found, due, what)
    if cheap(x):
        same(rng().categorical(on_device(x), samples, **options), expected.indices, what)


def check_table(row, temperature=1.0):
    """Entries, logsumexp and draws of a table, and of its pickle."""
    due, found = (
        numbel.CategoricalTable(row, temperature=temperature),
        numbel.CategoricalTable(on_device(row), temperature=temperature),
    )
    what = f"table {row.dtype} {row.shape} {temperature}"
    entries = found._table.__getstate__()["entries"]
    assert entries.tobytes() == due._table.entries.tobytes(), what
    assert (found.logsumexp, found.nbytes, repr(found)) == (due.logsumexp, due.nbytes, repr(due)), what
    for size in ((2, 3), (5,), ()):
        expected = np.asarray(due.sample(rng(), size))
        same(found.sample(rng(), size), expected, what)
    out = cuda.to_device(np.zeros(7, np.int64))
    assert found.sample(rng(), out=out) is out
    same(out, due.sample(rng(), 7), what)
    same(pickle.loads(pickle.dumps(found)).sample(rng(), 70), due.sample(rng(), 70), f"pickled {what}")


def check_counts(x, n, **options):
    what = f"multinomial {n} {x.dtype} {x.shape} {options}"
    expected = rng().multinomial(n, x, on_invalid="flag", **options)
    same(rng().multinomial(n, on_device(x), **options), expected, what)


@check(formats=WIDE)
def check_rows(dtype):
    """What each row may have, from the host and from the device; axes and strides."""
    ids, mask = np.array([2**56 - 1, 5, 2**33, 1]), np.array([True, True, False, True])
    given = {"row_ids": ids, "row_mask": mask, "temperature": np.array([0.5, 0.0, 2.0, 0.0])}
    there = {name: cuda.to_device(value) for name, value in given.items()}
    x = logits((4, 20), dtype)
    x[1] = x[0]
    x[3, 4] = np.nan
    n = np.array([17, 1 << 50, 9, 3])
    check_sample(x, 64, **given)
    check_counts(x, n, **given)
    for found, due in zip(
        rng().sample(on_device(x), 64, **there), rng().sample(x, 64, on_invalid="flag", **given), strict=True
    ):
        same(found, due, "samples of rows described on the device")
    expected = rng().multinomial(n, x, on_invalid="flag", **given)
    same(rng().multinomial(cuda.to_device(n), on_device(x), **there), expected, "counts, all on the device")
    out = cuda.to_device(np.zeros(x.shape, np.int64))
    assert rng().multinomial(n, on_device(x), out=out, **given) is out
    same(out, expected, "counts with out")


@check
def check_layouts():
    """Three axes in any order, a category axis of its own, outputs to write to."""
    x = logits((2, 3, 4), np.float32)
    for axis, array in ((0, x), (1, x.transpose(1, 0, 2)), (-1, x.transpose(0, 2, 1))):
        check_sample(array, 64, axis=axis)
        check_counts(array, 100, axis=axis)
    due = rng().sample(x[0], 64, on_invalid="flag")
    out = numbel.Sample(*(on_device(np.zeros_like(part)) for part in due))
    rng().sample(on_device(x[0]), 64, out=out)
    for found, expected in zip(out, due, strict=True):
        same(found, expected, "samples with out")
    turned = transposed(on_device(np.zeros((4, 3, 2), np.int64)), (2, 1, 0))
    assert rng().multinomial(50, on_device(x), out=turned) is turned
    same(turned, rng().multinomial(50, x), "counts with a strided out")
    check_counts(x[0, 0], 100)
    check_sample(x[0, 0], 64)
    check_table(x[0, 0])
    check_table(np.linspace(-3, 3, 18, dtype=np.float32)[::2])


@check
def check_laws():
    """Equal columns, a lone one, tiny ones, huge ones; means on both sides of where rejection begins."""
    spread = np.full((8, 12), -np.inf)
    spread[0] = 0
    spread[1, 5] = 3e30
    spread[2] = np.log(np.arange(1, 13))
    spread[3, ::3] = 0
    spread[4] = -np.arange(12) * 60.0
    spread[5] = 1e5
    spread[5, 3] = 1e5 + 1
    spread[6, :2] = [0, -38]
    spread[7, -1] = -700
    for n in NUMBERS:
        check_counts(spread, n)
    check_counts(np.zeros((1, 300), np.float32), 5000)
    check_sample(spread, 64)
    for row in spread:
        check_table(row)
    check_table(np.array([0.0]))
    sparse = np.full(4100, -np.inf, np.float32)
    sparse[[3, 700, 4098]] = 0, 1, 2
    check_table(sparse, 2.5)


@check
def check_rest():
    """Pieces as small as may be, draw ids on the device, flags, errors."""
    kept = launch._GRID, launch._TABLED
    launch._GRID, launch._TABLED = 1, 40
    try:
        check_sample(logits((5, 20), np.float32), 64)
        check_sample(logits((1, 4099), np.float32), 64)
        check_counts(logits((5, 20), np.float32), 1000)
        check_counts(logits((1, 4099), np.float32), 1 << 20)
    finally:
        launch._GRID, launch._TABLED = kept
    x = logits((2, 9), np.float32)
    counter = cuda.to_device(np.array([DRAW], np.uint64))
    moving, table = numbel.Generator(SEED, counter), numbel.CategoricalTable(on_device(x[0]))
    host = numbel.CategoricalTable(x[0])
    same(moving.categorical(on_device(x), 64), numbel.Generator(SEED, DRAW).categorical(x, 64), "draw of a counter")
    same(moving.multinomial(99, on_device(x)), numbel.Generator(SEED, DRAW + 1).multinomial(99, x), "next draw")
    same(table.sample(moving, 9), host.sample(numbel.Generator(SEED, DRAW + 2), 9), "third draw")
    assert counter.copy_to_host()[0] == DRAW + 3

    bad = x.copy()
    bad[1, 4] = np.nan
    message = "logits row 1 holds NaN at column 4"
    assert raised(lambda: rng().categorical(on_device(bad), 64, on_invalid="raise")) == message
    assert raised(lambda: rng().multinomial(5, on_device(bad), on_invalid="raise")) == message
    assert raised(lambda: numbel.CategoricalTable(on_device(bad[1]))) == "logits row 0 holds NaN at column 4"
    found = rng().multinomial(cuda.to_device(np.array([5, -1])), on_device(x)).copy_to_host()
    assert found[0].sum() == 5
    assert (found[1] == -1).all()
    late = cuda.to_device(np.array([(1 << 62) + 1, 4]))
    assert "row 0" in raised(lambda: rng().multinomial(late, on_device(x), on_invalid="raise"))
    assert rng().multinomial(3, on_device(np.zeros((0, 4)))).shape == (0, 4)

    def counts(n, **options):
        return raised(lambda: rng().multinomial(n, on_device(x), **options))

    assert counts(-1) == "n is -1, outside 0 .. 2^62"
    assert counts(1.5) == "n must hold integers, got 1.5"
    assert "does not broadcast" in counts([1, 2, 3])
    assert counts(3, out=np.zeros((2, 9), np.int64)) == "out lies on the host (ndarray) and the logits on a CUDA device"
    assert counts(3, out=on_device(x)) == "out has dtype float32, expected int64"
    assert "n is a device array of shape (3,)" in counts(on_device(np.arange(3)))
    assert "one row" in raised(lambda: numbel.CategoricalTable(on_device(x)))
    assert "is a number" in raised(lambda: numbel.CategoricalTable(on_device(x[0]), temperature=on_device(np.ones(1))))
    check_table(x[0], 0)  # its argmax
    assert "temperature must be" in raised(lambda: numbel.CategoricalTable(on_device(x[0]), temperature=-1))
    assert "and the table on a CUDA device" in raised(lambda: table.sample(rng(), out=np.zeros(3, np.int64)))
    assert "C-contiguous" in raised(lambda: table.sample(rng(), out=on_device(np.zeros(6, np.int64))[::2]))
    assert "stream must have" in raised(lambda: table.sample(rng(), 3, stream=3))
    assert "stream is for arrays on a CUDA device" in raised(lambda: host.sample(rng(), 3, stream=3))
    assert "draws for arrays there only" in raised(lambda: host.sample(moving, 3))


@check(formats=WIDE)
def check_shapes(dtype):
    for rows, columns, samples in (*SHAPES, *LONGER[BACKEND]):
        if dtype is np.float32 or rows * columns < 5000 or BACKEND == "card":
            x = logits((rows, columns), dtype)
            check_sample(x, samples)
            for n in NUMBERS if cheap(x) and dtype is np.float32 else (9, 1 << 40):
                check_counts(x, n)
            check_table(x[0], 0.7)


@check
def check_some():
    """What planted bugs are looked for with: the entries of a table of two blocks, and counts over it."""
    x = logits((1, 4099), np.float32)
    check_table(x[0])
    check_counts(x, 1 << 40)
