"""Options that several verbs share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from opbench.plain import one_line

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

SOME_FAILED = 5
"""Exit status where some case was wrong, or did not survive."""


_WIDTH_OF_A_PIPE = 400


def operator_paths(command: Command) -> Command:
    """Add `--operators PATH`, which may be repeated."""
    return click.option(
        "--operators",
        "paths",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Also find operators here: a plugin folder or a folder of them. May be repeated.",
    )(command)


def as_json(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine to read.")(command)


def print_json(data: object) -> None:
    """Print strict JSON to standard output."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def say(words: str) -> None:
    """Tell the user something, on standard error: standard output is for data; what it quotes is made harmless."""
    click.echo(f"opbench: {one_line(words)}", err=True)


def screen() -> Console:
    """Return standard output: as wide as the terminal; a pipe has no width, so nothing in it need be cut."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)
