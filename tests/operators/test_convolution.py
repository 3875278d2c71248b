"""Facts about convolution: counts of known layers, gradients, windows of every kind, and what is refused."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Maker, Nchw, Unsupported
from opbench.check import usable_core
from opbench.params import build
from opbench.registry import Registry

OPERATOR = Registry.discover().load("convolution")

# Image, parameters, learnable scalars, dense MMACs of one image.
TABLE = {
    "ResNet-50 stem": ((3, 224, 224), {"out_channels": 64, "kernel_size": 7, "stride": 2}, 9408, 118.01),
    "ResNet-50 layer1": ((64, 56, 56), {}, 36864, 115.61),
    "ResNet-50 layer2.0": ((128, 56, 56), {"stride": 2}, 147456, 115.61),
    "ResNet-50 layer2": ((128, 28, 28), {}, 147456, 115.61),
    "ResNet-50 layer3.0": ((256, 28, 28), {"stride": 2}, 589824, 115.61),
    "ResNet-50 layer3": ((256, 14, 14), {}, 589824, 115.61),
    "ResNet-50 layer4.0": ((512, 14, 14), {"stride": 2}, 2359296, 115.61),
    "ResNet-50 layer4": ((512, 7, 7), {}, 2359296, 115.61),
    "ResNet-50 expand": ((64, 56, 56), {"out_channels": 256, "kernel_size": 1}, 16384, 51.38),
    "ResNet-50 reduce": ((1024, 14, 14), {"out_channels": 256, "kernel_size": 1}, 262144, 51.38),
    "ResNet-50 shortcut": ((256, 56, 56), {"out_channels": 512, "kernel_size": 1, "stride": 2}, 131072, 102.76),
    "ResNeXt-50": ((128, 56, 56), {"groups": 32}, 4608, 14.45),
    "MobileNetV2 stride 2": ((144, 56, 56), {"stride": 2, "groups": 144}, 1296, 1.02),
    "MobileNetV2 last": ((960, 7, 7), {"groups": 960}, 8640, 0.42),
    "DeepLab layer4": ((512, 33, 33), {"padding": 2, "dilation": 2}, 2359296, 2569.27),
    "ASPP": ((2048, 33, 33), {"out_channels": 256, "padding": 12, "dilation": 12}, 4718592, 5138.55),
    "odd size": ((64, 31, 31), {"out_channels": 96, "kernel_size": 5, "stride": 2, "groups": 4}, 38400, 9.83),
}


def params(**values: Any) -> Any:
    return build(OPERATOR.params, values)


def cost(p: Any, *shape: int) -> Any:
    assert OPERATOR.cost is not None
    return OPERATOR.cost(p, Nchw(*shape))


def tensors(p: Any, *shape: int) -> list[Tensor]:
    make = Maker(torch.float64, generator=torch.Generator().manual_seed(0))
    return list(OPERATOR.inputs(p, Nchw(*shape), make).values())


@pytest.mark.parametrize(("image", "values", "parameters", "mmacs"), TABLE.values(), ids=TABLE)
def test_known_layers_cost_what_is_known(
    image: tuple[int, int, int], values: dict[str, Any], parameters: int, mmacs: float
) -> None:
    one, many = cost(params(**values), 1, *image), cost(params(**values), 32, *image)
    assert one.parameters == many.parameters == parameters
    assert round(one.core.forward.dense / 1e6, 2) == mmacs
    assert many.core.forward == 32 * one.core.forward
    assert one.core.backward == 2 * one.core.forward
    assert one.layer == one.core


def test_bias_adds_a_parameter_per_output_channel_and_no_mac() -> None:
    without, with_bias = (cost(params(out_channels=6, bias=bias), 1, 4, 5, 5) for bias in (False, True))
    assert (without.parameters, with_bias.parameters) == (216, 222)
    assert without.core == with_bias.core


def test_a_3x3_kernel_on_2x2_pixels_reads_a_pixel_with_4_taps_of_9() -> None:
    forward = cost(params(), 1, 1, 2, 2).core.forward
    assert (forward.dense, forward.in_bounds) == (36, 16)


EVERY_KIND: list[dict[str, Any]] = [
    {},
    {"kernel_size": "3x5", "groups": 2, "out_channels": 6, "stride": 2, "bias": True},
    {"kernel_size": "4x1", "dilation": 2, "padding": "same"},
    {"kernel_size": 4, "padding": 3, "dilation": 2, "stride": 3, "groups": 4},
    {"kernel_size": 2, "padding": 0, "stride": 4, "bias": True},
]
each_kind = pytest.mark.parametrize("p", [params(**values) for values in EVERY_KIND], ids=map(str, EVERY_KIND))


@each_kind
def test_with_ones_everywhere_the_outputs_count_the_taps_in_bounds(p: Any) -> None:
    x, weight, *_ = tensors(p, 2, 4, 7, 9)
    output = OPERATOR.reference(p, torch.ones_like(x), torch.ones_like(weight))
    assert int(output.sum()) == cost(p, 2, 4, 7, 9).core.forward.in_bounds


@each_kind
def test_reference_and_gradients_are_the_definition_written_as_loops(p: Any) -> None:
    x, weight, *bias = (tensor.requires_grad_() for tensor in tensors(p, 1, 4, 5, 6))
    output = OPERATOR.reference(p, x, weight, *bias)
    go = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, gx, gw = torch.zeros_like(output), torch.zeros_like(x), torch.zeros_like(weight)
    vertical, horizontal = p.windows
    inputs_per_group, outputs_per_group = weight.shape[1], weight.shape[0] // p.groups
    for o, row, column in itertools.product(*map(range, output.shape[1:])):
        for c, a, b in itertools.product(*map(range, weight.shape[1:])):
            u = row * p.stride - vertical.padding + a * p.dilation
            v = column * p.stride - horizontal.padding + b * p.dilation
            if 0 <= u < 5 and 0 <= v < 6:
                source = o // outputs_per_group * inputs_per_group + c
                y[0, o, row, column] += weight[o, c, a, b] * x[0, source, u, v]
                gx[0, source, u, v] += weight[o, c, a, b] * go[0, o, row, column]
                gw[o, c, a, b] += x[0, source, u, v] * go[0, o, row, column]
    expected = [gx, gw]
    if bias:
        y = y + bias[0][:, None, None]
        expected.append(go.sum((0, 2, 3)))
    torch.testing.assert_close(output, y)
    for actual, gradient in zip(torch.autograd.grad(output, (x, weight, *bias), go), expected, strict=True):
        torch.testing.assert_close(actual, gradient)


def test_the_gradient_of_an_input_gathers_where_the_stride_divides() -> None:
    """gx[u, v] = Σ w[a, b] · go[(u + p − a·d) / s, (v + p − b·d) / s] over the taps that s divides, in range."""
    p = params(kernel_size=3, stride=2, dilation=2, padding=2, out_channels=6, groups=2)
    x, weight = tensors(p, 2, 4, 7, 5)
    output = OPERATOR.reference(p, x.requires_grad_(), weight)
    go = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.zeros_like(x)
    for c, u, v, a, b in itertools.product(*map(range, (*x.shape[1:], 3, 3))):
        (row, above), (column, left) = divmod(u + 2 - 2 * a, 2), divmod(v + 2 - 2 * b, 2)
        if above == left == 0 and 0 <= row < output.shape[2] and 0 <= column < output.shape[3]:
            group = slice(c // 2 * 3, c // 2 * 3 + 3)
            expected[:, c, u, v] += go[:, group, row, column] @ weight[group, c % 2, a, b]
    torch.testing.assert_close(torch.autograd.grad(output, x, go)[0], expected)


@pytest.mark.parametrize("implementation", ["reference", "native"])
def test_pixels_that_no_tap_reaches_have_a_gradient_of_exactly_zero(implementation: str) -> None:
    """A 2x2 window at stride 4 on 7x9 pixels sees rows 0, 1, 4, 5 and columns 0, 1, 4, 5: not the last of either."""
    p = params(kernel_size=2, padding=0, stride=4)
    core = usable_core(OPERATOR, implementation)
    x, weight = tensors(p, 2, 4, 7, 9)
    output = core(p, x.requires_grad_(), weight)
    (gradient,) = torch.autograd.grad(output, x, torch.ones_like(output))
    reached = torch.zeros(7, 9, dtype=torch.bool)
    for row, column in itertools.product((0, 1, 4, 5), (0, 1, 4, 5)):
        reached[row, column] = True
    assert output.shape[2:] == (2, 2)
    assert bool((gradient[..., ~reached] == 0).all())
    assert bool((gradient[..., reached] != 0).all())


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "before", "after"),
    [(2, 1, 0, 1), (3, 1, 1, 1), (4, 1, 1, 2), (2, 3, 1, 2), (4, 2, 3, 3)],
)
def test_same_keeps_the_size_and_puts_an_odd_zero_at_the_end(
    kernel_size: int, dilation: int, before: int, after: int
) -> None:
    p = params(kernel_size=kernel_size, dilation=dilation, padding="same")
    x, weight = tensors(p, 1, 3, 5, 6)
    output = OPERATOR.reference(p, x, weight)
    assert p.windows[0].paddings == p.windows[1].paddings == (before, after)
    assert output.shape == x.shape
    torch.testing.assert_close(output, F.conv2d(F.pad(x, (before, after) * 2), weight, dilation=dilation))
    torch.testing.assert_close(OPERATOR.implementations["native"](p, x, weight), output)


def test_half_of_an_even_span_is_rounded_down() -> None:
    window, _ = params(kernel_size=4).windows
    assert window.paddings == (1, 1)
    assert window.outputs(7) == 6


def test_a_rectangular_kernel_is_height_by_width() -> None:
    p = params(kernel_size="1x3")
    x, weight = tensors(p, 1, 1, 2, 5)
    weight = torch.tensor([1.0, 0, 0], dtype=torch.float64).reshape(weight.shape)
    assert torch.equal(OPERATOR.reference(p, x, weight), F.pad(x, (1, 0))[..., :5])


def test_each_group_sees_its_own_neighbouring_channels() -> None:
    """Two groups of two: outputs 0 to 2 add channels 0 and 1, outputs 3 to 5 add channels 2 and 3."""
    p = params(kernel_size=1, groups=2, out_channels=6)
    x = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1, 1)
    output = OPERATOR.reference(p, x, torch.ones(6, 2, 1, 1))
    assert output.flatten().tolist() == [3, 3, 3, 12, 12, 12]


def test_the_layer_starts_as_pytorchs_does() -> None:
    p = params(out_channels=6, kernel_size="3x5", groups=2, stride=2, bias=True)
    assert OPERATOR.layer is not None
    torch.manual_seed(0)
    ours = OPERATOR.layer(4, p, OPERATOR.reference)
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(4, 6, (3, 5), 2, (1, 2), groups=2)
    assert all(torch.equal(theirs.state_dict()[key], value) for key, value in ours.state_dict().items())
    x = torch.randn(2, 4, 7, 9)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be integer ≥ 1 or text, got 0"),
        ({"kernel_size": "3x"}, "kernel_size must be an integer ≥ 1 or two joined by 'x', got '3x'"),
        ({"kernel_size": "3x0"}, "two joined by 'x', got '3x0'"),
        ({"kernel_size": "3x3x3"}, "two joined by 'x', got '3x3x3'"),
        ({"padding": -1}, "padding must be integer ≥ 0 or 'half' or 'same', got -1"),
        ({"padding": "sane"}, "did you mean 'same'?"),
        ({"padding": "same", "stride": 2}, "padding 'same' exists for stride 1 only, got stride 2"),
        ({"stride": 0}, "stride must be integer ≥ 1, got 0"),
        ({"dilation": 1.5}, "dilation must be integer ≥ 1, got 1.5"),
        ({"groups": True}, "groups must be integer ≥ 1, got True"),
        ({"kernelsize": 3}, "unknown parameter 'kernelsize'; did you mean 'kernel_size'?"),
    ],
    ids=str,
)
def test_illegal_parameters_are_refused_with_what_is_legal(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        params(**values)
    assert message in str(refusal.value)


@pytest.mark.parametrize(("values", "channels"), [({"groups": 3}, 4), ({"groups": 2, "out_channels": 3}, 4)], ids=str)
def test_groups_that_do_not_divide_the_channels_are_unsupported(values: dict[str, Any], channels: int) -> None:
    with pytest.raises(Unsupported, match=r"\d groups do not divide 4 input and \d output channels"):
        cost(params(**values), 1, channels, 5, 5)


def test_a_window_larger_than_the_padded_image_is_unsupported() -> None:
    p = params(kernel_size=5, padding=0)
    with pytest.raises(Unsupported, match="5x5 window does not fit"):
        OPERATOR.reference(p, *tensors(p, 1, 2, 4, 9))
