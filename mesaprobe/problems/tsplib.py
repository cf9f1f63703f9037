"""Instance files: TSPLIB read and written (Reinelt 1991, "TSPLIB 95"), and .npz read."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, Int32

from mesaprobe.errors import UserError
from mesaprobe.files import write_text
from mesaprobe.problems.npz import (
    MAX_CITIES,
    MAX_WEIGHT,
    NamedInstance,
    checked_coordinates,
    checked_weights,
    read_npz,
)
from mesaprobe.problems.tsplib_distances import DISTANCES, distances

_KEYWORDS = {"NAME", "COMMENT", "TYPE", "DIMENSION", "EDGE_WEIGHT_TYPE", "EDGE_WEIGHT_FORMAT"}
_SECTIONS = ("NODE_COORD_SECTION", "EDGE_WEIGHT_SECTION", "DISPLAY_DATA_SECTION")
_KEY_LINE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s*(?::\s*(.*))?$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, eq=False)
class TsplibFile:
    """One TSPLIB instance. The diagonal of `weights` is 0; `coordinates` are None if the file has none."""

    name: str
    kind: str
    """TSP (symmetric) or ATSP."""
    weights: Int32[np.ndarray, "n n"]
    coordinates: Float64[np.ndarray, "n 2"] | None
    edge_weight_type: str
    comment: str

    @property
    def symmetric(self) -> bool:
        """True if every tour costs the same in both directions."""
        return bool((self.weights == self.weights.T).all())


@dataclass
class _Section:
    """The numbers of one section, each with the line it stands on."""

    line: int
    end: int
    values: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


@dataclass
class _Contents:
    """Header values with their lines, sections, and the number of the last line that was read."""

    path: Path
    header: dict[str, tuple[str, int]] = field(default_factory=dict)
    sections: dict[str, _Section] = field(default_factory=dict)
    last_line: int = 1

    def fail(self, line: int, reason: str) -> NoReturn:
        raise UserError(f"{self.path}, line {line}: {reason}")

    def word(self, key: str, allowed: tuple[str, ...]) -> str:
        """First word of a header value, which must be one of `allowed`."""
        if key not in self.header:
            self.fail(self.last_line, f"the file ends without {key}, which must be one of {', '.join(allowed)}")
        text, line = self.header[key]
        word = text.split()[0].upper() if text.split() else ""
        if word not in allowed:
            self.fail(line, f"{key} must be one of {', '.join(allowed)}, got {_shown(text)}")
        return word

    def section(self, key: str, why: str) -> _Section:
        if key not in self.sections:
            self.fail(self.last_line, f"the file ends without {key}, which {why} needs")
        return self.sections[key]


def read_tsplib(path: Path) -> TsplibFile:
    """Read a TSPLIB file of type TSP or ATSP.

    Understood are EUC_2D, CEIL_2D, GEO, ATT and EXPLICIT in all of the nine matrix formats. Numbers may be
    wrapped over lines in any way, keywords written with or without a blank before the colon, nodes listed in
    any order. Raises UserError, one sentence with the file and the line, for everything else.
    """
    path = Path(path)
    contents = _scan(path)
    kind = contents.word("TYPE", ("TSP", "ATSP"))
    n = _dimension(contents)
    weight_type = contents.word("EDGE_WEIGHT_TYPE", ("EXPLICIT", *DISTANCES))
    coordinates = _coordinates(contents, n, weight_type)
    if weight_type == "EXPLICIT":
        weights = _explicit_weights(contents, n, symmetric=kind == "TSP")
    else:
        assert coordinates is not None
        weights = _computed_weights(contents, coordinates, weight_type)
    name, _ = contents.header.get("NAME", ("", 0))
    comment, _ = contents.header.get("COMMENT", ("", 0))
    return TsplibFile(name or path.stem, kind, weights, coordinates, weight_type, comment)


def write_tsplib(
    path: Path,
    name: str,
    weights: Int32[np.ndarray, "n n"],
    coordinates: Float64[np.ndarray, "n 2"] | None = None,
    edge_weight_type: str = "EXPLICIT",
) -> None:
    """Write one instance so that `read_tsplib` gives the same weights (zero diagonal) and coordinates back.

    EXPLICIT writes the full matrix, and coordinates for display only; the other types write coordinates, and
    raise UserError if `weights` are not the distances that they imply. Symmetric weights become TYPE TSP.
    """
    weights = checked_weights(np.asarray(weights), f"{path}: weights")
    points = None if coordinates is None else checked_coordinates(coordinates, len(weights), f"{path}")
    if not name.isprintable():
        raise UserError(f"{path}: an instance name must be one printable line, got {name!r}")
    kind = "TSP" if (weights == weights.T).all() else "ATSP"
    lines = [f"NAME : {name}", f"TYPE : {kind}", f"DIMENSION : {len(weights)}"]
    lines.append(f"EDGE_WEIGHT_TYPE : {edge_weight_type}")
    if edge_weight_type == "EXPLICIT":
        lines += ["EDGE_WEIGHT_FORMAT : FULL_MATRIX"]
        lines += ["DISPLAY_DATA_TYPE : TWOD_DISPLAY"] if points is not None else []
        lines += ["EDGE_WEIGHT_SECTION", *(" ".join(map(str, row)) for row in weights.tolist())]
    else:
        if points is None or not np.array_equal(distances(points, edge_weight_type), weights):
            raise UserError(f"{path}: the weights are not the {edge_weight_type} distances of the coordinates")
    if points is not None:
        lines.append("DISPLAY_DATA_SECTION" if edge_weight_type == "EXPLICIT" else "NODE_COORD_SECTION")
        lines += [f"{city} {x!r} {y!r}" for city, (x, y) in enumerate(points.tolist(), start=1)]
    write_text(Path(path), "\n".join([*lines, "EOF", ""]))


def read_instance_file(path: Path) -> list[NamedInstance]:
    """The instances of a .tsp or .atsp file (TSPLIB) or of an .npz file.

    An .npz file holds `weights`, whole numbers [n, n] or [batch, n, n], and optionally `coordinates`,
    [n, 2] or [batch, n, 2]. Any n from 1 to 3000. Raises UserError with one sentence that names the file.
    """
    path = Path(path)
    if path.suffix.lower() in (".tsp", ".atsp"):
        file = read_tsplib(path)
        return [NamedInstance(file.name, file.weights, file.coordinates)]
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    raise UserError(f"{path} must end in .tsp, .atsp or .npz")


def _scan(path: Path) -> _Contents:
    """Split the file into header and sections; refuse lines that belong to neither."""
    contents = _Contents(path)
    section: _Section | None = None
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", _read_text(path)), start=1):
        line = raw.strip()
        if not line:
            continue
        contents.last_line = number
        match = _KEY_LINE.match(line)
        key = match[1].upper() if match else ""
        if key == "EOF":
            break
        if key in _SECTIONS:
            if key in contents.sections:
                contents.fail(number, f"{key} is given twice")
            section = contents.sections[key] = _Section(number, number)
        elif key.endswith("_SECTION"):
            contents.fail(number, f"{key} is not supported, only {', '.join(_SECTIONS)}")
        elif match and (match[2] is not None or key in _KEYWORDS):
            section = None
            _add_header(contents, key, (match[2] or "").strip(), number)
        elif section is None:
            contents.fail(number, f"expected KEYWORD : value or a section, got {_shown(line)}")
        else:
            _add_numbers(contents, section, line, number)
    return contents


def _read_text(path: Path) -> str:
    """The file as UTF-8, or as Latin-1 where an old comment needs it; control characters are refused."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    control = _CONTROL.search(text)
    if control:
        line = len(re.findall(r"\r\n|\r|\n", text[: control.start()])) + 1
        raise UserError(f"{path}, line {line}: not a text file, found the control character {control[0]!r}")
    return text


