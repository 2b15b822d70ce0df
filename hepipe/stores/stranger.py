"""What is believed of a stored registration: a stranger may have written it, or another program.

Sizes are looked at in the metadata before any array is read, and a compressed chunk must state the size that its array
says, so that no file of some kilobytes can fill the memory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hepipe.errors import StoreError
from hepipe.geometry import MPP_RANGE, Transform
from hepipe.stores.codecs import zstd_size

if TYPE_CHECKING:
    import zarr

MAX_METADATA_BYTES = 16_000_000
MAX_GRID_PX = 32_000_000
"""Of a displacement field or a map of labels: 256 MB of field. A slide of 100,000 px at 0.25 µm has 2.5 million at
16 µm."""
MAX_ROWS = 10_000_000
MAX_CHUNKS = 4096
MAX_STRETCH = 1000.0
"""Px of one slide per px of the other, either way."""
MAX_SHIFT_PX0 = 1e8
MAX_SHIFT_UM = 1e6
GRID_UM_RANGE = (0.05, 1e5)
REMEDY = "register the pair again with this version of hepipe"

BROKEN = (OSError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
"""What zarr, its codecs and numpy raise at metadata or bytes that are none; RecursionError is a RuntimeError."""

SHAPES: dict[str, tuple[str, tuple[int | None, ...], int]] = {
    "field_um": ("<f4", (2, None, None), 2 * MAX_GRID_PX),
    "residuals": ("<f4", (None, 7), 7 * MAX_ROWS),
    "trust": ("|u1", (None, None), MAX_GRID_PX),
    "pieces_he": ("|u1", (None, None), MAX_GRID_PX),
    "pieces_ihc": ("|u1", (None, None), MAX_GRID_PX),
    "tissue": ("|b1", (None, None), MAX_GRID_PX),
    "he": ("|b1", (None, None), MAX_GRID_PX),
    "regions": ("|u1", (None, None), MAX_GRID_PX),
}
"""Of each array: how its numbers are stored, its shape with None for any length, and how many numbers it may hold."""


def refuse_large_metadata(path: Path) -> None:
    """Look at the sizes of a store's JSON files before they are parsed.

    Raises:
        StoreError: One is larger than any that is written here.
    """
    for folder in (path, *(path / name for name in ("ihc_from_he", "he_from_ihc", "proposed"))):
        for file in (folder / "zarr.json", folder / "field_um" / "zarr.json"):
            if file.is_file() and file.stat().st_size > MAX_METADATA_BYTES:
                raise StoreError(
                    f"{path}: metadata of {file.stat().st_size / 1e6:.0f} MB, "
                    f"at most {MAX_METADATA_BYTES / 1e6:.0f} expected; {REMEDY}"
                )


def read_transform(group: zarr.Group, name: str, *, path: Path) -> Transform | None:
    """One direction of a registration; None where it is not there.

    Raises:
        StoreError: Not finite, not invertible, of absurd size, or damaged.
    """
    import zarr

    if name not in group:
        return None
    part, where = group[name], f"{path}: {name}"
    if not isinstance(part, zarr.Group):
        raise StoreError(f"{where} is an array, a group expected; {REMEDY}")
    attributes = dict(part.attrs)
    affine = _affine(attributes.get("affine"), where)
    mpp = [_number(attributes, key, MPP_RANGE, "µm per px", where) for key in ("fixed_mpp", "moving_mpp")]
    grid_um = _number(attributes, "grid_um", GRID_UM_RANGE, "µm", where)
    field_um = read_array(part, "field_um", path=path, within=name) if "field_um" in part else None
    if field_um is not None:
        largest = float(np.abs(field_um).max())
        # A comparison that nan fails too.
        if not largest <= MAX_SHIFT_UM:
            raise StoreError(
                f"{where}/field_um: a displacement of {largest:g} µm, at most {MAX_SHIFT_UM:g} expected; {REMEDY}"
            )
    return Transform(affine, mpp[0], mpp[1], field_um, grid_um)


def refuse_contradiction(ihc_from_he: Transform | None, he_from_ihc: Transform | None, *, path: Path) -> None:
    """Compare what both directions say of the same two slides.

    Raises:
        StoreError: Their pixel sizes differ.
    """
    if ihc_from_he is None or he_from_ihc is None:
        return
    there, back = (ihc_from_he.fixed_mpp, ihc_from_he.moving_mpp), (he_from_ihc.moving_mpp, he_from_ihc.fixed_mpp)
    if not np.allclose(there, back, rtol=1e-6):
        raise StoreError(f"{path}: ihc_from_he is for {there} µm per px, he_from_ihc for {back}; {REMEDY}")


def read_array(group: zarr.Group, name: str, *, path: Path, within: str = "") -> np.ndarray:
    """An array of a registration, its size checked before it is read; floats are finite.

    Raises:
        StoreError: Another shape or type, absurd size, values that are not finite, or damaged.
    """
    import zarr

    kind, shape, limit = SHAPES[name]
    where = f"{path}: {within}/{name}" if within else f"{path}: {name}"
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{where} is a group, an array expected; {REMEDY}")
    fits = len(array.shape) == len(shape) and all(
        length is None or length == found for length, found in zip(shape, array.shape, strict=True)
    )
    if not fits or np.dtype(array.dtype) != np.dtype(kind):
        expected = " x ".join("n" if length is None else str(length) for length in shape)
        found = " x ".join(str(side) for side in array.shape)
        raise StoreError(f"{where} is {found} of {array.dtype}, {expected} of {np.dtype(kind)} expected; {REMEDY}")
    count = math.prod(array.shape)
    chunk = math.prod(array.chunks)
    if not 0 < count <= limit or chunk > limit:
        found = f"{max(count, chunk):,}" if count else "no"
        raise StoreError(f"{where} has {found} values, 1 to {limit:,} expected; {REMEDY}")
    if math.prod(-(-side // across) for side, across in zip(array.shape, array.chunks, strict=True)) > MAX_CHUNKS:
        raise StoreError(f"{where} lies in more than {MAX_CHUNKS} chunks; {REMEDY}")
    _refuse_bombs(array, path / within / name, chunk * np.dtype(kind).itemsize, where)
    values = np.asarray(array[...])
    # A window of the refinement that found nothing says so with nan.
    fine = ~np.isinf(values) if name == "residuals" else np.isfinite(values)
    if values.dtype.kind == "f" and not fine.all():
        bad = int((~fine).sum())
        raise StoreError(f"{where} holds {bad:,} values that are no finite number; {REMEDY}")
    return values


def _refuse_bombs(array: Any, folder: Path, chunk_bytes: int, where: str) -> None:
    """A chunk may only be stored plainly or as one zstd frame that states the chunk's size."""
    names = [str(codec["name"]) for codec in array.metadata.to_dict()["codecs"]]
    if names not in (["bytes"], ["bytes", "zstd"]):
        raise StoreError(f"{where} is stored through {', '.join(names)}; bytes and zstd expected; {REMEDY}")
    for file in folder.rglob("*"):
        if not file.is_file() or file.name == "zarr.json":
            continue
        stated = file.stat().st_size
        if stated > 2 * chunk_bytes + 4096:
            raise StoreError(f"{where}: a chunk of {stated:,} bytes for {chunk_bytes:,} of values; {REMEDY}")
        if names[-1] == "zstd":
            with file.open("rb") as opened:
                stated = zstd_size(opened.read(18))
        if stated != chunk_bytes:
            raise StoreError(f"{where}: a chunk says it holds {stated:,} bytes, {chunk_bytes:,} expected; {REMEDY}")


