"""One walk through a network: every step that any counting convention counts, as plain data.

The network runs once on meta tensors, which take no memory and no time, while each call of a torch function and each
core of an operator is noted. What a step counts for is decided elsewhere, by `conventions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from opbench.api import Core
from opbench.cases import Nchw
from opbench.errors import Unsupported
from opbench.networks.slot import Slot
from opbench.windows import Window
from opbench.work import Macs, Work

Kind = Literal[
    "core",
    "convolution",
    "linear",
    "product",
    "batch_norm",
    "layer_norm",
    "group_norm",
    "relu",
    "pool",
    "global_pool",
    "upsample_nearest",
    "upsample_bilinear",
]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call that does arithmetic."""

    kind: Kind
    path: str
    """Of the module that makes the call."""
    module: str
    """Class of the module that is this call and no more, as 'Conv2d'; '' for a function called between modules."""
    work: Work = field(default_factory=lambda: Work.bilinear(Macs.exact(0)))
    """Its multiply-accumulates."""
    offsets: int = 0
    """Outputs to which a bias is added."""
    inputs: int = 0
    """Elements of the first input."""
    outputs: int = 0
    """Elements of the output."""


def walk(network: nn.Module, x: Tensor) -> tuple[Step, ...]:
    """Run a network whose slots are filled with `counted_core` over a meta tensor and note every step, in order.

    It is run in evaluation mode: a batch norm in training refuses maps of one pixel, and counts the same.

    Raises:
        Unsupported: the operator in its slots gives no cost, so that its core cannot be counted.
    """
    with _Recorder() as recorder, torch.no_grad():
        network.eval()(x)
    return tuple(recorder.steps)


def counted_core(params: Any, *tensors: Tensor) -> Tensor:
    """Stand in for any operator's core while a network is walked through: the output's shape, and one step."""
    return _recorders[-1].core(params, tensors)


_recorders: list[_Recorder] = []


class _Recorder(TorchFunctionMode):
    """Notes the calls of torch functions, and which module makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.names: dict[nn.Module, str] = {}
        self.stack: list[tuple[nn.Module, tuple[int, ...]]] = []
        """Modules that are running, outermost first, and the shape of each one's input."""
        self.within_core = False
        self.outputs: dict[Any, Tensor] = {}

    def __enter__(self) -> _Recorder:
        _recorders.append(self)
        self.hooks = (
            nn.modules.module.register_module_forward_pre_hook(self._enter),
            nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        )
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for hook in self.hooks:
            hook.remove()
        _recorders.remove(self)

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self.stack:
            self.names = {inner: name for name, inner in module.named_modules()}
        shape = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
        self.stack.append((module, shape))

    def _leave(self, *_: Any) -> None:
        self.stack.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        read = _READERS.get(func.__name__.strip("_"))
        if read is None or self.within_core:
            return func(*args, **kwargs)
        output, step = read(func, *args, **kwargs)
        module, _ = self.stack[-1]
        # A module without modules in it is taken for the one call it makes: that is what counters of modules see.
        own = "" if next(module.children(), None) else type(module).__name__
        inputs = args[0].numel() if isinstance(args[0], Tensor) else 0
        step |= {"path": self.names[module], "module": own, "inputs": inputs, "outputs": output.numel()}
        self.steps.append(Step(**step))
        return output

    def _output(self, reference: Core, params: Any, tensors: tuple[Tensor, ...]) -> Tensor:
        """The core's output on meta tensors; found once for all blocks of a stage, as a window may have 1000 taps."""
        # By their text: a plugin's parameters need not be hashable.
        key = (reference, repr(params), *(tensor.shape for tensor in tensors))
        if key not in self.outputs:
            self.within_core = True
            try:
                self.outputs[key] = reference(params, *tensors)
            finally:
                self.within_core = False
        return torch.empty_like(self.outputs[key])

    def core(self, params: Any, tensors: tuple[Tensor, ...]) -> Tensor:
        slot, shape = next(entry for entry in reversed(self.stack) if isinstance(entry[0], Slot))
        assert isinstance(slot, Slot)
        if slot.operator.cost is None:
            raise Unsupported("the operator in its slots gives no cost")
        output = self._output(slot.operator.reference, params, tensors)
        equivalent = slot.operator.equivalent
        # Of such a core, a tensor with one axis is the bias.
        biased = equivalent is not None and any(tensor.dim() == 1 for tensor in tensors)
        self.steps.append(
            Step(
                kind="core",
                path=self.names[slot],
                module=equivalent.__name__ if equivalent else "",
                work=slot.operator.cost(params, Nchw(*shape)).core,
                offsets=output.numel() if biased else 0,
                inputs=tensors[0].numel(),
                outputs=output.numel(),
            )
        )
        return output


