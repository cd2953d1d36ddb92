"""What takes a card's address space, or two cards: devices, streams, graphs, strides, more than 2^31 elements."""

from __future__ import annotations

import numpy as np
from numba import cuda, float64, uint64

import numbel
import numbel.cuda
from backend import DRIVER
from common import DRAW, SEED, check, logits, on_device, rng, same, view

_REAL = ("ptx", "card")
#: Calls that every feature's kernels take part in, of logits on either side.
CALLS = {
    "categorical": lambda rng, x, **o: rng.categorical(x, **o),
    "gumbel_max": lambda rng, x, **o: rng.categorical(x, 3, method="gumbel_max", **o),
    "truncated": lambda rng, x, **o: rng.categorical(x, top_k=3, top_p=0.9, **o),
    "truncated gumbel_max": lambda rng, x, **o: rng.categorical(x, top_k=3, method="gumbel_max", **o),
    "tabled": lambda rng, x, **o: rng.categorical(x, 64, **o),
    "gumbel_softmax": lambda rng, x, **o: rng.gumbel_softmax(x, **o),
    "gumbel_top_k": lambda rng, x, **o: rng.gumbel_top_k(x, 3, **o),
    "multinomial": lambda rng, x, **o: rng.multinomial(100, x, **o),
    "logsumexp": lambda rng, x, **o: numbel.logsumexp(x, **o),
}


def equal(found, expected, what):
    """Of a result of one array, or of several."""
    if isinstance(found, tuple):
        for one, due in zip(found, expected, strict=True):
            same(one, due, what)
    else:
        same(found, expected, what)


def several():
    """Whether there is more than one device."""
    return len(cuda.gpus) > 1


@check(backends=_REAL)
def check_second_device():
    """Arrays of a device are used there, whichever is current, and results lie there; scratch is each device's own."""
    if not several():
        return
    x = logits((2, 4200), np.float32)
    with cuda.gpus[1]:
        there = on_device(x)
    here = on_device(x)
    for name, call in CALLS.items():
        expected = call(rng(), x)
        for array, device in ((there, 1), (here, 0), (there, 1)):
            found = call(rng(), array)
            with cuda.gpus[device]:
                equal(found, expected, f"{name} on device {device}")
                if DRIVER is not None:
                    first = found[0] if isinstance(found, tuple) else found
                    assert DRIVER.memory.device(first.__cuda_array_interface__["data"][0]) == device, name


@check(backends=_REAL)
def check_streams():
    """On streams of either kind, also while copies of the default stream are late: none is used before it is there."""
    x = logits((2, 40), np.float32)
    temperature = np.array([0.5, 2.0])
    for stream in (cuda.stream(), cuda.external_stream(_non_blocking())):
        array = on_device(x)
        for name, call in CALLS.items():
            expected = call(rng(), x, temperature=temperature, on_invalid="flag")
            if DRIVER is None:
                found = call(rng(), array, temperature=temperature, stream=_Stream(stream))
            else:
                with DRIVER.late_copies():
                    found = call(rng(), array, temperature=temperature, stream=_Stream(stream))
            stream.synchronize()
            equal(found, expected, f"{name} on a stream")


class _Stream:
    """Anything with `__cuda_stream__`."""

    def __init__(self, stream):
        self.handle = int(getattr(stream.handle, "value", stream.handle))

    def __cuda_stream__(self):
        return 0, self.handle


def _non_blocking():
    """A stream that does not wait for the default one, as cuda.core makes them."""
    from cuda.bindings import driver

    _, stream = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    return int(stream)


@check(backends=("ptx",))
def check_graphs():
    """A captured call launches and does nothing else; each replay is the next draw."""
    x = logits((2, 4200), np.float32)
    for name, call in CALLS.items():
        if name == "logsumexp":  # which draws nothing
            continue
        counter, stream = cuda.to_device(np.array([DRAW], np.uint64)), _Stream(cuda.stream())
        moving, array = numbel.Generator(SEED, counter), on_device(x)
        out = call(moving, array, stream=stream)
        DRIVER.guards_scratch = False
        call(moving, array, out=out, stream=stream)
        before = DRIVER.counts
        with DRIVER.capturing() as launches:
            call(moving, array, out=out, stream=stream)
        added = {kind: count - before[kind] for kind, count in DRIVER.counts.items()}
        DRIVER.guards_scratch = True
        assert added == {"allocations": 0, "releases": 0, "copies": 0, "waits": 0, "launches": len(launches)}, added
        for draw in (DRAW + 2, DRAW + 3):
            DRIVER.replay(launches)
            equal(out, call(numbel.Generator(SEED, draw), x), f"{name} replayed")
        assert counter.copy_to_host()[0] == DRAW + 4


