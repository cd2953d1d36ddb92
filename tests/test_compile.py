"""Compiling: what an entry point may need, what inner functions may be asked, who is told, what warmup prepares."""

import functools
import gc
import importlib
import logging
import math
import os
import pty
import struct
import subprocess
import sys
import typing

import numba
import numpy as np
import pytest
from numba import float64, int64, types

import numbel
import numbel.cuda
from numbel._cpu import drivers, memory, parameters
from numbel._host import warmup
from numbel._jit import inlined, njit
from numbel._machine_code import compiler, entries

TWO = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)

# --- Numba's internals


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("numba.core.codegen", "JITCodeLibrary"),
        ("numba.core.codegen", "CPUCodegen._create_empty_module CPUCodegen._add_module"),
        ("numba.core.codegen", "CPUCodeLibrary._optimize_final_module CPUCodeLibrary._get_module_for_linking"),
        ("numba.core.compiler", "Compiler Flags compile_extra"),
        ("numba.core.compiler_machinery", "PassManager _pass_registry register_pass"),
        ("numba.core.lowering", "Lower.setup_function"),
        ("numba.core.typed_passes", "NativeLowering NoPythonBackend NopythonTypeInference"),
        ("numba.core.typed_passes", "PreLowerStripPhis._strip_phi_nodes"),
        ("numba.core.untyped_passes", "TranslateByteCode FixupArgs RewriteSemanticConstants DeadBranchPrune"),
        ("numba.core.untyped_passes", "GenericRewrites ReconstructSSA"),
        ("numba.core.registry", "CPUDispatcher cpu_target cpu_target.options"),
        ("numba.core.runtime.nrt", "rtsys"),
        ("numba.core.typing.templates", "AbstractTemplate infer_global"),
        ("numba.core.base", "BaseContext.refresh BaseContext.install_registry BaseContext.get_abi_sizeof"),
        ("numba.core.dispatcher", "Dispatcher.get_call_template"),
        ("numba.core.typing.context", "BaseContext.refresh BaseContext.resolve_function_type"),
        ("numba.np.ufunc.parallel", "_launch_threads"),
    ],
)
def test_numba_still_has_what_we_rest_on(module, names):
    for name in names.split():
        try:
            functools.reduce(getattr, name.split("."), importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            pytest.fail(f"Numba {numba.__version__} broke numbel._machine_code.compiler: {error}")


def test_numbas_context_is_left_as_it_was():
    from numba.core.registry import cpu_target

    context = cpu_target.target_context
    with compiler._quickly():
        assert "refresh" in vars(context)
    assert "refresh" not in vars(context)
    assert "get_abi_sizeof" not in vars(context)
    assert "resolve_function_type" not in vars(context.typing_context)


# --- inner functions

EXTREMES = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan]


@njit
def _smaller(a, b):
    return min(a, b)


@njit
def _larger(a, b):
    return max(a, b)


@njit
def _twice(n):
    return n * 2


def test_a_constant_is_no_type():
    """Numba's dispatchers take 3 and 4 for two types: the largest functions of `truncated` were compiled twice."""

    @numba.njit
    def call(n):
        return _twice(3) + _twice(4) + _twice(n)

    assert call(5) == 24
    assert len(_twice.overloads) == 1


@pytest.mark.parametrize(("ours", "pythons"), [(_smaller, min), (_larger, max)])
def test_min_and_max_are_pythons(ours, pythons):
    @numba.njit
    def call(a, b):
        return ours(a, b)

    for dtype in (np.float64, np.float32):
        for a in map(dtype, EXTREMES):
            for b in map(dtype, EXTREMES):
                expected, found = pythons(a, b), dtype(call(a, b))
                assert found.tobytes() == expected.tobytes() or (math.isnan(expected) and math.isnan(found))
    top = (1 << 63) + 5
    for a, b in ((np.int64(-3), np.int64(2)), (np.uint64(top), np.uint64(2)), (np.int32(-7), np.int32(-8))):
        assert call(a, b) == pythons(a, b)
        assert call(b, a) == pythons(b, a)


@inlined
def _half(x):
    return x * 0.5


@njit
def _chain(x, n):
    for _ in range(n):
        x = _half(x) + 1.0
    return x


def test_python_may_call_an_inner_function():
    assert _half(3.0) == 1.5
    assert _chain(8.0, 2) == 3.5


