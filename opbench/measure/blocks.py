"""What to queue on a GPU at a time, and which of it counts: pure decisions over what was planned and seen.

Samples are taken in *blocks*. A blocker holds the stream until a whole block is queued, so that the device never
waits for the host between the calls it is timed over. A block whose blocker ended too early, or within which something
was compiled or the clock was lowered, is void: its samples are dropped for that recorded cause, and never for their
values.

A launch costs the host about 2 µs at the least, and the driver's queue holds about a thousand: a block that takes the
host no more than 2 ms to queue fits it. A call that waits for the device, or that launches more than the queue holds,
cannot be held however long the blocker lasts; it is then timed as it comes, and the sampling says so.

The constants follow from such published costs; none has been calibrated on a GPU yet.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

SHORT_SECONDS = 50e-6
"""Calls below this share a sample: an event ticks at half a microsecond, and starting a kernel takes a few."""
SHORTEST_SAMPLE_SECONDS = 200e-6
MOST_CALLS = 200
"""Most calls of a sample: 1 µs each, which is less than a kernel takes that does nothing."""
MOST_SAMPLES = 50
MOST_QUEUED_SECONDS = 2e-3
LONGEST_BLOCK_SECONDS = 0.1
"""Limits of one block: its samples, the host's time to queue them, the device's to run them."""
HOLD_FACTOR = 3.0
"""How much longer than queuing is foreseen to take the stream is held."""
SHORTEST_HOLD_SECONDS, LONGEST_HOLD_SECONDS = 1e-3, 0.25
PATIENCE = 5
"""Blocks that may be void for one cause, before it counts as a property of the call or the machine."""
ESCAPED_SECONDS = 100e-6
"""Work this long, and longer than all that was seen of it, cannot be the cost of waiting for the device."""

Cause = Literal["not held", "compiled", "throttled"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to queue, and how long a blocker to queue it behind."""

    samples: int
    hold_seconds: float
    """0 where holding the stream has proved impossible."""


def calls_per_sample(seconds_per_call: float) -> int:
    """How many calls make a sample: one of a long call, else as many as last 200 µs."""
    if seconds_per_call >= SHORT_SECONDS:
        return 1
    return min(MOST_CALLS, math.ceil(SHORTEST_SAMPLE_SECONDS / max(seconds_per_call, 1e-9)))


def is_short(seconds_per_call: float) -> bool:
    """Whether a call is also timed as a graph: where it ends sooner than most hosts can launch the next."""
    return seconds_per_call < SHORT_SECONDS


def plan(host_seconds: float, device_seconds: float) -> Plan:
    """Plan blocks of samples that take the host and the device so long."""
    fitting = min(MOST_QUEUED_SECONDS / max(host_seconds, 1e-9), LONGEST_BLOCK_SECONDS / max(device_seconds, 1e-9))
    samples = max(1, min(MOST_SAMPLES, int(fitting)))
    hold = HOLD_FACTOR * samples * host_seconds
    return Plan(samples=samples, hold_seconds=min(LONGEST_HOLD_SECONDS, max(SHORTEST_HOLD_SECONDS, hold)))


def gentler(tried: Plan) -> Plan:
    """Plan anew after a blocker that ended too early: half the samples behind one twice as long; at the end, none."""
    longer = 2 * tried.hold_seconds
    if tried.samples == 1 and longer > LONGEST_HOLD_SECONDS:
        return replace(tried, hold_seconds=0.0)
    return Plan(samples=max(1, tried.samples // 2), hold_seconds=min(LONGEST_HOLD_SECONDS, longer))


def void(planned: Plan, *, held: bool, compiled: bool, throttled: bool) -> Cause | None:
    """Say why a block's samples do not count; None where they do.

    Compiling comes first, because it holds up the host and so ends the hold as well.
    """
    if compiled:
        return "compiled"
    if planned.hold_seconds and not held:
        return "not held"
    return "throttled" if throttled else None


def escaped(call_seconds: float, host_seconds: float, device_seconds: float) -> bool:
    """Whether a call's device works longer than the events on its stream saw.

    A caller who launches on an idle device and waits for it waits no longer than launching and running take one after
    the other. Much longer, and the call has worked where no event saw it: on another stream.
    """
    return call_seconds > 2 * (host_seconds + device_seconds) + ESCAPED_SECONDS


@dataclass
class Ledger:
    """Which samples were dropped and why, and what cannot be helped."""

    voided: Counter[str] = field(default_factory=Counter)
    """Samples dropped, by cause."""
    despite: dict[Cause, None] = field(default_factory=dict)
    """Causes that samples are kept in spite of, in the order they came up."""
    _blocks: Counter[Cause] = field(default_factory=Counter)

    def drops(self, cause: Cause, samples: int) -> bool:
        """Enter a block that is void; return whether to drop it, or to keep it as the cause does not cease."""
        self._blocks[cause] += 1
        # Blocks that were not held are planned anew, and that comes to an end by itself.
        if cause != "not held" and self._blocks[cause] > PATIENCE:
            self.lives_with(cause)
            return False
        self.voided[cause] += samples
        return True

    def lives_with(self, cause: Cause) -> None:
        """Keep samples in spite of a cause from now on."""
        self.despite[cause] = None
