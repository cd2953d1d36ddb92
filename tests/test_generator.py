"""Generator: draw ids, state, and every parameter of the sampling methods."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest

import numbel
from make_golden import dtypes
from make_golden import logits as make_logits

DTYPES = dtypes()
METHODS = ("grouped", "gumbel_max")
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
each_method = pytest.mark.parametrize("method", METHODS)


def same(a, b):
    """Whether two samples agree bit for bit, NaN equal to NaN."""
    return all(
        np.asarray(x).shape == np.asarray(y).shape
        and np.asarray(x).dtype == np.asarray(y).dtype
        and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(a, b, strict=True)
    )


# --- seeds, ids, state


@pytest.mark.parametrize("seed", [0, 5, 2**63, 2**64 - 1])
def test_an_int_is_the_seed(seed):
    rng = numbel.default_rng(seed)
    assert (rng.seed, rng.draw) == (seed, 0)
    assert type(rng.seed) is int


def test_numpy_int_seed():
    assert numbel.default_rng(np.uint64(2**64 - 1)).seed == 2**64 - 1


def test_larger_ints_and_seed_sequences_go_through_generate_state():
    large = 2**64 + 12345
    expected = int(np.random.SeedSequence(large).generate_state(1, np.uint64)[0])
    assert numbel.default_rng(large).seed == expected
    assert numbel.default_rng(np.random.SeedSequence(large)).seed == expected
    assert numbel.default_rng(2**300).seed != numbel.default_rng(2**301).seed


def test_a_generator_is_returned_and_none_is_random():
    rng = numbel.Generator(5, draw=2)
    assert numbel.default_rng(rng) is rng
    assert numbel.default_rng().seed != numbel.default_rng(None).seed


@pytest.mark.parametrize("seed", [1.0, "5", [1.0], np.float32(3), object()])
def test_other_seeds_are_type_errors(seed):
    with pytest.raises(TypeError, match="seed"):
        numbel.default_rng(seed)
    with pytest.raises(TypeError, match="seed must be an integer"):
        numbel.Generator(seed)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_generator_wants_64_bits(seed):
    with pytest.raises(ValueError, match="seed must be in 0"):
        numbel.Generator(seed)
    with pytest.raises(ValueError, match="draw must be in 0"):
        numbel.Generator(0, draw=seed)


def test_negative_seed():
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        numbel.default_rng(-1)


def test_every_call_uses_one_id():
    rng = numbel.Generator(5)
    calls = [
        lambda: rng.gumbel(),
        lambda: rng.gumbel(size=0),
        lambda: rng.gumbel(size=(3, 1000), dtype=np.float64),
        lambda: rng.gumbel(np.zeros(3), np.ones(3)),
        lambda: rng.categorical(np.zeros(3)),
        lambda: rng.categorical(np.zeros((0, 3))),
        lambda: rng.categorical(np.zeros((4, 5)), 7, method="gumbel_max"),
        lambda: rng.categorical(np.zeros((4, 5)), 0),
        lambda: rng.sample(np.zeros((2, 70_000), np.float32)),
        lambda: rng.sample(np.zeros((2, 5)), row_mask=[False, False]),
        lambda: rng.categorical(np.full(3, np.nan), on_invalid="flag"),
        lambda: rng.spawn(3),
        lambda: rng.spawn(0),
    ]
    for number, call in enumerate(calls):
        assert rng.draw == number
        call()
    assert rng.draw == len(calls)


def test_a_call_that_raises_gives_its_id_back():
    rng = numbel.Generator(5, draw=9)
    for call in (
        lambda: rng.categorical(np.array([1.0, np.nan])),
        lambda: rng.categorical(np.array([1, 2])),
        lambda: rng.sample(np.zeros(3), temperature=-1),
        lambda: rng.gumbel(scale=-1),
        lambda: rng.gumbel(out=[1.0]),
        lambda: rng.spawn(-1),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
        assert rng.draw == 9


def test_an_id_is_not_given_back_once_a_later_one_is_taken():
    rng = numbel.Generator(5)

    def fail_late():
        with rng._reserve() as taken:
            assert taken == (5, 0)
            rng.gumbel()
            raise KeyError

    with pytest.raises(KeyError):
        fail_late()
    assert rng.draw == 2


def test_a_failed_call_after_a_new_state_changes_nothing():
    rng = numbel.Generator(5)

    def fail_late():
        with rng._reserve():
            rng.state = {"generator": "numbel", "seed": 6, "draw": 1}
            raise KeyError

    with pytest.raises(KeyError):
        fail_late()
    assert (rng.seed, rng.draw) == (6, 1)


def test_any_draw_can_be_repeated():
    rng = numbel.Generator(5)
    logits = make_logits((3, 100), np.dtype(np.float32))
    drawn = [rng.sample(logits) for _ in range(4)]
    for draw in (2, 0, 3, 1):
        assert same(drawn[draw], numbel.Generator(5, draw=draw).sample(logits))
    assert len({tuple(sample.indices) for sample in drawn}) == 4


def test_ids_end_at_two_to_the_64():
    rng = numbel.Generator(5, draw=2**64 - 1)
    rng.gumbel()
    assert rng.draw == 2**64
    for _ in range(2):
        with pytest.raises(ValueError, match=r"used all 2\^64 draws"):
            rng.categorical(np.zeros(3))
        assert rng.draw == 2**64
    with pytest.raises(ValueError, match=r"used all 2\^64 draws"):
        rng.spawn(1)


def test_the_last_id_is_given_back():
    rng = numbel.Generator(5, draw=2**64 - 1)
    with pytest.raises(ValueError, match="NaN"):
        rng.categorical(np.array([np.nan]))
    assert rng.draw == 2**64 - 1


def test_an_exhausted_generator_can_be_copied():
    rng = numbel.Generator(5, draw=2**64 - 1)
    rng.gumbel()
    assert copy.copy(rng) == rng


def test_spawn():
    rng, again = numbel.Generator(5, draw=4), numbel.Generator(5, draw=4)
    children = rng.spawn(1000)
    assert rng.draw == 5
    assert children == again.spawn(1000)
    assert children[:10] == numbel.Generator(5, draw=4).spawn(10)
    assert len({child.seed for child in children} | {5}) == 1001
    assert all(child.draw == 0 for child in children)
    assert rng.spawn(3) != children[:3]
    assert rng.spawn(0) == []


@pytest.mark.parametrize(
    ("n", "error"), [(1.5, TypeError), ("2", TypeError), (-1, ValueError), (2**32 + 1, ValueError)]
)
def test_spawn_of_nonsense(n, error):
    with pytest.raises(error, match="n must be"):
        numbel.Generator(5).spawn(n)


def test_state_is_json_and_settable():
    rng = numbel.Generator(2**64 - 1, draw=17)
    kept = json.loads(json.dumps(rng.state))
    first = rng.gumbel(size=5)
    other = numbel.Generator(0)
    other.state = kept
    assert other.draw == 17
    assert np.array_equal(other.gumbel(size=5), first)


@pytest.mark.parametrize(
    "state",
    [None, 5, {}, {"generator": "numpy", "seed": 1, "draw": 1}, {"generator": "numbel", "seed": 1}],
)
def test_foreign_states(state):
    rng = numbel.Generator(5, draw=1)
    with pytest.raises(ValueError, match="state"):
        rng.state = state
    assert (rng.seed, rng.draw) == (5, 1)


def test_bad_values_in_a_state():
    rng = numbel.Generator(5, draw=1)
    with pytest.raises(ValueError, match="seed must be in"):
        rng.state = {"generator": "numbel", "seed": -1, "draw": 0}
    with pytest.raises(TypeError, match="draw must be an integer"):
        rng.state = {"generator": "numbel", "seed": 1, "draw": 0.5}
    assert (rng.seed, rng.draw) == (5, 1)


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, *(lambda rng, p=p: pickle.loads(pickle.dumps(rng, p)) for p in range(2, 6))],
)
def test_copies_repeat_draws(twin):
    rng = numbel.Generator(5, draw=3)
    other = twin(rng)
    assert other == rng
    assert other is not rng
    assert np.array_equal(other.gumbel(size=9), rng.gumbel(size=9))
    rng.gumbel()
    assert other != rng
    assert other.draw == 4


def test_equality_and_hash():
    assert numbel.Generator(5) == numbel.default_rng(5)
    assert numbel.Generator(5) != numbel.Generator(5, draw=1)
    assert numbel.Generator(5) != numbel.Generator(6)
    assert numbel.Generator(5) != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(numbel.Generator(5))
    assert eval(repr(numbel.Generator(5, draw=3))) == numbel.Generator(5, draw=3)


def test_threads_never_share_an_id():
    rng, seen = numbel.Generator(5), []

    def work():
        seen.extend(float(rng.gumbel(dtype=np.float64)) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rng.draw == 1600
    serial = numbel.Generator(5)
    assert sorted(seen) == sorted(float(serial.gumbel(dtype=np.float64)) for _ in range(1600))


# --- shapes and types of results


@each_method
@each_dtype
def test_one_dimensional_logits_give_scalars(dtype, method):
    logits = make_logits((70,), dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    index = numbel.Generator(5).categorical(logits, method=method)
    sample = numbel.Generator(5).sample(logits, method=method)
    assert type(index) is np.int64
    assert [type(part) for part in sample] == [np.int64, wide, wide]
    assert isinstance(sample, numbel.Sample)
    assert sample.indices == index


@each_method
@each_dtype
@pytest.mark.parametrize("shape", [(1, 9), (5, 70), (2, 3, 9), (2, 0, 9), (0, 70), (2, 1, 3, 4200)])
@pytest.mark.parametrize("num_samples", [None, 0, 1, 4])
def test_shapes(dtype, method, shape, num_samples):
    wide = np.float64 if dtype == np.float64 else np.float32
    sample = numbel.Generator(5).sample(make_logits(shape, dtype) if 0 not in shape else np.zeros(shape, dtype),
                                        num_samples, method=method)  # fmt: skip
    many = shape[:-1] if num_samples is None else (*shape[:-1], num_samples)
    assert (sample.indices.shape, sample.indices.dtype) == (many, np.int64)
    assert (sample.log_prob.shape, sample.log_prob.dtype) == (many, wide)
    assert (sample.logsumexp.shape, sample.logsumexp.dtype) == (shape[:-1], wide)


def test_one_dimensional_logits_with_num_samples():
    for num_samples in (0, 1, 5):
        sample = numbel.Generator(5).sample(np.zeros(9), num_samples)
        assert sample.indices.shape == sample.log_prob.shape == (num_samples,)
        assert np.ndim(sample.logsumexp) == 0


@pytest.mark.parametrize("n", [9, 70])
def test_logsumexp_without_samples(n):
    none = numbel.Generator(5).sample(np.zeros((40, n)), 0)
    assert np.allclose(none.logsumexp, np.log(n)) or np.all(np.isnan(none.logsumexp))


@each_method
@each_dtype
def test_categorical_is_the_indices_of_sample(dtype, method):
    for shape in ((300, 7), (3, 5000)):
        logits = make_logits(shape, dtype)
        for num_samples in (None, 3):
            indices = numbel.Generator(5).categorical(logits, num_samples, method=method)
            assert np.array_equal(indices, numbel.Generator(5).sample(logits, num_samples, method=method).indices)


@each_method
@each_dtype
def test_the_first_samples_do_not_depend_on_how_many(dtype, method):
    for shape in ((30, 7), (2, 5000)):
        logits = make_logits(shape, dtype)
        many = numbel.Generator(5).sample(logits, 9, method=method)
        for count in (1, 4):
            few = numbel.Generator(5).sample(logits, count, method=method)
            assert same(few, (many.indices[:, :count], many.log_prob[:, :count], many.logsumexp))
        one = numbel.Generator(5).sample(logits, method=method)
        assert same(one, (many.indices[:, 0], many.log_prob[:, 0], many.logsumexp))


def test_samples_of_a_row_differ():
    indices = numbel.Generator(5).categorical(np.zeros((2, 100_000), np.float32), 50)
    assert len(np.unique(indices)) >= 95


# --- what logits may be


@each_method
@each_dtype
@pytest.mark.parametrize("shape", [(6, 20), (6, 130), (2, 5000)])
def test_layouts(dtype, method, shape, tmp_path):
    logits = make_logits(shape, dtype)
    expected = numbel.Generator(5).sample(logits, 2, method=method)

    def check(array):
        assert np.asarray(array).dtype == dtype
        assert same(numbel.Generator(5).sample(array, 2, method=method), expected)

    check(np.asfortranarray(logits))
    spread = np.zeros((2 * shape[0], 3 * shape[1]), dtype)
    spread[::2, 1::3] = logits
    check(spread[::2, 1::3])
    check(np.ascontiguousarray(logits[::-1, ::-1])[::-1, ::-1])
    frozen = logits.copy()
    frozen.flags.writeable = False
    check(frozen)
    raw = np.zeros(logits.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(logits.tobytes(), np.uint8)
    odd = raw[1:].view(dtype).reshape(shape)
    assert not odd.flags.aligned or dtype.itemsize == 1
    check(odd)
    path = tmp_path / "logits.bin"
    path.write_bytes(logits.tobytes())
    check(np.memmap(path, dtype, "r", shape=shape))
    # no whole number of elements between rows
    record = np.zeros(shape[0], [("tag", "u1"), ("logits", dtype, shape[1:])])
    record["logits"] = logits
    check(record["logits"])


@each_method
def test_axis(method):
    logits = np.maximum(make_logits((3, 70, 4), np.dtype(np.float32)), np.float32(-20))
    for axis in (0, 1, 2, -1, -2, -3, np.int64(1)):
        expected = numbel.Generator(5).sample(np.ascontiguousarray(np.moveaxis(logits, axis, -1)), 2, method=method)
        assert same(numbel.Generator(5).sample(logits, 2, axis=axis, method=method), expected)


@each_method
@pytest.mark.parametrize("order", ["C", "F"])
def test_batch_axes_that_do_not_merge(method, order):
    base = np.asarray(make_logits((4, 6, 5, 90), np.dtype(np.float32)), order=order)
    for view in (base[::2, :, 1:4], base.transpose(2, 0, 1, 3), base[:, ::-3][..., ::2], base[:, None, :, :1, 3:]):
        expected = numbel.Generator(5).sample(np.ascontiguousarray(view), method=method)
        assert same(numbel.Generator(5).sample(view, method=method), expected)


def test_broadcast_logits():
    row = make_logits((90,), np.dtype(np.float32))
    expected = numbel.Generator(5).sample(np.tile(row, (4, 3, 1)))
    assert same(numbel.Generator(5).sample(np.broadcast_to(row, (4, 3, 90))), expected)
    flat = np.broadcast_to(np.float32(2), (3, 5000))
    assert same(numbel.Generator(5).sample(flat), numbel.Generator(5).sample(flat.copy()))


def test_lists_and_subclasses():
    rows = [[0.5, -1.0, 2.0], [0.0, 1.0, -3.0]]
    expected = numbel.Generator(5).sample(np.array(rows))
    assert same(numbel.Generator(5).sample(rows), expected)
    assert same(numbel.Generator(5).sample(tuple(map(tuple, rows))), expected)

    class Like:
        def __array__(self, dtype=None, copy=None):
            return np.array(rows)

    assert same(numbel.Generator(5).sample(Like()), expected)


def test_logits_are_not_changed():
    logits = make_logits((5, 5000), np.dtype(np.float32))
    before = logits.copy()
    numbel.Generator(5).sample(logits, 3, temperature=0.1)
    assert np.array_equal(logits, before)


@each_method
def test_one_category(method):
    sample = numbel.Generator(5).sample(np.full((3, 1), -7.5), method=method)
    assert np.array_equal(sample.indices, [0, 0, 0])
    assert np.all(np.abs(sample.log_prob) <= 1e-15)
    assert np.allclose(sample.logsumexp, -7.5, rtol=1e-15)


# --- temperature, row_ids, row_mask


@each_method
@pytest.mark.parametrize("columns", [20, 130, 5000])
def test_temperature_of_each_row(method, columns):
    logits = make_logits((2, 3, columns), np.dtype(np.float32))
    temperature = np.array([[0.5, 1.0, 2.0], [7.0, 0.001, 0.3]])
    got = numbel.Generator(5).sample(logits, 2, temperature=temperature, method=method)
    for i, j in np.ndindex(2, 3):
        one = numbel.Generator(5).sample(
            logits[i, j][None], 2, temperature=temperature[i, j], row_ids=[3 * i + j], method=method
        )
        assert same([part[i, j][None] for part in got], one)
    rows = numbel.Generator(5).sample(logits, temperature=[0.5, 1.0, 2.0], method=method)
    full = numbel.Generator(5).sample(logits, temperature=np.tile([0.5, 1.0, 2.0], (2, 1)), method=method)
    assert same(rows, full)
    column = numbel.Generator(5).sample(logits, temperature=np.array([[2.0], [3.0]], np.float32), method=method)
    assert same(column, numbel.Generator(5).sample(logits, temperature=[[2.0] * 3, [3.0] * 3], method=method))
    scalar = numbel.Generator(5).sample(logits, temperature=2, method=method)
    assert same(scalar, numbel.Generator(5).sample(logits, temperature=np.full((2, 3), 2.0), method=method))
    assert same(scalar, numbel.Generator(5).sample(logits, temperature=np.array(2.0), method=method))


@each_method
@each_dtype
@pytest.mark.parametrize("columns", [20, 5000])
def test_temperature_zero_is_argmax(dtype, method, columns):
    logits = make_logits((4, columns), dtype)
    logits[1, [3, 7]] = 30  # a tie: the first
    logits[2] -= dtype.type(1)
    logits[3, 5] = 0
    got = numbel.Generator(5).sample(logits, 2, temperature=[1.0, 0.0, 0.0, 0.0], method=method)
    assert np.array_equal(got.indices[1:, 0], np.argmax(logits[1:].astype(np.float64), axis=-1))
    assert np.array_equal(got.indices[1:, 0], got.indices[1:, 1])
    assert np.array_equal(got.log_prob[1:], np.zeros((3, 2)))
    assert np.array_equal(got.logsumexp[1:], [np.inf, -np.inf, 0.0])
    plain = numbel.Generator(5).sample(logits, 2, method=method)
    assert same([part[:1] for part in got], [part[:1] for part in plain])


@each_method
@pytest.mark.parametrize("columns", [20, 130, 5000])
def test_row_ids_make_batches_free(method, columns):
    logits = make_logits((12, columns), np.dtype(np.float32))
    whole = numbel.Generator(5).sample(logits, 2, method=method)
    ids = np.arange(12)
    for cut in (1, 5):
        parts = [
            numbel.Generator(5).sample(logits[rows], 2, row_ids=ids[rows], method=method)
            for rows in (slice(0, cut), slice(cut, None))
        ]
        assert same([np.concatenate(p) for p in zip(*parts, strict=True)], whole)
    order = np.random.default_rng(0).permutation(12)
    shuffled = numbel.Generator(5).sample(logits[order], 2, row_ids=order.astype(np.uint16), method=method)
    assert same(shuffled, [part[order] for part in whole])
    large = [0, (1 << 56) - 1, 1 << 32]
    for dtype in (np.int64, np.uint64):
        got = numbel.Generator(5).sample(logits[:3], row_ids=np.array(large, dtype), method=method)
        for i, row in enumerate(large):
            one = numbel.Generator(5).sample(logits[i], row_ids=row, method=method)
            assert same([part[i] for part in got], one)


@each_method
@each_dtype
@pytest.mark.parametrize("columns", [20, 5000])
def test_row_mask(dtype, method, columns):
    logits = make_logits((5, columns), dtype)
    whole = numbel.Generator(5).sample(logits, 2, method=method)
    mask = np.array([True, False, True, False, True])
    logits[1] = np.nan  # not read
    logits[3, 0] = np.inf
    got = numbel.Generator(5).sample(logits, 2, row_mask=mask, method=method)
    assert same([part[mask] for part in got], [part[mask] for part in whole])
    assert np.all(got.indices[~mask] == -1)
    assert np.all(np.isnan(got.log_prob[~mask]))
    assert np.all(np.isnan(got.logsumexp[~mask]))
    none = numbel.Generator(5).categorical(logits, row_mask=np.zeros(5, bool), method=method)
    assert np.all(none == -1)
    one = numbel.Generator(5).sample(logits[1], row_mask=False, method=method)
    assert one.indices == -1
    assert np.isnan(one.logsumexp)


# --- out


@each_method
@pytest.mark.parametrize("columns", [20, 5000])
@pytest.mark.parametrize("num_samples", [None, 3])
def test_out(method, columns, num_samples):
    logits = make_logits((2, 4, columns), np.dtype(np.float32))
    expected = numbel.Generator(5).sample(logits, num_samples, method=method)
    shape, rows = expected.indices.shape, expected.logsumexp.shape
    for fresh in (
        lambda form, dtype: np.empty(form, dtype),
        lambda form, dtype: np.empty(form, dtype, order="F"),
        lambda form, dtype: np.empty((*form[:-1], 2 * form[-1]), dtype)[..., ::2],
        lambda form, dtype: np.empty(form, dtype)[::-1],
    ):
        indices, log_prob, lse = fresh(shape, np.int64), fresh(shape, np.float32), fresh(rows, np.float32)
        got = numbel.Generator(5).categorical(logits, num_samples, method=method, out=indices)
        assert got is indices
        assert same([got], [expected.indices])
        indices[...] = -5
        got = numbel.Generator(5).sample(logits, num_samples, method=method, out=numbel.Sample(indices, log_prob, lse))
        assert isinstance(got, numbel.Sample)
        assert got.indices is indices
        assert got.log_prob is log_prob
        assert got.logsumexp is lse
        assert same(got, expected)
        got = numbel.Generator(5).sample(logits, num_samples, method=method, out=numbel.Sample(None, log_prob, None))
        assert got.log_prob is log_prob
        assert same(got, expected)


def test_out_touches_only_itself():
    store = np.full((4, 10), -7, np.int64)
    numbel.Generator(5).categorical(np.zeros((4, 9)), out=store[:, 3])
    assert np.all(np.delete(store, 3, axis=1) == -7)
    assert np.all(store[:, 3] >= 0)


def test_out_for_one_row_is_zero_dimensional():
    out = np.empty((), np.int64)
    got = numbel.Generator(5).categorical(np.zeros(9), out=out)
    assert got is out
    assert out == numbel.Generator(5).categorical(np.zeros(9))


# --- gumbel


@pytest.mark.parametrize("size", [None, (), 0, 7, (3,), (2, 3), (2, 0, 3), (3, 0), (2, 1, 200), np.int64(4), [2, 3]])
@each_dtype
def test_size(size, dtype):
    noise = numbel.Generator(5).gumbel(size=size, dtype=dtype)
    shape = () if size is None else (int(size),) if np.ndim(size) == 0 and not isinstance(size, tuple) else tuple(size)
    assert noise.shape == shape
    assert noise.dtype == dtype
    assert (type(noise) is np.ndarray) == (shape != ())


def test_default_dtype_is_float32():
    assert type(numbel.Generator(5).gumbel()) is np.float32


@each_dtype
def test_noise_depends_on_row_and_column_only(dtype):
    wide = numbel.Generator(5).gumbel(size=(6, 2100), dtype=dtype)
    for columns in (1, 3, 127, 128, 130, 2047, 2049):
        assert same([numbel.Generator(5).gumbel(size=(6, columns), dtype=dtype)], [wide[:, :columns]])
    assert same([numbel.Generator(5).gumbel(size=2100, dtype=dtype)], [wide[0]])
    assert same([numbel.Generator(5).gumbel(dtype=dtype)], [wide[0, 0]])
    for shape in ((2, 3, 100), (3, 2, 100), (1, 2, 1, 3, 100)):
        assert same([numbel.Generator(5).gumbel(size=shape, dtype=dtype).reshape(6, 100)], [wide[:, :100]])
    assert len(np.unique(wide.astype(np.float64))) > (12_000 if dtype.itemsize >= 4 else 100)


@each_dtype
def test_half_noise_is_float32_noise_rounded(dtype):
    single = numbel.Generator(5).gumbel(size=(3, 5000))
    double = numbel.Generator(5).gumbel(size=(3, 5000), dtype=np.float64)
    noise = numbel.Generator(5).gumbel(size=(3, 5000), dtype=dtype)
    assert np.max(np.abs(single - double)) <= 1.4e-6
    if dtype == np.float64:
        assert same([noise], [double])
    else:
        assert same([noise], [single.astype(dtype)])


@each_dtype
@pytest.mark.parametrize("shape", [(6, 30), (2, 2200), (2, 3, 150)])
def test_gumbel_out(dtype, shape):
    expected = numbel.Generator(5).gumbel(size=shape, dtype=dtype)
    outs = [
        np.empty(shape, dtype),
        np.empty(shape, dtype, order="F"),
        np.empty((*shape[:-1], 3 * shape[-1]), dtype)[..., 1::3],
        np.empty(shape, dtype)[::-1, ..., ::-1],
        np.empty((3 * shape[0], *shape[1:]), dtype)[::3],
        np.empty(int(np.prod(shape)) * dtype.itemsize + 1, np.uint8)[1:].view(dtype).reshape(shape),
    ]
    for out in outs:
        assert numbel.Generator(5).gumbel(out=out, dtype=dtype) is out
        assert same([out], [expected])
        out[...] = 0
        assert numbel.Generator(5).gumbel(size=shape, out=out, dtype=dtype) is out
        assert same([out], [expected])


def test_gumbel_out_touches_only_itself():
    for columns in (10, 300):
        store = np.zeros((4, 3 * columns), np.float32)
        numbel.Generator(5).gumbel(out=store[:, columns : 2 * columns])
        assert not np.any(store[:, :columns])
        assert not np.any(store[:, 2 * columns :])
        store[...] = 0
        numbel.Generator(5).gumbel(out=store[:, ::3])
        assert not np.any(store[:, 1::3])


@each_dtype
def test_loc_and_scale(dtype):
    noise = numbel.Generator(5).gumbel(size=(4, 300), dtype=dtype).astype(np.float64)
    tolerance = {2: 2.0**-6, 4: 1e-6, 8: 1e-15}[dtype.itemsize]
    loc, scale = np.arange(4.0)[:, None], np.linspace(0.0, 2.0, 300)
    for a, b in ((1.5, 0.3), (loc, scale), (loc, 2.0), (3, scale.tolist()), (0.0, 0.0)):
        got = numbel.Generator(5).gumbel(a, b, size=(4, 300), dtype=dtype)
        expected = np.asarray(a) + np.asarray(b) * noise
        assert got.dtype == dtype
        assert np.all(np.abs(got.astype(np.float64) - expected) <= tolerance * (4 + np.abs(expected) + np.abs(noise)))
    out = np.empty((4, 600), dtype)[:, ::2]
    assert numbel.Generator(5).gumbel(loc, scale, out=out, dtype=dtype) is out
    assert same([out], [numbel.Generator(5).gumbel(loc, scale, dtype=dtype)])


def test_loc_and_scale_alone_give_the_shape():
    assert numbel.Generator(5).gumbel(np.zeros((3, 1)), np.ones(4)).shape == (3, 4)
    assert numbel.Generator(5).gumbel([1.0, 2.0]).shape == (2,)
    assert type(numbel.Generator(5).gumbel(np.array(2.0))) is np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_scalars_and_arrays_of_loc_and_scale_agree(dtype):
    scalar = numbel.Generator(5).gumbel(0.0, 0.25, size=300, dtype=dtype)
    assert same([scalar], [numbel.Generator(5).gumbel(np.zeros(300), np.full(300, 0.25), dtype=dtype)])


def test_like():
    noise = numbel.Generator(5).gumbel(size=3, like=np.zeros(1))
    assert type(noise) is np.ndarray
    assert np.array_equal(noise, numbel.Generator(5).gumbel(size=3))


@each_dtype
@pytest.mark.parametrize("shape", [(40, 9), (40, 130), (3, 9000)])
def test_gumbel_max_is_the_argmax_with_the_public_noise(dtype, shape):
    logits = make_logits(shape, dtype)
    for temperature in (0.01, 1.0, 40.0):
        got = numbel.Generator(5, draw=8).categorical(logits, temperature=temperature, method="gumbel_max")
        noise = numbel.Generator(5, draw=8).gumbel(size=shape, dtype=np.float64)
        assert np.array_equal(got, np.argmax(logits.astype(np.float64) / temperature + noise, axis=-1))
