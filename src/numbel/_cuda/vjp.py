"""The vector-Jacobian product of a relaxed sample: sums of every block, the row's mean, the gradient."""

from __future__ import annotations

import functools
from typing import Any

from numba import cuda, float64, int64, uint8, uint64

from .._scalar.bits import multiply_add
from .._scalar.blocks import LANES
from .._scalar.limits import BLOCK
from .._scalar.relaxed import gradient, ratio
from .blocks import halve
from .forms import FORMS, THREADS, block_items, matrix, vector
from .relaxed import sum_over_blocks
from .rows import CALL, blocks_in, temperature_of


@functools.cache
def kernels(name: str, layout: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels of one element format and layout, and the types of their arguments."""
    form = FORMS[name]
    wide, load, keep = form.wide, form.load, form.store
    log = form.arithmetic.log

    def products(y, u, nodes):
        """Sum of y u and of y of every block: its numbers 0 and 1."""
        of_products = cuda.shared.array(LANES, float64)
        of_y = cuda.shared.array(LANES, float64)
        rows, columns = int64(y.shape[0]), int64(y.shape[1])
        blocks = blocks_in(columns)
        for item in block_items(rows * blocks):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            count = min(columns - start, int64(BLOCK))
            cuda.syncthreads()
            for lane in range(cuda.threadIdx.x, min(count, LANES), THREADS):
                v = float64(wide(load(y[uint64(row), uint64(start + lane)])))
                product, total = v * float64(wide(load(u[uint64(row), uint64(start + lane)]))), v
                for i in range(lane + LANES, count, LANES):
                    v = float64(wide(load(y[uint64(row), uint64(start + i)])))
                    product = multiply_add(v, float64(wide(load(u[uint64(row), uint64(start + i)]))), product)
                    total += v
                of_products[lane], of_y[lane] = product, total
            halve(of_products, min(count, LANES))
            halve(of_y, min(count, LANES))
            if cuda.threadIdx.x == 0:
                nodes[0, item], nodes[1, item] = of_products[0], of_y[0]

    def row_means(columns, nodes, means):
        """Sum of y u over sum of y, a CUDA block for each row."""
        lanes = cuda.shared.array(LANES, float64)
        blocks = (columns + BLOCK - 1) // BLOCK  # by `blocks_in` 51 registers for 48
        for row in block_items(means.shape[0]):
            sum_over_blocks(nodes, 0, row * blocks, blocks, lanes)
            product = lanes[0]
            sum_over_blocks(nodes, 1, row * blocks, blocks, lanes)
            if cuda.threadIdx.x == 0:
                means[row] = ratio(product, lanes[0])

    def gradients(y, u, call, means, in_temperature, nodes, out):
        """The gradient in the logits, and, where asked for, each block's share of that in the temperature: number 2."""
        lanes = cuda.shared.array(LANES, float64)
        rows, columns = int64(y.shape[0]), int64(y.shape[1])
        blocks = blocks_in(columns)
        for item in block_items(rows * blocks):
            row = item // blocks
            start = (item - row * blocks) * BLOCK
            count = min(columns - start, int64(BLOCK))
            temperature = temperature_of(call, call.first_row + row)
            rate = 1.0 / temperature if temperature > 0.0 else 0.0
            mean = means[row]
            cuda.syncthreads()
            for lane in range(cuda.threadIdx.x, min(count, LANES), THREADS):
                total = 0.0
                for i in range(lane, count, LANES):
                    v = wide(load(y[uint64(row), uint64(start + i)]))
                    g = gradient(float64(v), float64(wide(load(u[uint64(row), uint64(start + i)]))), mean, rate)
                    if in_temperature:
                        total = multiply_add(-float64(wide(log(v))), g, total)
                    out[uint64(row), uint64(start + i)] = keep(wide(g))
                lanes[lane] = total
            if in_temperature:
                halve(lanes, min(count, LANES))
                if cuda.threadIdx.x == 0:
                    nodes[2, item] = lanes[0]

    def row_slopes(columns, nodes, call, slopes):
        """The gradient in each row's temperature, a CUDA block for each row."""
        lanes = cuda.shared.array(LANES, float64)
        blocks = blocks_in(columns)
        rows = nodes.shape[1] // blocks
        for row in block_items(rows):
            sum_over_blocks(nodes, 2, row * blocks, blocks, lanes)
            if cuda.threadIdx.x == 0:
                slopes[call.first_row + row] = lanes[0]

    rows, nodes, vectors = matrix(form, layout), matrix(FORMS["float64"], "C"), vector(float64)
    return {
        "products": (products, (rows, rows, nodes)),
        "row_means": (row_means, (int64, nodes, vectors)),
        "gradients": (gradients, (rows, rows, CALL, vectors, uint8, nodes, rows)),
        "row_slopes": (row_slopes, (int64, nodes, CALL, vectors)),
    }
