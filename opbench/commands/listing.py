"""`opbench list`."""

from __future__ import annotations

from pathlib import Path

import click

from opbench.commands import options


@click.command("list")
@options.operator_paths
@options.as_json
def list_(paths: tuple[Path, ...], as_json: bool) -> None:
    """List the operators and what they compute.

    Reads folders and docstrings only; nothing is imported, so it answers at once. With --json, a list of objects with
    the keys `operator`, `summary` and `folder`.
    """
    from opbench.registry import Registry

    plugins = Registry.discover(paths).plugins.values()
    if as_json:
        rows = [{"operator": item.name, "summary": item.summary, "folder": str(item.folder)} for item in plugins]
        options.print_json(rows)
        return
    width = max((len(plugin.name) for plugin in plugins), default=0)
    for plugin in plugins:
        click.echo(f"{plugin.name:{width}}  {plugin.summary}")
