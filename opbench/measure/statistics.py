"""From raw samples to a value with an interval that can be defended.

Successive samples of one process are not independent: a clock that is low now is low a millisecond later. The
interval of a median is therefore taken from *batch means*: the stream is cut into batches of about √n consecutive
samples, long enough to hold most of the correlation, and the medians of the batches are treated as independent
(Conway, "Some tactical problems in digital simulation", Management Science 10(1), 1963). Processes differ by more
than their samples do (memory layout, clock epoch), so their samples are never pooled: the value is the median of
their medians, and the interval a t-interval over the logarithms of those.

Relative widths and distances are differences of logarithms: 0.01 is one percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from opbench.errors import Incomparable
from opbench.measure.machine import QUIET_PRESSURE
from opbench.results import Policy, Sampling, Timing

CONFIDENCE = 0.95
FEWEST_BATCHES = 3
SHORTEST_STALL_SECONDS = 0.02
"""Shorter waits are a few turns of the scheduler, as any machine has them; a median does not notice."""
BUSY = 0.9
"""Least share of the wall time that a process which only computes spends on a processor."""

Flag = Literal["unstable", "imprecise", "noisy", "throttled", "unheld", "host-bound"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds per call, with its 95 % interval."""

    median: float
    low: float
    high: float
    processes: int
    method: Literal["batch_means", "processes"]
    """Where the interval is from: the batches of the only process, or the spread between processes."""
    policy: Policy

    @property
    def relative_half_width(self) -> float:
        """Half of the interval as a fraction of the median; infinite when one sample is all there is."""
        return (self.high - self.low) / (2 * self.median)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times one estimate is another, with its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(timing: Timing) -> Estimate:
    """Combine the processes of a timing; a single one is judged by its own batches.

    Raises:
        ValueError: there is no process, or one without samples or with a time that is not positive.
    """
    if not timing.processes:
        raise ValueError("a timing without processes has no median")
    streams = [sampling.seconds for sampling in timing.processes]
    if len(streams) == 1:
        median, half = float(np.median(streams[0])), half_width(streams[0])
        low, high = median * math.exp(-half), median * math.exp(half)
    else:
        median, low, high = _between_processes(streams)
    return Estimate(
        median=median,
        low=low,
        high=high,
        processes=len(streams),
        method="batch_means" if len(streams) == 1 else "processes",
        policy=timing.policy,
    )


def ratio(numerator: Estimate, denominator: Estimate) -> Ratio:
    """Divide two independent estimates.

    The distances from the medians to the ends of their intervals add up as squares, on a logarithmic scale and on
    each side for itself (Zou and Donner, Statistics in Medicine 27(10), 2008).

    Raises:
        Incomparable: they were taken under different policies.
    """
    if numerator.policy != denominator.policy:
        raise Incomparable(
            f"a time taken with {numerator.policy} cannot be divided by one taken with {denominator.policy}; "
            "measure both under one policy"
        )
    value = numerator.median / denominator.median
    below = math.hypot(_log(numerator.median, numerator.low), _log(denominator.high, denominator.median))
    above = math.hypot(_log(numerator.high, numerator.median), _log(denominator.median, denominator.low))
    return Ratio(value=value, low=value * math.exp(-below), high=value * math.exp(above))


def half_width(samples: Sequence[float]) -> float:
    """Relative half-width of the 95 % interval of the median of one stream, from batch means.

    Batches of √n and of 2√n samples are tried and the wider interval is kept: where correlation outlives the short
    batches, the long ones tell. Never narrower than the step of the clock; infinite for fewer than two samples.

    Raises:
        ValueError: a sample is not positive.
    """
    stream = _positive(samples)
    if len(stream) < 2:
        return math.inf
    length = math.isqrt(len(stream))
    halves = [_half_width_of_batches(stream, length)]
    if len(stream) // (2 * length) >= FEWEST_BATCHES:
        halves.append(_half_width_of_batches(stream, 2 * length))
    return max(*halves, resolution(samples) / float(np.median(stream)))


def halves_apart(samples: Sequence[float]) -> float:
    """Relative distance between the medians of the first and the second half of a stream; 0 below two samples."""
    if len(samples) < 2:
        return 0.0
    middle = len(samples) // 2
    return apart(samples[:middle], samples[middle:])


def apart(first: Sequence[float], second: Sequence[float]) -> float:
    """Relative distance between two medians."""
    return abs(_log(float(np.median(_positive(first))), float(np.median(_positive(second)))))


