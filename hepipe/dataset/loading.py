"""Tiles for a training of one's own: whole batches as hepipe's loop sees them, or single pairs for any DataLoader.

Decoding lets other threads run, so threads keep a GPU fed with one copy of the index, the open files and the cache.
Worker processes of a DataLoader give the same batches, each process with copies of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from hepipe.dataset.batch import Batch
from hepipe.dataset.tiles import Sampler, SplitTiles, View, batches, drawn_view, fill_from_rgb
from hepipe.errors import ConfigError
from hepipe.parallel import in_order
from hepipe.stores.provenance import digest

_OWN_DRAWS = 2
"""Stream of random numbers of single pairs; 0 and 1 are the sampler's."""


class TileBatches(IterableDataset[Batch]):
    """The batches of steps `start` to `stop` of a sampler, for `DataLoader(batch_size=None)` or a plain loop.

    A batch depends on seed, step and rank only: any number of threads or worker processes gives the same ones in the
    same order, and a training that goes on from `state_dict` sees what it would have seen.

    Attributes:
        sampler: Which tiles, crops and rank.
        start: Step that an iterator begins with.
        stop: Step before which it ends; None: never.
    """

    def __init__(
        self, sampler: Sampler, *, stop: int | None, start: int = 0, threads: int = 2, pin: bool = False
    ) -> None:
        """Choose the steps.

        Args:
            sampler: Which tiles, crops and rank.
            stop: Step before which an iterator ends; None: never.
            start: Step that it begins with.
            threads: That make batches ahead in each process, up to twice as many batches; 0 on demand.
            pin: Into memory that a GPU copies from while the CPU goes on.

        Raises:
            ConfigError: Pinned memory without a GPU.
        """
        if pin and not torch.cuda.is_available():
            raise ConfigError("TileBatches: pin is True, but torch finds no GPU; pin memory only where there is one")
        self.sampler = sampler
        self.start = start
        self.stop = stop
        self._threads = threads
        self._pin = pin
        self._next: int | None = None

    def __len__(self) -> int:
        """Batches of an iterator.

        Raises:
            TypeError: It never ends.
        """
        if self.stop is None:
            raise TypeError("TileBatches without stop never ends")
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[Batch]:
        """From `start` on; in a DataLoader's worker every n-th, which the DataLoader puts together in order.

        Raises:
            ConfigError: `pin` in a worker process, which must not touch a GPU.
        """
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if self._pin and worker is not None:
            raise ConfigError("TileBatches: pin is True in a worker process; give pin_memory=True to its DataLoader")
        first = self.start + number
        steps = itertools.count(first, of) if self.stop is None else range(first, self.stop, of)
        made = batches(self.sampler, steps, workers=self._threads, pin=self._pin)
        if worker is None:
            self._next = self.start
        for step, batch in zip(itertools.count(first, of), made, strict=False):
            if worker is None:
                self._next = step + 1
            yield batch

    def state_dict(self, *, done: int | None = None) -> dict[str, Any]:
        """Where the caller is: of the last batch that an iterator of this process gave, the step after it.

        Args:
            done: Batches that the caller took since `start`. Needed with worker processes, which run ahead.

        Raises:
            ConfigError: No iterator of this process has begun, and `done` is not given.
        """
        if done is not None:
            return {"step": self.start + done, **self._identity()}
        if self._next is None:
            raise ConfigError(
                "TileBatches: this process has taken no batch, so worker processes may have; "
                "give state_dict(done=…), the batches taken since start"
            )
        return {"step": self._next, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin where another left; the number of ranks, threads and workers may be another.

        Raises:
            ConfigError: It was of other tiles, another seed or another way to draw.
        """
        own = self._identity()
        if odd := sorted(name for name in own if state.get(name) != own[name]):
            raise ConfigError(
                f"TileBatches: the state has another {', '.join(odd)} than this sampler; "
                "go on with the settings and tiles that it was made with"
            )
        self.start = int(state["step"])
        self._next = None

    def _identity(self) -> dict[str, Any]:
        sampler = self.sampler
        seen: list[Any] = [sampler.tiles.split, sampler.tiles.mpp, [row.tile_id for row in sampler.tiles.rows]]
        if sampler.tiles.normalization is not None:
            seen.append(sampler.tiles.normalization.model_dump(mode="json"))
        return {
            "tiles": digest(seen),
            "batch_size": sampler.batch_size,
            "crop_px": sampler.crop_px,
            "flips": sampler.flips,
            "seed": sampler.seed,
            "unpaired": sampler.unpaired,
            "replacement": sampler.replacement,
        }


class TilePairs(Dataset[dict[str, Any]]):
    """The tiles of a split one by one, for a DataLoader with its own batches, samplers and ranks.

    An item is a dict: `tile_id` and `marker` str, `he` and `ihc` float32 tensors (3, h, w) in [-1, 1], and what `needs`
    names: `dab_mask` float32 (1, h, w), `score` int. Crop and symmetry are the same for all of an item, and depend on
    seed, epoch and tile only.
    """

    def __init__(
        self,
        tiles: SplitTiles,
        *,
        crop_px: int | None = None,
        flips: bool = False,
        seed: int = 0,
        needs: Sequence[str] = (),
        threads: int = 0,
    ) -> None:
        """Choose what an item is.

        Args:
            tiles: Of one split.
            crop_px: Side of a random crop, px of the view; None: whole tiles.
            flips: Flip and turn.
            seed: Of crops and flips.
            needs: Items beside both stains.
            threads: That decode the items of a batch, in this process or in each worker; 0: one after the other.

        Raises:
            ConfigError: A crop larger than the tiles, or an unknown need.
        """
        if crop_px is not None and not 0 < crop_px <= tiles.side_px:
            raise ConfigError(f"TilePairs: crop_px is {crop_px}, but tiles are {tiles.side_px} px at {tiles.mpp} µm/px")
        if unknown := set(needs) - {"dab_mask", "score"}:
            raise ConfigError(f"TilePairs: needs {', '.join(sorted(unknown))}; dab_mask and score can be had")
        self.tiles = tiles
        self.epoch = 0
        self._crop_px = tiles.side_px if crop_px is None else crop_px
        self._flips = flips
        self._seed = seed
        self._needs = tuple(needs)
        self._threads = threads

    def set_epoch(self, epoch: int) -> None:
        """Crops and flips of another epoch, before its iterator begins; workers that persist do not hear of it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """The pair at a place of the split, whose tiles are sorted by id.

        Raises:
            IndexError: No such place.
        """
        place = range(len(self.tiles))[place]
        row, view = self.tiles.rows[place], self._view(place)
        item: dict[str, Any] = {"tile_id": row.tile_id, "marker": row.marker}
        for name in ("he", "ihc"):
            values = np.empty((3, view.side_px, view.side_px), np.float32)
            fill_from_rgb(view.turned(self.tiles.rgb(name, place, view.crop)), values)
            item[name] = torch.from_numpy(values)
        if "dab_mask" in self._needs:
            mask = view.of(self.tiles.mask("dab_mask", place))
            item["dab_mask"] = torch.from_numpy(np.ascontiguousarray(mask)).float()[None]
        if "score" in self._needs:
            item["score"] = self.tiles.score(place)
        return item

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Several pairs at once; torch's DataLoader asks for a batch this way."""
        return list(in_order(self.__getitem__, places, workers=self._threads, name="tiles"))

    def _view(self, place: int) -> View:
        keys = (self._seed, _OWN_DRAWS, self.epoch, place)
        return drawn_view(keys, side_px=self.tiles.side_px, crop_px=self._crop_px, flips=self._flips)
