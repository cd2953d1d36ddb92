"""What bad input gets: one exception that names argument, place and remedy."""

import functools

import numpy as np
import pytest

import numbel
from make_golden import dtypes

DTYPES = dtypes()
METHODS = ("grouped", "gumbel_max")
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
each_method = pytest.mark.parametrize("method", METHODS)
each_length = pytest.mark.parametrize("columns", [20, 64, 65, 5000, 70_000])


def message(call, error=ValueError):
    """The message of the exception that `call` raises."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


# --- bad values


@each_method
@each_dtype
@each_length
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "+inf"), (-np.nan, "NaN")])
def test_nan_and_inf_are_named_with_their_place(dtype, method, columns, value, name):
    logits = np.zeros((5, columns), dtype)
    for column in (17, 0, columns - 1):
        bad = logits.copy()
        bad[3, column] = value
        for temperature in (1.0, 0.01, [1.0] * 5, [0.0] * 5):
            for function in (numbel.Generator(5).categorical, numbel.Generator(5).sample):
                text = message(lambda f=function, b=bad, t=temperature: f(b, temperature=t, method=method))
                assert text == f"logits row 3 holds {name} at column {column}"


@each_method
@each_dtype
@each_length
def test_impossible_rows(dtype, method, columns):
    logits = np.zeros((7, columns), dtype)
    logits[5] = -np.inf
    for temperature in (1.0, [1.0] * 7, [0.0] * 7):
        for num_samples in (None, 3):
            text = message(
                lambda t=temperature, n=num_samples: numbel.Generator(5).sample(logits, n, temperature=t, method=method)
            )
            assert text == "logits row 5 has no possible category"


@each_method
@each_length
def test_the_first_bad_row_and_column_in_c_order(method, columns):
    logits = np.zeros((2, 3, columns), np.float32)
    logits[1, 2, 0] = np.nan
    logits[1, 0, 11] = np.inf
    logits[1, 0, 9] = -np.inf
    logits[1, 0, 13] = np.nan
    logits[1, 1] = -np.inf
    place = "logits row 3 holds +inf at column 11"
    assert message(lambda: numbel.Generator(5).sample(logits, method=method)) == place
    for axis in (0, 1, -2):
        moved = np.moveaxis(logits, -1, axis)
        assert message(lambda m=moved, a=axis: numbel.Generator(5).sample(m, axis=a, method=method)) == place
    fortran = np.asfortranarray(logits)
    assert message(lambda: numbel.Generator(5).sample(fortran, method=method)) == place
    # rows that are not read are not bad
    mask = np.ones((2, 3), bool)
    mask[1, 0] = False
    text = message(lambda: numbel.Generator(5).sample(logits, row_mask=mask, method=method))
    assert text == "logits row 4 has no possible category"
    # a row id names the noise, not the row
    text = message(lambda: numbel.Generator(5).sample(logits, row_ids=np.full((2, 3), 99), method=method))
    assert text == place


@each_method
def test_a_bad_one_dimensional_row(method):
    for columns in (30, 5000):
        logits = np.zeros(columns)
        logits[20] = np.nan
        text = message(lambda x=logits: numbel.Generator(5).categorical(x, method=method))
        assert text == "logits row 0 holds NaN at column 20"


def test_a_bad_column_beyond_the_first_million():
    logits = np.zeros((2, 1_200_000), np.float32)
    logits[1, 1_100_000:] = np.nan
    text = message(lambda: numbel.Generator(5).categorical(logits))
    assert text == "logits row 1 holds NaN at column 1100000"


@each_method
@each_dtype
@each_length
def test_flagged_rows(dtype, method, columns):
    good = np.zeros((5, columns), dtype)
    expected = numbel.Generator(5).sample(good, 2, method=method)
    logits = good.copy()
    logits[1, columns // 2] = np.nan
    logits[2, 3] = np.inf
    logits[4] = -np.inf
    got = numbel.Generator(5).sample(logits, 2, method=method, on_invalid="flag")
    for row in (1, 2, 4):
        assert np.all(got.indices[row] == -1)
        assert np.all(np.isnan(got.log_prob[row].astype(np.float64)))
        assert np.isnan(got.logsumexp[row])
    for part, whole in zip(got, expected, strict=True):
        assert part[[0, 3]].tobytes() == whole[[0, 3]].tobytes()
    indices = numbel.Generator(5).categorical(logits, 2, method=method, on_invalid="flag")
    assert np.array_equal(indices, got.indices)
    greedy = numbel.Generator(5).sample(logits, temperature=[0.0] * 5, method=method, on_invalid="flag")
    assert list(greedy.indices) == [0, -1, -1, 0, -1]


@each_method
@each_dtype
def test_minus_infinity_is_never_chosen(dtype, method):
    for columns in (3, 64, 5000):
        logits = np.full((200, columns), -np.inf, dtype)
        logits[:, columns // 2] = dtype.type(-30000)
        logits[:, columns - 1] = dtype.type(-30000)
        sample = numbel.Generator(5).sample(logits, 3, method=method, temperature=0.01)
        assert set(np.unique(sample.indices)) == {columns // 2, columns - 1}
        assert np.allclose(sample.log_prob.astype(np.float64), np.log(0.5))


# --- bad arguments: named before anything is written


@pytest.mark.parametrize(
    ("logits", "name"),
    [
        (np.zeros(3, np.int64), "int64"),
        (np.zeros(3, np.int32), "int32"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, complex), "complex128"),
        (np.zeros(3, object), "object"),
        (np.zeros(3, np.longdouble), np.dtype(np.longdouble).name),
        ([1, 2, 3], "int64"),
    ],
)
def test_dtypes(logits, name):
    if np.dtype(np.longdouble) == np.float64 and name == "float64":
        pytest.skip("long double is double here")
    for function in (numbel.Generator(5).categorical, numbel.Generator(5).sample):
        text = message(lambda f=function: f(logits), TypeError)
        assert text.startswith(f"logits: expected float16, bfloat16, float32 or float64, got {name}: ")


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2"])
def test_foreign_byte_order(dtype):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros(3, dtype)), TypeError)
    assert text.startswith(f"logits: expected float16, bfloat16, float32 or float64, got {dtype}, foreign byte order: ")


@pytest.mark.parametrize("dtype", ["int64", "complex64", ">f4", object, "O"])
def test_dtypes_of_noise(dtype):
    assert message(lambda: numbel.Generator(5).gumbel(size=3, dtype=dtype), TypeError).startswith(
        "dtype: expected float16, bfloat16, float32 or float64, got "
    )


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, np.float32(0), np.array(0.0)])
def test_temperature_zero(temperature):
    assert numbel.Generator(5).categorical(np.array([0.0, 1.0, 1.0]), temperature=temperature) == 1
    text = message(lambda: numbel.Generator(5).conditional_gumbel(np.zeros(3), 0, temperature=temperature))
    assert text == "temperature is 0; it must be positive here"


@pytest.mark.parametrize("temperature", [-1.0, np.inf, -np.inf, np.nan, -1e-300])
def test_bad_temperatures(temperature):
    logits = np.zeros((2, 3))
    assert "temperature must be positive and finite" in message(
        lambda: numbel.Generator(5).categorical(logits, temperature=temperature)
    )
    text = message(lambda: numbel.Generator(5).categorical(logits, temperature=[1.0, temperature]))
    assert text.startswith("temperature row 1 is")


@pytest.mark.parametrize("temperature", [None, "hot", 1j, [1j, 1j], ["a", "b"], object()])
def test_temperatures_that_are_no_numbers(temperature):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros((2, 3)), temperature=temperature), TypeError)
    assert text.startswith("temperature must")


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 2), (1, 2, 1)])
def test_temperature_of_the_wrong_length(shape):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros((2, 5)), temperature=np.ones(shape)))
    assert text == f"temperature of shape {shape} does not broadcast to the rows' shape (2,)"


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)])
def test_zero_categories(shape):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros(shape)))
    assert text.startswith("logits has zero categories")
    if len(shape) > 1:
        assert "zero categories along axis 0" in message(
            lambda: numbel.Generator(5).categorical(np.zeros((0, 3)), axis=0)
        )


def test_no_axis_at_all():
    assert "logits is a scalar" in message(lambda: numbel.Generator(5).categorical(1.0))


def test_zero_rows_are_an_empty_result():
    for shape in ((0, 3), (2, 0, 300)):
        sample = numbel.Generator(5).sample(np.zeros(shape), temperature=np.ones(shape[:-1]))
        assert sample.indices.shape == sample.log_prob.shape == sample.logsumexp.shape == shape[:-1]


@pytest.mark.parametrize("axis", [2, -3, 100])
def test_axis_out_of_range(axis):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros((2, 3)), axis=axis), np.exceptions.AxisError)
    assert f"axis {axis} is out of bounds" in text


@pytest.mark.parametrize("axis", [1.0, "0", None, (0,)])
def test_axis_that_is_no_integer(axis):
    message(lambda: numbel.Generator(5).categorical(np.zeros((2, 3)), axis=axis), TypeError)


def test_too_many_categories():
    logits = np.broadcast_to(np.float32(0), (2**34 + 1,))
    assert message(lambda: numbel.Generator(5).categorical(logits)).endswith("at most 2^34 are possible")
    assert message(lambda: numbel.Generator(5).gumbel(size=(1, 2**34 + 1))).endswith("at most 2^34 are possible")


@pytest.mark.parametrize("ids", [[0, -1], [0, 2**56], np.array([0, 2**63], np.uint64)])
def test_row_ids_out_of_range(ids):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros((2, 3)), row_ids=ids))
    assert text == f"row_ids row 1 is {ids[1]}, outside 0 .. 2^56 - 1"


def test_row_ids_and_row_mask_of_the_wrong_kind():
    logits = np.zeros((2, 3))
    for ids in ([0.0, 1.0], [True, False], ["a", "b"]):
        assert "row_ids must hold integers" in message(
            lambda i=ids: numbel.Generator(5).categorical(logits, row_ids=i), TypeError
        )
    for mask in ([0, 1], [0.0, 1.0], "ab"):
        assert "row_mask must hold bool" in message(
            lambda m=mask: numbel.Generator(5).categorical(logits, row_mask=m), TypeError
        )


@pytest.mark.parametrize("length", [0, 1, 3])
def test_row_ids_and_row_mask_of_the_wrong_length(length):
    logits = np.zeros((2, 3))
    text = message(lambda: numbel.Generator(5).categorical(logits, row_ids=np.arange(length)))
    assert text == f"row_ids has shape ({length},), expected (2,), one for each row of logits"
    text = message(lambda: numbel.Generator(5).categorical(logits, row_mask=np.ones(length, bool)))
    assert text == f"row_mask has shape ({length},), expected (2,), one for each row of logits"


@pytest.mark.parametrize("count", [-1, 2**32 + 1])
def test_num_samples_out_of_range(count):
    text = message(lambda: numbel.Generator(5).categorical(np.zeros(3), count))
    assert text == f"num_samples must be in 0 .. 2^32, got {count}"


@pytest.mark.parametrize("count", [1.0, "3", (2, 3)])
def test_num_samples_that_is_no_integer(count):
    assert "num_samples must be an integer" in message(
        lambda: numbel.Generator(5).categorical(np.zeros(3), count), TypeError
    )


def test_method_and_on_invalid():
    for value in ("gumbel", "", "Grouped", 3):
        assert message(lambda v=value: numbel.Generator(5).categorical(np.zeros(3), method=v)) == (
            f'method must be "grouped" or "gumbel_max", got {value!r}'
        )
    for value in ("ignore", 3, True):
        assert message(lambda v=value: numbel.Generator(5).categorical(np.zeros(3), on_invalid=v)) == (
            f'on_invalid must be "raise", "flag" or None, got {value!r}'
        )
    assert message(lambda: numbel.Generator(5).categorical(np.zeros(3), method=None)).startswith("method must be")


# --- out


def test_out_of_the_wrong_kind():
    logits = np.zeros((4, 9))
    good = np.empty(4, np.int64)
    frozen = np.empty(4, np.int64)
    frozen.flags.writeable = False
    rng = numbel.Generator(5)
    assert message(lambda: rng.categorical(logits, out=np.empty(5, np.int64))) == "out has shape (5,), expected (4,)"
    assert message(lambda: rng.categorical(logits, 2, out=good)) == "out has shape (4,), expected (4, 2)"
    assert message(lambda: rng.categorical(logits, out=np.empty(4, np.int32)), TypeError) == (
        "out has dtype int32, expected int64"
    )
    assert message(lambda: rng.categorical(logits, out=[0] * 4), TypeError) == "out must be a NumPy array, got list"
    assert message(lambda: rng.categorical(logits, out=frozen)) == "out is read-only"
    assert message(lambda: rng.sample(logits, out=good), TypeError) == "out must be a numbel.Sample, got ndarray"
    assert message(lambda: rng.sample(logits, out=(good, None)), TypeError) == "out must be a numbel.Sample, got tuple"
    half = np.empty(4, np.float32)
    assert message(lambda: rng.sample(logits, out=numbel.Sample(good, half, None)), TypeError) == (
        "out.log_prob has dtype float32, expected float64"
    )
    assert message(lambda: rng.sample(logits, 2, out=numbel.Sample(None, None, np.empty((4, 2))))) == (
        "out.logsumexp has shape (4, 2), expected (4,)"
    )
    assert rng.draw == 0


def test_out_of_gumbel():
    rng = numbel.Generator(5)
    frozen = np.empty(4, np.float32)
    frozen.flags.writeable = False
    assert message(lambda: rng.gumbel(out=frozen)) == "out is read-only"
    assert message(lambda: rng.gumbel(size=5, out=np.empty(4, np.float32))) == "out has shape (4,), expected (5,)"
    assert message(lambda: rng.gumbel(dtype=np.float64, out=np.empty(4, np.float32)), TypeError) == (
        "out has dtype float32, expected float64"
    )
    assert message(lambda: rng.gumbel(out=[0.0]), TypeError) == "out must be a NumPy array, got list"
    for dtype in (np.int64, ">f4"):
        message(lambda d=dtype: rng.gumbel(out=np.empty(4, d)), TypeError)
    assert rng.draw == 0


def test_loc_scale_and_size():
    rng = numbel.Generator(5)
    for scale in (-1.0, np.nan, [1.0, -0.5], -np.inf):
        assert message(lambda s=scale: rng.gumbel(0.0, s)) == "scale must not be negative or NaN"
    assert message(lambda: rng.gumbel("a"), TypeError).startswith("loc must hold real numbers")
    assert message(lambda: rng.gumbel(0.0, 1j), TypeError).startswith("scale must hold real numbers")
    assert message(lambda: rng.gumbel(np.zeros(3), size=4)) == (
        "loc and scale of joint shape (3,) do not broadcast to size (4,)"
    )
    assert "do not broadcast" in message(lambda: rng.gumbel(np.zeros((2, 3)), size=3))
    message(lambda: rng.gumbel(np.zeros(3), np.zeros(4)))
    assert message(lambda: rng.gumbel(size=-1)).startswith("size must not be negative")
    assert message(lambda: rng.gumbel(size=(2, -1))).startswith("size must not be negative")
    for size in ((2, 1.5), "ab"):
        assert message(lambda s=size: rng.gumbel(size=s), TypeError).startswith("size must be")
    assert rng.draw == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": [1.0, np.nan, 1.0, 1.0]},
        {"axis": 5},
        {"row_ids": [0]},
        {"row_mask": [True]},
        {"method": "other"},
        {"on_invalid": "other"},
        {"num_samples": -1},
    ],
)
def test_nothing_is_written_before_an_argument_is_refused(wrong):
    out = numbel.Sample(np.full(4, -7), np.full(4, -7.0), np.full(4, -7.0))
    rng = numbel.Generator(5)
    with pytest.raises((ValueError, TypeError)):
        rng.sample(np.zeros((4, 9)), out=out, **wrong)
    with pytest.raises((ValueError, TypeError)):
        rng.categorical(np.zeros((4, 9)), out=out.indices, **wrong)
    assert all(np.all(part == -7) for part in out)
    assert rng.draw == 0


def test_nothing_is_written_when_one_out_is_refused():
    indices, log_prob = np.full(4, -7), np.full(4, -7.0)
    with pytest.raises(ValueError, match=r"out\.logsumexp"):
        numbel.Generator(5).sample(np.zeros((4, 9)), out=numbel.Sample(indices, log_prob, np.empty(3)))
    assert np.all(indices == -7)
    assert np.all(log_prob == -7)
    noise = np.full(4, -7.0, np.float32)
    with pytest.raises(ValueError, match="scale"):
        numbel.Generator(5).gumbel(0.0, [1.0, 1.0, 1.0, -1.0], out=noise)
    assert np.all(noise == -7)


# --- relaxed samples, perturbed logits, gradients


def functions(rng, index=0):
    """Each function of (logits, keywords) that makes an array of the shape of logits."""

    def conditional(logits, **options):
        axis = options.get("axis", -1)
        shape = np.delete(np.shape(logits), axis) if -np.ndim(logits) <= axis < np.ndim(logits) else ()
        return rng.conditional_gumbel(logits, options.pop("index", np.full(tuple(shape), index)), **options)

    def hard(logits, **options):
        return rng.gumbel_softmax(logits, hard=True, **options)

    return {"relaxed": rng.gumbel_softmax, "hard": hard, "conditional": conditional}


KINDS = ("relaxed", "hard", "conditional")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_width = pytest.mark.parametrize("columns", [20, 128, 129, 5000, 70_000])


@each_kind
@each_dtype
@each_width
def test_bad_rows_of_relaxed_samples(kind, dtype, columns):
    rng = numbel.Generator(5, draw=3)
    call = functions(rng)[kind]
    for value, name in ((np.nan, "NaN"), (np.inf, "+inf")):
        for column in (17, columns - 1):
            logits = np.zeros((5, columns), dtype)
            logits[3, column] = logits[4, 2] = value
            for array in (logits, np.asfortranarray(logits)):
                for temperature in (0.01, [2.0] * 5):
                    text = message(lambda a=array, t=temperature: call(a, temperature=t))
                    assert text == f"logits row 3 holds {name} at column {column}"
            moved = message(lambda a=logits: call(np.ascontiguousarray(a.T), axis=0))
            assert moved == f"logits row 3 holds {name} at column {column}"
            # the output has replaced the logits: what is wrong is known, where in the row is not
            text = message(lambda a=logits: call(a, out=a))
            assert text == "logits row 3 held NaN or +inf, or had no possible category"
    logits = np.zeros((5, columns), dtype)
    logits[1, 1:] = logits[4] = -np.inf
    expected = "logits row 4 has no possible category"
    assert message(lambda: call(logits)) == expected
    if kind != "conditional":
        assert message(lambda: call(logits, temperature=[0.0, 1.0, 0.0, 1.0, 0.0])) == expected
    assert rng.draw == 3
    flagged = call(logits, on_invalid="flag")
    assert np.all(np.isnan(flagged[4]))
    assert not np.any(np.isnan(flagged[:4]))
    mask = np.array([True, True, True, True, False])
    assert np.all(np.isnan(call(logits, row_mask=mask)[4]))
    assert rng.draw == 5
    lone = np.full(columns, -np.inf, dtype)
    assert message(lambda: call(lone)) == "logits row 0 has no possible category"


@each_kind
def test_arguments_of_relaxed_samples(kind):
    rng = numbel.Generator(5, draw=3)
    call = functions(rng)[kind]
    logits = np.zeros((2, 300))
    for temperature in (-1.0, np.inf, np.nan, -np.inf):
        assert "temperature must be positive and finite" in message(lambda t=temperature: call(logits, temperature=t))
        text = message(lambda t=temperature: call(logits, temperature=[1.0, t]))
        assert text.startswith("temperature row 1 is")
    if kind == "conditional":
        assert message(lambda: call(logits, temperature=0.0)) == "temperature is 0; it must be positive here"
        assert message(lambda: call(logits, temperature=[1.0, 0.0])) == (
            "temperature row 1 is 0; it must be positive here"
        )
    assert message(lambda: call(logits, temperature="hot"), TypeError).startswith("temperature must")
    assert "does not broadcast" in message(lambda: call(logits, temperature=np.ones(3)))
    for wrong in (np.zeros((2, 3), int), np.zeros((2, 3), complex), np.zeros((2, 3), ">f4")):
        assert message(lambda w=wrong: call(w), TypeError).startswith(
            "logits: expected float16, bfloat16, float32 or float64"
        )
    assert "zero categories" in message(lambda: call(np.zeros((2, 0))))
    assert "logits is a scalar" in message(lambda: call(np.float64(1.0)))
    assert "axis 2 is out of bounds" in message(lambda: call(logits, axis=2), np.exceptions.AxisError)
    assert "row_ids row 1 is -1" in message(lambda: call(logits, row_ids=[0, -1]))
    assert "row_ids has shape (1,)" in message(lambda: call(logits, row_ids=[0]))
    assert "row_mask has shape (3,)" in message(lambda: call(logits, row_mask=[True] * 3))
    assert "row_mask must hold bool" in message(lambda: call(logits, row_mask=[1, 0]), TypeError)
    assert "on_invalid must be" in message(lambda: call(logits, on_invalid="ignore"))
    frozen = np.zeros((2, 300))
    frozen.flags.writeable = False
    assert message(lambda: call(logits, out=frozen)) == "out is read-only"
    assert message(lambda: call(frozen, out=frozen)) == "out is read-only"
    assert message(lambda: call(logits, out=np.zeros((2, 301)))) == "out has shape (2, 301), expected (2, 300)"
    assert message(lambda: call(logits, axis=0, index=np.zeros(300, int), out=np.zeros((300, 2)))
                   if kind == "conditional" else call(logits, axis=0, out=np.zeros((300, 2)))) == (
        "out has shape (300, 2), expected (2, 300)"
    )  # fmt: skip
    text = message(lambda: call(logits, out=np.zeros((2, 300), np.float32)), TypeError)
    assert text == "out has dtype float32, expected float64"
    assert message(lambda: call(logits, out=[0.0]), TypeError) == "out must be a NumPy array, got list"
    assert rng.draw == 3
    for shape in ((0, 3), (2, 0, 300)):
        empty = np.zeros(shape, np.float32)
        index = {"index": np.zeros(shape[:-1], int)} if kind == "conditional" else {}
        for options in ({}, {"temperature": np.ones(shape[:-1])}, {"out": empty}):
            assert call(empty, **index, **options).shape == shape
    assert rng.draw == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": [1.0, np.nan, 1.0, 1.0]},
        {"axis": 5},
        {"row_ids": [0]},
        {"row_mask": [True]},
        {"on_invalid": "other"},
    ],
)
@each_kind
def test_refused_arguments_leave_the_output_alone(kind, wrong):
    rng, out = numbel.Generator(5), np.full((4, 9), -7.0)
    with pytest.raises((ValueError, TypeError)):
        functions(rng)[kind](np.zeros((4, 9)), out=out, **wrong)
    assert np.all(out == -7)
    assert rng.draw == 0


@each_dtype
@each_width
def test_index_of_conditional_gumbel(dtype, columns):
    rng = numbel.Generator(5)
    logits = np.zeros((3, columns), dtype)
    logits[1, 7] = -np.inf
    for index in (-1, columns, -columns, 1 << 40, -(1 << 63)):
        text = message(lambda i=index: rng.conditional_gumbel(logits, [0, 0, i]))
        assert text == f"index row 2 is {index}, outside 0 .. {columns - 1}"
    assert message(lambda: rng.conditional_gumbel(logits, [0, 7, 0])) == "index row 1 is 7, a category of probability 0"
    assert message(lambda: rng.conditional_gumbel(logits, [0, 0])).startswith("index has shape (2,), expected (3,)")
    assert message(lambda: rng.conditional_gumbel(logits, 0)).startswith("index has shape (), expected (3,)")
    for index in ([0.0, 1.0, 2.0], [True, False, True], ["a", "b", "c"]):
        assert message(lambda i=index: rng.conditional_gumbel(logits, i), TypeError).startswith(
            "index must hold integers"
        )
    assert rng.draw == 0
    z = rng.conditional_gumbel(logits, [columns, 7, 3], on_invalid="flag")
    assert np.all(np.isnan(z[:2]))
    assert z[2].argmax() == 3
    z = rng.conditional_gumbel(logits, [-1, 7, 3], row_mask=[False, False, True])
    assert np.all(np.isnan(z[:2]))
    assert z[2].argmax() == 3
    for kind in (np.uint8, np.int16, np.uint64):
        assert rng.conditional_gumbel(logits, np.array([1, 2, 3], kind))[2].argmax() == 3
    in_place = logits.copy()
    assert "row 1" in message(lambda: rng.conditional_gumbel(in_place, [0, 7, 0], out=in_place))


def test_arguments_of_the_gradient():
    y, u = np.full((2, 4), 0.25), np.zeros((2, 4))
    call = numbel.gumbel_softmax_vjp
    assert message(lambda: call(np.zeros((2, 4), int), u), TypeError).startswith("y: expected float16")
    assert message(lambda: call(y, u[:1])) == "cotangent has shape (1, 4), expected (2, 4), that of y"
    assert message(lambda: call(y, np.zeros((2, 4), complex)), TypeError).startswith("cotangent must hold real numbers")
    assert message(lambda: call(np.zeros((2, 0)), np.zeros((2, 0)))).startswith("y has zero categories")
    for temperature in (-1.0, np.nan, np.inf):
        assert message(lambda t=temperature: call(y, u, t)).startswith("temperature ")
        assert message(lambda t=temperature: call(y, u, [1.0, t])).startswith("temperature row 1 is")
    assert "does not broadcast" in message(lambda: call(y, u, np.ones(3)))
    assert "out of bounds" in message(lambda: call(y, u, axis=2), np.exceptions.AxisError)
    assert message(lambda: call(y, u, out=np.zeros((4, 2)))) == "out has shape (4, 2), expected (2, 4)"
    assert message(lambda: call(y, u, out=np.zeros((2, 4), np.float32)), TypeError).startswith("out has dtype float32")
    frozen = np.zeros((2, 4))
    frozen.flags.writeable = False
    assert message(lambda: call(y, u, out=frozen)) == "out is read-only"
    for shape in ((0, 3), (2, 0, 300)):
        gradient, slope = call(np.zeros(shape), np.zeros(shape), np.ones(shape[:-1]))
        assert gradient.shape == shape
        assert slope.shape == shape[:-1]
        assert call(np.zeros(shape), np.zeros(shape), 2.0)[1] == 0


# --- arrays of other libraries


class _Tensor:
    requires_grad = True

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("never reached")


_DaskArray = type("Array", (), {"__module__": "dask.array.core"})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (_Tensor(), ("logits", "requires a gradient", "numbel.torch")),
        (_DaskArray(), ("logits", "Dask", "numbel.dask")),
    ],
)
def test_arrays_that_belong_to_an_adapter(value, words):
    rng = numbel.Generator(5)
    conditional = functools.partial(rng.conditional_gumbel, index=[0])
    for function in (rng.categorical, rng.sample, rng.gumbel_softmax, conditional):
        text = message(lambda f=function: f(value), TypeError)
        assert all(word in text for word in words)
    assert rng.draw == 0


def test_a_tensor_without_gradient_is_an_array():
    class Plain:
        requires_grad = False

        def __array__(self, dtype=None, copy=None):
            return np.zeros(3)

    assert type(numbel.Generator(5).categorical(Plain())) is np.int64


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    logits = torch.zeros(4, 9)
    expected = numbel.Generator(5).categorical(np.zeros((4, 9), np.float32))
    assert np.array_equal(numbel.Generator(5).categorical(logits), expected)
    logits.requires_grad_()
    assert "numbel.torch" in message(lambda: numbel.Generator(5).categorical(logits), TypeError)
    assert np.array_equal(numbel.Generator(5).categorical(logits.detach()), expected)
