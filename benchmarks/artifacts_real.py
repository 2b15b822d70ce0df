"""What the filters find on real pictures with artifacts, and what they drop of real pictures without.

    python benchmarks/artifacts_real.py --data FOLDER [--drawn FOLDER --seed 7] [--pictures FOLDER]

FOLDER of --data holds the public pictures, that of --drawn what `artifacts.py` drew. Masks of pen and coverslip edge at
the nominal 8 µm per px of the overviews are compared with those that HistoQC gives; both rules were set on these two
pictures, as there are no others with masks. Sound pictures are cut into tiles of 512 px and judged by the limits of
both kinds of section, each slide on its own; those that state no resolution at 0.25 and at 0.5 µm per px. Pairs of BCI
are judged as pairs too: consecutive sections, some truly misaligned, so their alignment is told apart from artifacts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hepipe.cli.measuring import found_stains
from hepipe.quality.edge import edge_mask
from hepipe.quality.measures import measures_of
from hepipe.quality.pen import COLORS, pen, pen_mask
from hepipe.quality.verdict import grade
from hepipe.specs.quality import QualitySpec
from hepipe.specs.stains import StainsSpec
from hepipe.stains.estimate import white_point
from hepipe.stores.cases import CaseStains
from hepipe.stores.provenance import Provenance

OVERVIEW_MPP = 8.0
SIDE = 512
MARKED = "artifacts-pen-edge-background"
UNKNOWN = (0.25, 0.5)
"""µm per px tried where a picture states none."""
VARIETY = (
    "template1", "template2", "source", "high-nuclei-level0", "medium-nuclei-level0", "very-low-nuclei-level0",
    "fat-low-nuclei-level0",
)  # fmt: skip
"""Full of tissue, fat among it; the ninth picture shows a tissue's edge."""
BCI = ("00345_test_0", "00820_test_2+", "00901_test_1+")
BCI_MPP = 0.46
Group = tuple[str, str, list[str], tuple[float, ...]]
GROUPS: tuple[Group, ...] = (
    *(("he", "tiles-he-variety", [f"tiles-he-variety/{name}.png"], UNKNOWN) for name in VARIETY),
    ("he", "BCI H&E", [f"tiles-bci-he-her2/HE/{name}.png" for name in BCI], (BCI_MPP,)),
    ("ihc", "BCI HER2", [f"tiles-bci-he-her2/HER2/{name}.png" for name in BCI], (BCI_MPP,)),
    ("ihc", "img-ihc-fhl2", ["img-ihc-fhl2/ihc.png"], UNKNOWN),
    ("ihc", "img-deepliif-large-ihc", [f"img-deepliif-large-ihc/ROI_{n}.png" for n in (1, 7)], (0.25,)),
    ("ihc", "tiles-deepliif-ki67", [f"tiles-deepliif-ki67/ihc/{name}.png" for name in ("22_2", "34_3")], (0.25,)),
    ("ihc", "tiles-deepliif-ki67", ["tiles-deepliif-ki67/panels/Lung1_IHC.png"], (0.25,)),
)
"""Stain, name, pictures whose stains are found together, resolutions."""


