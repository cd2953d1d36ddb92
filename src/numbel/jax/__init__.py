"""numbel for JAX arrays on the CPU, under `jit`, `grad` and `vmap`; seed and draw are explicit.

XLA's buffers are read and written in place. Large calls run in XLA's threads, which know NUMBA_NUM_THREADS but not
what `numba.set_num_threads` set in another. On other platforms JAX says that there is no such function.
"""

from __future__ import annotations

import math
import threading
from typing import Any, Literal, NamedTuple

import numpy as np

try:
    import jax
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('numbel.jax needs JAX: pip install "numbel[jax]"', name=error.name) from None
import jax.numpy as jnp

from .._arguments import checks
from .._host import dispatch
from .._scalar.limits import LEAST_TEMPERATURE, MOST_TEMPERATURE
from ..generator import Generator
from ..gradients import pull_back
from ..results import Sample
from . import _xla

__all__ = ["categorical", "gumbel_softmax", "sample"]

_Method = Literal["grouped", "gumbel_max"]

_TARGET = "numbel"
_lock = threading.Lock()
_registered = False


def gumbel_softmax(
    logits: Any, temperature: Any = 1.0, *, seed: Any, draw: Any = 0, axis: int = -1, hard: bool = False
) -> Any:
    """Relaxed one-hot samples, softmax((logits + gumbel) / temperature), with their gradient.

    Parameters
    ----------
    logits : array of float16, bfloat16, float32 or float64
        Unnormalised natural log-probabilities, the categories along `axis`; -inf is impossible.
    temperature : float or array, optional
        Positive; an array broadcasts to the shape of logits without `axis`.
    seed, draw : int or array
        An integer in 0 .. 2**64 - 1, or an array: uint32 of shape (2,), the low word first, a scalar of any integer
        type, such as a loop's counter, or a key of `jax.random.key`. A traced negative counter -n is 2**64 - n. Of a
        key of two words, as JAX's own, the first is the high one, so that key(5) is 5; of a key of more words the low
        and the high word are their MurmurHash3 (x86, 32 bits, words in order) with seed 0 and with seed 1.
    axis : int, optional
        The category axis.
    hard : bool, optional
        Return the one-hot of the sampled category; the gradient is that of the soft sample (straight-through).

    Returns
    -------
    jax.Array
        Of the shape and dtype of logits, bit for bit `numbel.Generator(seed, draw).gumbel_softmax` of the same data.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        If a dtype, a shape, axis, or a concrete seed, draw or temperature is wrong.

    Notes
    -----
    Nothing is raised for values that are traced, nor for those of logits: a row that holds NaN or +inf or nothing
    but -inf, and a row whose traced temperature is not positive (in the other functions: negative) or out of range, is
    NaN, and so are its gradients.
    A temperature that is neither a JAX array nor traced is taken in double precision.

    The first derivative in logits and temperature is defined; a second one, which `numbel.torch` has, is a ValueError.
    The soft sample itself is kept for it; with `hard` it is made again from (logits, seed, draw). Under `vmap` every
    element is a call of its own: it shares seed and draw, and so the noise, with the others unless these are mapped,
    too.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numbel.jax
    >>> f = jax.jit(lambda x, draw: numbel.jax.gumbel_softmax(x, 0.5, seed=5, draw=draw))
    >>> f(jnp.zeros((2, 3)), jnp.uint32(17)).shape
    (2, 3)
    >>> g = jax.grad(lambda x: numbel.jax.gumbel_softmax(x, seed=5, hard=True)[0])(jnp.zeros(3))
    >>> bool(abs(g.sum()) < 1e-6)
    True
    """
    logits, axis, rows = _logits(logits, axis)
    temperature = _temperature(temperature, rows, checks.relaxed_temperature)
    return _relaxed(axis, bool(hard), logits, temperature, _words(seed, "seed"), _words(draw, "draw"))


