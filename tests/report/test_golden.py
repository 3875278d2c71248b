"""The whole reports of made-up runs, as text. OPBENCH_UPDATE_GOLDEN=1 writes the files anew; read the difference."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from opbench import report
from opbench.report.to_bencher import bencher
from opbench.report.to_github_action import github_action_benchmark
from opbench.report.to_latex import latex
from opbench.report.to_pytest_benchmark import pytest_benchmark
from opbench.report.to_timm import timm_csv
from tests.report import made_up

GOLDEN = Path(__file__).parent / "golden"
RUNS = {
    "comparison": (made_up.comparison(),),
    "scan": (made_up.scan(),),
    "gpu": (made_up.gpu(),),
    "machines": made_up.machines(),
}


def on_terminal(view: report.View, width: int) -> str:
    screen = io.StringIO()
    report.show(view, Console(file=screen, width=width, force_terminal=True, color_system=None))
    return screen.getvalue()


FORMATS: dict[str, Callable[[report.View], str]] = {
    "md": report.markdown,
    "tex": latex,
    "timm.csv": timm_csv,
    "csv": report.csv_text,
    "json": report.json_text,
    "80.txt": lambda view: on_terminal(view, 80),
    "160.txt": lambda view: on_terminal(view, 160),
}
EXPORTS: dict[str, Callable[[report.View], str]] = {
    "pytest-benchmark.json": pytest_benchmark,
    "github-action-benchmark.json": github_action_benchmark,
    "bencher.json": bencher,
}
"""Of a single run."""
WRITTEN = [
    *((name, suffix) for name in RUNS for suffix in FORMATS),
    *((name, suffix) for name in RUNS if len(RUNS[name]) == 1 for suffix in EXPORTS),
]


@pytest.mark.parametrize(("name", "suffix"), WRITTEN)
def test_report_reads_as_it_did(name: str, suffix: str) -> None:
    path = GOLDEN / f"{name}.{suffix}"
    text = {**FORMATS, **EXPORTS}[suffix](report.view(RUNS[name]))
    if "OPBENCH_UPDATE_GOLDEN" in os.environ:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
