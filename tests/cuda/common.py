"""What all checks of device arrays share: their register, logits, and how results are compared.

The same checks run on three backends, which `run.py` chooses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

import numbel
from backend import BACKENDS, SIMULATED
from numbel._device.libraries import Library

FORMATS = ("float32", "float64", "float16", "bfloat16")
#: The formats of arithmetic. Halves differ from float32 in what loads and stores an element, which a part shows.
WIDE = FORMATS[:2]
SEED, DRAW = 7, 3


class Check(NamedTuple):
    """A check, the formats that it takes, and the backends that it runs on."""

    function: Callable[..., None]
    formats: tuple[str, ...]
    backends: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{self.function.__name__}"

    def run(self, dtype: Any) -> None:
        self.function(*([dtype] if inspect.signature(self.function).parameters else []))


CHECKS: list[Check] = []


def check(
    function: Any = None, *, formats: tuple[str, ...] = FORMATS, backends: tuple[str, ...] = BACKENDS
) -> Callable[..., None]:
    """Register a check: of a dtype, or of float32 if it takes none."""
    if function is None:
        return lambda function: check(function, formats=formats, backends=backends)
    takes = bool(inspect.signature(function).parameters)
    CHECKS.append(Check(function, formats if takes else ("float32",), backends))
    return function


def rng():
    return numbel.Generator(SEED, DRAW)


def logits(shape, dtype, seed=0):
    """Spread rows; where there are three, one impossible, and one of nothing but an outlier."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 3
    x.reshape(-1)[::11] = -np.inf
    x.reshape(-1)[0] = 1.0
    if len(x) >= 3:
        x[1] = -np.inf
        x[2] = [*x[2, :-1] - 400, 0.25]
    return x.astype(dtype)


def same(found, expected, what):
    """Bit for bit, but for the bits of a NaN."""
    expected, found = np.asarray(expected), found.copy_to_host()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    bits = f"u{expected.itemsize}"
    equal = (found.view(bits) == expected.view(bits)) | ((found != found) & (expected != expected))
    assert np.all(equal), f"{what}: {np.count_nonzero(~equal)} of {equal.size} differ"


def cheap(x):
    """Whether to check an array in more than one way: the simulator does a million columns an hour."""
    return x.size < 60 or not SIMULATED


def on_device(x):
    """The same strides on the device, as far as a base array has them."""
    if x.base is None or x.flags.c_contiguous:
        return to_device(np.ascontiguousarray(x))
    order = np.argsort([-step for step in x.strides], kind="stable")
    return transposed(to_device(np.ascontiguousarray(x.transpose(order))), np.argsort(order))


def to_device(x):
    """A contiguous copy on the device. numba-cuda copies no bfloat16, whose bits go instead."""
    if x.dtype.name != "bfloat16" or SIMULATED:
        return cuda.to_device(x)
    return view(cuda.to_device(x.view(np.uint16)), x.shape, x.strides, x.dtype)


def view(array, shape, strides, dtype=None):
    """Another view of a device array's memory."""
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    return DeviceNDArray(shape, strides, dtype or array.dtype, gpu_data=array.gpu_data)


def as_given(array):
    """An array of Numba's as kernels are given it."""
    span = Library(array, None).span(array, "array")
    return span.view(0, span.shape, span.strides)


def transposed(array, axes):
    """A view with other axes: numba-cuda has none in three, and copies by a kernel of its own in two."""
    if SIMULATED:
        return array.transpose(axes)
    return view(array, tuple(array.shape[a] for a in axes), tuple(array.strides[a] for a in axes))


def raised(call):
    try:
        call()
    except (TypeError, ValueError, NotImplementedError) as error:
        return str(error)
    raise AssertionError("nothing was raised")