def categorical(
    logits: Any,
    num_samples: int | None = None,
    *,
    seed: Any,
    draw: Any = 0,
    axis: int = -1,
    temperature: Any = 1.0,
    method: _Method = "grouped",
) -> Any:
    """Draw categories with probabilities softmax(logits / temperature), exactly, in one pass.

    Parameters
    ----------
    logits, seed, draw, axis
        As in `gumbel_softmax`.
    num_samples : int, optional
        Samples of each row. The first of them is what None gives.
    temperature : float or array, optional
        As in `gumbel_softmax`; 0, for all or for a row, means the argmax.
    method : {"grouped", "gumbel_max"}, optional
        As in `numbel.Generator.categorical`.

    Returns
    -------
    jax.Array of int32, or of int64 under `jax_enable_x64`
        Bit for bit `numbel.Generator(seed, draw).categorical` of the same data, except for the dtype.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `gumbel_softmax`; if there are more than 2**31 - 1 categories without `jax_enable_x64`.

    Notes
    -----
    Rows that `gumbel_softmax` makes NaN get index -1. Indices have no gradient: zero is passed on.

    Examples
    --------
    >>> import jax.numpy as jnp, numbel.jax
    >>> numbel.jax.categorical(jnp.zeros((2, 10)), 3, seed=5).shape
    (2, 3)
    """
    indices, *_ = _draw(False, logits, num_samples, seed, draw, axis, temperature, method)
    return indices


def sample(
    logits: Any,
    num_samples: int | None = None,
    *,
    seed: Any,
    draw: Any = 0,
    axis: int = -1,
    temperature: Any = 1.0,
    method: _Method = "grouped",
) -> Sample:
    """Draw as `categorical` does, with log-probabilities and logsumexp that gradients flow through.

    Parameters
    ----------
    logits, num_samples, seed, draw, axis, temperature, method
        As in `categorical`.

    Returns
    -------
    Sample
        Of JAX arrays; log_prob and logsumexp are float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `categorical`.

    Notes
    -----
    Rows of index -1 have NaN for log_prob and logsumexp. The gradients, in logits and temperature, are those of
    `jax.nn.log_softmax(logits / temperature)` at the indices and of the logsumexp: what the score-function estimator
    (REINFORCE) needs.

    Examples
    --------
    >>> import jax.numpy as jnp, numbel.jax
    >>> drawn = numbel.jax.sample(jnp.log(jnp.arange(1.0, 5.0)), seed=5)
    >>> bool(jnp.isclose(jnp.exp(drawn.log_prob), (drawn.indices + 1) / 10))
    True
    """
    return Sample(*_draw(True, logits, num_samples, seed, draw, axis, temperature, method))


def _draw(
    full: bool, logits: Any, num_samples: Any, seed: Any, draw: Any, axis: int, temperature: Any, method: str
) -> Any:
    logits, axis, rows = _logits(logits, axis)
    if num_samples is not None:
        num_samples = checks.num_samples(num_samples)
    checks.method(method)
    index = jax.dtypes.canonicalize_dtype(np.int64)
    if logits.shape[axis] > np.iinfo(index).max:
        raise ValueError(f"logits has {logits.shape[axis]} categories: more than 2^31 - 1 need jax_enable_x64")
    temperature = _temperature(temperature, rows, checks.temperature)
    call = _sampled if full else _undifferentiated
    sampling = _Sampling(full, num_samples, axis, method, index)
    return call(sampling, logits, temperature, _words(seed, "seed"), _words(draw, "draw"))


# --- arguments


def _logits(value: Any, axis: int) -> tuple[Any, int, tuple[int, ...]]:
    """The array, its category axis counted from the end (`vmap` adds axes in front), and the shape of its rows."""
    if not isinstance(value, jax.Array):  # JAX drops masks without a word
        value = checks.plain_logits(value)
    array = jnp.asarray(value)
    checked = checks.logits(_like(array), axis)
    return array, axis - array.ndim if axis >= 0 else axis, checked.shape[:-1]


