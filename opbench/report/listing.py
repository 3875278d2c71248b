"""A page that lists the runs below a folder, machine by machine, each with its answer and its reports."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opbench.plain import plain
from opbench.report.labels import hardware
from opbench.report.pages import policy, style, template
from opbench.report.sections import view
from opbench.report.words import several
from opbench.store import Run

TEXT_LIMIT = 400


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One folder with a run, or what is wrong with it."""

    folder: Path
    run: Run | None = None
    reports: tuple[Path, ...] = ()
    """The first is what the run's title leads to."""
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A run as the template tells it."""

    folder: str
    title: str = ""
    question: str = ""
    answer: str = ""
    facts: str = ""
    links: tuple[tuple[str, str], ...] = ()
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class _Page:
    heading: str
    style: str
    policy: str
    machines: Sequence[tuple[str, Sequence[_Entry]]]
    command: str


def listing(listed: Iterable[Listed], folder: Path, command: str) -> str:
    """Write the page, whose links are relative to the folder it will lie in."""
    machines: dict[str, list[_Entry]] = {}
    for each in listed:
        machines.setdefault(_machine(each.run), []).append(_entry(each, folder))
    number = sum(map(len, machines.values()))
    look = style()
    page = _Page(
        heading=several(number, "run"),
        style=look,
        policy=policy(look),
        machines=list(machines.items()),
        command=plain(command),
    )
    return template("index.html").render(page=page)


def as_dict(listed: Listed) -> dict[str, object]:
    """A run for a program; what is not known of one that cannot be read is None."""
    run = listed.run
    section = view([run]).sections[0] if run else None
    return {
        "directory": str(listed.folder),
        "title": section.title if section else None,
        "question": section.question if section else None,
        "answer": section.answer if section else None,
        "records": len(run.records) if run else None,
        "missing": len(run.missing) if run else None,
        "reports": [str(path) for path in listed.reports],
        "trouble": listed.trouble or None,
    }


def _machine(run: Run | None) -> str:
    if run is None:
        return "Cannot be read"
    environment, measure = run.header.environment, run.header.measure
    if not set(run.header.metrics) - {"counts"}:
        return "Counted, on no machine in particular"
    name = plain(hardware(run))
    return name if measure.device == "cuda" else f"{name}, {several(environment.usable_cores, 'core')}"


def _entry(listed: Listed, folder: Path) -> _Entry:
    name = plain(os.path.relpath(listed.folder, folder))
    if listed.run is None:
        return _Entry(folder=name, trouble=plain(listed.trouble, TEXT_LIMIT))
    section = view([listed.run]).sections[0]
    header = listed.run.header
    missing = f", {len(listed.run.missing)} missing" if listed.run.missing else ""
    return _Entry(
        folder=name,
        title=section.title,
        question=plain(section.question, TEXT_LIMIT),
        answer=section.answer,
        facts=f"{several(len(listed.run.records), 'record')}{missing}, {plain(header.environment.captured[:10])}, "
        f"torch {plain(header.environment.versions.get('torch', 'unknown'))}",
        links=tuple((path.name, _address(path, folder)) for path in (*listed.reports, listed.folder)),
    )


def _address(path: Path, folder: Path) -> str:
    """A relative address; the dot in front keeps a name with a colon from being a scheme."""
    return "./" + urllib.parse.quote(Path(os.path.relpath(path, folder)).as_posix())
