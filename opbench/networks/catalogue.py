"""The networks that can be named: one YAML file a family in `data/`. No torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from opbench.cases import Nchw
from opbench.errors import OpbenchError, did_you_mean
from opbench.networks.network import Network

FOLDER = Path(__file__).parent / "data"


@functools.cache
def networks() -> Mapping[str, Network]:
    """Every network by name, family by family."""
    found: dict[str, Network] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        for network in _family(file):
            if network.name in found:
                raise ValueError(f"{file}: {network.name!r} is the name of two networks")
            found[network.name] = network
    return found


def find(name: str) -> Network:
    """Return a network.

    Raises:
        OpbenchError: there is none of that name.
    """
    known = networks()
    if name not in known:
        raise OpbenchError(f"no network {name!r}{did_you_mean(name, known)}")
    return known[name]


def _family(file: Path) -> list[Network]:
    """Networks of one file; what stands beside `networks` holds for each that does not say otherwise."""
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    entries: dict[str, dict[str, Any]] = document.pop("networks")
    return [_network(name, {"family": file.stem, **document, **entry}) for name, entry in entries.items()]


def _network(name: str, entry: dict[str, Any]) -> Network:
    if "input" in entry:
        entry["input"] = Nchw.parse(entry["input"])
    return Network(name=name, **entry)
