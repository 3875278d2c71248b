"""A real browser for the pages of reports: the system's Chromium, without a window and without a network."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from opbench import report
from opbench.report.to_html import html
from opbench.store import Run

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ALONE = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_PATIENCE_MILLISECONDS = 60_000

Theme = Literal["light", "dark"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, where it is installed."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        give_up = pytest.fail if os.environ.get("OPBENCH_BROWSER") == "required" else pytest.skip
        give_up(f"no browser: none of {', '.join(_NAMES)} is installed")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(_ALONE))
        yield launched
        launched.close()


@dataclass
class Opened:
    """A page that was opened from disk, with all that it complained of and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def rows(self) -> list[list[str]]:
        """The texts of the rows that the first table shows, without its headings."""
        script = """() => [...document.querySelector('.grid table').querySelectorAll('tbody tr:not(.heading)')]
            .filter((row) => row.offsetParent !== null)
            .map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"""
        found: list[list[str]] = self.page.evaluate(script)
        return found

    def column(self, key: str) -> list[str]:
        """The texts of one of its columns."""
        heads = "[...document.querySelector('.grid thead tr').cells]"
        place = self.page.evaluate(f"(key) => {heads}.findIndex((head) => head.dataset.key === key)", key)
        return [row[place] for row in self.rows()]

    def headings(self) -> list[str]:
        """What the rows of the first table are grouped under."""
        return self.page.locator(".grid tbody .heading:not(.unsaid)").all_inner_texts()

    def downloaded(self, button: Locator) -> str:
        """The text of the file that a button gives."""
        with self.page.expect_download() as waiting:
            button.click()
        return Path(waiting.value.path()).read_text(encoding="utf-8")


Open = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Writes the page of some runs to disk and opens it, in a window of some width with a theme."""
    contexts: list[BrowserContext] = []

    def opened(*runs: Run, width: int = 1600, theme: Theme = "light", options: report.Options | None = None) -> Opened:
        path = tmp_path / f"report {len(contexts)}.html"
        path.write_text(html(report.view(runs, options or report.Options())), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, accept_downloads=True
        )
        context.set_default_timeout(_PATIENCE_MILLISECONDS)
        contexts.append(context)
        made = Opened(context.new_page())
        made.page.on("console", lambda message: made.complaints.append(message.text))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("dialog", lambda dialog: made.complaints.append(f"dialog: {dialog.message}"))
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.goto(path.as_uri())
        made.page.locator("html[data-drawn=true]").wait_for(state="attached")
        return made

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def ink(browser: Browser) -> Iterator[Callable[[Locator], float]]:
    """Measures which share of an element's pixels differs from its commonest one."""
    context = browser.new_context()
    canvas = context.new_page()

    def share(element: Locator) -> float:
        picture = base64.b64encode(element.screenshot()).decode()
        found: float = canvas.evaluate(_SHARE, picture)
        return found

    yield share
    context.close()


_SHARE = """async (picture) => {
    const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
    context.drawImage(bitmap, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    return 1 - Math.max(...counts.values()) / pixels.length;
}"""
