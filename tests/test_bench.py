from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from numbel import bench
from numbel.bench import limits, shape_map, table, with_numpy, works

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
    absent: dict[str, list[str]] = {}
    rates = bench.measure("sample 1 x 1000 float32", rounds=1, absent=absent)
    of_numpy = {"numpy exp + cumsum + searchsorted", "numpy gumbel + argmax"}
    assert set(rates) == {"numbel", "numba inverse CDF", "numba gumbel-max", *of_numpy}
    assert set(rates) | set().union(*absent.values()) == set(bench.WORKS["sample 1 x 1000 float32"])
    works.whole_logits.cache_clear()
    assert "numbel" not in bench.measure("categorical 64 x 2^20 bfloat16", rounds=1, limit=SMALL)


def test_import_loads_no_peer() -> None:
    program = (
        "import sys, numbel.bench\n"
        "print(sorted({'torch', 'jax', 'mkl_random', 'typer', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_compiler_is_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("CXX", "no-such-compiler")
    absent: dict[str, list[str]] = {}
    names = [name for name in bench.WORKS["categorical 1 x 2^26 float32"] if "torch" in name]
    rates = bench.measure("categorical 1 x 2^26 float32", names, rounds=1, limit=1 << 10, absent=absent)
    assert absent == {
        "torch.compile needs a C++ compiler: there is no no-such-compiler": [
            name for name in names if "compiled" in name
        ]
    }
    assert set(rates) == {name for name in names if "compiled" not in name}


def prepared(task: str, peer: str, rows: int, columns: int):
    """What a peer returns, as NumPy arrays, and the logits in float64; skips what is not installed."""
    work = works.Work(task, rows, columns, "float32")
    entry = (table.SAMPLE if task == "sample" else table.TASKS[task])[peer]
    try:
        found = entry.prepare(work)()
    except ImportError as error:
        pytest.skip(str(error))
    logits = works.tokens(work) if task in works.TRUNCATIONS else works.logits(work)
    many = found if isinstance(found, tuple) and not hasattr(found, "shape") else (found,)
    return [np.asarray(one) for one in many], logits.astype(np.float64)


def peers_of(*tasks: str):
    """Every peer of some tasks; those that are compiled first take seconds each."""
    return [
        pytest.param(task, peer, marks=[pytest.mark.long] if "compiled" in peer or "numba" in peer else [])
        for task in tasks
        for peer in (table.SAMPLE if task == "sample" else table.TASKS[task])
        if not peer.startswith("numbel") and peer not in ("read", "philox")
    ]


def follows(counts, expected) -> bool:
    """Whether counts lie within six standard deviations: 2e-9 a count; a bias of a percent is 10 here."""
    return bool(np.all(np.abs(counts - expected) < 6 * np.sqrt(expected)))


def softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize(("task", "peer"), peers_of("categorical", "sample"))
def test_peers_draw_the_law(task: str, peer: str) -> None:
    """A peer of another law, or one that leaves a category out, is none."""
    (indices, *others), x = prepared(task, peer, 1 << 18, 4)
    indices = indices.reshape(-1)
    p = softmax(x)
    assert follows(np.bincount(indices, minlength=4), p.sum(0))
    if task == "sample":
        log_prob, logsumexp = (one.reshape(-1) for one in others)
        np.testing.assert_allclose(log_prob, np.log(p)[np.arange(len(x)), indices], atol=1e-5)
        np.testing.assert_allclose(logsumexp, np.log(np.exp(x).sum(-1)), atol=1e-5)


@pytest.mark.parametrize(("task", "peer"), peers_of("top_k", "top_p"))
def test_peers_truncate(task: str, peer: str) -> None:
    (indices, *_), x = prepared(task, peer, 1 << 14, 32)
    indices = indices.reshape(-1)
    order = np.argsort(-x, axis=-1, kind="stable")
    p = np.take_along_axis(softmax(x), order, -1)
    kept = np.arange(32) < 16 if task == "top_k" else p.cumsum(-1) - p < 0.9
    places = np.argmax(order == indices[:, None], axis=-1)
    p = np.where(kept, p, 0)
    assert follows(np.bincount(places, minlength=32)[p.sum(0) > 0], (p / p.sum(-1, keepdims=True)).sum(0)[p.sum(0) > 0])
    assert np.all(np.take_along_axis(p, places[:, None], -1) > 0)


@pytest.mark.parametrize(("task", "peer"), peers_of("log_prob", "entropy"))
def test_peers_of_densities(task: str, peer: str) -> None:
    (found, *_), x = prepared(task, peer, 100, 50)
    p = softmax(x)
    expected = np.log(p[:, 0]) if task == "log_prob" else -(p * np.log(p)).sum(-1)
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-4)


