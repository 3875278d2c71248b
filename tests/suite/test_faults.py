"""Every fault names its place, the value and what is legal; all come at once, in the order of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.errors import SuiteError

if TYPE_CHECKING:
    from tests.suite.conftest import Bench

GOOD = "  - {operator: blur, shape: 1x4x8x8}\n"
KEYS = "'version', 'title', 'question', 'defaults', 'cases', 'operators', 'metrics', 'measure', 'report'"
DTYPES = "'float64', 'float32', 'float16' or 'bfloat16'"


def test_all_faults_of_a_suite_come_at_once_in_the_order_of_the_file(bench: Bench) -> None:
    text = """\
version: 2
titel: Blurs
defaults: {dtype: [float32, flaot16], kernel: 3}
cases:
  - operator: [blurr, shift]
    shape: [1x4x8, 1x4x8x8]
    params: {kernel_size: [3, 0], stride: 2, edge: wrong}
  - operator: shift
    shape: 1x4x8x8
    batch: 1
    implementation: [cdua]
    pass: backward
  - 7
measure: {proceses: 3, threads: [1, 0], precision: 1}
report: {baseline: blurr/native}
"""
    assert bench.faults(text) == [
        "suite.yaml:1:1: missing key 'title'",
        "suite.yaml:1:1: missing key 'question'",
        "suite.yaml:1:10: version: must be 1, got 2",
        "suite.yaml:2:1: unknown key 'titel'; did you mean 'title'?",
        f"suite.yaml:3:29: defaults.dtype[1]: must be {DTYPES}, got 'flaot16'; did you mean 'float16'?",
        "suite.yaml:3:39: defaults: unknown key 'kernel'; there are 'operator', 'network', 'implementation', 'shape', "
        "'batch', 'channels', 'resolution', 'params', 'dtype', 'memory_format', 'pass', 'scope'",
        "suite.yaml:5:16: cases[0].operator[0]: no operator 'blurr'; did you mean 'blur'?",
        "suite.yaml:6:13: cases[0].shape[0]: '1x4x8' is not a shape; "
        "write batch x channels x height x width, as in 32x64x56x56",
        "suite.yaml:7:35: cases[0].params: shift has no parameter 'stride'; did you mean 'step'?",
        "suite.yaml:9:5: cases[1]: give either 'shape', or 'batch', 'channels' and 'resolution'",
        "suite.yaml:11:22: cases[1].implementation[0]: no implementation 'cdua'; did you mean 'cuda'?",
        "suite.yaml:12:11: cases[1].pass: must be 'forward' or 'training', got 'backward'",
        "suite.yaml:13:5: cases[2]: must be a mapping, got 7",
        "suite.yaml:14:11: measure: unknown key 'proceses'; did you mean 'processes'?",
        "suite.yaml:14:37: measure.threads[1]: must be integer ≥ 1 or 'physical', got 0",
        "suite.yaml:14:52: measure.precision: must be number > 0 and < 1, got 1",
        "suite.yaml:15:20: report.baseline: no operator 'blurr'; did you mean 'blur'?",
    ]


def located(text: str, what: str) -> tuple[str, str]:
    """The text without its '§', and the fault that stands where that was."""
    before, after = text.split("§")
    return before + after, f"suite.yaml:{before.count(chr(10)) + 1}:{len(before.rpartition(chr(10))[2]) + 1}: {what}"


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ("measure: {processes: §true}", "measure.processes: must be integer ≥ 1 and ≤ 100, got true"),
        ("measure: {processes: §1.5}", "measure.processes: must be integer ≥ 1 and ≤ 100, got 1.5"),
        ("measure: {processes: §101}", "measure.processes: must be integer ≥ 1 and ≤ 100, got 101"),
        ("measure: {processes: §'3'}", "measure.processes: must be integer ≥ 1 and ≤ 100, got '3'"),
        ("measure: {max_seconds: §-.inf}", "measure.max_seconds: must be finite, got -.inf"),
        ("measure: {allow_noisy: §yes}", "measure.allow_noisy: must be true or false, got 'yes'"),
        ("measure: {device: §rocm}", "measure.device: must be 'cpu' or 'cuda', got 'rocm'"),
        ("measure: {cache: §[]}", "measure.cache: an empty list names nothing; give at least one value"),
        ("measure: {cache: §[hot, hot]}", "measure.cache: 'hot' is repeated"),
        ("measure: {cache: §{hot: 1}}", "measure.cache: must be 'cold' or 'hot', got a mapping"),
        (
            "measure: {threads: [1, §{constrained-int: 1}]}",
            "measure.threads[1]: must be integer ≥ 1 or 'physical', got a mapping",
        ),
        ("measure: §fast", "measure: must be a mapping, got 'fast'"),
        ("measure:§", "measure: must be a mapping, got null"),
        ("metrics: [latency, §flops]", "metrics[1]: must be 'counts', 'latency' or 'memory', got 'flops'"),
        ("operators: §7", "operators: must be non-empty text, got 7; quote it to make it text"),
        ("operators: §''", "operators: must be non-empty text, got ''"),
        (
            "report: {sort_by: §latencey}",
            "report.sort_by: must be 'suite', 'name', 'parameters', 'macs', 'latency' or 'memory', "
            "got 'latencey'; did you mean 'latency'?",
        ),
        ("report: {baseline: §3}", "report.baseline: must be text or null, got 3"),
        (
            "report: {baseline: §blur/natve}",
            "report.baseline: the suite measures no 'blur/natve'; did you mean 'blur/native'?",
        ),
        ("§answer: 42", f"unknown key 'answer'; there are {KEYS}"),
    ],
)
def test_settings_say_what_is_legal(bench: Bench, extra: str, what: str) -> None:
    text, fault = located(f"version: 1\ntitle: t\nquestion: q\ncases:\n{GOOD}{extra}\n", what)
    assert bench.faults(text) == [fault]


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("§{shape: 1x4x8x8}", "cases[0]: missing key 'operator'"),
        ("§{operator: blur}", "cases[0]: missing key 'shape' (or 'batch', 'channels' and 'resolution')"),
        ("§{operator: blur, batch: 1, resolution: 8}", "cases[0]: missing key 'channels'"),
        (
            "{operator: §3, shape: 1x4x8x8}",
            "cases[0].operator: must be non-empty text, got 3; quote it to make it text",
        ),
        (
            "{operator: §[], shape: 1x4x8x8}",
            "cases[0].operator: an empty list names nothing; give at least one value",
        ),
        ("{operator: §[blur, blur], shape: 1x4x8x8}", "cases[0].operator: 'blur' is repeated"),
        (
            "{operator: blur, shape: §14}",
            "cases[0].shape: must be batch x channels x height x width, as in 32x64x56x56, got 14",
        ),
        ("{operator: blur, shape: §0x4x8x8}", "cases[0].shape: '0x4x8x8': the batch must be at least 1"),
        (
            "{operator: blur, shape: §1x4x0x8}",
            "cases[0].shape: '1x4x0x8': channels, height and width must be at least 1",
        ),
        ("{operator: blur, batch: §0, channels: 4, resolution: 8}", "cases[0].batch: must be integer ≥ 1, got 0"),
        *(
            (
                f"{{operator: blur, batch: 1, channels: 4, resolution: §{value}}}",
                f"cases[0].resolution: must be an integer ≥ 1, or height x width as in 56x48, got {shown}",
            )
            for value, shown in [("8x", "'8x'"), ("true", "true"), ("0", "0"), ("8x0", "'8x0'"), ("1.5", "1.5")]
        ),
        ("{operator: blur, shape: 1x4x8x8, params: §3}", "cases[0].params: must be a mapping, got 3"),
        (
            "{operator: blur, shape: 1x4x8x8, params: {sigma: §{a: 1}}}",
            "cases[0].params.sigma: must be number, text, true, false or null, got a mapping",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, params: {sigma: §.nan}}",
            "cases[0].params.sigma: must be finite, got .nan",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, params: {sigma: §-1}}",
            "cases[0].params.sigma: must be number ≥ 0, got -1",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, params: {sigma: §true}}",
            "cases[0].params.sigma: must be number ≥ 0, got True",
        ),
        (
            "{operator: shift, shape: 1x4x8x8, params: {edge: [drop, §wrpa]}}",
            "cases[0].params.edge[1]: must be 'wrap' or 'drop', got 'wrpa'; did you mean 'wrap'?",
        ),
        (
            "{operator: identity, shape: 1x4x8x8, params: {§size: 3}}",
            "cases[0].params: identity has no parameter 'size'; it has none",
        ),
        (
            "{operator: [blur, shift], shape: 1x4x8x8, params: {kernel_size: §0}}",
            "cases[0].params.kernel_size: blur: must be odd integer ≥ 1, got 0; shift: must be integer ≥ 1, got 0",
        ),
        (
            "{operator: shift, shape: 1x4x8x8, params: §{step: 5}}",
            "cases[0].params: no operator takes any of these combinations; "
            "shift: step must not exceed kernel_size, got 5",
        ),
        (
            "{operator: shift, shape: 1x4x8x8, implementation: §native}",
            "cases[0].implementation: no implementation 'native'; there are 'all', 'reference', 'cuda', 'compile'",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, params: {exclude: [§[]]}}",
            "cases[0].params.exclude[0]: must be number, text, true, false or null, got a list",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, exclude: §{dtype: float32}}",
            "cases[0].exclude: must be a list, got a mapping",
        ),
        (
            "{network: §resnet-5, operator: blur}",
            "cases[0].network: no network 'resnet-5'; did you mean 'resnet-50'?",
        ),
        (
            "{network: resnet-50, operator: §blurr}",
            "cases[0].operator: no operator 'blurr'; did you mean 'blur'?",
        ),
        (
            "{network: resnet-50, operator: blur, scope: §layer}",
            "cases[0].scope: 'layer' is no scope of a network; leave 'scope' out",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, scope: §network}",
            "cases[0].scope: 'network' needs the key 'network', with the name of one",
        ),
        (
            "{network: resnet-50, operator: blur, params: {§sgima: 1}}",
            "cases[0].params: blur has no parameter 'sgima'; did you mean 'sigma'?",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, exclude: [§{}]}",
            "cases[0].exclude[0]: names nothing; it would exclude every combination",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, exclude: [§{operator: shift}]}",
            "cases[0].exclude[0]: excludes nothing: no combination has these values, none has operator shift; "
            "there are 'blur'",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, params: {sigma: 1}, exclude: [§{params: {sgima: 1}}]}",
            "cases[0].exclude[0]: excludes nothing: no combination has these values, none has params.sgima; "
            "did you mean 'params.sigma'?",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, exclude: [§{resolution: 9x7}]}",
            "cases[0].exclude[0]: excludes nothing: no combination has these values, none has resolution 9x7; "
            "there are '8x8'",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, exclude: [{§include: []}]}",
            "cases[0].exclude[0]: unknown key 'include'; there are 'operator', 'network', 'implementation', 'shape', "
            "'batch', 'channels', 'resolution', 'params', 'dtype', 'memory_format', 'pass', 'scope'",
        ),
        (
            "{operator: blur, shape: [1x4x8x8, 2x4x8x8], include: [§{operator: shift}]}",
            "cases[0].include[0]: missing key 'shape': the entry has several; name those to include",
        ),
        (
            "{operator: [blur, shift], shape: 1x4x8x8, include: [§{params: {kernel_size: 3}}]}",
            "cases[0].include[0]: missing key 'operator': the entry has several; name those to include",
        ),
        (
            "{operator: blur, shape: 1x4x8x8, include: [{operator: shift, params: {edge: §no}}]}",
            "cases[0].include[0].params.edge: must be 'wrap' or 'drop', got 'no'",
        ),
    ],
)
def test_entries_say_what_is_legal(bench: Bench, case: str, what: str) -> None:
    text, fault = located(f"version: 1\ntitle: t\nquestion: q\ncases:\n  - {case}\n", what)
    assert bench.faults(text) == [fault]


@pytest.mark.parametrize(
    ("cases", "what"),
    [
        ("§[]", "cases: no case is left to measure"),
        ("§blur", "cases: must be a list, got 'blur'"),
        ("§[{operator: blur, shape: 1x4x8x8, exclude: [{operator: blur}]}]", "cases: no case is left to measure"),
    ],
)
def test_a_suite_has_cases(bench: Bench, cases: str, what: str) -> None:
    text, fault = located(f"version: 1\ntitle: t\nquestion: q\ncases: {cases}\n", what)
    assert bench.faults(text) == [fault]


def test_faults_of_defaults_stand_at_the_defaults_and_once(bench: Bench) -> None:
    text = "version: 1\ntitle: t\nquestion: q\ndefaults: {params: {kernl: 3}, shape: 1x4x8x8}\ncases:\n"
    assert bench.faults(text + 2 * "  - {operator: blur}\n") == [
        "suite.yaml:4:21: defaults.params: blur has no parameter 'kernl'; did you mean 'kernel_size'?"
    ]


def test_more_cases_than_anyone_means_are_refused(bench: Bench) -> None:
    hundred = list(range(1, 101))
    entry = f"  - {{operator: blur, batch: {hundred}, channels: {hundred}, resolution: 8}}\n"
    assert len({row.case.id for row in bench.cases(entry).plan}) == 10_000
    assert bench.case_faults(entry + GOOD) == [
        "suite.yaml:6:5: cases[1]: the suite spans 10001 cases up to here; 10000 are the most"
    ]


def test_a_folder_without_operators_is_a_fault_and_excuses_the_operators_not_found(bench: Bench) -> None:
    text = "version: 1\ntitle: t\nquestion: q\noperators: [gone]\ncases: [{operator: elsewhere, shape: 1x4x8x8}]\n"
    assert bench.faults(text) == [
        "suite.yaml:4:12: operators: gone: no operator there; expected a folder with a plugin.py"
    ]


def test_a_broken_plugin_is_no_fault_of_the_suite(bench: Bench) -> None:
    suite = bench.cases("  - {operator: [broken, blur], shape: 1x4x8x8, params: {kernel_size: 3, sigma: 2}}\n")
    assert [row.name for row in suite.plan] == ["broken", "blur", "blur/native"]
    assert (
        bench.cases("  - {operator: broken, shape: 1x4x8x8, params: {any: 3}, implementation: fast}").plan[0].name
        == "broken/fast"
    )


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.sampled_from(["blur", "float32", "1x4x8x8", ""])
)
keys = [
    "version",
    "title",
    "question",
    "defaults",
    "cases",
    "measure",
    "threads",
    "operator",
    "shape",
    "params",
    "dtype",
]
names = st.sampled_from([*keys, "exclude", "include", "kernel_size", "report", "implementation"])
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=5)),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, documents, max_size=8), documents)
def test_whatever_is_written_is_loaded_or_refused_with_a_place(bench: Bench, data: dict[str, Any], entry: Any) -> None:
    text = yaml.safe_dump({"version": 1, "title": "t", "question": "q", "cases": [entry], **data})
    try:
        assert bench.load(text).plan is not None
    except SuiteError as error:
        lines = str(error).split("\n")
        assert all(line.startswith(f"{bench.file}:") for line in lines)
        assert len(lines) == len(set(lines))
