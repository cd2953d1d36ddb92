"""Compiled code on disk: loaded again, shared by processes that start at once, never stale, never needed.

Counted, not timed: numba tells of each compilation. The cheapest kernel serves: float32 noise.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config

import numbel
from numbel._cpu import drivers
from numbel._machine_code import entries, kernel_cache

_SCRIPT = """
import sys
from numba.core import event
counter = event.RecordingListener()
with event.install_listener("numba:compile", counter):
    import numbel
    imported = len(counter.buffer)
    noise = numbel.Generator(5).gumbel(size=5)
compiled = sum(e.is_start for _, e in counter.buffer)
print(imported, compiled, noise.tobytes().hex(), numbel.__file__)
"""


def environment(**changes):
    """This process's environment without cache settings, with one thread, changed as told."""
    left_out = ("NUMBA_CACHE_DIR", "NUMBEL_CACHE", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"NUMBA_NUM_THREADS": "1"} | {name: str(value) for name, value in changes.items()}


def start(**changes):
    """A process that draws five values and says what it compiled for them."""
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """(functions compiled, noise in hexadecimal, file of the package)."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    imported, compiled, noise, file = output.split()
    assert imported == "0"
    return int(compiled), noise, file


def draw(**changes):
    """`start` and `finish`."""
    return finish(start(**changes))


@pytest.fixture(scope="module")
def noise():
    """What every process must draw."""
    return numbel.Generator(5).gumbel(size=5).tobytes().hex()


@pytest.fixture(scope="module")
def filled(tmp_path_factory, noise):
    """A cache folder that several processes filled at once."""
    folder = tmp_path_factory.mktemp("cache")
    together = [finish(process) for process in [start(NUMBA_CACHE_DIR=folder) for _ in range(3)]]
    assert [drawn for _, drawn, _ in together] == [noise] * 3
    assert any(compiled for compiled, _, _ in together)
    return folder


def files(folder):
    """The cache's files."""
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@pytest.mark.long
def test_processes_that_start_at_once_leave_one_file(filled):
    (file,) = files(filled)
    assert file.name.startswith("noise_float32_float32-")
    assert file.suffix == ".bin"


@pytest.mark.long
def test_the_second_process_compiles_nothing(filled, noise):
    before = {file: file.stat().st_mtime_ns for file in files(filled)}
    for _ in range(2):
        assert draw(NUMBA_CACHE_DIR=filled)[:2] == (0, noise)
    assert {file: file.stat().st_mtime_ns for file in files(filled)} == before


@pytest.mark.long
def test_the_cache_is_for_one_cpu(filled, noise, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "cache")
    compiled, drawn, _ = draw(NUMBA_CACHE_DIR=folder, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert compiled > 0
    assert drawn == noise
    assert len(files(folder)) == 2


@pytest.mark.long
@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "foreign"])
def test_a_damaged_file_is_ignored_and_replaced(damage, filled, noise, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "cache")
    (file,) = files(folder)
    sound = file.read_bytes()
    changed = bytearray(sound)
    changed[len(sound) // 2] ^= 1
    file.write_bytes(
        {"empty": b"", "cut": sound[:-100], "changed": bytes(changed), "foreign": b"not ours " * 99}[damage]
    )
    compiled, drawn, _ = draw(NUMBA_CACHE_DIR=folder)
    assert compiled > 0
    assert drawn == noise
    assert draw(NUMBA_CACHE_DIR=folder)[:2] == (0, noise)


@pytest.mark.long
def test_no_writable_folder(noise, tmp_path):
    file = tmp_path / "file"
    file.write_text("permissions do not stop root; a path below a file does")
    processes = [start(NUMBA_CACHE_DIR=file / "x", HOME=file / "home"), start(HOME=file / "home")]
    for process in processes:
        compiled, drawn, _ = finish(process)
        assert compiled > 0
        assert drawn == noise
    assert file.is_file()


@pytest.mark.long
def test_switched_off(filled, noise, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "cache")
    before = files(folder)
    compiled, drawn, _ = draw(NUMBA_CACHE_DIR=folder, NUMBEL_CACHE="0")
    assert compiled > 0
    assert drawn == noise
    assert files(folder) == before


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="where the cache lies is another matter elsewhere")
def test_where_it_lies(filled, tmp_path, noise):
    (file,) = files(filled)
    stamp = file.parent.name
    for changes, root in (
        ({"XDG_CACHE_HOME": tmp_path / "xdg"}, tmp_path / "xdg"),
        ({"HOME": tmp_path / "home"}, tmp_path / "home" / ".cache"),
    ):
        (root / "numbel" / stamp).mkdir(parents=True)
        shutil.copy(file, root / "numbel" / stamp)
        assert draw(**changes)[:2] == (0, noise)


