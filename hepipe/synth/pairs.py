"""Aligned tile pairs of further synthetic patients, laid out as public sets of pairs are."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.errors import ConfigError
from hepipe.progress import watched
from hepipe.specs.dataset import Split
from hepipe.specs.synth import SynthSpec
from hepipe.stores.arrays import whole
from hepipe.synth.case import draw_case
from hepipe.synth.plan import plan_pair_patient

MAX_PATIENTS = 24
_SPLITS: tuple[Split, ...] = ("train", "val", "test", "train", "train", "train")
"""Split of every four patients in turn, one of each score: each split has every score from 12 patients on."""
_MARGIN_PX = 32


def write_pairs(spec: SynthSpec, folder: Path) -> int:
    """Write `HE/<split>/<name>.png` and `IHC/<split>/<name>.png`; returns how many pairs.

    A name reads `q<seed>-<patient>_<tile>_<score>.png`. The patients are others than those of the slides. Both
    pictures of a pair show the same px of one tissue, as sets of registered tiles do.

    Raises:
        ConfigError: The folder exists and holds something else.
    """
    if folder.exists() and any(entry.name not in ("HE", "IHC") for entry in folder.iterdir()):
        raise ConfigError(f"{folder}: holds other files, which would go; give a folder of its own for the pairs")
    patients = min(spec.pairs, MAX_PATIENTS)
    with whole(folder) as beside:
        for stain in ("HE", "IHC"):
            for split in ("train", "val", "test"):
                (beside / stain / split).mkdir(parents=True)
        written = 0
        for number in watched(range(1, patients + 1), "draw", total=patients, unit="patient"):
            wanted = spec.pairs // patients + (number <= spec.pairs % patients)
            split = _SPLITS[(number - 1) // 4 % len(_SPLITS)]
            tiles, score = _patient(spec, number, wanted)
            for tile, (he, ihc) in enumerate(tiles, start=1):
                name = f"q{spec.seed}-{number:03d}_{tile:02d}_{score}.png"
                _write_png(beside / "HE" / split / name, he)
                _write_png(beside / "IHC" / split / name, ihc)
                written += 1
    return written


def _patient(
    spec: SynthSpec, number: int, wanted: int
) -> tuple[list[tuple[UInt8[np.ndarray, "t t 3"], UInt8[np.ndarray, "t t 3"]]], str]:
    """The wanted tiles of a patient, those with most tumour first, and its score."""
    side = spec.pair_px
    per_row = max(math.ceil(math.sqrt(2 * wanted)), math.ceil(400 / side))
    side_px = 4 * math.ceil((per_row * side + 2 * _MARGIN_PX) / 4)
    plan = plan_pair_patient(spec, number, side_px=side_px)
    drawn = draw_case(plan, filled=True)
    cells = drawn.section.cells.only(drawn.section.cells.is_kind("tumour"))
    corners = [
        (_MARGIN_PX + row * side, _MARGIN_PX + column * side) for row in range(per_row) for column in range(per_row)
    ]

    def n_tumour(corner: tuple[int, int]) -> int:
        top, left = corner
        return int(((cells.y >= top) & (cells.y < top + side) & (cells.x >= left) & (cells.x < left + side)).sum())

    corners.sort(key=n_tumour, reverse=True)
    tiles = [
        (drawn.he[top : top + side, left : left + side], drawn.ihc[top : top + side, left : left + side])
        for top, left in corners[:wanted]
    ]
    return tiles, plan.biology.score


def _write_png(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    done, encoded = cv2.imencode(".png", pixels[..., ::-1])
    assert done, path.name
    path.write_bytes(encoded.tobytes())
