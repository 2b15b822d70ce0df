"""A data set of two cases of slides and an imported set, whose names have what file systems and tools stumble over."""

import hashlib

import numpy as np

from hepipe.stores.tables import INDEX

SIDE = 16
PLAN = {
    "c1": [("c1/0-0", "train"), ("c1/1-0", "train"), ("c1/1-1", "train")],
    "c.2": [("c.2/0-0", "val"), ("c.2/-1-3", "test")],
    "imported": [("train/00001_train_1+", "train"), ("test/00002_test_0", "test"), ("test/00003_test_3+", "train")],
}


def pixels(tile_id, stain):
    """Smooth colour, another for each tile and stain."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{tile_id}/{stain}".encode()).digest()[:4], "big"))
    y, x = np.mgrid[:SIDE, :SIDE]
    ramp = rng.integers(60, 180, 3) + (x[..., None] * rng.integers(0, 5, 3) + y[..., None] * rng.integers(0, 3, 3))
    return np.clip(ramp, 0, 255).astype(np.uint8)


def mask(tile_id):
    """Two squares, one with a hole."""
    found = np.zeros((SIDE, SIDE), bool)
    found[2:9, 3:10] = True
    found[4:6, 5:7] = False
    found[12:14, 12:15] = len(tile_id) % 2 == 0
    return found


def sha256(rgb):
    return hashlib.sha256(rgb.tobytes()).hexdigest()


def row_of(tile_id, store, number, split, **changes):
    placed = store != "imported"
    column = dict.fromkeys(("x_px0", "y_px0", "canvas_x_px0", "canvas_y_px0"))
    if placed:
        column = dict.fromkeys(column, 100 + 64 * number)
    return {
        **dict.fromkeys(INDEX.names, ""),
        **column,
        "tile_id": tile_id,
        "case_id": store if placed else None,
        "patient_id": f"p{store[-1]}" if placed else None,
        "slide_id": f"{store}-he" if placed else None,
        "batch": None,
        "row_in_store": number,
        "mpp": 0.5,
        "her2_score": "2+",
        "score_level": "slide",
        "marker": "HER2",
        "section": "restained",
        "source_split": None if placed else tile_id.split("/")[0],
        "source_set": "" if placed else "bci",
        "source_name": "" if placed else "A12-3456 of a laboratory",
        "warped_stain": "ihc" if placed else "none",
        "tissue_frac": 0.5,
        "place": "inside",
        "he_sha256": sha256(pixels(tile_id, "he")),
        "ihc_sha256": sha256(pixels(tile_id, "ihc")),
        "he_phash": None,
        "ihc_phash": None,
        "measurements": {"blur_he": 1.5, "shift_um": float("nan"), "ncc_peak": 0.25},
        "store": f"tiles/{store}.zarr",
        "split": split,
        "alignment": "aligned",
        "he_reader": None,
        "ihc_reader": None,
        "fold": None,
        **changes,
    }


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
