"""Measures what a device can do at best: copies, matrix products, kernels that do nothing.

For a child process: it initialises CUDA or sets threads. Values are random, because a processor runs faster on zeros:
fewer bits flip, and less power is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import torch
import torch.nn.functional as F

from opbench.measure import machine, nvml, processor
from opbench.measure.ceilings import Ceiling, Ceilings, fold, l2_bytes
from opbench.measure.nvml import GpuState
from opbench.measure.statistics import resolution

CUDA = torch.device("cuda")
REPETITIONS = 20
WARM_UP_SECONDS = 0.2
COPIED_BYTES = 1 << 30
CPU_SIDE, GPU_SIDE = 512, 8192
"""Side of the square matrices: large enough that reading them is no part of the time."""
LAUNCHES = 200
"""Kernels in a row: fewer than a GPU's queue holds."""
HOLD_SECONDS, LONGEST_HOLD_SECONDS = 5e-3, 0.5

Call = Callable[[], object]
Clock = Callable[[Call], list[float]]
"""Seconds of each of some calls, after others that warm up."""


def measure(device: str, threads: int, identity: Mapping[str, str]) -> Ceilings:
    """Measure the ceilings of 'cpu', with so many threads, or of 'cuda'."""
    return of_gpu(identity) if device == "cuda" else of_cpu(threads, identity)


def of_cpu(threads: int, identity: Mapping[str, str]) -> Ceilings:
    """Copy and multiply on so many threads."""
    torch.set_num_threads(threads)
    noise = machine.noise(threads)
    cpu = torch.device("cpu")
    return Ceilings(
        device="cpu",
        threads=threads,
        identity=identity,
        captured=_now(),
        bytes_per_second=copying(cpu, machine.available_bytes(), host_seconds),
        macs_per_second={
            "float32": _fastest(
                multiplying(cpu, torch.float32, CPU_SIDE, host_seconds), convolving(threads, host_seconds)
            )
        },
        last_level_cache_bytes=processor.last_level_cache_bytes(threads),
        remark=noise,
    )


def of_gpu(identity: Mapping[str, str], gpu: torch.device = CUDA) -> Ceilings:
    """Copy, multiply and launch on the current GPU."""
    with nvml.driver():
        before = nvml.readings()
        free, _ = torch.cuda.mem_get_info()
        copied = copying(gpu, free, event_seconds)
        rates = {
            name: multiplying(gpu, dtype, GPU_SIDE, event_seconds, precision)
            for name, dtype, precision in products(torch.cuda.get_device_capability())
        }
        step = event_step()
        after = nvml.readings()
    return Ceilings(
        device="cuda",
        identity=identity,
        captured=_now(),
        bytes_per_second=copied,
        macs_per_second=rates,
        empty_call_seconds=fold([queued_seconds(1) for _ in range(REPETITIONS)], step),
        launch_interval_seconds=fold(
            [queued_seconds(LAUNCHES) / LAUNCHES for _ in range(REPETITIONS)], step / LAUNCHES
        ),
        event_resolution_seconds=step,
        last_level_cache_bytes=l2_bytes(),
        remark=remark(before, after),
    )


def remark(before: GpuState | None, after: GpuState | None) -> str | None:
    """Say what was wrong with a GPU while it was measured; None where nothing is known to have been.

    Under full load a power limit is what the device can do; nothing else should lower its clock.
    """
    lowered = nvml.lowered(before, after).keys()
    return nvml.judge(before) or (None if lowered <= {"power limit"} else nvml.throttled(before, after))


def copying(device: torch.device, free_bytes: int, seconds: Clock) -> Ceiling:
    """Bytes read plus bytes written per second, copying 1 GiB, or what a quarter of the free memory holds."""
    size = min(COPIED_BYTES, free_bytes // 4)
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return fold([2 * source.nbytes / each for each in seconds(lambda: target.copy_(source))])


def multiplying(
    device: torch.device, dtype: torch.dtype, side: int, seconds: Clock, precision: str = "highest"
) -> Ceiling:
    """Multiply-accumulates per second in the product of two square matrices of random values."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with _float32_precision(precision):
        return fold([side**3 / each for each in seconds(lambda: torch.mm(a, b, out=out))])


def convolving(threads: int, seconds: Clock) -> Ceiling:
    """Multiply-accumulates per second in a dense 3x3 convolution on a CPU, of an image for each thread."""
    channels, side = 64, 56
    images = torch.randn(threads, channels, side + 2, side + 2)  # Without padding: every tap counts.
    filters = torch.randn(channels, channels, 3, 3)
    macs = threads * channels**2 * 9 * side**2
    with torch.no_grad():
        return fold([macs / each for each in seconds(lambda: F.conv2d(images, filters))])


def _fastest(*ceilings: Ceiling) -> Ceiling:
    return max(ceilings, key=lambda ceiling: ceiling.value)


def host_seconds(call: Call) -> list[float]:
    """Time calls that return when they are done."""
    _warm_up(call)
    found = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found


def event_seconds(call: Call) -> list[float]:
    """Time calls on a GPU between two events each; for calls so long that the host is always ahead."""
    _warm_up(call, torch.cuda.synchronize)
    call()  # While it runs the host gets ahead.
    marks = [(_mark(), call(), _mark()) for _ in range(REPETITIONS)]
    torch.cuda.synchronize()
    return [_between(begin, end) for begin, _, end in marks]


def products(capability: tuple[int, int]) -> list[tuple[str, torch.dtype, str]]:
    """(name, dtype, precision of float32 products) of what a GPU of this compute capability has units for."""
    since_turing = [("float32", torch.float32, "highest"), ("float16", torch.float16, "highest")]
    since_ampere = [("tf32", torch.float32, "high"), ("bfloat16", torch.bfloat16, "highest")]
    return since_turing + (since_ampere if capability >= (8, 0) else [])


def _warm_up(call: Call, wait: Call = lambda: None) -> None:
    deadline = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < deadline:
        call()
        wait()


def queued_seconds(kernels: int) -> float:
    """Time from before the first to after the last of some empty kernels, all queued before the first runs."""
    hold = HOLD_SECONDS
    while True:
        _sleep(hold)
        begin = _mark()
        for _ in range(kernels):
            torch.cuda._sleep(0)
        end = _mark()
        held = not begin.query()
        torch.cuda.synchronize()
        if held or hold > LONGEST_HOLD_SECONDS:
            return _between(begin, end)
        hold *= 2


def _sleep(seconds: float) -> None:
    # No device has a clock above 4 GHz: it sleeps at least so long.
    torch.cuda._sleep(int(4e9 * seconds))


def event_step() -> float:
    """Smallest difference between the durations of kernels that each last a little longer than the one before."""
    marks = []
    for cycles in range(0, 64 * 64, 64):
        begin = _mark()
        torch.cuda._sleep(cycles)
        marks.append((begin, _mark()))
    torch.cuda.synchronize()
    # A driver counts nanoseconds; what is below is rounding.
    return resolution([round(_between(begin, end), 9) for begin, end in marks])


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    milliseconds: float = begin.elapsed_time(end)
    return 1e-3 * milliseconds


@contextmanager
def _float32_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
