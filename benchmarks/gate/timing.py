"""A process that times works of both versions in turn: python -m benchmarks.gate.timing < request > answer."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ..suite.common import ABSENT, seconds
from . import rule
from .sides import Side, load

#: Categories that one call handles at most, and what one measurement takes at least.
LIMIT = 1 << 24
_SHORTEST = 0.01
_PAUSE = 0.002


def pairs(sides: tuple[Side, Side], work: str, budget: float) -> dict[str, Any]:
    """Times of both sides, taken in turn until the rule has what it needs, or the budget in seconds is spent."""
    cases = []
    for side in sides:
        try:
            cases.append(side.case(work, LIMIT))
            with side.active():
                cases[-1].call()
        except ABSENT as error:
            return {"work": work, "absent": f"{side.name}: {error}"}
    calls = max(1, round(_SHORTEST / max(seconds(cases[0].call), 1e-7)))
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) < rule.MOST:
        # A B, B A: a drift helps neither
        for i in (0, 1) if len(times[0]) % 2 == 0 else (1, 0):
            with sides[i].active():
                time.sleep(_PAUSE)
                times[i].append(seconds(cases[i].call, calls))
        if len(times[0]) >= rule.FEWEST and len(times[0]) % 5 == 0:
            spent = time.perf_counter() - start > budget
            if spent or rule.decided(rule.interval(*times)):
                break
    return {"work": work, "base": times[0], "head": times[1]}


def main() -> None:
    """Answer one request: works, folders, cache, which side comes first."""
    request = json.load(sys.stdin)
    folders = Path(request["base"]), Path(request["head"])
    sides = load(folders, Path(request["cache"]), request["swapped"])
    for work in request["works"]:
        print(json.dumps(pairs(sides, work, request["budget"])), flush=True)


if __name__ == "__main__":
    main()
