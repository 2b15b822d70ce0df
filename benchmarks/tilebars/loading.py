"""Random tiles of a training through hepipe's loader, against the same tiles as PNG files and through zarr-python.

    python benchmarks/tilebars/loading.py HE_SLIDE IHC_SLIDE FOLDER

A child of its own: prints JSON. Tiles of 512 px lie in tissue of both slides; the IHC is turned by 1.3 degrees with
bilinear interpolation, as a store holds it. CPU seconds of this process, the least of several rounds, all in turn over
the same random order; files are in the system's cache for everyone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

TILE_PX, CROP_PX, TILES, BATCH, ROUNDS = 512, 256, 96, 8, 7
MIN_PNG, MIN_ZARR, MAX_BYTES = 4.0, 2.0, 0.90
TURN_DEG, MARGIN_PX = 1.3, 24
MIN_COLOUR = 12.0
"""Mean difference of the channels of a tile that counts as tissue, grey levels."""


def measure(table: Any, he: Path, ihc: Path, work: Path) -> None:
    """The rows of this bar."""
    from bars.child import run
    from tilebars.rivals import said

    ran = run([sys.executable, str(Path(__file__)), str(he), str(ihc), str(work)])
    found = said(ran)
    if not found:
        table.add("random tiles of 512 px", f"exit {ran.status}: {ran.last[:120]}", "figures", False)
        return
    ms = found["ms"]
    png = min(ms["PIL"], ms["cv2"])
    which = "PIL" if png == ms["PIL"] else "cv2"
    table.add(
        "random tiles of 512 px, SplitTiles.rgb : PNG files",
        f"{png / ms['ours']:.2f} × {which} ({1e3 / ms['ours']:.0f} tiles a CPU s, {ms['ours']:.2f} ms; "
        f"PIL {ms['PIL']:.2f}, cv2 {ms['cv2']:.2f} ms), bytes {found['bytes']:.3f} of PNG's",
        f"≥ {MIN_PNG:g} × the faster at ≤ {MAX_BYTES:.2f} of its bytes",
        png / ms["ours"] >= MIN_PNG and found["bytes"] <= MAX_BYTES,
    )
    table.add(
        "the same store through zarr-python : PNG files",
        f"{png / ms['zarr']:.2f} × {which} ({ms['zarr']:.2f} ms)",
        f"≥ {MIN_ZARR:g} ×",
        png / ms["zarr"] >= MIN_ZARR,
    )
    table.add(
        "crops of 256 px of both stains as tensors, TileBatches : the same of PNG files by cv2 and torch",
        f"{ms['png batch'] / ms['batch']:.2f} × ({1e3 / ms['batch']:.0f} pairs a CPU s, {ms['batch']:.2f} : "
        f"{ms['png batch']:.2f} ms; without crops {ms['whole batch']:.2f} ms)",
    )
    table.add(
        "the same batches by two threads : by one",
        f"CPU {ms['batch by two'] / ms['batch by one']:.2f} ×",
        "≤ 1.15 ×",
        ms["batch by two"] <= 1.15 * ms["batch by one"],
    )


def main() -> None:
    """Write both forms, check that they hold the same, and time them."""
    import torch
    import zarr
    from PIL import Image

    from hepipe.dataset.loading import TileBatches
    from hepipe.dataset.tiles import Sampler, SplitTiles, rgb_from_tensor

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    he, ihc, work = map(Path, sys.argv[1:])
    index, files = write(he, ihc, work)
    tiles = SplitTiles(index, "train")
    array = zarr.open_group(index.parent / "tiles/c.zarr", mode="r")
    arrays = {name: array[name] for name in ("he", "ihc")}
    random = np.random.default_rng(1)
    order = [(name, int(place)) for place in random.permutation(TILES) for name in ("he", "ihc")]

    def by_pil(name: str, place: int) -> np.ndarray:
        with Image.open(files[name][place]) as picture:
            return np.asarray(picture)

    def by_cv2(name: str, place: int) -> np.ndarray:
        return cv2.cvtColor(cv2.imread(str(files[name][place])), cv2.COLOR_BGR2RGB)

    def by_zarr(name: str, place: int) -> np.ndarray:
        return np.asarray(arrays[name][place])

    for name, place in order:
        ours = tiles.rgb(name, place)
        for read in (by_pil, by_cv2, by_zarr):
            assert np.array_equal(read(name, place), ours), (read, name, place)

    def png_batches(sampler: Sampler) -> Iterator[torch.Tensor]:
        for step in range(TILES // BATCH):
            stacks = []
            draws = range(step * BATCH, (step + 1) * BATCH)
            for name in ("he", "ihc"):
                crops = []
                for draw in draws:
                    view = sampler._view(draw, stream=0)
                    rgb = torch.from_numpy(by_cv2(name, sampler._place(draw, stream=0))).permute(2, 0, 1)
                    crop = rgb[:, view.y : view.y + view.side_px, view.x : view.x + view.side_px]
                    crop = torch.rot90(crop, view.turns, (1, 2))
                    crop = crop.flip(2) if view.mirrored else crop
                    crops.append(crop.contiguous().float() / 127.5 - 1)
                stacks.append(torch.stack(crops))
            yield torch.stack(stacks)

    def sampler(crop_px: int) -> Sampler:
        return Sampler(tiles, batch_size=BATCH, crop_px=crop_px, flips=True, seed=3)

    def batches(crop_px: int, threads: int) -> TileBatches:
        return TileBatches(sampler(crop_px), stop=TILES // BATCH, threads=threads)

    for one, other in zip(batches(CROP_PX, 0), png_batches(sampler(CROP_PX)), strict=True):
        assert torch.equal(torch.stack([one.he, one.ihc]), other)
        rgb_from_tensor(one.he[0])

    def each(read: Callable[[str, int], np.ndarray]) -> Callable[[], None]:
        def work() -> None:
            for name, place in order:
                read(name, place)

        return work

    works: dict[str, tuple[Callable[[], object], int]] = {
        "ours": (each(tiles.rgb), len(order)),
        "PIL": (each(by_pil), len(order)),
        "cv2": (each(by_cv2), len(order)),
        "zarr": (each(by_zarr), len(order)),
        "batch": (lambda: [None for _ in batches(CROP_PX, 0)], TILES),
        "whole batch": (lambda: [None for _ in batches(TILE_PX, 0)], TILES),
        "png batch": (lambda: [None for _ in png_batches(sampler(CROP_PX))], TILES),
        "batch by one": (lambda: [None for _ in batches(CROP_PX, 1)], TILES),
        "batch by two": (lambda: [None for _ in batches(CROP_PX, 2)], TILES),
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, (run, count) in works.items():
            began = time.process_time()
            run()
            best[name] = min(best[name], 1e3 * (time.process_time() - began) / count)
    kept = sum(file.stat().st_size for file in index.parent.glob("tiles/c.zarr/*/c/**/*") if file.is_file())
    png = sum(file.stat().st_size for names in files.values() for file in names)
    print(json.dumps({"ms": best, "bytes": kept / png}))


def write(he: Path, ihc: Path, work: Path) -> tuple[Path, dict[str, list[Path]]]:
    """A data set of one case in the default codec, and the same tiles as PNG files; the index and the files."""
    from PIL import Image

    from hepipe.stores.provenance import Provenance
    from hepipe.stores.tables import INDEX, write_table
    from hepipe.stores.tiles import TileWriter

    root = work / "loading"
    files: dict[str, list[Path]] = {"he": [], "ihc": []}
    rows = []
    with TileWriter(
        root / "tiles/c.zarr", Provenance(artefact="tiles", subject="c"), mpp=0.5, tile_px=TILE_PX,
        arrays={"he": 3, "ihc": 3},
    ) as writer:  # fmt: skip
        pairs = zip(tissue(he, turn_deg=0.0), tissue(ihc, turn_deg=TURN_DEG), strict=True)
        for number, pair in enumerate(pairs):
            for name, tile in zip(files, pair, strict=True):
                file = root / "png" / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(tile).save(file)
                files[name].append(file)
            writer.add(he=pair[0], ihc=pair[1])
            row = dict.fromkeys(INDEX.names, "") | dict.fromkeys(("x_px0", "y_px0", "canvas_x_px0", "canvas_y_px0"), 0)
            row |= {"fold": None, "tile_id": f"{number:04d}", "row_in_store": number, "mpp": 0.5, "tissue_frac": 1.0}
            rows.append(row | {"measurements": {}, "store": "tiles/c.zarr", "split": "train", "place": "inside"})
        writer.finish()
    write_table(rows, root / "index.parquet", INDEX, Provenance(artefact="index", subject="loading"))
    return root / "index.parquet", files


def tissue(path: Path, *, turn_deg: float) -> Iterator[np.ndarray]:
    """Random tiles of a slide's tissue, turned about their middles."""
    import openslide

    random = np.random.default_rng(5)
    side = TILE_PX + 2 * MARGIN_PX
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), turn_deg, 1.0)
    with openslide.OpenSlide(path) as slide:
        found = 0
        for _ in range(100 * TILES):
            corner = tuple(int(random.integers(0, full - side)) for full in slide.dimensions)
            region = np.asarray(slide.read_region(corner, 0, (side, side)))[..., :3]
            if np.ptp(region, axis=2).mean() < MIN_COLOUR:
                continue
            turned = cv2.warpAffine(region, turn, (side, side), flags=cv2.INTER_LINEAR) if turn_deg else region
            yield np.ascontiguousarray(turned[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])
            found += 1
            if found == TILES:
                return
    raise SystemExit(f"{path.name}: {found} tiles of tissue found, {TILES} needed")


if __name__ == "__main__":
    main()
