"""Kernels of dynamic convolution: planted bugs are seen, images never mix, plans depend on what they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from opbench.api import Nchw, Unsupported
from opbench.cuda import on_cpu
from opbench.cuda.emulation import ORDERS
from operators.dynamic_convolution import cuda, narrow, products
from operators.dynamic_convolution.reference import Params, dynamic_convolution

PLAIN = Params(bias=True), Nchw(3, 3, 5, 4)
GROUPS = Params(out_channels=6, groups=2), Nchw(2, 12, 4, 5)
STRIDED = Params(out_channels=6, groups=2, stride=2, experts=3), Nchw(2, 12, 6, 5)
DEPTHWISE = Params(groups=4, stride=2, experts=3), Nchw(3, 4, 7, 6)
MANY = Params(experts=6, kernel_size=1, padding=0), Nchw(2, 3, 2, 3)

BUGS = {
    "every image has the first one's attention": (
        "mixtures.cuh",
        "static_cast<long long>(image) * experts)",
        "0LL * experts)",
        *PLAIN,
    ),
    "experts lie one group apart": (
        "kernel.cu",
        "      of.groups * of.outputs * depth, attention",
        "      of.outputs * depth, attention",
        *GROUPS,
    ),
    "tiles of a block share their memory": (
        "kernel.cu",
        "return shared + threadIdx.y *",
        "return shared + 0 *",
        *PLAIN,
    ),
    "residues are taken for images": (
        "kernel.cu",
        "residue = tile.rest % residues",
        "residue = 0 % residues",
        *STRIDED,
    ),
    "only the first experts of many": (
        "kernel.cu",
        "expert = part / p.splits * AT_ONCE",
        "expert = part / p.splits",
        *MANY,
    ),
    "an attention's products are added too early": (
        "kernel.cu",
        "AT_ONCE + e] = sum;\n    }\n    __syncthreads();",
        "AT_ONCE + e] = sum;\n    }",
        *PLAIN,
    ),
    "threads add to one place for the last expert": (
        "kernel.cu",
        "warp_sums + 16 + threadIdx.x * RUN",
        "warp_sums + 16 + threadIdx.x / 2 * RUN",
        *PLAIN,
    ),
    "a filter's last taps have no gradient": (
        "narrow.cu",
        "for (int t = 0; t < TAPS; ++t) {\n        const",
        "for (int t = 0; t < TAPS - 1; ++t) {\n        const",
        *DEPTHWISE,
    ),
    "the last pixels of a thread": (
        "narrow.cu",
        "constexpr int EACH = 4;",
        "constexpr int EACH = 3;",
        Params(groups=2),
        Nchw(1, 2, 15, 15),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS[bug]
    # Of several thread orders one at least must show a missing barrier.
    changed = mutant("dynamic_convolution", file, old, new)
    assert any(changed.failures(params, shape, order=order) for order in ORDERS)


DILATED = Params(out_channels=32, experts=3, dilation=2), Nchw(1, 32, 14, 32)
SMALL = Params(out_channels=36, bias=True), Nchw(5, 16, 5, 4)

BAND_BUGS = {
    "filters are multiplied before all are mixed": ("left_group);\n    __syncthreads();", "left_group);", *DILATED),
    "pixels overwrite those that are multiplied": ("    __syncthreads();  // The", "    // The", *DILATED),
    "every band begins with the image": ("first_row = max(view.top", "first_row = 0 * max(view.top", *DILATED),
    "columns beyond a row are those of the next": ("outside |= 8u << i;", "outside |= 0u << i;", *DILATED),
    "the last pieces are left out": ("if (left_group < Own::GROUPS)", "if (left_group < 0)", *DILATED),
    "images of a block have the first one's filters": (
        "to[i] + shift] = from_float<T>(sums[image][i])",
        "to[i] + shift] = from_float<T>(sums[0][i])",
        *SMALL,
    ),
    "an image beyond the last is loaded": ("if (pixel >= count || image >= of.images) continue;", "", *SMALL),
}


@pytest.mark.parametrize("bug", BAND_BUGS)
def test_planted_bugs_are_seen_where_pixels_are_kept(bug: str, mutant: Callable[..., Any]) -> None:
    old, new, params, shape = BAND_BUGS[bug]
    changed = mutant("dynamic_convolution", "bands.cu", old, new)
    sanitize = "beyond" in bug
    assert any(changed.failures(params, shape, "float16", order=order, sanitize=sanitize) for order in ORDERS)


def test_kept_pixels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("dynamic_convolution", "bands.cu", "struct Extents", "struct Extents")
    for params, shape in (DILATED, SMALL):
        assert not shipped.failures(params, shape, "float16")


def test_the_kernels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("dynamic_convolution", "kernel.cu", "struct Experts", "struct Experts")
    for *_, params, shape in BUGS.values():
        assert not shipped.failures(params, shape)


@pytest.mark.parametrize(("p", "channels"), [(Params(out_channels=5), 4), (Params(groups=4), 4)])
def test_an_attention_of_one_expert_is_its_convolution(p: Params, channels: int) -> None:
    x, weight = torch.randn(4, channels, 6, 5), torch.randn(p.weight_shape(channels))
    with on_cpu():
        y = cuda.CUDA(p, x, weight, torch.eye(4))
    for image in range(4):
        expected = F.conv2d(x[image : image + 1], weight[image], padding=1, groups=p.groups)
        torch.testing.assert_close(y[image : image + 1], expected)


@pytest.mark.parametrize("p", [Params(out_channels=5), Params(groups=4)])
def test_a_broken_image_spoils_no_other(p: Params) -> None:
    x, weight = torch.randn(5, 4, 6, 5), torch.randn(p.weight_shape(4))
    attention = torch.randn(5, 4).softmax(1)
    spoilt = x.clone()
    spoilt[2] = torch.nan
    with on_cpu():
        clean, y = cuda.CUDA(p, x, weight, attention), cuda.CUDA(p, spoilt, weight, attention)
    others = [0, 1, 3, 4]
    assert torch.equal(y[others], clean[others])
    assert y[2].isnan().all()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_one_gradient_alone_is_the_same(bias: bool, groups: int) -> None:
    p = Params(groups=groups, bias=bias, experts=3)
    weight = torch.randn(p.weight_shape(4))
    tensors = [weight, *([torch.randn(weight.shape[:2])] if bias else []), torch.randn(2, 3).softmax(1)]
    x, gradient = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    count = 1 + len(tensors)
    with on_cpu():
        full = cuda.backward(p, (True,) * count, gradient, x, *tensors)
        for index in range(count):
            wanted = [index == other for other in range(count)]
            alone = cuda.backward(p, wanted, gradient, x, *tensors)
            assert [result is not None for result in alone] == wanted
            assert torch.equal(alone[index], full[index])  # type: ignore[arg-type]


def test_splits_of_the_images_change_only_the_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    p = Params(experts=5)
    tensors = torch.randn(7, 4, 5, 6), torch.randn(p.weight_shape(4)), torch.randn(7, 5).softmax(1)
    gradient = torch.randn(7, 4, 5, 6)
    weight = tensors[1].shape
    assert products.count_splits(p, weight, 7) == 7
    with on_cpu():
        _, split, products_split = cuda.backward(p, (True,) * 3, gradient, *tensors)
        monkeypatch.setattr(products, "BLOCKS", 1)
        products.weigh._plans.clear()
        assert products.count_splits(p, weight, 7) == 1
        _, whole, products_whole = cuda.backward(p, (True,) * 3, gradient, *tensors)
    products.weigh._plans.clear()
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)
    assert split is not None
    # Each image's own products do not know of the splits.
    assert torch.equal(products_split, products_whole)  # type: ignore[arg-type]


def test_no_tensor_grows_with_the_batch_but_for_a_few_sums_per_tile() -> None:
    p, weight = Params(out_channels=512), torch.Size((4, 512, 512, 3, 3))
    # 32 images of mixed filters would be 75 million elements; the attention's products are 74 thousand.
    assert products.count_tiles(p, weight) == 8 * 72
    assert products.count_splits(p, weight, 32) == products.count_splits(p, weight, 128) == 1
    small = torch.Size((4, 64, 64, 3, 3))
    assert products.count_splits(p, small, 1 << 20) * products.count_tiles(p, small) < 2 * products.BLOCKS


def test_the_kernel_is_chosen_by_filters_and_alignment() -> None:
    def names(p: Params, x: Nchw) -> str:
        weight, y = torch.Size(p.weight_shape(x.channels)), torch.Size((x.batch, p.out_channels or x.channels, *x[2:]))
        kernels = narrow if narrow.is_narrow(p, weight) else products
        launch = kernels.convolve.plan(p, torch.float16, torch.Size(x), weight, None, torch.Size((x.batch, 4)), y)
        assert launch is not None
        return str(launch.kernel)

    pointwise = Params(kernel_size=1, padding=0)
    assert names(Params(), Nchw(32, 64, 56, 56)) == names(Params(), Nchw(1, 64, 14, 14)) == "forward<float16, 4, 1>"
    assert names(Params(), Nchw(1, 512, 7, 7)) == "forward<float16, 4, 4>"
    # Rows so wide that those of a window exceed the shared memory, and strides: windows are gathered.
    assert names(Params(), Nchw(1, 16, 9, 512)) == "forward<float16, 4, 8, 0>"
    assert names(Params(stride=2), Nchw(32, 128, 28, 28)) == "forward<float16, 4, 8, 0>"
    assert names(Params(experts=8), Nchw(1, 5, 7, 7)) == "forward<float16, 0, 1, 0>"
    assert names(pointwise, Nchw(2, 64, 14, 14)) == names(pointwise, Nchw(8, 64, 56, 56)) == "forward<float16, 4, 8, 4>"
    assert names(pointwise, Nchw(2, 64, 7, 7)) == "forward<float16, 4, 8, 1>"
    assert names(Params(kernel_size=17), Nchw(1, 8, 9, 9)) == "forward<float16, 0, 8, -1>"
    assert names(Params(groups=64), Nchw(1, 64, 9, 9)) == "narrow_forward<float16, 3>"


def test_what_does_not_fit_is_refused() -> None:
    p, x, weight = Params(), torch.randn(2, 3, 4, 5), torch.randn(4, 3, 3, 3, 3)
    with on_cpu():
        with pytest.raises(Unsupported, match="attention"):
            cuda.CUDA(p, x, weight, torch.randn(1, 4))
        with pytest.raises(Unsupported, match="weight"):
            cuda.CUDA(p, x, weight[:3], torch.randn(2, 4))
        with pytest.raises(Unsupported, match="window does not fit"):
            cuda.CUDA(Params(kernel_size=9, padding=0), x, weight, torch.randn(2, 4))
    large, single = torch.Size((4, 2**15, 2**15, 1, 1)), Params(kernel_size=1, padding=0, out_channels=2**15)
    with pytest.raises(Unsupported, match=r"weights.*4294967296"):
        cuda._output(single, torch.Size((1, 2**15, 2, 2)), large, None, torch.Size((1, 4)))
    wide = Params(kernel_size=101, groups=2)
    with pytest.raises(Unsupported, match=r"shared memory"):
        cuda._output(wide, torch.Size((1, 8, 2, 2)), torch.Size((4, 8, 4, 101, 101)), None, torch.Size((1, 4)))


def test_float32_is_not_rounded_to_tensor_core_precision() -> None:
    p = Params(kernel_size=1, padding=0, experts=1)
    x, weight = torch.full((1, 1, 2, 2), 1 + 2.0**-20), torch.full((1, 1, 1, 1, 1), 1 + 2.0**-3)
    attention = torch.ones(1, 1)
    with on_cpu():
        assert torch.equal(cuda.CUDA(p, x, weight, attention), dynamic_convolution(p, x, weight, attention))
