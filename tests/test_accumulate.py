"""Logits that come in pieces: bit for bit what the whole array gives, however it is cut, ordered and merged."""

import copy
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numbel

SEED, DRAW = 5, 2
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
METHODS = ("grouped", "gumbel_max")


def rng():
    return numbel.Generator(SEED, DRAW)


def logits(shape, dtype=np.float32, seed=0):
    """Spread rows with impossible columns, one of them with nothing for two blocks, one that outliers rule."""
    x = np.random.default_rng(seed).standard_normal(shape) * 3
    x[..., ::11] = -np.inf
    if x.ndim > 1 and len(x) > 2:
        x[1, ..., :9000] = -np.inf
        x[2, ..., 5::6000] += 60
    return x.astype(dtype)


def equal(found, expected):
    for name, mine, due in zip(expected._fields, found, expected, strict=True):
        assert (np.asarray(mine).dtype, np.shape(mine)) == (np.asarray(due).dtype, np.shape(due)), name
        assert type(mine) is type(due), name
        np.testing.assert_array_equal(mine, due, err_msg=name)


def in_pieces(x, cuts, order=None, accumulators=1, num_samples=None, **options):
    """The result of pieces between `cuts`, given in an order to one accumulator after the other, which are merged."""
    cuts = [0, *sorted(set(cuts)), x.shape[-1]]
    parts = [numbel.CategoricalAccumulator(rng(), num_samples, **options) for _ in range(accumulators)]
    for turn, i in enumerate(range(len(cuts) - 1) if order is None else order):
        piece = x[..., cuts[i] : cuts[i + 1]].copy()
        assert parts[turn % accumulators].update(piece, start=cuts[i]) is parts[turn % accumulators]
        piece[...] = np.nan  # what was given may be changed
    for part in parts[1:]:
        assert parts[0].merge(pickle.loads(pickle.dumps(part))) is parts[0]
    return parts[0].result()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_samples", [None, 3])
