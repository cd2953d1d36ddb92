"""Block sums, nodes and the dyadic tree: no guess, segmentation or neighbour changes a bit."""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction

import numba
import numpy as np
import pytest
from numba import float64, int64

import numbel
import oracle
from numbel._cpu import blocks as cpu
from numbel._cpu.blocks import LANE_SPACE
from numbel._cpu.scratch import local
from numbel._scalar import blocks as scalar
from numbel._scalar.blocks import LANES

njit = numba.njit(error_model="numpy")
KINDS = {np.float32: np.float32(0), np.float64: np.float64(0)}


@functools.cache
def _functions(dtype):
    """(The node of a block, choices inside it), by the library's loops."""

    @njit
    def node(kind, address, count, temperature, guess):
        lanes = local(LANE_SPACE, dtype)
        return cpu.block_node(kind, address, count, cpu.scale_of(kind, temperature), guess, lanes)

    @njit
    def choose(kind, address, count, temperature, words, chosen):
        lanes, shares, runs = local(LANE_SPACE, dtype), local(LANES, np.uint64), local(LANES, np.uint64)
        scale, choice = cpu.scale_of(kind, temperature), cpu.Choice(shares, runs)
        block = cpu.open_block(kind, address, count, scale, lanes, False, choice)
        for i in range(words.size):
            chosen[i] = cpu.choose(kind, block, scale, words[i], choice)
        return block.total

    return node, choose


def node(x, temperature=1.0, guess=0.0):
    """(reference, r, S) of a block by the library."""
    dtype = x.dtype.type
    r, node_r, node_s = _functions(dtype)[0](KINDS[dtype], x.ctypes.data, len(x), float(temperature), dtype(guess))
    return float(r), float(node_r), float(node_s)


@njit
def _root(rs, totals, cuts):
    """The root over leaves, in segments that end at `cuts`; each segment has a stack of its own."""
    outer = cpu.Stack(np.zeros(cpu.LEVELS), np.zeros(cpu.LEVELS))
    first = 0
    for g in range(cuts.size):
        inner = cpu.Stack(np.zeros(cpu.LEVELS), np.zeros(cpu.LEVELS))
        for i in range(first, cuts[g]):
            cpu.push(inner, int64(i - first), rs[i], totals[i])
        r, s = cpu.collapse(inner, int64(cuts[g] - first))
        cpu.push(outer, int64(g), float64(r), float64(s))
        first = cuts[g]
    return cpu.collapse(outer, int64(cuts.size))


