"""The gate: what its rule makes of planted figures, and two versions in one process that stay apart."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "gate").is_dir():
    pytest.skip("benchmarks is in a checkout only", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks.gate import prepare, rule  # noqa: E402
from benchmarks.gate.__main__ import FAST, Row, alarms, differing, judged, main, table, timed  # noqa: E402
from benchmarks.gate.progress import Progress  # noqa: E402
from benchmarks.gate.proof import PLANTS, plant  # noqa: E402
from benchmarks.gate.sides import RAGGED, export  # noqa: E402
from benchmarks.suite.common import bench  # noqa: E402


def times(rng, slowdown, pairs, noise):
    """Pairs of times on a busy machine: lognormal noise, a drift that both share, bursts that hit one of a pair."""
    drift = np.exp(np.cumsum(rng.normal(0, 0.02, pairs)))
    base, head = (drift * np.exp(rng.normal(0, noise, pairs)) for _ in range(2))
    for each in (base, head):
        each[rng.random(pairs) < 0.1] *= rng.uniform(1, 5)
    return base.tolist(), (slowdown * head).tolist()


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_a_slow_down_of_ten_percent_is_seen(noise):
    """All of 400, each with the most pairs; a rule that misses 4 % would pass with probability 8e-8."""
    rng = np.random.default_rng(40)
    assert all(rule.slower(rule.interval(*times(rng, 1.1, rule.MOST, noise))) for _ in range(400))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("slowdown", [0.9, 1.0, 1.02])
def test_nothing_raises_no_alarm(noise, slowdown):
    """None of 1000 pairs of versions: two processes must agree."""
    rng = np.random.default_rng(41)
    for _ in range(1000):
        assert not all(rule.slower(rule.interval(*times(rng, slowdown, 100, noise))) for _ in range(2))


def test_the_interval_holds_the_median():
    """It misses with probability 1e-3 on either side: 20 of 10,000 due, 52 would be one in a million."""
    rng = np.random.default_rng(42)
    missed = 0
    for _ in range(10_000):
        found = rule.interval(np.ones(41).tolist(), np.exp(rng.standard_t(2, 41) * 0.01).tolist())
        missed += not found.low <= 1 <= found.high
    assert missed <= 52


def test_few_pairs_say_nothing():
    found = rule.interval([1.0] * 8, [2.0] * 8)
    assert found == (0.0, 2.0, math.inf)
    assert not rule.slower(found)
    assert not rule.decided(found)


def test_when_more_pairs_are_needless():
    assert rule.decided(rule.Interval(1.04, 1.08, 1.2))
    assert rule.decided(rule.Interval(0.97, 1.0, 1.03))
    assert not rule.decided(rule.Interval(0.97, 1.0, 1.2))


def test_memory():
    assert rule.more_memory(0.0, 0.5)
    assert rule.more_memory(8.0, 8.8)
    assert not rule.more_memory(8.0, 8.3)
    assert not rule.more_memory(8.0, 4.0)


def test_errors():
    assert rule.less_accurate(1.0, 1.1)
    assert rule.less_accurate(1.0, math.nan)
    assert not rule.less_accurate(1.0, 1.03)
    assert not rule.less_accurate(1.0, 0.5)


def test_tails():
    assert rule.tail_lost((4075, 4096.0), (3680, 4096.0))  # 10 % too few
    assert rule.tail_lost((16, 16.0), (0, 16.0))  # a source of 24 bits
    assert not rule.tail_lost((4075, 4096.0), (4180, 4096.0))
    assert not rule.tail_lost((0, 16.0), (0, 16.0))  # it was so before


def test_the_table_and_what_fails():
    rows = [Row("a", "1", "2", "x 2", "SLOWER"), Row("b", "1", "1", "", ""), Row("c", "1", "2", "", "faster")]
    assert [row.what for row in alarms(rows)] == ["a"]
    assert table(rows).splitlines()[2] == "| a | 1 | 2 | x 2 | SLOWER |"


def test_works_on_two_threads():
    assert ("categorical 64 x 2^20 float32", 2) in timed(["categorical 64 x 2^20 float32"])
    assert timed(["sample 1 x 1000 float32"]) == [("sample 1 x 1000 float32", 1)]


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.97, 1.0, 1.03), "same"),
        ((0.90, 1.0, 1.04), "not slower"),
        ((0.90, 0.92, 0.95), "faster"),
        ((0.90, 1.0, 1.20), "undecided: too noisy"),
    ],
)
def test_a_verdict_says_same_where_nothing_changed(interval, verdict):
    assert judged(rule.Interval(*interval)) == verdict


def test_the_fast_gate_times_every_method():
    def tasks(works):
        return {work.rsplit(" ", 4)[0] for work in works}

    assert tasks(FAST) == tasks([*bench.WORKS, RAGGED])
    assert len(set(FAST)) == len(FAST)


def test_progress_tells_the_time_left(capsys, monkeypatch):
    """By what the steps so far took; steps that are dropped or added count."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = Progress([10.0, 10.0, 10.0, 70.0])
    now[0] += 30  # slower than expected
    progress.done("one")
    progress.drop(1)
    progress.add(2, 5.0)
    assert progress.left(30) == pytest.approx(90 * 40 / 20)
    for name in ("two", "three", "four", "five"):
        progress.done(name)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[1/4, 0:30, 3:00 left] one"
    assert lines[-1] == "[5/5, 0:30] five"


