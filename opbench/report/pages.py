"""What all HTML pages share: templates that escape, one look, and a policy that lets a page load nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources

import jinja2
from markupsafe import Markup

_FOLDER = resources.files("opbench.report") / "page"


def text(name: str) -> str:
    """A file that ships with the pages: a script, a style, a template."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def style() -> str:
    """The look of all pages."""
    return text("page.css")


@functools.cache
def template(name: str) -> jinja2.Template:
    """A template in which whatever is not marked safe is escaped, and a missing name is a fault."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(text), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template(name)


def policy(style: str, scripts: Sequence[str] = ()) -> str:
    """The page may run these scripts and use this style, known by their hashes, and nothing else from anywhere."""
    allowed = f"; script-src {' '.join(map(_hash, scripts))}" if scripts else ""
    return f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {_hash(style)}{allowed}"


def json_in_page(value: object) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _breakable(text: str) -> Markup:
    """Escaped, and free to go on in the next line where a name has a joint."""
    return Markup("<wbr>").join(re.split(r"(?<=[_:,])(?=.)|(?=/)", text))
