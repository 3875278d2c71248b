"""Every kind of chart is drawn, in light and dark, on a phone and on a wide screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from playwright.sync_api import Locator

from opbench import report
from opbench.cases import Nchw, Pass
from opbench.report import charts
from opbench.results import Measured, Record
from opbench.store import Run
from tests.report import made_up
from tests.report.browser.conftest import Open, Theme
from tests.report.charts.machine import ONE_THREAD, launches, with_ceilings

LEAST_INK = 0.004
"""Of a drawing's pixels: an axis alone has less."""


def everything() -> Run:
    """A scan of resolutions in both passes, with all that any chart asks for."""
    records = [
        record(operator, scale, side, pass_)
        for side in (14, 28, 56)
        for pass_ in ("forward", "training")
        for operator, scale in (("convolution", 1.0), ("involution", 2.0), ("sasa", 0.4 if side > 14 else 3.0))
    ]
    return with_ceilings(made_up.run(*records, baseline="convolution"), ONE_THREAD)


def record(operator: str, scale: float, side: int, pass_: Pass) -> Record:
    macs = side**2 * 36864
    made = made_up.record(
        operator,
        Measured(timings=(made_up.timing(scale * side**2 * 1e-6),), memory=made_up.memory(side, pass_)),
        shape=Nchw(1, 64, side, side),
        pass_=pass_,
        counts=made_up.counts(macs, int(36864 / scale)),
    )
    assert made.counts
    listed = launches(("aten::convolution", macs, 512 * side**2), ("aten::relu", 0, 512 * side**2))
    return replace(made, counts=replace(made.counts, launches=listed))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_every_chart_has_ink(width: int, theme: Theme, open_page: Open, ink: Callable[[Locator], float]) -> None:
    run = everything()
    opened = open_page(run, width=width, theme=theme)
    assert opened.complaints == []
    section = report.view([run]).sections[0]
    made = charts.of_run(charts.Material(run, section.rows, section.baseline))
    assert [chart.kind for chart in made if chart.missing] == []
    assert len({chart.kind for chart in made}) == 9
    figures = opened.page.locator("figure").all()
    assert len(figures) == len(made)
    for chart, figure in zip(made, figures, strict=True):
        assert figure.locator("h2").inner_text() == chart.title
        assert ink(figure.locator(".drawing")) > LEAST_INK, chart.name


def test_nothing_is_wider_than_a_phone(open_page: Open) -> None:
    opened = open_page(everything(), width=360)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_chart_says_what_it_shows_to_a_screen_reader(open_page: Open) -> None:
    opened = open_page(everything())
    figures = opened.page.locator("figure[data-source]").all()
    assert figures
    for figure in figures:
        picture = figure.get_by_role("img")
        assert picture.count() == 1
        said = picture.get_attribute("aria-label") or ""
        assert said.startswith(figure.locator("h2").inner_text())
        assert figure.locator(".finding").inner_text() in said


def test_what_cannot_be_drawn_says_what_to_run(open_page: Open) -> None:
    opened = open_page(made_up.comparison())
    said = opened.page.locator(".undrawn li").all_inner_texts()
    assert said
    assert all("opbench" in words for words in said)
