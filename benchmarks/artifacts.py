"""How well the default limits find the artifacts that synthetic slides carry, and how well DAB masks match the truth.

    python benchmarks/artifacts.py --seed 2 --cases 12 --folder FOLDER

Prints, for each kind and each third of severity, how many tiles with the artifact are dropped (recall); how many of the
dropped tiles have an artifact (precision); how many clean tiles stay; and the Dice overlap of DAB masks with the truth,
in the H&E frame. A tile has an artifact when the artifact covers at least 5 % of it. The true registration is used, so
that its errors do not count here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from hepipe.cli.tiles import _estimated, _measures
from hepipe.geometry import Box, Transform
from hepipe.quality.verdict import grade
from hepipe.registration.warp import read_warped
from hepipe.slides.open import open_slide
from hepipe.specs.quality import QualitySpec
from hepipe.specs.slides import SlidesSpec, TissueSpec
from hepipe.specs.stains import StainsSpec
from hepipe.specs.synth import SynthSpec
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.cases import CaseStains
from hepipe.stores.provenance import Provenance
from hepipe.synth.case import write_case
from hepipe.tiling.cut import finish_tile
from hepipe.tiling.keep import keep_cells
from hepipe.tiling.sample import overview_pixels, tissue_pixels
from hepipe.tissue.find import find_tissue

POSITIVE_FRAC = 0.05


@dataclass(frozen=True)
class Judged:
    """One tile, what was measured and what is true."""

    tile_id: str
    measurements: dict[str, float]
    covered: dict[tuple[str, str], float]
    severity: dict[tuple[str, str], float]
    dab: tuple[int, int, int]
    he: np.ndarray
    ihc: np.ndarray


def judged_tiles(case_id: str, folder: Path, tiling: TilingSpec, staining: StainsSpec) -> Iterator[Judged]:
    truth = zarr.open_group(folder / "truth.zarr", mode="r")
    part = truth["ihc_from_he"]
    transform = Transform(
        np.array(part.attrs["affine"]),
        float(part.attrs["fixed_mpp"]),
        float(part.attrs["moving_mpp"]),
        np.asarray(part["field_um"][:]) if "field_um" in part else None,
        float(part.attrs["grid_um"]),
    )
    slides = [
        open_slide(folder / f"{stain}.tif", slide_id=f"{case_id}-{stain}", spec=SlidesSpec()) for stain in ("he", "ihc")
    ]
    he, ihc = slides
    provenance = Provenance(artefact="tissue", subject=case_id, spec=staining.model_dump(mode="json"))
    overview, mpp = he.overview(max_px=round(max(he.size_px0) * he.mpp / TissueSpec().mpp))
    tissue = TissueMasks(provenance, find_tissue(overview, mpp=mpp, spec=TissueSpec()), mpp)
    record = CaseStains(
        case_id=case_id,
        he=_estimated(
            tissue_pixels(he, tissue, count=staining.sample_tiles, fixed_mpp=he.mpp),
            overview_pixels(he),
            "he",
            staining,
        ),
        ihc=_estimated(
            tissue_pixels(ihc, tissue, count=staining.sample_tiles, fixed_mpp=he.mpp, moved=transform),
            overview_pixels(ihc),
            "ihc",
            staining,
        ),
        provenance=provenance,
    )
    measures, dab_mask = _measures(record)
    labels = {name: int(label) for name, label in truth.attrs["labels"].items()}
    severity = {(one["kind"], one["stain"]): float(one["severity"]) for one in truth.attrs["artifacts"]}
    masks = {stain: np.asarray(truth[f"artifacts_{stain}"][:]) for stain in ("he", "ihc")}
    dab = np.asarray(truth["dab"][:])
    grid_mpp = float(truth.attrs["artifacts_mpp"])
    for cell, _ in keep_cells(he, tissue, tiling, case_id="drawn").cells:
        box, size = cell.box_px0, (tiling.tile_px, tiling.tile_px)
        he_tile = he.read(box, mpp=tiling.mpp, size=size)
        ihc_tile, valid = read_warped(ihc, transform, box, mpp=tiling.mpp, size=size)
        given = {"outside_frac_he": 0.0, "outside_frac_ihc": 1 - float(valid.mean())}
        tile = finish_tile(he_tile, ihc_tile, tiling.mpp, measures, dab_mask, given)
        points = _points(box, round(tiling.tile_px * tiling.mpp / 4))
        covered = {}
        for (kind, stain), _ in severity.items():
            place = points * he.mpp if stain == "he" else transform(points) * ihc.mpp
            seen = _lookup(masks[stain], place / grid_mpp) == labels[kind]
            covered[kind, stain] = float(seen.mean())
        side = round(tiling.tile_px * tiling.mpp)
        x, y = (round(corner * he.mpp) for corner in (box.x, box.y))
        real = np.zeros((side, side), bool)
        inside = dab[y : y + side, x : x + side]
        real[: inside.shape[0], : inside.shape[1]] = inside
        share = tile.dab_mask[: side * 2, : side * 2].reshape(side, -1, side, tiling.tile_px // side).mean((1, 3))
        found = share >= 0.5
        overlap = (int((real & found).sum()), int(real.sum()), int(found.sum()))
        yield Judged(
            f"{case_id}/{cell.column}-{cell.row}",
            dict(tile.measurements),
            covered,
            severity,
            overlap,
            he_tile,
            ihc_tile,
        )
    for slide in slides:
        slide.close()


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


def report(tiles: list[Judged], quality: QualitySpec) -> None:
    verdicts = grade([{"tile_id": tile.tile_id, "measurements": tile.measurements} for tile in tiles], quality)
    dropped = np.array([not row["keep"] for row in verdicts])
    kinds = sorted({kind for tile in tiles for kind, _ in tile.covered})
    any_artifact = np.array([max(tile.covered.values(), default=0) >= POSITIVE_FRAC for tile in tiles])
    untouched = np.array([max(tile.covered.values(), default=0) == 0 for tile in tiles])
    print(
        f"{len(tiles)} tiles: {any_artifact.sum()} with an artifact, {untouched.sum()} clean, {dropped.sum()} dropped"
    )
    print(f"clean tiles kept      {1 - dropped[untouched].mean():.3f}")
    print(f"precision of dropping {any_artifact[dropped].mean() if dropped.any() else float('nan'):.3f}")
    reasons = {row["reason"] for row in verdicts if row["reason"]}
    for reason in sorted(reasons):
        own = np.array([row["reason"] == reason for row in verdicts])
        print(f"  {reason:20s} drops {own.sum():4d}, {any_artifact[own].mean():.2f} of them with an artifact")
    print(f"{'recall':18s}" + "".join(f"{name:>16s}" for name in ("faint < 1/3", "medium", "gross > 2/3", "all")))
    for kind in kinds:
        for stain in ("he", "ihc"):
            cells = []
            for low, high in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.01), (0, 1.01)):
                own = np.array(
                    [
                        tile.covered.get((kind, stain), 0) >= POSITIVE_FRAC and low <= tile.severity[kind, stain] < high
                        for tile in tiles
                    ]
                )
                cells.append(f"{dropped[own].mean():.2f} of {own.sum()}" if own.any() else "-")
            print(f"{kind:10s}{stain:8s}" + "".join(f"{cell:>16s}" for cell in cells))
    sound = [tile for tile in tiles if max(tile.covered.values(), default=0) == 0]
    both, real, found = (sum(tile.dab[place] for tile in sound) for place in range(3))
    by_tile = [2 * tile.dab[0] / (tile.dab[1] + tile.dab[2]) for tile in sound if tile.dab[1] > 200]
    print(f"DAB mask, clean tiles: Dice {2 * both / max(real + found, 1):.3f} over all px, median tile", end=" ")
    print(f"{np.median(by_tile):.3f} of {len(by_tile)} with DAB; area found/true {found / max(real, 1):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--folder", type=Path, required=True, help="Slides are drawn here, and found again.")
    parser.add_argument("--tile-px", type=int, default=256)
    parser.add_argument("--quality", default="{}", help="QualitySpec as JSON.")
    parser.add_argument("--stains", default="{}", help="StainsSpec as JSON.")
    given = parser.parse_args()
    tiles = []
    for number in range(1, given.cases + 1):
        case_id = f"s{given.seed}-{number:03d}"
        folder = given.folder / case_id
        if not (folder / "truth.zarr").exists():
            write_case(SynthSpec(seed=given.seed), number, folder)
        tiling = TilingSpec(tile_px=given.tile_px)
        staining = StainsSpec.model_validate(json.loads(given.stains))
        tiles += list(judged_tiles(case_id, folder, tiling, staining))
    report(tiles, QualitySpec.model_validate(json.loads(given.quality)))


if __name__ == "__main__":
    main()
