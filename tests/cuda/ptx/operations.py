"""Arithmetic, comparisons and conversions of PTX as LLVM IR.

Registers are integers in memory, which LLVM lifts out of it. Results are those of the ISA to the last bit: of an
arithmetic result in float32 a NaN is 0x7fffffff. What is not exact (.approx, .ftz), or not known, is an error.
"""

from __future__ import annotations

import re
import struct

from .parser import WIDTH, Instruction, Module, PtxError, split_operands

FLOATS = {"f16": "half", "f32": "float", "f64": "double"}
_TESTS = ("eq", "ne", "lt", "le", "gt", "ge")
_FLOAT_TESTS = {test: f"o{test}" for test in _TESTS} | {f"{test}u": f"u{test}" for test in _TESTS}
_FLOAT_TESTS |= {"num": "ord", "nan": "uno"}
_UNSIGNED_TESTS = {"lo": "ult", "ls": "ule", "hi": "ugt", "hs": "uge"}
_ROUNDINGS = {"rni": "roundeven", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
_NUMBER = re.compile(r"-?\d")

DECLARATIONS = [
    *(f"declare {t} @llvm.fma.{k}({t}, {t}, {t})" for k, t in FLOATS.items() if k != "f16"),
    *(
        f"declare {t} @llvm.{name}.{k}({t})"
        for name in ("sqrt", *_ROUNDINGS.values())
        for k, t in FLOATS.items()
        if k != "f16"
    ),
    *(
        f"declare i{w} @llvm.{name}.sat.i{w}.{k}({t})"
        for name in ("fptosi", "fptoui")
        for w in (16, 32, 64)
        for k, t in FLOATS.items()
        if k != "f16"
    ),
    *(f"declare i{w} @llvm.ctlz.i{w}(i{w}, i1)" for w in (32, 64)),
    *(f"declare i{w} @llvm.ctpop.i{w}(i{w})" for w in (32, 64)),
]


def slot(register: str) -> str:
    """The alloca of a register."""
    return "%R" + register[1:].replace("$", "_")


def _sign(kind: str) -> str:
    return "s" if kind[0] == "s" else "u"


def _extend(kind: str) -> str:
    return "sext" if kind[0] == "s" else "zext"


class Operations:
    """Lines of IR for the instructions of a module."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.lines: list[str] = []
        self._names = 0

    # --- registers and constants

    def emit(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def fresh(self, prefix: str = "t") -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def let(self, expression: str) -> str:
        name = "%" + self.fresh()
        self.emit(f"{name} = {expression}")
        return name

    def width(self, register: str) -> int:
        return WIDTH[self.module.type_of(register)]

    def store(self, register: str, value: str, width: int) -> None:
        """A value into a register, widened by zeros or cut if they differ."""
        own = self.width(register)
        if own != width:
            value = self.let(f"{'zext' if own > width else 'trunc'} i{width} {value} to i{own}")
        self.emit(f"store i{own} {value}, ptr {slot(register)}")

    def value(self, operand: str, kind: str) -> str:
        """An operand as an integer of a type's width."""
        width = WIDTH[kind]
        special = re.match(r"%(tid|ntid|ctaid|nctaid)\.([xyz])$", operand)
        if special:
            if special[2] != "x":  # grids and blocks have one axis
                return "0" if special[1] in ("tid", "ctaid") else "1"
            name = f"%{special[1]}"
            return name if width == 32 else self.let(f"{'zext' if width > 32 else 'trunc'} i32 {name} to i{width}")
        if operand == "%laneid":
            return self.let("and i32 %tid, 31")
        if operand.startswith("%"):
            own = self.width(operand)
            value = self.let(f"load i{own}, ptr {slot(operand)}")
            if own == width:
                return value
            return self.let(f"{'trunc' if own > width else 'zext'} i{own} {value} to i{width}")
        if _NUMBER.match(operand):
            return _constant(operand, kind)
        return self.address_of(operand, width)

    def address_of(self, name: str, width: int = 64) -> str:
        """The address of a shared or local array, or a constant."""
        raise NotImplementedError

    def as_float(self, value: str, kind: str) -> str:
        """An integer's bits as a float."""
        width = WIDTH[kind]
        if _NUMBER.match(value):
            value = self.let(f"add i{width} {value}, 0")
        return self.let(f"bitcast i{width} {value} to {FLOATS[kind]}")

    def float_of(self, operand: str, kind: str) -> str:
        return self.as_float(self.value(operand, kind), kind)

    def store_float(self, register: str, value: str, kind: str) -> None:
        """An arithmetic result: in float32 its NaN is a card's."""
        if kind == "f32":
            bad = self.let(f"fcmp uno float {value}, {value}")
            value = self.let(f"select i1 {bad}, float bitcast (i32 2147483647 to float), float {value}")
        self.store(register, self.let(f"bitcast {FLOATS[kind]} {value} to i{WIDTH[kind]}"), WIDTH[kind])

    # --- arithmetic

    def _only_rounded(self, instruction: Instruction) -> None:
        if set(instruction.parts[1:-1]) - {"rn"}:
            raise PtxError(f"rounding of {instruction.operation}")

    def _arithmetic(self, integer: str, floating: str, instruction: Instruction) -> None:
        kind, (to, a, b) = instruction.parts[-1], instruction.operands
        if kind in FLOATS:
            self._only_rounded(instruction)
            x, y = self.float_of(a, kind), self.float_of(b, kind)
            self.store_float(to, self.let(f"{floating} {FLOATS[kind]} {x}, {y}"), kind)
        elif len(instruction.parts) == 2 and integer:
            a, b = self.value(a, kind), self.value(b, kind)
            self.store(to, self.let(f"{integer} i{WIDTH[kind]} {a}, {b}"), WIDTH[kind])
        else:
            raise PtxError(f"unknown instruction {instruction}")

    def op_add(self, instruction: Instruction) -> None:
        self._arithmetic("add", "fadd", instruction)

    def op_sub(self, instruction: Instruction) -> None:
        self._arithmetic("sub", "fsub", instruction)

    def op_and(self, instruction: Instruction) -> None:
        self._arithmetic("and", "", instruction)

    def op_or(self, instruction: Instruction) -> None:
        self._arithmetic("or", "", instruction)

    def op_xor(self, instruction: Instruction) -> None:
        self._arithmetic("xor", "", instruction)

    def op_mul(self, instruction: Instruction) -> None:
        if instruction.parts[-1] in FLOATS:
            self._arithmetic("", "fmul", instruction)
            return
        product, width = self._product(instruction)
        self.store(instruction.operands[0], product, width)

    def op_mad(self, instruction: Instruction) -> None:
        product, width = self._product(instruction)
        added = self.value(instruction.operands[3], f"b{width}")
        self.store(instruction.operands[0], self.let(f"add i{width} {product}, {added}"), width)

    def _product(self, instruction: Instruction) -> tuple[str, int]:
        """Its low half, its high half, or all of it, and how wide that is."""
        half, kind = instruction.parts[1], instruction.parts[-1]
        width = WIDTH[kind]
        a, b = (self.value(operand, kind) for operand in instruction.operands[1:3])
        if half == "lo":
            return self.let(f"mul i{width} {a}, {b}"), width
        if half not in ("wide", "hi"):
            raise PtxError(f"unknown instruction {instruction}")
        a, b = (self.let(f"{_extend(kind)} i{width} {x} to i{2 * width}") for x in (a, b))
        whole = self.let(f"mul i{2 * width} {a}, {b}")
        if half == "wide":
            return whole, 2 * width
        whole = self.let(f"lshr i{2 * width} {whole}, {width}")
        return self.let(f"trunc i{2 * width} {whole} to i{width}"), width

    def op_fma(self, instruction: Instruction) -> None:
        self._only_rounded(instruction)
        kind = instruction.parts[-1]
        given = ", ".join(f"{FLOATS[kind]} {self.float_of(operand, kind)}" for operand in instruction.operands[1:])
        self.store_float(instruction.operands[0], self.let(f"call {FLOATS[kind]} @llvm.fma.{kind}({given})"), kind)

    def op_div(self, instruction: Instruction) -> None:
        if instruction.parts[-1] in FLOATS:
            if "rn" not in instruction.parts:
                raise PtxError(f"rounding of {instruction.operation}")
            self._arithmetic("", "fdiv", instruction)
        else:
            self._divide("div", instruction)

    def op_rem(self, instruction: Instruction) -> None:
        self._divide("rem", instruction)

    def _divide(self, name: str, instruction: Instruction) -> None:
        """Where the ISA leaves the result open (by 0, the least number by -1) it is the dividend's bits inverted."""
        kind, (to, a, b) = instruction.parts[-1], instruction.operands
        width = WIDTH[kind]
        a, b = self.value(a, kind), self.value(b, kind)
        undefined = self.let(f"icmp eq i{width} {b}, 0")
        if _sign(kind) == "s":
            least = self.let(f"icmp eq i{width} {a}, {1 << (width - 1)}")
            minus_one = self.let(f"icmp eq i{width} {b}, -1")
            undefined = self.let(f"or i1 {undefined}, {self.let(f'and i1 {least}, {minus_one}')}")
        divisor = self.let(f"select i1 {undefined}, i{width} 1, i{width} {b}")
        result = self.let(f"{_sign(kind)}{name} i{width} {a}, {divisor}")
        inverted = self.let(f"xor i{width} {a}, -1")
        self.store(to, self.let(f"select i1 {undefined}, i{width} {inverted}, i{width} {result}"), width)

    def _rounded_function(self, instruction: Instruction, expression: str) -> None:
        kind = instruction.parts[-1]
        if instruction.parts[1] != "rn":
            raise PtxError(f"rounding of {instruction.operation}")
        x = f"{FLOATS[kind]} {self.float_of(instruction.operands[1], kind)}"
        self.store_float(instruction.operands[0], self.let(expression.format(type=FLOATS[kind], kind=kind, x=x)), kind)

    def op_sqrt(self, instruction: Instruction) -> None:
        self._rounded_function(instruction, "call {type} @llvm.sqrt.{kind}({x})")

    def op_rcp(self, instruction: Instruction) -> None:
        kind = instruction.parts[-1]
        if instruction.parts[1] != "rn":
            raise PtxError(f"rounding of {instruction.operation}")
        x = self.float_of(instruction.operands[1], kind)
        self.store_float(instruction.operands[0], self.let(f"fdiv {FLOATS[kind]} 1.0, {x}"), kind)

    def op_neg(self, instruction: Instruction) -> None:
        kind = instruction.parts[-1]
        width, value = WIDTH[kind], self.value(instruction.operands[1], kind)
        negated = f"xor i{width} {value}, {1 << (width - 1)}" if kind in FLOATS else f"sub i{width} 0, {value}"
        self.store(instruction.operands[0], self.let(negated), width)

    def op_abs(self, instruction: Instruction) -> None:
        kind = instruction.parts[-1]
        width, value = WIDTH[kind], self.value(instruction.operands[1], kind)
        if kind in FLOATS:
            result = self.let(f"and i{width} {value}, {(1 << (width - 1)) - 1}")
        else:
            negated, below = self.let(f"sub i{width} 0, {value}"), self.let(f"icmp slt i{width} {value}, 0")
            result = self.let(f"select i1 {below}, i{width} {negated}, i{width} {value}")
        self.store(instruction.operands[0], result, width)

    def op_copysign(self, instruction: Instruction) -> None:
        """The sign of the first, the rest of the second."""
        kind = instruction.parts[-1]
        width = WIDTH[kind]
        a, b = (self.value(operand, kind) for operand in instruction.operands[1:])
        sign = self.let(f"and i{width} {a}, {1 << (width - 1)}")
        rest = self.let(f"and i{width} {b}, {(1 << (width - 1)) - 1}")
        self.store(instruction.operands[0], self.let(f"or i{width} {sign}, {rest}"), width)

    def _extreme(self, name: str, instruction: Instruction) -> None:
        kind, (to, a, b) = instruction.parts[-1], instruction.operands
        width = WIDTH[kind]
        if len(instruction.parts) != 2:
            raise PtxError(f"unknown instruction {instruction}")
        a, b = self.value(a, kind), self.value(b, kind)
        if kind not in FLOATS:
            first = self.let(f"icmp {_sign(kind)}{'lt' if name == 'min' else 'gt'} i{width} {a}, {b}")
            self.store(to, self.let(f"select i1 {first}, i{width} {a}, i{width} {b}"), width)
            return
        # of a number and a NaN the number; -0 lies below +0
        x, y, t = self.as_float(a, kind), self.as_float(b, kind), FLOATS[kind]
        first = self.let(
            f"icmp {'slt' if name == 'min' else 'sgt'} i{width} {self._ordered(a, width)}, {self._ordered(b, width)}"
        )
        result = self.let(f"select i1 {first}, {t} {x}, {t} {y}")
        for nan, other in ((y, x), (x, y)):
            bad = self.let(f"fcmp uno {t} {nan}, {nan}")
            result = self.let(f"select i1 {bad}, {t} {other}, {t} {result}")
        self.store_float(to, result, kind)

    def _ordered(self, value: str, width: int) -> str:
        """Bits of a float as an integer of the same order."""
        sign = self.let(f"ashr i{width} {value}, {width - 1}")
        mask = self.let(f"and i{width} {sign}, {(1 << (width - 1)) - 1}")
        return self.let(f"xor i{width} {value}, {mask}")

    def op_min(self, instruction: Instruction) -> None:
        self._extreme("min", instruction)

    def op_max(self, instruction: Instruction) -> None:
        self._extreme("max", instruction)

    # --- bits

    def op_not(self, instruction: Instruction) -> None:
        kind = instruction.parts[-1]
        value = self.value(instruction.operands[1], kind)
        self.store(instruction.operands[0], self.let(f"xor i{WIDTH[kind]} {value}, -1"), WIDTH[kind])

    def op_cnot(self, instruction: Instruction) -> None:
        kind = instruction.parts[-1]
        zero = self.let(f"icmp eq i{WIDTH[kind]} {self.value(instruction.operands[1], kind)}, 0")
        self.store(instruction.operands[0], self.let(f"zext i1 {zero} to i{WIDTH[kind]}"), WIDTH[kind])

    def _shift(self, name: str, instruction: Instruction) -> None:
        """By more than the width: zeros, or copies of the sign."""
        kind = instruction.parts[-1]
        width = WIDTH[kind]
        value, by = self.value(instruction.operands[1], kind), self.value(instruction.operands[2], "u32")
        far = self.let(f"icmp ugt i32 {by}, {width - 1}")
        by = self.let(f"select i1 {far}, i32 {width - 1 if name == 'ashr' else 0}, i32 {by}")
        by = by if width == 32 else self.let(f"{'zext' if width > 32 else 'trunc'} i32 {by} to i{width}")
        result = self.let(f"{name} i{width} {value}, {by}")
        if name != "ashr":
            result = self.let(f"select i1 {far}, i{width} 0, i{width} {result}")
        self.store(instruction.operands[0], result, width)

    def op_shl(self, instruction: Instruction) -> None:
        self._shift("shl", instruction)

    def op_shr(self, instruction: Instruction) -> None:
        self._shift("ashr" if _sign(instruction.parts[-1]) == "s" else "lshr", instruction)

    def op_shf(self, instruction: Instruction) -> None:
        """shf.{l,r}.{wrap,clamp}.b32 to, low, high, by: of 64 bits the upper or the lower 32."""
        _, way, limit, _ = instruction.parts
        to, low, high, by = instruction.operands
        low, high, by = (self.value(operand, "b32") for operand in (low, high, by))
        if limit == "wrap":
            by = self.let(f"and i32 {by}, 31")
        else:
            far = self.let(f"icmp ugt i32 {by}, 32")
            by = self.let(f"select i1 {far}, i32 32, i32 {by}")
        by, both = self.let(f"zext i32 {by} to i64"), self._pair(low, high)
        if way == "l":
            both = self.let(f"lshr i64 {self.let(f'shl i64 {both}, {by}')}, 32")
        else:
            both = self.let(f"lshr i64 {both}, {by}")
        self.store(to, both, 64)

    def _pair(self, low: str, high: str) -> str:
        low, high = (self.let(f"zext i32 {x} to i64") for x in (low, high))
        return self.let(f"or i64 {low}, {self.let(f'shl i64 {high}, 32')}")

    def op_bfi(self, instruction: Instruction) -> None:
        """The low `length` bits of a into b, from `start` on."""
        kind, (to, a, b, start, length) = instruction.parts[-1], instruction.operands
        width, first = WIDTH[kind], int(start) & 255
        mask = ((1 << min(int(length) & 255, width)) - 1) << first & ((1 << width) - 1)
        a, b = self.value(a, kind), self.value(b, kind)
        a = self.let(f"and i{width} {self.let(f'shl i{width} {a}, {first}')}, {mask}")
        b = self.let(f"and i{width} {b}, {((1 << width) - 1) ^ mask}")
        self.store(to, self.let(f"or i{width} {a}, {b}"), width)

    def op_bfe(self, instruction: Instruction) -> None:
        kind, (to, a, start, length) = instruction.parts[-1], instruction.operands
        width, first, count = WIDTH[kind], int(start) & 255, int(length) & 255
        if first + count > width or count == 0:
            raise PtxError(f"unknown instruction {instruction}")
        shifted = self.let(f"shl i{width} {self.value(a, kind)}, {width - first - count}")
        name = "ashr" if _sign(kind) == "s" else "lshr"
        self.store(to, self.let(f"{name} i{width} {shifted}, {width - count}"), width)

    def op_prmt(self, instruction: Instruction) -> None:
        """Four bytes of eight, as the digits of a number say; a digit above 7 repeats the byte's sign."""
        to, low, high, digits = instruction.operands
        both, chosen, result = self._pair(self.value(low, "b32"), self.value(high, "b32")), int(digits, 0), "0"
        for at in range(4):
            digit = chosen >> 4 * at & 15
            byte = self.let(f"trunc i64 {self.let(f'lshr i64 {both}, {8 * (digit & 7)}')} to i8")
            if digit & 8:
                byte = self.let(f"ashr i8 {byte}, 7")
            byte = self.let(f"shl i32 {self.let(f'zext i8 {byte} to i32')}, {8 * at}")
            result = self.let(f"or i32 {result}, {byte}")
        self.store(to, result, 32)

    def _count(self, name: str, instruction: Instruction, more: str = "") -> None:
        kind = instruction.parts[-1]
        width, value = WIDTH[kind], self.value(instruction.operands[1], kind)
        count = self.let(f"call i{width} @llvm.{name}.i{width}(i{width} {value}{more})")
        self.store(instruction.operands[0], count, width)

    def op_clz(self, instruction: Instruction) -> None:
        self._count("ctlz", instruction, ", i1 false")

    def op_popc(self, instruction: Instruction) -> None:
        self._count("ctpop", instruction)

    # --- comparisons and moves

    def op_setp(self, instruction: Instruction) -> None:
        if len(instruction.parts) != 3 or "|" in instruction.operands[0]:
            raise PtxError(f"unknown instruction {instruction}")
        _, test, kind = instruction.parts
        to, a, b = instruction.operands
        if kind in FLOATS:
            a, b = self.float_of(a, kind), self.float_of(b, kind)
            result = self.let(f"fcmp {_FLOAT_TESTS[test]} {FLOATS[kind]} {a}, {b}")
        else:
            name = test if test in ("eq", "ne") else _UNSIGNED_TESTS.get(test, _sign(kind) + test)
            result = self.let(f"icmp {name} i{WIDTH[kind]} {self.value(a, kind)}, {self.value(b, kind)}")
        self.store(to, result, 1)

    def op_selp(self, instruction: Instruction) -> None:
        kind, (to, a, b, which) = instruction.parts[-1], instruction.operands
        a, b, which = self.value(a, kind), self.value(b, kind), self.value(which, "pred")
        self.store(to, self.let(f"select i1 {which}, i{WIDTH[kind]} {a}, i{WIDTH[kind]} {b}"), WIDTH[kind])

    def op_mov(self, instruction: Instruction) -> None:
        """Also {a, b} into a register of both, and back."""
        kind, (to, source) = instruction.parts[-1], instruction.operands
        width = WIDTH[kind]
        if to.startswith("{"):
            pieces, value = split_operands(to[1:-1]), self.value(source, kind)
            each = width // len(pieces)
            for at, piece in enumerate(pieces):
                if piece != "_":
                    part = self.let(f"lshr i{width} {value}, {each * at}")
                    self.store(piece, self.let(f"trunc i{width} {part} to i{each}"), each)
            return
        if not source.startswith("{"):
            self.store(to, self.value(source, kind), width)
            return
        pieces, value = split_operands(source[1:-1]), "0"
        each = width // len(pieces)
        for at, piece in enumerate(pieces):
            part = self.let(f"zext i{each} {self.value(piece, f'b{each}')} to i{width}")
            value = self.let(f"or i{width} {value}, {self.let(f'shl i{width} {part}, {each * at}')}")
        self.store(to, value, width)

    def op_cvta(self, instruction: Instruction) -> None:
        """All address spaces are one."""
        self.store(instruction.operands[0], self.value(instruction.operands[1], "b64"), 64)

    # --- conversions

    def op_cvt(self, instruction: Instruction) -> None:
        *modes, target, source = instruction.parts[1:]
        if set(modes) - {"rn", *_ROUNDINGS} or len(modes) > 1:
            raise PtxError(f"unknown instruction {instruction}")
        to, value, mode = instruction.operands[0], self.value(instruction.operands[1], source), "".join(modes)
        if _NUMBER.match(value):
            value = self.let(f"add i{WIDTH[source]} {value}, 0")
        if source in FLOATS and target in FLOATS:
            self._float_to_float(to, self.as_float(value, source), mode, target, source)
        elif source in FLOATS:
            self._float_to_integer(to, self.as_float(value, source), mode, target, source)
        elif target in FLOATS:
            if mode != "rn":
                raise PtxError(f"unknown instruction {instruction}")
            made = self.let(f"{_sign(source)}itofp i{WIDTH[source]} {value} to {FLOATS[target]}")
            self.store_float(to, made, target)
        else:
            self._integer_to_integer(to, value, target, source)

    def _integer_to_integer(self, to: str, value: str, target: str, source: str) -> None:
        width, wide = WIDTH[source], WIDTH[target]
        if wide != width:
            name = _extend(source) if wide > width else "trunc"
            value = self.let(f"{name} i{width} {value} to i{wide}")
        own = self.width(to)
        if own > wide:  # a register wider than the type keeps the sign
            value, wide = self.let(f"{_extend(target)} i{wide} {value} to i{own}"), own
        self.store(to, value, wide)

    def _float_to_float(self, to: str, x: str, mode: str, target: str, source: str) -> None:
        t, u = FLOATS[source], FLOATS[target]
        if mode in _ROUNDINGS:  # to an integral number
            if target != source:
                raise PtxError(f"cvt.{mode}.{target}.{source}")
            self.store_float(to, self.let(f"call {t} @llvm.{_ROUNDINGS[mode]}.{source}({t} {x})"), target)
            return
        if target == source:
            raise PtxError(f"cvt.{mode}.{target}.{source}")
        made = self.let(f"{'fpext' if WIDTH[target] > WIDTH[source] else 'fptrunc'} {t} {x} to {u}")
        if target == "f16":
            bad, bits = self.let(f"fcmp uno {t} {x}, {x}"), self.let(f"bitcast half {made} to i16")
            self.store(to, self.let(f"select i1 {bad}, i16 32767, i16 {bits}"), 16)
        else:
            self.store_float(to, made, target)

    def _float_to_integer(self, to: str, x: str, mode: str, target: str, source: str) -> None:
        """What does not fit becomes the nearest that does; a NaN 0 or, in 64 bits or from float64, the top bit."""
        t, width = FLOATS[source], WIDTH[target]
        if mode != "rzi":
            x = self.let(f"call {t} @llvm.{_ROUNDINGS[mode]}.{source}({t} {x})")
        name = "fptosi" if target[0] == "s" else "fptoui"
        value = self.let(f"call i{width} @llvm.{name}.sat.i{width}.{source}({t} {x})")
        if source == "f64" or width == 64:
            bad = self.let(f"fcmp uno {t} {x}, {x}")
            value = self.let(f"select i1 {bad}, i{width} {1 << (width - 1)}, i{width} {value}")
        self.store(to, value, width)


def _constant(text: str, kind: str) -> str:
    if text[:2] in ("0f", "0F", "0d", "0D"):
        bits = int(text[2:], 16)
        if text[1] in "fF" and WIDTH[kind] == 64:
            single = struct.unpack("<f", struct.pack("<I", bits))[0]
            bits = struct.unpack("<Q", struct.pack("<d", single))[0]
        return str(bits)
    number = int(text.rstrip("U"), 0)
    return str(number & 1) if kind == "pred" else str(number % (1 << WIDTH[kind]))
