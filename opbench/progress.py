"""Progress of a run on standard error: what is being done, how far it is, how long it will still take.

On a terminal a live bar; elsewhere one line per finished record, so that logs stay readable; nothing when quiet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from opbench import units
from opbench.cases import Case
from opbench.plain import plain
from opbench.results import Failed, Record, Skipped, Wrong

_REFRESH_SECONDS = 0.5


class Watcher:
    """Shows a run as it goes; one of `opbench.runner.Observer`."""

    def __init__(self, console: Console, planned: int, *, quiet: bool = False, done: int = 0) -> None:
        self.console, self.planned, self.quiet = console, planned, quiet
        self.before, self.done = done, done
        self.began = self.latest = self.refreshed = time.monotonic()
        # A live display only where there is somebody to look: CI logs would fill with cursor codes.
        self.live = console.file.isatty() and console.is_interactive and not quiet and "CI" not in os.environ
        # No refresh thread: a thread holding a lock while the run forks would hold it in the child for ever.
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not self.live,
        )
        self.task = self.progress.add_task("starting", total=planned, completed=done, left="")

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Show the bar while the block runs."""
        with self.progress:
            yield self

    def phase(self, case: Case, implementation: str, doing: str) -> None:
        """Show what is about to be done."""
        room = max(20, self.console.width - 62)
        self.progress.update(
            self.task, description=f"{plain(_short(case, implementation), room)}: {doing}", left=self._left()
        )
        self.progress.refresh()

    def tick(self) -> None:
        """Keep the time moving, but seldom: drawing takes processor time from what is being measured."""
        if time.monotonic() - self.refreshed >= _REFRESH_SECONDS:
            self._refresh()

    def recorded(self, record: Record) -> None:
        """Count a finished record, and say what became of it where it was not measured or nobody watches."""
        self.done += 1
        self.latest = time.monotonic()
        self.progress.update(self.task, completed=self.done, left=self._left())
        if self.quiet or (self.live and record.status == "measured"):
            return
        words = f"[{self.done}/{self.planned}] {_short(record.case, record.implementation)}: {_ending(record)}"
        left = "" if self.live or self.done == self.planned else f"  ({self._left()})"
        self.console.print(Text(plain(words) + left), soft_wrap=True)

    def _refresh(self) -> None:
        self.refreshed = time.monotonic()
        self.progress.update(self.task, left=self._left())
        self.progress.refresh()

    def _left(self) -> str:
        fresh = self.done - self.before
        if not fresh:
            return ""
        each = (self.latest - self.began) / fresh
        left = each * (self.planned - self.done) - (time.monotonic() - self.latest)
        # A record that takes longer than its kind so far is about to end, for all that is known.
        return f"about {units.duration(max(left, 1.0))} left"


def _short(case: Case, implementation: str) -> str:
    params = f"[{case.params_text}]" if case.params else ""
    return f"{case.name}{params} {implementation} {case.shape} {case.scope} {case.pass_}"


def _ending(record: Record) -> str:
    match record.outcome:
        case Wrong(quantity=quantity, where=where):
            return f"wrong: {quantity} {where}"
        case Skipped(reason=reason):
            return f"skipped: {reason}"
        case Failed(status=status, reason=reason):
            return f"{status.replace('_', ' ')}: {reason}"
    return "measured"
