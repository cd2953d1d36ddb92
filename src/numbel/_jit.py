"""The one jit decorator: compile options, the machine-code cache, and when a kernel may run in parallel.

Numba's own disk cache has two faults that matter here: it does not notice an edit in another file, and
two processes that write the index of one function at once can load each other's code. So kernels get a
cache of ours: one file per (function, signature, CPU, versions), written beside and renamed, in a folder
named after a hash of the kernels' sources.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core import caching, config, lowering, serialize, typed_passes
from numba.core.compiler import Compiler, CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass

_PACKAGE = Path(__file__).parent


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Vectors as wide as the registers: LLVM holds most Intel cores with AVX-512 to 256 bits.

    On such a core noise goes from 1.35 to 1.63 G/s, grouped sampling from 2.2 to 3.9 (from memory) and from 5.0 to 6.2
    (from cache); gumbel_max loses a tenth.
    """

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        # past llvmlite's list of known attributes, which has none with a value
        set.add(self.function.attributes, '"prefer-vector-width"="512"')


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):  # type: ignore[misc]
    _name = "numbel_native_lowering"
    lowering_class = _Lower


class _LowerApart(_Lower):
    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        self.function.attributes.add("noinline")


@register_pass(mutates_CFG=True, analysis_only=False)
class _LoweringApart(typed_passes.NativeLowering):  # type: ignore[misc]
    _name = "numbel_native_lowering_apart"
    lowering_class = _LowerApart


class _WideCompiler(Compiler):  # type: ignore[misc]
    lowering: Any = _Lowering

    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (self.lowering if each is typed_passes.NativeLowering else each, text) for each, text in pipeline.passes
            ]
        return pipelines


class _ApartCompiler(_WideCompiler):
    lowering = _LoweringApart


#: Workers. No fastmath: -inf and NaN are ordinary input, and the order of sums is promised.
njit = numba.njit(error_model="numpy", nogil=True, pipeline_class=_WideCompiler)
#: Workers' parts that are called from several places, once a row or block: copied into each, they triple the time that
#: a first call takes.
apart = numba.njit(
    error_model="numpy", nogil=True, pipeline_class=_ApartCompiler, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
#: Scalars, inlined by force: a call left in a loop keeps it from being vectorised (0.6 against 4 G/s).
inlined = numba.njit(error_model="numpy", nogil=True, forceinline=True)


@functools.cache
def source_stamp(target: str = "_cpu") -> str:
    """Hash of every source file that a target's machine code comes from, and of the versions that generate it."""
    digest = hashlib.sha256()
    sources = [_PACKAGE / "_jit.py", *(_PACKAGE / "_scalar").rglob("*.py"), *(_PACKAGE / target).rglob("*.py")]
    for path in sorted(sources):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    digest.update(repr((numba.__version__, sys.version_info[:3], sys.implementation.cache_tag)).encode())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder(target: str = "_cpu") -> Path | None:
    """Where a target's machine code is kept: None with NUMBEL_CACHE=0, or when nothing can be written there."""
    if os.environ.get("NUMBEL_CACHE", "1") == "0":
        return None
    root = Path(config.CACHE_DIR) / "numbel" if config.CACHE_DIR else _user_cache() / "numbel"
    folder = root / source_stamp(target)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):
        return None
    return folder


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def load(path: Path) -> Any:
    """What `save` kept there, unpickled; None if it is not there, or spoilt."""
    try:
        payload = path.read_bytes()
    except OSError:
        return None
    digest, body = payload[:32], payload[32:]
    return pickle.loads(body) if hashlib.sha256(body).digest() == digest else None


def save(path: Path, body: bytes) -> None:
    """Keep pickled code in a file, written beside and renamed, unless that cannot be."""
    with contextlib.suppress(OSError):
        handle, beside = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(beside, path)


class _KernelCache(caching.NullCache):  # type: ignore[misc]
    """Machine code on disk; whatever goes wrong with it, the kernel is compiled instead."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _path(self, signature: Any, context: Any) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        key = repr((self._name, signature, context.codegen().magic_tuple()))
        return folder / f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        target_context.refresh()
        path = self._path(signature, target_context)
        states = load(path) if path is not None else None
        return CompileResult._rebuild(target_context, *states) if states is not None else None

    def save_overload(self, signature: Any, cres: Any) -> None:
        path = self._path(signature, cres.target_context)
        if path is not None:
            save(path, serialize.dumps(cres._reduce()))


def kernel(function: Callable[..., Any], name: str, *, parallel: bool) -> Any:
    """Compile an entry point, with the disk cache."""
    # Numba tells symbols apart by qualified name and a count within the process. Two kernels compiled by two
    # processes may have the same count, and a third, which loads both, would call one for the other.
    function.__name__ = function.__qualname__ = name
    dispatcher = numba.njit(error_model="numpy", nogil=True, parallel=parallel)(function)
    dispatcher._cache = _KernelCache(name)
    return dispatcher


# One guard for all threading layers. workqueue aborts the process when two Python threads enter it; GNU
# OpenMP kills a forked child that enters it. Serial code gives the same bits, so both cases fall back.
_guard = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _guard, _forked
    _guard = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    # a child forked while another thread compiles would wait for Numba's lock for ever
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def _layer() -> str | None:
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None  # not started yet


@contextlib.contextmanager
def parallel_allowed() -> Iterator[bool]:
    """Whether a parallel kernel may be entered now; hold the context while it runs."""
    if _forked and _layer() is not None:
        yield False
        return
    if _layer() in ("omp", "tbb"):
        yield True
        return
    # the first call starts the layer, and workqueue takes one caller at a time
    guard = _guard
    if not guard.acquire(blocking=False):
        yield False
        return
    try:
        yield True
    finally:
        guard.release()
