"""Every kernel an operator launches, compiled: what `opbench kernels` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from opbench.api import Maker, Operator
from opbench.cases import Nchw
from opbench.cuda import nvrtc, sass
from opbench.cuda.core import DTYPES, CudaCore
from opbench.cuda.kernels import Recorded, recorded
from opbench.cuda.proof import cases_of
from opbench.cuda.resources import MULTIPROCESSORS, Resources, occupancy, read_log
from opbench.cuda.source import Source
from opbench.errors import Unsupported

META = torch.device("meta")

ISSUED_PER_CYCLE = 128
"""Thread instructions a multiprocessor issues in a cycle: four schedulers, one warp each."""
BYTES_PER_CYCLE = {"sm_90": 4.3e12 / (132 * 1.98e9)}
"""What device memory gives each multiprocessor in a cycle: on an H200 4.3 TB/s copied, 132 of them at 1.98 GHz."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kernel compiled for one architecture."""

    operator: str
    kernel: str
    """C++ name with its template arguments."""
    arch: str
    threads: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    """Of a block, in its largest launch."""
    occupancy: float
    """Share of a multiprocessor's warps that can be resident; 0 where a block does not fit."""
    layer: str | None = None
    """Input of the largest published layer that launches it, which the estimates are for; None where none does."""
    instructions_per_output: float | None = None
    """Estimated from machine code; None without a disassembler, or where the launch does not say what it computes."""
    memory_cycles: float | None = None
    """Cycles of one multiprocessor that each output's compulsory bytes take."""

    @property
    def issue_cycles(self) -> float | None:
        """Cycles of one multiprocessor that each output's instructions take to issue."""
        return None if self.instructions_per_output is None else self.instructions_per_output / ISSUED_PER_CYCLE


def survey(
    name: str, operator: Operator, core: CudaCore, architecture: str, *, disassemble: bool = True
) -> Iterator[Row]:
    """Compile all kernels of a core for one architecture and tell about each.

    Args:
        name: the operator's.
        operator: whose samples are looked at beside the core's own cases and layers.
        core: whose kernels they are.
        architecture: 'sm_90' or its like.
        disassemble: read the machine code as well, where a disassembler is installed.

    Raises:
        CompileError: one does not compile.
        Unsupported: there is no NVRTC.
    """
    by_source: dict[Source, dict[str, list[Sighting]]] = {}
    for seen in sightings(operator, core):
        launch = seen.recorded.launch
        by_source.setdefault(launch.source, {}).setdefault(launch.kernel, []).append(seen)
    for source, by_kernel in by_source.items():
        cubin = nvrtc.compile_kernels(source, tuple(sorted(by_kernel)), architecture)
        resources = read_log(cubin.log)
        code = _code(cubin.image) if disassemble else {}
        for kernel, seen_of_it in sorted(by_kernel.items()):
            symbol = cubin.names[kernel]
            yield _row(name, kernel, architecture, seen_of_it, resources[symbol], code.get(symbol))


def _row(
    operator: str,
    kernel: str,
    architecture: str,
    seen: Sequence[Sighting],
    used: Resources,
    code: Sequence[sass.Instruction] | None,
) -> Row:
    threads = max(sighting.recorded.launch.threads for sighting in seen)
    shared_bytes = used.shared_bytes + max(sighting.recorded.launch.shared_bytes for sighting in seen)
    published = [sighting for sighting in seen if sighting.published]
    largest = max(published, key=lambda sighting: sighting.recorded.bytes, default=None)
    return Row(
        operator=operator,
        kernel=kernel,
        arch=architecture,
        threads=threads,
        registers=used.registers,
        spill_bytes=used.spill_bytes,
        shared_bytes=shared_bytes,
        occupancy=occupancy(
            MULTIPROCESSORS[architecture], registers=used.registers, threads=threads, shared_bytes=shared_bytes
        ),
        layer=str(largest.shape) if largest else None,
        instructions_per_output=(
            sass.instructions_per_output(code, largest.recorded.launch) if code and largest else None
        ),
        memory_cycles=_memory_cycles(largest.recorded, architecture) if largest else None,
    )


def _code(image: bytes) -> dict[str, tuple[sass.Instruction, ...]]:
    try:
        return sass.disassembled(image)
    except FileNotFoundError:
        return {}


@dataclass(frozen=True)
class Sighting:
    """A launch, and the layer input it was seen at."""

    recorded: Recorded
    shape: Nchw
    published: bool
    """Whether a published network has the layer, or it only catches bugs."""


def sightings(operator: Operator, core: CudaCore) -> Iterator[Sighting]:
    """Every launch of forward and backward, at the operator's catching cases, the core's own, and published layers."""
    catching = dict.fromkeys((case.params, case.shape) for case in cases_of(operator, core))
    for cases, published in ((catching, False), (core.layers, True)):
        for params, shape in cases:
            for dtype in DTYPES:
                for found in launches_of(operator, core, params, shape, dtype):
                    yield Sighting(found, shape, published)


def launches_of(operator: Operator, core: CudaCore, params: Any, shape: Nchw, dtype: torch.dtype) -> list[Recorded]:
    """The launches of one forward and backward for a layer input, nothing run and nothing allocated."""
    tensors = [
        tensor.requires_grad_(tensor.is_floating_point())
        for tensor in operator.inputs(params, shape, Maker(dtype, META)).values()
    ]
    with recorded() as found:
        try:
            output = core(params, *tensors)
            torch.autograd.grad(output, tensors, torch.empty_like(output), allow_unused=True)
        except Unsupported:
            return []
    return found


def _memory_cycles(found: Recorded, architecture: str) -> float | None:
    operations = found.launch.operations
    if operations is None or not operations.outputs or architecture not in BYTES_PER_CYCLE:
        return None
    return found.bytes / operations.outputs / BYTES_PER_CYCLE[architecture]
