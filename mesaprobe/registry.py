"""Named members of a family that grows: problem families, solvers, teachers, evidence lines."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from mesaprobe.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from name to member that refuses duplicates and explains unknown names.

    >>> colours = Registry[int]("colour")
    >>> colours.add("red", 1)
    1
    >>> colours["blue"]
    Traceback (most recent call last):
    ...
    mesaprobe.errors.UserError: unknown colour 'blue'; known: red
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._members: dict[str, T] = {}

    def add(self, name: str, member: T) -> T:
        """Register `member` as `name`; raise ValueError if the name is taken."""
        if name in self._members:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._members[name] = member
        return member

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda member: self.add(name, member)

    def __getitem__(self, name: str) -> T:
        if name not in self._members:
            raise UserError(f"unknown {self.kind} {name!r}; known: {', '.join(self._members)}")
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)
