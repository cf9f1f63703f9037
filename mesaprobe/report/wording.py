"""How the report prints a number, a name or their absence."""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")

NOT_KNOWN = "not known"
"""What stands where a stored value is null or NaN: never 0, never an empty cell."""

_METHODS = {
    "model": "model",
    "optimal": "optimum",
    "nearest_neighbour": "nearest neighbour",
    "greedy_edge": "greedy edge",
    "mst_preorder": "spanning-tree preorder",
    "two_opt_or_opt": "2-opt + Or-opt",
    "annealing": "simulated annealing",
    "random_legal": "random legal tours",
}
_FAMILIES = {
    "matrix": "matrix (symmetric, random weights)",
    "asymmetric": "asymmetric (random weights)",
    "euclidean": "euclidean (random points in the plane)",
}


def known(value: T | None) -> TypeGuard[T]:
    """False for null and NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def percent(fraction: float | None) -> str:
    """A fraction of 1 as a percentage, with enough digits that only 0 reads as 0 and only 1 as 100.

    >>> percent(0.00731), percent(0.8615), percent(0.99997), percent(1.0), percent(1e-9), percent(None)
    ('0.73%', '86.2%', '99.997%', '100%', 'about 0%', 'not known')
    """
    if not known(fraction):
        return NOT_KNOWN
    if fraction in (0, 1):
        return f"{fraction:.0%}"
    for digits in range(1 if abs(fraction) >= 0.1 else 2, 5):
        words = f"{fraction:.{digits}%}"
        if float(words[:-1]) not in (0.0, 100.0):
            return _with_minus(words)
    return f"about {abs(fraction):.0%}"


def number(value: float | None) -> str:
    """A number with three significant digits, or a whole number with its thousands marked.

    >>> number(793608), number(0.04213), number(-1.5), number(None)
    ('793,608', '0.0421', '−1.5', 'not known')
    """
    if not known(value):
        return NOT_KNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if float(value).is_integer() or abs(value) >= 1000:
        return _with_minus(f"{value:,.0f}")
    return _with_minus(f"{value:.3g}")


def _with_minus(words: str) -> str:
    """A leading hyphen becomes a minus sign."""
    return f"\N{MINUS SIGN}{words[1:]}" if words.startswith("-") else words


def percent_interval(ends: Sequence[float | None] | None) -> str:
    """An interval of fractions of 1, as percentages."""
    return _between(percent, ends)


def number_interval(ends: Sequence[float | None] | None) -> str:
    """An interval of plain numbers."""
    return _between(number, ends)


def _between(write: Any, ends: Sequence[float | None] | None) -> str:
    if ends is None or not all(known(end) for end in ends):
        return NOT_KNOWN
    low, high = ends
    return f"{write(low)} to {write(high)}"


def duration(seconds: float | None) -> str:
    """Seconds in words.

    >>> duration(0.42), duration(187.4), duration(7300.0), duration(None)
    ('0.42 s', '3 min 7 s', '2 h 1 min', 'not known')
    """
    if not known(seconds):
        return NOT_KNOWN
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def text(value: Any) -> str:
    """Any stored scalar or list in words; null prints as not known."""
    if not known(value):
        return NOT_KNOWN
    if isinstance(value, bool | int | float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {text(item)}" for key, item in value.items()) or "none"
    return str(value)


def method_name(method: str) -> str:
    """The words for a method's stored name."""
    return _METHODS.get(method, method.replace("_", " "))


def family_name(family: str) -> str:
    """The words for a problem family's stored name."""
    return _FAMILIES.get(family, family)


def sentence(words: str) -> str:
    """`words` with a capital letter at the start and a full stop at the end."""
    words = words.strip()
    if not words:
        return words
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?" else ".")


def line_rank(line: str) -> tuple[int, str]:
    """Sorts ids of lines as a reader counts them.

    >>> sorted(["E10a", "E2", "E1b", "E1"], key=line_rank)
    ['E1', 'E1b', 'E2', 'E10a']
    """
    digits = "".join(character for character in line if character.isdigit())
    return int(digits or 0), line.lstrip("E0123456789")
