"""One synthetic case from its plan to its files: two slides, landmarks, truth."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hepipe.geometry import Transform
from hepipe.specs.synth import SynthSpec
from hepipe.stores.arrays import whole, write_group
from hepipe.stores.provenance import Provenance, digest
from hepipe.synth import artifacts as marks
from hepipe.synth import scanner
from hepipe.synth.cells import CELL_KINDS
from hepipe.synth.layers import Layers, Section, draw_section
from hepipe.synth.noise import Field
from hepipe.synth.plan import LABELS, MPP, Look, Plan, plan_case
from hepipe.synth.pyramid import write_pyramid
from hepipe.synth.warp import aligned, draw_transform, invert, pull

Stain = Literal["he", "ihc"]
N_LANDMARKS = 40
DAB_UM = 1.0
DAB_FLOOR_OD = 0.15
"""A px of the truth is positive from here on: the least that a scorer calls faint staining, and `dab_floor_od`."""
GLASS_UM = 60.0
_HE = ("nuclei", "cytoplasm", "fibre", "ground", "blood")
_IHC = ("nuclei_ihc", "cytoplasm", "fibre", "blood", "dab")


@dataclass(frozen=True)
class Drawn:
    """A case in memory."""

    plan: Plan
    section: Section
    he: UInt8[np.ndarray, "h w 3"]
    ihc: UInt8[np.ndarray, "p q 3"]
    ihc_from_he: Transform
    dab: Bool[np.ndarray, "m n"]
    placed: dict[Stain, list[marks.Placed]]


def draw_case(plan: Plan, *, filled: bool = False) -> Drawn:
    """Draw both slides of a case; `filled` draws tissue to the edges and an IHC in the same px as the H&E."""
    cv2.setNumThreads(1)  # several cases run at once; the pixels do not depend on it
    section = draw_section(plan, filled=filled)
    layers = section.layers
    if filled:
        transform, size = aligned(plan.side_px)
        ihc = {name: getattr(layers, name) for name in _IHC}
    else:
        substance = layers.cytoplasm + layers.fibre + layers.ground > 0.05
        outline = _border(substance)
        transform, size = draw_transform(plan, outline, margin_px=GLASS_UM / MPP)
        map_x, map_y = invert(transform, size)
        ihc = {name: pull(getattr(layers, name), map_x, map_y) for name in _IHC}
        del map_x, map_y
        if plan.control:
            ihc = _with_control(plan, ihc)
    placed: dict[Stain, list[marks.Placed]] = {"he": [], "ihc": []}
    he_pixels = _develop(plan, "he", {name: getattr(layers, name) for name in _HE}, placed)
    ihc_pixels = _develop(plan, "ihc", ihc, placed)
    px = round(DAB_UM / MPP)
    shrunk = cv2.resize(layers.dab, (plan.side_px // px, plan.side_px // px), interpolation=cv2.INTER_AREA)
    return Drawn(plan, section, he_pixels, ihc_pixels, transform, shrunk > DAB_FLOOR_OD, placed)


def write_case(spec: SynthSpec, number: int, folder: Path) -> Drawn:
    """Draw case `number` and write `he.tif`, `ihc.tif`, `landmarks.csv` and `truth.zarr` into a folder.

    The four are made beside the folder and moved in when all are whole; other files in it stay.
    """
    plan = plan_case(spec, number)
    drawn = draw_case(plan)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".drawing.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        write_pyramid(beside / "he.tif", drawn.he, mpp=MPP, quality=plan.he.quality)
        write_pyramid(beside / "ihc.tif", drawn.ihc, mpp=MPP, quality=plan.ihc.quality)
        _write_landmarks(beside / "landmarks.csv", drawn)
        write_truth(beside / "truth.zarr", drawn, spec=spec, subject=f"s{spec.seed}-{number:03d}")
        for name in ("truth.zarr", "landmarks.csv", "ihc.tif", "he.tif"):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            os.replace(beside / name, folder / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return drawn


def write_truth(path: Path, drawn: Drawn, *, spec: SynthSpec, subject: str) -> None:
    """Store what is known of a case because it was drawn; the layout stands in docs/synthetic-cohort.md."""
    plan, bio = drawn.plan, drawn.plan.biology
    values = spec.model_dump(mode="json", exclude={"patients", "pairs", "pair_px"})  # none of them changes a case
    provenance = Provenance(artefact="truth", subject=subject, spec=values, inputs={"spec": digest(values)})
    labels = {
        "he": marks.mask_of(drawn.placed["he"], drawn.he.shape[:2]),
        "ihc": marks.mask_of(drawn.placed["ihc"], drawn.ihc.shape[:2]),
    }
    with whole(path) as beside:
        group = write_group(
            beside,
            provenance,
            score=bio.score,
            grade=bio.grade,
            strength_od=bio.strength_od,
            pieces=bio.pieces,
            in_situ=bio.in_situ,
            control=plan.control,
            mpp=MPP,
            dab_mpp=DAB_UM,
            dab_floor_od=DAB_FLOOR_OD,
            artifacts_mpp=marks.MASK_UM,
            labels=dict(LABELS),
            cell_kinds=list(CELL_KINDS),
            artifacts=[
                *marks.records(drawn.placed["he"], labels["he"]),
                *marks.records(drawn.placed["ihc"], labels["ihc"]),
            ],
            stains={stain: _look_record(getattr(plan, stain)) for stain in ("he", "ihc")},
        )
        transform = drawn.ihc_from_he
        part = group.create_group("ihc_from_he")
        part.attrs.update(
            affine=transform.affine.tolist(),
            fixed_mpp=transform.fixed_mpp,
            moving_mpp=transform.moving_mpp,
            grid_um=transform.grid_um,
        )
        arrays = {
            "dab": drawn.dab,
            "artifacts_he": labels["he"],
            "artifacts_ihc": labels["ihc"],
        }
        for name, values_ in arrays.items():
            group.create_array(name, shape=values_.shape, chunks=values_.shape, dtype=values_.dtype)[:] = values_
        if transform.field_um is not None:
            field = np.ascontiguousarray(transform.field_um, np.float32)
            part.create_array("field_um", shape=field.shape, chunks=field.shape, dtype="float32")[:] = field
        cells = drawn.section.cells
        nuclei = group.create_group("nuclei")
        table = {
            "x_px0": cells.x, "y_px0": cells.y, "kind": cells.kind.astype(np.uint8), "long_um": cells.long,
            "short_um": cells.short, "angle": cells.angle, "chromatin": cells.chromatin,
            "nucleolus_um": cells.nucleolus, "irregular": np.abs(cells.amplitude).sum(axis=1),
            "in_ihc": cells.kept, "her2_od": cells.her2_od, "completeness": cells.completeness,
        }  # fmt: skip
        for name, column in table.items():
            nuclei.create_array(name, shape=column.shape, chunks=column.shape, dtype=column.dtype)[:] = column


def landmarks(drawn: Drawn, count: int = N_LANDMARKS) -> Float[np.ndarray, "n 4"]:
    """Nuclei that are on both sections, spread over the tissue: x and y on the H&E, x and y on the IHC, px0."""
    cells = drawn.section.cells.only(drawn.section.cells.kept)
    points = np.stack([cells.x, cells.y], axis=1).astype(np.float64)
    if not len(points):
        return np.zeros((0, 4))
    rng = drawn.plan.rng("landmarks")
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):  # the farthest from all so far, so that no corner is left out
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    he = points[np.sort(chosen)]
    return np.concatenate([he, drawn.ihc_from_he(he)], axis=1)


def _border(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "n 2"]:
    """First and last px of every row of a mask: all that a rotated bounding box needs; px0."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows][:, ::-1].argmax(axis=1)
    return np.stack([np.concatenate([first, last]), np.concatenate([rows, rows + 1])], axis=1).astype(np.float64)


