"""Random calls against a slow oracle: any shape, layout, range of numbers and option, between guard pages.

By hand, from the project's root, for as long as there is time:

    python -m tests.fuzz --seconds 3600

A case follows from a dtype, a seed and its number alone. Each is written to a file before it runs, so that it is known
when the process dies of a guard page: `--log FILE`. What failed is printed with the line that runs it again:

    python -m tests.fuzz --dtype float32 --seed 0 --case 123

Cases that failed are kept in test_fuzz.py.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import math
import mmap
import sys
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import numbel
import oracle
from make_golden import dtypes

DTYPES = dtypes()
_PAGE = mmap.PAGESIZE
_FREE, _CLOSED = mmap.PROT_READ | mmap.PROT_WRITE, 0
_libc = ctypes.CDLL(None, use_errno=True) if hasattr(mmap, "PROT_READ") else None
LARGEST = 2.0**1023


# ------------------------------------------------------------------------------------------------------ guard pages


class Guarded:
    """Bytes between two pages that cannot be read or written."""

    def __init__(self, size, at_end):
        """`size` bytes that end (or begin) where such a page begins (or ends)."""
        pages = max(1, -(-size // _PAGE))
        self.map = mmap.mmap(-1, (pages + 2) * _PAGE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for page in (0, pages + 1):
            if _libc.mprotect(ctypes.c_void_p(self.base + page * _PAGE), _PAGE, _CLOSED):
                raise OSError(ctypes.get_errno(), "mprotect")
        start = (pages + 1) * _PAGE - size if at_end else _PAGE
        self.bytes = np.frombuffer(self.map, np.uint8, size, start)


def guarded(shape, dtype, strides, random):
    """An array of these strides (their signs too) whose first or last byte meets a guard page."""
    dtype = np.dtype(dtype)
    low = sum(min(0, stride * (n - 1)) for stride, n in zip(strides, shape, strict=True) if n)
    high = sum(max(0, stride * (n - 1)) for stride, n in zip(strides, shape, strict=True) if n)
    size = high - low + dtype.itemsize if math.prod(shape) else 0
    memory = Guarded(size, random.random() < 0.8)
    memory.bytes[:] = random.integers(0, 256, size, np.uint8)
    if not size:
        return np.empty(shape, dtype)
    # as_strided cannot start inside a buffer of bytes of another type
    raw = np.ndarray((size - dtype.itemsize + 1,), np.uint8, memory.bytes)
    return np.ndarray(shape, dtype, raw.base if raw.base is not None else raw, -low, strides)


def laid_out(values, random, writable=False):
    """The same values in a guarded array of any layout."""
    order = random.permutation(values.ndim) if random.random() < 0.4 else np.arange(values.ndim)
    step = values.itemsize
    if not writable and random.random() < 0.15:
        step += int(random.integers(1, 4))  # unaligned elements
    strides = [0] * values.ndim
    for axis in order[::-1]:
        if random.random() < 0.2:
            step *= int(random.integers(2, 4))
        strides[axis] = step * (-1 if random.random() < 0.15 else 1)
        step *= max(1, values.shape[axis])
    array = guarded(values.shape, values.dtype, strides, random)
    array[...] = values
    return array


# ------------------------------------------------------------------------------------------------------------ values


def _row(random, columns, dtype):
    """Logits of one row, float64, of any size."""
    most = float(_largest(dtype))
    kind = random.integers(0, 12)
    x = random.standard_normal(columns)
    if kind == 0:
        x *= 10.0 ** random.uniform(-3, 3)
    elif kind == 1:
        x = x * 10.0 ** random.uniform(-40, 37) + random.choice([0.0, 1.0, 1e6])
    elif kind == 2:  # near the dtype's largest number
        x = most * random.choice([1.0, -1.0, 0.5, 0.25], columns)
    elif kind == 3:
        x = most * random.uniform(-1, 1, columns)
    elif kind == 4:  # subnormal, and its neighbours
        x *= float(_smallest(dtype)) * 10.0 ** random.uniform(0, 4)
    elif kind == 5:
        x = np.full(columns, random.choice([0.0, -0.0, 3.0, -1e4, 1e17, -1e17, most, -most]))
    elif kind == 6:  # few values
        x = random.choice([0.0, -0.0, 1.0, -80.0, 1e9, 1e17], columns)
    elif kind == 7:  # one far above the others
        x[random.integers(0, columns)] += 10.0 ** random.uniform(0, 30)
    elif kind == 8:  # rounding of the noise: units of some power of two
        x = np.round(x * 4) * 2.0 ** random.integers(-10, 70)
    elif kind == 9:
        x = x * 2 + 10.0 ** random.uniform(0, 6)
    elif kind == 10 and dtype == np.float64:
        x *= 10.0 ** random.uniform(-320, 307)
    return np.clip(x, -most, most)


def _largest(dtype):
    return _info(dtype).max


def _smallest(dtype):
    return _info(dtype).smallest_subnormal


def _info(dtype):
    if dtype.kind == "f":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def _logits(random, rows, columns, dtype):
    x = np.empty((rows, columns))
    for row in range(rows):
        x[row] = _row(random, columns, dtype)
        if random.random() < 0.35:
            x[row, random.random(columns) < random.choice([0.1, 0.5, 0.95])] = -math.inf
        if random.random() < 0.04:
            x[row] = -math.inf
        if random.random() < 0.04:
            x[row, random.integers(0, columns)] = random.choice([math.nan, math.inf])
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def _temperature(random, shape):
    """What is passed, and the temperature of each row."""

    def one(size=None):
        exponent = random.choice([0, 0, 1, 1, 1, 8, 30])
        t = np.clip(10.0 ** (random.uniform(-1, 1, size) * exponent), 2.0**-100, 2.0**100)
        return np.where(random.random(size) < 0.1, random.choice([0.0, 2.0**-100, 2.0**100]), t)

    kind = random.integers(0, 4)
    if kind < 2 or not shape:
        t = 1.0 if kind == 0 else float(one())
        return t, np.full(shape, t)
    given = shape if kind == 2 else tuple(n if random.random() < 0.5 else 1 for n in shape)
    t = one(given)
    if random.random() < 0.3:
        with np.errstate(all="ignore"):
            t = np.clip(t.astype(np.float32), np.float32(2.0**-100), np.float32(2.0**100))
    return t, np.broadcast_to(t, shape).astype(np.float64)


class Case:
    """A call's arguments: logits (categories last, contiguous, and as passed), temperatures, ids, mask."""

    def __init__(self, name, seed, number):
        self.random = random = np.random.default_rng([seed, number, sorted(DTYPES).index(name)])
        self.name, self.dtype = name, DTYPES[name]
        columns = int(random.choice([random.integers(1, 10), random.integers(1, 90), random.integers(1, 700)]))
        if random.random() < 0.04:
            columns = int(random.choice([4095, 4096, 4097, 8192, 9001, 12300]))
        shape = tuple(int(n) for n in random.integers(0 if random.random() < 0.1 else 1, 5, random.integers(0, 3)))
        if random.random() < 0.1:
            shape, columns = (int(random.integers(17, 60)),), min(columns, 90)
        self.shape, self.columns, self.rows = shape, columns, math.prod(shape)
        self.values = _logits(random, self.rows, columns, self.dtype).reshape(*shape, columns)
        self.axis = int(random.integers(0, len(shape) + 1))
        moved = np.moveaxis(self.values, -1, self.axis)
        self.array = laid_out(np.ascontiguousarray(moved), random)
        self.array.flags.writeable = False
        self.temperature, each = _temperature(random, shape)
        self.t = each.reshape(-1)
        self.seed, self.draw = (int(n) for n in random.integers(0, 1 << 62, 2))
        self.mask = random.random(shape) < 0.8 if random.random() < 0.2 else None
        self.ids = random.integers(0, 1 << 56, shape) if random.random() < 0.2 else None
        self.x = self.values.reshape(self.rows, columns)
        self.wide = oracle.widened(self.x)
        self.exact = self.dtype == np.float64

    def rng(self):
        return numbel.Generator(self.seed, draw=self.draw)

    def options(self, *without):
        """The options that all methods share, at random."""
        options = {"axis": self.axis, "temperature": self.temperature, "on_invalid": "flag"}
        options |= {"row_mask": self.mask} if self.mask is not None else {}
        options |= {"row_ids": self.ids} if self.ids is not None else {}
        return {name: value for name, value in options.items() if name not in without}

    def wanted(self, row):
        return self.mask is None or bool(self.mask.reshape(-1)[row])

    def identity(self, row):
        return row if self.ids is None else int(self.ids.reshape(-1)[row])

    def scaled(self, row):
        """Logit / T as float64, of a row of positive temperature; -inf where it is impossible."""
        with np.errstate(all="ignore"):
            z = self.wide[row].astype(np.float64) / self.t[row]
        return np.where(z <= -LARGEST, -math.inf, z)

    def good(self, row):
        """Whether a row has a law."""
        x = self.wide[row]
        if not (self.wanted(row) and np.all(x < math.inf) and np.any(x > -math.inf)):
            return False
        return self.t[row] == 0 or -math.inf < self.scaled(row).max() < LARGEST

    def noise(self):
        """The public float64 noise of the rows: by their ids through the oracle's words."""
        if self.ids is None:
            return self.rng().gumbel(size=(self.rows, self.columns), dtype=np.float64)
        each = [oracle.noise(self.seed, self.draw, self.columns, self.identity(row)) for row in range(self.rows)]
        return np.array(each, np.longdouble).reshape(self.rows, self.columns).astype(np.float64)

    def out(self, shape, dtype):
        """Guarded memory for a result."""
        return laid_out(np.zeros(shape, dtype), self.random, writable=True)


