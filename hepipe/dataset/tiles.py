"""Tiles of a split as training batches and as whole tiles for prediction; the one place where uint8 meets [-1, 1].

A batch is a pure function of (seed, step, rank): tiles come from a stream of seeded permutations, one after the
other, and crops and flips are keyed by the place in that stream. So a resumed training continues exactly, the number
of threads changes nothing, and several processes share out the very batch that one would see.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from hepipe.dataset.batch import Batch
from hepipe.dataset.normalize import MOST_PX, MOST_TILES, STAINS, Normalization
from hepipe.errors import StoreError
from hepipe.parallel import in_order
from hepipe.sheet import SCORES
from hepipe.specs.dataset import Split
from hepipe.stains.estimate import Stain, pooled
from hepipe.stains.normalize import LabStatistics, StainStatistics, colour_statistics, normalized
from hepipe.stores.tables import INDEX, read_table, store_beside
from hepipe.stores.tiles import TileStore

DRAWN_APART = 1
"""Stream of permutations that unpaired IHC comes from; 0 is the H&E's."""


_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
_LEVELS = (torch.arange(256, dtype=torch.uint8).float() / 127.5 - 1).numpy()
"""Each 8-bit level in [-1, 1]."""


def tensor_from_rgb(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """An RGB tile in [-1, 1]."""
    values = np.empty((3, *rgb.shape[:2]), np.float32)
    fill_from_rgb(rgb, values)
    return torch.from_numpy(values)


def fill_from_rgb(rgb: UInt8[np.ndarray, "h w 3"], out: Float32[np.ndarray, "3 h w"]) -> None:
    """Write an RGB tile in [-1, 1] into a place of a batch: a sixth of the time of arithmetic on fresh tensors."""
    for plane, values in zip(cv2.split(rgb), out, strict=True):
        cv2.LUT(plane, _LEVELS, dst=values)


def rgb_from_tensor(values: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A tile in [-1, 1] as RGB: clipped, then rounded to the nearest level."""
    levels = ((values.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def viewed(rgb: UInt8[np.ndarray, "h w 3"], side_px: int) -> UInt8[np.ndarray, "side side 3"]:
    """A square tile at a coarser resolution by area averaging; the tile itself when the side is its own."""
    if rgb.shape[0] == side_px:
        return rgb
    return cv2.resize(rgb, (side_px, side_px), interpolation=cv2.INTER_AREA)


def viewed_mask(mask: Bool[np.ndarray, "h w"], side_px: int) -> Bool[np.ndarray, "side side"]:
    """A mask at a coarser resolution: positive where at least half of the area is."""
    if mask.shape[0] == side_px:
        return mask
    averaged = cv2.resize(mask.astype(np.float32), (side_px, side_px), interpolation=cv2.INTER_AREA)
    return averaged >= 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """What the index says of a tile, as far as training and prediction use it."""

    tile_id: str
    store: str
    number: int
    marker: str
    her2_score: str | None
    case_id: str | None = None


def _several(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


_COLUMNS = ("tile_id", "store", "row_in_store", "marker", "her2_score", "case_id", "split", "place")


class SplitTiles:
    """The tiles of one split, sorted by id, at the resolution that a run sees; any thread may read.

    One that is sent to another process opens the stores again there and begins with an empty cache.
    """

    def __init__(
        self,
        index: Path,
        split: Split,
        *,
        mpp: float | None = None,
        cache_mb: int = 0,
        place: Literal["inside", "outside"] = "inside",
        normalization: Normalization | None = None,
    ) -> None:
        """Open the stores of a split.

        Args:
            index: `index.parquet` of a data set.
            split: Which tiles.
            place: Those beside the tumour regions are for tests alone, and have to be asked for.
            mpp: µm per px of the view; None as stored.
            cache_mb: Decoded tiles kept in memory, MB. The first ones stay: epochs come in random order, so that no
                other choice is read more often.
            normalization: Colours that the view is brought to, from those of the tile's case in this split, or of the
                tile itself where its case is unknown. Masks and what is stored stay as they are. Tiles without enough
                tissue to tell their colours too.

        Raises:
            StoreError: A finer view than stored, or tiles of different sizes.
        """
        rows = read_table(index, INDEX, columns=_COLUMNS)
        rows = [row for row in rows if (row["split"], row["place"]) == (split, place)]
        self.split: Split = split
        self.rows = [
            Row(
                row["tile_id"],
                row["store"],
                row["row_in_store"],
                row["marker"],
                row["her2_score"],
                row["case_id"],
            )
            for row in sorted(rows, key=lambda row: row["tile_id"])
        ]
        self._index = index
        self._stores = self._opened()
        self._cache: dict[tuple[str, int], np.ndarray] = {}
        self._cache_bytes = self._room = cache_mb * 1_000_000
        self._lock = threading.Lock()
        forms = {(store.tile_px, store.mpp) for store in self._stores.values()}
        if len(forms) > 1:
            found = ", ".join(f"{side} px at {stored} µm/px" for side, stored in sorted(forms))
            raise StoreError(f"{index}: tiles of one size expected in split {split}, found {found}")
        self.stored_px, self.stored_mpp = next(iter(forms), (0, mpp or 0.0))
        if mpp is not None and mpp < self.stored_mpp * 0.999:
            raise StoreError(f"{index}: tiles are stored at {self.stored_mpp} µm/px; a view at {mpp} would be finer")
        self.mpp = self.stored_mpp if mpp is None else mpp
        self.side_px = round(self.stored_px * self.stored_mpp / self.mpp) if self.rows else 0
        self.normalization = normalization
        self._colours = self._found_colours()

    @property
    def cases(self) -> list[str | None]:
        """Cases of the split, those that are known first; None for all tiles of unknown ones."""
        return sorted({row.case_id for row in self.rows}, key=lambda case: (case is None, case))

    def case_pixels(self, name: Stain, case_id: str | None) -> UInt8[np.ndarray, "n 3"]:
        """Pixels of a case as the run sees them but for colours: of tiles and places spread evenly, the same always."""
        own = [row for row in self.rows if row.case_id == case_id]
        own = [own[number] for number in np.linspace(0, len(own) - 1, min(MOST_TILES, len(own))).round().astype(int)]
        step = 1
        while step < self.side_px and len(own) * (-(-self.side_px // step)) ** 2 > MOST_PX:
            step += 1
        read = (viewed(self._stores[row.store].read(name, row.number), self.side_px) for row in own)
        return pooled([tile[::step, ::step] for tile in read])

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stores": {}, "_cache": {}, "_room": self._cache_bytes, "_lock": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._stores = self._opened()
        self._lock = threading.Lock()

    def rgb(self, name: str, place: int, crop: Crop | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """The H&E (`he`) or IHC (`ihc`) tile at a place, or a crop of it, as the run sees it."""
        if (known := self._cache.get((name, place))) is not None:
            return known if crop is None else crop.of(known)
        row = self.rows[place]
        store = self._stores[row.store]
        shrinks, rest = divmod(self.stored_px, self.side_px)
        # The colours of a tile of no known case are those of the whole tile.
        whole = self._target(name) is not None and row.case_id is None
        if crop is not None and not rest and not whole and self._room < self.side_px * self.side_px * 3:
            stored = crop.scaled(shrinks)
            out = np.empty((stored.side_px, stored.side_px, 3), np.uint8)
            store.read_crop(name, row.number, top=stored.y, left=stored.x, out=out)
            return self._normalized(name, row, viewed(out, crop.side_px))
        read = viewed(store.read(name, row.number), self.side_px)
        tile = self._kept((name, place), self._normalized(name, row, read))
        return tile if crop is None else crop.of(tile)

    def mask(self, name: str, place: int) -> Bool[np.ndarray, "h w"]:
        """A mask of the tile at a place, as the run sees it.

        Raises:
            StoreError: The store holds no such mask.
        """
        store = self.rows[place].store
        if name not in self._stores[store].names():
            raise StoreError(f"{store}: holds no {name}, which this model's preset needs; choose a preset without it")
        if (known := self._cache.get((name, place))) is not None:
            return known
        row = self.rows[place]
        return self._kept((name, place), viewed_mask(self._stores[row.store].read_mask(name, row.number), self.side_px))

    def check_carries(self, needs: Sequence[str], *, model: str, instead: Sequence[str] = ()) -> None:
        """Whether every tile has what a model reads beside both stains.

        Args:
            needs: Of the model's preset.
            model: What asks for it, in words.
            instead: Its presets that do without.

        Raises:
            StoreError: Some have not; it says which, and what to do.
        """
        without = sorted(name for name, store in self._stores.items() if "dab_mask" not in store.names())
        if "dab_mask" in needs and without:
            raise StoreError(
                f"{model} needs the DAB mask of each tile, which {_several(without)} of split {self.split} do not "
                "hold; cut or import those tiles again with this version, which stores it, or choose a preset "
                "without it"
            )
        scoreless = [row for row in self.rows if row.her2_score not in SCORES]
        if "score" in needs and scoreless:
            cases = sorted({row.case_id or "unknown" for row in scoreless})
            without_it = f"preset {' or '.join(instead)}" if instead else "a model without it"
            raise StoreError(
                f"{model} needs the HER2 score of each tile, which {len(scoreless)} of {len(self.rows)} tiles of split "
                f"{self.split} lack (cases {_several(cases)}); fill her2_score of these cases in the slide sheet, or "
                f"import.score_pattern of an imported set, and assemble it again; or choose {without_it}"
            )

    def score(self, place: int) -> int:
        """The slide's HER2 score at a place, 0 to 3.

        Raises:
            StoreError: The case has none.
        """
        row = self.rows[place]
        if row.her2_score not in SCORES:
            raise StoreError(
                f"tile {row.tile_id}: no HER2 score, which this model's preset needs; fill her2_score of its case"
            )
        return SCORES.index(row.her2_score)

    def _target(self, name: str) -> LabStatistics | StainStatistics | None:
        return None if self.normalization is None else self.normalization.of(name)

    def _found_colours(self) -> dict[tuple[str, str], LabStatistics | StainStatistics | None]:
        """The colours of each known case of each stain that is normalised."""
        return {
            (stain, case): colour_statistics(self.case_pixels(stain, case), target.method, stain)
            for stain in STAINS
            if (target := self._target(stain)) is not None
            for case in self.cases
            if case is not None
        }

    def _normalized(self, name: str, row: Row, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        target = self._target(name)
        if target is None:
            return picture
        if row.case_id is not None:
            own = self._colours[name, row.case_id]
        else:
            own = colour_statistics(picture.reshape(-1, 3), target.method, "he" if name == "he" else "ihc")
        return picture if own is None else normalized(picture, source=own, target=target)

    def _opened(self) -> dict[str, TileStore]:
        return {name: TileStore(store_beside(self._index, name)) for name in sorted({row.store for row in self.rows})}

    def _kept(self, key: tuple[str, int], tile: np.ndarray) -> np.ndarray:
        """The tile, which stays in the cache as long as there is room."""
        with self._lock:
            if tile.nbytes <= self._room and key not in self._cache:
                self._cache[key] = tile
                self._room -= tile.nbytes
        return tile


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of a tile, px."""

    y: int
    x: int
    side_px: int

    def of(self, tile: np.ndarray) -> np.ndarray:
        """The square of a tile or mask, no copy."""
        return tile[self.y : self.y + self.side_px, self.x : self.x + self.side_px]

    def scaled(self, factor: int) -> Crop:
        """The same square where a px is `factor` px a side."""
        return Crop(self.y * factor, self.x * factor, self.side_px * factor)


@dataclass(frozen=True)
class View:
    """A crop, then quarter turns, then a mirror."""

    y: int
    x: int
    side_px: int
    turns: int
    mirrored: bool

    @property
    def crop(self) -> Crop:
        """What it shows of a tile."""
        return Crop(self.y, self.x, self.side_px)

    def of(self, tile: np.ndarray) -> np.ndarray:
        """The view of a tile or mask."""
        return self.turned(self.crop.of(tile))

    def turned(self, crop: np.ndarray) -> np.ndarray:
        """The crop itself, turned and mirrored."""
        shown = crop.view(np.uint8) if crop.dtype == bool else crop
        if (turn := _TURNS[self.turns]) is not None:
            shown = cv2.rotate(shown, turn)
        if self.mirrored:
            shown = cv2.flip(shown, 1)
        return shown.view(crop.dtype)


def drawn_view(keys: Sequence[int], *, side_px: int, crop_px: int, flips: bool) -> View:
    """The random view of a tile that belongs to the keys."""
    random = np.random.default_rng(keys)
    y, x = (int(value) for value in random.integers(0, side_px - crop_px + 1, size=2))
    turns, mirrored = (int(value) for value in random.integers(0, (4, 2)))
    return View(y, x, crop_px, turns if flips else 0, bool(mirrored) and flips)


@dataclass(frozen=True)
class Sampler:
    """Which tiles and crops a step sees.

    Attributes:
        tiles: Where they come from.
        batch_size: Tiles of a step over all ranks.
        crop_px: Side of the random crop, px of the view.
        flips: Flip and turn, both stains alike.
        seed: Of the permutations, crops and flips.
        needs: Items beside both stains.
        unpaired: Draw `ihc` independently of `he`.
        replacement: Every draw is of any tile, as in ASP's released code, and an epoch only a number of draws.
        rank: Number of this process; it takes every `n_ranks`-th tile of the batch.
        n_ranks: Processes that train together.
    """

    tiles: SplitTiles
    batch_size: int
    crop_px: int
    flips: bool
    seed: int
    needs: Sequence[str] = ()
    unpaired: bool = False
    replacement: bool = False
    rank: int = 0
    n_ranks: int = 1

    def __post_init__(self) -> None:
        """Check that a batch can be made.

        Raises:
            StoreError: The split is empty or its tiles are smaller than the crop.
        """
        if not self.tiles.rows:
            raise StoreError(
                f"split {self.tiles.split} holds no tile; dataset.json beside the index says which cases failed "
                "and how many tiles were kept: mend those slides, or change splits.shares or quality.limits"
            )
        if self.crop_px > self.tiles.side_px:
            raise StoreError(
                f"training.crop_px is {self.crop_px}, but tiles are {self.tiles.side_px} px at {self.tiles.mpp} µm/px"
            )
        if self.batch_size < self.n_ranks:
            raise StoreError(f"a batch of {self.batch_size} cannot be shared by {self.n_ranks} processes")

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every tile is seen once; with replacement, as many."""
        return -(-len(self.tiles) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """This process' share of a step's batch."""
        draws = range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.n_ranks)
        places = [self._place(draw, stream=0) for draw in draws]
        views = [self._view(draw, stream=0) for draw in draws]
        apart_places, apart_views = places, views
        if self.unpaired or "loose_ihc" in self.needs:
            apart_places = [self._place(draw, stream=DRAWN_APART) for draw in draws]
            apart_views = [self._view(draw, stream=DRAWN_APART) for draw in draws]
        ihc_places, ihc_views = (apart_places, apart_views) if self.unpaired else (places, views)
        extras: dict[str, Tensor] = {}
        for need in self.needs:
            if need == "loose_ihc":
                extras[need] = self._rgb("ihc", apart_places, apart_views)
            elif need == "score":
                extras[need] = torch.tensor([self.tiles.score(place) for place in ihc_places])
            elif need == "dab_mask":
                masks = [self._mask(need, *pair) for pair in zip(ihc_places, ihc_views, strict=True)]
                extras[need] = torch.stack(masks)
            else:
                raise ValueError(f"no loader for {need!r}")
        return Batch(
            tile_ids=tuple(self.tiles.rows[place].tile_id for place in places),
            he=self._rgb("he", places, views),
            ihc=self._rgb("ihc", ihc_places, ihc_views),
            markers=tuple(self.tiles.rows[place].marker for place in ihc_places),
            extras=extras,
        )

    def _place(self, draw: int, *, stream: int) -> int:
        if self.replacement:
            return int(np.random.default_rng((self.seed, 2, stream, draw)).integers(len(self.tiles)))
        epoch, at = divmod(draw, len(self.tiles))
        return int(_permutation(len(self.tiles), self.seed, stream, epoch)[at])

    def _view(self, draw: int, *, stream: int) -> View:
        keys = (self.seed, 1, stream, draw)
        return drawn_view(keys, side_px=self.tiles.side_px, crop_px=self.crop_px, flips=self.flips)

    def _rgb(self, name: str, places: Sequence[int], views: Sequence[View]) -> Float[Tensor, "b 3 h w"]:
        values = np.empty((len(places), 3, self.crop_px, self.crop_px), np.float32)
        for place, view, out in zip(places, views, values, strict=True):
            fill_from_rgb(view.turned(self.tiles.rgb(name, place, view.crop)), out)
        return torch.from_numpy(values)

    def _mask(self, name: str, place: int, view: View) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(view.of(self.tiles.mask(name, place)))).float()[None]


def batches(sampler: Sampler, steps: Iterable[int], *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """The batches of the steps, in order; `workers` threads make them ahead, 0 on demand.

    Args:
        sampler: Where they come from.
        steps: May be endless.
        workers: No part of the result.
        pin: Into memory that a GPU copies from while the CPU goes on; needs a GPU.
    """

    def made(step: int) -> Batch:
        batch = sampler.batch(step)
        return batch.pin_memory() if pin else batch

    yield from in_order(made, steps, workers=workers, name="tiles")


def tile_seed(tile_id: str, seed: int = 0) -> int:
    """A seed of a tile, the same in every batch and order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{tile_id}".encode()).digest()[:4], "big") >> 1


_permutations: OrderedDict[tuple[int, int, int, int], np.ndarray] = OrderedDict()
_permutations_lock = threading.Lock()


def _permutation(n: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Order of an epoch; the last few are remembered, since every draw of a step asks for its own."""
    key = (n, seed, stream, epoch)
    with _permutations_lock:
        if key not in _permutations:
            _permutations[key] = np.random.default_rng([seed, 0, stream, epoch]).permutation(n)
            while len(_permutations) > 8:
                _permutations.popitem(last=False)
        return _permutations[key]
