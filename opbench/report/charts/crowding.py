"""What is left out of a drawing so that it can be read: bars beyond the first few dozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from opbench.report.charts.model import Value

MOST_BARS = 40
"""Of one setting: a page's height or two."""


def first_bars(drawing: Any, key: str) -> Any:
    """The drawing with the bars of the least values alone, in each setting; those without a value come last."""
    import altair as alt

    return (
        drawing.transform_calculate(order_=f"isValid(datum['{key}']) ? datum['{key}'] : 1e300")
        .transform_window(rank_="row_number()", sort=[alt.SortField("order_")], groupby=["setting"])
        .transform_filter(f"datum.rank_ <= {MOST_BARS}")
    )


def is_crowded(data: Iterable[Mapping[str, Value]]) -> bool:
    """Whether some setting has more rows than a drawing has bars."""
    return _most(data) > MOST_BARS


def remark(data: Iterable[Mapping[str, Value]]) -> str:
    """' Drawn are the 40 least of 500; the table has all.'; '' where all are drawn."""
    most = _most(data)
    return f" Drawn are the {MOST_BARS} least of {most}; the table has all." if most > MOST_BARS else ""


def _most(data: Iterable[Mapping[str, Value]]) -> int:
    return max(Counter(datum["setting"] for datum in data).values(), default=0)
