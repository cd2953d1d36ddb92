"""Machine code on disk: where it lies, who may have put it there, and how it is read and written.

Numba's own cache has two faults that matter here. It does not notice an edit in another file, and two processes that
write the index of one function at once can load each other's code. So there is a file for each entry point, processor
and version, written beside and renamed, in a folder named after a hash of the kernels' sources.

Whoever can write there runs code as us. So the folder must be ours or root's, and nobody else may write to it or rename
a folder above it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


@functools.cache
def source_hash(kernels: str = "_cpu") -> str:
    """Hash of every source file that a target's machine code comes from."""
    digest = hashlib.sha256()
    here = Path(__file__)
    machinery = [_PACKAGE / "_jit.py", here.with_name("compiler.py"), here]
    for path in sorted([*machinery, *(_PACKAGE / "_scalar").rglob("*.py"), *(_PACKAGE / kernels).rglob("*.py")]):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def source_stamp(kernels: str = "_cpu") -> str:
    """Hash of the same, and of the versions that generate the code."""
    import numba

    versions = repr((numba.__version__, sys.version_info[:3], sys.implementation.cache_tag))
    return hashlib.sha256((source_hash(kernels) + versions).encode()).hexdigest()[:16]


@functools.cache
def cache_folder(kernels: str = "_cpu") -> Path | None:
    """Where a target's machine code is kept: None with NUMBEL_CACHE=0, or where none can be kept, or not safely."""
    if os.environ.get("NUMBEL_CACHE", "1") == "0":
        return None
    from numba.core import config

    try:
        # once: a relative path means the folder that the first call found itself in
        root = (Path(config.CACHE_DIR).expanduser() if config.CACHE_DIR else _user_cache()).absolute()
        folder = root / "numbel" / source_stamp(kernels)
        for each in reversed((folder, *folder.parents)):
            with contextlib.suppress(FileExistsError):
                each.mkdir(mode=0o700)  # those above, too, whatever the umask
        danger = danger_of(folder)
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    if danger is not None:
        warn_once(f"the disk cache of compiled kernels is off: {danger}")
        return None
    return folder


def danger_of(folder: Path) -> str | None:
    """What lets somebody else put code into a folder, if anything does."""
    if not hasattr(os, "getuid"):
        return None
    folder = folder.resolve()
    for each in (folder, *folder.parents):
        found = each.stat()
        if not stat.S_ISDIR(found.st_mode):
            return f"{each} is not a folder"
        if found.st_uid not in (0, os.getuid()):
            return f"{each} belongs to another user"
        others = found.st_mode & _WRITABLE
        # a group of one's own, as most systems give everybody, is not others
        if found.st_gid == os.getgid():
            others &= stat.S_IWOTH
        if others and (each == folder or not found.st_mode & stat.S_ISVTX):
            return f"others may write to {each}"
    return None


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()


def load(path: Path) -> bytes | None:
    """What `save` kept there; None if it is not there, or spoilt, or somebody else's."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or (hasattr(os, "getuid") and found.st_uid not in (0, os.getuid())):
                return None
            payload = file.read()
    except OSError:
        return None
    digest, body = payload[:32], payload[32:]
    return body if hashlib.sha256(body).digest() == digest else None


def save(path: Path, body: bytes) -> None:
    """Keep code in a file, written beside and renamed, unless that cannot be."""
    with contextlib.suppress(OSError):
        handle, beside = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(body).digest() + body)
            if path.is_dir():
                path.rmdir()
            os.replace(beside, path)
        except OSError:  # no space, or a folder with something in it in the file's place
            os.unlink(beside)


#: What was said already.
_said: set[str] = set()


def warn_once(text: str) -> None:
    """Write a warning to the log, and so to stderr where no log is set up, once in a process."""
    if text not in _said and os.environ.get("NUMBEL_QUIET", "0") in ("", "0"):
        _said.add(text)
        logging.getLogger("numbel").warning(text)