def read(path: Path) -> np.ndarray:
    """A picture as RGB."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def tiles_of(rgb: np.ndarray) -> Iterator[np.ndarray]:
    """Tiles that cover a picture, the last ones overlapping."""
    starts = [
        np.unique(np.linspace(0, max(length - SIDE, 0), math.ceil(length / SIDE)).round().astype(int))
        for length in rgb.shape[:2]
    ]
    for y in starts[0]:
        for x in starts[1]:
            yield np.ascontiguousarray(rgb[y : y + SIDE, x : x + SIDE])


def record(he: list[np.ndarray], ihc: list[np.ndarray]) -> CaseStains:
    """Stains as an import finds them."""
    staining = StainsSpec()
    pixels = [np.concatenate([rgb.reshape(-1, 3) for rgb in group]) for group in (he, ihc)]
    return CaseStains(
        case_id="real",
        he=found_stains(pixels[0], pixels[0], "he", staining),
        ihc=found_stains(pixels[1], pixels[1], "ihc", staining),
        provenance=Provenance(artefact="stains", subject="real", spec=staining.model_dump(mode="json")),
    )


def overlap(found: np.ndarray, given: np.ndarray) -> float:
    """Intersection over union."""
    return float((found & given).sum() / max((found | given).sum(), 1))


def report_masks(data: Path, pictures: Path | None) -> None:
    """Pen and edge of the two overviews that have masks, and what is found on the pictures without."""
    for name, kind in (("overview_red-pen", "pen"), ("overview_he_coverslip-edge", "edge")):
        rgb = read(data / MARKED / f"{name}.png")
        given = read(data / MARKED / f"{name}_mask.png")[..., 0] > 127
        white = white_point(rgb.reshape(-1, 3)) or (255.0, 255.0, 255.0)
        inked = pen_mask(rgb, OVERVIEW_MPP, white=white) > 0
        found = inked if kind == "pen" else edge_mask(rgb, OVERVIEW_MPP, white=white)
        print(f"{name}: {kind} IoU {overlap(found, given):.3f} ({given.mean():.4f} given, {found.mean():.4f} found)")
        if pictures is not None:
            drawn = rgb.copy()
            drawn[found & given], drawn[found & ~given], drawn[~found & given] = (0, 200, 0), (255, 140, 0), (0, 0, 255)
            Image.fromarray(np.concatenate([rgb, drawn], axis=1)).save(pictures / f"{name}.png")
    rgb = read(data / MARKED / "overview_all-pens.png")
    shares = np.bincount(pen_mask(rgb, 2 * OVERVIEW_MPP).ravel(), minlength=5) / rgb[..., 0].size
    print("overview_all-pens:", ", ".join(f"{c} {s:.3f}" for c, s in zip(COLORS, shares[1:], strict=True)))
    for name in ("region_red-pen", "tile_tissue-red-pen", "tile_fat-red-pen", "tile_red-pen-only"):
        rgb = read(data / MARKED / f"{name}.png")
        share = pen(rgb, rgb, 0.5)
        limit = QualitySpec().limits.restained["pen_red_he"]
        verdict = "kept" if limit.passes(share["pen_red_he"]) else "dropped"
        print(f"{name}: {share['pen_red_he']:.3f} of it under red ink: {verdict}")


def report_sound(data: Path) -> None:
    """False drops of sound pictures by stain and by kind of section."""
    quality = QualitySpec()
    totals: dict[tuple[str, str], list[bool]] = {}
    for stain, name, files, resolutions in GROUPS:
        pixels = [read(data / file) for file in files]
        stains = record(pixels, pixels)
        for section in ("restained", "consecutive"):
            limits = quality.limits_of(section)
            measures = measures_of(stains, section, thresholds_od=None)
            for file, rgb in zip(files, pixels, strict=True):
                for mpp in resolutions:
                    for number, tile in enumerate(tiles_of(rgb)):
                        numbers: dict[str, float] = {}
                        for measure in measures:
                            numbers |= measure(tile, tile, mpp)
                        own = (one for one in limits if one.endswith(f"_{stain}") or one == "residual_eosin_od")
                        asked = [one for one in own if stain == "ihc" or one != "residual_eosin_od"]
                        failed = [one for one in asked if not limits[one].passes(numbers.get(one, math.nan))]
                        totals.setdefault((stain, section), []).append(bool(failed))
                        if failed:
                            told = ", ".join(f"{one} {numbers[one]:.3f}" for one in failed)
                            print(f"  {section} {name} {Path(file).stem} tile {number} at {mpp:g}: {told}")
    for (stain, section), dropped in totals.items():
        print(f"sound {stain} tiles, limits of {section} pairs: {sum(dropped)} of {len(dropped)} dropped")


def report_pairs(data: Path) -> None:
    """BCI pairs as pairs: artifacts apart from alignment."""
    files = [(data / f"tiles-bci-he-her2/HE/{n}.png", data / f"tiles-bci-he-her2/HER2/{n}.png") for n in BCI]
    pairs = [(read(he), read(ihc)) for he, ihc in files]
    stains = record([he for he, _ in pairs], [ihc for _, ihc in pairs])
    measures = measures_of(stains, "consecutive", thresholds_od=None)
    dropped = count = 0
    for name, (he, ihc) in zip(BCI, pairs, strict=True):
        for number, (one, other) in enumerate(zip(tiles_of(he), tiles_of(ihc), strict=True)):
            numbers = {"outside_frac_he": 0.0, "outside_frac_ihc": 0.0}
            for measure in measures:
                numbers |= measure(one, other, BCI_MPP)
            row = {"tile_id": "", "section": "consecutive", "problem": "", "measurements": numbers}
            verdict = grade([row], QualitySpec())[0]
            artifacts = [flag for flag in verdict["flags"] if flag not in ("misaligned", "beyond")]
            dropped, count = dropped + bool(artifacts), count + 1
            print(
                f"  BCI {name} tile {number}: {verdict['alignment']}, shift {numbers['shift_um']:.1f} µm, "
                f"peak {numbers['ncc_peak']:.2f}; artifacts: {', '.join(artifacts) or 'none'}"
            )
    print(f"BCI pairs: {dropped} of {count} dropped for an artifact")


def report_drawn(folder: Path, seed: int) -> None:
    """Clean tiles of drawn 3+ slides."""
    from artifactbars.drawn import drawn_tiles
    from artifacts import judged

    for section in ("restained", "consecutive"):
        found: list[list[str]] = []
        for number in range(4, 21, 4):
            case = drawn_tiles(folder, seed=seed, section=section, number=number, patients=20, tile_px=256)
            assert case.score == "3+", case.score
            found += [one.flags for one in judged(case, QualitySpec(), plants=False) if one.is_clean]
        dropped = [flags for flags in found if set(flags) - {"misaligned", "beyond"}]
        print(f"drawn 3+ {section} tiles of seed {seed}: {len(dropped)} of {len(found)} clean ones dropped {dropped}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--drawn", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pictures", type=Path, help="Masks are drawn here: green both, orange found, blue given.")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    report_masks(given.data, given.pictures)
    report_sound(given.data)
    report_pairs(given.data)
    if given.drawn is not None:
        report_drawn(given.drawn, given.seed)


if __name__ == "__main__":
    main()
