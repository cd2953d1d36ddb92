"""The scalar arithmetic against known answers, exact integers and rationals, and extended precision."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numba
import numpy as np
import pytest
from numba import float32, float64, int32, int64, prange, uint64

import oracle
from numbel._scalar import address, blocks, elementary, gumbel, philox
from numbel._scalar.bits import bits_to_float, float_to_bits, fma

njit = numba.njit(error_model="numpy")
wide = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="longdouble is no wider than float64 here")

# --------------------------------------------------------------------------------------------------- Philox, addresses

PI = ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
ONES = ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2)
ZEROS = ((0,) * 4, (0,) * 2)
KNOWN = [
    (10, ZEROS, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, ONES, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, PI, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    (10, ((1, 0, 0, 0), (0, 0)), "f8e4cca4 5cb200db b1a574eb 097eff67"),
    (7, ZEROS, "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, ONES, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (7, PI, "4dfccaba 190a87f0 c47362ba b6b5242a"),
]


@njit
def _philox(counters, keys, words):
    for i in range(len(counters)):
        c, k = counters[i], keys[i]
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = philox.philox4x32(c[0], c[1], c[2], c[3], k[0], k[1])


def compiled_philox(counters, keys):
    words = np.empty((len(counters), 4), np.uint64)
    _philox(np.asarray(counters, np.uint64), np.asarray(keys, np.uint64), words)
    return words


@pytest.mark.parametrize(("rounds", "arguments", "answer"), KNOWN)
def test_philox_known_answers(rounds, arguments, answer):
    expected = [int(word, 16) for word in answer.split()]
    assert [int(word) for word in oracle.philox4x32(*arguments, rounds=rounds)] == expected
    if rounds == 10:
        assert compiled_philox([arguments[0]], [arguments[1]])[0].tolist() == expected


def test_philox_equals_randomgen():
    randomgen = pytest.importorskip("randomgen")
    rng = np.random.default_rng(1)
    for _ in range(50):
        counter, key = rng.integers(0, 1 << 32, 4), rng.integers(0, 1 << 32, 2)
        start = sum(int(c) << (32 * i) for i, c in enumerate(counter))
        other = randomgen.Philox(
            counter=(start - 1) % (1 << 128), key=int(key[0]) | int(key[1]) << 32, number=4, width=32
        )
        assert compiled_philox([counter], [key])[0].tolist() == other.random_raw(4).tolist()


def test_philox_equals_the_oracle():
    rng = np.random.default_rng(2)
    counters = rng.integers(0, 1 << 32, (2000, 4), np.uint64)
    key = (0xDEADBEEF, 0x12345678)
    expected = np.stack(oracle.philox4x32(counters.T, key), 1)
    assert np.array_equal(compiled_philox(counters, np.full((2000, 2), key, np.uint64)), expected)


@njit
def _draw_key(seed, draw):
    return address.draw_key(seed, draw)


@pytest.mark.parametrize(
    ("seed", "draw", "key", "mask"),
    [
        (0, 0, 0x48218226FF3CD4BF, 0x568A9B0B1A2C05EC),
        (1, 0, 0xDCE423FC82C0D5B8, 0x61B263EF43AB4A8C),
        (0, 1, 0x9E0160293A33AAF7, 0x85C61A300EC70FA1),
    ],
)
def test_key_and_mask_known_answers(seed, draw, key, mask):
    assert oracle.draw_key(seed, draw) == (key, mask)
    assert _draw_key(np.uint64(seed), np.uint64(draw)) == (key, mask)


def test_two_seeds_share_no_draw():
    """Equal keys are met between seeds (a draw is 64 bits of freedom); the mask then differs."""
    gamma = 0x9E3779B97F4A7C15
    for a, b in ((931343, 14917996), (0, 1), (5, 6)):
        draw = oracle.mix64((a + gamma) % 2**64) ^ oracle.mix64((b + gamma) % 2**64)
        first, second = _draw_key(np.uint64(a), np.uint64(0)), _draw_key(np.uint64(b), np.uint64(draw))
        assert first[0] == second[0]
        assert first[1] != second[1]


@njit
def _noise_words(columns, samples, rows, tags, key, mask, words):
    for i in range(len(columns)):
        words[i] = address.noise_word(columns[i], samples[i], rows[i], tags[i], key, mask)


@pytest.mark.parametrize(("seed", "draw"), [(0, 0), (5, 17), (2**64 - 1, 2**64 - 1), (123456789012345, 2**63)])
def test_addresses_equal_the_oracle(seed, draw):
    rng = np.random.default_rng(3)
    n = 400
    columns = rng.integers(0, 1 << 34, n, np.uint64)
    columns[:40] = (1 << 34) - 1 - np.arange(40, dtype=np.uint64)
    columns[40:60] = np.arange(20)
    rows = rng.integers(0, 1 << 56, n, np.uint64)
    rows[20:80] = (1 << 56) - 1 - np.arange(60, dtype=np.uint64)
    rows[80:100] = (1 << 32) - 10 + np.arange(20, dtype=np.uint64)
    samples = rng.integers(0, 1 << 32, n, np.uint64)
    samples[:100:3] = (1 << 32) - 1
    key, mask = (np.uint64(v) for v in oracle.draw_key(seed, draw))
    for tag in (0, 1, 2, 5, 255):
        words = np.empty(n, np.uint64)
        _noise_words(columns, samples, rows, np.full(n, tag, np.uint64), key, mask, words)
        assert np.array_equal(words, oracle.noise_words(seed, draw, columns, samples, rows, tag)), tag


def test_tags_are_distinct():
    names = ["NOISE", "REFINEMENT", "GROUPED", "TABLE", "TRUNCATED", "CONDITIONAL", "CONDITIONAL_REFINEMENT", "COUNTS"]
    assert [getattr(address, name) for name in names] == [getattr(oracle, name) for name in names] == list(range(8))
    assert address.SPAWN not in range(8)


# ------------------------------------------------------------------------------------------------ exp, log, log1p


def mapped(function):
    """The scalar function over an array."""

    @njit
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x, dtype=None):
        out = np.empty(x.shape, dtype or x.dtype)
        loop(x, out)
        return out

    return apply


@njit
def _ulp_float32(value):
    _, exponent = math.frexp(value)
    return math.ldexp(1.0, max(exponent - 1, -126) - 23)


def float32_sweep(function, reference):
    """Largest error in ulp over every `stride`-th float32 bit pattern; inf for a wrong special value."""

    @numba.njit(parallel=True, error_model="numpy")
    def sweep(stride, chunks, worst, at):
        total = int64(1) << int64(32)
        for chunk in prange(chunks):
            largest, where = 0.0, int64(0)
            start = total // chunks * int64(chunk)
            for pattern in range(start + chunk % stride, start + total // chunks, stride):
                x = bits_to_float(int32(pattern & 0xFFFFFFFF))
                got, exact = function(x), reference(float64(x))
                error = 0.0
                if exact != exact:
                    error = 0.0 if got != got else np.inf
                elif abs(exact) > 3.4028235e38:
                    error = 0.0 if float64(got) == exact or float64(got) == np.inf else np.inf
                elif float64(got) != exact:
                    error = abs(float64(got) - exact) / _ulp_float32(exact)
                    error = error if error == error else np.inf
                if error > largest:
                    largest, where = error, int64(pattern)
            worst[chunk], at[chunk] = largest, where

    def run(stride):
        worst, at = np.zeros(64), np.zeros(64, np.int64)
        sweep(stride, 64, worst, at)
        i = int(np.argmax(worst))
        return worst[i], np.array([at[i]], np.uint32).view(np.float32)[0]

    return run


FLOAT32 = {
    "exp": (elementary.exp_float32, njit(lambda x: math.exp(x)), 1.15),
    "log": (elementary.log_float32, njit(lambda x: math.log(x)), 0.8),
    "log1p": (elementary.log1p_float32, njit(lambda x: math.log1p(x)), 0.8),
}


@pytest.mark.parametrize("name", FLOAT32)
def test_float32_errors_are_those_stated(name):
    """Every 61st float32 (70 million), against float64: the table in `_scalar/elementary.py`."""
    function, reference, stated = FLOAT32[name]
    worst, at = float32_sweep(function, reference)(61)
    print(f"{name} float32: {worst:.4f} ulp at {at!r}")
    assert worst <= stated, (worst, at)


def _edges(dtype):
    info = np.finfo(dtype)
    values = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, info.max, -info.max, info.tiny, -info.tiny]
    values += [info.smallest_subnormal, -info.smallest_subnormal, info.eps, -info.eps, 0.5, 2.0, -2.0]
    values += [-0.2928932188134524, 0.41421356237309503, 0.7071067811865476, 1.4142135623730951, -745.2, 709.8]
    values += [-103.98, 88.73, -87.4, 1e5, -1e5, 2.0**23, 2.0**24, 2.0**52, 2.0**53]
    values = np.array(values).astype(dtype)
    with np.errstate(all="ignore"):
        return np.concatenate([values, np.nextafter(values, dtype(np.inf)), np.nextafter(values, dtype(-np.inf))])


def _inputs_float64(name):
    rng = np.random.default_rng(4)
    parts = [_edges(np.float64), rng.integers(0, 1 << 64, 200000, np.uint64).view(np.float64)]
    parts.append(rng.standard_normal(200000))
    if name == "exp":
        parts += [np.linspace(-746, 710, 500001), rng.uniform(-0.4, 0.4, 100000)]
        parts.append((np.arange(-1074, 1024) + 0.5) * math.log(2))  # where the polynomial is worst
    else:
        centre = 1.0 if name == "log" else 0.0
        parts += [centre + np.linspace(-0.5, 0.5, 400001), centre + np.logspace(-300, 300, 100001)]
        parts.append(centre - np.logspace(-17, -0.3, 100001))
        for corner in (math.sqrt(0.5), math.sqrt(2.0)):
            parts.append(
                corner * 2.0 ** np.repeat(np.arange(-3, 4), 2001) * (1 + np.tile(np.arange(-1000, 1001), 7) * 2e-16)
            )
    return np.concatenate(parts)


FLOAT64 = {
    "exp": (elementary.exp_float64, np.exp, mpmath.exp, 1.05),
    "log": (elementary.log_float64, np.log, mpmath.log, 0.8),
    "log1p": (elementary.log1p_float64, np.log1p, mpmath.log1p, 0.8),
}


@wide
@pytest.mark.parametrize("name", FLOAT64)
def test_float64_errors_are_those_stated(name):
    """A million inputs against longdouble, and that against mpmath on some."""
    function, reference, exact, stated = FLOAT64[name]
    x = _inputs_float64(name)
    got = mapped(function)(x)
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.longdouble))
        rounded = expected.astype(np.float64)
        special = ~np.isfinite(rounded)
        assert np.array_equal(got[special], rounded[special], equal_nan=True)
        errors = np.abs((got.astype(np.longdouble) - expected) / np.spacing(np.abs(rounded)))[~special]
    at = int(np.argmax(errors))
    print(f"{name} float64: {float(errors[at]):.4f} ulp at {x[~special][at]!r}")
    assert errors[at] <= stated
    with mpmath.workdps(60):
        for i in np.flatnonzero(~special)[::5000]:
            true = exact(mpmath.mpf(float(x[i])))
            unit = mpmath.mpf(float(np.spacing(abs(rounded[i]))))
            assert abs((mpmath.mpf(float(got[i])) - true) / unit) <= stated


@pytest.mark.parametrize("name", ["exp", "log", "log1p"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_arguments(name, dtype):
    x = _edges(dtype)
    got = mapped(getattr(elementary, f"{name}_{dtype.__name__}"))(x)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.longdouble)).astype(dtype)
    special = ~np.isfinite(expected) | (expected == 0)
    assert np.array_equal(got[special], expected[special], equal_nan=True)
    assert np.allclose(
        got[~special], expected[~special], rtol=4 * np.finfo(dtype).eps, atol=2e-45 if dtype is np.float32 else 5e-324
    )


@pytest.mark.parametrize(("dtype", "stated"), [(np.float32, 2.1e-7), (np.float64, 2.3e-16)])
def test_exp2_of_a_fraction(dtype, stated):
    """Relative error, rounding included; exactly 1 at 0."""
    function = mapped(getattr(elementary, f"exp2_fraction_{dtype.__name__}"))
    f = np.concatenate([np.linspace(-0.5, 0.5, 1000001), [0.0, -0.0, 1e-30, -1e-30]]).astype(dtype)
    exact = np.exp2(f.astype(np.longdouble))
    error = np.abs(function(f) / exact - 1)
    print(f"exp2 {dtype.__name__}: relative {float(error.max()):.3e}")
    assert error.max() < stated
    assert np.all(function(np.zeros(2, dtype)) == 1)


def test_oracle_fma_is_the_hardware_one():
    rng = np.random.default_rng(5)
    for dtype in (np.float32, np.float64):
        a, b = (rng.standard_normal(20000) * 10.0 ** rng.integers(-6, 7, 20000) for _ in range(2))
        c = -a * b * (1 + rng.standard_normal(20000) * 10.0 ** rng.integers(-16, 5, 20000))
        a, b, c = a.astype(dtype), b.astype(dtype), c.astype(dtype)

        @njit
        def loop(a, b, c, out):
            for i in range(a.size):
                out[i] = fma(a[i], b[i], c[i])

        out = np.empty_like(a)
        loop(a, b, c, out)
        assert np.array_equal(out, oracle.fma(a, b, c))
        if dtype is np.float64:
            assert all(out[i] == oracle.fma_exact(a[i], b[i], c[i]) for i in range(0, 20000, 20))


# ------------------------------------------------------------------------------------------------ word -> Gumbel


@njit
def _noise(x, y, single, double, exponentials):
    for i in range(x.size):
        if gumbel.needs_refinement(np.uint32(x[i])):
            single[i] = gumbel.gumbel_refined_float32(x[i], y[i])
        else:
            single[i] = gumbel.gumbel_float32(np.uint32(x[i]))
        double[i] = gumbel.gumbel_float64(x[i], y[i])
        exponentials[i] = gumbel.exponential_float64(x[i], y[i])


def compiled_noise(x, y):
    x, y = np.asarray(x, np.uint64), np.asarray(y, np.uint64)
    single, double, exponentials = np.empty(x.size, np.float32), np.empty(x.size), np.empty(x.size)
    _noise(x, y, single, double, exponentials)
    return single, double, exponentials


TOP = (1 << 32) - 1
CORNERS = [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 31) + 1]
CORNERS += [TOP - (1 << 20) - 1, TOP - (1 << 20), TOP - (1 << 20) + 1, TOP - 1, TOP]


def refined(x):
    return (x < np.uint64(1 << 20)) | (x > np.uint64(TOP - (1 << 20)))


def test_ends_of_the_noise():
    x = np.repeat(np.array(CORNERS, np.uint64), 3)
    y = np.tile(np.array([0, 1 << 31, TOP], np.uint64), len(CORNERS))
    single, double, exponentials = compiled_noise(x, y)
    exact = oracle.gumbel(x, y).astype(np.float64)
    assert np.all(np.abs(double - exact) <= 2 * np.spacing(np.maximum(np.abs(exact), 1)))
    law = np.where(refined(x), exact, oracle.gumbel_of_word(x).astype(np.float64))
    assert np.all(np.abs(single - law) <= 1.4e-6 * np.maximum(1, np.abs(law) / 4))
    assert exponentials[0] == 2.0**-65
    assert math.isclose(double[0], 65 * math.log(2))
    assert math.isclose(double[-1], -math.log(65 * math.log(2)))
    assert single[0] == np.float32(65 * math.log(2)) or abs(single[0] - 65 * math.log(2)) < 8e-6
    assert np.all(np.diff(double) <= 0)
    assert np.all(np.diff(single) <= 0)


def test_refinement_begins_at_two_to_the_twenty():
    @njit
    def needs(x, out):
        for i in range(x.size):
            out[i] = gumbel.needs_refinement(np.uint32(x[i]))

    x = np.array(CORNERS, np.uint64)
    out = np.empty(x.size, bool)
    needs(x, out)
    assert np.array_equal(out, refined(x))


@wide
def test_noise_errors():
    """Absolute errors over words of every magnitude, against longdouble."""
    rng = np.random.default_rng(6)
    depth = rng.integers(0, 32, 400000)
    x = rng.integers(0, 1 << 32, 400000, np.uint64) >> depth.astype(np.uint64)
    x = np.where(rng.random(400000) < 0.5, x, TOP - x)
    y = rng.integers(0, 1 << 32, 400000, np.uint64)
    single, double, exponentials = compiled_noise(x, y)
    exact = oracle.gumbel(x, y)
    law = np.where(refined(x), exact, oracle.gumbel_of_word(x))
    size = np.maximum(np.abs(exact), 1).astype(np.float64)
    error32 = np.abs(single - law)
    ulp32 = (error32 / np.spacing(size.astype(np.float32))).max()
    ulp64 = (np.abs(double - exact) / np.spacing(size)).max()
    e = oracle.exponential(x, y)
    ulp_e = (np.abs(exponentials - e) / np.spacing(e.astype(np.float64))).max()
    print(f"noise float32 {float(error32.max()):.3e} ({float(ulp32):.2f} ulp of max(|G|, 1))")
    print(f"noise float64 {float(ulp64):.2f} ulp of max(|G|, 1); E {float(ulp_e):.2f} ulp")
    unrefined, against = error32[~refined(x)].max(), np.abs(single - exact).max()
    print(f"unrefined words {float(unrefined):.3e}; against the 64-bit law {float(against):.3e}")
    assert error32[np.abs(exact) < 16].max() < 1.4e-6
    assert ulp32 < 2.5
    assert ulp64 < 2
    assert ulp_e < 1.6
    assert np.abs(single - exact)[np.abs(exact) < 16].max() < 1.5e-6  # leaving y out costs no more


@numba.njit(parallel=True, error_model="numpy")
def _word_sweep(starts, length, step, disorder, low, high, error):
    """Per window: neighbours out of order, extremes, largest error of every `step`-th word (|G| < 16)."""
    for w in prange(starts.size):
        first = starts[w]
        previous = float32(np.inf)
        bad, smallest, largest, worst = 0, float32(np.inf), float32(-np.inf), 0.0
        for i in range(length):
            x = uint64(first + int64(i))
            word = np.uint32(x)
            if gumbel.needs_refinement(word):
                a = gumbel.gumbel_refined_float32(x, uint64(0))
                b = gumbel.gumbel_refined_float32(x, uint64(0xFFFFFFFF))
            else:
                a = gumbel.gumbel_float32(word)
                b = a
            bad += int(not a <= previous) + int(not b <= a)
            previous = b
            smallest, largest = min(smallest, b), max(largest, a)
            if i % step == 0:
                near = x < uint64(0x80000000)
                t = (float64(x if near else uint64(0xFFFFFFFF) - x) + 0.5) * 2.0**-32
                exact = -math.log(-math.log1p(-t) if near else -math.log(t))
                if not gumbel.needs_refinement(word):
                    worst = max(worst, abs(float64(a) - exact))
        disorder[w], low[w], high[w], error[w] = bad, smallest, largest, worst


def word_sweep(starts, length, step):
    starts = np.asarray(starts, np.int64)
    disorder, error = np.zeros(len(starts), np.int64), np.zeros(len(starts))
    low, high = np.zeros(len(starts), np.float32), np.zeros(len(starts), np.float32)
    _word_sweep(starts, length, step, disorder, low, high, error)
    return disorder.sum(), low.min(), high.max(), error.max()


def test_noise_is_monotone_at_its_seams():
    """Windows of 8192 words about every power of two, sqrt(1/2) of it, the refinement's edges, and the like."""
    centres = {0, 1 << 20, 1 << 31, (1 << 32) - 8192, int((1 - math.sqrt(0.5)) * 2**32), int(math.sqrt(0.5) * 2**32)}
    centres |= {int(c * 2.0**k) for k in range(13, 32) for c in (1.0, math.sqrt(0.5))}
    centres |= {int((1 - math.exp(-c * 2.0**k)) * 2**32) for k in range(-12, 5) for c in (1.0, math.sqrt(0.5))}
    centres |= {(1 << 32) - c for c in centres}
    starts = sorted({min(max(c - 4096, 0), (1 << 32) - 8192) for c in centres})
    disorder, low, high, error = word_sweep(starts, 8192, 1)
    print(f"seams: error {error:.3e}, range {low} .. {high}")
    assert disorder == 0
    assert error < 1.4e-6
    assert abs(low + 3.808) < 1e-3
    assert abs(high - 45.055) < 1e-3


