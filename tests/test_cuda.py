"""CUDA without a GPU: numbel.cuda on the host, every kernel in the simulator, and every kernel compiled."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import scipy.stats

import numbel
import numbel.cuda
import oracle

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (41, 5000)


def run(text, **environment):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_script(name, *formats, races=False):
    """What a script beside this file prints in the simulator; AssertionError in it where kernels race, if asked for."""
    script = ROOT / "tests" / name
    return run(
        f"import runpy, sys; sys.argv = {[str(script), *formats]!r}; sys.path.insert(0, {str(script.parent)!r});"
        f"runpy.run_path({str(script)!r}, run_name='__main__')",
        NUMBA_ENABLE_CUDASIM="1",
        NUMBEL_RACES=str(int(races)),
    )


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
    run(text, NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.long
def test_some_kernels_in_the_simulator():
    """What planted bugs are looked for with, in seconds: some twelve words to refine, a short row, a full block."""
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(ROOT / 'tests')!r}); warnings.simplefilter('ignore');"
        "import cuda_checks as c; from cuda_checks import np; c.check_noise(np.float32, (1, 25_000));"
        "c.check_sample(c.logits((2, 5), np.float32), num_samples=4);"
        "c.check_sample(c.logits((1, 4099), np.float32)); c.check_counter()"
    )
    run(code, NUMBA_ENABLE_CUDASIM="1")


def test_some_ragged_and_short_rows_in_the_simulator():
    """What planted bugs of these are looked for with."""
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(ROOT / 'tests')!r}); warnings.simplefilter('ignore');"
        "import cuda_checks_ragged as c; c.check_some()"
    )
    run(code, NUMBA_ENABLE_CUDASIM="1")


def some_truncations(races):
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(ROOT / 'tests')!r}); warnings.simplefilter('ignore');"
        "import cuda_checks_truncation as c; from cuda_checks_truncation import np;"
        "c.check_settings(np.float32, 40, ({'top_k': 20}, {'top_k': 25, 'top_p': 0.9}), samples=1)"
    )
    run(code, NUMBA_ENABLE_CUDASIM="1", NUMBEL_RACES=str(int(races)))


@pytest.mark.long
def test_some_truncations_in_the_simulator():
    """What planted bugs are looked for with, in seconds: ties at a cut, top_p of what top_k keeps, by histograms."""
    some_truncations(races=False)


@pytest.mark.long
def test_some_truncations_do_not_race_in_the_simulator():
    some_truncations(races=True)


def test_some_choices_in_the_simulator():
    """What planted bugs are looked for with, in seconds: ties that sort by column, marked columns, ties counted."""
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(ROOT / 'tests')!r}); warnings.simplefilter('ignore');"
        "import cuda_checks_topk as c; from cuda_checks_topk import np;"
        "x = np.zeros((2, 40), np.float32); x[1, ::3] = -0.0; c.check_top_k(x, 5, False, temperature=[0.0, 1.0]);"
        "x[0, :5] = 1; c.check_densities(x)"
    )
    run(code, NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.long
def test_a_table_and_counts_in_the_simulator():
    """What planted bugs are looked for with: the entries of a table of two blocks, and counts over it."""
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(ROOT / 'tests')!r}); warnings.simplefilter('ignore');"
        "import cuda_checks_tables as c, numpy as np; x = c.logits((1, 4099), np.float32);"
        "c.check_table(x[0]); c.check_counts(x, 1 << 40)"
    )
    run(code, NUMBA_ENABLE_CUDASIM="1")


EQUAL = ["float32", "equal", "float64", "equal", "float16", "equal", "bfloat16", "equal"]


@pytest.mark.long
def test_every_method_of_the_first_kind_is_the_cpus_in_the_simulator():
    assert run_script("cuda_checks.py").split() == EQUAL


@pytest.mark.long
def test_every_other_method_is_the_cpus_and_no_kernel_races_in_the_simulator():
    """Two scripts at a time, the long ones first; the tests above see a part of each."""
    scripts = sorted(path.name for path in (ROOT / "tests").glob("cuda_checks*.py"))
    assert len(scripts) == 6
    others = ("float64", "float16", "bfloat16")
    tasks = [(script, "float32") for script in scripts] + [(script, *others) for script in scripts[1:]]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda task: run_script(*task, races=task[1:] == ("float32",)), tasks)
        for task, lines in zip(tasks, found, strict=True):
            assert lines.split() == [word for form in task[1:] for word in (form, "equal")], task


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
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
import cuda_checks, numpy
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
    found = run(code, NUMBA_ENABLE_CUDASIM="1", NUMBEL_RACES="1")
    assert found == "" if said == "" else said in found


# --- compiled without a GPU

_COMPILE = '''
import re, struct
import numba.cuda.dispatcher
from numba import cuda, float64, uint64, types
from numba.cuda.cudadrv import nvvm
from cuda.core import Linker, LinkerOptions, ObjectCode
import numbel.cuda
from numbel._cuda import launch

class Device:
    compute_capability = (9, 0)

numba.cuda.dispatcher.get_current_device = lambda: Device
plain, typed = nvvm.compile_ir, {}
def keep(ir, **options):
    typed.update(ir=ir, options=options)
    return plain(ir, **options)
nvvm.compile_ir = keep

def compiled(function, signature, bounds):
    """A function of a target (and NVVM's options): PTX. Numba's part, most of the time, is done once for all."""
    first, _ = cuda.compile_ptx(function, signature, cc=TARGETS[0], launch_bounds=bounds)
    made = dict(typed)
    def ptx(cc, **more):
        if cc == TARGETS[0] and not more:
            return first
        options = made["options"] | {"arch": f"compute_{cc[0]}{cc[1]}"} | more
        return plain(made["ir"], **options).decode().strip("\\0\\n ")
    return ptx

def link(ptx, arch):
    """Machine code, and what ptxas says."""
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, ptxas_options=["-v"]))
    return linker.link("cubin").code, linker.get_info_log()

def code(elf):
    """The sections of instructions of an ELF file."""
    table, = struct.unpack_from("<Q", elf, 0x28)
    size, number, names = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(number)]
    names = sections[names][4]
    texts = [(elf[names + s[0] : elf.index(0, names + s[0])], elf[s[4] : s[4] + s[5]]) for s in sections]
    return [text for text in texts if text[0].startswith(b".text")]

def arithmetic(elf):
    """How many instructions add, multiply and do both (FMUL, FADD, FFMA, DMUL, DADD, DFMA)."""
    opcodes = [body[at] for _, body in code(elf) for at in range(0, len(body), 16)]
    return [opcodes.count(one) for one in (0x20, 0x21, 0x23, 0x28, 0x29, 0x2B)]

def user(out, seed, draw):
    i = cuda.grid(1)
    if i < out.size:
        state = numbel.cuda.gumbel_max_update(numbel.cuda.GUMBEL_MAX_START, 0.5, seed, draw, i, 3)
        out[i] = (
            state[0] + numbel.cuda.uniform_float32(seed, draw, i, 0) + numbel.cuda.exponential_float32(seed, draw, i, 0)
            + numbel.cuda.gumbel_float32(seed, draw, i, 0) + numbel.cuda.uniform_float64(seed, draw, i, 0)
            + numbel.cuda.exponential_float64(seed, draw, i, 0) + numbel.cuda.gumbel_float64(seed, draw, i, 0)
        )

kernels = {("user", "", "C"): (user, (types.Array(float64, 1, "C"), uint64, uint64))}
for module in launch.MODULES:
    for form in FORMS:
        for layout in LAYOUTS:
            if layout != "R" or module in launch.RAGGED:
                for name, kernel in module.kernels(form, layout).items():
                    kernels[name, form, layout] = kernel
fused = lambda ptx: len(re.findall(r"fma[.]rn[.]f", ptx))
done = set()
for at, ((name, form, layout), (function, signature)) in enumerate(kernels.items()):
    bounds = launch.bounds(name, form)
    # those that know nothing of formats and layouts are one and the same
    if at % SHARES != SHARE or (function, str(signature), bounds) in done:
        continue
    done.add((function, str(signature), bounds))
    ptx_of = compiled(function, signature, bounds)
    for cc in TARGETS:
        arch, ptx = f"sm_{cc[0]}{cc[1]}", ptx_of(cc)
        cubin, log = link(ptx, arch)
        registers = max(map(int, re.findall(r"Used ([0-9]+) registers", log)))
        spills = sum(map(int, re.findall(r"([0-9]+) bytes (?:stack frame|spill)", log)))
        more, same = 0, True
        if layout == "C":  # what decides on fused products is the same for all layouts
            unfused = ptx_of(cc, fma=0)
            exact = re.sub(r"\\\\b(mul|add|sub)[.](f32|f64)", r"\\\\1.rn.\\\\2", ptx)
            more, same = fused(ptx) - fused(unfused), arithmetic(cubin) == arithmetic(link(exact, arch)[0])
        print(name, form or "-", arch, registers, spills, int(".approx" in ptx), int(".ftz" in ptx), more, int(same))
'''


def can_compile():
    try:
        from numba import cuda

        return cuda.implementation == "NVIDIA" and all(
            importlib.util.find_spec(name) for name in ("cuda.core", "nvidia.cu13")
        )
    except (ImportError, AttributeError):
        return False


@pytest.mark.long
@pytest.mark.parametrize(
    ("forms", "layouts"),
    [
        (("float32",), ("C",)),
        (("float32",), ("A", "R")),
        (("float64", "float16", "bfloat16"), ("A", "C", "R")),
    ],
    ids=("float32, contiguous", "float32, other layouts", "other formats"),
)
def test_every_kernel_compiles_to_exact_machine_code(forms, layouts):
    """No spill, no local memory, and nothing that rounds otherwise than the CPU does.

    `.approx` and `.ftz` do not occur. NVVM fuses no product with a sum (a compilation without its contraction has as
    many fma), nor does ptxas (forbidding it changes no number of sums and products).
    """
    if not can_compile():
        pytest.skip('needs pip install "numba-cuda[cu13]"')
    chosen = f"FORMS, LAYOUTS, TARGETS, SHARES = {forms!r}, {layouts!r}, ((8, 0), (9, 0)), 2\n"
    texts = [f"{chosen}SHARE = {share}\n" + _COMPILE.replace("\\\\", "\\") for share in range(2)]
    with ThreadPoolExecutor(2) as pool:
        lines = "".join(pool.map(run, texts)).splitlines()
    assert len(lines) > 40
    for line in lines:
        name, _, _, registers, spills, approximate, flushed, fused, equal = line.split()
        assert int(registers) <= 255
        # a weight times a power of two is exact, fused or not: one such product in each copy of the loops over a block
        allowed = {"block_nodes": 4, "survey": 4, "kept_nodes": 10, "rest_nodes": 4}.get(name, 0)
        assert (int(spills), int(approximate), int(flushed), int(equal)) == (0, 0, 0, 1), line
        assert int(fused) <= allowed, line


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
    first = run(_KEPT, **place).split()
    assert first[:2] == ["True", "True"]
    assert run(_KEPT, **place).split() == ["False", *first[1:]]
    (file,) = tmp_path.rglob("*.cuda")
    file.write_bytes(file.read_bytes()[:-1])
    assert run(_KEPT, **place).split() == first
    assert run(_KEPT, NUMBEL_CACHE="0", **place).split() == first
    refused = _KEPT.replace(
        "lambda kernel: kernel", "lambda kernel: 1 / (kernel._type_annotation is not None) and kernel"
    )
    assert run(refused, **place).split() == first  # the driver does not take what was loaded
    assert run(_KEPT, **place).split() == ["False", *first[1:]]


# --- the command for a GPU, and what is said without one


@pytest.mark.long
def test_torch_on_a_device_in_the_simulator():
    pytest.importorskip("torch")
    assert run_script("torch_cuda_checks.py").split() == EQUAL


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
    code = (
        "import sys; from benchmarks.gpu import __main__ as command, checks;"
        "plain = checks._sweep_host; checks._sweep_host = lambda words: plain(words) + plain(words)[0, 0] + 1;"
        "command.checks = lambda small, seconds: {'all words': lambda: checks.all_words(64)};"
        f"sys.exit(command.main(['--checks-only', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stderr
    assert "FAIL all words" in done.stdout


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
    from numbel import _libraries

    if numba.config.ENABLE_CUDASIM or _libraries._missing() is None:
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
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import simulator; simulator.mend();"
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
