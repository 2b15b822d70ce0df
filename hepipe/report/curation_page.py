"""The page on which a person keeps and drops tile pairs: contact sheets, every score, and what is suspicious.

Static files that open from the disk; `curation_server` serves the same ones.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hepipe.dataset.curation import content_id
from hepipe.dataset.decisions import WORDS
from hepipe.dataset.suggestions import suggest
from hepipe.errors import ConfigError, StoreError
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.report.parts import part, style
from hepipe.specs.quality import Limit, QualitySpec
from hepipe.stores.tables import TILES, VERDICTS, read_provenance, read_table
from hepipe.stores.tiles import TileStore

SIDE = 4
"""Pairs along each side of a contact sheet. Sorted by a score, the pairs on the screen come from as many sheets, so a
sheet is small: 2 MB of pixels at 128 px a tile."""
THUMB_PX = 128
VIEW_PX = 512
QUALITY = 80
FULL_QUALITY = 92
REASONS = (
    *("out of focus", "fold", "pen or dirt", "misaligned", "tissue lost", "bubble or edge", "staining", "doubled"),
    "other",
)
MAX_REASONS = 9
"""A number key each."""
READER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
OWN_FILE = re.compile(r"[0-9a-f]{16,32}\.jpg")
SCRIPTS = tuple(f"curation{name}.js" for name in ("_model", "_pictures", "_filters", "_zoom", ""))


@dataclass(frozen=True)
class CurationPair:
    """One pair of the page.

    Attributes:
        content_id: Of its pixels; unique on the page.
        tile: Its row of the tile table; of several with the same pixels the first.
        verdict: Its row of the verdict table.
        store: Name of the tile store, without suffix.
        twins: Further tiles with the same pixels.
    """

    content_id: str
    tile: Mapping[str, Any]
    verdict: Mapping[str, Any]
    store: str
    twins: int = 0


@dataclass(frozen=True)
class CurationSet:
    """Everything that can be curated in a data set.

    Attributes:
        folder: Its folder in the results.
        pairs: By case, then as in the tile table.
        limits: Kind of section to measurement to limit, as the cases were graded.
        unreadable: Tiles without pixels.
    """

    folder: Path
    pairs: tuple[CurationPair, ...]
    limits: Mapping[str, Mapping[str, Limit]]
    unreadable: int

    def read(self, number: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
        """H&E and IHC of a pair, whole; raises StoreError when they are damaged."""
        pair = self.pairs[number]
        store = _store(self.folder / "tiles" / f"{pair.store}.zarr")
        row = int(pair.tile["row_in_store"])
        return store.read("he", row), store.read("ihc", row)


@functools.lru_cache(64)
def _store(path: Path) -> TileStore:
    return TileStore(path)


def read_set(folder: Path, cases: Sequence[str] = (), only: Collection[str] | None = None) -> CurationSet:
    """The tiles and verdicts of a data set's cases.

    Args:
        folder: Its folder in the results.
        cases: Names of their tables; all that are there when empty.
        only: Content ids of the pairs to show; None: all.

    Raises:
        ConfigError: There is no such case or pair, or nothing to curate.
        StoreError: A table is damaged, or a verdict is on other tiles.
    """
    there = sorted(path.stem for path in (folder / "tiles").glob("*.parquet"))
    if unknown := sorted(set(cases) - set(there)):
        raise ConfigError(f"{folder.name}: no tiles of {', '.join(unknown)}; there are {', '.join(there) or 'none'}")
    pairs: dict[str, CurationPair] = {}
    twins: dict[str, int] = {}
    limits: dict[str, Mapping[str, Limit]] = {}
    unreadable = 0
    for name in [case for case in there if not cases or case in cases]:
        tiles = read_table(folder / "tiles" / f"{name}.parquet", TILES)
        graded = folder / "verdict" / f"{name}.parquet"
        verdicts = {row["tile_id"]: row for row in read_table(graded, VERDICTS)}
        if {row["tile_id"] for row in tiles} != verdicts.keys():
            raise StoreError(f"{graded}: verdicts on other tiles than the table of tiles has; run grade_tiles again")
        limits |= _limits(read_provenance(graded).spec)
        for tile in tiles:
            if tile["problem"] or tile["row_in_store"] is None or not (tile["he_sha256"] and tile["ihc_sha256"]):
                unreadable += 1
                continue
            key = content_id(tile)
            if key in pairs:
                twins[key] = twins.get(key, 0) + 1
            else:
                pairs[key] = CurationPair(key, tile, verdicts[tile["tile_id"]], name)
    if not pairs:
        raise ConfigError(f"{folder.name}: no tile with pixels ({unreadable} without); cut the cases first")
    if only is not None:
        pairs = {key: pair for key, pair in pairs.items() if key in only}
        if not pairs:
            raise ConfigError(f"{folder.name}: none of the {len(only)} pairs asked for; are they another data set's?")
    rows = [CurationPair(p.content_id, p.tile, p.verdict, p.store, twins.get(key, 0)) for key, p in pairs.items()]
    return CurationSet(folder, tuple(rows), limits, unreadable)


def _limits(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Limit]]:
    if not spec:
        return {}
    of_kinds = QualitySpec.model_validate(spec).limits
    return {section: dict(getattr(of_kinds, section)) for section in ("restained", "consecutive")}


def write_page(
    found: CurationSet,
    out: Path,
    *,
    reader: str,
    reasons: Sequence[str] = REASONS,
    thumb_px: int = THUMB_PX,
    view_px: int = 0,
    workers: int = 1,
) -> str:
    """Write the page; returns a line on what was written.

    Sheets and pictures are named by what is on them, so a build that was stopped goes on where it was, and one of a
    data set that changed in part makes only what is new.

    Args:
        found: What to show.
        out: Folder of the page.
        reader: Whose decisions it collects.
        reasons: Of a drop, one to nine, by number key.
        thumb_px: Side of a tile on the contact sheets.
        view_px: Side of the tiles of the larger pictures; 0: none, a served page reads the store.
        workers: Threads; the files are the same for any number.

    Raises:
        ConfigError: Reasons that cannot be.
    """
    check_reader(reader)
    check_reasons(reasons)
    sheets = [list(range(at, min(at + SIDE**2, len(found.pairs)))) for at in range(0, len(found.pairs), SIDE**2)]
    names = [_sheet_name([found.pairs[number].content_id for number in sheet], thumb_px) for sheet in sheets]
    view = f"pictures-{view_px}" if view_px else ""
    (out / "sheets").mkdir(parents=True, exist_ok=True)
    if view:
        (out / view).mkdir(exist_ok=True)

    def make(number: int) -> tuple[int, list[str]]:
        return number, _make_sheet(
            found, sheets[number], out / "sheets" / names[number], out / view if view else None, thumb_px, view_px
        )

    todo = [number for number in range(len(sheets)) if not _is_made(found, sheets[number], names[number], out, view)]
    damaged: list[str] = []
    made = in_order(make, todo, workers=workers if workers > 1 else 0, name="curate")
    bar = watched(
        made, f"sheets of {found.folder.name}", total=len(sheets), unit="sheet", start=len(sheets) - len(todo)
    )
    for number, broken in bar:
        damaged += broken
        if broken:
            # Under another name, so that the next build tries again.
            crossed = _sheet_name([names[number], *broken], 0)
            os.replace(out / "sheets" / names[number], out / "sheets" / crossed)
            names[number] = crossed
    _write(out / "index.html", render(found, names, reader=reader, reasons=reasons, thumb_px=thumb_px, view=view))
    _tidy(out / "sheets", set(names))
    if view:
        _tidy(out / view, {f"{pair.content_id}.jpg" for pair in found.pairs})
    kept = sum(bool(pair.verdict["keep"]) for pair in found.pairs)
    size = sum(file.stat().st_size for folder in ("sheets", view) if folder for file in (out / folder).iterdir())
    told = f"{len(found.pairs)} pairs ({kept} kept by the filters) on {len(sheets)} sheets, {size / 1e6:.0f} MB"
    if found.unreadable:
        told += f"; {found.unreadable} tiles have no pixels and are not shown"
    if damaged:
        told += f"; {len(damaged)} pairs cannot be read and are crossed out, such as {damaged[0]}"
    return told


def check_reasons(reasons: Sequence[str]) -> None:
    """Refuse reasons that the file of decisions would not take.

    Raises:
        ConfigError: Too many, none, or one that is no few words.
    """
    bad = [reason for reason in reasons if not WORDS.fullmatch(reason)]
    if bad or not 1 <= len(set(reasons)) == len(reasons) <= MAX_REASONS:
        raise ConfigError(
            f"reasons: {', '.join(bad) or ', '.join(reasons) or 'none'} found; one to {MAX_REASONS} different ones "
            "expected, of letters, digits, spaces and . + - _, with commas between"
        )


def check_reader(reader: str) -> None:
    """Refuse names that are none for a file.

    Raises:
        ConfigError: Not short, or of other characters.
    """
    if not READER.fullmatch(reader):
        raise ConfigError(
            f"reader {reader[:40]!r}: at most 32 letters, digits, - and _ expected, a letter or digit first"
        )


def _sheet_name(keys: Sequence[str], thumb_px: int) -> str:
    return hashlib.sha256(json.dumps([list(keys), thumb_px, SIDE, QUALITY]).encode()).hexdigest()[:16] + ".jpg"


def _is_made(found: CurationSet, sheet: Sequence[int], name: str, out: Path, view: str) -> bool:
    """Files are renamed into their place, so one that is there is whole."""
    if not (out / "sheets" / name).exists():
        return False
    return not view or all((out / view / f"{found.pairs[number].content_id}.jpg").exists() for number in sheet)


def _make_sheet(
    found: CurationSet, sheet: Sequence[int], path: Path, view: Path | None, thumb_px: int, view_px: int
) -> list[str]:
    """Write a contact sheet and the pictures of its pairs; returns the tiles that cannot be read."""
    pixels = np.full((SIDE * thumb_px, SIDE * 2 * thumb_px, 3), 255, np.uint8)
    damaged = []
    for place, number in enumerate(sheet):
        pair = found.pairs[number]
        top, left = place // SIDE * thumb_px, place % SIDE * 2 * thumb_px
        try:
            he, ihc = found.read(number)
        except StoreError:
            damaged.append(str(pair.tile["tile_id"]))
            both, larger = _crossed(thumb_px), None
        else:
            both = side_by_side(he, ihc, thumb_px)
            larger = side_by_side(he, ihc, min(view_px, he.shape[0])) if view else None
        pixels[top : top + thumb_px, left : left + 2 * thumb_px] = both
        if view is not None and larger is not None:
            _write(view / f"{pair.content_id}.jpg", jpeg(larger, QUALITY))
    _write(path, jpeg(pixels, QUALITY))
    return damaged


def side_by_side(
    he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], side: int
) -> UInt8[np.ndarray, "s d 3"]:
    """H&E left, IHC right, each `side` px wide."""
    small = [
        tile
        if tile.shape[:2] == (side, side)
        else cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA if side < tile.shape[0] else cv2.INTER_CUBIC)
        for tile in (he, ihc)
    ]
    return np.hstack(small)


def _crossed(side: int) -> UInt8[np.ndarray, "s d 3"]:
    """In place of a pair whose pixels cannot be read."""
    pixels = np.full((side, 2 * side, 3), 225, np.uint8)
    cv2.line(pixels, (0, 0), (2 * side, side), (150, 40, 40), 2, cv2.LINE_AA)
    cv2.line(pixels, (0, side), (2 * side, 0), (150, 40, 40), 2, cv2.LINE_AA)
    return pixels


def jpeg(pixels: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """A JPEG without metadata; colour is not subsampled, as the edge of a stain is what one looks at."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def render(
    found: CurationSet,
    sheets: Sequence[str],
    *,
    reader: str,
    reasons: Sequence[str],
    thumb_px: int,
    view: str,
) -> bytes:
    """The page itself, with everything in it but the pictures."""
    data = {
        "dataset": found.folder.name,
        "reader": reader,
        "reasons": list(reasons),
        "side": SIDE,
        "thumb": thumb_px,
        "sheets": list(sheets),
        "pictures": view,
        "limits": {
            section: {name: [limit.min, limit.max] for name, limit in of.items()}
            for section, of in found.limits.items()
        },
        **_columns(found),
    }
    # A "</script>" inside the data would end its element.
    carried = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    css, script = style("curation.css"), "".join(part(name) for name in SCRIPTS)
    page = part("curation.html").replace("{{title}}", html.escape(found.folder.name))
    page = page.replace("{{policy}}", policy(css, script)).replace("{{style}}", css).replace("{{script}}", script)
    return page.replace("{{data}}", carried).encode()


