"""Golden values: sha256 of the bytes of samples and noise, and a few of the values in the clear.

`python -m tests.make_golden` from the root rewrites `tests/golden/cpu.json`; do so only together with a
change of `numbel.BITS_VERSION` (as long as that is 0, with the reason in the change log).
`python tests/make_golden.py GROUP ...` prints the same for the groups named, without writing.

Inputs are made by integer arithmetic and exactly rounded conversions alone: no library's exp or log
may decide what is compared.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import numbel

FILE = Path(__file__).parent / "golden" / "cpu.json"
SEED, DRAW = 20240607, 3
_TEMPERATURES = (1.0, 0.05, 30.0)
_SHAPES = ((7, 3), (5, 64), (5, 65), (5, 1000), (3, 4096), (2, 4097), (1, 300_000))
#: What the subprocesses of `test_bits.py` recompute: few kernels, since each must be compiled for them.
SIMD_GROUPS = (
    "noise_float32", "grouped_float32", "gumbel_max_float32", "relaxed_float32", "vjp_float32", "densities_float32",
    "table_float32", "counts_float32", "truncated_float32",
)  # fmt: skip
_RELAXED_SHAPES = ((7, 3), (5, 64), (40, 128), (5, 129), (2, 4097), (1, 300_000))


def dtypes() -> dict[str, np.dtype]:
    """The four dtypes; without ml_dtypes there are three."""
    found = {name: np.dtype(name) for name in ("float16", "float32", "float64")}
    try:
        import ml_dtypes
    except ImportError:
        return found
    return found | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


def logits(shape: tuple[int, ...], dtype: np.dtype, *, spread: float = 16.0) -> np.ndarray:
    """Multiples of spread / 2^16 in -spread .. 0, some of them -inf, the same on every machine."""
    i = np.arange(np.prod(shape), dtype=np.uint64)
    word = ((i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)
    values = word.astype(np.float64) * (spread / 65536.0) - spread
    values[word % np.uint64(11) == 5] = -np.inf
    values[i % np.uint64(shape[-1]) == 0] = 0.5 * -spread  # no row is empty
    return values.astype(dtype).reshape(shape)


def _hash(*arrays: object) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        kept = np.ascontiguousarray(array)
        digest.update(f"{kept.dtype.name}{kept.shape}".encode())
        digest.update(kept.tobytes())
    return digest.hexdigest()


def _noise(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for shape in ((), (3, 5), (2, 127), (2, 128), (2, 3, 2049), (70_001,)):
        noise = numbel.Generator(SEED, DRAW).gumbel(size=shape, dtype=dtype)
        found[f"{shape}"] = _hash(noise)
    found["loc 2, scale 0.25"] = _hash(numbel.Generator(SEED, DRAW).gumbel(2.0, 0.25, size=(2, 300), dtype=dtype))
    found["values"] = [float(g) for g in numbel.Generator(SEED, DRAW).gumbel(size=4, dtype=dtype)]
    return found


def _samples(dtype: np.dtype, method: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for shape in _SHAPES:
        for temperature in _TEMPERATURES:
            for num_samples in (None, 3):
                sample = numbel.Generator(SEED, DRAW).sample(
                    logits(shape, dtype), num_samples, temperature=temperature, method=method
                )
                found[f"{shape}, T {temperature}, {num_samples} samples"] = _hash(*sample)
    far = logits((4, 4200), dtype, spread=60_000.0 if dtype == np.float16 else 1e30)
    found["far"] = _hash(*numbel.Generator(SEED, DRAW).sample(far, method=method))
    temperatures = np.array([0.0, 0.001, 1.0, 1000.0])
    found["per row"] = _hash(
        *numbel.Generator(SEED, DRAW).sample(
            logits((4, 4200), dtype), temperature=temperatures, row_ids=[9, 1 << 40, 7, (1 << 56) - 1], method=method
        )
    )
    sample = numbel.Generator(SEED, DRAW).sample(logits((5, 64), dtype), method=method)
    found["values"] = [[float(x) for x in part] for part in sample]
    return found


def _truncated(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    settings: tuple[dict[str, object], ...] = (
        {"top_k": 2}, {"top_k": 60}, {"top_p": 0.9}, {"min_p": 0.01}, {"top_k": 40, "top_p": 0.7, "min_p": 0.1}
    )  # fmt: skip
    for shape in ((7, 3), (5, 65), (2, 4097), (1, 300_000)):
        for setting in settings:
            for method in ("grouped", "gumbel_max"):
                for spread in (16.0, 0.5):
                    sample = numbel.Generator(SEED, DRAW).sample(
                        logits(shape, dtype, spread=spread), 2, method=method, **setting
                    )
                    found[f"{shape}, {setting}, {method}, {spread}"] = _hash(*sample)
    far = logits((4, 4200), dtype, spread=60_000.0 if dtype == np.float16 else 1e30)
    found["far"] = _hash(*numbel.Generator(SEED, DRAW).sample(far, top_p=0.5, top_k=100))
    found["per row"] = _hash(
        *numbel.Generator(SEED, DRAW).sample(
            logits((4, 4200), dtype),
            temperature=np.array([0.0, 0.1, 1.0, 1000.0]),
            top_k=[3, 4200, 4200, 100],
            top_p=[0.5, 0.9, 1.0, 0.7],
            row_ids=[9, 1 << 40, 7, (1 << 56) - 1],
        )
    )
    sample = numbel.Generator(SEED, DRAW).sample(logits((5, 64), dtype), top_p=0.8)
    found["values"] = [[float(x) for x in part] for part in sample]
    return found


def relaxed_cases(dtype: np.dtype) -> Iterator[tuple[str, np.ndarray, dict[str, object]]]:
    """Name, logits and options of relaxed samples of every kind: short rows, long ones, far logits, all options."""
    for shape in _RELAXED_SHAPES:
        for temperature in _TEMPERATURES:
            yield f"{shape}, T {temperature}", logits(shape, dtype), {"temperature": temperature}
    far = 60_000.0 if dtype == np.float16 else 1e30
    options = {"temperature": np.array([0.4, 0.001, 1.0, 1000.0]), "row_ids": [9, 1 << 40, 7, (1 << 56) - 1]}
    for columns in (64, 4200):
        yield f"far, {columns}", logits((4, columns), dtype, spread=far), {}
        yield f"per row, {columns}", logits((4, columns), dtype), options


def _relaxed(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, array, options in relaxed_cases(dtype):
        found[name] = _hash(numbel.Generator(SEED, DRAW).gumbel_softmax(array, **options))
    found["hard"] = _hash(numbel.Generator(SEED, DRAW).gumbel_softmax(logits((4, 4200), dtype), hard=True))
    found["values"] = [float(y) for y in numbel.Generator(SEED, DRAW).gumbel_softmax(logits((5,), dtype))]
    return found


def _conditional(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, array, options in relaxed_cases(dtype):
        index = np.argmax(array, -1)
        index[::2] = 0  # never impossible
        found[name] = _hash(numbel.Generator(SEED, DRAW).conditional_gumbel(array, index, **options))
    z = numbel.Generator(SEED, DRAW).conditional_gumbel(logits((5,), dtype), 0)
    found["values"] = [repr(float(value)) for value in z]
    return found


def cotangent(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Finite derivatives, the same on every machine."""
    values = logits(shape, dtype)
    values[values == -np.inf] = 3
    return values


