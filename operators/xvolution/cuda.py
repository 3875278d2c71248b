"""The attention branch of X-volution by our kernels: which is launched when, and over what grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Nchw, Unsupported, Work
from opbench.cuda import TYPE_NAMES, CudaCore, Launch, Operations, Source, ceil_div, kernel

from . import planes
from .reference import Params
from .work import core_work

ATTENTION = Source.beside(__file__, "attention.cu")
ANY_ATTENTION = Source.beside(__file__, "any_attention.cu")
PRODUCTS = Source.beside(__file__, "products.cu")

LANES = 32
"""Segments of rows that a block of the attention takes."""
THREADS = 128
"""Of a block of every other kernel."""
UNROLLED = (1, 3, 5, 7)
"""Windows whose affinities a thread keeps in registers; those of others are formed as they are needed."""
MAX_AFFINITIES = 98
"""Affinities of all its pixels that a thread keeps, unless one pixel alone has more."""
MAX_BACKWARD_AFFINITIES = 108
"""The same for all three gradients at once."""
MIN_CHANNELS = 8
"""Channels of a head that make a slice worth its share in adding up the affinities."""
MAX_SLICES = 8
MAX_SHARED_BYTES = 48 << 10
MEMBERS = 8
"""Channels for which `attend_any` forms affinities once."""
MAX_FIXED_SHIFT = 2
"""Shifts known when compiling: a thread's own pixels are among the partners, and are not loaded again."""
MAX_GRID_Y = 65535
MAX_OFFSET = 2**31 - 1


