"""Arrays of other libraries by their real interfaces: `__cuda_array_interface__`, DLPack's capsules, tensors of torch.

The memory is that of a card's stand-in. The calls, and the objects that they are made with, are the libraries' own as
far as these work without a card.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
import types
import weakref

import numpy as np
from numba import cuda

import numbel
import numbel.cuda
from backend import DRIVER
from check_devices import CALLS, _non_blocking, _Stream, equal
from common import check, logits, on_device, raised, rng, same
from numbel._cuda import numba_cuda

_PTX = ("ptx",)


class Interface:
    """What has `__cuda_array_interface__` and nothing else."""

    def __init__(self, array, **changed):
        self.array = array
        self.__cuda_array_interface__ = dict(array.__cuda_array_interface__) | changed


class Capsules:
    """What has DLPack and nothing else, and tells the streams that were asked for."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None, **options):
        self.asked.append(stream)
        return numba_cuda.exported(self.array).__dlpack__(stream=-1, **options)


@check(formats=("float32",), backends=_PTX)
def check_interface(dtype):
    """With strides and without, on the streams that the interface names, read-only."""
    x = logits((2, 4200), dtype)
    array = on_device(x)
    kinds = {
        "plain": Interface(array),
        "of no strides": Interface(array, strides=None),
        "read-only": Interface(array, data=(array.__cuda_array_interface__["data"][0], True)),
        "of the legacy stream": Interface(array, stream=1),
        "of a stream": Interface(array, stream=_Stream(cuda.stream()).handle),
    }
    for what, given in kinds.items():
        for name, call in CALLS.items():
            equal(call(rng(), given), call(rng(), x, on_invalid="flag"), f"{name} of an interface {what}")
    turned = Interface(array[:, ::2])
    same(rng().categorical(turned), rng().categorical(x[:, ::2], on_invalid="flag"), "of every other column")


@check(backends=_PTX)
def check_refused():
    """A mask, memory that may not be written, and freed memory."""
    x = logits((2, 40), np.float32)
    array = on_device(x)
    masked = Interface(array, mask=Interface(array))
    assert raised(lambda: rng().categorical(masked)) == (
        "logits has a mask, which no kernel reads: set what it leaves out to -inf"
    )
    out = cuda.device_array(2, np.int64)
    fixed = Interface(out, data=(out.__cuda_array_interface__["data"][0], True))
    assert raised(lambda: rng().categorical(array, out=fixed)) == "out is read-only"
    gone = Interface(array, data=(0, False))
    assert raised(lambda: rng().categorical(gone)) == "logits has no memory: it was freed"


@check(backends=_PTX)
def check_producers_stream():
    """A call runs behind what the producer's stream still does, whatever comes late."""
    x = logits((2, 4200), np.float32)
    DRIVER.guards_scratch = False  # whose arrays nobody keeps until kernels have run
    for name, call in CALLS.items():
        expected = call(rng(), x, on_invalid="flag")
        for seed in range(3):
            with DRIVER.late(seed):
                stream = cuda.external_stream(_non_blocking())
                array = cuda.device_array(x.shape, np.float32)
                cuda.synchronize()
                array.copy_to_device(x, stream=stream)
                given = Interface(array, stream=_Stream(stream).handle)
                found = call(rng(), given)
                stream.synchronize()
                equal(found, expected, f"{name} behind its producer")
    DRIVER.guards_scratch = True


@check(formats=("float32",), backends=_PTX)
def check_dlpack(dtype):
    """Capsules: consumed once each, on the call's stream, and kept until the kernels have run."""
    x = logits((2, 4200), dtype)
    stream = _Stream(cuda.external_stream(_non_blocking()))
    for name, call in CALLS.items():
        expected = call(rng(), x, on_invalid="flag")
        given = Capsules(on_device(x))
        equal(call(rng(), given), expected, f"{name} of DLPack")
        equal(call(rng(), given, stream=stream), expected, f"{name} of DLPack on a stream")
        assert set(given.asked) == {1, stream.handle}, given.asked
    turned = Capsules(on_device(x)[:, ::2])
    same(rng().categorical(turned), rng().categorical(x[:, ::2], on_invalid="flag"), "every other column of DLPack")


