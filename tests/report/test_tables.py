"""Tables: what stands in a cell, what is bold, which rows stand together."""

import pytest

from opbench import report
from opbench.cases import Case, Nchw
from opbench.errors import OpbenchError
from opbench.report.cells import Draft, winner
from opbench.report.model import Table
from opbench.results import Failed, Measured, Outcome, Policy, Record, Skipped, Wrong
from opbench.store import Run
from tests.report.made_up import COLD, HOT, comparison, counts, memory, record, run, scan, timing


def tables(made: Run, **options: object) -> list[Table]:
    return list(report.view([made], report.Options(**options)).sections[0].tables)  # type: ignore[arg-type]


def cells(table: Table, key: str) -> list[str]:
    index = [column.key for column in table.columns].index(key)
    return [f"{row[index].text} {row[index].mark}".rstrip() for row in table.rows]


def bold(table: Table) -> set[tuple[str, str]]:
    return {
        (row[0].text, column.key)
        for row in table.rows
        for cell, column in zip(row, table.columns, strict=True)
        if cell.best
    }


def keys(table: Table) -> list[str]:
    return [column.key for column in table.columns]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            Wrong(quantity="grad_weight", error=0.031, budget=1.2e-6, where="[0, 3, 1, 1]"),
            "wrong: grad_weight off by 3.1e-2 (budget 1.2e-6) at [0, 3, 1, 1]",
        ),
        (
            Wrong(quantity="forward", error=None, budget=0, where="it was not computed"),
            "wrong: forward cannot be compared: it was not computed",
        ),
        (Skipped(reason="needs a GPU"), "skipped: needs a GPU"),
        (Failed(reason="ValueError: no"), "failed: ValueError: no"),
        (Failed(reason="an allocation failed", status="out_of_memory"), "out of memory: an allocation failed"),
        (Failed(reason="no result after 300 s", status="timed_out"), "timed out: no result after 300 s"),
        (Failed(reason="signal 11 (SIGSEGV)", status="crashed"), "crashed: signal 11 (SIGSEGV)"),
        (Failed(reason=""), "failed: no reason given"),
        (Measured(flags=("unstable", "noisy")), "unstable, noisy"),
    ],
)
def test_every_outcome_is_told_in_words_and_never_as_a_number(outcome: Outcome, words: str) -> None:
    beside = record("beside", Measured(timings=(timing(1e-3),), memory=memory(1)), counts=counts(5))
    (table,) = tables(run(record("told", outcome), beside))
    assert cells(table, "notes")[0] == words
    numeric = [cell.text for cell, column in zip(table.rows[0], table.columns, strict=True) if column.numeric]
    assert set(numeric) == {"–"}
    assert len(numeric) >= 6


def test_a_long_reason_is_cut_in_the_table_and_whole_below() -> None:
    reason = "because " * 30
    section = report.view([run(record(outcome=Skipped(reason=reason)))]).sections[0]
    assert len(cells(section.tables[0], "notes")[0]) < 120
    (block,) = [block for block in section.blocks if block.title == "Not measured"]
    assert reason.strip() in block.lines[0]


def test_numbers_carry_their_units_and_flops_are_twice_the_macs() -> None:
    made = record(
        outcome=Measured(timings=(timing(1.234e-3),), memory=memory(3, "training")),
        pass_="training",
        counts=counts(1_500_000, 36864),
    )
    (table,) = tables(run(made))
    row = {column.key: cell.text for column, cell in zip(table.columns, table.rows[0], strict=True)}
    assert row["parameters"] == "36.9 k"
    assert (row["macs"], row["flops"]) == ("1.50 M", "3.00 M")
    assert (row["latency"], row["latency_interval"]) == ("1.234 ms", "[1.228, 1.240] ms")
    assert (row["forward_peak"], row["saved"], row["backward_peak"]) == ("3.00 MiB", "1.50 MiB", "6.00 MiB")


def test_a_lower_bound_is_marked_and_names_the_unknown_operations() -> None:
    made = record(counts=counts(3_210_000, unknown=("aten::mystery", "aten::riddle")))
    (table,) = tables(run(made))
    assert cells(table, "macs") == ["≥ 3.21 M ¹"]
    assert cells(table, "flops") == ["≥ 6.42 M ¹"]
    assert table.footnotes == (("¹", "at least, because no counter knows aten::mystery, aten::riddle"),)


def test_in_bounds_macs_appear_only_where_they_differ() -> None:
    assert "macs_in_bounds" not in keys(tables(run(record(counts=counts(100))))[0])
    (table,) = tables(run(record(counts=counts(100, in_bounds=90))))
    assert cells(table, "macs_in_bounds") == ["90"]


def test_saved_bytes_of_a_forward_and_parameters_of_a_core_do_not_apply() -> None:
    forward = record("forward", Measured(memory=memory(1)), scope="core", counts=counts(5))
    training = record("training", Measured(memory=memory(1, "training")), pass_="training", counts=counts(5))
    (table,) = tables(run(forward, training), group_by=("dtype",))
    assert cells(table, "saved") == ["n/a", "512 KiB"]
    assert cells(table, "parameters") == ["n/a", "36.9 k"]


