"""The site: built as documented, without a network, and read in a real browser."""

import html.parser
import importlib.util
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

import browsers
import checkout
import numbel

ROOT = checkout.ROOT
if not checkout.IS_CHECKOUT:
    pytest.skip("the site is built from a checkout", allow_module_level=True)
NEEDED = ("sphinx", "numpydoc", "myst_nb", "pydata_sphinx_theme", "sphinx_design", "sphinx_copybutton", "ipykernel")
NEEDED += ("axe_playwright_python", "playwright", "matplotlib", "wordfreq", "torch", "jax", "dask")
MISSING = [name for name in NEEDED if not importlib.util.find_spec(name)]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(MISSING), reason=f'needs pip install ".[docs]": no {", ".join(MISSING)}'),
]
ADAPTERS = ("numbel.torch", "numbel.jax", "numbel.dask", "numbel.cuda", "numbel.estimators")
#: A page of each kind, which is held to everything at both widths, in light and dark; other pages at one of the four.
KINDS = ("index.html", "search.html", "errors.html", "reference/dask.html", "notebooks/relaxed-samples.html")
LOOKS = [(width, scheme) for width in (1440, 390) for scheme in ("light", "dark")]


class Site:
    """The built pages, and what building them took."""

    def __init__(self, folder):
        checkout.copied(folder, "docs", "src", "examples", "benchmarks/README.md", "*.md")
        (line,) = re.findall(
            r"^python -m sphinx .*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE
        )
        words = line.split()
        assert words[-2:] == ["docs", "site"]
        before = checkout.processor_seconds()
        environment = os.environ | {"PYTHONPATH": str(folder / "src"), "http_proxy": "http://127.0.0.1:9"}
        environment |= {"https_proxy": environment["http_proxy"]}
        self.done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        self.seconds = checkout.processor_seconds() - before
        self.folder = folder / "site"
        found = sorted(self.folder.rglob("*.html"))
        self.pages = [path.relative_to(self.folder).as_posix() for path in found if "_static" not in path.parts]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"))


def test_the_documented_command_builds_it(site):
    """Warnings are errors; notebooks that raise are, too. Seconds of the processor, as others may use the cores."""
    assert site.done.returncode == 0, site.done.stderr
    assert len(site.pages) > 40
    assert site.seconds < 60


def test_pages_are_small(site):
    large = {page: (site.folder / page).stat().st_size for page in site.pages}
    assert max(large.values()) < 500_000, max(large, key=large.get)


def test_every_public_name_is_in_the_reference(site):
    from sphinx.util.inventory import InventoryFile

    content = (site.folder / "objects.inv").read_bytes()
    known = {name for names in InventoryFile.loads(content, uri="").data.values() for name in names}
    public = {f"numbel.{name}" for name in numbel.__all__ if name != "estimators"} | {"numbel.default_rng"}
    for adapter in ADAPTERS:
        module = importlib.import_module(adapter)
        public |= {f"{adapter}.{name}" for name in module.__all__}
    for kind in (numbel.Generator, numbel.CategoricalTable, numbel.CategoricalAccumulator):
        public |= {f"numbel.{kind.__name__}.{name}" for name in vars(kind) if not name.startswith("_")}
    assert public - known == set()


class _Links(html.parser.HTMLParser):
    """The targets of a page's links, and what links can lead to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]


def test_no_link_within_the_site_is_broken(site):
    read = {page: _Links((site.folder / page).read_text(encoding="utf-8")) for page in site.pages}
    broken, followed = [], 0
    for page, found in read.items():
        for link in found.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            path = os.path.normpath(Path(page).parent / urllib.parse.unquote(parts.path)) if parts.path else page
            fragment = urllib.parse.unquote(parts.fragment)
            if not (site.folder / path).is_file() or (path in read and fragment not in read[path].anchors):
                broken.append((page, link))
    assert broken == []
    assert followed > 1000


def test_inventories_hold_what_pages_link_to(site):
    text = "".join((site.folder / page).read_text(encoding="utf-8") for page in site.pages)
    for path in (ROOT / "docs" / "inventories").iterdir():
        for line in path.read_text(encoding="utf-8").splitlines()[3:]:
            assert f'#{line.split()[0]}"' in text, f"{path.name}: no page links to it"


def test_notebooks_were_run(site):
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        page = (site.folder / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert page.count("cell_output") >= 3, path.name
        assert 'src="../_images/' in page, path.name
        assert '"outputs": []' in path.read_text(encoding="utf-8"), "kept without results"


@pytest.fixture(scope="module")
def browser():
    yield from browsers.launched()


@pytest.fixture
def visit(browser, site):
    with (
        browsers.served(site.folder) as address,
        browsers.quiet(browser, address, tolerated=["[PST]"]) as go,  # the theme says what it does
    ):
        yield go


@browsers.needs_browser
def test_search_finds_without_a_network(visit):
    """What a page of the guide is called, and a function."""
    for words, page in (("without replacement", "guide/without-replacement.html"), ("top_k_weights", "reference/")):
        found = visit(f"search.html?q={urllib.parse.quote(words)}")
        found.wait_for_function("document.querySelectorAll('#search-results li').length > 0")
        links = [link.get_attribute("href") for link in found.query_selector_all("#search-results li a")]
        assert any(page in link for link in links), (words, links)


@browsers.needs_browser
def test_colours_follow_the_reader(visit):
    def brightness(scheme):
        page = visit("index.html", color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    assert brightness("light") > 600
    assert brightness("dark") < 200


@browsers.needs_browser
def test_pages_can_be_read_by_everyone(visit, site):
    """No violation that axe knows, and nothing wider than the window."""
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    wrong = []
    for look, (width, scheme) in enumerate(LOOKS):
        page = visit("index.html", width, color_scheme=scheme)
        for at, path in enumerate(site.pages):
            if path not in KINDS and look != at % len(LOOKS):
                continue
            page.goto(path)
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wrong.append((path, width, "wider than the window"))
            page.evaluate(axe)
            answer = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
            wrong += [(path, width, scheme, one["id"], one["nodes"][0]["html"]) for one in answer["violations"]]
    assert wrong == []
    assert set(KINDS) <= set(site.pages)


@browsers.needs_browser
def test_axe_sees_what_is_wrong(visit):
    """Planted: text that is nearly as light as its background."""
    import axe_playwright_python

    page = visit("index.html", color_scheme="light")
    page.evaluate("document.querySelector('article p').style.color = '#eee'")
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    answer = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
    assert [one["id"] for one in answer["violations"]] == ["color-contrast"]
