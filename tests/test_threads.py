"""Threading layers, Python threads, forks and processes: no crash, no deadlock, the same bits.

Each script runs in its own process and prints hashes, which must be those of a single thread.
"""

import functools
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import numbel

LAYERS = ("omp", "workqueue", "tbb")
each_layer = pytest.mark.parametrize("layer", LAYERS)

_PRELUDE = """
    import hashlib, multiprocessing, os, sys, threading
    import numba, numpy as np, numbel

    # 4 rows of 2^17 columns: large enough for the parallel kernels
    LOGITS = ((np.arange(4 << 17) * 40503) % 65536 / 4096.0).astype(np.float32).reshape(4, 1 << 17)

    def work(rng):
        sample = rng.sample(LOGITS)
        noise = rng.gumbel(size=(2, 1 << 17))
        coupled = rng.categorical(LOGITS, method="gumbel_max")
        soft = rng.gumbel_softmax(LOGITS, 0.5)
        gradient = numbel.gumbel_softmax_vjp(soft, LOGITS, 0.5)
        arrays = (*sample, noise, coupled, soft, *gradient)
        return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()

    def draw(rng):
        return hashlib.sha256(rng.sample(LOGITS, 2).log_prob.tobytes()).hexdigest()

    def fresh(seed):
        return work(numbel.Generator(seed))

    def in_threads(function, arguments):
        found = [None] * len(arguments)
        gate = threading.Barrier(len(arguments))
        def run(i):
            gate.wait()
            found[i] = function(arguments[i])
        team = [threading.Thread(target=run, args=(i,)) for i in range(len(arguments))]
        for thread in team: thread.start()
        for thread in team: thread.join()
        return found

    def forked(function):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write, function().encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0, "the child died"
        return text
"""
exec(textwrap.dedent(_PRELUDE.split("def in_threads")[0]), globals())


@functools.cache
def expected(seed):
    """What `fresh` must print: the hash of draws 0 to 3 of this seed."""
    return fresh(seed)  # noqa: F821


@functools.cache
def expected_draws(seed, count):
    """What one generator draws one after the other."""
    rng = numbel.Generator(seed)
    return sorted(draw(rng) for _ in range(count))  # noqa: F821