def root(nodes, size=1):
    rs, totals = np.array([r for r, _ in nodes], float), np.array([s for _, s in nodes], float)
    cuts = np.minimum(np.arange(1, -(-len(nodes) // size) + 1) * size, len(nodes))
    return _root(rs, totals, cuts)


def unit_of(dtype):
    return 128 if dtype is np.float32 else 1024


def cases(dtype, rng):
    """Blocks of many lengths: ordinary, far apart, straddling a cell, impossible categories, huge."""
    unit = unit_of(dtype)
    for count in (1, 2, 3, 64, 255, 256, 511, 512, 513, 1000, 4095, 4096):
        yield rng.standard_normal(count).astype(dtype)
        yield (rng.standard_normal(count) * 100).astype(dtype)
        yield (rng.standard_normal(count) * 3000 - 9000).astype(dtype)
        # a maximum at the edge of a reference cell, the others around it
        edge = (rng.integers(-3, 4) * unit + unit / 2 - 0.5) * math.log(2)
        x = (edge - rng.exponential(size=count)).astype(dtype)
        x[rng.integers(count)] = dtype(edge)
        yield x
        yield np.nextafter(x, dtype(np.inf))
        yield np.nextafter(x, dtype(-np.inf))
        y = rng.standard_normal(count).astype(dtype)
        y[rng.random(count) < 0.7] = -np.inf
        yield y
        yield (rng.standard_normal(count) * 10.0 ** rng.uniform(5, 30)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.37, 1e-3, 1e3])
def test_every_guess_gives_the_oracles_node(dtype, temperature):
    rng = np.random.default_rng(20)
    unit = unit_of(dtype)
    for x in cases(dtype, rng):
        block = oracle.Block(x, temperature)
        near = [block.reference + k * unit for k in (-33, -3, -2, -1, 0, 1, 2, 3)]
        for guess in {0.0, *near, 4096.0 * 60, -4096.0 * 60, 4096.0 * 1000, -4096.0 * 1000}:
            if abs(guess) >= (scalar.FAR_FLOAT32 if dtype == np.float32 else scalar.FAR_FLOAT64):
                continue
            after, r, s = node(x, temperature, guess)
            assert (r, s) == (block.r, block.s), (len(x), guess)
            assert after % unit == 0
            if not block.far and block.s > 0:
                assert after == block.reference, "the canonical reference is the next guess"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bad_blocks_under_every_guess(dtype):
    """NaN and +inf give S = NaN wherever they stand, -inf alone gives the empty node."""
    rng = np.random.default_rng(21)
    unit = unit_of(dtype)
    for guess in (0, unit, -unit, 30 * unit, -30 * unit):
        for count in (1, 5, 512, 513, 4096):
            assert node(np.full(count, -np.inf, dtype), 1.0, guess)[1:] == (0.0, 0.0)
            for bad in (np.nan, -np.nan, np.inf):
                for size in (1.0, 1e4, 1e25):
                    x = (rng.standard_normal(count) * size).astype(dtype)
                    x[rng.integers(count)] = bad
                    assert math.isnan(node(x, 1.0, guess)[2]), (guess, count, bad, size)
            x = np.full(count, -np.inf, dtype)
            x[count // 2] = np.nan
            assert math.isnan(node(x, 1.0, guess)[2])
            x[0], x[-1] = np.nan, np.inf
            assert math.isnan(node(x, 1.0, guess)[2])


def test_sums_that_nearly_prove_a_wrong_reference():
    """4096 weights span 12.5 bits: a sum at either end of what proves a reference must lie in its cell."""
    for dtype in (np.float32, np.float64):
        unit = unit_of(dtype)
        for count in (1, 4096):
            for n in range(-unit, unit + 1, 1 if dtype is np.float32 else 7):
                x = np.full(count, n * math.log(2), dtype)
                block = oracle.Block(x[:1], 1.0)
                for guess in (-unit, 0, unit):
                    after, r, s = node(x, 1.0, guess)
                    assert after == block.reference, (n, guess, count)
                    assert math.log2(s) + r == pytest.approx(n + math.log2(count), abs=1e-4)


def random_nodes(count, rng, spread):
    nodes = [
        (float(128 * rng.integers(-spread, spread + 1)), math.ldexp(rng.uniform(1, 2), int(rng.integers(-60, 60))))
        for _ in range(count)
    ]
    return [(0.0, 0.0) if rng.random() < 0.1 else leaf for leaf in nodes]


@pytest.mark.parametrize("spread", [0, 1, 2, 3, 100000])
def test_segments_change_no_bit(spread):
    """Segments of any power of two of blocks join to the root of the whole; and that is the oracle's tree."""
    rng = np.random.default_rng(22)
    for count in (*range(1, 40), 63, 64, 65, 127, 100, 255, 1000, 4097):
        nodes = random_nodes(count, rng, spread)
        expected = oracle.tree(nodes)
        for size in (1, 2, 4, 8, 16, 64, 1024, 8192):
            assert root(nodes, size) == expected, (count, size)


def test_maximal_dyadic_nodes_join_to_the_root():
    """Shards [a, b) that keep maximal dyadic nodes only, cut anywhere, give the root."""
    rng = np.random.default_rng(23)
    for _ in range(200):
        count = int(rng.integers(1, 200))
        leaves = random_nodes(count, rng, 2)
        kept = {}
        cuts = sorted({0, count, *rng.integers(0, count + 1, 3).tolist()})
        for a, b in itertools.pairwise(cuts):
            while a < b:
                level = (a & -a).bit_length() - 1 if a else 40
                while a + (1 << level) > b:
                    level -= 1
                kept[level, a >> level] = root(leaves[a : a + (1 << level)])
                a += 1 << level
        for level in range(40):
            for at in sorted(i for lv, i in kept if lv == level):
                if (level, at) not in kept:
                    continue
                value = kept.pop((level, at))
                sibling = kept.pop((level, at ^ 1), None) if (at ^ 1) << level < count else None
                if sibling is None:
                    assert at % 2 == 0
                    kept[level + 1, at >> 1] = value  # no right sibling: it rises unchanged
                else:
                    pair = (value, sibling) if at % 2 == 0 else (sibling, value)
                    kept[level + 1, at >> 1] = root(pair)
        assert list(kept.values()) == [oracle.tree(leaves)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_whose_blocks_lie_far_apart(dtype):
    """Blocks with references some thousands apart, in every order: logsumexp and log_prob of the oracle."""
    rng = np.random.default_rng(24)
    offsets = np.array([0, -40, 88.4, 89, -3000, 3000, 3050, 3100, 2970.5])
    tolerance = 1e-6 if dtype is np.float32 else 4e-15
    for _ in range(12):
        order = rng.permutation(offsets)
        x = np.concatenate([rng.standard_normal(4096) + offset for offset in order])[: -int(rng.integers(1, 4000))]
        x = x.astype(dtype)
        temperature = float(rng.choice([1.0, 0.5, 3.0]))
        drawn = numbel.Generator(24).sample(x, 8, temperature=temperature)
        exact = oracle.log_sum_exp(x, temperature)
        assert abs(float(drawn.logsumexp) - exact) <= tolerance * max(1, abs(exact))
        probabilities = oracle.log_probabilities(x, temperature)[drawn.indices]
        assert np.all(np.abs(drawn.log_prob - probabilities) <= 4 * tolerance * np.maximum(1, np.abs(probabilities)))
        blocks = oracle.blocks_of_row(x, temperature)
        assert drawn.indices.tolist() == oracle.grouped(x, temperature, 24, 0, samples=8, blocks=blocks)


def choices(x, words):
    """(column of each word, sum of the lanes' shares) by the library."""
    chosen, dtype = np.empty(len(words), np.int64), x.dtype.type
    choose = _functions(dtype)[1]
    total = choose(KINDS[dtype], x.ctypes.data, x.size, 1.0, np.array(words, np.uint64), chosen)
    return chosen.tolist(), int(total)


def edges(block, step=1):
    """(the words at both edges of every `step`-th share of a block that is not empty, its column), and the sum."""
    columns, shares = block.shares()
    ends = list(itertools.accumulate(shares))
    total = ends[-1]
    found = {}
    for column, share, end in list(zip(columns, shares, ends, strict=True))[::step]:
        if share > 0:  # a word w stands for w total >> 64
            first, last = -(-((end - share) << 64) // total), -(-(end << 64) // total) - 1
            found |= {first: column, last: column}
    return found, total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_choice_inside_a_block(dtype):
    """Every extreme choice word, and the words at the edges of shares, against Python integers."""
    rng = np.random.default_rng(25)
    for count in (1, 2, 255, 256, 257, 300, 512, 513, 1000, 4095, 4096):
        for scale in (1.0, 30.0, 1e4, 1e26):
            x = (rng.standard_normal(count) * scale).astype(dtype)
            x[rng.random(count) < 0.3] = -np.inf
            x[0] = x[-1] = -np.inf if count > 2 else 0.0
            if not np.isfinite(x).any():
                x[count // 2] = 1.0
            block = oracle.Block(x, 1.0)
            found, due = edges(block, max(1, count // 97))
            words = [0, 1, 2**32, 2**63, 2**64 - 2, 2**64 - 1, *found]
            chosen, total = choices(x, words)
            assert total == due
            assert chosen == [block.choose(word) for word in words]
            assert chosen[6:] == list(found.values())
            assert np.all(x[chosen] > -np.inf), "an impossible category was chosen"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_share_of_a_block_is_its_weights(dtype):
    """The shares of a block are its law to 4.2e-7 in total variation, and one of 2^-50 of the largest is not lost.

    Rows whose lanes round most: a large weight before seven small ones, up to half a unit each in its last place.
    """
    rng = np.random.default_rng(26)
    bound = 7 * float(np.finfo(dtype).eps) / 2
    for number in range(40):
        count = int(rng.choice([512, 700, 1024, 4096]))
        x = rng.standard_normal(count) * 10.0 ** rng.uniform(-2, 1.5)
        if number % 4 == 1:  # half of the lanes round down, half up
            small = rng.uniform(0.5, 0.5 + 1e-3, count) * np.where(np.arange(count) % 512 < 256, 0.99, 1.01)
            x = np.where(np.arange(count) < 512, 0.0, np.log(small * np.finfo(dtype).eps))
        if number % 4 == 2:  # the first and the last column of each lane at the edge of what is reached
            x = np.where(rng.random(count) < 0.5, 0.0, -50 * math.log(2) + rng.uniform(-0.1, 0.1, count))
        if number % 4 == 3:
            x[rng.random(count) < 0.8] = -np.inf
            x[0] = 0.0
        x = x.astype(dtype)
        block = oracle.Block(x, 1.0)
        columns, shares = block.shares()
        assert sorted(columns) == list(range(count))
        weights = [Fraction(float(w)) for w in block.weights]
        ratio = Fraction(sum(shares)) / sum(weights)
        distance = sum(abs(share - ratio * weights[at]) for at, share in zip(columns, shares, strict=True))
        # and what is rounded down: less than a unit for each column, of the largest's 2^49.5 or more
        assert distance / (2 * sum(shares)) < bound + count * 2.0**-49.5
        unit = Fraction(2) ** (block.rise - 50)
        for at, share in zip(columns, shares, strict=True):
            assert share > 0 or weights[at] < unit
            assert share >= 0
            assert share == 0 or weights[at] > 0
        found, _ = edges(block)
        assert choices(x, list(found))[0] == list(found.values())
