"""`opbench report`: every format to its place, and what goes wrong in one line."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from opbench import formats, store
from opbench.cli import main
from opbench.commands import job_summary
from opbench.errors import OpbenchError
from opbench.formats import FORMATS, Format
from opbench.store import Run
from tests.report.made_up import comparison, scan

TEXTS = [name for name, each in FORMATS.items() if each.written_by and not each.binary]


def kept(made: Run, directory: Path) -> Path:
    store.create(directory, made.header)
    for record in made.records:
        store.append(directory, record)
    return directory


@pytest.fixture(name="stored")
def stored_run(tmp_path: Path) -> Path:
    return kept(comparison(), tmp_path / "a run")


@dataclass(frozen=True)
class Answer:
    """What a command that ran in this process left behind."""

    status: int
    output: str
    errors: str


def opbench(*arguments: str | Path, **variables: str) -> Answer:
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        for name, value in variables.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            main([*map(str, arguments)])
    return Answer(int(left.value.code or 0), output.getvalue(), errors.getvalue())


# Formats


def test_help_lists_every_format_with_its_purpose() -> None:
    lines = [" ".join(line.split()) for line in opbench("report", "--help").output.splitlines()]
    for each in FORMATS.values():
        assert f"{each.name} {each.purpose}" in lines


@pytest.mark.parametrize("form", TEXTS)
def test_a_file_holds_what_standard_output_would(form: str, stored: Path, tmp_path: Path) -> None:
    missing = [package for package in FORMATS[form].needs if find_spec(package) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    output = tmp_path / f"report{FORMATS[form].suffix}"
    printed = opbench("report", stored, "--format", form)
    written = opbench("report", stored, "--format", form, "-o", output)
    assert (printed.status, printed.errors) == (written.status, written.errors) == (0, "")
    assert written.output == ""
    # Beside a file there is room for charts.
    assert without_charts(output.read_text(encoding="utf-8")) == printed.output


def without_charts(text: str) -> str:
    return re.sub(r"## [^\n]+\n\n!\[[^\n]+\n\n[^\n]+\n\n", "", text)


def test_bytes_go_into_a_file_and_a_pipe(stored: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    output = tmp_path / "report.parquet"
    assert opbench("report", stored, "--format", "parquet", "-o", output).status == 0
    call = f"from opbench.cli import main; main(['report', {str(stored)!r}, '--format', 'parquet'])"
    piped = subprocess.run([sys.executable, "-c", call], capture_output=True, check=True).stdout
    assert piped == output.read_bytes()
    assert piped.startswith(b"PAR1")


def test_bytes_are_not_shown_on_a_terminal(stored: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    ours, theirs = pty.openpty()
    call = f"from opbench.cli import main; main(['report', {str(stored)!r}, '--format', 'parquet'])"
    done = subprocess.run([sys.executable, "-c", call], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert "--format parquet is not for the screen; name a file, as in: -o report.parquet" in done.stderr


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    form = Format(name="odd", purpose="", written_by="to_csv:csv_text", needs=("no_such_package",), extra="odd")
    with pytest.raises(OpbenchError) as caught:
        formats.writer(form)
    assert str(caught.value) == (
        "--format odd needs no_such_package, which is not installed; pip install 'opbench[odd]'"
    )


def test_a_package_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise ImportError('libodd.so.1: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    form = Format(name="odd", purpose="", written_by="to_csv:csv_text", needs=("broken_package",), extra="odd")
    with pytest.raises(OpbenchError, match=r"which fails: libodd.so.1: cannot open"):
        formats.writer(form)


@pytest.mark.parametrize("package", sorted({package for each in FORMATS.values() for package in each.needs}))
def test_without_a_package_the_command_ends_in_one_line(
    package: str, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = next(each for each in FORMATS.values() if package in each.needs)
    for each in form.needs:
        monkeypatch.setitem(sys.modules, each, None if each == package else ModuleType(each))
    done = opbench("report", stored, "--format", form.name, "-o", tmp_path / "x")
    assert done.status == 2
    assert done.errors == (
        f"opbench: --format {form.name} needs {package}, which is not installed; pip install 'opbench[{form.extra}]'\n"
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-o", "table.tex"], "--format table is for the screen; write table.tex with --format latex"),
        (["-o", "table.csv"], "write table.csv with --format csv or timm"),
        (
            ["--format", "latex", "-o", "nowhere/x.tex"],
            "opbench: cannot write nowhere/x.tex: No such file or directory",
        ),
        (["--format", "latex", "-o", "."], "'.' is a directory"),
        (["--format", "texx"], "'texx' is not one of 'table', 'markdown'"),
    ],
)
def test_what_cannot_be_written_is_one_message(arguments: list[str], hint: str, stored: Path) -> None:
    done = opbench("report", stored, *arguments)
    assert (done.status, done.output) == (2, "")
    assert hint in " ".join(done.errors.split())
    assert "Traceback" not in done.errors


@pytest.mark.skipif(find_spec("altair") is None, reason="altair is not installed")
def test_charts_that_cannot_be_written_are_one_message(stored: Path, tmp_path: Path) -> None:
    in_the_way = tmp_path / "report_charts"
    in_the_way.write_text("a file")
    done = opbench("report", stored, "--format", "markdown", "-o", tmp_path / "report.md")
    assert (done.status, done.errors) == (2, f"opbench: cannot write {in_the_way}: File exists\n")


@pytest.mark.skipif(find_spec("altair") is None, reason="altair is not installed")
def test_pages_of_other_letters_have_charts_of_their_own(tmp_path: Path) -> None:
    stored = kept(scan(), tmp_path / "a run")
    for name in ("ä", "ö", "my page"):
        assert opbench("report", stored, "--format", "markdown", "-o", tmp_path / f"{name}.md").status == 0
    assert sorted(path.name for path in tmp_path.glob("*_charts")) == ["_e4_charts", "_f6_charts", "my_page_charts"]
    for path in tmp_path.glob("*.md"):
        (folder,) = set(re.findall(r"\]\((\w+)/", path.read_text(encoding="utf-8")))
        assert (tmp_path / folder / "latency.svg").is_file()


@pytest.mark.parametrize("form", ["csv", "markdown", "table"])
def test_a_dash_is_standard_output(form: str, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = opbench("report", stored, "--format", form, "-o", "-")
    assert printed == opbench("report", stored, "--format", form)
    assert not Path("-").exists()


def test_an_export_of_several_runs_is_refused(stored: Path, tmp_path: Path) -> None:
    done = opbench("report", stored, kept(scan(), tmp_path / "other"), "--format", "bencher")
    assert done.status == 2
    assert "--format bencher holds one run; write a file for each DIR" in done.errors


# The job summary


def test_reports_for_people_are_appended_to_the_job_summary(stored: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# Before")
    assert opbench("report", stored, GITHUB_STEP_SUMMARY=str(summary)).status == 0
    text = summary.read_text()
    assert text.startswith("# Before\n\n# A made-up comparison\n")
    assert (
        opbench(
            "report", stored, "--format", "markdown", "-o", tmp_path / "x.md", GITHUB_STEP_SUMMARY=str(summary)
        ).status
        == 0
    )
    assert summary.read_text().count("# A made-up comparison\n") == 2
    opbench("report", stored, "--format", "json", GITHUB_STEP_SUMMARY=str(summary))
    assert summary.read_text().count("# A made-up comparison\n") == 2


def test_a_report_that_went_to_the_summary_is_not_there_twice(stored: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    opbench("report", stored, "--format", "markdown", "-o", summary, GITHUB_STEP_SUMMARY=str(summary))
    call = f"from opbench.cli import main; main(['report', {str(stored)!r}, '--format', 'markdown'])"
    with summary.open("a") as file:
        variables = {**os.environ, job_summary.VARIABLE: str(summary)}
        subprocess.run([sys.executable, "-c", call], stdout=file, env=variables, check=True)
    assert summary.read_text().count("# A made-up comparison\n") == 2


@pytest.mark.parametrize("place", ["", "nowhere/summary.md"])
def test_a_summary_that_cannot_be_written_is_a_warning(place: str, stored: Path, tmp_path: Path) -> None:
    done = opbench("report", stored, GITHUB_STEP_SUMMARY=str(tmp_path / place))
    assert done.status == 0
    assert done.errors.startswith("opbench: warning: cannot write the job summary ")
    assert done.errors.count("\n") == 1
    assert "convolution" in done.output


def test_a_long_report_is_cut_after_a_line_and_says_where_the_rest_is() -> None:
    text = "".join(f"| row {number} | µs |\n" for number in range(100))
    for room in (*range(40, 300), len(text.encode()) - 1):
        found = job_summary.fitted(text, room, "the rest")
        assert len(found.encode()) <= room
        if found:
            *rows, blank, rest = found.splitlines()
            assert (blank, rest) == ("", "the rest")
            assert rows == text.splitlines()[: len(rows)]
    assert job_summary.fitted(text, len(text.encode()), "the rest") == text
    assert job_summary.fitted(text, 10, "the rest") == ""


def test_a_full_summary_stays_as_it_is(stored: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_bytes(b"x" * job_summary.LIMIT_BYTES)
    done = opbench("report", stored, GITHUB_STEP_SUMMARY=str(summary))
    assert done.status == 0
    assert "the job summary is full" in done.errors
    assert summary.stat().st_size == job_summary.LIMIT_BYTES


def test_json_on_standard_output_is_json_in_a_job_too(stored: Path, tmp_path: Path) -> None:
    done = opbench("report", stored, "--format", "json", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    assert json.loads(done.output)
