"""Lines that were measured before an analysis was cut off: kept beside it until the whole is stored."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mesaprobe.evidence import LineResult, line_hash
from mesaprobe.files import atomic_path, make_folder, read_json, write_json
from mesaprobe.models.subject import Subject

FOLDER = "unfinished"
_FIELDS = ("status", "reason", "value", "ci", "p", "null", "details", "id", "name", "seconds")


class FinishedLines:
    """Results of single lines on disk, each valid for these weights, this protocol and seed only."""

    def __init__(self, analysis: Path, subject: Subject, budget: str, seed: int) -> None:
        self.folder = analysis / FOLDER
        self._same = {"weights_hash": subject.weights_hash, "seed": seed}
        self._budget = budget

    def read(self, line: str) -> LineResult | None:
        """The kept result of a line, or None."""
        path = self.folder / f"{line}.json"
        if not path.is_file():
            return None
        stored: dict[str, Any] = read_json(path)
        if stored["key"] != self._key(line):
            return None
        fields = {name: stored[name] for name in _FIELDS}
        fields["ci"] = None if fields["ci"] is None else tuple(fields["ci"])
        table, arrays = self.folder / f"{line}.parquet", self.folder / f"{line}.npz"
        if arrays.is_file():
            with np.load(arrays, allow_pickle=False) as file:
                fields["arrays"] = {name: file[name] for name in file.files}
        if table.is_file():
            fields["table"] = pd.read_parquet(table)
        return LineResult(**fields)

    def write(self, result: LineResult) -> None:
        """Keep a result; its JSON comes last, so that its presence means: complete."""
        make_folder(self.folder)
        (self.folder / f"{result.id}.json").unlink(missing_ok=True)
        for suffix in ("parquet", "npz"):
            (self.folder / f"{result.id}.{suffix}").unlink(missing_ok=True)
        if result.table is not None:
            with atomic_path(self.folder / f"{result.id}.parquet") as temporary:
                result.table.to_parquet(temporary, index=False)
        if result.arrays:
            with atomic_path(self.folder / f"{result.id}.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **result.arrays)
        fields = {name: getattr(result, name) for name in _FIELDS}
        write_json(self.folder / f"{result.id}.json", {"key": self._key(result.id), **fields})

    def clear(self) -> None:
        """Drop what was kept: the analysis is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self, line: str) -> dict[str, Any]:
        return {**self._same, "line_hash": line_hash(line, self._budget)}
