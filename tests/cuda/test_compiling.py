"""Compiling for a GPU without one, and reading what the compiler and the machine code tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from opbench.cuda import Operations, Source, device, nvrtc, sass
from opbench.cuda.plan import Launch
from opbench.cuda.resources import MULTIPROCESSORS, Resources, occupancy, read_log, resident_blocks
from opbench.errors import Unsupported
from tests.cuda.scaling import SOURCE


def test_kernels_compile_to_machine_code_of_the_architecture() -> None:
    cubin = nvrtc.compile_kernels(SOURCE, ("scale<float>", "scale<bfloat16>"), "sm_90")
    assert cubin.image[:4] == b"\x7fELF"
    resources = read_log(cubin.log)
    assert set(resources) == set(cubin.names.values())
    assert all(8 < used.registers < 64 and used.spill_bytes == 0 for used in resources.values())


def test_an_error_has_the_kernels_own_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text('#include "device.cuh"\n\n__global__ void f(int n) { nonsense; }\n')
    with pytest.raises(nvrtc.CompileError, match=r"kernel\.cu\(3\): error.*nonsense"):
        nvrtc.compile_kernels(Source(tmp_path / "kernel.cu"), ("f",), "sm_90")


def test_what_was_compiled_is_kept_and_compiled_anew_when_the_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "kernel.cu"
    for text in ("__global__ void f(int n) {}", "__global__ void f(int n) { __syncthreads(); }"):
        path.write_text(text)
        images = [nvrtc.compile_kernels(Source(path), ("f",), "sm_80").image for _ in range(2)]
        assert images[0] == images[1]
    assert len(list((tmp_path / "cache" / "cubins").iterdir())) == 2


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((7, 5), "sm_75"), ((8, 7), "sm_87"), ((9, 0), "sm_90"), ((9, 5), "sm_90"), ((12, 9), "sm_121")],
)
def test_a_device_gets_code_of_its_own_generation(capability: tuple[int, int], architecture: str) -> None:
    assert nvrtc.target(*capability) == architecture


def test_a_generation_that_the_compiler_does_not_know_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"compute capability 99\.0; update"):
        nvrtc.target(99, 0)


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1fi' for 'sm_90'
ptxas info    : Function properties for _Z1fi
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 16 bytes stack frame, 2048 bytes smem, 392 bytes cmem[0]
ptxas info    : Compiling entry function '_Z1gi' for 'sm_90'
ptxas info    : Function properties for _Z1gi
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""


def test_the_log_of_either_compiler_is_read() -> None:
    f, g = read_log(LOG).values()
    assert (f.registers, f.spill_bytes, f.shared_bytes) == (96, 20, 2048)
    assert g == Resources(registers=40, spill_bytes=0, stack_bytes=0, shared_bytes=0)
    with pytest.raises(ValueError, match="no account of registers"):
        read_log("")


@pytest.mark.parametrize(
    ("arch", "registers", "threads", "shared_bytes", "blocks"),
    [
        # By hand: 64 warps of 32 registers a thread fill all 65536 registers.
        ("sm_90", 32, 256, 0, 8),
        # 96 registers are 3072 a warp: 21 warps fit, in fours 20, and 5 blocks of 4 warps.
        ("sm_90", 96, 128, 0, 5),
        # 228 KiB hold six blocks of 36 KiB and the 1 KiB that each loses.
        ("sm_90", 32, 128, 36 << 10, 6),
        ("sm_86", 32, 32, 0, 16),
        ("sm_75", 32, 128, 64 << 10, 1),
        ("sm_86", 32, 128, 100 << 10, 0),
    ],
)
def test_blocks_that_fit_a_multiprocessor(
    arch: str, registers: int, threads: int, shared_bytes: int, blocks: int
) -> None:
    limits = MULTIPROCESSORS[arch]
    used = {"registers": registers, "threads": threads, "shared_bytes": shared_bytes}
    assert resident_blocks(limits, **used) == blocks
    assert occupancy(limits, **used) == blocks * threads / 32 / limits.warps


def test_every_architecture_that_kernels_are_compiled_for_has_limits() -> None:
    assert set(nvrtc.ARCHITECTURES) == set(MULTIPROCESSORS)


SASS = """
        code for sm_90
                Function : _Z1f
        .headerflags    @"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;               /* 0x00000a00ff017b82 */
                                                                        /* 0x000fe20000000800 */
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   FFMA R0, R4, R5, R0 ;
        /*0030*/                   FFMA R0, R6, R7, R0 ;
        /*0040*/               @P0 BRA 0x10 ;
        /*0050*/              @!P1 STG.E desc[UR4][R2.64], R0 ;
        /*0060*/                   EXIT ;
        /*0070*/                   BRA 0x70;
        /*0080*/                   NOP;
"""


def test_instructions_for_an_output_come_from_the_multiply_adds_it_needs() -> None:
    (instructions,) = sass.parse(SASS).values()
    assert [item.opcode for item in instructions] == ["LDC", "LDG.E.128", "FFMA", "FFMA", "BRA", "STG.E", "EXIT"]

    def launch(multiply_adds: int, outputs: int) -> Launch:
        operations = Operations(outputs=outputs, multiply_adds=multiply_adds)
        return SOURCE.launch("f", grid=(2,), block=(32,), operations=operations)

    # 64 threads, one output each: 10 multiply-adds a thread take the loop of 4 instructions five times.
    assert sass.instructions_per_output(instructions, launch(640, 64)) == 3 + 5 * 4
    assert sass.instructions_per_output(instructions, launch(640, 128)) == (3 + 5 * 4) / 2
    assert sass.instructions_per_output(instructions, SOURCE.launch("f", grid=(1,), block=(32,))) is None


def test_machine_code_is_disassembled() -> None:
    cubin = nvrtc.compile_kernels(SOURCE, ("scale<float>",), "sm_90")
    (instructions,) = sass.disassembled(cubin.image).values()
    opcodes = [item.opcode.partition(".")[0] for item in instructions]
    assert {"LDG", "STG", "EXIT"} <= set(opcodes)
    assert "LDL" not in opcodes


class Started:
    """Stands in for a CuPy function: notes what it is launched with."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, grid: object, block: object, arguments: object, shared: object, stream: object) -> None:
        self.calls.append((grid, block, shared, getattr(stream, "ptr", None)))


def test_a_launch_packs_its_pointers_and_goes_to_the_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started()
    packed: list[Any] = []
    monkeypatch.setattr(device, "_function", lambda launch, index: started)
    monkeypatch.setattr(torch.cuda, "device", lambda index: torch.no_grad())
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 1000 + index, raising=False)

    def address_of(memory: object) -> int:
        packed.append(memory)
        return 4096

    monkeypatch.setattr("ctypes.addressof", address_of)
    what = SOURCE.launch("scale<float>", grid=(3,), block=(64,), shared_bytes=128, scalars=(5,))
    x, y = torch.ones(2), torch.ones(2)
    start = device._prepared(what, 3, 1)
    for tensors in ((x, None, y), (y, x, x)):
        start(tensors)
        pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        data = bytes(packed[0])
        assert [int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(3)] == pointers
        assert int.from_bytes(data[24:28], "little") == 5
    assert started.calls == [((3, 1, 1), (64, 1, 1), 128, 1001)] * 2
