"""Several runs side by side: what they have in common, with ratios where the conditions are equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opbench.plain import plain
from opbench.report import labels as naming
from opbench.report.changes import changes
from opbench.report.columns import NAME_LIMIT
from opbench.report.groups import ordered
from opbench.report.labels import differences, kind
from opbench.report.legend import flags_explained
from opbench.report.matches import Match, matches, of_records
from opbench.report.model import Block, Comparison, Section
from opbench.report.rows import Row
from opbench.report.side_answer import answer
from opbench.report.side_tables import memory, same_memory, shared_source, times
from opbench.report.words import NONE, NOT_APPLICABLE, several
from opbench.results import Record
from opbench.settings import SortBy
from opbench.store import Run

SHOWN = 5
"""Names of what only one run has; the others are counted."""
_NUMBERS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")


def distinct(runs: Sequence[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """The runs without those that are there already, and a remark on each that is left out.

    A copy of a run, or what there was of it before it was resumed, is the same run; the longest stays.
    """
    kept: list[Run] = []
    remarks = []
    for run in runs:
        same = next((index for index, other in enumerate(kept) if _is_same(run, other)), None)
        if same is None:
            kept.append(run)
            continue
        longer, shorter = sorted((kept[same], run), key=lambda each: -len(each.records))
        kept[same] = longer
        named = plain(str(longer.directory)) + (
            "" if longer.directory == shorter.directory else f" and {plain(str(shorter.directory))}"
        )
        remarks.append(f"{named}: the same run twice, reported once; a run is not compared with itself.")
    return kept, tuple(dict.fromkeys(remarks))


def _is_same(one: Run, other: Run) -> bool:
    """Whether what was asked, when and where is equal, and the records of one are among those of the other."""
    fewer, more = sorted((one, other), key=lambda run: len(run.records))
    known = {record.key: record for record in more.records}
    return fewer.header == more.header and all(known.get(record.key) == record for record in fewer.records)


def side_by_side(sections: Sequence[Section], group_by: Sequence[str], sort_by: SortBy | None) -> Comparison | None:
    """Compare the runs of some sections; the first is the one divided by. None for fewer than two."""
    if len(sections) < 2:
        return None
    runs = [section.run for section in sections]
    labels = naming.labels(runs)
    found = matches([section.rows for section in sections])
    in_order = _ordered(found, sort_by or runs[0].header.report.sort_by)
    return Comparison(
        title=f"{_number_word(len(runs))} {kind(runs)} side by side",
        question="What differs between them, and by how much?",
        answer=answer(found, labels, "in" if kind(runs) == "runs" else "on"),
        alerts=(*_unfinished(runs, labels), *changes(found, labels)),
        runs=Block(title="The runs", lines=tuple(_runs(runs, sections, found, labels))),
        tables=(*times(in_order, labels, group_by), *memory(in_order, labels, group_by)),
        blocks=(Block(title="How to read this comparison", lines=tuple(_legend(found, labels))),),
        labels=labels,
        directories=tuple(str(run.directory) for run in runs),
        matches=found,
    )


def _number_word(number: int) -> str:
    return _NUMBERS[number - 2] if number - 2 < len(_NUMBERS) else str(number)


def _ordered(found: Sequence[Match], sort_by: SortBy) -> list[Match]:
    # A row that was never timed stands in all matches of its record, a timed one in a single match.
    by_row = {id(row): match for match in found for row in [_timed_row(match)]}
    return [by_row[id(row)] for row in ordered([_timed_row(match) for match in found], sort_by)]


def _timed_row(match: Match) -> Row:
    return next((row for row in match.rows if row is not None and row.latency is not None), match.any_row)


def _unfinished(runs: Sequence[Run], labels: Sequence[str]) -> Iterator[str]:
    for run, label in zip(runs, labels, strict=True):
        if run.missing:
            missing = f"{len(run.missing)} of {several(len(run.header.plan), 'record')}"
            yield f"{label} is not finished: {missing} {'is' if len(run.missing) == 1 else 'are'} missing"


def _runs(
    runs: Sequence[Run], sections: Sequence[Section], found: Sequence[Match], labels: Sequence[str]
) -> Iterator[str]:
    """What the runs differ in, what each label stands for, and what is not side by side."""
    respects, texts = differences(runs)
    if respects:
        yield f"They differ in: {', '.join(respects)}. A ratio tells of all of these at once."
    for index, (run, label, text) in enumerate(zip(runs, labels, texts, strict=True)):
        role = " (the one divided by)" if index == 0 else ""
        yield f"{label}{role}: {text or 'nothing differs'}; {plain(str(run.directory))}"
    yield from _only(sections, found, labels)
    nowhere = [
        match.any_row.record for match in of_records(found) if not any(row and row.measured for row in match.rows)
    ]
    if nowhere:
        yield f"{several(len(nowhere), 'record')} measured in none of them: {_some(nowhere)}."
    yield from _memory(of_records(found))


def _only(sections: Sequence[Section], found: Sequence[Match], labels: Sequence[str]) -> Iterator[str]:
    """'12 records only in …: involution/cuda, …', and the same of times where a run lacks only the policy."""
    keys = [{record.key for record in section.run.records} for section in sections]
    shown = {id(row) for match in found for row in match.rows}
    for index, (section, label) in enumerate(zip(sections, labels, strict=True)):
        others = set().union(*keys[:index], *keys[index + 1 :])
        records = [record for record in section.run.records if record.key not in others]
        if records:
            yield f"{several(len(records), 'record')} only in {label}: {_some(records)}."
        times = [
            row for row in section.rows if row.latency is not None and row.record.key in others and id(row) not in shown
        ]
        if times:
            policies = "; ".join(dict.fromkeys(str(row.policy) for row in times))
            yield f"{several(len(times), 'time')} only in {label} ({policies}): {_some([row.record for row in times])}."


def _memory(records: Sequence[Match]) -> Iterator[str]:
    """What the tables leave out: memory that is the same, and memory that cannot be set side by side."""
    same = sum(map(same_memory, records))
    if same:
        known = sum(shared_source(match) is not None for match in records)
        yield f"Memory is the same for {same} of {several(known, 'record')}."
    apart = [
        match.any_row.record
        for match in records
        if shared_source(match) is None and sum(row is not None and row.memory() is not None for row in match.rows) > 1
    ]
    if apart:
        yield (
            f"Memory of {several(len(apart), 'record')} is not side by side, for no two runs read it from the same "
            f"source: {_some(apart)}."
        )


def _some(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(plain(record.name, NAME_LIMIT) for record in records))
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _legend(found: Sequence[Match], labels: Sequence[str]) -> Iterator[str]:
    rows: list[Row] = [row for match in found for row in match.rows if row is not None]
    ratios = [ratio for match in found for ratio in match.ratios if ratio is not None]
    if ratios:
        yield (
            f"A ratio is a run's latency divided by that of {labels[0]} for the same case, implementation, parameters "
            "and policy; below 1× is faster. Of its 95 % interval, the distances to the ends are those of the two "
            "latencies, added as squares on a logarithmic scale."
        )
        yield (
            "A difference is shown where the interval leaves out 1×; none shown means no difference that the intervals "
            "show, not that there is none."
        )
        yield (
            "About one in twenty 95 % intervals misses by chance: between equal runs, expect about "
            f"{len(ratios) / 20:.2g} of {several(len(ratios), 'ratio')} to show a difference. Nothing here is "
            "corrected for that, so it is no verdict on a regression."
        )
        yield (
            "An interval knows how the processes of one run differ, not how one day differs from another: a small "
            "difference may be that."
        )
    if any(refused for match in found for refused in match.refused):
        yield "Times under different policies, or with different parameters, stand side by side and are never divided."
    if any(shared_source(match) for match in found):
        yield (
            "Memory is side by side where the runs read it from the same source; a peak is what comes on top of what "
            "was there before its phase."
        )
    yield from flags_explained(rows)
    yield f"{NONE} means no value; a footnote says why one is refused. {NOT_APPLICABLE}: there is no such quantity."
