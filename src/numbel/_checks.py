"""Every check on user input, and its message. Nothing below this layer raises."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any, NoReturn

import numpy as np

from ._scalar.address import MAX_COLUMNS, MAX_ROW_ID, MAX_SAMPLES

_FLOATS = {"float16", "bfloat16", "float32", "float64"}
METHODS = ("grouped", "gumbel_max")


def float_dtype(dtype: Any, what: str = "") -> np.dtype[Any]:
    """One of the four float dtypes in native byte order, or TypeError."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        if isinstance(dtype, str) and dtype == "bfloat16":
            raise TypeError('dtype "bfloat16" needs the package ml_dtypes: pip install "numbel[bf16]"') from error
        raise
    if not _supported(found):
        name = found.str if not found.isnative else found
        raise TypeError(f"Expected float16, bfloat16, float32 or float64, got {name}{what}")
    return found


@functools.lru_cache(maxsize=64)
def _supported(dtype: np.dtype[Any]) -> bool:
    return dtype.isnative and dtype.name in _FLOATS


def logits(value: Any, axis: int) -> np.ndarray[Any, Any]:
    """`value` as an array with the category axis last; a view where it is an array already."""
    if not isinstance(value, np.ndarray):
        value = _as_numpy(value, "logits")
    float_dtype(value.dtype)
    if value.ndim == 0:
        raise ValueError("logits is a scalar: expected at least one axis, the categories")
    if axis != -1:
        axis = operator.index(axis)
        if not -value.ndim <= axis < value.ndim:
            raise np.exceptions.AxisError(axis, value.ndim)
        value = np.moveaxis(value, axis, -1)
    array: np.ndarray[Any, Any] = value
    columns = array.shape[-1]
    if columns == 0:
        raise ValueError(f"logits has zero categories along axis {axis}: there is nothing to draw")
    if columns > MAX_COLUMNS:
        raise ValueError(f"logits has {columns} categories along axis {axis}; at most 2^34 are possible")
    return array


def _as_numpy(value: Any, name: str) -> np.ndarray[Any, Any]:
    if hasattr(value, "__cuda_array_interface__"):
        raise TypeError(
            f"{name} lives on a CUDA device, which this version of numbel does not reach yet: copy it to the host first"
        )
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} is a tensor that requires a gradient, which NumPy methods would drop: "
            "use numbel.torch, or pass its .detach()"
        )
    if type(value).__module__.partition(".")[0] == "dask":
        raise TypeError(f"{name} is a Dask array: use numbel.dask, or pass its .compute()")
    return np.asarray(value)


def host_array(value: Any, name: str) -> None:
    """TypeError unless `value` (of `like=`) is something on the host."""
    if not isinstance(value, np.ndarray):
        _as_numpy(value, name)


def temperature(value: Any, shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], bool]:
    """Temperatures as contiguous float64, and whether there is one for each row."""
    if not isinstance(value, (float, int)):
        array = np.asarray(value)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise TypeError(f"temperature must hold real numbers, got {array.dtype}")
        if array.ndim > 0:
            return _row_temperatures(array, shape), True
    scalar = float(value)
    if scalar == 0:
        raise ValueError("temperature is 0: use argmax (0 is possible only inside a per-row array)")
    if not 0 < scalar < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {value}")
    return np.array([scalar]), False


def _row_temperatures(array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    try:
        spread = np.broadcast_to(array.astype(np.float64, copy=False), shape)
    except ValueError:
        raise ValueError(f"temperature of shape {array.shape} does not broadcast to the rows' shape {shape}") from None
    flat = np.ascontiguousarray(spread).reshape(-1)
    if flat.size and not (flat.min() >= 0 and flat.max() < math.inf):
        row = int(np.argmin((flat >= 0) & (flat < math.inf)))
        raise ValueError(f"temperature row {row} is {flat[row]}; it must be non-negative and finite")
    return flat


def row_ids(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Row ids as contiguous int64 in 0 .. 2^56 - 1, one for each row."""
    array = np.asarray(value)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"row_ids must hold integers, got {array.dtype}")
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
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"row_mask must hold bool, got {array.dtype}")
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
        raise TypeError(f"num_samples must be an integer or None, got {value!r}") from None
    if not 0 <= count <= MAX_SAMPLES:
        raise ValueError(f"num_samples must be in 0 .. 2^32, got {count}")
    return count


def method(value: Any) -> None:
    """One of the two methods."""
    if value not in METHODS:
        raise ValueError(f'method must be "grouped" or "gumbel_max", got {value!r}')


def on_invalid(value: str | None) -> bool:
    """Whether invalid rows raise: None means "raise" on the CPU."""
    if value not in (None, "raise", "flag"):
        raise ValueError(f'on_invalid must be "raise", "flag" or None, got {value!r}')
    return value != "flag"


def out(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> np.ndarray[Any, Any]:
    """An output array of exactly this shape and dtype, writable."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name} has dtype {value.dtype}, expected {dtype}")
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}, expected {shape}")
    if not value.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return value


def size(value: Any) -> tuple[int, ...]:
    """A shape: one integer or a sequence of them."""
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


def loc_and_scale(loc: Any, scale: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Loc and scale as float64 arrays, scale not negative."""
    arrays = []
    for name, value in (("loc", loc), ("scale", scale)):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
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
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{name} must be in 0 .. 2^64 - 1, got {number}")
    return number


def invalid_row(array: np.ndarray[Any, Any], row: int) -> NoReturn:
    """Name what is wrong with a row of an array whose last axis is the categories."""
    values = array[np.unravel_index(row, array.shape[:-1])] if array.ndim > 1 else array
    step = 1 << 18
    for start in range(0, values.shape[0], step):
        chunk = values[start : start + step].astype(np.float64)
        bad = np.flatnonzero(np.isnan(chunk) | (chunk == math.inf))
        if bad.size:
            what = "NaN" if math.isnan(chunk[bad[0]]) else "+inf"
            raise ValueError(f"logits row {row} holds {what} at column {start + bad[0]}")
    raise ValueError(f"logits row {row} has no possible category")
