"""Relaxed samples and their gradients in rows of up to 512 columns, several to a CUDA block: one launch each."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint8, uint64

from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import NOISE, block_words
from .._scalar.bits import (
    from_ordered_float32,
    from_ordered_float64,
    multiply_add,
    ordered_float32,
    ordered_float64,
)
from .._scalar.blocks import LANES
from .._scalar.elementary import finite_log_float32, finite_log_float64
from .forms import FORMS, THREADS, device, matrix, vector
from .noise import noise_of
from .rows import CALL, DRAWN, INVALID, flag, identity_of, key_of, kind_of, temperature_of
from .short import ABSENT, largest_of_rows, power_of, sums_of_rows

_INF = math.inf
_NAN = math.nan


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep, zero, noise = form.wide, form.load, form.store, form.zero, noise_of(form)
    weight = scalar.weight_float64 if wide is float64 else scalar.weight_float32
    order = ordered_float64 if wide is float64 else ordered_float32
    unorder = from_ordered_float64 if wide is float64 else from_ordered_float32
    log = finite_log_float64 if wide is float64 else finite_log_float32

    @device
    def weigh_rows(ps, weights, lanes, power, kinds, highs, lows, bases):
        """Weights relative to each row's base; the first lane of every row becomes their sum."""
        for e in range(cuda.threadIdx.x, LANES, THREADS):
            i = e >> power
            w = wide(zero)
            if kinds[i] == DRAWN:
                high, low = scalar.narrow(zero, highs[i], lows[i])
                w = wide(weight(wide(ps[e] - bases[i]), wide(high), wide(low), wide(zero)))
            weights[e], lanes[e] = w, w
        sums_of_rows(lanes, int64(1) << power)

    def relax_short(logits, call, noisy, out, bad):
        """Relaxed samples of a tile of rows; NaN in rows that are bad, masked out or of temperature 0."""
        ps = cuda.shared.array(512, wide)
        weights = cuda.shared.array(512, wide)
        lanes = cuda.shared.array(512, wide)
        tops = cuda.shared.array(512, int64)
        kinds = cuda.shared.array(128, int64)
        spoilt = cuda.shared.array(128, int64)
        again = cuda.shared.array(1, int64)
        highs = cuda.shared.array(128, float64)
        lows = cuda.shared.array(128, float64)
        maxima = cuda.shared.array(128, wide)
        bases = cuda.shared.array(128, wide)
        divisors = cuda.shared.array(128, wide)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        power = int64(power_of(columns))
        width, tile = int64(1) << power, int64(LANES) >> power
        key, mask = key_of(call)
        for item in range(int64(cuda.blockIdx.x), (rows + tile - 1) // tile, int64(cuda.gridDim.x)):
            first = item * tile
            again[0] = 0
            for i in range(t, tile, THREADS):
                kind = kind_of(call, call.first_row + first + i) if first + i < rows else int64(ABSENT)
                kinds[i], spoilt[i], bases[i] = kind, 0, wide(zero)
                if kind == DRAWN:
                    highs[i], lows[i] = scalar.scale(temperature_of(call, call.first_row + first + i))
            cuda.syncthreads()
            for e in range(t, LANES, THREADS):
                i, c = e >> power, e & (width - 1)
                x = wide(-_INF)
                if c < columns and kinds[i] == DRAWN:
                    x = wide(load(logits[uint64(first + i), uint64(c)]))
                    if not x < _INF:  # NaN, too
                        spoilt[i] = 1
                ps[e], tops[e] = x, int64(order(x))
            largest_of_rows(tops, width)
            for i in range(t, tile, THREADS):
                maxima[i] = wide(unorder(int64(tops[i << power])))
                if kinds[i] == DRAWN and (spoilt[i] != 0 or maxima[i] == -_INF):
                    kinds[i] = INVALID
                if kinds[i] == INVALID:
                    flag(bad, call.first_row + first + i)
            cuda.syncthreads()
            for quad in range(t, LANES // 4, THREADS):
                i, c = quad * 4 >> power, quad * 4 & (width - 1)
                if kinds[i] == DRAWN and c < columns:
                    identity = identity_of(call, call.first_row + first + i)
                    x0, x1, x2, x3 = block_words(uint64(c // 4), uint64(0), identity, uint64(NOISE), key, mask)
                    for k in range(min(4, columns - c)):
                        word = x0 if k == 0 else x1 if k == 1 else x2 if k == 2 else x3
                        g = noise(word, c + k, identity, key, mask) if noisy else wide(zero)
                        ps[quad * 4 + k] = wide(relaxed.perturbed(ps[quad * 4 + k], maxima[i], g))
            cuda.syncthreads()
            weigh_rows(ps, weights, lanes, power, kinds, highs, lows, bases)
            for i in range(t, tile, THREADS):
                if kinds[i] == DRAWN and not relaxed.in_range(lanes[i << power]):
                    again[0] = 1
            cuda.syncthreads()
            if again[0] != 0:
                for e in range(t, LANES, THREADS):
                    tops[e] = int64(order(ps[e]))
                largest_of_rows(tops, width)
                for i in range(t, tile, THREADS):
                    if not relaxed.in_range(lanes[i << power]):
                        bases[i] = wide(unorder(int64(tops[i << power])))
                cuda.syncthreads()
                weigh_rows(ps, weights, lanes, power, kinds, highs, lows, bases)
            for i in range(t, tile, THREADS):
                if kinds[i] == DRAWN:  # as `normalise` and `divide` of a lone block
                    largest, total = float64(maxima[i]), float64(lanes[i << power])
                    offset = relaxed.block_offset(largest, float64(bases[i]), largest)
                    scale = relaxed.block_scale(offset, offset, highs[i], lows[i])
                    divisors[i] = wide(relaxed.ratio(multiply_add(total, scale, 0.0), scale))
            cuda.syncthreads()
            for e in range(t, LANES, THREADS):
                i, c = e >> power, e & (width - 1)
                if kinds[i] != ABSENT and c < columns:
                    value = wide(_NAN)
                    if kinds[i] == DRAWN:
                        value = wide(relaxed.ratio(weights[e], divisors[i]))
                    out[uint64(first + i), uint64(c)] = keep(value)
            cuda.syncthreads()

    def vjp_short(y, u, call, wanted, out, slopes):
        """The gradient of a tile of rows in the logits, and, where asked for, in each row's temperature."""
        of_products = cuda.shared.array(512, float64)
        of_y = cuda.shared.array(512, float64)
        means = cuda.shared.array(128, float64)
        rates = cuda.shared.array(128, float64)
        t = cuda.threadIdx.x
        rows, columns = int64(y.shape[0]), int64(y.shape[1])
        power = int64(power_of(columns))
        width, tile = int64(1) << power, int64(LANES) >> power
        for item in range(int64(cuda.blockIdx.x), (rows + tile - 1) // tile, int64(cuda.gridDim.x)):
            first = item * tile
            for e in range(t, LANES, THREADS):
                row, c = first + (e >> power), e & (width - 1)
                product, v = -0.0, -0.0  # what changes no sum, not even the sign of a zero
                if row < rows and c < columns:
                    v = float64(wide(load(y[uint64(row), uint64(c)])))
                    product = v * float64(wide(load(u[uint64(row), uint64(c)])))
                of_products[e], of_y[e] = product, v
            sums_of_rows(of_products, width)
            sums_of_rows(of_y, width)
            for i in range(t, tile, THREADS):
                if first + i < rows:
                    temperature = temperature_of(call, call.first_row + first + i)
                    rates[i] = 1.0 / temperature if temperature > 0.0 else 0.0
                    means[i] = relaxed.ratio(0.0 + of_products[i << power], 0.0 + of_y[i << power])
            cuda.syncthreads()
            for e in range(t, LANES, THREADS):
                i, c = e >> power, e & (width - 1)
                slope = -0.0
                if first + i < rows and c < columns:
                    v = wide(load(y[uint64(first + i), uint64(c)]))
                    cotangent = float64(wide(load(u[uint64(first + i), uint64(c)])))
                    g = relaxed.gradient(float64(v), cotangent, means[i], rates[i])
                    if wanted:
                        slope = multiply_add(-float64(wide(log(v))), g, 0.0)
                    out[uint64(first + i), uint64(c)] = keep(wide(g))
                of_products[e] = slope
            if wanted:
                sums_of_rows(of_products, width)
                for i in range(t, tile, THREADS):
                    if first + i < rows:
                        slopes[call.first_row + first + i] = 0.0 + of_products[i << power]
            cuda.syncthreads()

    rows, vectors = matrix(form, layout), vector(float64)
    return {
        "relax_short": (relax_short, (rows, CALL, uint8, rows, vector(int64))),
        "vjp_short": (vjp_short, (rows, rows, CALL, uint8, rows, vectors)),
    }