# ----------------------------------------------------------------------------------------------------- what must hold


def same(a, b):
    """Whether two results hold the same bits."""
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    a, b = np.asarray(a), np.asarray(b)
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    )


def _tolerance(case, value, size):
    """Of a logarithm: its sum, its own rounding, and that of logit / T."""
    unit, sums = (2.3e-16, 2e-15) if case.exact else (1.2e-7, 4e-7)
    return sums + unit * abs(float(value)) + 4.5e-16 * float(size)


def _close(case, got, due, size, what):
    got, due = float(got), float(due)
    if not case.exact and abs(due) > 3.4e38:
        assert abs(got) >= 3.4e38  # as float32
        assert got * due > 0
        return
    assert got == due or abs(got - due) <= _tolerance(case, due, size), (what, got, due, size)


def _size(z):
    """The largest |logit / T| that counts."""
    z = z[z > z.max() - 1e4 - 1e-9 * abs(z.max())]
    return float(np.abs(z).max())


def _limit_at_zero(x):
    return 0.0 if x == 0 else math.copysign(math.inf, x)


def _check_flagged(*values):
    for value in values:
        value = np.asarray(value)
        assert np.all(value == -1) if value.dtype.kind == "i" else np.all(np.isnan(value.astype(np.float64))), value


def _limits(case):
    """top_k, top_p, min_p at random, as passed and of each row."""
    random, given, each = case.random, {}, {}
    if random.random() < 0.5:
        return given, each
    for name, one in (
        ("top_k", lambda: int(random.integers(1, case.columns + 2))),
        ("top_p", lambda: float(random.choice([0.1, 0.5, 0.9, 0.999, 1e-9]))),
        ("min_p", lambda: float(random.choice([1e-30, 0.01, 0.3, 1.0]))),
    ):
        if random.random() < 0.4:
            many = bool(case.shape) and random.random() < 0.4
            value = np.array([one() for _ in range(case.rows)]).reshape(case.shape) if many else one()
            given[name], each[name] = value, np.broadcast_to(value, case.shape).reshape(-1)
    return given, each


