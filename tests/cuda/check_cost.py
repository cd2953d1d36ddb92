"""What a call costs on the host: Python instructions, beside those of numba-cuda's launches of empty kernels.

Instructions, not times: a loaded machine gives the same. What the driver's stand-in does in Python is not counted.
"""

from __future__ import annotations

import functools
import itertools
import sys

import numpy as np
from numba import cuda, float64, void

import numbel
from backend import DRIVER
from common import check, logits, on_device, rng
from numbel._cuda import launch

#: Calls, and the ratios reached on Python 3.11 for rows of 100 and of 1000: instructions of a call with `out`, over
#: those of an empty launch of as many arguments for each of its kernels. Other versions of Python take up to a tenth
#: more. Without `out`, each array that is made adds numba-cuda's 1,401 instructions.
_CALLS = {
    "categorical": ((2.10, 1.26), lambda x, out: rng_of().categorical(x, out=out)),
    "gumbel_max": ((2.07, 1.22), lambda x, out: rng_of().categorical(x, method="gumbel_max", out=out)),
    "top_p": ((0.84, 0.84), lambda x, out: rng_of().categorical(x, top_p=0.9, out=out)),
    "top_k, top_p": ((0.84, 0.84), lambda x, out: rng_of().categorical(x, top_k=50, top_p=0.9, out=out)),
    "sample": ((2.91, 1.66), lambda x, out: rng_of().sample(x, out=out)),
    "gumbel_softmax": ((1.56, 0.76), lambda x, out: rng_of().gumbel_softmax(x, out=out)),
    "gumbel_top_k": ((0.79, 0.79), lambda x, out: rng_of().gumbel_top_k(x, 5, out=out)),
    "logsumexp": ((1.71, 1.04), lambda x, out: numbel.logsumexp(x, out=out)),
    "entropy": ((1.60, 1.60), lambda x, out: numbel.entropy(x, out=out)),
    "multinomial": ((0.87, 0.87), lambda x, out: rng_of().multinomial(100, x, out=out)),
    "gumbel": ((1.76, 1.76), lambda x, out: rng_of().gumbel(size=x.shape, like=x, out=out)),
}
_MARGIN, _WITHOUT = 1.15, 6.0


@functools.cache
def rng_of():
    """One Generator for all calls: to make one is no part of them."""
    return rng()


def instructions(call):
    """Python instructions of a call, but for the driver's stand-in."""
    count = 0

    def traced(frame, event, argument):
        nonlocal count
        if "/cuda/ptx/" in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@functools.cache
def empty(arguments):
    """Instructions of numba-cuda's launch of an empty kernel of so many vectors."""
    names = ", ".join(f"a{at}" for at in range(arguments))
    made = {}
    exec(f"def kernel({names}): pass", made)
    kernel = cuda.jit(void(*[float64[::1]] * arguments))(made["kernel"])
    vectors = [cuda.device_array(4, np.float64) for _ in range(arguments)]
    kernel[1, 128](*vectors)
    return instructions(lambda: kernel[1, 128](*vectors))


def arguments_of(launched):
    """Arguments of our kernel that was launched, as its Python has them: tuples count as one."""
    for module in launch.MODULES:
        for name, (_, signature) in module.kernels("float32", "C").items():
            if f"{len(name)}{name}B" in launched.kernel.name:
                return len(signature)
    raise AssertionError(f"{launched.kernel.name} is none of ours")


@check(backends=("ptx",))
def check_host():
    """A call with `out`, and one that makes its results: warm, of rows of one kernel and of several."""
    DRIVER.guards_scratch = False
    over = []
    for (name, (reached, call)), (at, columns) in itertools.product(_CALLS.items(), enumerate((100, 1000))):
        x = on_device(logits((1, columns), np.float32))
        out = call(x, None)
        call(x, out)
        with DRIVER.capturing() as launches:
            call(x, out)
        due = sum(empty(arguments_of(each)) for each in launches)
        with DRIVER.idle():
            given, made = (instructions(functools.partial(call, x, to)) / due for to in (out, None))
        print(f"{name} 1 x {columns}, {len(launches)} kernels: {given:.2f}, {made:.2f} without out")
        if given > _MARGIN * reached[at] or made > _WITHOUT:
            over.append((name, columns, given, made))
    DRIVER.guards_scratch = True
    assert not over, over
