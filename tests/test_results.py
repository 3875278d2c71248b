"""A record comes back from its line of JSON as it was, whatever it holds; anything else is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.cases import DTYPES, Case, Nchw
from opbench.results import (
    SCHEMA_VERSION,
    Counted,
    Counts,
    Failed,
    Launch,
    Launches,
    Measured,
    Memory,
    Outcome,
    Policy,
    Record,
    Sampling,
    Skipped,
    Timing,
    Wrong,
)
from opbench.runner import storable

finite = st.floats(allow_nan=False, allow_infinity=False)
count = st.integers(0, 1 << 62)
text = st.text(max_size=20)
values = st.one_of(st.integers(-(1 << 62), 1 << 62), finite, text, st.booleans(), st.none())
params = st.dictionaries(text, values, max_size=3)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def several(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=3).map(tuple)


cases = st.builds(
    Case,
    operator=text,
    shape=st.builds(Nchw, *[st.integers(0, 1 << 40)] * 4),
    params=params,
    dtype=st.sampled_from(DTYPES),
    memory_format=st.sampled_from(["contiguous", "channels_last"]),
    pass_=st.sampled_from(["forward", "training"]),
    scope=st.sampled_from(["core", "layer"]),
)
policies = st.builds(
    Policy,
    cache=st.sampled_from(["cold", "hot"]),
    threads=st.integers(1, 512),
    device=text,
    launch=st.sampled_from(["eager", "graph"]),
)
samplings = st.builds(
    Sampling,
    seconds=st.lists(st.floats(0, exclude_min=True, allow_infinity=False), min_size=1, max_size=3).map(tuple),
    calls_per_sample=count,
    warmup_samples=count,
    first_seconds=finite,
    cpu_seconds=finite,
    wall_seconds=finite,
    overhead_seconds=finite,
    stopped=st.sampled_from(["precise", "max_samples", "max_seconds"]),
    stalled_seconds=maybe(finite),
    host_seconds=several(finite),
    call_seconds=several(finite),
    voided=st.dictionaries(text, count, max_size=3),
    despite=several(text),
    sm_clock_hz=maybe(finite),
    note=text,
)
memories = st.builds(
    Memory,
    source=st.sampled_from(["tracker", "high_water", "allocator"]),
    inputs_bytes=count,
    parameters_bytes=count,
    output_bytes=count,
    forward_peak_bytes=count,
    saved_bytes=maybe(count),
    backward_peak_bytes=maybe(count),
    repeatable=st.booleans(),
)
counters = st.builds(
    Counted,
    source=st.sampled_from(["formula", "fvcore", "torch"]),
    macs=maybe(count),
    unknown=several(text),
    note=text,
)
kinds = st.builds(Launch, name=text, macs=count, macs_in_bounds=count, bytes=count, unknown=st.booleans())
launches = st.lists(kinds, min_size=1, max_size=3).flatmap(
    lambda kinds: st.builds(
        Launches, kinds=st.just(tuple(kinds)), order=several(st.integers(0, len(kinds) - 1)), left_out=count
    )
)
counts = st.builds(
    Counts,
    parameters=maybe(count),
    macs_dense=maybe(count),
    macs_in_bounds=maybe(count),
    at_least=st.booleans(),
    compulsory_bytes=maybe(count),
    counters=several(counters),
    agreement=text,
    launches=maybe(launches),
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(
        Measured,
        timings=several(st.builds(Timing, policy=policies, processes=several(samplings).filter(bool))),
        memory=several(memories),
        worst_error=maybe(finite),
        flags=several(text),
        status=st.just("measured"),
    ),
    st.builds(Wrong, quantity=text, error=maybe(finite), budget=finite, where=text, status=st.just("wrong")),
    st.builds(Skipped, reason=text, status=st.just("skipped")),
    st.builds(Failed, reason=text, status=st.sampled_from(["failed", "out_of_memory", "timed_out", "crashed"])),
)
records = st.builds(Record, case=cases, implementation=text, outcome=outcomes, params=params, counts=maybe(counts))


@settings(deadline=None, max_examples=150)
@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    line = record.to_json()
    assert "\n" not in line
    back = Record.from_json(line)
    assert back == record
    # Equal is not enough: 1 equals 1.0 and True, and -0.0 equals 0.0.
    assert repr(back) == repr(record)
    assert storable(record) is record


@settings(deadline=None, max_examples=50)
@given(records, st.dictionaries(text.map(lambda key: f"later_{key}"), values, max_size=3))
def test_keys_of_later_versions_are_ignored(record: Record, extra: dict[str, Any]) -> None:
    data = json.loads(record.to_json()) | extra
    for part in [data.get("counts"), *data.get("timings", []), *data.get("memory", [])]:
        if part is not None:
            part |= extra
    assert Record.from_json(json.dumps(data)) == record


RECORD = Record(
    case=Case(operator="box", shape=Nchw(1, 2, 3, 4), params={"size": 3}),
    implementation="reference",
    outcome=Skipped(reason="why"),
    params={"size": 3, "step": 1},
)


def test_the_keys_of_a_line_are_these() -> None:
    """What README and DESIGN promise to programs that read a run."""
    assert json.loads(RECORD.to_json()) == {
        "schema": SCHEMA_VERSION,
        "case": "box/1x2x3x4/float32/layer/forward[size=3]",
        "operator": "box",
        "shape": [1, 2, 3, 4],
        "dtype": "float32",
        "memory_format": "contiguous",
        "pass": "forward",
        "scope": "layer",
        "network": None,
        "set_params": {"size": 3},
        "params": {"size": 3, "step": 1},
        "implementation": "reference",
        "counts": None,
        "status": "skipped",
        "reason": "why",
    }


def test_a_bare_record_lacks_nothing() -> None:
    """Keys with a default may be missing: an older version did not write them."""
    data = json.loads(RECORD.to_json())
    for key in ("params", "counts", "case"):
        del data[key]
    assert Record.from_json(json.dumps(data)) == dataclasses.replace(RECORD, params={})


def test_counts_from_before_launches_lack_nothing() -> None:
    record = dataclasses.replace(RECORD, counts=Counts(parameters=3))
    data = json.loads(record.to_json())
    del data["counts"]["launches"]
    assert Record.from_json(json.dumps(data)) == record


def test_launches_are_read_in_the_order_they_were_run() -> None:
    one, other = (Launch(name=name, macs=0, macs_in_bounds=0, bytes=1) for name in ("one", "other"))
    assert Launches(kinds=(one, other), order=(0, 1, 1, 0)).in_order == (one, other, other, one)


def test_a_timing_from_before_gpus_lacks_nothing() -> None:
    sampling = Sampling(
        seconds=(1.0,),
        calls_per_sample=1,
        warmup_samples=0,
        first_seconds=2.0,
        cpu_seconds=1.0,
        wall_seconds=1.0,
        overhead_seconds=0.0,
        stopped="precise",
    )
    timing = Timing(policy=Policy(cache="cold", threads=1), processes=(sampling,))
    record = dataclasses.replace(RECORD, outcome=Measured(timings=(timing,)))
    data = json.loads(record.to_json())
    (process,) = data["timings"][0]["processes"]
    for key in ("host_seconds", "call_seconds", "voided", "despite", "sm_clock_hz", "note", "stalled_seconds"):
        del process[key]
    assert Record.from_json(json.dumps(data)) == record


def test_a_policy_names_threads_only_where_they_compute() -> None:
    assert str(Policy(cache="cold", threads=2)) == "cold cache, 2 threads, cpu, eager"
    assert str(Policy(cache="hot", threads=1, device="cuda", launch="graph")) == "hot cache, cuda, graph"


@pytest.mark.parametrize("schema", [0, 2, "1", None, 1.5, [1]])
def test_another_schema_is_refused(schema: object) -> None:
    data = json.loads(RECORD.to_json()) | {"schema": schema}
    with pytest.raises(ValueError, match="not a record of schema 1"):
        Record.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "splendid"},
        {"status": None},
        {"status": "measured", "timings": 3},
        {"status": "measured", "timings": [{}]},
        {"status": "measured", "worst_error": "small"},
        {"status": "wrong"},
        {"reason": None},
        {"reason": 3},
        {"shape": [1, 2, 3]},
        {"shape": [1, 2, 3, 4, 5]},
        {"shape": "1x2x3x4"},
        {"shape": None},
        {"shape": [1, 2, 3, "x"]},
        {"dtype": "int8"},
        {"pass": "backward"},
        {"scope": "network"},
        {"operator": None},
        {"implementation": 3},
        {"set_params": [1]},
        {"set_params": {"size": [3]}},
        {"params": [1]},
        {"params": "size"},
        {"params": {"size": {}}},
        {"counts": 3},
        {"counts": {"parameters": "many"}},
        {"counts": {"macs_dense": 1.5}},
        {"counts": {"launches": {"kinds": [], "order": [0]}}},
    ],
    ids=json.dumps,
)
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    data = json.loads(RECORD.to_json()) | change
    with pytest.raises(ValueError, match=r"\S"):
        Record.from_json(json.dumps(data))


@pytest.mark.parametrize("seconds", ["[]", "[0.0]", "[1e-3, -1e-3]", "[NaN]", "[Infinity]", "[1e999]"])
def test_what_no_clock_can_show_is_refused(seconds: str) -> None:
    sampling = Sampling(
        seconds=(1.25,),
        calls_per_sample=1,
        warmup_samples=0,
        first_seconds=1.0,
        cpu_seconds=1.0,
        wall_seconds=1.0,
        overhead_seconds=0.0,
        stopped="precise",
    )
    timing = Timing(policy=Policy(cache="cold", threads=1), processes=(sampling,))
    line = dataclasses.replace(RECORD, outcome=Measured(timings=(timing,))).to_json()
    with pytest.raises(ValueError, match=r"\S"):
        Record.from_json(line.replace("[1.25]", seconds))


@pytest.mark.parametrize("line", ["", "null", "[]", "3", '"x"', "{", "{}", "NaN"])
def test_what_is_no_object_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Record.from_json(line)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_written(number: float) -> None:
    record = dataclasses.replace(RECORD, outcome=Wrong(quantity="forward", error=number, budget=1.0, where=""))
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"counts": Counts(parameters="many")},  # type: ignore[arg-type]
        {"counts": Counts(macs_dense=math.nan)},  # type: ignore[arg-type]
        {"params": {"a": {1, 2}}},
        {"params": {"a": math.inf}},
        {"params": {"a": "\ud800"}},
        {"outcome": Skipped(reason="\ud800")},
        {"outcome": Measured(worst_error=math.nan)},
    ],
    ids=repr,
)
def test_a_record_that_cannot_be_stored_is_one_that_says_so(change: dict[str, Any]) -> None:
    found = storable(dataclasses.replace(RECORD, **change))
    assert found.key == RECORD.key
    assert isinstance(found.outcome, Failed)
    assert found.outcome.reason.startswith("its results cannot be stored: ")
    assert storable(found) is found
    assert Record.from_json(found.to_json().encode().decode()) == found
