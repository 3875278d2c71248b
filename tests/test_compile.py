"""`compile` is offered for every operator: torch.compile of the reference, held to the same gate."""

from __future__ import annotations

import shutil
import warnings

import pytest

from opbench import isolation, worker
from opbench.cases import Case, Nchw
from opbench.check import Comparison
from opbench.registry import Registry


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_reference_passes_the_gate_in_a_child() -> None:
    case = Case(operator="xvolution", shape=Nchw(2, 4, 5, 6), params={"heads": 2}, scope="layer", pass_="training")
    isolation.import_early()

    def checked() -> list[Comparison]:
        warnings.simplefilter("ignore")  # Those of the compiler, which a test would otherwise turn into errors.
        return worker.check(Registry.discover(), case, "compile")

    ending = isolation.run(checked, timeout_seconds=280)
    assert ending.kind == "returned", ending.reason
    assert [row.quantity for row in ending.value] == ["forward", "grad_q", "grad_k", "grad_v"]
    assert [row for row in ending.value if not row.passed] == []
