"""A core made of kernels: differentiable, and known to torch.compile, autocast, meta tensors and FLOP counters."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from opbench.cases import Nchw
from opbench.errors import Unsupported
from opbench.params import build
from opbench.work import Macs, Work

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ALIGNMENT = 16
"""Bytes that the start of every tensor is a multiple of, so that kernels may load vectors."""

Results = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class CudaCore:
    """The core of an operator, computed by its kernels.

    `forward` and `backward` get tensors of one dtype and device, contiguous and aligned, allocate their results and
    call kernels. They run on meta tensors as well, where kernels do nothing: that is how shapes are inferred.
    """

    name: str
    """The operator's."""
    params: type[Any]
    """The operator's `Params`."""
    forward: Callable[..., Tensor | Results]
    """`forward(params, *tensors)` -> the output, or (output, *statistics) to keep for the backward."""
    backward: Callable[..., Sequence[Tensor | None]]
    """`backward(params, wanted, gradient, *tensors, *kept)` -> a gradient for each tensor, None where `wanted`, a flag
    for each, says that nobody asks; kept are the statistics, after the output where `keeps_output`."""
    keeps_output: bool = False
    """Whether the backward is given the output as well; autograd then refuses it if it was changed in place."""
    work: Callable[..., Work]
    """`work(params, *shapes)` -> the core's multiply-adds, for shapes of its tensors."""
    cases: tuple[tuple[Any, Nchw], ...] = ()
    """(params, layer input) small enough for a CPU, which reach what the operator's samples do not: every fast path."""
    layers: tuple[tuple[Any, Nchw], ...] = ()
    """(params, layer input) of published networks: what `opbench kernels` compiles and tells about."""
    op: Any = dataclasses.field(init=False, repr=False)
    """The core as torch.library knows it: `op(params as text, tensors)` -> [output, *statistics]."""
    names: tuple[str, ...] = dataclasses.field(init=False, repr=False)
    """Names of the parameters."""

    def __post_init__(self) -> None:
        # At once, and not when first needed: a counter takes its formulas, and a compiler its ops, when it starts.
        object.__setattr__(self, "op", _registered(self))
        object.__setattr__(self, "names", tuple(field.name for field in dataclasses.fields(self.params)))

    def __call__(self, params: Any, *tensors: Tensor) -> Tensor:
        """Compute the output.

        Raises:
            Unsupported: the dtype or device is none of a kernel's.
        """
        tensors = _autocast(tensors)
        if torch.compiler.is_compiling() or not _is_plain(tensors):
            outputs: list[Tensor] = self.op(_written(self.names, params), list(tensors))
            return outputs[0]
        tensors = tuple(_prepared(tensors))
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return _Differentiable.apply(self, params, *tensors)  # type: ignore[no-any-return, no-untyped-call]
        return _tuple(self.forward(params, *tensors))[0]


