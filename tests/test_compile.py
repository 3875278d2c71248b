"""`compile` is offered for every operator: torch.compile of the reference, checked and timed like any other."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Workshop


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_reference_is_checked_and_timed(workshop: Workshop) -> None:
    """In a process of its own, as ever: one that has computed on several threads cannot fork one that compiles."""
    workshop.plugin("scale")
    suite = workshop.suite(
        ["scale"], implementation=["reference", "compile"], measure={"timeout_seconds": 200}, **{"pass": "training"}
    )
    done = workshop.opbench("run", suite, "--out", "run")
    assert done.status == 0, done.errors
    lines = [json.loads(line) for line in (workshop.folder / "run" / "records.jsonl").read_text().splitlines()]
    assert [(line["implementation"], line["status"]) for line in lines] == [
        ("reference", "measured"),
        ("compile", "measured"),
    ]
