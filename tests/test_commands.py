"""Every command in README, docs, docstrings, workflows and --help runs as written, in a copy of the checkout."""

import ast
import functools
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import checkout

ROOT = checkout.ROOT
if not checkout.IS_CHECKOUT:
    pytest.skip("commands are run in a checkout", allow_module_level=True)

#: What is not run as written, and why: a beginning of commands, the reason, and what is run in its place, if anything.
SET_ASIDE = (
    (r".*(GROUP|BACKEND|GITHUB_REF|RUNNER_TEMP|BASE)", "stands for a value, which whoever runs it puts in", None),
    (r"python -m numbel$", "names the program", "{} --help"),
    (r"numbel bench --json$", "names an option", None),
    (r"numbel bench", "takes minutes, and a clock beside other tests says nothing", "{} --list"),
    (r"(python -m )?pip install ", "installs from the network: the first sample below does, and .ci/run", None),
    (
        r"NUMBEL_|python -m numbel\._host\.build",
        "makes a wheel's kernels, for minutes: tests/test_prebuilt.py",
        None,
    ),
    (r"python -m venv ", "makes an environment: the first sample below does", None),
    (r"python -m pytest", "is this suite: .ci/run runs the README's line, and the long tests", None),
    (r"bash \.ci/run", "runs this suite, half an hour", None),
    (r"asv run|python -m benchmarks\.(reference|history)", "measures for an hour on an idle machine", None),
    (r"asv machine", "writes into the home folder what asv would ask", "HOME=. {}"),
    (r"python -m benchmarks\.gate", "compares two versions by the clock, for minutes: tests/test_gate.py", None),
    (r"python -m benchmarks\.suite\.start", "compiles everything twice, for minutes: tests/test_bench.py", None),
    (
        r".*benchmarks\.gpu|.*python examples/stochastic_codebook.py --device cuda$|.*npy --device cuda",
        "needs a GPU",
        None,
    ),
    (r"python tests/cuda/(run|rehearse)\.py", "takes minutes: tests/test_cuda.py", None),
    (r"python -m benchmarks\.dashboard", "builds a site: tests/test_dashboard.py runs it, and reads the site", None),
    (r"python -m sphinx", "builds a site: tests/test_site.py runs it, and reads the site", None),
    (r"python -m http\.server", "serves until it is stopped", "python -m http.server --help"),
    (r"python examples/categorical_vae\.py", "trains for three minutes: tests/test_examples.py", None),
    (r"python -m tests\.fuzz --seconds 3600", "takes an hour", "python -m tests.fuzz --seconds 1"),
    (r"python -m tests\.make_golden", "writes all golden values anew: tests/test_bits.py computes them", None),
    (r"python -m (build|twine)", "is for a release: its workflow runs it on a tag", None),
)
_PROGRAM = r"(?:[A-Z_]+=\S+ )*(?:numbel|python3?|pip|asv|bash) "
_MODULES = ("src/**/*.py", "benchmarks/**/*.py", "examples/*.py", "tests/[fm]*.py", "tests/cuda/*.py")
_PAGES = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "docs/**/*.md")


def reason(command):
    """Why a command is set aside, and its stand-in; None if it is run as written."""
    return next(((why, instead) for start, why, instead in SET_ASIDE if re.match(start, command)), None)


def spans(text):
    """Commands within a line, in backticks."""
    return re.findall(rf"`({_PROGRAM}[^`\n]+)`", text)


def lines_of(text):
    """Commands that fill a line, less the comment behind them."""
    return [re.sub(r"\s+# .*", "", line).strip() for line in text.splitlines() if line.strip()]