def test_a_refused_ratio_is_a_dash_with_a_footnote() -> None:
    base = record("base", Measured(timings=(timing(1e-3, HOT),)))
    other = record("other", Measured(timings=(timing(1e-3, COLD),)))
    cold = next(table for table in tables(run(base, other, baseline="base")) if "cold" in table.title)
    assert cells(cold, "ratio")[-1] == "– ¹"
    assert "never divided" in cold.footnotes[0][1]


def test_only_the_clear_winner_is_bold() -> None:
    def latencies(*seconds: float, flags: tuple[str, ...] = ()) -> set[tuple[str, str]]:
        records = [
            record(f"operator{index}", Measured(timings=(timing(each, spread=0.01),), flags=flags))
            for index, each in enumerate(seconds)
        ]
        return bold(tables(run(*records))[0])

    assert latencies(1e-3, 2e-3, 3e-3) == {("operator0", "latency")}
    assert latencies(1e-3, 1.01e-3, 3e-3) == set()
    assert latencies(1e-3) == set()
    assert latencies(1e-3, 2e-3, flags=("noisy",)) == set()
    assert latencies(1e-3, 2e-3, flags=("nondeterministic",)) == {("operator0", "latency")}


@pytest.mark.parametrize(
    ("drafts", "best"),
    [
        ([Draft.exact(3, "3"), Draft.exact(2, "2")], 1),
        ([Draft.exact(2, "2"), Draft.exact(2, "2")], None),
        ([Draft.exact(2, "2"), Draft()], None),
        ([Draft.exact(2, "2"), Draft.at_least(3, "3")], 0),
        ([Draft.exact(4, "4"), Draft.at_least(3, "3")], None),
        ([Draft.at_least(1, "1"), Draft.exact(2, "2")], None),
        ([Draft("a", (1, 3)), Draft("b", (2, 4)), Draft("c", (5, 6))], None),
        ([Draft("a", (1, 3)), Draft("b", (4, 5)), Draft("c", (3.5, 9))], 0),
        ([Draft.exact(1, "1"), Draft.exact(2, "2").in_doubt()], None),
    ],
)
def test_winner_lies_below_all_others(drafts: list[Draft], best: int | None) -> None:
    assert winner(drafts) == best


def test_a_wrong_operator_wins_nothing() -> None:
    wrong = record("wrong", Wrong(quantity="forward", error=1.0, budget=0.1, where="[0]"), counts=counts(1))
    right = [record(f"right{macs}", counts=counts(macs)) for macs in (2, 3)]
    assert bold(tables(run(wrong, *right))[0]) == {("right2", "macs"), ("right2", "flops")}


def test_nobody_wins_against_an_unknown_number() -> None:
    known = [record(f"known{macs}", counts=counts(macs, in_bounds=macs - 1)) for macs in (20, 30)]
    unknown = record("unknown", counts=counts(5, parameters=7, unknown=("aten::mystery",)))
    (table,) = tables(run(*known, unknown))
    assert cells(table, "macs_in_bounds") == ["19", "29", "–"]
    assert bold(table) == {("unknown", "parameters")}


def test_each_table_holds_what_may_be_compared() -> None:
    titles = [table.title for table in tables(comparison())]
    assert titles == [
        "layer, forward, 8x64x56x56, float32, contiguous, cold cache, 1 thread, cpu, eager",
        "layer, forward, 8x64x56x56, float32, contiguous, hot cache, 1 thread, cpu, eager",
        "layer, training, 8x64x56x56, float32, contiguous, cold cache, 1 thread, cpu, eager",
    ]


def test_what_was_not_measured_is_missed_in_every_table_of_its_setting() -> None:
    cold, hot, training = tables(comparison())
    assert cells(cold, "operator") == cells(hot, "operator")
    assert "involution/cuda" in cells(hot, "operator")
    assert "involution/cuda" not in cells(training, "operator")


def test_grouping_otherwise_shows_what_varies_and_crowns_nobody() -> None:
    (convolution, *_) = tables(comparison(), group_by=("operator",))
    assert convolution.title == "convolution"
    assert {"pass", "policy"} <= set(keys(convolution))
    assert bold(convolution) == set()


@pytest.mark.parametrize(
    ("key", "titles"),
    [
        ("kernel_size", ["kernel_size=3", "kernel_size=13", "kernel_size=7", "all rows"]),
        ("cache", ["cold cache", "hot cache"]),
        ("threads", ["1 thread"]),
        ("batch", ["batch 8"]),
        ("implementation", ["reference", "native", "cuda"]),
    ],
)
def test_rows_can_be_grouped_by(key: str, titles: list[str]) -> None:
    assert [table.title for table in tables(comparison(), group_by=(key,))] == titles


