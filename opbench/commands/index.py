"""`opbench index`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.commands import options
from opbench.errors import OpbenchError, RunError

if TYPE_CHECKING:
    from opbench.report.listing import Listed

INDEX_FILE = "index.html"


@click.command(short_help="Make the pages of all runs, and a list of them.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="runs", required=False)
@options.as_json
def index(folder: Path, as_json: bool) -> None:
    """Make the reports of all runs below FOLDER again, and FOLDER/index.html, which lists them with their answers.

    Beside the records of each run: report.md with its charts, and report.html. Nothing is measured. FOLDER is `runs`
    unless given. Without the extra `html` there are no charts and no report.html.

    With --json, also a list of objects with the keys `directory`, `title`, `question`, `answer`, `records`, `missing`,
    `reports` and `trouble`, which says why a run cannot be read.

    \b
    opbench index reports
    """
    from opbench import store
    from opbench.report import listing, shelf

    directories = sorted(path.parent for path in folder.rglob(store.HEADER_FILE))
    if not directories:
        raise RunError(f"there is no run below {folder}: no {store.HEADER_FILE}; `opbench run` makes one")
    listed: list[Listed] = []
    for directory in directories:
        try:
            listed.append(shelf.render(store.read(directory)))
            options.say(f"{directory}: {', '.join(path.name for path in listed[-1].reports)}")
        except OpbenchError as error:
            listed.append(listing.Listed(folder=directory, trouble=str(error)))
    page = folder / INDEX_FILE
    shelf.write(page, listing.listing(listed, folder, shlex.join(["opbench", "index", str(folder)])))
    if as_json:
        options.print_json(list(map(listing.as_dict, listed)))
    options.say(f"{page} lists {len(listed)}")
    troubles = [each.trouble for each in listed if each.trouble]
    if troubles:
        raise RunError("; ".join(troubles))
