"""Races of kernels in Numba's CUDA simulator: NUMBEL_RACES=1 looks for them, in twice the time.

Every access of a thread to an element of device or shared memory is kept with the barriers that the thread had passed.
Two accesses of which one writes, of different threads, not both atomic, must have a barrier of their CUDA block
between them, or lie in different launches; nothing orders two blocks. The simulator itself would not notice: it does
blocks one by one, and often switches threads at barriers only.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from numba.cuda.simulator import kernel, kernelapi
from numba.cuda.simulator.cudadrv import devicearray

import simulator

READ, WRITE, ATOMIC = 1, 2, 4
#: What an access conflicts with if another thread's comes in any order.
_CONFLICTS = {READ: WRITE | ATOMIC, WRITE: READ | WRITE | ATOMIC, ATOMIC: READ | WRITE}
_lock = threading.Lock()


class Element:
    """Accesses to an element: each CUDA block's kinds, and each thread's of the last block since its last barrier."""

    __slots__ = ("block", "blocks", "passed", "threads", "value")

    def __init__(self):
        self.blocks, self.block, self.passed, self.threads, self.value = {}, None, 0, {}, None

    def touch(self, block, passed, thread, kind, value):
        """Whether this access races with an earlier one."""
        if (block, passed) != (self.block, self.passed):
            self.block, self.passed, self.threads, self.value = block, passed, {}, None
        against = _CONFLICTS[kind]
        if kind == WRITE:  # that several threads write the same is no matter
            same = value == self.value or (value != value and self.value is not None and self.value != self.value)
            against = against & ~WRITE if same else against
            self.value = value
        threads, blocks = self.threads, self.blocks
        threads[thread] = threads.get(thread, 0) | kind
        blocks[block] = blocks.get(block, 0) | kind
        return (len(threads) > 1 and any(k & against and other != thread for other, k in threads.items())) or (
            len(blocks) > 1 and any(k & against and other != block for other, k in blocks.items())
        )


class Memory(dict):
    """Elements by address, in one launch."""

    def __missing__(self, address):
        self[address] = made = Element()
        return made


_memory = Memory()
_arrays: dict[int, tuple[np.ndarray, int, tuple[int, ...], tuple[int, ...]]] = {}


#: What was found first: the simulator lets the other threads of a block run on, into errors that follow from it.
_found: list[str] = []


def _expect(right, text):
    if not right:
        frame = sys._getframe(1)
        while frame.f_code.co_filename == __file__ or "simulator" in frame.f_code.co_filename:
            frame = frame.f_back
        _found.append(f"{text}, {frame.f_code.co_filename}:{frame.f_lineno}")
    assert not _found, _found[0]


def _touch(array, index, kind, value=None):
    """Keep an access of a kernel, which must not race, nor lie outside."""
    thread = threading.current_thread()
    if type(thread) is not kernel.BlockThread:
        return
    known = _arrays.get(id(array))
    if known is None:  # the array is kept, so that no other has its id
        known = _arrays[id(array)] = array, array.__array_interface__["data"][0], array.shape, array.strides
    _, address, shape, strides = known
    index = index if type(index) is tuple else (index,)
    if len(index) != len(shape):
        return  # a part of the array
    for i, size, stride in zip(index, shape, strides, strict=True):
        i = int(i)
        if not 0 <= i < size:
            _expect(False, f"index {index} of shape {shape}")
        address += i * stride
    # shared memory belongs to a block: the simulator lends the next block the same array
    element = (address, thread.block) if type(array) is Shared else address
    with _lock:
        racing = _memory[element].touch(
            thread.block, thread.barriers, thread.thread_id, ATOMIC if thread.in_atomic else kind, value
        )
    if not racing:
        return
    _expect(False, f"a race on element {index} of shape {shape}")


class Shared(np.ndarray):
    """A shared array that is watched."""

    def __getitem__(self, index):
        _touch(self, index, READ)
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        _touch(self, index, WRITE, value)
        super().__setitem__(index, value)


def watch():
    """Look for races from now on."""
    plain = {name: getattr(devicearray.FakeCUDAArray, name) for name in ("__getitem__", "__setitem__")}
    begin, wait, run = kernelapi.FakeCUDAModule.__init__, kernel.BlockThread.syncthreads, kernel.BlockManager.run
    made = kernel.BlockThread.__init__

    def read(self, index):
        _touch(self._ary, index, READ)
        return plain["__getitem__"](self, index)

    def write(self, index, value):
        _touch(self._ary, index, WRITE, value)
        return plain["__setitem__"](self, index, value)

    def launch(self, *arguments):
        _memory.clear()
        _arrays.clear()
        begin(self, *arguments)

    def barrier(self):
        frame = sys._getframe(2)
        here = frame.f_code.co_filename, frame.f_lineno
        with _lock:
            self._manager.places.setdefault(self.barriers, []).append(here)
        wait(self)
        self.barriers += 1

    def thread(self, f, manager, index, *arguments):
        made(self, f, manager, index, *arguments)
        self.barriers, self.in_atomic, self.block = 0, False, tuple(index)

    def block(self, *arguments):
        self.places = {}
        run(self, *arguments)
        for places in self.places.values():
            assert places == places[:1] * np.prod(self._block_dim), f"threads wait at different barriers: {places}"

    def atomic(method):
        def call(self, *arguments):
            thread = threading.current_thread()
            thread.in_atomic = True
            try:
                return method(self, *arguments)
            finally:
                thread.in_atomic = False

        return call

    for name, method in list(vars(kernelapi.FakeCUDAAtomic).items()):
        if callable(method) and not name.startswith("__"):
            setattr(kernelapi.FakeCUDAAtomic, name, atomic(method))
    simulator.shared_kind = Shared
    devicearray.FakeCUDAArray.__getitem__, devicearray.FakeCUDAArray.__setitem__ = read, write
    kernelapi.FakeCUDAModule.__init__ = launch
    kernel.BlockManager.run = block
    kernel.BlockThread.__init__, kernel.BlockThread.syncthreads = thread, barrier
