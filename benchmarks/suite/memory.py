"""What a call takes beyond its inputs and outputs."""

import os
import subprocess
import sys

from .common import ROOT, Work, bench

_WORKS = [work for work in bench.GRID if work.endswith("float32")]
#: glibc keeps up to 32 MB of what was freed, which would hide that much: larger pieces come from the system anew.
FRESH = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
_PEAK, _NOW = "VmHWM", "VmRSS"


class Memory(Work):
    params = (_WORKS,)
    param_names = ("work",)

    def setup(self, work: str) -> None:
        self.prepare(work)

    def peakmem_process(self, work: str) -> None:
        """The whole process with Numba, inputs and outputs, at its peak."""
        self.call()


class Beyond:
    timeout = 600
    version = "1"
    params = (_WORKS,)
    param_names = ("work",)

    def track_beyond_inputs_and_outputs(self, work: str) -> float:
        return 2**20 * beyond_in_fresh_process(work)

    track_beyond_inputs_and_outputs.unit = "bytes"  # type: ignore[attr-defined]


def _status(name: str) -> float:
    """A line of the process's status, in MiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))


def beyond(work: str) -> float:
    """MiB that the second call of a work takes at its peak beyond what was there before it.

    Results that a call allocates count unless the work passes `out`. `FRESH` should be in the environment.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        raise NotImplementedError("needs /proc/self/clear_refs, which Linux alone has")
    call = bench.GRID[work]["numbel"](bench.FULL).call
    call()
    before = _status(_NOW)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    call()
    return max(0.0, _status(_PEAK) - before)


def beyond_in_fresh_process(work: str) -> float:
    """`beyond` of the installed numbel, the median of three processes."""
    program = f"from benchmarks.suite.memory import beyond; print(beyond({work!r}))"
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | FRESH | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise NotImplementedError(done.stderr.strip().splitlines()[-1])
        found.append(float(done.stdout))
    return sorted(found)[1]
