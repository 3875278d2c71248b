"""`opbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.cases import ParamValue
from opbench.commands import options

if TYPE_CHECKING:
    from opbench.inspection import Description
    from opbench.registry import Plugin


@click.command()
@click.argument("operator")
@options.operator_paths
@options.as_json
def show(operator: str, paths: tuple[Path, ...], as_json: bool) -> None:
    """Show an operator: its source, its parameters with defaults and legal values, its implementations.

    With --json, an object with the keys `operator`, `summary`, `source`, `folder`, `parameters` (`name`, `default`,
    `legal`, `help`) and `implementations` (`name`, `dtypes`, `devices`, `summary`).
    """
    from opbench.inspection import describe_operator
    from opbench.registry import Registry

    registry = Registry.discover(paths)
    plugin = registry.find(operator)
    loaded = registry.load(operator)
    description = describe_operator(loaded)
    if as_json:
        options.print_json(_data(plugin, loaded.source, description))
    else:
        click.echo("\n".join(_lines(plugin, loaded.source, description)))


def _data(plugin: Plugin, source: str, description: Description) -> dict[str, object]:
    return {
        "operator": plugin.name,
        "summary": plugin.summary,
        "source": source,
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


def _lines(plugin: Plugin, source: str, description: Description) -> list[str]:
    lines = [f"{plugin.name}: {plugin.summary}"]
    if source:
        lines.append(f"source: {source}")
    lines += [f"folder: {plugin.folder}", "", "parameters:"]
    names = max((len(spec.name) for spec in description.params), default=0)
    for spec in description.params:
        lines += [f"  {spec.name:{names}}  {_word(spec.default)}  ({spec.legal})", f"  {'':{names}}  {spec.help}"]
    if not description.params:
        lines.append("  none")
    lines += ["", "implementations:"]
    names = max(len(item.name) for item in description.implementations)
    for item in description.implementations:
        lines.append(f"  {item.name:{names}}  {item.summary}")
        lines.append(f"  {'':{names}}  on {', '.join(item.devices)}, in {', '.join(item.dtypes)}")
    return lines


def _word(value: ParamValue) -> str:
    """Write a value as a suite would."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
