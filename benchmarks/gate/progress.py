"""How far a long command is, and about how long it will still take; and the machine that it runs on."""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path


class Progress:
    """Lines on standard error: what is done, and the time left by what the steps so far took.

    `expected` are seconds of the steps, in their order; only their proportions matter once some steps are done.
    """

    def __init__(self, expected: Sequence[float]) -> None:
        self.expected = list(expected)
        self.finished = 0
        self.start = time.perf_counter()
        self._lock = threading.Lock()

    def left(self, elapsed: float) -> float:
        """Seconds that the other steps will take."""
        done = sum(self.expected[: self.finished])
        rest = sum(self.expected[self.finished :])
        # the guess counts as ten seconds of experience, so that one slow first step does not decide
        return rest * (elapsed + 10) / (done + 10)

    def done(self, text: str) -> None:
        """A step is finished."""
        with self._lock:
            self.finished += 1
            elapsed = time.perf_counter() - self.start
            left = f", {_clock(self.left(elapsed))} left" if self.finished < len(self.expected) else ""
            print(
                f"[{self.finished}/{len(self.expected)}, {_clock(elapsed)}{left}] {text}", file=sys.stderr, flush=True
            )

    def drop(self, count: int) -> None:
        """The next so many steps are not needed."""
        del self.expected[self.finished : self.finished + count]

    def add(self, count: int, seconds: float) -> None:
        """So many steps more come next."""
        self.expected[self.finished : self.finished] = [seconds] * count


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
