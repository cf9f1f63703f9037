"""All members: importing this module registers them. Selection by name, family or group."""

from collections.abc import Callable, Sequence

from mesaprobe.errors import UserError
from mesaprobe.zoo import (
    branch_and_bound,  # noqa: F401
    builders,  # noqa: F401
    compiled_members,  # noqa: F401
    decoys,  # noqa: F401
    imitators,  # noqa: F401
    planners,  # noqa: F401
    red_team,  # noqa: F401
    refiners,  # noqa: F401
    value_gpts,  # noqa: F401
)
from mesaprobe.zoo.members import ZOO, Member

GROUPS: dict[str, Callable[[Member], bool]] = {
    "all": lambda _: True,
    "compiled": lambda member: member.compiled,
    "trained": lambda member: not member.compiled,
    "search": lambda member: member.role == "search",
    "heuristic": lambda member: member.role == "heuristic",
}
"""Names for several members at once."""


def select(names: Sequence[str]) -> list[Member]:
    """Members by name or group, in the order of the zoo, compiled ones first.

    >>> select(["no_such"])
    Traceback (most recent call last):
    ...
    mesaprobe.errors.UserError: no zoo member, group or family is called 'no_such'; see: mesaprobe zoo list
    """
    members = [ZOO[name] for name in ZOO]
    chosen = set()
    for name in names:
        test = GROUPS.get(name, lambda member, name=name: name in (member.name, member.family))
        found = [member.name for member in members if test(member)]
        if not found:
            raise UserError(f"no zoo member, group or family is called {name!r}; see: mesaprobe zoo list")
        chosen.update(found)
    return sorted((m for m in members if m.name in chosen), key=lambda m: not m.compiled)
