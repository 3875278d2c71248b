"""JSON: everything a program may want, in one strict document.

    {"schema": 1, "command": "opbench report …",
     "comparison": [{…}],
     "runs": [{"directory", "title", "question", "answer", "alerts", "baseline",
               "metrics", "measure", "environment", "planned", "missing",
               "rows": [{…}]}]}

`rows` are those of the CSV, with lists and mappings as such; `comparison` is what several runs have in common, each
divided by the first, and empty for one run. The keys of both are told in `opbench.report.tidy`.
"""

from __future__ import annotations

import dataclasses
import json

from opbench.report.model import Section, View
from opbench.report.tidy import tidy, tidy_comparison

SCHEMA_VERSION = 1


def json_text(view: View) -> str:
    """Write the document, ASCII only, so that no character of a name does anything to a terminal."""
    document = {
        "schema": SCHEMA_VERSION,
        "command": f"{view.command} --format json",
        "comparison": tidy_comparison(view.comparison) if view.comparison else [],
        "runs": [_run(section) for section in view.sections],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _run(section: Section) -> dict[str, object]:
    header = section.run.header
    return {
        "directory": str(section.run.directory),
        "title": header.title,
        "question": header.question,
        "answer": section.answer,
        "alerts": section.alerts,
        "baseline": section.baseline,
        "metrics": header.metrics,
        "measure": header.measure.model_dump(mode="json"),
        "environment": dataclasses.asdict(header.environment),
        "planned": len(header.plan),
        "missing": [f"{case.id} ({implementation})" for case, implementation in section.run.missing],
        "rows": tidy(section),
    }
