import importlib.util
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _load() -> Any:
    """Load the table of this checkout, so that commits without it, or with another, are timed alike."""
    path = ROOT / "src" / "numbel" / "bench" / "__init__.py"
    spec = importlib.util.spec_from_file_location("numbel_bench_table", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _load()

#: What a row of the table has beside peers: ourselves, in several ways, and the limits.
LIMITS = ("read", "philox")
#: Of every figure, because asv takes a rise for a regression; published, so that pages colour it so.
LESS_IS_BETTER = True
#: What a commit or an environment may lack.
ABSENT = (KeyError, ImportError, AttributeError)


def one_of_each(works: Iterable[str]) -> tuple[str, ...]:
    """Works, and one more of every task that none of them is of."""
    found = {work.rsplit(" ", 4)[0]: work for work in works}
    for work in bench.WORKS:
        if work.endswith("float32"):
            found.setdefault(work.rsplit(" ", 4)[0], work)
    return tuple(dict.fromkeys([*works, *found.values()]))


def is_peer(library: str) -> bool:
    """Whether a library of the table is somebody else's."""
    return not library.startswith("numbel") and library not in LIMITS


def absent(error: Exception, what: str) -> NotImplementedError:
    """What tells asv to skip a case."""
    return NotImplementedError(f"{what} is not here: {error}")


class Work:
    """The base of the asv classes: one library on one work, compiled and warm."""

    timeout = 600
    rounds = 2
    version = "1"

    def prepare(self, work: str, library: str = "numbel") -> None:
        try:
            self.call, self.items = bench.GRID[work][library](bench.FULL)
        except ABSENT as error:
            raise absent(error, f"{library} on {work}") from error
        self.call()


def measured_ratio(work: str, library: str) -> float:
    """Our time for a category divided by that of `library`: medians of one process, taking turns."""
    try:
        rates = bench.measure(work, ["numbel", library])
        return float(1 / bench.ratio(rates, library))
    except ABSENT as error:
        raise absent(error, f"{library} on {work}") from error


def seconds(call: Any, calls: int = 1) -> float:
    """Seconds of one of `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def median_seconds(call: Any, rounds: int = 7) -> float:
    """Median of some calls."""
    return statistics.median(seconds(call) for _ in range(rounds))
