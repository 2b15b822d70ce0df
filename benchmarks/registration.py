"""Registration error against the truth of synthetic cases and the landmarks of real pairs, with CPU seconds.

python benchmarks/registration.py --synthetic FOLDER … [--pair NAME HE IHC LANDMARKS MPP] … [--mismatched] [--spec JSON]

A case folder holds he.tif, ihc.tif and truth.zarr (`hepipe synth case`). LANDMARKS is `HE.csv;IHC.csv` or empty.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import zarr

from hepipe.geometry import Transform
from hepipe.registration.landmarks import read_landmarks
from hepipe.registration.register import Registration, register
from hepipe.registration_spec import RegistrationSpec
from hepipe.slides.open import closing, open_slide
from hepipe.tissue.otsu import threshold_tissue


def truth_of(folder: Path) -> Transform:
    part = zarr.open_group(folder / "truth.zarr", mode="r")["ihc_from_he"]
    return Transform(
        affine=np.array(part.attrs["affine"], float),
        fixed_mpp=float(part.attrs["fixed_mpp"]),
        moving_mpp=float(part.attrs["moving_mpp"]),
        field_um=np.asarray(part["field_um"][:]) if "field_um" in part else None,
        grid_um=float(part.attrs["grid_um"]),
    )


def timed(he: Path, ihc: Path, spec: RegistrationSpec, **given) -> tuple[Registration, float]:
    mpp = given.pop("mpp", None)
    fixed, moving = open_slide(he, slide_id="case-he", mpp=mpp), open_slide(ihc, slide_id="case-ihc", mpp=mpp)
    with closing(fixed, moving):
        before = sum(os.times()[:4])
        found = register(fixed, moving, spec, case_id="case", **given)
        return found, sum(os.times()[:4]) - before


def tissue_error(folder: Path, found: Transform) -> tuple[float, float, float]:
    """Median and 90th percentile over H&E tissue whose true partner is on the IHC slide, and median before, µm."""
    truth = truth_of(folder)
    he, ihc = (open_slide(folder / f"{stain}.tif", slide_id=f"case-{stain}") for stain in ("he", "ihc"))
    with closing(he, ihc):
        rgb, mpp = he.overview(max_px=400)
        rows, columns = np.nonzero(threshold_tissue(rgb))
        points = (np.stack([columns, rows], axis=1) + 0.5) * mpp / he.mpp
        aim = truth(points)
        shown = ((aim >= 0) & (aim <= ihc.size_px0)).all(axis=1)
    error = np.linalg.norm(found(points[shown]) - aim[shown], axis=1) * found.moving_mpp
    still = np.linalg.norm(points[shown] * he.mpp - aim[shown] * ihc.mpp, axis=1)
    return float(np.median(error)), float(np.percentile(error, 90)), float(np.median(still))


def line(name: str, found: Registration, seconds: float, text: str) -> None:
    summary = found.summary
    steps = " ".join(f"{one['step']}{'' if one['kept'] else '(dropped)'}" for one in summary["chain"])
    print(
        f"{name:<14} {found.status.state:<7} similarity {summary['similarity']:.3f} dice {summary['tissue_dice']:.2f} "
        f"folds {summary['fold_frac']:.4f} {text} CPU {seconds:.1f} s  [{steps}]",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", nargs="*", type=Path, default=[])
    parser.add_argument(
        "--pair", nargs=5, action="append", default=[], metavar=("NAME", "HE", "IHC", "LANDMARKS", "MPP")
    )
    parser.add_argument("--mismatched", action="store_true", help="also each H&E slide with the next case's IHC slide")
    parser.add_argument("--spec", default="{}")
    options = parser.parse_args()
    # Wrong pairs are scored too, so no limit ends them here; the verdict is printed by the limits of the spec.
    spec = RegistrationSpec.model_validate_json(options.spec)
    began = time.monotonic()
    medians = []
    for folder in options.synthetic:
        found, seconds = timed(folder / "he.tif", folder / "ihc.tif", spec)
        text = "no transform"
        if found.ihc_from_he is not None:
            median, p90, before = tissue_error(folder, found.ihc_from_he)
            medians.append(median)
            text = f"error median {median:.2f} p90 {p90:.2f} µm (before {before:.0f})"
        line(folder.name, found, seconds, text)
    if medians:
        print(f"synthetic: median of medians {np.median(medians):.2f} µm, worst {max(medians):.2f} µm")
    for name, he, ihc, files, mpp in options.pair:
        landmarks = read_landmarks(name, files) if files else None
        found, seconds = timed(Path(he), Path(ihc), spec, landmarks=landmarks, mpp=float(mpp))
        error = found.summary["landmarks"]
        text = "no landmarks"
        if error is not None:
            text = (
                f"rTRE median {100 * error['rtre_median']:.3f} % p90 {100 * error['rtre_p90']:.2f} % "
                f"(before {100 * error['rtre_before_median']:.2f} %)"
            )
        line(name, found, seconds, text)
    if options.mismatched:
        sets = [(folder.name, folder / "he.tif", folder / "ihc.tif", None) for folder in options.synthetic]
        sets += [(name, Path(he), Path(ihc), float(mpp)) for name, he, ihc, _, mpp in options.pair]
        for one, other in zip(sets, sets[1:] + sets[:1], strict=True):
            if one[3] == other[3] and one[1] != other[1]:
                found, seconds = timed(one[1], other[2], spec, mpp=one[3])
                line(f"{one[0]}×{other[0]}", found, seconds, "wrong pair")
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
