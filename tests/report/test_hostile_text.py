"""Whatever a plugin is called and however it failed: no format obeys it, and each can be read by its own reader."""

import csv
import io
import json
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench import report
from opbench.formats import FORMATS, writer
from opbench.plain import one_line
from opbench.results import Measured, Skipped
from opbench.store import Run
from tests.report.made_up import counts, memory, record, run, timing
from tests.report.test_latex import LATEX_SPECIALS
from tests.report.test_markdown import texts as known

texts = st.one_of(
    known, st.sampled_from([*LATEX_SPECIALS, "=1+1", "+1", "-1", "@x", "＝1", 'a"b', "a,b", "a;b", "\r\n=1"])
)
TEXTS = [name for name, each in FORMATS.items() if each.written_by and not each.binary and not each.needs]


def hostile(name: str, reason: str) -> Run:
    return run(
        record(name, Measured(timings=(timing(1e-3),), memory=memory(3)), counts=counts(9, unknown=(reason,))),
        record(f"{name}2", Skipped(reason=reason), implementation="cuda", set_params={"a": reason}),
        title=name or "title",
        question=reason,
        warnings=(reason,),
        directory=name or "run",
    )


@pytest.mark.parametrize("form", TEXTS)
@settings(max_examples=40)
@given(texts, texts)
def test_no_character_does_anything_to_a_terminal(form: str, name: str, reason: str) -> None:
    text = writer(FORMATS[form])(report.view([hostile(name, reason)]))
    assert isinstance(text, str)
    # Isolates keep right-to-left words from turning the numbers beside them around; joiners make one sign of several.
    unseen = {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert unseen <= set("\n\u2068\u2069\u200c\u200d")
    assert text.count("\u2068") == text.count("\u2069")


@pytest.mark.parametrize("form", [form for form in TEXTS if FORMATS[form].suffix == ".csv"])
@settings(max_examples=40)
@given(texts, texts)
def test_no_cell_is_a_formula_and_every_line_has_every_cell(form: str, name: str, reason: str) -> None:
    text = writer(FORMATS[form])(report.view([hostile(name, reason)]))
    assert isinstance(text, str)
    head, *lines = list(csv.reader(io.StringIO(text, newline="")))
    assert lines
    for line in lines:
        assert len(line) == len(head)
        assert not [
            cell for cell in line if cell.startswith(tuple("=+-@＝＋－＠")) and not re.fullmatch(r"-?[\d.e-]+", cell)
        ]


@pytest.mark.parametrize("form", [form for form in TEXTS if FORMATS[form].suffix == ".json"])
@settings(max_examples=40)
@given(texts, texts)
def test_json_is_strict_and_holds_the_name(form: str, name: str, reason: str) -> None:
    text = writer(FORMATS[form])(report.view([hostile(name, reason)]))
    assert isinstance(text, str)
    assert text.isascii()

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    found = json.dumps(json.loads(text, parse_constant=refuse), ensure_ascii=False)
    assert json.dumps(one_line(name)[:900], ensure_ascii=False)[1:-1] in found
