"""A slow twin of numbel, written from its stated rules with NumPy and Python integers only.

It imports nothing of numbel. Two uses: `Block`, `grouped` and `node_of_row` repeat the canonical arithmetic
bit for bit; `probabilities`, `log_sum_exp` and `gumbel_max` follow the mathematics, in extended precision.
"""

from __future__ import annotations

import bisect
import itertools
import math
from fractions import Fraction

import numpy as np

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
NOISE, REFINEMENT, GROUPED, TABLE, TRUNCATED, CONDITIONAL, CONDITIONAL_REFINEMENT, COUNTS = range(8)
BLOCK, LANES = 4096, 512

# ---------------------------------------------------------------------------------------------- random words


def philox4x32(counter, key, rounds=10):
    """Philox4x32 on four counter words and two key words, integers or arrays of them; uint64 below 2^32."""
    mask, half = np.uint64(MASK32), np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) & mask for c in counter)
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (p1 >> half) ^ c1 ^ np.uint64(k0),
            p1 & mask,
            (p0 >> half) ^ c3 ^ np.uint64(k1),
            p0 & mask,
        )
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def mix64(z):
    """SplitMix64's finalizer on a Python integer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def draw_key(seed, draw):
    """Key and mask of a draw."""
    gamma = 0x9E3779B97F4A7C15
    key = mix64(mix64((seed + gamma) & MASK64) ^ draw)
    return key, mix64(((seed ^ key) + gamma) & MASK64)


def block_words(seed, draw, block, sample, row, tag):
    """The four words of the Philox block numbered `block` (a column >> 2, or what the tag says)."""
    key, mask = draw_key(seed, draw)
    row = np.asarray(row, np.uint64)
    counter = (
        block,
        np.asarray(sample, np.uint64) ^ np.uint64(mask & MASK32),
        (row & np.uint64(MASK32)) ^ np.uint64(mask >> 32),
        np.uint64(tag << 24) | (row >> np.uint64(32)),
    )
    return philox4x32(counter, (key & MASK32, key >> 32))


def noise_words(seed, draw, column, sample, row, tag=NOISE):
    """One word for each (column, sample, row), which broadcast."""
    column = np.asarray(column, np.uint64)
    words = np.stack(np.broadcast_arrays(*block_words(seed, draw, column >> np.uint64(2), sample, row, tag)))
    word = np.broadcast_to((column & np.uint64(3)).astype(np.int64), words.shape[1:])
    return np.take_along_axis(words, word[None], 0)[0]


# ------------------------------------------------------------------------------------------------------ noise


def tail(x, y):
    """(t, near) of words x, y: t = V (near: V < 1/2) or 1 - V, V = (x 2^32 + y + 1/2) 2^-64, as longdouble."""
    whole = (np.asarray(x, np.uint64) << np.uint64(32)) | np.asarray(y, np.uint64)
    near = whole < np.uint64(1 << 63)
    t = (np.where(near, whole, ~whole).astype(np.longdouble) + np.longdouble(0.5)) * np.longdouble(2.0**-64)
    return t, near


def exponential(x, y):
    """E = -ln(1 - V), as longdouble."""
    t, near = tail(x, y)
    return -np.where(near, np.log1p(-t), np.log(t))


def gumbel(x, y):
    """G = -ln E, as longdouble."""
    return -np.log(exponential(x, y))


def gumbel_of_word(x):
    """G of an unrefined word: v = (x + 1/2) 2^-32."""
    return gumbel(x, np.uint64(1 << 31)) if np.ndim(x) == 0 else gumbel(x, np.full(len(x), 1 << 31, np.uint64))


def noise(seed, draw, columns, row=0, sample=0):
    """The float64 noise of a row, still in longdouble."""
    column = np.arange(columns) if np.ndim(columns) == 0 else columns
    return gumbel(*(noise_words(seed, draw, column, sample, row, tag) for tag in (NOISE, REFINEMENT)))


def noise_float32_law(seed, draw, columns, row=0):
    """What float32 noise is rounded from: y enters only within 2^20 of either end."""
    column = np.arange(columns)
    x, y = (noise_words(seed, draw, column, 0, row, tag) for tag in (NOISE, REFINEMENT))
    refined = (x < np.uint64(1 << 20)) | (x >= np.uint64((1 << 32) - (1 << 20)))
    return np.where(refined, gumbel(x, y), gumbel_of_word(x)), refined


# ------------------------------------------------------------------------------------------ the law, in real numbers


def log_sum_exp(logits, temperature=1.0):
    """ln(sum(exp(logits / T))) as longdouble."""
    z = np.asarray(logits).astype(np.longdouble) / np.longdouble(temperature)
    top = z.max()
    return top + np.log(np.exp(z - top).sum())


def log_probabilities(logits, temperature=1.0):
    """logits / T - logsumexp, the large parts cancelled first."""
    x = np.asarray(logits).astype(np.longdouble)
    z = (x - x.max()) / np.longdouble(temperature)
    return z - np.log(np.exp(z).sum())


def probabilities(logits, temperature=1.0):
    """softmax(logits / T) as float64, summing to 1."""
    p = np.exp(log_probabilities(logits, temperature)).astype(np.float64)
    return p / p.sum()


def gumbel_max(logits, temperature, seed, draw, row=0, sample=0):
    """The first in `perturbed_order`."""
    with np.errstate(all="ignore"):
        scaled = np.asarray(logits).astype(np.float64) / np.float64(temperature)
    return int(perturbed_order(scaled, noise(seed, draw, len(scaled), row, sample).astype(np.float64))[0])


def perturbed_order(scaled, noise):
    """Columns by descending fl64(logit / T + G64), equal ones by what the sum lost, in units of 2^-22, then by index.

    The loss counts where the sum reaches 2^28; float64 arrays, the categories last.
    """
    with np.errstate(all="ignore"):
        keys, lost = _two_sum(scaled, noise)
        large = (np.abs(keys) >= 2.0**28) & np.isfinite(keys)
        rank = np.where(large, np.floor((46 - lost) * 2.0**22 + 0.5), 0)
    return np.lexsort((rank, -keys), axis=-1)


# ------------------------------------------------------------------------------------------------ exact arithmetic


def fma_exact(a, b, c):
    """a b + c rounded once, finite float64 scalars, by rational arithmetic."""
    value = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    return value.numerator / value.denominator


def _two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _to_odd(s, error):
    """s + error, |error| <= ulp(s) / 2, rounded to the neighbour with an odd last bit unless exact."""
    bits = s.view(np.int64)
    move = np.isfinite(s) & (error != 0) & ((bits & 1) == 0)
    return np.where(move, np.where((error > 0) == (s > 0), bits + 1, bits - 1), bits).view(np.float64)


def fma(a, b, c):
    """a b + c rounded once, elementwise, in the dtype of a (float32 or float64)."""
    dtype = np.asarray(a).dtype
    a, b, c = (np.array(v, dtype=np.float64, ndmin=1) for v in np.broadcast_arrays(a, b, c))
    with np.errstate(all="ignore"):
        if dtype == np.float32:
            s, error = _two_sum(a * b, c)  # the product of two float32 is exact
            return _to_odd(s, error).astype(np.float32)
        product = a * b
        split = 134217729.0
        ah, bh = (split * a) - (split * a - a), (split * b) - (split * b - b)
        al, bl = a - ah, b - bh
        rest = ((ah * bh - product) + ah * bl + al * bh) + al * bl
        th, tl = _two_sum(c, rest)
        vh, vl = _two_sum(product, th)
        z, e = _two_sum(tl, vl)
        result = vh + _to_odd(z, e)
        size = np.abs(product)
        plain = ~np.isfinite(product) | ~np.isfinite(c) | (product == 0)
        result = np.where(plain, product + c, result)
        unsafe = ~plain & ((size < 1e-250) | (size > 1e250) | (np.abs(a) > 1e250) | (np.abs(b) > 1e250))
        if unsafe.any():  # rows of a few subnormals many times: each triple once
            triples, places = np.unique(np.stack((a, b, c), -1)[unsafe], axis=0, return_inverse=True)
            result[unsafe] = np.array([fma_exact(*triple) for triple in triples.tolist()])[places.reshape(-1)]
    return result


_LOG2E, _LOG2E_LOW = 1.4426950408889634, 2.0355273740931033e-17
_EXP2_FLOAT32 = np.array(
    [1.3269521e-3, 9.671291e-3, 5.550711e-2, 2.4022247e-1, 6.93147e-1, 1.0], dtype=np.float32
)  # fmt: skip
_EXP2_FLOAT64 = np.array(
    [
        4.4549605981865186e-10, 7.072585949269223e-09, 1.0178062445845774e-07, 1.321544258792169e-06,
        1.525273382983612e-05, 0.0001540353044173605, 0.0013333558146416936, 0.009618129107606888,
        0.0555041086648216, 0.24022650695910097, 0.6931471805599453, 1.0,
    ]
)  # fmt: skip


def exp2_fraction(f):
    """The polynomial for 2^f, |f| <= 1/2."""
    p = None
    for coefficient in _EXP2_FLOAT32 if f.dtype == np.float32 else _EXP2_FLOAT64:
        p = np.full_like(f, coefficient) if p is None else fma(p, f, coefficient)
    return p


def scale(temperature):
    """log2(e) / T as a pair of float64."""
    high = _LOG2E / temperature
    low = (float(fma(np.float64(-high), temperature, _LOG2E)[0]) + _LOG2E_LOW) / temperature
    return high, low


def _factors(temperature, dtype):
    high, low = scale(temperature)
    if dtype == np.float64:
        return np.float64(high), np.float64(low)
    first = np.float32(high)
    return first, np.float32((high - float(first)) + low)


def floor_to(n, unit):
    """unit floor((n + unit / 2) / unit) of an integer n."""
    return unit * ((int(n) + unit // 2) // unit)


class Block:
    """At most 4096 logits (widened to float32 or float64): canonical reference, weights, node, integers."""

    def __init__(self, x, temperature):
        x = np.ascontiguousarray(x)
        self.dtype = x.dtype
        self.unit = 128 if x.dtype == np.float32 else 1024
        high, low = _factors(temperature, x.dtype)
        self.maximum = x.max()
        self.r, self.s = 0.0, 0.0
        self.far, self.reference, self.rise, self._shares = False, 0, 0, None
        if self.maximum == -np.inf:
            self.weights = np.zeros_like(x)
            return
        with np.errstate(all="ignore"):
            z = self.maximum * high
            self.far = not abs(z) < 4194303.0
            if not self.far:
                top = int(self._rounded(np.array([self.maximum]), high)[0])
                self.reference = floor_to(top, self.unit)
                self.far = not abs(self.reference) < (2**18 if x.dtype == np.float32 else 2**22) - 4096
                self.rise = top - self.reference
            if self.far:
                x, self.reference, self.rise = x - self.maximum, 0, 0
            self.weights = self._weights(x, high, low)
        self.total = self._lanes()
        self._node(temperature)

    def _rounded(self, x, high):
        if self.dtype == np.float32:
            return np.rint(x.astype(np.float64) * np.float64(high))
        return fma(x, high, 6755399441055744.0) - 6755399441055744.0

    def _weights(self, x, high, low):
        n = self._rounded(x, high)
        least = -125 if self.dtype == np.float32 else -1021
        kept = n - self.reference >= least  # False for -inf
        x, n = np.where(kept, x, 0).astype(self.dtype), np.where(kept, n, 0)
        f = fma(x, low, fma(x, high, (-n).astype(self.dtype)))
        w = np.ldexp(exp2_fraction(f), (n - self.reference).astype(np.int64))
        return np.where(kept, w, 0).astype(self.dtype)

    def lane_sums(self):
        """The sums of columns l, l + 512, ..., each rounded after every addition."""
        padded = np.zeros(BLOCK, self.dtype)
        padded[: len(self.weights)] = self.weights
        lanes = np.zeros(LANES, self.dtype)
        for part in padded.reshape(-1, LANES):
            lanes = lanes + part
        return lanes

    def _lanes(self):
        lanes = self.lane_sums()
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        return lanes[0]

    def _node(self, temperature):
        total = float(self.total)
        if not self.far:
            self.r, self.s = float(self.reference), total
            if self.dtype == np.float64:
                move = floor_to(math.frexp(total)[1] - 1, 128)
                self.r, self.s = self.r + move, math.ldexp(total, -move)
            return
        high, low = scale(temperature)
        maximum = np.float64(self.maximum)
        z = maximum * high
        if not abs(z) < 2.0**52:
            self.r, self.s = float(z), total
            return
        n = (z + 6755399441055744.0) - 6755399441055744.0
        f = fma(maximum, low, fma(maximum, high, -n))
        shift = np.rint(f)
        self.r = float(n + shift[0])
        self.s = float(total * exp2_fraction(f - shift)[0])

    def integers(self, values=None):
        """floor(w 2^(50 - rise)) of the weights, or of these, as Python integers."""
        values = self.weights if values is None else values
        return [int(v) for v in np.floor(np.ldexp(values.astype(np.float64), 50 - self.rise))]

    def shares(self):
        """(columns, what each has of the choice inside) in the order in which the choice goes through them.

        Lane by lane, and in a lane all but its first largest column, which comes last and has what they leave.
        """
        if self._shares is not None:
            return self._shares
        quantised, columns, shares = self.integers(), [], []
        for lane, whole in enumerate(self.integers(self.lane_sums()[: len(self.weights)])):
            own = list(range(lane, len(self.weights), LANES))
            largest = max(own, key=lambda i: self.weights[i])
            own.remove(largest)
            columns += [*own, largest]
            shares += [*(quantised[i] for i in own), whole - sum(quantised[i] for i in own)]
        self._shares = columns, shares
        return self._shares

    def choose(self, word):
        """The column that the 64-bit choice word selects."""
        columns, shares = self.shares()
        ends = list(itertools.accumulate(shares))
        return columns[bisect.bisect_right(ends, (word * ends[-1]) >> 64)]


def join(left, right):
    """The node of two siblings."""
    if left[1] == 0:
        return right
    if right[1] == 0:
        return left
    r = max(left[0], right[0])
    parts = [math.ldexp(s, int(at - r)) if r - at < 256 else 0.0 for at, s in (left, right)]
    return r, parts[0] + parts[1]


def tree(nodes):
    """The root of the dyadic tree over `nodes`."""
    nodes = list(nodes)
    while len(nodes) > 1:
        pairs = [join(nodes[i], nodes[i + 1]) for i in range(0, len(nodes) - 1, 2)]
        nodes = pairs + nodes[2 * len(pairs) :]
    return nodes[0]


def widened(logits):
    """float64 as it is, everything else as float32."""
    logits = np.asarray(logits)
    return logits if logits.dtype == np.float64 else logits.astype(np.float32)


def blocks_of_row(logits, temperature):
    """The row's blocks."""
    x = widened(logits)
    return [Block(x[i : i + BLOCK], temperature) for i in range(0, len(x), BLOCK)]


