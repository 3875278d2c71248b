"""Launches of the multiply-add kernels: any dtype, any group, no dilation, stride 1 or 2."""

from __future__ import annotations

from math import gcd

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params

SOURCE = Source.beside(__file__, "blocked.cu")

KERNEL_SIZES = (3, 5, 7)
PIXELS, MEMBERS, MARGIN = 4, 8, 4
"""Pixels and channels of a thread, and columns beside a tile; as in the kernels."""
MOST_CHANNELS = 16
"""Of a block."""
ITEM_BYTES = 4
ROWS = {8: 16, 16: 16, 28: 8, 32: 8}
"""Most rows of a tile, by its columns."""


def covers(p: Params) -> bool:
    """Whether these kernels compute the output and the gradient of x."""
    return p.kernel_size in KERNEL_SIZES and p.stride <= 2 and p.dilation == 1


def covers_weight_gradient(p: Params) -> bool:
    """Whether they compute the gradient of the weight: a block must hold all channels of a group."""
    return covers(p) and p.group_channels <= MOST_CHANNELS


def forward(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for four pixels of eight channels."""
    return _over_outputs("blocked_forward", p, dtype, x, weight, x[0] * x[1] * weight[4] * weight[5])


def input_gradient(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for four pixels of eight channels of the input."""
    s, pad = p.stride, p.kernel_size // 2
    # The gradient's part of a tile must be whole vectors wide.
    most = {columns: rows for columns, rows in ROWS.items() if columns // s % PIXELS == 0}
    columns, rows = _tile(x[2], x[3], most)
    seen_rows = (rows - 1 + 2 * pad) // s + s
    name = "blocked_input_gradient"
    return _launch(name, p, dtype, x, weight, (x[2], x[3]), (columns, rows), seen_rows, columns // s, x.numel())


def weight_gradient(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for four pixels of every other kernel row."""
    return _over_outputs("blocked_weight_gradient", p, dtype, x, weight, weight.numel())


def _over_outputs(name: str, p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, outputs: int) -> Launch:
    """With stride 2 a tile needs twice the rows and columns of the input, so it is smaller."""
    most = ROWS if p.stride == 1 else {columns: rows // 2 for columns, rows in ROWS.items()}
    columns, rows = _tile(weight[4], weight[5], most)
    seen_rows = (rows - 1) * p.stride + p.kernel_size
    plane = weight[4], weight[5]
    return _launch(name, p, dtype, x, weight, plane, (columns, rows), seen_rows, columns * p.stride, outputs)


def _tile(height: int, width: int, most: dict[int, int]) -> tuple[int, int]:
    """(columns, rows): the width that reads least, margins included, then rows that leave no tile nearly empty."""
    columns = min(most, key=lambda columns: ceil_div(width, columns) * (columns + 2 * MARGIN))
    return columns, ceil_div(height, ceil_div(height, most[columns]))


def _launch(
    name: str,
    p: Params,
    dtype: torch.dtype,
    x: torch.Size,
    weight: torch.Size,
    plane: tuple[int, int],
    tile: tuple[int, int],
    seen_rows: int,
    seen_columns: int,
    outputs: int,
) -> Launch:
    columns, rows = tile
    channels = MEMBERS if p.group_channels <= MEMBERS else MOST_CHANNELS
    halves = 2 if name == "blocked_weight_gradient" else channels // MEMBERS
    chunks = ceil_div(p.group_channels, channels)
    down, across = ceil_div(plane[0], rows), ceil_div(plane[1], columns)
    blocks = x[0] * weight[1] * chunks * down * across
    vector = gcd(gcd(x[3], weight[5]), PIXELS)
    row_values = channels * (seen_columns + 2 * MARGIN) + columns % 32
    computed = p.group_channels if name == "blocked_weight_gradient" else chunks * channels
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}, {p.kernel_size}, {p.stride}, {channels}, {columns}, {vector}>",
        grid=(blocks,),
        block=(columns // PIXELS, rows, halves),
        shared_bytes=seen_rows * row_values * ITEM_BYTES,
        scalars=(x[2], x[3], weight[4], weight[5], p.group_channels, chunks, down, across),
        operations=Operations(outputs=outputs, multiply_adds=computed * weight.numel()),
    )
