"""What charts are made from: a run's rows, each with the setting it may be compared in and a label of its own."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from opbench.plain import plain
from opbench.report import keys
from opbench.report.columns import differing_params, name
from opbench.report.groups import spread
from opbench.report.rows import Row
from opbench.report.words import DOUBTFUL_TIME
from opbench.settings import Metric
from opbench.store import Run


@dataclass(frozen=True)
class Material:
    """A run's rows, and what its charts say of each."""

    run: Run
    rows: tuple[Row, ...]
    baseline: str | None

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Of the keys that rows must share to be compared, those that the run varies."""
        return tuple(key for key in keys.COMPARABLE if len(_values(self.rows, key)) > 1)

    @property
    def shared(self) -> str:
        """What all rows have in common: 'layer, 1x64x28x28, float32, contiguous, cold cache, 1 thread, cpu, eager'."""
        shared = [key for key in keys.COMPARABLE if key not in self.varying]
        values = [next(iter(_values(self.rows, key)), None) for key in shared]
        return keys.title(shared, values) if any(value is not None for value in values) else ""

    def setting(self, row: Row, without: Sequence[str] = ()) -> str:
        """What tells the row's setting from the run's others: 'forward', 'training, 1x64x28x28'; '' where nothing does.

        Args:
            row: one of the rows.
            without: keys that the chart spans, so that they tell no settings apart.
        """
        return self.told_by(row, [key for key in self.varying if key not in without])

    def told_by(self, row: Row, varying: Sequence[str]) -> str:
        """A row's values of some keys, of a policy only what varies; '' without keys."""
        found = [part for key in varying for part in (self._parts if key == "policy" else (key,))]
        return keys.title(found, keys.values(row, found)) if found else ""

    @cached_property
    def _parts(self) -> tuple[str, ...]:
        """What varies of a policy."""
        return tuple(part for part in keys.POLICY if len(_values(self.rows, part)) > 1)

    def settings(self, rows: Sequence[Row], without: Sequence[str] = ()) -> tuple[str, ...]:
        """The settings of some rows, forward ones first; empty where there is but one."""
        in_order = sorted(rows, key=lambda row: row.record.case.pass_ != "forward")
        found = tuple(dict.fromkeys(self.setting(row, without) for row in in_order))
        return found if len(found) > 1 else ()

    def label(self, row: Row) -> str:
        """The row's name, with those of its parameters that tell it from others of that name in its setting."""
        return self._labels[id(row)]

    @cached_property
    def _labels(self) -> dict[int, str]:
        labels: dict[int, str] = {}
        taken: Counter[object] = Counter()
        by_name = keys.grouped(self.rows, ("operator", "network", "implementation", *keys.COMPARABLE))
        for alike in by_name.values():
            for row, params in zip(alike, differing_params(alike), strict=True):
                label = " ".join(filter(None, [name(row), params]))
                # Long names are cut, and what is left may be another's.
                place = (label, keys.values(row, keys.COMPARABLE))
                taken[place] += 1
                labels[id(row)] = label if taken[place] == 1 else f"{label} ({taken[place]})"
        return labels

    @property
    def command(self) -> str:
        """The command line that runs the suite again."""
        return plain(shlex.join(["opbench", "run", self.run.header.suite_path]))

    @cached_property
    def spread(self) -> Material:
        """The same, with what was never timed under each policy of its setting, so that each says what it lacks."""
        return replace(self, rows=tuple(spread(self.rows)))

    @cached_property
    def once(self) -> tuple[Row, ...]:
        """The first row of each record, for what does not depend on the policy."""
        return tuple({row.record.key: row for row in reversed(self.rows)}.values())[::-1]

    def to_measure(self, metric: Metric) -> str:
        """Why a chart has no data that a metric gives, and the command that gives them."""
        if metric not in self.run.header.metrics:
            return f"This run did not measure {metric}: add it to the suite's metrics and run {self.command}."
        return f"This run has no {metric}: nothing in it could be measured, or it is not finished; run {self.command}."


def finite(value: float | None) -> float | None:
    """A number that JSON can hold; None for the infinite end of an interval."""
    return value if value is not None and math.isfinite(value) else None


def ends(low: float, high: float) -> tuple[float, float] | tuple[None, None]:
    """Both ends of an interval, for a logarithmic scale; none where one of them lies at zero or at infinity."""
    return (low, high) if low > 0 and math.isfinite(high) else (None, None)


def is_doubtful(row: Row) -> bool:
    """Whether a time has flags under which its interval cannot be trusted."""
    return row.measured is not None and bool(DOUBTFUL_TIME & set(row.measured.flags))


def _values(rows: Sequence[Row], key: str) -> list[object]:
    """The values a key takes in rows that have one: what was never timed has no policy, and tells no settings apart."""
    return [value for value in keys.distinct(rows, key) if value is not None]
