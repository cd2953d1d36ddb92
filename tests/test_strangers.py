"""What strangers' programs met: one function a case, named after what failed."""

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import numbel


def message(call, error=ValueError):
    """The message of the exception that `call` raises."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def fresh(code, *arguments, **environment):
    """Run a program in a process that has imported nothing yet."""
    command = [sys.executable, *arguments, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)


# --- dtypes by name


def test_bfloat16_by_name_where_nobody_imported_it():
    pytest.importorskip("ml_dtypes")
    run = fresh(
        "import sys, numpy as np, numbel\n"
        "assert 'ml_dtypes' not in sys.modules\n"
        "noise = numbel.Generator(5).gumbel(size=9, dtype='bfloat16')\n"
        "import ml_dtypes\n"
        "assert noise.dtype == ml_dtypes.bfloat16\n"
        "assert (noise == numbel.Generator(5).gumbel(size=9, dtype=ml_dtypes.bfloat16)).all()\n"
    )
    assert run.returncode == 0, run.stderr


def test_bfloat16_by_name_on_the_command_line(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    pytest.importorskip("typer")
    out, raw = tmp_path / "out.npy", tmp_path / "logits.bin"
    call = [sys.executable, "-m", "numbel"]
    given = [*call, "gumbel", "--size", "9", "--dtype", "bfloat16", "--seed", "5", "-o", str(out)]
    run = subprocess.run(given, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    noise = numbel.Generator(5).gumbel(size=9, dtype=ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.load(out).view(ml_dtypes.bfloat16), noise)
    logits = np.zeros((2, 9), ml_dtypes.bfloat16)
    logits.tofile(raw)
    given = [*call, "sample", str(raw), "--dtype", "bfloat16", "--columns", "9", "--seed", "5", "-o", str(out)]
    run = subprocess.run(given, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(out), numbel.Generator(5).categorical(logits))


def test_bfloat16_without_its_package_is_one_line():
    run = fresh(
        "import sys\nsys.modules['ml_dtypes'] = None\nimport numbel\n"
        "try:\n    numbel.Generator(5).gumbel(dtype='bfloat16')\n"
        "except TypeError as error:\n    print(error)"
    )
    assert run.stdout == 'dtype "bfloat16" needs the package ml_dtypes: pip install "numbel[bf16]"\n', run.stderr


# --- foreign files on the command line

LOGITS = np.random.default_rng(1).standard_normal((5, 300)).astype(np.float32)


def numbel_run(*arguments, **options):
    """The command line in this process."""
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from numbel import cli

    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], **options)


def refused(path, *arguments):
    """The one line of a call that is refused with exit 2, and leaves the folder as it was."""
    before = sorted(path.parent.iterdir())
    result = numbel_run("sample", path, *arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("seed ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("numbel: ")
    assert result.stdout == ""
    assert sorted(path.parent.iterdir()) == before
    return lines[0]


def archive(path, data, compression=zipfile.ZIP_STORED, name="logits.npy"):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(name, data)


def npy(array=LOGITS, header=None):
    """The bytes of a .npy file; `header` replaces its dictionary."""
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    if header is None:
        return data
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[10 + int.from_bytes(data[8:10], "little") :]


def test_an_archive_whose_only_member_is_no_array(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, b"not an array at all", name="notes.txt")
    line = refused(path)
    assert "a.npz" in line
    assert "'notes.txt' is no array" in line
    archive(path, b"", name="empty.npy")
    assert "a.npz is truncated, or not an .npz archive" in refused(path)


@pytest.mark.parametrize("name", ["ZIP_LZMA", "ZIP_BZIP2", "ZIP_DEFLATED", "ZIP_STORED"])
def test_a_corrupt_member_of_an_archive(tmp_path, name):
    path = tmp_path / "a.npz"
    archive(path, npy(), getattr(zipfile, name))
    data = path.read_bytes()
    for first in (60, 200, 1000, 3000):
        path.write_bytes(data[:first] + bytes(255 - byte for byte in data[first : first + 40]) + data[first + 40 :])
        assert "a.npz is truncated, or not an .npz archive of numbers: " in refused(path)


def test_a_member_that_no_python_can_unpack(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, npy())
    whole = path.read_bytes()
    local, central = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    for offset, value in ((8, 99), (6, 1)):  # a compression method that does not exist; an encrypted member
        data = bytearray(whole)
        data[local + offset : local + offset + 2] = value.to_bytes(2, "little")
        data[central + offset + 2 : central + offset + 4] = value.to_bytes(2, "little")
        path.write_bytes(data)
        assert "a.npz is truncated, or not an .npz archive of numbers: " in refused(path)


HEADERS = {
    "10**26 columns": "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 26 + ",), }",
    "10**26 rows": "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 26 + ", 3), }",
    "product beyond 2**64": "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 3), }",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 300), }",
    "nested": "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + ", }",
    "not a dictionary": "5",
    "unclosed": "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 300",
    "no such dtype": "{'descr': '<q9', 'fortran_order': False, 'shape': (5, 300), }",
    "dtype of no size": "{'descr': '|S0', 'fortran_order': False, 'shape': (5, 300), }",
    "a list as dtype": "{'descr': [1, 2], 'fortran_order': False, 'shape': (5, 300), }",
    "a null byte": "{'descr': '<f4\0', 'fortran_order': False, 'shape': (5, 300), }",
}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_nonsense(tmp_path, name, suffix):
    path = tmp_path / f"a{suffix}"
    data = npy(header=HEADERS[name])
    path.write_bytes(data) if suffix == ".npy" else archive(path, data)
    line = refused(path)
    assert f"a{suffix}" in line or "logits" in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_place_of_a_file(tmp_path):
    for name in ("a.npy", "a.npz", "a.bin"):
        path = tmp_path / name
        os.mkfifo(path)
        extra = ["--dtype", "float32", "--columns", "3"] if name == "a.bin" else []
        assert f"{name} is not a regular file" in refused(path, *extra)


def test_results_that_fit_on_no_disk(tmp_path):
    path, out = tmp_path / "a.npy", tmp_path / "out.npy"
    np.save(path, LOGITS)
    assert "fits on no disk" in refused(path, "--num-samples", 10**26, "-o", out)
    for size in (10**26, f"{10**26},3", f"{2**40},{2**30}"):
        result = numbel_run("gumbel", "--size", size, "-o", out)
        assert result.exit_code == 2, result.output
        assert len(result.stderr.splitlines()) <= 2
        assert "numbel: " in result.stderr
        assert not out.exists()


# --- the command line's conventions


def test_version_and_short_help():
    result = numbel_run("--version")
    assert (result.exit_code, result.stdout) == (0, f"numbel {numbel.__version__}\n")
    for arguments in ([], ["sample"], ["gumbel"], ["info"], ["bench"]):
        short = numbel_run(*arguments, "-h")
        assert short.exit_code == 0
        assert short.stdout == numbel_run(*arguments, "--help").stdout
        assert short.stdout.startswith("Usage: ")


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_help_is_not_cut(width):
    result = numbel_run("--help", env={"COLUMNS": width})
    assert result.exit_code == 0
    assert "..." not in result.stdout.replace("[ARGS]...", "")
    commands = result.stdout.partition("Commands:\n")[2].strip().splitlines()
    assert [line.split()[0] for line in commands] == ["sample", "gumbel", "info", "bench"]
    assert all(line.endswith(".") for line in commands)


def test_bench_lists_its_works():
    from numbel import bench

    result = numbel_run("bench", "--list")
    assert (result.exit_code, result.stdout.splitlines()) == (0, list(bench.WORKS))
    chosen = numbel_run("bench", "--list", "1 x 1000").stdout.splitlines()
    assert chosen == [name for name in bench.WORKS if "1 x 1000" in name] != []


def test_samples_of_several_rows_are_printed_a_row_a_line(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, LOGITS)
    for extra, count in (([], None), (["--num-samples", 4], 4), (["--num-samples", 1], 1)):
        result = numbel_run("sample", path, "--seed", 5, *extra)
        expected = numbel.Generator(5).categorical(LOGITS, count).reshape(5, -1)
        assert result.stdout.splitlines() == [" ".join(map(str, row)) for row in expected.tolist()]
    np.save(path, LOGITS[0])
    result = numbel_run("sample", path, "--seed", 5, "--num-samples", 4)
    assert result.stdout.splitlines() == [" ".join(map(str, numbel.Generator(5).categorical(LOGITS[0], 4)))]
    assert numbel_run("sample", path, "--num-samples", 0).stdout.split() == []


def test_outputs_named_as_another_format_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, LOGITS)
    for name in ("out.txt", "out.csv", "out.npz"):
        for option in ("-o", "--log-prob"):
            line = refused(path, option, tmp_path / name)
            assert line.endswith(f"{name}: results are .npy files: name it out.npy")
    result = numbel_run("gumbel", "--size", 9, "-o", tmp_path / "out.txt")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [path])
    assert "name it out.npy" in result.stderr
    result = numbel_run("sample", "--plot", tmp_path / "law.pdf")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [path])
    assert "the picture is a .png file: name it law.png" in result.stderr
