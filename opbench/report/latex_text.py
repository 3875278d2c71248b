"""Text for LaTeX: every character means itself or has a visible stand-in, so that pdflatex takes whatever it is given.

The result is ASCII and needs no package, neither in the default font encoding nor in T1.
"""

from __future__ import annotations

import re
import unicodedata

_LONG_WORD = 30
"""Longer words may be broken, lest they leave the page."""
_PIECES = re.compile(r".{1,16}?[/_:,.=-]+|.{1,8}", re.DOTALL)
"""Where it may: after a separator, else anywhere."""
_SOURCE_WIDTH = 110
"""TeX cannot read a line of more than some 200 000 characters."""

_ISOLATES = "\u2066\u2067\u2068\u2069"
"""They order right-to-left words, of which only stand-ins are left."""

_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "'": "{'}",
    "`": r"\`{}",
    "\u00a0": "~",
    "µ": r"$\mu$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∼": r"$\sim$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "−": "$-$",
    "∈": r"$\in$",
    "∑": r"$\sum$",
    "∏": r"$\prod$",
    "√": r"$\surd$",
    "∂": r"$\partial$",
    "∇": r"$\nabla$",
    "°": r"$^\circ$",
    "…": r"\ldots{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‐": "-",
    "‑": "-",
    "‘": "{`}",
    "’": "{'}",
    "“": "{``}",
    "”": "{''}",
    "•": r"\textbullet{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "£": r"\pounds{}",
    "¡": r"\textexclamdown{}",
    "¿": r"\textquestiondown{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    **{character: rf"\textsuperscript{{{digit}}}" for digit, character in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{character: f"$_{digit}$" for digit, character in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **dict.fromkeys(_ISOLATES, ""),
}
_ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0323": r"\d",
    "\u0327": r"\c",
}
_GREEK = {
    **{letter: rf"$\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρςστυφχψω", (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    ), strict=True)},
    **{letter: rf"$\{name}$" for letter, name in zip("ΓΔΘΛΞΠΣΥΦΨΩ", (
        "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
    ), strict=True)},
    **dict(zip("οΑΒΕΖΗΙΚΜΝΟΡΤΧ", "oABEZHIKMNOPTX", strict=True)),
}  # fmt: skip


def escape(text: str) -> str:
    """Make one line of text mean itself, in a cell, a caption, a heading or a paragraph."""
    return _after_a_command(_signs(text))


def breakable(text: str) -> str:
    """The same, for a paragraph: words too long for a line may be broken anywhere, and so is the source."""
    lines = [""]
    for word in map(_word, unicodedata.normalize("NFC", text).split(" ")):
        if lines[-1] and len(lines[-1]) + len(word) > _SOURCE_WIDTH:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return _after_a_command("\n".join(lines))


def _word(word: str) -> str:
    if len(word) <= _LONG_WORD:
        return _signs(word)
    return "\\allowbreak{}%\n".join(map(_signs, _PIECES.findall(word)))


def _signs(text: str) -> str:
    signs = "".join(map(_sign, unicodedata.normalize("NFC", text)))
    # Hyphens and commas side by side would be drawn as a dash and a quotation mark.
    return re.sub(r"([-,])(?=\1)", r"\1{}", signs)


def _after_a_command(text: str) -> str:
    """A bracket or a star at the beginning would be taken for an argument of the command before it."""
    return re.sub(r"^\s*([\[*])", r"{\1}", text)


def _sign(character: str) -> str:
    known = _SIGNS.get(character, _GREEK.get(character))
    if known is not None:
        return known
    if " " <= character <= "~":
        return character
    return _accented(character) or rf"\texttt{{<U+{ord(character):04X}>}}\allowbreak{{}}"


def _accented(character: str) -> str:
    """A Latin letter with one accent; '' for anything else."""
    parts = unicodedata.normalize("NFD", character)
    letter, accent = parts[0], _ACCENTS.get(parts[1:])
    if accent is None or not letter.isascii() or not letter.isalpha():
        return ""
    # The dot would stand below the accent.
    dotless = {"i": r"\i", "j": r"\j"}.get(letter, letter)
    return f"{accent}{{{dotless}}}"
