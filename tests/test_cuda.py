"""CUDA without a GPU: numbel.cuda on the host, races, kernels kept on disk, commands. Kernels: tests/cuda."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np
import pytest
import scipy.stats

import numbel
import numbel.cuda
import oracle
from processes import printed

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (41, 5000)


# --- device functions on the host


@numba.njit
def fill(function, seed, draw, out):
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = function(seed, draw, row, column)


def values(name, dtype, seed=7, draw=3, shape=SHAPE):
    out = np.empty(shape, dtype)
    fill(getattr(numbel.cuda, f"{name}_{np.dtype(dtype).name}"), np.uint64(seed), np.uint64(draw), out)
    return out


def words(seed=7, draw=3, shape=SHAPE):
    """V of every address as longdouble, and 1 - V."""
    x, y = (
        np.stack([oracle.noise_words(seed, draw, np.arange(shape[1]), 0, row, tag) for row in range(shape[0])])
        for tag in (oracle.NOISE, oracle.REFINEMENT)
    )
    low = ((x.astype(np.uint64) << np.uint64(32)) | y.astype(np.uint64)).astype(np.longdouble) + 0.5
    scale = np.longdouble(2) ** -64
    return low * scale, (np.longdouble(2) ** 64 - low) * scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("seed", "draw"), [(7, 3), (0, 0), (2**64 - 1, 2**64 - 1)])
def test_gumbel_is_the_generators(dtype, seed, draw):
    expected = numbel.Generator(seed, draw).gumbel(size=SHAPE, dtype=dtype)
    assert values("gumbel", dtype, seed, draw).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("dtype", "ulp"), [(np.float32, 4.5), (np.float64, 2.5)])
def test_uniform_and_exponential_are_the_oracles(dtype, ulp):
    v, rest = words()
    eps = np.finfo(dtype).eps
    # float32 takes the second word once in 2^11 only: near 0 that is 2^-21 of V, elsewhere a rounding
    slack = 2.0**-20 if dtype is np.float32 else 0
    uniform = values("uniform", dtype)
    assert np.max(np.abs(uniform / v - 1)) <= eps + slack
    assert uniform.min() > 0
    assert uniform.max() < 1
    exponential = values("exponential", dtype)
    expected = np.where(v < 0.5, -np.log1p(-v), -np.log(rest))
    assert np.max(np.abs(exponential - expected) / np.maximum(expected, eps)) <= ulp * eps + slack


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_laws(dtype):
    """A Kolmogorov-Smirnov distance of 0.006 would be seen: 205,000 values, alpha 1e-6."""
    assert scipy.stats.kstest(values("uniform", dtype).ravel(), "uniform").pvalue > 1e-6
    assert scipy.stats.kstest(values("exponential", dtype).ravel(), "expon").pvalue > 1e-6


@numba.njit
def best(logits, temperature, seed, draw, order, out):
    for row in range(logits.shape[0]):
        state = numbel.cuda.GUMBEL_MAX_START
        for column in order:
            logit = np.float64(logits[row, column]) / temperature
            state = numbel.cuda.gumbel_max_update(state, logit, seed, draw, row, column)
        out[row] = state[1]


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 1.0, 50.0])
def test_gumbel_max_update_is_the_generators(temperature):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((300, 3000)).astype(np.float32) * rng.choice([0.1, 1, 30, 1e20], (300, 1))
    logits[3] = -np.inf
    logits[4, :-1] = -np.inf
    logits[5, ::7] = -np.inf
    out = np.empty(300, np.int64)
    expected = numbel.Generator(7, 3).categorical(
        logits, method="gumbel_max", temperature=temperature, on_invalid="flag"
    )
    for order in (np.arange(3000), np.arange(3000)[::-1].copy(), rng.permutation(3000)):
        best(logits, temperature, np.uint64(7), np.uint64(3), order, out)
        np.testing.assert_array_equal(out, expected)


def test_gumbel_max_update_keeps_the_noise_that_sums_lose_and_loses_nan():
    update = numbel.cuda.gumbel_max_update
    start = numbel.cuda.GUMBEL_MAX_START
    assert update(start, -np.inf, 1, 0, 0, 3) == start
    assert update(start, np.nan, 1, 0, 0, 3) == start
    assert update(start, np.inf, 1, 0, 0, 3)[:2] == (np.inf, 3)
    noise = numbel.Generator(1).gumbel(size=40, dtype=np.float64)
    for columns in (range(40), range(39, -1, -1)):  # all perturbed logits are equal
        state = start
        for column in columns:
            state = update(state, 1e300, 1, 0, 0, column)
            assert state[0] == 1e300
        assert state[1] == noise.argmax()


def test_the_filter_is_conservative():
    """No refinement of a word lifts G above the bound that drops it."""
    from numbel._scalar.gumbel import cannot_exceed, gumbel_float64

    rng = np.random.default_rng(2)
    few = [1, 2, 3, 1023, 1024, 1025, 2**20, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
    for x in [*few, *(1 << np.arange(32)), *rng.integers(1, 2**32, 2000)]:
        highest = gumbel_float64(np.uint64(x), np.uint64(0))
        assert not cannot_exceed(np.uint64(x), 0.0, highest)
        # and it is not far above: the exponent of x alone leaves ln 2, and V below 1/2 is near its E
        assert x >= 2**31 or cannot_exceed(np.uint64(x), 0.0, highest + 1.1)
    assert not cannot_exceed(np.uint64(0), 0.0, 45.0)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7FC00000, 0xFFC00000, 0x7F800001])
def test_bfloat16_of_any_nan_is_a_nan(bits):
    from numbel._scalar.bits import brain_to_float, float_to_brain

    value = np.uint32(bits).view(np.float32)
    assert np.isnan(brain_to_float(np.uint16(float_to_brain(value))))


def test_the_example(capsys):
    spec = importlib.util.spec_from_file_location("stochastic_codebook", ROOT / "examples" / "stochastic_codebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found, expected = module.main(["--codes", "64"])
    np.testing.assert_array_equal(found, expected)
    assert "drawn as from the stored logits: 1.0000" in capsys.readouterr().out


# --- in the simulator


def test_the_example_in_the_simulator():
    text = (
        "import sys; sys.path.insert(0, 'examples'); import stochastic_codebook as s, numpy as np;"
        "found, expected = s.main(['--device', 'cuda', '--points', '70', '--codes', '20']);"
        "assert np.array_equal(found, expected) and len(found) == 70"
    )
    printed(text, NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.parametrize(
    ("blocks", "body", "said"),
    [
        (1, "s[t] = t; x[0, t] = s[3 - t]", "a race on element"),
        (1, "s[t] = t; cuda.syncthreads(); x[0, t] = s[3 - t]", ""),
        (1, "x[0, t] = t; y[0, t] = x[0, 3 - t]", "a race on element"),
        (1, "x[0, 0] = t", "a race on element (0, 0)"),
        (1, "x[0, 0] = 5", ""),  # all write the same
        (2, "x[0, t] = 5", "a race on element (0, 0)"),
        (2, "cuda.atomic.add(x, (0, 0), 1.0)", ""),
        (1, "cuda.atomic.add(x, (0, 0), 1.0); y[0, t] = x[0, 0]", "a race on element (0, 0)"),
        (1, "y[0, t] = x[0, t - 1]", "index (0, -1) of shape (1, 4)"),
        (1, "if t > 0: cuda.syncthreads()\n    else: cuda.syncthreads()", "threads wait at different barriers"),
        (1, "if t > 0: cuda.syncthreads()", "threads wait at different barriers"),
    ],
)
def test_the_search_for_races_finds_them(tmp_path, blocks, body, said):
    (tmp_path / "script.py").write_text(f"""
