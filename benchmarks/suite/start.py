"""What a process pays before its first draw, and for it.

python -m benchmarks.suite.start    # a table of whichever numbel is on the path: cold and warm first calls
"""

import os
import statistics
import subprocess
import sys

_ROUNDS = 7
#: A first call of each public method, on logits that several threads share.
FIRST = {
    "categorical": "rng.categorical(x)",
    "sample": "rng.sample(x)",
    "gumbel": "rng.gumbel(size=(4, 100_000))",
    "gumbel_max": "rng.categorical(x, method='gumbel_max')",
    "gumbel_softmax": "rng.gumbel_softmax(x)",
    "top_k": "rng.categorical(x, top_k=50)",
    "top_p": "rng.categorical(x, top_p=0.9)",
    "gumbel_top_k": "rng.gumbel_top_k(x, 5)",
    "many samples": "rng.categorical(x, 10_000)",
    "multinomial": "rng.multinomial(100, x)",
    "conditional_gumbel": "rng.conditional_gumbel(x, np.zeros(4, np.int64))",
    "ragged": "rng.categorical(x.ravel(), offsets=[0, 10, 200_000, 400_000])",
    "log_prob": "numbel.log_prob(x, np.zeros(4, np.int64))",
    "entropy": "numbel.entropy(x)",
    "gumbel_softmax_vjp": "numbel.gumbel_softmax_vjp(x, x, 1.0)",
    "CategoricalTable": "numbel.CategoricalTable(x[0]).sample(rng, 10)",
    "CategoricalAccumulator": "numbel.CategoricalAccumulator(rng).update(x).result()",
}
_BEFORE = "import numpy as np, numbel\nrng, x = numbel.default_rng(5), np.zeros((4, 100_000), np.float32)\n"


def first_call(method: str, rounds: int = 1, **environment: str) -> float:
    """Seconds of a method's first call in a fresh process, imports apart; without a cache it compiles."""
    return _seconds(f"{_BEFORE}start = perf_counter(); {FIRST[method]}", rounds, **environment)


class Start:
    timeout = 600
    version = "1"

    def setup(self) -> None:
        _seconds("import numbel; rng = numbel.default_rng(5); rng.categorical([[0.0, 1.0]])", 1)

    def track_import_beyond_numba(self) -> float:
        return _seconds("import numba; start = perf_counter(); import numbel")

    track_import_beyond_numba.unit = "seconds"  # type: ignore[attr-defined]


class FirstCall:
    """A method's first call: where nothing is compiled, and where machine code lies on disk."""

    timeout = 600
    version = "1"
    params = (list(FIRST),)
    param_names = ("method",)

    def track_cold_seconds(self, method: str) -> float:
        return first_call(method, NUMBEL_CACHE="0")

    def track_warm_seconds(self, method: str) -> float:
        first_call(method)
        return first_call(method, _ROUNDS)

    track_cold_seconds.unit = "seconds"  # type: ignore[attr-defined]
    track_warm_seconds.unit = "seconds"  # type: ignore[attr-defined]


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


def main() -> None:
    """Print each method's first call, cold and warm: the least of three, and the median of seven processes."""
    print("| first call of | cold, s | warm, s |\n| --- | --- | --- |")
    for method in FIRST:
        cold = min(first_call(method, NUMBEL_CACHE="0") for _ in range(3))
        first_call(method)
        print(f"| `{method}` | {cold:.1f} | {first_call(method, _ROUNDS):.2f} |", flush=True)


if __name__ == "__main__":
    main()
