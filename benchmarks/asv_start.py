import statistics
import subprocess
import sys

_ROUNDS = 7


class Start:
    """What a process pays before its first draw."""

    timeout = 600
    version = "1"

    def setup(self) -> None:
        _seconds("import numbel; numbel.default_rng(5).categorical([[0.0, 1.0]])")

    def track_import(self) -> float:
        """Beyond that of Numba, which it needs."""
        return _seconds("import numba; start = perf_counter(); import numbel")

    track_import.unit = "seconds"  # type: ignore[attr-defined]

    def track_first_call(self) -> float:
        """With machine code in the disk cache."""
        return _seconds("import numbel; start = perf_counter(); numbel.default_rng(5).categorical([[0.0, 1.0]])")

    track_first_call.unit = "seconds"  # type: ignore[attr-defined]


def _seconds(code: str) -> float:
    """Median of fresh processes of the time from `start` to the end of `code`."""
    program = f"from time import perf_counter\nstart = perf_counter()\n{code}\nprint(perf_counter() - start)"
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
        for _ in range(_ROUNDS)
    )
