"""The command line: what it says to people on standard error, what it gives to programs on standard output."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from opbench import cli, errors
from opbench.commands import report
from opbench.registry import Registry
from opbench.settings import SortBy

if TYPE_CHECKING:
    from tests.conftest import Workshop

ROOT = Path(__file__).parents[1]
VERBS = list(cli.cli.commands)
EIGHT = ["convolution", "drconv", "dynamic_convolution", "involution"]
EIGHT += ["large_kernel_depthwise", "ls_convolution", "sasa", "xvolution"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command that ran in this process left behind."""

    status: int
    output: str
    errors: str


def opbench(capsys: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    captured = capsys.readouterr()
    return Answer(int(left.value.code or 0), captured.out, captured.err)


# Help


def test_help_lists_the_verbs_whole_and_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    answer = opbench(capsys, "--help")
    assert re.findall(r"^  (\w+)  +[A-Z].*[^.]\.$", answer.output, re.MULTILINE) == VERBS
    said = answer.output[answer.output.index("Exit status") :]
    assert [int(number) for number in re.findall(r"\d+", said)] == [0, 2, 5, 6, 130]
    assert (cli.INTERNAL_ERROR, errors.MachineError.exit_status, errors.OpbenchError.exit_status) == (6, 6, 2)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_a_command_to_copy(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = opbench(capsys, verb, "-h")
    assert answer.status == 0
    assert re.search(rf"^  opbench {verb}\b", answer.output, re.MULTILINE)
    assert answer.errors == ""


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("report", "schema")])
def test_every_verb_gives_json_and_says_what_is_in_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "With --json, " in " ".join(opbench(capsys, verb, "--help").output.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"opbench, version \d+\.\d+\.\d+\n", opbench(capsys, "--version").output)


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    answer = opbench(capsys)
    assert answer.status == 2
    assert "Start here" in answer.errors + answer.output


