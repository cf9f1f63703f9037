"""TSPLIB files: every format against a matrix built another way, every broken file in one sentence."""

import math
from pathlib import Path

import numpy as np
import pytest

from mesaprobe.errors import UserError
from mesaprobe.problems.tsplib import read_instance_file, read_tsplib, write_tsplib

SYMMETRIC = np.array([[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
FORMATS = {
    "FULL_MATRIX": "0 1 2 3 1 0 4 5 2 4 0 6 3 5 6 0",
    "UPPER_ROW": "1 2 3 4 5 6",
    "LOWER_ROW": "1 2 4 3 5 6",
    "UPPER_DIAG_ROW": "0 1 2 3 0 4 5 0 6 0",
    "LOWER_DIAG_ROW": "0 1 0 2 4 0 3 5 6 0",
    "UPPER_COL": "1 2 4 3 5 6",
    "LOWER_COL": "1 2 3 4 5 6",
    "UPPER_DIAG_COL": "0 1 0 2 4 0 3 5 6 0",
    "LOWER_DIAG_COL": "0 1 2 3 0 4 5 0 6 0",
}
POINTS = [(0.0, 0.0), (3.0, 4.0), (-7.25, 10.5), (3.0, 4.0), (100.0, -45.59)]


def explicit(layout: str, numbers: str, kind: str = "TSP", n: int = 4) -> str:
    return (
        f"NAME: own\nTYPE: {kind}\nDIMENSION: {n}\nEDGE_WEIGHT_TYPE: EXPLICIT\n"
        f"EDGE_WEIGHT_FORMAT: {layout}\nEDGE_WEIGHT_SECTION\n{numbers}\nEOF\n"
    )


def planar(weight_type: str, nodes: list[str], n: int | None = None) -> str:
    head = f"NAME: own\nTYPE: TSP\nDIMENSION: {n or len(nodes)}\nEDGE_WEIGHT_TYPE: {weight_type}\n"
    return head + "\n".join(["NODE_COORD_SECTION", *nodes, "EOF", ""])


def written(folder: Path, text: str | bytes, name: str = "own.tsp") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("per_line", [1, 3, 100])
def test_every_matrix_format_gives_the_same_weights(tmp_path: Path, layout: str, per_line: int) -> None:
    numbers = FORMATS[layout].split()
    wrapped = "\n".join(" ".join(numbers[i : i + per_line]) for i in range(0, len(numbers), per_line))
    file = read_tsplib(written(tmp_path, explicit(layout, wrapped)))
    assert file.weights.dtype == np.int32
    np.testing.assert_array_equal(file.weights, SYMMETRIC)
    assert (file.name, file.kind, file.symmetric) == ("own", "TSP", True)
    assert (file.edge_weight_type, file.coordinates) == ("EXPLICIT", None)


def test_asymmetric_full_matrix_keeps_its_direction_and_loses_its_diagonal(tmp_path: Path) -> None:
    file = read_tsplib(written(tmp_path, explicit("FULL_MATRIX", "-1 2 3\n1 9e9 4\n5 6 99", "ATSP", 3)))
    np.testing.assert_array_equal(file.weights, [[0, 2, 3], [1, 0, 4], [5, 6, 0]])
    assert (file.kind, file.symmetric) == ("ATSP", False)


def scalar_distance(weight_type: str, a: tuple[float, float], b: tuple[float, float]) -> int:
    """The formulas of the TSPLIB description, one pair at a time."""
    straight = math.dist(a, b)
    if weight_type == "EUC_2D":
        return int(straight + 0.5)
    if weight_type == "CEIL_2D":
        return math.ceil(straight)
    if weight_type == "ATT":
        exact = math.sqrt(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / 10.0)
        return int(exact + 0.5) + (int(exact + 0.5) < exact)
    (lat_a, lon_a), (lat_b, lon_b) = (
        [3.141592 * (int(x) + 5.0 * (x - int(x)) / 3.0) / 180.0 for x in point] for point in (a, b)
    )
    q1, q2, q3 = math.cos(lon_a - lon_b), math.cos(lat_a - lat_b), math.cos(lat_a + lat_b)
    return int(6378.388 * math.acos(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3)) + 1.0)


@pytest.mark.parametrize("weight_type", ["EUC_2D", "CEIL_2D", "ATT", "GEO"])
def test_distances_follow_the_scalar_formulas(tmp_path: Path, weight_type: str) -> None:
    points = [(16.47, 96.1), (-12.09, -77.03), (0.3, -0.59), (60.1, 24.56), (3.0, 4.0), (0.0, 0.0)]
    nodes = [f"{i + 1} {x} {y}" for i, (x, y) in enumerate(points)]
    file = read_tsplib(written(tmp_path, planar(weight_type, nodes[::-1])))
    expected = [[scalar_distance(weight_type, a, b) if a != b else 0 for b in points] for a in points]
    np.testing.assert_array_equal(file.weights, expected)
    np.testing.assert_array_equal(file.coordinates, points)


def test_header_variants_are_understood(tmp_path: Path) -> None:
    text = (
        "NAME : two words\r\nCOMMENT: Gr\xf6\xdfe\r\nCOMMENT :second\r\nTYPE : TSP (some author)\r\nBEST: 7"
        "\r\nDIMENSION   :   3\r\nEDGE_WEIGHT_TYPE :EUC_2D\r\n\r\nNODE_COORD_SECTION :\r\n"
        " 3  0 2e0 1\r\n\r\n .5 0. 2\r\n +1 -0"
    )
    file = read_tsplib(written(tmp_path, text.encode("latin-1")))
    assert (file.name, file.comment) == ("two words", "Gr\xf6\xdfe second")
    np.testing.assert_array_equal(file.coordinates, [[0.5, 0], [1, 0], [0, 2]])


def test_nothing_after_eof_is_read_and_display_data_are_coordinates(tmp_path: Path) -> None:
    text = explicit("UPPER_ROW", "1 2 3\nDISPLAY_DATA_SECTION\n1 0 0\n2 0 1\n3 5 5", n=3) + "\x41 junk !!\n"
    file = read_tsplib(written(tmp_path, text))
    np.testing.assert_array_equal(file.coordinates, [[0, 0], [0, 1], [5, 5]])
    np.testing.assert_array_equal(file.weights, [[0, 1, 2], [1, 0, 3], [2, 3, 0]])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_cities_are_allowed(tmp_path: Path, n: int) -> None:
    assert read_tsplib(written(tmp_path, planar("EUC_2D", ["1 0 0", "2 3 4", "3 6 8"][:n]))).weights.shape == (n, n)
    assert read_tsplib(written(tmp_path, explicit("UPPER_ROW", "5 " * (n * (n - 1) // 2), n=n))).weights.shape == (n, n)


NODES = ["1 0 0", "2 3 4", "3 6 8"]
BROKEN: dict[str, tuple[str | bytes, int, str]] = {
    "empty": (b"", 1, "TYPE"),
    "binary": (bytes(range(256)) * 4, 1, "not a text file"),
    "late binary": (planar("EUC_2D", NODES).encode() + b"\n\x00\x01", 11, "not a text file"),
    "high bytes": (bytes(range(160, 256)) * 4, 1, "KEYWORD"),
    "prose": ("NAME: x\nthis is no instance\n", 2, "this is no instance"),
    "no type": (planar("EUC_2D", NODES).replace("TYPE: TSP\n", "", 1), 8, "without TYPE"),
    "unknown type": (planar("EUC_2D", NODES).replace("TYPE: TSP", "TYPE: CVRP", 1), 2, "CVRP"),
    "empty type": (planar("EUC_2D", NODES).replace("TYPE: TSP", "TYPE:", 1), 2, "TSP, ATSP"),
    "no dimension": (planar("EUC_2D", NODES).replace("DIMENSION: 3\n", ""), 8, "without DIMENSION"),
    "dimension 0": (planar("EUC_2D", NODES).replace("DIMENSION: 3", "DIMENSION: 0"), 3, "'0'"),
    "dimension negative": (planar("EUC_2D", NODES).replace("DIMENSION: 3", "DIMENSION: -3"), 3, "'-3'"),
    "dimension 3.5": (planar("EUC_2D", NODES).replace("DIMENSION: 3", "DIMENSION: 3.5"), 3, "'3.5'"),
    "dimension word": (planar("EUC_2D", NODES).replace("DIMENSION: 3", "DIMENSION: three"), 3, "'three'"),
    "dimension huge": (planar("EUC_2D", NODES).replace("DIMENSION: 3", "DIMENSION: 99999999"), 3, "3000"),
    "dimension twice": ("DIMENSION: 3\nDIMENSION: 4\n", 2, "twice"),
    "dimension too large": (planar("EUC_2D", NODES, n=4), 8, "expected 12"),
    "dimension too small": (planar("EUC_2D", ["1 0 0", "2 3 4", "1 9 9"], n=2), 8, "too many"),
    "no weight type": (
        planar("EUC_2D", NODES).replace("EDGE_WEIGHT_TYPE: EUC_2D\n", ""),
        8,
        "EDGE_WEIGHT_TYPE",
    ),
    "unknown weight type": (planar("EUC_3D", NODES), 4, "EUC_3D"),
    "no format": (explicit("X", "1").replace("EDGE_WEIGHT_FORMAT: X\n", ""), 7, "without EDGE_WEIGHT_FORMAT"),
    "unknown format": (explicit("DIAGONAL", "1"), 5, "DIAGONAL"),
    "no coordinates": (planar("EUC_2D", NODES).split("NODE_COORD")[0], 4, "without NODE_COORD_SECTION"),
    "no weights": (explicit("UPPER_ROW", "").split("EDGE_WEIGHT_SECTION")[0], 5, "EDGE_WEIGHT_SECTION"),
    "both": (planar("EUC_2D", [*NODES, "EDGE_WEIGHT_SECTION", "1"], n=3), 9, "contradicts"),
    "section twice": (planar("EUC_2D", [*NODES, "NODE_COORD_SECTION", "1"], n=3), 9, "twice"),
    "fixed edges": (planar("EUC_2D", [*NODES, "FIXED_EDGES_SECTION", "1 2"], n=3), 9, "not supported"),
    "node twice": (planar("EUC_2D", ["1 0 0", "2 3 4", "2 6 8"]), 8, "twice"),
    "node 0": (planar("EUC_2D", ["0 0 0", "1 3 4", "2 6 8"]), 6, "got 0"),
    "node 4": (planar("EUC_2D", ["1 0 0", "2 3 4", "4 6 8"]), 8, "got 4"),
    "node 1.5": (planar("EUC_2D", ["1 0 0", "1.5 3 4", "3 6 8"]), 7, "got 1.5"),
    "node cut": (planar("EUC_2D", ["1 0 0", "2 3 4", "3 6"]), 8, "after 8 numbers"),
    "coordinate word": (planar("EUC_2D", ["1 0 0", "2 x 4", "3 6 8"]), 7, "'x'"),
    "coordinate nan": (planar("EUC_2D", ["1 0 0", "2 nan 4", "3 6 8"]), 7, "'nan'"),
    "coordinate inf": (planar("EUC_2D", ["1 0 0", "2 3 -inf", "3 6 8"]), 7, "'-inf'"),
    "coordinate 1e999": (planar("EUC_2D", ["1 0 0", "2 3 1e999", "3 6 8"]), 7, "too large"),
    "coordinate 1_0": (planar("EUC_2D", ["1 0 0", "2 3 1_0", "3 6 8"]), 7, "'1_0'"),
    "distance 1e200": (planar("EUC_2D", ["3 1e200 0", "1 0 0", "2 3 4"]), 6, "exceeds"),
    "distance 3e9": (planar("CEIL_2D", ["1 0 0", "3 0 5", "2 3e9 4"]), 8, "exceeds"),
    "GEO 1e300": (planar("GEO", ["1 0 0", "3 0 5", "2 1e308 4"]), 8, "exceeds"),
    "weight word": (explicit("UPPER_ROW", "1 2 3\n4 five 6"), 8, "'five'"),
    "weight nan": (explicit("UPPER_ROW", "1 2 3\nnan 5 6"), 8, "'nan'"),
    "weight negative": (explicit("UPPER_ROW", "1 2 3\n4 -5 6"), 8, "-5"),
    "weight fraction": (explicit("UPPER_ROW", "1 2 3\n4 5.5 6"), 8, "5.5"),
    "weight 2^31": (explicit("UPPER_ROW", "1 2 3\n4 5\n2147483648"), 9, "2147483648"),
    "weight 1e999": (explicit("UPPER_ROW", "1 2 3\n4 5 1e999"), 8, "inf"),
    "weights too few": (explicit("UPPER_ROW", "1 2 3\n4\n\n"), 8, "after 4 numbers, expected 6"),
    "weights none": (explicit("UPPER_ROW", ""), 6, "after 0 numbers"),
    "weights too many": (explicit("UPPER_ROW", "1 2 3\n4 5 6\n7"), 9, "expected 6"),
    "wrong triangle": (explicit("UPPER_DIAG_ROW", "1 2 3\n4 5 6"), 8, "expected 10"),
    "asymmetric TSP": (explicit("FULL_MATRIX", "0 1 2\n1 0 3\n2 4 0", n=3), 9, "3 to 2 costs 4"),
    "long token": (explicit("UPPER_ROW", "x" * 5000), 7, "xxx..."),
}


def one_sentence(error: pytest.ExceptionInfo[UserError], path: Path) -> str:
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert ". " not in message
    assert len(message) < len(str(path)) + 250
    return message


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_end_in_one_sentence_with_the_line(tmp_path: Path, case: str) -> None:
    text, line, fragment = BROKEN[case]
    path = written(tmp_path, text, "broken.tsp")
    with pytest.raises(UserError) as error:
        read_tsplib(path)
    message = one_sentence(error, path)
    assert f"broken.tsp, line {line}: " in message
    assert fragment in message


@pytest.mark.parametrize("name", ["absent.tsp", "absent.npz", "folder.tsp", "folder.npz", "other.txt"])
def test_files_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
    with pytest.raises(UserError) as error:
        read_instance_file(path)
    one_sentence(error, path)


def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "whole.npz", weights=SYMMETRIC)
    wholes = [
        ("x.tsp", explicit("LOWER_DIAG_ROW", FORMATS["LOWER_DIAG_ROW"]).encode()),
        ("x.tsp", planar("GEO", NODES).encode()),
        ("x.npz", (tmp_path / "whole.npz").read_bytes()),
    ]
    refused = 0
    for trial in range(900):
        name, whole = wholes[trial % 3]
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        try:
            read_instance_file(written(tmp_path, bytes(data), name))
        except UserError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_explicit_round_trip(tmp_path: Path, n: int, symmetric: bool) -> None:
    rng = np.random.default_rng(n)
    weights = rng.integers(0, 2**31, size=(n, n)).astype(np.int32)
    weights = np.minimum(weights, weights.T) if symmetric else weights
    np.fill_diagonal(weights, 0)
    coordinates = rng.normal(size=(n, 2)) * 10.0 ** rng.integers(-8, 8, size=(n, 2))
    write_tsplib(tmp_path / "round.tsp", "a name", weights, coordinates)
    file = read_tsplib(tmp_path / "round.tsp")
    np.testing.assert_array_equal(file.weights, weights)
    np.testing.assert_array_equal(file.coordinates, coordinates)
    assert (file.name, file.kind) == ("a name", "TSP" if symmetric or n == 1 else "ATSP")


@pytest.mark.parametrize("weight_type", ["EUC_2D", "CEIL_2D", "ATT", "GEO"])
def test_coordinate_round_trip_and_refusal_of_other_weights(tmp_path: Path, weight_type: str) -> None:
    nodes = [f"{i + 1} {x} {y}" for i, (x, y) in enumerate(POINTS)]
    first = read_tsplib(written(tmp_path, planar(weight_type, nodes)))
    path = tmp_path / "again.tsp"
    write_tsplib(path, "again", first.weights, first.coordinates, weight_type)
    again = read_tsplib(path)
    np.testing.assert_array_equal(again.weights, first.weights)
    np.testing.assert_array_equal(again.coordinates, first.coordinates)
    with pytest.raises(UserError, match=f"not the {weight_type} distances"):
        write_tsplib(path, "again", first.weights + 1 - np.eye(5, dtype=np.int32), first.coordinates, weight_type)


def test_writer_refuses_what_the_reader_could_not_read(tmp_path: Path) -> None:
    good = SYMMETRIC.astype(np.int32)
    for name, weights, kind in [("a\nb", good, "EXPLICIT"), ("a", -good, "EXPLICIT"), ("a", good, "EUC_3D")]:
        with pytest.raises(UserError):
            write_tsplib(tmp_path / "x.tsp", name, weights, np.zeros((4, 2)), kind)
    assert not (tmp_path / "x.tsp").exists()


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.int64, np.float32])
def test_npz_of_one_instance_and_of_a_batch(tmp_path: Path, kind: type) -> None:
    batch = np.stack([SYMMETRIC, SYMMETRIC + 1]).astype(kind)
    np.savez(tmp_path / "one.npz", weights=batch[0])
    np.savez_compressed(tmp_path / "two.NPZ.npz", weights=batch, coordinates=np.zeros((2, 4, 2)))
    (one,) = read_instance_file(tmp_path / "one.npz")
    two = read_instance_file(tmp_path / "two.NPZ.npz")
    assert (one.name, one.coordinates, one.weights.dtype) == ("one", None, np.int32)
    assert [instance.name for instance in two] == ["two.NPZ[0]", "two.NPZ[1]"]
    np.testing.assert_array_equal(one.weights, SYMMETRIC)
    np.testing.assert_array_equal(two[1].weights, SYMMETRIC + 1 - np.eye(4))
    assert two[1].coordinates is not None


SQUARE = np.ones((4, 4))
BAD_ARRAYS = {
    "no weights": {"matrix": SQUARE},
    "objects": {"weights": np.array([[None]])},
    "text": {"weights": np.array([["1"]])},
    "complex": {"weights": SQUARE * 1j},
    "flat": {"weights": np.ones(4)},
    "oblong": {"weights": np.ones((4, 3))},
    "empty": {"weights": np.ones((0, 0))},
    "empty batch": {"weights": np.ones((0, 4, 4))},
    "negative": {"weights": -SQUARE},
    "fraction": {"weights": SQUARE / 2},
    "nan": {"weights": SQUARE * np.nan},
    "infinite": {"weights": SQUARE * np.inf},
    "too large": {"weights": SQUARE.astype(np.int64) << 31},
    "too large float32": {"weights": np.float32(2**31) * SQUARE.astype(np.float32)},
    "few coordinates": {"weights": SQUARE, "coordinates": np.ones((3, 2))},
    "batch of coordinates": {"weights": SQUARE, "coordinates": np.ones((1, 4, 2))},
    "nan coordinates": {"weights": SQUARE, "coordinates": np.full((4, 2), np.nan)},
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_npz_ends_in_one_sentence(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **BAD_ARRAYS[case])
    with pytest.raises(UserError) as error:
        read_instance_file(path)
    one_sentence(error, path)