def _vjp(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, array, options in relaxed_cases(dtype):
        y = numbel.Generator(SEED, DRAW).gumbel_softmax(array, **options)
        temperature = options.get("temperature", 1.0)
        found[name] = _hash(*numbel.gumbel_softmax_vjp(y, cotangent(y.shape, dtype), temperature))
    y = numbel.Generator(SEED, DRAW).gumbel_softmax(logits((5,), dtype))
    gradient, slope = numbel.gumbel_softmax_vjp(y, cotangent((5,), dtype), 1.0)
    found["values"] = [[float(value) for value in gradient], float(slope)]
    return found


def _densities(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, array, options in relaxed_cases(dtype):
        t = {"temperature": options.get("temperature", 1.0)}
        index = np.arange(3) * (array.shape[-1] // 3) + np.zeros((*array.shape[:-1], 1), np.int64)
        found[name] = _hash(
            numbel.entropy(array, **t), numbel.logsumexp(array, **t), numbel.log_prob(array, index, **t)
        )
    found["values"] = [float(numbel.entropy(logits((5,), dtype))), float(numbel.logsumexp(logits((5,), dtype)))]
    return found


def _tables(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for shape in ((7, 3), (5, 64), (3, 4096), (2, 5001), (1, 300_000)):
        for temperature in _TEMPERATURES:
            sample = numbel.Generator(SEED, DRAW).sample(logits(shape, dtype), 4000, temperature=temperature)
            found[f"{shape}, T {temperature}"] = _hash(*sample)
    table = numbel.CategoricalTable(logits((300_000,), dtype))
    found["table"] = _hash(table.sample(numbel.Generator(SEED, DRAW), (30, 1000)), table.logsumexp)
    found["values"] = table.sample(numbel.Generator(SEED, DRAW), 5).tolist()
    return found


def _counts(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for shape in ((7, 3), (5, 64), (3, 4096), (2, 5001), (1, 300_000)):
        for n in (5, 1000, 10**6, 1 << 40, 1 << 62):
            counts = numbel.Generator(SEED, DRAW).multinomial(n, logits(shape, dtype), temperature=0.7)
            found[f"{shape}, {n}"] = _hash(counts)
    found["values"] = numbel.Generator(SEED, DRAW).multinomial(1000, logits((5,), dtype)).tolist()
    return found


def _top_k(dtype: np.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, array, options in relaxed_cases(dtype):
        for k in (1, 2, 50):
            if k <= (array != -np.inf).sum(-1).min():
                chosen = numbel.Generator(SEED, DRAW).gumbel_top_k(array, k, **options)
                weights = numbel.top_k_weights(chosen, array, temperature=options.get("temperature", 1.0))
                found[f"{name}, k {k}"] = _hash(*chosen, weights)
    chosen = numbel.Generator(SEED, DRAW).gumbel_top_k(logits((5,), dtype), 2)
    found["values"] = [part.tolist() for part in chosen]
    return found


def groups() -> dict[str, Callable[[], dict[str, object]]]:
    """What each group of golden values is made by."""
    found: dict[str, Callable[[], dict[str, object]]] = {}
    for name, dtype in dtypes().items():
        found[f"noise_{name}"] = lambda dtype=dtype: _noise(dtype)
        for method in ("grouped", "gumbel_max"):
            found[f"{method}_{name}"] = lambda dtype=dtype, method=method: _samples(dtype, method)
        found[f"truncated_{name}"] = lambda dtype=dtype: _truncated(dtype)
        found[f"relaxed_{name}"] = lambda dtype=dtype: _relaxed(dtype)
        found[f"conditional_{name}"] = lambda dtype=dtype: _conditional(dtype)
        found[f"top_k_{name}"] = lambda dtype=dtype: _top_k(dtype)
        found[f"vjp_{name}"] = lambda dtype=dtype: _vjp(dtype)
        found[f"densities_{name}"] = lambda dtype=dtype: _densities(dtype)
        found[f"table_{name}"] = lambda dtype=dtype: _tables(dtype)
        found[f"counts_{name}"] = lambda dtype=dtype: _counts(dtype)
    found["spawn"] = lambda: {"seeds": [str(child.seed) for child in numbel.Generator(SEED, DRAW).spawn(5)]}
    return found


def compute(names: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """The golden values of these groups, made anew."""
    makers = groups()
    return {name: makers[name]() for name in names}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(compute(tuple(sys.argv[1:]))))
    else:
        FILE.parent.mkdir(exist_ok=True)
        everything = {"bits_version": numbel.BITS_VERSION, **compute(tuple(groups()))}
        FILE.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")
