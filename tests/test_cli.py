from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("typer")

from typer.testing import CliRunner, Result

import numbel
from numbel import cli
from numbel.bench import command, with_numpy
from numbel.cli import _files, _zipf

LOGITS = np.random.default_rng(1).standard_normal((5, 300)).astype(np.float32)


def run(*args: object) -> Result:
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def fails(folder: Path, *args: object) -> str:
    """The one line of a refused call, which leaves the folder as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    result = run(*args)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("seed ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("numbel: ")
    assert result.stdout == ""
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return lines[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logits.npy"
    np.save(path, LOGITS)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("form", ["npy", "npz", "compressed", "raw"])
def test_same_bits_as_the_api(tmp_path: Path, form: str, dtype: str) -> None:
    logits = LOGITS.astype(dtype)
    path = tmp_path / {"npy": "a.npy", "npz": "a.npz", "compressed": "a.npz", "raw": "a.bin"}[form]
    extra: list[object] = []
    if form == "npy":
        np.save(path, logits)
    elif form == "raw":
        logits.tofile(path)
        extra = ["--dtype", dtype, "--columns", 300]
    else:
        (np.savez if form == "npz" else np.savez_compressed)(path, logits=logits, other=np.zeros(3))
        extra = ["--key", "logits"]
    out, log = tmp_path / "out.npy", tmp_path / "log.npy"
    result = run("sample", path, "--seed", 5, "--draw", 3, "--num-samples", 7, "-o", out, "--log-prob", log, *extra)
    assert result.exit_code == 0, result.output
    expected = numbel.Generator(5, draw=3).sample(logits, 7)
    np.testing.assert_array_equal(np.load(out), expected.indices)
    np.testing.assert_array_equal(np.load(log), expected.log_prob)
    assert np.load(log).dtype == expected.log_prob.dtype
    assert not list(tmp_path.glob(".*"))


def test_bfloat16(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    logits = LOGITS.astype(ml_dtypes.bfloat16)
    expected = numbel.Generator(5).categorical(logits)
    raw, plain, out = tmp_path / "a.bin", tmp_path / "a.npy", tmp_path / "out.npy"
    logits.tofile(raw)
    np.save(plain, logits.view("V2"))
    for extra in ([raw, "--columns", 300], [plain]):
        result = run("sample", *extra, "--dtype", "bfloat16", "--seed", 5, "-o", out)
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(np.load(out), expected)
    assert "--dtype bfloat16" in fails(tmp_path, "sample", plain)
    result = run("gumbel", "--size", 1000, "--dtype", "bfloat16", "--seed", 5, "-o", out)
    assert result.exit_code == 0, result.output
    noise = numbel.Generator(5).gumbel(size=1000, dtype=ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.load(out).view(ml_dtypes.bfloat16), noise)


def test_axis_temperature_method(tmp_path: Path, file: Path) -> None:
    out = tmp_path / "out.npy"
    options = {"axis": 0, "temperature": 0.5, "method": "gumbel_max"}
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    assert run("sample", file, *given, "--seed", 5, "-o", out).exit_code == 0
    np.testing.assert_array_equal(np.load(out), numbel.Generator(5).categorical(LOGITS, **options))


def test_truncation(tmp_path: Path, file: Path) -> None:
    out = tmp_path / "out.npy"
    for options in ({"top_k": 3}, {"top_p": 0.4}, {"min_p": 0.5}, {"top_k": 9, "top_p": 0.9, "min_p": 0.1}):
        given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
        assert run("sample", file, *given, "--num-samples", 20, "--seed", 5, "-o", out).exit_code == 0
        np.testing.assert_array_equal(np.load(out), numbel.Generator(5).categorical(LOGITS, 20, **options))
    for given, text in (
        (("--top-k", -2), "top_k must be at least 1, got -2: 0 and -1 switch it off"),
        (("--top-p", 1.5), "top_p must be in (0, 1], got 1.5: 1 switches it off, temperature=0 takes the argmax"),
        (("--min-p", -1), "min_p must be in [0, 1], got -1.0"),
    ):
        assert text in fails(tmp_path, "sample", file, *given)
    assert "FILE" in fails(tmp_path, "sample", "--top-k", 5)


def test_fortran_order_and_one_row(tmp_path: Path) -> None:
    path, out = tmp_path / "a.npy", tmp_path / "out.npy"
    np.save(path, np.asfortranarray(LOGITS))
    assert run("sample", path, "--seed", 5, "-o", out).exit_code == 0
    np.testing.assert_array_equal(np.load(out), numbel.Generator(5).categorical(LOGITS))
    np.save(path, LOGITS[0])
    assert run("sample", path, "--seed", 5, "-o", out).exit_code == 0
    assert np.load(out).shape == ()
    assert np.load(out) == numbel.Generator(5).categorical(LOGITS[0])


@pytest.mark.parametrize(("rows", "count"), [(0, 3), (5, 0)])
def test_empty_results(tmp_path: Path, rows: int, count: int) -> None:
    path, out = tmp_path / "a.npy", tmp_path / "out.npy"
    np.save(path, LOGITS[:rows])
    result = run("sample", path, "--num-samples", count, "-o", out)
    assert result.exit_code == 0, result.output
    assert np.load(out).shape == (rows, count)
    assert np.load(out).dtype == np.int64


def test_printed_indices(file: Path) -> None:
    result = run("sample", file, "--seed", 5)
    assert result.stdout.split() == [str(i) for i in numbel.Generator(5).categorical(LOGITS)]
    assert result.stderr == "seed 5, draw 0\n"


def test_a_random_seed_is_printed_and_repeats(file: Path) -> None:
    first = run("sample", file, "--num-samples", 4)
    seed = first.stderr.split()[1].rstrip(",")
    assert run("sample", file, "--num-samples", 4, "--seed", seed).stdout == first.stdout


def test_error_lines(tmp_path: Path, file: Path) -> None:
    out = tmp_path / "out.npy"

    def line(*args: object) -> str:
        return fails(tmp_path, "sample", *args)

    assert "No such file" in line(tmp_path / "absent.npy", "-o", out)
    assert "-o" in line(file, "--num-samples", 5)
    assert "its folder does not exist" in line(file, "-o", tmp_path / "no" / "out.npy")
    assert "not a regular file" in line(file, "-o", tmp_path)
    assert "is the input file" in line(file, "-o", file)
    assert "same path" in line(file, "-o", out, "--log-prob", out)
    assert "out of bounds" in line(file, "-o", out, "--axis", 2)
    assert "or 0 for the argmax" in line(file, "-o", out, "--temperature", -1)
    assert "name a FILE" in line("-o", out, "--temperature", 0)
    assert "gumbel_max" in line(file, "-o", out, "--method", "bogus")
    assert "seed must not be negative" in line(file, "-o", out, "--seed", -1)
    assert "--key" in line(file, "-o", out, "--key", "a")
    assert "--columns is for raw files" in line(file, "-o", out, "--columns", 3)
    assert "--dtype is for raw files" in line(file, "-o", out, "--dtype", "float64")
    assert "--plot" in line(file, "-o", out, "--plot", tmp_path / "a.png")
    assert "describes a FILE" in line("--axis", 0)
    assert "--key describes a FILE" in line("--key", "a")


@pytest.mark.parametrize("content", ["truncated", "empty", "foreign", "pickled"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_broken_files(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if content == "pickled":
        with path.open("wb") as file:
            np.savez(file, np.array([{}])) if suffix == ".npz" else np.save(file, np.array([{}]))
    else:
        with path.open("wb") as file:
            np.savez(file, LOGITS) if suffix == ".npz" else np.save(file, LOGITS)
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[:-1000], "empty": b"", "foreign": b"\x7fELF and more" * 99}[content])
    assert "truncated, or not an" in fails(tmp_path, "sample", path, "-o", tmp_path / "out.npy")


def test_corrupt_and_misnamed_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=LOGITS)
    damaged = bytearray(path.read_bytes())
    damaged[1000:1010] = bytes(10)
    path.write_bytes(damaged)
    assert "truncated" in fails(tmp_path, "sample", path)
    np.savez(path, a=LOGITS, b=LOGITS)
    assert "choose one with --key: a, b" in fails(tmp_path, "sample", path)
    assert "no array 'c'" in fails(tmp_path, "sample", path, "--key", "c")
    path.rename(tmp_path / "b.npy")
    assert "archive" in fails(tmp_path, "sample", tmp_path / "b.npy")
    with path.open("wb") as file:
        np.save(file, LOGITS)
    assert "not an .npz archive" in fails(tmp_path, "sample", path)


def test_raw_errors(tmp_path: Path) -> None:
    path, out = tmp_path / "a.bin", tmp_path / "out.npy"
    LOGITS.tofile(path)
    assert "--dtype and --columns" in fails(tmp_path, "sample", path, "-o", out)
    assert "needs --columns" in fails(tmp_path, "sample", path, "-o", out, "--dtype", "float32")
    for columns, message in ((301, "not a whole number of rows"), (0, "must be positive")):
        assert message in fails(tmp_path, "sample", path, "-o", out, "--dtype", "float32", "--columns", columns)
    assert "got int32" in fails(tmp_path, "sample", path, "-o", out, "--dtype", "int32", "--columns", 300)
    path.write_bytes(b"")
    assert "0 bytes" in fails(tmp_path, "sample", path, "-o", out, "--dtype", "float32", "--columns", 300)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((2, 3), np.int64), "expected float16, bfloat16, float32 or float64, got int64"),
        (np.zeros((2, 3), ">f4"), "got >f4"),
        (np.array([[0.0, 1.0], [math.nan, 0.0]]), "logits row 1 holds NaN at column 0"),
        (np.array([[0.0, math.inf]]), "logits row 0 holds +inf at column 1"),
        (np.full((1, 3), -math.inf), "logits row 0 has no possible category"),
        (np.zeros((2, 0)), "zero categories"),
        (np.float32(1), "scalar"),
    ],
)
def test_bad_logits(tmp_path: Path, logits: np.ndarray, message: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, logits)
    out, log = tmp_path / "out.npy", tmp_path / "log.npy"
    assert message in fails(tmp_path, "sample", path, "-o", out, "--log-prob", log)
    old = np.arange(3)
    np.save(out, old)
    fails(tmp_path, "sample", path, "-o", out)
    np.testing.assert_array_equal(np.load(out), old)


def test_usage_errors(tmp_path: Path) -> None:
    for args in (["sample", "--num-samples", "x"], ["sample", "--num-samples", "-1"], ["nonsense"]):
        result = run(*args)
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_interruption_midway_leaves_nothing(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = tmp_path / "out.npy", tmp_path / "log.npy"

    def interrupted(*args: object) -> None:
        assert len(list(tmp_path.glob(".*.tmp"))) >= 1
        raise KeyboardInterrupt

    monkeypatch.setattr(numbel._host.dispatch, "categorical", interrupted)
    monkeypatch.setattr(numbel._host.dispatch, "gumbel", interrupted)
    for args in (["sample", file, "-o", out, "--log-prob", log], ["gumbel", "-o", out]):
        result = run(*args)
        assert result.exit_code == 130
        assert result.stderr.splitlines()[1:] == ["numbel: interrupted, nothing was written"]
        assert list(tmp_path.iterdir()) == [file]


def test_failure_of_the_disk_leaves_nothing(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "posix_fallocate", full, raising=False)
    assert fails(tmp_path, "sample", file, "-o", tmp_path / "out.npy") == (
        f"numbel: {tmp_path / 'out.npy'}: No space left on device"
    )
    assert "No space left" in fails(tmp_path, "gumbel", "-o", tmp_path / "out.npy")


def test_outputs_have_ordinary_permissions_and_follow_links(tmp_path: Path, file: Path) -> None:
    real, link = tmp_path / "real.npy", tmp_path / "link.npy"
    real.touch()
    link.symlink_to(real)
    assert run("sample", file, "-o", link).exit_code == 0
    assert link.is_symlink()
    assert np.load(real).shape == (5,)
    assert real.stat().st_mode == file.stat().st_mode


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_a_real_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(1 << 12, np.float32))
    # some 7 us a sample: a minute, in passes of 16384 samples (grouped, a table makes them in a fifth of a second)
    options = ["--num-samples", "10000000", "--method", "gumbel_max", "-o", "out.npy"]
    command = [sys.executable, "-m", "numbel", "sample", "a.npy", *options]
    # A shell that runs this suite in the background leaves SIGINT ignored, which children inherit; a Python handler
    # becomes the default in the child. A preexec_fn would do it too, with a fork, of which JAX warns.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".out.npy.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "numbel: interrupted, nothing was written"
    assert list(tmp_path.iterdir()) == [path]


def test_progress_on_long_work(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "categories/s" not in run("sample", file).stderr
    monkeypatch.setattr(cli, "LONG", 100)
    for args in (["sample", file], ["sample", file, "--num-samples", 3], ["gumbel", "--size", 1000]):
        result = run(*args)
        assert result.exit_code == 0
        assert "G categories/s" in result.stderr


def test_default_law(tmp_path: Path) -> None:
    out, log, picture = tmp_path / "out.npy", tmp_path / "log.npy", tmp_path / "law.png"
    args = ["--num-samples", 2000, "--seed", 5, "--draw", 2, "-o", out, "--log-prob", log, "--plot", picture]
    result = run("sample", *args)
    assert result.exit_code == 0, result.output
    expected = numbel.Generator(5, 2).sample(_zipf.logits(), 2000)
    np.testing.assert_array_equal(np.load(out), expected.indices)
    np.testing.assert_array_equal(np.load(log), expected.log_prob)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "seed 5, draw 2" in result.stdout
    assert "11 degrees of freedom" in result.stdout
    assert "G categories/s" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("logsumexp"))
    found, harmonic = (float(word.rstrip(";")) for word in line.split() if word[0].isdigit())
    assert found == pytest.approx(harmonic, abs=1e-6)
    assert harmonic == pytest.approx(math.log(math.log(2**20) + np.euler_gamma), abs=1e-6)


def test_fit_and_its_power() -> None:
    law = _zipf.Law(1.0)
    good = numbel.Generator(5).categorical(_zipf.logits(), 20_000)
    found = _zipf.fit(good, law)
    assert found.freedom == 11
    assert sum(found.observed) == 20_000
    assert sum(found.expected) == pytest.approx(20_000)
    assert min(found.expected) >= 5
    assert found.p_value > 1e-6
    assert found.p_value == pytest.approx(
        stats.power_divergence(found.observed, found.expected, lambda_="log-likelihood").pvalue, rel=1e-9
    )
    # temperature 1.05 in place of 1 is noticed
    bad = numbel.Generator(5).categorical(_zipf.logits(), 20_000, temperature=1.05)
    assert _zipf.fit(bad, law).p_value < 1e-6
    sharp = _zipf.fit(numbel.Generator(5).categorical(_zipf.logits(), 2000, temperature=0.2), _zipf.Law(0.2))
    assert sharp.freedom >= 1
    assert sharp.p_value > 1e-6
    assert _zipf.fit(good[:0], law).freedom == 0


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 11, 12, 50])
def test_chi_square_survival(freedom: int) -> None:
    for x in (0.0, 1e-9, 0.1, 1.0, 5.0, 20.0, 100.0, 500.0):
        assert _zipf.chi_square_survival(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-11)


def test_gumbel(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    args = ["--size", "30,400", "--loc", 2, "--scale", 3, "--dtype", "float64", "--seed", 5, "--draw", 4]
    assert run("gumbel", *args, "-o", out).exit_code == 0
    expected = numbel.Generator(5, 4).gumbel(2.0, 3.0, (30, 400), dtype=np.float64)
    np.testing.assert_array_equal(np.load(out), expected)
    result = run("gumbel", *args)
    assert f"{expected.mean():.6f}" in result.stdout
    assert f"{expected.var():.6f}" in result.stdout
    assert f"{2 + 3 * np.euler_gamma:.6f}" in result.stdout


def test_gumbel_errors(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    for size in ("", "x", "3,,4", "-1", "1.5"):
        assert "--size" in fails(tmp_path, "gumbel", f"--size={size}", "-o", out)
    assert "scale" in fails(tmp_path, "gumbel", "--scale", -1, "-o", out)
    assert "got int32" in fails(tmp_path, "gumbel", "--dtype", "int32", "-o", out)
    assert "folder" in fails(tmp_path, "gumbel", "-o", tmp_path / "no" / "out.npy")
    assert "nothing to summarise" in fails(tmp_path, "gumbel", "--size", 0)


def test_info() -> None:
    result = run("info")
    assert result.exit_code == 0
    assert f"numbel           {numbel.__version__}" in result.stdout
    assert "rich " in result.stdout


def test_bench(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    result = run("bench", "--quick", "--json", path, "multinomial of 2^40")
    assert result.exit_code == 0, result.output
    assert "numbel / it" in result.stdout
    (rates,) = json.loads(path.read_text())["works"].values()
    assert rates["numbel"]["items"] == 1 << 20
    assert "no work has such a name; there are: sample 64 x 2^20 float32" in fails(tmp_path, "bench", "nonsense")


def test_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, a picture and JSON; what is in the JSON already is not measured again, unless numbel is another."""
    path, picture = tmp_path / "map.json", tmp_path / "map.png"
    monkeypatch.setattr(command.bench.shape_map, "peers", lambda method: {"numpy": with_numpy.scipy_entropy})
    arguments = ("bench", "--map", "--quick", "--json", path, "entropy")
    result = run(*arguments, "--plot", picture)
    assert result.exit_code == 0, result.output
    assert "3 of 3: entropy 32 x 2: " in result.stderr
    assert "entropy: times the best peer's speed (of read), by rows and columns" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = json.loads(path.read_text())
    assert report["config"]["numbel"].startswith(numbel.__version__)
    assert [(cell["rows"], cell["columns"]) for cell in report["cells"]] == [(1, 2), (1, 32), (32, 2)]
    assert len(report["cells"][0]["seconds"]["numpy"]) >= 8

    report["cells"] = report["cells"][:2]
    path.write_text(json.dumps(report))
    assert run(*arguments).stderr.splitlines()[-1].startswith("1 of 1: entropy 32 x 2: ")
    assert json.loads(path.read_text())["cells"][:2] == report["cells"]
    assert run(*arguments).stderr == ""

    monkeypatch.setattr(command, "_map_config", lambda: report["config"] | {"numba": "0.0"})
    assert f"{path} is of another numbel, package or machine" in run(*arguments).stderr
    assert run("bench", "--map", "--list", "entropy").stdout == "entropy\n"
    assert "no method has such a name; there are: categorical; " in fails(tmp_path, "bench", "--map", "nonsense")
    assert "--whole and --plot are of --map" in fails(tmp_path, "bench", "--whole")


