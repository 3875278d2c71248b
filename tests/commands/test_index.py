"""`opbench index`: the reports beside every run below a folder, and the page that leads to them."""

from __future__ import annotations

import re
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opbench import store
from opbench.cli import main
from opbench.store import Run
from tests.report import made_up


class Links(HTMLParser):
    """Where a page's links lead, and every tag that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name == "href" and value]


def kept(run: Run, directory: Path) -> Path:
    store.create(directory, run.header, run.records)
    return directory


def index(folder: Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(["index", str(folder)])
    return int(left.value.code or 0)


def test_lists_every_run_and_its_reports(tmp_path: Path) -> None:
    kept(made_up.comparison(), tmp_path / "a machine" / "first: one")
    kept(made_up.scan(), tmp_path / "scan")
    assert index(tmp_path) == 0
    page = Links()
    page.feed((tmp_path / "index.html").read_text(encoding="utf-8"))
    linked = {tmp_path / urllib.parse.unquote(address) for address in page.addresses}
    for folder in (tmp_path / "a machine" / "first: one", tmp_path / "scan"):
        assert {folder, folder / "report.html", folder / "report.md"} <= linked
    assert all(path.exists() for path in linked)
    assert "script" not in page.tags


def test_markdown_names_the_pictures_that_lie_beside_it(tmp_path: Path) -> None:
    kept(made_up.comparison(), tmp_path / "run")
    assert index(tmp_path) == 0
    latency = tmp_path / "run" / "charts" / "latency.svg"
    (latency.parent / "of-yesterday.svg").write_text(latency.read_text())
    assert index(tmp_path) == 0
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"!\[[^\]]*\]\(charts/([\w.-]+)\)", text))
    assert named == {path.name for path in (tmp_path / "run" / "charts").iterdir()}
    assert "latency.svg" in named
    for path in (tmp_path / "run" / "charts").iterdir():
        picture = path.read_text(encoding="utf-8")
        assert picture.startswith("<svg ")
        # A font of another width than the one that it was laid out with would be cut off.
        assert set(re.findall(r'font-family="([^"]+)"', picture)) == {"Arial, Liberation Sans, Helvetica, sans-serif"}


def test_a_picture_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    kept(made_up.comparison(), tmp_path / "run")
    (tmp_path / "run" / "charts").mkdir()
    (tmp_path / "run" / "charts" / "mine.svg").write_text("<svg/>")
    assert index(tmp_path) == 0
    assert (tmp_path / "run" / "charts" / "mine.svg").read_text() == "<svg/>"


def test_a_run_that_cannot_be_read_is_listed_with_the_reason_and_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(made_up.comparison(), tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text('{"schema": 99}')
    assert index(tmp_path) == 2
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "schema 99" in page
    assert "good/report.html" in page
    assert "schema 99" in capsys.readouterr().err


def test_a_directory_s_name_does_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept(made_up.run(), tmp_path / "\x1b[31mred\nopbench: all is well")
    assert index(tmp_path) == 0
    errors = capsys.readouterr().err
    assert "\x1b" not in errors
    assert [line.startswith(f"opbench: {tmp_path}/") for line in errors.splitlines()] == [True, True]


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index(tmp_path) == 2
    assert "there is no run below" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_there_is_markdown_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(made_up.comparison(), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert index(tmp_path) == 0
    assert (tmp_path / "run" / "report.md").exists()
    assert not (tmp_path / "run" / "report.html").exists()
    assert "run/report.md" in (tmp_path / "index.html").read_text(encoding="utf-8")
