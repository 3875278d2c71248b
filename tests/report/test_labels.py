"""Several runs in one report: what they are called, what tells them apart, and which are the same run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench import report, store
from opbench.errors import RunError
from opbench.settings import Measure
from opbench.store import Run
from tests.report.made_up import (
    ENVIRONMENT,
    GPU_ENVIRONMENT,
    ON_GPU,
    OTHER_ENVIRONMENT,
    machines,
    record,
    run,
)
from tests.report.test_markdown import parse
from tests.report.test_side_by_side import LATER, beside, comparison, timed
from tests.report.test_terminal import shown


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, ("2031-02-03", "2031-02-04")),
        ({"captured": "2031-02-03T09:00:00+00:00"}, ("2031-02-03 04:05", "2031-02-03 09:00")),
        ({"host": "b"}, ("nowhere", "b")),
        ({"commit": "ffffffff1234+", "host": "b"}, ("commit 0123456", "commit fffffff+")),
        ({"versions": {"torch": "3.0"}, "commit": None}, ("torch 2.13.0", "torch 3.0")),
        ({"versions": {"torch": "2.13.0", "opbench": "0.2"}}, ("opbench 0.1.0", "opbench 0.2")),
        ({"usable_cores": 2, "versions": {}}, ("8 cores", "2 cores")),
        ({"processor": "Other", "usable_cores": 2}, ("Imaginary Processor 9000", "Other")),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(changes: dict[str, Any], labels: tuple[str, str]) -> None:
    made = comparison(run(timed("a", 1e-3)), beside(timed("a", 1e-3), environment=replace(LATER, **changes)))
    assert made.labels == labels


def test_overrides_tell_runs_apart_and_two_facts_where_one_does_not() -> None:
    def with_overrides(*overrides: str, processor: str = "P") -> Run:
        made = run(timed("a", 1e-3), environment=replace(ENVIRONMENT, processor=processor), directory=str(overrides))
        return replace(made, header=replace(made.header, overrides=overrides))

    assert comparison(with_overrides(), with_overrides("seed=1")).labels == ("no overrides", "seed=1")
    three = comparison(with_overrides(), with_overrides("seed=1"), with_overrides("seed=1", processor="Q"))
    assert three.labels == ("P, no overrides", "P, seed=1", "Q, seed=1")


def test_directories_and_at_last_numbers_tell_equal_runs_apart() -> None:
    first, second = run(timed("a", 1e-3), directory="x"), run(timed("a", 2e-3), directory="y")
    assert comparison(first, second).labels == ("x", "y")
    assert comparison(first, replace(second, directory=Path("x"))).labels == ("run 1", "run 2")


def test_the_title_says_that_machines_or_devices_are_compared() -> None:
    here, there = machines()
    assert comparison(here, there).title == "Two machines side by side"
    on_gpu = beside(timed("a", 1e-3, ON_GPU), environment=GPU_ENVIRONMENT, measure=Measure(device="cuda"))
    devices = comparison(run(timed("a", 1e-3)), on_gpu)
    assert devices.title == "Two devices side by side"
    assert devices.labels == ("Imaginary Processor 9000", "Imaginary Graphics 9000")
    assert comparison(run(timed("a", 1e-3)), beside(timed("a", 1e-3))).title == "Two runs side by side"


def test_all_differences_are_told_and_nothing_else() -> None:
    first, second = (
        run(timed("a", 1e-3)),
        beside(
            timed("a", 1e-3),
            environment=replace(OTHER_ENVIRONMENT, settings={"oneDNN": "False"}, driver="1.2"),
            measure=Measure(precision=0.05, processes=5, threads=(1, 2), seed=7),
        ),
    )
    differ, one, other, *_ = comparison(first, second).runs.lines
    assert differ == (
        "They differ in: GPU, processor, host, versions, commit, settings, variables, measure settings, date. "
        "A ratio tells of all of these at once."
    )
    assert one == (
        "Imaginary Processor 9000 (the one divided by): no driver; Imaginary Processor 9000, AVX512; "
        "cores 4 physical, 8 usable; host nowhere; torch 2.13.0; commit 0123456789ab; oneDNN True; OMP_NUM_THREADS 1; "
        "processes 3; precision 0.01; threads 1; seed 0; taken 2031-02-03T04:05:06+00:00; runs/made-up"
    )
    assert "torch 2.14.0; commit fedcba987654+; oneDNN False; no OMP_NUM_THREADS; processes 5; precision 0.05" in other


def test_the_clock_of_the_moment_is_no_difference() -> None:
    gpu = GPU_ENVIRONMENT.gpus[0]
    moved = replace(GPU_ENVIRONMENT, gpus=(replace(gpu, sm_clock_mhz=1200),), captured=LATER.captured, load=3.0)
    made = comparison(run(timed("a", 1e-3), environment=GPU_ENVIRONMENT), beside(timed("a", 1e-3), environment=moved))
    assert made.runs.lines[0] == "They differ in: date. A ratio tells of all of these at once."


def test_what_only_one_run_has_is_counted_and_named() -> None:
    first = [timed(name, 1e-3) for name in ("both", "a", "b", "c", "d", "e", "f", "g")]
    made = comparison(run(*first), beside(timed("both", 1e-3), timed("h", 1e-3, implementation="cuda")))
    assert "7 records only in 2031-02-03: a, b, c, d, e and 2 more." in made.runs.lines
    assert "1 record only in 2031-02-04: h/cuda." in made.runs.lines


def test_an_unfinished_run_is_told_before_the_first_number() -> None:
    done, missing = timed("a", 1e-3), timed("b", 1e-3)
    unfinished = beside(done, plan=[(each.case, each.implementation) for each in (done, missing)])
    assert comparison(run(done, missing), unfinished).alerts == (
        "2031-02-04 is not finished: 1 of 2 records is missing",
    )


def test_the_same_run_twice_is_reported_once() -> None:
    made = run(timed("a", 1e-3), timed("b", 1e-3), directory="x")
    view = report.view([made, made])
    assert view.comparison is None
    assert len(view.sections) == 1
    assert view.remarks == ("x: the same run twice, reported once; a run is not compared with itself.",)


def test_a_copy_of_a_run_from_before_it_was_resumed_is_the_same_run() -> None:
    whole = run(timed("a", 1e-3), timed("b", 1e-3), directory="x")
    copy = replace(whole, directory=Path("y"), records=whole.records[:1])
    view = report.view([copy, whole])
    assert view.remarks == ("x and y: the same run twice, reported once; a run is not compared with itself.",)
    assert [len(section.run.records) for section in view.sections] == [2]
    other = replace(copy, records=(timed("a", 2e-3),))
    assert report.view([other, whole]).comparison is not None


def test_the_terminal_says_what_the_labels_stand_for() -> None:
    assert "The runs\n- They differ in: " in shown(report.view(machines()), 120)


HOSTILE = st.one_of(
    st.sampled_from(["[bold red]x[/]", "a|b", "<script>", "\x1b[31m", "`", "**b**", "x\ny", "", "\x00", "שלום"]),
    st.text(alphabet="|`*_[]()<>!#&;\\~$-+=.:1 a\n\t\x00\x1b/", max_size=20),
)


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_hostile_labels_are_inert(host: str, processor: str, name: str) -> None:
    environment = replace(LATER, host=host, processor=processor, versions={name: host}, variables={host: name})
    view = report.view(
        [run(timed(name, 1e-3)), beside(timed(name, 2e-3), record(host), environment=environment, title=name)]
    )
    tokens = parse(report.markdown(view))
    children = {child.type for token in tokens for child in token.children or []}
    assert children <= {"text", "strong_open", "strong_close", "code_inline"}
    assert not {"html_block", "fence", "code_block", "hr", "image", "lheading_open"} & {token.type for token in tokens}
    assert view.comparison is not None
    assert all(view.comparison.labels)
    screen = shown(view, 400, everything=True)
    assert not any(ord(character) < 32 and character != "\n" for character in screen)


def test_a_run_of_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("old", "new"):
        made = run(timed("a", 1e-3))
        store.create(tmp_path / name, made.header, made.records)
    header = tmp_path / "new" / store.HEADER_FILE
    header.write_text(json.dumps({**json.loads(header.read_text()), "schema": 99}))
    with pytest.raises(RunError, match=r"new/run\.json: schema 99, but this opbench reads schema 1"):
        [store.read(tmp_path / name) for name in ("old", "new")]
