"""Every check on user input, and its message. Nothing below this layer raises."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from .._scalar.limits import LEAST_TEMPERATURE, MAX_COLUMNS, MAX_ROW_ID, MAX_SAMPLES, MOST_TEMPERATURE
from .requests import Limit, Limits, Temperature

_FLOATS = {"float16", "bfloat16", "float32", "float64"}
METHODS = ("grouped", "gumbel_max")


def float_dtype(dtype: Any, name: str = "dtype") -> np.dtype[Any]:
    """One of the four float dtypes in native byte order, or TypeError that names the argument."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        if not (isinstance(dtype, str) and dtype == "bfloat16"):
            raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {dtype!r}") from error
        found = _bfloat16()
    if not _supported(found):
        raise TypeError(_wrong_dtype(found, name))
    return found


def _bfloat16() -> np.dtype[Any]:
    """bfloat16, whose name NumPy knows only once its package is imported."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise TypeError('dtype "bfloat16" needs the package ml_dtypes: pip install "numbel[bf16]"') from None
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _wrong_dtype(found: np.dtype[Any], name: str) -> str:
    """What is wrong with a dtype, and what to do next."""
    text = f"{name}: expected float16, bfloat16, float32 or float64, got {found if found.isnative else found.str}"
    if name == "dtype":
        return text
    if not found.isnative:
        return f"{text}, foreign byte order: pass {name}.astype({name}.dtype.newbyteorder('='))"
    if found.kind in "iub":
        return f"{text}: pass np.asarray({name}, np.float32), or np.log of it where it holds counts"
    if found.kind == "O":
        return f"{text}: pass np.asarray({name}, np.float64), which needs rows of equal length"
    if found.kind == "f":
        return f"{text}: pass {name}.astype(np.float64)"
    if found.kind == "c":
        return f"{text}: pass its real part"
    return text


@functools.lru_cache(maxsize=64)
def _supported(dtype: np.dtype[Any]) -> bool:
    return dtype.isnative and dtype.name in _FLOATS


def logits(value: Any, axis: int, name: str = "logits") -> np.ndarray[Any, Any]:
    """`value` as an array with the category axis last; a view where it is an array already."""
    if type(value) is not np.ndarray:
        value = _as_numpy(value, name)
    float_dtype(value.dtype, name)
    axis = category_axis(value.shape, axis, name)
    array: np.ndarray[Any, Any] = value if axis == -1 else np.moveaxis(value, axis, -1)
    return array


def plain_logits(value: Any) -> np.ndarray[Any, Any]:
    """Logits as an array of NumPy's own class, of any shape."""
    return value if type(value) is np.ndarray else _as_numpy(value, "logits")


def axes(axis: Any, dimensions: int, name: str) -> tuple[int, ...] | None:
    """Several category axes, not negative and in order; None where there is one, as a number."""
    if axis is not None and not isinstance(axis, tuple):
        return None
    found = (
        range(dimensions) if axis is None else sorted(one_axis(each, dimensions, name) % dimensions for each in axis)
    )
    if not found:
        raise ValueError(
            f"{name} has no axis to sum over" if axis is None else "axis is empty: there is nothing to sum over"
        )
    if len(set(found)) < len(found):
        raise ValueError(f"axis names an axis twice: {axis}")
    return tuple(found)


def category_axis(shape: tuple[int, ...], axis: Any, name: str) -> int:
    """The category axis of an array of this shape, which must have categories."""
    if not shape:
        raise ValueError(f"{name} is a scalar: expected at least one axis, the categories")
    at = one_axis(axis, len(shape), name)
    columns = shape[at]
    if columns == 0:
        raise ValueError(f"{name} has zero categories along axis {at}: there is nothing to draw")
    if columns > MAX_COLUMNS:
        raise ValueError(f"{name} has {columns} categories along axis {at}; at most 2^34 are possible")
    return at


def one_axis(axis: Any, dimensions: int, name: str) -> int:
    """An axis of an array of so many."""
    try:
        at = operator.index(axis)
    except TypeError:
        way = f": of an xarray array pass axis=array.get_axis_num({axis!r})" if isinstance(axis, str) else ""
        raise TypeError(f"axis must be one integer, got {axis!r}{way}") from None
    if not -dimensions <= at < dimensions:
        raise np.exceptions.AxisError(at, dimensions, f"{name} has {dimensions} axes")
    return at


