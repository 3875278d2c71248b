"""Intervals, ratios and reservations, on streams whose truth is known."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from opbench.errors import Incomparable
from opbench.measure.statistics import (
    Estimate,
    apart,
    busy_share,
    estimate,
    flags,
    half_width,
    halves_apart,
    middle_of,
    ratio,
    resolution,
)
from opbench.results import Policy, Sampling, Timing

COLD = Policy(cache="cold", threads=1)
HOT = Policy(cache="hot", threads=1)

# Two-sided 95 % quantiles of Student's t, from printed tables, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 6: 2.447}


def sampling(*seconds: float, stopped: str = "precise", cpu: float = 1.0) -> Sampling:
    return Sampling(
        seconds=seconds,
        calls_per_sample=1,
        warmup_samples=0,
        first_seconds=1.0,
        cpu_seconds=cpu,
        wall_seconds=1.0,
        overhead_seconds=0.0,
        stopped=stopped,  # type: ignore[arg-type]
    )


def timing(*processes: Sampling, policy: Policy = COLD) -> Timing:
    return Timing(policy=policy, processes=processes)


def known(median: float, low: float, high: float, policy: Policy = COLD) -> Estimate:
    return Estimate(median=median, low=low, high=high, processes=3, method="processes", policy=policy)


def steady(seconds: float, count: int = 50, spread: float = 0.001) -> tuple[float, ...]:
    """Values alternating around a median, with the rank of a hair between any two."""
    return tuple(seconds * (1 + spread * (-1) ** i + 1e-9 * i) for i in range(count))


def test_four_samples_make_two_batches_of_two() -> None:
    # Batch medians e^0 and e^2: mean of the logarithms 1, deviation √2, half-width 12.706 · √2 / √2.
    samples = [1.0, 1.0, math.e**2, math.e**2]
    assert half_width(samples) == pytest.approx(T95[1], rel=1e-4)


def test_forty_nine_samples_make_seven_batches_or_three_of_fourteen() -> None:
    medians = [0.00, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    samples = [math.exp(value) for value in medians for _ in range(7)]
    seven = T95[6] * np.std(medians, ddof=1) / math.sqrt(7)
    # Fourteen samples hold two of the batches, half of each: the median is the mean of the two values.
    pairs = [np.log(np.median(np.exp(pair))) for pair in ([0.00, 0.01], [0.02, 0.03], [0.04, 0.05])]
    three = T95[2] * np.std(pairs, ddof=1) / math.sqrt(3)
    assert three > seven
    assert half_width(samples) == pytest.approx(three, rel=1e-3)


def test_one_sample_says_nothing_about_the_spread() -> None:
    only = estimate(timing(sampling(2.0)))
    assert (only.median, only.low, only.high) == (2.0, 0.0, math.inf)
    assert only.relative_half_width == math.inf


def test_interval_of_independent_samples_is_that_of_the_theory() -> None:
    """The median of n normal values has a standard deviation of √(π/2n) times theirs."""
    rng = np.random.default_rng(1)
    widths = [half_width(np.exp(0.02 * rng.standard_normal(2500)).tolist()) for _ in range(200)]
    theory = NormalDist().inv_cdf(0.975) * math.sqrt(math.pi / (2 * 2500)) * 0.02
    # Wider by the t quantiles of 49 and 24 degrees of freedom, and by keeping the wider of two.
    assert theory < np.mean(widths) < 1.25 * theory


def test_no_interval_is_narrower_than_the_clock_can_tell() -> None:
    """All samples read 3 or 4 ticks and nearly all read 3: the batches agree, and yet a tick is a third of it."""
    ticks = ([3.0] * 49 + [4.0]) * 8
    assert half_width(ticks) == pytest.approx(1 / 3)
    assert half_width([5.0] * 100) == 1.0
    three = estimate(timing(sampling(*ticks), sampling(*ticks), sampling(*ticks)))
    assert three.low == pytest.approx(3 * math.exp(-1 / 3))
    assert three.high == pytest.approx(3 * math.exp(1 / 3))


def test_resolution_is_the_smallest_step_seen() -> None:
    assert resolution([7.0, 5.0, 5.0, 5.5, 9.0]) == 0.5
    assert resolution([5.0, 5.0]) == 5.0


@pytest.mark.parametrize("samples", [[], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan]])
def test_what_is_not_a_time_is_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        half_width(samples)


def test_a_timing_without_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="no median"):
        estimate(timing())


def test_halves_are_compared_by_their_medians() -> None:
    assert halves_apart([1.0, 1.0, 99.0, math.e, math.e, math.e]) == pytest.approx(1.0)
    assert halves_apart([1.0]) == 0.0
    assert apart([1.0, 2.0, 3.0], [2.0]) == 0.0


def test_one_process_is_judged_by_its_batches() -> None:
    samples = steady(3.0)
    found = estimate(timing(sampling(*samples)))
    half = half_width(samples)
    assert found.method == "batch_means"
    assert found.processes == 1
    assert found.median == pytest.approx(3.0, rel=1e-3)
    assert found.high / found.median == pytest.approx(math.exp(half))
    assert found.median / found.low == pytest.approx(math.exp(half))
    assert found.relative_half_width == pytest.approx(half, rel=1e-3)


def test_several_processes_are_judged_by_their_spread() -> None:
    """Logarithms of the medians -0.1, 0, 0.1: the t-interval with two degrees of freedom is ±4.303 · 0.1 / √3."""
    runs = [sampling(*[math.exp(value)] * 3 + [math.exp(value) + 1e-6]) for value in (0.1, -0.1, 0.0)]
    found = estimate(timing(*runs))
    half = T95[2] * 0.1 / math.sqrt(3)
    assert found.method == "processes"
    assert found.processes == 3
    assert found.median == pytest.approx(1.0)
    assert math.log(found.high) == pytest.approx(half, rel=1e-4)
    assert math.log(found.low) == pytest.approx(-half, rel=1e-4)


def test_processes_with_one_long_sample_each_are_judged_by_their_spread_too() -> None:
    found = estimate(timing(*(sampling(math.exp(value)) for value in (0.1, -0.1, 0.0))))
    assert math.log(found.high) == pytest.approx(T95[2] * 0.1 / math.sqrt(3), rel=1e-4)


def test_samples_are_never_pooled_across_processes() -> None:
    """A process with a thousand samples weighs as much as one with four."""
    many, few = steady(1.0, 1000), steady(2.0, 4)
    found = estimate(timing(sampling(*many), sampling(*few), sampling(*few)))
    assert found.median == pytest.approx(2.0, rel=1e-2)


def test_interval_between_processes_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        runs = [sampling(*steady(math.exp(0.01 * rng.standard_normal()), 20, 0.0)) for _ in range(3)]
        found = estimate(timing(*runs))
        assert found.low <= found.median <= found.high
        hits += found.low <= 1.0 <= found.high
    # 95 % of 400 is 380, with a standard deviation of 4.4.
    assert 365 <= hits <= 395


def test_ratio_adds_squares_of_distances() -> None:
    one = known(2.0, 2.0 * math.exp(-0.03), 2.0 * math.exp(0.06))
    other = known(4.0, 4.0 * math.exp(-0.08), 4.0 * math.exp(0.04))
    found = ratio(one, other)
    assert found.value == 0.5
    assert math.log(found.value / found.low) == pytest.approx(0.05)  # 0.03 and 0.04
    assert math.log(found.high / found.value) == pytest.approx(0.10)  # 0.06 and 0.08


def test_ratio_turned_round_is_the_inverse() -> None:
    one, other = known(2.0, 1.9, 2.3), known(5.0, 4.8, 5.1)
    there, back = ratio(one, other), ratio(other, one)
    assert back.value == pytest.approx(1 / there.value)
    assert back.low == pytest.approx(1 / there.high)
    assert back.high == pytest.approx(1 / there.low)


def test_ratio_with_an_unknown_interval_is_unknown() -> None:
    found = ratio(known(1.0, 0.9, 1.1), known(2.0, 0.0, math.inf))
    assert (found.value, found.low, found.high) == (0.5, 0.0, math.inf)


def test_times_under_different_policies_are_not_divided() -> None:
    with pytest.raises(Incomparable, match=r"cold cache, 1 thread.*hot cache, 1 thread") as raised:
        ratio(known(1.0, 0.9, 1.1, COLD), known(1.0, 0.9, 1.1, HOT))
    assert raised.value.exit_status == 4


def test_busy_share_counts_every_thread() -> None:
    run = replace(sampling(1.0), cpu_seconds=3.0, wall_seconds=2.0)
    assert busy_share(run) == 1.5
    assert busy_share(run, threads=2) == 0.75


def test_a_precise_and_busy_run_has_no_flags() -> None:
    assert flags([timing(sampling(*steady(1.0)))], 0.01) == ()


def test_unstable_is_a_cap_with_halves_that_disagree() -> None:
    shifted = (*steady(1.0), *steady(1.03))
    assert "unstable" in flags([timing(sampling(*shifted, stopped="max_samples"))], 0.01)
    assert "unstable" not in flags([timing(sampling(*shifted, stopped="max_samples"))], 0.02)
    assert "unstable" not in flags([timing(sampling(*shifted))], 0.01)


def test_imprecise_is_a_cap_with_a_wide_interval() -> None:
    rng = np.random.default_rng(3)
    # Each value and its inverse, so that both halves have the same median.
    half = np.exp(0.3 * rng.standard_normal(50))
    wide = tuple(np.concatenate([half, half[::-1]]).tolist())
    assert half_width(wide) > 0.02
    assert flags([timing(sampling(*wide, stopped="max_seconds"))], 0.02) == ("imprecise",)
    assert flags([timing(sampling(*wide, stopped="max_seconds"))], 0.9) == ()


def test_noisy_is_a_process_that_did_not_get_its_processor() -> None:
    """The share seen when another program has most of the machine is 0.06 to 0.14; one idle thread of two is 0.5."""
    calm = sampling(*steady(1.0))
    starved = sampling(*steady(1.0), cpu=0.14)
    assert flags([timing(calm, starved, calm)], 0.01) == ("noisy",)
    assert flags([timing(calm, policy=replace(COLD, threads=2))], 0.01) == ()
    assert flags([timing(starved, policy=replace(COLD, device="cuda"))], 0.01) == ()


def test_noisy_is_a_machine_on_which_tasks_waited_though_the_process_looked_busy() -> None:
    """Threads that spin at a barrier while one of them waits for its processor take all the time there is."""
    spinning = replace(sampling(*steady(1.0), cpu=2.0), stalled_seconds=0.4)
    nearly_quiet = replace(sampling(*steady(1.0), cpu=2.0), stalled_seconds=0.04)
    two_threads = replace(COLD, threads=2)
    assert flags([timing(spinning, policy=two_threads)], 0.01) == ("noisy",)
    assert flags([timing(nearly_quiet, policy=two_threads)], 0.01) == ()
    brief = replace(sampling(*steady(1.0), cpu=0.05), wall_seconds=0.05, stalled_seconds=0.01)
    assert flags([timing(brief)], 0.01) == ()


ON_GPU = replace(COLD, device="cuda")


def test_host_bound_is_a_host_that_launches_slower_than_the_gpu_runs() -> None:
    """Samples of one second; the middle of what launching took decides, not its mean."""
    run = sampling(*steady(1.0))
    slow, fast = (replace(run, host_seconds=(host, host, 100.0)) for host in (1.1, 0.9))
    assert flags([timing(fast, slow, fast, policy=ON_GPU)], 0.01) == ("host-bound",)
    assert flags([timing(fast, fast, policy=ON_GPU)], 0.01) == ()


def test_unheld_is_a_stream_that_could_not_be_held() -> None:
    assert flags([timing(replace(sampling(*steady(1.0)), despite=("not held",)), policy=ON_GPU)], 0.01) == ("unheld",)


def test_throttled_is_more_dropped_than_kept_or_no_longer_dropped() -> None:
    run = sampling(*steady(1.0))
    kept = len(run.seconds)
    assert flags([timing(replace(run, voided={"throttled": kept}), policy=ON_GPU)], 0.01) == ()
    assert flags([timing(replace(run, voided={"throttled": kept + 1}), policy=ON_GPU)], 0.01) == ("throttled",)
    assert flags([timing(replace(run, voided={"compiled": kept + 1}), policy=ON_GPU)], 0.01) == ()
    assert flags([timing(replace(run, despite=("throttled",)), policy=ON_GPU)], 0.01) == ("throttled",)


def test_the_middle_of_processes_is_that_of_their_medians() -> None:
    assert middle_of([(1.0, 2.0, 90.0), (3.0,), (4.0, 4.0)]) == 3.0
    assert middle_of([(), (5.0,)]) == 5.0
    assert middle_of([(), ()]) is None
