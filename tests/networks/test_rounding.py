"""How a count is held to a printed figure."""

import pytest

from opbench.networks.rounding import Verdict, compare, printed, split


@pytest.mark.parametrize(
    ("figure", "count", "verdict"),
    [
        ("15.54 M", 15_541_526, "exact"),
        ("15.54 M", 15_545_000, "differs"),  # half up gives 15.55
        ("15.55 M", 15_545_000, "exact"),
        ("44.6 M", 44_549_160, "exact by way of two decimals"),
        ("44.5 M", 44_549_160, "exact"),
        ("44.7 M", 44_549_160, "differs"),
        ("28 M", 28_589_128, "differs"),
        ("29 M", 28_589_128, "exact"),
        ("80 M", 79_495_000, "exact by way of two decimals"),
        ("79864168", 79_864_168, "exact"),
        ("79864168", 79_864_169, "differs"),
        ("0.3 G", 249_999_999, "exact by way of two decimals"),
        ("36.9 k", 36_864, "exact"),
    ],
)
def test_prints_as_the_paper_did(figure: str, count: int, verdict: Verdict) -> None:
    assert compare(figure, count) == verdict


def test_two_decimals_more_than_the_paper_show_how_it_rounded() -> None:
    assert printed("44.6 M", 44_549_160) == "44.549 M"
    assert printed("1825.6 G", 1_825_568_800_000) == "1825.569 G"
    assert printed("79864168", 79_864_169) == "79864169"


@pytest.mark.parametrize("figure", ["15.5 T", "15.5M", "15,5 M", ""])
def test_a_figure_has_a_number_and_a_known_unit(figure: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        split(figure)
