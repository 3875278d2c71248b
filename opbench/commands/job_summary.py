"""The summary of a job of GitHub Actions: reports for people are appended to the file that the runner names."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opbench.commands import options
from opbench.plain import one_line

if TYPE_CHECKING:
    from opbench.report import View

VARIABLE = "GITHUB_STEP_SUMMARY"
LIMIT_BYTES = 1 << 20
"""GitHub shows nothing of a step's summary that is larger."""


def append(view: View, written: Path | None = None) -> None:
    """Append a report as Markdown where a runner asks for it; what fails is a warning and nothing more.

    Args:
        view: the report.
        written: the file that the report went to; None for standard output.
    """
    if not os.environ.get(VARIABLE):
        return
    from opbench.report.to_markdown import code, markdown

    path = Path(os.environ[VARIABLE])
    if _is_there_already(path, written):
        return
    try:
        taken = path.stat().st_size if path.exists() else 0
        apart = "\n\n" if taken else ""
        again = code(f"{view.command} --format markdown")
        rest = f"A job summary holds 1 MiB, so this report ends here; {again} gives all of it."
        text = fitted(apart + markdown(view), LIMIT_BYTES - taken, rest)
        if not text:
            options.say(f"warning: the job summary is full (1 MiB); see {view.command}")
            return
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        options.say(f"warning: cannot write the job summary {one_line(str(path))}: {error.strerror}")


def fitted(text: str, room: int, rest: str) -> str:
    """Cut a text after a line so that its bytes fit, and say where the rest is; '' where not even that fits."""
    if len(text.encode()) <= room:
        return text
    closing = f"\n\n{rest}\n"
    kept = text.encode()[: max(0, room - len(closing.encode()))]
    whole_lines = kept[: kept.rfind(b"\n") + 1].decode()
    return f"{whole_lines.rstrip()}{closing}" if whole_lines.strip() else ""


def _is_there_already(path: Path, written: Path | None) -> bool:
    """Whether the report itself went to the summary, as `opbench report … >> $GITHUB_STEP_SUMMARY` does."""
    with suppress(OSError, ValueError):
        if written is not None:
            return written.samefile(path)
        return os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    return False
