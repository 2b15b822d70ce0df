"""Artifacts that the generator does not draw, put into clean drawn tiles; severity 0 is barely visible, 1 gross.

| kind | what | severity 0 to 1 |
| --- | --- | --- |
| unscanned | a field of one grey, 200 to 240, or a chequer of it and white, 8 px wide | 0.05 to 0.65 of the tile |
| white | glass on both slides but for one corner | 0.2 to 0 of the tile left |
| lost | tissue washed off one slide: a disc of glass | 0.05 to 0.55 of the tile |
| overstain | density times 1 to 2.2, and a background of the slide's second stain of OD 0.05 to 0.65 | whole tile |
| burnt | too much light, times 1 to 1.5, cut at 255 | whole tile |
| residual | a part of the H&E tile's eosin in the IHC | 0.1 to 0.9 of it |
"""

from __future__ import annotations

import numpy as np
from artifactbars.drawn import Tiles

from hepipe.stains.deconvolution import Separator, optical_density
from hepipe.stains.matrices import stain_matrix
from hepipe.stores.cases import SlideStains

KINDS = ("unscanned", "white", "lost", "overstain", "burnt", "residual")
GOLDEN = 0.618034


def plan(number: int, *, restained: bool) -> tuple[str, str, float]:
    """Kind, stain and severity of the artifact of the clean tile `number`; severities are spread evenly."""
    kinds = KINDS if restained else KINDS[:-1]
    kind = kinds[number % len(kinds)]
    turn = number // len(kinds)
    stain = "ihc" if kind == "residual" else ("he", "ihc")[turn % 2]
    return kind, stain, (0.5 + GOLDEN * (turn // 2 if kind != "residual" else turn)) % 1


def plant(tiles: Tiles, number: int, kind: str, stain: str, severity: float) -> tuple[np.ndarray, np.ndarray]:
    """The pair with the artifact in it."""
    pair = {"he": tiles.he[number].copy(), "ihc": tiles.ihc[number].copy()}
    rng = np.random.default_rng([number, KINDS.index(kind)])
    look: SlideStains = getattr(tiles.stains, stain)
    side = pair["he"].shape[0]
    if kind == "unscanned":
        edge = round(side * np.sqrt(0.05 + 0.6 * severity))
        top, left = rng.integers(0, side - edge + 1, 2)
        field = np.full((edge, edge, 3), int(rng.integers(200, 241)), np.uint8)
        if rng.random() < 0.5:
            rows, columns = np.indices((edge, edge)) // 8
            field[(rows + columns) % 2 == 1] = 255
        pair[stain][top : top + edge, left : left + edge] = field
    elif kind == "white":
        left_over = round(side * np.sqrt(0.2 * (1 - severity)))
        for name, rgb in pair.items():
            glass = _glass(getattr(tiles.stains, name), rgb.shape, rng)
            glass[:left_over, :left_over] = rgb[:left_over, :left_over]
            pair[name] = glass
    elif kind == "lost":
        rows, columns = np.indices((side, side))
        radius = side * np.sqrt((0.05 + 0.5 * severity) / np.pi)
        gone = np.hypot(*(np.stack([rows, columns]) - rng.uniform(0.3, 0.7, 2)[:, None, None] * side)) < radius
        pair[stain] = np.where(gone[..., None], _glass(look, pair[stain].shape, rng), pair[stain])
    elif kind == "overstain":
        od = optical_density(pair[stain], look.white) * (1 + 1.2 * severity)
        tissue = np.clip(od.mean(-1, keepdims=True) / 0.05, 0, 1)
        pair[stain] = _picture(od + (0.05 + 0.6 * severity) * tissue * np.array(look.second), look)
    elif kind == "burnt":
        pair[stain] = np.clip(pair[stain] * (1 + 0.5 * severity), 0, 255).astype(np.uint8)
    else:
        he = tiles.stains.he
        eosin = Separator(stain_matrix(he.first, he.second), he.white, stains=(1,))(pair["he"])[0]
        od = optical_density(pair["ihc"], look.white)
        pair["ihc"] = _picture(od + (0.1 + 0.8 * severity) * eosin[..., None] * np.array(he.second), look)
    return pair["he"], pair["ihc"]


def _glass(look: SlideStains, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.array(look.white) - 2 + rng.normal(0, 1, shape), 0, 255).astype(np.uint8)


def _picture(od: np.ndarray, look: SlideStains) -> np.ndarray:
    return np.clip(np.array(look.white) * 10**-od + 0.5, 0, 255).astype(np.uint8)
