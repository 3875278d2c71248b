"""What a launch is, as plain data: which kernel, over which grid, with which numbers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opbench.cuda.source import Source

Scalar = int | float
Extents = tuple[int, int, int]

MAX_GRID = (2**31 - 1, 65535, 65535)
_INT32 = range(-(2**31), 2**31)


@dataclass(frozen=True, kw_only=True)
class Operations:
    """What one launch computes, for the table of `opbench kernels`; nothing that runs depends on it."""

    outputs: int
    """Elements that the launch is for; instructions are told per output."""
    multiply_adds: int = 0
    """Multiply-adds of all threads on the plain float units."""
    products: int = 0
    """Tensor-core instructions of all warps."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One kernel over one grid.

    The kernel takes a single struct by value: first a pointer for each tensor, in the order they are given, then the
    scalars, four bytes each: `int` for an int, `float` for a float.

    Raises:
        ValueError: CUDA could not launch it.
    """

    source: Source
    kernel: str
    """C++ name with its template arguments, as in 'involution_forward<float16, 7>'."""
    grid: Extents
    block: Extents
    shared_bytes: int
    """Dynamic shared memory of a block."""
    scalars: tuple[Scalar, ...]
    operations: Operations | None = None
    alternatives: tuple[str, ...] = ()
    """Kernels that another size would launch in its place; compiled with it, so that no size compiles anything new."""
    ready: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False, hash=False)
    """What each device made of it: a place for the launcher to keep its own."""

    def __post_init__(self) -> None:
        if any(extent > most for extent, most in zip(self.grid, MAX_GRID, strict=True)):
            raise ValueError(f"{self.kernel}: the grid {self.grid} exceeds {MAX_GRID}")
        threads = self.block[0] * self.block[1] * self.block[2]
        if not 0 < threads <= 1024:
            raise ValueError(f"{self.kernel}: a block has 1 to 1024 threads, not {threads}")
        for scalar in self.scalars:
            if isinstance(scalar, int) and scalar not in _INT32:
                raise ValueError(f"{self.kernel}: {scalar} does not fit an int")

    @property
    def compiled(self) -> tuple[str, ...]:
        """Every kernel that is compiled for it."""
        return tuple(sorted({self.kernel, *self.alternatives}))

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    def argument(self, pointers: int) -> bytearray:
        """The kernel's struct with room for so many pointers, the scalars filled in."""
        kinds = "".join("f" if isinstance(scalar, float) else "i" for scalar in self.scalars)
        # The struct is as long as its alignment asks for: that of a pointer, where it has one.
        padding = "4x" if pointers and len(kinds) % 2 else ""
        return bytearray(struct.pack(f"={8 * pointers}x{kinds}{padding}", *self.scalars))
