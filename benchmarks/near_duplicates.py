"""What the hash of near-duplicates finds and what it takes for one, on pictures of tissue.

    python benchmarks/near_duplicates.py PICTURE … [--tile-px 256]

Every picture (PNG, JPEG, TIFF) is cut into tiles without overlap; those that are mostly glass are left out. Told are
the share of edited copies within 6 bits, the likeness of fine structure that confirms them, and how many pairs of
different tiles lie within 6 to 12 bits, against what chance would give for independent bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import comb
from pathlib import Path

import cv2
import numpy as np
import tifffile

from hepipe.dataset.audit import SAME_NCC, fine_likeness
from hepipe.dataset.near import TURNS, hash_bits, turned
from hepipe.tiling.likeness import EMPTY, perceptual_hash

GLASS = 225
MAX_TILES = 3000
MAX_EDITED = 300


def jpeg(tile: np.ndarray, quality: int) -> np.ndarray:
    """Encoded and decoded again."""
    data = cv2.imencode(".jpg", tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def recolored(tile: np.ndarray) -> np.ndarray:
    """Means and spreads of CIELAB moved, as Reinhard's normalisation does."""
    lab = cv2.cvtColor(tile, cv2.COLOR_RGB2LAB).astype(float)
    mean = lab.mean((0, 1))
    moved = (lab - mean) * [1.2, 0.9, 1.1] + mean + [-10, 5, -5]
    return cv2.cvtColor(moved.clip(0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)


def rotated(tile: np.ndarray, degrees: float) -> np.ndarray:
    """Turned about its middle."""
    side = tile.shape[0]
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1)
    return cv2.warpAffine(tile, turn, (side, side), borderMode=cv2.BORDER_REFLECT)


def shifted(tile: np.ndarray, share: float) -> np.ndarray:
    """Without a margin at the left and the top."""
    px = round(tile.shape[0] * share)
    return np.ascontiguousarray(tile[px:, px:])


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG 90": lambda tile: jpeg(tile, 90),
    "JPEG 50": lambda tile: jpeg(tile, 50),
    "JPEG 20": lambda tile: jpeg(tile, 20),
    "mirrored, turned, JPEG 75": lambda tile: jpeg(np.ascontiguousarray(np.rot90(tile[:, ::-1])), 75),
    "half the size": lambda tile: cv2.resize(tile, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "blurred by 2 px": lambda tile: cv2.GaussianBlur(tile, (0, 0), 2),
    "sharpened": lambda tile: cv2.addWeighted(tile, 2, cv2.GaussianBlur(tile, (0, 0), 2), -1, 0),
    "darker by 15 %": lambda tile: (tile * 0.85).astype(np.uint8),
    "brighter by 10 %": lambda tile: (tile * 1.1).clip(0, 255).astype(np.uint8),
    "colours moved": recolored,
    "turned by 1°": lambda tile: rotated(tile, 1),
    "shifted by 1 %": lambda tile: shifted(tile, 0.01),
    "shifted by 2 %": lambda tile: shifted(tile, 0.02),
    "shifted by 3 %": lambda tile: shifted(tile, 0.03),
    "shifted by 6 %": lambda tile: shifted(tile, 0.06),
}


def read(path: Path) -> np.ndarray:
    """A picture as RGB."""
    if path.suffix.lower() in (".tif", ".tiff", ".svs"):
        pixels = tifffile.imread(path)
        pixels = pixels if pixels.shape[-1] in (3, 4) else np.moveaxis(pixels, 0, -1)
    else:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(pixels[..., :3])


def tiles_of(paths: list[Path], side: int) -> list[np.ndarray]:
    """Tiles with tissue of all pictures."""
    tiles = []
    for path in paths:
        pixels = read(path)
        for y in range(0, pixels.shape[0] - side + 1, side):
            for x in range(0, pixels.shape[1] - side + 1, side):
                tile = np.ascontiguousarray(pixels[y : y + side, x : x + side])
                if tile.min(2).mean() < GLASS:
                    tiles.append(tile)
    order = np.random.default_rng(0).permutation(len(tiles))[:MAX_TILES]
    return [tiles[place] for place in order]


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("pictures", type=Path, nargs="+")
    options.add_argument("--tile-px", type=int, default=256)
    chosen = options.parse_args()
    tiles = tiles_of(chosen.pictures, chosen.tile_px)
    names = [perceptual_hash(tile) for tile in tiles]
    print(f"{len(tiles)} tiles of {chosen.tile_px} px, {names.count(EMPTY)} without structure")
    kept = [place for place, name in enumerate(names) if name != EMPTY]
    hashes = hash_bits([names[place] for place in kept])

    print("\ncopies: share within 6 bits, median bits, least and median likeness of fine structure")
    for edit, change in EDITS.items():
        bits, likeness = [], []
        for place, own in list(zip(kept, hashes, strict=True))[:MAX_EDITED]:
            copy = change(tiles[place])
            name = perceptual_hash(copy)
            found = [
                (int(np.bitwise_count(turned(np.array([own]), *way)[0] ^ hash_bits([name])[0])), way) for way in TURNS
            ]
            distance, (turns, mirrored) = min(found)
            bits.append(64 if name == EMPTY else distance)
            if bits[-1] <= 6:
                likeness.append(fine_likeness(tiles[place], copy, turns=turns, mirrored=mirrored))
        near = np.array(bits) <= 6
        low, middle = (min(likeness), float(np.median(likeness))) if likeness else (np.nan, np.nan)
        print(f"{edit:26s} {near.mean():6.1%}  {np.median(bits):4.0f}  {low:5.2f} {middle:5.2f}")

    counts = np.zeros(65, np.int64)
    coarse = []
    for way in TURNS:
        asked = turned(hashes, *way)
        for place in range(len(hashes)):
            distance = np.bitwise_count(asked[place] ^ hashes[place + 1 :])
            counts += np.bincount(distance, minlength=65)
            coarse += [(place, place + 1 + int(other), way) for other in np.flatnonzero(distance <= 6)]
    total = int(counts.sum())
    print(f"\ndifferent tiles: {total // 8:,} pairs in eight ways to lie; within so many bits, and by chance")
    for limit in (4, 6, 7, 8, 10, 12):
        chance = total * sum(comb(63, bit) for bit in range(limit + 1)) / 2**63
        print(f"{limit:3d}  {int(counts[: limit + 1].sum()):8d}  {chance:10.3g}")
    random = np.random.default_rng(0)
    unlike = []
    for one, other in random.integers(0, len(kept), (500, 2)):
        if one != other:
            turns, mirrored = TURNS[int(random.integers(8))]
            unlike.append(fine_likeness(tiles[kept[one]], tiles[kept[other]], turns=turns, mirrored=mirrored))
    print(f"\nlikeness of different tiles: 99 % below {np.percentile(unlike, 99):.2f}, highest {max(unlike):.2f}")
    for one, other, (turns, mirrored) in coarse[:20]:
        ncc = fine_likeness(tiles[kept[one]], tiles[kept[other]], turns=turns, mirrored=mirrored)
        print(f"within 6 bits: likeness {ncc:.2f}, {'a leak' if ncc >= SAME_NCC else 'no leak'}")


if __name__ == "__main__":
    main()