def test_what_a_module_imports(tmp_path):
    path = tmp_path / "noise.py"
    path.write_text("import math\nfrom .._jit import njit\n\ndef f():\n    from . import blocks, runs as r\n")
    found = prepare.imported(path, "pkg._cpu")
    assert found == {"pkg._jit", "pkg._jit.njit", "pkg._cpu", "pkg._cpu.blocks", "pkg._cpu.runs"}
    assert prepare.closure({"a"}, {"a": {"b"}, "b": {"c", "a"}, "d": {"a"}}) == {"a", "b", "c"}


def test_sources_that_differ(tmp_path):
    """What base has and head lacks, or has otherwise; a new file is read by what imports it, which differs too."""
    for side in ("base", "head"):
        (tmp_path / side / "numbel").mkdir(parents=True)
        for name in ("same", side):
            (tmp_path / side / "numbel" / f"{name}.py").write_text("x = 1\n")
        (tmp_path / side / "numbel" / "edited.py").write_text(f"x = '{side}'\n")
    assert differing((tmp_path / "base", tmp_path / "head")) == {"base.py", "edited.py"}


def test_the_same_sources_are_not_measured(capsys):
    """In a second, with the machine and the versions."""
    assert main([str(ROOT), str(ROOT), "--fast"]) == 0
    printed = capsys.readouterr().out
    assert "same: all sources are the same, and the dependencies" in printed
    for part in ("cores", "Python 3.", "numba ", "numpy ", f"base {ROOT}: "):
        assert part in printed


@pytest.mark.long
def test_only_what_may_have_changed_is_measured(tmp_path, capsys):
    """A comment in one kernel: the works that run it are timed, the others are the same."""
    head = tmp_path / "head"
    export(str(ROOT), head / "src")
    path = head / "src" / "numbel" / "_cpu" / "entropy.py"
    path.write_text(path.read_text() + "# a comment\n")
    works = "^(entropy 64|logsumexp 64 x 2.20|gumbel 65536 x 128) .*float32"
    assert main([str(ROOT), str(head), "--no-figures", "--fast", "--work", works]) == 0
    said = capsys.readouterr()
    rows = [line.split(" | ") for line in said.out.splitlines() if line.startswith("| time")]
    assert [(row[0], bool(row[1])) for row in rows] == [
        ("| time of entropy 64 x 2^20 float32, 1 thread, ms", True),
        ("| time of gumbel 65536 x 128 float32; logsumexp 64 x 2^20 float32", False),
    ]
    assert rows[1][-1].startswith("same: no source of these differs")
    assert said.err.count("compiled base") == 3
    assert said.err.count("compiled head") == 1


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_still_in_the_source(name, tmp_path):
    export(str(ROOT), tmp_path)
    plant(tmp_path, PLANTS[name])


def test_an_unknown_revision_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="no-such-thing is neither a checkout nor a revision"):
        export("no-such-thing", tmp_path)


_TWO = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.gate.sides import load

folders = Path(sys.argv[1]), Path(sys.argv[2])
sides = load(folders, Path(sys.argv[3]), sys.argv[4] == "swapped")
found = []
for side in sides:
    with side.active():
        import numbel
        assert numbel is side.package and side.table.ours.numbel is numbel
        found.append(numbel.Generator(5).gumbel(size=1000).view(np.uint32).tolist())
assert all(sys.modules.get("numbel") is not side.package for side in sides)
print(json.dumps(found))
"""


@pytest.mark.long
def test_two_versions_in_one_process_stay_apart(tmp_path):
    """Each runs its own machine code, also where both come from disk, in either order."""
    folders = export(str(ROOT), tmp_path / "base"), export(str(ROOT), tmp_path / "head")
    plant(folders[1], PLANTS["accuracy: a coefficient of the noise"])

    def both(order):
        done = subprocess.run(
            [sys.executable, "-c", _TWO, *map(str, folders), str(tmp_path / "cache"), order],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    base, head = both("as given")
    assert base != head
    assert both("swapped") == [base, head]  # from the cache now
    import numbel

    assert base == numbel.Generator(5).gumbel(size=1000).view(np.uint32).tolist()


@pytest.mark.long
def test_planted_figures_fail_and_nothing_else(tmp_path, capsys):
    """Memory and a tail, found without a clock: those two fail, and no other figure does."""
    head = tmp_path / "head"
    (head / "src").mkdir(parents=True)
    export(str(ROOT), head / "src")
    chosen = [PLANTS["memory: 1.2 MiB more while rows are sampled"], PLANTS["tail: 10 % too few beyond 2^-12"]]
    for one in chosen:
        plant(head / "src", one)
    status = main([str(ROOT), str(head), "--fast", "--no-time"])
    printed = capsys.readouterr().out
    worse = [line for line in printed.splitlines() if "| WORSE |" in line]
    assert status == 1, printed
    for one in chosen:
        assert any(one.figure in line for line in worse), printed
    assert all("memory" in line or "noise" in line for line in worse), printed


@pytest.mark.long
def test_an_unchanged_pair_is_silent(capsys):
    assert main([str(ROOT), str(ROOT), "--fast", "--no-time", "--all"]) == 0
    assert "no regression" in capsys.readouterr().out