def beats(rho1, r1, rho2, r2):
    """Whether rho1 2^-r1 < rho2 2^-r2, by rationals where r1, r2 are within 512."""
    d = r1 - r2
    if abs(d) >= 512:
        return d > 0
    return Fraction(rho1) * Fraction(2) ** int(-d) < Fraction(rho2)


def grouped(logits, temperature, seed, draw, row=0, samples=1, blocks=None, tag=GROUPED):
    """Sampled columns of a row by the grouped method."""
    blocks = blocks_of_row(logits, temperature) if blocks is None else blocks
    chosen = []
    for sample in range(samples):
        x0, x1, x2, x3 = (w.tolist() for w in block_words(seed, draw, np.arange(len(blocks)), sample, row, tag))
        best = None
        for b, block in enumerate(blocks):
            if not block.s > 0:
                continue
            rho = float(exponential(np.uint64(x0[b]), np.uint64(x1[b]))) / block.s
            if best is None or beats(rho, block.r, best[0], best[1]):
                best = (rho, block.r, b)
        b = best[2]
        chosen.append(b * BLOCK + blocks[b].choose((x2[b] << 32) | x3[b]))
    return chosen


def node_of_row(logits, temperature, blocks=None):
    """The row's node (r, S)."""
    blocks = blocks_of_row(logits, temperature) if blocks is None else blocks
    return tree([(block.r, block.s) for block in blocks])


