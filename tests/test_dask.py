"""numbel.dask: the bits of the whole array, whatever the chunks and the scheduler."""

import itertools

import numpy as np
import pytest

dask = pytest.importorskip("dask")

import dask.array as da  # noqa: E402

import numbel  # noqa: E402
import numbel.dask as nd  # noqa: E402

SHAPE = (4, 3, 30_000)


def logits(dtype=np.float32, shape=SHAPE):
    x = np.random.default_rng(0).standard_normal(shape) * 3
    x[..., ::7] = -np.inf
    return x.astype(dtype)


def same(drawn, expected):
    for lazy, due in zip(drawn, expected, strict=True):
        assert isinstance(lazy, da.Array)
        found = np.asarray(lazy)
        assert (lazy.shape, lazy.dtype) == (found.shape, found.dtype)
        assert (found.dtype, found.shape) == (np.asarray(due).dtype, np.shape(due))
        assert found.tobytes() == np.asarray(due).tobytes()


@pytest.mark.parametrize("chunks", [(2, 1, 20_000), (4, 3, -1), (1, 2, 4096), ((1, 3), 3, (5, 8187, 21_808))])
@pytest.mark.parametrize("num_samples", [None, 2])
@pytest.mark.parametrize("method", ["grouped", "gumbel_max"])
def test_chunks_change_no_bit(chunks, num_samples, method):
    x = logits()
    options = {"method": method, "temperature": np.array([1.0, 2.0, 0.0])}
    drawn = nd.sample(da.from_array(x, chunks=chunks), numbel.Generator(5, 3), num_samples, **options)
    same(drawn, numbel.Generator(5, 3).sample(x, num_samples, **options))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_dtypes_axes_ids_and_masks(dtype):
    x = logits(dtype)
    options = {
        "row_ids": np.arange(12).reshape(4, 3)[::-1] * 5,
        "row_mask": np.arange(12).reshape(4, 3) % 5 > 0,
        "temperature": 0.5,
    }
    for axis in (-1, 1):
        moved = np.moveaxis(x, -1, axis)
        lazy = da.from_array(moved, chunks=3000)
        same(nd.sample(lazy, numbel.Generator(5), axis=axis, **options), numbel.Generator(5).sample(x, **options))


def test_one_row():
    x = logits()[0, 0]
    same(nd.sample(da.from_array(x, chunks=7000), numbel.Generator(5)), numbel.Generator(5).sample(x))
    same(nd.sample(da.from_array(x, chunks=7000), numbel.Generator(5), 3), numbel.Generator(5).sample(x, 3))


def test_many_chunks_are_merged_by_trees():
    x = logits(shape=(2, 30_000))
    lazy = da.from_array(x, chunks=(1, 200))
    assert lazy.numblocks == (2, 150)
    same(nd.sample(lazy, numbel.Generator(5)), numbel.Generator(5).sample(x))


def test_chunks_of_nothing():
    x = logits(shape=(2, 10_000))
    for chunks in (((2,), (0, 10_000)), ((0, 2), (4000, 0, 6000, 0))):
        same(nd.sample(da.from_array(x, chunks=chunks), numbel.Generator(5)), numbel.Generator(5).sample(x))
    none = x[:0]
    same(
        nd.sample(da.from_array(none, chunks=(1, 4000)), numbel.Generator(5), 2000),
        numbel.Generator(5).sample(none, 2000),
    )


def test_what_was_given_may_be_changed():
    x = logits(shape=(2, 10_000))
    temperature = np.array([0.5, 2.0])
    expected = numbel.Generator(5).sample(x, temperature=temperature)
    drawn = nd.sample(da.from_array(x, chunks=(1, 4000)), numbel.Generator(5), temperature=temperature)
    temperature[:] = 1.0
    same(drawn, expected)


def test_it_takes_one_draw_and_is_lazy():
    rng = numbel.Generator(5)
    touched = []

    def chunk(block_info):
        touched.append(block_info)
        return np.zeros((2, 500), np.float32)

    lazy = da.map_blocks(chunk, chunks=((2,), (500, 500)), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    drawn = nd.sample(lazy, rng)
    assert rng.draw == 1
    assert touched == []
    once, again = drawn.indices.compute(), drawn.indices.compute()
    assert touched
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, numbel.Generator(5).categorical(np.zeros((2, 1000), np.float32)))


def test_on_processes_of_a_cluster():
    """Accumulators travel between processes, and a worker's threads share the kernels."""
    distributed = pytest.importorskip("distributed")
    x = logits(shape=(4, 50_000))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster),
    ):
        same(nd.sample(da.from_array(x, chunks=(2, 9000)), numbel.Generator(5)), numbel.Generator(5).sample(x))


def test_bad_values_are_named_with_their_row_and_column():
    x = logits()
    x[3, 1, 12_345] = np.nan
    for chunks in ((2, 3, 5000), (1, 1, 30_000)):
        drawn = nd.sample(da.from_array(x, chunks=chunks), numbel.Generator(5))
        with pytest.raises(ValueError, match="logits row 10 holds NaN at column 12345"):
            drawn.indices.compute()
        flagged = nd.sample(da.from_array(x, chunks=chunks), numbel.Generator(5), on_invalid="flag")
        same(flagged, numbel.Generator(5).sample(x, on_invalid="flag"))
    x[3, 1] = -np.inf
    with pytest.raises(ValueError, match="logits row 10 has no possible category"):
        nd.sample(da.from_array(x, chunks=(2, 3, 5000)), numbel.Generator(5)).log_prob.compute()


def test_wrong_arguments_are_refused_before_a_draw_is_taken():
    x, rng = logits(), numbel.Generator(5)
    lazy = da.from_array(x, chunks=(2, 3, 10_000))
    unknown = lazy[:, :, lazy[0, 0] > 0]
    for arguments, options, kind, message in (
        ((x, rng), {}, TypeError, r"logits must be a dask\.array\.Array, got ndarray"),
        ((lazy, 5), {}, TypeError, r"rng must be a numbel\.Generator, got int"),
        ((lazy.astype(int), rng), {}, TypeError, "got int64"),
        ((unknown, rng), {}, ValueError, "compute_chunk_sizes"),
        ((lazy, rng), {"axis": 3}, np.exceptions.AxisError, "axis 3"),
        ((lazy, rng), {"method": "none"}, ValueError, "method"),
        ((lazy, rng), {"temperature": -1}, ValueError, "temperature"),
        ((lazy, rng), {"temperature": np.ones(5)}, ValueError, "temperature"),
        ((lazy, rng), {"row_ids": [1]}, ValueError, "row_ids"),
        ((lazy, rng), {"row_mask": [True]}, ValueError, "row_mask"),
        ((lazy, rng), {"on_invalid": "ignore"}, ValueError, "on_invalid"),
        ((lazy, rng, 5000), {}, ValueError, "5000 samples of 30000 columns are drawn from a table"),
    ):
        with pytest.raises(kind, match=message):
            nd.sample(*arguments, **options)
    assert rng.draw == 0
    assert list(itertools.chain.from_iterable(lazy.chunks)) == [2, 2, 3, 10_000, 10_000, 10_000]
