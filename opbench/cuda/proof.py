"""Holds every CUDA implementation to the float64 reference without a GPU: what `opbench verify --on-cpu` runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opbench import isolation
from opbench.cases import DTYPES, Dtype
from opbench.check import FORWARD, Comparison
from opbench.ending import Ending
from opbench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from opbench.api import Operator
    from opbench.catching import CatchingCase
    from opbench.cuda.core import CudaCore


@dataclass(frozen=True, kw_only=True)
class Proved:
    """One quantity of one case."""

    case: str
    kernel: str
    """The kernels that computed it: those of the forward, or those of the backward."""
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One CUDA implementation in one dtype."""

    operator: str
    implementation: str
    dtype: Dtype
    rows: tuple[Proved, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """(case, reason) of each case that no kernel covers."""
    trouble: str = ""
    """Why nothing could be compared: a crash, a time-out, no compiler."""

    @property
    def failures(self) -> tuple[Proved, ...]:
        """What disagrees with the reference, or with itself in another order of threads."""
        return tuple(row for row in self.rows if not row.comparison.passed)

    @property
    def passed(self) -> bool:
        """Whether some kernel ran, and all that was checked was right: an empty batch alone shows nothing."""
        return any(row.kernel for row in self.rows) and not self.trouble and not self.failures

    @property
    def summary(self) -> str:
        """The verdict in words."""
        if self.trouble:
            return f"FAILED: {self.trouble}"
        skips = f", {len(self.skipped)} cases skipped: {self.skipped[0][1]}" if self.skipped else ""
        if not any(row.kernel for row in self.rows):
            return f"FAILED: no kernel ran{skips}"
        cases = len({row.case for row in self.rows})
        kernels = len({kernel for row in self.rows for kernel in row.kernel.split(" + ") if kernel})
        counted = "1 kernel" if kernels == 1 else f"{kernels} kernels"
        about = f"{len(self.rows)} quantities over {cases} cases, {counted}"
        if self.failures:
            return f"FAILED: {len(self.failures)} of {about}{skips}"
        used = max(row.comparison.error / row.comparison.budget for row in self.rows)
        return f"pass: {about}, at most {used:.0%} of the budget{skips}"


def prove_all(
    registry: Registry, operators: Sequence[str], dtypes: Sequence[Dtype], timeout_seconds: float
) -> Iterator[Proof]:
    """Check operators one by one, each CUDA implementation and dtype in a process of its own.

    Args:
        registry: where the operators are.
        operators: their names; those without a CUDA implementation give nothing.
        dtypes: the dtypes to check in, as far as the implementation covers them.
        timeout_seconds: for one implementation in one dtype.
    """
    isolation.import_early()
    for operator in dict.fromkeys(operators):
        offered = isolation.run(cuda_implementations, registry, operator, timeout_seconds=timeout_seconds)
        if offered.kind != "returned":
            yield Proof(operator=operator, implementation="cuda", dtype=dtypes[0], trouble=_trouble(offered))
            continue
        for name, covered in offered.value.items():
            for dtype in [dtype for dtype in dict.fromkeys(dtypes) if dtype in covered]:
                ending = isolation.run(prove, registry, operator, name, dtype, timeout_seconds=timeout_seconds)
                if ending.kind == "returned":
                    yield ending.value
                else:
                    yield Proof(operator=operator, implementation=name, dtype=dtype, trouble=_trouble(ending))


def cuda_implementations(registry: Registry, operator: str) -> dict[str, tuple[Dtype, ...]]:
    """Dtypes of each implementation that is made of kernels, by name; imports torch and the plugin."""
    from opbench.cuda.core import CudaCore

    implementations = registry.load(operator).implementations
    return {name: item.dtypes for name, item in implementations.items() if isinstance(item.core, CudaCore)}


def prove(registry: Registry, operator: str, implementation: str, dtype: Dtype) -> Proof:
    """Check one implementation in one dtype on every catching case and on its own; imports torch and the plugin."""
    import torch

    from opbench import catching
    from opbench.errors import Unsupported

    loaded = registry.load(operator)
    core: Any = loaded.implementations[implementation].core
    # Kernels run one thread at a time; the reference's small tensors gain nothing from more either.
    torch.set_num_threads(1)
    rows: list[Proved] = []
    skipped: list[tuple[str, str]] = []
    for case in cases_of(loaded, core):
        try:
            tensors = catching.inputs_of(loaded, case, getattr(torch, dtype))
            rows += _proved(loaded, core, case, tensors)
        except Unsupported as answer:
            skipped.append((str(case), str(answer)))
    return Proof(
        operator=operator, implementation=implementation, dtype=dtype, rows=tuple(rows), skipped=tuple(skipped)
    )


def cases_of(operator: Operator, core: CudaCore) -> list[CatchingCase]:
    """Every catching case of the operator, and the cases that reach the other paths of its kernels."""
    from opbench import catching

    own = [catching.CatchingCase(params, shape, "contiguous") for params, shape in core.cases]
    return [*catching.sample_cases(operator), *own]


def _proved(operator: Operator, core: CudaCore, case: CatchingCase, tensors: Mapping[str, Tensor]) -> list[Proved]:
    import torch

    from opbench.check import Standard
    from opbench.cuda.emulation import ORDERS

    standard = Standard.of(operator, case.params, tensors)
    forward, backward, results = _run(core, case, tensors, ORDERS[0])
    comparisons = standard.judge(results, tensors)
    for order in ORDERS[1:]:
        *_, others = _run(core, case, tensors, order)
        comparisons += [
            Comparison(quantity=quantity, error=math.nan, budget=0.0, where=f"threads in {order} order change it")
            for quantity, result in results.items()
            if not torch.equal(_bits(result), _bits(others[quantity]))
        ]
    return [
        Proved(case=str(case), kernel=forward if row.quantity == FORWARD else backward, comparison=row)
        for row in comparisons
    ]


def _run(core: CudaCore, case: CatchingCase, tensors: Mapping[str, Tensor], order: Any) -> tuple[str, str, Any]:
    """Names of the kernels of the forward and of the backward, and the results of both by quantity."""
    from opbench.check import evaluate, poisoned_memory
    from opbench.cuda.emulation import on_cpu

    begun: list[int] = []

    def noting(params: Any, *tensors: Tensor) -> Tensor:
        output = core(params, *tensors)
        begun.append(len(launched))
        return output

    with on_cpu(order) as launched, poisoned_memory():
        results = evaluate(noting, case.params, tensors)
    names = [" + ".join(dict.fromkeys(part)) for part in (launched[: begun[0]], launched[begun[0] :])]
    return names[0], names[1], results


def _bits(tensor: Tensor) -> Tensor:
    import torch

    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def _trouble(ending: Ending) -> str:
    return ending.reason if ending.kind == "failed" else f"{ending.kind.replace('_', ' ')}: {ending.reason}"


KERNEL_DTYPES: tuple[Dtype, ...] = tuple(dtype for dtype in DTYPES if dtype != "float64")
"""What kernels compute in."""
