"""Machine code that a wheel brings: one shared library for each instruction set, and a list of them.

A library holds every entry point of the CPU kernels, for all dtypes, and needs neither Numba nor LLVM: only functions
of the C library. It is used if it was built from the sources that lie beside it, is undamaged, if the processor has
its instructions, and if nobody else can write to its folder. Else, and where an entry point is missing, kernels are
compiled when they are first called. The bits are the same.

`numbel._host.build` makes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple

from . import kernel_cache

FOLDER = Path(__file__).parent.parent / "_kernels"
LIST = "list.json"

#: What the processor must have, in the words of Linux, for each instruction set of x86-64; the best first.
_V3 = ("avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_FLAGS: dict[str, tuple[str, ...]] = {"x86-64-v4": _V4, "x86-64-v3": _V3, "aarch64": ()}


class Prebuilt(NamedTuple):
    """The library in use, or why there is none."""

    target: str | None  # instruction set
    library: ctypes.CDLL | None
    numba: str  # the version whose threads it starts
    reason: str  # why there is none


def _none(reason: str) -> Prebuilt:
    return Prebuilt(None, None, "", reason)


@functools.cache
def prebuilt() -> Prebuilt:
    """The library for this processor, or for the instruction set that NUMBEL_PREBUILT names; 0 turns it off."""
    asked = os.environ.get("NUMBEL_PREBUILT", "1")
    if asked == "0":
        return _none("NUMBEL_PREBUILT=0")
    try:
        known = json.loads((FOLDER / LIST).read_text())
        digests: dict[str, str] = known["libraries"]
        with contextlib.suppress(OSError):  # a frozen application has no sources
            if known["sources"] != kernel_cache.source_hash():
                return _none("the sources are not those that they were built from")
        danger = kernel_cache.danger_of(FOLDER)
        if danger is not None:
            return _none(danger)
        for target in targets():
            if target in digests and asked in ("", "1", target):
                path = FOLDER / f"{target}.so"
                if hashlib.sha256(path.read_bytes()).hexdigest() != digests[target]:
                    return _none(f"{path.name} is damaged")
                return Prebuilt(target, ctypes.CDLL(str(path)), str(known["numba"]), "")
    except FileNotFoundError:
        return _none("this installation brings none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return _none(f"{type(error).__name__}: {error}")
    return _none("none is for this processor")


def targets() -> tuple[str, ...]:
    """The instruction sets that this processor has, the best first."""
    machine = platform.machine().lower()
    if sys.platform != "linux":
        return ()
    if machine in ("aarch64", "arm64"):
        return ("aarch64",)
    if machine not in ("x86_64", "amd64"):
        return ()
    flags = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                break
    return tuple(name for name in ("x86-64-v4", "x86-64-v3") if flags.issuperset(_FLAGS[name]))


@functools.cache
def starts_threads() -> bool:
    """Whether the installed Numba is the one that a library starts the threads of: its interface is not public."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("numba") == prebuilt().numba
    return False


def address(name: str) -> int | None:
    """The address of an entry point's C function, if a library brings it."""
    library = prebuilt().library
    function = getattr(library, f"numbel_{name}", None) if library is not None else None
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value
