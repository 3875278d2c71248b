"""Kernels of DRConv: planted bugs are seen, every pixel has one region, plans depend on what they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opbench.api import Nchw, Unsupported
from opbench.cuda import on_cpu
from opbench.cuda.emulation import ORDERS
from operators.drconv import cuda, narrow, products
from operators.drconv.reference import Params, drconv

PLAIN = Params(regions=3), Nchw(2, 3, 5, 4)
STRIDED = Params(out_channels=6, groups=2, stride=2, regions=3), Nchw(1, 12, 6, 5)
POINTWISE = Params(kernel_size=1, padding=0, regions=2, out_channels=5), Nchw(1, 3, 12, 12)

BUGS = {
    "the last of equal maxima": ("narrow.cu", "if (value > greatest)", "if (value >= greatest)", *PLAIN),
    "a list begins anew after 32 pixels": ("narrow.cu", "lane) - 1))] = pixel;", "lane) - 1))] = lane;", *POINTWISE),
    "a region's last share is left out": (
        "regions.cuh",
        "shares = (count + MOST - 1) / MOST",
        "shares = count / MOST",
        *PLAIN,
    ),
    "regions beyond the lanes of a warp count from the first": (
        "regions.cuh",
        "number -= __shfl_sync(all, end, 31);",
        "number -= 0;",
        Params(regions=40),
        Nchw(1, 3, 12, 12),
    ),
    "groups use the first one's filters": (
        "kernel.cu",
        "* at.groups + group) * size;",
        "* at.groups) * size;",
        *STRIDED,
    ),
    "outputs between the strides see a pixel": (
        "narrow.cu",
        "x < at.columns && across == x * at.stride",
        "x < at.columns",
        *STRIDED,
    ),
    "every tap of a channel has the first one's gradient": (
        "narrow.cu",
        "++b, taps += pixels)",
        "++b)",
        *STRIDED,
    ),
    "regions without pixels stay unwritten": (
        "kernel.cu",
        "if (row + i >= at.outputs || column + j >= depth) return;",
        "if (count == 0 || row + i >= at.outputs || column + j >= depth) return;",
        Params(regions=8),
        Nchw(1, 3, 2, 3),
    ),
    "responses are summed before all are there": (
        "kernel.cu",
        "+ e] = dots[run][e];\n  __syncthreads();",
        "+ e] = dots[run][e];",
        *PLAIN,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS[bug]
    if bug == "the last of equal maxima":
        # Equal maxima are rare in float32: bfloat16 has few values.
        assert mutant("drconv", file, old, new).failures(params, Nchw(4, 3, 16, 16), "bfloat16")
        return
    # Of several thread orders one at least must show a missing barrier.
    assert any(mutant("drconv", file, old, new).failures(params, shape, order=order) for order in ORDERS)


def test_the_kernels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("drconv", "kernel.cu", "struct Geometry", "struct Geometry")
    for _, _, _, params, shape in BUGS.values():
        assert not shipped.failures(params, shape)
    assert not shipped.failures(PLAIN[0], Nchw(4, 3, 16, 16), "bfloat16")


def test_reading_beyond_the_list_is_seen(mutant: Callable[..., Any]) -> None:
    old, new = "return number < count ? list[number] : -1;", "return list[number];"
    params, shape = Params(regions=1, kernel_size=1, padding=0), Nchw(1, 2, 2, 3)
    assert mutant("drconv", "kernel.cu", old, new).failures(params, shape, sanitize=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("counts[other * p.regions + region] = before;", "counts[other * p.regions + region] = 0;"),
        ("begins[region + 1] += begins[region];\n  __syncthreads();", "begins[region + 1] += begins[region];"),
    ],
    ids=["warps list over each other", "not all know yet where regions begin"],
)
def test_lists_with_holes_are_seen(old: str, new: str, mutant: Callable[..., Any]) -> None:
    changed = mutant("drconv", "narrow.cu", old, new)
    # What stands in a hole may be no pixel at all.
    assert any(changed.failures(*POINTWISE, order=order, sanitize=True) for order in ORDERS)


def test_every_pixel_is_in_its_first_greatest_region_and_in_one_list() -> None:
    guide = torch.randint(3, (3, 11, 7, 13)).float()  # Many ties.
    p, pixels = Params(regions=11), 7 * 13
    places = torch.empty(3, 2 * pixels + 12, dtype=torch.int32)
    with on_cpu("reverse"):
        narrow.arrange(p, guide, places)
    for image, kept in zip(guide, places, strict=True):
        regions, order, begins = kept[:pixels], kept[pixels : 2 * pixels], kept[2 * pixels :]
        # argmax gives the first of equal maxima.
        assert torch.equal(regions, image.flatten(1).argmax(0).int())
        assert torch.equal(order, regions.argsort(stable=True).int())
        assert torch.equal(begins.diff(), regions.bincount(minlength=11).int())
        assert begins[0] == 0


def test_one_region_is_a_convolution_and_its_guide_has_no_gradient() -> None:
    p = Params(regions=1, out_channels=5)
    x, filters, guide = torch.randn(2, 4, 6, 7), torch.randn(2, 1, 5, 4, 3, 3), torch.randn(2, 1, 6, 7)
    with on_cpu():
        y = cuda.CUDA(p, x, filters, guide.requires_grad_())
        (gradient,) = torch.autograd.grad(y.sum(), guide)
    one_by_one = [torch.nn.functional.conv2d(x[i : i + 1], filters[i, 0], padding=1) for i in range(2)]
    torch.testing.assert_close(y, torch.cat(one_by_one))
    # A softmax over one region is constant.
    assert not gradient.any()


def test_equal_guides_choose_the_first_region() -> None:
    p = Params(regions=4, kernel_size=1, padding=0, out_channels=2)
    x, filters = torch.randn(1, 3, 4, 5), torch.randn(1, 4, 2, 3, 1, 1)
    with on_cpu():
        y = cuda.CUDA(p, x, filters, torch.zeros(1, 4, 4, 5))
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, filters[0, 0]))


@pytest.mark.parametrize("p", [Params(regions=3), Params(groups=4, regions=3)])
def test_one_gradient_alone_is_the_same(p: Params) -> None:
    x, filters = torch.randn(2, 4, 5, 6), torch.randn(2, 3, *p.filter_shape(4))
    guide, gradient = torch.randn(2, 3, 5, 6), torch.randn(2, 4, 5, 6)
    with on_cpu():
        _, places = cuda.forward(p, x, filters, guide)
        full = cuda.backward(p, (True, True, True), gradient, x, filters, guide, places)
        for index in range(3):
            wanted = [index == other for other in range(3)]
            alone = cuda.backward(p, wanted, gradient, x, filters, guide, places)
            assert [result is not None for result in alone] == wanted
            assert torch.equal(alone[index], full[index])  # type: ignore[arg-type]


def test_shares_suffice_for_the_worst_division_of_pixels() -> None:
    # 64 regions of one pixel and one of the rest need 64 tiles more than the rest alone.
    p, pixels = Params(regions=65), 64 + 64 * 3
    worst = 64 + 3
    assert products._shares(p, pixels, 64) >= worst


def test_large_filters_are_addressed_by_64_bits_and_large_images_refused() -> None:
    p = Params(kernel_size=1, padding=0, out_channels=1024)
    shapes = [torch.Size(shape) for shape in ((64, 1024, 7, 7), (64, 8, 1024, 1024, 1, 1), (64, 8, 7, 7))]
    # 537 million filter elements are more than 32 bits of bytes hold.
    assert cuda._results(p, *shapes)[0] == (64, 1024, 7, 7)
    large = torch.Size((1, 1024, 2048, 1024)), torch.Size((1, 8, 1024, 1024, 1, 1)), torch.Size((1, 8, 2048, 1024))
    with pytest.raises(Unsupported, match=r"values of one image.*2150630400"):
        cuda._results(p, *large)
    with pytest.raises(Unsupported, match=r"blocks.*\d{10}"):
        products.filtered.plan(
            p,
            torch.float32,
            torch.Size((2**26, 4096, 7, 7)),
            shapes[1],
            torch.Size((1, 1)),
            torch.Size((2**26, 4096, 7, 7)),
        )


def test_what_does_not_fit_is_refused() -> None:
    p, x, filters = Params(regions=2), torch.randn(1, 3, 4, 5), torch.randn(1, 2, 3, 3, 3, 3)
    with on_cpu():
        with pytest.raises(Unsupported, match="guide"):
            cuda.CUDA(p, x, filters, torch.randn(1, 2, 4, 4))
        with pytest.raises(Unsupported, match="filters"):
            cuda.CUDA(p, x, filters[:, :1], torch.randn(1, 2, 4, 5))
        with pytest.raises(Unsupported, match=r"16 bits.*40000"):
            cuda.CUDA(
                Params(regions=1), torch.empty(1, 1, 1, 40_000), filters[:, :1, :1, :1], torch.empty(1, 1, 1, 40_000)
            )
        with pytest.raises(Unsupported, match="window does not fit"):
            cuda.CUDA(Params(kernel_size=9, padding=0), x, filters, torch.randn(1, 2, 4, 5))


def test_float32_is_not_rounded_to_tensor_core_precision() -> None:
    p = Params(kernel_size=1, padding=0, regions=2)
    x, filters = torch.full((1, 1, 2, 2), 1 + 2.0**-20), torch.full((1, 2, 1, 1, 1, 1), 1 + 2.0**-3)
    guide = torch.randn(1, 2, 2, 2)
    with on_cpu():
        assert torch.equal(cuda.CUDA(p, x, filters, guide), drconv(p, x, filters, guide))
