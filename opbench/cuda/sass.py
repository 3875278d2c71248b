"""Reads machine code: how many instructions a kernel issues for each output, as far as that shows unrun."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opbench.cuda.plan import Launch
from opbench.cuda.resources import WARP

_LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(\S+)\s*([^;]*);")


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly."""

    address: int
    opcode: str
    operands: str

    @property
    def is_fma(self) -> bool:
        """Whether it multiplies and adds floats."""
        return self.opcode.startswith("FFMA")

    @property
    def is_product(self) -> bool:
        """Whether it is a tensor-core instruction."""
        return self.opcode.startswith("HMMA")

    @property
    def jumps_back_to(self) -> int | None:
        """Address of the loop head it goes back to, if it does."""
        target = re.search(r"0x([0-9a-f]+)", self.operands) if self.opcode.startswith("BRA") else None
        head = int(target[1], 16) if target else self.address
        return head if head < self.address else None


def disassembled(image: bytes) -> dict[str, tuple[Instruction, ...]]:
    """Instructions of each kernel of a cubin by mangled name.

    Raises:
        FileNotFoundError: no disassembler is installed.
    """
    tool = _tool()
    if tool is None:
        raise FileNotFoundError("no cuobjdump; install nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(image)
        file.flush()
        text = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    return parse(text)


def parse(text: str) -> dict[str, tuple[Instruction, ...]]:
    """Read what `cuobjdump -sass` prints."""
    kernels: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        name = re.match(r"\s*Function : (\S+)", line)
        if name:
            current = kernels.setdefault(name[1], [])
        elif found := _LINE.match(line):
            current.append(Instruction(int(found[1], 16), found[2], found[3]))
    return {name: _without_padding(instructions) for name, instructions in kernels.items()}


def instructions_per_output(instructions: Sequence[Instruction], launch: Launch) -> float | None:
    """Estimate the thread instructions issued for each output; None where the launch does not say what it computes.

    Loops that multiply are taken as often as the launch's multiply-adds need, everything else once: a lower bound
    where other loops, as those that fill shared memory, run more than once.
    """
    operations = launch.operations
    if operations is None or operations.outputs == 0:
        return None
    threads = launch.blocks * launch.threads
    if operations.products:
        wanted, arithmetic = operations.products * WARP / threads, [item.is_product for item in instructions]
    else:
        wanted, arithmetic = operations.multiply_adds / threads, [item.is_fma for item in instructions]
    hot = _hot(instructions, arithmetic)
    inside = sum(of_hot and counts for of_hot, counts in zip(hot, arithmetic, strict=True))
    outside = sum(arithmetic) - inside
    passes = max(1.0, (wanted - outside) / inside) if inside else 1.0
    per_thread = (len(instructions) - sum(hot)) + passes * sum(hot)
    return per_thread * threads / operations.outputs


def _hot(instructions: Sequence[Instruction], arithmetic: Sequence[bool]) -> list[bool]:
    """Which instructions lie in an innermost loop that multiplies."""
    loops = {(item.jumps_back_to, item.address) for item in instructions if item.jumps_back_to is not None}
    multiplying = {
        (first, last)
        for first, last in loops
        if any(counts and first <= item.address <= last for item, counts in zip(instructions, arithmetic, strict=True))
    }
    innermost = [
        (first, last)
        for first, last in multiplying
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in multiplying)
    ]
    return [any(first <= item.address <= last for first, last in innermost) for item in instructions]


def _without_padding(instructions: list[Instruction]) -> tuple[Instruction, ...]:
    """Leave out what follows the end: NOPs, and the branch to itself that stops prefetching."""
    end = len(instructions)
    while end and (
        instructions[end - 1].opcode == "NOP"
        or (
            instructions[end - 1].opcode == "BRA"
            and f"0x{instructions[end - 1].address:x}" in instructions[end - 1].operands
        )
    ):
        end -= 1
    return tuple(instructions[:end])


@functools.cache
def _tool() -> str | None:
    """The disassembler: of its pip package, which brings nvdisasm as well, or on the path."""
    for folder in sys.path:
        for found in sorted(Path(folder).glob("nvidia/*/bin/cuobjdump")):
            if (found.parent / "nvdisasm").is_file():
                return str(found)
    return shutil.which("cuobjdump")