def test_another_users_function_may_call_an_inner_one():
    @numba.njit
    def theirs(n):
        total = 0.0
        for i in range(n):
            total += _chain(float64(i), int64(2)) + numbel.cuda.gumbel_float64(5, 0, 0, i)
        return total

    expected = sum(_chain.py_func(float(i), 2) + numbel.Generator(5).gumbel(size=4, dtype=float)[i] for i in range(4))
    assert theirs(4) == pytest.approx(expected)
    assert theirs.overloads  # compiled by Numba's own compiler


def test_a_functions_environment_is_not_needed():
    """An inner function has no address: Numba must never write its environment to it."""
    library = next(iter(_chain.overloads.values()), None) or _chain.get_call_template((float64, int64), {})
    assert library is not None
    for compiled in _chain.overloads.values():
        assert compiled.library.get_pointer_to_function("anything") == 0


# --- entry points


def test_an_entry_point_that_calls_what_nobody_has_is_refused():
    nobody_has = types.ExternalFunction("nobody_has_it", float64(float64))

    def entry(job):
        if nobody_has(float64(job)) > 2.0:
            memory.fence()

    with pytest.raises(RuntimeError, match="compiled code calls nobody_has_it, which nobody has"):
        compiler.compile_entry(entry, "numbel_unknown", 1)


def test_an_entry_point_runs_without_python():
    def entry(target, value):
        from_job(target, value)

    @njit
    def from_job(target, value):
        memory.store(int64(0), target, int64(0), value * int64(2))

    code, symbol = compiler.compile_entry(entry, "numbel_test_double", 2)
    assert symbol == "numbel_test_double"
    kept = np.zeros(1, np.int64)
    made = entries.Entry(lambda: entry, "test_double", 2)
    made._address = compiler.load_entry(code, symbol)
    made(kept.ctypes.data, 21)
    assert kept[0] == 42


# --- parameters

DRIVERS = {name: drivers.driver(name, "float64") for name in sorted(drivers.WORKERS)} | {
    name: getattr(drivers, name) for name in ("spawn_seeds", "join_rows", "merge_winners")
}


def made_up(form, **values):
    """Parameters of a class: the values of fields of these names; else 0, 1.0 and no array."""

    def value(name, kind):
        if hasattr(kind, "_fields"):
            return made_up(kind, **values)
        return values.get(name, {float: 1.0, int: 0, parameters.Word: 0}.get(kind))

    return form(**{name: value(name, kind) for name, kind in typing.get_type_hints(form).items()})


def groups(form):
    """A class of parameters, and those of its groups."""
    yield form
    for kind in typing.get_type_hints(form).values():
        if hasattr(kind, "_fields"):
            yield from groups(kind)


@pytest.mark.parametrize("name", DRIVERS)
def test_no_field_can_be_left_out(name):
    """At fcef85c a kernel ran with zeros in place of what it was not told: one of three entropies was written."""
    form = DRIVERS[name].parameters
    for group in groups(form):
        assert not group._field_defaults, group
        whole = made_up(group)._asdict()
        for field in whole:
            rest = {key: value for key, value in whole.items() if key != field}
            with pytest.raises(TypeError, match=f"missing 1 required positional argument: '{field}'"):
                group(**rest)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_number_cannot_be_none_nor_a_float_an_address(name):
    """What is packed has the class's types: eight bytes each, in the order of its fields."""
    form = DRIVERS[name].parameters
    leaves = parameters.places(form)
    assert list(leaves.values()) == list(range(6, 6 + len(leaves)))
    assert parameters.layout(form).itemsize == 8 * len(leaves)
    parameters.Call(made_up(form))
    for path in leaves:
        with pytest.raises((struct.error, TypeError)):
            parameters.Call(replaced(made_up(form), path.split("."), "text"))


def replaced(group, path, value):
    """A copy of parameters with another value at a path of fields."""
    first, *rest = path
    return group._replace(**{first: replaced(getattr(group, first), rest, value) if rest else value})


def test_a_call_keeps_its_arrays():
    call = parameters.Call(made_up(DRIVERS["spawn_seeds"].parameters, seeds=np.zeros(4, np.int64), count=4))
    (held,) = (each for each in gc.get_referents(call._kept) if isinstance(each, np.ndarray))
    assert parameters.address_of(held) == call.words[parameters.places(type(call._kept))["seeds"]]


_WITHOUT_SCRATCH = {"accumulated", "given_log_prob", "ragged_gather", "table_head", "top_k_weights"}


