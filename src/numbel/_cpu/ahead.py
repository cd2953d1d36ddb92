"""Cache lines asked for before their turn, where the hardware leaves a core waiting.

On two cores of an Intel server (Sapphire Rapids or later) grouped sampling goes from 4.3 to 7.2 G/s (bfloat16: 3.7 to
9.7); truncation's first pass from 3.4 to 4.3; `gumbel_max`, which asks while it makes noise, from 2.3 to 3.0.
Prototypes on Zen 4 lost by it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import config, int64, types, uint64
from numba.extending import intrinsic

from .._jit import inlined, njit
from .._scalar.address import NOISE
from .._scalar.blocks import BLOCK, LANES
from .memory import element_size
from .noise import fill_noise

_LINE = 64
#: How far ahead a pass over logits asks, in bytes: 512 and 1280 do less. 0: not at all.
_AHEAD = 0 if (config.CPU_NAME or binding.get_host_cpu_name()).startswith("znver") else 1024
#: Lines that a core waits for at once: noise that asks for 32 at a time hides a third of what it hides with 16.
_LINES = 16
#: How far ahead noise asks, in blocks: 1 and 4 do as well.
_BLOCKS = 2


def _prefetch(nearness: int) -> Any:
    """The function that asks for the cache line of an address, which need not be valid: 3 into L1, 2 into L2."""

    @intrinsic
    def prefetch(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            builder.call(function, [builder.inttoptr(args[0], byte), *(ir.Constant(word, v) for v in (0, nearness, 1))])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return prefetch


_near, _nearer = _prefetch(2), _prefetch(3)


@inlined
def ask_ahead(kind, address):
    """Ask for what lies a little behind an address: an element in each lane."""
    if _AHEAD > 0:
        for i in range(_AHEAD, _AHEAD + LANES * element_size(kind), _LINE):
            _nearer(address + i)


@njit
def fill_noise_and_ask(address, size, x, count, column, sample, row, key, mask):
    """`fill_noise` for a block, and meanwhile ask for the one `_BLOCKS` behind `address`, unless that is 0.

    Its elements have `size` bytes.
    """
    asks = _AHEAD > 0 and address != 0
    step = int64(_LINES * _LINE) // size if asks else int64(count)
    for first in range(0, count, step):
        if asks:
            for i in range(0, _LINES * _LINE, _LINE):
                _near(address + (_BLOCKS * BLOCK + first) * size + i)
        fill_noise(x[first:], min(step, count - first), column + uint64(first), sample, row, uint64(NOISE), key, mask)