def on_device(value: Any) -> bool:
    """Whether an array lies on a CUDA device, or is one of Numba's simulator."""
    if isinstance(value, (np.ndarray, float, int)) or value is None:
        return False
    if getattr(value, "__cuda_ndarray__", False):
        return True
    if type(value).__module__.partition(".")[0] in ("jax", "jaxlib"):
        return _jax_on_device(value)
    where = getattr(value, "__dlpack_device__", None)
    if where is not None:
        return where()[0] in (2, 13)  # kDLCUDA and kDLCUDAManaged
    return hasattr(value, "__cuda_array_interface__")


def _jax_on_device(value: Any) -> bool:
    """The same of a JAX array, which has no single device where it is sharded, and none at all while it is traced."""
    devices = None if _traced(value) else getattr(value, "devices", None)
    return callable(devices) and any(device.platform in ("gpu", "cuda") for device in devices())


def _traced(value: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def device_dtype(name: str) -> None:
    """One of the four float dtypes, by its name."""
    if name not in _FLOATS:
        raise TypeError(f"logits: expected float16, bfloat16, float32 or float64, got {name}")


def device_scalar(value: Any, name: str) -> Any:
    """A real number, which loc and scale must be on a device."""
    if on_device(value) or np.ndim(value) > 0:
        raise TypeError(f"{name} must be a scalar where the noise is made on a CUDA device")
    return value


def host_index(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Categories as contiguous int64, one for each row of this shape."""
    given = _integers(value, "index")
    _per_row(given, shape, "index")
    return _int64(given).reshape(-1)


def _as_numpy(value: Any, name: str) -> np.ndarray[Any, Any]:
    """An array of NumPy's own class; of logits that are masked, a copy with -inf where they are."""
    if name == "logits":
        if isinstance(value, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in value):
            value = np.ma.stack(value)
        if isinstance(value, np.ma.MaskedArray):
            data = value.data.view(np.ndarray)
            if value.mask is np.ma.nomask or data.dtype.name not in _FLOATS:
                return data
            data = data.copy()
            data[np.ma.getmaskarray(value)] = -math.inf
            return data
    return plain(value, name)


def plain(value: Any, name: str) -> np.ndarray[Any, Any]:
    """An array of NumPy's own class, without a mask."""
    if type(value) is np.ndarray:
        return value
    if on_device(value):
        raise TypeError(f"{name} lives on a CUDA device, where this is not done: copy it to the host first")
    if isinstance(value, (list, tuple)):
        if isinstance(getattr(value, "_fields", None), tuple) and hasattr(value, "indices"):
            raise TypeError(f"{name} is a {type(value).__name__}, not an array: pass its .indices")
        masked = any(isinstance(each, np.ma.MaskedArray) for each in value)
    else:
        masked = isinstance(value, np.ma.MaskedArray)
    if masked:
        raise TypeError(f"{name} is a masked array, which only logits may be: pass its .filled() with a value")
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} is a tensor that requires a gradient, which NumPy methods would drop: "
            "use numbel.torch, or pass its .detach()"
        )
    module = type(value).__module__
    if module.partition(".")[0] == "dask":
        raise TypeError(f"{name} is a Dask array: use numbel.dask, or pass its .compute()")
    if module.startswith("scipy.sparse"):
        raise TypeError(
            f"{name} is a scipy.sparse array: pass its .toarray(), in which what is not stored is 0, not -inf"
        )
    if _traced(value):
        raise TypeError(f"{name} is traced by JAX (jit, grad or vmap), where NumPy methods cannot run: use numbel.jax")
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of different lengths
        way = ", joined into one axis with offsets= between the rows, or padded with -inf" if name == "logits" else ""
        raise ValueError(f"{name} is not an array of equal rows{way}: {error}") from None


def _integers(value: Any, name: str) -> np.ndarray[Any, Any]:
    """An array of integers, as Python's where int64 cannot hold them; an empty one may be of any type."""
    array = plain(value, name)
    if array.size and array.dtype.kind not in "iu" and not _all_of(array, (int, np.integer)):
        raise TypeError(f"{name} must hold integers, got {_kind(array)}")
    return array


