"""`opbench count`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opbench.cases import DTYPES, Case, Dtype, Nchw, ParamValue, Pass, Scope
from opbench.commands import options
from opbench.errors import OpbenchError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from opbench.registry import Registry
    from opbench.results import Counted, Counts

    Rows = Mapping[tuple[Scope, Pass], Counts]

TIMEOUT_SECONDS = 600.0
"""For one scope and pass; a count that takes as long does not come back."""
_SHARE_OF_MEMORY = 0.9
"""Of what is free: fvcore runs the layer once, and what does not fit must fail before the system kills it."""

_PASSES: tuple[Pass, ...] = ("forward", "training")


@click.command(short_help="Count what an operator or a network costs on paper.")
@click.argument("name", metavar="OPERATOR|NETWORK")
@click.option(
    "--input",
    "shape",
    metavar="NxCxHxW",
    help="Input of the layer, as in 32x64x56x56, or of the network, by default its paper's.",
)
@click.option("--operator", "filling", metavar="OPERATOR", help="What fills the slots of a network, if not its own.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a parameter. May be repeated.")
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Decides the bytes only."
)
@options.operator_paths
@options.as_json
def count(
    name: str,
    shape: str | None,
    filling: str | None,
    settings: tuple[str, ...],
    dtype: Dtype,
    paths: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Count what an operator or a network costs on paper; nothing is measured.

    Parameters, multiply-accumulates (dense, as papers count, and in-bounds, without the taps on padding), FLOPs (two
    per multiply-accumulate) and compulsory bytes, of the core and of the layer, with each counter's answer. Of a
    network, what it counts under the rules of the papers as well; `--set` sets parameters of what is in its slots.

    With --json, an object with the keys `operator`, `input`, `dtype`, `params` (what --set names), `parameters`,
    `macs_dense`, `macs_in_bounds`, `bytes` (of the layer's forward, or of the core's where there is no layer), and
    `core` and `layer`. Of these each has `forward` and `training`: null where it cannot be counted, else the keys
    `parameters`, `macs_dense`, `macs_in_bounds`, `at_least`, `bytes`, `agreement` and `counters` (`source`, `macs`,
    `unknown`, `note`). Of a network, `network` comes first, and `network`'s counts in place of `core` and `layer` are
    `forward` and `training`; `conventions` holds the forward's count under each rule, by the rule's name.

    \b
    opbench count involution --input 32x64x56x56 --set kernel_size=5
    opbench count rednet-50
    opbench count resnet-50 --operator involution --set kernel_size=5
    """
    from opbench.registry import Registry

    registry = Registry.discover(paths)
    base = _case(registry, name, shape, filling, Case(operator=name, shape=_ANY, params=_params(settings), dtype=dtype))
    rows, reasons, broken = _counted(registry, base)
    if not rows:
        raise OpbenchError(f"{base.name} cannot be counted at {base.shape}: {reasons[0]}")
    for reason in reasons:
        click.echo(f"opbench: {reason}", err=True)
    if as_json:
        options.print_json(_data(base, rows))
    else:
        _print(base, rows)
    return options.SOME_FAILED if broken else 0


_ANY = Nchw(1, 1, 1, 1)


def _case(registry: Registry, name: str, shape: str | None, filling: str | None, case: Case) -> Case:
    """The case of an operator or a network by its name, on the input that is asked for.

    Raises:
        OpbenchError: there is nothing of that name, or the input is missing.
    """
    from opbench.networks.catalogue import networks

    known = networks()
    if name in registry.plugins or name not in known:
        if name not in registry.plugins:
            raise OpbenchError(f"no operator or network {name!r}{did_you_mean(name, [*registry.plugins, *known])}")
        if filling is not None:
            raise OpbenchError(f"--operator is for networks, and {name} is an operator")
        if shape is None:
            raise OpbenchError(f"an operator has no input of its own; give one, as in {name} --input 32x64x56x56")
        return dataclasses.replace(case, shape=Nchw.parse(shape))
    network = known[name]
    return dataclasses.replace(
        case,
        operator=registry.find(filling or network.operator).name,
        network=name,
        scope="network",
        shape=network.input if shape is None else Nchw.parse(shape),
    )


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
    for scope in _scopes(base):
        for pass_ in _PASSES:
            case = dataclasses.replace(base, scope=scope, pass_=pass_)
            ending = isolation.run(worker.count, registry, case, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=free)
            if ending.kind == "returned":
                rows[scope, pass_] = ending.value
            else:
                broken |= ending.kind != "unsupported"
                reasons[f"{scope} not counted: {ending.reason}"] = None
    return rows, [*reasons], broken


def _scopes(case: Case) -> tuple[Scope, ...]:
    return ("network",) if case.network else ("core", "layer")


def _data(case: Case, rows: Rows) -> dict[str, Any]:
    scopes: dict[str, Any] = {
        scope: {pass_: _row(rows.get((scope, pass_))) for pass_ in _PASSES} for scope in _scopes(case)
    }
    head: dict[str, Any] = next(
        (scopes[scope]["forward"] for scope in reversed(scopes) if scopes[scope]["forward"]), {}
    )
    forward = rows.get(("network", "forward"))
    return {
        **({"network": case.network} if case.network else {}),
        "operator": case.operator,
        "input": str(case.shape),
        "dtype": case.dtype,
        "params": dict(case.params),
        **{key: head.get(key) for key in ("parameters", "macs_dense", "macs_in_bounds", "bytes")},
        **(
            {**scopes["network"], "conventions": dict(forward.conventions) if forward else {}}
            if case.network
            else scopes
        ),
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
    title = Text(plain(f"{case.name} at {case.shape}, {case.dtype}"))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    names = ("", "parameters", "MACs dense", "MACs in-bounds", "FLOPs", *(() if case.network else ("bytes",)))
    for name in names:
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
            *(() if case.network else (_bytes(counts),)),
        )
    console.print(table)
    for (scope, pass_), counts in rows.items():
        answers = ", ".join(map(_answer, counts.counters))
        verdict = counts.agreement or "nothing to compare"
        console.print(Text(plain(f"{scope} {pass_}: {answers}: {verdict}")), soft_wrap=True)
    if case.network:
        _print_conventions(console, rows)
    console.print(
        "One multiply-accumulate (MAC) is two FLOPs. Dense counts taps on padding, as papers do; in-bounds does not."
    )
    if not case.network:
        console.print(
            "Bytes: each input and parameter read once, each output written once, in training in both phases."
        )


def _bytes(counts: Counts) -> str:
    from opbench import units

    return "n/a" if counts.compulsory_bytes is None else units.bytes_(counts.compulsory_bytes)


def _print_conventions(console: Console, rows: Rows) -> None:
    """The forward under each rule; no two of the numbers may be compared."""
    from rich import box
    from rich.table import Table

    from opbench.networks.conventions import CONVENTIONS

    forward = rows.get(("network", "forward"))
    if forward is None or not forward.conventions:
        return
    table = Table(title="what papers would print", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("rule", no_wrap=True)
    table.add_column("forward", justify="right", no_wrap=True)
    table.add_column("used by")
    for name, total in forward.conventions.items():
        table.add_row(name, _digits(total), CONVENTIONS[name].used_by if name in CONVENTIONS else "")
    console.print(table)


def _answer(counted: Counted) -> str:
    if counted.macs is None:
        return f"{counted.source} n/a ({counted.note})"
    least = "≥ " if counted.unknown else ""
    return f"{counted.source} {least}{_digits(counted.macs)}"


def _digits(value: int) -> str:
    """Every digit, in groups of three: 12344 -> '12 344'."""
    return f"{value:,}".replace(",", " ")
