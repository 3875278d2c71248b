"""Beside what papers print of their networks, what the same networks count under the papers' own rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from opbench import units
from opbench.networks import catalogue, published, rounding
from opbench.networks.conventions import CONVENTIONS
from opbench.networks.published import Published
from opbench.report.cells import Draft, table
from opbench.report.model import Block, Column, Table
from opbench.report.words import NONE
from opbench.results import Counts, Record

_Known = Mapping[tuple[str, tuple[int, ...]], Counts]
"""Counts of published networks, by the network's name and input."""


def tables(records: Iterable[Record]) -> list[Table]:
    """A table for each published one of which some network was counted, in the order of the sources."""
    known = _counted(records)
    lines: dict[str, list[_Line]] = {}
    for row in published.rows():
        counts = known.get((row.network, row.input))
        if counts is not None:
            lines.setdefault(row.table, []).append(_Line(row, counts, _baseline(row, known)))
    return [_table(title, group) for title, group in lines.items()]


def answer(records: Iterable[Record]) -> str:
    """How many of the printed figures are met, in a sentence."""
    known = _counted(records)
    shown = [_Line(row, known[key], None) for row in published.rows() if (key := (row.network, row.input)) in known]
    tally = [verdict for line in shown for verdict in line.verdicts]
    counted = ", ".join(f"{tally.count(verdict)} {_VERDICTS[verdict]}" for verdict in _VERDICTS if verdict in tally)
    networks = len({line.row.network for line in shown if line.verdicts})
    assumed = sum(verdict != "differs" for line in shown if line.row.inferred for verdict in line.verdicts)
    caveat = (
        f" {assumed} of those met rest on something inferred because it fits, which a note names." if assumed else ""
    )
    return f"Of {len(tally)} printed figures of {networks} networks, {counted}.{caveat}"


def explanation(records: Iterable[Record]) -> Block:
    """What the columns mean, under which rules was counted, and where the printed figures were read."""
    known = _counted(records)
    shown = [row for row in published.rows() if (row.network, row.input) in known]
    rules = dict.fromkeys(row.convention for row in shown)
    sources = {row.table: row.source for row in shown}
    return Block(
        title="Published figures",
        lines=(
            "'exact': the count prints as the paper printed it, rounded half up. 'by way of two decimals': it does if "
            "it is rounded to two decimals first, as some tables were made. What differs says why.",
            "'inferred': what the source does not say, or says otherwise, and is assumed because the printed figures "
            "fit it. Such a row shows that the figures can be explained, and not that they were made so.",
            "Parameters are those that are learned; a detector's frozen stages are not.",
            "FLOPs are under the rule of the table's own paper; MACs are opbench's, and nothing else is counted there.",
            "Percentages saved: the printed ones are of values rounded to one decimal, ours of the counts.",
            "Accuracies are cited. opbench trains nothing: they were not measured here.",
            *(f"{name}: {CONVENTIONS[name].rule} (used by: {CONVENTIONS[name].used_by})" for name in rules),
            *(f"{title}: {source}" for title, source in sources.items()),
        ),
    )


_VERDICTS: Mapping[rounding.Verdict, str] = {
    "exact": "are met to the digit",
    "exact by way of two decimals": "by way of two decimals",
    "differs": "differ, with the reason",
}
"""How a sentence says so many of them."""


@dataclass(frozen=True)
class _Line:
    """One published line, what its network counts, and what the network its percentages refer to counts."""

    row: Published
    counts: Counts
    baseline: tuple[int | None, int] | None

    @property
    def flops(self) -> int:
        return self.counts.conventions[self.row.convention]

    @property
    def figures(self) -> tuple[tuple[str, int | None, str], ...]:
        """(printed, counted, why they differ) of parameters and FLOPs."""
        return (
            (self.row.parameters, self.counts.parameters, self.row.parameters_differ),
            (self.row.flops, self.flops, self.row.flops_differ),
        )

    @property
    def verdicts(self) -> list[rounding.Verdict]:
        return [rounding.compare(text, count) for text, count, _ in self.figures if text and count is not None]