class _Differentiable(torch.autograd.Function):
    """The eager path: a fraction of what autograd through torch.library costs."""

    @staticmethod
    def forward(ctx: Any, core: CudaCore, params: Any, *tensors: Tensor) -> Tensor:
        results = _tuple(core.forward(params, *tensors))
        ctx.save_for_backward(*tensors, *_kept(core, results))
        ctx.core, ctx.params = core, params
        return results[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        (gradient,) = _prepared((gradient,))
        return None, None, *ctx.core.backward(ctx.params, wanted, gradient, *ctx.saved_tensors)


def _registered(core: CudaCore) -> Any:
    """Register a core with torch.library: the path of compilers, counters and fake tensors."""
    # Two plugins of one name, of which one is not ours, must not claim one op.
    namespace = core.forward.__module__.partition(".")[0]
    name, backward = core.name, f"{core.name}_backward"
    library = torch.library.Library(namespace, "FRAGMENT")
    _libraries.append(library)
    library.define(f"{name}(str params, Tensor[] tensors) -> Tensor[]")
    library.define(
        f"{backward}(str params, bool[] wanted, Tensor gradient, Tensor[] tensors, Tensor[] kept) -> Tensor[]"
    )
    ops = getattr(torch.ops, namespace)
    read = functools.lru_cache(maxsize=1024)(functools.partial(_read, core.params))

    def forward_op(params: str, tensors: list[Tensor]) -> list[Tensor]:
        return list(_tuple(core.forward(read(params), *_prepared(tensors))))

    def backward_op(
        params: str, wanted: list[bool], gradient: Tensor, tensors: list[Tensor], kept: list[Tensor]
    ) -> list[Tensor]:
        (gradient,) = _prepared((gradient,))
        gradients = core.backward(read(params), tuple(wanted), gradient, *_prepared(tensors), *kept)
        return [gradient for gradient in gradients if gradient is not None]

    def keep(ctx: Any, inputs: tuple[str, list[Tensor]], output: list[Tensor]) -> None:
        ctx.params, tensors = inputs
        ctx.count = len(tensors)
        ctx.save_for_backward(*tensors, *_kept(core, output))

    def gradients_of(ctx: Any, gradients: list[Tensor | None]) -> tuple[None, list[Tensor | None]]:
        tensors, kept = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        wanted = [tensor.requires_grad for tensor in tensors]
        gradient = gradients[0]
        if gradient is None:
            return None, [None] * ctx.count
        given = iter(getattr(ops, backward)(ctx.params, wanted, gradient, list(tensors), list(kept)))
        return None, [next(given) if asked else None for asked in wanted]

    for op, function in ((name, forward_op), (backward, backward_op)):
        library.impl(op, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{namespace}::{op}", function, lib=library)
    torch.library.register_autograd(f"{namespace}::{name}", gradients_of, setup_context=keep, lib=library)
    _register_formulas(core, getattr(ops, name), getattr(ops, backward), read)
    return getattr(ops, name).default


def _kept(core: CudaCore, results: Sequence[Tensor]) -> Sequence[Tensor]:
    """What the backward is given of the forward's results."""
    return results if core.keeps_output else results[1:]


_libraries: list[torch.library.Library] = []
"""A registration lasts as long as its library."""


def _register_formulas(core: CudaCore, forward: Any, backward: Any, read: Callable[[str], Any]) -> None:
    from torch.utils.flop_counter import register_flop_formula

    def forward_macs(params: str, shapes: list[torch.Size], *_: Any, **__: Any) -> Macs:
        return core.work(read(params), *shapes).forward

    def backward_macs(params: str, _: Any, __: Any, shapes: list[torch.Size], *___: Any, **____: Any) -> Macs:
        return core.work(read(params), *shapes).backward

    for op, formula in ((forward, forward_macs), (backward, backward_macs)):
        _formulas[op] = formula
        register_flop_formula(op)(functools.partial(_flops, formula))


def _flops(formula: Callable[..., Macs], *args: Any, **kwargs: Any) -> int:
    return 2 * formula(*args, **kwargs).dense


_formulas: dict[Any, Callable[..., Macs]] = {}
"""What a call of each op costs, by the op; its arguments are shapes in place of tensors."""


def macs(op: Any, args: tuple[Any, ...]) -> Macs | None:
    """Count one call of the op of a core, or of its backward; None of any other op."""
    if op not in _formulas:
        return None
    return _formulas[op](*tree_map_only(Tensor, lambda tensor: tensor.shape, args))


def _written(names: Sequence[str], params: Any) -> str:
    """A `Params` as text, in a way that torch.compile can follow."""
    return "{" + ", ".join([f"{name!r}: {_constant(getattr(params, name))!r}" for name in names]) + "}"


def _constant(value: Any) -> Any:
    # A compiler that has met two values of an integer would treat it as any integer, which is no text. A range has a
    # definite length.
    if type(value) is not int:
        return value
    return len(range(value)) if value >= 0 else -len(range(-value))


def _read(kind: type[Any], text: str) -> Any:
    return build(kind, ast.literal_eval(text))


def _autocast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Under autocast, floating tensors in its dtype: what a convolution does there."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors)


def _is_plain(tensors: tuple[Tensor, ...]) -> bool:
    """Whether nothing but autograd watches: no mode, no subclass, no meta tensor."""
    if torch._C._len_torch_dispatch_stack() or tensors[0].is_meta:
        return False
    return all(type(tensor) is Tensor or type(tensor) is torch.nn.Parameter for tensor in tensors)


def _prepared(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors as kernels take them; what is laid out otherwise is copied, in the call and so in its time.

    Raises:
        Unsupported: the dtypes or devices differ, or no kernel has them.
    """
    first = tensors[0]
    if first.dtype not in DTYPES:
        raise Unsupported(f"kernels compute in float32, float16 and bfloat16, not {str(first.dtype)[6:]}")
    prepared = []
    for tensor in tensors:
        if tensor.dtype != first.dtype or tensor.device != first.device:
            kinds = ", ".join(f"{str(tensor.dtype)[6:]} on {tensor.device}" for tensor in tensors)
            raise Unsupported(f"tensors must share one dtype and device, got {kinds}")
        tensor = tensor.contiguous()
        if _has_memory(tensor) and tensor.data_ptr() % ALIGNMENT:
            tensor = tensor.clone()
        prepared.append(tensor)
    return prepared


def _has_memory(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and not tensor.is_meta


def _tuple(results: Tensor | Results) -> Results:
    return results if isinstance(results, tuple) else (results,)
