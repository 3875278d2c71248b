"""Facts about dynamic convolution: three ways to the same result, every gradient, the temperature, published sizes."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Core, Maker, Nchw, Unsupported
from opbench.registry import Registry

OPERATOR = Registry.discover().load("dynamic_convolution")

# Input channels, output channels, height and width, kernel, stride, groups; then how many such layers the network has,
# parameters of a layer without bias, and per image MMAC of the convolution, of the mixing and of the attention.
RESNET18 = [
    ((64, 64, 56, 3, 1, 1), 4, 148564, 115.61, 0.147, 0.202),
    ((64, 128, 56, 3, 2, 1), 1, 296020, 57.80, 0.295, 0.202),
    ((128, 128, 28, 3, 1, 1), 3, 594084, 115.61, 0.590, 0.105),
    ((64, 128, 56, 1, 2, 1), 1, 33876, 6.42, 0.033, 0.202),
    ((128, 256, 28, 3, 2, 1), 1, 1183908, 57.80, 1.180, 0.105),
    ((256, 256, 14, 3, 1, 1), 3, 2376004, 115.61, 2.359, 0.067),
    ((128, 256, 28, 1, 2, 1), 1, 135332, 6.42, 0.131, 0.105),
    ((256, 512, 14, 3, 2, 1), 1, 4735300, 57.80, 4.719, 0.067),
    ((512, 512, 7, 3, 1, 1), 3, 9503364, 115.61, 9.437, 0.091),
    ((256, 512, 14, 1, 2, 1), 1, 540996, 6.42, 0.524, 0.067),
]
MOBILENETV2 = [
    ((32, 32, 112, 3, 1, 32), 1, 1452, 3.61, 0.001, 0.402),
    ((32, 16, 112, 1, 1, 1), 1, 2348, 6.42, 0.002, 0.402),
    ((96, 96, 112, 3, 2, 96), 1, 5884, 2.71, 0.003, 1.207),
    ((144, 144, 56, 3, 1, 144), 1, 10552, 4.06, 0.005, 0.457),
    ((576, 576, 14, 3, 2, 576), 1, 104404, 0.25, 0.021, 0.196),
    ((320, 1280, 7, 1, 1, 1), 1, 1664404, 20.07, 1.638, 0.042),
]

VARIED = OPERATOR.params(out_channels=6, kernel_size=3, stride=2, padding=2, dilation=2, groups=2, bias=True, experts=3)
SHAPE = Nchw(3, 4, 7, 5)


@pytest.mark.parametrize("row", RESNET18 + MOBILENETV2, ids=str)
def test_size_and_work_of_published_layers(row: tuple[tuple[int, ...], int, int, float, float, float]) -> None:
    (channels, outputs, side, kernel, stride, groups), _, parameters, convolution, mixing, attention = row
    params = OPERATOR.params(out_channels=outputs, kernel_size=kernel, stride=stride, groups=groups)
    shape = Nchw(1, channels, side, side)
    with torch.device("meta"):
        assert sum(value.numel() for value in layer(channels, params).parameters()) == parameters
    filters = 4 * outputs * (channels // groups) * kernel**2
    core, whole = cost(params, shape).core.forward.dense, cost(params, shape).layer.forward.dense
    assert round(filters / 1e6, 3) == mixing
    assert round((core - filters) / 1e6, 2) == convolution
    # The tabled attention counts the additions of the average pooling too, which are no multiply-accumulates.
    assert round((whole - core + shape.numel) / 1e6, 3) == attention


def test_dynamic_resnet18_has_45_47_million_parameters_and_1_861_billion_macs() -> None:
    stem, norms, classifier = 64 * 3 * 7 * 7, 9600, 1000 * 512
    parameters, macs = stem + norms + classifier + 1000, stem * 112 * 112 + classifier
    for (channels, outputs, side, kernel, stride, _), layers, *_ in RESNET18:
        params = OPERATOR.params(out_channels=outputs, kernel_size=kernel, stride=stride)
        shape = Nchw(1, channels, side, side)
        parameters += layers * cost(params, shape).parameters
        # With the additions of the average poolings, as the figure is usually counted; without them it is 1.859.
        macs += layers * (cost(params, shape).layer.forward.dense + shape.numel)
    assert round(parameters / 1e6, 2) == 45.47
    assert round(macs / 1e9, 3) == 1.861


def test_macs_in_bounds_leave_out_the_border_but_mix_every_tap() -> None:
    params = OPERATOR.params(out_channels=8, bias=True)
    work = cost(params, Nchw(5, 4, 7, 6)).core
    # Each of the two border rows or columns misses one of its three taps.
    convolution, mixing = 8 * 4 * (3 * 7 - 2) * (3 * 6 - 2), 4 * (8 * 4 * 9 + 8)
    assert work.forward.in_bounds == 5 * (convolution + mixing)
    assert work.backward.in_bounds == 2 * work.forward.in_bounds


def test_ones_sum_to_the_macs_in_bounds_of_each_expert() -> None:
    params = OPERATOR.params(out_channels=6, stride=2, groups=2, experts=3)
    ones = [torch.ones_like(tensor) for tensor in tensors(params).values()]
    mixing = SHAPE.batch * 3 * 6 * 2 * 9
    convolution = cost(params, SHAPE).core.forward.in_bounds - mixing
    assert OPERATOR.reference(params, *ones).sum() == 3 * convolution


def test_three_evaluations_agree() -> None:
    x, weight, bias, attention = tensors(VARIED).values()
    how = {"stride": 2, "padding": 2, "dilation": 2}
    mixture = (attention[:, :, None] * weight.flatten(1)).sum(1).unflatten(1, weight.shape[1:])
    offset = attention @ bias
    image_by_image = torch.cat([F.conv2d(x[n : n + 1], mixture[n], offset[n], groups=2, **how) for n in range(len(x))])
    images_as_groups = F.conv2d(x.flatten(0, 1)[None], mixture.flatten(0, 1), offset.flatten(), groups=6, **how)
    expert_by_expert = sum(
        attention[:, k, None, None, None] * F.conv2d(x, weight[k], bias[k], groups=2, **how) for k in range(3)
    )
    y = OPERATOR.reference(VARIED, x, weight, bias, attention)
    torch.testing.assert_close(y, image_by_image)
    torch.testing.assert_close(y, images_as_groups[0].unflatten(0, (3, 6)))
    torch.testing.assert_close(y, expert_by_expert)


def test_a_loop_over_every_product_agrees() -> None:
    params = OPERATOR.params(out_channels=4, kernel_size=2, stride=2, padding=1, groups=2, experts=2, bias=True)
    x, weight, bias, attention = tensors(params, Nchw(2, 2, 3, 4)).values()
    y = OPERATOR.reference(params, x, weight, bias, attention)
    expected = torch.zeros(2, 4, 2, 3, dtype=torch.float64)
    for n, k, o, row, column in itertools.product(range(2), range(2), range(4), range(2), range(3)):
        expected[n, o, row, column] += attention[n, k] * bias[k, o]
        for a, b in itertools.product(range(2), range(2)):
            above, left = 2 * row - 1 + a, 2 * column - 1 + b
            if 0 <= above < 3 and 0 <= left < 4:
                # Two groups of one input and two output channels.
                expected[n, o, row, column] += attention[n, k] * weight[k, o, 0, a, b] * x[n, o // 2, above, left]
    torch.testing.assert_close(y, expected)


def test_gradients_are_those_of_the_formulas() -> None:
    x, weight, bias, attention = (tensor.requires_grad_() for tensor in tensors(VARIED).values())
    y = OPERATOR.reference(VARIED, x, weight, bias, attention)
    incoming = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    actual = torch.autograd.grad(y, (x, weight, bias, attention), incoming)

    seen = F.unfold(x.detach(), 3, dilation=2, padding=2, stride=2).unflatten(1, (2, -1))
    by_group = incoming.flatten(2).unflatten(1, (2, -1))
    of_mixture = torch.einsum("ngop,ngip->ngoi", by_group, seen).reshape(3, *weight.shape[1:])
    of_offset = incoming.sum((2, 3))
    mixture = torch.einsum("nk,koi->noi", attention, weight.flatten(2)).unflatten(1, (2, -1))
    of_seen = torch.einsum("ngoi,ngop->ngip", mixture, by_group).flatten(1, 2)
    expected = (
        F.fold(of_seen, SHAPE[2:], 3, dilation=2, padding=2, stride=2),
        torch.einsum("nk,nocab->kocab", attention, of_mixture),
        torch.einsum("nk,no->ko", attention, of_offset),
        torch.einsum("nocab,kocab->nk", of_mixture, weight) + of_offset @ bias.T,
    )
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_one_hot_attention_picks_an_expert_for_each_image() -> None:
    x, weight, bias, _ = tensors(VARIED).values()
    y = OPERATOR.reference(VARIED, x, weight, bias, torch.eye(3, dtype=torch.float64)[[2, 0, 2]])
    for image, expert in enumerate((2, 0, 2)):
        alone = F.conv2d(x[image], weight[expert], bias[expert], 2, 2, 2, 2)
        torch.testing.assert_close(y[image], alone)


def test_equal_experts_make_attention_irrelevant() -> None:
    x, weight, bias, attention = tensors(VARIED).values()
    same = (weight[:1].expand_as(weight), bias[:1].expand_as(bias))
    torch.testing.assert_close(
        OPERATOR.reference(VARIED, x, *same, attention), F.conv2d(x, weight[0], bias[0], 2, 2, 2, 2)
    )


def test_an_image_does_not_see_its_batch() -> None:
    torch.manual_seed(0)
    module = layer(SHAPE.channels, VARIED).double()
    x = torch.randn(SHAPE, dtype=torch.float64)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


def test_attention_is_a_softmax_of_two_linear_maps_at_the_temperature() -> None:
    torch.manual_seed(0)
    module = layer(8, OPERATOR.params(temperature=5.0), show_attention).double()
    first, last = module.attend[0], module.attend[2]
    assert (first.weight.shape, last.weight.shape) == ((2, 8), (4, 2))
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    hidden = (x.flatten(2).mean(2) @ first.weight.T + first.bias).clamp(min=0)
    exponentials = ((hidden @ last.weight.T + last.bias) / 5).exp()
    attention = exponentials / exponentials.sum(1, keepdim=True)
    y = module(x)[:, :, 0, 0]
    torch.testing.assert_close(y, attention)

    incoming = torch.randn(3, 4, dtype=torch.float64)
    y.backward(incoming)
    of_logits = attention * (incoming - (attention * incoming).sum(1, keepdim=True)) / 5
    torch.testing.assert_close(last.bias.grad, of_logits.sum(0))


@pytest.mark.parametrize(("channels", "hidden"), [(3, 1), (4, 1), (7, 1), (64, 16)])
def test_attention_is_a_quarter_as_wide_as_the_input_but_never_empty(channels: int, hidden: int) -> None:
    module = layer(channels, OPERATOR.params(kernel_size=1))
    assert module.attend[0].out_features == hidden
    attention = (channels + 1) * hidden + (hidden + 1) * 4
    assert cost(OPERATOR.params(kernel_size=1), Nchw(1, channels, 4, 4)).parameters == 4 * channels**2 + attention


def test_temperature_falls_on_a_line_from_30_to_1() -> None:
    module = layer(4, OPERATOR.params())
    seen = [module.temperature.item()]
    for epoch in (0, 5, 9, 10, 200):
        module.anneal(epoch / 10)
        seen.append(module.temperature.item())
    assert seen == pytest.approx([30, 30, 15.5, 3.9, 1, 1])
    with pytest.raises(ValueError, match=r"progress must be a number ≥ 0, got -0\.1"):
        module.anneal(-0.1)


def test_a_checkpoint_keeps_the_temperature() -> None:
    torch.manual_seed(0)
    params, x = OPERATOR.params(), torch.randn(2, 4, 5, 5)
    trained, fresh = layer(4, params), layer(4, params)
    # Experts that differ and logits that are far apart, or the temperature would hardly matter.
    torch.nn.init.normal_(trained.attend[2].bias, std=10)
    hot = trained(x)
    trained.anneal(1)
    fresh.load_state_dict(trained.state_dict())
    assert fresh.temperature.item() == 1
    assert torch.equal(fresh(x), trained(x))
    assert not torch.allclose(trained(x), hot, rtol=0.01)


def test_native_says_that_it_needs_an_image() -> None:
    params = OPERATOR.params()
    nothing = tensors(params, Nchw(0, 4, 5, 5))
    assert OPERATOR.reference(params, *nothing.values()).shape == (0, 4, 5, 5)
    with pytest.raises(Unsupported, match="at least one image"):
        OPERATOR.implementations["native"](params, *nothing.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"experts": 0}, "experts must be integer ≥ 1, got 0"),
        ({"temperature": 0.5}, "temperature must be number ≥ 1, got 0.5"),
        ({"kernel_size": 0}, "kernel_size must be integer ≥ 1, got 0"),
        ({"padding": "same"}, "padding must be integer ≥ 0 or 'half', got 'same'"),
        ({"bias": 1}, "bias must be true or false, got 1"),
    ],
    ids=str,
)
def test_illegal_params_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        OPERATOR.params(**values)
    assert str(refusal.value) == message


@pytest.mark.parametrize(("channels", "outputs"), [(6, 8), (8, 6)])
def test_groups_must_divide_input_and_output_channels(channels: int, outputs: int) -> None:
    params = OPERATOR.params(out_channels=outputs, groups=4)
    with pytest.raises(Unsupported, match=f"4 groups do not divide {channels} input and {outputs} output channels"):
        layer(channels, params)


def layer(channels: int, params: Any, core: Core = OPERATOR.reference) -> Any:
    assert OPERATOR.layer is not None
    return OPERATOR.layer(channels, params, core)


def cost(params: Any, shape: Nchw) -> Any:
    assert OPERATOR.cost is not None
    return OPERATOR.cost(params, shape)


def tensors(params: Any, shape: Nchw = SHAPE) -> dict[str, Tensor]:
    return dict(OPERATOR.inputs(params, shape, Maker(torch.float64, generator=torch.Generator().manual_seed(1))))


def show_attention(_: Any, *inputs: Tensor) -> Tensor:
    """A core that shows what it is given."""
    return inputs[-1][:, :, None, None]
