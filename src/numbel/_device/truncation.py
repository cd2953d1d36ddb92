"""top_k, top_p and min_p of a call on a CUDA device: numbers, or one for each row, on the host or on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import checks
from .._cuda.truncation import Limits
from .libraries import library
from .task import Task

_KINDS = {"top_k": "int64", "top_p": "float64", "min_p": "float64"}


class Truncation:
    """The checked truncations of a call. Values on the device are first seen by the kernels, which flag bad ones."""

    def __init__(self, task: Task, given: tuple[Any, Any, Any]) -> None:
        columns = task.span.shape[-1]
        self._task, self._given = task, dict(zip(_KINDS, given, strict=True))
        for name, other in (("top_k", columns), ("top_p", 1.0), ("min_p", 0.0)):
            if self._given[name] is None:
                self._given[name] = other
        self._host = {name: self._checked(name, value, columns) for name, value in self._given.items()}
        #: Whether all rows are known to keep everything.
        self.off = None not in self._host.values() and bool(self.keeps_all(columns).all())

    def keeps_all(self, columns: int) -> np.ndarray[Any, Any]:
        """Which rows keep all of so many columns; for this, what is on the device is copied to the host."""
        k, p, least = (
            self._fetched(name, kind) if found is None else found[0]
            for (name, kind), found in zip(_KINDS.items(), self._host.values(), strict=True)
        )
        return np.broadcast_to(((k >= columns) | (k == 0) | (k == -1)) & (p >= 1) & (least <= 0), self._task.rows)

    def _fetched(self, name: str, kind: str) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self._task.fetch(self._task.spread(self._given[name], kind, name))
        return found

    def _checked(self, name: str, value: Any, columns: int) -> tuple[np.ndarray[Any, Any], bool] | None:
        """What is on the host, as `checks` has it; None for what is on the device, whose dtype is checked."""
        if not checks.on_device(value):
            return checks.one_truncation(name, value, self._task.shape, columns)
        kind = library(value, None).span(value, name).name
        integral = kind.startswith(("int", "uint"))
        if not integral and (name == "top_k" or "float" not in kind):
            raise TypeError(f"{name} must hold {'integers' if name == 'top_k' else 'real numbers'}, got {kind}")
        return None

    def limits(self) -> Limits:
        """What the kernels are told; arrays of the host are copied to the device here."""
        parts: list[Any] = []
        for name, kind in _KINDS.items():
            found, none = self._host[name], self._task.none(kind)
            if found is None:
                parts += [1, self._task.spread(self._given[name], kind, name)]
            elif found[1]:
                parts += [1, self._task.uploaded(found[0])]
            else:
                parts += [found[0][0].item(), none]
        return Limits(*parts)


def truncation(task: Task, given: tuple[Any, Any, Any]) -> Truncation | None:
    """The truncations of a call; None where they keep everything."""
    if all(value is None for value in given):
        return None
    found = Truncation(task, given)
    return None if found.off else found
