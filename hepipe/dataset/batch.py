"""What a training step sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tiles of one iteration on one device.

    Attributes:
        tile_ids: Of the H&E tiles.
        he: H&E in [-1, 1].
        ihc: IHC in [-1, 1]; of the same tiles, or drawn independently where the model's PAIRING is unpaired.
        markers: The stain of each ihc tile.
        extras: What NEEDS names beyond these; read it as `batch["dab_mask"]`. `dab_mask` is float (b, 1, h, w), 1 where
            DAB is positive; `score` int64 (b), 0 to 3; `loose_ihc` as `ihc`, drawn independently.
        streams: Further samplers with their own batch size, by name.
    """

    tile_ids: tuple[str, ...]
    he: Float[Tensor, "b 3 h w"]
    ihc: Float[Tensor, "b 3 h w"]
    markers: tuple[str, ...]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    streams: Mapping[str, Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tile_ids)

    def __getitem__(self, name: str) -> Tensor:
        """An item that NEEDS names.

        Raises:
            KeyError: The model reads what its NEEDS does not name.
        """
        return self.extras[name]

    def pieces(self, n: int) -> list[Batch]:
        """The same tiles as `n` smaller batches, of sizes that differ by one at most.

        A stream is cut likewise, whatever its own size.
        """
        streams = {name: stream.pieces(n) for name, stream in self.streams.items()}
        edges = [len(self) * i // n for i in range(n + 1)]
        assert 0 < n <= len(self), (n, len(self))
        cuts = [slice(a, b) for a, b in pairwise(edges)]
        return [
            Batch(
                self.tile_ids[cut],
                self.he[cut],
                self.ihc[cut],
                self.markers[cut],
                {name: value[cut] for name, value in self.extras.items()},
                {name: parts[i] for name, parts in streams.items()},
            )
            for i, cut in enumerate(cuts)
        ]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU copies from on its own; torch's DataLoader calls this by its name."""
        return self._each(lambda values: values.pin_memory())

    def _each(self, made: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            self.tile_ids,
            made(self.he),
            made(self.ihc),
            self.markers,
            {name: made(value) for name, value in self.extras.items()},
            {name: stream._each(made) for name, stream in self.streams.items()},
        )
