"""What the section holds at every px of the H&E grid, before any stain becomes colour: the truth is drawn here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from hepipe.synth.architecture import GRID_UM, Architecture, draw_architecture
from hepipe.synth.cells import Cells, draw_nuclei, fibre_angle, place_cells
from hepipe.synth.noise import Field, blobs, enlarge, ramp, streaks
from hepipe.synth.plan import MPP, Plan


@dataclass(frozen=True)
class Layers:
    """Amounts of substance on the H&E grid, 0 for none, about 1 for much; DAB in optical density.

    Attributes:
        nuclei: Haematoxylin of all nuclei.
        nuclei_ihc: The same of the cells that are on the IHC section.
        cytoplasm: Of epithelial cells.
        fibre: Collagen.
        ground: Loose ground substance.
        blood: Red cells.
        dab: DAB of the IHC section.
    """

    nuclei: Field
    nuclei_ihc: Field
    cytoplasm: Field
    fibre: Field
    ground: Field
    blood: Field
    dab: Field


@dataclass(frozen=True)
class Section:
    """A drawn piece of tissue: its cells and its layers."""

    arch: Architecture
    cells: Cells
    layers: Layers


def draw_section(plan: Plan, *, filled: bool = False) -> Section:
    """Draw a case's tissue in the frame of the H&E slide."""
    arch = draw_architecture(plan, filled=filled)
    cells = place_cells(plan, arch)
    side = plan.side_px
    shape = (side, side)
    px = round(GRID_UM / MPP)
    coarse = (arch.tissue.shape[0] * px, arch.tissue.shape[1] * px)

    def cover(field: Field, softness: float = 0.8) -> Float[np.ndarray, "p q"]:
        return ramp(enlarge(field, coarse)[:side, :side], softness)

    rng = plan.rng("layers")
    edge = enlarge(arch.tissue, coarse)[:side, :side] + 1.5 * blobs(rng, shape, 4.0)
    substance = ramp(edge, 1.5) * (1 - cover(arch.hole))
    epithelium = cover(np.maximum.reduce([arch.tumour, arch.in_situ, arch.normal])) * substance

    is_epithelial = cells.is_kind("tumour", "in_situ", "normal")
    owner = _territories(cells, is_epithelial, side, plan.rng("territories"))
    members = cells.only(is_epithelial)
    edges = _outlines(owner, epithelium > 0.5)
    present = np.append(members.kept, True).astype(np.float32)[owner]
    lived_in = cv2.GaussianBlur(0.12 + 0.88 * present, (0, 0), 1.0)
    dab = _membranes(plan, members, owner, edges, epithelium) * lived_in

    grain = 0.6 * blobs(rng, shape, 1.4) + 0.5 * blobs(rng, shape, 5.0)
    tint = np.append(np.exp(rng.normal(0, 0.13, len(members))), 1).astype(np.float32)[owner]
    cytoplasm = epithelium * np.clip(tint * (1 + 0.2 * grain), 0.2, None)
    cytoplasm *= 1 + 0.22 * cv2.GaussianBlur(edges.astype(np.float32), (0, 0), 0.8)
    fibre, ground = _stroma(plan, arch, coarse, substance * (1 - epithelium))
    nuclei = draw_nuclei(cells, side, plan.rng("nuclei"))
    kept = cells.only(cells.kept)
    nuclei_ihc = draw_nuclei(_shifted(kept, plan), side, plan.rng("nuclei-ihc"))
    inside = ramp(edge, 1.5)
    blood = cover(arch.blood) * ramp(blobs(rng, shape, 2.6) + 0.5, 0.9)
    return Section(
        arch,
        cells,
        Layers(
            nuclei=nuclei * inside,
            nuclei_ihc=nuclei_ihc * inside,
            cytoplasm=cytoplasm,
            fibre=fibre,
            ground=ground,
            blood=blood,
            dab=dab * (1 - 0.75 * np.clip(nuclei_ihc, 0, 1) * (dab < 0.3)),
        ),
    )


def _shifted(cells: Cells, plan: Plan) -> Cells:
    """The cells as the IHC section shows them: the same ones, and on a neighbouring section a little elsewhere."""
    if plan.shift_um == 0:
        return cells
    rng = plan.rng("shift")
    moved = rng.normal(0, plan.shift_um / MPP, (2, len(cells))).astype(np.float32)
    columns = {name: getattr(cells, name) for name in Cells.__dataclass_fields__}
    return Cells(**{**columns, "x": cells.x + moved[0], "y": cells.y + moved[1]})


