"""Write the tables of README.md and docs/performance.md from committed results.

python -m benchmarks.figures            # rewrite them
python -m benchmarks.figures --check    # 1 if they differ from the results

A table stands between `<!-- figures: KIND MACHINE -->` and `<!-- end -->`; MACHINE is that of a `numbel bench` report,
or of a map (`numbel bench --map`).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from typing import Any

from .dashboard.data import RESULTS, parts, reports
from .suite.common import LIMITS, ROOT, bench

PAGES = ("README.md", "docs/performance.md")
_BLOCK = re.compile(r"(<!-- figures: (\S+) (\S+) -->\n)(.*?)(<!-- end -->)", re.S)
Works = dict[str, dict[str, dict[str, float]]]

#: What columns of peers are called, and the libraries that may stand in them.
_PEERS = {
    "numpy Gumbel": ("numpy gumbel + argmax", "numpy gumbel, float64"),
    "numpy inverse CDF": ("numpy exp + cumsum + searchsorted",),
    "torch inverse CDF": ("torch softmax + cumsum + searchsorted",),
    "torch multinomial": ("torch softmax + multinomial",),
    "jax": ("jax categorical", "jax gumbel", "jax softmax(x + gumbel)"),
}
_GOALS = {
    "sample 64 x 2^20 float32": "0.80",
    "categorical 64 x 2^20 float32": "0.80",
    "sample 1 x 2^26 float32": "0.80",
    "categorical 1 x 2^26 float32": "0.80",
    "categorical 64 x 2^20 bfloat16": "1.3 x float32",
    "categorical 64 x 2^20 float16": "1.3 x float32",
    "gumbel_max 64 x 2^20 float32": "0.75",
    "gumbel 1 x 2^26 float32": "0.40",
}
_FLOAT32 = "categorical 64 x 2^20 float32"
#: What the README shows of a map: cells of each kind, those that fall short included.
_CHOSEN = (
    *(("categorical", shape) for shape in ("1 x 32", "1 x 1024", "32 x 1024", "32 x 2^15", "32 x 2^20", "2^20 x 2")),
    *((f"categorical, {name}", "32 x 2^15") for name in ("top_k=50", "top_p=0.9", "1000 samples")),
    *((name, "32 x 2^20") for name in ("sample", "gumbel", "gumbel_softmax", "gumbel_top_k, 100", "entropy")),
)


def _millions(rate: dict[str, float]) -> str:
    return f"{rate['per_second'] / 1e6:,.0f}"


def _times(row: dict[str, dict[str, float]], libraries: tuple[str, ...]) -> str:
    """How many times as fast numbel is as the first of some libraries that was measured."""
    for library in libraries:
        if library in row:
            times = row["numbel"]["per_second"] / row[library]["per_second"]
            return f"{times:.0f}" if times >= 20 else f"{times:.1f}"
    return ""


def _limit(row: dict[str, dict[str, float]]) -> str:
    """What bounds a work: Philox where it was measured, else reading."""
    return next((one for one in reversed(LIMITS) if one in row), "")


def _table(*lines: list[str]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rest)) + "\n"


def limits(works: Works) -> str:
    """Rates against limits and goals."""
    lines = [["work", "M/s", "limit", "ratio", "goal"]]
    for work, row in works.items():
        if work not in _GOALS:
            continue
        limit = _limit(row)
        ratio = f"{row['numbel']['per_second'] / row[limit]['per_second']:.2f}"
        if _GOALS[work].endswith("float32") and _FLOAT32 in works:
            ratio += f"; {row['numbel']['per_second'] / works[_FLOAT32]['numbel']['per_second']:.2f} x float32"
        lines.append([f"`{work}`", _millions(row["numbel"]), f"{limit} {_millions(row[limit])}", ratio, _GOALS[work]])
    return _table(*lines)


_LONG = ("64 x 2^20", "1 x 2^26")
#: What is to be reached: its name, the works and what they are compared with (a library, "M/s", "us" a call, or the
#: float32 work), the least (for "us" the most). What peers do is in the map.
GOALS: tuple[tuple[str, tuple[str, ...], str, float], ...] = (
    ("`sample`, of reading memory", tuple(f"sample {size} float32" for size in _LONG), "read", 0.8),
    ("`categorical`, of reading memory", tuple(f"categorical {size} float32" for size in _LONG), "read", 0.8),
    (
        "bfloat16, float16 over float32",
        ("categorical 64 x 2^20 bfloat16", "categorical 64 x 2^20 float16"),
        "float32",
        1.3,
    ),
    ('`method="gumbel_max"`, of Philox', ("gumbel_max 64 x 2^20 float32",), "philox", 0.75),
    ("`gumbel`, of Philox", ("gumbel 1 x 2^26 float32",), "philox", 0.4),
    ("`gumbel_top_k`, k = 100, of gumbel_max", ("gumbel_top_k 100 64 x 2^20 float32",), "numbel gumbel_max", 0.5),
    (
        "`top_k=50`, `top_p=0.9`, `min_p=0.05`, of the untruncated rate",
        ("top_k 256 x 2^17 float32", "top_p 256 x 2^17 float32", "min_p 256 x 2^17 float32"),
        "numbel untruncated",
        0.4,
    ),
    ("building a table, M/s", ("table 1 x 2^20 float32",), "M/s", 100),
    ("a warm call of 1 x 1000, us", ("sample 1 x 1000 float32",), "us", 25),
)


def _reached(works: Works, work: str, against: str) -> float | None:
    """A figure to hold against a goal, if it was measured."""
    row = works.get(work, {})
    if against == "float32":
        against, row = "other", {**row, "other": works.get(_FLOAT32, {}).get("numbel", {})}
    if "numbel" not in row:
        return None
    if against == "M/s":
        return row["numbel"]["per_second"] / 1e6
    if against == "us":
        return row["numbel"]["items"] / row["numbel"]["per_second"] * 1e6
    return row["numbel"]["per_second"] / row[against]["per_second"] if row.get(against) else None


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 3 else f"{value:.2f}"


def goals(works: Works) -> str:
    """Every goal with what was measured, and the command that measures it."""
    lines = [["goal", "at least", "measured", "met", "command"]]
    for name, at, against, least in GOALS:
        found = [value for value in (_reached(works, work, against) for work in at) if value is not None]
        if not found:
            continue
        met = [value <= least if against == "us" else value >= least for value in found]
        verdict = "yes" if all(met) else "no" if not any(met) else "in part"
        asked = " ".join(f'"{one}"' for one in (at if len(at) == 1 else dict.fromkeys(parts(work)[0] for work in at)))
        bound = f"at most {least:g}" if against == "us" else f"{least:g}"
        measured_text = " / ".join(map(_two_digits, found))
        lines.append([name, bound, measured_text, verdict, f"`numbel bench {asked}`"])
    return _table(*lines)


Cells = list[dict[str, Any]]


def _by_shape(cells: Cells) -> dict[str, dict[str, dict[str, Any]]]:
    """Cells as {shape: {method: cell}}, in the order of the map."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell["rows"], cell["columns"])):
        found.setdefault(bench.shape_map.shape(cell), {})[cell["method"]] = cell
    return found


