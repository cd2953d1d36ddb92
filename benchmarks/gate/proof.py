"""How often the gate sees what was planted, and how often it cries without reason.

python -m benchmarks.gate.proof                     # every plant five times, twenty unchanged pairs
python -m benchmarks.gate.proof --plant memory --repeats 1 --unchanged 0
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .__main__ import FAST, FAST_FIGURES, Row, alarms, figure_rows, time_rows, timed
from .sides import export


class Plant(NamedTuple):
    """An edit of the package, and what must raise an alarm: times of works, or figures."""

    file: str
    there: str
    instead: str
    works: tuple[str, ...] = ()
    figure: str = ""


def _more_work(name: str, steps: int) -> str:
    """Source of arithmetic that the compiler cannot leave out and that adds 0 to `name`, at four spaces."""
    lines = "".join(f"    waste = fma(waste, waste, float32({0.1 + 0.01 * i}))\n" for i in range(steps))
    return f"    waste = {name} * float32(1e-9)\n{lines}    {name} = fma(waste, float32(0.0), {name})\n"


PLANTS = {
    "a scalar function: a longer logarithm": Plant(
        "_scalar/gumbel.py",
        "    log_t = finite_log_float32(t)\n",
        "    log_t = finite_log_float32(t)\n" + _more_work("log_t", 12),
        ("gumbel 65536 x 128 float32", "gumbel_softmax 65536 x 128 float32"),
    ),
    "a kernel: every fourth round of the sum twice": Plant(
        "_cpu/blocks.py",
        "    if rounds > 0:\n        start = rounds * LANES\n",
        "    for j in range(1, 1 + rounds // 4):\n        start = int64(j) * LANES\n"
        "        for i in range(uint64(LANES)):\n            x = load(kind, address, start + int64(i))\n"
        "            lanes[i] += type(lanes[i])(0) * scalar.weight(x if shift is None else x - shift, high, low, r)\n"
        "    if rounds > 0:\n        start = rounds * LANES\n",
        ("categorical 64 x 2^20 float32",),
    ),
    "dispatch: a loop in Python": Plant(
        "_host/common.py",
        "    memory = _lent.kept or _Memory(dispatch._LENT)\n",
        "    for _ in range(350):\n        pass\n    memory = _lent.kept or _Memory(dispatch._LENT)\n",
        ("sample 1 x 1000 float32", "gumbel_softmax 1 x 1000 float32"),
    ),
    "memory: 1.2 MiB more while rows are sampled": Plant(
        "_host/dispatch.py",
        "    plan = plan_sampling(rows, method, draw, results_of(",
        "    waste = np.ones(160_000)\n    assert waste[0]\n    plan = plan_sampling(rows, method, draw, results_of(",
        figure="memory beyond inputs and outputs of categorical 2^20 x 8 float32",
    ),
    "tail: noise from 24-bit words": Plant(
        "_scalar/gumbel.py",
        "    s = int32(x)\n    a = int32(s ^",
        "    s = int32((uint32(x) & uint32(0xFFFFFF00)) | uint32(0x80))\n    a = int32(s ^",
        figure="largest error of noise float32",
    ),
    "tail: 10 % too few beyond 2^-12": Plant(
        "_scalar/gumbel.py",
        "    t = fma(float32(a), float32(2.0**-64), float32(2.0**-65))\n",
        "    t = fma(float32(a), float32(1.1 * 2.0**-64), float32(2.0**-65))\n",
        figure="noise above 2^-16",
    ),
    "tail: no refinement": Plant(
        "_scalar/gumbel.py", "REFINE = 1 << 20\n", "REFINE = 0\n", figure="largest error of noise float32"
    ),
    "accuracy: a coefficient of the noise": Plant(
        "_scalar/gumbel.py",
        "    h = fma(h, t, float32(0.5000085234642029))\n",
        "    h = fma(h, t, float32(0.50002))\n",
        figure="largest error of noise float32",
    ),
}


def plant(folder: Path, one: Plant) -> None:
    """Edit the package in `folder`."""
    path = folder / "numbel" / one.file
    text = path.read_text()
    if text.count(one.there) != 1:
        raise SystemExit(f"{one.there!r} is not in {one.file} once")
    path.write_text(text.replace(one.there, one.instead))


def compare(cache: Path, one: Plant | None, works: list[str], figures: bool) -> list[Row]:
    """What the gate says of this checkout against itself, or against a planted copy of it."""
    with tempfile.TemporaryDirectory(prefix="numbel-proof-") as folder:
        place = Path(folder)
        folders = export(".", place / "base"), export(".", place / "head")
        if one is not None:
            plant(folders[1], one)
        rows = time_rows(folders, cache, timed(works), 8.0) if works else []
        return rows + (figure_rows(folders, cache, FAST_FIGURES) if figures else [])


def main() -> None:
    """Print a line a comparison, and the rates."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate.proof", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--plant", action="append", help="part of a plant's name; all without")
    parser.add_argument("--repeats", type=int, default=5, help="comparisons of each plant that is found by the clock")
    parser.add_argument("--unchanged", type=int, default=20, help="unchanged pairs")
    parser.add_argument("--cache", type=Path, help="where machine code is kept; without, a new temporary folder")
    options = parser.parse_args()
    cache = options.cache or Path(tempfile.mkdtemp(prefix="numbel-proof-"))
    rates = {}
    for name, one in PLANTS.items():
        if options.plant and not any(part in name for part in options.plant):
            continue
        seen, repeats = 0, options.repeats if one.works else min(1, options.repeats)
        for _ in range(repeats):
            rows = compare(cache, one, list(one.works), not one.works)
            meant = [row for row in alarms(rows) if any(part in row.what for part in (*one.works, one.figure) if part)]
            seen += bool(meant)
            texts = "; ".join(
                f"{row.what} {row.base} -> {row.head} {row.change} {row.verdict}" for row in meant or rows
            )
            print(f"{time.strftime('%T')} {name}: {'seen' if meant else 'MISSED'}: {texts}", flush=True)
        if repeats:
            rates[name] = seen, repeats
    false = 0
    for i in range(options.unchanged):
        found = alarms(compare(cache, None, list(FAST), i < 3))
        false += bool(found)
        text = "; ".join(f"{row.what} {row.change}" for row in found)
        print(f"{time.strftime('%T')} unchanged pair {i + 1}: {'ALARM ' + text if found else 'silent'}", flush=True)
    print("\n| planted | seen |\n| --- | --- |")
    for name, (seen, repeats) in rates.items():
        print(f"| {name} | {seen} of {repeats} |")
    print(f"| nothing | {false} alarms in {options.unchanged} pairs |")


if __name__ == "__main__":
    main()
