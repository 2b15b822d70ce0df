"""A/B folders and side-by-side pictures: what pix2pix, CycleGAN, CUT and most models after them read.

Isola et al., CVPR 2017 (side by side: `--dataset_mode aligned`, A left); Zhu et al., ICCV 2017, and Park et al., ECCV
2020 (trainA, trainB, …: `unaligned`); Liu et al., CVPR workshops 2022 (BCI: HE/train, IHC/train).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hepipe.exporters.cards import record_of, travelling
from hepipe.exporters.growing import Growing, Row, manifest_row
from hepipe.exporters.selection import Selection, png
from hepipe.parallel import in_order

Layout = Literal["cyclegan", "bci", "split"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
PER_PART = 256
"""Tiles after which the journal is written: what a kill repeats at most."""
_PATTERNS: dict[Layout, str] = {
    "cyclegan": "{split}{letter}/{name}",
    "bci": "{stain}/{split}/{name}",
    "split": "{split}/{letter}/{name}",
}
_STAINS = (("he", "A", "HE"), ("ihc", "B", "IHC"))
_WHAT: dict[Layout, str] = {
    "cyclegan": "A is H&E, B is IHC; files of a pair have the same name. CycleGAN, CUT and pix2pix's script "
    "`combine_A_and_B` read folders like these.",
    "bci": "Files of a pair have the same name in HE and IHC, as in BCI; `hepipe import` reads them with kind folder.",
    "split": "A is H&E, B is IHC; files of a pair have the same name. `hepipe import` reads them with kind folder, "
    "he: A and ihc: B.",
}


_MIXED = "Some are JPEG and others PNG, as the store holds them, so that files of a pair may differ in their suffix."


def export_folders(
    selection: Selection, out: Path, *, layout: Layout = "cyclegan", stored: bool = False, workers: int = 1
) -> dict[str, int]:
    """Write both stains as files of their own, PNG unless `stored` asks for the JPEGs of the store.

    Returns:
        Files by suffix.

    Raises:
        ConfigError: Something else stands in the folder.
        StoreError: A tile is damaged, or the disk fails.
    """

    def pictures(row: Row) -> list[Row]:
        rows: list[Row] = []
        for role, letter, stain in _STAINS:
            content, suffix = selection.picture(row, role, stored=stored)
            name = f"{_place(layout, row, letter, stain, selection)}.{suffix}"
            growing.write(name, content)
            rows.append(manifest_row(row, name, role, hashlib.sha256(content).hexdigest()))
        return rows

    options = {**selection.identity(), "layout": layout, "stored": stored}
    with Growing(out, kind="ab", options=options) as growing:
        manifest = _by_parts(selection, growing, pictures, workers=workers)
        suffixes = ("png", "jpg")
        counts = {suffix: sum(row["file"].endswith(f".{suffix}") for row in manifest) for suffix in suffixes}
        files = [
            (_PATTERNS[layout].format(split=split, letter=letter, stain=stain, name="*"), f"{stain}, split {split}")
            for split in selection.used
            for _, letter, stain in _STAINS
        ]
        what = f"{_WHAT[layout]} {_MIXED}" if all(counts.values()) else _WHAT[layout]
        beside = travelling(selection, what=what, files=files)
        growing.finish(manifest, beside, {**record_of(selection), "files": counts})
    return {suffix: count for suffix, count in counts.items() if count}


def export_side_by_side(selection: Selection, out: Path, *, workers: int = 1) -> dict[str, int]:
    """Write H&E left, IHC right as one PNG, in folders train, val and test.

    Returns and raises as `export_folders`.
    """

    def picture(row: Row) -> list[Row]:
        content = png(np.concatenate([selection.rgb(row, "he"), selection.rgb(row, "ihc")], axis=1))
        name = f"pairs/{row['split']}/{selection.name(row)}.png"
        growing.write(name, content)
        return [manifest_row(row, name, "pair", hashlib.sha256(content).hexdigest())]

    with Growing(out, kind="pix2pix", options=selection.identity()) as growing:
        manifest = _by_parts(selection, growing, picture, workers=workers)
        what = (
            "A picture is a pair, H&E left and IHC right. pix2pix reads it (`--direction AtoB`), and `hepipe import` "
        )
        beside = travelling(
            selection,
            what=f"{what}with kind aligned.",
            files=[(f"pairs/{split}/*.png", f"pairs of split {split}") for split in selection.used],
        )
        growing.finish(manifest, beside, {**record_of(selection), "files": {"png": len(manifest)}})
    return {"png": len(manifest)}


def _place(layout: Layout, row: Row, letter: str, stain: str, selection: Selection) -> str:
    return _PATTERNS[layout].format(split=row["split"], letter=letter, stain=stain, name=selection.name(row))


def _by_parts(selection: Selection, growing: Growing, work: Callable[[Row], list[Row]], *, workers: int) -> list[Row]:
    rows = selection.rows
    starts = range(0, len(rows), PER_PART)

    def part(number: int) -> Iterator[list[Row]]:
        here = rows[starts[number] : starts[number] + PER_PART]
        return in_order(work, here, workers=workers, name="export")

    counts = [min(PER_PART, len(rows) - start) for start in starts]
    return growing.parts(part, counts, name="export")