@pytest.mark.long
def test_an_edit_anywhere_is_seen(noise, tmp_path):
    package = tmp_path / "numbel"
    shutil.copytree(Path(numbel.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    changes = {"NUMBA_CACHE_DIR": tmp_path / "cache", "PYTHONPATH": tmp_path}
    _, drawn, file = draw(**changes)
    assert Path(file) == package / "__init__.py"
    assert drawn == noise
    # an inlined scalar, two modules away from the kernel that is cached
    scalars = package / "_scalar" / "gumbel.py"
    text = scalars.read_text()
    assert text.count("float32(0.5000085234642029)") == 1
    scalars.write_text(text.replace("float32(0.5000085234642029)", "float32(0.75)"))
    os.utime(scalars, ns=(0, 0))  # its date proves nothing
    _, edited, _ = draw(**changes)
    assert edited != noise
    # back again: the old code is still there, and right
    scalars.write_text(text)
    assert draw(**changes)[:2] == (0, noise)


def test_the_disk_serves_this_process_too(noise):
    assert draw(NUMBEL_CACHE="1", HOME=os.environ.get("HOME", ""))[1] == noise


def test_where_nothing_is_home(noise):
    """No HOME, and a user that the system does not know: no cache, and no error."""
    if not hasattr(os, "getuid"):
        pytest.skip("homes are another matter on Windows")
    left_out = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    program = (
        f"import os, pathlib\npathlib.Path.home = lambda: (_ for _ in ()).throw(RuntimeError('no home'))\n{_SCRIPT}"
    )
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run([sys.executable, "-c", program], env=kept, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[2] == noise


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX's")


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(mode, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kernel_cache, "_said", set())
    monkeypatch.delenv("NUMBEL_QUIET", raising=False)
    folder = tmp_path / "numbel" / kernel_cache.source_stamp()
    folder.mkdir(parents=True)
    folder.chmod(mode)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert kernel_cache.cache_folder.__wrapped__() is None
    assert kernel_cache.cache_folder.__wrapped__() is None
    assert [record.getMessage() for record in caplog.records] == [
        f"the disk cache of compiled kernels is off: others may write to {folder}"
    ]


@posix
def test_a_folder_below_one_that_others_may_rename_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    assert kernel_cache.cache_folder.__wrapped__() is None
    (tmp_path / "shared").chmod(0o1777)  # sticky: what is in it is renamed by its owner alone
    assert kernel_cache.cache_folder.__wrapped__() is not None


@posix
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
def test_another_users_folder_and_files_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    folder = kernel_cache.cache_folder.__wrapped__()
    kernel_cache.save(folder / "kept.bin", b"code")
    assert kernel_cache.load(folder / "kept.bin") == b"code"
    os.chown(folder / "kept.bin", 12345, -1)
    assert kernel_cache.load(folder / "kept.bin") is None
    os.chown(folder, 12345, -1)
    assert kernel_cache.cache_folder.__wrapped__() is None


@posix
def test_folders_are_made_for_us_alone_whatever_the_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "a" / "b"))
    before = os.umask(0)
    try:
        folder = kernel_cache.cache_folder.__wrapped__()
    finally:
        os.umask(before)
    for made in (folder, folder.parent, tmp_path / "a" / "b", tmp_path / "a"):
        assert made.stat().st_mode & 0o777 == 0o700


def test_a_relative_folder_and_a_home_are_resolved_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, meant in (("here", tmp_path / "here"), ("~/there", tmp_path / "home" / "there")):
        monkeypatch.setattr(config, "CACHE_DIR", given)
        assert kernel_cache.cache_folder.__wrapped__().parent.parent == meant


@posix
def test_a_pipe_a_link_or_a_folder_in_a_files_place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert kernel_cache.load(tmp_path / "pipe") is None
    (tmp_path / "link").symlink_to(tmp_path / "file")
    kernel_cache.save(tmp_path / "file", b"code")
    assert kernel_cache.load(tmp_path / "link") is None
    (tmp_path / "folder").mkdir()
    assert kernel_cache.load(tmp_path / "folder") is None
    for name in ("pipe", "link", "folder"):  # repaired
        kernel_cache.save(tmp_path / name, b"code")
        assert kernel_cache.load(tmp_path / name) == b"code"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "pipe"]


def test_a_body_that_is_no_code_is_compiled_instead(noise, tmp_path):
    """A right digest proves nothing about what it is of."""
    entry = entries.Entry(drivers.spawn_seeds._make, "spawn_seeds")
    path = entry._path()
    try:
        for body in (b"", b"no code", b"symbol\0no code"):
            kernel_cache.save(path, body)
            assert entries.Entry(drivers.spawn_seeds._make, "spawn_seeds").address
    finally:
        path.unlink(missing_ok=True)
        assert entries.Entry(drivers.spawn_seeds._make, "spawn_seeds").address  # and kept again


@pytest.mark.parametrize("name", ["OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK"])
def test_settings_that_change_code_name_another_file(name, monkeypatch):
    entry = entries.Entry(drivers.spawn_seeds._make, "spawn_seeds")
    before = entry._path()
    monkeypatch.setattr(config, name, "another")
    assert entry._path() != before


_DRAWN = """
import sys
import numpy as np
from numba.core import event
import numbel

counter = event.RecordingListener()
with event.install_listener("numba:compile", counter):
    for dtype in sys.argv[1:]:
        print(numbel.Generator(5).gumbel(size=5, dtype=np.dtype(dtype)).tobytes().hex())
print(len(counter.buffer))
"""


@pytest.mark.long
def test_kernels_that_other_processes_compiled_are_not_taken_for_one_another(tmp_path):
    dtypes = ["float32", "float16", "float64"]
    drawn = []
    for chosen in (*([dtype] for dtype in dtypes), dtypes):
        done = subprocess.run(
            [sys.executable, "-c", _DRAWN, *chosen],
            env=environment(NUMBA_CACHE_DIR=tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        drawn.append(done.stdout.split())
    assert drawn[3][:-1] == [found[0] for found in drawn[:3]]
    assert drawn[3][-1] == "0"  # loaded, not compiled again
    assert len(set(drawn[3][:-1])) == 3
