"""`opbench networks`."""

from __future__ import annotations

import click

from opbench.commands import options


@click.command(short_help="List the networks whose slots any operator can fill.")
@options.as_json
def networks(as_json: bool) -> None:
    """List the networks whose slots any operator can fill, and the operator that is there by default.

    In a suite, `network: resnet-50` with `operator: involution` puts involutions where ResNet-50 has 3x3 convolutions;
    `network: rednet-50` alone is the published network. With --json, a list of objects with the keys `network`,
    `summary`, `operator`, `input` and `source`.

    \b
    opbench networks
    opbench show rednet-50
    opbench count rednet-50 --input 1x3x224x224
    """
    from opbench.networks.catalogue import networks as known

    if as_json:
        options.print_json(
            [
                {
                    "network": item.name,
                    "summary": item.summary,
                    "operator": item.operator,
                    "input": str(item.input),
                    "source": item.source,
                }
                for item in known().values()
            ]
        )
        return
    names = max(map(len, known()))
    operators = max(len(item.operator) for item in known().values())
    for item in known().values():
        click.echo(f"{item.name:{names}}  {item.operator:{operators}}  {item.summary}")
