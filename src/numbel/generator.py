"""Generator: each method is its docstring, the checks and one dispatch."""

from __future__ import annotations

import operator
import os
import secrets
import threading
from collections.abc import Sequence
from typing import Any, SupportsIndex, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._arguments import checks
from ._arguments.requests import RowOptions, SampleOptions
from ._arguments.types import (
    AnyArray,
    Draws,
    DTypeT,
    Elsewhere,
    FloatT,
    FloatTensor,
    FloatUnknownRank,
    FloatVector,
    Indices,
    Method,
    OnInvalid,
    Rows,
    ScalarT,
    ShapeT,
    Tensor,
    UnknownRank,
    Vector,
)
from ._host import common, dispatch, methods, ragged
from ._host import top_k as _top_k
from .results import Sample, TopK

_LIMIT = 1 << 64

# Held only while a draw id is taken or given back, and across a fork, so that a child never finds it locked.
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class _Reservation:
    """Lends a call's seed and draw id, and takes the id back where the call raises."""

    __slots__ = ("_generator", "_taken")

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def __enter__(self) -> tuple[int, Any]:
        generator = self._generator
        if generator._counter is not None:
            return generator._seed, generator._counter  # which the kernels advance
        self._taken = generator._take()
        return self._taken

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if error is not None and self._generator._counter is None:
            self._generator._give_back(*self._taken)


