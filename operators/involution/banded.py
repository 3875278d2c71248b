"""Launches of the tensor-core kernels: 16-bit values, 16 channels in a group, no dilation, stride 1 or 2."""

from __future__ import annotations

from math import gcd

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params

SOURCE = Source.beside(__file__, "banded.cu")

CHANNELS = 16
KERNEL_SIZES = (3, 5, 7, 9)
MOST_ROWS = {1: (14, 14), 2: (14, 7), 4: (7, 7), 7: (7, 4)}
"""Rows of a block by the tiles of eight pixels in each, for a step of 1 or 2 rows of the other image from row to row:
what keeps a block's shared memory below 64 KiB. Half as many where rows are of an odd width, and all taps are fetched
beforehand."""
ITEM_BYTES = 2


def covers(p: Params, dtype: torch.dtype) -> bool:
    """Whether these kernels compute an involution."""
    return (
        dtype != torch.float32
        and p.group_channels == CHANNELS
        and p.kernel_size in KERNEL_SIZES
        and p.stride <= 2
        and p.dilation == 1
    )


def forward(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One warp for each row of 16 channels."""
    k, s, tile = p.kernel_size, p.stride, _Tile(weight[4], weight[5], weight[5], p.stride)
    window = ceil_div(7 * s + k, 8)
    chunks = (tile.tiles - 1) * s + window
    vector = tile.vector(weight[5])
    taps = tile.rows * (k if vector == 1 else 3) * k * _pitch(tile.columns)
    return _launch(
        f"banded_forward<{_types(p, dtype, tile)}, {vector}, {tile.vector(x[3], s)}>",
        *(x, weight, tile),
        values=((tile.rows - 1) * s + k) * CHANNELS * _pitch(8 * chunks) + taps,
        outputs=x[0] * x[1] * weight[4] * weight[5],
        products=k * tile.tiles * ceil_div(window, 2),
    )


def input_gradient(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One warp for each row of 16 channels of the input."""
    k, s, tile = p.kernel_size, p.stride, _Tile(x[2], x[3], weight[5])
    seen = (tile.rows - 1 + k // 2 * 2) // s + s
    vector = tile.vector(weight[5], 1 / s)
    steps, margin = ceil_div(k, s), 8 if vector == 8 else 4
    taps = tile.rows * (steps if vector == 1 else 3) * k * _pitch(ceil_div(tile.columns // s, 8) * 8 + 2 * margin)
    pairs = "true" if x[3] % 2 == 0 else "false"
    return _launch(
        f"banded_input_gradient<{_types(p, dtype, tile)}, {vector}, {vector}, {pairs}>",
        *(x, weight, tile),
        values=seen * CHANNELS * _pitch(8 * (tile.tiles // s + 1)) + taps,
        outputs=x.numel(),
        products=steps * tile.tiles,
    )


def weight_gradient(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One warp for each row of the output, and all its taps."""
    k, s, tile = p.kernel_size, p.stride, _Tile(weight[4], weight[5], weight[5], p.stride)
    products = ceil_div(7 * s + k, 16)
    image = ((tile.rows - 1) * s + k) * CHANNELS * _pitch(8 * ((tile.tiles - 1) * s + 2 * products))
    vector = tile.vector(weight[5])
    return _launch(
        f"banded_weight_gradient<{_types(p, dtype, tile)}, {vector}, {tile.vector(x[3], s)}>",
        *(x, weight, tile),
        values=image + tile.rows * CHANNELS * _pitch(tile.columns),
        outputs=weight.numel(),
        products=k * tile.tiles * products,
    )


class _Tile:
    """How a plane is cut: blocks of as many rows as leave none nearly empty, of the width that reads least."""

    def __init__(self, height: int, width: int, out_width: int, step: int = 1) -> None:
        # Beside its own columns a tile reads up to eight more.
        self.tiles = min(MOST_ROWS, key=lambda tiles: ceil_div(width, 8 * tiles) * (tiles + 1))
        self.columns = 8 * self.tiles
        self.down = ceil_div(height, MOST_ROWS[self.tiles][step - 1] // (1 + out_width % 2))
        self.rows = ceil_div(height, self.down)
        self.across = ceil_div(width, self.columns)

    def vector(self, width: int, step: float = 1) -> int:
        """Values that may be loaded at once from rows of `width`, in which tiles begin `step` times as far apart."""
        apart = int(self.columns * step) if self.across > 1 else 0
        return gcd(gcd(width, apart), 8)


def _launch(
    kernel: str, x: torch.Size, weight: torch.Size, tile: _Tile, *, values: int, outputs: int, products: int
) -> Launch:
    blocks = x[0] * weight[1] * tile.down * tile.across
    return SOURCE.launch(
        kernel,
        grid=(blocks,),
        block=(32 * tile.rows,),
        shared_bytes=values * ITEM_BYTES,
        scalars=(x[2], x[3], weight[4], weight[5], tile.down, tile.across),
        operations=Operations(outputs=outputs, products=blocks * tile.rows * products),
    )


def _types(p: Params, dtype: torch.dtype, tile: _Tile) -> str:
    return f"{TYPE_NAMES[dtype]}, {p.kernel_size}, {p.stride}, {tile.tiles}"


def _pitch(values: int) -> int:
    """As in band.cuh: an odd number of vectors."""
    return (ceil_div(values, 8) | 1) * 8
