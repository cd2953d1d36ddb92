"""The dashboard in a real browser, from results with a planted regression; and the figures written into pages."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import browsers

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "dashboard").is_dir():
    pytest.skip("benchmarks is in a checkout only", allow_module_level=True)
sys.path.insert(0, str(ROOT))

_NEEDED = ("asv", "asv_tachyon", "jinja2", "vl_convert", "playwright")
MISSING = [name for name in _NEEDED if not importlib.util.find_spec(name)]
needs_dashboard = pytest.mark.skipif(bool(MISSING), reason=f'needs pip install ".[dashboard]": no {", ".join(MISSING)}')
MACHINE, STEP, PLANTED = (
    "planted-machine-2-cores",
    "speed.Speed.track_time_per_category",
    "categorical 64 x 2^20 float32",
)


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


def test_regressions_from_nothing(tmp_path):
    """A figure that was 0 is a regression without bound; a page more of memory is none."""
    from benchmarks.dashboard import data

    def one(name, before, after):
        return [name, "", {}, None, after, before, [[None, 7, before, after]]]

    memory = "memory.Beyond.track_beyond_inputs_and_outputs"
    found = [one("a.A.time_a", 1.0, 2.0), one(f"{memory}('b')", 0.0, 8192.0), one(f"{memory}('c')", 0.0, 2.0**19)]
    (tmp_path / "index.json").write_text(json.dumps({"revision_to_hash": {"7": "abc"}}))
    (tmp_path / "regressions.json").write_text(json.dumps({"regressions": found}))
    assert [(each.what, each.times) for each in data.regressions(tmp_path)] == [("'c'", float("inf")), ("", 2.0)]


def test_what_changed_is_told_with_its_scatter():
    """A step that stays is told, times before code; one that was taken back, one as large as the scatter, and a page of
    memory are not."""
    from benchmarks.dashboard import data

    order = list("abcdef")

    def one(name, **rows):
        values = [
            data.Value("m", commit, (what,), value)
            for what, row in rows.items()
            for commit, value in zip(order, row, strict=True)
        ]
        return data.Benchmark(name, "", ("work",), values)

    known = [
        one("code.CpuCode.track_spills", spills=[0, 0, 0, 0, 5, 5], none=[3, 3, 3, 3, 3, 3]),
        one("memory.Beyond.track_bytes", page=[1e4, 1e4, 1e4, 2e4, 2e4, 2e4], much=[1e6, 1e6, 1e6, 1e6, 4e6, 4e6]),
        one(
            "speed.Speed.track_time",
            up=[1, 1, 1.2, 1.2, 1.21, 1.2],
            back=[1, 1, 1.2, 1, 1, 1],
            down=[2, 2, 2, 2, 2, 1.9],
        ),
        one("speed.Noisy.track_time", a=[1, 1.2, 1, 1.2, 1, 1.2], b=[1, 1.2, 1, 1.2, 1, 1.5]),
    ]
    worse, better = data.changes(known, order)
    found = [(each.subject, each.what, each.since, each.commit, round(each.times, 3)) for each in worse]
    assert found == [
        ("time", "up", "b", "c", 1.2),
        ("memory", "much", "d", "e", 4.0),
        ("code counts", "spills", "d", "e", float("inf")),
    ]
    assert [each.sure for each in worse] == [
        "beyond doubt: 18 times the usual scatter",
        "beyond doubt: it never moved before",
        "beyond doubt: it never moved before",
    ]
    assert [(each.what, each.sure) for each in better] == [("down", "likely: 5 times the usual scatter")]


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
    from benchmarks.dashboard import data

    def named(name, *values):
        return data.Benchmark(name, "seconds", ("method",), [data.Value("m", *each) for each in values])

    known = [
        named("start.FirstCall.track_cold_seconds", ("new", ("gumbel",), 3.0), ("old", ("gumbel",), 14.0)),
        named("start.FirstCall.track_warm_seconds", ("old", ("gumbel",), 0.5), ("new", ("gumbel",), 0.02)),
        named("start.Start.track_import_beyond_numba", ("new", (), 0.5)),
    ]
    assert data.first_calls(known, ["old", "new"]) == {"m": {"gumbel": {"cold": 3.0, "warm": 0.02}}}


def test_a_regression_between_measurements_has_no_single_cause(tmp_path):
    """asv knows two measured commits; the table must not name the last of the 140 between them as the cause."""
    from benchmarks.dashboard import data

    history = git("log", "-12", "--format=%H")
    if len(history) < 12:
        pytest.skip("needs twelve commits of history: this clone is shallow")
    last, first = history[0], history[11]
    jumps = [[3, 7, 1.0, 2.0], [None, 7, 2.0, 3.0]]
    (tmp_path / "index.json").write_text(json.dumps({"revision_to_hash": {"3": first, "7": last}}))
    (tmp_path / "regressions.json").write_text(
        json.dumps({"regressions": [["a.A.time_a", "", {}, None, 3.0, 1.0, jumps]]})
    )
    between, alone = data.regressions(tmp_path)
    assert (between.since, between.commit) == (first, last)
    assert int(between.suspects) == int(git("rev-list", "--count", f"{first}..{last}")[0]) >= 11
    assert (alone.since, alone.commit, alone.suspects) == ("", last, "")
    if not MISSING:
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ROOT / "benchmarks" / "dashboard" / "templates"), autoescape=True
        )
        environment.filters["number"] = str
        table = environment.get_template("parts.html").module.regressions_table
        assert f"one of {between.suspects} commits after {first[:8]}, up to {last[:8]}" in table([between], "", {}, {})
        assert "one of" not in table([alone], "", {}, {})


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
    """The site of the committed results, and of a machine on which one figure doubled; and the commit that did it."""
    from benchmarks.dashboard import data
    from benchmarks.dashboard.__main__ import build

    commits = git("log", "--first-parent", "-12", "--format=%H", "main") or git("log", "-12", "--format=%H")
    if len(commits) < 12:
        pytest.skip("needs twelve commits of history: this clone is shallow")
    commits.reverse()
    folder = tmp_path_factory.mktemp("dashboard")
    results = folder / "results"
    shutil.copytree(data.RESULTS, results)
    one = next(path for path in (results / "asv").glob("*/*.json") if path.name != "machine.json")
    run = json.loads(one.read_text())
    known = json.loads((results / "asv" / "benchmarks.json").read_text())
    works = known[STEP]["params"][0]
    (results / "asv" / MACHINE).mkdir()
    about = {"machine": MACHINE, "cpu": "planted", "os": "Linux", "ram": "1 GB", "version": 1}
    (results / "asv" / MACHINE / "machine.json").write_text(json.dumps(about))
    for i, commit in enumerate(commits):
        values = [(2.0 if i >= 6 else 1.0) if work == repr(PLANTED) else None for work in works]
        row = [values, [works], known[STEP]["version"], 0, 1.0]
        planted = run | {"commit_hash": commit, "results": {STEP: row}, "durations": {}}
        planted["params"] = run["params"] | about
        planted["params"].pop("version")
        planted["result_columns"] = ["result", "params", "version", "started_at", "duration"]
        planted["date"] = int(git("log", "-1", "--format=%ct", commit)[0]) * 1000
        (results / "asv" / MACHINE / f"{commit[:8]}-planted.json").write_text(json.dumps(planted))
    (results / "map").mkdir(exist_ok=True)
    (results / "map" / f"{MACHINE}.json").write_text(json.dumps(MAP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "RESULTS", results)
        patch.setattr(data, "LOCAL", folder / "none")
        build(folder / "site")
    return folder / "site", commits[6]


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
    folder, _ = site
    measured = set()
    for path in (folder / "asv" / "graphs" / "summary").glob("*.json"):
        measured.add(path.stem)
    assert len(measured) > 10
    page = visit("index.html")
    listed = {link.inner_text(): link.get_attribute("href") for link in page.query_selector_all("#all + p + ul a")}
    assert set(listed) == measured
    for name, path in listed.items():
        page = visit(path)
        assert name in page.inner_text("main")
        charts = page.query_selector_all("figure.drawn svg")
        assert charts, name
        for chart in charts:
            assert chart.query_selector_all(".mark-symbol path"), name


@in_browser
def test_the_regression_is_listed_and_leads_to_its_commit(site, visit):
    page = visit("index.html")
    row = page.locator("#regressions-table tbody tr", has_text=PLANTED).first
    assert STEP in row.inner_text()
    assert "2.00" in row.inner_text()
    link = row.locator("td a")
    assert link.inner_text() == site[1][:8]
    link.click()
    assert site[1] in page.inner_text("main")
    assert STEP in page.inner_text("main")
    assert "2.00" in visit(f"benchmarks/{STEP}.html").inner_text("#regressions-table")


@in_browser
def test_the_first_screen_tells_what_changed(site, visit):
    page = visit("index.html")
    first = page.locator("main h2").first
    assert first.inner_text() == "What changed"
    row = page.locator("main table").first.locator("tbody tr", has_text=MACHINE)
    text = row.inner_text()
    assert PLANTED in text
    assert "2.00" in text
    assert "beyond doubt" in text
    assert site[1][:8] in text
    assert f"Beside peers on {MACHINE}: 1 cells" in page.inner_text("main")


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
    for path in ("index.html", "map.html", f"benchmarks/{STEP}.html", "asv/index.html"):
        page = visit(path, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.inner_text("body").strip()


@in_browser
def test_light_and_dark(visit):
    def colours(scheme):
        page = visit("index.html", color_scheme=scheme)
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
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.ariaLabel"))
    assert "Regressions" in reached
    assert f"benchmarks/{STEP}.html" in reached


@in_browser
def test_what_a_screen_reader_needs(visit):
    page = visit("index.html")
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    # every table has heads of columns and rows; every chart says what it is, and has a table or a caption
    assert page.locator("table").count() == page.locator("table:has(th[scope=col]):has(th[scope=row])").count()
    for chart in page.query_selector_all("figure.chart"):
        assert chart.query_selector("figcaption").inner_text()
        assert chart.query_selector("svg [aria-label]") is not None