Read = tuple[Tensor, dict[str, Any]]
"""A call's output, and what of its step the call tells."""


def _convolution(
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Read:
    y = func(x, weight, bias, stride, padding, dilation, groups)
    axes = zip(weight.shape[2:], _pair(stride), _paddings(padding, weight, dilation), _pair(dilation), strict=True)
    vertical, horizontal = (Window(k, s, before, d, after) for k, s, (before, after), d in axes)
    macs = x.shape[0] * weight.shape[0] * weight.shape[1] * Macs.of_windows(vertical, horizontal, *x.shape[2:])
    return y, {"kind": "convolution", "work": _work(macs, weight), "offsets": 0 if bias is None else y.numel()}


def _transposed(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Read:
    y = func(x, weight, bias, *args, **kwargs)
    macs = Macs.exact(x.numel() * weight.shape[1:].numel())
    return y, {"kind": "convolution", "work": _work(macs, weight), "offsets": 0 if bias is None else y.numel()}


def _linear(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Read:
    macs = Macs.exact(x.numel() * weight.shape[0])
    y = func(x, weight, bias)
    return y, {"kind": "linear", "work": _work(macs, weight), "offsets": 0 if bias is None else y.numel()}


def _work(macs: Macs, weight: Tensor) -> Work:
    frozen = isinstance(weight, nn.Parameter) and not weight.requires_grad
    # The input's gradient is always asked for: opbench trains a network together with what goes into it.
    return Work(macs, macs) if frozen else Work.bilinear(macs)


def _product(func: Any, *args: Any, **kwargs: Any) -> Read:
    # Subscripts, broadcasts and transpositions are the business of torch's own counter.
    with FlopCounterMode(display=False) as counter:
        y = func(*args, **kwargs)
    return y, {"kind": "product", "work": Work.bilinear(Macs.exact(counter.get_total_flops() // 2))}


def _interpolate(func: Any, x: Tensor, *, mode: str, **more: Any) -> Read:
    # Whatever the caller does, torch hands all but the tensor on by name.
    return func(x, mode=mode, **more), {"kind": f"upsample_{mode}"}


def _reader(kind: Kind) -> Callable[..., Read]:
    return lambda func, *args, **kwargs: (func(*args, **kwargs), {"kind": kind})


_READERS: Mapping[str, Callable[..., Read]] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "linear": _linear,
    "matmul": _product,
    "bmm": _product,
    "einsum": _product,
    "scaled_dot_product_attention": _product,
    "batch_norm": _reader("batch_norm"),
    "layer_norm": _reader("layer_norm"),
    "group_norm": _reader("group_norm"),
    "relu": _reader("relu"),
    "relu6": _reader("relu"),
    "max_pool2d": _reader("pool"),
    "avg_pool2d": _reader("pool"),
    "adaptive_avg_pool2d": _reader("global_pool"),
    "interpolate": _interpolate,
}
"""By the name of the function; what is not here does no arithmetic that a convention counts."""


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) if len(value) == 2 else (value[0], value[0])


def _paddings(padding: Any, weight: Tensor, dilation: Any) -> list[tuple[int, int]]:
    """Zeros before and after each axis."""
    if padding == "same":
        spans = [d * (k - 1) for k, d in zip(weight.shape[2:], _pair(dilation), strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    return [(p, p) for p in _pair(0 if padding == "valid" else padding)]
