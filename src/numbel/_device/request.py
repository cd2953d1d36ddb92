"""What the caller of a method passed beside its logits: frozen, and all that travels from here down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RowOptions:
    """The category axis, what each row may have, what a bad row gets, and the stream; of a method's arguments."""

    axis: int = -1
    temperature: Any = 1.0
    row_ids: Any = None
    row_mask: Any = None
    on_invalid: str | None = None
    stream: Any = None


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """The other arguments of `categorical`, and of `sample` if `full`.

    `truncation` holds top_k, top_p and min_p; `out` an array or None for each of indices, log_prob and logsumexp.
    """

    num_samples: int | None
    method: str
    offsets: Any
    truncation: tuple[Any, Any, Any]
    out: tuple[Any, Any, Any]
    full: bool