def _kept(case, row, each):
    """Columns that are surely kept, and those that may be: top_p is decided to 2e-7."""
    limits = {name: value[row].item() for name, value in each.items()}
    found = []
    for sign in (-1, 1):
        some = dict(limits)
        if "top_p" in some:
            some["top_p"] = min(1.0, some["top_p"] * (1 + sign * 3e-6) + sign * 1e-9) if some["top_p"] > 1e-8 else 1e-9
        if "min_p" in some:
            some["min_p"] = min(1.0, some["min_p"] * (1 - sign * 1e-9))
        x = np.where(case.scaled(row) == -math.inf, -math.inf, case.wide[row])
        found.append(oracle.kept(x, case.t[row], **some)[0])
    return found


def check_sample(case):
    """`sample` and `categorical`: the law's exact twin where it is cheap, bits of the noise, log-probabilities."""
    random = case.random
    method = str(random.choice(["grouped", "gumbel_max"]))
    many = None if random.random() < 0.5 else int(random.choice([0, 1, 2, 5, 70]))
    if many == 70 and case.columns > 700:
        many = 3
    given, each = _limits(case)
    options = case.options() | given | {"method": method, "num_samples": many}
    wide, samples = np.float64 if case.exact else np.float32, 1 if many is None else many
    shape = case.shape if many is None else (*case.shape, many)
    out = None
    if random.random() < 0.5 and shape and case.shape:
        out = numbel.Sample(case.out(shape, np.int64), case.out(shape, wide), case.out(case.shape, wide))
    got = case.rng().sample(case.array, out=out, **options)
    assert same(case.rng().categorical(case.array, **options), got.indices)
    plain = np.ascontiguousarray(np.moveaxis(case.array, case.axis, -1))
    assert same(tuple(case.rng().sample(plain, **options | {"axis": -1})), tuple(got)), "another layout, other bits"
    if case.rows == 0:
        return
    indices = np.reshape(got.indices, (case.rows, samples))
    log_prob, sums = np.reshape(got.log_prob, (case.rows, samples)), np.reshape(got.logsumexp, case.rows)
    noise = case.noise() if method == "gumbel_max" and samples else None
    for row in range(case.rows):
        if not case.good(row):
            _check_flagged(indices[row], log_prob[row], sums[row])
            continue
        x = case.wide[row]
        if case.t[row] == 0:
            assert np.all(indices[row] == np.argmax(x))
            assert np.all(log_prob[row] == 0)
            assert float(sums[row]) == _limit_at_zero(float(x.max()))
            continue
        _check_row(case, row, method, indices[row], log_prob[row], sums[row], each, noise)


