"""What papers print beside what is counted, from records alone: each figure with its verdict, rule and reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

from opbench import report
from opbench.cases import Case, Nchw, ParamValue
from opbench.networks.conventions import CONVENTIONS
from opbench.report import published
from opbench.results import Counts, Measured, Record
from opbench.settings import Report
from tests.report import made_up

SIZE = Nchw(1, 3, 224, 224)


def record(
    network: str, operator: str, parameters: int, flops: int, params: Mapping[str, ParamValue] | None = None
) -> Record:
    return Record(
        case=Case(operator=operator, network=network, scope="network", shape=SIZE, params=params or {}),
        implementation="reference",
        outcome=Measured(),
        counts=Counts(parameters=parameters, macs_dense=2 * flops, conventions=dict.fromkeys(CONVENTIONS, flops)),
    )


RECORDS = (
    record("rednet-50", "involution", 15_541_526, 2_713_184_096),
    record("resnet-50", "convolution", 25_557_032, 4_119_876_096),
    record("resnet-101", "convolution", 44_549_160, 7_847_451_136),
    record("xvolution-resnet-50", "xvolution", 1, 1),
)


def cells(title: str) -> dict[str, dict[str, str]]:
    """By the first cell of a row, its others by column."""
    table = next(table for table in published.tables(RECORDS) if table.title == title)
    return {
        row[0].text: {column.key: cell.text for column, cell in zip(table.columns, row, strict=True)}
        for row in table.rows
    }


def test_a_row_has_the_printed_figures_ours_and_the_verdict() -> None:
    (row,) = cells("Involution: classification, ImageNet").values()
    assert row == {
        "operator": "RedNet-50",
        "input": "1x3x224x224",
        "parameters": "15.54 M",
        "parameters_ours": "15.5415 M",
        "flops": "2.71 G",
        "flops_ours": "2.7132 G",
        "rule": "C1+agg",
        "macs": "5.43 G",
        "saved": "39.5 %, 34.1 %",
        "saved_ours": "39.2 %, 34.1 %",
        "accuracy": "top-1 78.35 %",
        "notes": "exact",
    }


def test_what_is_inferred_because_it_fits_is_never_silent() -> None:
    table = next(table for table in published.tables(RECORDS) if table.title == "Involution: classification, ImageNet")
    assert table.rows[0][-1].mark == "¹"
    assert table.footnotes[0][1].startswith("inferred: ")
    assert "K = 7 in the stem" in table.footnotes[0][1]


def test_what_prints_only_by_way_of_two_decimals_says_so() -> None:
    rows = cells("Involution: the ResNets behind its percentages")
    assert {name: row["notes"] for name, row in rows.items()} == {
        "ResNet-50": "exact",
        "ResNet-101": "exact by way of two decimals",
    }


def test_what_differs_has_its_reason_in_a_footnote() -> None:
    table = next(table for table in published.tables(RECORDS) if table.title.startswith("ODConv"))
    fifty = next(row for row in table.rows if row[0].text == "ResNet50")
    # These records count the same under every rule; the table wants its own figure.
    assert fifty[-1].text.endswith("differs")
    assert fifty[-1].mark
    assert dict(table.footnotes)[fifty[-1].mark.split()[0]]


def test_a_network_of_which_nothing_is_printed_says_why() -> None:
    table = next(table for table in published.tables(RECORDS) if table.title.startswith("X-volution"))
    ((*_, notes),) = table.rows
    assert (notes.text, notes.mark) == ("nothing is printed", "¹")
    assert "neither parameters nor FLOPs" in table.footnotes[0][1]


def test_another_operator_other_parameters_or_a_larger_batch_are_not_what_was_published() -> None:
    others = (
        record("resnet-50", "involution", 15_541_526, 2_713_184_096),
        record("rednet-50", "involution", 15_541_526, 2_713_184_096, {"kernel_size": 5}),
        replace(RECORDS[0], case=replace(RECORDS[0].case, shape=SIZE._replace(batch=32))),
        replace(RECORDS[0], counts=None),
        replace(RECORDS[0], counts=replace(RECORDS[0].counts or Counts(), conventions={})),
    )
    assert published.tables(others) == []


def test_the_answer_counts_figures_and_the_explanation_names_rules_and_sources() -> None:
    assert published.answer(RECORDS[:1]) == (
        "Of 2 printed figures of 1 networks, 2 are met to the digit. "
        "2 of those met rest on something inferred because it fits, which a note names."
    )
    lines = published.explanation(RECORDS).lines
    assert any(line.startswith("C1+agg: MACs of convolutions") for line in lines)
    assert any("README of d-li14/involution" in line for line in lines)
    assert any("Accuracies are cited" in line for line in lines)


def test_it_is_told_without_torch() -> None:
    script = """if True:
        import sys
        from opbench.report import published
        assert published.tables([]) == [] and published.explanation([]).title
        assert "torch" not in sys.modules and "fvcore" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_suite_that_asks_for_it_gets_these_tables_in_every_format() -> None:
    run = made_up.comparison()
    header = replace(run.header, report=Report(published=True), plan=tuple((r.case, "reference") for r in RECORDS))
    view = report.view([replace(run, header=header, records=RECORDS)])
    text = report.markdown(view)
    assert "## Involution: classification, ImageNet" in text
    assert "Accuracies are cited" in text
    assert "÷" not in text
