"""A whole HTML file that needs no network: head, style, body, and the script that draws the figures."""

from importlib.resources import files

from plotly.offline import get_plotlyjs

from mesaprobe.report.controls import SCRIPT
from mesaprobe.report.markup import Html, element, paragraph


def document(title: str, description: str, *body: Html, figures: bool = True) -> str:
    """The file as text; figures in the body are drawn by plotly, which is part of it unless `figures` is False."""
    style = files("mesaprobe.report").joinpath("style.css").read_text(encoding="utf-8")
    scripts = [
        element("noscript", paragraph("The figures need JavaScript; every table and sentence reads without it.")),
        element("script", Html(get_plotlyjs())),
        element("script", Html(SCRIPT)),
    ]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en-GB">',
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", title),
            element("meta", name="description", content=description),
            element("link", rel="icon", href="data:,"),
            element("style", Html(style)),
        ),
        "<body>",
        *body,
        *(scripts if figures else ()),
        "</body></html>\n",
    ]
    return "\n".join(parts)
