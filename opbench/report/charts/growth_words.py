"""What grows how, and who changes places with whom, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from opbench.report.charts.growth import Crossed, Growth, Line, Quantity
from opbench.report.charts.model import text
from opbench.report.charts.roofs import absence
from opbench.report.words import outcome_in_words

MOST_NAMED = 3
"""Crossovers that the finding names."""
MOST_CROSSOVERS = 60
"""Crossovers that the data hold: lines that wind around each other have thousands."""


def finding(quantity: Quantity, axis: str, found: Sequence[Growth]) -> str:
    """'Forward: time grows as side^1.71 [1.60, 1.82] (involution) to …. Crossovers: sasa is faster than …'."""
    growth = found[0]
    lines = sorted((line for line in growth.lines if line.law), key=lambda line: line.law.exponent if line.law else 0.0)
    laws = dict.fromkeys(f"{_law(axis, line)} ({line.label}{_doubt(line)})" for line in (lines[0], lines[-1]))
    head = f"{growth.setting}: " if growth.setting else ""
    sentence = f"{head}{quantity.words} grows as {' to '.join(laws)}."
    sentence = f"{sentence[0].upper()}{sentence[1:]}"
    named = [_told(quantity, axis, crossed) for crossed in growth.crossed[:MOST_NAMED]]
    crossovers = f" Crossovers: {'; '.join(named)}." if named else ""
    in_all = sum(len(each.crossed) for each in found)
    kept = f"; {MOST_CROSSOVERS} of them are shown" if in_all > MOST_CROSSOVERS else ""
    others = f" In all settings, {in_all} pairs change places{kept}." if in_all > len(named) else ""
    absent = absence(outcome_in_words(row.record.outcome) for each in found for row in each.rows if not row.measured)
    return "".join([sentence, crossovers, others, absent])


def _told(quantity: Quantity, axis: str, crossed: Crossed) -> str:
    crossover = crossed.crossover
    at = "" if crossover.at is None else f" (they cross at {printed(crossover.at)}{interval(crossed)})"
    return (
        f"{crossed.less_below.label} is {quantity.less} than {crossed.less_above.label} at {axis} "
        f"{printed(crossover.below)} and {quantity.more} at {printed(crossover.above)}{at}"
    )


def interval(crossed: Crossed) -> str:
    """' [33.1, 41.0]', between which two lines cross; '' where that is not known."""
    low, high = crossed.crossover.low, crossed.crossover.high
    return "" if low is None or high is None else f" [{printed(low)}, {printed(high)}]"


def _law(axis: str, line: Line) -> str:
    """'side^1.90 [1.80, 2.00]'; nothing for a line of too few points."""
    law = line.law
    return f"{axis}^{law.exponent:.2f} [{law.low:.2f}, {law.high:.2f}]" if law else ""


def _doubt(line: Line) -> str:
    return "; flagged times" if any(point.doubtful for point in line.points) else ""


def number(x: float) -> float:
    """A place as the suite has it, or to three digits where it was found by interpolation."""
    return x if isinstance(x, int) else float(f"{x:.3g}")


def printed(x: float) -> str:
    """A place as people read it."""
    return text(number(x), "")
