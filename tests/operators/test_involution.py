"""Facts about involution: every number here can be derived by hand or by another road than the reference."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Maker, Nchw, Unsupported
from opbench.check import shared_inputs
from opbench.registry import Registry

INVOLUTION = Registry.discover().load("involution")
TINY = {"kernel_size": 3, "group_channels": 3, "reduction": 2}
STRIDED = (
    TINY,
    TINY | {"stride": 2},
    TINY | {"dilation": 2},
    TINY | {"stride": 2, "dilation": 2},
    TINY | {"stride": 3},
)


@pytest.mark.parametrize(
    ("channels", "kernel_size", "parameters"),
    [(32, 3, 434), (64, 7, 4_388), (128, 7, 17_096), (256, 7, 67_472), (512, 7, 268_064)],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_parameters_are_those_of_the_official_module(
    channels: int, kernel_size: int, parameters: int, stride: int
) -> None:
    params = INVOLUTION.params(kernel_size=kernel_size, stride=stride)
    assert cost(params, Nchw(1, channels, 14, 14)).parameters == parameters
    assert sum(value.numel() for value in layer(channels, params).parameters()) == parameters


@pytest.mark.parametrize(
    ("channels", "extent", "kernel_size", "stride", "generator", "dense", "in_bounds"),
    [
        (32, 112, 3, 1, "5.02", "3.61", "3.57"),
        (64, 56, 7, 1, "13.05", "9.83", "9.24"),
        (128, 56, 7, 2, "13.05", "4.92", "4.62"),
        (128, 28, 7, 1, "13.05", "4.92", "4.33"),
        (256, 28, 7, 2, "13.05", "2.46", "2.17"),
        (256, 14, 7, 1, "13.05", "2.46", "1.89"),
        (512, 14, 7, 2, "13.05", "1.23", "0.95"),
        (512, 7, 7, 1, "13.05", "1.23", "0.70"),
    ],
)
def test_millions_of_macs_in_the_slots_of_rednet(
    channels: int, extent: int, kernel_size: int, stride: int, generator: str, dense: str, in_bounds: str
) -> None:
    """The generator, and not the aggregation, is the larger part."""
    paid = cost(INVOLUTION.params(kernel_size=kernel_size, stride=stride), Nchw(1, channels, extent, extent))
    core, whole = paid.core.forward, paid.layer.forward
    assert millions(core.dense) == dense
    assert millions(core.in_bounds) == in_bounds
    assert millions(whole.dense - core.dense) == millions(whole.in_bounds - core.in_bounds) == generator


def test_aggregation_macs_of_rednet_50_are_the_published_ones() -> None:
    """0.087281 G is what remains of the published 2.713184 G beside convolutions and element-wise work."""
    slots = [
        (1, 32, 112, 1),
        (3, 64, 56, 1),
        *((1, 128, 56, 2), (3, 128, 28, 1)),
        *((1, 256, 28, 2), (5, 256, 14, 1)),
        *((1, 512, 14, 2), (2, 512, 7, 1)),
    ]
    macs = [
        times * cost(INVOLUTION.params(stride=stride), Nchw(1, channels, extent, extent)).core.forward.dense
        for times, channels, extent, stride in slots
    ]
    assert f"{sum(macs) / 1e9:.6f}" == "0.087281"


@pytest.mark.parametrize("options", STRIDED, ids=str)
def test_sum_over_ones_counts_the_taps_in_bounds(options: dict[str, Any]) -> None:
    params, shape = INVOLUTION.params(**options), Nchw(2, 6, 9, 7)
    ones = [torch.ones_like(tensor) for tensor in tensors(params, shape).values()]
    assert INVOLUTION.reference(params, *ones).sum() == cost(params, shape).core.forward.in_bounds


def test_ones_count_the_taps_that_each_pixel_of_a_3x3_image_has() -> None:
    params = INVOLUTION.params(kernel_size=3, group_channels=1)
    y = INVOLUTION.reference(params, torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3, 3, 3))
    assert y.tolist() == [[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]]


@pytest.mark.parametrize("options", STRIDED, ids=str)
def test_forward_and_gradients_are_the_written_formulas(options: dict[str, Any]) -> None:
    params, shape = INVOLUTION.params(**options), Nchw(2, 6, 7, 5)
    x, weight = (tensor.requires_grad_() for tensor in tensors(params, shape).values())
    y = INVOLUTION.reference(params, x, weight)
    incoming = normal(*y.shape)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), incoming)

    expected, by_x, by_weight = (torch.zeros_like(tensor) for tensor in (y, x, weight))
    step, apart, rows, columns = params.stride, params.dilation, range(y.shape[2]), range(y.shape[3])
    with torch.no_grad():
        for n, c, a, b in product(range(2), range(6), range(3), range(3)):
            g = c // 3
            for row, column in product(rows, columns):
                u, v = row * step + (a - 1) * apart, column * step + (b - 1) * apart
                if 0 <= u < 7 and 0 <= v < 5:
                    expected[n, c, row, column] += weight[n, g, a, b, row, column] * x[n, c, u, v]
                    by_weight[n, g, a, b, row, column] += incoming[n, c, row, column] * x[n, c, u, v]
            # The gradient of the input as a gather: which output saw (u, v) through tap (a, b), if any did.
            for u, v in product(range(7), range(5)):
                row, row_rest = divmod(u - (a - 1) * apart, step)
                column, column_rest = divmod(v - (b - 1) * apart, step)
                if row_rest == column_rest == 0 and row in rows and column in columns:
                    by_x[n, c, u, v] += weight[n, g, a, b, row, column] * incoming[n, c, row, column]
    torch.testing.assert_close(y.detach(), expected)
    torch.testing.assert_close(grad_x, by_x)
    torch.testing.assert_close(grad_weight, by_weight)


def test_weight_gradient_of_a_tap_outside_the_image_is_zero() -> None:
    params, shape = INVOLUTION.params(**TINY), Nchw(1, 6, 4, 5)
    x, weight = (tensor.requires_grad_() for tensor in tensors(params, shape).values())
    (gradient,) = torch.autograd.grad(INVOLUTION.reference(params, x, weight).sum(), weight)
    assert (gradient[:, :, 0, :, 0, :] == 0).all()
    assert (gradient[:, :, 1:, 1, 0, :] != 0).all()


@pytest.mark.parametrize("options", STRIDED, ids=str)
def test_one_kernel_for_all_pixels_is_a_depthwise_convolution(options: dict[str, Any]) -> None:
    params, shape = INVOLUTION.params(**options), Nchw(2, 6, 9, 7)
    x, weight = tensors(params, shape).values()
    everywhere = weight[:1, ..., :1, :1].expand_as(weight)
    filters = weight[0, :, :, :, 0, 0].repeat_interleave(3, dim=0)[:, None]
    torch.testing.assert_close(
        INVOLUTION.reference(params, x, everywhere),
        F.conv2d(x, filters, stride=params.stride, padding=params.dilation, dilation=params.dilation, groups=6),
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_kernel_that_is_one_at_its_middle_samples_the_image(stride: int) -> None:
    params = INVOLUTION.params(stride=stride)
    x, weight = tensors(params, Nchw(2, 32, 9, 8)).values()
    weight.zero_()[:, :, 3, 3] = 1
    assert torch.equal(INVOLUTION.reference(params, x, weight), x[:, :, ::stride, ::stride])


def test_a_group_is_a_run_of_neighbouring_channels() -> None:
    """Silencing the second of three groups silences channels 2 and 3 of six."""
    params = INVOLUTION.params(kernel_size=3, group_channels=2)
    x, weight = tensors(params, Nchw(1, 6, 4, 4)).values()
    weight[:, 1] = 0
    silent = (INVOLUTION.reference(params, x, weight) == 0).all(dim=(0, 2, 3))
    assert silent.tolist() == [False, False, True, True, False, False]


def test_sixteen_bit_sums_do_not_lose_small_terms() -> None:
    """1 + 48 / 512 = 1.09375 is exact in bfloat16, but adding 1 / 512 to 1 there changes nothing."""
    params = INVOLUTION.params(group_channels=1)
    weight = torch.full((1, 1, 7, 7, 7, 7), 1 / 512, dtype=torch.bfloat16)
    weight[:, :, 0, 0] = 1
    y = INVOLUTION.reference(params, torch.ones(1, 1, 7, 7, dtype=torch.bfloat16), weight)
    assert y.dtype == torch.bfloat16
    assert y[0, 0, 3, 3] == 1.09375


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"kernel_size": 3, "dilation": 2, "reduction": 3}], ids=str)
def test_layer_is_the_definition_in_other_words(options: dict[str, Any]) -> None:
    """At sizes that the stride divides, where the original and ours agree; unfold in place of the core."""
    params = INVOLUTION.params(**options)
    k, s, d = params.kernel_size, params.stride, params.dilation
    module = layer(32, params).double()
    reduce, gamma, beta, span, bias = (torch.nn.init.normal_(value) for value in module.parameters())
    x = normal(2, 32, 8, 6)

    hidden = F.relu(F.batch_norm(F.conv2d(F.avg_pool2d(x, s), reduce), None, None, gamma, beta, training=True))
    kernels = F.conv2d(hidden, span, bias).view(2, 2, k * k, -1)
    seen = F.unfold(x, k, dilation=d, padding=d * (k // 2), stride=s).view(2, 2, 16, k * k, -1)
    expected = torch.einsum("ngil,ngcil->ngcl", kernels, seen).reshape(2, 32, 8 // s, 6 // s)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_size_has_a_kernel_for_every_output_pixel(stride: int) -> None:
    """Where the official module rounds the pooled size down, and the output's up."""
    params = INVOLUTION.params(stride=stride)
    for extent in range(1, 14):
        x = torch.empty(2, 16, extent, 9, device="meta")
        y, weight = run(params, x)
        assert y.shape == (2, 16, -(-extent // stride), -(-9 // stride))
        assert weight.shape[-2:] == y.shape[-2:]


def test_a_window_that_leaves_the_image_is_averaged_over_what_is_inside() -> None:
    """So a constant image has the same kernel everywhere, at the rim of an odd size too."""
    params = INVOLUTION.params(stride=2)
    _, weight = run(params, torch.full((1, 16, 5, 7), 3.0))
    assert weight.std() > 0
    torch.testing.assert_close(weight, weight[..., :1, :1].expand_as(weight))


def test_a_kernel_is_generated_from_the_pixel_under_its_middle() -> None:
    params = INVOLUTION.params()
    x = normal(1, 64, 9, 9).float()
    edited = x.clone()
    edited[:, :, 4, 4] += 1
    (before, kernels), (after, edited_kernels) = run(params, x), run(params, edited)
    assert changed(kernels, edited_kernels) == {(4, 4)}
    assert changed(before, after) == set(product(range(1, 8), range(1, 8)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd integer ≥ 1, got 4"),
        ({"stride": 0}, "stride must be integer ≥ 1, got 0"),
        ({"dilation": 0}, "dilation must be integer ≥ 1, got 0"),
        ({"group_channels": 0}, "group_channels must be integer ≥ 1, got 0"),
        ({"reduction": 0}, "reduction must be integer ≥ 1, got 0"),
    ],
)
def test_illegal_parameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        INVOLUTION.params(**options)


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        (40, {}, "40 channels are not a multiple of group_channels 16"),
        (2, {"group_channels": 1}, "reduction 4 leaves no hidden channel of 2"),
    ],
)
def test_channel_counts_without_a_meaning_are_unsupported(channels: int, options: dict[str, Any], message: str) -> None:
    params = INVOLUTION.params(**options)
    with pytest.raises(Unsupported, match=message):
        layer(channels, params)
    with pytest.raises(Unsupported, match=message):
        cost(params, Nchw(1, channels, 8, 8))


