"""What a process pays before its first draw."""

import os
import statistics
import subprocess
import sys

from .common import bench

_ROUNDS = 7
_FIRST = "rng = numbel.default_rng(5); rng.categorical([[0.0, 1.0]])"


class Start:
    timeout = 600
    version = "1"

    def setup(self) -> None:
        _seconds(f"import numbel; {_FIRST}", 1)

    def track_import_beyond_numba(self) -> float:
        return _seconds("import numba; start = perf_counter(); import numbel")

    def track_first_call_with_machine_code_on_disk(self) -> float:
        return _seconds(f"import numbel; start = perf_counter(); {_FIRST}")

    track_import_beyond_numba.unit = "seconds"  # type: ignore[attr-defined]
    track_first_call_with_machine_code_on_disk.unit = "seconds"  # type: ignore[attr-defined]


class Compile:
    """The first call ever: machine code is made, not loaded. Once a method, on float32."""

    timeout = 600
    version = "1"
    params = (list({work.rsplit(" ", 4)[0]: work for work in bench.GRID if " 65536 x 128 float32" in work}.values()),)
    param_names = ("work",)

    def track_first_call_ever(self, work: str) -> float:
        program = (
            "from benchmarks.suite.common import bench\n"
            f"case = bench.GRID[{work!r}]['numbel'](bench.QUICK)\nstart = perf_counter(); case.call()"
        )
        return _seconds(program, 1, NUMBEL_CACHE="0")

    track_first_call_ever.unit = "seconds"  # type: ignore[attr-defined]


def _seconds(code: str, rounds: int = _ROUNDS, **environment: str) -> float:
    """Median of fresh processes of the time from `start` to the end of `code`."""
    program = f"from time import perf_counter\nstart = perf_counter()\n{code}\nprint(perf_counter() - start)"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": path} | environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise NotImplementedError(done.stderr.strip().splitlines()[-1])
        found.append(float(done.stdout))
    return statistics.median(found)
