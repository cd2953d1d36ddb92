"""What a process pays before its first draw, and for it.

python -m benchmarks.suite.start    # a table of whichever numbel is on the path: cold and warm first calls
"""

import os
import shutil
import statistics
import subprocess
import sys
import zlib
from pathlib import Path

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
_INPUT = "import numbel; rng, x = numbel.default_rng(5), np.zeros((4, 100_000), np.float32)\n"
_BEFORE = f"import numba, numpy as np\n{_INPUT}"


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

    def track_import_beyond_numpy(self) -> float:
        return _seconds("import numpy; start = perf_counter(); import numbel")

    track_import_beyond_numba.unit = "seconds"  # type: ignore[attr-defined]
    track_import_beyond_numpy.unit = "seconds"  # type: ignore[attr-defined]


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


class _Wheel:
    """An installation whose wheel brought the machine code."""

    timeout = 3600
    version = "1"

    def setup_cache(self) -> str:
        """A folder with the package and its kernels, as a wheel installs them; "" of commits before there were any."""
        import numbel

        site = Path("wheel").absolute()
        shutil.copytree(Path(numbel.__file__).parent, site / "numbel", dirs_exist_ok=True)
        if not (site / "numbel" / "_host" / "build.py").exists():
            return ""
        subprocess.run([sys.executable, "-m", "numbel._host.build", "numbel/_kernels"], cwd=site, check=True)
        return str(site)


class Wheel(_Wheel):
    """Import beyond NumPy and first call together."""

    params = (list(FIRST),)
    param_names = ("method",)

    def track_import_and_first_call(self, site: str, method: str) -> float:
        return _seconds(f"import numpy as np; start = perf_counter(); {_INPUT}{FIRST[method]}", site=_known(site))

    track_import_and_first_call.unit = "seconds"  # type: ignore[attr-defined]


class WheelSize(_Wheel):
    """What the kernels weigh in a wheel."""

    def track_bytes(self, site: str) -> int:
        kernels = Path(_known(site)) / "numbel" / "_kernels"
        return sum(len(zlib.compress(path.read_bytes(), 6)) for path in kernels.iterdir())

    track_bytes.unit = "bytes"  # type: ignore[attr-defined]


def _known(site: str) -> str:
    if not site:
        raise NotImplementedError("wheels bring no kernels")
    return site


def _seconds(code: str, rounds: int = _ROUNDS, site: str = "", **environment: str) -> float:
    """Median of fresh processes of the time from `start` to the end of `code`."""
    program = f"from time import perf_counter\nstart = perf_counter()\n{code}\nprint(perf_counter() - start)"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, [site, root, os.environ.get("PYTHONPATH")]))
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
