"""LaTeX: whatever a plugin is called and however it failed, the document compiles; a column has one unit."""

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings

from opbench import report
from opbench.cases import Nchw
from opbench.report.latex_text import breakable, escape
from opbench.report.to_latex import latex
from opbench.results import Measured, Skipped
from tests.report.made_up import comparison, counts, gpu, machines, memory, record, run, scan, timing
from tests.report.test_markdown import HOSTILE, texts

LATEX_SPECIALS = ["\\input{/etc/passwd}", "\\", "50 % & more", "#1", "a_b^c~d", "$x$", "{", "}", "--", "[*]", "%"]
UNICODE = ["µ×÷±≥≤∞→", "⁰¹²³₄₅", "αβγΔΩς", "éñüßøåłÇ", "“quoted” – and — more…", "中文", "a\u0301\u0302", "\u2066"]

COMMANDS = {
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "ttfamily", "char"),
    *("mu", "times", "div", "pm", "cdot", "geq", "leq", "neq", "approx", "sim", "infty", "rightarrow", "leftarrow"),
    *("in", "sum", "prod", "surd", "partial", "nabla", "circ", "ldots", "textendash", "textemdash", "textbullet"),
    *("S", "P", "copyright", "pounds", "textexclamdown", "textquestiondown", "ss", "ae", "AE", "oe", "OE", "o", "O"),
    *("l", "L", "i", "j", "u", "r", "H", "v", "d", "c", "textsuperscript", "texttt", "allowbreak"),
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "nu", "xi"),
    *("pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta"),
    *("Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
}


@given(texts)
def test_escaped_text_holds_no_command_but_those_that_draw_a_character(text: str) -> None:
    for escaped in (escape(text), breakable(text)):
        assert escaped.isascii()
        assert set(re.findall(r"\\([A-Za-z]+)", escaped)) <= COMMANDS
        assert escaped.count("{") - escaped.count(r"\{") == escaped.count("}") - escaped.count(r"\}")
        bare = re.sub(r"\\.", "", escaped)
        assert not re.search(r"[%#&^]", bare.replace("$^", "$").replace("{}%\n", ""))
        assert bare.count("~") == text.count("\u00a0")
        assert bare.count("$") % 2 == 0
        assert not escaped.startswith(("[", "*"))
        assert "--" not in escaped


def test_what_has_no_letter_in_latex_is_named() -> None:
    assert escape("\u202e🚀") == r"\texttt{<U+202E>}\allowbreak{}\texttt{<U+1F680>}\allowbreak{}"
    assert escape("50 % of 2×10³ µs") == r"50 \% of 2$\times$10\textsuperscript{3} $\mu$s"
    assert escape("Möbius ñ") == r"M\"{o}bius \~{n}"


