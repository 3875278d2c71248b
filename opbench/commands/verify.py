"""`opbench verify`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opbench.cases import DTYPES, Dtype
from opbench.commands import options

if TYPE_CHECKING:
    from opbench.verification import Verdict

_FAILURES_SHOWN = 5


@click.command(short_help="Check implementations against the reference.")
@click.argument("operators", nargs=-1)
@click.option("--dtype", "dtypes", type=click.Choice(DTYPES), multiple=True, help="Only this dtype. May be repeated.")
@click.option(
    "--implementation", "names", multiple=True, metavar="NAME", help="Only this one, or 'compile'. May be repeated."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="For one implementation in one dtype.",
)
@options.operator_paths
@options.as_json
def verify(
    operators: tuple[str, ...],
    dtypes: tuple[Dtype, ...],
    names: tuple[str, ...],
    timeout: float,
    paths: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Check implementations against the float64 reference, forward and every gradient; nothing is timed.

    Every operator, or those named, at shapes and memory layouts that catch bugs: odd, not square, smaller than the
    kernel, one image, none, channels_last, sliced. Each runs in a process of its own; a crash is that implementation's
    failure. Exit status 5 when something failed.

    With --json, a list of rows with the keys `operator`, `implementation`, `dtype`, `case`, `quantity`, `error`,
    `budget`, `where`, `status` and `reason`. The status is 'pass' or 'fail' for a quantity, 'skip' for a case that the
    implementation does not cover, and 'fail', with the reason but no case, for one that did not survive. An error of
    null is not finite, or could not be computed.

    \b
    opbench verify involution --dtype float32
    """
    from opbench import verification
    from opbench.registry import Registry

    registry = Registry.discover(paths)
    chosen = [registry.find(name).name for name in operators] or registry.names
    verdicts: list[Verdict] = []
    for verdict in verification.verify(registry, chosen, dtypes or DTYPES, names, timeout):
        verdicts.append(verdict)
        if not as_json:
            click.echo("\n".join(_lines(verdict)))
    if as_json:
        options.print_json([row for verdict in verdicts for row in _rows(verdict)])
    passed = sum(verdict.passed for verdict in verdicts)
    options.say(f"{passed} of {len(verdicts)} passed")
    return options.SOME_FAILED if any(not verdict.passed for verdict in verdicts) else 0


def _lines(verdict: Verdict) -> Iterator[str]:
    from opbench.plain import plain

    yield plain(f"{verdict.operator} {verdict.implementation} {verdict.dtype}: {verdict.summary}")
    for case, row in verdict.failures[:_FAILURES_SHOWN]:
        off = f"{row.quantity} off by {row.error:.1e}, budget {row.budget:.1e}, worst at {row.where}: {case}"
        yield f"  {plain(off)}"
    if len(verdict.failures) > _FAILURES_SHOWN:
        yield f"  and {len(verdict.failures) - _FAILURES_SHOWN} more"


def _rows(verdict: Verdict) -> Iterator[dict[str, Any]]:
    blank = dict.fromkeys(("case", "quantity", "error", "budget", "where", "status", "reason"))
    about = {
        "operator": verdict.operator,
        "implementation": verdict.implementation,
        "dtype": verdict.dtype,
        **blank,
    }
    if verdict.trouble:
        yield {**about, "status": "fail", "reason": verdict.trouble}
    for case, reason in verdict.skipped:
        yield {**about, "case": case, "status": "skip", "reason": reason}
    for case, row in verdict.compared:
        yield {
            **about,
            "case": case,
            "quantity": row.quantity,
            "error": row.error if math.isfinite(row.error) else None,
            "budget": row.budget,
            "where": row.where,
            "status": "pass" if row.passed else "fail",
        }
