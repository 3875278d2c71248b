"""Facts about DRConv: which filter a pixel gets, its three gradients, both generators, published sizes."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from opbench.api import Core, Maker, Nchw, Unsupported
from opbench.registry import Registry

OPERATOR = Registry.discover().load("drconv")

# Input channels, output channels, side of the image; then how many such layers the network has, parameters of the
# 'basis' layer without its guide and of the 'paper' layer, and per image MMAC of the aggregation and of generating
# the filters, 'basis' and 'paper'. All 1x1, with 8 regions.
SHUFFLENETV2_HALF = [
    ((24, 24, 56), 1, 6208, 43272, 1.81, 0.04, 0.04),
    ((24, 24, 28), 7, 6208, 43272, 0.45, 0.04, 0.04),
    ((48, 48, 28), 1, 21568, 169416, 1.81, 0.15, 0.15),
    ((48, 48, 14), 15, 21568, 169416, 0.45, 0.15, 0.15),
    ((96, 96, 14), 1, 79936, 670536, 1.81, 0.60, 0.60),
    ((96, 96, 7), 7, 79936, 670536, 0.45, 0.60, 0.60),
]
OTHERS = [
    ((58, 92, 28), 1, 46464, 388440, 4.18, 0.35, 0.35),
    ((232, 232, 7), 7, 445504, 3892104, 2.64, 3.46, 3.46),
    ((32, 64, 112), 1, 18496, 149832, 25.69, 0.13, 0.13),
    ((1024, 1024, 7), 1, 8454208, 75571272, 51.38, 67.17, 67.17),
]

VARIED = OPERATOR.params(out_channels=6, kernel_size=3, stride=2, padding=2, dilation=2, groups=2, regions=3)
HOW: dict[str, Any] = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
SHAPE = Nchw(2, 4, 7, 5)


@pytest.mark.parametrize("row", SHUFFLENETV2_HALF + OTHERS, ids=str)
def test_size_and_work_of_published_layers(row: tuple[tuple[int, ...], int, int, int, float, float, float]) -> None:
    (channels, outputs, side), _, basis_parameters, paper_parameters, aggregation, by_basis, by_paper = row
    shape, guide = Nchw(1, channels, side, side), 8 * channels
    for generator, parameters, generation in (
        ("basis", basis_parameters + guide, by_basis),
        ("paper", paper_parameters, by_paper),
    ):
        params = OPERATOR.params(out_channels=outputs, kernel_size=1, generator=generator)
        with torch.device("meta"):
            assert sum(value.numel() for value in layer(channels, params).parameters()) == parameters
        core, whole = cost(params, shape).core.forward.dense, cost(params, shape).layer.forward.dense
        assert round(core / 1e6, 2) == aggregation
        assert round((whole - core - guide * side**2) / 1e6, 2) == generation


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "parameters"),
    [(16, 32, 3, 39_112), (24, 24, 1, 43_272), (256, 512, 3, 9_472_072), (128, 128, 3, 1_197_128)],
)
def test_parameters_of_the_paper_layer(channels: int, outputs: int, kernel: int, parameters: int) -> None:
    params = OPERATOR.params(out_channels=outputs, kernel_size=kernel)
    assert cost(params, Nchw(1, channels, 28, 28)).parameters == parameters


def test_parameters_of_the_basis_layer_with_its_guide_and_bias() -> None:
    params = OPERATOR.params(out_channels=32, generator="basis", bias=True)
    assert cost(params, Nchw(1, 16, 28, 28)).parameters == 37_984 + 8 * 16


def test_work_in_shufflenetv2_half() -> None:
    aggregation = generation = 0
    for (channels, outputs, side), layers, *_ in SHUFFLENETV2_HALF:
        params = OPERATOR.params(out_channels=outputs, kernel_size=1, generator="basis")
        one = cost(params, Nchw(1, channels, side, side))
        guide_and_routing = 8 * channels * side**2 + channels * 8 * 8
        aggregation += layers * one.core.forward.dense
        generation += layers * (one.layer.forward.dense - one.core.forward.dense - guide_and_routing)
    assert (round(aggregation / 1e6, 1), round(generation / 1e6, 1)) == (18.5, 7.4)


def test_macs_in_bounds_leave_out_the_border_and_the_guide_costs_one_forward_per_region() -> None:
    work = cost(OPERATOR.params(out_channels=8, regions=5), Nchw(3, 4, 7, 6)).core
    # Each of the two border rows or columns misses one of its three taps.
    assert work.forward.in_bounds == 3 * 8 * 4 * (3 * 7 - 2) * (3 * 6 - 2)
    assert work.backward.in_bounds == (1 + 1 + 5) * work.forward.in_bounds
    assert work.backward.dense == (1 + 1 + 5) * work.forward.dense


def test_ones_sum_to_the_macs_in_bounds_whatever_the_guide() -> None:
    x, filters, guide = tensors(VARIED).values()
    y = OPERATOR.reference(VARIED, torch.ones_like(x), torch.ones_like(filters), guide)
    assert y.sum() == cost(VARIED, SHAPE).core.forward.in_bounds


def test_each_pixel_shows_the_convolution_of_its_region() -> None:
    x, filters, guide = tensors(VARIED).values()
    region = guide.argmax(1)
    assert set(region.flatten().tolist()) == {0, 1, 2}
    expected = responses(x, filters, **HOW).gather(1, region[:, None, None].expand(-1, 1, 6, -1, -1)).squeeze(1)
    torch.testing.assert_close(OPERATOR.reference(VARIED, x, filters, guide), expected)


def test_a_loop_over_every_product_agrees() -> None:
    params = OPERATOR.params(out_channels=4, kernel_size=2, stride=2, padding=1, groups=2, regions=3)
    x, filters, guide = tensors(params, Nchw(2, 2, 3, 4)).values()
    expected = torch.zeros(2, 4, 2, 3, dtype=torch.float64)
    for n, o, row, column in itertools.product(range(2), range(4), range(2), range(3)):
        ranks = guide[n, :, row, column].tolist()
        chosen = filters[n, ranks.index(max(ranks)), o]
        for a, b in itertools.product(range(2), range(2)):
            above, left = 2 * row - 1 + a, 2 * column - 1 + b
            if 0 <= above < 3 and 0 <= left < 4:
                # Two groups of one input and two output channels.
                expected[n, o, row, column] += chosen[0, a, b] * x[n, o // 2, above, left]
    torch.testing.assert_close(OPERATOR.reference(params, x, filters, guide), expected)


def test_gradients_are_those_of_the_formulas() -> None:
    x, filters, guide = (tensor.requires_grad_() for tensor in tensors(VARIED).values())
    y = OPERATOR.reference(VARIED, x, filters, guide)
    incoming = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    actual = torch.autograd.grad(y, (x, filters, guide), incoming)

    # Each region is an ordinary convolution whose incoming gradient is zero outside the region.
    of_x, of_filters = torch.zeros_like(x), torch.zeros_like(filters)
    region = guide.argmax(1, keepdim=True)
    for n, j in itertools.product(range(2), range(3)):
        inside = torch.where(region[n] == j, incoming[n], 0)[None]
        image, own = x[n : n + 1].detach(), filters[n, j].detach()
        of_x[n] += conv2d_input(image.shape, own, inside, **HOW)[0]
        of_filters[n, j] = conv2d_weight(image, own.shape, inside, **HOW)
    of_share = (incoming[:, None] * responses(x, filters, **HOW)).sum(2)
    share = guide.exp() / guide.exp().sum(1, keepdim=True)
    of_guide = share * (of_share - (share * of_share).sum(1, keepdim=True))
    for got, wanted in zip(actual, (of_x, of_filters, of_guide), strict=True):
        torch.testing.assert_close(got, wanted)


def test_regions_without_pixels_train_their_guide_but_not_their_filters() -> None:
    x, filters, guide = (tensor.requires_grad_() for tensor in tensors(VARIED).values())
    with torch.no_grad():
        guide[:, 1] -= 100
        guide[:, 2] -= 5
    y = OPERATOR.reference(VARIED, x, filters, guide)
    of_filters, of_guide = torch.autograd.grad(y.square().sum(), (filters, guide))
    assert of_filters[:, 1:].count_nonzero() == 0
    assert of_filters[:, 0].count_nonzero() == of_filters[:, 0].numel()
    assert of_guide[:, 2].abs().max() > 1e-4


def test_equal_filters_are_a_convolution_that_leaves_the_guide_nothing_to_learn() -> None:
    x, filters, guide = tensors(VARIED).values()
    same = filters[:1, :1].expand_as(filters)
    guide.requires_grad_()
    y = OPERATOR.reference(VARIED, x, same, guide)
    torch.testing.assert_close(y, F.conv2d(x, filters[0, 0], **HOW))
    (of_guide,) = torch.autograd.grad(y.square().sum(), guide)
    torch.testing.assert_close(of_guide, torch.zeros_like(guide))


def test_of_equal_maxima_the_first_region_wins() -> None:
    params = OPERATOR.params(kernel_size=1, regions=4)
    x, filters = torch.ones(1, 1, 1, 3), torch.tensor([10.0, 20, 30, 40]).reshape(1, 4, 1, 1, 1, 1)
    guide = torch.tensor([[0.0, 1, 2], [0, 2, 2], [0, 2, 3], [0, 2, 3]])[None, :, None]
    assert OPERATOR.reference(params, x, filters, guide).flatten().tolist() == [10, 20, 30]


def test_regions_are_counted_in_integers() -> None:
    """bfloat16 holds 256 and 258, but not 257."""
    params = OPERATOR.params(kernel_size=1, regions=300)
    filters, guide = torch.zeros(2, 1, 300, 1, 1, 1, 1, dtype=torch.bfloat16)
    filters[:, 257] = guide[:, 257] = 1
    x = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    assert torch.equal(OPERATOR.reference(params, x, filters, guide[..., 0, 0].expand(1, 300, 2, 2)), x)


@pytest.mark.parametrize("generator", ["paper", "basis"])
def test_the_guide_learns_in_eval_mode_too(generator: str) -> None:
    torch.manual_seed(0)
    module = layer(4, OPERATOR.params(generator=generator)).eval()
    module(torch.randn(2, 4, 6, 5)).square().sum().backward()
    assert all(value.grad.abs().max() > 0 for value in module.guide.parameters())


def test_an_image_does_not_see_its_batch() -> None:
    torch.manual_seed(0)
    for generator in ("paper", "basis"):
        module = layer(4, OPERATOR.params(generator=generator, stride=2)).double()
        x = torch.randn(3, 4, 7, 5, dtype=torch.float64)
        torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


def test_paper_layer_is_pooling_and_three_convolutions_around_the_choice() -> None:
    torch.manual_seed(0)
    params = OPERATOR.params(out_channels=6, stride=2, groups=2, regions=3, bias=True)
    module = layer(4, params).double()
    nn.init.normal_(module.bias)
    x = torch.randn(SHAPE, dtype=torch.float64)
    # Seven rows in three bins overlap: 0-2, 2-4, 4-6; five columns: 0-1, 1-3, 3-4.
    rows, columns = ((0, 3), (2, 5), (4, 7)), ((0, 2), (1, 4), (3, 5))
    pooled = torch.stack([x[..., top:end, left:right].mean((2, 3)) for top, end in rows for left, right in columns], 2)
    squeeze, expand = module.generate.squeeze, module.generate.expand
    hidden = (squeeze.weight[..., 0, 0] @ pooled + squeeze.bias[:, None]).sigmoid()
    # Region j reads three of the nine hidden channels and makes twelve filter planes, six outputs of two inputs.
    per_region = [
        expand.weight[12 * j : 12 * (j + 1), :, 0, 0] @ hidden[:, 3 * j : 3 * (j + 1)]
        + expand.bias[12 * j : 12 * (j + 1), None]
        for j in range(3)
    ]
    filters = torch.stack(per_region, 1).reshape(2, 3, 6, 2, 3, 3)
    region = F.conv2d(x, module.guide.weight, module.guide.bias, 2, 1).argmax(1)
    everywhere = responses(x, filters, stride=2, padding=1, groups=2)
    chosen = everywhere.gather(1, region[:, None, None].expand(-1, 1, 6, -1, -1)).squeeze(1)
    torch.testing.assert_close(module(x), chosen + module.bias[:, None, None])


def test_basis_layer_starts_as_a_convolution_with_the_mean_of_its_bases() -> None:
    torch.manual_seed(0)
    params = OPERATOR.params(out_channels=6, groups=2, stride=2, generator="basis", bases=5)
    module = layer(4, params).double()
    nn.init.zeros_(module.generate.route.weight)
    x = torch.randn(SHAPE, dtype=torch.float64)
    torch.testing.assert_close(module(x), F.conv2d(x, module.generate.bases.mean(0), None, 2, 1, groups=2))


def test_basis_coefficients_are_twice_a_sigmoid_shared_among_the_bases() -> None:
    torch.manual_seed(0)
    module = layer(4, OPERATOR.params(generator="basis", regions=3, bases=5)).double()
    x = torch.randn(SHAPE, dtype=torch.float64)
    route, bases = module.generate.route, module.generate.bases
    routed = (x.flatten(2).mean(2) @ route.weight.T + route.bias).reshape(2, 3, 5)
    coefficients = 2 / (1 + (-routed).exp()) / 5
    expected = (coefficients[..., None] * bases.flatten(1)).sum(2).reshape(2, 3, 4, 4, 3, 3)
    torch.testing.assert_close(module.generate(x), expected)


def test_basis_guide_takes_the_nearest_pixel() -> None:
    module = layer(1, OPERATOR.params(generator="basis", regions=2, stride=2))
    nn.init.ones_(module.guide.rank.weight)
    x = (10 * torch.arange(9.0)[:, None] + torch.arange(6.0))[None, None]
    # Nine rows to five and six columns to three, each rounded down: 9/5 of 0, 1, 2, 3, 4 and 6/3 of 0, 1, 2.
    expected = 10 * torch.tensor([0.0, 1, 3, 5, 7])[:, None] + torch.tensor([0.0, 2, 4])
    assert torch.equal(module.guide(x), expected.expand(1, 2, 5, 3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regions": 0}, "regions must be integer ≥ 1, got 0"),
        ({"bases": 0}, "bases must be integer ≥ 1, got 0"),
        ({"generator": "papers"}, "generator must be 'paper' or 'basis', got 'papers'; did you mean 'paper'?"),
        ({"kernel_size": (3, 3)}, "kernel_size must be integer ≥ 1, got (3, 3)"),
        ({"padding": -1}, "padding must be integer ≥ 0 or 'half', got -1"),
    ],
    ids=str,
)
def test_illegal_params_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        OPERATOR.params(**values)
    assert str(refusal.value) == message


@pytest.mark.parametrize("generator", ["paper", "basis"])
@pytest.mark.parametrize(("channels", "outputs"), [(6, 8), (8, 6)])
def test_groups_must_divide_input_and_output_channels(generator: str, channels: int, outputs: int) -> None:
    params = OPERATOR.params(out_channels=outputs, groups=4, generator=generator)
    with pytest.raises(Unsupported, match=f"4 groups do not divide {channels} input and {outputs} output channels"):
        layer(channels, params)


def responses(x: Tensor, filters: Tensor, **how: Any) -> Tensor:
    """[N, C, H, W], [N, m, O, C/g, k, k] -> [N, m, O, Ho, Wo]: every region's convolution of every pixel."""
    return torch.stack([torch.stack([F.conv2d(x[n], own, **how) for own in filters[n]]) for n in range(len(x))])


def layer(channels: int, params: Any, core: Core = OPERATOR.reference) -> Any:
    assert OPERATOR.layer is not None
    return OPERATOR.layer(channels, params, core)


def cost(params: Any, shape: Nchw) -> Any:
    assert OPERATOR.cost is not None
    return OPERATOR.cost(params, shape)


def tensors(params: Any, shape: Nchw = SHAPE) -> dict[str, Tensor]:
    return dict(OPERATOR.inputs(params, shape, Maker(torch.float64, generator=torch.Generator().manual_seed(1))))