@pytest.mark.parametrize("worker", sorted(set(drivers.WORKERS) - _WITHOUT_SCRATCH))
def test_a_worker_that_lacks_scratch_does_nothing_but_say_so(worker):
    """There is no array, no result and no row: touching anything ends the process."""
    dtype = "float64" if worker.endswith("float64") or worker in warmup._OF_FLOAT64 else "float32"
    driver = drivers.driver(worker, dtype)
    fields = {"columns": 300, "rows": 20, "segments": 1, "segment_blocks": 32, "samples": 3, "k": 2, "width": 32}
    fields |= {"item_size": 4, "column_stride": 4, "chunk_size": 1, "row_interleave": 1}
    call = parameters.Call(made_up(driver.parameters, **fields))
    call.limit(0, 20)
    lent = np.full(32, 7, np.int64)
    parameters.lend(call.words, lent.ctypes.data, 64)
    before = np.array(call.words)
    driver.serial(call.address)
    assert parameters.scratch_needed(call.words) > 64
    assert np.all(lent[1:] == 7)  # its first word counts
    changed = {parameters.Work._fields[at] for at in np.flatnonzero(np.array(call.words) != before)}
    assert changed == {"next_scratch", "scratch_needed"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_that_cannot_be_had_is_an_error():
    """At fcef85c workers allocated in the parallel loop: indices and keys of 0, and no error."""
    program = """
import resource, sys
import numpy as np, numbel
from numbel._host import warmup
warmup.prepare([[("top_k", "float32")]])
numbel.Generator(5).gumbel_top_k(np.zeros((2, 1 << 17), np.float32), 3)
logits = np.zeros((2, 1 << 23), np.float32)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for more in (250, 330, 410, 490):
    resource.setrlimit(resource.RLIMIT_AS, (size + (more << 20), -1))
    try:
        found = numbel.Generator(5).gumbel_top_k(logits, 1 << 22)
    except MemoryError:
        continue
    assert np.all(found.perturbed[:, :-1] >= found.perturbed[:, 1:])
    assert found.perturbed.min() > -4.0, more
    assert len(np.unique(found.indices[0])) == 1 << 22, more
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


# --- who is told

#: What is compiled soonest, and told of at once.
_IMPATIENT = (
    "from numbel._machine_code import entries; entries._PATIENCE = 0.01; import numbel; numbel.Generator(5).spawn(1)"
)


def heard_on_a_terminal(program, **changes):
    """What a process writes to the terminal that is its stderr."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NUMBEL_QUIET"} | {"NUMBEL_CACHE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=theirs, stdout=subprocess.PIPE, env=environment | changes, timeout=300
    )
    os.close(theirs)
    assert done.returncode == 0
    assert done.stdout == b""
    heard = b""
    try:
        while piece := os.read(ours, 1 << 16):
            heard += piece
    except OSError:  # Linux's end of a terminal
        pass
    os.close(ours)
    return heard.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudoterminals")
def test_a_compile_says_so_once_on_a_terminal():
    heard = heard_on_a_terminal(_IMPATIENT + "; numbel.Generator(5).gumbel(size=5)")
    assert heard.count("numbel: compiling spawn_seeds") == 1
    assert heard.count("numbel:") == 1
    assert "`numbel warmup` compiles everything beforehand" in heard


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudoterminals")
@pytest.mark.parametrize(
    ("program", "changes"),
    [
        (_IMPATIENT, {"NUMBEL_QUIET": "1"}),
        (f"import logging; logging.getLogger('numbel').setLevel(logging.WARNING); {_IMPATIENT}", {}),
    ],
    ids=["quiet", "logging"],
)
def test_it_can_be_silenced(program, changes):
    assert heard_on_a_terminal(program, **changes) == ""


