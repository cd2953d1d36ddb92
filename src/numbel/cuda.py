"""Random numbers by address, for kernels of your own: in `numba.cuda.jit` kernels and in `numba.njit` functions alike.

Each function takes (seed, draw, row, column), integers of 64 bits, and depends on nothing else; `Generator(seed, draw)`
makes the same numbers on the host, bit for bit. None keeps a state, so any thread may ask for any address, in any
order. `uniform`, `exponential` and `gumbel` at one address are the same random number:
E = -ln(1 - V), G = -ln E.

| function                    | law                                             | range                               |
| --------------------------- | ----------------------------------------------- | ----------------------------------- |
| `uniform_float32`, `..64`   | uniform V, finest near 0                        | 2^-65 .. 1 - 2^-24, or 1 - 2^-53    |
| `exponential_float32`, `..64` | exponential of mean 1                         | 2^-65 .. 45.06                      |
| `gumbel_float32`, `..64`    | Gumbel, as `Generator.gumbel` of that dtype     | -3.808 .. 45.055                    |
| `gumbel_max_update`         | Gumbel-max over logits that are never stored    |                                     |

The float32 versions cost one Philox block, and a second one once in 2^11; the float64 versions two.

Examples
--------
A category of each row, its logits made on the fly; `@numba.cuda.jit` runs the same code on a GPU:

>>> import numba, numpy as np, numbel
>>> import numbel.cuda as nc
>>> @numba.njit
... def draw(seed, row, columns):
...     state = nc.GUMBEL_MAX_START
...     for column in range(columns):
...         state = nc.gumbel_max_update(state, -0.5 * column, seed, 0, row, column)
...     return state[1]
>>> logits = np.broadcast_to(-0.5 * np.arange(1000.0), (3, 1000))
>>> expected = numbel.Generator(5).categorical(logits, method="gumbel_max")
>>> bool(all(draw(5, row, 1000) == expected[row] for row in range(3)))
True
"""

from __future__ import annotations

import math

from numba import float32, float64, int64, uint32, uint64

from ._jit import inlined
from ._scalar import gumbel as _transform
from ._scalar.address import NOISE, REFINEMENT, draw_key, noise_word
from ._scalar.elementary import log1p_float32, log_float32

__all__ = [
    "GUMBEL_MAX_START",
    "exponential_float32",
    "exponential_float64",
    "free_scratch",
    "gumbel_float32",
    "gumbel_float64",
    "gumbel_max_update",
    "uniform_float32",
    "uniform_float64",
]

#: The state of no columns, where `gumbel_max_update` starts.
GUMBEL_MAX_START = (-math.inf, -1, 0)


@inlined
def _word(seed, draw, row, column, tag):
    key, mask = draw_key(uint64(seed), uint64(draw))
    return noise_word(uint64(column), uint64(0), uint64(row), uint64(tag), key, mask)


@inlined
def uniform_float32(seed, draw, row, column):
    """Uniform V as float32, rounded once: 2^-65 .. 1 - 2^-24."""
    x = _word(seed, draw, row, column, NOISE)
    if x < uint64(_transform.REFINE):
        return float32(_transform.uniform_tail(x, _word(seed, draw, row, column, REFINEMENT)))
    return min(float32((float64(x) + 0.5) * 2.0**-32), float32(1.0 - 2.0**-24))


@inlined
def uniform_float64(seed, draw, row, column):
    """Uniform V as float64: 2^-65 .. 1 - 2^-53."""
    x = _word(seed, draw, row, column, NOISE)
    return min(_transform.uniform_tail(x, _word(seed, draw, row, column, REFINEMENT)), 1.0 - 2.0**-53)


@inlined
def exponential_float32(seed, draw, row, column):
    """Exponential variate of mean 1 as float32, -ln(1 - V), right in both tails: 2^-65 .. 45.06."""
    x = _word(seed, draw, row, column, NOISE)
    y = uint64(1) << uint64(31)
    if _transform.needs_refinement(uint32(x)):
        y = _word(seed, draw, row, column, REFINEMENT)
    s = int64((x << uint64(32)) | y)
    a = uint64(s ^ (s >> int64(63)))
    t = float32(_transform.uniform_tail(a >> uint64(32), a & uint64(0xFFFFFFFF)))
    return -log1p_float32(-t) if s >= int64(0) else -log_float32(t)


@inlined
def exponential_float64(seed, draw, row, column):
    """Exponential variate of mean 1 as float64, -ln(1 - V), right in both tails: 2^-65 .. 45.06."""
    x = _word(seed, draw, row, column, NOISE)
    return _transform.exponential_float64(x, _word(seed, draw, row, column, REFINEMENT))


@inlined
def gumbel_float32(seed, draw, row, column):
    """Gumbel variate as float32: `Generator(seed, draw).gumbel` of that dtype at [row, column], bit for bit."""
    x = _word(seed, draw, row, column, NOISE)
    if _transform.needs_refinement(uint32(x)):
        return _transform.gumbel_refined_float32(x, _word(seed, draw, row, column, REFINEMENT))
    return _transform.gumbel_float32(uint32(x))


@inlined
def gumbel_float64(seed, draw, row, column):
    """Gumbel variate as float64: `Generator(seed, draw).gumbel` of that dtype at [row, column], bit for bit."""
    x = _word(seed, draw, row, column, NOISE)
    return _transform.gumbel_float64(x, _word(seed, draw, row, column, REFINEMENT))


@inlined
def gumbel_max_update(state, logit, seed, draw, row, column):
    """(largest perturbed logit, its column, what orders it among equals) after one more column, in any order.

    `state` is what the last call returned, or `GUMBEL_MAX_START`. After all columns of a row state[1] is
    `Generator(seed, draw).categorical(logits, method="gumbel_max")` of that row; with a temperature T pass
    float64(logit) / T. A column that cannot win costs one Philox block and no logarithm. -inf is impossible, NaN never
    wins; state[1] is -1 while no column was possible.
    """
    largest, index, place = state
    x = _word(seed, draw, row, column, NOISE)
    if _transform.cannot_exceed(x, float64(logit), largest):
        return largest, index, place
    y = _word(seed, draw, row, column, REFINEMENT)
    noise = _transform.gumbel_float64(x, y)
    perturbed = float64(logit) + noise
    own = _transform.place_of(column, float64(logit), noise, perturbed)
    better = _transform.goes_first(perturbed, own, largest, int64(place))
    return (perturbed, int64(column), own) if better else (largest, index, int64(place))


def free_scratch() -> int:
    """Free the scratch on GPUs that lies idle between calls, and say how many bytes that were.

    Calls on arrays of Numba and JAX keep their scratch for later ones. What kernels still use stays, and so does what
    calls captured into CUDA graphs use. Arguments that were kept for kernels which have ended are let go of, too.
    """
    from ._device import stream_memory

    return stream_memory.free()
