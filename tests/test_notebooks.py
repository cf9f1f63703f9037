"""The notebooks run from top to bottom."""

import json
from pathlib import Path
from typing import Any

import pytest

BOOKS = sorted((Path(__file__).parents[1] / "analyses").glob("*.ipynb"))


def test_there_are_five() -> None:
    assert [book.stem.split("_")[0] for book in BOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_every_cell_runs(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": book.stem}
    for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{book.name}", "exec"), scope)
