"""Numbers for people, at the places where rounding changes the unit or the number of digits."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench import units

properties = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ns"),
        (1.234e-9, "1.23 ns"),
        (999.4e-6, "999 µs"),
        (999.9e-6, "1.00 ms"),
        (0.00123, "1.23 ms"),
        (12.34, "12.3 s"),
        (1234.5, "1234 s"),
        (math.inf, "inf"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1 << 20, "1.00 MiB"),
        (3 << 40, "3.00 TiB"),
    ],
)
def test_bytes(value: int, text: str) -> None:
    assert units.bytes_(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (36864, "36.9 k"),
        (999_999, "1.00 M"),
        (9_834_496, "9.83 M"),
        (3e12, "3.00 T"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert units.count(value) == text


@pytest.mark.parametrize(
    ("three", "texts"),
    [
        ((1.2e-3, 1.1e-3, 2e-3), ("1.20 ms", "[1.10, 2.00] ms")),
        ((1.2341e-3, 1.2282e-3, 1.2402e-3), ("1.234 ms", "[1.228, 1.240] ms")),
        ((2e-3, 1.999999e-3, 2.000001e-3), ("2.0000 ms", "[2.0000, 2.0000] ms")),
        ((999.9e-6, 990e-6, 1010e-6), ("1.000 ms", "[0.990, 1.010] ms")),
        ((1e-3, 0.0, math.inf), ("1.00 ms", "[0, ∞] ms")),
        ((2.06e-3, 2.34e-6, 1.82455), ("2.06 ms", "[0.0023, 1825] ms")),
        ((5e-7, 5e-7, 5e-7), ("500 ns", "[500, 500] ns")),
    ],
)
def test_a_time_and_its_interval_share_a_unit_and_differ_where_they_can(
    three: tuple[float, float, float], texts: tuple[str, str]
) -> None:
    assert units.seconds_interval(*three) == texts


def test_ratios_percentages_and_errors() -> None:
    assert units.ratio_interval(1.4142, 1.38, 1.44) == ("1.41×", "[1.38, 1.44]")
    assert units.ratio(0.5) == "0.500×"
    assert units.percent(0.0123) == "1.2 %"
    assert units.percent(0.5) == "50 %"
    assert units.scientific(0.031) == "3.1e-2"
    assert units.scientific(1.2e-6) == "1.2e-6"
    assert units.scientific(math.inf) == "inf"


def test_durations() -> None:
    assert [units.duration(seconds) for seconds in (42, 59.6, 200, 7500)] == [
        "42 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]


def test_significant_digits_survive_rounding_up() -> None:
    assert [units.significant(value) for value in (9.996, 0.98765, 1234.5, 0.0, -0.0312)] == [
        "10.0",
        "0.988",
        "1234",
        "0",
        "-0.0312",
    ]


FACTORS: dict[Callable[[float], str], dict[str, float]] = {
    units.seconds: {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9},
    units.bytes_: {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1},
    units.count: {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1},
}


@given(st.floats(1e-8, 1e4), st.integers(0, 2**50), st.integers(0, 10**15))
@properties
def test_what_is_printed_reads_back_to_three_digits(seconds: float, size: int, count: int) -> None:
    for write, value in ((units.seconds, seconds), (units.bytes_, size), (units.count, count)):
        number, _, unit = write(value).partition(" ")
        assert float(number) * FACTORS[write][unit] == pytest.approx(value, rel=0.5e-2)
        assert "e" not in number


@given(st.floats(1e-6, 1e6), st.integers(1, 6))
@properties
def test_significant_digits_are_as_many_as_asked(value: float, digits: int) -> None:
    text = units.significant(value, digits)
    assert float(text) == pytest.approx(value, rel=0.501 * 10 ** (1 - digits))
    assert len(text.replace(".", "").lstrip("0")) >= digits
    assert units.significant(-value, digits) == f"-{text}"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("1.23 ms", units.Printed(("1.23",), "ms")),
        ("≥ 3.21 M", units.Printed(("3.21",), "M", at_least=True)),
        ("512", units.Printed(("512",))),
        ("0.412×", units.Printed(("0.412",), "×")),
        ("[1.20, 1.27] ms", units.Printed(("1.20", "1.27"), "ms")),
        ("[0.38, ∞]", units.Printed(("0.38", "∞"))),
        ("n/a", None),
        ("–", None),
        ("baseline", None),
        ("8x64x56x56", None),
        ("1.23 ms (2.00×)", None),
    ],
)
def test_what_is_printed_can_be_read_and_words_are_no_numbers(text: str, printed: units.Printed | None) -> None:
    assert units.read(text) == printed


def test_a_column_takes_the_unit_of_its_middle_and_keeps_the_digits() -> None:
    times = [units.Printed(("653",), "µs"), units.Printed(("5.70",), "ms"), units.Printed(("145",), "µs")]
    assert units.dimension(times) == "seconds"
    assert units.common_unit(times, "seconds") == "µs"
    assert [units.in_unit(each, "seconds", "µs") for each in times] == [("653",), ("5700",), ("145",)]
    assert [units.in_unit(each, "seconds", "ms") for each in times] == [("0.653",), ("5.70",), ("0.145",)]
    assert units.in_unit(units.Printed(("1.20", "∞"), "ms"), "seconds", "s") == ("0.00120", "∞")


def test_bytes_change_their_unit_by_powers_of_two_and_keep_three_digits() -> None:
    assert units.in_unit(units.Printed(("340",), "KiB"), "bytes", "MiB") == ("0.332",)
    assert units.in_unit(units.Printed(("1.50",), "MiB"), "bytes", "KiB") == ("1536",)


def test_times_and_bytes_have_no_unit_in_common() -> None:
    assert units.dimension([units.Printed(("1",), "ms"), units.Printed(("1",), "KiB")]) is None
    assert units.dimension([units.Printed(("1",)), units.Printed(("2",))]) == ""
    assert units.common_unit([units.Printed(("1",)), units.Printed(("2",))], "") == ""