def _check_row(case, row, method, indices, log_prob, logsumexp, each, noise):
    """A drawn row of `sample`."""
    x, z = case.wide[row], case.scaled(row)
    size = _size(z)
    _close(case, logsumexp, oracle.log_sum_exp(z), size, "logsumexp")
    few, some = _kept(case, row, each) if each else (np.flatnonzero(z > -math.inf),) * 2
    laws = [oracle.log_probabilities(oracle.masked(x, columns), case.t[row]) for columns in (few, some)]
    for index, found in zip(indices, log_prob, strict=True):
        assert index in set(np.asarray(some).tolist()), (index, few, some)
        if float(laws[0][index]) == -math.inf:
            continue  # at the boundary of top_p
        low, high = sorted(float(law[index]) for law in laws)
        if low == high:
            _close(case, found, low, size, "log_prob")
        else:
            within = low - _tolerance(case, low, size) <= float(found) <= high + _tolerance(case, high, size)
            assert within, (found, low, high)
    if len(few) != len(some) or not len(indices):
        return
    if method == "gumbel_max":
        kept = np.full(case.columns, -math.inf)
        kept[few] = z[few]
        assert indices[0] == oracle.perturbed_order(kept, noise[row])[0]
    elif case.columns <= 5000 and len(indices) < 64 and case.random.random() < 0.2 and np.abs(x[few]).max() < 1e250:
        tag = oracle.TRUNCATED if each and len(few) < np.count_nonzero(x > -math.inf) else oracle.GROUPED
        if each and tag == oracle.GROUPED:
            return  # limits that keep all: which tag it is depends on how they are written
        due = oracle.grouped(
            oracle.masked(x, few), case.t[row], case.seed, case.draw, case.identity(row), len(indices), tag=tag
        )
        assert indices.tolist() == due


