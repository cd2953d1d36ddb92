"""A process that times works of both versions in turn: python -m benchmarks.gate.timing < request > answer."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numba

from ..suite.common import ABSENT
from . import rule
from .sides import Side, load

#: Categories that one call handles at most, and seconds that one measurement takes at least: short pairs, and many of
#: them, because a busy machine disturbs in bursts.
LIMIT = 1 << 22
_SHORTEST = 0.003
_PAUSE = 0.0005


def _seconds(call: Any, calls: int, clock: Any) -> float:
    start = clock()
    for _ in range(calls):
        call()
    return float(clock() - start) / calls


def pairs(sides: tuple[Side, Side], work: str, threads: int, budget: float) -> dict[str, Any]:
    """Times of both sides, taken in turn until the rule has what it needs, or the budget in seconds is spent."""
    numba.set_num_threads(threads)
    cases, answer = [], {"work": work, "threads": threads}
    for side in sides:
        try:
            cases.append(side.case(work, LIMIT))
            with side.active():
                cases[-1].call()
        except ABSENT as error:
            return answer | {"absent": f"{side.name}: {error}"}
    # what one thread computes is told by its own clock, which stands still while others have the core
    clock = time.thread_time if threads == 1 else time.perf_counter
    calls = max(1, round(_SHORTEST / max(_seconds(cases[0].call, 1, clock), 1e-7)))
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) < rule.MOST:
        # A B, B A: a drift helps neither
        for i in (0, 1) if len(times[0]) % 2 == 0 else (1, 0):
            with sides[i].active():
                time.sleep(_PAUSE)
                times[i].append(_seconds(cases[i].call, calls, clock))
        if len(times[0]) >= rule.FEWEST and len(times[0]) % 10 == 0:
            spent = time.perf_counter() - start > budget
            if spent or rule.decided(rule.interval(*times)):
                break
    return answer | {"base": times[0], "head": times[1]}


def main() -> None:
    """Answer one request: works, folders, cache, which side comes first."""
    request = json.load(sys.stdin)
    folders = Path(request["base"]), Path(request["head"])
    sides = load(folders, Path(request["cache"]), request["swapped"])
    for work, threads in request["works"]:
        if threads <= numba.config.NUMBA_NUM_THREADS:
            print(json.dumps(pairs(sides, work, threads, request["budget"])), flush=True)


if __name__ == "__main__":
    main()
