"""HTML that cannot forget to escape: every string is text unless it is `Html`."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from mesaprobe.report.wording import NOT_KNOWN

_VOID = {"meta", "link", "input", "br", "hr"}


class Html(str):
    """Markup that was built by `element`, and so is safe to put into the page as it stands."""


def escape(value: Any) -> Html:
    """`value` as HTML: untouched if it is Html already, else its text with `& < > " '` escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """The parts one after another, each escaped unless it is Html."""
    return Html(escape(separator).join(escape(part) for part in parts))


def element(tag: str, *children: Any, **attributes: Any) -> Html:
    """One HTML element. In attribute names `_` stands for `-` and a trailing `_` is dropped; True gives a bare
    attribute, None and False give none.

    >>> element("a", "R&D", href="#top", class_="link")
    '<a href="#top" class="link">R&amp;D</a>'
    """
    written = ""
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        written += f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def paragraph(*children: Any, class_: str | None = None) -> Html:
    """A paragraph; words and Html parts are joined as they stand."""
    return element("p", *children, class_=class_)


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    words: Sequence[int] = (0,),
    min_width: int | None = None,
) -> Html:
    """A table in a box of its own that scrolls sideways where the page is narrow.

    The first cell of a row is its heading. Columns whose index is in `words` hold text; the others hold numbers and
    are set flush right. A cell that is `NOT_KNOWN` is set apart. Below `min_width` pixels the table scrolls.
    """
    kinds = ["words" if column in words else "number" for column in range(len(head))]
    header = element("tr", *(element("th", title, scope="col", class_=kinds[i]) for i, title in enumerate(head)))
    body = [
        element(
            "tr",
            *(
                element("th", cell, scope="row", class_=kinds[i])
                if i == 0
                else element("td", cell, class_=f"{kinds[i]} unknown" if cell == NOT_KNOWN else kinds[i])
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    style = f"min-width:{min_width}px" if min_width else None
    return element(
        "div",
        element("table", element("caption", caption), element("thead", header), element("tbody", *body), style=style),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """A list of names and values."""
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", value, class_="unknown" if value == NOT_KNOWN else None))
            for name, value in pairs
        ),
        class_="facts",
    )


def details(summary: str, *children: Any) -> Html:
    """Something that opens on a click."""
    return element("details", element("summary", summary), *children)