def _int64(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integers as contiguous int64; Python's that it cannot hold become its ends, out of any range."""
    if array.dtype == object:
        ends = np.iinfo(np.int64)
        array = np.array([min(max(int(each), ends.min), ends.max) for each in array.flat]).reshape(array.shape)
    return np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)


def _reals(value: Any, name: str) -> np.ndarray[Any, Any]:
    """An array of real numbers, as float64."""
    array = plain(value, name)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16" and not _all_of(array, _REALS):
        raise TypeError(f"{name} must hold real numbers, got {_kind(array)}")
    if array.dtype == np.float64:
        return array
    try:
        with np.errstate(all="ignore"):
            return array.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{name} holds an integer that float64 cannot hold") from None


_REALS = (int, float, np.integer, np.floating)


def _all_of(array: np.ndarray[Any, Any], kinds: tuple[type, ...]) -> bool:
    """Whether an array of objects holds these only: what NumPy makes of a list with 10**30."""
    if array.dtype != object or not array.size:
        return False
    return all(isinstance(each, kinds) and not isinstance(each, bool) for each in array.flat)


def _kind(array: np.ndarray[Any, Any]) -> str:
    """What an array holds, in words; of a scalar, itself."""
    return repr(array.item()) if array.ndim == 0 and array.dtype.kind != "V" else str(array.dtype)


#: The range of temperatures, in words.
_TEMPERATURES = "2^-100 .. 2^100 (8e-31 .. 1e30)"


def temperature(value: Any, shape: tuple[int, ...], name: str = "temperature") -> Temperature:
    """Temperatures as contiguous float64, and whether there is one for each row: 0 is told to each row."""
    if not isinstance(value, (float, int)):
        array = _reals(value, name)
        if array.ndim > 0:
            return Temperature(_row_temperatures(array, shape, name), True)
        value = array.item()
    try:
        scalar = float(value)
    except OverflowError:
        scalar = math.inf
    if scalar == 0:
        return Temperature(np.zeros(math.prod(shape)), True)
    if not 0 < scalar < math.inf:
        raise ValueError(f"{name} must be positive and finite, or 0 for the argmax, got {_short(value)}")
    if not LEAST_TEMPERATURE <= scalar <= MOST_TEMPERATURE:
        raise ValueError(f"{name} is {_short(value)}, outside {_TEMPERATURES}; 0 is the argmax")
    return Temperature(np.array([scalar]), False)