def table_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table whose caption has the heading, as they are written."""
    found = next(part for part in text.split(r"\begin{table}")[1:] if heading in part)
    body = found[found.index(r"\midrule") : found.index(r"\bottomrule")].splitlines()[1:]
    return [[cell.strip() for cell in line.removesuffix(r"\\").split(" & ")] for line in body]


def test_a_column_has_one_unit_and_the_digits_of_the_other_formats() -> None:
    slow = record("slow", Measured(timings=(timing(5.7e-3),), memory=memory(3)), counts=counts(5_720_000))
    fast = record("fast", Measured(timings=(timing(1.45e-4),), memory=memory(2048)), counts=counts(123))
    view = report.view([run(slow, fast)])
    text = latex(view)
    assert "**145 µs**" in report.markdown(view)
    rows = {row[0]: row for row in table_of(text, "Layer, forward")}
    assert r"{latency} & " in text
    assert rows["fast"][rows["slow"].index("5.70")] == r"\bfseries 0.145"
    assert r"(\si{\milli\second})" in text
    assert r"\si{\micro\second}" not in text


def test_an_interval_is_its_two_ends_and_never_a_plus_or_minus() -> None:
    text = latex(report.view([comparison()]))
    assert "[5.75, 6.68]" in text
    assert not [part for part in text.split(r"\begin{table}") if r"\pm" in part.split(r"\end{table}")[0]]
    assert "95 \\% intervals, as their two ends" in " ".join(text.split())


def test_a_caption_says_the_setting_the_counting_and_the_machine() -> None:
    captions = captions_of(latex(report.view([comparison()])))
    assert len(set(re.findall(r"\\label\{(.*)\}", latex(report.view([comparison()]))))) == len(captions)
    assert captions[0].startswith("Layer, forward, 8x64x56x56, float32, contiguous, cold cache, 1 thread, cpu, eager")
    assert "One multiply-accumulate is 1 MAC and 2 FLOPs" in captions[0]
    assert any("Measured on Imaginary Processor 9000, PyTorch 2.13.0" in caption for caption in captions)
    assert any("Imaginary Graphics 9000" in caption for caption in captions_of(latex(report.view([gpu()]))))


def captions_of(text: str) -> list[str]:
    return [" ".join(part.split(r"\label")[0].split()).rstrip("}") for part in text.split(r"\caption{")[1:]]


def test_why_something_was_not_measured_stands_below_the_table() -> None:
    text = latex(report.view([comparison()]))
    assert re.search(r"involution/cuda\\,\\textsuperscript\{\d\}", text)
    assert r"skipped: no CUDA device\par" in text


# With an engine


def hostile() -> list[str]:
    names = [*HOSTILE, *LATEX_SPECIALS, *UNICODE]
    records = [
        record(
            name,
            Measured(timings=(timing(1e-3 * (index + 1)),), memory=memory(3 + index))
            if index % 2
            else Skipped(reason=name),
            set_params={"a": name} if name else None,
            counts=counts(1000 * index + 1, unknown=(name,)),
        )
        for index, name in enumerate(names)
    ]
    made = run(*records, title=names[0], question=" ".join(names), warnings=tuple(names), directory=LATEX_SPECIALS[0])
    return [
        latex(report.view([made])),
        latex(report.view([run(records[0], title=name, baseline=name) for name in names[:1]])),
    ]


def many_tables() -> str:
    """More than LaTeX holds back at once, and one that is longer than a page."""
    records = [
        record(
            f"operator{index % 90}",
            Measured(timings=(timing(1e-4 * (index + 1)),)),
            shape=Nchw(1, 8, 4 + index // 90, 4),
        )
        for index in range(360)
    ]
    return latex(report.view([run(*records)]))


def every_character() -> str:
    points = [*range(0x20, 0x2400), *range(0xFB00, 0xFB50), 0x1F680, 0x10FFFF]
    line = "".join(chr(point) for point in points if unicodedata.category(chr(point)) != "Cs")
    return latex(report.view([run(record("x" + line[:40]), title=line[:180], question=line[:1900], warnings=(line,))]))


def compiled(text: str, folder: Path) -> str:
    """Run pdflatex and give its log."""
    engine = shutil.which("pdflatex")
    if engine is None:
        pytest.skip("pdflatex is not installed")
    missing = subprocess.run(["kpsewhich", "siunitx.sty", "booktabs.sty"], capture_output=True, text=True, check=False)
    if missing.stdout.count("\n") < 2:
        pytest.skip("pdflatex has no siunitx or no booktabs")
    (folder / "report.tex").write_text(text, encoding="ascii")
    command = [engine, "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=200, check=False)
    log = (folder / "report.log").read_text(encoding="latin-1")
    assert done.returncode == 0, re.findall(r"^!.*\n.*\n.*", log, re.MULTILINE)
    return log


@pytest.mark.parametrize("text", [latex(report.view(runs)) for runs in ([comparison()], [scan()], [gpu()], machines())])
def test_a_report_compiles_as_it_is_and_fits_the_page(text: str, tmp_path: Path) -> None:
    log = compiled(text, tmp_path)
    assert "Overfull" not in log
    assert "Float too large" not in log


@pytest.mark.parametrize(
    "text", [*hostile(), every_character(), many_tables()], ids=["names", "title", "characters", "tables"]
)
def test_hostile_text_and_many_tables_compile(text: str, tmp_path: Path) -> None:
    assert "Float too large" not in compiled(text, tmp_path)


@settings(max_examples=60)
@given(texts, texts)
def test_hostile_names_and_reasons_keep_the_shape_of_the_tables(name: str, reason: str) -> None:
    made = run(
        record(name, Skipped(reason=reason)),
        record("innocent", Measured(timings=(timing(1e-3),), memory=memory(3)), counts=counts(1000)),
        title=name or "title",
        question=reason,
        warnings=(reason,),
        baseline=name,
        directory=name or "run",
    )
    text = latex(report.view([made]))
    assert text.isascii()
    for part in text.split(r"\begin{table}")[1:]:
        head, body = part[part.index(r"\toprule") : part.index(r"\bottomrule")].split(r"\midrule")
        rows = [row for row in (head + body).split("\\\\\n") if row.strip()]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def test_footnotes_of_each_table_are_numbered_from_one() -> None:
    for part in latex(report.view([comparison()])).split(r"\begin{table}")[1:]:
        below = part.split(r"\end{tabular}")[1].split(r"\end{table}")[0]
        numbers = re.findall(r"^\\textsuperscript\{(\d+)\}", below, re.MULTILINE)
        assert numbers == [str(index) for index in range(1, len(numbers) + 1)]
