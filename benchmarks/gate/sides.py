"""Two versions of the package: taken out of the history, loaded into one process under names of their own."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import compiler_machinery

from ..suite.common import ROOT

NAMES = ("numbel_base", "numbel_head")
#: A method that the table lacks.
RAGGED = "categorical ragged 1 x 2^20 float32"


def export(revision: str, folder: Path) -> Path:
    """Put the package of a revision, or of a checkout's folder, into `folder`; return where `numbel` lies."""
    source = Path(revision)
    if (source / "src" / "numbel").is_dir():
        shutil.copytree(source / "src" / "numbel", folder / "numbel", ignore=shutil.ignore_patterns("__pycache__"))
        return folder
    done = subprocess.run(["git", "archive", revision, "src/numbel"], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{revision} is neither a checkout nor a revision: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    shutil.move(folder / "src" / "numbel", folder / "numbel")
    return folder


def digest(folder: Path) -> str:
    """What names the machine code of a version: a hash of all its sources."""
    found = hashlib.sha256()
    for path in sorted((folder / "numbel").rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


class Side:
    """One version, loaded as `name` in place of `numbel`, and its table."""

    def __init__(self, name: str, folder: Path, cache: Path) -> None:
        self.name = name
        beside = folder / "renamed"
        if not (beside / name).exists():
            shutil.copytree(folder / "numbel", beside / name)
        # a folder of its own: two equal versions would else run the same machine code
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(cache / f"{name}-{digest(folder)}")
        sys.path.insert(0, str(beside))
        # both versions register a compiler pass of the same name, which Numba refuses though nothing looks it up
        known = compiler_machinery._pass_registry
        refuse, known._does_pass_name_alias = known._does_pass_name_alias, lambda name: False
        try:
            self.package = importlib.import_module(name)
            importlib.import_module(f"{name}._jit").cache_folder()
        finally:
            sys.path.remove(str(beside))
            known._does_pass_name_alias = refuse
        with self.active():
            self.table = _table(f"{name}_table")
        self.table.GRID[RAGGED] = {"numbel": self._ragged}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within this, `import numbel` gives this side."""
        others = {name: module for name, module in sys.modules.items() if _is_numbel(name)}
        for name in others:
            del sys.modules[name]
        for name, module in list(sys.modules.items()):
            if name == self.name or name.startswith(f"{self.name}."):
                sys.modules["numbel" + name[len(self.name) :]] = module
        try:
            yield
        finally:
            for name in [name for name in sys.modules if _is_numbel(name)]:
                del sys.modules[name]
            sys.modules.update(others)

    def _ragged(self, limit: int) -> Any:
        """About a thousand rows of up to 2,000 columns."""
        columns = min(1 << 20, limit)
        rng = np.random.default_rng(0)
        offsets = np.concatenate([[0], np.sort(rng.choice(columns, 1023, replace=False)), [columns]])
        x, draws = rng.standard_normal(columns, dtype=np.float32), self.package.Generator(5)
        if "offsets" not in inspect.signature(draws.categorical).parameters:
            raise KeyError("offsets")
        return self.table.Case(lambda: draws.categorical(x, offsets=offsets), columns)

    def case(self, work: str, limit: int) -> Any:
        """The case of a work on this side."""
        with self.active():
            return self.table.GRID[work]["numbel"](limit)


def _is_numbel(name: str) -> bool:
    return name == "numbel" or name.startswith("numbel.")


def _table(name: str) -> Any:
    """The table of this checkout, for whatever `numbel` is now."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "src" / "numbel" / "bench" / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError("src/numbel/bench cannot be loaded")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(folders: tuple[Path, Path], cache: Path, swapped: bool) -> tuple[Side, Side]:
    """Both sides, base first in the result; the other one first into memory if `swapped`."""
    order = (1, 0) if swapped else (0, 1)
    found = {i: Side(NAMES[i], folders[i], cache) for i in order}
    base, head = found[0], found[1]
    head.table.works.whole_logits = base.table.works.whole_logits  # both read the same array
    return base, head