# ----------------------------------------------------------------------------------------------------- truncation


def masses(logits, temperature):
    """exp((logit - largest) / T) in units of 2^-62, integers."""
    z = np.asarray(logits).astype(np.longdouble)
    with np.errstate(all="ignore"):
        w = np.exp((z - z.max()) / np.longdouble(temperature))
    return np.floor(w * np.longdouble(2.0**62)).astype(np.int64).tolist()


def kept(logits, temperature=1.0, top_k=None, top_p=None, min_p=None, mass=None):
    """The columns that are kept, in the total order, and how near top_p's boundary is to a prefix, of 1.

    `mass` gives each column's as an integer; None: that of the mathematics. top_p counts in steps of 2^-40.
    """
    x = np.asarray(logits).astype(np.float64) + 0.0
    order = np.lexsort((np.arange(len(x)), -x))
    order = order[: np.count_nonzero(x > -np.inf)].tolist()
    order = order[: len(order) if top_k is None else int(top_k)]
    gap = 1.0
    if top_p is not None and top_p < 1:
        mass = masses(logits, temperature) if mass is None else mass
        parts = math.floor(float(top_p) * 2**40)
        total = sum(mass[i] for i in order)
        before, count = 0, 0
        for i in order:
            short = parts * total - (before << 40)
            if count:
                gap = min(gap, abs(short / (total << 40)))
                if short <= 0:
                    break
            before += mass[i]
            count += 1
        order = order[:count]
    if min_p is not None and min_p > 0:
        with np.errstate(all="ignore"):
            away = (x[order[0]] - x[order]) / temperature
        order = [i for i, d in zip(order, away.tolist(), strict=True) if d <= -math.log(min_p)]
    return order, gap


