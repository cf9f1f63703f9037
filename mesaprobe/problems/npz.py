"""Instances as arrays: what every instance file must hold, and .npz files."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32

from mesaprobe.errors import UserError

MAX_CITIES = 3000
"""Larger files are refused: their matrix is of no use to any solver here. Tours stay far below 2^53."""

MAX_WEIGHT = np.iinfo(np.int32).max

# What numpy raises for files that are cut off, damaged, encrypted, pickled, or no archive of arrays.
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,
    AttributeError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class NamedInstance:
    """One instance of a file, whatever its format."""

    name: str
    weights: Int32[np.ndarray, "n n"]
    coordinates: Float64[np.ndarray, "n 2"] | None = None


def read_npz(path: Path) -> list[NamedInstance]:
    """One instance named after the file, or a batch with its index in the name (see `read_instance_file`)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("weights", "coordinates") if key in file}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except _BROKEN as error:
        raise UserError(f"{path} cannot be read as an .npz file of plain arrays") from error
    if "weights" not in arrays:
        raise UserError(f"{path} holds no array named 'weights'")
    weights = arrays["weights"]
    if weights.ndim not in (2, 3) or (weights.ndim == 3 and len(weights) == 0):
        raise UserError(f"{path}: weights must have shape [n, n] or [batch, n, n], got {list(weights.shape)}")
    single = weights.ndim == 2
    names = [path.stem] if single else [f"{path.stem}[{index}]" for index in range(len(weights))]
    batch = weights[None] if single else weights
    points = arrays.get("coordinates")
    if points is not None:
        points = points[None] if single else points
        if points.ndim != 3 or len(points) != len(batch):
            raise UserError(f"{path}: coordinates of shape {list(arrays['coordinates'].shape)} do not fit weights")
    instances = []
    for index, name in enumerate(names):
        where = f"{path}: weights" if single else f"{path}: weights of instance {index}"
        checked = checked_weights(batch[index], where)
        located = None if points is None else checked_coordinates(points[index], len(checked), f"{path}")
        instances.append(NamedInstance(name, checked, located))
    return instances


def checked_weights(weights: np.ndarray, where: str) -> np.ndarray:
    """`weights` as int32 with a zero diagonal; UserError if it is no square matrix of whole numbers >= 0."""
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not 1 <= len(weights) <= MAX_CITIES:
        raise UserError(f"{where} must be square with 1 to {MAX_CITIES} cities, got {list(weights.shape)}")
    if weights.dtype.kind not in "iuf":
        raise UserError(f"{where} must be whole numbers, got {weights.dtype}")
    if weights.dtype.kind == "f":
        weights = weights.astype(np.float64)
    weights = np.where(np.eye(len(weights), dtype=bool), weights.dtype.type(0), weights)
    if not ((weights >= 0) & (weights <= MAX_WEIGHT)).all() or (weights != np.floor(weights)).any():
        raise UserError(f"{where} must be whole numbers from 0 to {MAX_WEIGHT}")
    return weights.astype(np.int32)


def checked_coordinates(coordinates: np.ndarray, n: int, where: str) -> np.ndarray:
    """`coordinates` as float64; UserError if they are no finite numbers of shape [n, 2]."""
    coordinates = np.asarray(coordinates)
    if coordinates.shape != (n, 2) or coordinates.dtype.kind not in "iuf":
        raise UserError(f"{where}: coordinates must be numbers of shape [{n}, 2], got {list(coordinates.shape)}")
    if not np.isfinite(coordinates).all():
        raise UserError(f"{where}: coordinates must be finite")
    return coordinates.astype(np.float64)