def check_top_k(case):
    """`gumbel_top_k` and its weights."""
    k = int(case.random.integers(1, case.columns + 1))
    options = case.options()
    got = case.rng().gumbel_top_k(case.array, k, **options)
    plain = np.ascontiguousarray(np.moveaxis(case.array, case.axis, -1))
    assert same(tuple(case.rng().gumbel_top_k(plain, k, **options | {"axis": -1})), tuple(got))
    noise = case.noise()
    indices, perturbed = np.reshape(got.indices, (case.rows, k)), np.reshape(got.perturbed, (case.rows, k))
    log_prob, threshold = np.reshape(got.log_prob, case.rows), np.reshape(got.threshold, case.rows)
    for row in range(case.rows):
        x = case.wide[row]
        if not case.good(row) or k > np.count_nonzero((x if case.t[row] == 0 else case.scaled(row)) > -math.inf):
            _check_flagged(indices[row], perturbed[row], log_prob[row], threshold[row])
            continue
        if case.t[row] == 0:
            order = np.argsort(-x.astype(np.float64), kind="stable")
            assert indices[row].tolist() == order[:k].tolist()
            assert perturbed[row].tolist() == [_limit_at_zero(float(v)) for v in x[order[:k]]]
            continue
        z = case.scaled(row)
        order = oracle.perturbed_order(z, noise[row])
        assert indices[row].tolist() == order[:k].tolist()
        keys = z + noise[row]
        if case.ids is None:
            assert perturbed[row].tolist() == keys[order[:k]].tolist()
            assert threshold[row] == (keys[order[k]] if k < len(order) else -math.inf)
        if k <= 50:
            due = float(oracle.plackett_luce(z, order[:k]))
            _close(case, log_prob[row], due, k * np.abs(z[order[:k]]).max() + abs(due), "log_prob")
    if case.rows and case.random.random() < 0.3 and not np.any(np.isnan(threshold)):
        with np.errstate(all="ignore"):
            weights = numbel.top_k_weights(
                got, case.array, axis=case.axis, temperature=case.temperature, normalized=True
            )
        assert np.all(np.abs(np.sum(weights, -1) - 1) < 1e-6)


def check_relaxed(case):
    """`gumbel_softmax`, bit for bit, and its derivative."""
    hard = bool(case.random.random() < 0.3)
    options = case.options("temperature")
    out = case.out(case.array.shape, case.dtype) if case.random.random() < 0.5 else None
    y = case.rng().gumbel_softmax(case.array, case.temperature, hard=hard, out=out, **options)
    assert y.dtype == case.dtype
    assert y.shape == case.array.shape
    rows = np.moveaxis(y, case.axis, -1).reshape(case.rows, case.columns)
    index = case.rng().categorical(case.array, method="gumbel_max", **options)
    index = np.reshape(index, case.rows)
    noise = None
    if case.ids is None and case.rows:
        noise = case.rng().gumbel(size=(case.rows, case.columns), dtype=case.wide.dtype)
    for row in range(case.rows):
        x = case.wide[row]
        if not (case.wanted(row) and np.all(x < math.inf) and np.any(x > -math.inf)):
            _check_flagged(rows[row])
        elif index[row] < 0:  # a logit beyond 2^1023: no argmax, though there is a relaxed sample
            assert case.exact
        elif hard or case.t[row] == 0:
            assert rows[row].astype(np.float64).tolist() == (np.arange(case.columns) == index[row]).tolist()
        elif noise is not None and case.columns <= 9001 and np.abs(x[x > -math.inf]).max() < 1e250:
            assert same(rows[row], oracle.relaxed(case.x[row], case.t[row], noise[row]))
    if not hard and case.rows and case.mask is None:
        cotangent = laid_out(case.random.standard_normal(y.shape).astype(case.dtype), case.random)
        d_logits, slope = numbel.gumbel_softmax_vjp(y, cotangent, case.temperature, axis=case.axis)
        d_rows = np.moveaxis(d_logits, case.axis, -1).reshape(case.rows, case.columns)
        u = np.moveaxis(cotangent, case.axis, -1).reshape(case.rows, case.columns)
        assert np.shape(slope) == np.shape(case.temperature)
        for row in range(case.rows):
            if not np.any(np.isnan(rows[row].astype(np.float64))) and case.t[row] > 1e-25:
                due = oracle.vjp(np.ascontiguousarray(rows[row]), np.ascontiguousarray(u[row]), case.t[row])[0]
                equal = (d_rows[row] == due) | (
                    np.isnan(due.astype(np.float64)) & np.isnan(d_rows[row].astype(np.float64))
                )
                assert np.all(equal)


