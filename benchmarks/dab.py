"""DAB masks by each `stains.dab_method` against two truths: nuclei marked on real tiles, and drawn DAB.

    python benchmarks/dab.py nuclei --tile IHC.png TRUTH.png [--tile …] [--mpp 0.25] [--overlays FOLDER]
    python benchmarks/dab.py drawn FOLDER [--cases 8] [--train-seed 11] [--test-seed 12]

nuclei  Truth as DeepLIIF colours it: red positive nuclei, blue negative ones, green outlines, which count as part of
        the nearest nucleus. Prints Dice of px with the positive nuclei; recall (positive nuclei of which half is in the
        mask), false cells (negative ones of which half is); and the cells' precision. Vectors are those of the tile.
drawn   Slides without artifacts are drawn into FOLDER or found there, tiles cut at 0.5 µm/px through the true
        transform. The absolute threshold is calibrated on the training seed's tiles by their scores, and everything
        measured on the other seed's: Dice over all px, the median tile with DAB, area found by area true, and the share
        of px in the masks of tiles that have hardly any DAB. The drawn truth is DAB of at least 0.15, which is also the
        default's floor: this favours the methods that go by optical density.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import zarr
from PIL import Image
from scipy import ndimage

from hepipe.cli.measuring import found_stains
from hepipe.dataset.dab_calibration import BINS, MAX_OD, thresholds_of
from hepipe.geometry import Transform
from hepipe.quality.stain import tissue_of
from hepipe.registration.warp import read_warped
from hepipe.slides.open import open_slide
from hepipe.specs.slides import SlidesSpec, TissueSpec
from hepipe.specs.stains import StainsSpec
from hepipe.specs.synth import SynthSpec
from hepipe.specs.tiling import TilingSpec
from hepipe.stains.dab import tile_mask
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import stain_matrix
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.cases import SlideStains
from hepipe.stores.provenance import Provenance
from hepipe.synth.case import write_case
from hepipe.tiling.keep import keep_cells
from hepipe.tiling.sample import overview_pixels, tissue_pixels
from hepipe.tissue.find import find_tissue

QUPATH_OD = (0.2, 0.4, 0.6)
HALF = 0.5
SPECK_PX = 30
"""Truth's components below this are cut off by the tile's edge or stray px, not nuclei."""
MIN_TRUE_FRAC = 0.01
"""A tile with less true DAB has no Dice worth a median; it shows what a method makes of nothing."""


def methods(thresholds_od: tuple[float, float, float]) -> dict[str, StainsSpec]:
    """What is compared; the first is the default."""
    absolute = {"dab_method": "absolute", "dab_thresholds_od": thresholds_od}
    return {
        "otsu_od": StainsSpec(),
        "otsu_od, closing 14 µm": StainsSpec(dab_close_um=14),
        "absolute": StainsSpec.model_validate(absolute),
        "absolute, QuPath's 0.2": StainsSpec(dab_method="absolute", dab_thresholds_od=QUPATH_OD),
        "atst (closing 14 µm)": StainsSpec(dab_method="atst"),
        "atst, closing 1 µm": StainsSpec(dab_method="atst", dab_close_um=1),
    }


def of_dab(stains: SlideStains) -> Separator:
    return Separator(stain_matrix(stains.first, stains.second), stains.white, stains=(1,))


def dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / max(1, found.sum() + true.sum()))


@dataclass(frozen=True)
class Nuclei:
    """One real tile. `positive` and `negative` label nuclei from 1."""

    name: str
    ihc: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def read_nuclei(picture: Path, truth: Path) -> Nuclei:
    ihc, colours = (np.asarray(Image.open(path).convert("RGB")) for path in (picture, truth))
    channel = colours.argmax(axis=2)
    marked = colours.max(axis=2) > 100
    seeds = [marked & (channel == 0), marked & (channel == 2)]
    labels = [ndimage.label(seed)[0] for seed in seeds]
    outline = marked & (channel == 1)
    away, place = ndimage.distance_transform_edt(~(seeds[0] | seeds[1]), return_indices=True)
    rows, columns = place
    taken = outline & (away <= 4)
    grown = [np.where(taken, label[rows, columns], label) for label in labels]
    for label in grown:
        sizes = np.bincount(label.ravel())
        label[sizes[label] < SPECK_PX] = 0
    return Nuclei(picture.stem, np.ascontiguousarray(ihc), *grown)


def cells_in(mask: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """How many nuclei are at least half in the mask, and how many there are."""
    numbers = np.unique(labels[labels > 0])
    shares = ndimage.mean(mask, labels, numbers) if len(numbers) else np.zeros(0)
    return int((np.asarray(shares) >= HALF).sum()), len(numbers)


def measure_nuclei(tiles: Sequence[Nuclei], mpp: float, overlays: Path | None) -> None:
    for vectors in ("macenko", "fixed"):
        print(f"\n{vectors} vectors")
        head = f"{'':28s}{'Dice':>7s}{'recall':>16s}{'false cells':>16s}{'precision':>11s}   Dice by tile"
        print(head)
        for name, spec in methods(QUPATH_OD).items():
            if name == "absolute" or (spec.dab_method == "atst" and vectors == "fixed"):
                continue
            both = found_px = true_px = hit = positives = wrong = negatives = 0
            by_tile = []
            for tile in tiles:
                asked = spec.model_copy(update={"vectors": vectors})
                stains = found_stains(*[tile.ihc.reshape(-1, 3)] * 2, "ihc", asked)
                mask = tile_mask(tile.ihc, mpp=mpp, spec=spec, of_dab=of_dab(stains))
                true = tile.positive > 0
                both, found_px, true_px = both + (mask & true).sum(), found_px + mask.sum(), true_px + true.sum()
                own_hit, own = cells_in(mask, tile.positive)
                own_wrong, others = cells_in(mask, tile.negative)
                hit, positives, wrong, negatives = hit + own_hit, positives + own, wrong + own_wrong, negatives + others
                by_tile.append(f"{tile.name} {dice(mask, true):.3f} ({stains.method})")
                if overlays is not None:
                    draw(tile, mask, overlays / f"{tile.name}-{vectors}-{name.split(' (')[0].replace(' ', '_')}.png")
            print(
                f"{name:28s}{2 * both / max(1, found_px + true_px):7.3f}"
                f"{f'{hit / positives:.3f} of {positives}':>16s}{f'{wrong / negatives:.3f} of {negatives}':>16s}"
                f"{hit / max(1, hit + wrong):11.3f}   {', '.join(by_tile)}"
            )


def draw(tile: Nuclei, mask: np.ndarray, path: Path) -> None:
    """The tile with the mask's outline in yellow and positive nuclei in magenta, at twice its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = cv2.resize(tile.ihc, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for marked, colour in ((tile.positive > 0, (255, 0, 255)), (mask, (255, 230, 0))):
        large = cv2.resize(marked.astype(np.uint8), shown.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, outlines, -1, colour, 1)
    Image.fromarray(shown).save(path)


