"""torch's counter, in multiply-accumulates: right for every convolution, and silent about nothing."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.cases import Pass
from opbench.measure import flops

CPU_AND_META = pytest.mark.parametrize("device", ["cpu", "meta"])
BOTH_PASSES = pytest.mark.parametrize(("pass_", "times"), [("forward", 1), ("training", 3)])


@CPU_AND_META
@BOTH_PASSES
@pytest.mark.parametrize("groups", [1, 4, 32])
def test_a_convolution_costs_its_weights_at_every_output_and_twice_that_backward(
    groups: int, pass_: Pass, times: int, device: str
) -> None:
    convolution = nn.Conv2d(32, 64, (3, 5), stride=2, padding=(1, 2), groups=groups, device=device)
    x = torch.ones(2, 32, 9, 8, device=device, requires_grad=True)
    outputs = 2 * 5 * 4
    assert flops.count_macs(convolution, x, pass_) == times * outputs * 64 * (32 // groups) * 15


@CPU_AND_META
@BOTH_PASSES
@pytest.mark.parametrize("groups", [1, 4, 32])
def test_a_transposed_convolution_costs_its_weights_at_every_input_and_twice_that_backward(
    groups: int, pass_: Pass, times: int, device: str
) -> None:
    convolution = nn.ConvTranspose2d(32, 64, 3, stride=2, padding=1, groups=groups, device=device)
    x = torch.ones(2, 32, 5, 4, device=device, requires_grad=True)
    inputs = 2 * 5 * 4
    assert flops.count_macs(convolution, x, pass_) == times * inputs * 32 * (64 // groups) * 9


@pytest.mark.parametrize("depth", [1, 3])
def test_convolutions_in_one_and_three_dimensions_are_counted_too(depth: int) -> None:
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[depth]
    x = torch.ones(2, 8, *[6] * depth, requires_grad=True)
    forward = 2 * 6**depth * 8 * 4 * 3**depth
    assert flops.count_macs(kind(8, 8, 3, padding=1, groups=2), x, "training") == 3 * forward


def test_an_input_that_wants_no_gradient_saves_a_third_of_the_training() -> None:
    convolution = nn.Conv2d(8, 8, 3, groups=8)
    image = torch.ones(1, 8, 6, 6)
    assert flops.count_macs(convolution, image, "training") == 2 * flops.count_macs(convolution, image, "forward")


@pytest.mark.parametrize("pass_", ["forward", "training"])
def test_the_grad_mode_is_left_as_it_was(pass_: Pass) -> None:
    flops.count_macs(nn.Linear(2, 2), torch.ones(1, 2), pass_)
    assert torch.is_grad_enabled()


X = torch.ones(2, 4, 8, 6)
NAMED: dict[str, Callable[[], Tensor]] = {
    "aten::mul": lambda: (F.unfold(X, 3).unflatten(1, (4, 9)) * torch.ones(9, 1)).sum(2),
    "aten::mul_": lambda: X.clone().mul_(X),
    "aten::addcmul": lambda: torch.addcmul(X, X, X),
    "aten::lerp": lambda: torch.lerp(X, X, X),
    "aten::mv": lambda: X[0, 0] @ X[0, 0, 0],
    "aten::dot": lambda: X[0, 0, 0] @ X[0, 0, 0],
    "aten::_cdist_forward": lambda: torch.cdist(X, X),
    "aten::_trilinear": lambda: nn.Bilinear(6, 6, 3)(X, X),
    "aten::_fft_r2c": lambda: torch.fft.rfft2(X).abs(),
    "aten::grid_sampler_2d": lambda: F.grid_sample(X, X.new_zeros(2, 8, 6, 2), align_corners=False),
    "aten::upsample_bilinear2d": lambda: F.interpolate(X, scale_factor=2, mode="bilinear"),
    "aten::_scaled_dot_product_flash_attention_for_cpu": lambda: F.scaled_dot_product_attention(X, X, X),
    "aten::_native_multi_head_attention": lambda: _attend(X[0]),
}


def _attend(x: Tensor) -> Tensor:
    output: Tensor = nn.MultiheadAttention(6, 2, batch_first=True).eval()(x, x, x)[0]
    return output


@pytest.mark.parametrize("name", NAMED)
def test_what_may_multiply_unseen_is_named(name: str) -> None:
    seen = flops.count(lambda: flops.run_pass(NAMED[name], "forward"))
    assert seen == flops.Seen(macs=0, unknown=(name,))


def test_backwards_without_a_formula_are_named() -> None:
    x = X.clone().requires_grad_()
    seen = flops.count(lambda: flops.run_pass(lambda: F.interpolate(x, scale_factor=2, mode="bilinear"), "training"))
    assert seen.unknown == ("aten::upsample_bilinear2d", "aten::upsample_bilinear2d_backward")


FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "softmax": lambda x: x.softmax(1),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "layer norm": lambda x: F.layer_norm(x, (6,)),
    "group norm": lambda x: F.group_norm(x, 2),
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "pooling": lambda x: F.max_pool2d(F.avg_pool2d(x, 2), 2),
    "global pooling": lambda x: F.adaptive_avg_pool2d(x, 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "padding": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "bias": lambda x: x + torch.ones(4, 1, 1, requires_grad=True),
    "scaling by a number": lambda x: 2 * x / 3,
    "scaling by a learned number": lambda x: x * torch.tensor(0.5),
    "shuffling": lambda x: F.pixel_shuffle(x, 2).roll(1, 2).flip(3),
    "in place": lambda x: x.clone().add_(1).relu_(),
}


@pytest.mark.parametrize("name", FREE)
def test_activations_norms_pooling_and_movement_count_nothing_and_hide_nothing(name: str) -> None:
    assert flops.count(lambda: flops.run_pass(lambda: FREE[name](X), "forward")) == flops.Seen(0, ())


@pytest.mark.parametrize("name", ["gelu", "softmax", "layer norm", "pooling", "nearest", "bias", "shuffling"])
def test_nor_do_their_gradients(name: str) -> None:
    x = X.clone().requires_grad_()
    assert flops.count(lambda: flops.run_pass(lambda: FREE[name](x), "training")) == flops.Seen(0, ())


def test_attention_on_meta_tensors_is_counted_by_its_two_products() -> None:
    q = torch.empty(2, 3, 8, 16, device="meta")
    seen = flops.count(lambda: F.scaled_dot_product_attention(q, q, q))
    assert seen == flops.Seen(macs=2 * 2 * 3 * 8 * 8 * 16, unknown=())


def test_a_formula_counts_an_operation_that_torch_does_not_know() -> None:
    formulas: dict[object, flops.Formula] = {torch.ops.aten.mv: lambda matrix, *_, **__: 2 * math.prod(matrix)}
    assert flops.count(NAMED["aten::mv"], formulas) == flops.Seen(macs=48, unknown=())


def test_every_operation_called_free_exists() -> None:
    """A misspelt name would be a word that hides nothing."""
    assert [name for name in sorted(flops._FREE) if not hasattr(torch.ops.aten, name)] == []
