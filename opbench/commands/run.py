"""`opbench run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.commands import job_summary, options
from opbench.errors import MachineError

if TYPE_CHECKING:
    from opbench.forecast import Row
    from opbench.session import Prepared
    from opbench.store import Run

BAD = frozenset({"wrong", "failed", "out_of_memory", "timed_out", "crashed"})
REPORT_FILE = "report.md"
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Measure what a suite asks for and print the table.")
@click.argument("suite", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=_FOLDER, help="Directory of the run; runs/<suite>-<date>-<time> unless given.")
@click.option("--resume", type=_FOLDER, help="Finish the run in this directory; no SUITE then.")
@click.option("--dry-run", is_flag=True, help="List the cases with an estimate of time and memory; measure nothing.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key: measure.processes=1.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these operators, implementations or case ids.")
@click.option("--skip", multiple=True, metavar="PATTERN", help="All but these; patterns as in 'involution*'.")
@options.operator_paths
@click.option("--allow-noisy", is_flag=True, help="Measure although other programs use the machine; flags the results.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; the table and errors only.")
@options.as_json
def run(
    suite: Path | None,
    out: Path | None,
    resume: Path | None,
    dry_run: bool,
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    paths: tuple[Path, ...],
    allow_noisy: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure what a SUITE asks for, print the table, and keep everything on disk.

    Every case runs in processes of its own; each finished record is on disk at once, so Ctrl-C or a crash loses at
    most the case in flight, and --resume goes on. Progress goes to standard error, the table to standard output. The
    directory holds run.json, records.jsonl and report.md; in a job of GitHub Actions, the report is appended to the
    job's summary too.

    With --json, the records instead of the table, as `opbench report --format json` gives them; with --dry-run, an
    object with the keys `seconds_estimated` and `cases` (`case`, `implementations`, `peak_bytes`, `seconds_estimated`,
    `trouble`).

    \b
    opbench run suites/quickstart.yaml --only 'involution*' --set measure.processes=1
    """
    from rich.console import Console

    from opbench import session

    console = Console(stderr=True, highlight=False)
    if (suite is None) == (resume is None):
        raise click.UsageError("name a suite, as in: opbench run suites/quickstart.yaml; or --resume DIR")
    if resume is not None:
        if overrides or only or skip or paths or out or dry_run:
            raise click.UsageError("--resume goes on as the run began; only --allow-noisy and --quiet go with it")
        with _kept(resume):
            finished = session.resume(resume, console, quiet=quiet, allow_noisy=allow_noisy)
        return _show(finished, as_json)
    assert suite is not None
    request = session.Request(path=suite, overrides=overrides, operator_paths=paths, only=only, skip=skip)
    prepared = session.prepare(request)
    if dry_run:
        return _dry_run(prepared, as_json)
    directory = out or session.default_directory(suite, datetime.now())
    with _kept(directory):
        finished = session.start(prepared, directory, console, quiet=quiet, allow_noisy=allow_noisy)
    return _show(finished, as_json)


@contextmanager
def _kept(directory: Path) -> Iterator[None]:
    """Whatever ends a run early, say how to go on and write the report of what there is."""
    from opbench import store

    try:
        yield
    except (KeyboardInterrupt, MachineError):
        if (directory / store.HEADER_FILE).exists():
            unfinished = store.read(directory)
            done, planned = len(unfinished.records), len(unfinished.header.plan)
            options.say(f"{done} of {planned} records are kept in {directory}")
            options.say(f"go on with: opbench run --resume {directory}")
            with suppress(MachineError):  # Told already, where the disk is full.
                _write_report(unfinished)
        raise


def _show(finished: Run, as_json: bool) -> int:
    """Write the report, print the table, and return the exit status."""
    from opbench import report

    _write_report(finished)
    view = report.view([finished])
    if as_json:
        click.echo(report.json_text(view), nl=False)
    else:
        report.show(view, options.screen())
    options.say(f"kept in {finished.directory}, report in {finished.directory / REPORT_FILE}")
    return options.SOME_FAILED if any(record.status in BAD for record in finished.records) else 0


def _write_report(run: Run) -> None:
    from opbench import report

    path, view = run.directory / REPORT_FILE, report.view([run])
    try:
        path.write_text(report.markdown(view), encoding="utf-8")
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror}") from error
    job_summary.append(view)


def _dry_run(prepared: Prepared, as_json: bool) -> int:
    """List the cases with what they will take, as soon as each is known."""
    from opbench import forecast, units

    rows = []
    for row in forecast.foresee(prepared.plan, prepared.registry, prepared.suite.measure, prepared.suite.metrics):
        rows.append(row)
        if not as_json:
            memory = "memory n/a" if row.peak_bytes is None else units.bytes_(row.peak_bytes)
            time = "" if row.seconds is None else f"about {units.duration(row.seconds)}"
            click.echo("  ".join([row.case.id, ",".join(row.implementations), row.trouble or f"{memory}  {time}"]))
    for case, name, reason in prepared.refused:
        if not as_json:
            click.echo(f"{case.id}  {name}  skipped: {reason}")
    seconds = sum(row.seconds or 0 for row in rows)
    if as_json:
        options.print_json({"seconds_estimated": seconds, "cases": [_forecast_data(row) for row in rows]})
    options.say(
        f"{len(rows)} cases, {len(prepared.plan)} records, about {units.duration(seconds)} "
        "(an estimate: right to a factor of three)"
    )
    return 0


def _forecast_data(row: Row) -> dict[str, object]:
    return {
        "case": row.case.id,
        "implementations": list(row.implementations),
        "peak_bytes": row.peak_bytes,
        "seconds_estimated": row.seconds,
        "trouble": row.trouble,
    }
