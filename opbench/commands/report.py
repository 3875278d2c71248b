"""`opbench report`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.commands import job_summary, options
from opbench.formats import FORMATS, Format, writer

if TYPE_CHECKING:
    from opbench.report import View
    from opbench.settings import SortBy

ORDERS = ("suite", "name", "parameters", "macs", "latency", "memory")
"""What `opbench.settings.SortBy` says, without importing it."""

_WIDTH = max(map(len, FORMATS)) + 2
_EPILOG = "\n".join(["\b", "Formats:", *(f"  {each.name:<{_WIDTH}}{each.purpose}" for each in FORMATS.values())])


@click.command(short_help="Make the tables of runs again.", epilog=_EPILOG)
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    metavar="FORMAT",
    default="table",
    show_default=True,
    help="One of those below.",
)
@click.option(
    "--group-by",
    "group_by",
    metavar="KEY[,KEY…]",
    help="A table for each value of operator, shape, pass, kernel_size …",
)
@click.option("--sort-by", "sort_by", type=click.Choice(ORDERS), help="Order of the rows.")
@click.option("--baseline", metavar="OPERATOR[/IMPLEMENTATION]", help="What the ratios refer to.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write to a file instead; - is standard output.",
)
def report(
    directories: tuple[Path, ...],
    form: str,
    group_by: str | None,
    sort_by: SortBy | None,
    baseline: str | None,
    output: Path | None,
) -> None:
    """Make the tables of runs again, at any time and on any machine; nothing is measured.

    Every DIR is a directory that `opbench run` wrote, finished or not. Several are set side by side, each divided by
    the first where case, parameters and policy are equal. The report goes to standard output, or to a file with -o; a
    file of Markdown has its charts in a folder beside it. In a job of GitHub Actions, table, markdown and html are
    appended to the job's summary too, as Markdown.

    \b
    opbench report runs/quickstart --format markdown -o report.md
    opbench report runs/quickstart --format latex -o table.tex
    opbench report runs/laptop runs/server
    """
    from opbench import report as reports
    from opbench import store
    from opbench.report import shelf

    chosen = FORMATS[form]
    output = None if output == Path("-") else output
    _check_place(chosen, output)
    write = writer(chosen) if chosen.written_by else None
    runs = [store.read(directory) for directory in directories]
    keys = tuple(key.strip() for key in group_by.split(",")) if group_by else ()
    view = reports.view(runs, reports.Options(group_by=keys, sort_by=sort_by, baseline=baseline))
    if write is None:
        reports.show(view, options.screen())
    elif output is None:
        click.echo(write(view), nl=False)
    elif form == "markdown":
        _put_markdown(output, view)
    else:
        shelf.write(output, write(view))
    if chosen.for_readers:
        job_summary.append(view, output)


def _check_place(form: Format, output: Path | None) -> None:
    """Refuse what cannot be kept in a file, or shown on a screen."""
    if output is not None and not form.written_by:
        fitting = [each.name for each in FORMATS.values() if output.suffix and each.suffix == output.suffix]
        others = fitting or [each.name for each in FORMATS.values() if each.written_by]
        raise click.UsageError(
            f"--format {form.name} is for the screen; write {output} with --format {' or '.join(others)}"
        )
    if output is None and form.binary and sys.stdout.isatty():
        raise click.UsageError(
            f"--format {form.name} is not for the screen; name a file, as in: -o report{form.suffix}"
        )


def _put_markdown(output: Path, view: View) -> None:
    from opbench.report import shelf

    # The folder's name stands in the page as it is; other letters are numbers, lest two pages share a folder.
    folder = re.sub(
        r"[^\w-]", lambda odd: "_" if odd[0].isascii() else f"_{ord(odd[0]):x}", output.stem, flags=re.ASCII
    )
    folder += "_charts"
    if not shelf.write_markdown(output, view, folder):
        options.say(f"{output} has no charts, which need: pip install 'opbench[html]'")
