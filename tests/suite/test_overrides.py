"""`--set KEY=VALUE` is checked like the file, and its faults name the flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.suite.conftest import Bench

ENTRY = "  - {operator: blur, shape: 1x4x8x8, params: {sigma: 1}}\n"


@pytest.mark.parametrize("key", ["cases.0.shape", "cases[0].shape"])
def test_a_value_is_put_in_place_of_another(bench: Bench, key: str) -> None:
    suite = bench.cases(ENTRY, f"{key}=[1x2x3x4, 2x2x3x4]", "cases.0.params.sigma=2.5", "report.baseline=blur")
    assert {row.case.id for row in suite.plan} == {
        "blur/1x2x3x4/float32/layer/forward[sigma=2.5]",
        "blur/2x2x3x4/float32/layer/forward[sigma=2.5]",
    }
    assert suite.report.baseline == "blur"
    assert suite.overrides[2] == "report.baseline=blur"
    assert "2.5" not in suite.text


def test_a_key_that_is_not_there_is_made(bench: Bench) -> None:
    suite = bench.cases("  - {operator: blur}\n", "defaults.shape=1x4x8x8", "defaults.params.kernel_size=5")
    assert {row.case.id for row in suite.plan} == {"blur/1x4x8x8/float32/layer/forward[kernel_size=5]"}


def test_a_later_flag_stands(bench: Bench) -> None:
    assert bench.cases(ENTRY, "measure.processes=2", "measure.processes=1").measure.processes == 1


def test_a_flag_heals_a_fault_of_the_file(bench: Bench) -> None:
    broken = ENTRY.replace("1x4x8x8", "!size 1x4")
    assert len(bench.case_faults(broken)) == 1
    assert bench.cases(broken, "cases.0.shape=1x4x8x8").plan


@pytest.mark.parametrize(
    ("assignment", "fault"),
    [
        ("measure.proceses=1", "measure: unknown key 'proceses'; did you mean 'processes'?"),
        ("measure.processes=none", "measure.processes: must be integer ≥ 1 and ≤ 100, got 'none'"),
        ("measure.processes=", "measure.processes: must be integer ≥ 1 and ≤ 100, got null"),
        ("measure={processes: 1, processes: 2}", None),
        (
            "cases.0.shape=1x4",
            "cases[0].shape: '1x4' is not a shape; write batch x channels x height x width, as in 32x64x56x56",
        ),
        ("cases.0.operator=[blur, blurr]", "cases[0].operator[1]: no operator 'blurr'; did you mean 'blur'?"),
        ("cases.0.params.sgima=1", "cases[0].params: blur has no parameter 'sgima'; did you mean 'sigma'?"),
        ("cases.1.shape=1x4x8x8", "cases: no item '1'; there are 1, counted from 0"),
        ("cases.first.shape=1x4x8x8", "cases: no item 'first'; there are 1, counted from 0"),
        ("title.text=x", "title: has no 'text': it is 'a title'"),
        ("measure.processes", "write KEY=VALUE, as in --set measure.processes=1"),
        ("=1", "write KEY=VALUE, as in --set measure.processes=1"),
        ("measure..processes=1", "write KEY=VALUE, as in --set measure.processes=1"),
        ("title=[x", "not YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_fault_names_the_flag(bench: Bench, assignment: str, fault: str | None) -> None:
    expected = fault or f"measure: duplicate key 'processes', first at --set {assignment}"
    assert bench.case_faults(ENTRY, assignment) == [f"--set {assignment}: {expected}"]


def test_faults_of_flags_follow_those_of_the_file_in_the_order_given(bench: Bench) -> None:
    assert bench.case_faults(ENTRY.replace("sigma", "sgima"), "title=", "measure.seed=-1") == [
        "suite.yaml:5:47: cases[0].params: blur has no parameter 'sgima'; did you mean 'sigma'?",
        "--set title=: title: must be non-empty text, got null",
        "--set measure.seed=-1: measure.seed: must be integer ≥ 0, got -1",
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 100),
    st.floats(min_value=1e-6, max_value=0.999),
    st.sampled_from(["cold", "hot"]),
    st.text(st.characters(codec="ascii", categories=["L"]), min_size=1),
)
def test_a_setting_arrives_as_it_was_given(
    bench: Bench, processes: int, precision: float, cache: str, title: str
) -> None:
    suite = bench.cases(
        ENTRY,
        f"measure.processes={processes}",
        f"measure.precision={precision!r}",
        f"measure.cache={cache}",
        f"title='{title}'",
    )
    assert suite.measure.processes == processes
    assert suite.measure.precision == precision
    assert suite.measure.cache == (cache,)
    assert suite.title == title
