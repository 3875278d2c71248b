"""What a machine's measured ceilings allow: the roof over one operation, and the waterline over a sequence of them.

A sequence runs one operation after the other. While one of them waits for memory, the arithmetic units stand idle, and
no later one can use what they missed; so each has a bound of its own, and the bounds add up. A roofline over the sums
of all work and all bytes overlooks this: it is never above the sum, and often far below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from opbench.results import Launches


class Work(NamedTuple):
    """What one operation of a sequence takes on paper."""

    macs: float
    """0 of what only moves or adds."""
    bytes: float
    """Read and written."""


def works(launches: Launches) -> tuple[Work, ...]:
    """What each launch takes, in the order run, without taps on padding."""
    return tuple(Work(each.macs_in_bounds, each.bytes) for each in launches.in_order)


@dataclass(frozen=True, kw_only=True)
class Roof:
    """What one device did at best with one data type."""

    macs_per_second: float
    bytes_per_second: float

    @property
    def balance_flops_per_byte(self) -> float:
        """The intensity below which memory is what an operation waits for: the height of the waterline."""
        return 2 * self.macs_per_second / self.bytes_per_second

    def attainable_macs_per_second(self, flops_per_byte: float) -> float:
        """The roof at an intensity."""
        return min(self.macs_per_second, flops_per_byte * self.bytes_per_second / 2)

    def ideal_seconds(self, macs: float) -> float:
        """The least time of the arithmetic alone, as if no byte had to be moved."""
        return macs / self.macs_per_second

    def least_seconds(self, macs: float, bytes_: float) -> float:
        """The least time of one operation that computes while it reads and writes."""
        return max(self.ideal_seconds(macs), bytes_ / self.bytes_per_second)

    def sequence_seconds(self, operations: Iterable[Work]) -> float:
        """The waterline bound: the least time of operations that run one after the other."""
        return sum(self.least_seconds(each.macs, each.bytes) for each in operations)

    def highest_efficiency(self, operations: Iterable[Work]) -> float:
        """The share of the ceiling's arithmetic that a sequence can reach; 0 of one that takes no time."""
        found = tuple(operations)
        seconds = self.sequence_seconds(found)
        return self.ideal_seconds(sum(each.macs for each in found)) / seconds if seconds else 0.0

    def pooled_efficiency(self, operations: Iterable[Work]) -> float:
        """What a roofline over the sums would promise: never less than `highest_efficiency`."""
        found = tuple(operations)
        macs = sum(each.macs for each in found)
        seconds = self.least_seconds(macs, sum(each.bytes for each in found))
        return self.ideal_seconds(macs) / seconds if seconds else 0.0
