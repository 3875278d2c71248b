"""A suite file becomes a plan; whatever is wrong with it is said at once, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opbench.errors import PluginError, did_you_mean
from opbench.inspection import Inspector
from opbench.registry import Registry
from opbench.settings import Measure, Metric, Report
from opbench.suite.catalogue import Catalogue
from opbench.suite.document import Document, read
from opbench.suite.expand import blocks
from opbench.suite.overrides import override
from opbench.suite.plan import Planned, Refused, plan
from opbench.suite.structure import validate
from opbench.suite.vet import vet


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite that has been checked: what is measured, in which order, and how."""

    path: Path
    text: str
    """The file as read, without the overrides."""
    overrides: tuple[str, ...]
    """What the command line set, as KEY=VALUE."""
    title: str
    question: str
    plan: tuple[Planned, ...]
    """In the order run; the implementations of a case stand together."""
    refused: tuple[Refused, ...]
    """What an operator or implementation does not take while others of the same entry do, with the reason."""
    operator_paths: tuple[Path, ...]
    metrics: tuple[Metric, ...]
    measure: Measure
    report: Report


def load(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    discover: Callable[[Sequence[Path]], Registry] = Registry.discover,
    inspect: Callable[[Registry], Inspector],
) -> Suite:
    """Read a suite, put the overrides (`KEY=VALUE`) in, and check all of it against the operators.

    `discover` is given the suite's own operator folders; `inspect` makes the inspector of what was found.

    Raises:
        SuiteError: a line for each fault, `file:line:column: path: what`, or `--set KEY=VALUE: path: what`.
    """
    document = read(path)
    override(document, overrides)
    file = validate(document)
    folders = tuple(path.parent / Path(folder).expanduser() for folder in file.operators)
    registry, all_found = _registry(document, folders, discover)
    catalogue = Catalogue(registry.names, inspect(registry))
    spans = blocks(document, file)
    for block in spans:
        vet(document, block, catalogue, all_found=all_found)
    planned, refused = plan(document, spans, catalogue, file.measure.device)
    if not file.cases or not (planned or refused or document.faults):
        document.fault(("cases",), "no case is left to measure")
    if all_found:
        _check_baseline(document, file.report.baseline, registry.names, [*planned, *(row for row, _ in refused)])
    document.check()
    return Suite(
        path=path,
        text=document.text,
        overrides=tuple(overrides),
        title=file.title,
        question=file.question,
        plan=tuple(planned),
        refused=tuple(refused),
        operator_paths=folders,
        metrics=file.metrics,
        measure=file.measure,
        report=file.report,
    )


def _registry(
    document: Document, folders: Sequence[Path], discover: Callable[[Sequence[Path]], Registry]
) -> tuple[Registry, bool]:
    """Find the operators, and say whether all folders could be searched."""
    try:
        return discover(folders), True
    except PluginError as error:
        document.fault(("operators",), str(error))
        return discover(()), False


def _check_baseline(
    document: Document, baseline: str | None, operators: Sequence[str], rows: Sequence[Planned]
) -> None:
    if baseline is None:
        return
    operator = baseline.partition("/")[0]
    measured = dict.fromkeys(row.name for row in rows)
    if operator not in operators and ":" not in operator:
        document.fault(("report", "baseline"), f"no operator {operator!r}{did_you_mean(operator, operators)}")
    elif not document.faults and baseline not in measured:
        # With other faults the rows are not complete, and this may be no fault.
        what = f"the suite measures no {baseline!r}{did_you_mean(baseline, measured)}"
        document.fault(("report", "baseline"), what)