def test_nothing_is_written_where_nobody_watches():
    done = subprocess.run(
        [sys.executable, "-c", _IMPATIENT],
        env=os.environ | {"NUMBEL_CACHE": "0", "NUMBEL_QUIET": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_log_is_told(monkeypatch, caplog):
    monkeypatch.setattr(entries, "_announcements", iter([0]))
    monkeypatch.delenv("NUMBEL_QUIET", raising=False)
    with caplog.at_level(logging.INFO, logger="numbel"):
        entries._announce("grouped_float32")
    assert "compiling grouped_float32" in caplog.text


# --- warmup


def calls(name, dtype):
    """Calls of a public function that take every way through it."""
    rng = numbel.Generator(0)
    shapes = ((1, 70), (1, 2), (1, 1 << 17), (1 << 16, 2), (20, 300))
    logits = [np.zeros(shape, dtype) for shape in shapes]
    for x in logits:
        if name in ("categorical", "sample"):
            for method in ("grouped", "gumbel_max"):
                for limits in ({}, {"top_k": 1}, {"top_p": 0.5}):
                    getattr(rng, name)(x, method=method, **limits)
        elif name == "gumbel":
            rng.gumbel(size=x.shape, dtype=dtype)
        elif name == "gumbel_softmax":
            rng.gumbel_softmax(x)
        elif name == "gumbel_softmax_vjp":
            numbel.gumbel_softmax_vjp(x, x, 1.0)
        elif name == "gumbel_top_k":
            rng.gumbel_top_k(x, 1)
        elif name == "conditional_gumbel":
            rng.conditional_gumbel(x, np.zeros(len(x), np.int64))
        elif name == "multinomial":
            rng.multinomial(100, x)
        elif name == "log_prob":
            numbel.log_prob(x, np.zeros(len(x), np.int64))
        elif name in ("logsumexp", "entropy"):
            getattr(numbel, name)(x)
        elif name == "CategoricalAccumulator":
            for method in ("grouped", "gumbel_max"):
                numbel.CategoricalAccumulator(rng, method=method).update(x).result()
    if name in ("categorical", "sample"):
        getattr(rng, name)(logits[0], 1 << 10)
        getattr(rng, name)(logits[2], 1 << 13)
        for method in ("grouped", "gumbel_max"):
            getattr(rng, name)(np.zeros(600, dtype), offsets=[0, 500, 600], method=method)
            getattr(rng, name)(np.zeros(600, dtype), offsets=[0, 5, 600], method=method, top_k=2)
    elif name == "CategoricalTable":
        numbel.CategoricalTable(np.zeros(2, dtype)).sample(rng, 2)
        numbel.CategoricalTable(np.zeros(1 << 17, dtype)).sample(rng, 2)
    elif name == "top_k_weights":
        chosen = numbel.TopK(
            np.array([[0]]), np.array([[1.0]]), np.array([0.0], np.float32), np.array([-1.0])
        )  # as gumbel_top_k gives it
        numbel.top_k_weights(chosen, logits[1])


@pytest.mark.parametrize("name", warmup.FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_warmup_of_a_function_prepares_what_it_runs(name, dtype, monkeypatch):
    run, plain = set(), drivers.driver

    def driver(worker, element):
        run.add((worker, element))
        return plain(worker, element)

    monkeypatch.setattr(drivers, "driver", driver)
    calls(name, dtype)
    prepared = {spec for specs in warmup.needed([dtype], [name]) for spec in specs}
    assert run <= prepared
    # and nothing for nothing: what is left is taken by other shapes, masks or strides only
    assert len(prepared - run) <= 1, prepared - run


def test_warmup_knows_every_worker():
    every = {worker for specs in warmup.needed(["float32", "float64"]) for worker, _ in specs}
    assert every == set(drivers.WORKERS)
    assert {name for name in warmup.FUNCTIONS if not hasattr(numbel.Generator, name)} <= set(numbel.__all__)


def test_warmup_of_what_is_not_there():
    with pytest.raises(ValueError, match="functions: 'categoric' is none of categorical, "):
        numbel.warmup(functions=["categoric"])


_COUNTED = """
import sys
from numba.core import event
import numbel
counter = event.RecordingListener()
with event.install_listener("numba:compile", counter):
    {program}
print(len(counter.buffer))
"""


def counted(program, **changes):
    """How often a fresh process compiled."""
    done = subprocess.run(
        [sys.executable, "-c", _COUNTED.format(program=program)],
        env=os.environ | {name: str(value) for name, value in changes.items()},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


@pytest.mark.long
def test_warmup_compiles_in_other_processes_and_once(tmp_path):
    warm = "numbel.warmup(['float32', 'float16'], functions=['gumbel', 'entropy'])"
    assert counted(warm, NUMBA_CACHE_DIR=tmp_path) < 60  # the few that are no workers; noise alone has 100 and more
    assert counted(warm, NUMBA_CACHE_DIR=tmp_path) == 0
    assert counted("numbel.Generator(5).gumbel(size=1 << 17)", NUMBA_CACHE_DIR=tmp_path) == 0


@pytest.mark.long
def test_warmup_without_a_cache_compiles_here(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert counted("numbel.warmup(functions=['gumbel'])", NUMBA_CACHE_DIR=blocked) > 10


@pytest.mark.long
def test_two_warmups_at_once(tmp_path):
    program = "import numbel; numbel.warmup(functions=['gumbel', 'entropy', 'multinomial'])"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for one in both:
        assert one.communicate(timeout=600)[1] == b""
        assert one.returncode == 0
    assert counted("numbel.warmup(functions=['gumbel', 'entropy', 'multinomial'])", NUMBA_CACHE_DIR=tmp_path) == 0