import sys; sys.path.insert(0, {str(ROOT / "tests" / "cuda")!r})
import backend, numpy
from numba import cuda, int64

def kernel(x, y):
    s = cuda.shared.array(4, int64)
    t = cuda.threadIdx.x
    {body}

try:
    cuda.jit(kernel)[{blocks}, 4](*(cuda.to_device(numpy.zeros((1, 4))) for _ in range(2)))
except AssertionError as error:
    print(error)
""")
    code = f"import runpy; runpy.run_path({str(tmp_path / 'script.py')!r})"
    found = printed(code, NUMBA_ENABLE_CUDASIM="1", NUMBEL_RACES="1")
    assert found == "" if said == "" else said in found


# --- compiled without a GPU


def can_compile():
    try:
        from numba import cuda

        return cuda.implementation == "NVIDIA" and all(
            importlib.util.find_spec(name) for name in ("cuda.core", "nvidia.cu13")
        )
    except (ImportError, AttributeError):
        return False


_KEPT = """
import hashlib, numba.cuda.dispatcher as dispatcher
from numba import cuda
from numba.cuda import codegen

class Device:
    compute_capability = (9, 0)

compiled, plain = [], dispatcher.compile_cuda
def counted(function, *arguments, **options):
    compiled.append(function)
    return plain(function, *arguments, **options)

