"""Reporting is light: it works where torch is not installed, and on large runs."""

import subprocess
import sys
from pathlib import Path

from opbench import report, store
from opbench.cases import Nchw
from opbench.results import Measured
from tests.report.made_up import comparison, counts, memory, record, run, timing


def test_a_stored_run_is_reported_without_torch_and_pandas(tmp_path: Path) -> None:
    made = comparison()
    store.create(tmp_path, made.header)
    for each in made.records:
        store.append(tmp_path, each)
    script = f"""
import sys
from pathlib import Path
from opbench import report, store
from opbench.formats import FORMATS, writer
view = report.view([store.read(Path({str(tmp_path)!r}))])
for form in FORMATS.values():
    if form.written_by and not form.needs:
        assert "depthwise" in writer(form)(view), form.name
from rich.console import Console
report.show(view, Console(), everything=True)
heavy = {{"torch", "pandas", "fvcore", "triton", "cupy"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "large_kernel_depthwise/native" in done.stdout


def test_five_hundred_records_make_a_report() -> None:
    records = [
        record(
            f"operator{index % 25}",
            Measured(timings=(timing(1e-4 * (index + 1)),), memory=memory(1 + index % 7)),
            shape=Nchw(1, 8, 4 + index // 25, 4),
            counts=counts(1000 + index),
        )
        for index in range(500)
    ]
    view = report.view([run(*records, baseline="operator0")])
    # One scan of the times, one of the memory, and a table for each of the twenty shapes.
    assert len(view.sections[0].tables) == 22
    assert report.markdown(view).count("\n| operator24 ") == 22
    assert report.csv_text(view).count("\n") == 501
