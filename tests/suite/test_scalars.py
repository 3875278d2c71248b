"""The table of the YAML 1.2 core schema (section 10.3 of the specification), and what YAML 1.1 read differently."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opbench.cases import ParamValue
from opbench.suite.document import Document, place
from opbench.suite.faults import Origin

TABLE: list[tuple[str, ParamValue]] = [
    ("null", None),
    ("Null", None),
    ("NULL", None),
    ("~", None),
    ("", None),
    ("nUll", "nUll"),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("tRue", "tRue"),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("0", 0),
    ("-19", -19),
    ("+12", 12),
    ("017", 17),
    ("0o17", 15),
    ("0x1F", 31),
    ("0o8", "0o8"),
    ("-0x1", "-0x1"),
    ("0b11", "0b11"),
    ("1_000", "1_000"),
    ("12:30", "12:30"),
    ("1e3", 1000.0),
    ("1e-3", 0.001),
    ("12e03", 12000.0),
    ("-2E+05", -200000.0),
    ("0.", 0.0),
    (".5", 0.5),
    ("-.5e1", -5.0),
    ("+1.5", 1.5),
    (".", "."),
    ("e5", "e5"),
    ("1.2.3", "1.2.3"),
    (".inf", math.inf),
    ("-.Inf", -math.inf),
    ("+.INF", math.inf),
    (".iNf", ".iNf"),
    ("inf", "inf"),
    ("1x64x56x56", "1x64x56x56"),
    ("2020-01-01", "2020-01-01"),
    ('"1"', "1"),
    ("'true'", "true"),
    ("!!str 1", "1"),
    ("!!float 1", 1.0),
    ("!!int '7'", 7),
]


def read(text: str) -> object:
    from pathlib import Path

    document = Document(Path("x"), text)
    value = place(document, (), text, lambda line, column: Origin.place("x", line, column))
    assert document.faults == []
    return value


@pytest.mark.parametrize(("text", "value"), TABLE)
def test_a_plain_scalar_is_what_yaml_1_2_says(text: str, value: ParamValue) -> None:
    assert read(text) == value
    assert type(read(text)) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number(text: str) -> None:
    value = read(text)
    assert isinstance(value, float)
    assert math.isnan(value)


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_integers_are_read_in_the_bases_they_are_written_in(number: int) -> None:
    assert read(str(number)) == number
    assert read(f"0x{abs(number):X}") == abs(number)
    assert read(f"0o{abs(number):o}") == abs(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_being_written(number: float) -> None:
    value = read(repr(number))
    assert isinstance(value, float)
    assert value == number
