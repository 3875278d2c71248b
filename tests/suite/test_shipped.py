"""The suites that are shipped: valid, described for editors, and readable without torch."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from opbench.cases import Case, Nchw
from opbench.errors import Unsupported
from opbench.inspection import Description, describe_operator
from opbench.registry import Registry
from opbench.suite import Suite, load, schema
from opbench.suite.document import read

SUITES = Path(__file__).parents[2] / "suites"
NAMES = ["channels", "equal_shape", "kernel_size", "kernels", "published", "published_layers", "quickstart"]
NAMES += ["resnet50_slot", "resnet50_slot_small", "resolution"]
OPERATORS = [
    "convolution",
    "drconv",
    "dynamic_convolution",
    "involution",
    "large_kernel_depthwise",
    "ls_convolution",
    "sasa",
    "xvolution",
]


class InProcess:
    """Imports the operators here."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def describe(self, operator: str) -> Description:
        return describe_operator(self.registry.load(operator))

    def refusals(self, cases: Sequence[Case]) -> Mapping[str, str]:
        from opbench.subject import Subject

        found = {}
        for case in cases:
            try:
                Subject.load(self.registry, case).refuse()
            except (ValueError, Unsupported) as error:
                found[case.id] = str(error)
        return found


@functools.cache
def suite(name: str) -> Suite:
    return load(SUITES / f"{name}.yaml", inspect=InProcess)


def test_these_are_all() -> None:
    assert sorted(path.stem for path in SUITES.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_suite_is_valid_and_refuses_nothing(name: str) -> None:
    loaded = suite(name)
    assert loaded.plan
    assert loaded.refused == ()
    assert sorted({row.case.operator for row in loaded.plan}) == OPERATORS


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_suite_says_first_what_it_asks_and_how_long_it_takes(name: str) -> None:
    loaded = suite(name)
    question, *rest, editor = loaded.text.partition("version:")[0].strip().split("\n")
    assert question.startswith("# ")
    assert question.endswith("?")
    assert "Takes" in " ".join(rest)
    assert editor == "# yaml-language-server: $schema=suite.schema.json"
    assert loaded.question.endswith("?")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_suite_obeys_the_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator(schema()).validate(read(SUITES / f"{name}.yaml").root)


def test_the_json_schema_is_one_and_not_stale() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads((SUITES / "suite.schema.json").read_text(encoding="utf-8")) == schema()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("titel",), "x"),
        (("cases",), []),
        (("cases", 0, "shape"), "1x64x56"),
        (("cases", 0, "dtype"), "half"),
        (("cases", 0, "pass"), []),
        (("measure", "threads"), 0),
        (("report", "sort_by"), ["name", "latency"]),
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(path: tuple[str | int, ...], value: Any) -> None:
    data = read(SUITES / "quickstart.yaml").root
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not jsonschema.Draft202012Validator(schema()).is_valid(data)


def test_every_key_has_words_for_an_editor() -> None:
    models = schema()["$defs"]
    keys = [key for model in [schema(), *models.values()] for key in model["properties"].values()]
    assert len(keys) > 40
    # What only points to a model is described there.
    assert all({**models.get(key.get("$ref", "").rpartition("/")[2], {}), **key}.get("description") for key in keys)


def test_the_published_layers_are_those_of_the_networks() -> None:
    """A layer of most operators, from the networks' own tables."""
    layers = {(row.case.operator, row.case.shape, row.case.params_text) for row in suite("published_layers").plan}
    # 8 in RedNet-50, 7 in LSNet, 15 large kernels, 7 in SASA ResNet-50, 23 with DRConv, 39 dynamic, 17 plain, 5 X.
    assert len({(operator, *shape[1:], params) for operator, shape, params in layers}) == 121
    assert {shape.batch for _, shape, _ in layers} == {1, 32}
    for layer in [
        ("involution", Nchw(1, 128, 56, 56), "group_channels=16,kernel_size=7,stride=2"),
        ("large_kernel_depthwise", Nchw(32, 128, 56, 56), "kernel_size=31"),
        ("dynamic_convolution", Nchw(1, 96, 112, 112), "experts=4,groups=96,kernel_size=3,out_channels=96,stride=2"),
        ("drconv", Nchw(32, 24, 56, 56), "kernel_size=1,out_channels=58,regions=8"),
        ("convolution", Nchw(1, 3, 224, 224), "kernel_size=7,out_channels=64,stride=2"),
        ("ls_convolution", Nchw(32, 384, 7, 7), "group_channels=8,large_kernel_size=7,small_kernel_size=3"),
    ]:
        assert layer in layers


def test_suites_are_read_without_torch() -> None:
    script = """
import sys
from pathlib import Path
from opbench.inspection import Description, ImplementationInfo
from opbench.suite import load, schema

class Inspector:
    def __init__(self, registry): pass
    def describe(self, operator): return Description(params=(), implementations=(ImplementationInfo(name="reference"),))
    def refusals(self, cases): return {}

schema()
assert load(Path(sys.argv[1]), overrides=["report={}"], inspect=Inspector).plan
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(SUITES / "quickstart.yaml")], check=True)
