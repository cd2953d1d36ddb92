"""The same bits on any thread count, layout, chunking, batch split, kernel and SIMD width; golden files."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import make_golden
import numbel
from numbel._host import dispatch

DTYPES = make_golden.dtypes()
METHODS = ("grouped", "gumbel_max")
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
each_method = pytest.mark.parametrize("method", METHODS)


def draw(logits, num_samples=None, **options):
    """One sample of a fixed seed, as bytes."""
    return tuple(
        np.asarray(part).tobytes() for part in numbel.Generator(11, draw=4).sample(logits, num_samples, **options)
    )


def noise(**options):
    """Noise of a fixed seed, as bytes."""
    return numbel.Generator(11, draw=4).gumbel(**options).tobytes()


@contextlib.contextmanager
def threads(count):
    """Use this many threads meanwhile."""
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def every_kind(dtype):
    """Logits that take each path through a block: plain, wide, far, with holes, with references that differ."""
    for shape in ((700, 3), (50, 64), (9, 65), (9, 4097), (3, 40_000), (1, 300_000)):
        yield make_golden.logits(shape, dtype)
    wide = make_golden.logits((3, 40_000), dtype, spread=2000.0)
    wide[:, 8192:12_288] += dtype.type(500)
    wide[1, :4096] = -np.inf
    yield wide
    yield make_golden.logits((3, 20_000), dtype, spread=60_000.0 if dtype == np.float16 else 1e30)


# --- how the work is cut


@each_method
@each_dtype
def test_threads(dtype, method, monkeypatch):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("NUMBA_NUM_THREADS=1 was asked for")
    monkeypatch.setattr(dispatch, "_PARALLEL_FROM", 1)
    for logits in every_kind(dtype):
        for num_samples in (None, 3):
            with threads(1):
                one = draw(logits, num_samples, method=method)
            with threads(2):
                assert draw(logits, num_samples, method=method) == one


@each_dtype
def test_threads_of_noise(dtype, monkeypatch):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("NUMBA_NUM_THREADS=1 was asked for")
    monkeypatch.setattr(dispatch, "_PARALLEL_FROM", 1)
    for size in ((5000, 7), (300, 127), (40, 5000), 200_000):
        with threads(1):
            one = noise(size=size, dtype=dtype)
        with threads(2):
            assert noise(size=size, dtype=dtype) == one


@each_method
@each_dtype
def test_parallel_threshold(dtype, method, monkeypatch):
    for logits in (make_golden.logits((3, 40_000), dtype), make_golden.logits((30_000, 5), dtype)):
        monkeypatch.setattr(dispatch, "_PARALLEL_FROM", 1)
        parallel = draw(logits, method=method)
        monkeypatch.setattr(dispatch, "_PARALLEL_FROM", 1 << 60)
        assert draw(logits, method=method) == parallel


@each_method
@each_dtype
@pytest.mark.parametrize("wave", [1, 5000, 70_000])
def test_waves(dtype, method, wave, monkeypatch):
    for logits in every_kind(dtype):
        whole = draw(logits, 2, method=method)
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "_WAVE", wave)
            assert draw(logits, 2, method=method) == whole


@each_dtype
def test_waves_of_noise(dtype, monkeypatch):
    for size in ((5000, 7), (3, 70_000)):
        whole = noise(size=size, dtype=dtype)
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "_WAVE", 4096)
            assert noise(size=size, dtype=dtype) == whole


@each_method
@each_dtype
@pytest.mark.parametrize("size", [1, 2, 16, 4096])
def test_segments(dtype, method, size, monkeypatch):
    def cut(rows, columns):
        blocks = (columns + 4095) // 4096
        return (blocks + size - 1) // size, size

    for logits in every_kind(dtype):
        for num_samples in (None, 3):
            for temperature in (1.0, 0.02):
                whole = draw(logits, num_samples, method=method, temperature=temperature)
                with monkeypatch.context() as patch:
                    patch.setattr(dispatch, "_segments", cut)
                    assert draw(logits, num_samples, method=method, temperature=temperature) == whole


@each_method
def test_samples_of_several_passes(method, monkeypatch):
    for logits in (
        make_golden.logits((2, 90_000), np.dtype(np.float32)),
        make_golden.logits((40, 9), np.dtype(np.float32)),
    ):
        whole = draw(logits, 23, method=method)
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "_SAMPLES", 5)
            patch.setattr(dispatch, "_SEGMENT_SAMPLES", 20)
            assert draw(logits, 23, method=method) == whole


# --- one kernel for short rows, one for long ones


@each_dtype
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 17, 32, 33, 63, 64])
def test_short_rows_and_long_ones(dtype, columns, monkeypatch):
    largest = 60_000.0 if dtype == np.float16 else 1e30
    rng = np.random.default_rng(columns)
    cases = [make_golden.logits((600, columns), dtype, spread=spread) for spread in (16.0, 300.0, 1e4, largest)]
    graded = rng.standard_normal((600, columns)) * np.logspace(-8, np.log10(largest), 600)[:, None]
    cases.append(np.clip(graded, -largest, largest).astype(dtype))
    cases.append(-np.abs(cases[-1]))
    # maxima that straddle the edge of a reference cell
    cases.append((np.arange(600)[:, None] * (np.log(2.0) / 4) + rng.random((600, columns))).astype(dtype))
    tiny = np.zeros((600, columns), dtype)
    tiny[...] = rng.random((600, columns)) * float(np.finfo(np.float16 if dtype.itemsize == 2 else dtype).tiny)
    cases.append(tiny)
    holes = cases[0].copy()
    holes[rng.random(holes.shape) < 0.7] = -np.inf
    holes[5] = np.nan
    holes[6, 0] = np.inf
    holes[7] = -np.inf
    cases.append(holes)
    mask = rng.random(600) < 0.9
    each = np.where(rng.random(600) < 0.1, 0.0, 10.0 ** rng.uniform(-3, 3, 600))
    ids = rng.integers(0, 1 << 56, 600)
    for logits in cases:
        for options in (
            {},
            {"temperature": 1e-3},
            {"temperature": 0.7},
            {"temperature": 1e3},
            {"temperature": 1e-30},
            {"temperature": 1e30},
            {"temperature": each, "row_mask": mask, "row_ids": ids},
        ):
            for array in (logits, np.asfortranarray(logits)):
                short = draw(array, 2, on_invalid="flag", **options)
                with monkeypatch.context() as patch:
                    patch.setattr(dispatch, "SHORT", 0)
                    assert draw(array, 2, on_invalid="flag", **options) == short


@each_dtype
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 64, 100, 127, 128, 129, 300, 511, 512])
def test_short_rows_of_noise_and_long_ones(dtype, columns):
    # a row's prefix: 600 columns take the kernel for long rows
    short = numbel.Generator(11, draw=4).gumbel(size=(700, columns), dtype=dtype)
    long = numbel.Generator(11, draw=4).gumbel(size=(700, 600), dtype=dtype)
    assert short.tobytes() == long[:, :columns].tobytes()


# --- layout


@each_method
@each_dtype
def test_orders_axes_and_strides(dtype, method):
    for logits in every_kind(dtype):
        plain = draw(logits, 2, method=method)
        assert draw(np.asfortranarray(logits), 2, method=method) == plain
        assert draw(np.ascontiguousarray(logits.T), 2, method=method, axis=0) == plain
        assert draw(np.repeat(logits, 2, axis=-1)[:, ::2], 2, method=method) == plain
        assert draw(np.ascontiguousarray(logits[:, ::-1])[:, ::-1], 2, method=method) == plain


@each_method
@each_dtype
def test_batch_split(dtype, method):
    for logits in every_kind(dtype):
        rows = len(logits)
        whole = numbel.Generator(11, draw=4).sample(logits, 2, method=method)
        cut = rows // 3
        parts = [
            numbel.Generator(11, draw=4).sample(logits[part], 2, method=method, row_ids=np.arange(rows)[part])
            for part in (slice(0, cut), slice(cut, None))
        ]
        for pieces, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert np.concatenate(pieces).tobytes() == expected.tobytes()


def test_a_half_row_widened_is_the_same_row():
    for name in ("float16", "bfloat16"):
        if name in DTYPES:
            logits = make_golden.logits((5, 9000), DTYPES[name])
            assert draw(logits, 3) == draw(logits.astype(np.float32), 3)
            assert draw(logits[:, :50], 3) == draw(logits[:, :50].astype(np.float32), 3)


# --- golden files


@pytest.fixture(scope="module")
def golden():
    return json.loads(make_golden.FILE.read_text())


def test_golden_bits_version(golden):
    assert golden["bits_version"] == numbel.BITS_VERSION


@pytest.mark.parametrize("name", make_golden.groups())
def test_golden(name, golden):
    assert make_golden.compute((name,))[name] == golden[name]


def _has(feature):
    from llvmlite import binding

    return binding.get_host_cpu_features().get(feature, False)


@pytest.mark.long
@pytest.mark.parametrize(
    ("cpu", "features"),
    [
        ("haswell", ""),  # 256 bits: with an empty list the name alone decides
        ("haswell", None),  # its scheduling, the host's features
        ("skylake-avx512", "+prefer-256-bit"),
        (None, None),
    ],
)
def test_golden_at_other_simd_widths(cpu, features, golden):
    if cpu and not _has("avx2"):
        pytest.skip("this CPU has no AVX2")
    if cpu == "skylake-avx512" and not _has("avx512f"):
        pytest.skip("this CPU has no AVX-512")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    # one thread: no parallel kernel need be compiled
    chosen = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(Path(make_golden.__file__)), *make_golden.SIMD_GROUPS],
        env=kept | {name: value for name, value in chosen.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(make_golden.SIMD_GROUPS)
    for name, values in found.items():
        assert values == golden[name]


@each_dtype
@pytest.mark.parametrize("columns", [129, 300, 511, 512])
def test_relaxed_rows_many_at_a_time_and_alone(dtype, columns):
    logits = make_golden.logits((45, columns), np.dtype(dtype))
    u = make_golden.cotangent(logits.shape, logits.dtype)
    temperature, index = np.geomspace(0.01, 100, 45), logits.astype(float).argmax(axis=-1)

    def parts(rows):
        options = {"temperature": temperature[rows], "row_ids": np.arange(45)[rows]}
        y = numbel.Generator(11, draw=4).gumbel_softmax(logits[rows], **options)
        z = numbel.Generator(11, draw=4).conditional_gumbel(logits[rows], index[rows], **options)
        return y, z, *numbel.gumbel_softmax_vjp(y, u[rows], temperature[rows])

    for row in (0, 31, 44):  # fewer than 32 rows are done one at a time
        for one, many in zip(parts(slice(row, row + 1)), parts(slice(None)), strict=True):
            assert one.tobytes() == many[row : row + 1].tobytes()
