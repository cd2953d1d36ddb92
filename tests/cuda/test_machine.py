"""The machine that runs PTX: it finds what a card would not forgive, and its arithmetic is that of the ISA."""

import ctypes
import math
import struct

import numpy as np
import pytest

from ptx import schedule
from ptx.addresses import narrow_products
from ptx.machine import Kernel
from ptx.memory import POISONED, SUPPORTED, Memory
from ptx.parser import Module, PtxError

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="needs Linux on x86-64")

_MODULE = """
.version 8.0
.target sm_90
.address_size 64
.shared .align 8 .b8 lanes[64];
.visible .entry kernel(.param .u64 x, .param .u64 y) .maxntid 128, 1, 1
{{
  .reg .pred %p<4>;
  .reg .b16 %h<4>;
  .reg .b32 %r<8>;
  .reg .f32 %f<8>;
  .reg .b64 %rd<8>;
  .reg .f64 %fd<8>;
  ld.param.u64 %rd1, [x];
  ld.param.u64 %rd2, [y];
  mov.u32 %r1, %tid.x;
  {body}
  ret;
}}
"""
#: %rd3 is the address of this thread's 4 bytes of x.
_OWN = "mul.wide.u32 %rd3, %r1, 4; add.s64 %rd3, %rd1, %rd3;"


@pytest.fixture
def memory():
    return Memory(devices=2)


def kernel(body, memory):
    return Kernel(_MODULE.format(body=body), memory)


def run(body, memory, threads=4, grid=1, size=16, **options):
    """Run a body over two arrays of so many bytes, the first of zeros, and give its bytes."""
    x, y = memory.allocate(size), memory.allocate(size)
    ctypes.memset(x, 0, size)
    kernel(body, memory)(struct.pack("<QQ", x, y), grid, threads, **options)
    return ctypes.string_at(x, size)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"{_OWN} st.global.u32 [%rd3], %r1;", ""),
        (f"{_OWN} st.global.u32 [%rd3+4], %r1;", "thread 3 of block 0 writes 4 bytes"),
        (f"{_OWN} ld.global.u32 %r2, [%rd3+-4];", "thread 0 of block 0 reads 4 bytes"),
        (f"{_OWN} ld.u32 %r2, [%rd3+-4];", "thread 0 of block 0 reads 4 bytes"),
        (f"{_OWN} red.global.add.u32 [%rd3+4], 1;", "thread 3 of block 0 writes 4 bytes"),
        ("ld.global.u32 %r2, [%rd1+2];", "misaligned"),
        ("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1];", ""),
        ("ld.global.v2.u32 {%r2, %r3}, [%rd1+4];", "misaligned"),
        ("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd2+16];", "not allocated"),
        ("mov.u64 %rd3, 64; ld.global.u32 %r2, [%rd3];", "reads 4 bytes at 40: not allocated"),
        ("st.shared.u64 [lanes+56], %rd1;", ""),
        ("st.shared.u64 [lanes+64], %rd1;", "writes 8 bytes"),
        ("ld.shared.u64 %rd3, [lanes+-8];", "reads 8 bytes"),
        ("mov.u32 %r2, lanes; ld.shared.u32 %r3, [%r2+60];", ""),
        ("mov.u32 %r2, lanes; ld.shared.u32 %r3, [%r2+62];", "misaligned"),
        ("trap;", "a trap of thread"),
        ("bar.sync 0; bar.sync 0;", ""),
        ("setp.eq.u32 %p1, %r1, 2; @%p1 bra there; bar.sync 0; there:", "wait at different barriers"),
        ("setp.eq.u32 %p1, %r1, 2; @%p1 bra b; bar.sync 0; bra c; b: bar.sync 0; c:", "wait at different barriers"),
    ],
)
def test_what_a_card_would_not_forgive(memory, body, said):
    body = body.replace(";", ";\n").replace(":", ":\n")
    if not said:
        run(body, memory)
        return
    with pytest.raises(PtxError, match=said):
        run(body, memory)


def test_freed_memory_is_not_used_again(memory):
    x, y = memory.allocate(16), memory.allocate(16)
    run_it = kernel("ld.global.u32 %r2, [%rd1];", memory)
    run_it(struct.pack("<QQ", x, y), 1, 4)
    memory.release(x)
    assert memory.allocate(16) != x
    with pytest.raises(PtxError, match="not allocated"):
        run_it(struct.pack("<QQ", x, y), 1, 4)
    with pytest.raises(ValueError, match="no allocation"):
        memory.release(x)


