"""What lies beside an import's tables: a contact sheet of random pairs, and the list that knows the files' names."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from hepipe.importers.pairs import Pair, TileSet

SHOWN = 8
ACROSS = 4
SIDE_PX = 256
LINE_PX = 18
GAP_PX = 8


def write_contact_sheet(path: Path, tiles: TileSet, *, seed: int) -> None:
    """Eight pairs drawn with a seed, H&E above IHC, each under its tile id, split and score.

    Pairs that do not decode are passed over.
    """
    drawn = sorted(tiles.pairs, key=lambda pair: hashlib.sha256(f"{seed}/{pair.tile_id}".encode()).hexdigest())
    shown: list[tuple[Pair, UInt8[np.ndarray, "h w 3"]]] = []
    for pair in drawn:
        if len(shown) == SHOWN:
            break
        try:
            he, ihc = pair.read()
        except (ValueError, OSError):
            continue
        small = [cv2.resize(tile, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for tile in (he, ihc)]
        shown.append((pair, np.concatenate(small)))
    width, height = SIDE_PX + GAP_PX, 2 * SIDE_PX + 2 * LINE_PX + GAP_PX
    rows = -(-len(shown) // ACROSS)
    sheet = Image.new("RGB", (min(len(shown), ACROSS) * width + GAP_PX, rows * height + GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (pair, picture) in enumerate(shown):
        left, top = GAP_PX + place % ACROSS * width, GAP_PX + place // ACROSS * height
        pen.text((left, top), _short(pair.tile_id), fill="black")
        pen.text((left, top + LINE_PX - 2), f"{pair.split}, {pair.facts.score or 'no score'}", fill="dimgray")
        sheet.paste(Image.fromarray(picture), (left, top + 2 * LINE_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    _write(path, buffer.getvalue())


def write_names(path: Path, root: Path, pairs: Sequence[Pair]) -> None:
    """Tile id and the files it is of, relative to the set's folder: for the machine that holds the set alone."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["tile_id", "he", "ihc"])
    for pair in sorted(pairs, key=lambda pair: pair.tile_id):
        files = ["" if file is None else os.path.relpath(file, root) for file in (pair.he, pair.ihc)]
        writer.writerow([pair.tile_id, *files])
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, lines.getvalue().encode())


def summary(told: Mapping[str, Any]) -> list[str]:
    """What an import has to say, in lines for a person."""
    lines = [
        f"{one['what']}: {one['found']:,}" + (f" of {one['expected']:,}" if one["expected"] is not None else "")
        for one in told["counts"]
    ]
    lines += [f"{key}: {told[key]}" for key in ("division", "aliases", "halved", "quartered", "thinned") if key in told]
    lines += [f"{stain} is kept as {how}" for stain, how in told["kept"].items()]
    lines += [f"{count} files passed over: {what}" for what, count in told.get("skipped", {}).items()]
    lines += [f"terms: {one['line']}" for one in told["terms"]]
    return lines + [f"warning: {text}" for text in told["warnings"]]


def _short(text: str, most: int = 42) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    os.replace(beside, path)