class Generator:
    """Draws from categorical and Gumbel distributions; a pure function of (seed, draw) and its input.

    Parameters
    ----------
    seed : int
        The 64-bit seed, 0 .. 2**64 - 1. `default_rng` makes one from anything else.
    draw : int, optional
        The id of the first draw, 0 .. 2**64 - 1. Every sampling call uses one id, so that any earlier or
        later call can be repeated without replaying those before it. A uint64 array of one element on a CUDA
        device is read and advanced by the kernels, so that each replay of a CUDA graph is a new draw.

    Raises
    ------
    TypeError, ValueError
        If seed or draw is not an integer of that range.

    Notes
    -----
    Threads may share a Generator: no draw id serves two calls; which thread gets which is not promised.
    A call that raises gives its id back unless a later one is taken already. Copies and pickles repeat
    the draws of the original.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> rng = numbel.Generator(seed=5, draw=17)
    >>> first = rng.gumbel(size=3)
    >>> rng.draw
    18
    >>> bool(np.all(first == numbel.Generator(5, draw=17).gumbel(size=3)))
    True
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("__weakref__", "_counter", "_draw", "_seed")

    def __init__(self, seed: int, draw: Any = 0) -> None:
        self._seed = checks.uint64(seed, "seed")
        self._counter = _device().counter(draw) if checks.on_device(draw) else None
        self._draw = 0 if self._counter is not None else checks.uint64(draw, "draw")

    @property
    def seed(self) -> int:
        """The 64-bit seed."""
        return self._seed

    @property
    def draw(self) -> Any:
        """The id that the next draw will use: an int, or the device array that holds it."""
        return self._draw if self._counter is None else self._counter

    @property
    def state(self) -> dict[str, Any]:
        """Seed and next draw id, as a dict that JSON can hold; settable."""
        if self._counter is not None:
            raise TypeError("the draw id of this Generator is on a CUDA device, where its state cannot be read")
        with _lock:
            return {"generator": "numbel", "seed": self._seed, "draw": self._draw}

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict) or value.get("generator") != "numbel":
            raise ValueError(f"state must be a dict from numbel.Generator.state, got {value!r}")
        try:
            seed, draw = checks.uint64(value["seed"], "seed"), value["draw"]
            if draw != _LIMIT:  # an exhausted Generator has a state, too
                draw = checks.uint64(draw, "draw")
        except KeyError as error:
            raise ValueError(f"state lacks the entry {error}") from None
        with _lock:
            self._seed, self._draw, self._counter = seed, draw, None

    def __getstate__(self) -> dict[str, Any]:
        return self.state

    def __setstate__(self, value: dict[str, Any]) -> None:
        self.state = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Generator):
            return NotImplemented
        if self._counter is not None or other._counter is not None:
            return self._counter is other._counter and self._seed == other._seed
        return self.state == other.state

    def __repr__(self) -> str:
        draw = self._draw if self._counter is None else "<on a CUDA device>"
        return f"numbel.Generator(seed={self._seed}, draw={draw})"

    def _on_device(self, array: Any, stream: Any) -> bool:
        """Whether a call on this array is for a CUDA device."""
        if checks.on_device(array):
            return True
        if stream is not None:
            raise TypeError("stream is for arrays on a CUDA device, and this one lies on the host")
        if self._counter is not None:
            raise TypeError("the draw id of this Generator is on a CUDA device: it draws for arrays there only")
        return False

    def _reserve(self) -> _Reservation:
        """A context that lends seed and draw id of a call."""
        return _Reservation(self)

    def _take(self) -> tuple[int, int]:
        """Seed and draw id of a call; the lock is held to take or give back the id only."""
        with _lock:
            seed, draw = self._seed, self._draw
            if draw == _LIMIT:
                raise ValueError("this Generator has used all 2^64 draws of its seed")
            self._draw = draw + 1
        return seed, draw

    def _give_back(self, seed: int, draw: int) -> None:
        """Take the id of a call that raised for the next one, unless a later one is taken already."""
        with _lock:
            if self._seed == seed and self._draw == draw + 1:
                self._draw = draw

    def spawn(self, n: int) -> list[Generator]:
        """Make n independent generators, for threads or workers that want reproducible draws each.

        Parameters
        ----------
        n : int
            How many, 0 .. 2**32.

        Returns
        -------
        list of Generator
            Their seeds are 64 random bits each, of one draw id of this generator, under a tag of their own.

        Raises
        ------
        TypeError, ValueError
            If n is not an integer of that range.

        Examples
        --------
        >>> import numbel
        >>> a, b = numbel.default_rng(5).spawn(2)
        >>> a == b
        False
        """
        try:
            count = operator.index(n)
        except TypeError:
            raise TypeError(f"n must be an integer, got {n!r}") from None
        if not 0 <= count <= 1 << 32:
            raise ValueError(f"n must be in 0 .. 2^32, got {count}")
        self._on_device(None, None)
        with self._reserve() as (seed, draw):
            return [Generator(child) for child in dispatch.spawn_seeds(seed, draw, count)]

    @overload
    def gumbel(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        size: tuple[()] | None = None,
        *,
        dtype: type[ScalarT],
        out: None = None,
        like: None = None,
        stream: None = None,
    ) -> ScalarT: ...

    @overload
    def gumbel(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        size: tuple[()] | None = None,
        *,
        out: None = None,
        like: None = None,
        stream: None = None,
    ) -> np.float32: ...

    @overload
    def gumbel(
        self,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        *,
        size: int | tuple[int, *tuple[int, ...]],
        dtype: type[ScalarT],
        out: None = None,
        like: None = None,
        stream: None = None,
    ) -> NDArray[ScalarT]: ...

    @overload
    def gumbel(
        self,
        loc: ArrayLike,
        scale: ArrayLike,
        size: int | tuple[int, *tuple[int, ...]],
        *,
        dtype: type[ScalarT],
        out: None = None,
        like: None = None,
        stream: None = None,
    ) -> NDArray[ScalarT]: ...

    @overload
    def gumbel(
        self,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        *,
        size: int | tuple[int, *tuple[int, ...]],
        out: None = None,
        like: None = None,
        stream: None = None,
    ) -> NDArray[np.float32]: ...

    @overload
    def gumbel(
        self,
        loc: ArrayLike,
        scale: ArrayLike,
        size: int | tuple[int, *tuple[int, ...]],
        *,
        out: None = None,
        like: None = None,
        stream: None = None,
    ) -> NDArray[np.float32]: ...

    @overload
    def gumbel(
        self,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        size: int | tuple[int, ...] | None = None,
        *,
        dtype: DTypeLike = ...,
        out: np.ndarray[ShapeT, DTypeT],
        like: None = None,
        stream: None = None,
    ) -> np.ndarray[ShapeT, DTypeT]: ...

    @overload
    def gumbel(
        self,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        size: int | tuple[int, ...] | None = None,
        *,
        dtype: DTypeLike = ...,
        out: Any = None,
        like: Any = None,
        stream: Any = None,
    ) -> Any: ...

    def gumbel(
        self,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        size: int | tuple[int, ...] | None = None,
        *,
        dtype: DTypeLike = np.float32,
        out: NDArray[Any] | None = None,
        like: Any = None,
        stream: Any = None,
    ) -> Any:
        """Standard Gumbel noise, scaled and shifted: `loc + scale * G`, `G = -ln(-ln U)`.

        Parameters
        ----------
        loc, scale : float or array_like, optional
            Mode and scale (not negative) of the distribution; they broadcast against `size`.
        size : int or tuple of int, optional
            Output shape; the last axis is the column of the noise, the others its row in C order. None: the
            shape of `out`, or else the broadcast shape of loc and scale.
        dtype : dtype, optional
            float32, float64, float16 or bfloat16. The half types are float32 noise, rounded.
        out : ndarray, optional
            Where to write, of this dtype (float32 unless given) and, where it is given, of shape `size`.
        like : array, optional
            An array whose device, and library, is used; one of the host gives NumPy's.
        stream
            As in `categorical`, of the device of `like` or of `out`.

        Returns
        -------
        ndarray, or a NumPy scalar where the shape is ()
            `out`, if it was given.

        Raises
        ------
        TypeError
            If dtype is not one of the four, or `out` is not an array of dtype.
        ValueError
            If scale is negative or NaN, if shapes do not fit, or if `out` is read-only.

        Notes
        -----
        Each value takes 32 random bits, and 32 more where the first lie within 2^20 of an end; float64
        noise always takes 64. So both tails are right: G lies in -3.808 .. 45.055 whatever the dtype (a 24-bit
        uniform, the usual choice, ends at 16.6). float32 noise is within 1.2e-6 of the exact value. The
        noise depends on (seed, draw, row, column) only. The product and the sum are rounded one after the
        other, in float32 for the half types where loc and scale are scalars, else in dtype.

        Examples
        --------
        >>> import numbel
        >>> noise = numbel.default_rng(5).gumbel(size=(2, 3))
        >>> noise.shape, noise.dtype
        ((2, 3), dtype('float32'))
        """
        found = common.gumbel(self, loc, scale, size, dtype, (out, like, stream))
        if found is not None:
            return found
        checks.like(like)
        if self._on_device(out if like is None else like, stream):
            return _device().gumbel(self._reserve, loc, scale, size, dtype, out, like, stream)
        return methods.gumbel(self._reserve, loc, scale, size, dtype, out)

    @overload
    def categorical(
        self,
        logits: UnknownRank,
        num_samples: None = None,
        *,
        offsets: None = None,
        out: None = None,
        **options: Unpack[Draws],
    ) -> Any: ...

    @overload
    def categorical(
        self,
        logits: Vector,
        num_samples: None = None,
        *,
        offsets: None = None,
        out: None = None,
        **options: Unpack[Draws],
    ) -> np.int64: ...

    @overload
    def categorical(
        self,
        logits: Tensor,
        num_samples: None = None,
        *,
        offsets: None = None,
        out: None = None,
        **options: Unpack[Draws],
    ) -> Indices: ...

    @overload
    def categorical(
        self,
        logits: AnyArray,
        num_samples: int | None = None,
        *,
        offsets: ArrayLike,
        out: Indices | None = None,
        **options: Unpack[Draws],
    ) -> Indices: ...

    @overload
    def categorical(
        self,
        logits: AnyArray,
        num_samples: int | None = None,
        *,
        offsets: ArrayLike | None = None,
        out: Indices,
        **options: Unpack[Draws],
    ) -> Indices: ...

    @overload
    def categorical(
        self,
        logits: Elsewhere,
        num_samples: int | None = None,
        *,
        offsets: Any = None,
        out: Any = None,
        **options: Unpack[Draws],
    ) -> Any: ...

    @overload
    def categorical(
        self,
        logits: ArrayLike | Elsewhere,
        num_samples: int,
        *,
        offsets: ArrayLike | None = None,
        out: Indices | None = None,
        **options: Unpack[Draws],
    ) -> Indices: ...

    @overload
    def categorical(
        self,
        logits: ArrayLike | Elsewhere,
        num_samples: int | None = None,
        *,
        offsets: ArrayLike | None = None,
        out: Indices | None = None,
        **options: Unpack[Draws],
    ) -> Any: ...

    def categorical(
        self,
        logits: ArrayLike | Elsewhere,
        num_samples: int | None = None,
        *,
        axis: int = -1,
        temperature: ArrayLike = 1.0,
        top_k: ArrayLike | None = None,
        top_p: ArrayLike | None = None,
        min_p: ArrayLike | None = None,
        method: Method = "grouped",
        offsets: ArrayLike | None = None,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: NDArray[np.int64] | None = None,
        stream: Any = None,
    ) -> Any:
        """Draw categories with probabilities softmax(logits / temperature), truncated where asked for, exactly.

        Parameters
        ----------
        logits : array_like, shape (..., n) with the categories along `axis`
            Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible. Any
            strides, read-only and memory-mapped arrays, without copying the array; at most 2**34 categories.
        num_samples : int, optional
            Samples of each row. 1 gives what None does. Many are drawn from a table of the row (see Notes).
        axis : int, optional
            The category axis.
        temperature : float or array_like, optional
            2^-100 .. 2^100 (8e-31 .. 1e30), or 0 for the argmax, whatever the truncation; an array broadcasts to the
            shape of logits without `axis`.
        top_k : int or array_like of int, optional
            Keep the k largest logits only; of equal ones the first; 0 and -1 keep all. An array, as for top_p and
            min_p, holds one for each row, or broadcasts to that shape.
        top_p : float or array_like, optional
            Then keep the largest until their probabilities, renormalised, reach top_p, in (0, 1]; the one that reaches
            it is kept.
        min_p : float or array_like, optional
            Then keep those of at least min_p times the largest probability, in [0, 1]. top_k >= n, 0 or -1, top_p = 1
            and min_p = 0 truncate nothing: a row with all three is drawn as without.
        method : {"grouped", "gumbel_max"}, optional
            "grouped" reads memory once and takes one exponential variate for each 4096 categories. "gumbel_max" is the
            argmax of logits / temperature + gumbel with the float64 noise of the same draw, without storing that noise,
            over the columns that are kept. Equal sums are told apart by what large ones lost of the noise, in units of
            2^-22, then by the smaller index. Both are exact; they give different categories.
        offsets : array_like of int, optional
            For 1-D logits: row i is logits[offsets[i] : offsets[i + 1]], from offsets[0] = 0 to offsets[-1] =
            len(logits), an index counts within its row, and temperature, row_ids and row_mask have one entry for each.
            For logits on a CUDA device they may be there, too: rows of wrong offsets are then flagged.
        row_ids : array_like of int, optional
            Integers in 0 .. 2**56 - 1 that replace each row's position as the address of its random bits.
        row_mask : array_like of bool, optional
            Rows that are False are not read and get -1; no other row changes.
        on_invalid : {"raise", "flag"}, optional
            What to do with rows that hold NaN or +inf or nothing but -inf: raise, or -1. None raises on the host and
            flags on a CUDA device, where raising waits for the device.
        out : ndarray of int64, optional
            Where to write the indices.
        stream : object with `__cuda_stream__`, optional
            For logits on a CUDA device: the stream to run on, in place of the current one of the array's library.

        Returns
        -------
        ndarray of int64, or numpy.int64 for one sample of 1-D logits
            Indices, of the shape of logits without `axis`, plus a trailing num_samples where it is given.

        Raises
        ------
        TypeError
            If logits is not of one of the four dtypes in native byte order, or `out` not an int64 array.
        ValueError
            If there are no categories or more than 2**34, if a parameter is out of range or of the wrong shape, or
            if a row is invalid and on_invalid is "raise": the message names the first bad row and column. If offsets
            do not ascend from 0 to len(logits), or a row that is not masked out is empty.
        numpy.exceptions.AxisError
            If axis is out of range.

        Notes
        -----
        The same seed, draw and logits give the same indices on any thread count, memory layout, batch split
        (with row_ids) and SIMD width. The total variation distance from softmax is below 5.7e-7 in the worst
        case, 3e-8 measured; a category whose weight is below 2**-50 of its block's largest is not drawn.

        With "grouped", num_samples of at least 64 and n / 8 (up to 4096 categories) or n / 128 (beyond; float64 logits:
        n / 256) are drawn from an alias table, made for one row after the other: the rule, which measurements chose,
        is part of `BITS_VERSION`. The law is the same, or nearer to softmax (see `CategoricalTable`); below the rule
        the first samples do not depend on num_samples, beyond it neither, but the two differ.

        Truncation sorts nothing: usually one pass over the logits and a look at the few columns that can be kept.
        top_p counts in steps of 2**-40, rounded down, and compares sums of integers: 0.9 of ten equal categories is
        nine. Weights are good to 2e-7 (float64 logits: 2e-16), so a sum that near to top_p may fall on either side.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> rng = numbel.default_rng(5)
        >>> int(rng.categorical(np.log(np.array([0.0, 0.0, 1.0]), where=[False, False, True],
        ...                                   out=np.full(3, -np.inf))))
        2
        >>> rng.categorical(np.zeros((2, 10), np.float32), 3).shape
        (2, 3)
        >>> rng.categorical(np.array([0.0, -np.inf, -np.inf, 0.0, 0.0]), offsets=[0, 2, 4, 5])  # three rows
        array([0, 1, 0])
        >>> logits = np.log(np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]))
        >>> rng.categorical(logits, 1000, top_p=[0.9, 0.4]).max(axis=1).tolist()
        [2, 2]
        >>> rng.categorical(logits, 1000, top_k=2).min(axis=1).tolist()
        [1, 0]
        """
        others = offsets, top_k, top_p, min_p, row_ids, row_mask, on_invalid, out, stream
        found = common.sample(self, logits, num_samples, axis, temperature, method, others, False)
        if found is not None:
            return found
        rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
        options = SampleOptions(num_samples, method, offsets, (top_k, top_p, min_p), (out, None, None), False)
        return self._sample(logits, rows, options).indices

    @overload
    def sample(
        self,
        logits: UnknownRank,
        num_samples: None = None,
        *,
        offsets: None = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample[Any, Any, Any]: ...

    @overload
    def sample(  # type: ignore[overload-overlap]  # an unknown rank is any rank
        self,
        logits: FloatUnknownRank[FloatT],
        num_samples: int,
        *,
        offsets: None = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample[Indices, NDArray[FloatT], Any]: ...

    @overload
    def sample(
        self,
        logits: FloatVector[FloatT],
        num_samples: None = None,
        *,
        offsets: None = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample[np.int64, FloatT, FloatT]: ...

    @overload
    def sample(
        self,
        logits: FloatTensor[FloatT],
        num_samples: None = None,
        *,
        offsets: None = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample[Indices, NDArray[FloatT], NDArray[FloatT]]: ...

    @overload
    def sample(
        self,
        logits: FloatVector[FloatT],
        num_samples: int,
        *,
        offsets: None = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample[Indices, NDArray[FloatT], FloatT]: ...

    @overload
    def sample(
        self,
        logits: FloatTensor[FloatT],
        num_samples: int,
        *,
        offsets: None = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample[Indices, NDArray[FloatT], NDArray[FloatT]]: ...

    @overload
    def sample(
        self,
        logits: ArrayLike | Elsewhere,
        num_samples: int | None = None,
        *,
        offsets: Any = None,
        out: Sample | None = None,
        **options: Unpack[Draws],
    ) -> Sample: ...

    def sample(
        self,
        logits: ArrayLike | Elsewhere,
        num_samples: int | None = None,
        *,
        axis: int = -1,
        temperature: ArrayLike = 1.0,
        top_k: ArrayLike | None = None,
        top_p: ArrayLike | None = None,
        min_p: ArrayLike | None = None,
        method: Method = "grouped",
        offsets: ArrayLike | None = None,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: Sample | None = None,
        stream: Any = None,
    ) -> Sample:
        """Draw as `categorical` does, with log-probabilities and logsumexp from the same pass.

        Parameters
        ----------
        logits, num_samples, axis, temperature, top_k, top_p, min_p, method, offsets, row_ids, row_mask, on_invalid
            As in `categorical`. Rows that are masked out or flagged get NaN beside the index -1.
        out : Sample, optional
            Arrays to write to; an entry that is None is allocated.
        stream
            As in `categorical`.

        Returns
        -------
        Sample
            `indices`, bit for bit those of `categorical`; `log_prob` of the shape of indices and `logsumexp` of
            the shape of logits without `axis`, float64 for float64 logits, else float32.

        Raises
        ------
        TypeError, ValueError, numpy.exceptions.AxisError
            As in `categorical`.

        Notes
        -----
        `logsumexp` is ln(sum(exp(logits / temperature))), `log_prob` is logits / temperature - logsumexp at
        the index; with top_k, top_p or min_p it is that of the law truncated, logsumexp is not. Blocks are joined
        along a fixed tree, so that neither depends on threads or chunks. In a
        row of temperature 0 log_prob is 0 and logsumexp the limit of max / T: -inf, 0 or inf.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> sample = numbel.default_rng(5).sample(np.log(np.arange(1.0, 5.0)))
        >>> round(float(sample.logsumexp), 6) == round(float(np.log(10.0)), 6)
        True
        >>> bool(np.isclose(np.exp(sample.log_prob), (sample.indices + 1) / 10))
        True
        """
        others = offsets, top_k, top_p, min_p, row_ids, row_mask, on_invalid, out, stream
        found = common.sample(self, logits, num_samples, axis, temperature, method, others, True)
        if found is not None:
            return found  # type: ignore[no-any-return]
        if out is not None and (not isinstance(out, tuple) or len(out) != 3):
            raise TypeError(f"out must be a numbel.Sample, got {type(out).__name__}")
        given = (None, None, None) if out is None else tuple(out)
        rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
        options = SampleOptions(num_samples, method, offsets, (top_k, top_p, min_p), given, True)
        return self._sample(logits, rows, options)

    def _sample(self, logits: Any, rows: RowOptions, options: SampleOptions) -> Sample:
        if self._on_device(logits, rows.stream):
            return _device().sample(self._reserve, logits, rows, options)  # type: ignore[no-any-return]
        sample = methods.sample if options.offsets is None else ragged.sample
        return sample(self._reserve, logits, rows, options)

    @overload
    def gumbel_softmax(
        self,
        logits: np.ndarray[ShapeT, DTypeT],
        temperature: ArrayLike = 1.0,
        *,
        axis: int = -1,
        hard: bool = False,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: NDArray[Any] | None = None,
        stream: Any = None,
    ) -> np.ndarray[ShapeT, DTypeT]: ...

    @overload
    def gumbel_softmax(
        self,
        logits: ArrayLike | Elsewhere,
        temperature: ArrayLike = 1.0,
        *,
        axis: int = -1,
        hard: bool = False,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: Any = None,
        stream: Any = None,
    ) -> Any: ...

    def gumbel_softmax(
        self,
        logits: ArrayLike | Elsewhere,
        temperature: ArrayLike = 1.0,
        *,
        axis: int = -1,
        hard: bool = False,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: NDArray[Any] | None = None,
        stream: Any = None,
    ) -> NDArray[Any]:
        """Draw relaxed one-hot samples, softmax((logits + G) / temperature), on the noise G of `gumbel`.

        Parameters
        ----------
        logits : array_like, shape (..., n) with the categories along `axis`
            Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
        temperature : float or array_like, optional
            Positive; it divides the logits and the noise. 0 means the limit: the one-hot, as if `hard`. An array
            broadcasts to the shape of logits without `axis`.
        axis : int, optional
            The category axis.
        hard : bool, optional
            The one-hot of the largest logits + G instead: exactly that of `categorical(method="gumbel_max")` at
            temperature 1 of the same draw.
        row_ids, row_mask, on_invalid
            As in `categorical`. Rows that are masked out or flagged are NaN.
        out : ndarray of the shape and dtype of logits, optional
            Where to write; it may be logits itself.
        stream
            As in `categorical`.

        Returns
        -------
        ndarray, of the shape and dtype of logits
            Along `axis` it sums to 1, up to the rounding of its dtype.

        Raises
        ------
        TypeError, ValueError, numpy.exceptions.AxisError
            As in `categorical`.

        Notes
        -----
        G is `gumbel(size=logits.shape)` of the same draw, with `axis` moved last, in float64 for float64 logits and
        in float32 else. Each block of 4096 categories subtracts its largest logit before it adds the noise, so that
        large logits do not absorb it. Values below 2^-100 of their row's largest may be 0.
        P(argmax y = k) = softmax(logits)[k] at any temperature. Rows of up to 2^20 categories are read and written
        once; longer ones are visited a second time for their sum.

        References
        ----------
        Jang, Gu and Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", ICLR; Maddison, Mnih and
        Teh (2017), "The Concrete Distribution", ICLR.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> logits = np.log(np.array([0.2, 0.3, 0.5], np.float32))
        >>> y = numbel.Generator(5).gumbel_softmax(logits, temperature=0.5)
        >>> bool(np.isclose(y.sum(), 1)), y.dtype
        (True, dtype('float32'))
        >>> numbel.Generator(5).gumbel_softmax(logits, hard=True)
        array([0., 0., 1.], dtype=float32)
        """
        others = row_ids, row_mask, on_invalid, out, stream
        found = common.relaxed(self, logits, temperature, axis, hard, others)
        if found is not None:
            return found
        rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
        if self._on_device(logits, stream):
            return _device().gumbel_softmax(self._reserve, logits, rows, hard, out)  # type: ignore[no-any-return]
        return methods.gumbel_softmax(self._reserve, logits, rows, hard, out)

    @overload
    def multinomial(
        self, n: ArrayLike, logits: np.ndarray[ShapeT, Any], *, out: Indices | None = None, **options: Unpack[Rows]
    ) -> np.ndarray[ShapeT, np.dtype[np.int64]]: ...

    @overload
    def multinomial(
        self, n: ArrayLike, logits: ArrayLike | Elsewhere, *, out: Any = None, **options: Unpack[Rows]
    ) -> Any: ...

    def multinomial(
        self,
        n: ArrayLike,
        logits: ArrayLike | Elsewhere,
        *,
        axis: int = -1,
        temperature: ArrayLike = 1.0,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: NDArray[np.int64] | None = None,
        stream: Any = None,
    ) -> NDArray[np.int64]:
        """Draw how often each category comes up in n draws, without drawing n times.

        Parameters
        ----------
        n : int or array_like of int
            Number of draws, 0 .. 2**62; an array broadcasts to the shape of logits without `axis`.
        logits, axis, temperature, row_ids, row_mask, on_invalid
            As in `categorical`. Rows that are masked out or flagged get -1 throughout; one of temperature 0 has all its
            draws at its argmax.
        out : ndarray of int64, of the shape of logits, optional
            Where to write.
        stream
            As in `categorical`.

        Returns
        -------
        ndarray of int64, of the shape of logits
            Counts; along `axis` they sum to n exactly.

        Raises
        ------
        TypeError
            As in `categorical`, or if n does not hold integers.
        ValueError
            As in `categorical`, or if n is negative, above 2**62, or of the wrong shape.
        numpy.exceptions.AxisError
            If axis is out of range.

        Notes
        -----
        n is split over the dyadic tree of the categories' masses, a binomial variate at each node whose count is not 0:
        by rejection where its mean is 10 or more, else by inversion. Masses are float64, sums of them accurate to
        3e-15, whatever the dtype of the logits. A count's mean is right within a relative 1e-14, which at n = 2**62 is
        at most 2e-5 of its standard deviation; inversion ends where 1e-16 of probability is left. Two passes over the
        logits beside the one that sums them up; memory beyond the result is a number for each 4096 categories.

        References
        ----------
        Hoermann (1993), "The generation of binomial random variates", J. Stat. Comput. Simul. 46; Loader (2000), "Fast
        and Accurate Computation of Binomial Probabilities".

        Examples
        --------
        >>> import numbel, numpy as np
        >>> counts = numbel.Generator(5).multinomial(10**12, np.log([0.25, 0.75, 1e-300]))
        >>> int(counts.sum()), bool(abs(counts[0] / 10**12 - 0.25) < 3e-6), int(counts[2])
        (1000000000000, True, 0)
        """
        found = common.counts(self, n, logits, axis, temperature, (row_ids, row_mask, on_invalid, out, stream))
        if found is not None:
            return found
        rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
        if self._on_device(logits, stream):
            return _device().multinomial(self._reserve, n, logits, rows, out)  # type: ignore[no-any-return]
        return methods.multinomial(self._reserve, n, logits, rows, out)

    @overload
    def gumbel_top_k(
        self, logits: FloatUnknownRank[FloatT], k: int, *, out: TopK | None = None, **options: Unpack[Rows]
    ) -> TopK[Indices, NDArray[np.float64], Any, Any]: ...

    @overload
    def gumbel_top_k(
        self, logits: FloatVector[FloatT], k: int, *, out: TopK | None = None, **options: Unpack[Rows]
    ) -> TopK[Indices, NDArray[np.float64], FloatT, np.float64]: ...

    @overload
    def gumbel_top_k(
        self, logits: FloatTensor[FloatT], k: int, *, out: TopK | None = None, **options: Unpack[Rows]
    ) -> TopK[Indices, NDArray[np.float64], NDArray[FloatT], NDArray[np.float64]]: ...

    @overload
    def gumbel_top_k(
        self, logits: ArrayLike | Elsewhere, k: int, *, out: TopK | None = None, **options: Unpack[Rows]
    ) -> TopK: ...

    def gumbel_top_k(
        self,
        logits: ArrayLike | Elsewhere,
        k: int,
        *,
        axis: int = -1,
        temperature: ArrayLike = 1.0,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: TopK | None = None,
        stream: Any = None,
    ) -> TopK:
        """Draw k categories without replacement: the k largest of logits / temperature + G, in that order.

        Parameters
        ----------
        logits : array_like, shape (..., n) with the categories along `axis`
            Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
        k : int
            How many, 1 .. n. Each row must have as many possible categories.
        axis : int, optional
            The category axis.
        temperature : float or array_like, optional
            Positive, or 0 for the k largest logits, the first of equals first; an array broadcasts to the shape of
            logits without `axis`.
        row_ids, row_mask, on_invalid
            As in `categorical`. Rows that are masked out or flagged get -1 and NaN; so do, with "flag", those with
            fewer than k possible categories.
        out : TopK, optional
            Arrays to write to; an entry that is None is allocated.
        stream
            As in `categorical`.

        Returns
        -------
        TopK
            `indices` and `perturbed` of the shape of logits without `axis`, plus k; `log_prob` of the ordered sample
            and `threshold`, the (k+1)-th perturbed value, one for each row. In a row of temperature 0 log_prob is 0,
            and perturbed and threshold are the limits of logit / T: -inf, 0 or inf.

        Raises
        ------
        TypeError, numpy.exceptions.AxisError
            As in `categorical`.
        ValueError
            As in `categorical`, if k is not in 1 .. n, or if a row has fewer than k possible categories.

        Notes
        -----
        G is the float64 noise of the same draw, as in `categorical(method="gumbel_max")`, whose index is the first one,
        with the same rule for ties. The first category has the law softmax(logits / temperature), each further one the
        same law among those left (Plackett-Luce): with phi = logits / temperature and R_j the logsumexp of phi over all
        categories but the first j - 1 chosen, log_prob is the sum of phi_j - R_j. R is summed from the unselected
        categories upwards, so that nothing cancels where the chosen hold nearly all of the mass. Logits are read once,
        and the blocks of 4096 that hold chosen categories once more. Memory is O(k) for each thread.
        `numbel.top_k_weights` makes importance weights of the result.

        References
        ----------
        Kool, van Hoof and Welling (2019), "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
        Sequences Without Replacement", ICML; Plackett (1975), "The Analysis of Permutations", Applied Statistics 24.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> logits = np.log(np.array([0.1, 0.2, 0.3, 0.4]))
        >>> chosen = numbel.Generator(5).gumbel_top_k(logits, 2)
        >>> first, second = np.exp(logits[chosen.indices])
        >>> bool(np.isclose(np.exp(chosen.log_prob), first * second / (1 - first)))
        True
        >>> int(numbel.Generator(5).categorical(logits, method="gumbel_max")) == int(chosen.indices[0])
        True
        """
        found = common.top_k(self, logits, k, axis, temperature, (row_ids, row_mask, on_invalid, out, stream))
        if found is not None:
            return found
        rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
        if self._on_device(logits, stream):
            return _device().gumbel_top_k(self._reserve, logits, k, rows, out)  # type: ignore[no-any-return]
        return _top_k.gumbel_top_k(self._reserve, logits, k, rows, out)

    @overload
    def conditional_gumbel(
        self,
        logits: np.ndarray[ShapeT, DTypeT],
        index: ArrayLike,
        *,
        out: NDArray[Any] | None = None,
        **options: Unpack[Rows],
    ) -> np.ndarray[ShapeT, DTypeT]: ...

    @overload
    def conditional_gumbel(
        self, logits: ArrayLike | Elsewhere, index: ArrayLike, *, out: Any = None, **options: Unpack[Rows]
    ) -> Any: ...

    def conditional_gumbel(
        self,
        logits: ArrayLike | Elsewhere,
        index: ArrayLike,
        *,
        axis: int = -1,
        temperature: ArrayLike = 1.0,
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: OnInvalid = None,
        out: NDArray[Any] | None = None,
        stream: Any = None,
    ) -> NDArray[Any]:
        """Draw perturbed logits, logits / temperature + G, given that `index` is where they are largest.

        Parameters
        ----------
        logits : array_like, shape (..., n) with the categories along `axis`
            Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible.
        index : array_like of int, of the shape of logits without `axis`
            A possible category of each row, such as `categorical` returns.
        axis : int, optional
            The category axis.
        temperature : float or array_like, optional
            Positive; an array broadcasts to the shape of logits without `axis`.
        row_ids, row_mask, on_invalid
            As in `categorical`. Rows that are masked out or flagged are NaN; so are, with "flag", those whose index
            is out of range or impossible.
        out : ndarray of the shape and dtype of logits, optional
            Where to write; it may be logits itself.
        stream
            As in `categorical`.

        Returns
        -------
        ndarray, of the shape and dtype of logits
            Its argmax along `axis` is `index`: others are kept below it when they are rounded.

        Raises
        ------
        TypeError
            As in `categorical`, or if index does not hold integers.
        ValueError
            As in `categorical`, if a temperature is 0, or if an index is out of range or impossible.
        numpy.exceptions.AxisError
            If axis is out of range.

        Notes
        -----
        With phi = logits / temperature, z_k = logsumexp(phi) + G_k at k = index, and z_i = -ln(exp(-phi_i - G_i) +
        exp(-z_k)) elsewhere. Drawing index from softmax(phi) first gives z the law of phi + G. The noise is of its
        own, independent of that of `gumbel` and of all samples of the same draw. It is computed in float64, from a
        logsumexp that is as accurate as `sample`'s (4e-7 for all but float64 logits).

        References
        ----------
        Maddison, Tarlow and Minka (2014), "A* Sampling", NeurIPS; Tucker et al. (2017), "REBAR", NeurIPS.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> rng = numbel.default_rng(5)
        >>> logits = np.zeros((3, 4))
        >>> z = rng.conditional_gumbel(logits, [2, 0, 3])
        >>> z.argmax(-1).tolist()
        [2, 0, 3]
        """
        rows = RowOptions(axis, temperature, row_ids, row_mask, on_invalid, stream)
        if self._on_device(logits, stream):
            return _device().conditional_gumbel(self._reserve, logits, index, rows, out)  # type: ignore[no-any-return]
        return methods.conditional_gumbel(self._reserve, logits, index, rows, out)


def _device() -> Any:
    """The methods for arrays on a CUDA device; importing CUDA takes a second."""
    from ._device import libraries

    libraries.require()
    from . import _device

    return _device


def default_rng(
    seed: SupportsIndex | Sequence[int] | NDArray[np.integer[Any]] | np.random.SeedSequence | Generator | None = None,
) -> Generator:
    """Make a Generator from a seed.

    Parameters
    ----------
    seed : int, sequence of int, numpy.random.SeedSequence, Generator or None, optional
        An int below 2**64 is the seed itself; a larger one and a sequence become a SeedSequence, as in NumPy, which
        goes through `generate_state`. A Generator is returned as it is; None takes 64 bits from the operating system.

    Returns
    -------
    Generator

    Raises
    ------
    ValueError
        If seed is negative, or holds a negative number.
    TypeError
        If seed is none of these. Of a generator of NumPy's, pass its `.bit_generator.seed_seq`.

    Examples
    --------
    >>> import numbel
    >>> numbel.default_rng(5)
    numbel.Generator(seed=5, draw=0)
    """
    if isinstance(seed, Generator):
        return seed
    if seed is None:
        return Generator(secrets.randbits(64))
    if isinstance(seed, np.random.SeedSequence):
        return Generator(int(seed.generate_state(1, np.uint64)[0]))
    number = _seed_number(seed)
    if number is None:
        return default_rng(_seed_sequence(seed))
    if number < 0:
        raise ValueError(f"seed must not be negative, got {number}")
    if number >= _LIMIT:
        return default_rng(np.random.SeedSequence(number))
    return Generator(number)


def _seed_number(seed: Any) -> int | None:
    """A seed that is an integer."""
    try:
        return operator.index(seed)
    except TypeError:
        return None


def _seed_sequence(seed: Any) -> np.random.SeedSequence:
    """Seeds that are several integers, as NumPy's SeedSequence takes them."""
    way = {
        np.random.Generator: ": pass its .bit_generator.seed_seq",
        np.random.BitGenerator: ": pass its .seed_seq",
        np.random.RandomState: ": pass a seed, such as its .randint(1 << 32)",
    }
    for kind, text in way.items():
        if isinstance(seed, kind):
            raise TypeError(f"seed is a {kind.__name__} of NumPy's, whose draws are its own{text}")
    refusal = f"seed must be an int, a sequence of ints, SeedSequence, Generator or None, got {seed!r}"
    if isinstance(seed, (str, bytes, bytearray, set, frozenset, dict)) or not np.iterable(seed):
        raise TypeError(refusal)
    numbers = [_seed_number(each) for each in np.asarray(seed, object).reshape(-1)]
    if any(number is None for number in numbers):
        raise TypeError(refusal)
    if any(number is not None and number < 0 for number in numbers):
        raise ValueError(f"seed must not hold negative numbers, got {seed!r}")
    return np.random.SeedSequence([number for number in numbers if number is not None])