def test_memory_is_poisoned_sparse_and_of_a_device(memory):
    x, y = memory.allocate(1000, 0), memory.allocate(1000, 1)
    assert len(set(ctypes.string_at(x, 1000))) > 100
    assert (memory.device(x), memory.device(y), memory.device(8)) == (0, 1, -1)
    assert memory.span(x + 999) == (x, 1000, 0)
    assert memory.span(x + 1000) is None
    many = 3 << 32
    z = memory.allocate(many)
    assert many > POISONED
    body = "mov.u64 %rd3, 12884901880; add.s64 %rd3, %rd1, %rd3; st.global.u64 [%rd3{}], %rd2;"
    for more, good in (("", True), ("+8", False)):
        write = kernel(body.format(more).replace(";", ";\n"), memory)
        if good:
            write(struct.pack("<QQ", z, y), 1, 1)
            assert ctypes.c_uint64.from_address(z + many - 8).value == y
        else:
            with pytest.raises(PtxError, match="not allocated"):
                write(struct.pack("<QQ", z, y), 1, 1)


def test_a_missing_barrier_is_seen_in_some_order_of_threads(memory):
    """Each thread reads what its neighbour wrote to shared memory."""
    body = """
        shl.b32 %r2, %r1, 2;
        mov.u32 %r3, lanes;
        add.u32 %r3, %r3, %r2;
        st.shared.u32 [%r3], %r1;
        {barrier}
        xor.b32 %r4, %r2, 12;
        mov.u32 %r5, lanes;
        add.u32 %r5, %r5, %r4;
        ld.shared.u32 %r6, [%r5];
    """ + f"{_OWN} st.global.u32 [%rd3], %r6;".replace(";", ";\n")
    expected = np.array([3, 2, 1, 0], np.uint32).tobytes()
    for barrier, good in (("bar.sync 0;", True), ("", False)):
        found = {run(body.replace("{barrier}", barrier), memory, seed=seed) for seed in range(8)}
        assert (found == {expected}) == good


def test_blocks_run_in_either_order_and_alone(memory):
    body = f"mov.u32 %r2, %ctaid.x; st.global.u32 [%rd1], %r2; {_OWN}".replace(";", ";\n")
    last = {int.from_bytes(run(body, memory, grid=5, threads=1, seed=seed)[:4], "little") for seed in (0, 1)}
    assert last == {0, 4}
    assert run(body, memory, grid=5, threads=1, blocks=(2, 3))[0] == 2


def f32(value):
    return f"0f{struct.unpack('<I', struct.pack('<f', value))[0]:08X}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"min.f32 %f3, {f32(-0.0)}, {f32(0.0)}; mov.b32 %r2, %f3;", 0x80000000),
        (f"max.f32 %f3, {f32(-0.0)}, {f32(0.0)}; mov.b32 %r2, %f3;", 0),
        (f"min.f32 %f3, {f32(math.nan)}, {f32(2.0)}; mov.b32 %r2, %f3;", 0x40000000),
        (f"add.rn.f32 %f3, {f32(math.inf)}, {f32(-math.inf)}; mov.b32 %r2, %f3;", 0x7FFFFFFF),
        (f"fma.rn.f32 %f3, {f32(1 + 2**-12)}, {f32(1 + 2**-12)}, {f32(-1.0)}; mov.b32 %r2, %f3;", 0x3A000400),
        (f"cvt.rzi.s32.f32 %r2, {f32(-3e9)};", 0x80000000),
        (f"cvt.rzi.u32.f32 %r2, {f32(-3.0)};", 0),
        (f"cvt.rzi.s32.f32 %r2, {f32(math.nan)};", 0),
        (f"cvt.rni.f32.f32 %f3, {f32(2.5)}; mov.b32 %r2, %f3;", 0x40000000),
        (f"cvt.rn.f16.f32 %h1, {f32(1 / 3)}; mov.b32 %r2, {{%h1, %h1}};", 0x35553555),
        ("mov.u32 %r3, 7; shl.b32 %r2, %r3, 32;", 0),
        ("mov.u32 %r3, 0x80000000; shr.s32 %r2, %r3, 40;", 0xFFFFFFFF),
        ("mov.u32 %r3, 0x12345678; mov.u32 %r4, 0x9abcdef0; shf.l.wrap.b32 %r2, %r3, %r4, 8;", 0xBCDEF012),
        ("mov.u32 %r3, 0x12345678; mov.u32 %r4, 0x9abcdef0; prmt.b32 %r2, %r3, %r4, 0x5410;", 0xDEF05678),
        ("mov.u32 %r3, 0x12345678; bfe.u32 %r2, %r3, 8, 12;", 0x456),
        ("mov.u32 %r3, 0xfffff123; mov.u32 %r4, 0; bfi.b32 %r2, %r3, %r4, 4, 8;", 0x230),
        ("mov.u32 %r3, 0x80000000; mul.hi.s32 %r2, %r3, %r3;", 0x40000000),
        ("mov.u32 %r3, 0x00f00000; clz.b32 %r2, %r3;", 8),
        ("mov.u32 %r3, -7; div.s32 %r2, %r3, 2;", 0xFFFFFFFD),
        ("mov.u32 %r3, -7; rem.s32 %r2, %r3, 2;", 0xFFFFFFFF),
        ("mov.u32 %r3, 5; setp.lt.s32 %p1, %r3, -1; selp.u32 %r2, 1, 2, %p1;", 2),
        ("mov.u32 %r3, 5; setp.lo.u32 %p1, %r3, -1; selp.u32 %r2, 1, 2, %p1;", 1),
        ("mov.u32 %r2, 5; setp.eq.u32 %p1, %r2, 5; @!%p1 mov.u32 %r2, 9;", 5),
    ],
)
def test_arithmetic(memory, body, expected):
    body = f"{body} st.global.u32 [%rd1], %r2;".replace(";", ";\n")
    assert int.from_bytes(run(body, memory, threads=1)[:4], "little") == expected


