"""CUDA kernels against the CPU's, bit for bit: plain functions, for the simulator (test_cuda.py) and for a GPU.

python tests/cuda_checks.py                                # on a GPU
NUMBA_ENABLE_CUDASIM=1 python tests/cuda_checks.py         # in the simulator
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from numba import config, cuda

import numbel
from numbel import _dispatch
from numbel._cuda import launch

DRAW = (7, 3)
#: (rows, columns): a lone column, short rows, one block and a bit, more blocks than the simulator has threads.
SHAPES = ((3, 1), (3, 7), (2, 4099), (1, 4 * 4096 + 5))
_SENTINEL = 1 << 62


def mend_simulator():
    """Let it switch threads often (its polling halts them for 5 ms each time), and mend what that breaks.

    Two threads that allocate a shared array at once would get one each; here they take turns.
    """
    import threading

    from numba.cuda.simulator import kernelapi
    from numba.np.numpy_support import as_dtype

    lock = threading.Lock()

    def array(self, shape, dtype, alignment=None):
        frame = sys._getframe(1)
        caller = frame.f_code.co_filename, frame.f_lineno
        with lock:
            return self._allocations.setdefault(caller, np.empty(shape, as_dtype(dtype)))

    kernelapi.FakeCUDAShared.array = array
    sys.setswitchinterval(1e-5)


if config.ENABLE_CUDASIM:
    mend_simulator()


def half(array):
    return array.view(np.uint16) if array.dtype.itemsize == 2 else array


def device(array):
    return cuda.to_device(half(np.ascontiguousarray(array)))


def logits(shape, dtype, seed=0):
    """Spread rows; where there are three, one impossible, and one of nothing but an outlier."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 3
    x.reshape(-1)[::11] = -np.inf
    x[0, 0] = 1.0
    if len(x) >= 3:
        x[1] = -np.inf
        x[2] = [*x[2, :-1] - 400, 0.25]
    return x.astype(dtype)


def rows(name, count, temperature=1.0, ids=None, mask=None):
    none = np.empty(0, np.uint64)
    return launch.Rows(
        name,
        0,
        device(np.atleast_1d(np.asarray(temperature, np.float64))),
        device(none if ids is None else np.asarray(ids, np.uint64)),
        device(np.empty(0, np.uint8) if mask is None else np.asarray(mask, np.uint8)),
    )


def same(found, expected, what):
    """Bit for bit, but for the bits of a NaN."""
    expected = np.asarray(expected)
    found = np.asarray(found).view(expected.dtype).reshape(expected.shape)
    bits = f"u{expected.itemsize}"
    equal = (found.view(bits) == expected.view(bits)) | ((found != found) & (expected != expected))
    assert np.all(equal), f"{what}: {np.count_nonzero(~equal)} of {equal.size} differ"


def check_noise(dtype, shape):
    out = device(np.zeros(shape, dtype))
    for loc, scale in ((0.0, 1.0), (-1.5, 0.7)):
        launch.gumbel(np.dtype(dtype).name, out, 0, *DRAW, loc, scale, 0)
        expected = numbel.Generator(*DRAW).gumbel(loc, scale, size=shape, dtype=dtype)
        same(out.copy_to_host(), expected, f"noise {dtype} {shape}")


def check_categorical(dtype, shape, method, temperature=1.0, samples=2, **options):
    x = logits(shape, dtype)
    wide = np.float64 if np.dtype(dtype) == np.float64 else np.float32
    outputs = [device(np.zeros((shape[0], samples), kind).reshape(-1)) for kind in (np.int64, wide)]
    outputs.append(device(np.zeros(shape[0], wide)))
    bad = device(np.array([_SENTINEL]))
    given = rows(x.dtype.name, shape[0], temperature, options.get("row_ids"), options.get("row_mask"))
    launch.categorical(device(x), given, method, *DRAW, samples, tuple(outputs), bad)
    what = f"{method} {dtype} {shape} T={temperature}"
    expected = numbel.Generator(*DRAW).sample(
        x, samples, temperature=temperature, method=method, on_invalid="flag", **options
    )
    for found, due, part in zip(outputs, expected, expected._fields, strict=True):
        same(found.copy_to_host(), due, f"{what} {part}")
    wanted = np.broadcast_to(options.get("row_mask", True), shape[:1])
    invalid = np.flatnonzero((expected.indices[:, 0] < 0) & wanted)
    assert bad.copy_to_host()[0] == (invalid[0] if invalid.size else _SENTINEL), what


def check_relaxed(dtype, shape, temperature=1.0, noisy=True, aliased=False, **options):
    x = logits(shape, dtype)
    given = rows(x.dtype.name, shape[0], temperature, options.get("row_ids"), options.get("row_mask"))
    source = device(x)
    out = source if aliased else device(np.zeros(shape, dtype))
    bad = device(np.array([_SENTINEL]))
    launch.relaxed(source, given, DRAW if noisy else None, out, bad, aliased)
    expected = np.empty(shape, dtype)
    temperatures = np.atleast_1d(np.asarray(temperature, np.float64))
    ids, mask = options.get("row_ids"), options.get("row_mask")
    first = _dispatch.relaxed(
        x, temperatures, temperatures.size > 1, None if ids is None else np.asarray(ids, np.int64),
        None if mask is None else np.asarray(mask, np.bool_), DRAW if noisy else None, expected,
    )  # fmt: skip
    what = f"relaxed {dtype} {shape} T={temperature} noisy={noisy} aliased={aliased}"
    same(out.copy_to_host(), expected, what)
    assert bad.copy_to_host()[0] == (_SENTINEL if first is None else first), what


