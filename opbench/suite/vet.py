"""Holds the names and values of a block to what its operators offer, each fault at the value that causes it."""

from __future__ import annotations

from collections.abc import Sequence

from opbench.errors import did_you_mean
from opbench.networks.catalogue import networks
from opbench.suite.catalogue import Catalogue
from opbench.suite.document import Document
from opbench.suite.expand import PARTS, Block
from opbench.suite.faults import KeyPath
from opbench.suite.schema import ALL


def vet(document: Document, block: Block, catalogue: Catalogue, *, all_found: bool) -> None:
    """Note what no operator of a block can do; with `all_found` false, an operator may be in a folder not found."""
    if not isinstance(document.get(block.path), dict):
        return
    _missing(document, block)
    _networks(document, block)
    if "operator" in block.axes:
        for path, name in block.axes["operator"].places():
            if all_found and name not in catalogue.names:
                document.fault(path, f"no operator {name!r}{did_you_mean(name, catalogue.names)}")
    if not block.operators:
        return
    _parameter_names(document, block, catalogue)
    _parameter_values(document, block, catalogue)
    _implementations(document, block, catalogue)


def _networks(document: Document, block: Block) -> None:
    """A network is a scope of its own; its name must be known."""
    known = networks()
    for path, name in block.axes["network"].places() if "network" in block.axes else ():
        if name not in known:
            document.fault(path, f"no network {name!r}{did_you_mean(name, known)}")
    scope = block.axes["scope"]
    for path, value in scope.places() if scope.path else ():
        if "network" in block.axes and value != "network":
            document.fault(path, f"{value!r} is no scope of a network; leave 'scope' out")
        elif value == "network" and "network" not in block.axes:
            document.fault(path, "'network' needs the key 'network', with the name of one")


def _missing(document: Document, block: Block) -> None:
    levels: Sequence[KeyPath] = (block.path, block.path[:2], ("defaults",))
    for key in block.missing:
        related = ("shape", *PARTS) if key in ("shape", *PARTS) else (key,)
        # What is written but faulty is not missing.
        if any(document.faulty((*level, name)) for level in levels for name in related):
            continue
        if block.path[2:] and isinstance(document.get((*block.path[:2], key)), list):
            document.fault(block.path, f"missing key {key!r}: the entry has several; name those to include")
        elif key == "shape":
            document.fault(block.path, "missing key 'shape' (or 'batch', 'channels' and 'resolution')")
        else:
            document.fault(block.path, f"missing key {key!r}")


def _parameter_names(document: Document, block: Block, catalogue: Catalogue) -> None:
    for operator, description in catalogue.descriptions(block.operators).items():
        known = [spec.name for spec in description.params]
        for name, axis in block.params.items():
            if name not in known:
                hint = did_you_mean(name, known) or "; it has none"
                document.key_fault(axis.path, f"{operator} has no parameter {name!r}{hint}")


def _parameter_values(document: Document, block: Block, catalogue: Catalogue) -> None:
    operators = block.operators
    descriptions = catalogue.descriptions(operators)
    if len(descriptions) < len(operators):
        return  # An operator that cannot be asked might take any value.
    for name, axis in block.params.items():
        specs = {
            operator: spec
            for operator, description in descriptions.items()
            for spec in description.params
            if spec.name == name
        }
        for path, value in axis.places():
            faults = {operator: spec.fault(value) for operator, spec in specs.items()}
            if faults and all(faults.values()):
                document.fault(path, _each({op: str(fault).removeprefix(f"{name} ") for op, fault in faults.items()}))


def _implementations(document: Document, block: Block, catalogue: Catalogue) -> None:
    operators = block.operators
    descriptions = catalogue.descriptions(operators)
    if len(descriptions) < len(operators):
        return
    offered = dict.fromkeys(item.name for description in descriptions.values() for item in description.implementations)
    for path, name in block.axes["implementation"].places():
        if name not in (ALL, *offered):
            document.fault(path, f"no implementation {name!r}{did_you_mean(name, [ALL, *offered])}")


def _each(reasons: dict[str, str]) -> str:
    """One reason for all operators, or each operator's own."""
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{operator}: {reason}" for operator, reason in reasons.items())