@pytest.mark.parametrize(
    "body",
    ["ex2.approx.f32 %f1, %f2;", "add.ftz.f32 %f1, %f1, %f2;", "vote.ballot.b32 %r2, %p1;", "call there;"],
)
def test_what_is_not_known_is_an_error(memory, body):
    with pytest.raises(PtxError):
        kernel(body, memory)


#: The address of an element of x, whose number is %rd3.
_ELEMENT = "shl.b64 %rd4, %rd3, 2; add.s64 %rd4, %rd1, %rd4; ld.global.u32 %r4, [%rd4];"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("mul.lo.s32 %r2, %r1, %r3; cvt.s64.s32 %rd3, %r2;", 1),
        ("mad.lo.s32 %r2, %r1, %r3, %r1; mul.wide.u32 %rd3, %r2, 1;", 1),
        ("shl.b32 %r2, %r3, 9; add.s32 %r2, %r2, 1; cvt.u64.u32 %rd3, %r2;", 1),
        ("mul.lo.s32 %r2, %r1, 512; cvt.s64.s32 %rd3, %r2;", 0),  # a thread has a number of 10 bits
        ("mul.lo.s32 %r2, %r1, %r3; mov.u64 %rd3, 0;", 0),  # not an address
        ("mul.wide.s32 %rd3, %r1, %r3;", 0),
        ("div.u32 %r5, %r3, %r1; mul.lo.s32 %r2, %r5, %r1; cvt.u64.u32 %rd3, %r2;", 0),  # not above the dividend
    ],
)
def test_products_of_32_bits_in_addresses_are_found(body, found):
    body = f"ld.global.u32 %r3, [%rd2]; {body} {_ELEMENT}".replace(";", ";\n")
    assert len(narrow_products(Module(_MODULE.format(body=body)))) == found


# --- what is asked of a card and not done yet


def orders(ask, count=200):
    """The orders in which names are done that `ask` gives to a schedule, over many seeds."""
    found = set()
    for seed in range(count):
        made, done = schedule.Schedule(seed), []
        ask(made, lambda stream, name, made=made, done=done: made.add(stream, lambda: done.append(name)))
        made.reach_all()
        found.add("".join(done))
    return found


LEGACY, BLOCKING, OTHER, FREE = (
    schedule.Stream(0, handle, blocking) for handle, blocking in ((0, True), (10, True), (11, True), (12, False))
)


def test_a_stream_keeps_its_order_and_two_have_none():
    def ask(made, do):
        do(FREE, "a"), do(FREE, "b"), do(BLOCKING, "c")

    assert orders(ask) == {"abc", "acb", "cab"}


def test_a_stream_waits_for_an_event():
    def ask(made, do):
        do(FREE, "a")
        made.record(1, FREE)
        do(FREE, "b")
        made.wait(1, OTHER)
        made.wait(2, OTHER)  # which nobody recorded
        do(OTHER, "c")

    assert orders(ask) == {"abc", "acb"}


def test_the_legacy_stream_and_blocking_ones_wait_for_each_other():
    def ask(made, do):
        do(BLOCKING, "a"), do(FREE, "b"), do(LEGACY, "c"), do(OTHER, "d")

    assert orders(ask) == {"abcd", "bacd", "acbd", "acdb"}


def test_only_what_is_waited_for_must_be_done():
    late = set()
    for seed in range(50):
        made, done = schedule.Schedule(seed), []
        made.add(FREE, lambda done=done: done.append("a"))
        made.add(BLOCKING, lambda done=done: done.append("b"))
        made.record(1, BLOCKING)
        made.reach_stream(BLOCKING)
        assert made.passed(1)
        assert "b" in done
        late.add("a" in done)
    assert late == {False, True}
