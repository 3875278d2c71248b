"""Scaling: what grows as which power of what, where two operators change places, and what is not claimed."""

import math
from collections.abc import Sequence

import pytest

from opbench.cases import Nchw
from opbench.report.charts import Chart, scaling, table
from opbench.report.charts.growth_words import MOST_CROSSOVERS
from opbench.report.charts.model import number
from opbench.results import Failed, Measured, Policy, Record
from opbench.store import Run
from tests.report.charts.machine import drawn, material
from tests.report.made_up import COLD, HOT, comparison, gpu, memory, record, run, scan, timing

SIDES = (7, 14, 28, 56)


def charts(made: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in scaling.charts(material(made))}


def along(
    operator: str,
    times: Sequence[float],
    sides: Sequence[int] = SIDES,
    spread: float = 0.001,
    flags: tuple[str, ...] = (),
    policies: Sequence[Policy] = (COLD,),
) -> list[Record]:
    """One operator over several resolutions."""
    return [
        record(
            operator,
            Measured(timings=tuple(timing(time, policy, spread) for policy in policies), memory=memory(1), flags=flags),
            shape=Nchw(1, 64, side, side),
        )
        for side, time in zip(sides, times, strict=True)
    ]


def crossovers(chart: Chart) -> list[tuple[object, object, object]]:
    return [(each["label"], each["other"], each["at"]) for each in chart.data if each["what"] == "crossover"]


def test_time_that_grows_with_the_area_grows_as_the_side_squared() -> None:
    chart = charts(scan())["scaling-side-latency"]
    assert [datum["exponent"] for datum in chart.data] == pytest.approx([2] * len(chart.data))
    assert "side^2.00 [1.99, 2.01]" in chart.finding
    assert [datum["at"] for datum in chart.data] == [14, 28, 56, 14, 28, 56]


def test_memory_has_an_exponent_of_its_own() -> None:
    # Its mebibytes are the side.
    chart = charts(scan())["scaling-side-memory"]
    assert [datum["exponent"] for datum in chart.data] == pytest.approx([1] * len(chart.data))
    assert chart.data[0]["peak_bytes"] == 14 << 20
    assert table(chart).rows[0][5].text == "14.0 MiB"


def test_memory_does_not_depend_on_the_policy() -> None:
    made = run(*along("convolution", [1e-3, 2e-3, 4e-3, 8e-3], policies=(COLD, HOT)))
    found = charts(made)
    assert found["scaling-side-latency"].settings == ("cold cache", "hot cache")
    assert found["scaling-side-memory"].settings == ()
    assert len(found["scaling-side-memory"].data) == 4


def test_two_operators_cross_between_the_points_where_the_order_is_certain() -> None:
    # They are equal half way between 14 and 28, on a logarithmic scale.
    linear = along("involution", [7e-4, 14e-4, 28e-4, 56e-4])
    square = along("convolution", [7e-4 * side**2 / (7 * 14 * math.sqrt(2)) for side in SIDES])
    chart = charts(run(*linear, *square))["scaling-side-latency"]
    assert crossovers(chart) == [("convolution", "involution", 19.8)]
    crossing = chart.data[-1]
    assert crossing["latency_seconds"] == pytest.approx(14e-4 * math.sqrt(2), rel=1e-3)
    assert "certain at 14 and at 28 [19." in str(crossing["note"])
    assert "convolution is faster than involution at side 14 and slower at 28 (they cross at 19.8 [19." in chart.finding


def test_beyond_the_measured_points_nothing_crosses() -> None:
    # The laws would cross at side 112.
    square = along("convolution", [side**2 * 1e-6 for side in SIDES])
    linear = along("involution", [112 * side * 1e-6 for side in SIDES])
    assert crossovers(charts(run(*square, *linear))["scaling-side-latency"]) == []


@pytest.mark.parametrize(("spread", "flags"), [(0.5, ()), (0.001, ("noisy",))])
def test_what_is_not_certain_does_not_cross(spread: float, flags: tuple[str, ...]) -> None:
    linear = along("involution", [7e-4, 14e-4, 28e-4, 56e-4], spread=spread, flags=flags)
    square = along("convolution", [7e-4 * side**2 / 256 for side in SIDES])
    assert crossovers(charts(run(*linear, *square))["scaling-side-latency"]) == []


def test_a_flag_never_makes_an_exponent_look_surer() -> None:
    def width(flags: tuple[str, ...]) -> float:
        square = along("convolution", [side**2 * 1e-6 for side in SIDES], spread=0.1, flags=flags)
        datum = charts(run(*square))["scaling-side-latency"].data[0]
        return number(datum, "exponent_high") - number(datum, "exponent_low")

    assert width(()) > 0.05
    assert width(("noisy",)) == pytest.approx(width(()))


def test_flagged_times_are_no_sound_law() -> None:
    square = along("convolution", [side**2 * 1e-6 for side in SIDES], flags=("noisy",))
    assert "(convolution; flagged times)." in charts(run(*square))["scaling-side-latency"].finding


def test_noise_spoils_times_and_not_memory() -> None:
    def of(operator: str, mebibytes: Sequence[int]) -> list[Record]:
        return [
            record(
                operator,
                Measured(timings=(timing(1e-3),), memory=memory(number), flags=("noisy",)),
                shape=Nchw(1, 64, side, side),
            )
            for side, number in zip(SIDES, mebibytes, strict=True)
        ]

    found = charts(run(*of("convolution", (1, 4, 16, 64)), *of("involution", (8, 8, 8, 8))))
    assert crossovers(found["scaling-side-latency"]) == []
    assert crossovers(found["scaling-side-memory"]) == [("convolution", "involution", 19.8)]


