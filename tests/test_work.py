"""Multiply-accumulates add up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.windows import Window
from opbench.work import Macs, Work

counts = st.integers(0, 10**15)
macs = st.builds(Macs, counts, counts)
works = st.builds(Work, macs, macs)
properties = settings(derandomize=True, deadline=None)


@given(macs, st.integers(0, 1000))
@properties
def test_a_multiple_is_repeated_addition(one: Macs, times: int) -> None:
    assert one * times == times * one == sum([one] * times, start=Macs.exact(0))


@given(works, works)
@properties
def test_training_is_both_phases_and_forward_one(one: Work, other: Work) -> None:
    both = one + other
    assert both.of_pass("forward") == one.forward + other.forward
    assert both.of_pass("training") == both.of_pass("forward") + one.backward + other.backward


@given(macs)
@properties
def test_bilinear_work_trains_at_three_times_its_forward(forward: Macs) -> None:
    assert Work.bilinear(forward).of_pass("training") == 3 * forward


def test_work_without_padding_has_one_count() -> None:
    assert Macs.exact(7) == Macs(dense=7, in_bounds=7)


def test_windows_multiply_over_the_two_axes() -> None:
    """3 taps on 4 rows, stride 2: 2 outputs, 1 tap outside; 5 taps on 3 columns: 3 outputs, 6 of 15 taps outside."""
    vertical, horizontal = Window.half(3, stride=2), Window.half(5)
    assert Macs.of_windows(vertical, horizontal, height=4, width=3) == Macs(dense=6 * 15, in_bounds=5 * 9)