def masked(logits, columns):
    """The logits, all but these columns at -inf."""
    x = np.full_like(np.asarray(logits), -np.inf)
    x[columns] = np.asarray(logits)[columns]
    return x


def integer_masses(logits, temperature, most):
    """Masses of a row of one block, as the kernels compare them, `most` bounding their sum."""
    shift = max(0, math.frexp(most)[1] - 1 - 11)
    return [q >> shift for q in Block(widened(logits), temperature).integers()]


# ------------------------------------------------------------------------------------------------- relaxed samples

_ROUND = 6755399441055744.0


def weights(x, high, low):
    """2^(x (high + low)) by the canonical polynomial: 0 below 2^-125 (float64: 2^-1021), inf from 2^128 (2^1024) on."""
    least, most = (-125, 128) if x.dtype == np.float32 else (-1021, 1024)
    with np.errstate(all="ignore"):
        z = x.astype(np.float64) * np.float64(high)
    above, below = z > most + 1, ~(z > least - 1)  # clear cases, where no rounding matters
    near = np.where(above | below, 0, x).astype(x.dtype)
    n = np.rint(near.astype(np.float64) * high) if x.dtype == np.float32 else fma(near, high, _ROUND) - _ROUND
    f = fma(near, low, fma(near, high, (-n).astype(x.dtype)))
    with np.errstate(over="ignore"):
        w = np.ldexp(exp2_fraction(f), np.clip(n, least, most).astype(np.int64))
    return np.where(below | (n < least), 0, np.where(above | (n >= most), np.inf, w)).astype(x.dtype)


