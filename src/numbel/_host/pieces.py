"""Rows whose columns come in pieces, in any order: what is kept of them, and how two such records are merged.

Of a row: the nodes of the widest ranges of blocks that are nodes of its dyadic tree, the best block or column so far of
every sample, and the logits of blocks that have not come whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._arguments import checks
from .._arguments.requests import Array, Temperature
from .._cpu import drivers
from .._cpu.parameters import Results, Split
from .._cpu.signatures import INTEGERS, REALS, Finishing, Joining, Merging, Piece, Winners
from .._scalar.limits import BLOCK
from . import dispatch
from .dispatch import Plan, name_of, rows_in_memory, stream_of, temperatures

#: Winners of runs at a time: 40 MB, unless there are more rows and samples than that.
_WINNERS = 1 << 20


class Law(NamedTuple):
    """What all pieces of a sample have in common; arrays have an entry for each row."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    samples: int
    method: str
    temperatures: Array
    per_row: bool
    ids: Array | None
    mask: Array | None
    raises: bool
    numbers: Array | None  # of the rows, where these are some of them
    seed: int
    draw: int

    @property
    def greedy(self) -> Array:
        """Which rows have temperature 0."""
        return np.broadcast_to(self.temperatures == 0.0, math.prod(self.shape))

    @property
    def wanted(self) -> Array:
        """Which rows are read."""
        return np.ones(math.prod(self.shape), np.bool_) if self.mask is None else self.mask

    def number(self, row: int) -> int:
        """How errors call a row."""
        return row if self.numbers is None else int(self.numbers[row])

    def same(self, other: Law) -> bool:
        """Whether another's pieces may be joined with these."""
        pairs: Iterator[tuple[Any, Any]] = zip(self, other, strict=True)
        return all(np.array_equal(np.asarray(mine), np.asarray(theirs)) for mine, theirs in pairs)


def _ranges(first: int, count: int) -> Iterator[tuple[int, int]]:
    """(first block, level) of the widest nodes of the dyadic tree within `count` blocks from `first` on."""
    end = first + count
    while first < end:
        level = (first & -first).bit_length() - 1 if first else 62
        while first + (1 << level) > end:
            level -= 1
        yield first, level
        first += 1 << level


