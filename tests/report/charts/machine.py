"""A made-up machine whose ceilings are round numbers, and what charts of runs on it show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import vl_convert

from opbench import report
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.report import charts
from opbench.report.charts import Chart, Material, style
from opbench.results import Counts, Launch, Launches, Measured, Record, Timing
from opbench.store import Run
from tests.report.made_up import counts, record


def ceiling(value: float) -> Ceiling:
    return Ceiling(value=value, low=0.99 * value, high=1.01 * value)


ONE_THREAD = Ceilings(
    device="cpu",
    threads=1,
    identity={"device": "Imaginary Processor 9000, 1 thread"},
    captured="2031-02-03T04:05:06+00:00",
    bytes_per_second=ceiling(10e9),
    macs_per_second={"float32": ceiling(100e9)},
    last_level_cache_bytes=16 << 20,
)
"""100 GMAC/s and 10 GB/s: balanced at 20 FLOP/byte."""
GPU = replace(ONE_THREAD, device="cuda", bytes_per_second=ceiling(1e12), macs_per_second={"float32": ceiling(20e12)})


def with_ceilings(made: Run, *ceilings: Ceilings) -> Run:
    environment = replace(made.header.environment, ceilings=ceilings or (ONE_THREAD, GPU))
    return replace(made, header=replace(made.header, environment=environment))


def material(made: Run) -> Material:
    section = report.view([made]).sections[0]
    return Material(made, section.rows, section.baseline)


def drawn(chart: Chart, width: int = 640) -> str:
    """The chart as SVG, from a specification that altair has found valid."""
    svg: str = vl_convert.vegalite_to_svg(style.embedded(charts.specification(chart), charts.told(chart), width))
    return svg


def launches(*each: tuple[str, int, int], left_out: int = 0, unknown: Sequence[str] = ()) -> Launches:
    """A sequence of (name, MACs, bytes)."""
    kinds = tuple(dict.fromkeys(each))
    return Launches(
        kinds=tuple(
            Launch(name=name, macs=macs, macs_in_bounds=macs, bytes=bytes_, unknown=name in unknown)
            for name, macs, bytes_ in kinds
        ),
        order=tuple(kinds.index(one) for one in each),
        left_out=left_out,
    )


def judged(
    operator: str,
    timings: Sequence[Timing],
    macs: int,
    bytes_: int | None,
    *,
    dense: int | None = None,
    sequence: Launches | None = None,
    implementation: str = "reference",
) -> Record:
    """A record with times, MACs in bounds, compulsory bytes and a sequence."""
    cost: Counts = replace(
        counts(macs), macs_in_bounds=macs, macs_dense=dense or macs, compulsory_bytes=bytes_, launches=sequence
    )
    return record(operator, Measured(timings=tuple(timings)), implementation=implementation, counts=cost)
