"""Many records: the page stays small and usable."""

from __future__ import annotations

from playwright.sync_api import expect

from opbench import report
from opbench.cases import Nchw
from opbench.report.to_html import html
from opbench.results import Measured
from opbench.store import Run
from tests.report import made_up
from tests.report.browser.conftest import Open


def many(number: int) -> Run:
    """As many records, of 24 names in two passes at as many shapes as it takes."""
    names = [(f"operator_{index}", name) for index in range(8) for name in ("reference", "native", "cuda")]
    records = [
        made_up.record(
            operator,
            Measured(timings=(made_up.timing(1e-6 * side**2 * (1 + index)),), memory=made_up.memory(side)),
            implementation=implementation,
            shape=Nchw(1, 64, side, side),
            pass_=pass_,
            counts=made_up.counts(side**2 * 36864),
        )
        for side in range(4, 4 + -(-number // 48))
        for index, (operator, implementation) in enumerate(names)
        for pass_ in ("forward", "training")
    ][:number]
    return made_up.run(*records, baseline="operator_1")


def test_page_of_500_records_is_small() -> None:
    none = html(report.view([many(1)]))
    page = html(report.view([many(500)]))
    assert len(none.encode()) < 1_500_000
    assert len(page.encode()) - len(none.encode()) < 3_500 * 500


def test_5000_records_can_be_filtered_sorted_and_grouped(open_page: Open) -> None:
    opened = open_page(many(5000))
    assert opened.complaints == []
    output = opened.page.locator("output")
    expect(output).to_have_text("5000 rows")
    assert len(opened.rows()) == 400
    opened.page.locator(".grid [name=filter]").fill("operator_3/native training")
    expect(output).to_contain_text(" of 5000 rows")
    assert set(opened.column("operator")) == {"operator_3/native"}
    opened.page.locator(".grid [name=filter]").fill("")
    expect(output).to_have_text("5000 rows")
    opened.page.locator(".grid [name=group]").select_option(label="nothing")
    opened.page.locator(".grid th[data-key=latency] button").click()
    assert opened.column("latency")[0] == "16.0 µs"
    opened.page.locator(".grid [name=more]").click()
    assert len(opened.rows()) == 5000
