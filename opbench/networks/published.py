"""What papers and their code print of their networks, as data: one YAML file a source in `published/`. No torch.

Accuracies stand there as cited facts; opbench trains nothing and measures none.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from opbench.cases import Nchw
from opbench.networks import catalogue, rounding
from opbench.networks.conventions import CONVENTIONS

FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One line of a published table."""

    table: str
    source: str
    """Where the figures were read."""
    network: str
    input: Nchw
    convention: str
    """Under which its FLOPs were counted; a name of `conventions.CONVENTIONS`."""
    model: str = ""
    """What the table calls it; '' for the network's name."""
    parameters: str = ""
    """As printed, with a unit: '15.54 M'; '' where the table has none."""
    flops: str = ""
    accuracy: str = ""
    """As printed, with what it is: 'top-1 78.35 %'."""
    baseline: str = ""
    """Network that the table's percentages are relative to."""
    saved: tuple[str, str] = ("", "")
    """The printed percentages: of parameters and of FLOPs that are saved."""
    inferred: str = ""
    """What the source does not say, or says otherwise, and is assumed because the printed figures fit it."""
    parameters_differ: str = ""
    """Why the parameters cannot be reproduced; '' where they are."""
    flops_differ: str = ""
    """Why the FLOPs cannot be."""


@functools.cache
def rows() -> tuple[Published, ...]:
    """Every published line, table by table in the order of the files' names."""
    return tuple(row for file in sorted(FOLDER.glob("*.yaml")) for row in _table(file))


def _table(file: Path) -> list[Published]:
    """Lines of one file, which has one table or several; what stands beside `rows` holds for each of its rows."""
    found = []
    for table in yaml.safe_load_all(file.read_text()):
        lines: list[dict[str, Any]] = table.pop("rows")
        found += [_row(file, {**table, **line}) for line in lines]
    return found


def _row(file: Path, line: dict[str, Any]) -> Published:
    network = catalogue.find(line["network"])
    line["input"] = Nchw.parse(line["input"]) if "input" in line else network.input
    line["saved"] = tuple(line.get("saved", ("", "")))
    row = Published(**line)
    if row.convention not in CONVENTIONS:
        raise ValueError(f"{file}: {row.network}: no convention {row.convention!r}")
    for figure in filter(None, (row.parameters, row.flops)):
        rounding.split(figure)
    return row
