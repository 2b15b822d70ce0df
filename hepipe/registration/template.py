"""Places on the H&E at which landmarks are worth setting, and what a person takes to QuPath or BigWarp."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from hepipe.geometry import Transform
from hepipe.registration.formats import pairs_csv, qupath_geojson
from hepipe.slides.reader import Slide
from hepipe.stores.arrays import whole
from hepipe.tissue.otsu import mean_od, threshold_tissue

OVERVIEW_PX = 1600
N_PLACES = 16
"""One more than a spline needs."""
MAX_CANDIDATES = 20_000
MARK = (95, 60, 200)


def suggest_places(
    rgb: UInt8[np.ndarray, "h w 3"], *, count: int = N_PLACES, within: Bool[np.ndarray, "h w"] | None = None
) -> Float[np.ndarray, "n 2"]:
    """Points (x, y), px of the picture, spread over its tissue, each at a corner-like structure.

    Args:
        rgb: Overview of a slide.
        count: At most; fewer where there is little tissue, none where there is none.
        within: Where they may lie; such as what the other slide covers.
    """
    tissue = threshold_tissue(rgb, smooth_px=2.0)
    if within is not None:
        tissue &= within
    depth = cv2.distanceTransform(np.pad(tissue, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    # Rims tear and curl; where pieces are all rim, any of their tissue will do.
    inner = depth > min(0.02 * max(tissue.shape), 0.5 * float(depth.max()))
    rows, columns = np.nonzero(inner)
    if len(rows) == 0:
        return np.empty((0, 2))
    step = -(-len(rows) // MAX_CANDIDATES)
    candidates = np.stack([columns, rows], axis=1)[::step].astype(float) + 0.5
    chosen = [candidates[int(depth[rows, columns][::step].argmax())]]
    nearest = np.linalg.norm(candidates - chosen[0], axis=1)
    while len(chosen) < count and nearest.max() > 8:
        chosen.append(candidates[int(nearest.argmax())])
        nearest = np.minimum(nearest, np.linalg.norm(candidates - chosen[-1], axis=1))
    radius = max(2, round(float(np.sqrt(inner.sum() / len(chosen))) / 4))
    corners = cv2.cornerMinEigenVal(mean_od(rgb).astype(np.float32), 7) * inner
    found = np.array([_sharpest(corners, point, radius) for point in chosen])
    sharpness = corners[found[:, 1].astype(int), found[:, 0].astype(int)]
    # Shaded glass, such as beyond a cover slip's edge, passes for tissue but has no structure.
    sharp: np.ndarray = found[sharpness > 0.05 * np.percentile(corners[inner], 90)]
    return sharp


def _sharpest(corners: np.ndarray, point: np.ndarray, radius: int) -> np.ndarray:
    x, y = (int(value) for value in point)
    left, top = max(x - radius, 0), max(y - radius, 0)
    window = corners[top : y + radius + 1, left : x + radius + 1]
    row, column = np.unravel_index(int(window.argmax()), window.shape)
    return np.array([left + column + 0.5, top + row + 0.5])


def template_pairs(
    he: Slide, ihc: Slide, ihc_from_he: Transform | None
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Suggested places on the H&E and where the transform puts them on the IHC, px0; only those that lie on both.

    Without a transform the two slides' physical frames are taken to coincide.
    """
    rgb, mpp = he.overview(max_px=OVERVIEW_PX)
    places = suggest_places(rgb) * (mpp / he.mpp)
    partners = places * (he.mpp / ihc.mpp) if ihc_from_he is None or not len(places) else ihc_from_he(places)
    if ihc_from_he is None:
        return places, partners
    lies_on = ((partners >= 0) & (partners <= ihc.size_px0)).all(axis=1)
    return places[lies_on], partners[lies_on]


def export_pair(he: Slide, ihc: Slide, ihc_from_he: Transform | None, folder: Path) -> int:
    """Write what a person needs to set landmarks in another program; returns the number of suggested places.

    The folder holds he.geojson and ihc.geojson (named points for QuPath), he.png and ihc.png (overviews with them),
    template.csv (the same as a table) and README.txt. Slides are opened where they lie; nothing is copied.
    """
    he_px0, ihc_px0 = template_pairs(he, ihc, ihc_from_he)
    names = [str(number) for number in range(1, len(he_px0) + 1)]
    with whole(folder) as beside:
        for slide, points, stain in ((he, he_px0, "he"), (ihc, ihc_px0, "ihc")):
            rgb, mpp = slide.overview(max_px=OVERVIEW_PX)
            drawn = _numbered(rgb, points * (slide.mpp / mpp), names)
            Image.fromarray(drawn).save(beside / f"{stain}.png")
            (beside / f"{stain}.geojson").write_text(qupath_geojson(names, points), encoding="utf-8")
        (beside / "template.csv").write_text(pairs_csv(he_px0, ihc_px0), encoding="utf-8")
        (beside / "README.txt").write_text(STEPS, encoding="utf-8")
    return len(names)


def _numbered(
    rgb: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "n 2"], names: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    picture = Image.fromarray(rgb.copy())
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(12, max(rgb.shape) // 70))
    for (x, y), name in zip(points, names, strict=True):
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline="white", width=4)
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline=MARK, width=2)
        draw.text((x + 10, y - 10), name, fill=MARK, font=font, stroke_width=2, stroke_fill="white", anchor="ls")
    return np.asarray(picture)


STEPS = """\
Landmarks by hand
=================

Pairs of points, the same structure on both slides, in px of each slide's largest level. Three pairs give a rotation
and shift, six an affine, fifteen a curved transform. Spread them over the tissue. The points of template.csv,
he.geojson and ihc.geojson are suggestions: those of the IHC lie where the registration so far puts them, which is
what you are here to correct. Delete a pair that you cannot place.

In the browser
    hepipe landmarks page --he HE --ihc IHC --page landmarks.html
    Open the file, click pairs, save the CSV. Nothing else is needed.

In QuPath
    1. Open the H&E slide, drag he.geojson into the viewer (or File > Import objects from file).
    2. Move each point onto a sharp structure nearby; its name (1, 2, ...) is what pairs it. Select a point, then move
       it; a locked one is unlocked in the context menu. New points: points tool, one annotation each, set its name.
    3. File > Export objects as GeoJSON (all objects, no compression): HE.geojson.
    4. The same for the IHC slide with ihc.geojson: IHC.geojson.
    5. hepipe landmarks import "HE.geojson;IHC.geojson" --out landmarks.csv

In Fiji with BigWarp, or Warpy from QuPath
    1. Take the H&E as the FIXED (target) and the IHC as the MOVING picture.
    2. Set the landmarks, then File > Export landmarks as CSV.
    3. hepipe landmarks import LANDMARKS.csv --he HE --ihc IHC --unit mm --out landmarks.csv
       The unit is that of the pictures: mm in Warpy, px for pictures without a pixel size, um otherwise. Without
       --unit it is told from the numbers where only one fits. Was the H&E the moving picture: --fixed ihc.

Then name landmarks.csv in the column `landmarks` of the slide sheet and run the workflow: this pair runs again, and no
other.
"""
