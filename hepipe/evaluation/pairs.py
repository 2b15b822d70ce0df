"""Pairs of virtual and real tiles of a split, matched by tile id, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from hepipe.dataset.tiles import viewed
from hepipe.errors import StoreError
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, read_table
from hepipe.stores.tiles import TileStore

MAX_NAMED = 5


@dataclass(frozen=True)
class TilePair:
    """One tile in its three pictures, at one resolution.

    Attributes:
        tile_id: Of the H&E tile.
        case_id: Case; None where an imported set does not say.
        patient_id: Patient, the independent unit; None where unknown.
        her2_score: Of the slide.
        he: The H&E as stored; the model may have seen it in normalised colours.
        real: The registered real IHC.
        fake: What the model drew.
        mpp: µm per px of all three.
    """

    tile_id: str
    case_id: str | None
    patient_id: str | None
    her2_score: str | None
    he: UInt8[np.ndarray, "h w 3"]
    real: UInt8[np.ndarray, "h w 3"]
    fake: UInt8[np.ndarray, "h w 3"]
    mpp: float


class PairedTiles:
    """The tiles of one split with their predictions; tiles are read when asked for."""

    def __init__(self, index: Path, split: str, virtual: Path) -> None:
        """Open the stores and match the ids.

        Args:
            index: `index.parquet` of a data set.
            split: Which tiles.
            virtual: Prediction of that split.

        Raises:
            StoreError: Tiles on one side only, named; or pictures that cover another area.
        """
        self._virtual = TileStore(virtual, "virtual")
        predicted = [str(tile) for tile in self._virtual.attributes["tile_ids"]]
        # As `SplitTiles` gives to prediction: those beside the tumour regions are in no score.
        here = (row for row in read_table(index, INDEX) if (row["split"], row["place"]) == (split, "inside"))
        self._rows = sorted(here, key=lambda row: row["tile_id"])
        self._place = {tile_id: place for place, tile_id in enumerate(predicted)}
        wanted = {row["tile_id"] for row in self._rows}
        self._refuse(wanted - self._place.keys(), "without a prediction; predict this split again")
        self._refuse(self._place.keys() - wanted, "predicted that are not in the split; predict this split again")
        self._stores = {name: TileStore(index.parent / name) for name in sorted({row["store"] for row in self._rows})}
        self.mpp = self._virtual.mpp
        for name, store in self._stores.items():
            side_um, drawn_um = store.tile_px * store.mpp, self._virtual.tile_px * self.mpp
            if abs(side_um - drawn_um) > 0.001 * side_um:
                raise StoreError(f"{virtual}: tiles of {drawn_um:g} µm, those of {name} have {side_um:g} µm")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[TilePair]:
        """Pairs sorted by tile id. H&E and IHC are averaged to the resolution that the run works at."""
        for row in self._rows:
            store = self._stores[row["store"]]
            he, real = (viewed(store.read(name, row["row_in_store"]), self._virtual.tile_px) for name in ("he", "ihc"))
            yield TilePair(
                tile_id=row["tile_id"],
                case_id=row["case_id"],
                patient_id=row["patient_id"],
                her2_score=row["her2_score"],
                he=he,
                real=real,
                fake=self._virtual.read("virtual", self._place[row["tile_id"]]),
                mpp=self.mpp,
            )

    @property
    def predicted_with(self) -> Provenance:
        """What the prediction was made with."""
        return self._virtual.provenance

    @staticmethod
    def _refuse(tiles: set[str], problem: str) -> None:
        if tiles:
            named = ", ".join(sorted(tiles)[:MAX_NAMED]) + (" …" if len(tiles) > MAX_NAMED else "")
            raise StoreError(f"{len(tiles)} tiles {problem}: {named}")
