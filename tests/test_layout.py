"""The house: arrows between modules, an import that does nothing, docstrings, and examples that run."""

import ast
import doctest
import functools
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import numbel

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "numbel"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

#: From the bottom up; what is not named here is an adapter.
LAYERS = (
    ("_scalar",),
    ("_arguments",),
    ("results", "_cpu", "_cuda"),
    ("_host",),
    ("_device",),
    ("generator", "gradients", "densities"),
    ("table", "accumulate"),
    ("estimators",),
)
LEAVES = ("_jit", "_machine_code")
#: What leaves import of each other.
BETWEEN_LEAVES = {"_jit": {"_machine_code"}}
ADAPTERS = len(LAYERS)


def part(module):
    """The name directly below `numbel` that a module belongs to; "" is the package itself."""
    return module.partition(".")[2].partition(".")[0]


def level(name):
    """How high a part stands; leaves are below everything."""
    if name in LEAVES:
        return -1
    return next((at for at, names in enumerate(LAYERS) if name in names), ADAPTERS)


def imports(module):
    """The modules of this package that a module imports, anywhere in its text."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "numbel")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base.split(".")[0] == "numbel":
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in MODULES else base


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_one_way(module):
    here = part(module)
    for target in imports(module):
        there = part(target)
        if level(here) == ADAPTERS or here == there or there in BETWEEN_LEAVES.get(here, ()):
            continue
        assert level(there) < level(here), f"{module} imports {target}"


SCRIPTS = [path for name in ("tests", "benchmarks", "examples", "docs") for path in sorted((ROOT / name).rglob("*.py"))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_script_imports_of_the_package_is_there(path):
    """Also inside of functions, which a script's other checks do not run: no linter follows them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "numbel":
            for alias in node.names:
                if f"{node.module}.{alias.name}" not in MODULES:
                    assert alias.name in names_of(node.module), f"{node.module} has no {alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] != "numbel" or alias.name in MODULES, alias.name


@functools.cache
def names_of(module):
    """What a module's text binds at its top level, imports and `if` blocks included; nothing is imported."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_the_leaves_import_nothing_else():
    for leaf in LEAVES:
        found = {part(target) for target in imports(f"numbel.{leaf}")} - {""}
        assert found == BETWEEN_LEAVES.get(leaf, set())


def test_targets_do_not_know_each_other():
    for module in MODULES:
        if part(module) in ("_cpu", "_cuda"):
            other = {"_cpu": "_cuda", "_cuda": "_cpu"}[part(module)]
            assert other not in {part(target) for target in imports(module)}


def test_the_arrows_are_seen_at_all():
    assert "numbel._cpu.drivers" in set(imports("numbel._host.dispatch"))
    assert "numbel._scalar.limits" in set(imports("numbel._arguments.checks"))
    assert "numbel._jit" in set(imports("numbel._scalar.philox"))
    found = set(imports("numbel._host.methods"))
    assert {"numbel._arguments.checks", "numbel._host.dispatch", "numbel.results"} <= found


#: What a driver answers is an error, wherever it is met.
DRIVER = "numbel._cuda.numba_cuda"


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in ("_scalar", "_cpu", "_cuda") and m != DRIVER])
def test_nothing_below_the_checks_raises(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        assert not isinstance(node, ast.Assert)
        if isinstance(node, ast.Raise):
            # the body of a name that exists in compiled code alone
            assert ast.unparse(node.exc) == "NotImplementedError('compiled code only')"


@pytest.mark.parametrize("module", MODULES)
def test_no_private_function_takes_more_than_eight_arguments(module):
    """What belongs together is a NamedTuple; public signatures are apart."""
    text = MODULES[module].read_text()
    private = any(name.startswith("_") for name in module.split("."))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and (private or node.name.startswith("_")):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len(names) - (names[:1] == ["self"]) <= 8 or node.name == "__init__", node.name
    assert "# fmt: skip" not in text


def test_fastmath_is_nowhere():
    """But in peers: a user's ten lines may have it."""
    for path in MODULES.values():
        if path.name == "with_numba.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.keyword) and node.arg == "fastmath")


def test_all_names_are_there():
    assert sorted(numbel.__all__) == list(numbel.__all__) or set(numbel.__all__) <= set(dir(numbel))
    assert {"Generator", "Sample", "default_rng", "warmup", "show_config", "BITS_VERSION"} <= set(numbel.__all__)
    assert (PACKAGE / "py.typed").exists()


# --- import


