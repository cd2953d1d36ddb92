"""Errors in ulp and counts in the tails: of fixed seeds, so that they move only when the bits do."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .common import ABSENT, absent

Array = np.ndarray[Any, Any]
_FUNCTIONS = ("exp", "log", "log1p")
_DTYPES = ("float32", "float64")
#: Gumbel noise beyond what has probability 2^-k, above and below.
TAILS = (4, 8, 12, 16, 20, 24)
VALUES = 1 << 28


def _ulp(found: Array, exact: Array, floor: float = 0.0) -> float:
    """Largest error in ulp of max(|exact|, floor)."""
    size = np.maximum(np.abs(exact), floor).astype(found.dtype)
    return float(np.max(np.abs(found - exact) / np.spacing(size).astype(np.longdouble)))


def _arguments(name: str, dtype: str) -> Array:
    rng = np.random.default_rng(17)
    if name == "exp":
        return rng.uniform(-80, 80, 1 << 22).astype(dtype)
    x = np.exp(rng.uniform(-40, 40, 1 << 21)).astype(dtype)
    near_one = (1 + rng.uniform(-0.5, 1, 1 << 21)).astype(dtype)
    return np.concatenate([x, near_one if name == "log" else near_one - np.dtype(dtype).type(1)])


def elementary_error(name: str, dtype: str) -> float:
    """Largest error of an elementary function in ulp, over 2^22 arguments."""
    if dtype == "float64" and np.finfo(np.longdouble).eps > 2e-19:
        raise NotImplementedError("needs a long double wider than double")
    from numbel._scalar import elementary

    function = getattr(elementary, f"{name}_{dtype}")

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def loop(x: Array, out: Array) -> None:
        for i in range(x.size):
            out[i] = function(x[i])

    x = _arguments(name, dtype)
    out = np.empty_like(x)
    loop(x, out)
    return _ulp(out, getattr(np, name)(x.astype(np.float64 if dtype == "float32" else np.longdouble)))


def noise_error() -> float:
    """Largest distance of float32 noise from the float64 noise of its draw, in ulp of max(|G|, 1)."""
    import numbel

    double = numbel.Generator(17).gumbel(size=1 << 22, dtype=np.float64)
    return _ulp(numbel.Generator(17).gumbel(size=1 << 22), double, 1.0)


def sample_errors() -> dict[str, float]:
    """Largest errors of log_prob and logsumexp of float32 rows in ulp of max(|value|, 1)."""
    import numbel

    logits = 4 * np.random.default_rng(17).standard_normal((256, 1 << 14), dtype=np.float32)
    found = numbel.Generator(17).sample(logits)
    wide = logits.astype(np.longdouble)
    sums = np.log(np.exp(wide).sum(axis=1))
    chosen = wide[np.arange(len(wide)), found.indices] - sums
    return {"log_prob": _ulp(found.log_prob, chosen, 1.0), "logsumexp": _ulp(found.logsumexp, sums, 1.0)}


@functools.cache
def exceedances(values: int = VALUES) -> dict[str, tuple[int, float]]:
    """Float32 noise beyond thresholds in both tails: {tail: (how often, how often is due)}."""
    import numbel

    rng, chunk = numbel.Generator(17), np.empty(1 << 22, np.float32)
    above = [np.float32(-math.log(-math.log1p(-(2.0**-k)))) for k in TAILS]
    below = [np.float32(-math.log(k * math.log(2))) for k in TAILS]
    counts = np.zeros((2, len(TAILS)), np.int64)
    for _ in range(values // chunk.size):
        rng.gumbel(size=chunk.size, out=chunk)
        extreme = chunk[(chunk > above[0]) | (chunk < below[0])]
        counts[0] += [np.count_nonzero(extreme > t) for t in above]
        counts[1] += [np.count_nonzero(extreme < t) for t in below]
    # due at the rounded thresholds
    upper = [values * -math.expm1(-math.exp(-float(t))) for t in above]
    lower = [values * math.exp(-math.exp(-float(t))) for t in below]
    names = [f"{side} 2^-{k}" for side in ("above", "below") for k in TAILS]
    return dict(zip(names, zip(counts.ravel().tolist(), upper + lower, strict=True), strict=True))


def _or_absent(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ABSENT as error:
        raise absent(error, function.__name__) from error


class Elementary:
    """Largest errors of the functions that every kernel is built of."""

    timeout = 600
    version = "1"
    params = (_FUNCTIONS, _DTYPES)
    param_names = ("function", "dtype")

    def track_largest_error(self, function: str, dtype: str) -> float:
        return float(_or_absent(elementary_error, function, dtype))

    track_largest_error.unit = "ulp"  # type: ignore[attr-defined]


class Results:
    """Largest errors of what users get."""

    timeout = 600
    version = "1"

    def track_noise_error(self) -> float:
        return float(_or_absent(noise_error))

    def track_log_prob_error(self) -> float:
        return float(_or_absent(sample_errors)["log_prob"])

    def track_logsumexp_error(self) -> float:
        return float(_or_absent(sample_errors)["logsumexp"])

    track_noise_error.unit = "ulp of max(|value|, 1)"  # type: ignore[attr-defined]
    track_log_prob_error.unit = "ulp of max(|value|, 1)"  # type: ignore[attr-defined]
    track_logsumexp_error.unit = "ulp of max(|value|, 1)"  # type: ignore[attr-defined]


class Tails:
    """2^28 values of float32 noise beyond what has probability 2^-k: how far their number is from what is due."""

    timeout = 600
    version = "1"
    params = ([f"{side} 2^-{k}" for side in ("above", "below") for k in TAILS],)
    param_names = ("tail",)

    def track_distance_from_due(self, tail: str) -> float:
        found, due = _or_absent(exceedances)[tail]
        return float(abs(found - due) / math.sqrt(due))

    track_distance_from_due.unit = "standard deviations"  # type: ignore[attr-defined]
