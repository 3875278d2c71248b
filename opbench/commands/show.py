"""`opbench show`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.cases import ParamValue
from opbench.commands import options
from opbench.errors import OpbenchError, did_you_mean

if TYPE_CHECKING:
    from opbench.inspection import Description, SlotInfo
    from opbench.networks.network import Network
    from opbench.registry import Plugin


@click.command(short_help="Show an operator and its parameters, or a network and its slots.")
@click.argument("name", metavar="OPERATOR|NETWORK")
@options.operator_paths
@options.as_json
def show(name: str, paths: tuple[Path, ...], as_json: bool) -> None:
    """Show an operator: its source, its parameters with defaults and legal values, its implementations.

    Or a network: its source, what fills its slots, and where they are.

    With --json, an object with the keys `operator`, `summary`, `source`, `folder`, `parameters` (`name`, `default`,
    `legal`, `help`) and `implementations` (`name`, `dtypes`, `devices`, `summary`). Of a network, an object with the
    keys `network`, `summary`, `source`, `input`, `operator`, `params`, `options`, `count_only` and `slots` (`path`,
    `input`, `output`, `params`).

    \b
    opbench show involution
    opbench show rednet-50
    """
    from opbench.networks.catalogue import networks
    from opbench.probing import Prober
    from opbench.registry import Registry

    registry = Registry.discover(paths)
    known = networks()
    if name in known and name not in registry.plugins:
        places = Prober(registry).slots(name)
        if as_json:
            options.print_json(_network_data(known[name], places))
        else:
            click.echo("\n".join(_network_lines(known[name], places)))
        return
    if name not in registry.plugins:
        raise OpbenchError(f"no operator or network {name!r}{did_you_mean(name, [*registry.plugins, *known])}")
    plugin = registry.find(name)
    description = Prober(registry).describe(name)
    if as_json:
        options.print_json(_data(plugin, description))
    else:
        click.echo("\n".join(_lines(plugin, description)))


def _data(plugin: Plugin, description: Description) -> dict[str, object]:
    return {
        "operator": plugin.name,
        "summary": plugin.summary,
        "source": description.source,
        "folder": str(plugin.folder),
        "parameters": [
            {"name": spec.name, "default": spec.default, "legal": spec.legal, "help": spec.help}
            for spec in description.params
        ],
        "implementations": [
            {
                "name": item.name,
                "dtypes": list(item.dtypes),
                "devices": list(item.devices),
                "summary": item.summary,
            }
            for item in description.implementations
        ],
    }


def _lines(plugin: Plugin, description: Description) -> list[str]:
    from opbench.plain import plain

    lines = [f"{plain(plugin.name)}: {plain(plugin.summary)}"]
    if description.source:
        lines.append(f"source: {plain(description.source)}")
    lines += [f"folder: {plain(str(plugin.folder))}", "", "parameters:"]
    names = max((len(spec.name) for spec in description.params), default=0)
    for spec in description.params:
        lines.append(f"  {spec.name:{names}}  {_word(spec.default)}  ({plain(spec.legal)})")
        lines += [f"  {'':{names}}  {plain(spec.help)}"] if spec.help else []
    if not description.params:
        lines.append("  none")
    lines += ["", "implementations:"]
    words = [plain(item.name) for item in description.implementations]
    names = max(map(len, words))
    for name, item in zip(words, description.implementations, strict=True):
        where = f"on {', '.join(item.devices)}, in {', '.join(item.dtypes)}"
        lines += [f"  {name:{names}}  {plain(item.summary)}".rstrip(), f"  {'':{names}}  {plain(where)}"]
    return lines


def _network_data(network: Network, places: Sequence[SlotInfo]) -> dict[str, object]:
    return {
        "network": network.name,
        "summary": network.summary,
        "source": network.source,
        "input": str(network.input),
        "operator": network.operator,
        "params": dict(network.params),
        "options": dict(network.options),
        "count_only": network.count_only,
        "slots": [dataclasses.asdict(place) for place in places],
    }


def _network_lines(network: Network, places: Sequence[SlotInfo]) -> list[str]:
    from opbench.plain import plain

    params = ", ".join(f"{name} = {_word(value)}" for name, value in network.params.items())
    lines = [f"{network.name}: {network.summary}"]
    lines += [f"source: {network.source}"] if network.source else []
    lines += [f"input: {network.input}", f"in its slots: {network.operator}" + (f" ({params})" if params else "")]
    lines += [f"counted and not run: {network.count_only}"] if network.count_only else []
    lines += ["", f"slots: {len(places)}"]
    paths, inputs, outputs = (
        max(map(len, column)) for column in zip(*((p.path, p.input, p.output) for p in places), strict=True)
    )
    for place in places:
        about = ", ".join(f"{name} = {_word(value)}" for name, value in place.params.items())
        line = f"  {place.path:{paths}}  {place.input:>{inputs}} -> {place.output:<{outputs}}  {plain(about)}"
        lines.append(line.rstrip())
    return lines


def _word(value: ParamValue) -> str:
    """Write a value as a suite would."""
    from opbench.plain import plain

    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else plain(str(value))
