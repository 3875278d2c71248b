"""Networks through the whole harness: counted, checked, timed and measured with any operator in their slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opbench import store
from opbench.results import Measured, Skipped, Wrong

if TYPE_CHECKING:
    from tests.conftest import Workshop


def test_an_operator_of_ones_own_runs_in_a_published_network(workshop: Workshop) -> None:
    workshop.plugin("mine")
    entry: dict[str, Any] = {"network": "resnet-26", "shape": "2x3x32x32", "pass": ["forward", "training"]}
    suite = workshop.suite(["mine"], implementation="reference", **entry)
    command = workshop.opbench("run", suite, "--out", workshop.folder / "run")
    assert (command.status, [*(workshop.folder / "run").glob("report.md")]) == (0, [workshop.folder / "run/report.md"])
    records = store.read(workshop.folder / "run").records
    assert [record.name for record in records] == ["resnet-26:mine"] * 2
    forward, training = records
    for record in records:
        assert isinstance(record.outcome, Measured)
        assert record.outcome.timings
        assert record.outcome.memory
        assert record.counts is not None
        assert record.counts.agreement == "agree"
    assert forward.counts is not None
    assert training.counts is not None
    assert forward.counts.conventions["MACs"] == forward.counts.macs_dense
    # Of the training step, the backward costs twice the forward.
    assert training.counts.macs_dense == 3 * (forward.counts.macs_dense or 0)
    assert "images/s" in command.output


def test_parameters_that_have_no_hash_are_counted_and_measured(workshop: Workshop) -> None:
    changes = "@dataclass\nclass Params:\n    size: int = 3\n\nparts['params'] = Params\n"
    workshop.plugin("mine", changes)
    suite = workshop.suite(["mine"], implementation="reference", network="resnet-26", shape="2x3x32x32")
    assert workshop.opbench("run", suite, "--out", workshop.folder / "run").status == 0
    (record,) = store.read(workshop.folder / "run").records
    assert isinstance(record.outcome, Measured)
    assert record.counts is not None
    assert record.counts.conventions


def test_a_wrong_core_is_found_within_a_network_and_never_timed(workshop: Workshop) -> None:
    workshop.plugin("mine", "@other\ndef other(p, x, weight):\n    return scale(p, x, weight) + 0.01 * x.amax()\n")
    suite = workshop.suite(["mine"], network="resnet-26", shape="2x3x32x32", implementation="all")
    command = workshop.opbench("run", suite, "--out", workshop.folder / "run")
    outcomes = {record.name: record.outcome for record in store.read(workshop.folder / "run").records}
    assert command.status == 5
    assert isinstance(outcomes["resnet-26:mine"], Measured)
    assert isinstance(outcomes["resnet-26:mine/other"], Wrong)


def test_a_network_that_can_only_be_counted_is_skipped_with_the_reason(workshop: Workshop) -> None:
    suite = workshop.file(
        "suite.yaml",
        "version: 1\ntitle: t\nquestion: q\nmeasure: {processes: 1, max_seconds: 0.02, allow_noisy: true}\n"
        "cases: [{network: faster-rcnn-resnet-50, implementation: reference, shape: 1x3x64x64}]\n",
    )
    command = workshop.opbench("run", suite, "--out", workshop.folder / "run")
    (record,) = store.read(workshop.folder / "run").records
    assert command.status == 0
    assert isinstance(record.outcome, Skipped)
    assert "is counted and not run" in record.outcome.reason
    assert record.counts is not None
    assert record.counts.macs_dense
