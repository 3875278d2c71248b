"""Makes the blocks of a suite into the rows of a run: what is measured, and what is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opbench.cases import Case
from opbench.errors import did_you_mean
from opbench.inspection import ImplementationInfo
from opbench.results import full_name
from opbench.suite.catalogue import Catalogue
from opbench.suite.document import Document
from opbench.suite.expand import Block, facts

MOST_CASES = 10_000


@dataclass(frozen=True)
class Planned:
    """A case and the implementation to run it with."""

    case: Case
    implementation: str
    position: str
    """Where the suite asks for it, as file:line:column."""

    @property
    def name(self) -> str:
        """'involution' for the reference, 'involution/cuda' for other implementations."""
        return full_name(self.case.name, self.implementation)


Refused = tuple[Planned, str]
"""What the operator or the implementation does not take, and why."""


def plan(
    document: Document, blocks: Sequence[Block], catalogue: Catalogue, device: str
) -> tuple[list[Planned], list[Refused]]:
    """Expand the blocks that have no fault, in order; a case asked for again joins its first place."""
    sound = [block for block in blocks if not block.missing and not _faulty(document, block)]
    if not _within_limit(document, sound):
        return [], []
    groups = [list(_rows(document, block, catalogue, device)) for block in sound]
    cases = {row.case.id: row.case for group in groups for row, _ in group}
    refusals = catalogue.refusals(list(cases.values()))
    by_case: dict[str, dict[str, tuple[Planned, str]]] = {}
    for block, group in zip(sound, groups, strict=True):
        if group and all(row.case.id in refusals for row, _ in group):
            case = group[0][0].case
            what = f"no operator takes any of these combinations; {case.operator}: {refusals[case.id]}"
            document.fault((*block.path, "params"), what)
        for row, uncovered in group:
            reason = refusals.get(row.case.id, uncovered)
            by_case.setdefault(row.case.id, {}).setdefault(row.implementation, (row, reason))
    rows = [row for implementations in by_case.values() for row in implementations.values()]
    return [row for row, reason in rows if not reason], [(row, reason) for row, reason in rows if reason]


def _faulty(document: Document, block: Block) -> bool:
    return document.faulty(block.path) or document.faulty(("defaults",))


def _within_limit(document: Document, blocks: Iterable[Block]) -> bool:
    total = 0
    for block in blocks:
        total += block.count
        if total > MOST_CASES:
            document.fault(block.path, f"the suite spans {total} cases up to here; {MOST_CASES} are the most")
            return False
    return True


def _rows(document: Document, block: Block, catalogue: Catalogue, device: str) -> Iterator[tuple[Planned, str]]:
    """Every combination that no exclusion drops, with why its implementation does not cover it, or ''."""
    names = block.axes["implementation"].values
    position = document.origin(block.path).text
    combinations = [
        (case, item, facts(case) | {"implementation": item.name})
        for case in block.cases()
        for item in catalogue.implementations(case.operator, names, device)
    ]
    for exclude in block.excludes:
        _check_exclude(document, exclude, [named for _, _, named in combinations])
    for case, item, named in combinations:
        if not any(_matches(exclude, named) for exclude in block.excludes):
            yield Planned(case, item.name, position), _uncovered(item, case, device)


def _matches(exclude: Block, named: Mapping[str, Any]) -> bool:
    return all(key in named and _typed(named[key]) in map(_typed, axis.values) for key, axis in exclude.axes.items())


def _check_exclude(document: Document, exclude: Block, combinations: Sequence[Mapping[str, Any]]) -> None:
    """An exclusion that excludes nothing is a slip of the pen."""
    if not exclude.axes:
        document.fault(exclude.path, "names nothing; it would exclude every combination")
    elif not any(_matches(exclude, named) for named in combinations):
        document.fault(
            exclude.path, "excludes nothing: no combination has these values" + _absent(exclude, combinations)
        )


def _absent(exclude: Block, combinations: Sequence[Mapping[str, Any]]) -> str:
    """Name the first key or value that no combination has, and what there is in its place."""
    for key, axis in exclude.axes.items():
        present = {_typed(named[key]): str(named[key]) for named in combinations if key in named}
        if not present:
            return f", none has {key}{did_you_mean(key, {name: None for named in combinations for name in named})}"
        for value in axis.values:
            if _typed(value) not in present:
                return f", none has {key} {value}{did_you_mean(str(value), present.values())}"
    return ""


def _typed(value: object) -> tuple[type, object]:
    # True equals 1, but is another value.
    return type(value), value


def _uncovered(item: ImplementationInfo, case: Case, device: str) -> str:
    if device not in item.devices:
        return f"{item.name} runs on {_and(item.devices)}, not on {device}"
    if case.dtype not in item.dtypes:
        return f"{item.name} covers {_and(item.dtypes)}, not {case.dtype}"
    return ""


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