@pytest.mark.long
def test_all_words():
    """All 2^32 words: monotone, in range, error of every 32nd."""
    disorder, low, high, error = word_sweep(np.arange(4096) << 20, 1 << 20, 32)
    print(f"all words: error {error:.3e}, range {low} .. {high}")
    assert disorder == 0
    assert error < 1.4e-6
    assert abs(low + 3.808) < 1e-3
    assert abs(high - 45.055) < 1e-3


def test_noise_is_monotone_in_its_refinement():
    rng = np.random.default_rng(7)
    x = np.repeat(rng.integers(0, 1 << 20, 20000, np.uint64), 2)
    x[:20000] = TOP - x[:20000]
    y = np.sort(rng.integers(0, 1 << 32, (20000, 2), np.uint64), 1).ravel()
    single, double, _ = compiled_noise(x, y)
    assert np.all(single[::2] >= single[1::2])
    assert np.all(double[::2] >= double[1::2] - 2 * np.spacing(np.abs(double[1::2])))


# ------------------------------------------------------------------------------------------------ blocks


@njit
def _parts(x, temperature):
    high64, low64 = blocks.scale(temperature)
    high, _ = blocks.narrow(x, high64, low64)
    r, rise, far = blocks.reference_of_maximum(x, high)
    return float64(r), rise, far


