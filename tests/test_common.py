"""The common call: what it returns and raises is what the way of all other calls does, bit for bit."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import make_golden
import numbel
from numbel._cpu import parameters
from numbel._cpu.parameters import address_of
from numbel._host import common as _common
from numbel._host import dispatch

DTYPES = make_golden.dtypes()
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
SHAPES = [(1,), (10,), (1, 10), (32, 6), (1, 1000), (3, 256), (3, 257), (2, 3, 7), (5, 4097), (1, 60_000), (600, 100)]
CALLS = {
    "categorical": lambda rng, x: rng.categorical(x),
    "race": lambda rng, x: rng.categorical(x, method="gumbel_max", temperature=0.7),
    "five": lambda rng, x: rng.categorical(x, 5),
    "sample": lambda rng, x: rng.sample(x, temperature=3.0),
    "two": lambda rng, x: rng.sample(x, 2, method="gumbel_max"),
    "relaxed": lambda rng, x: rng.gumbel_softmax(x, temperature=0.5),
    "gumbel": lambda rng, x: rng.gumbel(2.0, 3.0, x.shape, dtype=x.dtype),
    "logsumexp": lambda rng, x: numbel.logsumexp(x, temperature=0.3),
    "entropy": lambda rng, x: numbel.entropy(x),
    "top_k": lambda rng, x: rng.categorical(x, top_k=2),
    "top_p": lambda rng, x: rng.sample(x, 3, top_p=0.6, temperature=2.0),
    "min_p": lambda rng, x: rng.sample(x, min_p=0.1, method="gumbel_max"),
    "all three": lambda rng, x: rng.categorical(x, top_k=5, top_p=0.9, min_p=0.01),
    "limits that are off": lambda rng, x: rng.sample(x, top_k=-1, top_p=1.0, min_p=0.0),
    "log_prob": lambda rng, x: numbel.log_prob(x, 0 if np.ndim(x) == 1 else np.zeros(np.shape(x)[:-1], np.int64)),
    "log_prob of all": lambda rng, x: numbel.log_prob(x, np.indices(x.shape)[-1], temperature=0.5),
    "chosen": lambda rng, x: rng.gumbel_top_k(x, 1, temperature=0.5),
    "counts": lambda rng, x: rng.multinomial(1000, x),
}
FUNCTIONS = ("sample", "relaxed", "gumbel", "logsumexp", "entropy", "log_prob", "top_k", "counts")


@pytest.fixture
def taken(monkeypatch):
    """Which of its functions took a call, and a switch: called, none of them takes any."""
    seen = []

    def watched(name):
        real = getattr(_common, name)

        def call(*args):
            found = real(*args)
            if found is not None:
                seen.append(name)
            return found

        return call

    def switch_off():
        for name in FUNCTIONS:
            monkeypatch.setattr(_common, name, lambda *args: None)

    for name in FUNCTIONS:
        monkeypatch.setattr(_common, name, watched(name))
    return seen, switch_off


def parts(found):
    """Type, dtype, shape and bytes of all that a call returned."""
    each = found if isinstance(found, tuple) else (found,)
    return [(type(part), part.dtype, part.shape, part.tobytes()) for part in each]


@each_dtype
@pytest.mark.parametrize("name", CALLS)
def test_it_has_the_bits_of_every_other_call(name, dtype, taken):
    arrays = [(np.random.default_rng(3).standard_normal(shape) * 4).astype(dtype) for shape in SHAPES]
    for x in arrays:
        x.reshape(-1)[1::3] = -np.inf
    seen, switch_off = taken
    rng = numbel.Generator(7, 2**64 - 100)
    common = [parts(CALLS[name](rng, x)) for x in arrays]
    # entropies of long rows, and the longest relaxed or counted one, are of another kind
    assert len(seen) == {"entropy": 7, "relaxed": len(SHAPES) - 1, "counts": len(SHAPES) - 1}.get(name, len(SHAPES))
    switch_off()
    other = numbel.Generator(7, 2**64 - 100)
    assert common == [parts(CALLS[name](other, x)) for x in arrays]
    assert rng == other


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((0, 5)), np.zeros((5, 0)), np.array(0.0), np.zeros((4, 3)).T, np.zeros((4, 8))[:, ::2],
        np.zeros((4, 3), ">f8"), np.zeros(3, np.int64), np.array([np.nan, 0.0]), np.array([[0.0, 1.0], [-np.inf] * 2]),
        np.zeros(70_000), np.ma.masked_array([1.0, 2.0], [0, 1]), [0.0, 1.0],
    ],
    ids=[
        "no rows", "no columns", "no axis", "transposed", "strided", "foreign", "integers", "NaN", "nothing possible",
        "many values", "masked", "list",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name",
    ["categorical", "sample", "relaxed", "logsumexp", "entropy", "all three", "log_prob", "chosen", "counts"],
)
def test_it_raises_what_every_other_call_does(name, logits, taken):
    """And a call that raised has used no draw id."""

    def heard(rng):
        try:
            return parts(CALLS[name](rng, logits)), rng.draw
        except (TypeError, ValueError, np.exceptions.AxisError) as error:
            assert rng.draw == 4
            return type(error), str(error)

    _, switch_off = taken
    common = heard(numbel.Generator(1, 4))
    switch_off()
    assert heard(numbel.Generator(1, 4)) == common


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf, 1e-31, 2e30])
def test_temperatures_that_are_not_common(temperature, taken):
    seen, switch_off = taken
    x = np.arange(3.0)

    def heard():
        try:
            return parts(numbel.Generator(1).sample(x, temperature=temperature))
        except ValueError as error:
            return str(error)

    common = heard()
    assert seen == []
    switch_off()
    assert heard() == common


@pytest.mark.parametrize(
    "call",
    [
        lambda rng, x: rng.categorical(x, top_k=-2),
        lambda rng, x: rng.categorical(x, top_p=0.0),
        lambda rng, x: rng.categorical(x, top_p=np.nan),
        lambda rng, x: rng.categorical(x, min_p=1.5),
        lambda rng, x: rng.categorical(x, top_k=2.0),
        lambda rng, x: rng.categorical(x, top_k=True),
        lambda rng, x: numbel.log_prob(x, np.array([0, 5])),
        lambda rng, x: numbel.log_prob(x, np.array([0, -1])),
        lambda rng, x: numbel.log_prob(x, np.array([0, 1, 2])),
        lambda rng, x: numbel.log_prob(x[0], 5),
        lambda rng, x: numbel.log_prob(x, np.array([1.0, 2.0])),
        lambda rng, x: rng.gumbel_top_k(x, 0),
        lambda rng, x: rng.gumbel_top_k(x, 6),
        lambda rng, x: rng.gumbel_top_k(np.array([0.0, -np.inf]), 2),
        lambda rng, x: rng.multinomial(-1, x),
        lambda rng, x: rng.multinomial((1 << 62) + 1, x),
        lambda rng, x: rng.multinomial(1.5, x),
    ],
)
def test_arguments_that_are_refused_are_so_alike(call, taken):
    def heard(rng):
        with np.errstate(all="ignore"):
            try:
                return parts(call(rng, np.arange(10.0).reshape(2, 5)))
            except (TypeError, ValueError) as error:
                return type(error), str(error), rng.draw

    _, switch_off = taken
    common = heard(numbel.Generator(1, 4))
    switch_off()
    assert heard(numbel.Generator(1, 4)) == common


def test_the_last_draw_id(taken):
    rng = numbel.Generator(1, 2**64 - 1)
    rng.categorical(np.zeros(3))
    with pytest.raises(ValueError, match=r"all 2\^64 draws"):
        rng.categorical(np.zeros(3))
    assert taken[0] == ["sample"]


def test_scratch_grows(monkeypatch):
    """A worker that was lent too little has done nothing, and is asked again."""
    x = np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32)
    expected = numbel.Generator(5).gumbel_softmax(x).tobytes()
    monkeypatch.setattr(dispatch, "_LENT", 256)
    monkeypatch.setattr(_common, "_lent", _common._Lent())
    assert numbel.Generator(5).gumbel_softmax(x).tobytes() == expected


def test_a_call_within_a_call(monkeypatch):
    """A finalizer may run while a thread's memory is lent: it takes one of its own."""
    x, within = np.arange(6.0), []

    class Dying:
        pass

    run = _common._Memory.run

    def interrupted(memory, *given):
        monkeypatch.setattr(_common._Memory, "run", run)
        lacked = run(memory, *given)
        dying = Dying()
        weakref.finalize(dying, lambda: within.append(numbel.Generator(9).sample(x[:4]).indices))
        del dying
        gc.collect()
        return lacked

    expected = numbel.Generator(5).sample(x)
    monkeypatch.setattr(_common._Memory, "run", interrupted)
    assert parts(numbel.Generator(5).sample(x)) == parts(expected)
    assert within == [numbel.Generator(9).sample(x[:4]).indices]


def test_threads_have_memory_of_their_own():
    x = np.arange(50.0).reshape(5, 10) / 7
    expected = [numbel.Generator(5, draw).categorical(x).tolist() for draw in range(400)]
    rng, found, barrier = numbel.Generator(5), [], threading.Barrier(8)

    def work():
        barrier.wait()
        found.extend(rng.categorical(x).tolist() for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(expected)  # each id served one call


def test_addresses_are_numpys():
    for array in (np.zeros(3), np.zeros((4, 4))[1:, 2:], np.zeros(0), np.ma.zeros(2)):
        assert address_of(array) == array.__array_interface__["data"][0]
    assert address_of is parameters._read  # the quick way is the one that is taken here
