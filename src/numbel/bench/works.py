"""Works: a task over so many rows and columns, and the arrays that they run on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], object]

#: Categories that one call handles at most: as the work says; for a smoke test.
FULL = 1 << 26
QUICK = 1 << 20


class Work(NamedTuple):
    """A task over rows x columns logits (or noise values) of a dtype."""

    task: str
    rows: int
    columns: int
    dtype: str

    @property
    def name(self) -> str:
        """Such as "sample 64 x 2^20 float32"."""
        return f"{self.task} {_number(self.rows)} x {_number(self.columns)} {self.dtype}"

    def within(self, limit: int) -> Work:
        """The same work on fewer rows, or on shorter ones where one is too long already."""
        rows = max(1, min(self.rows, limit // self.columns))
        return self._replace(rows=rows, columns=min(self.columns, limit // rows))


class Case(NamedTuple):
    """Something to time, and the items that one call of it handles."""

    call: Call
    items: int


class Rate(NamedTuple):
    """Median seconds of one call, its items, and items a second."""

    seconds: float
    items: int
    per_second: float


def _number(n: int) -> str:
    return f"2^{n.bit_length() - 1}" if n >= 1 << 17 and n & (n - 1) == 0 else str(n)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    found: np.dtype[Any] = np.dtype(name)
    return found


@functools.lru_cache(maxsize=1)
def whole_logits(rows: int, columns: int, dtype: str) -> Array:
    """Of a work as it is named; the gate hands one array to two versions."""
    block = np.random.default_rng(0).standard_normal(min(rows * columns, 1 << 20), dtype=np.float32)
    return np.resize(block.astype(_dtype(dtype)), (rows, columns))


def logits(work: Work) -> Array:
    return whole_logits(work.rows, work.columns, work.dtype)


#: Columns up to which tokens are shuffled: the ranks of more come from a multiplication, which takes no memory.
_SHUFFLED = 1 << 20


@functools.lru_cache(maxsize=1)
def _whole_tokens(rows: int, columns: int, dtype: str) -> Array:
    rng = np.random.default_rng(0)
    if columns > _SHUFFLED:
        ranks = np.arange(columns, dtype=np.uint32) * np.uint32(2654435761)  # each once, where columns divide 2^32
        ranks %= np.uint32(columns)
        row = np.resize(rng.standard_normal(_SHUFFLED, dtype=np.float32), columns)
        row -= 2 * np.log1p(ranks, dtype=np.float32)
        return np.resize(row.astype(_dtype(dtype), copy=False), (rows, columns))
    block = np.empty((min(rows, 16), columns), np.float32)
    for row in block:
        row[:] = rng.normal(size=columns) - 2 * np.log1p(rng.permutation(columns))
    return np.resize(block.astype(_dtype(dtype)), (rows, columns))


def tokens(work: Work) -> Array:
    """Logits of the shape of a language model's: a Zipf law with noise, a few dozen likely columns."""
    return _whole_tokens(work.rows, work.columns, work.dtype)


def count(work: Work) -> int:
    """The k at the end of a task's name, or half of a short row."""
    return min(int(work.task.rpartition(" ")[2]), max(1, work.columns // 2))


def cotangent(work: Work) -> Array:
    return logits(work)[:, ::-1].copy()


#: Samples of each category in the works on many samples of one row, preparation included.
MANY = 4
#: Samples of each row in the works on as many, whatever its length.
SAMPLES = 1000
#: Draws that a row of counts stands for, where peers are asked that draw each of them.
COUNTS = 1_000_000
#: And where none is.
TRIALS = 1 << 40
#: Settings of the truncated tasks.
TRUNCATIONS: dict[str, dict[str, Any]] = {"top_k": {"top_k": 50}, "top_p": {"top_p": 0.9}, "min_p": {"min_p": 0.05}}


def truncation(work: Work) -> dict[str, Any]:
    """Settings of a truncated work; short rows keep half of their categories, since 50 would be all."""
    settings = TRUNCATIONS[work.task]
    return {"top_k": min(50, max(1, work.columns // 2))} if "top_k" in settings else settings