def halved(lanes):
    """The sum by halves, 256 onto 0, then 128, ..., 1; lanes beyond the last are not there."""
    h = LANES // 2
    while h:
        if h < len(lanes):
            rest = len(lanes) - h
            lanes = np.append(lanes[:rest] + lanes[h:], lanes[rest:h])
        h //= 2
    return lanes[0]


def lane_sum(values):
    """The sum of a block: 512 lanes, each in the order of its columns, then by halves."""
    with np.errstate(over="ignore"):
        lanes = values[:LANES].copy()
        for start in range(LANES, len(values), LANES):
            part = values[start : start + LANES]
            lanes[: len(part)] += part
        return halved(lanes)


def lane_dot(a, b):
    """The same of products: the first of a lane is rounded, later ones are fused into the sum."""
    lanes = a[:LANES] * b[:LANES]
    for start in range(LANES, len(a), LANES):
        part = a[start : start + LANES]
        lanes[: len(part)] = fma(part, b[start : start + LANES], lanes[: len(part)])
    return halved(lanes)


def block_sum(values):
    """The sum of one float64 for each block: lane b % 512, all 512 from +0 on."""
    lanes = np.zeros(LANES)
    for start in range(0, len(values), LANES):
        part = values[start : start + LANES]
        lanes[: len(part)] += part
    return halved(lanes[: min(LANES, len(values))])


