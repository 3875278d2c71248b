"""`opbench count`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opbench.cases import DTYPES, Case, Dtype, Nchw, ParamValue, Pass, Scope
from opbench.commands import options
from opbench.errors import OpbenchError

if TYPE_CHECKING:
    from opbench.registry import Registry
    from opbench.results import Counted, Counts

    Rows = Mapping[tuple[Scope, Pass], Counts]

TIMEOUT_SECONDS = 600.0
"""For one scope and pass; a count that takes as long does not come back."""
_SHARE_OF_MEMORY = 0.9
"""Of what is free: fvcore runs the layer once, and what does not fit must fail before the system kills it."""

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
) -> int:
    """Count what an operator costs on paper; nothing is measured.

    Parameters, multiply-accumulates (dense, as papers count, and in-bounds, without the taps on padding), FLOPs (two
    per multiply-accumulate) and compulsory bytes, of the core and of the layer, with each counter's answer.

    With --json, an object with the keys `operator`, `input`, `dtype`, `params` (what --set names), `parameters`,
    `macs_dense`, `macs_in_bounds`, `bytes` (of the layer's forward, or of the core's where there is no layer), and
    `core` and `layer`. Of these each has `forward` and `training`: null where it cannot be counted, else the keys
    `parameters`, `macs_dense`, `macs_in_bounds`, `at_least`, `bytes`, `agreement` and `counters` (`source`, `macs`,
    `unknown`, `note`).

    \b
    opbench count involution --input 32x64x56x56 --set kernel_size=5
    """
    from opbench.registry import Registry

    base = Case(operator=operator, shape=Nchw.parse(shape), params=_params(settings), dtype=dtype)
    registry = Registry.discover(paths)
    registry.find(operator)
    rows, reasons, broken = _counted(registry, base)
    if not rows:
        raise OpbenchError(f"{operator} cannot be counted at {base.shape}: {reasons[0]}")
    for reason in reasons:
        click.echo(f"opbench: {reason}", err=True)
    if as_json:
        options.print_json(_data(base, rows))
    else:
        _print(base, rows)
    return options.SOME_FAILED if broken else 0


def _params(settings: tuple[str, ...]) -> dict[str, ParamValue]:
    from opbench.suite.scalars import plain

    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise OpbenchError(f"--set {setting!r} is not NAME=VALUE, as in --set kernel_size=5")
        values[name] = plain(value)
    return values


def _counted(registry: Registry, base: Case) -> tuple[Rows, list[str], bool]:
    """Count each scope and pass in a child, which a plugin may break; say what was not counted, and if that is so."""
    from opbench import isolation, worker
    from opbench.measure import machine
    from opbench.probing import Prober

    isolation.import_early("fvcore.nn")
    refusals = Prober(registry).refusals([base])
    if refusals:
        return {}, [*refusals.values()], False
    free = int(_SHARE_OF_MEMORY * machine.available_bytes())
    rows: dict[tuple[Scope, Pass], Counts] = {}
    reasons: dict[str, None] = {}
    broken = False
    for scope in _SCOPES:
        for pass_ in _PASSES:
            case = dataclasses.replace(base, scope=scope, pass_=pass_)
            ending = isolation.run(worker.count, registry, case, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=free)
            if ending.kind == "returned":
                rows[scope, pass_] = ending.value
            else:
                broken |= ending.kind != "unsupported"
                reasons[f"{scope} not counted: {ending.reason}"] = None
    return rows, [*reasons], broken


def _data(case: Case, rows: Rows) -> dict[str, Any]:
    scopes: dict[str, Any] = {scope: {pass_: _row(rows.get((scope, pass_))) for pass_ in _PASSES} for scope in _SCOPES}
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
        "agreement": counts.agreement,
        "counters": [dataclasses.asdict(counted) for counted in counts.counters],
    }


def _print(case: Case, rows: Rows) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from opbench import units
    from opbench.plain import plain

    console = options.screen()
    title = Text(plain(f"{case.operator} at {case.shape}, {case.dtype}"))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("", "parameters", "MACs dense", "MACs in-bounds", "FLOPs", "bytes"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for (scope, pass_), counts in rows.items():
        least = "≥ " if counts.at_least else ""
        macs, bounds = counts.macs_dense, counts.macs_in_bounds
        table.add_row(
            f"{scope} {pass_}",
            "–" if counts.parameters is None else _digits(counts.parameters),
            "n/a" if macs is None else least + units.count(macs),
            "n/a" if bounds is None else units.count(bounds),
            "n/a" if macs is None else least + units.count(2 * macs),
            "n/a" if counts.compulsory_bytes is None else units.bytes_(counts.compulsory_bytes),
        )
    console.print(table)
    for (scope, pass_), counts in rows.items():
        answers = ", ".join(map(_answer, counts.counters))
        verdict = counts.agreement or "nothing to compare"
        console.print(Text(plain(f"{scope} {pass_}: {answers}: {verdict}")), soft_wrap=True)
    console.print(
        "One multiply-accumulate (MAC) is two FLOPs. Dense counts taps on padding, as papers do; in-bounds does not.\n"
        "Bytes: each input and parameter read once, each output written once; training does so forward and backward.",
    )


def _answer(counted: Counted) -> str:
    if counted.macs is None:
        return f"{counted.source} n/a ({counted.note})"
    least = "≥ " if counted.unknown else ""
    return f"{counted.source} {least}{_digits(counted.macs)}"


def _digits(value: int) -> str:
    """Every digit, in groups of three: 12344 -> '12 344'."""
    return f"{value:,}".replace(",", " ")
