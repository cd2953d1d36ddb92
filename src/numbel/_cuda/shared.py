"""Shared memory of a CUDA block, by what it is for: a kernel makes each of these once, before its loop.

An array stands on a line of its own: the simulator knows it by that.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from numba import cuda, float64, int64, types, uint64

from .._scalar.blocks import LANES
from .forms import Form, device, vector

#: Entries for one of each thread, of which there are at most as many (but for `truncation.find_cut`).
PER_THREAD = 128
#: Levels of a tree: more than any over 2^34 columns in runs of THREADS blocks has.
LEVELS = 32


class Extremes(NamedTuple):
    """Of each thread its largest and its smallest ordered number."""

    largest: Any
    smallest: Any


class BlockScratch(NamedTuple):
    """What makes the partial sum of a block: the sums of its lanes, and the extremes of its logits."""

    lanes: Any
    extremes: Any


class JoinScratch(NamedTuple):
    """What joins the partial sums of a row's blocks: those of a run, and the open left siblings of each level."""

    exponents: Any
    mantissas: Any
    open_exponents: Any
    open_mantissas: Any


class ChoiceScratch(NamedTuple):
    """What chooses a column of a block: its lanes, and of each thread the quantised sum of its lanes.

    `extremes.largest[0]` becomes the column.
    """

    lanes: Any
    sums: Any
    extremes: Any


class Entries(NamedTuple):
    """Keys, and the column or the place (`gumbel.place_of`) of each, -1 where there is none."""

    keys: Any
    places: Any


#: The Numba type of entries in device memory.
ENTRIES = types.NamedTuple([vector(float64), vector(int64)], Entries)


@device
def extremes_scratch():
    """Extremes of a block."""
    largest = cuda.shared.array(PER_THREAD, int64)
    smallest = cuda.shared.array(PER_THREAD, int64)
    return Extremes(largest, smallest)


@functools.cache
def block_scratch(form: Form) -> Any:
    """The device function that makes a BlockScratch."""
    wide = form.wide

    @device
    def made():
        lanes = cuda.shared.array(LANES, wide)
        return BlockScratch(lanes, extremes_scratch())

    return made


@device
def join_scratch():
    """A JoinScratch."""
    exponents = cuda.shared.array(PER_THREAD, float64)
    mantissas = cuda.shared.array(PER_THREAD, float64)
    open_exponents = cuda.shared.array(LEVELS, float64)
    open_mantissas = cuda.shared.array(LEVELS, float64)
    return JoinScratch(exponents, mantissas, open_exponents, open_mantissas)


@functools.cache
def choice_scratch(form: Form) -> Any:
    """The device function that makes a ChoiceScratch."""
    wide = form.wide

    @device
    def made():
        lanes = cuda.shared.array(LANES, wide)
        sums = cuda.shared.array(PER_THREAD, uint64)
        return ChoiceScratch(lanes, sums, extremes_scratch())

    return made


@device
def thread_entries():
    """An entry of each thread."""
    keys = cuda.shared.array(PER_THREAD, float64)
    places = cuda.shared.array(PER_THREAD, int64)
    return Entries(keys, places)
