"""`opbench kernels`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opbench.commands import options
from opbench.errors import MachineError, OpbenchError, PluginError, Unsupported

if TYPE_CHECKING:
    from opbench.cuda.survey import Row


@click.command(short_help="Compile CUDA kernels, without a GPU, and tell what they take.")
@click.argument("operators", nargs=-1)
@click.option(
    "--arch", "architectures", multiple=True, metavar="SM", help="Compile for this one, as sm_90. May be repeated."
)
@options.operator_paths
@options.as_json
def kernels(operators: tuple[str, ...], architectures: tuple[str, ...], paths: tuple[Path, ...], as_json: bool) -> int:
    """Compile the CUDA kernels of every operator, or of those named, and print what each takes of the device.

    \b
    regs       registers of a thread; more mean fewer threads at once
    spill      bytes of registers that had no room and go through memory; should be 0
    shared     shared memory of a block, in its largest launch
    occupancy  share of a multiprocessor's warps that can be resident
    instr/out  thread instructions for each output of the largest published layer, estimated from machine code
               (needs a disassembler: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)
    issue      cycles of a multiprocessor that those take to issue
    memory     cycles that the compulsory bytes take, on sm_90 with an H200's bandwidth; the larger of
               both bounds the kernel. Estimates: nothing is run.

    Kernels are those that the operator's checks and published layers launch, forward and backward. Compiling needs
    NVRTC, which comes with opbench[cuda13] or opbench[cuda12], and no GPU; what is compiled is kept.

    With --json, a list of rows with the keys `operator`, `kernel`, `arch`, `threads`, `registers`, `spill_bytes`,
    `shared_bytes`, `occupancy`, `layer`, `instructions_per_output` and `memory_cycles`; the last three may be null.

    \b
    opbench kernels involution --arch sm_80 --arch sm_90
    """
    from opbench.cuda import nvrtc, survey
    from opbench.cuda.core import CudaCore
    from opbench.cuda.nvrtc import CompileError
    from opbench.registry import Registry

    for architecture in architectures:
        if architecture not in nvrtc.ARCHITECTURES:
            raise click.UsageError(f"--arch must be one of {', '.join(nvrtc.ARCHITECTURES)}, got {architecture!r}")
    registry = Registry.discover(paths)
    rows: list[Row] = []
    broken = 0
    for name in [registry.find(name).name for name in operators] or registry.names:
        try:
            operator = registry.load(name)
            for core in [item.core for item in operator.implementations.values() if isinstance(item.core, CudaCore)]:
                for architecture in architectures or ("sm_90",):
                    options.say(f"compiling the kernels of {name} for {architecture}")
                    rows += survey.survey(name, operator, core, architecture)
        except Unsupported as error:
            raise MachineError(str(error)) from error
        except (PluginError, CompileError) as error:
            broken += 1
            options.say(str(error))
    if not rows and not broken:
        raise OpbenchError(f"none of these has a CUDA implementation: {', '.join(operators or registry.names)}")
    if as_json:
        options.print_json([dataclasses.asdict(row) for row in rows])
    else:
        _print_table(rows)
    return options.SOME_FAILED if broken else 0


def _print_table(rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from opbench.plain import plain

    table = Table(box=None, pad_edge=False)
    for heading in ("operator", "kernel", "arch"):
        table.add_column(heading, overflow="fold")
    for heading in ("regs", "spill", "shared", "occupancy", "layer", "instr/out", "issue", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            row.operator,
            row.kernel,
            row.arch,
            str(row.registers),
            f"{row.spill_bytes} B",
            f"{row.shared_bytes / 1024:.1f} KiB",
            f"{row.occupancy:.0%}",
            row.layer or "",
            *map(_estimate, (row.instructions_per_output, row.issue_cycles, row.memory_cycles)),
        ]
        table.add_row(*(Text(plain(cell)) for cell in cells))
    options.screen().print(table)


def _estimate(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
