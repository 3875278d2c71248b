"""Counts multiply-accumulates with torch's own counter, mended where it is wrong and honest where it is blind.

torch's `FlopCounterMode` counts two FLOPs for a multiply-accumulate and silently zero for what it does not know.
Here the result is in MACs, a grouped convolution's backward is counted right (torch 2.13 ignores the groups there:
33 times the forward instead of twice for 32 groups), and every operation that may multiply without being counted is
named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from opbench.cases import Pass

Formula = Callable[..., int]

# Multiply-accumulate free by the counting rules: data movement, element-wise work, norms, pooling, reductions.
# `mul` is absent on purpose: with a sum after it, it is how a multiply-accumulate hides.
FREE = frozenset(
    """
    _reshape_alias _to_copy _unsafe_view alias as_strided as_strided_ cat clone contiguous copy_ detach expand flip
    gather index index_select lift_fresh permute repeat roll scatter scatter_ select select_backward slice
    slice_backward slice_scatter split split_with_sizes squeeze stack t to transpose tril triu unbind unflatten
    unfold unfold_backward flatten size im2col col2im unsqueeze view constant_pad_nd

    arange bernoulli empty empty_like empty_strided fill_ full full_like new_empty new_empty_strided new_full new_ones
    new_zeros ones ones_like rand randn scalar_tensor zero_ zeros zeros_like

    abs add add_ clamp clamp_min cos div div_ eq exp ge gelu gelu_backward gt hardtanh isfinite le log lt ne neg pow
    reciprocal relu relu_ rsqrt rsub sigmoid sigmoid_backward silu silu_backward sin sqrt sub tanh tanh_backward
    threshold_backward where

    _log_softmax _log_softmax_backward_data _softmax _softmax_backward_data amax amin argmax cumsum logsumexp max mean
    min softmax sum

    _native_batch_norm_legit _native_batch_norm_legit_no_training batch_norm_backward native_batch_norm
    native_batch_norm_backward native_group_norm native_group_norm_backward native_layer_norm
    native_layer_norm_backward

    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward avg_pool2d avg_pool2d_backward max_pool2d_with_indices
    max_pool2d_with_indices_backward upsample_nearest2d
    """.split()  # noqa: SIM905 - a hundred quoted words would hide the groups
)


@dataclass(frozen=True)
class TorchCount:
    """What torch saw."""

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


def count(run: Callable[[], object], formulas: dict[Any, Formula] | None = None) -> TorchCount:
    """Count everything `run` computes; `formulas` give the FLOPs of operations torch has no formula for."""
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward_flops, **(formulas or {})}
    unknown = _Unknown(frozenset(mapping))
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, unknown:
        run()
    flops = counter.get_total_flops()
    return TorchCount(flops // 2, tuple(sorted(unknown.names)))


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
        name = packet.__name__
        if packet not in flop_registry and packet not in self.known and name not in FREE:
            self.names.add(str(packet).replace(".", "::", 1))
        return func(*args, **(kwargs or {}))


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
