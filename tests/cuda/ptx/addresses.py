"""Products in 32 bits of which an address is made: beyond 2^31 elements they wrap without a word."""

from __future__ import annotations

import re

from .parser import WIDTH, Instruction, Module, registers, written_and_read

#: Bits that the special registers take at most: 1024 threads of a block, 2^31 blocks.
_SPECIAL_BITS = {"%tid": 10, "%ntid": 11, "%laneid": 5, "%ctaid": 31, "%nctaid": 31}


def narrow_products(module: Module) -> list[Instruction]:
    """Products and shifts in 32 bits that may overflow and of which an address of global memory is made."""
    code = module.instructions()
    made_of: dict[str, set[str]] = {}
    for one in code:
        written, read = written_and_read(one)
        for register in written:
            made_of.setdefault(register, set()).update(read if one.root not in ("ld", "setp") else ())
    in_addresses = set()
    waiting = [name for one in code for name in _address_registers(one)]
    while waiting:
        register = waiting.pop()
        if register not in in_addresses:
            in_addresses.add(register)
            waiting.extend(made_of.get(register, ()))
    bits = _bits(module, code)
    quotients = {(one.operands[0], one.operands[2]) for one in code if one.operation == "div.u32"}
    return [
        one
        for one in code
        if one.operands
        and one.operands[0] in in_addresses
        and _may_overflow(one, bits)
        and tuple(one.operands[1:3]) not in quotients  # a quotient times its divisor is no more than the dividend
    ]


def _address_registers(one: Instruction) -> list[str]:
    if one.root not in ("ld", "st", "atom", "red") or "global" not in one.parts:
        return []
    return registers(one.operands[0 if one.root in ("st", "red") else 1])


def _may_overflow(one: Instruction, bits: dict[str, int]) -> bool:
    if WIDTH.get(one.parts[-1]) != 32:
        return False
    sizes = [_bits_of(operand, bits, 32) for operand in one.operands[1:3]]
    if one.root in ("mul", "mad") and one.parts[1] == "lo":
        return sum(sizes) > 31
    return one.root == "shl" and one.operands[2].isdigit() and sizes[0] + int(one.operands[2]) > 31


def _bits(module: Module, code: list[Instruction]) -> dict[str, int]:
    """Bits that a register takes at most, where it is written once, by what bounds it."""
    writes: dict[str, list[Instruction]] = {}
    for one in code:
        for register in written_and_read(one)[0]:
            writes.setdefault(register, []).append(one)
    bits: dict[str, int] = {}
    changed = True
    while changed:
        changed = False
        for register, makers in writes.items():
            most = _result_bits(makers[0], bits) if len(makers) == 1 else None
            if most is not None and most < bits.get(register, WIDTH[module.type_of(register)]):
                bits[register], changed = most, True
    return bits


def _result_bits(one: Instruction, bits: dict[str, int]) -> int | None:
    if one.predicate or one.parts[-1][0] == "f":
        return None
    width = WIDTH[one.parts[-1]]
    sizes = [_bits_of(operand, bits, width) for operand in one.operands[1:]]
    if one.root in ("mov", "cvt"):
        return sizes[0]
    if one.root == "and":
        return min(sizes)
    if one.root in ("or", "xor"):
        return max(sizes)
    if one.root == "add":
        return max(sizes) + 1
    if one.root == "shr" and one.operands[2].isdigit():
        return max(0, sizes[0] - int(one.operands[2]))
    if one.root == "shl" and one.operands[2].isdigit():
        return sizes[0] + int(one.operands[2])
    if one.root == "mul" and one.parts[1] in ("lo", "wide"):
        return sum(sizes)
    return None


def _bits_of(operand: str, bits: dict[str, int], width: int) -> int:
    special = _SPECIAL_BITS.get(operand.partition(".")[0])
    if special is not None:
        return special
    if re.match(r"\d+$|0[xX]", operand):
        return int(operand, 0).bit_length()
    return bits.get(operand, width)
