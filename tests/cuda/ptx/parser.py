"""A PTX module of one entry, cut into declarations and instructions."""

from __future__ import annotations

import re
from typing import NamedTuple

#: Bits of each type.
WIDTH = {"pred": 1} | {f"{sign}{bits}": bits for sign in "busf" for bits in (8, 16, 32, 64)}
_SPECIAL = re.compile(r"%(tid|ntid|ctaid|nctaid|laneid|warpid)\b")
_REGISTER = re.compile(r"%[\w$]+")
#: Instructions that write no register.
_NO_RESULT = ("st", "bra", "bar", "barrier", "ret", "exit", "red", "membar", "fence", "trap")


class PtxError(Exception):
    """PTX that is not understood, or that goes wrong when it runs."""


class Instruction(NamedTuple):
    """`@!%p1 add.s32 %r1, %r2, 7` has predicate %p1, is negated, and has the operation add.s32 of three operands."""

    predicate: str | None
    negated: bool
    operation: str
    operands: list[str]

    @property
    def root(self) -> str:
        """The operation without its types."""
        return self.operation.partition(".")[0]

    @property
    def parts(self) -> list[str]:
        """The operation and its types."""
        return self.operation.split(".")


class Parameter(NamedTuple):
    """A parameter of the entry: where it lies in the bytes that a launch hands over."""

    name: str
    offset: int
    size: int


def registers(operand: str) -> list[str]:
    """The registers in an operand."""
    return [name for name in _REGISTER.findall(operand) if not _SPECIAL.match(name)]


def written_and_read(instruction: Instruction) -> tuple[list[str], list[str]]:
    """Registers that an instruction writes, and those that it reads."""
    predicate, _, _, operands = instruction
    read = [predicate] if predicate else []
    if instruction.root in _NO_RESULT:
        return [], read + [name for operand in operands for name in registers(operand)]
    written = registers(operands[0])
    read += [name for operand in operands[1:] for name in registers(operand)]
    return written, read + (written if predicate else [])  # a conditional result keeps the old value


def split_operands(text: str) -> list[str]:
    """Operands; what stands in braces or brackets is one."""
    operands, depth, now = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            operands.append(now.strip())
            now = ""
        else:
            now += character
    return [*operands, now.strip()] if now.strip() else operands


