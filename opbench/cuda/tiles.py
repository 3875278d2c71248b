"""How launches of the tile engine in `gemm.cuh` are planned: tiles, vectors, and what a block of threads needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from opbench.cuda.kernels import TYPE_NAMES
from opbench.cuda.plan import Operations
from opbench.errors import Unsupported

T = TypeVar("T")

INDICES = 2**31 - 2**8
"""Kernels number values within one image, and blocks, by 32-bit integers; the last tile reaches a little beyond."""
SHORT = 2**15
"""Rows and columns of images and windows are packed in 16 bits each."""

Tile = tuple[int, int]
"""Rows and columns of a block's matrix product."""


def count(tile: Tile, rows: int, columns: int) -> int:
    """Tiles that cover a matrix."""
    return -(-rows // tile[0]) * -(-columns // tile[1])


def four_or_one(extent: int) -> int:
    """Values of one load that divide an extent: four, 16 bytes or 8, for all but small maps of odd sides."""
    return 4 if extent % 4 == 0 else 1


def whole_vector(dtype: torch.dtype, extent: int) -> int:
    """Values of a load of 16 bytes where that divides the extent, else 1."""
    most = 16 // dtype.itemsize
    return most if extent % most == 0 else 1


def name(kernel: str, dtype: torch.dtype, *arguments: int | bool | str) -> str:
    """A kernel's name with its dtype and other template arguments."""
    words = [str(argument).lower() if isinstance(argument, bool) else str(argument) for argument in arguments]
    return f"{kernel}<{', '.join([TYPE_NAMES[dtype], *words])}>"


def blocks(dtype: torch.dtype, tile: Tile, number: int, depth: int, outputs: int) -> dict[str, Any]:
    """Grid, block, shared memory and work of so many blocks, each of which sums so many terms.

    Raises:
        Unsupported: a grid cannot have so many.
    """
    require(blocks=number)
    step = 16 if dtype == torch.float32 else 32
    terms = number * tile[0] * tile[1] * -(-depth // step) * step
    return {
        "grid": (number,),
        "block": (2 * tile[0],),
        "shared_bytes": 160 * sum(tile),
        "operations": Operations(
            outputs=outputs,
            multiply_adds=terms if dtype == torch.float32 else 0,
            products=0 if dtype == torch.float32 else terms // (16 * 8 * 16),
        ),
    }


def require(**sizes: int) -> None:
    """Raise Unsupported for what is too large to be numbered; spaces are written as underscores."""
    for what, size in sizes.items():
        if size >= INDICES:
            raise Unsupported(f"kernels number the {what.replace('_', ' ')} by 32-bit integers, and there are {size}")


def require_short(*extents: int) -> None:
    """Raise Unsupported for images or windows too high or wide."""
    if max(extents) >= SHORT:
        raise Unsupported(f"kernels pack rows and columns in 16 bits, and there are {max(extents)} in a row")


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """Remember what a function makes of parameters and shapes; tracing with sizes unknown works it out every time."""
    kept = functools.lru_cache(maxsize=4096)(function)

    @functools.wraps(function)
    def look_up(params: Any, *shapes: torch.Size | None) -> T:
        try:
            return kept(params, *shapes)
        except TypeError:  # A size that is no number yet has no hash.
            return function(params, *shapes)

    return look_up
