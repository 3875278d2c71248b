"""`opbench count`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

if TYPE_CHECKING:
    from tests.conftest import Command, Workshop


def test_count_documents_its_json(workshop: Workshop) -> None:
    told = workshop.start("count", "--help")
    command = workshop.opbench("count", "convolution", "--input", "1x2x5x5", "--set", "bias=true", "--json")
    assert (command.status, command.errors) == (0, "")
    counted = json.loads(command.output)
    words = set(re.findall(r"`([a-z_]+)`", " ".join(told.output.split())))
    row, counters = counted["layer"]["forward"], counted["layer"]["forward"]["counters"]
    assert words == {*counted, *counted["layer"], *row, *counters[0], "network", "conventions"}

    assert (counted["operator"], counted["input"], counted["params"]) == ("convolution", "1x2x5x5", {"bias": True})
    assert (counted["parameters"], counted["macs_dense"]) == (2 * 2 * 9 + 2, 2 * 2 * 9 * 25)
    # Of the 75 rows that the taps see, 2 lie above or below the image, and so of the columns.
    assert counted["macs_in_bounds"] == 2 * 2 * 13 * 13
    assert counted["bytes"] == 4 * (50 + 38 + 50)
    assert counted["layer"]["training"]["macs_dense"] == 3 * 2 * 2 * 9 * 25
    assert counted["core"]["forward"]["parameters"] is None
    assert [(item["source"], item["macs"]) for item in counters] == [
        ("formula", 900),
        ("torch", 900),
        ("fvcore", 900),
    ]
    assert (row["agreement"], row["at_least"]) == ("agree", False)


def test_count_documents_the_json_of_a_network(workshop: Workshop) -> None:
    told = workshop.start("count", "--help")
    command = workshop.opbench("count", "rednet-26", "--input", "2x3x64x64", "--json")
    assert (command.status, command.errors) == (0, "")
    counted = json.loads(command.output)
    words = set(re.findall(r"`([a-z_]+)`", " ".join(told.output.split())))
    row, counters = counted["forward"], counted["forward"]["counters"]
    assert words == {*counted, *row, *counters[0], "core", "layer"}
    assert (counted["network"], counted["operator"], counted["parameters"]) == ("rednet-26", "involution", 9233886)
    assert counted["conventions"]["MACs"] == counted["macs_dense"] == row["macs_dense"]


def test_another_operator_is_counted_in_the_slots_of_a_network(workshop: Workshop) -> None:
    arguments: list[str | Path] = ["--operator", "box_blur", "--operators", EXAMPLES, "--input", "1x3x64x64", "--json"]
    command = workshop.opbench("count", "resnet-26", *arguments)
    # Without a formula, its core is looked into by torch's counter alone, and no paper's rule can be applied.
    assert command.status == 0
    counted = json.loads(command.output)
    assert counted["macs_dense"] > 0
    assert counted["conventions"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rednet-5"], "no operator or network 'rednet-5'; did you mean 'rednet-50'?"),
        (["involution"], "an operator has no input of its own; give one, as in involution --input 32x64x56x56"),
        (["involution", "--operator", "sasa"], "--operator is for networks, and involution is an operator"),
        (["resnet-50", "--operator", "invol"], "no operator 'invol'; did you mean 'involution'?"),
        (
            ["resnet-18", "--operator", "involution"],
            "resnet-18:involution cannot be counted at 1x3x224x224: "
            "involution keeps the number of channels, and a slot makes 64 channels into 128",
        ),
        (
            ["resnet-50", "--set", "stride=2"],
            "resnet-50:convolution cannot be counted at 1x3x224x224: the slots of a network decide stride",
        ),
    ],
)
def test_what_no_network_or_slot_takes_is_one_line(arguments: list[str], said: str, workshop: Workshop) -> None:
    command = workshop.opbench("count", *arguments)
    assert (command.status, command.output, command.errors) == (2, "", f"opbench: {said}\n")


def test_count_prints_macs_and_twice_as_many_flops(workshop: Workshop) -> None:
    command = workshop.opbench("count", "convolution", "--input", "2x64x56x56")
    row = next(line.split() for line in command.output.splitlines() if line.startswith("  layer forward"))
    assert row[2:] == ["36", "864", "231", "M", "226", "M", "462", "M", "3.20", "MiB"]
    assert "layer forward: formula 231 211 008, torch 231 211 008, fvcore 231 211 008: agree\n" in command.output
    assert command.errors == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "2x15x8x8"], "15 output channels are not 8 heads of an even width"),
        (["--input", "1x1x1x1"], "1 output channels are not 8 heads of an even width"),
        (
            ["--input", "2x16x8x8", "--set", "kernal_size=3"],
            "unknown parameter 'kernal_size'; did you mean 'kernel_size'?",
        ),
        (["--input", "2x16x8x8", "--set", "kernel_size=4"], "kernel_size must be odd integer ≥ 1, got 4"),
        (["--input", "2x16x8x8", "--set", "kernel_size=.nan"], "kernel_size must be odd integer ≥ 1, got nan"),
        (["--input", "2x16x8x8", "--set", "border=mirror"], "border must be 'zero' or 'mask', got 'mirror'"),
        (["--input", "2x16x8x8", "--set", "\x1b[31m=3"], "unknown parameter '\\x1b[31m'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value[1:2] + value[3:]),
)
def test_what_cannot_be_counted_is_one_line(arguments: list[str], said: str, workshop: Workshop) -> None:
    command = workshop.opbench("count", "sasa", *arguments)
    assert (command.status, command.output) == (2, "")
    assert command.errors.startswith(f"opbench: sasa cannot be counted at {arguments[1]}: {said}")
    assert command.errors.count("\n") == 1


def test_awkward_shapes_that_have_a_cost_are_counted(workshop: Workshop) -> None:
    one, none, small = (
        workshop.start("count", "convolution", "--input", "1x1x1x1", "--json"),
        workshop.start("count", "sasa", "--input", "0x16x8x8", "--json"),
        workshop.start("count", "large_kernel_depthwise", "--input", "1x3x1x2", "--json"),
    )
    pixel = json.loads(one.output)
    assert (pixel["macs_dense"], pixel["macs_in_bounds"], pixel["layer"]["forward"]["agreement"]) == (9, 1, "agree")
    empty = json.loads(none.output)
    assert (empty["macs_dense"], empty["layer"]["training"]["macs_dense"]) == (0, 0)
    assert json.loads(small.output)["layer"]["forward"]["agreement"] == "agree"
    assert [one.status, none.status, small.status] == [0, 0, 0]


def count(workshop: Workshop, changes: str, *options: str) -> Command:
    workshop.plugin("mine", changes)
    return workshop.opbench("count", "mine", "--input", "1x4x5x6", "--operators", "ops", *options)


def test_a_scope_that_does_not_exist_is_named_and_the_other_counted(workshop: Workshop) -> None:
    command = count(workshop, "parts['layer'] = None", "--json")
    assert (command.status, command.errors) == (0, "opbench: layer not counted: mine has no layer, only a core\n")
    counted = json.loads(command.output)
    assert counted["layer"] == {"forward": None, "training": None}
    assert counted["macs_dense"] == counted["core"]["forward"]["macs_dense"] == 120
    assert counted["parameters"] is None


def test_a_scope_that_breaks_is_status_5_and_the_other_counted(workshop: Workshop) -> None:
    command = count(workshop, "def broken(*_):\n    os.kill(os.getpid(), signal.SIGSEGV)\nparts['layer'] = broken")
    assert command.status == 5
    assert re.fullmatch(r"opbench: layer not counted: .*SIGSEGV.*\n", command.errors)
    assert "core forward: formula 120" in command.output


@pytest.mark.parametrize("verb", [["count", "--input", "1x4x5x6"], ["show"]], ids=["count", "show"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("raise RuntimeError('no\\nluck')", r"ops/mine/plugin\.py: RuntimeError: no"),
        ("sys.exit(0)", "SystemExit"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("parts['params'] = 3", "params must be a dataclass"),
    ],
    ids=["raises", "exits", "crashes", "is wrong"],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(
    verb: list[str], changes: str, said: str, workshop: Workshop
) -> None:
    workshop.plugin("mine", changes)
    command = workshop.opbench(*verb, "mine", "--operators", "ops")
    assert (command.status, command.output) == (2, "")
    assert re.fullmatch(rf"opbench: .*{said}.*\n", command.errors)


def test_what_a_plugin_prints_does_not_spoil_the_json(workshop: Workshop) -> None:
    noisy = "print('hello')\nos.system('echo from a child')"
    assert json.loads(count(workshop, noisy, "--json").output)["macs_dense"] == 120
    assert json.loads(workshop.opbench("show", "mine", "--operators", "ops", "--json").output)["operator"] == "mine"
    verified = workshop.opbench("verify", "mine", "--operators", "ops", "--dtype", "float64", "--json")
    assert {row["status"] for row in json.loads(verified.output)} == {"pass"}
