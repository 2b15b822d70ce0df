"""An opened tile set and its way into the store that tiles of slides take too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hepipe.errors import ConfigError
from hepipe.importers.files import Header, decode_picture, listed, stamp
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.sheet import Score
from hepipe.specs.dataset import Split
from hepipe.specs.imports import ImportSpec
from hepipe.stains.estimate import pooled
from hepipe.stores.codecs import Passthrough
from hepipe.stores.shards import sealed
from hepipe.stores.tables import LEFT_OUT
from hepipe.stores.tiles import TileWriter
from hepipe.tiling.cut import DROPPED, OF_PIXELS, DabMask, Encoded, Measure, encoded, finish_tile, with_dropped

WHOLE = {"outside_frac_he": 0.0, "outside_frac_ihc": 0.0}
"""A tile from a file has pixels everywhere; a grid over a slide may reach over its edge."""
NO_PARTNER, OVERLAPS, DISCARDED, WORST_ALIGNED = LEFT_OUT
MIST_KEPT = 4_000

Pixels = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What a set says of a tile; empty where it does not.

    Attributes:
        slide_id: Of the H&E slide.
        case_id: The unit of statistics and splits.
        score: HER2.
        score_level: What the score was given to.
        corner_px0: Left and top edge on the slide's canvas, px at level 0.
        extent_px0: Side of the tile there; None without a corner.
        labels: Numbers that come with the tile, joined to its measurements.
    """

    slide_id: str | None = None
    case_id: str | None = None
    score: Score | None = None
    score_level: str = "none"
    corner_px0: tuple[int, int] | None = None
    extent_px0: int | None = None
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """One pair of tiles.

    Attributes:
        split: Where it goes.
        folder: Split that the set itself puts it into, which the tile's id keeps when it is divided otherwise.
        name: Within the set, with folders below the split, without suffix.
        he: File of the H&E; None without.
        ihc: File of the IHC, the same file where both stand side by side; None without.
        facts: What the set says.
        problem: Why the pair is not read; empty where it is.
        file_px: Side of a tile in its file.
        halved: Whether 2 x 2 px become one.
        part: Row and column of the quarter that this tile is, after halving; None: the whole.
    """

    split: Split
    folder: str
    name: str
    he: Path | None
    ihc: Path | None
    facts: Facts = Facts()
    problem: str = ""
    file_px: int = 0
    halved: bool = False
    part: tuple[int, int] | None = None

    @property
    def tile_id(self) -> str:
        """As the tile table has it; a quarter's begins with its parent's."""
        quarter = "" if self.part is None else f"_r{self.part[0]}c{self.part[1]}"
        return f"{self.folder}/{self.name}{quarter}"

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are there, each once."""
        return tuple(dict.fromkeys(path for path in (self.he, self.ihc) if path is not None))

    @property
    def stamp(self) -> tuple[int, ...]:
        """Sizes and times of the files: an import is gone on with while they are the same."""
        return stamp(*self.files)

    def read(self) -> Pixels:
        """H&E and IHC as they are stored.

        Raises:
            ValueError: A file does not decode any more.
            OSError: It cannot be read.
        """
        return self.pixels(self.read_bytes())

    def read_bytes(self) -> list[bytes]:
        """What the files hold; raises as `read`."""
        return [path.read_bytes() for path in self.files]

    def pixels(self, contents: Sequence[bytes]) -> Pixels:
        """H&E and IHC as they are stored, from what `read_bytes` gave; raises as `read`."""
        side = self.file_px
        if len(contents) == 1:
            both = decode_picture(contents[0], (2 * side, side))
            he, ihc = both[:, :side], both[:, side:]
        else:
            he, ihc = (decode_picture(content, (side, side)) for content in contents)
        return self._cut(he), self._cut(ihc)

    def _cut(self, tile: np.ndarray) -> np.ndarray:
        if self.halved:
            # The mean of each 2 x 2 px, rounded; every px counts once.
            tile = cv2.resize(tile, (self.file_px // 2, self.file_px // 2), interpolation=cv2.INTER_AREA)
        if self.part is not None:
            row, column = self.part
            side = tile.shape[0] // 2
            tile = tile[row * side : (row + 1) * side, column * side : (column + 1) * side]
        return np.ascontiguousarray(tile)


@dataclass(frozen=True)
class TileSet:
    """An opened tile set.

    Attributes:
        pairs: Those that are read.
        dropped: Those that are not, each with its problem.
        tile_px: Side of a tile as it is stored.
        mpp: µm per px as it is stored.
        passes: Stains whose files a store keeps as they are.
        told: What provenance says: counts, splits, warnings, terms.
    """

    pairs: tuple[Pair, ...]
    dropped: tuple[Pair, ...]
    tile_px: int
    mpp: float
    passes: frozenset[str] = frozenset()
    told: Mapping[str, Any] = field(default_factory=dict)


def sample_pixels(tiles: TileSet, count: int) -> Pixels:
    """Pixels of at most `count` pairs spread over the set, one array per stain, for stain vectors.

    Raises:
        ConfigError: None of these pairs decodes.
    """
    places = np.linspace(0, len(tiles.pairs) - 1, min(count, len(tiles.pairs))).astype(np.int64)
    read = []
    for place in places:
        try:
            read.append(tiles.pairs[place].read())
        except (ValueError, OSError) as error:
            last = error
    if not read:
        raise ConfigError(f"import: none of {len(places)} pairs spread over the set decodes: {last}")
    return pooled([he for he, _ in read]), pooled([ihc for _, ihc in read])


def import_tiles(
    tiles: TileSet,
    spec: ImportSpec,
    *,
    measures: Sequence[Measure],
    dab_mask: DabMask,
    store: TileWriter,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Tiles into the store and their rows of the tile table, by tile id; those that it holds are not read.

    A pair that does not decode is not in the store; its row says so, as that of a pair that was left out does.

    Raises:
        ConfigError: Two tiles get the same id, or no pair decodes.
    """
    pairs = sorted(tiles.pairs, key=lambda pair: pair.tile_id)
    twice = sorted(name for name, n in Counter(pair.tile_id for pair in [*pairs, *tiles.dropped]).items() if n > 1)
    if twice:
        raise ConfigError(f"import: the same name in folder {spec.split} and outside of it: {listed(twice)}")

    def read(pair: Pair) -> tuple[Encoded, float]:
        try:
            contents = pair.read_bytes()
            he, ihc = pair.pixels(contents)
        except (ValueError, OSError) as error:
            problem = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
            return _without_pixels(problem), 0.0
        tile = finish_tile(he, ihc, tiles.mpp, measures, dab_mask, WHOLE)
        kept = {
            name: sealed(codec.pack([content], shape=(he.shape[0], he.shape[1])))
            for name, content in zip(("he", "ihc"), contents, strict=False)
            if name in tiles.passes and isinstance(codec := store.codec(name), Passthrough)
        }
        return encoded(tile, store, kept), max(tile.measurements["white_frac_he"], tile.measurements["white_frac_ihc"])

    begun = sum(1 + len(row[DROPPED]) for row in store.rows)
    # OpenCV's own threads would only compete with ours.
    cv2.setNumThreads(1)
    done = in_order(read, pairs[begun:], workers=max(1, workers), name="import")
    unread: list[dict[str, Any]] = []
    for pair, (tile, glass) in zip(
        pairs[begun:], watched(done, "tiles", total=len(pairs), unit="tile", start=begun), strict=True
    ):
        row = _row(pair, tiles, spec, tile, glass)
        if tile.chunks:
            store.append({**row, DROPPED: unread}, tile.chunks)
            unread = []
        else:
            unread.append({**row, "row_in_store": None})
    rows = [*with_dropped(store.rows), *unread]
    if not store.rows:
        raise ConfigError(f"import: none of {len(pairs)} pairs can be read: {rows[0]['problem']}")
    rows += [
        {**_row(pair, tiles, spec, _without_pixels(pair.problem), 0.0), "row_in_store": None} for pair in tiles.dropped
    ]
    if spec.preset == "mist4000":
        rows = _best_aligned(rows, MIST_KEPT)
    return sorted(rows, key=lambda row: str(row["tile_id"]))


