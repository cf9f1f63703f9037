"""Frozen dataclasses from JSON, strictly: an unknown key or a wrong type ends in one sentence."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mesaprobe.errors import UserError

T = TypeVar("T")


def parse_config(kind: type[T], data: Any, where: str) -> T:
    """Build the dataclass `kind` from plain JSON data; `where` names the source in error messages.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Point:
    ...     x: int = 0
    >>> parse_config(Point, {"x": 3}, "example")
    Point(x=3)
    >>> parse_config(Point, {"z": 3}, "example")
    Traceback (most recent call last):
    ...
    mesaprobe.errors.UserError: example has the unknown key 'z'; known keys: x
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{where} must be an object with named values, got {type(data).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = [key for key in data if key not in fields]
    if unknown:
        raise UserError(f"{where} has the unknown key {unknown[0]!r}; known keys: {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} lacks the key {missing[0]!r}")
    return kind(**{key: _convert(hints[key], value, f"{where}, {key}") for key, value in data.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse_config(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise UserError(f"{where} must be one of {', '.join(map(repr, arguments))}, got {value!r}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(option for option in arguments if option is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise UserError(f"{where} must be a list of {len(arguments)} values, got {value!r}")
        return tuple(_convert(inner, item, where) for inner, item in zip(arguments, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} must be of type {hint.__name__}, got {value!r}")
    return value
