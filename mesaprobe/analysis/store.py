"""The analysis on disk: report.json (validated), evidence.parquet, figures/*.npz. Nothing is unpickled."""

import importlib.resources
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mesaprobe.errors import UserError
from mesaprobe.files import atomic_path, make_folder, plain, read_json, write_json

REPORT_FILE = "report.json"
EVIDENCE_FILE = "evidence.parquet"
FIGURES_FOLDER = "figures"


def validate_report(report: Any, where: str) -> None:
    """Check a report against the JSON Schema that ships in the package; UserError names the place that is wrong."""
    import jsonschema

    text = importlib.resources.files("mesaprobe.analysis").joinpath("report.schema.json").read_text(encoding="utf-8")
    try:
        jsonschema.validate(report, json.loads(text))
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "its top level"
        raise UserError(f"{where} is no report of schema version 1: {place}: {error.message}") from error


def save_analysis(
    folder: Path, report: Mapping[str, Any], evidence: pd.DataFrame, figures: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write an analysis; report.json comes last, so that its presence means: complete."""
    contents = plain(report)
    validate_report(contents, "the analysis")
    make_folder(folder)
    (folder / REPORT_FILE).unlink(missing_ok=True)
    drawn = make_folder(folder / FIGURES_FOLDER)
    for stale in drawn.glob("*.npz"):
        stale.unlink()
    for name, arrays in figures.items():
        with atomic_path(drawn / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    with atomic_path(folder / EVIDENCE_FILE) as temporary:
        evidence.to_parquet(temporary, index=False)
    write_json(folder / REPORT_FILE, contents)


def load_report(folder: Path) -> dict[str, Any]:
    """report.json of an analysis, validated."""
    path = Path(folder) / REPORT_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no finished analysis ({REPORT_FILE} is missing)")
    report = read_json(path)
    validate_report(report, str(path))
    return report


def load_evidence(folder: Path) -> pd.DataFrame:
    """The tidy table of an analysis: one row per number."""
    path = Path(folder) / EVIDENCE_FILE
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def load_figures(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """What the report draws, by figure name; a figure that was not stored is absent."""
    figures = {}
    for path in sorted((Path(folder) / FIGURES_FOLDER).glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                figures[path.stem] = {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read as an .npz file of plain arrays") from error
    return figures