@dataclass(frozen=True)
class Drawn:
    """One drawn tile and where its DAB is, on a grid of 1 µm."""

    score: str
    ihc: np.ndarray
    true: np.ndarray
    stains: SlideStains


def drawn_tiles(folder: Path, seed: int, cases: int, tiling: TilingSpec) -> Iterator[Drawn]:
    for number in range(1, cases + 1):
        home = folder / str(seed) / f"{number:03d}"
        if not (home / "truth.zarr").exists():
            write_case(SynthSpec(seed=seed, patients=cases, artifacts=False), number, home)
        yield from _of_case(home, f"s{seed}-{number:03d}", tiling)


def _of_case(home: Path, case_id: str, tiling: TilingSpec) -> Iterator[Drawn]:
    truth = zarr.open_group(home / "truth.zarr", mode="r")
    part = truth["ihc_from_he"]
    transform = Transform(
        np.array(part.attrs["affine"]),
        float(part.attrs["fixed_mpp"]),
        float(part.attrs["moving_mpp"]),
        np.asarray(part["field_um"][:]) if "field_um" in part else None,
        float(part.attrs["grid_um"]),
    )
    he, ihc = (open_slide(home / f"{s}.tif", slide_id=f"{case_id}-{s}", spec=SlidesSpec()) for s in ("he", "ihc"))
    spec = StainsSpec()
    overview, mpp = he.overview(max_px=round(max(he.size_px0) * he.mpp / TissueSpec().mpp))
    provenance = Provenance(artefact="tissue", subject=case_id)
    tissue = TissueMasks(provenance, find_tissue(overview, mpp=mpp, spec=TissueSpec()), mpp)
    pixels = tissue_pixels(ihc, tissue, count=spec.sample_tiles, fixed_mpp=he.mpp, moved=transform)
    stains = found_stains(pixels, overview_pixels(ihc), "ihc", spec)
    dab = np.asarray(truth["dab"][:])
    side = round(tiling.tile_px * tiling.mpp)
    for cell, _ in keep_cells(he, tissue, tiling, case_id=case_id).cells:
        tile, _ = read_warped(ihc, transform, cell.box_px0, mpp=tiling.mpp, size=(tiling.tile_px,) * 2)
        x, y = (round(corner * he.mpp) for corner in (cell.box_px0.x, cell.box_px0.y))
        true = np.zeros((side, side), bool)
        inside = dab[y : y + side, x : x + side]
        true[: inside.shape[0], : inside.shape[1]] = inside
        yield Drawn(str(truth.attrs["score"]), tile, true, stains)
    he.close()
    ihc.close()


