"""Whatever a name or a reason holds, a page shows it as text."""

from __future__ import annotations

from opbench.results import Failed, Measured, Skipped
from tests.report import made_up
from tests.report.browser.conftest import Open

HOSTILE = (
    "<script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 2'>",
    "</script></style></title><svg onload=window.broken=3>",
    "\"quoted\" 'twice' `and` ${window.broken = 4}",
    "{{ 7 * 7 }}{% raw %}",
    "[/x][bold]",
    r"\textbf{x} $ & % # _ ^ ~",
    '=HYPERLINK("http://127.0.0.1")',
    "\u202eright to left",
    "עברית",
    "🦀" * 40,
    "long" * 200,
    "datum['x'] || window.broken",
    "line\nbreak\u2028other",
    "__proto__",
    "constructor",
)


def test_hostile_names_and_reasons_are_inert(open_page: Open) -> None:
    measured = [
        made_up.record(name, Measured(timings=(made_up.timing(1e-3 * (1 + index)),)), counts=made_up.counts(1000))
        for index, name in enumerate(HOSTILE)
    ]
    failed = [
        made_up.record(name, (Skipped if index % 2 else Failed)(reason=name), implementation="cuda", pass_="training")
        for index, name in enumerate(HOSTILE)
    ]
    params = [made_up.record("plain", Measured(), params={name: name}) for name in HOSTILE]
    run = made_up.run(
        *measured, *failed, *params, baseline=HOSTILE[0], title=HOSTILE[0], question=HOSTILE[1], directory=HOSTILE[2]
    )
    opened = open_page(run)
    assert opened.complaints == []
    assert [url.partition(":")[0] for url in opened.requests] == ["file"]
    assert opened.page.evaluate("window.broken === undefined && ({}).broken === undefined")
    assert opened.page.locator("main script, main img, main svg[onload], main a[href^=http]").count() == 0
    assert HOSTILE[0] in opened.page.locator("main").inner_text()
    for index in range(len(HOSTILE)):
        opened.page.locator(".grid [name=baseline]").select_option(index=index)
    for setting in opened.page.locator("[name=setting]").all():
        for index in range(setting.locator("option").count()):
            setting.select_option(index=index)
    for summary in opened.page.locator("summary").all():
        summary.click()
    assert opened.complaints == []
    assert opened.page.evaluate("window.broken === undefined")
