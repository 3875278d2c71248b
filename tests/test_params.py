"""A frozen dataclass is the schema: what is legal, how that reads, and what a wrong value is told."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.cases import ParamValue
from opbench.params import ParamSpec, build, check_params, param, resolved, specs

properties = settings(derandomize=True, deadline=None)


@dataclass(frozen=True)
class Params:
    kernel_size: int = param(7, help="taps per side", at_least=1, odd=True)
    border: Literal["zero", "mask"] = param("zero", help="what lies outside")
    reduction: int | None = param(4, help="channels per hidden channel", at_least=1, at_most=64)
    temperature: float = param(1.0, help="of the softmax", at_most=30)
    padding: int | Literal["half"] = param("half", help="zeros around the image", at_least=0)
    bias: bool = param(True, help="an offset")
    label: str = "plain"

    def __post_init__(self) -> None:
        check_params(self)


SPECS = {spec.name: spec for spec in specs(Params)}


def test_every_field_is_described_in_order() -> None:
    assert list(SPECS) == ["kernel_size", "border", "reduction", "temperature", "padding", "bias", "label"]
    assert [spec.default for spec in SPECS.values()] == [7, "zero", 4, 1.0, "half", True, "plain"]
    assert SPECS["kernel_size"].help == "taps per side"
    assert SPECS["label"].help == ""


def test_a_field_without_a_default_is_described_too() -> None:
    @dataclass(frozen=True)
    class Bare:
        size: int

    (spec,) = specs(Bare)
    assert (spec.name, spec.default, spec.legal) == ("size", None, "integer")


@pytest.mark.parametrize(
    ("name", "legal", "choices"),
    [
        ("kernel_size", "odd integer ≥ 1", ()),
        ("border", "'zero' or 'mask'", ("zero", "mask")),
        ("reduction", "integer from 1 to 64 or none", ()),
        ("temperature", "number ≤ 30", ()),
        ("padding", "integer ≥ 0 or 'half'", ("half",)),
        ("bias", "true or false", (True, False)),
        ("label", "text", ()),
    ],
)
def test_what_is_legal_is_said_in_words(name: str, legal: str, choices: tuple[ParamValue, ...]) -> None:
    assert SPECS[name].legal == legal
    assert SPECS[name].choices == choices


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel_size", 1),
        ("border", "mask"),
        ("reduction", None),
        ("reduction", 64),
        ("temperature", 30),
        ("temperature", -0.5),
        ("padding", 0),
        ("padding", "half"),
        ("bias", False),
        ("label", ""),
    ],
)
def test_legal_values_have_no_fault(name: str, value: ParamValue) -> None:
    assert SPECS[name].fault(value) is None
    assert resolved(build(Params, {name: value}))[name] == value


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("kernel_size", 0, "kernel_size must be odd integer ≥ 1, got 0"),
        ("kernel_size", 4, "kernel_size must be odd integer ≥ 1, got 4"),
        ("kernel_size", 3.0, "got 3.0"),
        ("kernel_size", True, "got True"),
        ("kernel_size", "3", "got '3'"),
        ("kernel_size", None, "got None"),
        ("border", "Zero", "border must be 'zero' or 'mask', got 'Zero'; did you mean 'zero'?"),
        ("border", "reflect", "border must be 'zero' or 'mask', got 'reflect'"),
        ("border", 0, "got 0"),
        ("reduction", 65, "reduction must be integer from 1 to 64 or none, got 65"),
        ("temperature", 30.5, "temperature must be number ≤ 30, got 30.5"),
        ("temperature", math.nan, "temperature must be number ≤ 30, got nan"),
        ("temperature", -math.inf, "temperature must be number ≤ 30, got -inf"),
        ("temperature", False, "got False"),
        ("padding", -1, "padding must be integer ≥ 0 or 'half', got -1"),
        ("bias", 1, "bias must be true or false, got 1"),
        ("bias", "true", "bias must be true or false, got 'true'"),
        ("label", 3, "label must be text, got 3"),
    ],
)
def test_illegal_values_are_told_what_is_legal(name: str, value: Any, said: str) -> None:
    fault = SPECS[name].fault(value)
    assert fault is not None
    assert fault.endswith(said)
    # However the params are made, the same is said.
    with pytest.raises(ValueError) as built:
        build(Params, {name: value})
    with pytest.raises(ValueError) as made:
        Params(**{name: value})
    assert str(built.value) == str(made.value) == fault


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ValueError) as refusal:
        Params(kernel_size=2, reduction=0)
    assert str(refusal.value) == (
        "kernel_size must be odd integer ≥ 1, got 2; reduction must be integer from 1 to 64 or none, got 0"
    )


def test_an_unknown_name_is_told_its_neighbour() -> None:
    with pytest.raises(ValueError, match=r"^unknown parameter 'kernel'; did you mean 'kernel_size'\?$"):
        build(Params, {"kernel": 3})
    with pytest.raises(ValueError, match=r"^unknown parameter 'qq'; there are 'kernel_size', 'border'"):
        build(Params, {"qq": 3})


def test_what_is_not_given_is_the_default() -> None:
    assert build(Params, {}) == Params()
    assert resolved(build(Params, {"padding": 3})) == resolved(Params()) | {"padding": 3}
    assert list(resolved(Params())) == list(SPECS)


bounds = st.none() | st.integers(-20, 20)


@given(bounds, bounds, st.booleans(), st.integers(-25, 25))
@properties
def test_bounds_are_inclusive(low: int | None, high: int | None, odd: bool, value: int) -> None:
    spec = ParamSpec(name="n", type=int, default=0, help="", at_least=low, at_most=high, odd=odd)
    inside = (low is None or low <= value) and (high is None or value <= high) and (not odd or value % 2 == 1)
    assert (spec.fault(value) is None) == inside


@given(st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3))
@properties
def test_a_value_fits_a_plain_type_exactly_when_it_is_of_it(value: object) -> None:
    """Except that a whole number is a number, and that what is not finite is none."""
    kinds: dict[Any, bool] = {
        int: type(value) is int,
        float: type(value) is int or (type(value) is float and math.isfinite(value)),
        bool: type(value) is bool,
        str: type(value) is str,
        type(None): value is None,
    }
    for kind, fits in kinds.items():
        spec = ParamSpec(name="n", type=kind, default=None, help="", at_least=None, at_most=None, odd=False)
        assert (spec.fault(value) is None) == fits
