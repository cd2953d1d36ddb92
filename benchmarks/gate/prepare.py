"""A process that compiles what works need of one version, and tells the sources that each of them runs.

A module that holds workers, which are kernels of the CPU, counts only for works that run one of them, or for workers
that import it. All other modules that are loaded count for every work.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

from ..suite.common import ABSENT
from .sides import Side
from .timing import LIMIT


def closure(roots: set[str], imports: dict[str, set[str]]) -> set[str]:
    """Names that are reached from some."""
    found, left = set(roots), list(roots)
    while left:
        new = imports.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def imported(path: Path, package: str) -> set[str]:
    """Absolute names of what a module of a package imports from it, and of what may be modules among them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return found


class Sources:
    """Which sources a side's works run."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.run: set[str] = set()
        drivers: Any = sys.modules.get(f"{side.name}._cpu.drivers")
        self.workers: dict[str, str] = {}
        if hasattr(drivers, "WORKERS") and hasattr(drivers, "driver"):
            # modules by their names; commits up to December 2026 have the workers themselves
            self.workers = {
                name: f"{side.name}._cpu.{worker}" if isinstance(worker, str) else worker.py_func.__module__
                for name, worker in drivers.WORKERS.items()
            }
            plain = drivers.driver

            def record(worker: str, dtype: str) -> Any:
                self.run.add(self.workers[worker])
                importlib.import_module(self.workers[worker])  # which is not imported if its code lies on disk
                return plain(worker, dtype)

            drivers.driver = record

    def _modules(self) -> dict[str, Any]:
        name = self.side.name
        return {key: module for key, module in list(sys.modules.items()) if key == name or key.startswith(f"{name}.")}

    def files(self) -> list[str]:
        """What was loaded, less the modules of workers that did not run; all of it if none is known to have run."""
        modules = self._modules()
        paths = {key: Path(module.__file__) for key, module in modules.items() if getattr(module, "__file__", None)}
        workers = set(self.workers.values())
        if self.run:
            packages = {key: str(getattr(module, "__package__", "")) for key, module in modules.items()}
            imports = {key: imported(path, packages[key]) & paths.keys() for key, path in paths.items()}
            workers -= closure(self.run, imports)
        else:
            workers = set()
        root = Path(str(self.side.package.__file__)).parent
        return sorted(path.relative_to(root).as_posix() for key, path in paths.items() if key not in workers)


def answer(side: Side, sources: Sources, work: str) -> dict[str, Any]:
    """Compile and run a work; say what it ran."""
    start = time.perf_counter()
    found: dict[str, Any] = {"work": work}
    try:
        case = side.case(work, LIMIT)
        with side.active():
            case.call()
    except ABSENT as error:
        found["absent"] = str(error)
    return found | {"files": sources.files(), "seconds": time.perf_counter() - start}


def main() -> None:
    """Answer one request with a line for each work."""
    request = json.load(sys.stdin)
    side = Side(request["name"], Path(request["folder"]), Path(request["cache"]))
    sources = Sources(side)
    # A process of its own for each work: what the package remembers of another would hide what this one runs. Where
    # there are no forks, all that was loaded counts.
    context = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
    for work in request["works"]:
        if context is None:
            sources.workers.clear()
            print(json.dumps(answer(side, sources, work)), flush=True)
            continue
        child = context.Process(
            target=lambda one: print(json.dumps(answer(side, sources, one)), flush=True), args=[work]
        )
        child.start()
        child.join()
        if child.exitcode:
            raise SystemExit(f"{work}: a process ended with {child.exitcode}")


if __name__ == "__main__":
    main()
