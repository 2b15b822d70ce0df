"""ATST-Net: what of it is built, which is its masks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cases import Case, golden, near

from hepipe.stains.atst_mask import AtstMask, atst_mask

OTSU = 1e-6
GREY = 1e-5
DIFFERING_PX = 5


@functools.cache
def common_tile(folder: Path) -> np.ndarray:
    with np.load(folder / "common" / "ihc_tile.npz") as file:
        return np.array(next(file[name] for name in file.files))


def drawn_by(recipe: Sequence[int], tile: np.ndarray) -> np.ndarray:
    """The tile that eleven integers describe: flips, a roll, integer contrast and offset, a crop."""
    flip_rows, flip_columns, down, right, factor, divisor, offset, top, bottom, left, end = (int(x) for x in recipe)
    tile = tile[::-1] if flip_rows else tile
    tile = tile[:, ::-1] if flip_columns else tile
    tile = np.roll(tile, (down, right), axis=(0, 1)).astype(np.int64)
    return np.clip(tile * factor // divisor + offset, 0, 255).astype(np.uint8)[top:bottom, left:end]


def every(name: str, prefix: str) -> int:
    return int(name.removeprefix(f"{prefix}_s"))


@golden("atst_net", "mask_extract")
def masks(case: Case) -> None:
    tile = drawn_by(case.arrays["recipe"], common_tile(case.path.parent.parent))
    found: AtstMask = atst_mask(tile, close_px=int(case.arrays["closing_radius"]))
    assert found.mask.shape == tuple(case.arrays["shape"])
    near(found.threshold, float(case.arrays["otsu"]), rtol=OTSU, what="otsu")
    for prefix, values in (("dab_gray", found.grey), ("dab_smooth", found.smooth)):
        (name,) = (name for name in case.arrays if name.startswith(f"{prefix}_s"))
        step = every(name, prefix)
        near(values[::step, ::step], case.arrays[name], atol=GREY, rtol=1e-4, what=name)
    for name, mask in (("mask_otsu", found.dark), ("mask_open", found.opened), ("mask_closed", found.mask)):
        expected = np.unpackbits(case.arrays[name], count=mask.size).reshape(mask.shape).astype(bool)
        assert (mask != expected).sum() <= DIFFERING_PX, f"{name}: {(mask != expected).sum()} px differ"
