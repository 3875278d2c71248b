"""What the operators of a suite offer; each is asked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from opbench.cases import Case
from opbench.errors import PluginError
from opbench.inspection import COMPILE, REFERENCE, Description, ImplementationInfo, Inspector
from opbench.suite.schema import ALL


class Catalogue:
    """The operators that exist and their descriptions; a broken plugin has none, and nothing is held against it."""

    def __init__(self, names: Iterable[str], inspector: Inspector) -> None:
        self.names = list(names)
        self._inspector = inspector
        self._descriptions: dict[str, Description | None] = {}

    def description(self, operator: str) -> Description | None:
        """Return what is known of an operator; None for one that is unknown or broken."""
        if operator not in self.names:
            return None
        if operator not in self._descriptions:
            try:
                self._descriptions[operator] = self._inspector.describe(operator)
            except PluginError:
                self._descriptions[operator] = None
        return self._descriptions[operator]

    def descriptions(self, operators: Iterable[str]) -> dict[str, Description]:
        """Return what is known of several operators, by name, those that are unknown or broken left out."""
        found = {operator: self.description(operator) for operator in operators}
        return {operator: description for operator, description in found.items() if description is not None}

    def implementations(self, operator: str, names: Iterable[str], device: str) -> list[ImplementationInfo]:
        """Return the named implementations that an operator offers, each once; 'all' means those for the device.

        For a broken plugin the names are taken as they are, and 'all' as the reference.
        """
        description = self.description(operator)
        if description is None:
            wanted = [REFERENCE if name == ALL else name for name in names]
            return [ImplementationInfo(name=name) for name in dict.fromkeys(wanted)]
        chosen: dict[str, ImplementationInfo] = {}
        for name in names:
            for item in description.implementations:
                in_all = device in item.devices and item.name != COMPILE
                if name == item.name or (name == ALL and in_all):
                    chosen[item.name] = item
        return list(chosen.values())

    def refusals(self, cases: Sequence[Case]) -> Mapping[str, str]:
        """Return, by case id, why the operators refuse cases: one parameter's value, or their combination."""
        described = [case for case in cases if self.description(case.operator) is not None]
        illegal = {case.id: reason for case in described if (reason := self._illegal(case))}
        return illegal | dict(self._inspector.refusals([case for case in described if case.id not in illegal]))

    def _illegal(self, case: Case) -> str:
        known = {spec.name: spec for spec in self.descriptions([case.operator])[case.operator].params}
        faults = [known[name].fault(value) for name, value in case.params.items()]
        return "; ".join(filter(None, faults))