def test_an_unknown_key_or_baseline_is_refused_with_a_hint() -> None:
    with pytest.raises(OpbenchError, match=r"cannot group by 'shap'; did you mean 'shape'\?"):
        tables(comparison(), group_by=("shap",))
    with pytest.raises(OpbenchError, match=r"no run has 'convoluton' .* did you mean 'convolution'\?"):
        tables(comparison(), baseline="convoluton")


def test_a_baseline_may_still_be_missing() -> None:
    planned = [(Case(operator=name, shape=Nchw(8, 64, 56, 56)), "reference") for name in ("base", "other")]
    (table,) = tables(run(record("other", Measured(timings=(timing(1e-3),))), plan=planned), baseline="base")
    assert table.footnotes == (("¹", "base has no record in this setting"),)


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [
        ("suite", ["b", "a", "c", "none"]),
        ("name", ["a", "b", "c", "none"]),
        ("parameters", ["c", "a", "b", "none"]),
        ("macs", ["a", "c", "b", "none"]),
        ("latency", ["c", "b", "a", "none"]),
        ("memory", ["b", "c", "a", "none"]),
    ],
)
def test_rows_are_sorted_with_the_least_first_and_the_unmeasured_last(sort_by: str, order: list[str]) -> None:
    def made(name: str, macs: int, parameters: int, seconds: float, mebibytes: int) -> Record:
        outcome = Measured(timings=(timing(seconds),), memory=memory(mebibytes))
        return record(name, outcome, counts=counts(macs, parameters))

    records = [made("b", 30, 3, 2e-3, 1), made("a", 10, 2, 3e-3, 3), made("c", 20, 1, 1e-3, 2)]
    none = record("none", Skipped(reason="no"))
    (table,) = tables(run(*records, none), sort_by=sort_by)
    assert cells(table, "operator") == order


def test_params_name_what_tells_rows_apart() -> None:
    made = [
        record("a", params={"kernel_size": 3, "groups": 4, "only_here": 1}),
        record("b", params={"kernel_size": 7, "groups": 4}),
    ]
    (table,) = tables(run(*made))
    assert cells(table, "params") == ["kernel_size=3", "kernel_size=7"]


def test_a_scan_shows_growth_with_the_longer_side_down() -> None:
    latency, peak, *details = tables(scan((14, 28, 56)))
    assert latency.title.startswith("Latency (÷ convolution) by shape: layer, forward")
    assert [row[0].text for row in latency.rows] == ["1x64x14x14", "1x64x28x28", "1x64x56x56"]
    assert [column.title for column in latency.columns] == ["shape", "convolution", "involution"]
    assert latency.rows[0][2].text == "392 µs (2.00×)"
    assert [[cell.best for cell in row] for row in latency.rows] == [[False, True, False]] * 3
    assert "memory" not in peak.title
    assert len(details) == 3
    assert len(tables(scan((14, 28)))) == 2


def test_a_scanned_parameter_is_an_axis_and_other_parameters_make_lines() -> None:
    made = [
        record("a", Measured(timings=(timing(1e-3 * k * g),)), set_params={"kernel_size": k, "groups": g})
        for k in (3, 5, 7, 9)
        for g in (1, 2)
    ]
    made.append(record("plain", Measured(timings=(timing(1e-3),))))
    made.append(
        record("a", Failed(reason="too big", status="out_of_memory"), set_params={"kernel_size": 11, "groups": 1})
    )
    latency, _ = tables(run(*made))
    assert latency.title.startswith("Latency by kernel size: layer, forward, 8x64x56x56")
    assert [column.title for column in latency.columns] == ["kernel size", "a groups=1", "a groups=2"]
    assert [row[0].text for row in latency.rows] == [f"kernel_size={k}" for k in (3, 5, 7, 9, 11)]
    assert [cell.text for cell in latency.rows[-1]] == ["kernel_size=11", "out of memory", "–"]


def test_a_scan_shows_memory_once_for_all_policies() -> None:
    policies = (COLD, HOT, Policy(cache="hot", threads=4))
    made = [
        record(
            outcome=Measured(timings=tuple(timing(1e-3, policy) for policy in policies), memory=memory(side)),
            shape=Nchw(1, 8, side, side),
        )
        for side in (4, 8, 16)
    ]
    titles = [table.title for table in tables(run(*made)) if " by shape" in table.title]
    assert [title.partition(" by")[0] for title in titles] == ["Latency", "Latency", "Latency", "Forward peak"]


def test_memory_of_another_source_is_set_apart() -> None:
    tracked, _ = memory(2)
    _, seen = memory(1)
    (table,) = tables(run(record("a", Measured(memory=(tracked,))), record("b", Measured(memory=(seen,)))))
    assert cells(table, "forward_peak") == ["2.00 MiB", "1.00 MiB ¹"]
    assert "high-water mark" in table.footnotes[0][1]
    assert bold(table) == set()