@pytest.mark.parametrize(("task", "peer"), peers_of("gumbel", "gumbel_softmax"))
def test_peers_of_noise(task: str, peer: str) -> None:
    (found, *_), x = prepared(task, peer, 1 << 18, 4)
    assert found.shape == x.shape
    if task == "gumbel":  # mean 0.5772, standard error 0.00125; mkl_random draws the minimum
        assert abs(abs(found.mean()) - 0.5772) < 0.008
        assert abs(found.std() - np.pi / np.sqrt(6)) < 0.01
    else:
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
        assert follows(np.bincount(found.argmax(-1), minlength=4), softmax(x).sum(0))


@pytest.mark.parametrize(("task", "peer"), peers_of("1000 samples", "multinomial of 10^6"))
def test_peers_of_many(task: str, peer: str) -> None:
    rows = 1 if "bincount" in peer else 50
    (found,), x = prepared(task, peer, rows, 4)
    found = found.reshape(rows, -1)
    if task == "1000 samples":
        assert found.shape == (rows, 1000)
        found = np.apply_along_axis(np.bincount, 1, found, minlength=4)
    total = found.sum(-1, keepdims=True)
    assert np.all(total == (1000 if task == "1000 samples" else 10**6))
    assert follows(found.sum(0), (total * softmax(x)).sum(0))


def test_tokens_of_a_long_row_have_each_rank_once() -> None:
    """Above 2^20 columns the ranks are made by a multiplication: the heaviest must be as rare as in a shuffled row."""
    row = works._whole_tokens.__wrapped__(1, 1 << 21, "float32")[0]
    assert 20 < np.sum(row > row.max() - 8) < 2000
    assert len(np.unique(np.argsort(row)[-100:] % 64)) > 30


class Clock:
    """Stands for `time`: it moves when a call says what it costs, and when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.last = 0.0, None

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def peer(self, seconds: float, cold: float = 0.0):
        """Prepare a call that takes so long, and so much more after another's call."""

        def prepare(work):
            def call() -> None:
                self.now += seconds + (cold if self.last is not call else 0)
                self.last = call

            return call

        return prepare


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(shape_map, "time", clock)
    monkeypatch.setitem(shape_map._OURS, "entropy", clock.peer(1e-4, cold=1e-3))
    monkeypatch.setitem(shape_map._LIMITS, "read", clock.peer(5e-5))
    return clock


def rivals(monkeypatch: pytest.MonkeyPatch, **prepare) -> None:
    monkeypatch.setattr(
        shape_map, "peers", lambda method: {name.replace("_", " "): one for name, one in prepare.items()}
    )


