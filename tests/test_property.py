"""Whatever the shape, dtype, strides, values and options: the law of a float64 computation, or the documented error."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import numbel
from make_golden import dtypes

DTYPES = dtypes()
_LAYOUTS = ("C", "F", "step", "reversed", "read-only", "unaligned", "broadcast", "transposed")


def _options(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def cases(draw):
    """Everything a call is told; the values follow from a seed, so that shrinking stays fast."""
    columns = draw(
        st.one_of(st.integers(1, 80), st.integers(1, 400), st.sampled_from([511, 513, 4095, 4096, 4097, 9000]))
    )
    batch = draw(st.lists(st.integers(0, 4) if columns < 500 else st.integers(1, 2), max_size=3))
    axis = draw(st.integers(0, len(batch)))
    return {
        "shape": (*batch[:axis], columns, *batch[axis:]),
        "axis": axis if draw(st.booleans()) else axis - len(batch) - 1,
        "dtype": draw(st.sampled_from(sorted(DTYPES))),
        "layout": draw(st.sampled_from(_LAYOUTS)),
        "spread": draw(st.sampled_from([0.0, 1e-6, 1.0, 10.0, 88.0, 300.0, 1e4, 6e4, 1e30])),
        "shift": draw(st.sampled_from([0.0, 0.0, 64.0, -300.0, 1e4])),
        "holes": draw(st.sampled_from([0.0, 0.0, 0.1, 0.9, 1.0])),
        "nan": draw(st.sampled_from([0, 0, 0, 1, 2])),
        "inf": draw(st.sampled_from([0, 0, 0, 1])),
        "temperature": draw(st.sampled_from(["one", "scalar", "rows", "rows", "broadcast"])),
        "exponent": draw(st.floats(-3, 3)),
        "method": draw(st.sampled_from(["grouped", "gumbel_max"])),
        "num_samples": draw(st.sampled_from([None, None, 0, 1, 3])),
        "on_invalid": draw(st.sampled_from([None, "raise", "flag"])),
        "mask": draw(st.booleans()),
        "ids": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "draw": draw(st.integers(0, 2**64 - 1)),
    }


def _values(case, rng):
    """The logits, categories last, contiguous."""
    dtype = DTYPES[case["dtype"]]
    shape = (*np.delete(case["shape"], case["axis"]).astype(int), case["shape"][case["axis"]])
    values = rng.standard_normal(shape) * case["spread"] + case["shift"]
    limit = 6e4 if dtype == np.float16 else 1e31
    values = np.clip(values, -limit, limit).astype(dtype)
    flat = values.reshape(-1)
    if flat.size:
        flat[rng.random(flat.size) < case["holes"]] = -np.inf
        flat[rng.integers(0, flat.size, case["nan"])] = np.nan
        flat[rng.integers(0, flat.size, case["inf"])] = np.inf
    return values


def _laid_out(values, layout, axis):
    """The same values, with `axis` the categories, in some layout."""
    array = np.moveaxis(values, -1, axis)
    if layout == "transposed":
        return array
    array = np.ascontiguousarray(array)
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "step":
        wide = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    if layout == "reversed":
        back = tuple(slice(None, None, -1) for _ in array.shape)
        return np.ascontiguousarray(array[back])[back]
    if layout == "read-only":
        array.flags.writeable = False
    elif layout == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
        return raw[1:].view(array.dtype).reshape(array.shape)
    elif layout == "broadcast" and axis != 0 and array.shape[0]:
        array[...] = array[:1]
        return np.broadcast_to(array[:1], array.shape)
    return array


def _temperatures(case, rows, rng):
    """What is passed, and the temperature of each row."""
    if case["temperature"] == "one":
        return 1.0, np.ones(rows)
    if case["temperature"] == "scalar":
        return 10.0 ** case["exponent"], np.full(rows, 10.0 ** case["exponent"])
    shape = rows if case["temperature"] == "rows" else tuple(1 if n else n for n in rows)
    each = np.asarray(10.0 ** rng.uniform(-3, 3, shape))
    if rows:
        each[rng.random(shape) < 0.2] = 0.0
    elif not rows:
        return float(each), each
    return each, np.broadcast_to(each, rows)


def _first_bad(values, mask):
    """The message that the first bad row gets, or None."""
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    for row, x in enumerate(rows):
        if not mask[row]:
            continue
        bad = np.flatnonzero(np.isnan(x) | (x == np.inf))
        if bad.size:
            return f"logits row {row} holds {'NaN' if np.isnan(x[bad[0]]) else '+inf'} at column {bad[0]}"
        if np.all(x == -np.inf):
            return f"logits row {row} has no possible category"
    return None


def _check_row(x, t, indices, log_prob, lse, relative):
    """One row's results against float64: x its logits, t its temperature."""
    assert np.all((indices >= 0) & (indices < x.size))
    assert np.all(np.isfinite(x[indices]))
    if t == 0:
        assert np.all(indices == np.argmax(x))
        assert np.all(log_prob == 0)
        top = np.max(x)
        assert np.isnan(lse) or lse == (0.0 if top == 0 else np.copysign(np.inf, top))
        return
    z = x / t
    top = np.max(z)
    rest = np.log(np.sum(np.exp(z - top)))
    scale = np.max(np.abs(z[np.isfinite(z)]))
    rounding = 1e-15 * scale  # of z itself, in this oracle
    want = z[indices] - top - rest
    assert abs(lse - (top + rest)) <= relative * (1 + abs(top + rest)) + rounding
    assert np.all(np.abs(log_prob - want) <= relative * (1 + np.abs(want)) + rounding)
    assert np.all(log_prob <= 0)


