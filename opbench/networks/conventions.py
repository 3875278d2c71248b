"""The rules by which papers count a network, as data: what each kind of step counts for. No torch.

opbench's own rule is `MACS`: multiply-accumulates and nothing else. The others are here so that a published number can
be met under the rule it was made by; no two of them are comparable.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opbench.networks.walk import Step

Rates = Mapping[str, int]
"""By kind of step, what each multiply-accumulate, or each element, counts for."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """One counting rule."""

    name: str
    rule: str
    """In words, for the caption of a table."""
    used_by: str
    per_mac: Rates
    per_offset: Rates = field(default_factory=dict)
    """For each output to which a bias is added."""
    per_input: Rates = field(default_factory=dict)
    per_output: Rates = field(default_factory=dict)
    modules: frozenset[str] | None = None
    """Classes of the modules it knows, exactly and not their subclasses; None if it sees functions too."""
    cores: bool = True
    """Whether it counts the cores of operators that are no module of torch.nn."""
    without: tuple[str, ...] = ()
    """Parts of a network that it leaves out, by the names of its modules."""

    def total(self, steps: Iterable[Step]) -> int:
        """Count the steps of a walk."""
        return sum(self._of(step) for step in steps if self._sees(step))

    def _sees(self, step: Step) -> bool:
        if step.path.partition(".")[0] in self.without:
            return False
        if step.kind == "core" and self.cores:
            return True
        return self.modules is None or step.module in self.modules

    def _of(self, step: Step) -> int:
        return (
            self.per_mac.get(step.kind, 0) * step.work.forward.dense
            + self.per_offset.get(step.kind, 0) * step.offsets
            + self.per_input.get(step.kind, 0) * step.inputs
            + self.per_output.get(step.kind, 0) * step.outputs
        )


_ONCE: Rates = {"core": 1, "convolution": 1, "linear": 1, "product": 1}
_TORCH_MODULES = frozenset(
    {
        *("Conv2d", "ConvTranspose2d", "Linear", "BatchNorm2d", "ReLU", "ReLU6"),
        *("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "Upsample"),
    }
)
_WRAPPERS = frozenset({"WrappedConv2d", "WrappedConvTranspose2d", "WrappedLinear"})

MACS = Convention(
    name="MACs",
    rule="multiply-accumulates of convolutions, linear layers, matrix products and operators' cores, dense",
    used_by="opbench",
    per_mac=_ONCE,
)

_mmcv = functools.partial(
    Convention,
    per_mac={"core": 1, "convolution": 1, "linear": 1},
    per_offset={"core": 1, "convolution": 1},
    per_input={"pool": 1, "global_pool": 1},
    per_output={"batch_norm": 2, "relu": 1, "upsample_nearest": 1, "upsample_bilinear": 1},
    without=("head",),
)
_MMCV_RULE = (
    "MACs of convolutions and linear layers, 1 for each bias of a convolution and each ReLU, 2 for each element of a "
    "plain batch norm, 1 for each input of a pooling and each output of an upsampling; modules only, no functions; "
    "without the classifier"
)

CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention
    for convention in (
        MACS,
        _mmcv(
            name="C1",
            rule=_MMCV_RULE,
            used_by="mmcv 1.x get_model_complexity_info: ResNets beside the involution tables",
            modules=_TORCH_MODULES | _WRAPPERS,
            cores=False,
        ),
        _mmcv(
            name="C1+agg",
            rule=f"{_MMCV_RULE}; with k·k for each output of an involution",
            used_by="the involution tables",
            modules=_TORCH_MODULES | _WRAPPERS,
        ),
        _mmcv(
            name="C1-old",
            rule=f"{_MMCV_RULE}; blind to mmcv's own wrappers of convolutions, as mmcv was up to 1.2.2",
            used_by="the Mask R-CNN baseline of the involution tables",
            modules=_TORCH_MODULES,
            cores=False,
        ),
        _mmcv(
            name="C1-old+agg",
            rule=f"{_MMCV_RULE}; blind to mmcv's own wrappers; with k·k for each output of an involution",
            used_by="two Mask R-CNN rows of the involution tables",
            modules=_TORCH_MODULES,
        ),
        Convention(
            name="C2",
            rule="fvcore in evaluation mode: MACs, 2 for each element of a batch norm, 5 of a layer or group norm, 1 "
            "for each input of an adaptive pooling, 1 or 4 for each output of a nearest or bilinear upsampling",
            used_by="HorNet, InceptionNeXt, UniRepLKNet, timm",
            per_mac=_ONCE,
            per_input={"batch_norm": 2, "layer_norm": 5, "group_norm": 5, "global_pool": 1},
            per_output={"upsample_nearest": 1, "upsample_bilinear": 4},
        ),
        Convention(
            name="C2-train",
            rule="fvcore in training mode: as C2, with 5 for each element of a batch norm",
            used_by="LSNet",
            per_mac=_ONCE,
            per_input={"batch_norm": 5, "layer_norm": 5, "group_norm": 5, "global_pool": 1},
            per_output={"upsample_nearest": 1, "upsample_bilinear": 4},
        ),
        Convention(
            name="C3",
            rule="MACs of convolutions, linear layers and matrix products, nothing else",
            used_by="ConvNeXt, RepLKNet, ODConv's static networks",
            per_mac=_ONCE,
        ),
        Convention(
            name="C4",
            rule="MACs without the classifier, 5 for each element of a batch norm, 1 for each input of the pooling",
            used_by="mmpretrain's RepLKNet",
            per_mac=_ONCE,
            per_input={"batch_norm": 5, "global_pool": 1},
            without=("head",),
        ),
        Convention(
            name="C4-bias",
            rule="MACs and the biases of convolutions, without the classifier",
            used_by="mmpretrain's ConvNeXt at 224 pixels",
            per_mac=_ONCE,
            per_offset={"core": 1, "convolution": 1},
            without=("head",),
        ),
        Convention(
            name="C4-norm",
            rule="MACs without the classifier, 5 for each element of a layer norm",
            used_by="mmpretrain's ConvNeXt at 384 pixels, HorNet",
            per_mac=_ONCE,
            per_input={"layer_norm": 5},
            without=("head",),
        ),
        Convention(
            name="C5",
            rule="2 for each MAC, 2 for each element of a batch norm, 1 for each input of a pooling",
            used_by="stand-alone self-attention",
            per_mac={kind: 2 * rate for kind, rate in _ONCE.items()},
            per_input={"batch_norm": 2, "pool": 1, "global_pool": 1},
        ),
    )
}
"""Every rule by its name."""


def totals(steps: Iterable[Step]) -> dict[str, int]:
    """Count a walk under every convention."""
    steps = tuple(steps)
    return {name: convention.total(steps) for name, convention in CONVENTIONS.items()}