def ratios(cells: Cells) -> str:
    """Every method at every shape, over the best peer there."""
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    shapes = _by_shape(cells).items()
    rows = ([at, *(bench.shape_map.text(row.get(method)) for method in methods)] for at, row in shapes)
    return _table(["rows x columns", *methods], *rows)


def strongest(cells: Cells) -> str:
    """`categorical` beside the best peer of each shape, by its name, and the best of each kind at a first look."""
    kinds = ("numba", "numpy", "torch", "torch compiled", "jax")
    lines = [
        ["rows x columns", "numbel, us", "best peer", "times its speed", "of reading", *(f"/ {kind}" for kind in kinds)]
    ]
    for at, row in _by_shape(cells).items():
        cell = row.get("categorical", {})
        found = bench.shape_map.verdict(cell)
        if found.ratio is None:
            continue
        ours = statistics.median(cell["seconds"]["numbel"])
        best: dict[str, float] = {}
        for name, seconds in cell["looked"].items():
            kind = next(kind for kind in reversed(kinds) if name.replace("scipy", "numpy").startswith(kind))
            best[kind] = min(seconds, best.get(kind, seconds))
        low, median, high = map(_two_digits, found.ratio)
        fraction = f"{found.fraction.median:.2f}" if found.fraction else ""
        others = (_two_digits(best[kind] / ours) if kind in best else "" for kind in kinds)
        lines.append([at, _two_digits(1e6 * ours), found.peer, f"{median} ({low} to {high})", fraction, *others])
    return _table(*lines)


