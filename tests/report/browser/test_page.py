"""What a page does in a browser: opens from disk, asks for nothing, sorts, filters, groups, divides, downloads."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from opbench import report
from opbench.report.rows import compared, rows
from opbench.report.to_html import html
from opbench.results import Measured, Skipped
from tests.report import made_up
from tests.report.browser.conftest import Open, Opened

COMPARISON = made_up.comparison()


@pytest.fixture
def page(open_page: Open) -> Opened:
    return open_page(COMPARISON)


def click_head(page: Opened, key: str) -> None:
    page.page.locator(f".grid th[data-key={key}] button").click()


def choose(page: Opened, name: str, label: str) -> None:
    page.page.locator(f".grid [name={name}]").select_option(label=label)


def test_opens_from_disk_without_a_complaint_or_a_request(page: Opened) -> None:
    assert page.complaints == []
    assert [url.partition(":")[0] for url in page.requests] == ["file"]
    assert page.page.title() == "A made-up comparison · opbench"


def test_says_what_the_run_says(page: Opened) -> None:
    section = report.view([COMPARISON]).sections[0]
    text = page.page.locator("main").inner_text()
    for said in (section.title, section.question, section.answer, *section.alerts):
        assert said in text


def test_first_groups_rows_that_may_be_compared(page: Opened) -> None:
    grouped = [table.title for table in report.view([COMPARISON]).sections[0].tables]
    assert page.headings() == grouped


def test_sorts_by_number_both_ways_and_back(page: Opened) -> None:
    choose(page, "group", "nothing")
    unsorted = page.column("latency")
    click_head(page, "latency")
    assert page.column("latency")[:4] == ["600 µs", "800 µs", "1.50 ms", "2.00 ms"]
    assert set(page.column("latency")[-3:]) == {"–"}
    click_head(page, "latency")
    assert page.column("latency")[:3] == ["6.20 ms", "6.00 ms", "5.00 ms"]
    assert set(page.column("latency")[-3:]) == {"–"}
    assert page.page.locator(".grid th[data-key=latency]").get_attribute("aria-sort") == "descending"
    click_head(page, "latency")
    assert page.column("latency") == unsorted


def test_sorts_within_groups(page: Opened) -> None:
    click_head(page, "parameters")
    assert len(page.headings()) > 1
    assert page.column("parameters")[:3] == ["3.30 k", "10.9 k", "13.5 k"]


def test_filters_by_all_words_in_any_order(page: Opened) -> None:
    page.page.locator(".grid [name=filter]").fill("CUDA involution")
    expect(page.page.locator("output")).to_contain_text(" of ")
    assert set(page.column("operator")) == {"involution/cuda"}
    page.page.locator(".grid [name=filter]").fill("nothing has these words")
    expect(page.page.locator("output")).to_contain_text("0 of ")
    assert page.rows() == []
    page.page.locator(".grid [name=filter]").fill("")
    expect(page.page.locator("output")).not_to_contain_text(" of ")
    assert len(page.rows()) == len(page.column("operator"))


def test_groups_by_a_key_of_the_reader(page: Opened) -> None:
    choose(page, "group", "pass")
    assert page.headings() == ["forward", "training"]
    choose(page, "group", "nothing")
    assert page.headings() == []


def test_a_plain_table_sorts_too(open_page: Open) -> None:
    opened = open_page(COMPARISON, made_up.run(*COMPARISON.records, directory="runs/other", baseline="convolution"))
    table = opened.page.locator("#side-by-side table").first
    names = table.locator("tbody th")
    table.locator("thead button").first.click()
    assert names.all_inner_texts() == sorted(names.all_inner_texts())
    table.locator("thead button").first.click()
    assert names.all_inner_texts() == sorted(names.all_inner_texts(), reverse=True)


@pytest.mark.parametrize("baseline", ["large_kernel_depthwise/native", "involution"])
def test_another_baseline_says_what_a_report_with_it_would_say(page: Opened, baseline: str) -> None:
    choose(page, "group", "nothing")
    choose(page, "baseline", baseline)
    expected = {
        row.ratio.value
        for row in compared(rows(COMPARISON.records), baseline)
        if row.ratio and isinstance(row.record.outcome, Measured)
    }
    shown = [text for text in page.column("ratio") if text.endswith("×")]
    assert sorted(float(text[:-1]) for text in shown) == pytest.approx(sorted(expected), rel=0.005)
    assert "baseline" in page.column("ratio")
    assert page.page.locator(".grid th[data-key=ratio]").inner_text().startswith(f"÷ {baseline}")


def test_names_that_begin_alike_are_baselines_of_their_own(open_page: Open) -> None:
    long = "network:" + "operator" * 8
    times = {f"{long}/native": 2e-3, f"{long}/channels_last": 4e-3, "short": 8e-3}
    records = [made_up.record(name, Measured(timings=(made_up.timing(time),))) for name, time in times.items()]
    opened = open_page(made_up.run(*records, baseline=f"{long}/native"))
    picked = opened.page.locator(".grid [name=baseline]")
    assert picked.input_value() == f"{long}/native"
    assert opened.column("ratio") == ["baseline", "2.00×", "4.00×"]
    picked.select_option(label=f"{long}/channels_last")
    assert opened.column("ratio") == ["0.500×", "baseline", "2.00×"]


def test_a_baseline_can_be_picked_where_the_suite_s_own_was_not_timed(open_page: Open) -> None:
    records = [
        made_up.record("base", Skipped(reason="no CUDA device")),
        *(made_up.record(name, Measured(timings=(made_up.timing(time),))) for name, time in (("a", 1e-3), ("b", 2e-3))),
    ]
    opened = open_page(made_up.run(*records, baseline="base"))
    choose(opened, "baseline", "a")
    assert opened.complaints == []
    assert opened.column("ratio") == ["–", "baseline", "2.00×"]
    assert opened.column("ratio_interval")[2] == "[1.99, 2.01]"


def test_the_head_of_the_names_stays_above_them_when_the_table_is_moved_sideways(open_page: Open) -> None:
    opened = open_page(COMPARISON, width=700)
    moved = opened.page.locator(".grid .scroll").evaluate(
        "(each) => { each.scrollLeft = 300; return each.scrollLeft; }"
    )
    assert moved == 300
    head = opened.page.locator(".grid thead th").first.bounding_box()
    name = opened.page.locator(".grid tbody tr:not(.heading) th").first.bounding_box()
    assert head is not None
    assert name is not None
    assert head["x"] == name["x"] >= 0


def test_where_nothing_is_drawn_no_charts_are_promised(open_page: Open) -> None:
    opened = open_page(made_up.run(made_up.record("a", Skipped(reason="no CUDA device"))))
    assert opened.page.locator(".contents").count() == 0


def test_going_back_to_the_first_baseline_brings_all_of_it_back(page: Opened) -> None:
    def bold() -> list[str]:
        found: list[str] = page.page.locator(".grid td.best").all_inner_texts()
        return found

    before, rows_before = bold(), page.rows()
    choose(page, "baseline", "involution")
    assert page.rows() != rows_before
    choose(page, "baseline", "convolution")
    assert page.rows() == rows_before
    assert bold() == before


def test_columns_can_be_left_out_and_taken_back(page: Opened) -> None:
    page.page.locator(".grid [name=filter]").fill("training")
    expect(page.page.locator("output")).to_contain_text(" of ")
    page.page.locator(".columns summary").click()
    box = page.page.locator(".columns label", has_text="parameters").locator("input")
    box.uncheck()
    page.page.locator(".grid [name=filter]").fill("")
    expect(page.page.locator("output")).not_to_contain_text(" of ")
    assert "parameters" not in page.page.locator(".grid thead th:visible").all_inner_texts()
    assert page.page.locator(".grid td:visible", has_text="36.9 k").count() == 0
    box.check()
    assert page.page.locator(".grid td:visible", has_text="36.9 k").count() > 0


def test_a_refused_ratio_says_why(page: Opened) -> None:
    choose(page, "baseline", "involution")
    assert "involution was not timed: timed out" in page.page.locator(".refusals").inner_text()
    training = [text for text in page.column("ratio") if text.startswith("–")]
    assert "–a" in training


def test_downloads_what_is_shown_in_its_order(page: Opened) -> None:
    choose(page, "group", "nothing")
    page.page.locator(".grid [name=filter]").fill("training")
    expect(page.page.locator("output")).to_contain_text(" of ")
    click_head(page, "latency")
    text = page.downloaded(page.page.locator(".grid [name=csv]"))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["name"] for line in lines] == page.column("operator")
    assert float(lines[0]["latency_seconds_median"]) == pytest.approx(2.1e-3)
    assert lines[0]["baseline"] == "convolution"
    assert len(set(csv_head(text))) == len(csv_head(text))
    assert not any("picked" in name for name in csv_head(text))


def csv_head(text: str) -> list[str]:
    return text.partition("\n")[0].split(",")


def test_a_download_says_which_baseline_each_ratio_is_to(page: Opened) -> None:
    choose(page, "baseline", "large_kernel_depthwise/native")
    lines = list(csv.DictReader(io.StringIO(page.downloaded(page.page.locator(".grid [name=csv]")))))
    (other,) = [line for line in lines if line["name"] == "convolution" and line["latency_seconds_median"] == "0.005"]
    assert (other["baseline"], other["ratio_to_baseline"]) == ("convolution", "")
    assert other["picked_baseline"] == "large_kernel_depthwise/native"
    assert other["picked_ratio"] == "2.38×"


def test_a_chart_gives_its_data_as_csv_as_a_picture_and_as_a_table(page: Opened) -> None:
    figure = page.page.locator("figure[data-source]").first
    lines = list(csv.DictReader(io.StringIO(page.downloaded(figure.locator("[name=csv]")))))
    assert {"label", "latency_seconds", "low_seconds"} <= set(lines[0])
    assert "<svg" in page.downloaded(figure.locator("[name=svg]"))
    figure.locator("summary").click()
    expect(figure.locator("tbody tr")).to_have_count(len(lines))


def test_a_chart_shows_the_setting_that_is_picked(page: Opened) -> None:
    figure = page.page.locator("figure[data-source]").first
    drawn = figure.locator("svg").text_content() or ""
    chosen = figure.locator("[name=setting] option").nth(1).inner_text()
    figure.locator("[name=setting]").select_option(label=chosen)
    expect(figure.locator("svg")).not_to_have_text(drawn)


def test_theme_can_be_turned(page: Opened) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.page.evaluate(background)
    page.page.locator("#theme").click()
    page.page.locator("#theme").click()
    assert page.page.evaluate(background) != light
    assert page.page.locator("#theme").inner_text() == "theme: dark"


def test_all_of_it_can_be_reached_by_keyboard(page: Opened) -> None:
    page.page.locator(".grid [name=filter]").focus()
    reached = set()
    for _ in range(80):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("document.activeElement.name || document.activeElement.tagName"))
    assert {"group", "baseline", "csv", "svg", "setting", "SUMMARY"} <= reached


def test_without_scripts_the_table_stands_and_the_first_line_says_what_is_missing(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(report.view([made_up.comparison()])), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    lines = page.locator("main").inner_text().splitlines()
    assert lines[0] == "Without JavaScript the tables stand as they are, and there are no charts."
    assert any(line.startswith("large_kernel_depthwise") for line in lines)
    context.close()
