"""From runs to the view-model: what a reader asked for, in the order a report tells it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opbench.errors import OpbenchError, did_you_mean
from opbench.plain import plain
from opbench.report import keys, published
from opbench.report.answer import answer
from opbench.report.appendix import alerts, appendix
from opbench.report.columns import of_rows
from opbench.report.groups import ordered, spread
from opbench.report.legend import legend
from opbench.report.model import Section, Table, View
from opbench.report.rows import Row, rows
from opbench.report.scans import scans
from opbench.report.side_by_side import distinct, side_by_side
from opbench.results import full_name
from opbench.settings import SortBy
from opbench.store import Run

TITLE_LIMIT = 200
TEXT_LIMIT = 2000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a reader may ask for; None leaves it to the suite."""

    group_by: tuple[str, ...] = ()
    """Keys whose values a table has in common; none gives tables of rows that may be compared, and scans."""
    sort_by: SortBy | None = None
    baseline: str | None = None
    """'operator' or 'operator/implementation'."""


def view(runs: Sequence[Run], options: Options = Options()) -> View:
    """Make the view of one run or several; each run is a section of its own, after what several have in common.

    Raises:
        OpbenchError: an option names a key or an operator that no run has.
    """
    if options.baseline is not None:
        _check_baseline(options.baseline, runs)
    keys.check_keys(options.group_by, (record for run in runs for record in run.records))
    told_apart, remarks = distinct(runs)
    sections = tuple(_section(run, options) for run in told_apart)
    comparison = side_by_side(sections, options.group_by, options.sort_by)
    if comparison is not None:
        sections = tuple(
            replace(section, title=f"{section.title} ({label})")
            for section, label in zip(sections, comparison.labels, strict=True)
        )
    return View(remarks=remarks, sections=sections, command=_command(runs, options), comparison=comparison)


def _section(run: Run, options: Options) -> Section:
    header = run.header
    baseline = options.baseline or header.report.baseline
    made = rows(run.records, baseline)
    compared = header.report.published and not options.group_by
    return Section(
        title=plain(header.title, TITLE_LIMIT),
        question=plain(header.question, TEXT_LIMIT),
        answer=published.answer(run.records) if compared else answer(made, baseline, len(run.missing)),
        alerts=alerts(run),
        tables=tuple(
            published.tables(run.records)
            if compared
            else _tables(made, options.group_by, options.sort_by or header.report.sort_by, baseline)
        ),
        blocks=(
            *([published.explanation(run.records)] if compared else [legend(made, header.measure, baseline)]),
            *appendix(run, made),
        ),
        run=run,
        rows=made,
        baseline=baseline,
        group_by=options.group_by,
        sort_by=options.sort_by or header.report.sort_by,
    )


def _tables(made: Sequence[Row], group_by: Sequence[str], sort_by: SortBy, baseline: str | None) -> list[Table]:
    everywhere = spread(made)
    group_keys = group_by or keys.COMPARABLE
    tables = [
        of_rows(keys.title(group_keys, values), ordered(group, sort_by), baseline)
        for values, group in keys.grouped(everywhere, group_keys).items()
    ]
    return tables if group_by else [*scans(everywhere, baseline), *tables]


def _check_baseline(baseline: str, runs: Sequence[Run]) -> None:
    recorded = {record.name for run in runs for record in run.records}
    planned = {full_name(case.name, name) for run in runs for case, name in run.header.plan}
    known = sorted(recorded | planned)
    if baseline not in known:
        raise OpbenchError(f"no run has {baseline!r} to be the baseline{did_you_mean(baseline, known)}")


def _command(runs: Sequence[Run], options: Options) -> str:
    command = ["opbench", "report", *(str(run.directory) for run in runs)]
    if options.group_by:
        command += ["--group-by", ",".join(options.group_by)]
    if options.sort_by:
        command += ["--sort-by", options.sort_by]
    if options.baseline:
        command += ["--baseline", options.baseline]
    return plain(shlex.join(command))
