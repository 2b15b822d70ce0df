"""Zarr layouts on disk: masks and transforms, each written whole or not at all.

Every store is a zarr v3 group whose attribute `hepipe` holds its provenance. A failed case's store has the attribute
and no arrays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, UInt8

from hepipe.errors import StoreError
from hepipe.geometry import Transform
from hepipe.stores import stranger
from hepipe.stores.provenance import Provenance

TILES_PER_SHARD = 64
MAX_MASK_MPP = 1e4
"""No slide is looked at so coarsely: its whole tissue would be one px."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A folder beside `path` that takes its place when the block ends without an error, and goes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        yield beside
        if path.exists():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_group(path: Path, provenance: Provenance, **attributes: Any) -> zarr.Group:
    """An empty group with its provenance, for callers inside `whole`."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update({"hepipe": provenance.model_dump(mode="json"), **attributes})
    return group


def open_group(path: Path, artefact: str) -> tuple[zarr.Group, Provenance]:
    """A group and its provenance.

    Raises:
        StoreError: Nothing there, not zarr, or another artefact.
    """
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        provenance = Provenance.model_validate(group.attrs["hepipe"])
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: not a hepipe store ({type(error).__name__}); run its rule again") from error
    if provenance.artefact != artefact:
        raise StoreError(f"{path}: holds {provenance.artefact}, {artefact} expected")
    return group, provenance


def content_digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and values."""
    found = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()


# Transforms ------------------------------------------------------------------------------------------------


RESIDUAL_COLUMNS = ("he_x_um", "he_y_um", "dx_um", "dy_um", "peak", "kept", "level_mpp")
EVIDENCE = ("residuals", "trust", "pieces_he", "pieces_ihc")


@dataclass(frozen=True)
class Registered:
    """A pair's registration: the transform, its inverse, how it went.

    Attributes:
        provenance: Of the artefact.
        ihc_from_he: None for a failed case.
        he_from_ihc: Its inverse; None for a failed case.
        summary: Steps, scores, pose.
        proposed: What a failed case's chain ended with: for looking at, never for tiles.
        evidence: Arrays that not every chain has. `residuals` float32 (n, 7), columns `RESIDUAL_COLUMNS`: shifts that
            windows of the refinement still see; `trust` uint8 (h, w) on the field's grid: 1 where windows support it;
            `pieces_he`, `pieces_ihc` uint8: labels of tissue pieces on each slide's overview at `summary["mpp"]`.
    """

    provenance: Provenance
    ihc_from_he: Transform | None
    he_from_ihc: Transform | None
    summary: dict[str, Any]
    proposed: Transform | None = None
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of the forward transform, as the fingerprint takes it."""
        return "" if self.ihc_from_he is None else transform_digest(self.ihc_from_he)


def transform_digest(transform: Transform) -> str:
    """SHA-256 over the numbers of a transform."""
    parts = [np.asarray(transform.affine, np.float64), np.array([transform.fixed_mpp, transform.moving_mpp])]
    if transform.field_um is not None:
        parts += [np.array([transform.grid_um]), np.asarray(transform.field_um, np.float32)]
    return hashlib.sha256("".join(content_digest(part) for part in parts).encode()).hexdigest()


def write_registered(
    path: Path,
    provenance: Provenance,
    *,
    ihc_from_he: Transform | None,
    he_from_ihc: Transform | None,
    summary: dict[str, Any],
    proposed: Transform | None = None,
    evidence: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Store a registration: a subgroup per transform, arrays of evidence, `summary` as attribute; see `Registered`."""
    with whole(path) as beside:
        group = write_group(beside, provenance, summary=summary)
        for name, values in (evidence or {}).items():
            assert name in EVIDENCE, name
            if not values.size:
                continue
            array = group.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype)
            array[:] = values
        transforms = (("ihc_from_he", ihc_from_he), ("he_from_ihc", he_from_ihc), ("proposed", proposed))
        for name, transform in transforms:
            if transform is None:
                continue
            part = group.create_group(name)
            part.attrs.update(
                affine=np.asarray(transform.affine, np.float64).tolist(),
                fixed_mpp=transform.fixed_mpp,
                moving_mpp=transform.moving_mpp,
                grid_um=transform.grid_um,
            )
            if transform.field_um is not None:
                field = np.ascontiguousarray(transform.field_um, np.float32)
                array = part.create_array("field_um", shape=field.shape, chunks=field.shape, dtype="float32")
                array[:] = field