@check(backends=_PTX)
def check_capsules_last():
    """The producer's array is dropped at once, while all is late."""
    x = logits((2, 4200), np.float32)
    DRIVER.guards_scratch = False
    numbel.cuda.free_scratch()
    expected = rng().categorical(x, on_invalid="flag")
    with DRIVER.late(0):
        given = Capsules(on_device(x))
        cuda.synchronize()
        memory = weakref.ref(given.array)
        found = rng().categorical(given)
        del given
        gc.collect()
        assert memory() is not None, "the kernels still read it"
        cuda.synchronize()
        same(found, expected, "of an array that was dropped")
        for _ in range(20):  # events pass now and then
            numbel.cuda.free_scratch()
        gc.collect()
        assert memory() is None, "nobody reads it any more"
    DRIVER.guards_scratch = True


# --- torch, built without CUDA or with


def host(found):
    """Results on the host."""
    from device_tensor import DeviceTensor

    if isinstance(found, tuple):
        return tuple(map(host, found))
    assert isinstance(found, DeviceTensor)
    return found.host.numpy().copy()  # the tensor's memory goes with it


def torch_equal(found, expected, what):
    for one, due in zip(
        found if isinstance(found, tuple) else (found,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        due = np.asarray(due)
        assert (one.dtype, one.shape) == (due.dtype, due.shape), what
        assert np.array_equal(one, due, equal_nan=True), what


def without_torch():
    return importlib.util.find_spec("torch") is None


@check(formats=("float32",), backends=_PTX)
def check_tensors(dtype):
    """Tensors of a subclass, on the current stream and on another, strided, with options on either side."""
    if without_torch():
        return
    import torch

    from device_tensor import DeviceTensor, on_stream

    x = logits((2, 600), dtype)
    stream = _Stream(cuda.external_stream(_non_blocking()))
    with on_stream(0):
        given = DeviceTensor.of(torch.from_numpy(x))
        for name, call in CALLS.items():
            expected = call(rng(), x, on_invalid="flag")
            torch_equal(host(call(rng(), given)), expected, f"{name} of a tensor")
            torch_equal(host(call(rng(), given, stream=stream)), expected, f"{name} of a tensor on a stream")
        turned = DeviceTensor.of(torch.from_numpy(x.T.copy())).t()
        torch_equal(host(rng().sample(turned)), rng().sample(x, on_invalid="flag"), "sample of columns first")
        temperature = np.array([0.5, 0.0])
        due = rng().sample(x, temperature=temperature, row_ids=[5, 6], on_invalid="flag")
        there = DeviceTensor.of(torch.from_numpy(temperature.astype(np.float32)))
        ids = DeviceTensor.of(torch.tensor([5, 6], dtype=torch.int32))
        for kinds in ((temperature, [5, 6]), (there, ids)):
            found = rng().sample(given, temperature=kinds[0], row_ids=kinds[1])
            torch_equal(host(found), due, "a temperature and row_ids of a row each")
        out = DeviceTensor.of(torch.zeros(2, dtype=torch.int64))
        assert rng().categorical(given, out=out) is out
        torch_equal(host(out), rng().categorical(x, on_invalid="flag"), "into a tensor")


@check(backends=_PTX)
def check_tensors_refused():
    """A tensor that requires a gradient, a view of negatives, and an array of another library."""
    if without_torch():
        return
    import torch

    from device_tensor import DeviceTensor, on_stream

    x = logits((2, 40), np.float32)
    with on_stream(0):
        given = DeviceTensor.of(torch.from_numpy(x))
        graded = given.detach().requires_grad_()
        assert raised(lambda: rng().categorical(graded)).startswith("logits is a tensor that requires a gradient")
        assert raised(lambda: rng().gumbel_softmax(given, out=graded)).startswith("out is a tensor that requires")
        out = cuda.device_array(2, np.int64)
        assert raised(lambda: rng().categorical(given, out=out)) == (
            "out is an array of Numba, expected one of PyTorch, as the logits"
        )
        assert raised(lambda: rng().categorical(on_device(x), out=given)) == (
            "out is an array of PyTorch, expected one of Numba, as the logits"
        )


# --- JAX and CuPy: their calls, on objects that have what is used of their arrays


class _Device:
    platform, local_hardware_id = "cuda", 0

    def __init__(self, handle):
        self._handle = handle

    def get_stream_for_external_ready_events(self):
        return self._handle


class _JaxArray(Capsules):
    """An array of JAX's on the device: shape, dtype, address and capsules."""

    def __init__(self, array, handle):
        super().__init__(array)
        self.device, self.shape, self.dtype = _Device(handle), array.shape, array.dtype

    def devices(self):
        return {self.device}

    def unsafe_buffer_pointer(self):
        return self.array.__cuda_array_interface__["data"][0]


_JaxArray.__module__ = "jaxlib.stand_in"


@check(backends=_PTX)
def check_jax():
    """Logits by address and capsule; results through `jax.dlpack`, whose place is taken as it needs a card."""
    if importlib.util.find_spec("jax") is None:
        return
    import jax

    x, home = logits((2, 600), np.float32), _Stream(cuda.stream())
    plain = jax.dlpack.from_dlpack
    jax.config.update("jax_enable_x64", True)
    jax.dlpack.from_dlpack = lambda exported: numba_cuda.imported(exported, 0)
    try:
        for name, call in CALLS.items():
            expected = call(rng(), x, on_invalid="flag")
            for stream in (None, _Stream(cuda.stream())):
                given = _JaxArray(on_device(x), home.handle)
                found = call(rng(), given, stream=stream)
                equal(_arrays(found), expected, f"{name} of JAX")
                assert set(given.asked) == {(stream or home).handle}
    finally:
        jax.dlpack.from_dlpack = plain
        jax.config.update("jax_enable_x64", False)


def _arrays(found):
    """Numba's arrays over what DLPack handed out."""
    if isinstance(found, tuple):
        return tuple(map(_arrays, found))
    strides = None if found.strides is None else tuple(found.dtype.itemsize * step for step in found.strides)
    data = {"data": (found.ptr, False), "shape": tuple(found.shape), "strides": strides}
    interface = data | {"typestr": np.dtype(found.dtype).str, "version": 3}
    return cuda.from_cuda_array_interface(interface, owner=found, sync=False)


class _CuPyArray:
    """An array of CuPy's: the same memory, and what is used of its methods."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.device = types.SimpleNamespace(id=0)
        self.__cuda_array_interface__ = array.__cuda_array_interface__

    def astype(self, kind, copy=True):
        if np.dtype(kind) == self.dtype and not copy:
            return self
        return _CuPyArray(on_device(self.array.copy_to_host().astype(kind)))


_CuPyArray.__module__ = "cupy._core.core"


@contextlib.contextmanager
def _cupy(handle):
    """A module in the place of `cupy`, with the functions that are called."""
    streams = [handle]

    @contextlib.contextmanager
    def external(handle, device):
        streams.append(handle)
        yield
        streams.pop()

    def empty(shape, dtype):
        assert streams[-1] == handle, "what is allocated belongs to the call's stream"
        return _CuPyArray(cuda.device_array(shape, dtype))

    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(
        Device=lambda device: contextlib.nullcontext(),
        get_current_stream=lambda: types.SimpleNamespace(ptr=streams[-1]),
        ExternalStream=external,
    )
    module.empty = empty
    module.asarray = lambda array: _CuPyArray(on_device(np.asarray(array)))
    module.broadcast_to = lambda array, shape: _CuPyArray(
        on_device(np.broadcast_to(array.array.copy_to_host(), shape).copy())
    )
    module.ascontiguousarray = lambda array: array
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = module
    try:
        yield
    finally:
        sys.modules.pop("cupy") if before is None else sys.modules.update(cupy=before)


@check(backends=_PTX)
def check_cupy():
    """The calls of CuPy that are made: on its current stream, with temperatures on either side."""
    x = logits((2, 600), np.float32)
    with _cupy(_Stream(cuda.stream()).handle):
        given = _CuPyArray(on_device(x))
        for name, call in CALLS.items():
            found = call(rng(), given)
            found = tuple(each.array for each in found) if isinstance(found, tuple) else found.array
            equal(found, call(rng(), x, on_invalid="flag"), f"{name} of CuPy")
        due = rng().categorical(x, temperature=[0.5, 0.5], on_invalid="flag")
        for temperature in ([0.5, 0.5], _CuPyArray(on_device(np.array([0.5], np.float32)))):
            same(rng().categorical(given, temperature=temperature).array, due, "a temperature")
