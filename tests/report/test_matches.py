"""Several runs in one report: which times stand side by side, and which may be divided."""

from dataclasses import replace

import pytest

from opbench.report.matches import matches
from opbench.report.rows import rows
from opbench.results import Failed, Policy, Skipped
from tests.report.made_up import (
    AS_GRAPH,
    COLD,
    ENVIRONMENT,
    HOT,
    ON_GPU,
    record,
    run,
)
from tests.report.test_side_by_side import beside, column, comparison, timed

TWO_THREADS = Policy(cache="cold", threads=2)


@pytest.mark.parametrize("other", [HOT, TWO_THREADS, ON_GPU, AS_GRAPH])
def test_times_of_different_policies_stand_side_by_side_and_are_not_divided(other: Policy) -> None:
    made = comparison(run(timed("a", 1e-3, COLD)), beside(timed("a", 2e-3, other)))
    (table,) = made.tables
    assert table.title.endswith(f"{COLD} beside {other}")
    assert (column(table, "latency"), column(table, "latency", 1)) == (["1.000 ms"], ["2.00 ms"])
    assert column(table, "ratio") == ["– ¹"]
    assert "cannot be divided" in table.footnotes[0][1]
    assert (
        made.answer == "Nothing of both runs may be divided; 1 is side by side and not divided, for the reasons below."
    )


def test_a_time_goes_beside_the_one_whose_policy_is_nearest() -> None:
    """On the CPU cold and hot, on the GPU as launched and as a graph: cold beside cold, and one of each is left."""
    first, second = rows([timed("a", 1e-3, HOT, COLD)]), rows([timed("a", 1e-3, AS_GRAPH, ON_GPU)])
    pairs = [[row and row.policy for row in match.rows] for match in matches([first, second])]
    assert pairs == [[HOT, AS_GRAPH], [COLD, ON_GPU]]
    alone = comparison(run(timed("a", 1e-3, HOT, COLD)), beside(timed("a", 1e-3, ON_GPU)))
    assert [match.policies for match in alone.matches] == [(COLD, ON_GPU)]
    assert "1 time only in 2031-02-03 (hot cache, 1 thread, cpu, eager): a." in alone.runs.lines


def test_an_equal_policy_goes_before_a_near_one() -> None:
    first, second = rows([timed("a", 1e-3, COLD, TWO_THREADS)]), rows([timed("a", 1e-3, TWO_THREADS)])
    assert [match.policies for match in matches([first, second])] == [(TWO_THREADS,)]


def test_a_run_that_failed_is_beside_each_time_of_the_other() -> None:
    made = comparison(run(timed("a", 1e-3, COLD, HOT)), beside(record("a", Failed(reason="x", status="timed_out"))))
    assert [column(table, "latency", 1) for table in made.tables] == [["timed out ¹"], ["timed out ¹"]]
    assert made.tables[0].footnotes == (("¹", "timed out: x"),)
    assert made.answer.endswith("; 2 were timed in one of them and not in the other.")


def test_a_failed_first_run_loses_no_row_in_any_order() -> None:
    made = comparison(run(record("a", Skipped(reason="x"))), beside(timed("a", 1e-3, COLD, HOT)), sort_by="latency")
    assert [column(table, "latency", 1) for table in made.tables] == [["1.000 ms"], ["1.000 ms"]]
    assert made.tables[0].footnotes == (("¹", "skipped: x"), ("²", "the first run has no time to divide by"))


def test_what_was_measured_nowhere_is_counted_and_not_shown() -> None:
    first, second = record("a", Skipped(reason="x")), record("a", Failed(reason="y"))
    made = comparison(run(first, timed("b", 1e-3)), beside(second, timed("b", 1e-3)))
    assert [column(table, "operator") for table in made.tables] == [["b"]]
    assert "1 record measured in none of them: a." in made.runs.lines


def test_other_parameters_are_another_operator() -> None:
    first, second = (
        timed("a", 1e-3, params={"k": 3, "same": 1}),
        timed("a", 1e-3, params={"k": 7, "new": True, "same": 1}),
    )
    made = comparison(run(first), beside(second))
    (table,) = made.tables
    assert column(table, "ratio") == ["– ¹"]
    assert table.footnotes == (("¹", "the parameters are not equal: k 7 and 3, new True and unknown"),)
    assert made.alerts == (
        "a: ran with other parameters, so nothing of it is divided "
        "(a/8x64x56x56/float32/layer/forward: k 7 and 3, new True and unknown)",
    )


def test_of_three_runs_two_are_enough_for_a_row() -> None:
    third = replace(ENVIRONMENT, captured="2031-02-05T04:05:06+00:00")
    made = comparison(
        run(timed("a", 1e-3)),
        beside(timed("a", 1e-3), timed("b", 1e-3)),
        run(timed("b", 2e-3), timed("c", 1e-3), environment=third, directory="third"),
    )
    (table,) = made.tables
    assert column(table, "latency") == ["1.000 ms", "–"]
    assert column(table, "ratio", 1) == ["–", "– ¹"]
    assert "1 record only in 2031-02-05: c." in made.runs.lines


def test_runs_that_share_nothing_say_so() -> None:
    made = comparison(run(timed("a", 1e-3)), beside(timed("a", 1e-3, implementation="cuda")))
    assert made.answer.startswith("The runs have no record in common")
    assert made.tables == ()