def run(tmp_path, body, layer=None, count=4):
    """The lines that a script prints."""
    script = tmp_path / "script.py"
    main = "if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(body), "    ")
    script.write_text(textwrap.dedent(_PRELUDE) + "\n" + main)
    environment = dict(os.environ, NUMBA_NUM_THREADS=str(count))
    if layer is not None:
        environment["NUMBA_THREADING_LAYER"] = layer
    # where pip puts the library of tbb
    libraries = [os.path.join(sys.prefix, "lib"), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # Numba's tbb pool says on stdout that it cannot follow a fork; the child goes on without it
    lines = (line for line in done.stdout.splitlines() if not line.startswith(("Attempted to fork", "Unable to join")))
    return " ".join(lines).split()


@functools.cache
def available(layer):
    """Whether numba can start this threading layer here, and why not."""
    code = (
        "import numba, numpy as np\n"
        "f = numba.njit(parallel=True)(lambda n: np.ones(n).sum())\n"
        "f(1000); print(numba.threading_layer())"
    )
    libraries = [os.path.join(sys.prefix, "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = dict(
        os.environ, NUMBA_THREADING_LAYER=layer, LD_LIBRARY_PATH=os.pathsep.join(filter(None, libraries))
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    return done.stdout.strip() == layer, done.stderr.strip().rpartition("\n")[2]


def need(layer):
    """Skip unless the layer can be started."""
    works, reason = available(layer)
    if not works:
        pytest.skip(f"threading layer {layer} cannot be started: {reason}")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@each_layer
def test_python_threads(layer, tmp_path):
    need(layer)
    found = run(
        tmp_path,
        """
        print(*in_threads(fresh, list(range(8))))
        shared = numbel.Generator(99)
        print(*sorted(in_threads(draw, [shared] * 8) + in_threads(draw, [shared] * 8)))
        print(*in_threads(work, numbel.Generator(5).spawn(8)))
        print(numba.threading_layer())
        """,
        layer,
    )
    assert found[-1] == layer
    assert found[:8] == [expected(seed) for seed in range(8)]
    assert found[8:24] == expected_draws(99, 16)
    assert found[24:32] == [expected(child.seed) for child in numbel.Generator(5).spawn(8)]


@needs_fork
@each_layer
def test_forks(layer, tmp_path):
    need(layer)
    found = run(
        tmp_path,
        """
        import warnings
        warnings.simplefilter("ignore")
        print(forked(lambda: fresh(1)))  # before any parallel work
        print(fresh(1))
        print(forked(lambda: fresh(1)))  # after it
        print(forked(lambda: " ".join(in_threads(fresh, [1, 1]))))
        print(forked(lambda: forked(lambda: fresh(1))))
        print(fresh(1))  # the parent is none the worse
        print(numba.threading_layer())
        """,
        layer,
    )
    assert found[-1] == layer
    assert found[:-1] == [expected(1)] * 7


@needs_fork
@each_layer
def test_fork_while_threads_draw(layer, tmp_path):
    need(layer)
    found = run(
        tmp_path,
        """
        import warnings
        warnings.simplefilter("ignore")
        rng, stop = numbel.Generator(3), threading.Event()
        def busy():
            while not stop.is_set():
                rng.sample(LOGITS)
                rng.gumbel(size=3)
                rng.gumbel_softmax(LOGITS[0])
        team = [threading.Thread(target=busy) for _ in range(3)]
        fresh(1)
        numba.set_num_threads(1)
        fresh(1)  # serial kernels too: Numba's compiler lock does not survive a fork
        numba.set_num_threads(4)
        for thread in team: thread.start()
        for _ in range(10): print(forked(lambda: fresh(1)))
        stop.set()
        for thread in team: thread.join()
        """,
        layer,
    )
    assert found == [expected(1)] * 10


@pytest.mark.parametrize(
    ("layer", "start"), [*((layer, start) for layer in LAYERS for start in ("spawn", "fork")), ("omp", "forkserver")]
)
def test_multiprocessing(layer, start, tmp_path):
    need(layer)
    import multiprocessing

    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    found = run(
        tmp_path,
        f"""
        import warnings
        warnings.simplefilter("ignore")
        print(fresh(0))
        context = multiprocessing.get_context({start!r})
        with context.Pool(3) as pool:
            print(*pool.map(fresh, range(4)))
            print(*pool.map(work, numbel.Generator(5).spawn(4)))
        """,
        layer,
    )
    assert found[:5] == [expected(0)] + [expected(seed) for seed in range(4)]
    assert found[5:] == [expected(child.seed) for child in numbel.Generator(5).spawn(4)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_numba_num_threads(count, tmp_path):
    assert run(tmp_path, "print(fresh(1), *in_threads(fresh, [1, 2]))", count=count) == [
        expected(1),
        expected(1),
        expected(2),
    ]


def test_set_num_threads_is_obeyed(tmp_path):
    body = """
        before = numba.get_num_threads()
        for count in (1, 2, 3):
            numba.set_num_threads(count)
            print(fresh(1), numba.get_num_threads())
        """
    assert run(tmp_path, body) == [expected(1), "1", expected(1), "2", expected(1), "3"]


def test_seeds_of_children_in_threads():
    """Parameters must outlive their kernel: 1 in 4000 seeds was read from memory that another thread had taken."""
    due, found = [numbel.Generator(5, d).spawn(1) for d in range(400)], []

    def work():
        found.extend(numbel.Generator(5, d).spawn(1) == due[d] for _ in range(20) for d in range(400))

    team = [threading.Thread(target=work) for _ in range(4)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert len(found) == 4 * 20 * 400
    assert all(found)


def finished(program, **changes):
    """What a fresh process printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | changes, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_FORKED = """
import multiprocessing, sys
import numpy as np
import {library}
import numbel

logits = np.zeros((3, 100_000), np.float32)
{parent}

def child(found):
    rng = numbel.Generator(5)
    drawn = rng.categorical(logits).tolist()
    found.put([drawn, float(rng.gumbel_softmax(logits).sum()), numbel.entropy(logits).tolist()])
    numbel.show_config()

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    found = fork.Queue()
    process = fork.Process(target=child, args=(found,))
    process.start()
    try:
        drawn = found.get(timeout=60)[0]
        process.join(60)  # or the lines of both would mix
        print(drawn == numbel.Generator(5).categorical(logits).tolist())
        print(process.exitcode)
    finally:
        process.kill()
"""
posix_with_torch = pytest.mark.skipif(
    not hasattr(os, "fork") or importlib.util.find_spec("torch") is None, reason="needs fork and torch"
)


@posix_with_torch
@pytest.mark.parametrize("parent", ["torch.ones(1 << 20).sum()", "pass", "numbel.Generator(5).categorical(logits)"])
def test_a_child_of_a_process_whose_openmp_runs_does_not_wait_for_its_threads(parent):
    """torch's counts, which nobody knew of: a forked worker of a DataLoader waited for ever."""
    output = finished(_FORKED.format(library="torch", parent=parent)).splitlines()
    assert output[-2] == "True"
    assert output[-1] == "0"
    assert any(line.startswith("threads") and "1: a forked process may start none" in line for line in output) or any(
        line.split() == ["threading", "layer", "tbb"] for line in output
    )


@posix_with_torch
def test_torchs_number_of_threads_is_left_alone():
    program = """
import numpy as np, torch, numbel
torch.set_num_threads(1)
numbel.Generator(5).categorical(np.zeros((4, 1 << 18), np.float32))
print(torch.get_num_threads())
"""
    assert finished(program) == "1\n"


_FLUSHED = """
import numpy as np, torch, numbel

def draws():
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal((64, 100)).astype(dtype) * 3
        far = np.zeros((3, 70_000), dtype)
        far[:, ::2] = -87.5 if dtype is np.float32 else -708.2
        yield numbel.Generator(5).gumbel_softmax(x, 0.1).tobytes()
        yield numbel.Generator(5).gumbel_softmax(far, 0.9).tobytes()
        yield numbel.Generator(5).categorical(far, num_samples=5).tobytes()
        yield numbel.logsumexp(far).tobytes()
        yield numbel.Generator(5).gumbel_top_k(x, 3).perturbed.tobytes()
        yield numbel.Generator(5).categorical(x, top_p=0.9).tobytes()

if {first}:  # before the threads are started, which inherit it
    torch.set_flush_denormal(True)
one = list(draws())
torch.set_flush_denormal(not {first})
print(one == list(draws()))
print(torch.tensor([1e-42]).mul(1.0).item() == 0.0)
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("first", [True, False])
def test_the_same_bits_where_another_library_flushes_subnormals(first):
    if not __import__("torch").set_flush_denormal(False):
        pytest.skip("torch cannot flush subnormals on this processor")
    same, flushes = finished(_FLUSHED.format(first=first)).split()
    assert same == "True"
    assert flushes == str(not first)  # and its state is left as it was


_NESTED = """
import numba, numpy as np
import numbel

def draw(seed):
    return int(numbel.Generator(int(seed)).categorical(np.zeros(100_000, np.float32)))

@numba.njit(parallel=True)
def theirs(found):
    for i in numba.prange(len(found)):
        with numba.objmode(x="int64"):
            x = draw(i)
        found[i] = x

found = np.zeros(8, np.int64)
theirs(found)
print(found.tolist() == [draw(i) for i in range(8)])
"""


@pytest.mark.long
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_called_from_a_users_own_parallel_loop(layer):
    assert finished(_NESTED, NUMBA_THREADING_LAYER=layer) == "True\n"