def relaxed(logits, temperature, g):
    """A relaxed sample of one row on the noise g, which has the dtype of the arithmetic; bit for bit."""
    x = widened(logits)
    dtype = x.dtype
    high, low = _factors(temperature, dtype)
    parts, nodes = [], []
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        m = part.max()
        if m == -np.inf:
            parts.append(np.zeros_like(part))
            nodes.append((m, dtype.type(0), 0.0))
            continue
        with np.errstate(over="ignore"):
            d = (part - m) + g[start : start + BLOCK]
        top = dtype.type(0)
        w = weights(d, high, low)
        if not 2.0**-13 <= lane_sum(w) < 2.0**63:
            top = d.max()
            w = weights(d - top, high, low)
        parts.append(w)
        nodes.append((m, top, float(lane_sum(w))))
    m, top, totals = (np.array(column, np.float64) for column in zip(*nodes, strict=True))
    full = totals > 0
    with np.errstate(over="ignore"):
        offsets = (m - m[full].max()) + top
        scales = np.where(
            full, weights(np.where(full, offsets, 0) - offsets[full].max(), *map(np.float64, scale(temperature))), 0
        )
    lanes = np.zeros(LANES)
    for b in range(0, len(nodes), LANES):
        n = len(totals[b : b + LANES])
        lanes[:n] = fma(totals[b : b + LANES], scales[b : b + LANES], lanes[:n])
    with np.errstate(divide="ignore", over="ignore"):
        divisors = (halved(lanes) / scales).astype(dtype)
        y = np.concatenate([w / divisor for w, divisor in zip(parts, divisors, strict=True)])
    return y.astype(np.asarray(logits).dtype)


_LOG_FLOAT32 = np.array(
    [
        -0.10100489854812622, 0.16416071355342865, -0.1733253449201584, 0.19873706996440887, -0.249595046043396,
        0.3333614468574524, -0.5000066161155701, 0.9999998211860657,
    ],
    np.float32,
)  # fmt: skip
_LOG_FLOAT64 = np.array(
    [
        0.1479819860511658591, 0.1531383769920937332, 0.1818357216161805012, 0.2222219843214978396,
        0.2857142874366239149, 0.3999999999940941908, 0.6666666666666735130,
    ]
)  # fmt: skip