def check_conditional(case):
    """`conditional_gumbel` given a category that is possible: it is the strict maximum."""
    if case.rows == 0 or np.any(case.t == 0):
        return
    finite = np.where(np.isfinite(case.wide), case.wide, -math.inf)
    index = finite.argmax(-1) if case.random.random() < 0.5 else case.random.integers(0, case.columns, case.rows)
    z = case.rng().conditional_gumbel(case.array, index.reshape(case.shape), **case.options())
    rows = np.moveaxis(z, case.axis, -1).reshape(case.rows, case.columns).astype(np.float64)
    for row in range(case.rows):
        x, at = case.wide[row], index[row]
        if not case.good(row) or x[at] == -math.inf:
            _check_flagged(rows[row])
            continue
        others = np.delete(rows[row], at)
        assert not np.any(np.isnan(rows[row]))
        if abs(rows[row, at]) < float(_largest(case.dtype)) * 0.99:
            assert np.all(others < rows[row, at]), (rows[row], at)
        assert np.all(rows[row][x == -math.inf] == -math.inf)


def check_counts(case):
    """`multinomial`: n in all, none where nothing is possible."""
    n = int(case.random.choice([0, 1, 9, 1000, 1 << 40, 1 << 62]))
    counts = case.rng().multinomial(n, case.array, **case.options())
    rows = np.moveaxis(counts, case.axis, -1).reshape(case.rows, case.columns)
    for row in range(case.rows):
        if not case.good(row):
            _check_flagged(rows[row])
            continue
        assert int(rows[row].sum()) == n
        assert np.all(rows[row] >= 0)
        assert np.all(rows[row][case.wide[row] == -math.inf] == 0)
        if case.t[row] == 0:
            assert rows[row, np.argmax(case.wide[row])] == n
        elif n >= 1 << 40:
            p = np.exp(oracle.log_probabilities(case.scaled(row)))
            sigma = np.sqrt(np.longdouble(n) * p * (1 - p)) + 1
            rounding = (4.5e-16 * _size(case.scaled(row)) + 1e-14) * np.longdouble(n) * p
            assert np.all(np.abs(rows[row] - np.longdouble(n) * p) < 9 * sigma + rounding), (rows[row], n * p)


def _entropy(z, t, x):
    """In two terms of one sign, so that nothing cancels; longdouble."""
    x = np.where(z == -math.inf, -math.inf, x).astype(np.longdouble)
    top = np.argmax(x)
    with np.errstate(all="ignore"):
        d = (np.delete(x, top) - x[top]) / np.longdouble(t)
        w = np.exp(d)
    others = w.sum()
    return np.log1p(others) - np.where(w > 0, d * w, 0).sum() / (1 + others)


