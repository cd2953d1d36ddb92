"""What PTX and machine code show without being run: spills, narrow products, what gives other bits than the CPU."""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import Any

from cuda.core import Linker, LinkerOptions, ObjectCode
from numba.cuda.cudadrv import nvvm

from .addresses import narrow_products
from .facts import Facts
from .parser import Module, written_and_read

#: FMUL, FADD, FFMA, DMUL, DADD, DFMA.
_ARITHMETIC = (0x20, 0x21, 0x23, 0x28, 0x29, 0x2B)
_FLOAT = re.compile(r"0[dfDF][0-9a-fA-F]+$")


def facts(library: Any, target: tuple[Any, ...], products: bool = False) -> Facts:
    """What the PTX of a code library for a target says, and ptxas; with `products` also what either fuses."""
    arch = "{}{}{}".format(*target)
    ptx = "\n".join(library.get_asm_strs(target))
    log = _linker_said(library, target, ptx)
    module = Module(ptx)
    narrow = [" ".join((one.operation, *one.operands)) for one in narrow_products(module)]
    used = max(map(int, re.findall(r"Used ([0-9]+) registers", log)))
    spilled = sum(map(int, re.findall(r"([0-9]+) bytes (?:stack frame|spill)", log)))
    found = Facts(used, spilled, ".approx" in ptx, ".ftz" in ptx, narrow, extremes_of_zeros(module))
    if not products:
        return found
    options = library._nvvm_options | {"arch": f"compute_{arch}", "fma": 0}
    unfused = nvvm.compile_ir(library.llvm_strs, **options).decode()
    exact = re.sub(r"\b(mul|add|sub)[.](f32|f64)", r"\1.rn.\2", ptx)  # which ptxas may not contract
    # both linked alike: with other options ptxas may copy an instruction or not
    same = len({tuple(_arithmetic(_link(each, f"sm_{arch}")[0])) for each in (ptx, exact)}) == 1
    return found._replace(contracted=_fused(ptx) - _fused(unfused), same_arithmetic=same)


def extremes_of_zeros(module: Module) -> list[tuple[str, str]]:
    """Minima and maxima of floats that could meet two zeros: with "0" where one is a constant 0, else with "".

    NVVM makes them of compare and select, where +0 and -0 compare equal and theirs do not.
    """
    code = module.instructions()
    writes = Counter(register for one in code for register in written_and_read(one)[0])
    constants = {
        one.operands[0]: one.operands[1] for one in code if one.root == "mov" and _FLOAT.match(one.operands[1])
    }
    found = set()
    for one in code:
        if one.root not in ("min", "max") or one.parts[-1] not in ("f32", "f64"):
            continue
        given = [constants.get(each, each) if writes[each] == 1 else each for each in one.operands[1:]]
        numbers = [int(each[2:], 16) for each in given if _FLOAT.match(each)]
        if not any(numbers):  # a number other than 0 equals no zero
            found.add((one.root, "0" if numbers else ""))
    return sorted(found)


def _fused(ptx: str) -> int:
    return len(re.findall(r"fma[.]rn[.]f", ptx))


def _linker_said(library: Any, target: tuple[Any, ...], ptx: str) -> str:
    """What ptxas said, as it is kept or said again."""
    log = library._linkerinfo_cache.get(target) or ""
    return log if "registers" in log else _link(ptx, "sm_{}{}{}".format(*target))[1]


def _link(ptx: str, arch: str) -> tuple[bytes, str]:
    """Machine code, and what ptxas says."""
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, ptxas_options=["-v"]))
    return linker.link("cubin").code, linker.get_info_log()


def _arithmetic(elf: bytes) -> list[int]:
    """How many instructions add, multiply and do both."""
    opcodes = [body[at] for body in _text_sections(elf) for at in range(0, len(body), 16)]
    return [opcodes.count(one) for one in _ARITHMETIC]


def _text_sections(elf: bytes) -> list[bytes]:
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, number, names = struct.unpack_from("<HHH", elf, 0x3A)
    sections: list[Any] = [struct.unpack_from("<IIQQQQ", elf, table + at * size) for at in range(number)]
    names = sections[names][4]
    return [elf[s[4] : s[4] + s[5]] for s in sections if elf[names + s[0] :].startswith(b".text")]