def _add_header(contents: _Contents, key: str, value: str, number: int) -> None:
    if key == "COMMENT" and key in contents.header:
        value = f"{contents.header[key][0]} {value}"
    elif key in _KEYWORDS and key in contents.header:
        contents.fail(number, f"{key} is given twice")
    contents.header[key] = (value, number)


def _add_numbers(contents: _Contents, section: _Section, line: str, number: int) -> None:
    for token in line.split():
        if not _NUMBER.fullmatch(token):
            contents.fail(number, f"expected a finite number, got {_shown(token)}")
        section.values.append(float(token))
        section.lines.append(number)
    section.end = number


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 30 else text[:30] + "...")


def _dimension(contents: _Contents) -> int:
    if "DIMENSION" not in contents.header:
        contents.fail(contents.last_line, "the file ends without DIMENSION, the number of cities")
    text, line = contents.header["DIMENSION"]
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_CITIES:
        contents.fail(line, f"DIMENSION must be a whole number from 1 to {MAX_CITIES}, got {_shown(text)}")
    return int(text)


def _check_count(contents: _Contents, section: _Section, expected: int, what: str) -> None:
    found = len(section.values)
    if found < expected:
        contents.fail(section.end, f"the section ends after {found} numbers, expected {expected} ({what})")
    if found > expected:
        contents.fail(section.lines[expected], f"too many numbers in the section, expected {expected} ({what})")


