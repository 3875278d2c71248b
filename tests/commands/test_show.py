"""`opbench show` and `opbench env`."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

from opbench.environment import Environment

if TYPE_CHECKING:
    from tests.conftest import Workshop


def test_show_tells_what_a_suite_may_say(workshop: Workshop) -> None:
    text, data = workshop.start("show", "sasa"), workshop.start("show", "sasa", "--json")
    shown = json.loads(data.output)
    assert list(shown) == ["operator", "summary", "source", "folder", "parameters", "implementations"]
    assert list(shown["parameters"][0]) == ["name", "default", "legal", "help"]
    assert list(shown["implementations"][0]) == ["name", "dtypes", "devices", "summary"]
    by_name = {row["name"]: row for row in shown["parameters"]}
    assert (by_name["kernel_size"]["default"], by_name["kernel_size"]["legal"]) == (7, "odd integer ≥ 1")
    names = [row["name"] for row in shown["implementations"]]
    assert (names[0], "cuda" in names, names[-1]) == ("reference", True, "compile")
    assert "arXiv 1906.05909" in text.output
    assert "  border        zero  ('zero' or 'mask')\n" in text.output
    assert (text.status, data.status) == (0, 0)


def test_show_tells_where_the_slots_of_a_network_are(workshop: Workshop) -> None:
    text, data = workshop.start("show", "rednet-26"), workshop.start("show", "rednet-26", "--json")
    shown = json.loads(data.output)
    told = ["network", "summary", "source", "input", "operator", "params", "options", "count_only", "slots"]
    assert list(shown) == told
    assert list(shown["slots"][0]) == ["path", "input", "output", "params"]
    # One slot in the stem and one in each of 1 + 2 + 4 + 1 blocks; three stages begin with a stride.
    assert len(shown["slots"]) == 9
    assert [slot["params"].get("stride") for slot in shown["slots"]].count(2) == 3
    assert shown["slots"][0]["input"] == shown["slots"][0]["output"] == "1x32x112x112"
    assert "in its slots: involution (kernel_size = 7, group_channels = 16, reduction = 4)\n" in text.output
    assert re.search(
        r"^  stages\.3\.0\.spatial\.slot +1x512x14x14 -> 1x512x7x7 +stride = 2$", text.output, re.MULTILINE
    )
    assert (text.status, data.status) == (0, 0)


def test_networks_are_listed_with_their_operators(workshop: Workshop) -> None:
    text, data = workshop.start("networks"), workshop.start("networks", "--json")
    listed = json.loads(data.output)
    assert list(listed[0]) == ["network", "summary", "operator", "input", "source"]
    assert len(text.output.splitlines()) == len(listed) > 70
    assert re.search(r"^rednet-50 +involution +ResNet-50 with involutions$", text.output, re.MULTILINE)
    assert (text.status, data.status) == (0, 0)


def test_what_is_neither_operator_nor_network_is_one_line(workshop: Workshop) -> None:
    command = workshop.opbench("show", "rednet-500")
    said = "opbench: no operator or network 'rednet-500'; did you mean 'rednet-50'?\n"
    assert (command.status, command.output, command.errors) == (2, "", said)


def test_env_is_what_a_run_stores(workshop: Workshop) -> None:
    text, data = workshop.start("env"), workshop.start("env", "--json")
    assert list(json.loads(data.output)) == [item.name for item in dataclasses.fields(Environment)]
    assert re.search(r"^  torch: \d", text.output, re.MULTILINE)
    assert (text.status, data.status, data.errors) == (0, 0, "")
