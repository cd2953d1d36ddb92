"""What annotations say is what comes back: in mypy, in pyright, and at run time."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import runpy
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

import numbel
from numbel._arguments import types

PROGRAM = Path(__file__).parent / "typed" / "accepted.py"
SOURCE = Path(numbel.__file__).parents[1]
PYRIGHT = shutil.which("pyright")
WRONG = "\nassert_type(rng.categorical(vector), np.float64)\n"
needs_mypy = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason='needs pip install ".[lint]": no mypy')
needs_pyright = pytest.mark.skipif(PYRIGHT is None, reason="needs pyright, such as npm's package")


def mypy(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n"
        "[mypy-numba.*,llvmlite.*,cupy.*,cuda.*,ml_dtypes.*]\nignore_missing_imports = true\nfollow_imports = skip\n"
        "[mypy-numbel.*]\nignore_errors = true\n"  # checked by themselves, with the project's settings
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "accepted.py"]
    # an installed package is found by itself, and refused on this path
    environment = os.environ | ({} if SOURCE.name == "site-packages" else {"MYPYPATH": str(SOURCE)})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def pyright(folder: Path) -> subprocess.CompletedProcess[str]:
    settings = {"include": ["accepted.py"], "extraPaths": [str(SOURCE)], "typeCheckingMode": "strict"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [str(PYRIGHT), "-p", ".", "--pythonpath", sys.executable]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "checker",
    [pytest.param(mypy, marks=needs_mypy), pytest.param(pyright, marks=needs_pyright)],
    ids=["mypy", "pyright"],
)
def test_correct_programs_pass_in_strict_mode(tmp_path, checker):
    program = tmp_path / "accepted.py"
    program.write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    done = checker(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # and a wrong type is seen, or nothing was looked at
    program.write_text(PROGRAM.read_text(encoding="utf-8") + WRONG, encoding="utf-8")
    done = checker(tmp_path)
    assert done.returncode == 1
    assert "float64" in done.stdout
    assert "1 error" in done.stdout


def agrees(value: object, expected: typing.Any) -> bool:
    """Whether a value is of a type, down to dtypes and the fields of results."""
    if expected is typing.Any:
        return True
    origin, parameters = typing.get_origin(expected), typing.get_args(expected)
    if origin is None:
        return type(value) is expected
    if origin is np.ndarray:
        shape, dtype = parameters
        rank = [] if ... in typing.get_args(shape) else [len(typing.get_args(shape))]
        return type(value) is np.ndarray and value.dtype == typing.get_args(dtype)[0] and rank in ([], [value.ndim])
    if origin is tuple or issubclass(origin, tuple):
        return isinstance(value, origin) and all(map(agrees, value, parameters))
    raise AssertionError(f"what to do with {expected}?")


def test_what_is_said_is_what_comes_back(monkeypatch):
    seen = []

    def assert_type(value, expected):
        assert agrees(value, expected), f"{value!r} is no {expected}"
        seen.append(expected)
        return value

    monkeypatch.setattr(typing, "assert_type", assert_type)
    runpy.run_path(str(PROGRAM))
    assert len(seen) > 50
    with pytest.raises(AssertionError):
        assert_type(numbel.Generator(5).categorical(np.zeros(3)), np.float64)


FUNCTIONS = [
    *(getattr(numbel.Generator, name) for name in ("gumbel", "categorical", "sample", "gumbel_softmax")),
    *(getattr(numbel.Generator, name) for name in ("gumbel_top_k", "conditional_gumbel", "multinomial")),
    *(numbel.entropy, numbel.logsumexp, numbel.log_prob, numbel.gumbel_softmax_vjp, numbel.CategoricalTable.sample),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_overloads_have_the_parameters_of_the_function(function):
    """What an overload leaves out, no checked program can pass; mypy checks the other direction."""
    overloads = typing.get_overloads(function)
    assert len(overloads) >= 2
    due = inspect.signature(function).parameters
    for one in overloads:
        given = {}
        for name, parameter in inspect.signature(one).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                shared = getattr(types, parameter.annotation.removeprefix("Unpack[").removesuffix("]"))
                given |= dict.fromkeys(shared.__annotations__, inspect.Parameter.KEYWORD_ONLY)
            else:
                given[name] = parameter.kind
        assert set(given) <= set(due)
        if one is overloads[-1]:
            assert set(given) == set(due)
