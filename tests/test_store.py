"""A run on disk survives whatever kills its writer, and says so where it cannot."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opbench import store
from opbench.cases import Case, Nchw
from opbench.environment import Environment
from opbench.errors import MachineError, OpbenchError, RunError
from opbench.results import Failed, Record, Skipped
from opbench.settings import Measure, Report
from opbench.store import Header

ENVIRONMENT = Environment(
    captured="2031-02-03T04:05:06+00:00",
    host="nowhere",
    system="Linux",
    python="3.12.0",
    processor="none",
    physical_cores=None,
    logical_cores=2,
    usable_cores=2,
    capability="DEFAULT",
    memory_bytes=1 << 30,
    governor=None,
    smt=None,
    load=0.0,
    driver=None,
    versions={"torch": "2.11.0"},
    command=("opbench", "run", "naïve.yaml"),
)


def record(number: int, reason: str = "µ – “quoted”\nand more", implementation: str = "reference") -> Record:
    case = Case(operator="box", shape=Nchw(1, number, 5, 6), params={"size": 3})
    return Record(case=case, implementation=implementation, outcome=Skipped(reason=reason))


def header(*records: Record) -> Header:
    return Header(
        title="a title",
        question="what?",
        suite_path="suite.yaml",
        suite_text="version: 1\n",
        overrides=("measure.processes=1",),
        operator_paths=("/nowhere",),
        metrics=("counts", "latency"),
        measure=Measure(threads=(1, "physical"), cache=("hot", "cold")),
        report=Report(baseline="box"),
        environment=ENVIRONMENT,
        plan=tuple((item.case, item.implementation) for item in records),
    )


RECORDS = [record(1), record(2), record(3)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "deep" / "run"
    store.create(directory, header(*RECORDS))
    for item in RECORDS:
        store.append(directory, item)
    return directory


# What is written is what is read.


def test_a_run_is_read_as_it_was_written(run: Path) -> None:
    found = store.read(run)
    assert found.header == header(*RECORDS)
    assert list(found.records) == RECORDS
    assert found.missing == ()
    assert found.warnings == ()


def test_records_come_in_the_planned_order(tmp_path: Path) -> None:
    store.create(tmp_path, header(*RECORDS))
    for item in reversed(RECORDS):
        store.append(tmp_path, item)
    assert list(store.read(tmp_path).records) == RECORDS


def test_of_two_records_of_a_case_the_later_counts(run: Path) -> None:
    again = dataclasses.replace(RECORDS[1], outcome=Failed(reason="again"))
    store.append(run, again)
    assert list(store.read(run).records) == [RECORDS[0], again, RECORDS[2]]


def test_what_has_no_record_is_missing(tmp_path: Path) -> None:
    other = record(2, implementation="other")
    store.create(tmp_path, header(*RECORDS, other))
    store.append(tmp_path, RECORDS[1])
    missing = [(case.shape.channels, name) for case, name in store.read(tmp_path).missing]
    assert missing == [(1, "reference"), (3, "reference"), (2, "other")]


def test_a_run_begins_with_what_is_known_beforehand(tmp_path: Path) -> None:
    store.create(tmp_path, header(*RECORDS), RECORDS[:2])
    store.append(tmp_path, RECORDS[2])
    assert list(store.read(tmp_path).records) == RECORDS


# Torn and damaged lines.


def test_a_line_cut_anywhere_is_left_out_and_then_cut_off(run: Path) -> None:
    file = run / store.RECORDS_FILE
    whole = file.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last, len(whole)):
        file.write_bytes(whole[:end])
        found = store.read(run)
        assert list(found.records) == RECORDS[:2]
        assert [case.shape.channels for case, _ in found.missing] == [3]
        assert len(found.warnings) == (end > last)
        store.cut_torn_line(run)
        assert file.read_bytes() == whole[:last]
        store.append(run, RECORDS[2])
        assert file.read_bytes() == whole


def test_a_whole_file_is_not_cut(run: Path) -> None:
    whole = (run / store.RECORDS_FILE).read_bytes()
    store.cut_torn_line(run)
    assert (run / store.RECORDS_FILE).read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00" * 40,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b'{"schema": 1}',
        b'{"schema": 2}',
        b"{" * 100_000,
        b"[" * 100_000,
    ],
    ids=lambda damage: repr(damage[:10]),
)
def test_a_damaged_line_before_the_last_is_named(run: Path, damage: bytes) -> None:
    file = run / store.RECORDS_FILE
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
    with pytest.raises(RunError, match=rf"{file}:2: damaged record: \S"):
        store.read(run)


def test_a_damaged_line_says_what_is_wrong_in_it(run: Path) -> None:
    file = run / store.RECORDS_FILE
    file.write_bytes(file.read_bytes().replace(b'"status": "skipped"', b'"status": "splendid"', 1))
    with pytest.raises(RunError, match=r"1: damaged record: Input tag 'splendid' found"):
        store.read(run)


def test_records_that_cannot_be_read_are_named(run: Path) -> None:
    (run / store.RECORDS_FILE).unlink()
    (run / store.RECORDS_FILE).mkdir()
    with pytest.raises(RunError, match=rf"cannot read {run / store.RECORDS_FILE}: Is a directory"):
        store.read(run)


def test_every_byte_cut_out_of_a_line_is_noticed_or_harmless(run: Path) -> None:
    """Whatever is lost in the middle: an error that names the line, or a record of the same case."""
    file = run / store.RECORDS_FILE
    lines = file.read_bytes().splitlines()
    for place in range(0, len(lines[1]), 3):
        file.write_bytes(b"\n".join([lines[0], lines[1][:place] + lines[1][place + 1 :], lines[2], b""]))
        assert said_of(run) in ("3 records", f"{file}:2: damaged record")


def said_of(run: Path) -> str:
    try:
        return f"{len(store.read(run).records)} records"
    except RunError as error:
        return ": ".join(str(error).split(": ")[:2])


# Headers.


def test_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run: there is no run\.json"):
        store.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Expecting value"),
        ("{}", "schema None, but this opbench reads schema 1"),
        ("[]", "schema None, but this opbench reads schema 1"),
        ('{"schema": NaN}', "NaN is no finite number"),
        ("[" * 100_000, "recursion"),
        ('{"schema": 99}', "schema 99, but this opbench reads schema 1; a later opbench wrote it, so update this one"),
        ('{"schema": 1}', "title: Field required"),
    ],
)
def test_a_header_that_cannot_be_read_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / store.HEADER_FILE).write_text(content)
    with pytest.raises(RunError) as caught:
        store.read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / store.HEADER_FILE))
    assert said in str(caught.value)


def test_a_file_is_no_run(tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    file.write_text("a report")
    with pytest.raises(RunError, match=rf"^{file} holds no run"):
        store.read(file)


def test_a_header_of_bytes_is_named(tmp_path: Path) -> None:
    (tmp_path / store.HEADER_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match=store.HEADER_FILE):
        store.read(tmp_path)


def test_a_run_never_begins_over_another(run: Path) -> None:
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(RunError, match=r"already holds a run; finish it with --resume .*, or choose another --out"):
        store.create(run, header())
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_a_run_never_takes_over_records_without_a_header(run: Path) -> None:
    (run / store.HEADER_FILE).unlink()
    with pytest.raises(RunError, match=r"holds records but no run\.json; choose another --out"):
        store.create(run, header())


# Disks.


def test_a_full_disk_ends_the_run_and_keeps_what_there_is(run: Path) -> None:
    (run / "records-full.jsonl").symlink_to("/dev/full")
    (run / store.RECORDS_FILE).rename(run / "records-0.jsonl")
    (run / store.RECORDS_FILE).symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"cannot write .*records\.jsonl: No space left on device") as caught:
        store.append(run, RECORDS[0])
    assert caught.value.exit_status == 6


def test_a_record_that_fits_half_is_recognised(run: Path) -> None:
    """A limit on the file's size lets a part of the last line through, as a disk that fills up does."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from opbench import store
from opbench.errors import MachineError
directory = Path({str(run)!r})
size = (directory / store.RECORDS_FILE).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
try:
    store.append(directory, store.read(directory).records[0])
except MachineError as error:
    sys.exit(f"{{error}}")
"""
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "records.jsonl: the disk is full" in done.stderr
    assert list(store.read(run).records) == RECORDS
    assert "torn" in store.read(run).warnings[0]


@pytest.mark.parametrize("place", ["file/run", "x" * 300], ids=["below a file", "too long"])
def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OpbenchError, match="cannot write") as caught:
        store.create(tmp_path / place, header())
    assert "\n" not in str(caught.value)
    with pytest.raises(OpbenchError, match="cannot write"), store.exclusive(tmp_path / place):
        pass


# One writer.

HOLDER = """
import os, sys, time
from pathlib import Path
from opbench import store
with store.exclusive(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""


def test_a_directory_has_one_writer_and_its_children_do_not_count(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(RunError, match="is in use by another opbench run"), store.exclusive(directory):
            pass
        holder.kill()
        holder.wait()
        with store.exclusive(directory):
            pass
        os.kill(child, signal.SIGKILL)
