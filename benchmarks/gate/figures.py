"""A process that finds what needs no clock, of one version: memory, accuracy, machine code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..suite import common
from ..suite.common import ABSENT
from .sides import Side


def found(request: dict[str, Any]) -> dict[str, Any]:
    """Figures by kind and name; what this version cannot give is left out."""
    from ..suite import accuracy, code, memory  # of the table that is in `common` now

    answer: dict[str, Any] = {"memory": {}, "error": {}, "tail": {}, "code": {}}

    def put(kind: str, name: str, make: Any) -> None:
        try:
            answer[kind][name] = make()
        except (*ABSENT, NotImplementedError) as error:
            print(f"{kind} {name}: {error}", file=sys.stderr)

    for work in request["memory"]:
        put("memory", work, lambda work=work: memory.beyond(work))
    for function in ("exp", "log", "log1p"):
        for dtype in ("float32", "float64"):
            put("error", f"{function} {dtype}", lambda f=function, d=dtype: accuracy.elementary_error(f, d))
    put("error", "noise float32", accuracy.noise_error)
    put("error", "sample", accuracy.sample_errors)
    for name, error in answer["error"].pop("sample", {}).items():
        answer["error"][f"{name} float32"] = error
    put("tail", "all", lambda: accuracy.exceedances(request["values"]))
    answer["tail"] = answer["tail"].pop("all", {})
    for work in request["code"]:
        put("code", work, lambda work=work: code.kernels(work))
    return answer


def main() -> None:
    """Answer one request, of one side under its own name: its machine code is on disk already."""
    request = json.load(sys.stdin)
    side = Side(request["name"], Path(request["folder"]), Path(request["cache"]))
    common.bench = side.table
    with side.active():
        print(json.dumps(found(request)))


if __name__ == "__main__":
    main()
