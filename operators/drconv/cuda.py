"""DRConv by our kernels, forward and every gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Unsupported, Work
from opbench.cuda import CudaCore, tiles

from . import narrow, products
from .reference import Params


def forward(p: Params, x: Tensor, filters: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
    """[N, C, H, W], [N, m, O, C/g, k, k], [N, m, Ho, Wo] -> [N, O, Ho, Wo], and the regions as int32."""
    output, regions = _results(p, x.shape, filters.shape, guide.shape)
    y = x.new_empty(output)
    places = torch.empty(regions, dtype=torch.int32, device=x.device)
    narrow.arrange(p, guide, places)
    kernels = narrow if narrow.is_narrow(p, filters.shape) else products
    kernels.filtered(p, x, filters, places, y)
    return y, places


def backward(
    p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, filters: Tensor, guide: Tensor, places: Tensor
) -> list[Tensor | None]:
    """Gradients of x, filters and guide."""
    kernels = narrow if narrow.is_narrow(p, filters.shape) else products
    results: list[Tensor | None] = [None] * 3
    if wanted[0]:
        results[0] = grad_x = torch.empty_like(x)
        kernels.filtered_back(p, gradient, filters, places, grad_x)
    if wanted[1]:
        results[1] = grad_filters = torch.empty_like(filters)
        kernels.filters_back(p, gradient, x, places, grad_filters)
    if wanted[2]:
        results[2] = grad_guide = torch.empty_like(guide)
        # What each region's response is worth to each pixel; the responses themselves are never stored.
        shares = torch.empty(guide.shape, dtype=torch.float32, device=guide.device)
        kernels.respond(p, gradient, x, filters, shares)
        narrow.guide_back(p, guide, shares, grad_guide)
    return results


@tiles.remembered
def _results(p: Params, x: torch.Size, filters: torch.Size, guide: torch.Size) -> tuple[torch.Size, torch.Size]:
    """Shapes of the output and of the regions; Unsupported where these kernels do not go."""
    rows, columns = p.window.outputs(x[2]), p.window.outputs(x[3])
    if rows * columns == 0:
        raise Unsupported(f"a {p.window.span}x{p.window.span} window does not fit the padded input")
    y = torch.Size((x[0], filters[2], rows, columns))
    wanted = (x[0], p.regions, y[1], x[1] // p.groups, p.kernel_size, p.kernel_size)
    if tuple(filters) != wanted or x[1] % p.groups or y[1] % p.groups:
        raise Unsupported(f"filters {list(filters)} do not fit an input {list(x)} and {p}")
    if tuple(guide) != (x[0], p.regions, rows, columns):
        raise Unsupported(f"a guide {list(guide)} does not fit an output {list(y)} in {p.regions} regions")
    pixels = rows * columns
    tiles.require_short(*x[2:], rows, columns, p.window.span)
    tiles.require(
        values_of_one_image=max(x[1] * (x[2] + p.stride) * (x[3] + p.stride), y[1:].numel()),
        weights_of_one_region=filters[2:].numel(),
        pixels_and_regions_of_one_image=2 * pixels + p.regions + 1,
    )
    return y, torch.Size((x[0], 2 * pixels + p.regions + 1))


def _work(p: Params, x: torch.Size, filters: torch.Size, _: torch.Size) -> Work:
    taps = Macs.of_windows(p.window, p.window, x[2], x[3])
    aggregation = x[0] * filters[2] * filters[3] * taps
    return Work(aggregation, (p.regions + 2) * aggregation)


CUDA = CudaCore(
    name="drconv",
    params=Params,
    forward=forward,
    backward=backward,
    work=_work,
    cases=(
        (Params(out_channels=72, regions=3), Nchw(2, 16, 6, 8)),  # 16-byte loads of filters; two tiles of outputs
        (Params(kernel_size=1, padding=0, out_channels=70, regions=2), Nchw(2, 72, 9, 16)),  # vectors, several shares
        (Params(kernel_size=1, padding=0, out_channels=16, regions=5), Nchw(1, 8, 14, 14)),  # of 8 bytes in 16 bits
        (Params(kernel_size=1, padding=0, out_channels=72, regions=40), Nchw(1, 16, 5, 7)),  # the narrowest tiles
        (Params(out_channels=16, kernel_size=3, stride=3, dilation=2, groups=2, regions=3), Nchw(1, 16, 11, 10)),
        (Params(groups=8, out_channels=16, regions=9), Nchw(2, 8, 9, 7)),  # narrow; more regions than warps
        (Params(kernel_size=17, out_channels=5, regions=2), Nchw(1, 4, 3, 4)),  # windows too large for the quicker way
    ),
    layers=(
        (Params(kernel_size=1, padding=0, out_channels=24), Nchw(32, 24, 56, 56)),
        (Params(kernel_size=1, padding=0, out_channels=116), Nchw(32, 116, 14, 14)),
        (Params(kernel_size=1, padding=0, out_channels=256), Nchw(32, 128, 28, 28)),
        (Params(kernel_size=1, padding=0, out_channels=512), Nchw(32, 512, 14, 14)),
        (Params(kernel_size=1, padding=0, out_channels=1024), Nchw(32, 1024, 7, 7)),
        (Params(), Nchw(32, 128, 28, 28)),
    ),
)