TEMPERATURES = [1e-3, 0.07, 0.5, 1.0, 1.7, 30.0, 1e3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_reference_at_its_cell_edges(dtype, temperature):
    """n = 64 + 128 k - 1/2 and its neighbours in the dtype, both signs; random logits to 1e30."""
    unit = 128 if dtype is np.float32 else 1024
    rng = np.random.default_rng(8)
    edges = (np.arange(-12, 13) * unit + unit / 2 - 0.5) * math.log(2) * temperature
    x = [edges.astype(dtype)]
    for _ in range(4):
        x += [np.nextafter(x[-1], dtype(np.inf))]
    x += [np.nextafter(x[0], dtype(-np.inf)), np.nextafter(np.nextafter(x[0], dtype(-np.inf)), dtype(-np.inf))]
    x.append((rng.standard_normal(60) * 10.0 ** rng.uniform(-3, 30, 60)).astype(dtype))
    x.append(
        (
            np.array([4194303.0, 4194240, 4190208, 4190144, 4190100, 262144, 258048, 257984, 257920])
            * math.log(2)
            * temperature
        ).astype(dtype)
    )
    for value in np.concatenate(x):
        block = oracle.Block(np.array([value]), temperature)
        r, rise, far = _parts(value, temperature)
        assert (r, rise, far) == (block.reference, block.rise, block.far), value
        assert r % unit == 0
        assert far or -unit // 2 <= rise < unit // 2


def _weights(dtype):
    version = getattr(blocks, f"weight_{dtype.__name__}")

    @njit
    def loop(x, high, low, r, out):
        for i in range(x.size):
            out[i] = version(x[i], high, low, r)

    def apply(x, r, temperature=1.0):
        high, low = oracle._factors(temperature, np.dtype(dtype))
        out = np.empty_like(x)
        loop(x, high, low, dtype(r), out)
        return out

    return apply


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights(dtype):
    """Relative error against 2^(z - r), the cut below, overflow above, -inf, NaN; a reference only shifts."""
    unit, least, most, error = (128, -125, 128, 4e-7) if dtype is np.float32 else (1024, -1021, 1024, 4e-16)
    rng = np.random.default_rng(9)
    weight = _weights(dtype)
    for temperature in (1.0, 0.3, 17.0):
        z = rng.uniform(least - 3, most + 3, 3000)
        for r in (0, unit, -unit, 5 * unit, -3 * unit):
            shifted = ((z + r) * math.log(2) * temperature).astype(dtype)
            got = weight(shifted, r, temperature)
            exact_z = shifted.astype(np.longdouble) / np.longdouble(temperature) / np.log(np.longdouble(2)) - r
            n = np.rint(exact_z.astype(np.float64))
            inside = (exact_z > least - 0.4) & (exact_z < most - 1)
            exact = np.exp2(exact_z[inside])
            # the logit's own rounding times log2(e) is kept by the pair high + low; what is left is ours
            assert np.abs(got[inside] / exact - 1).max() < error * (1 + abs(r) * 1e-4), (r, temperature)
            assert np.all(got[exact_z < least - 0.6] == 0)
            assert np.all(got[exact_z > most + 0.6] == np.inf)
            assert np.all(got >= 0)
            # one logit under two references: the same weight, shifted exactly
            both = (np.abs(n) < 50) & (np.abs(n + r) < unit)
            with np.errstate(over="ignore"):
                again = np.ldexp(weight(shifted, 0, temperature).astype(np.float64), -r)
            kept = both & (got > 0) & (again > 0) & np.isfinite(again)
            assert np.array_equal(got[kept], again[kept].astype(dtype))
        for r in (0, unit, -unit):
            special = weight(np.array([-np.inf, np.nan, -1e30, 1e30], dtype), r, temperature)
            assert special[0] == 0
            assert np.isnan(special[1])
            assert special[2] == 0
            assert special[3] == np.inf


def test_weight_rounds_ties_alike_under_every_reference():
    """z = n + 1/2 exactly: an odd reference would flip the tie of n, and with it the last bit."""
    weight = _weights(np.float32)
    rng = np.random.default_rng(10)
    high, _ = oracle._factors(1.0, np.dtype(np.float32))
    x = np.array([(n + 0.5) / float(high) for n in range(-60, 60)], np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(99)), np.nextafter(x, np.float32(-99))])
    x = np.concatenate([x, rng.uniform(-40, 40, 10000).astype(np.float32)])
    a = weight(x, 0).astype(np.float64)
    for r in (128, -128):
        b = np.ldexp(weight(x, r).astype(np.float64), r)
        kept = (b > 0) & np.isfinite(b)
        assert kept.sum() > 3000
        assert np.array_equal(a[kept], b[kept])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantise(dtype):
    version = getattr(blocks, f"quantise_{dtype.__name__}")

    @njit
    def loop(w, shift, out):
        for i in range(w.size):
            out[i] = version(w[i], shift)

    rng = np.random.default_rng(11)
    half = 64 if dtype is np.float32 else 512
    for shift in (0, 1, -1, half - 1, -half, 17):
        n = rng.integers(-60, 1, 3000)
        w = np.ldexp(rng.uniform(0.7072, 1.4142, 3000), n + shift).astype(dtype)
        w = np.concatenate([w, np.ldexp(np.array([1.0, 1.0, 0.999999, 1.4142]), shift - np.array([50, 51, 50, 0]))])
        w = np.append(w, np.ldexp(rng.uniform(1, 2, 30), rng.integers(0, 4, 30) + shift))  # sums of up to eight
        w = np.append(w, 0.0).astype(dtype)
        out = np.empty(w.size, np.uint64)
        loop(w, np.int64(shift), out)
        exact = [math.floor(Fraction(float(v)) * Fraction(2) ** (50 - shift)) for v in w]
        assert out.tolist() == exact, shift