def _territories(
    cells: Cells, chosen: Bool[np.ndarray, " n"], side: int, rng: np.random.Generator
) -> Int[np.ndarray, "h w"]:
    """For every px the epithelial cell that owns it, as an index into the chosen ones; -1 where there is none at all.

    Voronoi cells of the nuclei, pushed about by noise: real borders are not straight.
    """
    owners = np.flatnonzero(chosen)
    if not len(owners):
        return np.full((side, side), -1)
    seeds = np.ones((side, side), np.uint8)
    x = np.clip(cells.x[owners].astype(int), 0, side - 1)
    y = np.clip(cells.y[owners].astype(int), 0, side - 1)
    seeds[y, x] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    index = np.full(int(labels.max()) + 1, -1)
    index[labels[y, x]] = np.arange(len(owners))
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    columns += np.float32(1.6) * blobs(rng, (side, side), 5.0)
    rows += np.float32(1.6) * blobs(rng, (side, side), 5.0)
    labels = cv2.remap(labels.astype(np.float32), columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(index[labels.astype(np.int64)])


def _outlines(owner: Int[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The px on either side of a border between two cells, or between a cell and what is no epithelium."""
    owner = np.where(inside, owner, -2)
    edges = np.zeros(owner.shape, bool)
    across, down = owner[:, 1:] != owner[:, :-1], owner[1:] != owner[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return np.asarray(edges & inside)


def _membranes(
    plan: Plan, members: Cells, owner: Int[np.ndarray, "h w"], edges: Bool[np.ndarray, "h w"], epithelium: Field
) -> Field:
    """DAB: rings as strong and complete as each cell says, a little in its cytoplasm, grain as of precipitate."""
    side = plan.side_px
    dab = np.zeros((side, side), np.float32)
    if not len(members):
        return dab
    rng = plan.rng("membranes")
    rows, columns = np.nonzero(edges & (owner >= 0))
    cell = owner[rows, columns]
    angle = np.arctan2(rows + 0.5 - members.y[cell], columns + 0.5 - members.x[cell])
    phases = rng.uniform(0, 2 * np.pi, (2, len(members)))
    wave = 0.5 + 0.3 * np.cos(angle + phases[0][cell]) + 0.2 * np.cos(3 * angle + phases[1][cell])
    gate = np.clip((members.completeness[cell] * 1.1 - wave) / 0.12 + 0.5, 0, 1)
    dab[rows, columns] = members.her2_od[cell] * (0.06 + 0.94 * gate)
    sharp = cv2.GaussianBlur(dab, (0, 0), 0.75)
    wide = cv2.GaussianBlur(dab, (0, 0), 2.2)
    strength = np.append(members.her2_od * members.completeness, 0).astype(np.float32)[owner] * epithelium
    haze = cv2.GaussianBlur(strength, (0, 0), 2.0) * (0.13 + 0.05 * blobs(rng, (side, side), 1.6))
    grain = np.clip(1 + 0.16 * blobs(rng, (side, side), 1.0), 0.3, None)
    return np.asarray(np.clip((1.05 * sharp + 0.35 * wide) * grain + np.clip(haze, 0, None), 0, None), np.float32)


def _stroma(plan: Plan, arch: Architecture, coarse: tuple[int, int], room: Field) -> tuple[Field, Field]:
    """Collagen bundles along the direction field, and the pale ground between them."""
    side = plan.side_px
    shape = (side, side)
    rng = plan.rng("stroma")
    angle = fibre_angle(arch)
    sine = enlarge(np.sin(2 * angle).astype(np.float32), coarse)[:side, :side]
    cosine = enlarge(np.cos(2 * angle).astype(np.float32), coarse)[:side, :side]
    line = np.arctan2(sine, cosine) / 2 + np.float32(0.35) * blobs(rng, shape, 14.0)
    direction = np.stack([np.cos(line), np.sin(line)]).astype(np.float32)
    fine = streaks(blobs(rng, shape, 0.9), direction, 5)
    broad = streaks(blobs(rng, shape, 3.2), direction, 6)
    dense = enlarge(arch.dense, coarse)[:side, :side]
    bundles = ramp(0.75 * broad + 0.45 * fine + 0.65 * dense + 0.35, 1.6)
    fibre = room * (0.1 + 0.75 * bundles + 0.12 * fine * bundles)
    ground = room * (0.5 + 0.1 * blobs(rng, shape, 8.0))
    return np.clip(fibre, 0, None), np.clip(ground, 0, None)
