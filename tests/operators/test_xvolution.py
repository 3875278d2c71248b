"""X-volution: the paper's merge identity, known values, gradients as formulas, counts."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Maker, Nchw, Unsupported
from opbench.registry import Registry

XVOLUTION = Registry.discover().load("xvolution")
Params = XVOLUTION.params

# Slots of ResNets: channels, extent, k, parameters, MMAC of projections, attention and convolution.
SLOTS = [
    (256, 14, 3, 787712, "38.54", "0.90", "115.61"),
    (256, 28, 3, 787712, "154.14", "3.61", "462.42"),
    (128, 28, 3, 197248, "38.54", "1.81", "115.61"),
    (512, 7, 3, 3148288, "38.54", "0.45", "115.61"),
    (256, 14, 7, 3409152, "38.54", "4.92", "629.41"),
]
UP, UP_LEFT, UP_RIGHT = (-1, 0), (-1, -1), (-1, 1)
LEFT, RIGHT = (0, -1), (0, 1)
DOWN, DOWN_LEFT, DOWN_RIGHT = (1, 0), (1, -1), (1, 1)
FOUR = (UP, LEFT, RIGHT, DOWN)
EIGHT = (UP_LEFT, UP, UP_RIGHT, LEFT, RIGHT, DOWN_LEFT, DOWN, DOWN_RIGHT)


@pytest.mark.parametrize(("channels", "extent", "k", "parameters", "projections", "attention", "convolution"), SLOTS)
def test_resnet_slots_cost_what_the_formulas_say(
    channels: int, extent: int, k: int, parameters: int, projections: str, attention: str, convolution: str
) -> None:
    cost = cost_of(Nchw(1, channels, extent, extent), kernel_size=k)
    assert cost.parameters == parameters
    assert millions(cost.core.forward.dense) == attention
    pointwise = 3 * channels**2 * extent**2
    assert millions(pointwise) == projections
    assert millions(cost.layer.forward.dense - cost.core.forward.dense - pointwise) == convolution


@pytest.mark.parametrize(("channels", "k"), [(8, 1), (24, 3), (64, 7)])
def test_parameters_are_projections_convolution_bias_and_two_norms(channels: int, k: int) -> None:
    shape, square, rest = Nchw(1, channels, 5, 5), channels**2, channels + 4 * channels
    assert cost_of(shape, kernel_size=k).parameters == 3 * square + square * k**2 + rest
    assert cost_of(shape, kernel_size=k, convolution="depthwise").parameters == 3 * square + channels * k**2 + rest
    for directions in (4, 8):
        form_a = cost_of(shape, form="A", kernel_size=k, directions=directions)
        assert form_a.parameters == (2 + directions) * square + square * k**2 + rest


def test_macs_count_windows_products_and_the_backward_of_both_forms() -> None:
    shape = Nchw(6, 8, 5, 4)
    # A 3x3 window on 5x4 pixels: 9 * 20 taps, (15 - 2) * (12 - 2) of them in the image.
    every, inside = 6 * 8 * 9 * 20, 6 * 8 * 13 * 10
    core = cost_of(shape).core
    assert (core.forward.dense, core.forward.in_bounds) == (2 * every, 2 * inside)
    assert (core.backward.dense, core.backward.in_bounds) == (5 * every, 5 * inside)
    for convolution, inputs in (("dense", 8), ("depthwise", 1)):
        cost = cost_of(shape, convolution=convolution)
        assert cost.layer.forward.in_bounds - core.forward.in_bounds == 6 * 20 * 3 * 64 + inputs * inside
    # Two rows up or down leave 3 of 5 rows, two columns 2 of 4.
    products = cost_of(shape, form="A", shift=2, directions=8).core
    assert products.forward.dense == 6 * 8 * 20 * 8
    assert products.forward.in_bounds == 6 * 8 * (2 * 3 * 4 + 2 * 5 * 2 + 4 * 3 * 2)
    assert products.backward.in_bounds == 2 * products.forward.in_bounds


def test_on_ones_the_outputs_count_the_macs() -> None:
    shape = Nchw(2, 8, 7, 5)
    ones = torch.ones(shape, dtype=torch.float64)
    # An affinity of ones is the width of a head, 4; both products of a tap then count once.
    p = Params(kernel_size=5, heads=2)
    assert (
        2 * XVOLUTION.reference(p, ones, ones, ones).sum() / 4 == cost_of(shape, kernel_size=5).core.forward.in_bounds
    )
    for shift, directions in ((1, 4), (2, 8), (9, 8)):
        options = {"form": "A", "shift": shift, "directions": directions}
        total = XVOLUTION.reference(Params(**options), ones, ones).sum()
        assert total == cost_of(shape, **options).core.forward.in_bounds


@pytest.mark.parametrize("scale", ["none", "head_width"])
def test_form_b_agrees_with_one_pixel_at_a_time(scale: str) -> None:
    p = Params(kernel_size=3, heads=2, scale=scale)
    q, k, v = (normal(2, 6, 5, 3, seed=seed) for seed in range(3))
    expected = torch.zeros_like(v)
    for n, h, y, x, a, b in itertools.product(
        range(2), (slice(0, 3), slice(3, 6)), range(5), range(3), *[range(3)] * 2
    ):
        row, column = y + a - 1, x + b - 1
        if 0 <= row < 5 and 0 <= column < 3:
            affinity = q[n, h, y, x] @ k[n, h, row, column] / (3 if scale == "head_width" else 1)
            expected[n, h, y, x] += affinity * v[n, h, row, column]
    torch.testing.assert_close(XVOLUTION.reference(p, q, k, v), expected)


@pytest.mark.parametrize(("directions", "steps"), [(4, FOUR), (8, EIGHT)])
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_form_a_multiplies_each_pixel_with_the_one_a_shift_away(
    shift: int, directions: int, steps: tuple[tuple[int, int], ...]
) -> None:
    q, k = normal(2, 3, 5, 3), normal(2, 3, 5, 3, seed=1)
    expected = torch.zeros(2, directions, 3, 5, 3, dtype=torch.float64)
    for (i, (down, right)), y, x in itertools.product(enumerate(steps), range(5), range(3)):
        row, column = y + down * shift, x + right * shift
        if 0 <= row < 5 and 0 <= column < 3:
            expected[:, i, :, y, x] = q[:, :, y, x] * k[:, :, row, column]
    p = Params(form="A", shift=shift, directions=directions)
    assert torch.equal(XVOLUTION.reference(p, q, k), expected.flatten(1, 2))


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("head_width", 1 / 3)])
def test_form_b_gradients_are_the_four_products_of_the_backward(scale: str, factor: float) -> None:
    tensors = [normal(2, 6, 5, 4, seed=seed).requires_grad_() for seed in range(3)]
    output = XVOLUTION.reference(Params(kernel_size=3, heads=2, scale=scale), *tensors)
    go = normal(*output.shape, seed=4)
    actual = torch.autograd.grad(output, tensors, go)

    q, k, v = (tensor.detach().unflatten(1, (2, 3)) for tensor in tensors)
    go = go.unflatten(1, (2, 3))
    gq, gk, gv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for tap in itertools.product((-1, 0, 1), repeat=2):
        affinity = factor * (q * shifted(k, *tap)).sum(2, keepdim=True)
        g_affinity = factor * (go * shifted(v, *tap)).sum(2, keepdim=True)
        gq += g_affinity * shifted(k, *tap)
        gk += shifted(g_affinity * q, *(-step for step in tap))
        gv += shifted(affinity * go, *(-step for step in tap))
    for found, expected in zip(actual, (gq, gk, gv), strict=True):
        torch.testing.assert_close(found, expected.flatten(1, 2))


def test_form_a_gradients_are_the_products_with_the_other_factor() -> None:
    tensors = [normal(2, 3, 6, 5, seed=seed).requires_grad_() for seed in range(2)]
    mix = normal(3, 8 * 3, 1, 1, seed=3).requires_grad_()
    products = XVOLUTION.reference(Params(form="A", shift=2, directions=8), *tensors)
    go = normal(2, 3, 6, 5, seed=4)
    actual = torch.autograd.grad(F.conv2d(products, mix), [*tensors, mix], go)

    q, k = (tensor.detach() for tensor in tensors)
    weights = mix.detach()[:, :, 0, 0]
    g_products = torch.einsum("oc,noyx->ncyx", weights, go).unflatten(1, (8, 3)).unbind(1)
    shifts = [(2 * down, 2 * right) for down, right in EIGHT]
    gq = sum(g * shifted(k, *shift) for g, shift in zip(g_products, shifts, strict=True))
    gk = sum(shifted(g * q, -down, -right) for g, (down, right) in zip(g_products, shifts, strict=True))
    t = torch.cat([q * shifted(k, *shift) for shift in shifts], dim=1)
    g_mix = torch.einsum("noyx,ncyx->oc", go, t)[:, :, None, None]
    for found, expected in zip(actual, (gq, gk, g_mix), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("convolution", ["dense", "depthwise"])
def test_merged_branches_are_one_convolution_with_a_weight_for_each_pixel(convolution: str) -> None:
    """The paper's merge: with both norms folded, y_0 = Σ_i (w^A_i(x_0, x_i) + w^c_i) x_i + b."""
    layer = make_layer(6, Params(kernel_size=3, heads=2, scale="head_width", convolution=convolution)).eval()
    for norm in (layer.attention_norm, layer.convolution_norm):
        for statistic in (norm.weight, norm.running_var):
            torch.nn.init.uniform_(statistic, 0.5, 2.0)
        for statistic in (norm.bias, norm.running_mean):
            torch.nn.init.normal_(statistic)
    x = normal(2, 6, 5, 4)
    around = [shifted(x, *tap) for tap in itertools.product((-1, 0, 1), repeat=2)]

    query, key, value = (layer.projections[name].weight[:, :, 0, 0] for name in ("query", "key", "value"))
    q = torch.einsum("oc,ncyx->noyx", query, x).unflatten(1, (2, 3))
    keys = [torch.einsum("oc,ncyx->noyx", key, pixel).unflatten(1, (2, 3)) for pixel in around]
    affinities = torch.stack([(q * pixel).sum(2) / 3 for pixel in keys])
    filters = layer.convolution.weight
    if convolution == "depthwise":
        filters = torch.diag_embed(filters[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)

    gain_a, offset_a = folded(layer.attention_norm)
    gain_c, offset_c = folded(layer.convolution_norm)
    dynamic = torch.einsum("inhyx,hdc->inhdcyx", affinities, (gain_a[:, None] * value).unflatten(0, (2, 3)))
    static = torch.einsum("oci->ioc", gain_c[:, None, None] * filters.flatten(2))
    merged = dynamic.flatten(2, 3) + static[:, None, :, :, None, None]
    y = torch.einsum("inocyx,incyx->noyx", merged, torch.stack(around))
    bias = gain_c * layer.convolution.bias + offset_a + offset_c
    torch.testing.assert_close(layer(x), y + bias[:, None, None])


def test_form_a_layer_mixes_the_products_before_the_norm() -> None:
    layer = make_layer(6, Params(form="A", kernel_size=5)).eval()
    x = normal(2, 6, 5, 4)
    q, k = (layer.projections[name](x) for name in ("query", "key"))
    products = torch.cat([q * shifted(k, *step) for step in FOUR], dim=1)
    # Fresh statistics: mean 0 and variance 1.
    expected = (layer.mix(products) + layer.convolution(x)) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(layer(x), expected)


def test_the_norm_cancels_a_constant_scale_in_training() -> None:
    layers = [make_layer(16, Params(kernel_size=3, heads=2, scale=scale)) for scale in ("none", "head_width")]
    x = 10 * normal(4, 16, 6, 5)
    plain, divided = (layer(x) for layer in layers)
    torch.testing.assert_close(plain, divided, rtol=1e-4, atol=1e-4)
    # The branches do differ, by the width of a head: what they add to the running variance by its square.
    seen_plain, seen_divided = (layer.attention_norm.running_var - 0.9 for layer in layers)
    torch.testing.assert_close(seen_plain, 64 * seen_divided)


def test_pixels_outside_the_image_weigh_nothing() -> None:
    """Unlike in a softmax, a zero key adds nothing: a wider frame of zeros changes no pixel."""
    p = Params(kernel_size=5, heads=2)
    tensors = [normal(2, 6, 4, 3, seed=seed) for seed in range(3)]
    framed = XVOLUTION.reference(p, *(F.pad(tensor, (3, 3, 3, 3)) for tensor in tensors))
    torch.testing.assert_close(framed[:, :, 3:-3, 3:-3], XVOLUTION.reference(p, *tensors))


def test_sums_beyond_float16_are_held_in_float32() -> None:
    p = Params(kernel_size=1, heads=1)
    large = torch.full((1, 8, 2, 2), 200.0, dtype=torch.float16)
    small = torch.full((1, 8, 2, 2), 2.0**-10, dtype=torch.float16)
    # 8 * 200 * 200 = 320 000 is beyond float16, 312.5 is not.
    assert torch.equal(XVOLUTION.reference(p, large, large, small), torch.full_like(large, 312.5))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"form": "C"}, "form must be 'B' or 'A', got 'C'"),
        ({"kernel_size": 2}, "kernel_size must be odd integer ≥ 1, got 2"),
        ({"scale": "head width"}, "scale must be 'none' or 'head_width', got 'head width'; did you mean 'head_width'?"),
        ({"shift": 0}, "shift must be integer ≥ 1, got 0"),
        ({"directions": 6}, "directions must be 4 or 8, got 6"),
        ({"convolution": "grouped"}, "convolution must be 'dense' or 'depthwise', got 'grouped'"),
    ],
)
def test_illegal_options_are_refused_with_the_legal_ones(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        Params(**option)
    assert message in str(raised.value)


def test_channels_that_the_heads_do_not_divide_are_unsupported_in_form_b_only() -> None:
    shape = Nchw(1, 12, 5, 5)
    with pytest.raises(Unsupported, match="8 heads do not divide 12 channels"):
        make_layer(12, Params())
    with pytest.raises(Unsupported, match="8 heads do not divide 12 channels"):
        cost_of(shape)
    assert make_layer(12, Params(form="A"))(normal(*shape)).shape == shape


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Maker(torch.float64, generator=torch.Generator().manual_seed(seed)).normal(*shape)


def make_layer(channels: int, p: Any) -> Any:
    assert XVOLUTION.layer is not None
    torch.manual_seed(0)
    return XVOLUTION.layer(channels, p, XVOLUTION.reference).double()


def cost_of(shape: Nchw, **options: Any) -> Any:
    assert XVOLUTION.cost is not None
    return XVOLUTION.cost(Params(**options), shape)


def folded(norm: Any) -> tuple[Tensor, Tensor]:
    """The gain and the offset that a batch norm applies in evaluation."""
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias - gain * norm.running_mean


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """What each pixel finds so many rows down and columns to the right; 0 outside the image."""
    height, width = x.shape[-2:]
    return F.pad(x, (9, 9, 9, 9))[..., 9 + down : 9 + down + height, 9 + right : 9 + right + width]


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}"