def policy(css: str, script: str) -> str:
    """What the page may load: its own pictures, its own style and script by their hashes, and nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)]
    return (
        f"default-src 'none'; img-src 'self' data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


def _columns(found: CurationSet) -> dict[str, Any]:
    """The pairs column by column; words that repeat are numbers into a list."""
    tiles = [pair.tile for pair in found.pairs]
    verdicts = [pair.verdict for pair in found.pairs]
    names = sorted({name for tile in tiles for name in tile["measurements"]})
    hints = suggest(tiles, verdicts, found.limits)
    return {
        "content_id": [pair.content_id for pair in found.pairs],
        "tile_id": [str(tile["tile_id"]) for tile in tiles],
        "twins": [pair.twins for pair in found.pairs],
        "words": {
            "case": _coded("unknown" if tile["case_id"] is None else str(tile["case_id"]) for tile in tiles),
            "score": _coded("unknown" if tile["her2_score"] is None else str(tile["her2_score"]) for tile in tiles),
            "section": _coded(str(tile["section"]) for tile in tiles),
            "region": _coded(str(tile["region"]) for tile in tiles),
            "place": _coded(str(tile["place"]) for tile in tiles),
            "alignment": _coded(str(verdict["alignment"]) for verdict in verdicts),
            "reason": _coded(str(verdict["reason"]) for verdict in verdicts),
            "flags": _coded(", ".join(verdict["flags"]) for verdict in verdicts),
            "why": _coded("; ".join(hint.why) for hint in hints),
        },
        "passes": [int(verdict["keep"]) for verdict in verdicts],
        "numbers": {
            "suspicion": [round(hint.weight, 3) for hint in hints],
            "tissue_frac": [_short(tile["tissue_frac"]) for tile in tiles],
            **{name: [_short(tile["measurements"].get(name)) for tile in tiles] for name in names},
        },
    }


def _coded(words: Iterable[str]) -> dict[str, Any]:
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(word, len(numbers)) for word in words]
    return {"names": list(numbers), "codes": codes}


def _short(value: float | None) -> float | None:
    """Four digits say all that a person sorts by."""
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None


def _tidy(folder: Path, keep: set[str]) -> None:
    """Remove sheets and pictures of an earlier state, and nothing that this page has not made."""
    for file in folder.iterdir():
        if OWN_FILE.fullmatch(file.name) and file.name not in keep:
            file.unlink()


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