@kernel
def attend(
    p: Params, dtype: torch.dtype, query: torch.Size, key: torch.Size, value: torch.Size, y: torch.Size
) -> Launch:
    """[N, C, H, W] three times -> [N, C, H, W]; also each gradient, of tensors in other roles."""
    _refuse_large(query)
    if launch := planes.attend(p, dtype, query, _grid(p.heads, query[0]), _scale(p, query[1] // p.heads)):
        return launch
    taps = p.kernel_size**2
    pixels = _pixels(query[3], MAX_AFFINITIES // taps)
    slices = _slices(query[1] // p.heads, taps * pixels)
    together = _together(query[1] // p.heads // slices, 72 // (taps * pixels))
    name = f"attend<{TYPE_NAMES[dtype]}, {p.kernel_size}, {pixels}, {together}, {slices}>"
    return _attention(name, p, query, pixels, slices, taps, 2 * taps * query.numel())


@kernel
def attend_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    query: torch.Size,
    key: torch.Size,
    value: torch.Size,
    *gradients: torch.Size,
) -> Launch:
    """[N, C, H, W] four times -> [N, C, H, W] three times."""
    _refuse_large(query)
    if launch := planes.attend_backward(p, dtype, query, _grid(p.heads, query[0]), _scale(p, query[1] // p.heads)):
        return launch
    taps = 3 * p.kernel_size**2
    pixels = _pixels(query[3], MAX_BACKWARD_AFFINITIES // taps)
    slices = _slices(query[1] // p.heads, taps * pixels)
    together = _together(query[1] // p.heads // slices, 54 // (taps * pixels))
    name = f"attend_backward<{TYPE_NAMES[dtype]}, {p.kernel_size}, {pixels}, {together}, {slices}>"
    return _attention(name, p, query, pixels, slices, taps, 2 * taps * query.numel())


@kernel
def attend_any(
    p: Params, dtype: torch.dtype, query: torch.Size, key: torch.Size, value: torch.Size, y: torch.Size
) -> Launch:
    """[N, C, H, W] three times -> [N, C, H, W], for every window."""
    _refuse_large(query)
    n, channels, height, width = query
    head_width, k = channels // p.heads, p.kernel_size
    parts = ceil_div(head_width, MEMBERS)
    return ANY_ATTENTION.launch(
        f"attend_any<{TYPE_NAMES[dtype]}>",
        grid=_grid(ceil_div(p.heads * parts * height * width, THREADS), n),
        block=(THREADS,),
        scalars=(n, p.heads, head_width, height, width, k, parts, _scale(p, head_width)),
        operations=Operations(outputs=query.numel(), multiply_adds=(parts + 1) * k * k * query.numel()),
    )


@kernel
def multiply(p: Params, dtype: torch.dtype, query: torch.Size, key: torch.Size, products: torch.Size) -> Launch:
    """[N, C, H, W] twice -> [N, directions * C, H, W]."""
    pixels, together = _pixels(query[3]), math.gcd(query[1], 4)
    name = f"multiply<{TYPE_NAMES[dtype]}, {p.directions}, {_fixed_shift(p)}, {pixels}, {together}>"
    return _products(name, p, query, products, pixels * together)


@kernel
def multiply_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    query: torch.Size | None,
    key: torch.Size | None,
    grad_query: torch.Size | None,
    grad_key: torch.Size | None,
) -> Launch:
    """Both gradients [N, C, H, W], or the one that is given."""
    shape = grad_query or grad_key
    assert shape is not None
    pixels, together = _pixels(shape[3]), math.gcd(shape[1], 2)
    flags = ", ".join("true" if wanted else "false" for wanted in (grad_query, grad_key))
    name = f"multiply_backward<{TYPE_NAMES[dtype]}, {p.directions}, {_fixed_shift(p)}, {pixels}, {together}, {flags}>"
    return _products(name, p, shape, gradient, pixels * together)


def forward(p: Params, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
    """Form B: q, k, v [N, C, H, W] -> [N, C, H, W]; form A: q, k -> [N, directions * C, H, W]."""
    if value is not None:
        return _attended(p, query, key, value)
    n, channels, height, width = query.shape
    products = query.new_empty(n, p.directions * channels, height, width)
    multiply(p, query, key, products)
    return products


def backward(p: Params, wanted: Sequence[bool], gradient: Tensor, *tensors: Tensor) -> list[Tensor | None]:
    """Gradients [N, C, H, W] of q, k and, in form B, v."""
    if p.form == "A":
        return _products_backward(p, wanted, gradient, *tensors)
    query, key, value = tensors
    if all(wanted) and 3 * p.kernel_size**2 <= MAX_BACKWARD_AFFINITIES and p.kernel_size in UNROLLED:
        gradients = [torch.empty_like(tensor) for tensor in tensors]
        attend_backward(p, gradient, *tensors, *gradients)
        return list(gradients)
    roles = (gradient, value, key), (value, gradient, query), (key, query, gradient)
    return [_attended(p, *role) if asked else None for role, asked in zip(roles, wanted, strict=True)]


def work(p: Params, query: torch.Size, *others: torch.Size) -> Work:
    """Multiply-adds of the definition; the kernels of form B form one more set of affinities backward."""
    return core_work(p, Nchw(*query))


def _attended(p: Params, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    y = torch.empty_like(query)
    run = attend if p.kernel_size in UNROLLED else attend_any
    run(p, query, key, value, y)
    return y


def _products_backward(
    p: Params, wanted: Sequence[bool], gradient: Tensor, query: Tensor, key: Tensor
) -> list[Tensor | None]:
    gradients = [torch.empty_like(query) if asked else None for asked in wanted]
    if any(wanted):
        multiply_backward(p, gradient, query if wanted[1] else None, key if wanted[0] else None, *gradients)
    return gradients


def _pixels(width: int, most: int = 4) -> int:
    """Neighbours in a row that one thread takes: a vector's, where rows are whole vectors and registers suffice."""
    return next(pixels for pixels in (4, 2, 1) if width % pixels == 0 and pixels <= max(most, 1))


def _slices(head_width: int, affinities: int) -> int:
    """Slices that a head's channels are dealt into, equal ones, for more threads where heads are wide."""
    most = min(MAX_SLICES, head_width // MIN_CHANNELS, MAX_SHARED_BYTES // _shared_bytes(1, affinities))
    return next(slices for slices in (8, 4, 2, 1) if slices <= max(most, 1) and head_width % slices == 0)


def _together(channels: int, most: int) -> int:
    """Channels whose loads a thread has under way at once."""
    return next(together for together in (4, 2, 1) if together <= max(most, 1) and channels % together == 0)


def _shared_bytes(slices: int, affinities: int) -> int:
    return slices * affinities * LANES * 4


def _attention(name: str, p: Params, x: torch.Size, pixels: int, slices: int, taps: int, multiply_adds: int) -> Launch:
    n, channels, height, width = x
    head_width = channels // p.heads
    return ATTENTION.launch(
        name,
        grid=_grid(ceil_div(p.heads * height * (width // pixels), LANES), n),
        block=(LANES, slices),
        shared_bytes=_shared_bytes(slices, taps * pixels) if slices > 1 else 0,
        scalars=(n, p.heads, head_width, height, width, _scale(p, head_width)),
        operations=Operations(outputs=x.numel(), multiply_adds=multiply_adds),
    )


def _products(name: str, p: Params, x: torch.Size, products: torch.Size, per_thread: int) -> Launch:
    _refuse_large(products)
    n, channels, height, width = x
    # Beyond the image there is nothing, however far.
    shift = min(p.shift, max(height, width))
    return PRODUCTS.launch(
        name,
        grid=_grid(ceil_div(channels * height * width // per_thread, THREADS), n),
        block=(THREADS,),
        scalars=(n, channels, height, width, shift),
        operations=Operations(outputs=products.numel(), multiply_adds=0),
    )


def _grid(blocks: int, images: int) -> tuple[int, int, int]:
    """Images along y, and along z what does not fit there."""
    deep = ceil_div(images, MAX_GRID_Y)
    return blocks, ceil_div(images, max(deep, 1)), deep


def _scale(p: Params, head_width: int) -> float:
    return 1.0 if p.scale == "none" else 1 / head_width


def _fixed_shift(p: Params) -> int:
    return p.shift if p.shift <= MAX_FIXED_SHIFT else 0


def _refuse_large(x: torch.Size) -> None:
    if x[1] * x[2] * x[3] > MAX_OFFSET:
        raise Unsupported(f"an image has {x[1]} planes of {x[2]}x{x[3]}, and kernels count its elements in 31 bits")


CUDA = CudaCore(
    name="xvolution",
    params=Params,
    forward=forward,
    backward=backward,
    work=work,
    cases=(
        (Params(heads=2), Nchw(1, 16, 3, 8)),
        (Params(heads=1, scale="head_width"), Nchw(2, 16, 5, 14)),
        (Params(heads=2), Nchw(1, 64, 3, 7)),
        (Params(heads=1), Nchw(1, 64, 2, 6)),
        (Params(heads=2, scale="head_width"), Nchw(2, 32, 7, 7)),
        (Params(heads=1), Nchw(1, 64, 4, 7)),
        (Params(heads=2), Nchw(2, 32, 5, 14)),
        (Params(heads=1), Nchw(1, 24, 14, 14)),
        (Params(heads=1), Nchw(1, 32, 2, 8)),
        (Params(heads=1, kernel_size=7), Nchw(1, 16, 3, 10)),
        (Params(heads=2, kernel_size=7), Nchw(1, 6, 7, 7)),
        (Params(heads=1, kernel_size=5), Nchw(1, 16, 4, 6)),
        (Params(heads=2, kernel_size=9), Nchw(1, 20, 4, 5)),
        (Params(form="A"), Nchw(2, 8, 3, 8)),
        (Params(form="A", directions=8, shift=5), Nchw(1, 2, 7, 12)),
        (Params(form="A", directions=8, shift=100), Nchw(1, 2, 3, 4)),
    ),
    layers=(
        (Params(), Nchw(32, 128, 28, 28)),
        (Params(), Nchw(32, 256, 28, 28)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 512, 7, 7)),
        (Params(kernel_size=7), Nchw(32, 256, 14, 14)),
        (Params(form="A"), Nchw(32, 256, 14, 14)),
    ),
)