def _short(value: Any) -> str:
    """A number, but for those of many digits."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


def relaxed_temperature(value: Any, shape: tuple[int, ...], name: str = "temperature") -> Any:
    """As `temperature`, where 0, for all or for a row, would have no gradient."""
    flat, per_row = temperature(value, shape, name)
    zero = np.flatnonzero(flat == 0)
    if zero.size:
        where = f"{name} row {zero[0]}" if per_row and np.ndim(value) else name
        raise ValueError(
            f"{where} is 0, where no sample is relaxed: for one-hot samples pass hard=True and a positive {name}"
        )
    return flat, per_row


def _row_temperatures(array: np.ndarray[Any, Any], shape: tuple[int, ...], name: str) -> np.ndarray[Any, Any]:
    try:
        spread = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} of shape {array.shape} does not broadcast to the rows' shape {shape}") from None
    flat = np.ascontiguousarray(spread).reshape(-1)
    if flat.size and not (flat.min() >= 0 and flat.max() < math.inf):
        row = int(np.argmin((flat >= 0) & (flat < math.inf)))
        raise ValueError(f"{name} row {row} is {flat[row]}; it must be non-negative and finite")
    if flat.size and (flat.max() > MOST_TEMPERATURE or flat.min() < LEAST_TEMPERATURE):
        outside = (flat != 0) & ((flat < LEAST_TEMPERATURE) | (flat > MOST_TEMPERATURE))
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(f"{name} row {row} is {flat[row]}, outside {_TEMPERATURES}; 0 is the argmax")
    return flat


def positive_temperature(value: Any, shape: tuple[int, ...], least: float = 0.0) -> Temperature:
    """As `temperature`, where no row may have temperature 0 or one below `least`."""
    flat, per_row = temperature(value, shape)
    if np.ndim(value) == 0:
        flat, per_row = flat[:1] if flat.size else np.array([float(value)]), False
    bad = np.flatnonzero((flat <= 0) | (flat < least))
    if bad.size:
        where = f"temperature row {bad[0]} is" if per_row else "temperature is"
        wanted = f"at least {least:g}" if least else "positive"
        raise ValueError(f"{where} {flat[bad[0]]:g}; it must be {wanted} here")
    return Temperature(flat, per_row)


#: Of each truncation: the values that it may have, what they must be, and what to do instead of others.
_TRUNCATIONS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "top_k": (lambda k: k >= -1, "at least 1", ": 0 and -1 switch it off"),
    "top_p": (lambda p: (p > 0) & (p <= 1), "in (0, 1]", ": 1 switches it off, temperature=0 takes the argmax"),
    "min_p": (lambda p: (p >= 0) & (p <= 1), "in [0, 1]", ": 0 switches it off"),
}


def truncation(top_k: Any, top_p: Any, min_p: Any, shape: tuple[int, ...], columns: int) -> Limits | None:
    """top_k, top_p and min_p; None if all rows keep all."""
    if top_k is None and top_p is None and min_p is None:
        return None
    given = (("top_k", top_k, np.int64(columns)), ("top_p", top_p, 1.0), ("min_p", min_p, 0.0))
    limits = [
        Limit(np.array([none]), False) if value is None else one_truncation(name, value, shape, columns)
        for name, value, none in given
    ]
    found = Limits(*limits)
    (k, _), (p, _), (least, _) = found
    if not (k.size and p.size and least.size):  # no rows
        return None
    return found if k.min() < columns or p.min() < 1 or least.max() > 0 else None


def one_truncation(name: str, value: Any, shape: tuple[int, ...], columns: int) -> Limit:
    """One of them as a contiguous array, and whether it has an entry for each row."""
    integral = name == "top_k"
    allowed, wanted, way = _TRUNCATIONS[name]
    if type(value) is (int if integral else float) and allowed(value):  # one number for all rows: 10 us less
        return Limit(np.array([value if not integral or 1 <= value < columns else np.int64(columns)]), False)
    array = _integers(value, name) if integral else _reals(value, name)
    try:
        spread = np.broadcast_to(array, shape) if array.ndim else array  # 3 us
    except ValueError:
        raise ValueError(f"{name} of shape {array.shape} does not broadcast to the rows' shape {shape}") from None
    flat = spread.reshape(-1)
    good = allowed(flat)
    if not good.all():
        if array.ndim == 0:
            raise ValueError(f"{name} must be {wanted}, got {_short(array.item())}{way}")
        row = int(np.argmin(good))
        raise ValueError(f"{name} row {row} is {flat[row]}; it must be {wanted}{way}")
    if integral:
        # small types hold no number of categories, int64 not every k
        flat = np.where((flat < 1) | (flat > columns), np.int64(columns), flat).astype(np.int64)
    return Limit(np.ascontiguousarray(flat), array.ndim > 0)


def row_ids(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Row ids as contiguous int64 in 0 .. 2^56 - 1, one for each row."""
    array = _integers(value, "row_ids")
    _per_row(array, shape, "row_ids")
    flat = array.reshape(-1)
    if flat.size:
        low, high = int(flat.min()), int(flat.max())
        if low < 0 or high > MAX_ROW_ID:
            at = int(np.argmin(flat) if low < 0 else np.argmax(flat))
            raise ValueError(f"row_ids row {at} is {flat[at]}, outside 0 .. 2^56 - 1")
    return np.ascontiguousarray(flat, dtype=np.int64)


