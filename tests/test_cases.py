"""Shapes are read as they are written, and a case's id tells it from every other."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.cases import DTYPES, ITEM_BYTES, Case, Nchw, ParamValue
from opbench.errors import OpbenchError

properties = settings(derandomize=True, deadline=None, max_examples=200)
positive = st.integers(1, 4096)
shapes = st.builds(Nchw, st.integers(0, 512), positive, positive, positive)
texts = st.sampled_from(["3", "7", "1.0", "True", "None", "half", "3x5", "", "a,b=1", "a", "1'", "x y", "half]"])
values: st.SearchStrategy[ParamValue] = st.integers(0, 8) | st.floats(0, 2) | st.booleans() | st.none() | texts
cases = st.builds(
    Case,
    operator=st.sampled_from(["convolution", "involution"]),
    shape=st.sampled_from([Nchw(1, 2, 3, 4), Nchw(12, 3, 4, 1)]),
    params=st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2),
    dtype=st.sampled_from(DTYPES[:2]),
    memory_format=st.sampled_from(["contiguous", "channels_last"]),
    pass_=st.sampled_from(["forward", "training"]),
    scope=st.sampled_from(["core", "layer"]),
)


@given(shapes)
@properties
def test_a_shape_is_read_as_it_is_written(shape: Nchw) -> None:
    assert Nchw.parse(str(shape)) == shape
    assert Nchw.parse(f" {str(shape).replace('x', ' × ')} ") == shape
    assert shape.numel == shape.batch * shape.channels * shape.height * shape.width


@pytest.mark.parametrize(
    "text", ["", "3", "1x2x3", "1x2x3x4x5", "1x2x3x", "1x2x3x-4", "1x2x3x4.0", "axbxcxd", "1,2,3,4"]
)
def test_what_is_not_four_whole_numbers_is_no_shape(text: str) -> None:
    with pytest.raises(OpbenchError, match="is not a shape; write batch x channels x height x width"):
        Nchw.parse(text)


@pytest.mark.parametrize("text", ["1x0x3x4", "1x2x0x4", "1x2x3x0"])
def test_only_the_batch_may_be_empty(text: str) -> None:
    with pytest.raises(OpbenchError, match="channels, height and width must be at least 1"):
        Nchw.parse(text)
    assert Nchw.parse("0x2x3x4").numel == 0


def test_an_id_says_what_differs_from_the_usual() -> None:
    case = Case(operator="involution", shape=Nchw(32, 64, 56, 56))
    assert case.id == "involution/32x64x56x56/float32/layer/forward"
    other = dataclasses.replace(
        case, params={"stride": 2, "kernel_size": 7}, memory_format="channels_last", pass_="training", scope="core"
    )
    assert other.id == "involution/32x64x56x56/float32/core/training/channels_last[kernel_size=7,stride=2]"


def exactly(case: Case) -> dict[str, Any]:
    """The case with the types of its parameters: Python takes True, 1 and 1.0 for equal."""
    params = {(name, type(value).__name__, value) for name, value in case.params.items()}
    return {**dataclasses.asdict(case), "params": params}


@given(cases, cases)
@properties
def test_ids_are_equal_exactly_when_the_cases_are(one: Case, other: Case) -> None:
    assert (one.id == other.id) == (exactly(one) == exactly(other))


@given(st.dictionaries(st.sampled_from("abc"), values), st.dictionaries(st.sampled_from("abc"), values))
@properties
def test_parameters_are_told_apart_by_their_text(one: dict[str, ParamValue], other: dict[str, ParamValue]) -> None:
    first, second = (Case(operator="x", shape=Nchw(1, 1, 1, 1), params=params) for params in (one, other))
    assert (first.params_text == second.params_text) == (exactly(first) == exactly(second))


def test_the_order_of_the_parameters_does_not_matter() -> None:
    first, second = (
        Case(operator="x", shape=Nchw(1, 1, 1, 1), params=params) for params in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert first.id == second.id == "x/1x1x1x1/float32/layer/forward[a=1,b=2]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), ("7", "'7'"), (0.5, "0.5"), (True, "True"), ("True", "'True'"), ("half", "half"), ("3x5", "3x5")],
)
def test_text_is_quoted_only_where_it_would_read_as_another_value(value: ParamValue, text: str) -> None:
    assert Case(operator="x", shape=Nchw(1, 1, 1, 1), params={"a": value}).params_text == f"a={text}"


def test_every_dtype_has_its_size() -> None:
    assert dict(ITEM_BYTES) == dict(zip(DTYPES, (8, 4, 2, 2), strict=True))