@njit
def _join(a, b):
    return blocks.join(a[0], a[1], b[0], b[1])


def test_join():
    """The sum rounded once; the smaller node dropped from a difference of 256; NaN and the empty node."""
    rng = np.random.default_rng(12)
    for _ in range(3000):
        r = float(128 * rng.integers(-1000, 1000)) if rng.random() < 0.5 else float(rng.integers(-(2**40), 2**40))
        d = float(rng.choice([0, 0, 1, -1, 128, -128, 255, -255, 256, -256, 1000, -5000]))
        a, b = ((q, math.ldexp(rng.uniform(1, 2), int(rng.integers(-64, 64)))) for q in (r, r + d))
        got = _join(a, b)
        assert got == oracle.join(a, b)
        if abs(d) < 256:
            top = max(a[0], b[0])
            exact = sum(Fraction(s) * Fraction(2) ** int(q - top) for q, s in (a, b))
            assert got == (top, exact.numerator / exact.denominator)
        assert _join(a, (0.0, 0.0)) == a == _join((0.0, 0.0), a)
    for pair in (((0.0, math.nan), (128.0, 1.0)), ((128.0, 1.0), (0.0, math.nan)), ((4096.0, 1.0), (0.0, math.nan))):
        assert math.isnan(_join(*pair)[1])


