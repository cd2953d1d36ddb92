"""A Gumbel argmax in Triton, as one would write it, and as vLLM arranges it: peers of our sampling kernels."""

from typing import Any

import torch
import triton
import triton.language as tl

RUN = 4096


@triton.jit
def _best(x, keys, at, seed, columns, runs, RUN: tl.constexpr):  # type: ignore[no-untyped-def]
    row, run = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = run * RUN + tl.arange(0, RUN)
    inside = column < columns
    logits = tl.load(x + row * columns + column, mask=inside, other=float("-inf")).to(tl.float32)
    noise = -tl.log(-tl.log(tl.rand(seed, row * columns + column)))
    value, index = tl.max(logits + noise, axis=0, return_indices=True)
    tl.store(keys + row * runs + run, value)
    tl.store(at + row * runs + run, run * RUN + index)


def gumbel_argmax(x: Any, keys: Any, at: Any, seed: int) -> Any:
    """One index a row."""
    rows, columns = x.shape
    runs = keys.shape[1]
    _best[(rows, runs)](x, keys, at, seed, columns, runs, RUN=RUN)
    return at.gather(1, keys.argmax(1, keepdim=True))


@triton.jit
def _request_best(x, keys, at, seeds, positions, temperatures, columns, runs, RUN: tl.constexpr):  # type: ignore[no-untyped-def]
    row, run = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = run * RUN + tl.arange(0, RUN)
    inside = column < columns
    key = tl.load(x + row * columns + column, mask=inside, other=float("-inf")).to(tl.float32)
    temperature = tl.load(temperatures + row)
    if temperature != 0.0:
        seed = tl.randint(tl.load(seeds + row), tl.load(positions + row))
        key = key / temperature - tl.log(-tl.log(tl.rand(seed, column)))
    value, index = tl.max(tl.where(inside, key, float("-inf")), axis=0, return_indices=True)
    tl.store(keys + row * runs + run, value)
    tl.store(at + row * runs + run, run * RUN + index)


def request_argmax(x: Any, seeds: Any, positions: Any, temperatures: Any) -> Any:
    """One index a row, each with a seed, position and temperature of its own."""
    rows, columns = x.shape
    runs = triton.cdiv(columns, 1024)
    keys = torch.empty(rows, runs, device=x.device)
    at = torch.empty(rows, runs, dtype=torch.int64, device=x.device)
    _request_best[(rows, runs)](x, keys, at, seeds, positions, temperatures, columns, runs, RUN=1024)
    return at.gather(1, keys.argmax(1, keepdim=True))
