"""`opbench run`: what goes where. What becomes of hostile plugins stands elsewhere."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Workshop

WRONG = """
@other
def add(p, x, weight):
    return x + 0 * weight[:, None, None]
"""


def test_run_gives_json_to_standard_output_and_talks_on_standard_error(workshop: Workshop) -> None:
    workshop.plugin("mine", WRONG)
    suite = workshop.suite(["mine"])
    command = workshop.opbench("run", suite, "--out", "out", "--json")
    assert command.status == 5
    assert command.output == workshop.opbench("report", "out", "--format", "json").output
    assert json.loads(command.output)
    assert re.search(r"^\[2/2\] mine other 1x4x5x6 layer forward: wrong: ", command.errors, re.MULTILINE)
    assert "opbench: kept in out, report in out/report.md\n" in command.errors

    quiet = workshop.opbench("run", suite, "--out", "quiet", "--only", "reference", "--quiet")
    assert quiet.status == 0
    assert "[1/1]" not in quiet.errors

    table = workshop.opbench("report", "out", "-o", "table.txt")
    assert table.status == 2
    assert "write table.txt with --format markdown or " in table.errors
    assert workshop.opbench("report", "out", "--format", "csv", "-o", "out/table.csv").output == ""
    assert (workshop.folder / "out" / "table.csv").read_text().startswith("run,case,")


def test_dry_run_documents_its_json(workshop: Workshop) -> None:
    workshop.plugin("mine")
    suite = workshop.suite(["mine"])
    never = "from opbench import probing\nprobing.ceilings = None"
    text = workshop.start("run", suite, "--dry-run", before=never)
    data = workshop.start("run", suite, "--dry-run", "--json")
    foreseen = json.loads(data.output)
    words = set(re.findall(r"`([a-z_]+)`", " ".join(workshop.opbench("run", "--help").output.split())))
    assert words == {*foreseen, *foreseen["cases"][0]}
    assert [row["case"] for row in foreseen["cases"]] == ["mine/1x4x5x6/float32/layer/forward"]
    assert text.output.startswith("mine/1x4x5x6/float32/layer/forward  reference  ")
    assert text.errors.startswith("opbench: 1 cases, 1 records, about ")
    assert not (workshop.folder / "runs").exists()


def test_a_run_in_a_job_appends_its_report_to_the_summary(workshop: Workshop) -> None:
    workshop.plugin("mine")
    suite = workshop.suite(["mine"])
    summary = workshop.folder / "summary.md"
    before = f"os.environ['GITHUB_STEP_SUMMARY'] = {str(summary)!r}"
    command = workshop.opbench("run", suite, "--out", "out", "--json", before=before)
    assert command.status == 0
    assert summary.read_text() == (workshop.folder / "out" / "report.md").read_text()
