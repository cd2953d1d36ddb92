"""A kernel's PTX as LLVM IR.

The kernel becomes `step(params, shared, local, saved, resume, tid, ctaid, ntid, nctaid)`: a thread runs to its next
barrier, keeps the registers that are live there in `saved`, and returns the barrier's number; -1 at its end. `run`
calls it for every thread of a block, in a permuted order, from barrier to barrier.

Before each access `step` asks the shadow of `memory` whether the bytes are allocated, and whether the address is a
multiple of their number. If not, it returns -2 and leaves what it was about to do in `fault`.
"""

from __future__ import annotations

import re

from .memory import GRANULE
from .operations import DECLARATIONS, Operations, slot
from .parser import WIDTH, Instruction, Module, PtxError, live_before, split_operands, written_and_read

#: Bytes between two shared arrays, which nobody may touch.
_GAP = 64
_BARRIERS = ("bar.sync", "barrier.sync", "barrier.sync.aligned")
_ATOMICS = ("add", "min", "max", "and", "or", "xor", "exch")


class Translator(Operations):
    """The IR of a module, and how much memory each thread and block needs."""

    def __init__(self, module: Module) -> None:
        super().__init__(module)
        self.shared_at, self.shared_bytes = _placed(module.shared, _GAP)
        self.local_at, self.local_bytes = _placed(module.local, 0)
        self.saved_at: dict[str, int] = {}
        self.text = self._module()

    @property
    def saved_bytes(self) -> int:
        """Bytes of the registers that a thread keeps over a barrier."""
        return max(8 * len(self.saved_at), 8)

    # --- the function

    def _module(self) -> str:
        blocks = self.module.blocks
        barriers = {
            (label, at): number
            for number, (label, at) in enumerate(
                ((label, at) for label in blocks for at, one in enumerate(blocks[label]) if one.root.startswith("bar")),
                start=1,
            )
        }
        kept = self._kept(barriers)
        for register in sorted(set().union(*kept.values())):
            self.saved_at[register] = 8 * len(self.saved_at)
        self._entry(kept)
        labels = list(blocks)
        for at, label in enumerate(labels):
            self._block(label, labels[at + 1] if at + 1 < len(labels) else None, barriers, kept)
        self.lines.append("fault:")
        self.emit("ret i32 -2")
        arguments = "ptr %params, ptr %shared, ptr %local, ptr %saved, i32 %resume"
        head = f"define i32 @step({arguments}, i32 %tid, i32 %ctaid, i32 %ntid, i32 %nctaid) {{"
        return "\n".join([*self._constants(), *DECLARATIONS, _ACCESS, head, "entry:", *self.lines, "}", _RUN])

    def _kept(self, barriers: dict[tuple[str, int], int]) -> dict[int, list[str]]:
        """The registers that are live at each barrier."""
        live, after, blocks = self.module.live_at_entry(), self.module.successors(), self.module.blocks
        return {
            number: sorted(live_before(blocks[label][at + 1 :], set().union(*(live[name] for name in after[label]))))
            for (label, at), number in barriers.items()
        }

    def _constants(self) -> list[str]:
        valid = bytearray(self.shared_bytes)
        for name, (_, size) in self.module.shared.items():
            valid[self.shared_at[name] : self.shared_at[name] + size] = b"\1" * size
        lines = [
            f"@shared_bytes = internal constant i64 {len(valid)}",
            f"@shared_valid = internal constant {_data(valid)}",
        ]
        for name, (align, data) in self.module.constants.items():
            if not name.startswith("_ZN08NumbaEnv"):
                lines.append(f"@G.{name.replace('$', '_')} = internal global {_data(data)}, align {max(align, 8)}")
        return lines

    def _entry(self, kept: dict[int, list[str]]) -> None:
        self.emit("%shared_base = ptrtoint ptr %shared to i64")
        self.emit("%local_base = ptrtoint ptr %local to i64")
        used = {name for one in self.module.instructions() for names in written_and_read(one) for name in names}
        for register in sorted(used):
            self.emit(f"{slot(register)} = alloca i{self.width(register)}")
        cases = " ".join(f"i32 {number}, label %resume{number}" for number in kept)
        self.emit(f"switch i32 %resume, label %{_label(next(iter(self.module.blocks)))} [ {cases} ]")
        for number, live in kept.items():
            self.lines.append(f"resume{number}:")
            for register in live:
                address = self.let(f"getelementptr i8, ptr %saved, i64 {self.saved_at[register]}")
                self.store(register, self.let(f"load i64, ptr {address}"), 64)
            self.emit(f"br label %after_barrier{number}")

    def _block(
        self, label: str, following: str | None, barriers: dict[tuple[str, int], int], kept: dict[int, list[str]]
    ) -> None:
        self.lines.append(f"{_label(label)}:")
        left = False
        for at, instruction in enumerate(self.module.blocks[label]):
            if (label, at) in barriers:
                self._barrier(instruction, barriers[label, at], kept[barriers[label, at]])
            elif instruction.root in ("bra", "ret", "exit", "trap"):
                left = self._leave(instruction, following)
            else:
                self._instruction(instruction)
        if not left:
            self.emit(f"br label %{_label(following)}" if following else "ret i32 -1")

    def _barrier(self, instruction: Instruction, number: int, live: list[str]) -> None:
        if instruction.predicate or instruction.operation not in _BARRIERS or instruction.operands != ["0"]:
            raise PtxError(f"unknown barrier {instruction}")
        for register in live:
            address = self.let(f"getelementptr i8, ptr %saved, i64 {self.saved_at[register]}")
            width = self.width(register)
            value = self.let(f"load i{width}, ptr {slot(register)}")
            value = value if width == 64 else self.let(f"zext i{width} {value} to i64")
            self.emit(f"store i64 {value}, ptr {address}")
        self.emit(f"ret i32 {number}")
        self.lines.append(f"after_barrier{number}:")

    def _leave(self, instruction: Instruction, following: str | None) -> bool:
        """A jump, or the thread's end; whether nothing follows in this block."""
        there = _label(instruction.operands[0]) if instruction.root == "bra" else self.fresh("end")
        if instruction.predicate is None:
            self.emit(f"br label %{there}")
        else:
            self._branch(instruction, there, _label(following))
        if instruction.root != "bra":
            self.lines.append(f"{there}:")
            self.emit(f"ret i32 {-3 if instruction.root == 'trap' else -1}")
        return True

    def _branch(self, instruction: Instruction, taken: str, other: str) -> None:
        if instruction.negated:
            taken, other = other, taken
        self.emit(f"br i1 {self.value(instruction.predicate, 'pred')}, label %{taken}, label %{other}")

    def _instruction(self, instruction: Instruction) -> None:
        translate = getattr(self, f"op_{instruction.root}", None)
        if translate is None:
            raise PtxError(f"unknown instruction {instruction}")
        if instruction.predicate is None:
            translate(instruction)
            return
        then, after = self.fresh("then"), self.fresh("else")
        self._branch(instruction, then, after)
        self.lines.append(f"{then}:")
        translate(instruction)
        self.emit(f"br label %{after}")
        self.lines.append(f"{after}:")

    # --- memory

    def address_of(self, name: str, width: int = 64) -> str:
        match = re.match(r"([\w$]+)(?:\s*\+\s*(-?\d+))?$", name)
        symbol, offset = match[1], int(match[2] or 0)
        if symbol in self.shared_at:
            address = self.let(f"add i64 %shared_base, {self.shared_at[symbol] + offset}")
        elif symbol in self.local_at:
            address = self.let(f"add i64 %local_base, {self.local_at[symbol] + offset}")
        elif symbol in self.module.constants:
            address = self.let(f"ptrtoint ptr @G.{symbol.replace('$', '_')} to i64")
            address = self.let(f"add i64 {address}, {offset}")
        else:
            raise PtxError(f"unknown symbol {name}")
        return address if width == 64 else self.let(f"trunc i64 {address} to i{width}")

    def _pointer(self, operand: str, space: str, size: int, write: bool) -> str:
        """[%rd1+8] or [symbol]: the address, which was checked."""
        match = re.match(r"\[\s*(%?[\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]$", operand)
        if match is None:
            raise PtxError(f"unknown address {operand}")
        address = self.value(match[1], "b64")
        if match[2]:
            address = self.let(f"add i64 {address}, {match[2]}")
        if space in ("global", "shared", ""):
            good = self.let(
                f"call i1 @allowed_{space or 'generic'}(i64 {address}, i64 {size}, i64 {int(write)}, "
                "i64 %shared_base, i64 %local_base)"
            )
            after = self.fresh("allowed")
            self.emit(f"br i1 {good}, label %{after}, label %fault")
            self.lines.append(f"{after}:")
        return address

    def _element(self, address: str, offset: int) -> str:
        if offset:
            address = self.let(f"add i64 {address}, {offset}")
        return self.let(f"inttoptr i64 {address} to ptr")

    def op_ld(self, instruction: Instruction) -> None:
        kind, (to, source) = instruction.parts[-1], instruction.operands
        size, pieces = WIDTH[kind] // 8, split_operands(to[1:-1]) if to.startswith("{") else [to]
        space = _space(instruction)
        if space == "param":
            match = re.match(r"\[([\w$]+)(?:\+(\d+))?\]", source)
            start = self.module.parameter_at(match[1]) + int(match[2] or 0)
            for at, piece in enumerate(pieces):
                address = self.let(f"getelementptr i8, ptr %params, i64 {start + at * size}")
                self._load(piece, address, kind)
            return
        address = self._pointer(source, space, size * len(pieces), write=False)
        for at, piece in enumerate(pieces):
            self._load(piece, self._element(address, at * size), kind)

    def _load(self, register: str, address: str, kind: str) -> None:
        width, own = WIDTH[kind], self.width(register)
        value = self.let(f"load i{width}, ptr {address}, align {width // 8}")
        if own > width and kind[0] == "s":
            value, width = self.let(f"sext i{width} {value} to i{own}"), own
        self.store(register, value, width)

    def op_st(self, instruction: Instruction) -> None:
        kind, (to, source) = instruction.parts[-1], instruction.operands
        size, pieces = WIDTH[kind] // 8, split_operands(source[1:-1]) if source.startswith("{") else [source]
        address = self._pointer(to, _space(instruction), size * len(pieces), write=True)
        for at, piece in enumerate(pieces):
            value = self.value(piece, kind)
            self.emit(f"store i{8 * size} {value}, ptr {self._element(address, at * size)}, align {size}")

    def _atomic(self, instruction: Instruction, target: str, operand: str) -> str:
        kind = instruction.parts[-1]
        name = next((part for part in instruction.parts if part in _ATOMICS), None)
        if name is None or kind[0] == "f":
            raise PtxError(f"unknown instruction {instruction}")
        if name in ("min", "max") and kind[0] != "s":
            name = "u" + name
        address = self._element(self._pointer(target, _space(instruction), WIDTH[kind] // 8, write=True), 0)
        name = "xchg" if name == "exch" else name
        return self.let(f"atomicrmw {name} ptr {address}, i{WIDTH[kind]} {self.value(operand, kind)} monotonic")

    def op_atom(self, instruction: Instruction) -> None:
        to, target, operand = instruction.operands
        self.store(to, self._atomic(instruction, target, operand), WIDTH[instruction.parts[-1]])

    def op_red(self, instruction: Instruction) -> None:
        self._atomic(instruction, *instruction.operands)


def _label(name: str) -> str:
    return "B" + name.replace("$", "_")


def _space(instruction: Instruction) -> str:
    return next((part for part in instruction.parts if part in ("global", "shared", "local", "param", "const")), "")


def _placed(arrays: dict[str, tuple[int, int]], gap: int) -> tuple[dict[str, int], int]:
    """Where arrays of an alignment and a size lie in one stretch, and how long that is."""
    places, at = {}, gap
    for name, (align, size) in arrays.items():
        at = -(-at // max(align, 16)) * max(align, 16)
        places[name] = at
        at += size + gap
    return places, -(-at // 16) * 16


def _data(data: bytes | bytearray) -> str:
    text = "".join(f"\\{byte:02x}" for byte in data)
    return f'[{len(data)} x i8] c"{text}"' if data else "[0 x i8] zeroinitializer"


_ACCESS = f"""
@arena = global i64 0
@arena_bytes = global i64 0
@shadow = global ptr null
@local_bytes = global i64 0
@fault = global [5 x i64] zeroinitializer  ; address, bytes, whether written, block, thread

define i1 @refused(i64 %address, i64 %size, i64 %write) noinline {{
  store i64 %address, ptr @fault
  %p1 = getelementptr i64, ptr @fault, i64 1
  store i64 %size, ptr %p1
  %p2 = getelementptr i64, ptr @fault, i64 2
  store i64 %write, ptr %p2
  ret i1 false
}}

define i1 @allowed_global(i64 %address, i64 %size, i64 %write, i64 %shared, i64 %local) noinline {{
  %arena = load i64, ptr @arena
  %bytes = load i64, ptr @arena_bytes
  %offset = sub i64 %address, %arena
  %inside = icmp ult i64 %offset, %bytes
  br i1 %inside, label %look, label %bad
look:
  %less = sub i64 %size, 1
  %rest = and i64 %offset, %less
  %granule = udiv i64 %offset, {GRANULE}
  %shadow = load ptr, ptr @shadow
  %entry = getelementptr i16, ptr %shadow, i64 %granule
  %valid = load i16, ptr %entry
  %wide = zext i16 %valid to i64
  %in = urem i64 %offset, {GRANULE}
  %end = add i64 %in, %size
  %fits = icmp ule i64 %end, %wide
  %aligned = icmp eq i64 %rest, 0
  %good = and i1 %fits, %aligned
  br i1 %good, label %allowed, label %bad
allowed:
  ret i1 true
bad:
  %no = call i1 @refused(i64 %address, i64 %size, i64 %write)
  ret i1 %no
}}

define i1 @allowed_shared(i64 %address, i64 %size, i64 %write, i64 %shared, i64 %local) noinline {{
  %bytes = load i64, ptr @shared_bytes
  %low = and i64 %address, 4294967295
  %offset = sub i64 %low, %shared
  %end = add i64 %offset, %size
  %starts = icmp ult i64 %offset, %bytes
  %ends = icmp ule i64 %end, %bytes
  %inside = and i1 %starts, %ends
  br i1 %inside, label %look, label %bad
look:
  %less = sub i64 %size, 1
  %rest = and i64 %offset, %less
  %aligned = icmp eq i64 %rest, 0
  %last = sub i64 %end, 1
  %first_byte = getelementptr i8, ptr @shared_valid, i64 %offset
  %last_byte = getelementptr i8, ptr @shared_valid, i64 %last
  %a = load i8, ptr %first_byte
  %b = load i8, ptr %last_byte
  %both = and i8 %a, %b
  %valid = icmp ne i8 %both, 0
  %good = and i1 %valid, %aligned
  br i1 %good, label %allowed, label %bad
allowed:
  ret i1 true
bad:
  %no = call i1 @refused(i64 %address, i64 %size, i64 %write)
  ret i1 %no
}}

define i1 @allowed_generic(i64 %address, i64 %size, i64 %write, i64 %shared, i64 %local) noinline {{
  %shared_bytes = load i64, ptr @shared_bytes
  %from_shared = sub i64 %address, %shared
  %is_shared = icmp ult i64 %from_shared, %shared_bytes
  br i1 %is_shared, label %in_shared, label %maybe_local
in_shared:
  %s = call i1 @allowed_shared(i64 %address, i64 %size, i64 %write, i64 %shared, i64 %local)
  ret i1 %s
maybe_local:
  %local_bytes = load i64, ptr @local_bytes
  %from_local = sub i64 %address, %local
  %is_local = icmp ult i64 %from_local, %local_bytes
  br i1 %is_local, label %in_local, label %in_global
in_local:
  ret i1 true
in_global:
  %g = call i1 @allowed_global(i64 %address, i64 %size, i64 %write, i64 %shared, i64 %local)
  ret i1 %g
}}
"""

#: Blocks first .. last - 1 one after the other, or the other way round. Returns 0, or what went wrong: 1 that threads
#: wait at different barriers, 2 a refused access, 3 a trap; the block, and the thread of an access, are in `fault`.
_RUN = """
define i64 @run(ptr %params, ptr %shared, ptr %locals, i64 %local_size, ptr %saved, i64 %saved_size,
                ptr %resume, i32 %ntid, i32 %nctaid, i64 %seed, i64 %first, i64 %last) {
entry:
  %reversed = trunc i64 %seed to i1
  br label %block
block:
  %number = phi i64 [ %first, %entry ], [ %number1, %next ]
  %random0 = phi i64 [ %seed, %entry ], [ %random2, %next ]
  %more = icmp ult i64 %number, %last
  br i1 %more, label %begin, label %ended
ended:
  ret i64 0
begin:
  %from_end = sub i64 %last, %number
  %from_end1 = sub i64 %from_end, 1
  %mirrored = add i64 %from_end1, %first
  %at_block = select i1 %reversed, i64 %mirrored, i64 %number
  %ctaid = trunc i64 %at_block to i32
  br label %clear
clear:
  %i = phi i64 [ 0, %begin ], [ %i1, %clear ]
  %ip = getelementptr i32, ptr %resume, i64 %i
  store i32 0, ptr %ip
  %i1 = add i64 %i, 1
  %threads = zext i32 %ntid to i64
  %im = icmp ult i64 %i1, %threads
  br i1 %im, label %clear, label %phase
phase:
  %random1 = phi i64 [ %random0, %clear ], [ %random2, %judged ]
  %m1 = mul i64 %random1, 6364136223846793005
  %random2 = add i64 %m1, 1442695040888963407
  ; the order of threads: t = (j * step + offset) mod ntid, step coprime to 2 and 3
  %r3 = lshr i64 %random2, 40
  %r4 = and i64 %r3, 31
  %r5 = mul i64 %r4, 6
  %r6 = add i64 %r5, 1
  %step = trunc i64 %r6 to i32
  %r7 = lshr i64 %random2, 50
  %offset = trunc i64 %r7 to i32
  br label %thread
thread:
  %j = phi i32 [ 0, %phase ], [ %j1, %stepped ]
  %least = phi i32 [ 2147483647, %phase ], [ %least2, %stepped ]
  %most = phi i32 [ -2147483648, %phase ], [ %most2, %stepped ]
  %js = mul i32 %j, %step
  %jo = add i32 %js, %offset
  %t = urem i32 %jo, %ntid
  %t64 = zext i32 %t to i64
  %tp = getelementptr i32, ptr %resume, i64 %t64
  %at = load i32, ptr %tp
  %gone = icmp slt i32 %at, 0
  br i1 %gone, label %stepped, label %go
go:
  %so = mul i64 %t64, %saved_size
  %sp = getelementptr i8, ptr %saved, i64 %so
  %lo = mul i64 %t64, %local_size
  %lp = getelementptr i8, ptr %locals, i64 %lo
  %to = call i32 @step(ptr %params, ptr %shared, ptr %lp, ptr %sp, i32 %at, i32 %t, i32 %ctaid, i32 %ntid, i32 %nctaid)
  store i32 %to, ptr %tp
  %failed = icmp slt i32 %to, -1
  br i1 %failed, label %failure, label %stepped
failure:
  %f3 = getelementptr i64, ptr @fault, i64 3
  store i64 %at_block, ptr %f3
  %f4 = getelementptr i64, ptr @fault, i64 4
  store i64 %t64, ptr %f4
  %code = sub i32 0, %to
  %wide_code = zext i32 %code to i64
  ret i64 %wide_code
stepped:
  %now = phi i32 [ -1, %thread ], [ %to, %go ]
  %lt = icmp slt i32 %now, %least
  %least2 = select i1 %lt, i32 %now, i32 %least
  %gt = icmp sgt i32 %now, %most
  %most2 = select i1 %gt, i32 %now, i32 %most
  %j1 = add i32 %j, 1
  %jm = icmp ult i32 %j1, %ntid
  br i1 %jm, label %thread, label %judge
judge:
  %same = icmp eq i32 %least2, %most2
  br i1 %same, label %judged, label %diverged
diverged:
  %d3 = getelementptr i64, ptr @fault, i64 3
  store i64 %at_block, ptr %d3
  ret i64 1
judged:
  %over = icmp slt i32 %most2, 0
  br i1 %over, label %next, label %phase
next:
  %number1 = add i64 %number, 1
  br label %block
}
"""
