"""What is told of a compiled kernel, without the compilers that it takes to find out."""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """Of one kernel for one target; `contracted` and `same_arithmetic` are None where they were not asked for."""

    registers: int
    spilled_bytes: int
    approximate: bool
    flushed: bool
    narrow: list[str]
    extremes: list[tuple[str, str]]
    contracted: int | None = None
    same_arithmetic: bool | None = None
