"""Several runs in one report: what the tables, the answer and the alerts say."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from opbench import report
from opbench.cases import Nchw
from opbench.environment import Environment
from opbench.report.model import Comparison, Table
from opbench.results import Counts, Measured, Policy, Record
from opbench.store import Run
from tests.report.made_up import (
    COLD,
    ENVIRONMENT,
    counts,
    machines,
    memory,
    record,
    run,
    timing,
)
from tests.report.test_terminal import shown

LATER = replace(ENVIRONMENT, captured="2031-02-04T04:05:06+00:00")


def timed(name: str, seconds: float, *policies: Policy, **changes: Any) -> Record:
    outcome = Measured(
        timings=tuple(timing(seconds, policy) for policy in policies or (COLD,)), flags=changes.pop("flags", ())
    )
    return record(name, outcome, **changes)


def comparison(*runs: Run, **options: Any) -> Comparison:
    made = report.view(runs, report.Options(**options)).comparison
    assert made is not None
    return made


def beside(*records: Record, environment: Environment = LATER, **changes: Any) -> Run:
    """Another run than those of `run`."""
    return run(*records, environment=environment, directory="runs/later", **changes)


def column(table: Table, key: str, place: int = 0) -> list[str]:
    index = [index for index, column in enumerate(table.columns) if column.key == key][place]
    return [f"{row[index].text} {row[index].mark}".rstrip() for row in table.rows]


def test_a_single_run_has_nothing_beside_it() -> None:
    assert report.view([run(timed("a", 1e-3))]).comparison is None


def test_each_section_is_called_what_the_tables_call_its_run() -> None:
    view = report.view([run(timed("a", 2e-3)), beside(timed("a", 3e-3))])
    assert view.comparison is not None
    assert len(set(view.comparison.labels)) == 2
    assert [each.title for each in view.sections] == [
        f"A made-up comparison ({label})" for label in view.comparison.labels
    ]


def test_noise_is_told_without_advice() -> None:
    noisy = replace(LATER, noise="a task waited for a processor; pass --allow-noisy")
    made = comparison(run(timed("a", 2e-3)), beside(timed("a", 3e-3), environment=noisy))
    text = " ".join(made.runs.lines)
    assert "noise a task waited for a processor;" in text
    assert "--allow-noisy" not in text


def test_the_second_run_is_divided_by_the_first() -> None:
    made = comparison(run(timed("a", 2e-3)), beside(timed("a", 3e-3)))
    (match,) = made.matches
    _, ratio = match.ratios
    assert ratio is not None
    assert ratio.value == pytest.approx(1.5)
    # Two relative half-widths of about half a percent add up as squares.
    assert math.log(ratio.high / ratio.value) == pytest.approx(0.00497 * math.sqrt(2), rel=0.01)
    (table,) = made.tables
    assert column(table, "latency") == ["2.00 ms"]
    assert column(table, "latency", 1) == ["3.00 ms"]
    assert column(table, "ratio") == ["1.50×"]
    assert column(table, "difference") == ["slower"]


@pytest.mark.parametrize(
    ("seconds", "word"), [(9e-4, "faster"), (9.99e-4, "none shown"), (1.001e-3, "none shown"), (1.1e-3, "slower")]
)
def test_a_difference_is_shown_where_the_interval_leaves_out_one(seconds: float, word: str) -> None:
    (table,) = comparison(run(timed("a", 1e-3)), beside(timed("a", seconds))).tables
    assert column(table, "difference") == [word]


def test_nothing_is_crowned_for_the_rows_are_no_rivals() -> None:
    first, second = [timed("a", 1e-3), timed("b", 2e-3)], [timed("a", 1e-4), timed("b", 2e-4)]
    (table,) = comparison(run(*first), beside(*second)).tables
    assert not any(cell.best for row in table.rows for cell in row)


def test_the_answer_counts_and_names_the_greatest_change() -> None:
    names = "abcdefgh"
    first = [timed(name, 1e-3) for name in names]
    times = dict.fromkeys(names, 1e-3) | {"a": 7e-4, "b": 8e-4, "c": 1.2e-3}
    second = [timed(name, seconds, flags=("noisy",) if name == "a" else ()) for name, seconds in times.items()]
    assert comparison(run(*first), beside(*second)).answer == (
        "Of 8 times that both runs have, 2 are faster in 2031-02-04, 1 is slower and 5 show no difference; "
        "the greatest change is a at 0.700× [0.695, 0.705] (noisy); 1 of these rests on times flagged noisy."
    )
    assert comparison(run(*first), beside(*first)).answer == "Of 8 times that both runs have, none shows a difference."


def test_the_greatest_change_says_what_tells_it_from_its_like() -> None:
    shapes = (Nchw(1, 8, 7, 7), Nchw(1, 8, 14, 14))
    first = [timed("a", 1e-3, shape=shape) for shape in shapes]
    second = [timed("a", seconds, shape=shape) for seconds, shape in zip((1e-3, 2e-3), shapes, strict=True)]
    assert "the greatest change is a (1x8x14x14) at 2.00×" in comparison(run(*first), beside(*second)).answer


def test_three_runs_are_each_divided_by_the_first() -> None:
    runs = [
        run(
            timed("a", seconds),
            environment=replace(ENVIRONMENT, versions={"torch": version}),
            directory=version,
        )
        for seconds, version in ((1e-3, "2.1"), (2e-3, "2.2"), (5e-4, "2.3"))
    ]
    made = comparison(*runs)
    assert made.title == "Three runs side by side"
    assert made.labels == ("torch 2.1", "torch 2.2", "torch 2.3")
    (table,) = made.tables
    assert [each.title for each in table.columns if each.key == "ratio"] == [
        "torch 2.2 ÷ torch 2.1",
        "torch 2.3 ÷ torch 2.1",
    ]
    assert (column(table, "ratio"), column(table, "ratio", 1)) == (["2.00×"], ["0.500×"])
    assert made.answer.startswith("Of 1 time that torch 2.1 and torch 2.2 have, 1 is slower in torch 2.2; ")
    assert " Of 1 time that torch 2.1 and torch 2.3 have, 1 is faster in torch 2.3; " in made.answer


def test_runs_without_times_have_their_counts_compared() -> None:
    first, second = record("a", counts=counts(100)), record("a", counts=counts(200))
    made = comparison(run(first), beside(second))
    assert made.answer == "The runs have 1 record in common, and no times of them."
    assert made.tables == ()
    assert [alert.split(" (")[0] for alert in made.alerts] == [
        "a: dense MACs differ between the runs, so the operator itself changed",
        "a: MACs in bounds differ between the runs, so the operator itself changed",
    ]
    assert "100 in 2031-02-03, 200 in 2031-02-04" in made.alerts[0]


def test_a_changed_count_is_told_once_for_all_cases_with_every_digit() -> None:
    shapes = [Nchw(1, 8, side, side) for side in (7, 14, 28)]
    first = [record("a", counts=counts(5, 36864), shape=shape) for shape in shapes]
    second = [record("a", counts=counts(5, 36865), shape=shape) for shape in shapes]
    assert comparison(run(*first), beside(*second)).alerts == (
        "a: parameters differ between the runs, so the operator itself changed "
        "(a/1x8x7x7/float32/layer/forward: 36 864 in 2031-02-03, 36 865 in 2031-02-04; 2 more)",
    )


def test_a_lower_bound_may_rise_without_an_alert() -> None:
    first, second = record("a", counts=counts(100, unknown=("x",))), record("a", counts=counts(200))
    assert comparison(run(first), beside(second)).alerts == ()
    assert comparison(run(record("a")), beside(record("a", counts=Counts(parameters=3)))).alerts == ()


def test_memory_is_side_by_side_from_one_source_where_it_differs() -> None:
    def used(name: str, mebibytes: int) -> Record:
        return record(name, Measured(memory=memory(mebibytes, "training")), pass_="training")

    made = comparison(run(used("a", 4), used("b", 4)), beside(used("a", 6), used("b", 4)))
    assert [table.title.partition(":")[0] for table in made.tables] == [
        "Forward peak",
        "Saved for backward",
        "Backward peak",
    ]
    assert made.tables[0].title.endswith("read from the tensor tracker")
    assert column(made.tables[2], "bytes", 1) == ["12.0 MiB", "8.00 MiB"]
    assert column(made.tables[2], "bytes_ratio") == ["1.50×", "same"]
    assert "Memory is the same for 1 of 2 records." in made.runs.lines
    assert comparison(run(used("b", 4)), beside(used("b", 4))).tables == ()


def test_memory_of_different_sources_is_not_side_by_side() -> None:
    tracker, high_water = memory(4)
    made = comparison(
        run(record("a", Measured(memory=(tracker,)))), beside(record("a", Measured(memory=(high_water,))))
    )
    assert made.tables == ()
    assert "Memory of 1 record is not side by side, for no two runs read it from the same source: a." in made.runs.lines


def test_high_water_marks_within_their_precision_are_the_same() -> None:
    def used(size: int) -> Record:
        return record("a", Measured(memory=(replace(memory(4)[1], forward_peak_bytes=size),)))

    assert comparison(run(used(1_000_000)), beside(used(1_019_000))).tables == ()
    (table,) = comparison(run(used(1_000_000)), beside(used(1_021_000))).tables
    assert column(table, "bytes_ratio") == ["1.02×"]


def test_the_legend_warns_of_chance_and_of_other_days() -> None:
    names = [f"operator{number}" for number in range(40)]
    made = comparison(run(*(timed(name, 1e-3) for name in names)), beside(*(timed(name, 1e-3) for name in names)))
    text = " ".join(made.blocks[0].lines)
    assert "expect about 2 of 40 ratios to show a difference" in text
    assert "not how one day differs from another" in text
    assert "Noisy" not in text


def test_flags_of_either_run_are_footnotes_and_explained() -> None:
    made = comparison(run(timed("a", 1e-3, flags=("unstable",))), beside(timed("a", 1e-3, flags=("noisy",))))
    (table,) = made.tables
    assert column(table, "latency") == ["1.000 ms ¹"]
    assert column(table, "latency", 1) == ["1.000 ms ²"]
    assert table.footnotes == (("¹", "unstable"), ("²", "noisy"))
    assert {"Noisy", "Unstable"} <= {line.partition(":")[0] for line in made.blocks[0].lines}
    assert made.answer.endswith("none shows a difference; 1 of these rests on times flagged noisy, unstable.")


def test_rows_are_grouped_and_sorted_as_asked() -> None:
    shapes = (Nchw(1, 8, 7, 7), Nchw(1, 8, 14, 14))
    records = [timed(name, seconds, shape=shape) for shape in shapes for name, seconds in (("b", 1e-3), ("a", 2e-3))]
    runs = run(*records), beside(*records)
    by_operator = comparison(*runs, group_by=("operator",)).tables
    assert [table.title.split(",")[0] for table in by_operator] == ["Latency: b", "Latency: a"]
    assert column(by_operator[0], "shape") == [str(shape) for shape in shapes]
    assert column(comparison(*runs, sort_by="name").tables[0], "operator") == ["a", "b"]


def test_json_has_a_row_for_each_match_and_run() -> None:
    document = json.loads(report.json_text(report.view(machines())))
    found = document["comparison"]
    assert {(row["reference_run"], row["run"]) for row in found} == {("runs/here", "runs/there")}
    convolution = found[0]
    assert (convolution["name"], convolution["policy"], convolution["reference_policy"]) == (
        "convolution",
        str(COLD),
        str(COLD),
    )
    assert convolution["reference_latency_seconds_median"] == 2e-3
    assert convolution["latency_seconds_median"] == 1e-3
    assert convolution["ratio"] == pytest.approx(0.5)
    assert convolution["ratio_low"] < 0.5 < convolution["ratio_high"] < 1
    assert convolution["difference"] == "faster"
    refused = next(row for row in found if row["name"] == "sasa")
    assert (refused["ratio"], refused["difference"]) == (None, None)
    assert refused["ratio_refused"] == "the parameters are not equal: kernel_size 5 and 7"
    failed = next(row for row in found if row["name"] == "drconv")
    assert (failed["status"], failed["latency_seconds_median"]) == ("out_of_memory", None)
    assert json.loads(report.json_text(report.view([machines()[0]])))["comparison"] == []


def test_no_line_of_a_comparison_is_wider_than_the_terminal() -> None:
    view = report.view(machines())
    for width in (60, 80, 120, 200):
        assert max(map(len, shown(view, width, everything=True).splitlines())) <= width
