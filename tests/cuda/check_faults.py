"""What only the compiled code, its driver and several devices show: found as faults, once each."""

from __future__ import annotations

import gc
import warnings

import numpy as np
from numba import cuda

import numbel
from backend import DRIVER
from check_devices import _Stream
from common import DRAW, SEED, check, logits, on_device, raised, rng, same

_REAL = ("ptx", "card")


@check(backends=_REAL)
def check_no_warnings():
    """numba-cuda warns of each grid below 128 blocks that goes through its dispatcher."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbel.Generator(SEED).sample(on_device(logits((3, 40), np.float32)))


@check(backends=_REAL)
def check_draw_elsewhere():
    """A draw id on another device is refused: kernels cannot read it."""
    if len(cuda.gpus) < 2:
        return
    with cuda.gpus[1]:
        there = on_device(logits((2, 40), np.float32))
    moving = numbel.Generator(SEED, cuda.to_device(np.array([DRAW], np.uint64)))
    said = raised(lambda: moving.categorical(there))
    assert said == "draw lies on device 0 and the kernels that read it on device 1"


@check(formats=("bfloat16",))
def check_copies(dtype):
    """numba-cuda itself copies no bfloat16 to a device."""
    from numbel._cuda.numba_cuda import to_device

    x = logits((3, 40), dtype)
    there = to_device(x)
    assert there.dtype == x.dtype
    same(there, x, "a copy")
    same(rng().sample(there).logsumexp, rng().sample(x, on_invalid="flag").logsumexp, "of a copy")


@check(backends=("ptx",))
def check_captured_uploads():
    """A graph reads what the call copied to the device, and its scratch, whenever it is launched."""
    x = logits((2, 4200), np.float32)
    array, stream = on_device(x), _Stream(cuda.stream())
    counter, out = cuda.to_device(np.array([DRAW], np.uint64)), cuda.device_array(2, np.int64)
    moving, expected = numbel.Generator(SEED, counter), rng().categorical(x, temperature=[0.5, 2.0])
    DRIVER.guards_scratch = False  # whose arrays of their own nobody keeps
    with DRIVER.capturing() as launches:
        moving.categorical(array, temperature=[0.5, 2.0], out=out, stream=stream)
    DRIVER.guards_scratch = True
    for _ in range(3):  # other calls on the stream, whose memory is poisoned when it is freed
        numbel.Generator(SEED).categorical(array, temperature=[3.0, 4.0], stream=stream)
        gc.collect()
        cuda.current_context().memory_manager.deallocations.clear()
    DRIVER.replay(launches)
    same(out, expected, "a captured call with temperatures of the host")


@check
def check_arrays_without_elements():
    """What is not given is an array without elements, of which the second call makes none."""
    from numbel._device.libraries import Span

    array, made, plain = on_device(logits((3, 40), np.float32)), [], Span.view

    def view(self, offset, shape, strides):
        made.append(0 in shape)
        return plain(self, offset, shape, strides)

    rng().sample(array)
    Span.view = view
    try:
        rng().sample(array)
    finally:
        Span.view = plain
    assert made, "no array is made"
    assert not any(made), f"{sum(made)} of {len(made)} without elements"
