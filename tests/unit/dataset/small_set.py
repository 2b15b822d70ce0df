"""A small data set with every artefact that its stages would have left, made without slides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import typer
from typer.testing import CliRunner

from hepipe.cli import dataset, tiles
from hepipe.geometry import identity
from hepipe.specs.tiling import StoreSpec
from hepipe.status import OK, CaseStatus
from hepipe.stores.arrays import content_digest, write_registered, write_tissue
from hepipe.stores.cases import (
    CaseStains,
    CheckedCase,
    SlideFacts,
    SlideStains,
    write_checked,
    write_stains,
)
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import TILES, VERDICTS, write_table
from hepipe.stores.tiles import TileWriter

app = typer.Typer()
tiles.register(app)
dataset.register(app)
SIDE = 16


def run(*arguments: object, code: int = 0) -> str:
    """What a command prints, which ends with this exit status."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def pixels(case_id: str, number: int, stain: str, shade: int = 0) -> np.ndarray:
    seed = [number, *case_id.encode(), *stain.encode()]
    return np.random.default_rng(seed).integers(0, 200, (SIDE, SIDE, 3), np.uint8) + np.uint8(shade)


def write_case(
    folder: Path,
    case_id: str,
    *,
    score: str = "2+",
    n_tiles: int = 4,
    drop: Mapping[int, str] | None = None,
    status: CaseStatus = OK,
    slide: str = "",
    shift: float = 0.0,
    reader: str = "picture",
    tiling: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
    vector: float = 0.27,
    shade: Mapping[str, int] | None = None,
    version: str = "0.1.0",
    first: int = 0,
    split: str | None = None,
    decoder: str = "pillow 12",
    codec: str = "greendelta",
) -> None:
    """Write every artefact of one case.

    Args:
        folder: Of the data set.
        case_id: Its name.
        score: Of its slide.
        n_tiles: How many cells are cut.
        drop: Number of a cell to the filter that drops it.
        status: Of the case.
        slide: Goes into the content of its slides.
        shift: Of the transform, px.
        reader: Of both slides.
        tiling: Section `tiling`.
        quality: Section `quality`.
        vector: Of the DAB.
        shade: Stain to what its pixels are brighter by.
        version: Of hepipe that cut the tiles.
        first: Number of the first cell.
        split: That the sheet asks for.
        decoder: Library that decoded its tiles.
        codec: That they are kept in.
    """
    shade, drop = shade or {}, drop or {}

    def made(artefact: str, **more: Any) -> Provenance:
        return Provenance(artefact=artefact, subject=case_id, status=status, **more)

    facts = {
        stain: SlideFacts(
            slide_id=f"{case_id}-{stain}", reader=reader, format="picture", mpp=0.5, mpp_from="sheet",
            size_px0=(160, 160), origin_px0=(0, 0), downsamples=(1.0,), tissue_mm2=0.05,
            content_sha256=f"{stain}-{case_id}{slide}",
        )
        for stain in ("he", "ihc")
    }  # fmt: skip
    write_checked(
        folder / "checked" / f"{case_id}.json",
        CheckedCase(
            case_id=case_id, patient_id=f"p-{case_id}", marker="HER2", her2_score=score, section="restained",
            split=split, he=facts["he"], ihc=facts["ihc"], provenance=made("checked", spec={"icc": "as_scanned"}),
        ),
    )  # fmt: skip
    transform = None
    if not status.failed:
        transform = identity(fixed_mpp=0.5, moving_mpp=0.5)
        transform.affine[0, 2] = shift
    back = None if transform is None else transform.__class__(np.linalg.inv(transform.affine), 0.5, 0.5)
    inputs = {stain: one.content_sha256 for stain, one in facts.items()}
    write_registered(
        folder / "registered" / f"{case_id}.zarr",
        made("registered", spec={"threads": 1}, inputs=inputs),
        ihc_from_he=transform,
        he_from_ihc=back,
        summary={},
    )
    masks = {"tissue": np.ones((4, 4), bool)}
    write_tissue(folder / "tissue" / f"{case_id}.zarr", made("tissue"), masks=masks, mpp=8.0, summary={})
    own = SlideStains(
        first=(0.65, 0.7, 0.29), second=(vector, 0.57, 0.78), white=(255, 255, 255), method="fixed", n_pixels=0
    )
    stains = {"he": own, "ihc": own}
    write_stains(
        folder / "stains" / f"{case_id}.json",
        CaseStains(case_id=case_id, he=stains["he"], ihc=stains["ihc"], provenance=made("stains")),
    )
    told = {"decoders": {"he": decoder, "ihc": decoder}}
    of_tiles = made("tiles", spec=dict(tiling or {"mpp": 0.5}), version=version, told=told)
    rows, verdicts = [], []
    arrays = {"he": 3, "ihc": 3, "dab_mask": 0}
    storing = StoreSpec.model_validate({"codec": codec})
    path = folder / "tiles" / f"{case_id}.zarr"
    with TileWriter(path, of_tiles, mpp=0.5, tile_px=SIDE, arrays=arrays, spec=storing) as writer:
        for number in range(first, first + (0 if status.failed else n_tiles)):
            he, ihc = (pixels(case_id, number, stain, shade.get(stain, 0)) for stain in ("he", "ihc"))
            row = writer.add(he=he, ihc=ihc, dab_mask=ihc[..., 2] < 60)
            rows.append(
                {
                    "tile_id": f"{case_id}/{number}-0", "case_id": case_id, "patient_id": f"p-{case_id}",
                    "slide_id": f"{case_id}-he", "batch": "b1", "row_in_store": row, "problem": "",
                    "x_px0": number * SIDE, "y_px0": 0, "canvas_x_px0": number * SIDE, "canvas_y_px0": 0, "mpp": 0.5,
                    "her2_score": score, "score_level": "slide", "marker": "HER2", "section": "restained",
                    "source_split": None,
                    "source_set": "", "source_name": "", "warped_stain": "ihc", "tissue_frac": 1.0, "region": "",
                    "place": "inside", "he_sha256": content_digest(he), "ihc_sha256": content_digest(ihc),
                    "he_phash": None, "ihc_phash": None, "measurements": {"dab_frac": 0.25},
                }
            )  # fmt: skip
            reason = drop.get(number, "")
            verdicts.append(
                {
                    "tile_id": f"{case_id}/{number}-0", "keep": not reason, "reason": reason,
                    "flags": [reason] if reason else [], "alignment": "aligned",
                }
            )  # fmt: skip
        writer.finish()
    write_table(rows, folder / "tiles" / f"{case_id}.parquet", TILES, of_tiles)
    write_table(
        verdicts, folder / "verdict" / f"{case_id}.parquet", VERDICTS, made("verdict", spec=dict(quality or {}))
    )


def assemble(folder: Path, *cases: str, **splits: Any) -> Path:
    """Assemble the cases by the command."""
    files = ["--index", folder / "index.parquet", "--card", folder / "dataset.json"]
    run("assemble", "--folder", folder, "--cases", ",".join(cases), *files, "--spec", json.dumps(splits))
    return folder


def write_set(folder: Path, **changes: Any) -> Path:
    """A data set of the cases a, b, c and d; `changes` of case a."""
    for case_id, score in zip("abcd", ("0", "1+", "2+", "3+"), strict=True):
        own = {"score": score, **(changes if case_id == "a" else {})}
        write_case(folder, case_id, **own)
    return assemble(folder, *"abcd")
