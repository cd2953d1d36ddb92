"""CUDA without a GPU: numbel.cuda on the host, every kernel in the simulator, and every kernel compiled."""

import importlib.util
import os
import subprocess
import sys
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


def test_gumbel_max_update_keeps_the_smaller_index_and_loses_nan():
    update = numbel.cuda.gumbel_max_update
    start = numbel.cuda.GUMBEL_MAX_START
    assert update(start, -np.inf, 1, 0, 0, 3) == (-np.inf, -1)
    assert update(start, np.nan, 1, 0, 0, 3) == (-np.inf, -1)
    value, index = update(start, 1e300, 1, 0, 0, 7)  # where the noise is rounded away, all perturbed logits are equal
    assert (value, index) == (1e300, 7)
    assert update((value, index), 1e300, 1, 0, 0, 3)[1] == 3
    assert update((value, index), 1e300, 1, 0, 0, 9)[1] == 7


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


def test_every_kernel_is_the_cpus_in_the_simulator():
    script = ROOT / "tests" / "cuda_checks.py"
    found = run(
        f"import runpy, sys; sys.argv = [{str(script)!r}]; sys.path.insert(0, {str(script.parent)!r});"
        f"runpy.run_path({str(script)!r}, run_name='__main__')",
        NUMBA_ENABLE_CUDASIM="1",
    )
    assert found.split() == ["float32", "equal", "float64", "equal", "float16", "equal", "bfloat16", "equal"]


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
plain = nvvm.compile_ir
def strict(ir, **options): return plain(ir, **options | {"fma": 0})

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

def user(out, seed, draw):
    i = cuda.grid(1)
    if i < out.size:
        state = numbel.cuda.gumbel_max_update(numbel.cuda.GUMBEL_MAX_START, 0.5, seed, draw, i, 3)
        out[i] = (
            state[0] + numbel.cuda.uniform_float32(seed, draw, i, 0) + numbel.cuda.exponential_float32(seed, draw, i, 0)
            + numbel.cuda.gumbel_float32(seed, draw, i, 0) + numbel.cuda.uniform_float64(seed, draw, i, 0)
            + numbel.cuda.exponential_float64(seed, draw, i, 0) + numbel.cuda.gumbel_float64(seed, draw, i, 0)
        )

kernels = {("user", ""): (user, (types.Array(float64, 1, "C"), uint64, uint64))}
for module in launch.MODULES:
    for form in FORMS:
        for name, kernel in module.kernels(form).items():
            kernels[name, form] = kernel
fused = lambda ptx: len(re.findall(r"fma[.]rn[.]f", ptx))
for (name, form), (function, signature) in kernels.items():
    for cc in ((8, 0), (9, 0)):
        arch = f"sm_{cc[0]}{cc[1]}"
        nvvm.compile_ir = plain
        ptx, _ = cuda.compile_ptx(function, signature, cc=cc, launch_bounds=128)
        cubin, log = link(ptx, arch)
        registers = max(map(int, re.findall(r"Used ([0-9]+) registers", log)))
        spills = sum(map(int, re.findall(r"([0-9]+) bytes (?:stack frame|spill)", log)))
        nvvm.compile_ir = strict
        unfused, _ = cuda.compile_ptx(function, signature, cc=cc, launch_bounds=128)
        exact = re.sub(r"\\\\b(mul|add|sub)[.](f32|f64)", r"\\\\1.rn.\\\\2", ptx)
        print(
            name, form or "-", arch, registers, spills, int(".approx" in ptx), int(".ftz" in ptx),
            fused(ptx) - fused(unfused), int(code(cubin) == code(link(exact, arch)[0])),
        )
'''


def can_compile():
    try:
        from numba import cuda

        return cuda.implementation == "NVIDIA" and all(
            importlib.util.find_spec(name) for name in ("cuda.core", "nvidia.cu13")
        )
    except (ImportError, AttributeError):
        return False


@pytest.mark.parametrize(
    "forms",
    [("float32",), pytest.param(("float64", "float16", "bfloat16"), marks=pytest.mark.long)],
    ids=lambda forms: forms[0],
)
def test_every_kernel_compiles_to_exact_machine_code(forms):
    """No spill, no local memory, and nothing that rounds otherwise than the CPU does.

    `.approx` and `.ftz` do not occur. NVVM fuses no product with a sum (a compilation without its contraction has as
    many fma), nor does ptxas (forbidding it changes no instruction).
    """
    if not can_compile():
        pytest.skip('needs pip install "numba-cuda[cu13]"')
    for line in run(f"FORMS = {forms!r}\n" + _COMPILE.replace("\\\\", "\\")).splitlines():
        name, _, _, registers, spills, approximate, flushed, fused, equal = line.split()
        assert int(registers) <= 255
        # a weight times a power of two is exact, fused or not
        allowed = 2 if name == "block_nodes" else 0
        assert (int(spills), int(approximate), int(flushed), int(equal)) == (0, 0, 0, 1), line
        assert int(fused) <= allowed, line
