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

    \b
    opbench list
    opbench list --operators examples/box_blur
    """
    from opbench.plain import plain
    from opbench.registry import Registry

    plugins = Registry.discover(paths).plugins.values()
    if as_json:
        rows = [{"operator": item.name, "summary": item.summary, "folder": str(item.folder)} for item in plugins]
        options.print_json(rows)
        return
    names = [plain(plugin.name) for plugin in plugins]
    width = max(map(len, names), default=0)
    for name, plugin in zip(names, plugins, strict=True):
        click.echo(f"{name:{width}}  {plain(plugin.summary)}")
