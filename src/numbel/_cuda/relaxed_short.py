"""Relaxed samples and their gradients in rows of up to 512 columns, several to a CUDA block: one launch each."""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda, float64, int64, uint8, uint64

from .._scalar import blocks as scalar
from .._scalar import relaxed
from .._scalar.address import NOISE
from .._scalar.bits import multiply_add
from .._scalar.blocks import LANES
from .forms import FORMS, THREADS, block_items, device, matrix, vector
from .noise import noise_of
from .rows import CALL, DRAWN, INVALID, address_of, flag, key_of, pick, status_of, temperature_of, words_at
from .short import ABSENT, ROWS, Scales, largest_of_rows, power_of, sums_of_rows

_INF = math.inf
_NAN = math.nan


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep, zero, noise = form.wide, form.load, form.store, form.zero, noise_of(form)
    order, unorder, weight = form.arithmetic.order, form.arithmetic.unorder, form.arithmetic.weight
    log = form.arithmetic.log

    @device
    def weigh_rows(ps, weights, lanes, power, statuses, scales, bases):
        """Weights relative to each row's base; the first lane of every row becomes their sum."""
        for e in range(cuda.threadIdx.x, LANES, THREADS):
            i = e >> power
            w = wide(zero)
            if statuses[i] == DRAWN:
                high, low = scalar.narrow(zero, scales.high[i], scales.low[i])
                w = wide(weight(wide(ps[e] - bases[i]), wide(high), wide(low), wide(zero)))
            weights[e], lanes[e] = w, w
        sums_of_rows(lanes, int64(1) << power)

    def relax_short(logits, call, noisy, out, bad):
        """Relaxed samples of a tile of rows; NaN in rows that are bad, masked out or of temperature 0."""
        ps = cuda.shared.array(LANES, wide)
        weights = cuda.shared.array(LANES, wide)
        lanes = cuda.shared.array(LANES, wide)
        tops = cuda.shared.array(LANES, int64)
        statuses = cuda.shared.array(ROWS, int64)
        spoilt = cuda.shared.array(ROWS, int64)
        again = cuda.shared.array(1, int64)
        high = cuda.shared.array(ROWS, float64)
        low = cuda.shared.array(ROWS, float64)
        scales = Scales(high, low)
        maxima = cuda.shared.array(ROWS, wide)
        bases = cuda.shared.array(ROWS, wide)
        divisors = cuda.shared.array(ROWS, wide)
        t = cuda.threadIdx.x
        rows, columns = int64(logits.shape[0]), int64(logits.shape[1])
        power = int64(power_of(columns))
        width, tile = int64(1) << power, int64(LANES) >> power
        key = key_of(call)
        for item in block_items((rows + tile - 1) // tile):
            first = item * tile
            again[0] = 0
            for i in range(t, tile, THREADS):
                status = status_of(call, call.first_row + first + i) if first + i < rows else int64(ABSENT)
                statuses[i], spoilt[i], bases[i] = status, 0, wide(zero)
                if status == DRAWN:
                    scales.high[i], scales.low[i] = scalar.scale(temperature_of(call, call.first_row + first + i))
            cuda.syncthreads()
            for e in range(t, LANES, THREADS):
                i, c = e >> power, e & (width - 1)
                x = wide(-_INF)
                if c < columns and statuses[i] == DRAWN:
                    x = wide(load(logits[uint64(first + i), uint64(c)]))
                    if not x < _INF:  # NaN, too
                        spoilt[i] = 1
                ps[e], tops[e] = x, int64(order(x))
            largest_of_rows(tops, width)
            for i in range(t, tile, THREADS):
                maxima[i] = wide(unorder(int64(tops[i << power])))
                if statuses[i] == DRAWN and (spoilt[i] != 0 or maxima[i] == -_INF):
                    statuses[i] = INVALID
                if statuses[i] == INVALID:
                    flag(bad, call.first_row + first + i)
            cuda.syncthreads()
            for quad in range(t, LANES // 4, THREADS):
                i, c = quad * 4 >> power, quad * 4 & (width - 1)
                if statuses[i] == DRAWN and c < columns:
                    address = address_of(call, call.first_row + first + i, key)
                    words = words_at(address, c // 4, 0, NOISE)
                    for k in range(min(4, columns - c)):
                        g = noise(pick(words, k), c + k, address) if noisy else wide(zero)
                        ps[quad * 4 + k] = wide(relaxed.perturbed(ps[quad * 4 + k], maxima[i], g))
            cuda.syncthreads()
            weigh_rows(ps, weights, lanes, power, statuses, scales, bases)
            for i in range(t, tile, THREADS):
                if statuses[i] == DRAWN and not relaxed.in_range(lanes[i << power]):
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
                weigh_rows(ps, weights, lanes, power, statuses, scales, bases)
            for i in range(t, tile, THREADS):
                if statuses[i] == DRAWN:  # as `normalise` and `divide` of a lone block
                    largest, total = float64(maxima[i]), float64(lanes[i << power])
                    offset = relaxed.block_offset(largest, float64(bases[i]), largest)
                    scale = relaxed.block_scale(offset, offset, scales.high[i], scales.low[i])
                    divisors[i] = wide(relaxed.ratio(multiply_add(total, scale, 0.0), scale))
            cuda.syncthreads()
            for e in range(t, LANES, THREADS):
                i, c = e >> power, e & (width - 1)
                if statuses[i] != ABSENT and c < columns:
                    value = wide(_NAN)
                    if statuses[i] == DRAWN:
                        value = wide(relaxed.ratio(weights[e], divisors[i]))
                    out[uint64(first + i), uint64(c)] = keep(value)
            cuda.syncthreads()

    def vjp_short(y, u, call, wanted, out, slopes):
        """The gradient of a tile of rows in the logits, and, where asked for, in each row's temperature."""
        of_products = cuda.shared.array(LANES, float64)
        of_y = cuda.shared.array(LANES, float64)
        means = cuda.shared.array(ROWS, float64)
        rates = cuda.shared.array(ROWS, float64)
        t = cuda.threadIdx.x
        rows, columns = int64(y.shape[0]), int64(y.shape[1])
        power = int64(power_of(columns))
        width, tile = int64(1) << power, int64(LANES) >> power
        for item in block_items((rows + tile - 1) // tile):
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
