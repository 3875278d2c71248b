"""Power laws: the exponent of exact and of noisy ones, how often the interval holds it, where two lines cross."""

import math
from itertools import pairwise

import numpy as np
import pytest

from opbench.measure.power_law import Difference, crossovers, fit


def test_an_exact_power_law_is_found_with_no_doubt_about_it() -> None:
    law = fit([7, 14, 28, 56], [3 * x**1.5 for x in (7, 14, 28, 56)])
    assert law.exponent == pytest.approx(1.5)
    assert law.factor == pytest.approx(3)
    assert law.high - law.low < 1e-9
    assert law.misfit < 1e-9


def test_a_quantity_that_does_not_grow_has_exponent_zero_and_one_that_falls_a_negative_one() -> None:
    assert fit([1, 2, 4], [5, 5, 5]).exponent == 0
    assert fit([1, 2, 4], [8, 4, 2]).exponent == pytest.approx(-1)


def test_the_interval_is_that_of_a_textbook() -> None:
    # Logarithms to base 2: x = 0, 1, 2 and y = 0, 1, 3. Slope 1.5, residuals 1/6, -1/3, 1/6, so their squares sum to
    # 1/6; one degree of freedom; Sxx = 2. The 0.975 quantile of t with one degree is 12.706.
    law = fit([1, 2, 4], [1, 2, 8])
    assert law.exponent == pytest.approx(1.5)
    assert law.high - law.exponent == pytest.approx(12.7062 * math.sqrt(1 / 6 / 2), rel=1e-4)
    assert law.exponent - law.low == pytest.approx(law.high - law.exponent)
    # The middle point lies 2 ** (1/3) below the law.
    assert law.misfit == pytest.approx(2 ** (1 / 3) - 1)


def test_points_on_a_line_are_vouched_for_by_their_own_intervals_only() -> None:
    # The slope is (y3 - y1) / (2 ln 2): both ends move it by a tenth of that, independently.
    law = fit([1, 2, 4], [1, 2, 4], [0.1, 0.1, 0.1])
    assert law.high - law.exponent == pytest.approx(math.hypot(0.1, 0.1) / (2 * math.log(2)))
    assert fit([1, 2, 4], [1, 2, 4], [math.inf, math.inf, math.inf]).high == pytest.approx(1)


def test_the_interval_holds_the_true_exponent_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    sides = [7, 14, 28, 56, 112]
    held = 0
    for _ in range(1000):
        law = fit(sides, [side**1.9 * math.exp(0.05 * rng.standard_normal()) for side in sides])
        held += law.low <= 1.9 <= law.high
    assert 930 <= held <= 970


@pytest.mark.parametrize(
    ("xs", "ys"),
    [
        ([1, 2], [1, 2]),
        ([], []),
        ([3, 3, 3], [1, 2, 3]),
        ([0, 1, 2], [1, 2, 3]),
        ([1, 2, 3], [1, -2, 3]),
        ([1, 2, 3], [1, math.inf, 3]),
        ([1, 2, 3], [1, 2, 3, 4]),
    ],
)
def test_what_has_no_power_law_is_refused(xs: list[float], ys: list[float]) -> None:
    with pytest.raises(ValueError, match="power law"):
        fit(xs, ys)


def differences(*values: tuple[float, float, float]) -> list[Difference]:
    return [Difference(x=x, value=math.log(ratio), half_width=half) for x, ratio, half in values]


def test_lines_cross_between_the_points_at_which_the_order_is_certain() -> None:
    # Half as long at 10, twice as long at 40: half way on a logarithmic scale, at 20.
    (found,) = crossovers(differences((10, 0.5, 0.01), (40, 2, 0.01)))
    assert (found.below, found.above, found.first_is_less_below) == (10, 40, True)
    assert found.at == pytest.approx(20)
    assert found.low is not None
    assert found.high is not None
    # The band around the line is 0.01 high, and the line rises by ln 4 over ln 4.
    assert found.low == pytest.approx(20 * math.exp(-0.01))
    assert found.high == pytest.approx(20 * math.exp(0.01))


def test_the_order_of_two_lines_turns_the_answer_around() -> None:
    (found,) = crossovers(differences((40, 0.5, 0.01), (10, 2, 0.01)))
    assert not found.first_is_less_below
    assert found.at == pytest.approx(20)
    assert found.low == pytest.approx(20 * math.exp(-0.01))


def test_points_that_are_not_told_apart_widen_the_bracket() -> None:
    (found,) = crossovers(differences((10, 0.5, 0.01), (20, 0.99, 0.1), (40, 1.02, 0.1), (80, 2, 0.01)))
    assert (found.below, found.above) == (10, 80)
    assert found.at is not None
    assert 20 < found.at < 40
    assert found.low is not None
    assert found.high is not None
    assert 10 < found.low < found.at < found.high < 80


def test_lines_that_wander_around_each_other_have_a_bracket_but_no_point() -> None:
    wandering = differences((10, 0.5, 0.01), (20, 1.01, 0.1), (40, 0.99, 0.1), (80, 2, 0.01))
    (found,) = crossovers(wandering)
    assert (found.below, found.above, found.at) == (10, 80, None)


def test_lines_may_cross_and_cross_back() -> None:
    found = crossovers(differences((1, 0.5, 0.1), (2, 2, 0.1), (4, 0.5, 0.1)))
    assert [(each.below, each.above) for each in found] == [(1, 2), (2, 4)]
    assert [each.first_is_less_below for each in found] == [True, False]
    assert all(first.above <= second.below for first, second in pairwise(found))


@pytest.mark.parametrize(
    "values",
    [
        [],
        [(10, 0.5, 0.01)],
        [(10, 0.5, 0.01), (20, 0.8, 0.01)],  # it comes nearer, and beyond 20 nobody measured
        [(10, 0.9, 0.2), (20, 1.1, 0.2)],  # the medians cross, their intervals do not tell
        [(10, 0.5, math.inf), (20, 2.0, math.inf)],
        [(10, 1.0, 0.0), (20, 1.0, 0.0)],
    ],
)
def test_no_crossing_is_claimed_that_was_not_seen(values: list[tuple[float, float, float]]) -> None:
    assert crossovers(differences(*values)) == []


def test_a_point_of_unknown_width_within_the_bracket_leaves_the_crossing_without_an_interval() -> None:
    (found,) = crossovers(differences((10, 0.5, 0.0), (20, 1.0, math.inf), (40, 2, 0.0)))
    assert found.at == pytest.approx(20)
    assert (found.low, found.high) == (None, None)
