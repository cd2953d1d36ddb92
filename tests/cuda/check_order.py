"""Order in time: launches and copies that are late and reordered as far as streams allow, memory that is freed at once.

`DRIVER.late` does nothing before somebody waits for it. What a call does not order, or keep, then shows: as other
bits, or as an access to memory that was freed.
"""

from __future__ import annotations

import contextlib
import io
import random

import numpy as np
from numba import cuda

import numbel
import numbel.cuda
from backend import DRIVER
from check_devices import CALLS, _non_blocking, _Stream, equal
from common import check, logits, on_device, rng
from numbel._cuda import numba_cuda
from numbel._device import stream_memory

#: What a call copies to the device: each of these on the host, one for each row.
_UPLOADED = {"temperature": (0.5, 2.0), "row_ids": (7, 1 << 40), "row_mask": (True, True)}
_COLUMNS = (40, 4200, 9000)
_TWO = np.array([3, 1])
#: Calls with arguments of other kinds on the host, which are copied for as long as kernels read them.
_CALLS = CALLS | {
    "limits": lambda rng, x, **o: rng.sample(x, top_k=_TWO.copy(), top_p=np.array([0.5, 0.9]), **o),
    "ragged": lambda rng, x, **o: rng.sample(x[0], offsets=np.array([0, 7, x.shape[1]]), **o),
    "counts": lambda rng, x, **o: rng.multinomial(100 * _TWO, x, **o),
    "conditional_gumbel": lambda rng, x, **o: rng.conditional_gumbel(x, _TWO.copy(), **o),
    "log_prob": lambda rng, x, **o: numbel.log_prob(x, _TWO.copy(), **o),
    "entropy": lambda rng, x, **o: numbel.entropy(x, **o),
}


def calls():
    """Calls with what their arguments on the host add, and what is due, by the number of columns."""
    given = {name: {key: np.array(value) for key, value in _UPLOADED.items()} for name in _CALLS}
    given |= {name: {"temperature": np.array([0.5, 2.0])} for name in ("logsumexp", "log_prob", "entropy")}
    hosts = {columns: logits((2, columns), np.float32) for columns in _COLUMNS}
    due = {
        (name, columns): call(rng(), x, on_invalid="flag", **given[name])
        for name, call in _CALLS.items()
        for columns, x in hosts.items()
    }
    return hosts, given, due


def faults(seed, case, count=30):
    """What goes wrong in so many calls on four streams, whose results nobody waits for until some time later."""
    hosts, given, due = case
    random_ = random.Random(seed)
    DRIVER.guards_scratch, before = False, list(DRIVER.failures)
    found = []

    def tidy():
        cuda.current_context().memory_manager.deallocations.clear()  # or numba-cuda frees some at a time

    # stretches of 4 KB at least, or one of a megabyte would serve each call
    with DRIVER.late(seed), put(stream_memory, "_LEAST", 1 << 12):
        streams = [None, cuda.stream(), *(cuda.external_stream(_non_blocking()) for _ in range(2))]
        arrays = {columns: on_device(x) for columns, x in hosts.items()}
        cuda.synchronize()
        waiting = []

        def look(stream):
            (stream or cuda.default_stream()).synchronize()
            for what, result in [(w, r) for s, w, r in waiting if s is stream]:
                with contextlib.suppress(AssertionError):
                    equal(result, due[what], what)
                    continue
                found.append(what)
            waiting[:] = [each for each in waiting if each[0] is not stream]

        try:
            for _ in range(count):
                stream, name, columns = random_.choice(streams), random_.choice(list(_CALLS)), random_.choice(_COLUMNS)
                handle = None if stream is None else _Stream(stream)
                options = {key: value.copy() for key, value in given[name].items()}
                result = _CALLS[name](rng(), arrays[columns], stream=handle, on_invalid="flag", **options)
                waiting.append((stream, (name, columns), result))
                chance = random_.randrange(6)
                if chance == 0:
                    look(random_.choice(streams))
                elif chance == 1:
                    numbel.cuda.free_scratch()
                tidy()
            for stream in streams:
                look(stream)
        except Exception as error:  # what the driver says of a launch that failed
            found.append(repr(error))
    numbel.cuda.free_scratch()
    tidy()
    DRIVER.guards_scratch = True
    found += DRIVER.failures[len(before) :]
    DRIVER.failures[:] = before
    return found


@check(backends=("ptx",))
def check_late():
    """Every feature on every kind of stream, in twelve orders."""
    case = calls()
    for seed in range(12):
        found = faults(seed, case)
        assert not found, f"order {seed}: {found}"


# --- planted faults, each of which some order must show


@contextlib.contextmanager
def put(owner, name, value):
    """Put something else in the place of a function."""
    plain = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, plain)


def _borrow_at_once(pool, size, stream):
    """Scratch of a call on another stream, whose kernels may still run."""
    large = [one for one in pool._idle if one.size >= size]
    if not large:
        return None
    pool._idle.remove(large[0])
    return large[0]


def _keep_nothing(lease_end):
    return lambda lease, things: lease_end(lease, [])


def _drop_small_ones(lease, things):
    """Only the largest stretch is kept: kernels still use the others."""
    lease._stretches = lease._stretches[-1:]
    _END(lease, things)


_END = stream_memory.Lease.end
_UPLOAD = numba_cuda.to_device
PLANTED = {
    "scratch of another stream is taken before its event has passed": (
        stream_memory.Pool, "borrow", _borrow_at_once,
    ),
    "copies of arguments are dropped when the call returns": (stream_memory.Lease, "end", _keep_nothing(_END)),
    "the smaller stretches of a call are dropped when it returns": (stream_memory.Lease, "end", _drop_small_ones),
    "copies of arguments go over the legacy stream": (
        numba_cuda, "to_device", lambda array, stream=0: _UPLOAD(array, 0),
    ),
    "events say that they have passed": (numba_cuda._Event, "query", lambda event: True),
    "events are recorded on the legacy stream": (
        numba_cuda._Event, "record",
        lambda event, handle: numba_cuda._driver().cuEventRecord(event._handle, 0),
    ),
}  # fmt: skip


@check(backends=("ptx",))
def check_planted_orders():
    """The faults that `check_late` is for are found by it."""
    case = calls()
    for what, (owner, name, value) in PLANTED.items():
        with put(owner, name, value), contextlib.redirect_stderr(io.StringIO()):
            shown = next((seed for seed in range(12) if faults(seed, case)), None)
        print(f"{what}: {'not found' if shown is None else f'found in order {shown}'}")
        assert shown is not None, f"not found: {what}"
        assert not faults(0, case), "what was planted is still there"
