"""Which rules the measuring knows: all of HEUR-v1, unless a family is held out (method.md, amendment 2).

An error rate that leaves a family of the zoo out of the fit, but lets every filter, null and library go on naming its
rule, is the easy one: a network that follows a rule nobody has thought of meets a library without it. `leaving_out`
makes the measuring forget the names, in this thread and for as long as the block lasts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from mesaprobe.problems import Problem
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1

_LEFT_OUT: ContextVar[tuple[str, ...]] = ContextVar("algorithms left out", default=())


def left_out() -> tuple[str, ...]:
    """The algorithms that are not to be known at present, sorted."""
    return _LEFT_OUT.get()


def known_rules(problem: Problem | None = None) -> tuple[str, ...]:
    """The rules of HEUR-v1 that are known, in its order; with a problem, those that take its instances.

    >>> with leaving_out(["savings"]):
    ...     "savings" in known_rules()
    False
    """
    rules = tuple(name for name in HEUR_V1 if name not in left_out())
    return rules if problem is None else tuple(name for name in rules if ALGORITHMS[name].applies_to(problem))


@contextmanager
def leaving_out(names: Sequence[str]) -> Iterator[None]:
    """Forget algorithms by name, whether they are rules of HEUR-v1 or other members of the library."""
    token = _LEFT_OUT.set(tuple(sorted({*left_out(), *names})))
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)
