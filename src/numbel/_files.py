"""Logits from files and results to files: mapped where possible, and never half-written."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import _checks

Array = np.ndarray[Any, Any]


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
    return _checks.logits(array, axis)


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
        return array.view(_checks.float_dtype(dtype))
    if dtype is not None and _checks.float_dtype(dtype) != array.dtype:
        raise TypeError(f"{path} holds {array.dtype}, not {dtype}: --dtype is for raw files")
    return array


def _raw(path: Path, dtype: str | None, columns: int | None) -> Array:
    size = path.stat().st_size
    missing = [name for name, value in (("--dtype", dtype), ("--columns", columns)) if value is None]
    if dtype is None or columns is None:
        raise ValueError(f"{path} is neither .npy nor .npz: a raw file needs {' and '.join(missing)}")
    kind = _checks.float_dtype(dtype)
    if columns < 1:
        raise ValueError(f"--columns must be positive, got {columns}")
    row = columns * kind.itemsize
    if size == 0 or size % row:
        raise ValueError(f"{path} has {size} bytes, which not a whole number of rows of {columns} {kind}")
    return np.memmap(path, kind, "r").reshape(-1, columns)


@contextlib.contextmanager
def replacing(*paths: Path | None) -> Iterator[list[Path | None]]:
    """Yield a temporary path beside each of `paths`; all are renamed at the end, or removed on any failure."""
    targets = [None if path is None else _target(path) for path in paths]
    given = [target for target in targets if target is not None]
    if len(set(given)) < len(given):
        raise ValueError(f"two outputs have the same path {given[0]}")
    beside = [
        None if target is None else target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp") for target in targets
    ]
    try:
        for path in beside:
            if path is not None:
                path.touch(exist_ok=False)
        yield beside
        for path, target in zip(beside, targets, strict=True):
            if path is not None and target is not None:
                os.replace(path, target)
    except BaseException:
        for path in beside:
            if path is not None:
                path.unlink(missing_ok=True)
        raise


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
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array.view(dtype)
