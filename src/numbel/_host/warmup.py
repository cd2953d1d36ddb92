"""Compile kernels before they are needed, in parallel processes: which a function runs, and who compiles them."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from .._arguments import checks
from .._cpu import drivers
from .._machine_code import kernel_cache
from .._machine_code.entries import Entry

_TABLES = ("table_weights", "table_head", "table_split", "table_draw", "table_rows")
_ROWS = ("grouped", "grouped_short")
_CATEGORICAL = (
    *_ROWS,
    *("gumbel_max", "gumbel_max_short"),
    *("truncated", "truncated_grouped_short", "truncated_gumbel_max_short"),
    *("ragged_gather", "ragged_grouped", "ragged_gumbel_max"),
    *_TABLES,
)
#: The workers that each public function runs, whatever its arguments; * stands for the dtype of its arithmetic.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "categorical": _CATEGORICAL,
    "sample": (*_CATEGORICAL, "given_log_prob"),
    "gumbel": ("noise_*",),
    "gumbel_softmax": ("relaxed_*", "relaxed_short_*"),
    "gumbel_softmax_vjp": ("vjp", "vjp_short"),
    "gumbel_top_k": ("top_k", "top_k_short"),
    "top_k_weights": (*_ROWS, "top_k_weights"),
    "conditional_gumbel": (*_ROWS, "conditional", "conditional_short"),
    "multinomial": (*_ROWS, "multinomial"),
    "log_prob": (*_ROWS, "given_log_prob"),
    "logsumexp": _ROWS,
    "entropy": ("entropy", "entropy_short"),
    "CategoricalTable": (*_ROWS, *_TABLES),
    "CategoricalAccumulator": ("accumulate_grouped", "accumulate_gumbel_max", "accumulated"),
}
#: Workers whose elements are those of the arithmetic, or always float64; of all others those of the logits.
_OF_ARITHMETIC = {"relaxed_*", "relaxed_short_*", "vjp", "vjp_short", "conditional", "conditional_short"}
_OF_ARITHMETIC |= {"table_weights", "table_rows", "multinomial"}
_OF_FLOAT64 = {"table_head", "table_split", "table_draw", "top_k_weights"}
#: Seconds that compiling takes, where it is more than two: the longest are begun first.
_SECONDS = {"truncated": 7, "relaxed_*": 5, "top_k": 4, "accumulate_grouped": 4, "relaxed_short_*": 3}
_SECONDS |= {"truncated_grouped_short": 3, "grouped_short": 3, "grouped": 3, "multinomial": 3}

#: A worker and the dtype of its elements.
Spec = tuple[str, str]


def needed(dtypes: Iterable[DTypeLike], functions: Iterable[str] | None = None) -> list[list[Spec]]:
    """The kernels that functions (None: all) run on logits or noise of these dtypes, those of a worker together."""
    return kernels([checks.float_dtype(dtype).name for dtype in dtypes], functions)


def kernels(dtypes: Iterable[str], functions: Iterable[str] | None = None) -> list[list[Spec]]:
    """The same of dtypes by their names: bfloat16 without the package that makes it a dtype."""
    names = list(FUNCTIONS) if functions is None else list(functions)
    unknown = [name for name in names if name not in FUNCTIONS]
    if unknown:
        raise ValueError(f"functions: {unknown[0]!r} is none of {', '.join(FUNCTIONS)}")
    kinds = list(dtypes)
    workers = {worker for name in names for worker in FUNCTIONS[name]}
    found = []
    for worker in sorted(workers, key=lambda worker: (-_SECONDS.get(worker, 1), worker)):
        specs: dict[Spec, None] = {}
        for kind in kinds:
            width = "float64" if kind == "float64" else "float32"
            element = "float64" if worker in _OF_FLOAT64 else width if worker in _OF_ARITHMETIC else kind
            specs[worker.replace("*", width), element] = None
        found.append(list(specs))
    return found


def entry(spec: Spec) -> Entry:
    """The entry point of a worker."""
    return drivers.driver(*spec).serial


def prepare(work: Iterable[list[Spec]], report: Callable[[float], None] = lambda share: None) -> None:
    """Compile or load kernels; `report` is told how far it is, from 0 to 1."""
    everything = [spec for specs in work for spec in specs]
    missing = [left for left in ([spec for spec in specs if not entry(spec).is_kept()] for specs in work) if left]
    weights = {spec: float(_weight(spec)) for specs in missing for spec in specs}
    total, done = sum(weights.values()), 0.0

    def finished(spec: Spec) -> None:
        nonlocal done
        done += weights[spec]
        report(done / total)

    if len(weights) > 2 and kernel_cache.cache_folder() is not None:
        in_processes([sys.executable, "-m", "numbel._host.warmup"], {}, missing, finished)
    for spec in everything:  # what no process did is compiled here
        made = not entry(spec).is_kept()
        entry(spec).ready()
        if made and spec in weights:
            finished(spec)
    drivers.ready()
    report(1.0)


def _weight(spec: Spec) -> int:
    worker = spec[0].replace("_float32", "_*").replace("_float64", "_*")
    return _SECONDS.get(spec[0], _SECONDS.get(worker, 1))


def in_processes(
    command: list[str], settings: dict[str, str], work: list[list[Spec]], finished: Callable[[Spec], None]
) -> None:
    """Have as many processes as there are cores compile: each takes the next worker when it is ready."""
    waiting = collections.deque(work)
    lock = threading.Lock()
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "NUMBEL_QUIET": "1"} | settings

    def serve() -> None:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            while waiting:
                try:
                    specs = waiting.popleft()
                except IndexError:
                    break
                for spec in specs:
                    try:
                        process.stdin.write(" ".join(spec) + "\n")
                        process.stdin.flush()
                    except OSError:
                        return
                    if process.stdout.readline() != "done\n":
                        return
                    with lock:
                        finished(spec)
            process.stdin.close()

    count = min(len(work), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def warmup(dtypes: Iterable[DTypeLike] = (np.float32,), *, functions: Iterable[str] | None = None) -> None:
    """Compile, or load from the disk cache, the kernels for logits and noise of these dtypes.

    Parameters
    ----------
    dtypes : iterable of dtype, optional
        float16, bfloat16, float32, float64.
    functions : iterable of str, optional
        Names of public functions, methods and classes, such as "categorical" or "entropy"; all of them without.

    Raises
    ------
    TypeError
        If a dtype is none of these.
    ValueError
        If there is no function of that name.

    Notes
    -----
    Compiling happens once on a machine, in one process for each core; afterwards machine code comes from the disk cache
    (`show_config` says where it is). Where there is no disk cache, this process compiles.

    Examples
    --------
    >>> import numbel
    >>> numbel.warmup(functions=["gumbel"])
    """
    prepare(needed(dtypes, functions))


def serve(make: Callable[[Entry], None]) -> None:
    """Make what is named on standard input, a kernel a line, and say so: the other end of `in_processes`."""
    for line in sys.stdin:
        worker, dtype = line.split()
        make(entry((worker, dtype)))
        print("done", flush=True)


if __name__ == "__main__":
    serve(lambda each: each.ready())
