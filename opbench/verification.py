"""The gate on catching shapes, for every implementation and dtype: what `opbench verify` runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from opbench import isolation
from opbench.cases import Dtype
from opbench.check import Comparison
from opbench.ending import Ending
from opbench.errors import OpbenchError, did_you_mean
from opbench.inspection import COMPILE, REFERENCE
from opbench.registry import Registry

Compared = tuple[tuple[str, Comparison], ...]
Skips = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One implementation of one operator in one dtype."""

    operator: str
    implementation: str
    dtype: Dtype
    compared: Compared = ()
    """(case, comparison) of each quantity of each case."""
    skipped: Skips = ()
    """(case, reason) of each case the implementation does not cover."""
    trouble: str = ""
    """Why nothing could be compared: a crash, a time-out, a plugin that cannot be imported."""

    @property
    def failures(self) -> Compared:
        """What disagrees with the reference."""
        return tuple((case, row) for case, row in self.compared if not row.passed)

    @property
    def passed(self) -> bool:
        """Whether nothing failed; an implementation that covers nothing passes."""
        return not self.trouble and not self.failures

    @property
    def summary(self) -> str:
        """The verdict in words."""
        if self.trouble:
            return f"FAILED: {self.trouble}"
        skips = f", {len(self.skipped)} cases skipped: {self.skipped[0][1]}" if self.skipped else ""
        if not self.compared:
            return f"skipped{skips.partition(' skipped')[2]}" if skips else "nothing to compare"
        cases = len({case for case, _ in self.compared})
        if self.failures:
            return f"FAILED: {len(self.failures)} of {len(self.compared)} quantities over {cases} cases{skips}"
        used = max(row.error / row.budget for _, row in self.compared)
        return f"pass: {len(self.compared)} quantities over {cases} cases, at most {used:.0%} of the budget{skips}"


def verify(
    registry: Registry,
    operators: Sequence[str],
    dtypes: Sequence[Dtype],
    names: Sequence[str],
    timeout_seconds: float,
    device: str = "cpu",
) -> Iterator[Verdict]:
    """Check operators one by one, each implementation and dtype in a process of its own.

    Args:
        registry: where the operators are.
        operators: their names.
        dtypes: the dtypes to check in.
        names: the implementations; all that the plugin has when empty. 'compile' only when named.
        timeout_seconds: for one implementation in one dtype.
        device: 'cpu' or 'cuda', where the tensors are.

    Raises:
        OpbenchError: no operator has an implementation of such a name.
    """
    isolation.import_early()
    found = {
        operator: isolation.run(_implementations, registry, operator, timeout_seconds=timeout_seconds)
        for operator in dict.fromkeys(operators)
    }
    _refuse_unknown(names, found)
    for operator, offered in found.items():
        if offered.kind != "returned":
            yield Verdict(operator=operator, implementation=REFERENCE, dtype=dtypes[0], trouble=_trouble(offered))
            continue
        for name in [name for name in [*offered.value, COMPILE] if name in (names or offered.value)]:
            for dtype in dict.fromkeys(dtypes):
                ending = isolation.run(
                    *(compare, registry, operator, name, dtype, device),
                    timeout_seconds=timeout_seconds,
                    cuda=device == "cuda",
                )
                if ending.kind == "returned":
                    yield ending.value
                else:
                    yield Verdict(operator=operator, implementation=name, dtype=dtype, trouble=_trouble(ending))


def compare(registry: Registry, operator: str, implementation: str, dtype: Dtype, device: str = "cpu") -> Verdict:
    """Check one implementation in one dtype on every catching case; imports torch and the plugin."""
    import torch

    from opbench import catching, check
    from opbench.errors import Unsupported

    loaded = registry.load(operator)
    core = check.usable_core(loaded, implementation)
    compared: list[tuple[str, Comparison]] = []
    skipped: list[tuple[str, str]] = []
    offered = loaded.implementations.get(implementation)
    for case in catching.sample_cases(loaded):
        try:
            if offered is not None and dtype not in offered.dtypes:
                raise Unsupported(f"covers {', '.join(offered.dtypes)}")
            if offered is not None and device not in offered.devices:
                raise Unsupported(f"runs on {' and '.join(offered.devices)}, not on {device}")
            tensors = catching.inputs_of(loaded, case, getattr(torch, dtype), torch.device(device))
            compared += [(str(case), row) for row in check.check(loaded, core, case.params, tensors)]
        except Unsupported as answer:
            skipped.append((str(case), str(answer)))
    # A rival may cover nothing in a dtype; a reference that covers nothing would have passed unseen.
    blank = implementation == REFERENCE and not compared
    return Verdict(
        operator=operator,
        implementation=implementation,
        dtype=dtype,
        compared=tuple(compared),
        skipped=tuple(skipped),
        trouble=f"none of {len(skipped)} cases could be checked: {skipped[0][1]}" if blank and skipped else "",
    )


def _refuse_unknown(names: Iterable[str], found: Mapping[str, Ending]) -> None:
    """A name that no operator knows would check nothing, and pass."""
    known = dict.fromkeys(name for ending in found.values() for name in ending.value or ())
    for name in names:
        if known and name not in (*known, COMPILE):
            raise OpbenchError(f"no implementation {name!r}{did_you_mean(name, [*known, COMPILE])}")


def _trouble(ending: Ending) -> str:
    return ending.reason if ending.kind == "failed" else f"{ending.kind.replace('_', ' ')}: {ending.reason}"


def _implementations(registry: Registry, operator: str) -> list[str]:
    return [REFERENCE, *registry.load(operator).implementations]
