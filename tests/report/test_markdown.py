"""Markdown: whatever a plugin is called and however it failed, the page keeps its shape and says just that."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from opbench import report
from opbench.plain import plain
from opbench.report.columns import NAME_LIMIT
from opbench.report.to_markdown import escape
from opbench.results import Measured, Skipped
from tests.report.made_up import COLD, counts, memory, record, run, timing

HOSTILE = [
    "a|b",
    "`code`",
    "``",
    "<script>alert(1)</script>",
    "line\nbreak",
    "[/x]",
    "[bold red]x",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "<http://evil.example>",
    "[x]: http://evil.example",
    "\x1b[31mred\x1b[0m",
    "**bold** _it_ ~~gone~~ __init__ a_b_c",
    "&lt;b&gt; &#124; &amp;",
    "# heading #",
    "- item",
    "1. item",
    "2) item",
    "+ item",
    "---",
    "===",
    "[ ] task",
    "\\|",
    "\\",
    "a\\",
    "$x$",
    "🚀👩‍👩‍👧",
    "שלום 12",
    "\u202egnp.exe",
    "=cmd()",
    "x" * 5000,
    "@somebody, ask someone@example.org",
    "#12 owner/repository#12 GH-12 gh-12",
    "www.example.org WWW.example.org",
    "a@<b>",
]
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(alphabet="|`*_[]()<>!#&;\\~$-+=.:1 a\n\t\r\x00\x1b/^{}\"'@wG", max_size=30),
    st.text(max_size=30),
)


def parse(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def text_of(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type == "text")


def visible(inline: Token) -> list[Token]:
    """All but the comments that part what a host would link."""
    return [child for child in inline.children or [] if (child.type, child.content) != ("html_inline", "<!-- -->")]


@given(texts)
def test_escaped_text_means_itself_in_every_place(text: str) -> None:
    line = plain(text)
    if not line:
        return
    for before, after in (("", ""), ("- ", ""), ("# ", ""), ("> - ", ""), ("| ", " |\n| --- |"), ("**", "** ¹")):
        tokens = parse(f"{before}{escape(line)}{after}\n")
        inlines = [token for token in tokens if token.type == "inline"]
        assert [text_of(inline).removesuffix(" ¹") for inline in inlines] == [line]
        allowed = {"text", "strong_open", "strong_close"} if before == "**" else {"text"}
        assert {child.type for child in visible(inlines[0])} <= allowed


@settings(max_examples=60)
@given(texts, texts)
def test_hostile_names_and_reasons_break_nothing(name: str, reason: str) -> None:
    hostile = run(
        record(name, Skipped(reason=reason)),
        record("innocent", Measured(timings=(timing(1e-3),), memory=memory(3)), counts=counts(1000)),
        title=name or "title",
        question=reason,
        warnings=(reason,),
        baseline=name,
        directory=name or "run",
    )
    tokens = parse(report.markdown(report.view([hostile])))
    assert not {"html_block", "fence", "code_block", "hr", "image", "lheading_open"} & {token.type for token in tokens}
    children = {child.type for token in tokens for child in visible(token)}
    assert children <= {"text", "strong_open", "strong_close", "code_inline"}
    rows = [index for index, token in enumerate(tokens) if token.type == "tr_open"]
    columns = sum(token.type == "th_open" for token in tokens)
    assert len(rows) == 3
    assert sum(token.type == "td_open" for token in tokens) == 2 * columns
    cells = [text_of(tokens[index + 1]) for index, token in enumerate(tokens) if token.type == "td_open"]
    assert cells[0] == plain(name, NAME_LIMIT)
    assert cells[columns - 1] == f"skipped: {plain(reason, 100) or 'no reason given'}"


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("decorated by @torch.jit", "@torch"),
        ("someone@example.org", "@example"),
        ("see pytorch#123, #7", r"#\d"),
        ("as GH-12 and gh-12", r"(?i)gh-\d"),
        ("at www.example.org, WWW.example.org", r"(?i)www\."),
    ],
)
def test_nothing_is_left_that_a_host_would_link(text: str, linked: str) -> None:
    """GitHub looks for these in each stretch of text that no tag or comment interrupts."""
    (inline,) = [token for token in parse(escape(text)) if token.type == "inline"]
    assert re.search(linked, text)
    assert not any(re.search(linked, child.content) for child in inline.children or [])
    assert text_of(inline) == text


def test_ordinary_names_and_numbers_are_left_as_they_are() -> None:
    for text in ("large_kernel_depthwise/native", "36.9 k", "[1.99, 2.01] ms", "0.412×", "≥ 3.21 M", "n/a", "50 %"):
        assert escape(text) == text


def test_best_is_bold_and_the_mark_stands_outside() -> None:
    small = record("small", Measured(memory=memory(3)), counts=counts(10))
    large = record("large", Measured(memory=memory(5)), counts=counts(20, unknown=("aten::mystery",)))
    lines = report.markdown(report.view([run(small, large)])).splitlines()
    cells = {line.split()[1]: line for line in lines if line.startswith(("| small", "| large"))}
    assert "**10**" in cells["small"]
    assert "≥ 20 ¹" in cells["large"]
    assert "**" not in cells["large"]


@pytest.mark.parametrize("character", ["`", "``"])
def test_command_with_backticks_stays_code(character: str) -> None:
    view = report.view([run(record(outcome=Measured(timings=(timing(1e-3, COLD),))), directory=f"a{character}b")])
    (code,) = [
        child for token in parse(report.markdown(view)) for child in token.children or [] if child.type == "code_inline"
    ]
    assert code.content == f"opbench report 'a{character}b' --format markdown"
