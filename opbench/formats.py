"""The formats of a report: what each is for, and what writes it. Data only, so that `--help` imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opbench.errors import OpbenchError, said

if TYPE_CHECKING:
    from opbench.report import View

Writer = Callable[["View"], str | bytes]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write a report."""

    name: str
    purpose: str
    """What it is for, in the few words that `--help` has room for."""
    suffix: str = ""
    """Of the files it is usually kept in; '' for what is not kept in a file."""
    written_by: str = ""
    """'module:function' below `opbench.report`, imported when it is asked for; '' for what the screen shows."""
    for_readers: bool = False
    """Whether people read it, and not programs or typesetters."""
    binary: bool = False
    """Whether a terminal would show rubbish."""
    needs: tuple[str, ...] = ()
    """Packages that opbench does not depend on."""
    extra: str = ""
    """The extra of opbench that installs them."""


FORMATS = {
    each.name: each
    for each in (
        Format(name="table", purpose="the tables alone, for the screen", for_readers=True),
        Format(
            name="markdown",
            purpose="a page for a repository or an issue",
            suffix=".md",
            written_by="to_markdown:markdown",
            for_readers=True,
        ),
        Format(
            name="html",
            purpose="a page with charts and a table that sorts, filters and changes its baseline",
            suffix=".html",
            written_by="to_html:html",
            for_readers=True,
            needs=("altair", "vl_convert"),
            extra="html",
        ),
        Format(
            name="latex",
            purpose="tables for a paper; compiles as it is",
            suffix=".tex",
            written_by="to_latex:latex",
        ),
        Format(
            name="csv",
            purpose="every number, a line for each record and policy",
            suffix=".csv",
            written_by="to_csv:csv_text",
        ),
        Format(
            name="parquet",
            purpose="the same with a type for each column; into a file or a pipe",
            suffix=".parquet",
            written_by="to_parquet:parquet",
            binary=True,
            needs=("pyarrow",),
            extra="parquet",
        ),
        Format(
            name="json",
            purpose="the same with the machine and the settings",
            suffix=".json",
            written_by="to_json:json_text",
        ),
        Format(
            name="timm",
            purpose="CSV with the columns of timm's benchmark results",
            suffix=".csv",
            written_by="to_timm:timm_csv",
        ),
        Format(
            name="pytest-benchmark",
            purpose="one run, for pytest-benchmark compare",
            suffix=".json",
            written_by="to_pytest_benchmark:pytest_benchmark",
        ),
        Format(
            name="github-action-benchmark",
            purpose="one run, for the action's customSmallerIsBetter",
            suffix=".json",
            written_by="to_github_action:github_action_benchmark",
        ),
        Format(
            name="bencher",
            purpose="one run, for bencher run --adapter json",
            suffix=".json",
            written_by="to_bencher:bencher",
        ),
    )
}
"""By name, in the order in which one meets them."""


def writer(form: Format) -> Writer:
    """Import what writes a format.

    Raises:
        OpbenchError: a package is missing that only this format needs, or it cannot be imported.
    """
    for package in form.needs:
        try:
            importlib.import_module(package)
        except ImportError as error:
            missing = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {said(error)}"
            raise OpbenchError(
                f"--format {form.name} needs {package}, which {missing}; pip install 'opbench[{form.extra}]'"
            ) from error
    module, _, function = form.written_by.partition(":")
    found: Writer = getattr(importlib.import_module(f"opbench.report.{module}"), function)
    return found
