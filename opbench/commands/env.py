"""`opbench env`."""

from __future__ import annotations

import dataclasses

import click

from opbench.commands import options


@click.command(short_help="Show the machine that a run would be taken on.")
@options.as_json
def env(as_json: bool) -> None:
    """Show the machine, the software and the noise a run would be taken in.

    With --json, the `environment` object that every run stores.

    \b
    opbench env --json
    """
    from opbench import environment
    from opbench.plain import plain

    found = dataclasses.asdict(environment.capture())
    if as_json:
        options.print_json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for key, item in value.items():
                click.echo(f"  {plain(f'{key}: {item}')}")
        else:
            click.echo(plain(f"{name}: {'–' if value in (None, ()) else value}"))