class Pieces:
    """What is kept of the columns so far."""

    def __init__(self, law: Law) -> None:
        rows = math.prod(law.shape)
        self.law = law
        self.covered: list[tuple[int, int]] = []  # columns, ascending, apart from each other
        self.nodes: dict[tuple[int, int], Array] = {}  # (level, index): (r, S) of each row
        self.edges: dict[int, list[tuple[int, Array]]] = {}  # block: what came of it, with the first column
        self.best = np.zeros((rows, law.samples, REALS))
        self.places = np.full((rows, law.samples, INTEGERS), -1, np.int64)
        greedy = rows if law.greedy.any() else 0
        self.largest, self.largest_at = np.full(greedy, -math.inf), np.full(greedy, -1, np.int64)

    def copy(self) -> Pieces:
        """A record that can go on by itself."""
        made = Pieces.__new__(Pieces)
        made.__dict__ = {
            name: value.copy() if isinstance(value, (np.ndarray, dict, list)) else value
            for name, value in self.__dict__.items()
        }
        made.nodes = {place: node.copy() for place, node in self.nodes.items()}
        made.edges = {block: list(parts) for block, parts in self.edges.items()}
        return made

    @property
    def columns(self) -> int:
        """One more than the last column so far."""
        return self.covered[-1][1] if self.covered else 0

    def update(self, array: Array, start: int) -> None:
        """Add columns `start` and following, the categories last."""
        stop = start + array.shape[-1]
        self._cover(start, stop)
        first, last = -(-start // BLOCK), stop // BLOCK
        if first < last:
            self._whole(array[..., first * BLOCK - start : last * BLOCK - start], first)
        for begin, end in [(start, first * BLOCK), (last * BLOCK, stop)] if first <= last else [(start, stop)]:
            if begin < end:
                rows = np.array(array[..., begin - start : end - start])
                self._part(begin // BLOCK, begin, rows.reshape(-1, end - begin))

    def merge(self, other: Pieces) -> None:
        """Add what another record has, which goes on being usable."""
        law = self.law
        for start, stop in other.covered:
            self._cover(start, stop)
        for (level, index), node in other.nodes.items():
            self._insert(level, index, node.copy())
        merging = Merging(math.prod(law.shape) * law.samples, self._race, other.winners, self.winners)
        drivers.merge_winners(merging)
        self._greedier(other.largest, other.largest_at)
        for block, parts in other.edges.items():
            for at, rows in parts:
                self._part(block, at, rows)

    def finish(self, indices: Array, log_prob: Array, logsumexp: Array) -> int | None:
        """Write the contiguous results of all columns; the first bad row, if any. Nothing can be added afterwards."""
        law, rows = self.law, math.prod(self.law.shape)
        for block in list(self.edges):
            self._whole(self._assembled(block), block)
        stack = sorted(self.nodes.items())  # the lowest level is the rightmost range
        node = stack.pop(0)[1] if stack else np.zeros((rows, 2))
        for _, left in stack:
            _join(left, node)
            node = left
        results = Results(indices, log_prob, logsumexp, None, None, law.samples, 0, law.samples)
        finishing = Finishing(
            rows, temperatures(Temperature(law.temperatures, law.per_row)), law.mask, node, self.winners, results, 64
        )
        bad = dispatch.run(Plan(drivers.driver("accumulated", name_of(law.dtype)), finishing, rows, 64))
        if not self.largest.size:
            return bad
        greedy = law.greedy & law.wanted
        good = greedy & np.isfinite(self.largest)
        each, top = (rows, law.samples), self.largest[good]
        indices.reshape(each)[good], log_prob.reshape(each)[good] = self.largest_at[good, None], 0.0
        logsumexp.reshape(rows)[good] = np.where(top == 0, 0.0, np.copysign(math.inf, top))
        wrong = np.flatnonzero(greedy & ~good)
        return min((int(row) for row in (*wrong[:1], bad) if row is not None), default=None)

    @property
    def winners(self) -> Winners:
        """The best so far, as kernels take them."""
        return Winners(self.best, self.places)

    @property
    def _race(self) -> int:
        return int(self.law.method == "gumbel_max")

    def _whole(self, array: Array, first: int) -> None:
        """Add whole blocks from number `first` on; the last of a row may be shorter."""
        law, rows, columns = self.law, math.prod(self.law.shape), array.shape[-1]
        blocks = -(-columns // BLOCK)
        if rows == 0:
            return
        self._look_for_largest(array, first * BLOCK)
        ranges = list(_ranges(first, blocks))
        segments, size = dispatch._segments(rows, columns)
        while segments > 1 and rows * segments * law.samples > _WINNERS:
            size *= 2
            segments = -(-blocks // size)
        plan = np.array([(begin - first, level) for begin, level in ranges], np.int64)
        nodes, found = np.empty((rows, blocks, 2)), np.zeros((rows, len(ranges), 2))
        keys = np.empty((rows, segments, law.samples, REALS))
        places = np.empty((rows, segments, law.samples, INTEGERS), np.int64)
        pending = np.full(rows, segments, np.int64)
        parameters = Piece(
            rows_in_memory(array),
            stream_of((law.seed, law.draw), law.ids),
            temperatures(Temperature(law.temperatures, law.per_row)),
            law.mask,
            law.samples,
            self._race,
            Split(segments, size, 1, 1, pending),
            first,
            len(ranges),
            plan,
            nodes,
            found,
            Winners(keys, places),
            self.winners,
        )
        driver = drivers.driver(f"accumulate_{law.method}", name_of(law.dtype))
        dispatch.run(Plan(driver, parameters, rows * segments, min(size * BLOCK, columns)))
        bad = np.isnan(found[..., 1]).any(1)
        if self.largest.size:
            bad |= law.greedy & law.wanted & ~(self.largest < math.inf)
        if law.raises and bad.any():
            row = int(np.argmax(bad))
            checks.invalid_row(array, row, first * BLOCK, law.number(row))
        for n, (begin, level) in enumerate(ranges):
            self._insert(level, begin >> level, found[:, n].copy())

    def _insert(self, level: int, index: int, node: Array) -> None:
        """Add a node of each row, and join it with its sibling, and so on."""
        while (sibling := self.nodes.pop((level, index ^ 1), None)) is not None:
            left, right = (sibling, node) if index & 1 else (node, sibling)
            _join(left, right)
            level, index, node = level + 1, index >> 1, left
        self.nodes[level, index] = node

    def _part(self, block: int, start: int, rows: Array) -> None:
        """Keep a part of a block, or add the block if it is whole now."""
        parts = self.edges.setdefault(block, [])
        parts.append((start, rows))
        if sum(part.shape[-1] for _, part in parts) == BLOCK:
            self._whole(self._assembled(block), block)

    def _assembled(self, block: int) -> Array:
        """The parts of a block, side by side."""
        parts = sorted(self.edges.pop(block), key=lambda part: part[0])
        together = np.concatenate([rows for _, rows in parts], -1)
        return together.reshape(*self.law.shape, together.shape[-1])

    def _cover(self, start: int, stop: int) -> None:
        """Note that these columns have come."""
        for begin, end in self.covered:
            if start < end and begin < stop:
                raise ValueError(f"columns {max(start, begin)} .. {min(stop, end) - 1} were given before")
        joined: list[tuple[int, int]] = []
        for begin, end in sorted([*self.covered, (start, stop)]):
            if joined and joined[-1][1] == begin:
                joined[-1] = joined[-1][0], end
            else:
                joined.append((begin, end))
        self.covered = joined

    def _look_for_largest(self, array: Array, start: int) -> None:
        """The largest logits of rows of temperature 0, if there are any."""
        if not self.largest.size:
            return
        largest, places = np.full_like(self.largest, -math.inf), np.full_like(self.largest_at, -1)
        for row in np.flatnonzero(self.law.greedy & self.law.wanted):
            values = array[np.unravel_index(row, self.law.shape)].astype(np.float64)
            at = int(np.argmax(values))  # NaN, if there is one
            largest[row], places[row] = values[at], at + start
        self._greedier(largest, places)

    def _greedier(self, largest: Array, at: Array) -> None:
        """Take logits that are larger, or NaN, or equal and before."""
        known = ~np.isnan(self.largest)
        better = (largest > self.largest) | np.isnan(largest) | ((largest == self.largest) & (at < self.largest_at))
        better &= known & (at >= 0)
        self.largest[better], self.largest_at[better] = largest[better], at[better]


def _join(left: Array, right: Array) -> None:
    """Join nodes of each row, in place."""
    drivers.join_rows(Joining(len(left), left, right))
