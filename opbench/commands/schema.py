"""`opbench schema`."""

from __future__ import annotations

import click

from opbench.commands import options


@click.command()
def schema() -> None:
    """Print the JSON Schema of suite files, for editors.

    Save it beside your suite and begin the suite with `# yaml-language-server: $schema=suite.schema.json`.

    \b
    opbench schema > suite.schema.json
    """
    from opbench import suite

    options.print_json(suite.schema())