def _affine(value: object, where: str) -> np.ndarray:
    try:
        affine = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        affine = np.empty(0)
    if affine.shape != (3, 3):
        raise StoreError(f"{where}: its affine is no 3 x 3 matrix of numbers; {REMEDY}")
    if not np.isfinite(affine).all():
        raise StoreError(f"{where}: its affine holds values that are no finite number; {REMEDY}")
    if np.abs(affine[2] - (0, 0, 1)).max() > 1e-9:
        raise StoreError(f"{where}: the last row of its affine is {affine[2].tolist()}, 0 0 1 expected; {REMEDY}")
    larger, smaller = np.linalg.svd(affine[:2, :2], compute_uv=False)
    if not 1 / MAX_STRETCH <= smaller <= larger <= MAX_STRETCH:
        raise StoreError(
            f"{where}: its affine scales by {smaller:.3g} to {larger:.3g}, {1 / MAX_STRETCH:g} to {MAX_STRETCH:g} "
            f"expected; {REMEDY}"
        )
    if np.abs(affine[:2, 2]).max() > MAX_SHIFT_PX0:
        raise StoreError(f"{where}: its affine shifts by more than {MAX_SHIFT_PX0:g} px; {REMEDY}")
    return affine


def _number(attributes: dict[str, Any], key: str, limits: tuple[float, float], unit: str, where: str) -> float:
    value = attributes.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not limits[0] <= value <= limits[1]:
        raise StoreError(
            f"{where}: {key} is {str(value)[:40]}, {limits[0]:g} to {limits[1]:g} {unit} expected; {REMEDY}"
        )
    return float(value)
