"""The table under pytest-benchmark: `pytest benchmarks --benchmark-enable`; without the option each runs once.

pytest itself is not imported, because asv imports every file of this folder in environments that lack it.
"""

from typing import Any

import numbel.bench as bench


def pytest_generate_tests(metafunc: Any) -> None:
    # what compiles for seconds is run by the long tests of tests/test_bench.py
    slow = () if metafunc.config.getoption("benchmark_enable", False) else ("torch compiled", "numba ")
    cases = [(work, library) for work, row in bench.WORKS.items() for library in row if not library.startswith(slow)]
    metafunc.parametrize(("work", "library"), cases)


def test_call(benchmark: Any, work: str, library: str) -> None:
    enabled = not benchmark.disabled
    try:
        case = bench.WORKS[work][library](bench.FULL if enabled else bench.QUICK >> 4)
    except ImportError as error:
        import pytest

        pytest.skip(f"{library}: {error}")
    benchmark.group = work
    benchmark.extra_info["items"] = case.items
    benchmark.pedantic(case.call, rounds=7, warmup_rounds=1)
