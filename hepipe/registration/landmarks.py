"""Corresponding points of both slides: read from the sheet's files, and a transform through them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RBFInterpolator

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform
from hepipe.registration.transform import from_mapping

MIN_AFFINE = 6
"""Fewer points than this give a similarity: an affine would follow their errors."""
MIN_SPLINE = 15
"""Fewer give no thin-plate spline."""
PAIR_COLUMNS = ("x_he", "y_he", "x_ihc", "y_ihc")


@dataclass(frozen=True)
class Landmarks:
    """Points (x, y) in px0 of both slides; row i of one belongs to row i of the other."""

    he_px0: Float[np.ndarray, "n 2"]
    ihc_px0: Float[np.ndarray, "n 2"]


def read_landmarks(case_id: str, files: str) -> Landmarks:
    """Landmarks of a case.

    Args:
        case_id: Named in errors, which hold no file name.
        files: A CSV with columns x_he, y_he, x_ihc, y_ihc, or `HE.csv;IHC.csv`, each with a column of ids and X, Y;
            ids that stand in both files make the pairs.

    Raises:
        RegistrationError: Missing, of other columns, or fewer than three pairs.
    """
    paths = [Path(part) for part in files.split(";")]
    tables = [_read_csv(case_id, path) for path in paths]
    if len(tables) == 2:
        he, ihc = (_by_id(case_id, table) for table in tables)
        shared = [name for name in he if name in ihc]
        pairs = [(*he[name], *ihc[name]) for name in shared]
    elif len(tables) == 1:
        pairs = [_numbers(case_id, row, PAIR_COLUMNS) for row in tables[0]]
    else:
        raise RegistrationError(case_id, f"landmarks: one or two files expected, {len(tables)} given")
    if len(pairs) < 3:
        raise RegistrationError(case_id, f"landmarks: {len(pairs)} pairs found, at least 3 expected")
    values = np.array(pairs, dtype=float)
    return Landmarks(values[:, :2], values[:, 2:])


def fit_landmarks(
    landmarks: Landmarks,
    *,
    he_size_px0: tuple[int, int],
    he_mpp: float,
    ihc_mpp: float,
    grid_um: float,
    smoothing: float = 1.0,
) -> Transform:
    """The transform that landmarks ask for: similarity, affine or thin-plate spline, by how many there are.

    Args:
        landmarks: The pairs.
        he_size_px0: Width and height of the H&E slide.
        he_mpp: µm per px of its level 0.
        ihc_mpp: µm per px of the IHC slide's level 0.
        grid_um: Spacing of the spline's field.
        smoothing: Of the spline; 0 passes through every point, placed well or not.
    """
    he, ihc = landmarks.he_px0, landmarks.ihc_px0
    affine = _similarity(he * he_mpp, ihc * ihc_mpp) if len(he) < MIN_AFFINE else _affine(he * he_mpp, ihc * ihc_mpp)
    px0 = np.diag([1 / ihc_mpp, 1 / ihc_mpp, 1.0]) @ affine @ np.diag([he_mpp, he_mpp, 1.0])
    if len(he) < MIN_SPLINE:
        return Transform(px0, he_mpp, ihc_mpp)
    spread = float(np.std(he * he_mpp))
    spline = RBFInterpolator(
        he * he_mpp / spread, ihc * ihc_mpp, kernel="thin_plate_spline", smoothing=smoothing / len(he)
    )
    return from_mapping(
        lambda points: spline(points * he_mpp / spread) / ihc_mpp,
        px0,
        fixed_size_px0=he_size_px0,
        fixed_mpp=he_mpp,
        moving_mpp=ihc_mpp,
        grid_um=grid_um,
    )


def _similarity(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 3"]:
    """Least squares rotation, scale and shift; mirrored when that fits better (Umeyama, PAMI 1991)."""
    best: np.ndarray | None = None
    least = np.inf
    for flip in (np.eye(2), np.diag([-1.0, 1.0])):
        a, b = source @ flip - (source @ flip).mean(axis=0), target - target.mean(axis=0)
        u, values, vt = np.linalg.svd(b.T @ a)
        sign = np.diag([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
        scale = float((values * np.diag(sign)).sum() / max((a**2).sum(), 1e-12))
        linear = scale * u @ sign @ vt @ flip
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = target.mean(axis=0) - linear @ source.mean(axis=0)
        error = float(((source @ linear.T + matrix[:2, 2] - target) ** 2).sum())
        if error < least * (1 - 1e-9):
            best, least = matrix, error
    assert best is not None
    return best


def _affine(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 3"]:
    design = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    matrix = np.eye(3)
    matrix[:2] = solution.T
    return matrix


def _read_csv(case_id: str, path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RegistrationError(case_id, "its landmarks file is missing; correct or empty the cell") from None
    except UnicodeDecodeError:
        raise RegistrationError(case_id, "its landmarks file is no UTF-8 text; a CSV is expected") from None
    rows = list(csv.DictReader(text.splitlines()))
    return [
        {(name or "").strip(): (value or "").strip() for name, value in row.items() if name is not None} for row in rows
    ]


def _by_id(case_id: str, rows: list[dict[str, str]]) -> dict[str, tuple[float, ...]]:
    found = {}
    for number, row in enumerate(rows, start=1):
        lower = {name.lower(): value for name, value in row.items()}
        name = lower.get("", lower.get("id", str(number)))
        found[name] = _numbers(case_id, lower, ("x", "y"))
    return found


def _numbers(case_id: str, row: dict[str, str], columns: tuple[str, ...]) -> tuple[float, ...]:
    try:
        return tuple(float(row[name]) for name in columns)
    except KeyError as error:
        raise RegistrationError(
            case_id, f"landmarks: no column {error.args[0]}; {', '.join(columns)} expected"
        ) from None
    except ValueError:
        raise RegistrationError(case_id, f"landmarks: a value of {', '.join(columns)} is no number") from None
