"""Cache lines asked for before their turn, where the hardware leaves a core waiting.

On two cores of an Intel server (Sapphire Rapids or later) grouped sampling goes from 4.3 to 7.2 G/s (bfloat16: 3.7 to
9.7); truncation's first pass from 3.4 to 4.3; `gumbel_max`, which asks while it makes noise, from 2.3 to 3.0.
Prototypes on Zen 4 lost by it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from .._jit import inlined
from .._scalar.blocks import LANES
from .memory import element_size

_LINE = 64
#: How far ahead a pass over logits asks, in bytes: 512 and 1280 do less. 0: not at all. A wheel's kernels without
#: AVX-512 do not: most processors that run them are Zen 2 and 3.
_AHEAD = 0 if (config.CPU_NAME or binding.get_host_cpu_name()).startswith(("znver", "x86-64-v3")) else 1024
ASKS = _AHEAD > 0
#: 16 lines, for which a core waits at once: noise that asks for 32 at a time hides a third of what it hides with these.
BURST = 16 * _LINE


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
    if ASKS:
        for i in range(_AHEAD, _AHEAD + LANES * element_size(kind), _LINE):
            _nearer(address + i)


@inlined
def ask_later(address):
    """Ask for the first lines of what lies at an address, as many as a core waits for at once."""
    for i in range(0, BURST, _LINE):
        _near(address + i)