def check(case):
    """One call, and everything that must hold for its answer."""
    rng = np.random.default_rng(case["seed"])
    axis = case["axis"] % len(case["shape"])
    array = _laid_out(_values(case | {"axis": axis}, rng), case["layout"], axis)
    before = array.tobytes()
    values = np.ascontiguousarray(np.moveaxis(array, axis, -1))
    rows, columns = values.shape[:-1], values.shape[-1]
    count = int(np.prod(rows))
    temperature, each = _temperatures(case, rows, rng)
    mask = rng.random(rows) < 0.8 if case["mask"] else np.ones(rows, bool)
    ids = rng.integers(0, 1 << 56, rows)
    options = {"axis": case["axis"], "temperature": temperature, "method": case["method"]}
    options |= {"on_invalid": case["on_invalid"], "num_samples": case["num_samples"]}
    options |= ({"row_mask": mask} if case["mask"] else {}) | ({"row_ids": ids} if case["ids"] else {})
    make = lambda: numbel.Generator(case["seed"], draw=case["draw"])  # noqa: E731
    flat_mask = np.broadcast_to(mask, rows).reshape(-1)
    samples = 1 if case["num_samples"] is None else case["num_samples"]
    error = _first_bad(values, flat_mask)
    if error is not None and case["on_invalid"] != "flag":
        with pytest.raises(ValueError, match=re.escape(error) + "$"):
            make().sample(array, **options)
        return
    got = make().sample(array, **options)
    assert array.tobytes() == before
    assert np.array_equal(make().categorical(array, **options), got.indices)
    many = rows if case["num_samples"] is None else (*rows, samples)
    wide = np.float64 if case["dtype"] == "float64" else np.float32
    for part, shape, dtype in zip(got, (many, many, rows), (np.int64, wide, wide), strict=True):
        assert np.shape(part) == shape
        assert np.asarray(part).dtype == dtype
    indices = np.reshape(got.indices, (count, samples))
    log_prob = np.reshape(got.log_prob, (count, samples)).astype(np.float64)
    lse = np.reshape(got.logsumexp, count).astype(np.float64)
    wide_values = values.reshape(count, columns).astype(np.float64)
    relative = 1e-12 if case["dtype"] == "float64" else 2e-6
    coupled = None
    if case["method"] == "gumbel_max" and not case["ids"]:
        coupled = make().gumbel(size=(count, columns), dtype=np.float64)
    for row in range(count):
        x, t = wide_values[row], float(each.reshape(-1)[row])
        if not flat_mask[row] or np.any(np.isnan(x) | (x == np.inf)) or np.all(x == -np.inf):
            assert np.all(indices[row] == -1)
            assert np.all(np.isnan(log_prob[row]))
            assert np.isnan(lse[row])
            continue
        _check_row(x, t, indices[row], log_prob[row], lse[row], relative)
        if coupled is not None and t > 0 and samples:
            assert indices[row, 0] == np.argmax(x / t + coupled[row])


@_options(300)
@given(cases())
def test_300_cases(case):
    check(case)


@pytest.mark.long
@_options(10_000)
@given(cases())
def test_10000_cases(case):
    check(case)


@st.composite
def noise_cases(draw):
    """What `gumbel` is told."""
    last = draw(st.one_of(st.integers(0, 300), st.sampled_from([2047, 2048, 2049, 5000])))
    return {
        "size": (*draw(st.lists(st.integers(0, 4), max_size=3)), last),
        "dtype": draw(st.sampled_from(sorted(DTYPES))),
        "loc": draw(st.floats(-100, 100)),
        "scale": draw(st.floats(0, 100)),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "draw": draw(st.integers(0, 2**64 - 1)),
    }


@_options(200)
@given(noise_cases())
def test_noise_against_float64(case):
    make = lambda: numbel.Generator(case["seed"], draw=case["draw"])  # noqa: E731
    exact = make().gumbel(size=case["size"], dtype=np.float64)
    assert np.all((exact >= -3.81) & (exact <= 45.06))
    plain = make().gumbel(size=case["size"], dtype=DTYPES[case["dtype"]]).astype(np.float64)
    step = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(case["dtype"], 0.0)
    assert np.all(np.abs(plain - exact) <= 1.4e-6 + step * np.abs(exact))
    moved = make().gumbel(case["loc"], case["scale"], size=case["size"], dtype=DTYPES[case["dtype"]])
    want = case["loc"] + case["scale"] * exact
    bound = (2e-6 + 2 * step) * (1 + abs(case["loc"]) + case["scale"] * (1 + np.abs(exact)))
    assert np.all(np.abs(moved.astype(np.float64) - want) <= bound)
