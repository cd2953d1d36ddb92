"""What overloads are written with: arrays by rank and dtype, and the arguments that methods share.

`tuple[Never]` is matched by an array of unknown rank only: a first overload with it answers Any, as no rank is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Never, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with defaults, which Python 3.11 lacks; checkers bring it along

    IndicesT = TypeVar("IndicesT", default=Any)
    LogProbT = TypeVar("LogProbT", default=Any)
    RowT = TypeVar("RowT", default=Any)
    PerturbedT = TypeVar("PerturbedT", default=Any)
    #: Of a table: where its draws are made, NumPy's arrays or those of a device (Any).
    WhereT = TypeVar("WhereT", default=np.ndarray[Any, Any])
else:
    from typing import TypeVar

    IndicesT, LogProbT, RowT, PerturbedT, WhereT = map(
        TypeVar, ("IndicesT", "LogProbT", "RowT", "PerturbedT", "WhereT")
    )

#: The dtype of log_prob and logsumexp is that of float32 and float64 logits; of the half types it is float32.
FloatT = TypeVar("FloatT", np.float32, np.float64)
ScalarT = TypeVar("ScalarT", bound=np.generic)
ShapeT = TypeVar("ShapeT", bound=tuple[Any, ...])
DTypeT = TypeVar("DTypeT", bound=np.dtype[Any])

Method: TypeAlias = Literal["grouped", "gumbel_max"]
OnInvalid: TypeAlias = Literal["raise", "flag"] | None
Several: TypeAlias = tuple[int, int, *tuple[int, ...]]

AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
UnknownRank: TypeAlias = np.ndarray[tuple[Never], np.dtype[Any]]
Vector: TypeAlias = np.ndarray[tuple[int], np.dtype[Any]]
Tensor: TypeAlias = np.ndarray[Several, np.dtype[Any]]
FloatUnknownRank: TypeAlias = np.ndarray[tuple[Never], np.dtype[FloatT]]
FloatVector: TypeAlias = np.ndarray[tuple[int], np.dtype[FloatT]]
FloatTensor: TypeAlias = np.ndarray[Several, np.dtype[FloatT]]
Indices: TypeAlias = NDArray[np.int64]


class Elsewhere(Protocol):
    """An array of a library that may lie on a CUDA device, whose results are its arrays."""

    @property
    def __cuda_array_interface__(self) -> Any: ...


class Rows(TypedDict, total=False):
    """What methods take of each row."""

    axis: int
    temperature: ArrayLike
    row_ids: ArrayLike | None
    row_mask: ArrayLike | None
    on_invalid: OnInvalid
    stream: Any


class Draws(Rows, total=False):
    """And of categories to be drawn."""

    top_k: ArrayLike | None
    top_p: ArrayLike | None
    min_p: ArrayLike | None
    method: Method


class Sums(TypedDict, total=False):
    """What functions of rows take beside the category axis."""

    temperature: ArrayLike
    on_invalid: OnInvalid
    stream: Any
