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


def test_env_is_what_a_run_stores(workshop: Workshop) -> None:
    text, data = workshop.start("env"), workshop.start("env", "--json")
    assert list(json.loads(data.output)) == [item.name for item in dataclasses.fields(Environment)]
    assert re.search(r"^  torch: \d", text.output, re.MULTILINE)
    assert (text.status, data.status, data.errors) == (0, 0, "")
