"""What a compiled kernel takes of a multiprocessor, and how many of its warps fit there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

WARP = 32
_REGISTERS = 65536
"""Registers of a multiprocessor."""
_REGISTERS_GRANULE = 256
"""Registers are given to a warp in units of so many."""
_WARPS_GRANULE = 4
"""Registers limit warps in units of so many: one for each of a multiprocessor's schedulers."""


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor (CUDA C++ Programming Guide, technical specifications per compute capability)."""

    warps: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int
    """Most dynamic shared memory of one block."""
    reserved_shared_bytes: int = 1024
    """What the system takes of each block's share."""


MULTIPROCESSORS: Mapping[str, Multiprocessor] = {
    "sm_75": Multiprocessor(32, 16, 64 << 10, 64 << 10, reserved_shared_bytes=0),
    "sm_80": Multiprocessor(64, 32, 164 << 10, 163 << 10),
    "sm_86": Multiprocessor(48, 16, 100 << 10, 99 << 10),
    "sm_89": Multiprocessor(48, 24, 100 << 10, 99 << 10),
    "sm_90": Multiprocessor(64, 32, 228 << 10, 227 << 10),
    "sm_100": Multiprocessor(64, 32, 228 << 10, 227 << 10),
    "sm_120": Multiprocessor(48, 24, 100 << 10, 99 << 10),
}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the assembler says of one kernel, per thread; the static shared memory per block."""

    registers: int
    spill_bytes: int
    """Stores and loads of registers that had no room."""
    stack_bytes: int
    shared_bytes: int


def read_log(log: str) -> dict[str, Resources]:
    """Read the compiler's log: resources by mangled name.

    Raises:
        ValueError: the log has no account of registers.
    """
    found = {}
    for name, text in re.findall(r"Compiling entry function '(\w+)'[^\n]*\n(.*?)(?=Compiling entry|\Z)", log, re.S):
        registers = re.search(r"Used (\d+) registers", text)
        if registers:
            found[name] = Resources(
                registers=int(registers[1]),
                spill_bytes=_number(r"(\d+) bytes spill stores", text) + _number(r"(\d+) bytes spill loads", text),
                stack_bytes=_number(r"(\d+) bytes stack frame", text),
                shared_bytes=_number(r"(\d+) bytes smem", text),
            )
    if not found:
        raise ValueError(f"no account of registers in: {log[:200]!r}")
    return found


def resident_blocks(limits: Multiprocessor, *, registers: int, threads: int, shared_bytes: int) -> int:
    """Blocks that fit one multiprocessor at once; 0 where a block asks for more than one may have.

    Args:
        limits: the multiprocessor's.
        registers: of a thread.
        threads: of a block.
        shared_bytes: of a block, static and dynamic.
    """
    if shared_bytes > limits.block_shared_bytes:
        return 0
    warps = -(-threads // WARP)
    per_warp = _rounded_up(registers * WARP, _REGISTERS_GRANULE)
    by_registers = _REGISTERS // _WARPS_GRANULE // per_warp * _WARPS_GRANULE // warps
    share = _rounded_up(shared_bytes + limits.reserved_shared_bytes, 128)
    by_shared = limits.shared_bytes // share if share else limits.blocks
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared)


def occupancy(limits: Multiprocessor, *, registers: int, threads: int, shared_bytes: int) -> float:
    """Share of the multiprocessor's warps that can be resident, as the hardware's limits allow."""
    blocks = resident_blocks(limits, registers=registers, threads=threads, shared_bytes=shared_bytes)
    return blocks * -(-threads // WARP) / limits.warps


def _number(pattern: str, text: str) -> int:
    return sum(map(int, re.findall(pattern, text)))


def _rounded_up(value: int, step: int) -> int:
    return -(-value // step) * step
