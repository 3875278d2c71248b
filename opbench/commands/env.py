"""`opbench env`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from opbench.commands import options
from opbench.plain import plain

if TYPE_CHECKING:
    from opbench.measure.ceilings import Ceilings


@click.command(short_help="Show the machine that a run would be taken on.")
@click.option("--ceilings", "wants_ceilings", is_flag=True, help="Also measure what it can do at best; kept for later.")
@options.as_json
def env(wants_ceilings: bool, as_json: bool) -> None:
    """Show the machine, the software and the noise a run would be taken in, and what it lacks for a GPU.

    With --ceilings, also copy bandwidth, arithmetic and launch times: of the GPU where there is one, and of the
    processor with one thread and with all physical cores. They take some ten seconds each, and are kept until the
    device, its driver or torch changes.

    With --json, the `environment` object that every run stores.

    \b
    opbench env --json
    """
    from opbench import environment, readiness
    from opbench.report.device import ceiling_lines

    facts = readiness.gather()
    obstacles = readiness.obstacles(facts)
    ceilings = _measured(has_gpu=not obstacles) if wants_ceilings else []
    found = dataclasses.asdict(environment.capture(ceilings=ceilings))
    if as_json:
        options.print_json(found)
        return
    _show({name: value for name, value in found.items() if name != "ceilings"})
    for each in ceilings:
        _list(f"ceilings of {each.name}", ceiling_lines(each))
    _list("missing for a GPU", [*obstacles, *readiness.hindrances(facts)])


def _measured(has_gpu: bool) -> list[Ceilings]:
    """Ceilings of the GPU and of the processor, most parallel first."""
    from opbench import probing
    from opbench.measure import processor

    threads = sorted({1, processor.physical_cores()}, reverse=True)
    wanted = [("cuda", 1)] * has_gpu + [("cpu", count) for count in threads]
    return [probing.ceilings(device, count) for device, count in wanted]


def _show(found: Mapping[str, object]) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            _list(name, [f"{key}: {item}" for key, item in value.items()])
        elif value and isinstance(value, tuple) and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                _list(f"{name}[{index}]", [f"{key}: {_known(one)}" for key, one in item.items()])
        else:
            click.echo(plain(f"{name}: {_known(value)}"))


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        click.echo(plain(f"{title}:"))
        for line in lines:
            click.echo(f"  {plain(line)}")


def _known(value: object) -> object:
    return "–" if value in (None, ()) else value
