"""WebDataset: tar files of samples, whose members share what stands before the first dot of their names.

Aizman et al., High performance I/O for large scale deep learning, 2019; index as the library's `wids` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hepipe.exporters.cards import record_of, travelling
from hepipe.exporters.growing import Growing, Row, manifest_row
from hepipe.exporters.selection import Selection, png
from hepipe.exporters.shards import Order, Shard, file_digest, plan
from hepipe.parallel import in_order


def export_webdataset(
    selection: Selection, out: Path, *, shard_mb: int = 1000, order: Order = "id", workers: int = 1
) -> dict[str, int]:
    """Write `<split>-<number>.tar` with `key.he.png`, `key.ihc.png`, `key.dab_mask.png` and `key.json` a tile.

    Returns:
        Shards and samples.

    Raises:
        ConfigError: Something else stands in the folder, or a shard is too small.
        StoreError: A tile is damaged, or the disk fails.
    """
    shards = plan(selection, shard_mb=shard_mb, order=order)

    def sample(row: Row) -> list[tuple[str, bytes]]:
        key = selection.name(row)
        members = [(f"{key}.{stain}.png", png(selection.rgb(row, stain))) for stain in ("he", "ihc")]
        if selection.has_masks:
            members.append((f"{key}.dab_mask.png", png(selection.mask(row))))
        facts = json.dumps(selection.facts(row), sort_keys=True, ensure_ascii=False)
        return sorted([*members, (f"{key}.json", facts.encode())])

    def write(number: int) -> Iterator[Sequence[Row]]:
        shard = shards[number]
        name = _name(shard)
        with tarfile.open(growing.place(name), "w", format=tarfile.USTAR_FORMAT) as tar:
            made = in_order(sample, shard.rows, workers=workers, name="export")
            for row, members in zip(shard.rows, made, strict=True):
                whole = hashlib.sha256()
                for member, content in members:
                    _add(tar, member, content)
                    whole.update(content)
                yield [manifest_row(row, f"{name}/{selection.name(row)}", "sample", whole.hexdigest())]

    options = {**selection.identity(), "shard_mb": shard_mb, "order": order}
    with Growing(out, kind="webdataset", options=options) as growing:
        manifest = growing.parts(write, [len(shard.rows) for shard in shards], name="export")
        listed = [_listed(growing, shard) for shard in shards]
        beside = travelling(
            selection,
            what="WebDataset: a sample is `key.he.png`, `key.ihc.png`"
            + (", `key.dab_mask.png` (255 where DAB is positive)" if selection.has_masks else "")
            + " and `key.json`, which has the tile's id, case, score and measurements.",
            files=[
                *((f"{split}-*.tar", f"shards of split {split}") for split in selection.used),
                *((f"{split}.json", f"index of the shards of {split}, as `wids` reads it") for split in selection.used),
            ],
        )
        for split in selection.used:
            own = [entry for shard, entry in zip(shards, listed, strict=True) if shard.split == split]
            beside[f"{split}.json"] = _index(selection.card.name, split, own)
        growing.finish(manifest, beside, {**record_of(selection), "shards": listed})
    return {"shards": len(shards), "samples": len(manifest)}


def _name(shard: Shard) -> str:
    return f"{shard.split}-{shard.number:06d}.tar"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member that says nothing of when, where and by whom it was made."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))


def _listed(growing: Growing, shard: Shard) -> dict[str, Any]:
    path = growing.place(_name(shard))
    return {
        "url": path.name,
        "nsamples": len(shard.rows),
        "filesize": path.stat().st_size,
        "sha256": file_digest(path),
    }


def _index(name: str, split: str, shards: Sequence[Mapping[str, Any]]) -> bytes:
    index = {"wids_version": 1, "name": f"{name}-{split}", "shardlist": shards}
    return (json.dumps(index, indent=1) + "\n").encode()
