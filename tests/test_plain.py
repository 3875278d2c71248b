"""Text of others on one harmless line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opbench.plain import one_line, plain


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\tc  d\r\n", "a b c d"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\ud800b", "a\\ud800b"),
        ("nul\x00", "nul\\x00"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("👩\u200d🔬 µ × ≥", "👩\u200d🔬 µ × ≥"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_every_line_is_one_line_and_can_be_encoded(text: str) -> None:
    line = one_line(text)
    line.encode()
    assert line.splitlines() in ([], [line])
    assert {unicodedata.category(character) for character in line} & {"Cc", "Cs", "Zl", "Zp"} == set()
    assert one_line(line) == line


def test_long_text_ends_in_an_ellipsis() -> None:
    assert plain("x" * 100, 10) == "x" * 9 + "…"
    assert plain("x" * 10, 10) == "x" * 10


def test_right_to_left_words_cannot_turn_their_neighbours_around() -> None:
    assert plain("שלום") == "\u2068שלום\u2069"
    assert plain("hello") == "hello"
