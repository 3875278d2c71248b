"""The sentence that a report begins with, and the warnings below it."""

from opbench import report
from opbench.cases import Case, Pass
from opbench.report.model import Section
from opbench.results import Failed, Measured, Policy, Skipped
from opbench.store import Run
from tests.report.made_up import COLD, HOT, SHAPE, counts, memory, record, run, scan, timing


def section(made: Run) -> Section:
    return report.view([made]).sections[0]


def timed(seconds: float, *policies: Policy, spread: float = 0.002) -> Measured:
    return Measured(timings=tuple(timing(seconds, policy, spread) for policy in policies or (COLD,)))


def test_names_the_fastest_and_the_slowest_relative_to_the_baseline() -> None:
    milliseconds = {"base": 2, "fast": 1, "slow": 6, "middle": 3}
    made = run(*(record(name, timed(number * 1e-3)) for name, number in milliseconds.items()), baseline="base")
    assert section(made).answer == (
        "Layer, forward, cold cache, 1 thread, cpu, eager: relative to base, "
        "the fastest is fast at 0.500× [0.496, 0.504], the slowest slow at 3.00× [2.98, 3.02]."
    )


def test_without_a_baseline_it_gives_times() -> None:
    answer = section(run(record("slow", timed(6e-3)), record("fast", timed(1e-3)))).answer
    assert answer == (
        "Layer, forward, cold cache, 1 thread, cpu, eager: the fastest is fast at 1.000 ms [0.995, 1.005] ms, "
        "the slowest slow at 6.00 ms [5.97, 6.03] ms."
    )


def test_says_when_the_order_is_not_certain() -> None:
    answer = section(run(record("a", timed(1e-3, spread=0.02)), record("b", timed(1.01e-3, spread=0.02)))).answer
    assert answer.endswith("but their intervals overlap.")


def test_says_when_a_time_is_in_doubt() -> None:
    noisy = Measured(timings=(timing(1e-3),), flags=("imprecise", "noisy"))
    answer = section(run(record("a", noisy), record("b", timed(3e-3)))).answer
    assert "the fastest is a at 1.000 ms [0.995, 1.005] ms (noisy), the slowest b at" in answer


def test_prefers_the_forward_pass_and_the_first_policy() -> None:
    passes: tuple[tuple[Pass, float], ...] = (("training", 7.0), ("forward", 2.0))
    records = [
        record(name, timed(seconds, COLD, HOT), pass_=pass_)
        for pass_, scale in passes
        for name, seconds in (("base", 1e-3), ("other", scale * 1e-3))
    ]
    answer = section(run(*records, baseline="base")).answer
    assert (
        answer == "Layer, forward, cold cache, 1 thread, cpu, eager: relative to base, other is at 2.00× [1.99, 2.01]."
    )


def test_of_one_operator_in_a_scan_it_gives_the_range() -> None:
    records = [record("a", timed(k * 1e-3), set_params={"kernel_size": k}) for k in (3, 5, 7)]
    assert section(run(*records)).answer.endswith(
        "a is at 3.00 ms [2.99, 3.01] ms (kernel_size=3) to 7.00 ms [6.97, 7.03] ms (kernel_size=7)."
    )


def test_says_at_which_shape() -> None:
    assert "(1x64x14x14)" in section(scan()).answer


def test_without_times_it_speaks_of_memory_or_of_macs() -> None:
    small, large = Measured(memory=memory(1)), Measured(memory=memory(9))
    assert section(run(record("a", small), record("b", large))).answer == (
        "Layer, forward: the least forward memory is a at 1.00 MiB, the most b at 9.00 MiB."
    )
    counted = run(
        record("a", counts=counts(10)), record("b", counts=counts(90)), record("c", counts=counts(5, unknown=("x",)))
    )
    assert section(counted).answer == "Layer, forward: the fewest dense MACs is a at 10, the most b at 90."


def test_says_what_could_not_be_measured_and_what_is_missing() -> None:
    ended = [
        record("a", Skipped(reason="x")),
        record("b", Skipped(reason="x")),
        record("c", Failed(reason="x", status="out_of_memory")),
    ]
    plan = [*((each.case, "reference") for each in ended), (Case(operator="d", shape=SHAPE), "reference")]
    made = section(run(*ended, plan=plan))
    assert made.answer == "Nothing was measured; 2 skipped, 1 out of memory of 3 records; 1 more missing."
    assert made.alerts == ("1 of 4 records is missing: run opbench run --resume runs/made-up",)


def test_a_baseline_that_no_other_beats_is_not_passed_over() -> None:
    def said(**milliseconds: float) -> str:
        records = [record(name, timed(time * 1e-3)) for name, time in milliseconds.items()]
        return section(run(*records, baseline="base")).answer.partition("relative to ")[2]

    slower = "base, the fastest other is a at 2.00× [1.99, 2.01], the slowest b at 3.00× [2.98, 3.02]."
    faster = "base, the fastest is b at 0.250× [0.248, 0.252], the slowest other a at 0.500× [0.496, 0.504]."
    between = "base, the fastest is a at 0.500× [0.496, 0.504], the slowest b at 3.00× [2.98, 3.02]."
    assert said(base=1, a=2, b=3) == slower
    assert said(base=4, a=2, b=1) == faster
    assert said(base=1, a=0.5, b=3) == between


def test_a_single_count_says_what_it_counts() -> None:
    known = record("a", Measured(), counts=counts(100))
    at_least = record("b", Measured(), counts=counts(200, unknown=("aten::mystery",)))
    assert section(run(known, at_least)).answer == "Layer, forward: a is at 100 dense MACs."
    one = record("a", Measured(memory=memory(3)))
    assert section(run(one)).answer == "Layer, forward: a is at 3.00 MiB of forward memory."


def test_warns_of_torn_lines_and_of_flags_before_the_first_number() -> None:
    noisy = [record(name, Measured(timings=(timing(1e-3),), flags=("noisy",))) for name in "ab"]
    made = section(run(*noisy, warnings=("records.jsonl: the last line is torn",)))
    assert made.alerts == ("records.jsonl: the last line is torn", "2 of 2 records are flagged noisy")


def test_a_baseline_is_sought_in_each_run_for_itself() -> None:
    first = run(record("base", timed(1e-3)), title="first", directory="one")
    second = run(record("other", timed(2e-3)), title="second", directory="two")
    view = report.view([first, second], report.Options(baseline="base"))
    assert [section.title for section in view.sections] == ["first (one)", "second (two)"]
    assert [row.no_ratio for row in view.sections[1].rows] == ["base has no record in this setting"]
    assert view.command == "opbench report one two --baseline base"


def test_the_command_repeats_what_was_asked() -> None:
    options = report.Options(group_by=("shape", "pass"), sort_by="latency", baseline="a")
    view = report.view([run(record("a", timed(1e-3)), directory="runs/my run")], options)
    assert view.command == "opbench report 'runs/my run' --group-by shape,pass --sort-by latency --baseline a"
