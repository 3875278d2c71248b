"""LaTeX: a document that pdflatex compiles as it is, each of its tables ready to be cut out for a paper.

A table needs the packages booktabs, siunitx and graphicx, and stands in an environment of its own with a caption that
says all a reader must know: the setting, what is counted, what the intervals are, the machine. An interval is printed
as its two ends and never as ±, for no interval here is symmetric. The digits are those of the other formats; only the
unit is the same in the whole column, and stands in its head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count

from opbench.plain import plain
from opbench.report.labels import hardware
from opbench.report.latex_table import Part, parts
from opbench.report.latex_text import breakable, escape
from opbench.report.model import Block, Comparison, Section, Table, View

_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper, margin=2cm]{geometry}
\usepackage{booktabs, graphicx, siunitx}
\setlength{\parindent}{0pt}
\setlength{\parskip}{1ex}
\setlength{\belowcaptionskip}{1ex}
\sloppy
\begin{document}"""
_NEEDS = r"% \usepackage{booktabs, graphicx, siunitx}"
_FLOATS_AT_ONCE = 8
"""LaTeX holds back a limited number of tables that found no place yet, and gives up beyond."""
_LABEL_LENGTH = 60

_MACS = "One multiply-accumulate is 1 MAC and 2 FLOPs; dense MACs count the taps on padding too, as papers do"
_IN_DIMENSION = {
    "seconds": "A latency is the median over the processes that measured it.",
    "bytes": "Memory is what comes on top of what was there before: of inputs and parameters in the forward.",
}
_INTERVALS = "Brackets hold 95 % intervals, as their two ends because they are not symmetric."
_BEST = "Bold is the least of those compared, where its interval lies below all others."


def latex(view: View) -> str:
    """Write a report; all text in it is inert, whatever it holds."""
    labels = _Labels()
    parts = [f"% Made by {_comment(view.command)} --format latex", _PREAMBLE, *map(breakable, view.remarks)]
    if view.comparison is not None:
        parts += _section(view.comparison, labels)
    for section in view.sections:
        parts += _section(section, labels)
    return "\n\n".join([*parts, r"\end{document}"]) + "\n"


class _Labels:
    """Names for tables to be referred to, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, title: str) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower())[:_LABEL_LENGTH].strip("-") or "table"
        names = (f"tab:{stem}{f'-{number}' if number > 1 else ''}" for number in count(1))
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        return name


def _section(section: Section | Comparison, labels: _Labels) -> Iterator[str]:
    yield rf"\section*{{{escape(section.title)}}}"
    yield from (breakable(text) for text in (section.question, section.answer) if text)
    if section.alerts:
        yield _list(section.alerts)
    if isinstance(section, Comparison):
        yield _block(section.runs)
    tables = [(table, part, part_of) for table in section.tables for part, part_of in _numbered(list(parts(table)))]
    for number, (table, part, part_of) in enumerate(tables, start=1):
        machine = _machine(section) if part.dimensions & {"seconds", "bytes"} else ()
        caption = " ".join([*_setting(table, part_of), *_explained(table, part), *machine])
        yield _float(part, caption, labels.of(table.title))
        if number % _FLOATS_AT_ONCE == 0:
            yield r"\clearpage"
    yield r"\clearpage"
    yield from map(_block, section.blocks)


def _numbered(parts: Sequence[Part]) -> list[tuple[Part, str]]:
    number = len(parts)
    return [(part, f"part {index} of {number}" if number > 1 else "") for index, part in enumerate(parts, start=1)]


def _setting(table: Table, part_of: str) -> Iterator[str]:
    title = f"{table.title[:1].upper()}{table.title[1:]}"
    yield f"{title} ({part_of})." if part_of else f"{title}."


def _explained(table: Table, part: Part) -> Iterator[str]:
    """What the numbers of a part mean; explains what appears, and nothing else."""
    if part.keys & {"macs", "flops", "macs_in_bounds"} or "MACs" in table.title:
        yield _MACS + ("; MACs in bounds do not." if "macs_in_bounds" in part.keys else ".")
    if "parameters" in part.keys:
        yield "Parameters are every learnable scalar, norms included."
    yield from (text for dimension, text in _IN_DIMENSION.items() if dimension in part.dimensions)
    if part.keys & {"latency_interval", "ratio_interval"}:
        yield _INTERVALS
    if part.bounds:
        yield "≥ is a lower bound."
    if part.best:
        yield _BEST


def _machine(section: Section | Comparison) -> Iterator[str]:
    if isinstance(section, Section):
        versions = section.run.header.environment.versions
        torch = f", PyTorch {versions['torch']}" if "torch" in versions else ""
        yield plain(f"Measured on {hardware(section.run)}{torch}.")


def _float(part: Part, caption: str, label: str) -> str:
    footnotes = [rf"{escape(mark)}\,{breakable(text)}" for mark, text in part.footnotes]
    return "\n".join(
        [
            _NEEDS,
            r"\begin{table}[!htbp]",
            r"\centering\footnotesize",
            rf"\caption{{{breakable(caption)}}}",
            rf"\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            *part.lines[:-1],
            f"{part.lines[-1]}}}",
            *([r"\par\smallskip\raggedright", *(rf"{line}\par" for line in footnotes)] if footnotes else []),
            r"\end{table}",
        ]
    )


def _block(block: Block) -> str:
    return f"\\subsection*{{{escape(block.title)}}}\n{_list(block.lines)}"


def _list(lines: Sequence[str]) -> str:
    items = [rf"\item {breakable(line)}" for line in lines]
    return "\n".join([r"\begin{itemize}", *(items or [r"\item[]"]), r"\end{itemize}"])


def _comment(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
