"""`opbench count`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opbench.cases import DTYPES, Case, Dtype, Nchw, ParamValue, Pass, Scope
from opbench.commands import options
from opbench.errors import OpbenchError, Unsupported

if TYPE_CHECKING:
    from opbench.registry import Registry
    from opbench.results import Counts

_SCOPES: tuple[Scope, ...] = ("core", "layer")
_PASSES: tuple[Pass, ...] = ("forward", "training")


@click.command()
@click.argument("operator")
@click.option("--input", "shape", required=True, metavar="NxCxHxW", help="Input of the layer, as in 32x64x56x56.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a parameter. May be repeated.")
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Decides the bytes only."
)
@options.operator_paths
@options.as_json
def count(
    operator: str, shape: str, settings: tuple[str, ...], dtype: Dtype, paths: tuple[Path, ...], as_json: bool
) -> None:
    """Count what an operator costs on paper; nothing is measured.

    Parameters, multiply-accumulates (dense, as papers count, and in-bounds, without the taps on padding), FLOPs (two
    per multiply-accumulate) and compulsory bytes, of the core and of the layer, with each counter's answer.

    With --json, an object with the keys `parameters`, `macs_dense`, `macs_in_bounds`, `bytes` (of the layer's forward),
    and under `core` and `layer` the same for `forward` and `training` with `counters`.
    """
    from opbench.registry import Registry

    base = Case(operator=operator, shape=Nchw.parse(shape), params=_params(settings), dtype=dtype)
    registry = Registry.discover(paths)
    registry.find(operator)
    rows = {
        (scope, pass_): _counted(registry, dataclasses.replace(base, scope=scope, pass_=pass_))
        for scope in _SCOPES
        for pass_ in _PASSES
    }
    if all(counts is None for counts in rows.values()):
        raise OpbenchError(f"{operator} cannot be counted at {shape}")
    if as_json:
        options.print_json(_data(base, rows))
    else:
        _print(base, rows)


def _params(settings: tuple[str, ...]) -> dict[str, ParamValue]:
    from opbench.suite.scalars import plain

    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"{setting!r} is not NAME=VALUE", param_hint="--set")
        values[name] = plain(value)
    return values


def _counted(registry: Registry, case: Case) -> Counts | None:
    from opbench.measure.counters import count as count_subject
    from opbench.subject import Subject

    try:
        return count_subject(Subject.load(registry, case))
    except Unsupported as answer:
        click.echo(f"opbench: {case.scope} not counted: {answer}", err=True)
        return None
    except ValueError as error:
        raise OpbenchError(f"{case.operator}: {error}") from error


def _data(case: Case, rows: dict[tuple[Scope, Pass], Counts | None]) -> dict[str, Any]:
    scopes: dict[str, Any] = {scope: {pass_: _row(rows[scope, pass_]) for pass_ in _PASSES} for scope in _SCOPES}
    head = scopes["layer"]["forward"] or scopes["core"]["forward"] or {}
    return {
        "operator": case.operator,
        "input": str(case.shape),
        "dtype": case.dtype,
        "params": dict(case.params),
        **{key: head.get(key) for key in ("parameters", "macs_dense", "macs_in_bounds", "bytes")},
        **scopes,
    }


def _row(counts: Counts | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    return {
        "parameters": counts.parameters,
        "macs_dense": counts.macs_dense,
        "macs_in_bounds": counts.macs_in_bounds,
        "at_least": counts.at_least,
        "bytes": counts.compulsory_bytes,
        "counters": [dataclasses.asdict(counted) for counted in counts.counters],
        "agreement": counts.agreement,
    }


def _print(case: Case, rows: dict[tuple[Scope, Pass], Counts | None]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from opbench import units

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # A pipe has no width; nothing need be cut.
    title = Text(f"{case.operator} at {case.shape}, {case.dtype}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("", "parameters", "MACs dense", "MACs in-bounds", "FLOPs", "bytes"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for (scope, pass_), counts in rows.items():
        if counts is None:
            continue
        least = "≥ " if counts.at_least else ""
        macs, bounds = counts.macs_dense, counts.macs_in_bounds
        table.add_row(
            f"{scope} {pass_}",
            "–" if counts.parameters is None else f"{counts.parameters:,}".replace(",", " "),
            "n/a" if macs is None else least + units.count(macs),
            "n/a" if bounds is None else units.count(bounds),
            "n/a" if macs is None else least + units.count(2 * macs),
            "n/a" if counts.compulsory_bytes is None else units.bytes_(counts.compulsory_bytes),
        )
    console.print(table)
    for (scope, pass_), counts in rows.items():
        if counts is not None:
            answers = ", ".join(_answer(counted) for counted in counts.counters)
            console.print(
                Text(f"{scope} {pass_}: {answers}: {counts.agreement or 'nothing to compare'}"), soft_wrap=True
            )
    console.print(
        "One multiply-accumulate (MAC) is two FLOPs. Dense counts taps on padding, as papers do; in-bounds does not.\n"
        "Bytes: each input and parameter read once, each output written once; training does so forward and backward.",
    )


def _answer(counted: Any) -> str:
    if counted.macs is None:
        return f"{counted.source} n/a ({counted.note})"
    least = "≥ " if counted.unknown else ""
    return f"{counted.source} {least}{counted.macs:,}".replace(",", " ")