@check(formats=("float32",), backends=_REAL)
def check_strided(dtype):
    """Every other column: what takes contiguous rows has another kernel for them, of every feature."""
    for columns in (30, 4099):
        wide = logits((2, 2 * columns), dtype)
        x, array = wide[:, ::2], on_device(wide)[:, ::2]
        for name, call in CALLS.items():
            equal(call(rng(), array), call(rng(), x, on_invalid="flag"), f"{name} of every other column")
        index = np.zeros((2, 5), np.int64)
        given = {"temperature": [1.0, 0.0]}
        same(
            numbel.log_prob(array, index, **given), numbel.log_prob(x, index, **given), "log_prob of every other column"
        )
        same(numbel.entropy(array, **given), numbel.entropy(x, **given), "entropy of every other column")
        first = index[:, 0]
        same(rng().conditional_gumbel(array, first), rng().conditional_gumbel(x, first), "conditional of every other")
        out = on_device(np.zeros_like(wide))[:, ::2]
        assert rng().gumbel(size=x.shape, out=out) is out
        same(on_device(out.copy_to_host()), rng().gumbel(size=x.shape), "noise into every other")
        y = rng().gumbel_softmax(x)
        u = np.linspace(-1, 1, x.size, dtype=dtype).reshape(x.shape)
        turned = on_device(np.asfortranarray(u).T.copy().T)
        found, slopes = numbel.gumbel_softmax_vjp(on_device(y), turned, [1.0, 0.5])
        expected, due = numbel.gumbel_softmax_vjp(y, u, [1.0, 0.5])
        same(found, expected, "vjp of columns first")
        same(slopes, due, "vjp in temperature of columns first")
        drawn, due = rng().gumbel_top_k(array, 3), rng().gumbel_top_k(x, 3)
        same(numbel.top_k_weights(drawn, array), numbel.top_k_weights(due, x), "weights of every other")


@check(backends=_REAL)
def check_misaligned(dtype):
    """Rows that begin at any element: loads of four need an address of four."""
    item, columns = np.dtype(dtype).itemsize, 4096 + 4
    line = logits((1, 2 * columns + 4), dtype)
    array = on_device(line)
    for offset in range(4):
        x = line[0, offset : offset + 2 * columns].reshape(2, columns)
        there = view(_from(array, offset), (2, columns), (columns * item, item))
        for function in (lambda x: rng().sample(x).logsumexp, lambda x: rng().gumbel_softmax(x)):
            same(function(there), function(x), f"{offset} elements on")
        narrow = view(_from(array, offset), (2, 30), (columns * item, item))
        same(rng().categorical(narrow), rng().categorical(x[:, :30]), f"{offset} elements on")


def _from(array, offset):
    """The same memory from an element of the one row on."""
    return array[0, offset:]


