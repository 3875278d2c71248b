"""CSV with timm's columns: its names, its units, one line for a network or operator."""

import csv
import io
from dataclasses import replace

from hypothesis import given, settings

from opbench import report
from opbench.cases import Nchw
from opbench.report.to_timm import timm_csv
from opbench.results import Measured, Record, Skipped
from opbench.store import Run
from tests.report.made_up import HOT, counts, machines, record, run, timing
from tests.report.test_markdown import texts

INFER = ["infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_img_size", "infer_gmacs", "infer_macts"]
TRAIN = ["train_samples_per_sec", "train_step_time", "train_batch_size", "train_img_size"]


def lines(*runs: Run) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(timm_csv(report.view(runs)))))


def network(seconds: float, training: bool = False, batch: int = 4) -> Record:
    made = record(
        "involution",
        Measured(timings=(timing(seconds),)),
        pass_="training" if training else "forward",
        shape=Nchw(batch, 3, 160, 224),
        counts=counts(batch * 2_500_000_000 * (3 if training else 1), 15_530_000),
    )
    return replace(made, case=replace(made.case, scope="network", network="rednet-50"))


def test_a_network_s_forward_and_training_are_one_line_in_timm_s_units() -> None:
    (line,) = lines(run(network(0.05), network(0.2, training=True)))
    assert list(line) == ["model", *INFER, *TRAIN, "param_count"]
    assert line["model"] == "rednet-50:involution"
    assert [line[name] for name in INFER] == ["80", "50", "4", "224", "2.5", ""]
    assert [line[name] for name in TRAIN] == ["20", "200", "4", "224"]
    assert line["param_count"] == "15.53"


def test_what_was_not_measured_is_empty() -> None:
    (line,) = lines(run(network(0.2, training=True), record("sasa", Skipped(reason="no"))))
    assert [line[name] for name in INFER] == [""] * 6
    assert line["train_step_time"] == "200"


def test_a_lower_bound_is_no_count_and_a_core_has_no_parameters() -> None:
    unsure = record("unsure", Measured(timings=(timing(1e-3),)), counts=counts(1000, unknown=("aten::mystery",)))
    core = record("core", Measured(timings=(timing(1e-3),)), counts=counts(8_000_000), scope="core")
    by_name = {line["model"].split(" ")[0]: line for line in lines(run(unsure, core))}
    assert by_name["unsure"]["infer_gmacs"] == ""
    assert by_name["core"]["infer_gmacs"] == "0.001"
    assert by_name["core"]["param_count"] == ""


def test_lines_of_one_name_say_what_tells_them_apart() -> None:
    small, large = network(0.05, batch=1), network(0.5, batch=8)
    assert [line["model"] for line in lines(run(small, large))] == [
        "rednet-50:involution (1x3x160x224)",
        "rednet-50:involution (8x3x160x224)",
    ]
    both = record(outcome=Measured(timings=(timing(2e-3), timing(1e-3, HOT))))
    assert "hot cache" in lines(run(both))[1]["model"]
    of_machines = [line["model"] for line in lines(*machines())]
    assert len(set(of_machines)) == len(of_machines)


@settings(max_examples=60)
@given(texts)
def test_a_hostile_name_is_one_inert_cell(name: str) -> None:
    (line,) = lines(run(record(name, Measured(timings=(timing(1e-3),)))))
    assert not line["model"].startswith(("=", "+", "-", "@"))
    assert line["infer_step_time"] == "1"
    assert line["model"].isprintable() or not line["model"].isascii()
