"""A network of known mechanism to try the instrument on, shipped with the package: `mesaprobe analyze --demo`."""

import importlib.resources
from pathlib import Path

from mesaprobe.models import Subject, load


def searcher() -> Subject:
    """A searcher that was trained as one: looped 2-opt (`two_opt-loop` of the zoo, the same weights).

    >>> searcher().name
    'two_opt-demo'
    """
    return load(Path(str(importlib.resources.files("mesaprobe.zoo"))) / "two_opt-demo")
