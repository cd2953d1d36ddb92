"""The dashboard in a real browser, from results with a planted regression; and the figures written into pages."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import browsers

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "dashboard").is_dir():
    pytest.skip("benchmarks is in a checkout only", allow_module_level=True)
sys.path.insert(0, str(ROOT))

_NEEDED = ("asv", "asv_tachyon", "jinja2", "vl_convert", "playwright", "axe_playwright_python")
MISSING = [name for name in _NEEDED if not importlib.util.find_spec(name)]
needs_dashboard = pytest.mark.skipif(bool(MISSING), reason=f'needs pip install ".[dashboard]": no {", ".join(MISSING)}')
#: A machine whose history is made up, with a step in one work three commits back, a tenth of that in another.
MACHINE, OTHER, BACK = "planted-machine-2-cores", "new-machine-8-cores", 3
SLOWER, STEADY = "gumbel_softmax 65536 x 128 float32", "gumbel 65536 x 128 float32"
PAGES = ("index.html", "compare.html", "limits.html", "peers.html", "map.html", "benchmarks/history.time.html")


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.split()


def test_figures_in_pages_are_those_of_the_results():
    from benchmarks import figures

    assert figures.main(["--check"]) == 0


def test_a_figure_that_was_edited_is_seen():
    from benchmarks import figures

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert figures.rewritten(text) == text
    wrong = text.replace("| numba inverse CDF | 0.21 (", "| numba inverse CDF | 1.21 (", 1)
    assert wrong != text
    assert figures.rewritten(wrong) == text


def test_committed_results_name_no_machine_but_its_kind():
    results = ROOT / "benchmarks" / "results"
    machines = [path for path in (results / "asv").iterdir() if path.is_dir()]
    assert machines
    for folder in machines:
        assert json.loads((folder / "machine.json").read_text())["machine"] == folder.name
    for path in results.rglob("*.json"):
        text = path.read_text()
        for part in ("/home/", "/root", "/tmp", "hostname", "://"):
            assert part not in text or path.name == "benchmarks.json", f"{part} in {path}"


def test_reports_of_a_gpu_are_read(tmp_path, monkeypatch):
    from benchmarks.dashboard import data

    work = {"torch copy": {"ms": 2.0, "GB/s": 100.0}, "numbel": {"ms": 1.0, "GB/s": 200.0}, "cupy": {"missing": "no"}}
    report = {"machine": {"gpu": "A card"}, "works": {"sample": work, "late": {"skipped": "no time was left"}}}
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "a-card.json").write_text(json.dumps(report))
    monkeypatch.setattr(data, "RESULTS", tmp_path)
    found = data.gpus()["a-card"]
    assert found.about == "gpu A card"
    assert [(one["library"], one["times"]) for one in found.works["sample"]] == [("numbel", 0.5), ("torch copy", 1.0)]
    assert list(found.works) == ["sample"]


def test_what_changed_is_told_with_its_scatter():
    """A step that stays is told, times before code; one that was taken back, one as large as the scatter, and a page of
    memory are not."""
    from benchmarks.dashboard import changes

    order = list("abcdef")

    def one(name, **rows):
        values = [
            changes.Value("m", commit, (what,), value)
            for what, row in rows.items()
            for commit, value in zip(order, row, strict=True)
        ]
        return changes.Benchmark(name, "", ("work",), values)

    known = [
        one("code.CpuCode.track_spills", spills=[0, 0, 0, 0, 5, 5], none=[3, 3, 3, 3, 3, 3]),
        one("memory.Beyond.track_bytes", page=[1e4, 1e4, 1e4, 2e4, 2e4, 2e4], much=[1e6, 1e6, 1e6, 1e6, 4e6, 4e6]),
        one(
            "speed.Speed.track_time_per_category",
            up=[1, 1, 1.2, 1.2, 1.21, 1.2],
            back=[1, 1, 1.2, 1, 1, 1],
            down=[2, 2, 2, 2, 2, 1.9],
        ),
        # beside a limit, which may have become faster: told only of a work whose time itself is not known
        one(
            "speed.Roofline.track_time_over_limit",
            up=[1, 1, 1.3, 1.3, 1.3, 1.3],
            down=[1, 1, 1, 1.5, 1.5, 1.5],
            alone=[1, 1, 1.4, 1.4, 1.4, 1.4],
        ),
        one("speed.Noisy.track_time", a=[1, 1.2, 1, 1.2, 1, 1.2], b=[1, 1.2, 1, 1.2, 1, 1.5]),
    ]
    worse, better = changes.changes(known, order)
    found = [(each.subject, each.what, each.since, each.commit, round(each.times, 3)) for each in worse]
    assert found == [
        ("time", "alone", "b", "c", 1.4),
        ("time", "up", "b", "c", 1.2),
        ("memory", "much", "d", "e", 4.0),
        ("code counts", "spills", "d", "e", float("inf")),
    ]
    assert [each.sure for each in worse[1:]] == [
        "One run a commit, no interval; 18 times the usual scatter",
        "One run a commit, no interval; it never moved before",
        "One run a commit, no interval; it never moved before",
    ]
    assert [each.amount for each in worse] == ["+40 %", "+20 %", "x 4.0", "from 0 to 5"]
    assert [(each.what, each.sure[-27:]) for each in better] == [("down", "; 5 times the usual scatter")]


def samples(rng, times, noise=0.02, runs=5):
    """Times of some processes: lognormal noise, and now and then one that was disturbed."""
    found = times * np.exp(rng.normal(0, noise, runs))
    found[rng.random(runs) < 0.1] *= rng.uniform(1, 1.5)
    return tuple(found.tolist())


def history(rng, slowdown, at, noise=0.02, commits=20, session="s"):
    """Values of a work over commits, slower from one on."""
    from benchmarks.dashboard import changes

    factors = [slowdown if i >= at else 1.0 for i in range(commits)]
    rows = [samples(rng, factor, noise) for factor in factors]
    return [changes.Value("m", str(i), ("w",), float(np.median(row)), {session: row}) for i, row in enumerate(rows)]


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_ten_percent_three_commits_back_are_found_with_their_interval(noise):
    """All of 100, within the range that is named, but for some where several samples of one commit were disturbed. The
    range is one commit for most. The interval misses with probability 2e-3: four of 100 would be four in a million."""
    from benchmarks.dashboard import changes

    rng = np.random.default_rng(40)
    missed = alone = within = 0
    for _ in range(100):
        (step,) = changes.steps(history(rng, 1.1, 17, noise))
        within += step.since < 17 <= step.at
        assert step.before + step.after == 100
        alone += step.since == step.at - 1
        missed += not step.ratio.low <= 1.1 <= step.ratio.high
    assert within >= 97
    assert alone >= 60
    assert missed <= 3


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("slowdown", [1.0, 1.01])
def test_one_percent_is_not_claimed(noise, slowdown):
    """None of 100 histories of 20 commits."""
    from benchmarks.dashboard import changes

    rng = np.random.default_rng(41)
    assert sum(len(changes.steps(history(rng, slowdown, 17, noise))) for _ in range(100)) == 0


def test_another_session_is_no_regression():
    """A machine of the same name that is half as fast is not compared; a session that measured both sides is."""
    from benchmarks.dashboard import changes

    rng = np.random.default_rng(42)
    old = history(rng, 1.0, 20)
    new = [value._replace(samples={"t": tuple(2 * x for x in value.samples["s"])}) for value in old[17:]]
    assert changes.steps(old[:17] + new) == []
    both = [value._replace(samples={"t": samples(rng, 1.8), **value.samples}) for value in old[14:17]]
    (step,) = changes.steps(old[:14] + both + new)
    assert step.at == 17
    assert step.ratio.low < 2 / 1.8 < step.ratio.high


def test_the_interval_of_a_ratio_holds_it():
    """It misses with probability 1e-3 on either side: 6 of 3,000 due, 22 would be one in a million."""
    from benchmarks.dashboard import changes

    rng = np.random.default_rng(43)
    missed = 0
    for _ in range(3000):
        before, after = (np.exp(0.01 * rng.standard_t(2, n)).tolist() for n in (12, 9))
        found = changes.ratio(before, after)
        missed += not found.low <= 1 <= found.high
    assert missed <= 22
    assert changes.ratio([1.0] * 5, [2.0] * 4) is None


def test_levels_have_bands_of_their_own():
    from benchmarks.dashboard import changes

    one = changes.Benchmark("history.time", "ns", ("work",), history(np.random.default_rng(44), 1.2, 10))
    bands = changes.bands(one, one.values)
    assert len(set(bands)) == 2
    assert bands[9].high < bands[10].low
    assert bands[0].low < 1 < bands[0].high
    single = [value._replace(samples={}) for value in one.values]
    assert changes.bands(one, single)[3].middle == single[3].value


MAP_CELL = {
    "method": "entropy",
    "rows": 1,
    "columns": 1 << 20,
    "absent": {},
    "left_out": {},
    "looked": {"torch a": 8e-4},
}
MAP = {
    "config": {"numbel": "0", "numba": "1", "threads": "2 of 2", "source": "abc"},
    "time": "2026-01-01T00:00:00Z",
    "cells": [
        MAP_CELL | {"seconds": {"numbel": [1e-3] * 8, "torch a": [8e-4] * 8, "read": [5e-4] * 8}},
        MAP_CELL | {"method": "categorical", "seconds": {"numbel": [1e-3] * 8, "torch a": [0.03] * 8}},
        {"method": "entropy", "rows": 1, "columns": 1 << 28, "skipped": "peers take up to 10.7 GB, 1.0 GB are free"},
    ],
}


def test_tables_of_a_map(tmp_path, monkeypatch):
    """A map gives its tables, with the machine and versions; before there is one, the page says how to make it."""
    from benchmarks import figures

    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    page = "<!-- figures: slower a-machine -->\n{}<!-- end -->"
    assert "Not measured yet: `numbel bench --map --json a-machine.json`." in figures.rewritten(page.format("old\n"))
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "a-machine.json").write_text(json.dumps(MAP))
    text = figures.rewritten(page.format("old\n"))
    assert "| entropy | 1 x 2^20 (0.80) | none |" in text
    assert "| categorical | none | none |" in text
    assert "(a-machine, 2026-01-01, 2 of 2 threads, numba 1.)" in text
    assert "| 1 x 2^20 | 0.80! | 30 |" in figures.ratios(MAP["cells"])
    assert "| 1 x 2^28 | - |  |" in figures.ratios(MAP["cells"])
    assert "| 1 x 2^20 | 1000 | torch a | 30 (30 to 30) |  |  |  | 0.80 |  |  |" in figures.strongest(MAP["cells"])


def test_the_suites_seconds_are_those_of_pytests_report(tmp_path):
    from benchmarks.dashboard import data

    (tmp_path / "quick.xml").write_text(
        '<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="0" failures="0" skipped="2" tests="4243" '
        'time="399.6" timestamp="2026-12-01T01:02:03" hostname="a"></testsuite></testsuites>'
    )
    assert data.suites([tmp_path / "quick.xml"]) == [data.Suite("quick", 4243, 2, 399.6, "2026-12-01")]


def test_first_calls_are_those_of_the_newest_commit(tmp_path):
    from benchmarks.dashboard import changes, data

    def named(name, *values):
        return changes.Benchmark(name, "seconds", ("method",), [changes.Value("m", *each) for each in values])

    known = [
        named("start.FirstCall.track_cold_seconds", ("new", ("gumbel",), 3.0), ("old", ("gumbel",), 14.0)),
        named("start.FirstCall.track_warm_seconds", ("old", ("gumbel",), 0.5), ("new", ("gumbel",), 0.02)),
        named("start.Start.track_import_beyond_numba", ("new", (), 0.5)),
    ]
    assert data.first_calls(known, ["old", "new"]) == {"m": {"gumbel": {"cold": 3.0, "warm": 0.02}}}


def test_a_range_says_how_many_commits_touch_kernels():
    """The table must not name the last of the commits between two measurements as the cause."""
    from benchmarks.dashboard import data

    (touches,) = git("log", "-1", "--no-merges", "--format=%H", "--", "src/numbel/_cpu")
    commits = git("log", "-12", "--format=%H", touches)
    if len(commits) < 12:
        pytest.skip("needs twelve commits of history: this clone is shallow")
    found = data.suspects(commits[-1], touches)
    assert found.total == int(git("rev-list", "--count", f"{commits[-1]}..{touches}")[0]) >= 11
    assert touches[:8] in dict(found.kernels)
    assert len(found.kernels) <= found.total
    assert data.suspects("0" * 40, touches) is None


def test_a_history_is_measured_step_by_step(tmp_path, monkeypatch, capsys):
    """Times first, in rounds that take commits in turn; every sample is kept; what was newest comes again."""
    from benchmarks import history

    commits = git("log", "--first-parent", "-3", "--format=%H")
    if len(commits) < 3:
        pytest.skip("needs three commits of history: this clone is shallow")
    monkeypatch.setattr(history, "KEPT", tmp_path / "results")
    monkeypatch.setattr(history, "ROOT", tmp_path)
    monkeypatch.setattr(history, "git", lambda *arguments: git(*arguments))
    monkeypatch.setattr(history, "export", lambda commit, folder: folder.mkdir(parents=True))
    asked = []

    def measured(step, folder, cache):
        asked.append((step.kind, step.round, step.commit, folder.name))
        return dict.fromkeys(step.names, float(len(asked)))

    monkeypatch.setattr(history, "measured", measured)
    history.main(["m-2-cores", commits[1], commits[2], "--rounds", "2"])
    first, second = (("time", 1, one, one) for one in commits[1:])
    assert asked[:4] == [first, second, ("time", 2, *second[2:]), ("time", 2, *first[2:])]
    assert [one[0] for one in asked[4:]] == ["memory"] * 2 + ["compile"] * 4
    kept = json.loads((tmp_path / "results" / "m-2-cores" / f"{commits[2][:8]}.json").read_text())
    (session,) = kept["sessions"]
    assert kept["figures"]["time"][history.TEN[0]] == {session: [2.0, 3.0]}
    assert set(kept["sessions"][session]) == {"cpu", "cores", "python", "numba", "llvmlite", "numpy"}
    assert "[1/10, 0:00, " in capsys.readouterr().err
    asked.clear()
    history.main(["m-2-cores", commits[0], "--rounds", "1"])
    assert {one[2] for one in asked} == set(commits[:2])


def test_a_spread_has_both_ends():
    from benchmarks import history

    assert history.spread(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert history.spread(list("ab"), 3) == ["a", "b"]


def documented():
    """Every line of the docs and the workflow that builds the dashboard, as it is written there."""
    pages = ("docs/dashboard.md", "benchmarks/README.md", ".github/workflows/site.yml")
    found = []
    for page in pages:
        lines = [
            line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if "benchmarks.dashboard" in line
        ]
        assert lines, page
        found += [line.partition("run: ")[2] or line for line in lines]
    return sorted({line.partition("&&")[0].strip() for line in found})


@pytest.mark.long
@needs_dashboard
@pytest.mark.parametrize("line", documented())
def test_the_documented_command_builds_the_site(tmp_path, line):
    """A relative folder; asv runs elsewhere. Pages of asv must take less for better, as every figure is meant."""
    words = line.split()
    assert words[:3] == ["python", "-m", "benchmarks.dashboard"]
    assert words[-2:-1] == ["-o"]
    site = words[-1]  # relative
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{site}/index.html")
    for page in ("index.html", "asv/index.html", "asv/regressions.json", "assets/vega.js"):
        assert (tmp_path / site / page).is_file()
    index = json.loads((tmp_path / site / "asv" / "index.json").read_text())
    assert len(index["benchmarks"]) > 10
    assert any(about["type"] == "track" for about in index["benchmarks"].values())
    assert {
        name: about["less_is_better"] for name, about in index["benchmarks"].items() if "less_is_better" in about
    } == (dict.fromkeys(index["benchmarks"], True))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of the committed results, of a machine with planted steps, and of a new, slower one; and the commits."""
    from benchmarks import history as measuring
    from benchmarks.dashboard import data
    from benchmarks.dashboard.__main__ import build

    commits = git("log", "--first-parent", "-20", "--format=%H", "main") or git("log", "-20", "--format=%H")
    if len(commits) < 20:
        pytest.skip("needs twenty commits of history: this clone is shallow")
    folder = tmp_path_factory.mktemp("dashboard")
    results = folder / "results"
    shutil.copytree(data.RESULTS, results)
    shutil.rmtree(results / "history", ignore_errors=True)
    rng = np.random.default_rng(45)
    session = "2026-01-01T00:00Z"

    def keep(machine, commit, times):
        figures = {work: {session: samples(rng, times.get(work, 1.0))} for work in measuring.TEN}
        report = {"commit": commit, "sessions": {session: {}}, "figures": {"time": figures}}
        (results / "history" / machine).mkdir(parents=True, exist_ok=True)
        (results / "history" / machine / f"{commit[:8]}.json").write_text(json.dumps(report))

    for i, commit in enumerate(commits):
        keep(MACHINE, commit, {SLOWER: 1.1, STEADY: 1.01} if i < BACK else {})
    for commit in commits[:2]:
        keep(OTHER, commit, dict.fromkeys(measuring.TEN, 3.0))
    (results / "map").mkdir(exist_ok=True)
    (results / "map" / f"{MACHINE}.json").write_text(json.dumps(MAP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "RESULTS", results)
        patch.setattr(data, "LOCAL", folder / "none")
        build(folder / "site")
    return folder / "site", commits


@pytest.fixture(scope="module")
def browser():
    yield from browsers.launched()


@pytest.fixture(scope="module")
def address(site):
    with browsers.served(site[0]) as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """Open a page, and wait for its charts."""
    with browsers.quiet(browser, address) as go:

        def opened(path, width=1440, **options):
            page = go(path, width, **options)
            page.wait_for_function(
                "document.querySelectorAll('figure.chart').length"
                " === document.querySelectorAll('figure.drawn svg').length"
            )
            return page

        yield opened


def in_browser(test):
    """A test that needs a browser; building the site takes ten seconds."""
    return pytest.mark.long(browsers.needs_browser(needs_dashboard(test)))


@in_browser
def test_every_benchmark_has_a_graph(site, visit):
    """With dates, a noise band and an address of its own for each chart."""
    folder, _ = site
    measured = {path.stem for path in (folder / "asv" / "graphs" / "summary").glob("*.json")} | {"history.time"}
    assert len(measured) > 10
    page = visit("index.html")
    listed = {link.inner_text(): link.get_attribute("href") for link in page.query_selector_all("#all + p + ul a")}
    assert set(listed) == measured
    for name, path in listed.items():
        page = visit(path)
        assert name in page.inner_text("main")
        charts = page.query_selector_all("figure.drawn")
        assert charts, name
        for chart in charts:
            assert chart.query_selector_all(".mark-symbol path"), name
            assert chart.query_selector(".mark-area path"), name
            assert re.search(r"\d\d-\d\d [0-9a-f]{8}", chart.query_selector("svg").text_content())
            assert chart.query_selector("figcaption a").get_attribute("href") == f"#{chart.get_attribute('id')}"


@in_browser
def test_a_click_on_a_point_opens_its_commit(site, visit):
    page = visit("benchmarks/history.time.html")
    page.locator("figure.drawn .mark-symbol path").first.click()
    page.wait_for_url("**/commits/*.html")
    assert page.locator("pre").inner_text()


@in_browser
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_first_screen_names_what_got_worse(site, visit, width, height):
    """Ten percent three commits back, by range and interval; neither one percent nor a new machine."""
    _, commits = site
    page = visit("index.html", width)
    page.set_viewport_size({"width": width, "height": height})
    row = page.locator("main section").first.locator("li").filter(has_text=SLOWER).filter(has_text=MACHINE)
    assert row.count() == 1
    for line in row.locator("p").all()[: 3 if width == 1440 else 2]:
        assert line.bounding_box()["y"] + line.bounding_box()["height"] <= height
    text = row.inner_text()
    low, high = map(int, re.search(r"\+\d+ % \(\+(\d+) % to \+(\d+) %\)", text).groups())
    assert 5 <= low <= 10 <= high <= 15
    assert commits[BACK - 1][:8] in text
    assert commits[BACK][:8] in text or "In " + commits[BACK - 1][:8] in text
    assert "99.8 % interval, 85 runs before and 15 after" in text
    everything = " ".join(section.inner_text() for section in page.query_selector_all("main section"))
    assert everything.count(MACHINE) == 1  # nothing else of it, such as one percent
    assert OTHER not in everything
    tile = page.locator(".tiles li").first
    assert "Time" in tile.inner_text()
    assert "worse" in tile.inner_text()
    assert tile.bounding_box()["y"] + tile.bounding_box()["height"] <= height
    heads = [head.inner_text() for head in page.query_selector_all("main section:first-of-type h3")]
    assert heads == [one for one in ("Time", "Memory", "Compile time", "Accuracy", "Code counts") if one in heads]
    row.locator("a", has_text=commits[BACK - 1][:8]).click()
    assert commits[BACK - 1] in page.inner_text("main")
    assert SLOWER in page.inner_text("main")


def test_commits_of_one_second_keep_their_order():
    from benchmarks.dashboard import data

    history = git("log", "--first-parent", "-20", "--format=%H")
    assert [commit.hash for commit in data.commits(set(history))] == history[::-1]


@in_browser
def test_two_commits_are_compared(site, visit):
    """The page's arithmetic is that of Python; the order is that of the first screen; any two can be picked."""
    from benchmarks.dashboard import changes

    _, commits = site
    old, new = commits[10], commits[0]
    page = visit(f"compare.html#{old[:8]}..{new[:8]}")
    row = page.locator("#compared tbody tr").filter(has_text=SLOWER)
    both = {}
    for name, what, machine, values in json.loads(page.locator("#data").text_content())["figures"]:
        if (name, what, machine) == ("history.time", SLOWER, MACHINE):
            shorts = [each[0] for each in json.loads(page.locator("#data").text_content())["commits"]]
            both = {shorts[int(at)]: next(iter(each[1].values())) for at, each in values.items()}
    found = changes.ratio(both[old[:8]], both[new[:8]], changes.OF_TWO)
    assert row.locator("td").nth(3).inner_text() == f"{found.low:.3f} to {found.high:.3f}"
    assert row.locator("td").first.inner_text() == f"+{100 * (found.median - 1):.1f} %"
    between = page.inner_text("#between")
    assert f"up to the later one: {git('rev-list', '--count', f'{old}..{new}')[0]}. " in between
    page.select_option("#from", index=3)
    assert page.url.endswith(f"#{shorts[-4]}..{new[:8]}")
    few = [[1.0, 1.02, 0.99], [1.1, 1.12, 1.09, 1.11]]
    assert page.evaluate("([a, b]) => ratio(a, b)", few) is None
    assert changes.ratio(*few, changes.OF_TWO) is None
    # without an address: the newest commit, and that which has most in common with it
    page = visit("compare.html")
    assert page.locator("#to").evaluate("one => one.selectedOptions[0].text").startswith(shorts[-1])
    assert page.locator("#compared tbody tr").count() >= len(both) // 2


@in_browser
def test_pages_are_small(site):
    folder, _ = site
    sizes = {path: path.stat().st_size for path in folder.rglob("*.html")}
    assert len(sizes) > 20
    assert max(sizes.values()) < 500_000


@in_browser
def test_pages_can_be_read_by_everyone(visit):
    """No violation that axe knows, at both widths, in light and dark."""
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    wrong = []
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            for path in PAGES:
                page = visit(path, width, color_scheme=scheme)
                page.evaluate(axe)
                answer = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
                wrong += [(path, width, scheme, one["id"], one["nodes"][0]["html"]) for one in answer["violations"]]
    assert wrong == []


@in_browser
def test_the_map_names_what_is_slower(visit):
    page = visit("map.html")
    text = page.inner_text("main")
    assert "Out of date" in text
    assert "entropy 1 x 2^20: 0.80 (0.80 to 0.80) of torch a" in text
    assert "entropy 1 x 2^28: peers take up to 10.7 GB, 1.0 GB are free" in text
    cells = [cell.inner_text().split() for cell in page.query_selector_all("td.heat")]
    assert ["0.80!", "torch", "a;", "0.50", "of", "read"] in cells


@in_browser
@pytest.mark.parametrize("width", [390, 820, 1440])
def test_pages_fit_their_width(visit, width):
    for path in (*PAGES, "asv/index.html"):
        page = visit(path, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.inner_text("body").strip()


@in_browser
def test_light_and_dark(visit):
    def colours(scheme):
        page = visit("benchmarks/history.time.html", color_scheme=scheme)
        style = "getComputedStyle(document.querySelector('%s')).%s"
        label = "getComputedStyle(document.querySelector('figure.drawn svg text')).fill"
        return [page.evaluate(style % ("body", name)) for name in ("backgroundColor", "color")] + [page.evaluate(label)]

    def brightness(colour):
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])

    for scheme, dark in (("light", False), ("dark", True)):
        page, ink, label = map(brightness, colours(scheme))
        assert (page < ink) == dark
        assert label == ink


@in_browser
def test_the_keyboard_reaches_everything(visit):
    page = visit("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(300):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert {"SUMMARY", "compare.html", "benchmarks/history.time.html"} <= reached


@in_browser
def test_what_a_screen_reader_needs(visit):
    for path in PAGES:
        page = visit(path)
        assert page.get_attribute("html", "lang") == "en"
        assert page.locator("h1").count() == 1
        assert page.locator("main").count() == 1
        # every table has heads of columns and rows; every chart says what it is
        assert page.locator("table").count() == page.locator("table:has(th[scope=col]):has(th[scope=row])").count()
        for chart in page.query_selector_all("figure.chart"):
            assert chart.query_selector("figcaption").inner_text()
            assert chart.query_selector("svg [aria-label]") is not None
