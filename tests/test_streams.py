"""Results that are written past the caches: the same bits as those that are not, wherever they begin."""

import ml_dtypes
import numpy as np
import pytest

import numbel
from numbel._host import dispatch

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
#: A block and a bit, and more columns than short rows have.
SHAPE = (3, 5003)


def calls(dtype):
    """Each takes where to write, and returns it."""
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(dtype)

    def in_place(out):
        out[...] = x
        return numbel.Generator(5).gumbel_softmax(out, 0.7, out=out)

    y = numbel.Generator(5).gumbel_softmax(x, 0.7)
    index = np.argmax(x.astype(np.float64), axis=1)
    return {
        "gumbel": lambda out: numbel.Generator(5).gumbel(0.5, 2.0, size=SHAPE, dtype=dtype, out=out),
        "gumbel_softmax": lambda out: numbel.Generator(5).gumbel_softmax(x, 0.7, out=out),
        "in place": in_place,
        "conditional_gumbel": lambda out: numbel.Generator(5).conditional_gumbel(x, index, out=out),
        "gumbel_softmax_vjp": lambda out: numbel.gumbel_softmax_vjp(y, x, 0.7, out=out)[0],
    }


def beginning_at(offset, dtype):
    """An array of SHAPE that begins so many bytes behind a line of the cache, and what surrounds it."""
    size = np.dtype(dtype).itemsize * SHAPE[0] * SHAPE[1]
    memory = np.full(size + 256, 0xA5, np.uint8)
    first = -memory.ctypes.data % 64 + 64 + offset
    return memory[first : first + size].view(dtype).reshape(SHAPE), memory, first, size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", ["gumbel", "gumbel_softmax", "in place", "conditional_gumbel", "gumbel_softmax_vjp"])
def test_the_same_bits_wherever_they_begin(what, dtype, monkeypatch):
    call = calls(dtype)[what]
    expected = call(np.empty(SHAPE, dtype)).tobytes()
    monkeypatch.setattr(dispatch, "_STREAMED", 0)
    for offset in (0, 8, 56, 3):  # the last one is aligned to no element
        out, memory, first, size = beginning_at(offset, dtype)
        call(out)
        assert out.tobytes() == expected
        assert np.all(memory[:first] == 0xA5)
        assert np.all(memory[first + size :] == 0xA5)


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 600])
def test_columns_around_a_line(columns, monkeypatch):
    expected = numbel.Generator(5).gumbel(size=(700, columns)).tobytes()
    monkeypatch.setattr(dispatch, "_STREAMED", 0)
    assert numbel.Generator(5).gumbel(out=np.empty((700, columns), np.float32)).tobytes() == expected


def test_a_large_result():
    """2^23 float32 are streamed: the rows are those of their own calls."""
    rows, columns = 16, 1 << 19
    noise = numbel.Generator(5).gumbel(out=np.empty((rows, columns), np.float32))
    assert noise.nbytes >= dispatch._STREAMED
    first = numbel.Generator(5).gumbel(size=(1, columns))
    assert first.nbytes < dispatch._STREAMED
    assert noise[:1].tobytes() == first.tobytes()
    relaxed = numbel.Generator(5).gumbel_softmax(noise, 0.5, out=np.empty_like(noise))
    alone = numbel.Generator(5).gumbel_softmax(noise[3:4], 0.5, row_ids=[3])
    assert relaxed[3:4].tobytes() == alone.tobytes()
