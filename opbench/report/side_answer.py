"""One sentence on several runs: how many times differ, and which differs most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from opbench import units
from opbench.measure.statistics import Ratio
from opbench.report import keys
from opbench.report.columns import differing_params, name
from opbench.report.matches import Match, difference, of_records
from opbench.report.words import DOUBTFUL_TIME, listed, several


class _Divided(NamedTuple):
    match: Match
    ratio: Ratio
    doubts: frozenset[str]


def answer(found: Sequence[Match], labels: Sequence[str], preposition: Literal["in", "on"]) -> str:
    """Say for each run but the first how many of the common times are faster and slower than in the first.

    Args:
        found: what the runs have in common.
        labels: what the runs are called.
        preposition: things happen 'in' a run and 'on' a machine.
    """
    if not found:
        return "The runs have no record in common: no case with the same implementation, so nothing is side by side."
    if not any(match.policies for match in found):
        return f"The runs have {several(len(of_records(found)), 'record')} in common, and no times of them."
    return " ".join(_against_first(found, labels, index, preposition) for index in range(1, len(labels)))


def _against_first(found: Sequence[Match], labels: Sequence[str], index: int, preposition: str) -> str:
    divided = [
        _Divided(match, ratio, _doubts(match, index)) for match in found if (ratio := match.ratios[index]) is not None
    ]
    both = "both runs" if len(labels) == 2 else f"{labels[0]} and {labels[index]}"
    sentence = (
        _tally(divided, both, f"{preposition} {labels[index]}") if divided else f"Nothing of {both} may be divided"
    )
    return "; ".join([sentence, *_remainder(found, divided, index)]) + "."


def _tally(divided: Sequence[_Divided], both: str, where: str) -> str:
    """'Of 26 times that both runs have, 3 are faster in …, 1 is slower and 22 show no difference; the greatest …'."""
    shown = Counter(difference(each.ratio) for each in divided)
    head = f"Of {several(len(divided), 'time')} that {both} have, "
    changed = [each for each in divided if difference(each.ratio) != "none shown"]
    if not changed:
        return f"{head}none shows a difference"
    parts = [f"{_are(shown[way])} {way}" for way in ("faster", "slower") if shown[way]]
    parts[0] += f" {where}"
    if shown["none shown"]:
        parts.append(f"{shown['none shown']} {'shows' if shown['none shown'] == 1 else 'show'} no difference")
    greatest = max(changed, key=lambda each: abs(math.log(each.ratio.value)))
    value, interval = units.ratio_interval(greatest.ratio.value, greatest.ratio.low, greatest.ratio.high)
    doubts = f" ({', '.join(sorted(greatest.doubts))})" if greatest.doubts else ""
    return (
        f"{head}{listed(parts)}; the greatest change is {_named(greatest.match, divided)} at {value} {interval}{doubts}"
    )


def _remainder(found: Sequence[Match], divided: Sequence[_Divided], index: int) -> Iterator[str]:
    """What the tally leaves out, or should not be taken at its word."""
    doubtful = [each for each in divided if each.doubts]
    if doubtful:
        flags = ", ".join(sorted(set().union(*(each.doubts for each in doubtful))))
        yield f"{len(doubtful)} of these {'rests' if len(doubtful) == 1 else 'rest'} on times flagged {flags}"
    refused = sum(
        bool(match.refused[index]) and match.rows[0] is not None and match.rows[0].latency is not None
        for match in found
    )
    if refused:
        yield f"{_are(refused)} side by side and not divided, for the reasons below"
    lost = sum(_timed(match, 0) and _untimed(match, index) for match in found)
    gained = sum(_untimed(match, 0) and _timed(match, index) for match in found)
    if lost or gained:
        yield f"{lost + gained} {'was' if lost + gained == 1 else 'were'} timed in one of them and not in the other"


def _named(match: Match, divided: Sequence[_Divided]) -> str:
    """The operator, and what tells its row from the other rows that were divided."""
    rows = [each.match.any_row for each in divided]
    varying = [key for key in keys.COMPARABLE if len(keys.distinct(rows, key)) > 1]
    alike = [row for row in rows if row.record.name == match.any_row.record.name]
    params = differing_params(alike)[next(i for i, row in enumerate(alike) if row is match.any_row)]
    place = keys.title(varying, keys.values(match.any_row, varying)) if varying else ""
    where = "; ".join(filter(None, [place, params]))
    return name(match.any_row) + (f" ({where})" if where else "")


def _doubts(match: Match, index: int) -> frozenset[str]:
    measured = [row.measured for row in (match.rows[0], match.rows[index]) if row is not None]
    return DOUBTFUL_TIME & {flag for each in measured if each for flag in each.flags}


def _timed(match: Match, index: int) -> bool:
    row = match.rows[index]
    return row is not None and row.latency is not None


def _untimed(match: Match, index: int) -> bool:
    row = match.rows[index]
    return row is not None and row.latency is None


def _are(number: int) -> str:
    return f"{number} is" if number == 1 else f"{number} are"