class Module:
    """Declarations and basic blocks of a module's only entry; a second function, or a call, is an error."""

    def __init__(self, ptx: str) -> None:
        ptx = re.sub(r"//[^\n]*", "", ptx)
        ptx = re.sub(r"/\*.*?\*/", "", ptx, flags=re.S)
        head, _, entry = ptx.partition(".entry")
        if ".func" in head:
            raise PtxError("a function that is not inlined")
        self.shared: dict[str, tuple[int, int]] = {}  # name: alignment and size
        self.local: dict[str, tuple[int, int]] = {}
        self.constants: dict[str, tuple[int, bytes]] = {}
        self._read_globals(head)
        match = re.match(r"\s*([\w$]+)\s*\((.*?)\)([^{]*)\{", entry, flags=re.S)
        if match is None:
            raise PtxError("no entry")
        self.name = match[1]
        self.parameters = _parameters(match[2])
        limit = re.search(r"\.maxntid\s+(\d+)", match[3])
        self.max_threads = int(limit[1]) if limit else 1024
        body, rest = _balanced(entry[match.end() :])
        if rest.strip():
            raise PtxError("more than one function")
        self._types: dict[str, str] = {}
        self._read_declarations(body)
        self.blocks = _basic_blocks(body)  # label: instructions, in the order of the text

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters."""
        return max((p.offset + p.size for p in self.parameters), default=0)

    def parameter_at(self, name: str) -> int:
        """Where a parameter lies."""
        return next(p.offset for p in self.parameters if p.name == name)

    def type_of(self, register: str) -> str:
        """The type that a register was declared with, by itself or in a range."""
        found = self._types.get(register) or self._types.get(register.rstrip("0123456789"))
        if found is None:
            raise PtxError(f"unknown register {register}")
        return found

    def instructions(self) -> list[Instruction]:
        """All of them."""
        return [instruction for block in self.blocks.values() for instruction in block]

    def successors(self) -> dict[str, list[str]]:
        """The blocks that may follow each."""
        labels = list(self.blocks)
        found = {}
        for at, label in enumerate(labels):
            last = self.blocks[label][-1] if self.blocks[label] else None
            leaves = last is not None and last.root in ("bra", "ret", "exit", "trap")
            follow = [last.operands[0]] if leaves and last.root == "bra" else []
            if (not leaves or last.predicate) and at + 1 < len(labels):
                follow.append(labels[at + 1])
            found[label] = follow
        return found

    def live_at_entry(self) -> dict[str, set[str]]:
        """Registers that each block reads before it writes them, or that are read after it."""
        after = self.successors()
        live: dict[str, set[str]] = {label: set() for label in self.blocks}
        changed = True
        while changed:
            changed = False
            for label in reversed(self.blocks):
                now = live_before(self.blocks[label], set().union(*(live[name] for name in after[label])))
                if now != live[label]:
                    live[label], changed = now, True
        return live

    def _read_globals(self, head: str) -> None:
        declared = r"\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)\s*(?:\[(\d*)\])?\s*"
        for match in re.finditer(rf"\.shared\s+{declared};", head):
            self.shared[match[3]] = int(match[1]), int(match[4] or 1) * WIDTH[match[2]] // 8
        value = r"(?:=\s*(\{[^}]*\}|[^;]+))?;"
        for match in re.finditer(rf"\.(?:global|const)\s+(?:\.attribute\([^)]*\)\s*)?{declared}{value}", head):
            size = WIDTH[match[2]] // 8
            items = [int(item, 0) for item in match[5].strip("{} \n\t").split(",")] if match[5] else []
            data = b"".join((item % (1 << 8 * size)).to_bytes(size, "little") for item in items)
            self.constants[match[3]] = int(match[1]), data.ljust(size * int(match[4] or 1), b"\0")

    def _read_declarations(self, body: str) -> None:
        for match in re.finditer(r"\.reg\s+\.(\w+)\s+([^;]+);", body):
            for name in match[2].split(","):
                self._types[re.sub(r"<\d+>$", "", name.strip())] = match[1]
        for kind, table in (("local", self.local), ("shared", self.shared)):
            for match in re.finditer(rf"\.{kind}\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d+)\]\s*;", body):
                table[match[2]] = int(match[1]), int(match[3])


def live_before(block: list[Instruction], live: set[str]) -> set[str]:
    """What is live before some instructions, if `live` is after them."""
    live = set(live)
    for instruction in reversed(block):
        written, read = written_and_read(instruction)
        live = (live - set(written)) | set(read)
    return live


def _parameters(text: str) -> list[Parameter]:
    found, offset = [], 0
    declared = re.compile(
        r"\s*\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)(?:\s+\.ptr[^_]*)?\s+([\w$]+)\s*(?:\[(\d+)\])?", re.S
    )
    for line in text.split(","):
        match = declared.match(line)
        if match is None:
            continue
        size = WIDTH[match[2]] // 8 * int(match[4] or 1)
        align = int(match[1]) if match[1] else min(size, 8)
        offset = -(-offset // align) * align
        found.append(Parameter(match[3], offset, size))
        offset += size
    return found


def _balanced(text: str) -> tuple[str, str]:
    """What stands before the brace that closes, and what follows it."""
    depth = 1
    for at, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:at], text[at + 1 :]
    raise PtxError("a brace that nothing closes")


def _basic_blocks(body: str) -> dict[str, list[Instruction]]:
    text = re.sub(r"^\s*\.(reg|local|shared|loc|pragma)\b[^;]*;", "", body, flags=re.M)
    now: list[Instruction] | None = []
    blocks = {"entry": now}
    for part in re.split(r"(;|^\s*[\w$]+:)", text, flags=re.M):
        part = part.strip().lstrip("{} \t\n")  # scopes: their registers have names of their own
        if part in ("", ";"):
            continue
        if part.endswith(":"):
            now = blocks[part[:-1]] = []
            continue
        match = re.match(r"(?:@(!?)(%[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", part, flags=re.S)
        if match is None:
            raise PtxError(f"not understood: {part!r}")
        if now is None:
            now = blocks[f"after{len(blocks)}"] = []
        now.append(Instruction(match[2], match[1] == "!", match[3], split_operands(match[4])))
        if now[-1].root in ("bra", "ret", "exit", "trap"):
            now = None
    return blocks
