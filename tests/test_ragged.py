"""Ragged rows by offsets: bit for bit what each row gives alone, at its own address."""

import itertools

import numba
import numpy as np
import pytest

import numbel
from make_golden import dtypes, logits
from numbel._host import dispatch
from numbel._host import ragged as _ragged
from statistics_helpers import assert_fits

DTYPES = dtypes()
METHODS = ("grouped", "gumbel_max")
INF = np.inf
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
each_method = pytest.mark.parametrize("method", METHODS)
#: Every width of padded rows and its neighbours, rows of one block and of several, in a scrambled order.
LENGTHS = np.random.default_rng(1).permutation(
    [
        *range(1, 20),
        23,
        24,
        25,
        31,
        33,
        64,
        65,
        96,
        97,
        127,
        129,
        192,
        193,
        255,
        256,
        257,
        600,
        4096,
        4097,
        9000,
        1,
        1,
        2,
    ]
)


def ragged(lengths, dtype=np.float32):
    """Logits of rows of these lengths, and their offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    x = logits((1, int(offsets[-1])), np.dtype(dtype))[0].copy()
    x[offsets[:-1]] = 0.5  # no row is impossible
    return x, offsets


def same(a, b):
    """Whether two results hold the same bits."""
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in zip(a, b, strict=True))


def alone(x, offsets, num_samples, ids, temperature, **options):
    """The same rows, each in a call of its own."""
    parts = []
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        t = [temperature[row]] if np.ndim(temperature) else temperature
        draw = numbel.Generator(92, 3).sample
        parts.append(draw(x[None, start:end], num_samples, row_ids=[ids[row]], temperature=t, **options))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@each_dtype
@each_method
@pytest.mark.parametrize("num_samples", [None, 3, 80])  # 80 take tables of some lengths
def test_each_row_is_that_of_a_call_of_its_own(dtype, method, num_samples):
    x, offsets = ragged(LENGTHS, dtype)
    plain = np.arange(len(LENGTHS))
    got = numbel.Generator(92, 3).sample(x, num_samples, offsets=offsets, method=method)
    assert same(got, alone(x, offsets, num_samples, plain, 1.0, method=method))
    indices = numbel.Generator(92, 3).categorical(x, num_samples, offsets=offsets, method=method)
    assert np.array_equal(indices, got.indices)
    # temperature and row ids of each row, some of them 0
    ids = plain[::-1] * (1 << 40) + 5
    temperatures = np.where(plain % 5 == 2, 0.0, 0.3 + plain / 10)
    got = numbel.Generator(92, 3).sample(
        x, num_samples, offsets=offsets, method=method, row_ids=ids, temperature=temperatures
    )
    assert same(got, alone(x, offsets, num_samples, ids, temperatures, method=method))


@each_method
def test_cuts_and_threads_change_no_bit(method, monkeypatch):
    lengths = np.append(LENGTHS, [300_000, 70_000, 5])
    x, offsets = ragged(lengths)
    expected = alone(x, offsets, 2, np.arange(len(lengths)), 1.0, method=method)
    threads = numba.get_num_threads()
    monkeypatch.setattr(dispatch, "_PARALLEL_FROM", 1)
    try:
        for count in sorted({1, threads}):
            numba.set_num_threads(count)
            for rows, padded, wave, samples in ((1 << 18, 1 << 20, 1 << 28, 1 << 18), (7, 300, 1 << 13, 1)):
                monkeypatch.setattr(_ragged, "_ROWS", rows)
                monkeypatch.setattr(_ragged, "_PADDED", padded)
                monkeypatch.setattr(dispatch, "_WAVE", wave)
                monkeypatch.setattr(dispatch, "_SEGMENT_SAMPLES", samples)
                assert same(numbel.Generator(92, 3).sample(x, 2, offsets=offsets, method=method), expected)
    finally:
        numba.set_num_threads(threads)


@each_method
def test_strided_logits_and_outputs(method):
    x, offsets = ragged(LENGTHS)
    rows = len(LENGTHS)
    expected = numbel.Generator(92, 3).sample(x, 2, offsets=offsets, method=method)
    wide = np.zeros(3 * len(x), np.float32)
    wide[::-3] = x
    view = wide[::-3]
    view.flags.writeable = False
    assert same(numbel.Generator(92, 3).sample(view, 2, offsets=list(offsets), axis=0, method=method), expected)
    out = numbel.Sample(np.zeros((2, rows), np.int64).T, None, np.zeros(2 * rows, np.float32)[::2])
    got = numbel.Generator(92, 3).sample(x, 2, offsets=offsets, method=method, out=out)
    assert got.indices is out.indices
    assert got.logsumexp is out.logsumexp
    assert same(got, expected)


@each_method
def test_masked_and_flagged_rows(method):
    x, offsets = ragged([5, 0, 300, 9000, 4, 70_000, 2])
    x[offsets[3] + 17], x[offsets[4] : offsets[5]], x[offsets[5] + 60_000] = np.nan, -INF, INF
    mask = np.array([True, False, True, True, True, True, False])
    got = numbel.Generator(93).sample(x, 2, offsets=offsets, method=method, row_mask=mask, on_invalid="flag")
    clean = numbel.Generator(93).sample(x[: offsets[3]], 2, offsets=offsets[:4], method=method, row_mask=mask[:3])
    assert same([part[:3] for part in got], clean)
    assert (got.indices[[1, 3, 4, 5, 6]] == -1).all()
    assert np.isnan(got.log_prob[[1, 3, 4, 5, 6]]).all()
    assert np.isnan(got.logsumexp[[1, 3, 4, 5, 6]]).all()
    assert (got.indices[[0, 2]] >= 0).all()


@each_method
def test_the_first_bad_row_is_named(method):
    def message(changes):
        x, offsets = ragged([5, 300, 9000, 4, 70_000, 2])
        for row, column, value in changes:
            x[offsets[row] :][column] = value
        with pytest.raises(ValueError, match=r".") as caught:
            numbel.Generator(94).categorical(x, offsets=offsets, method=method)
        return str(caught.value)

    assert message([(3, 2, np.nan), (4, 5, INF)]) == "logits row 3 holds NaN at column 2"
    assert message([(3, 2, np.nan), (2, 8000, INF)]) == "logits row 2 holds +inf at column 8000"
    assert message([(4, 69_999, np.nan), (5, slice(0, 2), -INF)]) == "logits row 4 holds NaN at column 69999"
    assert message([(5, slice(0, 2), -INF)]) == "logits row 5 has no possible category"


def test_bad_offsets():
    x, rng = np.zeros(10, np.float32), numbel.Generator(95)
    for offsets, text in (
        ([0, 5], "offsets run from 0 to 5, expected 0 to 10, the length of logits"),
        ([1, 10], "offsets run from 1 to 10, expected 0 to 10, the length of logits"),
        ([0, 7, 3, 10], "offsets fall from 7 to 3 at row 1"),
        ([0, 4, 4, 10], "logits row 1 has zero categories, from its offsets"),
        ([], r"offsets has shape \(0,\), expected one axis: the number of rows, and 1"),
        ([[0, 10]], r"offsets has shape \(1, 2\), expected one axis: the number of rows, and 1"),
    ):
        out = np.full(max(len(offsets) - 1, 0), 77)
        for function in (rng.categorical, rng.sample):
            with pytest.raises(ValueError, match=f"^{text}$"):
                function(x, offsets=offsets)
        if len(offsets) == 4:
            with pytest.raises(ValueError, match=text):
                rng.categorical(x, offsets=offsets, out=out)
            assert (out == 77).all()
    with pytest.raises(TypeError, match=r"offsets must hold integers, got float64"):
        rng.categorical(x, offsets=[0.0, 10.0])
    with pytest.raises(ValueError, match=r"logits has 2 axes; offsets cut rows from one axis"):
        rng.categorical(x.reshape(2, 5), offsets=[0, 10])
    with pytest.raises(np.exceptions.AxisError):
        rng.categorical(x, offsets=[0, 10], axis=1)
    with pytest.raises(TypeError, match=r"logits: expected float16, bfloat16, float32 or float64, got int64"):
        rng.categorical(np.zeros(10, np.int64), offsets=[0, 10])
    for name, value in (("row_ids", [1]), ("row_mask", [True]), ("temperature", [1.0, 1.0, 1.0])):
        with pytest.raises(ValueError, match=name):
            rng.categorical(x, offsets=[0, 5, 10], **{name: value})
    assert rng.draw == 0


def test_an_empty_row_beside_rows_that_take_tables():
    x = np.arange(8.0)
    got = numbel.Generator(94).sample(x, 64, offsets=[0, 3, 3, 8], row_mask=[True, False, True])
    assert (got.indices[1] == -1).all()
    assert np.isnan(got.log_prob[1]).all()
    for row, part in ((0, x[:3]), (2, x[3:])):
        alone = numbel.Generator(94).sample(part[None], 64, row_ids=[row])
        for found, due in zip(got, alone, strict=True):
            np.testing.assert_array_equal(found[row], due[0])


def test_no_rows_and_no_samples():
    rng = numbel.Generator(96)
    got = rng.sample(np.zeros(0), 4, offsets=[0])
    assert [part.shape for part in got] == [(0, 4), (0, 4), (0,)]
    assert rng.categorical(np.zeros(0, np.float32), offsets=np.array([0], np.uint8)).shape == (0,)
    x, offsets = ragged([5, 300, 9000, 70_000])
    got = rng.sample(x, 0, offsets=offsets)
    assert got.indices.shape == (4, 0)
    expected = rng.sample(x, 1, offsets=offsets).logsumexp
    np.testing.assert_array_equal(got.logsumexp, expected)
    assert numbel.Generator(97).categorical(x, offsets=offsets).shape == (4,)


@each_method
def test_the_law_of_padded_rows(method):
    """Rows of 5 and 7 categories side by side, 300,000 each: a bias of 0.0044 in a probability of 0.14 shows."""
    p = np.array([0.1, 0.3, 0.2, 0.3, 0.1]), np.array([0.3, 0.05, 0.15, 0.1, 0.2, 0.05, 0.15])
    x = np.tile(np.log(np.concatenate(p)), 300_000)
    offsets = np.concatenate([[0], np.cumsum(np.tile([5, 7], 300_000))])
    indices = numbel.Generator(98).categorical(x, offsets=offsets, method=method)
    for row in range(2):
        assert indices[row::2].max() < len(p[row])
        assert_fits(np.bincount(indices[row::2], minlength=len(p[row])), p[row])


TRUNCATIONS = ({"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 600, "top_p": 1.0})


@pytest.mark.parametrize("num_samples", [None, 70])
@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
@each_method
def test_truncated_rows_are_those_of_calls_of_their_own(method, truncation, num_samples):
    """top_k of 600 switches off in rows of up to 600, which 70 samples take from tables where each alone does."""
    x, offsets = ragged(LENGTHS)
    got = numbel.Generator(92, 3).sample(x, num_samples, offsets=offsets, method=method, **truncation)
    plain = np.arange(len(LENGTHS))
    assert same(got, alone(x, offsets, num_samples, plain, 1.0, method=method, **truncation))


def test_truncation_of_each_ragged_row():
    x, offsets = ragged([5, 1, 300, 5, 9000])
    mask = np.array([True, True, True, False, True])
    settings = {"top_k": np.array([2, 1, 300, 5, 7]), "min_p": np.array([0.0, 0.5, 0.0, 0.1, 0.0])}
    got = numbel.Generator(5).sample(x, 3, offsets=offsets, row_mask=mask, **settings)
    for row in (0, 1, 2, 4):
        one = {name: values[row] for name, values in settings.items()}
        rng = numbel.Generator(5)
        alone_ = rng.sample(x[None, offsets[row] : offsets[row + 1]], 3, row_ids=[row], **one)
        assert same([part[row] for part in got], [part[0] for part in alone_])
    assert (got.indices[3] == -1).all()
    empty = numbel.Generator(5).categorical(x[:5], offsets=[0, 0, 5], row_mask=[False, True], top_k=2)
    assert empty[0] == -1