def row_mask(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The row mask as contiguous bool, one for each row."""
    array = plain(value, "row_mask")
    if array.dtype != np.bool_:
        raise TypeError(f"row_mask must hold bool, got {_kind(array)}")
    _per_row(array, shape, "row_mask")
    return np.ascontiguousarray(array).reshape(-1)


def _per_row(array: np.ndarray[Any, Any], shape: tuple[int, ...], name: str) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}, one for each row of logits")


def num_samples(value: Any) -> int:
    """A number of samples, 0 .. 2^32."""
    try:
        count = operator.index(value)
    except TypeError:
        way = ": samples are one axis, which the result's .reshape() splits" if isinstance(value, (tuple, list)) else ""
        raise TypeError(f"num_samples must be an integer or None, got {value!r}{way}") from None
    if not 0 <= count <= MAX_SAMPLES:
        raise ValueError(f"num_samples must be in 0 .. 2^32, got {count}")
    return count


def ragged_logits(value: Any, axis: int) -> np.ndarray[Any, Any]:
    """1-D logits, which offsets cut into rows."""
    array = value if type(value) is np.ndarray else _as_numpy(value, "logits")
    float_dtype(array.dtype, "logits")
    ragged_axis(array.ndim, axis)
    return array


def ragged_axis(dimensions: int, axis: Any) -> None:
    """The axis that offsets cut is the only one."""
    if dimensions != 1:
        raise ValueError(f"logits has {dimensions} axes; offsets cut rows from one axis")
    one_axis(axis, 1, "logits")


def offsets(value: Any, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where ragged rows begin and end, as contiguous int64: from 0 to the length of logits, never falling."""
    array = _integers(value, "offsets")
    offsets_form(array.shape, array.dtype.name if array.dtype != object else "int64")
    if array[0] != 0 or array[-1] != length:
        raise ValueError(f"offsets run from {array[0]} to {array[-1]}, expected 0 to {length}, the length of logits")
    falls = array[1:] < array[:-1]
    if falls.any():
        row = int(np.argmax(falls))
        raise ValueError(f"offsets fall from {array[row]} to {array[row + 1]} at row {row}")
    return np.ascontiguousarray(array, dtype=np.int64)


def offsets_form(shape: tuple[int, ...], dtype: str) -> None:
    """Offsets are a vector of integers."""
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"offsets has shape {shape}, expected one axis: the number of rows, and 1")
    if not dtype.startswith(("int", "uint")):
        raise TypeError(f"offsets must hold integers, got {dtype}")


def ragged_lengths(starts: np.ndarray[Any, np.dtype[np.int64]], mask: np.ndarray[Any, Any] | None) -> None:
    """Rows between offsets: none that is read may be empty or too long."""
    lengths = np.diff(starts)
    for wrong, what in ((lengths == 0, "zero categories"), (lengths > MAX_COLUMNS, "more than 2^34 categories")):
        if mask is not None:
            wrong &= mask
        if wrong.any():
            raise ValueError(f"logits row {int(np.argmax(wrong))} has {what}, from its offsets")


def positive_count(value: Any, name: str) -> int:
    """An integer, at least 1."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count


def top_k_count(value: Any, columns: int) -> int:
    """`k` of a sample without replacement, 1 .. the number of categories."""
    count = positive_count(value, "k")
    if count > columns:
        raise ValueError(f"k is {count}, but logits has {columns} categories to choose from")
    return count


def top_k_result(
    result: Any, array: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Indices and thresholds of a TopK that was drawn from `array`, whose last axis is the categories."""
    indices, threshold = np.asarray(result.indices), np.asarray(result.threshold)
    top_k_shapes(indices.dtype.name, threshold.dtype.name, indices.shape, threshold.shape, array.shape[:-1])
    outside = (indices < -1) | (indices >= array.shape[-1])
    if outside.any():
        found = indices[outside][0]
        raise ValueError(f"result.indices holds {found}, but logits has {array.shape[-1]} categories")
    return indices.astype(np.int64, copy=False), np.ascontiguousarray(threshold)