def test_a_map_that_is_interrupted_keeps_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int]] = []

    def measure(method: str, rows: int, columns: int, before: object) -> dict[str, object]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append((rows, columns))
        return {"method": method, "rows": rows, "columns": columns, "skipped": "too large"}

    monkeypatch.setattr(command.bench.shape_map, "measure", measure)
    path = tmp_path / "map.json"
    result = run("bench", "--map", "--json", path, "entropy")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == f"numbel: interrupted; {path} keeps 2 cells, and the same command goes on"
    assert len(json.loads(path.read_text())["cells"]) == 2


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for missing in ("typer", "rich"):
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "numbel.cli")
            patch.delattr(numbel, "cli")
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(SystemExit) as stopped:
                importlib.import_module("numbel.__main__").main()
        assert stopped.value.code == 1
        stderr = capsys.readouterr().err
        assert stderr.count("\n") == 1
        assert 'pip install "numbel[cli]"' in stderr
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    result = run("sample", "--plot", tmp_path / "a.png")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ['numbel: --plot needs matplotlib: pip install "numbel[plot]"']
    assert list(tmp_path.iterdir()) == []


def test_python_m_numbel(tmp_path: Path, file: Path) -> None:
    command = [sys.executable, "-m", "numbel", "sample", str(file), "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.split() == [str(i) for i in numbel.Generator(5).categorical(LOGITS)]
    done = subprocess.run([*command, "--axis", "9"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