@njit
def _node(r, total):
    return blocks.node(r, total)


def test_node():
    """On the grid of 128, 2^-64 <= S < 2^64, the value unchanged."""
    rng = np.random.default_rng(13)
    exponents = np.append(rng.integers(-1020, 1020, 2000), [-64, -65, 63, 64, 0, -1022, 1023])
    for e in exponents:
        total = math.ldexp(rng.uniform(1, 2), int(e))
        r = float(1024 * rng.integers(-4000, 4000))
        node_r, node_s = _node(r, total)
        assert (node_r - r) % 128 == 0
        assert 2.0**-64 <= node_s < 2.0**64
        assert Fraction(node_s) * Fraction(2) ** int(node_r - r) == Fraction(total)
    assert _node(1024.0, 0.0) == (0.0, 0.0)
    assert math.isnan(_node(0.0, math.nan)[1])
    assert math.isnan(_node(0.0, math.inf)[1])


@njit
def _beats(a, b):
    return blocks.beats(a[0], a[1], b[0], b[1])


def test_beats_is_an_order():
    rng = np.random.default_rng(14)
    keys = []
    for _ in range(120):
        rho = math.ldexp(rng.uniform(1, 2), int(rng.integers(-130, 70)))
        keys.append((rho, float(rng.choice([0, 128, -128, 256, 400, 1000, 1e9, -1e6, 3e25, 1.5e17]))))
    keys += [(1.0, 128.0), (2.0**-128, 0.0), (2.0**128, 256.0)]  # equal
    for a in keys:
        assert not _beats(a, a)
        for b in keys:
            assert _beats(a, b) == oracle.beats(*a, *b)
            assert not (_beats(a, b) and _beats(b, a))