dispatcher.compile_cuda = counted
dispatcher.get_current_device = cuda.get_current_device = lambda: Device
codegen.CUDACodeLibrary._ensure_cc = lambda library, cc: cc or (9, 0, "a")
dispatcher._Kernel.bind = lambda kernel: kernel._codelibrary.get_cubin()
from numbel._cuda import launch

made = launch._kernel(launch._noise, "float32", "C", "gumbel")
kernel, = made.overloads.values()
cubin = kernel._codelibrary.get_cubin()
code = cubin if isinstance(cubin, bytes) else cubin.code
print(len(compiled) > 0, made.specialized, kernel.entry_name, hashlib.sha256(code).hexdigest())
"""


@pytest.mark.long
def test_a_kernel_is_compiled_once_for_a_machine(tmp_path):
    """Its second process loads it; what is spoilt on disk, or not to be written, is compiled."""
    if not can_compile():
        pytest.skip('needs pip install "numba-cuda[cu13]"')
    place = {"NUMBA_CACHE_DIR": str(tmp_path)}
    first = printed(_KEPT, **place).split()
    assert first[:2] == ["True", "True"]
    assert printed(_KEPT, **place).split() == ["False", *first[1:]]
    (file,) = tmp_path.rglob("*.cuda")
    file.write_bytes(file.read_bytes()[:-1])
    assert printed(_KEPT, **place).split() == first
    assert printed(_KEPT, NUMBEL_CACHE="0", **place).split() == first
    refused = _KEPT.replace(
        "lambda kernel: kernel", "lambda kernel: 1 / (kernel._type_annotation is not None) and kernel"
    )
    assert printed(refused, **place).split() == first  # the driver does not take what was loaded
    assert printed(_KEPT, **place).split() == ["False", *first[1:]]


# --- the command for a GPU, and what is said without one


@pytest.mark.long
def test_the_gpu_command_in_the_simulator(tmp_path):
    """All of it but the timings, on small shapes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--checks-only", "--out", str(tmp_path)],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert len(report["checks"]) == 5
    assert all(said["passed"] for said in report["checks"].values())
    assert "numba" in report["machine"]
    assert "| all words | yes | 256 words" in (tmp_path / "gpu.md").read_text()


@pytest.mark.long
def test_the_gpu_command_fails_with_a_check(tmp_path):
    """A planted difference between device and host is reported, and is the exit code."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from benchmarks.gpu import __main__ as command, checks\n"
        "plain = checks._sweep_host\n"
        "checks._sweep_host = lambda words: plain(words) + plain(words)[0, 0] + 1\n"
        "command.checks = lambda small, seconds: {'all words': lambda: checks.all_words(64)}\n"
        "sys.exit(command.main(['--checks-only', *sys.argv[1:]], (__file__,)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "--out", str(tmp_path)],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stderr
    assert "FAIL all words" in done.stdout


_PARTS = """
import json, os, sys, time
into, names = sys.argv[sys.argv.index("--into") + 1], [w for w in sys.argv[1:] if w.startswith("part")]
for name in names:
    if name == "part dies":
        os.abort()
    if name == "part hangs":
        time.sleep(60)
    with open(into, "a") as file:
        file.write(json.dumps([name, {"says": name}]) + "\\n")
    if name == "part loses":
        sys.exit("the context is lost")
