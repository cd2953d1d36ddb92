"""Logits from files and results to files: mapped where possible, and never half-written."""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import math
import os
import secrets
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._arguments import checks

#: None on Windows, where a file that is open cannot be removed anyway.
fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

Array = np.ndarray[Any, Any]

#: Seconds after which the writer of a new file has locked it.
_SETTLED = 2.0


def read_logits(path: Path, axis: int, key: str | None, dtype: str | None, columns: int | None) -> Array:
    """Logits of a file, categories last: .npy and raw files are mapped, .npz archives read whole."""
    archive, plain = path.suffix == ".npz", path.suffix == ".npy"
    if path.exists() and not path.is_file():  # a pipe would be waited for, a folder has no bytes
        raise ValueError(f"{path} is not a regular file: it cannot be mapped")
    if key is not None and not archive:
        raise ValueError(f"--key names an array of an .npz archive, which {path} is not")
    if archive or plain:
        if columns is not None:
            raise ValueError(f"--columns is for raw files; {path} knows its shape")
        array = _npz(path, key) if archive else _npy(path)
        array = _typed(array, path, dtype)
    else:
        array = _raw(path, dtype, columns)
    return checks.logits(array, axis)


class _NoSuchArrayError(ValueError):
    """The archive is fine, and what is asked for is not in it."""


def _npy(path: Path) -> Array:
    if zipfile.is_zipfile(path):
        raise ValueError(f"{path} is an .npz archive: give it that suffix")
    with _reading(path, "an .npy file"):
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Whatever parsers of foreign bytes raise is the file's fault; what the system refuses and memory are not."""
    try:
        yield
    except _NoSuchArrayError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: {error}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is truncated, or not {what} of numbers: {reason}") from None


def _npz(path: Path, key: str | None) -> Array:
    # NumPy leaves a file open that it opened itself and cannot read
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is truncated, or not an .npz archive")
        file.seek(0)
        with _reading(path, "an .npz archive"), np.load(file, allow_pickle=False) as archive:
            name = _choose(archive.files, path, key)
            array = archive[name]
            if not isinstance(array, np.ndarray):  # NumPy hands out the bytes of other members
                raise ValueError(f"its member {name!r} is no array")
    return array


def _choose(names: list[str], path: Path, key: str | None) -> str:
    """The name of the array to read."""
    if key is None and len(names) != 1:
        raise _NoSuchArrayError(f"{path} holds {len(names)} arrays: choose one with --key: {', '.join(names)}")
    if key is not None and key not in names:
        raise _NoSuchArrayError(f"{path} has no array {key!r}; it has {', '.join(names) or 'none'}")
    return names[0] if key is None else key


def _typed(array: Array, path: Path, dtype: str | None) -> Array:
    """`array` as `dtype`, which is needed for bfloat16 only: NumPy's files keep it as two nameless bytes."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:
        if dtype is None:
            raise TypeError(f"{path} holds two-byte items without a type: say --dtype bfloat16 or float16")
        return array.view(checks.float_dtype(dtype))
    if dtype is not None and checks.float_dtype(dtype) != array.dtype:
        raise TypeError(f"{path} holds {array.dtype}, not {dtype}: --dtype is for raw files")
    return array


def _raw(path: Path, dtype: str | None, columns: int | None) -> Array:
    size = path.stat().st_size
    missing = [name for name, value in (("--dtype", dtype), ("--columns", columns)) if value is None]
    if dtype is None or columns is None:
        raise ValueError(f"{path} is neither .npy nor .npz: a raw file needs {' and '.join(missing)}")
    kind = checks.float_dtype(dtype)
    if columns < 1:
        raise ValueError(f"--columns must be positive, got {columns}")
    row = columns * kind.itemsize
    if size == 0 or size % row:
        raise ValueError(f"{path} has {size} bytes, which not a whole number of rows of {columns} {kind}")
    return np.memmap(path, kind, "r").reshape(-1, columns)


@contextlib.contextmanager
def replacing(*paths: Path | None) -> Iterator[list[Path | None]]:
    """Yield a temporary path beside each of `paths`; all are renamed at the end, or removed on any failure.

    What a killed process left beside them is removed first: a lock tells it from what another one is writing.
    """
    targets = [None if path is None else _target(path) for path in paths]
    given = [target for target in targets if target is not None]
    if len(set(given)) < len(given):
        raise ValueError(f"two outputs have the same path {given[0]}")
    beside: list[Path | None] = [None] * len(targets)
    named = {}
    with contextlib.ExitStack() as held:
        try:
            for at, (path, target) in enumerate(zip(paths, targets, strict=True)):
                if path is not None and target is not None:
                    _remove_left(target)
                    beside[at] = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
                    named[str(beside[at])] = str(path)
                    held.callback(_locked(beside[at]))  # type: ignore[arg-type]
            yield beside
            for new, target in zip(beside, targets, strict=True):
                if new is not None and target is not None:
                    os.replace(new, target)
        except BaseException as error:
            for new in beside:
                if new is not None:
                    new.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None:
                name = named.get(str(error.filename), error.filename)
                if name is None and len(named) == 1:  # what write(2) refuses has no name
                    (name,) = named.values()
                if name is not None:
                    raise OSError(error.errno, error.strerror, name) from None
            raise


def _locked(path: Path) -> Callable[[], None]:
    """Make a file and hold a lock on it; what lets go of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return functools.partial(os.close, descriptor)


def _remove_left(target: Path) -> None:
    """Remove temporary files of `target` whose writers are gone: nobody holds their locks."""
    if fcntl is None:
        return
    for path in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                # made a moment ago, it may be about to be locked
                if time.time() - os.fstat(descriptor).st_mtime > _SETTLED:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(descriptor)


def _target(path: Path) -> Path:
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise ValueError(f"{path}: its folder does not exist")
    # a device such as /dev/null must not be replaced by a file
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise ValueError(f"{path} exists and is not a regular file")
    return target


def new_array(path: Path | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """Map a new .npy file of this shape; what does not fit on the disk is refused before anything is computed."""
    if path is None:
        return None
    stored = np.dtype("V2") if dtype.name == "bfloat16" else dtype
    if math.prod(shape) * dtype.itemsize >= 1 << 62:
        raise ValueError(f"a result of shape {shape} fits on no disk")
    if 0 in shape:
        empty = np.empty(shape, stored)
        with path.open("wb") as file:
            np.save(file, empty)
        return empty.view(dtype)
    array = np.lib.format.open_memmap(path, "w+", stored, shape)
    if hasattr(os, "posix_fallocate"):
        # a full disk would otherwise end the process with SIGBUS in the middle of a kernel
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None
    return array.view(dtype)