def _like(array: Any) -> Any:
    """Ones of the shape and dtype of a traced array, for the checks; one element of memory."""
    return np.broadcast_to(np.ones((), array.dtype), array.shape)


def _temperature(value: Any, rows: tuple[int, ...], check: Any) -> Any:
    """Temperatures as a floating-point array, or as the two words of each double where JAX has none."""
    traced = isinstance(value, jax.core.Tracer)
    check(_like(value) if traced else value, rows)
    if isinstance(value, jax.Array):
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
    doubles = np.asarray(value, np.float64)
    return doubles if jax.config.jax_enable_x64 else doubles.reshape(*doubles.shape, 1).view(np.uint32)


def _words(value: Any, name: str) -> Any:
    """The low and the high word of a 64-bit number."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        if value.ndim:
            raise TypeError(f"{name} is an array of keys of shape {value.shape}, expected one key")
        data = jax.random.key_data(value)
        return data[::-1] if data.shape == (2,) else jnp.stack([_murmur(data, 0), _murmur(data, 1)])
    if isinstance(value, (jax.Array, np.ndarray)):
        if value.dtype == np.uint32 and value.shape == (2,):
            return value
        if value.ndim == 0 and isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.unsignedinteger):
            if value.dtype == np.uint64:
                return jax.lax.bitcast_convert_type(value, np.uint32)
            return jnp.stack([value.astype(np.uint32), np.uint32(0)])
        traced = isinstance(value, jax.core.Tracer)
        if value.ndim == 0 and traced and jnp.issubdtype(value.dtype, jnp.signedinteger):
            if value.dtype == np.int64:
                return jax.lax.bitcast_convert_type(value, np.uint32)
            low = value.astype(np.int32)
            return jax.lax.bitcast_convert_type(jnp.stack([low, low >> 31]), np.uint32)
        if value.ndim or traced:
            raise TypeError(
                f"{name} must be an integer, a key, a uint32 array of shape (2,) = (low, high) or an integer scalar, "
                f"got {value.dtype} of shape {value.shape}"
            )
    number = checks.uint64(value, name)
    return np.array([number & 0xFFFFFFFF, number >> 32], np.uint32)


def _murmur(words: Any, start: int) -> Any:
    """MurmurHash3, x86, 32 bits, of uint32 words."""

    def rotated(x: Any, by: int) -> Any:
        return x << np.uint32(by) | x >> np.uint32(32 - by)

    found = jnp.uint32(start)
    for at in range(words.shape[0]):
        found ^= rotated(words[at] * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
        found = rotated(found, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    found ^= np.uint32(4 * words.shape[0])
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        found = (found ^ found >> np.uint32(shift)) * np.uint32(factor)
    return found ^ found >> np.uint32(16)


# --- calls


def _call(text: str, results: Any, *operands: Any) -> Any:
    global _registered
    with _lock:
        if not _registered:
            _xla.register(_TARGET, _serve)
            _registered = True

    def call(*operands: Any) -> Any:
        return jax.ffi.ffi_call(_TARGET, results, vmap_method="expand_dims")(*operands, call=text)

    def refuse(*_: Any) -> Any:
        name = "sample" if text.startswith("categorical") else "gumbel_softmax"
        raise ValueError(f"numbel.jax.{name} cannot be differentiated twice; numbel.torch.{name} can")

    once = jax.custom_jvp(call)
    once.defjvp(refuse)
    return once(*operands)


def _soft_or_hard(axis: int, hard: bool, logits: Any, temperature: Any, seed: Any, draw: Any) -> Any:
    result = jax.ShapeDtypeStruct(logits.shape, logits.dtype)
    return _call(f"gumbel_softmax {axis} {hard:d}", result, seed, draw, temperature, logits)


def _forward(axis: int, hard: bool, logits: Any, temperature: Any, seed: Any, draw: Any) -> Any:
    result = _soft_or_hard(axis, hard, logits, temperature, seed, draw)
    return result, (logits if hard else result, temperature, seed, draw)


def _backward(axis: int, hard: bool, kept: Any, cotangent: Any) -> Any:
    array, temperature, seed, draw = kept
    words = temperature.dtype == np.uint32
    results = (
        jax.ShapeDtypeStruct(array.shape, array.dtype),
        jax.ShapeDtypeStruct(temperature.shape[:-1], np.float32)
        if words
        else jax.ShapeDtypeStruct(temperature.shape, temperature.dtype),
    )
    of_logits, of_temperature = _call(
        f"gumbel_softmax_vjp {axis} {hard:d}", results, seed, draw, temperature, array, cotangent
    )
    return of_logits, None if words else of_temperature, None, None


class _Sampling(NamedTuple):
    """What is known of a sample when its call is traced; `index` is the dtype of indices."""

    full: bool
    num_samples: int | None
    axis: int
    method: str
    index: Any


def _indices(sampling: _Sampling, logits: Any, temperature: Any, seed: Any, draw: Any) -> Any:
    if not sampling.full:
        logits, temperature = jax.lax.stop_gradient((logits, temperature))
    rows = list(logits.shape)
    del rows[sampling.axis]
    many = rows if sampling.num_samples is None else [*rows, sampling.num_samples]
    kind = dispatch.result_dtype(np.dtype(logits.dtype))
    results = [(many, sampling.index), (many, kind), (rows, kind)][: 3 if sampling.full else 1]
    return _call(
        f"categorical {sampling.axis} {sampling.method}",
        [jax.ShapeDtypeStruct(*result) for result in results],
        seed,
        draw,
        temperature,
        logits,
    )


def _sample_forward(sampling: _Sampling, *operands: Any) -> Any:
    results = _indices(sampling, *operands)
    logits, temperature, _, _ = operands
    return results, (logits, temperature, results[0])


def _sample_backward(sampling: _Sampling, kept: Any, cotangents: Any) -> Any:
    """With p = softmax(x / T): the gradients of x_k / T - logsumexp(x / T) at the samples k, and of the logsumexp."""
    logits, temperature, indices = kept
    _, of_log_prob, of_logsumexp = cotangents
    x = jnp.moveaxis(logits, sampling.axis, -1).astype(of_logsumexp.dtype)
    rows = x.shape[:-1]
    t, spread = jax.vjp(lambda t: jnp.broadcast_to(t, rows), _floats(temperature).astype(x.dtype))
    # a row of temperature 0 is its argmax, which does not move
    rate = jnp.where(t == 0, 0, 1 / jnp.where(t == 0, 1, t))
    p = jax.nn.softmax(x / jnp.where(t == 0, 1, t)[..., None], axis=-1)
    if sampling.num_samples is None:
        indices, of_log_prob = indices[..., None], of_log_prob[..., None]
    rest = (of_logsumexp - of_log_prob.sum(-1)) * rate
    flat, columns = (rest[..., None] * p).reshape(-1, x.shape[-1]), indices.reshape(math.prod(rows), -1)
    at = jnp.arange(len(flat))[:, None], columns
    flat = flat.at[at].add((of_log_prob * rate[..., None]).reshape(columns.shape))
    of_logits = jnp.moveaxis(flat.reshape(x.shape), -1, sampling.axis).astype(logits.dtype)
    if temperature.dtype == np.uint32:
        return of_logits, None, None, None
    mean = jnp.where(p > 0, p * x, 0).sum(-1)
    chosen = jnp.take_along_axis(x, indices, -1)
    (of_temperature,) = spread(-rate * (rest * mean + rate * (of_log_prob * chosen).sum(-1)))
    return of_logits, of_temperature.astype(temperature.dtype), None, None


def _floats(temperature: Any) -> Any:
    """Temperatures as floating-point numbers: positive doubles that came as two words are put together."""
    if temperature.dtype != np.uint32:
        return temperature
    low, high = temperature[..., 0], temperature[..., 1]
    fraction = 1 + (high & 0xFFFFF).astype(np.float32) * 2.0**-20 + low.astype(np.float32) * 2.0**-52
    return jnp.where(high == 0, 0, jnp.ldexp(fraction, (high >> 20).astype(np.int32) - 1023))


def _differentiable(function: Any, forward: Any, backward: Any, static: int) -> Any:
    wrapped = jax.custom_vjp(function, nondiff_argnums=tuple(range(static)))
    wrapped.defvjp(forward, backward)
    return jax.jit(wrapped, static_argnums=tuple(range(static)))


_relaxed = _differentiable(_soft_or_hard, _forward, _backward, 2)
_undifferentiated = jax.jit(_indices, static_argnums=0)
_sampled = _differentiable(_indices, _sample_forward, _sample_backward, 1)


# --- within the call


def _serve(text: str, operands: list[Any], results: list[Any]) -> None:
    """Run a call on XLA's buffers; axes that `vmap` put in front are of length 1 where an operand is not mapped."""
    name, axis, option = text.split()
    mapped = operands[0].ndim - 1  # of seed
    if mapped == 0:
        _serve_one(name, int(axis), option, operands, results)
        return
    shape = results[0].shape[:mapped]
    operands = [np.broadcast_to(operand, (*shape, *operand.shape[mapped:])) for operand in operands]
    for at in np.ndindex(shape):
        _serve_one(name, int(axis), option, [a[*at, ...] for a in operands], [r[*at, ...] for r in results])


