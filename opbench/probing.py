"""Asks operators and devices about themselves in child processes.

A plugin that crashes on import takes nobody along, and the parent of all children never touches CUDA.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from opbench import isolation, readiness
from opbench.cases import Case
from opbench.errors import MachineError, PluginError, Unsupported, said
from opbench.inspection import Description, SlotInfo, describe_operator
from opbench.measure.ceilings import Ceilings, load, load_or_measure
from opbench.measure.gpu import UsableGpu, find
from opbench.registry import Registry

TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Prober:
    """An `opbench.inspection.Inspector` over a registry."""

    registry: Registry

    def describe(self, operator: str) -> Description:
        """Describe one operator.

        Raises:
            PluginError: it cannot be imported, or does not survive it.
        """
        isolation.import_early()
        ending = isolation.run(_describe, self.registry, operator, timeout_seconds=TIMEOUT_SECONDS)
        if ending.kind != "returned":
            raise PluginError(ending.reason)
        description: Description = ending.value
        return description

    def slots(self, network: str) -> tuple[SlotInfo, ...]:
        """Tell where the slots of a network are, with its own operator in them.

        Raises:
            PluginError: that operator cannot be imported, or does not survive it.
        """
        isolation.import_early()
        ending = isolation.run(_slots, self.registry, network, timeout_seconds=TIMEOUT_SECONDS)
        if ending.kind != "returned":
            raise PluginError(ending.reason)
        places: tuple[SlotInfo, ...] = ending.value
        return places

    def refusals(self, cases: Sequence[Case]) -> Mapping[str, str]:
        """Return, by case id, why an operator refuses a case: its parameters, or they on its input's channels."""
        found: dict[str, str] = {}
        for _, group in itertools.groupby(
            sorted(cases, key=lambda case: case.operator), key=lambda case: case.operator
        ):
            ending = isolation.run(_refusals, self.registry, list(group), timeout_seconds=TIMEOUT_SECONDS)
            if ending.kind == "returned":
                found |= ending.value
        return found


def gpu() -> UsableGpu:
    """Find the GPU that torch calls current.

    Raises:
        MachineError: there is none to compute on; the message says what is missing and what to do.
    """
    isolation.import_early()
    ending = isolation.run(find, timeout_seconds=TIMEOUT_SECONDS, cuda=True)
    if not isinstance(ending.value, UsableGpu):
        raise MachineError(readiness.why_no_gpu() or ending.value or ending.reason)
    return ending.value


def ceilings(device: str, threads: int = 1, before_measuring: Callable[[], None] = lambda: None) -> Ceilings:
    """Learn what 'cpu' or 'cuda' can do at best: from the user's cache, or by measuring, which takes some ten seconds.

    Args:
        device: 'cpu' or 'cuda'.
        threads: of the CPU.
        before_measuring: called where the cache has none.

    Raises:
        MachineError: the device could not be measured.
    """
    isolation.import_early()
    found = _asked(load, device, threads)
    if found is None:
        before_measuring()
        found = _asked(load_or_measure, device, threads)
    assert found is not None
    return found


def _asked(ask: Callable[[str, int], Ceilings | None], device: str, threads: int) -> Ceilings | None:
    ending = isolation.run(ask, device, threads, cuda=device == "cuda", timeout_seconds=TIMEOUT_SECONDS)
    if ending.kind != "returned":
        raise MachineError(f"cannot measure the ceilings of this machine's {device.upper()}: {ending.reason}")
    found: Ceilings | None = ending.value
    return found


def _describe(registry: Registry, operator: str) -> Description:
    return describe_operator(registry.load(operator))


def _slots(registry: Registry, name: str) -> tuple[SlotInfo, ...]:
    from opbench import params
    from opbench.measure import steps
    from opbench.networks.catalogue import find as find_network
    from opbench.subject import Subject

    network = find_network(name)
    case = Case(operator=network.operator, network=name, scope="network", shape=network.input)
    places = []
    for path, slot, x, y in steps.places(Subject.load(registry, case)):
        defaults = {spec.name: spec.default for spec in params.specs(type(slot.params))}
        changed = {key: value for key, value in params.resolved(slot.params).items() if value != defaults[key]}
        places.append(SlotInfo(path=path, input=str(x), output=str(y), params=changed))
    return tuple(places)


def _refusals(registry: Registry, cases: list[Case]) -> dict[str, str]:
    from opbench.subject import Subject

    found = {}
    for case in cases:
        try:
            Subject.load(registry, case).refuse()
        except (ValueError, Unsupported) as error:
            found[case.id] = said(error) or type(error).__name__
        except Exception:
            continue  # A fault of the plugin, not of the suite: its own row will tell.
    return found
