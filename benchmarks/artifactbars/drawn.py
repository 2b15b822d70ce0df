"""Tiles of drawn cases with what is true of them, kept beside the slides so that a stopped run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import zarr

from hepipe.cli.measuring import found_stains
from hepipe.geometry import Box, Transform
from hepipe.registration.warp import read_warped
from hepipe.slides.open import open_slide
from hepipe.specs.slides import SlidesSpec, TissueSpec
from hepipe.specs.stains import StainsSpec
from hepipe.specs.synth import SynthSpec
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.cases import CaseStains
from hepipe.stores.provenance import Provenance
from hepipe.synth.case import write_case
from hepipe.tiling.keep import keep_cells
from hepipe.tiling.sample import overview_pixels, tissue_pixels
from hepipe.tissue.find import find_tissue

Section = Literal["restained", "consecutive"]
Label = tuple[str, str]
"""Kind of artifact and stain."""

SHIFT_UM = (10.0, 40.0)
"""Of the planted misalignment: the true transform is moved by a length drawn evenly from here, in any direction."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of one drawn case.

    Attributes:
        case_id: Seed and number.
        section: Kind of section.
        score: HER2 score that was drawn.
        stains: As the pipeline finds them for this case.
        mpp: Of the pixels.
        he: (n, h, w, 3).
        ihc: The same through the true transform.
        off: The same through that transform moved by `off_um`.
        off_um: Length of that move, µm.
        outside: Share of each tile beyond the IHC slide.
        labels: Artifacts planted in this case.
        severity: Of each of them.
        covered: (n, labels): share of the tile under it.
    """

    case_id: str
    section: Section
    score: str
    stains: CaseStains
    mpp: float
    he: np.ndarray
    ihc: np.ndarray
    off: np.ndarray
    off_um: np.ndarray
    outside: np.ndarray
    labels: list[Label]
    severity: list[float]
    covered: np.ndarray


def drawn_tiles(folder: Path, *, seed: int, section: Section, number: int, patients: int, tile_px: int) -> Tiles:
    """The tiles of a case, drawn and cut when they do not lie in `folder` yet."""
    home = folder / f"{section}-{seed}" / f"{number:03d}"
    case_id = f"{section[0]}{seed}-{number:03d}"
    kept = home / f"tiles-{tile_px}.npz"
    if not (home / "truth.zarr").exists():
        write_case(SynthSpec(seed=seed, patients=patients, section=section), number, home)
    if not kept.exists():
        arrays, facts = _cut(home, case_id, TilingSpec(tile_px=tile_px), seed=seed * 1000 + number)
        beside = home / f".{os.getpid()}.npz"
        np.savez(beside, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
        os.replace(beside, kept)
    with np.load(kept, allow_pickle=False) as found:
        facts = json.loads(found["facts"].tobytes())
        return Tiles(
            case_id=case_id,
            section=section,
            score=facts["score"],
            stains=CaseStains.model_validate(facts["stains"]),
            mpp=facts["mpp"],
            labels=[(kind, stain) for kind, stain in facts["labels"]],
            severity=facts["severity"],
            **{name: found[name] for name in ("he", "ihc", "off", "off_um", "outside", "covered")},
        )


def true_transform(truth: zarr.Group) -> Transform:
    """`ihc_from_he` as it was drawn."""
    part = truth["ihc_from_he"]
    return Transform(
        np.array(part.attrs["affine"]),
        float(part.attrs["fixed_mpp"]),
        float(part.attrs["moving_mpp"]),
        np.asarray(part["field_um"][:]) if "field_um" in part else None,
        float(part.attrs["grid_um"]),
    )


def moved(transform: Transform, shift_um: Sequence[float]) -> Transform:
    """A transform that is off by a shift (x, y) of the moving slide, µm."""
    affine = transform.affine.copy()
    affine[:2, 2] += np.asarray(shift_um) / transform.moving_mpp
    return replace(transform, affine=affine)


def _cut(home: Path, case_id: str, tiling: TilingSpec, *, seed: int) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    truth = zarr.open_group(home / "truth.zarr", mode="r")
    transform = true_transform(truth)
    he, ihc = (open_slide(home / f"{s}.tif", slide_id=f"{case_id}-{s}", spec=SlidesSpec()) for s in ("he", "ihc"))
    staining = StainsSpec()
    provenance = Provenance(artefact="stains", subject=case_id, spec=staining.model_dump(mode="json"))
    overview, mpp = he.overview(max_px=round(max(he.size_px0) * he.mpp / TissueSpec().mpp))
    tissue = TissueMasks(provenance, find_tissue(overview, mpp=mpp, spec=TissueSpec()), mpp)
    record = CaseStains(
        case_id=case_id,
        he=found_stains(
            tissue_pixels(he, tissue, count=staining.sample_tiles, fixed_mpp=he.mpp),
            overview_pixels(he),
            "he",
            staining,
        ),
        ihc=found_stains(
            tissue_pixels(ihc, tissue, count=staining.sample_tiles, fixed_mpp=he.mpp, moved=transform),
            overview_pixels(ihc),
            "ihc",
            staining,
        ),
        provenance=provenance,
    )
    labels = {name: int(label) for name, label in truth.attrs["labels"].items()}
    planted = {(one["kind"], one["stain"]): float(one["severity"]) for one in truth.attrs["artifacts"]}
    masks = {stain: np.asarray(truth[f"artifacts_{stain}"][:]) for stain in ("he", "ihc")}
    grid_mpp = float(truth.attrs["artifacts_mpp"])
    rng = np.random.default_rng(seed)
    size = (tiling.tile_px, tiling.tile_px)
    found: dict[str, list[object]] = {name: [] for name in ("he", "ihc", "off", "off_um", "outside", "covered")}
    for cell, _ in keep_cells(he, tissue, tiling, case_id=case_id).cells:
        box = cell.box_px0
        length, turn = rng.uniform(*SHIFT_UM), rng.uniform(0, 2 * np.pi)
        off = moved(transform, (length * np.cos(turn), length * np.sin(turn)))
        ihc_tile, valid = read_warped(ihc, transform, box, mpp=tiling.mpp, size=size)
        points = _points(box, round(tiling.tile_px * tiling.mpp / grid_mpp))
        covered = []
        for kind, stain in planted:
            place = points * he.mpp if stain == "he" else transform(points) * ihc.mpp
            covered.append(float((_lookup(masks[stain], place / grid_mpp) == labels[kind]).mean()))
        found["he"].append(he.read(box, mpp=tiling.mpp, size=size))
        found["ihc"].append(ihc_tile)
        found["off"].append(read_warped(ihc, off, box, mpp=tiling.mpp, size=size)[0])
        found["off_um"].append(length)
        found["outside"].append(1 - float(valid.mean()))
        found["covered"].append(covered)
    for slide in (he, ihc):
        slide.close()
    facts = {
        "score": truth.attrs["score"],
        "stains": record.model_dump(mode="json"),
        "mpp": tiling.mpp,
        "labels": list(planted),
        "severity": list(planted.values()),
    }
    return {name: np.array(rows) for name, rows in found.items()}, facts


def _points(box: Box, count: int) -> np.ndarray:
    steps = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(box.x + steps * box.width, box.y + steps * box.height)
    return np.stack([x.ravel(), y.ravel()], 1)


def _lookup(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    x, y = np.floor(places).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < labels.shape[1]) & (y < labels.shape[0])
    found = np.zeros(len(places), labels.dtype)
    found[inside] = labels[y[inside], x[inside]]
    return found
