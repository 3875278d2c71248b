"""Made-up operators, so that the facts about suites do not depend on those that are shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from opbench.cases import Case
from opbench.errors import PluginError, SuiteError
from opbench.inspection import Description, ImplementationInfo
from opbench.params import param, specs
from opbench.registry import Plugin, Registry
from opbench.suite import Suite, load


@dataclass(frozen=True)
class Blur:
    kernel_size: int = param(3, help="taps per side", at_least=1, odd=True)
    sigma: float = param(1.0, help="width of the bell", at_least=0)


@dataclass(frozen=True)
class Shift:
    kernel_size: int = param(4, help="farthest pixel", at_least=1)
    step: int = param(1, help="pixels to go", at_least=0)
    edge: Literal["wrap", "drop"] = param("drop", help="what happens to pixels that leave")


@dataclass(frozen=True)
class Nothing:
    pass


REFERENCE = ImplementationInfo(name="reference")
COMPILE = ImplementationInfo(name="compile")
NATIVE = ImplementationInfo(name="native", dtypes=("float32", "float64"))
CUDA = ImplementationInfo(name="cuda", devices=("cuda",))

DESCRIPTIONS = {
    "blur": Description(params=tuple(specs(Blur)), implementations=(REFERENCE, NATIVE, CUDA, COMPILE)),
    "identity": Description(params=tuple(specs(Nothing)), implementations=(REFERENCE, COMPILE)),
    "shift": Description(params=tuple(specs(Shift)), implementations=(REFERENCE, CUDA, COMPILE)),
}


class FakeInspector:
    """'broken' cannot be imported; 'shift' refuses a step beyond its kernel."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def describe(self, operator: str) -> Description:
        if operator == "broken":
            raise PluginError("broken/plugin.py: SyntaxError")
        return DESCRIPTIONS[operator]

    def refusals(self, cases: Sequence[Case]) -> Mapping[str, str]:
        assert all(case.operator != "broken" for case in cases)
        return {
            case.id: f"step must not exceed kernel_size, got {step}"
            for case in cases
            if case.operator == "shift"
            and (step := int(str(case.params.get("step", 1)))) > int(str(case.params.get("kernel_size", 4)))
        }


@dataclass(frozen=True)
class Bench:
    """Loads suites from text, in a folder of its own."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "suite.yaml"

    def load(self, text: str | bytes, *overrides: str) -> Suite:
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(self.file, overrides=overrides, discover=self.discover, inspect=FakeInspector)

    def cases(self, cases: str, *overrides: str) -> Suite:
        """Load a suite of the given entries, which begin on line 5."""
        return self.load(HEAD + cases, *overrides)

    def faults(self, text: str | bytes, *overrides: str) -> list[str]:
        """Return the faults of a suite without the folder's name."""
        with pytest.raises(SuiteError) as caught:
            self.load(text, *overrides)
        return str(caught.value).replace(f"{self.folder}/", "").split("\n")

    def case_faults(self, cases: str, *overrides: str) -> list[str]:
        return self.faults(HEAD + cases, *overrides)

    @staticmethod
    def discover(paths: Sequence[Path]) -> Registry:
        Registry.discover(paths)
        names = sorted([*DESCRIPTIONS, "broken"])
        return Registry({name: Plugin(name, Path(name), f"fake.{name}") for name in names})


HEAD = "version: 1\ntitle: a title\nquestion: what?\ncases:\n"


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("suites"))