def test_the_orders_of_a_report_are_those_of_a_suite() -> None:
    assert get_args(SortBy) == report.ORDERS


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["lits"], "Did you mean 'list'?"),
        (["list", "--jsn"], "Did you mean '--json'?"),
        (["show", "invlution"], "did you mean 'involution'?"),
        (["show", "nosuch"], "there are 'convolution', 'drconv',"),
        (["verify", "sassa"], "did you mean 'sasa'?"),
        (["count", "sassa", "--input", "1x16x8x8"], "did you mean 'sasa'?"),
        (["count", "sasa"], "--input"),
        (["count", "sasa", "--input", "16x8x8"], "'16x8x8' is not a shape; write batch x channels x height x width"),
        (["count", "sasa", "--input", "1x16x8xB"], "as in 32x64x56x56"),
        (["count", "sasa", "--input", "1x0x8x8"], "channels, height and width must be at least 1"),
        (["count", "sasa", "--input", "-1x16x8x8"], "is not a shape"),
        (["count", "sasa", "--input", "1x16x8x8", "--set", "heads"], "--set 'heads' is not NAME=VALUE"),
        (["count", "sasa", "--input", "1x16x8x8", "--dtype", "f32"], "'float64', 'float32', 'float16', 'bfloat16'"),
        (["list", "--operators", "nowhere"], "nowhere: no operator there; expected a folder with a plugin.py"),
        (["verify", "--timeout", "0"], "0"),
        (["run"], "name a suite, as in: opbench run suites/quickstart.yaml"),
        (["run", "nosuch.yaml"], "nosuch.yaml"),
        (["run", "--resume", "nowhere"], "nowhere holds no run"),
        (["report"], "DIR"),
        (["report", "nowhere"], "nowhere holds no run: there is no run.json"),
    ],
)
def test_wrong_use_is_status_2_with_a_hint_and_nothing_on_standard_output(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = opbench(capsys, *arguments)
    assert (answer.status, answer.output) == (2, "")
    assert hint in answer.errors
    assert "Traceback" not in answer.errors


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 1}', b"\x00\xff", b"\xef\xbb\xbf{}"])
def test_a_broken_run_is_one_line(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_bytes(content)
    answer = opbench(capsys, "report", str(tmp_path))
    assert (answer.status, answer.output) == (2, "")
    assert answer.errors.startswith(f"opbench: {tmp_path}/run.json: ")
    assert answer.errors.count("\n") == 1


# What goes wrong inside


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def discover(*_: object) -> Registry:
        raise error

    monkeypatch.setattr(Registry, "discover", discover)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            RuntimeError("boom\nand \x1b[31mmore"),
            6,
            "internal error: RuntimeError: boom and \\x1b[31mmore; please report",
        ),
        (OSError(28, "No space left on device"), 6, "cannot write: No space left on device"),
        (errors.MachineError("the machine is busy"), 6, "the machine is busy"),
        (errors.PluginError("[/x] \x1b[2Jgone"), 2, "[/x] \\x1b[2Jgone"),
        (errors.SuiteError("a.yaml:1:2: \x1b]0;x\x07"), 2, ""),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_inside_is_a_line_without_traceback_or_escape_codes(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("OPBENCH_DEBUG", raising=False)
    failing(monkeypatch, error)
    answer = opbench(capsys, "list")
    assert (answer.status, answer.output) == (status, "")
    *_, last = answer.errors.splitlines()
    assert last.startswith(f"opbench: {said}")
    assert "Traceback" not in answer.errors
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", answer.errors)


def test_a_traceback_is_for_those_who_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPBENCH_DEBUG", "1")
    failing(monkeypatch, RuntimeError("boom"))
    answer = opbench(capsys, "list")
    assert answer.status == 6
    assert answer.errors.startswith("Traceback (most recent call last):")
    assert "in discover" in answer.errors


def test_a_reader_that_has_gone_is_no_error() -> None:
    for arguments in (["schema"], ["list"], ["--help"]):
        with subprocess.Popen(
            [sys.executable, "-m", "opbench", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


def test_a_full_disk_is_one_line() -> None:
    for arguments in (["schema"], ["list"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run([sys.executable, "-m", "opbench", *arguments], stdout=full, stderr=subprocess.PIPE)
        assert done.stderr == b"opbench: cannot write: No space left on device\n"
        assert done.returncode == 6


# What is imported


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["report", "--help"], ["lits"]])
def test_what_needs_no_measuring_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""if True:
        import sys
        from opbench.cli import main
        try:
            main({arguments!r})
        finally:
            heavy = {{"torch", "pandas", "scipy", "numpy", "cupy", "fvcore", "pydantic", "rich", "yaml", "jinja2"}}
            print(*sorted(heavy & set(sys.modules)), "were imported", file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == " were imported".strip()


# list and schema


def test_list_gives_each_operator_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = opbench(capsys, "list").output.splitlines()
    assert [line.split()[0] for line in lines] == EIGHT
    assert len({line.index(line.split()[1]) for line in lines}) == 1
    rows = json.loads(opbench(capsys, "list", "--json").output)
    assert [set(row) for row in rows] == [{"operator", "summary", "folder"}] * 8
    assert [row["summary"] for row in rows] == [line.split(maxsplit=1)[1] for line in lines]


def test_hostile_names_and_summaries_are_inert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[x]", "[bold red]", "\x1b[31mred", "two\nlines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plugin.py").write_text('"""[/bold] \\x1b[2J \u202e gone."""\n')
    answer = opbench(capsys, "list", "--operators", str(tmp_path))
    assert answer.status == 0
    assert len(answer.output.splitlines()) == 8 + 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", answer.output)
    assert "[bold red]" in answer.output
    assert "\\x1b[31mred" in answer.output


def test_schema_is_the_file_that_suites_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert opbench(capsys, "schema").output == (ROOT / "suites" / "suite.schema.json").read_text()


# What a terminal is not told in a pipe


SETTINGS = {
    "none": "",
    "NO_COLOR": "os.environ['NO_COLOR'] = '1'",
    "CI": "os.environ['CI'] = 'true'",
    "FORCE_COLOR": "os.environ['FORCE_COLOR'] = '1'",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_escape_codes_in_a_pipe_except_colours_that_are_asked_for(setting: str, workshop: Workshop) -> None:
    workshop.plugin("mine")
    suite = workshop.suite(["mine"])
    unset = "for name in ('NO_COLOR', 'CI', 'FORCE_COLOR'): os.environ.pop(name, None)\n"
    commands = [
        workshop.start(*arguments, before=unset + SETTINGS[setting])
        for arguments in (
            ("run", suite, "--out", "out"),
            ("count", "mine", "--input", "1x4x5x6", "--operators", "ops"),
            ("list",),
            ("lits",),
        )
    ]
    assert [command.status for command in commands] == [0, 0, 0, 2]
    for command in commands:
        said = command.output + command.errors
        if setting == "FORCE_COLOR":
            said = re.sub(r"\x1b\[[\d;]*m", "", said)
        assert "\x1b" not in said
        assert "\r" not in said
