"""Records to tables, at any time and on any machine: nothing is measured again, and torch is never imported.

runs -> `view` -> a `View` of ready strings -> `markdown`, `csv_text`, `json_text`, or `show` on a terminal
"""

from opbench.report.model import View
from opbench.report.sections import Options, view
from opbench.report.terminal import show
from opbench.report.to_csv import csv_text
from opbench.report.to_json import json_text
from opbench.report.to_markdown import markdown

__all__ = ["Options", "View", "csv_text", "json_text", "markdown", "show", "view"]
