"""A core made of kernels: gradients, torch.compile, autocast, meta tensors, counters, layouts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from opbench.api import NoParams
from opbench.cuda import CudaCore, on_cpu
from opbench.errors import Unsupported
from opbench.work import Macs, Work
from tests.cuda.scaling import CORE, Params, reference


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    factor = torch.randn(3, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), factor.to(dtype).requires_grad_()


def gradients(y: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape)).sum(), leaves)


@pytest.mark.parametrize("params", [Params(), Params(2, "b", 7)])
def test_forward_and_gradients_are_those_of_the_reference(params: Params) -> None:
    x, factor = tensors()
    with on_cpu():
        y = CORE(params, x, factor)
        found = gradients(y, x, factor)
    torch.testing.assert_close(y, reference(params, x, factor))
    for one, other in zip(found, gradients(reference(params, x, factor), x, factor), strict=True):
        torch.testing.assert_close(one, other)


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    x, factor = tensors()
    with on_cpu() as launched:
        y = CORE(Params(), x.detach(), factor)
        torch.autograd.grad(y.sum(), factor)
    assert launched == ["scale<float>"]


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_torch_compile_takes_the_core_in_one_graph(backend: str) -> None:
    x, factor = tensors()
    params = Params(2)
    with on_cpu():
        compiled = torch.compile(CORE, backend=backend, fullgraph=True, dynamic=False)
        y = compiled(params, x, factor)
        found = gradients(y, x, factor)
    torch.testing.assert_close(y, reference(params, x, factor))
    for one, other in zip(found, gradients(reference(params, x, factor), x, factor), strict=True):
        torch.testing.assert_close(one, other)


def test_one_compiled_function_takes_different_params() -> None:
    x, factor = (tensor.detach() for tensor in tensors())
    compiled = torch.compile(CORE, backend="eager", fullgraph=True)
    with on_cpu():
        for params in (Params(1), Params(2), Params(1, "b"), Params(2, "a", 5), Params(2, "a", 6)):
            torch.testing.assert_close(compiled(params, x, factor), reference(params, x, factor))


def test_passes_the_checks_of_torch_library() -> None:
    x, factor = tensors()
    with on_cpu():
        checked = torch.library.opcheck(CORE.op, ("{'power': 2, 'mode': 'b', 'width': None}", [x, factor]))
    assert set(checked.values()) == {"SUCCESS"}


def exponential(p: NoParams, x: Tensor) -> Tensor:
    return x.exp()


def exponential_backward(p: NoParams, wanted: object, gradient: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    return [gradient * y]


EXPONENTIAL = CudaCore(
    name="exponential",
    params=NoParams,
    forward=exponential,
    backward=exponential_backward,
    keeps_output=True,
    work=lambda p, x: Work.bilinear(Macs.exact(0)),
)


@pytest.mark.parametrize("watched", [nullcontext, lambda: FlopCounterMode(display=False)])
def test_an_output_that_the_backward_asks_for_is_kept(watched: Callable[[], AbstractContextManager[object]]) -> None:
    x, _ = tensors()
    with watched():
        (grad_x,) = torch.autograd.grad(EXPONENTIAL(NoParams(), x).sum(), x)
    torch.testing.assert_close(grad_x, x.exp())


def test_an_output_that_is_kept_passes_the_checks_of_torch_library() -> None:
    assert set(torch.library.opcheck(EXPONENTIAL.op, ("{}", [tensors()[0]])).values()) == {"SUCCESS"}


def test_an_output_that_is_kept_cannot_silently_be_overwritten() -> None:
    y = EXPONENTIAL(NoParams(), tensors()[0])
    y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_autocast_computes_in_its_dtype_eagerly_and_compiled() -> None:
    x, factor = tensors()
    with on_cpu(), torch.autocast("cpu", dtype=torch.bfloat16):
        eager = CORE(Params(), x, factor)
        compiled = torch.compile(CORE, backend="aot_eager", fullgraph=True)(Params(), x, factor)
        (gradient,) = torch.autograd.grad(eager.sum(), factor)
    assert (eager.dtype, compiled.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(eager, compiled)
    assert gradient.dtype == torch.float32


def test_meta_tensors_give_shapes_and_run_nothing() -> None:
    x, factor = tensors()
    assert CORE(Params(), x.to("meta"), factor.to("meta")).shape == x.shape


def test_counters_see_the_forward_and_the_backward() -> None:
    x, factor = tensors()
    with on_cpu(), FlopCounterMode(display=False) as counter:
        CORE(Params(), x, factor).sum().backward()
    # 120 multiply-accumulates forward, two flops each, and twice that backward.
    assert counter.get_total_flops() == 240 + 480


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "misaligned", "expanded"])
def test_any_layout_gives_the_same_values(layout: str) -> None:
    x, factor = (tensor.detach() for tensor in tensors())
    laid_out = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "sliced": torch.nn.functional.pad(x, (1, 2))[..., 1:-2],
        "misaligned": torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape),
        "expanded": x[:1].expand(2, -1, -1, -1),
    }[layout]
    with on_cpu():
        assert torch.equal(CORE(Params(), laid_out, factor), CORE(Params(), laid_out.clone().contiguous(), factor))


def test_an_incoming_gradient_of_any_layout_is_taken() -> None:
    x, factor = tensors()
    with on_cpu():
        y = CORE(Params(), x, factor)
        (one,) = torch.autograd.grad(y, x, torch.ones(()).expand(y.shape), retain_graph=True)
        (other,) = torch.autograd.grad(y, x, torch.ones(y.shape))
    assert torch.equal(one, other)


def test_an_empty_batch_launches_nothing() -> None:
    x, factor = tensors()
    with on_cpu() as launched:
        y = CORE(Params(), x[:0], factor)
        grad_x, grad_factor = torch.autograd.grad(y.sum(), (x, factor))
    assert (y.shape, launched) == ((0, 3, 4, 5), [])
    assert not grad_x.any()
    assert not grad_factor.any()


def test_without_a_gpu_it_says_what_to_do() -> None:
    with pytest.raises(Unsupported, match="verify --on-cpu"):
        CORE(Params(), *tensors())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, factor: (x.double(), factor.double()), "not float64"),
        (lambda x, factor: (x, factor.half()), "one dtype and device, got float32 on cpu, float16 on cpu"),
        (lambda x, factor: (x, factor.to("meta")), "one dtype and device, got float32 on cpu, float32 on meta"),
    ],
)
def test_tensors_that_no_kernel_takes_are_refused(change: object, message: str) -> None:
    with on_cpu(), pytest.raises(Unsupported, match=message):
        CORE(Params(), *change(*tensors()))  # type: ignore[operator]


def test_the_gradient_cannot_silently_be_differentiated_again() -> None:
    x, factor = tensors()
    with on_cpu():
        y = CORE(Params(), x, factor)
        (grad_x,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad_x.sum().backward()
