"""Counts multiply-accumulates with torch's own counter, mended where it is wrong and honest where it is blind.

torch's `FlopCounterMode` counts two FLOPs for a multiply-accumulate and silently zero for what it does not know.
Here the result is in MACs, a grouped convolution's backward is counted right (torch 2.13 ignores the groups there:
33 times the forward instead of twice for 32 groups), and every operation that may multiply and accumulate without being
counted is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, shape_wrapper

from opbench.cases import Pass
from opbench.windows import Window
from opbench.work import Macs

Formula = Callable[..., int]

# Free of multiply-accumulates by the counting rules: data movement, element-wise work, norms, pooling, reductions.
# `mul` is absent on purpose: with a sum after it, it is how a multiply-accumulate hides.
_FREE = frozenset(
    """
    _reshape_alias _to_copy _unsafe_view alias as_strided cat clone contiguous copy detach expand flip gather index
    index_add index_copy index_fill index_put index_select lift_fresh masked_fill masked_select narrow permute repeat
    resolve_conj roll scatter scatter_add select select_backward slice slice_backward slice_scatter split
    split_with_sizes squeeze stack t take_along_dim to transpose tril triu unbind unflatten unfold unfold_backward
    unsafe_chunk unsafe_split flatten size im2col col2im unsqueeze view view_as_complex view_as_real

    constant_pad_nd reflection_pad2d reflection_pad2d_backward replication_pad2d replication_pad2d_backward
    channel_shuffle pixel_shuffle pixel_unshuffle upsample_nearest2d upsample_nearest2d_backward

    arange bernoulli empty empty_like empty_strided fill full full_like new_empty new_empty_strided new_full new_ones
    new_zeros normal ones ones_like rand randint randn scalar_tensor uniform zero zeros zeros_like

    abs add bitwise_and bitwise_not bitwise_or ceil clamp clamp_max clamp_min cos div elu elu_backward eq erf exp floor
    floor_divide fmod ge gelu gelu_backward glu glu_backward gt hardsigmoid hardsigmoid_backward hardswish
    hardswish_backward hardtanh hardtanh_backward isfinite isnan le leaky_relu leaky_relu_backward log
    log_sigmoid_backward log_sigmoid_forward logical_and logical_not logical_or lt maximum minimum mish mish_backward ne
    neg pow reciprocal relu remainder round rsqrt rsub sigmoid sigmoid_backward sign silu silu_backward sin softplus
    softplus_backward sqrt sub tanh tanh_backward threshold threshold_backward where

    dropout native_dropout native_dropout_backward

    _log_softmax _log_softmax_backward_data _safe_softmax _softmax _softmax_backward_data all amax amin any argmax
    argmin cumsum linalg_vector_norm logsumexp max mean min prod sort std sum topk var var_mean

    _native_batch_norm_legit _native_batch_norm_legit_no_training batch_norm_backward native_batch_norm
    native_batch_norm_backward native_group_norm native_group_norm_backward native_layer_norm
    native_layer_norm_backward

    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward avg_pool2d avg_pool2d_backward max_pool2d_with_indices
    max_pool2d_with_indices_backward

    adaptive_avg_pool2d adaptive_max_pool2d alpha_dropout batch_norm broadcast_tensors expand_as feature_dropout
    group_norm instance_norm layer_norm log_softmax log_sigmoid max_pool2d movedim norm numpy_T pad reshape_as softmax
    square swapaxes type_as view_as
    """.split()  # noqa: SIM905 - two hundred quoted words would hide the groups; the last is TorchScript's, for fvcore
)


@dataclass(frozen=True)
class Seen:
    """What a counter saw."""

    macs: int
    unknown: tuple[str, ...]
    """Operations that may multiply and accumulate but have no formula; with any, `macs` is a lower bound."""


def count_macs(call: Callable[[Tensor], Tensor], x: Tensor, pass_: Pass) -> int:
    """Count the MACs of one call, for 'training' with the backward to x and to every parameter."""
    return count(lambda: run_pass(lambda: call(x), pass_)).macs


def run_pass(forward: Callable[[], Tensor], pass_: Pass) -> None:
    """Run one forward, for 'training' also the backward to every leaf that wants a gradient."""
    with torch.set_grad_enabled(pass_ == "training"):
        output = forward()
    if output.requires_grad:
        output.backward(torch.ones_like(output))


def count(run: Callable[[], object], formulas: dict[Any, Formula] | None = None) -> Seen:
    """Count everything `run` computes; `formulas` give the FLOPs of operations torch has no formula for."""
    mapping = {**_MENDED, **(formulas or {})}
    unknown = _Unknown(frozenset(mapping))
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, unknown:
        run()
    flops = counter.get_total_flops()
    return Seen(flops // 2, tuple(sorted(unknown.names)))


def of_operation(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> Macs | None:
    """Count what one call of one operation does; None where it may multiply and accumulate and has no formula.

    `count` asks what a paper would count, so there an element-wise product that is added to a tensor is named. What it
    does is no question: one multiply-accumulate for each element.
    """
    if packet.__name__ in ("addcmul", "addcmul_") and isinstance(result, Tensor):
        return Macs.exact(result.numel())
    formula = shape_wrapper(_MENDED[packet]) if packet in _MENDED else flop_registry.get(packet)
    if formula is None:
        return Macs.exact(0) if _is_free(packet, args) else None
    dense = formula(*args, **kwargs, out_val=result) // 2
    if packet is torch.ops.aten.convolution:
        return _without_padding(dense, args[0], args[1], *args[3:7])
    if packet is torch.ops.aten.convolution_backward:
        return _without_padding(dense, args[1], args[2], *args[4:8])
    return Macs.exact(dense)


def _without_padding(
    dense: int,
    x: Tensor,
    weight: Tensor,
    strides: Sequence[int],
    paddings: Sequence[int],
    dilations: Sequence[int],
    transposed: bool,
) -> Macs:
    """A convolution's dense count, in either phase, beside that of its taps within the image."""
    if transposed or not dense:
        return Macs.exact(dense)
    windows = map(Window, weight.shape[2:], strides, paddings, dilations)
    axes = [*zip(windows, x.shape[2:], strict=True)]
    taps = math.prod(window.taps(extent) for window, extent in axes)
    in_bounds = math.prod(window.taps_in_bounds(extent) for window, extent in axes)
    return Macs(dense, dense * in_bounds // taps)


def name_of(packet: Any) -> str:
    """An operation's name: 'aten::mul'."""
    return str(packet).replace(".", "::", 1)


def is_free(name: str) -> bool:
    """Whether an operation by this name, in place or not, is known to multiply and accumulate nothing."""
    return name.removesuffix("_") in _FREE


class _Unknown(TorchDispatchMode):
    """Notes the operations without a formula."""

    def __init__(self, known: frozenset[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func._overloadpacket
        known = packet in flop_registry or packet in self.known
        if not known and not _is_free(packet, args):
            self.names.add(name_of(packet))
        return func(*args, **(kwargs or {}))


def _is_free(packet: Any, args: tuple[Any, ...]) -> bool:
    return is_free(packet.__name__) or _scales(packet.__name__, args)


def _scales(name: str, factors: tuple[Any, ...]) -> bool:
    """Whether a product has a single number for a factor: every element is scaled, nothing accumulates."""
    single = any(not isinstance(factor, Tensor) or factor.dim() == 0 for factor in factors)
    return name.removesuffix("_") == "mul" and single


def _convolution_backward_flops(
    gradient: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    **_: object,
) -> int:
    # The weight is [O, I / groups, kh, kw]: each of its elements meets each output position of each image once.
    positions = x if transposed else gradient
    macs = positions[0] * math.prod(positions[2:]) * math.prod(weight)
    return 2 * macs * (bool(output_mask[0]) + bool(output_mask[1]))


_MENDED: Mapping[Any, Formula] = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
"""In place of torch's formulas."""
