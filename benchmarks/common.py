import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def _load() -> Any:
    """Load the table of this checkout, so that commits without it, or with another, are timed alike."""
    path = Path(__file__).parents[1] / "src" / "numbel" / "bench.py"
    spec = importlib.util.spec_from_file_location("numbel_bench_table", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _load()


class Work:
    """The base of the asv classes: one library on one work, compiled and warm."""

    timeout = 600
    rounds = 2
    version = "1"

    def prepare(self, work: str, library: str = "numbel") -> None:
        try:
            self.call, self.items = bench.WORKS[work][library](bench.FULL)
        except (KeyError, ImportError) as error:
            raise NotImplementedError(f"{library} does not do {work} here: {error}") from error
        self.call()

    def rate(self) -> float:
        """Categories (or noise values) a second: libraries differ in how many they do in one call."""
        times = []
        for _ in range(7):
            start = time.perf_counter()
            self.call()
            times.append(time.perf_counter() - start)
        return float(self.items / statistics.median(times))