def _coordinates(contents: _Contents, n: int, weight_type: str) -> np.ndarray | None:
    """Coordinates [n, 2] in node order: those of the nodes, else those meant for display."""
    if weight_type != "EXPLICIT":
        if "EDGE_WEIGHT_SECTION" in contents.sections:
            line = contents.sections["EDGE_WEIGHT_SECTION"].line
            contents.fail(line, f"EDGE_WEIGHT_SECTION contradicts EDGE_WEIGHT_TYPE {weight_type}")
        contents.section("NODE_COORD_SECTION", weight_type)
    found = None
    for key in ("DISPLAY_DATA_SECTION", "NODE_COORD_SECTION"):
        if key in contents.sections:
            found = _node_table(contents, contents.sections[key], n)
    return found


def _node_table(contents: _Contents, section: _Section, n: int) -> np.ndarray:
    coordinates = np.zeros((n, 2))
    seen: set[int] = set()
    for start in range(0, min(len(section.values) // 3, n) * 3, 3):
        node, x, y = section.values[start : start + 3]
        line = section.lines[start]
        if node != np.floor(node) or not 1 <= node <= n:
            contents.fail(line, f"a node number must be a whole number from 1 to {n}, got {node:.15g}")
        if node in seen:
            contents.fail(line, f"node {node:.15g} is given twice")
        if not np.isfinite([x, y]).all():
            contents.fail(line, f"the coordinates of node {node:.15g} are too large")
        seen.add(int(node))
        coordinates[int(node) - 1] = x, y
    _check_count(contents, section, 3 * n, f"number, x and y of {n} nodes")
    return coordinates


def _explicit_weights(contents: _Contents, n: int, *, symmetric: bool) -> np.ndarray:
    formats = ("FULL_MATRIX", *_TRIANGLES)
    layout = contents.word("EDGE_WEIGHT_FORMAT", formats)
    section = contents.section("EDGE_WEIGHT_SECTION", "EDGE_WEIGHT_TYPE EXPLICIT")
    count, diagonal = n * n, 0
    if layout in _TRIANGLES:
        triangle, diagonal = _TRIANGLES[layout]
        count = n * (n + 1) // 2 if diagonal == 0 else n * (n - 1) // 2
    _check_count(contents, section, count, f"{layout} of {n} cities")
    rows, columns = triangle(n, diagonal) if layout in _TRIANGLES else np.divmod(np.arange(n * n), n)
    values, lines = np.array(section.values), np.array(section.lines, dtype=np.int64)
    values[rows == columns] = 0
    wrong = np.flatnonzero((values < 0) | (values > MAX_WEIGHT) | (values != np.floor(values)))
    if len(wrong):
        first = wrong[0]
        found = f"{values[first]:.15g}"
        contents.fail(lines[first], f"a weight must be a whole number from 0 to {MAX_WEIGHT}, got {found}")
    weights = np.zeros((n, n), dtype=np.int32)
    weights[rows, columns] = values
    if layout in _TRIANGLES:
        return weights + weights.T
    if symmetric and (weights != weights.T).any():
        i, j = np.argwhere(np.tril(weights != weights.T))[0]
        reason = f"TYPE TSP needs symmetric weights, but {i + 1} to {j + 1} costs {weights[i, j]}"
        contents.fail(lines[i * n + j], f"{reason} and {j + 1} to {i + 1} costs {weights[j, i]}")
    return weights


def _computed_weights(contents: _Contents, coordinates: np.ndarray, weight_type: str) -> np.ndarray:
    found = distances(coordinates, weight_type)
    wrong = np.argwhere(np.tril(~(found <= MAX_WEIGHT)))
    if len(wrong):
        section = contents.sections["NODE_COORD_SECTION"]
        line = section.lines[3 * section.values[::3].index(wrong[0, 0] + 1)]
        contents.fail(line, f"the distance of nodes {wrong[0, 1] + 1} and {wrong[0, 0] + 1} exceeds {MAX_WEIGHT}")
    return found.astype(np.int32)


# On symmetric weights a triangle read by columns is the other triangle read by rows.
_TRIANGLES: dict[str, tuple[Callable[[int, int], tuple[np.ndarray, np.ndarray]], int]] = {
    "UPPER_ROW": (np.triu_indices, 1),
    "LOWER_COL": (np.triu_indices, 1),
    "LOWER_ROW": (np.tril_indices, -1),
    "UPPER_COL": (np.tril_indices, -1),
    "UPPER_DIAG_ROW": (np.triu_indices, 0),
    "LOWER_DIAG_COL": (np.triu_indices, 0),
    "LOWER_DIAG_ROW": (np.tril_indices, 0),
    "UPPER_DIAG_COL": (np.tril_indices, 0),
}