def cost(params: Any, shape: Nchw) -> Any:
    assert INVOLUTION.cost is not None
    return INVOLUTION.cost(params, shape)


def layer(channels: int, params: Any) -> Any:
    assert INVOLUTION.layer is not None
    torch.manual_seed(0)
    return INVOLUTION.layer(channels, params, INVOLUTION.reference)


def run(params: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output in evaluation, and the kernels it generated."""
    calls: list[tuple[Any, tuple[Tensor, ...]]] = []
    module = layer(x.shape[1], params).eval().to(x.device)
    module.core = shared_inputs(INVOLUTION.reference, calls)
    y = module(x).detach()
    ((_, (_, weight)),) = calls
    return y, weight


def tensors(params: Any, shape: Nchw) -> dict[str, Tensor]:
    make = Maker(torch.float64, generator=torch.Generator().manual_seed(2))
    return dict(INVOLUTION.inputs(params, shape, make))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def changed(before: Tensor, after: Tensor) -> set[tuple[int, ...]]:
    """The pixels, along the last two axes, at which any value differs."""
    differs = (before != after).flatten(0, -3).any(dim=0)
    return {(int(row), int(column)) for row, column in differs.nonzero()}


def millions(macs: int) -> str:
    return f"{macs / 1e6:.2f}"