def log(x):
    """ln x of positive normal numbers, in their dtype (float64: fdlibm's log); finite for 0 and subnormals."""
    single = x.dtype == np.float32
    bits, width, start = (np.int32, 23, 0x3F3504F3) if single else (np.int64, 52, 0x3FE6A09E667F3BCD)
    whole = x.view(bits)
    k = (whole - bits(start)) >> bits(width)
    f = (whole - (k << bits(width))).view(x.dtype) - x.dtype.type(1)
    if single:
        p = np.full_like(f, _LOG_FLOAT32[0])
        for coefficient in _LOG_FLOAT32[1:]:
            p = fma(p, f, coefficient)
        k = (k << 23).astype(np.float32)
        return fma(k, np.float32(0.6931471805599453 * 2.0**-23), p * f)
    k = k.astype(np.float64)
    s = f / (2.0 + f)
    p = np.full_like(f, _LOG_FLOAT64[0])
    for coefficient in _LOG_FLOAT64[1:]:
        p = fma(p, s * s, coefficient)
    u = fma(p, s * s, (0.5 * f) * f)
    v = fma(s, u, k * 1.90821492927058770002e-10)
    return fma(k, 6.93147180369123816490e-1, f - fma(0.5 * f, f, -v))


def vjp(y, cotangent, temperature):
    """(gradient in the logits, that in the temperature) of one row, bit for bit."""
    narrow = widened(y)
    wide, u = narrow.astype(np.float64), widened(cotangent).astype(np.float64)
    starts = range(0, len(y), BLOCK)
    parts = [slice(start, start + BLOCK) for start in starts]
    with np.errstate(all="ignore"):
        product = block_sum(np.array([lane_dot(wide[part], u[part]) for part in parts]))
        total = block_sum(np.array([lane_sum(wide[part]) for part in parts]))
        rate = 1.0 / temperature if temperature > 0 else 0.0
        gradient = (u - product / total) * wide * rate
        logs = log(narrow).astype(np.float64)
        slope = block_sum(np.array([lane_dot(-logs[part], gradient[part]) for part in parts]))
        return gradient.astype(narrow.dtype).astype(np.asarray(y).dtype), slope


def conditional(logits, index, temperature, seed, draw, row=0):
    """Perturbed logits given that the one at index is the largest, as longdouble, not yet kept apart."""
    x, y = (
        noise_words(seed, draw, np.arange(len(logits)), 0, row, tag) for tag in (CONDITIONAL, CONDITIONAL_REFINEMENT)
    )
    g = gumbel(x, y)
    with np.errstate(all="ignore"):
        top = log_sum_exp(logits, temperature) + g[index]
        z = np.asarray(logits).astype(np.longdouble) / np.longdouble(temperature) + g
        low, high = np.minimum(z, top), np.maximum(z, top)
        z = np.where(z == -np.inf, -np.inf, low - np.log1p(np.exp(low - high)))
    z[index] = top
    return z


def top_k(logits, k, temperature, seed, draw, row=0):
    """Indices, perturbed values, log P(ordered) and threshold of the k largest logits / T + G64 of a row."""
    keys = np.asarray(logits).astype(np.float64) / np.float64(temperature)
    keys = keys + noise(seed, draw, len(keys), row).astype(np.float64)
    order = np.lexsort((np.arange(len(keys)), -keys))
    rest = keys[order[k]] if k < len(keys) else -np.inf
    return order[:k], keys[order[:k]], plackett_luce(logits, order[:k], temperature), rest


def plackett_luce(logits, order, temperature=1.0):
    """Ln of the probability of drawing `order` without replacement, the sums from what is left upwards."""
    z = np.asarray(logits).astype(np.longdouble) / np.longdouble(temperature)
    left = np.setdiff1d(np.arange(len(z)), order)
    mass = log_sum_exp(z[left]) if len(left) and z[left].max() > -np.inf else np.longdouble(-np.inf)
    result = np.longdouble(0)
    for i in order[::-1]:
        mass = np.logaddexp(mass, z[i])
        result += z[i] - mass
    return result
