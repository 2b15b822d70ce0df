"""Which tiles leave, under which names, and their pixels as stored or decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.dataset.card import read_card
from hepipe.errors import ConfigError, StoreError
from hepipe.exporters.names import file_names
from hepipe.specs.dataset import Split
from hepipe.stores.codecs import Codec, Jpeg, Passthrough
from hepipe.stores.provenance import digest
from hepipe.stores.tables import INDEX, read_table, store_beside
from hepipe.stores.tiles import TileStore

SPLITS: tuple[Split, ...] = ("train", "val", "test")
OWN = ("store", "row_in_store", "problem", "source_name", "he_reader", "ihc_reader")
"""Columns that stay here: of our own stores, and a public set's own name of a tile, for which the id stands."""
COLUMNS = tuple(name for name in INDEX.names if name not in (*OWN, "measurements"))
"""What leaves of a row of the index, beside its measurements."""
_SHOWN = 10


class Selection:
    """Tiles of a data set, by split and then by id.

    Attributes:
        index: `index.parquet` of the data set.
        card: Of the data set.
        card_file: `dataset.json`, as it lies beside the index.
        rows: Of the index, those that were chosen.
        names: Tile id to the name of its files.
        split_of: Tile id to split, of all that the index keeps.
        tile_px: Side of a tile; 0 without tiles.
        mpp: µm per px.
        chosen: What was asked for, as it stands in the export's record.
    """

    def __init__(
        self,
        index: Path,
        *,
        splits: Sequence[Split] = (),
        cases: Sequence[str] = (),
        most: int | None = None,
        place: Literal["inside", "outside"] = "inside",
    ) -> None:
        """Choose.

        Args:
            index: `index.parquet` of a data set.
            splits: None: all.
            cases: Case ids; none: all.
            most: Take at most so many, evenly spread over the others.
            place: Those beside the tumour regions have to be asked for.

        Raises:
            ConfigError: A case that the index does not name, or nothing is left.
            StoreError: No card beside the index, or tiles of different sizes.
        """
        self.index = index
        self.card_file = index.with_name("dataset.json")
        self.card = read_card(self.card_file)
        everything = read_table(index, INDEX)
        self.names = file_names(everything)
        self.split_of = {str(row["tile_id"]): row["split"] for row in everything}
        if unknown := sorted(set(cases) - {str(row["case_id"]) for row in everything}):
            known = sorted({str(row["case_id"]) for row in everything if row["case_id"] is not None})
            raise ConfigError(
                f"export: no tile of case {', '.join(unknown[:_SHOWN])} in this index; "
                f"it has {', '.join(known[:_SHOWN])}{' …' if len(known) > _SHOWN else ''}"
            )
        rows = [
            row
            for row in everything
            if row["place"] == place
            and (not splits or row["split"] in splits)
            and (not cases or row["case_id"] in cases)
        ]
        rows.sort(key=lambda row: (SPLITS.index(row["split"]), str(row["tile_id"])))
        if most is not None and most < len(rows):
            rows = [rows[number] for number in np.linspace(0, len(rows) - 1, most).round().astype(int).tolist()]
        if not everything:
            raise ConfigError(f"export: {index} holds no tile; dataset.json beside it says what became of its cases")
        if not rows:
            raise ConfigError(
                f"export: none of the {len(everything)} tiles of the index is in the chosen splits, cases and place "
                f"({place}); leave a filter out"
            )
        if any(row["row_in_store"] is None for row in rows):
            raise StoreError(f"{index}: a kept tile has no pixels; assemble the data set again")
        self.rows = rows
        self._stores = {name: TileStore(store_beside(index, name)) for name in sorted({row["store"] for row in rows})}
        forms = {(store.tile_px, store.mpp) for store in self._stores.values()}
        if len(forms) > 1:
            found = ", ".join(f"{side} px at {mpp} µm/px" for side, mpp in sorted(forms))
            raise StoreError(f"{index}: tiles of one size expected, found {found}; choose cases of one size by --case")
        ((self.tile_px, self.mpp),) = forms
        self.chosen: dict[str, Any] = {
            "splits": list(splits),
            "cases": sorted(cases),
            "most": most,
            "place": place,
            "n_tiles": len(rows),
            "tile_ids": digest([row["tile_id"] for row in rows]),
        }

    def identity(self) -> dict[str, Any]:
        """All that an export's bytes follow from, but for its own options."""
        stores = {name: store.digest for name, store in self._stores.items()}
        card = digest(self.card.model_dump(mode="json"))
        return {**self.chosen, "fingerprint": self.card.fingerprint, "card": card, "stores": digest(stores)}

    @property
    def has_masks(self) -> bool:
        """Whether every store holds DAB masks."""
        return all("dab_mask" in store.names() for store in self._stores.values())

    @property
    def stores(self) -> Mapping[str, TileStore]:
        """The open stores by name."""
        return self._stores

    @property
    def used(self) -> list[Split]:
        """Splits that have a chosen tile."""
        return [split for split in SPLITS if self.in_split(split)]

    def in_split(self, split: Split) -> list[dict[str, Any]]:
        """The chosen rows of one split."""
        return [row for row in self.rows if row["split"] == split]

    def name(self, row: Mapping[str, Any]) -> str:
        """Of a tile's files."""
        return self.names[str(row["tile_id"])]

    def facts(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What leaves of a row: columns of the index, and measurements by name, None where there is no number."""
        measured = {name: _number(value) for name, value in sorted(row["measurements"].items())}
        return {**{name: row[name] for name in COLUMNS}, "measurements": measured}

    def measurements(self) -> list[str]:
        """Names of all measurements of the chosen tiles."""
        return sorted({name for row in self.rows for name in row["measurements"]})

    def rgb(self, row: Mapping[str, Any], stain: str) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a tile, `he` or `ihc`."""
        return self._stores[row["store"]].read(stain, row["row_in_store"])

    def mask(self, row: Mapping[str, Any]) -> Bool[np.ndarray, "h w"]:
        """Where a tile is DAB-positive."""
        return self._stores[row["store"]].read_mask("dab_mask", row["row_in_store"])

    def picture(self, row: Mapping[str, Any], stain: str, *, stored: bool) -> tuple[bytes, str]:
        """A tile as a file and its suffix: PNG, or the very JPEG that the store holds.

        Args:
            row: Of the index.
            stain: `he` or `ihc`.
            stored: Take the stored JPEG where the whole tile is one; all others become PNG.
        """
        store = self._stores[row["store"]]
        if stored and is_one_jpeg(store.layouts[stain].codec, store.tile_px):
            jpeg = _jpeg(store.layouts[stain].codec, store.chunk(stain, row["row_in_store"]), store.tile_px)
            if jpeg:
                return jpeg, "jpg"
        return png(store.read(stain, row["row_in_store"])), "png"


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def png(picture: np.ndarray) -> bytes:
    """The same bytes for the same pixels; uint8 (h, w, 3), or bool (h, w) as 0 and 255.

    One filter for all rows at a low level: on six BCI tiles of 512 px a third of the CPU time of libpng's own choice at
    level 6, and 2 % more bytes.
    """
    values = picture.astype(np.uint8) * 255 if picture.dtype == bool else np.ascontiguousarray(picture)
    return bytes(imagecodecs.png_encode(values, level=3, filter=imagecodecs.PNG.FILTER.UP))


def is_one_jpeg(codec: Codec, tile_px: int) -> bool:
    """Whether an array's chunks hold a JPEG that any reader opens: one for the whole tile, with its own tables."""
    if isinstance(codec, Jpeg):
        return True
    return (
        isinstance(codec, Passthrough)
        and codec.tile_px == (tile_px, tile_px)
        and not codec.tables
        # JPEGs of RGB without Adobe's marker would be shown in wrong colours.
        and codec.colorspace != "RGB"
    )


def _jpeg(codec: Codec, chunk: bytes, tile_px: int) -> bytes:
    """The JPEG of a chunk; empty where it does not cover the whole tile."""
    if not isinstance(codec, Passthrough):
        return chunk
    width, height, _ = (int.from_bytes(chunk[at : at + 4], "little") for at in (0, 4, 8))
    return chunk[12:] if (width, height) == (tile_px, tile_px) else b""