def script(text):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_compiles_nothing_and_touches_no_cuda():
    """Numba itself is imported with the first kernel that a wheel does not bring."""
    assert (
        script(
            "import numbel, sys\n"
            "optional = ('numba', 'llvmlite', 'torch', 'jax', 'dask', 'matplotlib', 'typer', 'rich', 'ml_dtypes')\n"
            "print([name for name in optional if name in sys.modules])"
        )
        == "[]\n"
    )


def test_importing_starts_no_threads():
    found = script(
        "import threading, numbel, numba\n"
        "try: print(numba.threading_layer())\n"
        "except ValueError: print('not started', threading.active_count())"
    )
    assert found == "not started 1\n"


def test_import_time(record_property):
    text = (
        "import time, numpy, secrets, concurrent.futures\n"
        "start = time.process_time()\n"  # which another process beside it does not lengthen as the clock's
        "import numbel\n"
        "print(time.process_time() - start)"
    )
    seconds = min(float(script(text)) for _ in range(3))
    record_property("import_seconds", seconds)
    # 0.1 s is due on a quiet machine
    assert seconds <= 0.5


# --- documentation

SECTIONS = ["Parameters", "Returns", "Raises", "Notes", "References", "Examples"]


def public():
    """Public functions, classes and their methods, by name."""
    for name in numbel.__all__:
        thing = getattr(numbel, name)
        if inspect.isclass(thing):
            yield name, thing
            for inner, method in vars(thing).items():
                if not inner.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)):
                    yield f"{name}.{inner}", method
        elif inspect.ismodule(thing):
            yield from ((f"{name}.{inner}", getattr(thing, inner)) for inner in thing.__all__)
        elif callable(thing):
            yield name, thing


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings(name):
    thing = PUBLIC[name]
    text = inspect.getdoc(thing)
    assert text
    first, _, rest = text.partition("\n")
    assert first.endswith((".", "`."))
    assert not rest or rest.startswith("\n")
    found = re.findall(r"^([A-Z]\w+)\n-+$", text, flags=re.MULTILINE)
    assert found == [section for section in SECTIONS if section in found], "in the house's order"
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        parameters = [p for p in signature.parameters if p != "self"]
        assert ("Parameters" in found) == bool(parameters)
        if signature.return_annotation not in (None, "None"):
            assert "Returns" in found
        assert "Examples" in found
        assert ">>>" in text
        if parameters:
            described = re.search(r"^Parameters\n-+\n(.*?)(?=^[A-Z]\w+\n-+$|\Z)", text, re.MULTILINE | re.DOTALL)[1]
            named = {n for line in re.findall(r"^(\w[^\n]*?) : ", described, re.MULTILINE) for n in line.split(", ")}
            assert named == set(parameters) or "as in `categorical`" in described.lower()
            assert "Raises" in found


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_doctests(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extras = {"torch", "jax", "dask", "typer", "click", "rich", "matplotlib", "ml_dtypes"}
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in extras:
            pytest.skip(f"without {error.name}")
        raise
    except ImportError as error:
        pytest.skip(str(error))
    result = doctest.testmod(module)
    assert result.failed == 0


PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_of_a_page(page, tmp_path, monkeypatch):
    """Each ```python block runs, all of a page in one namespace; `>>>` blocks must print what they say.

    A page whose first block imports what is not installed is skipped; another page does without such a block.
    """
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    if page.name == "gpu.md":  # in the simulator, which must be chosen before Numba is imported
        blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert len(blocks) >= 3
        monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
        script("import warnings; warnings.simplefilter('ignore')\n" + "\n".join(blocks))
        return
    namespace = {"__name__": f"page_{page.stem}"}
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text[: match.start()].count("\n") + 1
        block = match[1]
        needed = set(re.findall(r"^(?:import|from) .*?\b(torch|jax|dask|wordfreq|sklearn)\b", block, re.MULTILINE))
        if missing := sorted(name for name in needed if not importlib.util.find_spec(name)):
            if len(namespace) == 1:
                pytest.skip(f"without {missing[0]}")
            continue
        if block.lstrip().startswith(">>>"):
            example = doctest.DocTestParser().get_doctest(block, namespace, page.name, str(page), line)
            runner = doctest.DocTestRunner()
            runner.run(example, clear_globs=False)
            assert runner.summarize(verbose=False).failed == 0
            namespace.update(example.globs)
        else:
            exec(compile("\n" * line + block, str(page), "exec"), namespace)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_lead_somewhere(name):
    """Those of the pages in docs/ are the site's to check."""
    page = ROOT / name
    if not page.exists():
        pytest.skip("in a checkout only")
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for path, _, anchor in (link.partition("#") for link in links if "://" not in link):
        target = page.parent / path
        assert target.exists(), path
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, anchor
