"""CategoricalTable, and many samples of a row from one."""

from __future__ import annotations

import pickle
import threading

import ml_dtypes
import numba
import numpy as np
import pytest

import numbel
import oracle
from numbel._host import tables
from statistics_helpers import assert_fits, assert_independent, assert_poisson, zipf

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def rows(columns):
    """Logits of every kind that the split may meet."""
    rng = np.random.default_rng(columns)
    yield "normal", rng.standard_normal(columns)
    yield "equal", np.zeros(columns)
    yield "nearly equal", rng.standard_normal(columns) * 1e-12
    yield "one", np.where(np.arange(columns) == columns // 2, -7.0, -np.inf)
    yield "two", np.where(np.arange(columns) % max(columns - 1, 1) == 0, 1e30, -np.inf)
    yield "ascending", np.sort(rng.standard_normal(columns))
    yield "geometric", np.linspace(-700.0, 0.0, columns)
    holes = rng.standard_normal(columns)
    holes[::3] = -np.inf
    if columns > 1:
        yield "holes", holes


def masses(table):
    """What each category has of all the K C, as Python integers, by the rule that draws follow; and K C."""
    unit, bits = int(table.head[0]), int(table.head[1])
    found = [0] * table.columns
    for column, entry in enumerate(table.entries.view(np.uint64).tolist()):
        threshold, alias = entry >> bits, entry & ((1 << bits) - 1)
        found[column] += threshold
        found[alias] += unit - threshold
    return found, unit * table.columns


@pytest.mark.parametrize("columns", [1, 2, 3, 17, 256, 4096, 4097, 20_000, 1 << 18])
def test_a_table_has_the_law(columns):
    """Every mass within K 2^-62 of its due, relative and absolute; in all K C exactly; none where -inf stands."""
    for name, x in rows(columns):
        table = numbel.CategoricalTable(x)
        found, whole = masses(table._table)
        assert sum(found) == whole, name
        assert abs(whole - 2**62) < 2**62 * 1e-6, name
        with np.errstate(invalid="ignore"):
            p = np.exp(oracle.log_probabilities(x))
        assert all(m == 0 for m, value in zip(found, x, strict=True) if value == -np.inf), name
        error = np.abs(np.array(found, np.longdouble) / np.longdouble(whole) - p)
        share = columns / max(sum(m > 0 for m in found), 1) + 2
        assert (error <= p * (columns * 2.0**-62 + 5e-15) + share * 2.0**-62).all(), name


@pytest.mark.parametrize("columns", [5, 4097, (1 << 18) + 3])
def test_a_table_does_not_depend_on_threads_or_pieces(columns, monkeypatch):
    before = numba.get_num_threads()
    for name, x in rows(columns):
        due = numbel.CategoricalTable(x)._table.entries
        for cut in (1 << 17, 1 << 10, 1 << 8):
            monkeypatch.setattr(tables, "_CUT", cut)
            try:
                for threads in range(1, before + 1):
                    numba.set_num_threads(threads)
                    assert np.array_equal(numbel.CategoricalTable(x)._table.entries, due), (name, cut, threads)
            finally:
                numba.set_num_threads(before)


def draws_by_the_rule(table, seed, draw, count, row=0):
    """Draws of a table as the stream says, with the oracle's words."""
    i = np.arange(count, dtype=np.uint64)
    words = oracle.block_words(seed, draw, i, 0, row, oracle.TABLE)
    unit, bits = int(table.head[0]), int(table.head[1])
    entries = table.entries.view(np.uint64).tolist()
    found = []
    for x0, x1, x2, x3 in zip(*(w.tolist() for w in words), strict=True):
        column = ((x0 << 32 | x1) * table.columns) >> 64
        level = ((x2 << 32 | x3) * unit) >> 64
        entry = entries[column]
        found.append(column if level < entry >> bits else entry & ((1 << bits) - 1))
    return found


@pytest.mark.parametrize("columns", [1, 7, 300, 70_000])
def test_draws_are_those_of_their_address(columns):
    x = np.random.default_rng(columns).standard_normal(columns)
    table = numbel.CategoricalTable(x)
    drawn = table.sample(numbel.Generator(11, draw=4), 3000)
    assert drawn.tolist() == draws_by_the_rule(table._table, 11, 4, 3000)
    assert np.array_equal(
        numbel.Generator(11, draw=4).categorical(x, 3000 if columns < 70_000 else 40_000)[:3000], drawn
    )
    ids = np.array([5, (1 << 40) + 3])
    both = numbel.Generator(11, draw=4).categorical(np.stack([x, x]), 40_000, row_ids=ids)
    for row in (0, 1):
        assert both[row, :500].tolist() == draws_by_the_rule(table._table, 11, 4, 500, int(ids[row]))


def test_draws_fit():
    """10^7 draws of 1000 categories, p from 8e-8 to 0.012: detects 1.1e-4 in the largest; pairs independent."""
    x = zipf(1000)
    drawn = numbel.CategoricalTable(x).sample(numbel.Generator(12), 10_000_000)
    assert_fits(np.bincount(drawn, minlength=1000), oracle.probabilities(x))
    few = np.minimum(drawn, 3)
    p = np.bincount(few) / len(few)
    assert_independent(few[:-1], few[1:], p)
    assert_independent(few[:-4096], few[4096:], p)


def test_one_pass_and_table_have_one_law(monkeypatch):
    """400,000 samples each of six rows: detects 0.0057 in a proportion of 1/2."""
    x = np.random.default_rng(3).standard_normal((6, 40)).astype(np.float32)
    for tabled, seed in ((True, 13), (False, 14)):
        monkeypatch.setattr(tables, "tabled", lambda *_, answer=tabled: answer)
        drawn = numbel.Generator(seed).categorical(x, 400_000)
        for row in range(6):
            assert_fits(np.bincount(drawn[row], minlength=40), oracle.probabilities(x[row]))
        p = oracle.probabilities(x[0])
        assert_independent(drawn[0, ::2], drawn[0, 1::2], p)
        assert_independent(numbel.Generator(seed + 100).categorical(np.stack([x[0]] * 2), 400_000)[1], drawn[0], p)


def test_two_rows_are_independent():
    """Rows of one call, 400,000 samples: their pair table against the product law."""
    x = np.zeros((2, 5), np.float32)
    drawn = numbel.Generator(15).categorical(x, 400_000)
    assert_independent(drawn[0], drawn[1], np.full(5, 0.2))


def test_rare_and_impossible():
    """2^20 categories 20 below one: 2.16e-3 of 400,000 draws elsewhere; half the others impossible and never drawn."""
    x = np.full(1 << 20, -20.0)
    x[::2] = -np.inf
    x[7777] = 0.0
    drawn = numbel.CategoricalTable(x).sample(numbel.Generator(16), 400_000)
    others = drawn[drawn != 7777]
    p = ((1 << 19) - 1) * np.exp(-20.0)
    assert_poisson(len(others), 400_000 * p / (1 + p))
    assert (others % 2 == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_by_one_worker_or_by_all(dtype, monkeypatch):
    """However rows are shared out: ids, masks, temperatures 0, strides, several batch axes; log_prob as untabled."""
    rng = np.random.default_rng(4)
    before = numba.get_num_threads()
    for shape in ((9, 5), (3, 4, 300), (4, 5000)):
        x = rng.standard_normal(shape).astype(dtype)
        x[..., 1] = -np.inf
        t, mask, ids = rng.uniform(0.1, 2, shape[:-1]), np.ones(shape[:-1], bool), rng.integers(0, 1 << 50, shape[:-1])
        t.flat[1], mask.flat[0] = 0, False
        options = {"temperature": t, "row_mask": mask, "row_ids": ids}
        found = []
        for whole in (0, 1 << 18):
            monkeypatch.setattr(tables, "_WHOLE", whole)
            for threads in range(1, before + 1):
                numba.set_num_threads(threads)
                found.append(numbel.Generator(3).sample(x, 700, **options))
        numba.set_num_threads(before)
        found.append(numbel.Generator(3).sample(np.moveaxis(x, -1, 0).copy(), 700, axis=0, **options))
        first = found[0]
        for other in found[1:]:
            assert all(a.tobytes() == b.tobytes() for a, b in zip(first, other, strict=True))
        flat = first.indices.reshape(-1, 700)
        assert (flat[0] == -1).all()
        assert (flat[1] == np.argmax(x.reshape(-1, shape[-1])[1])).all()
        assert not (flat == 1).any()
        log_prob = numbel.log_prob(x, np.maximum(first.indices, 0), temperature=t)
        log_prob.reshape(-1, 700)[0] = np.nan
        assert np.array_equal(log_prob, first.log_prob, equal_nan=True)
        alone = numbel.Generator(3).categorical(
            x.reshape(-1, shape[-1])[2], 700, temperature=t.flat[2], row_ids=ids.flat[2]
        )
        assert np.array_equal(alone, flat[2])
        assert np.array_equal(numbel.Generator(3).categorical(x, 700, **options), first.indices)
        one_pass = numbel.Generator(3).sample(x, 3, **options)
        assert np.array_equal(one_pass.logsumexp, first.logsumexp, equal_nan=True)


def test_the_rule():
    """Few samples from one pass, many from a table; nothing but columns, samples and dtype decides."""
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    for columns, least, least_double in ((2, 64, 64), (512, 64, 64), (4096, 512, 512), (4097, 64, 64),
                                         (1 << 15, 256, 128), (1 << 20, 8192, 4096)):  # fmt: skip
        for dtype, due in ((single, least), (double, least_double), (np.dtype(np.float16), least)):
            assert not tables.tabled(columns, due - 1, dtype)
            assert tables.tabled(columns, due, dtype)
    for columns in (2, 300, 70_000):
        x = np.random.default_rng(1).standard_normal((2, columns)).astype(np.float32)
        one = numbel.Generator(3).categorical(x)
        assert np.array_equal(numbel.Generator(3).categorical(x, 1)[:, 0], one)
        assert np.array_equal(numbel.Generator(3).categorical(x, 63)[:, 0], one)
        rng = numbel.Generator(3)
        rng.categorical(x, 5000)
        assert rng.draw == 1
    # the noise of gumbel_max is public: it is never replaced
    x = np.random.default_rng(1).standard_normal((2, 30))
    few = numbel.Generator(3).categorical(x, 63, method="gumbel_max")
    assert np.array_equal(numbel.Generator(3).categorical(x, 500, method="gumbel_max")[:, :63], few)


def test_bad_rows_among_many_samples():
    for columns in (9, 300):
        x = np.zeros((4, columns), np.float32)
        x[1, 5], x[2] = np.nan, -np.inf
        with pytest.raises(ValueError, match="logits row 1 holds NaN at column 5"):
            numbel.Generator(5).categorical(x, 1000)
        flagged = numbel.Generator(5).sample(x, 1000, on_invalid="flag")
        assert (flagged.indices[1:3] == -1).all()
        assert np.isnan(flagged.log_prob[1:3]).all()
        assert (flagged.indices[[0, 3]] >= 0).all()


def test_pickles_and_threads():
    x = np.random.default_rng(5).standard_normal(5000)
    table = numbel.CategoricalTable(x, temperature=0.7)
    again = pickle.loads(pickle.dumps(table))
    assert again.logsumexp == table.logsumexp == numbel.logsumexp(x, temperature=0.7)
    assert (again.categories, again.nbytes, repr(again)) == (5000, 40_000, "numbel.CategoricalTable(5000 categories)")
    due = [table.sample(numbel.Generator(6, i), 50_000) for i in range(4)]
    found = [None] * 4

    def work(i):
        found[i] = again.sample(numbel.Generator(6, i), 50_000)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(a, b) for a, b in zip(due, found, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        again._table.entries[0] = 0


def test_sizes_and_out():
    table, rng = numbel.CategoricalTable(np.zeros(10)), numbel.Generator(7)
    assert isinstance(table.sample(rng), np.int64)
    assert table.sample(rng, (2, 3)).shape == (2, 3)
    assert table.sample(rng, 0).shape == (0,)
    assert rng.draw == 3
    out = np.zeros((4, 6), np.int64)[:, ::2]
    assert table.sample(numbel.Generator(7), out=out) is out
    assert np.array_equal(out.ravel(), table.sample(numbel.Generator(7), 12))
    for size, given, error in ((-1, None, ValueError), (1.5, None, TypeError), (3, np.zeros(4, np.int64), ValueError),
                               (4, np.zeros(4), TypeError)):  # fmt: skip
        with pytest.raises(error):
            table.sample(rng, size, out=given)
    with pytest.raises(TypeError, match=r"rng must be a numbel\.Generator, got int"):
        table.sample(5)
    assert rng.draw == 3


def test_bad_logits():
    for x, error, text in (
        (np.zeros((2, 3)), ValueError, r"logits has shape \(2, 3\), expected one row"),
        (np.zeros(0), ValueError, "zero categories"),
        (np.array([0.0, np.nan]), ValueError, "logits row 0 holds NaN at column 1"),
        (np.array([0.0, np.inf]), ValueError, r"logits row 0 holds \+inf at column 1"),
        (np.full(3, -np.inf), ValueError, "logits row 0 has no possible category"),
        (np.zeros(3, int), TypeError, "got int64"),
    ):
        with pytest.raises(error, match=text):
            numbel.CategoricalTable(x)
    for temperature in (-1.0, np.inf, np.nan, [1.0, 2.0]):
        with pytest.raises(ValueError, match="temperature"):
            numbel.CategoricalTable(np.zeros(3), temperature=temperature)


def test_more_samples_than_categories_need_no_more_memory():
    """A call of samples >= K holds nothing of size rows x samples but its result."""
    x = np.random.default_rng(8).standard_normal((3, 1000)).astype(np.float32)
    out = np.empty((3, 100_000), np.int64)
    assert numbel.Generator(5).categorical(x, 100_000, out=out) is out
    assert np.array_equal(out[1], numbel.Generator(5).categorical(x[1], 100_000, row_ids=np.array(1)))


@pytest.mark.long
def test_2_to_the_27_categories():
    """Equal ones but for one of half the mass, 10^6 draws: detects 0.0036 in its proportion, 0.0024 in a decile's."""
    x = np.zeros(1 << 27, np.float32)
    x[12345] = np.log(x.size - 1.0)
    drawn = numbel.CategoricalTable(x).sample(numbel.Generator(17), 1_000_000)
    assert_fits([(drawn == 12345).sum(), (drawn != 12345).sum()], [1, 1])
    others = drawn[drawn != 12345]
    assert_fits(np.histogram(others, np.linspace(0, x.size, 11))[0], np.ones(10))
    assert_fits(np.bincount(others % 64, minlength=64), np.ones(64))