def read_registered(path: Path) -> Registered:
    """A stored registration; nothing in it is trusted.

    Raises:
        StoreError: Not a registration, damaged, not finite, not invertible or of absurd size.
    """
    stranger.refuse_large_metadata(path)
    try:
        group, provenance = open_group(path, "registered")
        forward, back, proposed = (
            stranger.read_transform(group, name, path=path) for name in ("ihc_from_he", "he_from_ihc", "proposed")
        )
        evidence = {name: stranger.read_array(group, name, path=path) for name in EVIDENCE if name in group}
        summary = dict(group.attrs["summary"])
    except stranger.BROKEN as error:
        raise StoreError(f"{path}: a damaged registration ({type(error).__name__}); {stranger.REMEDY}") from error
    stranger.refuse_contradiction(forward, back, path=path)
    return Registered(provenance, forward, back, summary, proposed, evidence)


# Masks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TissueMasks:
    """Tissue in the frame of the H&E slide, at `mpp`; the grid starts at the slide's corner.

    Attributes:
        provenance: Of the artefact.
        tissue: What both slides show and no person took out; None for a failed case.
        mpp: µm per px.
        regions: Number of the region at each px as `hepipe.tissue.regions` counts them, 0 for none; None where no
            person outlined any.
    """

    provenance: Provenance
    tissue: Bool[np.ndarray, "h w"] | None
    mpp: float
    regions: UInt8[np.ndarray, "h w"] | None = None


def write_tissue(
    path: Path, provenance: Provenance, *, masks: dict[str, np.ndarray], mpp: float, summary: dict[str, Any]
) -> None:
    """Store maps of one case in the H&E frame.

    Args:
        path: To write.
        provenance: Of the artefact.
        masks: `tissue`, `he`, `ihc` bool; `pieces_he`, `pieces_ihc`, `regions` uint8, numbers of pieces and regions.
        mpp: µm per px of all of them.
        summary: Stands in the store.
    """
    with whole(path) as beside:
        group = write_group(beside, provenance, mpp=mpp, origin_px0=[0, 0], summary=summary)
        for name, mask in masks.items():
            array = group.create_array(name, shape=mask.shape, chunks=mask.shape, dtype=mask.dtype)
            array[:] = mask


def read_tissue(path: Path) -> TissueMasks:
    """The common tissue of a case and its regions; nothing in it is trusted.

    Raises:
        StoreError: Not a tissue map, damaged, or of absurd size.
    """
    group, provenance = open_group(path, "tissue")
    try:
        mpp = float(group.attrs["mpp"])
        found = {name: stranger.read_array(group, name, path=path) for name in ("tissue", "regions") if name in group}
    except stranger.BROKEN as error:
        raise StoreError(f"{path}: a damaged map of tissue ({type(error).__name__}); run find_tissue again") from error
    if len({array.shape for array in found.values()}) > 1 or not 0 < mpp < MAX_MASK_MPP:
        raise StoreError(f"{path}: maps of different sizes, or of {mpp:g} µm per px; run find_tissue again")
    return TissueMasks(provenance, found.get("tissue"), mpp, found.get("regions"))


def read_taken_out(path: Path) -> Bool[np.ndarray, "h w"] | None:
    """Tissue of the H&E slide whose pieces are no common tissue, for a picture; None for a failed case.

    Raises:
        StoreError: As `read_tissue`.
    """
    group, _ = open_group(path, "tissue")
    if "he" not in group or "pieces_he" not in group:
        return None
    try:
        pieces, used = (stranger.read_array(group, name, path=path) for name in ("pieces_he", "he"))
    except stranger.BROKEN as error:
        raise StoreError(f"{path}: a damaged map of tissue ({type(error).__name__}); run find_tissue again") from error
    if pieces.shape != used.shape:
        raise StoreError(f"{path}: maps of different sizes; run find_tissue again")
    taken: np.ndarray = (pieces > 0) & ~used
    return taken
