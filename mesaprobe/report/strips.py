"""Strips: a number, its interval and the numbers that it is compared with, on one axis. Drawn without a script.

Positions are percentages of the strip's width, so that a strip fits any page and its words never stretch. Colours
are classes of style.css; shapes and lanes repeat what colours say.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mesaprobe.report.markup import Html, element, join
from mesaprobe.report.wording import known, number

_EDGE = 3.0
"""Percent of the width left free on both sides, so that marks at the ends are whole."""
_AXIS = 22
"""Pixels for the axis with its numbers."""


@dataclass(frozen=True)
class Mark:
    """One number in a lane, with its 95 % interval if it has one."""

    value: float
    words: str
    """What a pointer or a screen reader is told."""
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Lane:
    """Marks in one row of a strip, all of one kind."""

    kind: str
    """Class of style.css: search, heuristic, subject, or subject0 ... in a comparison."""
    marks: Sequence[Mark]
    shape: Literal["circle", "square", "bar", "diamond"]
    height: int = 18


def strip(lanes: Sequence[Lane], *, label: str, limits: Iterable[tuple[float, str]] = ()) -> Html:
    """Lanes above one axis that fits them all and 0; `limits` are thresholds, each with its class of style.css.

    `label` says in words what the strip shows. Marks without a known value are left out.
    """
    limits = [(value, kind) for value, kind in limits if known(value)]
    axis = _Axis.around([*_values(lanes), *(value for value, _ in limits)])
    total = sum(lane.height for lane in lanes)
    parts = [_line(axis(0.0), 0, axis(0.0), total, "zero"), _line(0.0, total, 100.0, total, "axis")]
    parts += [_line(axis(value), 0, axis(value), total, f"limit {kind}") for value, kind in limits]
    top = 0
    for lane in lanes:
        parts += [_mark(mark, lane, axis, top + lane.height / 2) for mark in lane.marks if known(mark.value)]
        top += lane.height
    for tick in axis.ticks:
        parts.append(_line(axis(tick), total, axis(tick), total + 4, "axis"))
        parts.append(element("text", number(tick), x=_percent(axis(tick)), y=total + 16, text_anchor="middle"))
    return element("svg", *parts, class_="strip", height=total + _AXIS, role="img", aria_label=label)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float]) -> "_Axis":
        low, high = min([0.0, *values]), max([0.0, *values])
        if low == high:
            high = 1.0
        return cls(low, high, ticks(low, high))

    def __call__(self, value: float) -> float:
        return _EDGE + (100 - 2 * _EDGE) * (value - self.low) / (self.high - self.low)


def ticks(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """At most `most` round numbers (1, 2 or 5 times a power of ten apart) in an interval, 0 among them if inside.

    >>> ticks(-0.21, 0.87), ticks(0.0, 0.004)
    ((0.0, 0.5), (0.0, 0.001, 0.002, 0.003, 0.004))
    """
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (size * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return tuple(float(f"{k * step:.12g}") for k in range(first, last + 1))
    raise AssertionError("twenty times a step below a fifth of the interval is enough")


def _values(lanes: Sequence[Lane]) -> list[float]:
    return [x for lane in lanes for mark in lane.marks for x in (mark.value, mark.low, mark.high) if known(x)]


def _mark(mark: Mark, lane: Lane, axis: _Axis, middle: float) -> Html:
    x = axis(mark.value)
    if lane.shape == "circle":
        body = element("circle", cx=_percent(x), cy=middle, r=4)
    elif lane.shape in ("square", "diamond"):
        turn = "rotate(45)" if lane.shape == "diamond" else None
        square = element("rect", x=-4, y=-4, width=8, height=8, transform=turn)
        # A nested svg moves its children by a percentage, which a transform cannot.
        body = element("svg", square, x=_percent(x), y=middle, overflow="visible")
    else:
        left, width = min(x, axis(0.0)), abs(x - axis(0.0))
        body = element("rect", x=_percent(left), y=middle - 6, width=_percent(max(width, 0.3)), height=12)
    parts = [element("title", mark.words), body]
    if known(mark.low) and known(mark.high):
        ends = (axis(mark.low), axis(mark.high))
        parts.append(_line(ends[0], middle, ends[1], middle, "whisker"))
        parts += [_line(end, middle - 4, end, middle + 4, "whisker") for end in ends]
    return element("g", *parts, class_=f"mark {lane.kind}")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=_percent(x1), y1=y1, x2=_percent(x2), y2=y2, class_=kind)


def _percent(share: float) -> str:
    return f"{share:.2f}%"


def key(entries: Iterable[tuple[str, str, str]]) -> Html:
    """The legend of strips: (shape, class, words) each."""
    return element("p", join(_sample(*entry) for entry in entries), class_="strip-key")


def _sample(shape: str, kind: str, words: str) -> Html:
    lane = Lane(kind, (), shape)  # type: ignore[arg-type]
    axis = _Axis(-1.0, 1.0, ())
    mark = _mark(Mark(0.9 if shape == "bar" else 0.0, words), lane, axis, 8.0)
    return element(
        "span", element("svg", mark, class_="strip", width=24, height=16, aria_hidden="true"), words, class_="entry"
    )
