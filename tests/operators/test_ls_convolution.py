"""Facts about LS convolution: every number here can be derived by hand or by another road than the reference."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Maker, Nchw, Unsupported
from opbench.check import shared_inputs
from opbench.registry import Registry

LS_CONVOLUTION = Registry.discover().load("ls_convolution")
MAPPINGS = ("interleaved", "contiguous")
each_mapping = pytest.mark.parametrize("mapping", MAPPINGS)


@pytest.mark.parametrize(
    ("channels", "parameters"),
    [
        (64, 7_480),
        (96, 15_252),
        (128, 25_712),
        (192, 54_696),
        (256, 94_432),
        (320, 144_920),
        (384, 206_160),
        (512, 360_896),
    ],
)
def test_parameters_are_those_of_the_official_module(channels: int, parameters: int) -> None:
    params = LS_CONVOLUTION.params()
    assert cost(params, Nchw(1, channels, 14, 14)).parameters == parameters
    assert sum(value.numel() for value in layer(channels, params).parameters()) == parameters


@pytest.mark.parametrize(
    ("channels", "extent", "perception", "dense", "in_bounds"),
    [
        (128, 14, "4.83", "0.226", "0.205"),
        (256, 7, "4.52", "0.113", "0.092"),
        (192, 14, "10.41", "0.339", "0.307"),
        (320, 7, "6.97", "0.141", "0.116"),
        (128, 28, "19.32", "0.903", "0.861"),
        (256, 14, "18.09", "0.452", "0.410"),
        (384, 7, "9.94", "0.169", "0.139"),
    ],
)
def test_millions_of_macs_in_lsnet(channels: int, extent: int, perception: str, dense: str, in_bounds: str) -> None:
    """The aggregation is a few hundredths of what deciding on its weights costs."""
    paid = cost(LS_CONVOLUTION.params(), Nchw(1, channels, extent, extent))
    core, whole = paid.core.forward, paid.layer.forward
    assert f"{core.dense / 1e6:.3f}" == dense
    assert f"{core.in_bounds / 1e6:.3f}" == in_bounds
    assert f"{(whole.dense - core.dense) / 1e6:.2f}" == perception


def test_aggregation_macs_of_lsnet_b() -> None:
    """3.84 M of its 1 245 M."""
    slots = [(2, 128, 28), (3, 256, 14), (4, 384, 7)]
    params = LS_CONVOLUTION.params()
    macs = [times * cost(params, Nchw(1, c, extent, extent)).core.forward.dense for times, c, extent in slots]
    assert f"{sum(macs) / 1e6:.2f}" == "3.84"


def test_large_window_leaves_the_image_in_the_in_bounds_count() -> None:
    """On a 7x7 image 7 taps reach 4 + 5 + 6 + 7 + 6 + 5 + 4 = 37 pixels of 49 along each axis."""
    shape = Nchw(2, 16, 7, 7)
    paid = cost(LS_CONVOLUTION.params(small_kernel_size=1), shape).layer.forward
    assert paid.dense - paid.in_bounds == 2 * 8 * (49 * 49 - 37 * 37)


@each_mapping
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_sum_over_ones_counts_the_taps_in_bounds(mapping: str, kernel_size: int) -> None:
    params = LS_CONVOLUTION.params(small_kernel_size=kernel_size, group_channels=2, mapping=mapping)
    shape = Nchw(2, 6, 5, 4)
    ones = [torch.ones_like(tensor) for tensor in tensors(params, shape).values()]
    assert LS_CONVOLUTION.reference(params, *ones).sum() == cost(params, shape).core.forward.in_bounds


@each_mapping
def test_forward_and_gradients_are_the_written_formulas(mapping: str) -> None:
    params, shape = LS_CONVOLUTION.params(group_channels=3, mapping=mapping), Nchw(2, 6, 5, 4)
    x, weight = (tensor.requires_grad_() for tensor in tensors(params, shape).values())
    y = LS_CONVOLUTION.reference(params, x, weight)
    incoming = normal(*y.shape)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), incoming)

    expected, by_x, by_weight = (torch.zeros_like(tensor) for tensor in (y, x, weight))
    group_of = {"interleaved": [0, 1, 0, 1, 0, 1], "contiguous": [0, 0, 0, 1, 1, 1]}[mapping]
    with torch.no_grad():
        for n, c, a, b, row, column in product(range(2), range(6), range(3), range(3), range(5), range(4)):
            g, u, v = group_of[c], row - 1 + a, column - 1 + b
            if 0 <= u < 5 and 0 <= v < 4:
                expected[n, c, row, column] += weight[n, g, a, b, row, column] * x[n, c, u, v]
                by_weight[n, g, a, b, row, column] += incoming[n, c, row, column] * x[n, c, u, v]
            # The gradient of the input as a gather: the output that saw (row, column) through tap (a, b).
            u, v = row + 1 - a, column + 1 - b
            if 0 <= u < 5 and 0 <= v < 4:
                by_x[n, c, row, column] += weight[n, g, a, b, u, v] * incoming[n, c, u, v]
    torch.testing.assert_close(y.detach(), expected)
    torch.testing.assert_close(grad_x, by_x)
    torch.testing.assert_close(grad_weight, by_weight)


@pytest.mark.parametrize(
    ("mapping", "silent"),
    [
        ("interleaved", [False, True, False, False, True, False]),
        ("contiguous", [False, False, True, True, False, False]),
    ],
)
def test_silencing_the_second_of_three_kernels_silences_its_channels(mapping: str, silent: list[bool]) -> None:
    params = LS_CONVOLUTION.params(group_channels=2, mapping=mapping)
    x, weight = tensors(params, Nchw(1, 6, 4, 4)).values()
    weight[:, 1] = 0
    assert (LS_CONVOLUTION.reference(params, x, weight) == 0).all(dim=(0, 2, 3)).tolist() == silent


def test_mappings_differ_by_a_transposition_of_the_channels() -> None:
    x, weight = tensors(LS_CONVOLUTION.params(group_channels=3), Nchw(2, 6, 5, 4)).values()
    interleaved, contiguous = (aggregate(mapping, 3, x, weight) for mapping in MAPPINGS)
    assert (interleaved - contiguous).abs().max() > 1
    gathered = [0, 2, 4, 1, 3, 5]
    torch.testing.assert_close(aggregate("contiguous", 3, x[:, gathered], weight), interleaved[:, gathered])


@pytest.mark.parametrize("group_channels", [1, 6])
def test_mappings_agree_where_there_is_one_kernel_or_one_for_each_channel(group_channels: int) -> None:
    x, weight = tensors(LS_CONVOLUTION.params(group_channels=group_channels), Nchw(2, 6, 5, 4)).values()
    interleaved, contiguous = (aggregate(mapping, group_channels, x, weight) for mapping in MAPPINGS)
    assert torch.equal(interleaved, contiguous)


@pytest.mark.parametrize(("mapping", "order"), [("interleaved", [0, 1, 0, 1]), ("contiguous", [0, 0, 1, 1])])
def test_one_kernel_for_all_pixels_is_a_depthwise_convolution(mapping: str, order: list[int]) -> None:
    params = LS_CONVOLUTION.params(small_kernel_size=5, group_channels=2, mapping=mapping)
    x, weight = tensors(params, Nchw(2, 4, 7, 3)).values()
    everywhere = weight[:1, ..., :1, :1].expand_as(weight)
    expected = F.conv2d(x, weight[0, order, :, :, 0, 0][:, None], padding=2, groups=4)
    torch.testing.assert_close(LS_CONVOLUTION.reference(params, x, everywhere), expected)


def test_sixteen_bit_sums_do_not_lose_small_terms() -> None:
    """1 + 8 / 512 = 1.015625 is exact in bfloat16, but adding 1 / 512 to 1 there changes nothing."""
    weight = torch.full((1, 1, 3, 3, 3, 3), 1 / 512, dtype=torch.bfloat16)
    weight[:, :, 0, 0] = 1
    y = aggregate("interleaved", 1, torch.ones(1, 1, 3, 3, dtype=torch.bfloat16), weight)
    assert y.dtype == torch.bfloat16
    assert y[0, 0, 1, 1] == 1.015625


@each_mapping
def test_layer_is_the_definition_in_other_words(mapping: str) -> None:
    """Functional, with the group norm written out and unfold in place of the core."""
    params = LS_CONVOLUTION.params(mapping=mapping)
    module = layer(16, params).double()
    values = [torch.nn.init.normal_(value) for value in module.parameters()]
    squeeze, *bn_1, depthwise, bn_2w, bn_2b, mix, bn_3w, bn_3b, project, bias, gn_w, gn_b, bn_4w, bn_4b = values
    x = normal(2, 16, 9, 5)

    t = F.relu(batch_norm(F.conv2d(x, squeeze), *bn_1))
    t = batch_norm(F.conv2d(t, depthwise, padding=3, groups=8), bn_2w, bn_2b)
    t = F.relu(batch_norm(F.conv2d(t, mix), bn_3w, bn_3b))
    t = F.conv2d(t, project, bias).view(2, 2, 9, 45)
    # One mean and one variance for each image and group: over its nine taps and the whole plane.
    t = (t - t.mean((2, 3), keepdim=True)) / (t.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    weight = t * gn_w.view(2, 9, 1) + gn_b.view(2, 9, 1)
    seen = F.unfold(x, 3, padding=1).view(2, 16, 9, 45)
    group_of = [c % 2 if mapping == "interleaved" else c // 8 for c in range(16)]
    z = (seen * weight[:, group_of]).sum(2).view(2, 16, 9, 5)
    torch.testing.assert_close(module(x), batch_norm(z, bn_4w, bn_4b) + x)


def test_the_kernels_of_a_group_have_mean_zero_and_variance_one() -> None:
    """At initialisation, over their taps and the plane together."""
    _, weight = run(layer(32, LS_CONVOLUTION.params()).double(), normal(2, 32, 9, 6))
    groups = weight.flatten(2)
    torch.testing.assert_close(groups.mean(-1), torch.zeros_like(groups[..., 0]))
    torch.testing.assert_close(groups.var(-1, correction=0), torch.ones_like(groups[..., 0]), atol=1e-3, rtol=0)


def test_group_norm_makes_the_layer_see_the_whole_image() -> None:
    """Editing a corner moves every kernel; without the norm only those whose 7x7 window holds the corner."""
    x = normal(1, 16, 12, 12)
    edited = x.clone()
    edited[:, :, 0, 0] += 1
    module = layer(16, LS_CONVOLUTION.params()).double().eval()
    far = (..., slice(4, None), slice(4, None))

    (before, kernels), (after, edited_kernels) = run(module, x), run(module, edited)
    assert (kernels != edited_kernels)[far].all()
    assert (before - after)[far].abs().max() > 1e-4

    module.perception[-1] = torch.nn.Identity()
    (before, kernels), (after, edited_kernels) = run(module, x), run(module, edited)
    assert torch.equal(before[far], after[far])
    assert (kernels != edited_kernels)[..., :4, :4].any()


def test_a_layer_whose_last_norm_is_silent_is_the_identity() -> None:
    module = layer(16, LS_CONVOLUTION.params())
    torch.nn.init.zeros_(module.norm.weight)
    x = normal(2, 16, 5, 4).float()
    assert torch.equal(module(x), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"large_kernel_size": 6}, "large_kernel_size must be odd integer ≥ 1, got 6"),
        ({"small_kernel_size": 2}, "small_kernel_size must be odd integer ≥ 1, got 2"),
        ({"group_channels": 0}, "group_channels must be integer ≥ 1, got 0"),
        ({"mapping": "interleave"}, "'interleaved' or 'contiguous', got 'interleave'; did you mean 'interleaved'"),
    ],
)
def test_illegal_parameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LS_CONVOLUTION.params(**options)


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        (20, {}, "20 channels are not a multiple of group_channels 8"),
        (9, {"group_channels": 3}, "half of the channels, and 9 is odd"),
    ],
)
def test_channel_counts_without_a_meaning_are_unsupported(channels: int, options: dict[str, Any], message: str) -> None:
    params = LS_CONVOLUTION.params(**options)
    with pytest.raises(Unsupported, match=message):
        layer(channels, params)
    with pytest.raises(Unsupported, match=message):
        cost(params, Nchw(1, channels, 8, 8))


def cost(params: Any, shape: Nchw) -> Any:
    assert LS_CONVOLUTION.cost is not None
    return LS_CONVOLUTION.cost(params, shape)


def layer(channels: int, params: Any) -> Any:
    assert LS_CONVOLUTION.layer is not None
    torch.manual_seed(0)
    return LS_CONVOLUTION.layer(channels, params, LS_CONVOLUTION.reference)


def aggregate(mapping: str, group_channels: int, x: Tensor, weight: Tensor) -> Tensor:
    params = LS_CONVOLUTION.params(mapping=mapping, group_channels=group_channels)
    return LS_CONVOLUTION.reference(params, x, weight)


def run(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output, and the kernels it generated."""
    calls: list[tuple[Any, tuple[Tensor, ...]]] = []
    module.core = shared_inputs(LS_CONVOLUTION.reference, calls)
    y = module(x).detach()
    ((_, (_, weight)),) = calls
    return y, weight


def batch_norm(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(values, None, None, weight, bias, training=True)


def tensors(params: Any, shape: Nchw) -> dict[str, Tensor]:
    make = Maker(torch.float64, generator=torch.Generator().manual_seed(2))
    return dict(LS_CONVOLUTION.inputs(params, shape, make))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