def check_densities(case):
    """`logsumexp`, `log_prob`, `entropy` of every row."""
    options = case.options("row_ids", "row_mask")
    sums = np.reshape(numbel.logsumexp(case.array, **options), case.rows)
    entropies = np.reshape(numbel.entropy(case.array, **options), case.rows)
    index = case.random.integers(0, case.columns, (*case.shape, 3))
    logs = np.reshape(numbel.log_prob(case.array, index, **options), (case.rows, 3))
    mask, case.mask = case.mask, None
    for row in range(case.rows):
        x = case.wide[row]
        if not case.good(row):
            nothing = np.all(x < math.inf) and not np.any((case.scaled(row) if case.t[row] else x) > -math.inf)
            assert float(sums[row]) == -math.inf if nothing and np.all(x == -math.inf) else np.isnan(sums[row]), sums[
                row
            ]
            _check_flagged(logs[row])
            if not (np.all(x < math.inf) and np.any(x > -math.inf)):
                _check_flagged(entropies[row])
            continue
        if case.t[row] == 0:
            assert entropies[row] == 0
            continue
        z = case.scaled(row)
        _close(case, sums[row], oracle.log_sum_exp(z), _size(z), "logsumexp")
        law = oracle.log_probabilities(np.where(z == -math.inf, -math.inf, x), case.t[row])
        for i, found in zip(index.reshape(case.rows, 3)[row], logs[row], strict=True):
            _close(case, found, law[i], _size(z) if law[i] > -1e4 else abs(float(law[i])) * 8 + _size(z), "log_prob")
        due = _entropy(z, case.t[row], x)
        relative = (1e-12 if case.exact else 1e-6) if due > 0.01 else 1e-5
        assert abs(entropies[row] - due) <= relative * due + 1e-30, (entropies[row], due)
    case.mask = mask


def check_table(case):
    """`CategoricalTable` of a row: the samples that `categorical` gives, and its logsumexp."""
    row = int(case.random.integers(0, case.rows)) if case.rows else -1
    if row < 0:
        return
    x = laid_out(case.x[row], case.random)
    mask, case.mask = case.mask, None
    try:
        table = numbel.CategoricalTable(x, temperature=case.t[row])
    except ValueError:
        assert not case.good(row)
        return
    assert case.good(row)
    drawn = table.sample(case.rng(), 2000)
    if case.t[row] == 0:
        assert np.all(drawn == np.argmax(case.wide[row]))
        return
    assert np.all(case.scaled(row)[drawn] > -math.inf)
    assert same(case.rng().categorical(x, 2000, temperature=case.t[row]), drawn)
    _close(case, table.logsumexp, oracle.log_sum_exp(case.scaled(row)), _size(case.scaled(row)), "logsumexp")
    case.mask = mask
    p = np.exp(oracle.log_probabilities(case.scaled(row)))
    counts, likely = np.bincount(drawn, minlength=case.columns), p > 0.05
    assert np.all(np.abs(counts - 2000 * p)[likely] < 7 * np.sqrt(2000 * p)[likely]), (counts[likely], p[likely])


def check_pieces(case):
    """`CategoricalAccumulator`, cut anywhere, and ragged rows: what `sample` gives of the whole."""
    if case.rows == 0:
        return
    many, method = (None, 3)[int(case.random.integers(0, 2))], str(case.random.choice(["grouped", "gumbel_max"]))
    options = case.options("axis") | {"method": method}
    whole = np.ascontiguousarray(case.values)
    expected = case.rng().sample(whole, many, **options)
    cuts = np.unique(np.r_[0, case.random.integers(0, case.columns + 1, 3), case.columns])
    found = numbel.CategoricalAccumulator(case.rng(), many, **options)
    pieces = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    case.random.shuffle(pieces)
    for start, stop in pieces:
        found.update(laid_out(whole[..., start:stop], case.random), start=start)
    assert same(tuple(found.result()), tuple(expected)), "in pieces, other bits"
    # the rows end to end, each a ragged one
    flat = laid_out(whole.reshape(-1), case.random)
    offsets = np.arange(case.rows + 1) * case.columns
    each = {
        name: np.reshape(np.broadcast_to(value, case.shape), -1) if name.startswith("row") or np.ndim(value) else value
        for name, value in options.items()
    }
    ragged = case.rng().sample(flat, many, offsets=offsets, **each)
    assert all(same(np.reshape(a, np.shape(b)), b) for a, b in zip(ragged, expected, strict=True)), "ragged, other bits"