def test_a_cell_is_the_ratio_to_the_best_peer(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of a burst is not counted: ours would take eleven times as long."""

    def fails(work):
        raise RuntimeError("more than 2^24\ncategories")

    peers = {"slow": clock.peer(1e-2), "quick": clock.peer(5e-5, cold=1e-2), "near": clock.peer(7e-5), "fails": fails}
    rivals(monkeypatch, **peers)
    cell = shape_map.measure("entropy", 2, 1 << 19)
    found = shape_map.verdict(cell)
    assert found.peer == "quick"
    assert found.below
    np.testing.assert_allclose(found.ratio, 0.5, rtol=1e-3)
    np.testing.assert_allclose(found.fraction, 0.5, rtol=1e-3)
    assert set(cell["seconds"]) == {"numbel", "quick", "near", "read"}
    assert set(cell["looked"]) == {"slow", "quick", "near"}
    assert cell["absent"] == {"fails": "RuntimeError: more than 2^24 categories"}
    lists = shape_map.lists([cell])
    assert lists["Slower than the best peer"] == ["entropy 2 x 2^19: 0.50 (0.50 to 0.50) of quick"]
    assert lists["Absent peers"] == ["RuntimeError: more than 2^24 categories (fails)"]


def test_what_must_be_slow_is_left_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals(monkeypatch, quick=clock.peer(1e-6), torch_compiled=clock.peer(1e-7), jax_one=clock.peer(1e-7))
    cell = shape_map.measure("entropy", 1, 2)
    assert set(cell["left_out"]) == {"torch compiled", "jax one"}
    assert shape_map.verdict(cell).limit == ""  # 2 values say nothing of memory
    # ten times the values: a call of 2 s and one of 1 s are expected, and one of 0.2 s that is five times the best's
    before = [{"method": "entropy", "rows": 1, "columns": 1 << 20, "looked": {"a": 0.2, "b": 0.1, "c": 0.11}}]
    before.append({"method": "entropy", "rows": 1, "columns": 1 << 10, "looked": {"a": 1e-6, "d": 1.0}})
    rivals(monkeypatch, **{name: clock.peer(0.9) for name in "abcde"})
    cell = shape_map.measure("entropy", 1, 10 << 20, before)
    assert set(cell["left_out"]) == {"a", "d"}
    assert cell["left_out"]["a"] == "2 s, 2.0 times the best peer's, by 1 x 2^20"
    assert len(cell["seconds"]["numbel"]) == 3  # every round says 9000
    cell = shape_map.measure("entropy", 1, 10 << 20, before, longest=0.5)
    assert set(cell["looked"]) == {"e"}
    rivals(monkeypatch, a=clock.peer(0.9))
    cell = shape_map.measure("entropy", 1, 10 << 20, before, longest=0.5)
    assert cell["skipped"] == "every peer would take more than 0.5 s a call"


def test_a_cell_that_does_not_fit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shape_map._free_memory() > 1e6
    monkeypatch.setattr(shape_map, "_free_memory", lambda: 1e9)
    cell = shape_map.measure("entropy", 1, 1 << 28)
    assert cell["skipped"] == "peers take up to 10.7 GB, 1.0 GB are free"
    assert shape_map.text(cell) == "-"
    assert shape_map.lists([cell])["Not measured"] == ["entropy 1 x 2^28: peers take up to 10.7 GB, 1.0 GB are free"]
    assert "skipped" in shape_map.measure("categorical, 1000 samples", 1 << 15, 2)


def test_intervals_hold_the_median() -> None:
    """99 % of them; of fewer than eight values their range."""
    assert shape_map.interval([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)
    assert shape_map.interval([float(i) for i in range(8)]) == (0.0, 3.5, 7.0)
    ratios = np.exp(np.random.default_rng(5).standard_normal((20_000, 30)))
    held = [low <= 1 <= high for low, _, high in map(shape_map.interval, ratios)]
    assert 0.99 <= np.mean(held) < 0.998


def test_shapes_of_the_map() -> None:
    coarse, whole = shape_map.coarse(), shape_map.whole()
    for shapes in (coarse, whole):
        assert {(1, 2), (1, 1 << 28), (1 << 20, 2)} <= set(shapes)
        assert max(rows * columns for rows, columns in shapes) == 1 << 28
    assert set(coarse) <= set(whole)
    assert set(whole) == {(1 << r, 1 << c) for r in range(21) for c in range(1, 29) if r + c <= 28}
    for method in shape_map.METHODS:
        assert len(shape_map.peers(method)) > 1, method


def test_marks_of_a_map() -> None:
    def cell(*ratios: float):
        return {
            "method": "m",
            "rows": 1,
            "columns": 2,
            "seconds": {"numbel": [1.0] * len(ratios), "peer": list(ratios)},
        }

    assert shape_map.text(cell(*[0.5] * 8)) == "0.50!"
    assert shape_map.text(cell(*[0.5] * 4, *[2.0] * 4)) == "1.25?"
    assert shape_map.text(cell(*[20.4] * 8)) == "20"
    assert shape_map.text(None) == ""
