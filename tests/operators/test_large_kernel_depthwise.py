"""Facts about the large-kernel depthwise convolution: counts, gradients, and merging the trained kernels into one."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.api import Maker, Nchw
from opbench.params import build
from opbench.registry import Registry

OPERATOR = Registry.discover().load("large_kernel_depthwise")

DEPTHWISE_BRANCHES = {
    5: [(3, 1), (3, 2)],
    7: [(5, 1), (3, 2), (3, 3)],
    9: [(5, 1), (5, 2), (3, 3), (3, 4)],
    11: [(5, 1), (5, 2), (3, 3), (3, 4), (3, 5)],
    13: [(5, 1), (7, 2), (3, 3), (3, 4), (3, 5)],
    15: [(5, 1), (7, 2), (3, 3), (3, 5), (3, 7)],
    17: [(5, 1), (9, 2), (3, 4), (3, 5), (3, 7)],
}

# Shape of one image, kernel, parameters of the merged layer, MMACs dense and in bounds as printed to two digits.
TABLE = [
    ("RepLKNet-31B stage 1", (128, 56, 56), 31, 123136, 385.75, 286.47),
    ("RepLKNet-31B stage 2", (256, 28, 28), 29, 215552, 168.79, 92.78),
    ("RepLKNet-31B stage 3", (512, 14, 14), 27, 373760, 73.16, 19.67),
    ("RepLKNet-31B stage 4", (1024, 7, 7), 13, 174080, 8.48, 2.46),
    ("UniRepLKNet-S stage 1", (96, 56, 56), 3, 960, 2.71, 2.65),
    ("UniRepLKNet-S stage 2", (192, 28, 28), 13, 32640, 25.44, 19.91),
    ("UniRepLKNet-S stage 3", (384, 14, 14), 13, 65280, 12.72, 7.53),
    ("UniRepLKNet-S stage 3, small", (384, 14, 14), 3, 3840, 0.68, 0.61),
    ("UniRepLKNet-S stage 4", (768, 7, 7), 13, 130560, 6.36, 1.84),
    ("ConvNeXt-T stage 1", (96, 56, 56), 7, 4800, 14.75, 13.86),
    ("ConvNeXt-T stage 2", (192, 28, 28), 7, 9600, 7.38, 6.50),
    ("ConvNeXt-T stage 3", (384, 14, 14), 7, 19200, 3.69, 2.84),
    ("ConvNeXt-T stage 4", (768, 7, 7), 7, 38400, 1.84, 1.05),
    ("51 taps on 56 pixels", (96, 56, 56), 51, 249792, 783.05, 467.18),
    ("51 taps on 14 pixels", (384, 14, 14), 51, 999168, 195.76, 14.75),
]

MERGED = [
    {"kernel_size": 31, "branches": "replknet"},
    {"kernel_size": 13, "branches": "replknet", "stride": 2},
    {"kernel_size": 5, "branches": "replknet"},
    {"kernel_size": 3, "branches": "replknet", "small_kernel": 1},
    {"kernel_size": 9, "branches": "replknet", "small_kernel": None},
    *({"kernel_size": size, "branches": "unireplknet"} for size in DEPTHWISE_BRANCHES),
    {"kernel_size": 11, "branches": "unireplknet", "stride": 2},
]


def params(**values: Any) -> Any:
    return build(OPERATOR.params, values)


def layer(channels: int, p: Any, core: Any = OPERATOR.reference) -> Any:
    assert OPERATOR.layer is not None
    torch.manual_seed(0)
    return OPERATOR.layer(channels, p, core)


def cost(p: Any, *shape: int) -> Any:
    assert OPERATOR.cost is not None
    return OPERATOR.cost(p, Nchw(*shape))


def tensors(p: Any, *shape: int) -> dict[str, Tensor]:
    make = Maker(torch.float64, generator=torch.Generator().manual_seed(0))
    return dict(OPERATOR.inputs(p, Nchw(*shape), make))


def trained(p: Any, channels: int = 3) -> Any:
    """A layer in float64 and evaluation mode whose batch norms are anything but the identity."""
    module = layer(channels, p).double()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, -2, 2)
            nn.init.normal_(norm.bias)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.1, 3)
    return module.eval()


@pytest.mark.parametrize(
    ("shape", "kernel_size", "parameters", "dense", "in_bounds"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_published_layers_cost_what_is_printed(
    shape: tuple[int, int, int], kernel_size: int, parameters: int, dense: float, in_bounds: float
) -> None:
    p = params(kernel_size=kernel_size)
    forward = cost(p, 1, *shape).core.forward
    assert cost(p, 1, *shape).parameters == parameters
    assert round(forward.dense / 1e6, 2) == dense
    assert round(forward.in_bounds / 1e6, 2) == in_bounds
    assert cost(p, 32, *shape).core.forward == 32 * forward


def test_a_27_tap_kernel_sees_the_image_with_27_percent_of_its_taps() -> None:
    forward = cost(params(kernel_size=27), 1, 1, 14, 14).core.forward
    assert round(100 * forward.in_bounds / forward.dense) == 27


def test_branches_add_their_kernels_and_their_norms() -> None:
    """RepLKNet: C·(31² + 5²) and two norms of 2·C; UniRepLKNet at 13: C·(13² + 5² + 7² + 3·3²) and six norms."""
    for channels in (4, 128):
        wide = cost(params(kernel_size=31, branches="replknet"), 1, channels, 8, 8)
        assert wide.parameters == channels * (961 + 25 + 4)
        assert wide.layer.forward.dense == channels * 64 * (961 + 25)
        dilated = cost(params(kernel_size=13, branches="unireplknet"), 1, channels, 8, 8)
        assert dilated.parameters == channels * (169 + 25 + 49 + 27 + 12)
        assert dilated.layer.forward.dense == channels * 64 * (169 + 25 + 49 + 27)
        assert dilated.core.forward.dense == channels * 64 * 169


def test_replknet_is_lighter_when_merged_by_what_the_published_totals_say() -> None:
    """31B has 79.864 M parameters in training and 79.527 M merged: 5x5 kernels and two norms less a bias."""
    stages = [(2, 128, 31), (2, 256, 29), (18, 512, 27), (2, 1024, 13)]
    saved = sum(
        depth
        * (
            cost(params(kernel_size=k, branches="replknet"), 1, width, 7, 7).parameters
            - cost(params(kernel_size=k), 1, width, 7, 7).parameters
        )
        for depth, width, k in stages
    )
    assert saved == sum(depth * width * (25 + 4 - 1) for depth, width, _ in stages) == 336896
    assert round((79.864 - 79.527) * 1000) == round(saved / 1000)


@pytest.mark.parametrize("p", [params(kernel_size=5), params(kernel_size=3, stride=2, dilation=2)], ids=str)
def test_with_ones_everywhere_the_outputs_count_the_taps_in_bounds(p: Any) -> None:
    x, weight, bias = (torch.ones_like(tensor) for tensor in tensors(p, 2, 3, 7, 6).values())
    output = OPERATOR.reference(p, x, weight, 0 * bias)
    assert int(output.sum()) == cost(p, 2, 3, 7, 6).core.forward.in_bounds


def test_reference_is_the_definition_written_as_loops() -> None:
    p = params(kernel_size=3, stride=2, dilation=2)
    x, weight, bias = tensors(p, 1, 2, 5, 4).values()
    expected = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    for c, y, column in itertools.product(range(2), range(3), range(2)):
        expected[0, c, y, column] = bias[c]
        for a, b in itertools.product(range(3), range(3)):
            u, v = 2 * y - 2 + 2 * a, 2 * column - 2 + 2 * b
            if 0 <= u < 5 and 0 <= v < 4:
                expected[0, c, y, column] += weight[c, 0, a, b] * x[0, c, u, v]
    torch.testing.assert_close(OPERATOR.reference(p, x, weight, bias), expected)


@pytest.mark.parametrize("p", [params(kernel_size=5), params(kernel_size=3, stride=2, dilation=2)], ids=str)
def test_gradients_are_the_published_formulas(p: Any) -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in tensors(p, 2, 3, 7, 6).values())
    output = OPERATOR.reference(p, x, weight, bias)
    go = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gx, gw = torch.zeros_like(x), torch.zeros_like(weight)
    for y, column, a, b in itertools.product(*map(range, (*output.shape[2:], *weight.shape[2:]))):
        u = y * p.stride + (a - p.kernel_size // 2) * p.dilation
        v = column * p.stride + (b - p.kernel_size // 2) * p.dilation
        if 0 <= u < 7 and 0 <= v < 6:
            gx[:, :, u, v] += weight[:, 0, a, b] * go[:, :, y, column]
            gw[:, 0, a, b] += (x[:, :, u, v] * go[:, :, y, column]).sum(0)
    gradients = torch.autograd.grad(output, (x, weight, bias), go)
    for actual, expected in zip(gradients, (gx, gw, go.sum((0, 2, 3))), strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_kernel_with_one_tap_in_the_middle_is_the_identity() -> None:
    p = params(kernel_size=31, bias=False)
    x, weight = tensors(p, 1, 2, 5, 4).values()
    weight = torch.zeros_like(weight)
    weight[:, 0, 15, 15] = 1
    assert torch.equal(OPERATOR.reference(p, x, weight), x)


def test_the_last_tap_of_31_reads_the_pixel_15_below_and_to_the_right() -> None:
    p = params(kernel_size=31, bias=False)
    x, weight = tensors(p, 1, 2, 18, 17).values()
    weight = torch.zeros_like(weight)
    weight[:, 0, 30, 30] = 1
    expected = F.pad(x[:, :, 15:, 15:], (0, 15, 0, 15))
    assert torch.equal(OPERATOR.reference(p, x, weight), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_thousands_of_terms_are_summed_wider_than_16_bits(dtype: torch.dtype) -> None:
    """51² ones add up to 2601; a total of 16 bits would stop growing at 2048, or at 256."""
    p = params(kernel_size=51, bias=False)
    output = OPERATOR.reference(p, torch.ones(1, 1, 51, 51, dtype=dtype), torch.ones(1, 1, 51, 51, dtype=dtype))
    assert output[0, 0, 25, 25] == torch.tensor(2601).to(dtype)


def test_unireplknet_puts_its_published_kernels_beside_the_large_one() -> None:
    for size, branches in DEPTHWISE_BRANCHES.items():
        windows = params(kernel_size=size, branches="unireplknet").branch_windows
        assert [(window.kernel, window.dilation) for window in windows] == branches
        assert all(window.span <= size for window in windows)


def test_the_trained_layer_is_the_sum_of_batch_normed_convolutions() -> None:
    p = params(kernel_size=9, branches="unireplknet")
    module = layer(3, p).double()
    x = torch.randn(2, 3, 8, 11, dtype=torch.float64)
    expected = torch.zeros_like(x)
    sides = [(module.weight, 1), *zip((b.convolution.weight for b in module.branches), (1, 2, 3, 4), strict=True)]
    assert [weight.shape[2] for weight, _ in sides] == [9, 5, 5, 3, 3]
    for weight, dilation in sides:
        y = F.conv2d(x, weight, padding=dilation * (weight.shape[2] - 1) // 2, dilation=dilation, groups=3)
        expected += (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("values", MERGED, ids=str)
def test_merging_keeps_what_the_layer_computes(values: dict[str, Any]) -> None:
    p = params(**values)
    module = trained(p)
    merged = module.merge()
    x = torch.randn(2, 3, 10, 7, dtype=torch.float64)
    torch.testing.assert_close(merged(x), module(x), rtol=1e-12, atol=1e-12)
    assert merged.params == replace(p, branches="none")
    assert sum(value.numel() for value in merged.parameters()) == cost(merged.params, 1, 3, 10, 7).parameters
    # The norms are far from the identity, so that the kernel alone would not do.
    assert (merged.weight - module.weight).abs().max() > 0.1
    assert merged.bias.abs().min() > 1e-3


def test_merging_leaves_the_trained_layer_alone_and_trains_on() -> None:
    module = trained(params(kernel_size=7, branches="replknet"))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    merged = module.merge()
    assert merged.core is module.core
    merged(torch.randn(1, 3, 5, 5, dtype=torch.float64)).sum().backward()
    assert all(value.grad is not None for value in merged.parameters())
    nn.init.zeros_(merged.weight)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("bias", [True, False])
def test_merging_a_layer_without_branches_copies_it(bias: bool) -> None:
    module = layer(3, params(kernel_size=5, dilation=2, stride=2, bias=bias))
    merged = module.merge()
    x = torch.randn(1, 3, 6, 5)
    assert merged is not module
    assert torch.equal(merged(x), module(x))
    nn.init.zeros_(merged.weight)
    assert not torch.equal(merged(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("values", [MERGED[2], MERGED[7]], ids=str)
def test_merging_rounds_once_in_every_dtype(values: dict[str, Any], dtype: torch.dtype) -> None:
    module = trained(params(**values)).to(dtype)
    merged = module.merge()
    assert {value.dtype for value in merged.state_dict().values()} == {dtype}
    # The same layer in float64: exact values of the rounded parameters, so one rounding is all that may differ.
    exact = module.double().merge()
    for actual, expected in zip(merged.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_merging_works_on_the_meta_device() -> None:
    with torch.device("meta"):
        merged = layer(3, params(kernel_size=7, branches="replknet")).merge()
    assert merged.weight.is_meta
    assert merged.bias.is_meta


def test_only_the_large_kernel_goes_through_the_core() -> None:
    seen = []

    def core(p: Any, *inputs: Tensor) -> Tensor:
        seen.append([tuple(tensor.shape) for tensor in inputs])
        return OPERATOR.reference(p, *inputs)

    layer(4, params(kernel_size=13, branches="unireplknet"), core)(torch.randn(2, 4, 6, 5))
    layer(4, params(kernel_size=13), core)(torch.randn(2, 4, 6, 5))
    large = [(2, 4, 6, 5), (4, 1, 13, 13)]
    assert seen == [large, [*large, (4,)]]


def test_both_passes_at_31_taps_on_the_first_stage_of_replknet() -> None:
    """RepLKNet's own size, at fewer channels."""
    p = params(kernel_size=31)
    leaves = [tensor.requires_grad_() for tensor in tensors(p, 1, 4, 56, 56).values()]
    ours, native = OPERATOR.reference(p, *leaves), OPERATOR.implementations["native"](p, *leaves)
    torch.testing.assert_close(ours, native)
    grad = functools.partial(torch.autograd.grad, inputs=leaves, grad_outputs=torch.ones_like(ours))
    torch.testing.assert_close(grad(ours), grad(native))


