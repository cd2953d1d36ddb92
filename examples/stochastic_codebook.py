"""A kernel of your own that draws from logits it never stores: stochastic vector quantisation.

Each of the 1797 digits of scikit-learn takes one of K prototypes, k with probability proportional to
exp(-|x - c_k|^2 / (2 T)). The matrix of logits would have rows x K entries; here a logit is made, used for
`numbel.cuda.gumbel_max_update`, and forgotten. The same lines run as a CUDA kernel and as a Numba function on the CPU,
and draw what `Generator.categorical(logits, method="gumbel_max")` would from the stored matrix.

    python examples/stochastic_codebook.py                  # on the CPU
    python examples/stochastic_codebook.py --device cuda    # on a GPU, or with NUMBA_ENABLE_CUDASIM=1 in the simulator
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numba
import numpy as np
from numba import cuda

import numbel
from numbel.cuda import GUMBEL_MAX_START, gumbel_max_update


@numba.njit(parallel=True)
def quantise(points: Any, codes: Any, temperature: float, seed: int, draw: int, out: Any) -> None:
    """out[row] = a codebook entry for each of the points."""
    for row in numba.prange(points.shape[0]):
        state = GUMBEL_MAX_START
        for k in range(codes.shape[0]):
            square = 0.0
            for i in range(codes.shape[1]):
                square += (points[row, i] - codes[k, i]) ** 2
            state = gumbel_max_update(state, -0.5 * square / temperature, seed, draw, row, k)
        out[row] = state[1]


def quantise_on_gpu(points: Any, codes: Any, temperature: float, seed: int, draw: int) -> Any:
    """The same by a CUDA kernel, a thread for each of the points."""

    @cuda.jit
    def kernel(points: Any, codes: Any, temperature: float, seed: int, draw: int, out: Any) -> None:
        row = cuda.grid(1)
        if row < points.shape[0]:
            state = GUMBEL_MAX_START
            for k in range(codes.shape[0]):
                square = 0.0
                for i in range(codes.shape[1]):
                    square += (points[row, i] - codes[k, i]) ** 2
                state = gumbel_max_update(state, -0.5 * square / temperature, seed, draw, row, k)
            out[row] = state[1]

    out = cuda.device_array(len(points), np.int64)
    kernel[(len(points) + 63) // 64, 64](
        cuda.to_device(points), cuda.to_device(codes), temperature, np.uint64(seed), np.uint64(draw), out
    )
    return out.copy_to_host()


def main(arguments: list[str] | None = None) -> tuple[Any, Any]:
    """Quantise the digits; the indices drawn, and the logits that were never stored while they were drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--points", type=int, default=1797)
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args(arguments)

    from sklearn.datasets import load_digits

    digits = load_digits().data / 16.0
    points = digits[: options.points]
    codes = digits[np.random.default_rng(0).permutation(len(digits))[: options.codes]]
    start = time.perf_counter()
    if options.device == "cuda":
        found = quantise_on_gpu(points, codes, options.temperature, options.seed, 0)
    else:
        found = np.empty(len(points), np.int64)
        quantise(points, codes, options.temperature, options.seed, 0, found)
    seconds = time.perf_counter() - start
    square = np.zeros((len(points), len(codes)))
    for i in range(points.shape[1]):  # in the kernel's order, so that not a bit of a logit differs
        square += (points[:, i, None] - codes[None, :, i]) ** 2
    logits = -0.5 * square / options.temperature
    expected = numbel.Generator(options.seed).categorical(logits, method="gumbel_max")
    distance, nearest = np.sqrt(square[np.arange(len(points)), found].mean()), np.sqrt(square.min(1).mean())
    print(f"{len(points)} digits, {len(codes)} prototypes, {len(np.unique(found))} of them used, {seconds:.2f} s")
    print(f"root mean square distance {distance:.3f}; nearest prototypes would give {nearest:.3f}")
    print(f"drawn as from the stored logits: {np.mean(found == expected):.4f}")
    return found, expected


if __name__ == "__main__":
    main()