def chosen(cells: Cells) -> str:
    """Some cells, each beside the strongest of its peers."""
    lines = [["method", "rows x columns", "numbel, us", "strongest peer", "times its speed"]]
    found = _by_shape(cells)
    for method, at in _CHOSEN:
        cell = found.get(at, {}).get(method, {})
        verdict = bench.shape_map.verdict(cell)
        if verdict.ratio is not None:
            ours = _two_digits(1e6 * statistics.median(cell["seconds"]["numbel"]))
            low, median, high = map(_two_digits, verdict.ratio)
            lines.append([f"`{method}`", at, ours, verdict.peer, f"{median} ({low} to {high})"])
    return _table(*lines)


def slower(cells: Cells) -> str:
    """The cells of each method that are slower than the best peer, by name."""
    lines = [["method", "slower than the best peer", "undecided"]]
    for method in dict.fromkeys(cell["method"] for cell in cells):
        own = [(cell, bench.shape_map.verdict(cell)) for row in _by_shape(cells).values() if (cell := row.get(method))]

        def named(some: list[tuple[dict[str, Any], Any]]) -> str:
            return ", ".join(f"{bench.shape_map.shape(cell)} ({found.ratio.median:.2f})" for cell, found in some)

        below = named([one for one in own if one[1].below])
        lines.append([method, below or "none", named([one for one in own if one[1].undecided]) or "none"])
    return _table(*lines)


KINDS: dict[str, Callable[[Works], str]] = {"limits": limits, "goals": goals}
#: Kinds of tables from a map.
MAPS: dict[str, Callable[[Cells], str]] = {"ratios": ratios, "strongest": strongest, "slower": slower, "chosen": chosen}


def _of_map(kind: str, machine: str) -> str:
    path = RESULTS / "map" / f"{machine}.json"
    if not path.exists():
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        return f"Not measured yet: `numbel bench --map --json {name}`.\n"
    report = json.loads(path.read_text())
    config = report["config"]
    about = ", ".join(
        f"{name} {config[name]}" for name in ("numba", "numpy", "torch", "jax", "scipy") if name in config
    )
    return (
        MAPS[kind](report["cells"]) + f"\n({machine}, {report['time'][:10]}, {config['threads']} threads, {about}.)\n"
    )


def rewritten(text: str) -> str:
    """A page with its tables made anew."""
    known = reports()

    def block(match: re.Match[str]) -> str:
        start, kind, machine, _, end = match.groups()
        if kind in MAPS:
            return f"{start}\n{_of_map(kind, machine)}\n{end}"
        if kind not in KINDS or machine not in known:
            raise SystemExit(f"figures: {kind} {machine}: there are {', '.join(KINDS)}, of {', '.join(known)}")
        works: dict[str, Any] = {work: row for work, row in known[machine]["works"].items() if "numbel" in row}
        return f"{start}\n{KINDS[kind](works)}\n{end}"

    return _BLOCK.sub(block, text)


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the pages, or say which differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a table is not that of the results")
    check = parser.parse_args(arguments).check
    stale = []
    for name in PAGES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        new = rewritten(text)
        if new != text:
            stale.append(name)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'differ' if check else 'rewritten'}: {', '.join(stale)}" if stale else "nothing to rewrite")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