def check_vjp(dtype, shape, temperature=0.7):
    y = numbel.Generator(*DRAW).gumbel_softmax(logits(shape, dtype), temperature, on_invalid="flag")
    u = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    given, out = rows(y.dtype.name, shape[0], temperature), device(np.zeros(shape, dtype))
    slopes = device(np.zeros(shape[0]))
    launch.vjp(device(y), device(u), given, out, slopes)
    expected = np.empty(shape, dtype)
    due = np.empty(shape[0])
    temperatures = np.atleast_1d(np.asarray(temperature, np.float64))
    _dispatch.vjp(y, u, temperatures, temperatures.size > 1, expected, due)
    same(out.copy_to_host(), expected, f"vjp {dtype} {shape}")
    same(slopes.copy_to_host(), due, f"vjp in temperature {dtype} {shape}")


def check_conditional(dtype, shape, temperature=0.7):
    x = logits(shape, dtype)
    index = np.argmax(x.astype(np.float64), -1)
    given = rows(x.dtype.name, shape[0], temperature)
    none = device(np.empty(0))
    sums, bad = device(np.zeros(shape[0])), device(np.array([_SENTINEL]))
    found = device(np.zeros(shape[0], np.int64))
    launch.categorical(device(x), given, "grouped", *DRAW, 1, (found, none, sums), device(np.array([_SENTINEL])))
    out = device(np.zeros(shape, dtype))
    launch.conditional(device(x), given, device(index), sums, DRAW, out, bad)
    expected = numbel.Generator(*DRAW).conditional_gumbel(x, index, temperature=temperature, on_invalid="flag")
    same(out.copy_to_host(), expected, f"conditional {dtype} {shape}")


def check_strides():
    """One CUDA block for everything, and the winners of one item at a time."""
    kept = launch._GRID, launch._WINNERS
    launch._GRID = launch._WINNERS = 1
    try:
        for shape in ((3, 7), (2, 4099)):
            check_noise(np.float32, shape)
            check_categorical(np.float32, shape, "grouped", samples=3)
            check_categorical(np.float32, shape, "gumbel_max", samples=3)
            check_relaxed(np.float32, shape)
            check_vjp(np.float32, shape)
            check_conditional(np.float32, shape)
        for method in ("grouped", "gumbel_max"):
            check_categorical(np.float32, (3, 50), method, [0.0, 1.0, 0.0])
    finally:
        launch._GRID, launch._WINNERS = kept


def check_parts():
    """Rows from the second on, every other column: a strided part of a call."""
    full = logits((4, 14), np.float32)
    x, part = full[:, ::2], device(full)[1:, ::2]
    temperature = [9.0, 0.5, 1.0, 2.0]
    given = rows("float32", 4, temperature)._replace(first_row=1)
    for method in ("grouped", "gumbel_max"):
        outputs = [device(np.zeros(4, kind)) for kind in (np.int64, np.float32, np.float32)]
        launch.categorical(part, given, method, *DRAW, 1, tuple(outputs), device(np.array([_SENTINEL])))
        expected = numbel.Generator(*DRAW).sample(x, temperature=temperature, method=method, on_invalid="flag")
        for found, due, name in zip(outputs, expected, expected._fields, strict=True):
            same(found.copy_to_host()[1:], due[1:], f"part of {method} {name}")
    out = device(np.zeros(full.shape, np.float32))
    launch.relaxed(part, given, DRAW, out[1:, ::2], device(np.array([_SENTINEL])))
    expected = numbel.Generator(*DRAW).gumbel_softmax(x, temperature, on_invalid="flag")
    same(np.ascontiguousarray(out.copy_to_host()[1:, ::2]), expected[1:], "part of relaxed")
    assert not out.copy_to_host()[0].any()
    assert not out.copy_to_host()[:, 1::2].any()


def main():
    import ml_dtypes

    formats = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
    shapes = SHAPES if config.ENABLE_CUDASIM else (*SHAPES, (1000, 1000), (40, 300_000), (1, 129 * 4096 * 8))
    for dtype in formats:
        for shape in shapes:
            small = shape[0] * shape[1] < 1000 or not config.ENABLE_CUDASIM
            if small or np.dtype(dtype) == np.float32:
                check_noise(dtype, shape)
                check_categorical(dtype, shape, "grouped")
                check_categorical(dtype, shape, "gumbel_max")
                check_relaxed(dtype, shape)
                check_vjp(dtype, shape)
                check_conditional(dtype, shape)
        three = {"row_ids": [2**56 - 1, 5, 2**33], "row_mask": [True, True, False]}
        for method in ("grouped", "gumbel_max"):
            check_categorical(dtype, (3, 7), method, [0.5, 0.0, 2.0])
            check_categorical(dtype, (3, 300), method, 0.05, 3, **three)
            check_categorical(dtype, (3, 50), method, [0.0, 1.0, 0.0])
        check_relaxed(dtype, (3, 300), 0.05, **three)
        check_relaxed(dtype, (3, 20), [1e-3, 0.0, 1e3])
        check_relaxed(dtype, (3, 600), noisy=False)
        check_relaxed(dtype, (3, 600), 0.3, aliased=True)
        check_vjp(dtype, (3, 20), [0.5, 1e-3, 1e3])
        if dtype is np.float32:
            check_strides()
            check_parts()
        print(np.dtype(dtype).name, "equal", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        if config.ENABLE_CUDASIM:  # it computes with NumPy scalars, which warn where machine arithmetic wraps
            warnings.simplefilter("ignore")
        main()
    sys.exit(0)
