"""Measure commits on a named machine and keep the results in `benchmarks/results`.

python -m benchmarks.reference intel-sapphire-rapids-2-cores main~3 main

A small part of the suite: float32 in three regimes, each figure once. Machines are named after what they are; nothing
that identifies one is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from .suite.common import ROOT

LOCAL, KEPT = ROOT / ".asv" / "results", ROOT / "benchmarks" / "results" / "asv"
_REGIMES = r"(64 x 2\^20|65536 x 128|2\^20 x 8|1 x 2\^26) float32"
_TASKS = "'(categorical|gumbel_max|gumbel|gumbel_softmax|gumbel_softmax and gradient)"
#: What is measured of each commit, in pieces of some two minutes.
PIECES = {
    "speed": (rf"Speed\.track_time_per_category\({_TASKS} {_REGIMES}", rf"Roofline.*{_TASKS} {_REGIMES}"),
    "more speed": (
        rf"Peers.*'categorical {_REGIMES}', 'numpy",
        r"Threads.*'(categorical|gumbel_max|gumbel_softmax) 64 x 2\^20 float32', 2",
        r"Speed\.time_call\('sample 1 x 1000 float32",
        "start.Start",
    ),
    "memory": (rf"memory.*{_TASKS} 64 x 2\^20 float32",),
    "code": (
        r"CpuCode.*'(categorical|gumbel_max|gumbel_softmax) 64 x 2\^20 float32",
        r"CpuCode.*'categorical 2\^20 x 8 float32",
        r"CpuCode.*'gumbel 1 x 2\^26 float32",
    ),
    "cuda": ("CudaCode.*'float32'",),
    "first calls": (r"FirstCall.*'(categorical|gumbel_softmax|top_k)'",),
    "accuracy": ("accuracy",),
}


def neutral(machine: str, folder: Path) -> None:
    """Take out of results what tells one machine from another of its kind."""
    for path in (folder / machine).glob("*.json"):
        result = json.loads(path.read_text())
        about = result if path.name == "machine.json" else result.get("params", {})
        for name in ("os", "ram", "num_cpu", "arch", "cpu"):
            if name in about:
                about[name] = {"os": about[name].split()[0] if about[name] else ""}.get(name, about[name])
        if str(Path.home()) in (text := json.dumps(result)) or str(ROOT) in text:
            raise SystemExit(f"{path} holds a path of this machine")
        path.write_text(json.dumps(result, indent=None if path.name != "machine.json" else 1) + "\n")


def seed(machine: str) -> None:
    """Give asv the committed results of a machine, which it adds to."""
    (LOCAL / machine).mkdir(parents=True, exist_ok=True)
    for path in (KEPT / machine).glob("*.json"):
        if not (LOCAL / machine / path.name).exists():
            shutil.copy(path, LOCAL / machine)


def keep(machine: str) -> None:
    """Copy local results of a machine among those that are committed."""
    (KEPT / machine).mkdir(parents=True, exist_ok=True)
    for path in (LOCAL / machine).glob("*.json"):
        shutil.copy(path, KEPT / machine)
    shutil.copy(LOCAL / "benchmarks.json", KEPT)
    neutral(machine, KEPT)


def main() -> None:
    """Run asv on each commit, piece by piece, and keep what it found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument("machine", help="a name such as amd-zen4-2-cores; `asv machine` describes it first")
    parser.add_argument("commits", nargs="*", help="revisions; none: only copy what was measured")
    parser.add_argument("--piece", choices=PIECES, action="append", help="only these; all without")
    options = parser.parse_args()
    seed(options.machine)
    for commit in options.commits:
        for piece in options.piece or PIECES:
            chosen = [part for expression in PIECES[piece] for part in ("--bench", expression)]
            command = [
                "asv",
                "run",
                f"{commit}^!",
                "--machine",
                options.machine,
                "--quick",
                *chosen,
            ]
            print(*command, flush=True)
            done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT)
            if done.returncode not in (0, 2):  # 2: some cases failed, as those that a commit does not know do
                sys.exit(done.returncode)
    keep(options.machine)


if __name__ == "__main__":
    main()
