"""CategoricalAccumulator: samples of logits that come in pieces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import checks
from ._host import dispatch, tables
from ._host.pieces import Law, Pieces
from ._scalar.limits import MAX_COLUMNS
from .generator import Generator
from .results import Sample


class CategoricalAccumulator:
    """A sample of logits that are never in memory as a whole: they come in runs of columns, in any order.

    Parameters
    ----------
    rng : Generator
        It gives one draw id, here. Accumulators of equal generators are parts of one sample, which can be made in
        several processes and merged.
    num_samples : int, optional
        Independent samples of each row; None is one without an axis of its own.
    axis : int, optional
        The category axis of every piece.
    temperature : float or array_like, optional
        Positive; it divides the logits. An array broadcasts to the shape of logits without `axis`, where 0 asks for the
        row's argmax.
    method : {"grouped", "gumbel_max"}, optional
        As in `Generator.sample`.
    row_ids, row_mask : array_like, optional
        As in `Generator.sample`, of the shape of logits without `axis`.
    on_invalid : {"raise", "flag"}, optional
        What happens to a row that holds NaN or +inf, or nothing but -inf: None and "raise" raise, "flag" gives index -1
        and NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind or in the range said above.

    Notes
    -----
    The result is bit for bit `rng.sample` of the whole array with the same seed and draw id, however it is cut, in
    whatever order pieces come and are merged. What is kept of a row: 40 bytes for each sample, 16 for each node of
    the tree of its blocks of 4096 columns whose sibling has not come (at most 22 while they come in order), what was
    given for it, and the logits of blocks that have come in part. It pickles and copies. One thread at a time may
    change it.

    Where `Generator.sample` draws from a table (from 64 samples of a row on, more where rows are long), no pass
    over pieces can give the same: `result` then raises; `method="gumbel_max"` has no such limit.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> logits = np.random.default_rng(0).standard_normal((2, 100_000), dtype=np.float32)
    >>> found = numbel.CategoricalAccumulator(numbel.Generator(5))
    >>> for start in range(0, 100_000, 30_000):
    ...     _ = found.update(logits[:, start : start + 30_000])
    >>> bool(np.all(found.result().indices == numbel.Generator(5).sample(logits).indices))
    True

    Two processes, each with its half:

    >>> left = numbel.CategoricalAccumulator(numbel.Generator(5)).update(logits[:, :50_000])
    >>> right = numbel.CategoricalAccumulator(numbel.Generator(5)).update(logits[:, 50_000:], start=50_000)
    >>> bool(np.all(left.merge(right).result().log_prob == found.result().log_prob))
    True
    """

    def __init__(
        self,
        rng: Generator,
        num_samples: int | None = None,
        *,
        axis: int = -1,
        temperature: ArrayLike = 1.0,
        method: str = "grouped",
        row_ids: ArrayLike | None = None,
        row_mask: ArrayLike | None = None,
        on_invalid: str | None = None,
    ) -> None:
        if not isinstance(rng, Generator):
            raise TypeError(f"rng must be a numbel.Generator, got {type(rng).__name__}")
        checks.method(method)
        self._num_samples = None if num_samples is None else checks.num_samples(num_samples)
        self._axis, self._method, self._raises = axis, method, checks.on_invalid(on_invalid)
        # copies: what is changed meanwhile must not count
        given = (("temperature", temperature), ("row_ids", row_ids), ("row_mask", row_mask))
        self._given: Any = [None if value is None else np.array(checks.plain(value, name)) for name, value in given]
        if np.ndim(temperature) == 0:
            checks.temperature(temperature, ())
        self._numbers: NDArray[np.int64] | None = None
        rng._on_device(None, None)
        with rng._reserve() as (self._seed, self._draw):
            self._pieces: Pieces | None = None

    def __repr__(self) -> str:
        columns = 0 if self._pieces is None else sum(stop - start for start, stop in self._pieces.covered)
        return f"numbel.CategoricalAccumulator(seed={self._seed}, draw={self._draw}, {columns} columns so far)"

    def update(self, logits: ArrayLike, start: int | None = None) -> CategoricalAccumulator:
        """Add columns.

        Parameters
        ----------
        logits : array_like, shape (..., n) with the categories along `axis`
            The next piece: unnormalised natural log-probabilities, float16, bfloat16, float32 or float64, of the same
            dtype and, but for `axis`, of the same shape each time. It may be changed afterwards. An empty one adds
            nothing.
        start : int, optional
            Its first column. None: the one behind the last column so far.

        Returns
        -------
        CategoricalAccumulator
            This one.

        Raises
        ------
        TypeError
            If logits is of another dtype than the piece before, or not of one of the four.
        ValueError
            If its shape does not fit, if a column comes twice, if there are more than 2**34 columns, or if a row holds
            NaN or +inf, unless such rows are flagged. The accumulator is then as before. Of a block of 4096 columns
            that comes in parts the values are seen with the last of them, or by `result`. So the first bad row to be
            seen is named, which need not be the first of all.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> found = numbel.CategoricalAccumulator(numbel.default_rng(5))
        >>> found.update(np.zeros(10_000, np.float32)).update(np.ones(10_000, np.float32))
        numbel.CategoricalAccumulator(seed=5, draw=0, 20000 columns so far)
        """
        if checks.on_device(logits):
            raise TypeError("CategoricalAccumulator takes arrays of the host: copy the piece there")
        shape = np.shape(logits)
        if -len(shape) <= self._axis < len(shape) and shape[self._axis] == 0:
            return self
        array = checks.logits(logits, self._axis)
        known = self._pieces
        pieces = Pieces(self._law(array)) if known is None else known.copy()
        law = pieces.law
        if array.dtype != law.dtype:
            raise TypeError(f"logits: expected {law.dtype}, the dtype of the pieces before, got {array.dtype}")
        if array.shape[:-1] != law.shape:
            raise ValueError(f"logits has rows of shape {array.shape[:-1]}, those before {law.shape}")
        first = pieces.columns if start is None else checks.uint64(start, "start")
        if first + array.shape[-1] > MAX_COLUMNS:
            raise ValueError(f"columns up to {first + array.shape[-1]}: at most 2^34 categories")
        pieces.update(array, first)
        self._pieces = pieces
        return self

    def merge(self, other: CategoricalAccumulator) -> CategoricalAccumulator:
        """Add the columns of another accumulator of the same sample.

        Parameters
        ----------
        other : CategoricalAccumulator
            Made with an equal generator and equal arguments; it is not changed.

        Returns
        -------
        CategoricalAccumulator
            This one.

        Raises
        ------
        TypeError
            If other is not a CategoricalAccumulator.
        ValueError
            If the two are not of one sample, or share a column. This one is then as before.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> one, two = (numbel.CategoricalAccumulator(numbel.Generator(5)) for _ in range(2))
        >>> two = two.update(np.zeros(5000, np.float32), start=3000)
        >>> one.update(np.zeros(3000, np.float32)).merge(two)
        numbel.CategoricalAccumulator(seed=5, draw=0, 8000 columns so far)
        """
        if not isinstance(other, CategoricalAccumulator):
            raise TypeError(f"other must be a numbel.CategoricalAccumulator, got {type(other).__name__}")
        if (self._seed, self._draw) != (other._seed, other._draw):
            raise ValueError(f"{self!r} and {other!r} are of different draws")
        if (self._num_samples, self._method, self._raises) != (other._num_samples, other._method, other._raises):
            raise ValueError("the accumulators differ in num_samples, method or on_invalid")
        if other._pieces is None:
            return self
        if self._pieces is None:
            pieces = Pieces(self._law(np.empty((*other._pieces.law.shape, 1), other._pieces.law.dtype)))
        else:
            pieces = self._pieces.copy()
        if not pieces.law.same(other._pieces.law):
            raise ValueError("the accumulators differ in the rows' shape, dtype, temperature, row_ids or row_mask")
        pieces.merge(other._pieces)
        self._pieces = pieces
        return self

    def result(self) -> Sample:
        """The sample of the columns so far, which more may follow.

        Returns
        -------
        Sample
            indices, log_prob and logsumexp as `Generator.sample` gives them.

        Raises
        ------
        ValueError
            If there are no columns yet, or some are missing before the last; if a row has no possible category (unless
            such are flagged); if so many samples of so many columns are drawn from a table.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> found = numbel.CategoricalAccumulator(numbel.default_rng(5), 4)
        >>> found.update(np.zeros((2, 10_000), np.float32)).result().indices.shape
        (2, 4)
        """
        if self._pieces is None:
            raise ValueError("no columns have been given")
        covered = self._pieces.covered
        if len(covered) > 1 or covered[0][0] > 0:
            missing = (0, covered[0][0]) if covered[0][0] > 0 else (covered[0][1], covered[1][0])
            raise ValueError(f"columns {missing[0]} .. {missing[1] - 1} have not been given")
        law, columns = self._pieces.law, covered[0][1]
        if math.prod(law.shape) and self._method == "grouped" and tables.tabled(columns, law.samples, law.dtype):
            raise ValueError(
                f"{law.samples} samples of {columns} columns are drawn from a table, which pieces cannot give: "
                'use CategoricalTable, method="gumbel_max", or fewer samples'
            )
        kind = dispatch.result_dtype(law.dtype)
        many = law.shape if self._num_samples is None else (*law.shape, law.samples)
        results: tuple[NDArray[Any], ...] = np.empty(many, np.int64), np.empty(many, kind), np.empty(law.shape, kind)
        pieces = self._pieces.copy()
        bad = pieces.finish(*results)
        if bad is not None and law.raises:
            raise ValueError(f"logits row {law.number(bad)} has no possible category")
        return Sample(*(result if result.shape else result[()] for result in results))

    def _law(self, array: NDArray[Any]) -> Law:
        """What all pieces have in common, from the first."""
        shape = array.shape[:-1]
        temperature, row_ids, row_mask = self._given
        return Law(
            shape,
            array.dtype,
            1 if self._num_samples is None else self._num_samples,
            self._method,
            *checks.temperature(temperature, shape),
            None if row_ids is None else checks.row_ids(row_ids, shape),
            None if row_mask is None else checks.row_mask(row_mask, shape),
            self._raises,
            self._numbers,
            self._seed,
            self._draw,
        )
