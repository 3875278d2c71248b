"""The ten-line operator of CONTRIBUTING.md, outside the repository, beside shipped ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opbench.results import Measured, Record

if TYPE_CHECKING:
    from tests.conftest import Workshop


ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "box_blur"

WEIGHTED = '''"""Sum of each pixel's 3x3 neighbourhood, weighted by closeness to its middle."""

from opbench.api import Operator, Window, windows


def weighted_blur(p, x):
    weights = x.new_tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]])[:, :, None, None]
    return (windows(x, Window.half(3), Window.half(3)) * weights).sum((2, 3))


OPERATOR = Operator(reference=weighted_blur)
'''

SUITE = """
version: 1
title: Mine beside others
question: Is mine cheaper?
cases:
  - operator: [box_blur, weighted_blur, convolution, involution]
    shape: 1x16x5x6
    implementation: reference
measure: {processes: 1, max_seconds: 0.02, cache: hot, allow_noisy: true}
"""


@pytest.fixture
def elsewhere(workshop: Workshop) -> Workshop:
    """A folder outside the repository with the example, and with an operator that no counter can count."""
    shutil.copytree(EXAMPLE, workshop.folder / "my_operators" / "box_blur")
    workshop.file("my_operators/weighted_blur/plugin.py", WEIGHTED)
    return workshop


def test_the_guide_shows_the_example_as_it_is_and_it_is_ten_lines() -> None:
    code = (EXAMPLE / "plugin.py").read_text()
    assert f"```python\n{code}```" in (ROOT / "CONTRIBUTING.md").read_text()
    assert sum(1 for line in code.splitlines() if line) == 10


@pytest.mark.parametrize("named_by", ["suite", "option"])
def test_it_is_measured_in_one_table_with_shipped_operators(elsewhere: Workshop, named_by: str) -> None:
    suite = elsewhere.file("suite.yaml", SUITE + ("operators: [my_operators]\n" if named_by == "suite" else ""))
    option = [] if named_by == "suite" else ["--operators", "my_operators/box_blur", "--operators", "my_operators"]
    run = elsewhere.opbench("run", suite, *option, "--out", "out", "--quiet")
    assert run.status == 0, run.errors

    lines = (elsewhere.folder / "out" / "records.jsonl").read_text().splitlines()
    records = {record.name: record for record in map(Record.from_json, lines)}
    assert list(records) == ["box_blur", "weighted_blur", "convolution", "involution"]
    assert {name for name, record in records.items() if isinstance(record.outcome, Measured)} == set(records)
    assert dict(records["box_blur"].params) == {"radius": 1}

    titles = re.findall("^layer, forward, .*", run.output, re.MULTILINE)
    (table,) = (block for block in run.output.split("\n\n") if "─" in block)
    assert len(titles) == 1
    rows = {line.split()[0]: line for line in table.splitlines() if line.split()[0] in records}
    assert list(rows) == list(records)
    assert "≥" in rows["weighted_blur"]
    assert "≥" not in rows["convolution"]
    assert "at least, because no counter knows aten::mul" in (elsewhere.folder / "out" / "report.md").read_text()


def test_every_verb_takes_it(elsewhere: Workshop) -> None:
    where = ("--operators", "my_operators")
    listed = elsewhere.start("list", *where)
    shown = elsewhere.start("show", "box_blur", *where, "--json")
    verified = elsewhere.start("verify", "box_blur", "weighted_blur", *where)

    assert "box_blur                Mean of each pixel's square neighbourhood, per channel.\n" in listed.output
    assert "involution " in listed.output
    parameters = json.loads(shown.output)["parameters"]
    assert parameters == [{"name": "radius", "default": 1, "legal": "integer", "help": ""}]
    assert [line.split(":")[0:2] for line in verified.output.splitlines()] == [
        [f"{name} reference {dtype}", " pass"]
        for name in ("box_blur", "weighted_blur")
        for dtype in ("float64", "float32", "float16", "bfloat16")
    ]
    assert (listed.status, shown.status, verified.status) == (0, 0, 0)


def test_pooling_multiplies_nothing_and_products_are_at_least_nothing(elsewhere: Workshop) -> None:
    def counted(name: str) -> Any:
        command = elsewhere.opbench("count", name, "--input", "1x16x9x7", "--operators", "my_operators", "--json")
        assert command.status == 0, command.errors
        return json.loads(command.output)

    blur, weighted = counted("box_blur"), counted("weighted_blur")
    for scope in ("core", "layer"):
        for pass_ in ("forward", "training"):
            assert (blur[scope][pass_]["macs_dense"], blur[scope][pass_]["at_least"]) == (0, False)
            assert (weighted[scope][pass_]["macs_dense"], weighted[scope][pass_]["at_least"]) == (0, True)
            by_torch = next(row for row in weighted[scope][pass_]["counters"] if row["source"] == "torch")
            assert by_torch["unknown"] == ["aten::mul"]
    assert blur["parameters"] == 0
    assert blur["bytes"] == 2 * 4 * 16 * 9 * 7


def test_two_operators_of_one_name_are_refused_with_both_folders(elsewhere: Workshop) -> None:
    elsewhere.file("my_operators/involution/plugin.py", WEIGHTED)
    listed = elsewhere.opbench("list", "--operators", "my_operators")
    assert listed.status == 2
    assert listed.errors.startswith("opbench: two operators are called 'involution': ")
    assert str(ROOT / "operators" / "involution") in listed.errors
    assert str(elsewhere.folder / "my_operators" / "involution") in listed.errors