def of_page(path):
    """Commands of a page in its order: those of its blocks, and those within its lines."""
    found = []
    for part in re.split(r"(^```bash\n.*?^```$)", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        found += lines_of(part[8:-3]) if part.startswith("```bash\n") else spans(part)
    return found


def of_workflow(path):
    """What a workflow runs, a line each."""
    found, indent = [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        depth = len(line) - len(line.lstrip())
        if indent is not None and line.strip() and depth <= indent:
            indent = None
        if indent is not None:
            found += re.findall(rf"{_PROGRAM}.*", line)[:1] if re.match(rf"\s*(?:.*\b)?{_PROGRAM}", line) else []
        elif match := re.match(r"\s*(?:- )?run: (.*)", line):
            if match[1] == "|":
                indent = depth
            else:
                found.append(match[1])
    return found


def of_docstrings(path):
    """Commands in the docstrings of a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
            lines = re.findall(r"^ *((?:[A-Z_]+=\S+ )*python (?:-m |\w+/).*)$", text, re.MULTILINE)
            found += lines_of("\n".join(lines))
            found += spans(text)
    return found


@functools.cache
def commands():
    """Every command, by where it stands."""
    found = {}
    for pattern in _PAGES:
        for path in sorted(ROOT.glob(pattern)):
            found[path] = of_page(path)
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        found[path] = of_workflow(path)
    for pattern in _MODULES:
        for path in sorted(ROOT.glob(pattern)):
            found[path] = of_docstrings(path)
    return {path.relative_to(ROOT).as_posix(): list(dict.fromkeys(each)) for path, each in found.items() if each}


def test_commands_are_found_everywhere():
    found = commands()
    assert 'python -m pip install ".[cli]" && numbel sample' in found["README.md"]
    assert "numbel gumbel --size 1000000 --seed 5" in found["docs/guide/command-line.md"]
    assert "python -m pytest -q" in found[".github/workflows/tests.yml"]
    assert any("benchmarks.gate" in each for each in found[".github/workflows/gate.yml"])
    assert "python -m benchmarks.figures --check" in found["benchmarks/figures.py"]


def test_what_is_set_aside_is_there():
    every = {command for each in commands().values() for command in each}
    for start, why, _ in SET_ASIDE:
        assert any(re.match(start, command) for command in every), f"no command begins so: {start} ({why})"


def test_extras_that_commands_name_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        extra
        for each in commands().values()
        for command in each
        for group in re.findall(r"(?:\.|numbel)\[([\w,]+)\]", command)
        for extra in group.split(",")
    }
    assert {"cli", "test"} <= named <= set(project["optional-dependencies"])


def run(command, folder):
    """A command of a shell, with this interpreter first on the path, and the package of the copy."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder / "src"), "MPLBACKEND": "agg"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )


def runnable():
    """What is run, once each, and where it stands first."""
    found = {}
    for source, each in commands().items():
        for command in each:
            aside = reason(command)
            if aside is None or aside[1]:
                found.setdefault(command if aside is None else aside[1].format(command), source)
    return [pytest.param(command, id=f"{source}: {command}") for command, source in found.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the checkout, with the file of logits that pages take for given."""
    folder = checkout.copied(tmp_path_factory.mktemp("commands"))
    np.save(folder / "logits.npy", np.random.default_rng(0).standard_normal((3, 1000), dtype=np.float32))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("command", runnable())
def test_it_runs_as_written(command, folder):
    for words, needed in (("asv ", "asv"), ("numbel ", "typer"), ("simplex", "sklearn"), ("bench", "typer")):
        if words in command and not importlib.util.find_spec(needed):
            pytest.skip(f"without {needed}")
    done = run(command, folder)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.long
def test_help_names_commands_that_run(folder):
    pytest.importorskip("typer", reason="without typer")
    top = run("numbel --help", folder).stdout
    named = re.findall(r"^  (\w+)  ", top[top.index("Commands:") :], re.MULTILINE)
    assert {"sample", "gumbel", "info", "warmup", "bench"} <= set(named)
    for name in named:
        done = run(f"numbel {name} --help", folder)
        assert done.returncode == 0, done.stderr
        for command in spans(done.stdout):
            assert run(command, folder).returncode == 0, command


@pytest.mark.long
def test_a_first_sample(tmp_path):
    """From `git clone` to a sample, installation included: the README's first line in an environment of its own."""
    (line,) = re.findall(
        r"^python -m pip install .*numbel sample$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "kernels")  # nothing is compiled yet
    before = checkout.processor_seconds()
    steps = f"git clone -q {ROOT} clone && cd clone && {sys.executable} -m venv .venv && . .venv/bin/activate && {line}"
    done = subprocess.run(["bash", "-c", steps], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^G-test .* p = ", done.stdout, re.MULTILINE)
    assert checkout.processor_seconds() - before < 60


def test_the_workflow_builds_the_documented_site():
    (documented,) = (each for each in commands()["CONTRIBUTING.md"] if each.startswith("python -m sphinx"))
    # with a link to the dashboard, which lies beside it there
    assert documented.replace(" -W ", " -W -t dashboard ") in commands()[".github/workflows/site.yml"]
