"""`opbench report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.commands import options
from opbench.errors import RunError

if TYPE_CHECKING:
    from opbench.settings import SortBy

ORDERS = ("suite", "name", "parameters", "macs", "latency", "memory")
"""What `opbench.settings.SortBy` says, without importing it."""


@click.command(short_help="Make the tables of runs again.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
    help="A table for the screen, Markdown for a page, CSV or JSON for a program.",
)
@click.option(
    "--group-by",
    "group_by",
    metavar="KEY[,KEY…]",
    help="A table for each value of operator, shape, pass, kernel_size …",
)
@click.option("--sort-by", "sort_by", type=click.Choice(ORDERS), help="Order of the rows.")
@click.option("--baseline", metavar="OPERATOR[/IMPLEMENTATION]", help="What the ratios refer to.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead.")
def report(
    directories: tuple[Path, ...],
    form: str,
    group_by: str | None,
    sort_by: SortBy | None,
    baseline: str | None,
    output: Path | None,
) -> None:
    """Make the tables of runs again, at any time and on any machine; nothing is measured.

    Every DIR is a directory that `opbench run` wrote, finished or not. Ratios are given only between times taken under
    the same policy in the same run. The tables go to standard output, or to a file with -o.

    \b
    opbench report runs/quickstart --format markdown -o report.md
    """
    from opbench import report as reports
    from opbench import store

    runs = [store.read(directory) for directory in directories]
    keys = tuple(key.strip() for key in group_by.split(",")) if group_by else ()
    view = reports.view(runs, reports.Options(group_by=keys, sort_by=sort_by, baseline=baseline))
    if form == "table" and output is None:
        reports.show(view, options.screen())
        return
    text = {"markdown": reports.markdown, "csv": reports.csv_text, "json": reports.json_text}.get(form)
    if text is None:
        raise click.UsageError("--format table is for the screen; write a file with --format markdown, csv or json")
    if output is None:
        click.echo(text(view), nl=False)
        return
    try:
        output.write_text(text(view), encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}") from error