def _write_landmarks(path: Path, drawn: Drawn) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x_he", "y_he", "x_ihc", "y_ihc"])
        writer.writerows([f"{value:.3f}" for value in row] for row in landmarks(drawn))


def _develop(
    plan: Plan, stain: Stain, substance: dict[str, Field], placed: dict[Stain, list[marks.Placed]]
) -> UInt8[np.ndarray, "h w 3"]:
    """Stain, soil and scan one section."""
    look: Look = getattr(plan, stain)
    tissue = np.clip(substance["cytoplasm"] + substance["fibre"] + substance.get("ground", 0), 0, 1)
    for number, planted in enumerate(one for one in plan.artifacts if one.stain == stain):
        one = marks.place(planted, tissue, plan.rng(f"artifact-{stain}-{number}"), placed[stain])
        marks.change_substance(substance, one)
        placed[stain].append(one)
    draw = scanner.stain_he if stain == "he" else scanner.stain_ihc
    od = draw(substance, look, plan.rng(f"thickness-{stain}"))
    for number, one in enumerate(placed[stain]):
        od = marks.change_density(od, one, plan.rng(f"ink-{stain}-{number}"))
    pixels = scanner.scan(od, look, plan.rng(f"scan-{stain}"))
    for one in placed[stain]:
        pixels = marks.change_picture(pixels, one, look)
    return pixels


def _with_control(plan: Plan, ihc: dict[str, Field]) -> dict[str, Float[np.ndarray, "p q"]]:
    """The IHC with a strip of glass on its right that holds a small strongly stained control tissue."""
    side = round(260 / MPP)
    biology = replace(
        plan.biology, score="3+", grade=2.5, pieces=1, in_situ=False, tumour=0.97, strength_od=1.3, positive=0.97,
        completeness=1.0,
    )  # fmt: skip
    small = replace(plan, key=(plan.key[0], "control", plan.key[2]), side_px=side, biology=biology, lost=0.02)
    layers: Layers = draw_section(small).layers
    height, width = ihc["dab"].shape
    canvas = {name: np.zeros((max(height, side), width + side), np.float32) for name in ihc}
    top = (canvas["dab"].shape[0] - side) // 2
    for name, layer in ihc.items():
        canvas[name][:height, :width] = layer
        canvas[name][top : top + side, width:] = getattr(layers, name)
    return canvas


def _look_record(look: Look) -> dict[str, object]:
    return {
        "vectors": look.vectors.tolist(),
        "strengths": list(look.strengths),
        "white": list(look.white),
        "blur_px": look.blur_px,
        "quality": look.quality,
    }