def _serve_one(name: str, axis: int, option: str, operands: list[Any], results: list[Any]) -> None:
    seed, draw, temperature, array, *cotangent = operands
    rng = Generator(*(int(low) | int(high) << 32 for low, high in (seed, draw)))
    words = temperature.dtype == np.uint32
    if words:
        temperature = temperature.view(np.float64)[..., 0]
    temperature, row_mask = _sane(temperature, array, axis, name == "categorical")
    common: dict[str, Any] = {"axis": axis, "row_mask": row_mask, "on_invalid": "flag"}
    if name == "categorical":
        indices = results[0]
        num_samples = None if indices.ndim < array.ndim else indices.shape[-1]
        wide = indices if indices.dtype == np.int64 else np.empty(indices.shape, np.int64)
        common |= {"temperature": temperature, "method": option}
        if len(results) == 1:
            rng.categorical(array, num_samples, **common, out=wide)
        else:
            rng.sample(array, num_samples, **common, out=Sample(wide, *results[1:]))
        if wide is not indices:
            indices[...] = wide
    elif name == "gumbel_softmax":
        rng.gumbel_softmax(array, temperature, **common, hard=option == "1", out=results[0])
    else:
        if option == "1":
            array = rng.gumbel_softmax(array, temperature, **common, out=results[0])
        _, in_temperature = pull_back(array, cotangent[0], temperature, axis, results[0], not words)
        results[1][...] = 0 if words else in_temperature


def _sane(temperature: Any, array: Any, axis: int, zero: bool) -> tuple[Any, Any]:
    """Temperatures that no check refuses, and the rows that they leave; traced ones come as they may."""
    if temperature.ndim == 0:
        scalar = float(temperature)
        good: Any = np.bool_(LEAST_TEMPERATURE <= scalar <= MOST_TEMPERATURE or (zero and scalar == 0))
        temperature = scalar if good else 1.0
    else:
        temperature = temperature.astype(np.float64)
        good = (temperature >= LEAST_TEMPERATURE) & (temperature <= MOST_TEMPERATURE) | (zero & (temperature == 0))
        temperature = np.where(good, temperature, 1.0)
    if good.all():
        return temperature, None
    return temperature, np.broadcast_to(good, np.moveaxis(array, axis, -1).shape[:-1])
