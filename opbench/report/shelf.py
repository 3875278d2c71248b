"""The reports that stand beside a run's records: Markdown with its charts, and HTML where the extra is installed."""

from __future__ import annotations

from pathlib import Path

from opbench.errors import OpbenchError, RunError
from opbench.formats import FORMATS, writer
from opbench.report.listing import Listed
from opbench.report.model import View
from opbench.report.sections import view
from opbench.report.to_markdown import markdown
from opbench.store import Run

CHARTS_FOLDER = "charts"
"""Beside the Markdown of a run."""


def render(run: Run) -> Listed:
    """Write the reports of a run into its directory.

    Raises:
        RunError: the directory cannot be written.
    """
    made = view([run])
    in_markdown, in_html = run.directory / "report.md", run.directory / "report.html"
    if not write_markdown(in_markdown, made, CHARTS_FOLDER):
        return Listed(folder=run.directory, run=run, reports=(in_markdown,))
    write(in_html, writer(FORMATS["html"])(made))
    return Listed(folder=run.directory, run=run, reports=(in_html, in_markdown))


def write_markdown(path: Path, view: View, folder: str) -> bool:
    """Write a Markdown report, and its charts into a folder beside it, in place of those drawn there before.

    Returns:
        Whether charts can be drawn: the extra `html` is installed.

    Raises:
        RunError: they cannot be written.
    """
    try:
        writer(FORMATS["html"])
    except OpbenchError:
        write(path, markdown(view))
        return False
    from opbench.report.pictures import illustrated, of_ours

    text, pictures = illustrated(view, folder)
    beside = path.parent / folder
    try:
        for old in beside.glob("*.svg"):
            if of_ours(old.read_text(encoding="utf-8", errors="replace")):
                old.unlink()
        if pictures:
            beside.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {beside}: {error.strerror}") from error
    for name, svg in pictures.items():
        write(beside / name, svg)
    write(path, text)
    return True


def write(path: Path, content: str | bytes) -> None:
    """Write a file.

    Raises:
        RunError: it cannot be written.
    """
    try:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