def test_pieces_give_the_whole(dtype, method, num_samples):
    x = logits((3, 50_001), dtype)
    options = {"method": method, "temperature": np.array([0.7, 1.0, 3.0])}
    expected = rng().sample(x, num_samples, **options)
    for cuts, order in (
        ([], None),
        ([4096, 20_480], None),
        ([1, 4095, 4097, 8192, 8200, 20_000, 45_056, 50_000], [3, 8, 0, 5, 1, 7, 2, 4, 6]),
        (range(1000, 50_001, 1000), None),
    ):
        for accumulators in (1, 2):
            equal(in_pieces(x, cuts, order, accumulators, num_samples, **options), expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_cut_order_and_merge(data):
    columns = data.draw(st.integers(1, 30_000))
    method = data.draw(st.sampled_from(METHODS))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = logits((2, columns), np.float64, seed=columns)
    for block in range(0, columns, 4096):
        x[:, block : block + 4096] += data.draw(st.sampled_from([0, 300, -300, -1000, 8e4, -8e4, 8e6, -8e6]))
    if dtype is np.float16:
        x = np.where(np.isinf(x), x, np.clip(x, -60_000.0, 60_000.0))
    x = x.astype(dtype)
    x[:, 0] = x[:, -1] if columns > 1 else 0.0
    if not np.isfinite(x[:, 0].astype(np.float64)).all():
        x[:, 0] = -60_000.0
    cuts = data.draw(st.lists(st.integers(1, max(1, columns - 1)), max_size=6)) if columns > 1 else []
    order = data.draw(st.permutations(range(len(set(cuts)) + 1)))
    found = in_pieces(x, cuts, order, data.draw(st.integers(1, 3)), method=method)
    equal(found, rng().sample(x, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_one_row_gives_scalars(method):
    x = logits(30_000)
    found = in_pieces(x, [7, 10_000], method=method)
    assert isinstance(found.indices, np.int64)
    equal(found, rng().sample(x, method=method))
    equal(in_pieces(x, [7, 10_000], num_samples=2, method=method), rng().sample(x, 2, method=method))
    equal(in_pieces(x, [7, 10_000], num_samples=0, method=method), rng().sample(x, 0, method=method))


def test_no_rows():
    x = logits((0, 5000))
    for num_samples in (None, 3000):  # of one row they would come from a table
        equal(in_pieces(x, [100], num_samples=num_samples), rng().sample(x, num_samples))


def test_an_empty_piece_is_nothing():
    x = logits((2, 5000))
    found = numbel.CategoricalAccumulator(rng()).update(x[:, :0]).update(x).update(x[:, :0], start=70)
    equal(found.result(), rng().sample(x))


def test_what_was_given_may_be_changed():
    x = logits((2, 20_000))
    given = {"temperature": np.array([0.5, 2.0]), "row_ids": np.array([7, 8]), "row_mask": np.array([True, True])}
    expected = rng().sample(x, **given)
    found = numbel.CategoricalAccumulator(rng(), **given).update(x[:, :8192])
    given["temperature"][:], given["row_ids"][:], given["row_mask"][:] = 1.0, 3, False
    equal(found.update(x[:, 8192:]).result(), expected)


@pytest.mark.parametrize("method", METHODS)
def test_many_samples_of_a_long_row(monkeypatch, method):
    """More winners of runs than are kept at once: longer runs give the same."""
    monkeypatch.setattr(numbel._host.pieces, "_WINNERS", 100)
    x = logits(2_000_000)
    equal(in_pieces(x, [700_000], num_samples=40, method=method), rng().sample(x, 40, method=method))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low", [-300, -400, -1000, -60_000])
@pytest.mark.parametrize("method", METHODS)
def test_rows_of_low_logits(dtype, low, method):
    """Whatever their level: one more piece may be all there is."""
    x = (logits((3, 20_000)).astype(np.float64) + low).astype(dtype)
    for temperature in (1.0, 0.01):
        options = {"method": method, "temperature": temperature}
        equal(in_pieces(x, [5000, 8192], num_samples=2, **options), rng().sample(x, 2, **options))
    alone = np.full((1, 1), low, dtype)
    equal(in_pieces(alone, [], method=method), rng().sample(alone, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_every_kind(method):
    """Temperatures of 0 among others, ids, a mask, more batch axes, the categories first, strides."""
    x = logits((6, 2, 20_000))
    x[4, 1, [300, 12_000]] = 50.0  # the first of equal largest
    x[5, 0], x[5, 0, 15_000] = -3.0, -0.0
    options = {
        "method": method,
        "temperature": np.array([[0.0, 1.0]] * 2 + [[0.3, 0.0]] * 2 + [[1.0, 0.0], [0.0, 5.0]]),
        "row_ids": np.arange(12).reshape(6, 2)[::-1] * 3,
        "row_mask": np.array([[True, False]] + [[True, True]] * 5),
    }
    expected = rng().sample(x, 2, **options)
    equal(in_pieces(x, [5000, 12_288], [2, 0, 1], 2, 2, **options), expected)
    first = np.moveaxis(x, -1, 0)
    found = numbel.CategoricalAccumulator(rng(), 2, axis=0, **options).update(first[:9000]).update(first[9000:])
    equal(found.result(), expected)


def test_the_noise_that_sums_lose_decides_across_pieces():
    """Noise is rounded away beside 1e300: all perturbed logits are equal."""
    x = np.full((1, 20_000), 1e300)
    x[0, :4500] = -np.inf
    noise = rng().gumbel(size=x.shape, dtype=np.float64)
    first = 4500 + int(noise[0, 4500:].argmax())
    for order in ([0, 1], [1, 0]):
        for accumulators in (1, 2):
            found = in_pieces(x, [10_000], order, accumulators, method="gumbel_max")
            assert found.indices.tolist() == [first]
            equal(found, rng().sample(x, method="gumbel_max"))


def test_results_along_the_way():
    """A result is that of the columns so far, changes nothing, and may be asked for again; copies go on apart."""
    x = logits((2, 40_000))
    found = numbel.CategoricalAccumulator(rng())
    for stop in (5000, 8192, 40_000):
        start = 0 if stop == 5000 else 5000 if stop == 8192 else 8192
        before = copy.deepcopy(found)
        found.update(x[:, start:stop])
        for _ in range(2):
            equal(found.result(), rng().sample(x[:, :stop]))
        if start:
            equal(before.result(), rng().sample(x[:, :start]))


def test_it_takes_one_draw_of_its_generator():
    source = rng()
    numbel.CategoricalAccumulator(source)
    assert source.draw == DRAW + 1
    with pytest.raises(ValueError, match="temperature"):
        numbel.CategoricalAccumulator(source, temperature=-1.0)
    assert source.draw == DRAW + 1


def test_little_is_kept():
    """Pieces in order leave the nodes of a binary number's digits, and less than a block of logits."""
    x = np.zeros((1, 1000), np.float32)
    found = numbel.CategoricalAccumulator(rng())
    for _ in range(3000):
        found.update(x)
    assert len(pickle.dumps(found)) < 20_000
    equal(found.result(), rng().sample(np.zeros((1, 3_000_000), np.float32)))


@pytest.mark.parametrize(
    "changes",
    [
        {"NUMBA_NUM_THREADS": "1"},
        pytest.param({"NUMBA_CPU_NAME": "haswell"}, marks=pytest.mark.long),  # which compiles anew
    ],
    ids=["threads", "vectors"],
)
def test_other_threads_and_vectors_change_nothing(changes):
    code = (
        "import numbel, numpy as np; x = np.random.default_rng(0).standard_normal((2, 300_000), dtype=np.float32);"
        "found = [numbel.CategoricalAccumulator(numbel.Generator(5), 2, method=m) for m in ('grouped', 'gumbel_max')];"
        "[f.update(x[:, a:a + 70_001], start=a) for f in found for a in range(0, 300_000, 70_001)];"
        "print([[np.asarray(part).tobytes().hex() for part in f.result()] for f in found])"
    )
    import os

    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | changes, capture_output=True, text=True, check=True
        ).stdout
        for changes in ({}, changes)
    }
    assert len(printed) == 1


# --- wrong input


def test_bad_values_are_named_with_their_column():
    x = logits((3, 20_000))
    for column, value, what in ((4096, np.nan, "NaN"), (19_999, np.inf, r"\+inf"), (12, np.nan, "NaN")):
        bad = x.copy()
        bad[2, column] = value
        for temperature in (1.0, np.array([1.0, 1.0, 0.0])):
            for method in METHODS:
                with pytest.raises(ValueError, match=f"logits row 2 holds {what} at column {column}$"):
                    in_pieces(bad, [5, 8192, 8200], method=method, temperature=temperature)
                flagged = {"on_invalid": "flag", "method": method, "temperature": temperature}
                equal(in_pieces(bad, [5, 8192, 8200], [2, 0, 1, 3], 2, **flagged), rng().sample(bad, **flagged))
    nothing = x.copy()
    nothing[1] = -np.inf
    for temperature in (1.0, np.array([1.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match="logits row 1 has no possible category"):
            in_pieces(nothing, [5000], temperature=temperature)
    flagged = {"on_invalid": "flag"}
    equal(in_pieces(nothing, [5000], **flagged), rng().sample(nothing, **flagged))


def test_an_error_leaves_it_as_it_was():
    x = logits((2, 20_000))
    bad = x[:, 8192:].copy()
    bad[1, 5] = np.nan
    found = numbel.CategoricalAccumulator(rng()).update(x[:, :8192])
    with pytest.raises(ValueError, match="logits row 1 holds NaN at column 8197"):
        found.update(bad)
    with pytest.raises(ValueError, match=r"columns 8000 \.\. 8191 were given before"):
        found.update(x[:, 8000:], start=8000)
    other = numbel.CategoricalAccumulator(rng()).update(x[:, 4096:8192], start=4096)
    with pytest.raises(ValueError, match=r"columns 4096 \.\. 8191 were given before"):
        found.merge(other)
    equal(found.update(x[:, 8192:]).result(), rng().sample(x))


def test_wrong_arguments():
    x = logits((2, 5000))
    with pytest.raises(TypeError, match=r"rng must be a numbel\.Generator, got int"):
        numbel.CategoricalAccumulator(5)
    for wrong, message in (
        ({"method": "none"}, "method"),
        ({"num_samples": -1}, "num_samples"),
        ({"temperature": -1.0}, "temperature"),
        ({"on_invalid": "ignore"}, "on_invalid"),
    ):
        with pytest.raises(ValueError, match=message):
            numbel.CategoricalAccumulator(rng(), **wrong)
    with pytest.raises(ValueError, match="no columns have been given"):
        numbel.CategoricalAccumulator(rng()).result()
    with pytest.raises(ValueError, match=r"columns 0 \.\. 9 have not been given"):
        numbel.CategoricalAccumulator(rng()).update(x, start=10).result()
    gap = numbel.CategoricalAccumulator(rng()).update(x).update(x, start=6000)
    with pytest.raises(ValueError, match=r"columns 5000 \.\. 5999 have not been given"):
        gap.result()
    found = numbel.CategoricalAccumulator(rng()).update(x)
    with pytest.raises(TypeError, match="logits: expected float32, the dtype of the pieces before, got float64"):
        found.update(x.astype(np.float64))
    with pytest.raises(ValueError, match=r"rows of shape \(3,\), those before \(2,\)"):
        found.update(logits((3, 50)))
    with pytest.raises(ValueError, match="at most 2\\^34 categories"):
        found.update(x, start=2**34 - 4999)
    with pytest.raises(ValueError, match="start"):
        found.update(x, start=-1)
    for wrong in ({"row_ids": [1, 2, 3]}, {"row_mask": [True]}, {"temperature": [1.0, 1.0, 1.0]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            numbel.CategoricalAccumulator(rng(), **wrong).update(x)


def test_only_parts_of_one_sample_are_merged():
    x = logits((2, 5000))
    found = numbel.CategoricalAccumulator(rng()).update(x)
    with pytest.raises(TypeError, match="CategoricalAccumulator"):
        found.merge(x)
    with pytest.raises(ValueError, match="different draws"):
        found.merge(numbel.CategoricalAccumulator(numbel.Generator(SEED, DRAW + 1)).update(x, start=5000))
    for changed in ({"num_samples": 2}, {"method": "gumbel_max"}, {"on_invalid": "flag"}):
        with pytest.raises(ValueError, match="differ in num_samples, method or on_invalid"):
            found.merge(numbel.CategoricalAccumulator(rng(), **changed).update(x, start=5000))
    for changed in ({"temperature": 2.0}, {"row_ids": [4, 5]}, {"row_mask": [True, False]}):
        with pytest.raises(ValueError, match="differ in the rows' shape"):
            found.merge(numbel.CategoricalAccumulator(rng(), **changed).update(x, start=5000))
        with pytest.raises(ValueError, match="differ in the rows' shape"):
            numbel.CategoricalAccumulator(rng(), **changed).merge(found)
    empty = numbel.CategoricalAccumulator(rng())
    equal(found.merge(empty).result(), rng().sample(x))
    equal(empty.merge(found).result(), rng().sample(x))


def test_what_a_table_draws_is_refused():
    """The rule of num_samples: 64 of 1000 columns are drawn from a table, 63 are not; the race never is."""
    x = logits((2, 1000))
    equal(in_pieces(x, [400], num_samples=100), rng().sample(x, 100))
    equal(in_pieces(x, [400], num_samples=200, method="gumbel_max"), rng().sample(x, 200, method="gumbel_max"))
    with pytest.raises(ValueError, match="125 samples of 1000 columns are drawn from a table"):
        in_pieces(x, [400], num_samples=125)
