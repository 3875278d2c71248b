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


@click.command(short_help="Show an operator, its parameters and implementations.")
@click.argument("operator")
@options.operator_paths
@options.as_json
def show(operator: str, paths: tuple[Path, ...], as_json: bool) -> None:
    """Show an operator: its source, its parameters with defaults and legal values, its implementations.

    With --json, an object with the keys `operator`, `summary`, `source`, `folder`, `parameters` (`name`, `default`,
    `legal`, `help`) and `implementations` (`name`, `dtypes`, `devices`, `summary`).

    \b
    opbench show involution
    """
    from opbench.probing import Prober
    from opbench.registry import Registry

    registry = Registry.discover(paths)
    plugin = registry.find(operator)
    description = Prober(registry).describe(operator)
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


def _word(value: ParamValue) -> str:
    """Write a value as a suite would."""
    from opbench.plain import plain

    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else plain(str(value))
