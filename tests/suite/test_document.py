"""What a file must be before it can be a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opbench.errors import SuiteError
from opbench.suite import load

if TYPE_CHECKING:
    from tests.suite.conftest import Bench


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "suite.yaml:1:1: a suite is a mapping of keys to values, as in 'version: 1'"),
        ("# nothing\n", "suite.yaml:1:1: a suite is a mapping of keys to values, as in 'version: 1'"),
        ("\n - 1", "suite.yaml:2:2: a suite is a mapping of keys to values, as in 'version: 1'"),
        (
            "cases: [1\n",
            "suite.yaml:2:1: not YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
        ),
        ("a: b: c", "suite.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("cases:\n\t- x", "suite.yaml:2:1: not YAML: indent and separate with spaces, not with tabs"),
        (
            "a: 1\n---\nb: 2",
            "suite.yaml:2:1: not YAML: expected a single document in the stream: but found another document",
        ),
        ("title: *gone", "suite.yaml:1:8: not YAML: found undefined alias 'gone'"),
        ("title: a\0b", "suite.yaml:1:9: the character '\\x00' is not allowed in YAML"),
        (b"version: 1\ntitle: caf\xe9", "suite.yaml:2:11: not UTF-8: byte 0xe9"),
        ("a: " + 100 * "[" + 100 * "]", "suite.yaml:1:23: more than 20 levels of nesting"),
        ("#" * 300_000, "suite.yaml: larger than 256 KiB; a suite spans cases with lists"),
    ],
)
def test_what_is_no_yaml_mapping_is_one_fault(bench: Bench, text: str | bytes, fault: str) -> None:
    assert bench.faults(text) == [fault]


def test_a_billion_laughs_are_refused_before_they_are_written_out(bench: Bench) -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (fault,) = bench.faults("\n".join(lines))
    assert fault.endswith("its aliases write out to more than 100000 values")


def test_a_file_must_be_there_and_be_a_file(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "gone.yaml", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(SuiteError) as caught:
            load(path, inspect=lambda registry: pytest.fail("nothing to inspect"))
        assert str(caught.value) == f"{path}: {what}"


def test_a_byte_order_mark_is_no_part_of_the_text(bench: Bench) -> None:
    text = b"\xef\xbb\xbfversion: 1\ntitle: t\nquestion: q\ncases: [{operator: blur, shape: 1x1x1x1}]"
    assert bench.load(text).title == "t"


def test_keys_tags_and_aliases_that_cannot_be_meant(bench: Bench) -> None:
    text = """\
version: 1
title: a title
question: what?
title: another
<<: {report: {}}
1: one
? [a]
: two
cases: &loop
  - operator: blur
    shape: !size 1x4x8x8
    dtype: !!int half
    include: *loop
"""
    assert bench.faults(text) == [
        "suite.yaml:4:1: duplicate key 'title', first at suite.yaml:2:1",
        "suite.yaml:5:1: merge keys are not part of YAML 1.2; write shared keys under 'defaults'",
        "suite.yaml:6:1: a key must be text, got 1",
        "suite.yaml:7:3: a key must be text",
        "suite.yaml:9:8: cases[0].include: an alias cannot stand inside the value it repeats",
        "suite.yaml:11:12: cases[0].shape: unknown tag '!size'; write plain values",
        "suite.yaml:12:12: cases[0].dtype: 'half' is not an integer",
    ]


def test_an_alias_repeats_a_value(bench: Bench) -> None:
    suite = bench.cases("  - {operator: blur, shape: &s [1x1x2x2, 1x1x3x3]}\n  - {operator: shift, shape: *s}\n")
    assert [str(row.case.shape) for row in suite.plan if row.implementation == "reference"] == [
        "1x1x2x2",
        "1x1x3x3",
    ] * 2


def test_a_fault_in_an_aliased_value_is_told_once_for_each_path_to_it(bench: Bench) -> None:
    assert bench.case_faults("  - {operator: blur, shape: &s 1x1}\n  - {operator: shift, shape: *s}\n") == [
        f"suite.yaml:5:29: cases[{index}].shape: '1x1' is not a shape; "
        "write batch x channels x height x width, as in 32x64x56x56"
        for index in range(2)
    ]


def test_a_number_too_long_to_be_meant(bench: Bench) -> None:
    assert bench.case_faults(f"  - {{operator: blur, shape: 1x4x8x8, params: {{sigma: {'9' * 5000}}}}}\n") == [
        "suite.yaml:5:54: cases[0].params.sigma: a number of 5000 characters is too long; write at most 40"
    ]