def top_k_shapes(
    kind: str, threshold_kind: str, shape: tuple[int, ...], threshold_shape: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    """Dtypes and shapes of the indices and thresholds of a TopK that was drawn from rows of this shape."""
    if not kind.startswith(("int", "uint")) or threshold_kind != "float64":
        raise TypeError(f"result holds {kind} indices and {threshold_kind} thresholds: not a drawn TopK")
    if len(shape) != len(rows) + 1 or shape[:-1] != rows or threshold_shape != rows:
        raise ValueError(f"result has indices of shape {shape}, expected {rows} and k, for the rows of logits")


def finite(value: Any, name: str) -> float:
    """A finite real number."""
    if not isinstance(value, (float, int, np.floating, np.integer)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def value_and_slope(
    result: Any, batch: tuple[int, ...], shape: tuple[int, ...], needed: bool, before: tuple[int, ...] | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """What a user's f returned: its value as float64, and its derivative, None only where it is not `needed`.

    `before` is the shape of an earlier value, which may not change.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"f must return a tuple (value, df_dd), got {type(result).__name__}")
    value, slope = _real(result[0], "the value of f"), result[1]
    if value.shape != batch[: value.ndim]:
        allowed = ", ".join(str(batch[:n]) for n in range(len(batch) + 1))
        raise ValueError(
            f"the value of f has shape {value.shape}, expected a leading part of the rows' shape: {allowed}"
        )
    if before is not None and value.shape != before:
        raise ValueError(f"the value of f has shape {value.shape}, after {before} in an earlier call")
    if slope is None:
        if needed:
            raise TypeError(f"df_dd, which f returned, is None: expected an array of shape {shape}, that of logits")
        return value.astype(np.float64), None
    slope = _real(slope, "df_dd, which f returned,")
    if slope.shape != shape:
        raise ValueError(f"df_dd, which f returned, has shape {slope.shape}, expected {shape}, that of logits")
    return value.astype(np.float64), slope


def _real(value: Any, what: str) -> np.ndarray[Any, Any]:
    try:
        array = plain(value, what)
    except ValueError as error:  # a ragged list
        raise TypeError(str(error)) from None
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{what} must hold real numbers, got {array.dtype}")
    return array


def relaxed_sample(value: Any, name: str, axis: int, columns: int, log: bool) -> np.ndarray[Any, Any]:
    """Points of the simplex, or their logarithms, with the category axis (negative) last."""
    array = plain(value, name)
    float_dtype(array.dtype, name)
    if array.ndim < -axis or array.shape[axis] != columns:
        raise ValueError(
            f"{name} has shape {array.shape}, expected {columns} categories along axis {axis}, as in logits"
        )
    array = np.moveaxis(array, axis, -1)
    # rounding may lift a coordinate above 1, its logarithm above 0
    good = array < math.inf if log else (array >= 0) & (array < math.inf)
    if not good.all():
        row, column = divmod(int(np.argmin(good)), columns)
        found = array.reshape(-1, columns)[row, column]
        wanted = "a logarithm of one in 0 .. 1" if log else "in 0 .. 1"
        raise ValueError(f"{name} row {row} holds {found} at column {column}; it must be {wanted}")
    return array


def joint_shape(a: tuple[int, ...], b: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The shape to which the rows of an argument and those of logits broadcast."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise ValueError(f"the rows of {name}, shape {a}, do not broadcast against those of logits, {b}") from None


def method(value: Any) -> None:
    """One of the two methods."""
    if not isinstance(value, str) or value not in METHODS:
        what = repr(value) if np.ndim(value) == 0 else f"an array ({type(value).__name__}): one serves all rows"
        raise ValueError(f'method must be "grouped" or "gumbel_max", got {what}')


def on_invalid(value: str | None) -> bool:
    """Whether invalid rows raise: None means "raise" on the CPU."""
    if not (value is None or (isinstance(value, str) and value in ("raise", "flag"))):
        raise ValueError(f'on_invalid must be "raise", "flag" or None, got {value!r}')
    return value != "flag"


def out(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> np.ndarray[Any, Any]:
    """An output array of exactly this shape and dtype, writable."""
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name} has dtype {value.dtype}, expected {dtype}")
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}, expected {shape}")
    if not value.flags.writeable:
        raise ValueError(f"{name} is read-only")
    if not value.flags.c_contiguous and _overlaps_itself(value):
        raise ValueError(f"{name} has elements in one place, as of a broadcast array: it cannot be written")
    return value


def outs_apart(outs: Iterable[Any], name: str = "out") -> None:
    """No two output arrays of one call share memory."""
    given = [each for each in outs if each is not None]
    for i, one in enumerate(given):
        for other in given[:i]:
            if one.size and other.size and np.may_share_memory(one, other) and np.shares_memory(one, other):
                raise ValueError(f"two arrays of {name} share memory: each result needs its own")


def _overlaps_itself(array: np.ndarray[Any, Any]) -> bool:
    extent, exact = array.itemsize, True
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride == 0:
            return True
        exact = exact and stride >= extent
        extent += (length - 1) * stride
    if exact or not array.size:
        return False
    # axes are interleaved: whether elements meet shows where all of them are
    places: Any = 0
    for stride, length in zip(array.strides, array.shape, strict=True):
        places = np.add.outer(places, stride * np.arange(length))
    places = np.sort(places, axis=None)
    return bool((np.diff(places) < array.itemsize).any())


def size(value: Any) -> tuple[int, ...]:
    """A shape: one integer or a sequence of them."""
    if isinstance(value, (str, bytes, bytearray, set, frozenset, dict)):
        raise TypeError(f"size must be an integer or a tuple of integers, got {value!r}")
    try:
        entries = tuple(value) if np.iterable(value) else (value,)
        shape = tuple(operator.index(entry) for entry in entries)
    except TypeError:
        raise TypeError(f"size must be an integer or a tuple of integers, got {value!r}") from None
    if any(entry < 0 for entry in shape):
        raise ValueError(f"size must not be negative, got {value!r}")
    if shape and shape[-1] > MAX_COLUMNS:
        raise ValueError(f"size has {shape[-1]} columns; at most 2^34 are possible")
    return shape


def like(value: Any) -> None:
    """An array, or None."""
    if value is not None and (isinstance(value, type) or not any(hasattr(value, name) for name in _ARRAYS)):
        raise TypeError(f"like must be an array whose device is used, got {value!r}")


_ARRAYS = ("__array_interface__", "__cuda_array_interface__", "__cuda_ndarray__", "__dlpack__", "__array__")


def loc_and_scale(loc: Any, scale: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Loc and scale as float64 arrays, scale not negative."""
    arrays = []
    for name, value in (("loc", loc), ("scale", scale)):
        array = plain(value, name)
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            array = _reals(array, name)
        arrays.append(array)
    if arrays[1].size and not arrays[1].min() >= 0:
        raise ValueError("scale must not be negative or NaN")
    return arrays[0], arrays[1]


def gumbel_shape(wanted: Any, natural: tuple[int, ...], out: Any) -> tuple[int, ...]:
    """The output shape of `gumbel`: size, or that of out, or the broadcast shape of loc and scale."""
    if wanted is not None:
        shape = size(wanted)
    elif isinstance(out, np.ndarray):
        shape = out.shape
    else:
        shape = natural
    try:
        fits = np.broadcast_shapes(shape, natural) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"loc and scale of joint shape {natural} do not broadcast to size {shape}")
    return shape


def uint64(value: Any, name: str) -> int:
    """An integer in 0 .. 2^64 - 1."""
    try:
        number = operator.index(value)
    except TypeError:
        way = ": numbel.default_rng takes other seeds" if name == "seed" else ""
        raise TypeError(f"{name} must be an integer, got {value!r}{way}") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{name} must be in 0 .. 2^64 - 1, got {number}")
    return number


def cotangent(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A cotangent of the shape of y, in its dtype."""
    array = plain(value, "cotangent")
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"cotangent must hold real numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"cotangent has shape {array.shape}, expected {shape}, that of y")
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False)


def apart(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`source`, or a copy where writing `target` element by element would change what is yet to be read."""
    if not np.may_share_memory(source, target) or _same_place(source, target):
        return source
    return source.copy()


def _same_place(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0] and a.strides == b.strides


def index(value: Any, array: np.ndarray[Any, Any], row_mask: np.ndarray[Any, Any] | None, raises: bool) -> Any:
    """Categories as contiguous int64, one for each row of `array`."""
    flat = host_index(value, array.shape[:-1])
    outside = (flat < 0) | (flat >= array.shape[-1])
    if row_mask is not None:
        outside &= row_mask
    if raises and outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"index row {row} is {flat[row]}, outside 0 .. {array.shape[-1] - 1}")
    return flat


def trials(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Numbers of trials as contiguous int64 in 0 .. 2^62, one for each row."""
    if isinstance(value, int) and not 0 <= value <= 1 << 62:
        raise ValueError(f"n is {value}, outside 0 .. 2^62")
    array = _integers(value, "n")
    try:
        spread = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"n of shape {array.shape} does not broadcast to the rows' shape {shape}") from None
    bad = (array < 0) | (array > 1 << 62)
    if bad.any():
        where = f"n row {int(np.argmax(np.broadcast_to(bad, shape)))} is" if array.ndim else "n is"
        raise ValueError(f"{where} {array.reshape(-1)[int(np.argmax(bad))]}, outside 0 .. 2^62")
    return np.ascontiguousarray(spread, dtype=np.int64).reshape(-1)


def one_row(value: Any) -> np.ndarray[Any, Any]:
    """Logits of a single row."""
    array = logits(value, -1)
    if array.ndim != 1:
        raise ValueError(f"logits has shape {array.shape}, expected one row, (n,)")
    return array


def indices(value: Any, shape: tuple[int, ...], raises: bool) -> np.ndarray[Any, Any]:
    """Categories as contiguous int64, one or several for each row of an array of this shape, the categories last."""
    given = _integers(value, "index")
    index_shape(given.shape, shape)
    rows = shape[:-1]
    outside = (given < 0) | (given >= shape[-1])
    if raises and outside.any():
        at = np.unravel_index(int(np.argmax(outside)), given.shape)
        row = int(np.ravel_multi_index(at[: len(rows)], rows)) if rows else 0
        raise ValueError(f"index row {row} is {given[at]}, outside 0 .. {shape[-1] - 1}")
    return _int64(given)


def index_shape(given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """The shape of one or several categories for each row of an array of this shape, the categories last."""
    rows = shape[:-1]
    if given[: len(rows)] != rows or len(given) > len(shape):
        raise ValueError(f"index has shape {given}, expected {rows}, the shape of the rows, or one axis more")


def invalid_condition(array: np.ndarray[Any, Any], index: np.ndarray[Any, Any], row: int) -> NoReturn:
    """Name what is wrong with a row of an array whose last axis is the categories, or with the index given for it."""
    values = array[np.unravel_index(row, array.shape[:-1])] if array.ndim > 1 else array
    with np.errstate(invalid="ignore"):
        largest = float(values.max())
    if -math.inf < largest < math.inf:  # so there is no NaN
        at = int(index[row])
        if values[at] == -math.inf:
            raise ValueError(f"index row {row} is {at}, a category of probability 0")
    invalid_row(array, row)


def overwritten_row(row: int) -> NoReturn:
    """As `invalid_row`, where the output has replaced the logits."""
    raise ValueError(f"logits row {row} held NaN or +inf, or had no possible category")


def too_few_categories(array: np.ndarray[Any, Any], row: int, k: int) -> NoReturn:
    """As `invalid_row`, where k possible categories are needed."""
    values = array[np.unravel_index(row, array.shape[:-1])] if array.ndim > 1 else array
    with np.errstate(invalid="ignore"):
        possible, largest = int(np.count_nonzero(values > -math.inf)), float(values.max())
    if 0 < possible < k and largest < math.inf:  # so there is no NaN
        raise ValueError(f"logits row {row} has {possible} possible categories, fewer than k = {k}")
    invalid_row(array, row)


def invalid_row(array: np.ndarray[Any, Any], row: int, first: int = 0, number: int | None = None) -> NoReturn:
    """Name what is wrong with a row of an array whose last axis is the categories, from column `first` on.

    `number` is the row's where the array holds some of all rows.
    """
    number = row if number is None else number
    values = array[np.unravel_index(row, array.shape[:-1])] if array.ndim > 1 else array
    step, possible = 1 << 18, False
    for start in range(0, values.shape[0], step):
        chunk = values[start : start + step].astype(np.float64)
        possible = possible or bool((chunk > -math.inf).any())
        bad = np.flatnonzero(np.isnan(chunk) | (chunk == math.inf))
        if bad.size:
            what = "NaN" if math.isnan(chunk[bad[0]]) else "+inf"
            raise ValueError(f"logits row {number} holds {what} at column {first + start + bad[0]}")
    if possible:
        raise ValueError(f"logits row {number} overflows when it is divided by its temperature: the limit is 2^1023")
    raise ValueError(f"logits row {number} has no possible category")


def invalid_device_row(values: np.ndarray[Any, Any], row: int) -> NoReturn:
    """Name what is wrong with a row, of which these are the values, or with what else it was given."""
    if np.any(values > -math.inf) and np.all(values < math.inf):
        raise ValueError(f"row {row} has a temperature, a row id, an index or an n out of range, or overflows")
    invalid_row(values, row)
