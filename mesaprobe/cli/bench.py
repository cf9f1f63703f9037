"""`mesaprobe bench`."""

import dataclasses
from dataclasses import dataclass

from mesaprobe.cli.words import Many, parsed, print_rows


@dataclass(frozen=True)
class BenchArguments:
    """Options of `mesaprobe bench`."""

    rows: Many = ()
    """Rows to run; default all."""
    json: bool = False
    """One JSON object per line instead of a table."""
    markdown: bool = False
    """The table as it stands in the README."""


def bench(words: list[str]) -> None:
    given: BenchArguments = parsed(BenchArguments, "bench", words)
    from mesaprobe.bench import markdown, rows

    if given.markdown and not given.json:
        print(markdown(list(rows(given.rows or None))))
        return

    def number(value: float | None) -> str:
        return "absent" if value is None else f"{value:,.4g}"

    met = {True: "yes", False: "NO", None: "-"}
    print_rows(
        (dataclasses.asdict(row) for row in rows(given.rows or None)),
        as_json=given.json,
        columns={
            "name": lambda row: row["name"],
            "value": lambda row: f"{number(row['value'])} {row['unit']}",
            "peer": lambda row: f"{row['peer']}: {number(row['peer_value'])}",
            "ratio": lambda row: number(row["ratio"]),
            "goal": lambda row: "-" if row["goal"] is None else f">= {number(row['goal'])}",
            "met": lambda row: met[row["met"]],
        },
    )
