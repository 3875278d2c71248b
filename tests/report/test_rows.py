"""Ratios: taken between times of one policy and one setting, refused with a reason everywhere else."""

import math

import pytest

from opbench.cases import Nchw
from opbench.report.rows import Row, rows
from opbench.results import Failed, Measured, Outcome, Skipped
from tests.report.made_up import COLD, HOT, memory, record, timing


def timed(seconds: float, *policies: object) -> Measured:
    return Measured(timings=tuple(timing(seconds, policy) for policy in policies or (COLD,)))  # type: ignore[arg-type]


def test_one_row_for_each_policy_and_one_where_nothing_was_timed() -> None:
    made = rows([record("a", timed(1e-3, COLD, HOT)), record("b", Skipped(reason="no")), record("c", Measured())])
    assert [(row.record.case.operator, row.policy) for row in made] == [
        ("a", COLD),
        ("a", HOT),
        ("b", None),
        ("c", None),
    ]


def test_ratio_is_the_quotient_of_the_medians() -> None:
    base, other = rows([record("base", timed(2e-3)), record("other", timed(5e-3))], baseline="base")
    assert base.is_baseline
    assert base.ratio is None
    assert other.ratio is not None
    assert other.ratio.value == pytest.approx(2.5)
    # Two relative half-widths of about half a percent add up as squares.
    assert math.log(other.ratio.high / other.ratio.value) == pytest.approx(0.00497 * math.sqrt(2), rel=0.01)


def test_ratio_is_taken_within_each_policy() -> None:
    made = rows([record("base", timed(2e-3, COLD, HOT)), record("other", timed(4e-3, HOT))], baseline="base")
    assert made[-1].ratio is not None
    assert made[-1].ratio.value == pytest.approx(2)


def test_ratio_is_refused_between_policies() -> None:
    *_, other = rows([record("base", timed(2e-3, HOT)), record("other", timed(4e-3, COLD))], baseline="base")
    assert other.ratio is None
    assert other.no_ratio == (
        "base was timed under another policy (hot cache, 1 thread, cpu, eager), and such times are never divided"
    )


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Skipped(reason="no GPU"), "base was not timed: skipped: no GPU"),
        (Failed(reason="signal 9", status="crashed"), "base was not timed: crashed: signal 9"),
        (Measured(), "base was not timed: it has no times"),
    ],
)
def test_reason_says_why_the_baseline_has_no_time(outcome: Outcome, words: str) -> None:
    *_, other = rows([record("base", outcome), record("other", timed(1e-3))], baseline="base")
    assert other.no_ratio == words


def test_another_shape_pass_or_scope_is_another_setting() -> None:
    base = record("base", timed(1e-3), shape=Nchw(1, 8, 9, 9))
    for other in (
        record("other", timed(1e-3), shape=Nchw(1, 8, 9, 10)),
        record("other", timed(1e-3), shape=Nchw(1, 8, 9, 9), pass_="training"),
        record("other", timed(1e-3), shape=Nchw(1, 8, 9, 9), scope="core"),
    ):
        *_, row = rows([base, other], baseline="base")
        assert row.no_ratio == "base has no record in this setting"


def test_in_a_scan_the_baseline_is_taken_at_the_same_point() -> None:
    records = [record("base", timed(1e-3 * k), set_params={"kernel_size": k}) for k in (3, 5, 7)]
    records.append(record("other", timed(10e-3), set_params={"kernel_size": 5, "groups": 4}))
    ratio = rows(records, baseline="base")[-1].ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(2)


def test_a_baseline_measured_once_serves_every_point() -> None:
    made = rows(
        [
            record("base", timed(1e-3), set_params={"kernel_size": 3}),
            *(record("other", timed(2e-3), set_params={"kernel_size": k}) for k in (5, 7)),
        ],
        baseline="base",
    )
    assert [row.ratio.value for row in made if row.ratio] == [pytest.approx(2), pytest.approx(2)]


@pytest.mark.parametrize(
    ("kernel_size", "fitting"), [(9, "no row with the same parameters"), (None, "2 rows that fit")], ids=str
)
def test_an_unclear_baseline_is_refused(kernel_size: int | None, fitting: str) -> None:
    set_params = {} if kernel_size is None else {"kernel_size": kernel_size}
    *_, other = rows(
        [
            *(record("base", timed(1e-3), set_params={"kernel_size": k}) for k in (3, 5)),
            record("other", timed(1e-3), set_params=set_params),
        ],
        baseline="base",
    )
    assert other.ratio is None
    assert other.no_ratio == f"base has {fitting}, so there is not one to divide by"


def test_memory_comes_from_the_most_exact_source() -> None:
    row = Row(record=record(outcome=Measured(memory=memory(5)[::-1])))
    best = row.memory()
    assert best is not None
    assert best.source == "tracker"
    assert row.memory("allocator") is None


def test_intensity_is_two_flops_a_mac_over_the_compulsory_bytes() -> None:
    from opbench.results import Counts

    counts = Counts(macs_dense=500, macs_in_bounds=400, compulsory_bytes=200)
    assert Row(record=record(counts=counts)).intensity == 4
    assert Row(record=record(counts=Counts(macs_dense=500))).intensity is None
