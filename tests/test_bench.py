from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from numbel import bench
from numbel.bench import limits, with_numpy, works

SMALL = 1 << 17


def test_names_and_libraries() -> None:
    assert "sample 64 x 2^20 float32" in bench.WORKS
    assert "categorical 65536 x 128 float32" in bench.WORKS
    for work, row in bench.WORKS.items():
        assert next(iter(row)) == "numbel"
        assert ("philox" in row) == ("gumbel" in work and "gradient" not in work)


def test_work_is_cut_to_a_limit() -> None:
    work = bench.Work("sample", 64, 1 << 20, "float32")
    assert work.within(bench.FULL) == work
    assert work.within(1 << 22)[1:3] == (4, 1 << 20)
    assert work.within(1 << 17)[1:3] == (1, 1 << 17)


@pytest.mark.parametrize("work", bench.WORKS)
def test_measure(work: str) -> None:
    libraries = [name for name in bench.WORKS[work] if name == "numbel" or name in ("read", "philox")]
    rates = bench.measure(work, libraries, rounds=1, limit=SMALL)
    assert list(rates) == libraries
    for rate in rates.values():
        assert 0 < rate.items <= SMALL
        assert rate.per_second == pytest.approx(rate.items / rate.seconds)
    assert bench.ratio(rates, "numbel") == 1


def test_the_grid_has_every_task_in_every_regime_and_dtype() -> None:
    assert list(bench.GRID)[: len(bench.WORKS)] == list(bench.WORKS)
    for task in ("sample", "gumbel_max", "gumbel", "gumbel_softmax", "conditional_gumbel"):
        for rows, columns in bench.REGIMES:
            for dtype in bench.DTYPES:
                assert next(iter(bench.GRID[bench.Work(task, rows, columns, dtype).name])) == "numbel"
    assert set(bench.GRID["gumbel 1 x 1000 float64"]) == {"numbel"}
    assert set(bench.GRID["gumbel_max 2^20 x 8 float16"]) == {"numbel", "read", "philox"}


@pytest.mark.long
def test_every_cell_of_the_grid_runs() -> None:
    """A task that cannot do a dtype or a regime is seen here, not on the dashboard."""
    for row in bench.GRID.values():
        case = row["numbel"](SMALL)
        assert 0 < case.items <= SMALL
        case.call()


def test_read_touches_everything() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 32, 512 * 1000, dtype=np.uint32)
    for chunks in (1, 64):
        assert np.sum(limits._sum(words, chunks), dtype=np.uint32) == np.sum(words, dtype=np.uint32)


@pytest.mark.parametrize("columns", [8, 5000])
def test_inverse_cumulative_sums_follow_the_weights(columns: int) -> None:
    weights = np.tile(np.arange(columns) % 2, (4000, 1)).astype(np.float32)
    indices = with_numpy._choose(weights, np.random.default_rng(0).random(4000))
    assert np.all(indices % 2 == 1)
    assert abs(indices.mean() / columns - 0.5) < 0.03


def test_absent_libraries_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "jax", "scipy", "mkl_random", "ml_dtypes"):
        monkeypatch.setitem(sys.modules, name, None)
    rates = bench.measure("sample 1 x 1000 float32", rounds=1)
    assert set(rates) == {"numbel", "numpy exp + cumsum + searchsorted", "numpy gumbel + argmax"}
    works.whole_logits.cache_clear()
    assert "numbel" not in bench.measure("categorical 64 x 2^20 bfloat16", rounds=1, limit=SMALL)


def test_import_loads_no_peer() -> None:
    program = (
        "import sys, numbel.bench\n"
        "print(sorted({'torch', 'jax', 'mkl_random', 'typer', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