def test_parameters_channels_and_batches_are_axes_too() -> None:
    windows = [
        record("sasa", Measured(timings=(timing(size**2 * 1e-5),)), set_params={"window": size, "mode": f"m{size}"[:1]})
        for size in (3, 5, 7)
    ]
    assert list(charts(run(*windows))) == ["scaling-window-latency"]
    wide = [record("sasa", Measured(timings=(timing(c * 1e-5),)), shape=Nchw(1, c, 8, 8)) for c in (16, 32, 64)]
    many = [record("sasa", Measured(timings=(timing(b * 1e-5),)), shape=Nchw(b, 16, 8, 8)) for b in (2, 4, 8)]
    assert list(charts(run(*wide, *many))) == ["scaling-channels-latency", "scaling-batch-latency"]


def test_parameters_tell_lines_of_one_operator_apart_and_no_others() -> None:
    def scanned(operator: str, window: int) -> list[Record]:
        return [
            record(
                operator,
                Measured(timings=(timing(side * 1e-5),)),
                set_params={"window": window},
                shape=Nchw(1, 8, side, side),
            )
            for side in SIDES
        ]

    def labels(*records: Record) -> list[object]:
        return list(dict.fromkeys(datum["label"] for datum in charts(run(*records))["scaling-side-latency"].data))

    assert labels(*scanned("sasa", 3), *scanned("involution", 7)) == ["sasa", "involution"]
    assert labels(*scanned("sasa", 3), *scanned("sasa", 7)) == ["sasa window=3", "sasa window=7"]


def test_where_images_are_not_square_their_pixels_count() -> None:
    tall = [record("sasa", Measured(timings=(timing(h * 1e-5),)), shape=Nchw(1, 16, h, 8)) for h in (4, 8, 16)]
    chart = charts(run(*tall))["scaling-pixels-latency"]
    assert [datum["at"] for datum in chart.data] == [32, 64, 128]
    assert [datum["exponent"] for datum in chart.data] == pytest.approx([1] * len(chart.data))


@pytest.mark.parametrize("values", [(True, False, True), ("a", "b", "c"), (0, -1, 2)])
def test_what_a_logarithmic_scale_cannot_show_is_no_axis(values: tuple[object, ...]) -> None:
    records = [
        record("sasa", Measured(timings=(timing(1e-3),)), set_params={"p": value})  # type: ignore[dict-item]
        for value in values
    ]
    (chart,) = charts(run(*records)).values()
    assert "opbench run" in chart.missing


def test_two_points_have_no_law() -> None:
    (chart,) = charts(scan((14, 28))).values()
    assert "three values" in chart.missing


def test_a_line_of_two_points_is_shown_without_an_exponent() -> None:
    made = run(*along("convolution", [1e-3, 2e-3, 4e-3, 8e-3]), *along("drconv", [1e-3, 3e-3], SIDES[:2]))
    chart = charts(made)["scaling-side-latency"]
    assert [datum["exponent"] for datum in chart.data if datum["label"] == "drconv"] == [None, None]
    assert "drconv" not in chart.finding


def test_what_failed_is_counted_and_not_drawn() -> None:
    failed = record("drconv", Failed(reason="too large", status="out_of_memory"), shape=Nchw(1, 64, 56, 56))
    chart = charts(run(*along("convolution", [1e-3, 2e-3, 4e-3, 8e-3]), failed))["scaling-side-latency"]
    assert "1 × out of memory: too large" in chart.finding
    assert {datum["label"] for datum in chart.data} == {"convolution"}


def test_without_any_time_the_suite_is_to_be_run() -> None:
    (chart,) = charts(run(record(outcome=Failed(reason="no")))).values()
    assert "opbench run" in chart.missing
    (chart,) = charts(run()).values()
    assert "opbench run" in chart.missing


def test_runs_that_scan_nothing_say_so() -> None:
    for made in (comparison(), gpu()):
        (chart,) = charts(made).values()
        assert "scans nothing" in chart.missing


def test_lines_points_exponents_and_crossings_are_drawn() -> None:
    linear = along("involution", [7e-4, 14e-4, 28e-4, 56e-4])
    square = along("convolution", [7e-4 * side**2 / 256 for side in SIDES])
    picture = drawn(charts(run(*linear, *square))["scaling-side-latency"])
    assert picture.count('aria-roledescription="line mark"') == 2
    assert ">1.00<" in picture
    assert ">2.00<" in picture
    assert 'd="M-' in picture


def test_a_scan_with_one_sample_each_and_a_hostile_name_is_drawn() -> None:
    hostile = "</script><b>" + "x" * 300
    records = [
        record(hostile, Measured(timings=(timing(side * 1e-5, processes=1),)), shape=Nchw(1, 8, side, side))
        for side in (4, 8, 16)
    ]
    chart = charts(run(*records))["scaling-side-latency"]
    assert "<b>" not in drawn(chart, 320)


def test_five_hundred_rows_are_drawn() -> None:
    records = [
        record(
            f"operator{index % 25}",
            Measured(timings=(timing(1e-4 * (1 + (index * 7) % 25)),)),
            shape=Nchw(1, 8, 4 + index // 25, 4 + index // 25),
        )
        for index in range(500)
    ]
    chart = charts(run(*records))["scaling-side-latency"]
    assert sum(datum["what"] == "measured" for datum in chart.data) == 500
    assert sum(datum["what"] == "crossover" for datum in chart.data) <= MOST_CROSSOVERS
    assert "operator24" in drawn(chart)
