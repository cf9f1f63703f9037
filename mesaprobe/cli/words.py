"""What all verbs share: their list, the parser, tables or JSON lines on the screen."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import tyro

VERBS = {
    "train": "train a GPT on tours",
    "analyze": "look inside a trained network and write a report",
    "solve": "tours, bounds, labels and searches of instances from a file or drawn",
    "study": "many networks: do changes of the training set-up prevent inner search?",
    "zoo": "networks of known mechanism: list, build, certify, calibrate; the error table",
    "compare": "one page with several analyses side by side",
    "report": "render report.html again from stored results",
    "bench": "the performance table, each row against a peer in the same run",
}

Many = Annotated[tuple[str, ...], tyro.conf.Positional]


def parsed(kind: Any, verb: str, words: list[str], default: Any = None) -> Any:
    """The options of a verb, as an instance of the dataclass `kind`."""
    return tyro.cli(
        kind,
        prog=f"mesaprobe {verb}",
        description=VERBS[verb][0].upper() + VERBS[verb][1:] + ".",
        args=words,
        config=(tyro.conf.FlagCreatePairsOff,),
        **({} if default is None else {"default": default}),
    )


def print_rows(
    rows: Iterable[Mapping[str, Any]], *, as_json: bool, columns: Mapping[str, Callable[[Mapping[str, Any]], str]]
) -> None:
    """One JSON object per line as soon as each row is there, or a table of the given columns."""
    if as_json:
        for row in rows:
            print(json.dumps(row, allow_nan=False), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(show(row) for show in columns.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def columns_as_in_json(names: Sequence[str]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Columns named as in JSON."""

    def show(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(map(str, value))
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    return {name.replace("_", " "): partial(lambda row, name: show(row[name]), name=name) for name in names}