def _counted(records: Iterable[Record]) -> _Known:
    """Counts of the networks as published: with their own operator, its parameters unchanged."""
    known: dict[tuple[str, tuple[int, ...]], Counts] = {}
    for record in records:
        case, counts = record.case, record.counts
        if case.network is None or case.params or counts is None or not counts.conventions:
            continue
        network = catalogue.networks().get(case.network)
        if network is not None and network.operator == case.operator:
            known.setdefault((case.network, case.shape), counts)
    return known


def _baseline(row: Published, known: _Known) -> tuple[int | None, int] | None:
    """Parameters and FLOPs of the network that percentages are relative to, under the rule of its own line."""
    for other in published.rows():
        counts = known.get((other.network, other.input))
        if other.network == row.baseline and other.input == row.input and counts is not None:
            return counts.parameters, counts.conventions[other.convention]
    return None


def _table(title: str, lines: Sequence[_Line]) -> Table:
    columns = [
        _text("operator", "network"),
        _text("input", "input", rank=9),
        _number("parameters", "parameters, printed"),
        _number("parameters_ours", "ours"),
        _number("flops", "FLOPs, printed"),
        _number("flops_ours", "ours"),
        _text("rule", "rule"),
        _number("macs", "MACs, ours", rank=5),
        _number("saved", "saved, printed", rank=7),
        _number("saved_ours", "saved, ours", rank=8),
        _text("accuracy", "accuracy, cited", rank=6),
        _text("notes", "printed parameters and FLOPs are met", rank=3),
    ]
    return table(title, columns, list(zip(*map(_drafts, lines), strict=True)))


def _drafts(line: _Line) -> list[Draft]:
    row, (parameters, flops) = line.row, line.figures
    return [
        Draft(row.model or row.network),
        Draft(str(row.input)),
        *_figure(*parameters),
        *_figure(*flops),
        Draft(row.convention),
        Draft(NONE if line.counts.macs_dense is None else units.count(line.counts.macs_dense)),
        Draft(", ".join(filter(None, row.saved)) or NONE),
        Draft(_saved(line)),
        Draft(row.accuracy or NONE),
        _verdict(line),
    ]


def _figure(printed: str, counted: int | None, _: str) -> tuple[Draft, Draft]:
    if counted is None:
        return Draft(printed or NONE), Draft()
    # With two digits more than the paper: enough to see how it was rounded.
    return Draft(printed or NONE), Draft(rounding.printed(printed, counted) if printed else units.count(counted))


def _saved(line: _Line) -> str:
    if line.baseline is None or not any(line.row.saved):
        return NONE
    pairs = zip((line.counts.parameters, line.flops), line.baseline, strict=True)
    return ", ".join(
        NONE if ours is None or not theirs else f"{100 * (1 - ours / theirs):.1f} %" for ours, theirs in pairs
    )


def _verdict(line: _Line) -> Draft:
    """Both verdicts in a word where they are the same; the reasons of what differs as footnotes."""
    told = [
        (rounding.compare(printed, counted), why)
        for printed, counted, why in line.figures
        if printed and counted is not None
    ]
    words = [verdict for verdict, _ in told]
    reasons = [why or "not explained" for verdict, why in told if verdict == "differs"]
    if line.row.inferred:
        reasons.append(f"inferred: {line.row.inferred}")
    if not words:
        return Draft(
            "nothing is printed", None, tuple(filter(None, (line.row.parameters_differ, line.row.flops_differ)))
        )
    text = words[0] if len(set(words)) == 1 else "; ".join(words)
    return Draft(text, None, tuple(dict.fromkeys(reasons)))


def _text(key: str, title: str, rank: int = 0) -> Column:
    return Column(key=key, title=title, numeric=False, rank=rank)


def _number(key: str, title: str, rank: int = 0) -> Column:
    return Column(key=key, title=title, numeric=True, rank=rank)