"""


def test_a_part_of_the_gpu_command_survives_another(tmp_path):
    """One that ends its process, that hangs, that loses the context for those behind it: each costs only itself."""
    from benchmarks.gpu import __main__ as command

    script = tmp_path / "parts.py"
    script.write_text(_PARTS)
    names, said = ["one", "dies", "two", "hangs", "loses", "three"], {}
    todo = [command.Part("works", f"part {name}", 3.0) for name in names]
    command.worked_off(
        todo, [sys.executable, str(script)], time.perf_counter(), lambda part, found: said.update({part.name: found})
    )
    assert list(said) == [part.name for part in todo]
    failed = {name: found["failed"] for name, found in said.items() if "failed" in found}
    assert failed == {"part dies": "its process ended with -6", "part hangs": "not finished within 3 s"}


def test_the_gpu_command_ends_in_time(tmp_path, monkeypatch):
    """What hangs at the limit is ended, and nothing behind it is begun."""
    from benchmarks.gpu import __main__ as command

    script = tmp_path / "parts.py"
    script.write_text(_PARTS)
    said = {}
    todo = [command.Part("works", f"part {name}") for name in ("one", "hangs", "two")]
    monkeypatch.setattr(command, "_PART", 2.0)
    begun = time.perf_counter()
    command.worked_off(
        todo, [sys.executable, str(script)], begun, lambda part, found: said.update({part.name: found}), 3.0
    )
    assert time.perf_counter() - begun < 10
    late = {"failed": "no time was left"}
    assert said == {"part one": {"says": "part one"}, "part hangs": late, "part two": late}


@pytest.mark.long
def test_the_gpu_command_rehearsed_on_the_stand_in(tmp_path):
    """From end to end without a card: checks pass, and whatever torch has without CUDA is called."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    try:
        from ptx import driver
    finally:
        sys.path.pop(0)
    if driver.missing():
        pytest.skip(driver.NEEDED)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "cuda" / "rehearse.py"), "--out", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert len(report["checks"]) == 5
    assert {"Numba array", "torch tensor, out="} <= set(report["overhead"])
    for work, found in report["works"].items():
        if work.startswith("gumbel_softmax and gradient"):
            continue  # autograd ends the process of a torch without CUDA
        ours = {name: figures for name, figures in found.items() if name.startswith("numbel")}
        assert ours, work
        assert all("ms" in figures for figures in ours.values()), (work, ours)


def test_the_gpu_command_names_scripts_that_fail_or_do_not_end():
    from benchmarks.gpu.checks import _finished

    codes = {"good": "pass", "bad": "raise AssertionError('planted')", "endless": "import time; time.sleep(60)"}
    failures = _finished({name: [sys.executable, "-c", code] for name, code in codes.items()}, 5)
    assert len(failures) == 2
    assert failures[0].startswith("bad: ")
    assert "planted" in failures[0]
    assert failures[1] == "endless: not finished within 5 s"


class OnDevice:
    """An array of some other library on a GPU."""

    __cuda_array_interface__ = {"shape": (3,), "typestr": "<f4", "data": (64, False), "version": 3}  # noqa: RUF012


def test_without_a_gpu_it_says_what_is_missing():
    from numbel._device import libraries

    if numba.config.ENABLE_CUDASIM or libraries._missing() is None:
        pytest.skip("there is a GPU")
    missing = "driver" if importlib.util.find_spec("numba_cuda") else r'pip install "numbel\[cu13\]"'
    rng = numbel.Generator(5)
    for call in (
        lambda: rng.categorical(OnDevice()),
        lambda: rng.gumbel(size=3, like=OnDevice()),
        lambda: numbel.gumbel_softmax_vjp(OnDevice(), OnDevice()),
    ):
        with pytest.raises(RuntimeError, match=missing):
            call()
    assert rng.draw == 0


@pytest.mark.long
def test_the_command_line_samples_on_a_device(tmp_path):
    """The same files from either device, in the simulator; a bad row by its place in the file."""
    pytest.importorskip("typer")
    logits = np.random.default_rng(1).standard_normal((2, 3, 20)).astype(np.float32)
    np.save(tmp_path / "x.npy", logits)
    logits[1, 2, 4] = np.nan
    np.save(tmp_path / "bad.npy", logits)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'cuda')!r}); import simulator; simulator.mend();"
        "import numbel.cli as c; c._ON_DEVICE = 45;"  # two rows at a time
        "from numbel.__main__ import main; sys.argv = ['numbel', 'sample', *sys.argv[1:]]; main()"
    )

    def sample(file, device, *options):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, file, "--seed", "5", "--device", device, *options],
            env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    for device in ("cpu", "cuda"):
        files = "-o", f"{device}.npy", "--log-prob", f"{device}-log.npy"
        done = sample("x.npy", device, "--num-samples", "2", "--top-k", "9", "--top-p", "0.8", *files)
        assert done.returncode == 0, done.stderr
    for name in ("{}.npy", "{}-log.npy"):
        assert (tmp_path / name.format("cpu")).read_bytes() == (tmp_path / name.format("cuda")).read_bytes()
    printed = {sample("x.npy", device).stdout for device in ("cpu", "cuda")}
    assert len(printed) == 1
    assert len(printed.pop().split()) == 6
    done = sample("bad.npy", "cuda", "-o", "bad-out.npy")
    assert (done.returncode, "logits row 5 holds NaN at column 4" in done.stderr) == (2, True)
    assert not (tmp_path / "bad-out.npy").exists()
    assert sample("x.npy", "tpu").returncode == 2
