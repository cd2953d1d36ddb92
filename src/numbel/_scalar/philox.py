"""Philox4x32-10, the counter-based generator of Salmon et al., SC 2011."""

from __future__ import annotations

from numba import uint64

from .._jit import inlined

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


@inlined
def _round(c0, c1, c2, c3, k0, k1):
    """One round; only the low 32 bits of each word count, the high ones may hold anything."""
    # The mask costs nothing: vpmuludq reads the low halves. With uint32 words LLVM builds the
    # 64-bit product from several instructions (1.0 against 2.5 G words/s a core).
    p0 = (c0 & uint64(_MASK)) * uint64(_M0)
    p1 = (c2 & uint64(_MASK)) * uint64(_M1)
    return (p1 >> uint64(32)) ^ c1 ^ k0, p1, (p0 >> uint64(32)) ^ c3 ^ k1, p0


@inlined
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Ten rounds over counter c0..c3 and key k0, k1: four words, all uint64 below 2^32."""
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    for i in range(1, 10):
        w0 = (k0 + uint64(i) * uint64(_W0)) & uint64(_MASK)
        w1 = (k1 + uint64(i) * uint64(_W1)) & uint64(_MASK)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, w0, w1)
    mask = uint64(_MASK)
    return c0 & mask, c1 & mask, c2 & mask, c3 & mask