@njit
def _mulhi64(a, b):
    return blocks.mulhi64(a, b)


def test_mulhi64():
    rng = np.random.default_rng(15)
    values = [0, 1, 2, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    values += [int(v) for v in rng.integers(0, 1 << 64, 60, np.uint64)]
    for a in values:
        for b in values:
            assert _mulhi64(np.uint64(a), np.uint64(b)) == (a * b) >> 64


@njit
def _far(maximum, temperature, total):
    high, low = blocks.scale(temperature)
    r, s = blocks.far_node(maximum, high, low, total)
    return r, s, blocks.logsumexp(r, s), blocks.log_prob(maximum, high, low, r, s)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_far_maxima(temperature):
    """The node stands for total exp(maximum / T); the log-probability of the maximum is -ln total."""
    rng = np.random.default_rng(16)
    with mpmath.workdps(60):
        for power in rng.uniform(7, 30, 120):
            maximum = float(rng.choice([-1, 1]) * 10**power * max(temperature, 1))
            total = float(rng.uniform(1, 4096))
            r, s, logsumexp, log_prob = _far(maximum, temperature, total)
            exact = mpmath.mpf(maximum) / mpmath.mpf(temperature) + mpmath.log(total)
            meant = mpmath.mpf(r) * mpmath.log(2) + mpmath.log(s)
            assert abs(meant - exact) <= 1e-15 + 2.5e-16 * abs(exact) * (abs(exact) > 2.0**51)
            assert abs(mpmath.mpf(logsumexp) - exact) <= 1.6 * np.spacing(abs(float(exact)))
            slack = 1e-15 if abs(exact) < 2.0**51 else 4e-16 * abs(float(exact))
            assert abs(log_prob + math.log(total)) <= 4e-15 + slack, maximum


@njit
def _log_prob(x, temperature, r, s):
    high, low = blocks.scale(temperature)
    return blocks.log_prob(x, high, low, r, s), blocks.logsumexp(r, s)


def test_log_prob_keeps_its_digits():
    """Absolute error of log_prob a few 1e-15 of max(1, |log p|), however large |logit / T|."""
    rng = np.random.default_rng(17)
    worst = 0.0
    with mpmath.workdps(60):
        for _ in range(800):
            temperature = float(10 ** rng.uniform(-3, 3))
            r = float(128 * rng.integers(-30000, 30000))
            s = float(rng.uniform(0.5, 1e9))
            x = float((r + rng.uniform(-60, 20)) * math.log(2) * temperature)
            exact_sum = mpmath.mpf(r) * mpmath.log(2) + mpmath.log(s)
            exact = mpmath.mpf(x) / mpmath.mpf(temperature) - exact_sum
            log_prob, logsumexp = _log_prob(x, temperature, r, s)
            worst = max(worst, float(abs(log_prob - exact) / max(1, abs(exact))))
            assert abs(logsumexp - exact_sum) <= 1.5 * np.spacing(max(abs(float(exact_sum)), 1.0))
    print(f"log_prob: {worst:.2e} of max(1, |log p|)")
    assert worst < 1e-15


def test_scale_keeps_a_hundred_bits():
    @njit
    def run(temperature):
        return blocks.scale(temperature)

    with mpmath.workdps(60):
        for temperature in [*TEMPERATURES, 0.1, 1 / 3, 1e-30, 1e30]:
            high, low = run(temperature)
            exact = 1 / (mpmath.log(2) * mpmath.mpf(temperature))
            assert abs((mpmath.mpf(high) + mpmath.mpf(low)) / exact - 1) < 2.0**-100
        for temperature in (5e-324, 1e-310, 1.7e308):
            high, low = run(temperature)
            assert 0 < high < math.inf
            assert math.isfinite(low)


def test_bit_casts():
    @njit
    def there_and_back(x):
        return bits_to_float(float_to_bits(x))

    for value in (np.float32(-1.5), np.float64(math.pi), np.float32(-0.0), np.float64(-np.inf)):
        assert there_and_back(value) == value