def calibrated(tiles: Sequence[Drawn], mpp: float) -> tuple[float, float, float]:
    """As `hepipe stains calibrate` finds it in an index."""
    counts = np.empty((len(tiles), BINS), np.int64)
    for row, tile in zip(counts, tiles, strict=True):
        dab = of_dab(tile.stains)(tile.ihc)[0][tissue_of(tile.ihc, tile.stains.white, mpp)]
        row[:] = np.bincount(np.minimum((dab * (BINS / MAX_OD)).astype(np.int64), BINS - 1), minlength=BINS)
    found, youden, used = thresholds_of(counts, [tile.score for tile in tiles])
    print(f"calibrated on {len(tiles)} training tiles: {found}, Youden's J {youden}, tiles of use {used}")
    return found


def measure_drawn(folder: Path, cases: int, train_seed: int, test_seed: int) -> None:
    tiling = TilingSpec()
    thresholds = calibrated(list(drawn_tiles(folder, train_seed, cases, tiling)), tiling.mpp)
    tiles = list(drawn_tiles(folder, test_seed, cases, tiling))
    stained = [tile.true.mean() >= MIN_TRUE_FRAC for tile in tiles]
    print(f"{len(tiles)} test tiles, {sum(stained)} with DAB on {MIN_TRUE_FRAC:.0%} or more; mean over the others last")
    print(f"{'':28s}{'Dice':>7s}{'median tile':>13s}{'area':>7s}{'of nothing':>12s}")
    for name, spec in methods(thresholds).items():
        both = found_px = true_px = 0
        by_tile, of_nothing = [], []
        for tile, counts in zip(tiles, stained, strict=True):
            mask = tile_mask(tile.ihc, mpp=tiling.mpp, spec=spec, of_dab=of_dab(tile.stains))
            side = len(tile.true)
            found = mask.reshape(side, -1, side, tiling.tile_px // side).mean((1, 3)) >= HALF
            both, found_px, true_px = (
                both + (found & tile.true).sum(),
                found_px + found.sum(),
                true_px + tile.true.sum(),
            )
            if counts:
                by_tile.append(dice(found, tile.true))
            else:
                of_nothing.append(float(mask.mean()))
        print(
            f"{name:28s}{2 * both / max(1, found_px + true_px):7.3f}{np.median(by_tile):13.3f}"
            f"{found_px / max(1, true_px):7.2f}{np.mean(of_nothing) if of_nothing else float('nan'):12.3f}"
        )


def main() -> None:
    """Read the command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = words.add_subparsers(required=True)
    nuclei = kinds.add_parser("nuclei")
    nuclei.add_argument("--tile", nargs=2, type=Path, action="append", required=True, metavar=("IHC", "TRUTH"))
    nuclei.add_argument("--mpp", type=float, default=0.25)
    nuclei.add_argument("--overlays", type=Path)
    drawn = kinds.add_parser("drawn")
    drawn.add_argument("folder", type=Path)
    drawn.add_argument("--cases", type=int, default=8)
    drawn.add_argument("--train-seed", type=int, default=11)
    drawn.add_argument("--test-seed", type=int, default=12)
    given = words.parse_args()
    if "tile" in given:
        measure_nuclei([read_nuclei(*pair) for pair in given.tile], given.mpp, given.overlays)
    else:
        measure_drawn(given.folder, given.cases, given.train_seed, given.test_seed)


if __name__ == "__main__":
    main()
