"""Checks of device arrays against the host's bits, on one backend.

python tests/cuda/run.py card                                            # all of them, on a card
python tests/cuda/run.py ptx --formats float32 check_ragged              # kernels' PTX on this processor
python tests/cuda/run.py simulator --races check_methods.check_rows      # races and uninitialised memory
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
FORMATS = ("float32", "float64", "float16", "bfloat16")


def _formats(text):
    names = tuple(text.split(","))
    if set(names) - set(FORMATS):
        raise argparse.ArgumentTypeError(f"of {', '.join(FORMATS)}")
    return names


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", choices=("simulator", "ptx", "card"))
    parser.add_argument("checks", nargs="*", help="modules, or checks of them; all if none is named")
    parser.add_argument("--formats", type=_formats, default=FORMATS, help="with commas between: all if none is named")
    parser.add_argument("--races", action="store_true", help="look for races, in the simulator")
    parser.add_argument("--facts", action="store_true", help="report what PTX and machine code show without being run")
    parser.add_argument("--every-kernel", action="store_true", help="compile those, too, that no check launches")
    parser.add_argument("--report", type=Path, help="a JSON file of what ran, what failed, and how long it took")
    return parser.parse_intermixed_args(given)


def environment(given):
    """What must be set before Numba is imported."""
    os.environ["NUMBA_ENABLE_CUDASIM"] = str(int(given.backend == "simulator"))
    os.environ["NUMBEL_CUDA_BACKEND"] = given.backend
    os.environ["NUMBEL_RACES"] = str(int(given.races))
    # whatever a caller made errors of: the simulator computes with NumPy scalars, which warn where machine arithmetic
    # wraps, and numba-cuda warns of small grids
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(HERE)]
    importlib.import_module("backend")


def kernels_used():
    """The set of (kernel, format, layout) that is launched from now on; what the driver compiles has their names."""
    from backend import DRIVER
    from numbel._cuda import disk, launch

    used, plain, compiled = set(), launch._kernel, disk.kernel

    def kernel(module, form, layout, name):
        used.add((name, form, layout))
        return plain(module, form, layout, name)

    def named(function, name, form, layout, *rest):
        DRIVER.label = name, form, layout
        try:
            return compiled(function, name, form, layout, *rest)
        finally:
            DRIVER.label = None

    launch._kernel = kernel
    if DRIVER is not None:
        disk.kernel = named
    return used


def never_launched(used, formats):
    """Kernels of these formats that were not launched; those that take no rows are the same for all layouts."""
    from numbel._cuda import launch

    alike = {}
    for module in launch.MODULES:
        for form in formats:
            for layout in "ACR" if module in launch.RAGGED else "AC":
                for name, (_, signature) in module.kernels(form, layout).items():
                    key = name, str(signature), form, layout == "R"
                    alike.setdefault(key, []).append((name, form, layout))
    return [labels[0] for labels in alike.values() if used.isdisjoint(labels)]


def compile_kernels(labels):
    from numbel._cuda import launch

    for name, form, layout in labels:
        module = next(module for module in launch.MODULES if name in module.kernels(form, layout))
        launch._kernel(module, form, layout, name)


def facts():
    """Of all that was compiled: its name, the target, and what PTX and machine code show.

    What either compiler fuses is asked of contiguous rows in both widths of arithmetic, and of float32 for sm_80, too.
    It is the same for other layouts, and halves are computed in float32.
    """
    from backend import DRIVER
    from ptx import exact

    found = []
    for label, library, target in DRIVER.compiled.values():
        _, form, layout = label or ("", "float32", "C")
        fused = layout == "C" and form in ("float32", "float64")
        targets = [target, (8, 0, "")] if fused and form == "float32" else [target]
        for each in targets:
            found.append([label or ["user", "-", "-"], "sm_{}{}{}".format(*each), *exact.facts(library, each, fused)])
    return found


def selected(names):
    from backend import BACKEND
    from common import CHECKS

    modules = {name.partition(".")[0] for name in names} or {path.stem for path in HERE.glob("check_*.py")}
    if not names and importlib.util.find_spec("torch") is None:
        modules.remove("check_torch")
    for name in sorted(modules):
        importlib.import_module(name)
    unknown = [n for n in names if "." in n and n not in {check.name for check in CHECKS}]
    assert not unknown, f"no such checks: {unknown}"
    return [
        check
        for check in CHECKS
        if BACKEND in check.backends and (not names or check.name in names or check.name.partition(".")[0] in names)
    ]


def run(checks, formats):
    """What failed, and the seconds of each."""
    import numpy as np

    from backend import DRIVER

    failed, seconds = {}, {}
    for name in formats:
        dtype = importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else getattr(np, name)
        for check in checks:
            if name not in check.formats:
                continue
            begun, what = time.perf_counter(), f"{check.name} {name}"
            try:
                check.run(dtype)
                assert DRIVER is None or not DRIVER.failures, DRIVER.failures
            except BaseException:
                failed[what] = traceback.format_exc()
                print(failed[what], file=sys.stderr, flush=True)
            if DRIVER is not None:
                DRIVER.failures.clear()
            seconds[what] = round(time.perf_counter() - begun, 2)
            print(f"{what}: {'FAILED' if what in failed else 'equal'}, {seconds[what]:.1f} s", flush=True)
    return failed, seconds


def main(given=None):
    given = arguments(given)
    environment(given)
    used = kernels_used()
    checks = selected(given.checks)
    failed, seconds = run(checks, given.formats)
    if given.report:
        from backend import DRIVER

        report = {"failed": failed, "seconds": seconds, "launched": sorted(used)}
        report["never launched"] = never_launched(used, given.formats)
        if given.every_kernel:
            compile_kernels(report["never launched"])
        if given.facts:
            report["facts"] = facts()
        if DRIVER is not None:
            report["parts"] = {name: round(spent, 1) for name, spent in DRIVER.seconds.items()}
        report["processor"] = round(time.process_time(), 1)
        given.report.write_text(json.dumps(report, indent=1))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