def test_the_backward_keeps_the_padded_input_and_the_kernel_only() -> None:
    """All 961 windows would be a thousand times the input."""
    p = params(kernel_size=31)
    leaves = [tensor.requires_grad_() for tensor in tensors(p, 1, 4, 20, 20).values()]
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        OPERATOR.reference(p, *leaves)
    assert sorted(kept.values()) == [8 * 4 * 31**2, 8 * 4 * (20 + 30) ** 2]


def test_every_form_exists_at_the_default_size() -> None:
    assert [params(branches=form).kernel_size for form in ("none", "replknet", "unireplknet")] == [13, 13, 13]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd integer ≥ 1, got 4"),
        ({"small_kernel": 2}, "small_kernel must be odd integer ≥ 1 or none, got 2"),
        ({"branches": "replk"}, "did you mean 'replknet'?"),
        ({"branches": "replknet", "dilation": 2}, "exist for dilation 1 only, got dilation 2"),
        ({"branches": "replknet", "bias": False}, "bias must be true"),
        ({"branches": "replknet", "kernel_size": 3}, "small_kernel must not exceed kernel_size 3, got 5"),
        ({"branches": "unireplknet", "kernel_size": 3}, "exist for kernel_size 5, 7, 9, 11, 13, 15, 17, got 3"),
        ({"branches": "unireplknet", "kernel_size": 31}, "exist for kernel_size 5, 7, 9, 11, 13, 15, 17, got 31"),
    ],
    ids=str,
)
def test_illegal_parameters_are_refused_with_what_is_legal(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        params(**values)
    assert message in str(refusal.value)
