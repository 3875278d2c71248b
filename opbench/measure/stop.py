"""When a process has warmed up, and when it has sampled enough: pure decisions over the samples so far.

Looking at a growing stream again and again until it seems precise would overstate its precision, so both rules look
at few, geometrically spaced counts. In simulation (streams of 2 % spread, lag-one correlation 0.7 and rare spikes)
the 95 % interval at the stop holds the true median in 93 of 100 runs. At a correlation of 0.95 it is 88 for a precision
of 0.5 %, and 74 for one of 1 %, which is reached before the stream has forgotten its beginning often enough. Several
processes guard against that: they share no stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opbench.measure import statistics

GROWTH = 1.3

Stopped = Literal["precise", "max_samples", "max_seconds"]


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Sample until the median is precise and steady, or a cap is reached."""

    precision: float = 0.01
    """Half-width of the 95 % interval as a fraction of the median."""
    max_samples: int = 4000
    max_seconds: float = 3.0
    first_look: int = 50

    def decide(self, samples: Sequence[float], elapsed_seconds: float) -> Stopped | None:
        """Say why to stop after these samples, or None to go on.

        Looks at 50, 66, 86, … samples and at a cap. 'precise' asks for two things: the interval of the median is
        within the precision, and the medians of the two halves agree within twice that.
        """
        full = len(samples) >= self.max_samples
        late = elapsed_seconds >= self.max_seconds
        due = full or late or is_look(len(samples), self.first_look)
        if due and len(samples) >= self.first_look and self._is_precise(samples):
            return "precise"
        if full:
            return "max_samples"
        return "max_seconds" if late else None

    def _is_precise(self, samples: Sequence[float]) -> bool:
        return (
            statistics.halves_apart(samples) <= 2 * self.precision and statistics.half_width(samples) <= self.precision
        )


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Discard samples until two successive windows agree, however many that takes.

    The windows are the second and the last third of what was taken so far. They grow with the wait: windows of a
    fixed length would agree in the middle of any approach that is slow compared with them.
    """

    agreement: float = 0.01
    """Relative distance of the windows' medians at which the process counts as warm."""
    max_seconds: float = 1.0
    first_look: int = 30

    def done(self, samples: Sequence[float], elapsed_seconds: float) -> bool:
        """Say whether sampling may begin; looks at 30, 40, 53, … samples."""
        if elapsed_seconds >= self.max_seconds:
            return True
        if not is_look(len(samples), self.first_look):
            return False
        window = len(samples) // 3
        return statistics.apart(samples[-2 * window : -window], samples[-window:]) <= self.agreement


def is_look(count: int, first: int) -> bool:
    """Whether a rule that first looks at `first` samples, then at 1.3 times as many and one more, looks now."""
    return next_look(count, first) == count


def next_look(count: int, first: int) -> int:
    """The least number of samples, from `count` on, at which such a rule looks."""
    look = first
    while look < count:
        look = int(GROWTH * look) + 1
    return look
