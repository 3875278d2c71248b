"""Which cases a suite spans, and in which order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.cases import DTYPES
from opbench.suite import Suite

if TYPE_CHECKING:
    from tests.suite.conftest import Bench


def ids(suite: Suite) -> list[str]:
    return list(dict.fromkeys(row.case.id for row in suite.plan))


def test_a_list_is_a_loop_and_the_key_written_first_is_the_outermost(bench: Bench) -> None:
    suite = bench.cases(
        "  - pass: [forward, training]\n"
        "    implementation: [native, reference]\n"
        "    operator: blur\n"
        "    params: {sigma: [2, 1], kernel_size: [5, 3]}\n"
        "    shape: 1x4x8x8\n"
    )
    assert [f"{row.case.pass_} {row.case.params_text} {row.implementation}" for row in suite.plan] == [
        f"{pass_} kernel_size={size},sigma={sigma} {implementation}"
        for pass_ in ("forward", "training")
        for sigma in (2, 1)
        for size in (5, 3)
        for implementation in ("native", "reference")
    ]


def test_what_is_not_written_is_the_default(bench: Bench) -> None:
    (row,) = bench.cases("  - {operator: identity, shape: 2x4x8x6}\n").plan
    assert row.case.id == "identity/2x4x8x6/float32/layer/forward"
    assert row.case.memory_format == "contiguous"
    assert row.implementation == "reference"
    assert row.position == f"{bench.file}:5:5"


def test_a_size_is_a_shape_or_its_parts(bench: Bench) -> None:
    whole = bench.cases("  - {operator: identity, shape: [1x4x8x8, 1x4x6x5, 2x4x8x8, 2x4x6x5]}\n")
    parts = bench.cases("  - {operator: identity, batch: [1, 2], channels: 4, resolution: [8, 6x5]}\n")
    assert ids(whole) == ids(parts)


def test_an_entry_comes_before_the_defaults_and_parameters_merge_name_by_name(bench: Bench) -> None:
    text = """\
version: 1
title: t
question: q
defaults: {operator: blur, shape: 1x4x8x8, dtype: [float32, float64], params: {kernel_size: 3, sigma: 1}}
cases:
  - {params: {sigma: 2}}
  - {dtype: float64, batch: 2, channels: 1, resolution: 7}
"""
    assert ids(bench.load(text)) == [
        "blur/1x4x8x8/float32/layer/forward[kernel_size=3,sigma=2]",
        "blur/1x4x8x8/float64/layer/forward[kernel_size=3,sigma=2]",
        "blur/2x1x7x7/float64/layer/forward[kernel_size=3,sigma=1]",
    ]


def test_exclude_drops_what_matches_every_named_value(bench: Bench) -> None:
    suite = bench.cases("""\
  - operator: [blur, shift]
    shape: [1x4x8x8, 2x4x8x8]
    params: {kernel_size: [3, 5, 7]}
    exclude:
      - {operator: blur, params: {kernel_size: [3, 5]}}
      - {operator: shift, batch: 2}
      - {implementation: native, shape: 1x4x8x8}
""")
    assert [f"{row.name} {row.case.shape.batch} {row.case.params_text}" for row in suite.plan] == [
        "blur 1 kernel_size=7",
        "blur 2 kernel_size=7",
        "blur/native 2 kernel_size=7",
        "shift 1 kernel_size=3",
        "shift 1 kernel_size=5",
        "shift 1 kernel_size=7",
    ]


def test_include_takes_from_the_entry_what_has_one_value_there_else_from_the_defaults(bench: Bench) -> None:
    text = """\
version: 1
title: t
question: q
defaults: {dtype: float64, pass: [forward, training]}
cases:
  - operator: blur
    shape: 1x4x8x8
    params: {kernel_size: [3, 5], sigma: 2}
    dtype: [float16, float32]
    implementation: reference
    include:
      - {shape: 9x4x8x8}
"""
    suite = bench.load(text)
    assert len(ids(suite)) == 2 * 2 * 2 + 2
    assert ids(suite)[-2:] == [f"blur/9x4x8x8/float64/layer/{name}[sigma=2]" for name in ("forward", "training")]
    assert suite.plan[-1].position == f"{bench.file}:12:9"


def test_all_is_the_reference_and_what_the_plugin_offers_for_the_device(bench: Bench) -> None:
    entry = "  - {operator: [blur, identity, shift], shape: 1x4x8x8, implementation: [all, compile]}\n"
    blur, shift = ["blur", "blur/native"], ["shift"]
    assert [row.name for row in bench.cases(entry).plan] == [
        *blur, "blur/compile", "identity", "identity/compile", *shift, "shift/compile",
    ]  # fmt: skip
    on_gpu = bench.cases(entry, "measure.device=cuda", "cases.0.implementation=all")
    assert [row.name for row in on_gpu.plan] == [*blur, "blur/cuda", "identity", *shift, "shift/cuda"]


def test_an_operator_does_without_an_implementation_that_only_others_offer(bench: Bench) -> None:
    suite = bench.cases("  - {operator: [blur, identity], shape: 1x4x8x8, implementation: [reference, native]}\n")
    assert [row.name for row in suite.plan] == ["blur", "blur/native", "identity"]
    assert suite.refused == ()


def test_what_only_some_refuse_is_kept_with_the_reason(bench: Bench) -> None:
    suite = bench.cases("""\
  - operator: [blur, shift]
    shape: 1x4x8x8
    params: {kernel_size: [3, 4]}
  - {operator: shift, shape: 1x4x8x8, params: {step: [1, 5]}}
  - {operator: blur, shape: 1x4x8x8, dtype: float16, implementation: [native, cuda]}
