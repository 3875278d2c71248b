"""A GPU and its ceilings in words, and in the report of a run that has them."""

from __future__ import annotations

import csv
import dataclasses
import io

from opbench import report
from opbench.environment import Gpu
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.report.device import ceiling_lines, gpu_words
from opbench.results import Measured
from tests.report.made_up import memory, record, run, timing

FOUND = Ceilings(
    device="cuda",
    identity={"device": "Imaginary Graphics 9000", "uuid": "GPU-1"},
    captured="2031-02-03T04:05:06+00:00",
    bytes_per_second=Ceiling(value=4.3e12, low=4.257e12, high=4.343e12),
    macs_per_second={
        "float32": Ceiling(value=2.5e13, low=2.5e13, high=2.5e13),
        "bfloat16": Ceiling(value=3.94e14, low=3.9e14, high=3.98e14),
    },
    empty_call_seconds=Ceiling(value=2e-6, low=1.5e-6, high=2.5e-6),
    launch_interval_seconds=Ceiling(value=1.1e-6, low=1.1e-6, high=1.1e-6),
    event_resolution_seconds=5e-7,
    last_level_cache_bytes=60 << 20,
)


def test_each_ceiling_has_a_line_with_its_unit_and_spread() -> None:
    assert ceiling_lines(FOUND) == (
        "measured 2031-02-03T04:05:06+00:00",
        "copy: 4.30 TB/s read and written ± 1 %",
        "arithmetic, float32: 25.0 TMAC/s (50.0 TFLOP/s) ± 0 %",
        "arithmetic, bfloat16: 394 TMAC/s (788 TFLOP/s) ± 1 %",
        "empty kernel: 2.00 µs ± 25 %",
        "launch interval: 1.10 µs ± 0 %",
        "event resolution: 500 ns",
        "last-level cache: 60.0 MiB",
    )


def test_a_processor_has_no_kernels_to_launch_and_a_remark_is_told() -> None:
    processor = dataclasses.replace(
        FOUND,
        device="cpu",
        empty_call_seconds=None,
        launch_interval_seconds=None,
        event_resolution_seconds=None,
        remark="somebody else was there; send them away",
    )
    lines = ceiling_lines(processor)
    assert lines[0] == "measured 2031-02-03T04:05:06+00:00; somebody else was there"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "copy",
        "arithmetic, float32",
        "arithmetic, bfloat16",
        "last-level cache",
    ]


def test_a_gpu_is_one_line() -> None:
    gpu = Gpu(
        name="Imaginary Graphics 9000",
        uuid="GPU-1",
        memory_bytes=96 << 30,
        compute_capability="9.0",
        multiprocessors=132,
        sm_clock_mhz=345,
        memory_clock_mhz=2619,
        max_sm_clock_mhz=1980,
        max_memory_clock_mhz=2619,
        power_limit_watts=700.0,
        ecc=True,
        mig=False,
        persistence=True,
    )
    assert gpu_words(gpu) == (
        "Imaginary Graphics 9000, 96.0 GiB, compute capability 9.0, 132 multiprocessors, SM 345 MHz of 1980, "
        "memory 2619 MHz of 2619, limit 700 W, ECC on, MIG off, persistence mode on"
    )
    silent = Gpu(name="GPU", uuid="", memory_bytes=1 << 30)
    assert gpu_words(silent) == "GPU, 1.00 GiB, SM unknown MHz, memory unknown MHz"


def test_on_a_gpu_the_allocator_s_word_counts_and_the_raw_numbers_have_both_of_its_peaks() -> None:
    tracker = memory(12)[0]
    allocator = dataclasses.replace(
        tracker, source="allocator", forward_peak_bytes=20 << 20, forward_requested_bytes=18 << 20
    )
    made = run(record("box_blur", Measured(memory=(tracker, allocator))))
    view = report.view([made])
    assert "20.0 MiB" in report.markdown(view)
    assert "12.0 MiB" not in report.markdown(view)
    (row,) = csv.DictReader(io.StringIO(report.csv_text(view)))
    assert int(row["forward_peak_bytes_allocator"]) == 20 << 20
    assert int(row["forward_requested_bytes_allocator"]) == 18 << 20
    assert int(row["forward_peak_bytes_tracker"]) == 12 << 20
    assert row["backward_requested_bytes_allocator"] == ""
    assert "forward_requested_bytes_tracker" not in row


def test_a_report_shows_the_ceilings_of_its_run_and_only_those() -> None:
    plain = run(record("box_blur", Measured(timings=(timing(1e-4),))))
    environment = dataclasses.replace(plain.header.environment, ceilings=(FOUND,))
    told = dataclasses.replace(plain, header=dataclasses.replace(plain.header, environment=environment))
    assert "4.30 TB/s read and written" in report.markdown(report.view([told]))
    assert "Ceilings of Imaginary Graphics 9000" in report.markdown(report.view([told]))
    assert "Ceilings" not in report.markdown(report.view([plain]))
