"""CategoricalTable: a distribution prepared once for many draws."""

from __future__ import annotations

from typing import Any, Generic, Never, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import checks
from ._arguments.requests import LogitRows, Outputs, Temperature
from ._arguments.types import Elsewhere, Indices, ShapeT, WhereT
from ._host import dispatch, tables
from .generator import Generator, _device


class CategoricalTable(Generic[WhereT]):
    """One categorical distribution, prepared once, from which each draw takes the same short time.

    Parameters
    ----------
    logits : array_like, shape (n,)
        Unnormalised natural log-probabilities: float16, bfloat16, float32 or float64; -inf is impossible. Of an array
        on a CUDA device the table is made there, and stays there, as do its draws.
    temperature : float, optional
        Positive, and divides the logits; 0 gives all probability to the first largest one.

    Raises
    ------
    TypeError
        If logits is not of one of the four dtypes in native byte order.
    ValueError
        If logits is not one row, if it holds NaN, +inf or nothing but -inf, or if temperature is out of range.

    Notes
    -----
    An alias table (Walker 1977) in integers: weights are computed in float64 whatever the dtype, and rounded to 2^-62
    of their sum, so that the table itself is exact. Every probability is right within a relative (n 2^-62 + 5e-15) and
    n 2^-62 absolute, and the total variation distance from softmax is below n 2^-61 + 3e-15 (5e-13 at 2^20
    categories); below 2^-63 a category is not drawn, and -inf never. It is built in parallel, and is the same on any
    number of threads (after Huebschle-Schneider and Sanders, "Parallel Weighted Random Sampling", ESA 2019).
    It cannot be changed: threads may share it. Pickles hold the table, not the logits; one of a table on a CUDA device
    holds a copy, and puts it onto a device again. Making a table waits for the device, drawing from it does not.

    Examples
    --------
    >>> import numbel, numpy as np
    >>> table = numbel.CategoricalTable(np.log([0.2, 0.3, 0.5]))
    >>> counts = np.bincount(table.sample(numbel.default_rng(5), 100_000), minlength=3)
    >>> bool(np.allclose(counts / 100_000, [0.2, 0.3, 0.5], atol=0.01))
    True
    """

    __slots__ = ("__weakref__", "_logsumexp", "_table")

    @overload
    def __init__(self: CategoricalTable[Any], logits: Elsewhere, *, temperature: float = 1.0) -> None: ...

    @overload
    def __init__(
        self: CategoricalTable[np.ndarray[Any, Any]], logits: ArrayLike, *, temperature: float = 1.0
    ) -> None: ...

    def __init__(self, logits: ArrayLike | Elsewhere, *, temperature: float = 1.0) -> None:
        self._table: Any
        limit = None
        if checks.on_device(logits):
            self._table = _device().Table(logits, temperature)
            self._logsumexp = self._table.logsumexp
            return
        array = checks.one_row(logits)
        given = checks.temperature(temperature, ())
        root, logsumexp = np.empty((1, 2)), np.empty(1)
        if not given.values[0]:
            array, limit = _lone(array)
            given = Temperature(np.ones(1), False)
        rows = LogitRows(array, given._replace(per_row=False))
        bad = dispatch.categorical(rows, 0, "grouped", (0, 0), Outputs(logsumexp64=logsumexp, roots=root))
        if bad is not None:
            checks.invalid_row(array, bad)
        self._table = tables.build(array, rows.temperature, root)
        self._table.entries.flags.writeable = False
        self._logsumexp = logsumexp[0] if limit is None else limit

    @property
    def categories(self) -> int:
        """How many categories there are."""
        columns: int = self._table.columns
        return columns

    @property
    def logsumexp(self) -> np.float64:
        """ln(sum(exp(logits / temperature))), as accurate as that of `numbel.logsumexp`."""
        value: np.float64 = self._logsumexp
        return value

    @property
    def nbytes(self) -> int:
        """Bytes of the table: 8 for each category; twice that while it is made, thrice on a CUDA device."""
        return 8 * self.categories

    def __repr__(self) -> str:
        return f"numbel.CategoricalTable({self.categories} categories)"

    def __getstate__(self) -> dict[str, Any]:
        held = tuple(self._table) if isinstance(self._table, tables.Table) else self._table
        return {"table": held, "logsumexp": self._logsumexp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._table, self._logsumexp = state["table"], state["logsumexp"]
        if isinstance(self._table, tuple):
            self._table = tables.Table(*self._table)
            self._table.entries.flags.writeable = False

    @overload
    def sample(
        self: CategoricalTable[Never],
        rng: Generator,
        size: int | tuple[int, ...] | None = None,
        *,
        out: Any = None,
        stream: Any = None,
    ) -> Any: ...

    @overload
    def sample(
        self: CategoricalTable[np.ndarray[Any, Any]],
        rng: Generator,
        size: tuple[()] | None = None,
        *,
        out: None = None,
        stream: None = None,
    ) -> np.int64: ...

    @overload
    def sample(
        self: CategoricalTable[np.ndarray[Any, Any]],
        rng: Generator,
        size: int | tuple[int, *tuple[int, ...]],
        *,
        out: None = None,
        stream: None = None,
    ) -> Indices: ...

    @overload
    def sample(
        self: CategoricalTable[np.ndarray[Any, Any]],
        rng: Generator,
        size: int | tuple[int, ...] | None = None,
        *,
        out: np.ndarray[ShapeT, np.dtype[np.int64]],
        stream: None = None,
    ) -> np.ndarray[ShapeT, np.dtype[np.int64]]: ...

    @overload
    def sample(
        self, rng: Generator, size: int | tuple[int, ...] | None = None, *, out: Any = None, stream: Any = None
    ) -> Any: ...

    def sample(
        self,
        rng: Generator,
        size: int | tuple[int, ...] | None = None,
        *,
        out: NDArray[np.int64] | None = None,
        stream: Any = None,
    ) -> Any:
        """Draw categories.

        Parameters
        ----------
        rng : Generator
            It gives one draw id, whatever the size.
        size : int or tuple of int, optional
            Output shape. None: that of `out`, or else one category.
        out : ndarray of int64, optional
            Where to write.
        stream : object with `__cuda_stream__`, optional
            For a table on a CUDA device: the stream to run on, in place of the current one of the array's library.

        Returns
        -------
        ndarray of int64, or numpy.int64 where the shape is ()
            Categories, 0 .. n - 1: those of `rng.categorical(logits, size)` where that takes a table. From a table on a
            CUDA device an array there.

        Raises
        ------
        TypeError
            If rng is not a Generator, or `out` not an int64 array.
        ValueError
            If size is negative, or `out` of another shape or read-only.

        Examples
        --------
        >>> import numbel, numpy as np
        >>> table = numbel.CategoricalTable(np.zeros(10))
        >>> table.sample(numbel.default_rng(5), (2, 3)).shape
        (2, 3)
        """
        if not isinstance(rng, Generator):
            raise TypeError(f"rng must be a numbel.Generator, got {type(rng).__name__}")
        if size is None and hasattr(out, "shape"):
            size = tuple(out.shape)  # type: ignore[union-attr]
        shape = () if size is None else checks.size(size)
        if not isinstance(self._table, tables.Table):
            return self._table.draw(rng._reserve, shape, out, stream)
        rng._on_device(None, stream)
        result = np.empty(shape, np.int64) if out is None else checks.out(out, shape, np.dtype(np.int64))
        target = result if result.flags.c_contiguous else np.empty(shape, np.int64)
        with rng._reserve() as draw:
            tables.draw(self._table, target, draw, 0)
            if target is not result:
                result[...] = target
        return result if out is not None or shape else result[()]


def _lone(array: NDArray[Any]) -> tuple[NDArray[Any], np.float64]:
    """Logits of which only the first largest is possible, and the logsumexp at temperature 0."""
    index, limit = np.empty(1, np.int64), np.empty(1)
    rows = LogitRows(array, Temperature(np.zeros(1), True))
    bad = dispatch.categorical(rows, 1, "grouped", (0, 0), Outputs(indices=index, logsumexp64=limit))
    if bad is not None:
        checks.invalid_row(array, bad)
    lone: NDArray[Any] = np.full(array.shape, -np.inf, np.float32)
    lone[index] = 0
    return lone, limit[0]