def _without_pixels(problem: str) -> Encoded:
    return Encoded({}, {**dict.fromkeys(OF_PIXELS), "measurements": {}, "problem": problem})


def _row(pair: Pair, tiles: TileSet, spec: ImportSpec, tile: Encoded, glass: float) -> dict[str, Any]:
    facts = pair.facts
    x, y = facts.corner_px0 or (None, None)
    if x is not None and y is not None and pair.part is not None:
        half = (facts.extent_px0 or 0) // 2
        x, y = x + pair.part[1] * half, y + pair.part[0] * half
    columns = dict(tile.columns)
    if facts.labels and tile.chunks:
        columns["measurements"] = dict(sorted({**columns["measurements"], **facts.labels}.items()))
    return {
        "tile_id": pair.tile_id,
        "case_id": facts.case_id,
        "patient_id": facts.case_id,
        "slide_id": facts.slide_id,
        "batch": None,
        "x_px0": x,
        "y_px0": y,
        "canvas_x_px0": x,
        "canvas_y_px0": y,
        "mpp": tiles.mpp,
        "her2_score": facts.score,
        "score_level": facts.score_level,
        "marker": spec.marker,
        "section": spec.section,
        "source_split": pair.split,
        "source_set": spec.kind,
        "source_name": pair.name,
        "warped_stain": spec.warped_stain,
        "tissue_frac": 1.0 - glass,
        "region": "",
        "place": "inside",
        **columns,
    }


def _best_aligned(rows: list[dict[str, Any]], kept: int) -> list[dict[str, Any]]:
    """Leave out the worst-aligned pairs of the published train until `kept` are left, those of validation included.

    By `ncc_peak`, then `shift_um`, then name.
    """

    def worst_last(row: Mapping[str, Any]) -> tuple[float, float, str]:
        peak, shift = (row["measurements"].get(name, np.nan) for name in ("ncc_peak", "shift_um"))
        return (np.inf if np.isnan(peak) else -peak), (np.inf if np.isnan(shift) else shift), str(row["tile_id"])

    ranked = sorted((row for row in rows if row["tile_id"].startswith("train/") and not row["problem"]), key=worst_last)
    worst = {row["tile_id"] for row in ranked[kept:]}
    return [{**row, "problem": WORST_ALIGNED} if row["tile_id"] in worst else row for row in rows]


def is_passed(headers: Sequence[Header | str]) -> bool:
    """Whether a store can keep the bytes of all these files."""
    return all(isinstance(header, Header) and header.passes for header in headers)