def resolution(samples: Sequence[float]) -> float:
    """Smallest step the clock has shown, in seconds per call: the least distance between samples that differ.

    When all are equal, the step may be as long as the sample itself.
    """
    distinct = np.unique(np.asarray(samples, dtype=np.float64))
    return float(np.diff(distinct).min() if len(distinct) > 1 else distinct[0])


def busy_share(sampling: Sampling, threads: int = 1) -> float:
    """Processor time by wall time and threads: about 1 on a free machine, less where others had the processors."""
    return sampling.cpu_seconds / (sampling.wall_seconds * threads)


def flags(timings: Sequence[Timing], precision: float) -> tuple[Flag, ...]:
    """Say what reservations the timings of a case deserve, for the precision they were asked for.

    - 'unstable': a process hit its cap while the medians of its halves still disagreed by twice the precision;
    - 'imprecise': a process hit its cap with an interval wider than the precision;
    - 'noisy': a process on the CPU had less than one processor to itself, or some task of the machine waited for one
      for a noticeable share of the time. More threads than one may rightly sleep while the operator runs on one, so
      the wall time is not multiplied by them; and threads that spin while another waits look busy, so the kernel's
      account of waiting tasks is asked too;
    - 'throttled': a process on a GPU dropped more samples than it kept because the clock was lowered, or gave up
      dropping them;
    - 'unheld': the stream of a process on a GPU could not be held, so its times may include what the host takes;
    - 'host-bound': launching a call took the host longer than the device took to run it.
    """
    runs = [(timing.policy, sampling) for timing in timings for sampling in timing.processes]
    capped = [sampling.seconds for _, sampling in runs if sampling.stopped != "precise"]
    found: dict[Flag, bool] = {
        "unstable": any(halves_apart(seconds) > 2 * precision for seconds in capped),
        "imprecise": any(half_width(seconds) > precision for seconds in capped),
        "noisy": any(policy.device == "cpu" and _is_disturbed(sampling) for policy, sampling in runs),
        "throttled": any(_is_throttled(sampling) for _, sampling in runs),
        "unheld": any("not held" in sampling.despite for _, sampling in runs),
        "host-bound": any(_is_host_bound(sampling) for _, sampling in runs),
    }
    return tuple(flag for flag, raised in found.items() if raised)


def middle_of(streams: Sequence[Sequence[float]]) -> float | None:
    """The median of the processes' medians, of quantities that need no interval; None where no process has any."""
    medians = [float(np.median(stream)) for stream in streams if stream]
    return float(np.median(medians)) if medians else None


def _is_host_bound(sampling: Sampling) -> bool:
    host = middle_of([sampling.host_seconds])
    return host is not None and host > float(np.median(_positive(sampling.seconds)))


def _is_throttled(sampling: Sampling) -> bool:
    return "throttled" in sampling.despite or sampling.voided.get("throttled", 0) > len(sampling.seconds)


def _is_disturbed(sampling: Sampling) -> bool:
    stalled = sampling.stalled_seconds or 0.0
    waited = stalled >= SHORTEST_STALL_SECONDS and stalled >= QUIET_PRESSURE * sampling.wall_seconds
    return busy_share(sampling) < BUSY or waited


def _between_processes(streams: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Median, low and high of the t-interval over the logarithms of the processes' medians."""
    medians = np.array([np.median(_positive(stream)) for stream in streams])
    median = float(np.median(medians))
    # A lone sample shows no step.
    step = max((resolution(stream) for stream in streams if len(stream) > 1), default=0.0) / median
    half = max(_half_width_of_mean(np.log(medians)), step)
    # The t-interval lies around the mean of the logarithms, which is not quite the median of three or five.
    centre = float(np.exp(np.log(medians).mean()))
    return median, min(median, centre * math.exp(-half)), max(median, centre * math.exp(half))


def _half_width_of_batches(stream: NDArray[np.float64], length: int) -> float:
    count = len(stream) // length
    batches = stream[: count * length].reshape(count, length)
    return _half_width_of_mean(np.log(np.median(batches, axis=1)))


def _half_width_of_mean(values: NDArray[np.float64]) -> float:
    """Half-width of the t-interval of the mean of two or more independent values."""
    # Late: its import starts threads, and a process that forks should have none without need.
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(values.std(ddof=1)) / math.sqrt(len(values))


def _positive(samples: Sequence[float]) -> NDArray[np.float64]:
    stream = np.asarray(samples, dtype=np.float64)
    if len(stream) == 0 or not bool((stream > 0).all()):
        raise ValueError("every sample must be a time above 0 s, and there must be one")
    return stream


def _log(upper: float, lower: float) -> float:
    """Logarithm of a quotient, where 0 is infinitely far below and infinity infinitely far above."""
    return math.inf if lower == 0 or math.isinf(upper) else math.log(upper / lower)