@check(backends=_REAL)
def check_user_kernel():
    """The functions of numbel.cuda in somebody's own kernel."""
    names = [f"{name}_{kind}" for name in ("uniform", "exponential", "gumbel") for kind in ("float32", "float64")]
    functions = tuple(getattr(numbel.cuda, name) for name in names)
    f0, f1, f2, f3, f4, f5 = functions
    update, start = numbel.cuda.gumbel_max_update, numbel.cuda.GUMBEL_MAX_START

    def user(out, best, seed, draw):
        i = cuda.grid(1)
        if i < out.shape[1]:
            out[0, i], out[1, i] = f0(seed, draw, i, 0), f1(seed, draw, i, 0)
            out[2, i], out[3, i] = f2(seed, draw, i, 0), f3(seed, draw, i, 0)
            out[4, i], out[5, i] = f4(seed, draw, i, 0), f5(seed, draw, i, 0)
            state = start
            for column in range(9):
                state = update(state, 0.1 * column, seed, draw, i, column)
            best[i] = state[1]

    count = 5000  # some of them are refined
    out, best = cuda.device_array((6, count), np.float64), cuda.device_array(count, np.float64)
    signature = (float64[:, ::1], float64[::1], uint64, uint64)
    cuda.jit(signature, lto=False)(user)[-(-count // 128), 128](out, best, np.uint64(SEED), np.uint64(DRAW))
    expected = np.array([[f(np.uint64(SEED), np.uint64(DRAW), i, 0) for i in range(count)] for f in functions])
    same(out, expected, "numbel.cuda")
    x = np.tile(0.1 * np.arange(9), (count, 1))
    same(best, rng().categorical(x, method="gumbel_max").astype(np.float64), "gumbel_max_update")


# --- more elements than 2^31. Where memory is sparse only what is looked at is there.

#: A column, a multiple of a block, whose float32 lies beyond what 32 bits count.
FAR = (1 << 31) + 4096 * 3


@check(backends=("ptx",))
def check_far_columns():
    """Columns that lie 2^29 elements apart, and rows that do."""
    for shape, strides in (((2, 9), (1, 1 << 29)), ((2, 5), (1 << 32, 1))):
        x = logits(shape, np.float32)
        room = cuda.device_array(9 << 29, np.float32)
        there = view(room, shape, tuple(4 * step for step in strides))
        for row, column in np.ndindex(shape):
            view(room[row * strides[0] + column * strides[1] :], (1,), (4,)).copy_to_device(x[row, column].reshape(1))
        for name, call in CALLS.items():
            equal(call(rng(), there), call(rng(), x, on_invalid="flag"), f"{name} of {shape} far apart")


@check(backends=("ptx",))
def check_many_columns():
    """The last blocks of a row of more than 2^31 columns; of the others nothing is read, and their nodes are empty."""
    tail = logits((1, 2 * 4096 + 5), np.float32)
    columns = FAR + tail.shape[1]
    room = cuda.device_array((1, columns), np.float32)
    room[:, FAR:].copy_to_device(tail)
    expected = numbel.CategoricalAccumulator(rng())
    nothing = np.broadcast_to(np.float32(-np.inf), (1, 1 << 20))
    for start in range(0, FAR, 1 << 20):
        expected.update(nothing[:, : FAR - start], start=start)
    expected = expected.update(tail, start=FAR).result()
    with DRIVER.sparse(), DRIVER.some_blocks({"block_nodes": (FAR // 4096, columns // 4096 + 1)}):
        found = rng().sample(room)
    assert found.indices.copy_to_host()[0] >= FAR
    for one, due in zip(found, expected, strict=True):
        same(one, due, "more than 2^31 columns")


@check(backends=("ptx",))
def check_much_noise():
    """The last columns of more than 2^31."""
    out = cuda.device_array((1, FAR + 512), np.float32)
    group = FAR // 512  # 128 threads have four columns each; a CUDA block has every 2^20th such group
    with DRIVER.some_blocks({"gumbel": (group % (1 << 20), group % (1 << 20) + 1)}):
        assert rng().gumbel(size=out.shape, out=out) is out
    last = np.array([numbel.cuda.gumbel_float32(np.uint64(SEED), np.uint64(DRAW), 0, FAR + i) for i in range(512)])
    same(out[0, FAR:], last.astype(np.float32), "more than 2^31 numbers")


@check(backends=("ptx",))
def check_many_rows():
    """Rows that begin 2^31 elements and more behind the first: a CUDA block draws every 2^20th."""
    rows, columns = (1 << 22) + 3, 512
    x = logits((3, columns), np.float32)
    room = cuda.device_array((rows, columns), np.float32)
    room[rows - 3 :].copy_to_device(x)
    expected = rng().sample(x, row_ids=np.arange(rows - 3, rows), on_invalid="flag")
    with DRIVER.some_blocks({"sample_short": (0, 3)}):
        found = rng().sample(room)
    for one, due in zip(found, expected, strict=True):
        same(one[rows - 3 :], due, "more than 2^31 elements in rows")
