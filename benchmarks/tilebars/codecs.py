"""Bytes and speed of the store's codecs against PNG files of the same tiles, read at random.

    python benchmarks/tilebars/codecs.py DATA WORK

A child of its own: prints JSON. Tiles of 512 px, those with the most tissue of each slide, are as scanned and, as IHC
tiles come into a store, warped with one interpolation. PNG files are Pillow's at its default: bytes and encode rates
are against those, read rates against the faster of Pillow and OpenCV on them. OpenCV's own PNG, quick and large, stands
in the row of jxl without a bar. CPU seconds are the best of several rounds, in turn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

TILE_PX, A_SLIDE, ROUNDS = 512, 8, 3
SLIDES = (
    "wsi-aperio-cmu1-small/CMU-1-Small-Region.svs",
    "wsi-crc15-ihc-pyramid/CRC-AI-15_X40_IHC.tif",
    "reg-four-scanner-574162/A_BB_574162_1.svs",
    "reg-four-scanner-574162/N2_BB_574162_1.ndpi",
    "reg-four-scanner-574162/Z_BB_574162_1.tif",
    "reg-three-scanner-568381/A_BB_568381_1.svs",
    "reg-three-scanner-568381/N1_BB_568381_1.ndpi",
)
"""Of four scanners; the second is an IHC."""
MAX_BYTES, MIN_RATE, MIN_ZARR_RATE = 0.90, 4.0, 2.0
JXL_BYTES, JXL_DECODE, JXL_ENCODE = 1.0, 0.7, 3.0

Tiles = list[np.ndarray]


def measure(table: Any, data: Path, work: Path) -> None:
    """The rows of the two bars on codecs, and one without a bar for each other codec."""
    from bars.child import run
    from tilebars.rivals import said

    ran = run([sys.executable, str(Path(__file__)), str(data), str(work)])
    found = said(ran)
    if not found:
        table.add("codecs, random tiles of 512 px", f"exit {ran.status}: {ran.last[:120]}", "a figure", False)
        return
    for kind, codecs in found["kinds"].items():
        gd, jxl = codecs["greendelta"], codecs["jxl"]
        table.add(
            f"greendelta, random read of a {kind} tile : PNG file, {found['tiles']} tiles of {found['slides']} slides",
            f"{gd['read']:.1f} × ({gd['read_ms']:.2f} : {gd['png_ms']:.2f} ms, {gd['rival']}) at {gd['bytes']:.3f} × "
            f"the bytes; through zarr-python {gd['zarr']:.1f} × ({gd['zarr_ms']:.2f} ms)",
            f"≥ {MIN_RATE:g} × at ≤ {MAX_BYTES:.2f} ×; zarr ≥ {MIN_ZARR_RATE:g} ×",
            gd["read"] >= MIN_RATE and gd["bytes"] <= MAX_BYTES and gd["zarr"] >= MIN_ZARR_RATE,
        )
        table.add(
            f"jxl, {kind} tiles : PNG",
            f"{jxl['bytes']:.3f} × the bytes, {jxl['decode_cv2']:.2f} × the decode rate (cv2), {jxl['encode']:.1f} × "
            f"the encode rate ({jxl['encode_ms']:.1f} : {jxl['png_encode_ms']:.1f} ms); of OpenCV's quick PNG "
            f"{jxl['quick_bytes']:.2f} × the bytes, {jxl['quick']:.1f} × the encode rate",
            f"≤ {JXL_BYTES:.1f} ×, ≥ {JXL_DECODE:.1f} ×, ≥ {JXL_ENCODE:.0f} ×",
            jxl["bytes"] <= JXL_BYTES and jxl["decode_cv2"] >= JXL_DECODE and jxl["encode"] >= JXL_ENCODE,
        )
        for name, one in codecs.items():
            if name not in ("greendelta", "jxl"):
                table.add(
                    f"{name}, {kind} tiles : PNG",
                    f"{one['bytes']:.3f} × the bytes, {one['read']:.1f} × the read rate, {one['encode']:.1f} × the "
                    f"encode rate; of pixels {one['share']:.3f}, read {one['read_ms']:.2f} ms, "
                    f"encode {one['encode_ms']:.1f} ms",
                )
    for kind, slides in found["of_slides"].items():
        table.add(f"greendelta, bytes : PNG by slide, {kind}", ", ".join(f"{ratio:.2f}" for ratio in slides))


def main() -> None:
    """Measure every codec on tiles as scanned and on warped ones."""
    cv2.setNumThreads(1)
    data, work = map(Path, sys.argv[1:])
    slides = [cut(data / name) for name in SLIDES]
    kinds = {"scanned": [scanned for scanned, _ in slides], "warped": [warped for _, warped in slides]}
    result: dict[str, Any] = {"tiles": sum(map(len, kinds["scanned"])), "slides": len(slides), "kinds": {}}
    result["of_slides"] = {kind: [round(by_bytes(tiles), 3) for tiles in each] for kind, each in kinds.items()}
    for kind, each in kinds.items():
        result["kinds"][kind] = measured([tile for tiles in each for tile in tiles], work / f"codecs-{kind}")
    print(json.dumps(result))


def measured(tiles: Tiles, work: Path) -> dict[str, Any]:
    """Every codec's figures, and PNG's in the same rounds."""
    import zarr
    from PIL import Image
    from tilebars.stains import in_turn

    from hepipe.specs.tiling import StoreSpec
    from hepipe.stores.provenance import Provenance
    from hepipe.stores.tiles import TileStore, TileWriter, codec_for

    work.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(tiles)).tolist()
    pngs = [work / f"{row}.png" for row in range(len(tiles))]
    for tile, path in zip(tiles, pngs, strict=True):
        Image.fromarray(tile).save(path)
    png_bytes = sum(path.stat().st_size for path in pngs)
    encodings = {
        "Pillow": lambda: each(lambda tile: Image.fromarray(tile).save(work / "again.png"), tiles),
        "OpenCV": lambda: each(lambda tile: cv2.imencode(".png", tile), tiles),
    }
    rivals = {
        "Pillow": lambda: each(lambda row: np.asarray(Image.open(pngs[row])), order),
        "OpenCV": lambda: each(lambda row: cv2.imread(str(pngs[row])), order),
    }
    per = 1e3 / len(tiles)
    png_encode = dict(zip(encodings, in_turn(list(encodings.values()), rounds=2), strict=True))
    quick_bytes = sum(len(cv2.imencode(".png", tile)[1]) for tile in tiles)
    found = {}
    made = Provenance(artefact="tiles", subject="bar")
    for name in ("greendelta", "jxl", "zstd", "jpeg", "raw"):
        spec = StoreSpec(codec=name)
        path = work / f"{name}.zarr"
        with TileWriter(path, made, mpp=0.5, tile_px=TILE_PX, arrays={"he": 3}, spec=spec) as writer:
            for tile in tiles:
                writer.add(he=tile)
            writer.finish()
        store, array, codec = TileStore(path), zarr.open_group(path, mode="r")["he"], codec_for(spec)
        if codec.lossless:
            assert all(np.array_equal(store.read("he", row), tile) for row, tile in enumerate(tiles)), name
        works: list[Callable[[], object]] = [
            *rivals.values(),
            partial(each, partial(store.read, "he"), order),
            partial(each, array.__getitem__, order),
            partial(each, codec.encode, tiles),
        ]
        pillow, opencv, read, through_zarr, encode = in_turn(works, rounds=ROUNDS)
        stored = sum(shard.stat().st_size for shard in path.glob("he/c/*/0/0/0"))
        png = min(pillow, opencv)
        found[name] = {
            "bytes": stored / png_bytes,
            "share": stored / sum(tile.nbytes for tile in tiles),
            "read": png / read,
            "zarr": png / through_zarr,
            "decode_cv2": opencv / read,
            "encode": png_encode["Pillow"] / encode,
            "quick": png_encode["OpenCV"] / encode,
            "quick_bytes": stored / quick_bytes,
            "rival": "Pillow" if png == pillow else "OpenCV",
            "read_ms": per * read,
            "zarr_ms": per * through_zarr,
            "png_ms": per * png,
            "encode_ms": per * encode,
            "png_encode_ms": per * png_encode["Pillow"],
        }
    return found


def each(do: Callable[[Any], object], things: Iterable[Any]) -> None:
    """Call a function with one thing after the other and keep none of the results."""
    for thing in things:
        do(thing)


def cut(path: Path) -> tuple[Tiles, Tiles]:
    """The tiles of a slide's grid with the most tissue, as scanned and warped."""
    import openslide

    found = []
    margin, side = 16, TILE_PX + 32
    turn = np.array([[np.cos(0.02), np.sin(0.02), -margin + 3.3], [-np.sin(0.02), np.cos(0.02), -margin + 5.7]])
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        for y in range(0, height - side, TILE_PX):
            for x in range(0, width - side, TILE_PX):
                seen = np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))
                found.append(((np.ptp(seen, axis=2) > 8).mean(), seen))
    found.sort(key=lambda one: -one[0])
    kept = [seen for _, seen in found[:A_SLIDE]]
    scanned = [np.ascontiguousarray(seen[margin:-margin, margin:-margin]) for seen in kept]
    return scanned, [cv2.warpAffine(seen, turn, (TILE_PX, TILE_PX), flags=cv2.INTER_LINEAR) for seen in kept]


def by_bytes(tiles: Iterable[np.ndarray]) -> float:
    """Bytes of greendelta against those of PNG."""
    import io

    from PIL import Image

    from hepipe.stores.codecs import Greendelta

    ours = theirs = 0
    for tile in tiles:
        png = io.BytesIO()
        Image.fromarray(tile).save(png, "png")
        theirs += png.tell()
        ours += len(Greendelta().encode(tile))
    return ours / theirs


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a file, it finds only what lies beside it
    main()