""")
    assert [(row.name, row.case.params_text) for row in suite.plan] == [
        ("blur", "kernel_size=3"),
        ("blur/native", "kernel_size=3"),
        ("shift", "kernel_size=3"),
        ("shift", "kernel_size=4"),
        ("shift", "step=1"),
    ]
    assert [(row.name, reason) for row, reason in suite.refused] == [
        ("blur", "kernel_size must be odd integer ≥ 1, got 4"),
        ("blur/native", "kernel_size must be odd integer ≥ 1, got 4"),
        ("shift", "step must not exceed kernel_size, got 5"),
        ("blur/native", "native covers float32 and float64, not float16"),
        ("blur/cuda", "cuda runs on cuda, not on cpu"),
    ]


def test_a_case_asked_for_twice_is_measured_once_with_all_its_implementations(bench: Bench) -> None:
    suite = bench.cases("""\
  - {operator: blur, shape: 1x4x8x8, implementation: reference}
  - {operator: shift, shape: 1x4x8x8}
  - {operator: blur, shape: 1x4x8x8}
""")
    assert [row.name for row in suite.plan] == ["blur", "blur/native", "shift"]
    assert [row.position.rpartition("yaml:")[2] for row in suite.plan] == ["5:5", "7:5", "6:5"]


axes = st.fixed_dictionaries(
    {
        "operator": st.lists(st.sampled_from(["blur", "shift"]), min_size=1, unique=True),
        "batch": st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
        "channels": st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
        "resolution": st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
        "dtype": st.lists(st.sampled_from(DTYPES), min_size=1, unique=True),
        "pass": st.lists(st.sampled_from(["forward", "training"]), min_size=1, unique=True),
        "scope": st.lists(st.sampled_from(["core", "layer"]), min_size=1, unique=True),
        "memory_format": st.lists(st.sampled_from(["contiguous", "channels_last"]), min_size=1, unique=True),
    }
)
kernels = st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, unique=True)


@settings(max_examples=60, deadline=None)
@given(axes, kernels, st.data())
def test_an_entry_spans_the_product_less_the_excluded_product(
    bench: Bench, spans: dict[str, list[Any]], sizes: list[int], data: st.DataObject
) -> None:
    total = math.prod(map(len, spans.values())) * len(sizes)
    entry = {**spans, "params": {"kernel_size": sizes}, "implementation": "reference"}
    assert len(ids(load(bench, entry))) == total

    named = {
        key: data.draw(st.lists(st.sampled_from(values), min_size=1, unique=True), label=key)
        for key, values in spans.items()
        if data.draw(st.booleans(), label=f"exclude by {key}")
    }
    excluded = math.prod(len(named.get(key, values)) for key, values in spans.items()) * len(sizes)
    if named and excluded < total:
        assert len(ids(load(bench, {**entry, "exclude": [named]}))) == total - excluded


def load(bench: Bench, entry: dict[str, Any]) -> Suite:
    text = yaml.safe_dump({"version": 1, "title": "t", "question": "q", "cases": [entry]}, sort_keys=False)
    return bench.load(text)


@pytest.mark.parametrize("operator", ["blur", "[blur]"])
def test_one_value_is_a_list_of_one(bench: Bench, operator: str) -> None:
    text = (
        f"version: 1\ntitle: t\nquestion: q\nmetrics: counts\nmeasure: {{threads: 2, cache: hot}}\n"
        f"cases: [{{operator: {operator}, shape: 1x4x8x8}}]\n"
    )
    suite = bench.load(text)
    assert suite.metrics == ("counts",)
    assert suite.measure.threads == (2,)
    assert suite.measure.cache == ("hot",)
    assert ids(suite) == ["blur/1x4x8x8/float32/layer/forward"]


def test_a_network_brings_its_input_and_its_operator(bench: Bench) -> None:
    suite = bench.cases("""\
  - {network: rednet-50, implementation: reference}
  - {network: resnet-50, operator: [blur, shift], implementation: reference, batch: [1, 4], resolution: 64}
  - {network: resnet-50, operator: blur, implementation: reference, shape: 2x3x32x48}
""")
    assert ids(suite) == [
        "rednet-50:involution/1x3x224x224/float32/network/forward",
        *(
            f"resnet-50:{operator}/{batch}x3x64x64/float32/network/forward"
            for operator in ("blur", "shift")
            for batch in (1, 4)
        ),
        "resnet-50:blur/2x3x32x48/float32/network/forward",
    ]
    assert {row.name for row in suite.plan} == {"rednet-50:involution", "resnet-50:blur", "resnet-50:shift"}


def test_a_network_can_be_excluded_and_be_the_baseline(bench: Bench) -> None:
    text = (
        "version: 1\ntitle: t\nquestion: q\nreport: {baseline: 'resnet-50:blur'}\n"
        "cases: [{network: [resnet-50, resnet-26], operator: [blur, shift], implementation: reference,"
        " exclude: [{network: resnet-26, operator: blur}]}]\n"
    )
    assert [row.name for row in bench.load(text).plan] == ["resnet-50:blur", "resnet-50:shift", "resnet-26:shift"]
    assert bench.faults(text.replace("'resnet-50:blur'", "'resnet-50:blurr'")) == [
        "suite.yaml:4:20: report.baseline: the suite measures no 'resnet-50:blurr'; did you mean 'resnet-50:blur'?"
    ]
