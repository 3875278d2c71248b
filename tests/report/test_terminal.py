"""The terminal: every number whole at every width, nothing of a plugin's text obeyed."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from opbench import report
from opbench.report import terminal
from opbench.results import Measured, Skipped
from tests.report.made_up import comparison, record, run, scan, timing

WIDE = report.view([comparison()])


def shown(view: report.View, width: int = 80, *, terminal: bool = True, everything: bool = False) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=terminal, color_system=None)
    report.show(view, console, everything=everything)
    return screen.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140, 220, 400])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for view in (WIDE, report.view([scan()])):
        assert max(map(len, shown(view, width, everything=True).splitlines())) <= width


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140, 220])
def test_no_number_is_cut(width: int) -> None:
    texts = {
        cell.text
        for section in WIDE.sections
        for table in section.tables
        for row in table.rows
        for cell, column in zip(row, table.columns, strict=True)
        if column.key in ("latency", "ratio")
    }
    text = shown(WIDE, width)
    assert "…" not in text
    latencies = {each for each in texts if re.fullmatch(r"[\d.]+ [mµ]s", each)}
    assert len(latencies) > 4
    assert {each for each in latencies if each not in text} == set()


def test_a_narrow_terminal_says_what_it_leaves_out_and_keeps_the_notes() -> None:
    narrow = shown(WIDE, 80)
    assert "Too narrow for: " in narrow
    assert "involution/cuda: skipped: no CUDA device" in narrow
    assert "Too narrow" not in shown(WIDE, 300)


def test_a_file_gets_every_column() -> None:
    text = shown(WIDE, 80, terminal=False)
    assert "Too narrow" not in text
    for table in WIDE.sections[0].tables:
        for row in table.rows:
            assert any(all(cell.text in line for cell in row) for line in text.splitlines())


def test_points_of_a_long_scan_go_into_several_tables() -> None:
    text = shown(report.view([scan((14, 28, 56))]), 34)
    rows = [line for line in text.splitlines() if line.startswith("1x64x14x14") and "µs" in line]
    assert [line.split()[1] for line in rows] == ["196", "392"]


def test_explanations_come_on_demand() -> None:
    assert "How to read this" not in shown(WIDE)
    assert "How to read this" in shown(WIDE, everything=True)


@settings(max_examples=50)
@given(
    st.one_of(
        st.sampled_from(["[bold red]x[/]", "[/x]", "\x1b[31mred", "\x9b31m", ":smile:", "[link=http://x]y[/link]"]),
        st.text(max_size=20),
    )
)
def test_text_of_others_is_not_obeyed(text: str) -> None:
    made = run(record(text, Skipped(reason=text)), record(outcome=Measured(timings=(timing(1e-3),))), title=text)
    screen = shown(report.view([made]), 400, everything=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", screen)


def test_markup_is_printed_as_it_stands() -> None:
    screen = shown(report.view([run(record("[bold]x[/bold]", Skipped(reason="see [/x] :smile:")))]), 200)
    assert "[bold]x[/bold]" in screen
    assert "skipped: see [/x] :smile:" in screen


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("resnet-50:sasa/cuda", 30, ["resnet-50:sasa/cuda"]),
        ("large_kernel_depthwise/channels_last", 30, ["large_kernel_depthwise", "/channels_last"]),
        ("resnet-50:large_kernel_depthwise/native", 30, ["resnet-50:", "large_kernel_depthwise/native"]),
        ("not a name: nor/any", 10, ["not a name: nor/any"]),
        ("ends:", 3, ["ends:"]),
    ],
)
def test_a_long_name_is_folded_where_its_parts_meet(name: str, width: int, lines: list[str]) -> None:
    assert terminal._folded(name, width).split("\n") == lines
