"""`opbench verify`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opbench.cases import DTYPES, Dtype
from opbench.commands import options
from opbench.errors import MachineError, OpbenchError

if TYPE_CHECKING:
    from opbench.check import Comparison
    from opbench.cuda.proof import Proof
    from opbench.registry import Registry
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
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the tensors are; on 'cuda' kernels run on the GPU.",
)
@click.option("--on-cpu", is_flag=True, help="Check the CUDA implementations without a GPU; needs a C++ compiler.")
@options.operator_paths
@options.as_json
def verify(
    operators: tuple[str, ...],
    dtypes: tuple[Dtype, ...],
    names: tuple[str, ...],
    timeout: float,
    device: str,
    on_cpu: bool,
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

    With --on-cpu, the kernels of every CUDA implementation are compiled by the machine's C++ compiler, from the very
    source that a GPU runs, and checked the same way, at further shapes of their own; three orders of their threads
    must agree bit for bit. It shows that values and indices are right, not that kernels are fast. The rows of --json
    then have the key `kernel` instead: what computed the quantity.

    \b
    opbench verify involution --dtype float32
    opbench verify --on-cpu involution
    opbench verify --device cuda
    """
    from opbench import probing, verification
    from opbench.measure import gpu
    from opbench.registry import Registry

    registry = Registry.discover(paths)
    chosen = [registry.find(name).name for name in operators] or registry.names
    if on_cpu:
        if names:
            raise click.UsageError("--on-cpu checks the CUDA implementations; leave out --implementation")
        if device != "cpu":
            raise click.UsageError("--on-cpu needs no GPU; leave out --device")
        return _verify_on_cpu(registry, chosen, dtypes, timeout, as_json)
    if device == "cuda":
        gpu.strict_float32()
        try:
            probing.gpu()
        except MachineError as error:
            raise MachineError(f"--device is cuda, and {error}") from error
    verdicts: list[Verdict] = []
    for verdict in verification.verify(registry, chosen, dtypes or DTYPES, names, timeout, device):
        verdicts.append(verdict)
        if not as_json:
            click.echo("\n".join(_lines(verdict)))
    if as_json:
        options.print_json([row for verdict in verdicts for row in _rows(verdict)])
    passed = sum(verdict.passed for verdict in verdicts)
    options.say(f"{passed} of {len(verdicts)} passed")
    return options.SOME_FAILED if any(not verdict.passed for verdict in verdicts) else 0


def _verify_on_cpu(
    registry: Registry, operators: Sequence[str], dtypes: Sequence[Dtype], timeout: float, as_json: bool
) -> int:
    from opbench.cuda import proof

    if set(dtypes) - set(proof.KERNEL_DTYPES):
        raise click.UsageError(f"kernels compute in {', '.join(proof.KERNEL_DTYPES)}")
    proofs: list[Proof] = []
    for found in proof.prove_all(registry, operators, dtypes or proof.KERNEL_DTYPES, timeout):
        proofs.append(found)
        if not as_json:
            click.echo("\n".join(_proof_lines(found)))
    if as_json:
        options.print_json([row for found in proofs for row in _proof_rows(found)])
    if not proofs:
        raise OpbenchError(f"none of these has a CUDA implementation: {', '.join(operators)}")
    passed = sum(found.passed for found in proofs)
    options.say(f"{passed} of {len(proofs)} passed")
    return options.SOME_FAILED if passed < len(proofs) else 0


def _proof_lines(found: Proof) -> Iterator[str]:
    from opbench.plain import plain

    yield plain(f"{found.operator} {found.implementation} {found.dtype}: {found.summary}")
    for row in found.failures[:_FAILURES_SHOWN]:
        yield f"  {plain(_off(row.comparison, row.case))}"
        yield f"    {plain(row.kernel)}"
    if len(found.failures) > _FAILURES_SHOWN:
        yield f"  and {len(found.failures) - _FAILURES_SHOWN} more"


def _proof_rows(found: Proof) -> Iterator[dict[str, Any]]:
    about = {"operator": found.operator, "implementation": found.implementation, "dtype": found.dtype}
    if not found.passed and not found.failures:
        blank = dict.fromkeys(("kernel", "case", "quantity", "error", "budget", "where"))
        yield {**about, **blank, "status": "fail", "reason": found.trouble or found.summary}
    for row in found.rows:
        yield {**about, "kernel": row.kernel, "case": row.case, **_compared(row.comparison)}


def _lines(verdict: Verdict) -> Iterator[str]:
    from opbench.plain import plain

    yield plain(f"{verdict.operator} {verdict.implementation} {verdict.dtype}: {verdict.summary}")
    for case, row in verdict.failures[:_FAILURES_SHOWN]:
        yield f"  {plain(_off(row, case))}"
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
        yield {**about, "case": case, **_compared(row)}


def _off(row: Comparison, case: str) -> str:
    return f"{row.quantity} off by {row.error:.1e}, budget {row.budget:.1e}, worst at {row.where}: {case}"


def _compared(row: Comparison) -> dict[str, Any]:
    return {
        "quantity": row.quantity,
        "error": row.error if math.isfinite(row.error) else None,
        "budget": row.budget,
        "where": row.where,
        "status": "pass" if row.passed else "fail",
    }