def check_noise(case):
    """`gumbel` into any layout, loc and scale."""
    out = case.out((*case.shape, case.columns), case.dtype)
    loc, scale = float(case.random.standard_normal()), float(case.random.choice([0.0, 1.0, 1e-3, 50.0]))
    got = case.rng().gumbel(loc, scale, dtype=case.dtype, out=out)
    assert got is out
    assert same(np.ascontiguousarray(out), case.rng().gumbel(loc, scale, size=out.shape, dtype=case.dtype))
    noise = case.rng().gumbel(size=out.shape, dtype=np.float64)
    unit = float(_info(case.dtype).eps)
    bound = (3e-6 + 2 * unit) * (1 + abs(loc) + scale * (1 + np.abs(noise)))
    assert np.all(np.abs(out.astype(np.float64) - (loc + scale * noise)) <= bound)


def check_refused(case):
    """Temperatures out of range: an error, and the draw is given back."""
    for t in (2.0**-101, 1e-40, 2.0**101, 1e300, -1.0, math.nan, math.inf, [1e-300] * max(case.rows, 1)):
        value = np.reshape(t, case.shape) if np.ndim(t) and case.rows else 1e-300 if np.ndim(t) else t
        rng = case.rng()
        told = ""
        try:
            rng.sample(case.array, axis=case.axis, temperature=value)
        except ValueError as error:
            told = str(error)
        assert "temperature" in told, (t, told)
        assert rng.draw == case.draw


CHECKS = {
    check_sample: 6, check_top_k: 2, check_relaxed: 2, check_conditional: 1, check_counts: 1, check_densities: 2,
    check_table: 1, check_pieces: 2, check_noise: 1, check_refused: 0.1,
}  # fmt: skip
_CHOICES, _SHARES = list(CHECKS), np.array(list(CHECKS.values())) / sum(CHECKS.values())


def run_case(name, seed, number):
    """One case: an AssertionError, or whatever a call raised, if something does not hold."""
    case = Case(name, seed, number)
    before = case.array.tobytes()
    check = _CHOICES[int(case.random.choice(len(_CHOICES), p=_SHARES))]
    check(case)
    assert case.array.tobytes() == before, "the logits were written"
    return check.__name__


def run(names, seed, first, count, seconds, log=None):
    """Cases of each dtype in turn, up to `count` of each or for so many seconds: (cases of each check, failures)."""
    done, failures, start = collections.Counter(), [], time.monotonic()
    np.seterr(all="ignore")
    for number in range(first, first + count):
        for name in names:
            if time.monotonic() - start > seconds:
                return done, failures
            if log is not None:
                Path(log).write_text(f"--dtype {name} --seed {seed} --case {number}\n")
            try:
                done[name, run_case(name, seed, number)] += 1
            except Exception as error:
                done[name, "failed"] += 1
                line = traceback.extract_tb(error.__traceback__)[-1]
                failures.append(
                    (name, seed, number, f"{line.name}:{line.lineno} {type(error).__name__}: {error}"[:300])
                )
                again = f"python -m tests.fuzz --dtype {name} --seed {seed} --case {number}"
                print(f"{again}\n    {failures[-1][-1]}", flush=True)
    return done, failures


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", nargs="*", choices=sorted(DTYPES), default=sorted(DTYPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one only, with its traceback")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--count", type=int, default=1 << 40, help="cases of each dtype")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--log", help="file that always names the case that runs")
    given = parser.parse_args(arguments)
    if _libc is None:
        print("guard pages need mprotect: nothing was tried")
        return 0
    if given.case is not None:
        for name in given.dtype:
            print(name, run_case(name, given.seed, given.case))
        return 0
    if math.isinf(given.seconds) and given.count == 1 << 40:
        given.seconds = 60.0
    done, failures = run(given.dtype, given.seed, given.first, given.count, given.seconds, given.log)
    for name in given.dtype:
        each = {check: n for (dtype, check), n in sorted(done.items()) if dtype == name}
        print(f"{name}: {sum(each.values())} cases, {each}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
