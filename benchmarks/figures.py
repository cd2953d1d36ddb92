"""Write the tables of README.md and docs/performance.md from committed results.

python -m benchmarks.figures            # rewrite them
python -m benchmarks.figures --check    # 1 if they differ from the results

A table stands between `<!-- figures: KIND MACHINE -->` and `<!-- end -->`; MACHINE is that of a `numbel bench` report.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from .dashboard.data import parts, reports
from .suite.common import LIMITS, ROOT

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
#: What the README shows: one work of each kind, those that fall short included.
_CHOSEN = (
    "sample 64 x 2^20 float32",
    "categorical 1 x 2^26 float32",
    "categorical 64 x 2^20 bfloat16",
    "categorical 65536 x 128 float32",
    "categorical 2^20 x 8 float32",
    "top_k 256 x 2^17 float32",
    "top_p 256 x 2^17 float32",
    "gumbel_top_k 100 64 x 2^20 float32",
    "4 samples a category 1 x 2^20 float32",
    "multinomial of 2^40 1 x 2^20 float32",
    "gumbel 1 x 2^26 float32",
    "gumbel_softmax 64 x 2^20 float32",
    "gumbel_softmax and gradient 64 x 2^20 float32",
    "logsumexp 64 x 2^20 float32",
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


def strongest(works: Works) -> str:
    """Rates, and how many times as fast as each peer, the strongest first."""
    lines = [["work", "numbel M/s", "strongest peer", "second"]]
    for work in _CHOSEN:
        row = works.get(work, {})
        peers = [name for name in row if not name.startswith("numbel") and name not in LIMITS]
        peers.sort(key=lambda name: -row[name]["per_second"])
        if peers:
            times = [f"{_times(row, (name,))} x {name}" for name in peers[:2]]
            lines.append([f"`{work}`", _millions(row["numbel"]), *times, *[""] * (2 - len(times))])
    return _table(*lines)


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


def peers(works: Works) -> str:
    """How many times as fast as each peer."""
    lines = [["work", *_PEERS]]
    for work, row in works.items():
        ratios = [_times(row, libraries) for libraries in _PEERS.values()]
        if any(ratios) and not work.startswith("gumbel_softmax"):
            lines.append([f"`{work}`", *ratios])
    return _table(*lines)


def relaxed(works: Works) -> str:
    """Relaxed samples and their gradients."""
    lines = [["work, float32", "numbel M/s", "numbel.torch M/s", "of Philox", "numbel / torch", "numbel / jax"]]
    for work, row in works.items():
        if not work.startswith("gumbel_softmax"):
            continue
        task, size, _ = parts(work)
        philox = row.get("philox")
        of = f"{row['numbel']['per_second'] / philox['per_second']:.2f}" if philox else ""
        ratios = [_times(row, (name,)) for name in ("torch gumbel_softmax", "jax softmax(x + gumbel)")]
        through = _millions(row["numbel.torch"]) if "numbel.torch" in row else ""
        lines.append([f"`{task}`, {size}", _millions(row["numbel"]), through, of, *ratios])
    return _table(*lines)


_LONG = ("64 x 2^20", "1 x 2^26")
_SHORT = ("65536 x 128", "2^20 x 8")
_TORCH_CDF, _MULTINOMIAL = "torch softmax + cumsum + searchsorted", "torch softmax + multinomial"
_TORCH_RELAXED, _JAX_RELAXED = "torch gumbel_softmax", "jax softmax(x + gumbel)"
_SORT = "torch sort + cumsum + multinomial"
#: What is to be reached: its name, the works and what they are compared with (a library, "M/s", "us" a call, or the
#: float32 work), the least (for "us" the most).
GOALS: tuple[tuple[str, tuple[str, ...], str, float], ...] = (
    ("`sample`, of reading memory", tuple(f"sample {size} float32" for size in _LONG), "read", 0.8),
    ("`categorical`, of reading memory", tuple(f"categorical {size} float32" for size in _LONG), "read", 0.8),
    ("the same over torch's inverse CDF", tuple(f"categorical {size} float32" for size in _LONG), _TORCH_CDF, 20),
    ("over `torch.multinomial`", tuple(f"categorical {size} float32" for size in _LONG), _MULTINOMIAL, 120),
    (
        "bfloat16, float16 over float32",
        ("categorical 64 x 2^20 bfloat16", "categorical 64 x 2^20 float16"),
        "float32",
        1.3,
    ),
    ('`method="gumbel_max"`, of Philox', ("gumbel_max 64 x 2^20 float32",), "philox", 0.75),
    ("`gumbel`, of Philox", ("gumbel 1 x 2^26 float32",), "philox", 0.4),
    ("`gumbel` over jax's", ("gumbel 1 x 2^26 float32",), "jax gumbel", 20),
    ("short rows over `torch.multinomial`", tuple(f"categorical {size} float32" for size in _SHORT), _MULTINOMIAL, 25),
    ("short rows over jax", tuple(f"categorical {size} float32" for size in _SHORT), "jax categorical", 10),
    (
        "`gumbel_softmax` over torch's",
        tuple(f"gumbel_softmax {size} float32" for size in (_LONG[0], *_SHORT)),
        _TORCH_RELAXED,
        25,
    ),
    (
        "`gumbel_softmax` over jax's",
        tuple(f"gumbel_softmax {size} float32" for size in (_LONG[0], *_SHORT)),
        _JAX_RELAXED,
        10,
    ),
    (
        "with its gradient over torch's",
        tuple(f"gumbel_softmax and gradient {size} float32" for size in (_LONG[0], *_SHORT)),
        _TORCH_RELAXED,
        20,
    ),
    ("`gumbel_top_k`, k = 100, of gumbel_max", ("gumbel_top_k 100 64 x 2^20 float32",), "numbel gumbel_max", 0.5),
    (
        "over `torch.multinomial(replacement=False)`",
        ("gumbel_top_k 100 64 x 2^20 float32",),
        "torch multinomial(replacement=False)",
        20,
    ),
    (
        "over `jax.random.choice(replace=False)`",
        ("gumbel_top_k 100 64 x 2^20 float32",),
        "jax choice(replace=False)",
        20,
    ),
    (
        "`top_k=50`, `top_p=0.9`, `min_p=0.05`, of the untruncated rate",
        ("top_k 256 x 2^17 float32", "top_p 256 x 2^17 float32", "min_p 256 x 2^17 float32"),
        "numbel untruncated",
        0.4,
    ),
    (
        "the same over torch's sort",
        ("top_k 256 x 2^17 float32", "top_p 256 x 2^17 float32", "min_p 256 x 2^17 float32"),
        _SORT,
        15,
    ),
    ("4M draws of one row over numpy's choice", ("4 samples a category 1 x 2^20 float32",), "numpy choice", 15),
    ("building a table, M/s", ("table 1 x 2^20 float32",), "M/s", 100),
    ("`multinomial(2^40)` over numpy's", ("multinomial of 2^40 1 x 2^20 float32",), "numpy multinomial", 5),
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


KINDS: dict[str, Callable[[Works], str]] = {
    "strongest": strongest,
    "limits": limits,
    "peers": peers,
    "relaxed": relaxed,
    "goals": goals,
}


def rewritten(text: str) -> str:
    """A page with its tables made anew."""
    known = reports()

    def block(match: re.Match[str]) -> str:
        start, kind, machine, _, end = match.groups()
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
